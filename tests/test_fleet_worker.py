"""A process's side of the fleet: what it serves, what it does about events, what it says."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from django_secret_registry.events import FleetApplied
from django_secret_registry.exceptions import ProviderUnavailable, SecretError
from django_secret_registry.fleet import bus, lease, log_reader, worker
from django_secret_registry.fleet.bus import (
    Batch,
    Bus,
    BusEvent,
    BusUnavailable,
    Cursor,
    Report,
)
from django_secret_registry.resolver import SecretRegistry
from django_secret_registry.specs import FleetSpec
from tests.canary import canary
from tests.scripted import (
    PATIENCE,
    Gate,
    HandClock,
    Script,
    alias,
    config,
    entry,
    threads_in,
    until,
)

LEASE = 10.0


class Log:
    """A log in memory for any number of registries, which breaks on demand."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.name = "log"
        self.events: list[BusEvent | None] = []
        self.reports: dict[str, dict[str, str]] = {}
        self.beats: list[tuple[str, dict[str, Any], bool]] = []
        self.failure: BaseException | None = None
        self.broken = False  # there is a gap at each read
        self.reads = 0
        self.gate: Gate | None = None
        self.threads: list[threading.Thread] = []

    def write(self, kind: str, *where: str, **fields: Any) -> BusEvent:
        event = BusEvent.new(kind, *where, origin="other:1:a")._replace(**fields)
        self.append(event)
        return event

    def append(self, event: BusEvent | None) -> Cursor:
        with self.changed:
            self.events.append(event)
            self.changed.notify_all()
            return Cursor(self.name, len(self.events))

    def lose(self) -> None:
        with self.changed:
            self.name, self.events = f"{self.name}'", []
            self.changed.notify_all()


class LogBus(Bus):
    """The bus of a :class:`Log`: breaks and stops as a test says, which no engine does."""

    def __init__(self, *, log: Log, password: str = "") -> None:
        self.log = log
        self.password = password

    def _check(self) -> None:
        if self.log.failure is not None:
            raise self.log.failure

    def append(self, event: BusEvent) -> Cursor:
        self._check()
        return self.log.append(event)

    def read_since(self, cursor: Cursor | None, *, block: float) -> Batch:
        log = self.log
        log.reads += 1
        log.threads.append(threading.current_thread())
        if log.gate is not None:
            log.gate.stop()
        self._check()
        with log.changed:
            here = Cursor(log.name, len(log.events))
            lost = cursor is None or cursor.log != log.name or cursor.number > here.number
            if lost or log.broken:
                return Batch((), here, gap=True)
            if cursor == here and block > 0:
                # Real time, and little of it: the registry's clock is held by hand.
                log.changed.wait(min(block, 0.02))
            events = list(enumerate(log.events, 1))[cursor.number :]
            return Batch(events, Cursor(log.name, len(log.events)))

    def heartbeat(
        self, worker: str, changed: Mapping[str, str | None], *, lifetime: float, anew: bool
    ) -> bool:
        self._check()
        self.log.beats.append((worker, dict(changed), anew))
        if not anew and worker not in self.log.reports:
            return False
        said = {} if anew else self.log.reports[worker]
        merged = {**said, **changed}
        self.log.reports[worker] = {name: text for name, text in merged.items() if text is not None}
        return True

    def workers(self, *, heads: bool = False) -> list[Report]:
        self._check()
        return [Report(name, 0.0, dict(said)) for name, said in self.log.reports.items()]


@pytest.fixture
def log():
    return Log()


@pytest.fixture
def script():
    return Script({"db": "v1", "other": "w1"})


@pytest.fixture
def clock():
    return HandClock()


