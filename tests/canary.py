"""The mark that every secret of the test run carries, so that a leaked one is found by a search."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

CANARY = "k4n4r1"

_of_thread = threading.local()


def canary(name: str = "secret") -> str:
    """Return a secret for a test: text that carries the mark, and differs by ``name``."""
    return f"{CANARY}-{name}"


@contextlib.contextmanager
def unwatched() -> Iterator[None]:
    """Have nobody look for marks in what this thread logs."""
    before = is_unwatched()
    _of_thread.unwatched = True
    try:
        yield
    finally:
        _of_thread.unwatched = before


def is_unwatched() -> bool:
    return getattr(_of_thread, "unwatched", False)
