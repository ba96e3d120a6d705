from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from physml.configured import rebuild
from physml.fields import Axis, Boundary, Grid, Setting
from physml.nn.positional import Harmonics
from physml.operators.fno import FNO, Coordinates
from physml.operators.operator import Operator


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def box(*shape: int) -> Grid:
    return Grid(tuple(Axis.periodic_uniform(name, n, 2 * math.pi) for name, n in zip("xyz", shape, strict=False)))


def walls(*shape: int) -> Grid:
    def axis(name: str, n: int) -> Axis:
        return Axis(name, (torch.arange(n, dtype=torch.float64) + 0.5) / n, Boundary.WALL, 1.0)

    return Grid(tuple(axis(name, n) for name, n in zip("xyz", shape, strict=False)))


def small(axes: int, **changes: object) -> FNO:
    arguments: dict = {
        "channels": 2,
        "frames": 3,
        "steps": 2,
        "axes": axes,
        "modes": [3] * axes,
        "width": 8,
        "depth": 2,
    }
    return FNO(**arguments | changes)


def parameters(operator: FNO) -> int:
    return sum(parameter.numel() for parameter in operator.parameters())


@pytest.mark.parametrize("shape", [(9,), (8, 7), (6, 8, 7)])
def test_commutes_with_translations_of_a_periodic_grid(shape: tuple[int, ...]) -> None:
    operator, window = small(len(shape)), torch.randn(2, 3, *shape, 2)
    shift, axes = (1, 3, 2)[: len(shape)], tuple(range(2, 2 + len(shape)))
    moved = operator(window.roll(shift, axes), box(*shape), 2)
    # Rounding of float32; outputs are of size 0.1.
    torch.testing.assert_close(moved, operator(window, box(*shape), 2).roll(shift, axes), rtol=0, atol=1e-5)


@pytest.mark.parametrize("positions", [Harmonics(most=2), Coordinates()])
def test_positions_tell_places_apart(positions: Harmonics | Coordinates) -> None:
    operator = small(1, positions=positions)
    with torch.no_grad():
        for weight in operator.positions.parameters():
            weight.normal_()
    frames = operator(torch.ones(1, 3, 16, 2), box(16), 1)
    assert frames.std(dim=2).min() > 1e-5  # without positions, rounding


def smooth(*shape: int) -> Tensor:
    """Wavenumbers up to 1 on each axis, ``(1, 3, *shape, 2)``."""
    turns = [torch.arange(n, dtype=torch.float64) * (2 * math.pi / n) for n in shape]
    phase = torch.stack(torch.meshgrid(*turns, indexing="ij")).sum(0)
    channels = torch.stack([phase.sin(), (phase + 1).cos()], dim=-1)
    return torch.stack([channels, 0.5 * channels, channels.flip(-1)]).unsqueeze(0)


@pytest.mark.parametrize("axes", [1, 2])
def test_resolution_does_not_matter_to_a_smooth_field(axes: int) -> None:
    operator = small(axes, modes=[8] * axes).double()
    coarse = operator(smooth(*[32] * axes), box(*[32] * axes), 2)
    fine = operator(smooth(*[64] * axes), box(*[64] * axes), 2)
    every_second = (slice(None), slice(None), *[slice(None, None, 2)] * axes)
    # Activations make harmonics of the input; what is left of them beyond wavenumber 16 aliases on the coarse grid.
    torch.testing.assert_close(fine[every_second], coarse, rtol=0, atol=1e-4)
    assert coarse.std() > 1e-2


