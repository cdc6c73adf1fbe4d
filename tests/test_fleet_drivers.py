"""Engines as they are met: stopped in the middle, misconfigured, too old, behind a pooler."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.cache.backends.locmem import LocMemCache
from django.core.checks import run_checks
from django.db import connections

from django_secret_registry.fleet.bus import Bus, BusDenied, BusEvent, BusUnavailable
from django_secret_registry.fleet.cache import CacheBus
from django_secret_registry.fleet.database import DatabaseBus
from django_secret_registry.fleet.redis import RedisBus
from tests import test_fleet_buses as buses
from tests.canary import canary
from tests.fleet_conformance import event, names
from tests.scripted import Gate, running
from tests.servers import postgres as postgres_server
from tests.servers import redis as redis_server
from tests.servers.proxy import Proxy

redis_session, redis = redis_server.redis_session, redis_server.redis
postgres, closing = postgres_server.postgres, buses.closing

pytestmark = pytest.mark.full

REDIS, DATABASE = (
    "django_secret_registry.fleet.redis.RedisBus",
    "django_secret_registry.fleet.database.DatabaseBus",
)


def url(port: int, rest: str = "") -> str:
    return f"redis://127.0.0.1:{port}{rest}"


def bus_problems(settings: Any, backend: str, **options: Any) -> list[tuple[str, str | None]]:
    """Return what ``manage.py check --database ...`` says of a project's bus."""
    settings.SECRET_REGISTRY = {"FLEET": {"BACKEND": backend, "OPTIONS": options}}
    found = run_checks(tags=["database"], databases=[options.get("using", "default")])
    return [(one.msg, one.hint) for one in found if one.id == "secret_registry.W010"]


# -- an engine that hangs ------------------------------------------------------------------------


