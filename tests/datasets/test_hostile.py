"""Files that are broken, strange or meant to harm: each is read right or refused in one error that names its place."""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path
from typing import Any

import h5py
import numcodecs
import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from mappings import mapped
from wells import write

from physml.cli import data_inspect
from physml.cli.main import main
from physml.datasets import open_trajectories
from physml.datasets.check import check_path

VALUES = np.random.default_rng(0).standard_normal((4, 24, 8)).astype(np.float32)


def pdebench(folder: Path, tensor: Any) -> Path:
    path = folder / "1D_Burgers_Sols_Nu0.01.hdf5"
    with h5py.File(path, "w") as file:
        file["x-coordinate"], file["t-coordinate"] = (np.arange(8) + 0.5) / 8, 0.5 * np.arange(25)
        file["tensor"] = tensor
    return path


def refused(path: Path, *words: str) -> None:
    """Opening and checking say the same, in words."""
    with pytest.raises(ValueError, match=".*".join(map(re.escape, words))):
        open_trajectories(path)
    (found,) = check_path(path)
    assert (found.severity, found.kind) == ("error", "opening")
    assert re.search(".*".join(map(re.escape, words)), f"{found.file}: {found.what}; {found.remedy}"), found


@pytest.mark.parametrize("kind", [">f4", ">f8", "f2", "bool", "i1", "fortran", "trailing"])
def test_strange_but_whole_arrays_are_read_right(tmp_path: Path, kind: str) -> None:
    values = VALUES
    if kind == "fortran":
        np.save(tmp_path / "u.npy", np.asfortranarray(values))
    elif kind == "trailing":
        np.save(tmp_path / "u.npy", values)
        (tmp_path / "u.npy").write_bytes((tmp_path / "u.npy").read_bytes() + b"more")
    else:
        values = (10 * values).astype(kind)
        np.save(tmp_path / "u.npy", values)
    data = open_trajectories(mapped(tmp_path, "u.npy"))
    np.testing.assert_array_equal(data.read(3, 2, 20)[..., 0], values[3, 2:20].astype(np.float32))


def test_other_byte_orders_of_hdf5_are_read_right(tmp_path: Path) -> None:
    data = open_trajectories(pdebench(tmp_path, VALUES.astype(">f8")))
    np.testing.assert_array_equal(data.read(3, 2, 20)[..., 0], VALUES[3, 2:20])


def test_a_header_that_is_no_python_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "u.npy", VALUES)
    raw = (tmp_path / "u.npy").read_bytes()
    (tmp_path / "u.npy").write_bytes(raw.replace(b"(4, 24, 8)", b"((((((((, "))
    refused(mapped(tmp_path, "u.npy"), "u.npy: truncated, damaged or not a .npy file")


