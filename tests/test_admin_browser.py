"""The admin's pages in a real browser: seen, judged by axe-core, and used by mouse and keyboard."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.test import Client, override_settings
from pytest_django.live_server_helper import LiveServer

from django_secret_registry import registry
from tests.admin_support import PASSWORD, PROVIDERS, SECRETS, Shown, down, state, url
from tests.servers import browser as browsers

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = [
    pytest.mark.full,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(bool(browsers.missing()), reason=f"no browser: {browsers.missing()}"),
]

DB = "aws://prod/db"
YES = re.compile("Yes, I.m sure")
#: How a page is looked at: the width of the window, and the scheme of colours.
MODES = {
    "light": (browsers.WIDE, "light"),
    "dark": (browsers.WIDE, "dark"),
    "phone": (browsers.NARROW, "light"),
}
#: Runs before anything of a page does: what its policy forbids is told to the test.
LISTEN = """
document.addEventListener('securitypolicyviolation', (event) => {
    tellViolation(`${event.violatedDirective} ${event.blockedURI}`);
});
"""
POLICY = "default-src 'self'"


def strict_policy(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Middleware: nothing inline, nothing from elsewhere."""

    def middleware(request: Any) -> Any:
        response = get_response(request)
        response["Content-Security-Policy"] = POLICY
        return response

    return middleware


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with pytest.MonkeyPatch.context() as patch, browsers.chromium() as running:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
        yield running


@pytest.fixture(scope="module")
def server(django_db_setup: None, django_db_blocker: Any, browser: Browser) -> Iterator[str]:
    """Serve the project under a strict policy; return its URL."""
    from django.conf import settings

    changes = {
        "ALLOWED_HOSTS": ["127.0.0.1"],
        "MIDDLEWARE": [f"{__name__}.strict_policy", *settings.MIDDLEWARE],
        "PASSWORD_HASHERS": ["django.contrib.auth.hashers.MD5PasswordHasher"],
    }
    with django_db_blocker.unblock(), override_settings(**changes):
        live = LiveServer("127.0.0.1")
        try:
            yield live.url
        finally:
            live.stop()


@pytest.fixture
def shown(settings: Any) -> Iterator[Shown]:
    with Shown(settings) as it:
        it.populate()
        yield it


@pytest.fixture
def operator() -> Client:
    """Return a superuser's session."""
    client = Client()
    client.force_login(User.objects.create_superuser("root", password=PASSWORD))
    return client


class Desk:
    """Opens pages for the operator, and keeps what the browser complains of."""

    def __init__(self, browser: Browser, server: str, operator: Client) -> None:
        self._browser, self._server = browser, server
        self._session = operator.cookies["sessionid"].value
        self.violations: list[str] = []  # of the policy
        self.complaints: list[str] = []  # errors and warnings of whatever kind

    @contextmanager
    def opened(self, where: str = "", **how: Any) -> Iterator[Page]:
        with browsers.opened(self._browser, base_url=self._server, **how) as page:
            page.context.add_cookies(
                [{"name": "sessionid", "value": self._session, "url": self._server}]
            )
            page.expose_function("tellViolation", self._note_violation)
            page.add_init_script(LISTEN)
            page.on("console", self._note)
            page.on("pageerror", lambda error: self.complaints.append(str(error)))
            if where:
                page.goto(where)
            yield page

    def _note_violation(self, text: str) -> None:
        self.violations.append(text)

    def _note(self, message: Any) -> None:
        if message.type in ("error", "warning") and "favicon.ico" not in str(message.location):
            self.complaints.append(message.text)


@pytest.fixture
def desk(browser: Browser, server: str, operator: Client) -> Iterator[Desk]:
    it = Desk(browser, server, operator)
    yield it
    assert it.violations == []
    assert it.complaints == [], "the browser complained"


