"""The pages of a fleet in a real browser: Workers, what they hold, how far an action has come."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Self

import pytest
from django.test import Client

from django_secret_registry import registry
from django_secret_registry.fleet.bus import Cursor
from django_secret_registry.fleet.redis import RedisBus
from django_secret_registry.fleet.reports import LIFETIME
from tests import test_admin_browser as pages
from tests.admin_support import PROVIDERS, SECRETS, Shown, url
from tests.scripted import until
from tests.servers import browser as browsers
from tests.servers import redis as redis_server
from tests.test_admin_browser import DB, MODES, POLICY, YES, Desk, judge, press
from tests.test_fleet_commands import BUS, LISTENER

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pages.pytestmark

browser, server, operator, desk = pages.browser, pages.server, pages.operator, pages.desk
redis_session, redis = redis_server.redis_session, redis_server.redis

WORKERS = "worker"
LATE, BLIND = "late:7:00c0ffee", "a-host-with-quite-a-long-name.example.com:123456:0123abcd"


class FleetShown(Shown):
    """A registry in a fleet with two more workers: one that is late, and one that is blind."""

    def __init__(self, settings: Any, redis: Any) -> None:
        super().__init__(settings)
        self._url = f"redis://127.0.0.1:{redis.port}"
        self._bus = RedisBus(url=self._url)
        self._reports: dict[str, dict[str, str]] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._beating = threading.Thread(target=self._beat)

    def __enter__(self) -> Self:
        super().__enter__()
        self._beating.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._ended.set()
        self._beating.join()
        self._bus.close()
        super().__exit__(*exc_info)

    def _beat(self) -> None:
        """Have the others report, as workers do that are alive."""
        while not self._ended.wait(1.0):
            for name in list(self._reports):
                self._say(name)

    def _say(self, name: str) -> None:
        with self._lock:
            self._bus.heartbeat(name, self._reports[name], lifetime=LIFETIME, anew=True)

    def configure(self, **more: Any) -> None:
        fleet = {"BACKEND": BUS, "OPTIONS": {"url": self._url}}
        super().configure(**{"FLEET": fleet, **more})

    def report(self, name: str, cursor: Cursor | None = None, *, blind: bool = False) -> None:
        """Have another worker say that it has read up to ``cursor``."""
        now = round(self.clock())
        place = cursor and list(cursor[:2])
        head = {
            "host": name.partition(":")[0], "pid": 7, "kind": "gunicorn", "started": now - 5000.0,
            "mode": "available", "lag": 3.5 if blind else 0.1, "blind": blind, "cursor": place,
            "answers": {},
        }  # fmt: skip
        facts = {DB: ["another", now - 60, now + 100, now + 200, 0, ""]}
        said = {ref: json.dumps(fact) for ref, fact in facts.items()}
        self._reports[name] = {"": json.dumps(head), **said}
        self._say(name)

    def populate(self) -> None:
        super().populate()
        registry.start()
        until(lambda: registry.fleet is not None and registry.fleet.joined)
        until(lambda: registry.fleet.name in [one.name for one in registry.fleet.workers()])
        self.report(LATE)
        self.report(BLIND, blind=True)


@pytest.fixture
def shown(settings: Any, redis: Any, monkeypatch: Any) -> Iterator[FleetShown]:
    # Only what is populated in the end begins to report.
    monkeypatch.setattr(registry, "started", False)
    # What another test's settings had for a moment ends by itself; see test_fleet_commands.
    until(lambda: not any(one.name == LISTENER for one in threading.enumerate()))
    redis.reset()
    with FleetShown(settings, redis) as it:
        it.populate()
        yield it


def every_page(shown: FleetShown) -> Iterator[tuple[str, str]]:
    """Yield the name of each page that a fleet has a part in, and where it is."""
    assert registry.fleet is not None
    sent = registry.fleet.tell("evict", "aws://nothing")
    place = {"log": sent.last.log, "number": str(sent.last.number)}
    yield "workers", url(WORKERS)
    yield "blind workers", url(WORKERS, state="blind", o="1.-2")
    yield "worker", url(WORKERS, "change/", BLIND)
    yield "evict all", url(WORKERS, "evict-all/")
    yield "refresh all", url(WORKERS, "refresh-all/")
    yield "progress", url(SECRETS, "applied/", **place)
    yield "secrets", url(SECRETS)
    yield "secret", url(SECRETS, "change/", DB)
    yield "providers", url(PROVIDERS)
    yield "provider", url(PROVIDERS, "change/", "aws@eu-central-1")
    shown.configure(FLEET={"BACKEND": BUS, "OPTIONS": {"url": "redis://127.0.0.1:9"}})
    yield "workers, bus down", url(WORKERS)


@pytest.mark.parametrize("mode", MODES)
def test_every_page_is_as_accessible_as_django_s_own(
    shown: FleetShown, desk: Desk, mode: str
) -> None:
    """In light, in dark and on a phone, axe-core finds nothing that Django's own pages lack."""
    judge(desk, mode, every_page(shown))