@pytest.fixture
def fleet(log, script, clock):
    """Make registries that share the log; those that are started end with the test."""
    made: list[SecretRegistry] = []

    def make(
        *specs: Any, mode: str = "available", start: bool = False, **options: Any
    ) -> SecretRegistry:
        registry = SecretRegistry(clock=clock, wall=clock)
        spec = FleetSpec(f"{__name__}.LogBus", {"log": log, **options}, mode, LEASE)
        registry.configure(config(*(specs or (alias("t", script),)), fleet=spec))
        made.append(registry)
        if start:
            registry.start()
            until(lambda: registry.fleet.joined)
        return registry

    yield make
    for registry in made:
        registry.close()
    until(lambda: not any(one.name == "secret-registry-fleet" for one in threading.enumerate()))


def caught_up(log: Log, *registries: SecretRegistry) -> None:
    """Wait until all have read the whole log."""
    until(
        lambda: all(
            registry.fleet._log.cursor == Cursor(log.name, len(log.events))
            for registry in registries
        )
    )


# -- the lease -----------------------------------------------------------------------------------


def test_without_a_fleet_hits_are_served_for_ever(script, clock):
    """There is nothing to reconcile with."""
    registry = SecretRegistry(clock=clock)
    registry.configure(config(alias("t", script)))
    assert (registry.serves_until, registry.fleet) == (math.inf, None)


def test_a_young_process_asks_no_bus(fleet, log, clock):
    """What it holds is younger than the lease: a command that is over soon costs nothing."""
    registry = fleet()
    registry.get("t://db")
    clock.forward(LEASE - 0.1)
    assert registry.get("t://db") == "v1"
    assert log.reads == 0


def test_a_reader_reads_the_log_when_the_lease_is_over(fleet, log, script, clock):
    """A process without a listener holds to the same guarantee: its reader looks first."""
    registry = fleet()
    registry.get("t://db")
    clock.forward(LEASE)
    registry.get("t://db")  # joins
    assert log.reads == 1
    script.answers["db"] = "v2"
    log.write("evict", "t", "", "", "db")
    clock.forward(LEASE - 0.1)
    assert registry.get("t://db") == "v1"
    clock.forward(0.1)
    assert registry.get("t://db") == "v2"
    assert log.reads == 2


def test_one_reader_asks_the_bus_for_all(fleet, log, clock):
    """However many read at that moment, the bus is asked once."""
    registry = fleet(mode="strict")
    registry.get("t://db")
    clock.forward(LEASE)
    log.gate = Gate()

    def read() -> Any:
        return registry.get("t://db")

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    log.gate.wait()
    log.gate.open()
    for thread in threads:
        thread.join()
    assert log.reads == 1


def test_a_bus_that_hangs_costs_a_reader_its_patience_and_nobody_else(fleet, log, clock):
    """The reader goes on after 200 ms; then nobody asks for a second."""
    registry = fleet()
    registry.get("t://db")
    clock.forward(LEASE)
    log.gate = Gate()
    began = time.monotonic()
    assert registry.get("t://db") == "v1"
    took = time.monotonic() - began
    assert lease.PATIENCE * 0.9 <= took < lease.PATIENCE + 2
    assert registry.get("t://db") == "v1"
    assert registry.serves_until == clock() + lease.PAUSE
    log.gate.open()
    assert log.reads == 1


def test_on_an_event_loop_nobody_waits_for_the_bus(fleet, log, clock):
    """The log is read by another thread, and the read goes on without it."""
    registry = fleet()
    registry.get("t://db")
    clock.forward(LEASE)
    log.gate = Gate()

    async def read() -> float:
        began = time.monotonic()
        assert await registry.aget("t://db") == "v1"
        assert registry.get("t://db") == "v1"
        return time.monotonic() - began

    assert asyncio.run(read()) < lease.PATIENCE
    log.gate.wait()
    log.gate.open()
    until(lambda: registry.fleet.joined)
    assert threading.main_thread() not in log.threads


