"""The admin's pages: what they show of secrets and providers, do to them, and write down."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.contrib.auth.models import User
from django.contrib.messages import get_messages
from django.core.management import call_command
from django.test import Client
from django.utils import translation

from django_secret_registry import AccessDenied, ProviderError, SecretValue, registry
from django_secret_registry.models import (
    CachedProvider,
    CachedSecret,
    FleetEvent,
    FleetLog,
    FleetReport,
)
from tests.admin_support import APP, PROVIDERS, SECRETS, Shown, down, selection, state, url
from tests.canary import CANARY, canary
from tests.live_support import Project
from tests.scripted import until

CONFIRMED = {"confirmed": "yes"}
DB = "aws://prod/db"


@pytest.fixture
def shown(settings: Any) -> Iterator[Shown]:
    with Shown(settings) as it:
        yield it


@pytest.fixture
def client(db: None) -> Client:
    """Return the browser of a superuser."""
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    return client


def text(client: Client, where: str) -> str:
    """Return what a page says, without its markup."""
    response = client.get(where)
    assert response.status_code == 200, where
    body = response.content.decode().partition("<main")[2]
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", body)).split())


def said(response: Any) -> list[str]:
    """Return the messages of a response, with their level."""
    return [f"{one.level_tag}: {one.message}" for one in get_messages(response.wsgi_request)]


# -- what is shown -------------------------------------------------------------------------------


def test_the_list_shows_the_life_of_each_secret(shown: Shown, client: Client) -> None:
    """State, age, next refresh, hits, version, provider and region stand in the row, in words."""
    shown.populate()
    rows = re.findall(r"<tr>(.*?)</tr>", client.get(url(SECRETS)).content.decode(), re.DOTALL)
    cells = {
        found[1]: [
            " ".join(unescape(re.sub(r"<[^>]*>", " ", cell)).split())
            for cell in re.findall(r'<t[dh] class="field-[^>]*>(.*?)</t[dh]>', row, re.DOTALL)
        ]
        for row in rows
        if (found := re.search(r'name="_selected_action" value="([^"]*)"', row))
    }
    assert cells[DB] == [
        DB, "● fresh", "1 minute ago", "in 3 minutes", "128", "5", "aws", "eu-central-1",
    ]  # fmt: skip
    assert cells["aws://prod/redis"][1:4] == ["◐ due", "4 minutes ago", "at the next read"]
    assert cells["aws://prod/search"][1:3] == ["▲ stale 16 min over TTL", "21 minutes ago"]
    expired = cells["aws://legacy/ftp?region=eu-west-1"]
    assert expired[1:3] == ["✕ expired 1 h over TTL", "1 hour ago"]
    assert expired[-1] == "eu-west-1"
    assert cells["aws://prod/django-previous"][1] == "∅ refused last attempt: not found"
    assert cells["gcp://pagerduty-token"][1:4] == ["✕ absent last attempt: denied", "-", "-"]
    assert cells["gcp://sentry-dsn"][1:] == ["○ absent", "-", "-", "0", "-", "gcp", "-"]


@pytest.mark.parametrize(
    ("version", "listed"),
    [
        ("202611241200", "202611241200"),
        ("8afde80e-b752-412e-bce8-24463e29a11a", "8afde80e…"),
    ],
)
def test_a_long_version_is_cut_in_the_list(
    shown: Shown, client: Client, version: str, listed: str
) -> None:
    """An id of 36 characters does not make rows tall: a tooltip and the secret's page have it."""
    shown.script.answers["prod/db"] = SecretValue(canary(), version=version)  # type: ignore[arg-type]
    registry.get(DB)
    page = client.get(url(SECRETS)).content.decode()
    cell = page.partition('<td class="field-version">')[2].partition("</td>")[0]
    assert re.sub(r"<[^>]*>", "", cell) == listed
    assert version in cell
    assert f"Version: {version} " in text(client, url(SECRETS, "change/", DB))


def test_a_secret_that_is_being_fetched_says_so(shown: Shown, client: Client) -> None:
    """While a first fetch is under way, the state is ``loading``."""
    begun, go_on = threading.Event(), threading.Event()

    def wait(ref: object) -> str:
        begun.set()
        go_on.wait(20)
        return canary("late")

    shown.script.answers["slow"] = wait
    reader = threading.Thread(target=lambda: registry.get("aws://slow"))
    reader.start()
    assert begun.wait(20)
    try:
        assert "◌ loading" in text(client, url(SECRETS))
    finally:
        go_on.set()
        reader.join()


