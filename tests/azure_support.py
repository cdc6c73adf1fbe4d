"""What the tests of Azure's providers share."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from django_secret_registry.conformance import ProviderConformance
from django_secret_registry.exceptions import SecretError
from django_secret_registry.providers.azure import AccessTokenProvider, KeyVaultProvider
from django_secret_registry.providers.base import BaseProvider
from django_secret_registry.references import SecretRef
from django_secret_registry.values import SecretValue
from tests.canary import canary
from tests.servers.azure import AzureServer
from tests.servers.https import Answer

#: How often one call is tried by default.
ATTEMPTS = 3
#: A scope that the server knows, as a reference names it.
SCOPE = "vault.test/.default"


def build(server: AzureServer, region: str = "", **options: Any) -> KeyVaultProvider:
    return KeyVaultProvider(alias="azure", region=region, **server.options(**options))


def build_tokens(**options: Any) -> AccessTokenProvider:
    return AccessTokenProvider(alias="azure", region="", **options)


def fetch(provider: BaseProvider, text: str = "db", timeout: float = 10) -> SecretValue:
    ref = SecretRef.parse(f"azure://{text}").payload()
    return provider.fetch(ref, timeout=timeout)


def refusal(provider: BaseProvider, text: str = "db", timeout: float = 10) -> SecretError:
    with pytest.raises(SecretError) as caught:
        fetch(provider, text, timeout)
    return caught.value


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class AzureConformance(ProviderConformance):
    """What both providers must do."""

    alias = "azure"
    outages = ("refused", "cut", "page", "throttled", "untrusted")
    #: The operation that is made to fail, and the option that leads elsewhere.
    operation: str

    @contextmanager
    def outage(self, kind: str) -> Iterator[BaseProvider]:
        options = dict(self.options)
        if kind == "refused":
            options |= self.elsewhere(closed_port())
        elif kind == "untrusted":
            options["transport"] = {"use_env_settings": False}
        elif kind == "cut":
            self.azure.cut(self.operation)
        else:
            status = {"page": 502, "throttled": 429}[kind]
            self.azure.answer(Answer(status, canary("page").encode()), self.operation)
        yield self.provider_class(alias=self.alias, region=self.region, **options)
        self.azure.heal()

    @contextmanager
    def hang(self) -> Iterator[BaseProvider]:
        self.azure.hang(self.operation)
        yield self.provider()
        self.azure.heal()

    azure: AzureServer

    def elsewhere(self, port: int) -> dict[str, Any]:
        raise NotImplementedError
