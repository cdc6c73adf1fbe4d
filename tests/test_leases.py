"""Leases: renewed while they are held, given back when they are forgotten, never by a child."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from django_secret_registry import resolving
from django_secret_registry.exceptions import AccessDenied, ProviderUnavailable
from django_secret_registry.lifecycle import CachePolicy
from django_secret_registry.probing import in_child
from django_secret_registry.resolver import SecretRegistry
from django_secret_registry.values import SecretValue
from tests.canary import canary
from tests.scripted import (
    Gate,
    HandClock,
    Script,
    alias,
    at_once,
    config,
    make,
    running,
    until,
)

POLICY = CachePolicy(ttl=300, jitter=0)
#: When a value of that policy is due: seconds after it was fetched.
DUE = 250.0


class World:
    """A registry whose provider ``a`` issues leases."""

    def __init__(self, **policy: Any) -> None:
        self.clock = HandClock()
        self.script = Script({name: canary(name) for name in ("db", "mq", "cache")})
        self.policy = CachePolicy(**{"ttl": 300, "jitter": 0, **policy})
        self.registry = make(clock=self.clock)
        self.configure()

    def configure(self) -> None:
        options = {"clock": self.clock}
        spec = alias("a", self.script, "LeasingProvider", options=options)
        self.registry.configure(config(spec, cache=self.policy))

    def version(self, ref: str = "a://db") -> str | None:
        return self.registry.fetch(ref).version

    def released(self, *leases: str) -> None:
        """Wait until exactly these leases were given back, in any order."""
        until(lambda: len(self.script.released) >= len(leases))
        assert sorted(self.script.released) == sorted(leases)


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.registry.close()


def test_renewed_while_in_use(world: World) -> None:
    """A value that is due is renewed with the lease that it has, and stays the same version."""
    assert world.version() == "1"
    for count in range(1, 4):
        world.clock.forward(DUE)
        assert world.version() == "1"
        until(lambda count=count: len(world.script.renewed) == count)
        until(lambda: world.registry.snapshot().secrets[0].state == "fresh")
    assert world.script.renewed == ["lease-1"] * 3
    assert len(world.script.fetched) == 1
    assert world.registry.fetch("a://db").expires_at == world.clock() + 1000


def test_refresh_gives_another(world: World) -> None:
    """A refresh that is asked for brings new credentials; the old ones are left to their users."""
    world.version()
    world.registry.refresh("a://db")
    assert world.version() == "2"
    assert world.script.renewed == []
    assert world.script.released == []


def test_refresh_waits_for_no_renewal(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A renewal that begins while a refresh is asked for is not taken for the refresh."""
    world.version()
    world.clock.forward(DUE)
    fetches = world.registry._resolver.cache._fetches
    launch, read = fetches.launch, []

    def read_first(*arguments: Any, **options: Any) -> Any:
        if not read:  # the lock is reentrant: this read begins the renewal just before the launch
            read.append(True)
            world.version()
        return launch(*arguments, **options)

    monkeypatch.setattr(fetches, "launch", read_first)
    world.registry.refresh("a://db")
    assert world.version() == "2"


def test_ended_is_fetched(world: World) -> None:
    """A lease that has ended is not renewed."""
    world.version()
    world.clock.forward(1001)
    assert world.version() == "2"
    assert world.script.renewed == []


def test_warming_renews(world: World) -> None:
    """A warm-up renews what is due, beside what it fetches."""
    world.version()
    world.clock.forward(DUE)
    results = world.registry.warm(["a://db", "a://mq"])
    assert [result.outcome for result in results] == ["ok", "ok"]
    assert world.script.renewed == ["lease-1"]
    assert world.version() == "1"


def test_failed_renewal_keeps_the_value(world: World) -> None:
    """While renewals fail the value serves on, until its lease ends and not a moment longer."""
    world.version()

    def renew(self: object, ref: object, value: object, *, timeout: float) -> SecretValue:
        raise ProviderUnavailable("no answer")

    provider: Any = world.registry.get_provider("a")
    provider.renew = renew.__get__(provider)
    world.script.answers["db"] = ProviderUnavailable("no answer")
    world.clock.forward(999)
    assert world.version() == "1"
    world.clock.forward(2)
    with pytest.raises(ProviderUnavailable):
        world.version()


def test_eviction_gives_back(world: World) -> None:
    """An eviction gives back the lease, once, in another thread; the next read has a new one."""
    threads: list[threading.Thread] = []
    world.script.on_release = lambda lease_id: threads.append(threading.current_thread())
    world.version()
    assert world.registry.evict("a://db") == 1
    world.released("lease-1")
    assert threads[0] is not threading.current_thread()
    assert world.version() == "2"
    assert world.registry.evict("a://mq") == 0
    assert world.script.released == ["lease-1"]


def test_eviction_waits_for_nobody(world: World) -> None:
    """Nobody waits for a lease that is given back: not who evicts, and no reader."""
    gate = Gate()
    world.script.on_release = lambda lease_id: gate.stop()
    world.version()
    world.registry.evict("a://db")
    gate.wait()
    assert world.version() == "2"
    assert world.version("a://mq") == "3"
    gate.open()
    world.released("lease-1")


def test_all_leases_of_a_key(world: World) -> None:
    """With a key go the leases of values that were replaced before."""
    world.version()
    world.registry.refresh("a://db")
    world.registry.refresh("a://db")
    world.version("a://mq")
    world.registry.evict("a://db")
    world.released("lease-1", "lease-2", "lease-3")


def test_ended_leases_are_forgotten(world: World) -> None:
    """A lease that has ended by itself is not given back."""
    world.version()
    world.clock.forward(1001)
    world.version()
    world.registry.evict("a://db")
    world.released("lease-2")


