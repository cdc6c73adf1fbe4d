"""Warming: many references at once, in batches per backend and in parallel across backends."""

# Annotations are evaluated here, which takes less time at start-up: see events.py.
import queue
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from .asking import Ask, Prefetch
from .exceptions import SecretError, SecretNotFound
from .lifecycle import Held, SecretKey, status_of
from .values import SecretValue

#: Calls that are under way at once, across all backends; each has a bound of its own besides.
AT_ONCE = 16


class WarmResult(NamedTuple):
    """What became of one reference.

    ``outcome`` is ``ok``, ``default`` (it does not exist, and settings have a default for it) or a
    status of ``resolve_total``. ``seconds`` is the time its batch took.
    """

    reference: str
    provider: str
    region: str
    version: str | None
    seconds: float
    outcome: str
    error: str = ""

    @property
    def failed(self) -> bool:
        """Whether its readers get an error."""
        return self.outcome not in ("ok", "default")


class Warmable(NamedTuple):
    """A reference to warm: what to fetch, and how to tell that it is usable, or may be missing."""

    text: str
    ask: Ask | None = None
    check: Callable[[Held], SecretValue] | None = None
    error: SecretError | None = None
    optional: Callable[[], bool] = bool


Answers = Mapping[SecretKey, Held | SecretError]
_Batch = Sequence[int]  # indexes of what is wanted


def warm(
    wanted: Iterable[Warmable],
    prefetch: Callable[[Sequence[Ask]], Prefetch],
    *,
    max_workers: int,
    fail_fast: bool = False,
    on_result: Callable[[WarmResult], None] | None = None,
) -> list[WarmResult]:
    """Fetch everything ``wanted``; return results in the order in which it was given.

    ``max_workers`` calls are under way at once. ``on_result`` is called in the caller's thread as
    results come. With ``fail_fast`` no call is begun after the first failure, and what was not
    tried has the outcome ``skipped``. Calls begin while ``wanted`` is still being read.
    """
    items: list[Warmable] = []
    results: dict[int, WarmResult] = {}
    batches = _Batches()
    calls = _Calls(items, prefetch)
    failed = False

    def report(index: int, result: WarmResult) -> None:
        nonlocal failed
        results[index] = result
        failed = failed or result.failed
        if on_result is not None:
            on_result(result)

    def go_on() -> None:
        while batches.full and calls.running < max(1, max_workers) and not (failed and fail_fast):
            calls.begin(batches.full.popleft())

    # The first call goes out as soon as its batch is full: planning takes time too.
    for index, item in enumerate(wanted):
        items.append(item)
        if item.error is not None or item.ask is None:
            report(index, _result(item, item.error, 0.0))
        else:
            batches.add(index, item.ask)
            go_on()
    batches.close()
    go_on()
    while calls.running:
        finished, answers, seconds = calls.next()
        for index in finished:
            report(index, _finish(items[index], answers, seconds))
        go_on()
    for batch in batches.full:
        for index in batch:
            report(index, _result(items[index], None, 0.0, outcome="skipped"))
    return [results[index] for index in range(len(items))]


class _Batches:
    """Cuts each backend's references into batches, those of one secret into the same one."""

    def __init__(self) -> None:
        #: Those that can be called, in the order in which they filled up.
        self.full: deque[_Batch] = deque()
        self._open: dict[tuple[str, str], dict[SecretKey, list[int]]] = {}

    def add(self, index: int, ask: Ask) -> None:
        where = ask.key.alias, ask.key.region
        batch = self._open.setdefault(where, {})
        # Not as soon as it is full: the next reference may be to a secret that it has.
        if len(batch) >= ask.batch_size and ask.key not in batch:
            self._close(where)
            batch = self._open.setdefault(where, {})
        batch.setdefault(ask.key, []).append(index)

    def close(self) -> None:
        """Let go of what is not full: nothing more comes."""
        for where in list(self._open):
            self._close(where)

    def _close(self, where: tuple[str, str]) -> None:
        batch = self._open.pop(where)
        self.full.append([index for indexes in batch.values() for index in indexes])


class _Calls:
    """The calls that are under way. For one thread: the backends' pools do the work."""

    def __init__(
        self, items: Sequence[Warmable], prefetch: Callable[[Sequence[Ask]], Prefetch]
    ) -> None:
        self._items = items
        self._prefetch = prefetch
        self._running: dict[int, tuple[_Batch, Prefetch, float]] = {}
        self._landed: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._serial = 0

    @property
    def running(self) -> int:
        return len(self._running)

    def begin(self, batch: _Batch) -> None:
        self._serial += 1
        serial, started = self._serial, time.monotonic()
        asks = {ask.key: ask for index in batch if (ask := self._items[index].ask) is not None}
        call = self._prefetch(tuple(asks.values()))
        self._running[serial] = batch, call, started
        call.then(lambda: self._landed.put(serial))

    def next(self) -> tuple[_Batch, Answers, float]:
        """Wait for a call to end, or for its time to be over; return its answers and seconds."""
        while True:
            oldest = next(iter(self._running))
            _, call, _ = self._running[oldest]
            try:
                serial = self._landed.get(timeout=call.left())
            except queue.Empty:  # whatever hangs, nobody waits for ever
                serial = oldest
            if serial in self._running:  # else it lands late, and its answers are in the cache
                batch, call, started = self._running.pop(serial)
                return batch, call.results(), time.monotonic() - started


def _finish(item: Warmable, answers: Answers, seconds: float) -> WarmResult:
    answer = answers.get(item.ask.key) if item.ask is not None else None
    if item.check is None or not isinstance(answer, Held):
        return _result(item, answer if isinstance(answer, SecretError) else None, seconds)
    try:
        value = item.check(answer)
    except SecretError as error:
        return _result(item, error, seconds)
    return _result(item, None, seconds, version=value.version, outcome="ok")


def _result(
    item: Warmable,
    error: SecretError | None,
    seconds: float,
    *,
    version: str | None = None,
    outcome: str = "error",
) -> WarmResult:
    if error is not None:
        outcome = status_of(error)
    if isinstance(error, SecretNotFound) and item.optional():
        outcome, error = "default", None
    return WarmResult(
        reference=item.text,
        provider=item.ask.key.alias if item.ask else (error.provider if error else ""),
        region=item.ask.key.region if item.ask else (error.region if error else ""),
        version=version,
        seconds=seconds,
        outcome=outcome,
        error=str(error) if error else "",
    )