def test_what_needs_more_memory_than_there_is_is_said_to(tmp_path: Path) -> None:
    """A small archive whose array claims to be of a tebibyte; and axes of as many points."""
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 24, 999999999999999), }".ljust(117) + "\n"
    npy = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + bytes(100)
    import zipfile

    with zipfile.ZipFile(tmp_path / "u.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("u.npy", npy)
    refused(mapped(tmp_path, "u.npz"), "u.npz: needs more memory than there is", "save it as .npy or HDF5")
    with h5py.File(tmp_path / "u.h5", "w") as file:
        file.create_dataset("u", (4, 24, 10**14), "f4", chunks=(1, 1, 1 << 20))
    refused(mapped(tmp_path, "u.h5"), "needs more memory than there is", "are its sizes right?")


class Trap:
    """Unpickled, it leaves a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


def test_a_pickle_in_a_file_of_tensors_is_named_and_not_loaded(tmp_path: Path) -> None:
    torch.save(Trap(tmp_path / "mark"), tmp_path / "u.pt")
    refused(mapped(tmp_path, "u.pt"), "u.pt: holds pickled objects, which are never loaded")
    assert not (tmp_path / "mark").exists()


def test_links_that_lead_in_a_circle(tmp_path: Path) -> None:
    path = tmp_path / "1D_Burgers_Sols_Nu0.01.hdf5"
    with h5py.File(path, "w") as file:
        file["tensor"], file["other"] = h5py.SoftLink("/other"), h5py.SoftLink("/tensor")
        file["x-coordinate"] = np.arange(8) / 8
    refused(path, path.name, "a link leads in a circle")
    (tmp_path / "well").mkdir()
    write(tmp_path / "well/a.hdf5")
    with h5py.File(tmp_path / "well/a.hdf5", "r+") as file:
        del file["t0_fields/pressure"]
        file["t0_fields/pressure"] = h5py.SoftLink("/t0_fields/pressure")
    refused(tmp_path / "well", "/t0_fields/pressure cannot be looked up", "a link leads in a circle")


def test_an_array_without_a_shape(tmp_path: Path) -> None:
    refused(pdebench(tmp_path, h5py.Empty("f4")), "/tensor is empty")
    with h5py.File(tmp_path / "u.h5", "w") as file:
        file["u"] = h5py.Empty("f4")
    refused(mapped(tmp_path, "u.h5"), "is empty")


def test_external_links_are_followed(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "there.h5", "w") as file:
        file["v"] = VALUES
    with h5py.File(tmp_path / "here.h5", "w") as file:
        file["u"] = h5py.ExternalLink("there.h5", "/v")
    np.testing.assert_array_equal(open_trajectories(mapped(tmp_path, "here.h5")).read(1, 0, 24)[..., 0], VALUES[1])
    (tmp_path / "there.h5").unlink()
    refused(mapped(tmp_path, "here.h5"), "no array 'u'")


def test_raw_files_outside_are_not_read(tmp_path: Path) -> None:
    """HDF5 reads any file that the user may read as numbers, and zeros where it is too short."""
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(100))
    with h5py.File(tmp_path / "u.h5", "w") as file:
        file.create_dataset("u", VALUES.shape, "u1", external=[(str(secret), 0, VALUES.size)])
    refused(mapped(tmp_path, "u.h5"), "has its numbers in the raw file", "secret")


def test_virtual_arrays_are_read_where_they_are_whole(tmp_path: Path) -> None:
    """HDF5 reads what is missing as zeros."""
    with h5py.File(tmp_path / "part.h5", "w") as file:
        file["v"] = VALUES
    for rows, good in ((4, True), (2, False)):
        name = f"{rows}.h5"
        layout = h5py.VirtualLayout(VALUES.shape, "f4")
        layout[:rows] = h5py.VirtualSource("part.h5", "v", VALUES.shape)[:rows]
        with h5py.File(tmp_path / name, "w") as file:
            file.create_virtual_dataset("u", layout, fillvalue=0)
        path = mapped(tmp_path, name)
        if good:
            np.testing.assert_array_equal(open_trajectories(path).read(3, 0, 24)[..., 0], VALUES[3])
        else:
            refused(path, "which give 384 of its 768 numbers")
    with h5py.File(tmp_path / "u.h5", "w") as file:
        layout = h5py.VirtualLayout(VALUES.shape, "f4")
        layout[:] = h5py.VirtualSource("gone.h5", "v", VALUES.shape)
        file.create_virtual_dataset("u", layout, fillvalue=0)
    refused(mapped(tmp_path, "u.h5"), "made of other files, and gone.h5 is not there")


def test_anchors_that_hold_themselves_or_billions(tmp_path: Path) -> None:
    path = tmp_path / "a.physml.yaml"
    path.write_text("file: u.npy\nprovenance: &p {again: *p}\n")
    refused(path, "holds itself, or more than 100000 values")
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefghi", "bcdefghij", strict=True)]
    path.write_text("\n".join([*lines, "provenance: *j"]))
    refused(path, "holds itself, or more than 100000 values")


def test_attributes_that_are_no_text(tmp_path: Path) -> None:
    write(tmp_path / "a.hdf5")
    expected = open_trajectories(tmp_path / "a.hdf5").read(0, 0, 2)
    with h5py.File(tmp_path / "a.hdf5", "r+") as file:
        file.attrs["grid_type"] = np.bytes_(b"\xff\xfe")
    with pytest.warns(UserWarning, match="grid_type is"):
        np.testing.assert_array_equal(open_trajectories(tmp_path / "a.hdf5").read(0, 0, 2), expected)


def test_what_the_command_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from crashes import in_this_process

    monkeypatch.setattr(data_inspect, "apart", in_this_process)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    assert main(["data", "inspect", str(tmp_path / "self")]) == 2
    assert "is a link that leads nowhere" in capsys.readouterr().err
    zarr.create_array(tmp_path / "array.zarr", shape=(4, 24, 8), dtype="f4")
    assert main(["data", "inspect", str(tmp_path / "array.zarr")]) == 2
    assert "not a readable zarr group" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("problem", [OSError("Can't read (heap)"), RuntimeError("Can't read (heap)")])
def test_what_a_library_says_without_a_path_is_given_one(
    tmp_path: Path, problem: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As HDF5 does where variable-length text is damaged."""

    def opened(path: Path) -> None:
        raise problem

    path = pdebench(tmp_path, VALUES)
    monkeypatch.setattr("physml.datasets.pdebench.opened", opened)
    refused(path, path.name, "cannot be read (Can't read (heap))", "its structure is damaged")


def test_a_chunk_that_claims_a_negative_size(tmp_path: Path) -> None:
    """Blosc makes a SystemError of it, which is none of Python's here."""
    axes = {"time": 0.5 * np.arange(24), "x": np.arange(8.0)}
    data = xr.Dataset({"u": (("time", "x"), VALUES[0])}, coords=axes)
    how = {"u": {"chunks": (4, 8), "compressors": [numcodecs.Blosc()]}}
    data.to_zarr(tmp_path / "a.zarr", zarr_format=2, consolidated=False, encoding=how)
    chunk = tmp_path / "a.zarr/u/2.0"
    raw = chunk.read_bytes()
    chunk.write_bytes(raw[:4] + b"\xff" * 4 + raw[8:])
    (found, *_) = check_path(tmp_path / "a.zarr")
    assert (found.severity, found.kind, found.trajectory, found.frame) == ("error", "unreadable", 0, 8)
    with pytest.raises(ValueError, match="variable u, trajectory 0, frames 8 to 9 cannot be read"):
        open_trajectories(tmp_path / "a.zarr").read(0, 8, 10)
