"""Metrics, through a scrape of a real registry of Prometheus."""

from __future__ import annotations

import importlib.util

import pytest

from django_secret_registry import BaseProvider, SecretNotFound, SecretRegistry, SecretValue
from django_secret_registry.events import (
    CacheSkipped,
    Evicted,
    ResidencyChecked,
    TTLDerived,
)
from django_secret_registry.exceptions import ProviderUnavailable
from django_secret_registry.lifecycle import CachePolicy
from django_secret_registry.metrics import MOST_REGIONS, REASONS, Metrics
from django_secret_registry.provider_cache import ProviderSpec
from django_secret_registry.providers.base import Fence
from django_secret_registry.references import SecretRef
from django_secret_registry.specs import EntrySpec, RegistryConfig

from .canary import canary
from .scripted import HandClock, Script, alias, make

prometheus_client = pytest.importorskip("prometheus_client")
from prometheus_client.parser import text_string_to_metric_families  # noqa: E402


class Provider(BaseProvider):
    """Knows every name but ``missing``."""

    def fetch(self, ref: SecretRef, *, timeout: float) -> SecretValue:
        if ref.name == "missing":
            raise self.error(SecretNotFound, "no such secret", ref)
        return SecretValue(canary(ref.name), version="1")


@pytest.fixture
def secrets() -> SecretRegistry:
    registry = SecretRegistry()
    registry.configure(
        RegistryConfig(
            providers={
                "t": ProviderSpec("t", f"{__name__}.Provider", region="eu"),
                "u": ProviderSpec("u", f"{__name__}.Provider"),
            },
            entries={"entry": EntrySpec("entry", ref=SecretRef.parse("t://a"))},
        )
    )
    return registry


@pytest.fixture
def scrape(secrets, settings):
    into = prometheus_client.CollectorRegistry(auto_describe=True)
    metrics = Metrics(secrets, into)
    secrets.events.subscribe(metrics.listen)

    def scrape(name: str, **labels: str) -> float | None:
        text = prometheus_client.generate_latest(into).decode()
        assert canary("") not in text
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == name and sample.labels == labels:
                    return sample.value
        return None

    scrape.metrics, scrape.registry = metrics, into
    return scrape


def test_reads_are_counted_by_their_outcome(secrets, scrape):
    """Hits, fetches and refusals are told apart, and a scrape is up to date at once."""
    for _ in range(5):
        secrets.get("t://a")
    secrets.get("t://missing", None)
    where = {"provider": "t", "region": "eu"}
    assert scrape("secret_registry_resolve_total", **where, status="ok") == 1
    assert scrape("secret_registry_resolve_total", **where, status="hit") == 4
    assert scrape("secret_registry_resolve_total", **where, status="not_found") == 1
    assert scrape("secret_registry_resolve_duration_seconds_count", **where) == 2
    assert scrape("secret_registry_provider_build_total", **where, status="ok") == 1
    assert scrape("secret_registry_provider_build_total", **where, status="cache_hit") == 1
    assert scrape("secret_registry_cached", **where) == 2
    assert scrape("secret_registry_stale_seconds", **where) == 0


def test_no_region_is_a_dash(secrets, scrape):
    """A provider without region is labelled with a dash."""
    secrets.get("u://a")
    labels = {"provider": "u", "region": "-", "status": "ok"}
    assert scrape("secret_registry_resolve_total", **labels) == 1


def test_a_refresh_and_an_eviction_are_counted(secrets, scrape):
    """What an operator does to a secret shows in the counters."""
    secrets.get("t://a")
    secrets.refresh("t://a")
    secrets.evict("t://a")
    where = {"provider": "t", "region": "eu"}
    assert scrape("secret_registry_refresh_total", **where, outcome="ok") == 1
    assert scrape("secret_registry_evict_total", **where, reason="operator") == 1
    assert scrape("secret_registry_cached", **where) == 0


def test_every_event_has_its_metric(scrape):
    """Residency, derived TTLs and values that were not cached are counted from their events."""
    scrape.metrics.listen(ResidencyChecked("t", "eu", "t://a", "strict", "violation_blocked"))
    scrape.metrics.listen(TTLDerived("t", "eu", 240.0))
    scrape.metrics.listen(CacheSkipped("t", "eu", "expiring"))
    scrape.metrics.listen(Evicted("t", "eu", "t://a", "capacity"))
    decided = {"policy": "strict", "decision": "violation_blocked"}
    assert scrape("secret_registry_residency_check_total", **decided) == 1
    assert scrape("secret_registry_dynamic_ttl_seconds_bucket", le="300.0") == 1
    assert scrape("secret_registry_cache_skip_total", reason="expiring") == 1


