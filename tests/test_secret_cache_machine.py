"""A random life of the cache, step by step against a simple model of section 4 of the design.

Every fetch stops until the machine lets it land, so that evictions, refreshes and the passing of
time fall between its begin and its end. The model is exact, except for the waits between attempts,
which are drawn at random: there it knows when nobody may ask yet and when somebody must.
"""

from __future__ import annotations

import dataclasses
import math
import random
import threading
from collections.abc import Callable, Mapping

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from django_secret_registry import backends, store
from django_secret_registry.events import Refreshed
from django_secret_registry.exceptions import (
    AccessDenied,
    ProviderUnavailable,
    SecretError,
    SecretNotFound,
)
from django_secret_registry.lifecycle import SecretKey
from django_secret_registry.references import SecretRef
from tests.loads import Answer, Bench, denied, down, missing, value, version
from tests.scripted import PATIENCE, until

TTL, AHEAD, MAX_STALE, NEGATIVE, TIMEOUT, MARGIN = 100.0, 0.8, 200.0, 5.0, 30.0, 60.0
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
#: Fewer than a backend has threads: the machine never waits for one.
MOST_CALLS = 8
#: The second backend is only there to be left alone by the outages of the first.
NAMES = st.sampled_from("aaabbc")
OUTCOMES = st.tuples(
    st.sampled_from(["value", "value", "expiring", "missing", "denied", "down"]),
    st.sampled_from([20.0, 80.0, 500.0]),
)
KINDS = {"denied": AccessDenied, "down": ProviderUnavailable, "missing": SecretNotFound}


@dataclasses.dataclass(eq=False)
class Call:
    """A fetch that has begun and, later, how it ended."""

    number: int
    name: str
    begun: float
    generation: int
    answer: Answer | None = None
    may_land: threading.Event = dataclasses.field(default_factory=threading.Event)
    kind: str = ""
    given_up: bool = False

    @property
    def deadline(self) -> float:
        return self.begun + TIMEOUT


@dataclasses.dataclass
class Life:
    """What the model says is held: the call that brought it, and until when it serves."""

    call: Call
    due: float
    stale: float
    ends: float


@dataclasses.dataclass
class Key:
    """The model of one key."""

    generation: int = 0
    held: Life | None = None
    flight: Call | None = None
    refusals: int = 0
    denied_at: float = -math.inf


@dataclasses.dataclass
class Outage:
    """The model of a backend."""

    failing: bool = False
    failed_at: float = -math.inf
    probe: Call | None = None


@dataclasses.dataclass(eq=False)
class Reader:
    """A read or refresh in a thread: its outcome, and the call that it waits for."""

    name: str
    thread: threading.Thread
    outcome: list[object]
    call: Call | None = None


class CacheMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(
            load=self.load,
            refresh_ahead=AHEAD,
            max_stale=MAX_STALE,
            negative_ttl=NEGATIVE,
            soft_timeout=0.0,
            fetch_timeout=TIMEOUT,
            safety_margin=MARGIN,
        )
        self.bench.cache._clock = self.clock
        # What is drawn at random is the same in each run of an example: threads that other tests
        # have left behind draw from Python's own generator meanwhile.
        self.drawn = pytest.MonkeyPatch()
        for module in (backends, store):
            self.drawn.setattr(module, "random", random.Random(0))
        self.admitted: set[threading.Thread] = set()
        self.calls: list[Call] = []
        self.keys = {name: Key() for name in "abc"}
        self.outages = {"t": Outage(), "u": Outage()}
        self.waiting: list[Reader] = []
        self.landed = self.finished = self.counted = 0

    # -- the world ---------------------------------------------------------------------------------

    def clock(self) -> float:
        self.admitted.add(threading.current_thread())
        return self.bench.clock.now

    @property
    def now(self) -> float:
        return self.bench.clock.now

    def load(self, refs: Mapping[SecretKey, SecretRef]) -> Mapping[SecretKey, Answer]:
        (key,) = refs
        call = Call(len(self.calls), key.name, self.now, self.keys[key.name].generation)
        self.calls.append(call)
        assert call.may_land.wait(PATIENCE)
        assert call.answer is not None
        return {key: call.answer}

    def ask(self, name: str):
        return self.bench.ask(name, alias="u" if name == "c" else "t", ttl=TTL)

    def outage(self, name: str) -> Outage:
        return self.outages["u" if name == "c" else "t"]

    def flying(self, name: str = "") -> list[Call]:
        return [call for call in self.calls if not call.kind and call.name.startswith(name)]

    def expected(self, name: str) -> str:
        """Return the state that the model says the key is in."""
        key = self.keys[name]
        life = key.held
        if life is None or self.now >= life.ends:
            if key.flight is not None:
                return "loading"
            return "absent" if life is None else "expired"
        if life.call.kind == "missing":
            return "refused"
        if self.now < life.due:
            return "fresh"
        return "due" if self.now < life.stale else "stale"

    def start(self, name: str, function: Callable[..., object]) -> Reader:
        reader = Reader(name, threading.Thread(target=lambda: self.run(reader, function)), [])
        reader.thread.start()
        return reader

    def run(self, reader: Reader, function: Callable[..., object]) -> None:
        try:
            reader.outcome.append(version(function(self.ask(reader.name))))
        except SecretError as error:
            reader.outcome.append(error)

    # -- the rules of section 4 --------------------------------------------------------------------

    def expire_flight(self, name: str) -> None:
        """A flight whose time is over is given up by the next one who would launch one."""
        key = self.keys[name]
        if key.flight is not None and self.now >= key.flight.deadline:
            key.flight.given_up = True
            self.fail(name, key.flight, "down", key.flight.deadline)

    def fail(self, name: str, call: Call, kind: str, when: float) -> None:
        key, outage = self.keys[name], self.outage(name)
        if key.flight is call:
            key.flight = None
        if kind == "denied":
            if call.generation == key.generation:
                key.denied_at = when
            outage.failing, outage.probe = False, None
            return
        key.denied_at = -math.inf if call.generation == key.generation else key.denied_at
        if outage.probe is call:
            outage.probe = None
        if call.begun > outage.failed_at:
            outage.failing, outage.failed_at = True, when

    def may_ask(self, name: str, *, forced: bool = False) -> tuple[bool, bool]:
        """Whether a call may begin, and whether it must."""
        outage = self.outage(name)
        may = must = True
        if outage.failing:
            barred = outage.probe is not None and self.now < outage.probe.deadline
            may = not barred and self.now >= outage.failed_at + FIRST_WAIT
            longest = FIRST_WAIT if forced and outage.probe is None else LONGEST_WAIT
            must = may and self.now >= outage.failed_at + longest
        if not forced:
            may = may and self.now >= self.keys[name].denied_at + FIRST_WAIT
            must = must and self.now >= self.keys[name].denied_at + LONGEST_WAIT
        return may, must

    def began(self, name: str, before: int) -> Call | None:
        """Note the call that has begun since, if one has."""
        if len(self.calls) == before:
            return None
        (call,) = self.calls[before:]
        assert call.name == name
        key, outage = self.keys[name], self.outage(name)
        assert key.flight is None, "one call per key is in flight at most"
        key.flight = call
        if outage.failing:
            outage.probe = call
        return call

    # -- what happens ------------------------------------------------------------------------------

    @precondition(lambda self: len(self.flying()) < MOST_CALLS)
    @rule(name=NAMES, then=st.none() | OUTCOMES)
    def read(self, name: str, then: tuple[str, float] | None) -> None:
        """Read, and let the call that this may begin land at once or later."""
        before = len(self.calls)
        self.one_read(name)
        if then is not None and len(self.calls) > before:
            self.one_landing(self.calls[-1], *then)

    def one_read(self, name: str) -> None:
        """Hold what comes of a read against what the model holds."""
        key, state, before = self.keys[name], self.expected(name), len(self.calls)
        fresh = key.held is not None and self.now < key.held.due
        refreshes = len(self.bench.told.of(Refreshed))
        if not fresh:
            self.expire_flight(name)
        joins = key.flight if state == "loading" else None
        may, must = (False, False) if fresh or key.flight else self.may_ask(name)
        reader = self.start(name, self.bench.cache.read)
        if joins is not None:
            until(lambda: reader.thread in self.admitted)
            self.bench.cache.held(self.ask(name).key)  # it has let go of the lock
            reader.call = joins
            self.waiting.append(reader)
            return
        until(lambda: bool(reader.outcome) or len(self.calls) > before)
        if state in {"absent", "expired", "loading"}:
            call = self.began(name, before)
            assert may if call else not must
            if call is not None:
                reader.call = call
                self.waiting.append(reader)
            else:
                expected = AccessDenied if key.denied_at > -math.inf else ProviderUnavailable
                assert type(self.outcome(reader)) in {expected, ProviderUnavailable}
            return
        assert key.held is not None
        self.compare(self.outcome(reader), key.held.call)
        told = self.bench.told.of(Refreshed)[refreshes:]
        quiet = fresh or any(event.outcome in {"collapsed", "backed_off"} for event in told)
        if not quiet:
            until(lambda: len(self.calls) > before)
        call = self.began(name, before)
        assert may if call else not must

    @precondition(lambda self: len(self.flying()) < MOST_CALLS)
    @rule(name=NAMES)
    def refresh(self, name: str) -> None:
        """Force a fetch, where none is under way that it would have to wait for."""
        key, before = self.keys[name], len(self.calls)
        if key.flight is not None and self.now < key.flight.deadline:
            return
        self.expire_flight(name)
        may, must = self.may_ask(name, forced=True)
        reader = self.start(name, self.bench.cache.refresh)
        until(lambda: bool(reader.outcome) or len(self.calls) > before)
        call = self.began(name, before)
        assert may if call else not must
        if call is not None:
            reader.call = call
            self.waiting.append(reader)
        else:
            assert isinstance(self.outcome(reader), ProviderUnavailable | AccessDenied)

    @rule(name=NAMES)
    def evict(self, name: str) -> None:
        """Forget everything; what is under way belongs to the generation before."""
        self.bench.evict(name)
        self.keys[name] = Key(generation=self.keys[name].generation + 1)

    @rule(seconds=st.sampled_from([0.5, 1.0, 2.0, 5.0, 29.0, 31.0, 60.0, 80.0, 200.0, 300.0]))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.bench.forward(seconds)

    @precondition(lambda self: self.flying())
    @rule(data=st.data(), outcome=OUTCOMES)
    def land(self, data: st.DataObject, outcome: tuple[str, float]) -> None:
        """Let one of the calls land."""
        numbers = st.sampled_from([call.number for call in self.flying()])
        self.one_landing(self.calls[data.draw(numbers, label="call")], *outcome)

    def one_landing(self, call: Call, kind: str, left: float) -> None:
        """Let a call end, and let those who wait for it have its outcome."""
        call.kind = "value" if kind == "expiring" else kind
        number, expires = str(call.number), self.bench.wall() + left
        match kind:
            case "value":
                call.answer = value(number)
            case "expiring":
                call.answer = value(number, expires_at=expires)
            case "missing":
                call.answer = missing()
            case "denied":
                call.answer = denied()
            case "down":
                call.answer = down()
        self.keep(call, self.now + left if kind == "expiring" else math.inf)
        call.may_land.set()
        self.landed += 1
        self.bench.landed(self.landed)
        for reader in [reader for reader in self.waiting if reader.call is call]:
            self.waiting.remove(reader)
            self.compare(self.outcome(reader), call)

    def keep(self, call: Call, expires: float) -> None:
        """Do in the model what the landing does in the cache."""
        key, outage = self.keys[call.name], self.outage(call.name)
        current = call.generation == key.generation
        late = call.given_up or (current and key.flight is not call)
        if call.kind in {"denied", "down"}:
            if not late:
                self.fail(call.name, call, call.kind, self.now)
            return
        outage.failing, outage.probe = False, None
        if not current:
            return
        if not late:
            key.flight = None
        if late and key.held is not None and key.held.call.begun >= call.begun:
            return
        key.denied_at = -math.inf
        key.refusals = key.refusals + 1 if call.kind == "missing" else 0
        key.held = self.life(call, key.refusals, expires)

    def life(self, call: Call, refusals: int, expires: float) -> Life | None:
        begun = call.begun
        if call.kind == "missing":
            span = min(NEGATIVE * 2 ** (refusals - 1), TTL)
            return Life(call, begun + span, begun + 2 * span, math.inf)
        margin = min(MARGIN, 0.2 * (expires - begun))
        if self.now >= expires - margin:
            return None
        ttl = min(TTL, expires - margin - begun)
        return Life(call, begun + AHEAD * ttl, begun + ttl, min(begun + ttl + MAX_STALE, expires))

    def outcome(self, reader: Reader) -> object:
        reader.thread.join(PATIENCE)
        self.finished += 1
        return reader.outcome[0]

    def compare(self, outcome: object, call: Call) -> None:
        """A reader has exactly what the call brought, and an error of the right kind."""
        if call.kind == "value":
            assert outcome == str(call.number)
        else:
            assert type(outcome) is KINDS[call.kind]

    # -- what always holds -------------------------------------------------------------------------

    @invariant()
    def what_is_shown_is_what_the_model_says(self) -> None:
        infos = {info.key.name: info for info in self.bench.cache.snapshot()}
        for name, key in self.keys.items():
            info, life = infos.get(name), key.held
            assert (info.state if info else "absent") == self.expected(name), name
            if info is not None and life is not None:
                ends_in = math.inf if info.ends_in is None else info.ends_in
                shown = info.age, info.due_in, ends_in
                assert shown == pytest.approx(
                    (self.now - life.call.begun, life.due - self.now, life.ends - self.now)
                )

    @invariant()
    def one_live_call_per_key(self) -> None:
        for name, key in self.keys.items():
            live = [
                call
                for call in self.flying(name)
                if call.generation == key.generation and not call.given_up
            ]
            assert len(live) <= 1

    @invariant()
    def each_read_counts_once(self) -> None:
        self.counted += sum(self.bench.counts().values())
        assert self.counted == self.finished

    def teardown(self) -> None:
        for call in self.flying():
            call.kind, call.answer = "down", down()
            call.may_land.set()
        for reader in self.waiting:
            self.outcome(reader)
        self.drawn.undo()


TestCacheMachine = CacheMachine.TestCase
TestCacheMachine.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)


@pytest.mark.full
def test_a_long_random_life_of_the_cache_follows_the_model():
    """The same machine, for as long as a full run may take."""
    run_state_machine_as_test(
        CacheMachine,
        settings=settings(
            max_examples=150,
            stateful_step_count=60,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
