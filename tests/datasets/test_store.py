from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from settings import coefficient, make_steady_store, steady_layout, strength
from waves import make_store, wave, wave_layout

from physml.datasets import Segment, Statistics, StoreWriter, TrajectoryStore, open_trajectories
from physml.datasets.trajectories import measure
from physml.fields import Grid, Layout


def half(path: Path, store: TrajectoryStore, **changes: Any) -> StoreWriter:
    arguments: dict[str, Any] = {"segments": {"train": [Segment(0, 0, 8)]}, "parameters": {}, "provenance": {}}
    return StoreWriter(path, name="half", layout=store.layout, count=2, frames=8, **arguments | changes)


def test_frames_come_back_exactly(store: TrajectoryStore) -> None:
    expected = wave(store.layout, 3, store.frames)
    np.testing.assert_array_equal(store.read(3, 2, 17, 3), expected[2:17:3])


def test_xarray_opens_it_with_named_coordinates(store: TrajectoryStore) -> None:
    opened = xarray.open_zarr(store.path)
    assert opened.state.dims == ("trajectory", "time", "x", "y", "channel")
    assert opened.x.attrs["boundary"] == "periodic" and opened.time.attrs["units"] == "s"
    assert float(opened.time[1] - opened.time[0]) == store.layout.dt
    assert list(opened.channel.values) == ["vorticity"]


def test_statistics_are_those_of_the_training_split(store: TrajectoryStore) -> None:
    values = np.concatenate([wave(store.layout, row, store.frames) for row in range(4)]).astype(np.float64)
    steps = np.diff(values.reshape(4, store.frames, -1), axis=1)
    s = store.statistics
    # both sides are float64 sums over 2e4 numbers
    np.testing.assert_allclose([s.mean[0], s.std[0]], [values.mean(), values.std()], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(s.increment_std[0], steps.std(), rtol=1e-10)
    energy = (((values - values.mean()) / values.std()) ** 2).mean(axis=(1, 2, 3)).max()
    np.testing.assert_allclose(s.energy, energy, rtol=1e-10)


@settings(max_examples=20, deadline=None)
@given(lengths=st.lists(st.integers(1, 90), min_size=1, max_size=4), seed=st.integers(0, 100))
def test_statistics_do_not_depend_on_blocks(lengths: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    # a mean 1e6 times the spread: one-pass sums of squares would keep 4 of 16 digits
    data = [1e4 + 1e-2 * rng.standard_normal((n, 4, 4, 1)) for n in lengths]
    segments = [Segment(row, 0, n) for row, n in enumerate(lengths)]
    found = measure(wave_layout((4, 4)), segments, lambda row, a, b: data[row][a:b])
    values = np.concatenate(data)
    np.testing.assert_allclose(found.std[0], values.std(), rtol=1e-8)  # 1e-6 relative spread in float64: 10 digits left
    np.testing.assert_allclose(found.mean[0], values.mean(), rtol=1e-12)


def test_a_missing_chunk_is_an_error(store: TrajectoryStore) -> None:
    chunk = next(path for path in (Path(store.path) / "state" / "c").rglob("*") if path.is_file())
    chunk.unlink()
    with pytest.raises(ValueError, match="1 of 12 chunk files of state are missing"):
        TrajectoryStore(store.path)


def test_a_truncated_chunk_is_an_error(store: TrajectoryStore) -> None:
    chunk = Path(store.path) / "state/c/2/0/0/0/0"
    chunk.write_bytes(chunk.read_bytes()[:-10])
    with pytest.raises(ValueError, match="trajectory 2, frames 0 to 3 cannot be decoded"):
        TrajectoryStore(store.path).read(2, 0, 4)


def test_a_flipped_bit_is_an_error(store: TrajectoryStore) -> None:
    chunk = Path(store.path) / "state/c/2/0/0/0/0"
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="cannot be decoded"):
        TrajectoryStore(store.path).read(2, 0, 4)


@pytest.mark.parametrize("damage", ["truncate", "remove", "foreign"])
def test_damaged_metadata_is_one_clear_error(store: TrajectoryStore, damage: str) -> None:
    meta = Path(store.path) / "zarr.json"
    if damage == "truncate":
        meta.write_text(meta.read_text()[:100])
    elif damage == "remove":
        meta.unlink()
    else:
        content = json.loads(meta.read_text())
        content["attributes"] = {}
        meta.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"not a readable zarr group|without physml metadata"):
        open_trajectories(store.path)


