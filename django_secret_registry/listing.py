"""Django's changelist over rows in memory: the same search, filters, sorting and pages.

``ChangeList`` asks a queryset for everything; what it asks is answered here from a list, so that
its templates, its scripts and its words serve for rows that stand in no table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Any, ClassVar

from django.contrib.admin import ModelAdmin, SimpleListFilter
from django.contrib.admin.views.main import ChangeList
from django.db.models import Model
from django.http import HttpRequest
from django.utils.translation import gettext as _


class Rows(list[Any]):
    """Rows, and as much of a queryset as the admin needs for a selection."""

    def filter(self, *, pk__in: Sequence[str]) -> Rows:
        """Return the rows of these primary keys; what is not among them counts for nothing."""
        wanted = set(pk__in)
        return Rows(row for row in self if row.pk in wanted)


class FactFilter(SimpleListFilter):
    """Offers the values that rows have in the attribute ``fact``, and how many have each."""

    fact: ClassVar[str]
    words: ClassVar[dict[str, Any]] = {}

    def lookups(self, request: HttpRequest, model_admin: ModelAdmin[Any]) -> list[Any]:
        return []  # choices() has them, from the changelist's own rows

    def has_output(self) -> bool:
        return True

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        """Return the rows that have the value of the query string."""
        chosen, of = self.value(), attrgetter(self.fact)
        return Rows(row for row in queryset if chosen in (None, of(row)))

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        """Yield a link for each value, with the number of rows that it leads to."""
        name, of = self.parameter_name or "", attrgetter(self.fact)
        others = changelist.get_queryset(self.request, exclude_parameters=[name])
        counts = Counter(map(of, others))
        yield {
            "selected": self.value() is None,
            "query_string": changelist.get_query_string(remove=[name]),
            "display": _("All"),
        }
        for value in sorted(set(map(of, changelist.root_queryset))):
            yield {
                "selected": self.value() == value,
                "query_string": changelist.get_query_string({name: value}),
                "display": f"{self.words.get(value, value)} ({counts[value]})",
            }


class MemoryChangeList(ChangeList):
    """The changelist of a :class:`ModelAdmin` whose ``get_queryset`` gives :class:`Rows`.

    What a query string says and nobody understands is ignored.
    """

    def get_filters_params(self, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the parameters of filters; Django takes every other one for a field's name."""
        known = {fact_filter.parameter_name for fact_filter in self.list_filter}  # type: ignore[union-attr]
        found = super().get_filters_params(params)
        return {name: values for name, values in found.items() if name in known}

    def get_queryset(  # type: ignore[override]
        self, request: HttpRequest, exclude_parameters: Any = None
    ) -> Rows:
        """Return the rows that are asked for, in order."""
        found = self.get_filters(request)
        self.filter_specs, self.has_filters, self.has_active_filters = found[0], found[1], found[4]
        self.clear_all_filters_qs = self.get_query_string(remove=self.get_filters_params())
        rows: Any = self.root_queryset
        for spec in self.filter_specs:
            if spec.expected_parameters() != exclude_parameters:
                rows = spec.queryset(request, rows)
        rows, _duplicates = self.model_admin.get_search_results(request, rows, self.query)
        return self._sorted(rows)

    def _sorted(self, rows: Rows) -> Rows:
        """Sort by the chosen columns, the first one last; what has no value stands at the end."""
        for column, direction in reversed(self.get_ordering_field_columns().items()):
            if column >= len(self.list_display):
                continue
            field = self.get_ordering_field(self.list_display[column])
            if not field:
                continue
            of = attrgetter(str(field))
            with_value = [row for row in rows if of(row) is not None]
            without = [row for row in rows if of(row) is None]
            rows = Rows(sorted(with_value, key=of, reverse=direction == "desc") + without)
        return rows

    def get_results(self, request: HttpRequest) -> None:
        """Set what the templates show of the page; one past the end is the last one."""
        self.paginator = self.model_admin.get_paginator(request, self.queryset, self.list_per_page)
        page = self.paginator.get_page(self.page_num)
        self.page_num = page.number
        self.result_list = page.object_list
        self.result_count = self.paginator.count
        self.full_result_count = len(self.root_queryset)
        self.show_full_result_count = True
        self.show_admin_actions = bool(self.full_result_count)
        self.can_show_all = False
        self.multi_page = self.paginator.num_pages > 1


def search(rows: Rows, text: str) -> Rows:
    """Return the rows whose ``words`` have every word of ``text``, whatever their case."""
    wanted = text.lower().split()
    return Rows(row for row in rows if all(word in row.words.lower() for word in wanted))


def find(rows: Rows, key: str) -> Model | None:
    """Return the row of this primary key, if there is one."""
    return next(iter(rows.filter(pk__in=[key])), None)
