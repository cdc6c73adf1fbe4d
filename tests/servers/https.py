"""An HTTPS server of a CA of its own, which counts requests and fails on demand."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import ipaddress
import json
import socket
import ssl
import struct
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

ALWAYS = float("inf")
#: Seconds between the bytes of an answer that drips.
DRIP = 0.05
#: Close with a reset instead of an orderly end.
_RESET = struct.pack("ii", 1, 0)


class Request(NamedTuple):
    """What a client asks: ``path`` is split at its slashes and decoded, ``form`` is the body."""

    method: str
    host: str
    path: tuple[str, ...]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    form: Mapping[str, str]


class Answer(NamedTuple):
    """What a client gets. ``length`` claims another one than the body has."""

    status: int
    body: bytes
    headers: Mapping[str, str] = {}
    length: int | None = None

    @classmethod
    def json(cls, status: int, document: Any, **headers: str) -> Answer:
        return cls(status, json.dumps(document).encode(), headers)


class _Fault(NamedTuple):
    break_: Callable[[BaseHTTPRequestHandler, Answer], Answer | None]
    operations: tuple[str, ...]


class HTTPSServer:
    """Serves on a free port of 127.0.0.1, known as ``localhost``, 127.0.0.1 and ``*.vault.test``.

    A subclass names the operation of each request and answers it. ``calls`` counts requests by
    operation, ``connections`` those that clients opened. A fault holds until ``heal``, for the
    operations named (none: all) and for so many requests (``times``).
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.connections = 0
        self._lock = threading.Lock()
        self._release = threading.Event()
        self._fault: _Fault | None = None
        self._times = ALWAYS
        self._open: set[socket.socket] = set()
        self._directory = tempfile.TemporaryDirectory()
        folder = Path(self._directory.name)
        self.ca_file = folder / "ca.pem"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca, chain = certificates()
        self.ca_file.write_bytes(ca)
        (folder / "server.pem").write_bytes(chain)
        context.load_cert_chain(folder / "server.pem")
        self._server = _Server(self, context)
        self.port: int = self._server.server_port
        self.url = f"https://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.05], daemon=True)
        self._thread.start()

    def operation(self, request: Request) -> str:
        raise NotImplementedError

    def respond(self, request: Request) -> Answer:
        raise NotImplementedError

    def stop(self) -> None:
        self.heal()
        self._server.shutdown()
        self._thread.join()
        self.disconnect()
        self._server.server_close()
        self._directory.cleanup()

    def reset(self) -> None:
        """Forget faults and counts, and let go whoever hangs."""
        self.heal()
        self.calls.clear()
        self.connections = 0

    def disconnect(self) -> None:
        """Close all connections that are open."""
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    # -- faults --

    def answer(self, answer: Answer, *operations: str, times: float = ALWAYS) -> None:
        """Give this answer to everything."""
        self._set(lambda handler, right: answer, operations, times)

    def cut(self, *operations: str, times: float = ALWAYS) -> None:
        """Close the connection instead of answering."""
        self._set(lambda handler, right: None, operations, times)

    def reset_midway(self, *operations: str) -> None:
        """Reset the connection in the middle of the right answer."""

        def break_(handler: BaseHTTPRequestHandler, right: Answer) -> None:
            _send(handler, right._replace(body=right.body[: len(right.body) // 2]), right.body)
            plain = handler.connection
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            plain.close()

        self._set(break_, operations)

    def hang(self, *operations: str) -> None:
        """Do not answer before ``heal``."""
        release = self._release

        def break_(handler: BaseHTTPRequestHandler, right: Answer) -> None:
            release.wait(30)

        self._set(break_, operations)

    def drip(self, *operations: str) -> None:
        """Hand out the right answer byte by byte, until ``heal``."""
        release = self._release

        def break_(handler: BaseHTTPRequestHandler, right: Answer) -> None:
            _send(handler, right._replace(body=b""), right.body)
            for byte in right.body:
                handler.wfile.write(bytes([byte]))
                handler.wfile.flush()
                release.wait(DRIP)

        self._set(break_, operations)

    def drip_headers(self, *operations: str) -> None:
        """Begin an answer, and hand out a header byte by byte without an end, until ``heal``."""
        release = self._release

        def break_(handler: BaseHTTPRequestHandler, right: Answer) -> None:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
            while not release.wait(DRIP):
                handler.wfile.write(b"x")
                handler.wfile.flush()

        self._set(break_, operations)

    def heal(self) -> None:
        """End the fault, and let go who hangs."""
        self._release.set()
        self._release = threading.Event()
        self._fault = None

    def _set(
        self,
        break_: Callable[[BaseHTTPRequestHandler, Answer], Answer | None],
        operations: tuple[str, ...],
        times: float = ALWAYS,
    ) -> None:
        self._fault, self._times = _Fault(break_, operations), times

    # -- serving --

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        request = _read(handler)
        operation = self.operation(request)
        with self._lock:
            self.calls[operation] += 1
            fault = self._fault
            if fault and fault.operations and operation not in fault.operations:
                fault = None
            if fault:
                fault = fault if self._times > 0 else None
                self._times -= 1
        answer: Answer | None = self.respond(request)
        if fault and answer is not None:
            answer = fault.break_(handler, answer)
        if answer is None:
            handler.close_connection = True
            with contextlib.suppress(OSError):
                handler.connection.shutdown(socket.SHUT_RDWR)
        else:
            _send(handler, answer)

    def opened(self, connection: socket.socket) -> None:
        with self._lock:
            self.connections += 1
            self._open.add(connection)

    def closed(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.discard(connection)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # no answer waits for an ACK that the client delays
    wbufsize = -1
    server: _Server

    def setup(self) -> None:
        self.request.settimeout(30)
        self.request.do_handshake()
        self.server.owner.opened(self.request)
        super().setup()

    def finish(self) -> None:
        self.server.owner.closed(self.request)
        with contextlib.suppress(OSError):
            super().finish()

    def do_GET(self) -> None:
        with contextlib.suppress(OSError):
            self.server.owner.serve(self)
            return
        self.close_connection = True

    do_POST = do_GET  # noqa: N815 - the name that http.server calls

    def log_message(self, *args: object) -> None:
        """Keep quiet."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, owner: HTTPSServer, context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.owner = owner
        self._context = context

    def get_request(self) -> tuple[ssl.SSLSocket, Any]:
        connection, address = super().get_request()
        # The handshake is for the thread of the connection: a client that hangs hinders no other.
        wrapped = self._context.wrap_socket(
            connection, server_side=True, do_handshake_on_connect=False
        )
        return wrapped, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet: clients that leave, or trust another CA, are what is tested."""


def _read(handler: BaseHTTPRequestHandler) -> Request:
    url = urlsplit(handler.path)
    body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0)).decode()
    return Request(
        method=handler.command,
        host=handler.headers.get("Host", "").partition(":")[0],
        path=tuple(unquote(segment) for segment in url.path.strip("/").split("/")),
        query={name: values[0] for name, values in parse_qs(url.query).items()},
        headers={name.lower(): value for name, value in handler.headers.items()},
        form={name: values[0] for name, values in parse_qs(body).items()},
    )


def _send(handler: BaseHTTPRequestHandler, answer: Answer, whole: bytes | None = None) -> None:
    length = answer.length
    if length is None:
        length = len(answer.body if whole is None else whole)
    handler.send_response(answer.status)
    for name, value in {"Content-Type": "application/json", **answer.headers}.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(length))
    handler.end_headers()
    handler.wfile.write(answer.body)
    handler.wfile.flush()
    handler.close_connection = answer.length is not None


@functools.cache
def certificates() -> tuple[bytes, bytes]:
    """Return a CA's certificate, and the key and the certificate of a server, in PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    now, day = dt.datetime.now(dt.UTC), dt.timedelta(days=1)

    def certificate(name: str, key: Any, issuer: str, extensions: list[tuple[Any, bool]]) -> Any:
        def named(text: str) -> Any:
            return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

        builder = x509.CertificateBuilder(
            named(issuer),
            named(name),
            key.public_key(),
            x509.random_serial_number(),
            now - day,
            now + day,
        )
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
        for extension, critical in [*extensions, (identifier, False), (authority, False)]:
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def usage(**allowed: bool) -> Any:
        names = ("digital_signature", "content_commitment", "key_encipherment", "key_agreement")
        names += ("data_encipherment", "key_cert_sign", "crl_sign", "encipher_only")
        return x509.KeyUsage(**{n: n in allowed for n in (*names, "decipher_only")})

    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    hosts = [x509.DNSName("localhost"), x509.DNSName("*.vault.test")]
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    authority = [
        (x509.BasicConstraints(ca=True, path_length=0), True),
        (usage(key_cert_sign=True), True),
    ]
    server = [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (usage(digital_signature=True), True),
        (x509.SubjectAlternativeName([*hosts, address]), False),
    ]
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    ca = certificate("Test CA", ca_key, "Test CA", authority)
    return ca, private + certificate("localhost", key, "Test CA", server)
