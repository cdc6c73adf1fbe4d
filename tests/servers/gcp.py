"""Secret Manager of Google Cloud: a real gRPC server made of the client library's own messages.

The same secrets are served over REST by ``http.server``. Both run in a process of their own: a gRPC
server in this one would keep gRPC from working in children that tests fork.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import multiprocessing
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.managers import BaseManager
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.servers.libraries import lacking

PROJECT = "acme"
ALWAYS = float("inf")

#: The HTTP codes that Google gives to the statuses of gRPC.
HTTP_CODES = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "INTERNAL": 500,
    "UNKNOWN": 500,
    "DATA_LOSS": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


class Refusal(Exception):
    """An answer of Secret Manager that is an error."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Backend:
    """The secrets, the faults and the counts; lives in the servers' process.

    Tests reach it through a proxy, which passes on calls of methods only.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._release = threading.Event()
        self._fault: list[Any] = []
        self.reset()
        self._rest = _serve_rest(self)
        self._certificate, key = _make_certificate()
        self._grpc, self._ports = _serve_grpc(self, self._certificate, key)

    # -- what a test says --

    def endpoints(self) -> dict[str, str]:
        """Return host and port by transport; ``tls`` is gRPC with the ``certificate``."""
        return {
            "grpc": f"127.0.0.1:{self._ports[0]}",
            "tls": f"localhost:{self._ports[1]}",
            "rest": f"127.0.0.1:{self._rest.server_port}",
        }

    def certificate(self) -> bytes:
        """Return the certificate of the TLS port, in PEM; it is its own CA."""
        return self._certificate

    def reset(self) -> None:
        """Forget secrets, faults and counts, and let go who hangs."""
        self.heal()
        self._secrets: dict[str, list[dict[str, Any]]] = {}
        self._aliases: dict[tuple[str, str], int] = {}
        self._denied: set[str] = set()
        self._calls: Counter[str] = Counter()
        self._checksums = True

    def put(self, name: str, data: bytes, *, project: str = PROJECT, region: str = "") -> str:
        """Add a version to a secret; return its number."""
        versions = self._secrets.setdefault(_secret(name, project, region), [])
        versions.append({"data": data, "state": "ENABLED"})
        return str(len(versions))

    def set_state(self, name: str, version: str, state: str, *, project: str = PROJECT) -> None:
        """Make a version ``ENABLED``, ``DISABLED`` or ``DESTROYED``."""
        self._secrets[_secret(name, project, "")][int(version) - 1]["state"] = state

    def set_alias(self, name: str, alias: str, version: str, *, project: str = PROJECT) -> None:
        """Give a version an alias."""
        self._aliases[_secret(name, project, ""), alias] = int(version)

    def deny(self, name: str, *methods: str, project: str = PROJECT) -> None:
        """Refuse ``access`` or ``list`` of a secret, as IAM does."""
        self._denied |= {f"{method} {_secret(name, project, '')}" for method in methods}

    def omit_checksums(self) -> None:
        """Send no CRC32C, as some emulators do."""
        self._checksums = False

    def fail(
        self, status: str, message: str = "", *, times: float = ALWAYS, methods: Any = ()
    ) -> None:
        """Answer with this status, so many times, to these methods (none: to all)."""
        self._fault = ["fail", status, message, times, methods]

    def corrupt(self, times: float = ALWAYS) -> None:
        """Change payloads on their way, so that the checksum does not match."""
        self._fault = ["corrupt", "", "", times]

    def answer(self, code: int, body: bytes, length: int = -1) -> None:
        """Answer a REST request with ``body``, whose length may be claimed to be another."""
        self._fault = ["answer", code, (body, length if length >= 0 else len(body)), ALWAYS]

    def cut(self) -> None:
        """Close the connection of a REST request instead of answering."""
        self._fault = ["cut", "", "", ALWAYS]

    def hang(self) -> None:
        """Answer only after ``heal``."""
        self._fault = ["hang", "", "", ALWAYS]

    def heal(self) -> None:
        """End the fault, and let go who hangs."""
        self._release.set()
        self._release = threading.Event()
        self._fault = []

    def calls(self) -> Counter[str]:
        """Return the numbers of requests by method (``access``, ``list``)."""
        return self._calls

    # -- what a server asks --

    def take_fault(self, method: str) -> list[Any]:
        """Count the request; return its fault, or nothing. Hangs, and raises ``Refusal``."""
        with self._lock:
            self._calls[method] += 1
            fault, release = self._fault, self._release
            if not fault or fault[3] <= 0 or (fault[4:] and method not in (fault[4] or [method])):
                return []
            fault[3] -= 1
        if fault[0] == "hang":
            release.wait(30)
        if fault[0] == "fail":
            raise Refusal(fault[1], fault[2])
        return fault

    def access(self, name: str, fault: list[Any]) -> tuple[str, bytes, int | None]:
        """Return the version's full name, its payload and the checksum."""
        from google_crc32c import value as crc32c

        secret, _, wanted = name.partition("/versions/")
        versions = self._versions("access", secret)
        number = self._aliases.get((secret, wanted), 0)
        if wanted == "latest":
            number = len(versions)
        elif wanted.isdecimal():
            number = int(wanted)
        elif not number:
            raise Refusal("INVALID_ARGUMENT", f"Resource ID [{name}] is not in a valid format.")
        if not 0 < number <= len(versions):
            raise Refusal("NOT_FOUND", f"Secret [{secret}] or version [{wanted}] not found.")
        version = versions[number - 1]
        if version["state"] != "ENABLED":
            full = f"{secret}/versions/{number}"
            raise Refusal(
                "FAILED_PRECONDITION", f"Secret Version [{full}] is in {version['state']} state."
            )
        data = version["data"]
        checksum = crc32c(data) if self._checksums else None
        if fault:  # to corrupt
            data = b"?" + data
        return f"{secret}/versions/{number}", data, checksum

    def versions(self, secret: str) -> list[tuple[str, str]]:
        """Return full name and state of every version, the newest first."""
        versions = self._versions("list", secret)
        numbered = [(f"{secret}/versions/{n}", v["state"]) for n, v in enumerate(versions, 1)]
        return numbered[::-1]

    def _versions(self, method: str, secret: str) -> list[dict[str, Any]]:
        if f"{method} {secret}" in self._denied:
            raise Refusal(
                "PERMISSION_DENIED",
                f"Permission 'secretmanager.versions.{method}' denied for resource '{secret}'"
                " (or it may not exist).",
            )
        if secret not in self._secrets:
            raise Refusal("NOT_FOUND", f"Secret [{secret}] not found or has no versions.")
        return self._secrets[secret]


