"""What a worker does about events: always to what it holds or is configured with, never too often.

An event carries names. They are compared with what this process knows anyway, so that whoever
writes to the bus cannot make it fetch a name of theirs, nor fetch more often than once a second.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import threading
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, NamedTuple

from ..lifecycle import SecretKey
from . import bus
from .bus import BusEvent

if TYPE_CHECKING:
    from ..resolving import Resolver

#: Seconds within which equal events are one, and within which "evict all" runs once.
EQUAL, EVERYTHING = 1.0, 10.0
#: Seconds over which the workers spread fetches that an event asks for: by hand, by a rotation.
SPREAD_REFRESH, SPREAD_ROTATED = 0.5, 2.0
#: Seconds after which a refresh that found another fetch under way is tried again.
_AGAIN = 0.25
#: A region of an event that stands for all of them.
ANY = "*"


class Task(NamedTuple):
    """Something to be done at ``at``; of two of one ``name`` there is the first only."""

    at: float
    serial: int
    name: Hashable
    run: Callable[[float], object]


class Actor:
    """Acts on events in the caches of one process; one thread at a time, but for ``learned``."""

    def __init__(
        self, resolver: Resolver, *, lease: float, warm: Callable[[BusEvent], object]
    ) -> None:
        self._resolver = resolver
        self._lease = lease
        self._warm = warm
        self._urgent: list[Task] = []
        self._later: list[Task] = []
        self._running: Task | None = None
        self._names: set[Hashable] = set()
        self._serial = itertools.count()
        #: When what was acted on last; the oldest first.
        self._acted: dict[Hashable, float] = {}
        #: Since when a secret is to be fetched anew, at the time that its task has.
        self._renewals: dict[SecretKey, float] = {}
        self._around: frozenset[tuple[str, ...]] | None = None
        #: When this process learned of a secret's last rotation.
        self._learned: dict[tuple[str, ...], float] = {}
        self._learning = threading.Lock()

    # -- events ----------------------------------------------------------------------------------

    def act(self, event: BusEvent, now: float) -> str:
        """Do what ``event`` says, now or soon; return ``applied``, ``collapsed`` or ``ignored``."""
        do = _ACTIONS.get(event.kind)
        if do is None or not self._concerns(event):
            return "ignored"
        if event.kind == bus.WARM:  # equal ones are warmed together, and each is answered
            do(self, event, now)
            return "applied"
        everything = event.kind == bus.EVICT_ALL
        span = min(EVERYTHING, self._lease) if everything else EQUAL
        if self._limited(event.meaning, span, now, lambda at: do(self, event, at)):
            return "collapsed"
        do(self, event, now)
        return "applied"

    def look_around(self) -> None:
        """Look anew at what this process holds, for the events that have been read by now.

        What is fetched later is younger than they are.
        """
        self._around = None

    def _concerns(self, event: BusEvent) -> bool:
        """Whether ``event`` names anything that this process knows.

        What it does not know leaves no trace here, however much of it somebody writes to the bus.
        """
        if event.kind in (bus.EVICT_ALL, bus.WARM):
            return True
        if self._around is None:
            self._around = self._known()
        if event.kind in (bus.EVICT_PROVIDER, bus.REFRESH_PROVIDER):
            where = event.provider, event.region
            return where in self._around or (
                event.region == ANY and event.provider in self._resolver.config.providers
            )
        return event.meaning[1:] in self._around

    def _known(self) -> frozenset[tuple[str, ...]]:
        """Return what events may name: clients by alias and region, secrets, what a chain has."""
        keys = self._resolver.cache.known_keys()
        reached = [one for key in keys for one in self._resolver.planner.reached(key)]
        return frozenset(
            (
                *(key[:4] for key in reached),
                *(key[:2] for key in reached),
                *self._resolver.providers.known_keys(),
            )
        )

    def _limited(
        self, name: Hashable, span: float, now: float, run: Callable[[float], object]
    ) -> bool:
        """Whether ``name`` was acted on within ``span``; it is once more then, at the end of it.

        Not dropped: what was fetched in between may be older than the second of two equal events.
        """
        last = self._acted.get(name, -math.inf)
        if now < last + span:
            self._at(last + span, name, run, urgent=True)
            return True
        _forget_old(self._acted, now)
        self._note(name, now)
        return False

    def _note(self, name: Hashable, now: float) -> None:
        self._acted.pop(name, None)
        self._acted[name] = now

    def _evict(self, event: BusEvent, now: float) -> None:
        wanted = event.meaning[1:]
        self._resolver.forget(lambda key: key[:4] == wanted, reason="fleet", by=event.origin)

    def _evict_provider(self, event: BusEvent, now: float) -> None:
        region = None if event.region == ANY else event.region
        self._resolver.forget_provider(event.provider, region, reason="fleet", by=event.origin)

    def _evict_all(self, event: BusEvent, now: float) -> None:
        self._resolver.forget_provider(None, None, reason="fleet", by=event.origin)

    def _refresh(self, event: BusEvent, now: float) -> None:
        self._refetch(event.meaning[1:], now, SPREAD_REFRESH)

    def _refresh_provider(self, event: BusEvent, now: float) -> None:
        region = None if event.region == ANY else event.region
        self._resolver.providers.evict(event.provider, region)

    def _rotated(self, event: BusEvent, now: float) -> None:
        identity = event.meaning[1:]
        if not self.learned(identity, now):  # it has the new version, or is about to fetch it
            self._refetch(identity, now, SPREAD_ROTATED)

    def _do_warm(self, event: BusEvent, now: float) -> None:
        self._warm(event)

    def _refetch(self, identity: tuple[str, ...], now: float, spread: float) -> None:
        for key in self._resolver.cache.cached_keys():
            if key[:4] == identity:
                self._renew_at(now + random.uniform(0, spread), key, before=now)  # noqa: S311

    def _renew_at(self, at: float, key: SecretKey, *, before: float, forced: bool = True) -> None:
        """Fetch ``key`` at ``at``, or when it is to be fetched already; what is older goes."""
        self._renewals[key] = max(before, self._renewals.get(key, before))

        def renew(now: float) -> None:
            since = self._renewals.pop(key, before)
            if not self._resolver.cache.renew(key, fetched_before=since, forced=forced):
                self._renew_at(now + _AGAIN, key, before=since, forced=forced)

        self._at(at, ("renew", key), renew)

    # -- rotations -------------------------------------------------------------------------------

    def learned(self, identity: tuple[str, ...], now: float) -> bool:
        """Note that a rotation of a secret is known; return whether it lately was already."""
        with self._learning:
            _forget_old(self._learned, now)
            known = identity in self._learned
            self._learned.setdefault(identity, now)
        return known

    # -- gaps ------------------------------------------------------------------------------------

    def gap(self, now: float, *, strict: bool, joining: bool) -> None:
        """Events may have been missed; ``joining``: because this process has just come.

        Limited, as a log that is broken over and over must not flood a provider.
        """
        self._everything_limited("gap", now, strict=strict, always=joining)

    def unreadable(self, now: float, *, strict: bool) -> None:
        """An event cannot be read: it may have meant anything."""
        self._everything_limited("unreadable", now, strict=strict)

    def _everything_limited(
        self, name: str, now: float, *, strict: bool, always: bool = False
    ) -> None:
        def run(at: float) -> None:
            self._everything(at, strict=strict)

        span = min(EVERYTHING, self._lease)
        if always or not self._limited(name, span, now, run):
            run(now)

    def _everything(self, now: float, *, strict: bool) -> None:
        """What was fetched before ``now`` is not to be relied on.

        In ``strict`` it is forgotten. Else all of it is due, spread over ``LEASE`` so that a
        fleet does not ask for everything in the same instant.
        """
        cache = self._resolver.cache
        if strict:
            cache.evict(lambda key: True, reason="gap")
            return
        for key in cache.cached_keys():
            at = now + random.uniform(0, self._lease)  # noqa: S311
            cache.make_due(key, at, fetched_before=now)
            self._renew_at(at, key, before=now, forced=False)

    # -- later -----------------------------------------------------------------------------------

    @property
    def next_at(self) -> float:
        """When the next task is due; ∞ without any."""
        return min(self.next_urgent_at, _first(self._later))

    @property
    def next_urgent_at(self) -> float:
        """When the next task is due that no read may overtake."""
        return _first(self._urgent)

    def run_due(self, now: float) -> None:
        """Do what was put off until ``now``."""
        for tasks in (self._urgent, self._later):
            while tasks and tasks[0].at <= now:
                self._running = task = tasks[0]
                heapq.heappop(tasks)
                self._names.discard(task.name)
                if tasks is self._urgent:
                    self._note(task.name, now)
                task.run(now)
                self._running = None

    def _at(
        self, at: float, name: Hashable, run: Callable[[float], object], *, urgent: bool = False
    ) -> None:
        if name not in self._names:
            self._names.add(name)
            tasks = self._urgent if urgent else self._later
            heapq.heappush(tasks, Task(at, next(self._serial), name, run))

    def after_fork(self) -> None:
        """Go on in a child with all that was put off, whatever the parent was about to do."""
        self._learning = threading.Lock()
        if self._running is not None:
            heapq.heappush(self._urgent, self._running._replace(serial=next(self._serial)))
            self._running = None
        for tasks in (self._urgent, self._later):
            heapq.heapify(tasks)
        self._names = {task.name for task in (*self._urgent, *self._later)}


def _first(tasks: list[Task]) -> float:
    """Return when the first is due. Another thread may take it meanwhile: looking is not enough."""
    try:
        return tasks[0].at
    except IndexError:
        return math.inf


def _forget_old(times: dict[Any, float], now: float) -> None:
    """Drop what lies further back than any span; the oldest stand first."""
    while times and now >= next(iter(times.values())) + EVERYTHING:
        del times[next(iter(times))]


_ACTIONS: dict[str, Callable[[Actor, BusEvent, float], None]] = {
    bus.EVICT: Actor._evict,
    bus.EVICT_PROVIDER: Actor._evict_provider,
    bus.EVICT_ALL: Actor._evict_all,
    bus.REFRESH: Actor._refresh,
    bus.REFRESH_PROVIDER: Actor._refresh_provider,
    bus.ROTATED: Actor._rotated,
    bus.WARM: Actor._do_warm,
}
