"""Azure: secrets from Key Vault, access tokens from Entra ID."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from ..exceptions import InvalidProvider, InvalidReference, ProviderError, SecretNotFound
from ..references import SecretRef
from ..values import MAX_VALUE_SIZE, SecretValue
from ._azure import DEFAULT_RETRIES, AzureProvider
from ._azure_transport import Redirected
from .base import Problem

#: Where the vaults of Azure's public cloud are found.
DNS_SUFFIX = "vault.azure.net"

_IDENTIFIER = re.compile(
    r"https://(?P<host>[^/]+)/secrets/(?P<name>[^/]+)(?:/(?P<version>[^/]+))?\Z"
)
_NAME = re.compile(r"[0-9a-z-]{1,127}\Z")
_VAULT = re.compile(r"[a-z][a-z0-9-]{1,22}[a-z0-9]\Z")
_VERSION = re.compile(r"[0-9a-f]{32}\Z")
_HOST = r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?"
_SUFFIX = re.compile(_HOST + r"\Z")
_URL = re.compile(rf"https://{_HOST}/?\Z")
_SCOPE = re.compile(
    r"(?:[a-z][a-z0-9+-]*://)?[A-Za-z0-9][A-Za-z0-9._-]*(?::[0-9]+)?(?:/[A-Za-z0-9_][A-Za-z0-9._-]*)*"
    r"//?\.default\Z"
)


class KeyVaultProvider(AzureProvider):
    """Fetches from Azure Key Vault.

    Options besides those of :class:`~._azure.AzureProvider`: ``vault``, the default vault: its name
    or, for a host of its own, its ``https`` URL; or a dict from region to either, where each region
    has its vault. ``dns_suffix``: that of other clouds (``"vault.usgovcloudapi.net"``). ``client``:
    keyword arguments of ``SecretClient``, over ``DEFAULT_RETRIES``.

    * name: the secret's name, or its identifier ``https://VAULT.SUFFIX/secrets/NAME[/VERSION]``.
      Key Vault ignores the case of all of these; here and in ``ALLOW`` they are in lower case;
    * project: the name of a vault;
    * region: the one of the vault in ``vault`` that is asked, where that is a dict; a mere label
      where it is not;
    * version: a version's id; stage: ``current`` (the newest version) and ``previous`` (the newest
      enabled one before it). Key Vault has no stages of its own.

    A disabled secret is ``SecretNotFound``: no permission would help, and whoever disabled it meant
    that it is used no more. The dates "activation" and "expiration" are not looked at: Key Vault
    serves a value outside of them too, and a forgotten date must not take a project down.

    Needs ``secrets/get``, and ``secrets/list`` for ``previous``: the role *Key Vault Secrets User*.
    """

    accepts = frozenset({"project", "version", "stage"})

    def __init__(
        self,
        *,
        alias: str,
        region: str,
        vault: str | Mapping[str, str] = "",
        dns_suffix: str = DNS_SUFFIX,
        credential: Mapping[str, Any] | None = None,
        client: Mapping[str, Any] | None = None,
        transport: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(alias=alias, region=region, credential=credential, transport=transport)
        own = vault.get(region, "") if isinstance(vault, Mapping) else vault
        if isinstance(vault, Mapping) and not own:
            raise InvalidProvider(
                "there is no vault for the region",
                provider=alias,
                region=region,
                hint=f"OPTIONS has vaults for: {', '.join(sorted(vault))}.",
            )
        self._vault, self._suffix = own, dns_suffix
        self._spelling = {"vault": vault, "dns_suffix": dns_suffix}
        # No answer's body into the log, whatever OPTIONS say.
        self._client_options = {**DEFAULT_RETRIES, **(client or {}), "logging_enable": False}
        self._credential = self.make_credential()
        self._clients: dict[str, Any] = {}

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> list[Problem]:
        problems = super().check(options)
        vault = options.get("vault", "")
        for one in vault.values() if isinstance(vault, Mapping) else [vault] if vault else []:
            if not isinstance(one, str) or not (_VAULT.match(one.lower()) or _URL.match(one)):
                hint = 'Write "vault": "acme-prod", or its URL: "https://...", without a path.'
                problems.append(Problem("option 'vault' is neither a name nor a URL", hint))
        suffix = options.get("dns_suffix", DNS_SUFFIX)
        if not isinstance(suffix, str) or not _SUFFIX.match(suffix):
            hint = f'Write "dns_suffix": "{DNS_SUFFIX}".'
            problems.append(Problem("option 'dns_suffix' is no name of a domain", hint))
        return problems

    @classmethod
    def canonical(cls, ref: SecretRef, options: Mapping[str, Any]) -> SecretRef:
        suffix = options.get("dns_suffix", DNS_SUFFIX)
        ref = ref.replace(project=ref.project.lower(), version=ref.version.lower())
        full = _IDENTIFIER.match(ref.name)
        if full:
            host = full["host"].lower()
            vault = host.removesuffix(f".{suffix.lower()}")
            if vault == host:
                raise _invalid(ref, "the identifier is not that of a secret in a known domain")
            ref = cls._take_locator(ref.replace(name=full["name"]), "project", vault)
            if full["version"]:
                ref = cls._take_locator(ref, "version", full["version"].lower())
        ref = ref.replace(name=ref.name.lower())
        if not _NAME.match(ref.name):
            raise _invalid(ref, "the name is neither that of a secret nor its identifier")
        if ref.project and not _VAULT.match(ref.project):
            raise _invalid(ref, "the project is not the name of a vault")
        if ref.stage not in ("", "current", "previous") or (ref.stage and ref.version):
            raise InvalidReference(
                "Key Vault has no such stage, or the reference names a version too",
                reference=str(ref),
                provider=ref.scheme,
                hint="Write stage=current or stage=previous, or version=... with an id.",
            )
        return cls._placed(super().canonical(ref, options), options.get("vault", ""), suffix)

    @classmethod
    def _placed(cls, ref: SecretRef, vault: str | Mapping[str, str], suffix: str) -> SecretRef:
        """Return ``ref`` with the region of its vault, and without the vault that is its own."""
        if not isinstance(vault, Mapping):
            own = _name_of(vault, suffix) if vault else ""
            if not (ref.project or vault):
                raise _invalid(ref, "the reference names no vault, and the alias has none")
            if ref.project and vault and not own:
                # It might be the name of that very vault, past the policies for its secrets.
                raise _invalid(
                    ref, "the alias has a host of its own, beside which no vault is asked"
                )
            return ref.replace(project="") if ref.project == own else ref
        if not ref.project:
            return ref
        regions = [where for where, one in vault.items() if _name_of(one, suffix) == ref.project]
        if not regions:
            raise _invalid(ref, "the vault is none of those that the alias names")
        if ref.region not in regions:
            ref = cls._take_locator(ref, "region", regions[0])
        return ref.replace(project="")

    def fetch(self, ref: SecretRef, *, timeout: float) -> SecretValue:
        deadline = time.monotonic() + timeout
        ref = self.canonical(ref, self._spelling)
        client = self._client(ref.project)
        version = ref.version
        if version and not _VERSION.match(version):
            text = "there is no such version: its id has 32 hexadecimal digits"
            raise self.error(SecretNotFound, text, ref)
        if ref.stage == "previous":
            version = self.ask(ref, timeout, "list", lambda: _before_current(client, ref.name))
            if not version:
                raise self.error(SecretNotFound, "the secret has no enabled previous version", ref)
        left = deadline - time.monotonic()
        answer = self.ask(ref, left, "get", lambda: client.get_secret(ref.name, version or None))
        value = answer.value
        if not isinstance(value, str):
            raise self.error(ProviderError, "the answer of Key Vault holds no value", ref)
        if len(value) > MAX_VALUE_SIZE:
            raise self.error(ProviderError, "the answer of Key Vault is larger than 1 MiB", ref)
        return SecretValue(value, version=answer.properties.version or None)

    def _client(self, vault: str) -> Any:
        """Return the client of a vault, made once (or twice by two threads, of which one wins)."""
        from azure.keyvault.secrets import SecretClient

        url = _url(vault or self._vault, self._suffix)
        if url not in self._clients:
            options = self._client_options | {"raw_request_hook": partial(_stay, url)}
            made = SecretClient(url, self._credential, transport=self._transport, **options)
            self._clients.setdefault(url, made)
        return self._clients[url]


class AccessTokenProvider(AzureProvider):
    """Fetches access tokens from Entra ID, for any scope, under the identity of this process.

    Options: those of :class:`~._azure.AzureProvider`.

    * name: the scope, which ends in ``/.default``: ``https://vault.azure.net/.default``, or without
      its ``https://``; ``api://…/.default``; ``<application id>/.default``;
    * region: a mere label; project, version and stage: none.

    ``expires_at`` is the token's. Each fetch asks for a new token, by a credential of its own: what
    the cache of secrets has let go lives on in no cache of the SDK. (The metadata service of a
    managed identity has a cache too, and gives the same token until shortly before its end.)
    """

    @classmethod
    def canonical(cls, ref: SecretRef, options: Mapping[str, Any]) -> SecretRef:
        ref = super().canonical(ref, options)
        if len(ref.name) > 500 or not _SCOPE.match(ref.name):
            raise InvalidReference(
                "the name is not a scope that a process can ask for",
                reference=str(ref),
                provider=ref.scheme,
                hint="Write the resource and /.default: vault.azure.net/.default.",
            )
        if "://" not in ref.name and "." in ref.name.partition("/")[0]:
            return ref.replace(name=f"https://{ref.name}")
        return ref

    def fetch(self, ref: SecretRef, *, timeout: float) -> SecretValue:
        scope = self.canonical(ref, {}).name
        credential = self.make_credential()
        token = self.ask(ref, timeout, "", lambda: credential.get_token(scope))
        if not token.token or not isinstance(token.token, str):
            raise self.error(ProviderError, "the answer of Entra ID holds no token", ref)
        return SecretValue(token.token, expires_at=float(token.expires_on))


def _before_current(client: Any, name: str) -> str:
    """Return the id of the newest enabled version before the newest of all, or ``""``.

    Key Vault lists versions in no order, and notes the whole second in which each was made.
    """
    versions = sorted(
        client.list_properties_of_secret_versions(name), key=lambda v: v.created_on, reverse=True
    )
    return next((str(version.version) for version in versions[1:] if version.enabled), "")


def _stay(url: str, request: Any) -> None:
    """Refuse a request for another host: a list of versions says itself where it goes on."""
    if urlsplit(request.http_request.url)[:2] != urlsplit(url)[:2]:
        raise Redirected


def _url(vault: str, suffix: str) -> str:
    return vault if vault.startswith("https://") else f"https://{vault.lower()}.{suffix}"


def _name_of(vault: str, suffix: str) -> str:
    """Return the name of a vault, also of one that is given by its URL; ``""`` for a host's own."""
    host = _url(vault, suffix).removeprefix("https://").rstrip("/").lower()
    name = host.removesuffix(f".{suffix.lower()}")
    return name if name != host else ""


def _invalid(ref: SecretRef, message: str) -> InvalidReference:
    hint = (
        "A name has letters, digits and -. Name its vault as ?project=..., or in"
        ' "OPTIONS": {"vault": ...}.'
    )
    return InvalidReference(message, reference=str(ref), provider=ref.scheme, hint=hint)