def every_page(shown: Shown) -> Iterator[tuple[str, str]]:
    """Yield the name of each page and where it is, with the registry as that page needs it."""
    yield "list", url(SECRETS)
    yield "filtered list", url(SECRETS, state="fresh", provider="aws", q="prod", o="1.-2")
    yield "nothing found", url(SECRETS, q="nothing-like-that")
    yield "secret", url(SECRETS, "change/", "gcp://pagerduty-token")
    yield "history", url(SECRETS, "history/", DB)
    yield "refresh", url(SECRETS, "refresh/", DB)
    yield "evict", url(SECRETS, "evict/", DB)
    yield "evict all", url(SECRETS, "evict-all/")
    yield "providers", url(PROVIDERS)
    yield "provider", url(PROVIDERS, "change/", "aws@eu-central-1")
    shown.configure(OFFLINE=True)
    yield "offline, empty list", url(SECRETS)


@pytest.mark.parametrize("mode", MODES)
def test_every_page_is_as_accessible_as_django_s_own(
    shown: Shown, desk: Desk, operator: Client, mode: str
) -> None:
    """In light, in dark and on a phone, axe-core finds nothing that Django's own pages lack."""
    operator.post(url(SECRETS, "refresh/", DB), {"confirmed": "yes"})
    judge(desk, mode, every_page(shown))


def judge(desk: Desk, mode: str, pages: Iterable[tuple[str, str]]) -> None:
    """Look at Django's own pages with axe-core, and then at ours, which must not be worse."""
    width, scheme = MODES[mode]
    # As many and as long as our rows: whether a link stands in a text depends on the text.
    name = "somebody-with-quite-a-long-name@some-department-{}"
    users = [User.objects.create_user(name.format(number)) for number in range(11)]
    with desk.opened(width=width, scheme=scheme) as page:
        djangos: set[str] = set()
        for own in ("", "?q=somebody&is_staff__exact=0&o=1", f"{users[0].pk}/change/"):
            page.goto(f"/admin/auth/user/{own}")
            djangos |= set(browsers.violations(page))
        for name, where in pages:
            page.goto(where)
            found = browsers.violations(page)
            assert set(found) <= djangos, f"{name}: {found}"
            nodes = [node for nodes in found.values() for node in nodes]
            assert not any("secret-registry" in node for node in nodes), name
    # axe-core styles what it looks at, which the policy forbids; see the tests below.
    assert {text.split()[0] for text in desk.violations} <= {"style-src-elem", "style-src-attr"}
    desk.violations.clear()
    desk.complaints.clear()


def test_the_policy_blocks_nothing(shown: Shown, desk: Desk, server: str) -> None:
    """Under ``default-src 'self'`` every page comes with its style, and is not broken."""
    with desk.opened() as page:
        for name, where in every_page(shown):
            answer = page.goto(where)
            assert answer is not None
            assert (answer.status, answer.headers["content-security-policy"]) == (200, POLICY), name
            sheets = page.evaluate("Array.from(document.styleSheets, sheet => sheet.href)")
            ours = f"{server}/static/django_secret_registry/admin.css"
            assert ours in sheets or name == "history", name
    assert (desk.violations, desk.complaints) == ([], [])


def test_a_violation_of_the_policy_would_be_told(shown: Shown, desk: Desk) -> None:
    """What the policy forbids does reach the test: a style, and a script from elsewhere."""
    with desk.opened(url(SECRETS)) as page:
        for tag, attribute, value in (
            ("p", "style", "color: red"),
            ("script", "src", "http://localhost:9/x.js"),
        ):
            page.evaluate(
                "([tag, name, value]) => { const it = document.createElement(tag);"
                " it.setAttribute(name, value); document.body.append(it); }",
                [tag, attribute, value],
            )
        for _ in range(100):
            page.wait_for_timeout(20)  # lets the browser's events come
            if len(desk.violations) == 2:
                break
        assert [text.split()[0] for text in desk.violations] == [
            "style-src-attr",
            "script-src-elem",
        ]
    desk.violations.clear()
    desk.complaints.clear()


@pytest.mark.parametrize("language", ["en", "ar"])
def test_no_page_is_wider_than_its_window(
    shown: Shown, desk: Desk, settings: Any, language: str
) -> None:
    """On a phone nothing but the table scrolls sideways, in either direction of writing."""
    shown.hold(f"aws://{'a-very-long-name/' * 12}?version=1234567890abcdef")
    settings.LANGUAGE_CODE = language
    with desk.opened() as page:
        for name, where in every_page(shown):
            page.goto(where)
            for width in (320, browsers.NARROW, 800, browsers.WIDE):
                page.set_viewport_size({"width": width, "height": 900})
                assert browsers.overflow(page) <= 0, f"{name}, {width}"


