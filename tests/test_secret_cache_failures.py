"""Backends that fail: who is told what, who asks again and when, and what an error keeps alive."""

from __future__ import annotations

import gc
import traceback
import weakref

import pytest

from django_secret_registry import fetching
from django_secret_registry.events import (
    Refreshed,
)
from django_secret_registry.exceptions import (
    AccessDenied,
    InvalidProvider,
    ProviderError,
    ProviderUnavailable,
    SecretError,
    SecretNotFound,
)
from tests.loads import (
    FOREVER,
    MINUTE,
    Bench,
    Witness,
    denied,
    down,
    missing,
    value,
)
from tests.scripted import Gate, running

# -- failures and backoff --------------------------------------------------------------------------


def test_denied_is_remembered_for_its_own_key():
    """While a denied key backs off its readers are told at once; other keys are not concerned."""
    bench = Bench()
    bench.answer("db", denied)
    bench.answer("other", "1")
    for _ in range(3):
        with pytest.raises(AccessDenied):
            bench.read()
    assert bench.calls == 1
    assert bench.read("other") == "1"
    bench.forward(2.0)
    bench.answer("db", "2")
    assert bench.read() == "2"


def test_the_backoff_of_a_denied_key_grows_to_a_minute():
    """Attempts are 1 s to 60 s apart, each wait about twice the last."""
    bench = Bench()
    bench.answer("db", denied)
    waits = []
    for _ in range(10):
        with pytest.raises(AccessDenied):
            bench.read()
        waits.append(bench.info().retry_in)
        bench.forward(waits[-1])
    assert bench.calls == 10
    for attempt, wait in enumerate(waits):
        assert max(1.0, 0.75 * 2**attempt) <= wait <= 1.25 * 2**attempt or 48.0 <= wait <= MINUTE
    assert max(waits) <= MINUTE


def test_an_outage_backs_off_for_all_keys_of_the_backend():
    """After one key found its backend unavailable no other key asks it until the wait is over."""
    bench = Bench()
    bench.answer("db", down)
    with pytest.raises(ProviderUnavailable, match="no route"):
        bench.read()
    for name in ("a", "b", "db"):
        with pytest.raises(ProviderUnavailable, match="left alone") as caught:
            bench.read(name)
        assert caught.value.reference == f"t://{name}"
    assert bench.calls == 1


def test_an_outage_of_one_backend_does_not_concern_another():
    """Each (alias, region) has a backoff of its own."""
    bench = Bench()
    bench.answer("db", down)
    with pytest.raises(ProviderUnavailable):
        bench.read()
    bench.answer("db", "1")
    assert bench.read(alias="u") == "1"


def test_backends_that_users_make_up_do_not_pile_up(monkeypatch):
    """Of more backends than a process can have, one that works is forgotten, and no outage."""
    monkeypatch.setattr(fetching, "_MAX_BACKENDS", 10)
    bench = Bench()
    bench.answer("db", down)
    with pytest.raises(ProviderUnavailable):
        bench.read()
    bench.answer("db", "1")
    for number in range(50):
        assert bench.read(alias=f"a{number}") == "1"
    assert len(bench.cache._fetches._backends) == 10
    with pytest.raises(ProviderUnavailable, match="left alone"):
        bench.read()
    bench.answer("db", down)
    for number in range(50):
        with pytest.raises(ProviderUnavailable):
            bench.read(alias=f"b{number}")
    assert len(bench.cache._fetches._backends) == 10


def test_after_an_outage_one_probe_goes_first():
    """When the wait is over one key tries; the others are told at once until it is answered."""
    bench, gate = Bench(), Gate()
    bench.answer("db", down)
    with pytest.raises(ProviderUnavailable):
        bench.read()
    bench.forward(2.0)
    bench.answer("db", lambda: gate.stop() or value("1"))
    bench.answer("other", "2")
    with running(bench.read) as outcome:
        gate.wait()
        with pytest.raises(ProviderUnavailable):
            bench.read("other")
        assert bench.calls == 2
        gate.open()
    assert outcome == ["1"]
    assert bench.read("other") == "2"


@pytest.mark.parametrize("answer", [denied, missing, lambda: InvalidProvider("no such option")])
def test_any_answer_ends_an_outage(answer):
    """Denied, not found and a provider that cannot be built are no outage: the way is free."""
    bench = Bench()
    bench.answer("db", down)
    with pytest.raises(ProviderUnavailable):
        bench.read()
    bench.forward(2.0)
    bench.answer("db", answer)
    with pytest.raises(type(answer())):
        bench.read()
    bench.answer("other", "1")
    assert bench.read("other") == "1"


def test_a_forced_refresh_asks_once_a_second_while_the_backend_backs_off():
    """An operator need not wait for a backoff of a minute, and cannot make it worse either."""
    bench = Bench()
    bench.answer("db", "1")
    bench.read()
    bench.answer("db", down)
    for _ in range(8):  # the wait is 48 s at least now
        bench.forward(MINUTE)
        with pytest.raises(ProviderUnavailable):
            bench.refresh()
    calls = bench.calls
    bench.answer("db", "2")
    bench.forward(0.999)
    with pytest.raises(ProviderUnavailable, match="left alone"):
        bench.refresh()
    assert bench.calls == calls
    assert bench.told.of(Refreshed)[-1].outcome == "backed_off"
    assert bench.read() == "1"
    bench.forward(0.001)
    assert bench.refresh() == "2"


