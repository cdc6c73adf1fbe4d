"""A process's place in the log: it reads on from there, and acts on what has come."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..events import FleetApplied
from . import bus
from .acting import Actor
from .bus import Batch, Bus, BusEvent, Cursor

if TYPE_CHECKING:
    from ..resolver import SecretRegistry

logger = logging.getLogger("django_secret_registry.fleet")

#: What the metrics call the kinds of events.
KINDS = (
    bus.EVICT, bus.EVICT_PROVIDER, bus.EVICT_ALL, bus.REFRESH, bus.REFRESH_PROVIDER, bus.ROTATED,
    bus.WARM, "gap", "unreadable",
)  # fmt: skip


class LogReader:
    """Reads the log over any bus, each event once. Thread-safe; no lock is held while it asks."""

    def __init__(
        self,
        registry: SecretRegistry,
        actor: Actor,
        *,
        own_name: Callable[[], str],
        strict: bool,
    ) -> None:
        self._events = registry.events
        self._clock = registry.clock
        self._actor = actor
        self._own_name = own_name
        self._strict = strict
        self._closed = False
        #: Whose turn it is to act on events. Whoever is told of an eviction may read secrets.
        self._turn = threading.RLock()
        #: Up to where the log has been read; ``None``: this process has no place in it yet.
        self.cursor: Cursor | None = None

    def read(self, bus_: Bus, *, block: float) -> tuple[Batch, bool]:
        """Read on and act; return what came, and whether it was of use to this process."""
        cursor = self.cursor
        batch = bus_.read_since(cursor, block=block)
        with self._turn:
            return batch, not self._closed and self._take_in(batch, cursor, self._clock())

    def _take_in(self, batch: Batch, cursor: Cursor | None, now: float) -> bool:
        """Act on a batch that was read from ``cursor``; return whether it is of use."""
        here = self.cursor
        if here != cursor and (here is None or batch.gap or batch.cursor.log != here.log):
            return False  # another thread has begun anew meanwhile
        if batch.gap:
            if here is not None:
                logger.warning("The log of the fleet has a gap: everything is due")
            self._actor.gap(now, strict=self._strict, joining=here is None)
            self._tell("gap", "applied")
        self._actor.look_around()
        for number, event in batch.events:
            if here is None or number > here.number:
                self._act(event, now)
        if here is None or batch.gap or batch.cursor.number > here.number:
            self.cursor = batch.cursor
        return True

    def _act(self, event: BusEvent | None, now: float) -> None:
        if event is None or event.version != bus.WIRE_VERSION:
            self._actor.unreadable(now, strict=self._strict)
            self._tell("unreadable", "applied")
        elif event.origin == self._own_name():
            self._tell(event.kind, "own")
        else:
            self._tell(event.kind, self._actor.act(event, now))

    def _tell(self, kind: str, outcome: str) -> None:
        self._events.tell(FleetApplied("", "", kind if kind in KINDS else "unknown", outcome))

    # -- what was put off ------------------------------------------------------------------------

    def next_at(self, *, urgent: bool = False) -> float:
        """When something that was put off is due, that no read may overtake if ``urgent``."""
        return self._actor.next_urgent_at if urgent else self._actor.next_at

    def run_due(self, patience: float) -> None:
        """Do what was put off until now, unless another thread is about to."""
        if self._actor.next_at <= self._clock() and self._turn.acquire(timeout=patience):
            try:
                self._actor.run_due(self._clock())
            finally:
                self._turn.release()

    # -- ends ------------------------------------------------------------------------------------

    def close(self) -> None:
        """Act on nothing any more."""
        self._closed = True

    def after_fork(self) -> None:
        """Go on in a child from the parent's place."""
        self._turn = threading.RLock()
        self._actor.after_fork()
