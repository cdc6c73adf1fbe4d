"""Readers, rotations, evictions and faults at random, for a while: every value was right once.

For some seconds among the other tests; ``tox run -e soak`` soaks for a minute.
"""

from __future__ import annotations

import os
import random
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from django_secret_registry import SecretRegistry, pool
from django_secret_registry.backends import THREADS
from django_secret_registry.clock import steady
from django_secret_registry.exceptions import (
    AccessDenied,
    ProviderError,
    ProviderUnavailable,
    SecretError,
)
from django_secret_registry.lifecycle import CachePolicy
from django_secret_registry.provider_cache import ProviderSpec
from django_secret_registry.specs import RegistryConfig
from tests.canary import CANARY, canary
from tests.fixtures import aws
from tests.scripted import PATIENCE, until
from tests.servers.aws import REGION, AWSServer
from tests.servers.proxy import Proxy

aws_session, aws_server = aws.aws_session, aws.aws_server

SECONDS = float(os.environ.get("SECRET_REGISTRY_SOAK", "8"))
READERS = 8
NAMES = [f"prod/{number}" for number in range(6)]
POLICY = CachePolicy(
    ttl=1, jitter=0.1, max_stale=2, negative_ttl=0.2, soft_timeout=0.05, fetch_timeout=1
)
#: Seconds after its fetch at which no value may be served any more.
BOUND = POLICY.ttl * (1 + POLICY.jitter) + POLICY.max_stale
#: What the faults may be told as.
EXPECTED = (ProviderUnavailable, AccessDenied, ProviderError)
OPERATIONS = ("GetSecretValue", "BatchGetSecretValue")


class Span(NamedTuple):
    """When something happened: somewhere between these two times."""

    begun: float
    ended: float


class History:
    """What was current at the upstream and when, and when it was evicted here."""

    def __init__(self, server: AWSServer) -> None:
        self._server = server
        self._lock = threading.Lock()
        self._puts: dict[str, list[Span]] = {name: [] for name in NAMES}
        self._versions: dict[str, str] = {}
        self._evictions: dict[str, list[Span]] = defaultdict(list)

    def rotate(self, name: str) -> None:
        number = len(self._puts[name])  # one thread rotates
        value, begun = canary(f"{name}:{number}"), steady()
        if number:
            version = self._server.put(name, value)
        else:
            version = self._server.create(name, value)["VersionId"]
        with self._lock:
            self._puts[name].append(Span(begun, steady()))
            self._versions[value] = version

    def current(self, name: str) -> str:
        return canary(f"{name}:{len(self._puts[name]) - 1}")

    def evicted(self, names: list[str], span: Span) -> None:
        with self._lock:
            for name in names:
                self._evictions[name].append(span)

    def complaint(self, name: str, value: str, version: str | None, read: Span) -> str:
        """Return what is wrong with a value that was read, "" if nothing is."""
        owner, _, number = value.removeprefix(f"{CANARY}-").rpartition(":")
        if owner != name:
            return f"{name} got the value of {owner}"
        with self._lock:
            if version is not None and self._versions.get(value, version) != version:
                return f"{name} got version {version} with the value of another"
            later = self._puts[name][int(number) + 1 :]
            evictions = list(self._evictions[name])
        if not later:
            return ""
        replaced = later[0].ended  # its fetch began before that
        if read.begun > replaced + BOUND:
            return f"{name}: {read.begun - replaced:.3f} s after it was replaced"
        if any(replaced < gone.begun and gone.ended < read.begun for gone in evictions):
            return f"{name} came back after it was evicted"
        return ""