def test_available_serves_within_the_ttl_while_the_bus_is_down(fleet, log, script, clock):
    """Nobody fails and nothing is fetched for it; the bus is tried once a second."""
    registry = fleet()
    registry.get("t://db")
    log.failure = BusUnavailable("down")
    clock.forward(LEASE)
    script.answers["db"] = "v2"
    for _ in range(10):
        assert registry.get("t://db") == "v1"
        clock.forward(lease.PAUSE / 2)
    assert 5 <= log.reads <= 6
    assert len(script.fetched) == 1
    log.failure = None
    clock.forward(lease.PAUSE)
    registry.get("t://db")
    assert registry.serves_until > clock() or registry.fleet.joined


def test_strict_takes_the_ttl_for_the_lease_while_the_bus_is_down(fleet, log, script, clock):
    """What was fetched longer ago is fetched anew, and not served when that fails."""
    registry = fleet(mode="strict")
    registry.get("t://db")
    log.failure = BusUnavailable("down")
    clock.forward(LEASE)
    script.answers["db"] = "v2"
    assert registry.get("t://db") == "v2"
    clock.forward(LEASE - 0.1)
    assert registry.get("t://db") == "v2"
    assert len(script.fetched) == 2
    clock.forward(0.1)
    script.answers["db"] = ProviderUnavailable("down as well")
    with pytest.raises(ProviderUnavailable):
        registry.get("t://db")


def test_strict_on_an_event_loop_serves_nothing_older_than_the_lease(fleet, log, script, clock):
    """Where nobody can ask the bus, the value is fetched."""
    registry = fleet(mode="strict")
    registry.get("t://db")
    log.failure = BusUnavailable("down")
    clock.forward(LEASE)
    script.answers["db"] = "v2"
    assert asyncio.run(registry.aget("t://db")) == "v2"


def test_after_an_outage_strict_serves_what_it_holds_again(fleet, log, script, clock):
    """The log goes on from where it was left: what nobody evicted is as good as before."""
    registry = fleet(mode="strict")
    clock.forward(LEASE)
    registry.get("t://db")  # joins
    log.failure = BusUnavailable("down")
    clock.forward(LEASE + 1)
    with contextlib.suppress(SecretError):
        registry.get("t://other")
    log.failure = None
    clock.forward(lease.PAUSE)
    fetched = len(script.fetched)
    assert registry.get("t://db") == "v1"
    assert len(script.fetched) == fetched


# -- events --------------------------------------------------------------------------------------


def test_an_eviction_reaches_a_worker_that_nobody_reads(fleet, log, script):
    """The listener acts on it at once."""
    registry = fleet(start=True)
    registry.get("t://db")
    registry.get("t://other")
    log.write("evict", "t", "", "", "db")
    caught_up(log, registry)
    states = {info.key.name: info.state for info in registry.snapshot().secrets}
    assert states == {"other": "fresh"}


@pytest.mark.parametrize(
    ("event", "left"),
    [
        (("evict", "t", "", "", "db"), {"other"}),
        (("evict", "t", "eu", "", "db"), {"db", "other"}),
        (("evict", "t", "", "", "unknown"), {"db", "other"}),
        (("evict_provider", "t", "*"), set()),
        (("evict_provider", "t", ""), set()),
        (("evict_provider", "t", "eu"), {"db", "other"}),
        (("evict_provider", "x", "*"), {"db", "other"}),
        (("evict_all",), set()),
        (("dance", "t", "", "", "db"), {"db", "other"}),
    ],
)
def test_an_event_acts_on_what_it_names(fleet, log, event, left):
    """Nothing more, nothing that is unknown here, and no kind that is unknown."""
    registry = fleet(start=True)
    registry.get("t://db")
    registry.get("t://other")
    log.write(*event)
    caught_up(log, registry)
    assert {info.key.name for info in registry.snapshot().secrets} == left


def test_an_event_never_fetches_a_name_of_its_own(fleet, log, script):
    """Whoever writes to the bus cannot have a worker read what its settings do not name."""
    registry = fleet(start=True)
    for kind in ("evict", "refresh", "rotated", "warm"):
        log.write(kind, "t", "", "", "made-up")
    caught_up(log, registry)
    registry.fleet._actor.run_due(math.inf)
    assert script.fetched == []