def test_a_forced_refresh_ignores_the_backoff_of_its_key():
    """Whoever was just granted access may try at once."""
    bench = Bench()
    bench.answer("db", denied)
    with pytest.raises(AccessDenied):
        bench.read()
    bench.answer("db", "1")
    assert bench.refresh() == "1"


def test_a_provider_that_cannot_be_built_is_asked_again_at_once():
    """A failed build is not remembered, neither for the key nor for the backend."""
    bench = Bench()
    bench.answer("db", lambda: InvalidProvider("no such option"))
    for calls in (1, 2, 3):
        with pytest.raises(InvalidProvider):
            bench.read()
        assert bench.calls == calls
    bench.answer("db", "1")
    assert bench.read() == "1"


def test_what_is_shown_of_a_backoff_ends_with_the_outage():
    """A key that failed in an outage shows no time of its next attempt once the backend is up."""
    bench = Bench()
    bench.answer("db", down)
    with pytest.raises(ProviderUnavailable):
        bench.read()
    assert 1.0 <= bench.info().retry_in <= 1.25
    assert (bench.info().attempts, bench.info().last_status) == (1, "unavailable")
    bench.forward(1.0)
    bench.answer("other", "1")
    bench.refresh("other")
    assert bench.info().retry_in is None


def test_a_backend_that_answers_nonsense_is_an_error_of_the_provider():
    """A key that a load leaves out gets an error that says so."""
    bench = Bench(load=lambda refs: {})
    with pytest.raises(ProviderError, match="gave no answer"):
        bench.read()


# -- errors ----------------------------------------------------------------------------------------


def test_each_raised_error_is_an_object_of_its_own():
    """Readers of a remembered error never share it, so that no traceback grows."""
    bench = Bench()
    bench.answer("db", denied)
    bench.answer("down", down)
    for name in ("db", "nothing", "down"):
        errors, depths = [], set()
        for _ in range(5):
            with pytest.raises(SecretError) as caught:
                bench.read(name)
            errors.append(caught.value)
            depths.add(len(traceback.extract_tb(caught.value.__traceback__)))
        assert len(set(map(id, errors))) == 5
        assert len(depths) == 1


def test_an_error_names_reference_provider_and_region():
    """Whatever a provider left out is filled in."""
    bench = Bench()
    bench.answer("db", denied)
    with pytest.raises(AccessDenied) as caught:
        bench.read()
    error = caught.value
    assert (error.reference, error.provider, error.region) == ("t://db", "t", "eu")


def test_a_transport_error_is_the_cause_of_the_error_that_it_became():
    """Those who waited see what the library said; those who come during the backoff do not."""
    bench = Bench()

    def refuse() -> SecretError:
        error = down()
        error.__cause__ = ConnectionRefusedError("port closed")
        return error

    bench.answer("db", refuse)
    with pytest.raises(ProviderUnavailable) as caught:
        bench.read()
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    with pytest.raises(ProviderUnavailable) as caught:
        bench.read()
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("kind", [ProviderUnavailable, AccessDenied, SecretNotFound])
def test_an_error_keeps_no_frame_of_the_provider_alive(kind):
    """Once the error was handled nothing holds the frames in which it was made."""
    seen = []

    def load(refs):
        witness = Witness()
        seen.append(weakref.ref(witness))
        try:
            raise ConnectionResetError
        except ConnectionResetError as exc:
            try:
                raise kind("no answer") from exc
            except SecretError as error:
                return dict.fromkeys(refs, error)

    bench = Bench(load=load)
    with pytest.raises(kind):
        bench.read()
    with pytest.raises(kind):
        bench.read()
    answers = bench.cache.prefetch([bench.ask("other")]).results()
    assert len(answers) == 1
    del answers
    gc.collect()
    assert seen[0]() is None
    assert bench.info().last_status


def test_a_third_partys_error_may_have_arguments_of_its_own():
    """An error class with another signature reaches the reader like any other."""

    class QuotaExceeded(ProviderUnavailable):
        def __init__(self, quota: int) -> None:
            super().__init__(f"the quota of {quota} calls is used up")
            self.quota = quota

    bench = Bench()
    bench.answer("db", lambda: QuotaExceeded(7))
    with pytest.raises(QuotaExceeded, match="quota of 7") as caught:
        bench.read()
    assert (caught.value.quota, caught.value.reference) == (7, "t://db")


@pytest.mark.parametrize("answer", ["text", 7, object()])
def test_an_answer_that_cannot_be_stored_leaves_nobody_waiting(answer):
    """A load that breaks its contract fails its readers at once, not by a timeout."""
    bench = Bench(load=lambda refs: dict.fromkeys(refs, answer), fetch_timeout=FOREVER)
    with running(bench.read) as outcome:
        pass
    assert isinstance(outcome[0], ProviderError)
