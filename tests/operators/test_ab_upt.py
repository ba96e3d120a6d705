from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from physml.clouds import PointCloud
from physml.configured import rebuild
from physml.nn.anchored_attention import AnchoredBlock
from physml.nn.continuous import Waves
from physml.nn.neighbours import Neighbours, radius_neighbours
from physml.nn.solenoidal import Formulas
from physml.operators import ABUPT
from physml.operators.ab_upt import Branch, State, Supernodes

EXACT = 1e-12  # rounding of double precision through some ten layers, for outputs of size one
FEATURES = {"normal": 3, "distance": 1}


def small(axes: int = 3, **changes: Any) -> ABUPT:
    """A network of every kind of block, with weights so large that everything matters for everything."""
    arguments: dict[str, Any] = {
        "axes": axes,
        "branches": {"surface": Branch(outputs=2, depth=1), "volume": Branch(outputs=3, depth=2)},
        "geometry": Supernodes(radius=0.4, most=6),
        "pattern": "pscj",
        "width": 24,
        "heads": 2,
        "ratio": 2,
        "waves": Waves(scale=6.0, spread=20.0),
    }
    torch.manual_seed(0)
    made = ABUPT(**arguments | changes).double()
    with torch.no_grad():
        for name, value in made.named_parameters():
            value.add_(0.3 * torch.randn_like(value) if "norm" not in name else 0.1 * torch.randn_like(value))
    return made


def cloud(
    count: int, axes: int = 3, batch: int = 2, seed: int = 0, features: Mapping[str, int] | None = None
) -> PointCloud:
    generator = torch.Generator().manual_seed(1000 * seed + count)

    def numbers(channels: int) -> Tensor:
        return torch.rand(batch, count, channels, generator=generator, dtype=torch.float64)

    return PointCloud(numbers(axes), {name: numbers(channels) for name, channels in (features or {}).items()})


def bodies(axes: int = 3, batch: int = 2) -> tuple[PointCloud, PointCloud]:
    body = cloud(15, axes, batch)
    return body, PointCloud(body.points[:, :5])


def anchors(axes: int = 3, batch: int = 2, seed: int = 1) -> dict[str, PointCloud]:
    return {"surface": cloud(6, axes, batch, seed), "volume": cloud(7, axes, batch, seed)}


def solve(operator: ABUPT, **changes: Any) -> State:
    axes = operator.axes
    return operator.anchor(operator.encode(*bodies(axes)), anchors(axes) | changes)


def close(a: Tensor, b: Tensor, tolerance: float = EXACT) -> bool:
    return a.shape == b.shape and bool((a - b).abs().max() <= tolerance * b.abs().max())


def shuffled(points: PointCloud, order: Tensor) -> PointCloud:
    return PointCloud(points.points[:, order], {name: value[:, order] for name, value in points.features.items()})


# what the published networks are


@pytest.mark.parametrize(
    ("pattern", "depth", "outputs", "width", "expected"),
    [
        ("pscscs", 6, (4, 7), 192, 8_751_179),  # DrivAerML
        ("pscscscscs", 2, (4, 7), 192, 6_971_723),  # AhmedML
        ("pscscscscs", 2, (1, 3), 192, 6_970_372),  # ShapeNet-Car
        ("pscscs", 6, (4, 7), 384, 34_902_155),  # the wide one
    ],
)
def test_published_parameters(pattern: str, depth: int, outputs: tuple[int, int], width: int, expected: int) -> None:
    branches = {name: Branch(outputs=o, depth=depth) for name, o in zip(("surface", "volume"), outputs, strict=True)}
    with torch.device("meta"):
        made = ABUPT(
            axes=3,
            branches=branches,
            geometry=Supernodes(radius=0.00025),
            pattern=pattern,
            width=width,
            heads=width // 64,
        )
    assert sum(p.numel() for p in made.parameters()) == expected
    assert sum(v.numel() for v in made.state_dict().values()) == expected, "nothing is stored but weights"


