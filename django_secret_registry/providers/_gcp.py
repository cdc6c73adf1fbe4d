"""What Google backends share: building a client from OPTIONS, and the sorting of errors."""

from __future__ import annotations

import copy
import functools
import logging
import random
import re
import threading
import time
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
from ._errors import Sorted
from ._requests import MAX_ANSWER, TooLarge, restrain
from .base import BaseProvider

T = TypeVar("T")

TRANSPORTS = ("grpc", "rest")

#: How often one call is tried while Google cannot answer, within the time that it is given.
ATTEMPTS = 3

NO_CREDENTIALS = (
    "Run the process as a service account, set GOOGLE_APPLICATION_CREDENTIALS, or call 'gcloud auth"
    " application-default login'."
)

#: An idle connection is dropped before a NAT forgets it, and a lost one is tried again soon (gRPC's
#: own limit is two minutes). Units: milliseconds. An answer has a limit, which Google lifts.
CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_ANSWER),
    ("grpc.client_idle_timeout_ms", 60_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)

_TOO_LARGE = Sorted(ProviderError, "the answer of Google is too large")

_UNAVAILABLE = frozenset(
    {
        "ABORTED",
        "CANCELLED",
        "DEADLINE_EXCEEDED",
        "INTERNAL",
        "RESOURCE_EXHAUSTED",
        "UNAVAILABLE",
        "UNKNOWN",
    }
)
#: What an OAuth server (RFC 6749, 5.2), IAM and Google's library say of credentials that will not
#: work later either.
BAD_CREDENTIALS = re.compile(
    r"invalid_(grant|client|scope)|unauthorized_client|access_denied|PERMISSION_DENIED"
    r"|Reauthentication is needed"
)
#: What Google says where nobody enabled the API in the project.
_NOT_ENABLED = re.compile(r"API has not been used in project|API \[[^]]*\] not enabled")
_PERMISSION = re.compile(r"Permission '([A-Za-z.]+)' denied")


class GCPProvider(BaseProvider):
    """A backend of Google: it is tried again while it cannot answer, and any failure is sorted."""

    #: Whether ``close`` was called: what fails from then on may fail for that reason.
    closed = False

    def persist(
        self,
        call: Callable[[float], T],
        sort: Callable[[Exception], Sorted],
        ref: SecretRef,
        deadline: float,
    ) -> T:
        """Return what ``call`` does with the seconds that are left; a failure is a ``SecretError``.

        The libraries' own retries go on for 60 s, and their last attempt may take all of it again.
        """
        attempt = 0
        while True:
            try:
                return call(max(deadline - time.monotonic(), 0.001))
            except Exception as exc:
                result = _TOO_LARGE if isinstance(exc, TooLarge) else sort(exc)
                if self.closed:
                    result = Sorted(ProviderUnavailable, "the provider was closed meanwhile")
                cause = exc if result.chain else None
            pause = random.uniform(0.05, 0.1) * 2**attempt  # noqa: S311
            attempt += 1
            if (
                result.kind is not ProviderUnavailable
                or self.closed
                or attempt == ATTEMPTS
                or time.monotonic() + pause >= deadline
            ):
                break
            time.sleep(pause)
        # Outside the except block: what must not be chained would stay as the context there.
        try:
            raise self.error(result.kind, result.message, ref, hint=result.hint) from cause
        finally:
            del cause  # its traceback holds this frame


def sort(exc: Exception, permission: str, *, alias: bool) -> Sorted:
    """Sort what the library raised by what can be done about it.

    ``permission`` is the one that the call needs; ``alias``: it named the version by an alias.
    """
    import requests
    from google.api_core.exceptions import GoogleAPICallError
    from google.auth.exceptions import GoogleAuthError, TransportError

    if isinstance(exc, GoogleAPICallError):
        return _sort_status(exc, permission, alias=alias)
    name = type(exc).__name__
    if isinstance(exc, TransportError) or (isinstance(exc, GoogleAuthError) and exc.retryable):
        return no_token(name)
    if isinstance(exc, GoogleAuthError):
        return bad_credentials(name)
    if isinstance(exc, requests.ConnectionError | requests.Timeout):
        return Sorted(ProviderUnavailable, f"Google cannot be reached ({name})", chain=True)
    if isinstance(exc, requests.exceptions.ChunkedEncodingError):
        # Not chained: an error further down may hold what was read so far.
        return Sorted(ProviderUnavailable, f"the connection to Google broke ({name})")
    return Sorted(ProviderError, f"the answer of Google cannot be read ({name})")


