"""Warm-up: many references at once."""

from __future__ import annotations

import logging
import threading

import pytest

from django_secret_registry import resolver
from django_secret_registry.exceptions import (
    AccessDenied,
    ProviderUnavailable,
    SecretError,
    SecretNotReady,
)
from django_secret_registry.planning import HIDDEN
from django_secret_registry.providers.base import Fence
from django_secret_registry.resolver import SecretRegistry
from django_secret_registry.values import SecretStr
from tests.canary import canary
from tests.scripted import (
    PATIENCE,
    Gate,
    HandClock,
    Script,
    alias,
    at_once,
    config,
    entry,
    make,
    running,
    until,
)


@pytest.fixture
def script():
    return Script({f"s{number}": canary(f"v{number}") for number in range(200)})


def refs(count, name="a", start=0):
    return [f"{name}://s{number}" for number in range(start, start + count)]


# -- batches -------------------------------------------------------------------------------------


def test_two_hundred_secrets_in_ten_calls(script):
    """A backend that takes 20 references in one call is called 10 times for 200 of them."""
    registry = make(alias("a", script, "BatchProvider"))
    results = registry.warm(refs(200))
    assert [len(batch) for batch in script.batches] == [20] * 10
    assert not script.fetched
    assert [result.reference for result in results] == refs(200)
    assert {result.outcome for result in results} == {"ok"}
    assert registry.get("a://s7") == canary("v7")
    assert len(script.batches) == 10
    assert not script.fetched


def test_a_backend_without_batches_is_asked_one_by_one(script):
    """Where there are no batches, each secret is one call."""
    registry = make(alias("a", script))
    registry.warm(refs(30))
    assert sorted(ref.name for ref in script.fetched) == sorted(f"s{n}" for n in range(30))


def test_batches_are_of_one_backend(script):
    """References of different aliases and regions are never mixed in one call."""
    registry = make(
        alias("a", script, "BatchProvider", region="eu"), alias("b", script, "BatchProvider")
    )
    wanted = [
        ref
        for number in range(8)
        for ref in (
            f"a://s{number}", f"b://s{number}", f"a://s{number}?region=us", f"a://s{number}?region=-"
        )
    ]  # fmt: skip
    results = registry.warm(wanted)
    assert len(script.batches) == 4
    for batch in script.batches:
        assert len({(ref.scheme, ref.region) for ref in batch}) == 1
        assert len(batch) == 8
    assert [result.reference for result in results] == wanted
    assert {(r.provider, r.region) for r in results} == {
        ("a", "eu"),
        ("b", ""),
        ("a", "us"),
        ("a", ""),
    }


def test_references_of_one_secret_are_fetched_once(script):
    """Several keys of one secret, and several spellings, cost one place in a batch."""
    script.answers["doc"] = '{"u": "1", "p": "2"}'
    registry = make(alias("a", script, "BatchProvider"), entry("e", "a://doc#u"))
    results = registry.warm(["a://doc#u", "a://doc#p", "a://%64oc", "e", "a://s1"])
    assert [len(batch) for batch in script.batches] == [2]
    assert [result.outcome for result in results] == ["ok"] * 5
    assert len({result.version for result in results[:4]}) == 1


def test_batches_go_out_in_parallel(script):
    """Batches of one backend and of several are under way at the same time, up to the limit."""
    together = threading.Barrier(4)

    def meet(ref):
        together.wait(PATIENCE)
        return canary("value")

    script.answers |= dict.fromkeys(["x1", "x2"], meet)
    other = Script({"x1": meet, "x2": meet})
    registry = make(alias("a", script), alias("b", other))
    results = registry.warm(["a://x1", "b://x1", "a://x2", "b://x2"], max_workers=4)
    assert [result.outcome for result in results] == ["ok"] * 4


def test_max_workers_is_the_limit(script):
    """No more calls than ``max_workers`` are under way at once, across all backends."""
    lock, now, most = threading.Lock(), [0], [0]
    three = threading.Barrier(3)

    def count(ref):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        three.wait(PATIENCE)
        with lock:
            now[0] -= 1
        return canary("value")

    script.answers |= {f"x{number}": count for number in range(6)}
    registry = make(alias("a", script), alias("b", script))
    wanted = [f"{name}://x{number}" for name in "ab" for number in range(3)]
    assert {result.outcome for result in registry.warm(wanted, max_workers=3)} == {"ok"}
    assert most == [3]


# -- the report ----------------------------------------------------------------------------------


