"""What every bus does, whatever engine carries its log: one suite that runs against each driver."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest

from django_secret_registry.fleet.bus import Bus, BusEvent, BusUnavailable, Cursor
from tests.scripted import at_once, running

#: Seconds that a read may wait in a test that means to be woken long before.
LONG = 10.0


def event(name: str = "prod/db", kind: str = "evict") -> BusEvent:
    return BusEvent.new(kind, "aws", "eu-west-1", "", name, origin="web:1:a")


def names(batch: Any) -> list[str]:
    return [one.name for _, one in batch.events]


class BusConformance:
    """A test class; a subclass has the fixtures ``make`` (a new bus on the same engine each time),
    ``forget`` (the engine loses all it holds) and ``broken`` (a bus whose engine is not there).
    """

    def test_what_is_appended_is_read_in_order_from_ones_own_place(self, make):
        """Two readers get all events, each once, whatever the other has read."""
        writer, readers = make(), [make(), make()]
        starts = [reader.read_since(None, block=0).cursor for reader in readers]
        sent = [event("a"), event("b"), event("c", kind="refresh")]
        places = [writer.append(one) for one in sent]
        for reader, start in zip(readers, starts, strict=True):
            batch = reader.read_since(start, block=0)
            assert [one for _, one in batch.events] == sent
            assert not batch.gap
            assert batch.cursor.reached(places[-1])
            again = reader.read_since(batch.cursor, block=0)
            assert (list(again.events), again.cursor) == ([], batch.cursor)

    def test_who_joins_begins_at_the_end(self, make):
        """A newcomer is told that it may have missed something, and reads what comes after."""
        make().append(event("before"))
        bus = make()
        joined = bus.read_since(None, block=0)
        assert (list(joined.events), joined.gap) == ([], True)
        make().append(event("after"))
        assert names(bus.read_since(joined.cursor, block=0)) == ["after"]

    def test_a_read_that_waits_is_woken_by_an_event(self, make):
        """An event is there long before the wait is over."""
        reader, writer = make(), make()
        start = reader.read_since(None, block=0).cursor
        waiting = threading.Event()

        def read() -> Any:
            waiting.set()
            return reader.read_since(start, block=LONG), time.monotonic()

        with running(read) as outcome:
            waiting.wait()
            sent = time.monotonic()
            writer.append(event("woken"))
        batch, seen = outcome[0]
        assert names(batch) == ["woken"]
        assert seen - sent < LONG / 2

    def test_a_read_that_waits_in_vain_ends(self, make):
        """Nothing came: the place is the same, and there is no gap."""
        bus = make()
        start = bus.read_since(None, block=0).cursor
        batch = bus.read_since(start, block=0.1)
        assert (list(batch.events), batch.cursor, batch.gap) == ([], start, False)

    def test_events_that_are_appended_at_once_are_all_there(self, make):
        """Numbers have no gaps and no two events have the same, however many write."""
        reader = make()
        cursor = reader.read_since(None, block=0).cursor
        places = at_once(lambda: [make().append(event(str(n))) for n in range(5)], 4)
        numbers: list[int] = []
        while True:
            batch = reader.read_since(cursor, block=0)
            assert not batch.gap
            numbers += [number for number, _ in batch.events]
            cursor = batch.cursor
            if not batch.events:
                break
        assert numbers == sorted(place.number for some in places for place in some)
        assert numbers == [*range(numbers[0], numbers[0] + 20)]

    def test_more_than_one_answer_holds_comes_in_several(self, make, monkeypatch):
        """Nothing is skipped, and the reader knows that there is more."""
        reader, writer = make(), make()
        reader.most = 2
        cursor = reader.read_since(None, block=0).cursor
        for name in "abcde":
            writer.append(event(name))
        found, more = [], True
        while more:
            batch = reader.read_since(cursor, block=0)
            assert not batch.gap
            found += names(batch)
            cursor, more = batch.cursor, batch.more
        assert found == [*"abcde"]

    def test_a_log_that_was_lost_is_a_gap(self, make, forget):
        """What was not read is gone: the reader is told so, and goes on from a new beginning."""
        reader, writer = make(), make()
        writer.append(event("old"))
        start = reader.read_since(None, block=0).cursor
        writer.append(event("missed"))
        forget()
        batch = reader.read_since(start, block=0)
        assert (list(batch.events), batch.gap) == ([], True)
        writer.append(event("new"))
        assert names(reader.read_since(batch.cursor, block=0)) == ["new"]

    def test_a_lost_log_is_told_apart_from_one_that_has_grown_as_long(self, make, forget):
        """The numbers may be the same again; the log is not."""
        reader, writer = make(), make()
        writer.append(event("old"))
        start = reader.read_since(None, block=0).cursor
        forget()
        make().append(event("one"))
        make().append(event("two"))
        assert reader.read_since(start, block=0).gap

    def test_a_place_in_another_log_is_a_gap(self, make):
        """A cursor that this log never gave leads nowhere."""
        bus = make()
        here = bus.read_since(None, block=0).cursor
        assert bus.read_since(here._replace(log="another"), block=0).gap

    def test_a_place_after_the_end_is_a_gap(self, make):
        """The engine has lost its latest events: by a failover, or from a backup."""
        bus = make()
        here = bus.read_since(None, block=0).cursor
        assert bus.read_since(here._replace(number=here.number + 5), block=0).gap

    def test_a_report_is_there_until_its_time_is_over(self, make):
        """All fields come back, and the age of what was said last."""
        make().heartbeat("web:1", {"": "head", "aws://a": "[1]"}, lifetime=60, anew=True)
        make().heartbeat("web:2", {"": "other"}, lifetime=60, anew=True)
        reports = {report.worker: report for report in make().workers()}
        assert reports.keys() == {"web:1", "web:2"}
        assert dict(reports["web:1"].fields) == {"": "head", "aws://a": "[1]"}
        assert 0 <= reports["web:1"].age < 30

    def test_heads_are_enough_to_count_acknowledgements(self, make):
        """A fleet that holds thousands of secrets is not told of all of them for a number."""
        make().heartbeat("web:1", {"": "head", "aws://a": "[1]"}, lifetime=60, anew=True)
        (report,) = make().workers(heads=True)
        assert (report.worker, dict(report.fields)) == ("web:1", {"": "head"})

    def test_a_report_changes_by_what_is_said_anew(self, make):
        """Fields that are not named stay; one that is None goes."""
        bus = make()
        bus.heartbeat("w", {"": "1", "a": "1", "b": "1"}, lifetime=60, anew=True)
        assert bus.heartbeat("w", {"": "2", "a": None}, lifetime=60, anew=False)
        (report,) = make().workers()
        assert dict(report.fields) == {"": "2", "b": "1"}
        assert bus.heartbeat("w", {"": "3"}, lifetime=60, anew=False)
        (report,) = make().workers()
        assert dict(report.fields) == {"": "3", "b": "1"}

    def test_a_report_that_nobody_has_is_asked_for_in_full(self, make, forget):
        """After a loss a delta would make half a report."""
        bus = make()
        bus.heartbeat("w", {"": "1", "a": "1"}, lifetime=60, anew=True)
        forget()
        assert not bus.heartbeat("w", {"": "2"}, lifetime=60, anew=False)
        assert make().workers() == []
        assert bus.heartbeat("w", {"": "2", "a": "1"}, lifetime=60, anew=True)
        (report,) = make().workers()
        assert dict(report.fields) == {"": "2", "a": "1"}

    def test_a_worker_that_says_nothing_any_more_is_forgotten(self, make):
        """No ghost stays behind."""
        bus = make()
        bus.heartbeat("gone", {"": "1"}, lifetime=0.2, anew=True)
        bus.heartbeat("here", {"": "1"}, lifetime=60, anew=True)
        time.sleep(0.4)
        assert [report.worker for report in make().workers()] == ["here"]

    @pytest.mark.parametrize("operation", ["append", "read_since", "heartbeat", "workers"])
    def test_an_engine_that_is_not_there_is_told_within_its_time(self, broken, operation):
        """Every operation raises the one error, soon, and without the library's own."""
        call = {
            "append": lambda: broken.append(event()),
            "read_since": lambda: broken.read_since(Cursor("x", 1, "1-1"), block=0),
            "heartbeat": lambda: broken.heartbeat("w", {"": "1"}, lifetime=60, anew=True),
            "workers": broken.workers,
        }[operation]
        began = time.monotonic()
        with pytest.raises(BusUnavailable) as raised:
            call()
        assert time.monotonic() - began < 5
        assert raised.value.__cause__ is None
        assert raised.value.__context__ is None

    def test_it_can_be_closed_and_used_again(self, make):
        """A bus connects when it has to."""
        bus: Bus = make()
        bus.append(event("a"))
        bus.close()
        bus.close()
        start = bus.read_since(None, block=0).cursor
        bus.append(event("b"))
        assert names(bus.read_since(start, block=0)) == ["b"]

    def test_an_event_of_something_else_is_handed_on_as_unreadable(self, make):
        """A later wire version, or text that is none, takes its number and says nothing."""
        reader, writer = make(), make()
        start = reader.read_since(None, block=0).cursor
        writer.append(event()._replace(version=2))
        writer.append(_Garbage("evict"))
        writer.append(event("after"))
        events = reader.read_since(start, block=0).events
        assert [one and (one.kind, one.version) for _, one in events] == [
            ("", 2),
            None,
            ("evict", 1),
        ]


class _Garbage(BusEvent):
    def encode(self) -> str:
        return json.dumps(["no", "event"])
