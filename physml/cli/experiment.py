"""Read an experiment, remember which line every key came from, and check it against the constructors it names.

An experiment is one YAML file that describes one complete run: ``seed_everything``, ``model``, ``data``, ``trainer``;
class paths and constructor arguments only. :func:`read`, :func:`apply_overrides` and :func:`outline` need no torch;
:func:`findings` imports the classes that the file names and compares the file with their signatures.

What is refused here is refused by jsonargparse too, which has the last word and whose text :func:`translate` puts into
the same form. A value of which it is uncertain whether it is valid passes.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import importlib
import inspect
import re
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from physml.cli import hints
from physml.cli.class_paths import resolve, subclasses
from physml.cli.errors import UserError, did_you_mean, missing, nearest

SECTIONS = ("seed_everything", "model", "data", "trainer")
"""Top-level keys of an experiment."""

_OBJECT = ("class_path", "init_args", "dict_kwargs")
COMMAND_LINE = "command line"
"""Where an override comes from."""

_NO_LINE = 0


@dataclass(frozen=True)
class Experiment:
    """A run as it was written down.

    Args:
        path: the YAML file, as the user named it.
        tree: its contents, with the overrides of the command line.
        lines: the line of every dotted key, such as ``trainer.callbacks[0].init_args.monitor``.
        replaced: objects whose class was replaced from the command line; which of their arguments survive is for
            jsonargparse to decide.
    """

    path: Path
    tree: dict[str, Any]
    lines: Mapping[str, int] = field(default_factory=dict)
    replaced: frozenset[str] = frozenset()

    def where(self, key: str) -> str:
        """``file:line`` of a key, or of the object that lacks it; ``command line`` for an override."""
        while key and key not in self.lines:
            key = re.sub(r"(^|\.)[^.\[\]]*$|\[\d+\]$", "", key)
        line = self.lines.get(key, 1)
        return COMMAND_LINE if line == _NO_LINE else f"{self.path}:{line}"


# -------------------------------------------------------------------------------------------------------------- reading


@cache
def _loader() -> type[yaml.SafeLoader]:
    """YAML as jsonargparse reads it: ``1e-3`` is a number and ``2024-01-01`` a string."""

    class Loader(yaml.SafeLoader):
        pass

    Loader.yaml_implicit_resolvers = {
        first: [(tag, shape) for tag, shape in resolvers if not tag.endswith((":float", ":timestamp"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    digits = "[0-9][0-9_]*"
    number = (
        rf"[-+]?{digits}\.[0-9_]*([eE][-+]?[0-9]+)?|[-+]?{digits}[eE][-+]?[0-9]+|\.[0-9_]+([eE][-+][0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
    )
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"^(?:{number})$"), list("-+0123456789."))
    return Loader


def read(path: str | Path) -> Experiment:
    """Read the YAML of an experiment.

    Raises:
        UserError: where the file is missing, is no YAML, or says a thing twice; with the line.
    """
    path = Path(path)
    if path.is_dir():
        found = sorted(item.name for item in path.glob("*.y*ml"))
        raise UserError(f"{path} is a folder", expected=f"a YAML file{': ' + ', '.join(found) if found else ''}")
    if not path.exists():
        raise missing(path, "experiment")
    try:
        text = path.read_text(encoding="utf-8-sig")
        loader = _loader()(text)
        node = loader.get_single_node()
    except UnicodeDecodeError:
        raise UserError("not a text file", where=str(path), expected="YAML in UTF-8") from None
    except yaml.MarkedYAMLError as error:
        raise _syntax(error, path, text) from error
    except yaml.YAMLError as error:  # a character that no text holds
        raise UserError(" ".join(str(error).split()), where=str(path), expected="YAML in UTF-8") from error
    if not isinstance(node, yaml.MappingNode):
        got = "an empty file" if node is None else "a list" if isinstance(node, yaml.SequenceNode) else "a word"
        raise UserError(f"got {got}", where=f"{path}:1", expected=f"the sections {', '.join(SECTIONS)}")
    lines: dict[str, int] = {}
    tree = _build(node, "", lines, loader, path, ())
    return Experiment(path, tree, lines)


def _syntax(error: yaml.MarkedYAMLError, path: Path, text: str) -> UserError:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else 1
    rows = text.splitlines()
    row = rows[line - 1] if line <= len(rows) else ""
    tabs = [number for number, content in enumerate(rows, 1) if "\t" in content[: len(content) - len(content.lstrip())]]
    problem = str(error.problem or error.context)
    hint = ""
    if "\\t" in problem or (tabs and tabs[0] <= line):
        line = tabs[0] if tabs else line
        return UserError("a tab in the indentation", where=f"{path}:{line}", expected="spaces, two for each level")
    if "mapping values are not allowed" in problem:
        hint = "the line above has a value already, or this line is indented too far; quote a text that holds ': '"
    elif "expected <block end>" in problem or "could not find expected ':'" in problem:
        hint = "check the indentation of this line and of the one above, and the ':' after each key"
    elif "flow" in str(error.context) or "expected ',' or" in problem:
        opened = f" opened in line {error.context_mark.line + 1}" if error.context_mark else ""
        hint = f"a bracket{opened} is not closed, or a comma is missing"
    elif "single document" in str(error.context):
        hint = "one file is one run: split it at the '---'"
    elif "undefined alias" in problem:
        hint = "a value that starts with '*' must be quoted"
    return UserError(f"no valid YAML: {problem}; got {row.strip()[:60]!r}", where=f"{path}:{line}", hint=hint)


def _build(
    node: yaml.Node, key: str, lines: dict[str, int], loader: yaml.SafeLoader, path: Path, above: tuple[yaml.Node, ...]
) -> Any:
    """The value of a node; its line, and those of all below it, go into ``lines``."""
    here = f"{path}:{node.start_mark.line + 1}"
    if node in above:
        raise UserError(f"{key} contains itself", where=here, expected="an alias ('*name') of something else")
    if isinstance(node, yaml.SequenceNode):
        made: list[Any] = []
        for index, item in enumerate(node.value):
            lines[f"{key}[{index}]"] = item.start_mark.line + 1
            made.append(_build(item, f"{key}[{index}]", lines, loader, path, (*above, node)))
        return made
    try:
        if not isinstance(node, yaml.MappingNode):
            return loader.construct_object(node)
        seen: dict[str, int] = {}
        for name, _ in node.value:
            line = name.start_mark.line + 1
            if not isinstance(name, yaml.ScalarNode):
                raise UserError("a key that is no word", where=f"{path}:{line}", expected="key: value")
            if name.value in seen:
                raise UserError(
                    f"{_join(key, name.value)} is given twice",
                    where=f"{path}:{line}",
                    expected=f"each key once; the first is in line {seen[name.value]}",
                )
            seen[name.value] = line
        loader.flatten_mapping(node)
    except yaml.MarkedYAMLError as error:
        problem = f"{key}: {error.problem}" if key else str(error.problem)
        raise UserError(problem, where=here, expected="plain values: numbers, words, lists, mappings") from error
    tree: dict[str, Any] = {}
    for name, value in node.value:  # what a merge ('<<') brings comes first, and is overruled by the rest
        below = _join(key, name.value)
        for old in [old for old in lines if old == below or old.startswith((f"{below}.", f"{below}["))]:
            del lines[old]
        lines[below] = name.start_mark.line + 1
        tree[name.value] = _build(value, below, lines, loader, path, (*above, node))
    return tree


def _join(key: str, name: object) -> str:
    return f"{key}.{name}" if key else str(name)


def parse(text: str) -> Any:
    """The value that a word of the command line stands for; the text itself where it is no YAML."""
    try:
        return yaml.load(text, Loader=_loader())
    except yaml.YAMLError:
        return text


# ------------------------------------------------------------------------------------------------------------ overrides


def pairs(overrides: Sequence[str]) -> Iterator[tuple[str, str]]:
    """``--key value`` and ``--key=value`` as pairs of dotted key and text.

    Raises:
        UserError: where a value is missing, or a word belongs to no key.
    """
    words = iter(overrides)
    for word in words:
        if not word.startswith("--"):
            raise UserError(f"{word!r} belongs to no option", where=COMMAND_LINE, expected="--section.key value")
        name, equals, value = word[2:].partition("=")
        if not equals:
            following = next(words, None)
            if following is None or following.startswith("--"):
                raise UserError(f"--{name} has no value", where=COMMAND_LINE, expected=f"--{name} VALUE")
            value = following
        yield name, value


def apply_overrides(experiment: Experiment, overrides: Sequence[str]) -> Experiment:
    """The experiment with the options of the command line put in.

    As in jsonargparse, ``init_args`` may be left out of a key (``--data.batch_size 4``), and ``--key+`` appends to a
    list.

    Raises:
        UserError: where an option has no value or starts with no section of an experiment.
    """
    tree, lines, replaced = copy.deepcopy(experiment.tree), dict(experiment.lines), set(experiment.replaced)
    for name, text in pairs(overrides):
        parts = name.removesuffix("+").split(".")
        if parts[0] not in SECTIONS:
            below = next((key for key in lines if key.endswith(f".{parts[0]}")), None)
            right = below or nearest(parts[0], SECTIONS)
            hint = f"did you mean '--{'.'.join([right, *parts[1:]])}'?" if right else ""
            raise UserError(
                f"no option --{name}",
                where=COMMAND_LINE,
                expected=f"--KEY.OF.THE.YAML value ({', '.join(SECTIONS)})",
                hint=hint,
            )
        node: Any = tree
        key = ""
        for index, part in enumerate(parts):
            if isinstance(node, list):  # the last item of a list, as jsonargparse has it
                if not node:
                    break
                key, node = f"{key}[{len(node) - 1}]", node[-1]
            if isinstance(node, dict) and "class_path" in node and part not in _OBJECT:
                key, node = _join(key, "init_args"), _child(node, "init_args")
            if not isinstance(node, dict):
                break
            key = _join(key, part)
            if index < len(parts) - 1:
                if not isinstance(node.get(part), list):
                    _child(node, part)
                node = node[part]
                lines.setdefault(key, _NO_LINE)
                continue
            value = parse(text)
            if name.endswith("+"):
                value = [*(node.get(part) or []), *(value if isinstance(value, list) else [value])]
            if part == "class_path":
                replaced.add(key.removesuffix(".class_path"))
            elif isinstance(value, str) and isinstance(node.get(part), dict) and "class_path" in node[part]:
                replaced.add(key)
                value = {"class_path": value}
            node[part] = value
            lines = {old: line for old, line in lines.items() if not old.startswith((f"{key}.", f"{key}["))}
            lines[key] = _NO_LINE
    return replace(experiment, tree=tree, lines=lines, replaced=frozenset(replaced))


def _child(node: dict[str, Any], name: str) -> dict[str, Any]:
    """The mapping below a key: made where there is none, and an object where only its class path is given."""
    found = node.get(name)
    if not isinstance(found, dict):
        found = {"class_path": found} if isinstance(found, str) and "." in found else {}
        node[name] = found
    return found


# ------------------------------------------------------------------------------------------------------------- checking


def outline(experiment: Experiment) -> Iterator[UserError]:
    """What is wrong with the top level; needs no import."""
    tree = experiment.tree
    unknown = [name for name in tree if name not in SECTIONS]
    for name in unknown:
        inside = [s for s in ("model", "trainer") if isinstance(tree.get(s), dict) and nearest(name, SECTIONS) is None]
        hint = did_you_mean(name, SECTIONS) or (f"does it belong below {' or '.join(inside)}?" if inside else "")
        yield UserError(
            f"unknown section {name!r}",
            where=experiment.where(name),
            expected=f"one of {', '.join(SECTIONS)}",
            hint=hint,
        )
    meant = {nearest(name, SECTIONS) for name in unknown}
    for name in ("model", "data"):
        if name not in tree and name not in meant:
            yield UserError(
                f"the section {name!r} is missing", where=str(experiment.path), expected=", ".join(SECTIONS)
            )
    for name in ("model", "data", "trainer"):
        if name in tree and not isinstance(tree[name], dict) and not (name == "trainer" and tree[name] is None):
            yield UserError(
                f"{name}: got {_show(tree[name])}",
                where=experiment.where(name),
                expected=f"the keys of {name}, indented below it",
            )


def findings(
    experiment: Experiment,
    *,
    model: Callable[..., Any] | None = None,
    data: type | None = None,
    trainer: Callable[..., Any] | None = None,
    supplied: Collection[str] = (),
) -> Iterator[UserError]:
    """Everything that is certainly wrong with an experiment.

    Args:
        experiment: as read, with its overrides.
        model: whose arguments the section ``model`` holds; ``physml.training.Training`` if not given.
        data: what the section ``data`` must be; ``lightning.pytorch.LightningDataModule`` if not given.
        trainer: whose arguments the section ``trainer`` holds; ``lightning.pytorch.Trainer`` if not given.
        supplied: dotted keys that the program fills in itself, and which may therefore be missing.
    """
    found = list(outline(experiment))
    yield from found
    if found:
        return
    walk, tree = _Walk(experiment, frozenset(supplied)), experiment.tree
    yield from walk.value("seed_everything", tree.get("seed_everything"), bool | int)
    yield from walk.call("model", tree["model"], model or importlib.import_module("physml.training").Training)
    lightning = "lightning.pytorch"
    yield from walk.value("data", tree["data"], data or importlib.import_module(lightning).LightningDataModule)
    yield from walk.call("trainer", tree.get("trainer") or {}, trainer or importlib.import_module(lightning).Trainer)


def check(experiment: Experiment, **kinds: Any) -> None:
    """Raise the first of the :func:`findings`, which take the same arguments, naming the lines of the others.

    Raises:
        UserError: where there is one.
    """

    def line(error: UserError) -> int:
        number = error.where.rpartition(":")[2]
        return int(number) if number.isdigit() else 0

    found = sorted(findings(experiment, **kinds), key=line)
    if not found:
        return
    first, others = found[0], found[1:]
    hint = first.hint
    if others:
        places = dict.fromkeys(other.where.removeprefix(f"{experiment.path}:") for other in others)
        listed = ", ".join(f"line {place}" if place.isdigit() else place for place in list(places)[:4])
        hint = f"{hint} And {len(others)} more: {listed}" if hint else f"and {len(others)} more: {listed}"
    raise UserError(first.what, where=first.where, expected=first.expected, hint=hint)


def locate(error: ValueError, experiment: Experiment) -> UserError | None:
    """The error of a constructor, which begins with the name of an argument, with the line that holds this argument.

    ``None`` where it names none, or one that the experiment has in several places.
    """
    text = " ".join(str(error).split())
    name = re.match(r"([A-Za-z_][\w.]*): ", text)
    keys = [key for key in experiment.lines if name and (key == name[1] or key.endswith(f".{name[1]}"))]
    return UserError(text, where=experiment.where(keys[0])) if len(keys) == 1 else None


@dataclass(frozen=True)
class Parameter:
    """One argument of a constructor: its name, annotation (``Any`` where unknown) and whether it must be given."""

    name: str
    hint: Any
    required: bool


def parameters(made: Callable[..., Any], given: int = 0) -> tuple[dict[str, Parameter], bool]:
    """The arguments that ``made`` takes by name after the first ``given``, and whether it takes any other name too."""
    function: Any = made
    if isinstance(made, type):
        # Not the signature of the class: Python may take that from a __new__ that takes anything.
        function = made.__init__ if made.__init__ is not object.__init__ else made.__new__  # type: ignore[misc]
        if function is object.__new__:
            return {}, False
        given += 1  # the object itself
    try:
        listed = list(inspect.signature(function).parameters.values())
        annotated = typing.get_type_hints(function)
    except (TypeError, ValueError):  # written in another language
        return {}, True
    except NameError:  # an annotation that is imported for type checkers only
        annotated = {}
    named = [p for p in listed[given:] if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    found = {p.name: Parameter(p.name, annotated.get(p.name, Any), p.default is p.empty) for p in named}
    return found, any(p.kind is p.VAR_KEYWORD for p in listed)


class _Walk:
    """Compares the values below a key with annotations; every method yields what it finds."""

    def __init__(self, experiment: Experiment, supplied: frozenset[str]) -> None:
        self.experiment, self.supplied = experiment, supplied

    def error(self, key: str, what: str, expected: str = "", hint: str = "") -> UserError:
        return UserError(f"{key}: {what}", where=self.experiment.where(key), expected=expected, hint=hint)

    def call(
        self, key: str, arguments: Mapping[str, Any], made: Callable[..., Any], given: int = 0, lenient: bool = False
    ) -> Iterator[UserError]:
        """The arguments of one constructor; ``lenient`` where it is unknown which of them are filled in elsewhere."""
        known, open_ended = parameters(made, given)
        name = getattr(made, "__name__", str(made))
        unknown = [] if open_ended else [argument for argument in arguments if argument not in known]
        for argument, value in arguments.items():
            below = _join(key, argument)
            if argument in unknown:
                near = nearest(argument, known)
                hint = f"did you mean {near!r}?" if near else ""
                if near in arguments and self.experiment.where(below) != COMMAND_LINE:
                    hint += f" It is given too: {self.experiment.where(_join(key, near))}"
                expected = f"one of {', '.join(known)}" if known else "no argument"
                yield self.error(below, f"{name} has no argument {argument!r}", expected, hint)
            elif argument in known:
                wanted = known[argument]
                if value is None and wanted.required and not hints.accepts_none(wanted.hint):
                    yield self.error(below, "has no value", hints.describe(wanted.hint))
                else:
                    yield from self.value(below, value, wanted.hint)
        meant = {nearest(argument, known) for argument in unknown}
        absent = [
            parameter
            for parameter in known.values()
            if parameter.required
            and parameter.name not in (*arguments, *meant)
            and _join(key, parameter.name) not in self.supplied
        ]
        if absent and not lenient:
            kinds = ", ".join(f"{parameter.name}: {hints.describe(parameter.hint)}" for parameter in absent)
            yield self.error(key, f"{name} needs {', '.join(parameter.name for parameter in absent)}", kinds)

    def value(self, key: str, value: Any, hint: Any) -> Iterator[UserError]:
        """A value against an annotation."""
        arms = hints.arms(hint)
        if isinstance(value, Mapping):
            yield from self.mapping(key, value, arms)
        elif isinstance(value, str) and re.fullmatch(r"[A-Za-z_]\w*(\.\w+)+", value) and hints.only_objects(arms):
            yield from self.object(key, {"class_path": value}, arms)
        elif isinstance(value, list) and (each := hints.items(value, arms)) is not None:
            for index, (item, inner) in enumerate(zip(value, each, strict=True)):
                yield from self.value(f"{key}[{index}]", item, inner)
        elif not hints.fits(value, hint, parse):
            yield self.error(key, f"got {_show(value)}", hints.describe(hint), hints.remedy(value, hint))

    def mapping(self, key: str, value: Mapping[str, Any], arms: Sequence[Any]) -> Iterator[UserError]:
        """A mapping is an object, the fields of a data class, or a dictionary."""
        maps = [arm for arm in arms if hints.is_mapping(arm)]
        classes = [arm for arm in arms if isinstance(arm, type) and hints.is_class(arm)]
        if "class_path" in value and not (maps and not classes):
            yield from self.object(key, value, arms)
        elif len(classes) == 1 and dataclasses.is_dataclass(classes[0]):
            yield from self.call(key, value, classes[0])
        elif hints.only_objects(arms) or ("init_args" in value and not maps):
            arguments = (value.get("init_args") or {}) if set(value) <= set(_OBJECT) else value
            if not any(set(arguments) <= set(parameters(c)[0]) for c in classes if not inspect.isabstract(c)):
                yield from self.object(key, value, arms)
        elif maps:
            inner = [(*typing.get_args(arm), Any, Any)[1] for arm in maps] if not hints.unsure(arms) else Any
            for name, item in value.items():
                yield from self.value(_join(key, name), item, inner)
        elif not hints.fits(value, arms, parse):
            yield self.error(key, f"got {_show(value)}", hints.describe(arms))

    def object(self, key: str, value: Mapping[str, Any], arms: Sequence[Any]) -> Iterator[UserError]:
        """A class path with its arguments."""
        beside = [str(name) for name in value if name not in _OBJECT]
        meant = {nearest(name, _OBJECT) for name in beside}
        path, made = value.get("class_path"), None
        bases = tuple(arm for arm in arms if isinstance(arm, type) and hints.is_class(arm))
        if isinstance(path, str):
            try:
                made = resolve(path, bases)
            except UserError as error:
                yield self.error(_join(key, "class_path"), error.what, error.expected, error.hint)
        elif "class_path" in value or "class_path" not in meant:
            got = f"got {_show(path)}" if "class_path" in value else "is missing"
            yield self.error(_join(key, "class_path"), got, "the dotted path of a class: package.module.Class")
        known = parameters(made)[0] if made is not None else {}
        for name in beside if "class_path" in value or "class_path" in meant else ():
            hint = did_you_mean(name, [wanted for wanted in _OBJECT if wanted not in value])
            if name in known:
                hint = f"move it below {_join(key, 'init_args')}"
            yield self.error(_join(key, name), "unknown key of an object", "class_path, init_args", hint)
        arguments = value.get("init_args", {})
        if not isinstance(arguments, Mapping):
            yield self.error(_join(key, "init_args"), f"got {_show(arguments)}", "argument: value, indented below it")
        elif made is not None and key not in self.experiment.replaced and "init_args" not in meant:
            yield from self.arguments(key, path, arguments, made, arms, "dict_kwargs" in value)

    def arguments(
        self, key: str, path: Any, arguments: Mapping[str, Any], made: Any, arms: Sequence[Any], lenient: bool
    ) -> Iterator[UserError]:
        """Whether the class is of the kind that is wanted, and then its arguments."""
        bases = tuple(arm for arm in arms if isinstance(arm, type) and hints.is_class(arm))
        callables = [arm for arm in arms if hints.is_callable(arm)]
        if isinstance(made, type) and bases and not hints.unsure(arms) and not issubclass(made, bases):
            wanted = " or ".join(base.__name__ for base in bases)
            expected = f"one of {', '.join(subclasses(bases))}" if subclasses(bases) else f"a subclass of {wanted}"
            yield self.error(
                _join(key, "class_path"),
                f"{made.__name__} is no {wanted}",
                expected,
                did_you_mean(path, subclasses(bases)),
            )
            return
        if inspect.isabstract(made):
            choices = subclasses((made,))
            expected = f"one of {', '.join(choices)}" if choices else f"a subclass of {made.__name__}"
            yield self.error(_join(key, "class_path"), f"{made.__name__} is abstract", expected)
            return
        given = 0
        if callables:  # what is called later brings its first arguments itself, as an optimiser its weights
            listed = (*typing.get_args(callables[0]), ...)[0]
            given, lenient = (len(listed), lenient) if isinstance(listed, list) else (0, True)
        yield from self.call(_join(key, "init_args"), arguments, made, given, lenient or not (bases or callables))


def _show(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a mapping ({', '.join(map(str, value))})" if value else "an empty mapping"
    if value is None:
        return "nothing"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


# ------------------------------------------------------------------------------------------------- jsonargparse's words


def translate(text: str, experiment: Experiment) -> UserError:
    """An error message of jsonargparse in the form of this package: with file, line, dotted key and nearest name."""
    base = path = ""
    for key, named in re.findall(r"Parser key \"([^\"]+)\"|given class_path '([^']+)'", text):
        if key:  # of an inner parser, which knows only the last part of it
            base = key if not base or key.startswith(f"{base}.") else _deepest(base, key, experiment)
        path = named or path

    def told(key: str, what: str, expected: str = "", hint: str = "") -> UserError:
        return UserError(f"{key}: {what}" if key else what, where=experiment.where(key), expected=expected, hint=hint)

    if match := re.search(r"Group '([^']+)' does not accept option '([^']+)'|Option '([^']+)' is not accepted", text):
        base, argument = match[1] or base, match[2] or match[3]
        path = path or _class_path(base, experiment)
        options = list[str]()
        with contextlib.suppress(UserError):
            options = list(parameters(resolve(path))[0]) if path else []
        name = path.rpartition(".")[2] or base or "an experiment"
        expected = f"one of {', '.join(options)}" if options else ""
        what = f"{name} has no argument {argument!r}"
        return told(_deepest(base, argument, experiment), what, expected, did_you_mean(argument, options))
    if match := re.search(r"arguments are required: ([\w., ]+)", text):
        subject = path.rpartition(".")[2] or "the experiment"
        return told(base, f"{subject} needs {match[1].strip(' .,')}")
    if match := re.search(r"module '([\w.]+)' has no attribute '(\w+)'|No module named '([\w.]+)'", text):
        below = [key for key in experiment.lines if key.startswith(base) and key.endswith("class_path")]
        try:
            resolve(path or ".".join(filter(None, match.groups())))
        except UserError as error:
            return told(min(below, key=len, default=base), error.what, error.expected, error.hint)
    if match := re.search(r"(?:Got value|Given value): ([^\n]*)", text):
        got = match[1].strip()
        return told(base, f"got {got if len(got) <= 60 else f'{got[:57]}…'}", _expected(text))
    return told(base, _first_complaint(text))


def _deepest(base: str, name: str, experiment: Experiment) -> str:
    """The first key of the file below ``base`` that ends with ``name``."""
    below = [key for key in experiment.lines if key.startswith(base) and (key == name or key.endswith(f".{name}"))]
    return min(below, key=len) if below else _join(base, name)


def _class_path(key: str, experiment: Experiment) -> str:
    """The class path of the object at a key; empty where there is none."""
    node: Any = experiment.tree
    for name in key.split(".") if key else ():
        node = node.get(name) if isinstance(node, Mapping) else None
    path = node.get("class_path") if isinstance(node, Mapping) else None
    return path if isinstance(path, str) else ""


def _first_complaint(text: str) -> str:
    lines = [line.strip(" -") for line in text.splitlines()]
    said = [line for line in lines if line and not line.endswith(":") and not line.startswith("Does not validate")]
    return said[0] if said else " ".join(text.split())


def _expected(text: str) -> str:
    """The annotations that a message names, in words."""
    if match := re.search(r"Subtypes: \[(.*)\]\n", text):
        found = re.findall(r"typing\.Literal\[([^\]]*)\]|(?:<class ')?([\w.]+)", match[1])
    else:
        found = re.findall(r"Expected an? (?:typing\.Literal\[([^\]]*)\]|<class '([\w.]+)'>)", text)[:1]
    choices = ", ".join(
        dict.fromkeys(choice.strip("' ") for literal, _ in found for choice in literal.split(",") if literal)
    )
    plain = {kind.__name__: word for kind, word in hints.PLAIN.items()} | {"Sequence": "a list", "list": "a list"}
    names = (name.rpartition(".")[2] for _, name in found if name and name != "class")
    words = [f"one of {choices}"] if choices else []
    return " or ".join(dict.fromkeys([*words, *(plain.get(name, name) for name in names)]))
