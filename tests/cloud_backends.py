"""The backends of AWS and Google Cloud as a project sees them, and what was asked of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

from django_secret_registry.provider_cache import ProviderSpec
from tests.canary import canary
from tests.servers.aws import ACCOUNT, AWSServer
from tests.servers.gcp import GCPServer
from tests.servers.gcp_iam import IAMServer

PROVIDERS = "django_secret_registry.providers"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/deploy"
SERVICE_ACCOUNT = "deploy@acme.iam.gserviceaccount.com"


@dataclasses.dataclass(frozen=True)
class Backend:
    """One alias, ``it``, and a name that it has in each of ``regions``.

    ``asked`` counts the requests that reached the server; ``region_of`` tells from a value, or from
    the last request, for which region it was asked.
    """

    spec: ProviderSpec
    name: str
    asked: Callable[[], int]
    region_of: Callable[[Any], str]
    regional: bool = True

    @property
    def ref(self) -> str:
        return f"it://{self.name}"

    def alias(self, **fields: Any) -> ProviderSpec:
        """Return the alias with further keys, such as its region."""
        return self.spec._replace(**fields)


def _spec(backend: str, options: Mapping[str, Any]) -> ProviderSpec:
    return ProviderSpec("it", f"{PROVIDERS}.{backend}", options=options)


def aws_backend(kind: str, server: AWSServer, regions: tuple[str, ...]) -> Backend:
    """Return one of AWS, with a secret in each of ``regions``."""
    names = {"secrets": "eu/patients", "ssm": "eu/patients", "sts": ROLE, "rds": "app@db:5432"}
    classes = {
        "secrets": "SecretsManagerProvider",
        "ssm": "ParameterStoreProvider",
        "sts": "AssumeRoleProvider",
        "rds": "RDSAuthTokenProvider",
    }
    for region in regions:
        if kind == "secrets":
            server.create("eu/patients", canary(region), region=region)
        elif kind == "ssm":
            server.put_parameter("/eu/patients", canary(region), region=region)

    def signed_for(value: Any) -> str:
        if kind == "rds":  # nobody is asked
            return parse_qs(value.partition("?")[2])["X-Amz-Credential"][0].split("/")[2]
        return server.regions[-1]

    return Backend(
        _spec(f"aws.{classes[kind]}", server.options()),
        names[kind],
        server.calls.total,
        signed_for,
    )


def secret_manager(server: GCPServer, regions: tuple[str, ...]) -> Backend:
    """Return Google Secret Manager, with a secret in each of ``regions``."""
    for region in regions:
        server.backend.put("patients", canary(f"at-{region}").encode(), region=region)
    server.backend.put("patients", canary("at-").encode())
    return Backend(
        _spec("gcp.SecretManagerProvider", server.options("rest")),
        "patients",
        lambda: server.backend.calls().total(),
        lambda value: str(value).partition("at-")[2],
        regional=False,
    )


def service_account(server: IAMServer) -> Backend:
    """Return the tokens of a Google service account, from an endpoint that takes a region."""
    server.accounts.add(SERVICE_ACCOUNT)
    endpoint = server.url + "/{region}"
    return Backend(
        _spec("gcp.AccessTokenProvider", server.options(iam_endpoint_override=endpoint)),
        SERVICE_ACCOUNT,
        lambda: server.calls["issue"],
        lambda value: str(server.requests[-1]["region"]),
        regional=False,
    )
