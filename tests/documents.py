"""The documentation as tests see it: pages made of blocks of code.

Every block of Python and of shell commands is run by a test. The tutorial and the pages in how-to
are followed as a whole; elsewhere Python is run as it stands there. Other tests are named above a
block, and so is the reason why one cannot be run::

    <!-- run by tests/test_warm_up_docs.py -->
    <!-- not run: what it is that cannot be had here -->

What a command prints stands in a block of ``text``, a dialogue with ``$`` in one of ``console``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PROVIDERS = DOCS / "providers"
#: Every page that a reader sees.
PAGES = [
    ROOT / "README.md",
    *sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts),
]

_PARTS = re.compile(
    r"^\#+\ (?P<title>[^\n]+)$"
    r"|^<!--\ (?P<note>[^\n]*?)\ -->$"
    r"|^```(?P<language>\S*)[^\n]*\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)
#: The first line of a block that is a file, or a part of one.
_FILE = re.compile(
    r"(?:# |\{# )(?P<name>[\w./-]*\.\w+|Dockerfile)(?P<appended>, at the end)?(?: #\})?\n"
)


class Block(NamedTuple):
    """A block of code: under which title it stands, and the note right above it."""

    page: Path
    line: int
    title: str
    note: str
    language: str
    text: str

    @property
    def file(self) -> str:
        """The file that it is, or a part of; empty if it is none."""
        found = _FILE.match(self.text)
        return found["name"] if found else ""

    @property
    def is_appended(self) -> bool:
        """Whether it stands at the end of its file, and is not the whole of it."""
        found = _FILE.match(self.text)
        return bool(found and found["appended"])

    @property
    def runs(self) -> bool:
        """Whether it is code that a reader runs."""
        return self.language in ("python", "sh")

    def noted(self, kind: str) -> str:
        """Return what the note says after ``kind``; empty if it is another note."""
        return self.note.removeprefix(kind).strip(" :") if self.note.startswith(kind) else ""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    """Yield the blocks of code of a page, in their order."""
    written = page.read_text(encoding="utf-8")
    title, note, end = "", "", 0
    for part in _PARTS.finditer(written):
        if part["title"]:
            title = part["title"]
        elif part["note"]:
            note, end = part["note"], part.end()
        else:
            is_above = note and not written[end : part.start()].strip()
            line = written.count("\n", 0, part.start()) + 1
            language = part["language"].strip("{}")
            yield Block(page, line, title, note if is_above else "", language, part["text"])


def blocks(page: str, language: str) -> list[str]:
    """Return the blocks of code in this language on a provider's page."""
    return [one.text for one in blocks_of(PROVIDERS / f"{page}.md") if one.language == language]


def block(page: str, language: str) -> str:
    """Return the first block of code in this language on a provider's page."""
    found = blocks(page, language)
    assert found, f"{page}.md has no block of {language}"
    return found[0]


def names_of(page: str) -> dict[str, Any]:
    """Execute the first Python block of a provider's page; return the settings it makes."""
    names: dict[str, Any] = {}
    exec(compile(block(page, "python"), f"{page}.md", "exec"), names)  # the point of it
    return {name: value for name, value in names.items() if name.isupper()}


def settings_of(page: str) -> dict[str, Any]:
    """Execute the first Python block of a provider's page; return its ``SECRET_REGISTRY``."""
    setting: dict[str, Any] = names_of(page)["SECRET_REGISTRY"]
    return setting
