"""Events: what the core tells, and to whom."""

from __future__ import annotations

import logging
import threading
from typing import get_args

import pytest

from django_secret_registry.events import Event, Events, Evicted, Fetched, ProviderBuilt
from django_secret_registry.exceptions import ProviderUnavailable
from tests.canary import canary
from tests.scripted import HandClock, Script, alias, at_once, make

EVENT = ProviderBuilt("a", "eu", "ok")


def test_listeners_are_told_in_order():
    """Each listener gets each event, in the order of subscription."""
    events, told = Events(), []
    events.subscribe(lambda event: told.append((1, event)))
    events.subscribe(lambda event: told.append((2, event)))
    events.tell(EVENT)
    assert told == [(1, EVENT), (2, EVENT)]


def test_a_listener_is_there_once():
    """Subscribing again changes nothing, also for a method, which is a new object each time."""
    events, told = Events(), []

    class Metrics:
        def listen(self, event):
            told.append(event)

    metrics = Metrics()
    for _ in range(3):
        events.subscribe(metrics.listen)
    events.tell(EVENT)
    assert told == [EVENT]


def test_unsubscribing():
    """What ``subscribe`` returns ends the subscription; so does ``unsubscribe``; twice is fine."""
    events, told = Events(), []
    end = events.subscribe(told.append)
    end()
    end()
    events.unsubscribe(print)
    events.tell(EVENT)
    assert told == []


def test_a_broken_listener_breaks_nothing(caplog):
    """A listener that raises is logged with the event's name, and the others are told."""
    events, told = Events(), []
    events.subscribe(lambda event: 1 / 0)
    events.subscribe(told.append)
    with caplog.at_level(logging.ERROR, "django_secret_registry.events"):
        events.tell(EVENT)
    assert told == [EVENT]
    assert "ProviderBuilt" in caplog.text


def test_listeners_may_come_and_go_while_events_are_told():
    """A listener that ends its own subscription, or brings another, disturbs no one."""
    events, told = Events(), []

    def once(event):
        events.unsubscribe(once)
        events.subscribe(told.append)

    events.subscribe(once)
    events.tell(EVENT)
    assert told == []
    events.tell(EVENT)
    assert told == [EVENT]


def test_no_subscription_is_lost_among_threads():
    """Threads that subscribe at the same time are all told."""
    events, told = Events(), []
    lock = threading.Lock()

    def subscribe():
        def listen(event):
            with lock:
                told.append(listen)

        events.subscribe(listen)

    at_once(subscribe, 32)
    events.tell(EVENT)
    assert len(set(told)) == 32


KINDS = get_args(Event)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_events_are_frozen_and_say_where(kind):
    """Every event names provider and region, cannot be changed, and has no place for a value."""
    names = kind._fields
    assert names[:2] == ("provider", "region")
    assert not {"value", "payload", "secret"} & set(names)
    event = kind(*["x"] * len(names))
    with pytest.raises(AttributeError):
        event.provider = "other"
    assert hash(event) == hash(kind(*["x"] * len(names)))


def test_events_of_a_life():
    """A secret's life is told: build, fetch, refresh, rotation, eviction; hits tell nothing."""
    script, clock = Script({"s": canary("value")}), HandClock()
    registry = make(alias("a", script, region="eu"), clock=clock)
    told = []
    registry.events.subscribe(lambda event: told.append(type(event).__name__))
    registry.get("a://s")
    fetch = ["ResidencyChecked", "FetchSubmitted", "FetchStarted", "ProviderBuilt", "Fetched"]
    assert told == fetch
    told.clear()
    registry.get("a://s")
    assert told == []
    registry.refresh("a://s")
    assert told == [*fetch, "Refreshed", "Rotated"]
    told.clear()
    registry.evict("a://s")
    assert told == ["Evicted"]


def test_events_carry_no_value():
    """Neither a fetch nor a failure puts a value, or a text of the backend, into an event."""
    script = Script({"s": canary("value"), "x": ValueError(canary("text"))})
    registry = make(alias("a", script))
    told = []
    registry.events.subscribe(told.append)
    registry.get("a://s")
    with pytest.raises(Exception, match="ValueError"):
        registry.get("a://x")
    assert {type(event) for event in told} >= {ProviderBuilt, Fetched}
    assert canary("") not in repr(told)


def test_events_are_told_outside_every_lock():
    """A listener may look at the registry and evict from it while it is told."""
    script = Script({"s": canary("value"), "down": ProviderUnavailable("down")})
    registry = make(alias("a", script))
    told = []

    def listen(event):
        told.append(event)
        if len(told) < 30:
            registry.snapshot()
            registry.drain()
            registry.evict("a://s")
            registry.evict(provider="a")

    registry.events.subscribe(listen)
    assert registry.get("a://s") == canary("value")
    with pytest.raises(ProviderUnavailable):
        registry.get("a://down")
    assert {type(event) for event in told} >= {ProviderBuilt, Fetched}


def test_an_eviction_says_by_whom():
    """The event of an eviction names its reason and who asked for it."""
    registry = make(alias("a", Script({"s": canary("value")})))
    registry.get("a://s")
    told = []
    registry.events.subscribe(told.append)
    registry.evict("a://s", by="alice")
    assert told == [Evicted("a", "", "a://s", "operator", "alice")]
