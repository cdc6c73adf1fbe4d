"""Hits, their counts, and the room that entries may take."""

from __future__ import annotations

import gc
import subprocess
import sys
import tracemalloc
import weakref

import pytest

from django_secret_registry.events import (
    Evicted,
)
from django_secret_registry.exceptions import (
    AccessDenied,
    ProviderUnavailable,
    SecretNotFound,
)
from django_secret_registry.values import SecretValue
from tests.canary import canary
from tests.loads import (
    DUE,
    FOREVER,
    STALE,
    Bench,
    Witness,
    denied,
    down,
    value,
)
from tests.scripted import Gate

# -- hits ------------------------------------------------------------------------------------------


def test_a_published_value_is_hit_until_it_is_due():
    """A hit needs the slot and the clock only."""
    bench = Bench()
    bench.answer("db", "1")
    bench.publish()
    bench.forward(DUE - 0.001)
    assert bench.hit() == canary("value-1")
    bench.forward(0.001)
    assert bench.hit() is None


def test_a_due_value_is_hit_while_its_refresh_is_under_way():
    """Readers need not come by until the flight lands, its time is over or the value is stale."""
    bench, gate = Bench(fetch_timeout=50.0), Gate()
    bench.answer("db", "1")
    bench.read()
    bench.answer("db", lambda: gate.stop() or value("2"))
    bench.forward(DUE)
    bench.publish()
    bench.forward(49.999)
    assert bench.hit()
    bench.forward(0.001)
    assert bench.hit() is None
    gate.open()
    bench.landed(2)


def test_a_stale_value_is_hit_while_its_backend_backs_off():
    """In an outage a hit stays a hit, counted as stale, until the next attempt may be made."""
    bench = Bench(soft_timeout=FOREVER)
    bench.answer("db", "1")
    bench.read()
    bench.answer("db", down)
    bench.forward(STALE)
    bench.publish()
    bench.counts()
    bench.forward(0.999)
    assert bench.hit()
    assert bench.counts() == {"stale": 1}
    bench.forward(0.3)
    assert bench.hit() is None


def test_a_stale_value_is_hit_while_another_key_probes_the_backend():
    """Nobody takes the slow path only to learn that a probe is under way."""
    bench, gate = Bench(soft_timeout=FOREVER), Gate()
    for name in ("db", "other"):
        bench.answer(name, "1")
        bench.read(name)
    bench.answer("other", down)
    bench.forward(STALE)
    bench.read("other")
    bench.forward(2.0)
    bench.answer("other", lambda: gate.stop() or value("2"))
    bench.read("other")
    gate.wait()
    bench.publish("db")
    bench.forward(9.9)
    assert bench.hit()
    bench.forward(0.2)
    assert bench.hit() is None
    gate.open()


def test_what_is_no_longer_held_is_not_published():
    """A reader that was slow must not bring an evicted or replaced value back."""
    bench = Bench()
    bench.answer("db", "1")
    held = bench.hold()
    bench.evict()
    bench.publish(held=held)
    assert bench.hit() is None
    bench.read()
    bench.publish(held=held)
    assert bench.hit() is None


def test_one_value_may_be_hit_under_several_texts():
    """Each spelling, key or .map of a secret has a slot of its own, and all end together."""
    bench = Bench()
    bench.answer("db", "1")
    bench.publish(text="t://db")
    bench.publish(text="t://db#user")
    assert bench.hit("t://db")
    assert bench.hit("t://db#user")
    bench.evict()
    assert not bench.cache.slots


def test_spellings_without_end_take_no_memory_without_end():
    """There are four slots per entry at most; what finds no slot is read all the same."""
    bench = Bench(max_entries=5)
    bench.answer("db", "1")
    for number in range(100):
        bench.publish(text=f"t://db?ttl={number}")
    assert len(bench.cache.slots) == 20
    assert bench.read() == "1"


def test_reads_and_hits_are_counted_once():
    """Each read has one status, hits are carried over, and a drain starts from zero."""
    bench = Bench()
    bench.answer("db", "1")
    bench.publish()
    for _ in range(7):
        bench.hit()
    with pytest.raises(SecretNotFound):
        bench.read("gone")
    assert bench.counts() == {"ok": 1, "hit": 7, "not_found": 1}
    assert bench.counts() == {}
    bench.hit()
    assert bench.info().hits == 8
    assert bench.counts() == {"hit": 1}


