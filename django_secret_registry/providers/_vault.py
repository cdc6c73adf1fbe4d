"""How Vault is asked: by hvac, bounded in time and size, at one host; and what failures are."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

from ..exceptions import AccessDenied, ProviderError, ProviderUnavailable, SecretNotFound
from ..values import MAX_VALUE_SIZE
from ._deadline import left, within
from ._errors import Sorted

#: Seconds to connect; the rest of the time that a call is given is for the answer.
CONNECT = 3.0
#: Bytes of an answer: a value of the largest size, as JSON may spell it.
MAX_ANSWER = 6 * MAX_VALUE_SIZE
_REDIRECTS = 2


class Failure(Exception):
    """A call that brought no answer, described already."""

    def __init__(self, result: Sorted) -> None:
        super().__init__(result.message)
        self.result = result


class Refusal(Exception):
    """Vault answered with the ``status`` of an error; what it said is looked at, never shown."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"HTTP {answer.status_code}")
        self.status = answer.status_code
        body: Any = {}
        with contextlib.suppress(ValueError, RecursionError):
            body = answer.json()
        if not isinstance(body, Mapping):
            body = {}
        errors = body.get("errors")
        self._said = " ".join(map(str, errors)) if isinstance(errors, list) else ""
        data = body.get("data")
        metadata = data.get("metadata") if isinstance(data, Mapping) else None
        #: Of a version of KV v2 that is deleted: what is left of it.
        self.metadata: Mapping[str, Any] = metadata if isinstance(metadata, Mapping) else {}
        #: Whether the token may have ended, rather than be denied.
        self.doubtful = False

    def says(self, text: str) -> bool:
        return text in self._said


class Answer:
    """An HTTP response as hvac needs it; its body was read whole."""

    def __init__(self, status_code: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status_code = status_code
        self.headers = headers
        self._body = body

    @property
    def ok(self) -> bool:
        return self.status_code < 400

    def json(self) -> Any:
        return json.loads(self._body)


class Session:
    """What hvac sends its requests through, in place of a ``requests.Session``. Thread-safe.

    An answer that redirects to another scheme, host or port is not followed: the token would go
    there. Nothing is tried twice.
    """

    def __init__(self) -> None:
        import requests

        self._session = requests.Session()
        self.verify = self.cert = self.proxies = None  # hvac hands them on with each request

    def request(self, method: str, url: str, **arguments: Any) -> Answer:
        """Return the answer; raise :class:`Refusal` for an error's status."""
        for _ in range(1 + _REDIRECTS):
            span = _left()
            arguments |= {
                "timeout": (min(CONNECT, span), span),
                "allow_redirects": False,
                "stream": True,
            }
            response = self._session.request(method, url, **arguments)
            with response:
                if response.status_code not in (307, 308):
                    body = self._read(response.raw)
                    break
                target = urljoin(url, response.headers.get("Location", ""))
            if _origin(target) != _origin(url):
                raise Failure(
                    Sorted(
                        ProviderError,
                        "Vault redirects to another host, which is not followed",
                        'Name the active node, or a load balancer that finds it, as "url".',
                    )
                )
            url = target
            arguments.pop("params", None)  # they stand in the target
        else:
            raise Failure(Sorted(ProviderError, "Vault redirects in a circle"))
        answer = Answer(response.status_code, response.headers, body)
        if not answer.ok:
            raise Refusal(answer)
        return answer

    def close(self) -> None:
        self._session.close()

    def _read(self, raw: Any) -> bytes:
        """Return the body; a limit of time that only held between two bytes would let it drip."""
        body = bytearray()
        try:
            while piece := raw.read1(65536, decode_content=True):
                body += piece
                _left()
                if len(body) > MAX_ANSWER:
                    raise Failure(Sorted(ProviderError, "the answer of Vault is too large"))
            return bytes(body)
        except Failure:
            raise
        except Exception as exc:
            name = type(exc).__name__
        # Outside of the except block: an error of reading may hold what was read so far.
        raise Failure(Sorted(ProviderUnavailable, f"the connection to Vault broke ({name})"))


def _left() -> float:
    span = left()
    if span <= 0:
        raise Failure(Sorted(ProviderUnavailable, "the time was over before Vault answered"))
    return span


def _origin(url: str) -> tuple[str, str | None, int]:
    parts = urlsplit(url)
    return (
        parts.scheme,
        parts.hostname,
        parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0),
    )


