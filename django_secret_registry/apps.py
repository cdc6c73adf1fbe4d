"""The app: makes settings live and configures the registry while Django is set up.

That happens when this module is imported, which is before any app's models are: whatever reads a
setting from then on gets the secret's value. Nothing is fetched here, and no SDK imported.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, cast

from django.apps import AppConfig
from django.conf import settings
from django.core import checks
from django.core.signals import request_started, setting_changed
from django.utils.module_loading import import_string
from django.utils.translation import gettext_lazy as _

from . import live, metrics, registry, signals
from .checks import check_configuration
from .conf import SETTING, load
from .events import Event, Fetched, FetchStarted, FetchSubmitted, ProviderBuilt, Rotated

#: What becomes spans.
_TRACED = (FetchSubmitted, FetchStarted, Fetched, ProviderBuilt)

logger = logging.getLogger("django_secret_registry")


class SecretRegistryConfig(AppConfig):
    """Listed first in ``INSTALLED_APPS``, so that every other app reads live settings."""

    name = "django_secret_registry"
    verbose_name = _("Secret registry")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Connect the registry with Django; may run again, as ``override_settings`` has it."""
        _set_up()
        _report_errors_in_mails()
        checks.register(check_configuration, checks.Tags.security)
        checks.register(_check_rotation, checks.Tags.security, deploy=True)
        checks.register(_check_bus, checks.Tags.database)
        setting_changed.connect(_reconfigure, dispatch_uid="django_secret_registry.reconfigure")
        request_started.connect(_start, dispatch_uid="django_secret_registry.start")
        # First: receivers of secret_rotated find caches and storages with the new secret.
        registry.events.subscribe(_rebind)
        registry.events.subscribe(signals.send)
        registry.events.subscribe(_trace)
        metrics.connect(registry)
        registry.on_start(_follow)


def _set_up() -> None:
    """Make settings live, and what was put into them since; configure the registry once."""
    live.install()
    if settings.configured and not registry.configured:
        registry.configure(load())


def _report_errors_in_mails() -> None:
    """Have the handlers of LOGGING, which Django makes before any app is loaded, report as others.

    Those that a project gave a reporter of its own keep it.
    """
    from django.utils.log import AdminEmailHandler

    loggers = (logging.root, *logging.root.manager.loggerDict.values())
    for handler in (one for logger in loggers for one in getattr(logger, "handlers", ())):
        if isinstance(handler, AdminEmailHandler):
            kind = handler.reporter_class
            if f"{kind.__module__}.{kind.__qualname__}" == "django.views.debug.ExceptionReporter":
                handler.reporter_class = cast(Any, _reporter)


def _reporter(*args: Any, **kwargs: Any) -> Any:
    """Return the reporter that settings name; it is imported for the first error."""
    return import_string(settings.DEFAULT_EXCEPTION_REPORTER)(*args, **kwargs)


def _reconfigure(*, setting: str, **kwargs: Any) -> None:
    if setting == SETTING:
        registry.configure(load())


def _check_rotation(**kwargs: Any) -> list[checks.CheckMessage]:
    from .deploy_checks import check_rotation

    return check_rotation(**kwargs)


def _check_bus(**kwargs: Any) -> list[checks.CheckMessage]:
    if kwargs.get("databases") is None:  # nobody has asked for checks that ask servers
        return []
    from .deploy_checks import check_bus

    return check_bus(**kwargs)


def _rebind(event: Event) -> None:
    """Rebind after a rotation; until the first one a process does without that module."""
    if isinstance(event, Rotated):
        from .rebinding import rebind

        rebind(event)


def _follow() -> None:
    """Follow secrets that are copied, once background work begins."""
    if not registry.offline:
        from .following import start

        start(registry)


def _trace(event: Event) -> None:
    """Trace fetches where the project has brought OpenTelemetry; nothing of it is imported here."""
    if type(event) in _TRACED and "opentelemetry.trace" in sys.modules:
        from .tracing import tracing

        tracing.listen(event)


def _start(**kwargs: Any) -> None:
    """Begin background work at the first request of a process, unless its server has done so."""
    if registry.started:
        return
    registry.start()
    if registry.offline:
        logger.warning(
            "A request is served in offline mode: live settings are placeholders, and no secret"
            " can be read. Unset SECRET_REGISTRY_OFFLINE."
        )


_set_up()
