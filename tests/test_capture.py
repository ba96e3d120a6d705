"""Recorded GPU work; without a GPU, only that asking for it fails at once."""

from __future__ import annotations

import pytest
import torch

from physml.capture import Captured


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_run() -> None:
    calls: list[None] = []
    with pytest.raises(RuntimeError, match="no CUDA device"):
        Captured(lambda: calls.append(None), torch.device("cuda"))
    assert calls == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="recording needs a GPU")
def test_a_replay_does_the_work_anew_on_what_lies_there_now() -> None:
    x, calls = torch.zeros(5, device="cuda"), 0

    def work() -> torch.Tensor:
        nonlocal calls
        calls += 1
        return x.mul_(2).add_(1).square()

    square = Captured(work, x.device)
    recorded = calls
    x.fill_(1.0)
    first = square()
    assert first.tolist() == [9.0] * 5 and x.tolist() == [3.0] * 5
    assert square() is first and first.tolist() == [49.0] * 5  # written over
    assert calls == recorded  # Python was not asked again
