from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
import tempfile
import timeit
from collections.abc import Iterator
from pathlib import Path

import django

from django_secret_registry.specs import FleetSpec
from tests.fleet_run.processes import REF, registry_of
from tests.fleet_run.scenarios import LEASE, Engine, Row, Run
from tests.servers import postgres, redis
from tests.servers.proxy import Proxy

#: What a cached read may cost with a fleet over without one.
RATIO = 1.1


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fleet_run", description=__doc__)
    parser.add_argument("--processes", type=int, default=50)
    parser.add_argument("--evictions", type=int, default=20)
    parser.add_argument("--outage", type=float, default=60.0, help="seconds")
    parser.add_argument("--engine", choices=sorted(ENGINES), action="append")
    arguments = parser.parse_args()
    # Ended from outside, the run still stops the servers that it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    django.setup()
    logging.disable(logging.CRITICAL)  # what goes wrong here goes wrong on purpose
    missed = 0
    for name in arguments.engine or sorted(ENGINES):
        show(f"\n{name}: {arguments.processes} processes, {arguments.evictions} evictions")
        show(f"{'':44}{'samples':>8}{'median':>9}{'most':>9}{'bar':>8}")
        with ENGINES[name]() as engine:
            run = Run(engine, arguments.processes, arguments.evictions, arguments.outage)
            for row in run.rows():
                missed += not row.held
                show(line(row))
    ratio = cost()
    missed += ratio > RATIO
    show(f"\ncached read with a fleet over without one: {ratio:.2f} (at most {RATIO:.2f})")
    show("every bar is held" if not missed else f"{missed} missed")
    return 1 if missed else 0


def show(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def line(row: Row) -> str:
    figures = f"{row.samples:>8}{row.median:>9.3f}{row.most:>9.3f}{row.bar:>8.2f}"
    return f"{row.what:44}{figures}{'' if row.held else '  MISSED'}  {row.note}".rstrip()


@contextlib.contextmanager
def on_redis() -> Iterator[Engine]:
    def spec(port: int) -> FleetSpec:
        options = {"url": f"redis://127.0.0.1:{port}"}
        return FleetSpec("django_secret_registry.fleet.redis.RedisBus", options, lease=LEASE)

    with contextlib.ExitStack() as servers:
        server = servers.enter_context(redis.started())

        def restart() -> None:
            servers.close()
            servers.enter_context(redis.started(server.port))

        proxy = Proxy(server.host, server.port)
        try:
            flush = server.client().flushall
            yield Engine("redis", proxy, spec(proxy.port), spec(server.port), flush, restart)
        finally:
            proxy.stop()


@contextlib.contextmanager
def on_postgres() -> Iterator[Engine]:
    from django.db import connections

    from tests.test_fleet_buses import create_tables, database

    def spec(using: str) -> FleetSpec:
        options = {"using": using}
        return FleetSpec("django_secret_registry.fleet.database.DatabaseBus", options, lease=LEASE)

    with contextlib.ExitStack() as stack:
        where = stack.enter_context(tempfile.TemporaryDirectory(prefix="postgres-"))
        server = stack.enter_context(postgres.started(Path(where)))
        entry = {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": server.host,
            "NAME": server.database,
            "USER": "postgres",
            "PASSWORD": server._password,
        }

        def restart() -> None:
            server.stop()
            server.start()

        proxy = Proxy(server.host, server.port)
        with database(**entry, PORT=server.port):
            create_tables()
            connections["fleet"].close()
            connections.databases["proxied"] = {
                **connections.databases["fleet"],
                "PORT": proxy.port,
            }
            try:
                workers, operator = spec("proxied"), spec("fleet")
                yield Engine("postgres", proxy, workers, operator, restart=restart, keeps=True)
            finally:
                proxy.stop()


ENGINES = {"redis": on_redis, "postgres": on_postgres}


def cost() -> float:
    """Return what a hit costs with a fleet, over what it costs without: medians of turns."""
    with redis.started() as server:
        options = {"url": f"redis://127.0.0.1:{server.port}"}
        spec = FleetSpec("django_secret_registry.fleet.redis.RedisBus", options)
        with_fleet, without = registry_of(spec), registry_of(spec)
        without.configure(without.config._replace(fleet=None))
        with_fleet.start()
        best = {True: 1.0, False: 1.0}
        for registry in (with_fleet, without):
            registry.get(REF)
        for _ in range(40):
            for fleet, registry in ((True, with_fleet), (False, without)):
                timer = timeit.Timer("get('t://db')", globals={"get": registry.get})
                best[fleet] = min(best[fleet], timer.timeit(20_000))
        with_fleet.close()
    return best[True] / best[False]


if __name__ == "__main__":
    sys.exit(main())
