"""What a first read, an expiry and a warm-up cost."""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3

from django_secret_registry import registry

from .project import AWS
from .upstream import Upstream

THREADS = 64


def _at_once(read: Callable[[], object], threads: int = THREADS) -> float:
    """Return the seconds until all threads have read, begun at one barrier."""
    barrier = threading.Barrier(threads + 1)

    def work() -> None:
        barrier.wait()
        read()

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    barrier.wait()
    start = time.perf_counter()
    for worker in workers:
        worker.join()
    return time.perf_counter() - start


def cold(server: Upstream) -> dict[str, Any]:
    """64 threads read one secret that nobody has read before; the client is built."""
    latency = 0.05
    server.answer_after(latency)
    registry.get("aws://cold/first")
    times = []
    before = server.calls("GetSecretValue")
    for number in range(7):
        ref = f"aws://cold/{number}"
        times.append(_at_once(lambda ref=ref: registry.get(ref)))
    calls = server.calls("GetSecretValue") - before
    took = statistics.median(times)
    return {
        "upstream ms": latency * 1e3,
        "64 cold threads ms": took * 1e3,
        "bar ms": latency * 1.3e3 + 20,
        "calls per secret": calls / 7,
    }


def warm_up(server: Upstream) -> dict[str, Any]:
    """200 secrets at 5 ms, beside batches in parallel written by hand with such a client.

    Each keeps its client, and its open connections, from one warm-up to the next.
    """
    server.answer_after(0.005)
    names = [f"warm/{number}" for number in range(200)]
    client = boto3.session.Session(**AWS["session"]).client(  # type: ignore[call-overload]
        "secretsmanager",
        region_name="eu-central-1",
        endpoint_url=server.url,
        config=boto3.session.Config(max_pool_connections=32),
    )
    batches = [names[start : start + 20] for start in range(0, 200, 20)]

    def by_hand() -> float:
        start = time.perf_counter()
        with ThreadPoolExecutor(10) as pool:
            answers = pool.map(lambda ids: client.batch_get_secret_value(SecretIdList=ids), batches)
            held = {one["Name"]: one for answer in answers for one in answer["SecretValues"]}
        assert len(held) == 200  # noqa: S101
        return time.perf_counter() - start

    references = [f"aws://{name}" for name in names]

    def ours() -> float:
        for reference in references:
            registry.evict(reference)
        start = time.perf_counter()
        results = registry.warm(references)
        took = time.perf_counter() - start
        assert all(result.outcome == "ok" for result in results)  # noqa: S101
        return took

    by_hand()
    ours()
    before = server.calls("BatchGetSecretValue")
    pairs = [(by_hand(), ours()) for _ in range(25)]
    calls = server.calls("BatchGetSecretValue") - before
    hand, own = (statistics.median(times) for times in zip(*pairs, strict=True))
    return {
        "by hand ms": hand * 1e3,
        "registry.warm ms": own * 1e3,
        "warm over by hand": own / hand,
        "calls per warm-up": calls / 25 - 10,
    }


def event_loop(server: Upstream) -> dict[str, Any]:
    """1,000 tasks read 50 cold secrets; how long the loop was ever kept from running.

    The threads of the pool work meanwhile and hold the GIL: what the loop's own thread did is told
    apart by its CPU time.
    """
    server.answer_after(0.02)
    registry.get_provider("aws")
    pauses: list[float] = []

    async def watch(stop: asyncio.Event) -> None:
        last = time.perf_counter()
        while not stop.is_set():
            await asyncio.sleep(0)
            now = time.perf_counter()
            pauses.append(now - last)
            last = now

    async def main() -> tuple[float, float]:
        stop = asyncio.Event()
        watcher = asyncio.create_task(watch(stop))
        start, work = time.perf_counter(), time.thread_time()
        await asyncio.gather(*(registry.aget(f"aws://loop/{n % 50}") for n in range(1000)))
        took = time.perf_counter() - start, time.thread_time() - work
        stop.set()
        await watcher
        return took

    took, work = asyncio.run(main())
    return {
        "1,000 tasks ms": took * 1e3,
        "work of the loop's thread ms": work * 1e3,
        "longest pause of the loop ms": max(pauses) * 1e3,
    }
