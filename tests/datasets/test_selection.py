from __future__ import annotations

import pickle
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from settings import make_steady_store
from waves import make_store, wave_layout
from wells import tree

from physml.datasets import Segment, TheWell, Trajectories, open_trajectories
from physml.datasets.check import check
from physml.datasets.convert import convert
from physml.datasets.selection import Selection
from physml.datasets.trajectories import NotFinite
from physml.fields import Field

ROWS = ("u", "v", "w")


class Numbered(Trajectories):
    """``1000 trajectory + 10 frame + channel`` everywhere, plus 0.1 x: every mistake of an index shows."""

    def __init__(self, lengths: Sequence[int] = (20, 13, 7), splits: dict[str, Any] | None = None) -> None:
        one = wave_layout((4,), dt=0.5)
        self.layout = type(one)(tuple(map(Field, ROWS)), one.grid, one.dt, "s", (Field("k"), Field("l")))
        self.lengths, self.name, self.path, self.count = lengths, "numbered", "numbered", len(lengths)
        self.frames, self.fingerprint, self.provenance = max(lengths), "f00d", {"made": "here"}
        self.parameters = {"nu": np.arange(self.count) + 1.0}
        whole = {"train": [(0, 0, 20), (1, 0, 6)], "test": [(1, 7, 13), (2, 0, 7)]}
        self.segments = {name: tuple(Segment(*s) for s in rows) for name, rows in (splits or whole).items()}
        self.bad: tuple[int, int] | None = None  # frame and channel

    def length(self, trajectory: int) -> int:
        return self.lengths[trajectory]

    def times(self) -> np.ndarray:
        return 0.5 * np.arange(self.frames)

    def _read(self, trajectory: int, frames: slice) -> np.ndarray:
        numbers = np.arange(self.frames)[frames].astype(np.float32)
        values = 1000 * trajectory + 10 * numbers[:, None, None] + np.arange(3) + 0.1 * np.arange(4)[:, None]
        if self.bad is not None:
            values[numbers == self.bad[0], ..., self.bad[1]] = np.nan
        return values.astype(np.float32)

    def _read_static(self, trajectory: int) -> np.ndarray:
        return np.stack([np.full(4, trajectory), np.full(4, -trajectory)], axis=-1).astype(np.float32)


def test_values_are_those_of_the_frames_that_were_chosen() -> None:
    data = Numbered()
    for start, stop, step in product((0, 1, 3), (5, 7, 12, None), (1, 2, 3)):
        frames, rows = slice(start, stop, step), slice(1, None)
        chosen = Selection(data, fields=["w", "u"], static=["l"], frames=frames, trajectories=rows)
        assert (chosen.layout.names, chosen.layout.dt) == (("w", "u"), 0.5 * step)
        for row in range(2):
            wanted = range(data.length(row + 1))[start:stop:step]
            assert chosen.length(row) == len(wanted)
            expected = np.stack([data.read(row + 1, at, at + 1)[0] for at in wanted])[..., [2, 0]]
            np.testing.assert_array_equal(chosen.read(row, 0, len(wanted)), expected)
            for first, every in ((0, 2), (len(wanted) - 1, 1)):  # windows of windows
                np.testing.assert_array_equal(
                    chosen.read(row, first, len(wanted), every), expected[first : len(wanted) : every]
                )
            np.testing.assert_array_equal(chosen.read_static(row), data.read_static(row + 1)[..., [1]])
        assert chosen.parameters["nu"].tolist() == [2.0, 3.0]
        np.testing.assert_array_equal(chosen.times(), data.times()[start:][::step][: chosen.frames])


def test_splits_keep_exactly_the_chosen_frames_of_theirs() -> None:
    data = Numbered()
    for start, stop, step in product((0, 1, 2, 6), (7, 12, 20), (1, 2, 3, 5)):
        chosen = Selection(data, frames=slice(start, stop, step))
        for split, segments in data.segments.items():
            expected = {
                (s.trajectory, frame)
                for s in segments
                for frame in range(data.length(s.trajectory))[start:stop:step]
                if s.start <= frame < s.stop
            }
            found = {
                (s.trajectory, start + step * frame)
                for s in chosen.segments.get(split, ())
                for frame in range(s.start, s.stop)
            }
            assert found == expected, (start, stop, step, split)
            assert all(s.start < s.stop <= chosen.length(s.trajectory) for s in chosen.segments.get(split, ()))
    assert set(Selection(data, trajectories=slice(2, 3)).segments) == {"test"}  # none of train is there


def test_statistics_are_those_of_what_was_chosen(tmp_path: Path) -> None:
    data = make_store(tmp_path / "waves.zarr")
    chosen = Selection(data, frames=slice(2, None, 3), trajectories=slice(0, 3))
    values = np.concatenate([data.read(row, 2, 20, 3) for row in range(3)]).astype(np.float64)
    rises = np.concatenate([np.diff(data.read(row, 2, 20, 3).astype(np.float64), axis=0) for row in range(3)])
    s = chosen.statistics
    # sums of 1e4 numbers around one in double precision
    assert s.mean[0] == pytest.approx(values.mean(), abs=1e-12) and s.std[0] == pytest.approx(values.std(), rel=1e-12)
    assert s.increment_std[0] == pytest.approx(rises.std(), rel=1e-12)
    assert s.number_mean["viscosity"] == pytest.approx(0.02)
    assert chosen.storage().statistics == "measured" and chosen.storage().files == data.storage().files
    assert [(f.severity, f.kind) for f in check(chosen)] == []