def _secret(name: str, project: str, region: str) -> str:
    location = f"/locations/{region}" if region else ""
    return f"projects/{project}{location}/secrets/{name}"


@contextmanager
def _refusing(context: Any) -> Iterator[None]:
    import grpc

    try:
        yield
    except Refusal as refusal:
        context.abort(grpc.StatusCode[refusal.status], refusal.message)


def _make_certificate() -> tuple[bytes, bytes]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now, day = dt.datetime.now(dt.UTC), dt.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - day, now + day)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    return certificate.public_bytes(encoding), key.private_bytes(
        encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _serve_grpc(backend: Backend, certificate: bytes, key: bytes) -> tuple[Any, tuple[int, int]]:
    import grpc
    from google.cloud.secretmanager_v1.types import resources, service

    def access(request: Any, context: Any) -> Any:
        with _refusing(context):
            name, data, checksum = backend.access(request.name, backend.take_fault("access"))
        payload = resources.SecretPayload(data=data, data_crc32c=checksum)
        return service.AccessSecretVersionResponse(name=name, payload=payload)

    def list_(request: Any, context: Any) -> Any:
        with _refusing(context):
            backend.take_fault("list")
            versions = backend.versions(request.parent)
        start = int(request.page_token or 0)
        page = versions[start : start + 2]
        return service.ListSecretVersionsResponse(
            versions=[resources.SecretVersion(name=name, state=state) for name, state in page],
            next_page_token=str(start + 2) if start + 2 < len(versions) else "",
        )

    handlers = {
        method: grpc.unary_unary_rpc_method_handler(
            function, request_deserializer=request.deserialize, response_serializer=answer.serialize
        )
        for method, function, request, answer in (
            (
                "AccessSecretVersion",
                access,
                service.AccessSecretVersionRequest,
                service.AccessSecretVersionResponse,
            ),
            (
                "ListSecretVersions",
                list_,
                service.ListSecretVersionsRequest,
                service.ListSecretVersionsResponse,
            ),
        )
    }
    server = grpc.server(ThreadPoolExecutor(48))
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                "google.cloud.secretmanager.v1.SecretManagerService", handlers
            ),
        )
    )
    credentials = grpc.ssl_server_credentials([(key, certificate)])
    ports = (
        server.add_insecure_port("127.0.0.1:0"),
        server.add_secure_port("127.0.0.1:0", credentials),
    )
    server.start()
    return server, ports