def test_the_page_of_a_secret_shows_its_whole_life(shown: Shown, client: Client) -> None:
    """Reference, version, state, exact times, hits, last error, and who evicted it and when."""
    shown.configure(SECRETS={"orders": "aws://prod/db#password"})
    shown.hold(DB)
    registry.evict(DB, by="ada")
    shown.clock.forward(100)
    shown.hold(DB)
    shown.clock.forward(250)
    shown.script.answers["prod/db"] = down()
    registry.get(DB)  # a refresh begins in the background, and fails
    until(lambda: registry.snapshot().secrets[0].attempts == 1)
    page = text(client, url(SECRETS, "change/", DB))
    for fact in (
        "Cached secret aws://prod/db",
        "Region: eu-central-1",
        "Named in: SECRETS['orders']",
        "◐ due last attempt: unavailable",
        "Fetched: 4 minutes ago (2",
        "TTL: 5 min",
        "Next refresh: in ",
        "Served at most until: in 1 hour (2",
        "Expires at the issuer: -",
        "Last error: the backend does not answer",
        "Failed attempts in a row: 1",
        "Next attempt: in ",
        "Evicted: 5 minutes ago (2",
        "Evicted by: ada",
    ):
        assert fact in page
    assert re.search(r"\(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [A-Z+0-9]+\)", page)


def test_a_leased_secret_shows_when_it_expires(shown: Shown, client: Client) -> None:
    """The issuer's end of a value stands on its page."""
    ends = shown.clock() + 7200
    shown.script.answers["lease"] = SecretValue(canary("lease"), version="1", expires_at=ends)  # type: ignore[arg-type]
    registry.get("aws://lease")
    page = text(client, url(SECRETS, "change/", "aws://lease"))
    assert "Expires at the issuer: in 2 hours" in page


def test_times_are_for_machines_too(shown: Shown, client: Client) -> None:
    """A time has its exact form in a tooltip and in an attribute that the page's script reads."""
    shown.hold(DB)
    shown.clock.forward(180)
    page = client.get(url(SECRETS)).content.decode()
    found = re.search(r'<time datetime="([^"]+)" title="([^"]+)">3 minutes ago</time>', page)
    assert found
    assert found[1].endswith("+00:00")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \w+", found[2])
    assert 'data-past="at the next read"' in page


def test_every_page_says_which_process_it_shows(shown: Shown, client: Client) -> None:
    """Host, process and its age stand on lists, pages and confirmations."""
    shown.hold(DB)
    snapshot = registry.snapshot()
    expected = f"Process {snapshot.pid} on {snapshot.host}, started 1 hour ago ."
    for page, key in (("", ""), ("change/", DB), ("evict/", DB), ("evict-all/", "")):
        assert expected in text(client, url(SECRETS, page, key))


def test_offline_mode_is_announced(shown: Shown, client: Client) -> None:
    """In offline mode every page says so, and a refresh that it forbids says why."""
    assert "Offline mode" not in text(client, url(SECRETS))
    shown.configure(OFFLINE=True, SECRETS={"stripe": "aws://stripe"})
    for page, key in (("", ""), ("change/", "aws://stripe"), ("refresh/", "aws://stripe")):
        assert "Offline mode is on" in text(client, url(SECRETS, page, key))
    response = client.post(url(SECRETS, "refresh/", "aws://stripe"), CONFIRMED)
    assert "SECRET_REGISTRY_OFFLINE" in said(response)[0]
    assert shown.fetches() == 0


def test_the_page_of_a_provider_shows_its_whole_life(shown: Shown, client: Client) -> None:
    """Alias, region, backend, builds, failures and the last error stand on a provider's page."""

    def refuse(provider: Any) -> None:
        raise ProviderError("the role may not be assumed")

    shown.hold(DB)
    shown.clock.forward(7200)
    page = text(client, url(PROVIDERS, "change/", "aws@eu-central-1"))
    for fact in (
        "Cached provider aws@eu-central-1",
        "Backend: tests.scripted.ScriptedProvider",
        "● built",
        "Built: 2 hours ago (",
        "TTL: as long as the process lives",
        "Failed builds: 0",
    ):
        assert fact in page
    shown.script.on_build = refuse
    client.post(url(PROVIDERS, "refresh/", "aws@eu-central-1"), CONFIRMED)
    page = text(client, url(PROVIDERS, "change/", "aws@eu-central-1"))
    assert "✕ failed" in page
    assert "Last error: the role may not be assumed" in page


