"""What a person reads when something goes wrong: six lines, the nearest name, the remedy."""

from __future__ import annotations

import errno
import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from physml.cli import errors
from physml.cli.errors import UserError, distance, explain, missing, nearest, report

words = st.text("abcdefg_", min_size=0, max_size=8)


@settings(deadline=None)  # the machine may be busy
@given(words, words, words)
def test_the_distance_is_symmetric_and_zero_for_equal_words_only(a: str, b: str, c: str) -> None:
    assert distance(a, b) == distance(b, a)
    assert (distance(a, b) == 0) == (a == b)
    # Each letter that one word has more must be inserted, and replacing every letter is always enough.
    assert abs(len(a) - len(b)) <= distance(a, b) <= max(len(a), len(b))
    assert distance(a + c, b + c) <= distance(a, b)


@pytest.mark.parametrize(
    ("a", "b", "apart"), [("kitten", "sitting", 3), ("ab", "ba", 1), ("rolout", "rollout", 1), ("", "abc", 3)]
)
def test_known_distances(a: str, b: str, apart: int) -> None:
    assert distance(a, b) == apart


def test_the_nearest_name() -> None:
    names = ["max_steps", "min_steps", "max_epochs", "precision", "lr"]
    assert nearest("max-steps", names) == "max_steps"
    assert nearest("Max_Step", names) == "max_steps"
    assert nearest("prec", names) == "precision"  # a name that was not written to the end
    assert nearest("l", names) == "lr"
    assert nearest("x", names) is None  # replacing all of a word is no misspelling
    assert nearest("callbacks", names) is None
    assert nearest("anything", []) is None


@settings(deadline=None)  # the machine may be busy
@given(
    st.text(min_size=1, max_size=3000),
    st.text(max_size=200),
    st.lists(st.text(min_size=1, max_size=300), max_size=80).map(", ".join),
    st.text(max_size=900),
    st.integers(20, 200),
)
def test_an_error_fills_six_lines_at_most(what: str, where: str, expected: str, hint: str, width: int) -> None:
    lines = UserError(what, where=where, expected=expected, hint=hint).render(width).split("\n")
    assert 1 <= len(lines) <= 6
    assert lines[0].startswith("physml:")


def test_a_list_of_names_is_cut_and_the_hint_stays() -> None:
    names = ", ".join(f"argument_{i}" for i in range(200))
    text = UserError(
        "m.x: no argument 'x'", where="a.yaml:3", expected=f"one of {names}", hint="did you mean 'y'?"
    ).render(80)
    lines = text.splitlines()
    assert lines[0] == "physml: a.yaml:3: m.x: no argument 'x'"
    assert lines[-1].strip() == "did you mean 'y'?"
    assert lines[-2].endswith("…")
    assert all(len(line) <= 80 for line in lines)


def test_a_path_is_not_broken() -> None:
    path = "/a/rather/long/path" * 5  # 95 characters, wider than the terminal
    assert path in UserError(f"no file {path}").render(60)


def test_a_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "runs" / "fno").mkdir(parents=True)
    (tmp_path / "runs" / "fno" / "last.ckpt").touch()
    assert str(tmp_path / "runs" / "fno" / "last.ckpt") in missing(tmp_path / "runs" / "fno" / "lst.ckpt").render()
    # Where a folder of the path is wrong, that folder is what is named.
    assert str(tmp_path / "runs") in missing(tmp_path / "rums" / "fno" / "last.ckpt").hint
    assert "last.ckpt" in missing(tmp_path / "runs" / "fno" / "epoch=17.ckpt").expected


def _json_error() -> Exception:
    try:
        json.loads("{")
    except ValueError as error:
        return error
    raise AssertionError


class OutOfMemoryError(RuntimeError):
    """Has the name of torch's."""


CASES: dict[str, tuple[BaseException, int, str]] = {
    "value": (ValueError("width: got 7, expected an even number."), 2, "width: got 7, expected an even number."),
    "no permission": (PermissionError(errno.EACCES, "Permission denied", "/x/y"), 2, "no permission for /x/y"),
    "disk full": (OSError(errno.ENOSPC, "No space left on device", "/"), 2, "is full"),
    "read-only": (OSError(errno.EROFS, "Read-only file system", "/x"), 2, "read-only"),
    "open files": (OSError(errno.EMFILE, "Too many open files"), 2, "ulimit -n"),
    "quota": (OSError(errno.EDQUOT, "Disk quota exceeded", "/x"), 2, "quota"),
    "our own missing file": (FileNotFoundError("x.ckpt: no such checkpoint."), 2, "x.ckpt: no such checkpoint."),
    "memory": (MemoryError(), 2, "out of memory"),
    "memory of the GPU": (OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), 2, "batch_size"),
    "memory of the CPU": (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 2, "out of memory"),
    "package": (ModuleNotFoundError("No module named 'h5py'", name="h5py"), 2, "pip install h5py"),
    "broken JSON": (_json_error(), 2, "broken JSON"),
    "damaged chunk": (RuntimeError("error during blosc decompression: -1"), 2, "a stored chunk is damaged"),
    "damaged checkpoint": (RuntimeError("PytorchStreamReader failed reading zip archive"), 2, "no checkpoint"),
    "Ctrl-C": (KeyboardInterrupt(), 130, "stopped"),
    "defect": (KeyError("frames"), 1, "--debug shows the traceback"),
    "own module missing": (ModuleNotFoundError("No module named 'physml.x'", name="physml.x"), 1, "--debug"),
}


@pytest.mark.parametrize("name", CASES)
def test_errors_become_words(name: str) -> None:
    error, code, text = CASES[name]
    stream = io.StringIO()
    assert report(error, debug=False, stream=stream) == code
    said = stream.getvalue()
    assert text in " ".join(said.split())
    assert len(said.splitlines()) <= errors.LINES
    assert "Traceback" not in said


def test_debug_shows_the_traceback_before_the_words() -> None:
    stream = io.StringIO()
    with pytest.raises(ValueError, match="width") as caught:
        raise ValueError("width: got 7.")
    assert report(caught.value, debug=True, stream=stream) == 2
    said = stream.getvalue()
    assert said.index("Traceback (most recent call last)") < said.index("physml: width: got 7.")
    assert "test_errors.py" in said


def test_an_error_that_a_reading_process_passed_on_loses_its_traceback() -> None:
    passed = (
        "Caught ValueError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
        '  File "worker.py", line 1, in loop\n    data = fetch()\nValueError: chunk 3 is damaged;\n  make it again.\n'
    )
    told = explain(ValueError(passed))
    assert told is not None
    assert told.what == "chunk 3 is damaged; make it again."


def test_errors_of_zarr_are_recognised(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    with pytest.raises(Exception) as caught:  # noqa: PT011  # whatever zarr raises is what is to be explained
        zarr.open_group(tmp_path / "nothing.zarr", mode="r")
    told = explain(caught.value)
    assert told is not None
    assert len(told.render().splitlines()) <= errors.LINES


def test_a_missing_extra_is_not_a_defect() -> None:
    told = explain(ImportError("s3://a/b: the package is missing; pip install 'physml[remote]' brings it."))
    assert told is not None and told.code == errors.USAGE and "pip install 'physml[remote]'" in str(told)
    assert explain(ImportError("cannot import name 'x' from 'physml'")) is None
