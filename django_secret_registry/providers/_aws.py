"""What every AWS backend shares: the client, the limit of its time, and the sorting of errors."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Mapping
from typing import Any, ClassVar

from ..exceptions import (
    AccessDenied,
    InvalidProvider,
    ProviderError,
    ProviderUnavailable,
    SecretNotFound,
)
from ..references import SecretRef
from ._errors import Sorted
from .base import BaseProvider, Problem

#: Two attempts that hang end within the 10 s that the cache gives a fetch; boto3's own defaults
#: allow 60 s for each of up to five. OPTIONS["config"] goes over these. Units: seconds.
DEFAULT_CONFIG: Mapping[str, Any] = {
    "connect_timeout": 2,
    "read_timeout": 4,
    "retries": {"mode": "standard", "total_max_attempts": 3},
}

#: Loggers of botocore that show values: answers, requests, and what a signature is made of.
_CHATTY = ("botocore.parsers", "botocore.endpoint", "botocore.hooks", "botocore.auth")

#: A service's code of an error, as it may be repeated in a message.
_CODE = re.compile(r"[A-Za-z][A-Za-z.]{0,63}\Z")
#: What InvalidRequestException says where the secret or the labelled version is not there.
_GONE = re.compile(r"marked (for deletion|deleted)|not associated to the provided VersionId")
_PERMISSION = re.compile(r"to perform: ([a-z-]+:[A-Za-z]+)")

# The codes of errors, without the suffix "Exception" that only some of them carry.
THROTTLED = frozenset(
    {
        "BandwidthLimitExceeded",
        "LimitExceeded",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceeded",
        "RequestLimitExceeded",
        "RequestThrottled",
        "SlowDown",
        "Throttled",
        "Throttling",
        "TooManyRequests",
    }
)
_UNAVAILABLE = THROTTLED | {
    "IDPCommunicationError",
    "InternalFailure",
    "InternalServerError",
    "InternalServiceError",
    "RequestTimeout",
    "ServiceUnavailable",
}
_CREDENTIALS = frozenset(
    {
        "AuthFailure",
        "ExpiredToken",
        "IDPRejectedClaim",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidIdentityToken",
        "InvalidSignature",
        "InvalidToken",
        "MissingAuthenticationToken",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
        "UnrecognizedClient",
    }
)
_DENIED = frozenset(
    {"AccessDenied", "DecryptionFailure", "InvalidKeyId", "KMSAccessDenied", "NotAuthorized"}
)


class _Call(threading.local):
    """The call that this thread is in: when it must end (monotonic seconds; 0: it is in none), and
    the HTTP status of the last answer.
    """

    deadline: float = 0.0
    status: int = 0


_call = _Call()


class AWSProvider(BaseProvider):
    """A backend that boto3 speaks to. Thread-safe: a client is, and the session is not kept.

    Options, each a dict that boto3 gets as it is: ``session`` (of ``boto3.session.Session``),
    ``client`` (of ``Session.client``, such as ``endpoint_url``) and ``config`` (of
    ``botocore.config.Config``, over ``DEFAULT_CONFIG``). The region that the instance is built for
    goes over one in these.

    Credentials that are missing or refused are ``AccessDenied``; those whose source (a metadata
    service, STS, a process) does not answer are ``ProviderUnavailable``.
    """

    regional = True
    requires = ("boto3",)
    #: boto3's name of the service, which is also the prefix of its permissions.
    service: ClassVar[str]
    #: The operations whose errors are about the secret; those of others are about credentials.
    operations: ClassVar[frozenset[str]]
    #: What a missing permission is to be granted on.
    subject: ClassVar[str] = "the secret"
    #: The codes that say that there is no such secret or version.
    missing: ClassVar[frozenset[str]] = frozenset({"ResourceNotFound"})
    #: What to do about further codes.
    hints: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self,
        *,
        alias: str,
        region: str,
        session: Mapping[str, Any] | None = None,
        client: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(alias=alias, region=region)
        import boto3.session
        from botocore import UNSIGNED
        from botocore.config import Config
        from botocore.exceptions import NoRegionError

        asked = {"region_name": region} if region else {}
        options = {**(client or {}), **asked}
        settings: Any = Config(**{**DEFAULT_CONFIG, **(config or {})})
        if options.get("config") is not None:
            settings = settings.merge(options["config"])
        source: Any = boto3.session.Session(**{**(session or {}), **asked})
        #: Those of the session; ``None`` where the client has its own, or needs none.
        self.credentials: Any = None
        signs = settings.signature_version is not UNSIGNED
        needs_some = signs and "aws_access_key_id" not in options
        if needs_some:
            self.credentials = source.get_credentials()
        if needs_some and self.credentials is None:
            # A client keeps what was found when it was built; one that was built while the
            # metadata service did not answer would never have credentials. The next use tries anew.
            raise AccessDenied(
                "no AWS credentials were found",
                provider=alias,
                region=region,
                hint="Give the process a role, set AWS_PROFILE, or write"
                ' "OPTIONS": {"session": {"profile_name": ...}}.',
            )
        try:
            self.client: Any = source.client(self.service, **{**options, "config": settings})
        except NoRegionError as exc:
            raise InvalidProvider(
                "AWS needs a region",
                provider=alias,
                hint='Write "REGION" in the alias or in SECRET_REGISTRY.',
            ) from exc
        events = self.client.meta.events
        event = self.client.meta.service_model.service_id.hyphenize()
        events.register(f"request-created.{event}", _shorten)
        events.register_first(f"needs-retry.{event}", _give_up)
        events.register(f"before-parse.{event}", _refuse_part)
        for chatty in _CHATTY:
            logging.getLogger(chatty).addFilter(_hide)

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> list[Problem]:
        return super().check(options) + [
            Problem(f"option {name!r} is no dict", f'Write "OPTIONS": {{"{name}": {{...}}}}.')
            for name in ("session", "client", "config")
            if not isinstance(options.get(name) or {}, Mapping)
        ]

    def close(self) -> None:
        self.client.close()

    def ask(self, method: str, ref: SecretRef, timeout: float, **parameters: Any) -> Any:
        """Call ``method`` of the client within ``timeout`` s; any failure is a ``SecretError``."""
        if timeout <= 0:
            raise self.error(ProviderUnavailable, "the time was over before AWS was asked", ref)
        _call.deadline, _call.status = time.monotonic() + timeout, 0
        try:
            return getattr(self.client, method)(**parameters)
        except Exception as exc:
            result = self._sort(exc)
            cause = exc if result.chain else None
        finally:
            _call.deadline = 0.0
        # Outside the except block: what must not be chained would stay as the context there.
        try:
            raise self.error(result.kind, result.message, ref, hint=result.hint) from cause
        finally:
            del cause  # its traceback holds this frame

    def sort_code(self, code: str, text: str, *, status: int, operation: str) -> Sorted:
        """Sort a service's error by its code; ``text``, its message, is read and not repeated."""
        chain = bool(code)
        said = f"{operation}: {code or f'HTTP {status}'}"
        if code in _UNAVAILABLE or status >= 500 or status == 429:
            return Sorted(ProviderUnavailable, f"AWS cannot answer for now ({said})", chain=chain)
        if operation not in self.operations:
            return Sorted(
                AccessDenied,
                f"there are no valid credentials for AWS ({said})",
                "Check the role, its trust policy, and the credentials that assume it.",
                chain,
            )
        if code in _CREDENTIALS:
            return Sorted(
                AccessDenied,
                f"AWS does not accept the credentials ({said})",
                "They are wrong or have expired, or the clock of this machine is off.",
                chain,
            )
        if code in _DENIED:
            named = _PERMISSION.search(text)
            permission = f"{self.service}:{operation}"
            if named:
                permission = named[1]
            elif code != "AccessDenied" or "KMS" in text:
                permission = "kms:Decrypt"
            where = self.subject
            if permission.startswith("kms:"):
                where = "the key of the secret"
            elif ":Batch" in permission:
                where = 'the resource "*"'
            hint = f"Allow {permission} on {where}, for the role of this process."
            return Sorted(AccessDenied, f"AWS denies access ({said})", hint, chain)
        if code in self.missing or (code == "InvalidRequest" and _GONE.search(text)):
            return Sorted(SecretNotFound, f"there is no such secret or version ({said})", "", chain)
        hint = self.hints.get(code, "")
        return Sorted(ProviderError, f"AWS refuses the request ({said})", hint, chain)

    def _sort(self, exc: Exception) -> Sorted:
        """Sort what boto3 raised by what can be done about it."""
        from botocore import exceptions as sdk

        if isinstance(exc, sdk.ClientError):
            return self.sort_code(
                code_of(exc),
                str(exc.response.get("Error", {}).get("Message", "")),
                status=exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0),
                operation=exc.operation_name,
            )
        name = type(exc).__name__
        for kinds, result in (
            (
                sdk.SSLError,
                Sorted(
                    ProviderUnavailable,
                    "there is no trusted connection to AWS",
                    'A CA of your own is named by "OPTIONS": {"client": {"verify": "/a/ca.pem"}}.',
                    chain=True,
                ),
            ),
            (
                (sdk.ConnectionError, sdk.ReadTimeoutError),
                Sorted(ProviderUnavailable, "AWS cannot be reached", chain=True),
            ),
            # Not chained: an error further down may hold what was read so far.
            (
                (sdk.HTTPClientError, sdk.IncompleteReadError),
                Sorted(ProviderUnavailable, "the connection to AWS broke"),
            ),
            # Not chained: the text may be the output of a credential process.
            (
                (
                    sdk.CredentialRetrievalError,
                    sdk.MetadataRetrievalError,
                    sdk.TokenRetrievalError,
                ),
                Sorted(ProviderUnavailable, "credentials for AWS cannot be had for now"),
            ),
            (
                (
                    sdk.NoCredentialsError,
                    sdk.PartialCredentialsError,
                    sdk.SSOError,
                    getattr(sdk, "LoginError", sdk.SSOError),  # since botocore 1.41
                ),
                Sorted(
                    AccessDenied,
                    "there are no valid credentials for AWS",
                    "Log in again, or give the process a role.",
                ),
            ),
        ):
            if isinstance(exc, kinds):
                return result._replace(message=f"{result.message} ({name})")
        if _call.status >= 500 or _call.status == 429:  # the page of a proxy, where STS has XML
            said = f"HTTP {_call.status}"
            return Sorted(ProviderUnavailable, f"AWS cannot answer for now ({said})")
        return Sorted(ProviderError, f"the answer of AWS cannot be read ({name})")