def test_a_refresh_brings_the_new_value_while_the_old_one_serves(fleet, log, script, clock):
    """Soon after the event, spread over the workers; never a gap without a value."""
    registry = fleet(start=True)
    registry.get("t://db")
    script.answers["db"] = "v2"
    log.write("refresh", "t", "", "", "db")
    caught_up(log, registry)
    assert registry.get("t://db") == "v1"
    clock.forward(1.0)
    until(lambda: registry.get("t://db") == "v2")


def test_equal_events_within_a_second_are_one_and_none_is_lost(fleet, log, script, clock):
    """The first acts at once; the rest act once together, since values were fetched in between."""
    registry = fleet(start=True)
    seen: list[str] = []
    registry.events.subscribe(
        lambda event: seen.append(event.outcome) if isinstance(event, FleetApplied) else None
    )
    registry.get("t://db")
    for version in range(2, 12):
        log.write("evict", "t", "", "", "db")
        caught_up(log, registry)
        script.answers["db"] = f"v{version}"
        registry.get("t://db")
    assert len(script.fetched) == 2
    assert seen.count("applied") == 1
    assert seen.count("collapsed") == 9
    clock.forward(1.0)
    assert registry.get("t://db") == "v11"
    assert len(script.fetched) == 3


def test_evict_all_runs_once_in_ten_seconds_and_none_is_lost(fleet, log, script, clock):
    """A bus that is written to by somebody else cannot have a provider flooded."""
    registry = fleet(start=True)
    for _ in range(5):
        registry.get("t://db")
        log.write("evict_all")
        caught_up(log, registry)
        clock.forward(1.0)
    registry.get("t://db")
    assert len(script.fetched) == 2
    clock.forward(LEASE - 5)
    registry.get("t://db")
    assert len(script.fetched) == 3


def test_ones_own_events_are_ignored(fleet, log, script):
    """What this process evicted and has fetched anew stays."""
    registry = fleet(start=True)
    registry.get("t://db")
    registry.evict("t://db", fleet=True)
    script.answers["db"] = "v2"
    registry.get("t://db")
    caught_up(log, registry)
    assert registry.get("t://db") == "v2"
    assert len(script.fetched) == 2


@pytest.mark.parametrize("event", [None, BusEvent("", version=2)])
def test_an_event_that_cannot_be_read_makes_everything_due(fleet, log, script, clock, event):
    """It may have meant anything: strict forgets everything."""
    registry = fleet(start=True, mode="strict")
    registry.get("t://db")
    log.append(event)
    caught_up(log, registry)
    assert registry.snapshot().secrets == ()


# -- gaps ----------------------------------------------------------------------------------------


def test_a_gap_makes_everything_due_spread_over_the_lease(fleet, log, script, clock):
    """The old values serve on, and are refreshed without a reader, not all in one instant."""
    names = [f"n{number}" for number in range(20)]
    script.answers = dict.fromkeys(names, "v1")
    registry = fleet(start=True)
    for name in names:
        registry.get(f"t://{name}")
    script.answers = dict.fromkeys(names, "v2")
    log.lose()
    until(lambda: registry.fleet._log.cursor.log == log.name)
    assert {registry.get(f"t://{name}") for name in names} == {"v1"}
    clock.forward(LEASE / 2)
    until(lambda: len(script.fetched) > 20)
    time.sleep(0.05)
    assert 20 < len(script.fetched) < 40
    clock.forward(LEASE / 2)
    until(lambda: len(script.fetched) == 40)
    until(lambda: {registry.get(f"t://{name}") for name in names} == {"v2"})


def test_a_gap_ends_what_strict_holds(fleet, log, script):
    """Nothing that may have been evicted is served."""
    registry = fleet(start=True, mode="strict")
    registry.get("t://db")
    script.answers["db"] = "v2"
    log.lose()
    until(lambda: registry.fleet._log.cursor.log == log.name)
    assert registry.get("t://db") == "v2"


# -- rotations -----------------------------------------------------------------------------------


