"""The depthwise convolution against torch's own; its Triton kernels, interpreted on the CPU, against both."""

from __future__ import annotations

import json
import math

import interpreting
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from physml.fields import Axis, Boundary, Grid
from physml.nn.depthwise import DepthwiseConvolution

EPS = torch.finfo(torch.float32).eps
PERIODIC, WALL, OPEN = Boundary.PERIODIC, Boundary.WALL, Boundary.OPEN

# (samples, points, boundary kinds, size of the kernel, channels): odd sizes, a kernel wider than the axis, and more
# than one block of 64 points and of 64 channels.
CASES: dict[str, tuple[int, tuple[int, ...], tuple[Boundary, ...], int, int]] = {
    "periodic line": (2, (21,), (PERIODIC,), 5, 3),
    "wall line": (2, (9,), (WALL,), 3, 5),
    "short periodic line": (2, (2,), (PERIODIC,), 5, 4),
    "one point": (1, (1, 7), (PERIODIC, OPEN), 3, 2),
    "no reach": (1, (5, 4), (PERIODIC, WALL), 1, 3),
    "periodic square": (2, (7, 9), (PERIODIC, PERIODIC), 5, 7),
    "many channels": (1, (5, 6), (PERIODIC, PERIODIC), 3, 70),
    "many points": (2, (139,), (PERIODIC,), 3, 4),  # 278: the sums of the weights' gradient are shared out
    "wall before periodic": (1, (7, 10), (WALL, PERIODIC), 3, 4),
    "periodic before wall": (1, (4, 5), (PERIODIC, WALL), 3, 4),
    "open square": (1, (6, 5), (OPEN, OPEN), 5, 4),
    "periodic cube": (1, (4, 5, 3), (PERIODIC,) * 3, 3, 5),
    "mixed cube": (2, (3, 4, 5), (WALL, PERIODIC, OPEN), 3, 4),
}


def grid_of(space: tuple[int, ...], kinds: tuple[Boundary, ...]) -> Grid:
    axes = (
        Axis(name, torch.arange(n, dtype=torch.float64), kind, n)
        for name, n, kind in zip("xyz", space, kinds, strict=False)
    )
    return Grid(tuple(axes))


def made(name: str, kind: torch.dtype = torch.float64) -> tuple[DepthwiseConvolution, Tensor, Grid]:
    samples, space, kinds, size, channels = CASES[name]
    torch.manual_seed(0)
    convolution = DepthwiseConvolution(channels=channels, axes=len(space), size=size).to(kind)
    return convolution, torch.randn(samples, *space, channels, dtype=kind), grid_of(space, kinds)


def expected_of(x: Tensor, weight: Tensor, kinds: tuple[Boundary, ...]) -> Tensor:
    """Torch's convolution, without bias, of a field that is extended by taking points at computed places."""
    for axis, (kind, k) in enumerate(zip(kinds, weight.shape[2:], strict=True), start=1):
        n, reach = x.shape[axis], k // 2
        places = np.arange(-reach, n + reach)
        x = x.index_select(axis, torch.from_numpy(places % n if kind is PERIODIC else places.clip(0, n - 1)))
    function = (functional.conv1d, functional.conv2d, functional.conv3d)[len(kinds) - 1]
    return function(x.movedim(-1, 1), weight, groups=x.shape[-1]).movedim(1, -1)


@pytest.mark.parametrize("name", CASES)
def test_equals_torch_on_an_extended_field(name: str) -> None:
    convolution, x, grid = made(name)
    weight, bias = convolution.kernel.weight, convolution.kernel.bias
    assert bias is not None
    expected = expected_of(x, weight, grid.boundaries) + bias
    torch.testing.assert_close(convolution(x, grid), expected, rtol=0, atol=1e-14)  # 27 terms below 1, in double


