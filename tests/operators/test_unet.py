from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from physml.configured import rebuild
from physml.fields import Axis, Boundary, Grid, Setting
from physml.operators.operator import Operator
from physml.operators.unet import UNet


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def grid(*shape: int, boundaries: str = "ppp") -> Grid:
    """A box whose axes are periodic (``p``) or walls (``w``)."""

    def axis(name: str, n: int, kind: str) -> Axis:
        if kind == "p":
            return Axis.periodic_uniform(name, n, 2 * math.pi)
        return Axis(name, torch.arange(n, dtype=torch.float64), Boundary.WALL, float(n))

    return Grid(tuple(axis(name, n, kind) for name, n, kind in zip("xyz", shape, boundaries, strict=False)))


def small(axes: int, **changes: object) -> UNet:
    """A small network, every weight of which is drawn at random: a fresh one has blocks that do nothing yet."""
    arguments: dict = {"channels": 2, "frames": 3, "steps": 2, "axes": axes, "width": 8, "blocks": 1, "groups": 4}
    operator = UNet(**arguments | {"multipliers": [1, 2]} | changes)
    with torch.no_grad():
        for parameter in operator.parameters():
            parameter.normal_(std=0.2)
    return operator


@pytest.mark.parametrize(("shape", "shift"), [((8,), (2,)), ((8, 6), (2, -4)), ((4, 8, 6), (2, 2, 4))])
def test_commutes_with_translations_by_coarse_points(shape: tuple[int, ...], shift: tuple[int, ...]) -> None:
    operator, window = small(len(shape)).double(), torch.randn(2, 3, *shape, 2, dtype=torch.float64)
    axes = tuple(range(2, 2 + len(shape)))
    still = operator(window, grid(*shape), 2)
    moved = operator(window.roll(shift, axes), grid(*shape), 2)
    torch.testing.assert_close(moved, still.roll(shift, axes), rtol=1e-9, atol=1e-9)
    # Not with a translation by one fine point, which the coarse grid cannot follow.
    moved = operator(window.roll(1, 2), grid(*shape), 2)
    assert not torch.allclose(moved, still.roll(1, 2), rtol=1e-3, atol=1e-3)


def test_three_stages_commute_with_translations_by_four() -> None:
    operator, window = small(1, multipliers=[1, 1, 2]).double(), torch.randn(1, 3, 16, 2, dtype=torch.float64)
    moved = operator(window.roll(4, 2), grid(16), 1)
    torch.testing.assert_close(moved, operator(window, grid(16), 1).roll(4, 2), rtol=1e-9, atol=1e-9)


def test_boundaries_of_each_axis_are_its_own() -> None:
    operator, window = small(2).double(), torch.randn(1, 3, 8, 8, 2, dtype=torch.float64)
    still = operator(window, grid(8, 8, boundaries="pw"), 1)
    along_periodic = operator(window.roll(2, 2), grid(8, 8, boundaries="pw"), 1)
    torch.testing.assert_close(along_periodic, still.roll(2, 2), rtol=1e-9, atol=1e-9)
    along_walls = operator(window.roll(2, 3), grid(8, 8, boundaries="pw"), 1)
    assert not torch.allclose(along_walls, still.roll(2, 3), rtol=1e-3, atol=1e-3)


def test_repeated_ends_keep_a_constant_constant() -> None:
    # Zeros beyond a wall would bend a constant field near the wall; the repeated value cannot.
    frames = small(2)(torch.full((1, 3, 8, 8, 2), 1.5), grid(8, 8, boundaries="ww"), 2)
    assert frames.abs().mean() > 1e-2
    # Rounding of float32.
    torch.testing.assert_close(frames, frames[:, :, :1, :1].expand_as(frames), rtol=1e-4, atol=1e-4)


def test_number_of_parameters() -> None:
    def convolution(inputs: int, outputs: int) -> int:
        return 9 * inputs * outputs + outputs

    def block(inputs: int, outputs: int) -> int:
        shortcut = 0 if inputs == outputs else inputs * outputs + outputs
        norms = 2 * inputs + 2 * outputs
        return convolution(inputs, outputs) + convolution(outputs, outputs) + shortcut + norms

    operator = UNet(channels=2, frames=3, steps=2, axes=2, width=8, multipliers=[1, 3], blocks=2)
    expected = (
        convolution(6, 8)
        + (block(8, 8) + block(8, 8) + convolution(8, 8))
        + (block(8, 24) + block(24, 24))
        + 2 * block(24, 24)
        + (block(24 + 24, 24) + block(24 + 24, 24) + block(24 + 8, 8) + convolution(8, 8))
        + 3 * block(8 + 8, 8)
        + 2 * 8
        + convolution(8, 4)
    )
    assert sum(parameter.numel() for parameter in operator.parameters()) == expected


def test_published_width() -> None:
    # Gupta and Brandstetter give 144 million for their Unetmod-64; their upsampling has 4 x 4 kernels and ours 3 x 3.
    with torch.device("meta"):
        operator = UNet(channels=3, frames=4, axes=2, width=64, multipliers=[1, 2, 4, 16])
    ours = sum(parameter.numel() for parameter in operator.parameters())
    theirs = ours + (16 - 9) * (64**2 + 128**2 + 256**2)
    assert round(theirs / 1e6) == 144


def test_blocks_start_as_their_shortcut() -> None:
    operator = UNet(channels=1, axes=1, width=8, multipliers=[1], blocks=1)
    block, v = operator.middle[0], torch.randn(1, 8, 6)
    assert torch.equal(block(v, grid(6).boundaries), v)


def test_starts_near_zero() -> None:
    operator = UNet(channels=1, axes=2, width=16, multipliers=[1, 2])
    assert 0 < operator(torch.randn(1, 1, 16, 16, 1), grid(16, 16), 1).std() < 0.5


