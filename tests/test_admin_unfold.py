"""The admin's pages in django-unfold's theme, in a real browser: seen, judged and used."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.admin_support import PROVIDERS, SECRETS, url
from tests.servers import browser as browsers
from tests.servers.process import free_port, running

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NO_UNFOLD = importlib.util.find_spec("unfold") is None
pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(bool(browsers.missing()), reason=f"no browser: {browsers.missing()}"),
    pytest.mark.skipif(NO_UNFOLD, reason="needs django-unfold: pip install django-unfold"),
]

ROOT = Path(__file__).parents[1]
DB = "memory://db"
PAGES = {
    "list": url(SECRETS),
    "secret": url(SECRETS, "change/", DB),
    "evict": url(SECRETS, "evict/", DB),
    "provider": url(PROVIDERS, "change/", "memory@-"),
    "workers": url("worker"),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    database = tmp_path_factory.mktemp("unfold") / "db.sqlite3"
    where = ["env", "--chdir", str(ROOT), f"PYTHONPATH={ROOT}"]
    site = [sys.executable, "-u", "-m", "tests.projects.unfold_site", str(database), str(port)]
    with running([*where, *site], ready="Quit the server"):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsers.chromium() as running:
        yield running


@pytest.fixture(scope="module")
def session(browser: Browser, server: str) -> Any:
    """The cookies of somebody who is logged in."""
    with browsers.opened(browser, base_url=server) as page:
        page.goto("/admin/")
        page.locator("input[name=username]").fill("root")
        page.locator("input[name=password]").fill("root")
        page.locator("button[type=submit]").first.click()
        page.get_by_text("root").first.wait_for()
        return page.context.storage_state()


@contextmanager
def opened(browser: Browser, server: str, session: Any, **how: Any) -> Iterator[Page]:
    """Open a page; what the browser complains of in the meantime is an error."""
    complaints: list[str] = []
    with browsers.opened(browser, base_url=server, storage_state=session, **how) as page:
        page.on("pageerror", lambda error: complaints.append(str(error)))
        yield page
    assert complaints == []


@pytest.mark.parametrize(("scheme", "names"), [("light", [*PAGES]), ("dark", ["list", "evict"])])
def test_every_page(
    browser: Browser, server: str, session: Any, scheme: str, names: list[str]
) -> None:
    """Each page tells its process and fits its window, and is as accessible as unfold's own."""
    with opened(browser, server, session, scheme=scheme) as page:
        theirs: set[str] = set()
        for own in ("", "1/change/"):
            page.goto(f"/admin/auth/user/{own}")
            theirs |= set(browsers.violations(page))
        for name in names:
            answer = page.goto(PAGES[name])
            assert answer is not None
            assert answer.status == 200, name
            assert page.locator(".secret-registry-process").is_visible(), name
            found = browsers.violations(page)
            assert set(found) <= theirs, f"{name}: {found}"
            for width in (browsers.NARROW, browsers.WIDE):
                page.set_viewport_size({"width": width, "height": 900})
                assert browsers.overflow(page) <= 0, f"{name}, {width}"


@pytest.mark.parametrize(("system", "chosen"), [("dark", "light"), ("light", "dark")])
def test_the_theme_that_is_chosen(
    browser: Browser, server: str, session: Any, system: str, chosen: str
) -> None:
    """A state has the colours of unfold's own switch, whatever the system's are."""
    with opened(browser, server, session, scheme=system) as page:
        page.goto(PAGES["list"])
        page.evaluate(f"localStorage.setItem('adminTheme', '\"{chosen}\"')")
        page.goto(PAGES["list"])
        page.wait_for_function(
            "dark => document.documentElement.classList.contains('dark') === dark",
            arg=chosen == "dark",
        )
        colour = page.locator(".secret-registry-good").first.evaluate(
            "element => getComputedStyle(element).color"
        )
        assert colour == {"light": "rgb(27, 110, 60)", "dark": "rgb(127, 214, 160)"}[chosen]


def test_an_operator_evicts(browser: Browser, server: str, session: Any) -> None:
    """Select, run, confirm, message, history: one click after the other."""
    with opened(browser, server, session) as page:
        page.goto(PAGES["list"])
        row = page.locator("tr", has=page.get_by_role("link", name=DB, exact=True))
        row.get_by_role("checkbox").check()
        page.locator("select[name=action]").select_option(label="Evict selected secrets")
        page.locator("button[name=index]").click()
        asked = page.locator(".secret-registry-asked")
        assert asked.inner_text() == "Evict 1 cached secret?"
        assert page.locator(".secret-registry-names li").all_inner_texts() == [DB]
        page.get_by_role("button", name=re.compile("Yes, I.m sure")).click()
        page.get_by_text("Evicted 1 cached secret.").wait_for()
        assert "absent" in row.inner_text()
        page.get_by_role("link", name=DB, exact=True).click()
        page.get_by_role("link", name="Refresh", exact=True).click()
        page.get_by_role("button", name=re.compile("Yes, I.m sure")).click()
        page.get_by_text("Refreshed 1 cached secret.").wait_for()
        page.goto(url(SECRETS, "history/", DB))
        assert "evict: ok" in page.locator("#content, main").first.inner_text()
