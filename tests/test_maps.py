"""MAPs: their members are fetched together, and read by a lookup after that."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from django_secret_registry import AccessDenied, ProviderUnavailable, SecretRegistry
from django_secret_registry.clock import steady, wall
from django_secret_registry.lifecycle import CachePolicy
from django_secret_registry.specs import Derived
from tests.canary import canary
from tests.scripted import PATIENCE, HandClock, Script, alias, config, entry, make

MEMBERS = {"x": "a://x", "y": "a://y", "z": "b://z"}
VALUES = {name: canary(name) for name in MEMBERS}


@pytest.fixture
def script() -> Script:
    return Script(dict(VALUES))


def registry_of(script: Script, clock: HandClock | None = None, **fields: Any) -> SecretRegistry:
    kind = fields.pop("kind", "ScriptedProvider")
    return make(
        alias("a", script, kind),
        alias("b", script, kind),
        entry("map", members=MEMBERS),
        clock=clock,
        **fields,
    )


def read(registry: SecretRegistry) -> Any:
    return registry.get("map")


def aread(registry: SecretRegistry) -> Any:
    return asyncio.run(registry.aget("map"))


@pytest.mark.parametrize("get", [read, aread])
def test_members_are_fetched_at_once(script: Script, get: Any) -> None:
    """No member waits for another: the time is that of the slowest one."""
    together = threading.Barrier(len(MEMBERS))

    def meet(value: str) -> Any:
        return lambda ref: together.wait(PATIENCE) is None or value

    script.answers = {name: meet(value) for name, value in VALUES.items()}
    assert get(registry_of(script)) == VALUES


@pytest.mark.parametrize("get", [read, aread])
def test_members_of_one_backend_are_one_call(script: Script, get: Any) -> None:
    """A backend that has batches is asked once for all of its members."""
    registry = registry_of(script, kind="BatchProvider")
    assert get(registry) == VALUES
    assert [[ref.name for ref in batch] for batch in script.batches] == [["x", "y"]]
    assert [ref.name for ref in script.fetched] == ["z"]


def test_a_batch_is_no_larger_than_the_backend_takes(script: Script) -> None:
    """A MAP of many members is fetched in several calls."""
    names = [f"s{number}" for number in range(45)]
    script.answers = dict.fromkeys(names, canary("s"))
    members = {name: f"a://{name}" for name in names}
    registry = make(alias("a", script, "BatchProvider"), entry("map", members=members))
    assert len(registry.get("map")) == 45
    assert sorted(map(len, script.batches)) == [5, 20, 20]


def test_the_error_of_a_member_is_raised(script: Script) -> None:
    """A MAP is whole or an error, which names the member; the others are held all the same."""
    registry = registry_of(script)
    script.answers["y"] = AccessDenied("no")
    with pytest.raises(AccessDenied) as caught:
        registry.get("map")
    assert caught.value.reference == "a://y"
    states = {secret.key.name: secret.state for secret in registry.snapshot().secrets}
    assert states == {"x": "fresh", "y": "absent", "z": "fresh"}


def test_what_hangs_costs_its_time_once(script: Script) -> None:
    """FETCH_TIMEOUT bounds a read or a warm-up of many secrets, not each of them in turn."""
    released = threading.Event()
    names = [f"s{number}" for number in range(20)]
    script.answers = dict.fromkeys(names, lambda ref: released.wait(PATIENCE) and canary("s"))
    registry = SecretRegistry(clock=steady, wall=wall)
    members = {name: f"a://{name}" for name in names}
    specs = alias("a", script, "BatchProvider"), alias("b", script, "BatchProvider")
    policy = CachePolicy(fetch_timeout=0.3)
    registry.configure(config(*specs, entry("map", members=members), cache=policy))
    try:
        started = time.monotonic()
        results = registry.warm([f"b://{name}" for name in names])
        assert {result.outcome for result in results} == {"unavailable"}
        for get in (read, aread):
            with pytest.raises(ProviderUnavailable, match="FETCH_TIMEOUT|left alone"):
                get(registry)
        assert time.monotonic() - started < 3.0, "they waited one after the other"
    finally:
        released.set()


# -- hits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["map", Derived("map")])
@pytest.mark.parametrize("awaited", [False, True])
def test_each_reader_gets_a_dict_of_its_own(script: Script, text: Any, *, awaited: bool) -> None:
    """What one reader does to the dict of a MAP, no other one sees."""
    registry = registry_of(script)
    for _ in range(3):
        found = asyncio.run(registry.aget(text)) if awaited else registry.get(text)
        assert found == VALUES
        found["x"] = "changed"
        del found["y"]


def test_a_hit_counts_for_each_member(script: Script) -> None:
    """A lookup of a MAP is a hit of all that it is made of, as if each had been read."""
    registry = registry_of(script)
    for _ in range(3):
        registry.get("map")
    assert registry.drain() == {
        ("a", "", "ok"): 2,
        ("b", "", "ok"): 1,
        ("a", "", "hit"): 4,
        ("b", "", "hit"): 2,
    }


def test_a_map_is_due_with_the_first_of_its_members(script: Script) -> None:
    """The member with the smallest TTL says how long the MAP is read by a lookup."""
    clock = HandClock()
    members = {"x": "a://x", "z": "b://z?ttl=10"}
    registry = make(
        alias("a", script),
        alias("b", script),
        entry("map", members=members),
        clock=clock,
        cache=CachePolicy(jitter=0.0),
    )
    registry.get("map")
    (slot,) = registry.slots.values()
    assert slot.until == clock.now + 8


@pytest.mark.parametrize("name", ["a://x", "b://z", "map"])
def test_an_evicted_member_ends_the_map(script: Script, name: str) -> None:
    """No lookup of a MAP brings back what was evicted."""
    registry = registry_of(script)
    registry.get("map")
    registry.evict(name)
    script.answers = {key: canary(f"new {key}") for key in VALUES}
    evicted = {"a://x": ["x"], "b://z": ["z"], "map": [*VALUES]}[name]
    assert registry.get("map") == {
        key: script.answers[key] if key in evicted else value for key, value in VALUES.items()
    }


def test_a_rotated_member_is_followed(script: Script) -> None:
    """A refresh of one member gives the MAP another value."""
    registry = registry_of(script)
    registry.get("map")
    script.answers["z"] = canary("rotated")
    registry.refresh("b://z")
    assert registry.get("map") == {**VALUES, "z": canary("rotated")}


def test_a_mapped_map_is_a_hit(script: Script) -> None:
    """What a function makes of a MAP is handed out by a lookup, and made once."""
    made: list[int] = []
    registry = registry_of(script)
    setting = Derived("map", (lambda members: made.append(1) or "-".join(members),))
    assert [registry.get(setting) for _ in range(3)] == ["x-y-z"] * 3
    assert registry.slots[setting].hits == 2
    assert made == [1]
