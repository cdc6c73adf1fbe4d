"""Readers while a provider is slow, hangs, or has no thread to run in: nobody waits in vain."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from django_secret_registry import SecretRegistry
from django_secret_registry.backends import THREADS
from django_secret_registry.exceptions import ProviderUnavailable, SecretError
from django_secret_registry.lifecycle import CachePolicy
from django_secret_registry.pool import DaemonPool
from tests.canary import canary
from tests.scripted import PATIENCE, HandClock, Script, alias, at_once, make, running, until

READERS = 16
EXPIRIES = 6
READS = 50
TTL = 100.0
DUE, STALE = 0.9 * TTL, 1.5 * TTL
BACKOFF_OVER = 61.0


class Slow:
    """An answer that comes only once it is released; ``come`` counts those who asked for it."""

    def __init__(self, value: str) -> None:
        self.value = value
        self.come = threading.Semaphore(0)
        self._open = threading.Event()

    def __call__(self, ref: object) -> str:
        self.come.release()
        assert self._open.wait(PATIENCE), "nobody released the answer"
        return self.value

    def release(self) -> None:
        self._open.set()


def policy(**fields: Any) -> CachePolicy:
    return CachePolicy(**{"ttl": TTL, "jitter": 0, "max_stale": 3600, **fields})


def with_value(script: Script, clock: HandClock, **fields: Any) -> SecretRegistry:
    """Return a registry that holds ``a://s``."""
    script.answers.setdefault("s", canary("old"))
    registry = make(alias("a", script), clock=clock, cache=policy(**fields))
    registry.get("a://s")
    registry.drain()
    return registry


def outcome(registry: SecretRegistry, text: str = "a://s") -> Any:
    try:
        return registry.get(text)
    except SecretError as error:
        return type(error)


# -- slow and hanging providers --


def test_readers_through_expiries() -> None:
    """16 readers go through 6 expiries: none runs a fetch, and all are served before it ends."""
    script, clock = Script(), HandClock()
    registry = with_value(script, clock)
    begin, end = threading.Barrier(READERS + 1), threading.Barrier(READERS + 1)
    seen: list[set[str]] = [set() for _ in range(EXPIRIES)]

    def read() -> None:
        for expiry in range(EXPIRIES):
            begin.wait(PATIENCE)
            seen[expiry] |= {registry.get("a://s") for _ in range(READS)}
            end.wait(PATIENCE)

    readers = [threading.Thread(target=read) for _ in range(READERS)]
    for reader in readers:
        reader.start()
    for expiry in range(EXPIRIES):
        answer = script.answers["s"] = Slow(canary(str(expiry)))
        clock.forward(DUE)
        begin.wait(PATIENCE)
        end.wait(PATIENCE)  # every reader has read, and the provider still has not answered
        assert answer.come.acquire(timeout=PATIENCE)
        answer.release()
        until(lambda answer=answer: registry.get("a://s") == answer.value)  # type: ignore[misc]
    for reader in readers:
        reader.join(PATIENCE)
    assert seen == [{canary("old")}] + [{canary(str(expiry))} for expiry in range(EXPIRIES - 1)]
    assert len(script.fetched) == 1 + EXPIRIES
    assert not {*script.fetchers} & {*readers}
    assert set(registry.drain()) == {("a", "", "hit")}


def test_one_reader_gives_a_stale_value_its_chance() -> None:
    """Of 16 readers of a stale value one waits for the refresh; the others have it at once."""
    script, clock = Script(), HandClock()
    registry = with_value(script, clock, soft_timeout=PATIENCE)
    answer = script.answers["s"] = Slow(canary("new"))
    clock.forward(STALE)
    served: list[str] = []
    with running(lambda: at_once(lambda: served.append(registry.get("a://s")), READERS)):
        until(lambda: len(served) == READERS - 1)
        answer.release()
    assert served == [canary("old")] * (READERS - 1) + [canary("new")]
    assert len(script.fetched) == 2
    assert registry.drain() == {("a", "", "stale"): READERS - 1, ("a", "", "ok"): 1}


def test_stale_value_of_a_provider_that_hangs() -> None:
    """When a provider hangs, all readers have the stale value, the first after SOFT_TIMEOUT."""
    script, clock = Script(), HandClock()
    registry = with_value(script, clock, soft_timeout=0.02)
    answer = script.answers["s"] = Slow(canary("late"))
    clock.forward(STALE)
    assert at_once(lambda: outcome(registry), READERS) == [canary("old")] * READERS
    answer.release()
    until(lambda: registry.get("a://s") == canary("late"))
    assert len(script.fetched) == 2


def test_no_wait_for_a_provider_that_fails() -> None:
    """Once an attempt has failed nobody waits for the next, however long SOFT_TIMEOUT is."""
    script, clock = Script(), HandClock()
    registry = with_value(script, clock, soft_timeout=PATIENCE)
    script.answers["s"] = ProviderUnavailable("down")
    clock.forward(STALE)
    assert registry.get("a://s") == canary("old")
    answer = script.answers["s"] = Slow(canary("new"))
    clock.forward(BACKOFF_OVER)
    assert at_once(lambda: outcome(registry), READERS) == [canary("old")] * READERS
    answer.release()
    until(lambda: registry.get("a://s") == canary("new"))


def test_cold_readers_of_a_provider_that_hangs() -> None:
    """Without a value all readers give up after FETCH_TIMEOUT, for one call; it is used late."""
    answer = Slow(canary("late"))
    script = Script({"s": answer})
    registry = make(alias("a", script), cache=policy(fetch_timeout=0.2))
    assert at_once(lambda: outcome(registry), READERS) == [ProviderUnavailable] * READERS
    assert len(script.fetched) == 1
    assert outcome(registry) is ProviderUnavailable  # and nobody waits for it any more
    answer.release()
    until(lambda: outcome(registry) == canary("late"))
    assert len(script.fetched) == 1


