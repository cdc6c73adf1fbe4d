"""Backends that fail as the table of faults says, behind one interface."""

from __future__ import annotations

import base64
import os
import shutil
import socket
import tempfile
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import pytest

from django_secret_registry import SecretRegistry
from django_secret_registry.provider_cache import ProviderSpec
from django_secret_registry.providers.memory import MemoryStore
from tests.canary import canary
from tests.local_providers import IO_ERROR, unprivileged
from tests.servers.aws import REGION, AWSServer
from tests.servers.azure import AzureServer, key_vault_error
from tests.servers.gcp import PROJECT, GCPServer
from tests.servers.https import Answer, HTTPSServer, certificates
from tests.servers.kubernetes import KubernetesServer, status
from tests.servers.openbao import OpenBaoServer
from tests.servers.proxy import NameServer, Proxy

#: The file that each local backend keeps its secret in is called like the one that fails.
NAME = Path(IO_ERROR).name
OLD, NEW = canary("old"), canary("new")
NO_SUCH_HOST = "secrets.invalid"


class FaultyBackend:
    """One secret, ``NAME``, at the alias ``p``; works until it is broken."""

    backend: str
    region = ""
    #: What a reference says behind the name, where the payload is more than the value.
    key = ""

    def __init__(self) -> None:
        self.options: dict[str, Any] = {}
        self.cleanup = ExitStack()

    def spec(self) -> ProviderSpec:
        path = f"django_secret_registry.providers.{self.backend}"
        return ProviderSpec("p", path, region=self.region, options=self.options)

    def put(self, value: str) -> None:
        raise NotImplementedError

    def delete(self) -> None:
        raise NotImplementedError

    def break_(self, fault: str, registry: SecretRegistry) -> None:
        """Bring the fault about; the method is named like it."""
        if fault == "deleted":
            self.delete()
        elif fault != "clock jump":  # of which a backend knows nothing
            getattr(self, fault.lower().replace(" ", "_"))(registry)

    def heal(self, fault: str, registry: SecretRegistry) -> None:
        if fault == "deleted":
            self.put(NEW)

    def requests(self) -> int:
        """Return how often the backend was asked; 0 where nobody can count."""
        return 0

    def close(self) -> None:
        self.cleanup.close()


class NetworkBackend(FaultyBackend):
    """A server behind a proxy."""

    needle = NEW.encode()
    nowhere = f"{NO_SUCH_HOST}:443"
    proxy: Proxy

    def connection_refused(self, registry: SecretRegistry) -> None:
        self.proxy.refuse()

    def reset(self, registry: SecretRegistry) -> None:
        self.proxy.reset(self.needle)

    def slow_drip(self, registry: SecretRegistry) -> None:
        self.proxy.drip(self.needle)

    def no_dns(self, registry: SecretRegistry) -> None:
        self.lead_to(self.nowhere)
        registry.refresh(provider="p")  # a client that is open needs no name server

    def heal(self, fault: str, registry: SecretRegistry) -> None:
        super().heal(fault, registry)
        self.proxy.heal()
        if fault == "no DNS":
            self.lead_to(f"127.0.0.1:{self.proxy.port}")
            registry.refresh(provider="p")

    def close(self) -> None:
        self.proxy.heal()
        super().close()

    def lead_to(self, address: str) -> None:
        raise NotImplementedError


