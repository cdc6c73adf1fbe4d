"""The listener: a thread that follows the log as it grows, and reports to the others."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable

from ..exceptions import SecretError
from . import reports
from .bus import Bus
from .lease import PATIENCE, PAUSE, Lease
from .link import Link, working
from .log_reader import LogReader

logger = logging.getLogger("django_secret_registry.fleet")

#: Seconds that the listener's read waits for an event.
BLOCK = 1.0
#: Seconds within which all workers say that they have applied an event.
_SAYS_SO = 0.1


class Talk:
    """When a worker says what: deltas, soon after it has applied something."""

    def __init__(self, name: str, report: Callable[[], dict[str, str]]) -> None:
        self._name = name
        self._report = report
        self._said: dict[str, str] | None = None
        self._next = time.monotonic()

    def due_in(self) -> float:
        """Return the seconds until there is something to say."""
        return self._next - time.monotonic()

    def soon(self) -> None:
        """Acknowledge what was applied, not all workers in the same instant."""
        self._next = min(self._next, time.monotonic() + random.uniform(0, _SAYS_SO))  # noqa: S311

    def forget(self) -> None:
        """Say all of it next time: nobody knows what has arrived."""
        self._said = None
        self._next = time.monotonic()

    def beat(self, bus: Bus) -> None:
        """Say what has changed, if it is time."""
        if self.due_in() > 0:
            return
        # What comes to be said while this goes out is said soon after it.
        self._next = time.monotonic() + reports.HEARTBEAT * random.uniform(0.8, 1.0)  # noqa: S311
        says = self._report()
        if self._said is None or not self._beat(bus, self._said, says):
            bus.heartbeat(self._name, says, lifetime=reports.LIFETIME, anew=True)
        self._said = says

    def _beat(self, bus: Bus, before: dict[str, str], says: dict[str, str]) -> bool:
        changed: dict[str, str | None] = dict.fromkeys(before.keys() - says.keys())
        changed |= {name: text for name, text in says.items() if before.get(name) != text}
        return bus.heartbeat(self._name, changed, lifetime=reports.LIFETIME, anew=False)


class Listener:
    """One daemon thread with a bus of its own, from :meth:`start` to :meth:`stop`."""

    def __init__(
        self, *, link: Link, lease: Lease, log: LogReader, talk: Talk, lease_seconds: float
    ) -> None:
        self._link = link
        self._lease = lease
        self._log = log
        self._talk = talk
        self._longest = min(BLOCK, lease_seconds / 4)
        self._stopped = threading.Event()
        self._bus: Bus | None = None
        self._failures = 0
        self._gaps = 0
        self._thread = threading.Thread(target=self._run, name="secret-registry-fleet", daemon=True)

    def start(self) -> bool:
        """Begin; return ``False`` where no thread can be started."""
        try:
            self._thread.start()
        except RuntimeError:
            return False
        return True

    def stop(self) -> None:
        """Have it end, after the read that it is in."""
        self._stopped.set()

    @property
    def alive(self) -> bool:
        """Whether its thread runs still."""
        return self._thread.is_alive()

    def _run(self) -> None:
        with working():
            while not self._stopped.is_set():
                self._step()
                self._log.run_due(PATIENCE)
                self._lease.publish()
            self._close()

    def _step(self) -> None:
        """Wait for events once, and report if it is time; after a failure pause."""
        try:
            if self._bus is None:
                self._bus = self._link.make()
            self._listen(self._bus)
            self._failures = 0
        except SecretError as error:
            self._lease.failed(error)
            self._begin_anew()
        except BaseException as exc:
            # Also one that somebody throws into every thread. Its text may hold what the library
            # was sent: only the type is logged.
            if not self._stopped.is_set():
                logger.error("The listener of the fleet failed with %s", type(exc).__name__)
            self._begin_anew()

    def _listen(self, bus: Bus) -> None:
        next_in = self._log.next_at() - self._lease.clock()
        block = max(0.0, min(self._longest, self._talk.due_in(), next_in))
        batch = self._lease.reconcile(bus, block=block)
        if self._stopped.is_set():  # no report of a worker that is no more
            return
        if batch.events or batch.gap:
            self._talk.soon()
        self._talk.beat(bus)  # after it, so that a report that fails keeps no event from here
        # A log that is broken again and again is not read in a circle without a pause.
        self._gaps = self._gaps + 1 if batch.gap else 0
        if self._gaps > 1:
            self._stopped.wait(PAUSE)

    def _begin_anew(self) -> None:
        self._close()
        self._talk.forget()
        self._failures += 1
        # At once the first time: most often a connection was cut, and another one works.
        if self._failures > 1:
            self._stopped.wait(PAUSE * random.uniform(0.5, 1.0))  # noqa: S311

    def _close(self) -> None:
        made, self._bus = self._bus, None
        if made is not None:
            made.close()