def test_a_thousand_secrets_take_no_query_each(
    shown: Shown, client: Client, django_assert_num_queries: Any, django_assert_max_num_queries: Any
) -> None:
    """A list of 1,000 secrets asks the database for session and user only, as one of two does."""
    shown.hold("aws://a", "aws://b")
    client.get(url(SECRETS))
    with django_assert_max_num_queries(4) as few:
        client.get(url(SECRETS))
    shown.hold(*(f"aws://n{number}" for number in range(1000)))
    with django_assert_num_queries(len(few)):
        page = client.get(url(SECRETS)).content.decode()
    assert page.count("action-select") == 100
    assert "1002 secrets" in page


# -- refreshing and evicting ---------------------------------------------------------------------


def test_a_refresh_brings_the_new_value(shown: Shown, client: Client) -> None:
    """A confirmed refresh fetches now; the page of the secret then shows the new version."""
    shown.hold(DB)
    before = registry.fetch(DB).version
    page = text(client, url(SECRETS, "refresh/", DB))
    assert "Refresh 1 cached secret?" in page
    assert DB in page
    response = client.post(url(SECRETS, "refresh/", DB), CONFIRMED)
    assert response.url == url(SECRETS, "change/", DB)
    assert said(response) == ["success: Refreshed 1 cached secret."]
    assert registry.fetch(DB).version != before


def test_an_eviction_forgets_the_value(shown: Shown, client: Client) -> None:
    """A confirmed eviction leads back to the list, from which the secret is gone."""
    shown.hold(DB, "aws://other")
    response = client.post(url(SECRETS, "evict/", DB), CONFIRMED)
    assert response.url == url(SECRETS)
    assert said(response) == ["success: Evicted 1 cached secret."]
    assert [row.reference for row in registry.snapshot().secrets] == ["aws://other"]
    assert client.get(url(SECRETS, "change/", DB)).status_code == 404


def test_who_evicted_is_remembered(shown: Shown, client: Client) -> None:
    """A secret that settings name stays listed, with the name of whoever evicted it."""
    shown.configure(SECRETS={"db": DB})
    shown.hold(DB)
    client.post(url(SECRETS, "evict/", DB), CONFIRMED)
    page = text(client, url(SECRETS, "change/", DB))
    assert "○ absent" in page
    assert "Evicted by: root" in page


@pytest.mark.parametrize("action", ["refresh", "evict"])
def test_a_selection_is_confirmed_first(shown: Shown, client: Client, action: str) -> None:
    """The form of the list leads to a page that asks, and whose form does what it asks about."""
    names = [DB, "aws://prod/smtp"]
    shown.hold(*names, "aws://prod/other")
    fetches = shown.fetches()
    where = url(SECRETS, state="fresh", q="prod")
    response = client.post(where, selection(action, names))
    page = response.content.decode()
    assert f"{action.title()} 2 secrets?" in page
    assert "aws://prod/other" not in page
    hidden = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page)
    form: dict[str, list[str]] = {}
    for name, value in hidden:
        form.setdefault(name, []).append(value)
    assert shown.fetches() == fetches
    assert [state(name) for name in names] == ["fresh", "fresh"]
    response = client.post(where, form)
    assert response.url == where, "back to the list as it was filtered"
    assert shown.fetches() == fetches + (2 if action == "refresh" else 0)
    assert {state(name) for name in names} == {"fresh" if action == "refresh" else ""}
    assert state("aws://prod/other") == "fresh"


def test_all_that_match_can_be_selected(shown: Shown, client: Client) -> None:
    """What a filter leaves on other pages is selected as well, and nothing beyond the filter."""
    shown.hold(*(f"aws://n{number}" for number in range(1100)), "gcp://kept")
    where = url(SECRETS, provider="aws")
    form = selection("evict", ["aws://n1"], select_across="1")
    page = client.post(where, form).content.decode()
    assert "Evict 1100 secrets?" in page
    assert "and 1050 more" in page
    hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page))
    assert len(hidden) < 10, "a form may have a thousand fields at most"
    client.post(where, hidden)
    assert [row.reference for row in registry.snapshot().secrets] == ["gcp://kept"]
    assert LogEntry.objects.count() == 1100