def test_nan_is_refused_on_writing_and_reading(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.zarr", count=3)
    import zarr

    zarr.open_group(store.path, mode="r+")["state"][1, 5, 0, 0, 0] = np.nan  # type: ignore[index]
    with pytest.raises(ValueError, match="trajectory 1, frame 5 holds NaN"):
        TrajectoryStore(store.path).read(1, 2, 9)


def test_a_finished_store_is_not_written_to(store: TrajectoryStore) -> None:
    segments = {split: list(rows) for split, rows in store.segments.items()}
    writer = StoreWriter(
        store.path,
        name="waves",
        layout=store.layout,
        count=store.count,
        frames=store.frames,
        parameters={name: list(values) for name, values in store.parameters.items()},
        segments=segments,
        provenance=store.provenance,
    )
    with pytest.raises(ValueError, match="is complete"):
        writer.write(0, 0, np.zeros((writer.chunk_frames, 16, 16, 1)))


def test_other_settings_do_not_overwrite(store: TrajectoryStore) -> None:
    with pytest.raises(ValueError, match="already holds other data"):
        make_store(Path(store.path), frames=24)
    assert make_store(Path(store.path)).fingerprint == store.fingerprint


def test_an_interrupted_store_is_not_opened(tmp_path: Path, store: TrajectoryStore) -> None:
    half(tmp_path / "half.zarr", store)
    with pytest.raises(ValueError, match="interrupted"):
        TrajectoryStore(tmp_path / "half.zarr")


@pytest.mark.parametrize("shape", [(4, 16, 16, 3), (4, 16, 1, 1), (4, 16, 16), (0, 16, 16, 1)])
def test_blocks_of_another_shape_are_refused(tmp_path: Path, store: TrajectoryStore, shape: tuple[int, ...]) -> None:
    writer = half(tmp_path / "half.zarr", store)
    with pytest.raises(ValueError, match=r"expected \(T, 16, 16, 1\)"):
        writer.write(0, 0, np.zeros(shape))


def test_blocks_in_another_place_or_too_large_for_fp32_are_refused(tmp_path: Path, store: TrajectoryStore) -> None:
    writer = half(tmp_path / "half.zarr", store)
    n = writer.chunk_frames
    for start, length in ((1, n), (0, n + 1), (n * 8, n)):
        with pytest.raises(ValueError, match="write: got"):
            writer.write(0, start, np.zeros((length, 16, 16, 1)))
    with pytest.raises(ValueError, match="not finite"):
        writer.write(0, 0, np.full((n, 16, 16, 1), 1e39))


def test_a_store_with_holes_is_not_finished_and_can_be_continued(tmp_path: Path, store: TrajectoryStore) -> None:
    writer = half(tmp_path / "half.zarr", store)
    with pytest.raises(ValueError, match="were not written"):
        writer.finish(["", ""])
    again = half(tmp_path / "half.zarr", store)
    assert not again.complete and not again.created


def test_splits_are_checked_before_anything_is_written(tmp_path: Path, store: TrajectoryStore) -> None:
    for segments, message in (
        ({"test": [Segment(0, 0, 8)]}, "a split 'train'"),
        ({"train": [Segment(0, 0, 9)]}, "there are 2 trajectories of 8 frames"),
        ({"train": [Segment(2, 0, 8)]}, "there are 2 trajectories of 8 frames"),
    ):
        with pytest.raises(ValueError, match=message):
            half(tmp_path / "half.zarr", store, segments=segments)
    assert not (tmp_path / "half.zarr").exists()


def test_obstacles_are_empty_when_read(tmp_path: Path) -> None:
    layout = wave_layout((4, 4))
    mask = torch.ones(4, 4, dtype=torch.bool)
    mask[1, 2] = False
    layout = Layout(layout.fields, Grid(layout.grid.axes, mask), layout.dt)
    writer = StoreWriter(
        tmp_path / "a.zarr",
        name="a",
        layout=layout,
        count=1,
        frames=2,
        parameters={},
        segments={"train": [Segment(0, 0, 2)]},
        provenance={},
    )
    store = writer.finish([writer.write(0, 0, np.ones((2, 4, 4, 1)) + np.arange(2).reshape(2, 1, 1, 1))])
    values = store.read(0, 0, 2)
    assert not values[:, 1, 2].any() and values[:, mask.numpy()].all()


def test_the_fingerprint_tells_data_apart(tmp_path: Path, store: TrajectoryStore) -> None:
    assert make_store(tmp_path / "b.zarr", count=5).fingerprint != store.fingerprint
    assert make_store(tmp_path / "c.zarr").fingerprint == store.fingerprint


def test_workers_get_no_open_files(store: TrajectoryStore) -> None:
    store.read(0, 0, 2)
    again = pickle.loads(pickle.dumps(store))  # our own bytes: what a worker process is sent
    assert not again._arrays
    np.testing.assert_array_equal(again.read(0, 0, 2), store.read(0, 0, 2))


def test_missing_data_name_the_variable(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="PHYSML_DATA"):
        open_trajectories(tmp_path / "nothing.zarr")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="not a data set physml can read"):
        open_trajectories(tmp_path / "folder")


