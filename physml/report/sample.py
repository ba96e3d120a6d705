"""One sample of a stored rollout beside its truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from physml.datasets.opening import open_trajectories
from physml.datasets.store import open_group, read_state
from physml.datasets.trajectories import Trajectories
from physml.fields import Layout
from physml.plot.fields import Frames



@dataclass(frozen=True)
class Sample:
    """One sample of a stored rollout beside its truth; both are read frame by frame, when looked at.

    Args:
        layout: of the predicted states.
        prediction: ``prediction[i]`` is lead ``i + 1``, ``(*space, C)``, physical units.
        truth: the same; ``None`` where the data are not there any more.
        origin: fingerprint of the data, trajectory, source frame of lead 1 and stride: equal for samples that may be
            shown beside each other.
        blowup: lead of the first unphysical frame, 0 where there is none.
    """

    layout: Layout
    prediction: fields.Frames
    truth: fields.Frames | None
    origin: tuple[str, int, int, int]
    blowup: int

    @classmethod
    def open(cls, rollout: str | Path, sample: int = 0, truth: Trajectories | str | Path | None = None) -> Sample:
        """Open a sample of a rollout store.

        Args:
            rollout: written by :func:`physml.rollout.write_rollout`.
            sample: from 0.
            truth: the data it started from; where not given, the data that the rollout names as its source, if there.

        Raises:
            FileNotFoundError, ValueError: where the rollout cannot be used, or the truth is not the data it started from.
        """
        group, about = open_group(rollout, "rollout")
        if not about.get("complete"):
            raise ValueError(f"rollout: {rollout} was interrupted; give the command that writes it once more, it continues.")
        state = group["state"]
        assert isinstance(state, zarr.Array)
        if not 0 <= sample < state.shape[0]:
            raise ValueError(f"sample: got {sample}, {rollout} has samples 0 to {state.shape[0] - 1}.")
        data = _truth(truth, about["source"], str(rollout))
        trajectory, frame, blowup = (int(np.asarray(group[name])[sample]) for name in ("trajectory", "frame", "blowup"))
        stride = int(about["stride"])
        return cls(
            Layout.from_plain(about["layout"]),
            _Predicted(str(rollout), state, sample),
            None if data is None else _True(data, trajectory, frame, stride, state.shape[1]),
            (str(about["source"]["fingerprint"]), trajectory, frame, stride),
            blowup,
        )


class _Predicted:
    def __init__(self, path: str, state: zarr.Array, sample: int) -> None:
        self.path, self.state, self.sample = path, state, sample

    def __len__(self) -> int:
        return int(self.state.shape[1])

    def __getitem__(self, index: int, /) -> NDArray[np.float32]:
        found: NDArray[np.float32] = read_state(self.path, self.state, (self.sample, slice(index, index + 1)))[0]
        return found


class _True:
    def __init__(self, data: Trajectories, trajectory: int, frame: int, stride: int, leads: int) -> None:
        self.data, self.trajectory, self.frame, self.stride = data, trajectory, frame, stride
        self.length = max(0, min(leads, -(-(data.frames - frame) // stride)))

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int, /) -> NDArray[np.float32]:
        at = self.frame + index * self.stride
        found: NDArray[np.float32] = self.data.read(self.trajectory, at, at + 1)[0]
        return found


def _truth(given: Trajectories | str | Path | None, source: Mapping[str, Any], rollout: str) -> Trajectories | None:
    if isinstance(given, Trajectories):
        data = given
    else:
        try:
            data = open_trajectories(source["path"] if given is None else given)
        except FileNotFoundError:
            if given is not None:
                raise
            return None
    if data.fingerprint != source["fingerprint"]:
        raise ValueError(
            f"truth: {data.path} has fingerprint {data.fingerprint}, the rollout {rollout} started from data with "
            f"{source['fingerprint']} ({source['path']}); pass these data, or roll out again."
        )
    return data


