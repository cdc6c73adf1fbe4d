"""The end of a call, for each of its reads: the timeout of a socket bounds one, not their sum."""

from __future__ import annotations

import contextlib
import math
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any


class _Call(threading.local):
    """When the call that this thread is in must end (monotonic seconds)."""

    ends: float = math.inf


_call = _Call()


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """End what this thread does in the block when ``seconds`` are over, as far as it reads TLS."""
    before = _call.ends
    _call.ends = time.monotonic() + seconds
    try:
        yield
    finally:
        _call.ends = before


def left() -> float:
    """Return the seconds that this thread's call has left; infinity when it is in none."""
    return _call.ends - time.monotonic()


class DeadlineSocket(ssl.SSLSocket):
    """Reads no longer than the call of its thread may last, however slowly the bytes come.

    For ``SSLContext.sslsocket_class``. A handshake is bounded already: Python counts the socket's
    timeout over all of it.
    """

    def read(self, *args: Any, **kwargs: Any) -> Any:
        remaining = left()
        if remaining <= 0:
            raise TimeoutError("the time of the call is over")
        limit = self.gettimeout()
        if limit is None or remaining < limit:
            self.settimeout(remaining)  # whoever sends the next request sets it anew
        return super().read(*args, **kwargs)