def test_a_result_for_each_reference_in_order(script):
    """The report has a line for each reference, in the order given, with what became of it."""
    script.answers |= {
        "denied": AccessDenied("no"),
        "down": ProviderUnavailable("down"),
        "odd": ValueError(canary("text")),
        "doc": '{"user": "u", "null": null}',
    }
    registry = make(
        alias("a", script, "BatchProvider", region="eu", fence=Fence(regions=("eu",))),
        alias("b", script),
    )
    wanted = {
        "a://s1": "ok",
        "a://missing": "not_found",
        "a://doc#user": "ok",
        "a://doc#other": "not_found",
        "a://doc#null": "not_found",
        "a://s1#key": "error",
        "a://denied": "denied",
        "a://s1?region=us": "denied",
        "b://odd": "error",
        "a://down": "unavailable",
    }
    results = registry.warm(wanted)
    assert {result.reference: result.outcome for result in results} == wanted
    assert [result.reference for result in results] == list(wanted)
    for result in results:
        assert bool(result.error) == (result.outcome != "ok")
        assert bool(result.version) == (result.outcome == "ok")
        assert result.provider == result.reference[0]
    assert "'user', 'null'" in results[3].error


def test_a_missing_secret_in_a_batch_harms_no_other(script):
    """One that is not there leaves the others of its batch alone."""
    registry = make(alias("a", script, "BatchProvider"))
    results = registry.warm([*refs(10), "a://missing", *refs(9, start=10)])
    assert [result.outcome for result in results].count("ok") == 19
    assert len(script.batches) == 1


def test_a_batch_that_fails_fails_for_each(script, caplog):
    """When the call itself fails, each reference of it gets its own error, without a value."""
    registry = make(alias("a", script, "BatchProvider"))
    script.answers["s3"] = ValueError(canary("text"))  # not a SecretError: the call fails
    with caplog.at_level(logging.ERROR, "django_secret_registry"):
        results = registry.warm(refs(5))
    assert [result.outcome for result in results] == ["error"] * 5
    assert "ValueError" in results[0].error
    assert "ValueError" in caplog.text


@pytest.mark.parametrize("garbage", [None, [], "text", 5, {"x": "y"}])
def test_a_batch_that_answers_nonsense(script, garbage):
    """A provider whose batch is no dict of answers is an error for each reference, and no hang."""
    registry = make(alias("a", script, "BatchProvider"))
    provider = registry.get_provider("a")
    type(provider).fetch_many, kept = lambda *args, **kwargs: garbage, type(provider).fetch_many
    try:
        results = registry.warm(refs(3))
    finally:
        type(provider).fetch_many = kept
    assert [result.outcome for result in results] == ["error"] * 3


def test_members_of_a_map_are_reported_one_by_one(script):
    """A MAP is warmed by its members, each with a line of its own."""
    registry = make(alias("a", script), entry("m", members={"x": "a://s1", "y": "a://missing"}))
    results = registry.warm(["m"])
    assert [(r.reference, r.outcome) for r in results] == [
        ("a://s1", "ok"),
        ("a://missing", "not_found"),
    ]


@pytest.mark.parametrize("text", [canary("bare"), f"{canary()}://x", f"no such {canary()}"])
def test_text_that_leads_nowhere_is_not_repeated(script, text):
    """What names no alias and no entry is reported as an error, without the text."""
    registry = make(alias("a", script))
    (result,) = registry.warm([text])
    assert result.outcome == "error"
    assert result.reference == HIDDEN
    assert canary("") not in repr(result)
    registry.set_discovery(lambda: {"settings.X": text})
    assert registry.ready().missing == (HIDDEN,)


def test_values_are_no_references(script):
    """A value among the references is a TypeError, as is a single text instead of a list."""
    registry = make(alias("a", script))
    with pytest.raises(TypeError):
        registry.warm([SecretStr(canary("value"))])
    with pytest.raises(TypeError):
        registry.warm("a://s1")


def test_duplicates_and_nothing(script):
    """A reference that is given twice is warmed once; no references are no work."""
    registry = make(alias("a", script))
    assert len(registry.warm(["a://s1", "a://s1"])) == 1
    assert registry.warm([]) == []
    assert registry.warm(refs(3), providers=[]) == []


def test_only_some_providers(script):
    """``providers`` takes only what belongs to these aliases, errors too."""
    registry = make(alias("a", script), alias("b", script), alias("c", script, problem="broken"))
    wanted = ["a://s1", "b://s1", "c://s1", "nothing"]
    results = registry.warm(wanted, providers=["b", "c"])
    assert [(r.provider, r.outcome) for r in results] == [("b", "ok"), ("c", "error")]
    assert [ref.scheme for ref in script.fetched] == ["b"]


def test_on_result_is_called_in_the_callers_thread(script):
    """``on_result`` gets every result once, as it comes, in the thread that called ``warm``."""
    seen = []
    registry = make(alias("a", script, "BatchProvider"))
    results = registry.warm(
        [*refs(50), "nothing"],
        on_result=lambda result: seen.append((result, threading.current_thread())),
    )
    assert {thread for _, thread in seen} == {threading.current_thread()}
    assert sorted(map(repr, results)) == sorted(repr(result) for result, _ in seen)
    assert seen[0][0].outcome == "error"  # known without a fetch


