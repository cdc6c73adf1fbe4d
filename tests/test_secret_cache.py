"""The life of one cached secret: fresh, due, stale, expired, refused; evicted and refreshed."""

from __future__ import annotations

import functools
import itertools
import math
import random
import threading
import time

import pytest

from django_secret_registry.clock import steady
from django_secret_registry.events import (
    CacheSkipped,
    Evicted,
    TTLDerived,
)
from django_secret_registry.exceptions import (
    AccessDenied,
    ProviderError,
    ProviderUnavailable,
    SecretError,
    SecretNotFound,
)
from django_secret_registry.lifecycle import CachePolicy, Held, SecretKey
from django_secret_registry.secret_cache import SecretCache
from django_secret_registry.values import SecretValue
from tests.loads import (
    DUE,
    EXPIRED,
    FOREVER,
    MINUTE,
    STALE,
    Bench,
    denied,
    down,
    missing,
    value,
    version,
)
from tests.scripted import PATIENCE, Gate, running, until

# -- fresh, due, stale, expired --------------------------------------------------------------------


def test_a_fresh_value_is_returned_without_a_call():
    """Until REFRESH_AHEAD of its TTL has passed a value is returned and nobody is asked."""
    bench = Bench()
    bench.answer("db", "1")
    assert bench.read() == "1"
    bench.forward(DUE - 0.001)
    assert (bench.read(), bench.state(), bench.calls) == ("1", "fresh", 1)


def test_a_due_value_is_returned_at_once_with_one_refresh_in_the_background():
    """From then on every reader gets the held value at once, and one of them starts one refresh."""
    bench, gate = Bench(), Gate()
    bench.answer("db", "1")
    bench.read()
    bench.answer("db", lambda: gate.stop() or value("2"))
    bench.forward(DUE)
    assert [bench.read() for _ in range(5)] == ["1"] * 5
    assert bench.state() == "due"
    gate.wait()
    gate.open()
    bench.landed(2)
    assert (bench.read(), bench.state(), bench.calls) == ("2", "fresh", 2)


def test_the_first_reader_of_a_stale_value_gets_the_new_one_if_it_comes_in_time():
    """After its TTL the first reader waits SOFT_TIMEOUT for the refresh that it starts."""
    bench = Bench(soft_timeout=FOREVER)
    bench.answer("db", "1")
    bench.read()
    bench.answer("db", "2")
    bench.forward(STALE)
    assert bench.state() == "stale"
    assert bench.read() == "2"


def test_the_first_reader_of_a_stale_value_waits_no_longer_than_soft_timeout():
    """A refresh that takes longer goes on, and the reader gets the held value, counted as stale."""
    bench, gate = Bench(soft_timeout=0.01), Gate()
    bench.answer("db", "1")
    bench.read()
    bench.counts()
    bench.answer("db", lambda: gate.stop() or value("2"))
    bench.forward(STALE)
    assert bench.read() == "1"
    gate.open()
    bench.landed(2)
    assert bench.read() == "2"
    assert bench.counts() == {"stale": 1, "hit": 1}


def test_only_the_first_reader_of_a_stale_value_waits():
    """While one reader waits for the refresh the others get the held value at once."""
    bench, gate = Bench(soft_timeout=FOREVER), Gate()
    bench.answer("db", "1")
    bench.read()
    bench.answer("db", lambda: gate.stop() or value("2"))
    bench.forward(STALE)
    with running(bench.read) as first:
        gate.wait()
        with running(bench.read) as second:
            pass
        assert second == ["1"]
        gate.open()
    assert first == ["2"]


def test_an_impatient_reader_of_a_stale_value_does_not_wait():
    """A reader that may not wait (an event loop) gets the stale value while the refresh begins."""
    bench, gate = Bench(soft_timeout=FOREVER), Gate()
    bench.answer("db", "1")
    bench.read()
    bench.answer("db", lambda: gate.stop() or value("2"))
    bench.forward(STALE)
    with running(lambda: version(bench.cache.read(bench.ask(), patient=False))) as outcome:
        gate.wait()
    assert outcome == ["1"]
    gate.open()


