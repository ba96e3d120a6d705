"""A hook of MkDocs: every notebook in ``docs/notebooks`` becomes a page, as it is stored.

Text cells stay Markdown, code cells become code blocks, and stored outputs (text, PNG and SVG pictures) follow their
cell. Nothing is run and nothing is fetched; ``tests/test_notebooks.py`` runs the notebooks.
"""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the pages under ``Notebooks``; drop that heading where there are none."""
    pages = [f"notebooks/{path.stem}.md" for path in notebooks(config)]
    config.nav = [
        {"Notebooks": pages} if entry == {"Notebooks": []} else entry
        for entry in config.nav or []
        if pages or entry != {"Notebooks": []}
    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages themselves."""
    for path in notebooks(config):
        files.append(
            File.generated(config, f"notebooks/{path.stem}.md", content=page(json.loads(path.read_text("utf-8"))))
        )
    return files


def notebooks(config: MkDocsConfig) -> list[Path]:
    """The notebooks, in the order of their names."""
    return sorted(Path(config.docs_dir, "notebooks").glob("*.ipynb"))


def page(notebook: dict[str, Any]) -> str:
    """Markdown of a whole notebook (format 4)."""
    parts: list[str] = []
    for cell in notebook["cells"]:
        source = text(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif cell["cell_type"] == "code" and source.strip():
            parts.append(fence(source, "python"))
            parts.extend(shown for output in cell["outputs"] if (shown := show(output)))
    return "\n\n".join(parts) + "\n"


def show(output: dict[str, Any]) -> str:
    """Markdown of one output: the richest form that needs no script."""
    if output["output_type"] == "stream":
        return fence(text(output["text"]), "text")
    data = output.get("data", {})
    if "image/png" in data:
        return f"![](data:image/png;base64,{text(data['image/png']).strip()})"
    if "image/svg+xml" in data:
        return f"![](data:image/svg+xml;base64,{base64.b64encode(text(data['image/svg+xml']).encode()).decode()})"
    return fence(text(data["text/plain"]), "text") if "text/plain" in data else ""


def text(source: str | list[str]) -> str:
    """One string; notebooks store lines or the whole."""
    return COLOURS.sub("", source if isinstance(source, str) else "".join(source))


def fence(content: str, language: str) -> str:
    """A code block that no run of backticks inside can close."""
    longest = max((len(run) for run in re.findall(r"`{3,}", content)), default=2)
    marks = "`" * (longest + 1)
    return f"{marks}{language}\n{content.rstrip()}\n{marks}"
