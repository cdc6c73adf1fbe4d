"""A project that has read secrets before it is forked, under every server that forks.

Its children all work at the same time, and each fetches secrets of its own. ``FORKING`` in the
environment is JSON: OPTIONS of the aliases ``aws`` and ``gcp``, the number of ``children``, how
many ``fetches`` each makes, and the directory for ``results``.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import django
from django.conf import settings

from django_secret_registry import registry, secret
from django_secret_registry.events import Event, Fetched
from tests.canary import canary

FORKING = json.loads(os.environ["FORKING"])
ALIASES = ("aws", "gcp")
PROVIDERS = {
    "aws": "django_secret_registry.providers.aws.SecretsManagerProvider",
    "gcp": "django_secret_registry.providers.gcp.SecretManagerProvider",
}

if not settings.configured:  # a module that is run is imported twice by multiprocessing's "spawn"
    settings.configure(
        INSTALLED_APPS=["django_secret_registry"],
        SECRET_KEY="not a secret",
        USE_TZ=True,
        WARM={alias: secret(f"{alias}://warm") for alias in ALIASES},
        SECRET_REGISTRY={
            "REGION": "eu-central-1",
            "PROVIDERS": {
                alias: {"BACKEND": PROVIDERS[alias], "OPTIONS": FORKING[alias]} for alias in ALIASES
            },
            "CACHE": {"FETCH_TIMEOUT": 30},  # a machine that is busy is no failure
        },
    )
    django.setup()

parent = os.getpid()
fetched: list[Event] = []
registry.events.subscribe(
    lambda event: fetched.append(event) if isinstance(event, Fetched) else None
)
warm = dict(settings.WARM)
together = multiprocessing.get_context("fork").Barrier(FORKING["children"])


def work(number: int, meet: Callable[[float], object] = together.wait) -> dict[str, Any]:
    """Fetch this child's secret many times; return counts, and no value."""
    meet(60)
    fetched.clear()
    wrong = sum(settings.WARM[alias] != canary("warm") for alias in ALIASES)
    refetched = len(fetched)
    for _ in range(FORKING["fetches"]):
        for alias in ALIASES:
            reference = f"{alias}://own-{number}"
            registry.evict(reference)
            wrong += registry.get(reference) != canary(f"own-{number}")
    return {
        "pid": os.getpid(),
        "parent": parent,
        "wrong": wrong,
        "refetched": refetched,
        "fetched": len(fetched) - refetched,
    }


def report(number: int, meet: Callable[[float], object] = together.wait) -> None:
    """Work, and leave the result in a file; an error is one."""
    try:
        result = work(number, meet)
    except BaseException as error:
        result = {"error": f"{type(error).__name__}: {error}"}
    results = Path(FORKING["results"])
    (results / f"{number}.new").write_text(json.dumps(result))
    (results / f"{number}.new").rename(results / f"{number}.json")


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """WSGI: ``/3`` works as child 3."""
    report(int(environ["PATH_INFO"].strip("/")))
    start_response("200 OK", [("Content-Length", "0")])
    return [b""]


def main(method: str) -> None:
    """Work in children of multiprocessing."""
    context: Any = multiprocessing.get_context(method)
    barrier = context.Barrier(FORKING["children"])
    children = [
        context.Process(target=report, args=(number, barrier.wait))
        for number in range(FORKING["children"])
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
    sys.exit(any(child.exitcode for child in children))


if __name__ == "__main__":
    main(sys.argv[1])