def test_fail_fast_begins_nothing_new(script):
    """With ``fail_fast`` what is under way is finished, and the rest is reported as skipped."""
    registry = make(alias("a", script))
    results = registry.warm(["a://s1", "a://missing", *refs(5)], max_workers=1, fail_fast=True)
    assert [r.outcome for r in results] == ["ok", "not_found"] + ["skipped"] * 4
    assert len(results) == 6  # a://s1 stands twice
    assert [ref.name for ref in script.fetched] == ["s1", "missing"]


def test_fail_fast_for_what_needs_no_fetch(script):
    """An error that is known at once keeps everything from being fetched."""
    registry = make(alias("a", script))
    results = registry.warm(["a://s1", "nothing"], fail_fast=True)
    assert [r.outcome for r in results] == ["skipped", "error"]
    assert not script.fetched


def test_seconds_are_those_of_the_call(script):
    """A result tells how long its call took; what was not tried took no time."""
    gate = Gate()

    def slow(ref):
        gate.stop()
        return canary("value")

    script.answers["slow"] = slow
    registry = make(alias("a", script))
    with running(lambda: registry.warm(["nothing", "a://slow"])) as outcome:
        gate.wait()
        gate.open()
    nothing, waited = outcome[0]
    assert nothing.seconds == 0.0
    assert waited.seconds > 0.0


# -- what is fetched -----------------------------------------------------------------------------


def test_what_is_fresh_is_not_fetched_again(script):
    """Warming twice fetches once; what is due is fetched anew."""
    clock = HandClock()
    registry = make(alias("a", script, "BatchProvider"), clock=clock)
    registry.warm(refs(5))
    assert {result.outcome for result in registry.warm(refs(5))} == {"ok"}
    assert len(script.batches) == 1
    clock.forward(290)
    registry.warm(refs(5))
    until(lambda: len(script.batches) == 2)


def test_what_somebody_else_fetches_is_waited_for(script):
    """Warming joins a fetch that is under way, and so does a second warming."""
    gate = Gate()

    def slow(ref):
        gate.stop()
        return canary("value")

    script.answers["slow"] = slow
    registry = make(alias("a", script))
    with (
        running(lambda: registry.get("a://slow")) as read,
        running(lambda: at_once(lambda: registry.warm(["a://slow"]), 4)) as warmed,
    ):
        gate.wait()
        gate.open()
    assert read == [canary("value")]
    assert [result.outcome for (result,) in warmed[0]] == ["ok"] * 4
    assert len(script.fetched) == 1


def test_all_that_settings_and_secrets_name(script):
    """Without references, those of settings and of SECRETS are warmed, each once."""
    registry = make(alias("a", script), entry("e", "a://s2"), entry("m", members={"x": "a://s3"}))
    registry.set_discovery(lambda: {"settings.A": "a://s1", "settings.B": "a://s1", "X": "e"})
    assert registry.references() == {
        "settings.A": "a://s1",
        "settings.B": "a://s1",
        "X": "e",
        "SECRETS['e']": "e",
        "SECRETS['m']": "m",
    }
    results = registry.warm()
    assert [result.reference for result in results] == ["a://s1", "a://s2", "a://s3"]
    assert len(script.fetched) == 3


def test_offline_and_unconfigured(script):
    """Offline each reference is reported as unavailable; unconfigured there is nothing to warm."""
    registry = make(alias("a", script), offline=True)
    assert [result.outcome for result in registry.warm(refs(2))] == ["unavailable"] * 2
    assert not script.builds
    with pytest.raises(SecretNotReady):
        SecretRegistry().warm(refs(2))


# -- start and ready -----------------------------------------------------------------------------


def test_ready_says_what_is_missing(script):
    """The process is ready when all that it names is held; until then it says what is not."""
    registry = make(alias("a", script), entry("e", "a://s1"), entry("m", members={"x": "a://s2"}))
    registry.set_discovery(lambda: {"settings.A": "a://s3"})
    readiness = registry.ready()
    assert not readiness
    assert readiness.missing == ("a://s3", "e", "m")
    assert not script.builds
    registry.warm(["e", "m"])
    assert registry.ready().missing == ("a://s3",)
    registry.get("a://s3")
    assert registry.ready()
    registry.evict("e")
    assert registry.ready().missing == ("e",)


