"""The command ``physml``: what it can do, what each command takes, and what is wrong with a line.

Only the standard library is imported here. A line is judged before torch is: commands are functions of the modules
beside this one and imported when everything that can be known without them is in order.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from physml.cli.errors import UserError, did_you_mean, missing, nearest, report

PERSISTENCE = "persistence"
"""Instead of a checkpoint of ``physml rollout``: the forecast that nothing changes, which needs no training."""
FORMATS = ("zarr", "well", "pdebench", "npy")
"""Of what ``physml data make`` writes: our own store, or files in the layout of other programs."""


@dataclass(frozen=True)
class Command:
    """One command.

    Args:
        group: its heading in ``physml --help``.
        summary: half a line.
        synopsis: its arguments in one line.
        example: its arguments as one would type them.
        options: declares them.
        target: ``module:function`` that is given the namespace; its result is the exit code.
    """

    group: str
    summary: str
    synopsis: str
    example: str
    options: Callable[[argparse.ArgumentParser], None]
    target: str


class Parser(argparse.ArgumentParser):
    """argparse whose mistakes are :class:`UserError`."""

    def __init__(self, name: str, command: Command) -> None:
        super().__init__(
            prog=f"physml {name}",
            usage=f"physml {name} {command.synopsis}",
            description=f"{command.summary[0].upper()}{command.summary[1:]}.",
            epilog=f"example:\n  physml {name} {command.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.name, self.example = name, f"for example: physml {name} {command.example}"

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the whole usage."""
        told = re.sub(r"^argument (\S+): ", r"\1: ", message)
        told = told.replace("the following arguments are required: ", "missing: ")
        raise UserError(f"{self.name}: {told}", expected=str(self.usage), hint=self.example)

    def takes_value(self, word: str) -> bool | None:
        """Whether an option is followed by a value; ``None`` where there is no such option."""
        action = self._option_string_actions.get(word)
        return None if action is None else action.nargs != 0

    def names(self) -> list[str]:
        """All long options, and the short ones."""
        return sorted(self._option_string_actions, key=lambda name: not name.startswith("--"))


# ------------------------------------------------------------------------------------------------- values of options


def _data(text: str) -> Path | str:
    """Where a data set lies: a path, or a URL as it is, which a path would change."""
    return text if "://" in text else Path(text)


def _local(text: str) -> Path:
    """A path of this machine; a URL would become a folder called ``s3:``."""
    if "://" in text:
        raise argparse.ArgumentTypeError(
            f"got the URL {text}, expected a path of this machine (data are read from URLs, nothing is written there)"
        )
    return Path(text)


