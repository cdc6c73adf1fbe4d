"""Fetching: flights are launched under the lock, done in the backends' pools, and land together."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from concurrent.futures import Future

from .answers import judge, no_answer, rotation, told
from .backends import Backend, wait_after
from .clock import Clock
from .events import Event, Events, FetchStarted, FetchSubmitted
from .exceptions import InvalidProvider, ProviderUnavailable, SecretError
from .leases import Lease
from .lifecycle import CachePolicy, Cell, Flight, Held, Outcome, SecretKey
from .references import SecretRef
from .store import Store
from .values import SecretValue

#: Fetches keys of one backend, with the reference of each; returns an answer for each.
Load = Callable[[Mapping[SecretKey, SecretRef]], Mapping[SecretKey, SecretValue | SecretError]]
#: Prolongs a lease: returns the value with its new end, another value, or an error.
Renew = Callable[[SecretKey, SecretRef, SecretValue], SecretValue | SecretError]

#: Backends (an alias in a region) that are known at a time; more come from references of users.
_MAX_BACKENDS = 1000
#: Stands for a backend that has not been used: it fetches nothing and has never failed.
_UNUSED = Backend("", "")


class Fetches:
    """The fetches of a cache, and the backends that they go to.

    ``load`` and ``renew`` are called in the backends' pools, outside the store's lock.
    """

    def __init__(
        self,
        store: Store,
        policy: CachePolicy,
        load: Load,
        *,
        renew: Renew | None,
        events: Events,
        clock: Clock,
        wall: Clock,
    ) -> None:
        self._store = store
        self._policy = policy
        self._load = load
        self._renew = renew
        self._events = events
        self._clock = clock
        self._wall = wall
        self._backends: dict[tuple[str, str], Backend] = {}
        #: The serial number of the last flight that was launched.
        self.serial = 0

    def launch(
        self, cell: Cell, now: float, *, forced: bool = False, landed: Future[None] | None = None
    ) -> Flight | None:
        """Return a new flight if one should start now, for the caller to submit after the lock.

        Flights that are submitted together share ``landed``.
        """
        if cell.flight is not None:
            if now < cell.flight.deadline:
                return None
            # It failed then, and not now that a reader finds out: nobody may have read for hours.
            self._failed(cell.flight, self._timed_out(), cell.flight.deadline)
        backend = self._used_backend(cell.key)
        if not backend.admits(now, forced=forced) or (now < cell.retry_at and not forced):
            return None
        self.serial += 1
        cell.flight = Flight(
            cell,
            backend,
            serial=self.serial,
            launched=now,
            deadline=now + self._policy.fetch_timeout,
            landed=Future() if landed is None else landed,
            # Who asks for a refresh wants another value, not the same for longer.
            renews=cell.lease(now) if self._renew is not None and not forced else None,
        )
        backend.launched(cell.flight)
        return cell.flight

    def overtake(self, cell: Cell, now: float) -> Flight | None:
        """Return a new flight as :meth:`launch` does, though one is under way: it may have begun
        too early to bring what is there now.
        """
        if cell.flight is not None and now < cell.flight.deadline:
            cell.flight.overtaken = True
            cell.flight = None
        return self.launch(cell, now, forced=True)

    def submit(self, flights: Sequence[Flight], *, here: bool = True) -> None:
        """Have a thread of the pool fetch; the caller, if none can be started and ``here`` will do.

        It will not on an event loop.
        """
        key = flights[0].cell.key
        self._events.tell(FetchSubmitted(key.alias, key.region, flights[0].serial))
        if not flights[0].backend.pool.submit(lambda: self.run(flights), here=here):
            error = ProviderUnavailable("no thread can be started to fetch it")
            answers = dict.fromkeys((flight.cell.key for flight in flights), error)
            self._land(flights, answers, answers, flights[0].launched)

    def run(self, flights: Sequence[Flight]) -> None:
        """Fetch, in a thread of the pool; whatever happens, nobody is left waiting."""
        # One that was given up in the queue is dropped: a backend that hangs is called no more
        # often for it.
        wanted = {
            flight.cell.key: flight
            for flight in flights
            if flight.cell.flight is flight or flight.overtaken
        }
        references = tuple(flight.cell.reference for flight in wanted.values())
        key = flights[0].cell.key
        self._events.tell(FetchStarted(key.alias, key.region, references, flights[0].serial))
        started = self._clock()
        answers: dict[SecretKey, SecretValue | SecretError] = {}
        try:
            new = {key: flight.cell.ref for key, flight in wanted.items() if flight.renews is None}
            if new:
                answers |= self._load(new)
            for key, flight in wanted.items():
                if flight.renews is not None and self._renew is not None:
                    answers[key] = self._renew(key, flight.cell.ref, flight.renews)
        finally:
            self._land(flights, wanted, answers, started)

    def _land(
        self,
        flights: Sequence[Flight],
        wanted: Container[SecretKey],
        answers: Mapping[SecretKey, SecretValue | SecretError],
        started: float,
    ) -> None:
        """Store what one call brought, wake those who wait for it, and tell what happened."""
        events: list[Event] = []
        try:
            with self._store.lock:
                now, wall = self._clock(), self._wall()
                for flight in flights:
                    cell = flight.cell
                    if cell.key not in wanted:
                        continue
                    answer, before = answers.get(cell.key), cell.held
                    outcome = judge(cell, answer, self._policy, started=started, now=now, wall=wall)
                    events += told(
                        cell, answer, outcome,
                        seconds=now - started, refresh=before is not None, started=started,
                    )  # fmt: skip
                    events += self._take_in(flight, outcome, started, now)
                    flight.outcome = outcome
        finally:
            flights[0].landed.set_result(None)
        for event in events:
            self._events.tell(event)

    def _take_in(
        self, flight: Flight, outcome: Outcome, started: float, now: float
    ) -> Iterable[Event]:
        """Store an outcome where it is still wanted; return what there is to tell of that."""
        cell, before = flight.cell, flight.cell.held
        late = cell.flight is not flight
        if not isinstance(outcome, Held):
            if not late:
                self._failed(flight, outcome, now)
            return ()
        flight.backend.answered()
        if isinstance(outcome.answer, SecretValue) and outcome.answer.lease_id:
            self._store.leases.add(Lease(cell.key, cell.ref, outcome.answer))
        if not late:
            cell.flight = None
        newer = late and before is not None and before.fetched >= started
        if newer or not self._store.has(cell):
            return ()
        rotated = rotation(cell, before, outcome, self._store.last_eviction(cell.key))
        cell.hold(outcome)
        self._store.changed(cell)
        return () if rotated is None else (rotated,)

    def _failed(self, flight: Flight, error: SecretError, now: float) -> None:
        """Note a failed flight: an outage with the backend, anything else with the key."""
        cell = flight.cell
        cell.flight = None
        if isinstance(error, ProviderUnavailable) and not error.only_this:
            cell.fail(error, -math.inf)
            flight.backend.failed(flight, now)
        elif isinstance(error, InvalidProvider):  # no call was made, and no build is remembered
            cell.fail(error, -math.inf)
            flight.backend.answered()
        else:
            cell.fail(error, now + wait_after(cell.attempts + 1))
            flight.backend.answered()
        self._store.changed(cell)

    def give_up(self, flight: Flight) -> SecretError:
        """Wait no longer for a flight whose time is over; its late answer is still stored.

        Nor for one that has landed and that something kept from being taken in.
        """
        with self._store.lock:
            now = self._clock()
            in_time = flight.landed.done() and now < flight.deadline
            error: SecretError = no_answer() if in_time else self._timed_out()
            if flight.cell.flight is flight:
                self._failed(flight, error, now)
        return error

    def _timed_out(self) -> ProviderUnavailable:
        return ProviderUnavailable(
            f"the fetch took longer than FETCH_TIMEOUT ({self._policy.fetch_timeout:g} s)"
        )

    # -- backends --------------------------------------------------------------------------------

    def backend(self, key: SecretKey) -> Backend:
        """Return what is known of a key's backend; for a fetch see :meth:`_used_backend`."""
        return self._backends.get((key.alias, key.region), _UNUSED)

    def _used_backend(self, key: SecretKey) -> Backend:
        """Return the backend that fetches a key; of too many, forget one that works."""
        where = key.alias, key.region
        backend = self._backends.pop(where, None) or Backend(*where)
        if len(self._backends) >= _MAX_BACKENDS:
            working = (other for other, known in self._backends.items() if not known.attempts)
            del self._backends[next(working, next(iter(self._backends)))]
        self._backends[where] = backend  # last: the one that was used last
        return backend

    def after_fork(self) -> None:
        """Forget the backends in a child: their threads and flights are the parent's."""
        self._backends = {}
