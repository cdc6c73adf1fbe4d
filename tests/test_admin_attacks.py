"""What somebody tries who wants more of the admin's pages than they give."""

from __future__ import annotations

import itertools
import json
import urllib.parse
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.utils import quote
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.contenttypes.models import ContentType
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import path

from django_secret_registry import AccessDenied, SecretValue, registry
from django_secret_registry.admin import CachedSecretAdmin
from django_secret_registry.models import CachedSecret
from django_secret_registry.references import SecretRef
from tests.admin_support import APP, PROVIDERS, SECRETS, Shown, selection, state, url, user
from tests.canary import canary
from tests.test_admin_permissions import ACTIONS, CONFIRMED, KEYS, SECRET, everything, visitor

pytestmark = pytest.mark.django_db

#: A name that is markup, and the reference that has it.
MARKUP = "\"><img src=x onerror=alert(1)>'"
HOSTILE = str(SecretRef.parse(f"aws://{urllib.parse.quote(MARKUP)}"))


@pytest.fixture
def shown(settings: Any) -> Iterator[Shown]:
    with Shown(settings) as it:
        it.configure(
            SECRETS={
                "smtp": {"MAP": {"user": "aws://prod/smtp#user", "password": "aws://prod/smtp#pw"}},
                MARKUP: HOSTILE,
            }
        )
        it.hold(SECRET)
        it.script.answers["prod/smtp"] = json.dumps({"user": canary("user"), "pw": canary("pw")})
        yield it


def acting(model: str) -> Iterator[str]:
    """Yield the pages that act when they are confirmed."""
    yield url(model, "evict-all/")
    for action in ("refresh", "evict"):
        yield url(model, f"{action}/", KEYS[model])


# -- requests that are no confirmed POST ---------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("model", [SECRETS, PROVIDERS])
def test_no_other_method_acts(shown: Shown, model: str, method: str) -> None:
    """Only a POST acts, whatever a header, a field or the query string call the method."""
    client = visitor("operator", model)
    before = everything(shown)
    form = "confirmed=yes&_method=POST&action=evict&index=0&_selected_action=" + KEYS[model]
    for where in (*acting(model), url(model), url(model, "change/", KEYS[model])):
        client.generic(
            method,
            f"{where}?confirmed=yes&_method=POST",
            form,
            content_type="application/x-www-form-urlencoded",
            headers={"x-http-method-override": "POST", "x-method-override": "POST"},
        )
        assert everything(shown) == before, where


@pytest.mark.parametrize(
    ("query", "form"),
    [
        ("", {}),
        ("?confirmed=yes", {}),
        ("?confirmed=yes&post=yes", {"post": "yes"}),
        ("", {"Confirmed": "yes", "confirm": "yes", "confirmed[]": "yes"}),
        ("", {"confirmed": SimpleUploadedFile("yes", b"yes")}),
        ("", json.dumps({"confirmed": "yes"})),
    ],
)
def test_a_post_that_does_not_confirm_asks(shown: Shown, query: str, form: Any) -> None:
    """Without the field of the confirmation's own form a POST is answered with the question."""
    client = visitor("operator")
    before = everything(shown)
    kind = {"content_type": "application/json"} if isinstance(form, str) else {}
    for where in acting(SECRETS):
        response = client.post(f"{where}{query}", form, **kind)
        assert response.status_code == 200
        assert 'name="confirmed" value="yes"' in response.content.decode()
    assert everything(shown) == before


# -- permissions ---------------------------------------------------------------------------------


def test_a_permission_that_is_taken_away_counts_at_once(shown: Shown) -> None:
    """Between the question and the answer a permission may go: the answer is refused."""
    ada = user("ada", *(f"{action}_{SECRETS}" for action in ACTIONS))
    client = Client()
    client.force_login(ada)
    assert client.post(url(SECRETS), selection("evict", [SECRET])).status_code == 200
    ada.user_permissions.clear()
    before = everything(shown)
    for form in (selection("evict", [SECRET], confirmed="yes"), {}):
        assert client.post(url(SECRETS), form).status_code == 403
    for where in acting(SECRETS):
        assert client.post(where, CONFIRMED).status_code == 403
    assert everything(shown) == before


