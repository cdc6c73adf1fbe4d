"""The same project as a Celery worker that gives each of its children work when it is ready."""

from __future__ import annotations

from typing import Any

from celery import Celery, signals

from tests.projects.forking import FORKING, report

app = Celery("forking", broker="memory://")
app.conf.worker_prefetch_multiplier = 1
task = app.task(name="report")(report)


@signals.worker_ready.connect(weak=False)
def begin(**kwargs: Any) -> None:
    for number in range(FORKING["children"]):
        task.delay(number)