def test_everything_can_be_evicted(shown: Shown, client: Client) -> None:
    """Evict all asks with the names, and then forgets every secret of this process."""
    shown.populate()
    page = text(client, url(SECRETS, "evict-all/"))
    assert "Evict 12 secrets?" in page
    assert state(DB) == "fresh"
    response = client.post(url(SECRETS, "evict-all/"), CONFIRMED)
    assert said(response) == ["success: Evicted 12 secrets."]
    assert {row.state for row in registry.snapshot().secrets} == {"absent"}
    assert registry.snapshot().providers[0].age is not None, "clients stay"


def test_there_may_be_nothing_to_evict(shown: Shown, client: Client) -> None:
    """With nothing held, nothing is done, and the page says so."""
    response = client.post(url(SECRETS, "evict-all/"), CONFIRMED)
    assert said(response) == ["warning: Nothing was done: there is no such row any more."]


def test_what_vanished_meanwhile_is_left_out(shown: Shown, client: Client) -> None:
    """Between the question and the answer a secret may go; the others are still done."""
    shown.hold(DB, "aws://gone")
    registry.evict("aws://gone")
    form = selection("refresh", [DB, "aws://gone"], confirmed="yes")
    assert said(client.post(url(SECRETS), form)) == ["success: Refreshed 1 cached secret."]
    response = client.post(url(SECRETS), selection("refresh", ["aws://gone"], confirmed="yes"))
    assert said(response)[-1].startswith("warning: Nothing was done")


def test_an_eviction_takes_all_versions(shown: Shown, client: Client) -> None:
    """The reference without a version means all of them, as the confirmation says."""
    shown.hold(DB, f"{DB}?version=1", f"{DB}?stage=previous", "aws://prod/db2")
    assert "all its versions and stages" in text(client, url(SECRETS, "evict/", DB))
    client.post(url(SECRETS, "evict/", DB), CONFIRMED)
    assert [row.reference for row in registry.snapshot().secrets] == ["aws://prod/db2"]


def test_evicting_a_provider_takes_its_secrets(shown: Shown, client: Client) -> None:
    """A provider is evicted in its region only, with what it fetched; others stay."""
    shown.hold(DB, "aws://b?region=eu-west-1", "gcp://c")
    client.post(url(PROVIDERS, "evict/", "aws@eu-west-1"), CONFIRMED)
    assert [row.reference for row in registry.snapshot().secrets] == [DB, "gcp://c"]
    client.post(url(PROVIDERS, "evict/", "gcp@-"), CONFIRMED)
    assert [row.reference for row in registry.snapshot().secrets] == [DB]


def test_refreshing_a_provider_builds_it_anew(shown: Shown, client: Client) -> None:
    """A provider is built again at once, and its secrets stay."""
    shown.hold(DB)
    client.post(url(PROVIDERS, "refresh/", "aws@eu-central-1"), CONFIRMED)
    assert shown.script.builds == [("aws", "eu-central-1")] * 2
    assert state(DB) == "fresh"


# -- when a provider fails -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "outcome", "advice"),
    [
        (down(), "unavailable", "What is held goes on serving."),
        (AccessDenied("the role may not read it"), "denied", "Look at what this process may read"),
        (ProviderError("the answer is no JSON"), "error", "Look at the provider's OPTIONS"),
        (ProviderError("the answer is no JSON", hint="Ask Bob."), "error", "Ask Bob."),
    ],
)
def test_a_failed_refresh_says_what_to_do(
    shown: Shown, client: Client, error: Exception, outcome: str, advice: str
) -> None:
    """The message names reference, provider, region and what to do; the held value goes on."""
    shown.hold(DB)
    shown.script.answers["prod/db"] = error
    (message,) = said(client.post(url(SECRETS, "refresh/", DB), CONFIRMED))
    assert message.startswith(f"error: {error.args[0]} (")
    for part in (f"reference '{DB}'", "provider 'aws'", "region 'eu-central-1'", advice):
        assert part in message
    assert state(DB) == "fresh"
    assert registry.get(DB) == canary("prod/db")
    entry = LogEntry.objects.get()
    assert entry.change_message.startswith(f"refresh: {outcome} (process ")


def test_a_secret_that_is_gone_says_so(shown: Shown, client: Client) -> None:
    """A refresh that finds no secret any more ends the value, and the message says why."""
    shown.hold(DB)
    shown.script.answers["prod/db"] = None
    (message,) = said(client.post(url(SECRETS, "refresh/", DB), CONFIRMED))
    assert "there is no such secret" in message
    assert "Compare the name, the version and the region" in message
    assert state(DB) == "refused"


