"""What Azure backends share: their credentials, and the sorting of errors."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ..exceptions import (
    AccessDenied,
    InvalidProvider,
    ProviderError,
    ProviderUnavailable,
    SecretNotFound,
)
from ..references import SecretRef
from ._azure_transport import UNTRUSTED, OutOfTime, Redirected, Transport, last
from ._deadline import left, within
from ._errors import Sorted
from ._requests import TooLarge
from .base import BaseProvider, Problem

T = TypeVar("T")

#: Three attempts within the time of a call. azure-core's own defaults are ten, up to 120 s apart.
DEFAULT_RETRIES: Mapping[str, Any] = {
    "retry_total": 2,
    "retry_backoff_factor": 0.1,
    "retry_backoff_max": 1,
}
#: The kinds of credentials, and azure-identity's classes for them.
CREDENTIALS = {
    "default": "DefaultAzureCredential",
    "client_secret": "ClientSecretCredential",
    "certificate": "CertificateCredential",
    "managed_identity": "ManagedIdentityCredential",
    "workload_identity": "WorkloadIdentityCredential",
}
#: What DefaultAzureCredential leaves out here unless OPTIONS say otherwise: what starts a program,
#: asks a person, or takes whoever is logged in.
_LEFT_OUT = {
    f"exclude_{name}_credential": True
    for name in (
        "broker",
        "cli",
        "developer_cli",
        "interactive_browser",
        "powershell",
        "shared_token_cache",
        "visual_studio_code",
    )
}

#: The loggers that may repeat the answer of a token endpoint: of one that they cannot read they do.
_TALKATIVE = ("azure.identity.", "msal.")
_NAME_A_CA = 'A CA of your own is named by "OPTIONS": {"transport": {"connection_verify": ...}}.'
#: What our own transport refuses of an answer.
_REFUSED = {
    Redirected: Sorted(
        ProviderError,
        "Azure answers with a redirect, which is not followed",
        "Name the vault, or the authority, itself; or look for a proxy that answers for it.",
    ),
    TooLarge: Sorted(ProviderError, "the answer of Azure is too large"),
}
#: An error's code: Key Vault's, and that of Entra ID in its text.
_CODE = re.compile(r"[A-Za-z]{1,64}\Z")
_AADSTS = re.compile(r"\bAADSTS[0-9]{1,10}\b")
#: Entra ID's codes of a scope that is none, and of a resource that the tenant does not have.
_NO_SCOPE = frozenset({"AADSTS70011", "AADSTS500011"})


class AzureProvider(BaseProvider):
    """A backend that Azure's SDK speaks to. Thread-safe.

    Options: ``credential``, a dict with its ``kind`` (see ``CREDENTIALS``; ``"default"`` when it is
    not given) and the arguments of azure-identity's class; ``transport``, a dict with the arguments
    of azure-core's ``RequestsTransport`` (``connection_verify``: a CA file, over
    ``DEFAULT_TRANSPORT``; proxies are taken from the environment unless ``use_env_settings`` is
    false).

    Credentials that are missing or refused are ``AccessDenied``; those whose source (Entra ID, the
    metadata service) does not answer are ``ProviderUnavailable``.
    """

    requires = ("azure-keyvault-secrets", "azure-identity")

    def __init__(
        self,
        *,
        alias: str,
        region: str,
        credential: Mapping[str, Any] | None = None,
        transport: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(alias=alias, region=region)
        self._credential_options = dict(credential or {})
        self._closed = False
        self._transport = Transport(transport or {})

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> list[Problem]:
        dicts = [name for name in ("credential", "client", "transport") if name in options]
        problems = super().check(options) + [
            Problem(f"option {name!r} is no dict", f'Write "OPTIONS": {{"{name}": {{...}}}}.')
            for name in dicts
            if not isinstance(options[name] or {}, Mapping)
        ]
        credential = options.get("credential") or {}
        if isinstance(credential, Mapping) and credential.get("kind", "default") not in CREDENTIALS:
            allowed = ", ".join(sorted(CREDENTIALS))
            hint = f'Write "credential": {{"kind": ...}} with one of {allowed}.'
            problems.append(Problem("the kind of 'credential' is not known", hint))
        return problems

    def close(self) -> None:
        self._closed = True
        self._transport.close()

    def make_credential(self) -> Any:
        """Return a new credential, without I/O. Raises :class:`InvalidProvider`."""
        import azure.identity

        options = {**DEFAULT_RETRIES, **self._credential_options}
        kind = options.pop("kind", "default")
        if kind == "default":
            options = {**_LEFT_OUT, **options}
        # Either would put tokens and secrets into the log.
        options |= {"logging_enable": False, "enable_support_logging": False}
        reason = f"the kind {kind!r} is not known" if kind not in CREDENTIALS else ""
        if not reason:
            try:
                made = getattr(azure.identity, CREDENTIALS[kind])
                return _quiet(made(transport=self._transport, **options))
            except (OSError, TypeError, ValueError) as exc:
                reason = f"{CREDENTIALS[kind]} does not take its arguments ({type(exc).__name__})"
        # Outside the except block: the text of the error may repeat an argument.
        raise InvalidProvider(
            f"the Azure credential cannot be made: {reason}",
            provider=self.alias,
            region=self.region,
            hint='Write "OPTIONS": {"credential": {"kind": ..., ...}} with the arguments of'
            " azure-identity's class.",
        )

    def ask(self, ref: SecretRef, timeout: float, permission: str, call: Callable[[], T]) -> T:
        """Return what ``call`` returns within ``timeout`` s; any failure is a ``SecretError``."""
        last.trouble = ""
        try:
            with within(timeout):
                return call()
        except Exception as exc:
            result = sort(exc, permission, trouble=last.trouble)
            if self._closed:
                result = Sorted(ProviderUnavailable, "the provider was closed meanwhile")
            cause = exc if result.chain else None
        # Outside the except block: what must not be chained would stay as the context there.
        try:
            raise self.error(result.kind, result.message, ref, hint=result.hint) from cause
        finally:
            del cause  # its traceback holds this frame


def sort(exc: Exception, permission: str, *, trouble: str) -> Sorted:
    """Sort what the SDK raised by what can be done about it.

    ``permission`` is the one that the call needs; ``trouble`` kept its last attempt from an answer.
    """
    from azure.core import exceptions as sdk

    name = type(exc).__name__
    if isinstance(exc, OutOfTime):
        said = trouble or "it asks to come back later"
        return Sorted(ProviderUnavailable, f"Azure did not answer in time ({said})")
    if type(exc) in _REFUSED:
        return _REFUSED[type(exc)]
    if isinstance(exc, sdk.ClientAuthenticationError):
        return _sort_credentials(exc, trouble)
    if isinstance(exc, sdk.ServiceRequestError):
        said, hint = (name, "") if trouble != UNTRUSTED else (trouble, _NAME_A_CA)
        return Sorted(ProviderUnavailable, f"Azure cannot be reached ({said})", hint, chain=True)
    if isinstance(exc, sdk.ServiceResponseError | sdk.IncompleteReadError):
        # Not chained: an error further down may hold what was read so far.
        return Sorted(ProviderUnavailable, f"the connection to Azure broke ({name})")
    if isinstance(exc, sdk.HttpResponseError) and (exc.status_code or 200) != 200:
        return _sort_status(exc, permission)
    if isinstance(exc, ValueError) and "challenge resource" in str(exc):
        return Sorted(
            ProviderError,
            "the vault asks for a token of another domain than its own",
            'Check the host. One of your own needs "OPTIONS": {"client":'
            ' {"verify_challenge_resource": False}}.',
        )
    return Sorted(ProviderError, f"the answer of Azure cannot be read ({name})")


def _sort_credentials(exc: Any, trouble: str) -> Sorted:
    """Sort an error of a credential. Its text is not chained: it may repeat a whole answer."""
    found = _AADSTS.search(str(exc.message))
    said = found[0] if found else type(exc).__name__
    if trouble:
        hint = (
            "Entra ID or the metadata service did not answer. On a machine outside of Azure, name a"
            ' credential: "OPTIONS": {"credential": {"kind": ...}}.'
        )
        return Sorted(
            ProviderUnavailable,
            f"no token of Azure can be had for now ({trouble})",
            _NAME_A_CA if trouble == UNTRUSTED else hint,
        )
    if said in _NO_SCOPE:
        hint = "Check the scope, and that its application is known in the tenant."
        return Sorted(SecretNotFound, f"Entra ID knows no such scope ({said})", hint)
    return Sorted(
        AccessDenied,
        f"there are no valid credentials for Azure ({said})",
        "Check the managed identity, or the application's secret and federation; a token that was"
        " revoked is forgotten when the provider is evicted.",
    )


def _sort_status(exc: Any, permission: str) -> Sorted:
    """Sort an answer of Key Vault that is an error; its text is not repeated."""
    codes = _codes(exc)
    said = "/".join(codes) or f"HTTP {exc.status_code}"
    code, reason = codes[0] if codes else "", codes[-1] if codes else ""
    # Without a code the answer is not Key Vault's, and the error's text is the whole body.
    chain = bool(code)
    if exc.status_code >= 500 or exc.status_code in (408, 429):
        return Sorted(ProviderUnavailable, f"Key Vault cannot answer for now ({said})", chain=chain)
    if reason == "SecretDisabled":
        return Sorted(
            SecretNotFound,
            f"the secret, or its version, is disabled ({said})",
            "Enable it: az keyvault secret set-attributes --enabled true.",
            chain,
        )
    if code == "SecretNotFound":
        return Sorted(
            SecretNotFound,
            f"there is no such secret or version ({said})",
            "One that was deleted may be brought back: az keyvault secret recover.",
            chain,
        )
    if exc.status_code == 403 and code:
        hint = (
            f"Grant secrets/{permission} on the vault: the role Key Vault Secrets User, or an"
            " access policy, for the identity of this process."
        )
        if reason in ("ForbiddenByConnection", "ForbiddenByFirewall", "ForbiddenByNsp"):
            hint = "Let this network in: the vault's firewall, or a private endpoint."
        return Sorted(AccessDenied, f"Key Vault denies access ({said})", hint, chain)
    return Sorted(ProviderError, f"Key Vault refuses the request ({said})", chain=chain)


def _codes(exc: Any) -> list[str]:
    """Return the code of Key Vault's error, and the inner one that says more, if they are there."""
    inner = getattr(exc.error, "innererror", None)
    codes = [getattr(exc.error, "code", None)]
    if isinstance(inner, Mapping):
        codes.append(inner.get("code"))
    return [code for code in codes if isinstance(code, str) and _CODE.match(code)]


def _quiet(credential: T) -> T:
    """Keep what credentials say of calls of ours out of the log, now that their modules are there.

    Our errors tell it, without any answer in them. What they say of other calls is logged.
    """
    for name in list(logging.Logger.manager.loggerDict):
        if name.startswith(_TALKATIVE):
            logging.getLogger(name).addFilter(_is_of_another)
    return credential


def _is_of_another(record: logging.LogRecord) -> bool:
    return left() == float("inf")
