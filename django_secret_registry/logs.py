"""What a log record is about, as fields beside its text."""

from __future__ import annotations


def about(**fields: str) -> dict[str, dict[str, str]]:
    """Return the ``extra`` of a record; fields that are empty are left out.

    All stand under one name: ``logging`` raises where a project's own factory of records has
    already given the record an attribute of that name, and ``region`` would be a likely one.
    """
    return {"secret_registry": {name: text for name, text in fields.items() if text}}