@pytest.mark.parametrize("end", ["refresh", "evict", "publish", "capacity", "shorten"])
def test_hits_are_not_lost_when_their_slot_ends(end):
    """However a slot ends its hits are counted, and only once."""
    bench = Bench(max_entries=1)
    bench.answer("db", "1")
    bench.answer("other", "1")
    held = bench.publish()
    for _ in range(3):
        bench.hit()
    match end:
        case "refresh":
            bench.refresh()
        case "evict":
            bench.evict()
        case "publish":
            bench.publish(held=held)
        case "capacity":
            bench.read("other")
        case "shorten":
            bench.read(ttl=10.0)
    bench.cache.snapshot()
    assert bench.counts()["hit"] == (4 if end == "shorten" else 3)
    assert bench.counts() == {}


def test_a_hit_on_a_slot_that_was_just_replaced_is_counted():
    """A reader may hold a slot while it is replaced and even while the counts are drained."""
    bench = Bench()
    bench.answer("db", "1")
    bench.publish()
    slot = bench.cache.slots["db"]
    slot.hits += 1
    bench.refresh()
    bench.counts()
    slot.hits += 1
    del slot
    assert bench.info().hits == 2
    assert bench.counts() == {"hit": 2}


def test_slots_that_ended_leave_nothing_but_their_count_when_nobody_drains():
    """Without metrics nobody asks for the counts; old values must not stay in memory for that."""
    bench = Bench()
    bench.answer("db", value)
    values = []
    for _ in range(300):
        made = Witness()
        values.append(weakref.ref(made))
        bench.cache.publish("db", made, {bench.ask().key: bench.hold()})
        bench.hit()
        bench.refresh()
    del made
    assert not [value for value in values if value() is not None]
    assert len(bench.cache._store.hits._ended) <= 1
    assert bench.counts()["hit"] == 600 - 1


# -- room ------------------------------------------------------------------------------------------


def names_held(bench: Bench) -> set[str]:
    return {info.key.name for info in bench.cache.snapshot()}


def test_more_than_max_entries_are_not_kept():
    """The one that was not read since the last look goes first."""
    bench = Bench(max_entries=3)
    for name in "abcd":
        bench.answer(name, "1")
        bench.read(name)
    assert len(names_held(bench)) == 3
    assert "d" in names_held(bench)
    assert [event.reason for event in bench.told.of(Evicted)] == ["capacity"]


def test_what_was_read_since_the_last_look_stays():
    """The CLOCK algorithm: a hit gives an entry a second chance."""
    bench = Bench(max_entries=3)
    for name in "abcd":
        bench.answer(name, "1")
    for name in "abc":
        bench.publish(name)
    bench.read("d")  # the first look: one of a, b, c goes, the others have had their chance
    left = sorted(names_held(bench) - {"d"})
    bench.hit(left[0])
    for name in "ef":
        bench.answer(name, "1")
    bench.read("e")
    assert names_held(bench) >= {left[0], "e"}
    assert left[1] not in names_held(bench)


def test_a_drain_takes_no_second_chance_away():
    """Whoever scrapes the metrics changes nothing about what leaves first."""
    bench = Bench(max_entries=3)
    for name in "abcde":
        bench.answer(name, "1")
    for name in "abc":
        bench.publish(name)
    bench.read("d")
    left = sorted(names_held(bench) - {"d"})
    bench.hit(left[0])
    bench.counts()
    bench.read("e")
    assert names_held(bench) >= {left[0], "e"}


def test_what_settings_refer_to_is_never_evicted_for_want_of_room():
    """Pinned entries stay, whatever else is read and however long they were not."""
    bench = Bench(max_entries=2)
    for name in ("p1", "p2", "p3"):
        bench.answer(name, "1")
        bench.read(name, pinned=True)
    for number in range(20):
        bench.answer(f"n{number}", "1")
        bench.read(f"n{number}")
    assert names_held(bench) == {"p1", "p2", "p3", "n19"}
    assert bench.info("p1").pinned


def test_an_entry_may_be_pinned_later():
    """It counts as pinned from the first read through settings on."""
    bench = Bench(max_entries=2)
    for name in "abcde":
        bench.answer(name, "1")
    bench.read("a")
    bench.read("a", pinned=True)
    for name in "bcde":
        bench.read(name)
    assert "a" in names_held(bench)


def test_a_new_entry_stays_although_all_others_were_read():
    """A full cache of hot entries still takes a new one in, and asks for it once."""
    bench = Bench(max_entries=3)
    for name in "abcd":
        bench.answer(name, "1")
    for name in "abc":
        bench.publish(name)
        bench.hit(name)
    bench.read("d")
    assert bench.read("d") == "1"
    assert bench.calls == 4


