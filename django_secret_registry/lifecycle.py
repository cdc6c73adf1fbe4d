"""The life of one cached secret, as plain data: its policy, its thresholds, its states.

::

    absent → loading → fresh → due → stale → expired
                     ↘ refused (a confirmed "not found")

Nothing here locks, waits or fetches; :mod:`.secret_cache` moves cells through these states.
"""

# Annotations are evaluated here, which takes less time at start-up: see events.py.
import math
from collections import deque
from collections.abc import Hashable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NamedTuple

from .exceptions import (
    AccessDenied,
    ProviderUnavailable,
    ResidencyViolation,
    SecretError,
    SecretNotFound,
)
from .references import SecretRef
from .values import SecretValue

if TYPE_CHECKING:
    from .backends import Backend


class CachePolicy(NamedTuple):
    """The ``CACHE`` setting, in seconds; ``jitter`` and ``refresh_ahead`` are parts of the TTL."""

    ttl: float = 300.0
    jitter: float = 0.1
    refresh_ahead: float = 0.8
    max_stale: float = 3600.0
    negative_ttl: float = 5.0
    soft_timeout: float = 0.25
    fetch_timeout: float = 10.0
    safety_margin: float = 60.0
    max_entries: int = 10_000


class SecretKey(NamedTuple):
    """What one cached secret is kept under: everything that selects a payload at a backend."""

    alias: str
    region: str
    project: str
    name: str
    version: str
    stage: str

    def within(self, wanted: "SecretKey") -> bool:
        """Whether an eviction of ``wanted`` means this key: all versions unless it names one."""
        unversioned = not (wanted.version or wanted.stage)
        return self[:4] == wanted[:4] and (unversioned or self == wanted)


class Held(NamedTuple):
    """What a fetch brought, and until when it serves. Published by one reference swap.

    ``answer`` is a value or a confirmed "not found". All times are readings of the cache's clock:
    served as it is until ``due``, with a refresh in the background until ``stale``, then with a
    bounded wait until ``ends``. ``cached`` is false for a value that is handed to those who waited
    for it and to nobody else.
    """

    answer: SecretValue | SecretNotFound
    fetched: float
    due: float
    stale: float
    ends: float
    cached: bool
    #: What ``.map`` made of the value, by ``Derived``.
    made: dict[Hashable, Any]

    @property
    def refused(self) -> bool:
        """Whether the backend confirmed that there is no such secret."""
        return isinstance(self.answer, SecretNotFound)

    def status(self, now: float) -> str:
        """Return the word under which ``secret_registry_resolve_total`` counts a read of it."""
        if self.refused:
            return "not_found"
        return "hit" if now < self.stale else "stale"


#: What a fetch comes to: an answer with its life, or an error.
Outcome = Held | SecretError


class SecretInfo(NamedTuple):
    """What can be seen of one cached secret. Ages and spans in seconds; ``None``: does not apply.

    ``due_in`` is the time to the next refresh, ``ends_in`` to the end of service even in an outage;
    ``fetched_at``, ``expires_at`` and ``evicted_at`` (the last eviction, before what is held now)
    are POSIX seconds; ``attempts`` counts failures in a row; ``used_by`` are the places in settings
    and ``SECRETS`` that name it.
    """

    reference: str
    key: SecretKey
    version: str | None
    state: str
    age: float | None
    ttl: float | None
    due_in: float | None
    ends_in: float | None
    stale_for: float
    fetched_at: float | None
    expires_at: float | None
    retry_in: float | None
    hits: int
    attempts: int
    last_error: str
    last_status: str
    pinned: bool
    evicted_at: float | None = None
    evicted_by: str = ""
    used_by: tuple[str, ...] = ()

    @property
    def provider(self) -> str:
        """The alias."""
        return self.key.alias

    @property
    def region(self) -> str:
        """The effective region, ``""`` for none."""
        return self.key.region


class Eviction(NamedTuple):
    """What is remembered of an eviction: when (POSIX seconds), by whom, the version it ended."""

    at: float
    by: str
    version: str | None


