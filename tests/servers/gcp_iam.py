"""Google's IAM credentials API and its OAuth token endpoint, by ``http.server``."""

from __future__ import annotations

import datetime as dt
import json
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.canary import canary
from tests.servers.gcp import HTTP_CODES

PROJECT = "acme"
_PATH = re.compile(r"(/[a-z0-9-]+)?/v1/projects/-/serviceAccounts/([^/:]+):generateAccessToken\Z")


class IAMServer:
    """Issues tokens for known accounts on a free port of 127.0.0.1.

    ``calls`` counts requests by kind: ``source`` for a token of the process itself, ``issue`` for
    one of an account. A path may begin with a region, which the token then names. A fault holds for
    one kind of requests until ``heal``.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._release = threading.Event()
        self.reset()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # an answer in one packet: two would wait for the client's delayed ACK

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                answer = owner._answer(self.path, self.headers, body)
                if answer is None:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                code, content, length = answer
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(content)
                self.close_connection = length != len(content)

            def log_message(self, *args: object) -> None:
                """Keep quiet."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64  # many threads at once: a lost SYN is sent again after 1 s

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.01])
        self._thread.start()

    def stop(self) -> None:
        self.heal()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def reset(self) -> None:
        """Forget accounts, faults and counts, and let go who hangs."""
        self.heal()
        self.calls: Counter[str] = Counter()
        self.requests: list[Mapping[str, Any]] = []
        self.accounts: set[str] = set()
        self.denied: set[str] = set()
        #: Called while an account's token is made, with the seconds that it is to last.
        self.on_issue: Callable[[int], object] = lambda lifetime: None

    # -- what a test says --

    def options(self, **options: Any) -> dict[str, Any]:
        """Return OPTIONS that lead here: credentials of a user, which get their token here too."""
        from google.oauth2.credentials import Credentials

        make: Any = Credentials
        user = make(
            None,
            refresh_token=canary("refresh"),
            client_id="id",
            client_secret=canary("client"),
            token_uri=f"{self.url}/token",
        )
        return {"credentials": user, "iam_endpoint_override": self.url, **options}

    def fail(self, status: str, message: str = "", kind: str = "issue") -> None:
        """Answer with an error of Google."""
        code = HTTP_CODES[status]
        error = {"error": {"code": code, "message": message, "status": status}}
        self.answer(code, json.dumps(error).encode(), kind)

    def answer(self, code: int, body: bytes, kind: str = "issue", length: int = -1) -> None:
        """Answer with ``body``, whose length may be claimed to be another."""
        length = len(body) if length < 0 else length
        self._fault = kind, lambda: (code, body, length)

    def cut(self, kind: str = "issue") -> None:
        """Close the connection instead of answering."""
        self._fault = kind, lambda: None

    def hang(self, kind: str = "issue") -> None:
        """Do not answer before ``heal``."""
        release = self._release

        def wait() -> None:
            release.wait(30)

        self._fault = kind, wait

    def heal(self) -> None:
        """End the fault, and let go who hangs."""
        self._release.set()
        self._release = threading.Event()
        self._fault: tuple[str, Callable[[], tuple[int, bytes, int] | None]] | None = None

    # -- answers --

    def _answer(
        self, path: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, bytes, int] | None:
        kind = "source" if path == "/token" else "issue"
        with self._lock:
            self.calls[kind] += 1
            number, fault = self.calls[kind], self._fault
        if fault is not None and fault[0] == kind:
            return fault[1]()
        code, content = (
            self._source(number) if kind == "source" else self._issue(path, headers, body, number)
        )
        answer = json.dumps(content).encode()
        return code, answer, len(answer)

    def _source(self, number: int) -> tuple[int, dict[str, Any]]:
        token = f"{canary('source')}-{number}"
        return 200, {"access_token": token, "expires_in": 3600, "token_type": "Bearer"}

    def _issue(
        self, path: str, headers: Mapping[str, str], body: bytes, number: int
    ) -> tuple[int, dict[str, Any]]:
        named = _PATH.match(path)
        request = json.loads(body)
        if named is None:
            return _error("NOT_FOUND", "no such method")
        region, account = (named[1] or "").strip("/"), named[2]
        self.requests.append({**request, "account": account, "region": region})
        if not headers.get("Authorization", "").startswith(f"Bearer {canary('source')}"):
            return _error("UNAUTHENTICATED", "no valid credentials")
        if account in self.denied:
            what = "Permission 'iam.serviceAccounts.getAccessToken' denied on resource"
            return _error("PERMISSION_DENIED", f"{what} (or it may not exist).")
        if account not in self.accounts:
            return _error("NOT_FOUND", "Unknown service account")
        lifetime = int(request["lifetime"].removesuffix("s"))
        if lifetime > 3600:
            return _error("INVALID_ARGUMENT", "Request contains an invalid argument.")
        ends = dt.datetime.fromtimestamp(time.time() + lifetime, dt.UTC)
        self.on_issue(lifetime)
        return 200, {
            "accessToken": f"{canary('token')}-{region}-{number}",
            "expireTime": ends.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }


def _error(status: str, message: str) -> tuple[int, dict[str, Any]]:
    code = HTTP_CODES[status]
    return code, {"error": {"code": code, "message": message, "status": status}}


@pytest.fixture(scope="session")
def iam_session() -> Iterator[IAMServer]:
    for name in ("google.auth", "requests"):
        pytest.importorskip(name, reason=f"needs {name}: pip install 'google-auth[requests]'")
    server = IAMServer()
    yield server
    server.stop()


@pytest.fixture
def iam_server(iam_session: IAMServer) -> Iterator[IAMServer]:
    """The IAM credentials API without accounts and faults."""
    iam_session.reset()
    yield iam_session
    iam_session.reset()
