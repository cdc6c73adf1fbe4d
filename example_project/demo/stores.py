"""The secret managers that the demo can bring along: real servers on 127.0.0.1, and files.

The servers are those of the tests, which lie in the same checkout and are imported when needed.
"""

from __future__ import annotations

import abc
import contextlib
import json
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar, Self

SEEDS = Path(__file__).resolve().parent.parent / "secrets"
CHECKOUT = SEEDS.parent.parent


class Store(abc.ABC):
    """A running secret manager that holds the shop's secrets; a context manager.

    Nobody else writes into it, so what it holds is what was put there last.
    """

    #: What it is called in the demo's output.
    label: ClassVar[str]
    #: The settings of the shop that lead to it.
    settings: ClassVar[str]
    #: Where the shop finds the ``SECRET_KEY`` before the last rotation, as its own page tells.
    previous: ClassVar[str] = "store://shop-django?stage=previous"
    #: Whether it keeps earlier versions; if not, they are put beside the present one.
    versioned: ClassVar[bool] = True
    #: The environment in which the shop finds it, its settings module included.
    environment: Mapping[str, str]

    @classmethod
    @abc.abstractmethod
    def missing(cls) -> str:
        """Return what must be installed before it can run; empty when nothing."""

    @abc.abstractmethod
    def serve(self) -> contextlib.AbstractContextManager[Mapping[str, str]]:
        """Run the server, and give the environment in which its clients find it."""

    @abc.abstractmethod
    def write(self, name: str, payload: str) -> None:
        """Put a new value in place of the present one."""

    def __enter__(self) -> Self:
        self._held: dict[str, str] = {}
        with contextlib.ExitStack() as stack:
            found = stack.enter_context(self.serve())
            self.environment = {"DJANGO_SETTINGS_MODULE": self.settings, **found}
            for name, versions in seeds().items():
                for payload in versions:
                    self._put(name, payload)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def value(self, name: str, key: str) -> str:
        """Return what the store holds now."""
        payload: dict[str, str] = json.loads(self._held[name])
        return payload[key]

    def rotate(self, name: str, key: str) -> None:
        """Put a new value for ``key`` in place of the present one."""
        payload = json.loads(self._held[name])
        self._put(name, json.dumps({**payload, key: f"demo-only-{secrets.token_hex(24)}"}))

    def _put(self, name: str, payload: str) -> None:
        if not self.versioned and name in self._held:
            self.write(f"{name}-previous", self._held[name])
        self.write(name, payload)
        self._held[name] = payload


def seeds() -> dict[str, list[str]]:
    """Return the demo's secrets by name, the oldest version first.

    They are the files that the plain example reads; ``x-previous`` is the version before ``x``.
    """
    versions: dict[str, list[str]] = {}
    for path in sorted(SEEDS.iterdir(), reverse=True):
        name = path.name.removesuffix("-previous")
        versions.setdefault(name, []).append(path.read_text())
    return versions


class FileStore(Store):
    """A directory, as Docker and Kubernetes mount one."""

    label = "a directory of files"
    settings = "config.settings"
    previous = "store://shop-django-previous"
    versioned = False

    @classmethod
    def missing(cls) -> str:
        return ""

    @contextlib.contextmanager
    def serve(self) -> Iterator[Mapping[str, str]]:
        with tempfile.TemporaryDirectory() as folder:
            self._folder = Path(folder)
            yield {"SHOP_SECRETS": folder}

    def write(self, name: str, payload: str) -> None:
        new = self._folder / f"{name}.new"
        new.write_text(payload)
        new.replace(self._folder / name)  # nobody reads it half-written


class AwsStore(Store):
    label = "AWS Secrets Manager (moto)"
    settings = "config.settings_aws"
    previous = "store://shop-django?stage=AWSPREVIOUS"

    @classmethod
    def missing(cls) -> str:
        from tests.servers import aws

        return aws.missing()

    @contextlib.contextmanager
    def serve(self) -> Iterator[Mapping[str, str]]:
        from tests.servers import aws

        with aws.started() as self._server:
            yield {
                "AWS_ENDPOINT_URL": self._server.url,
                "AWS_DEFAULT_REGION": aws.REGION,
                "AWS_ACCESS_KEY_ID": "demo",
                "AWS_SECRET_ACCESS_KEY": "demo",
            }

    def write(self, name: str, payload: str) -> None:
        if name in self._held:
            self._server.put(name, payload)
        else:
            self._server.create(name, payload)


class GcpStore(Store):
    label = "Google Cloud's Secret Manager (a gRPC server of its messages)"
    settings = "config.settings_gcp"

    @classmethod
    def missing(cls) -> str:
        from tests.servers import gcp

        return gcp.missing()

    @contextlib.contextmanager
    def serve(self) -> Iterator[Mapping[str, str]]:
        from tests.servers import gcp

        with gcp.started() as self._server:
            yield _options(self._server.options())

    def write(self, name: str, payload: str) -> None:
        self._server.backend.put(name, payload.encode())


class AzureStore(Store):
    label = "Azure Key Vault (an HTTPS server of its protocol)"
    settings = "config.settings_azure"
    #: By which name the server is found without a name server; that of the vault, too.
    host = "localhost"

    @classmethod
    def missing(cls) -> str:
        from tests.servers import azure

        return azure.missing()

    @contextlib.contextmanager
    def serve(self) -> Iterator[Mapping[str, str]]:
        from tests.servers import azure

        with azure.started() as self._server:
            yield _options(self._server.options(vault=f"https://{self.host}:{self._server.port}"))

    def write(self, name: str, payload: str) -> None:
        self._server.put(name, payload, vault=self.host)


class VaultStore(Store):
    label = "Vault (OpenBao)"
    settings = "config.settings_vault"

    @classmethod
    def missing(cls) -> str:
        from tests.servers import openbao

        return openbao.missing()

    @contextlib.contextmanager
    def serve(self) -> Iterator[Mapping[str, str]]:
        from tests.servers import openbao

        with openbao.started() as self._server:
            rules = {"secret/data/*": ["read"]}
            token = self._server.token(self._server.policy("shop", **rules))
            yield {"VAULT_ADDR": self._server.url, "VAULT_TOKEN": token}

    def write(self, name: str, payload: str) -> None:
        self._server.put(name, **json.loads(payload))


class KubernetesStore(Store):
    label = "Kubernetes' API (an HTTPS server of its protocol)"
    settings = "config.settings_kubernetes"
    previous = "store://shop-django-previous"
    versioned = False

    @classmethod
    def missing(cls) -> str:
        from tests.servers import kubernetes

        return kubernetes.missing()

    @contextlib.contextmanager
    def serve(self) -> Iterator[Mapping[str, str]]:
        from tests.servers import kubernetes

        with kubernetes.started() as self._server, tempfile.TemporaryDirectory() as folder:
            yield _options(self._server.mount(Path(folder)))

    def write(self, name: str, payload: str) -> None:
        self._server.put(name, **json.loads(payload))


def _options(options: Mapping[str, object]) -> dict[str, str]:
    return {"SHOP_STORE_OPTIONS": json.dumps(options, default=os.fspath)}


STORES: Mapping[str, type[Store]] = {
    "aws": AwsStore,
    "azure": AzureStore,
    "files": FileStore,
    "gcp": GcpStore,
    "kubernetes": KubernetesStore,
    "vault": VaultStore,
}

# They lie beside the example, and another package of that name may be installed.
if str(CHECKOUT) not in sys.path:
    sys.path.insert(0, str(CHECKOUT))
