"""Admin pages of what this process and the fleet hold: secrets, providers, workers; no value."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from . import admin_fleet, display
from .admin_base import MemoryAdmin, snapshot_of
from .admin_workers import WorkerAdmin
from .fleet.overview import InFleet
from .listing import FactFilter
from .models import CachedProvider, CachedSecret
from .references import NO_REGION

__all__ = ["CachedProviderAdmin", "CachedSecretAdmin", "WorkerAdmin"]

_STATES = {word: label for word, (_tone, _mark, label) in display.STATES.items()}

#: Nothing is refreshed but for a reader: there is no timer.
_AT_NEXT_READ = _("at the next read")


class RegionFilter(FactFilter):
    title = _("region")
    parameter_name = "region"
    fact = "info.region"
    words = {"": NO_REGION}


class SecretStateFilter(FactFilter):
    title = display.STATE
    parameter_name = "state"
    fact = "info.state"
    words = _STATES


class SecretProviderFilter(FactFilter):
    title = _("provider")
    parameter_name = "provider"
    fact = "info.provider"


class ProviderStateFilter(FactFilter):
    title = display.STATE
    parameter_name = "state"
    fact = "state"
    words = _STATES


@admin.register(CachedSecret)
class CachedSecretAdmin(MemoryAdmin):
    """Secrets that are held, and those that settings name and nobody has read yet."""

    list_display = (
        "reference", "state", "fetched", "next_refresh", "hits", "version", "provider", "region",
    )  # fmt: skip
    list_filter = (SecretStateFilter, SecretProviderFilter, RegionFilter)
    fieldsets = (
        (None, {"fields": ("reference", "provider", "region", "version_in_full", "used_by")}),
        (
            _("Life"),
            {
                "fields": (
                    "state", "fetched_in_full", "ttl", "next_refresh_in_full", "ends", "expires",
                    "hits",
                )
            },
        ),
        (_("Last failure"), {"fields": ("last_error", "attempts", "retry")}),
        (_("Last eviction"), {"fields": ("evicted", "evicted_by")}),
    )  # fmt: skip
    consequences = {
        "refresh": _(
            "Each is fetched from its provider now. What is held goes on serving until the new"
            " value is there, and when the fetch fails."
        ),
        "evict": _(
            "This process forgets each at once, with all its versions and stages unless the"
            " reference names one. The next reader fetches it again, and gets an error if the"
            " provider cannot answer then."
        ),
    }
    fleet_consequences = {
        "refresh": _(
            "Every worker fetches each from its provider now, this one first. What is held goes on"
            " serving until the new value is there, and when the fetch fails."
        ),
        "evict": _(
            "Every worker forgets each at once, with all its versions and stages. The next reader"
            " fetches it again, and gets an error if the provider cannot answer then."
        ),
    }
    fleet_columns = ("held_by", "versions")
    fleet_fields = ("held_by", "versions", "stale_in", "blind_in")

    def _rows(self, request: HttpRequest) -> Iterable[Any]:
        yield from super()._rows(request)
        fleet = admin_fleet.seen(request)
        if fleet is not None:
            yield from CachedSecret.rows_elsewhere(fleet.elsewhere, snapshot_of(request).taken)

    @admin.display(description=_("workers"), ordering="holders")
    def held_by(self, row: CachedSecret) -> str | None:
        return _count(row.spread)

    @admin.display(description=_("versions in the fleet"))
    def versions(self, row: CachedSecret) -> str:
        if row.spread is None:
            return display.NOTHING
        differ = f" ({_('they differ')})" if row.spread.differs else ""
        return f"{row.spread}{differ}"

    @admin.display(description=_("stale in"))
    def stale_in(self, row: CachedSecret) -> int:
        return row.spread.stale if row.spread is not None else 0

    @admin.display(description=_("held by blind workers"))
    def blind_in(self, row: CachedSecret) -> int:
        return row.spread.blind if row.spread is not None else 0

    @admin.display(description=display.STATE, ordering="urgency")
    def state(self, row: CachedSecret) -> SafeString:
        info = row.info
        details: list[str] = []
        if info.state in ("stale", "expired"):
            details.append(_("%s over TTL") % display.span(info.stale_for, units=1))
        if info.last_status:
            details.append(_("last attempt: %s") % display.STATUSES[info.last_status])
        return display.state(info.state, ", ".join(details), failing=row.unreadable)

    @admin.display(description=_("provider"), ordering="info.provider")
    def provider(self, row: CachedSecret) -> str:
        return row.info.provider

    @admin.display(description=_("region"), ordering="info.region")
    def region(self, row: CachedSecret) -> str:
        return row.info.region or NO_REGION

    @admin.display(description=_("version"), ordering="info.version")
    def version(self, row: CachedSecret) -> str:
        return display.shortened(row.info.version or display.NOTHING)

    @admin.display(description=_("fetched"), ordering="info.age")
    def fetched(self, row: CachedSecret) -> SafeString | None:
        return display.moment(_at(row, row.info.age, -1), row.taken)

    @admin.display(description=_("next refresh"), ordering="info.due_in")
    def next_refresh(self, row: CachedSecret) -> str | None:
        return display.moment(_due_at(row), row.taken, past=_AT_NEXT_READ)

    @admin.display(description=_("hits"), ordering="info.hits")
    def hits(self, row: CachedSecret) -> int:
        return row.info.hits

    # -- only on the page of one secret ----------------------------------------------------------

    @admin.display(description=_("version"))
    def version_in_full(self, row: CachedSecret) -> str:
        return row.info.version or display.NOTHING

    @admin.display(description=_("named in"))
    def used_by(self, row: CachedSecret) -> str:
        return "\n".join(row.info.used_by) or display.NOTHING

    @admin.display(description=_("fetched"))
    def fetched_in_full(self, row: CachedSecret) -> str:
        return display.full_moment(_at(row, row.info.age, -1), row.taken)

    @admin.display(description=_("TTL"))
    def ttl(self, row: CachedSecret) -> str:
        return display.span(row.info.ttl)

    @admin.display(description=_("next refresh"))
    def next_refresh_in_full(self, row: CachedSecret) -> str:
        return display.full_moment(_due_at(row), row.taken, past=_AT_NEXT_READ)

    @admin.display(description=_("served at most until"))
    def ends(self, row: CachedSecret) -> str:
        return display.full_moment(_at(row, row.info.ends_in), row.taken)

    @admin.display(description=_("expires at the issuer"))
    def expires(self, row: CachedSecret) -> str:
        return display.full_moment(row.info.expires_at, row.taken)

    @admin.display(description=_("last error"))
    def last_error(self, row: CachedSecret) -> str:
        return row.info.last_error or display.NOTHING

    @admin.display(description=_("failed attempts in a row"))
    def attempts(self, row: CachedSecret) -> int:
        return row.info.attempts

    @admin.display(description=_("next attempt"))
    def retry(self, row: CachedSecret) -> str:
        return display.full_moment(_at(row, row.info.retry_in), row.taken, past=_AT_NEXT_READ)

    @admin.display(description=_("evicted"))
    def evicted(self, row: CachedSecret) -> str:
        return display.full_moment(row.info.evicted_at, row.taken)

    @admin.display(description=_("evicted by"))
    def evicted_by(self, row: CachedSecret) -> str:
        return row.info.evicted_by or display.NOTHING


@admin.register(CachedProvider)
class CachedProviderAdmin(MemoryAdmin):
    """Provider instances, and configured aliases that nobody has used yet."""

    list_display = (
        "name", "state", "built", "builds", "failures", "hits", "region", "backend",
    )  # fmt: skip
    list_filter = (ProviderStateFilter, RegionFilter)
    fieldsets = (
        (None, {"fields": ("alias", "region", "backend_in_full")}),
        (_("Life"), {"fields": ("state", "built_in_full", "ttl", "hits", "builds")}),
        (_("Last failure"), {"fields": ("last_error", "failures")}),
    )
    consequences = {
        "refresh": _("The client of each is built anew now. The secrets that are held stay."),
        "evict": _(
            "This process forgets each client at once, and every secret that it fetched. The next"
            " reader builds it and fetches again, and gets an error if the provider cannot answer"
            " then."
        ),
    }
    fleet_consequences = {
        "refresh": _(
            "Every worker builds the client of each anew. The secrets that are held stay."
        ),
        "evict": _(
            "Every worker forgets each client at once, and every secret that it fetched. The next"
            " reader builds it and fetches again, and gets an error if the provider cannot answer"
            " then."
        ),
    }
    fleet_columns = ("held_by",)
    fleet_fields = ("held_by", "stale_in", "blind_in")

    @admin.display(description=_("workers with its secrets"), ordering="holders")
    def held_by(self, row: CachedProvider) -> str | None:
        return _count(row.spread)

    @admin.display(description=_("stale secrets in"))
    def stale_in(self, row: CachedProvider) -> int:
        return row.spread.stale if row.spread is not None else 0

    @admin.display(description=_("held by blind workers"))
    def blind_in(self, row: CachedProvider) -> int:
        return row.spread.blind if row.spread is not None else 0

    @admin.display(description=display.STATE, ordering="urgency")
    def state(self, row: CachedProvider) -> SafeString:
        return display.state(row.state)

    @admin.display(description=_("provider"))
    def alias(self, row: CachedProvider) -> str:
        return row.info.alias

    @admin.display(description=_("region"), ordering="info.region")
    def region(self, row: CachedProvider) -> str:
        return row.info.region or NO_REGION

    @admin.display(description=_("backend"), ordering="info.backend")
    def backend(self, row: CachedProvider) -> str:
        return row.info.backend.rpartition(".")[2]

    @admin.display(description=_("built"), ordering="info.age")
    def built(self, row: CachedProvider) -> SafeString | None:
        return display.moment(_at(row, row.info.age, -1), row.taken)

    @admin.display(description=_("builds"), ordering="info.builds")
    def builds(self, row: CachedProvider) -> int:
        return row.info.builds

    @admin.display(description=_("failed builds"), ordering="info.failures")
    def failures(self, row: CachedProvider) -> int:
        return row.info.failures

    @admin.display(description=_("times shared"), ordering="info.hits")
    def hits(self, row: CachedProvider) -> int:
        return row.info.hits

    # -- only on the page of one provider --------------------------------------------------------

    @admin.display(description=_("backend"))
    def backend_in_full(self, row: CachedProvider) -> str:
        return row.info.backend

    @admin.display(description=_("built"))
    def built_in_full(self, row: CachedProvider) -> str:
        return display.full_moment(_at(row, row.info.age, -1), row.taken)

    @admin.display(description=_("TTL"))
    def ttl(self, row: CachedProvider) -> str:
        ttl = row.info.ttl
        return str(_("as long as the process lives")) if ttl is None else display.span(ttl)

    @admin.display(description=_("last error"))
    def last_error(self, row: CachedProvider) -> str:
        return row.info.last_error or display.NOTHING


def _count(spread: InFleet | None) -> str | None:
    return None if spread is None else f"{spread.held} / {spread.of}"


def _at(row: CachedSecret | CachedProvider, offset: float | None, sign: int = 1) -> float | None:
    """Return the time (POSIX seconds) that lies ``offset`` after or before the row was seen."""
    return None if offset is None else row.taken + sign * offset


def _due_at(row: CachedSecret) -> float | None:
    """Return from when on a reader starts a fetch: a failing provider is left alone a while."""
    info = row.info
    return _at(row, info.due_in if info.retry_in is None else max(info.retry_in, info.due_in or 0))