def test_number_of_parameters() -> None:
    # What neuraloperator 2.0 counts for FNO(n_modes=(32, 32), in_channels=1, out_channels=1, hidden_channels=64):
    # 8,963,777, of which 8,912,896 are complex and count twice here.
    operator = FNO(channels=1, axes=2, modes=[16, 16], width=64, positions=Coordinates())
    assert parameters(operator) == 8_963_777 + 4 * 32 * 17 * 64 * 64
    # The form of 2021, by hand: lifting, four layers of kernel and skip, projection.
    plain = FNO(channels=2, frames=3, steps=2, axes=1, modes=[5], width=8, lifting=0, mlp=0, positions=Coordinates())
    layer = 6 * 8 * 8 * 2 + 8 * 8 + 8
    assert parameters(plain) == (3 * 2 + 1 + 1) * 8 + 4 * layer + (8 + 1) * 16 + (16 + 1) * 4


@pytest.mark.parametrize("grid", [box(10), walls(10), box(6, 8), walls(6, 8), box(6, 7, 8), walls(8, 7, 6)])
def test_shapes_and_finite_gradients_under_autocast(grid: Grid) -> None:
    operator = small(len(grid.shape), positions=Harmonics(most=2))
    window = torch.randn(2, 3, *grid.shape, 2)
    exact = operator(window, grid, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        frames = operator(window, grid, 1)
    assert frames.shape == (2, 1, *grid.shape, 2)
    # bfloat16 keeps 8 bits; a few layers of activations of size 1 lose a few times 2^-8 of them.
    torch.testing.assert_close(frames.float(), exact[:, :1], rtol=0, atol=0.03)
    frames.float().square().sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in operator.parameters() if p.grad is not None)
    assert all(p.grad is not None for p in operator.parameters())


def test_ends_of_a_wall_axis_do_not_touch() -> None:
    # One linear layer whose kernel moves a bump 8 points to the right, past the end.
    operator = FNO(
        channels=1, axes=1, modes=[16], width=1, depth=1, lifting=0, mlp=0, projection=0, padding=0.5
    ).double()
    n = 32
    period = {True: n, False: 2 * n}
    for periodic, grid in ((True, box(n)), (False, walls(n))):
        with torch.no_grad():
            for p in operator.parameters():
                p.zero_()
            operator.read.weight.fill_(1)
            operator.project.weight.fill_(1)
            k = torch.arange(17, dtype=torch.float64)
            phase = -2 * math.pi * k * 8 / period[periodic]
            operator.layers[0].kernel.weight[:, 0, 0] = torch.stack([phase.cos(), phase.sin()], -1)
        window = torch.exp(-(((torch.arange(n, dtype=torch.float64) - 26) / 3) ** 2)).reshape(1, 1, n, 1)
        arrived = operator(window, grid, 1)[0, 0, :12, 0].max()
        # The bump moves from 26 to 34: point 2 of a periodic axis, outside of an axis with walls.
        assert (arrived > 0.9) if periodic else (arrived < 0.05)


def test_learns_a_translation() -> None:
    operator = FNO(channels=1, axes=1, modes=[4], width=8, depth=1, mlp=0)
    optimiser = torch.optim.Adam(operator.parameters(), lr=0.02)
    x = torch.arange(16) * (2 * math.pi / 16)
    k = torch.arange(1, 4)
    window = (torch.randn(16, 3) @ (k[:, None] * x + 6 * torch.rand(16, 3)[..., None]).sin())[:, :1, :, None]
    target = window.roll(3, 2)
    for _ in range(300):
        loss = (operator(window, box(16), 1) - target).square().mean() / target.square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if loss < 1e-3:
            return
    pytest.fail(f"relative square error {float(loss):.1e} after 300 steps, 1e-3 was expected")