@pytest.mark.parametrize("failure", [down, denied])
def test_nobody_waits_for_the_refresh_of_a_stale_value_after_a_failed_attempt(failure):
    """Once an attempt has failed the following ones run in the background only."""
    bench, gate = Bench(soft_timeout=FOREVER), Gate()
    bench.answer("db", "1")
    bench.read()
    bench.answer("db", failure)
    bench.forward(STALE)
    assert bench.read() == "1"
    bench.forward(MINUTE)
    bench.answer("db", lambda: gate.stop() or value("2"))
    with running(bench.read) as outcome:
        gate.wait()
    assert outcome == ["1"]
    gate.open()


def test_nobody_waits_for_the_refresh_of_a_stale_value_when_another_key_found_an_outage():
    """An attempt that failed for the whole backend has failed for each of its keys."""
    bench, gate = Bench(soft_timeout=FOREVER), Gate()
    bench.answer("db", "1")
    bench.read()
    bench.answer("other", down)
    with pytest.raises(ProviderUnavailable):
        bench.read("other")
    bench.forward(STALE)
    bench.answer("db", lambda: gate.stop() or value("2"))
    with running(bench.read) as outcome:
        gate.wait()
    assert outcome == ["1"]
    gate.open()


def test_nobody_waits_for_the_refresh_of_a_stale_value_after_one_that_hung():
    """A flight whose time is over is a failed attempt, also when nobody has seen it before.

    Here the outage is over for the other keys already, so that a new attempt may start at once.
    """
    bench, hung, gate = Bench(soft_timeout=FOREVER, fetch_timeout=10.0), Gate(), Gate()
    bench.answer("db", "1")
    bench.read()
    bench.answer("db", lambda: hung.stop() or value("2"))
    bench.forward(STALE - 1)
    assert bench.read() == "1"
    hung.wait()
    bench.forward(1)
    bench.answer("other", down)
    with pytest.raises(ProviderUnavailable):
        bench.read("other")
    bench.forward(2)
    bench.answer("other", "1")
    bench.read("other")
    bench.forward(10)
    bench.answer("db", lambda: gate.stop() or value("3"))
    with running(bench.read) as outcome:
        pass
    assert outcome == ["1"]
    hung.open()
    gate.open()


@pytest.mark.parametrize("failure", [down, denied])
def test_a_value_goes_on_serving_while_its_refresh_fails(failure):
    """Unavailable and denied keep serving what is held until MAX_STALE is over, then they raise."""
    bench = Bench(soft_timeout=FOREVER)
    bench.answer("db", "1")
    bench.read()
    bench.counts()
    bench.answer("db", failure)
    bench.forward(STALE)
    assert bench.read() == "1"
    bench.forward(EXPIRED - STALE - 0.001)
    assert bench.read() == "1"
    assert bench.counts() == {"stale": 2}
    bench.forward(0.001)
    with pytest.raises(type(failure())):
        bench.read()
    assert bench.state() in {"expired", "loading"}


def test_an_expired_value_is_fetched_anew():
    """Past MAX_STALE a reader waits for the fetch as if nothing were held."""
    bench = Bench(soft_timeout=0.0)
    bench.answer("db", "1")
    bench.read()
    bench.answer("db", "2")
    bench.forward(EXPIRED)
    assert bench.state() == "expired"
    assert bench.read() == "2"


def test_not_found_ends_a_value():
    """A secret that was deleted is not served from the cache, whatever its age."""
    bench = Bench(soft_timeout=FOREVER)
    bench.answer("db", "1")
    bench.publish()
    bench.answer("db", missing)
    bench.forward(DUE)
    assert bench.read() == "1"
    bench.landed(2)
    assert bench.hit() is None
    with pytest.raises(SecretNotFound):
        bench.read()
    assert bench.state() == "refused"


