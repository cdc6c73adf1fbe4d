"""The base class: options, canonical references, fences, quoting, and the errors it makes."""

from __future__ import annotations

import copy
import gc
import pickle
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from django_secret_registry.exceptions import (
    AccessDenied,
    InvalidReference,
    ProviderUnavailable,
    SecretNotFound,
)
from django_secret_registry.providers.base import BaseProvider, Fence, quote_path
from django_secret_registry.references import LOCATOR, SecretRef
from django_secret_registry.values import SecretValue
from tests.canary import canary


class Vault(BaseProvider):
    """A backend with everything: options, projects, versions and stages."""

    accepts = frozenset({"project", "version", "stage"})
    stages = {"current": "CURRENT", "previous": "PREVIOUS"}

    def __init__(self, *, alias, region, url, token=""):
        super().__init__(alias=alias, region=region)
        self.url = url
        self.token = token

    @classmethod
    def canonical(cls, ref, options):
        ref = super().canonical(ref, options)
        parts = ref.name.split(":")
        if len(parts) == 3:
            ref = cls._take_locator(ref, "region", parts[0])
            ref = cls._take_locator(ref, "project", parts[1])
        return ref

    def fetch(self, ref, *, timeout):
        if ref.name == "missing":
            raise self.error(SecretNotFound, "no such secret", ref, hint="Create it.")
        return SecretValue(canary(ref.name))


def vault() -> Vault:
    return Vault(alias="vault", region="eu", url="http://127.0.0.1")


# -- options --


@pytest.mark.parametrize(
    ("options", "problems"),
    [
        ({"url": "x"}, []),
        ({"url": "x", "token": "y"}, []),
        ({}, [("option 'url' is missing", 'Write "OPTIONS": {"url": ...}.')]),
        ({"url": "x", "tokn": "y"}, [("unknown option 'tokn'", "Allowed: token, url.")]),
        ({"url": "x", "region": "y"}, [("unknown option 'region'", "Allowed: token, url.")]),
        ({"url": "x", 5: "y"}, [("unknown option '5'", "Allowed: token, url.")]),
    ],
)
def test_options_are_checked_by_the_signature(options, problems):
    """Options are the keyword arguments of __init__: unknown and missing ones are problems."""
    assert Vault.check(options) == problems


def test_option_values_are_not_shown():
    """A problem names the option and never its value, which may be a token."""
    text = repr(Vault.check({"token": canary(), "tokn": canary()}))
    assert "tokn" in text
    assert canary() not in text


def test_provider_without_options():
    """A provider that takes no option says so."""
    (problem,) = BaseProvider.check({"url": "x"})
    assert problem.hint == "Allowed: none."


def test_provider_that_takes_anything():
    """Arbitrary keyword arguments are for the backend to judge."""

    class Open(BaseProvider):
        def __init__(self, *, alias, region, **options):
            super().__init__(alias=alias, region=region)

    assert Open.check({"anything": 1}) == []


# -- canonical references --


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("vault://x", "vault://x"),
        ("vault://x?stage=current", "vault://x"),
        ("vault://x?stage=CURRENT", "vault://x"),
        ("vault://x?stage=previous", "vault://x?stage=PREVIOUS"),
        ("vault://x?stage=PREVIOUS", "vault://x?stage=PREVIOUS"),
        ("vault://x?stage=custom", "vault://x?stage=custom"),
        ("vault://eu-1:acme:x", "vault://eu-1:acme:x?region=eu-1&project=acme"),
        ("vault://eu-1:acme:x?region=eu-1", "vault://eu-1:acme:x?region=eu-1&project=acme"),
    ],
)
def test_canonical_is_one_spelling(text, canonical):
    """Spellings of one secret become one reference, which is canonical itself."""
    ref = Vault.canonical(SecretRef.parse(text), {})
    assert str(ref) == canonical
    assert Vault.canonical(ref, {}) == ref


@pytest.mark.parametrize("field", ["project", "version", "stage"])
def test_what_the_backend_does_not_have(field):
    """A project, version or stage for a backend without them is an error that says so."""
    with pytest.raises(InvalidReference, match=rf"has no {field}s .*Remove {field}="):
        BaseProvider.canonical(SecretRef.parse(f"plain://x?{field}=1"), {})


@pytest.mark.parametrize(
    "text",
    [
        "vault://eu-1:acme:x?region=us-1",
        "vault://eu-1:acme:x?project=other",
        "vault://eu%2F1:acme:x",
        "vault://eu-1:a%40evil:x",
        "vault://:acme:x",
        "vault://..:acme:x",
    ],
)
def test_full_name_that_contradicts_or_bends(text):
    """A region or project in a full name obeys the same form, and may not differ from the query."""
    with pytest.raises(InvalidReference, match="malformed, or differs"):
        Vault.canonical(SecretRef.parse(text), {})


# -- fences --


