"""The rotation window: what to do between a refused login and a version that is accepted.

A secret manager and a server do not change in the same instant. While the server is ahead, only a
new fetch helps; while the secret manager is ahead, only patience. From one refused login nobody
can tell which of them it is, or that the password is plainly wrong. So what was refused is fetched
anew and tried again, at once and then with a growing delay, for ``ROTATION_WINDOW`` seconds; after
that it fails at once, until another version is there; or, with credentials that are issued for
some time, and so are others after each fetch, until some are accepted.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .asking import Ask
from .clock import Clock, steady
from .lifecycle import Held, SecretKey
from .planning import Text
from .values import SecretBytes, SecretStr, SecretValue

#: Seconds between attempts: after the first retry, and at most. The latter bounds what a rotation
#: costs beyond the time in which server and secret manager disagree.
FIRST_DELAY = 0.25
LONGEST_DELAY = 1.0

#: Windows that are remembered per login: a secret that flickers between versions must not open new
#: ones for ever.
_REMEMBERED = 8

#: A secret that a login was made of: key, the backend's version, and the value, as not every
#: backend has versions.
Part = tuple[SecretKey, str | None, SecretStr | SecretBytes]


class Version(NamedTuple):
    """Which secrets a login was made of; empty if there was none.

    ``window`` is what a rotation window belongs to. What is issued for some time (a lease, a token)
    has one for all its versions: each fetch brings another one, and a window for each would never
    end, but have ever more credentials issued.
    """

    parts: tuple[Part, ...] = ()
    window: tuple[Part | SecretKey, ...] = ()


class Reading(NamedTuple):
    """Several values that were read together, and what the cache held of each secret in them.

    What is not found has its ``SecretNotFound`` as value.
    """

    values: Mapping[Text, Any]
    held: Mapping[Ask, Held]

    @property
    def version(self) -> Version:
        """What tells it from a reading of other versions."""
        parts: list[Part] = []
        window: list[Part | SecretKey] = []
        answers = {ask.key: held.answer for ask, held in self.held.items()}
        for key, answer in sorted(answers.items(), key=lambda item: item[0]):
            if isinstance(answer, SecretValue):
                part = key, answer.version, answer.value
                issued = answer.lease_id or answer.expires_at is not None
                parts.append(part)
                window.append(key if issued else part)
        return Version(tuple(parts), tuple(window))

    @property
    def references(self) -> str:
        """The references, as an error may show them."""
        return ", ".join(sorted({str(ask.ref) for ask in self.held}))


class _Window:
    """One window; guarded by the condition of :class:`RotationWindows`."""

    __slots__ = ("busy", "closes", "due", "failed", "hasten_at", "opened", "over", "step")

    def __init__(self, now: float, seconds: float) -> None:
        self.opened = now
        self.closes = now + seconds
        self.step = 0  # how often the secret has been fetched in this window
        self.due = now  # when it is to be fetched next
        self.busy = False  # somebody fetches now
        self.over = False  # a version was accepted
        self.failed: Version | None = None  # what was refused after it had closed
        self.hasten_at = self.closes

    def next_step(self, now: float) -> None:
        delay = min(LONGEST_DELAY, FIRST_DELAY * 2**self.step)
        jitter = random.uniform(0.75, 1.25)  # noqa: S311 - or a fleet would fetch in step
        self.step += 1
        # The last attempt is made when the window closes, and not before: the new version may
        # appear in that very moment.
        self.due = min(now + delay * jitter, self.closes)


class RotationWindows:
    """The windows of one login, see :class:`Version`. Thread-safe; holds no lock while others work.

    ``seconds`` gives the length of a window that opens now. ``wait`` waits on a condition that the
    caller holds, for so many seconds at most (``None``: until it is notified).
    """

    def __init__(
        self,
        seconds: Callable[[], float],
        *,
        clock: Clock = steady,
        wait: Callable[[threading.Condition, float | None], object] = threading.Condition.wait,
    ) -> None:
        self.clock = clock
        self._seconds = seconds
        self._wait = wait
        self._changed = threading.Condition()
        self._windows: dict[tuple[Part | SecretKey, ...], _Window] = {}

    def refused(self, version: Version, began: float, fetch: Callable[[int], object]) -> bool:
        """Wait until it is worth while to read the secret and to try again; ``False``: give up.

        ``began`` is when the refused attempt began. Of those who wait, one calls ``fetch`` in each
        step, with the number of the step from 0; its error reaches that caller, and the others go
        on to try.
        """
        with self._changed:
            window = self._windows.get(version.window)
            if window is None:
                window = self._open(version)
            elif began >= window.closes and not window.busy:
                window.failed = version
                return False
            step = window.step
            while window.step == step and not window.over:
                now = self.clock()
                if not window.busy and now >= window.due:
                    window.busy = True
                    break
                self._wait(self._changed, None if window.busy else window.due - now)
            else:
                return True
        try:
            fetch(step)
        finally:
            with self._changed:
                window.busy = False
                window.next_step(self.clock())
                self._changed.notify_all()
        return True

    def accepted(self, began: float) -> None:
        """Close the windows that had opened when the successful attempt ``began``.

        Who waits in one tries again at once, with what is then held.
        """
        if not self._windows:
            return
        with self._changed:
            for which, window in list(self._windows.items()):
                if window.opened <= began:
                    window.over = True
                    del self._windows[which]
            self._changed.notify_all()

    def failed(self, version: Version) -> bool:
        """Whether the version was still refused when its window had closed."""
        window = self._windows.get(version.window)
        return window is not None and window.failed == version

    def may_hasten(self, version: Version) -> bool:
        """Whether to look for another version now, after the window; once per length of it."""
        with self._changed:
            window, now = self._windows.get(version.window), self.clock()
            if window is None or now < window.hasten_at:
                return False
            window.hasten_at = now + max(self._seconds(), LONGEST_DELAY)
            return True

    def _open(self, version: Version) -> _Window:
        while len(self._windows) >= _REMEMBERED:
            del self._windows[next(iter(self._windows))]
        window = self._windows[version.window] = _Window(self.clock(), self._seconds())
        return window