@pytest.mark.parametrize(("width", "model"), [(800, SECRETS), (browsers.WIDE, PROVIDERS)])
def test_a_table_scrolls_in_its_own_region(
    shown: Shown, desk: Desk, width: int, model: str
) -> None:
    """The columns that do not fit are reached by scrolling the table alone."""
    with desk.opened(url(model), width=width) as page:
        hidden = page.locator(".results").evaluate("e => e.scrollWidth - e.clientWidth")
        assert hidden > 0
        region = page.locator("#result_list tbody tr:first-child td.field-region")
        region.scroll_into_view_if_needed()
        assert region.is_visible()
        assert browsers.overflow(page) <= 0


@pytest.mark.parametrize("width", [320, browsers.NARROW, browsers.WIDE])
def test_state_and_times_are_seen_at_a_glance(shown: Shown, desk: Desk, width: int) -> None:
    """State, age and next refresh of each secret lie in the window without scrolling sideways."""
    with desk.opened(url(SECRETS), width=width) as page:
        edge = page.locator(".results").evaluate("e => e.getBoundingClientRect().right")
        for column in ("state", "fetched", "next_refresh"):
            for cell in page.locator(f"#result_list :is(.column-{column}, .field-{column})").all():
                box = cell.bounding_box()
                assert box is not None
                assert 0 <= box["x"] < box["x"] + box["width"] <= edge + 1


def test_a_table_on_a_phone_is_a_table_to_a_screen_reader(shown: Shown, desk: Desk) -> None:
    """Rows that stand on two lines are still rows, headed by their reference, with cells."""
    with desk.opened(url(SECRETS), width=browsers.NARROW) as page:
        session = page.context.new_cdp_session(page)
        nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    roles = Counter(node["role"]["value"] for node in nodes if not node["ignored"])
    assert roles["table"] == 1
    assert roles["row"] == 1 + 12
    assert roles["rowheader"] == 12
    assert roles["columnheader"] == 5  # one for the checkboxes
    assert roles["cell"] + roles["gridcell"] == 4 * 12


def test_times_go_on_while_a_page_is_open(shown: Shown, desk: Desk) -> None:
    """Ages grow and what lies ahead comes nearer; the first tick changes no word of the server."""
    shown.clock.forward(10)
    with desk.opened() as page:
        page.clock.install(time=shown.clock() - 10)
        page.clock.pause_at(shown.clock() + 0.5)
        page.goto(url(SECRETS))
        row = page.locator("tr", has=page.get_by_role("link", name=DB, exact=True))
        fetched, refresh = row.locator(".field-fetched"), row.locator(".field-next_refresh")
        before = page.locator("time").all_inner_texts()
        assert (fetched.inner_text(), refresh.inner_text()) == ("1 minute ago", "in 2 minutes")
        page.clock.run_for(1000)
        assert page.locator("time").all_inner_texts() == before
        page.clock.run_for(60_000)
        assert (fetched.inner_text(), refresh.inner_text()) == ("2 minutes ago", "in 1 minute")
        page.clock.run_for(180_000)
        assert (fetched.inner_text(), refresh.inner_text()) == ("5 minutes ago", "at the next read")


def test_an_operator_evicts_by_mouse(shown: Shown, desk: Desk) -> None:
    """List, filter, select, evict, confirm, log entry: one click after the other."""
    with desk.opened("/admin/") as page:
        page.get_by_role("link", name="Secrets").first.click()
        page.get_by_role("link", name="fresh (4)").click()
        page.get_by_role("link", name="aws (3)").click()
        page.wait_for_url("**provider=aws**")
        names = page.locator("#result_list tbody th a").all_inner_texts()
        assert names == [DB, "aws://prod/django", "aws://prod/smtp"]
        for name in names[:2]:
            row = page.locator("tr", has=page.get_by_role("link", name=name, exact=True))
            row.get_by_role("checkbox").check()
        assert "2 of 3 selected" in page.locator(".action-counter").inner_text()
        page.get_by_label("Action:").select_option(label="Evict selected secrets")
        run(page).click()
        assert "Evict 2 secrets?" in page.locator("h1").inner_text()
        assert page.locator(".secret-registry-names li").all_inner_texts() == names[:2]
        page.get_by_role("button", name=YES).click()
        assert "Evicted 2 secrets." in page.locator(".messagelist").inner_text()
        assert "state=fresh" in page.url
        assert page.locator("#result_list tbody th a").all_inner_texts() == names[2:]
        page.goto("/admin/")
        assert DB in page.locator("#recent-actions-module").inner_text()
    assert [state(name) for name in names] == ["", "", "fresh"]


