from __future__ import annotations

import math
from copy import deepcopy

import pytest
import torch
from torch import Tensor

from physml.configured import rebuild
from physml.fields import Axis, Boundary, Grid
from physml.nn.positional import Harmonics
from physml.nn.spectral_convolution import FourierBasis
from physml.operators.ffno import FFNO, AxisKernels
from physml.operators.fno import Coordinates
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


def small(axes: int, **changes: object) -> FFNO:
    arguments: dict = {
        "channels": 2,
        "frames": 3,
        "steps": 2,
        "axes": axes,
        "modes": [3, 2, 3][:axes],
        "width": 8,
        "depth": 3,
    }
    return FFNO(**arguments | changes)


def parameters(operator: FFNO) -> int:
    return sum(parameter.numel() for parameter in operator.parameters())


def turns(*shape: int) -> tuple[Tensor, ...]:
    """Angles ``2 pi j / n`` of each axis, ``shape`` each."""
    angles = [torch.arange(n, dtype=torch.float64) * (2 * math.pi / n) for n in shape]
    return torch.meshgrid(*angles, indexing="ij")


def kernels_by_fft(kernels: AxisKernels, z: Tensor) -> Tensor:
    """The sum over the axes, written with ``torch.fft``."""
    total = torch.zeros_like(z)
    for dim, weight in enumerate(kernels.weights, start=1):
        spectrum = torch.fft.rfft(z, dim=dim).movedim(dim, 0)
        result = torch.zeros_like(spectrum)
        for k in range(len(weight)):
            result[k] = spectrum[k] @ torch.view_as_complex(weight[k])
        total = total + torch.fft.irfft(result.movedim(0, dim), n=z.shape[dim], dim=dim)
    return total


def by_fft(operator: FFNO, window: Tensor, added: tuple[int, ...]) -> Tensor:
    """The whole operator without position features, with so many zeros at each end of the axes."""
    z = operator.read(torch.cat(window.unbind(1), -1))
    inner = (slice(None), *(slice(n, n + size) for n, size in zip(added, window.shape[2:-1], strict=True)))
    extended = z.new_zeros(len(z), *(s + 2 * n for s, n in zip(window.shape[2:-1], added, strict=True)), z.shape[-1])
    extended[inner] = z
    z = extended
    for index, layer in enumerate(operator.layers):
        h = layer.first(kernels_by_fft(operator.kernels[min(index, len(operator.kernels) - 1)], z))
        z = z + layer.second(torch.nn.functional.gelu(h))
    out = operator.project(z[inner])
    return torch.stack(out.chunk(operator.steps, -1), 1)


@pytest.mark.parametrize(
    ("grid", "added"),
    [
        (box(9), (0,)),
        (box(6, 7), (0, 0)),  # modes at the Nyquist wavenumber of the first axis
        (walls(8, 12), (2, 3)),
        (Grid((walls(8).axes[0], *box(8, 8).axes[1:])), (2, 0)),
        (box(7, 4, 6), (0, 0, 0)),
    ],
)
@pytest.mark.parametrize("share", [False, True])
def test_equals_the_equations_by_fast_fourier_transform(grid: Grid, added: tuple[int, ...], share: bool) -> None:
    operator = small(len(grid.shape), share=share, padding=0.25).double()
    window = torch.randn(2, 3, *grid.shape, 2, dtype=torch.float64)
    with torch.no_grad():
        frames = operator(window, grid, 2)
        assert frames.shape == (2, 2, *grid.shape, 2)
        # Rounding of float64 in sums of a few hundred terms.
        torch.testing.assert_close(frames, by_fft(operator, window, added), rtol=0, atol=1e-13)
        assert torch.equal(operator(window, grid, 1), frames[:, :1])


def test_a_kernel_acts_on_one_axis_as_computed_by_hand() -> None:
    # cos(2x + 9y) becomes Re[(a + ib) exp(i (2x + 9y))] where the weight of wavenumber 2 along x is a + ib, although 9
    # is beyond the modes of y; the axis y itself removes it.
    kernels = AxisKernels(width=1, modes=[3, 3]).double()
    bases = [FourierBasis(modes=[3], space=[n], device=torch.device("cpu"), dtype=torch.float64) for n in (8, 24)]
    a, b = 0.7, -1.3
    x, y = turns(8, 24)
    with torch.no_grad():
        kernels.weights[0].zero_()
        kernels.weights[0][2, 0, 0] = torch.tensor([a, b], dtype=torch.float64)
        out = kernels((2 * x + 9 * y).cos()[None, ..., None], bases)[0, ..., 0]
        expected = a * (2 * x + 9 * y).cos() - b * (2 * x + 9 * y).sin()
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-13)  # rounding of float64
        assert kernels((4 * x + 9 * y).cos()[None, ..., None], bases).abs().max() < 1e-13


