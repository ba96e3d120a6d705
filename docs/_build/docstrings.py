"""An extension of griffe: what the docstrings of the package mean, in the Markdown of the site.

Docstrings write ``:class:`Field```, ``:math:`u_t``` and ``.. math::``, which editors and ``help()`` leave readable. A
role that names something on the site becomes a link, any other becomes code. A name that a package exports is described
once, where it is defined; the package lists what can be imported from it.
"""

from __future__ import annotations

import re
import textwrap
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|meth|func|mod|data|attr|exc|obj):`(~?)([\w.]+)(?:\(\))?`")
INLINE = re.compile(r":math:`([^`]+)`")
BLOCK = re.compile(r"^(?P<indent> *)\.\. math::(?P<first>.*)\n(?P<rest>(?:[ ]*\n|(?P=indent) +.*\n?)*)", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Rewrites each docstring once its whole package is known."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        self._visit(pkg)

    def _visit(self, item: griffe.Object) -> None:
        if item.docstring is not None:
            item.docstring.value = markdown(item.docstring.value, item)
        if isinstance(item, griffe.Module) and item.is_init_module and item.docstring is not None and item.exports:
            names = sorted((str(name) for name in item.exports), key=str.lower)
            item.docstring.value += (
                "\n\nTo be imported from here: " + ", ".join(link(name, item) for name in names) + "."
            )
            item.exports = None
        for member in item.members.values():
            if not member.is_alias:
                self._visit(member)  # type: ignore[arg-type]


def markdown(text: str, scope: griffe.Object) -> str:
    """One docstring; names are looked up from ``scope``."""

    def block(found: re.Match[str]) -> str:
        lines = textwrap.dedent(found["rest"]).strip("\n")
        equation = "\n".join(part for part in (found["first"].strip(), lines) if part)
        return textwrap.indent(f"\n$$\n{equation}\n$$\n\n", found["indent"])

    def role(found: re.Match[str]) -> str:
        return link(found[2], scope, found[2].rpartition(".")[2] if found[1] else found[2])

    return INLINE.sub(r"\\(\1\\)", ROLE.sub(role, BLOCK.sub(block, text)))


def link(name: str, scope: griffe.Object, shown: str = "") -> str:
    """A name as code, linked where the site describes it."""
    code = f"<code>{shown or name}</code>"
    try:
        path = name if name.startswith(f"{scope.package.path}.") else scope.resolve(name)
    except griffe.NameResolutionError:
        return code
    return f'<autoref identifier="{path}" optional>{code}</autoref>'