def test_a_rotation_that_one_worker_learns_of_reaches_the_others(fleet, log, script, clock):
    """Each other one fetches once, later than at once; the one that knew does not."""
    registries = [fleet(start=True) for _ in range(4)]
    for registry in registries:
        registry.get("t://db")
    script.answers["db"] = "v2"
    registries[0].refresh("t://db")
    until(lambda: [event.kind for event in log.events if event] == ["rotated"])
    caught_up(log, *registries)
    assert [registry.get("t://db") for registry in registries] == ["v2", "v1", "v1", "v1"]
    clock.forward(2.0)
    until(lambda: {registry.get("t://db") for registry in registries} == {"v2"})
    clock.forward(1.0)
    caught_up(log, *registries)
    assert len(script.fetched) == 4 + 1 + 3
    assert [event.kind for event in log.events if event] == ["rotated"]


def test_workers_that_learn_of_a_rotation_by_themselves_fetch_no_more(fleet, log, script, clock):
    """Whoever has fetched since the others were told has the new version already."""
    registries = [fleet(start=True) for _ in range(4)]
    for registry in registries:
        registry.get("t://db")
    script.answers["db"] = "v2"
    registries[0].refresh("t://db")
    until(lambda: len(log.events) == 1)
    caught_up(log, *registries)
    for registry in registries[1:]:
        clock.forward(0.01)
        registry.refresh("t://db")
    fetched = len(script.fetched)
    assert fetched <= 8 + 1  # the jitter may have been over for one before it refreshed
    clock.forward(3.0)
    for registry in registries:
        until(lambda actor=registry.fleet._actor: actor.next_at == math.inf)
    assert len(script.fetched) == fetched


# -- acknowledgements ----------------------------------------------------------------------------


def test_acknowledgements_say_who_has_applied_an_event(fleet, log):
    """All workers do in the end; a command that is none counts for nothing."""
    registries = [fleet(start=True) for _ in range(3)]
    command = fleet()
    sent = command.fleet.tell("evict", "t://db")
    seen: list[str] = []
    acks = sent.wait(20, on_change=lambda acks: seen.append(str(acks)))
    assert (acks.total, acks.applied, acks.blind, acks.waiting) == (3, 3, 0, 0)
    assert seen[-1] == "3 of 3 applied"
    assert len(registries) == 3


def test_a_blind_worker_is_told_apart_from_one_that_is_slow(fleet, log, clock):
    """Who does not answer is not waited for."""
    fleet(start=True)
    until(lambda: len(log.reports) == 1)
    (report,) = log.reports.values()
    log.reports["blind:1:x"] = {**report, "": report[""].replace('"blind":false', '"blind":true')}
    log.reports["blind:1:x"][""] = log.reports["blind:1:x"][""].replace('["log",0]', "null")
    acks = fleet().fleet.tell("evict", provider="t").wait(20)
    assert str(acks) == "1 of 2 applied, 1 blind"


def test_a_report_names_what_is_held_and_no_value(fleet, log, script):
    """Reference, version and times; the rest of the report is the process."""
    script.answers["db"] = canary("reported")
    registry = fleet(start=True)
    registry.get("t://db")
    registry.get("t://other")
    command = fleet()
    sent = command.fleet.tell("refresh", "t://unheld")
    sent.wait(20)
    until(lambda: any(one.secrets for one in command.fleet.workers()))
    (info,) = command.fleet.workers()
    assert info.secrets.keys() == {"t://db", "t://other"}
    assert info.secrets["t://db"].version == "1"
    assert (info.host, info.mode, info.blind) == (registry.snapshot().host, "available", False)
    assert canary("reported") not in str(log.reports)


def test_heartbeats_say_what_has_changed(fleet, log, script, clock):
    """The second one names the head only, until a secret changes."""
    registry = fleet(start=True)
    registry.get("t://db")
    log.write("evict", "t", "", "", "other")
    until(lambda: len(log.beats) >= 2)
    registry.get("t://other")
    log.write("evict", "t", "", "", "unheld")
    until(lambda: any("t://other" in said for _, said, _ in log.beats))
    changes = [said for _, said, anew in log.beats if not anew]
    assert any("t://db" not in said for said in changes)
    assert "t://db" not in changes[-1]


