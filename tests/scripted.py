"""A provider that answers as a test says, and records what was asked of it."""

from __future__ import annotations

import dataclasses
import itertools
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from django_secret_registry import BaseProvider, SecretRegistry
from django_secret_registry.exceptions import SecretError, SecretNotFound
from django_secret_registry.provider_cache import ProviderSpec
from django_secret_registry.references import SecretRef
from django_secret_registry.specs import EntrySpec, RegistryConfig
from django_secret_registry.values import SecretValue

#: Seconds after which a test that waits for another thread gives up; no test is right by waiting.
PATIENCE = 20.0


class HandClock:
    """A clock that only a test moves."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += seconds


@dataclasses.dataclass
class Script:
    """What the providers of a test answer, by name, and what they were asked.

    An answer is text or bytes, an exception to be raised, or a function of the reference that gives
    any of these or something else, which is then the provider's answer as it is.
    """

    answers: dict[str, Any] = dataclasses.field(default_factory=dict)
    on_build: Callable[[BaseProvider], object] = lambda provider: None
    builds: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    closed: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    fetched: list[SecretRef] = dataclasses.field(default_factory=list)
    batches: list[tuple[SecretRef, ...]] = dataclasses.field(default_factory=list)
    fetchers: list[threading.Thread] = dataclasses.field(default_factory=list)
    lifetime: float = 1000.0  # of a lease, in seconds
    on_release: Callable[[str], object] = lambda lease_id: None
    renewed: list[str] = dataclasses.field(default_factory=list)
    released: list[str] = dataclasses.field(default_factory=list)
    releasers: list[BaseProvider] = dataclasses.field(default_factory=list)
    _versions: Iterator[int] = dataclasses.field(default_factory=lambda: itertools.count(1))

    def answer(self, ref: SecretRef) -> Any:
        answer = self.answers.get(ref.name)
        if callable(answer):
            answer = answer(ref)
        if isinstance(answer, BaseException):
            raise answer
        if isinstance(answer, str | bytes):
            return SecretValue(answer, version=str(next(self._versions)))  # type: ignore[arg-type]
        if answer is None:
            raise SecretNotFound("there is no such secret", reference=str(ref))
        return answer


class ScriptedProvider(BaseProvider):
    """Answers from its ``script``."""

    accepts = frozenset({"project", "version", "stage"})

    def __init__(self, *, alias: str, region: str, script: Script, token: str = "") -> None:
        super().__init__(alias=alias, region=region)
        self.script = script
        self.token = token
        script.builds.append((alias, region))
        script.on_build(self)

    def fetch(self, ref: SecretRef, *, timeout: float) -> SecretValue:
        self.script.fetched.append(ref)
        self.script.fetchers.append(threading.current_thread())
        answer: SecretValue = self.script.answer(ref)
        return answer

    def close(self) -> None:
        self.script.closed.append((self.alias, self.region))


class RegionalProvider(ScriptedProvider):
    """One whose backend is regional by nature."""

    regional = True


class BatchProvider(ScriptedProvider):
    """One whose backend takes 20 references in one call."""

    batch_size = 20

    def fetch_many(
        self, refs: Sequence[SecretRef], *, timeout: float
    ) -> dict[SecretRef, SecretValue | SecretError]:
        self.script.batches.append(tuple(refs))
        answers: dict[SecretRef, SecretValue | SecretError] = {}
        for ref in refs:
            try:
                answers[ref] = self.script.answer(ref)
            except SecretError as error:
                answers[ref] = error
        return answers


class LeasingProvider(ScriptedProvider):
    """One that issues what it answers with as text, for ``lifetime`` s on its ``clock``."""

    def __init__(self, *, clock: Callable[[], float], **options: Any) -> None:
        super().__init__(**options)
        self.clock = clock

    def fetch(self, ref: SecretRef, *, timeout: float) -> SecretValue:
        value = super().fetch(ref, timeout=timeout)
        return self._lease(value, f"lease-{value.version}")

    def renew(self, ref: SecretRef, value: SecretValue, *, timeout: float) -> SecretValue:
        self.script.renewed.append(value.lease_id)
        return self._lease(value, value.lease_id)

    def release(self, ref: SecretRef, value: SecretValue, *, timeout: float) -> None:
        self.script.on_release(value.lease_id)
        self.script.released.append(value.lease_id)
        self.script.releasers.append(self)

    def _lease(self, value: SecretValue, lease_id: str) -> SecretValue:
        ends = self.clock() + self.script.lifetime
        return dataclasses.replace(value, expires_at=ends, lease_id=lease_id)


def alias(name: str, script: Script, kind: str = "ScriptedProvider", **fields: Any) -> ProviderSpec:
    """Return the specification of an alias whose provider follows ``script``."""
    options = {"script": script, **fields.pop("options", {})}
    return ProviderSpec(name, f"{__name__}.{kind}", options=options, **fields)


def entry(name: str, ref: str = "", **fields: Any) -> EntrySpec:
    """Return the specification of an entry; ``members`` are given as text."""
    members: Mapping[str, str] | None = fields.pop("members", None)
    return EntrySpec(
        name,
        ref=SecretRef.parse(ref) if ref else None,
        members={key: SecretRef.parse(text) for key, text in members.items()} if members else None,
        **fields,
    )


def config(*specs: ProviderSpec | EntrySpec, **fields: Any) -> RegistryConfig:
    """Return a configuration of these aliases and entries."""
    return RegistryConfig(
        providers={spec.alias: spec for spec in specs if isinstance(spec, ProviderSpec)},
        entries={spec.name: spec for spec in specs if isinstance(spec, EntrySpec)},
        **fields,
    )


def make(
    *specs: ProviderSpec | EntrySpec, clock: HandClock | None = None, **fields: Any
) -> SecretRegistry:
    """Return a configured registry of these aliases and entries, on a clock that stands still."""
    clock = clock or HandClock()
    registry = SecretRegistry(clock=clock, wall=clock)
    registry.configure(config(*specs, **fields))
    return registry


def at_once(function: Callable[[], Any], count: int) -> list[Any]:
    """Call ``function`` in so many threads behind a barrier; return results and errors."""
    barrier = threading.Barrier(count)
    outcomes: list[Any] = [None] * count

    def run(place: int) -> None:
        barrier.wait(PATIENCE)
        try:
            outcomes[place] = function()
        except Exception as error:
            outcomes[place] = error

    threads = [threading.Thread(target=run, args=(place,)) for place in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive(), "a thread waits for ever"
    return outcomes


@contextmanager
def running(function: Callable[[], Any]) -> Iterator[list[Any]]:
    """Run ``function`` in a thread beside the block; at its end the list has result or error."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(function())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield outcome
    finally:
        thread.join(PATIENCE)
        assert not thread.is_alive(), "a thread waits for ever"


class Gate:
    """A place at which one thread stops until the test lets it go on."""

    def __init__(self) -> None:
        self._reached, self._open = threading.Event(), threading.Event()

    def stop(self) -> None:
        self._reached.set()
        assert self._open.wait(PATIENCE), "nobody opened the gate"

    def wait(self) -> None:
        assert self._reached.wait(PATIENCE), "nobody came to the gate"

    def open(self) -> None:
        self._open.set()


def until(condition: Callable[[], bool]) -> None:
    """Wait for what other threads bring about."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it does not come about"
        time.sleep(0.001)


def threads_in(function: Callable[..., Any]) -> int:
    """Return how many threads are inside ``function`` now."""
    return sum(
        any(frame.f_code is function.__code__ for frame, _ in traceback.walk_stack(top))
        for top in sys._current_frames().values()
    )
