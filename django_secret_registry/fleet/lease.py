"""The lease: until when hits are served, and what a read does that comes later.

The guarantee of the fleet sits here: hits are served while ``now < registry.serves_until``, which
lies ``LEASE`` after the beginning of the last read of the whole log. A listener moves it on; where
there is none, the reader does who comes after it, with a bound.
"""

from __future__ import annotations

import functools
import logging
import math
import threading
import time
from typing import TYPE_CHECKING

from ..asking import on_event_loop
from ..exceptions import SecretError
from ..pool import DaemonPool
from ..specs import FleetSpec
from .bus import Batch, Bus, BusDenied
from .link import Link, busy
from .log_reader import LogReader

if TYPE_CHECKING:
    from ..resolver import SecretRegistry
    from ..secret_cache import SecretCache

logger = logging.getLogger("django_secret_registry.fleet")

#: Seconds that a reader waits for the bus, and for which nobody asks it after a failure.
PATIENCE, PAUSE = 0.2, 1.0


class _Try:
    """One look at the log by a reader; others in ``strict`` wait for it with them."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._given_up_at = time.monotonic() + PATIENCE

    def wait(self) -> None:
        """Wait for its end, until :data:`PATIENCE` after its beginning."""
        self._ended.wait(max(0.0, self._given_up_at - time.monotonic()))

    def end(self) -> None:
        self._ended.set()


class Lease:
    """Vouches for the caches of a registry. Thread-safe; no lock is held while the bus is asked."""

    def __init__(
        self,
        registry: SecretRegistry,
        cache: SecretCache,
        spec: FleetSpec,
        *,
        link: Link,
        log: LogReader,
    ) -> None:
        self._registry = registry
        self._cache = cache
        self.clock = registry.clock
        self._seconds = spec.lease
        self._strict = spec.mode == "strict"
        self._link = link
        self._log = log
        self._closed = False
        #: Whether a listener does what is put off; where there is none, readers do.
        self.listening = False
        # What is fetched from now on is younger than the lease until then, log or no log.
        self.until = self.clock() + spec.lease
        #: When the read of the whole log began that was the last one.
        self.read_at = -math.inf
        #: When the bus may be asked again after a failure.
        self.retry_at = -math.inf
        self._set_up()
        self.publish()

    def _set_up(self) -> None:
        #: For a few instructions only.
        self._lock = threading.RLock()
        self._pool = DaemonPool(1, name="secret-registry-fleet-inline")
        self._trying: _Try | None = None
        self._warned = False

    # -- reading secrets -------------------------------------------------------------------------

    def before_read(self) -> None:
        """Let a read that is no hit go on, once the log has been read lately or cannot be.

        One reader at a time asks the bus, and waits for :data:`PATIENCE` at most; in ``strict`` the
        others wait for that answer with it. Nobody waits on an event loop.
        """
        if self.clock() < self._registry.serves_until:
            return
        on_loop = on_event_loop()
        self._log.run_due(0 if on_loop else PATIENCE)
        trying, mine = None, False
        with self._lock:
            now = self.clock()
            if now >= self.until and not busy():
                if self._trying is None and now >= self.retry_at:
                    self._trying, mine = _Try(), True
                trying = self._trying
        if mine and trying is not None:
            look = functools.partial(self._try, trying)
            if not self._pool.submit(look, here=not on_loop):  # no threads here
                self._trying = None
        if trying is not None and (mine or self._strict) and not on_loop:
            trying.wait()
        with self._lock:
            now = self.clock()
            if now >= self.until and mine:
                self.retry_at = max(self.retry_at, now + PAUSE)
            self.publish()

    def _try(self, trying: _Try) -> None:
        """Read the log once, in a thread of the pool."""
        try:
            while self._link.call(functools.partial(self.reconcile, block=0)).more:
                pass
        except SecretError as error:
            self.failed(error)
        except Exception as exc:
            # Its text may hold what the library was sent: only the type is logged.
            logger.error("The log of the fleet cannot be read: %s", type(exc).__name__)
        finally:
            with self._lock:
                self._trying = None
                self.publish()
            trying.end()

    # -- moving on -------------------------------------------------------------------------------

    def reconcile(self, bus: Bus, *, block: float) -> Batch:
        """Read the log on and act; then vouch for the caches anew."""
        began = self.clock()
        batch, used = self._log.read(bus, block=block)
        self._link.accepted()
        if not used:
            return batch._replace(more=False)
        with self._lock:
            if not batch.more:
                self.read_at = max(self.read_at, began)
                self.until = max(self.until, began + self._seconds)
                self._warned = False
            self.publish()
        return batch

    def failed(self, error: SecretError) -> None:
        """Leave the bus alone for a while; after a refused credential have that read anew."""
        with self._lock:
            now = self.clock()
            self.retry_at = max(self.retry_at, now + PAUSE)
            blind = now >= self.until and not self._warned
            self._warned = self._warned or blind
            self.publish()
        if blind:
            logger.warning("This process is blind for what the fleet does: %s", error)
        if isinstance(error, BusDenied):
            self._link.refused()

    def publish(self) -> None:
        """Tell readers until when they may read on, and the cache how old a value may be."""
        with self._lock:
            now, urgent = self.clock(), self._log.next_at(urgent=self.listening)
            if now < self.until:
                self._cache.max_age = math.inf
                until = min(self.until, urgent)
            elif self._strict:
                self._cache.max_age = self._seconds
                until = -math.inf
            else:
                until = min(max(self.retry_at, now + PAUSE), urgent)
            if not self._closed:
                self._registry.serves_until = until

    @property
    def over(self) -> bool:
        """Whether it has run out: evictions may have been missed."""
        return self.clock() >= self.until

    # -- ends ------------------------------------------------------------------------------------

    def close(self) -> None:
        """Say nothing any more about what is served."""
        with self._lock:
            self._closed = True

    def after_fork(self) -> None:
        """Go on in a child with the parent's lease."""
        self.listening = False
        self.retry_at = -math.inf
        self._set_up()
