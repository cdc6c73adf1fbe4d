"""django-oscar: a shop whose settings come from the environment, by ``Env``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.canary import canary
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer
from tests.servers.smtp import SMTPServer

from .secrets import Secrets
from .servers import own_database
from .site import OFFLINE, Browser, Site

FILES = Path(__file__).with_name("projects") / "oscar_shop"
DATABASE = "oscar"

KEEPER = {"username": "keeper", "password": "what the keeper types"}
VISITOR = {
    "registration-email": "visitor@example.com",
    "registration-password1": "what the visitor types",
    "registration-password2": "what the visitor types",
    "registration_submit": "Register",
}
ADDRESS = {
    "first_name": "Vi",
    "last_name": "Sitor",
    "line1": "Street 1",
    "line4": "Town",
    "postcode": "12345",
    "country": "DE",
}


def value(name: str) -> str:
    return canary(f"oscar-{name}")


class Shop(NamedTuple):
    """The site, and what it was given."""

    site: Site
    secrets: Secrets
    postgres: PostgresServer
    redis: RedisServer
    smtp: SMTPServer

    def urls(self, number: int) -> dict[str, str]:
        """Return the URLs with which the shop reaches its servers, with the passwords of then."""
        postgres, redis, smtp = self.postgres, self.redis, self.smtp
        database = f"{postgres.host}:{postgres.port}/{DATABASE}"
        return {
            "database": f"postgres://{DATABASE}:{value(f'db-{number}')}@{database}",
            "cache": f"redis://:{value(f'redis-{number}')}@{redis.host}:{redis.port}/0",
            "email": f"smtp://shop:{value(f'smtp-{number}')}@{smtp.host}:{smtp.port}",
        }


@pytest.fixture(scope="module")
def shop(
    tmp_path_factory: pytest.TempPathFactory,
    secrets: Secrets,
    postgres: PostgresServer,
    redis: RedisServer,
    smtp: SMTPServer,
) -> Shop:
    """The shop and its secrets; nothing migrated."""
    environment = {
        **secrets.environment,
        "DJANGO_SETTINGS_MODULE": "shop.settings",
        "SECRET_KEY": "ref+aws://prod/django#secret_key",
        "OLD_SECRET_KEY": "ref+aws://prod/django?stage=previous#secret_key",
        "DATABASE_URL": "ref+aws://prod/urls#database",
        "CACHE_URL": "ref+aws://prod/urls#cache",
        "EMAIL_URL": "ref+aws://prod/urls#email",
    }
    site = Site(tmp_path_factory.mktemp("oscar"), "shop", environment)
    site.start(FILES)
    shop = Shop(site, secrets, postgres, redis, smtp)
    own_database(postgres, DATABASE, value("db-1"))
    redis.set_password(value("redis-1"))
    smtp.login = ("shop", value("smtp-1"))
    secrets.create("prod/django", secret_key=value("django-1"))
    secrets.create("prod/urls", **shop.urls(1))
    return shop


def test_image_is_built_without_secrets(shop: Shop) -> None:
    """collectstatic and check run in offline mode."""
    shop.site.manage("collectstatic", "--no-input", "-v", "0", **OFFLINE)
    shop.site.manage("check", **OFFLINE)


def test_shop_goes_on_through_every_rotation(shop: Shop) -> None:
    """A visitor fills a basket, everything rotates, and they register and buy what is in it."""
    site = shop.site
    site.manage("migrate", "-v", "0")
    assert not re.search(r"secret_registry.[EWC]", site.manage("check", "--deploy"))
    product = site.python("import shop.stock").splitlines()[-1]
    with site.served() as browser, Browser(browser.url) as keeper:
        (add,) = re.findall(r'action="(/basket/add/[^"]*)"', browser.get(product).text)
        browser.submit(product, {"quantity": "2"}, to=add)
        keeper.submit("/admin/login/", KEEPER)
        browser.submit("/password-reset/", {"email": "keeper@example.com"})

        rotate(shop)
        keeper.refresh_secrets("/admin/")
        site.until_said("Rebound the caches", by="gunicorn")
        site.until_said("Rebound by shop.rotation.reset_thumbnails", by="gunicorn")
        retire(shop)

        # The basket of a visitor is a signed cookie.
        assert "A teapot" in browser.get("/basket/").text
        browser.submit("/accounts/login/", VISITOR)
        browser.submit("/checkout/shipping-address/", ADDRESS)
        bought = browser.submit("/checkout/preview/", {"action": "place_order"})
        assert bought.url.endswith("/checkout/thank-you/")
    # The last two were sent with the new password.
    assert [re.search("Subject: ([A-Z][a-z]+)", one)[1] for one in shop.smtp.messages] == [
        "Resetting",
        "Thank",
        "Confirmation",
    ]


def rotate(shop: Shop) -> None:
    """Rotate all that there is."""
    shop.secrets.rotate("prod/django", secret_key=value("django-2"))
    shop.postgres.set_password(DATABASE, value("db-2"))
    assert shop.postgres.disconnect(DATABASE)
    with shop.redis.client() as client:  # it takes two, as long as both are in use
        client.acl_setuser("default", enabled=True, passwords=[f"+{value('redis-2')}"])
    shop.smtp.login = ("shop", value("smtp-2"))
    shop.secrets.rotate("prod/urls", **shop.urls(2))


def retire(shop: Shop) -> None:
    """Have nobody let in with what was rotated, and nobody stay in who was."""
    shop.postgres.disconnect(DATABASE)
    shop.redis.set_password(value("redis-2"))
    with shop.redis.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)
