"""Forks in the middle of a fleet's life.

``python -m tests.projects.forking_fleet BACKEND OPTIONS DATABASE``, the latter two in JSON: the
database ``fleet`` of the bus, or null.
"""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any

import django

from django_secret_registry import SecretRegistry
from django_secret_registry.specs import FleetSpec
from tests import test_fleet_buses as buses
from tests.forking import in_child
from tests.scripted import Script, alias, config, until


def held(registry: SecretRegistry) -> list[str]:
    return [info.key.name for info in registry.snapshot().secrets]


def main(backend: str, options: Any) -> Any:
    """The parent listens and has connections; children go on from its place with their own."""
    registry = SecretRegistry()
    spec = FleetSpec(backend, options)
    registry.configure(config(alias("t", Script({"db": "v1"})), fleet=spec))
    registry.start()
    until(lambda: registry.fleet.joined)
    registry.get("t://db")
    registry.fleet.workers()
    parent = registry.fleet.name

    def child() -> Any:
        before = held(registry), registry.started, registry.fleet.joined
        registry.start()
        grandchild = in_child(
            lambda: [registry.get("t://db"), registry.evict("t://db", fleet=True)]
        )
        until(lambda: held(registry) == [])  # its own listener has heard of it
        names = {worker.name for worker in registry.fleet.workers()}
        return (
            before,
            grandchild,
            registry.fleet.name != parent,
            {parent, registry.fleet.name} <= names,
        )

    results = [in_child(child) for _ in range(2)]
    until(lambda: held(registry) == [])  # and so has the parent's
    return results


if __name__ == "__main__":
    backend, options, database = sys.argv[1], *map(json.loads, sys.argv[2:])
    django.setup()
    with buses.database(**database) if database else contextlib.nullcontext():
        sys.stdout.write(json.dumps(main(backend, options)))
