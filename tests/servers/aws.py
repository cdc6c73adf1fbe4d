"""AWS over HTTP: moto's own server, behind a layer that fails on demand and counts requests."""

from __future__ import annotations

import io
import json
import re
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs

from tests.canary import canary, unwatched
from tests.servers.libraries import lacking

REGION = "eu-central-1"
#: moto's only account.
ACCOUNT = "123456789012"
ALWAYS = float("inf")

#: What a request of an operation asks for, where IAM decides by it.
RESOURCES = {
    "GetSecretValue": "SecretId",
    "GetParameter": "Name",
    "GetParameters": "Names",
    "AssumeRole": "RoleArn",
    "AssumeRoleWithWebIdentity": "RoleArn",
}
_SCOPE = re.compile(r"Credential=[^/]*/[0-9]{8}/([^/]*)/")

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class AWSServer:
    """moto on a free port of 127.0.0.1. ``calls`` counts requests by operation; ``regions`` are
    those for which they were signed, and ``requests`` what they said, in their order.

    A fault holds for the operations named (none: all) and for so many requests (``times``; none:
    until ``reset``).
    """

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import (
            DomainDispatcherApplication,
            MotoRequestHandler,
            create_backend_app,
        )
        from werkzeug.serving import make_server

        class Handler(MotoRequestHandler):
            def log(self, *args: object) -> None:
                """Keep quiet."""

        self.calls: Counter[str] = Counter()
        self.regions: list[str] = []
        self.requests: list[Mapping[str, Any]] = []
        self._lock = threading.Lock()
        self._release = threading.Event()
        self._fault: tuple[App, tuple[str, ...], float] | None = None
        self._denied: set[str] = set()
        self._clients: dict[tuple[str, str], Any] = {}
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._server = make_server(
            "127.0.0.1", 0, self._answer, threaded=True, request_handler=Handler
        )
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        for client in self._clients.values():
            client.close()
        self._release.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def reset(self) -> None:
        """Forget secrets, faults and counts, and let go whoever hangs."""
        from moto.backends import get_backend

        self.heal()
        for service in ("secretsmanager", "ssm", "sts"):
            get_backend(service).reset()
        self._denied.clear()
        self._forget()

    def _forget(self) -> None:
        self.calls.clear()
        self.regions.clear()
        self.requests.clear()

    def options(self, **client: Any) -> dict[str, Any]:
        """Return OPTIONS that lead here, with further arguments of the client."""
        return {
            "session": {
                "aws_access_key_id": "test",
                "aws_secret_access_key": canary("aws-access-key"),
            },
            "client": {"endpoint_url": self.url, **client},
        }

    @contextmanager
    def client(self, region: str = REGION, service: str = "secretsmanager") -> Iterator[Any]:
        """Give a boto3 client that seeds; its requests are not counted, its log not looked at."""
        import boto3.session

        with unwatched():
            if (region, service) not in self._clients:
                options = self.options()
                self._clients[region, service] = boto3.session.Session(**options["session"]).client(
                    service, region_name=region, **options["client"]
                )
            yield self._clients[region, service]
        self._forget()

    def create(self, name: str, value: str | bytes, *, region: str = REGION) -> dict[str, Any]:
        """Create a secret; return its ``ARN``, ``Name`` and ``VersionId``."""
        with self.client(region) as client:
            return dict(client.create_secret(Name=name, **_payload(value)))

    def put(self, name: str, value: str | bytes, *stages: str, region: str = REGION) -> str:
        """Add a version, current unless ``stages`` are given; return its id."""
        with self.client(region) as client:
            labels = {"VersionStages": list(stages)} if stages else {}
            answer = client.put_secret_value(SecretId=name, **_payload(value), **labels)
            return str(answer["VersionId"])

    def put_parameter(
        self, name: str, value: str, *labels: str, kind: str = "SecureString", region: str = REGION
    ) -> str:
        """Add a version to a parameter of Parameter Store, with labels; return its number."""
        with self.client(region, "ssm") as client:
            version = client.put_parameter(Name=name, Value=value, Type=kind, Overwrite=True)
            if labels:
                client.label_parameter_version(Name=name, Labels=list(labels))
            return str(version["Version"])

    def promote(self, name: str, version: str, current: str) -> None:
        """Make a version the current one, and ``current`` the previous one."""
        with self.client() as client:
            client.update_secret_version_stage(
                SecretId=name,
                VersionStage="AWSCURRENT",
                MoveToVersionId=version,
                RemoveFromVersionId=current,
            )

    # -- faults --

    def deny(self, name: str) -> None:
        """Refuse what asks for this secret, parameter or role, as IAM does."""
        self._denied.add(name)

    def fail(
        self, status: int, code: str, message: str = "", *operations: str, times: float = ALWAYS
    ) -> None:
        """Answer with a service's error."""
        self._fault = _error(status, code, message), operations, times

    def answer(self, status: int, body: bytes, *operations: str, length: int | None = None) -> None:
        """Answer with ``body``, whose length may be claimed to be another."""
        self._fault = _body(status, body, length), operations, ALWAYS

    def cut(self, *operations: str) -> None:
        """Close the connection instead of answering."""

        def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionAbortedError

        self._fault = app, operations, ALWAYS

    def hang(self, *operations: str) -> None:
        """Do not answer before ``heal``."""
        release = self._release

        def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
            release.wait(30)
            raise ConnectionAbortedError

        self._fault = app, operations, ALWAYS

    def heal(self) -> None:
        """End the fault, and let go who hangs."""
        self._release.set()
        self._release = threading.Event()
        self._fault = None

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        operation = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
        # Read whole: a body that nobody reads would reset the connection before the answer arrives.
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        request: dict[str, Any]
        if operation:
            request = json.loads(body)
        else:  # the protocol of STS
            request = {name: values[0] for name, values in parse_qs(body.decode()).items()}
            operation = request.get("Action", "")
        scope = _SCOPE.search(environ.get("HTTP_AUTHORIZATION", ""))
        with self._lock:
            self.calls[operation] += 1
            self.regions.append(scope[1] if scope else "")
            self.requests.append(request)
            app: App = self._moto
            asked = request.get(RESOURCES.get(operation, ""))
            if self._denied.intersection(asked if isinstance(asked, list) else [asked]):
                app = _denial(operation)
            if self._fault is not None:
                fault, operations, times = self._fault
                if times > 0 and (not operations or operation in operations):
                    app = fault
                    self._fault = fault, operations, times - 1
        return app(environ, start)


