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


@dataclass(frozen=True)
class Predicted:
    """Frames of one sample of a rollout store, ``(*space, C)`` each, read when they are asked for."""

    path: str
    state: zarr.Array
    sample: int

    def __len__(self) -> int:
        return int(self.state.shape[1])

    def __getitem__(self, index: int, /) -> NDArray[np.float32]:
        frames: NDArray[np.float32] = read_state(self.path, self.state, (self.sample, slice(index, index + 1)))
        return frames[0]


@dataclass(frozen=True)
class Truth:
    """The stored frames that such a sample should have predicted, as far as the data reach.

    Args:
        data: where to read.
        trajectory, frame: of lead 1.
        stride: stored frames from one lead to the next.
        leads: most frames wanted.
    """

    data: Trajectories
    trajectory: int
    frame: int
    stride: int
    leads: int

    def __len__(self) -> int:
        return max(0, min(self.leads, -(-(self.data.length(self.trajectory) - self.frame) // self.stride)))

    def __getitem__(self, index: int, /) -> NDArray[np.float32]:
        at = self.frame + index * self.stride
        return self.data.read(self.trajectory, at, at + 1)[0]


@dataclass(frozen=True)
class Sample:
    """One sample of a rollout store and its truth.

    Args:
        layout: of the predicted states.
        prediction: ``prediction[i]`` is lead ``i + 1``, physical units.
        truth: the same; ``None`` where the data are not there any more.
        origin: fingerprint of the data, trajectory, source frame of lead 1 and stride: equal for samples that may be
            shown beside each other.
    """

    layout: Layout
    prediction: Predicted
    truth: Truth | None
    origin: tuple[str, int, int, int]

    @classmethod
    def open(cls, rollout: str | Path, sample: int = 0, truth: Trajectories | str | Path | None = None) -> Sample:
        """Open a sample of a rollout.

        Args:
            rollout: written by :func:`physml.rollout.write_rollout`.
            sample: which one, from 0.
            truth: the data it started from; where not given, those that the rollout names as its source, if there.

        Raises:
            FileNotFoundError: where the rollout, or the truth that was given, is not there.
            ValueError: where the rollout cannot be used, or the truth is not the data it started from.
        """
        group, about = open_group(rollout, "rollout")
        if not about["complete"]:
            raise ValueError(
                f"rollout: {rollout} was interrupted; run the command that writes it once more and it continues."
            )
        state = group["state"]
        assert isinstance(state, zarr.Array)
        if not 0 <= sample < state.shape[0]:
            raise ValueError(f"sample: got {sample}, {rollout} has the samples 0 to {state.shape[0] - 1}.")
        data = _data(truth, about["source"], str(rollout))
        trajectory, frame = (int(np.asarray(group[name])[sample]) for name in ("trajectory", "frame"))
        stride = int(about["stride"])
        return cls(
            layout=Layout.from_plain(about["layout"]),
            prediction=Predicted(str(rollout), state, sample),
            truth=None if data is None else Truth(data, trajectory, frame, stride, state.shape[1]),
            origin=(str(about["source"]["fingerprint"]), trajectory, frame, stride),
        )


def _data(given: Trajectories | str | Path | None, source: Mapping[str, Any], rollout: str) -> Trajectories | None:
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
