"""Slots: what a hit reads without a lock, and how its count gets into the sums all the same."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from .lifecycle import Cell, SecretKey, Slot

if TYPE_CHECKING:
    from .needles import Needles


class Hits:
    """The slots of a cache, and how often its reads ended in which way.

    Guarded by the cache's lock, all but the readers' look-up in ``slots``.
    """

    def __init__(self) -> None:
        #: Finished values by text (or ``Derived``). Read without a lock, written under it.
        self.slots: dict[Hashable, Slot] = {}
        #: By which the values are found in texts, once somebody has asked for that.
        self.needles: Needles | None = None
        self._counts: Counter[tuple[str, str, str]] = Counter()
        #: What slots that ended had to tell, in the order in which their last readers let go.
        self._ended: deque[tuple[SecretKey, str, int]] = deque()

    def put(
        self, text: Hashable, value: object, until: float, sources: Sequence[tuple[Cell, str]]
    ) -> None:
        """Let hits on ``text`` read ``value``, in place of the one before."""
        self.slots[text] = slot = Slot(value, until, sources, self._ended)
        for cell, _ in sources:
            cell.slots[text] = slot
        if self.needles is not None:
            self.needles.put_slot(text, slot)
        self._take_in_ended()

    def take_back(self, cell: Cell) -> None:
        """Take the cell's slots from the readers; each tells its count as it goes."""
        # A signal handler may read this very secret in between: it has a dict of its own to fill.
        taken, cell.slots = cell.slots, {}
        for text, slot in taken.items():
            for others in (self.slots, *(source.slots for source, _ in slot.sources)):
                if others.get(text) is slot:
                    del others[text]
                    if self.needles is not None and others is self.slots:
                        self.needles.drop(text)

    def count(self, key: SecretKey, status: str, times: int = 1) -> None:
        """Count reads that ended with ``status``."""
        self._counts[key.alias, key.region, status] += times

    def collect(self, cell: Cell) -> None:
        """Carry the cell's new hits over into the sums."""
        for slot in list(cell.slots.values()):
            self._collect(slot)

    def collect_all(self) -> None:
        """Carry all new hits over into the sums."""
        for slot in list(self.slots.values()):
            self._collect(slot)
        self._take_in_ended()

    def drain(self) -> dict[tuple[str, str, str], int]:
        """Return the sums since the last drain by ``(alias, region, status)``."""
        self.collect_all()
        counts, self._counts = self._counts, Counter()
        return dict(counts)

    def clear(self) -> None:
        """Begin anew in a forked child: hits of the parent are the parent's to count.

        So are those of the parent's slots that end later: they tell nobody.
        """
        self._counts = Counter()
        self._ended = deque()
        self.needles = None
        self.slots.clear()

    def _collect(self, slot: Slot) -> None:
        for key, status, times in slot.take_new():
            self.count(key, status, times)

    def _take_in_ended(self) -> None:
        while self._ended:
            self.count(*self._ended.popleft())
