"""The command line answers at once, says what is wrong in six lines, and calls the function that a line asks for."""

from __future__ import annotations

import importlib
import inspect
import io
import os
import subprocess
import sys
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import physml
from physml.cli import main as cli
from physml.cli.errors import LINES
from physml.cli.main import COMMANDS, Parser, _local, main, overview, parse, solver_names
from physml.datasets import data_root

HEAVY = {"torch", "numpy", "lightning", "zarr", "xarray", "matplotlib", "jsonargparse", "h5py", "scipy", "pandas"}

YAML = "model:\n  operator: {class_path: physml.operators.UNet}\ndata:\n  class_path: x.Y\ntrainer:\n  max_steps: 3\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one of everything, as the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("PHYSML_DATA", raising=False)
    (tmp_path / "run.yaml").write_text(YAML)
    (tmp_path / "last.ckpt").touch()
    for folder in ("x.zarr", "results/a", "results/b", "data/flow/demo.zarr"):
        (tmp_path / folder).mkdir(parents=True)
    return tmp_path


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Namespace]]:
    """What would have been called, instead of calling it."""
    calls: list[tuple[str, Namespace]] = []
    stand_ins: dict[str, ModuleType] = {}

    def note(target: str) -> Callable[[Namespace], int]:
        return lambda arguments: calls.append((target, arguments)) or 0  # type: ignore[func-returns-value]

    for target in {command.target for command in COMMANDS.values()}:
        name, _, function = target.partition(":")
        stand_in = stand_ins.setdefault(name, ModuleType(name))
        setattr(stand_in, function, note(target))
        monkeypatch.setitem(sys.modules, name, stand_in)
    return calls


def run_in_fresh_python(code: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# nothing heavy is imported


def test_nothing_heavy_is_imported_before_it_is_needed(here: Path) -> None:
    lines = [
        *([], ["--help"], ["--version"], ["rolout"], ["plot", "feilds"], ["data", "mak"], ["rollout", "--help"]),
        *(["rollout", "last.ckpt", "--dta", "x"], ["rollout", "last.ckpt"], ["fit"], ["fit", "-c", "rum.yaml"]),
        *(["fit", "-c", "run.yaml", "--trainr.max_steps", "3"], ["evaluate", "y.zarr", "--out", "z"], ["data", "make"]),
        *(["data", "make", "kolmogorof2d"], ["data", "inspect", "nothing"], ["compare", "results/a", "--out", "z"]),
    ]
    code = f"""
import sys, io, contextlib
from physml.cli.main import main
for line in {lines!r}:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        code = main(line)
    found = sorted({HEAVY!r} & set(sys.modules))
    print(code, line, found)
"""
    told = run_in_fresh_python(code, here).splitlines()
    assert len(told) == len(lines)
    for line in told:
        assert line.endswith("[]"), line
    assert [line[0] for line in told] == list("000222" + "0" + "2" * 10)


def test_importing_physml_imports_nothing(here: Path) -> None:
    code = "import sys; before = set(sys.modules); import physml; print(sorted(set(sys.modules) - before))"
    loaded = run_in_fresh_python(code, here)
    assert "'physml'" in loaded
    for name in (*HEAVY, "typing", "dataclasses", "importlib.metadata", "physml.cli"):
        assert f"'{name}'" not in loaded


# the package's own names


def test_lazy_names_are_the_functions_whatever_was_imported_first() -> None:
    for name, home in (("rollout", "physml.rollout"), ("evaluate", "physml.evaluate")):
        module = importlib.import_module(home)  # binds the submodule to the package, were that not prevented
        assert inspect.isfunction(getattr(physml, name))
        assert getattr(physml, name) is getattr(module, name)
    from physml import open_trajectories, rollout

    assert inspect.isfunction(rollout)
    assert inspect.isfunction(open_trajectories)
    assert inspect.isfunction(physml.load)
    assert inspect.ismodule(physml.plot)
    assert isinstance(physml.__version__, str)
    assert set(physml.__all__) <= set(dir(physml))
    with pytest.raises(AttributeError, match="rollouts"):
        _ = physml.rollouts


# help


def test_help_names_every_command_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert said.strip() == overview().strip()
    for name in COMMANDS:
        assert f"\n  {name} " in said
        assert main([*name.split(), "--help"]) == 0
        text = capsys.readouterr().out
        assert f"usage: physml {name} " in text
        assert f"example:\n  physml {name} " in text
    assert main(["help", "rollout"]) == 0
    assert "--steps" in capsys.readouterr().out
    assert main(["plot", "--help"]) == 0
    assert "animation" in capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_is_a_valid_line(name: str, here: Path, called: list[tuple[str, Namespace]]) -> None:
    (here / "experiments" / "demo").mkdir(parents=True)
    (here / "experiments" / "demo" / "factformer.yaml").write_text(YAML)
    for folder in ("runs/demo/factformer", "results/factformer", "results/fno", "data/kolmogorov2d/demo.zarr"):
        (here / folder).mkdir(parents=True)
    (here / "runs/demo/factformer/best.ckpt").touch()
    assert main([*name.split(), *COMMANDS[name].example.split()]) == 0
    ((target, arguments),) = called
    assert target == COMMANDS[name].target
    assert arguments.command == name


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith(f"physml {physml.__version__} (Python 3.")


def test_every_command_has_its_function() -> None:
    for command in COMMANDS.values():
        module, _, function = command.target.partition(":")
        if importlib.util.find_spec(module) is not None:
            assert callable(getattr(importlib.import_module(module), function))


# arguments


def test_the_line_of_test_is_split_into_its_own_words_and_overrides(here: Path) -> None:
    overrides = ["--trainer.max_steps", "10", "--data.batch_size=4", "--trainer.min_steps", "-1"]
    command, arguments = parse(["test", *overrides[:2], "last.ckpt", "-c", "run.yaml", *overrides[2:]])
    assert command is COMMANDS["test"]
    assert arguments.config == Path("run.yaml")
    assert arguments.checkpoint == Path("last.ckpt")
    assert arguments.overrides == overrides
    assert arguments.experiment.tree["trainer"] == {"max_steps": 10, "min_steps": -1}
    assert arguments.experiment.tree["data"]["init_args"] == {"batch_size": 4}


def test_a_required_option_of_a_solver_is_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "make", "kolmogorov2d", "--trajectories", "4", "--out", "new.zarr"]) == 2
    assert "missing: --frames" in capsys.readouterr().err


