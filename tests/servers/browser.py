"""The demonstration's browser, with axe-core to judge the pages."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from example_project.demo import browser
from example_project.demo.browser import NARROW, WIDE, chromium, opened

if TYPE_CHECKING:
    from playwright.sync_api import Page

__all__ = ["NARROW", "WIDE", "chromium", "missing", "opened", "overflow", "violations"]


def missing() -> str:
    """Return what must be installed before a browser can judge; empty when nothing."""
    if importlib.util.find_spec("axe_playwright_python") is None:
        return "install axe-playwright-python"
    return browser.missing()


def violations(page: Page) -> dict[str, list[str]]:
    """Return what axe-core finds wrong with the page: the rule's id, and where it is broken."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return {rule["id"]: [str(node["html"]) for node in rule["nodes"]] for rule in found}


def overflow(page: Page) -> int:
    """Return by how many pixels the page is wider than its window."""
    wider: int = page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    return wider
