"""Unmanaged models: rows of the admin's pages, and what its permissions and log entries refer to.

They have no table: a row shows the memory of this process, from a snapshot of the registry. The
tables that there are belong to :class:`.fleet.database.DatabaseBus`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Self

from django.db import models
from django.utils.translation import gettext_lazy as _

from .fleet.tables import FleetEvent, FleetLog, FleetReport, NoRows
from .lifecycle import SecretInfo
from .provider_cache import ProviderInfo
from .references import NO_REGION
from .resolver import Snapshot, registry

if TYPE_CHECKING:
    from .fleet.overview import InFleet
    from .fleet.reports import WorkerInfo

__all__ = ["CachedProvider", "CachedSecret", "FleetEvent", "FleetLog", "FleetReport", "Worker"]

#: States, what needs an operator first.
_URGENCY = ("expired", "stale", "refused", "due", "loading", "fresh", "absent")


class Row(models.Model):
    """Something in the memory of this process; ``taken`` is when it was seen (POSIX seconds)."""

    taken: float
    #: The fleet at that moment, where there is one.
    fleet: Any = None

    objects: models.Manager[Any] = NoRows()

    class Meta:
        abstract = True
        managed = False
        base_manager_name = "objects"
        default_permissions = ("view",)

    @property
    def spread(self) -> InFleet | None:
        """Which workers hold it; ``None``: there is no fleet, or no worker does."""
        return None

    @property
    def holders(self) -> int | None:
        """How many workers hold it."""
        return None if self.spread is None else self.spread.held


class CachedSecret(Row):
    """A secret that this process holds, or that settings or ``SECRETS`` name."""

    reference = models.CharField(_("reference"), primary_key=True, max_length=1024)
    info: SecretInfo
    #: Whether this process does not know it, and only other workers have told of it.
    elsewhere = False

    class Meta(Row.Meta):
        # An entry of the admin's log must not read as if the secret itself had been deleted.
        verbose_name = _("cached secret")
        verbose_name_plural = _("secrets")
        permissions = (
            ("refresh_cachedsecret", _("Can refresh cached secret")),
            ("evict_cachedsecret", _("Can evict cached secret")),
        )

    def __str__(self) -> str:
        return self.reference

    @classmethod
    def rows(cls, snapshot: Snapshot) -> Iterator[Self]:
        """Yield the secrets of ``snapshot``, ordered by key."""
        for info in snapshot.secrets:
            yield cls._of(info, snapshot.taken)

    @classmethod
    def rows_elsewhere(cls, infos: Iterable[SecretInfo], taken: float) -> Iterator[Self]:
        """Yield secrets that other workers hold and this process does not know."""
        for info in infos:
            row = cls._of(info, taken)
            row.elsewhere = True
            yield row

    @classmethod
    def _of(cls, info: SecretInfo, taken: float) -> Self:
        row = cls(reference=info.reference)
        row.info, row.taken = info, taken
        return row

    @property
    def words(self) -> str:
        """What a search looks at: the reference, and the settings and entries that name it."""
        return " ".join((self.reference, *self.info.used_by))

    @property
    def spread(self) -> InFleet | None:
        """Which workers hold it; ``None``: there is no fleet, or no worker does."""
        return self.fleet.secrets.get(self.reference) if self.fleet is not None else None

    @property
    def unreadable(self) -> bool:
        """Whether the last attempt failed and nothing is held that could be served instead."""
        info = self.info
        return bool(info.attempts) and info.state in ("expired", "absent", "loading")

    @property
    def urgency(self) -> tuple[bool, bool, int]:
        """How soon an operator wants to see it; the lowest first."""
        info = self.info
        return not self.unreadable, not info.attempts, _URGENCY.index(info.state)

    def refresh(self) -> None:
        """Fetch it again; raises the error of the attempt, and what is held goes on serving.

        In every worker, where there is a fleet; so is the eviction. What this process does not know
        it does not fetch, whoever says that others hold it.
        """
        if self.elsewhere and registry.fleet is not None:
            registry.fleet.tell("refresh", self.reference)
            return
        registry.refresh(self.reference, fleet=registry.fleet is not None)

    def evict(self, *, by: str) -> None:
        """Forget it: all its versions and stages, unless the reference names one."""
        registry.evict(self.reference, by=by, fleet=registry.fleet is not None)


class CachedProvider(Row):
    """A provider instance of this process, or an alias that has none yet, in one region."""

    name = models.CharField(_("provider"), primary_key=True, max_length=1024)
    info: ProviderInfo

    class Meta(Row.Meta):
        verbose_name = _("cached provider")
        verbose_name_plural = _("providers")
        permissions = (
            ("refresh_cachedprovider", _("Can refresh cached provider")),
            ("evict_cachedprovider", _("Can evict cached provider")),
        )

    def __str__(self) -> str:
        return self.name

    @classmethod
    def rows(cls, snapshot: Snapshot) -> Iterator[Self]:
        """Yield the providers of ``snapshot``, ordered by alias and region."""
        for info in snapshot.providers:
            row = cls(name=f"{info.alias}@{info.region or NO_REGION}")
            row.info, row.taken = info, snapshot.taken
            yield row

    @property
    def words(self) -> str:
        """What a search looks at."""
        return f"{self.name} {self.info.backend}"

    @property
    def spread(self) -> InFleet | None:
        """Which workers hold a secret of it; ``None``: there is no fleet, or no worker does."""
        if self.fleet is None:
            return None
        from .fleet import overview  # most projects have no fleet, and every start would load it

        return overview.together(
            {
                info.reference
                for info in (*self.fleet.here, *self.fleet.elsewhere)
                if (info.provider, info.region) == (self.info.alias, self.info.region)
            },
            self.fleet.workers,
            self.taken,
        )

    @property
    def state(self) -> str:
        """``failed`` (the last build), ``built``, or ``unbuilt``: nobody has asked for it yet."""
        if self.info.last_error:
            return "failed"
        return "unbuilt" if self.info.age is None else "built"

    @property
    def urgency(self) -> int:
        """How soon an operator wants to see it; the lowest first."""
        return ("failed", "built", "unbuilt").index(self.state)

    def refresh(self) -> None:
        """Build its client anew; raises the error of the build. Secrets stay."""
        registry.refresh(
            provider=self.info.alias,
            region=self.info.region or NO_REGION,
            fleet=registry.fleet is not None,
        )

    def evict(self, *, by: str) -> None:
        """Forget its client and the secrets that it fetched."""
        registry.evict(
            provider=self.info.alias,
            region=self.info.region or NO_REGION,
            by=by,
            fleet=registry.fleet is not None,
        )


class Worker(Row):
    """A process of the fleet, as it last reported; or, as :meth:`everything`, all of them."""

    name = models.CharField(_("worker"), primary_key=True, max_length=1024)
    info: WorkerInfo

    class Meta(Row.Meta):
        verbose_name = _("worker")
        verbose_name_plural = _("workers")
        permissions = (
            ("refresh_worker", _("Can refresh worker")),
            ("evict_worker", _("Can evict worker")),
        )

    def __str__(self) -> str:
        return self.name

    @classmethod
    def rows(cls, snapshot: Snapshot, workers: Iterable[WorkerInfo]) -> Iterator[Self]:
        """Yield the workers, ordered by name."""
        for info in sorted(workers, key=lambda worker: worker.name):
            row = cls(name=info.name)
            row.info, row.taken = info, snapshot.taken
            yield row

    @classmethod
    def everything(cls) -> Self:
        """Return the row that stands for all workers and all that they hold."""
        return cls(name=str(_("every secret and every client of every worker")))

    @classmethod
    def all_that_is_named(cls) -> Self:
        """Return the row that stands for what the workers' settings name."""
        return cls(name=str(_("what settings name in every worker")))

    @property
    def words(self) -> str:
        """What a search looks at."""
        return f"{self.name} {self.info.kind}"

    @property
    def state(self) -> str:
        """``blind`` for what the fleet does, or ``live``."""
        return "blind" if self.info.blind else "live"

    @property
    def urgency(self) -> int:
        """How soon an operator wants to see it; the lowest first."""
        return ("blind", "live").index(self.state)

    def refresh(self) -> None:
        """Have every worker fetch what its settings name and it does not hold fresh."""
        if registry.fleet is not None:
            registry.fleet.warm_all()

    def evict(self, *, by: str) -> None:
        """Forget everything everywhere."""
        registry.evict(all=True, by=by, fleet=True)
