"""Who may do what on the admin's pages, and what no visitor can bring about.

Every request is made by every kind of visitor, on the default site, on a second one and where the
only site has another name and another URL. What somebody may not do changes nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission, User
from django.test import Client
from django.urls import path

from django_secret_registry import registry
from django_secret_registry.admin import CachedProviderAdmin, CachedSecretAdmin
from django_secret_registry.models import CachedProvider, CachedSecret
from tests.admin_support import (
    APP,
    PROVIDERS,
    SECRETS,
    Shown,
    selection,
    state,
    url,
    user,
)

pytestmark = pytest.mark.django_db

ops = admin.AdminSite(name="ops")
ops.register(CachedSecret, CachedSecretAdmin)
ops.register(CachedProvider, CachedProviderAdmin)
ops.register(User)


class Beside:
    """A second site beside the default one."""

    urlpatterns = [path("admin/", admin.site.urls), path("backstage/ops/", ops.urls)]


class Alone:
    """A project whose only site is called ``ops``."""

    urlpatterns = [path("backstage/ops/", ops.urls)]


SITES = {
    "default": ("tests.urls", "/admin/"),
    "second": (Beside, "/backstage/ops/"),
    "renamed": (Alone, "/backstage/ops/"),
}
ACTIONS = ("view", "refresh", "evict")
VISITORS: dict[str, tuple[str, ...] | None] = {
    "anonymous": None,
    "customer": ACTIONS,  # has every permission and is no staff
    "staff": (),
    "blind refresher": ("refresh",),
    "blind evicter": ("evict",),
    "viewer": ("view",),
    "refresher": ("view", "refresh"),
    "evicter": ("view", "evict"),
    "operator": ACTIONS,
}
SECRET, PROVIDER = "aws://prod/db", "aws@eu-central-1"
KEYS = {SECRETS: SECRET, PROVIDERS: PROVIDER}
CONFIRMED = {"confirmed": "yes"}


@pytest.fixture
def shown(settings: Any) -> Iterator[Shown]:
    with Shown(settings) as it:
        it.configure(SECRETS={"stripe": "aws://prod/stripe", "maps": "gcp://maps"})
        it.hold(SECRET, "gcp://maps")
        yield it


def visitor(kind: str, model: str = SECRETS) -> Client:
    """Return the browser of a visitor who has these permissions for one model, and no other."""
    client = Client()
    allowed = VISITORS[kind]
    if allowed is not None:
        codenames = [f"{action}_{model}" for action in allowed]
        client.force_login(user(kind, *codenames, staff=kind != "customer"))
    return client


def requests(model: str, site: str) -> Iterator[tuple[str, str, dict[str, Any], str, bool]]:
    """Yield each request there is: method, URL, form, what it needs, whether it acts."""
    key = KEYS[model]
    yield "get", url(model, site=site), {}, "view", False
    yield "get", url(model, "change/", key, site=site), {}, "view", False
    yield "get", url(model, "history/", key, site=site), {}, "view", False
    yield "get", url(model, "evict-all/", site=site), {}, "evict", False
    yield "post", url(model, "evict-all/", site=site), {}, "evict", False
    yield "post", url(model, "evict-all/", site=site), CONFIRMED, "evict", True
    for action in ("refresh", "evict"):
        yield "get", url(model, f"{action}/", key, site=site), CONFIRMED, action, False
        yield "head", url(model, f"{action}/", key, site=site), CONFIRMED, action, False
        yield "post", url(model, f"{action}/", key, site=site), {}, action, False
        yield "post", url(model, f"{action}/", key, site=site), CONFIRMED, action, True
        yield "get", url(model, site=site), selection(action, [key], confirmed="yes"), "view", False
        yield "post", url(model, site=site), selection(action, [key]), action, False
        yield "post", url(model, site=site), selection(action, [key], confirmed="yes"), action, True
        across = selection(action, [key], confirmed="yes", select_across="1")
        yield "post", url(model, site=site), across, action, True


def everything(shown: Shown) -> tuple[Any, ...]:
    """Return all that a request could change. The clock stands still."""
    snapshot = registry.snapshot()
    return (
        snapshot.secrets,
        snapshot.providers,
        shown.fetches(),
        len(shown.script.builds),
        list(LogEntry.objects.values_list("pk", flat=True)),
    )


MATRIX = [
    *itertools.product(["default", "renamed"], [SECRETS, PROVIDERS], VISITORS),
    *itertools.product(["second"], [SECRETS], ["customer", "staff", "refresher", "evicter"]),
]


@pytest.mark.parametrize("case", MATRIX, ids=lambda case: "-".join(case).replace(" ", "_"))
def test_everybody_gets_exactly_what_they_may(
    shown: Shown, settings: Any, caplog: Any, case: tuple[str, str, str]
) -> None:
    """Each view checks its own permission; a refusal changes nothing and is written down."""
    where, model, kind = case
    settings.ROOT_URLCONF, site = SITES[where]
    client = visitor(kind, model)
    turned_away = kind in ("anonymous", "customer")
    allowed = set() if turned_away else set(VISITORS[kind] or ())
    before = everything(shown)
    for method, target, form, needed, acts in requests(model, site):
        caplog.clear()
        response = getattr(client, method)(target, form)
        after = everything(shown)
        if {"view", needed} <= allowed:
            assert response.status_code == (302 if acts else 200), target
            assert (after != before) == acts
            if acts:
                shown.hold(SECRET, "gcp://maps")
                before = everything(shown)
            continue
        assert response.status_code == (302 if turned_away else 403), target
        assert not turned_away or response.url.startswith(f"{site}login/?next={site}")
        assert after == before
        refusals = [record.audit for record in caplog.records if record.name.endswith(".audit")]
        assert {(one["user"], one["outcome"]) for one in refusals} == {
            ("" if kind == "anonymous" else kind, "refused")
        }


@pytest.mark.parametrize("kind", ["viewer", "refresher", "evicter", "operator"])
@pytest.mark.parametrize("where", SITES)
def test_a_page_offers_what_its_visitor_may_do(
    shown: Shown, settings: Any, where: str, kind: str
) -> None:
    """Actions, checkboxes, buttons and links are there for those who may use them."""
    settings.ROOT_URLCONF, site = SITES[where]
    client = visitor(kind)
    may_refresh, may_evict = (
        "refresh" in (VISITORS[kind] or ()),
        "evict" in (VISITORS[kind] or ()),
    )
    text = client.get(url(SECRETS, site=site)).content.decode()
    assert ('<option value="refresh">' in text) == may_refresh
    assert ('<option value="evict">' in text) == may_evict
    assert (url(SECRETS, "evict-all/", site=site) in text) == may_evict
    assert ('name="_selected_action"' in text) == (may_refresh or may_evict)
    text = client.get(url(SECRETS, "change/", SECRET, site=site)).content.decode()
    assert (url(SECRETS, "refresh/", SECRET, site=site) in text) == may_refresh
    assert (url(SECRETS, "evict/", SECRET, site=site) in text) == may_evict
    assert url(SECRETS, "history/", SECRET, site=site) in text


def test_every_link_of_a_renamed_site_stays_on_it(shown: Shown, settings: Any) -> None:
    """Breadcrumbs, rows, buttons, forms and redirects lead to the site on which they stand."""
    settings.ROOT_URLCONF, site = SITES["second"]
    client = visitor("operator")
    for model, page, key in (
        (SECRETS, "", ""),
        (SECRETS, "change/", SECRET),
        (SECRETS, "history/", SECRET),
        (SECRETS, "evict/", SECRET),
        (SECRETS, "evict-all/", ""),
    ):
        text = client.get(url(model, page, key, site=site)).content.decode()
        assert f'href="{site}{APP}/{SECRETS}/"' in text
        assert 'href="/admin/' not in text
        assert 'action="/admin/' not in text
    for page in ("refresh/", "evict/"):
        response = client.post(url(SECRETS, page, SECRET, site=site), CONFIRMED)
        assert response.url.startswith(site)


def test_being_staff_is_not_enough_for_the_index(shown: Shown) -> None:
    """The index shows the app to those who may view it, and to nobody else."""
    assert "Secret registry" not in visitor("staff").get("/admin/").content.decode()
    text = visitor("viewer").get("/admin/").content.decode()
    assert "Secret registry" in text
    assert "Providers" not in text


def test_a_permission_may_come_from_a_group(shown: Shown) -> None:
    """Permissions are Django's own: those of a group count."""
    group = Group.objects.create(name="operators")
    group.permissions.set(Permission.objects.filter(content_type__app_label=APP))
    ada = user("ada")
    ada.groups.add(group)
    client = Client()
    client.force_login(ada)
    assert client.post(url(SECRETS, "evict/", SECRET), CONFIRMED).status_code == 302
    assert state(SECRET) == ""