def test_published_parameters_of_the_parts() -> None:
    branches = {"surface": Branch(outputs=4, depth=6), "volume": Branch(outputs=7, depth=6)}
    with torch.device("meta"):
        made = ABUPT(axes=3, branches=branches, geometry=Supernodes(radius=0.00025))

    def count(*names: str) -> int:
        return sum(p.numel() for name in names for p in made.get_submodule(name).parameters())

    assert count("geometry.message", "geometry.merge") == 148_032
    assert count("geometry.blocks") == 444_864
    assert count("branches.surface.place", "branches.volume.place") == 148_224
    assert count("shared.0") == 445_248 and count("shared") == 445_248 + 5 * 444_864
    assert count("branches.surface.blocks") == count("branches.volume.blocks") == 6 * 444_864
    assert (count("branches.surface.head"), count("branches.volume.head")) == (772, 1351)


def test_published_start() -> None:
    torch.manual_seed(0)
    made = ABUPT(axes=3, branches={"volume": Branch(outputs=4, depth=1)}, geometry=None, pattern="s")
    for part in made.modules():
        if isinstance(part, torch.nn.Linear):
            assert not part.bias.any()
            # standard error of a deviation of n numbers is 1 / sqrt(2 n) of it; six of these
            assert abs(float(part.weight.detach().std()) / 0.02 - 1) < 6 / math.sqrt(2 * part.weight.numel())


def test_it_is_rebuilt_from_plain_values() -> None:
    made = small(condition=["speed"], branches={"volume": Branch(outputs=2, depth=1, features=FEATURES)})
    again = rebuild(made.describe(), ABUPT)
    assert again.describe() == made.describe()
    again.load_state_dict(made.state_dict())


# the same numbers as one sequence with a table of who may look at whom


