"""A platform as shops have it: Celery, Sentry, S3, Mailgun, Redis, tokens, a database pool."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.canary import canary
from tests.canary_check import masked, shows
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer

from .secrets import Secrets
from .servers import Recorder, S3Server, basic, own_database
from .site import BIN, OFFLINE, Browser, Site, until

FILES = Path(__file__).with_name("projects") / "platform_site"
DATABASE = "platform"
ADMIN = {"username": "admin", "password": "what the admin types"}
SUPERUSER = {
    "DJANGO_SUPERUSER_USERNAME": ADMIN["username"],
    "DJANGO_SUPERUSER_PASSWORD": ADMIN["password"],
    "DJANGO_SUPERUSER_EMAIL": "admin@example.com",
}


def value(name: str) -> str:
    return canary(f"platform-{name}-of-more-than-thirty-two-characters")


class Platform(NamedTuple):
    """The site, and what it was given."""

    site: Site
    secrets: Secrets
    postgres: PostgresServer
    redis: RedisServer
    s3: S3Server
    mailgun: Recorder
    sentry: Recorder


@pytest.fixture(scope="module")
def platform(tmp_path_factory, secrets, postgres, redis, s3, mailgun, sentry) -> Platform:
    environment = {
        **secrets.environment,
        "DJANGO_SETTINGS_MODULE": "platform_site.settings",
        "PGPORT": str(postgres.port),
        "REDIS_PORT": str(redis.port),
        "MEDIA_URL": s3.url,
        "MAILGUN": mailgun.address,
    }
    site = Site(tmp_path_factory.mktemp("platform"), "platform_site", environment)
    site.start(FILES)
    own_database(postgres, DATABASE, value("db-1"))
    redis.set_password(value("redis-1"))
    mailgun.accepts = lambda authorization: authorization == basic("api", value("mailgun-1"))
    key_id, key = s3.new_key()
    secrets.create("prod/django", secret_key=value("django-1"))
    secrets.create("prod/db", user=DATABASE, password=value("db-1"))
    secrets.create("prod/redis", password=value("redis-1"))
    secrets.create("prod/media", id=key_id, key=key)
    secrets.create("prod/mailgun", key=value("mailgun-1"))
    secrets.create("prod/sentry", dsn=f"http://public@{sentry.address}/1")
    secrets.create("prod/jwt", key=value("jwt-1"))
    secrets.create("prod/payment", api_key=value("payment"))
    return Platform(site, secrets, postgres, redis, s3, mailgun, sentry)


def test_image_is_built_without_secrets(platform: Platform) -> None:
    """collectstatic and check run in offline mode."""
    platform.site.manage("collectstatic", "--no-input", "-v", "0", **OFFLINE)
    platform.site.manage("check", **OFFLINE)


def test_platform_goes_on_through_every_rotation(platform: Platform) -> None:
    """Site and worker use every service, before and after its credential has rotated.

    Nobody tells them of it: each notices within its TTL, also where nobody reads the secret any
    more. What Sentry is told of a failure shows no secret.
    """
    site = platform.site
    site.manage("migrate", "-v", "0")
    site.manage("createsuperuser", "--no-input", **SUPERUSER)
    assert not re.search(r"secret_registry.[EWC]", site.manage("check", "--deploy"))
    worker = [
        *(BIN / "celery", "-A", "platform_site", "worker"),
        *("--concurrency", "1", "--loglevel", "INFO"),
    ]
    with site.process(worker), site.served() as browser:
        work(browser, "before")
        old_key = rotate(platform)
        site.until_said("Rebound the storage 'default'", by="celery")
        for program in ("celery", "gunicorn"):
            site.until_said("celery.reset, as aws://prod/redis has rotated", by=program)
        retire(platform, old_key)
        work(browser, "after")
        browser.failure("/failing/")
        until(lambda: len(failures(platform.sentry)) == 2)
    assert {"before.txt", "after.txt"} <= set(platform.s3.names())
    assert len(platform.mailgun.requests) == 2
    assert platform.mailgun.refused == []
    for report in failures(platform.sentry):
        assert "SecretStr('**********')" in report
    for request in platform.sentry.requests:
        report = request.body.decode()
        assert not shows(report), masked(report)


def failures(sentry: Recorder) -> list[str]:
    """Return what the view and the task have reported that fail on purpose."""
    reports = [request.body.decode() for request in sentry.requests]
    return [report for report in reports if '"type":"RuntimeError"' in report]


def work(browser: Browser, name: str) -> None:
    """Use all that there is: cache, database, queue, media, e-mail, tokens."""
    assert browser.get("/counted/").text.endswith(DATABASE)
    assert browser.get(f"/report/{name}/").json() == {"users": 1}
    token = browser.post("/token/", ADMIN).json()["access"]
    assert browser.get("/whoami/", Authorization=f"Bearer {token}").json() == {"user": "admin"}


def rotate(platform: Platform) -> str:
    """Rotate all that there is; return the id of the old key of S3, which is valid still."""
    secrets = platform.secrets
    secrets.rotate("prod/django", secret_key=value("django-2"))
    platform.postgres.set_password(DATABASE, value("db-2"))
    secrets.rotate("prod/db", password=value("db-2"))
    with platform.redis.client() as client:  # it takes two, as long as both are in use
        client.acl_setuser("default", enabled=True, passwords=[f"+{value('redis-2')}"])
    secrets.rotate("prod/redis", password=value("redis-2"))
    old = secrets.field("prod/media", "id")
    key_id, key = platform.s3.new_key()
    secrets.rotate("prod/media", id=key_id, key=key)
    keys = [basic("api", value("mailgun-1")), basic("api", value("mailgun-2"))]
    platform.mailgun.accepts = keys.__contains__
    secrets.rotate("prod/mailgun", key=value("mailgun-2"))
    secrets.rotate("prod/jwt", key=value("jwt-2"))
    return old


def retire(platform: Platform, old_key: str) -> None:
    """Have nobody let in with what was rotated, and nobody stay in who was."""
    platform.postgres.disconnect(DATABASE)
    platform.s3.delete_key(old_key)
    platform.mailgun.accepts = basic("api", value("mailgun-2")).__eq__
    platform.redis.set_password(value("redis-2"))
    with platform.redis.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)
        client.client_kill_filter(_type="pubsub", skipme=True)
