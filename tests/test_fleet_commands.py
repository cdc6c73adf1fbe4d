"""``secret_cache --fleet`` and ``warm_secrets --fleet``: an operator speaks to all workers."""

from __future__ import annotations

import io
import json
import re
import threading
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from django_secret_registry import SecretRegistry
from django_secret_registry import registry as public
from django_secret_registry.conf import load
from tests.canary import canary
from tests.scripted import until
from tests.servers import redis as redis_server
from tests.servers.process import free_port
from tests.test_fleet_engines import ended

pytestmark = pytest.mark.full

redis_session, redis = redis_server.redis_session, redis_server.redis

FILE = "django_secret_registry.providers.file.FileProvider"
BUS = "django_secret_registry.fleet.redis.RedisBus"
#: The name of the thread by which a worker listens and reports.
LISTENER = "secret-registry-fleet"


@pytest.fixture
def store(tmp_path: Any) -> Any:
    for name in ("db", "key"):
        (tmp_path / name).write_text(canary(name))
    return tmp_path


@pytest.fixture
def project(store: Any, settings: Any, redis: Any, monkeypatch: Any) -> Any:
    # As in a command: whatever ran before, this process itself is no worker.
    monkeypatch.setattr(public, "started", False)
    # Settings that are put back one after the other configure the registry each time: the worker of
    # such a moment ends by itself, and must not be met in the fleet of this test.
    until(lambda: not any(one.name == LISTENER for one in threading.enumerate()))
    redis.reset()
    settings.SECRET_REGISTRY = {
        "PROVIDERS": {"file": {"BACKEND": FILE, "OPTIONS": {"path": str(store)}}},
        "SECRETS": {"db": "file://db", "key": "file://key"},
        "FLEET": {"BACKEND": BUS, "OPTIONS": {"url": f"redis://127.0.0.1:{redis.port}"}},
    }
    return settings


@pytest.fixture
def workers(project: Any) -> Any:
    """Three workers of the project, each with a registry of its own."""
    made = [SecretRegistry() for _ in range(3)]
    for registry in made:
        registry.configure(load())
        registry.start()
    try:
        names = {registry.fleet.name for registry in made}
        until(lambda: names <= {worker.name for worker in public.fleet.workers()})
        yield made
    finally:
        for registry in made:
            registry.close()
        until(lambda: ended(*made))


def run(command: str, *arguments: str) -> tuple[int, str]:
    out, code = io.StringIO(), 0
    try:
        call_command(command, *arguments, stdout=out, stderr=io.StringIO())
    except CommandError as error:
        code = error.returncode
        out.write(f"\n{error}")
    assert canary() not in out.getvalue()
    return code, out.getvalue()


def held(registry: SecretRegistry) -> set[str]:
    return {info.key.name for info in registry.snapshot().secrets if info.state != "absent"}


def test_an_eviction_of_the_fleet_is_acknowledged_by_all(workers):
    """The command waits until every worker has it, and says so."""
    for registry in workers:
        registry.get("db")
        registry.get("key")
    code, out = run("secret_cache", "evict", "db", "--fleet")
    assert (code, out.strip()) == (0, "evict: 3 of 3 applied.")
    assert [held(registry) for registry in workers] == [{"key"}] * 3


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        (("--all", "--no-input"), set()),
        (("--provider", "file"), set()),
        (("--provider", "file", "--region", "-"), set()),
        (("--provider", "file", "--region", "eu"), {"db", "key"}),
    ],
)
def test_more_than_one_secret_is_evicted_by_one_event(workers, arguments, left):
    """Everything, or what an alias fetched, with its clients."""
    for registry in workers:
        registry.get("db")
        registry.get("key")
    code, out = run("secret_cache", "evict", *arguments, "--fleet", "--format", "json")
    assert code == 0
    assert json.loads(out)["fleet"] == {"total": 3, "applied": 3, "blind": 0}
    assert [held(registry) for registry in workers] == [left] * 3