def test_lease_that_comes_too_late(world: World) -> None:
    """What arrives after its eviction serves who waited, and is given back at the end."""
    gate = Gate()

    def slowly(ref: object) -> str:
        gate.stop()
        return canary("db")

    world.script.answers["db"] = slowly
    with running(world.version) as outcome:
        gate.wait()
        world.registry.evict("a://db")
        gate.open()
    assert outcome == ["1"]
    assert world.script.released == []
    world.registry.close()
    assert world.script.released == ["lease-1"]


def test_capacity_gives_back() -> None:
    """What leaves the cache for want of room is given back, too."""
    world = World(max_entries=2)
    for name in ("db", "mq", "cache"):
        world.version(f"a://{name}")
    world.released("lease-1")
    world.registry.close()


def test_client_that_is_evicted(world: World) -> None:
    """With a client go the leases of what it fetched."""
    world.version()
    assert world.registry.evict(provider="a") == 1
    world.released("lease-1")


def test_client_that_is_replaced(world: World) -> None:
    """A client that is built anew lets values serve on, and gives back what another fetched."""
    world.version()
    world.registry.refresh(provider="a")
    assert world.version() == "1"
    assert world.script.released == []
    world.registry.evict("a://db")
    world.released("lease-1")


def test_new_configuration_gives_back(world: World) -> None:
    """What was leased under a configuration before is given back by the client that has it."""
    world.version()
    issuer = world.registry.get_provider("a")
    world.configure()
    world.released("lease-1")
    assert world.script.releasers == [issuer]
    assert world.script.builds == [("a", "")]


def test_end_of_the_process(world: World) -> None:
    """At the end leases are given back in this thread, and then the clients close."""
    order: list[object] = []
    world.script.on_release = lambda lease_id: order.append(threading.current_thread())
    world.version()
    world.version("a://mq")
    world.registry.close()
    assert order == [threading.current_thread()] * 2
    assert sorted(world.script.released) == ["lease-1", "lease-2"]
    assert world.script.closed == [("a", "")]
    world.registry.close()
    assert len(world.script.released) == 2


def test_end_of_the_process_has_a_bound(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A backend that does not answer does not keep the process; what is left is told."""
    for name in ("db", "mq", "cache"):
        world.version(f"a://{name}")
    monkeypatch.setattr(resolving, "EXIT", 0.0)
    world.registry.close()
    assert world.script.released == []
    assert "3 lease(s)" in caplog.text


def test_outage_ends_it(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """The first lease that finds the backend unavailable ends it for the rest."""
    asked: list[str] = []

    def unavailable(lease_id: str) -> None:
        asked.append(lease_id)
        raise ProviderUnavailable("no answer")

    world.script.on_release = unavailable
    for name in ("db", "mq", "cache"):
        world.version(f"a://{name}")
    world.registry.evict(all=True)
    until(lambda: "3 lease(s)" in caplog.text)
    assert len(asked) == 1


@pytest.mark.parametrize("kind", [AccessDenied, ValueError])
def test_errors_are_logged(
    world: World, caplog: pytest.LogCaptureFixture, kind: type[Exception]
) -> None:
    """A lease that cannot be given back is logged without any value; the others are."""

    def fail(lease_id: str) -> None:
        if lease_id == "lease-1":
            raise kind("denied" if kind is AccessDenied else canary("what a library says"))

    world.script.on_release = fail
    world.version()
    world.version("a://mq")
    world.registry.evict(all=True)
    world.released("lease-2")
    assert "a://db" in caplog.text


def test_child_gives_nothing_back(world: World) -> None:
    """A forked child neither serves nor gives back what its parent was given."""
    world.version()

    def child() -> str:  # pragma: no cover - runs in the child, which leaves no report
        held = world.registry.evict("a://db")
        version = world.version()
        world.registry.close()
        return f"{held} {version} {world.script.released} {world.registry._pid == os.getpid()}"

    assert in_child(child) == "1 2 ['lease-2'] True"
    assert world.version() == "1"
    assert world.script.released == []


def test_many_at_once(world: World) -> None:
    """Readers and evictions at once: no lease is given back that is served, and each is once."""
    cells = world.registry._resolver.cache._store.cells
    wrong: list[str] = []

    def look(lease_id: str) -> None:
        helds = [cell.held for cell in list(cells.values()) if cell.held is not None]
        wrong.extend(
            lease_id
            for held in helds
            if isinstance(held.answer, SecretValue) and held.answer.lease_id == lease_id
        )

    def work() -> None:
        for _ in range(20):
            world.version()
            world.registry.evict("a://db")

    world.script.on_release = look
    at_once(work, 8)
    world.version()
    world.registry.evict("a://db")
    world.released(*(f"lease-{number + 1}" for number in range(len(world.script.fetched))))
    assert wrong == []


def test_without_leases() -> None:
    """A provider whose values have no lease is asked to renew or to give back nothing."""
    script = Script({"db": canary()})
    clock = HandClock()
    registry: SecretRegistry = make(alias("a", script), clock=clock, cache=POLICY)
    provider: Any = registry.get_provider("a")
    provider.renew = provider.release = None  # to call them would fail
    registry.get("a://db")
    clock.forward(DUE)
    registry.get("a://db")
    until(lambda: len(script.fetched) == 2)
    registry.evict(all=True)
    registry.close()


def test_defaults() -> None:
    """A provider of one's own may have leases and implement neither method: it fetches anew."""
    script = Script({"db": canary()})
    registry = make(alias("a", script), cache=POLICY)
    provider = registry.get_provider("a")
    ref = registry._resolver.planner.plan("a://db").asks()[0].ref
    value = SecretValue(canary(), lease_id="x")
    assert provider.renew(ref, value, timeout=1).version == "1"
    provider.release(ref, value, timeout=1)
