"""What follows a rotation, and when: the table.

``tests/test_followers.py`` asserts every line of it, with the stock packages; ``python -m
tests.followers`` writes it to ``docs/rotation.md``, below what is written there by hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

DOCUMENT = Path(__file__).parents[1] / "docs" / "rotation.md"

LIVE = "–"
BUILT_IN = "built in"


FUNCTION = "a function in `REBIND`"
ENGINE = "`ENGINE` of this package"


class Follower(NamedTuple):
    """Something that uses a secret of settings.

    ``help``: what makes it follow; ``LIVE``: nothing has to. ``never``: it keeps what it has, and
    the help is to do without it.
    """

    setting: str
    help: str
    never: bool = False

    @property
    def when(self) -> str:
        """When it follows, with what helps it."""
        if self.never:
            return "never"
        if self.help in (LIVE, ENGINE):
            return "at the next connect" if self.setting == "`DATABASES`" else "at the next use"
        return "once this process has it"

    @property
    def alone(self) -> bool:
        """Whether it follows without any help."""
        return self.help == LIVE


FOLLOWERS = {
    "a live setting": Follower("any", LIVE),
    "signing: sessions, cookies": Follower("`SECRET_KEY`", LIVE),
    "password reset tokens": Follower("`SECRET_KEY`", LIVE),
    "session hashes": Follower("`SECRET_KEY`", LIVE),
    "a `Signer` that is kept": Follower("`SECRET_KEY`", "make one where it is used", never=True),
    "e-mail": Follower("`EMAIL_HOST_PASSWORD`", LIVE),
    "anymail": Follower("`ANYMAIL`", LIVE),
    "allauth": Follower("`SOCIALACCOUNT_PROVIDERS`", LIVE),
    "social-auth": Follower("`SOCIAL_AUTH_…_SECRET`", LIVE),
    "Django's engines, without a pool": Follower("`DATABASES`", LIVE),
    "Django's engines, with a pool": Follower("`DATABASES`", ENGINE),
    "Django's Redis cache": Follower("`CACHES`", BUILT_IN),
    "Django's Redis cache with `RedisCredentials`": Follower("`CACHES`", LIVE),
    "Django's locmem cache": Follower("`CACHES`", BUILT_IN),
    "django-redis": Follower("`CACHES`", BUILT_IN),
    "django-storages: S3, by OPTIONS": Follower("`STORAGES`", BUILT_IN),
    "django-storages: S3, by settings": Follower("`AWS_…`", BUILT_IN),
    "simplejwt": Follower("`SIMPLE_JWT`", '`"REBIND": ["SIMPLE_JWT"]`'),
    "django-oauth-toolkit": Follower("`OAUTH2_PROVIDER`", '`"REBIND": ["OAUTH2_PROVIDER"]`'),
    "channels-redis": Follower("`CHANNEL_LAYERS`", '`"REBIND": ["CHANNEL_LAYERS"]`'),
    "Celery's broker: a worker that connects": Follower("`CELERY_BROKER_URL`", LIVE),
    "Celery's broker: tasks that are sent": Follower("`CELERY_BROKER_URL`", FUNCTION),
    "Celery's result backend": Follower("`CELERY_RESULT_BACKEND`", FUNCTION),
    "`StripeClient`": Follower("any", LIVE),
    "`stripe.api_key`": Follower("any", "a receiver of `secret_rotated`"),
    "dj-stripe": Follower("`STRIPE_LIVE_SECRET_KEY`", LIVE),
}

#: Where the table begins in the document; all below is written anew.
MARK = "<!-- The rest is written by `python -m tests.followers`. -->\n"


def table() -> str:
    """Return what follows the mark in the document."""
    rows = [
        "",
        "| what | setting | follows by itself | what makes it follow | when |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {name} | {one.setting} | {'yes' if one.alone else 'no'} | {one.help} | {one.when} |"
            for name, one in FOLLOWERS.items()
        ),
        "",
    ]
    return "\n".join(rows)


def document() -> str:
    """Return the document as it has to be."""
    above, mark, _ = DOCUMENT.read_text().partition(MARK)
    return f"{above}{mark}{table()}"


if __name__ == "__main__":
    DOCUMENT.write_text(document())
