"""A small bounded pool of daemon threads."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

logger = logging.getLogger("django_secret_registry.pool")

#: Seconds after which a thread without work ends.
IDLE = 10.0


class DaemonPool:
    """Runs functions in at most ``size`` threads, started on first need, ended when idle.

    ``concurrent.futures`` joins its threads at interpreter exit, so that a provider that hangs
    would keep the process from ending; the threads here are daemons and nobody waits for them.
    """

    def __init__(self, size: int, *, name: str) -> None:
        self._size = size
        self._name = name
        self._work: deque[Callable[[], object]] = deque()
        # Reentrant: a signal handler or a finalizer may submit in the thread that holds it.
        self._wake = threading.Condition(threading.RLock())
        self._threads = 0
        self._idle = 0

    def submit(self, function: Callable[[], object], *, here: bool = True) -> bool:
        """Run ``function`` soon, in the order of submission; what it raises is logged.

        Where no thread can be started it runs in the caller; if it must not run ``here``, it is
        dropped and the answer is ``False``.
        """
        with self._wake:
            self._work.append(function)
            if self._idle >= len(self._work):
                self._wake.notify()
                return True
            if self._threads >= self._size:
                return True
            self._threads += 1
        try:
            threading.Thread(target=self._run, name=self._name, daemon=True).start()
        except RuntimeError:  # no threads here: a limit of the system, or an interpreter that ends
            with self._wake:
                self._threads -= 1
                if self._threads:
                    return True
                if not here:
                    if function in self._work:
                        self._work.remove(function)
                        return False
                    return True
            self._run_here()
        return True

    def _run(self) -> None:
        while True:
            function = None  # an idle thread keeps nothing alive
            try:
                function = self._next()
                if function is None:
                    return
                function()
            except BaseException:
                # A thread ends when it is idle, never because of its work, nor of an exception that
                # somebody throws into every thread (a server's limit of time for requests, say).
                logger.exception("A function in the background failed")

    def _next(self) -> Callable[[], object] | None:
        """Return the next function, or ``None`` to a thread that has to end."""
        with self._wake:
            self._idle += 1
            try:
                while not self._work:
                    if not self._wake.wait(IDLE) and not self._work:
                        self._threads -= 1
                        return None
                return self._work.popleft()
            finally:
                self._idle -= 1

    def _run_here(self) -> None:
        while True:
            with self._wake:
                if not self._work:
                    return
                function = self._work.popleft()
            try:
                function()
            except Exception:
                logger.exception("A function in the background failed")