def test_wrong_arguments_and_windows_are_refused() -> None:
    with pytest.raises(ValueError, match=r"modes: got 1 numbers .* for axes=2"):
        FNO(channels=1, axes=2, modes=[4])
    with pytest.raises(ValueError, match="axes: got 4"):
        FNO(channels=1, axes=4, modes=[4] * 4)
    with pytest.raises(ValueError, match="depth: got 0"):
        FNO(channels=1, axes=1, modes=[4], depth=0)
    with pytest.raises(ValueError, match="padding: got -1"):
        FNO(channels=1, axes=1, modes=[4], padding=-1)
    with pytest.raises(
        ValueError, match="modes: got 5 for space axis 1, the grid of 8 points there has wavenumbers 0 to 4"
    ):
        small(2, modes=[3, 5])(torch.zeros(1, 3, 8, 8, 2), box(8, 8), 1)
    with pytest.raises(ValueError, match="3 frames of 1 fields"):
        small(2)(torch.zeros(1, 3, 8, 8, 1), box(8, 8), 1)
    with pytest.raises(ValueError, match=r"got 1 space axes .* axes=2"):
        small(2)(torch.zeros(1, 3, 8, 2), box(8), 1)
    with pytest.raises(ValueError, match="1 to 2 frames"):
        small(2)(torch.zeros(1, 3, 8, 8, 2), box(8, 8), 3)


def test_is_made_and_run_on_the_meta_device() -> None:
    with torch.device("meta"):
        operator = small(2)
        axes = tuple(Axis(name, torch.empty(n), Boundary.WALL, 1.0) for name, n in (("x", 16), ("y", 9)))
        assert operator(torch.empty(5, 3, 16, 9, 2), Grid(axes), 2).shape == (5, 2, 16, 9, 2)


def test_rebuilds_from_its_description() -> None:
    operator = small(2, positions=Harmonics(most=2))
    again = rebuild(operator.describe(), Operator)
    again.load_state_dict(operator.state_dict())
    window = torch.randn(1, 3, 8, 8, 2)
    assert torch.equal(again(window, box(8, 8), 2), operator(window, box(8, 8), 2))
    assert not any(value.is_complex() for value in operator.state_dict().values())


def test_compiles_to_one_graph() -> None:
    operator, window = small(2, positions=Harmonics(most=2)), torch.randn(1, 3, 8, 7, 2)
    compiled = torch.compile(operator, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(window, walls(8, 7), 2), operator(window, walls(8, 7), 2))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler warns of its own parts
def test_compiled_code_gives_the_same_gradients_at_every_size() -> None:
    operator = small(2, positions=Harmonics(most=2))
    compiled = torch.compile(operator, fullgraph=True, dynamic=True)
    for grid in (box(8, 9), box(12, 8)):
        window = torch.randn(2, 3, *grid.shape, 2)
        gradients = []
        for run in (operator, compiled):
            operator.zero_grad()
            run(window, grid, 2).square().mean().backward()
            gradients.append([p.grad.clone() for p in operator.parameters()])
        # Rounding of float32 in sums of another order.
        torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(8,), (8, 8)])
def test_static_fields_are_read_as_frames_are(shape: tuple[int, ...]) -> None:
    known, steady = small(len(shape), frames=2), small(len(shape), frames=0, static=4)
    steady.load_state_dict(known.state_dict())
    mixed = small(len(shape), frames=1, static=2)
    mixed.load_state_dict(known.state_dict())
    grid, window = box(*shape), torch.randn(3, 2, *shape, 2)
    expected = known(window, grid, 2, Setting(fields=torch.randn(3, *shape, 7)))  # which it does not read
    still = torch.cat([window[:, 0], window[:, 1]], dim=-1)
    assert torch.equal(steady(window[:, :0], grid, 2, Setting(fields=still)), expected)
    assert torch.equal(mixed(window[:, :1], grid, 2, Setting(fields=window[:, 1])), expected)
    with pytest.raises(ValueError, match="fields: got none"):
        mixed(window[:, :1], grid, 2)


def test_something_must_be_read() -> None:
    with pytest.raises(ValueError, match="frames, static: got 0 and 0"):
        small(1, frames=0)
    with pytest.raises(ValueError, match="frames, static: got 1 and -1"):
        small(1, frames=1, static=-1)
    assert rebuild(small(1, frames=0, static=2).describe(), Operator).static == 2
