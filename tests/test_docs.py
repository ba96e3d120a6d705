"""What the pages of the documentation say is run: Python, files, command lines, tables of numbers.

A block of Python is run, in the order of its page, in an empty folder. ``<!-- not run -->`` before it says why not, and
``<!-- file: NAME -->`` before a block of any language stores it under that name instead.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import sys
import types
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pytest
import yaml

from physml.cli.main import main, parse
from physml.datasets import open_trajectories
from physml.metrics import DEFINITIONS as METRICS
from physml.results import DEFINITIONS as RESULTS

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
EXPERIMENTS = sorted((ROOT / "experiments").glob("*/*.yaml"))
BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


class Block(NamedTuple):
    language: str
    mark: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    return [
        Block(found["language"], found["mark"] or "", found["text"], text.count("\n", 0, found.start("text")))
        for found in BLOCK.finditer(text)
    ]


def commands(page: Path) -> list[str]:
    """Lines of shell that call ``physml``, continued lines joined, without comments."""
    return lines("".join(b.text for b in blocks(page) if b.language == "sh" and "not run" not in b.mark))


def lines(shell: str) -> list[str]:
    return [
        line for line in shell.replace("\\\n", " ").splitlines() if line.startswith("physml ") and "--help" not in line
    ]


def table(page: str) -> dict[str, str]:
    """Rows of the tables of a page by the code in their first cell."""
    rows = re.findall(r"^\| `([^`|]+)` \|(.*)\|$", (ROOT / "docs" / page).read_text("utf-8"), re.MULTILINE)
    return dict(rows)


def run(page: Path, *, shell: bool = False) -> None:
    """What a page says in Python; with ``shell`` its command lines too, each in its turn."""
    module = types.ModuleType(f"page_{page.stem}")  # a place that class paths can name
    sys.modules[module.__name__] = module
    for block in blocks(page):
        if block.mark.startswith("file: "):
            Path(block.mark.removeprefix("file: ")).write_text(block.text)
        elif block.language == "python" and "not run" not in block.mark:
            exec(compile("\n" * block.line + block.text, str(page), "exec"), vars(module))
        elif shell and block.language == "sh" and "not run" not in block.mark:
            for line in lines(block.text):
                assert main(shlex.split(line, comments=True)[1:]) == 0, line
    plt.close("all")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder from which modules can be imported, with the experiments and recipes."""
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    for source in (ROOT / "data").glob("*/*.yaml"):
        copied = tmp_path / "data" / source.parent.name / source.name
        copied.parent.mkdir(parents=True, exist_ok=True)
        copied.write_text(source.read_text("utf-8"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("PHYSML_DATA", raising=False)
    return tmp_path


def demonstrate(folder: Path) -> None:
    """What ``make demo`` leaves, at its smallest size."""
    spec = importlib.util.spec_from_file_location("demo_run", ROOT / "experiments/demo/run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.demonstrate(module.SMALLEST, Path("data/kolmogorov2d"), Path("runs/demo"))


OWN = ("tutorial", "bring_your_own")  # pages with a test of their own


@pytest.mark.parametrize("page", [page for page in PAGES if page.stem not in OWN], ids=lambda page: page.stem)
def test_python_and_commands_of_a_page(page: Path, folder: Path) -> None:
    run(page)
    for line in commands(page):
        parse(shlex.split(line, comments=True)[1:])  # raises where a command, an option or a file does not exist


def test_python_and_commands_of_the_tutorial(folder: Path) -> None:
    demonstrate(folder)
    test_python_and_commands_of_a_page(ROOT / "docs/tutorial.md", folder)


def test_three_commands_lead_from_a_file_to_a_report(folder: Path) -> None:
    page = ROOT / "docs/bring_your_own.md"
    run(page, shell=True)
    assert len(commands(page)) == 9  # for each of three files
    for file in ("cells.physml.yaml", "waves.physml.yaml", "weather.nc"):
        name = file.partition(".")[0]
        report = folder / "results" / name / "report" / "index.html"
        assert name in report.read_text("utf-8")
        [model] = json.loads(report.with_name("metrics.json").read_text("utf-8"))["models"]
        data = open_trajectories(file)
        [segment, *_] = data.segments_of("test")
        u = data.read(segment.trajectory, segment.start, segment.start + 10)  # two known frames, eight to predict
        still = np.linalg.norm(u[2:] - u[1]) / np.linalg.norm(u[2:])
        assert model["row"]["relative_l2_8"]["value"] < 0.5 * still  # it learned more than that nothing changes


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_costs_of_the_operators_page(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--json", "-c", str(path)]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    frames, *grid, _ = told["input_shape"]
    cells = (
        told["operator"].rpartition(".")[2],
        " × ".join(map(str, grid)),
        f"{frames} → {told['output_shape'][0]}",
        f"{told['parameters']['trainable']:,}",
        f"{told['forward_flops'] / 1e9:.3g}",
    )
    assert table("operators.md")[f"{path.parent.name}/{path.name}"] == f" {' | '.join(cells)} ", "write the right side"


def test_every_metric_has_a_row() -> None:
    assert set(METRICS) | set(RESULTS) <= set(table("metrics.md"))


def test_fences_are_closed() -> None:
    odd = [page.name for page in PAGES if page.read_text("utf-8").count("\n```") % 2]
    assert odd == []


def test_the_tutorial_shows_the_experiment_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    path = ROOT / "experiments/demo/factformer.yaml"
    assert main(["info", "-c", str(path)]) == 0
    told, text = capsys.readouterr().out, (ROOT / "docs/tutorial.md").read_text("utf-8")
    steps = yaml.safe_load(path.read_text("utf-8"))["trainer"]["max_steps"]
    assert f"```text\n{told}```\n" in text
    assert f"trained {steps} steps (" in text, "run the commands of the tutorial again and show what they print"