class Connection:
    """One Vault, in one namespace. ``arguments`` are hvac's ``verify``, ``cert``, ``proxies``."""

    def __init__(self, url: str, namespace: str, arguments: Mapping[str, Any]) -> None:
        self._session = Session()
        self._arguments = {
            **arguments,
            "url": url,
            "namespace": namespace or None,
            "session": self._session,
        }

    def client(self, token: str = "") -> Any:
        """Return hvac's client for one token; clients share their connections."""
        import hvac

        return hvac.Client(token=token, **self._arguments)

    def call(self, method: Callable[..., Any], *args: Any, deadline: float, **kwargs: Any) -> Any:
        """Return the dict with which Vault answers a method of hvac, empty where it says nothing.

        Raises :class:`Refusal`, :class:`Failure`, or what ``requests`` raises.
        """
        with within(deadline - time.monotonic()):
            answer = method(*args, **kwargs)
        if isinstance(answer, dict):
            return answer
        if isinstance(answer, Answer) and answer.status_code == 204:
            return {}
        raise Failure(
            Sorted(
                ProviderError,
                "the answer of Vault is no JSON object",
                'Look at "url": this may be another server, or a proxy in between.',
            )
        )

    def close(self) -> None:
        self._session.close()


def seconds(answer: Any, field: str) -> float:
    """Return a span that Vault tells; 0 where it tells none."""
    value = answer.get(field) if isinstance(answer, Mapping) else None
    return float(value) if isinstance(value, int | float) else 0.0


def sort(exc: Exception, path: str, permission: str) -> Sorted:
    """Sort what a call to ``path`` raised by what can be done about it.

    ``permission`` is the hint for one that Vault denies.
    """
    if isinstance(exc, Failure):
        return exc.result
    if isinstance(exc, Refusal):
        return _sort_refusal(exc, path, permission)
    import requests

    name = type(exc).__name__
    for kind, result in (
        (
            requests.exceptions.SSLError,
            Sorted(
                ProviderUnavailable,
                "there is no trusted connection to Vault",
                'A CA of your own is named by "OPTIONS": {"client": {"verify": "/a/ca.pem"}}.',
                chain=True,
            ),
        ),
        (
            requests.exceptions.Timeout,
            Sorted(ProviderUnavailable, "Vault does not answer in time", chain=True),
        ),
        (
            requests.exceptions.ConnectionError,
            Sorted(ProviderUnavailable, "Vault cannot be reached", chain=True),
        ),
    ):
        if isinstance(exc, kind):
            # A request has the token in its headers, and what one logs in with in its body.
            exc.request = exc.response = None
            return result._replace(message=f"{result.message} ({name})")
    return Sorted(ProviderError, f"the answer of Vault cannot be read ({name})")


def _sort_refusal(refusal: Refusal, path: str, permission: str) -> Sorted:
    status = refusal.status
    if status == 404:
        return _sort_missing(refusal, path)
    if status in (401, 403):
        if refusal.doubtful:
            permission += " Or the token is none, or has ended: it may not even look itself up."
        return Sorted(AccessDenied, f"Vault denies access ({status})", permission)
    if status in (412, 429) or status >= 500:
        what = {429: "throttles", 503: "is sealed, in standby or in maintenance"}
        said = what.get(status, "cannot answer for now")
        return Sorted(ProviderUnavailable, f"Vault {said} ({status})")
    return Sorted(ProviderError, f"Vault refuses the request ({status})")


def _sort_missing(refusal: Refusal, path: str) -> Sorted:
    if refusal.says("namespace not found"):
        hint = 'Check "namespace" in OPTIONS.'
        return Sorted(ProviderError, "Vault has no such namespace (404)", hint)
    if refusal.says("no handler for route"):
        hint = "Check project=, and the mount and the namespace in OPTIONS."
        return Sorted(SecretNotFound, "Vault has no engine at the mount (404)", hint)
    metadata = refusal.metadata
    if metadata.get("destroyed"):
        hint = "It cannot be brought back: write a new version."
        return Sorted(SecretNotFound, "the version was destroyed (404)", hint)
    if metadata.get("deletion_time"):
        hint = 'Bring it back with "vault kv undelete", or write a new version.'
        return Sorted(SecretNotFound, "the version is deleted (404)", hint)
    hint = (
        f'It was looked for at "{path}"; a name is written without its mount and without "data/".'
    )
    return Sorted(SecretNotFound, "there is no such secret or version (404)", hint)
