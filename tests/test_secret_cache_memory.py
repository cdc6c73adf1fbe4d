"""What is evicted is gone: nothing of the cache leads to it, without the help of the collector."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator, Mapping

import pytest

from django_secret_registry.lifecycle import SecretKey
from django_secret_registry.references import SecretRef
from django_secret_registry.values import SecretStr, SecretValue
from django_secret_registry.warming import Warmable, warm
from tests.canary import canary
from tests.loads import DUE, STALE, Bench
from tests.scripted import PATIENCE, Gate, running, until


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    """Have cycles stay where they are."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Vault:
    """The ``load`` of a cache, which keeps a list of what it gave away."""

    def __init__(self) -> None:
        self.gave: list[SecretStr] = []
        self.gate: Gate | None = None

    def __call__(self, refs: Mapping[SecretKey, SecretRef]) -> Mapping[SecretKey, SecretValue]:
        if self.gate is not None:
            self.gate.stop()
        texts = [SecretStr(canary(f"value-{len(self.gave)}-{key.name}")) for key in refs]
        self.gave += texts
        values = [SecretValue(text, version=str(number)) for number, text in enumerate(texts)]
        return dict(zip(refs, values, strict=True))

    def held(self) -> list[object]:
        """Return what still leads to any of the values."""
        given = tuple(self.gave)  # of the call itself, which Python 3.13 counts
        return [
            one for one in gc.get_referrers(*given) if one is not self.gave and one is not given
        ]


def read(bench: Bench, vault: Vault) -> None:
    bench.hold()


def hit(bench: Bench, vault: Vault) -> None:
    bench.publish()
    for _ in range(3):
        bench.hit()


def hit_stale(bench: Bench, vault: Vault) -> None:
    bench.publish()
    bench.forward(STALE)
    bench.publish()
    bench.hit()


def refresh(bench: Bench, vault: Vault) -> None:
    bench.publish()
    bench.hit()
    bench.cache.refresh(bench.ask())


def refresh_ahead(bench: Bench, vault: Vault) -> None:
    bench.publish()
    bench.forward(DUE)
    bench.hold()
    bench.landed(2)


def aread(bench: Bench, vault: Vault) -> None:
    async def main() -> None:
        await asyncio.gather(*(bench.cache.aread(bench.ask()) for _ in range(3)))

    asyncio.run(main())


def prefetch(bench: Bench, vault: Vault) -> None:
    vault.gate, called = Gate(), threading.Event()
    asks = [bench.ask(name) for name in "ab"]
    call = bench.cache.prefetch(asks)
    call.then(called.set)
    vault.gate.open()
    assert called.wait(PATIENCE)
    call.results()


def warming(bench: Bench, vault: Vault) -> None:
    vault.gate = Gate()
    asks = [bench.ask(name)._replace(batch_size=2) for name in "abcd"]
    items = [Warmable(ask.key.name, ask, lambda held: held.answer) for ask in asks]
    with running(lambda: warm(items, bench.cache.prefetch, max_workers=1)):
        vault.gate.wait()
        vault.gate.open()


@pytest.mark.parametrize(
    "use", [read, hit, hit_stale, refresh, refresh_ahead, aread, prefetch, warming]
)
def test_nothing_leads_to_an_evicted_value(use: Callable[[Bench, Vault], None]) -> None:
    """However a value was fetched and read, it is free as soon as it is evicted."""
    vault = Vault()
    bench = Bench(load=vault, soft_timeout=PATIENCE)
    use(bench, vault)
    bench.cache.evict(lambda key: True, reason="operator")
    until(lambda: not vault.held())  # a thread of the pool may be about to let go of its call
    assert vault.gave