class AWSBackend(NetworkBackend):
    backend = "aws.SecretsManagerProvider"
    region = REGION

    def __init__(self, server: AWSServer, proxy: Proxy) -> None:
        super().__init__()
        self.server, self.proxy = server, proxy
        self.options = server.options(endpoint_url="")
        self.options["config"] = {"retries": {"mode": "standard", "total_max_attempts": 1}}
        self.lead_to(f"127.0.0.1:{proxy.port}")

    def lead_to(self, address: str) -> None:
        self.options["client"]["endpoint_url"] = f"http://{address}"

    def put(self, value: str) -> None:
        with self.server.client() as client:
            exists = any(secret["Name"] == NAME for secret in client.list_secrets()["SecretList"])
        (self.server.put if exists else self.server.create)(NAME, value)

    def delete(self) -> None:
        with self.server.client() as client:
            client.delete_secret(SecretId=NAME, ForceDeleteWithoutRecovery=True)

    def throttled(self, registry: SecretRegistry) -> None:
        self.server.fail(400, "ThrottlingException", "Rate exceeded")

    def server_error(self, registry: SecretRegistry) -> None:
        self.server.fail(500, "InternalServiceError", "an internal error")

    def hang(self, registry: SecretRegistry) -> None:
        self.server.hang()

    def malformed(self, registry: SecretRegistry) -> None:
        self.server.answer(200, f'{{"SecretString": "{canary()}'.encode())

    def access_denied(self, registry: SecretRegistry) -> None:
        self.server.fail(400, "AccessDeniedException", "not authorized")

    def expired_credentials(self, registry: SecretRegistry) -> None:
        self.server.fail(400, "ExpiredTokenException", "The security token is expired")

    def clock_off(self, registry: SecretRegistry) -> None:
        self.server.fail(400, "InvalidSignatureException", "Signature expired: 20000101T000000Z")

    def heal(self, fault: str, registry: SecretRegistry) -> None:
        self.server.heal()
        super().heal(fault, registry)

    def requests(self) -> int:
        return self.server.calls["GetSecretValue"]


class GCPBackend(NetworkBackend):
    backend = "gcp.SecretManagerProvider"

    def __init__(self, server: GCPServer, proxy: Proxy, transport: str) -> None:
        super().__init__()
        self.server, self.proxy = server.backend, proxy
        self.options = server.options(transport)
        if transport == "rest":
            self.needle = base64.b64encode(self.needle)
        else:
            names = NameServer()
            self.cleanup.callback(names.stop)
            self.nowhere = f"dns://127.0.0.1:{names.port}/{self.nowhere}"
        self.versions = 0
        self.lead_to(f"127.0.0.1:{proxy.port}")

    def lead_to(self, address: str) -> None:
        self.options["client"] = {"client_options": {"api_endpoint": address}}

    def put(self, value: str) -> None:
        self.server.put(NAME, value.encode(), project=PROJECT)
        self.versions += 1

    def delete(self) -> None:
        for version in range(1, self.versions + 1):
            self.server.set_state(NAME, str(version), "DESTROYED")

    def throttled(self, registry: SecretRegistry) -> None:
        self.server.fail("RESOURCE_EXHAUSTED", "quota")

    def server_error(self, registry: SecretRegistry) -> None:
        self.server.fail("INTERNAL", "an internal error")

    def hang(self, registry: SecretRegistry) -> None:
        self.server.hang()

    def malformed(self, registry: SecretRegistry) -> None:
        self.server.answer(200, f'{{"payload": {{"data": "{canary()}'.encode())

    def wrong_checksum(self, registry: SecretRegistry) -> None:
        self.server.corrupt()

    def access_denied(self, registry: SecretRegistry) -> None:
        self.server.fail("PERMISSION_DENIED", "no")

    def expired_credentials(self, registry: SecretRegistry) -> None:
        self.server.fail("UNAUTHENTICATED", "the token has expired")

    def heal(self, fault: str, registry: SecretRegistry) -> None:
        self.server.heal()
        super().heal(fault, registry)

    def requests(self) -> int:
        calls: int = self.server.calls()["access"]
        return calls


class HTTPSBackend(NetworkBackend):
    """A server that fails by itself, since a proxy sees nothing of what is said in TLS."""

    def __init__(self, server: HTTPSServer, proxy: Proxy) -> None:
        super().__init__()
        self.proxy = proxy
        self.faults = server
        self.folder = Path(tempfile.mkdtemp())
        self.cleanup.callback(shutil.rmtree, self.folder)

    def hang(self, registry: SecretRegistry) -> None:
        self.faults.hang("get")

    def reset(self, registry: SecretRegistry) -> None:
        self.faults.reset_midway("get")

    def slow_drip(self, registry: SecretRegistry) -> None:
        self.faults.drip("get")

    def heal(self, fault: str, registry: SecretRegistry) -> None:
        self.faults.heal()
        super().heal(fault, registry)

    def requests(self) -> int:
        return self.faults.calls["get"]


