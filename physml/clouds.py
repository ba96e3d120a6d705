"""What a cloud of points is: places without a grid, with named numbers at each of them.

A batch of clouds is dense, ``(B, N, D)``: shorter clouds are filled up, and ``counts`` says how many points of each are
real. A batch of equal clouds has no ``counts``, and nothing downstream then needs a mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from torch_geometric.data import Batch, Data


class Packed(NamedTuple):
    """A batch of clouds one after the other, without filling."""

    points: Tensor
    """``(sum N, D)``."""
    features: dict[str, Tensor]
    """``(sum N, C)`` each."""
    offsets: Tensor
    """``(B + 1,)``: cloud b is ``offsets[b]:offsets[b + 1]``."""


@dataclass(frozen=True)
class PointCloud:
    """B clouds of up to N points in D dimensions.

    What fills up a short cloud is set to zero here, so that nothing in it can be read by accident.

    Args:
        points: coordinates ``(B, N, D)``, in single or double precision: half precision cannot tell neighbours apart.
        features: numbers at each point, ``(B, N, C)``, by name (``normal``, ``wall_distance``, ``pressure``).
        counts: ``(B,)``, points that each cloud has; ``None`` where every cloud has N. Counts that all are N become
            ``None``, where that can be seen without waiting for a GPU.

    Raises:
        ValueError: where shapes do not agree, or a count is not between 0 and N.
    """

    points: Tensor
    features: Mapping[str, Tensor] = field(default_factory=dict)
    counts: Tensor | None = None

    def __post_init__(self) -> None:
        if self.points.ndim != 3 or self.points.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"points: got {self.points.dtype} of shape {tuple(self.points.shape)}, expected single or double "
                "precision of shape (B, N, D); a single cloud is points[None]."
            )
        batch, most = self.points.shape[:2]
        for name, values in self.features.items():
            if values.ndim != 3 or values.shape[:2] != (batch, most):
                raise ValueError(
                    f"feature {name!r}: got shape {tuple(values.shape)}, expected ({batch}, {most}, channels), a row "
                    "for each point; numbers without channels are values[..., None]."
                )
        if self.counts is not None:
            self._fill(self.counts, batch, most)

    def _fill(self, counts: Tensor, batch: int, most: int) -> None:
        if counts.shape != (batch,) or counts.is_floating_point():
            raise ValueError(
                f"counts: got {counts.dtype} of shape {tuple(counts.shape)}, expected an integer for each of the "
                f"{batch} clouds."
            )
        if counts.is_cpu:
            if not bool(((counts >= 0) & (counts <= most)).all()):
                raise ValueError(f"counts: got {counts.tolist()}, expected 0 to {most}, the points there is room for.")
            if bool((counts == most).all()):
                object.__setattr__(self, "counts", None)
                return
        object.__setattr__(self, "counts", counts.to(self.points.device, torch.long))
        real = self.mask
        assert real is not None
        object.__setattr__(self, "points", self.points.where(real[..., None], 0.0))
        filled = {name: values.where(real[..., None], 0) for name, values in self.features.items()}
        object.__setattr__(self, "features", filled)

    @property
    def batch(self) -> int:
        """Number of clouds B."""
        return self.points.shape[0]

    @property
    def axes(self) -> int:
        """Space dimensions D."""
        return self.points.shape[-1]

    @property
    def sizes(self) -> Tensor:
        """Points that each cloud has, ``(B,)``, whether all have the same number or not."""
        batch, most, _ = self.points.shape
        return torch.full((batch,), most, device=self.points.device) if self.counts is None else self.counts

    @property
    def mask(self) -> Tensor | None:
        """``(B, N)``, true where there is a point; ``None`` where there is one everywhere."""
        if self.counts is None:
            return None
        return torch.arange(self.points.shape[1], device=self.counts.device) < self.counts[:, None]

    def to(self, *args: Any, **kwargs: Any) -> PointCloud:
        points = self.points.to(*args, **kwargs)
        features = {name: values.to(*args, **kwargs) for name, values in self.features.items()}
        return PointCloud(points, features, None if self.counts is None else self.counts.to(points.device))

    def pin_memory(self) -> PointCloud:
        features = {name: values.pin_memory() for name, values in self.features.items()}
        counts = None if self.counts is None else self.counts.pin_memory()
        return PointCloud(self.points.pin_memory(), features, counts)

    def chunks(self, size: int | None) -> Iterator[PointCloud]:
        """The same clouds, ``size`` points at a time; all at once if ``None``."""
        most = self.points.shape[1]
        if size is None or most <= size:
            yield self
            return
        if size < 1:
            raise ValueError(f"chunk: got {size}, expected at least one point at a time.")
        for start in range(0, most, size):
            part = slice(start, start + size)
            counts = None if self.counts is None else (self.counts - start).clamp(0, min(size, most - start))
            features = {name: values[:, part] for name, values in self.features.items()}
            yield PointCloud(self.points[:, part], features, counts)

    @classmethod
    def collate(cls, clouds: Sequence[PointCloud]) -> PointCloud:
        """One batch of all clouds, filled up to the longest."""
        if not clouds:
            raise ValueError("collate: got no clouds, expected at least one.")
        names, axes = list(clouds[0].features), clouds[0].axes
        for cloud in clouds:
            if set(cloud.features) != set(names) or cloud.axes != axes:
                raise ValueError(
                    f"collate: got {list(cloud.features)} in {cloud.axes} dimensions beside {names} in {axes}; clouds "
                    "of one batch must have the same features."
                )
        most = max(cloud.points.shape[1] for cloud in clouds)

        def stacked(parts: Sequence[Tensor]) -> Tensor:
            return torch.cat([functional.pad(part, (0, 0, 0, most - part.shape[1])) for part in parts])

        return cls(
            stacked([cloud.points for cloud in clouds]),
            {name: stacked([cloud.features[name] for cloud in clouds]) for name in names},
            torch.cat([cloud.sizes for cloud in clouds]),
        )

    def split(self) -> list[PointCloud]:
        """Each cloud alone, without filling."""
        alone = []
        for b, count in enumerate(self.sizes.tolist()):
            features = {name: values[b : b + 1, :count] for name, values in self.features.items()}
            alone.append(PointCloud(self.points[b : b + 1, :count], features))
        return alone

    def pack(self) -> Packed:
        """All points one after the other, and where each cloud begins."""
        mask = self.mask
        real = torch.ones(self.points.shape[:2], dtype=torch.bool, device=self.points.device) if mask is None else mask
        features = {name: values[real] for name, values in self.features.items()}
        return Packed(self.points[real], features, functional.pad(self.sizes.cumsum(0), (1, 0)))

    @classmethod
    def unpack(cls, packed: Packed) -> PointCloud:
        """The inverse of :meth:`pack`."""
        points, features, offsets = packed
        counts = offsets.diff()
        if len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != len(points) or bool((counts < 0).any()):
            raise ValueError(
                f"offsets: got {offsets.tolist()} for {len(points)} points, expected a rising sequence from 0 to "
                f"{len(points)}."
            )
        real = torch.arange(int(counts.max()), device=counts.device) < counts[:, None]

        def padded(values: Tensor) -> Tensor:
            wide = values.new_zeros(*real.shape, *values.shape[1:])
            wide[real] = values
            return wide

        return cls(padded(points), {name: padded(values) for name, values in features.items()}, counts)

    def to_geometric(self) -> Batch:
        """A batch of torch_geometric: coordinates as ``pos``, each feature under its name, ``batch`` and ``ptr``."""
        from torch_geometric.data import Batch, Data  # seconds to import: only for those who ask

        taken = {"pos", "batch", "ptr"} & set(self.features)
        if taken:
            raise ValueError(f"features {sorted(taken)}: these names are taken in torch_geometric; rename them.")
        alone = [
            Data(pos=cloud.points[0], **{name: values[0] for name, values in cloud.features.items()})
            for cloud in self.split()
        ]
        return Batch.from_data_list(alone)

    @classmethod
    def from_geometric(cls, data: Data | Batch, features: Sequence[str] | None = None) -> PointCloud:
        """From one ``Data`` or a ``Batch`` of them.

        Args:
            data: with coordinates ``pos``.
            features: names to take; every other floating-point array with a row for each point if ``None``.
        """
        points = data.pos
        if points is None:
            raise ValueError("data: got no coordinates; set data.pos to the points, (N, D).")
        if features is None:
            features = [
                key
                for key, value in data.to_dict().items()
                if key != "pos" and torch.is_tensor(value) and value.is_floating_point() and data.is_node_attr(key)
            ]
        missing = [name for name in features if name not in data]
        if missing:
            raise ValueError(f"features: {missing} are not in the data, which have {sorted(data.keys())}.")
        values = {name: data[name] if data[name].ndim > 1 else data[name][:, None] for name in features}
        offsets = data.ptr if "ptr" in data else torch.tensor([0, len(points)], device=points.device)
        return cls.unpack(Packed(points, values, offsets))