def _shorten(request: Any, **kwargs: Any) -> None:
    """Give an attempt no more time to read than is left; botocore before 1.43.70 ignores it."""
    if _call.deadline:
        left = max(_call.deadline - time.monotonic(), 0.05)
        limit = request.context["client_config"].read_timeout
        request.context["read_timeout"] = min(left, limit) if limit else left


def _give_up(
    response: tuple[Any, Any] | None = None,
    caught_exception: Exception | None = None,
    operation: Any = None,
    **kwargs: Any,
) -> None:
    """End a call whose time is over with what came of its last attempt, instead of trying again.

    Raised, since botocore before 1.43.70 takes any answer of a handler for "again", ``False`` too.
    """
    from botocore.exceptions import ClientError

    if not _call.deadline or time.monotonic() < _call.deadline:
        return
    if caught_exception is not None:
        raise caught_exception
    if response is not None and response[0].status_code >= 300:
        raise ClientError(response[1], operation.name)


def _refuse_part(response_dict: Mapping[str, Any], **kwargs: Any) -> None:
    """Raise for a body that was cut short; botocore itself takes any part for the whole."""
    from botocore.exceptions import IncompleteReadError

    _call.status = response_dict["status_code"]
    actual, expected = len(response_dict["body"]), response_dict["headers"].get("content-length")
    if expected and expected.isdecimal() and actual < int(expected):
        raise IncompleteReadError(actual_bytes=actual, expected_bytes=expected)


def _hide(record: logging.LogRecord) -> bool:
    """Drop what botocore logs at DEBUG during a call of ours."""
    return not _call.deadline


def code_of(exc: BaseException | None) -> str:
    """Return the code in a service's error, without "Exception"; "" for an error of anyone else.

    Where there is none, botocore writes the HTTP status, and the whole body as the message.
    """
    from botocore.exceptions import ClientError

    code = exc.response.get("Error", {}).get("Code") if isinstance(exc, ClientError) else ""
    return code.removesuffix("Exception") if code and _CODE.match(code) else ""