def test_many_failures_are_counted(shown: Shown, client: Client) -> None:
    """A page names some failures and counts the rest; those that worked are told apart."""
    names = [f"aws://n{number:02}" for number in range(20)]
    shown.hold(*names)
    for number in range(12):
        shown.script.answers[f"n{number:02}"] = AccessDenied("no")
    messages = said(client.post(url(SECRETS), selection("refresh", names, confirmed="yes")))
    assert messages[0] == "success: Refreshed 8 secrets."
    assert len(messages) == 7
    assert messages[-1] == "error: 7 more failed."
    outcomes = [entry.change_message.split(" (")[0] for entry in LogEntry.objects.all()]
    assert sorted(outcomes) == ["refresh: denied"] * 12 + ["refresh: ok"] * 8


def test_a_provider_that_hangs_costs_one_timeout(shown: Shown, client: Client) -> None:
    """A hundred refreshes against a provider that does not answer take about one FETCH_TIMEOUT."""
    names = [f"aws://n{number}" for number in range(100)]
    shown.configure(CACHE={"FETCH_TIMEOUT": 2})
    shown.hold(*names)
    done = threading.Event()
    for number in range(100):
        shown.script.answers[f"n{number}"] = lambda ref: done.wait(20) or down()
    asked = shown.fetches()
    begun = time.monotonic()
    try:
        messages = said(client.post(url(SECRETS), selection("refresh", names, confirmed="yes")))
    finally:
        done.set()
    assert time.monotonic() - begun < 100 * 2 / 5
    assert shown.fetches() - asked <= 10, "the others found the provider backing off"
    assert messages[-1] == "error: 95 more failed."
    assert {state(name) for name in names} == {"fresh"}


# -- what is written down ------------------------------------------------------------------------


def test_each_action_is_a_log_entry(shown: Shown, client: Client) -> None:
    """A refresh is a change and an eviction a deletion, of the row, with process and outcome."""
    shown.configure(SECRETS={"db": DB})
    shown.hold(DB)
    client.post(url(SECRETS, "refresh/", DB), CONFIRMED)
    client.post(url(SECRETS, "evict/", DB), CONFIRMED)
    snapshot = registry.snapshot()
    where = f"(process {snapshot.pid} on {snapshot.host})"
    found = [
        (e.action_flag, e.object_id, e.object_repr, e.get_change_message(), e.content_type.model)
        for e in LogEntry.objects.order_by("pk")
    ]
    assert found == [
        (CHANGE, DB, DB, f"refresh: ok {where}", SECRETS),
        (DELETION, DB, DB, f"evict: ok {where}", SECRETS),
    ]
    assert {entry.user.get_username() for entry in LogEntry.objects.all()} == {"root"}


def test_log_entries_lead_to_the_row(shown: Shown, client: Client) -> None:
    """The index lists what was done; its link for a refresh leads to the secret's page."""
    shown.hold(DB, "aws://gone")
    client.post(url(SECRETS, "refresh/", DB), CONFIRMED)
    client.post(url(SECRETS, "evict/", "aws://gone"), CONFIRMED)
    entry = LogEntry.objects.get(object_id=DB)
    assert entry.get_admin_url() == url(SECRETS, "change/", DB)
    assert client.get(entry.get_admin_url()).status_code == 200
    index = client.get("/admin/").content.decode()
    assert f'<a href="{url(SECRETS, "change/", DB)}">{DB}</a>' in index
    assert "aws://gone" in index
    assert url(SECRETS, "change/", "aws://gone") not in index, "it is no page any more"
    assert "Cached secret" in index, "an evicted secret must not read like a deleted one"


def test_the_history_of_a_secret_names_everybody(shown: Shown, client: Client) -> None:
    """The history page lists who did what, in Django's own form."""
    shown.hold(DB)
    client.post(url(SECRETS, "refresh/", DB), CONFIRMED)
    shown.script.answers["prod/db"] = down()
    client.post(url(SECRETS, "refresh/", DB), CONFIRMED)
    page = text(client, url(SECRETS, "history/", DB))
    assert "root refresh: ok (process" in page
    assert "root refresh: unavailable (process" in page


