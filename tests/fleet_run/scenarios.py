"""What happens to the fleet, and how long a worker served what had been evicted."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from django_secret_registry.fleet.listener import BLOCK
from django_secret_registry.fleet.reports import LIFETIME
from django_secret_registry.specs import FleetSpec
from tests.fleet_run.processes import REF, Moment, Process, fleet_of, registry_of, until
from tests.servers.proxy import Proxy

LEASE = 10.0
#: Seconds after which a value is seen to be stale at the latest: reads come every 20 ms.
SEEN = 0.05


class Engine(NamedTuple):
    """An engine behind a proxy: a way for the workers and one for the operator; what it can do.

    ``keeps``: its log outlives a restart.
    """

    name: str
    proxy: Proxy
    workers: FleetSpec
    operator: FleetSpec
    flush: Callable[[], Any] | None = None
    restart: Callable[[], Any] | None = None
    keeps: bool = False


class Row(NamedTuple):
    """One line of the table: seconds in which evicted values were still served, and the bar."""

    what: str
    samples: int
    median: float
    most: float
    bar: float
    note: str = ""

    @property
    def held(self) -> bool:
        return self.most <= self.bar


def row(what: str, seconds: Sequence[float], bar: float, note: str = "", *, part: float = 1) -> Row:
    """Make a line of samples, of which ``part`` must be within the bar."""
    ordered = sorted(seconds) or [math.inf]
    most = ordered[math.ceil(part * len(ordered)) - 1]
    return Row(what, len(seconds), ordered[len(ordered) // 2], most, bar + SEEN, note)


class Run:
    """A fleet over one engine, through one scenario after the other."""

    def __init__(self, engine: Engine, count: int, evictions: int, outage: float) -> None:
        self._engine, self._count, self._evictions = engine, count, evictions
        self._outage = outage
        self._moment = Moment()
        self._fleet = registry_of(engine.operator).fleet
        self._evicted: list[float] = []

    def rows(self) -> Iterator[Row]:
        spec = self._engine.workers
        with fleet_of(self._count, spec, self._moment) as processes:
            yield from self._connected(processes)
            yield from self._broken(processes)
            if self._engine.flush is not None:
                yield self._lost("FLUSHALL at that moment", processes, self._engine.flush)
            if self._engine.restart is not None and self._engine.keeps:
                yield self._restarted(processes, self._engine.restart)
            elif self._engine.restart is not None:
                yield self._lost("engine restarted", processes, self._engine.restart)
            yield from self._outage_of(processes)
            yield from self._stopped(processes)
            yield self._joiner(processes)
        strict = spec._replace(mode="strict", lease=2.0)
        with fleet_of(self._count, strict, self._moment) as processes:
            yield from self._strict(processes, strict.lease)
        self._fleet.stop()

    # -- scenarios -------------------------------------------------------------------------------

    def _connected(self, processes: list[Process]) -> Iterator[Row]:
        for _ in range(self._evictions):
            self._evict()
            time.sleep(1.5)
        yield row("connected, 99.9 %", self._staleness(processes), 1.0, part=0.999)

    def _broken(self, processes: list[Process]) -> Iterator[Row]:
        for _ in range(self._evictions):
            self._evict()
            self._engine.proxy.cut()
            time.sleep(2.5)
        yield row("every connection cut at that moment", self._staleness(processes), 2.0)
        for _ in range(3):
            self._engine.proxy.strand()
            self._evict()
            time.sleep(BLOCK + 4.0)
        yield row("half-open TCP", self._staleness(processes), BLOCK + 2.0)

    def _lost(self, what: str, processes: list[Process], lose: Callable[[], Any]) -> Row:
        """An event that nobody has read is gone: everything is refreshed, spread over LEASE."""
        self._moment_of(lambda: None)
        lose()
        back = time.monotonic() - self._evicted[-1]
        time.sleep(LEASE + 4.0)
        note = "spread over LEASE on purpose"
        return row(what, self._staleness(processes), back + LEASE + 2.0, note)

    def _restarted(self, processes: list[Process], restart: Callable[[], Any]) -> Row:
        """An event that nobody may have read is there when the engine is back."""
        self._evict()
        restart()
        back = time.monotonic() - self._evicted[-1]
        time.sleep(4.0)
        note = f"back after {back:.1f} s"
        return row("engine restarted", self._staleness(processes), back + 2.0, note)

    def _outage_of(self, processes: list[Process]) -> Iterator[Row]:
        self._notes(processes)
        self._engine.proxy.refuse()
        time.sleep(self._outage)
        notes = [process.notes() for process in processes]
        blind, errors = sum(note["blind"] for note in notes), sum(note["errors"] for note in notes)
        what = f"bus down for {self._outage:g} s: slowest read"
        slowest = [note["slowest"] for note in notes]
        # The patience of 200 ms, and the scheduling of so many processes on a busy machine.
        yield row(what, slowest, 0.2 + 0.25, f"{blind} blind, {errors} failed reads")
        yield row("bus down: failed reads", [errors], 0)
        self._engine.proxy.heal()
        back = until(lambda: not any(p.notes()["blind"] for p in processes), 30)
        yield row("bus back: nobody blind any more", [back], 2.0 + 1.0)
        self._evict()
        time.sleep(2.0)
        yield row("bus back: an eviction", self._staleness(processes), 1.0)

    def _stopped(self, processes: list[Process]) -> Iterator[Row]:
        stopped = processes[:3]
        for process in stopped:
            process.kill(signal.SIGSTOP)
        self._evict()
        time.sleep(LEASE + 2.0)
        for process in stopped:
            process.kill(signal.SIGCONT)
        time.sleep(2.0)
        # A read that was in the middle when its process was stopped ends with what it had.
        note = "reads that began after waking"
        yield row("SIGSTOP past LEASE, then woken", self._staleness(stopped), 0.0, note)
        self._staleness(processes)
        for process in stopped:
            process.end()
            processes.remove(process)
        gone = until(lambda: len(self._fleet.workers()) == len(processes), 2 * LIFETIME)
        yield row("SIGKILL: no ghost left", [gone], LIFETIME + 1.0)

    def _joiner(self, processes: list[Process]) -> Row:
        processes.extend(Process(self._engine.workers, self._moment) for _ in range(3))
        time.sleep(0.2)
        self._evict()
        time.sleep(2.0)
        return row("a worker that joins in the middle", self._staleness(processes[-3:]), 1.0)

    def _strict(self, processes: list[Process], lease: float) -> Iterator[Row]:
        self._evict()
        time.sleep(1.5)
        self._staleness(processes)
        self._engine.proxy.refuse()
        time.sleep(2 * lease)
        self._notes(processes)
        time.sleep(3 * lease)
        notes = [process.notes() for process in processes]
        errors = sum(note["errors"] for note in notes)
        oldest = [note["oldest"] for note in notes]
        yield row("strict, bus down: oldest value", oldest, lease, f"{errors} failed reads")
        self._engine.proxy.heal()
        until(lambda: not any(p.notes()["blind"] for p in processes), 30)
        # The worst case: a half-open connection hides the event until the lease is over.
        self._engine.proxy.strand()
        self._evict()
        time.sleep(lease + 3.0)
        yield row("strict, half-open: evicted value", self._staleness(processes), lease)

    # -- measuring -------------------------------------------------------------------------------

    def _evict(self) -> None:
        self._moment_of(lambda: self._fleet.tell("evict", REF))

    def _moment_of(self, call: Callable[[], Any]) -> None:
        self._evicted.append(self._moment.set())
        call()

    def _staleness(self, processes: list[Process]) -> list[float]:
        """Return, for each worker and each eviction since the last time, how long it went on."""
        evicted, self._evicted = set(self._evicted), []
        return [
            seconds
            for process in processes
            for moment, seconds in process.notes()["stale"]
            if moment in evicted
        ]

    def _notes(self, processes: list[Process]) -> None:
        for process in processes:
            process.notes()
