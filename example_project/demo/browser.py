"""A real browser: the system's Chromium, driven by Playwright. The tests use it as well."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
)
WIDE, NARROW = 1280, 380


def missing() -> str:
    """Return what must be installed before a browser can run; empty when nothing."""
    if importlib.util.find_spec("playwright") is None:
        return "install playwright"
    return "" if _program() else "install the system's chromium (apt-get install chromium)"


def _program() -> str | None:
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Run a headless Chromium; it ends with the block.

    Within it an event loop runs in this thread: Django must be told DJANGO_ALLOW_ASYNC_UNSAFE.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_program(), args=[*ARGUMENTS])
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def opened(
    browser: Browser, *, width: int = WIDE, scheme: str = "light", **session: Any
) -> Iterator[Page]:
    """Open a page in a session of its own; ``scheme`` is ``light`` or ``dark``."""
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if scheme == "dark" else "light",
        **session,
    )
    context.set_default_timeout(15_000)
    try:
        yield context.new_page()
    finally:
        context.close()
