"""Test overrides: answers from a mapping, and from nowhere else."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from .exceptions import ProviderUnavailable, SecretError
from .extract import extract
from .making import apply, masked
from .planning import Text, parse
from .references import SecretRef
from .specs import Derived, RegistryConfig
from .values import SecretValue

_MISSING: Any = object()


class Overrides:
    """Values by reference or entry; an error as a value is raised.

    A reference without key that is given a dict (or JSON text) answers for each of its keys, and
    an entry is answered through the references that it names.
    """

    def __init__(self, values: Mapping[str, Any], outer: Overrides | None = None) -> None:
        inner = tuple((SecretRef.parse(text), value) for text, value in values.items())
        self._given: tuple[tuple[SecretRef, Any], ...] = (*(outer._given if outer else ()), *inner)

    def get(
        self, text: Text, config: RegistryConfig, spelling: Callable[[SecretRef], SecretRef]
    ) -> Any:
        """Return the value of ``text``; :class:`ProviderUnavailable` for what is not overridden.

        ``config`` and ``spelling`` are the current ones: a test may override settings as well.
        """
        ref = parse(text)
        values = {spelling(given): value for given, value in self._given}

        def find(ref: SecretRef) -> Any:
            return _find(spelling(ref), values)

        value = find(ref)
        entry = config.entries.get(ref.name) if ref.is_entry else None
        if value is _MISSING and entry is not None:
            if entry.ref is not None:
                value = find(entry.ref)
            elif entry.members:
                members = {name: find(member) for name, member in entry.members.items()}
                errors = [member for member in members.values() if isinstance(member, SecretError)]
                missing = any(member is _MISSING for member in members.values())
                value = errors[0] if errors else _MISSING if missing else members
        if value is _MISSING:
            raise ProviderUnavailable(
                "override_secrets is active and has no value for this reference",
                reference=str(ref) if ref.scheme in config.providers or entry else "",
                hint="Add it to override_secrets({...}).",
            )
        if isinstance(value, SecretError):
            raise value.copy()
        functions = text.functions if isinstance(text, Derived) else ()
        return apply(functions, masked(value), reference=str(ref), provider=ref.scheme)


def _find(ref: SecretRef, values: Mapping[SecretRef, Any]) -> Any:
    if ref in values:
        return values[ref]
    payload = values.get(ref.payload(), _MISSING)
    if payload is _MISSING or isinstance(payload, SecretError):
        return payload
    text = json.dumps(payload) if isinstance(payload, Mapping) else payload
    return extract(SecretValue(text).value, ref)
