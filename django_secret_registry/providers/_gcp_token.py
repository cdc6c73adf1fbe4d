"""Access tokens of Google service accounts, by impersonation, through google-auth."""

from __future__ import annotations

import copy
import datetime as dt
import json
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from ..exceptions import (
    AccessDenied,
    InvalidProvider,
    InvalidReference,
    ProviderError,
    ProviderUnavailable,
)
from ..references import SecretRef
from ..values import SecretValue
from ._errors import Sorted
from ._gcp import (
    BAD_CREDENTIALS,
    NO_CREDENTIALS,
    GCPProvider,
    Quiet,
    bad_credentials,
    denied,
    no_token,
    sort_status,
)
from ._requests import restrain
from .base import Problem

CLOUD_PLATFORM = "https://www.googleapis.com/auth/cloud-platform"
ENDPOINT = "https://iamcredentials.googleapis.com"
_PATH = "/v1/projects/-/serviceAccounts/{}:generateAccessToken"

_EMAIL = re.compile(
    r"(?P<local>[a-z0-9](?:[a-z0-9.-]{0,62}[a-z0-9])?)"
    r"@(?P<domain>(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,24})\Z"
)
#: The domain of the accounts of a project, and that of App Engine's, which the project names.
_OF_PROJECT = re.compile(r"(?P<project>.+)\.iam\.gserviceaccount\.com\Z")
_APP_ENGINE = "appspot.gserviceaccount.com"
#: What Google issues at most, in seconds; over an hour only where the organization allows it.
_LONGEST = 43_200
#: Names whose source credentials are kept; more come from an attack only.
_KEPT = 100


class AccessTokenProvider(GCPProvider):
    """Issues access tokens of a service account that this process may impersonate.

    Options: ``scopes`` (default: ``cloud-platform``), ``lifetime`` (seconds; 3,600, up to 43,200
    where the organization allows it), ``delegates`` (e-mails of the accounts in between, the first
    one is impersonated by this process), ``credentials`` (a google-auth object instead of the
    application default credentials), and ``iam_endpoint_override``: scheme and host of another
    endpoint than Google's global one, in which ``{region}`` stands for the region.

    * name: the account's e-mail; the project in it obeys ``PROJECTS``, and ``ALLOW`` sees it whole;
    * region: none, unless ``iam_endpoint_override`` names it; tokens work in all regions;
    * no versions, no stages. The value is the token, and expires when Google says so.

    Needs ``iam.serviceAccounts.getAccessToken`` (``roles/iam.serviceAccountTokenCreator``) on the
    account.
    """

    requires = ("google-auth", "google-cloud-secret-manager", "google-crc32c")

    def __init__(
        self,
        *,
        alias: str,
        region: str,
        scopes: Sequence[str] = (CLOUD_PLATFORM,),
        lifetime: int = 3600,
        delegates: Sequence[str] = (),
        credentials: Any = None,
        iam_endpoint_override: str = "",
    ) -> None:
        super().__init__(alias=alias, region=region)
        import google.auth
        import requests
        from google.auth import impersonated_credentials
        from google.auth.exceptions import DefaultCredentialsError
        from google.auth.transport.requests import Request

        endpoint = iam_endpoint_override or ENDPOINT
        if "{region}" in endpoint and not region:
            raise InvalidProvider(
                "'iam_endpoint_override' wants a region, and there is none",
                provider=alias,
                hint='Write "REGION" in the alias.',
            )
        self._url = endpoint.replace("{region}", region).rstrip("/") + _PATH
        if not _is_private(self._url):
            raise InvalidProvider(
                "'iam_endpoint_override' would show credentials to the network",
                provider=alias,
                hint="Write https://.",
            )
        if credentials is None:
            try:
                credentials, _ = google.auth.default(scopes=[CLOUD_PLATFORM])
            except DefaultCredentialsError as exc:
                raise AccessDenied(
                    "no Google credentials were found",
                    provider=alias,
                    region=region,
                    hint=NO_CREDENTIALS,
                ) from exc
        self._source: Any = credentials
        self._session = restrain(requests.Session())
        self._request: Any = Quiet(Request(self._session))
        self._impersonate: Any = impersonated_credentials.Credentials
        self._how = {
            "target_scopes": list(scopes),
            "lifetime": lifetime,
            "delegates": list(delegates),
        }
        self._impersonated: dict[str, Any] = {}

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> list[Problem]:
        problems = super().check(options)
        if not _is_list(options.get("scopes", [CLOUD_PLATFORM]), ".+"):
            hint = f'Write "scopes": ["{CLOUD_PLATFORM}"].'
            problems.append(Problem("option 'scopes' is no list of scopes", hint))
        if options.get("delegates") and not _is_list(options["delegates"], _EMAIL.pattern):
            hint = 'Write "delegates": ["between@acme.iam.gserviceaccount.com"].'
            problems.append(Problem("option 'delegates' is no list of service accounts", hint))
        lifetime = options.get("lifetime", 3600)
        if type(lifetime) is not int or not 0 < lifetime <= _LONGEST:
            hint = f"Google issues tokens for {_LONGEST} seconds at most, usually for 3600."
            problems.append(Problem("option 'lifetime' is none that Google has", hint))
        endpoint = options.get("iam_endpoint_override") or ENDPOINT
        if not isinstance(endpoint, str) or not _is_private(endpoint):
            hint = 'Write "iam_endpoint_override": "https://host".'
            problems.append(Problem("option 'iam_endpoint_override' is no https:// URL", hint))
        return problems

    @classmethod
    def canonical(cls, ref: SecretRef, options: Mapping[str, Any]) -> SecretRef:
        email = _EMAIL.match(ref.name)
        if not email:
            raise InvalidReference(
                "the name is not the e-mail of a service account",
                reference=str(ref),
                provider=ref.scheme,
                hint="Write deploy@acme.iam.gserviceaccount.com.",
            )
        named = _OF_PROJECT.match(email["domain"])
        project = named["project"] if named else ""
        if email["domain"] == _APP_ENGINE:
            project = email["local"]
        if not project:  # an account of Google's own: the name does not say where it belongs
            return super().canonical(ref, options)
        spelled = super().canonical(ref.replace(project=""), options)
        return cls._take_locator(spelled.replace(project=ref.project), "project", project)

    def fetch(self, ref: SecretRef, *, timeout: float) -> SecretValue:
        deadline = time.monotonic() + timeout
        name = self.canonical(ref, {}).name
        request = _Request(self._request)

        def call(left: float) -> tuple[str, dt.datetime]:
            request.begin(self._url.format(name), left)
            # A copy: it shares the token of the source, and keeps this one to this thread.
            credentials = copy.copy(self._of(name))
            credentials.refresh(request)
            return credentials.token, credentials.expiry

        token, expiry = self.persist(call, request.sort, ref, deadline)
        if not token or not isinstance(token, str):
            raise self.error(ProviderError, "the answer of Google holds no token", ref)
        return SecretValue(token, expires_at=expiry.replace(tzinfo=dt.UTC).timestamp())

    def _of(self, name: str) -> Any:
        """Return the credentials of an account, which keep the token of their source."""
        if name not in self._impersonated:
            if len(self._impersonated) >= _KEPT:
                self._impersonated = {}
            self._impersonated[name] = self._impersonate(
                self._source, name, iam_endpoint_override=self._url.format(name), **self._how
            )
        return self._impersonated[name]

    def close(self) -> None:
        self.closed = True
        self._session.close()


