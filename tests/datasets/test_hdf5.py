from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from wells import tree

from physml.datasets import TheWell, hdf5


@pytest.mark.parametrize("direct", [0, 1 << 30], ids=["in place", "by way of a copy"])
@pytest.mark.parametrize("kind", ["<f4", ">f4", "<f8", "<i4", "?"])
def test_a_part_is_put_where_it_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, direct: int
) -> None:
    monkeypatch.setattr(hdf5, "_DIRECT", direct)
    values = (np.arange(3 * 7 * 4 * 2).reshape(3, 7, 4, 2) % 5).astype(kind)
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["plain"] = values
        file.create_dataset("packed", data=values, chunks=(1, 2, 4, 2), compression="gzip")
    with hdf5.open_file(tmp_path / "a.hdf5") as file:
        for name in ("plain", "packed"):
            for index in ((), (1,), (1, slice(2, 6)), (2, slice(0, 7, 3)), (slice(None), 3), (0, slice(6, 7))):
                expected = values[index].astype(np.float32)
                out = np.full((*expected.shape, 1), np.nan, np.float32)
                hdf5.read_into(file[name], index, out)
                np.testing.assert_array_equal(out[..., 0], expected)


@pytest.mark.parametrize("direct", [0, 1 << 30])
def test_a_damaged_chunk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, direct: int) -> None:
    monkeypatch.setattr(hdf5, "_DIRECT", direct)
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        file.create_dataset("u", data=np.ones((4, 8), np.float32), chunks=(1, 8), fletcher32=True)
        place = file["u"].id.get_chunk_info(2).byte_offset
    raw = bytearray(path.read_bytes())
    raw[place] ^= 1
    path.write_bytes(raw)
    with hdf5.open_file(path) as file:
        hdf5.read_into(file["u"], (slice(0, 2),), np.empty((2, 8), np.float32))
        with pytest.raises(ValueError, match=r"a.hdf5: /u cannot be read at .*truncated or corrupt"):
            hdf5.read_into(file["u"], (slice(1, 3),), np.empty((2, 8), np.float32))


def test_one_field_is_read_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All channels of one array need no second place; parts of one, and several arrays, do."""
    seen: list[str] = []
    read_into = hdf5.read_into

    def noted(source: h5py.Dataset, index: object, out: np.ndarray) -> None:
        seen.append(source.name)
        read_into(source, index, out)

    path = tree(tmp_path)
    whole = TheWell(path)
    monkeypatch.setattr(hdf5, "read_into", noted)
    monkeypatch.setattr(hdf5, "_DIRECT", 0)
    for fields, expected in (
        (["velocity"], ["/t1_fields/velocity"]),
        (["stress"], ["/t2_fields/stress"]),
        (["velocity_y"], []),
        (["stripe"], []),
        (["pressure", "velocity"], []),
    ):
        seen.clear()
        data = TheWell(path, fields=fields)
        found = data.read(1, 1, 4)
        assert seen == expected
        channels = [whole.layout.names.index(name) for name in data.layout.names]
        np.testing.assert_array_equal(found, whole.read(1, 1, 4)[..., channels])
