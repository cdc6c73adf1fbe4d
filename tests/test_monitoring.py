"""The dashboard and the alert rules of the docs, against the metrics that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from django_secret_registry import SecretRegistry
from django_secret_registry import metrics as module

prometheus_client = pytest.importorskip("prometheus_client")
yaml = pytest.importorskip("yaml")

MONITORING = Path(__file__).parent.parent / "docs" / "monitoring"
NAME = re.compile(r"\bsecret_registry_[a-z_]+")


@pytest.fixture(scope="module")
def names() -> set[str]:
    """Return the names of all samples that the metrics can give."""
    into = prometheus_client.CollectorRegistry()
    metrics = module.Metrics(SecretRegistry(), into)
    names: set[str] = set()
    for collector in vars(metrics).values():
        if not hasattr(collector, "describe") or isinstance(collector, SecretRegistry):
            continue
        for family in collector.describe():
            suffixes = {
                "counter": ("_total",),
                "gauge": ("",),
                "histogram": ("_bucket", "_count", "_sum"),
            }[family.type]
            names.update(family.name + suffix for suffix in suffixes)
    return names


def _expressions(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("expr", "query") and isinstance(value, str):
                yield value
            yield from _expressions(value)
    elif isinstance(node, list):
        for item in node:
            yield from _expressions(item)


def test_every_metric_of_the_dashboard_exists(names):
    """Each panel and each variable of the Grafana dashboard asks for metrics that are exported."""
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    asked = {name for text in _expressions(dashboard) for name in NAME.findall(text)}
    assert asked
    assert asked <= names
    assert all(panel["targets"][0]["expr"] for panel in dashboard["panels"])


def test_every_metric_of_the_alerts_exists(names):
    """Each alert rule asks for metrics that are exported, and says what to do."""
    rules = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"][0]["rules"]
    asked = {name for rule in rules for name in NAME.findall(rule["expr"])}
    assert asked
    assert asked <= names
    assert all(rule["annotations"]["description"] for rule in rules)


def test_every_metric_is_shown(names):
    """No metric is exported that no panel shows."""
    text = (MONITORING / "dashboard.json").read_text()
    families = {re.sub(r"_(total|bucket|count|sum)$", "", name) for name in names}
    assert {family for family in families if family not in text} == set()