@pytest.fixture
def silent() -> Iterator[int]:
    """Return the port of a server that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def calls(bus: Bus) -> list[Callable[[], Any]]:
    return [
        lambda: bus.append(event()),
        lambda: bus.read_since(None, block=0),
        lambda: bus.heartbeat("w", {"": "1"}, lifetime=60, anew=True),
        bus.workers,
    ]


def test_a_redis_that_accepts_and_never_answers_is_told_in_time(silent, closing):
    """Each operation ends; nobody hangs with it."""
    for call in calls(closing(RedisBus(url=url(silent)))):
        began = time.monotonic()
        with pytest.raises(BusUnavailable):
            call()
        assert time.monotonic() - began < 10


def test_a_database_that_accepts_and_never_answers_is_told_in_time(
    silent, closing, django_db_blocker
):
    """Connecting ends as well."""
    pytest.importorskip("psycopg")
    entry = {"ENGINE": "django.db.backends.postgresql", "HOST": "127.0.0.1", "NAME": "app"}
    with buses.database(**entry, USER="app", PORT=silent), django_db_blocker.unblock():
        for call in calls(closing(DatabaseBus(using="fleet")))[:2]:
            began = time.monotonic()
            with pytest.raises(BusUnavailable):
                call()
            assert time.monotonic() - began < 10


# -- Redis ---------------------------------------------------------------------------------------


def test_a_wait_of_less_than_a_millisecond_is_no_wait_for_ever(redis, closing):
    """Redis takes a block of 0 for one without end."""
    bus = closing(RedisBus(url=url(redis.port)))
    start = bus.read_since(None, block=0).cursor
    began = time.monotonic()
    assert bus.read_since(start, block=0.0004).events == ()
    assert time.monotonic() - began < Bus.timeout


@pytest.mark.parametrize("query", ["?protocol=2", "?protocol=3", "?decode_responses=True"])
def test_whatever_a_url_says_of_answers_they_are_read(redis, closing, query):
    """Either protocol, and a URL that other clients use, too."""
    bus = closing(RedisBus(url=url(redis.port, query)))
    start = bus.read_since(None, block=0).cursor
    bus.append(event("a"))
    assert names(bus.read_since(start, block=0)) == ["a"]
    assert bus.read_since(bus.read_since(start, block=0).cursor, block=0.01).events == ()
    bus.heartbeat("w", {"": "head", "t://a": "[]"}, lifetime=60, anew=True)
    assert dict(bus.workers()[0].fields) == {"": "head", "t://a": "[]"}


@pytest.mark.parametrize("place", ["*", "99999999999999-7"])
def test_what_somebody_else_writes_into_the_stream_is_one_gap(redis, closing, place):
    """The log begins anew: readers go on, and so do writers."""
    bus = closing(RedisBus(url=url(redis.port)))
    start = bus.read_since(None, block=0).cursor
    bus.append(event("before"))
    with redis.client() as client:
        client.xadd("{secret-registry}:events", {"what": "ever"}, id=place)
    broken = bus.read_since(start, block=0)
    assert broken.gap
    bus.append(event("after"))
    assert names(bus.read_since(broken.cursor, block=0)) == ["after"]


def test_an_event_is_written_over_what_somebody_else_left_in_the_way(redis, closing):
    """An eviction does not wait for somebody to read and find the log broken."""
    bus = closing(RedisBus(url=url(redis.port)))
    bus.append(event("before"))
    with redis.client() as client:
        client.xadd("{secret-registry}:events", {"what": "ever"}, id="99999999999999-7")
    assert bus.append(event("after")).number == 1


def test_a_report_of_half_characters_is_no_outage(redis, closing):
    """Names that are no text are shown as far as they are."""
    bus = closing(RedisBus(url=url(redis.port)))
    with redis.client() as client:
        client.hset(b"{secret-registry}:worker:\xff", b"\xfe", b"\xfd")
        client.zadd("{secret-registry}:workers", {b"\xff": time.time() * 1000})
    assert [report.worker for report in bus.workers()] == ["\ufffd"]


def test_a_user_of_redis_who_may_not_is_told_what_is_missing(redis, closing):
    """The ACL that is needed stands in the hint, and suffices."""
    bus = closing(RedisBus(url=url(redis.port)))
    with redis.client() as client:
        client.acl_setuser("fleet", enabled=True, passwords=["+x"], keys=["none"], reset=True)
    low = closing(RedisBus(url=f"redis://fleet:x@127.0.0.1:{redis.port}"))
    with pytest.raises(BusUnavailable) as raised:
        low.read_since(None, block=0)
    assert not isinstance(raised.value, BusDenied)  # its credential need not be read anew
    assert raised.value.hint is not None
    allowed = re.findall(r"\+@?\w+", raised.value.hint)
    with redis.client() as client:
        client.execute_command("ACL", "SETUSER", "fleet", "~{secret-registry}:*", *allowed)
    bus = closing(RedisBus(url=f"redis://fleet:x@127.0.0.1:{redis.port}"))
    start = bus.read_since(None, block=0).cursor
    bus.append(event("a"))
    assert names(bus.read_since(start, block=0)) == ["a"]
    bus.heartbeat("w", {"": "1", "a": None}, lifetime=60, anew=False)
    bus.heartbeat("w", {"": "1"}, lifetime=60, anew=True)
    bus.heartbeat("w", {"a": None}, lifetime=60, anew=False)
    bus.workers()
    assert [*bus.probe()] == []
    with redis.client() as client:
        client.acl_deluser("fleet")


@pytest.fixture
def replica(redis: Any) -> Iterator[Any]:
    """Redis as a replica that takes no writes."""
    with redis.client() as client:
        client.config_set("replica-serve-stale-data", "yes")
        client.execute_command("REPLICAOF", "127.0.0.1", "9")
        yield redis
        client.execute_command("REPLICAOF", "NO", "ONE")


def test_a_replica_is_told_apart_from_an_outage(replica, closing, settings):
    """It answers and refuses: the error and the check say to name the primary."""
    with pytest.raises(BusUnavailable, match="refuses") as raised:
        closing(RedisBus(url=url(replica.port))).append(event())
    assert "primary" in (raised.value.hint or "")
    ((text, hint),) = bus_problems(settings, REDIS, url=url(replica.port))
    assert "the bus refuses" in text
    assert "primary" in (hint or "")


class Rewriting(Proxy):
    """Replaces bytes of answers; an empty replacement drops them."""

    def __init__(self, port: int, pattern: bytes, replacement: bytes) -> None:
        super().__init__("127.0.0.1", port)
        self._pattern, self._replacement = re.compile(pattern, re.DOTALL), replacement

    async def _answer(self, sink: Any, data: bytes) -> None:
        await super()._answer(sink, self._pattern.sub(self._replacement, data))


@contextlib.contextmanager
def rewriting(port: int, pattern: bytes, replacement: bytes) -> Iterator[int]:
    proxy = Rewriting(port, pattern, replacement)
    try:
        yield proxy.port
    finally:
        proxy.stop()


def test_the_check_tells_a_redis_that_is_too_old(redis, settings):
    """With --database only, as Django's checks that ask servers; a new one has nothing to say."""
    with rewriting(redis.port, rb"redis_version:\d\.\d", b"redis_version:5.0") as port:
        ((text, _),) = bus_problems(settings, REDIS, url=url(port))
        assert "Redis 5.0" in text
        assert "6.2 is needed" in text
        assert [one for one in run_checks() if one.id == "secret_registry.W010"] == []
    assert bus_problems(settings, REDIS, url=url(redis.port)) == []
    with redis.client() as client:
        assert client.keys("*probe*") == []


