"""Servers that a client should not trust: they lead elsewhere, and answer with what harms."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.servers.https import Answer, HTTPSServer, Request


class Hostile(HTTPSServer):
    """Gives every request the answer of ``say``; ``seen`` is all that clients sent, as text."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.say: Callable[[Request], Answer] = lambda request: Answer.json(200, {})
        super().__init__()

    def operation(self, request: Request) -> str:
        return f"{request.method} /{'/'.join(request.path)}"

    def respond(self, request: Request) -> Answer:
        self.seen.append(repr(request))
        return self.say(request)

    def redirect(self, to: HTTPSServer, status: int) -> None:
        """Lead every request to the same path of another server."""

        def say(request: Request) -> Answer:
            return Answer(status, b"", {"Location": f"{to.url}/{'/'.join(request.path)}"})

        self.say = say


@contextmanager
def hostile() -> Iterator[Hostile]:
    """Run one until the block ends."""
    server = Hostile()
    try:
        yield server
    finally:
        server.stop()


class Tunnel:
    """A proxy that refuses everything; ``seen`` is all that was sent to it, as it came."""

    def __init__(self) -> None:
        self.seen = bytearray()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            with client, contextlib.suppress(OSError):
                client.settimeout(5)
                request = b""
                while b"\r\n\r\n" not in request and (piece := client.recv(65536)):
                    request += piece
                self.seen += request
                client.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")

    def stop(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


@contextmanager
def tunnel() -> Iterator[Tunnel]:
    """Run a proxy until the block ends."""
    proxy = Tunnel()
    try:
        yield proxy
    finally:
        proxy.stop()