def test_the_line_of_rollout(here: Path) -> None:
    line = ["rollout", "last.ckpt", "--data", "flow/demo.zarr", "--start", "0,10", "--steps", "5", "--out", "y.zarr"]
    _, arguments = parse(line)
    assert (arguments.start, arguments.starts, arguments.steps) == ((0, 10), None, 5)
    assert arguments.split == "test"
    assert arguments.data == Path("flow/demo.zarr")  # found below the data folder, and handed on as it was given


def test_options_of_a_solver_are_passed_on(here: Path) -> None:
    passed = ["--reynolds", "500", "--trajectories=20"]
    _, arguments = parse(["data", "make", "kolmogorov2d", *passed[:2], "--out", "a.zarr", passed[2], "-c", "run.yaml"])
    assert arguments.name == "kolmogorov2d"
    assert arguments.out == Path("a.zarr")
    assert arguments.config == Path("run.yaml")
    assert arguments.options == passed


def test_what_can_be_made_is_what_there_are_modules_for() -> None:
    assert solver_names() == ["isotropic3d", "kolmogorov2d", "smoke3d"]  # no adapter, and not what they inherit from


def test_help_of_making_names_what_can_be_made(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "make", "--help"]) == 0
    said = capsys.readouterr().out
    assert "kolmogorov2d" in said and "darcy" not in said and "well," not in said


def test_a_url_is_no_place_to_write(
    here: Path, called: list[tuple[str, Namespace]], capsys: pytest.CaptureFixture[str]
) -> None:
    """A path would make a folder ``s3:`` of it; every option that is a path says so, but where data are read."""
    url, lines = "s3://bucket/x.zarr", 0
    for name, command in COMMANDS.items():
        parser = Parser(name, command)
        command.options(parser)
        for action in parser._actions:
            assert action.type is not Path, (name, action.dest)
            if action.type is _local:
                with pytest.raises(ArgumentTypeError, match=f"got the URL {url}, expected a path of this machine"):
                    action.type(url)
                lines += 1
    assert lines > 12
    for line in (
        f"data convert x.zarr {url}",
        f"data make kolmogorov2d --out {url}",
        f"data convert x.zarr y.zarr --map {url}",
        f"rollout last.ckpt --data x.zarr --steps 3 --out {url}",
        f"evaluate x.zarr --out {url}",
        f"data inspect x.zarr --picture {url}",
    ):
        assert main(line.split()) == 2
        assert "nothing is written there" in " ".join(capsys.readouterr().err.split())
    assert called == [] and not (here / "s3:").exists()


