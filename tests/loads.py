"""A secret cache on a clock that stands still, over backends that answer as a test says."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from django_secret_registry.events import Event, Events, Fetched
from django_secret_registry.exceptions import (
    AccessDenied,
    ProviderUnavailable,
    SecretError,
    SecretNotFound,
)
from django_secret_registry.lifecycle import CachePolicy, Held, SecretInfo, SecretKey
from django_secret_registry.references import SecretRef
from django_secret_registry.secret_cache import Ask, SecretCache
from django_secret_registry.values import SecretValue
from tests.canary import canary
from tests.clock import HandClock
from tests.scripted import PATIENCE

#: Seconds of a wait that must not happen: a test in which it does fails by its ``PATIENCE``.
FOREVER = 2 * PATIENCE

#: With the default policy and a TTL of 300 s a value is due after 240 s, stale after 300 s, and
#: expired after 3,900 s.
DUE, STALE, EXPIRED = 240.0, 300.0, 3900.0
#: The longest backoff.
MINUTE = 60.0

Answer = SecretValue | SecretError
Kind = TypeVar("Kind", bound=Event)


class Told:
    """A listener that keeps the events and lets a test wait for one that is to come."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._came = threading.Condition()

    def __call__(self, event: Event) -> None:
        with self._came:
            self._events.append(event)
            self._came.notify_all()

    def of(self, kind: type[Kind]) -> list[Kind]:
        with self._came:
            return [event for event in self._events if isinstance(event, kind)]

    def forget(self) -> None:
        with self._came:
            self._events.clear()

    def wait(self, kind: type[Event], count: int) -> None:
        with self._came:
            assert self._came.wait_for(lambda: len(self.of(kind)) >= count, PATIENCE), (
                f"no {count} events of {kind.__name__} came"
            )


class Loads:
    """The ``load`` of a cache. An answer that is a function is called, and may stop at a gate."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer | Callable[[], Answer]] = {}
        self.calls: list[tuple[str, ...]] = []
        self.threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    def __call__(self, refs: Mapping[SecretKey, SecretRef]) -> Mapping[SecretKey, Answer]:
        with self._lock:
            self.calls.append(tuple(key.name for key in refs))
            self.threads.append(threading.current_thread())
        return {key: self._answer(key.name) for key in refs}

    def _answer(self, name: str) -> Answer:
        answer = self.answers.get(name, SecretNotFound("no such secret"))
        return answer() if callable(answer) else answer


class Bench:
    """A cache and everything around it. Reads are by name; the jitter is off unless asked for."""

    def __init__(self, *, load: Any = None, **policy: Any) -> None:
        self.clock, self.wall = HandClock(), HandClock(1_700_000_000.0)
        self.loads, self.told, events = Loads(), Told(), Events()
        events.subscribe(self.told)
        self.cache = SecretCache(
            CachePolicy(**{"jitter": 0.0, **policy}),
            load or self.loads,
            events=events,
            clock=self.clock,
            wall=self.wall,
        )

    @property
    def calls(self) -> int:
        return len(self.loads.calls)

    def answer(self, name: str, answer: str | Answer | Callable[[], Answer], **fields: Any) -> None:
        """Let the backend answer so from now on; text is the version of a value."""
        self.loads.answers[name] = value(answer, **fields) if isinstance(answer, str) else answer

    def ask(
        self,
        name: str = "db",
        *,
        alias: str = "t",
        version: str = "",
        ttl: float = 300.0,
        pinned: bool = False,
    ) -> Ask:
        key = SecretKey(alias, "eu", "", name, version, "")
        return Ask(key, SecretRef(scheme=alias, name=name, version=version), ttl, pinned)

    def hold(self, name: str = "db", **fields: Any) -> Held:
        return self.cache.read(self.ask(name, **fields))

    def read(self, name: str = "db", **fields: Any) -> str:
        """Return the version that a read gives."""
        return version(self.hold(name, **fields))

    def refresh(self, name: str = "db", **fields: Any) -> str:
        return version(self.cache.refresh(self.ask(name), **fields))

    def publish(self, name: str = "db", text: str = "", held: Held | None = None) -> Held:
        """Do what the registry does after a read: let hits on ``text`` have the value."""
        held = held or self.hold(name)
        assert isinstance(held.answer, SecretValue)
        self.cache.publish(text or name, held.answer.value, {self.ask(name).key: held})
        return held

    def hit(self, text: str = "db") -> object | None:
        """Do what the registry does on a hit; ``None`` is a miss."""
        slot = self.cache.slots.get(text)
        if slot is None or self.clock() >= slot.until:
            return None
        slot.hits += 1
        return slot.value

    def forward(self, seconds: float) -> None:
        self.clock.forward(seconds)
        self.wall.forward(seconds)

    def landed(self, count: int) -> None:
        """Wait until so many fetches have ended and were told."""
        self.told.wait(Fetched, count)

    def evict(self, name: str = "db") -> list[SecretKey]:
        return self.cache.evict(lambda key: key.name == name, reason="operator")

    def info(self, name: str = "db") -> SecretInfo:
        (info,) = (info for info in self.cache.snapshot() if info.key.name == name)
        return info

    def state(self, name: str = "db") -> str:
        return self.info(name).state

    def counts(self) -> Counter[str]:
        """Return the counted reads since the last call, by status."""
        counts: Counter[str] = Counter()
        for (_, _, status), count in self.cache.drain().items():
            counts[status] += count
        return counts


def value(version: str = "1", **fields: Any) -> SecretValue:
    return SecretValue(canary(f"value-{version}"), version=version, **fields)  # type: ignore[arg-type]


def version(held: Held) -> str:
    assert isinstance(held.answer, SecretValue)
    assert held.answer.version is not None
    return held.answer.version


def missing_but_db(refs: Mapping[SecretKey, SecretRef]) -> Mapping[SecretKey, Answer]:
    """Answer as a backend that has one secret, ``db``."""
    return {key: value() if key.name == "db" else SecretNotFound("none") for key in refs}


def down() -> ProviderUnavailable:
    """Answer as a backend that cannot be reached."""
    return ProviderUnavailable("no route to the backend")


def denied() -> AccessDenied:
    """Answer as a backend that refuses this process."""
    return AccessDenied("not for this process")


def missing() -> SecretNotFound:
    """Answer as a backend that has no such secret."""
    return SecretNotFound("no such secret")


class Witness:
    """Lives as long as whatever holds it; a weak reference tells."""
