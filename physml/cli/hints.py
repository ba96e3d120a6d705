"""Type annotations of constructors: whether a value of a YAML file may be meant by one, and how to say it in words.

Mirrors what jsonargparse accepts; an annotation that is not understood accepts everything.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from physml.cli.errors import did_you_mean

PLAIN: dict[Any, str] = {
    int: "an integer",
    float: "a number",
    str: "a text",
    bool: "true or false",
    Path: "a path",
    type(None): "null",
}
_LISTS = (
    list,
    tuple,
    set,
    frozenset,
    collections.abc.Sequence,
    collections.abc.Iterable,
    collections.abc.Collection,
    collections.abc.Set,
)
_MAPS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)


def arms(hint: Any) -> list[Any]:
    """The alternatives of an annotation, or of a list of them."""
    if isinstance(hint, list):
        return [arm for part in hint for arm in arms(part)]
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return arms(list(typing.get_args(hint)))
    if typing.get_origin(hint) is typing.Annotated:
        return arms(typing.get_args(hint)[0])
    return [type(None) if hint is None else hint]


def _kind(arm: Any) -> Any:
    return typing.get_origin(arm) or arm


def is_callable(arm: Any) -> bool:
    """Whether the value is called later, by the object that is given it."""
    return _kind(arm) is collections.abc.Callable


def is_mapping(arm: Any) -> bool:
    """Whether the value is a dictionary."""
    return _kind(arm) in _MAPS


def is_class(arm: Any) -> bool:
    """Whether a value of this kind is made from a class path."""
    if is_callable(arm):
        return True
    if arm is Any or not isinstance(arm, type) or isinstance(arm, types.GenericAlias):  # Any is a class in Python 3.11
        return False
    if issubclass(arm, enum.Enum) or typing.is_typeddict(arm) or getattr(arm, "_is_protocol", False):
        return False
    return arm is not object and arm not in PLAIN and arm not in _LISTS and arm not in _MAPS


def only_objects(alternatives: Sequence[Any]) -> bool:
    """Whether nothing but objects, and nothing at all, is accepted."""
    return all(is_class(arm) or arm is type(None) for arm in alternatives)


def unsure(alternatives: Sequence[Any]) -> bool:
    """Whether there is an alternative that this module does not judge, such as a function to be called later."""
    judged = (*_LISTS, *_MAPS, typing.Literal)
    return any(is_callable(arm) or not (is_class(arm) or arm in PLAIN or _kind(arm) in judged) for arm in alternatives)


def accepts_none(hint: Any) -> bool:
    """Whether ``null`` may be a value."""
    return type(None) in arms(hint) or unsure(arms(hint))


def element(arm: Any) -> Any:
    """The annotation of the items of a list, a list of them for a tuple; ``None`` where the alternative is no list."""
    if _kind(arm) not in _LISTS:
        return None
    inner = typing.get_args(arm)
    if _kind(arm) is tuple and inner and inner[-1] is not Ellipsis:
        return list(inner)
    return inner[0] if inner else Any


def items(value: list[Any], alternatives: Sequence[Any]) -> list[Any] | None:
    """An annotation for each item of a list; ``None`` where no list of this length is accepted."""
    if unsure(alternatives):
        return [Any] * len(value)
    found = [
        inner if isinstance(inner, list) else [inner] * len(value)
        for inner in map(element, alternatives)
        if inner is not None and (not isinstance(inner, list) or len(inner) == len(value))
    ]
    return [list(each) for each in zip(*found, strict=True)] if found else None


def fits(value: Any, hint: Any, parse: Callable[[str], Any]) -> bool:
    """Whether jsonargparse may accept the value; false only where it certainly does not.

    Args:
        value: a plain value.
        hint: the annotation.
        parse: reads a text as YAML: jsonargparse takes ``"2"`` for an integer.
    """
    if value is None:  # stands for the default
        return True
    if any(_fits(value, arm, parse) for arm in arms(hint)):
        return True
    parsed = parse(value) if isinstance(value, str) else value
    return not isinstance(parsed, str) and parsed is not None and any(_fits(parsed, arm, parse) for arm in arms(hint))


def _fits(value: Any, arm: Any, parse: Callable[[str], Any]) -> bool:
    kind = _kind(arm)
    if arm is int or arm is float:
        return isinstance(value, (int, arm)) and not isinstance(value, bool)
    if arm is bool or arm is str or arm is type(None):
        return isinstance(value, arm)
    if kind is typing.Literal:
        return value in typing.get_args(arm)
    if kind in _LISTS:
        each = items(value, [arm]) if isinstance(value, list) else None
        return each is not None and all(fits(item, hint, parse) for item, hint in zip(value, each, strict=True))
    if kind in _MAPS:
        return isinstance(value, collections.abc.Mapping)
    if isinstance(arm, type) and issubclass(arm, enum.Enum):
        return not isinstance(value, str) or value in (*arm.__members__, *(str(member.value) for member in arm))
    if arm is Path or (isinstance(arm, type) and is_class(arm)):
        return isinstance(value, (str, collections.abc.Mapping))  # a text may be a class path, or a span of time
    return True


def _choices(alternatives: Sequence[Any]) -> list[str]:
    """The words of a fixed alphabet."""
    found: list[str] = []
    for arm in alternatives:
        if _kind(arm) is typing.Literal:
            found += [str(choice) for choice in typing.get_args(arm)]
        elif isinstance(arm, type) and issubclass(arm, enum.Enum):
            found += list(arm.__members__)
    return list(dict.fromkeys(found))


def describe(hint: Any) -> str:
    """An annotation in words."""
    alternatives = arms(hint)
    words = [_word(arm) for arm in alternatives]
    choices = _choices(alternatives)
    if choices:
        words.insert(0, choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}")
    return " or ".join(dict.fromkeys(word for word in words if word))


def _word(arm: Any) -> str:
    kind, inner = _kind(arm), typing.get_args(arm)
    if arm in PLAIN:
        return PLAIN[arm]
    if _choices([arm]):
        return ""
    if kind in _LISTS:
        inside = element(arm)
        if isinstance(inside, list):
            return f"[{', '.join(map(describe, inside))}]"
        return "a list" if inside is Any else f"a list (of each: {describe(inside)})"
    if kind in _MAPS:
        return "a mapping"
    if is_callable(arm):
        return f"class_path and init_args of {getattr(inner[-1], '__name__', 'an object') if inner else 'an object'}"
    if dataclasses.is_dataclass(arm):
        return f"a mapping with {', '.join(item.name for item in dataclasses.fields(arm))}"
    if arm is Any:
        return "any value"
    return f"class_path and init_args of {arm.__name__}" if isinstance(arm, type) else str(arm)


def remedy(value: Any, hint: Any) -> str:
    """What to write instead, where that is plain."""
    alternatives = arms(hint)
    if isinstance(value, float) and value.is_integer() and int in alternatives:
        return f"write {int(value)}"
    if isinstance(value, str) and float in alternatives and value.lower().strip("+-") in ("inf", "infinity", "nan"):
        return "write .nan" if "nan" in value.lower() else f"write {'-' if value.startswith('-') else ''}.inf"
    if isinstance(value, str):
        return did_you_mean(value, _choices(alternatives))
    if str in alternatives and isinstance(value, (bool, int, float)):
        return f"quote it: '{str(value).lower() if isinstance(value, bool) else value}'"
    if any(element(arm) is not None for arm in alternatives) and isinstance(value, (bool, int, float)):
        return f"write [{value}]"
    return ""
