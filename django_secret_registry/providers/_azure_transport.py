"""azure-core's transport, bounded in time: one for all clients and credentials of a provider."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any, Self

from ._deadline import DeadlineSocket, left
from ._requests import restrain

#: Seconds for one attempt, at most what the call has left; azure-core's own defaults are 300 each.
DEFAULT_TRANSPORT: Mapping[str, Any] = {"connection_timeout": 2, "read_timeout": 4}
#: What kept a call from an answer when the server was not the one that it should be.
UNTRUSTED = "its certificate is not trusted"
#: The answers after which a client asks somebody else. None of Azure's services gives one.
_REDIRECTS = frozenset({300, 301, 302, 303, 307, 308})


class LastAttempt(threading.local):
    """What kept the last attempt of this thread's call from an answer; ``""``: nothing."""

    trouble: str = ""


last = LastAttempt()


class OutOfTime(Exception):
    """The time of the call is over. No AzureError, which azure-core would try again."""


class Redirected(Exception):
    """The answer leads elsewhere, which azure-core would follow."""


class Transport:
    """azure-core's own transport, for whom the time of a call is the limit of all its attempts.

    Clients and credentials of one provider share it, so they close it only when the provider does.
    It remembers whether an attempt got an answer: azure-identity tells "no answer" and "no" apart
    in the text of its errors only.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        from azure.core.pipeline.transport import RequestsTransport

        options = {**DEFAULT_TRANSPORT, **options}
        session = _session(trust_env=options.get("use_env_settings", True))
        self._sender: Any = RequestsTransport(session=session, **options)
        self._limits = {name: options[name] for name in DEFAULT_TRANSPORT}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        """Stay open: whoever leaves is one of several users."""

    def open(self) -> None:
        """Do nothing: it is open from the beginning."""

    def close(self) -> None:
        """Release the connections."""
        self._sender.close()

    def sleep(self, seconds: float) -> None:
        """Wait between two attempts, unless there is no time for a further one."""
        if seconds >= left():
            raise OutOfTime
        time.sleep(seconds)

    def send(self, request: Any, **kwargs: Any) -> Any:
        """Make one attempt, in the time that the call has left."""
        remaining = left()
        if remaining <= 0:
            last.trouble = last.trouble or "no time left"
            raise OutOfTime
        for name, limit in self._limits.items():
            kwargs[name] = min(kwargs.get(name, limit), remaining)
        try:
            response = self._sender.send(request, **kwargs)
        except Exception as exc:
            last.trouble = UNTRUSTED if _untrusted(exc) else type(exc).__name__
            raise
        status = response.status_code
        if status in _REDIRECTS:
            last.trouble = f"HTTP {status}"
            raise Redirected
        last.trouble = f"HTTP {status}" if status >= 500 or status in (408, 410, 429) else ""
        return response


def _session(*, trust_env: bool) -> Any:
    """Return a session of requests whose connections know the time of the call."""
    import requests
    from urllib3.util.ssl_ import create_urllib3_context

    context = create_urllib3_context()
    context.sslsocket_class = DeadlineSocket

    session = requests.Session()
    session.trust_env = trust_env
    return restrain(session, ssl_context=context)


def _untrusted(exc: Exception) -> bool:
    import requests

    return isinstance(getattr(exc, "inner_exception", None), requests.exceptions.SSLError)
