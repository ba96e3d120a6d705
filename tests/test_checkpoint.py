from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from settings import make_steady_store
from waves import wave_layout

from physml import checkpoint
from physml.emulator import Emulator, Origin
from physml.normalise import Increments, Standardise
from physml.operators import FactFormer

STATISTICS = {"mean": [3.0], "std": [2.0], "increment_std": [0.5], "energy": 2.0}


def emulator() -> Emulator:
    made = Emulator(FactFormer(axes=2, frames=2, steps=2, width=8, depth=1, heads=2, head_width=4), Increments())
    made.learn(Origin(wave_layout(), STATISTICS, stride=2, fingerprint="abc"))
    return made


def written(path: Path) -> Emulator:
    made = emulator()
    weights = {f"emulator.{name}": value for name, value in made.state_dict().items()}
    checkpoint.save({"state_dict": weights, "physml": checkpoint.describe(made, {"seed": 1})}, path)
    return made


def test_a_loaded_emulator_predicts_the_same(tmp_path: Path) -> None:
    made, window = written(tmp_path / "a.ckpt"), torch.randn(1, 2, 16, 16, 1)
    again = checkpoint.load(tmp_path / "a.ckpt")
    assert torch.equal(again(window), made(window))
    assert again.origin is not None and again.origin.fingerprint == "abc" and again.origin.stride == 2
    assert again.origin.layout.difference(wave_layout()) is None
    assert not again.training


def test_a_checkpoint_with_an_object_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "trapped"),)

    with open(tmp_path / "trap.ckpt", "wb") as file:
        torch.save({"state_dict": {}, "physml": Trap()}, file)
    with pytest.raises(ValueError, match="need to run code"):
        checkpoint.load(tmp_path / "trap.ckpt")
    (tmp_path / "raw.ckpt").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match="not a checkpoint"):
        checkpoint.load(tmp_path / "raw.ckpt")
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize("keep", [0, 10, 2000])
def test_a_truncated_checkpoint_is_one_clear_error(tmp_path: Path, keep: int) -> None:
    written(tmp_path / "a.ckpt")
    content = (tmp_path / "a.ckpt").read_bytes()
    (tmp_path / "b.ckpt").write_bytes(content[:keep])
    with pytest.raises(ValueError, match=r"b\.ckpt: not a checkpoint physml can read"):
        checkpoint.load(tmp_path / "b.ckpt")


def test_foreign_files_and_missing_files_are_named(tmp_path: Path) -> None:
    torch.save({"weights": torch.zeros(2)}, tmp_path / "foreign.ckpt")
    with pytest.raises(ValueError, match="not a checkpoint of physml"):
        checkpoint.load(tmp_path / "foreign.ckpt")
    with pytest.raises(FileNotFoundError, match=r"the folder holds foreign\.ckpt"):
        checkpoint.load(tmp_path / "best.ckpt")


def test_weights_of_another_operator_are_refused(tmp_path: Path) -> None:
    written(tmp_path / "a.ckpt")
    content = torch.load(tmp_path / "a.ckpt", weights_only=True)
    content["physml"]["operator"]["init_args"]["width"] = 16
    checkpoint.save(content, tmp_path / "b.ckpt")
    with pytest.raises(ValueError, match="do not fit the FactFormer"):
        checkpoint.load(tmp_path / "b.ckpt")


def test_classes_that_are_no_operators_are_not_called(tmp_path: Path) -> None:
    written(tmp_path / "a.ckpt")
    content = torch.load(tmp_path / "a.ckpt", weights_only=True)
    content["physml"]["operator"] = {"class_path": "os.system", "init_args": {"command": "true"}}
    checkpoint.save(content, tmp_path / "b.ckpt")
    with pytest.raises(ValueError, match=r"is not (a Operator|part of physml)"):
        checkpoint.load(tmp_path / "b.ckpt")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "a.ckpt")
    before = (tmp_path / "a.ckpt").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        written(tmp_path / "a.ckpt")
    assert (tmp_path / "a.ckpt").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]


@pytest.mark.parametrize("frames", [0, 2])
def test_an_emulator_with_a_setting_loses_nothing(tmp_path: Path, frames: int) -> None:
    store = make_steady_store(tmp_path / "steady.zarr")
    operator = FactFormer(
        axes=2,
        frames=frames,
        steps=2,
        static=1,
        condition=["strength", "age"],
        width=8,
        depth=1,
        heads=2,
        head_width=4,
    )
    with torch.no_grad():
        for parameter in operator.parameters():  # a fresh one is not affected by numbers yet
            parameter.add_(0.1 * torch.randn_like(parameter))
    made = Emulator(operator, Standardise())
    made.learn(Origin(store.layout, store.statistics.to_plain(), 1, store.fingerprint))
    weights = {f"emulator.{name}": value for name, value in made.state_dict().items()}
    checkpoint.save({"state_dict": weights, "physml": checkpoint.describe(made)}, tmp_path / "a.ckpt")
    again = checkpoint.load(tmp_path / "a.ckpt")
    window = torch.randn(2, frames, 8, 8, 1)
    static = torch.from_numpy(np.stack([store.read_static(row) for row in (0, 1)]))
    setting: dict = {"condition": {"age": 3.0, "strength": torch.tensor([1.0, 2.0])}, "static": static}
    assert torch.equal(again(window, **setting), made(window, **setting))
    for changed in ({"condition": {"age": 3.0, "strength": 9.0}}, {"static": static + 1}):
        assert not torch.allclose(again(window, **setting | changed), made(window, **setting))
    assert again.origin is not None and again.origin.layout.static == store.layout.static
    assert again.origin.statistics == store.statistics.to_plain()
