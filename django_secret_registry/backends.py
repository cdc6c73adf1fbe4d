"""What all keys of one ``(alias, region)`` share: its threads, and the backoff of an outage."""

from __future__ import annotations

import math
import random

from .lifecycle import Flight
from .pool import DaemonPool

#: Seconds between attempts: the first wait after a failure, and the longest.
FIRST_WAIT = 1.0
LONGEST_WAIT = 60.0

#: Threads that one backend may occupy. Ten: 200 secrets in batches of 20 go out at once.
THREADS = 10


def wait_after(attempts: int) -> float:
    """Return the seconds to wait after so many failures in a row: exponential, ±25 % jitter.

    The jitter keeps the processes of a fleet from trying in step.
    """
    wait: float = FIRST_WAIT * 2 ** min(attempts - 1, 6)
    return min(LONGEST_WAIT, max(FIRST_WAIT, wait * random.uniform(0.75, 1.25)))  # noqa: S311


class Backend:
    """The shared state of one backend; guarded by the cache's lock, except for the pool.

    While a backend backs off nobody calls it; when the wait is over one flight tries (the probe),
    and only its answer lets the others through.
    """

    __slots__ = ("attempts", "failed_at", "pool", "probe", "retry_at")

    def __init__(self, alias: str, region: str) -> None:
        self.pool = DaemonPool(THREADS, name=f"secret-registry-{alias}-{region or 'global'}")
        self.attempts = 0
        self.failed_at = -math.inf
        self.retry_at = -math.inf
        self.probe: Flight | None = None

    @property
    def closed_until(self) -> float:
        """When the next fetch may start; −∞ while the backend answers."""
        if not self.attempts:
            return -math.inf
        return self.retry_at if self.probe is None else max(self.retry_at, self.probe.deadline)

    def admits(self, now: float, *, forced: bool = False) -> bool:
        """Whether a fetch may start. A forced one (an operator's) waits ``FIRST_WAIT`` at most."""
        if forced and self.probe is None:
            return not self.attempts or now >= self.failed_at + FIRST_WAIT
        return now >= self.closed_until

    def launched(self, flight: Flight) -> None:
        """Note a flight; it is the probe if the backend has been failing."""
        if self.attempts:
            self.probe = flight

    def answered(self) -> None:
        """The backend answered (also "denied" or "not found"): it is up."""
        self.attempts = 0
        self.probe = None

    def failed(self, flight: Flight, now: float) -> None:
        """The backend was unavailable. Flights of one outage count once, not one by one."""
        if self.probe is flight:
            self.probe = None
        if flight.launched <= self.failed_at:
            return
        self.attempts += 1
        self.failed_at = now
        self.retry_at = now + wait_after(self.attempts)