def test_permissions_of_secrets_are_not_those_of_providers(shown: Shown) -> None:
    """Who may do everything with secrets may not even see providers."""
    client = visitor("operator", SECRETS)
    for _method, where, _form, _needed, _acts in requests(PROVIDERS, "/admin/"):
        assert client.post(where, CONFIRMED).status_code == 403


def test_the_permissions_exist_and_no_others() -> None:
    """Each model has view, refresh and evict; nothing of it can be added, changed or deleted."""
    found = Permission.objects.filter(content_type__app_label=APP)
    assert set(found.values_list("codename", flat=True)) == {
        f"{action}_{model}"
        for action, model in itertools.product(ACTIONS, (SECRETS, PROVIDERS, "worker"))
    }


def test_a_form_without_a_csrf_token_is_refused(shown: Shown) -> None:
    """Every POST needs the token, also in a project without the CSRF middleware."""
    codenames = (f"{action}_{model}" for action in ACTIONS for model in (SECRETS, PROVIDERS))
    client = Client(enforce_csrf_checks=True)
    client.force_login(user("ada", *codenames))
    for model in (SECRETS, PROVIDERS):
        for method, where, form, _needed, acts in requests(model, "/admin/"):
            if method == "post" and acts:
                before = everything(shown)
                assert client.post(where, form).status_code == 403
                assert everything(shown) == before


