"""Who may do what on the admin's pages, and the audit log's lines of those who may not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.auth import get_permission_codename
from django.core.exceptions import PermissionDenied
from django.db.models import Model
from django.http import HttpRequest

from . import audit

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Any]
else:
    _ModelAdmin = admin.ModelAdmin  # takes no type argument at run time


class GuardedAdmin(_ModelAdmin):
    """View, refresh and evict, each a permission of its own; nothing is added, changed, deleted."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_refresh_permission(self, request: HttpRequest) -> bool:
        """Whether the user may see the rows and refresh them."""
        return self._has_permission(request, "refresh")

    def has_evict_permission(self, request: HttpRequest) -> bool:
        """Whether the user may see the rows and evict them."""
        return self._has_permission(request, "evict")

    def _has_permission(self, request: HttpRequest, action: str) -> bool:
        codename = get_permission_codename(action, self.opts)
        user: Any = request.user
        return self.has_view_permission(request) and user.has_perm(
            f"{self.opts.app_label}.{codename}"
        )

    def _require(self, request: HttpRequest, action: str, *keys: str) -> None:
        """Go on if the user may do ``action``; else write the refusal down and raise."""
        if not getattr(self, f"has_{action}_permission")(request):
            self._refuse(request, action, keys)
            raise PermissionDenied

    def _refuse(self, request: HttpRequest, action: str, keys: Sequence[str]) -> None:
        # Only names of rows are written: any other text is the visitor's, and may be a secret.
        known = self.get_queryset(request).filter(pk__in=keys) if keys else ()
        for reference in [row.pk for row in known] or ["*"]:
            self._audit(request, action, reference, audit.REFUSED)

    def _audit(self, request: HttpRequest, action: str, reference: str, outcome: str) -> None:
        user: Any = request.user
        audit.record(user=user.get_username(), action=action, reference=reference, outcome=outcome)