class Slot:
    """What a hit needs and nothing else: a finished value, its time limit and a counter.

    One slot belongs to one text of a reference (or one ``Derived``). A reader compares ``until``
    with the clock, counts, and takes ``value``; no lock: in CPython with a GIL ``hits += 1`` has no
    point at which threads switch. A slot is replaced, never changed; whoever reads it then may
    still count. When the last of them has let go it tells ``ended`` what nobody has collected, and
    so neither a count is lost nor a value kept for its sake.
    """

    __slots__ = ("counted", "ended", "hits", "sources", "until", "value")

    def __init__(
        self,
        value: object,
        until: float,
        sources: Sequence[tuple["Cell", str]],
        ended: deque[tuple[SecretKey, str, int]],
    ) -> None:
        self.value = value
        self.until = until
        self.hits = 0
        self.counted = 0  # how many of the hits were carried over into the metrics
        #: The cells that the value was made from, each with the status that a hit counts as.
        self.sources = sources
        self.ended = ended

    def take_new(self) -> list[tuple[SecretKey, str, int]]:
        """Return what the hits since the last call count as; the cells have been read then."""
        new = self.hits - self.counted
        if not new:
            return []
        self.counted += new
        for cell, _ in self.sources:
            cell.hits += new
            cell.visited = True
        return [(cell.key, status, new) for cell, status in self.sources]

    def __del__(self) -> None:
        # In any thread, which may hold any lock: to extend a deque needs none.
        self.ended.extend(self.take_new())


class Flight:
    """One fetch of one key in progress.

    ``landed`` is done when ``outcome`` is there; flights of one call share it. Without an outcome
    then the flight was given up before its turn came. ``renews`` is a value whose lease may be
    prolonged instead; ``None``: a new one is wanted. One that is ``overtaken`` by another is made
    for those who wait for it, and counts for nothing else.
    """

    __slots__ = (
        "backend", "cell", "deadline", "landed", "launched", "outcome", "overtaken", "renews",
        "serial",
    )  # fmt: skip

    def __init__(
        self,
        cell: "Cell",
        backend: "Backend",
        *,
        serial: int,
        launched: float,
        deadline: float,
        landed: Future[None],
        renews: SecretValue | None = None,
    ) -> None:
        self.cell = cell
        self.backend = backend
        self.serial = serial
        self.launched = launched
        self.deadline = deadline
        self.landed = landed
        self.renews = renews
        self.overtaken = False
        self.outcome: Outcome | None = None


