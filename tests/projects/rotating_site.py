"""A site that asks its database in every request, whose password rotates.

``ROTATING`` in the environment is JSON: the ``database`` (``USER`` and ``PASSWORD`` are left out),
the ``secret`` that has both, and the ``provider`` of its alias.
"""

from __future__ import annotations

import json
import os

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import connection
from django.http import HttpRequest, JsonResponse
from django.urls import path

from django_secret_registry import registry, secret
from django_secret_registry.events import Event, Fetched
from tests.mysql_driver import use_driver

ROTATING = json.loads(os.environ["ROTATING"])
SECRET = ROTATING["secret"]

if ROTATING["database"]["ENGINE"].endswith("mysql"):
    use_driver()

settings.configure(
    INSTALLED_APPS=["django_secret_registry"],
    SECRET_KEY="not a secret",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    USE_TZ=True,
    DATABASES={
        "default": {
            **ROTATING["database"],
            "USER": secret(f"{SECRET}#username"),
            "PASSWORD": secret(f"{SECRET}#password"),
        }
    },
    SECRET_REGISTRY={
        "REGION": "eu-central-1",
        "PROVIDERS": {SECRET.partition(":")[0]: ROTATING["provider"]},
        "CACHE": {"FETCH_TIMEOUT": 30},  # a machine that is busy is no failure
    },
)
django.setup()

fetched: list[Event] = []
registry.events.subscribe(
    lambda event: fetched.append(event) if isinstance(event, Fetched) else None
)


def index(request: HttpRequest) -> JsonResponse:
    """Ask the database, and say how often this process has asked the secret manager."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        cursor.fetchone()
    return JsonResponse({"pid": os.getpid(), "fetches": len(fetched)})


def refresh(request: HttpRequest) -> JsonResponse:
    """Do what an operator may do at any time."""
    registry.refresh(SECRET)
    return JsonResponse({"pid": os.getpid(), "fetches": len(fetched)})


urlpatterns = [path("", index), path("refresh", refresh)]
application = get_wsgi_application()
