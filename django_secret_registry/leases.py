"""Leases: credentials that were issued to this process alone, and are given back when unwanted."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from .clock import Clock
from .lifecycle import SecretKey
from .references import SecretRef
from .values import SecretValue


class Lease(NamedTuple):
    """A value with a ``lease_id``, and what it was fetched for."""

    key: SecretKey
    ref: SecretRef
    value: SecretValue


class Leases:
    """Every lease that has not ended, held by the cache or not; guarded by the cache's lock.

    A value that was replaced, or that arrived after an eviction, may still be in use (by a
    connection, say). Its lease is not given back at once, but with the next eviction of its key or
    at the end of the process, unless it ends by itself before.
    """

    def __init__(self, wall: Clock) -> None:
        self._wall = wall
        self._known: dict[tuple[SecretKey, str], Lease] = {}

    def add(self, lease: Lease) -> None:
        """Take a lease in, or the new end of one that is known; forget those that have ended."""
        if not lease.value.lease_id:
            return
        now = self._wall()
        self._known = {
            which: known
            for which, known in self._known.items()
            if known.value.expires_at is None or known.value.expires_at > now
        }
        self._known[lease.key, lease.value.lease_id] = lease

    def keys(self) -> set[SecretKey]:
        """Return the keys that have leases."""
        return {key for key, _ in self._known}

    def take(self, keys: Collection[SecretKey]) -> list[Lease]:
        """Take the leases of these keys out and return them."""
        return [self._known.pop(which) for which in list(self._known) if which[0] in keys]


def by_backend(leases: Iterable[Lease]) -> list[list[Lease]]:
    """Return leases in one list for each alias and region."""
    groups: dict[tuple[str, str], list[Lease]] = {}
    for lease in leases:
        groups.setdefault((lease.key.alias, lease.key.region), []).append(lease)
    return list(groups.values())
