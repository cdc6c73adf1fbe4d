"""Django's signals of what happens to secrets and providers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from django.dispatch import Signal

from django_secret_registry import AccessDenied, ProviderError, SecretRegistry, registry
from django_secret_registry.signals import provider_built, secret_evicted, secret_rotated
from tests.canary import CANARY, canary
from tests.scripted import Script, until

DB = "aws://db"


@pytest.fixture
def script(settings: Any) -> Script:
    script = Script({"db": canary("db")})
    settings.SECRET_REGISTRY = {
        "PROVIDERS": {
            "aws": {
                "BACKEND": "tests.scripted.ScriptedProvider",
                "REGION": "eu",
                "OPTIONS": {"script": script},
            }
        }
    }
    return script


@contextmanager
def connected(signal: Signal, receiver: Any) -> Iterator[None]:
    signal.connect(receiver)
    try:
        yield
    finally:
        signal.disconnect(receiver)


@pytest.fixture
def told() -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """Return what the signals tell: name and fields."""
    told: list[tuple[str, dict[str, Any]]] = []
    signals = {"rotated": secret_rotated, "evicted": secret_evicted, "built": provider_built}
    with ExitStack() as stack:
        for name, signal in signals.items():

            def listen(sender: Any, signal: Signal, name: str = name, **fields: Any) -> None:
                assert sender is SecretRegistry
                told.append((name, fields))

            stack.enter_context(connected(signal, listen))
        yield told


def test_a_rotation_names_both_versions(script: Script, told: list[Any]) -> None:
    """A new version of a held secret is told with the old and the new one, and no value."""
    registry.get(DB)
    registry.refresh(DB)
    until(lambda: told[-1][0] == "rotated")  # in the thread that fetched
    assert told[-1] == (
        "rotated",
        {
            "provider": "aws",
            "region": "eu",
            "reference": DB,
            "old_version": "1",
            "new_version": "2",
        },
    )
    assert CANARY not in repr(told)


def test_a_receiver_of_a_rotation_reads_the_new_value(script: Script) -> None:
    """When a rotation is told, the new value is what everybody gets."""
    seen: list[bool] = []

    def read(**fields: Any) -> None:
        seen.append(bool(registry.get(DB) == canary("new")))

    registry.get(DB)
    script.answers["db"] = canary("new")
    with connected(secret_rotated, read):
        registry.refresh(DB)
        until(lambda: bool(seen))  # told in the thread that fetched
    assert seen == [True]


def test_an_eviction_names_who_asked(script: Script, told: list[Any]) -> None:
    """An eviction is told with its reason and with whoever asked for it."""
    registry.get(DB)
    registry.evict(DB, by="ada")
    fields = {"provider": "aws", "region": "eu", "reference": DB}
    assert told[-1] == ("evicted", {**fields, "reason": "operator", "by": "ada"})


def test_a_build_is_told_and_its_sharing_is_not(script: Script, told: list[Any]) -> None:
    """A client that is built, or cannot be, is told once each; one that is shared is not."""

    def refuse(provider: Any) -> None:
        raise ProviderError("no")

    for name in ("db", "other"):
        script.answers[name] = canary(name)
        registry.get(f"aws://{name}")
    script.on_build = refuse
    with pytest.raises(ProviderError):
        registry.refresh(provider="aws")
    built = [(fields["status"], fields["region"]) for name, fields in told if name == "built"]
    assert built == [("ok", "eu"), ("error", "eu")]
    assert all(fields["seconds"] >= 0 for name, fields in told if name == "built")


def test_a_receiver_that_fails_disturbs_nobody(
    script: Script, told: list[Any], caplog: Any
) -> None:
    """Its error is logged by type only, since it may hold the value; the others are told."""

    def fail(**fields: Any) -> None:
        raise ValueError(registry.get(DB))

    registry.get(DB)
    with connected(secret_rotated, fail):
        registry.refresh(DB)
        until(lambda: bool(caplog.records))  # told in the thread that fetched
    assert told[-1][0] == "rotated"
    (line,) = caplog.records
    assert line.name == "django_secret_registry.signals"
    assert "fail of Rotated failed with ValueError" in line.getMessage()


def test_a_refresh_that_fails_rotates_nothing(script: Script, told: list[Any]) -> None:
    """Nothing is told of a version that was not fetched."""
    registry.get(DB)
    script.answers["db"] = AccessDenied("no")
    with pytest.raises(AccessDenied):
        registry.refresh(DB)
    assert "rotated" not in [name for name, _ in told]
