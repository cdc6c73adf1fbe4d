"""The processes of the fleet: each reads one secret all the time, and notes what it was given."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import select
import signal
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

from django_secret_registry import SecretRegistry
from django_secret_registry.specs import FleetSpec
from tests.scripted import Script, alias, config

REF = "t://db"
#: Seconds between two reads of a process.
EVERY = 0.02


def registry_of(spec: FleetSpec) -> SecretRegistry:
    """Return a registry whose one secret is the time at which it was fetched."""
    registry = SecretRegistry()
    script = Script({"db": lambda ref: repr(time.monotonic())})
    registry.configure(config(alias("t", script), fleet=spec))
    return registry


class Moment:
    """A time that all processes see: values that were fetched before it are stale from then on."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 8)

    def set(self) -> float:
        now = time.monotonic()
        self._shared[:] = struct.pack("d", now)
        return now

    def get(self) -> float:
        value: float = struct.unpack("d", self._shared[:])[0]
        return value


class Process:
    """One worker; ``notes`` asks it for what it has noted since the last time."""

    def __init__(self, spec: FleetSpec, moment: Moment) -> None:
        asks, self._asks = os.pipe()
        self._notes, notes = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            with contextlib.suppress(BaseException):
                # The proxy's sockets among them: it could not close them while others have them.
                ours = sorted((asks, notes))
                os.closerange(3, ours[0])
                os.closerange(ours[0] + 1, ours[1])
                os.closerange(ours[1] + 1, 4096)
                _work(spec, moment, asks, notes)
            os._exit(0)
        os.close(asks)
        os.close(notes)

    def notes(self) -> dict[str, Any]:
        os.write(self._asks, b"?")
        text = b""
        while not text.endswith(b"\n"):
            if not select.select([self._notes], [], [], 60)[0]:
                raise RuntimeError(f"process {self.pid} hangs")
            text += os.read(self._notes, 65536)
        found: dict[str, Any] = json.loads(text)
        return found

    def kill(self, number: int) -> None:
        os.kill(self.pid, number)

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._asks)
        os.close(self._notes)


def _work(spec: FleetSpec, moment: Moment, asks: int, notes: int) -> None:
    registry = registry_of(spec)
    registry.start()
    stale: dict[float, float] = {}
    errors, slowest, oldest = 0, 0.0, 0.0
    while True:
        if select.select([asks], [], [], EVERY)[0]:
            if not os.read(asks, 1):
                return
            said = {
                "stale": list(stale.items()), "errors": errors, "slowest": slowest,
                "oldest": oldest, "blind": registry.fleet.blind, "joined": registry.fleet.joined,
            }  # fmt: skip
            os.write(notes, json.dumps(said).encode() + b"\n")
            stale, errors, slowest, oldest = {}, 0, 0.0, 0.0
            continue
        since, began = moment.get(), time.monotonic()
        try:
            fetched = float(registry.get(REF))
        except Exception:
            errors += 1
            continue
        now = time.monotonic()
        slowest = max(slowest, now - began)
        oldest = max(oldest, began - fetched)
        # By the time at which the read began: what comes later can look at nothing newer.
        behind = began - since if fetched < since else 0.0
        if since:
            stale[since] = max(stale.get(since, 0.0), behind)


@contextlib.contextmanager
def fleet_of(count: int, spec: FleetSpec, moment: Moment) -> Iterator[list[Process]]:
    """Run so many workers, from the moment all of them have joined."""
    processes: list[Process] = []
    try:
        for _ in range(count):
            processes.append(Process(spec, moment))  # noqa: PERF401 - each is ended, come what may
        until(lambda: all(process.notes()["joined"] for process in processes), 60)
        yield processes
    finally:
        for process in processes:
            process.end()


def until(condition: Callable[[], bool], seconds: float) -> float:
    """Wait for a condition; return the seconds that took."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() > began + seconds:
            raise RuntimeError("it does not come about")
        time.sleep(0.1)
    return time.monotonic() - began