def test_the_ttl_is_jittered_per_entry():
    """Entries that were fetched at once become due at different times, within ±JITTER."""
    bench = Bench(jitter=0.1)
    names = [f"n{number}" for number in range(200)]
    for name in names:
        bench.answer(name, "1")
    bench.cache.prefetch([bench.ask(name) for name in names]).results()
    dues = [info.due_in for info in bench.cache.snapshot()]
    assert 0.9 * DUE <= min(dues) < 0.92 * DUE
    assert 1.08 * DUE < max(dues) <= 1.1 * DUE
    assert len(set(dues)) == 200


def test_an_entry_keeps_its_jitter():
    """A refresh does not draw again: what was spread stays spread."""
    bench = Bench(jitter=0.1)
    bench.answer("db", "1")
    bench.read()
    before = bench.info().due_in
    bench.refresh()
    assert bench.info().due_in == before


def test_the_smallest_ttl_that_was_asked_for_wins():
    """A smaller TTL shortens the life of what is held already; nobody lengthens it."""
    bench = Bench()
    bench.answer("db", "1")
    bench.publish()
    assert bench.read(ttl=100.0) == "1"
    assert bench.hit() is None, "a hit would be served by the longer TTL"
    assert (bench.info().due_in, bench.info().ttl) == (80.0, 100.0)
    bench.read(ttl=300.0)
    bench.refresh()
    assert (bench.info().due_in, bench.info().ttl) == (80.0, 100.0)


def test_a_smaller_ttl_leaves_what_was_made_of_the_value():
    """What .map made of a value is made once, however its life is cut."""
    bench = Bench()
    bench.answer("db", "1")
    held = bench.hold()
    held.made["text"] = "made"
    shorter = bench.hold(ttl=10.0)
    assert shorter.made == {"text": "made"}


def test_a_due_value_is_refreshed_by_whoever_reads_it_next():
    """Nothing is refreshed that nobody reads."""
    bench = Bench()
    bench.answer("db", "1")
    bench.read()
    bench.forward(DUE)
    assert bench.calls == 1
    bench.cache.snapshot()
    bench.cache.drain()
    assert bench.calls == 1


# -- an issuer's expiry ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expires_in", "ttl"),
    [(1000.0, 300.0), (360.0, 300.0), (350.0, 290.0), (200.0, 160.0), (10.0, 8.0)],
)
def test_the_ttl_of_an_expiring_value_leaves_a_margin(expires_in, ttl):
    """It lives min(TTL, remaining − margin), margin: min(SAFETY_MARGIN, 20 % of the lifetime)."""
    bench = Bench()
    bench.answer("db", "1", expires_at=bench.wall() + expires_in)
    bench.read()
    info = bench.info()
    assert info.ttl == pytest.approx(ttl)
    assert info.due_in == pytest.approx(0.8 * ttl)
    assert info.ends_in == pytest.approx(min(expires_in, ttl + 3600.0))
    assert [event.seconds for event in bench.told.of(TTLDerived)] == [pytest.approx(ttl)]


def test_an_issuers_expiry_is_never_outlived():
    """In an outage a value is served until the issuer ends it and not a moment longer."""
    bench = Bench(soft_timeout=FOREVER)
    bench.answer("db", "1", expires_at=bench.wall() + 500.0)
    bench.publish()
    bench.answer("db", down)
    bench.forward(499.9)
    assert bench.publish().answer.version == "1"
    assert bench.hit()
    bench.forward(0.1)
    assert bench.hit() is None
    with pytest.raises(ProviderUnavailable):
        bench.read()


