"""The bounded pool of daemon threads."""

from __future__ import annotations

import functools
import gc
import subprocess
import sys
import threading
import weakref

import pytest

from django_secret_registry import pool as pool_module
from django_secret_registry.pool import DaemonPool
from tests.loads import Witness
from tests.scripted import PATIENCE, Gate, running, until


def threads(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


@pytest.fixture
def no_threads(monkeypatch):
    """Let the system refuse to start a thread, as at a limit of its processes."""

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)


def test_functions_run_in_the_order_in_which_they_were_submitted():
    """One thread takes its work from the front of the queue."""
    pool, ran, gate, done = DaemonPool(1, name="order"), [], Gate(), threading.Event()
    pool.submit(gate.stop)
    gate.wait()
    for number in range(5):
        pool.submit(functools.partial(ran.append, number))
    pool.submit(done.set)
    gate.open()
    assert done.wait(PATIENCE)
    assert ran == [0, 1, 2, 3, 4]


def test_no_more_threads_are_started_than_its_size():
    """What comes when all threads are busy waits for one of them."""
    pool, gates, done = DaemonPool(3, name="size"), [Gate() for _ in range(3)], threading.Event()
    for gate in gates:
        pool.submit(gate.stop)
    for gate in gates:
        gate.wait()
    pool.submit(done.set)
    assert len(threads("size")) == 3
    assert not done.is_set()
    for gate in gates:
        gate.open()
    assert done.wait(PATIENCE)
    assert len(threads("size")) <= 3


def test_an_idle_thread_is_used_again():
    """A thread is started for work that finds none idle, and for no other."""
    pool, idents = DaemonPool(10, name="reuse"), []
    for number in range(1, 6):
        pool.submit(lambda: idents.append(threading.get_ident()))
        until(lambda number=number: len(idents) == number and pool._idle == 1)
    assert len(set(idents)) == 1
    assert len(threads("reuse")) == 1


def test_an_idle_thread_ends_after_a_while(monkeypatch):
    """A pool that has nothing to do has no threads, and starts one when there is work again."""
    monkeypatch.setattr(pool_module, "IDLE", 0.01)
    pool, done = DaemonPool(2, name="idle"), threading.Event()
    pool.submit(done.set)
    assert done.wait(PATIENCE)
    until(lambda: not threads("idle"))
    done.clear()
    pool.submit(done.set)
    assert done.wait(PATIENCE)


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_what_a_function_raises_is_logged_and_ends_nothing(error, caplog):
    """The thread goes on with the next function, whatever the last one raised."""
    pool, done = DaemonPool(1, name="raises"), threading.Event()

    def fail() -> None:
        raise error("broken")

    pool.submit(fail)
    pool.submit(done.set)
    assert done.wait(PATIENCE)
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.name == "django_secret_registry.pool"
    assert record.exc_info[0] is error


def test_an_idle_thread_keeps_nothing_alive():
    """What a function held is free as soon as it has run."""
    pool, ran = DaemonPool(1, name="alive"), threading.Event()
    witness = Witness()
    seen = weakref.ref(witness)

    def use(_: Witness) -> None:
        ran.set()

    pool.submit(functools.partial(use, witness))
    del witness
    assert ran.wait(PATIENCE)
    until(lambda: pool._idle == 1)
    gc.collect()
    assert seen() is None


def test_a_function_may_submit_another():
    """Work may make work, also in a pool of one thread."""
    pool, done = DaemonPool(1, name="nested"), threading.Event()
    pool.submit(lambda: pool.submit(done.set))
    assert done.wait(PATIENCE)


def test_a_signal_handler_may_submit_while_it_interrupts_a_submission():
    """A handler runs between any two lines of the thread, also where that holds the lock."""
    pool, done, lines = DaemonPool(2, name="handler"), threading.Semaphore(0), set()

    def interrupt(frame, event, arg):
        if frame.f_code is not DaemonPool.submit.__code__:
            return None
        if event == "line" and frame.f_lineno not in lines:
            lines.add(frame.f_lineno)
            pool.submit(done.release)
        return interrupt

    def submit() -> None:
        sys.settrace(interrupt)
        try:
            pool.submit(done.release)
        finally:
            sys.settrace(None)

    with running(submit):
        pass
    assert len(lines) > 3
    for _ in range(len(lines) + 1):
        assert done.acquire(timeout=PATIENCE)


def test_where_no_thread_can_be_started_the_caller_runs_the_function(no_threads):
    """Background work is done after all, in order, in the thread that brought it."""
    pool, idents = DaemonPool(2, name="none"), []
    pool.submit(lambda: idents.append(threading.get_ident()))
    pool.submit(lambda: pool.submit(lambda: idents.append(threading.get_ident())))
    assert idents == [threading.get_ident()] * 2


def test_where_no_thread_can_be_started_one_that_runs_already_does_the_work(monkeypatch):
    """The caller does not wait for what a thread of the pool will come to."""
    pool, gate, done = DaemonPool(2, name="last"), Gate(), threading.Event()
    pool.submit(gate.stop)
    gate.wait()
    ran = []

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        pool.submit(lambda: ran.append(threading.get_ident()) or done.set())
    assert not ran
    gate.open()
    assert done.wait(PATIENCE)
    assert ran != [threading.get_ident()]


def test_where_the_caller_must_not_run_it_a_function_is_dropped(no_threads):
    """An event loop would rather be told that there is no thread than run a fetch itself."""
    pool, ran = DaemonPool(1, name="loop"), []
    assert not pool.submit(lambda: ran.append(1), here=False)
    assert pool.submit(lambda: ran.append(2))
    assert ran == [2]


def test_in_the_callers_thread_an_error_is_logged_as_elsewhere(no_threads, caplog):
    """A failed refresh in the background does not fail the reader who had to run it."""

    def fail() -> None:
        raise ValueError("broken")

    DaemonPool(1, name="here").submit(fail)
    assert [record.exc_info[0] for record in caplog.records] == [ValueError]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_in_the_callers_thread_an_interruption_is_not_swallowed(no_threads, error):
    """Ctrl-C and a worker's exit end the caller, who is not a thread of the pool."""

    def interrupted() -> None:
        raise error

    with pytest.raises(error):
        DaemonPool(1, name="here").submit(interrupted)


HANGS = """
import sys, threading
sys.path[:0] = sys.argv[1:]
from django_secret_registry.pool import DaemonPool

started, never = threading.Event(), threading.Event()
pool = DaemonPool(1, name="hangs")
pool.submit(lambda: (started.set(), never.wait()))
started.wait()
print("ends")
"""


def test_a_function_that_hangs_does_not_keep_the_process_from_ending():
    """The interpreter joins no thread of the pool, whatever it waits for."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", HANGS, *sys.path],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert (result.stdout, result.stderr) == ("ends\n", "")
