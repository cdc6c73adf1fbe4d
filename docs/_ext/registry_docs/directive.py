"""The directive ``{table-of}``: a table of the reference, made of the code when the page is built.

::

    :::{table-of} checks
    :::
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

from . import tables

if TYPE_CHECKING:
    from sphinx.application import Sphinx


class TableOf(SphinxDirective):
    """Puts one of :data:`.tables.TABLES` in its place; the page must be in Markdown."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return what the Markdown of the table means."""
        (name,) = self.arguments
        if name not in tables.TABLES:
            raise self.error(f"There is no table {name!r}: {', '.join(tables.TABLES)}.")
        node = nodes.Element()
        lines = StringList(tables.TABLES[name]().splitlines(), f"the table of {name}")
        self.state.nested_parse(lines, self.content_offset, node, match_titles=True)
        return node.children


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive; Sphinx calls this."""
    app.add_directive("table-of", TableOf)
    return {"parallel_read_safe": True}