#: The contract's labels whose values are bounded, by metric; ``where`` stands for both labels.
WHERE = ({"provider": "t", "region": "eu"}, {"provider": "u", "region": "-"})
LABELS = {
    "provider_build_total": [
        {**where, "status": status} for where in WHERE for status in ("cache_hit", "ok", "error")
    ],
    "resolve_total": [
        {**where, "status": status}
        for where in WHERE
        for status in ("hit", "stale", "ok", "not_found", "denied", "unavailable", "error")
    ],
    "resolve_duration_seconds_count": [*WHERE],
    "refresh_total": [
        {**where, "outcome": outcome}
        for where in WHERE
        for outcome in ("ok", "error", "collapsed", "backed_off")
    ],
    "evict_total": [{**where, "reason": reason} for where in WHERE for reason in REASONS],
    "residency_check_total": [
        {"policy": policy, "decision": decision}
        for policy in ("none", "advisory", "strict")
        for decision in (
            "allowed_no_policy",
            "allowed_same_region",
            "allowed_in_allowlist",
            "violation_allowed",
            "violation_blocked",
        )
    ],
    "dynamic_ttl_seconds_count": [{}],
    "cache_skip_total": [{"reason": "expiring"}],
    "cached": [*WHERE],
    "stale_seconds": [*WHERE],
}


@pytest.mark.parametrize("name", LABELS)
def test_every_series_of_configured_providers_exists_from_the_start(secrets, scrape, name):
    """Alerts can rely on a series before its first event: each is there with 0, and no other."""
    secrets.on_start(scrape.metrics.start)
    secrets.start()
    for labels in LABELS[name]:
        assert scrape(f"secret_registry_{name}", **labels) == 0, labels
    found = [
        sample.labels
        for family in scrape.registry.collect()
        for sample in family.samples
        if sample.name == f"secret_registry_{name}"
    ]
    assert len(found) == len(LABELS[name])


def test_regions_of_a_fence_have_series_from_the_start(secrets, scrape):
    """An alias that may be used in several regions has its series in each of them."""
    fenced = ProviderSpec("t", f"{__name__}.Provider", fence=Fence(regions=("eu", "us")))
    secrets.configure(RegistryConfig(providers={"t": fenced}))
    secrets.on_start(scrape.metrics.start)
    secrets.start()
    for region in ("eu", "us"):
        where = {"provider": "t", "region": region}
        assert scrape("secret_registry_resolve_total", **where, status="denied") == 0


def test_a_secret_that_is_idle_is_no_stale_read(settings):
    """A secret that nobody reads is stale after its TTL; stale reads are those of a failing one."""
    clock, script = HandClock(), Script(answers={"idle": canary("idle"), "db": canary("db")})
    secrets = make(alias("t", script), clock=clock, cache=CachePolicy(ttl=60, jitter=0))
    into = prometheus_client.CollectorRegistry()
    secrets.events.subscribe(Metrics(secrets, into).listen)
    where = {"provider": "t", "region": "-"}

    def value(name, **labels):
        return into.get_sample_value(f"secret_registry_{name}", {**where, **labels})

    secrets.get("t://idle")
    clock.forward(600)
    prometheus_client.generate_latest(into)
    assert value("stale_seconds") == 540
    assert not value("resolve_total", status="stale")
    secrets.get("t://db")
    clock.forward(600)
    script.answers["db"] = ProviderUnavailable("down")
    secrets.get("t://db")
    secrets.get("t://db")
    prometheus_client.generate_latest(into)
    assert value("stale_seconds") == 1140
    assert value("resolve_total", status="stale") == 2


def test_a_namespace_is_honoured(secrets, settings):
    """django-prometheus' namespace setting stands before every name."""
    settings.PROMETHEUS_METRIC_NAMESPACE = "shop"
    into = prometheus_client.CollectorRegistry()
    metrics = Metrics(secrets, into)
    metrics.listen(TTLDerived("t", "eu", 61.0))
    assert into.get_sample_value("shop_secret_registry_dynamic_ttl_seconds_count") == 1


def test_regions_from_users_make_no_series_without_end(secrets, scrape):
    """A thousand regions that nobody configured share one series in the end."""
    for number in range(1000):
        secrets.get("u://a", region=f"r{number}")
    scrape("secret_registry_cached", provider="u", region="other")
    assert len(scrape.metrics._seen) <= MOST_REGIONS + 2
    labels = {"provider": "u", "region": "other", "status": "ok"}
    assert scrape("secret_registry_resolve_total", **labels) > 0


def test_a_check_says_once_that_the_extra_is_missing(monkeypatch, settings):
    """Without prometheus-client the package works, and one check tells what is missing."""
    from django.core.checks import run_checks

    find_spec = importlib.util.find_spec

    def without(name: str, package: str | None = None) -> object:
        return None if name == "prometheus_client" else find_spec(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    told = [message for message in run_checks() if message.id == "secret_registry.I002"]
    assert len(told) == 1
    assert "django-secret-registry[prometheus]" in told[0].hint
