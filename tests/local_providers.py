"""What the tests of the local providers share."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from django_secret_registry.conformance import ProviderConformance
from django_secret_registry.providers.base import BaseProvider
from django_secret_registry.references import SecretRef
from django_secret_registry.values import SecretValue
from tests.canary import canary

NO_WAIT = "a read of a local file or of memory cannot be interrupted"
NOBODY = 65534
#: A file that opens, and of which a read at its beginning fails with EIO.
IO_ERROR = "/proc/self/mem"


class Local(ProviderConformance):
    value = canary("existing")
    rotated = canary("rotated")


def fetch(provider: BaseProvider, name: str, **fields: str) -> SecretValue:
    return provider.fetch(SecretRef(scheme="local", name=name, **fields), timeout=5)


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Take root's right to read everything away, where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give an empty directory that every user may search (a ``tmp_path`` is root's alone)."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)
