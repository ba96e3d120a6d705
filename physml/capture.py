"""A piece of GPU work recorded once as a CUDA graph and then replayed with one launch.

A training step of a small network is a thousand kernels of a few microseconds; launching each from Python takes longer
than running it. A recorded graph is launched at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from physml.fields import Batch

Result = TypeVar("Result")


class Captured(Generic[Result]):
    """Calls ``function`` as a CUDA graph.

    The function must do the same work each time, on tensors that stay where they are: write new numbers into its inputs
    before a call. What it returns is overwritten by the next call. Recording runs it a few times first.

    Args:
        function: what is recorded; without reading any result back.
        device: the CUDA device it works on.
        pool: memory that graphs share which never run at the same time; its own if ``None``.
    """

    def __init__(self, function: Callable[[], Result], device: torch.device, pool: Any = None) -> None:
        if not torch.cuda.is_available():
            raise RuntimeError("there is no CUDA device to record on; call the function itself.")
        with torch.cuda.device(device):
            beside = torch.cuda.Stream()
            beside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(beside):
                for _ in range(3):
                    function()
            torch.cuda.current_stream().wait_stream(beside)
            torch.clear_autocast_cache()  # weights cast before the recording would be stale in every replay
            self._graph = torch.cuda.CUDAGraph()
            # other threads, such as one that pins memory, may allocate meanwhile
            with torch.cuda.graph(self._graph, pool=pool, stream=beside, capture_error_mode="thread_local"):
                self._result = function()

    def __call__(self) -> Result:
        self._graph.replay()
        return self._result


class RecordedStep:
    """Forward and backward pass of a training step, recorded.

    A replay knows nothing of Python: it writes the gradients where the recording did, whatever ``.grad`` points to by
    then. So a call returns them, and the caller hands them to the parameters.

    Args:
        terms: loss terms of a batch, among them ``loss``, which is differentiated.
        batch: a first one; its tensors become the places that later batches are copied to.
        parameters: what the gradients belong to.
        device: the CUDA device.
        pool: see :class:`Captured`.
    """

    def __init__(
        self,
        terms: Callable[[Batch], dict[str, Tensor]],
        batch: Batch,
        parameters: Sequence[nn.Parameter],
        device: torch.device,
        pool: Any = None,
    ) -> None:
        def work() -> tuple[dict[str, Tensor], list[Tensor | None]]:
            for parameter in parameters:
                parameter.grad = None
            found = terms(batch)
            found["loss"].backward()
            return {name: term.detach() for name, term in found.items()}, [p.grad for p in parameters]

        self._places = batch.tensors
        self._work = Captured(work, device, pool)

    def __call__(self, batch: Batch) -> tuple[dict[str, Tensor], list[Tensor | None]]:
        """Terms, and a gradient for each parameter; the next call writes over both."""
        for place, values in zip(self._places, batch.tensors, strict=True):
            if place is not values:
                place.copy_(values)
        return self._work()