def test_kernels_keep_the_size_of_fields_of_kept_wavenumbers() -> None:
    kernels = AxisKernels(width=64, modes=[8, 8])
    bases = [FourierBasis(modes=[8], space=[16], device=torch.device("cpu"), dtype=torch.float32)] * 2
    # Every wavenumber of a 16 x 16 grid is kept: 2 axes times 64 channels of variance 1, each times 1 / (2 64). Of
    # wavenumbers 0 and 8 only the real part of the weight acts, so 2 of 16 numbers keep half: 15/16. The estimate
    # has a standard deviation of 1.4 % over seeds.
    assert kernels(torch.randn(2, 16, 16, 64), bases).var().item() == pytest.approx(15 / 16, rel=0.05)


@pytest.mark.parametrize("shape", [(9,), (8, 7), (6, 5, 7)])
def test_commutes_with_translations_of_a_periodic_grid(shape: tuple[int, ...]) -> None:
    operator, window = small(len(shape)), torch.randn(2, 3, *shape, 2)
    shift, axes = (1, 3, 2)[: len(shape)], tuple(range(2, 2 + len(shape)))
    moved = operator(window.roll(shift, axes), box(*shape), 2)
    # Rounding of float32; outputs are of size 0.1.
    torch.testing.assert_close(moved, operator(window, box(*shape), 2).roll(shift, axes), rtol=0, atol=1e-5)


@pytest.mark.parametrize("order", [(1, 0), (2, 0, 1)])
def test_axes_can_be_exchanged_with_their_weights(order: tuple[int, ...]) -> None:
    axes, shape = len(order), (6, 7, 8)[: len(order)]
    operator = small(axes, positions=Harmonics(most=2)).double()
    for weight in operator.positions.parameters():
        torch.nn.init.normal_(weight)
    turned = small(axes, positions=Harmonics(most=2), modes=[operator.modes[axis] for axis in order]).double()
    state = operator.state_dict()
    for name in list(state):
        stem, _, axis = name.rpartition(".")
        if stem.startswith(("kernels", "positions")):
            state[name] = operator.state_dict()[f"{stem}.{order[int(axis)]}"]
    turned.load_state_dict(state)
    window = torch.randn(2, 3, *shape, 2, dtype=torch.float64)
    places = (0, 1, *(2 + axis for axis in order), 2 + axes)
    grid, other = walls(*shape), walls(*(shape[axis] for axis in order))
    # Rounding of float64 in sums of another order.
    expected = operator(window, grid, 2).permute(places)
    torch.testing.assert_close(turned(window.permute(places), other, 2), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("axes", [1, 2])
def test_resolution_does_not_matter_to_a_smooth_field(axes: int) -> None:
    operator = small(axes, modes=[8] * axes).double()

    def smooth(n: int) -> Tensor:
        phase = torch.stack(turns(*[n] * axes)).sum(0)
        channels = torch.stack([phase.sin(), (phase + 1).cos()], dim=-1)
        return torch.stack([channels, 0.5 * channels, channels.flip(-1)]).unsqueeze(0)

    coarse = operator(smooth(32), box(*[32] * axes), 2)
    fine = operator(smooth(64), box(*[64] * axes), 2)
    every_second = (slice(None), slice(None), *[slice(None, None, 2)] * axes)
    # Activations make harmonics of the input; what is left of them beyond wavenumber 16 aliases on the coarse grid.
    torch.testing.assert_close(fine[every_second], coarse, rtol=0, atol=1e-4)
    assert coarse.std() > 1e-2


@pytest.mark.parametrize("positions", [Harmonics(most=2), Coordinates()])
def test_positions_tell_places_apart(positions: Harmonics | Coordinates) -> None:
    operator = small(1, positions=positions)
    with torch.no_grad():
        for weight in operator.positions.parameters():
            weight.normal_()
    frames = operator(torch.ones(1, 3, 16, 2), box(16), 1)
    assert frames.std(dim=2).min() > 1e-5  # without positions, rounding


def test_number_of_parameters() -> None:
    # By hand from the published configuration for Navier-Stokes: P reads vorticity and two coordinates, one set of
    # kernels of 16 wavenumbers, 24 times M with 256 hidden channels, Q with 128, and a length for each output channel.
    published = FFNO(
        channels=1, axes=2, modes=[15, 15], width=64, depth=24, share=True, positions=Coordinates(), padding=0
    )
    kernels, feed = 2 * 16 * 64 * 64 * 2, (64 + 2) * 256 + (256 + 2) * 64
    assert parameters(published) == (3 + 2) * 64 + kernels + 24 * feed + (64 + 2) * 128 + (128 + 2) == 1_072_834
    # The formula of the docstring, with everything different.
    r, o, width, hidden, q, depth = 3 * 2, 2 * 2, 8, 20, 12, 3
    plain = small(3, mlp=2.5, projection=1.5, weight_norm=False)
    kernels = 2 * depth * width**2 * (4 + 3 + 4)
    expected = (r + 1) * width + kernels + depth * (2 * width * hidden + hidden + width) + (width + 1) * q + (q + 1) * o
    assert parameters(plain) == expected
    assert parameters(small(3, mlp=2.5, projection=1.5)) == expected + width + depth * (hidden + width) + q + o
    linear = expected - 2 * (depth - 1) * width**2 * 11 - (width + 1) * q - (q + 1) * o + (width + 1) * o
    assert parameters(small(3, mlp=2.5, projection=0, weight_norm=False, share=True)) == linear


def test_weight_norm_leaves_directions_without_length() -> None:
    operator, window = small(2), torch.randn(1, 3, 8, 7, 2)
    before = operator(window, box(8, 7), 2)
    plain = small(2, weight_norm=False)
    state = {
        name.replace("parametrizations.weight.original1", "weight"): v for name, v in operator.state_dict().items()
    }
    plain.load_state_dict({name: v for name, v in state.items() if "original0" not in name})
    # At the start it changes nothing but rounding.
    torch.testing.assert_close(plain(window, box(8, 7), 2), before, rtol=0, atol=1e-6)
    with torch.no_grad():
        for name, parameter in operator.named_parameters():
            if name.endswith("original1"):
                parameter.mul_(3)
    torch.testing.assert_close(operator(window, box(8, 7), 2), before, rtol=0, atol=1e-6)


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
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in operator.parameters())


