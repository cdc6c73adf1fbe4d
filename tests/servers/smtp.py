"""An SMTP server (RFC 5321) that asks for a password (RFC 4954)."""

from __future__ import annotations

import base64
import contextlib
import socketserver
import threading
from collections.abc import Iterator

import pytest


class _Session(socketserver.StreamRequestHandler):
    server: SMTPServer

    def handle(self) -> None:
        self.say("220 ready")
        while command := self.hear():
            verb, _, rest = command.partition(" ")
            answer = getattr(self, f"on_{verb.lower()}", None)
            self.say(answer(rest) if answer else "502 not implemented")
            if verb.upper() == "QUIT":
                break

    def hear(self) -> str:
        return self.rfile.readline().decode().rstrip("\r\n")

    def say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())

    def on_ehlo(self, name: str) -> str:
        return "250-localhost\r\n250 AUTH PLAIN LOGIN"

    def on_auth(self, argument: str) -> str:
        _, user, password = base64.b64decode(argument.split()[1]).decode().split("\0")
        if (user, password) != self.server.login:
            return "535 authentication failed"
        return "235 welcome"

    def on_mail(self, sender: str) -> str:
        return "250 ok"

    on_rcpt = on_rset = on_noop = on_mail

    def on_data(self, _: str) -> str:
        self.say("354 go on")
        lines = iter(self.hear, ".")
        self.server.messages.append("\n".join(lines))
        return "250 kept"

    def on_quit(self, _: str) -> str:
        return "221 bye"


class SMTPServer(socketserver.ThreadingTCPServer):
    """Keeps the ``messages`` of those who log in as ``login`` (user and password)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Session)
        self.host, self.port = self.server_address
        self.login = ("", "")
        self.messages: list[str] = []


@contextlib.contextmanager
def started() -> Iterator[SMTPServer]:
    """Run a server until the block ends."""
    with SMTPServer() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def smtp() -> Iterator[SMTPServer]:
    with started() as server:
        yield server
