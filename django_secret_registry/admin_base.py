"""What the admin's pages share: views, permissions, confirmations, log entries.

The pages are Django's own changelist and view-only change form over rows in memory. Each view
checks its permission, takes its rows from ``registry.snapshot()``, and acts by one method of a row.
A key in a URL or a form is looked up among those rows, so that no page can be made to fetch a name
of the visitor's choice.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, cast
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.contrib.admin.helpers import ActionForm
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.contrib.admin.utils import model_ngettext, unquote
from django.contrib.admin.views.main import ChangeList
from django.db.models import Model
from django.forms.widgets import Script
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from . import admin_fleet, display
from .admin_guard import GuardedAdmin
from .listing import MemoryChangeList, Rows, find, search
from .operating import ACTIONS, Done, operate
from .resolver import Snapshot, registry

#: A confirmation lists this many names, and a page this many failures; the rest is counted.
_LISTED, _FAILURES = 50, 5


class _ActionForm(ActionForm):
    """Django's own; django-unfold shows the button that runs an action once Alpine knows of one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["action"].widget.attrs["x-model"] = "action"


class MemoryAdmin(GuardedAdmin):
    """The pages of a model whose class gives its ``rows`` and whose rows refresh and evict."""

    actions: Any = ACTIONS
    action_form = _ActionForm
    #: What an action brings about, for its confirmation.
    consequences: ClassVar[Mapping[str, Any]]
    #: The same where there is a fleet.
    fleet_consequences: ClassVar[Mapping[str, Any]]
    #: Columns and fields that only a fleet has.
    fleet_columns: ClassVar[tuple[str, ...]] = ()
    fleet_fields: ClassVar[tuple[str, ...]] = ()

    list_per_page = 100
    search_fields = ("pk",)  # there is a search; get_search_results does it
    show_facets = admin.ShowFacets.NEVER  # the filters count by themselves

    class Media:
        css = {"all": ["django_secret_registry/admin.css"]}
        js = [Script("django_secret_registry/admin.js", defer=True)]

    # -- rows ------------------------------------------------------------------------------------

    def get_queryset(self, request: HttpRequest) -> Any:
        """Return what this process holds, what needs an operator first."""
        rows = Rows(sorted(self._rows(request), key=lambda row: row.urgency))
        fleet = admin_fleet.seen(request)
        for row in rows:
            row.fleet = fleet
        return rows

    def _rows(self, request: HttpRequest) -> Iterable[Any]:
        rows: Iterable[Any] = self.model.rows(snapshot_of(request))
        return rows

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Model:
        """Return the row of this key; what is neither held nor named in settings is not found."""
        row = find(self.get_queryset(request), object_id)
        if row is None:
            raise Http404
        return row

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return MemoryChangeList

    def get_search_results(
        self, request: HttpRequest, queryset: Any, search_term: str
    ) -> tuple[Any, bool]:
        return search(queryset, search_term), False

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        more = self.fleet_columns if registry.fleet is not None else ()
        return [*super().get_list_display(request), *more]

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        more = [(_("Fleet"), {"fields": self.fleet_fields})]
        whole = registry.fleet is not None and self.fleet_fields
        return [*super().get_fieldsets(request, obj), *(more if whole else ())]

    # -- views -----------------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        """Return the pages that there are; those that add, change and delete are not among them."""
        item = "<path:object_id>"
        return [
            self._page("", "changelist", self.changelist_view),
            self._page("evict-all/", "evict_all", self.evict_all_view, "evict"),
            self._page("applied/", "applied", self.applied_view),
            self._page(f"{item}/history/", "history", self.history_view),
            self._page(f"{item}/refresh/", "refresh", self.refresh_view, "refresh"),
            self._page(f"{item}/evict/", "evict", self.evict_view, "evict"),
            self._page(f"{item}/change/", "change", self.change_view),
        ]

    def _page(
        self, route: str, name: str, view: Callable[..., HttpResponse], action: str = "view"
    ) -> URLPattern:
        """Return a page of this site; whom the site itself turns away is written down, too."""
        admin_view = self.admin_site.admin_view(view)

        @functools.wraps(admin_view)
        def page(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            if not self.admin_site.has_permission(request):
                self._refuse(request, action, [unquote(key) for key in kwargs.values()])
            return admin_view(request, *args, **kwargs)

        return path(route, page, name=f"{self.opts.app_label}_{self.opts.model_name}_{name}")

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """List the rows; a POST asks to confirm an action on the selection, or does it."""
        self._require(request, "view")
        # Django would answer to an action that is not allowed as to one that does not exist.
        for action in set(request.POST.getlist("action")).intersection(ACTIONS):
            self._require(request, action, *request.POST.getlist("_selected_action"))
        context = {
            **self._context(request),
            "title": capfirst(self.opts.verbose_name_plural),
            "may_evict": self.has_evict_permission(request),
        }
        return super().changelist_view(request, {**context, **(extra_context or {})})

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show the whole life of a row; nothing can be changed here."""
        self._require(request, "view" if request.method != "POST" else "change", unquote(object_id))
        context = {
            **self._context(request),
            "title": capfirst(self.opts.verbose_name),
            "allowed": [name for name in ACTIONS if self._has_permission(request, name)],
        }
        return super().change_view(
            request, object_id, form_url, {**context, **(extra_context or {})}
        )

    def history_view(
        self,
        request: HttpRequest,
        object_id: str,
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show who refreshed and evicted a row, in whatever process."""
        self._require(request, "view", unquote(object_id))
        return super().history_view(request, object_id, extra_context)

    def refresh_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask whether a row is to be refreshed; a POST does it."""
        key = unquote(object_id)
        self._require(request, "refresh", key)
        rows, back = [self.get_object(request, key)], self._url("change", object_id)
        return self._act(request, "refresh", rows, back)

    def evict_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask whether a row is to be evicted; a POST does it. Then it may be gone from the list."""
        key = unquote(object_id)
        self._require(request, "evict", key)
        rows, back = [self.get_object(request, key)], self._url("change", object_id)
        return self._act(request, "evict", rows, back, then=self._url("changelist"))

    def evict_all_view(self, request: HttpRequest) -> HttpResponse:
        """Ask whether every row is to be evicted; a POST does it."""
        self._require(request, "evict")
        rows, back = self.get_queryset(request), self._url("changelist")
        return self._act(request, "evict", rows, back)

    def applied_view(self, request: HttpRequest) -> HttpResponse:
        """Show how far an action has come in the fleet; the page's script asks for ``format=json``.

        It shows numbers only, for whatever place in the log is asked for.
        """
        self._require(request, "view")
        progress = admin_fleet.Progress.of(request.GET)
        if request.GET.get("format") == "json":
            return progress.as_json()
        back = request.GET.get("back", "")
        # Our own pages only: nobody is led elsewhere by a link of somebody else's.
        inside = url_has_allowed_host_and_scheme(back, None) and back.startswith("/")
        title = _("How far the fleet has come")
        context = {
            **self._page_context(request, title),
            "progress": progress,
            "again": request.get_full_path(),
            "poll": f"?{urlencode({**request.GET.dict(), 'format': 'json'})}",
            "back": back if inside else self._url("changelist"),
        }
        return self._rendered(request, "applied", context)

    # -- actions on a selection ------------------------------------------------------------------

    @admin.action(
        permissions=["refresh"],
        description=gettext_lazy("Refresh selected %(verbose_name_plural)s"),
    )
    def refresh(self, request: HttpRequest, queryset: Any) -> HttpResponse:
        return self._act_on_selection(request, "refresh", queryset)

    @admin.action(
        permissions=["evict"], description=gettext_lazy("Evict selected %(verbose_name_plural)s")
    )
    def evict(self, request: HttpRequest, queryset: Any) -> HttpResponse:
        return self._act_on_selection(request, "evict", queryset)

    def _act_on_selection(self, request: HttpRequest, action: str, rows: Rows) -> HttpResponse:
        self._require(request, action, *(row.pk for row in rows))
        hidden = [("action", action)]
        if request.POST.get("select_across") == "1":  # all that match; more than a form may hold
            hidden += [("select_across", "1"), ("_selected_action", "-")]
        else:
            hidden += [("_selected_action", row.pk) for row in rows]
        return self._act(request, action, rows, request.get_full_path(), hidden=hidden)

    def _act(
        self,
        request: HttpRequest,
        action: str,
        rows: list[Any],
        back: str,
        *,
        then: str = "",
        hidden: Iterable[tuple[str, str]] = (),
    ) -> HttpResponse:
        """Do what was confirmed, or return the page that asks; permission is checked before.

        ``back`` is where the answer no leads, and yes as well, unless it is to be ``then``.
        """
        then = then or back
        if not rows:
            self.message_user(
                request, _("Nothing was done: there is no such row any more."), messages.WARNING
            )
            return HttpResponseRedirect(then)
        if request.method != "POST" or "confirmed" not in request.POST:
            return self._confirm(request, action, rows, back, hidden)
        user: Any = request.user
        done = operate(action, rows, user=user.get_username())
        self._log(request, action, done)
        self._tell(request, action, done)
        told = any(not one.failure for one in done)
        followed = admin_fleet.follow(request, self._url("applied"), then) if told else None
        return followed or HttpResponseRedirect(then)

    def _log(self, request: HttpRequest, action: str, done: Sequence[Done]) -> None:
        """Write a ``LogEntry`` for each row. Its message is for every reader: not translated."""
        snapshot, user = snapshot_of(request), cast(Any, request.user)
        for outcome in dict.fromkeys(one.outcome for one in done):
            LogEntry.objects.log_actions(
                user.pk,
                [one.row for one in done if one.outcome == outcome],
                CHANGE if action == "refresh" else DELETION,
                f"{action}: {outcome} (process {snapshot.pid} on {snapshot.host})",
            )

    def _tell(self, request: HttpRequest, action: str, done: Sequence[Done]) -> None:
        failures = [one.failure for one in done if one.failure]
        succeeded = [one.row for one in done if not one.failure]
        if succeeded:
            text = _("Refreshed %s.") if action == "refresh" else _("Evicted %s.")
            self.message_user(request, text % self._named(succeeded), messages.SUCCESS)
        for failure in failures[:_FAILURES]:
            self.message_user(request, failure, messages.ERROR)
        more = len(failures) - _FAILURES
        if more > 0:
            text = ngettext("%d more failed.", "%d more failed.", more) % more
            self.message_user(request, text, messages.ERROR)

    def _confirm(
        self,
        request: HttpRequest,
        action: str,
        rows: list[Any],
        back: str,
        hidden: Iterable[tuple[str, str]],
    ) -> HttpResponse:
        alone = admin_fleet.seen(request) is None
        text = _("Refresh %s?") if action == "refresh" else _("Evict %s?")
        context = {
            **self._page_context(request, text % self._named(rows)),
            "action": action,
            "consequence": (self.consequences if alone else self.fleet_consequences)[action],
            "rows": rows[:_LISTED],
            "more": max(0, len(rows) - _LISTED),
            "hidden": hidden,
            "back": back,
        }
        return self._rendered(request, "confirm", context)

    def _named(self, rows: Sequence[Any]) -> str:
        """Return how many rows of what there are, in words."""
        return f"{len(rows)} {model_ngettext(self.opts, len(rows))}"

    def _page_context(self, request: HttpRequest, title: str) -> dict[str, Any]:
        """Return what a page needs that is made of the change form."""
        return {
            **self.admin_site.each_context(request),
            **self._context(request),
            "title": title,
            "original": title,  # what the change form's breadcrumbs end with
            "has_view_permission": True,
            "opts": self.opts,
            "media": self.media,
        }

    def _rendered(
        self, request: HttpRequest, template: str, context: dict[str, Any]
    ) -> HttpResponse:
        request.current_app = self.admin_site.name
        return TemplateResponse(request, f"admin/django_secret_registry/{template}.html", context)

    def _context(self, request: HttpRequest) -> dict[str, Any]:
        """Return what every page says: which process it shows, and whether that one is offline."""
        snapshot = snapshot_of(request)
        return {
            "process": snapshot,
            "process_started": display.moment(snapshot.started, snapshot.taken),
            "offline": registry.offline,
            "fleet": admin_fleet.seen(request),
        }

    def _url(self, page: str, *args: str) -> str:
        name = f"{self.opts.app_label}_{self.opts.model_name}_{page}"
        return reverse(f"{self.admin_site.name}:{name}", args=args)


def snapshot_of(request: HttpRequest) -> Snapshot:
    """Return the one moment that all parts of a page show."""
    if not hasattr(request, "_secret_registry_snapshot"):
        request._secret_registry_snapshot = registry.snapshot()  # type: ignore[attr-defined]
    snapshot: Snapshot = request._secret_registry_snapshot  # type: ignore[attr-defined]
    return snapshot
