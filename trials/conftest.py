"""Servers for the projects; each is real, and asks for a password."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import pytest_make_collect_report, pytest_runtest_makereport
from tests.servers import aws
from tests.servers import redis as redis_server
from tests.servers import smtp as smtp_server
from tests.servers.aws import AWSServer
from tests.servers.postgres import postgres
from tests.servers.redis import RedisServer
from tests.servers.smtp import SMTPServer

from .secrets import Secrets
from .servers import Recorder, S3Server, s3_started

__all__ = ["postgres", "pytest_make_collect_report", "pytest_runtest_makereport"]
pytest_plugins = ["tests.canary_check"]


@pytest.fixture(scope="session")
def secrets_manager() -> Iterator[AWSServer]:
    with aws.started() as server:
        yield server


@pytest.fixture(scope="module")
def secrets(secrets_manager: AWSServer) -> Secrets:
    """Secrets Manager, empty: each project has an account of its own."""
    secrets_manager.reset()
    return Secrets(secrets_manager)


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server.started() as server:
        yield server


@pytest.fixture(scope="module")
def smtp() -> Iterator[SMTPServer]:
    with smtp_server.started() as server:
        yield server


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    with s3_started() as server:
        yield server


@pytest.fixture(scope="module")
def mailgun() -> Iterator[Recorder]:
    """Mailgun's API."""
    with Recorder.started({"id": "<1@example.com>", "message": "Queued. Thank you."}) as server:
        yield server


@pytest.fixture(scope="module")
def sentry() -> Iterator[Recorder]:
    """Where Sentry's reports go."""
    with Recorder.started({}) as server:
        yield server
