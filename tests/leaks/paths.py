"""Paths of a project that keeps to what it reads: ``SecretStr``, ``SecretBytes``, references."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import faulthandler
import io
import json
import pickle
import pprint
import re
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.core.cache import caches
from django.core.management import call_command
from django.test import AsyncClient, Client, override_settings

from django_secret_registry import (
    ProviderUnavailable,
    SecretError,
    SecretRef,
    SecretValue,
    registry,
)
from tests.leaks import sinks
from tests.leaks.driving import Text, path
from tests.leaks.material import TEXT, Vault
from tests.leaks.site import OURS

KEPT = [name for name in OURS if "-" not in name]


def command(name: str, *arguments: str) -> str:
    """Return what a command writes, to both streams, however it ends."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            call_command(name, *arguments, stdout=out, stderr=out)
        except (Exception, SystemExit) as error:  # which manage.py prints
            out.write(f"{error} {error!r}")
    return out.getvalue()


def hold_everything() -> None:
    """Have the cache hold every secret, in each form that somebody reads."""
    registry.warm()
    for text in ("vault://document#/login/password", "vault://document#/login/codes", "login"):
        registry.get(text)
    for name in ("TEXT", "BINARY", "DOCUMENT", "PHRASE", "BROKER", "BOX"):
        str(copy.copy(getattr(settings, name)))


# -- Django --------------------------------------------------------------------------------------


def pages(names: Sequence[str]) -> Iterator[Text]:
    """Have views fail, with DEBUG on and off; the mails go to the sink."""
    for name in names:
        yield page(name, "text/html", debug=True)
    yield Text("async page", asyncio.run(aget(f"/aours/{names[0]}/")), "Traceback")
    yield page(names[0], "text/plain", debug=True)
    yield page(names[0], "text/html", debug=False)


def page(name: str, accept: str, *, debug: bool) -> Text:
    with override_settings(DEBUG=debug):
        client = Client(raise_request_exception=False)
        answer = client.get(f"/ours/{name}/", headers={"accept": accept}).content.decode()
    word = "Traceback" if debug else "Server Error"
    return Text(f"page of {name}, {accept}, DEBUG {debug}", answer, word)


async def aget(url: str, **headers: str) -> str:
    client = AsyncClient(raise_request_exception=False)
    return (await client.get(url, headers=headers)).content.decode()


@path("error page")
def error_page() -> Iterator[Text]:
    yield from pages(["map", "parse", "key"])


@path("settings on an error page")
def settings_page() -> Iterator[Text]:
    """The provider is down: the page asks it for nothing, and shows references."""
    registry.evict(all=True)
    asked: list[str] = []

    def down(self: Any, ref: SecretRef, *, timeout: float) -> SecretValue:
        asked.append(ref.name)
        raise ProviderUnavailable("down")

    fetch, Vault.fetch = Vault.fetch, down  # type: ignore[method-assign]
    try:
        page = Client(raise_request_exception=False).get("/ours/map/").content.decode()
    finally:
        Vault.fetch = fetch  # type: ignore[method-assign]
        registry.configure(registry.config)  # which forgets the outage
    yield Text("page", page, "secret(&#x27;vault://text&#x27;).map(...)")
    yield Text("what was asked for", str(asked), "['text']")  # by the view


@path("diffsettings")
def diffsettings() -> Iterator[Text]:
    yield Text("output", command("diffsettings"), "BROKER")
    yield Text("unified", command("diffsettings", "--output", "unified"), "BROKER")


@path("check")
def check() -> Iterator[Text]:
    yield Text("as it is", command("check", "--deploy"), "secret_registry.W008")
    value = str(settings.TEXT)
    wrong = [
        {"PROVIDERS": value, "SECRETS": value, "CACHE": value, "FLEET": value, "REBIND": value},
        {"PROVIDERS": {"it": value}, "SECRETS": {"it": value}, "REBIND": [value]},
        {"PROVIDERS": {"it": {"BACKEND": value, "TTL": value, "ALLOW": value, "REGIONS": [value]}}},
        {"SECRETS": {"it": {"REF": value, "MAP": {"a": value}, "RESIDENCY": value}}},
        {"CACHE": {"TTL": value}, "REGION": value, "FLEET": {"BACKEND": value, "MODE": value}},
    ]
    for place, setting in enumerate(wrong):
        with override_settings(SECRET_REGISTRY=setting):
            yield Text(f"values in wrong places, {place}", command("check"), "secret_registry.E")


