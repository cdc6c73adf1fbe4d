"""The secret cache: one fetch per key, refresh ahead, stale in an outage, evicted for good.

A hit does not come here at all: the resolver reads :attr:`SecretCache.slots`. Everything else takes
the one lock for a few dictionary operations; providers are called, threads started and events told
outside it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import Future

from .answers import no_answer
from .asking import Admission, Ask, Ended, Prefetch, all_held, in_batches, landing, wait
from .clock import Clock, steady, wall
from .events import Events, Evicted, Refreshed
from .exceptions import ProviderUnavailable, SecretError, SecretNotFound
from .fetching import Fetches, Load, Renew
from .leases import Lease, by_backend
from .lifecycle import (
    CachePolicy,
    Cell,
    Flight,
    Held,
    Outcome,
    SecretInfo,
    SecretKey,
    status_of,
)
from .store import Known, Store
from .values import SecretValue

#: Returns what gives back leases of one backend, to be run where it may block.
Release = Callable[[Sequence[Lease]], Callable[[], object]]


class SecretCache:
    """Keeps what the backends answered, by :class:`SecretKey`. Safe for threads, tasks and forks.

    ``load`` is called in the backends' pools, and so are ``renew``, in its place, for a held value
    with a lease whose time has come, and what ``release`` returns for leases that were evicted.
    ``clock`` measures ages, ``wall`` is compared with an issuer's ``expires_at``.
    """

    def __init__(
        self,
        policy: CachePolicy,
        load: Load,
        *,
        renew: Renew | None = None,
        release: Release | None = None,
        events: Events | None = None,
        clock: Clock = steady,
        wall: Clock = wall,
    ) -> None:
        self.policy = policy
        self._store = Store(policy, clock=clock, wall=wall)
        #: Finished values by text (or ``Derived``). Read without a lock, written under it.
        self.slots = self._store.hits.slots
        self._release = release
        self._events = events or Events()
        self._clock = clock
        self._wall = wall
        self._fetches = Fetches(
            self._store, policy, load, renew=renew, events=self._events, clock=clock, wall=wall
        )
        #: Seconds: what was fetched longer ago is not served, whatever its TTL says.
        self.max_age = math.inf

    # -- reading ---------------------------------------------------------------------------------

    def read(self, ask: Ask, *, patient: bool = True) -> Held:
        """Return a value for ``ask``, fetching it first if need be; blocks the thread.

        Waits ``fetch_timeout`` at most when nothing is held, and ``soft_timeout`` when the value is
        stale (not at all unless ``patient``). Raises the backend's error, a new object each time.
        Where no thread can be started a ``patient`` caller fetches itself.
        """
        return self.read_all((ask,), patient=patient)[ask.key]

    def read_all(self, asks: Sequence[Ask], *, patient: bool = True) -> dict[SecretKey, Held]:
        """Do as :meth:`read` for each of ``asks``: in batches, at once, and with one wait for all.

        Raises the error of the first that has one.
        """
        admitted = self._admitted(asks, patient=patient, here=patient)
        began = time.monotonic()
        ended = (
            (ask, one, wait(one, one.seconds - (time.monotonic() - began))) for ask, one in admitted
        )
        return all_held(self._settle(ended))

    async def aread(self, ask: Ask) -> Held:
        """Do as :meth:`read` without blocking the event loop; no fetch runs in its thread."""
        return (await self.aread_all((ask,)))[ask.key]

    async def aread_all(self, asks: Sequence[Ask]) -> dict[SecretKey, Held]:
        """Do as :meth:`read_all` without blocking the event loop."""
        admitted = self._admitted(asks, patient=True, here=False)
        began = time.monotonic()
        for _, one in admitted:
            if one.flight is not None:
                left = one.seconds - (time.monotonic() - began)
                await landing(one.flight.landed, max(0.0, left))
        return all_held(
            self._settle(
                (ask, one, one.flight.outcome if one.flight else None) for ask, one in admitted
            )
        )

    def held(self, key: SecretKey) -> Held | None:
        """Return what a read of ``key`` would serve without waiting for a first fetch, if any."""
        with self._store.lock:
            cell = self._store.cells.get(key)
            held = cell.held if cell is not None else None
            if held is None or self._clock() >= min(held.ends, held.fetched + self.max_age):
                return None
            return held

    def redact(self, text: str) -> str:
        """Return ``text`` with the values that are held now masked. Fetches nothing.

        The lock is taken for the first text only.
        """
        needles = self._store.hits.needles
        if needles is None:
            with self._store.lock:
                needles = self._store.needles()
        return needles.redact(text)

    def _admitted(
        self, asks: Sequence[Ask], *, patient: bool, here: bool
    ) -> list[tuple[Ask, Admission]]:
        """Decide what readers get, and start the flights that are wanted, in batches."""
        with self._store.lock:
            now = self._clock()
            admitted = [(ask, self._admit(ask, now, patient=patient)) for ask in asks]
            batches = in_batches(admitted)
        for flights in batches:
            self._fetches.submit(flights, here=here)
        for ask, admission in admitted:
            if admission.refresh:
                self._tell_refreshed(ask, admission.refresh)
        return admitted

    def _admit(self, ask: Ask, now: float, *, patient: bool) -> Admission:
        """Decide what a reader gets, and launch the flight that is wanted. (Under the lock.)"""
        cell = self._store.cell(ask)
        held = cell.held
        ends = -math.inf if held is None else min(held.ends, held.fetched + self.max_age)
        if now >= ends:
            held = None
        if held is not None and now < held.due:
            return Admission(held)
        flight = self._fetches.launch(cell, now)
        if held is None:
            return self._awaiting(cell, now)._replace(launched=flight)
        # Only the reader who starts the refresh of a stale value gives it a short chance; nobody
        # does once an attempt has failed, nor past the end of what is held.
        failing = cell.attempts or self._fetches.backend(cell.key).attempts
        ends_first = now + self.policy.soft_timeout >= ends
        waits = patient and now >= held.stale and not (failing or ends_first)
        return Admission(
            held,
            flight if waits else None,
            self.policy.soft_timeout,
            stale=now >= held.stale and not held.refused,
            launched=flight,
            refresh="" if flight else "collapsed" if cell.flight else "backed_off",
        )

    def _awaiting(self, cell: Cell, now: float) -> Admission:
        """Return what a reader without a value gets: the flight, or the backoff's error."""
        if cell.flight is not None:
            return Admission(flight=cell.flight, seconds=cell.flight.deadline - now)
        if cell.last_error is not None and now < cell.retry_at:
            return Admission(error=cell.last_error)
        wait = self._fetches.backend(cell.key).closed_until - now
        return Admission(
            error=ProviderUnavailable(
                "the backend did not answer lately and is left alone for now",
                hint=f"The next attempt is made in {max(0.0, wait):.1f} s.",
            )
        )

    def _settle_one(self, ask: Ask, admission: Admission, outcome: Outcome | None) -> Outcome:
        return self._settle([(ask, admission, outcome)])[ask.key]

    def _settle(self, ended: Ended) -> dict[SecretKey, Outcome]:
        """Turn what came of admissions into values or errors of the caller's own; count them."""
        results: dict[SecretKey, Outcome] = {}
        statuses: list[tuple[SecretKey, str]] = []
        for ask, admission, outcome in ended:
            status, result = self._result(ask, admission, outcome)
            results[ask.key] = result
            statuses.append((ask.key, status))
        with self._store.lock:
            for key, status in statuses:
                self._store.hits.count(key, status)
            untold, unreleased = self._store.owed()
        for event in untold:
            self._events.tell(event)
        self._give_back(unreleased, here=False)
        return results

    def _result(
        self, ask: Ask, admission: Admission, outcome: Outcome | None
    ) -> tuple[str, Outcome]:
        status = "stale" if admission.stale else "hit"
        result: Outcome | None = outcome
        if isinstance(outcome, Held):
            status = "ok"
        elif admission.held is not None:
            result = admission.held
        elif outcome is None:
            result = (
                self._fetches.give_up(admission.flight) if admission.flight else admission.error
            )
        if isinstance(result, Held):
            if not isinstance(result.answer, SecretNotFound):
                return status, result
            result = result.answer
        error = self._named(result or no_answer(), ask)
        return status_of(error), error

    def publish(self, text: Hashable, value: object, helds: Mapping[SecretKey, Held]) -> None:
        """Let hits on ``text`` read ``value``, made from ``helds``, until the first of them is due.

        Nothing happens when one is no longer what the cache holds: a reader that was slow must not
        bring an evicted value back.
        """
        with self._store.lock:
            now, until = self._clock(), math.inf
            sources: list[tuple[Cell, str]] = []
            for key, held in helds.items():
                cell = self._store.cells.get(key)
                if cell is None or cell.held is not held:
                    return
                until = min(until, self._serves_until(cell, held, now))
                sources.append((cell, held.status(now)))
            if now < until:
                self._store.publish(text, value, until, sources)

    def _serves_until(self, cell: Cell, held: Held, now: float) -> float:
        """Return until when hits may read what was made from ``held``. (Under the lock.)"""
        if now < held.due:
            return held.due
        # A refresh is under way or waits for its turn: look again when that changes.
        if cell.flight is not None:
            until = cell.flight.deadline
        else:
            until = max(cell.retry_at, self._fetches.backend(cell.key).closed_until)
        return min(until, held.stale if now < held.stale else held.ends)

    # -- fetching --------------------------------------------------------------------------------

    def refresh(self, ask: Ask, *, seen: Held | None = None) -> Held:
        """Fetch now, keeping the old value until the new one is there; return what was fetched.

        The fetch begins after this call, and callers share it. With ``seen``, the value that the
        caller found wrong, one that has replaced it meanwhile is returned without a fetch. Raises
        the error of the attempt; a backend that backs off is tried once a second at most.
        """
        with self._store.lock:
            asked = self._fetches.serial
        while True:
            flight = None
            with self._store.lock:
                now = self._clock()
                cell = self._store.cell(ask)
                held = cell.held if cell.held is not None and now < cell.held.ends else None
                if seen is not None and held is not None and _replaces(held, seen):
                    admission = Admission(held)
                else:
                    flight = self._fetches.launch(cell, now, forced=True)
                    admission = self._awaiting(cell, now)
            if flight is not None:
                self._fetches.submit((flight,))
            elif admission.error is not None:
                self._tell_refreshed(ask, "backed_off")
            elif admission.flight is not None:
                if admission.flight.serial <= asked or admission.flight.renews is not None:
                    # It began before this call and may bring what the caller no longer wants, or
                    # prolong it.
                    if wait(admission) is None:
                        self._fetches.give_up(admission.flight)
                    continue
                self._tell_refreshed(ask, "collapsed")
            return _held(self._settle_one(ask, admission, wait(admission)))

    def hasten(self, ask: Ask, *, seen: Held) -> None:
        """Begin to fetch what has not replaced ``seen`` yet, and do not wait for it."""
        flight = None
        with self._store.lock:
            cell = self._store.cell(ask)
            if cell.held is None or not _replaces(cell.held, seen):
                flight = self._fetches.launch(cell, self._clock(), forced=True)
        if flight is not None:
            self._fetches.submit((flight,), here=False)

    def follow(self, key: SecretKey, value: SecretValue, stage: str) -> None:
        """Fetch the ``stage`` of a secret in this thread, if it is held, and ``value`` is a new
        version of ``key`` that is about to be taken in.

        Whoever fetches it already may have begun before that version was the current one.
        """
        cells = self._store.cells
        cell = cells.get(key)
        if cell is None or cell.held is None:  # a first fetch
            return
        follower = key._replace(stage=stage)
        if follower not in cells:  # as of most secrets: no lock for that
            return
        with self._store.lock:
            cell, behind = cells.get(key), cells.get(follower)
            before = cell.held.answer if cell is not None and cell.held is not None else None
            if not isinstance(before, SecretValue) or before.version == value.version:
                return
            if behind is None or behind.held is None:
                return
            # Or the follower would have to wait for the probe.
            self._fetches.backend(key).answered()
            flight = self._fetches.overtake(behind, self._clock())
        if flight is not None:
            self._fetches.run((flight,))

    def prefetch(self, asks: Iterable[Ask]) -> Prefetch:
        """Have keys of one backend fetched in one call, where they are not fresh.

        Does not wait. What somebody else is fetching is not fetched again. Raises ``ValueError``
        when there are keys of several backends, and nothing for a secret.
        """
        asks = tuple(asks)
        if len({(ask.key.alias, ask.key.region) for ask in asks}) > 1:
            # The call goes to the first key's backend, which may have a secret of the same name.
            raise ValueError("one call fetches keys of one backend")
        admissions: list[tuple[Ask, Admission]] = []
        flights: list[Flight] = []
        landed: Future[None] = Future()
        with self._store.lock:
            now = self._clock()
            for ask in asks:
                cell = self._store.cell(ask)
                if cell.held is not None and now < cell.held.due:
                    admissions.append((ask, Admission(cell.held)))
                    continue
                flight = self._fetches.launch(cell, now, landed=landed)
                if flight is not None:
                    flights.append(flight)
                admissions.append((ask, self._awaiting(cell, now)))
        if flights:
            self._fetches.submit(flights)
        return Prefetch(self._settle, admissions)

    # -- evicting --------------------------------------------------------------------------------

    def evict(
        self, chosen: Callable[[SecretKey], bool], *, reason: str, by: str = ""
    ) -> list[SecretKey]:
        """Forget value and error of every key that is ``chosen``, now; return those keys.

        A fetch that is under way serves those who already wait for it and is not stored. Leases are
        given back in the background.
        """
        with self._store.lock:
            known = self._store.known_keys()
        keys = dict.fromkeys(key for key in known if chosen(key))  # foreign code: outside the lock
        with self._store.lock:
            gone, leases = self._store.evict(keys, by=by)
        for cell in gone:
            self._events.tell(Evicted(cell.key.alias, cell.key.region, cell.reference, reason, by))
        self._give_back(leases, here=True)
        return [cell.key for cell in gone]

    def cached_keys(self) -> list[SecretKey]:
        """Return the keys that are cached."""
        with self._store.lock:
            return list(self._store.cells)

    def known_keys(self) -> list[SecretKey]:
        """Return the keys that are cached, being fetched or leased."""
        with self._store.lock:
            return self._store.known_keys()

    def make_due(self, key: SecretKey, at: float, *, fetched_before: float) -> None:
        """Have what is held of ``key``, if it is older, refreshed from ``at`` on (the clock's)."""
        with self._store.lock:
            cell = self._store.cells.get(key)
            held = cell.held if cell is not None else None
            if cell is not None and held is not None and held.fetched <= fetched_before:
                cell.held = held._replace(due=min(held.due, at))
                self._store.changed(cell)

    def renew(self, key: SecretKey, *, fetched_before: float, forced: bool) -> bool:
        """Begin a fetch of ``key`` in the background, if what is held is older than that.

        ``False``: one is under way that may bring what is as old; try again later. One that is not
        ``forced`` leaves a backend that backs off alone.
        """
        with self._store.lock:
            now, cell = self._clock(), self._store.cells.get(key)
            if cell is None or cell.held is None or cell.held.fetched > fetched_before:
                return True
            under_way = cell.flight is not None and now < cell.flight.deadline
            flight = None if under_way else self._fetches.launch(cell, now, forced=forced)
        if flight is not None:
            self._fetches.submit((flight,), here=False)
        return not under_way

    def take_leases(self) -> list[Lease]:
        """Return every lease, for the caller to give back; nobody else does from now on."""
        with self._store.lock:
            return self._store.leases.take(self._store.leases.keys())

    def give_back_all(self) -> None:
        """Give every lease back, in the background."""
        self._give_back(self.take_leases(), here=True)

    def _give_back(self, leases: Sequence[Lease], *, here: bool) -> None:
        """Have a thread of each pool give leases back; the caller, if there is none and ``here``.

        Of one backend one after the other, so that many leases leave its threads to readers.
        """
        if self._release is None:
            return
        for group in by_backend(leases):
            with self._store.lock:
                pool = self._fetches.backend(group[0].key).pool
            pool.submit(self._release(group), here=here)

    # -- telling ---------------------------------------------------------------------------------

    def _named(self, error: SecretError, ask: Ask) -> SecretError:
        named = error.copy(reference=str(ask.ref), provider=ask.key.alias, region=ask.key.region)
        if error.__cause__ is not None:
            named.__cause__ = error.__cause__
        return named

    def _tell_refreshed(self, ask: Ask, outcome: str) -> None:
        self._events.tell(Refreshed(ask.key.alias, ask.key.region, str(ask.ref), outcome))

    def drain(self) -> dict[tuple[str, str, str], int]:
        """Return how often reads ended in which way since the last drain.

        Keys are ``(alias, region, status)``, status as in ``secret_registry_resolve_total``.
        """
        with self._store.lock:
            return self._store.hits.drain()

    def snapshot(self, known: Known | None = None) -> tuple[SecretInfo, ...]:
        """Return metadata of every key that is cached or ``known``, no values, ordered by key."""
        known = known or {}
        with self._store.lock:
            now = self._clock()
            rows = self._store.rows(known, lambda key: self._fetches.backend(key).closed_until)
        # Outside the lock: for thousands of keys this takes long enough to be felt by readers.
        return tuple(
            cell.info(
                now,
                max(cell.retry_at, closed_until),
                evicted,
                known[cell.key][1] if cell.key in known else (),
            )
            for cell, closed_until, evicted in sorted(rows, key=lambda row: row[0].key)
        )

    # -- processes -------------------------------------------------------------------------------

    def after_fork(self) -> None:
        """Make the cache usable in a child: entries and their ages stay, threads and flights go.

        So do leased values (see :meth:`.store.Store.after_fork`).
        """
        self._fetches.after_fork()
        self._store.after_fork()


def _held(outcome: Outcome) -> Held:
    """Return the value, or raise the error, without a cycle of the error and this frame."""
    try:
        if isinstance(outcome, SecretError):
            raise outcome
        return outcome
    finally:
        del outcome


def _replaces(held: Held, seen: Held) -> bool:
    """Whether ``held`` is another value than ``seen``; the same one, fetched again, is not."""
    new, old = held.answer, seen.answer
    if isinstance(new, SecretValue) and isinstance(old, SecretValue):
        return (new.version, new.value) != (old.version, old.value)
    return new is not old
