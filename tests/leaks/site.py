"""Views that use secrets well, and views that fail with what they made of them in their frames."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, quote_plus

from django.conf import settings
from django.contrib import admin
from django.http import Http404, HttpRequest, HttpResponse
from django.template import engines
from django.urls import path

from django_secret_registry import registry, secret


def _break(made: Any) -> None:
    """Fail three times over, with what was made of secrets in messages, notes and causes."""
    try:
        try:
            raise LookupError(f"no {settings.TEXT}")
        except LookupError as error:
            raise KeyError({"value": str(settings.DOCUMENT)}) from error
    except KeyError:
        failure = RuntimeError(f"cannot connect to {made[0]}, nor send {settings.BINARY[:]!r}")
        failure.add_note(f"with {json.loads(settings.DOCUMENT)['login']['password']}")
        raise failure  # noqa: B904 - the context is one of the paths


def _made() -> list[Any]:
    """Return what projects make of secrets: nothing here is a ``SecretStr`` any more."""
    text, document = str(settings.TEXT), json.loads(settings.DOCUMENT)
    return [
        settings.BOX["url"][:],
        f"redis://:{quote(text, safe='')}@redis/0",
        f"?key={quote_plus(text)}",
        "Basic " + base64.b64encode(f"app:{text}".encode()).decode(),
        {"Authorization": f"Bearer {document['login']['codes'][0]}"},
        {"deep": [{"in": (document["login"], bytes(settings.BINARY))}]},
        {"phrase": str(settings.PHRASE)},
        json.dumps({"text": text}),
        repr(text),
    ]


def made(request: HttpRequest, rest: str) -> HttpResponse:
    """Fail in frames that hold what was made of secrets."""
    texts = _made()
    url, by_name, phrase = texts[0], texts[5], {"phrase": str(settings.PHRASE), "more": [1, 2]}
    _break(texts)
    return HttpResponse(f"{url}{by_name}{phrase}")


async def amade(request: HttpRequest, rest: str) -> HttpResponse:
    """Do as :func:`made` in a coroutine."""
    texts = _made()
    url, document = texts[0], await registry.aget("vault://document")
    _break(texts)
    return HttpResponse(f"{url}{document}")


def _cannot(value: str) -> str:
    parts = value.split("-")
    return parts[99]


#: Reads that fail in this package's own code, each in another place of it. To those with a dash a
#: plain text of a secret is given.
OURS: dict[str, Callable[[], Any]] = {
    "map": lambda: _read_marker(secret("vault://text").map(_cannot)),
    "key": lambda: registry.get("vault://document#/login/nothing"),
    "json": lambda: registry.get("vault://text#key"),
    "binary": lambda: registry.get("vault://binary"),
    "base64": lambda: registry.get("vault://text?as=base64"),
    "parse": lambda: registry.get("vault://broken"),
    "secret": lambda: registry.get(settings.TEXT),
    "text-as-reference": lambda: registry.get(str(settings.TEXT)),
    "text-as-name": lambda: (
        engines["django"]
        .from_string("{% load secret_registry %}{% secret name %}")
        .render({"name": str(settings.TEXT)})
    ),
}


def _read_marker(marker: Any) -> Any:
    return f"{marker}"


def ours(request: HttpRequest, name: str) -> HttpResponse:
    """Fail in a frame of this package; only SecretStr and SecretBytes are held here."""
    held = [settings.TEXT, settings.BINARY, {"box": settings.BOX["url"]}]
    pair = registry.get("login")
    return HttpResponse(f"{OURS[name]()}{len(held)}{len(pair)}")


async def aours(request: HttpRequest, name: str) -> HttpResponse:
    """Do as :func:`ours` in a coroutine."""
    held = [await registry.aget("vault://text"), await registry.aget("login")]
    return HttpResponse(f"{OURS[name]()}{len(held)}")


def used(request: HttpRequest) -> HttpResponse:
    """Use every secret, from several threads too, and show nothing."""
    thread = threading.Thread(target=_made)
    thread.start()
    thread.join()
    shown = engines["django"].from_string(
        "{% load secret_registry %}{% secret 'shown' as x %}{{ x|length }}"
    )
    return HttpResponse(f"used {shown.render({})}")


def nothing(request: HttpRequest) -> HttpResponse:
    """Tell what was looked for, as views do."""
    raise Http404(f"no page for {settings.TEXT}")


urlpatterns = [
    path("admin/", admin.site.urls),
    path("made/<path:rest>", made),
    path("amade/<path:rest>", amade),
    path("ours/<name>/", ours),
    path("aours/<name>/", aours),
    path("used/", used),
    path("nothing/", nothing),
]