class AzureBackend(HTTPSBackend):
    backend = "azure.KeyVaultProvider"

    def __init__(self, server: AzureServer, proxy: Proxy) -> None:
        super().__init__(server, proxy)
        self.server = server
        self.options = server.options()
        self.lead_to(f"127.0.0.1:{proxy.port}")

    def lead_to(self, address: str) -> None:
        self.options["vault"] = f"https://{address}"

    def put(self, value: str) -> None:
        self.server.put(NAME, value, vault="127")

    def delete(self) -> None:
        self.server.delete(NAME, vault="127")

    def throttled(self, registry: SecretRegistry) -> None:
        self.faults.answer(key_vault_error(429, "Throttled"), "get")

    def server_error(self, registry: SecretRegistry) -> None:
        self.faults.answer(key_vault_error(500, "InternalServerError"), "get")

    def malformed(self, registry: SecretRegistry) -> None:
        self.faults.answer(Answer(200, f'{{"value": "{canary()}'.encode()), "get")

    def access_denied(self, registry: SecretRegistry) -> None:
        self.faults.answer(key_vault_error(403, "Forbidden", "ForbiddenByRbac"), "get")

    def disabled(self, registry: SecretRegistry) -> None:
        self.faults.answer(key_vault_error(403, "Forbidden", "SecretDisabled"), "get")

    def untrusted(self, registry: SecretRegistry) -> None:
        self.options["transport"] = {"use_env_settings": False}
        registry.refresh(provider="p")

    def expired_credentials(self, registry: SecretRegistry) -> None:
        self.options["credential"]["client_secret"] = canary("expired")
        registry.refresh(provider="p")

    def token_outage(self, registry: SecretRegistry) -> None:
        self.faults.answer(Answer(503, b"{}"), "token")
        registry.refresh(provider="p")

    def heal(self, fault: str, registry: SecretRegistry) -> None:
        super().heal(fault, registry)
        if fault in ("untrusted", "expired credentials", "token outage"):
            self.options |= self.server.token_options()
            registry.refresh(provider="p")


class KubernetesBackend(HTTPSBackend):
    backend = "kubernetes.SecretProvider"
    key = "#value"

    def __init__(self, server: KubernetesServer, proxy: Proxy) -> None:
        super().__init__(server, proxy)
        self.server = server
        self.options = server.mount(self.folder)
        self.lead_to(f"127.0.0.1:{proxy.port}")

    def lead_to(self, address: str) -> None:
        self.options["url"] = f"https://{address}"

    def put(self, value: str) -> None:
        self.server.put(NAME, value=value)

    def delete(self) -> None:
        self.server.delete(NAME)

    def throttled(self, registry: SecretRegistry) -> None:
        self.faults.answer(status(429, "TooManyRequests"))

    def server_error(self, registry: SecretRegistry) -> None:
        self.faults.answer(status(500, "InternalError"))

    def malformed(self, registry: SecretRegistry) -> None:
        self.faults.answer(Answer(200, f'{{"kind": "Secret", "data": "{canary()}'.encode()))

    def access_denied(self, registry: SecretRegistry) -> None:
        self.faults.answer(status(403, "Forbidden"))

    def expired_credentials(self, registry: SecretRegistry) -> None:
        self.faults.answer(status(401, "Unauthorized"))

    def not_mounted(self, registry: SecretRegistry) -> None:
        self.options["token_file"].unlink()

    def untrusted(self, registry: SecretRegistry) -> None:
        self.options["ca_file"].write_bytes(certificates.__wrapped__()[0])

    def heal(self, fault: str, registry: SecretRegistry) -> None:
        super().heal(fault, registry)
        self.server.mount(self.folder)


