"""Prometheus metrics: the registry's events and counts, under django-prometheus' conventions.

Nothing here runs on a hit. Hits are plain integers in the cache, and events are put aside:
:meth:`Metrics.carry` brings both to Prometheus every :data:`INTERVAL` seconds, at each scrape of
the default registry and at exit.
"""

from __future__ import annotations

import atexit
import importlib.util
import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from django.conf import settings

from .events import (
    CacheSkipped,
    Event,
    Evicted,
    Fetched,
    FleetAcknowledged,
    FleetApplied,
    ProviderBuilt,
    Refreshed,
    ResidencyChecked,
    TTLDerived,
)
from .exceptions import SecretError
from .references import NO_REGION
from .residency import POLICIES
from .resolver import SecretRegistry

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

logger = logging.getLogger("django_secret_registry.metrics")

#: Seconds between two carry-overs: so much of the counts a killed worker may lose.
INTERVAL = 5.0

#: Events that may wait; of more, each that happens has two counted, so that nobody counts for long.
MOST_WAITING = 5000

#: Pairs of provider and region that get series of their own; further regions count as ``other``.
MOST_REGIONS = 200

FETCH_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
ACK_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
TTL_BUCKETS = (60, 300, 900, 1800, 3600, 7200, 14400, 28800, 43200)

BUILDS = ("cache_hit", "ok", "error")
READS = ("hit", "stale", "ok", "not_found", "denied", "unavailable", "error")
REFRESHES = ("ok", "error", "collapsed", "backed_off")
REASONS = ("operator", "capacity", "fleet", "gap")
SKIPS = ("expiring",)
DECISIONS = (
    "allowed_no_policy",
    "allowed_same_region",
    "allowed_in_allowlist",
    "violation_allowed",
    "violation_blocked",
)


def available() -> bool:
    """Whether prometheus-client is installed (the extra ``prometheus``); imports nothing."""
    return importlib.util.find_spec("prometheus_client") is not None