@pytest.mark.parametrize("name", CASES)
def test_a_kernel_that_is_one_at_its_centre_changes_nothing(name: str) -> None:
    convolution, x, grid = made(name)
    with torch.no_grad():
        convolution.kernel.weight.zero_()[:, 0].flatten(1)[:, convolution.kernel.weight[0, 0].numel() // 2] = 1
        assert convolution.kernel.bias is not None
        convolution.kernel.bias.zero_()
    assert convolution(x, grid).equal(x)  # times one, plus zeros


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if PERIODIC in case[2]])
def test_shifts_along_periodic_axes_pass_through(name: str) -> None:
    convolution, x, grid = made(name)
    closed = [m for m, axis in enumerate(grid.axes, start=1) if axis.periodic]
    shifts = list(range(1, 1 + len(closed)))
    shifted = convolution(x.roll(shifts, closed), grid)
    # the same sums, in an order that may differ
    torch.testing.assert_close(shifted, convolution(x, grid).roll(shifts, closed), rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", CASES)
def test_a_constant_stays_one_up_to_the_walls(name: str) -> None:
    convolution, x, grid = made(name)
    with torch.no_grad():
        weight, bias = convolution.kernel.weight, convolution.kernel.bias
        assert bias is not None
        weight.abs_().div_(weight.flatten(1).sum(dim=1).reshape(-1, *[1] * (weight.ndim - 1)))
        bias.zero_()
    constant = torch.arange(1.0, 1 + x.shape[-1], dtype=x.dtype).expand_as(x)
    torch.testing.assert_close(convolution(constant, grid), constant, rtol=1e-14, atol=0)  # weights sum to 1 in double


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_the_type_of_the_field_is_kept(kind: torch.dtype) -> None:
    convolution, x, grid = made("mixed cube", torch.float32)
    assert convolution(x.to(kind), grid).dtype == kind


@pytest.mark.parametrize(("axes", "size"), [(0, 3), (4, 3), (2, 2), (2, -1)])
def test_what_no_kernel_can_be_is_refused(axes: int, size: int) -> None:
    with pytest.raises(ValueError, match="expected an odd size and one to three axes"):
        DepthwiseConvolution(channels=2, axes=axes, size=size)


def test_a_kernel_that_reaches_around_an_axis_is_refused() -> None:
    convolution = DepthwiseConvolution(channels=2, axes=1, size=7)
    assert convolution(torch.zeros(1, 3, 2), grid_of((3,), (PERIODIC,))).shape == (1, 3, 2)
    with pytest.raises(ValueError, match="got 2 points along the periodic axis 'x', the kernel of 7 points needs"):
        convolution(torch.zeros(1, 2, 2), grid_of((2,), (PERIODIC,)))
    assert convolution(torch.zeros(1, 2, 2), grid_of((2,), (WALL,))).shape == (1, 2, 2)


# The kernels. Whether Triton interprets them is decided when they are imported: another process runs them, this file.


def gradients(x: Tensor, weight: Tensor, slopes: Tensor, kinds: tuple[Boundary, ...]) -> list[Tensor]:
    """Result, gradient of the field and of the weights, by torch in double."""
    x, weight = (item.detach().double().requires_grad_() for item in (x, weight))
    result = expected_of(x, weight, kinds)
    return [result.detach(), *torch.autograd.grad(result, (x, weight), slopes.double())]


def main() -> None:
    """Largest error of each case, in the unit of :func:`test_interpreted_kernels_and_their_gradients`, as JSON."""
    from physml.nn import depthwise_triton as kernels

    torch.library.wrap_triton = lambda kernel: kernel  # older torch refuses to wrap what is interpreted
    errors: dict[str, list] = {}
    for name, (_, _, kinds, _, _) in CASES.items():
        convolution, x, _ = made(name, torch.float32)
        weight, slopes = convolution.kernel.weight, torch.randn_like(x)
        expected = gradients(x, weight, slopes, kinds)
        sizes = gradients(x.abs(), weight.abs(), slopes.abs(), kinds)
        x.requires_grad_()
        result = kernels.convolve(x, weight, kinds)
        found = [result.detach(), *torch.autograd.grad(result, (x, weight), slopes)]
        taps = weight[0, 0].numel()
        terms = [taps, taps, math.prod(x.shape[:-1])]
        errors[name] = [
            float(((a.double() - b).abs() / size).max()) / (0.5 * EPS * n**0.5)
            for a, b, size, n in zip(found, expected, sizes, terms, strict=True)
        ]
    half = kernels.convolve(torch.ones(1, 5, 3, dtype=torch.float16), torch.ones(3, 1, 3), [WALL])
    errors["half"] = [str(half.dtype), float(half.min()), float(half.max())]
    print(json.dumps(errors))


@pytest.fixture(scope="module")
def interpreted() -> dict[str, list[float]]:
    return interpreting.interpreted(__file__)


@pytest.mark.parametrize("name", CASES)
def test_interpreted_kernels_and_their_gradients(interpreted: dict[str, list[float]], name: str) -> None:
    # The rounding error of a sum of n terms is, all but certainly, below lambda sqrt(n) u times the sum of their sizes
    # with lambda = 4 (Higham & Mary 2019, doi 10.1137/18M1226312); u is half of eps. One wrong term is 100 such units
    # or more.
    assert max(interpreted[name]) < 4


def test_interpreted_kernels_keep_the_type(interpreted: dict[str, list[float]]) -> None:
    assert interpreted["half"] == ["torch.float16", 3.0, 3.0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="compiled kernels need a GPU")
@pytest.mark.parametrize("name", CASES)
def test_compiled_kernels_and_their_gradients(name: str) -> None:
    convolution, x, grid = made(name, torch.bfloat16)
    slopes = torch.randn_like(x)
    assert convolution.kernel.bias is not None
    torch.nn.init.zeros_(convolution.kernel.bias)
    expected = gradients(x, convolution.kernel.weight, slopes, grid.boundaries)
    convolution, x = convolution.to("cuda"), x.to("cuda").requires_grad_()
    result = convolution(x, grid)
    found = [result.detach(), *torch.autograd.grad(result, (x, convolution.kernel.weight), slopes.to("cuda"))]
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == torch.bfloat16
        # products are added in float32 and rounded once, the gradient at a wall up to twice more along each axis for
        # the points that repeat the last: each time half of bf16's 2^-7, of the largest number
        assert float((a.cpu().double() - b).abs().max()) <= 5 * 2**-8 * float(b.abs().max())


if __name__ == "__main__":
    main()