def _serve_rest(backend: Backend) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # an answer in one packet: two would wait for the client's delayed ACK

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            method = "list" if url.path.endswith("/versions") else "access"
            name = url.path.removeprefix("/v1/").removesuffix(":access").removesuffix("/versions")
            try:
                fault = backend.take_fault(method)
                if fault and fault[0] == "answer":
                    self._send(fault[1], *fault[2])
                elif fault and fault[0] == "cut":
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True
                else:
                    answer = _answer_rest(backend, method, name, parse_qs(url.query), fault)
                    self._send(200, json.dumps(answer).encode())
            except Refusal as refusal:
                code = HTTP_CODES[refusal.status]
                error = {"code": code, "message": refusal.message, "status": refusal.status}
                self._send(code, json.dumps({"error": error}).encode())

        def _send(self, code: int, body: bytes, length: int | None = None) -> None:
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body) if length is None else length))
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = length is not None

        def log_message(self, *args: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def _answer_rest(
    backend: Backend, method: str, name: str, query: dict[str, list[str]], fault: list[Any]
) -> dict[str, Any]:
    if method == "list":
        versions = backend.versions(name)
        start = int(query.get("pageToken", ["0"])[0])
        page = [{"name": name, "state": state} for name, state in versions[start : start + 2]]
        more = {"nextPageToken": str(start + 2)} if start + 2 < len(versions) else {}
        return {"versions": page, **more}
    full, data, checksum = backend.access(name, fault)
    payload = {"data": base64.b64encode(data).decode()}
    if checksum is not None:
        payload["dataCrc32c"] = str(checksum)
    return {"name": full, "payload": payload}


class _Manager(BaseManager):
    """Runs the backend in a new process, and passes calls on to it."""


_Manager.register("Backend", Backend)


class GCPServer:
    """What a test gets: the backend, and OPTIONS that lead to it."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.endpoints: dict[str, str] = backend.endpoints()

    def options(self, transport: str = "grpc", **options: Any) -> dict[str, Any]:
        """Return OPTIONS of a provider that talks to this server."""
        return {
            "project": PROJECT,
            "transport": transport,
            "insecure": True,
            "client": {"client_options": {"api_endpoint": self.endpoints[transport]}},
            **options,
        }


def missing() -> str:
    """Return what must be installed before it can run; empty when nothing."""
    return lacking(
        "grpcio google-cloud-secret-manager google-crc32c cryptography",
        "grpc",
        "google.cloud.secretmanager_v1",
        "google_crc32c",
        "cryptography",
    )


@contextmanager
def started() -> Iterator[GCPServer]:
    """Run a server until the block ends."""
    manager = _Manager(ctx=multiprocessing.get_context("spawn"))
    manager.start()
    try:
        yield GCPServer(manager.Backend())  # type: ignore[attr-defined]
    finally:
        manager.shutdown()
