"""The page about warm workers: its snippets are run as they stand there, under real servers."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
import types
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.test import RequestFactory

from django_secret_registry import registry
from django_secret_registry.providers.memory import MemoryStore
from tests.canary import CANARY, canary
from tests.servers.process import free_port, running

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "warm-up.md").read_text()
#: The snippets of the page, by the file that their first line names.
SNIPPETS = {
    found[1]: found[0]
    for found in re.finditer(r"(?<=```python\n)# (\S+)\n.*?(?=```)", PAGE, re.DOTALL)
}
TIME = 60.0

SETTINGS = """
from pathlib import Path

from django_secret_registry import secret

HERE = Path(__file__).parent
INSTALLED_APPS = ["django_secret_registry"]
SECRET_REGISTRY = {
    "PROVIDERS": {
        "file": {
            "BACKEND": "django_secret_registry.providers.file.FileProvider",
            "OPTIONS": {"path": str(HERE / "secrets")},
        }
    },
    "SECRETS": {"stripe": "file://stripe"},
}
SECRET_KEY = secret("file://django")
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "shop.urls"
CELERY_BROKER_URL = "memory://"
USE_TZ = True
"""
URLS = """
from django.urls import path
from shop.views import ready

urlpatterns = [path("ready", ready)]
"""
WSGI = """
import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
application = get_wsgi_application()
"""
#: Writes a file named for the process when it is ready, and how many requests it had by then.
WATCH = """
import os, threading, time
from pathlib import Path

from django.core.signals import request_started
from django_secret_registry import registry

requests = []
request_started.connect(lambda **kwargs: requests.append(1), weak=False)

def begin():
    threading.Thread(target=wait, daemon=True).start()

def wait():
    while not (registry.configured and registry.ready()):
        time.sleep(0.01)
    Path(__file__).parent.joinpath("ready", str(os.getpid())).write_text(str(len(requests)))
"""
#: What the tests add to a snippet: have the worker's own process tell when it is ready.
WATCHED = {
    "gunicorn.conf.py": """
def post_worker_init(worker):
    import shop.watch

    shop.watch.begin()
""",
    "shop/asgi.py": """
import shop.watch

shop.watch.begin()
""",
    "shop/celery.py": """
@worker_process_init.connect
def watch(**kwargs):
    import shop.watch

    shop.watch.begin()
""",
    "shop/management/commands/task_worker.py": """
import shop.watch

shop.watch.begin()
""",
}
TASKS = """
INSTALLED_APPS += ["django_tasks_db", "shop"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": HERE / "tasks.sqlite3"}}
TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}
"""


class Site:
    """A project on disk that is made of the page's snippets."""

    def __init__(self, path: Path) -> None:
        self._path, self._shop = path, path / "shop"
        (self._shop / "secrets").mkdir(parents=True)
        (self._shop / "ready").mkdir()
        for name in ("django", "stripe"):
            (self._shop / "secrets" / name).write_text(canary(name))
        files = {"__init__": "", "settings": SETTINGS, "urls": URLS, "wsgi": WSGI, "watch": WATCH}
        for name, text in files.items():
            (self._shop / f"{name}.py").write_text(text)
        for name, text in SNIPPETS.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            file = path / name if "/" in name or "gunicorn" in name else self._shop / name
            with file.open("a") as out:
                out.write(f"\n{text}\n\n{WATCHED.get(name, '')}")

    def write_settings(self, text: str) -> None:
        with (self._shop / "settings.py").open("a") as file:
            file.write(text)

    def manage(self, *arguments: str) -> None:
        """Run a management command to its end."""
        search = os.pathsep.join((str(self._path), str(ROOT)))
        subprocess.run(
            [sys.executable, "-m", "django", *arguments, "--settings", "shop.settings"],
            env={**os.environ, "PYTHONPATH": search},
            check=True,
            capture_output=True,
        )

    @contextlib.contextmanager
    def serve(self, *command: str, ready: str) -> Iterator[None]:
        """Run a server; whatever it leaves running is killed at the end."""
        search = os.pathsep.join((str(self._path), str(ROOT)))
        variables = {**os.environ, "PYTHONPATH": search, "C_FORCE_ROOT": "1"}
        variables.pop("DJANGO_SETTINGS_MODULE", None)
        given = [f"{name}={text}" for name, text in variables.items()]
        where = ["--chdir", str(self._path)]
        line = ["env", *where, *given, sys.executable, "-m", *command]
        with running(line, ready=ready, timeout=TIME) as process:
            try:
                yield
            finally:
                process.terminate()
                with contextlib.suppress(Exception):
                    process.wait(20)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def wait(self, workers: int) -> None:
        """Wait until so many processes are ready; none has had a request."""
        deadline = time.monotonic() + TIME
        while len(told := [*(self._shop / "ready").iterdir()]) < workers or not all(
            file.read_text() for file in told
        ):
            assert time.monotonic() < deadline, f"{len(told)} of {workers} are ready"
            time.sleep(0.02)
        assert {file.read_text() for file in told} == {"0"}
        assert len(told) == workers


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def needs(module: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(module) is None
    return pytest.mark.skipif(missing, reason=f"needs {module}: pip install {module}")


def probe(port: int) -> tuple[int, object]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=TIME) as answer:
        return answer.status, json.load(answer)


