"""Forks and libraries that are not to be forked in the middle of a call."""

from __future__ import annotations

import os
import threading
from types import TracebackType

#: Seconds for which a fork waits for calls to end.
PATIENCE = 2.0


class ForkGate:
    """Calls are made ``with`` it; a fork waits until none is under way, and lets none begin.

    gRPC prepares itself for a fork only while nobody calls it, and a child that was forked in
    another thread's call may never connect. A call that lasts longer than ``PATIENCE`` is forked
    into all the same: an upstream that hangs must not keep a server from replacing its workers.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._calls = 0
        self._forking = 0  # the thread that is about to fork
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=self._before, after_in_parent=self._in_parent, after_in_child=self._in_child
            )

    def __enter__(self) -> None:
        with self._condition:
            self._condition.wait_for(self._may_begin, PATIENCE)
            self._calls += 1

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        with self._condition:
            self._calls -= 1
            self._condition.notify_all()

    def _may_begin(self) -> bool:
        return self._forking in (0, threading.get_ident())

    def _before(self) -> None:
        self._condition.acquire()  # released by _in_parent
        self._forking = threading.get_ident()
        self._condition.wait_for(lambda: not self._calls, PATIENCE)

    def _in_parent(self) -> None:
        self._forking = 0
        self._condition.notify_all()
        self._condition.release()

    def _in_child(self) -> None:
        self._condition = threading.Condition()
        self._calls = self._forking = 0
