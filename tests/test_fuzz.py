"""Whatever is read from outside: an answer of a provider, a message of the bus, a worker's report.

What people write is fuzzed where it is read: references in test_references, settings in test_conf
and test_checks, keys, pointers and payloads in test_extract.
"""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from django_secret_registry.exceptions import SecretError
from django_secret_registry.fleet import bus, reports
from django_secret_registry.fleet.bus import BusEvent, BusUnavailable, Cursor, Report, decode
from django_secret_registry.fleet.cache import CacheBus
from django_secret_registry.values import SecretValue
from tests.canary import CANARY, canary
from tests.canary_check import leaks_of
from tests.fixtures import hostile
from tests.hostile_backends import CASES
from tests.servers.hostile import Hostile
from tests.servers.https import Answer

server = hostile.server

leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.just(canary("leaf"))
    | st.just("9" * 5000)
)
#: Past the limit of every Python.
DEEP = "[" * 100_000
documents = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def dumped(document: Any) -> str:
    return json.dumps(document)


# -- answers of providers --------------------------------------------------------------------------


def places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = document.items() if isinstance(document, dict) else ()
    for key, value in items:
        yield from places(value, (*path, key))


@st.composite
def bodies(draw: st.DrawFn, right: bytes) -> bytes:
    """Draw what resembles the right answer: one place of it changed, a part of it, or anything."""
    kind = draw(st.sampled_from(["place", "part", "bytes", "document"]))
    if kind == "bytes":
        return draw(st.binary(max_size=200)) + canary().encode()
    if kind == "document":
        return dumped(draw(documents)).encode()
    if kind == "part" or not right.startswith(b"{"):
        start, end = sorted(draw(st.tuples(*[st.integers(0, len(right))] * 2)))
        return right[:start] + draw(st.binary(max_size=4)) + right[end:]
    document = {"": copy.deepcopy(json.loads(right))}
    path = draw(st.sampled_from([*places(document)][1:]))
    parent: Any = document
    for key in path[:-1]:
        parent = parent[key]
    if draw(st.booleans()):
        parent[path[-1]] = draw(documents)
    else:
        del parent[path[-1]]
    return dumped(document.get("")).encode()


