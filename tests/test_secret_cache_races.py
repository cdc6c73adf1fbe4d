"""Many readers at once: one flight per key, evictions and refreshes in between, and event loops.

Threads are stopped at gates; nothing here is right by luck or by waiting long enough.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import threading
import weakref

import pytest

from django_secret_registry import SecretRegistry, answers, fetching
from django_secret_registry.events import Event, Refreshed, Rotated
from django_secret_registry.exceptions import (
    AccessDenied,
    ProviderError,
    ProviderUnavailable,
    SecretError,
    SecretNotFound,
)
from django_secret_registry.lifecycle import CachePolicy, Held
from django_secret_registry.secret_cache import SecretCache
from django_secret_registry.specs import Derived
from tests.canary import canary
from tests.clock import HandClock
from tests.loads import (
    DUE,
    EXPIRED,
    FOREVER,
    MINUTE,
    STALE,
    Bench,
    Told,
    Witness,
    denied,
    down,
    missing,
    value,
    version,
)
from tests.scripted import PATIENCE, Gate, Script, alias, at_once, make, running, until

CROWD = 64


def waiting(bench: Bench, readers: int, name: str = "db") -> None:
    """Wait until so many readers have got as far as the flight of ``name``."""
    cell = bench.cache._store.cells[bench.ask(name).key]
    until(lambda: cell.flight is None or len(cell.flight.landed._condition._waiters) >= readers)


def unavailable(bench: Bench, name: str) -> None:
    """Read in a thread, and ask no more of it than that it fails."""
    with pytest.raises(ProviderUnavailable):
        bench.read(name)


# -- one flight per key ----------------------------------------------------------------------------


def test_many_threads_on_a_cold_secret_make_one_call():
    """Whoever comes while the first fetch is under way shares its value."""
    bench, gate = Bench(), Gate()
    bench.answer("db", lambda: gate.stop() or value("1"))
    with running(lambda: at_once(bench.read, CROWD)) as outcomes:
        gate.wait()
        waiting(bench, CROWD)
        gate.open()
    assert outcomes == [["1"] * CROWD]
    assert bench.calls == 1
    assert bench.counts() == {"ok": CROWD}


def test_many_threads_share_the_error_of_one_call_and_each_raises_its_own():
    """64 errors, each an object of its own, all with the cause that the library raised."""
    bench, gate, cause = Bench(), Gate(), ConnectionResetError("by peer")

    def fail() -> SecretError:
        gate.stop()
        error = down()
        error.__cause__ = cause
        return error

    bench.answer("db", fail)
    with running(lambda: at_once(bench.read, CROWD)) as outcomes:
        gate.wait()
        waiting(bench, CROWD)
        gate.open()
    (errors,) = outcomes
    assert {type(error) for error in errors} == {ProviderUnavailable}
    assert len(set(map(id, errors))) == CROWD
    assert {error.__cause__ for error in errors} == {cause}
    assert bench.calls == 1


def test_many_threads_start_one_refresh_of_a_due_value():
    """All of them get the held value, and the backend is asked once."""
    bench, gate = Bench(), Gate()
    bench.answer("db", "1")
    bench.read()
    bench.answer("db", lambda: gate.stop() or value("2"))
    bench.forward(DUE)
    assert at_once(bench.read, CROWD) == ["1"] * CROWD
    gate.wait()
    gate.open()
    bench.landed(2)
    assert bench.calls == 2


def test_no_reader_runs_a_fetch():
    """Cold, due, stale, failing and refreshed: the load always runs in a thread of the pool."""
    bench, readers = Bench(soft_timeout=FOREVER), {threading.current_thread()}
    bench.answer("db", "1")
    bench.answer("denied", denied)
    bench.answer("down", down)
    asks = [
        bench.ask("db"),
        bench.ask("missing"),
        bench.ask("denied"),
        bench.ask("down", alias="u"),
    ]

    def read() -> None:
        readers.add(threading.current_thread())
        for ask in asks:
            with contextlib.suppress(SecretError):
                bench.cache.read(ask)
        bench.cache.prefetch(asks[:3]).results()

    for step in (0.0, DUE, STALE, EXPIRED, MINUTE):
        bench.forward(step)
        at_once(read, 4)
        bench.refresh()
    assert bench.calls > 15
    assert not readers & set(bench.loads.threads)


def test_where_no_thread_can_be_started_reads_still_work(monkeypatch):
    """A system at its limit of threads: the reader fetches itself, cold, due and stale."""

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    bench = Bench()
    for number, step in enumerate((0.0, DUE, STALE, 4000.0), start=1):
        bench.answer("db", str(number))
        bench.forward(step)
        bench.read()
        assert bench.read() == str(number)
    bench.answer("db", "5")
    assert bench.refresh() == "5"
    assert set(bench.loads.threads) == {threading.current_thread()}


# -- time is over ----------------------------------------------------------------------------------


def test_a_first_fetch_is_bounded_and_its_late_result_is_kept():
    """After FETCH_TIMEOUT the reader gets an error; what comes later serves the next one."""
    bench, gate = Bench(fetch_timeout=0.05), Gate()
    bench.answer("db", lambda: gate.stop() or value("1"))
    with pytest.raises(ProviderUnavailable, match=r"longer than FETCH_TIMEOUT \(0.05 s\)"):
        bench.read()
    assert bench.counts() == {"unavailable": 1}
    gate.open()
    bench.landed(1)
    assert (bench.read(), bench.calls) == ("1", 1)


def test_a_late_result_ends_the_backoff_that_its_delay_began():
    """The backend has answered after all: other keys may ask it."""
    bench, gate = Bench(fetch_timeout=0.05), Gate()
    bench.answer("db", lambda: gate.stop() or value("1"))
    bench.answer("other", "2")
    with pytest.raises(ProviderUnavailable):
        bench.read()
    with pytest.raises(ProviderUnavailable, match="left alone"):
        bench.read("other")
    gate.open()
    bench.landed(1)
    assert bench.read("other") == "2"


def test_a_late_result_does_not_replace_a_newer_one():
    """What began earlier and landed later is older, and is dropped."""
    bench, gate = Bench(fetch_timeout=10.0), Gate()
    bench.answer("db", lambda: gate.stop() or value("old"))
    with running(bench.read) as outcome:
        gate.wait()
        bench.forward(10.0)
        with pytest.raises(ProviderUnavailable):
            bench.read()
        bench.forward(2.0)
        bench.answer("db", "new")
        assert bench.read() == "new"
        gate.open()
    assert outcome == ["old"], "whoever has waited gets what it brought"
    bench.landed(2)
    assert bench.read() == "new"
    assert not bench.told.of(Rotated)


def test_a_late_refusal_that_is_dropped_does_not_count():
    """The next refusal is remembered for NEGATIVE_TTL, not for twice that."""
    bench, gate = Bench(fetch_timeout=10.0), Gate()
    bench.answer("db", lambda: gate.stop() or missing())
    with running(bench.read) as outcome:
        gate.wait()
        bench.forward(10.0)
        with pytest.raises(ProviderUnavailable):
            bench.read()
        bench.forward(2.0)
        bench.answer("db", "new")
        bench.read()
        gate.open()
    assert isinstance(outcome[0], SecretNotFound)
    bench.landed(2)
    bench.answer("db", missing)
    with pytest.raises(SecretNotFound):
        bench.refresh()
    assert bench.info().due_in == 5.0


def test_a_late_error_is_dropped():
    """Whatever failed after it was given up has been counted already."""
    bench, gate = Bench(fetch_timeout=10.0), Gate()
    bench.answer("db", lambda: gate.stop() or denied())
    with running(bench.read):
        gate.wait()
        bench.forward(10.0)
        with pytest.raises(ProviderUnavailable):
            bench.read()
        bench.forward(2.0)
        bench.answer("db", "new")
        bench.read()
        gate.open()
    bench.landed(2)
    assert (bench.read(), bench.info().attempts) == ("new", 0)


def test_a_flight_whose_time_is_over_gives_way_to_the_next_reader():
    """A background refresh that hangs is noticed by whoever reads after its deadline."""
    bench, gate = Bench(fetch_timeout=10.0), Gate()
    bench.answer("db", "1")
    bench.publish()
    bench.answer("db", lambda: gate.stop() or value("2"))
    bench.forward(DUE)
    bench.publish()
    gate.wait()
    bench.forward(10.0)
    assert bench.hit() is None
    assert bench.read() == "1"
    info = bench.info()
    assert (info.attempts, info.last_status) == (1, "unavailable")
    assert 1.0 <= info.retry_in <= 1.25
    gate.open()
    bench.landed(2)


def test_a_hung_backend_does_not_hold_up_another():
    """Each backend has threads of its own, however many calls hang in the other one."""
    bench, gate = Bench(fetch_timeout=FOREVER), Gate()
    names = [f"n{number}" for number in range(40)]
    for name in names:
        bench.answer(name, lambda: gate.stop() or value())
    threads = [threading.Thread(target=bench.read, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    until(lambda: bench.calls == 10)
    bench.answer("db", "1")
    assert bench.read(alias="other") == "1"
    assert bench.calls == 11, "ten calls to the backend that hangs, the others wait in its queue"
    gate.open()
    for thread in threads:
        thread.join(PATIENCE)
    assert bench.calls == 41


def test_what_was_given_up_in_the_queue_of_a_hung_backend_is_not_asked_for():
    """When the backend recovers it is not called for readers who have gone, nor is that told."""
    bench, gate = Bench(fetch_timeout=0.1), Gate()
    names = [f"n{number}" for number in range(15)]
    for name in names:
        bench.answer(name, lambda: gate.stop() or value())
    bench.answer("last", "1")
    threads = [threading.Thread(target=unavailable, args=(bench, name)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    gate.open()
    bench.landed(10)
    assert bench.refresh("last") == "1"
    assert bench.calls == 11
    assert len({thread.name for thread in threading.enumerate() if "t-eu" in thread.name}) <= 10


def test_one_outage_counts_once_however_many_flights_it_ends():
    """Ten calls that fail together back off like one, for a second and not for a minute."""
    bench, gate = Bench(), Gate()
    names = [f"n{number}" for number in range(10)]
    for name in names:
        bench.answer(name, lambda: gate.stop() or down())
    threads = [threading.Thread(target=unavailable, args=(bench, name)) for name in names]
    for thread in threads:
        thread.start()
    until(lambda: bench.calls == 10)
    gate.open()
    for thread in threads:
        thread.join(PATIENCE)
    bench.forward(1.25)
    bench.answer("n0", "1")
    assert bench.read("n0") == "1"


def test_a_probe_that_hangs_is_followed_by_another():
    """After its deadline a probe that nobody waits for no longer bars the way."""
    bench, gate = Bench(fetch_timeout=10.0), Gate()
    for name in ("db", "other"):
        bench.answer(name, "1")
        bench.read(name)
    bench.answer("db", down)
    bench.forward(DUE)
    bench.read()
    bench.landed(3)
    bench.forward(2.0)
    bench.answer("db", lambda: gate.stop() or value("2"))
    bench.read()
    gate.wait()
    bench.answer("other", "2")
    bench.forward(9.9)
    bench.read("other")
    assert bench.calls == 4
    bench.forward(0.2)
    bench.read("other")
    bench.landed(4)
    assert bench.read("other") == "2"
    gate.open()
    bench.landed(5)


# -- evict and refresh during a flight -------------------------------------------------------------


def test_an_eviction_during_a_flight_keeps_its_result_out():
    """Those who waited are served; whoever comes after the eviction gets a fetch of their own."""
    bench, gate = Bench(), Gate()
    bench.answer("db", lambda: gate.stop() or value("old"))
    with running(bench.hold) as outcome:
        gate.wait()
        bench.evict()
        bench.answer("db", "new")
        assert bench.read() == "new"
        gate.open()
    assert version(outcome[0]) == "old"
    bench.publish(held=outcome[0])
    assert bench.hit() is None
    assert (bench.read(), bench.calls) == ("new", 2)


def test_an_eviction_during_a_refresh_keeps_both_values_out():
    """Neither the held value nor the one that is on its way survives the eviction."""
    bench, gate = Bench(), Gate()
    bench.answer("db", "1")
    bench.publish()
    bench.answer("db", lambda: gate.stop() or value("2"))
    with running(bench.refresh) as outcome:
        gate.wait()
        bench.evict()
        assert bench.hit() is None
        gate.open()
    assert outcome == ["2"]
    assert bench.cache.snapshot() == ()
    bench.answer("db", "3")
    assert bench.read() == "3"


def test_an_eviction_during_a_flight_forgets_its_error_too():
    """A denial that lands after the eviction bars nobody."""
    bench, gate = Bench(), Gate()
    bench.answer("db", lambda: gate.stop() or denied())
    with running(bench.read) as outcome:
        gate.wait()
        bench.evict()
        bench.answer("db", "1")
        gate.open()
    assert isinstance(outcome[0], AccessDenied)
    assert bench.read() == "1"


def test_a_failure_that_lands_after_an_eviction_leaves_the_new_value_its_place():
    """The value that was fetched since is not the first to go for want of room."""
    bench, gate = Bench(max_entries=2), Gate()
    bench.answer("db", lambda: gate.stop() or denied())
    bench.answer("older", "1")
    with running(bench.read) as outcome:
        gate.wait()
        bench.evict()
        bench.read("older")
        bench.answer("db", "new")
        bench.read()
        gate.open()
    assert isinstance(outcome[0], AccessDenied)
    bench.landed(3)
    for name in ("older", "db"):  # neither was read since the last look
        bench.cache._store.cells[bench.ask(name).key].visited = False
    bench.answer("third", "1")
    bench.read("third")
    assert {info.key.name for info in bench.cache.snapshot()} == {"db", "third"}


def test_a_late_answer_of_an_evicted_key_is_no_rotation():
    """A rotation is told once, by the fetch whose value is kept."""
    bench, gate = Bench(), Gate()
    bench.answer("db", "1")
    bench.read()
    bench.answer("db", lambda: gate.stop() or value("2"))
    with running(bench.refresh):
        gate.wait()
        bench.evict()
        gate.open()
    assert not bench.told.of(Rotated)
    bench.answer("db", "2")
    bench.read()
    assert len(bench.told.of(Rotated)) == 1


def test_a_refresh_does_not_join_a_flight_that_began_before_it():
    """What is under way may bring what the operator has just replaced; two refreshes share one."""
    bench, first, second = Bench(), Gate(), Gate()
    bench.answer("db", lambda: first.stop() or value("1"))
    with running(bench.read) as read:
        first.wait()
        bench.answer("db", lambda: second.stop() or value("2"))
        with running(lambda: at_once(bench.refresh, 8)) as refreshed:
            waiting(bench, 9)
            first.open()
            second.wait()
            waiting(bench, 8)
            second.open()
    assert read == ["1"]
    assert refreshed == [["2"] * 8]
    assert bench.calls == 2
    outcomes = sorted(event.outcome for event in bench.told.of(Refreshed))
    assert outcomes == ["collapsed"] * 7 + ["ok"]


def test_a_refresh_gives_up_a_flight_that_hangs():
    """The flight before it has its deadline; then the backend backs off, and the caller is told."""
    bench, gate = Bench(fetch_timeout=0.05), Gate()
    bench.answer("db", lambda: gate.stop() or value("1"))
    with running(bench.read) as read:
        gate.wait()
        with pytest.raises(ProviderUnavailable):
            bench.refresh()
    assert isinstance(read[0], ProviderUnavailable)
    gate.open()
    bench.landed(1)


def test_a_refresh_keeps_the_held_value_for_readers():
    """While it is under way hits and reads go on."""
    bench, gate = Bench(), Gate()
    bench.answer("db", "1")
    bench.publish()
    bench.answer("db", lambda: gate.stop() or value("2"))
    with running(bench.refresh) as outcome:
        gate.wait()
        assert bench.hit() == canary("value-1")
        assert bench.read() == "1"
        gate.open()
    assert outcome == ["2"]
    assert bench.hit() is None


def test_those_who_saw_the_same_wrong_value_share_one_refresh():
    """A pool of connections that all fail with the same password asks for a new one once."""
    bench = Bench()
    bench.answer("db", "1")
    seen = bench.hold()
    bench.answer("db", "2")
    assert at_once(lambda: bench.refresh(seen=seen), CROWD) == ["2"] * CROWD
    assert bench.calls == 2


def test_a_refresh_does_not_spin_on_a_flight_that_was_not_taken_in(monkeypatch):
    """Whatever is raised while an answer is stored (no memory, say), the next one is fetched."""
    bench, gate = Bench(fetch_timeout=FOREVER), Gate()
    bench.answer("db", lambda: gate.stop() or value("1"))
    raised = [MemoryError()]

    def told(*args: object, **fields: object) -> list[Event]:
        if raised:
            raise raised.pop()
        return answers.told(*args, **fields)

    monkeypatch.setattr(fetching, "told", told)
    with running(bench.read) as read:
        gate.wait()
        with running(bench.refresh) as refreshed:
            waiting(bench, 2)
            gate.open()
    assert isinstance(read[0], ProviderError)
    assert refreshed == ["1"]


def test_a_smaller_ttl_during_a_flight_applies_to_what_it_brings():
    """The TTL is read when the value lands."""
    bench, gate = Bench(), Gate()
    bench.answer("db", lambda: gate.stop() or value("1"))
    with running(bench.read), running(lambda: bench.read(ttl=10.0)):
        gate.wait()
        waiting(bench, 2)
        gate.open()
    assert bench.info().ttl == 10.0


# -- hits ------------------------------------------------------------------------------------------


def test_a_slow_reader_does_not_bring_an_evicted_value_back_to_the_hits():
    """What a .map makes while its secret is evicted goes to its reader and to nobody else."""
    script, gate = Script({"db": canary("old")}), Gate()
    registry = make(alias("t", script))
    setting = Derived("t://db", (lambda made: gate.stop() or made,))
    with running(lambda: registry.get(setting)) as outcome:
        gate.wait()
        registry.evict("t://db")
        script.answers["db"] = canary("new")
        gate.open()
    assert outcome == [canary("old")], "this read began before the eviction"
    assert registry.get(setting) == canary("new")


def test_hits_of_many_threads_are_counted_exactly_through_evictions_and_refreshes():
    """Every read is counted once: as a hit, as a fetch, or as served stale."""
    script = Script({name: canary(name) for name in "abcdef"})
    registry = make(alias("t", script), cache=CachePolicy(max_entries=4))
    reads, rounds = [0] * 4, 400
    counted: dict[str, int] = {}

    def drain() -> None:
        for (_, _, status), count in registry.drain().items():
            counted[status] = counted.get(status, 0) + count

    def reader(place: int) -> None:
        for number in range(rounds):
            registry.get(f"t://{'abcdef'[(number + place) % 6]}")
            reads[place] += 1

    refreshes = 0
    threads = [threading.Thread(target=reader, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        registry.refresh("t://a")
        refreshes += 1
        registry.evict("t://b")
        drain()
    for thread in threads:
        thread.join(PATIENCE)
    drain()
    drain()
    assert sum(counted.values()) == sum(reads) + refreshes
    assert set(counted) <= {"hit", "ok"}


def test_a_signal_handler_may_read_what_is_held_while_it_interrupts_a_reader():
    """A handler runs between any two steps of the main thread, also where that holds the lock."""
    clock, interrupt = HandClock(), []

    def interrupted() -> float:
        if interrupt:
            signal.raise_signal(interrupt.pop())
        return clock()

    cache = SecretCache(
        CachePolicy(), lambda refs: {key: value() for key in refs}, clock=interrupted, wall=clock
    )
    ask, read = Bench().ask(), []
    cache.read(ask)
    before = signal.signal(signal.SIGUSR1, lambda *_: read.append(cache.read(ask)))
    try:
        interrupt.append(signal.SIGUSR1)
        assert version(cache.read(ask)) == "1"
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert [version(held) for held in read] == ["1"]


def test_a_handled_error_is_gone_at_once():
    """Neither the cache nor a frame of it keeps what was raised, not even in a cycle."""
    bench = Bench()
    bench.answer("db", denied)
    with pytest.raises(AccessDenied):
        bench.read()
    gc.collect()
    gc.disable()
    try:
        gone = None
        try:
            bench.read()
        except AccessDenied as error:
            gone = weakref.ref(error)
        assert gone is not None
        assert gone() is None
    finally:
        gc.enable()


# -- event loops -----------------------------------------------------------------------------------


def test_many_tasks_on_a_cold_secret_make_one_call():
    """The tasks of one loop share a fetch as threads do."""
    bench, gate = Bench(), Gate()
    bench.answer("db", lambda: gate.stop() or value("1"))

    async def crowd() -> list[Held]:
        tasks = [asyncio.create_task(bench.cache.aread(bench.ask())) for _ in range(CROWD)]
        await asyncio.sleep(0)
        gate.open()
        return await asyncio.gather(*tasks)

    assert [version(held) for held in asyncio.run(crowd())] == ["1"] * CROWD
    assert bench.calls == 1


def test_many_tasks_share_the_error_of_one_call_and_each_raises_its_own():
    """As with threads: one call, 64 errors."""
    bench, gate = Bench(), Gate()
    bench.answer("db", lambda: gate.stop() or down())

    async def crowd() -> list[BaseException]:
        tasks = [asyncio.create_task(bench.cache.aread(bench.ask())) for _ in range(CROWD)]
        await asyncio.sleep(0)
        gate.open()
        return await asyncio.gather(*tasks, return_exceptions=True)

    errors = asyncio.run(crowd())
    assert {type(error) for error in errors} == {ProviderUnavailable}
    assert len(set(map(id, errors))) == CROWD
    assert bench.calls == 1


def test_the_event_loop_runs_while_a_fetch_hangs():
    """The loop goes on with other work, and no fetch runs in its thread."""
    bench, gate = Bench(), Gate()
    bench.answer("db", lambda: gate.stop() or value("1"))

    async def work() -> Held:
        task = asyncio.create_task(bench.cache.aread(bench.ask()))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not task.done()
        gate.open()
        return await task

    assert version(asyncio.run(work())) == "1"
    assert bench.loads.threads != [threading.current_thread()]


def test_a_task_waits_for_a_first_fetch_no_longer_than_fetch_timeout():
    """The bound holds on a loop too."""
    bench, gate = Bench(fetch_timeout=0.05), Gate()
    bench.answer("db", lambda: gate.stop() or value("1"))
    with pytest.raises(ProviderUnavailable, match="FETCH_TIMEOUT"):
        asyncio.run(bench.cache.aread(bench.ask()))
    gate.open()
    bench.landed(1)
    assert version(asyncio.run(bench.cache.aread(bench.ask()))) == "1"


def test_a_task_gets_due_and_stale_values_as_a_thread_does():
    """Due at once, stale after SOFT_TIMEOUT at most."""
    bench, gate = Bench(soft_timeout=0.01), Gate()
    bench.answer("db", "1")
    bench.read()
    bench.answer("db", lambda: gate.stop() or value("2"))
    bench.forward(STALE)
    assert version(asyncio.run(bench.cache.aread(bench.ask()))) == "1"
    gate.open()
    bench.landed(2)
    assert version(asyncio.run(bench.cache.aread(bench.ask()))) == "2"


def test_the_cancellation_of_one_task_leaves_the_others_and_the_fetch_alone():
    """A client that goes away ends its own wait only."""
    bench, gate = Bench(), Gate()
    bench.answer("db", lambda: gate.stop() or value("1"))

    async def work() -> tuple[Held, bool]:
        leaves, stays = (asyncio.create_task(bench.cache.aread(bench.ask())) for _ in range(2))
        await asyncio.sleep(0)
        leaves.cancel()
        await asyncio.wait((leaves,))
        gate.open()
        return await stays, leaves.cancelled()

    held, cancelled = asyncio.run(work())
    assert (version(held), cancelled) == ("1", True)
    assert (bench.read(), bench.calls) == ("1", 1)


@pytest.mark.parametrize("end", ["cancelled", "abandoned", "timed out"])
def test_a_loop_that_is_closed_before_the_fetch_lands_disturbs_nobody(end, caplog):
    """Whoever waits in threads is served, the value is kept, and nothing is logged or raised."""
    bench, gate = Bench(), Gate()
    bench.answer("db", lambda: gate.stop() or value("1"))
    loop = asyncio.new_event_loop()
    task = loop.create_task(bench.cache.aread(bench.ask()))
    loop.run_until_complete(asyncio.sleep(0))
    gate.wait()
    if end == "cancelled":
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(task)
    if end == "timed out":
        with pytest.raises(TimeoutError):
            loop.run_until_complete(asyncio.wait_for(task, 0))
    loop.close()
    with running(bench.read) as outcome:
        waiting(bench, 1)
        gate.open()
    assert outcome == ["1"]
    bench.landed(1)
    task._log_destroy_pending = False  # whoever abandons a task is warned by asyncio itself
    del task
    gc.collect()
    assert not [record for record in caplog.records if record.levelname != "DEBUG"]


def test_a_loop_that_closes_while_the_fetch_lands_disturbs_nobody(caplog):
    """Also when it closes between the look whether it is open and the call into it."""
    bench, gate = Bench(), Gate()
    bench.answer("db", lambda: gate.stop() or value("1"))

    class Closing(asyncio.SelectorEventLoop):
        def call_soon_threadsafe(self, *args, **fields):
            if gate._open.is_set():
                self.close()
            return super().call_soon_threadsafe(*args, **fields)

    loop = Closing()
    task = loop.create_task(bench.cache.aread(bench.ask()))
    loop.run_until_complete(asyncio.sleep(0))
    gate.wait()
    gate.open()
    bench.landed(1)
    assert bench.read() == "1"
    task._log_destroy_pending = False
    del task
    gc.collect()
    loop.close()
    assert not [record for record in caplog.records if record.levelname != "DEBUG"]


def test_tasks_of_several_loops_share_a_fetch():
    """Each thread may have a loop of its own."""
    bench, gate = Bench(), Gate()
    bench.answer("db", lambda: gate.stop() or value("1"))

    def read() -> str:
        return version(asyncio.run(bench.cache.aread(bench.ask())))

    with running(lambda: at_once(read, 8)) as outcomes:
        gate.wait()
        gate.open()
    assert outcomes == [["1"] * 8]
    assert bench.calls == 1


# -- through the registry --------------------------------------------------------------------------


def failing_provider(script: Script, seen: list[weakref.ref[Witness]]) -> SecretRegistry:
    def fail(ref: object) -> None:
        witness = Witness()
        seen.append(weakref.ref(witness))
        try:
            raise ConnectionResetError("by peer")
        except ConnectionResetError as exc:
            raise ProviderUnavailable("no answer") from exc

    script.answers["db"] = fail
    return make(alias("t", script))


def test_nothing_keeps_the_frames_of_a_failing_provider_alive():
    """After the error was handled nothing of the provider's fetch is left."""
    seen: list[weakref.ref[Witness]] = []
    registry = failing_provider(Script(), seen)
    with pytest.raises(ProviderUnavailable) as caught:
        registry.get("t://db")
    assert isinstance(caught.value.__cause__, ConnectionResetError)
    del caught
    gc.collect()
    assert seen[0]() is None


def test_tasks_of_a_web_server_fetch_in_no_thread_of_theirs():
    """1,000 requests through aget, cold and failing: none fetches on the loop."""
    script = Script({"db": canary("db")})
    registry = make(alias("t", script))

    async def requests() -> list[object]:
        return await asyncio.gather(
            *(registry.aget("t://db" if n % 2 else "t://gone", None) for n in range(1000))
        )

    values = asyncio.run(requests())
    assert values == [None, canary("db")] * 500
    assert len(script.fetched) == 2
    assert threading.current_thread() not in script.fetchers


def test_events_are_told_outside_the_lock():
    """A listener may read: it waits for nobody who waits for it."""
    bench = Bench(max_entries=1)
    bench.answer("db", "1")
    bench.answer("other", "2")
    told = Told()

    def read_again(event: object) -> None:
        with running(bench.cache.snapshot):
            pass
        told(event)

    bench.cache._events.subscribe(read_again)
    bench.read()
    bench.read("other")
    bench.refresh("other")
    bench.evict("other")
    assert told._events