def test_ready_of_what_is_optional(script):
    """What is confirmed to be missing is nothing to wait for, where settings have a default."""
    registry = make(alias("a", script), entry("previous", "a://missing"))
    registry.set_discovery(lambda: {"X": "a://gone", "Y": "a://s1#gone"}, lambda: {"previous"})
    script.answers["s1"] = "{}"
    assert registry.ready().missing == ("a://gone", "a://s1#gone", "previous")
    outcomes = {result.reference: result.outcome for result in registry.warm()}
    assert outcomes == {
        "a://gone": "not_found",
        "a://s1#gone": "not_found",
        "a://missing": "default",
    }
    assert registry.ready().missing == ("a://gone", "a://s1#gone")


def test_nothing_is_ready_unconfigured():
    """A registry that nobody configured says so instead of being ready."""
    with pytest.raises(SecretNotReady):
        SecretRegistry().ready()


def test_start_begins_once(script):
    """Each listener for the start is called once, whether it comes before the start or after."""
    registry = make(alias("a", script))
    begun = []

    def before():
        begun.append("before")

    def after():
        begun.append("after")

    registry.on_start(before)
    registry.on_start(before)
    assert begun == []
    at_once(registry.start, 8)
    registry.start()
    assert begun == ["before"]
    assert registry.started
    registry.on_start(after)
    registry.on_start(after)
    assert begun == ["before", "after"]


def test_start_and_on_start_at_the_same_time(script):
    """Listeners that come while the process starts are called exactly once each."""
    registry = make(alias("a", script))
    begun = []

    def begin():
        begun.append(1)

    at_once(lambda: (registry.on_start(begin), registry.start()), 16)
    assert begun == [1]


@pytest.mark.parametrize("offline", [False, True])
def test_start_warms_if_the_settings_say_so(script, monkeypatch, offline):
    """With WARM_UP the process warms itself in the background after its start; never offline."""
    monkeypatch.setattr(resolver, "WARM_UP_SPREAD", 0)
    registry = make(alias("a", script), entry("e", "a://s1"), warm_up=True, offline=offline)
    before = set(threading.enumerate())
    registry.start()
    if offline:
        assert not _warming(set(threading.enumerate()) - before)
    else:
        until(lambda: bool(registry.ready()))
        assert script.fetchers[0] is not threading.current_thread()


def test_start_before_the_configuration_warms_after_it(script, monkeypatch):
    """Where a worker starts before Django is set up, it warms itself as soon as it is; once."""
    monkeypatch.setattr(resolver, "WARM_UP_SPREAD", 0)
    registry = SecretRegistry()
    registry.start()
    assert not script.builds
    settings = config(alias("a", script), entry("e", "a://s1"), warm_up=True)
    registry.configure(settings)
    until(lambda: bool(registry.ready()))
    registry.configure(settings)  # as override_settings does
    registry.start()
    assert not registry.ready()
    assert len(script.fetched) == 1


def test_a_warm_up_is_of_the_configuration_in_force(script, monkeypatch):
    """One that waits for its turn does nothing where WARM_UP is off by then."""
    registry = make(alias("a", script), entry("e", "a://s1"), warm_up=True)
    drawn, before = threading.Event(), set(threading.enumerate())

    def configure_anew(low: float, high: float) -> float:
        registry.configure(config(alias("a", script), entry("e", "a://s1")))
        drawn.set()
        return 0.0

    monkeypatch.setattr(resolver.random, "uniform", configure_anew)
    registry.start()
    assert drawn.wait(PATIENCE)
    until(lambda: not _warming(set(threading.enumerate()) - before))
    assert not script.builds


def test_start_without_warm_up_fetches_nothing(script):
    """Without WARM_UP nothing is fetched before somebody reads."""
    registry = make(alias("a", script), entry("e", "a://s1"))
    before = set(threading.enumerate())
    registry.start()
    assert not _warming(set(threading.enumerate()) - before)
    assert not script.builds


def _warming(threads):
    return [thread for thread in threads if thread.name == "secret-registry-warm-up"]


def test_a_warm_up_that_fails_is_logged(script, monkeypatch, caplog):
    """What could not be warmed is a warning that names the reference and no value."""
    monkeypatch.setattr(resolver, "WARM_UP_SPREAD", 0)
    registry = make(
        alias("a", script), entry("e", "a://missing"), entry("f", canary("misplaced")), warm_up=True
    )
    with caplog.at_level(logging.WARNING, "django_secret_registry"):
        registry.start()
        until(lambda: len(caplog.records) == 2)
    assert "a://missing" in caplog.text


def test_an_error_never_ends_a_warming(script):
    """Errors of every kind stay in the report: ``warm`` raises nothing for a secret."""

    class Strange(SecretError):
        def __init__(self, code):
            super().__init__(f"code {code}")

    script.answers |= {"exit": SystemExit(1), "strange": Strange(7), "bytes": b"\xff"}
    registry = make(alias("a", script))
    results = registry.warm(["a://exit", "a://strange", "a://bytes"])
    assert [result.outcome for result in results] == ["error"] * 3
    assert "code 7" in results[1].error
