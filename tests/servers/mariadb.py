"""A real MariaDB, from the system's ``mariadb-server``."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.mysql_driver import use_driver

from .process import free_port, running

NOBODY = 65534


class MariaDBServer:
    """MariaDB on ``host`` and ``port``. ``database`` is everybody's."""

    host = "127.0.0.1"
    database = "app"

    def __init__(self, port: int, socket: Path) -> None:
        self.port = port
        self._socket = socket

    def set_password(self, user: str, password: str) -> None:
        """Create ``user``, or change its password; connections that are open stay so."""
        with contextlib.closing(self.admin()) as connection, connection.cursor() as cursor:
            for statement in (
                f"CREATE USER IF NOT EXISTS '{user}'@'%%' IDENTIFIED BY %s",
                f"ALTER USER '{user}'@'%%' IDENTIFIED BY %s",
            ):
                cursor.execute(statement, [password])
            cursor.execute(f"GRANT ALL ON `%`.* TO '{user}'@'%'")

    def disconnect(self, number: int) -> None:
        """Cut a connection."""
        with contextlib.closing(self.admin()) as connection, connection.cursor() as cursor:
            cursor.execute("KILL %s", [number])

    def admin(self) -> Any:
        """Return a connection of the superuser."""
        import pymysql

        return pymysql.connect(unix_socket=str(self._socket), user="root", autocommit=True)


@contextlib.contextmanager
def _started(where: Path) -> Iterator[MariaDBServer]:
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin"))
    program, install = (
        shutil.which(name, path=path) for name in ("mariadbd", "mariadb-install-db")
    )
    if program is None or install is None:
        pytest.skip("needs MariaDB: apt-get install mariadb-server")
    user = NOBODY if os.geteuid() == 0 else None  # MariaDB refuses to run as root
    data = where / "data"
    data.mkdir()
    for folder in (where, data):
        if user is not None:
            os.chown(folder, user, user)
    subprocess.run(
        [
            *(install, "--no-defaults", f"--datadir={data}", "--skip-test-db"),
            "--auth-root-authentication-method=normal",
        ],
        check=True,
        capture_output=True,
        user=user,
        group=user,
        cwd=where,
    )
    port, socket = free_port(), where / "socket"
    command = [
        *(program, "--no-defaults", f"--datadir={data}", f"--socket={socket}"),
        *(f"--port={port}", "--bind-address=127.0.0.1", "--skip-name-resolve"),
        *(f"--pid-file={where / 'pid'}", "--innodb-fast-shutdown=2"),
    ]
    with running(command, ready="ready for connections", user=user):
        server = MariaDBServer(port, socket)
        with contextlib.closing(server.admin()) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE app")
        yield server


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDBServer]:
    """MariaDB for the whole run; a test creates users of its own."""
    pytest.importorskip("pymysql", reason="needs PyMySQL: pip install pymysql")
    use_driver()
    with tempfile.TemporaryDirectory(prefix="mariadb-") as where, _started(Path(where)) as server:
        yield server
