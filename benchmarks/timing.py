"""Medians of interleaved rounds: on a busy machine only ratios of one run mean anything.

Loops of one thread are measured by its CPU time: they wait for nothing, so on an idle machine that
is the time they take, and on a busy one what others do in between does not count.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Mapping

#: Runs a statement ``n`` times; returns the seconds of CPU that took.
Loop = Callable[[int], float]

ROUNDS = 15


def loop(statement: str, **names: object) -> Loop:
    """Return a loop around ``statement`` with nothing else in it, names bound as globals."""
    scope = {"_clock": time.thread_time, **names}
    source = (
        "def run(n):\n"
        "    start = _clock()\n"
        "    for _ in range(n):\n"
        f"        {statement}\n"
        "    return _clock() - start\n"
    )
    exec(source, scope)  # noqa: S102 - a benchmark's own text
    return scope["run"]  # type: ignore[return-value]


def compare(loops: Mapping[str, Loop], *, budget: float = 0.03) -> dict[str, float]:
    """Return the median seconds per call of each, measured in turns of ``budget`` seconds."""
    counts = {}
    for name, run in loops.items():
        run(100)  # the first call may do what the others need not
        count = 1
        while (took := run(count)) < budget / 4 and count < 10**7:
            count *= 4
        counts[name] = max(1, int(count * budget / max(took, 1e-9)))
    samples: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(ROUNDS):
        for name, run in loops.items():
            samples[name].append(run(counts[name]) / counts[name])
    return {name: statistics.median(taken) for name, taken in samples.items()}


def throughput(run: Loop, threads: int, count: int) -> float:
    """Return calls per second of ``threads`` threads together, begun at one barrier."""
    barrier = threading.Barrier(threads + 1)

    def work() -> None:
        barrier.wait()
        run(count)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    barrier.wait()
    start = time.perf_counter()
    for worker in workers:
        worker.join()
    return threads * count / (time.perf_counter() - start)


def kept(run: Loop, *, threads: int = 8, count: int = 200_000) -> float:
    """Return what ``threads`` threads keep, in total, of one thread's throughput."""
    ratios = []
    for _ in range(5):
        one = throughput(run, 1, count)
        ratios.append(throughput(run, threads, count // threads) / one)
    return statistics.median(ratios)
