"""Log records for structured logging: structlog's own formatter makes events of them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from django_secret_registry import SecretError, audit, registry
from django_secret_registry.events import Rotated
from django_secret_registry.providers.memory import MemoryStore
from django_secret_registry.rebinding import rebind
from django_secret_registry.resolver import SecretRegistry
from tests.canary import canary
from tests.scripted import Script, alias, make

structlog = pytest.importorskip("structlog", reason="needs structlog: pip install structlog")


class Lines(logging.Handler):
    """Keeps what structlog's formatter makes of each record, as JSON."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(
            structlog.stdlib.ProcessorFormatter(
                foreign_pre_chain=[
                    structlog.stdlib.add_log_level,
                    structlog.stdlib.add_logger_name,
                    structlog.stdlib.ExtraAdder(),
                ],
                processors=[
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    structlog.processors.JSONRenderer(),
                ],
            )
        )
        self.events: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.events.append(json.loads(self.format(record)))


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler = Lines()
    logger = logging.getLogger("django_secret_registry")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_audit(lines):
    """A line of the audit log has its fields in ``audit``."""
    audit.record(user="ada", action="evict", reference="aws://db", outcome="ok")
    (event,) = lines.events
    assert (event["logger"], event["level"]) == ("django_secret_registry.audit", "info")
    fields = event["audit"]
    assert (fields["user"], fields["action"], fields["reference"]) == ("ada", "evict", "aws://db")


def test_a_broken_provider(lines):
    """What went wrong with a provider has its alias and region as fields of their own."""
    script = Script({"s": RuntimeError(canary("in an error"))})
    with pytest.raises(SecretError, match="RuntimeError"):
        make(alias("aws", script, region="eu")).get("aws://s")
    (event,) = lines.events
    assert event["secret_registry"] == {"provider": "aws", "region": "eu"}
    assert event["level"] == "error"
    assert event["event"].startswith("Provider 'aws': ")
    assert canary("") not in json.dumps(lines.events)


def test_residency(lines, settings):
    """A read outside of its region names reference, provider and region."""
    settings.SECRET_REGISTRY = {
        "REGION": "here",
        "PROVIDERS": {
            "memory": {
                "BACKEND": "django_secret_registry.providers.memory.MemoryProvider",
                "OPTIONS": {"secrets": MemoryStore({"x": canary()})},
            }
        },
        "SECRETS": {"x": {"REF": "memory://x", "REGION": "far", "RESIDENCY": "advisory"}},
    }
    registry.get("x")
    (event,) = lines.events
    assert event["secret_registry"] == {
        "reference": "memory://x?region=far",
        "provider": "memory",
        "region": "far",
    }


def test_warm_up(lines, monkeypatch):
    """What a warm-up could not fetch has its outcome besides."""
    monkeypatch.setattr("django_secret_registry.resolver.WARM_UP_SPREAD", 0.0)
    cold: SecretRegistry = make(alias("aws", Script(), region="eu"), warm_up=True)
    cold.set_discovery(lambda: {"settings.KEY": "aws://none"})
    cold._warm_up()
    (event,) = lines.events
    assert event["secret_registry"] == {
        "reference": "aws://none",
        "provider": "aws",
        "region": "eu",
        "outcome": "not_found",
    }


def test_rebinding(lines, settings):
    """What is rebound after a rotation names the secret that rotated."""
    called = []
    settings.SECRET_REGISTRY = {
        **settings.SECRET_REGISTRY,
        "REBIND": [lambda **kwargs: called.append(kwargs)],
    }
    rebind(Rotated("aws", "eu", "aws://db", "1", "2"))
    assert len(called) == 1
    (event,) = lines.events
    assert event["secret_registry"] == {"reference": "aws://db", "provider": "aws", "region": "eu"}


def test_a_factory_of_records_of_the_project(lines, settings):
    """A project whose records have a region and a provider of their own is not disturbed."""
    factory = logging.getLogRecordFactory()

    def with_more(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = factory(*args, **kwargs)
        record.region = record.provider = record.reference = "of the project"
        return record

    logging.setLogRecordFactory(with_more)
    try:
        with pytest.raises(SecretError, match="RuntimeError"):
            make(alias("aws", Script({"s": RuntimeError()}), region="eu")).get("aws://s")
    finally:
        logging.setLogRecordFactory(factory)
    (event,) = lines.events
    assert event["secret_registry"]["region"] == "eu"
    assert event["region"] == "of the project"
