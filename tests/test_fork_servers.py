"""Servers that fork: a parent that has warmed its clients, and children that fetch at once."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.canary import CANARY, canary
from tests.fixtures import aws, gcp
from tests.servers.aws import AWSServer
from tests.servers.gcp import GCPServer
from tests.servers.process import free_port, running

aws_session, aws_server = aws.aws_session, aws.aws_server
gcp_session, gcp_server = gcp.gcp_session, gcp.gcp_server

ROOT = Path(__file__).parents[1]
PROJECT = "tests.projects.forking"
CHILDREN, FETCHES = 8, 50
#: Seconds for all that a server does; a test that is right needs a tenth of it.
TIME = 90.0


class Fork:
    """The environment of one server, and what its children left behind."""

    def __init__(self, aws_server: AWSServer, gcp_server: GCPServer, results: Path) -> None:
        self.aws, self.gcp, self.results = aws_server, gcp_server.backend, results
        self.children = CHILDREN
        self.options = {"aws": aws_server.options(), "gcp": gcp_server.options("grpc")}
        for name in ("warm", *(f"own-{number}" for number in range(CHILDREN))):
            aws_server.create(name, canary(name))
            self.gcp.put(name, canary(name).encode())

    @property
    def environment(self) -> dict[str, str]:
        forking = {
            **self.options,
            "children": self.children,
            "fetches": FETCHES,
            "results": str(self.results),
        }
        return {
            **os.environ,
            "FORKING": json.dumps(forking),
            "PYTHONPATH": str(ROOT),
            "C_FORCE_ROOT": "1",  # Celery's, for a container
        }

    @contextlib.contextmanager
    def serve(self, command: Sequence[str], *, ready: str) -> Iterator[None]:
        """Run a server; whatever it leaves running is killed at the end."""
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        with running(["env", *variables, *command], ready=ready, timeout=TIME) as process:
            try:
                yield
                process.terminate()
                process.wait(TIME)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def check(self, *, inherits: bool = True) -> None:
        """Every child fetched its own secrets itself, and what the parent held it did not."""
        answers = self.wait()
        assert [answer for answer in answers if "error" in answer] == []
        assert sum(answer["wrong"] for answer in answers) == 0
        assert len({answer["pid"] for answer in answers}) == self.children
        assert {answer["fetched"] for answer in answers} == {2 * FETCHES}
        if inherits:
            assert {answer["parent"] for answer in answers}.isdisjoint(
                answer["pid"] for answer in answers
            )
            assert {answer["refetched"] for answer in answers} == {0}
        warm = 1 if inherits else 1 + self.children
        assert self.aws.calls["GetSecretValue"] == warm + self.children * FETCHES
        assert self.gcp.calls()["access"] == warm + self.children * FETCHES

    def wait(self) -> list[dict[str, Any]]:
        """Return the results of all children."""
        files = [self.results / f"{number}.json" for number in range(self.children)]
        deadline = time.monotonic() + TIME
        while not all(file.exists() for file in files):
            assert time.monotonic() < deadline, "a child hangs"
            time.sleep(0.05)
        return [json.loads(file.read_text()) for file in files]


@pytest.fixture
def fork(aws_server: AWSServer, gcp_server: GCPServer, tmp_path: Path) -> Fork:
    return Fork(aws_server, gcp_server, tmp_path)


def needs(module: str, distribution: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        importlib.util.find_spec(module) is None,
        reason=f"needs {distribution}: pip install {distribution}",
    )


def ask_all(port: int) -> None:
    """Have every child work, all at the same time."""

    def ask(number: int) -> None:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/{number}", timeout=TIME).close()

    with ThreadPoolExecutor(CHILDREN) as pool:
        list(pool.map(ask, range(CHILDREN)))


@pytest.mark.full
@needs("gunicorn", "gunicorn")
def test_gunicorn(fork: Fork) -> None:
    """gunicorn --preload: 8 workers, 50 fetches each from AWS and over gRPC, all of them right."""
    port = free_port()
    command = [
        *(sys.executable, "-m", "gunicorn", f"{PROJECT}:application", "--preload"),
        *("--workers", str(CHILDREN), "--bind", f"127.0.0.1:{port}", "--timeout", str(int(TIME))),
    ]
    with fork.serve(command, ready="Booting worker"):
        ask_all(port)
    fork.check()


@pytest.mark.full
@needs("pyuwsgi", "pyuwsgi")
def test_uwsgi(fork: Fork) -> None:
    """uWSGI as it comes, which forks without telling Python and stops threads between requests."""
    port = free_port()
    command = [
        *(str(Path(sys.executable).with_name("pyuwsgi")), "--master", "--need-app"),
        *("--module", f"{PROJECT}:application", "--pythonpath", str(ROOT)),
        *("--processes", str(CHILDREN), "--http-socket", f"127.0.0.1:{port}", "--die-on-term"),
    ]
    with fork.serve(command, ready=f"spawned uWSGI worker {CHILDREN} "):
        ask_all(port)
    fork.check()


@pytest.mark.full
@needs("celery", "celery")
def test_celery(fork: Fork) -> None:
    """Celery's prefork pool: 8 children, 50 fetches each from AWS and over gRPC."""
    command = [
        *(sys.executable, "-m", "celery", "--app", f"{PROJECT}_celery", "worker"),
        *("--pool", "prefork", "--concurrency", str(CHILDREN), "--loglevel", "INFO"),
        *("-O", "fair", "--without-gossip", "--without-mingle", "--without-heartbeat"),
    ]
    with fork.serve(command, ready=" ready."):
        fork.wait()
    fork.check()


