"""Several workers and one click: what an operator evicts in one of them is gone from all."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from . import admin
from .steps import done, title, wait_for
from .tour import Browser, find

WORKERS = f"{admin.ADMIN}django_secret_registry/worker/"
EVICT_ALL = f"{WORKERS}evict-all/"


class FleetTour:
    """Reads secrets in every worker, each of which serves one of ``urls``, and evicts in one."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = urls
        self._browser = Browser(urls[0])

    def walk(self) -> None:
        count = len(self._urls)
        title(f"{count} workers, one click")
        for url in self._urls:
            Browser(url).get("/checkout/")
        done(f"{count} workers hold the payment provider's key")
        self._browser.submit(
            "/admin/login/",
            "/admin/login/",
            username=admin.USERNAME,
            password=admin.PASSWORD,
            next=WORKERS,
        )
        wait_for("the admin lists every worker", self._lists_all, seconds=20)
        done(f"the admin lists {count} workers")
        page = self._browser.submit(EVICT_ALL, EVICT_ALL, confirmed="yes")
        place = find(r'data-poll="([^"]+)"', page) if "data-poll" in page else ""

        def applied() -> bool | None:
            shown = self._browser.get(f"{WORKERS}applied/{place}") if place else text(page)
            return f"{count} of {count} applied." in shown or None

        wait_for("one click empties all of them", applied, seconds=20)
        done("one click has emptied all of them")
        for url in self._urls:
            Browser(url).get("/checkout/")
        done("each fetches again for its next reader")

    def _lists_all(self) -> bool | None:
        page = text(self._browser.get(WORKERS))
        return f"The fleet has {len(self._urls)} workers" in page or None


def text(page: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())
