"""An experiment is read with its lines, and every mistake in it is named by line, key and nearest valid name.

jsonargparse, which builds the objects, is the oracle: what it refuses must be found, and what it accepts must pass.
"""

from __future__ import annotations

import copy
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jsonargparse import ArgumentError, ArgumentParser

from physml.cli.errors import LINES, UserError
from physml.cli.experiment import (
    Experiment,
    apply_overrides,
    check,
    findings,
    locate,
    outline,
    parameters,
    parse,
    read,
    resolve,
    translate,
)

# A small world with the shapes of signature that the real one has, so that no test waits for torch.


class Kind(StrEnum):
    PERIODIC = "periodic"
    WALL = "wall"


class Operator(ABC):
    def __new__(cls, *positional: Any, **arguments: Any) -> typing.Self:
        return super().__new__(cls)

    @abstractmethod
    def predict(self) -> None: ...


class Former(Operator):
    def __init__(
        self,
        *,
        channels: int,
        frames: int,
        width: int = 8,
        rate: float | None = None,
        label: str = "a",
        flag: bool = False,
        product: Literal["chained", "parallel"] = "chained",
        shape: Sequence[int] = (1,),
        pair: tuple[int, float] = (1, 1.0),
        weights: Mapping[str, float] | None = None,
        kinds: Sequence[Kind] | None = None,
        inner: Operator | None = None,
        anything: Any = None,
        either: list[int] | list[str] | None = None,
    ) -> None: ...

    def predict(self) -> None: ...


class Objective: ...


class NextStep(Objective):
    def __init__(self, *, horizon: int) -> None: ...


class Sum(Objective):
    def __init__(self, *, parts: Sequence[Objective]) -> None: ...


class Optimizer:
    def __init__(self, params: Iterable[Any], lr: float = 1e-3, decay: float = 0.0) -> None: ...


class Schedule:
    def __init__(self, *, warmup: float = 0.2) -> None: ...


class OpenEnded(Operator):
    def __init__(self, *, depth: int = 1, **others: Any) -> None: ...

    def predict(self) -> None: ...


class Model:
    def __init__(
        self,
        *,
        operator: Operator,
        objective: Objective,
        optimizer: Callable[[Iterable], Optimizer],
        schedule: Schedule | None = None,
        compile: bool = False,
    ) -> None: ...


class Data:
    def __init__(self) -> None: ...


class Windows(Data):
    def __init__(self, *, store: str, batch_size: int = 8) -> None: ...


class Callback: ...


class Saver(Callback):
    def __init__(self, every: int = 1, *, monitor: str | None = None) -> None: ...


class Trainer:
    def __init__(
        self,
        *,
        max_steps: int = -1,
        precision: Literal["32-true", "bf16-mixed"] | None = None,
        callbacks: list[Callback] | Callback | None = None,
        logger: Iterable[Callback] | bool | None = None,
    ) -> None: ...


HERE = __name__
TEXT = f"""\
seed_everything: 0
model:
  operator:
    class_path: {HERE}.Former
    init_args:
      channels: 1
      frames: 10
      rate: 1.0e-3
      product: parallel
      shape: [4, 4]
  objective:
    class_path: {HERE}.Sum
    init_args:
      parts:
        - class_path: {HERE}.NextStep
          init_args:
            horizon: 4
  optimizer:
    class_path: {HERE}.Optimizer
    init_args:
      lr: 1e-3
      decay: 0.1
  schedule:
    class_path: {HERE}.Schedule
    init_args:
      warmup: 0.1
data:
  class_path: {HERE}.Windows
  init_args:
    store: somewhere.zarr
    batch_size: 4
trainer:
  max_steps: 10
  precision: bf16-mixed
  callbacks:
    - class_path: {HERE}.Saver
      init_args:
        every: 2
        monitor: loss
"""


def written(folder: Path, content: str | Mapping[str, Any]) -> Path:
    path = folder / "run.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    return path


def found(experiment: Experiment) -> list[UserError]:
    return list(findings(experiment, model=Model, data=Data, trainer=Trainer))


def changed(key: str, value: Any) -> dict[str, Any]:
    """The good experiment with one value set, by dotted key; ``...`` deletes."""
    tree: Any = yaml.safe_load(TEXT.replace("1e-3", "1.0e-3"))
    *above, last = [int(part) if part.isdigit() else part for part in key.split(".")]
    node = tree
    for part in above:
        node = node[part]
    if value is ...:
        del node[last]
    else:
        node[last] = copy.deepcopy(value)
    return tree