def test_the_check_tells_a_refused_password_and_not_an_outage(redis, settings):
    """Whether an engine answers where checks run says nothing about where workers do."""
    redis.set_password("of a test")
    ((text, _),) = bus_problems(settings, REDIS, url=url(redis.port))
    assert "refuses the credential" in text
    redis.set_password(None)
    assert bus_problems(settings, REDIS, url=url(buses.free_port())) == []


# -- PostgreSQL ----------------------------------------------------------------------------------


@pytest.fixture
def entry(postgres: Any) -> dict[str, Any]:
    return {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": postgres.host,
        "NAME": postgres.database,
        "USER": "postgres",
        "PASSWORD": postgres._password,
        "PORT": postgres.port,
    }


@pytest.fixture
def on_postgres(entry: dict[str, Any], django_db_blocker: Any) -> Iterator[None]:
    with buses.database(**entry), django_db_blocker.unblock():
        buses.create_tables()
        buses.empty_tables()
        yield


def test_a_listener_keeps_no_notifications(on_postgres, closing):
    """They wake it, and its driver does not collect them for the life of the process."""
    bus, writer = closing(DatabaseBus(using="fleet")), closing(DatabaseBus(using="fleet"))
    cursor = bus.read_since(None, block=0).cursor
    for number in range(5):
        writer.append(event(str(number)))
        cursor = bus.read_since(cursor, block=1).cursor
    assert bus._connection.connection._notifies_backlog is not None
    assert not bus._connection.connection._notifies_backlog


def test_a_listener_waits_in_a_process_with_many_files(on_postgres, closing):
    """A connection beyond the 1024th file waits too, and does not read in a circle."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2048:
        pytest.skip("needs a system that allows 2048 open files: raise its ulimit -n")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        bus, reads = closing(DatabaseBus(using="fleet")), []
        cursor = bus.read_since(None, block=0).cursor
        read = bus._read
        bus._read = lambda start: reads.append(1) or read(start)  # type: ignore[method-assign]
        bus.read_since(cursor, block=0.3)
        assert bus._connection.connection.fileno() > 1024
        assert len(reads) == 2
    finally:
        for file in files:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_process_that_stops_while_it_writes_keeps_nobody_waiting(on_postgres, closing):
    """The database ends its transaction, which holds the counter's row, after two seconds."""
    bus, seen = closing(DatabaseBus(using="fleet")), []

    class Stops(BusEvent):
        def encode(self) -> str:  # between the counter and the event
            with bus._connection.cursor() as cursor:
                cursor.execute("SHOW idle_in_transaction_session_timeout")
                seen.append(cursor.fetchone()[0])
            return super().encode()

    bus.append(Stops(*event()))
    assert seen == ["2s"]
    with bus._connection.cursor() as cursor:
        cursor.execute("SHOW idle_in_transaction_session_timeout")
        assert cursor.fetchone() == ("0",)


def test_a_clock_that_is_set_back_leaves_no_ghosts(on_postgres, closing):
    """Who last reported in the future is shown again once it reports again, or never."""
    bus = closing(DatabaseBus(using="fleet"))
    for name in ("gone", "here"):
        bus.heartbeat(name, {"": "1"}, lifetime=60, anew=True)
    with connections["fleet"].cursor() as cursor:
        cursor.execute("UPDATE django_secret_registry_fleetreport SET seen = seen + 3600")
    assert bus.workers() == []
    bus.heartbeat("here", {"": "2"}, lifetime=60, anew=False)
    assert [report.worker for report in bus.workers()] == ["here"]


def test_a_user_of_the_database_who_may_not_is_told_what_is_missing(
    postgres, entry, closing, django_db_blocker
):
    """Which is no reason to migrate, nor to read the password anew."""
    postgres.set_password("fleet_low", canary("low"))
    low = {**entry, "USER": "fleet_low", "PASSWORD": canary("low")}
    with django_db_blocker.unblock():
        with buses.database(**entry):
            buses.create_tables()
        with buses.database(**low), pytest.raises(BusUnavailable) as raised:
            closing(DatabaseBus(using="fleet")).append(event())
    assert not isinstance(raised.value, BusDenied)
    assert "Grant" in (raised.value.hint or "")


