"""One fetch however many ask: an unmodified boto3 against an AWS-compatible server that counts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from django_secret_registry import SecretError, SecretRegistry
from django_secret_registry.provider_cache import ProviderSpec
from django_secret_registry.specs import RegistryConfig
from tests.canary import canary
from tests.fixtures import aws
from tests.scripted import at_once
from tests.servers.aws import REGION, AWSServer

pytestmark = pytest.mark.sdk

aws_session, aws_server = aws.aws_session, aws.aws_server

BACKEND = "django_secret_registry.providers.aws.SecretsManagerProvider"
READERS = 64


@pytest.fixture
def registry(aws_server: AWSServer) -> Iterator[SecretRegistry]:
    registry = SecretRegistry()
    once = {"retries": {"mode": "standard", "total_max_attempts": 1}}
    options = {**aws_server.options(), "config": once}
    spec = ProviderSpec("aws", BACKEND, region=REGION, options=options)
    registry.configure(RegistryConfig(providers={"aws": spec}))
    aws_server.create("prod/db", canary("aws"))
    yield registry
    registry.close()


def test_threads_share_one_call(registry: SecretRegistry, aws_server: AWSServer) -> None:
    """64 threads that read one cold secret make exactly one upstream call."""
    before = aws_server.calls["GetSecretValue"]
    assert set(at_once(lambda: registry.get("aws://prod/db"), READERS)) == {canary("aws")}
    assert aws_server.calls["GetSecretValue"] - before == 1


def test_tasks_share_one_call(registry: SecretRegistry, aws_server: AWSServer) -> None:
    """64 tasks of one event loop that read one cold secret make exactly one upstream call."""
    before = aws_server.calls["GetSecretValue"]

    async def read() -> list[str]:
        return await asyncio.gather(*(registry.aget("aws://prod/db") for _ in range(READERS)))

    assert set(asyncio.run(read())) == {canary("aws")}
    assert aws_server.calls["GetSecretValue"] - before == 1


def test_threads_share_one_failure(registry: SecretRegistry, aws_server: AWSServer) -> None:
    """64 threads that ask while AWS fails make one call, and each gets an error of its own."""
    aws_server.fail(500, "InternalServiceError")
    before = aws_server.calls["GetSecretValue"]

    def read() -> object:
        try:
            return registry.get("aws://prod/db")
        except SecretError as error:
            return error

    errors = at_once(read, READERS)
    assert all(isinstance(error, SecretError) for error in errors)
    assert len({id(error) for error in errors}) == READERS
    assert aws_server.calls["GetSecretValue"] - before == 1
