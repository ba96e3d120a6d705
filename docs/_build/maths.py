"""A hook of MkDocs: LaTeX becomes MathML while the site is built, so that no script has to be fetched to read it.

Arithmatex finds the equations (``$...$`` and ``$$...$$`` in pages, the ``:math:`` role and directive in docstrings).
"""

from __future__ import annotations

import html
import logging
import re

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.pages import Page

log = logging.getLogger("mkdocs.plugins.maths")

EQUATION = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Replace every equation of a page."""

    def mathml(found: re.Match[str]) -> str:
        latex = html.unescape(found[2]).strip()
        made = convert(aligned(latex), display="inline" if found[1] == "span" else "block")
        if left := re.search(r">(\\[a-zA-Z]+|&)<", made):
            log.warning(
                "%s: %r in the equation %r has no MathML; write it another way.", page.file.src_uri, left[1], latex
            )
        return made

    return EQUATION.sub(mathml, output)


def aligned(latex: str) -> str:
    """Lines of equations in the one environment for them that the converter knows."""
    if "\\\\" in latex and "\\begin{" not in latex:
        return rf"\begin{{align*}}{latex}\end{{align*}}"
    return re.sub(r"\\(begin|end)\{(align|aligned|split)\}", r"\\\1{align*}", latex)