UNKNOWN = (
    "aws://prod/unknown",
    "aws://prod/db?version=2",
    "aws://prod/db#password",
    "stripe",
    "prod/db",
    "azure://x",
    "*",
    "..",
    "aws://prod/db/",
    " aws://prod/db",
    "AWS://prod/db",
    "\0",
    "%2e%2e/",
)


@pytest.mark.parametrize("page", ["change/", "history/", "refresh/", "evict/"])
def test_a_key_that_is_no_row_is_not_found(shown: Shown, page: str) -> None:
    """A page of something that is neither held nor named is 404, and no provider is asked."""
    client = visitor("operator")
    before = everything(shown)
    for key in UNKNOWN:
        assert client.get(url(SECRETS, page, key)).status_code == 404
        if page not in ("change/", "history/"):
            assert client.post(url(SECRETS, page, key), CONFIRMED).status_code == 404
    assert everything(shown) == before


@pytest.mark.parametrize("action", ["refresh", "evict"])
def test_a_selection_of_foreign_names_does_nothing(shown: Shown, action: str) -> None:
    """Names that are put into the form by hand lead nowhere, alone or beside real ones."""
    client = visitor("operator")
    before = everything(shown)
    form = selection(action, UNKNOWN, confirmed="yes")
    assert client.post(url(SECRETS), form).status_code == 302
    assert everything(shown) == before
    client.post(url(SECRETS), selection(action, [*UNKNOWN, SECRET], confirmed="yes"))
    assert [entry.object_id for entry in LogEntry.objects.all()] == [SECRET]