def test_missing_and_failing_names_do_not_drive_values_out():
    """What has no value goes first, so that a scan of names costs no value its place."""
    bench = Bench(max_entries=10)
    kept = [f"kept{number}" for number in range(9)]
    for name in kept:
        bench.answer(name, "1")
        bench.read(name)
    for number in range(50):
        with pytest.raises(SecretNotFound):
            bench.read(f"missing{number}")
        bench.answer(f"denied{number}", denied)
        with pytest.raises(AccessDenied):
            bench.read(f"denied{number}")
    bench.answer("down", down)
    for number in range(50):
        with pytest.raises(ProviderUnavailable):
            bench.read("down" if not number else f"unknown{number}")
    assert names_held(bench) >= set(kept)
    assert len(names_held(bench)) == 10


def test_a_refused_name_that_appears_is_kept_like_any_value():
    """Once it has a value an entry is no longer the first to go."""
    bench = Bench(max_entries=2)
    with pytest.raises(SecretNotFound):
        bench.read("late")
    bench.answer("late", "1")
    bench.refresh("late")
    bench.answer("a", "1")
    bench.read("a")
    with pytest.raises(SecretNotFound):
        bench.read("missing")
    bench.read("late")
    with pytest.raises(SecretNotFound):
        bench.read("missing too")
    assert "late" in names_held(bench)


def test_a_scan_of_names_does_not_push_out_who_evicted_a_secret():
    """What never had a value leaves no trace when it goes for want of room."""
    bench = Bench(max_entries=5)
    bench.answer("db", "1")
    bench.read()
    bench.cache.evict(lambda key: key.name == "db", reason="operator", by="alice")
    for number in range(50):
        with pytest.raises(SecretNotFound):
            bench.read(f"missing{number}")
    bench.read()
    info = bench.info()
    assert (info.evicted_by, info.evicted_at) == ("alice", bench.wall())


FLOOD = """
import os, sys, time, tracemalloc
sys.path[:0] = sys.argv[1:]
from tests.loads import Bench, missing_but_db

bench = Bench(max_entries=1000, load=missing_but_db)
bench.read()
bench.told.forget()

def flood(first, last):
    for start in range(first, last, 500):
        bench.cache.prefetch([bench.ask(f"n{n}") for n in range(start, start + 500)]).results()
        bench.told.forget()

count = int(os.environ.get("SECRET_REGISTRY_FLOOD", 100_000))
started = time.process_time()
flood(0, count - 10_000)
seconds = (time.process_time() - started) / count
tracemalloc.start()
flood(count - 10_000, count - 5_000)
before, _ = tracemalloc.get_traced_memory()
flood(count - 5_000, count)
after, _ = tracemalloc.get_traced_memory()
names = [info.key.name for info in bench.cache.snapshot()]
print(len(names), "db" in names, after - before, seconds)
"""


@pytest.mark.full
def test_a_flood_of_names_stays_bounded_in_memory_and_time():
    """100,000 distinct missing names take the room of MAX_ENTRIES and cost no value its place.

    In a process of its own, where no error is examined for canaries. It takes 5 s there; a queue
    whose front is found by a search takes minutes. SECRET_REGISTRY_FLOOD=1000000 sends a million.
    """
    result = subprocess.run(
        [sys.executable, "-c", FLOOD, *sys.path], capture_output=True, text=True, check=True
    )
    entries, kept, grown, seconds = result.stdout.split()
    assert (int(entries), kept) == (1000, "True")
    assert int(grown) < 200_000, "5,000 more names take no more room"
    assert float(seconds) < 400e-6


def test_an_entry_takes_less_than_2_kb():
    """A cached secret of 32 characters, its reference and its slot take about 1.7 kB in all."""
    count = 2000
    bench = Bench(load=lambda refs: {key: SecretValue("x" * 32, version="1") for key in refs})
    bench.read("first")
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(count):
            name = f"prod/service-{number}/password"
            held = bench.hold(name)
            bench.cache.publish(f"t://{name}", held.answer.value, {bench.ask(name).key: held})
        held = None
        bench.told.forget()
        gc.collect()
        size = tracemalloc.get_traced_memory()[0] / count
    finally:
        tracemalloc.stop()
    assert 500 < size < 2000, f"{size:.0f} bytes"
