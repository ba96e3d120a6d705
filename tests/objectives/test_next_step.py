from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from physml.fields import Axis, Batch, Grid, GridField, Setting
from physml.objectives import Curriculum, MeanSquare, NextStep, Progress, Pushforward, RelativeL2

GRID = Grid((Axis.periodic_uniform("x", 3, 1.0),))


def numbered(known: int, ahead: int) -> Batch:
    """A sequence whose value is its frame number, counted from 1."""
    values = torch.arange(1.0, known + ahead + 1).reshape(1, -1, 1, 1).expand(2, -1, 3, 1)
    state = {"state": GridField(values[:, :known], GRID, ("u",))}
    return Batch(2, state, {"state": GridField(values[:, known:], GRID, ("u",))})


class Count:
    """Predicts the next frame numbers exactly, times a weight; remembers how it was called."""

    def __init__(self) -> None:
        self.weight = torch.ones((), requires_grad=True)
        self.calls: list[tuple[list[float], int, bool]] = []

    def __call__(self, window: Tensor, grid: Grid, steps: int, setting: Setting | None = None) -> Tensor:
        self.calls.append((window[0, :, 0, 0].tolist(), steps, torch.is_grad_enabled()))
        ahead = torch.arange(1, steps + 1).reshape(1, -1, 1, 1)
        return self.weight * (window[:, -1:] + ahead)


@pytest.mark.parametrize("unrolls", [1, 2])
def test_pushforward_trains_on_the_right_frames_without_gradient_before(unrolls: int) -> None:
    predict = Count()
    objective = NextStep(frames=2, pushforward=Pushforward(unrolls=unrolls), loss=MeanSquare())
    assert objective.horizon == 2 * (1 + unrolls)
    loss = objective(predict, numbered(3, objective.horizon), Progress())["state"]
    assert float(loss.detach()) == 0.0  # exact only if the targets were moved as far as the window
    assert [grad for _, _, grad in predict.calls] == [False] * unrolls + [True]
    last = 3 + 2 * unrolls
    assert predict.calls[-1][0] == [last - 2, last - 1, last]


def test_no_gradient_flows_through_the_unrolled_calls() -> None:
    predict = Count()
    objective = NextStep(frames=1, pushforward=Pushforward(), loss=MeanSquare())
    batch = numbered(1, 2)
    with torch.no_grad():
        predict.weight.fill_(2.0)
    objective(predict, batch, Progress())["state"].backward()
    # window 1 -> 2 (1 + 1) = 4, taken as a constant; then w (4 + 1) against 3: d/dw (5 w - 3)^2 = 10 (5 w - 3) at w = 2
    assert math.isclose(float(predict.weight.grad), 70.0, rel_tol=1e-6)  # type: ignore[arg-type]


def test_chained_calls_carry_the_gradient() -> None:
    predict = Count()
    objective = NextStep(frames=1, calls=2, loss=MeanSquare())
    with torch.no_grad():
        predict.weight.fill_(2.0)
    objective(predict, numbered(1, 2), Progress())["state"].backward()
    # frames w (1 + 1) and w (2 w + 1) against 2 and 3: d/dw of the mean of (2w - 2)^2 and (2w^2 + w - 3)^2 at w = 2
    assert math.isclose(float(predict.weight.grad), 0.5 * (2 * 2 * 2 + 2 * 7 * 9), rel_tol=1e-6)  # type: ignore[arg-type]


def test_pushforward_acts_when_it_should() -> None:
    pushforward = Pushforward(after=5, every=3, unrolls=2)
    assert [pushforward.calls(step) for step in range(10)] == [0, 0, 0, 0, 0, 0, 2, 0, 0, 2]
    objective = NextStep(frames=4, pushforward=pushforward, curriculum=Curriculum(over=7))
    assert pushforward.calls(objective.heaviest.step) == 2
    assert Curriculum(over=7).frames(4, objective.heaviest.step) == 4


def test_the_curriculum_grows_to_all_frames() -> None:
    curriculum = Curriculum(over=6000)
    assert [curriculum.frames(4, step) for step in (0, 1999, 2000, 4000, 6000, 10**6)] == [1, 1, 2, 3, 4, 4]
    predict = Count()
    objective = NextStep(frames=4, curriculum=curriculum)
    objective(predict, numbered(2, 4), Progress(2000))
    assert predict.calls[-1][1] == 2


