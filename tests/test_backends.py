"""What the keys of one backend share: the backoff of an outage, and the one probe that ends it."""

from __future__ import annotations

import math
from concurrent.futures import Future

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_secret_registry.backends import FIRST_WAIT, LONGEST_WAIT, Backend, wait_after
from django_secret_registry.lifecycle import Cell, Flight, SecretKey
from django_secret_registry.references import SecretRef

TIMEOUT = 10.0


@pytest.fixture
def backend() -> Backend:
    return Backend("aws", "eu-west-1")


def fly(backend: Backend, now: float) -> Flight:
    """Launch a flight, as a reader does whom the backend admits."""
    key = SecretKey("aws", "eu-west-1", "", "db", "", "")
    cell = Cell(key, SecretRef(scheme="aws", name="db"), jitter=1.0)
    flight = Flight(cell, backend, serial=1, launched=now, deadline=now + TIMEOUT, landed=Future())
    backend.launched(flight)
    return flight


def fail(backend: Backend, now: float, times: int = 1) -> float:
    """Let so many probes fail one after the other; return the time of the last failure."""
    for _ in range(times):
        now = max(now, backend.closed_until)
        backend.failed(fly(backend, now), now)
    return now


@given(st.integers(1, 10_000))
def test_a_wait_is_between_a_second_and_a_minute(attempts):
    """However many attempts have failed, also where two to their power is no float any more."""
    assert FIRST_WAIT <= wait_after(attempts) <= LONGEST_WAIT


@given(st.integers(1, 6))
def test_a_wait_doubles_within_its_jitter(attempts):
    """The first wait is about a second, each further one about twice the last."""
    middle = 2 ** (attempts - 1)
    assert 0.75 * middle <= wait_after(attempts) <= 1.25 * middle


def test_a_backend_that_answers_admits_everybody(backend):
    """Without failures there is no wait and no probe."""
    assert backend.closed_until == -math.inf
    flights = [fly(backend, 0.0) for _ in range(3)]
    assert backend.admits(0.0)
    assert backend.probe is None
    for _ in flights:
        backend.answered()
    assert backend.admits(0.0)


def test_a_failure_closes_the_backend_for_its_wait(backend):
    """Nobody is admitted until the wait is over."""
    fail(backend, 100.0)
    assert 101.0 <= backend.closed_until <= 101.25
    assert not backend.admits(100.999)
    assert backend.admits(101.25)


def test_each_failed_probe_waits_longer(backend):
    """Up to a minute, where it stays."""
    waits, now = [], 0.0
    for _ in range(12):
        now = fail(backend, now)
        waits.append(backend.closed_until - now)
    assert waits[0] < 2.0 < waits[3]
    assert all(48.0 <= wait <= LONGEST_WAIT + 1e-6 for wait in waits[7:])


def test_only_one_probe_flies(backend):
    """While it is under way nobody else is admitted, forced or not, until its deadline."""
    now = fail(backend, 0.0) + 2.0
    fly(backend, now)
    assert not backend.admits(now + TIMEOUT - 0.001)
    assert not backend.admits(now + TIMEOUT - 0.001, forced=True)
    assert backend.closed_until == now + TIMEOUT
    assert backend.admits(now + TIMEOUT)


def test_an_answer_opens_the_backend(backend):
    """The wait, the count and the probe are forgotten."""
    now = fail(backend, 0.0, times=5) + LONGEST_WAIT
    fly(backend, now)
    backend.answered()
    assert (backend.attempts, backend.probe, backend.closed_until) == (0, None, -math.inf)
    assert backend.admits(now)
    fail(backend, now + 1.0)
    assert backend.closed_until <= now + 1.0 + 1.25


def test_flights_of_one_outage_count_once(backend):
    """Those that had begun when the first one failed were in the same outage."""
    flights = [fly(backend, float(number)) for number in range(10)]
    for flight in flights:
        backend.failed(flight, 20.0)
    assert backend.attempts == 1
    backend.failed(fly(backend, 30.0), 31.0)
    assert backend.attempts == 2


def test_a_late_failure_of_an_outage_that_is_over_does_not_count(backend):
    """What began before the last failure says nothing about the backend now."""
    slow = fly(backend, 0.0)
    fail(backend, 1.0)
    fly(backend, 5.0)
    backend.answered()
    backend.failed(slow, 10.0)
    assert backend.admits(10.0)


def test_a_forced_fetch_waits_a_second_at_most(backend):
    """An operator is not held up by a wait of a minute."""
    now = fail(backend, 0.0, times=10)
    assert not backend.admits(now + 2.0)
    assert backend.admits(now + FIRST_WAIT, forced=True)
    assert not backend.admits(now + FIRST_WAIT - 0.001, forced=True)
    fly(backend, now + FIRST_WAIT)
    assert not backend.admits(now + FIRST_WAIT, forced=True)


def test_the_threads_of_a_backend_are_named_after_it():
    """A stack dump tells whose calls hang."""
    assert Backend("aws", "eu-west-1").pool._name == "secret-registry-aws-eu-west-1"
    assert Backend("env", "").pool._name == "secret-registry-env-global"