class Soak:
    """The threads, and what they saw."""

    def __init__(self, registry: SecretRegistry, server: AWSServer, proxy: Proxy) -> None:
        self.registry, self.server, self.proxy = registry, server, proxy
        self.history = History(server)
        self.over = threading.Event()
        self.seen: Counter[str] = Counter()
        self.complaints: list[str] = []
        self.most_threads = 0
        for name in NAMES:
            self.history.rotate(name)

    def run(self) -> None:
        work = [self.read] * READERS + [self.rotate, self.evict, self.fail]
        threads = [
            threading.Thread(target=self.guarded, args=(function, random.Random(random.random())))
            for function in work
        ]
        for thread in threads:
            thread.start()
        self.over.wait(SECONDS)
        self.over.set()
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a thread hangs"

    def guarded(self, function: Callable[[random.Random], None], rng: random.Random) -> None:
        try:
            function(rng)
        except Exception as error:
            self.complaints.append(f"{function.__name__}: {type(error).__name__}: {error}")
            self.over.set()

    def read(self, rng: random.Random) -> None:
        while not self.over.wait(rng.uniform(0, 0.01)):
            name, begun = rng.choice(NAMES), steady()
            version = None
            try:
                if rng.random() < 0.2:
                    found = self.registry.fetch(f"aws://{name}")
                    value, version = str.__str__(found.value), found.version
                else:
                    value = str.__str__(self.registry.get(f"aws://{name}"))
            except EXPECTED as error:
                self.seen[type(error).__name__] += 1
                continue
            self.seen["values"] += 1
            complaint = self.history.complaint(name, value, version, Span(begun, steady()))
            if complaint:
                self.complaints.append(complaint)

    def rotate(self, rng: random.Random) -> None:
        while not self.over.wait(rng.uniform(0.05, 0.3)):
            self.history.rotate(rng.choice(NAMES))
            self.seen["rotations"] += 1

    def evict(self, rng: random.Random) -> None:
        """Do what operators do: evict a secret, a client, everything; refresh, warm."""
        while not self.over.wait(rng.uniform(0.02, 0.3)):
            self.most_threads = max(self.most_threads, len(pool_threads()))
            name, begun = rng.choice(NAMES), steady()
            chance = rng.random()
            if chance < 0.3:
                self.registry.evict(f"aws://{name}")
                self.history.evicted([name], Span(begun, steady()))
            elif chance < 0.4:
                self.registry.evict(provider="aws")
                self.history.evicted(NAMES, Span(begun, steady()))
            elif chance < 0.5:
                self.registry.evict(all=True)
                self.history.evicted(NAMES, Span(begun, steady()))
            elif chance < 0.7:
                self.registry.warm([f"aws://{name}" for name in NAMES])
            else:
                try:
                    self.registry.refresh(f"aws://{name}")
                except EXPECTED:
                    self.seen["refused refreshes"] += 1

    def fail(self, rng: random.Random) -> None:
        """Have one fault after the other, with pauses that let the backend come back."""
        server, proxy = self.server, self.proxy
        garbage = f'{{"SecretString": "{canary("half")}'.encode()
        faults: list[Callable[[], object]] = [
            lambda: server.fail(400, "ThrottlingException", "Rate exceeded", *OPERATIONS),
            lambda: server.fail(500, "InternalServiceError", "", *OPERATIONS),
            lambda: server.fail(400, "AccessDeniedException", "", *OPERATIONS),
            lambda: server.answer(200, garbage, *OPERATIONS),
            lambda: server.cut(*OPERATIONS),
            lambda: server.hang(*OPERATIONS),
            lambda: proxy.reset(CANARY.encode()),
            lambda: proxy.drip(CANARY.encode()),
            proxy.refuse,
        ]
        while not self.over.wait(rng.uniform(0.3, 1.5)):
            rng.choice(faults)()
            self.seen["faults"] += 1
            self.over.wait(rng.uniform(0.05, 0.5))
            server.heal()
            proxy.heal()


def pool_threads() -> list[threading.Thread]:
    """Return the threads in which this test's registry fetches."""
    name = f"secret-registry-aws-{REGION}"
    return [thread for thread in threading.enumerate() if thread.name == name]


@pytest.fixture
def proxy(aws_server: AWSServer) -> Iterator[Proxy]:
    proxy = Proxy("127.0.0.1", urlsplit(aws_server.url).port or 0)
    yield proxy
    proxy.stop()


@pytest.mark.full
def test_soak(aws_server: AWSServer, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Amid faults, rotations and evictions no value is wrong or too old, and nothing leaks."""
    monkeypatch.setattr(pool, "IDLE", 0.5)
    until(lambda: not pool_threads())
    options: dict[str, Any] = aws_server.options(endpoint_url=f"http://127.0.0.1:{proxy.port}")
    backend = "django_secret_registry.providers.aws.SecretsManagerProvider"
    spec = ProviderSpec("aws", backend, region=REGION, options=options)
    registry = SecretRegistry()
    registry.configure(RegistryConfig(providers={"aws": spec}, cache=POLICY))
    soak = Soak(registry, aws_server, proxy)
    soak.run()
    assert soak.complaints == []
    assert soak.most_threads <= THREADS
    assert all(soak.seen[what] for what in ("values", "rotations", "faults")), soak.seen

    def is_current(name: str) -> bool:
        """Whether the last value arrives, now that all is well."""
        try:
            registry.refresh(f"aws://{name}")
        except SecretError:
            return False
        return bool(registry.get(f"aws://{name}") == soak.history.current(name))

    for name in NAMES:
        until(lambda name=name: is_current(name))  # type: ignore[misc]
    assert len(registry.snapshot().secrets) == len(NAMES)
    registry.close()
    until(lambda: not pool_threads())
    until(lambda: proxy.open == 0)
