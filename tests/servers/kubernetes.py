"""Kubernetes' API over HTTPS, as far as it gives Secrets, and the files that a pod has."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.canary import canary
from tests.servers.https import Answer, HTTPSServer, Request
from tests.servers.libraries import lacking

NAMESPACE = "shop"


class KubernetesServer(HTTPSServer):
    """Counts ``get``, and ``other`` for what is no request for a Secret."""

    def reset(self) -> None:
        """Forget Secrets, tokens, faults and counts."""
        super().reset()
        self._secrets: dict[tuple[str, str], Answer] = {}
        self._denied: set[str] = set()
        self._version = 1000
        self.tokens = {canary("token")}

    # -- what a test says --

    def put(self, name: str, *, namespace: str = NAMESPACE, **data: str | bytes) -> str:
        """Create or replace a Secret; return its resourceVersion."""
        return self.put_data(name, data, namespace=namespace)

    def put_data(
        self, name: str, data: Mapping[str, str | bytes], *, namespace: str = NAMESPACE
    ) -> str:
        """As ``put``, for keys that are no names in Python."""
        self._version += 1
        secret = {
            "kind": "Secret",
            "apiVersion": "v1",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "resourceVersion": str(self._version),
            },
            "data": {key: _encoded(value) for key, value in data.items()},
            "type": "Opaque",
        }
        self._secrets[namespace, name] = Answer.json(200, secret)
        return str(self._version)

    def delete(self, name: str) -> None:
        del self._secrets[NAMESPACE, name]

    def deny(self, name: str) -> None:
        """Refuse a Secret, as RBAC does."""
        self._denied.add(name)

    def mount(self, directory: Path, token: str = "") -> dict[str, Any]:
        """Write the files of a service account; return OPTIONS that lead here with them."""
        directory.mkdir(exist_ok=True)
        (directory / "token").write_text(f"{token or canary('token')}\n")
        (directory / "ca.crt").write_bytes(self.ca_file.read_bytes())
        (directory / "namespace").write_text(NAMESPACE)
        return {
            "url": self.url,
            "token_file": directory / "token",
            "ca_file": directory / "ca.crt",
        }

    # -- what it answers --

    def operation(self, request: Request) -> str:
        path = request.path
        is_secret = path[:3] == ("api", "v1", "namespaces") and path[4:5] == ("secrets",)
        return "get" if is_secret and len(path) == 6 and request.method == "GET" else "other"

    def respond(self, request: Request) -> Answer:
        if self.operation(request) == "other":
            return Answer(404, b"404 page not found", {"Content-Type": "text/plain"})
        if request.headers.get("authorization", "").removeprefix("Bearer ") not in self.tokens:
            return status(401, "Unauthorized")
        namespace, name = request.path[3], request.path[5]
        if name in self._denied:
            return status(403, "Forbidden", name)
        return self._secrets.get((namespace, name), status(404, "NotFound", name))


def status(code: int, reason: str, name: str = "", kind: str = "secrets", **headers: str) -> Answer:
    """Return an error of the API."""
    answer = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": f'secrets "{name}" cannot be had',
        "reason": reason,
        "details": {"name": name, "kind": kind},
        "code": code,
    }
    return Answer.json(code, answer)._replace(headers=headers)


def _encoded(value: str | bytes) -> str:
    data = value.encode() if isinstance(value, str) else value
    return base64.b64encode(data).decode()


def missing() -> str:
    """Return what must be installed before it can run; empty when nothing."""
    return lacking("urllib3 cryptography", "urllib3", "cryptography")


@contextmanager
def started() -> Iterator[KubernetesServer]:
    """Run a server until the block ends."""
    server = KubernetesServer()
    try:
        server.reset()
        yield server
    finally:
        server.stop()
