from __future__ import annotations

import torch

from physml.cost import estimate_memory, example_grid, forward_flops, measure_step
from physml.emulator import Emulator
from physml.fields import Boundary
from physml.normalise import Standardise
from physml.objectives import NextStep
from physml.operators import FNO, FactFormer

SHAPE, KINDS = (8, 8), (Boundary.PERIODIC, Boundary.WALL)


def fno(**changes: int) -> Emulator:
    arguments: dict = {"channels": 1, "frames": 1, "axes": 2, "modes": [2, 2], "width": 8, "lifting": 2.0}
    return Emulator(FNO(**arguments | changes), Standardise())


def test_a_static_field_costs_what_a_further_frame_does() -> None:
    grid = example_grid(SHAPE, KINDS, "meta")
    with torch.device("meta"):
        counts = [forward_flops(fno(frames=frames, static=static), grid) for frames, static in ((1, 0), (0, 1), (1, 1))]
    assert counts[0] == counts[1]
    # one more input channel of the first layer: a multiply-add for each of 64 points and 16 hidden channels
    assert counts[2] - counts[0] == 2 * 64 * 16


def test_steps_with_numbers_and_static_fields_are_estimated_and_run() -> None:
    def made() -> Emulator:
        operator = FactFormer(
            axes=2, frames=0, steps=1, static=1, condition=["a", "b"], width=8, depth=1, heads=2, head_width=4
        )
        return Emulator(operator, Standardise())

    with torch.device("meta"):
        emulator = made()
    grid = example_grid(SHAPE, KINDS, "meta")
    assert forward_flops(emulator, grid) > 0
    memory = [estimate_memory(emulator, NextStep(), grid, batch) for batch in (1, 4)]
    assert 0 < memory[0] < memory[1]
    step = measure_step(made(), NextStep(), example_grid(SHAPE, KINDS, "cpu"), 2, "32-true", repeats=1)
    assert step.seconds is not None and step.seconds > 0
