"""What SDKs send through requests: to the host that was asked only, and with a bounded answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..values import MAX_VALUE_SIZE

#: Bytes of an answer: a value of the largest size, as JSON or base64 may spell it.
MAX_ANSWER = 6 * MAX_VALUE_SIZE


class TooLarge(Exception):
    """The answer has more than ``MAX_ANSWER`` bytes; the rest was not read."""


def restrain(session: Any, **pool: Any) -> Any:
    """Return ``session``, which from now on follows no redirect and reads ``MAX_ANSWER`` bytes.

    A redirect is handed on as the answer that it is: requests would drop ``Authorization`` on the
    way to another host, and keep what stands in the body, such as the secret that one logs in with;
    and whatever that host said would be taken for the secret. An adapter that somebody has mounted
    before (google-auth's, for mutual TLS) stays, and bounds nothing. ``pool`` are further arguments
    of urllib3's pools for https.
    """
    from requests.adapters import HTTPAdapter

    session.get_redirect_target = _nowhere
    for prefix, arguments in (("https://", pool), ("http://", {})):
        if type(session.get_adapter(prefix)) is HTTPAdapter:
            session.mount(prefix, _adapter(**arguments))
    return session


def _nowhere(response: Any) -> None:
    return None


def _adapter(**pool: Any) -> Any:
    from requests.adapters import HTTPAdapter

    class Adapter(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
            super().init_poolmanager(*args, **{**kwargs, **pool})

        def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
            return super().proxy_manager_for(proxy, **{**kwargs, **pool})

        def build_response(self, req: Any, resp: Any) -> Any:
            response = super().build_response(req, resp)
            response.raw = _Bounded(resp)
            return response

    return Adapter()


class _Bounded:
    """urllib3's response, of which ``MAX_ANSWER`` bytes can be read; decompressed ones count."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def stream(self, *args: Any, **kwargs: Any) -> Iterator[bytes]:
        size = 0
        for piece in self._raw.stream(*args, **kwargs):
            size += len(piece)
            if size > MAX_ANSWER:
                self._raw.close()  # the rest is nobody's business
                raise TooLarge
            yield piece
