"""The few calls of Kubernetes' API that are needed here, and the sorting of their errors."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import re
import ssl
import time
from pathlib import Path
from typing import Any, NamedTuple

from ..exceptions import (
    AccessDenied,
    ProviderError,
    ProviderUnavailable,
    SecretError,
    SecretNotFound,
)
from ..values import MAX_VALUE_SIZE
from ._deadline import DeadlineSocket, left
from ._errors import Sorted
from .file import read_file

#: How often one call is tried while the API cannot answer, within the time that it is given.
ATTEMPTS = 3
#: Seconds to connect to one address of the API.
CONNECT_TIMEOUT = 2.0
#: Connections that are kept: one for each thread that fetches from a provider.
_THREADS = 10
#: A Secret has up to 1 MiB, here in base64, and may carry it twice: in an annotation of kubectl.
MAX_ANSWER = 4 * MAX_VALUE_SIZE

_TOKEN = re.compile(r"[\x21-\x7e]+\Z")
_REASON = re.compile(r"[A-Za-z]{1,64}\Z")
_MOUNT = "Mount a service account (automountServiceAccountToken: true), or name another file."


class Failure(NamedTuple):
    """Why a call brought no object, and the error behind it where that can hold no value."""

    result: Sorted
    cause: BaseException | None = None


class _Pool(NamedTuple):
    """Connections that trust a CA, and what its file was when it was read."""

    connections: Any
    stamp: tuple[int, int]


class Api:
    """Gets objects from one API server over TLS. Thread-safe; opens nothing before the first call.

    The token is read for each attempt and the CA whenever its file has changed: kubelet writes new
    ones while the pod runs. urllib3's pool, unlike its clients of a higher level, knows no proxy of
    the environment and follows no redirect when it is told so.
    """

    def __init__(self, host: str, port: int, *, token_file: Path, ca_file: Path) -> None:
        self._host, self._port = host, port
        self._token_file, self._ca_file = token_file, ca_file
        self._pool: _Pool | None = None
        self._closed = False

    def close(self) -> None:
        self._closed = True
        if self._pool is not None:
            self._pool.connections.close()

    def get(self, path: str) -> dict[str, Any] | Failure:
        """Return the object at ``path``, within what the thread's call has left."""
        for attempt in range(1, ATTEMPTS + 1):
            answer = self._attempt(path)
            if not isinstance(answer, Failure):
                return answer
            if self._closed:
                return Failure(Sorted(ProviderUnavailable, "the provider was closed meanwhile"))
            pause = random.uniform(0.025, 0.05) * 2**attempt  # noqa: S311
            if answer.result.kind is not ProviderUnavailable or pause >= left():
                break
            if attempt < ATTEMPTS:
                time.sleep(pause)
        return answer

    def _attempt(self, path: str) -> dict[str, Any] | Failure:
        token = self._token()
        if isinstance(token, Failure):
            return token
        remaining = left()
        if remaining <= 0:
            return Failure(Sorted(ProviderUnavailable, "the time was over before the API answered"))
        from urllib3 import Timeout

        try:
            response = self._connections().request(
                "GET",
                path,
                headers={"Authorization": f"Bearer {token}", "Accept": "application/json"},
                timeout=Timeout(connect=min(CONNECT_TIMEOUT, remaining), read=remaining),
                retries=False,
                redirect=False,
                preload_content=False,
            )
            body = response.read(MAX_ANSWER + 1)
            if len(body) > MAX_ANSWER:
                response.close()
            response.release_conn()
        except Exception as exc:
            return _sort(exc)
        return _read(response.status, body)

    def _token(self) -> str | Failure:
        """Return the token as it is now."""
        text = read_text(self._token_file)
        if isinstance(text, str) and not _TOKEN.match(text.strip()):
            return Failure(Sorted(AccessDenied, "the file of the token holds none", _MOUNT))
        return text.strip() if isinstance(text, str) else text

    def _connections(self) -> Any:
        """Return the pool; a new one when the CA has changed. Raises ``OSError``."""
        from urllib3 import HTTPSConnectionPool

        status = self._ca_file.stat()
        stamp = status.st_mtime_ns, status.st_ino
        pool = self._pool
        if pool is None or pool.stamp != stamp:
            context = ssl.create_default_context(cafile=self._ca_file)
            context.sslsocket_class = DeadlineSocket
            connections = HTTPSConnectionPool(
                self._host, self._port, maxsize=_THREADS, ssl_context=context
            )
            # Two threads may make one each; the one that is lost has no connections to keep.
            pool = self._pool = _Pool(connections, stamp)
        return pool.connections