def test_fingerprint_and_provenance_say_what_was_chosen() -> None:
    data = Numbered()
    made = [
        Selection(data),
        Selection(data, fields=["u"]),
        Selection(data, static=[]),
        Selection(data, frames=slice(0, 6)),
        Selection(data, frames=slice(0, 6, 2)),
        Selection(data, trajectories=slice(1, 3)),
    ]
    assert len({item.fingerprint for item in made}) == len(made)
    assert made[0].fingerprint == Selection(data, fields=ROWS, frames=slice(0, 20)).fingerprint  # all, in other words
    before = made[1].fingerprint
    data.fingerprint = "cafe"
    assert Selection(data, fields=["u"]).fingerprint != before
    told = made[4].provenance
    assert told["selected"]["frames"] == [0, 5, 2] and told["of"]["provenance"] == {"made": "here"}
    assert told["of"]["adapter"].endswith("Numbered") and told["of"]["fingerprint"] == "cafe"


def test_a_selection_of_a_selection_is_one() -> None:
    data = Numbered()
    twice = Selection(Selection(data, frames=slice(1, None, 2), fields=["w", "v"]), frames=slice(1, 3), fields=["v"])
    once = Selection(data, frames=slice(3, 7, 2), fields=["v"])
    assert twice.layout.to_plain() == once.layout.to_plain() and twice.segments == once.segments
    for row in range(3):
        np.testing.assert_array_equal(twice.read(row, 0, 2), once.read(row, 0, 2))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"fields": ["q"]}, "fields: got 'q'; numbered has u, v, w"),
        ({"fields": ["k"]}, "fields: got 'k'; numbered has u, v, w"),
        ({"fields": []}, "fields: got none; name at least one of u, v, w"),
        ({"fields": ["u", "u"]}, "fields: got u, u; name each once"),
        ({"static": ["u"]}, "static: got 'u'; numbered has k, l"),
        ({"frames": slice(-5, None)}, "frames: got -5:; expected START:STOP:STEP from 0 on"),
        ({"frames": slice(0, 5, 0)}, "with a step of 1 or more"),
        ({"frames": slice(10, 20)}, "frames: got 10:20, which leaves none of trajectory 2 of numbered"),
        (
            {"trajectories": slice(3, 9)},
            "got 3:9, which leaves none of numbered, which has trajectories 0 to 2",
        ),
    ],
)
def test_what_cannot_be_chosen_is_told(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Selection(Numbered(), **given)


def test_a_field_that_is_left_out_may_be_broken() -> None:
    data = Numbered()
    data.bad = (4, 1)
    chosen = Selection(data, fields=["u", "w"])
    np.testing.assert_array_equal(chosen.read(0, 0, 20), Numbered().read(0, 0, 20)[..., [0, 2]])
    with pytest.raises(ValueError, match="frame 4 holds NaN"):
        Selection(data, fields=["u", "v"]).read(0, 0, 20)

    def unnamed(trajectory: int, frames: slice, values: np.ndarray) -> None:
        raise NotFinite("somewhere")

    data._not_finite = unnamed  # type: ignore[method-assign]  # an adapter that does not say which field it is
    with pytest.raises(ValueError, match="frame 4 holds NaN"):
        Selection(data, fields=["v"]).read(0, 0, 20)


def test_what_the_source_does_about_obstacles_is_done(tmp_path: Path) -> None:
    """Files of The Well hold anything inside of an obstacle; it is read as zero."""
    folder = tree(tmp_path / "tiny")
    data = open_trajectories(folder)
    assert isinstance(data, TheWell)
    name = data.layout.names[-1]
    np.testing.assert_array_equal(Selection(data, fields=[name]).read(0, 0, 2), data.read(0, 0, 2)[..., -1:])


def test_a_selection_is_converted_like_any_data(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "1D_Burgers_Sols_Nu0.01.hdf5", "w") as file:
        file["tensor"] = np.random.default_rng(0).standard_normal((10, 9, 6)).astype(np.float32)
        file["x-coordinate"], file["t-coordinate"] = (np.arange(6) + 0.5) / 6, 0.1 * np.arange(10)
    data = open_trajectories(tmp_path / "1D_Burgers_Sols_Nu0.01.hdf5")
    chosen = Selection(data, frames=slice(0, 8, 2))
    one, two = (convert(chosen, tmp_path / f"{n}.zarr", workers=n) for n in (1, 2))
    assert one.fingerprint == two.fingerprint and one.layout.dt == pytest.approx(0.2)
    for row in range(data.count):
        np.testing.assert_array_equal(two.read(row, 0, 4), data.read(row, 0, 8, 2))
    assert convert(Selection(data, frames=slice(0, 8, 2)), tmp_path / "1.zarr").fingerprint == one.fingerprint
    again = pickle.loads(pickle.dumps(chosen))
    np.testing.assert_array_equal(again.read(0, 0, 4), chosen.read(0, 0, 4))


def test_a_steady_set_keeps_its_static_fields(tmp_path: Path) -> None:
    data = make_steady_store(tmp_path / "steady.zarr")
    chosen = Selection(data, static=[], trajectories=slice(1, 4))
    assert chosen.layout.static == () and chosen.read_static(0).shape == (8, 8, 0)
    np.testing.assert_array_equal(Selection(data).read_static(2), data.read_static(2))
