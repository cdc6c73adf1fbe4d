"""Azure over HTTPS: the vaults of Key Vault, Entra ID's token endpoint, and the metadata service.

One port serves them all: ``NAME.vault.test`` is a vault, 127.0.0.1 the rest.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.canary import canary
from tests.servers.https import Answer, HTTPSServer, Request
from tests.servers.libraries import lacking

TENANT = "11111111-2222-3333-4444-555555555555"
CLIENT = "99999999-8888-7777-6666-555555555555"
VAULT = "kv-one"
#: The resource of all vaults here, and its scope.
RESOURCE = "https://vault.test"
#: Seconds for which a token is good.
LIFETIME = 3600

#: Nobody waits here for a service to recover. Seconds.
_SOON = {"retry_backoff_factor": 0.01}
_NOT_FOUND = (
    "A secret with (name/id) {} was not found in this key vault. If you recently deleted this"
    " secret you may be able to recover it using the correct recovery command."
)


class AzureServer(HTTPSServer):
    """Counts ``challenge``, ``get``, ``list``, ``token``, ``discovery`` and ``imds``."""

    def reset(self) -> None:
        """Forget secrets, tokens, faults and counts."""
        super().reset()
        self._ids = (f"{number:032x}" for number in itertools.count(1))
        self._secrets: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self._denied: dict[str, str] = {}
        self._tokens: set[str] = set()
        self._generation = 1
        self.scopes = {f"{RESOURCE}/.default", "https://graph.test/.default", "api://shop/.default"}
        self.assertions: set[str] = set()
        self.client_secret = canary("client-secret")
        #: Whether an assertion is accepted that was signed (its signature is not looked at).
        self.certificate = False
        #: The identity that the metadata service has, if it has one.
        self.identity = False

    # -- what a test says --

    @property
    def suffix(self) -> str:
        return f"vault.test:{self.port}"

    def options(self, **options: Any) -> dict[str, Any]:
        """Return OPTIONS of a provider of secrets that lead here."""
        return {
            "vault": VAULT,
            "dns_suffix": self.suffix,
            "client": {"verify_challenge_resource": False, **_SOON},
            **self.token_options(),
            **options,
        }

    def token_options(self, **credential: Any) -> dict[str, Any]:
        """Return OPTIONS of a provider of tokens that lead here."""
        return {
            "transport": {"connection_verify": str(self.ca_file), "use_env_settings": False},
            "credential": {
                "kind": "client_secret",
                "tenant_id": TENANT,
                "client_id": CLIENT,
                "client_secret": self.client_secret,
                "authority": self.url,
                "disable_instance_discovery": True,
                **_SOON,
                **credential,
            },
        }

    def put(self, name: str, value: Any, *, vault: str = VAULT, **attributes: Any) -> str:
        """Add a version to a secret; return its id."""
        versions = self._secrets.setdefault((vault, name), [])
        created = 1_700_000_000 + len(versions)
        attributes = {"enabled": True, "created": created, "updated": created, **attributes}
        versions.append({"id": next(self._ids), "value": value, "attributes": attributes})
        return str(versions[-1]["id"])

    def enable(self, name: str, version: str, enabled: bool) -> None:
        """Enable or disable a version."""
        for one in self._secrets[VAULT, name]:
            if one["id"] == version:
                one["attributes"]["enabled"] = enabled

    def delete(self, name: str, *, vault: str = VAULT) -> None:
        """Delete a secret; it may be recovered, says the text of the answer from then on."""
        del self._secrets[vault, name]

    def deny(self, name: str, reason: str = "ForbiddenByRbac") -> None:
        """Refuse a secret, as Key Vault does for this reason."""
        self._denied[name] = reason

    def renew_tokens(self) -> str:
        """Give new tokens from now on, and accept no older one; return that of the vaults."""
        self._generation += 1
        self._tokens.clear()
        return self.token(f"{RESOURCE}/.default")

    def token(self, scope: str) -> str:
        """Return the token that is given for a scope now."""
        return canary(f"token-{sorted(self.scopes).index(scope)}-{self._generation}")

    # -- what it answers --

    def operation(self, request: Request) -> str:
        if request.path[-1] == "token":
            return "imds" if request.path[0] == "metadata" else "token"
        if request.path[-1] == "openid-configuration":
            return "discovery"
        if "authorization" not in request.headers:
            return "challenge"
        return "list" if request.path[-1] == "versions" else "get"

    def respond(self, request: Request) -> Answer:
        answers = {
            "token": self._entra,
            "imds": self._imds,
            "discovery": self._discovery,
            "challenge": self._challenge,
            "get": self._authorized,
            "list": self._authorized,
        }
        return answers[self.operation(request)](request)

    def _discovery(self, request: Request) -> Answer:
        base = f"{self.url}/{request.path[0]}"
        return Answer.json(
            200,
            {
                "token_endpoint": f"{base}/oauth2/v2.0/token",
                "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                "issuer": f"{base}/v2.0",
            },
        )

    def _entra(self, request: Request) -> Answer:
        form = request.form
        known = (
            form.get("client_secret") == self.client_secret
            or form.get("client_assertion") in self.assertions
            or (self.certificate and form.get("client_assertion", "").count(".") == 2)
        )
        if form.get("client_id") != CLIENT:
            return _oauth(400, "unauthorized_client", "AADSTS700016: Application was not found")
        if not known:
            return _oauth(401, "invalid_client", "AADSTS7000215: Invalid client secret provided.")
        # MSAL asks for the scopes of OpenID Connect besides the one that it is asked for.
        scope = form["scope"].split()[0]
        if scope not in self.scopes:
            text = "AADSTS500011: The resource principal was not found in the tenant."
            return _oauth(400, "invalid_resource", text)
        return self._token_answer(scope)

    def _imds(self, request: Request) -> Answer:
        scope = f"{request.query['resource']}/.default"
        if not self.identity:
            return _oauth(400, "invalid_request", "Identity not found")
        return self._token_answer(scope)

    def _token_answer(self, scope: str) -> Answer:
        token = self.token(scope)
        self._tokens.add(token)
        ends = int(time.time()) + LIFETIME
        answer = {"access_token": token, "expires_in": str(LIFETIME), "expires_on": str(ends)}
        return Answer.json(200, {**answer, "token_type": "Bearer", "resource": scope})

    def _challenge(self, request: Request) -> Answer:
        challenge = f'Bearer authorization="{self.url}/{TENANT}", resource="{RESOURCE}"'
        answer = _error(401, "Unauthorized", "AKV10000: Request is missing a Bearer token.")
        return answer._replace(headers={"WWW-Authenticate": challenge})

    def _authorized(self, request: Request) -> Answer:
        if request.headers["authorization"].removeprefix("Bearer ") not in self._tokens:
            return self._challenge(request)
        vault, name = request.host.partition(".")[0], request.path[1]
        if name in self._denied:
            text = "Caller is not authorized to perform action on resource."
            return _error(403, "Forbidden", text, self._denied[name])
        versions = self._secrets.get((vault, name), [])
        base = f"https://{request.headers['host']}/secrets/{name}"
        if self.operation(request) == "list":
            return self._list(request, versions, base)
        wanted = request.path[2] if len(request.path) > 2 else ""
        found = [one for one in versions if wanted in ("", one["id"])]
        if not found:
            return _error(404, "SecretNotFound", _NOT_FOUND.format(name))
        version = found[-1]
        if not version["attributes"]["enabled"]:
            text = "Operation get is not allowed on a disabled secret."
            return _error(403, "Forbidden", text, "SecretDisabled")
        return Answer.json(200, {**version, "id": f"{base}/{version['id']}"})

    def _list(self, request: Request, versions: list[dict[str, Any]], base: str) -> Answer:
        start = int(request.query.get("$skiptoken", 0))
        page = [
            {"id": f"{base}/{one['id']}", "attributes": one["attributes"]}
            for one in sorted(versions, key=lambda one: str(one["id"])[::-1])[start : start + 2]
        ]
        more = f"{base}/versions?api-version=7.6&$skiptoken={start + 2}"
        more = more if start + 2 < len(versions) else ""
        return Answer.json(200, {"value": page, "nextLink": more or None})


def _error(status: int, code: str, message: str, inner: str = "") -> Answer:
    error: dict[str, Any] = {"code": code, "message": message}
    if inner:
        error["innererror"] = {"code": inner}
    return Answer.json(status, {"error": error})


def key_vault_error(status: int, code: str, inner: str = "", **headers: str) -> Answer:
    """Return an error of Key Vault."""
    return _error(status, code, "said Key Vault", inner)._replace(headers=headers)


def _oauth(status: int, error: str, description: str) -> Answer:
    return Answer.json(status, {"error": error, "error_description": description})


def missing() -> str:
    """Return what must be installed before it can run; empty when nothing."""
    return lacking(
        "azure-keyvault-secrets azure-identity cryptography",
        "azure.keyvault.secrets",
        "azure.identity",
        "cryptography",
    )


@contextmanager
def started() -> Iterator[AzureServer]:
    """Run a server until the block ends."""
    server = AzureServer()
    try:
        server.reset()
        yield server
    finally:
        server.stop()