def test_static_fields_come_back_exactly_with_names(tmp_path: Path) -> None:
    store = make_steady_store(tmp_path / "a.zarr")
    for row in range(store.count):
        np.testing.assert_array_equal(store.read_static(row), coefficient(store.layout, row))
    opened = xarray.open_zarr(store.path)
    assert opened["static"].dims == ("trajectory", "x", "y", "static_field")
    assert list(opened.static_field.values) == ["coefficient"] and opened.static_field.attrs["units"] == "m"
    again = pickle.loads(pickle.dumps(store))  # our own bytes: what a worker process is sent
    np.testing.assert_array_equal(again.read_static(3), store.read_static(3))
    with pytest.raises(ValueError, match="it holds 6 trajectories"):
        store.read_static(6)


def test_moments_of_the_setting_are_those_of_the_training_split(tmp_path: Path) -> None:
    s = make_steady_store(tmp_path / "a.zarr").statistics
    fields = np.stack([coefficient(steady_layout(), row) for row in range(4)]).astype(np.float64)
    # both sides are float64 sums over 256 numbers
    np.testing.assert_allclose([*s.static_mean, *s.static_std], [fields.mean(), fields.std()], rtol=1e-12)
    strengths = [strength(row) for row in range(4)]
    assert s.number_mean == {"age": 7.0, "strength": np.mean(strengths)}
    assert s.number_std == {"age": 0.0, "strength": np.std(strengths)}
    assert Statistics.from_plain(json.loads(json.dumps(s.to_plain()))) == s


def test_a_store_that_was_measured_without_a_setting_opens(store: TrajectoryStore) -> None:
    meta = Path(store.path) / "zarr.json"
    content = json.loads(meta.read_text())
    moments = content["attributes"]["physml"]["statistics"]
    for name in ("static_mean", "static_std", "number_mean", "number_std"):
        del moments[name]
    meta.write_text(json.dumps(content))
    again = TrajectoryStore(store.path)
    assert again.statistics.mean == store.statistics.mean and again.statistics.number_mean == {}
    assert again.layout.static == () and again.fingerprint == store.fingerprint


def test_damaged_static_fields_are_errors(tmp_path: Path) -> None:
    store = make_steady_store(tmp_path / "a.zarr")
    chunk = Path(store.path) / "static/c/2/0/0/0"
    content = chunk.read_bytes()
    chunk.write_bytes(content[:-10])
    with pytest.raises(ValueError, match="static fields of trajectory 2 cannot be decoded"):
        TrajectoryStore(store.path).read_static(2)
    chunk.unlink()
    with pytest.raises(ValueError, match="1 of 6 chunk files of static are missing"):
        TrajectoryStore(store.path)
    chunk.write_bytes(content)
    import zarr

    zarr.open_group(store.path, mode="r+")["static"][2, 0, 0, 0] = np.inf  # type: ignore[index]
    with pytest.raises(ValueError, match="trajectory 2, static field 'coefficient' holds NaN"):
        TrajectoryStore(store.path).read_static(2)


def test_static_fields_are_written_whole_and_count_for_the_fingerprint(tmp_path: Path) -> None:
    steady = make_steady_store(tmp_path / "a.zarr")

    def written(path: Path, factor: float) -> TrajectoryStore:
        writer = half(path, steady)
        states = np.random.default_rng(0).normal(size=(2, 8, 8, 8, 1))
        digest = [writer.write(row, 0, states[row]) for row in range(2)]
        writer.write_static(0, np.ones((8, 8, 1)))
        with pytest.raises(ValueError, match="1 of 2 static fields were not written"):
            writer.finish(digest)
        writer.write_static(1, factor * np.ones((8, 8, 1)))
        store = writer.finish(digest)
        with pytest.raises(ValueError, match="is complete"):
            writer.write_static(0, np.ones((8, 8, 1)))
        return store

    one, two = written(tmp_path / "b.zarr", 1.0), written(tmp_path / "c.zarr", 2.0)
    assert one.fingerprint != two.fingerprint


def test_static_fields_of_another_shape_or_not_finite_are_refused(tmp_path: Path, store: TrajectoryStore) -> None:
    writer = half(tmp_path / "half.zarr", make_steady_store(tmp_path / "a.zarr"))
    for row, values in ((0, np.ones((8, 8))), (0, np.ones((8, 8, 2))), (2, np.ones((8, 8, 1)))):
        with pytest.raises(ValueError, match=r"expected \(8, 8, 1\) for one of 2 trajectories"):
            writer.write_static(row, values)
    with pytest.raises(ValueError, match="are not finite"):
        writer.write_static(0, np.full((8, 8, 1), 1e39))
    with pytest.raises(ValueError, match="has no static fields"):
        half(tmp_path / "other.zarr", store).write_static(0, np.ones((16, 16, 1)))


def test_a_parameter_that_was_damaged_is_noticed(tmp_path: Path) -> None:
    store = make_store(tmp_path / "waves.zarr")
    numbers: Any = zarr.open_group(store.path, mode="r+")["viscosity"]
    numbers[5] = np.nextafter(numbers[5], 1.0)  # the last bit, of a trajectory that no statistic knows
    with pytest.raises(ValueError, match="the parameter 'viscosity' holds other numbers than the metadata say"):
        TrajectoryStore(store.path)
