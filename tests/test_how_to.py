"""The pages that tell how to do one thing: each is followed in a project that Django has made."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from django_secret_registry import SecretRef
from tests.canary import CANARY, canary
from tests.documents import DOCS
from tests.fixtures import aws
from tests.servers import redis as redis_server
from tests.servers.aws import AWSServer
from tests.servers.redis import RedisServer
from tests.walking import Walk, made, project

pytestmark = pytest.mark.full
aws_session, aws_server = aws.aws_session, aws.aws_server
redis_session, redis = redis_server.redis_session, redis_server.redis

__all__ = ["made", "project"]  # fixtures

PAGES = sorted(path.stem for path in (DOCS / "how-to").glob("*.md"))
#: Pages that make the files that they read.
OF_FILES = ("docker",)
#: What holds of each project in the end; one process for both.
AFTERWARDS = """
from django.core.management import call_command

call_command("check", fail_level="WARNING")
call_command("warm_secrets")
"""
_REFERENCE = re.compile(r"\b(aws|file|aws_any)://[^\s\"'`&{}]+")


@pytest.fixture
def environment(aws_server: AWSServer) -> Mapping[str, str]:
    """What boto3 needs to find the AWS of the tests."""
    return {
        "AWS_ENDPOINT_URL": aws_server.url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": canary("aws-access-key"),
    }


def seed(page: Path, server: AWSServer, mount: Path) -> None:
    """Put the secrets there that a page names, each with all the keys that it names."""
    wanted: dict[tuple[str, str, str], dict[str, str]] = {}
    for found in _REFERENCE.finditer(page.read_text()):
        ref = SecretRef.parse(found[0].rstrip("`.,)"))
        where = "file" if ref.scheme == "file" else "aws", ref.region or "eu-central-1", ref.name
        keys = wanted.setdefault(where, {})
        if ref.key:
            keys[ref.key] = canary(f"{ref.name}-{ref.key}")
    for (kind, region, name), keys in wanted.items():
        if kind == "aws":
            server.create(name, json.dumps(keys), region=region)
        elif page.stem not in OF_FILES:
            mount.mkdir(parents=True, exist_ok=True)
            (mount / name).write_text(canary(name))


@pytest.fixture
def broker(request: pytest.FixtureRequest) -> str:
    """A Redis that asks for the password that the page has in AWS."""
    server: RedisServer = request.getfixturevalue("redis")
    server.set_password(canary("prod/redis-password"))
    return f"{server.host}:{server.port}"


@pytest.mark.parametrize("page", PAGES)
def test_page(
    page: str,
    project: Path,
    environment: Mapping[str, str],
    aws_server: AWSServer,
    request: pytest.FixtureRequest,
) -> None:
    """Its blocks run as they stand there; then the checks find nothing, and every secret is read.

    Nothing that is printed shows a value.
    """
    path = DOCS / "how-to" / f"{page}.md"
    mount = project / "secrets" / ("shop" if page == "kubernetes" else "")
    seed(path, aws_server, mount)
    exchanged = {"/run/secrets": str(project / "secrets")}
    if page == "celery":
        exchanged["redis.example.com:6379"] = request.getfixturevalue("broker")
    with Walk(path, project, ports=(8000,), exchanged=exchanged, environment=environment) as walk:
        done = walk.follow()
        assert any(block.runs for block in done)
        if page == "collectstatic":
            assert not aws_server.calls
            assert (project / "static" / "admin").is_dir()
        if page == "celery":  # the task is done, by a worker that logged in with the secret
            walk.wait_for("succeeded")
        walk.run(f"python manage.py shell -c '{AFTERWARDS}'")
    assert [text for text in walk.printed if CANARY in text] == []
