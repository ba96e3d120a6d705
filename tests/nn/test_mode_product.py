"""The mode product against dense matrices; its Triton kernels, interpreted on the CPU, against plain torch."""

from __future__ import annotations

import functools
import json
import math
import string

import interpreting
import pytest
import torch
from torch import Tensor

from physml.nn.mode_product import mode_product

EPS = torch.finfo(torch.float32).eps

# (samples, points, heads, channels): odd sizes, one point, and more than one block of rows, columns, depth and shares.
KERNEL_CASES: dict[str, tuple[int, tuple[int, ...], int, int]] = {
    "line": (2, (21,), 3, 8),
    "line, odd channels": (1, (33,), 2, 5),
    "one head": (2, (17, 9), 1, 4),
    "many rows": (1, (70, 3), 2, 8),  # several blocks of 16 rows; the other kernel has blocks of 128
    "whole blocks": (1, (64, 5), 1, 8),
    "whole tiles of 64": (1, (64, 4), 2, 32),  # nothing is masked
    "whole tiles of 128": (2, (128, 2), 1, 64),
    "tiles of 128 and 256": (1, (256, 3), 1, 4),  # masked columns
    "one point": (2, (1, 19), 2, 3),
    "many columns": (1, (4, 18, 17), 2, 8),  # 2448 columns along the first axis: ten blocks, three shares
    "cube": (2, (5, 6, 7), 3, 4),
}
CASES = [(name, axis) for name, (_, space, _, _) in KERNEL_CASES.items() for axis in range(len(space))]


def dense(matrices: list[Tensor], values: Tensor) -> Tensor:
    """The Kronecker product of ``(B, H, S, S)`` matrices, one for each axis, times the field as one long vector."""
    out = torch.empty_like(values)
    for b in range(values.shape[0]):
        for h in range(values.shape[-2]):
            whole = functools.reduce(torch.kron, [matrix[b, h] for matrix in matrices])
            out[b, ..., h, :] = (whole @ values[b, ..., h, :].flatten(0, -2)).unflatten(0, values.shape[1:-2])
    return out


def random(space: tuple[int, ...], heads: int = 3, channels: int = 2) -> tuple[list[Tensor], Tensor]:
    torch.manual_seed(0)
    matrices = [torch.randn(2, heads, n, n, dtype=torch.float64) for n in space]
    return matrices, torch.randn(2, *space, heads, channels, dtype=torch.float64)


@pytest.mark.parametrize("space", [(5,), (3, 4), (4, 1), (3, 4, 2)])
def test_is_the_kronecker_product_with_identities_elsewhere(space: tuple[int, ...]) -> None:
    matrices, values = random(space)
    for axis in range(len(space)):
        lone = [
            matrix if m == axis else torch.eye(space[m], dtype=torch.float64).expand_as(matrix)
            for m, matrix in enumerate(matrices)
        ]
        # sums of at most 5 numbers of order one, in double
        torch.testing.assert_close(mode_product(matrices[axis], values, axis), dense(lone, values), rtol=0, atol=1e-13)


def test_along_all_axes_in_any_order_it_is_the_whole_kronecker_product() -> None:
    matrices, values = random((3, 4, 2))
    expected = dense(matrices, values)
    for order in ([0, 1, 2], [2, 0, 1]):
        found = functools.reduce(lambda v, axis: mode_product(matrices[axis], v, axis), order, values)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)  # sums of 24 numbers up to 30, in double


@pytest.mark.parametrize(("space", "axis"), [((4,), 0), ((3, 2), 0), ((3, 2), 1), ((2, 3, 2), 1)])
def test_gradients(space: tuple[int, ...], axis: int) -> None:
    matrices, values = random(space, heads=2)
    inputs = (matrices[axis].requires_grad_(), values.requires_grad_())
    assert torch.autograd.gradcheck(lambda kernel, v: mode_product(kernel, v, axis), inputs)


@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.bfloat16])
def test_the_type_of_the_values_is_kept(kind: torch.dtype) -> None:
    kernel, values = torch.randn(2, 3, 4, 4), torch.randn(2, 4, 3, 5, dtype=kind)
    assert mode_product(kernel, values, 0).dtype == kind


def test_what_does_not_fit_is_refused() -> None:
    values = torch.zeros(2, 4, 5, 3, 6)
    for axis in (-1, 2):
        with pytest.raises(ValueError, match=f"axis: got {axis}, expected a space axis from 0 to 1"):
            mode_product(torch.zeros(2, 3, 5, 5), values, axis)
    for shape in ((2, 3, 5, 5), (1, 3, 4, 4), (2, 1, 4, 4)):  # another axis; samples or heads that are shared
        with pytest.raises(ValueError, match=r"kernel: got shape .*, expected \(2, 3, 4, 4\)"):
            mode_product(torch.zeros(shape), values, 0)


