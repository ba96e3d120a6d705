"""Data for Lightning: any :class:`Trajectories`, as batches of windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from physml.datasets.opening import open_trajectories
from physml.datasets.resident import Places, PlacesOf, Resident
from physml.datasets.trajectories import Trajectories
from physml.datasets.windows import Collate, Share, TrainingBatches, Windows
from physml.fields import Batch, Boundary


class Run(Protocol):
    """What the data module asks of the module that is trained."""

    frames: int
    """Known frames of a window."""
    horizon: int
    """Frames after them that training needs."""
    assessed: int
    """Frames after them that validation and test need."""
    total_batches: int
    batches_done: int
    seed: int


class TrajectoryData(LightningDataModule):
    """Windows of a trajectory data set.

    How many frames a window holds is asked of the model (operator and objective), so that nothing is said twice.

    Args:
        store: path of the data set; relative paths are also looked up in ``PHYSML_DATA``.
        shape: points of the grid the run is made for. ``physml info`` counts with it, without opening the data, and
            the data must have it. Those of the data if not given.
        boundaries: boundary kind of each axis the run is made for. If not given, periodic everywhere beside a shape,
            and those of the data otherwise.
        batch_size: windows of one optimiser step, over all processes together.
        stride: stored frames from one frame of the operator to the next.
        starts: most windows per segment of the validation and test splits; they do not overlap.
        evaluation_batch_size: windows of one validation batch and process; ``batch_size`` if not given.
        workers: reading processes; 0 reads in the training process, which is enough for data that fit the page cache.
        resident: read the training split once and keep it on the device.
    """

    def __init__(
        self,
        *,
        store: str,
        shape: Sequence[int] | None = None,
        boundaries: Sequence[Literal["periodic", "wall", "open"]] | None = None,
        batch_size: int = 8,
        stride: int = 1,
        starts: int = 4,
        evaluation_batch_size: int | None = None,
        workers: int = 0,
        resident: bool = False,
    ) -> None:
        super().__init__()
        if min(batch_size, stride, starts) < 1 or workers < 0:
            raise ValueError(
                f"data: got batch_size={batch_size}, stride={stride}, starts={starts}, workers={workers}; "
                "expected >= 1 and workers >= 0."
            )
        self.store, self.batch_size, self.stride = store, batch_size, stride
        self.shape = None if shape is None else tuple(shape)
        kinds = boundaries or (None if self.shape is None else ["periodic"] * len(self.shape))
        self.boundaries = None if kinds is None else tuple(Boundary(kind) for kind in kinds)
        if self.shape is not None and self.boundaries is not None and len(self.boundaries) != len(self.shape):
            raise ValueError(
                f"boundaries: got {len(self.boundaries)} for {len(self.shape)} axes; give one for each axis."
            )
        self.starts, self.workers, self.resident = starts, workers, resident
        self.evaluation_batch_size = evaluation_batch_size or batch_size
        self._data: Trajectories | None = None
        self._kept: Resident | None = None

    @property
    def data(self) -> Trajectories:
        """The data set, opened when first asked for."""
        if self._data is None:
            data = open_trajectories(self.store)
            grid = data.layout.grid
            shape, boundaries = self.shape or grid.shape, self.boundaries or grid.boundaries
            if grid.shape != shape or grid.boundaries != boundaries:
                raise ValueError(
                    f"data.init_args.shape: the run is made for {list(shape)} points, {', '.join(boundaries)}; "
                    f"{data.path} has {list(grid.shape)}, {', '.join(grid.boundaries)}. Correct "
                    "data.init_args.shape and boundaries, or the store."
                )
            self._data = data
        return self._data

    @property
    def _module(self) -> Run:
        assert self.trainer is not None
        module: Any = self.trainer.lightning_module
        return module

    def windows(self, split: str, known: int, ahead: int) -> Windows:
        """Windows of ``known + ahead`` frames; all of them for ``train``, a few that do not overlap otherwise."""
        starts = None if split == "train" else self.starts
        return Windows(self.data, self.data.segments_of(split), known + ahead, self.stride, starts)

    def train_dataloader(self) -> DataLoader[Any]:
        module, trainer = self._module, self.trainer
        assert trainer is not None
        windows = self.windows("train", module.frames, module.horizon)
        batches = TrainingBatches(
            len(windows),
            batch=self.batch_size,
            total=module.total_batches,
            seed=module.seed,
            position=lambda: module.batches_done,
            rank=trainer.global_rank,
            world=trainer.world_size,
        )
        if self.resident:
            device = trainer.strategy.root_device
            self._kept = Resident(self.data, windows, module.frames, device)
            return DataLoader(PlacesOf(windows), batch_sampler=batches, collate_fn=Places.collate)
        return DataLoader(
            windows,
            batch_sampler=batches,
            collate_fn=Collate(self.data, module.frames),
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=trainer.strategy.root_device.type == "cuda",
        )

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        if isinstance(batch, Places):
            assert self._kept is not None
            return self._kept.batch(batch)
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def _evaluation(self, split: str) -> DataLoader[Batch]:
        module, trainer = self._module, self.trainer
        assert trainer is not None
        windows = self.windows(split, module.frames, module.assessed)
        if len(windows) < trainer.world_size:
            raise ValueError(
                f"data.init_args.starts: the split {split!r} gives {len(windows)} windows for "
                f"{trainer.world_size} processes; "
                "use more starts, shorter rollouts or fewer devices."
            )
        return DataLoader(
            windows,
            batch_size=self.evaluation_batch_size,
            sampler=Share(len(windows), trainer.global_rank, trainer.world_size),
            collate_fn=Collate(self.data, module.frames),
            num_workers=self.workers,
        )

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._evaluation("validation")

    def test_dataloader(self) -> DataLoader[Batch]:
        return self._evaluation("test")
