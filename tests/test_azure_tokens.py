"""Access tokens of Entra ID, and the credentials for them: against a server, and a failing one."""

from __future__ import annotations

import datetime as dt
import time
from pathlib import Path
from typing import Any

import pytest

from django_secret_registry.exceptions import (
    AccessDenied,
    InvalidProvider,
    InvalidReference,
    ProviderError,
    ProviderUnavailable,
    SecretNotFound,
)
from django_secret_registry.provider_cache import ProviderSpec
from django_secret_registry.providers.azure import AccessTokenProvider
from django_secret_registry.references import SecretRef
from django_secret_registry.resolver import SecretRegistry
from django_secret_registry.specs import RegistryConfig
from tests.azure_support import (
    ATTEMPTS,
    SCOPE,
    AzureConformance,
    build,
    build_tokens,
    fetch,
    refusal,
)
from tests.canary import canary
from tests.fixtures import azure
from tests.scripted import HandClock
from tests.servers.azure import CLIENT, LIFETIME, TENANT, AzureServer
from tests.servers.https import Answer

pytestmark = pytest.mark.sdk

azure_session, azure_server = azure.azure_session, azure.azure_server


@pytest.fixture
def tokens(azure_server: AzureServer) -> AccessTokenProvider:
    return build_tokens(**azure_server.token_options())


class TestAccessToken(AzureConformance):
    """Entra ID behaves as every provider must."""

    provider_class = AccessTokenProvider
    operation = "token"
    lacks = {
        "binary": "a token is text",
        "version": "a token has no versions",
        "stage": "a token has no stages",
        "regions": "Entra ID is one for the world",
        "denied": "an identity gets a token for any scope, or for none; see the tests below",
    }
    existing, missing = SCOPE, "unknown.test/.default"

    @pytest.fixture(autouse=True)
    def server(self, azure_server: AzureServer) -> None:
        self.azure = azure_server
        self.options = azure_server.token_options()
        self.value = azure_server.token(f"https://{SCOPE}")
        self.credentials = (azure_server.client_secret,)

    def elsewhere(self, port: int) -> dict[str, Any]:
        return self.azure.token_options(authority=f"https://127.0.0.1:{port}")

    def rotate(self) -> str:
        return self.azure.renew_tokens()


# -- credentials --


def test_wrong_client_secret(azure_server: AzureServer) -> None:
    """A client secret that is wrong is denied, with Entra ID's code."""
    provider = build(azure_server, **azure_server.token_options(client_secret=canary("wrong")))
    error = refusal(provider)
    assert type(error) is AccessDenied
    assert "AADSTS7000215" in error.message
    assert (error.__cause__, error.__context__) == (None, None)


@pytest.mark.parametrize("kind", ["client_secret", "workload_identity", "default"])
@pytest.mark.parametrize("operation", ["discovery", "token"])
def test_no_answer_is_no_refusal(
    azure_server: AzureServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    kind: str,
    operation: str,
) -> None:
    """An Entra ID that fails is unavailable, whichever credential asks it."""
    azure_server.answer(Answer(503, b"{}"), operation)
    options = credential_of(azure_server, kind, monkeypatch, tmp_path)
    if kind == "workload_identity":
        azure_server.answer(Answer(503, b"{}"))  # it makes no discovery
    error = refusal(build_tokens(**options), SCOPE)
    assert type(error) is ProviderUnavailable
    assert "HTTP 503" in error.message
    assert (error.__cause__, error.__context__) == (None, None)


