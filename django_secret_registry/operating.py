"""Refreshing and evicting rows for a person: several at once, each written to the audit log."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.utils.translation import gettext_lazy as _

from . import audit
from .exceptions import SecretError
from .lifecycle import status_of

ACTIONS = ("refresh", "evict")

#: Refreshes that run at once: a hundred secrets must not take a hundred times a fetch.
_AT_ONCE = 8

#: What to do about a failure whose error does not say so itself.
_ADVICE = {
    "not_found": _("Compare the name, the version and the region with the provider's."),
    "denied": _("Look at what this process may read, at the provider and in the settings."),
    "unavailable": _("What is held goes on serving. Try again when the provider answers."),
    "error": _("Look at the provider's OPTIONS and at the log of this process."),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Done:
    """What became of one row: ``ok`` or a status of ``resolve_total``, and why in words."""

    row: Any
    outcome: str
    failure: str = ""


def operate(action: str, rows: Sequence[Any], *, user: str) -> list[Done]:
    """Do ``action`` (one of :data:`ACTIONS`) to every row for ``user``; raises nothing for a row.

    A provider that hangs costs about one ``FETCH_TIMEOUT``, not one per row: it backs off.
    """
    results = []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for done in pool.map(lambda row: _attempt(action, row, user), rows):
            audit.record(user=user, action=action, reference=done.row.pk, outcome=done.outcome)
            results.append(done)
    return results


def _attempt(action: str, row: Any, user: str) -> Done:
    try:
        if action == "refresh":
            row.refresh()
        else:
            row.evict(by=user)
    except SecretError as error:
        outcome = status_of(error)
        advice = "" if error.hint else f" {_ADVICE[outcome]}"
        return Done(row, outcome, f"{str(error).rstrip('.')}.{advice}")
    return Done(row, "ok")
