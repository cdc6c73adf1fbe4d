"""What the commands write: tables, JSON, a progress bar."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from django.core.management.base import CommandParser, OutputWrapper


def add_format(parser: CommandParser) -> None:
    """Add ``--format``."""
    parser.add_argument(
        "--format",
        choices=("table", "json"),
        default="table",
        help="What is written to the standard output; everything else goes to standard error.",
    )


def positive(text: str) -> int:
    """Return the number of an option that counts something."""
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError("write a number, 1 or more")
    return int(text)


def write_json(out: OutputWrapper, document: Mapping[str, Any]) -> None:
    """Write one JSON document."""
    out.write(json.dumps(document, indent=2))


def write_table(out: OutputWrapper, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write rows under ``header`` in aligned columns."""
    lines = [header, *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        out.write("  ".join(cells).rstrip())


def printable(text: str) -> str:
    """Return ``text`` on one line and without what a terminal would obey."""
    return "".join(char if char.isprintable() else "?" for char in text)


class ProgressBar:
    """A bar on a terminal; silent where ``out`` is none, so that no pipe or file ever gets it."""

    def __init__(self, out: OutputWrapper, total: int) -> None:
        self._out = out
        self._total = total
        self._done = 0
        self._shown = total > 0 and out.isatty()

    def __enter__(self) -> Self:
        self._draw()
        return self

    def advance(self, *_: object) -> None:
        """Count one more."""
        self._done += 1
        self._draw()

    def __exit__(self, *_: object) -> None:
        self._write("\r\x1b[K")

    def _draw(self) -> None:
        count = f" {self._done}/{self._total}"
        width = max(10, min(40, shutil.get_terminal_size().columns - len(count) - 3))
        filled = width * min(self._done, self._total) // max(self._total, 1)
        self._write(f"\r[{'#' * filled}{'.' * (width - filled)}]{count}")

    def _write(self, text: str) -> None:
        if self._shown:
            self._out.write(text, style_func=str, ending="")
            self._out.flush()
