"""The shop as a process of its own, as it would run in production."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Self

from .steps import DemoError, wait_for

PROJECT = Path(__file__).resolve().parent.parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Site:
    """Manages and serves the shop; a context manager that serves while it is entered.

    ``log``: where the server's output goes; ``None`` for the terminal.
    """

    def __init__(self, environment: Mapping[str, str], *, port: int, log: IO[bytes] | None) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._port = port
        self._environment = {**os.environ, **environment, "PYTHONUNBUFFERED": "1"}
        self._log = log

    def manage(self, *arguments: str) -> str:
        """Run a management command, show what it prints, and return it."""
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=PROJECT,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        print(done.stdout, end="", flush=True)
        if done.returncode:
            raise DemoError(f"manage.py {' '.join(arguments)} ended with {done.returncode}")
        return done.stdout

    def __enter__(self) -> Self:
        command = ["manage.py", "runserver", "--noreload", f"127.0.0.1:{self._port}"]
        self._process = subprocess.Popen(
            [sys.executable, *command],
            cwd=PROJECT,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT if self._log else None,
        )
        try:
            wait_for("the server answers", self._answers, seconds=30)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def wait(self) -> None:
        """Serve until the server ends."""
        raise DemoError(f"the server ended with {self._process.wait()}")

    def _answers(self) -> bool | None:
        if self._process.poll() is not None:
            raise DemoError(f"the server ended with {self._process.returncode}")
        try:
            with urllib.request.urlopen(f"{self.url}/stores/", timeout=10):
                return True
        except urllib.error.HTTPError as error:
            raise DemoError(f"the first page gave {error.code}") from error
        except OSError:
            return None


def log_file() -> IO[bytes]:
    """Return a file for the server's output that vanishes when it is closed."""
    return tempfile.TemporaryFile()
