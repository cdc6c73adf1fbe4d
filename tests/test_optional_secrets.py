"""A secret of settings with a default: what its readers pay, and when the default ends."""

from __future__ import annotations

from typing import Any

import pytest

from django_secret_registry import ProviderUnavailable, SecretRegistry
from django_secret_registry.specs import Derived
from tests.canary import canary
from tests.scripted import HandClock, Script, alias, entry, make, until


class OptionalSetting:
    """A registry, its clock, and an optional setting of it."""

    def __init__(self, text: str = "a://s", **answers: Any) -> None:
        self.script = Script(answers)
        self.clock = HandClock()
        self.registry: SecretRegistry = make(
            alias("a", self.script),
            alias("b", self.script),
            entry("pair", members={"x": "a://s", "y": "b://t"}),
            clock=self.clock,
        )
        self.setting = Derived(text, default="stand-in")

    def read(self) -> Any:
        return self.registry.get(self.setting)

    @property
    def hot(self) -> bool:
        """Whether the next read is a lookup."""
        slot = self.registry.slots.get(self.setting)
        return slot is not None and self.clock() < slot.until


def test_a_missing_secret_costs_a_lookup() -> None:
    """Reads of a default are hits of a slot, and counted as what they are: not found."""
    one = OptionalSetting()
    assert [one.read() for _ in range(5)] == ["stand-in"] * 5
    assert one.hot
    assert len(one.script.fetched) == 1
    assert one.registry.drain() == {("a", "", "not_found"): 5}
    assert one.registry.snapshot().secrets[0].hits == 4


def test_a_secret_that_appears_takes_the_place_of_the_default() -> None:
    """The "not found" is confirmed again after NEGATIVE_TTL, in the background."""
    one = OptionalSetting()
    assert one.read() == "stand-in"
    one.script.answers["s"] = canary("s")
    assert one.read() == "stand-in"
    one.clock.forward(6)
    assert not one.hot
    one.read()
    until(lambda: one.read() == canary("s"))
    assert one.hot


def test_an_eviction_ends_the_default() -> None:
    """A default is forgotten with the "not found" that it stands for."""
    one = OptionalSetting()
    one.read()
    one.script.answers["s"] = canary("s")
    one.registry.evict("a://s")
    assert not one.hot
    assert one.read() == canary("s")


def test_a_default_stands_through_an_outage() -> None:
    """An outage is no reason to believe that the secret exists; reads of it stay lookups."""
    one = OptionalSetting()
    one.read()
    one.script.answers["s"] = ProviderUnavailable("down")
    one.clock.forward(6)
    assert one.read() == "stand-in"
    until(lambda: one.registry.snapshot().secrets[0].attempts == 1)
    assert one.read() == "stand-in"
    assert one.hot


def test_an_outage_is_not_a_default() -> None:
    """Where nothing is known, an outage is raised, and nothing of it kept for a hit."""
    one = OptionalSetting(s=ProviderUnavailable("down"))
    with pytest.raises(ProviderUnavailable):
        one.read()
    assert not one.hot


def test_a_key_that_is_missing_costs_a_lookup() -> None:
    """A secret without the key gives the default until another version has the key."""
    one = OptionalSetting("a://s#old", s='{"new": "1"}')
    assert [one.read() for _ in range(3)] == ["stand-in"] * 3
    assert one.hot
    one.script.answers["s"] = f'{{"old": "{canary("old")}"}}'
    one.registry.refresh("a://s")
    assert one.read() == canary("old")


def test_a_map_with_a_missing_member_costs_a_lookup() -> None:
    """The default of a MAP stands as long as one of its members is refused."""
    one = OptionalSetting("pair", s=canary("s"))
    assert [one.read() for _ in range(3)] == ["stand-in"] * 3
    assert one.hot
    one.script.answers["t"] = canary("t")
    one.registry.evict("b://t")
    assert one.read() == {"x": canary("s"), "y": canary("t")}


def test_a_default_given_to_a_call_is_not_kept() -> None:
    """``get(text, default)`` gives each caller its own default."""
    one = OptionalSetting()
    assert one.registry.get("a://s", "one") == "one"
    assert one.registry.get("a://s", "two") == "two"
    assert one.registry.get("a://s", region="eu", default=None) is None
