"""The audit log: one line for each action that a person asks for, and for each refusal.

Logger ``django_secret_registry.audit``, level INFO for what was done and WARNING for what was
refused. The fields stand in the record as well (``record.audit``), for structured logging.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime

logger = logging.getLogger("django_secret_registry.audit")
if logger.level == logging.NOTSET:
    # The root logger's usual WARNING would drop what was done. LOGGING may say otherwise.
    logger.setLevel(logging.INFO)

REFUSED = "refused"


def record(*, user: str, action: str, reference: str, outcome: str) -> None:
    """Write one line: who (a user name) did what to which reference, with what outcome, and when.

    ``outcome`` is ``ok``, a status of ``secret_registry_resolve_total``, or :data:`REFUSED`; the
    time is the present one, in UTC (ISO 8601).
    """
    fields = {
        "user": user,
        "action": action,
        "reference": reference,
        "outcome": outcome,
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }
    # Quoted by repr: a user name or a reference with a line break must not forge a second line.
    text = " ".join(f"{name}={value!r}" for name, value in fields.items())
    level = logging.WARNING if outcome == REFUSED else logging.INFO
    logger.log(level, "%s", text, extra={"audit": fields})
