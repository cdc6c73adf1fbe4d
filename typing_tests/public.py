"""The type of every name of the package itself: ``django_secret_registry.__all__``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, assert_type

from django.core.exceptions import ImproperlyConfigured

from django_secret_registry import (
    AccessDenied,
    BaseProvider,
    InvalidProvider,
    InvalidReference,
    LazySecret,
    ProviderDoesNotExist,
    ProviderError,
    ProviderUnavailable,
    ResidencyViolation,
    SecretBytes,
    SecretError,
    SecretNotExposed,
    SecretNotFound,
    SecretNotReady,
    SecretRef,
    SecretRegistry,
    SecretStr,
    SecretValue,
    registry,
    secret,
)
from django_secret_registry.events import Event, Rotated
from django_secret_registry.lazy import SecretSetting
from django_secret_registry.lifecycle import SecretInfo
from django_secret_registry.provider_cache import ProviderInfo
from django_secret_registry.resolver import Readiness, Snapshot
from django_secret_registry.warming import WarmResult


def values() -> None:
    assert_type(SecretStr("x"), SecretStr)
    assert_type(SecretBytes(b"x"), SecretBytes)
    text: str = SecretStr("x")
    data: bytes = SecretBytes(b"x")
    value = SecretValue(text, version="1", expires_at=1.0, lease_id="")
    SecretValue(data)
    assert_type(value, SecretValue)
    assert_type(value.value, SecretStr | SecretBytes)
    assert_type(value.version, str | None)
    assert_type(value.expires_at, float | None)
    assert_type(value.fetched_at, float | None)
    SecretValue(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def references() -> None:
    ref = SecretRef.parse("aws://prod/db?ttl=5#password")
    assert_type(ref, SecretRef)
    assert_type((ref.scheme, ref.name, ref.region, ref.key), tuple[str, str, str, str | None])
    assert_type((ref.ttl, ref.as_, ref.trim), tuple[float | None, str, bool])
    assert_type(ref.replace(key=None), SecretRef)
    assert_type(ref.is_entry, bool)


def settings_of_a_project() -> None:
    assert_type(secret("stripe"), SecretSetting)
    text: str = secret("stripe")
    marker = LazySecret(text, default=None)
    assert_type(marker, LazySecret)
    assert_type(marker.map(str.upper), LazySecret)
    assert_type(marker.reference, str)


def reading() -> None:
    # What they return depends on the configuration: a str, bytes, or the dict of a MAP.
    assert_type(registry, SecretRegistry)
    assert_type(registry.get("stripe"), Any)
    assert_type(registry.get(SecretRef.parse("stripe"), None, region="eu-west-1"), Any)
    assert_type(registry.fetch("aws://prod/db"), SecretValue)
    assert_type(registry.get_provider("aws", region="eu-west-1"), BaseProvider)
    assert_type(registry.offline, bool)


async def reading_on_a_loop() -> None:
    assert_type(await registry.aget("stripe", default=None), Any)


def operating() -> None:
    registry.refresh("stripe", fleet=True)
    assert_type(registry.evict("stripe", by="me"), int)
    assert_type(registry.evict(provider="aws", region="eu-west-1"), int)
    assert_type(registry.evict(all=True), int)
    assert_type(registry.warm(["stripe"], max_workers=8), list[WarmResult])
    assert_type(registry.ready(), Readiness)
    assert_type(registry.ready().missing, tuple[str, ...])
    snapshot = registry.snapshot()
    assert_type(snapshot, Snapshot)
    assert_type(snapshot.providers, tuple[ProviderInfo, ...])
    assert_type(snapshot.secrets, tuple[SecretInfo, ...])
    assert_type(registry.references(), dict[str, str])
    registry.start()


def listening() -> None:
    def listen(event: Event) -> None:
        if isinstance(event, Rotated):
            assert_type(event.new_version, str | None)

    unsubscribe = registry.events.subscribe(listen)
    unsubscribe()


def errors() -> None:
    where: Mapping[str, str] = {"reference": "aws://x", "provider": "aws", "region": "r"}
    assert_type(SecretError("what", hint="do", **where), SecretError)
    assert_type(AccessDenied("what"), AccessDenied)
    assert_type(ProviderError("what"), ProviderError)
    assert_type(ProviderUnavailable("what"), ProviderUnavailable)
    assert_type(InvalidReference("what"), InvalidReference)
    assert_type(InvalidProvider("what"), InvalidProvider)
    assert_type(ProviderDoesNotExist("what"), ProviderDoesNotExist)
    assert_type(ResidencyViolation("what"), ResidencyViolation)
    assert_type(SecretNotExposed("what"), SecretNotExposed)
    assert_type(SecretNotFound("what"), SecretNotFound)
    assert_type(SecretNotReady("what"), SecretNotReady)
    improper: ImproperlyConfigured = ProviderDoesNotExist("what")
    transient: SecretError = ProviderUnavailable("what")
    error = transient.copy(region="r")
    assert_type((error.message, error.hint, error.reference), tuple[str, str, str])
    assert_type((error.provider, error.region), tuple[str, str])
    raise error from improper


class OwnProvider(BaseProvider):
    """A provider as ``docs/providers/own.md`` has it."""

    accepts = frozenset({"version"})
    regional = True

    def __init__(self, *, alias: str, region: str, path: str) -> None:
        super().__init__(alias=alias, region=region)
        self.path = path

    def fetch(self, ref: SecretRef, *, timeout: float) -> SecretValue:
        if ref.version:
            raise self.error(SecretNotFound, "no such version", ref, hint="Leave it out.")
        return SecretValue(self.path)

    def again(self) -> Self:
        return self


assert_type(OwnProvider(alias="own", region="", path="x").again(), OwnProvider)
