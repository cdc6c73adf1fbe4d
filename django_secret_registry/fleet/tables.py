"""The tables of :class:`.database.DatabaseBus`; they stay empty with any other bus.

They are written and read past the ORM, on connections of the bus' own.
"""

from __future__ import annotations

from typing import Any

from django.db import models


class NoRows(models.Manager[Any]):
    """Finds nothing without asking the database: ``dumpdata`` and the like visit every model.

    For rows that stand in no table, and for a log that has no place in a fixture.
    """

    def get_queryset(self) -> models.QuerySet[Any]:
        return super().get_queryset().none()


class Table(models.Model):
    objects = NoRows()

    class Meta:
        abstract = True
        base_manager_name = "objects"
        default_permissions = ()


class FleetLog(Table):
    """One row: the identity of the log and the number of its last event."""

    id = models.SmallIntegerField(primary_key=True)
    log = models.CharField(max_length=32)
    number = models.BigIntegerField()

    def __str__(self) -> str:
        return self.log


class FleetEvent(Table):
    """One event; ``written`` in POSIX seconds of the database's clock."""

    number = models.BigIntegerField(primary_key=True)
    event = models.TextField()
    written = models.FloatField(db_index=True)

    def __str__(self) -> str:
        return str(self.number)


class FleetReport(Table):
    """What a worker last said: always its ``head``, and the rest when that has changed."""

    worker = models.CharField(max_length=255, primary_key=True)
    head = models.TextField()
    rest = models.TextField()
    seen = models.FloatField()
    lifetime = models.FloatField()

    def __str__(self) -> str:
        return self.worker