def by_hand(operator: ABUPT, clouds: dict[str, PointCloud], asked: dict[str, PointCloud]) -> dict[str, Tensor]:
    """Anchors and queries of all branches as one masked sequence, rotations as complex numbers, no state."""
    body, centres = bodies(operator.axes)
    scale, spread = operator.waves.scale, operator.waves.spread
    width, heads = 24, 2

    def angles(x: Tensor, channels: int) -> Tensor:
        n = channels // x.shape[-1] // 2
        return scale * x[..., None] * spread ** (-torch.arange(n, dtype=torch.float64) / n)

    def waves(x: Tensor) -> Tensor:
        each = [torch.cat([a.sin(), a.cos()], dim=-1) for a in angles(x, width).unbind(-2)]
        return functional.pad(torch.cat(each, dim=-1), (0, width))[..., :width]

    def spin(x: Tensor, places: Tensor) -> Tensor:
        turns = functional.pad(angles(places, width // heads).flatten(-2), (0, width))[..., : width // heads // 2]
        pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
        return torch.view_as_real(pairs * torch.polar(torch.ones_like(turns), turns)[:, :, None]).flatten(-2)

    def run(block: AnchoredBlock, x: Tensor, px: Tensor, y: Tensor, py: Tensor, allowed: Tensor) -> Tensor:
        h, g = block.norm(x), block.norm(y) if block.memory_norm is None else block.memory_norm(y)
        q = spin(block.query(h).unflatten(-1, (heads, -1)), px)
        k, v = (part.unflatten(-1, (heads, -1)) for part in block.memory(g).chunk(2, dim=-1))
        score = torch.einsum("bmhd,bnhd->bhmn", q, spin(k, py)) / math.sqrt(width // heads)
        weights = score.masked_fill(~allowed, -torch.inf).softmax(dim=-1)
        x = x + block.out(torch.einsum("bhmn,bnhd->bmhd", weights, v).flatten(-2))
        return x + block.mlp(block.mlp_norm(x))

    # the body, supernode by supernode
    geometry = operator.geometry
    rows = []
    for b in range(body.batch):
        for i in range(centres.points.shape[1]):
            away = centres.points[b, i] - body.points[b]
            length = away.norm(dim=-1, keepdim=True)
            near = torch.argsort(length[:, 0])[: geometry.how.most]
            near = near[length[near, 0] <= geometry.how.radius]
            message = geometry.message(waves(torch.cat([away, length], dim=-1)[near]))
            rows.append(geometry.merge(torch.cat([message.mean(dim=0), waves(centres.points[b, i])])))
    g = torch.stack(rows).unflatten(0, (body.batch, -1))
    everyone = torch.ones(g.shape[1], g.shape[1], dtype=torch.bool)
    for block in geometry.blocks:
        g = run(block, g, centres.points, g, centres.points, everyone)

    # one sequence [surface anchors, surface queries, volume anchors, volume queries]
    parts = [(name, kind, c[name]) for name in ("surface", "volume") for kind, c in (("a", clouds), ("q", asked))]
    owner = [name for name, _, c in parts for _ in range(c.points.shape[1])]
    anchored = torch.tensor([kind == "a" for _, kind, c in parts for _ in range(c.points.shape[1])])
    own = torch.tensor([[a == b for b in owner] for a in owner])
    p = torch.cat([c.points for _, _, c in parts], dim=1)
    x = torch.cat([operator.branches[name].place(waves(c.points)) for name, _, c in parts], dim=1)
    for kind, block in zip(operator.pattern, operator.shared, strict=True):
        if kind == "p":
            x = run(block, x, p, g, centres.points, torch.ones(len(owner), g.shape[1], dtype=torch.bool))
        else:
            allowed = {"s": own, "c": ~own, "j": torch.ones_like(own)}[kind] & anchored
            x = run(block, x, p, x, p, allowed)
    result = {}
    for name in ("surface", "volume"):
        chosen = torch.tensor([other == name for other in owner])
        t, places, keys = x[:, chosen], p[:, chosen], anchored[chosen].expand(int(chosen.sum()), -1)
        for block in operator.branches[name].blocks:
            t = run(block, t, places, t, places, keys)
        result[name] = operator.branches[name].head(t)
    return result


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("pattern", ["pscj", "pscscs"])
def test_memories_give_what_one_masked_sequence_gives(axes: int, pattern: str) -> None:
    operator = small(axes, pattern=pattern)
    clouds, asked = anchors(axes), {"surface": cloud(4, axes, seed=2), "volume": cloud(3, axes, seed=2)}
    body, centres = bodies(axes)
    found = operator(clouds, asked, geometry=body, supernodes=centres)
    expected = by_hand(operator, clouds, asked)
    for name in ("surface", "volume"):
        assert close(torch.cat([found.anchors[name], found.queries[name]], dim=1), expected[name])


# who influences whom


@pytest.mark.parametrize("axes", [2, 3])
def test_queries_are_functions_of_the_place(axes: int) -> None:
    """At once, one by one, in parts or in another order, with or without those of another branch: the same."""
    operator = small(axes)
    state, asked = solve(operator), {"surface": cloud(5, axes, seed=2), "volume": cloud(9, axes, seed=2)}
    whole = operator.field(state, asked)
    assert whole["surface"].shape == (2, 5, 2) and whole["volume"].shape == (2, 9, 3)
    for chunk in (1, 4, 9):
        assert all(close(values, whole[name]) for name, values in operator.field(state, asked, chunk).items())
    order = torch.randperm(9)
    assert close(
        operator.field(state, {"volume": shuffled(asked["volume"], order)})["volume"], whole["volume"][:, order]
    )


@pytest.mark.parametrize("axes", [2, 3])
def test_a_query_on_an_anchor_gets_what_the_anchor_got(axes: int) -> None:
    operator = small(axes)
    state = solve(operator)
    assert all(close(v, state.outputs[name]) for name, v in operator.field(state, anchors(axes)).items())


def test_calling_the_operator_is_all_three_steps() -> None:
    operator, asked = small(), {"volume": cloud(4, seed=2)}
    body, centres = bodies()
    at_once = operator(anchors(), asked, geometry=body, supernodes=centres)
    state = solve(operator)
    assert all(torch.equal(at_once.anchors[name], values) for name, values in state.outputs.items())
    assert torch.equal(at_once.queries["volume"], operator.field(state, asked)["volume"])
    alone = operator(anchors(), geometry=body, supernodes=centres)
    assert all(torch.equal(alone.anchors[name], values) for name, values in state.outputs.items()) and not alone.queries


def test_order_of_anchors_supernodes_and_body_means_nothing() -> None:
    operator, asked = small(), {"volume": cloud(4, seed=2)}
    body, centres = bodies()
    expected, before = operator.field(solve(operator), asked)["volume"], solve(operator)
    order = torch.randperm(7)
    after = solve(operator, volume=shuffled(anchors()["volume"], order))
    assert close(after.outputs["volume"], before.outputs["volume"][:, order])
    assert close(after.outputs["surface"], before.outputs["surface"])
    assert close(operator.field(after, asked)["volume"], expected)
    mixed = operator.encode(shuffled(body, torch.randperm(15)), shuffled(centres, torch.randperm(5)))
    assert close(operator.field(operator.anchor(mixed, anchors()), asked)["volume"], expected)


def test_everything_that_should_matter_does() -> None:
    """The control of the tests above: body, anchors of either branch and the place itself change the answer."""
    operator, asked = small(), {"volume": cloud(4, seed=2)}
    expected = operator.field(solve(operator), asked)["volume"]
    body, centres = bodies()
    moved = PointCloud(body.points + 0.1)
    others = [
        operator.field(operator.anchor(operator.encode(moved, centres), anchors()), asked),
        operator.field(solve(operator, surface=cloud(6, seed=9)), asked),
        operator.field(solve(operator, volume=cloud(7, seed=9)), asked),
        operator.field(solve(operator), {"volume": PointCloud(asked["volume"].points + 0.1)}),
    ]
    for other in others:
        assert not close(other["volume"], expected, 1e-3)


def test_it_is_not_translation_equivariant() -> None:
    """Known and documented: places are absolute."""
    operator = small()
    body, centres = bodies()
    clouds = anchors()
    shifted = operator(
        {name: PointCloud(c.points + 1) for name, c in clouds.items()},
        geometry=PointCloud(body.points + 1),
        supernodes=PointCloud(centres.points + 1),
    )
    assert not close(shifted.anchors["volume"], solve(operator).outputs["volume"], 1e-2)


# unequal clouds


@pytest.mark.parametrize("axes", [2, 3])
def test_a_ragged_batch_is_each_case_alone(axes: int) -> None:
    """Counts down to none, in every cloud; what fills up is as bad as can be."""
    operator = small(
        axes,
        condition=["speed"],
        geometry=Supernodes(radius=0.4, most=6, features=FEATURES),
        branches={"surface": Branch(outputs=2, depth=1, features=FEATURES), "volume": Branch(outputs=3, depth=2)},
    )
    sizes = {"body": (15, 9, 4), "centres": (5, 3, 4), "surface": (6, 2, 0), "volume": (7, 7, 3), "asked": (4, 0, 2)}
    clouds = {}
    for name, counts in sizes.items():
        full = cloud(max(counts), axes, 3, 3, FEATURES)
        real = torch.arange(max(counts)) < torch.tensor(counts)[:, None]
        filled = {key: value.masked_fill(~real[..., None], math.nan) for key, value in full.features.items()}
        points = full.points.masked_fill(~real[..., None], math.nan)
        clouds[name] = PointCloud(points, filled, torch.tensor(counts))
    numbers = torch.randn(3, 1, dtype=torch.float64)

    def run(c: dict[str, PointCloud], numbers: Tensor) -> dict[str, Tensor]:
        state = operator.encode(c["body"], c["centres"], condition=numbers)
        state = operator.anchor(state, {"surface": c["surface"], "volume": c["volume"]})
        answer = operator.field(state, {"surface": c["asked"], "volume": c["asked"]}, 3)
        return {"surface": state.outputs["surface"], "volume": state.outputs["volume"]} | {
            f"asked {name}": values for name, values in answer.items()
        }

    together = run(clouds, numbers)
    apart = {name: c.split() for name, c in clouds.items()}
    for b in range(3):
        alone = run({name: parts[b] for name, parts in apart.items()}, numbers[b : b + 1])
        for name, values in alone.items():
            count = values.shape[1]
            torch.testing.assert_close(together[name][b : b + 1, :count], values, rtol=EXACT, atol=EXACT)
    sum(values.sum() for values in together.values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in operator.parameters())


@pytest.mark.parametrize("missing", ["surface", "volume", "geometry"])
def test_a_missing_branch_is_one_without_points(missing: str) -> None:
    operator, asked = small(), {"surface": cloud(3, seed=2), "volume": cloud(4, seed=2)}
    body, centres = bodies()
    clouds = anchors()
    nothing = PointCloud(torch.empty(2, 0, 3, dtype=torch.float64))
    if missing == "geometry":
        left_out = operator.anchor(operator.encode(), clouds)
        empty = operator.anchor(operator.encode(nothing), clouds)
    else:
        state = operator.encode(body, centres)
        left_out = operator.anchor(state, {name: c for name, c in clouds.items() if name != missing})
        empty = operator.anchor(state, clouds | {missing: nothing})
    for name, values in operator.field(left_out, asked).items():
        assert close(values, operator.field(empty, asked)[name]) and bool(values.isfinite().all())
        assert not close(values, operator.field(solve(operator), asked)[name], 1e-3)


def test_any_number_of_branches() -> None:
    """Three; what one looks at in cross blocks are both others, in any order of their names."""
    names = ["wing", "wake", "far"]
    clouds = {name: cloud(4 + n, seed=5) for n, name in enumerate(names)}

    def run(order: list[str]) -> dict[str, Tensor]:
        made = small(branches={name: Branch(outputs=1, depth=1) for name in order}, geometry=None, pattern="cj")
        weights = first.state_dict()
        made.load_state_dict(weights)
        state = made.anchor(made.encode(), {name: clouds[name] for name in order})
        return made.field(state, {"wake": cloud(3, seed=6)}) | dict(state.outputs)

    first = small(branches={name: Branch(outputs=1, depth=1) for name in names}, geometry=None, pattern="cj")
    found, reordered = run(names), run(names[::-1])
    assert all(close(found[name], reordered[name]) for name in names)


# what is read


def test_features_and_numbers_change_the_answer() -> None:
    operator = small(
        condition=["speed", "angle"],
        geometry=Supernodes(radius=0.4, most=6, features={"normal": 3}),
        branches={"volume": Branch(outputs=1, depth=1, features=FEATURES)},
    )

    def run(**changes: Any) -> Tensor:
        body = cloud(15, features=FEATURES)
        given = {"normal": body.features["normal"], "distance": cloud(6, features=FEATURES).features["distance"]}
        given |= {"numbers": torch.ones(2, 2, dtype=torch.float64)} | changes
        body = PointCloud(body.points, {"normal": given["normal"], "unread": body.points})
        points = cloud(6, features=FEATURES)
        points = PointCloud(points.points, dict(points.features) | {"distance": given["distance"]})
        state = operator.encode(body, PointCloud(body.points[:, :5]), condition=given["numbers"])
        return operator.anchor(state, {"volume": points}).outputs["volume"]

    expected = run()
    assert close(run(), expected)
    for name, channels in (("normal", (15, 3)), ("distance", (6, 1)), ("numbers", (2,))):
        assert not close(run(**{name: torch.zeros(2, *channels, dtype=torch.float64)}), expected, 1e-3), name


def test_numbers_start_without_effect() -> None:
    torch.manual_seed(0)
    made = ABUPT(
        axes=2, branches={"volume": Branch(outputs=1, depth=1)}, geometry=None, pattern="s", condition=["speed"]
    ).double()
    points = {"volume": cloud(5, 2)}
    found = [made(points, condition=numbers).anchors["volume"] for numbers in torch.randn(2, 2, 1).double()]
    assert torch.equal(*found) and bool(found[0].any())


def test_neighbours_may_be_given() -> None:
    operator = small()
    body, centres = bodies()
    searched = operator.encode(body, centres)
    table = radius_neighbours(body.points, body.sizes, centres.points, centres.sizes, 0.4, 6)
    assert torch.equal(
        operator.encode(body, centres, table).shared[0]["geometry"].keys, searched.shared[0]["geometry"].keys
    )
    lonely = Neighbours(table.indices[..., :1], table.mask[..., :1])
    assert not close(
        operator.encode(body, centres, lonely).shared[0]["geometry"].keys, searched.shared[0]["geometry"].keys, 1e-3
    )


def test_an_isolated_supernode_hears_itself_and_a_distant_one_nothing() -> None:
    operator = small()
    body = cloud(4)
    pooled = operator.geometry.pool(
        PointCloud(torch.cat([body.points, body.points[:, :1] + 9], dim=1)), body.points[:, :1] + 9
    )
    alone = operator.geometry.pool(PointCloud(body.points[:, :1] + 9), body.points[:, :1] + 9)
    assert close(pooled, alone)
    far = operator.geometry.pool(body, body.points[:, :1] + 9)
    assert bool(far.isfinite().all()) and not close(far, alone, 1e-3)


def test_all_points_are_supernodes_if_none_are_named() -> None:
    operator, body = small(), cloud(8)
    assert torch.equal(
        operator.encode(body).shared[0]["geometry"].keys, operator.encode(body, body).shared[0]["geometry"].keys
    )


def test_every_weight_learns() -> None:
    operator = small(
        condition=["speed"],
        branches={"a": Branch(outputs=1, depth=1, features=FEATURES), "b": Branch(outputs=1, depth=1)},
    )
    body, centres = bodies()
    clouds = {"a": cloud(4, features=FEATURES), "b": cloud(5)}
    found = operator(clouds, geometry=body, supernodes=centres, condition=torch.ones(2, 1, dtype=torch.float64))
    sum(values.square().sum() for values in found.anchors.values()).backward()  # type: ignore[union-attr]
    assert [name for name, p in operator.named_parameters() if p.grad is None or not p.grad.any()] == []


# state, device, precision


def test_a_solved_case_is_a_file_that_answers_queries(tmp_path: Path) -> None:
    operator, asked = small(condition=["speed"]), {"volume": cloud(5, seed=2)}
    body, centres = bodies()
    numbers = torch.randn(2, 1, dtype=torch.float64)
    ragged = anchors() | {"surface": PointCloud(cloud(6, seed=1).points, counts=torch.tensor([6, 2]))}
    state = operator.anchor(operator.encode(body, centres, condition=numbers), ragged).detach()
    torch.save(state.to_plain(), tmp_path / "case.pt")
    again = State.from_plain(torch.load(tmp_path / "case.pt", weights_only=True))
    with torch.no_grad():
        assert torch.equal(operator.field(again, asked)["volume"], operator.field(state, asked)["volume"])
    assert all(torch.equal(again.outputs[name], values) for name, values in state.outputs.items())
    # keys and values of 24 channels: the body in p, 13 anchors in s, c and j, then those of each decoder; the outputs
    numbers_kept = 2 * (2 * 24 * (5 + 3 * 13 + 6 + 2 * 7) + 6 * 2 + 7 * 3 + 1)
    assert (tmp_path / "case.pt").stat().st_size < 8 * numbers_kept + 20_000  # names and headers of 40 arrays


def test_a_state_in_half_precision_still_answers() -> None:
    operator, asked = small().float(), {"volume": cloud(5, seed=2).to(torch.float32)}
    body, centres = bodies()
    clouds = {name: c.to(torch.float32) for name, c in anchors().items()}
    with torch.no_grad():
        state = operator.anchor(operator.encode(body.to(torch.float32), centres.to(torch.float32)), clouds)
        expected = operator.field(state, asked)["volume"]
        found = operator.field(state.to(torch.bfloat16), asked)["volume"]
    assert found.dtype == torch.float32
    assert not close(found, expected, 1e-5) and close(found, expected, 0.1)  # keys are rounded to 2^-9


def test_mixed_precision_keeps_heads_and_places_whole() -> None:
    operator = small().float()
    with torch.no_grad():
        clouds = {name: c.to(torch.float32) for name, c in anchors().items()}
        body, centres = (c.to(torch.float32) for c in bodies())
        expected = operator(clouds, geometry=body, supernodes=centres).anchors["volume"]
        with torch.autocast("cpu", torch.bfloat16):
            found = operator(clouds, geometry=body, supernodes=centres).anchors["volume"]
    assert found.dtype == torch.float32 and bool((found != found.bfloat16()).any())
    assert (found - expected).abs().max() < 0.2 * expected.abs().max()  # a dozen maps rounded to 2^-9 each


def test_nothing_is_read_back_from_the_device() -> None:
    """Tensors without numbers cannot be looked at: whatever runs on them waits for no device."""
    with torch.device("meta"):
        operator = ABUPT(
            axes=3,
            branches={"a": Branch(outputs=1, depth=1), "b": Branch(outputs=1, depth=1, curl=True)},
            geometry=Supernodes(radius=1.0),
            condition=["speed"],
        )
        counts = torch.empty(2, dtype=torch.long)
        clouds = {name: PointCloud(torch.empty(2, 5, 3), counts=counts) for name in ("body", "a", "b")}
        found = operator(
            {"a": clouds["a"], "b": clouds["b"]},
            {"b": clouds["b"]},
            geometry=clouds["body"],
            condition=torch.empty(2, 1),
        )
    assert found.anchors["b"].shape == found.queries["b"].shape == (2, 5, 4)


def test_attention_has_no_mask_where_clouds_are_full(monkeypatch: pytest.MonkeyPatch) -> None:
    masked = []
    original = functional.scaled_dot_product_attention

    def watched(*arguments: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        masked.append(attn_mask is not None)
        return original(*arguments, attn_mask=attn_mask)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", watched)
    operator = small()
    operator.field(solve(operator), {"volume": cloud(4, seed=2)})
    assert masked and not any(masked)
    solve(operator, volume=PointCloud(cloud(7).points, counts=torch.tensor([7, 3])))
    assert any(masked)


# curl


def divergence(operator: ABUPT, state: State, points: Tensor, channels: slice) -> tuple[Tensor, Tensor]:
    """Of some channels of the volume's fields, and the norm of their gradient."""

    def fields(p: Tensor) -> Tensor:
        return operator.field(state, {"volume": PointCloud(p)})["volume"][..., channels]

    with Formulas():
        eye = torch.eye(points.shape[-1], dtype=points.dtype)
        slopes = [torch.func.jvp(fields, (points,), (e.expand_as(points),))[1] for e in eye]
    gradient = torch.stack(slopes, dim=-1)
    return gradient.diagonal(dim1=-2, dim2=-1).sum(dim=-1).detach(), gradient.flatten(-2).norm(dim=-1).detach()


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-14), (torch.float32, 1e-5)])
def test_a_curl_has_no_divergence(axes: int, dtype: torch.dtype, bound: float) -> None:
    """At rounding error, some tens of units in the last place through second derivatives of every layer.

    A branch that predicts its fields directly has a divergence as large as its gradient.
    """
    branches = {"surface": Branch(outputs=1, depth=1), "volume": Branch(outputs=axes, depth=1, curl=True)}
    operator = small(axes, branches=branches)
    state, points = solve(operator), cloud(40, axes, seed=2).points
    operator, state, points = operator.to(dtype), state.to(dtype), points.to(dtype)
    found, size = divergence(operator, state, points, slice(axes, None))
    assert float((found.abs() / size).max()) < bound
    control, size = divergence(operator, state, points, slice(axes))
    assert float((control.abs() / size).max()) > 0.1


def test_the_curl_is_that_of_differences() -> None:
    branches = {"volume": Branch(outputs=1, depth=1, curl=True)}
    operator = small(branches=branches)
    state = operator.anchor(operator.encode(*bodies()), {"volume": anchors()["volume"]})
    points, h = cloud(6, seed=2).points, 1e-4

    def potential(p: Tensor) -> Tensor:
        return operator._direct(state, "volume", PointCloud(p))[..., 1:]

    eye = h * torch.eye(3, dtype=points.dtype)
    d = [(potential(points + e) - potential(points - e)) / (2 * h * operator.waves.scale) for e in eye]
    expected = torch.stack(
        [d[1][..., 2] - d[2][..., 1], d[2][..., 0] - d[0][..., 2], d[0][..., 1] - d[1][..., 0]], dim=-1
    )
    found = operator.field(state, {"volume": PointCloud(points)})["volume"]
    assert close(found[..., 1:], expected, 1e-6)  # the error of differences is h^2 scale^2 / 6 = 6e-8
    assert close(found[..., :1], operator._direct(state, "volume", PointCloud(points))[..., :1])


def test_anchors_of_a_curl_are_queries_and_train() -> None:
    operator = small(branches={"volume": Branch(outputs=0, depth=1, curl=True)}, pattern="psj")
    clouds = {"volume": PointCloud(anchors()["volume"].points, counts=torch.tensor([7, 4]))}
    body, centres = bodies()
    found = operator(clouds, clouds, geometry=body, supernodes=centres)
    assert torch.equal(found.anchors["volume"], found.queries["volume"]) and found.anchors["volume"].shape == (2, 7, 3)
    found.anchors["volume"].square().sum().backward()
    # a constant potential has no curl
    unused = {"branches.volume.head.bias", "branches.volume.blocks.0.mlp.second.bias"}
    assert {name for name, p in operator.named_parameters() if p.grad is None or not p.grad.any()} == unused


# what is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"axes": 4}, "axes: got 4"),
        ({"branches": {}}, "at least one"),
        ({"branches": {"geometry": Branch(outputs=1, depth=1)}}, "none called 'geometry'"),
        ({"pattern": "psx"}, "letters p, s, c and j"),
        ({"pattern": "sc"}, "'sc' with a geometry"),
        ({"geometry": None}, "'pscj' without a geometry"),
        ({"heads": 5}, "even number of channels"),
        ({"heads": 6}, "at least 6"),
    ],
)
def test_contradictions_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**change)


