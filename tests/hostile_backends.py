"""Every backend that speaks HTTP, built so that one server stands for all that it may talk to."""

from __future__ import annotations

import base64
import datetime as dt
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from django_secret_registry.providers.base import BaseProvider
from django_secret_registry.references import SecretRef
from tests.canary import canary
from tests.servers.https import Answer, HTTPSServer, Request
from tests.servers.libraries import lacking

TENANT = "11111111-2222-3333-4444-555555555555"
PROJECT = "acme"
ACCOUNT = "deploy@acme.iam.gserviceaccount.com"
ROLE = "arn:aws:iam::123456789012:role/deploy"
LATER = dt.datetime(2099, 1, 1, tzinfo=dt.UTC)


def missing() -> str:
    """Return what has to be installed for :data:`CASES`, or ``""``."""
    names = ("boto3", "google.cloud.secretmanager_v1", "azure.identity", "hvac", "cryptography")
    return lacking("the extras aws, gcp, azure and vault, and cryptography", *names)


class Case(NamedTuple):
    """One backend: how it is built for a server, what it is asked, and how its answer looks.

    ``wrap`` makes the answer that holds a value; ``grant`` what it is given to log in with, before
    it asks for the secret.
    """

    build: Callable[[HTTPSServer, Path], BaseProvider]
    name: str
    wrap: Callable[[str], bytes]
    grant: Callable[[Request], Answer | None] = lambda request: None

    @property
    def reference(self) -> SecretRef:
        return SecretRef.parse(f"it://{self.name}")

    def fetch(self, provider: BaseProvider) -> Any:
        return provider.fetch(self.reference, timeout=20)


def _json(make: Callable[[str], Any]) -> Callable[[str], bytes]:
    return lambda value: json.dumps(make(value)).encode()


# -- AWS -------------------------------------------------------------------------------------------


def _aws(kind: str, server: HTTPSServer, folder: Path, **options: Any) -> BaseProvider:
    from django_secret_registry.providers import aws

    keys = {"aws_access_key_id": "test", "aws_secret_access_key": canary("aws-key")}
    return getattr(aws, kind)(  # type: ignore[no-any-return]
        alias="it",
        region="eu-central-1",
        session=keys,
        client={"endpoint_url": server.url, "verify": str(server.ca_file)},
        config={"retries": {"total_max_attempts": 1}},
        **options,
    )


def _web_identity(server: HTTPSServer, folder: Path) -> BaseProvider:
    (folder / "token").write_text(canary("web-identity"))
    file = str(folder / "token")
    return _aws("AssumeRoleProvider", server, folder, web_identity_token_file=file)


def _credentials(action: str) -> Callable[[str], bytes]:
    def wrap(value: str) -> bytes:
        return (
            f"<{action}Response><{action}Result><Credentials><AccessKeyId>id</AccessKeyId>"
            f"<SecretAccessKey>{value}</SecretAccessKey><SessionToken>t</SessionToken>"
            f"<Expiration>{LATER:%Y-%m-%dT%H:%M:%SZ}</Expiration></Credentials>"
            f"</{action}Result></{action}Response>"
        ).encode()

    return wrap


# -- Google ----------------------------------------------------------------------------------------


def _google_user(server: HTTPSServer) -> Any:
    from google.oauth2.credentials import Credentials

    make: Any = Credentials
    return make(
        None,
        refresh_token=canary("refresh"),
        client_id="id",
        client_secret=canary("client"),
        token_uri=f"{server.url}/token",
    )


def _google_token(request: Request) -> Answer | None:
    if request.path != ("token",):
        return None
    return Answer.json(200, {"access_token": canary("access"), "expires_in": 3600})


def _secret_manager(server: HTTPSServer, folder: Path) -> BaseProvider:
    from django_secret_registry.providers.gcp import SecretManagerProvider

    options = {"api_endpoint": f"127.0.0.1:{server.port}"}
    return SecretManagerProvider(
        alias="it",
        region="",
        project=PROJECT,
        transport="rest",
        client={"credentials": _google_user(server), "client_options": options},
    )


def _service_account(server: HTTPSServer, folder: Path) -> BaseProvider:
    from django_secret_registry.providers.gcp import AccessTokenProvider

    return AccessTokenProvider(
        alias="it",
        region="",
        credentials=_google_user(server),
        iam_endpoint_override=server.url,
    )


def _payload(value: str) -> Any:
    data = base64.b64encode(value.encode()).decode()
    return {"name": "projects/1/secrets/db/versions/1", "payload": {"data": data}}


# -- Azure -----------------------------------------------------------------------------------------


def _azure(server: HTTPSServer, folder: Path) -> dict[str, Any]:
    soon = {"retry_total": 0}
    return {
        "alias": "it",
        "region": "",
        "transport": {"connection_verify": str(server.ca_file)},
        "credential": {
            "kind": "client_secret",
            "tenant_id": TENANT,
            "client_id": "id",
            "client_secret": canary("azure-client"),
            "authority": server.url,
            "disable_instance_discovery": True,
            **soon,
        },
    }