def test_the_data_folder_is_no_url(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PHYSML_DATA", "s3://bucket")
    assert main(["data", "stats", "nowhere.zarr"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "PHYSML_DATA is the URL s3://bucket expected: a folder of this machine" in said
    with pytest.raises(ValueError, match="PHYSML_DATA: got 's3://bucket', a URL"):
        data_root()


def test_drawing_says_what(here: Path) -> None:
    assert parse(["plot", "fields", "x.zarr", "--leads", "1,8", "--out", "f.png"])[1].what == "fields"
    assert parse(["plot", "errors", "results/a", "--out", "f.png"])[1].what == "errors"


# mistakes

MISTAKES = {
    "rolout": "physml: no command 'rolout'; did you mean 'rollout'?",
    "frobnicate": "expected: one of fit, validate, test, info, rollout",
    "animation x": "did you mean 'plot animation'?",
    "plot": "expected: physml plot fields|errors|spectra|animation",
    "plot feilds": "did you mean 'fields'?",
    "plot --out x": "the command 'plot' is not complete",
    "--bogus": "no option '--bogus' before a command",
    "fit": "fit: missing: -c/--config expected: physml fit -c YAML",
    "fit run.yaml": "did you mean '-c run.yaml'?",
    "fit --confg run.yaml": "fit: no option '--confg' did you mean '--config'?",
    "fit -c rum.yaml": "no experiment rum.yaml did you mean run.yaml?",
    "fit -c results": "results is a folder",
    "fit -c run.yaml -c run.yaml": "-c is given twice",
    "test -c run.yaml lst.ckpt": "no checkpoint lst.ckpt did you mean last.ckpt?",
    "fit -c run.yaml --trainr.max_steps 3": "did you mean '--trainer.max_steps'?",
    "fit -c run.yaml --max_steps 3": "did you mean '--trainer.max_steps'?",
    "fit -c run.yaml --trainer.max_steps": "--trainer.max_steps has no value",
    "fit -c run.yaml --trainer.max_steps -c": "expected one argument",
    "fit -c": "fit: -c/--config: expected one argument",
    "info -c run.yaml --meassure": "info: no option '--meassure' did you mean '--measure'?",
    "rollout": "rollout: missing: CKPT, --data, --steps, --out",
    "rollout last.ckpt --dta x": "rollout: no option '--dta' expected: physml rollout CKPT --data STORE",
    "rollout last.ckpt --data x.zarr --steps 0 --out y": "--steps: got '0', expected a whole number, 1 or more",
    "rollout last.ckpt --data x.zarr --steps 3 --start 0 --starts 2 --out y": "not allowed with argument --start",
    "rollout last.ckpt --data x.zarr --steps 3 --start 0,x --out y": "expected whole numbers from 0, with commas",
    "rollout lst.ckpt --data x.zarr --steps 3 --out y": "did you mean last.ckpt?",
    "rollout last.ckpt --data flow/dmo.zarr --steps 3 --out y": "did you mean data/flow/demo.zarr?",
    "rollout last.ckpt --data nowhere --steps 3 --out y": "no data set nowhere, nor data/nowhere",
    "rollout last.ckpt --data x.zarr --steps 3 --out run.yaml/y": "run.yaml is no folder",
    "evaluate z.zarr --out y": "no rollout z.zarr did you mean x.zarr?",
    "evaluate x.zarr": "evaluate: missing: --out",
    "evaluate x.zarr extra --out y": "unrecognized arguments: extra",
    "compare results/a --out y": "compare: one folder",
    "compare results/a results/c --out y": "no folder results/c expected: a path that exists; results holds a, b",
    "compare results/a run.yaml --out y": "run.yaml is a file",
    "plot fields x.zarr --sample -1 --out f": "--sample",
    "data make kolmogorof2d": "did you mean 'kolmogorov2d'?",
    "data make darcy --out x.zarr": "darcy is read where it lies; there is nothing to make",
    "data make cylinder_wak": "expected: one of isotropic3d, kolmogorov2d, smoke3d",
    "data convert x.zarr y.zarr --frames 5": "--frames: got '5', expected START:STOP or START:STOP:STEP",
    "data convert x.zarr y.zarr --frames 0:9:0": "--frames: got '0:9:0', expected START:STOP",
    "data check x.zarr --patience 0": "--patience: got '0', expected seconds, above 0",
    "data inspect flw": "no data set flw, nor data/flw did you mean data/flow?",
    "doctor --ful": "did you mean '--full'?",
}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_costs_one_screen(
    line: str, here: Path, called: list[tuple[str, Namespace]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split()) == 2
    out, said = capsys.readouterr()
    assert called == []
    assert out == ""
    assert MISTAKES[line] in " ".join(said.split())
    assert len(said.splitlines()) <= LINES
    assert "Traceback" not in said


def test_broken_yaml_is_told_before_anything_is_imported(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "run.yaml").write_text("model:\n  a: 1\n  a: 2\n")
    assert main(["fit", "-c", "run.yaml"]) == 2
    assert "run.yaml:3: model.a is given twice" in capsys.readouterr().err
    (here / "run.yaml").write_text("modle: {}\ndata: {}\n")
    assert main(["fit", "-c", "run.yaml"]) == 2
    assert "run.yaml:1: unknown section 'modle'" in capsys.readouterr().err


WORDS = st.sampled_from(
    [
        *sorted({word for name in COMMANDS for word in name.split()}),
        *("-c", "run.yaml", "--out", "y", "x.zarr", "--data", "--steps", "3", "-1", "--", "-h", "--trainer.max_steps"),
        *("--json", "--debug", "last.ckpt", "results/a", "", "-", "--config=run.yaml", "--x=", "é", "0,1", "--start"),
    ]
)


@settings(deadline=None)
@given(line=st.lists(st.one_of(WORDS, st.text(max_size=5)), max_size=8))
def test_no_line_ends_in_a_traceback(line: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    here = tmp_path_factory.getbasetemp()
    (here / "run.yaml").write_text(YAML)
    before = Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "run", lambda command, arguments: 0)
        patch.setattr(sys, "stderr", said := io.StringIO())
        os.chdir(here)
        try:
            code = main(line)
        finally:
            os.chdir(before)
    assert code in (0, 2)
    if "--debug" not in line:
        assert len(said.getvalue().splitlines()) <= LINES
    assert (code == 2) == said.getvalue().startswith(("physml:", "Traceback"))


# what commands raise


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ValueError("width: got 7, expected an even number."), 2, "physml: width: got 7"),
        (FileNotFoundError(2, "No such file", "y.zarr"), 2, "no file y.zarr"),
        (KeyboardInterrupt(), 130, "physml: stopped"),
        (KeyError("x"), 1, "test_main.py"),
        (SystemExit(3), 3, ""),
        (SystemExit("enough"), 2, "physml: enough"),
    ],
)
@pytest.mark.parametrize("place", [0, 1, 4])
@pytest.mark.parametrize("debug", [False, True])
def test_what_a_command_raises_becomes_an_exit_code(
    error: BaseException,
    code: int,
    said: str,
    place: int,
    debug: bool,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    module = ModuleType("physml.cli.results_commands")

    def evaluate(arguments: Namespace) -> int:
        raise error

    module.evaluate = evaluate  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    line = ["evaluate", "x.zarr", "--out", "y"]
    if debug:
        line.insert(place, "--debug")
    assert main(line) == code
    text = capsys.readouterr().err
    assert said in text
    if not isinstance(error, SystemExit):
        assert ("Traceback" in text) == debug
    if not debug:
        assert len(text.splitlines()) <= LINES


def test_the_error_of_a_constructor_is_placed_in_the_experiment(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = ModuleType("physml.cli.training_commands")

    def fit(arguments: Namespace) -> int:
        raise ValueError("max_steps: got 3, expected a thousand.")

    module.fit = fit  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert main(["fit", "-c", "run.yaml"]) == 2
    assert capsys.readouterr().err.startswith("physml: run.yaml:6: max_steps: got 3")


def test_classes_beside_the_experiment_can_be_found(
    here: Path, called: list[tuple[str, Namespace]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(here))])
    assert main(["evaluate", "x.zarr", "--out", "y"]) == 0
    assert sys.path[-1] == str(here)  # last: a file there hides no package


def test_the_module_is_the_command(here: Path) -> None:
    line = [sys.executable, "-m", "physml", "rolout"]
    done = subprocess.run(line, capture_output=True, text=True, cwd=here, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("physml: no command 'rolout'")