def test_no_reader_waits_past_the_end_of_the_value_that_it_would_get():
    """Near the issuer's end the held value is served at once: after a wait it would be too old."""
    bench, gate = Bench(soft_timeout=FOREVER), Gate()
    bench.answer("db", "1", expires_at=bench.wall() + 500.0)
    bench.read()
    bench.forward(500.0 - FOREVER / 2)
    bench.answer("db", lambda: gate.stop() or down())
    with running(bench.read) as outcome:
        gate.wait()
        until(lambda: bool(outcome))
        gate.open()
    assert outcome == ["1"]
    bench.landed(2)
    bench.forward(FOREVER / 2)
    with pytest.raises(ProviderUnavailable):
        bench.read()


def test_a_smaller_ttl_does_not_lengthen_the_life_of_an_expiring_value():
    """Shortening the TTL of a value that is near its end leaves that end where it is."""
    bench = Bench()
    bench.answer("db", "1", expires_at=bench.wall() + 500.0)
    bench.read()
    bench.forward(430.0)
    bench.read(ttl=100.0)
    assert bench.info().ends_in == pytest.approx(70.0)


def test_a_value_within_its_margin_is_returned_and_not_cached():
    """One that has used up its life on the way is given to those who waited and to nobody else."""
    bench = Bench()
    bench.answer("db", "1")
    bench.read()

    def slow() -> SecretValue:
        expires_at = bench.wall() + 100.0
        bench.forward(81.0)
        return value("2", expires_at=expires_at)

    bench.answer("db", slow)
    bench.forward(EXPIRED)
    held = bench.hold()
    assert version(held) == "2"
    bench.publish(held=held)
    assert bench.hit() is None
    assert bench.state() == "absent"
    assert [event.reason for event in bench.told.of(CacheSkipped)] == ["expiring"]
    bench.answer("db", "3")
    assert bench.read() == "3"


def test_an_expiring_value_that_took_longer_than_its_ttl_is_kept_as_a_stale_one():
    """What arrives late is cached like any late result as long as it is not within its margin."""
    bench = Bench()

    def slow() -> SecretValue:
        bench.forward(400.0)
        return value("1", expires_at=bench.wall() + 10_000.0)

    bench.answer("db", slow)
    assert bench.read() == "1"
    assert bench.state() == "stale"


def test_a_value_that_has_expired_already_is_an_error():
    """What arrives after its end is not served; the error says to compare the clocks."""
    bench = Bench()
    bench.answer("db", "1", expires_at=bench.wall())
    with pytest.raises(ProviderError, match=r"already expired.*Compare the time") as caught:
        bench.read()
    assert caught.value.reference == "t://db"
    assert bench.state() == "absent"


# -- refused ---------------------------------------------------------------------------------------


def test_a_refusal_is_remembered_for_negative_ttl():
    """A secret that does not exist costs one call per NEGATIVE_TTL, and each reader is told so."""
    bench = Bench()
    for _ in range(3):
        with pytest.raises(SecretNotFound):
            bench.read()
    bench.forward(4.9)
    with pytest.raises(SecretNotFound):
        bench.read()
    assert (bench.calls, bench.state()) == (1, "refused")
    assert bench.counts() == {"not_found": 4}


def test_a_refusal_is_confirmed_in_the_background_and_doubles():
    """Each confirmation doubles the time to the next one, up to the TTL, and no reader waits."""
    bench = Bench()
    spans = []
    for landed in range(1, 10):
        with pytest.raises(SecretNotFound):
            bench.read()
        bench.landed(landed)
        spans.append(bench.info().due_in)
        bench.forward(spans[-1])
    assert spans == [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0, 300.0]


def test_a_refusal_stands_through_an_outage():
    """An outage is no reason to believe that the secret exists: nobody is told "unavailable"."""
    bench = Bench(soft_timeout=FOREVER)
    with pytest.raises(SecretNotFound):
        bench.read()
    bench.answer("db", down)
    for _ in range(5):
        bench.forward(100_000.0)
        with pytest.raises(SecretNotFound):
            bench.read()