def test_provider_that_hangs_has_threads_of_its_own() -> None:
    """However many keys hang at one provider, another one, and another region, go on."""
    hung = [f"hung{number}" for number in range(3 * THREADS)]
    answer = Slow(canary("late"))
    script = Script(dict.fromkeys(hung, answer) | {"s": canary()})
    registry = make(alias("a", script), alias("b", script), cache=policy(fetch_timeout=PATIENCE))
    readers = [
        threading.Thread(target=outcome, args=(registry, f"a://{name}"), daemon=True)
        for name in hung
    ]
    for reader in readers:
        reader.start()
    for _ in range(THREADS):
        assert answer.come.acquire(timeout=PATIENCE)
    assert registry.get("b://s") == canary()
    assert registry.get("a://s?region=elsewhere") == canary()
    assert not answer.come.acquire(blocking=False)  # the rest of the keys wait in the queue
    answer.release()
    for reader in readers:
        reader.join(PATIENCE)


def test_fetch_that_froze() -> None:
    """A fetch that froze hours ago, unnoticed, does not cost the next reader the answer.

    A server that stops its threads between requests (uWSGI without ``enable-threads``) and a
    machine that was suspended leave such fetches behind.
    """
    script, clock = Script(), HandClock()
    registry = with_value(script, clock)
    frozen = script.answers["s"] = Slow(canary("frozen"))
    clock.forward(DUE)
    assert registry.get("a://s") == canary("old")
    assert frozen.come.acquire(timeout=PATIENCE)
    clock.forward(10 * 3600)  # past MAX_STALE too
    script.answers["s"] = canary("new")
    assert registry.get("a://s") == canary("new")
    frozen.release()


# -- no threads --


@contextmanager
def no_new_threads() -> Iterator[None]:
    """Let no thread start: none has an address space with room for such a stack."""
    before = threading.stack_size(1 << 46)
    try:
        with pytest.raises(RuntimeError):
            threading.Thread(target=print).start()
        yield
    finally:
        threading.stack_size(before)


def test_no_thread_can_be_started() -> None:
    """Where no thread can be started the reader fetches itself, whatever the state."""
    script, clock = Script({"s": canary("0")}), HandClock()
    registry = make(alias("a", script), clock=clock, cache=policy())
    with no_new_threads():
        assert registry.get("a://s") == canary("0")
        script.answers["s"] = canary("1")
        clock.forward(DUE)
        assert registry.get("a://s") == canary("0")
        assert registry.get("a://s") == canary("1")
        script.answers["s"] = canary("2")
        clock.forward(STALE)
        assert registry.get("a://s") == canary("2")
        script.answers["s"] = ProviderUnavailable("down")
        clock.forward(STALE)
        assert registry.get("a://s") == canary("2")
        registry.evict("a://s")
        clock.forward(BACKOFF_OVER)
        assert outcome(registry) is ProviderUnavailable
    assert {*script.fetchers} == {threading.current_thread()}


def test_threads_that_can_be_started_again() -> None:
    """Once threads can be started again, readers fetch no more."""
    script, clock = Script({"s": canary("0")}), HandClock()
    registry = make(alias("a", script), clock=clock, cache=policy())
    with no_new_threads():
        registry.get("a://s")
    script.answers["s"] = canary("1")
    clock.forward(STALE)
    assert registry.get("a://s") == canary("1")
    assert script.fetchers[-1] is not threading.current_thread()


def test_exception_thrown_into_a_thread(caplog: pytest.LogCaptureFixture) -> None:
    """An exception that is thrown into an idle thread of the pool does not end it."""
    pool = DaemonPool(1, name="pool-under-test")
    threads: list[threading.Thread] = []
    pool.submit(lambda: threads.append(threading.current_thread()))
    until(lambda: len(threads) == 1)
    throw = ctypes.pythonapi.PyThreadState_SetAsyncExc
    throw(ctypes.c_ulong(threads[0].ident or 0), ctypes.py_object(SystemExit))
    for wanted in (2, 3):
        pool.submit(lambda: threads.append(threading.current_thread()))
        until(lambda wanted=wanted: len(threads) == wanted)  # type: ignore[misc]
    assert threads == threads[:1] * 3
    assert "failed" in caplog.text


def test_fork_that_nobody_tells_of() -> None:
    """A child that was forked past Python, as uWSGI does it, has threads and clients of its own.

    It fetches what its parent did not, while the parent's pool is idle, and keeps what it did.
    """
    code = """
        import ctypes, os, threading
        from tests.canary import canary
        from tests.scripted import Script, alias, make

        script = Script({"s": canary("s"), "t": canary("t")})
        registry = make(alias("a", script))
        assert registry.get("a://s") == canary("s")
        child = ctypes.PyDLL(None).fork()
        if child == 0:
            try:
                assert registry.get("a://s") == canary("s")
                assert len(script.fetched) == 1
                assert registry.get("a://t") == canary("t")
                assert script.builds == [("a", "")] * 2
                registry.evict("a://s")
                assert registry.get("a://s") == canary("s")
                assert registry.snapshot().pid == os.getpid()
            except BaseException as error:
                print(f"{type(error).__name__}: {error}", flush=True)
                os._exit(1)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert registry.get("a://t") == canary("t")
        assert script.builds == [("a", "")]
    """
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
