"""Sentry begins once settings can be read: their module is too early for a DSN that is a secret."""

import sentry_sdk
from django.apps import AppConfig
from django.conf import settings
from sentry_sdk.integrations.celery import CeleryIntegration
from sentry_sdk.integrations.django import DjangoIntegration
from sentry_sdk.scrubber import DEFAULT_DENYLIST, EventScrubber

from django_secret_registry import registry

#: Local variables of redis-py and psycopg in which a password is plain text already.
DRIVERS = ["auth_args", "conninfo"]


class PlatformConfig(AppConfig):
    name = "platform_site"
    label = "platform_site"

    def ready(self):
        if registry.offline:  # the DSN is a placeholder, which Sentry refuses
            return
        sentry_sdk.init(
            dsn=settings.SENTRY_DSN,
            integrations=[DjangoIntegration(), CeleryIntegration()],
            send_default_pii=True,
            traces_sample_rate=1.0,
            event_scrubber=EventScrubber(denylist=[*DEFAULT_DENYLIST, *DRIVERS]),
        )