@pytest.mark.parametrize("field", ["is_active", "is_staff"])
def test_whoever_is_locked_out_is_out(shown: Shown, field: str) -> None:
    """A session goes on no longer than its user may use the admin."""
    root = User.objects.create_superuser("root")
    client = Client()
    client.force_login(root)
    assert client.get(url(SECRETS)).status_code == 200
    setattr(root, field, False)
    root.save()
    before = everything(shown)
    for where in acting(SECRETS):
        assert client.post(where, CONFIRMED).url.startswith("/admin/login/")
    assert everything(shown) == before


class OpenSite(admin.AdminSite):
    """A site that lets everybody in, as a project may wish."""

    def has_permission(self, request: Any) -> bool:
        return True


open_site = OpenSite(name="open")
open_site.register(CachedSecret, CachedSecretAdmin)


class Open:
    urlpatterns = [path("open/", open_site.urls)]


def test_a_site_that_lets_everybody_in_gives_nothing_away(
    shown: Shown, settings: Any, caplog: Any
) -> None:
    """Each page asks for its own permission, whatever the site thinks of its visitors."""
    settings.ROOT_URLCONF = Open
    before = everything(shown)
    for client, name in ((Client(), AnonymousUser().username), (visitor("staff"), "staff")):
        caplog.clear()
        pages = [("", ""), ("evict-all/", "")]
        pages += [(page, SECRET) for page in ("change/", "history/", "refresh/", "evict/")]
        for page, key in pages:
            where = url(SECRETS, page, key, site="/open/")
            assert client.get(where).status_code == 403
            assert client.post(where, CONFIRMED).status_code == 403
        lines = [record.audit for record in caplog.records if record.name.endswith(".audit")]
        assert {(line["user"], line["outcome"]) for line in lines} == {(name, "refused")}
        assert len(lines) == 12
    assert everything(shown) == before


@pytest.mark.parametrize("kind", ["staff", "viewer"])
def test_a_refusal_does_not_tell_what_exists(shown: Shown, kind: str) -> None:
    """Who may not act gets the same answer for a secret that is there and for one that is not."""
    client = visitor(kind)
    for page in ("refresh/", "evict/"):
        there, nowhere = (
            client.post(url(SECRETS, page, key), CONFIRMED) for key in (SECRET, "aws://nowhere")
        )
        assert (there.status_code, there.content) == (nowhere.status_code, nowhere.content)
        assert there.status_code == 403


# -- keys ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["refresh", "evict"])
def test_all_across_stays_within_the_filter(shown: Shown, action: str) -> None:
    """All across is what the list shows: no name of the form, and nothing that is filtered out."""
    shown.hold("gcp://maps")
    client = visitor("operator")
    form = selection(action, ["aws://foreign", "gcp://maps"], confirmed="yes", select_across="1")
    client.post(url(SECRETS, state="fresh", provider="aws"), form)
    assert state(SECRET) == ("fresh" if action == "refresh" else "")
    asked = [str(ref) for ref in shown.script.fetched]
    assert asked.count("gcp://maps") == 1, "when it was put there"
    assert "aws://foreign" not in asked
    assert state("gcp://maps") == "fresh"


def test_a_map_is_no_row_but_its_secret_is(shown: Shown) -> None:
    """The name of a MAP is no key; the secret of its members is one row, refreshed as one."""
    client = visitor("operator")
    before = everything(shown)
    for key, page in itertools.product(
        ("smtp", "smtp#user", "aws://prod/smtp#user", "aws://prod/smtp#pw"), ("refresh/", "evict/")
    ):
        assert client.post(url(SECRETS, page, key), CONFIRMED).status_code == 404
    form = selection("evict", ["smtp", "aws://prod/smtp#user"], confirmed="yes")
    client.post(url(SECRETS), form)
    assert everything(shown) == before
    page = client.get(url(SECRETS, "change/", "aws://prod/smtp")).content.decode()
    assert "SECRETS[&#x27;smtp&#x27;]" in page
    asked = shown.fetches()
    client.post(url(SECRETS, "refresh/", "aws://prod/smtp"), CONFIRMED)
    assert shown.fetches() == asked + 1
    assert registry.get("smtp") == {"user": canary("user"), "password": canary("pw")}
    assert shown.fetches() == asked + 1
    client.post(url(SECRETS, "evict/", "aws://prod/smtp"), CONFIRMED)
    assert state("aws://prod/smtp") == "absent"


