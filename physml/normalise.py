"""Physical units to network units and back: the only place where numbers change units."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace

import torch
from torch import Tensor, nn

from physml.configured import Configured
from physml.fields import Batch, GridField


class Normaliser(Configured, nn.Module):
    """``u_network = (u - mean) / std`` for each field, and what an operator's output means in network units.

    The statistics are buffers, so that they travel in every checkpoint. They are set once from the training split by
    :meth:`learn`; until then the map is the identity.

    Shapes: ``mean`` and ``std`` ``(C,)``, physical units.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()

    def allocate(self, channels: int, steps: int) -> None:
        """Make the buffers for ``channels`` fields and ``steps`` predicted frames."""
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    def learn(self, mean: Tensor, std: Tensor, increment_std: Tensor, stride: int) -> None:
        """Take the moments of the training split, ``(C,)`` each; ``stride`` stored frames are one step of the
        operator.
        """
        self.mean.copy_(mean)
        self.std.copy_(std)

    def encode(self, values: Tensor) -> Tensor:
        """Physical ``(..., C)`` to network units."""
        return (values - self.mean) / self.std

    def decode(self, values: Tensor) -> Tensor:
        """Network units ``(..., C)`` to physical."""
        return values * self.std + self.mean

    @abstractmethod
    def assemble(self, window: Tensor, output: Tensor) -> Tensor:
        """Frames in network units from the operator's output.

        Args:
            window: what the operator read, ``(B, T, *space, C)``, network units.
            output: what it returned, ``(B, K, *space, C)``.

        Returns:
            ``(B, K, *space, C)``, network units.
        """

    def forward(self, batch: Batch) -> Batch:
        """The batch in network units."""

        def encode(field: GridField) -> GridField:
            return replace(field, values=self.encode(field.values))

        return replace(
            batch,
            inputs={name: encode(field) for name, field in batch.inputs.items()},
            targets={name: encode(field) for name, field in batch.targets.items()},
        )


class Standardise(Normaliser):
    """The operator's output is the standardised state itself."""

    def assemble(self, window: Tensor, output: Tensor) -> Tensor:
        return output


class Increments(Normaliser):
    """The operator's output is the change since the last known frame, in units of its usual size.

    ``u_k = u_0 + s_k f_k``, ``k = 1..K``, with ``s_k = min(k r, sqrt(2))`` and ``r`` the standard deviation of the
    change over
    one step divided by that of the state: changes grow in proportion to time at first and cannot exceed the
    difference of two unrelated states. An operator that returns zero is then persistence.
    """

    scale: Tensor

    def allocate(self, channels: int, steps: int) -> None:
        super().allocate(channels, steps)
        self.register_buffer("scale", torch.ones(steps, channels))

    def learn(self, mean: Tensor, std: Tensor, increment_std: Tensor, stride: int) -> None:
        super().learn(mean, std, increment_std, stride)
        lead = stride * torch.arange(1, len(self.scale) + 1, dtype=mean.dtype)[:, None]
        self.scale.copy_((lead * increment_std / std).clamp(max=2**0.5))

    def assemble(self, window: Tensor, output: Tensor) -> Tensor:
        scale = self.scale[: output.shape[1]]
        scale = scale.reshape(scale.shape[0], *[1] * (output.ndim - 3), scale.shape[1])
        return window[:, -1:] + scale * output
