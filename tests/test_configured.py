from __future__ import annotations

import json
from pathlib import Path

import pytest

from physml.configured import Configured, find, rebuild
from physml.nn.factorised import PublishedKernels
from physml.objectives import Curriculum, NextStep, Objective, Pushforward
from physml.operators import FactFormer, Operator


def test_what_is_described_is_rebuilt() -> None:
    objective = NextStep(frames=4, pushforward=Pushforward(after=3), curriculum=Curriculum(over=7))
    plain = json.loads(json.dumps(objective.describe()))
    again = rebuild(plain, Objective)
    assert again.describe() == objective.describe()
    assert again.pushforward.after == 3 and again.horizon == objective.horizon


def test_nested_objects_of_an_operator_survive() -> None:
    operator = FactFormer(axes=1, width=8, heads=2, head_width=4, depth=1, kernels=PublishedKernels(scale=3.0))
    again = rebuild(operator.describe(), Operator)
    assert again.describe()["init_args"]["kernels"]["init_args"] == {"scale": 3.0}
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in operator.state_dict().items()}


def test_only_classes_of_the_wanted_kind_are_called() -> None:
    with pytest.raises(ValueError, match="is not a Operator"):
        find("os.system", Operator)
    with pytest.raises(ValueError, match="is not a Operator"):
        find("physml.objectives.NextStep", Operator)
    with pytest.raises(ValueError, match="no class"):
        find("physml.operators.Nothing", Operator)


class Stack(Configured):
    def __init__(self, *, parts: list[Curriculum], names: dict[str, int]) -> None:
        self.parts, self.names = parts, names


def test_lists_of_objects_survive() -> None:
    stack = Stack(parts=[Curriculum(over=2), Curriculum(over=3)], names={"a": 1})
    again = rebuild(stack.describe(), Stack)
    assert [part.over for part in again.parts] == [2, 3] and again.names == {"a": 1}


def test_modules_that_nobody_imported_are_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stranger.py").write_text(f"open({str(tmp_path / 'trapped')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="PHYSML_IMPORT=stranger"):
        find("stranger.Operator", Operator)
    assert not (tmp_path / "trapped").exists()


def test_arguments_must_be_named() -> None:
    with pytest.raises(TypeError, match="name each of them"):
        Curriculum(3)  # type: ignore[misc]
