"""Wagtail: the project that ``wagtail start`` writes, with its production settings."""

from __future__ import annotations

import io
import re
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from tests.canary import canary
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer
from tests.servers.smtp import SMTPServer

from .secrets import Secrets
from .servers import S3Server, own_database
from .site import BIN, OFFLINE, Browser, Site

LOCAL = Path(__file__).with_name("projects") / "wagtail_site" / "local.py"
DATABASE = "wagtail"
EDITOR = {"username": "editor", "password": "what the editor types"}
SUPERUSER = {
    "DJANGO_SUPERUSER_USERNAME": EDITOR["username"],
    "DJANGO_SUPERUSER_PASSWORD": EDITOR["password"],
    "DJANGO_SUPERUSER_EMAIL": "editor@example.com",
}


def value(name: str) -> str:
    return canary(f"wagtail-{name}")


class Wagtail(NamedTuple):
    """The site, and what it was given."""

    site: Site
    secrets: Secrets
    postgres: PostgresServer
    redis: RedisServer
    smtp: SMTPServer
    s3: S3Server


@pytest.fixture(scope="module")
def wagtail(
    tmp_path_factory: pytest.TempPathFactory,
    secrets: Secrets,
    postgres: PostgresServer,
    redis: RedisServer,
    smtp: SMTPServer,
    s3: S3Server,
) -> Wagtail:
    """The project of ``wagtail start`` with ``local.py``, and all its secrets; nothing migrated."""
    folder = tmp_path_factory.mktemp("wagtail")
    environment = {
        **secrets.environment,
        "DJANGO_SETTINGS_MODULE": "mysite.settings.production",
        "MEDIA_URL": s3.url,
        "SMTP_PORT": str(smtp.port),
    }
    site = Site(folder, "mysite", environment)
    site.run(BIN / "wagtail", "start", "mysite", ".")
    shutil.copy(LOCAL, folder / "mysite" / "settings" / "local.py")

    own_database(postgres, DATABASE, value("db-1"))
    redis.set_password(value("redis-1"))
    smtp.login = ("site", value("smtp-1"))
    key_id, key = s3.new_key()
    secrets.create("prod/django", secret_key=value("django-1"))
    secrets.create(
        "prod/rds",
        engine="postgres",
        dbname=DATABASE,
        host=postgres.host,
        port=str(postgres.port),
        username=DATABASE,
        password=value("db-1"),
    )
    secrets.create("prod/redis", url=redis_url(redis, value("redis-1")))
    secrets.create("prod/media", id=key_id, key=key)
    secrets.create("prod/smtp", password=value("smtp-1"))
    site.manage("collectstatic", "--no-input", "-v", "0", **OFFLINE)
    return Wagtail(site, secrets, postgres, redis, smtp, s3)


def redis_url(redis: RedisServer, password: str) -> str:
    return f"redis://:{password}@{redis.host}:{redis.port}/0"


def test_image_is_built_without_secrets(wagtail: Wagtail) -> None:
    """What builds an image runs in offline mode, though Wagtail reads its storage at import."""
    wagtail.site.manage("check", **OFFLINE)
    wagtail.site.manage("makemigrations", "--check", "--dry-run", **OFFLINE)


def test_own_tests(wagtail: Wagtail) -> None:
    """The tests of the template pass, on PostgreSQL with the live password."""
    said = wagtail.site.manage("test", "--no-input", "-v", "0")
    assert re.search(r"Ran [1-9][0-9]* tests", said)
    # They and the site share a cache, in which Wagtail keeps what the tests have made.
    with wagtail.redis.client() as client:
        client.flushall()


def test_site_goes_on_through_every_rotation(wagtail: Wagtail) -> None:
    """An editor logs in, uploads and is sent mail, before and after every secret has rotated."""
    site = wagtail.site
    site.manage("migrate", "-v", "0")
    site.manage("createsuperuser", "--no-input", **SUPERUSER)
    assert not re.search(r"secret_registry.[EWC]", site.manage("check", "--deploy"))
    with site.served() as browser:
        browser.submit("/admin/login/", EDITOR)
        upload(browser, "before.png")
        reset_password(browser)

        old_key = rotate(wagtail)
        browser.refresh_secrets("/django-admin/")
        site.until_said("Rebound the storage 'default'", by="gunicorn")
        site.until_said("Rebound the caches", by="gunicorn")
        retire(wagtail, old_key)
        upload(browser, "after.png")
        reset_password(browser)
    uploaded = {Path(name).name for name in wagtail.s3.names()}
    assert {"before.png", "after.png"} <= uploaded
    assert len(wagtail.smtp.messages) == 2


def rotate(wagtail: Wagtail) -> str:
    """Rotate all that there is; return the id of the old key of S3, which is valid still."""
    secrets = wagtail.secrets
    secrets.rotate("prod/django", secret_key=value("django-2"))
    wagtail.postgres.set_password(DATABASE, value("db-2"))
    secrets.rotate("prod/rds", password=value("db-2"))
    assert wagtail.postgres.disconnect(DATABASE)
    wagtail.smtp.login = ("site", value("smtp-2"))
    secrets.rotate("prod/smtp", password=value("smtp-2"))
    old = secrets.field("prod/media", "id")
    key_id, key = wagtail.s3.new_key()
    secrets.rotate("prod/media", id=key_id, key=key)
    with wagtail.redis.client() as client:  # it takes two, as long as both are in use
        client.acl_setuser("default", enabled=True, passwords=[f"+{value('redis-2')}"])
    secrets.rotate("prod/redis", url=redis_url(wagtail.redis, value("redis-2")))
    return old


def retire(wagtail: Wagtail, old_key: str) -> None:
    """Have nobody let in with what was rotated."""
    wagtail.s3.delete_key(old_key)
    wagtail.redis.set_password(value("redis-2"))
    with wagtail.redis.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)


def upload(browser: Browser, name: str) -> None:
    """Add an image to Wagtail's library."""
    picture = io.BytesIO()
    Image.new("RGB", (60, 40), "teal").save(picture, "PNG")
    browser.submit(
        "/admin/images/add/",
        {"title": name, "collection": "1"},
        files={"file": (name, picture.getvalue(), "image/png")},
    )


def reset_password(browser: Browser) -> None:
    """Have a link sent that sets another password."""
    browser.submit("/admin/password_reset/", {"email": SUPERUSER["DJANGO_SUPERUSER_EMAIL"]})