@path("shell")
def shell() -> Iterator[Text]:
    code = (
        "from django.conf import settings; from django_secret_registry import registry;"
        "from django_secret_registry.live import raw_setting;"
        "shown = [settings.TEXT, settings.BINARY, settings.BOX, raw_setting('TEXT'), registry,"
        " registry.snapshot(), registry.fetch('vault://text'), registry.get('login'),"
        " registry.get_provider('vault'), registry.slots, registry.config];"
        "[print('shown', repr(one)) for one in shown]"
    )
    yield Text("output", command("shell", "--command", code), "shown SecretStr(")


@path("template")
def template() -> Iterator[Text]:
    yield Text("page", Client().get("/used/").content.decode(), "used")


# -- admin, commands, metrics, bus ---------------------------------------------------------------


@path("admin")
def admin() -> Iterator[Text]:
    hold_everything()
    client = Client(raise_request_exception=False)
    client.force_login(User.objects.get_or_create(username="ada", is_staff=1, is_superuser=1)[0])
    base = "/admin/django_secret_registry"
    yield Text("index", client.get("/admin/").content.decode(), "Secrets")
    for model, word in (("cachedsecret", "vault://text"), ("cachedprovider", "vault")):
        page = client.get(f"{base}/{model}/").content.decode()
        yield Text(f"list of {model}", page, word)
        for link in sorted(set(re_links(page, f"{base}/{model}/"))):
            yield Text(f"page {link}", client.get(link).content.decode(), "vault")
    yield Text("workers", client.get(f"{base}/worker/").content.decode(), "Workers")
    for action in ("refresh", "evict"):
        form = {"action": action, "_selected_action": ["vault://text"], "index": "0"}
        url = f"{base}/cachedsecret/"
        yield Text(f"{action}, question", client.post(url, form).content.decode(), "vault://text")
        answer = client.post(url, {**form, "confirmed": "yes"}, follow=True)
        yield Text(f"{action}, done", answer.content.decode(), "vault")
    entries = [f"{one} {one.object_repr} {one.change_message}" for one in LogEntry.objects.all()]
    yield Text("log entries", "\n".join(entries), "vault://text")


def re_links(page: str, prefix: str) -> list[str]:
    return [link for link in re.findall(r'href="([^"?#]+)"', page) if link.startswith(prefix)]


@path("commands")
def commands() -> Iterator[Text]:
    hold_everything()
    for kind in ("table", "json"):
        form = ("--format", kind)
        yield Text(f"list, {kind}", command("secret_cache", "list", *form), "vault://text")
        yield Text(f"warm, {kind}", command("warm_secrets", *form), "vault://text")
        yield Text(
            f"failures, {kind}",
            command("warm_secrets", "vault://broken", "vault://nothing", *form),
            "vault://broken",
        )
    for word in ("refresh", "evict"):
        yield Text(word, command("secret_cache", word, "vault://text"), "vault://text")
    yield Text("evict all", command("secret_cache", "evict", "--all"), "evicted")


@path("metrics")
def metrics() -> Iterator[Text]:
    import prometheus_client

    hold_everything()
    Client().get("/used/")
    Client(raise_request_exception=False).get("/ours/map/")
    yield Text("scrape", prometheus_client.generate_latest().decode(), 'provider="vault"')
    with contextlib.suppress(ImportError):  # not for each Django
        from django_prometheus.exports import ExportToDjangoView

        page = ExportToDjangoView(None).content.decode()
        yield Text("django-prometheus", page, "django_http_requests_total")


@path("bus")
def bus() -> Iterator[Text]:
    fleet = {"BACKEND": "django_secret_registry.fleet.cache.CacheBus"}
    with override_settings(SECRET_REGISTRY={**settings.SECRET_REGISTRY, "FLEET": fleet}):
        registry.start()
        worker: Any = registry.fleet
        try:
            hold_everything()
            registry.evict("vault://rotating", fleet=True)
            Vault.rotate()
            registry.refresh("vault://rotating", fleet=True)
            reported(worker)
            shared: Any = caches["default"]
            yield Text("traffic", "\n".join(shared.texts()), "rotating")
            yield Text("workers", repr(worker.workers()), "vault")
        finally:
            worker.stop()


def reported(worker: Any) -> None:
    """Wait until the worker has told the bus all that it holds; an event has it tell that soon."""
    held = {one.reference for one in registry.snapshot().secrets if one.age is not None}
    deadline = time.monotonic() + 120
    while not any(held <= set(one.secrets) for one in worker.workers()):
        assert time.monotonic() < deadline, "no worker tells what it holds"
        worker.tell("warm").wait(1)


