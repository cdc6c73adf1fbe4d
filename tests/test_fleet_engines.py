"""Workers over real engines: what they send, and what they do when the connection breaks."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from django_secret_registry import SecretRegistry, secret
from django_secret_registry import registry as public
from django_secret_registry.fleet.listener import BLOCK
from django_secret_registry.providers.memory import MemoryStore
from django_secret_registry.specs import FleetSpec
from django_secret_registry.values import SecretValue
from tests import test_fleet_buses as buses
from tests.canary import CANARY, canary
from tests.scripted import Script, alias, config, until
from tests.servers import postgres as postgres_server
from tests.servers import redis as redis_server
from tests.servers.proxy import Proxy

pytestmark = pytest.mark.full

redis_session, redis = redis_server.redis_session, redis_server.redis
postgres = postgres_server.postgres

#: What this machine, which others work on as well, may need longer than an idle one.
SLACK = 3.0


class Engine:
    """An engine behind a proxy, and the FLEET setting that leads there."""

    def __init__(
        self, proxy: Proxy, backend: str, options: dict[str, Any], database: Any = None
    ) -> None:
        self.proxy, self.backend, self.options = proxy, backend, options
        self.database = database


@contextlib.contextmanager
def proxied(host: str, port: int) -> Iterator[Proxy]:
    proxy = Proxy(host, port, recording=True)
    try:
        yield proxy
    finally:
        proxy.stop()


@pytest.fixture(params=["redis", "postgres"])
def engine(request: Any, django_db_blocker: Any) -> Iterator[Engine]:
    if request.param == "redis":
        server = request.getfixturevalue("redis")
        with proxied(server.host, server.port) as proxy:
            url = f"redis://127.0.0.1:{proxy.port}"
            yield Engine(proxy, "django_secret_registry.fleet.redis.RedisBus", {"url": url})
        return
    server = request.getfixturevalue("postgres")
    entry = {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": server.host,
        "NAME": server.database,
        "USER": "postgres",
        "PASSWORD": server._password,
    }
    backend = "django_secret_registry.fleet.database.DatabaseBus"
    with (
        proxied(server.host, server.port) as proxy,
        django_db_blocker.unblock(),
        buses.database(**entry, PORT=proxy.port),
    ):
        buses.create_tables()
        buses.empty_tables()
        yield Engine(proxy, backend, {"using": "fleet"}, {**entry, "PORT": proxy.port})


@pytest.fixture
def fleet(engine: Engine) -> Iterator[Callable[..., SecretRegistry]]:
    made: list[SecretRegistry] = []

    def make(script: Script, *, start: bool = True, **fields: Any) -> SecretRegistry:
        registry = SecretRegistry()
        spec = FleetSpec(engine.backend, engine.options, **fields)
        registry.configure(config(alias("t", script), fleet=spec))
        made.append(registry)
        if start:
            registry.start()
            until(lambda: registry.fleet.joined)
        return registry

    yield make
    for registry in made:
        registry.close()
    until(lambda: ended(*made))


def ended(*registries: SecretRegistry) -> bool:
    """Whether nobody listens any more for these."""
    return not any(registry.fleet.listens for registry in registries if registry.fleet is not None)


def gone(registry: SecretRegistry) -> bool:
    return not registry.snapshot().secrets


def test_nothing_of_a_value_goes_over_the_wire(engine, fleet):
    """Not a value, nor its length or a digest: all traffic of a fleet's life is looked through."""
    values = {name: canary(f"{name}-{'x' * 50}") for name in ("first", "second")}
    lengths = [str(len(value)) for value in values.values()]
    script = Script(dict(values))
    script.answers["unversioned"] = SecretValue(canary("unversioned"))  # type: ignore[arg-type]
    one, two = fleet(script), fleet(script)
    for registry in (one, two):
        for name in (*values, "unversioned"):
            registry.get(f"t://{name}")
    until(
        lambda: all(len(info.secrets) == 3 for info in one.fleet.workers() or [None]) or beat(one)
    )
    script.answers["first"] = canary("rotated")
    one.refresh("t://first", fleet=True)
    script.answers["unversioned"] = SecretValue(canary("other"))  # type: ignore[arg-type]
    one.refresh("t://unversioned")
    two.evict("t://second", fleet=True)
    sent = one.fleet.tell("warm")
    sent.wait(20)
    until(lambda: two.get("t://first") == canary("rotated"))
    traffic = bytes(engine.proxy.seen).lower()
    assert b"t://first" in traffic
    assert b"rotated" in traffic
    assert CANARY.encode() not in traffic
    for value in (*values.values(), canary("rotated"), canary("unversioned"), canary("other")):
        for algorithm in ("md5", "sha1", "sha256", "sha512"):
            assert hashlib.new(algorithm, value.encode()).hexdigest().encode() not in traffic
        assert base64.b64encode(value.encode()).lower() not in traffic
    # A report's facts: version, three times, attempts, status. Nothing is as long as a value is.
    for info in one.fleet.workers():
        for there in info.secrets.values():
            assert str(there.attempts) not in lengths
            assert there.version is None or there.version.isdigit()


def beat(registry: SecretRegistry) -> bool:
    """Have all workers report soon: an event that acts on nothing is acknowledged."""
    registry.fleet.send("evict", [("t", "", "", "nothing")])
    time.sleep(0.3)
    return False


