"""What the cache tells its listeners and shows in its snapshot."""

from __future__ import annotations

import functools

import pytest

from django_secret_registry.events import (
    Fetched,
    Refreshed,
    Rotated,
)
from django_secret_registry.exceptions import (
    AccessDenied,
    ProviderError,
    ProviderUnavailable,
    SecretError,
    SecretNotFound,
)
from django_secret_registry.lifecycle import SecretKey
from django_secret_registry.values import SecretValue
from tests.canary import canary
from tests.loads import (
    DUE,
    MINUTE,
    STALE,
    Bench,
    denied,
    down,
    value,
)
from tests.scripted import Gate, running


def test_a_fetch_is_told_with_its_time_and_outcome():
    """One event per key that was asked for, in the words of resolve_total."""
    bench = Bench()

    def slow() -> SecretValue:
        bench.clock.forward(0.3)
        return value()

    bench.answer("db", slow)
    bench.read()
    for name, answer in (("d", denied), ("u", down), ("e", lambda: ProviderError("no JSON"))):
        bench.answer(name, answer)
        with pytest.raises(SecretError):
            bench.read(name)
    bench.forward(MINUTE)
    with pytest.raises(SecretNotFound):
        bench.read("n")
    told = bench.told.of(Fetched)
    statuses = ["ok", "denied", "unavailable", "not_found"]
    assert [event.status for event in told] == statuses
    assert told[0].seconds == pytest.approx(0.3)
    assert (told[0].provider, told[0].region, told[0].reference) == ("t", "eu", "t://db")


def test_a_refresh_is_told_with_its_outcome():
    """ok, error, collapsed and backed_off; a first fetch is none."""
    bench, gate = Bench(), Gate()
    bench.answer("db", "1")
    bench.read()
    assert not bench.told.of(Refreshed)
    bench.refresh()
    bench.forward(DUE)
    bench.answer("db", lambda: gate.stop() or down())
    bench.read()
    bench.read()
    gate.wait()
    gate.open()
    bench.landed(3)
    bench.read()
    outcomes = [event.outcome for event in bench.told.of(Refreshed)]
    assert outcomes == ["ok", "collapsed", "error", "backed_off"]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (value("1"), value("2"), [("1", "2")]),
        (value("1"), value("1"), []),
        (SecretValue(canary("a")), SecretValue(canary("b")), [(None, None)]),
        (SecretValue(canary("a")), SecretValue(canary("a")), []),
        (SecretValue(canary("a")), value("1"), [(None, "1")]),
    ],
)
@pytest.mark.parametrize("evicted", [False, True])
def test_a_rotation_is_told_once(old, new, told, evicted):
    """Another version is one, also across an eviction; without versions the value decides."""
    bench = Bench()
    bench.answer("db", old)
    bench.hold()
    bench.answer("db", new)
    if evicted:
        bench.evict()
        told = [pair for pair in told if pair[0]]
    bench.cache.refresh(bench.ask())
    bench.cache.refresh(bench.ask())
    assert [(e.old_version, e.new_version) for e in bench.told.of(Rotated)] == told


def test_a_rotation_is_told_across_two_evictions():
    """An eviction of what holds no value does not forget the version that was known."""
    bench = Bench()
    bench.answer("db", "1")
    bench.read()
    bench.evict()
    bench.answer("db", down)
    with pytest.raises(ProviderUnavailable):
        bench.read()
    bench.evict()
    bench.forward(MINUTE)
    bench.answer("db", "2")
    bench.read()
    assert [(e.old_version, e.new_version) for e in bench.told.of(Rotated)] == [("1", "2")]


def test_the_snapshot_shows_a_value_without_the_value():
    """Version, ages, spans and counts of an entry, in order of the keys."""
    bench = Bench()
    bench.answer("db", "7", expires_at=bench.wall() + 10_000.0)
    bench.answer("cache", "1")
    fetched_at = bench.wall()
    bench.publish()
    bench.hit()
    bench.read("cache", pinned=True)
    bench.forward(10.0)
    names = [info.key.name for info in bench.cache.snapshot()]
    assert names == ["cache", "db"]
    info = bench.info()
    assert (info.reference, info.provider, info.region) == ("t://db", "t", "eu")
    assert (info.version, info.state, info.hits, info.attempts) == ("7", "fresh", 1, 0)
    assert (info.age, info.ttl, info.due_in) == (10.0, 300.0, 230.0)
    assert info.ends_in == pytest.approx(3890.0)
    assert (info.fetched_at, info.stale_for) == (fetched_at, 0.0)
    assert not info.pinned
    assert canary("") not in repr(info)
    bench.forward(STALE)
    assert bench.info().stale_for == 10.0


def test_the_snapshot_shows_a_failure():
    """The last error in words, its status, the attempts and the time of the next one."""
    bench = Bench()
    bench.answer("db", denied)
    with pytest.raises(AccessDenied):
        bench.read()
    info = bench.info()
    assert (info.state, info.attempts, info.last_status) == ("absent", 1, "denied")
    assert "not for this process" in info.last_error
    assert (info.version, info.age, info.ttl, info.due_in) == (None, None, None, None)


def test_the_snapshot_shows_a_first_fetch_as_loading():
    """While nothing is held and a fetch is under way."""
    bench, gate = Bench(), Gate()
    bench.answer("db", lambda: gate.stop() or value())
    with running(bench.read):
        gate.wait()
        assert bench.state() == "loading"
        gate.open()


def test_the_snapshot_keeps_no_reader_waiting():
    """It asks how things stand, and formats what it shows after it has let go of the lock."""
    bench = Bench()

    class Talkative(AccessDenied):
        def __str__(self) -> str:
            with running(functools.partial(bench.read, "db")) as outcome:
                pass
            return f"a reader got {outcome}"

    bench.answer("db", "1")
    bench.read()
    bench.answer("denied", lambda: Talkative("no"))
    with pytest.raises(AccessDenied):
        bench.read("denied")
    assert bench.info("denied").last_error == "a reader got ['1']"


def test_an_eviction_by_a_slow_condition_keeps_no_reader_waiting():
    """Which keys are meant is found out outside the lock."""
    bench = Bench()
    bench.answer("db", "1")
    bench.read()

    def chosen(key: SecretKey) -> bool:
        with running(bench.read) as outcome:
            pass
        return outcome == ["1"]

    assert len(bench.cache.evict(chosen, reason="operator")) == 1
