"""The rotation window: who waits how long after a refused login, and who fetches."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from django_secret_registry.asking import Ask
from django_secret_registry.lifecycle import Held, SecretKey
from django_secret_registry.references import SecretRef
from django_secret_registry.rotation import LONGEST_DELAY, Reading, RotationWindows, Version
from django_secret_registry.values import SecretValue
from tests.canary import canary
from tests.scripted import PATIENCE, Gate, HandClock, at_once, running, threads_in, until

WINDOW = 15.0


def version(number: int, **fields: Any) -> Version:
    key = SecretKey("aws", "eu", "", "db", "", "")
    value = SecretValue(canary(f"password-{number}"), str(number), **fields)
    held = Held(value, 0.0, 1.0, 1.0, 1.0, True, {})
    return Reading({}, {Ask(key, SecretRef(scheme="aws", name="db"), 1.0): held}).version


class Login:
    """A login of one thread; its attempts take no time, and its waits move the clock."""

    def __init__(self, seconds: float = WINDOW) -> None:
        self.clock = HandClock()
        self.waits: list[float] = []
        self.fetched: list[float] = []
        self.windows = RotationWindows(lambda: seconds, clock=self.clock, wait=self._wait)

    def _wait(self, condition: object, seconds: float | None) -> None:
        assert seconds is not None, "nobody else fetches"
        self.waits.append(seconds)
        self.clock.forward(seconds)

    def fetch(self, step: int) -> None:
        assert step == len(self.fetched)
        self.fetched.append(self.clock())

    def refused(self, number: int = 1) -> bool:
        return self.windows.refused(version(number), self.clock(), self.fetch)

    def until_failure(self, number: int = 1) -> int:
        """Try again and again; return how often it was worth while."""
        tries = 0
        while self.refused(number):
            tries += 1
        return tries


def test_first_refusal():
    """The first refusal is followed by a fetch and another attempt without any delay."""
    login = Login()
    assert login.refused()
    assert login.waits == []
    assert len(login.fetched) == 1


def test_delays():
    """Further attempts wait longer and longer, one second at most, and jitter."""
    login = Login()
    login.until_failure()
    assert login.waits[0] == pytest.approx(0.25, rel=0.25)
    assert login.waits[1] == pytest.approx(0.5, rel=0.25)
    assert max(login.waits) <= 1.25 * LONGEST_DELAY
    assert len(set(login.waits)) == len(login.waits)


def test_end_of_the_window():
    """The last fetch and attempt are made in the moment in which the window closes."""
    login = Login()
    began = login.clock()
    tries = login.until_failure()
    assert login.fetched[-1] == began + WINDOW == login.clock()
    assert tries == len(login.fetched)


def test_after_the_window():
    """A version that was refused through its window fails at once: no wait, no fetch."""
    login = Login()
    login.until_failure()
    login.waits.clear()
    login.fetched.clear()
    assert login.windows.failed(version(1))
    assert not login.refused()
    assert login.waits == login.fetched == []


def test_window_of_no_length():
    """With a window of 0 seconds there is one fetch and one more attempt."""
    login = Login(0.0)
    assert login.until_failure() == 1
    assert login.waits == []


def test_other_version():
    """Another version has a window of its own."""
    login = Login()
    login.until_failure()
    login.fetched.clear()
    assert login.refused(2)
    assert not login.windows.failed(version(2))


@pytest.mark.parametrize("fields", [{"lease_id": "l"}, {"expires_at": 9e9}], ids=["lease", "token"])
def test_issued_versions(fields):
    """What is issued anew by each fetch is refused through one window, and tried after it."""
    login = Login()
    began, number = login.clock(), 1
    while login.windows.refused(version(number, **fields), login.clock(), login.fetch):
        number += 1
        assert number < 25
    assert login.clock() - began == WINDOW
    assert len(login.fetched) == number - 1
    assert login.windows.failed(version(number, **fields))
    assert not login.windows.failed(version(number + 1, **fields))
    assert login.windows.may_hasten(version(number, **fields))
    login.windows.accepted(login.clock())
    login.fetched.clear()
    assert login.windows.refused(version(number + 1, **fields), login.clock(), login.fetch)


def test_acceptance_ends_windows():
    """Once a login is accepted, a later refusal of the same version is a new rotation."""
    login = Login()
    login.until_failure()
    login.fetched.clear()
    login.windows.accepted(login.clock())
    assert not login.windows.failed(version(1))
    assert login.refused()
    assert len(login.fetched) == 1


def test_acceptance_of_an_earlier_attempt():
    """A success of an attempt that began before the first refusal ends no window."""
    login = Login()
    began = login.clock()
    login.clock.forward(0.1)
    login.refused()
    login.windows.accepted(began)
    assert login.refused()
    assert login.waits, "it has begun a new window instead of waiting in the one that is open"


def test_flickering_secret():
    """A secret that changes between two refused versions opens no third window."""
    login = Login()
    began = login.clock()
    fetches: list[int] = []
    while all(
        login.windows.refused(version(number), login.clock(), fetches.append) for number in (1, 2)
    ):
        assert len(fetches) < 100
    assert login.clock() - began <= 2 * WINDOW


def test_windows_are_bounded():
    """However many versions are refused, only a few are remembered."""
    login = Login()
    for number in range(50):
        login.fetched.clear()
        login.refused(number)
    assert len(login.windows._windows) == 8


def test_hastening():
    """After the window another version is looked for once per length of the window."""
    login = Login()
    login.refused()
    assert not login.windows.may_hasten(version(1)), "the window is still open"
    login.until_failure()
    assert login.windows.may_hasten(version(1))
    assert not login.windows.may_hasten(version(1))
    login.clock.forward(WINDOW)
    assert login.windows.may_hasten(version(1))
    assert not login.windows.may_hasten(version(2)), "it was never refused"


class Crowd:
    """Threads that are refused, in windows whose clock stands still."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.fetches: list[int] = []
        self.clock = HandClock()
        self.windows = RotationWindows(lambda: WINDOW, clock=self.clock, wait=self.wait)

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:
        assert condition.wait(PATIENCE), "nobody lets it go"

    def fetch(self, step: int) -> None:
        self.fetches.append(step)
        self.gate.stop()

    def refused(self) -> bool:
        return self.windows.refused(version(1), self.clock(), self.fetch)


