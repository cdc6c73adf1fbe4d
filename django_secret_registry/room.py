"""Room: which secrets leave a cache that is full, and what is remembered of those that left."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping

from .lifecycle import Cell, Eviction, SecretKey
from .values import SecretValue


class Queue:
    """The keys that may leave for want of room, in this order; what is pinned never does.

    Guarded by the cache's lock.
    """

    def __init__(self) -> None:
        self._keys: OrderedDict[SecretKey, None] = OrderedDict()

    def enter(self, cell: Cell) -> None:
        """Take a cell of the cache in at its place."""
        self._keys[cell.key] = None
        self.rank(cell)

    def leave(self, cell: Cell) -> None:
        """Take a cell out; nothing happens when it is not in."""
        self._keys.pop(cell.key, None)

    def rank(self, cell: Cell) -> None:
        """Put what holds no value first."""
        if cell.key in self._keys:
            self._keys.move_to_end(cell.key, last=cell.worth_keeping)

    def victim(
        self, cells: Mapping[SecretKey, Cell], collect: Callable[[Cell], None]
    ) -> Cell | None:
        """Return the cell to drop: one without a value, else the first that nobody reads.

        A value that was read since the last look, and a fetch under way, get a second chance (the
        CLOCK algorithm, Corbató 1968). ``None``: all that is left is pinned.
        """
        while self._keys:
            cell = cells[next(iter(self._keys))]
            collect(cell)  # hits mark it as visited
            if not (cell.visited and (cell.worth_keeping or (cell.held is None and cell.flight))):
                return cell
            cell.visited = False
            self._keys.move_to_end(cell.key)
        return None

    def clear(self) -> None:
        self._keys.clear()


class Evictions:
    """The last eviction of each key, of ``most`` keys. Guarded by the cache's lock."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._last: OrderedDict[SecretKey, Eviction] = OrderedDict()

    def note(self, cell: Cell, *, at: float, by: str = "") -> None:
        """Keep who evicted a cell, when (POSIX seconds), and the version that it held last."""
        before = self._last.pop(cell.key, None)
        version = before.version if before is not None else None
        if cell.held is not None and isinstance(cell.held.answer, SecretValue):
            version = cell.held.answer.version
        if len(self._last) >= self._most:
            self._last.popitem(last=False)
        self._last[cell.key] = Eviction(at, by, version)

    def last(self, key: SecretKey) -> Eviction | None:
        """Return what is remembered of a key's last eviction."""
        return self._last.get(key)