def test_a_refusal_ends_when_the_secret_appears():
    """A value that is found takes the refusal's place, and the next refusal starts from anew."""
    bench = Bench(soft_timeout=FOREVER)
    for _ in range(3):
        with pytest.raises(SecretNotFound):
            bench.read()
        bench.forward(MINUTE)
    bench.answer("db", "1")
    assert bench.read() == "1"
    bench.answer("db", missing)
    with pytest.raises(SecretNotFound):
        bench.refresh()
    assert bench.info().due_in == 5.0


def test_a_negative_ttl_above_the_ttl_is_kept():
    """Doubling stops at the TTL and never shortens NEGATIVE_TTL itself."""
    bench = Bench(negative_ttl=50.0)
    with pytest.raises(SecretNotFound):
        bench.read(ttl=10.0)
    assert bench.info().due_in == 50.0


# -- evict, refresh, warm --------------------------------------------------------------------------


def test_evict_forgets_a_value_now():
    """The next read fetches, and a hit on the old value is no longer possible."""
    bench = Bench()
    bench.answer("db", "1")
    bench.publish()
    assert bench.evict() == [bench.ask().key]
    assert bench.hit() is None
    assert bench.cache.snapshot() == ()
    bench.answer("db", "2")
    assert bench.read() == "2"
    (told,) = bench.told.of(Evicted)
    assert (told.reference, told.reason) == ("t://db", "operator")


@pytest.mark.parametrize("failure", [denied, missing])
def test_evict_forgets_an_error_now(failure):
    """Whoever has mended a policy or added the secret need not wait for a backoff."""
    bench = Bench()
    bench.answer("db", failure)
    with pytest.raises(SecretError):
        bench.read()
    bench.evict()
    bench.answer("db", "1")
    assert bench.read() == "1"


def test_evict_leaves_what_was_not_chosen():
    """Other keys keep their values and their hits."""
    bench = Bench()
    for name in ("a", "b"):
        bench.answer(name, "1")
        bench.publish(name)
    assert [key.name for key in bench.evict("a")] == ["a"]
    assert bench.hit("b")
    assert bench.evict("nothing") == []


def test_a_key_is_within_another_without_version_and_stage():
    """An eviction that names neither means all of them; one that names one means that one."""
    key = functools.partial(SecretKey, "t", "eu", "", "db")
    assert key("7", "").within(key("", ""))
    assert key("", "previous").within(key("", ""))
    assert key("7", "").within(key("7", ""))
    assert not key("8", "").within(key("7", ""))
    assert not key("", "").within(key("7", ""))
    assert not key("", "").within(SecretKey("t", "us", "", "db", "", ""))


def test_refresh_replaces_the_value_and_its_hits():
    """A refresh fetches whatever the age, returns the new value and takes the old one from hits."""
    bench = Bench()
    bench.answer("db", "1")
    bench.publish()
    bench.answer("db", "2")
    assert bench.refresh() == "2"
    assert bench.hit() is None
    assert bench.read() == "2"


@pytest.mark.parametrize("failure", [down, denied])
def test_a_failed_refresh_raises_and_the_held_value_goes_on_serving(failure):
    """The caller learns of the failure; readers do not."""
    bench = Bench()
    bench.answer("db", "1")
    bench.read()
    bench.answer("db", failure)
    with pytest.raises(type(failure())):
        bench.refresh()
    assert bench.read() == "1"
    assert bench.info().last_status in {"unavailable", "denied"}


def test_refresh_without_a_held_value_fetches_it():
    """A refresh of what was never read is a first fetch."""
    bench = Bench()
    bench.answer("db", "1")
    assert bench.refresh() == "1"


def test_refresh_returns_what_has_replaced_the_seen_value():
    """Whoever found a value wrong gets the one that replaced it meanwhile, without a call."""
    bench = Bench()
    bench.answer("db", "1")
    seen = bench.hold()
    bench.answer("db", "2")
    bench.refresh()
    calls = bench.calls
    assert bench.refresh(seen=seen) == "2"
    assert bench.calls == calls
    assert bench.refresh(seen=bench.hold()) == "2"
    assert bench.calls == calls + 1


