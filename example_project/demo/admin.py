"""An operator's walk through the admin in a real browser, and pictures of what is seen there."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from . import browser as browsers
from .site import Site
from .steps import DemoError, check, done, title
from .stores import Store
from .tour import HIDDEN

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

USERNAME = PASSWORD = "demo"  # noqa: S105 - of a demonstration on 127.0.0.1
#: Made for ``manage.py createsuperuser``.
ENVIRONMENT: Mapping[str, str] = {"DJANGO_SUPERUSER_PASSWORD": PASSWORD}

ADMIN = "/admin/"
SECRETS, PROVIDERS = (
    f"{ADMIN}django_secret_registry/{model}/" for model in ("cachedsecret", "cachedprovider")
)
STRIPE = "store://shop-stripe"
YES = re.compile("Yes, I.m sure")
#: How a page is looked at: the width of the window, and the scheme of colours.
VIEWS = {
    "light": (browsers.WIDE, "light"),
    "dark": (browsers.WIDE, "dark"),
    "phone": (browsers.NARROW, "light"),
}
#: The menu at the side leaves the table more room when it is closed.
CLOSE_MENU = "localStorage.setItem('django.admin.navSidebarIsOpen', 'false')"


def create(site: Site) -> None:
    """Create the account that :data:`USERNAME` and :data:`PASSWORD` log in to."""
    site.manage(
        "createsuperuser", "--no-input", "--username", USERNAME, "--email", "demo@example.com",
        "--verbosity", "0",
    )  # fmt: skip


class Operator:
    """Looks, evicts, and leaves pictures in ``folder``."""

    def __init__(self, url: str, store: Store, folder: Path) -> None:
        self._url, self._store, self._folder = url, store, folder

    def walk(self) -> None:
        title("An operator looks at the admin")
        if lacking := browsers.missing():
            print(f"   no pictures of the admin without a browser: {lacking}", flush=True)
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        with browsers.chromium() as browser:
            for view in VIEWS:
                with self._logged_in(browser, view) as page:
                    self._look(page, view)
            with self._logged_in(browser, "light") as page:
                self._evict(page)
        done(f"pictures are in {self._folder}")

    @contextlib.contextmanager
    def _logged_in(self, browser: Browser, view: str) -> Iterator[Page]:
        width, scheme = VIEWS[view]
        with browsers.opened(browser, width=width, scheme=scheme, base_url=self._url) as page:
            page.set_viewport_size({"width": width, "height": 480})  # a picture ends with its page
            page.add_init_script(CLOSE_MENU)
            page.goto(ADMIN)
            page.get_by_label("Username").fill(USERNAME)
            page.get_by_label("Password").fill(PASSWORD)
            page.get_by_role("button", name="Log in").click()
            page.wait_for_url(f"**{ADMIN}")
            yield page

    def _look(self, page: Page, view: str) -> None:
        page.goto(SECRETS)
        self._take(page, f"secrets-{view}")
        page.get_by_role("link", name=STRIPE, exact=True).click()
        page.wait_for_url("**/change/")
        self._take(page, f"secret-{view}")
        page.get_by_role("link", name="Evict", exact=True).click()
        page.wait_for_url("**/evict/")
        self._take(page, f"evict-{view}")
        page.goto(PROVIDERS)
        self._take(page, f"providers-{view}")

    def _evict(self, page: Page) -> None:
        page.goto(SECRETS)
        page.get_by_role("link", name=STRIPE, exact=True).click()
        page.get_by_role("link", name="Evict", exact=True).click()
        page.get_by_role("button", name=YES).click()
        page.wait_for_selector(".messagelist .success")
        page.goto(ADMIN)
        actions = page.inner_text("#recent-actions-module")
        check("an eviction is confirmed, done and logged", STRIPE in actions)

    def _take(self, page: Page, name: str) -> None:
        """Take a picture, once it is sure that it shows no secret."""
        text = page.content()
        if any(self._store.value(*secret) in text for secret in HIDDEN):
            raise DemoError(f"the page of {name} shows a secret")
        page.screenshot(path=self._folder / f"{name}.png", full_page=True)