def test_a_long_reference_is_logged_whole(shown: Shown, client: Client) -> None:
    """The id of a log entry holds the whole reference, however long; the shown text is cut."""
    long = f"aws://{'x' * 1500}"
    shown.hold(long)
    assert client.get(url(SECRETS, "change/", long)).status_code == 200
    client.post(url(SECRETS, "evict/", long), CONFIRMED)
    entry = LogEntry.objects.get()
    assert (entry.object_id, entry.object_repr) == (long, long[:200])


def test_a_user_model_of_the_project_s_own(tmp_path: Path) -> None:
    """Names come from the project's user model, whatever its names and its keys are."""
    (tmp_path / "people").mkdir()
    (tmp_path / "people" / "__init__.py").touch()
    (tmp_path / "people" / "models.py").write_text(PEOPLE)
    project = Project(tmp_path).write(CUSTOM_USER, urls=URLS)
    done = project.python(USE_CUSTOM_USER)
    assert done.stdout.splitlines() == [
        "302 302",
        "ada@example.org refresh: ok",
        "ada@example.org evict: ok",
        "ada@example.org",
    ]


PEOPLE = """
import uuid
from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, PermissionsMixin
from django.db import models

class Person(AbstractBaseUser, PermissionsMixin):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    email = models.EmailField(unique=True)
    is_staff = models.BooleanField(default=True)
    is_active = True
    USERNAME_FIELD = "email"
    objects = BaseUserManager()
"""
CUSTOM_USER = """
SECRET_REGISTRY["SECRETS"] = {"db": "vault://db"}
AUTH_USER_MODEL = "people.Person"
INSTALLED_APPS += [
    "people", "django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes",
    "django.contrib.messages", "django.contrib.sessions",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [{
    "BACKEND": "django.template.backends.django.DjangoTemplates",
    "APP_DIRS": True,
    "OPTIONS": {"context_processors": [
        "django.template.context_processors.request",
        "django.contrib.auth.context_processors.auth",
        "django.contrib.messages.context_processors.messages",
    ]},
}]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STATIC_URL = "/static/"
ROOT_URLCONF = "urls"
ALLOWED_HOSTS = ["testserver"]
"""
URLS = """
from django.contrib import admin
from django.urls import path
urlpatterns = [path("admin/", admin.site.urls)]
"""
USE_CUSTOM_USER = """
import contextlib, io
import django
django.setup()
from django.contrib.admin.models import LogEntry
from django.core.management import call_command
from django.test import Client
from django.utils import translation
from django_secret_registry import registry
from people.models import Person

call_command("migrate", run_syncdb=True, verbosity=0)
client = Client()
client.force_login(Person.objects.create(email="ada@example.org", is_superuser=True))
page = "/admin/django_secret_registry/cachedsecret/vault_3A_2F_2Fdb/"
with contextlib.redirect_stdout(io.StringIO()):  # the provider says what it fetches
    codes = [client.post(f"{page}{name}/", {"confirmed": "yes"}).status_code
             for name in ("refresh", "evict")]
print(*codes)
for entry in LogEntry.objects.order_by("pk"):
    print(entry.user, entry.change_message.split(" (")[0])
print(registry.snapshot().secrets[0].evicted_by)
"""


# -- no value, no markup -------------------------------------------------------------------------


def test_no_page_shows_a_value(shown: Shown, client: Client) -> None:
    """Neither a value nor its length nor a digest of it is on any page, message or log entry."""
    import hashlib

    shown.populate()
    value = canary("prod/db") + "x" * 4321
    shown.script.answers["prod/db"] = value
    bodies = [client.post(url(SECRETS, "refresh/", DB), CONFIRMED, follow=True).content.decode()]
    for model in (SECRETS, PROVIDERS):
        bodies.append(client.get(url(model)).content.decode())
        bodies.append(client.get(url(model, "evict-all/")).content.decode())
        rows = (CachedSecret if model == SECRETS else CachedProvider).rows(registry.snapshot())
        bodies += [
            client.get(url(model, page, row.pk)).content.decode()
            for row in rows
            for page in ("change/", "history/", "refresh/", "evict/")
        ]
    bodies += [f"{e.object_repr} {e.change_message}" for e in LogEntry.objects.all()]
    body = "\n".join(bodies)
    assert CANARY not in body
    assert str(len(value)) not in body
    for digest in ("md5", "sha1", "sha256"):
        assert hashlib.new(digest, value.encode()).hexdigest()[:8] not in body