class Cell:
    """The place of one key in the cache; guarded by the cache's lock.

    An eviction takes the cell out of the cache. A fetch that is still under way then lands in a
    cell that nobody reads any more: that is the generation guard.
    """

    __slots__ = (
        "attempts", "flight", "held", "hits", "jitter", "key", "last_error", "pinned", "ref",
        "reference", "refusals", "retry_at", "slots", "ttl", "visited",
    )  # fmt: skip

    def __init__(self, key: SecretKey, ref: SecretRef, *, jitter: float) -> None:
        self.key = key
        self.ref = ref
        self.reference = str(ref)
        self.jitter = jitter  # a factor of the TTL, drawn once per cell
        self.ttl = math.inf  # the smallest that was asked for
        self.held: Held | None = None
        self.flight: Flight | None = None
        self.attempts = 0  # failed ones since the last answer
        self.retry_at = -math.inf  # the key's own backoff; an outage counts with the backend
        self.refusals = 0  # "not found" in a row
        self.last_error: SecretError | None = None
        self.slots: dict[Hashable, Slot] = {}
        self.hits = 0
        self.pinned = False
        self.visited = False

    @property
    def worth_keeping(self) -> bool:
        """Whether it holds a value; a confirmed "not found" is none."""
        return self.held is not None and not self.held.refused

    def hold(self, held: Held) -> None:
        """Take an answer in; one that is not to be cached only ends what was known before."""
        self.held = held if held.cached else None
        self.attempts = 0
        self.retry_at = -math.inf
        self.last_error = None
        self.refusals = self.refusals + 1 if held.refused else 0
        if isinstance(held.answer, SecretNotFound):
            self.last_error = held.answer

    def lease(self, now: float) -> SecretValue | None:
        """Return the value that is held, if it has a lease that has not ended."""
        answer = self.held.answer if self.held is not None and now < self.held.ends else None
        return answer if isinstance(answer, SecretValue) and answer.lease_id else None

    def fail(self, error: SecretError, retry_at: float) -> None:
        """Note a failed attempt; what is held stays. The stored error keeps no frame alive."""
        self.attempts += 1
        self.retry_at = retry_at
        self.last_error = error.copy()

    def state(self, now: float) -> str:
        """Return the state's word, as the design has it."""
        held = self.held
        if held is None or now >= held.ends:
            if self.flight is not None:
                return "loading"
            return "absent" if held is None else "expired"
        if held.refused:
            return "refused"
        if now < held.due:
            return "fresh"
        return "due" if now < held.stale else "stale"

    def info(
        self,
        now: float,
        retry_at: float,
        evicted: Eviction | None = None,
        used_by: tuple[str, ...] = (),
    ) -> SecretInfo:
        """Return what may be shown of the cell."""
        held = self.held
        value = held.answer if held is not None and isinstance(held.answer, SecretValue) else None
        error = self.last_error
        return SecretInfo(
            reference=self.reference,
            key=self.key,
            version=value.version if value else None,
            state=self.state(now),
            age=now - held.fetched if held else None,
            ttl=held.stale - held.fetched if held else None,
            due_in=held.due - now if held else None,
            ends_in=held.ends - now if held and held.ends < math.inf else None,
            stale_for=max(0.0, now - held.stale) if held and value else 0.0,
            fetched_at=value.fetched_at if value else None,
            expires_at=value.expires_at if value else None,
            retry_in=retry_at - now if self.attempts and retry_at > now else None,
            hits=self.hits,
            attempts=self.attempts,
            last_error=str(error) if error else "",
            last_status=status_of(error) if error else "",
            pinned=self.pinned,
            evicted_at=evicted.at if evicted else None,
            evicted_by=evicted.by if evicted else "",
            used_by=used_by,
        )


def hold_value(
    value: SecretValue, policy: CachePolicy, *, ttl: float, fetched: float, now: float, wall: float
) -> Held:
    """Return the life of a value that a fetch begun at ``fetched`` brought.

    ``ttl`` is already jittered. A value with ``expires_at`` lives ``min(ttl, remaining − margin)``,
    the margin ``min(safety_margin, 20 % of the lifetime)``, and is never served past
    ``expires_at``; one that is within its margin is not cached.
    """
    ends, cached = math.inf, True
    if value.expires_at is not None:
        ends = now + (value.expires_at - wall)
        margin = min(policy.safety_margin, 0.2 * (ends - fetched))
        ttl = min(ttl, ends - margin - fetched)
        cached = now < ends - margin
    due, stale = fetched + ttl * policy.refresh_ahead, fetched + ttl
    return Held(value, fetched, due, stale, min(stale + policy.max_stale, ends), cached, {})


def hold_refusal(
    error: SecretNotFound, policy: CachePolicy, *, ttl: float, refusals: int, fetched: float
) -> Held:
    """Return the life of a "not found" that was confirmed ``refusals`` times in a row.

    It stands for ``negative_ttl``, doubling up to ``ttl``; then readers get it at once while it is
    confirmed in the background, for as long again, and after that they wait for the answer as with
    a stale value. It never ends by itself: an outage is no reason to believe that the
    secret exists.
    """
    span = min(policy.negative_ttl * 2 ** min(refusals - 1, 32), max(ttl, policy.negative_ttl))
    return Held(error.copy(), fetched, fetched + span, fetched + 2 * span, math.inf, True, {})


def status_of(error: SecretError) -> str:
    """Return the word under which ``secret_registry_resolve_total`` counts an error."""
    if isinstance(error, SecretNotFound):
        return "not_found"
    if isinstance(error, AccessDenied | ResidencyViolation):
        return "denied"
    return "unavailable" if isinstance(error, ProviderUnavailable) else "error"
