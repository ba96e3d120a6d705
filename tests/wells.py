"""A tiny data set of The Well that has every kind of field, and whose every number is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

NX, NY = 6, 5  # unlike each other, so that exchanged axes are seen
NAMES = (
    *("pressure", "stripe", "shared", "velocity_x", "velocity_y"),
    *("stress_xx", "stress_xy", "stress_yx", "stress_yy"),
)


def numbers(trajectories: int, frames: int, first: int = 0) -> np.ndarray:
    """``u[n, t, i, j] = 1000 n + 100 t + i + 0.01 j``: a wrong index gives a wrong number."""
    n, t, i, j = np.ogrid[first : first + trajectories, :frames, :NX, :NY]
    return (1000.0 * n + 100.0 * t + i + 0.01 * j).astype(np.float32)


def add(group: h5py.Group, name: str, data: np.ndarray, flags: str, varying: Sequence[bool] = (True, True)) -> None:
    """A field; ``flags`` has ``s`` where it varies with the trajectory and ``t`` where with time."""
    array = group.create_dataset(name, data=data)
    array.attrs["sample_varying"], array.attrs["time_varying"] = np.bool_("s" in flags), "t" in flags
    array.attrs["dim_varying"] = np.array(varying)


def condition(file: h5py.File, name: str, kind: str, dims: Sequence[str] | str, mask: np.ndarray | None) -> None:
    group = file.require_group("boundary_conditions").create_group(name)
    group.attrs["bc_type"], group.attrs["associated_dims"] = kind, dims
    if mask is not None:
        group["mask"] = mask


def ends(n: int) -> np.ndarray:
    return np.isin(np.arange(n), (0, n - 1))


def write(path: Path, *, n: int = 2, frames: int = 4, first: int = 0, a: float = 1.0, **later: object) -> Path:
    """A small file that has every kind of field and every spelling of an attribute; later keywords change it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    u = numbers(n, frames, first)
    with h5py.File(path, "w") as file:
        file.attrs.update({"dataset_name": np.bytes_("tiny"), "grid_type": "cartesian", "n_spatial_dims": np.int64(2)})
        file.attrs.update({"n_trajectories": n, "simulation_parameters": ["a", "b"], "a": a, "b": np.float32(2)})
        dimensions = file.create_group("dimensions")
        dimensions.attrs["spatial_dims"] = np.array(["x", "y"], dtype=object)
        dimensions["time"] = 3.0 + 0.5 * np.arange(frames)  # no flags, as some writers leave it
        dimensions["x"] = np.arange(NX, dtype=np.float32) / NX
        dimensions["y"] = np.linspace(-1, 1, NY)
        condition(file, "x_periodic", "periodic", "x", ends(NX))
        condition(file, "y_wall", "WALL", np.array([b"y"]), ends(NY))
        scalars = file.create_group("scalars")
        scalars.attrs["field_names"] = ["a", "b", "clock", "s"]
        scalars["a"], scalars["b"], scalars["s"] = a, np.array([2.0]), first + np.arange(n, dtype=np.float64)
        scalars["clock"] = np.arange(frames)
        scalars["clock"].attrs["time_varying"] = True
        scalars["s"].attrs["sample_varying"] = True
        t0, t1, t2 = (file.create_group(f"t{order}_fields") for order in range(3))
        t0.attrs["field_names"] = np.array([b"pressure", b"stripe", b"still", b"shared", b"rock"])
        t1.attrs["field_names"], t2.attrs["field_names"] = ["velocity"], ["stress"]
        add(t0, "pressure", u, "st")
        add(t0, "stripe", u[..., 0], "st", (True, False))
        add(t0, "still", u[:, 0], "s")
        add(t0, "shared", u[0], "t")
        add(t0, "rock", u[0, 0], "")
        add(t0, "unlisted", u, "st")
        add(t1, "velocity", np.stack([u, -u], axis=-1), "st")
        add(t2, "stress", np.stack([u, 2 * u, 2 * u, 3 * u], axis=-1).reshape(*u.shape, 2, 2), "st")
        t2["stress"].attrs["symmetric"] = True
        change = later.get("change")
        if callable(change):
            change(file)
    return path


def tree(folder: Path, **later: object) -> Path:
    """A data set with three splits, two training files of different length, and trajectories numbered throughout."""
    for name, n, frames, first in (
        ("train/b", 1, 3, 2),
        ("train/a", 2, 5, 0),
        ("valid/a", 1, 4, 3),
        ("test/a", 1, 4, 4),
    ):
        write(folder / "data" / f"{name}.hdf5", n=n, frames=frames, first=first, a=float(n), **later)
    return folder


def truth(trajectory: int, frames: int) -> np.ndarray:
    """All channels of :func:`tree`."""
    u = numbers(1, frames, trajectory)[0]
    shared = numbers(1, frames, {1: 0}.get(trajectory, trajectory))[0]  # that of the first of its file
    return np.stack([u, np.repeat(u[..., :1], NY, -1), shared, u, -u, u, 2 * u, 2 * u, 3 * u], axis=-1)
