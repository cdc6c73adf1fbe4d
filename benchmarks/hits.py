"""What a cached read costs, beside its peers and a function written by hand."""

from __future__ import annotations

import json
import os
import time
from typing import Any

import boto3
from django.conf import settings
from django.template import Context, Template

from django_secret_registry import registry

from . import timing
from .upstream import Upstream, stored

REF = "aws://prod/db#password"


class _Entry:
    __slots__ = ("expires", "hits", "value")

    def __init__(self, value: str, expires: float) -> None:
        self.value = value
        self.expires = expires
        self.hits = 0


def by_hand() -> Any:
    """Return the function that the bar is set by: a dict, a clock, a TTL and a count."""
    cache = {REF: _Entry("value", time.monotonic() + 3600)}
    clock = time.monotonic

    def get(key: str) -> str:
        entry = cache[key]
        if clock() < entry.expires:
            entry.hits += 1
            return entry.value
        raise KeyError(key)

    return get


def _peers(server: Upstream) -> dict[str, timing.Loop]:
    """Return reads of the same key through the packages that cache with a TTL, all warm."""
    import cachetools
    from aws_lambda_powertools.utilities import parameters
    from aws_lambda_powertools.utilities.parameters.constants import DEFAULT_PROVIDERS
    from aws_secretsmanager_caching import SecretCache
    from pydantic_settings import BaseSettings

    client = boto3.client(
        "secretsmanager",
        region_name="eu-central-1",
        endpoint_url=server.url,
        aws_access_key_id="none",
        aws_secret_access_key="none",  # noqa: S106 - the endpoint asks for none
    )
    # As its documentation has it: the function, and the age by the variable.
    DEFAULT_PROVIDERS["secrets"] = parameters.SecretsProvider(boto3_client=client)
    os.environ["POWERTOOLS_PARAMETERS_MAX_AGE"] = "3600"
    aws_cache = SecretCache(client=client)
    ttl_cache = cachetools.TTLCache(1000, 3600)
    ttl_cache[REF] = "value"

    class Settings(BaseSettings):
        key: str = "value"

    pydantic = Settings()
    lock = __import__("threading").Lock()

    @cachetools.cached(ttl_cache, key=lambda ref: ref, lock=lock)
    def cached(ref: str) -> str:
        return "value"

    answers = parameters.get_secret("prod/db"), aws_cache.get_secret_string("prod/db")
    if set(answers) != {stored("prod/db")}:  # they would be fast at reading nothing
        raise RuntimeError("a peer does not read what is stored")
    return {
        "cachetools TTLCache under a lock": timing.loop("get(ref)", get=cached, ref=REF),
        "Powertools parameters": timing.loop(
            "get('prod/db', transform='json')['password']", get=parameters.get_secret
        ),
        "AWS caching client": timing.loop(
            "loads(get('prod/db'))['password']", get=aws_cache.get_secret_string, loads=json.loads
        ),
        "pydantic-settings (no cache, no TTL)": timing.loop("s.key", s=pydantic),
    }


def run(server: Upstream) -> dict[str, Any]:
    """Measure cached reads; return nanoseconds and ratios."""
    registry.get(REF)
    registry.get("maps_key")
    hand = by_hand()
    plain = {REF: "value"}
    loops = {
        "by hand": timing.loop("get(ref)", get=hand, ref=REF),
        "registry.get": timing.loop("registry.get(ref)", registry=registry, ref=REF),
        "plain dict": timing.loop("d[ref]", d=plain, ref=REF),
        **_peers(server),
    }
    cost = timing.compare(loops)
    lazy = timing.compare(
        {
            "settings.PLAIN_KEY": timing.loop("settings.PLAIN_KEY", settings=settings),
            "settings.LIVE_KEY": timing.loop("settings.LIVE_KEY", settings=settings),
        }
    )
    tag = Template("{% load secret_registry %}{% secret 'maps_key' %}")
    variable = Template("{{ x }}")
    context = Context({"x": "value"})
    render = timing.compare(
        {
            "{{ x }}": timing.loop("t.render(c)", t=variable, c=context),
            "{% secret %}": timing.loop("t.render(c)", t=tag, c=context),
        }
    )
    return {
        "nanoseconds": {name: took * 1e9 for name, took in {**cost, **lazy, **render}.items()},
        "get over by hand": cost["registry.get"] / cost["by hand"],
        "get over a plain dict": cost["registry.get"] / cost["plain dict"],
        "by hand over a plain dict": cost["by hand"] / cost["plain dict"],
        "live setting over plain": lazy["settings.LIVE_KEY"] / lazy["settings.PLAIN_KEY"],
        "tag over variable": render["{% secret %}"] / render["{{ x }}"],
        "Powertools over get": cost["Powertools parameters"] / cost["registry.get"],
        "AWS caching client over get": cost["AWS caching client"] / cost["registry.get"],
        "8 threads keep (get)": timing.kept(loops["registry.get"]),
        "8 threads keep (by hand)": timing.kept(loops["by hand"]),
    }
