"""What workers say of themselves over the bus: names, versions and times, never a value."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

from ..lifecycle import SecretInfo
from .bus import Cursor, Report, is_text

if TYPE_CHECKING:
    from ..resolver import Snapshot

#: Seconds between heartbeats. A worker that misses one is blind, and after two it is gone.
HEARTBEAT = 5.0
LIFETIME = 2 * HEARTBEAT
#: Seconds that a heartbeat may be late.
_LATE = 1.5
#: Secrets that one report names.
_MOST = 2000
#: What comes of a text that is no report.
_UNREADABLE = ValueError, TypeError, LookupError, AttributeError, RecursionError
#: The field that changes with each heartbeat; every other one is a secret's reference.
HEAD = ""


class SecretThere(NamedTuple):
    """A secret in a worker. Times are POSIX seconds; ``None``: never."""

    reference: str
    version: str | None
    fetched_at: float
    due_at: float | None
    stale_at: float | None
    attempts: int
    last_status: str

    def stale(self, now: float) -> bool:
        """Whether its TTL is over."""
        return self.stale_at is not None and now >= self.stale_at


class WorkerInfo(NamedTuple):
    """A worker as it last reported; ``age`` of the report and ``lag`` in seconds.

    ``lag`` is how long ago it knew for certain that it had read the whole log. ``blind``: it says
    or shows that it cannot.
    """

    name: str
    host: str
    pid: int
    kind: str
    started: float
    mode: str
    age: float
    lag: float
    blind: bool
    cursor: Cursor | None
    secrets: Mapping[str, SecretThere]
    answers: Mapping[str, tuple[int, int]]


class Acks(NamedTuple):
    """How far an event has come: of ``total`` workers, how many applied it, and who could not."""

    total: int
    applied: int
    blind: int

    @property
    def waiting(self) -> int:
        """How many are expected to apply it still."""
        return self.total - self.applied - self.blind

    def __str__(self) -> str:
        text = f"{self.applied} of {self.total} applied"
        return f"{text}, {self.blind} blind" if self.blind else text


def kind_of_process() -> str:
    """Return the name of the program: ``gunicorn``, ``celery``, ``manage.py``."""
    return PurePath(sys.argv[0] if sys.argv else "").name[:32] or "python"


def fields(
    snapshot: Snapshot,
    *,
    kind: str,
    mode: str,
    lag: float,
    blind: bool,
    cursor: Cursor | None,
    answers: Mapping[str, tuple[int, int]],
) -> dict[str, str]:
    """Return a worker's report: the head, and a field for each secret that it holds."""
    head = {
        "host": snapshot.host,
        "pid": snapshot.pid,
        "kind": kind,
        "started": round(snapshot.started, 3),
        "mode": mode,
        "lag": round(lag, 3) if math.isfinite(lag) else None,
        "blind": blind,
        "cursor": list(cursor[:2]) if cursor is not None else None,
        "answers": dict(answers),
    }
    held = [info for info in snapshot.secrets if info.age is not None]
    said = {info.reference: _dumps(_facts(info, snapshot.taken)) for info in held[:_MOST]}
    return {HEAD: _dumps(head), **said}


def _facts(info: SecretInfo, now: float) -> list[Any]:
    # Whole seconds: what is told anew each time because of its microseconds is no delta.
    age = info.age or 0.0
    stale_in = None if info.ttl is None else info.ttl - age
    return [
        None if info.version is None else str(info.version),
        round(now - age),
        None if info.due_in is None else round(now + info.due_in),
        None if stale_in is None else round(now + stale_in),
        info.attempts,
        info.last_status,
    ]


def read(reports: Iterable[Report]) -> list[WorkerInfo]:
    """Return what workers said; a report that is none is left out, whoever wrote it."""
    found = []
    for report in reports:
        with contextlib.suppress(*_UNREADABLE):
            found.append(_worker(report))
    return found


def _worker(report: Report) -> WorkerInfo:
    head = json.loads(report.fields[HEAD])
    cursor, lag = head["cursor"], head["lag"]
    return WorkerInfo(
        name=_text(report.worker),
        host=_text(head["host"]),
        pid=_count(head["pid"]),
        kind=_text(head["kind"]),
        started=_time(head["started"]),
        mode=_text(head["mode"]),
        age=report.age,
        lag=math.inf if lag is None else _time(lag) + report.age,
        blind=bool(head["blind"]) or report.age > HEARTBEAT + _LATE,
        cursor=None if cursor is None else Cursor(_text(cursor[0]), _count(cursor[1])),
        secrets={there.reference: there for there in _secrets(report.fields)},
        answers={
            _text(nonce): (_count(ok), _count(failed))
            for nonce, (ok, failed) in head["answers"].items()
        },
    )


def _secrets(fields: Mapping[str, str]) -> Iterator[SecretThere]:
    """Yield what a worker holds, as far as it can be read: the others are held all the same."""
    for reference, text in itertools.islice(fields.items(), _MOST + 1):
        if reference != HEAD:
            with contextlib.suppress(*_UNREADABLE):
                yield _secret(reference, json.loads(text))


def _secret(reference: str, facts: Any) -> SecretThere:
    version, fetched_at, due_at, stale_at, attempts, last_status = facts
    return SecretThere(
        _text(reference),
        None if version is None else _text(version),
        _time(fetched_at),
        None if due_at is None else _time(due_at),
        None if stale_at is None else _time(stale_at),
        _count(attempts),
        _text(last_status),
    )


def _text(value: Any) -> str:
    if not is_text(value):
        raise ValueError
    return str(value)


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError
    return value


def _time(value: Any) -> float:
    """Return seconds that a calendar has, or a span."""
    if type(value) not in (int, float) or not 0 <= value < 1e11:
        raise ValueError
    return float(value)


def acks(cursors: Iterable[Cursor], workers: Iterable[WorkerInfo]) -> Acks:
    """Return how many of ``workers`` have read all events that stand at ``cursors``."""
    wanted = list(cursors)
    total = applied = blind = 0
    for worker in workers:
        total += 1
        here = worker.cursor
        if here is not None and all(here.reached(cursor) for cursor in wanted):
            applied += 1
        elif worker.blind:
            blind += 1
    return Acks(total, applied, blind)


def _dumps(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