def test_an_operator_takes_a_question_back(shown: Shown, desk: Desk) -> None:
    """The answer no leads back to where the question was asked, and nothing is done."""
    with desk.opened(url(SECRETS, state="stale")) as page:
        page.locator("#action-toggle").check()
        page.get_by_label("Action:").select_option(label="Evict selected secrets")
        run(page).click()
        page.get_by_text("No, take me back").click()
        page.wait_for_url("**?state=stale")
        page.locator("#result_list tbody th a").first.click()
        page.get_by_role("link", name="Evict", exact=True).click()
        page.get_by_text("No, take me back").click()
        page.wait_for_url("**/change/")
    assert state("aws://prod/search") == "stale"
    assert not LogEntry.objects.exists()


def test_an_operator_works_by_keyboard_alone(shown: Shown, desk: Desk) -> None:
    """Filter, select, evict, confirm and the log entry need no mouse."""
    with desk.opened(url(SECRETS)) as page:
        press(page, page.get_by_role("link", name="fresh (4)"), "Enter")
        page.wait_for_url("**?state=fresh")
        row = page.locator("tr", has=page.get_by_role("link", name=DB, exact=True))
        press(page, page.get_by_label("Action:"), "e")
        press(page, row.get_by_role("checkbox"), "Space")
        press(page, run(page), "Enter", backwards=True)
        press(page, page.get_by_role("button", name=YES), "Enter")
        page.wait_for_selector(".messagelist .success")
        press(page, page.get_by_role("link", name="Home"), "Enter", backwards=True)
        page.wait_for_url("**/admin/")
        assert DB in page.locator("#recent-actions-module").inner_text()
    assert state(DB) == ""
    assert LogEntry.objects.get().object_id == DB


def test_a_failing_provider_by_keyboard_alone(shown: Shown, desk: Desk) -> None:
    """A refresh that fails says why and what to do; the value is still served, and it is logged."""
    shown.script.answers["prod/db"] = down()
    with desk.opened(url(SECRETS)) as page:
        press(page, page.get_by_role("link", name=DB, exact=True), "Enter")
        page.wait_for_url("**/change/")
        press(page, page.get_by_role("link", name="Refresh", exact=True), "Enter")
        page.wait_for_url("**/refresh/")
        press(page, page.get_by_role("button", name=YES), "Enter")
        page.wait_for_url("**/change/")
        message = page.locator(".messagelist .error").inner_text()
        for part in ("does not answer", DB, "aws", "eu-central-1", "goes on serving"):
            assert part in message
        shown_state = page.locator(".field-state .readonly").inner_text()
        assert shown_state.split() == ["●", "fresh", "last", "attempt:", "unavailable"]
        press(page, page.get_by_role("link", name="History"), "Enter", backwards=True)
        page.wait_for_url("**/history/")
        assert "refresh: unavailable" in page.locator("#change-history").inner_text()
    assert registry.fetch(DB).version == "5"


def run(page: Page) -> Locator:
    """Return the button that runs an action; its word depends on Django's version."""
    return page.locator(".actions button[name=index]")


def press(page: Page, target: Locator, key: str, *, backwards: bool = False) -> None:
    """Go to ``target`` by the tabulator, as often as it takes, and press ``key`` there."""
    target.wait_for()
    for _ in range(150):
        page.keyboard.press("Shift+Tab" if backwards else "Tab")
        if target.evaluate("element => element === document.activeElement"):
            page.keyboard.press(key)
            return
    raise AssertionError("the keyboard does not get there")