def _sort_status(exc: Any, permission: str, *, alias: bool) -> Sorted:
    """Sort an error that has a status; its text is looked at and not repeated."""
    status, text = _status(exc), str(exc.message)
    if status == "UNAVAILABLE" and "from plugin failed" in text:  # how gRPC wraps RefreshError
        return bad_credentials(status) if BAD_CREDENTIALS.search(text) else no_token(status)
    if status == "RESOURCE_EXHAUSTED" and "larger than max" in text:  # of gRPC, not of Google
        return _TOO_LARGE
    if status == "PERMISSION_DENIED":
        named = _PERMISSION.search(text)
        permission = named[1] if named else permission
        role = "viewer" if permission.endswith(".list") else "secretAccessor"
        hint = f"Grant {permission} (roles/secretmanager.{role}) on the secret."
        return denied(text, hint, "secretmanager.googleapis.com")
    if status == "INVALID_ARGUMENT" and alias:
        status = "NOT_FOUND"
    if status == "FAILED_PRECONDITION" and re.search(r"\b(DISABLED|DESTROYED)\b", text):
        said = f"the version is disabled or destroyed ({status})"
        return Sorted(SecretNotFound, said, "", chain=True)
    return sort_status(status, exc.code or 0, missing="there is no such secret or version")


def sort_status(status: str, code: int, *, missing: str) -> Sorted:
    """Sort by the status that Google gives; ``""``: it was not Google that answered ``code``."""
    said = status or f"HTTP {code}"
    # Without a status the error is not Google's, and its text is the whole body.
    chain = bool(status)
    if status in _UNAVAILABLE or (not status and (code >= 500 or code == 429)):
        return Sorted(ProviderUnavailable, f"Google cannot answer for now ({said})", chain=chain)
    if status == "UNAUTHENTICATED":
        return bad_credentials(said)
    if status == "NOT_FOUND":
        return Sorted(SecretNotFound, f"{missing} ({said})", "", chain)
    return Sorted(ProviderError, f"Google refuses the request ({said})", chain=chain)


def denied(text: str, hint: str, service: str) -> Sorted:
    """Return what a PERMISSION_DENIED is, which also says that nobody enabled the API."""
    if _NOT_ENABLED.search(text):
        hint = f"Enable {service} in the project."
    return Sorted(AccessDenied, "Google denies access (PERMISSION_DENIED)", hint, chain=True)


def _status(exc: Any) -> str:
    """Return the canonical status, such as ``NOT_FOUND``; ``""`` when someone between answered."""
    if not hasattr(exc.response, "json"):
        return exc.grpc_status_code.name if exc.grpc_status_code else ""
    try:
        # REST gives FAILED_PRECONDITION and INVALID_ARGUMENT one code; the body has the status.
        return str(exc.response.json()["error"]["status"])
    except (ValueError, LookupError, TypeError):
        return ""


def bad_credentials(said: str) -> Sorted:
    """Return what it is when credentials are not accepted."""
    hint = "They are wrong, revoked or expired: look at the service account and at its key."
    return Sorted(AccessDenied, f"the Google credentials are not accepted ({said})", hint)


def no_token(said: str) -> Sorted:
    """Return what it is when the source of credentials cannot answer."""
    return Sorted(ProviderUnavailable, f"no Google access token can be had for now ({said})")