def test_bad_parts_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 field"):
        Branch(outputs=0, depth=1)
    with pytest.raises(ValueError, match="leave one of the two out"):
        Branch(outputs=1, depth=1, features=FEATURES, curl=True)
    with pytest.raises(ValueError, match="radius, most, depth"):
        Supernodes(radius=-1.0)


def test_clouds_that_do_not_fit_are_refused() -> None:
    operator = small(condition=["speed"], branches={"volume": Branch(outputs=1, depth=1, features=FEATURES)})
    body, centres = bodies()
    with pytest.raises(ValueError, match=r"condition: got none, expected \(B, 1\)"):
        operator.encode(body, centres)
    numbers = torch.ones(2, 1, dtype=torch.float64)
    with pytest.raises(ValueError, match="got 3 clouds in 3 dimensions, expected 2 in 3"):
        operator.encode(cloud(4, batch=3), condition=numbers)
    with pytest.raises(ValueError, match="supernodes: got 1 clouds"):
        operator.encode(body, cloud(4, batch=1), condition=numbers)
    state = operator.encode(body, centres, condition=numbers)
    with pytest.raises(ValueError, match=r"got \['wake'\], this operator has \['volume'\]"):
        operator.anchor(state, {"wake": cloud(4)})
    with pytest.raises(ValueError, match="in 2 dimensions, expected 2 in 3"):
        operator.anchor(state, {"volume": cloud(4, 2, features=FEATURES)})
    with pytest.raises(ValueError, match=r"volume: got features {'normal': 3}"):
        operator.anchor(state, {"volume": cloud(4, features={"normal": 3})})
