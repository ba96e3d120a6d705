"""rollout, evaluate, compare and plot on a tiny data set, from the line to the files."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
import warnings
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from PIL import Image
from torch import Tensor
from waves import make_store

from physml import checkpoint, report
from physml.cli import results_commands
from physml.cli.errors import UserError
from physml.cli.main import main
from physml.datasets import TrajectoryStore
from physml.emulator import Emulator, Origin
from physml.fields import Grid, Setting
from physml.metrics import UndefinedMetric
from physml.normalise import Standardise
from physml.operators import Operator
from physml.plot import style
from physml.results import load as load_results

STEPS = 5


class Amplify(Operator):
    """Doubles every frame, and refuses large batches as a full memory would."""

    def __init__(self, *, most: int = 100) -> None:
        super().__init__()
        self.channels, self.frames, self.steps, self.axes, self.most = 1, 1, 1, 2, most
        self.weight = torch.nn.Parameter(torch.tensor(2.0))

    def forward(self, window: Tensor, grid: Grid, steps: int, setting: Setting | None = None) -> Tensor:
        if len(window) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.weight * window


def options(**given: Any) -> Namespace:
    defaults = {"split": "train", "start": None, "starts": 2, "steps": STEPS, "history": None, "stride": None}
    return Namespace(**(defaults | given))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrajectoryStore:
    return make_store(tmp_path_factory.mktemp("data") / "waves.zarr")


@pytest.fixture(scope="module")
def rolled(data: TrajectoryStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("rolled") / "persistence.zarr"
    assert results_commands.rollout(options(checkpoint=Path("persistence"), data=Path(data.path), out=out)) == 0
    return out


@pytest.fixture(scope="module")
def evaluated(rolled: Path) -> list[Path]:
    """Two folders of results; those of ``run/persistence`` and ``other/persistence``."""
    folders = [rolled.parent / name / "persistence" for name in ("run", "other")]
    for folder in folders:
        assert main(["evaluate", str(rolled), "--out", str(folder)]) == 0
    return folders


def trained(data: TrajectoryStore, path: Path, operator: Operator) -> Path:
    emulator = Emulator(operator, Standardise())
    emulator.learn(Origin(data.layout, data.statistics.to_plain(), 1, data.fingerprint))
    state = {f"emulator.{name}": value for name, value in emulator.state_dict().items()}
    config = {"model": "as trained"}
    checkpoint.save({"physml": checkpoint.describe(emulator, config), "state_dict": state, "global_step": 321}, path)
    return path


# ------------------------------------------------------------------------------------------------------------ rollout


def test_persistence_needs_no_checkpoint(data: TrajectoryStore, rolled: Path) -> None:
    group = zarr.open_group(rolled, mode="r")
    known = np.stack(
        [data.read(t, f - 1, f)[0] for t, f in zip(group["trajectory"][:], group["frame"][:], strict=True)]
    )
    state = group["state"][:]
    assert state.shape == (8, STEPS, 16, 16, 1)  # two starts in each of four trajectories
    # Standardising and back, in float32.
    np.testing.assert_allclose(state, np.repeat(known[:, None], STEPS, 1), atol=1e-6)
    assert group.attrs["physml"]["model"]["operator"]["class_path"].endswith(".Persistence")
    assert group.attrs["physml"]["model"]["parameters"] == 0


def test_what_no_blowup_means_is_said(
    data: TrajectoryStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r.zarr"
    results_commands.rollout(options(checkpoint=Path("persistence"), data=Path(data.path), out=out))
    assert capsys.readouterr().out.endswith("\nno sample left 10 times the energy of the training data\n")


def test_models_with_the_same_history_start_together(data: TrajectoryStore, tmp_path: Path) -> None:
    line = f"rollout persistence --data {data.path} --steps {STEPS} --history 3 --out {tmp_path / 'r.zarr'}"
    assert main(line.split()) == 0
    assert zarr.open_group(tmp_path / "r.zarr", mode="r")["frame"][:].tolist() == [3]


def test_a_file_of_that_name_is_a_checkpoint(
    data: TrajectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trained(data, Path("persistence"), Amplify())
    results_commands.rollout(options(checkpoint=Path("persistence"), data=Path(data.path), out=Path("r.zarr")))
    model = zarr.open_group("r.zarr", mode="r").attrs["physml"]["model"]
    assert model["operator"]["class_path"].endswith("Amplify")


def test_blowups_are_told_and_the_model_is_recorded(
    data: TrajectoryStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = trained(data, tmp_path / "best.ckpt", Amplify())
    out = tmp_path / "r.zarr"
    results_commands.rollout(options(checkpoint=path, data=Path(data.path), out=out))
    group = zarr.open_group(out, mode="r")
    model, blowup = group.attrs["physml"]["model"], group["blowup"][:]
    assert model["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest() and model["checkpoint"] == str(path)
    assert model["trained_steps"] == 321 and model["config"] == {"model": "as trained"} and model["parameters"] == 1
    # The energy grows by 4 a frame from at most the largest and at least (in a wave) a few times less: 10 is exceeded.
    assert ((blowup >= 2) & (blowup <= 4)).all()
    told = capsys.readouterr().out
    assert f"wrote {out}: 8 samples of {STEPS} frames, up to t = 1.25 s, on " in told
    assert (
        "8 of 8 samples blew up (not finite, or beyond 10 times the energy of the training data): sample 0 at lead "
        f"{blowup[0]} (t = {0.25 * blowup[0]:.4g} s), sample 1" in told
    )


def test_the_batch_shrinks_until_it_fits(data: TrajectoryStore, tmp_path: Path) -> None:
    path = trained(data, tmp_path / "best.ckpt", Amplify(most=2))
    results_commands.rollout(options(checkpoint=path, data=Path(data.path), out=tmp_path / "small.zarr"))
    small = zarr.open_group(tmp_path / "small.zarr", mode="r")
    path = trained(data, tmp_path / "best.ckpt", Amplify())
    results_commands.rollout(options(checkpoint=path, data=Path(data.path), out=tmp_path / "large.zarr"))
    np.testing.assert_array_equal(small["state"][:], zarr.open_group(tmp_path / "large.zarr", mode="r")["state"][:])
    path = trained(data, tmp_path / "best.ckpt", Amplify(most=0))
    with pytest.raises(UserError, match="a single sample does not fit"):
        results_commands.rollout(options(checkpoint=path, data=Path(data.path), out=tmp_path / "none.zarr"))


# ----------------------------------------------------------------------------------------------- evaluate and compare


def test_evaluate_saves_and_prints_the_table_with_definitions(
    rolled: Path, data: TrajectoryStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results" / "baseline"
    assert main(["evaluate", str(rolled), "--truth", data.path, "--out", str(out)]) == 0
    told = capsys.readouterr()
    results = load_results(out)
    assert json.loads((out / "metrics.json").read_text())["samples"] == 8
    assert report.table({"baseline": results}) in told.out and told.err == ""
    assert "Relative L2 = sqrt" in told.out and str(out / "metrics.json") in told.out
    # the same rollout may be measured again, with a page of it; another one does not take its place
    assert not (out / "report").exists()
    assert main(["evaluate", str(rolled), "--truth", data.path, "--out", str(out), "--report"]) == 0
    page = out / "report" / "index.html"
    assert f"wrote {page}" in capsys.readouterr().out and "<h1>baseline</h1>" in page.read_text()
    assert load_results(out).identical(results)
    other = tmp_path / "other.zarr"
    shutil.copytree(rolled, other)
    assert main(["evaluate", str(other), "--truth", data.path, "--out", str(out)]) == 2
    assert "holds the results of" in " ".join(capsys.readouterr().err.split())


def test_notes_of_the_evaluation_are_short(
    rolled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = results_commands.compare_with_truth

    def warning(*given: Any, **options: Any) -> Any:
        for _ in range(2):
            warnings.warn("nrmse: 3 of 8 values say nothing.", UndefinedMetric, stacklevel=2)
        return measure(*given, **options)

    monkeypatch.setattr(results_commands, "compare_with_truth", warning)
    assert main(["evaluate", str(rolled), "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().err == "note: nrmse: 3 of 8 values say nothing.\n"


def test_compare_writes_the_page_and_prints_the_table(
    evaluated: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *map(str, evaluated), "--out", str(tmp_path / "both")]) == 0
    told = capsys.readouterr().out
    assert "run/persistence" in told and "other/persistence" in told  # the folders' own names are equal
    assert "≈" in told and str(tmp_path / "both" / "index.html") in told
    assert (tmp_path / "both" / "figures" / "errors.png").exists()
    models = json.loads((tmp_path / "both" / "metrics.json").read_text())["models"]
    assert {model["name"] for model in models} == {"run/persistence", "other/persistence"}


def test_a_folder_given_twice(evaluated: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(evaluated[0]), str(evaluated[0]), "--out", str(tmp_path / "x")]) == 2
    assert "a folder is given twice" in capsys.readouterr().err


def test_the_results_themselves_are_no_place_for_a_comparison(
    evaluated: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *map(str, evaluated), "--out", str(evaluated[0])]) == 2
    assert "holds the results of an evaluation" in " ".join(capsys.readouterr().err.split())


# --------------------------------------------------------------------------------------------------------------- plot


@pytest.mark.parametrize("words", ["fields --leads 1,3", "animation --fps 10", "errors", "spectra"])
def test_plots_are_written(
    words: str, rolled: Path, evaluated: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    what, *rest = words.split()
    given = [str(rolled)] if what in ("fields", "animation") else [*map(str, evaluated)]
    out = tmp_path / "new" / ("film.gif" if what == "animation" else f"{what}.png")
    assert main(["plot", what, *given, *rest, "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    with Image.open(out) as opened:
        opened.load()
        assert getattr(opened, "n_frames", 1) == (STEPS if what == "animation" else 1)


def test_the_spectra_need_the_results_only(
    evaluated: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results_commands, "open_group", None)  # no rollout is looked for
    seen = []
    monkeypatch.setattr(results_commands, "save", lambda figure, out: seen.append(figure))
    main(["plot", "spectra", str(evaluated[0]), "--out", str(tmp_path / "x.png")])
    assert [line.get_xdata()[0] for line in seen[0].axes[0].get_lines() if line.get_linestyle() == "--"] == [5.0]


def test_a_rollout_without_its_data_is_shown_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_store(tmp_path / "waves.zarr")
    out = tmp_path / "r.zarr"
    results_commands.rollout(options(checkpoint=Path("persistence"), data=Path(data.path), out=out))
    (tmp_path / "waves.zarr").rename(tmp_path / "moved.zarr")
    seen = []
    monkeypatch.setattr(results_commands, "save", lambda figure, out: seen.append(figure))
    assert main(["plot", "fields", str(out), "--leads", "1", "--out", str(tmp_path / "a.png")]) == 0
    assert "give --truth STORE" in capsys.readouterr().err
    moved = ["--truth", str(tmp_path / "moved.zarr")]
    assert main(["plot", "fields", str(out), "--leads", "1", *moved, "--out", str(tmp_path / "b.png")]) == 0
    assert [sum(bool(ax.get_images()) for ax in figure.axes) for figure in seen] == [1, 3]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("fields {rolled} --out x.jpg", "ends in '.jpg', expected .png or .pdf or .svg"),
        ("animation {rolled} --out x.png", "ends in '.png', expected .gif or .mp4"),
        ("errors {folder} --out x", "has no ending"),
        ("fields {rolled} --field speed --out x.png", "expected one of vorticity"),
        ("fields {rolled} --leads 0 --out x.png", "numbers from 1 to 5"),
        ("fields {rolled} --sample 9 --out x.png", "has the samples 0 to 7"),
        ("errors {rolled} --out x.png", "no results there; make them with `physml evaluate`"),
    ],
)
def test_plots_are_refused_in_words(
    words: str, said: str, rolled: Path, evaluated: list[Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["plot", *words.format(rolled=rolled, folder=evaluated[0]).split()]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


def test_mp4_needs_ffmpeg(rolled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(style.writers, "is_available", lambda name: False)
    arguments = Namespace(what="animation", rollout=rolled, out=tmp_path / "film.mp4")
    with pytest.raises(ValueError, match="needs the program ffmpeg"):
        results_commands.plot(arguments)


# -------------------------------------------------------------------------------------------------------------- places


@pytest.mark.parametrize("command", ["rollout", "evaluate", "compare", "plot"])
def test_a_place_that_cannot_be_written_is_refused_first(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that is named exists: only the place was looked at."""
    existing = tmp_path / "existing"
    existing.mkdir()
    real = tempfile.TemporaryFile

    def refused(dir: Path) -> Any:
        if dir == existing:  # root, who runs many a machine, may write everywhere
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(dir=dir)

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    gone = tmp_path / "gone"
    suffix = {"rollout": ".zarr", "plot": ".png"}.get(command, "")
    outs = [existing / f"x{suffix}", existing / "deep" / f"x{suffix}"]
    if command in ("evaluate", "compare"):
        outs.append(existing)
    for out in outs:
        arguments = options(
            checkpoint=gone, data=gone, rollout=gone, truth=None, folders=[gone], what="errors", out=out
        )
        with pytest.raises(UserError) as caught:
            getattr(results_commands, command)(arguments)
        assert caught.value.what == f"--out {out}: cannot write in {existing} (Permission denied)"
    (tmp_path / "file").write_text("")
    arguments.out = tmp_path / "file" / f"x{suffix}"
    with pytest.raises(UserError) as caught:
        getattr(results_commands, command)(arguments)
    assert caught.value.what == f"--out {arguments.out}: {tmp_path / 'file'} is no folder"
    assert not list(existing.iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(rolled: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(UserError) as caught:
        results_commands.evaluate(Namespace(rollout=rolled, truth=None, out=tmp_path))
    assert "no permission to write in" in caught.value.what