def test_a_key_is_unquoted_once(shown: Shown) -> None:
    """Names that look like an encoding of others are names of their own."""
    shown.script.answers["a%2Fb"] = canary("percent")
    shown.hold("aws://a/b", "aws://a_2Fb", "aws://a%252Fb")
    client = visitor("operator")
    for key in ("aws://a_2Fb", "aws://a%252Fb"):
        client.post(url(SECRETS, "evict/", key), CONFIRMED)
        assert (state(key), state("aws://a/b")) == ("", "fresh")
    for key in (quote("aws://a/b"), "aws://a%2Fb", "aws://a//b", "aws://x/../a/b"):
        assert client.post(url(SECRETS, "evict/", key), CONFIRMED).status_code == 404
    assert state("aws://a/b") == "fresh"


@pytest.mark.parametrize("name", ["evict-all", "x/evict", "x/history", "x/refresh/", "x/change/x"])
def test_a_name_like_a_page_leads_to_its_own(shown: Shown, name: str) -> None:
    """A secret that is called like a page of the admin has pages, and takes nobody else's."""
    key = f"aws://{name}"
    shown.hold(key)
    client = visitor("operator")
    assert f"<h2>{key}</h2>" in client.get(url(SECRETS, "change/", key)).content.decode()
    client.post(url(SECRETS, "evict/", key), CONFIRMED)
    assert (state(key), state(SECRET)) == ("", "fresh")


def test_the_sites_shortcut_leads_nowhere(shown: Shown) -> None:
    """Django's page that leads from a content type and a key to a row finds none of these."""
    kind = ContentType.objects.get_for_model(CachedSecret)
    assert visitor("operator").get(f"/admin/r/{kind.pk}/{quote(SECRET)}/").status_code == 404


# -- texts ---------------------------------------------------------------------------------------


def test_hostile_names_stay_text(shown: Shown) -> None:
    """Markup in the name of a secret or an entry, a version or an error is shown as text."""
    shown.script.answers[MARKUP] = SecretValue(canary(), version=MARKUP)  # type: ignore[arg-type]
    registry.get(HOSTILE)
    client = visitor("operator")
    pages = [
        client.get(url(SECRETS)),
        client.get(url(SECRETS, q=MARKUP)),
        client.get(url(SECRETS, state=MARKUP, region=MARKUP, o=MARKUP, p=MARKUP)),
        client.get(url(SECRETS, "change/", HOSTILE)),
        client.get(url(SECRETS, "evict/", HOSTILE)),
        client.get(url(SECRETS, "evict-all/")),
        client.post(f"{url(SECRETS)}?q=onerror&x={MARKUP}", selection("refresh", [HOSTILE])),
    ]
    shown.script.answers[MARKUP] = AccessDenied(MARKUP, hint=MARKUP)
    pages += [
        client.post(url(SECRETS, "refresh/", HOSTILE), CONFIRMED, follow=True),
        client.get(url(SECRETS, "history/", HOSTILE)),
        client.get("/admin/"),
    ]
    for page in pages:
        assert page.status_code == 200
        body = page.content.decode()
        assert "<img src=x" not in body
        assert '"><img src=x' not in body
    assert "&lt;img src=x onerror=alert(1)" in pages[3].content.decode(), "it is there, as text"


def test_no_page_takes_a_name_of_the_search_for_a_secret(shown: Shown, caplog: Any) -> None:
    """A search is matched against rows: it fetches nothing, and its text is not logged."""
    client = visitor("viewer")
    before = everything(shown)
    client.get(url(SECRETS, q="aws://prod/unknown", state="aws://x", provider="gcp"))
    assert everything(shown) == before
    assert f"{APP}.audit" not in {record.name for record in caplog.records}
    assert "prod/unknown" not in caplog.text
