from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from physml.datasets import CylinderWake, open_trajectories


def test_the_wake_sheds_vortices_at_its_published_period(real_data: Path) -> None:
    wake = open_trajectories(real_data / "cylinder_wake_re100")
    assert isinstance(wake, CylinderWake)
    segment = wake.segments["train"][0]
    i = int(np.abs(wake.layout.grid.axes[0].points.numpy() - 4.0).argmin())
    j = wake.layout.grid.shape[1] // 2
    v = wake.read(0, segment.start, segment.stop)[:, i, j, 1]
    spectrum = np.abs(np.fft.rfft(v * np.hanning(len(v))))
    frequency = np.fft.rfftfreq(len(v), wake.layout.dt)[spectrum.argmax()]
    # St 0.179 of the confined cylinder; the record of 110 D/U resolves 1/110 = 0.009
    assert abs(frequency - 0.179) < 0.009


def test_splits_leave_a_gap(real_data: Path) -> None:
    wake = CylinderWake(real_data / "cylinder_wake_re100")
    dt = wake.layout.dt
    spans = {name: (rows[0].start * dt, rows[0].stop * dt) for name, rows in wake.segments.items()}
    assert spans["train"] == (60.0, 170.0) and spans["validation"] == (172.0, 185.0) and spans["test"][0] == 187.0
    assert dt == 0.5


def test_the_flow_vanishes_inside_the_body_and_is_nearly_solenoidal_outside(real_data: Path) -> None:
    wake = CylinderWake(real_data / "cylinder_wake_re100")
    values = wake.read(0, 300, 302)
    mask = wake.layout.grid.mask
    assert mask is not None and not values[:, ~mask.numpy()].any()
    x, y = (axis.points.numpy() for axis in wake.layout.grid.axes)
    far = np.ix_(range(2), np.flatnonzero(x > 2), range(1, len(y) - 1))
    div = np.gradient(values[..., 0], x, axis=1) + np.gradient(values[..., 1], y, axis=2)
    grad = np.gradient(values[..., 0], y, axis=2)
    # the field was resampled from a spectral-element mesh to spacing 0.083; centred differences leave a few per cent
    assert div[far].std() < 0.05 * grad[far].std()


def test_a_broken_archive_is_one_clear_error(tmp_path: Path) -> None:
    file = tmp_path / "wake_re100_grid.npz"
    np.savez(file, x=np.zeros(3))
    with pytest.raises(ValueError, match="not the expected wake archive"):
        open_trajectories(tmp_path)
    file.write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(ValueError, match="not the expected wake archive"):
        CylinderWake(tmp_path)
