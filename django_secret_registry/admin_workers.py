"""The admin page of the fleet's workers; no value."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from . import admin_fleet, display
from .admin_base import MemoryAdmin, snapshot_of
from .listing import FactFilter
from .models import Worker
from .resolver import registry


class WorkerStateFilter(FactFilter):
    title = display.STATE
    parameter_name = "state"
    fact = "state"
    words = {word: label for word, (_tone, _mark, label) in display.STATES.items()}


class WorkerHostFilter(FactFilter):
    title = _("host")
    parameter_name = "host"
    fact = "info.host"


@admin.register(Worker)
class WorkerAdmin(MemoryAdmin):
    """The processes of the fleet, as they last reported. What is done is done to all of them."""

    actions = ()
    list_display = ("name", "state", "kind", "started", "reported", "lag", "holds", "mode")
    list_filter = (WorkerStateFilter, WorkerHostFilter)
    fieldsets = (
        (None, {"fields": ("host", "pid", "kind", "mode")}),
        (_("Life"), {"fields": ("state", "started_in_full", "reported", "lag", "holds")}),
        (_("Secrets"), {"fields": ("secrets",)}),
    )
    fleet_consequences = {
        "refresh": _(
            "Every worker fetches what its settings and SECRETS name, where it holds nothing fresh."
            " What is held goes on serving."
        ),
        "evict": _(
            "Every worker forgets every secret and every client at once, once in ten seconds at"
            " most. Readers fetch again, and get an error if a provider cannot answer then."
        ),
    }

    def _rows(self, request: HttpRequest) -> Iterable[Any]:
        fleet = admin_fleet.seen(request)
        return Worker.rows(snapshot_of(request), fleet.workers if fleet is not None else ())

    def has_refresh_permission(self, request: HttpRequest) -> bool:
        return registry.fleet is not None and super().has_refresh_permission(request)

    def has_evict_permission(self, request: HttpRequest) -> bool:
        return registry.fleet is not None and super().has_evict_permission(request)

    def get_urls(self) -> list[URLPattern]:
        """Return the pages of the list, of a worker, and of what is done to all of them."""
        pages = [page for page in super().get_urls() if not _is_of_one_action(page)]
        # Before the others: the page of a worker would take any path.
        return [
            self._page("refresh-all/", "refresh_all", self.refresh_all_view, "refresh"),
            *pages,
        ]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        more = {"may_refresh": self.has_refresh_permission(request)}
        return super().changelist_view(request, {**more, **(extra_context or {})})

    def change_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        kwargs["extra_context"] = {**(kwargs.get("extra_context") or {}), "allowed": []}
        return super().change_view(request, *args, **kwargs)

    def evict_all_view(self, request: HttpRequest) -> HttpResponse:
        """Ask whether everything is to be evicted everywhere; a POST does it."""
        self._require(request, "evict")
        return self._act(request, "evict", [Worker.everything()], self._url("changelist"))

    def refresh_all_view(self, request: HttpRequest) -> HttpResponse:
        """Ask whether all workers are to fetch what they need; a POST has them do it."""
        self._require(request, "refresh")
        return self._act(request, "refresh", [Worker.all_that_is_named()], self._url("changelist"))

    def _named(self, rows: Sequence[Worker]) -> str:
        return ", ".join(map(str, rows))

    @admin.display(description=display.STATE, ordering="urgency")
    def state(self, row: Worker) -> SafeString:
        return display.state(row.state)

    @admin.display(description=_("kind"), ordering="info.kind")
    def kind(self, row: Worker) -> str:
        return row.info.kind

    @admin.display(description=_("host"), ordering="info.host")
    def host(self, row: Worker) -> str:
        return row.info.host

    @admin.display(description=_("process"))
    def pid(self, row: Worker) -> str:
        return str(row.info.pid)

    @admin.display(description=_("mode"), ordering="info.mode")
    def mode(self, row: Worker) -> str:
        return row.info.mode

    @admin.display(description=_("started"), ordering="info.started")
    def started(self, row: Worker) -> SafeString | None:
        return display.moment(row.info.started, row.taken)

    @admin.display(description=_("started"))
    def started_in_full(self, row: Worker) -> str:
        return display.full_moment(row.info.started, row.taken)

    @admin.display(description=_("last report"), ordering="info.age")
    def reported(self, row: Worker) -> SafeString | None:
        return display.moment(row.taken - row.info.age, row.taken)

    @admin.display(description=_("lag"), ordering="info.lag")
    def lag(self, row: Worker) -> str:
        return display.span(row.info.lag) if math.isfinite(row.info.lag) else display.NOTHING

    @admin.display(description=_("secrets held"))
    def holds(self, row: Worker) -> int:
        return len(row.info.secrets)

    @admin.display(description=_("secrets"))
    def secrets(self, row: Worker) -> str:
        lines = (f"{one.reference}  {one.version or '-'}" for one in row.info.secrets.values())
        return "\n".join(lines) or display.NOTHING


def _is_of_one_action(page: URLPattern) -> bool:
    return str(page.name).endswith(("_refresh", "_evict"))