def client_arguments(
    client: Mapping[str, Any], region: str, transport: str, *, insecure: bool
) -> dict[str, Any]:
    """Return the client's arguments: those of the user, and our defaults for the rest."""
    from google.api_core.client_options import from_dict
    from google.auth.credentials import AnonymousCredentials

    arguments = dict(client)
    options = copy.copy(arguments.get("client_options") or {})
    if isinstance(options, Mapping):
        options = from_dict(dict(options))
    if insecure:
        if not options.api_endpoint:
            raise InvalidProvider(
                "'insecure' is for an emulator, and none is named",
                hint='Write "client": {"client_options": {"api_endpoint": "127.0.0.1:8080"}}.',
            )
        anonymous: Any = AnonymousCredentials
        arguments.setdefault("credentials", anonymous())
    elif region and not options.api_endpoint:
        universe = options.universe_domain or "googleapis.com"
        options.api_endpoint = f"secretmanager.{region}.rep.{universe}"
    arguments["client_options"] = options
    chosen = arguments.get("transport", transport)
    if isinstance(chosen, str):
        arguments["transport"] = _transport(chosen, insecure=insecure)
    return arguments


def _transport(name: str, *, insecure: bool) -> Any:
    from google.cloud.secretmanager_v1.services.secret_manager_service import transports

    if name == "rest":
        return functools.partial(_rest(), url_scheme="http" if insecure else "https")
    if name != "grpc":
        raise InvalidProvider("option 'transport' is not known", hint='Write "grpc" or "rest".')
    import grpc

    def open_channel(host: str, *, options: Any, **kwargs: Any) -> Any:
        own = dict(CHANNEL_OPTIONS)
        options = [*((name, value) for name, value in options if name not in own), *own.items()]
        if insecure:
            return grpc.insecure_channel(host, options=options)
        return _trusted_channel(host, options=options, **kwargs)

    return functools.partial(transports.SecretManagerServiceGrpcTransport, channel=open_channel)


def _rest() -> Any:
    from google.cloud.secretmanager_v1.services.secret_manager_service import transports

    class Transport(transports.SecretManagerServiceRestTransport):
        """The library's own, whose sessions ask no other host than they are told to."""

        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            session: Any = self._session
            restrain(session)
            restrain(session._auth_request.session)
            session._auth_request = Quiet(session._auth_request)

    return Transport


def _trusted_channel(
    host: str, *, options: Any, credentials: Any, scopes: Any, ssl_credentials: Any, **kwargs: Any
) -> Any:
    """Return the library's channel, except that tokens come through a restrained session."""
    import grpc
    from google.auth.credentials import with_scopes_if_required
    from google.auth.transport.grpc import AuthMetadataPlugin
    from google.auth.transport.requests import Request
    from google.cloud.secretmanager_v1.services.secret_manager_service import transports
    from requests import Session

    library: Any = transports.SecretManagerServiceGrpcTransport
    tokens: Any = Request
    plugin: Any = AuthMetadataPlugin
    scoped: Any = with_scopes_if_required
    quota = kwargs.get("quota_project_id")
    credentials = scoped(credentials, scopes=scopes, default_scopes=library.AUTH_SCOPES)
    if quota and hasattr(credentials, "with_quota_project"):
        credentials = credentials.with_quota_project(quota)
    request = Quiet(tokens(restrain(Session())))
    signs = plugin(credentials, request, default_host=library.DEFAULT_HOST)
    trusted = grpc.composite_channel_credentials(
        ssl_credentials or grpc.ssl_channel_credentials(), grpc.metadata_call_credentials(signs)
    )
    return grpc.secure_channel(host, trusted, options=options)


class _Calling(threading.local):
    """Whether this thread is in a request of ours for a token."""

    now = False


_calling = _Calling()


def _hide(record: logging.LogRecord) -> bool:
    return not _calling.now


class Quiet:
    """A request of google-auth's of which nothing is logged.

    At DEBUG it shows what it is made with and what it brings: tokens.
    """

    def __init__(self, request: Any) -> None:
        self._request = request
        logging.getLogger("google.auth.transport.requests").addFilter(_hide)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        _calling.now = True
        try:
            return self._request(*args, **kwargs)
        finally:
            _calling.now = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._request, name)