@pytest.mark.full
@pytest.mark.parametrize(("method", "children"), [("fork", CHILDREN), ("spawn", 3)])
def test_multiprocessing(fork: Fork, method: str, children: int) -> None:
    """Children of multiprocessing, forked ones with the parent's values, spawned ones without."""
    fork.children = children
    done = subprocess.run(
        [sys.executable, "-m", PROJECT, method],
        env=fork.environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIME,
        check=False,
    )
    assert CANARY not in done.stdout + done.stderr
    assert done.returncode == 0, done.stderr[-2000:]
    fork.check(inherits=method == "fork")


# -- the gate of gRPC --


def run(code: str) -> None:
    """Run these lines in a process of their own; one that has threads and forks is warned of."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(code)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIME,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


#: A gate, and a list in which a fork notes itself, after all that the gate does before it.
GATE = """
import os, threading
from django_secret_registry.providers import _fork
from tests.scripted import threads_in, until

order, inside = [], threading.Event()
os.register_at_fork(before=lambda: order.append("forked"))
gate = _fork.ForkGate()

def fork():
    child = os.fork()
    if not child:
        with gate:  # nothing of the parent's is in the way
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""


def test_fork_waits_for_a_call() -> None:
    """A fork waits until a call that is under way has ended."""
    run(
        GATE
        + textwrap.dedent("""
        def call():
            with gate:
                inside.set()
                until(lambda: threads_in(_fork.ForkGate._before) == 1)
                order.append("called")

        thread = threading.Thread(target=call)
        thread.start()
        inside.wait()
        fork()
        thread.join()
        assert order == ["called", "forked"], order
        """)
    )


def test_call_waits_for_a_fork() -> None:
    """A call that begins during a fork waits until it is over."""
    run(
        """
        import threading
        calls = []
        def begin():
            calls.append(threading.Thread(target=call))
            calls[0].start()
            until(lambda: threads_in(_fork.ForkGate.__enter__) == 1)

        def call():
            with gate:
                order.append("called")

        import os
        os.register_at_fork(before=begin)
        """.replace("\n        ", "\n")
        + GATE
        + textwrap.dedent("""
        fork()
        calls[0].join()
        assert order == ["forked", "called"], order
        """)
    )


def test_fork_does_not_wait_for_ever() -> None:
    """A call that hangs is forked into after a while."""
    run(
        GATE
        + textwrap.dedent("""
        _fork.PATIENCE = 0.05
        with gate:
            fork()
        """)
    )


@pytest.mark.full
def test_fork_in_the_midst_of_calls(gcp_server: GCPServer) -> None:
    """Children that are forked while other threads fetch over gRPC can fetch, and so can they."""
    gcp_server.backend.put("own", canary().encode())
    run(
        f"""
        import os, threading
        from django_secret_registry import SecretRegistry
        from django_secret_registry.provider_cache import ProviderSpec
        from django_secret_registry.specs import RegistryConfig
        from tests.canary import canary

        backend = "django_secret_registry.providers.gcp.SecretManagerProvider"
        spec = ProviderSpec("gcp", backend, options={gcp_server.options("grpc")!r})
        registry = SecretRegistry()
        registry.configure(RegistryConfig(providers={{"gcp": spec}}))
        registry.get("gcp://own")  # what is imported during a fork can never be in the child
        over, failed = threading.Event(), []

        def work():
            while not over.is_set():
                try:
                    registry.refresh("gcp://own")
                except Exception as error:
                    failed.append(error)

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        codes = []
        for _ in range(5):
            children = []
            for _ in range(6):
                child = os.fork()
                if not child:
                    registry.evict("gcp://own")
                    os._exit(registry.get("gcp://own") != canary())
                children.append(child)
            codes += [os.waitpid(child, 0)[1] for child in children]
        over.set()
        for thread in threads:
            thread.join()
        assert set(codes) == {{0}}, codes
        assert not failed, failed
        """
    )
