"""Run what may hang, crash or race, and say what came of it: for the conformance tests."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

#: Seconds after which a thread or a child that gives no answer counts as hanging.
PATIENCE = 30.0


def outcome(function: Callable[[], object]) -> object:
    """Return what ``function`` returns or raises."""
    try:
        return function()
    except Exception as error:
        return error


def show(answer: object) -> str:
    """Name an answer in a failure without showing a payload."""
    return type(answer).__name__


def within(seconds: float, function: Callable[[], Any]) -> Any:
    """Return what ``function`` returns or raises; fail when it takes longer than ``seconds``."""
    outcomes: list[object] = []
    thread = threading.Thread(target=lambda: outcomes.append(outcome(function)), daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcomes:
        raise AssertionError(f"no answer within {seconds} s")
    return outcomes[0]


def at_once(functions: Sequence[Callable[[], object]]) -> list[object]:
    """Return what each function returns or raises, each in its own thread, all started at once."""
    outcomes: list[object] = []
    barrier = threading.Barrier(len(functions))

    def run(function: Callable[[], object]) -> None:
        barrier.wait()
        outcomes.append(outcome(function))

    threads = [threading.Thread(target=run, args=[each], daemon=True) for each in functions]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + PATIENCE
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    if len(outcomes) < len(threads):
        raise AssertionError(f"{len(threads) - len(outcomes)} threads hang")
    return outcomes


def in_child(function: Callable[[], str]) -> str:
    """Return what ``function`` returns in a forked child, or the name of what it raises."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # Forking beside threads is what preloading servers do, and what the test is about.
        warnings.filterwarnings("ignore", ".*use of fork", DeprecationWarning)
        pid = os.fork()
    if pid == 0:  # pragma: no cover - the child leaves no report
        answer = "nothing"
        try:
            answer = function()
        except BaseException as error:
            answer = f"{type(error).__name__} in the child"
        finally:
            os.write(writer, answer.encode())
            os._exit(0)
    os.close(writer)
    try:
        ready, _, _ = select.select([reader], [], [], PATIENCE)
        return os.read(reader, 1000).decode() if ready else "the child hangs"
    finally:
        os.close(reader)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
