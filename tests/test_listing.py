"""The list over rows in memory: search, filters, sorting and pages, whatever the query string."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from django.contrib.admin import site
from django.contrib.auth.models import User
from django.contrib.messages.storage.base import BaseStorage
from django.http import HttpRequest
from django.test import RequestFactory
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from django_secret_registry.listing import MemoryChangeList
from django_secret_registry.models import CachedProvider, CachedSecret
from tests.admin_support import Shown, down


@pytest.fixture
def shown(settings: Any) -> Iterator[Shown]:
    with Shown(settings) as it:
        yield it


class Unread(BaseStorage):
    """Messages that nobody reads."""

    def _get(self, *args: object, **kwargs: object) -> tuple[list[Any], bool]:
        return [], True

    def _store(self, *args: object, **kwargs: object) -> list[Any]:
        return []


def asked(query: str) -> HttpRequest:
    """Return the request of somebody who may do everything; no database is needed for that."""
    request = RequestFactory().get("/", QUERY_STRING=query)
    request.user = User(username="root", is_superuser=True, is_staff=True)
    request._messages = Unread(request)
    return request


def listing(query: str = "", model: Any = CachedSecret) -> MemoryChangeList:
    found = site._registry[model].get_changelist_instance(asked(query))
    assert isinstance(found, MemoryChangeList)
    return found


def listed(query: str = "", model: Any = CachedSecret) -> list[str]:
    return [row.pk for row in listing(query, model).result_list]


def page(query: str = "", model: Any = CachedSecret) -> str:
    """Return the page as it is shown."""
    response = site._registry[model].changelist_view(asked(query))
    return str(response.render().content.decode())


def column(name: str, model: Any = CachedSecret) -> int:
    """Return the number that sorts by a column."""
    return [str(field) for field in listing("", model).list_display].index(name)


def test_what_needs_an_operator_stands_first(shown: Shown) -> None:
    """Without a sorting, what cannot be read comes first, then what failed or is stale."""
    shown.populate()
    states = [(row.info.state, bool(row.info.attempts)) for row in listing().result_list]
    assert states == [
        ("absent", True),
        ("expired", False),
        ("stale", False),
        ("refused", False),
        *[("due", False)] * 2,
        *[("fresh", False)] * 4,
        *[("absent", False)] * 2,
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("prod/db", ["aws://prod/db"]),
        ("PROD search", ["aws://prod/search"]),
        ("sentry", ["gcp://sentry-dsn"]),
        ("SECRETS['smtp']", ["aws://prod/smtp"]),
        ("nothing-like-that", []),
    ],
)
def test_a_search_finds_every_word_in_references_and_in_what_names_them(
    shown: Shown, text: str, found: list[str]
) -> None:
    """A search ignores case, wants every word, and also looks at entries that name a secret."""
    shown.populate()
    assert listed(urlencode({"q": text})) == found


def test_filters_combine(shown: Shown) -> None:
    """Filters narrow each other, and say how many rows each of their links leads to."""
    shown.populate()
    assert listed("state=absent&provider=gcp") == ["gcp://pagerduty-token", "gcp://sentry-dsn"]
    assert listed("region=eu-west-1") == ["aws://legacy/ftp?region=eu-west-1"]
    assert len(listed("region=")) == 3, "the filter of those without a region"
    text = page("provider=gcp")
    for choice in ("absent (2)", "fresh (1)", "stale (0)", "aws (9)", "gcp (3)", "- (3)"):
        assert f">{choice}<" in text


def test_the_links_of_a_filter_lead_where_they_say(shown: Shown) -> None:
    """Each link of the state filter lists as many rows as it says."""
    shown.populate()
    links = re.findall(r'<a href="\?(state=[a-z]+)">[a-z]+ \((\d+)\)</a>', page())
    assert len(links) == 6
    assert {len(listed(query)) == int(count) for query, count in links} == {True}


def test_a_value_that_no_row_has_finds_nothing_and_can_be_cleared(shown: Shown) -> None:
    """An unknown value of a filter is an empty list with a way back."""
    shown.populate()
    assert listed("state=molten") == []
    assert "Clear all filters" in page("state=molten")


@pytest.mark.parametrize("name", ["fetched", "next_refresh", "version"])
@pytest.mark.parametrize("sign", ["", "-"])
def test_what_has_no_value_is_sorted_to_the_end(shown: Shown, name: str, sign: str) -> None:
    """Sorting by an age, a time or a version works in both directions, ``None`` being last."""
    shown.populate()
    rows = listing(f"o={sign}{column(name)}").result_list
    of = {"fetched": "age", "next_refresh": "due_in", "version": "version"}[name]
    values = [getattr(row.info, of) for row in rows]
    known = [value for value in values if value is not None]
    assert values == known + [None] * (len(values) - len(known))
    assert len(known) not in (0, len(values))
    assert known == sorted(known, reverse=bool(sign))


def test_columns_sort_one_after_the_other(shown: Shown) -> None:
    """The first column of a sorting decides, the next one where it is equal."""
    shown.populate()
    rows = listing(f"o={column('provider')}.-{column('reference')}").result_list
    found = [(row.info.provider, row.pk) for row in rows]
    assert found == sorted(
        sorted(found, key=lambda one: one[1], reverse=True), key=lambda one: one[0]
    )


def test_a_list_has_pages_of_a_hundred(shown: Shown) -> None:
    """A page holds 100 rows; a number past the end gives the last page, nonsense the first."""
    shown.hold(*(f"aws://n{number:03}" for number in range(250)))
    assert listed() == [f"aws://n{number:03}" for number in range(100)]
    assert listed("p=3") == [f"aws://n{number:03}" for number in range(200, 250)]
    assert listed("p=99") == listed("p=3") == listed("p=-1")
    assert listed("p=x") == listed("p=1") == listed()
    assert len(listed("all=1")) == 100
    assert 'href="?p=2"' in page()


def test_a_search_and_a_sorting_survive_the_pages(shown: Shown) -> None:
    """The links to other pages keep what was asked for."""
    shown.hold(*(f"aws://n{number:03}" for number in range(150)))
    links = re.findall(r'href="(\?[^"]*p=2[^"]*)"', page("q=n&o=1&state=fresh"))
    assert links
    for part in ("q=n", "o=1", "state=fresh"):
        assert part in links[0]


def test_providers_are_listed_by_state(shown: Shown) -> None:
    """The list of providers has its states and regions, and searches backends."""
    shown.populate()
    assert listed("", CachedProvider) == ["aws@eu-central-1", "aws@eu-west-1", "gcp@-"]
    assert listed("q=scripted+west", CachedProvider) == ["aws@eu-west-1"]
    assert listed("region=eu-west-1&state=built", CachedProvider) == ["aws@eu-west-1"]
    assert listed("state=failed", CachedProvider) == []


def test_a_backend_that_cannot_be_built_stands_first(shown: Shown) -> None:
    """A provider whose build fails is at the head of the list, as failed."""

    def refuse(provider: Any) -> None:
        if provider.region == "eu-west-1":
            raise down()

    shown.script.on_build = refuse
    shown.hold("aws://a")
    shown.fail("aws://b?region=eu-west-1", down())
    assert listed("", CachedProvider) == ["aws@eu-west-1", "aws@eu-central-1", "gcp@-"]
    states = [row.state for row in listing("", CachedProvider).result_list]
    assert states == ["failed", "built", "unbuilt"]


def test_an_empty_list_says_why(shown: Shown) -> None:
    """A list without rows says that nothing is held; one that a filter emptied does not."""
    assert "Nothing is held" in page()
    shown.hold("aws://a")
    assert "Nothing is held" not in page("q=b")
    assert "0 secrets" in page("q=b")


NAMES = ["q", "o", "p", "e", "all", "state", "provider", "region", "_facets", "_popup", "reference"]
VALUES = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["1", "-1", "0", "99", "-1.2.-0", "9" * 5000, "fresh", "aws", "\0", "%", "a&b"]
    ),
)
PAIRS = st.lists(
    st.tuples(st.one_of(st.sampled_from(NAMES), st.text(max_size=12)), VALUES), max_size=6
)


@pytest.fixture
def populated(shown: Shown) -> Shown:
    shown.populate()
    return shown


@given(pairs=PAIRS)
@examples(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_query_string_gives_a_list(populated: Shown, pairs: list[tuple[str, str]]) -> None:
    """Whatever the parameters are, the list is made; it holds rows of this process only."""
    query = "&".join(
        f"{quote(name, errors='surrogatepass')}={quote(value, errors='surrogatepass')}"
        for name, value in pairs
        if not name.startswith("_to_field")  # Django answers 400 to it
    )
    everything = set(listed())
    assert set(listed(query)) <= everything
    assert set(listed(query, CachedProvider)) <= set(listed("", CachedProvider))


@given(query=st.binary(max_size=60))
@examples(
    deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_bytes_give_a_page(populated: Shown, query: bytes) -> None:
    """Whatever bytes stand behind the question mark, the page is rendered."""
    assert "Secrets" in page(query.decode("latin-1"))


def test_a_query_string_is_shown_escaped(shown: Shown) -> None:
    """What stands in the query string is never markup of the page."""
    shown.populate()
    script = "\"'><script>alert(1)</script>"
    query = urlencode(dict.fromkeys(("q", "o", "state", "provider", "x"), script))
    assert "<script>alert" not in page(query)