def test_an_entry_that_nobody_read_may_be_refreshed(shown: Shown) -> None:
    """What SECRETS names is a row, held or not."""
    client = visitor("operator")
    shown.script.answers["prod/stripe"] = "text"
    assert state("aws://prod/stripe") == "absent"
    client.post(url(SECRETS, "refresh/", "aws://prod/stripe"), CONFIRMED)
    assert state("aws://prod/stripe") == "fresh"


@pytest.mark.parametrize(
    "form",
    [
        {"action": "delete_selected", "_selected_action": [SECRET], "index": "0", "post": "yes"},
        {"action": "evict", "confirmed": "yes"},
        {"action": "evict", "index": "0", "confirmed": "yes"},
        {"action": "wipe", "_selected_action": [SECRET], "confirmed": "yes"},
        {"action": ["", "evict"], "_selected_action": [SECRET], "index": "0", "confirmed": "yes"},
        {"_selected_action": [SECRET], "confirmed": "yes", "index": "7"},
        {"reference": "aws://x", "_save": "Save"},
        {"confirmed": "yes", "_save": "1", "action": "evict", "_selected_action": [SECRET]},
    ],
)
def test_a_form_that_is_not_one_of_ours_does_nothing(shown: Shown, form: dict[str, Any]) -> None:
    """A POST without a known action or without a selection changes nothing."""
    before = everything(shown)
    assert visitor("operator").post(url(SECRETS), form).status_code in (200, 302)
    assert everything(shown) == before


@pytest.mark.parametrize("index", ["0", "1"])
def test_the_action_that_counts_is_the_one_that_is_checked(shown: Shown, index: str) -> None:
    """Of two actions in one form, none slips past the permission for the other."""
    client = visitor("refresher")
    form = selection("refresh", [SECRET], confirmed="yes")
    form |= {"action": ["refresh", "evict"], "index": index}
    assert client.post(url(SECRETS), form).status_code == 403
    assert state(SECRET) == "fresh"


@pytest.mark.parametrize("page", ["add/", f"{SECRET}/delete/", "1/password/", "autocomplete/"])
def test_there_are_no_other_pages(shown: Shown, page: str) -> None:
    """Django's pages that add, delete or edit do not exist, not even for a superuser."""
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    for method in (client.get, client.post):
        assert method(f"/admin/{APP}/{SECRETS}/{page}").status_code == 404
    assert client.post(url(SECRETS, "change/", SECRET), {"reference": "x"}).status_code == 403


def test_a_redirect_stays_on_the_site(shown: Shown) -> None:
    """Where an action leads back to is a page of the list, whatever the query string says."""
    client = visitor("operator")
    hostile = "?next=https://evil.example&q=%0d%0aSet-Cookie:%20a=b&//evil.example"
    form = selection("refresh", [SECRET], confirmed="yes")
    response = client.post(f"{url(SECRETS)}{hostile}", {**form, "next": "//evil.example"})
    assert response.status_code == 302
    assert response.url.startswith(f"{url(SECRETS)}?")
    assert not {"\r", "\n"} & set(response.url)
    assert "a" not in response.cookies
    response = client.post(f"{url(SECRETS, 'refresh/', SECRET)}{hostile}", CONFIRMED)
    assert response.url == url(SECRETS, "change/", SECRET)


def test_a_field_that_links_elsewhere_is_a_bad_request(shown: Shown) -> None:
    """Django's parameters for pop-ups give no access to another field."""
    assert visitor("viewer").get(url(SECRETS, _to_field="taken")).status_code == 400


def test_no_page_is_stored(shown: Shown) -> None:
    """No cache, neither the browser's nor one on the way, keeps a page."""
    client = visitor("operator")
    for method, where, form, _needed, acts in requests(SECRETS, "/admin/"):
        if not acts:
            assert "no-store" in getattr(client, method)(where, form)["Cache-Control"]