@pytest.mark.parametrize("share", [False, True])
def test_gradient_is_exact(share: bool) -> None:
    operator = FFNO(channels=1, axes=2, modes=[1, 2], width=2, depth=2, share=share).double()
    window = torch.randn(1, 1, 4, 5, 1, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in operator.named_parameters()]

    def run(window: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(operator, dict(zip(names, values, strict=True)), (window, walls(4, 5), 1))

    assert torch.autograd.gradcheck(run, (window, *operator.parameters()))


def test_ends_of_a_wall_axis_do_not_touch() -> None:
    # A kernel that moves a bump 8 points to the right, past the end; the layers make nothing of a zero field.
    n = 32
    window = torch.exp(-(((torch.arange(n, dtype=torch.float64) - 26) / 3) ** 2)).reshape(1, 1, n, 1)
    for periodic, grid in ((True, box(n)), (False, walls(n))):
        operator = FFNO(channels=1, axes=1, modes=[16], width=1, depth=1, projection=0, padding=0.5, weight_norm=False)
        operator.double()
        with torch.no_grad():
            for p in operator.parameters():
                p.zero_()
            for linear in (operator.read, operator.layers[0].first, operator.layers[0].second, operator.project):
                linear.weight.fill_(1)
            phase = -2 * math.pi * torch.arange(17, dtype=torch.float64) * 8 / (n if periodic else 2 * n)
            operator.kernels[0].weights[0][:, 0, 0] = torch.stack([phase.cos(), phase.sin()], -1)
            arrived = operator(window, grid, 1)[0, 0, :12, 0].max()
        # The bump moves from 26 to 34: point 2 of a periodic axis, outside of an axis with walls. M makes
        # 4 GELU(1) = 3.4 of its top; what 16 modes of 64 points leave of the jumps is below a twentieth of it.
        assert (arrived > 3) if periodic else (arrived < 0.15)


def test_learns_a_translation() -> None:
    operator = FFNO(channels=1, axes=1, modes=[4], width=16, depth=2)
    optimiser = torch.optim.Adam(operator.parameters(), lr=0.01)
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
        FFNO(channels=1, axes=2, modes=[4])
    with pytest.raises(ValueError, match=r"modes: got \[4, 0\], expected a highest wavenumber of at least 1"):
        FFNO(channels=1, axes=2, modes=[4, 0])
    with pytest.raises(ValueError, match="axes: got 4"):
        FFNO(channels=1, axes=4, modes=[4] * 4)
    with pytest.raises(ValueError, match="channels, frames, steps: got 1, 0 and 1"):
        FFNO(channels=1, frames=0, axes=1, modes=[4])
    with pytest.raises(ValueError, match="depth: got 0"):
        FFNO(channels=1, axes=1, modes=[4], depth=0)
    with pytest.raises(ValueError, match="mlp: got 0 for width=64"):
        FFNO(channels=1, axes=1, modes=[4], mlp=0)
    with pytest.raises(ValueError, match="padding: got -1"):
        FFNO(channels=1, axes=1, modes=[4], padding=-1)
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
        operator = small(2, share=True)
        axes = tuple(Axis(name, torch.empty(n), Boundary.WALL, 1.0) for name, n in (("x", 16), ("y", 9)))
        assert operator(torch.empty(5, 3, 16, 9, 2), Grid(axes), 2).shape == (5, 2, 16, 9, 2)


def test_rebuilds_from_its_description() -> None:
    operator = small(2, positions=Harmonics(most=2), share=True)
    again = rebuild(operator.describe(), Operator)
    again.load_state_dict(operator.state_dict())
    window = torch.randn(1, 3, 8, 8, 2)
    expected = operator(window, box(8, 8), 2)
    assert torch.equal(again(window, box(8, 8), 2), expected)
    assert torch.equal(deepcopy(operator)(window, box(8, 8), 2), expected)  # what averaging of weights does
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
