"""What the fork tests run: each scenario in an interpreter of its own, so that pytest never forks.

``python -m tests.forking NAME`` prints as JSON what the scenario returns.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import tests.unmeasured  # noqa: F401 - before the package
from django_secret_registry import SecretRegistry
from django_secret_registry.lifecycle import CachePolicy
from django_secret_registry.references import SecretRef
from django_secret_registry.specs import Derived
from django_secret_registry.values import SecretValue
from tests.loads import DUE, Bench, value
from tests.scripted import Gate, HandClock, Script, alias, make

#: Seconds after which a child that hangs is killed.
HANGS = 15


def in_child(function: Callable[[], Any]) -> Any:
    """Fork, call ``function`` in the child, and return what it returned, or how the child died."""
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(HANGS)  # kills the child, wherever it hangs
        try:
            os.write(writable, json.dumps(function()).encode())
        except BaseException as error:
            os.write(writable, json.dumps(f"{type(error).__name__}: {error}").encode())
        os._exit(0)
    os.close(writable)
    with os.fdopen(readable) as answer:
        text = answer.read()
    _, status = os.waitpid(pid, 0)
    return json.loads(text) if text else f"the child died: status {status}"


def values() -> Any:
    """Fork with values of every age: which of them does the child hold, and what does it fetch?"""
    script, clock = Script({"plain": "a", "leased": lambda ref: leased}), HandClock()
    leased = SecretValue("b", version="1", expires_at=clock() + 10_000)  # type: ignore[arg-type]
    registry = make(alias("t", script), clock=clock)
    for name in ("plain", "leased", "gone"):
        registry.get(f"t://{name}", None)
        registry.get(f"t://{name}", None)
    clock.forward(100.0)
    script.fetched.clear()

    def child() -> Any:
        counts = list(registry.drain().values())
        states = {info.key.name: (info.state, info.age) for info in registry.snapshot().secrets}
        got = [registry.get(f"t://{name}", None) for name in ("plain", "leased", "gone")]
        fetched = [ref.name for ref in script.fetched]
        return counts, states, got, fetched, len(registry.drain())

    return in_child(child), [ref.name for ref in script.fetched]


def locked() -> Any:
    """Fork while another thread holds the cache's lock."""
    gate, main = Gate(), threading.get_ident()
    script = Script({"db": "a", "other": "b"})
    clock = HandClock()

    def stopping() -> float:
        if threading.get_ident() != main and threading.current_thread().name == "holder":
            gate.stop()
        return clock()

    registry = SecretRegistry(clock=stopping, wall=clock)
    registry.configure(make(alias("t", script)).config)
    registry.get("t://db")
    holder = threading.Thread(target=registry._resolver.cache.snapshot, name="holder")
    holder.start()
    gate.wait()
    result = in_child(lambda: [registry.get("t://db"), registry.get("t://other")])
    gate.open()
    holder.join()
    return result


def flying() -> Any:
    """Fork while first fetches are under way in every thread of the pool."""
    gate, main = Gate(), os.getpid()
    script = Script()

    def answer(ref: SecretRef) -> str:
        if os.getpid() == main:
            gate.stop()
        return "a"

    names = [f"n{number}" for number in range(12)]
    script.answers = dict.fromkeys(names, answer)
    registry = make(alias("t", script))
    readers = [threading.Thread(target=registry.get, args=(f"t://{name}",)) for name in names]
    for reader in readers:
        reader.start()
    gate.wait()

    def child() -> Any:
        states = {info.state for info in registry.snapshot().secrets}
        return sorted(states), [registry.get(f"t://{name}") for name in names]

    result = in_child(child)
    gate.open()
    for reader in readers:
        reader.join()
    return result


def mapping() -> Any:
    """Fork while another thread is inside a .map function."""
    gate, main = Gate(), os.getpid()

    def slow(value: str) -> str:
        if os.getpid() == main:
            gate.stop()
        return value + "!"

    registry = make(alias("t", Script({"db": "a"})))
    setting = Derived("t://db", (slow,))
    reader = threading.Thread(target=registry.get, args=(setting,))
    reader.start()
    gate.wait()
    result = in_child(lambda: registry.get(setting))
    gate.open()
    reader.join()
    return result


