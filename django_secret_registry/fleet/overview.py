"""The fleet as an operator looks at it: which worker holds which version of which secret."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping
from typing import NamedTuple

from .reports import WorkerInfo


class InFleet(NamedTuple):
    """One secret in all workers. ``versions``: how many workers hold which.

    ``stale``: hold it past its TTL; ``blind``: hold it, and may have missed an eviction; ``of``:
    how many workers there are.
    """

    reference: str
    versions: Mapping[str | None, int]
    stale: int
    blind: int
    of: int

    @property
    def held(self) -> int:
        """How many workers hold it."""
        return sum(self.versions.values())

    @property
    def differs(self) -> bool:
        """Whether two workers hold different versions."""
        return len(self.versions) > 1

    def __str__(self) -> str:
        """How many hold which version, the most frequent first."""
        return ", ".join(
            f"{count} × {version or '-'}"
            for version, count in sorted(
                self.versions.items(), key=lambda item: (-item[1], item[0] or "")
            )
        )


def secrets(workers: Iterable[WorkerInfo], now: float) -> dict[str, InFleet]:
    """Return every secret that a worker holds, by reference; ``now`` in POSIX seconds."""
    workers = list(workers)
    versions: dict[str, Counter[str | None]] = {}
    stale: Counter[str] = Counter()
    blind: Counter[str] = Counter()
    for worker in workers:
        for reference, there in worker.secrets.items():
            versions.setdefault(reference, Counter())[there.version] += 1
            stale[reference] += there.stale(now)
            blind[reference] += worker.blind
    return {
        reference: InFleet(reference, counts, stale[reference], blind[reference], len(workers))
        for reference, counts in sorted(versions.items())
    }


def together(
    references: Container[str], workers: Iterable[WorkerInfo], now: float
) -> InFleet | None:
    """Return how many workers hold any of ``references``, of any version; ``None``: none does."""
    workers = list(workers)
    holding = [one for one in workers if any(name in references for name in one.secrets)]
    if not holding:
        return None
    stale = sum(
        any(there.stale(now) for name, there in one.secrets.items() if name in references)
        for one in holding
    )
    blind = sum(one.blind for one in holding)
    return InFleet("", {None: len(holding)}, stale, blind, len(workers))