# reading


def test_a_good_experiment_is_read_as_it_is_and_nothing_is_found(tmp_path: Path) -> None:
    experiment = read(written(tmp_path, TEXT))
    assert experiment.tree == changed("seed_everything", 0)
    assert found(experiment) == []
    check(experiment, model=Model, data=Data, trainer=Trainer)


def test_every_key_knows_its_line(tmp_path: Path) -> None:
    experiment = read(written(tmp_path, TEXT))
    rows = TEXT.splitlines()
    assert len(experiment.lines) > 35
    for key, line in experiment.lines.items():
        name = key.rpartition(".")[2]
        row = rows[line - 1].strip().removeprefix("- ")
        assert name.endswith("]") or row.startswith(f"{name}:"), key
    assert experiment.where("model.objective.init_args.parts[0].init_args.horizon").endswith("run.yaml:17")
    # A key that is not there is looked for at the object that lacks it.
    assert experiment.where("model.operator.init_args.heads").endswith("run.yaml:5")
    assert experiment.where("nothing.at.all").endswith("run.yaml:1")


@pytest.mark.parametrize(
    "text", ["1e-3", "1.5", "-.5", "1E5", ".inf", "2024-01-01", "0x10", "1_000", "1.e+2", "yes", "~"]
)
def test_plain_values_are_read_as_jsonargparse_reads_them(text: str) -> None:
    from jsonargparse._loaders_dumpers import yaml_load

    assert parse(text) == yaml_load(text)
    assert type(parse(text)) is type(yaml_load(text))


def test_anchors_and_merges_are_followed(tmp_path: Path) -> None:
    experiment = read(written(tmp_path, "model: &a\n  x: 1\n  y: 2\ndata:\n  <<: *a\n  y: 3\ntrainer: *a\n"))
    assert experiment.tree == {"model": {"x": 1, "y": 2}, "data": {"x": 1, "y": 3}, "trainer": {"x": 1, "y": 2}}
    assert [experiment.lines[key] for key in ("model.y", "data.x", "data.y")] == [3, 2, 6]


