"""Paths of a project that makes plain texts of secrets: what our filters see is masked."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

import sentry_sdk
from django.conf import settings
from django.test import Client, override_settings

from django_secret_registry import registry
from tests.leaks import sinks
from tests.leaks.driving import Kind, Text, path
from tests.leaks.paths import aget, hold_everything, pages
from tests.leaks.site import OURS

logger = logging.getLogger("project")


@path("error page of made texts", Kind.MADE)
def error_page() -> Iterator[Text]:
    hold_everything()
    yield from pages([name for name in OURS if "-" in name])
    value, url = str(settings.TEXT), quote(str(settings.TEXT))
    for debug in (True, False):
        word = "RuntimeError" if debug else "Server Error"
        with override_settings(DEBUG=debug):
            client = Client(raise_request_exception=False)
            client.cookies["theme"] = quote(value)
            for accept in ("text/html", "text/plain"):
                answer = client.post(
                    f"/made/{url}/x?q={quote_plus(value)}&hook={quote(str(settings.BOX['url']))}",
                    {"comment": [value, f"<{value}>"], value: "a name"},
                    headers={"accept": accept, "x-data": base64.b64encode(value.encode()).decode()},
                )
                yield Text(f"sync, {accept}, DEBUG {debug}", answer.content.decode(), word)
            page = asyncio.run(aget(f"/amade/{url}", **{"x-data": json.dumps([value])}))
            yield Text(f"async, DEBUG {debug}", page, word)


@path("log of made texts", Kind.MADE)
def log() -> Iterator[Text]:
    hold_everything()
    text, url = str(settings.TEXT), str(settings.BOX["url"])
    logger.info("with %s", settings.TEXT)
    logger.info(f"in the text {text}")  # noqa: G004
    logger.info("%(a)s and %(b)r", {"a": settings.TEXT, "b": url})
    logger.info("encoded %s %s", quote(text, safe=""), base64.b64encode(f"app:{text}".encode()))
    logger.info("as extra", extra={"held": {"a": [url, text.encode()]}, "secret": settings.TEXT})
    logger.info("too few arguments %s %s", settings.TEXT)  # noqa: PLE1206
    logger.info("too many", url)  # noqa: PLE1205
    try:
        raise LookupError(url) from ValueError(text)
    except LookupError:
        logger.exception("failed")
    logger.info("not held any more: %s", registry.get("vault://rotating"), stack_info=True)
    registry.evict("vault://rotating")
    yield Text("records", "\n".join(sinks.arrived()["filtered log"]), "not held any more")


@path("Sentry with before_send", Kind.MADE)
def sentry() -> Iterator[Text]:
    hold_everything()
    client = Client(raise_request_exception=False)
    client.post("/made/x", {"comment": str(settings.TEXT)}, headers={"x-data": str(settings.TEXT)})
    asyncio.run(aget("/amade/x"))
    sentry_sdk.add_breadcrumb(message=str(settings.TEXT), data={"url": settings.BOX["url"]})
    sentry_sdk.capture_message(f"sent {settings.BOX['url']}")
    events = sinks.arrived()["Sentry"]
    yield Text("events", "\n".join(events), "RuntimeError")


@path("log of django.request", Kind.MADE)
def requests() -> Iterator[Text]:
    hold_everything()
    Client().get(f"/nothing/{quote(str(settings.TEXT))}")
    yield Text("records", "\n".join(sinks.arrived()["filtered log"]), "Not Found")