def test_an_eviction_is_applied_at_once(fleet):
    """Connected: long before a second is over."""
    script = Script({"db": "v1"})
    one, two = fleet(script), fleet(script)
    for _ in range(2):
        two.get("t://db")
        began = time.monotonic()
        one.evict("t://db", fleet=True)
        until(lambda: gone(two))
        assert time.monotonic() - began < 1.0 + SLACK
        time.sleep(1.0)  # equal events within a second are one


def test_an_eviction_is_applied_though_the_connection_is_cut(engine, fleet):
    """The listener connects again and reads from its place."""
    script = Script({"db": "v1"})
    one, two = fleet(script), fleet(script)
    two.get("t://db")
    sent = time.monotonic()
    one.evict("t://db", fleet=True)
    engine.proxy.cut()
    until(lambda: gone(two))
    assert time.monotonic() - sent < 2.0 + SLACK


def test_a_connection_that_was_cut_while_nobody_used_it_fails_no_eviction(engine, fleet):
    """As after a restart of the engine: the first call afterwards connects anew."""
    one = fleet(Script({"db": "v1"}), start=False)
    one.fleet.tell("evict", "t://db")
    engine.proxy.cut()
    one.evict("t://db", fleet=True)
    engine.proxy.cut()
    assert one.fleet.workers() == []


def test_an_eviction_is_applied_though_the_connection_is_half_open(engine, fleet):
    """Nothing arrives and nothing says so: after the block and two seconds it is read anew."""
    script = Script({"db": "v1"})
    two = fleet(script)
    two.get("t://db")
    direct = SecretRegistry()
    direct.configure(config(alias("t", script), fleet=FleetSpec(engine.backend, engine.options)))
    hung = time.monotonic()
    engine.proxy.strand()
    direct.fleet.tell("evict", "t://db")
    until(lambda: gone(two))
    assert time.monotonic() - hung < BLOCK + 2.0 + SLACK
    direct.close()
    engine.proxy.cut()


def test_a_bus_that_is_down_fails_no_request_in_available_and_comes_back(engine, fleet, caplog):
    """Reads go on all the while, and an eviction of the time after is applied."""
    script = Script({"db": "v1"})
    two = fleet(script, lease=1.0)
    two.get("t://db")
    engine.proxy.refuse()
    with caplog.at_level(logging.ERROR, "django_secret_registry"):
        deadline = time.monotonic() + 2.5
        slowest = 0.0
        while time.monotonic() < deadline:
            began = time.monotonic()
            assert two.get("t://db") == "v1"
            slowest = max(slowest, time.monotonic() - began)
            time.sleep(0.005)
    assert two.fleet.blind
    assert slowest < 0.2 + SLACK
    assert caplog.records == []
    engine.proxy.heal()
    until(lambda: not two.fleet.blind)
    one = fleet(script)
    one.evict("t://db", fleet=True)
    until(lambda: gone(two))


def test_strict_never_serves_what_is_older_than_the_lease(engine, fleet):
    """While nobody can say what was evicted, values are fetched again."""
    lease = 1.0
    versions = iter(range(1, 10_000))
    script = Script({"db": lambda ref: json.dumps(time.monotonic() + 0 * next(versions))})
    two = fleet(script, mode="strict", lease=lease)
    two.get("t://db")
    engine.proxy.refuse()
    cut, oldest = time.monotonic(), 0.0
    while time.monotonic() < cut + 3.5:
        fetched = float(two.get("t://db"))
        if time.monotonic() > cut + lease:
            oldest = max(oldest, time.monotonic() - fetched)
        time.sleep(0.005)
    assert oldest < lease + 0.25
    assert len(script.fetched) >= 3


@pytest.mark.parametrize("engine", ["redis"], indirect=True)
def test_a_password_of_the_bus_that_rotates_is_followed(engine, redis, settings):
    """The refused worker reads the credential anew, without the bus, and goes on."""
    store = "django_secret_registry.providers.memory.MemoryProvider"
    values = MemoryStore({"bus": canary("old"), "db": canary("db")})
    redis.set_password(canary("old"))
    url = secret("memory://bus").map(lambda p: f"redis://:{p}@127.0.0.1:{engine.proxy.port}")
    settings.SECRET_REGISTRY = {
        "PROVIDERS": {"memory": {"BACKEND": store, "OPTIONS": {"secrets": values}}},
        "FLEET": {"BACKEND": engine.backend, "OPTIONS": {"url": url}, "LEASE": 1},
    }
    public.fleet.start()
    try:
        until(lambda: public.fleet.joined)
        redis.set_password(canary("new"))
        engine.proxy.cut()
        values.put("bus", canary("new"))
        until(lambda: public.get("memory://bus") == canary("new"))
        followed = public.clock()
        until(lambda: public.clock() - public.fleet.lag > followed)
    finally:
        public.fleet.stop()
        until(lambda: ended(public))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_children_go_on_from_their_parents_place_with_connections_of_their_own(engine):
    """As under gunicorn --preload, though the parent listens: nobody hangs, all hear, all end."""
    result = subprocess.run(
        [
            *(sys.executable, "-W", "error", "-W", "ignore:This process"),
            *("-m", "tests.projects.forking_fleet", engine.backend),
            *(json.dumps(engine.options), json.dumps(engine.database)),
        ],
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (result.returncode, result.stderr) == (0, "")
    first, second = json.loads(result.stdout)
    assert first == [[["db"], False, True], ["v1", 1], True, True]
    assert second[1:] == [["v1", 1], True, True]