def _key_vault(server: HTTPSServer, folder: Path) -> BaseProvider:
    from django_secret_registry.providers.azure import KeyVaultProvider

    client = {"verify_challenge_resource": False, "retry_total": 0}
    return KeyVaultProvider(vault=server.url, client=client, **_azure(server, folder))


def _entra(server: HTTPSServer, folder: Path) -> BaseProvider:
    from django_secret_registry.providers.azure import AccessTokenProvider

    return AccessTokenProvider(**_azure(server, folder))


def _entra_token(request: Request) -> Answer | None:
    base = f"https://127.0.0.1:{request.headers['host'].rpartition(':')[2]}"
    if request.path[-1] == "openid-configuration":
        return Answer.json(
            200,
            {
                "token_endpoint": f"{base}/{TENANT}/oauth2/v2.0/token",
                "authorization_endpoint": f"{base}/{TENANT}/oauth2/v2.0/authorize",
                "issuer": f"{base}/v2.0",
            },
        )
    if request.path[-1] == "token":
        token = {"access_token": canary("entra"), "expires_in": "3600", "token_type": "Bearer"}
        return Answer.json(200, token)
    if "authorization" not in request.headers:
        challenge = f'Bearer authorization="{base}/{TENANT}", resource="https://vault.test"'
        return Answer(401, b"{}", {"WWW-Authenticate": challenge})
    return None


def _discovery(request: Request) -> Answer | None:
    return _entra_token(request) if request.path[-1] == "openid-configuration" else None


# -- Vault, Kubernetes -----------------------------------------------------------------------------


def _vault(server: HTTPSServer, folder: Path) -> BaseProvider:
    from django_secret_registry.providers.vault import VaultProvider

    auth = {"method": "approle", "role_id": canary("role"), "secret_id": canary("secret-id")}
    return VaultProvider(
        alias="it",
        region="",
        url=server.url,
        auth=auth,
        client={"verify": str(server.ca_file)},
    )


def _vault_token(request: Request) -> Answer | None:
    if request.path[-1] == "login":
        auth = {"client_token": canary("vault"), "lease_duration": 3600, "renewable": False}
        return Answer.json(200, {"auth": auth})
    if request.path[:5] == ("v1", "sys", "internal", "ui", "mounts"):
        return Answer.json(
            200, {"data": {"path": "secret/", "type": "kv", "options": {"version": "2"}}}
        )
    return None


def _kubernetes(server: HTTPSServer, folder: Path) -> BaseProvider:
    from django_secret_registry.providers.kubernetes import SecretProvider

    (folder / "token").write_text(canary("service-account"))
    return SecretProvider(
        alias="it",
        region="",
        url=server.url,
        namespace="shop",
        token_file=folder / "token",
        ca_file=server.ca_file,
    )


def _k8s_secret(value: str) -> Any:
    data = {"value": base64.b64encode(value.encode()).decode()}
    return {"kind": "Secret", "metadata": {"resourceVersion": "1"}, "data": data}


def _bearer(value: str) -> Any:
    return {"access_token": value, "expires_in": "3600", "token_type": "Bearer"}


CASES = {
    "aws": Case(
        functools.partial(_aws, "SecretsManagerProvider"),
        "db",
        _json(lambda value: {"SecretString": value, "VersionId": "1"}),
    ),
    "ssm": Case(
        functools.partial(_aws, "ParameterStoreProvider"),
        "db",
        _json(lambda value: {"Parameter": {"Value": value, "Version": 1}}),
    ),
    "sts": Case(
        functools.partial(_aws, "AssumeRoleProvider"),
        ROLE,
        _credentials("AssumeRole"),
    ),
    "sts web identity": Case(_web_identity, ROLE, _credentials("AssumeRoleWithWebIdentity")),
    "gcp": Case(_secret_manager, "db", _json(_payload), _google_token),
    "gcp login": Case(_secret_manager, "db", _json(_bearer)),
    "gcp token": Case(
        _service_account,
        ACCOUNT,
        _json(lambda value: {"accessToken": value, "expireTime": f"{LATER:%Y-%m-%dT%H:%M:%SZ}"}),
        _google_token,
    ),
    "gcp token login": Case(_service_account, ACCOUNT, _json(_bearer)),
    "azure": Case(
        _key_vault,
        "db",
        _json(lambda value: {"value": value, "id": "https://v.vault.test/secrets/db/1"}),
        _entra_token,
    ),
    "azure login": Case(_entra, "vault.test/.default", _json(_bearer), _discovery),
    "azure discovery": Case(_entra, "vault.test/.default", _json(_bearer)),
    "vault": Case(
        _vault, "db", _json(lambda value: {"data": {"data": {"v": value}}}), _vault_token
    ),
    "vault login": Case(
        _vault,
        "db",
        _json(lambda value: {"auth": {"client_token": value, "lease_duration": 3600}}),
    ),
    "kubernetes": Case(_kubernetes, "db", _json(_k8s_secret)),
}
#: Those whose ``wrap`` is the answer that holds the secret itself, not what one logs in with.
SECRETS = [name for name in CASES if "log" not in name and "discovery" not in name]
