"""Whoever can write to the bus, break it or leave it hanging: what that does not bring about."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_secret_registry import SecretRegistry
from django_secret_registry.events import FleetApplied
from django_secret_registry.exceptions import ProviderUnavailable
from django_secret_registry.fleet import acting, bus, lease, reports
from django_secret_registry.fleet.bus import BusDenied, BusEvent, BusUnavailable, Report
from tests import test_fleet_worker as fleets
from tests.scripted import PATIENCE, Gate, alias, entry, until

log, script, clock, fleet = fleets.log, fleets.script, fleets.clock, fleets.fleet
caught_up, LEASE = fleets.caught_up, fleets.LEASE

HEAD = {
    "host": "vm", "pid": 7, "kind": "web", "started": 1.5, "mode": "available", "lag": 0.1,
    "blind": False, "cursor": ["log", 3], "answers": {"n": [1, 0]},
}  # fmt: skip
FACTS = ["v1", 1, 2, 3, 0, ""]


def report(head: Any = None, facts: Any = None, **changes: Any) -> Report:
    head = json.dumps({**HEAD, **changes} if head is None else head)
    return Report("w", 0.5, {"": head, "t://db": json.dumps(FACTS if facts is None else facts)})


# -- messages ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "", "[", "null", "[]", "{}", '{"version": true}', '{"version": 1, "kind": 5}',
        '{"version": 1, "kind": "evict", "name": "\\ud800"}',
        '{"version": 1, "kind": "evict", "origin": "%s"}' % ("x" * 3000),
        '{"version": 1, "kind": "evict", "more": "%s"}' % ("x" * 20_000),
        "[" * 100_000, '{"version": ' + "9" * 5000 + "}", b"\xff\xfe\x00",
    ],
    ids=range(13),
)  # fmt: skip
def test_what_is_no_event_is_read_as_none(text):
    """Malformed, of wrong types, half characters, too deep or too large: never an exception."""
    assert bus.decode(text) is None


@pytest.mark.parametrize(
    "said",
    [
        Report("w", 0.0, {}), Report("\ud800", 0.0, report().fields), report(head=[]),
        Report("w", 0.0, {"": "[" * 100_000}), report(host="\ud800"), report(host=5),
        report(pid="7"), report(pid=-1), report(pid=10**30), report(started=1e300),
        report(started=float("nan")), report(lag="x"), report(cursor=[]), report(cursor=[1, 2]),
        report(cursor=["log", "3"]), report(cursor=7), report(answers=None), report(answers=[1]),
        report(answers={"n": [1]}), report(answers={"n": ["1", "2"]}), report(kind="x" * 3000),
    ],
    ids=range(21),
)  # fmt: skip
def test_a_report_that_is_none_is_left_out(said):
    """A page or a command never fails for what somebody wrote; the others are still shown."""
    assert [worker.name for worker in reports.read([said, report()])] == ["w"]


@pytest.mark.parametrize(
    "facts",
    [
        {}, ["v1"], [["v"], 1, 2, 3, 0, ""], ["v1", "x", 2, 3, 0, ""], ["\ud800", 1, 2, 3, 0, ""],
        ["v1", 1, 2, float("inf"), 0, ""], ["v1", 1, 2, 3, 0, None], ["v1", 1, 2, 3, -1, ""],
    ],
    ids=range(8),
)  # fmt: skip
def test_a_secret_that_cannot_be_read_hides_no_worker(facts):
    """Nor the secrets beside it."""
    said = report(facts=facts)
    said.fields["t://other"] = json.dumps(FACTS)  # type: ignore[index]
    (worker,) = reports.read([said])
    assert worker.secrets.keys() == {"t://other"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(text=st.text() | st.binary() | JSON.map(json.dumps), field=st.sampled_from([*HEAD]), to=JSON)
def test_no_message_makes_a_reader_fail(text, field, to):
    """Whatever stands on the bus: an event or none, a report or none."""
    bus.decode(text)
    reports.read([Report("w", 0.0, {"": text, "t://a": text}), report(**{field: to})])
    reports.read([report(facts=to), Report("w", 0.0, {"t://a": text})])


def test_events_that_concern_nobody_leave_no_trace(fleet, log, script, clock):
    """A flood of made-up names grows nothing and costs no provider anything."""
    registry = fleet(start=True)
    registry.get("t://db")
    actor = registry.fleet._actor
    seen: set[str] = set()
    registry.events.subscribe(
        lambda event: seen.add(event.outcome) if isinstance(event, FleetApplied) else None
    )
    for number in range(500):
        for kind in ("evict", "refresh", "rotated"):
            log.write(kind, "t", "", "", f"made-up-{number}")
        log.write("evict_provider", "t", f"made-up-{number}")
        log.write(f"made-up-{number}")
    caught_up(log, registry)
    assert seen == {"ignored"}
    assert not actor._acted
    assert not actor._learned
    assert actor.next_at == acting.math.inf
    assert len(script.fetched) == 1


@pytest.mark.full
def test_a_flood_of_requests_to_warm_is_one_warm_up(fleet, log, script):
    """Hundreds of them are answered together, and hold up nothing else."""
    specs = alias("t", script), entry("a", "t://db")
    registry = fleet(*specs, start=True)
    names = ["db", *(f"made-up-{number}" for number in range(2000))]
    sent = [log.write("warm", "t", "", "", name) for name in names]
    until(lambda: sent[0].nonce in registry.fleet._answers)
    assert registry.fleet._answers[sent[0].nonce] == (1, 0)
    assert len(registry.fleet._answers) <= 256
    until(lambda: not registry.fleet._to_warm)
    assert [ref.name for ref in script.fetched] == ["db"]


@pytest.mark.full
def test_every_request_to_warm_is_answered(fleet, log, script):
    """A command that names many secrets has an answer for each, and in one report."""
    script.answers = {f"n{number}": "v" for number in range(40)}
    specs = [alias("t", script), *(entry(name, f"t://{name}") for name in script.answers)]
    fleet(*specs, start=True)
    command = fleet(*specs)
    sent = [command.fleet.tell("warm", f"t://{name}") for name in script.answers]
    nonces = {nonce for one in sent for nonce in one.nonces}

    def answered() -> bool:
        (worker,) = command.fleet.workers(heads=True)
        return nonces <= worker.answers.keys()

    until(lambda: bool(command.fleet.workers(heads=True)) and answered())
    (worker,) = command.fleet.workers(heads=True)
    assert {worker.answers[nonce] for nonce in nonces} == {(1, 0)}


def test_a_log_that_breaks_again_and_again_floods_no_provider(fleet, log, script, clock):
    """Even strict forgets everything once per LEASE only, and then does."""
    registry = fleet(start=True, mode="strict")
    registry.get("t://db")
    for _ in range(3):
        log.lose()
        until(lambda: registry.fleet._log.cursor.log == log.name)
        registry.get("t://db")
    assert len(script.fetched) == 2  # at first, and after the first loss
    clock.forward(LEASE)
    registry.get("t://db")
    assert len(script.fetched) == 3


def test_a_listener_does_not_circle_in_a_broken_log(fleet, log, monkeypatch):
    """Where each read finds a gap there is a pause after it."""
    registry = fleet(start=True)
    pause = Gate()
    monkeypatch.setattr(registry.fleet._listener._stopped, "wait", lambda seconds: pause.stop())
    log.broken = True
    pause.wait()
    assert registry.fleet._listener._gaps == 2
    log.broken = False
    pause.open()


def test_a_refresh_that_meets_one_under_way_is_not_lost(fleet, log, script, clock):
    """What was fetched between two events is older than the second one, whatever is put off."""
    registry = fleet()
    registry.get("t://db")
    actor, identity = registry.fleet._actor, ("t", "", "", "db")
    actor.look_around()
    actor.act(BusEvent("rotated", *identity, nonce="1", origin="o"), clock())
    clock.forward(0.01)
    registry.refresh("t://db")
    clock.forward(0.01)
    actor.act(BusEvent("refresh", *identity, nonce="2", origin="o"), clock())
    clock.forward(3)
    actor.run_due(clock())
    until(lambda: len(script.fetched) == 3)


# -- reading -------------------------------------------------------------------------------------


def test_strict_serves_no_map_that_is_older_than_the_lease(fleet, log, script, clock):
    """Nor a default for a secret that has come into being since."""
    script.answers["db"] = '{"user": "a", "password": "b"}'
    members = {"user": "t://db#user", "password": "t://db#password"}
    registry = fleet(alias("t", script), entry("both", members=members), mode="strict")
    for _ in range(2):
        assert registry.get("both") == {"user": "a", "password": "b"}
    log.failure = BusUnavailable("down")
    script.answers["db"] = '{"user": "c", "password": "d"}'
    clock.forward(LEASE)
    assert registry.get("both") == {"user": "c", "password": "d"}
    script.answers["db"] = ProviderUnavailable("down as well")
    clock.forward(LEASE)
    with pytest.raises(ProviderUnavailable):
        registry.get("both")


def test_a_bus_that_hangs_costs_strict_readers_one_patience_together(fleet, log, clock):
    """Those that come while somebody asks wait no longer than that one, and later ones not."""
    registry = fleet(mode="strict")
    log.gate = Gate()
    clock.forward(LEASE)
    began = time.monotonic()
    for _ in range(50):
        registry.get("t://db")
    assert time.monotonic() - began < 25 * lease.PATIENCE
    log.gate.open()


def test_a_credential_that_stays_wrong_is_read_ever_less_often(fleet, log, script, clock):
    """Within the rotation window once a second; after it a wrong one costs next to nothing."""
    registry = fleet()
    link, reread = registry.fleet._link, []
    link._pool.submit = lambda function, here: reread.append(clock()) or True
    for _ in range(600):
        registry.fleet._lease.failed(BusDenied("no"))
        clock.forward(1.0)
    window = registry.config.rotation_window
    began = reread[0]
    assert window / 2 <= sum(at < began + window for at in reread) <= window + 1
    assert len(reread) < window + 25
    link.accepted()
    registry.fleet._lease.failed(BusDenied("no"))
    assert reread[-1] == clock()


def test_what_a_bus_raises_in_a_read_is_not_repeated(fleet, log, clock, caplog):
    """A driver with a mistake fails no read, and its text, which may hold anything, is not told."""
    registry = fleet()
    registry.get("t://db")
    log.failure = RuntimeError("text of the driver")
    clock.forward(LEASE)
    with caplog.at_level(logging.ERROR):
        assert registry.get("t://db") == "v1"
        until(lambda: any("RuntimeError" in record.message for record in caplog.records))
    assert "text of the driver" not in caplog.text


def test_where_no_thread_can_be_started_the_bus_is_tried_again(fleet, log, clock, monkeypatch):
    """On an event loop nobody reads the log in the caller's thread; a later read does."""
    registry = fleet()
    registry.get("t://db")
    clock.forward(LEASE)
    with monkeypatch.context() as patch:
        patch.setattr(registry.fleet._lease._pool, "submit", lambda function, here: False)
        assert asyncio.run(registry.aget("t://db")) == "v1"
    clock.forward(lease.PAUSE)
    assert registry.get("t://db") == "v1"
    assert registry.fleet.joined


