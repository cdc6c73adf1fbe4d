"""What the demo prints, and how it fails."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class DemoError(Exception):
    """A step of the demo did not do what it should."""


def title(text: str) -> None:
    print(f"\n== {text}", flush=True)


def done(text: str) -> None:
    print(f"   ok  {text}", flush=True)


def check(what: str, truth: bool | None) -> None:
    if not truth:
        raise DemoError(f"not so: {what}")
    done(what)


def wait_for(what: str, attempt: Callable[[], T | None], *, seconds: float) -> tuple[T, float]:
    """Call ``attempt`` until it returns something; return that, and how many seconds it took."""
    start = time.monotonic()
    while True:
        result = attempt()
        took = time.monotonic() - start
        if result is not None:
            return result, took
        if took > seconds:
            raise DemoError(f"{what}: not within {seconds:g} s")
        time.sleep(0.05)
