"""What this process told the fleet, and how far it has come."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from . import reports
from .bus import Cursor
from .reports import Acks

if TYPE_CHECKING:
    from .worker import Worker


class Sent(NamedTuple):
    """Events that were written to the log, for their acknowledgements."""

    worker: Worker
    cursors: tuple[Cursor, ...]
    nonces: tuple[str, ...]
    at: float

    @classmethod
    def together(cls, sent: Iterable[Sent]) -> Sent:
        """Return several of one worker as one; there must be one."""
        first, *others = sent
        return first._replace(
            cursors=tuple(cursor for one in (first, *others) for cursor in one.cursors),
            nonces=tuple(nonce for one in (first, *others) for nonce in one.nonces),
        )

    @property
    def last(self) -> Cursor:
        """The place in the log up to which one has to read; there must be an event."""
        return self.cursors[-1]

    def acks(self) -> Acks:
        """Return how far they have come; asks the bus."""
        return reports.acks(self.cursors, self.worker.workers(heads=True))

    def wait(self, seconds: float, on_change: Callable[[Acks], object] | None = None) -> Acks:
        """Wait until all workers that can have applied them, ``seconds`` at most."""
        deadline, before = time.monotonic() + seconds, None
        while True:
            acks = self.acks()
            if acks != before and on_change is not None:
                on_change(acks)
            before = acks
            if not acks.waiting:
                self.worker.acknowledged(self)
                return acks
            if time.monotonic() >= deadline:
                return acks
            threading.Event().wait(0.1)