# -- ends ----------------------------------------------------------------------------------------


def test_a_worker_that_ends_while_it_listens_says_nothing_more(fleet, log):
    """No ghost comes back after its registry was closed, however long its last read takes."""
    registry = fleet(start=True)
    until(lambda: bool(log.reports))
    log.gate = Gate()
    log.gate.wait()  # in the middle of a read
    registry.close()
    log.reports.clear()
    log.gate.open()
    until(lambda: not registry.fleet.listens)
    assert log.reports == {}


@pytest.mark.full
def test_a_listener_survives_what_is_thrown_into_its_thread(fleet, log, script):
    """As a server's limit of time may be: it goes on."""

    class Limit(BaseException):
        pass

    registry = fleet(start=True)
    registry.get("t://db")
    log.failure = Limit()
    until(lambda: registry.fleet._listener._failures > 0)
    log.failure = None
    log.write("evict", "t", "", "", "db")
    caught_up(log, registry)
    assert registry.snapshot().secrets == ()


def test_two_registries_of_one_process_are_two_workers(fleet, log, script):
    """Each hears of what the other does, and each reports under a name of its own."""
    one, two = fleet(start=True), fleet(start=True)
    for registry in (one, two):
        registry.get("t://db")
    one.evict("t://db", fleet=True)
    caught_up(log, one, two)
    assert two.snapshot().secrets == ()
    until(lambda: {one.fleet.name, two.fleet.name} == log.reports.keys())


@pytest.mark.full
def test_events_are_applied_while_readers_read(fleet, log, script, clock):
    """Threads that read, evict and lose the log at once: nothing waits for ever or is stale."""
    registry: SecretRegistry = fleet(start=True)
    versions = iter(range(1_000_000))
    script.answers["db"] = lambda ref: str(next(versions))
    done = threading.Event()
    failures: list[BaseException] = []

    def read() -> None:
        while not done.is_set():
            try:
                registry.get("t://db")
            except ProviderUnavailable:
                continue  # the hand may move the clock past a fetch's time while it runs
            except BaseException as error:
                failures.append(error)
                return

    def number_read() -> int:
        """Return what is read once the provider is no longer left alone for such a fetch."""
        while True:
            try:
                return int(registry.get("t://db"))
            except ProviderUnavailable:
                clock.forward(61)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(60):
        log.write(("evict", "refresh", "rotated")[number % 3], "t", "", "", "db")
        clock.forward(0.6)
        if number % 20 == 19:
            log.lose()
    caught_up(log, registry)
    clock.forward(LEASE)
    before = number_read()
    log.write("evict", "t", "", "", "db")
    caught_up(log, registry)
    clock.forward(1.0)
    until(lambda: number_read() > before)
    done.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert failures == []
