"""Physical units to network units and back: the only place where numbers change units."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from physml.configured import Configured
from physml.fields import Batch, GridField, Setting


class Normaliser(Configured, nn.Module):
    """``u_network = (u - mean) / std`` for each field, and what an operator's output means in network units.

    The same map holds, with moments of their own, for the static fields and the numbers that the operator reads. The
    moments are buffers, so that they travel in every checkpoint. They are set once from the training split by
    :meth:`learn` and :meth:`learn_setting`; until then the map is the identity.

    Shapes: ``mean`` and ``std`` ``(C,)``, ``static_mean`` and ``static_std`` ``(S,)``, ``number_mean`` and
    ``number_std`` ``(P,)``, physical units.

    Attributes:
        condition: names of the P numbers, in the order of the columns of ``Setting.numbers``.
    """

    mean: Tensor
    std: Tensor
    static_mean: Tensor
    static_std: Tensor
    number_mean: Tensor
    number_std: Tensor
    condition: tuple[str, ...]

    def __init__(self) -> None:
        super().__init__()

    def allocate(
        self, channels: int, steps: int, *, frames: int = 1, static: int = 0, condition: Sequence[str] = ()
    ) -> None:
        """Make the buffers of an operator.

        Args:
            channels: fields C.
            steps: frames predicted by one call K.
            frames: frames read T.
            static: static fields read S.
            condition: names of the numbers read.
        """
        self.condition = tuple(condition)
        for name, count in (("", channels), ("static_", static), ("number_", len(self.condition))):
            # an operator that reads no setting has nothing of it in its checkpoint
            self.register_buffer(f"{name}mean", torch.zeros(count), persistent=count > 0)
            self.register_buffer(f"{name}std", torch.ones(count), persistent=count > 0)

    def learn(self, mean: Tensor, std: Tensor, increment_std: Tensor, stride: int) -> None:
        """Take the moments of the fields in the training split, ``(C,)`` each; ``stride`` stored frames are one step
        of the operator.
        """
        self.mean.copy_(mean)
        self.std.copy_(std)

    def learn_setting(self, mean: Setting, std: Setting) -> None:
        """Take the moments of numbers ``(P,)`` and static fields ``(S,)`` over the training split, physical units.

        What is constant there is divided by 1.
        """
        for name, centre, spread in (("number", mean.numbers, std.numbers), ("static", mean.fields, std.fields)):
            if centre is not None and spread is not None:
                getattr(self, f"{name}_mean").copy_(centre)
                getattr(self, f"{name}_std").copy_(torch.where(spread > 1e-7 * centre.abs(), spread, 1.0))

    def encode(self, values: Tensor) -> Tensor:
        """Physical ``(..., C)`` to network units."""
        return (values - self.mean) / self.std

    def decode(self, values: Tensor) -> Tensor:
        """Network units ``(..., C)`` to physical."""
        return values * self.std + self.mean

    def encode_setting(self, setting: Setting) -> Setting:
        """Numbers ``(B, P)`` and static fields ``(B, *space, S)`` from physical to network units."""
        numbers, fields = setting.numbers, setting.fields
        return Setting(
            None if numbers is None else (numbers - self.number_mean) / self.number_std,
            None if fields is None else (fields - self.static_mean) / self.static_std,
        )

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
        """The batch in network units, with the numbers that the operator reads, in its order.

        Numbers and static fields that it does not read are left out, so that ``batch.setting`` is what it is to be
        given.
        """

        def encode(field: GridField) -> GridField:
            return replace(field, values=self.encode(field.values))

        read = replace(batch, condition={name: batch.condition[name] for name in self.condition}).setting
        static = batch.inputs.get("static") if len(self.static_mean) else None
        setting = self.encode_setting(Setting(read.numbers, None if static is None else static.values))
        inputs = {name: encode(field) for name, field in batch.inputs.items() if name != "static"}
        if static is not None and setting.fields is not None:
            inputs["static"] = replace(static, values=setting.fields)
        columns = () if setting.numbers is None else setting.numbers.unbind(-1)
        return replace(
            batch,
            inputs=inputs,
            targets={name: encode(field) for name, field in batch.targets.items()},
            condition=dict(zip(self.condition, columns, strict=True)),
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

    Raises:
        ValueError: in :meth:`allocate`, for an operator that reads no frame.
    """

    scale: Tensor

    def allocate(
        self, channels: int, steps: int, *, frames: int = 1, static: int = 0, condition: Sequence[str] = ()
    ) -> None:
        if frames < 1:
            raise ValueError(
                "normaliser: Increments adds the output to the last known frame, and the operator reads none "
                f"(frames={frames}); use physml.normalise.Standardise."
            )
        super().allocate(channels, steps, frames=frames, static=static, condition=condition)
        self.register_buffer("scale", torch.ones(steps, channels))

    def learn(self, mean: Tensor, std: Tensor, increment_std: Tensor, stride: int) -> None:
        super().learn(mean, std, increment_std, stride)
        lead = stride * torch.arange(1, len(self.scale) + 1, dtype=mean.dtype)[:, None]
        self.scale.copy_((lead * increment_std / std).clamp(max=2**0.5))

    def assemble(self, window: Tensor, output: Tensor) -> Tensor:
        scale = self.scale[: output.shape[1]]
        scale = scale.reshape(scale.shape[0], *[1] * (output.ndim - 3), scale.shape[1])
        return window[:, -1:] + scale * output
