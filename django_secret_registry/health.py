"""A check for django-health-check (4.0 and later): does this worker hold its secrets?

::

    from health_check.views import HealthCheckView

    path("ready/", HealthCheckView.as_view(checks=["django_secret_registry.health.Secrets"]))
"""

from __future__ import annotations

import dataclasses
from datetime import timedelta

from health_check.base import HealthCheck
from health_check.exceptions import ServiceUnavailable, ServiceWarning

from . import registry


@dataclasses.dataclass
class Secrets(HealthCheck):  # type: ignore[misc]
    """Unavailable until all that settings and ``SECRETS`` name is held, and the fleet is joined.

    Fetches nothing, so that a probe costs no provider a call. With ``stale_after`` it also warns of
    a value that is served for longer than that after its TTL, as refreshing it fails; by default it
    does not: what is stale still serves, and all workers would fail at once.

    It tells how many secrets are meant and not which, as a health page may be open to everybody.
    """

    stale_after: timedelta | None = dataclasses.field(default=None, repr=False)

    def run(self) -> None:
        """Raise what is wrong; return when all is well."""
        ready = registry.ready()
        if ready.missing:
            raise ServiceUnavailable(f"{len(ready.missing)} secrets are not held")
        if not ready.joined:
            raise ServiceUnavailable("the fleet is not joined")
        if self.stale_after is not None:
            limit = self.stale_after.total_seconds()
            stale = [one for one in registry.snapshot().secrets if one.stale_for > limit]
            if stale:
                raise ServiceWarning(f"{len(stale)} secrets are stale for more than {limit:g} s")