def test_a_row_that_is_no_report_is_no_outage(on_postgres, closing):
    """Whatever stands there: the others are shown."""
    bus = closing(DatabaseBus(using="fleet"))
    bus.heartbeat("here", {"": "1"}, lifetime=60, anew=True)
    with connections["fleet"].cursor() as cursor:
        cursor.execute("UPDATE django_secret_registry_fleetreport SET rest = '[broken'")
    assert [dict(report.fields) for report in bus.workers()] == [{"": "1"}]


#: A NotificationResponse: type, length, process, channel, payload.
NOTIFICATION = rb"A.{8}secret_registry_fleet\x00\x00"


def test_the_check_tells_a_pooler_that_listen_does_not_reach_through(
    entry, postgres, settings, django_db_blocker
):
    """LISTEN succeeds there, and no NOTIFY ever comes; polling is not complained of."""
    with (
        rewriting(postgres.port, NOTIFICATION, b"") as port,
        buses.database(**{**entry, "PORT": port}),
        django_db_blocker.unblock(),
    ):
        ((text, hint),) = bus_problems(settings, DATABASE, using="fleet")
        assert "LISTEN hears nothing" in text
        assert '"listen": False' in (hint or "")
        assert bus_problems(settings, DATABASE, using="fleet", listen=False) == []
        connections["fleet"].close()
    with buses.database(**entry), django_db_blocker.unblock():
        assert bus_problems(settings, DATABASE, using="fleet") == []


def test_an_event_arrives_through_a_pooler_of_transactions_by_polling(
    entry, postgres, django_db_blocker, closing
):
    """What NOTIFY does not wake finds out at its next poll."""
    with (
        rewriting(postgres.port, NOTIFICATION, b"") as port,
        buses.database(**{**entry, "PORT": port}),
        django_db_blocker.unblock(),
    ):
        buses.create_tables()
        reader, writer = closing(DatabaseBus(using="fleet")), closing(DatabaseBus(using="fleet"))
        start = reader.read_since(None, block=0).cursor
        waits = Gate()
        wait = reader._wait
        reader._wait = lambda seconds: waits.stop() or wait(seconds)  # type: ignore[method-assign]
        with running(lambda: reader.read_since(start, block=20)) as outcome:
            waits.wait()
            writer.append(event("polled"))
            waits.open()
        assert names(outcome[0]) == ["polled"]


def test_a_database_that_is_not_asked_about_is_not_asked(settings, postgres, entry):
    """``check --database other`` leaves the bus' own database alone, as does plain ``check``."""
    with buses.database(**{**entry, "PORT": 9}):
        settings.SECRET_REGISTRY = {"FLEET": {"BACKEND": DATABASE, "OPTIONS": {"using": "fleet"}}}
        for databases in (None, [], ["default"]):
            found = run_checks(tags=["database"], databases=databases)
            assert [one for one in found if one.id == "secret_registry.W010"] == []


# -- Django's cache ------------------------------------------------------------------------------


class Hiding(LocMemCache):
    """As django-redis with IGNORE_EXCEPTIONS while its server is gone: it takes nothing, silently.

    What stood there before is served by a replica, say.
    """

    def add(self, *args: Any, **kwargs: Any) -> bool:
        return False


def test_a_cache_that_hides_its_failures_is_an_outage(settings, closing):
    """An event that finds no place in a thousand is not tried for ever."""
    settings.CACHES = {"shared": {"BACKEND": f"{__name__}.Hiding", "LOCATION": "hiding"}}
    bus = closing(CacheBus(cache="shared"))
    bus._connected().set(bus._log, '["log", 3]', None)
    with pytest.raises(BusUnavailable):
        bus.append(event())


@pytest.mark.parametrize("text", ["[", "{}", '["log", "3"]', "[1, 2]", 5, '{"worker": 1}'])
def test_what_stands_in_a_cache_and_is_none_of_ours_is_no_error(settings, closing, text):
    """Neither as the end of the log, nor as a worker's report."""
    settings.CACHES = {
        "shared": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "x"}
    }
    bus = closing(CacheBus(cache="shared"))
    cache = bus._connected()
    cache.clear()
    cache.set(bus._log, text, None)
    bus.heartbeat("w", {"": "1"}, lifetime=60, anew=True)
    cache.set(bus._worker((bus._place or 0) + 1), text, None)
    start = bus.read_since(None, block=0).cursor
    bus.append(event("a"))
    assert names(bus.read_since(start, block=0)) == ["a"]
    assert [report.worker for report in bus.workers()] == ["w"]
    assert bus.heartbeat("w", {"": "2"}, lifetime=60, anew=False)