def test_a_report_that_got_lost_is_said_in_full(fleet, log, script):
    """The engine was emptied: the next heartbeat names everything."""
    registry = fleet(start=True)
    registry.get("t://db")
    log.write("evict", "t", "", "", "x")
    until(lambda: any("t://db" in said for said in log.reports.values()))
    log.reports.clear()
    log.write("evict", "t", "", "", "y")
    until(lambda: any("t://db" in said for said in log.reports.values()))


# -- telling -------------------------------------------------------------------------------------


def test_an_eviction_of_the_fleet_is_an_event_for_each_secret(fleet, log, script):
    """By alias, effective region, project and name; versions and stages are all meant."""
    registry = fleet(
        alias("t", script), entry("both", members={"a": "t://db#x", "b": "t://other?project=p"})
    )
    registry.evict("both", fleet=True)
    registry.evict(provider="t", fleet=True)
    registry.evict(provider="t", region="eu", fleet=True)
    registry.evict(all=True, fleet=True)
    assert [event.meaning for event in log.events if event] == [
        ("evict", "t", "", "", "db"),
        ("evict", "t", "", "p", "other"),
        ("evict_provider", "t", "*", "", ""),
        ("evict_provider", "t", "eu", "", ""),
        ("evict_all", "", "", "", ""),
    ]


def test_what_the_fleet_cannot_be_told_is_done_here_and_raises(fleet, log, script):
    """Nobody believes that the others know."""
    registry = fleet()
    registry.get("t://db")
    log.failure = BusUnavailable("down")
    with pytest.raises(BusUnavailable):
        registry.evict("t://db", fleet=True)
    assert registry.snapshot().secrets == ()


def test_without_a_fleet_nobody_can_be_told(script):
    """The error says what to configure, before anything is done."""
    registry = SecretRegistry()
    registry.configure(config(alias("t", script)))
    registry.get("t://db")
    with pytest.raises(SecretError, match="FLEET"):
        registry.evict("t://db", fleet=True)
    assert len(registry.snapshot().secrets) == 1


def test_a_fleet_is_warmed_and_says_how_it_went(fleet, log, script):
    """Each worker fetches what its own settings name, and reports how many it could."""
    specs = alias("t", script), entry("a", "t://db"), entry("b", "t://none")
    registry = fleet(*specs, start=True)
    command = fleet(*specs)
    sent = command.fleet.tell("warm")
    (nonce,) = sent.nonces
    until(lambda: nonce in registry.fleet._answers)
    assert registry.fleet._answers[nonce] == (1, 1)


def test_a_request_to_warm_is_dropped_with_its_configuration(fleet, log, script, monkeypatch):
    """One that waits for its turn warms nothing that the registry is configured with by then."""
    specs = alias("t", script), entry("a", "t://db")
    registry = fleet(*specs, start=True)
    drawn = threading.Event()

    def configure_anew(low: float, high: float) -> float:
        registry.configure(config(*specs))
        drawn.set()
        return 0.0

    monkeypatch.setattr(worker, "random", SimpleNamespace(uniform=configure_anew))
    log.write("warm")
    assert drawn.wait(PATIENCE)
    until(lambda: not threads_in(worker.Worker._warm_now))
    assert not script.builds


# -- the bus's own troubles ----------------------------------------------------------------------


def test_the_credential_of_the_bus_is_read_without_the_bus(fleet, log, script, clock):
    """A secret in its OPTIONS must not wait for the log that it opens."""
    registry = fleet(mode="strict")
    registry.get("t://db")

    class Options(dict[str, Any]):
        def __getitem__(self, name: str) -> Any:
            return registry.get("t://db") if name == "password" else super().__getitem__(name)

    registry.fleet._link._spec = registry.fleet._link._spec._replace(
        options=Options(log=log, password=canary("p"))
    )
    clock.forward(LEASE)
    began = time.monotonic()
    assert registry.get("t://other") == "w1"
    assert time.monotonic() - began < 5
    assert registry.fleet.joined