def read_text(path: Path) -> str | Failure:
    """Return what a file of the service account holds."""
    try:
        content, _ = read_file(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        return content.decode("ascii", "replace")
    except OSError as exc:
        return _unreadable(exc)
    except SecretError as error:
        text = f"a file of the service account cannot be read: {error.message}"
        return Failure(Sorted(ProviderError, text, _MOUNT))


def _unreadable(exc: OSError) -> Failure:
    """A file that is not there, or not for us, is a matter of permission; anything else passes."""
    text = f"a file of the service account cannot be read: {exc.strerror}"
    if exc.errno in (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM):
        return Failure(Sorted(AccessDenied, text, _MOUNT), exc)
    return Failure(Sorted(ProviderUnavailable, text), exc)


def _read(status: int, body: bytes) -> dict[str, Any] | Failure:
    """Return the object in an answer, or sort the answer as an error."""
    if len(body) > MAX_ANSWER:
        return Failure(Sorted(ProviderError, "the answer of the API is larger than 4 MiB"))
    document: Any = None
    with contextlib.suppress(ValueError, RecursionError):
        document = json.loads(body)
    if status == 200 and isinstance(document, dict):
        return document
    if status == 200:
        return Failure(Sorted(ProviderError, "the answer of the API is no JSON object"))
    # An error of the API itself is an object of the kind Status; its text is not repeated.
    reason, kind = "", ""
    if isinstance(document, dict) and document.get("kind") == "Status":
        reason = str(document.get("reason") or "")
        details = document.get("details")
        kind = str(details.get("kind") or "") if isinstance(details, dict) else ""
    said = f"{status} {reason}" if _REASON.match(reason) else f"HTTP {status}"
    return Failure(_sort_status(status, said, reason, kind))


def _sort_status(status: int, said: str, reason: str, kind: str) -> Sorted:
    if status >= 500 or status in (408, 429):
        return Sorted(ProviderUnavailable, f"Kubernetes cannot answer for now ({said})")
    if status == 401:
        hint = "It has expired, or is for another cluster, or its service account is gone."
        return Sorted(AccessDenied, f"Kubernetes does not accept the token ({said})", hint)
    if status == 403 and reason:
        hint = (
            "Allow the verb get on secrets with this name, in a Role of the namespace that a"
            " RoleBinding gives to the service account."
        )
        return Sorted(AccessDenied, f"Kubernetes denies access ({said})", hint)
    if status == 404 and reason == "NotFound" and kind == "secrets":
        return Sorted(SecretNotFound, f"there is no such Secret in the namespace ({said})")
    hint = "A redirect is not followed: name the API itself." if 300 <= status < 400 else ""
    return Sorted(ProviderError, f"the API refuses the request, or is none ({said})", hint)


def _sort(exc: Exception) -> Failure:
    """Sort what urllib3 raised."""
    from urllib3 import exceptions as sdk

    name = type(exc).__name__
    if isinstance(exc, ssl.SSLError | sdk.SSLError):
        text = f"there is no trusted connection to Kubernetes ({name})"
        return Failure(
            Sorted(ProviderUnavailable, text, "Name the cluster's CA as 'ca_file'."), exc
        )
    if isinstance(exc, OSError):  # of the CA's file
        return _unreadable(exc)
    if isinstance(exc, sdk.NewConnectionError | sdk.TimeoutError):
        text = f"Kubernetes cannot be reached ({name})"
        return Failure(Sorted(ProviderUnavailable, text), exc)
    if isinstance(exc, sdk.HTTPError):
        # Not chained: an error further down may hold what was read so far.
        return Failure(Sorted(ProviderUnavailable, f"the connection to Kubernetes broke ({name})"))
    return Failure(Sorted(ProviderError, f"the answer of the API cannot be read ({name})"))