def test_the_page_has_its_snippets() -> None:
    """The page names the file of each snippet, and there is one for each server."""
    assert set(SNIPPETS) == {"settings.py", "shop/views.py", *WATCHED}
    assert PAGE.count("```python") == len(SNIPPETS)


@pytest.mark.parametrize("preload", [False, True])
@pytest.mark.full
@needs("gunicorn")
def test_gunicorn(site: Site, preload: bool) -> None:
    """Both workers are ready without a request, also where Django is set up after the fork."""
    port = free_port()
    with site.serve(
        *("gunicorn", "shop.wsgi", "--workers", "2", "--bind", f"127.0.0.1:{port}"),
        *["--preload"] * preload,
        ready="Booting worker",
    ):
        site.wait(2)
        assert probe(port) == (200, {"missing": 0})


@pytest.mark.full
@needs("uvicorn")
def test_uvicorn(site: Site) -> None:
    """The worker is ready without a request, begins with the lifespan and ends in order."""
    port = free_port()
    with site.serve(
        *("uvicorn", "shop.asgi:application", "--port", str(port), "--lifespan", "on"),
        ready="Application startup complete",
    ):
        site.wait(1)
        assert probe(port) == (200, {"missing": 0})


@pytest.mark.full
@needs("celery")
def test_celery(site: Site) -> None:
    """Each process of the pool is ready before a task has come."""
    with site.serve(
        *("celery", "--app", "shop.celery", "worker", "--concurrency", "2", "--loglevel", "INFO"),
        *("--without-gossip", "--without-mingle", "--without-heartbeat"),
        ready=" ready.",
    ):
        site.wait(2)


@pytest.mark.full
@needs("django_tasks_db")
def test_tasks(site: Site) -> None:
    """The worker of Django's tasks is ready before a task has come."""
    site.write_settings(TASKS)
    site.manage("migrate")
    with site.serve(
        *("django", "task_worker", "--settings", "shop.settings", "--no-startup-delay"),
        *("--interval", "0.1"),
        ready="Starting worker",
    ):
        site.wait(1)


def test_probe(settings, caplog) -> None:
    """The probe is 503 until all is held, tells how much is missing and no name, then is 200."""
    settings.SECRET_REGISTRY = {
        "PROVIDERS": {
            "memory": {
                "BACKEND": "django_secret_registry.providers.memory.MemoryProvider",
                "OPTIONS": {"secrets": MemoryStore({"stripe": canary()})},
            }
        },
        "SECRETS": {"stripe": "memory://stripe"},
    }
    views = types.ModuleType("views")
    exec(SNIPPETS["shop/views.py"], vars(views))
    answer = views.ready(RequestFactory().get("/ready"))
    assert (answer.status_code, answer.content) == (503, b'{"missing": 1}')
    registry.warm()
    answer = views.ready(RequestFactory().get("/ready"))
    assert (answer.status_code, answer.content) == (200, b'{"missing": 0}')
    assert CANARY not in caplog.text
