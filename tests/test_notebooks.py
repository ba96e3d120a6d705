"""Notebooks run from top to bottom, define nothing, and are stored without errors."""

from __future__ import annotations

import ast
import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])


def code(path: Path) -> list[str]:
    cells = nbformat.read(path, as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == "code"]


@each_notebook
def test_runs_from_top_to_bottom(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    folder = tmp_path / "notebooks"
    folder.mkdir()
    copied = Path(shutil.copy(path, folder))
    notebook = nbformat.read(copied, as_version=4)
    nbclient.NotebookClient(
        notebook,
        timeout=300,  # seconds a cell: a notebook that takes longer is a script
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
    ).execute()


@each_notebook
def test_is_stored_without_errors(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert [output.get("evalue") for output in outputs if output.output_type == "error"] == []


@each_notebook
def test_explains_and_imports_but_defines_nothing(path: Path) -> None:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    defined = [node.name for cell in code(path) for node in ast.walk(ast.parse(cell)) if isinstance(node, kinds)]
    assert defined == [], "move it into the package, where it is tested"


@pytest.fixture
def pages() -> ModuleType:
    pytest.importorskip("mkdocs")
    spec = importlib.util.spec_from_file_location("notebook_pages", ROOT / "docs/_build/notebook_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_page_shows_cells_and_outputs_in_order(pages: ModuleType) -> None:
    v4 = nbformat.v4
    picture = v4.new_output("display_data", data={"image/png": "iVBORw0=\n", "text/plain": "<Figure>"})
    said = v4.new_output("stream", text="1.5\n")
    notebook = v4.new_notebook(
        cells=[
            v4.new_markdown_cell("# Title"),
            v4.new_code_cell("plot()", outputs=[said, picture]),
            v4.new_code_cell(""),
        ]
    )
    assert pages.page(notebook) == (
        "# Title\n\n```python\nplot()\n```\n\n```text\n1.5\n```\n\n![](data:image/png;base64,iVBORw0=)\n"
    )


def test_a_code_block_is_not_closed_by_its_content(pages: ModuleType) -> None:
    assert pages.fence("a\n````\nb", "text") == "`````text\na\n````\nb\n`````"
