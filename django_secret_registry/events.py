"""What the core tells: frozen event objects, and the hub that hands them to whoever listens.

Metrics, signals, the audit log and the bus subscribe; the core never knows who they are. Events are
told outside every lock, in the thread in which they happened. None carries a value. Each has the
``provider`` (the alias) and the effective ``region`` (``""``: none) in which it happened.

They are named tuples because those are made in a seventh of a dataclass's time, and these classes
are made whenever a process starts; for the same reason their annotations are no strings, which
``typing`` would compile.
"""

import logging
import threading
from collections.abc import Callable
from typing import NamedTuple

logger = logging.getLogger("django_secret_registry.events")


class ProviderBuilt(NamedTuple):
    """A provider instance was asked for. ``status``: ``cache_hit``, ``ok`` or ``error``."""

    provider: str
    region: str
    status: str
    seconds: float = 0.0


class FetchSubmitted(NamedTuple):
    """A call to the backend is handed to its pool, by the thread that asks. ``call``: its number.

    ``FetchStarted`` follows in a thread of the pool, with the same number.
    """

    provider: str
    region: str
    call: int


class FetchStarted(NamedTuple):
    """The backend is called for ``references``; ``Fetched`` for each follows in the same thread.

    There are none when those who asked have given up meanwhile.
    """

    provider: str
    region: str
    references: tuple[str, ...]
    call: int


class Fetched(NamedTuple):
    """A fetch from the backend ended after ``seconds``; ``status`` as in ``resolve_total``."""

    provider: str
    region: str
    reference: str
    status: str
    seconds: float


class Refreshed(NamedTuple):
    """A refresh was asked for. ``outcome``: ``ok``, ``error``, ``collapsed`` or ``backed_off``."""

    provider: str
    region: str
    reference: str
    outcome: str


class Rotated(NamedTuple):
    """The version of a held secret changed. A version is ``None`` where the backend has none."""

    provider: str
    region: str
    reference: str
    old_version: str | None
    new_version: str | None


class Evicted(NamedTuple):
    """A secret left the cache. ``reason``: ``operator``, ``fleet`` (``by`` whom), ``gap`` (in the
    fleet's log, in ``strict``) or ``capacity``.
    """

    provider: str
    region: str
    reference: str
    reason: str
    by: str = ""


class ResidencyChecked(NamedTuple):
    """A residency policy was applied; policy and decision are the words of the contract."""

    provider: str
    region: str
    reference: str
    policy: str
    decision: str


class TTLDerived(NamedTuple):
    """A TTL of ``seconds`` was derived from the issuer's ``expires_at``."""

    provider: str
    region: str
    seconds: float


class CacheSkipped(NamedTuple):
    """A fetched value was returned and not cached. ``reason``: ``expiring``."""

    provider: str
    region: str
    reason: str


class FleetApplied(NamedTuple):
    """An event of the fleet's log was read. ``kind``: what it asks for, ``gap`` or ``unreadable``.

    ``outcome``: ``applied``, ``collapsed`` (an equal one was acted on within the second: soon once
    more), ``own`` or ``ignored``.
    """

    provider: str
    region: str
    kind: str
    outcome: str


class FleetAcknowledged(NamedTuple):
    """All workers applied what this process had told the fleet, after ``seconds``."""

    provider: str
    region: str
    seconds: float


#: Any of the events above.
Event = (
    ProviderBuilt
    | FetchSubmitted
    | FetchStarted
    | Fetched
    | Refreshed
    | Rotated
    | Evicted
    | ResidencyChecked
    | TTLDerived
    | CacheSkipped
    | FleetApplied
    | FleetAcknowledged
)

Listener = Callable[[Event], None]


class Events:
    """Hands each event to every listener, in the order of subscription.

    Thread-safe: the listeners are a tuple that is replaced as a whole, and read without the lock.
    A listener that raises is logged and skipped, so that a broken metric cannot fail a read.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: tuple[Listener, ...] = ()

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Add ``listener`` (once, however often it is added); return a function that removes it.

        It must be quick and read no secret: it may run in the thread that fetches that secret.
        """
        with self._lock:
            if listener not in self._listeners:
                self._listeners = (*self._listeners, listener)
        return lambda: self.unsubscribe(listener)

    def unsubscribe(self, listener: Listener) -> None:
        """Remove ``listener``; nothing happens when it is not there."""
        with self._lock:
            self._listeners = tuple(known for known in self._listeners if known != listener)

    def tell(self, event: Event) -> None:
        """Call every listener with ``event``; never raises."""
        for listener in self._listeners:
            try:
                listener(event)
            except Exception as exc:
                # The type only: a listener that reads the new value may have it in its message.
                logger.error(
                    "A listener of %s failed with %s", type(event).__name__, type(exc).__name__
                )