def _count(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number, 1 or more")
    return number


def _index(text: str) -> int:
    return _indices(text)[0] if "," not in text else _indices("")[0]


def _indices(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected whole numbers from 0, with commas: 0,10")
    return tuple(map(int, text.split(",")))


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected seconds, above 0")
    return number


def _span(text: str) -> slice:
    if not re.fullmatch(r"\d*:\d*(:[1-9]\d*)?", text):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected START:STOP or START:STOP:STEP: 0:100:2, :50, ::4")
    return slice(*(int(part) if part else None for part in text.split(":")))


# --------------------------------------------------------------------------------------------------------- arguments


def _experiment(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-c",
        "--config",
        type=_local,
        required=True,
        action="append",
        metavar="YAML",
        help="the experiment: one complete run",
    )
    overridden = parser.add_argument_group("overrides")
    overridden.description = (
        "any key of the YAML: --trainer.max_steps 10, --data.init_args.batch_size=4, --trainer.callbacks+=..."
    )


def _measure(parser: argparse.ArgumentParser) -> None:
    _experiment(parser)
    parser.add_argument("checkpoint", type=_local, nargs="?", metavar="CKPT", help="weights to measure")


def _info(parser: argparse.ArgumentParser) -> None:
    _experiment(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--measure", action="store_true", help="run a few steps: time and memory on this machine")


def _rollout(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=_local, metavar="CKPT", help="a checkpoint of 'physml fit', or: persistence")
    parser.add_argument("--data", type=_data, required=True, metavar="STORE", help="where the first frames come from")
    parser.add_argument("--split", default="test", help="split of the data (default: test)")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--start", type=_indices, metavar="0,10", help="frames of each trajectory to start at")
    start.add_argument("--starts", type=_count, metavar="N", help="or: starts, spread over each trajectory")
    parser.add_argument("--steps", type=_count, required=True, metavar="N", help="frames to predict")
    parser.add_argument("--stride", type=_count, metavar="N", help="of persistence: stored frames a step (default: 1)")
    parser.add_argument("--history", type=_count, metavar="N", help="known frames: models given as many start together")
    parser.add_argument("--out", type=_local, required=True, metavar="X.zarr", help="the store to write")


def _evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("rollout", type=_local, metavar="X.zarr", help="what 'physml rollout' wrote")
    parser.add_argument("--truth", type=_data, metavar="STORE", help="the data; if not given, those it started from")
    parser.add_argument("--out", type=_local, required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--report", action="store_true", help="also write a page with figures, DIR/report/index.html")


def _compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", type=_local, nargs="+", metavar="DIR", help="folders that 'physml evaluate' wrote")
    parser.add_argument("--out", type=_local, required=True, metavar="DIR", help="folder for the comparison")


def _plot_rollout(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("rollout", type=_local, metavar="X.zarr", help="what 'physml rollout' wrote")
    parser.add_argument("--truth", type=_data, metavar="STORE", help="the data, to show beside it")
    parser.add_argument("--sample", type=_index, default=0, metavar="I", help="which of the starts (default: 0)")
    parser.add_argument("--field", metavar="NAME", help="which field (default: the first)")


def _plot_fields(parser: argparse.ArgumentParser) -> None:
    _plot_rollout(parser)
    parser.add_argument("--leads", type=_indices, metavar="1,8,32", help="which frames after the start")
    parser.add_argument("--out", type=_local, required=True, metavar="FILE", help=".png, .pdf or .svg")


def _plot_animation(parser: argparse.ArgumentParser) -> None:
    _plot_rollout(parser)
    parser.add_argument("--fps", type=_count, default=12, metavar="N", help="frames a second (default: 12)")
    parser.add_argument("--out", type=_local, required=True, metavar="FILE", help=".gif or .mp4")


def _plot_results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", type=_local, nargs="+", metavar="DIR", help="folders that 'physml evaluate' wrote")
    parser.add_argument("--out", type=_local, required=True, metavar="FILE", help=".png, .pdf or .svg")


def _data_make(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help=", ".join(solver_names()) or "a solver")
    parser.add_argument("-c", "--config", type=_local, metavar="YAML", help="a recipe with the options")
    parser.add_argument("--out", type=_local, metavar="STORE", help="the store to write")
    parser.add_argument(
        "--format", choices=FORMATS, metavar="|".join(FORMATS), help="of what is written (default: zarr, our own store)"
    )
    parser.add_argument_group("options", "those of the solver: --trajectories 20 --reynolds 500 ...")


def _data_path(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=_data, metavar="PATH", help="a store, a file or a folder of files")
    parser.add_argument("--window", type=_count, default=8, metavar="N", help="frames read together (default: 8)")
    parser.add_argument(
        "--patience",
        type=_seconds,
        default=60.0,
        metavar="S",
        help="give up after S seconds without reading (default: 60)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _data_inspect(parser: argparse.ArgumentParser) -> None:
    _data_path(parser)
    parser.add_argument("--picture", type=_local, metavar="FILE", help="also draw it: .png, .pdf or .svg")
    parser.add_argument("--trajectory", type=_index, default=0, metavar="I", help="which one to draw (default: 0)")


def _data_convert(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=_data, metavar="SRC", help="a data set of any format that is read")
    parser.add_argument("store", type=_local, metavar="DST", help="the store to write, NAME.zarr")
    parser.add_argument("--map", type=_local, metavar="FILE", help="a mapping file: what the arrays of SRC mean")
    parser.add_argument("--fields", nargs="+", metavar="NAME", help="fields to keep (default: all)")
    parser.add_argument("--static", nargs="*", metavar="NAME", help="the same of those without time; may be none")
    parser.add_argument("--frames", type=_span, metavar="A:B:N", help="frames to keep, every N-th from A to before B")
    parser.add_argument("--trajectories", type=_span, metavar="A:B:N", help="trajectories to keep, likewise")
    parser.add_argument("--workers", type=_count, default=1, metavar="N", help="processes that write (default: 1)")


def _data_stats(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=_data, metavar="PATH", help="a store or a folder of files")
    parser.add_argument("--split", default="train", help="split to measure (default: train)")
    parser.add_argument("--workers", type=_count, default=1, metavar="N", help="processes that read (default: 1)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--full", action="store_true", help="also compile a function, which takes a minute")


_YAML, _PLOT = "-c YAML [CKPT] [--KEY VALUE ...]", "physml.cli.results_commands:plot"
_TRAIN, _USE, _DATA, _MACHINE = "train", "use what was trained", "data", "this machine"

COMMANDS: dict[str, Command] = {
    "fit": Command(
        _TRAIN, "train the operator of an experiment, or continue where it stopped", "-c YAML [--KEY VALUE ...]",
        "-c experiments/demo/factformer.yaml --trainer.max_steps 100", _experiment, "physml.cli.training_commands:fit",
    ),
    "validate": Command(
        _TRAIN, "measure a checkpoint on the validation split", _YAML,
        "-c experiments/demo/factformer.yaml runs/demo/factformer/best.ckpt",
        _measure, "physml.cli.training_commands:validate",
    ),
    "test": Command(
        _TRAIN, "measure a checkpoint on the test split", _YAML,
        "-c experiments/demo/factformer.yaml runs/demo/factformer/best.ckpt",
        _measure, "physml.cli.training_commands:test",
    ),
    "info": Command(
        _TRAIN, "count the parameters, floating-point operations and memory of an experiment",
        "-c YAML [--json] [--measure] [--KEY VALUE ...]",
        "-c experiments/demo/factformer.yaml --measure", _info, "physml.cli.training_commands:info",
    ),
    "rollout": Command(
        _USE, "predict from a checkpoint, frame after frame",
        "CKPT --data STORE [--split test] [--start 0,10 | --starts 5] [--history N] --steps N --out X.zarr",
        "runs/demo/factformer/best.ckpt --data kolmogorov2d/demo.zarr --steps 32 --out x.zarr",
        _rollout,
        "physml.cli.results_commands:rollout",
    ),
    "evaluate": Command(
        _USE, "measure a rollout against the truth", "X.zarr [--truth STORE] --out DIR [--report]",
        "x.zarr --out results/factformer", _evaluate, "physml.cli.results_commands:evaluate",
    ),
    "compare": Command(
        _USE, "set the results of several operators side by side", "DIR DIR ... --out DIR",
        "results/factformer results/fno --out results/both", _compare, "physml.cli.results_commands:compare",
    ),
    "plot fields": Command(
        _USE, "draw the predicted fields beside the true ones",
        "X.zarr [--truth STORE] [--sample I] [--field NAME] [--leads 1,8,32] --out FILE",
        "x.zarr --leads 1,8,32 --out fields.png", _plot_fields, _PLOT,
    ),
    "plot errors": Command(
        _USE, "draw the errors over the lead time", "DIR ... --out FILE",
        "results/factformer results/fno --out errors.pdf", _plot_results, _PLOT,
    ),
    "plot spectra": Command(
        _USE, "draw the spectra at several lead times", "DIR ... --out FILE",
        "results/factformer --out spectra.pdf", _plot_results, _PLOT,
    ),
    "plot animation": Command(
        _USE, "film a rollout", "X.zarr [--truth STORE] [--sample I] [--field NAME] [--fps N] --out FILE",
        "x.zarr --out rollout.gif", _plot_animation, _PLOT,
    ),
    "data make": Command(
        _DATA, "solve an equation into a store",
        f"NAME [-c YAML] [--out STORE] [--format {'|'.join(FORMATS)}] [--OPTION VALUE ...]",
        "kolmogorov2d --trajectories 20 --frames 48 --reynolds 200 --out demo.zarr", _data_make,
        "physml.cli.data_make:make",
    ),
    "data inspect": Command(
        _DATA, "say what a data set holds, and draw it",
        "PATH [--picture FILE] [--trajectory I] [--window N] [--patience S] [--json]",
        "kolmogorov2d/demo.zarr --picture demo.png", _data_inspect, "physml.cli.data_inspect:inspect",
    ),
    "data check": Command(
        _DATA, "read a data set once and say all that is wrong with it", "PATH [--window N] [--patience S] [--json]",
        "kolmogorov2d/demo.zarr", _data_path, "physml.cli.data_check:check",
    ),
    "data convert": Command(
        _DATA, "write a data set of any format, or a part of it, to a store; or continue where it stopped",
        "SRC DST [--map FILE] [--fields NAME ...] [--static NAME ...] [--frames A:B:N] [--trajectories A:B:N] "
        "[--workers N]",
        "kolmogorov2d/demo.zarr copy.zarr --workers 4", _data_convert, "physml.cli.data_convert:convert",
    ),
    "data stats": Command(
        _DATA, "measure the fields of a split: mean, deviation, range", "PATH [--split train] [--workers N] [--json]",
        "kolmogorov2d/demo.zarr --split test", _data_stats, "physml.cli.data_stats:stats",
    ),
    "doctor": Command(
        _MACHINE, "say what this machine has, and what would fail on it", "[--json] [--full]",
        "--full", _doctor, "physml.cli.doctor:doctor",
    ),
}  # fmt: skip

_HEAD = "physml: learn physics from simulations"
_FOOT = """physml COMMAND --help tells what a command takes; --debug, anywhere, shows the traceback of an error.
Relative data paths are also looked up in the folder PHYSML_DATA."""


def overview() -> str:
    """What ``physml --help`` prints."""
    text = [_HEAD, "", "usage: physml COMMAND ... [--debug]", "       physml --help | --version"]
    width = max(map(len, COMMANDS))
    for group in dict.fromkeys(command.group for command in COMMANDS.values()):
        text += ["", group]
        text += [f"  {name:{width}}  {c.summary}" for name, c in COMMANDS.items() if c.group == group]
    text += ["", "examples"]
    for name in ("data make", "fit", "rollout", "evaluate", "plot errors"):
        text.append(f"  physml {name} {COMMANDS[name].example}")
    return "\n".join([*text, "", _FOOT])


def solver_names() -> list[str]:
    """What ``data make`` can make: the modules that define a solver."""
    return _defining("solvers", "Solver")


def _defining(folder: str, base: str) -> list[str]:
    """Modules of a folder that define a subclass, without importing them."""
    files = sorted((Path(__file__).resolve().parents[1] / folder).glob("*.py"))
    made = re.compile(rf"^class \w+\((?:\w+, *)*{base}\b", re.MULTILINE)
    return [file.stem for file in files if made.search(file.read_text("utf-8"))]


# ----------------------------------------------------------------------------------------------------------- parsing


def _choose(words: Sequence[str]) -> tuple[str, list[str]]:
    """The name of the command that a line begins with, and the rest of the line."""
    first, rest = words[0], list(words[1:])
    firsts = list(dict.fromkeys(name.split()[0] for name in COMMANDS))
    if first not in firsts:
        if first.startswith("-"):
            raise UserError(f"no option {first!r} before a command", expected="physml COMMAND ..., --help or --version")
        near = nearest(first, firsts)
        if near is None:  # the second word of a command, without the first
            near = next((name for name in COMMANDS if name.split()[-1] == first), None)
        hint = f"did you mean {near!r}?" if near else ""
        what = f"no command {first!r}" + (f"; {hint}" if hint else "")
        raise UserError(what, expected="" if hint else f"one of {', '.join(firsts)}", hint="physml --help lists them")
    if first in COMMANDS:
        return first, rest
    seconds = [name.split()[1] for name in COMMANDS if name.startswith(f"{first} ")]
    if not rest or rest[0].startswith("-"):
        if rest and rest[0] in ("-h", "--help"):
            for name in seconds:
                print(f"physml {first} {name:10} {COMMANDS[f'{first} {name}'].summary}")
            raise SystemExit(0)
        raise UserError(f"the command {first!r} is not complete", expected=f"physml {first} {'|'.join(seconds)} ...")
    if rest[0] not in seconds:
        near = nearest(rest[0], seconds)
        hint = f"; did you mean {near!r}?" if near else ""
        raise UserError(f"no command '{first} {rest[0]}'{hint}", expected=f"physml {first} {'|'.join(seconds)} ...")
    return f"{first} {rest[0]}", rest[1:]


def _split(words: Sequence[str], parser: Parser) -> tuple[list[str], list[str]]:
    """Words that the command knows, and options that are passed on with their values."""
    own, passed = list[str](), list[str]()
    line = list(words)
    while line:
        word = line.pop(0)
        name = word.partition("=")[0]
        if re.match(r"--\w", word) and parser.takes_value(name) is None:
            passed.append(word)
            if "=" not in word and line and not line[0].startswith("--") and parser.takes_value(line[0]) is None:
                passed.append(line.pop(0))
            continue
        own.append(word)
        if "=" not in word and parser.takes_value(word) and line:
            own.append(line.pop(0))
    return own, passed


def _refuse_unknown(words: Iterable[str], parser: Parser) -> None:
    """Name a mistyped option before argparse complains of what it misses because of it."""
    for word in words:
        name = word.partition("=")[0]
        if re.match(r"--?[A-Za-z]", name) and parser.takes_value(name) is None and parser.takes_value(name[:2]) is None:
            hint = did_you_mean(name, parser.names()) if name.startswith("--") else ""
            raise UserError(f"{parser.name}: no option {name!r}", expected=str(parser.usage), hint=hint)


def parse(words: Sequence[str]) -> tuple[Command, argparse.Namespace]:
    """The command of a line and its arguments, checked as far as that needs no torch.

    Raises:
        UserError: where the line cannot be understood, or a path in it does not exist.
    """
    name, rest = _choose(words)
    command = COMMANDS[name]
    parser = Parser(name, command)
    command.options(parser)
    passed: list[str] = []
    reads_experiment = command.target.startswith("physml.cli.training_commands")
    if reads_experiment or name == "data make":
        rest, passed = _split(rest, parser)
    if reads_experiment:
        from physml.cli.experiment import SECTIONS

        for word in passed:
            option = word.partition("=")[0]
            if word.startswith("--") and option[2:].partition(".")[0] not in SECTIONS:
                near = nearest(option, parser.names())
                if near:
                    raise UserError(f"{parser.name}: no option {option!r}", hint=f"did you mean {near!r}?")
        _suggest_config(rest, parser)
    _refuse_unknown(rest, parser)
    arguments = parser.parse_args(rest)
    if reads_experiment:
        if len(arguments.config) > 1:
            raise UserError("-c is given twice", expected="one YAML: it is one complete run")
        arguments.config, arguments.overrides = arguments.config[0], passed
        _read_experiment(arguments)
    elif name == "data make":
        arguments.options = passed
        _known_data(arguments.name)
    elif name.startswith("plot"):
        arguments.what = name.split()[1]
    elif name == "compare" and len(arguments.folders) < 2:
        raise UserError("compare: one folder", expected=str(parser.usage), hint=parser.example)
    arguments.command = name
    _check_paths(arguments)
    return command, arguments


def _suggest_config(words: Sequence[str], parser: Parser) -> None:
    if any(word.startswith(("-c", "--config", "-h", "--help")) for word in words):
        return
    for word in words:
        if word.endswith((".yaml", ".yml")):
            raise UserError(
                f"{parser.name}: missing: -c/--config", expected=str(parser.usage), hint=f"did you mean '-c {word}'?"
            )


def _read_experiment(arguments: argparse.Namespace) -> None:
    """Put the experiment into the namespace, with overrides; what is wrong with its outline is told at once."""
    from physml.cli.experiment import apply_overrides, outline, read

    arguments.experiment = apply_overrides(read(arguments.config), arguments.overrides)
    for error in outline(arguments.experiment):
        raise error


def _known_data(name: str) -> None:
    names = solver_names()
    if name in names:
        return
    if name in _defining("datasets", "Trajectories"):
        raise UserError(
            f"{name} is read where it lies; there is nothing to make",
            hint="give its folder to the commands that take a STORE; 'physml data inspect FOLDER' looks at it",
        )
    listed = f"one of {', '.join(names)}" if names else ""
    raise UserError(f"data make: nothing is called {name!r}", expected=listed, hint=did_you_mean(name, names))


def _check_paths(arguments: argparse.Namespace) -> None:
    """Whether what is read exists and what is written can be written."""
    given: dict[str, Any] = vars(arguments)
    for name, kind in (("config", "file"), ("checkpoint", "checkpoint"), ("rollout", "rollout"), ("map", "file")):
        path = given.get(name)
        if path is None or (name == "checkpoint" and given["command"] == "rollout" and str(path) == PERSISTENCE):
            continue
        if not path.exists():
            if name == "checkpoint" and nearest(str(path), [PERSISTENCE]):
                raise UserError(f"no checkpoint {path}", hint=f"did you mean {PERSISTENCE!r}?")
            raise missing(path, kind)
    for folder in given.get("folders") or ():
        if not folder.is_dir():
            raise (
                UserError(f"{folder} is a file", expected="a folder") if folder.exists() else missing(folder, "folder")
            )
    for name in ("data", "truth", "path"):
        if (path := given.get(name)) is not None:
            _check_store(path)
    if given.get("out") is not None:
        check_writable(given["out"], folder=given["command"] in ("evaluate", "compare"))
    if given.get("picture") is not None:
        check_writable(given["picture"], option="--picture")
    if given.get("store") is not None:
        check_writable(given["store"], option="DST")


def _check_store(path: Path | str) -> None:
    if isinstance(path, str):
        return  # a URL; opening it asks
    given = os.environ.get("PHYSML_DATA") or "data"
    root = Path(given)
    if "://" in given:
        raise UserError(
            f"PHYSML_DATA is the URL {given}", expected="a folder of this machine", hint="give URLs of data in full"
        )
    if path.exists() or (root / path).exists():
        return
    if os.path.lexists(path):
        raise missing(path, "data set")
    near = missing(path, "data set").hint or missing(root / path, "data set").hint
    remedy = "make it with 'physml data make', or set PHYSML_DATA to the folder that holds it"
    raise UserError(f"no data set {path}" + ("" if path.is_absolute() else f", nor {root / path}"), hint=near or remedy)


def check_writable(path: Path, *, folder: bool = False, option: str = "--out") -> None:
    """Refuse a file (or a ``folder``) that cannot be written, before anything is computed; leaves nothing behind."""
    there = path if folder or path.is_dir() else path.parent
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir():
        raise UserError(f"{option} {path}: {there} is no folder", expected="a path in a folder")
    try:
        import tempfile

        tempfile.TemporaryFile(dir=there).close()  # has no name; root may write where nothing can be written
    except OSError as problem:
        why = problem.strerror or str(problem)
        raise UserError(
            f"{option} {path}: cannot write in {there} ({why})", expected="a place that can be written to"
        ) from None


# --------------------------------------------------------------------------------------------------------------- run


def _version() -> str:
    import physml

    python = ".".join(map(str, sys.version_info[:3]))
    return f"physml {physml.__version__} (Python {python})"


def run(command: Command, arguments: argparse.Namespace) -> int:
    """Import the function of a command and call it."""
    from importlib import import_module

    # The classes of an experiment may live in a file beside it, which an installed script would not find.
    # Last, so that a file there hides no package.
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    import logging

    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # of zarr's tasks, whose error is told once already
    # Threads of torch that wait for each other must not spin: on a busy machine that costs more than all the work.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for name in filter(None, os.environ.get("PHYSML_IMPORT", "").split(",")):
        import_module(name)
    module, _, function = command.target.partition(":")
    try:
        return int(getattr(import_module(module), function)(arguments) or 0)
    except ValueError as error:
        if (experiment := getattr(arguments, "experiment", None)) is not None:
            from physml.cli.experiment import locate

            if (told := locate(error, experiment)) is not None:
                raise told from error
        raise


def main(argv: Sequence[str] | None = None) -> int:
    """Run one line; never raises for a mistake in it.

    Returns:
        The exit code: 0, 2 for a mistake or an obstacle, 130 for Ctrl-C, 1 for a failure that no one foresaw, and
        where ``data check`` finds errors.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        if words[:1] == ["help"]:
            words = [*words[1:], "--help"]
        if not words or words[0] in ("-h", "--help"):
            print(overview(), flush=True)
            return 0
        if words[0] in ("-V", "--version"):
            print(_version(), flush=True)
            return 0
        return run(*parse(words))
    except SystemExit as leaving:  # --help of a command, and libraries that end the process themselves
        if isinstance(leaving.code, str):
            return report(UserError(leaving.code), debug=debug)
        return int(leaving.code or 0)
    except BrokenPipeError:  # whoever read the output, as 'head' does, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (Exception, KeyboardInterrupt) as error:
        return report(error, debug=debug)