@pytest.mark.parametrize(
    ("fence", "name", "region", "project", "outside"),
    [
        (Fence(), "x", "", "", ""),
        (Fence(), "a/../x", "", "", ""),
        (Fence(allow=("prod/*",)), "prod/db", "", "", ""),
        (Fence(allow=("prod/*",)), "prod/a/b", "", "", ""),
        (Fence(allow=("dev/*", "prod/*")), "prod/db", "", "", ""),
        (Fence(allow=("prod/*",)), "dev/db", "", "", "ALLOW"),
        (Fence(allow=("prod/*",)), "PROD/db", "", "", "ALLOW"),
        (Fence(allow=("prod/*",)), "x/prod/db", "", "", "ALLOW"),
        (Fence(allow=("prod",)), "prod\n", "", "", "ALLOW"),
        (Fence(allow=("prod/*",)), "prod/../dev/db", "", "", "ALLOW"),
        (Fence(allow=("prod/*",)), "prod/./db", "", "", "ALLOW"),
        (Fence(allow=("prod/*",)), "prod/..\\dev", "", "", "ALLOW"),
        (Fence(allow=("*",)), "..", "", "", "ALLOW"),
        (Fence(allow=()), "x", "", "", "ALLOW"),
        (Fence(regions=("eu",)), "x", "eu", "", ""),
        (Fence(regions=("eu",)), "x", "us", "", "REGIONS"),
        (Fence(regions=("eu",)), "x", "", "", "REGIONS"),
        (Fence(projects=("acme",)), "x", "", "", ""),
        (Fence(projects=("acme",)), "x", "", "acme", ""),
        (Fence(projects=("acme",)), "x", "", "evil", "PROJECTS"),
        (Fence(("x",), ("eu",), ("acme",)), "x", "eu", "evil", "PROJECTS"),
    ],
)
def test_fence(fence, name, region, project, outside):
    """What lies outside ALLOW, REGIONS or PROJECTS is AccessDenied, and the fence is named."""
    ref = SecretRef("vault", name, project=project)
    if not outside:
        fence.check(ref, name=name, region=region)
        return
    with pytest.raises(AccessDenied, match=f"outside {outside} of its provider") as caught:
        fence.check(ref, name=name, region=region)
    assert (caught.value.reference, caught.value.provider) == (str(ref), "vault")
    assert caught.value.region == region


def test_fenced_name_is_the_name():
    """ALLOW is compared with the name, unless a backend knows better."""
    assert Vault.fenced_name(SecretRef("vault", "prod/db")) == "prod/db"


# -- quoting --


@given(st.text(st.characters(exclude_categories=["Cs"])))
@example("%2e%2e/x")
@example("a?b#c")
@example("a\\..\\b")
@example("//evil.example/x")
def test_quoted_name_stays_one_path(name):
    """A quoted name is the path of a URL and nothing else, and unquotes to the name."""
    try:
        path = quote_path(name)
    except InvalidReference:
        assume(any(part in ("", ".", "..") for part in name.replace("\\", "/").split("/")))
        return
    url = urlsplit(f"https://vault.example/v1/{path}?list=true")
    assert (url.netloc, url.query, url.fragment) == ("vault.example", "list=true", "")
    assert unquote(url.path) == f"/v1/{name}"
    assert path.count("/") == name.count("/")


@pytest.mark.parametrize("name", ["", "/x", "x/", "a//b", ".", "..", "a/./b", "a/../b", "..\\x"])
def test_name_that_is_no_path(name):
    """A name that a server or proxy would resolve to another path is refused."""
    with pytest.raises(InvalidReference, match="cannot be part of a path"):
        quote_path(name)


@given(st.from_regex(LOCATOR, fullmatch=True))
def test_locators_cannot_bend_a_host(locator):
    """Whatever a region may be, put into a host name it stays one part of that host."""
    url = urlsplit(f"https://secrets.{locator}.example/x")
    assert url.netloc == f"secrets.{locator}.example"
    assert (url.path, url.username, url.port) == ("/x", None, None)


# -- instances --


def test_fetch_many_answers_for_each():
    """The default batch is one by one: an error stands beside the values of the others."""
    refs = [SecretRef("vault", "missing"), SecretRef("vault", "db")]
    answers = vault().fetch_many(refs, timeout=1)
    assert list(answers) == refs
    assert type(answers[refs[0]]) is SecretNotFound
    assert answers[refs[1]].value == canary("db")


def test_error_names_where_and_what_to_do():
    """An error of a provider names reference, alias and region, and what to do."""
    with pytest.raises(SecretNotFound) as caught:
        vault().fetch(SecretRef("vault", "missing", key="a"), timeout=1)
    assert str(caught.value) == (
        "no such secret (reference 'vault://missing#a', provider 'vault', region 'eu'). Create it."
    )


def test_copied_error_is_a_new_one():
    """A copy has the text and the place, fills what was empty, and not the cause."""
    error = ProviderUnavailable("down", provider="vault", hint="Wait.")
    error.__cause__ = OSError("refused")
    again = error.copy(provider="other", region="eu")
    assert type(again) is ProviderUnavailable
    assert str(again) == "down (provider 'vault', region 'eu'). Wait."
    assert again.__cause__ is None


def test_error_survives_pickling():
    """An error arrives in another process with its class, text, place and hint."""
    error = ProviderUnavailable("down", reference="vault://x", provider="vault", hint="Wait.")
    for copied in (pickle.loads(pickle.dumps(error)), copy.deepcopy(error)):
        assert type(copied) is ProviderUnavailable
        assert str(copied) == str(error)
        assert vars(copied) == vars(error)


def test_repr_names_alias_and_region():
    """The repr of a provider shows where it belongs and none of its options."""
    provider = Vault(alias="vault", region="", url="http://127.0.0.1", token=canary())
    assert repr(provider) == "<Vault alias='vault' region='-'>"


def test_provider_is_closed_when_it_goes():
    """The last reference to a provider closes it, and a failing close is nobody's problem."""
    closed = []

    class Closing(Vault):
        def close(self):
            closed.append(self.region)
            raise OSError

    provider = Closing(alias="vault", region="eu", url="")
    assert not closed
    del provider
    gc.collect()
    assert closed == ["eu"]


def test_provider_without_fetch():
    """A provider has to say how it fetches."""
    with pytest.raises(NotImplementedError):
        BaseProvider(alias="x", region="").fetch(SecretRef("x", "y"), timeout=1)