def test_a_value_whose_life_was_cut_is_still_the_one_that_was_seen():
    """A smaller TTL makes no new value: whoever found it wrong gets a fetched one."""
    bench = Bench()
    bench.answer("db", "1")
    seen = bench.hold()
    bench.hold(ttl=100.0)
    bench.answer("db", "2")
    assert bench.refresh(seen=seen) == "2"


def test_refresh_does_not_take_the_same_value_fetched_again_for_a_replacement():
    """The secret manager may have shown the old password once more; the caller wants another."""
    bench = Bench()
    bench.answer("db", "1")
    seen = bench.hold()
    bench.refresh()
    bench.answer("db", "2")
    assert bench.refresh(seen=seen) == "2"


def test_refresh_does_not_take_a_refusal_for_the_replacement_of_the_seen_value():
    """When the seen value was replaced by "not found" the caller gets that as an error."""
    bench = Bench()
    bench.answer("db", "1")
    seen = bench.hold()
    bench.answer("db", missing)
    with pytest.raises(SecretNotFound):
        bench.refresh()
    with pytest.raises(SecretNotFound):
        bench.refresh(seen=seen)


def test_refresh_does_not_take_an_expired_value_for_the_replacement_of_the_seen_one():
    """A replacement that is past its end is fetched anew."""
    bench = Bench()
    bench.answer("db", "1")
    seen = bench.hold()
    bench.answer("db", "2")
    bench.refresh()
    bench.forward(EXPIRED)
    bench.answer("db", "3")
    assert bench.refresh(seen=seen) == "3"


def test_a_prefetch_asks_once_for_all_that_is_not_fresh():
    """Keys go out in one call; what is fresh is not asked for, and each key has its answer."""
    bench = Bench()
    for name in ("a", "b", "fresh"):
        bench.answer(name, name)
    bench.read("fresh")
    asks = [bench.ask(name) for name in ("a", "fresh", "b", "gone")]
    answers = bench.cache.prefetch(asks).results()
    assert bench.loads.calls == [("fresh",), ("a", "b", "gone")]
    assert [version(answers[ask.key]) for ask in asks[:3]] == ["a", "fresh", "b"]
    assert isinstance(answers[asks[3].key], SecretNotFound)
    assert answers[asks[3].key].reference == "t://gone"


def test_a_prefetch_hands_out_errors_that_hold_no_frames():
    """An error that is returned, not raised, has no traceback and keeps its cause."""
    bench = Bench()

    def refuse() -> SecretError:
        error = down()
        error.__cause__ = ConnectionRefusedError("port closed")
        return error

    bench.answer("db", refuse)
    (error,) = bench.cache.prefetch([bench.ask()]).results().values()
    assert isinstance(error, ProviderUnavailable)
    assert error.__traceback__ is None
    assert isinstance(error.__cause__, ConnectionRefusedError)


def test_a_prefetch_respects_a_backoff():
    """A batch does not ask a backend that backs off."""
    bench = Bench()
    bench.answer("db", down)
    with pytest.raises(ProviderUnavailable):
        bench.read()
    answers = bench.cache.prefetch([bench.ask("a"), bench.ask("b")]).results()
    assert {type(answer) for answer in answers.values()} == {ProviderUnavailable}
    assert bench.calls == 1


def test_a_prefetch_that_hangs_is_waited_for_once():
    """Keys of one call that hangs cost FETCH_TIMEOUT together, not each."""
    bench, gate = Bench(fetch_timeout=0.2), Gate()
    bench.answer("0", lambda: gate.stop() or "late")
    asks = [bench.ask(str(number)) for number in range(100)]
    began = time.monotonic()
    answers = bench.cache.prefetch(asks).results()
    assert time.monotonic() - began < len(asks) * 0.2 / 2
    assert {type(answer) for answer in answers.values()} == {ProviderUnavailable}
    gate.open()