def test_many_threads_share_a_fetch():
    """Of all threads that are refused one fetches, and the others try again when it has."""
    crowd = Crowd()
    with running(lambda: at_once(crowd.refused, 16)) as outcome:
        crowd.gate.wait()
        until(lambda: threads_in(Crowd.wait) == 15)
        crowd.gate.open()
    assert outcome == [[True] * 16]
    assert crowd.fetches == [0]


def test_acceptance_wakes_those_who_wait():
    """A thread that waits for its turn tries again as soon as another one was accepted."""
    crowd = Crowd()
    crowd.gate.open()
    crowd.refused()
    with running(crowd.refused) as outcome:
        until(lambda: threads_in(Crowd.wait) == 1)
        crowd.windows.accepted(crowd.clock())
    assert outcome == [True]
    assert crowd.fetches == [0]


def test_refusal_while_the_last_fetch_is_under_way():
    """A refusal after the window waits for the last fetch, which may bring the new version."""
    crowd = Crowd()
    with running(crowd.refused) as first:
        crowd.gate.wait()
        crowd.clock.forward(WINDOW + 1)
        with running(crowd.refused) as second:
            until(lambda: threads_in(Crowd.wait) == 1)
            crowd.gate.open()
    assert first == second == [True]
    assert not crowd.refused()


def test_error_of_the_fetch():
    """An error reaches the thread that fetched; who waited for it goes on to try."""
    crowd = Crowd()

    def fail(step: int) -> None:
        crowd.fetch(step)
        raise InterruptedError

    def refused() -> bool:
        return crowd.windows.refused(version(1), crowd.clock(), fail)

    with running(refused) as interrupted:
        crowd.gate.wait()
        with running(refused) as other:
            until(lambda: threads_in(Crowd.wait) == 1)
            crowd.gate.open()
    assert [type(one) for one in interrupted] == [InterruptedError]
    assert other == [True]