def test_the_policy_blocks_nothing_and_no_page_is_wider_than_its_window(
    shown: FleetShown, desk: Desk
) -> None:
    """Under ``default-src 'self'``; and on a phone nothing but the table scrolls sideways."""
    with desk.opened() as page:
        for name, where in every_page(shown):
            answer = page.goto(where)
            assert answer is not None
            assert (answer.status, answer.headers["content-security-policy"]) == (200, POLICY), name
            for width in (320, browsers.NARROW, 800, browsers.WIDE):
                page.set_viewport_size({"width": width, "height": 900})
                assert browsers.overflow(page) <= 0, f"{name}, {width}"


@pytest.mark.parametrize("width", [320, browsers.NARROW, browsers.WIDE])
def test_state_report_and_lag_are_seen_at_a_glance(
    shown: FleetShown, desk: Desk, width: int
) -> None:
    """Of each worker, without scrolling sideways."""
    with desk.opened(url(WORKERS), width=width) as page:
        edge = page.locator(".results").evaluate("e => e.getBoundingClientRect().right")
        assert page.locator("#result_list tbody tr").count() == 3
        for column in ("state", "reported", "lag"):
            for cell in page.locator(f"#result_list :is(.column-{column}, .field-{column})").all():
                box = cell.bounding_box()
                assert box is not None
                assert 0 <= box["x"] < box["x"] + box["width"] <= edge + 1


def test_a_fleet_that_disagrees_is_seen(shown: FleetShown, desk: Desk) -> None:
    """In the list of secrets, and with numbers on the page of the secret."""
    assert registry.fleet is not None
    registry.fleet.send("evict", [("aws", "", "", "nothing")])
    until(lambda: sum(DB in one.secrets for one in registry.fleet.workers()) == 3)
    with desk.opened(url(SECRETS)) as page:
        row = page.locator("tr", has=page.get_by_role("link", name=DB, exact=True))
        assert row.locator(".field-held_by").inner_text() == "3 / 3"
        assert "they differ" in row.locator(".field-versions").inner_text()
        row.get_by_role("link", name=DB, exact=True).click()
        assert "2 × another" in page.locator(".field-versions .readonly").inner_text()


def evicted_by_keyboard(page: Page) -> None:
    """Evict everything from the list of workers, without a mouse."""
    press(page, page.get_by_role("link", name="Evict all", exact=True), "Enter")
    page.wait_for_url("**/evict-all/")
    press(page, page.get_by_role("button", name=YES), "Enter")
    page.wait_for_url("**/applied/?**")


def end_of_log() -> Cursor:
    assert registry.fleet is not None
    assert registry.fleet.sent is not None
    return registry.fleet.sent.last


def test_the_page_of_an_action_follows_the_fleet_by_itself(shown: FleetShown, desk: Desk) -> None:
    """By keyboard alone; what comes is told to a screen reader, and nothing is loaded anew."""
    with desk.opened(url(WORKERS)) as page:
        evicted_by_keyboard(page)
        told = page.get_by_role("status")
        page.evaluate("document.body.dataset.mark = 'here'")
        told.get_by_text("1 of 3 applied, 1 blind, 1 to come.").wait_for()
        assert told.get_attribute("role") == "status"
        shown.report(LATE, end_of_log())
        told.get_by_text("2 of 3 applied, 1 blind.").wait_for()
        assert page.locator("progress").evaluate("e => e.value / e.max") == pytest.approx(2 / 3)
        assert page.evaluate("document.body.dataset.mark") == "here"
        press(page, page.get_by_role("link", name="Go back"), "Enter")
        page.wait_for_url(re.compile("/worker/$"))


def test_without_a_script_the_page_of_an_action_is_looked_at_again(
    shown: FleetShown, desk: Desk, server: str, operator: Client
) -> None:
    """A link says how far it has come by now, until all have answered."""
    with browsers.opened(desk._browser, base_url=server, java_script_enabled=False) as page:
        session = operator.cookies["sessionid"].value
        page.context.add_cookies([{"name": "sessionid", "value": session, "url": server}])
        page.goto(url(WORKERS, "evict-all/"))
        page.get_by_role("button", name=YES).click()
        again = page.get_by_role("link", name="Look again")
        again.wait_for()
        shown.report(LATE, end_of_log())
        for _ in range(50):
            if not again.count():
                break
            again.click()
        assert "2 of 3 applied, 1 blind." in page.get_by_role("status").inner_text()