class VaultBackend(NetworkBackend):
    """KV v2; what logs in and looks around beforehand works."""

    backend = "vault.VaultProvider"
    key = "#value"
    path = f"secret/data/{NAME}"

    def __init__(self, server: OpenBaoServer, proxy: Proxy) -> None:
        super().__init__()
        self.server, self.proxy = server, proxy
        token = server.token(server.policy("faults", **{"secret/data/*": ["read"]}))
        self.options = {"auth": {"method": "token", "token": token}}
        self.lead_to(f"127.0.0.1:{proxy.port}")

    def lead_to(self, address: str) -> None:
        self.options["url"] = f"http://{address}"

    def put(self, value: str) -> None:
        self.server.put(NAME, value=value)

    def delete(self) -> None:
        self.server.admin.secrets.kv.v2.delete_latest_version_of_secret(NAME)

    def throttled(self, registry: SecretRegistry) -> None:
        self.server.layer.fail(429, on=self.path)

    def server_error(self, registry: SecretRegistry) -> None:
        self.server.layer.fail(500, "internal error", on=self.path)

    def sealed(self, registry: SecretRegistry) -> None:
        self.server.layer.fail(503, "Vault is sealed", on=self.path)

    def hang(self, registry: SecretRegistry) -> None:
        self.server.layer.hang(on=self.path)

    def malformed(self, registry: SecretRegistry) -> None:
        body = f'{{"data": {{"data": {{"value": "{canary()}'
        self.server.layer.answer(body.encode(), on=self.path)

    def access_denied(self, registry: SecretRegistry) -> None:
        self.server.policy("faults", **{"secret/data/*": ["read"], self.path: ["deny"]})

    def heal(self, fault: str, registry: SecretRegistry) -> None:
        self.server.layer.heal()
        self.server.policy("faults", **{"secret/data/*": ["read"]})
        super().heal(fault, registry)

    def requests(self) -> int:
        return self.server.layer.calls[f"GET /v1/{self.path}"]


class FileBackend(FaultyBackend):
    """A directory with the secret in it; ``path`` is the file that is broken."""

    backend = "file.FileProvider"

    def __init__(self) -> None:
        super().__init__()
        # Not a tmp_path, which is root's alone: the one who may not read a file may search here.
        self.root = Path(tempfile.mkdtemp())
        self.root.chmod(0o755)
        self.cleanup.callback(shutil.rmtree, self.root)
        (self.root / "real").mkdir()
        self.path = self.root / "real" / NAME
        (self.root / "secrets").symlink_to("real")
        self.options = {"path": self.root / "secrets"}
        self.user: AbstractContextManager[None] | None = None

    def content(self, value: str) -> str:
        return value

    def put(self, value: str) -> None:
        new = self.root / "new"
        new.write_text(self.content(value))
        new.replace(self.path)

    def delete(self) -> None:
        self.path.unlink()

    def server_error(self, registry: SecretRegistry) -> None:
        self.lead_to(Path(IO_ERROR).parent)

    def not_mounted(self, registry: SecretRegistry) -> None:
        (self.root / "secrets").unlink()

    def malformed(self, registry: SecretRegistry) -> None:
        self.path.unlink()
        os.mkfifo(self.path)

    def access_denied(self, registry: SecretRegistry) -> None:
        self.path.chmod(0)
        self.user = unprivileged()
        self.user.__enter__()

    def heal(self, fault: str, registry: SecretRegistry) -> None:
        if self.user is not None:
            self.user.__exit__(None, None, None)
            self.user = None
        self.lead_to(Path("real"))
        if fault != "clock jump":
            self.put(NEW)

    def lead_to(self, target: Path) -> None:
        (self.root / "other").symlink_to(target)
        (self.root / "other").replace(self.root / "secrets")


class EnvBackend(FileBackend):
    """A file with the variable in it."""

    backend = "env.EnvProvider"

    def __init__(self) -> None:
        super().__init__()
        self.options = {"env_file": self.root / "secrets" / NAME}

    def content(self, value: str) -> str:
        return f"{NAME}={value}\n"

    def delete(self) -> None:
        self.path.write_text("")

    def malformed(self, registry: SecretRegistry) -> None:
        self.path.write_bytes(self.content(canary()).encode() + b"\xff")


class MemoryBackend(FaultyBackend):
    backend = "memory.MemoryProvider"

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore()
        self.options = {"secrets": self.store}

    def put(self, value: str) -> None:
        self.store.put(NAME, value)

    def delete(self) -> None:
        self.store.delete(NAME)


def without_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the system resolve all names but one, as fast as ever."""
    resolve = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host == NO_SUCH_HOST:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