@pytest.mark.parametrize(
    ("shape", "boundaries"), [((10,), "p"), ((10,), "w"), ((6, 8), "pw"), ((6, 4, 8), "wpw"), ((2, 2), "pw")]
)
def test_shapes_and_finite_gradients_under_autocast(shape: tuple[int, ...], boundaries: str) -> None:
    operator = small(len(shape))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        frames = operator(torch.randn(2, 3, *shape, 2), grid(*shape, boundaries=boundaries), 1)
    assert frames.shape == (2, 1, *shape, 2)
    assert frames.isfinite().all()
    frames.float().square().mean().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in operator.parameters())


def test_every_output_frame_is_its_own() -> None:
    operator, window = small(1), torch.randn(1, 3, 8, 2)
    both, one = operator(window, grid(8), 2), operator(window, grid(8), 1)
    assert torch.equal(both[:, :1], one)
    assert not torch.allclose(both[:, 0], both[:, 1])


def test_learns_a_translation() -> None:
    operator = UNet(channels=1, axes=1, width=8, multipliers=[1, 2], blocks=1, groups=1)
    optimiser = torch.optim.Adam(operator.parameters(), lr=0.01)
    x = torch.arange(16) * (2 * math.pi / 16)
    window = (x + 6 * torch.rand(8, 1)).sin()[:, None, :, None]
    target = window.roll(3, 2)
    for _ in range(200):
        loss = (operator(window, grid(16), 1) - target).square().mean() / target.square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if loss < 1e-2:
            return
    pytest.fail(f"relative square error {float(loss):.1e} after 200 steps, 1e-2 was expected")


def test_wrong_arguments_and_windows_are_refused() -> None:
    with pytest.raises(ValueError, match="axes: got 4"):
        UNet(channels=1, axes=4)
    with pytest.raises(ValueError, match="groups: got 8, which does not divide width=12"):
        UNet(channels=1, axes=1, width=12)
    with pytest.raises(ValueError, match="multipliers, blocks"):
        UNet(channels=1, axes=1, multipliers=[])
    message = "got 30 points on space axis 1, which this U-Net halves 3 times; give a multiple of 8, such as 24 or 32"
    with pytest.raises(ValueError, match=message):
        UNet(channels=1, axes=2)(torch.zeros(1, 1, 32, 30, 1), grid(32, 30), 1)
    with pytest.raises(ValueError, match="a multiple of 8, such as 8, or fewer"):
        UNet(channels=1, axes=1)(torch.zeros(1, 1, 6, 1), grid(6), 1)
    with pytest.raises(ValueError, match="3 frames of 1 fields"):
        small(2)(torch.zeros(1, 3, 8, 8, 1), grid(8, 8), 1)
    with pytest.raises(ValueError, match=r"got 1 space axes .* axes=2"):
        small(2)(torch.zeros(1, 3, 8, 2), grid(8), 1)


def test_is_made_and_run_on_the_meta_device() -> None:
    with torch.device("meta"):
        axes = tuple(Axis(name, torch.empty(8), Boundary.WALL, 1.0) for name in "xy")
        assert small(2)(torch.empty(5, 3, 8, 8, 2), Grid(axes), 2).shape == (5, 2, 8, 8, 2)


def test_rebuilds_from_its_description() -> None:
    operator = small(1)
    again = rebuild(operator.describe(), Operator)
    assert isinstance(again, nn.Module)
    again.load_state_dict(operator.state_dict())
    window = torch.randn(1, 3, 8, 2)
    assert torch.equal(again(window, grid(8), 2), operator(window, grid(8), 2))


def test_compiles_to_one_graph() -> None:
    operator, window, box = small(2), torch.randn(1, 3, 4, 4, 2), grid(4, 4, boundaries="pw")
    compiled = torch.compile(operator, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(window, box, 2), operator(window, box, 2))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler warns of its own parts
def test_compiled_code_gives_the_same_gradients() -> None:
    operator, box = small(2), grid(8, 6, boundaries="pw")
    window = torch.randn(2, 3, 8, 6, 2)
    gradients = []
    for run in (operator, torch.compile(operator, fullgraph=True)):
        operator.zero_grad()
        run(window, box, 2).square().mean().backward()
        gradients.append([p.grad.clone() for p in operator.parameters()])
    # Rounding of float32 in sums of another order; normalisation over few points magnifies it.
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("shape", [(8,), (8, 8)])
def test_static_fields_are_read_as_frames_are(shape: tuple[int, ...]) -> None:
    known, steady = small(len(shape), frames=2), small(len(shape), frames=0, static=4)
    steady.load_state_dict(known.state_dict())
    mixed = small(len(shape), frames=1, static=2)
    mixed.load_state_dict(known.state_dict())
    where, window = grid(*shape), torch.randn(3, 2, *shape, 2)
    expected = known(window, where, 2, Setting(fields=torch.randn(3, *shape, 7)))  # which it does not read
    still = torch.cat([window[:, 0], window[:, 1]], dim=-1)
    assert torch.equal(steady(window[:, :0], where, 2, Setting(fields=still)), expected)
    assert torch.equal(mixed(window[:, :1], where, 2, Setting(fields=window[:, 1])), expected)
    with pytest.raises(ValueError, match="fields: got none"):
        mixed(window[:, :1], where, 2)


def test_something_must_be_read() -> None:
    with pytest.raises(ValueError, match="frames, static: got 0 and 0"):
        small(1, frames=0)
    with pytest.raises(ValueError, match="frames, static: got 1 and -1"):
        small(1, frames=1, static=-1)
    assert rebuild(small(1, frames=0, static=2).describe(), Operator).static == 2