@pytest.mark.full
@pytest.mark.parametrize("name", CASES)
def test_any_answer_is_a_value_or_an_error_of_ours(
    server: Hostile, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a server says, and with whatever status: nothing else is raised, and no text of it
    is shown."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(server.ca_file))
    case = CASES[name]
    provider = case.build(server, tmp_path)

    @settings(
        max_examples=40,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(
        body=bodies(case.wrap(canary())),
        status=st.sampled_from([200, 200, 200, 201, 204, 400, 401, 403, 404, 500]),
        content=st.sampled_from(["application/json", "text/html", "", "application/x-\xff"]),
    )
    def read(body: bytes, status: int, content: str) -> None:
        answer = Answer(status, b"" if status == 204 else body, {"Content-Type": content})
        server.say = lambda request: case.grant(request) or answer
        try:
            value = provider.fetch(case.reference, timeout=5)
        except SecretError as error:
            leaks = leaks_of(error)
        else:
            leaks = [] if isinstance(value, SecretValue) else [type(value).__name__]
            leaks += ["the value's repr"] if CANARY in repr(value.value) else []
        assert leaks == []

    with contextlib.closing(provider):
        read()


# -- messages of the bus ---------------------------------------------------------------------------

fields = st.sampled_from([*BusEvent._fields, "value", ""])
kinds = st.sampled_from([bus.EVICT, bus.EVICT_ALL, bus.REFRESH, bus.ROTATED, bus.WARM, "dance"])
messages = (
    st.binary()
    | st.text()
    | documents.map(dumped)
    | st.dictionaries(fields, leaves | kinds | st.just(1), max_size=9).map(dumped)
)


@given(messages)
@example(DEEP)
@example(b"\xff\xfe")
@example('{"version": 1e999}')
@example(dumped({"version": 1, "kind": "evict", "name": "x" * 3000}))
@example('{"version": ' + "9" * 5000 + "}")
def test_any_message_is_an_event_or_none(text: str | bytes) -> None:
    """An event that was read is one that this package could have written, but for its names."""
    event = decode(text)
    if event is None or event.version != bus.WIRE_VERSION:
        return
    assert all(type(value) is str and len(value) <= 2048 for value in event[:-1])
    assert decode(event.encode()) == event


@given(st.builds(BusEvent, *[st.text(max_size=50)] * 7, version=st.just(bus.WIRE_VERSION)))
def test_an_event_is_read_as_it_was_written(event: BusEvent) -> None:
    """Whatever stands in it."""
    assert decode(event.encode()) == event


HEAD: dict[str, Any] = {
    "host": "web",
    "pid": 1,
    "kind": "gunicorn",
    "started": 1.0,
    "mode": "strict",
    "lag": 0.1,
    "blind": False,
    "cursor": ["log", 1],
    "answers": {"nonce": [1, 0]},
}
heads = st.dictionaries(st.sampled_from([*HEAD]), documents).map(lambda one: dumped(HEAD | one))
said = st.dictionaries(
    st.just("aws://db") | st.text(min_size=1),
    messages.map(str) | st.lists(documents, min_size=6, max_size=6).map(dumped),
    max_size=3,
)


@pytest.mark.full
@given(head=heads | messages.map(str), rest=said)
@example(head=dumped(HEAD | {"cursor": []}), rest={})
@example(head=dumped(HEAD | {"answers": []}), rest={})
@example(head=dumped(HEAD | {"answers": {"nonce": []}}), rest={})
@example(head=dumped(HEAD | {"pid": 1e999}), rest={})
@example(head=DEEP, rest={})
@example(head=dumped(HEAD), rest={"aws://db": DEEP})
@example(head=dumped(HEAD), rest={"aws://db": '[{}, "now", [], 1, 1, 1]'})
def test_any_report_is_read_or_left_out(head: str, rest: dict[str, str]) -> None:
    """A worker that says nonsense is not listed, and hides nobody; what is listed can be shown."""
    right = Report("right", 0.0, {"": dumped(HEAD)})
    found = reports.read([Report("other", 0.0, {**rest, "": head}), right])
    assert "right" in {worker.name for worker in found}
    for worker in found:
        assert isinstance(worker.pid, int)
        assert isinstance(worker.lag, float)
        for there in worker.secrets.values():
            assert there.version is None or isinstance(there.version, str)
            assert isinstance(there.stale(1.0), bool)
            assert isinstance(there.fetched_at + there.attempts, float)
        reports.acks([Cursor("log", 1)], found)


class Cache:
    """Stands for a cache that anybody may write to."""

    def __init__(self, text: Any) -> None:
        self.text = text

    def get(self, key: str) -> Any:
        return self.text

    def get_many(self, keys: list[str]) -> dict[str, Any]:
        return {keys[0]: self.text}

    def add(self, *args: Any) -> bool:
        return True

    def set(self, *args: Any) -> None:
        pass


@given(messages | leaves | st.just(b"\x80"))
def test_whatever_stands_in_the_cache_the_bus_reads_it_or_is_unavailable(text: Any) -> None:
    """Each operation gives an answer, or the one error that a bus has."""
    one = CacheBus()
    for use in (
        one.workers,
        lambda: one.read_since(None, block=0),
        lambda: one.read_since(Cursor("log", 1), block=0),
        lambda: one.append(BusEvent.new(bus.EVICT, origin="web:1:a")),
        lambda: one.heartbeat("web:1", {"": "1"}, lifetime=1, anew=False),
    ):
        one._cache = Cache(text)
        with contextlib.suppress(BusUnavailable):
            use()