# The kernels. Whether Triton interprets them is decided when they are imported: another process runs them, this file.


def drawn(name: str, axis: int, device: str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
    """Kernel, values, and the gradient of the result."""
    samples, space, heads, channels = KERNEL_CASES[name]
    torch.manual_seed(axis)
    kernel = torch.randn(samples, heads, space[axis], space[axis], device=device)
    values, gradient = torch.randn(2, samples, *space, heads, channels, device=device)
    return kernel, values, gradient


def expected_of(kernel: Tensor, values: Tensor, gradient: Tensor, axis: int) -> list[Tensor]:
    """Result, gradient of the values and of the kernel, in double: three sums written out."""
    space = string.ascii_lowercase[: values.ndim - 3]
    out = space.replace(space[axis], "z")
    matrix, v, g = f"BHz{space[axis]}", f"B{space}HV", f"B{out}HV"
    kernel, values, gradient = kernel.double(), values.double(), gradient.double()
    return [
        torch.einsum(f"{matrix},{v}->{g}", kernel, values),
        torch.einsum(f"{matrix},{g}->{v}", kernel, gradient),
        torch.einsum(f"{g},{v}->{matrix}", gradient, values),
    ]


def main() -> None:
    """Largest error of each case, in the unit of :func:`test_interpreted_kernels_and_their_gradients`, as JSON."""
    from physml.nn import mode_product_triton as kernels

    torch.library.wrap_triton = lambda kernel: kernel  # older torch refuses to wrap what is interpreted
    errors: dict[str, list] = {}
    for name, axis in CASES:
        kernel, values, gradient = drawn(name, axis)
        expected = expected_of(kernel, values, gradient, axis)
        sizes = expected_of(kernel.abs(), values.abs(), gradient.abs(), axis)
        kernel.requires_grad_()
        values.requires_grad_()
        result = kernels.mode_product(kernel, values, axis)
        result.backward(gradient)
        n = values.shape[1 + axis]
        terms = [n, n, math.prod(values.shape[1:]) // (n * values.shape[-2])]
        errors[f"{name} {axis}"] = [
            float(((found.double() - wanted).abs() / size).max()) / (0.5 * EPS * count**0.5)
            for found, wanted, size, count in zip(
                [result.detach(), values.grad, kernel.grad], expected, sizes, terms, strict=True
            )
        ]
    identity = torch.eye(20, dtype=torch.float16).repeat(1, 2, 1, 1)
    half = kernels.mode_product(identity, torch.ones(1, 20, 2, 3, dtype=torch.float16), 0)
    errors["half"] = [str(half.dtype), float(half.min()), float(half.max())]
    print(json.dumps(errors))


@pytest.fixture(scope="module")
def interpreted() -> dict[str, list[float]]:
    return interpreting.interpreted(__file__)


@pytest.mark.parametrize(("name", "axis"), CASES)
def test_interpreted_kernels_and_their_gradients(interpreted: dict[str, list[float]], name: str, axis: int) -> None:
    # The rounding error of a sum of n terms is, all but certainly, below lambda sqrt(n) u times the sum of their sizes
    # with lambda = 4 (Higham & Mary 2019, doi 10.1137/18M1226312); u is half of eps. One wrong term is 100 such units
    # or more.
    assert max(interpreted[f"{name} {axis}"]) < 4


def test_interpreted_kernels_keep_the_type(interpreted: dict[str, list[float]]) -> None:
    assert interpreted["half"] == ["torch.float16", 1.0, 1.0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="compiled kernels need a GPU")
@pytest.mark.parametrize(("name", "axis"), CASES)
def test_compiled_kernels_and_their_gradients(name: str, axis: int) -> None:
    kernel, values, gradient = (x.bfloat16() for x in drawn(name, axis, "cuda"))
    expected = expected_of(kernel, values, gradient, axis)
    kernel.requires_grad_()
    values.requires_grad_()
    result = mode_product(kernel, values, axis)
    result.backward(gradient)
    for found, wanted in zip((result.detach(), values.grad, kernel.grad), expected, strict=True):
        assert found is not None and found.dtype == torch.bfloat16
        # products are added in float32 and rounded once: half of bf16's 2^-7, of the largest number
        assert float((found.double() - wanted).abs().max()) <= 2**-8 * float(wanted.abs().max())


if __name__ == "__main__":
    main()
