from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from physml.nn.anchored_attention import AnchoredBlock, Memory, Tokens, attend
from physml.nn.continuous import Waves

WIDTH, HEADS = 16, 2


def tokens(count: int, batch: int = 2, seed: int = 0, mask: Tensor | None = None) -> Tokens:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(batch, count, WIDTH, generator=generator, dtype=torch.float64)
    places = torch.rand(batch, count, 2, generator=generator, dtype=torch.float64)
    return Tokens(values, Waves(scale=5.0).rotation(places, WIDTH // HEADS), mask)


def block(*, other: bool = False, condition: int = 0) -> AnchoredBlock:
    torch.manual_seed(0)
    return AnchoredBlock(width=WIDTH, heads=HEADS, hidden=32, other=other, condition=condition).double()


def memory(count: int, mask: Tensor | None = None, seed: int = 0) -> Memory:
    generator = torch.Generator().manual_seed(seed)
    keys, values = torch.randn(2, 2, HEADS, count, 8, generator=generator, dtype=torch.float64)
    return Memory(keys, values, mask)


def test_attention_is_the_softmax_of_its_formula() -> None:
    torch.manual_seed(0)
    q, known = torch.randn(2, HEADS, 5, 8, dtype=torch.float64), memory(7)
    weights = torch.softmax(q @ known.keys.transpose(-1, -2) / math.sqrt(8), dim=-1)
    torch.testing.assert_close(attend(q, known), weights @ known.values, rtol=0, atol=1e-14)


def test_what_is_masked_is_not_there() -> None:
    torch.manual_seed(0)
    q = torch.randn(2, HEADS, 5, 8, dtype=torch.float64)
    mask = torch.tensor([[True, True, False, True], [True, False, False, False]])
    known = memory(4, mask)
    for b in (0, 1):
        alone = Memory(known.keys[b : b + 1, :, mask[b]], known.values[b : b + 1, :, mask[b]], None)
        torch.testing.assert_close(attend(q, known)[b : b + 1], attend(q[b : b + 1], alone), rtol=0, atol=1e-14)


def test_joined_memories_are_one_set() -> None:
    torch.manual_seed(0)
    q, first, second = torch.randn(2, HEADS, 5, 8, dtype=torch.float64), memory(3), memory(4, seed=1)
    joined, swapped = Memory.join([first, second]), Memory.join([second, first])
    assert joined is not None and joined.mask is None
    torch.testing.assert_close(attend(q, joined), attend(q, swapped), rtol=0, atol=1e-14)
    masked = Memory.join([first, second._replace(mask=torch.zeros(2, 4, dtype=torch.bool))])
    torch.testing.assert_close(attend(q, masked), attend(q, first), rtol=0, atol=1e-14)
    assert Memory.join([]) is None and Memory.join([first]) is first


@pytest.mark.parametrize("mask", [None, torch.tensor([[False] * 3, [True, False, True]])])
def test_nothing_to_look_at_gives_zero_and_no_undefined_gradient(mask: Tensor | None) -> None:
    q = torch.randn(2, HEADS, 5, 8, dtype=torch.float64, requires_grad=True)
    known = memory(0 if mask is None else 3, mask)
    found = attend(q, known)
    assert not found[0].any() and not attend(q, None).any()
    (found.sum() + q.sum()).backward()
    assert q.grad is not None and bool(q.grad.isfinite().all())


def test_full_clouds_need_no_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fused kernels refuse masks, so there must be none where there is nothing to mask."""
    masks: list[Tensor | None] = []
    original = functional.scaled_dot_product_attention

    def watched(*arguments: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        masks.append(attn_mask)
        return original(*arguments, attn_mask=attn_mask)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", watched)
    layer, x = block(), tokens(5)
    layer(x, layer.remember(x))
    assert masks == [None]
    x = tokens(5, mask=torch.tensor([[True] * 5, [True] * 3 + [False] * 2]))
    layer(x, layer.remember(x))
    assert masks[1] is not None


def test_published_parameters_of_a_block() -> None:
    def count(**arguments: object) -> int:
        with torch.device("meta"):
            made = AnchoredBlock(width=192, heads=3, hidden=768, **arguments)  # type: ignore[arg-type]
        return sum(p.numel() for p in made.parameters())

    assert count() == 12 * 192**2 + 13 * 192 == 444_864
    assert count(other=True) == 12 * 192**2 + 15 * 192 == 445_248
    assert count(condition=7) == 12 * 192**2 + 9 * 192 + 6 * 192 * (7 + 1)
    assert count(condition=7, other=True) == 12 * 192**2 + 9 * 192 + 8 * 192 * (7 + 1)


@pytest.mark.parametrize("other", [False, True])
def test_numbers_start_without_effect_and_may_have_one(other: bool) -> None:
    plain, conditioned = block(other=other), block(other=other, condition=3)  # the same random weights
    x, y, numbers = tokens(5), tokens(4, seed=1), torch.randn(2, 3, dtype=torch.float64)

    def result() -> Tensor:
        return conditioned(x, conditioned.remember(y, numbers), numbers).values

    torch.testing.assert_close(result(), plain(x, plain.remember(y)).values, rtol=0, atol=1e-14)
    assert conditioned.modulate is not None
    before = result()
    for part in range(8 if other else 6):  # each of the factors and shifts acts
        with torch.no_grad():
            conditioned.modulate.weight.zero_()
            conditioned.modulate.weight[part * WIDTH : (part + 1) * WIDTH].normal_()
        assert (result() - before).abs().max() > 1e-3, part


def test_numbers_modulate_as_written() -> None:
    """With the scale and shift of the queries alone, the block is that of another normalised input."""
    layer, x, numbers = block(condition=1), tokens(5), torch.tensor([[0.5], [2.0]], dtype=torch.float64)
    assert layer.modulate is not None
    with torch.no_grad():
        layer.modulate.weight[:WIDTH], layer.modulate.weight[WIDTH : 2 * WIDTH] = 0.3, 0.1
    c = numbers[:, None]
    hidden = functional.layer_norm(x.values, (WIDTH,), eps=1e-6) * (1 + 0.3 * c) + 0.1 * c
    values = layer.remember(x, numbers).values
    expected = functional.linear(hidden, layer.memory.weight, layer.memory.bias)[..., WIDTH:]
    torch.testing.assert_close(values.transpose(1, 2).flatten(-2), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("other", [False, True])
def test_gradients_of_a_block(other: bool) -> None:
    layer = block(other=other, condition=1)
    x, y, numbers = tokens(3, batch=1), tokens(2, batch=1, seed=1), torch.ones(1, 1, dtype=torch.float64)

    def result(asked: Tensor, known: Tensor) -> Tensor:
        remembered = layer.remember(y._replace(values=known), numbers)
        return layer(x._replace(values=asked), remembered, numbers).values

    inputs = [values.clone().requires_grad_() for values in (x.values, y.values)]
    assert torch.autograd.gradcheck(result, inputs)