class Sticky(str):
    """A name at whose so-manyth hash a thread (not the main one, which forks) stops.

    Every step of a change looks its key up in some dictionary; so a fork can be made between any
    two of them.
    """

    __slots__ = ()
    left = 0
    gate = Gate()

    def __hash__(self) -> int:
        if Sticky.left and threading.current_thread() is not threading.main_thread():
            Sticky.left -= 1
            if not Sticky.left:
                Sticky.gate.stop()
        return super().__hash__()


def changing(change: str) -> Any:
    """Fork at every step of a change that another thread makes; what the child finds amiss."""
    steps, amiss = 0, []
    while True:
        steps += 1
        bench = Bench(max_entries=3)
        name = Sticky("db")
        for known in ("a", name, "b"):
            bench.answer(known, "1")
            bench.publish(known)
        bench.answer(name, "2")
        changes: dict[str, Callable[[], Any]] = {
            "evict": lambda bench=bench: bench.evict("db"),
            "refresh": lambda bench=bench, name=name: bench.refresh(name),
            "publish": lambda bench=bench, name=name: bench.publish(name),
            "room": lambda bench=bench: [bench.read(f"new{number}") for number in range(4)],
        }
        for number in range(4):
            bench.answer(f"new{number}", "1")
        Sticky.gate, Sticky.left = Gate(), steps
        changer = threading.Thread(target=changes[change], name="changer")
        changer.start()
        while changer.is_alive() and not Sticky.gate._reached.wait(0.001):
            pass
        if not Sticky.gate._reached.is_set():
            changer.join()
            return {"steps": steps - 1, "amiss": amiss}
        amiss += [f"step {steps}: {what}" for what in in_child(functools.partial(inspect, bench))]
        Sticky.gate.open()
        changer.join()


def inspect(bench: Bench) -> list[str]:
    """Return what is wrong with a cache that was forked in the middle of a change."""
    bench.cache.after_fork()
    wrong = []
    bench.cache.evict(lambda key: True, reason="operator")
    if bench.cache.slots:
        wrong.append(f"{list(bench.cache.slots)} can still be hit after an eviction")
    for number in range(10):
        bench.answer(f"more{number}", "1")
        bench.read(f"more{number}")
    if len(bench.cache.snapshot()) != 3:
        wrong.append(f"{len(bench.cache.snapshot())} entries where there is room for 3")
    return wrong


def children() -> Any:
    """Fork eight children of a warmed parent, each of which fetches its own and shared secrets."""
    script = Script({f"n{number}": lambda ref: f"value of {ref.name}" for number in range(9)})
    registry = make(alias("t", script), cache=CachePolicy(ttl=1e-9))
    registry.get("t://n8")

    def child(own: str) -> Any:
        wrong = []
        for _ in range(50):
            for name in (own, "n8"):
                got = registry.get(f"t://{name}")
                if got != f"value of {name}":
                    wrong.append(got)
        return wrong

    return [in_child(lambda own=f"n{number}": child(own)) for number in range(8)]


def refreshing() -> Any:
    """Fork while a due value is refreshed in the background."""
    bench = Bench()
    bench.answer("db", "1")
    bench.publish()
    bench.forward(DUE)
    bench.answer("db", "2")
    gate = Gate()
    bench.answer("db", lambda: gate.stop() or value("2"))
    bench.read()
    gate.wait()

    def child() -> Any:
        bench.cache.after_fork()
        bench.answer("db", "3")
        first = bench.read()
        bench.landed(2)
        return first, bench.read(), bench.info().hits

    result = in_child(child)
    gate.open()
    bench.landed(2)
    return result, bench.read()


if __name__ == "__main__":
    scenario, *arguments = sys.argv[1:]
    json.dump(globals()[scenario](*arguments), sys.stdout)
