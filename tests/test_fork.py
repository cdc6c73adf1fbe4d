"""After a fork: what a child keeps of the cache, and what it must not wait for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from django_secret_registry.lifecycle import SecretInfo
from tests.loads import Bench

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

ROOT = Path(__file__).parent.parent


def run(*scenario: str) -> Any:
    """Run a scenario of :mod:`tests.forking` in an interpreter of its own."""
    result = subprocess.run(
        # Python warns of a fork with threads, which is what is tested here.
        [
            sys.executable,
            "-W",
            "error",
            "-W",
            "ignore:This process",
            "-m",
            "tests.forking",
            *scenario,
        ],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    return json.loads(result.stdout)


def test_a_child_keeps_values_with_their_ages_except_leased_ones():
    """Values and refusals go on ageing; a leased credential is its parent's; counts start at 0."""
    (counts, states, got, fetched, statuses), parent = run("values")
    assert counts == []
    assert states == {
        "plain": ["fresh", 100.0],
        "gone": ["refused", 100.0],
        "leased": ["absent", None],
    }
    assert got == ["a", "b", None]
    assert "plain" not in fetched
    assert "leased" in fetched
    assert statuses > 0
    assert parent == []


def test_a_child_does_not_wait_for_a_lock_that_a_thread_of_the_parent_held():
    """The child takes a lock of its own."""
    assert run("locked") == ["a", "b"]


def test_a_child_does_not_wait_for_the_flights_of_its_parent():
    """What was loading is absent in the child, which fetches in threads of its own."""
    assert run("flying") == [["absent"], ["a"] * 12]


def test_a_child_does_not_wait_for_a_map_function_that_a_thread_of_the_parent_ran():
    """What was being made is made again."""
    assert run("mapping") == "a!"


@pytest.mark.parametrize("change", ["evict", "refresh", "publish", "room"])
def test_a_fork_in_the_middle_of_a_change_leaves_the_child_consistent(change):
    """Whatever another thread was about to do: nothing evicted is hit, and room stays bounded."""
    found = run("changing", change)
    assert found["amiss"] == []
    assert found["steps"] >= 2


@pytest.mark.full
def test_eight_children_of_a_warmed_parent_read_their_own_secrets():
    """No wrong secret, no hang, no error."""
    assert run("children") == [[]] * 8


def test_a_due_value_is_refreshed_by_the_child_itself():
    """The refresh that its parent had begun does not count for the child."""
    assert run("refreshing") == [["1", "3", 0], "2"]


def test_nothing_of_the_parents_life_is_left_in_the_cache():
    """Called in the child: no flight, no slot and no count; values, refusals and pins stay."""
    bench = Bench()
    bench.answer("db", "1")
    bench.publish()
    bench.hit()
    bench.answer("leased", "1", expires_at=bench.wall() + 1000.0)
    bench.read("leased")
    bench.read("db", pinned=True)
    bench.cache.after_fork()
    assert bench.counts() == {}
    assert not bench.cache.slots
    infos: dict[str, SecretInfo] = {info.key.name: info for info in bench.cache.snapshot()}
    assert (infos["db"].state, infos["db"].hits, infos["db"].pinned) == ("fresh", 0, True)
    assert infos["leased"].state == "absent"
    assert bench.read() == "1"
