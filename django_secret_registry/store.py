"""The store: a cell for each key, its place among those that may leave, its slots and its leases.

Everything here is called under :attr:`Store.lock`, which whoever calls takes.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING

from .asking import Ask
from .clock import Clock
from .events import Event, Evicted
from .hits import Hits
from .leases import Lease, Leases
from .lifecycle import CachePolicy, Cell, Eviction, SecretKey, hold_value
from .references import SecretRef
from .room import Evictions, Queue
from .values import SecretValue

if TYPE_CHECKING:
    from .needles import Needles

#: Keys that settings and SECRETS name, with the reference of each and the places that name it.
Known = Mapping[SecretKey, tuple[SecretRef, tuple[str, ...]]]

#: Slots that may exist per entry on average; more spellings of one secret come from an attack only.
_SLOTS_PER_ENTRY = 4


class Store:
    """The cells of a cache, ``policy.max_entries`` of them at most besides those that are pinned.

    ``clock`` measures ages, ``wall`` is compared with an issuer's ``expires_at``.
    """

    def __init__(self, policy: CachePolicy, *, clock: Clock, wall: Clock) -> None:
        # Reentrant: a signal handler or a finalizer may read a secret in the thread that holds it.
        self.lock = threading.RLock()
        self.cells: dict[SecretKey, Cell] = {}
        self.hits = Hits()
        self.leases = Leases(wall)
        self._policy = policy
        self._clock = clock
        self._wall = wall
        self._queue = Queue()
        self._evictions = Evictions(policy.max_entries)
        self._untold: list[Event] = []
        self._unreleased: list[Lease] = []

    def cell(self, ask: Ask) -> Cell:
        """Return the key's cell, made if there is none; it lives by the smallest TTL asked for."""
        cell = self.cells.get(ask.key)
        if cell is None:
            jitter = 1 + self._policy.jitter * random.uniform(-1, 1)  # noqa: S311
            self._make_room()
            cell = self.cells[ask.key] = Cell(ask.key, ask.ref, jitter=jitter)
            if ask.pinned:
                cell.pinned = True
            else:
                self._queue.enter(cell)
        cell.visited = True
        if ask.pinned and not cell.pinned:
            cell.pinned = True
            self._queue.leave(cell)
        if ask.ttl < cell.ttl:
            cell.ttl = ask.ttl
            self._shorten(cell)
        return cell

    def has(self, cell: Cell) -> bool:
        """Whether readers find this very cell: not if it was evicted, though its key is back."""
        return self.cells.get(cell.key) is cell

    def changed(self, cell: Cell) -> None:
        """Let nobody read what the cell held before."""
        self.hits.take_back(cell)
        if self.has(cell):
            self._queue.rank(cell)
            if self.hits.needles is not None:
                self.hits.needles.put_cell(cell)

    def publish(
        self, text: Hashable, value: object, until: float, sources: Sequence[tuple[Cell, str]]
    ) -> None:
        """Let hits on ``text`` read ``value``, unless there are far more texts than secrets."""
        if len(self.hits.slots) < self._policy.max_entries * _SLOTS_PER_ENTRY:
            self.hits.put(text, value, until, sources)

    def needles(self) -> Needles:
        """Return what finds the values that are held, as long as they are, in texts."""
        needles = self.hits.needles
        if needles is None:
            from .needles import Needles  # here: most processes show no error

            needles = Needles()
            for cell in self.cells.values():
                needles.put_cell(cell)
            for text, slot in self.hits.slots.items():
                needles.put_slot(text, slot)
            self.hits.needles = needles
        return needles

    def known_keys(self) -> list[SecretKey]:
        """Return the keys that have a cell or a lease."""
        return [*self.cells, *(self.leases.keys() - self.cells.keys())]

    def evict(self, keys: Collection[SecretKey], *, by: str) -> tuple[list[Cell], list[Lease]]:
        """Drop the cells of these keys; return them, and their leases, to be given back."""
        leases = self.leases.take(keys)
        gone = [cell for key in keys if (cell := self.cells.get(key)) is not None]
        for cell in gone:
            self._drop(cell)
            self._evictions.note(cell, at=self._wall(), by=by)
        return gone, leases

    def last_eviction(self, key: SecretKey) -> Eviction | None:
        """Return what is remembered of a key's last eviction."""
        return self._evictions.last(key)

    def owed(self) -> tuple[list[Event], list[Lease]]:
        """Return what became of those that left for want of room, for the caller to see to."""
        owed = self._untold, self._unreleased
        self._untold, self._unreleased = [], []
        return owed

    def rows(
        self, known: Known, closed_until: Callable[[SecretKey], float]
    ) -> list[tuple[Cell, float, Eviction | None]]:
        """Return each cell, and one for each key that is only ``known``, with what goes with it."""
        self.hits.collect_all()
        absent = {
            key: Cell(key, ref, jitter=1.0)
            for key, (ref, _) in known.items()
            if key not in self.cells
        }
        return [
            (cell, closed_until(key), self._evictions.last(key))
            for key, cell in (self.cells | absent).items()
        ]

    def after_fork(self) -> None:
        """Keep the cells with their ages in a child, and nothing that is the parent's.

        The parent owns leased values (with ``expires_at`` or ``lease_id``) and gives them back, and
        it counts the hits that it had.
        """
        self.lock = threading.RLock()
        self._untold, self._unreleased = [], []
        self.leases = Leases(self._wall)
        # Another thread may have been about to change these: they are made again from the cells.
        self.hits.clear()
        self._queue.clear()
        for cell in self.cells.values():
            cell.flight = None
            cell.slots.clear()
            cell.hits = 0
            held = cell.held
            if held is not None:
                answer = held.answer
                leased = isinstance(answer, SecretValue) and (
                    answer.expires_at is not None or bool(answer.lease_id)
                )
                # What .map made is made again: another thread may be about to make it.
                cell.held = None if leased else held._replace(made={})
            if not cell.pinned:
                self._queue.enter(cell)

    def _drop(self, cell: Cell) -> None:
        del self.cells[cell.key]
        self._queue.leave(cell)
        self.hits.take_back(cell)
        if self.hits.needles is not None:
            self.hits.needles.drop(cell.key)

    def _shorten(self, cell: Cell) -> None:
        """Let a value that is held already live by the cell's new, smaller TTL."""
        held = cell.held
        if held is None or not isinstance(held.answer, SecretValue):
            return
        shorter = hold_value(
            held.answer,
            self._policy,
            ttl=cell.ttl * cell.jitter,
            fetched=held.fetched,
            now=self._clock(),
            wall=self._wall(),
        )
        cell.held = shorter._replace(
            made=held.made,
            due=min(held.due, shorter.due),
            stale=min(held.stale, shorter.stale),
            ends=min(held.ends, shorter.ends),
            cached=True,
        )
        self.hits.take_back(cell)

    def _make_room(self) -> None:
        """Evict so that one more has room."""
        while len(self.cells) >= self._policy.max_entries:
            cell = self._queue.victim(self.cells, self.hits.collect)
            if cell is None:
                return
            self._drop(cell)
            self._unreleased += self.leases.take((cell.key,))
            if cell.worth_keeping:
                self._evictions.note(cell, at=self._wall())
            key = cell.key
            self._untold.append(Evicted(key.alias, key.region, cell.reference, "capacity"))
