"""A piece of GPU work recorded once as a CUDA graph and then replayed with one launch.

A training step of a small network is a thousand kernels of a few microseconds; launching each from Python takes longer
than running it. A recorded graph is launched at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import torch

Result = TypeVar("Result")


class Captured(Generic[Result]):
    """Calls ``function`` as a CUDA graph.

    The function must do the same work each time, on tensors that stay where they are: write new numbers into its inputs
    before a call. What it returns is overwritten by the next call. Recording runs it a few times first.

    Args:
        function: what is recorded; on one CUDA device, without reading any result back.
    """

    def __init__(self, function: Callable[[], Result]) -> None:
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(3):
                function()
        torch.cuda.current_stream().wait_stream(beside)
        torch.clear_autocast_cache()  # weights cast before the recording would be stale in every replay
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._result = function()

    def __call__(self) -> Result:
        self._graph.replay()
        return self._result