def test_a_process_that_becomes_blind_says_so_once(fleet, log, clock, caplog):
    """One warning per outage, with what the bus said."""
    registry = fleet()
    registry.get("t://db")
    log.failure = BusUnavailable("the bus is down")
    clock.forward(LEASE)
    with caplog.at_level(logging.WARNING, "django_secret_registry.fleet"):
        for _ in range(3):
            registry.get("t://db")
            clock.forward(lease.PAUSE)
    assert [record.getMessage() for record in caplog.records].count(
        "This process is blind for what the fleet does: the bus is down"
    ) == 1


def test_a_listener_goes_on_after_an_outage(fleet, log, script, clock):
    """From where it was: what was evicted meanwhile is evicted."""
    registry = fleet(start=True)
    registry.get("t://db")
    log.failure = BusUnavailable("down")
    until(lambda: registry.fleet._lease.retry_at > 0)
    log.write("evict", "t", "", "", "db")
    log.failure = None
    caught_up(log, registry)
    assert registry.snapshot().secrets == ()


def test_readiness_waits_for_the_bus_once(fleet, log, clock):
    """A worker that has not joined is not ready; one that loses the bus later stays in service."""
    log.failure = BusUnavailable("down")
    registry = fleet()
    assert not registry.ready().joined
    assert not registry.ready()
    log.failure = None
    registry.start()
    until(lambda: bool(registry.ready()))
    log.failure = BusUnavailable("down")
    clock.forward(LEASE * 2)
    assert registry.ready()


def test_a_registry_that_is_configured_anew_leaves_its_old_fleet(fleet, log, script, clock):
    """The old listener ends, and says nothing any more about what is served."""
    registry = fleet(start=True)
    old = registry.fleet
    registry.configure(config(alias("t", script)))
    until(lambda: not old.listens)
    assert (registry.fleet, registry.serves_until) == (None, math.inf)


def test_names_of_kinds_are_those_of_the_bus():
    """Whatever can be said is known to the metrics."""
    said = {value for name, value in vars(bus).items() if name.isupper() and isinstance(value, str)}
    assert said <= set(log_reader.KINDS)


# -- metrics -------------------------------------------------------------------------------------


def test_metrics_say_who_is_blind_how_far_behind_and_what_was_applied(fleet, log, clock):
    """Each worker counts itself; events count by kind and outcome, acknowledgements by time."""
    prometheus = pytest.importorskip("prometheus_client")
    from django_secret_registry.metrics import Metrics

    registry = fleet(start=True)
    into = prometheus.CollectorRegistry(auto_describe=True)
    metrics = Metrics(registry, into)
    registry.events.subscribe(metrics.listen)
    registry.get("t://db")

    def sample(name: str, **labels: str) -> float | None:
        value: float | None = into.get_sample_value(f"secret_registry_fleet_{name}", labels)
        return value

    log.write("evict", "t", "", "", "db")
    log.write("dance")
    caught_up(log, registry)
    registry.fleet.tell("evict", "t://db").wait(20)
    until(lambda: sample("events_total", kind="evict", outcome="own") == 1)
    assert sample("events_total", kind="evict", outcome="applied") == 1
    assert sample("events_total", kind="unknown", outcome="ignored") == 1
    assert sample("acknowledgement_seconds_count") == 1
    metrics.carry()
    assert (sample("workers", state="live"), sample("workers", state="blind")) == (1, 0)
    log.failure = BusUnavailable("down")
    until(lambda: registry.fleet._lease.retry_at > 0)
    clock.forward(LEASE)
    metrics.carry()
    assert (sample("workers", state="live"), sample("workers", state="blind")) == (0, 1)
    assert sample("lag_seconds") == LEASE
