from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from physml.datasets.mapping import Section, interval, parts, placed, read_mapping, split
from physml.fields import Boundary


@given(
    counts=st.lists(st.integers(1, 5), min_size=1, max_size=5),
    start=st.integers(0, 20),
    size=st.integers(1, 20),
    step=st.integers(1, 6),
)
def test_parts_of_files_are_the_whole(counts: list[int], start: int, size: int, step: int) -> None:
    whole = np.arange(sum(counts))
    start = min(start, len(whole) - 1)
    stop = min(start + size, len(whole))
    files = np.split(whole, np.cumsum(counts)[:-1])
    found = [files[index][where] for index, where in parts(counts, slice(start, stop, step))]
    np.testing.assert_array_equal(np.concatenate(found), whole[start:stop:step])
    assert all(len(piece) for piece in found)


@given(count=st.integers(1, 40), frames=st.integers(1, 80))
def test_the_default_split_covers_and_never_overlaps(count: int, frames: int) -> None:
    seen = np.zeros((count, frames), int)
    found = split(None, count, frames)
    for rows in found.values():
        assert rows
        for s in rows:
            assert s.start < s.stop
            seen[s.trajectory, s.start : s.stop] += 1
    assert seen.max() == 1
    if count >= 3 or len(found) == 1:
        assert seen.min() == 1
    else:  # two gaps of a twentieth
        assert (seen == 0).sum() == 2 * (frames // 20) * count


@given(
    points=st.lists(st.integers(-1000, 1000), min_size=3, max_size=12, unique=True).map(sorted),
    falling=st.booleans(),
    repeated=st.booleans(),
)
def test_kept_points_are_those_of_the_axis(points: list[int], falling: bool, repeated: bool) -> None:
    stored = np.array(points[::-1] if falling else points, float)
    boundary = Boundary.PERIODIC if repeated else Boundary.OPEN
    axis, keep = placed("here", "x", stored, boundary, repeated=repeated)
    np.testing.assert_array_equal(stored[keep], axis.points)
    assert len(axis.points) == len(points) - repeated and axis.length == points[-1] - points[0]


@given(dt=st.floats(1e-6, 1e6), start=st.floats(-1e3, 1e3), n=st.integers(2, 300), single=st.booleans())
def test_even_times_are_even_whatever_their_precision(dt: float, start: float, n: int, single: bool) -> None:
    times = (start * dt + dt * np.arange(n)).astype(np.float32 if single else np.float64)
    # 1300 steps from 0, single precision is good to 1300 * 6e-8 of a step, and the mean is rounded to 7 digits
    assert abs(interval("here", times) / dt - 1) < (2e-4 if single else 1e-6)


def test_broken_mapping_files_are_named(tmp_path: Path) -> None:
    file = tmp_path / "a.physml.yaml"
    for content, message in (
        ("a: [", "not a YAML file"),
        ("- 1", r"the file is \[1\]; expected keys with values"),
        ("1: 2", "the file is {1: 2}; expected keys with values"),
        ("", "the file is None; expected keys"),
    ):
        file.write_text(content)
        with pytest.raises(ValueError, match=rf"a\.physml\.yaml: {message}"):
            read_mapping(file)
    section = Section(file, "", {"n": True, "m": float("nan"), "t": 3, "w": -1})
    for name, ask in (("n", section.number), ("m", section.number), ("t", section.text), ("w", section.whole)):
        with pytest.raises(ValueError, match=rf"{name}: got .*; expected"):
            ask(name)
    with pytest.raises(ValueError, match="q: is missing; expected text"):
        section.text("q")


def test_files_lie_beside_the_mapping_file_or_below_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside, root = tmp_path / "recipes", tmp_path / "data"
    for folder in (beside, root / "far"):
        folder.mkdir(parents=True)
        (folder / "run_1.npy").touch()
    (root / "run_1.npy").touch()
    (root / "far" / "run_2.npy").touch()
    monkeypatch.setenv("PHYSML_DATA", str(root))

    def found(value: object) -> tuple[Path, ...]:
        return Section(beside / "a.physml.yaml", "", {"file": value}).files()

    assert found("run_1.npy") == found("run_*.npy") == (beside / "run_1.npy",)  # what lies beside comes first
    assert found("far/run_2.npy") == (root / "far" / "run_2.npy",)
    assert found(["run_1.npy", "far/run_*.npy"]) == (beside / "run_1.npy", *sorted((root / "far").iterdir()))
    assert found(str(root / "run_1.npy")) == (root / "run_1.npy",)
    for missing in ("far/no.npy", "far/no_*.npy", ["run_1.npy", "far/no.npy"]):
        with pytest.raises(FileNotFoundError) as problem:
            found(missing)
        assert f"file: there is no file {beside / 'far' / 'no'}" in str(problem.value)
        assert f", nor {root / 'far' / 'no'}" in str(problem.value)  # both places
