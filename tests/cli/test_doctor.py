"""The report of a machine: what is there, what would fail, and the remedy for each."""

from __future__ import annotations

import importlib
import json
from argparse import Namespace
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from physml.cli import doctor
from physml.cli.doctor import Finding, findings, render


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PHYSML_DATA", raising=False)
    return tmp_path


def named(name: str, found: list[Finding]) -> Finding:
    (finding,) = [item for item in found if item.name == name]
    return finding


def test_what_fails_has_a_remedy_and_everything_is_looked_at(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.doctor(Namespace(json=True, full=False)) == 0
    told = json.loads(capsys.readouterr().out)
    topics = list(dict.fromkeys(item["topic"] for item in told["findings"]))
    assert topics == ["versions", "devices", "memory", "disk", "storage", "figures"]
    for item in told["findings"]:
        assert item["found"]
        assert not item["fails"] or item["remedy"]
    assert told["fails"] == sum(bool(item["fails"]) for item in told["findings"])
    assert not [item for item in told["findings"] if item["name"] == "check"]  # no check stopped halfway


def test_the_report_ends_with_what_would_fail(capsys: pytest.CaptureFixture[str]) -> None:
    whole, broken = Finding("t", "a", "there"), Finding("t", "b", "gone", "drawing", "install b")
    assert render([whole]).endswith("nothing would fail here that was looked at")
    assert render([whole, broken]).endswith("what would fail here\n  - drawing\n      install b")


@pytest.mark.parametrize(("essential", "code"), [(True, 1), (False, 0)])
def test_only_what_is_essential_gives_an_exit_code(
    essential: bool, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = Finding("t", "b", "gone", "everything", "install b", essential)
    monkeypatch.setattr(doctor, "findings", lambda *, full: iter([found]))
    assert doctor.doctor(Namespace(json=False, full=False)) == code
    assert "everything" in capsys.readouterr().out


def test_a_check_that_stops_is_a_finding(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    def stopping() -> Iterator[Finding]:
        yield Finding("memory", "first", "there")
        raise OSError("no /proc here")

    monkeypatch.setattr(doctor, "_memory", stopping)
    found = list(findings())
    assert named("first", found).found == "there"
    assert any("no /proc here" in item.fails for item in found)
    assert named("current folder", found)  # the others go on


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name in ("zarr", "h5py", "physml"):
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    found = list(doctor._versions())
    assert (named("zarr", found).essential, named("zarr", found).remedy) == (True, "pip install zarr")
    assert (named("h5py", found).essential, named("h5py", found).found) == (False, "missing")
    assert "pip install -e ." in named("physml", found).remedy
    assert not named("torch", found).fails


def test_a_version_out_of_range_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ["zarr>=99,<100", "torch[x] >=2", 'h5py<1; extra == "test"']
    monkeypatch.setattr(metadata, "requires", lambda name: asked)
    assert doctor._requirements() == {"zarr": ">=99,<100", "torch": ">=2"}
    found = list(doctor._versions())
    assert named("zarr", found).remedy == "pip install 'zarr>=99,<100'"
    assert not named("torch", found).fails
    assert not named("h5py", found).fails


def test_limits_of_a_container_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner, outer = tmp_path / "outer" / "inner", tmp_path / "outer"
    inner.mkdir(parents=True)
    (inner / "memory.max").write_text("max\n")
    (outer / "memory.max").write_text(f"{3 * doctor.GIB}\n")
    (outer / "memory.current").write_text(f"{2 * doctor.GIB}\n")
    (inner / "cpu.max").write_text("max 100000\n")
    (outer / "cpu.max").write_text("150000 100000\n")
    monkeypatch.setattr(doctor, "_cgroups", lambda: iter([inner, outer]))
    assert doctor._cgroup_cores() == 1.5
    assert doctor._cgroup_memory() == (3 * doctor.GIB, 2 * doctor.GIB)
    monkeypatch.setattr(doctor, "_machine_memory", lambda: (64 * doctor.GIB, 60 * doctor.GIB))
    memory = next(doctor._memory())
    assert "the container may use 3.0 GiB" in memory.found
    assert "less than 2 GiB" in memory.fails  # 1 GiB is left of the container, whatever the machine has


def test_what_the_data_folder_holds(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not named("data folder", list(doctor._disk())).fails  # nothing was promised
    monkeypatch.setenv("PHYSML_DATA", str(here / "data"))
    assert "no folder" in named("PHYSML_DATA", list(doctor._disk())).fails
    for name in ("a.zarr", "flow/b.zarr", "flow/re1000/c.zarr"):
        (here / "data" / name).mkdir(parents=True)
    told = named("PHYSML_DATA", list(doctor._disk()))
    assert told.found.endswith("a.zarr, flow/b.zarr, flow/re1000/c.zarr")
    assert not told.fails


def test_a_folder_that_cannot_be_written_is_named(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    told = named("current folder", list(doctor._disk()))
    assert "not writable" in told.found
    assert "Permission denied" in told.fails


def test_storage_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, damage = doctor._storage()
    assert whole.found == "written and read back"
    assert damage.found == "is noticed"
    codecs = importlib.import_module("zarr.codecs")
    monkeypatch.delattr(codecs, "Crc32cCodec")
    (broken,) = doctor._storage()
    assert broken.essential
    assert broken.fails


def test_a_plotting_backend_that_needs_a_screen_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MPLBACKEND", "TkAgg")
    assert named("MPLBACKEND", list(doctor._figures())).remedy == "unset MPLBACKEND"


def test_a_machine_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    class Done:
        returncode, stdout = 1, ""
        stderr = "noise\ntorch._inductor.exc.InvalidCxxCompiler: No working C++ compiler\nmore"

    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    monkeypatch.setattr(doctor.subprocess, "run", lambda *_, **__: Done)
    compiler, function = doctor._compile()
    assert compiler.found == "missing"
    assert "apt-get install g++" in compiler.remedy
    assert "InvalidCxxCompiler" in function.fails


@pytest.mark.slow
def test_compiling_is_tried_in_earnest() -> None:
    assert [item.fails for item in doctor._compile()] == ["", ""]