class _Request:
    """What google-auth makes its requests by: bounded in time, and remembered for the sorting."""

    def __init__(self, request: Any) -> None:
        self._request = request

    def begin(self, iam: str, seconds: float) -> None:
        """Begin an attempt; ``iam`` is the URL whose answers are about the secret."""
        self._iam, self._deadline = iam, time.monotonic() + seconds
        self._url, self._status, self._body = "", 0, b""

    def __call__(self, url: str, **arguments: Any) -> Any:
        self._url, self._status, self._body = url, 0, b""
        left = max(self._deadline - time.monotonic(), 0.001)
        arguments["timeout"] = min(arguments.get("timeout") or left, left)
        response = self._request(url=url, **arguments)
        self._status, self._body = response.status, response.data
        return response

    def sort(self, exc: Exception) -> Sorted:
        """Sort what google-auth raised by what can be done about it."""
        import requests
        from google.auth.exceptions import GoogleAuthError, TransportError

        name, cause = type(exc).__name__, exc.__cause__
        at_iam = self._url == self._iam
        if isinstance(exc, TransportError):
            if not at_iam:
                return no_token(name)
            if isinstance(cause, requests.exceptions.SSLError):
                hint = "A CA of your own is named by the variable REQUESTS_CA_BUNDLE."
                said = f"there is no trusted connection to Google ({name})"
                return Sorted(ProviderUnavailable, said, hint, chain=True)
            if isinstance(cause, requests.ConnectionError | requests.Timeout):
                return Sorted(ProviderUnavailable, f"Google cannot be reached ({name})", chain=True)
            # Not chained: an error further down may hold what was read so far.
            return Sorted(ProviderUnavailable, f"the connection to Google broke ({name})")
        if not isinstance(exc, GoogleAuthError) or (at_iam and self._status == 200):
            # Not chained: its text is the whole answer.
            return Sorted(ProviderError, f"the answer of Google cannot be read ({name})")
        if at_iam:
            return self._sort_answer()
        said = f"{name}, HTTP {self._status}" if self._status else name
        elsewhere = 300 <= self._status < 400  # someone between leads to a page of theirs
        unavailable = exc.retryable or elsewhere or self._status >= 500 or self._status == 429
        if unavailable and not BAD_CREDENTIALS.search(str(exc)):
            return no_token(said)
        return bad_credentials(said)

    def _sort_answer(self) -> Sorted:
        status, text = _error_of(self._body)
        if status == "PERMISSION_DENIED":
            hint = (
                "Grant iam.serviceAccounts.getAccessToken (roles/iam.serviceAccountTokenCreator)"
                " on the service account; with delegates, on each to the one before it."
            )
            return denied(text, hint, "iamcredentials.googleapis.com")
        result = sort_status(status, self._status, missing="there is no such service account")
        if status == "INVALID_ARGUMENT":
            hint = 'Look at "scopes", and at "lifetime": the organization may allow an hour only.'
            result = result._replace(hint=hint)
        return result


def _error_of(body: bytes) -> tuple[str, str]:
    """Return status and message of Google's error; ``""`` when someone between answered."""
    try:
        error = json.loads(body)["error"]
        return str(error["status"]), str(error.get("message", ""))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return "", ""


def _is_private(url: str) -> bool:
    """Whether what is sent there can be read by nobody on the way."""
    parts = urlsplit(url)
    local = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1")
    return bool(parts.hostname) and (parts.scheme == "https" or local)


def _is_list(value: Any, pattern: str) -> bool:
    return (
        isinstance(value, list | tuple)
        and bool(value)
        and all(isinstance(one, str) and re.fullmatch(pattern, one) for one in value)
    )