def test_noise_disturbs_the_window_and_not_the_target() -> None:
    torch.manual_seed(0)
    objective = NextStep(noise=0.5, loss=MeanSquare())
    values = torch.zeros(50, 2, 64, 1)
    grid = Grid((Axis.periodic_uniform("x", 64, 1.0),))
    batch = Batch(
        50, {"state": GridField(values[:, :1], grid, ("u",))}, {"state": GridField(values[:, 1:], grid, ("u",))}
    )
    loss = objective(lambda window, grid, steps, setting: window, batch, Progress())["state"]
    # the mean of 3,200 squares of spread 0.5 has a relative standard error of sqrt(2 / 3200) = 2.5 %
    assert abs(float(loss) / 0.25 - 1) < 0.1


def test_relative_l2_against_its_formula_with_an_obstacle() -> None:
    grid = Grid((Axis.periodic_uniform("x", 3, 1.0),), torch.tensor([True, True, False]))
    x, y = torch.randn(4, 2, 3, 2), torch.randn(4, 2, 3, 2)
    expected = ((x - y)[:, :, :2].flatten(1).norm(dim=1) / y[:, :, :2].flatten(1).norm(dim=1)).mean()
    torch.testing.assert_close(RelativeL2()(x, y, grid), expected)
    torch.testing.assert_close(MeanSquare()(x, y, grid), (x - y)[:, :, :2].square().mean())


def test_a_perfect_sample_has_a_finite_gradient() -> None:
    x = torch.ones(1, 1, 3, 1, requires_grad=True)
    RelativeL2()(x, torch.ones(1, 1, 3, 1), GRID).backward()
    assert torch.isfinite(x.grad).all()  # type: ignore[arg-type]


def test_too_few_targets_are_refused() -> None:
    with pytest.raises(ValueError, match="the objective needs 4"):
        NextStep(frames=4)(Count(), numbered(2, 3), 0)


def test_every_call_gets_the_setting_of_its_sample() -> None:
    seen: list[Setting | None] = []

    def predict(window: Tensor, grid: Grid, steps: int, setting: Setting | None = None) -> Tensor:
        seen.append(setting)
        return window[:, -1:].expand(-1, steps, -1, -1)

    batch = numbered(1, 3)
    still = GridField(torch.randn(2, 1, 3, 1), GRID, ("k",))
    batch = replace(batch, inputs={**batch.inputs, "static": still}, condition={"nu": torch.tensor([1.0, 2.0])})
    NextStep(calls=2, pushforward=Pushforward())(predict, batch, Progress())
    assert len(seen) == 3
    for setting in seen:
        assert setting is not None and setting.numbers is not None and setting.fields is not None
        assert setting.numbers.tolist() == [[1.0], [2.0]] and torch.equal(setting.fields, still.values[:, 0])


def test_a_steady_problem_is_one_call() -> None:
    def predict(window: Tensor, grid: Grid, steps: int, setting: Setting | None = None) -> Tensor:
        assert window.shape == (2, 0, 3, 1)
        return torch.full((2, steps, 3, 1), 2.0)

    # the only frame is 1 everywhere, the prediction 2
    objective = NextStep(loss=MeanSquare(), noise=0.5)
    assert math.isclose(float(objective(predict, numbered(0, 1), Progress())["state"]), 1.0)
    for chained in (NextStep(calls=2), NextStep(pushforward=Pushforward(after=9))):
        with pytest.raises(ValueError, match="reads no frame"):
            chained(predict, numbered(0, 2), 0)


def test_calls_are_chained_from_a_part_of_the_run_on() -> None:
    """Before it one call is trained on the first frames; from it on all calls, and a recording is made anew."""
    objective = NextStep(frames=2, calls=3, chained_from=0.5)
    made: list[int] = []

    def predict(window: Tensor, grid: Grid, steps: int, setting: Setting) -> Tensor:
        made.append(steps)
        return window[:, -1:].repeat(1, steps, *[1] * (window.ndim - 2))

    for part, calls in ((0.0, 1), (0.49, 1), (0.5, 3), (1.0, 3)):
        made.clear()
        objective(predict, numbered(3, objective.horizon), Progress(7, part))
        assert made == [2] * calls
        assert objective.phase(Progress(7, part)) == (2, 0, calls)
    assert objective.horizon == 6
    assert objective.heaviest.part >= 0.5
    with pytest.raises(ValueError, match="chained_from"):
        NextStep(calls=2, chained_from=1.0)