def test_nothing_that_is_shown_is_markup(shown: Shown, client: Client) -> None:
    """References, versions, errors and user names are text, whoever chose them."""
    script = "<script>alert(1)</script>"
    hostile = "aws://%3Cscript%3Ealert%281%29%3C/script%3E"
    shown.script.answers["<script>alert(1)</script>"] = SecretValue(canary(), version=script)  # type: ignore[arg-type]
    registry.get(hostile)
    registry.evict(hostile, by=script)
    registry.get(hostile)
    pages = [
        client.get(url(SECRETS)),
        client.get(url(SECRETS, "change/", hostile)),
        client.get(url(SECRETS, "evict/", hostile)),
    ]
    shown.script.answers["<script>alert(1)</script>"] = AccessDenied(script, hint=script)
    pages.append(client.post(url(SECRETS, "refresh/", hostile), CONFIRMED, follow=True))
    pages.append(client.get(url(SECRETS, "history/", hostile)))
    pages.append(client.get("/admin/"))
    for page in pages:
        assert page.status_code == 200
        assert script not in page.content.decode()
    assert "&lt;script&gt;alert(1)" in pages[1].content.decode(), "it is there, as text"


def test_pages_have_no_inline_script_or_style(shown: Shown, client: Client) -> None:
    """Nothing on a page of ours needs ``unsafe-inline``."""
    shown.populate()
    for page, key in (("", ""), ("change/", DB), ("evict/", DB), ("evict-all/", "")):
        body = client.get(url(SECRETS, page, key)).content.decode()
        assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=|javascript:", body)


# -- languages -----------------------------------------------------------------------------------


def test_pages_follow_the_language_of_their_reader(
    shown: Shown, client: Client, settings: Any
) -> None:
    """In a language from right to left the page says so, and references stay as they are."""
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.middleware.locale.LocaleMiddleware"]
    shown.populate()
    with translation.override("en"):  # what the middleware activates would outlive the test
        body = client.get(url(SECRETS), headers={"accept-language": "ar"}).content.decode()
    assert 'dir="rtl"' in body
    assert f">{DB}</a>" in body


def test_django_s_own_words_stay_translated(tmp_path: Path) -> None:
    """With the app installed, forms and dates still speak the language of the project."""
    project = Project(tmp_path).write('LANGUAGE_CODE = "de"')
    done = project.python(
        """
        import django
        django.setup()
        from django.forms import CharField
        print(CharField().error_messages["required"])
        """
    )
    assert done.stdout.strip() == "Dieses Feld ist zwingend erforderlich."


# -- models without a table ----------------------------------------------------------------------


@pytest.mark.django_db
def test_migrations_are_complete() -> None:
    """``makemigrations --check`` finds nothing to do, on every version of Django."""
    call_command("makemigrations", APP, check=True, dry_run=True, verbosity=0)


@pytest.mark.django_db
def test_models_without_a_table_disturb_nobody(
    shown: Shown, capsys: Any, django_assert_num_queries: Any
) -> None:
    """``dumpdata`` and queries of generic code find no rows, instead of a missing table."""
    shown.hold(DB)
    with django_assert_num_queries(0):
        call_command("dumpdata", APP)
        call_command("dumpdata", APP, use_base_manager=True)
        assert not CachedSecret.objects.exists()
        assert list(CachedSecret.objects.all()) == []
    assert "".join(capsys.readouterr().out.split()) == "[][]"


def test_the_log_of_the_fleet_is_in_no_dump() -> None:
    """A log belongs to one fleet: loaded elsewhere, it would be taken for one that went on."""
    for model in (FleetEvent, FleetLog, FleetReport):
        assert list(model.objects.all()) == []


@pytest.mark.parametrize(
    "apps",
    [
        [],
        ["django.contrib.contenttypes"],
        ["django.contrib.contenttypes", "django.contrib.auth"],
    ],
)
def test_a_project_without_the_admin(tmp_path: Path, apps: list[str]) -> None:
    """The app needs neither the admin nor auth nor content types."""
    project = Project(tmp_path).write(
        f"""
        INSTALLED_APPS += {apps!r}
        DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}}}
        DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
        """
    )
    project.manage("check")
    project.manage("migrate", "--verbosity", "0")
    project.manage("makemigrations", "--check", "--dry-run")
    project.manage("migrate", APP, "zero", "--verbosity", "0")
