"""Secrets that live in the memory of the process: for tests and demonstrations."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any

from ..exceptions import SecretNotFound
from ..references import SecretRef
from ..values import SecretBytes, SecretStr, SecretValue
from .base import BaseProvider, Problem

#: What a secret may be given as; a mapping is kept as JSON.
Payload = str | bytes | Mapping[str, Any]


class MemoryStore:
    """Versioned secrets, shared by all providers that are given this store. Thread-safe."""

    def __init__(self, secrets: Mapping[str, Payload] | None = None) -> None:
        self._lock = threading.Lock()
        self._versions: dict[str, list[SecretStr | SecretBytes]] = {}
        for name, value in (secrets or {}).items():
            self.put(name, value)

    def put(self, name: str, value: Payload) -> str:
        """Make ``value`` the current version of ``name``; return the id of the version."""
        payload = _payload(name, value)
        with self._lock:
            versions = self._versions.setdefault(name, [])
            versions.append(payload)
            return str(len(versions))

    def delete(self, name: str) -> None:
        """Remove ``name`` with all its versions; nothing happens when there is none."""
        with self._lock:
            self._versions.pop(name, None)

    def versions(self, name: str) -> dict[str, SecretStr | SecretBytes]:
        """Return all versions of ``name``, the oldest first; none when there is no such secret."""
        with self._lock:
            payloads = list(self._versions.get(name, ()))
        return {str(number): payload for number, payload in enumerate(payloads, 1)}


class MemoryProvider(BaseProvider):
    """Gives the secrets of the option ``secrets``: name → ``str``, ``bytes`` or a dict (as JSON).

    :meth:`put` adds a version: ``"1"``, ``"2"``, … The newest is the stage ``current``, the one
    before it ``previous``. What was put goes with the instance, unless ``secrets`` is a
    :class:`MemoryStore`, which instances share (of other regions, or built after an eviction).
    The region does not matter. Thread-safe.
    """

    accepts = frozenset({"version", "stage"})

    def __init__(
        self, *, alias: str, region: str, secrets: Mapping[str, Payload] | MemoryStore | None = None
    ) -> None:
        super().__init__(alias=alias, region=region)
        self.store = secrets if isinstance(secrets, MemoryStore) else MemoryStore(secrets)

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> list[Problem]:
        problems = super().check(options)
        if not isinstance(options.get("secrets") or {}, Mapping | MemoryStore):
            hint = 'Write "OPTIONS": {"secrets": {"name": "value"}}.'
            problems.append(Problem("option 'secrets' is no dict", hint))
        return problems

    def put(self, name: str, value: Payload) -> str:
        """Make ``value`` the current version of ``name``; return the id of the version."""
        return self.store.put(name, value)

    def delete(self, name: str) -> None:
        """Remove ``name`` with all its versions; nothing happens when there is none."""
        self.store.delete(name)

    def fetch(self, ref: SecretRef, *, timeout: float) -> SecretValue:
        versions = self.store.versions(ref.name)
        ids = list(versions)
        if ref.stage:  # canonical() has removed "current"
            ids = ids[-2:-1] if ref.stage == "previous" else []
        if ref.version:
            ids = [ref.version] if ref.version in ids else []
        if not ids:
            what = "version or stage" if versions else "secret"
            raise self.error(SecretNotFound, f"there is no such {what}", ref)
        return SecretValue(versions[ids[-1]], version=ids[-1])


def _payload(name: str, value: object) -> SecretStr | SecretBytes:
    if isinstance(value, str):
        return SecretStr(value)
    if isinstance(value, bytes):
        return SecretBytes(value)
    if isinstance(value, Mapping):
        return SecretStr(json.dumps(value))
    raise TypeError(f"the secret {name!r} is a {type(value).__name__}, not str, bytes or a dict")