def test_a_refresh_of_the_fleet_brings_the_new_value_everywhere(workers, store):
    """Each worker fetches by itself, soon."""
    for registry in workers:
        registry.get("db")
    (store / "db").write_text(canary("new"))
    assert run("secret_cache", "refresh", "db", "--fleet")[0] == 0
    until(lambda: {registry.get("db") for registry in workers} == {canary("new")})


def test_workers_that_hold_different_versions_are_shown_as_such(workers, store):
    """Per secret: how many workers hold which version."""
    workers[0].get("db")
    workers[1].get("db")
    (store / "db").unlink()
    (store / "db").write_text(canary("new"))
    workers[2].get("db")
    workers[2].get("key")
    public.fleet.tell("evict", "file://nothing-held").wait(20)
    code, out = run("secret_cache", "list", "--fleet", "--format", "json")
    document = json.loads(out)
    assert (code, document["workers"], document["blind"]) == (0, 3, 0)
    secrets = {one["reference"]: one for one in document["secrets"]}
    assert sorted(one["workers"] for one in secrets["file://db"]["versions"]) == [1, 2]
    assert secrets["file://db"]["differs"]
    assert not secrets["file://key"]["differs"]
    _, table = run("secret_cache", "list", "--fleet", "db")
    assert "3 of 3" in table
    assert "(they differ)" in table
    assert "file://key" not in table
    assert "3 workers, 0 blind." in table


def test_a_fleet_is_warmed_and_each_worker_answers(workers):
    """Every worker fetches what its settings name and says how many it could."""
    code, out = run("warm_secrets", "--fleet", "--format", "json")
    document = json.loads(out)
    assert (code, document["total"]) == (0, 3)
    assert [(one["ok"], one["failed"]) for one in document["workers"]] == [(2, 0)] * 3
    assert [held(registry) for registry in workers] == [{"db", "key"}] * 3


def test_a_worker_that_cannot_read_a_secret_fails_the_command(workers, store):
    """The table says how many failed where."""
    (store / "key").unlink()
    code, out = run("warm_secrets", "--fleet", "key", "db")
    assert code == 1
    assert "3 failed; 0 of 3 workers gave no answer." in out


def test_a_worker_that_does_not_answer_fails_the_command(workers):
    """A worker that hangs is waited for as long as asked, and counted."""
    with public.fleet._link.shared() as bus:
        head = next(iter(bus.workers())).fields[""]
        bus.heartbeat("hung:1:x", {"": head}, lifetime=60, anew=True)
    # However slow the others are on a busy machine: this one never answers.
    code, out = run("secret_cache", "evict", "db", "--fleet", "--wait", "0.5")
    said = re.search(r"(\d) of 4 applied, (\d) without an answer\.", out)
    assert said is not None
    applied, silent = map(int, said.groups())
    assert (code, applied + silent) == (1, 4)
    assert silent >= 1


def test_many_secrets_are_warmed_in_the_fleet_by_name(workers):
    """A command may name more of them than a worker is asked for at once."""
    names = ["file://db", *(f"file://key?ttl={number}" for number in range(60, 80))]
    code, out = run("warm_secrets", "--fleet", "--format", "json", *names)
    document = json.loads(out)
    assert (code, document["total"], len(document["workers"])) == (0, 3, 3)


@pytest.mark.parametrize("command", [("secret_cache", "evict", "db"), ("warm_secrets",)])
def test_without_a_fleet_the_command_says_what_to_configure(settings, command):
    """Wrong usage, and no traceback."""
    settings.SECRET_REGISTRY = {"PROVIDERS": {}, "SECRETS": {}}
    code, out = run(*command[:2], *(["--all"] if "evict" in command else []), "--fleet")
    assert code == 2
    assert "FLEET" in out


def test_a_bus_that_is_down_fails_the_command(project):
    """The error of the bus in one line."""
    project.SECRET_REGISTRY = {
        **project.SECRET_REGISTRY,
        "FLEET": {"BACKEND": BUS, "OPTIONS": {"url": f"redis://127.0.0.1:{free_port()}"}},
    }
    for command in (("secret_cache", "list"), ("secret_cache", "evict", "db"), ("warm_secrets",)):
        code, out = run(*command, "--fleet")
        assert code == 1
        assert "the bus does not answer" in out
