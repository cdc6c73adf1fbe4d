"""Answers that harm: far too large, small and grown large, nested without end.

What a payload may do once it is here (a key of JSON that is nested too deep, a value over 1 MiB)
stands in test_extract and test_resolver.
"""

from __future__ import annotations

import contextlib
import gzip
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from django_secret_registry.exceptions import ProviderError, SecretError
from django_secret_registry.providers.base import BaseProvider
from django_secret_registry.providers.env import EnvProvider
from django_secret_registry.providers.file import FileProvider
from django_secret_registry.references import SecretRef
from tests.canary import canary
from tests.fixtures import hostile
from tests.hostile_backends import CASES, SECRETS
from tests.servers.hostile import Hostile
from tests.servers.https import Answer

server = hostile.server

pytestmark = pytest.mark.full

MIB = 1024 * 1024
HUGE = 100_000_000
#: MiB of memory that Python takes at most while an answer of 100 MB comes in: about twice what is
#: read of it, since pieces are joined. botocore reads all of an answer, whatever its size.
PEAKS = {
    "aws": 400,
    "sts": 600,
    "gcp": 20,
    "gcp token": 20,
    "azure": 20,
    "vault": 20,
    "kubernetes": 20,
}
#: Those whose client decompresses what it reads; botocore asks for no compression and knows none.
DECOMPRESS = [name for name, peak in PEAKS.items() if peak == 20]
NESTED = b'{"a":' * 10_000 + b'"' + canary().encode() + b'"' + b"}" * 10_000
#: The XML document that grows to 10 ** 9 entities.
LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "ha">'
    + "".join(
        f'<!ENTITY {new} "{f"&{old};" * 10}">'
        for old, new in zip("abcdefghi", "bcdefghij", strict=True)
    )
    + "]><AssumeRoleResponse>&j;</AssumeRoleResponse>"
)


@pytest.fixture(autouse=True)
def _trust(server: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(server.ca_file))


def error_of(server: Hostile, name: str, answer: Answer, folder: Path) -> SecretError:
    """Return the error that an answer leads to; nothing of the answer may hang on it."""
    case = CASES[name]
    server.say = lambda request: case.grant(request) or answer
    provider = case.build(server, folder)
    with contextlib.closing(provider), pytest.raises(SecretError) as caught:
        case.fetch(provider)
    return caught.value


@contextlib.contextmanager
def measured() -> Iterator[list[float]]:
    """Give the MiB that Python took at most in the block, beyond what it had."""
    tracemalloc.start()
    taken: list[float] = []
    try:
        yield taken
        taken.append(tracemalloc.get_traced_memory()[1] / MIB)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", PEAKS)
def test_a_secret_of_100_mb_is_refused(server: Hostile, name: str, tmp_path: Path) -> None:
    """It is a ProviderError; what was read of it takes a bounded part of the memory."""
    answer = Answer(200, CASES[name].wrap("x" * HUGE))
    with measured() as taken:
        error = error_of(server, name, answer, tmp_path)
    assert type(error) is ProviderError
    assert taken[0] < PEAKS[name]


@pytest.mark.parametrize("name", DECOMPRESS)
def test_an_answer_that_grows_is_refused(server: Hostile, name: str, tmp_path: Path) -> None:
    """100 MB that were 100 kB on the way are read as far as any answer."""
    body = gzip.compress(CASES[name].wrap("x" * HUGE), compresslevel=1)
    answer = Answer(200, body, {"Content-Encoding": "gzip"})
    with measured() as taken:
        error = error_of(server, name, answer, tmp_path)
    assert type(error) is ProviderError
    assert taken[0] < 25


@pytest.mark.parametrize("kind", [FileProvider, EnvProvider])
def test_a_file_of_100_mb_is_refused(kind: type[BaseProvider], tmp_path: Path) -> None:
    """One byte more than a secret may have is read."""
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(HUGE)
    path = {"path": tmp_path} if kind is FileProvider else {"env_file": tmp_path / "huge"}
    provider = kind(alias="it", region="", **path)
    with measured() as taken, pytest.raises(ProviderError):
        provider.fetch(SecretRef.parse("it://huge"), timeout=10)
    assert taken[0] < 4


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("name", CASES)
def test_json_that_is_nested_10_000_levels_deep(
    server: Hostile, name: str, status: int, tmp_path: Path
) -> None:
    """As an answer, as an error, and as the answer to a login it is an error of ours."""
    error = error_of(server, name, Answer(status, NESTED), tmp_path)
    assert status != 200 or name not in SECRETS or type(error) is ProviderError


def test_xml_that_grows(server: Hostile, tmp_path: Path) -> None:
    """Entities of entities are expanded to 8 MiB, where expat ends it, in small pieces."""
    with measured() as taken:
        error = error_of(server, "sts", Answer(200, LAUGHS.encode()), tmp_path)
    assert type(error) is ProviderError
    assert taken[0] < 200