def test_a_prefetch_of_two_backends_is_a_mistake_that_fetches_nothing():
    """What one backend is asked for in another's place could be somebody else's secret."""
    bench = Bench()
    with pytest.raises(ValueError, match="one backend"):
        bench.cache.prefetch([bench.ask("a"), bench.ask("b", alias="u")])
    assert bench.calls == 0
    assert bench.cache.snapshot() == ()


def test_what_follows_a_prefetch_is_called_once_when_all_has_landed():
    """What somebody else was fetching before is waited for too; at once when nothing is."""
    bench, gate = Bench(), Gate()
    bench.answer("slow", lambda: gate.stop() or "1")
    bench.answer("quick", "1")
    called = threading.Event()
    with running(lambda: bench.read("slow")):
        gate.wait()
        call = bench.cache.prefetch([bench.ask("slow"), bench.ask("quick")])
        call.then(called.set)
        assert version(bench.cache.prefetch([bench.ask("quick")]).results().popitem()[1]) == "1"
        assert not called.is_set()
        gate.open()
    assert called.wait(PATIENCE)
    done: list[int] = []
    bench.cache.prefetch([bench.ask("slow")]).then(lambda: done.append(1))
    assert done == [1]


def test_held_tells_whether_a_read_would_wait_for_a_first_fetch():
    """True for a value and for a refusal, until they end."""
    bench = Bench()
    bench.answer("db", "1")
    assert not bench.cache.held(bench.ask().key)
    bench.read()
    assert bench.cache.held(bench.ask().key)
    bench.forward(EXPIRED)
    assert not bench.cache.held(bench.ask().key)


# -- whatever is in the policy ---------------------------------------------------------------------


def test_without_max_stale_a_value_ends_with_its_ttl():
    """MAX_STALE 0: nothing is served past its TTL."""
    bench = Bench(max_stale=0.0)
    bench.answer("db", "1")
    bench.read()
    bench.answer("db", down)
    bench.forward(STALE)
    with pytest.raises(ProviderUnavailable):
        bench.read()


def test_without_refresh_ahead_a_value_is_fresh_for_its_whole_ttl():
    """REFRESH_AHEAD 1: a value is stale as soon as it is due."""
    bench = Bench(refresh_ahead=1.0)
    bench.answer("db", "1")
    bench.read()
    bench.forward(STALE - 0.001)
    assert bench.state() == "fresh"
    bench.forward(0.001)
    assert bench.state() == "stale"


def test_a_ttl_without_end_is_never_refreshed():
    """An infinite TTL: fetched once for the life of the process."""
    bench = Bench()
    bench.answer("db", "1")
    bench.read(ttl=math.inf)
    bench.forward(1e12)
    assert (bench.read(ttl=math.inf), bench.calls) == ("1", 1)


def test_the_default_clock_counts_and_the_default_policy_is_the_documented_one():
    """A cache made without clocks works on those of the system."""
    cache = SecretCache(CachePolicy(), lambda refs: {key: value() for key in refs})
    assert isinstance(cache.read(Bench().ask()), Held)
    (info,) = cache.snapshot()
    assert 0.0 <= info.age < 60.0
    assert 270.0 <= info.ttl <= 330.0
    first, second = steady(), steady()
    assert first <= second


def test_the_waits_of_two_processes_differ():
    """Backoff and jitter are drawn at random, so that a fleet does not try in step."""
    waits = set()
    for _ in itertools.repeat(None, 5):
        bench = Bench()
        bench.answer("db", denied)
        for _ in range(3):
            with pytest.raises(AccessDenied):
                bench.read()
            bench.forward(2.5)
        waits.add(bench.info().retry_in)
    assert len(waits) > 1 or random.random() < 1e-9
