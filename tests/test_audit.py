"""The audit log: one line for each action of a person and for each refusal, and no other line."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from django_secret_registry import audit
from tests.admin_support import SECRETS, Shown, down, selection, url, user

pytestmark = pytest.mark.django_db
LOGGER = "django_secret_registry.audit"


@pytest.fixture
def shown(settings: Any) -> Iterator[Shown]:
    with Shown(settings) as it:
        yield it


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, str, str, str]]:
    """Return what was written: level, user, action, reference, outcome."""
    fields = ("user", "action", "reference", "outcome")
    return [
        (record.levelname, *(record.audit[field] for field in fields))
        for record in caplog.records
        if record.name == LOGGER
    ]


def logged_in(name: str, *codenames: str, staff: bool = True) -> Client:
    client = Client()
    client.force_login(user(name, *codenames, staff=staff))
    return client


def test_an_action_is_one_line_per_secret(shown: Shown, caplog: Any) -> None:
    """Who, what, which reference, with what outcome: a line for each secret of a selection."""
    shown.hold("aws://a", "aws://b")
    shown.script.answers["b"] = down()
    client = logged_in("ada", "view_cachedsecret", "refresh_cachedsecret")
    client.post(url(SECRETS), selection("refresh", ["aws://a", "aws://b"], confirmed="yes"))
    assert lines(caplog) == [
        ("INFO", "ada", "refresh", "aws://a", "ok"),
        ("INFO", "ada", "refresh", "aws://b", "unavailable"),
    ]


def test_asking_is_no_line(shown: Shown, caplog: Any) -> None:
    """Looking, and being asked to confirm, changes nothing and is not written down."""
    shown.hold("aws://a")
    client = logged_in("ada", "view_cachedsecret", "evict_cachedsecret")
    client.get(url(SECRETS))
    client.get(url(SECRETS, "evict/", "aws://a"))
    client.post(url(SECRETS), selection("evict", ["aws://a"]))
    assert lines(caplog) == []


def test_a_refusal_names_the_reference(shown: Shown, caplog: Any) -> None:
    """Whoever may not evict is written down with what they tried to evict."""
    shown.hold("aws://a", "aws://b")
    client = logged_in("eve", "view_cachedsecret", "refresh_cachedsecret")
    client.post(url(SECRETS, "evict/", "aws://a"), {"confirmed": "yes"})
    client.post(url(SECRETS), selection("evict", ["aws://a", "aws://b"], confirmed="yes"))
    client.post(url(SECRETS, "evict-all/"), {"confirmed": "yes"})
    client.post(url(SECRETS, "change/", "aws://a"), {"reference": "aws://b"})
    assert lines(caplog) == [
        ("WARNING", "eve", "evict", "aws://a", "refused"),
        ("WARNING", "eve", "evict", "aws://a", "refused"),
        ("WARNING", "eve", "evict", "aws://b", "refused"),
        ("WARNING", "eve", "evict", "*", "refused"),
        ("WARNING", "eve", "change", "aws://a", "refused"),
    ]


def test_whom_the_site_turns_away_is_written_down(shown: Shown, caplog: Any) -> None:
    """A visitor without an account, and a user who is no staff, are refused by the site itself."""
    shown.hold("aws://a")
    Client().post(url(SECRETS, "evict/", "aws://a"), {"confirmed": "yes"})
    customer = logged_in("carl", "view_cachedsecret", "refresh_cachedsecret", staff=False)
    customer.post(url(SECRETS, "refresh/", "aws://a"), {"confirmed": "yes"})
    customer.get(url(SECRETS))
    assert lines(caplog) == [
        ("WARNING", "", "evict", "aws://a", "refused"),
        ("WARNING", "carl", "refresh", "aws://a", "refused"),
        ("WARNING", "carl", "view", "*", "refused"),
    ]


@pytest.mark.parametrize("key", ["aws://pasted-password", "pasted-password", "x\ny", "%0d%0a"])
def test_a_name_that_is_no_row_is_not_written(shown: Shown, caplog: Any, key: str) -> None:
    """Text of the visitor's own is not written down: it may be a secret, or forge a line."""
    shown.hold("aws://a")
    client = logged_in("eve", "view_cachedsecret")
    client.post(url(SECRETS, "evict/", key), {"confirmed": "yes"})
    client.post(url(SECRETS), selection("evict", [key], confirmed="yes"))
    assert lines(caplog) == [("WARNING", "eve", "evict", "*", "refused")] * 2
    assert not any("pasted" in r.getMessage() for r in caplog.records if r.name == LOGGER)


def test_the_time_is_utc(caplog: Any) -> None:
    """The time of a line is the present one, in UTC, and says so."""
    audit.record(user="ada", action="evict", reference="aws://a", outcome="ok")
    (record,) = caplog.records
    time = datetime.fromisoformat(record.audit["time"])
    assert time.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - time) < timedelta(minutes=1)
    assert f"time={record.audit['time']!r}" in record.getMessage()


@given(name=st.text(), reference=st.text())
@examples(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_text_forges_a_line(caplog: Any, name: str, reference: str) -> None:
    """Whatever a user is called, a line is one printable line whose fields can be read back."""
    caplog.clear()
    audit.record(user=name, action="evict", reference=reference, outcome="ok")
    (record,) = caplog.records
    text = record.getMessage()
    assert text.isprintable()
    assert text.startswith(f"user={name!r} action='evict' reference={reference!r} outcome='ok' ")
    assert (record.audit["user"], record.audit["reference"]) == (name, reference)


@pytest.mark.parametrize(("level", "kept"), [(None, 20), (30, 30)])
def test_what_was_done_is_kept_unless_settings_say_otherwise(level: Any, kept: int) -> None:
    """The line of an action passes a root logger at WARNING; a level in LOGGING is respected."""
    logger = logging.getLogger(LOGGER)
    before = logger.level
    try:
        logger.setLevel(level or logging.NOTSET)
        importlib.reload(audit)
        assert logger.level == kept
    finally:
        logger.setLevel(before)


def test_a_user_name_with_a_line_break_forges_no_line(shown: Shown, caplog: Any) -> None:
    """A user name that looks like a line of the log stays a user name."""
    shown.hold("aws://a")
    name = "eve\nuser='ada' action='evict' reference='aws://b' outcome='ok'"
    client = logged_in(name, "view_cachedsecret", "evict_cachedsecret")
    client.post(url(SECRETS, "evict/", "aws://a"), {"confirmed": "yes"})
    assert lines(caplog) == [("INFO", name, "evict", "aws://a", "ok")]
    assert "\n" not in next(r.getMessage() for r in caplog.records if r.name == LOGGER)