class Metrics:
    """The metrics of one registry. Made once per process: Prometheus refuses a name twice."""

    def __init__(self, source: SecretRegistry, registry: CollectorRegistry | None = None) -> None:
        from prometheus_client import REGISTRY, Counter, Gauge, Histogram

        self._source = source
        self._lock = threading.Lock()
        self._seen: set[tuple[str, str]] = set()
        self._series: dict[tuple[Any, ...], Any] = {}
        self._waiting: deque[Event] = deque()
        into: dict[str, Any] = {
            "namespace": getattr(settings, "PROMETHEUS_METRIC_NAMESPACE", ""),
            "subsystem": "secret_registry",
            "registry": registry or REGISTRY,
        }
        # First, so that a scrape carries the hits over before it reads the counters.
        into["registry"].register(self)
        where = ("provider", "region")
        self.builds = Counter(
            "provider_build", "Provider instances asked for.", (*where, "status"), **into
        )
        self.reads = Counter("resolve", "Secrets read.", (*where, "status"), **into)
        self.fetches = Histogram(
            "resolve_duration_seconds",
            "Time that fetches from the backend took.",
            where,
            buckets=FETCH_BUCKETS,
            **into,
        )
        self.refreshes = Counter("refresh", "Refreshes asked for.", (*where, "outcome"), **into)
        self.evictions = Counter("evict", "Secrets evicted.", (*where, "reason"), **into)
        self.residency = Counter(
            "residency_check", "Residency policies applied.", ("policy", "decision"), **into
        )
        self.ttls = Histogram(
            "dynamic_ttl_seconds",
            "TTLs derived from an issuer's expiry.",
            buckets=TTL_BUCKETS,
            **into,
        )
        self.skips = Counter("cache_skip", "Values returned and not cached.", ("reason",), **into)
        self.cached = Gauge("cached", "Secrets held.", where, multiprocess_mode="livesum", **into)
        self.stale = Gauge(
            "stale_seconds",
            "How long the stalest secret has been past its TTL.",
            where,
            multiprocess_mode="livemax",
            **into,
        )

        self.fleet_events = Counter(
            "fleet_events", "Events of the fleet's log that were read.", ("kind", "outcome"), **into
        )
        self.fleet_acks = Histogram(
            "fleet_acknowledgement_seconds",
            "Time until all workers had applied what this process told them.",
            buckets=ACK_BUCKETS,
            **into,
        )
        # Each worker counts itself: their sum is the fleet.
        self.fleet_workers = Gauge(
            "fleet_workers",
            "Workers of the fleet: live ones know what was evicted, blind ones do not.",
            ("state",),
            multiprocess_mode="livesum",
            **into,
        )
        self.fleet_lag = Gauge(
            "fleet_lag_seconds",
            "How long ago the whole log of the fleet was read.",
            multiprocess_mode="livemax",
            **into,
        )

    def collect(self) -> Iterable[Metric]:
        """Bring the counters up to date when the default registry is scraped."""
        self.carry()
        return ()

    def describe(self) -> Iterable[Metric]:
        """Say that this collector has no names of its own; Prometheus asks when it registers."""
        return ()

    def listen(self, event: Event) -> None:
        """Put one event aside: to count it takes a hundred times as long, and a reader may wait."""
        self._waiting.append(event)
        if len(self._waiting) > MOST_WAITING:
            self._count_waiting(2)

    def _count_waiting(self, most: int | None = None) -> None:
        for _ in range(len(self._waiting) if most is None else most):
            try:
                event = self._waiting.popleft()
            except IndexError:  # another thread took the last one
                return
            self._count_event(event)

    def _count_event(self, event: Event) -> None:
        where = self._where(event.provider, event.region)
        match event:
            case Fetched():
                self._one(self.fetches, *where).observe(event.seconds)
            case ResidencyChecked():
                self._one(self.residency, event.policy, event.decision).inc()
            case ProviderBuilt():
                self._one(self.builds, *where, event.status).inc()
            case Refreshed():
                self._one(self.refreshes, *where, event.outcome).inc()
            case Evicted():
                self._one(self.evictions, *where, event.reason).inc()
            case TTLDerived():
                self.ttls.observe(event.seconds)
            case CacheSkipped():
                self._one(self.skips, event.reason).inc()
            case FleetApplied():
                self._one(self.fleet_events, event.kind, event.outcome).inc()
            case FleetAcknowledged():
                self.fleet_acks.observe(event.seconds)

    def _one(self, metric: Any, *labels: str) -> Any:
        """Return one series. ``labels()`` takes a lock and thrice the time of this look-up."""
        series = self._series.get((metric, labels))
        if series is None:
            series = self._series[metric, labels] = metric.labels(*labels)
        return series

    def carry(self) -> None:
        """Add what was read since the last time to the counters, and set the gauges."""
        self.count()
        with self._lock:
            cached: dict[tuple[str, str], int] = dict.fromkeys(self._seen, 0)
            stale: dict[tuple[str, str], float] = dict.fromkeys(self._seen, 0.0)
            for info in self._source.snapshot().secrets:
                where = self._where(info.provider, info.region)
                cached[where] = cached.get(where, 0) + (info.state in HOLDING)
                stale[where] = max(stale.get(where, 0.0), info.stale_for)
            for where, count in cached.items():
                self.cached.labels(*where).set(count)
                self.stale.labels(*where).set(stale[where])

        fleet = self._source.fleet
        if fleet is not None and fleet.joined:
            self.fleet_workers.labels("live").set(not fleet.blind)
            self.fleet_workers.labels("blind").set(fleet.blind)
            self.fleet_lag.set(fleet.lag)

    def count(self) -> None:
        """Count what happened and was read since the last time; all that is owed at exit."""
        self._count_waiting()
        with self._lock:
            for (alias, region, status), count in self._source.drain().items():
                self.reads.labels(*self._where(alias, region), status).inc(count)

    def start(self) -> None:
        """Create every series at 0 and carry over in the background; once per process."""
        self.create()
        self.carry()
        threading.Thread(target=self._run, name="secret-registry-metrics", daemon=True).start()

    def create(self) -> None:
        """Create every series of the configured providers at 0, so that alerts can rely on it."""
        for where in {self._where(*configured) for configured in self._configured()}:
            for status in BUILDS:
                self.builds.labels(*where, status)
            for status in READS:
                self.reads.labels(*where, status)
            for outcome in REFRESHES:
                self.refreshes.labels(*where, outcome)
            for reason in REASONS:
                self.evictions.labels(*where, reason)
            self.fetches.labels(*where)
        for policy in POLICIES:
            for decision in DECISIONS:
                self.residency.labels(policy, decision)
        for reason in SKIPS:
            self.skips.labels(reason)

    def _run(self) -> None:
        pause = threading.Event()
        while not pause.wait(INTERVAL):
            try:
                self.carry()
            except Exception:
                logger.exception("The hit counts could not be carried over to Prometheus")

    def _configured(self) -> Iterator[tuple[str, str]]:
        config = self._source.config
        for alias, spec in config.providers.items():
            try:
                region = spec.effective_region(process=config.region)
            except SecretError:
                continue
            for name in {region, *(spec.fence.regions or ())}:
                yield alias, name

    def _where(self, alias: str, region: str) -> tuple[str, str]:
        """Return the labels; a region that comes from a user must not make series without end."""
        where = alias, region or NO_REGION
        if where not in self._seen:
            if len(self._seen) >= MOST_REGIONS:
                where = alias, "other"
            self._seen.add(where)
        return where

    def after_fork(self) -> None:
        """Take a new lock: the parent's may have been held by a thread that is not here.

        What waits in the parent is the parent's to count.
        """
        self._lock = threading.Lock()
        self._waiting.clear()


#: States in which a secret is held and served.
HOLDING = ("fresh", "due", "stale", "refused")

_metrics: Metrics | None = None
_connected: weakref.WeakSet[SecretRegistry] = weakref.WeakSet()
_making = threading.Lock()


def connect(source: SecretRegistry) -> None:
    """Begin to measure ``source``, now if Prometheus is loaded anyway, else when it starts.

    Without prometheus-client nothing happens; a check says so.
    """
    if not available() or source in _connected:
        return
    _connected.add(source)
    if "django_prometheus" in settings.INSTALLED_APPS:
        _measure(source)
    source.on_start(lambda: _measure(source).start())


def _measure(source: SecretRegistry) -> Metrics:
    global _metrics  # noqa: PLW0603 - Prometheus' registry is a global, and so is what is in it
    with _making:
        if _metrics is None:
            _metrics = Metrics(source)
            source.events.subscribe(_metrics.listen)
            atexit.register(_metrics.count)
            if hasattr(os, "register_at_fork"):
                os.register_at_fork(after_in_child=_metrics.after_fork)
        return _metrics