@pytest.mark.parametrize(
    "kind", ["client_secret", "certificate", "workload_identity", "managed_identity", "default"]
)
def test_kinds_of_credentials(
    azure_server: AzureServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    """Each kind of credential gets a token."""
    options = credential_of(azure_server, kind, monkeypatch, tmp_path)
    provider = build_tokens(**options)
    assert AccessTokenProvider.check(options) == []
    assert fetch(provider, SCOPE).value == azure_server.token(f"https://{SCOPE}")


def credential_of(
    server: AzureServer, kind: str, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> dict[str, Any]:
    """Return OPTIONS with a credential of this kind, and set up what it takes from around it."""
    options = server.token_options()
    server.identity = kind == "managed_identity"
    server.assertions = {canary("assertion")}
    (folder / "assertion").write_text(canary("assertion"))
    authority = {"authority": server.url, "disable_instance_discovery": True}
    monkeypatch.setenv("AZURE_TENANT_ID", TENANT)
    monkeypatch.setenv("AZURE_CLIENT_ID", CLIENT)
    if kind == "certificate":
        server.certificate = True
        (folder / "certificate.pem").write_bytes(self_signed())
        who = {"tenant_id": TENANT, "client_id": CLIENT}
        options["credential"] = {
            "certificate_path": str(folder / "certificate.pem"),
            **who,
            **authority,
        }
    elif kind == "workload_identity":
        options["credential"] = {"token_file_path": str(folder / "assertion"), **authority}
    elif kind == "managed_identity":
        options["credential"] = {}
    elif kind == "default":
        monkeypatch.setenv("AZURE_CLIENT_SECRET", server.client_secret)
        options["credential"] = authority
    if kind != "default":
        options["credential"]["kind"] = kind
    return options


def self_signed() -> bytes:
    """Return a key as MSAL signs with, and a certificate for it, in PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    now, day = dt.datetime.now(dt.UTC), dt.timedelta(days=1)
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "shop")])
    certificate = x509.CertificateBuilder(name, name, key.public_key(), 1, now - day, now + day)
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    private = key.private_bytes(pem, form, serialization.NoEncryption())
    return private + certificate.sign(key, hashes.SHA256()).public_bytes(pem)


def test_no_credentials(azure_server: AzureServer) -> None:
    """A machine without any identity is denied, and the hint says what to look at."""
    options = {**azure_server.token_options(), "credential": {}}
    error = refusal(build_tokens(**options), SCOPE)
    assert type(error) is AccessDenied
    assert "managed identity" in error.hint
    assert azure_server.calls == {"imds": 1}


def test_no_program_is_started(
    azure_server: AzureServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The default credential asks no command line tool, wherever one is installed."""
    for tool in ("az", "azd", "pwsh"):
        (tmp_path / tool).write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
        (tmp_path / tool).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    options = {**azure_server.token_options(), "credential": {}}
    refusal(build_tokens(**options), SCOPE)
    assert not (tmp_path / "started").exists()


def test_metadata_service_that_fails(azure_server: AzureServer) -> None:
    """A metadata service that does not answer is no denial."""
    azure_server.cut("imds")
    options = {**azure_server.token_options(), "credential": {"kind": "managed_identity"}}
    error = refusal(build_tokens(**options), SCOPE)
    assert type(error) is ProviderUnavailable
    assert azure_server.calls["imds"] == ATTEMPTS


@pytest.mark.parametrize(
    "credential",
    [
        {"kind": "carrier pigeon"},
        {"kind": "client_secret", "tenant_id": TENANT},
        {"kind": "client_secret", "tenant_id": "§", "client_id": "x", "client_secret": canary()},
        {"kind": "certificate", "tenant_id": TENANT, "client_id": "x", "certificate_path": "/none"},
    ],
)
def test_credential_that_cannot_be_made(
    azure_server: AzureServer, credential: dict[str, Any]
) -> None:
    """A credential whose arguments are wrong builds no provider, and none of them is shown."""
    with pytest.raises(InvalidProvider) as caught:
        build(azure_server, credential=credential)
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


# -- tokens --


@pytest.mark.parametrize(
    ("text", "scope"),
    [
        ("vault.azure.net/.default", "https://vault.azure.net/.default"),
        ("https://vault.azure.net/.default", "https://vault.azure.net/.default"),
        ("https://database.windows.net//.default", "https://database.windows.net//.default"),
        ("api://shop/.default", "api://shop/.default"),
        (f"{CLIENT}/.default", f"{CLIENT}/.default"),
        ("api://shop/v2/orders/.default", "api://shop/v2/orders/.default"),
    ],
)
def test_scope(text: str, scope: str) -> None:
    """The name is the scope; the https:// of a host may be left out, and both are one secret."""
    ref = AccessTokenProvider.canonical(SecretRef.parse(f"azure://{text}"), {})
    assert ref.name == scope
    assert SecretRef.parse(str(ref)) == ref
    assert AccessTokenProvider.canonical(ref, {}) == ref


@pytest.mark.parametrize(
    "text",
    [
        "vault.azure.net",
        "User.Read",
        "https://graph.test/User.Read",
        "/.default",
        "a/../b/.default",
    ],
)
def test_bad_scope(text: str) -> None:
    """What a process cannot ask for is refused, with an example."""
    with pytest.raises(InvalidReference) as caught:
        AccessTokenProvider.canonical(SecretRef.parse(f"azure://{text}"), {})
    assert "/.default" in caught.value.hint


def test_token_ends_when_it_does(azure_server: AzureServer, tokens: AccessTokenProvider) -> None:
    """A token expires when Entra ID says so."""
    before = time.time()
    answer = fetch(tokens, SCOPE)
    assert answer.expires_at is not None
    assert before + LIFETIME - 1 <= answer.expires_at <= time.time() + LIFETIME
    assert answer.version is None


def test_no_token_is_kept_by_the_sdk(
    azure_server: AzureServer, tokens: AccessTokenProvider
) -> None:
    """Each fetch asks Entra ID: what the cache of secrets lets go lives on nowhere."""
    old = fetch(tokens, SCOPE).value
    azure_server.renew_tokens()
    assert fetch(tokens, SCOPE).value not in ("", old)
    assert azure_server.calls["token"] == 2


def test_token_through_the_registry(azure_server: AzureServer) -> None:
    """A token is held until shortly before its end, and never beyond."""
    clock, wall = HandClock(), HandClock(time.time())
    registry = SecretRegistry(clock=clock, wall=wall)
    backend = "django_secret_registry.providers.azure.AccessTokenProvider"
    spec = ProviderSpec("entra", backend, options=azure_server.token_options())
    registry.configure(RegistryConfig(providers={"entra": spec}))
    reference = f"entra://{SCOPE}?ttl=86400"
    old = registry.get(reference)
    azure_server.renew_tokens()
    assert registry.get(reference) == old
    assert azure_server.calls["token"] == 1
    for one in (clock, wall):
        one.forward(LIFETIME + 1)
    azure_server.answer(Answer(503, b"{}"), "token")
    with pytest.raises(ProviderUnavailable):
        registry.get(reference)
    registry.close()


def test_unknown_scope(azure_server: AzureServer, tokens: AccessTokenProvider) -> None:
    """A resource that the tenant does not know is not found."""
    error = refusal(tokens, "unknown.test/.default")
    assert type(error) is SecretNotFound
    assert "AADSTS500011" in error.message


def test_application_that_is_not_there(azure_server: AzureServer) -> None:
    """An identity that the tenant does not know is denied."""
    options = azure_server.token_options(client_id=TENANT)
    error = refusal(build_tokens(**options), SCOPE)
    assert type(error) is AccessDenied
    assert "AADSTS700016" in error.message


@pytest.mark.parametrize("token", ["null", "7", '""'])
def test_token_that_is_no_text(
    azure_server: AzureServer, tokens: AccessTokenProvider, token: str
) -> None:
    """It is an answer without a token, not a crash."""
    body = f'{{"access_token": {token}, "expires_in": 3600, "token_type": "Bearer"}}'
    azure_server.answer(Answer(200, body.encode()), "token")
    assert type(refusal(tokens, SCOPE)) in (AccessDenied, ProviderError)


@pytest.mark.parametrize(
    "body", [f'{{"access_token": "{canary()}', f'["{canary()}"]', f'{{"token": "{canary()}"}}', ""]
)
@pytest.mark.parametrize("kind", ["client_secret", "workload_identity", "managed_identity"])
def test_token_answer_that_cannot_be_read(
    azure_server: AzureServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    kind: str,
    body: str,
) -> None:
    """An answer that holds no token ends in an error, and is in no error and no log."""
    options = credential_of(azure_server, kind, monkeypatch, tmp_path)
    azure_server.answer(Answer(200, body.encode()), "token", "imds")
    error = refusal(build_tokens(**options), SCOPE)
    assert type(error) in (AccessDenied, ProviderError)
    assert (error.__cause__, error.__context__) == (None, None)