@path("log of this package")
def log() -> Iterator[Text]:
    """Everything that the cache and its providers do, and everything that goes wrong in it."""
    hold_everything()
    registry.refresh("vault://text")
    Vault.rotate()
    registry.refresh("vault://rotating")
    registry.evict(provider="vault")
    for read in OURS.values():
        with contextlib.suppress(Exception):
            read()
    for wrong in ("vault://absent", "vault://broken", "nothing://x", "vault://text?region=eu"):
        with contextlib.suppress(SecretError):
            registry.get(wrong)

    def listener(event: Any) -> None:
        raise ValueError(TEXT)

    end = registry.events.subscribe(listener)
    registry.evict("vault://text")
    end()
    ours = [text for text in sinks.logged() if text.startswith("django_secret_registry")]
    yield Text("records", "\n".join(ours), "listener")


# -- Python --------------------------------------------------------------------------------------


def shown(make: Callable[[], object]) -> str:
    """Return what ``make`` gives, or all that its error shows."""
    try:
        return f"{make()}"
    except Exception as error:
        lines = traceback.format_exception(error)
        return "".join(lines) + repr(error) + repr(error.args)


def values() -> dict[str, Any]:
    return {
        "text": settings.TEXT,
        "binary": settings.BINARY,
        "document": settings.DOCUMENT,
        "key": registry.get("vault://document#/login/password"),
        "fetched": registry.fetch("vault://url"),
        "box": settings.BOX,
        "marker": settings.BOX.copy(),
        "pair": registry.get("login"),
    }


@path("repr")
def representations() -> Iterator[Text]:
    for name, value in values().items():
        yield Text(f"repr of {name}", f"{value!r} {[value]} {value=}", "value=")
        yield Text(f"pprint of {name}", pprint.pformat([value, {"in": value}], width=20), "in")
        yield Text(f"% of {name}", "%r %a" % (value, [value]), "")  # noqa: UP031
    yield Text("bytes as text", f"{settings.BINARY}", "SecretBytes")


@path("copy")
def copies() -> Iterator[Text]:
    for name, value in values().items():
        both = [copy.copy(value), copy.deepcopy(value), copy.deepcopy({"in": [value]})]
        yield Text(f"copies of {name}", repr(both), "in")


@path("pickle")
def pickles() -> Iterator[Text]:
    for name, value in values().items():
        if name == "pair":
            continue  # a plain dict of two secrets: refused as they are
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            text = shown(lambda v=value, p=protocol: pickle.dumps(v, p).decode("latin-1"))
            yield Text(f"pickle of {name}", text, "")
    for name in ("text", "binary", "document", "fetched", "pair"):
        yield Text(f"refusal of {name}", shown(lambda n=name: pickle.dumps(values()[n])), "pickled")


@path("json errors")
def json_errors() -> Iterator[Text]:
    held = {**values(), "object": object()}
    held.pop("text"), held.pop("document"), held.pop("key"), held.pop("pair")
    for name, value in held.items():
        if name not in ("box", "marker"):
            yield Text(f"no JSON of {name}", shown(lambda v=value: json.dumps({"k": v})), "Error")
            text = shown(lambda v=value: json.dumps([v], default=repr))
            yield Text(f"JSON of {name} by repr", text, "[")
            text = shown(lambda v=value: json.dumps([v], default=str))
            yield Text(f"JSON of {name} by str", text, "[")
    mixed = {"first": settings.TEXT, "second": object()}
    yield Text("an error beside a secret", shown(lambda: json.dumps(mixed)), "not JSON")


@path("exceptions")
def exceptions() -> Iterator[Text]:
    for name in KEPT:
        yield Text(f"error of {name}", shown(OURS[name]), "File")
        try:
            OURS[name]()
        except Exception as error:
            error.add_note("a note of the project's")
            text = "".join(map(with_locals, chain_of(error)))
            yield Text(f"chain and locals of {name}", text, "a note")


def chain_of(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and all that it leads to."""
    if error is not None:
        yield error
        yield from chain_of(error.__cause__)
        yield from chain_of(error.__context__)


def with_locals(error: BaseException) -> str:
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    return "".join(told.format()) + repr(vars(error))


@path("faulthandler")
def faults() -> Iterator[Text]:
    held = [settings.TEXT, settings.BINARY]
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file)
        file.seek(0)
        yield Text("dump", file.read(), "paths.py")
    del held


@path("celery")
def celery() -> Iterator[Text]:
    """References are handed to tasks; what these return and how they fail shows no value."""
    from tests.leaks.celery_app import Traffic, fail, run, use

    traffic = Traffic()
    with traffic.recorded():
        yield Text("result", run(use, "vault://text")[1], "characters")
        for name in KEPT:
            yield Text(f"failure of {name}", run(fail, name)[1], "Traceback")
    yield Text("traffic", "\n".join(traffic.texts), "vault://text")
    yield Text("events", "\n".join(traffic.texts), "task-failed")
    yield Text("log", "\n".join(sinks.logged()), "Task fail[")