def _denial(operation: str) -> App:
    if operation.startswith("AssumeRole"):
        return _body(403, xml_error("AccessDenied", "not authorized").encode())
    return _error(400, "AccessDeniedException", "not authorized")


def xml_error(code: str, message: str = "") -> str:
    """Return an error as STS answers it."""
    inner = f"<Type>Sender</Type><Code>{code}</Code><Message>{message}</Message>"
    return f"<ErrorResponse><Error>{inner}</Error></ErrorResponse>"


def _error(status: int, code: str, message: str) -> App:
    return _body(status, json.dumps({"__type": code, "message": message}).encode())


def _body(status: int, body: bytes, length: int | None = None) -> App:
    def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        size = len(body) if length is None else length
        headers = [("Content-Type", "application/x-amz-json-1.1"), ("Content-Length", str(size))]
        start(f"{status} Answer", headers)
        return [body]

    return app


def _payload(value: str | bytes) -> dict[str, Any]:
    return {"SecretString" if isinstance(value, str) else "SecretBinary": value}


def missing() -> str:
    """Return what must be installed before it can run; empty when nothing."""
    return lacking("'moto[server]' boto3", "boto3", "moto", "flask", "flask_cors")


@contextmanager
def started() -> Iterator[AWSServer]:
    """Run a server until the block ends."""
    server = AWSServer()
    try:
        yield server
    finally:
        server.stop()
