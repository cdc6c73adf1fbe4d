"""Event loops: whatever a provider does, no fetch runs in the loop's thread or holds it up."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

from django_secret_registry import SecretRegistry, pool, registry, secret
from django_secret_registry.exceptions import ProviderUnavailable, SecretError
from django_secret_registry.lifecycle import CachePolicy
from tests.canary import canary
from tests.scripted import PATIENCE, HandClock, Script, alias, make, running, until
from tests.test_resilience import no_new_threads

TASKS, KEYS = 1000, 40
TTL, MAX_STALE = 100.0, 1000.0
NAMES = [f"s{number}" for number in range(KEYS)]


class World:
    """A registry with a provider that answers when it is told, and a burst of tasks that read."""

    def __init__(self) -> None:
        self.script, self.clock = Script(), HandClock()
        self.open = threading.Event()
        policy = CachePolicy(ttl=TTL, jitter=0, max_stale=MAX_STALE, soft_timeout=0.05)
        self.registry: SecretRegistry = make(
            alias("a", self.script), clock=self.clock, cache=policy
        )
        self.loops: set[threading.Thread] = set()
        self.answer("old")

    def answer(self, value: str) -> None:
        """Have the provider answer with this, as soon as it is let go."""
        self.open.clear()

        def wait(ref: Any) -> Any:
            assert self.open.wait(PATIENCE), "the loop did not go on"
            return ProviderUnavailable("down") if value == "down" else canary(value)

        self.script.answers = dict.fromkeys(NAMES, wait)

    async def burst(self) -> dict[str, int]:
        """Read all keys in 1,000 tasks; return how often which value or error came."""
        self.loops.add(threading.current_thread())
        known = {canary("old"): "old", canary("new"): "new"}

        async def read(number: int) -> str:
            try:
                return known[await self.registry.aget(f"a://s{number % KEYS}")]
            except SecretError as error:
                return type(error).__name__

        return dict(Counter(await asyncio.gather(*map(read, range(TASKS)))))

    async def bursts_until(self, value: str) -> None:
        async with asyncio.timeout(PATIENCE):
            while set(await self.burst()) != {value}:
                pass

    def check(self) -> None:
        """No fetch ran in a thread of a loop."""
        assert self.loops
        assert self.script.fetchers
        assert not self.loops & {*self.script.fetchers}


@pytest.fixture
def world() -> World:
    return World()


async def while_waiting(world: World) -> dict[str, int]:
    """Run a burst, and let the provider go from the loop once it was asked."""
    tasks = asyncio.ensure_future(world.burst())
    await asyncio.to_thread(until, lambda: bool(world.script.fetched))
    world.open.set()
    return await tasks


def test_tasks(world: World) -> None:
    """1,000 tasks, cold, due, stale and failing: the loop goes on while the provider is silent."""

    async def main() -> None:
        assert await while_waiting(world) == {"old": TASKS}
        assert len(world.script.fetched) == KEYS

        world.answer("new")
        world.clock.forward(0.9 * TTL)
        assert await world.burst() == {"old": TASKS}  # nobody waits, it has not answered
        world.open.set()
        await world.bursts_until("new")
        assert len(world.script.fetched) == 2 * KEYS

        world.answer("old")
        world.clock.forward(1.5 * TTL)
        assert await world.burst() == {"new": TASKS}  # the first of each key after SOFT_TIMEOUT
        world.open.set()
        await world.bursts_until("old")

        world.answer("down")
        world.open.set()
        world.clock.forward(TTL + MAX_STALE + 1)
        assert await world.burst() == {"ProviderUnavailable": TASKS}

    asyncio.run(main())
    world.check()


def test_no_thread_for_a_task(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be started a task gets what is held, or an error: never a fetch."""
    monkeypatch.setattr(pool, "IDLE", 0.0)
    world.open.set()

    async def main() -> None:
        assert await world.burst() == {"old": TASKS}
        await asyncio.to_thread(
            until, lambda: not {*world.script.fetchers} & {*threading.enumerate()}
        )
        world.answer("new")
        world.clock.forward(1.5 * TTL)
        with no_new_threads():
            assert await world.burst() == {"old": TASKS}
            world.registry.evict(all=True)
            world.clock.forward(61)
            assert await world.burst() == {"ProviderUnavailable": TASKS}
        assert len(world.script.fetched) == KEYS
        world.open.set()
        world.clock.forward(61)
        assert await world.burst() == {"new": TASKS}

    asyncio.run(main())
    world.check()


