"""gunicorn under constant load while a password rotates: no failed request, few fetches."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from django_secret_registry.rotation import FIRST_DELAY, LONGEST_DELAY
from tests import mysql_driver
from tests.canary import canary
from tests.fixtures.aws import aws_server, aws_session
from tests.fixtures.openbao import bao, bao_session
from tests.scripted import until
from tests.servers.aws import AWSServer
from tests.servers.mariadb import MariaDBServer, mariadb
from tests.servers.openbao import OpenBaoServer, issuing
from tests.servers.postgres import PostgresServer, postgres
from tests.servers.process import free_port, running

__all__ = ["aws_server", "aws_session", "bao", "bao_session", "mariadb", "postgres"]

ROOT = Path(__file__).parents[1]
USER = "under_load"
WORKERS, THREADS, CLIENTS = 2, 4, 8
REQUESTS = 2000
#: Seconds by which the database, or the secret manager, is ahead of the other one.
AHEAD = 3.0


class Load:
    """Clients that ask without a pause, and what they got."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.failures: list[str] = []
        self.fetches: dict[int, int] = {}
        self.answered = 0
        self._done = threading.Event()
        self._lock = threading.Lock()

    def ask(self, path: str = "/") -> int:
        """Send one request; return the process that answered, 0 if it failed."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
            with self._lock:
                self.answered += 1
                if response.status == 200:
                    found = json.loads(body)
                    known = self.fetches.get(found["pid"], 0)
                    self.fetches[found["pid"]] = max(known, found["fetches"])
                    return int(found["pid"])
                self.failures.append(f"{response.status} at request {self.answered}")
        except (OSError, http.client.HTTPException) as error:
            with self._lock:
                self.failures.append(f"{error!r} at request {self.answered}")
        finally:
            connection.close()
        return 0

    def _ask_on(self) -> None:
        while not self._done.is_set():
            self.ask()

    @contextlib.contextmanager
    def clients(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._ask_on) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._done.set()
            for thread in threads:
                thread.join()

    def until_answered(self, requests: int) -> None:
        while self.answered < requests and not self.failures:
            time.sleep(0.01)

    def refresh(self) -> None:
        """Have every worker fetch."""
        refreshed: set[int] = set()
        while len(refreshed) < WORKERS and not self.failures:
            refreshed.add(self.ask("/refresh"))

    def fetched(self) -> dict[int, int]:
        """Return how often each worker has fetched, once all have had time to say so."""
        self.until_answered(self.answered + 20 * WORKERS)
        return dict(self.fetches)

    def until_fetched(self, before: dict[int, int]) -> None:
        """Wait until every worker has fetched again."""
        until(lambda: self.failures or all(self.fetches[pid] > before[pid] for pid in before))


def steps(seconds: float) -> int:
    """Return how often a worker fetches at most while the database is ahead for so long."""
    fetches, time, delay = 1, 0.0, FIRST_DELAY
    while time <= seconds:
        fetches, time, delay = fetches + 1, time + 0.75 * delay, min(2 * delay, LONGEST_DELAY)
    return fetches


@contextlib.contextmanager
def gunicorn(environment: dict[str, Any]) -> Iterator[int]:
    """Serve the site; whatever it leaves running is killed at the end."""
    port = free_port()
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "ROTATING": json.dumps(environment)}
    command = [
        *("env", *(f"{name}={value}" for name, value in variables.items())),
        *(sys.executable, "-m", "gunicorn", "tests.projects.rotating_site:application"),
        *("--bind", f"127.0.0.1:{port}", "--worker-class", "gthread"),
        *("--workers", str(WORKERS), "--threads", str(THREADS)),
    ]
    with running(command, ready="Booting worker") as process:
        try:
            yield port
            process.terminate()
            process.wait(30)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def rotate_under_load(
    aws: AWSServer, set_password: Callable[[str, str], object], environment: dict[str, Any]
) -> None:
    """Rotate five times under load, and once more when every worker has the new version early."""

    def payload(number: int) -> tuple[str, str]:
        password = canary(f"password-{number}")
        return password, json.dumps({"username": USER, "password": password})

    password, secret = payload(0)
    set_password(USER, password)
    aws.create("rds", secret)
    provider = {
        "BACKEND": "django_secret_registry.providers.aws.SecretsManagerProvider",
        "OPTIONS": aws.options(),
    }
    with gunicorn({**environment, "secret": "aws://rds", "provider": provider}) as port:
        load = Load(port)
        with load.clients():
            load.until_answered(200)
            until(lambda: load.failures or len(load.fetches) == WORKERS)  # one may boot later
            assert not load.failures
            fetched = load.fetched()
            assert sorted(fetched.values()) == [1] * WORKERS  # at the first connect
            for number, ahead in enumerate(["", "database", "", "vault", ""], 1):
                password, secret = payload(number)
                most = 1
                if ahead == "database":
                    began = time.monotonic()
                    set_password(USER, password)
                    time.sleep(AHEAD)
                    aws.put("rds", secret)
                    most = steps(time.monotonic() - began)
                else:
                    aws.put("rds", secret)
                    time.sleep(AHEAD if ahead else 0)
                    set_password(USER, password)
                load.until_answered(REQUESTS * number // 5)
                load.until_fetched(fetched)
                before, fetched = fetched, load.fetched()
                assert all(fetched[pid] - before[pid] <= most for pid in before), ahead
                assert not load.failures
            password, secret = payload(6)
            aws.put("rds", secret)
            follow = threading.Timer(AHEAD, set_password, (USER, password))
            follow.start()
            load.refresh()
            follow.join()
            load.until_answered(load.answered + 100)
        assert not load.failures
        assert load.answered >= REQUESTS
        assert len(load.fetches) == WORKERS, "a worker was started anew"


fresh_or_pool = pytest.mark.parametrize(
    "pool",
    [None, {"min_size": 1, "max_size": 4, "max_lifetime": 0.3}],
    ids=["fresh", "pool"],
)


def postgresql(server: PostgresServer, pool: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "ENGINE": "django_secret_registry.db.backends.postgresql",
        "NAME": server.database,
        "HOST": server.host,
        "PORT": server.port,
        "OPTIONS": {"pool": pool} if pool else {},
    }


@pytest.mark.full
@fresh_or_pool
def test_postgresql(aws_server: AWSServer, postgres: PostgresServer, pool: Any) -> None:
    """PostgreSQL, a fresh connection for each request or one from a pool that renews them."""
    environment = {"database": postgresql(postgres, pool)}
    rotate_under_load(aws_server, postgres.set_password, environment)


@pytest.mark.full
def test_mariadb(aws_server: AWSServer, mariadb: MariaDBServer) -> None:
    """MariaDB, a fresh connection for each request."""
    database = {
        "ENGINE": "django_secret_registry.db.backends.mysql",
        "NAME": mariadb.database,
        "HOST": mariadb.host,
        "PORT": mariadb.port,
        "OPTIONS": mysql_driver.OPTIONS,
    }
    rotate_under_load(aws_server, mariadb.set_password, {"database": database})


@pytest.mark.full
@fresh_or_pool
def test_leases(bao: OpenBaoServer, postgres: PostgresServer, pool: Any) -> None:
    """Users that OpenBao issues to each worker end five times, by its hand or by the database's:
    nobody notices, each worker is issued one for each, and what it was issued is given back."""
    issues, leases = "GET /v1/database/creds/app", "database/creds/app"
    ended: set[str] = set()  # those of which OpenBao does not know that they have

    def held() -> set[str]:
        return set(bao.leases(leases)) - ended

    def each_has_one() -> bool:
        return len(held()) == WORKERS

    with issuing(bao, postgres):
        provider = {
            "BACKEND": "django_secret_registry.providers.vault.VaultProvider",
            "OPTIONS": {"url": bao.url, "auth": {"method": "token", "token": bao.token("leases")}},
        }
        environment = {
            "database": postgresql(postgres, pool),
            "secret": "vault://creds/app?project=database",
            "provider": provider,
        }
        with gunicorn(environment) as port:
            load = Load(port)
            with load.clients():
                load.until_answered(200)
                fetched = load.fetched()
                assert fetched == dict.fromkeys(fetched, 1)
                for number in range(1, 6):
                    until(each_has_one)
                    if number % 2:
                        for lease in held():
                            bao.admin.sys.revoke_lease(f"{leases}/{lease}")
                    else:
                        ended |= held()
                        postgres.drop(*issued_users(postgres))
                    load.until_answered(REQUESTS * number // 5)
                    load.until_fetched(fetched)
                    before, fetched = fetched, load.fetched()
                    assert all(fetched[pid] == before[pid] + 1 for pid in before)
                    assert not load.failures
            assert load.answered >= REQUESTS
            assert len(load.fetches) == WORKERS, "a worker was started anew"
        assert bao.layer.calls[issues] == 6 * WORKERS
        until(lambda: bao.leases(leases) == issued_users(postgres) == [])


def issued_users(postgres: PostgresServer) -> list[str]:
    """Return the users that OpenBao has made."""
    with postgres.admin() as connection:
        rows = connection.execute("SELECT rolname FROM pg_roles WHERE rolname LIKE 'v-%'")
        return [name for (name,) in rows.fetchall()]
