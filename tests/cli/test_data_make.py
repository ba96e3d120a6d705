from __future__ import annotations

from pathlib import Path

import pytest

from physml.cli.main import main
from physml.datasets import open_trajectories

SMALL = "--trajectories 3 --frames 4 --grid 8 --solve_grid 8 --forcing_wavenumber 1 --reynolds 20 --warmup_time 0"


@pytest.mark.parametrize(
    ("name", "given", "opened", "lost"),
    [
        ("zarr", "x.zarr", "x.zarr", ()),
        ("well", "x_Re1.5", "x_Re1.5", ()),
        ("npy", "x.npy", "x.physml.yaml", ()),
        ("pdebench", "x.hdf5", "x.hdf5", ("splits", "vorticity will be read as u", "the parameters drag,")),
    ],
)
def test_make_writes_every_format_and_says_what_it_does_not_hold(
    name: str, given: str, opened: str, lost: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["data", "make", "kolmogorov2d", *SMALL.split(), "--format", name, "--out", str(tmp_path / given)]
    for _ in range(2):  # the second time all is there
        assert main(line) == 0
        told = capsys.readouterr()
        assert f"{tmp_path / opened}: 3 trajectories of 4 frames, fingerprint " in told.out
        assert told.err.startswith("note: ") is bool(lost) and all(words in told.err for words in lost)
    assert open_trajectories(tmp_path / opened).read(2, 0, 4).shape == (4, 8, 8, 1)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--format npy --out x.zarr", "expected: a name that ends in .npy"),
        ("--format pdebench --out x", "expected: a name that ends in .hdf5 or .h5"),
        ("--format well --out x.hdf5", "expected: a folder, without such an ending"),
        ("--out x.hdf5", "expected: a name that ends in .zarr"),
        ("--format pdebench", "--out data/kolmogorov2d/NAME.hdf5"),
        ("--format wel --out x", "--format: invalid choice: 'wel'"),
        ("-c recipe.yaml --out x", "did you mean 'well'?"),
    ],
)
def test_a_format_and_a_path_that_do_not_fit(
    words: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text("format: wel\n")
    assert main(["data", "make", "kolmogorov2d", *SMALL.split(), *words.split()]) == 2
    assert told in " ".join(capsys.readouterr().err.split())
    assert [item.name for item in tmp_path.iterdir()] == ["recipe.yaml"]


def test_a_recipe_may_name_the_format(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("format: npy\n")
    line = ["data", "make", "kolmogorov2d", "-c", str(recipe), *SMALL.split(), "--out", str(tmp_path / "x.npy")]
    assert main(line) == 0 and (tmp_path / "x.physml.yaml").exists()
