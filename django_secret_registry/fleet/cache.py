"""The bus in Django's cache, which has no log and wakes nobody: everything is polled for.

A log is made of what every shared cache does in one step, ``add``. An event goes into the first
free place of a numbered row; a random token says which row that is. A cache that forgets the token,
or an event, has a gap: nobody can take what is left for all there was.
"""

from __future__ import annotations

import contextlib
import json
import random
import secrets
import time
from collections.abc import Mapping
from typing import Any

from ..containers import raw
from ..providers.base import Problem
from .bus import (
    RETENTION,
    Batch,
    Bus,
    BusEvent,
    BusUnavailable,
    Cursor,
    Report,
    continues,
    decode,
    operation,
    poll,
)

#: Seconds between two looks.
_INTERVAL = 0.5
#: Places that one look takes in, and workers that there may be.
_WINDOW, _WORKERS = 32, 1024
#: Places after the end that others may take before a writer finds a free one.
_WRITERS = 1024

_REFUSED = {
    "locmem.LocMemCache": "each process has one of its own",
    "dummy.DummyCache": "it keeps nothing",
    "filebased.FileBasedCache": "its add() is not done in one step",
}


class CacheBus(Bus):
    """Keys under ``prefix`` in the cache ``cache``: Redis, Memcached, a database, all shared.

    How long a server that does not answer is waited for is the cache's own setting.
    """

    most = _WINDOW

    def __init__(self, *, cache: str = "default", prefix: str = "secret-registry") -> None:
        self._alias = cache
        self._prefix = prefix
        self._cache: Any = None
        self._place: int | None = None
        self._said: dict[str, str] = {}

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> list[Problem]:
        from django.conf import settings

        problems = super().check(options)
        alias, caches = options.get("cache", "default"), raw(settings.CACHES)
        if not isinstance(alias, str) or alias not in caches:
            known = ", ".join(caches) or "none"
            return [*problems, Problem("option 'cache' names no cache", f"Known are: {known}.")]
        backend = str(raw(caches[alias]).get("BACKEND", ""))
        for name, reason in _REFUSED.items():
            if backend == f"django.core.cache.backends.{name}":
                hint = "Name one that all processes share: Redis, Memcached or a database."
                problems.append(Problem(f"{name} cannot join processes: {reason}", hint))
        return problems

    @property
    def credentials(self) -> object:
        from django.conf import settings

        return raw(settings.CACHES).get(self._alias, ())

    # -- the four operations ---------------------------------------------------------------------

    @operation
    def append(self, event: BusEvent) -> Cursor:
        cache = self._connected()
        log, end = self._end(cache)
        # The others that write may have taken some places already. A cache that hides its failures
        # takes none at all.
        for number in range(end + 1, end + 1 + _WRITERS):
            if cache.add(self._event(log, number), event.encode(), RETENTION):
                break
        else:
            raise BusUnavailable("the cache keeps nothing")
        # Later than the event, so that it never counts what is not there; another one may
        # have set a higher number meanwhile, from which readers and writers look on by add.
        cache.set(self._log, json.dumps([log, number]), None)
        return Cursor(log, number)

    @operation
    def read_since(self, cursor: Cursor | None, *, block: float) -> Batch:
        if cursor is None:
            return self._anew()
        return poll(lambda: self._read(cursor), block, _INTERVAL)

    @operation
    def heartbeat(
        self, worker: str, changed: Mapping[str, str | None], *, lifetime: float, anew: bool
    ) -> bool:
        before = {} if anew else self._said
        said = {name: text for name, text in (before | dict(changed)).items() if text is not None}
        cache = self._connected()
        if not self._has_place(cache, worker):
            self._place = None
            if not anew:
                return False
        text = json.dumps({"worker": worker, "seen": _now(), "fields": said})
        if self._place is not None:
            cache.set(self._worker(self._place), text, lifetime)
        else:
            self._take_place(cache, text, lifetime)
        self._said = said
        return True

    @operation
    def workers(self, *, heads: bool = False) -> list[Report]:
        cache = self._connected()
        found = cache.get_many([self._worker(place) for place in range(_WORKERS)])
        now = _now()
        reports = []
        for said in filter(None, map(_report, found.values())):
            fields = {"": said["fields"].get("", "")} if heads else said["fields"]
            reports.append(Report(said["worker"], max(0.0, now - said["seen"]), fields))
        return sorted(reports, key=lambda report: report.worker)

    # -- the log ---------------------------------------------------------------------------------

    @property
    def _log(self) -> str:
        return f"{self._prefix}:log"

    def _event(self, log: str, number: int) -> str:
        return f"{self._prefix}:event:{log}:{number}"

    def _worker(self, place: int) -> str:
        return f"{self._prefix}:worker:{place}"

    def _end(self, cache: Any) -> tuple[str, int]:
        """Return the token of the row, and a place that is taken, if not the last one."""
        for _ in range(2):
            state_text = cache.get(self._log)
            state = _state(state_text)
            if state is not None:
                return state
            begin = cache.add if state_text is None else cache.set
            begin(self._log, json.dumps([secrets.token_hex(8), 0]), None)
        raise BusUnavailable("the cache keeps nothing")

    def _read(self, start: Cursor) -> Batch:
        places = range(start.number + 1, start.number + 1 + _WINDOW)
        keys = {self._event(start.log, number): number for number in places}
        cache = self._connected()
        state = _state(cache.get(self._log))
        found = cache.get_many(list(keys))
        texts = {keys[key]: text for key, text in found.items()}
        log, last = state or ("", 0)
        numbers = sorted(texts)
        # The end lags behind what stands there, never the other way round.
        if not continues(start, log, max(last, start.number if log == start.log else 0), numbers):
            return self._anew()
        events = [(number, decode(texts[number])) for number in numbers]
        end = start._replace(number=numbers[-1]) if numbers else start
        return Batch(events, end, more=len(numbers) >= _WINDOW)

    def _anew(self) -> Batch:
        cache = self._connected()
        log, number = self._end(cache)
        # The end may lag: what stands after it would be taken for new, which does no harm.
        return Batch((), Cursor(log, number), gap=True)

    # -- reports ---------------------------------------------------------------------------------

    def _has_place(self, cache: Any, worker: str) -> bool:
        if self._place is None:
            return False
        said = _report(cache.get(self._worker(self._place)))
        return said is not None and said["worker"] == worker

    def _take_place(self, cache: Any, text: str, lifetime: float) -> None:
        for place in random.sample(range(_WORKERS), _WORKERS):
            if cache.add(self._worker(place), text, lifetime):
                self._place = place
                return
        raise BusUnavailable(f"there are more than {_WORKERS} workers")

    # -- connecting ------------------------------------------------------------------------------

    def _connected(self) -> Any:
        from django.core.cache import caches

        if self._cache is None:
            self._cache = caches.create_connection(self._alias)
        return self._cache

    def failure(self, error: Exception) -> BusUnavailable | None:
        # Of whatever client the cache has.
        return BusUnavailable(f"the cache does not answer: {type(error).__name__}")

    def close(self) -> None:
        cache, self._cache = self._cache, None
        if cache is not None:
            with contextlib.suppress(Exception):
                cache.close()


def _state(text: Any) -> tuple[str, int] | None:
    match _parsed(text):
        case [str() as log, int() as number]:
            return log, number
    return None


def _report(text: Any) -> dict[str, Any] | None:
    said: Any = _parsed(text)
    match said:
        case {"worker": str(), "seen": int() | float(), "fields": dict()}:
            return dict(said)
    return None


def _parsed(text: Any) -> Any:
    """Return what a text says that somebody may have written who is none of us."""
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return None


def _now() -> float:
    """Return this host's time, to be compared with other hosts': a cache tells none."""
    return time.time()