# -- under a server --


@contextlib.contextmanager
def uvicorn_serves(app: Any) -> Iterator[str]:
    """Serve an ASGI application in a thread; give the URL."""
    uvicorn = pytest.importorskip("uvicorn", reason="needs uvicorn: pip install uvicorn")
    config = uvicorn.Config(
        app, loop="asyncio", http="h11", ws="none", lifespan="off", log_config=None
    )
    server = uvicorn.Server(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            until(lambda: server.started)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(PATIENCE)
            assert not thread.is_alive()


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        return json.load(answer)


@pytest.mark.full
def test_tasks_under_uvicorn(world: World) -> None:
    """While 1,000 tasks of a request wait for a provider, uvicorn answers other requests."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        found = await world.burst() if scope["path"] == "/burst" else {"pong": 1}
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(found).encode()})

    with uvicorn_serves(app) as url:
        with running(lambda: get(f"{url}/burst")) as cold:
            until(lambda: bool(world.script.fetched))
            assert get(f"{url}/ping") == {"pong": 1}
            world.open.set()
        assert cold == [{"old": TASKS}]

        world.answer("new")
        world.clock.forward(0.9 * TTL)
        assert get(f"{url}/burst") == {"old": TASKS}
        world.open.set()
        until(lambda: get(f"{url}/burst") == {"new": TASKS})

        world.answer("down")
        world.clock.forward(TTL + MAX_STALE + 1)
        seen = len(world.script.fetched)
        with running(lambda: get(f"{url}/burst")) as failing:
            until(lambda: len(world.script.fetched) > seen)
            assert get(f"{url}/ping") == {"pong": 1}
            world.open.set()
        assert failing == [{"ProviderUnavailable": TASKS}]
    world.check()


async def live(request: HttpRequest) -> JsonResponse:
    """Read a live setting as any code does, in 1,000 tasks."""

    async def read() -> bool:
        return bool(canary("api") == django_settings.API_KEY)

    loops.add(threading.current_thread())
    return JsonResponse({"right": sum(await asyncio.gather(*(read() for _ in range(TASKS))))})


loops: set[threading.Thread] = set()
urlpatterns = [path("live", live)]


@pytest.mark.full
def test_live_settings_under_uvicorn(
    settings: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Async views read live settings from the cache; one cold read is one warning that says why."""
    script = Script({"api": canary("api"), "other": canary("other")})
    settings.SECRET_REGISTRY = {
        "PROVIDERS": {
            "a": {"BACKEND": "tests.scripted.ScriptedProvider", "OPTIONS": {"script": script}}
        }
    }
    settings.API_KEY, settings.OTHER_KEY = secret("a://api"), secret("a://other")
    settings.ROOT_URLCONF, settings.ALLOWED_HOSTS = __name__, ["*"]
    monkeypatch.setattr(registry, "started", True)  # no request of this test begins other work
    loops.clear()
    with uvicorn_serves(get_asgi_application()) as url:
        for _ in range(3):
            assert get(f"{url}/live") == {"right": TASKS}
    assert len(script.fetched) == 1
    assert loops
    assert not loops & {*script.fetchers}
    warnings = [record.getMessage() for record in caplog.records if "event loop" in record.msg]
    assert len(warnings) == 1
    assert all(word in warnings[0] for word in ("a://api", "aget", "WARM_UP"))


def test_one_warning(settings: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Live settings that are cold on a loop are fetched elsewhere, and warned of once for all."""
    script = Script({"api": canary("api"), "other": canary("other")})
    settings.SECRET_REGISTRY = {
        "PROVIDERS": {
            "a": {"BACKEND": "tests.scripted.ScriptedProvider", "OPTIONS": {"script": script}}
        }
    }
    settings.API_KEY, settings.OTHER_KEY = secret("a://api"), secret("a://other")

    async def main() -> list[str]:
        return [settings.API_KEY, settings.OTHER_KEY, settings.API_KEY]

    caplog.set_level(logging.WARNING, "django_secret_registry")
    assert asyncio.run(main()) == [canary("api"), canary("other"), canary("api")]
    assert threading.current_thread() not in script.fetchers
    (warning,) = [record.getMessage() for record in caplog.records]
    assert all(word in warning for word in ("a://api", "aget", "WARM_UP"))
