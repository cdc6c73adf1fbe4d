"""Paths of what SDKs log at DEBUG while this package fetches through them, from real servers."""

from __future__ import annotations

import contextlib
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from django.conf import settings
from django.test import override_settings

from django_secret_registry import SecretError, registry
from tests.leaks import sinks
from tests.leaks.driving import Text, path
from tests.leaks.material import DOCUMENT, NESTED, TEXT
from tests.servers import aws, azure, gcp, gcp_iam, kubernetes, openbao
from tests.servers.aws import ACCOUNT

PROVIDERS = "django_secret_registry.providers"
SERVICE_ACCOUNT = "deploy@acme.iam.gserviceaccount.com"


def backend(name: str, options: Mapping[str, Any], **keys: Any) -> Any:
    alias = {"BACKEND": f"{PROVIDERS}.{name}", "OPTIONS": options, **keys}
    return override_settings(SECRET_REGISTRY={**settings.SECRET_REGISTRY, "PROVIDERS": {
        **settings.SECRET_REGISTRY["PROVIDERS"], "it": alias
    }})  # fmt: skip


def log_of(logger: str, *references: str) -> Text:
    """Read and refresh; return what this logger said of it. All that was logged is looked at."""
    for reference in references:
        registry.get(reference)
        registry.refresh(reference)
        for wrong in (f"{reference}-absent", f"{reference}#nothing"):
            with contextlib.suppress(SecretError):
                registry.get(wrong)
    registry.evict(all=True)
    text = "\n".join(one for one in sinks.logged() if one.startswith(logger))
    return Text(f"log of {logger}", text, logger)


@path("boto3")
def boto3() -> Iterator[Text]:
    with aws.started() as server:
        server.create("it", TEXT)
        server.put_parameter("/it", TEXT)
        for kind, name in (("SecretsManager", "it"), ("ParameterStore", "it"), ("AssumeRole", "")):
            role = f"arn:aws:iam::{ACCOUNT}:role/deploy"
            with backend(f"aws.{kind}Provider", server.options(), REGION="eu-central-1"):
                yield log_of("botocore", f"it://{name or role}")
        with backend("aws.RDSAuthTokenProvider", server.options(), REGION="eu-central-1"):
            yield log_of("botocore", "it://app@db:5432")


@path("google")
def google() -> Iterator[Text]:
    with gcp.started() as server:
        server.backend.put("it", TEXT.encode())
        for transport in ("grpc", "rest"):
            with backend("gcp.SecretManagerProvider", server.options(transport)):
                yield log_of("google", "it://it")
    tokens = gcp_iam.IAMServer()
    with contextlib.ExitStack() as stack:
        stack.callback(tokens.stop)
        tokens.accounts.add(SERVICE_ACCOUNT)
        with backend("gcp.AccessTokenProvider", tokens.options()):
            yield log_of("google", f"it://{SERVICE_ACCOUNT}")


@path("hvac")
def hvac() -> Iterator[Text]:
    with openbao.started() as server:
        server.put("it", value=TEXT, nested={"password": NESTED})
        options = {"url": server.url, "auth": {"method": "token", "token": openbao.ROOT}}
        with backend("vault.VaultProvider", options):
            yield log_of("urllib3", "it://it", "it://it#value")


@path("urllib3")
def urllib3() -> Iterator[Text]:
    with kubernetes.started() as server, tempfile.TemporaryDirectory() as where:
        server.put("it", value=TEXT, document=DOCUMENT)
        with backend("kubernetes.SecretProvider", server.mount(Path(where))):
            yield log_of("urllib3", "it://it#value", "it://it#document")


@path("azure")
def azure_() -> Iterator[Text]:
    with azure.started() as server, vaults_resolve():
        server.put("it", TEXT)
        with backend("azure.KeyVaultProvider", server.options()):
            yield log_of("azure", "it://it")
        with backend("azure.AccessTokenProvider", server.token_options()):
            yield log_of("azure", "it://vault.test/.default")


@contextlib.contextmanager
def vaults_resolve() -> Iterator[None]:
    """Find the vaults by their names."""
    resolve: Callable[..., Any] = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        known = isinstance(host, str) and host.endswith(".vault.test")
        return resolve("127.0.0.1" if known else host, *args, **kwargs)

    socket.getaddrinfo = getaddrinfo  # type: ignore[assignment]
    try:
        yield
    finally:
        socket.getaddrinfo = resolve