BROKEN = {
    "tab": ("model:\n  a: 1\n\tb: 2\n", 3, "a tab in the indentation"),
    "duplicate": ("model:\n  a: 1\n  b: 2\n  a: 3\n", 4, "model.a is given twice"),
    "indentation": ("model:\n  a: 1\n   b: 2\n", 3, "no valid YAML"),
    "indentation back": ("model:\n    a: 1\n  b: 2\n", 3, "check the indentation"),
    "bracket": ("model: {a: 1\ndata: 3\n", 2, "bracket opened in line 1"),
    "no space": ("model:\n  a:1\n  b: 2\n", 3, "no valid YAML"),
    "list": ("- a\n- b\n", 1, "got a list"),
    "empty": ("", 1, "got an empty file"),
    "word": ("model\n", 1, "got a word"),
    "documents": ("model: 1\n---\nmodel: 2\n", 2, "one file is one run"),
    "tag": ("model: !!python/object:os.system x\n", 1, "plain values"),
    "alias": ("model: *nothing\n", 1, "no valid YAML"),
    "itself": ("model: &a\n  b: *a\n", 1, "model.b contains itself"),
    "key": ("model:\n  ? [1, 2]\n  : 3\n", 2, "a key that is no word"),
    "control": ("model: \x01\n", None, "UTF-8"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_yaml_is_told_with_its_line(tmp_path: Path, name: str) -> None:
    text, line, said = BROKEN[name]
    with pytest.raises(UserError) as caught:
        read(written(tmp_path, text))
    rendered = " ".join(caught.value.render(500).split())
    assert said in rendered
    assert f"run.yaml:{line}: " in rendered or line is None
    assert len(caught.value.render(80).splitlines()) <= LINES


def test_a_missing_experiment_names_its_neighbour(tmp_path: Path) -> None:
    written(tmp_path, TEXT)
    with pytest.raises(UserError, match=r"did you mean\s+\S*run\.yaml"):
        read(tmp_path / "rum.yaml")
    with pytest.raises(UserError, match=r"a folder"):
        read(tmp_path)
    (tmp_path / "other.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"not a text file"):
        read(tmp_path / "other.yaml")


@settings(deadline=None)  # the machine may be busy
@given(st.text(st.sampled_from("ab:- \n\t{}[]&*!#'\"?|>%@`,~<=1."), max_size=40))
def test_no_text_breaks_the_reader(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = written(tmp_path_factory.getbasetemp(), text)
    errors = []
    try:
        errors += outline(read(path))
    except UserError as error:
        errors.append(error)
    assert all(len(error.render(80).splitlines()) <= LINES for error in errors)


# overrides


def test_overrides_are_put_in(tmp_path: Path) -> None:
    before = read(written(tmp_path, TEXT))
    words = [
        *("--trainer.max_steps", "-1", "--data.init_args.batch_size=16", "--data.store", "b.zarr"),
        *("--model.operator.shape", "[1, 2]", "--model.schedule=null", "--trainer.callbacks.monitor=x"),
        "--trainer.callbacks+={class_path: a.B}",
    ]
    after = apply_overrides(before, words)
    assert after.tree["trainer"]["max_steps"] == -1
    assert after.tree["data"]["init_args"] == {"store": "b.zarr", "batch_size": 16}
    assert after.tree["model"]["operator"]["init_args"]["shape"] == [1, 2]
    assert after.tree["model"]["schedule"] is None
    assert after.tree["trainer"]["callbacks"][0]["init_args"]["monitor"] == "x"
    assert after.tree["trainer"]["callbacks"][1] == {"class_path": "a.B"}
    assert after.where("trainer.max_steps") == "command line"
    assert after.where("trainer.precision").endswith("run.yaml:34")
    assert before.tree == read(before.path).tree  # the experiment itself is left as it was


def test_mistakes_in_overrides_are_told(tmp_path: Path) -> None:
    experiment = read(written(tmp_path, TEXT))
    for words, said in (
        (["--trainer.max_steps"], "--trainer.max_steps has no value"),
        (["--trainer.max_steps", "--seed_everything", "1"], "--trainer.max_steps has no value"),
        (["--trainr.max_steps", "3"], "did you mean '--trainer.max_steps'?"),
        (["--max_steps", "3"], "did you mean '--trainer.max_steps'?"),
        (["stray"], "'stray' belongs to no option"),
    ):
        with pytest.raises(UserError) as caught:
            apply_overrides(experiment, words)
        assert said in caught.value.render()
    (error,) = found(apply_overrides(experiment, ["--model.operator.widht", "3"]))
    assert error.where == "command line"
    assert error.hint == "did you mean 'width'?"


def test_the_arguments_of_a_replaced_class_are_left_to_jsonargparse(tmp_path: Path) -> None:
    experiment = read(written(tmp_path, TEXT))
    for words in (["--model.schedule", f"{HERE}.NextStep"], ["--model.operator.class_path", f"{HERE}.OpenEnded"]):
        assert not found(apply_overrides(experiment, words))
    (error,) = found(apply_overrides(experiment, ["--model.operator", f"{HERE}.Formr"]))
    assert "Former" in error.hint


# checking

CASES: dict[str, tuple[str, Any, str | None]] = {
    # what is changed, and part of what must be said about it (None: nothing)
    "unknown": ("model.operator.init_args.chanels", 1, "did you mean 'channels'? It is given too: "),
    "unknown below a list": ("model.objective.init_args.parts.0.init_args.horizn", 1, "did you mean 'horizon'?"),
    "unknown callback": ("trainer.callbacks.0.init_args.moniter", "x", "did you mean 'monitor'?"),
    "unknown in model": ("model.optimiser", 1, "Model has no argument 'optimiser'"),
    "unknown in trainer": ("trainer.max_step", 1, "did you mean 'max_steps'?"),
    "unknown in data": ("data.init_args.batchsize", 1, "did you mean 'batch_size'?"),
    "unknown of a callable": ("model.optimizer.init_args.lrr", 1, "did you mean 'lr'?"),
    "given by the program": ("model.optimizer.init_args.params", [], "has no argument 'params'"),
    "missing": ("model.operator.init_args.frames", ..., "Former needs frames expected: frames: an integer"),
    "missing object": ("model.objective", ..., "Model needs objective"),
    "missing data": ("data", ..., "the section 'data' is missing"),
    "class": ("model.operator.class_path", f"{HERE}.Fromer", f"did you mean '{HERE}.Former'?"),
    "package": ("model.operator.class_path", "nowhere.Former", "no package 'nowhere'"),
    "no class": ("model.operator.class_path", HERE, "no class"),
    "other kind": ("model.operator.class_path", f"{HERE}.NextStep", "NextStep is no Operator"),
    "abstract": ("model.operator.class_path", f"{HERE}.Operator", "Operator is abstract"),
    "class path": ("model.operator.class_path", 3, "got 3"),
    "no class path": ("model.operator.class_path", ..., "class_path: is missing"),
    "beside": ("model.operator.width", 3, "move it below model.operator.init_args"),
    "init_args": ("model.schedule.init_args", None, "got nothing"),
    "init_args list": ("model.schedule.init_args", [1], "got [1]"),
    "text for integer": ("model.operator.init_args.channels", "x", "got 'x' expected: an integer"),
    "float for integer": ("model.operator.init_args.channels", 2.5, "expected: an integer"),
    "whole float for integer": ("model.operator.init_args.channels", 2.0, "write 2"),
    "truth for integer": ("model.operator.init_args.channels", True, "got true"),
    "list for integer": ("model.operator.init_args.width", [1], "got [1]"),
    "nothing for integer": ("model.operator.init_args.channels", None, "has no value"),
    "nothing for default": ("model.operator.init_args.width", None, None),
    "number as text": ("model.operator.init_args.width", "2", None),
    "integer for float": ("model.operator.init_args.rate", 1, None),
    "text for float": ("model.operator.init_args.rate", "fast", "expected: a number"),
    "infinity": ("model.operator.init_args.rate", "inf", "write .inf"),
    "truth for float": ("model.operator.init_args.rate", True, "got true"),
    "null for float": ("model.operator.init_args.rate", None, None),
    "number for text": ("model.operator.init_args.label", 3, "quote it: '3'"),
    "truth for text": ("model.operator.init_args.label", False, "quote it: 'false'"),
    "integer for truth": ("model.operator.init_args.flag", 1, "expected: true or false"),
    "word for truth": ("model.operator.init_args.flag", "yes", None),
    "choice": ("model.operator.init_args.product", "paralel", "did you mean 'parallel'?"),
    "choice of trainer": ("trainer.precision", "bf16", "did you mean 'bf16-mixed'?"),
    "number for list": ("model.operator.init_args.shape", 4, "write [4]"),
    "text for list": ("model.operator.init_args.shape", "ab", "a list (of each: an integer)"),
    "list as text": ("model.operator.init_args.shape", "[1, 2]", None),
    "text in list": ("model.operator.init_args.shape", [1, "a"], "shape[1]: got 'a'"),
    "empty list": ("model.operator.init_args.shape", [], None),
    "mapping for list": ("model.operator.init_args.shape", {"a": 1}, "got a mapping (a)"),
    "tuple": ("model.operator.init_args.pair", [1, 2], None),
    "text in tuple": ("model.operator.init_args.pair", [1, "a"], "pair[1]: got 'a' expected: a number"),
    "long tuple": ("model.operator.init_args.pair", [1, 2, 3], "expected: [an integer, a number]"),
    "mapping": ("model.operator.init_args.weights", {"a": 1.0}, None),
    "text in mapping": ("model.operator.init_args.weights", {"a": "b"}, "weights.a: got 'b'"),
    "list for mapping": ("model.operator.init_args.weights", [1], "expected: a mapping"),
    "either list": ("model.operator.init_args.either", ["a"], None),
    "neither list": ("model.operator.init_args.either", [[1]], "either[0]: got [1]"),
    "anything": ("model.operator.init_args.anything", {"a": [1, "b"]}, None),
    "class path in a mapping": ("model.operator.init_args.weights", {"class_path": 1.0}, None),
    "member": ("model.operator.init_args.kinds", ["WALL"], None),
    "no member": ("model.operator.init_args.kinds", ["WAL"], "did you mean 'WALL'?"),
    "nested": ("model.operator.init_args.inner", {"class_path": f"{HERE}.OpenEnded"}, None),
    "number for object": ("model.operator.init_args.inner", 3, "class_path and init_args of Operator"),
    "object as word": ("model.objective", f"{HERE}.NextStep", "NextStep needs horizon"),
    "objects as word": ("model.schedule", f"{HERE}.Schedule", None),
    "bare class name": ("model.operator.class_path", "Former", None),
    "wrong bare class name": ("model.operator.class_path", "Fromer", "no class 'Fromer'"),
    "any other argument": (
        "model.operator.init_args.inner",
        {"class_path": f"{HERE}.OpenEnded", "init_args": {"depth": 2}},
        None,
    ),
    "one callback": ("trainer.callbacks", {"class_path": f"{HERE}.Saver"}, None),
    "callback as word": ("trainer.callbacks", [f"{HERE}.Saver"], None),
    "no callback": ("trainer.callbacks.0.class_path", f"{HERE}.Schedule", "Schedule is no Callback"),
    "truth for objects": ("trainer.logger", False, None),
    "seed": ("seed_everything", "a", "expected: true or false or an integer"),
    "model": ("model", 3, "got 3"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_is_said_with_its_line_and_nothing_else(tmp_path: Path, name: str) -> None:
    key, value, said = CASES[name]
    experiment = read(written(tmp_path, changed(key, value)))
    errors = found(experiment)
    if said is None:
        assert [error.what for error in errors] == []
        return
    (error,) = errors
    assert said in " ".join(error.render(400).split())
    text = error.render(80)
    assert len(text.splitlines()) <= LINES
    assert key.partition(".")[0] in text
    row = (
        experiment.path.read_text().splitlines()[int(error.where.rpartition(":")[2]) - 1] if ":" in error.where else ""
    )
    if name.startswith(("unknown", "text for", "number for", "float", "truth", "list for", "infinity", "long")):
        assert row.strip().startswith(f"{key.rpartition('.')[2]}:")


def theirs(path: Path) -> str | None:
    """What jsonargparse says of an experiment."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_argument("--seed_everything", type=bool | int)
    parser.add_class_arguments(Model, "model")
    parser.add_subclass_arguments(Data, "data", required=True)
    parser.add_class_arguments(Trainer, "trainer")
    try:
        parser.parse_args(["--config", str(path)])
    except ArgumentError as error:
        return str(error)
    except TypeError as error:  # of a section that is no mapping
        return str(error)
    return None


@pytest.mark.parametrize("name", CASES)
def test_jsonargparse_refuses_the_same(tmp_path: Path, name: str) -> None:
    key, value, said = CASES[name]
    path = written(tmp_path, changed(key, value))
    told = theirs(path)
    assert (told is None) == (said is None), told
    if told is None:
        return
    # Its message, translated, is one screen, and names the section and the line of the key, or one just above it.
    translated = translate(told, read(path))
    text = translated.render(80)
    assert len(text.splitlines()) <= LINES
    assert "Traceback" not in text
    assert translated.where.startswith(str(path))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("model.operator.init_args.chanels", 1, "init_args.chanels: Former has no argument 'chanels'"),
        ("model.operator.init_args.chanels", 1, "did you mean 'channels'?"),
        ("trainer.callbacks.0.init_args.moniter", 1, "trainer.callbacks[0].init_args.moniter: Saver has no"),
        ("model.optimizer.init_args.lrr", 1, "did you mean 'lr'?"),
        ("model.operator.init_args.frames", ..., "model.operator: Former needs frames"),
        ("model.operator.class_path", f"{HERE}.Fromer", f"did you mean '{HERE}.Former'?"),
        ("model.operator.init_args.width", "a", "init_args.width: got a expected: an integer"),
        ("trainer.precision", "bf16", "expected: one of 32-true, bf16-mixed or null"),
    ],
)
def test_the_words_of_jsonargparse_are_translated(tmp_path: Path, key: str, value: Any, said: str) -> None:
    path = written(tmp_path, changed(key, value))
    told = theirs(path)
    assert told is not None
    translated = translate(told, read(path))
    assert said in " ".join(translated.render(400).split())
    last = key.rpartition(".")[2]
    row = path.read_text().splitlines()[int(translated.where.rpartition(":")[2]) - 1]
    assert value is ... or last in row


def test_what_no_one_has_seen_is_translated_too(tmp_path: Path) -> None:
    experiment = read(written(tmp_path, TEXT))
    for text in ("", "something else", 'Parser key "x.y":\n  Odd', "a" * 5000):
        assert len(translate(text, experiment).render(80).splitlines()) <= LINES


KEYS = [(number, row.strip().removeprefix("- ").partition(":")[0]) for number, row in enumerate(TEXT.splitlines())]
LETTERS = "abcdefghijklmnopqrstuvwxyz_"


@st.composite
def misspelt(draw: st.DrawFn) -> tuple[int, str, str]:
    """A line of the good experiment, its key, and the key with one mistake of the fingers."""
    line, key = draw(st.sampled_from(KEYS))
    place = draw(st.integers(0, len(key) - 1))
    letter = draw(st.sampled_from(LETTERS))
    mistake = draw(st.sampled_from(["forgotten", "added", "other", "swapped", "hyphen", "capital"]))
    before, here, after = key[:place], key[place], key[place + 1 :]
    wrong = {
        "forgotten": before + after,
        "added": before + letter + here + after,
        "other": before + letter + after,
        "swapped": before + after[:1] + here + after[1:],
        "hyphen": key.replace("_", "-"),
        "capital": key.upper(),
    }[mistake]
    return line, key, wrong


@settings(deadline=None)  # the machine may be busy
@given(misspelt())
def test_a_misspelt_key_is_always_found_in_its_line_with_the_right_name(
    tmp_path_factory: pytest.TempPathFactory, mistake: tuple[int, str, str]
) -> None:
    line, key, wrong = mistake
    rows = TEXT.splitlines()
    assume(wrong not in ("", key))
    rows[line] = rows[line].replace(f"{key}:", f"{wrong}:", 1)
    experiment = read(written(tmp_path_factory.getbasetemp(), "\n".join(rows)))
    with pytest.raises(UserError) as caught:
        check(experiment, model=Model, data=Data, trainer=Trainer)
    assert len(caught.value.render(80).splitlines()) <= LINES
    text = " ".join(caught.value.render(80).split())
    assert f"run.yaml:{line + 1}: " in text
    assert f"did you mean '{key}'?" in text
    assert repr(wrong) in text or f".{wrong}: " in text
    assert "more" not in caught.value.hint  # one slip is one finding


def test_several_mistakes_are_counted_and_the_first_is_told(tmp_path: Path) -> None:
    text = TEXT.replace("channels: 1", "channels: x").replace("decay", "decai").replace("monitor", "moniter")
    with pytest.raises(UserError) as caught:
        check(read(written(tmp_path, text)), model=Model, data=Data, trainer=Trainer)
    assert caught.value.where.endswith(":6")
    assert caught.value.hint == "and 2 more: line 22, line 39"


def test_what_the_program_fills_in_may_be_missing(tmp_path: Path) -> None:
    experiment = read(written(tmp_path, changed("model.operator.init_args.frames", ...)))
    kinds = {"model": Model, "data": Data, "trainer": Trainer}
    assert list(findings(experiment, supplied=["model.operator.init_args.frames"], **kinds)) == []
    assert len(list(findings(experiment, **kinds))) == 1


def test_the_error_of_a_constructor_gets_the_line_of_its_argument(tmp_path: Path) -> None:
    experiment = read(written(tmp_path, TEXT))
    located = locate(ValueError("warmup: got 3, expected a number below 1."), experiment)
    assert located is not None
    assert located.where.endswith(":26")
    assert locate(ValueError("something is wrong"), experiment) is None
    assert locate(ValueError("class_path: of which object?"), experiment) is None


def test_signatures() -> None:
    # __new__ of the base class takes anything and must not hide the constructor.
    known, open_ended = parameters(Former)
    assert "channels" in known
    assert known["channels"].required
    assert not known["width"].required
    assert not open_ended
    assert parameters(OpenEnded)[1]
    assert list(parameters(Optimizer, 1)[0]) == ["lr", "decay"]
    assert parameters(Callback) == ({}, False)


def test_a_class_whose_module_fails_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_by_design.py").write_text("import a_package_that_no_one_has\n")
    (tmp_path / "failing_by_design.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="pip install a_package_that_no_one_has"):
        resolve("broken_by_design.Operator")
    with pytest.raises(UserError, match="ZeroDivisionError"):
        resolve("failing_by_design.Operator")


def test_the_real_trainer_and_model_are_checked(tmp_path: Path) -> None:
    text = """\
model:
  operator: {class_path: physml.operators.FactFormr, init_args: {channels: 1}}
  normaliser: {class_path: physml.normalise.Increments}
  objective: {class_path: physml.objectives.NextStep, init_args: {frames: 1}}
  optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 1.0e-3, weight_decai: 0.1}}
data: {class_path: physml.datasets.TrajectoryData, init_args: {store: x, shape: [8, 8]}}
trainer: {max_step: 10, precision: bf16-mixed, gradient_clip_val: 1.0, callbacks: []}
"""
    errors = list(findings(read(written(tmp_path, text))))
    hints = [error.hint for error in errors]
    assert hints == [
        "did you mean 'physml.operators.FactFormer'?",
        "did you mean 'weight_decay'?",
        "did you mean 'max_steps'?",
    ]
    assert [int(error.where.rpartition(":")[2]) for error in errors] == [2, 5, 7]
