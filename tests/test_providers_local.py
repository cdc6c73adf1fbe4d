"""The providers that need no server, except for files: env and memory, and their options."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from django_secret_registry.exceptions import (
    AccessDenied,
    InvalidReference,
    ProviderError,
    SecretNotFound,
)
from django_secret_registry.provider_cache import ProviderSpec
from django_secret_registry.providers.base import BaseProvider
from django_secret_registry.providers.env import EnvProvider
from django_secret_registry.providers.file import FileProvider
from django_secret_registry.providers.memory import MemoryProvider, MemoryStore
from django_secret_registry.resolver import SecretRegistry
from django_secret_registry.specs import RegistryConfig
from django_secret_registry.values import MAX_VALUE_SIZE, SecretBytes, SecretStr
from tests.canary import canary
from tests.local_providers import IO_ERROR, NO_WAIT, Local, fetch, folder, unprivileged

__all__ = ["folder"]  # a fixture


def env_provider(alias: str = "local", **options: object) -> EnvProvider:
    return EnvProvider(alias=alias, region="", **options)


def memory_provider(**options: object) -> MemoryProvider:
    return MemoryProvider(alias="local", region="", **options)


class TestEnvironment(Local):
    provider_class = EnvProvider
    existing, missing = "EXISTING", "MISSING"
    binary, binary_value = "BINARY", b"\xff" + canary("binary").encode()
    lacks = {
        "denied": "a process may read its own environment",
        "outage": "the environment is always there",
        "timeout": NO_WAIT,
        "version": "a variable has one value",
        "stage": "a variable has one value",
        "regions": "there is one environment",
    }

    @pytest.fixture(autouse=True)
    def variables(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch
        self.options = {"prefix": "CONFORMANCE_"}
        monkeypatch.setenv("CONFORMANCE_EXISTING", self.value)
        monkeypatch.setenv("CONFORMANCE_BINARY", os.fsdecode(self.binary_value))

    def rotate(self) -> str:
        self.monkeypatch.setenv("CONFORMANCE_EXISTING", self.rotated)
        return self.rotated


class TestEnvFile(Local):
    provider_class = EnvProvider
    existing, missing = "EXISTING_IN_FILE", "MISSING_IN_FILE"
    outages = ("I/O error",)
    lacks = {
        "binary": "an env file is text",
        "denied": "permission is that of the whole file, see test_env_file_denied",
        "timeout": NO_WAIT,
        "version": "a file has one content",
        "stage": "a file has one content",
        "regions": "a file has no regions",
    }

    @pytest.fixture(autouse=True)
    def env_file(self, tmp_path: Path) -> None:
        self.path = tmp_path / ".env"
        self.path.write_text(f"# comment\nexport EXISTING_IN_FILE='{self.value}'\n")
        self.options = {"env_file": self.path}

    @contextlib.contextmanager
    def outage(self, kind: str) -> Iterator[BaseProvider]:
        yield env_provider(alias=self.alias, env_file=IO_ERROR)

    def rotate(self) -> str:
        self.path.write_text(f'EXISTING_IN_FILE="{self.rotated}"\n')
        return self.rotated


class TestMemory(Local):
    provider_class = MemoryProvider
    existing, missing = "db/password", "db/missing"
    binary, binary_value = "key", b"\xff" + canary("binary").encode()
    versions = {"db/password?version=1": canary("first"), "db/password?version=2": Local.value}
    missing_version = "db/password?version=3"
    stages = {
        "db/password?stage=current": Local.value,
        "db/password?stage=previous": canary("first"),
    }
    missing_stage = "db/password?stage=pending"
    lacks = {
        "denied": "memory has no permissions",
        "outage": "memory is always there",
        "timeout": NO_WAIT,
        "regions": "memory has no regions",
    }

    @pytest.fixture(autouse=True)
    def store(self) -> None:
        self.store = MemoryStore({"db/password": canary("first"), "key": self.binary_value})
        self.store.put("db/password", self.value)
        self.options = {"secrets": self.store}

    def rotate(self) -> str:
        self.store.put("db/password", self.rotated)
        return self.rotated


# -- env --


def test_process_environment_wins_over_files(tmp_path, monkeypatch):
    """The process's environment wins over the files, and the first file over the later ones."""
    first, second = tmp_path / "first.env", tmp_path / "second.env"
    first.write_text(f"FIRST={canary('first')}\nLIVE={canary('first')}\n")
    second.write_text(f"FIRST={canary('second')}\nSECOND={canary('second')}\n")
    monkeypatch.setenv("LIVE", canary("live"))
    provider = env_provider(env_file=[str(first), second])
    names = {"LIVE": "live", "FIRST": "first", "SECOND": "second"}
    assert {name: fetch(provider, name).value for name in names} == {
        name: canary(value) for name, value in names.items()
    }


def test_env_file_stays_out_of_the_environment(tmp_path):
    """A file's variables reach neither os.environ nor django-environ's own mapping."""
    import environ

    path = tmp_path / ".env"
    path.write_text(f"ONLY_IN_FILE={canary()}\n")
    assert fetch(env_provider(env_file=path), "ONLY_IN_FILE").value == canary()
    assert "ONLY_IN_FILE" not in os.environ
    assert "ONLY_IN_FILE" not in environ.Env.ENVIRON


def test_env_file_value_is_taken_literally(tmp_path):
    """A value that begins with a dollar sign or holds a hash sign stays as it is."""
    path = tmp_path / ".env"
    path.write_text(f"DOLLAR=$HOME-{canary()}\nHASH={canary()}#x\nEMPTY=\n")
    provider = env_provider(env_file=path)
    assert fetch(provider, "DOLLAR").value == f"$HOME-{canary()}"
    assert fetch(provider, "HASH").value == f"{canary()}#x"
    assert fetch(provider, "EMPTY").value == ""
    commented = env_provider(env_file=path, parse_comments=True)
    assert fetch(commented, "HASH").value == canary()


def test_env_file_version_changes_with_the_file(tmp_path, monkeypatch):
    """A file's variable has the file's version, one of the process's environment has none."""
    path = tmp_path / ".env"
    path.write_text(f"X={canary()}\n")
    provider = env_provider(env_file=path)
    before = fetch(provider, "X").version
    os.utime(path, ns=(1, 1))
    assert before != fetch(provider, "X").version
    monkeypatch.setenv("X", canary())
    assert fetch(provider, "X").version is None


def test_env_file_that_is_missing_has_no_variables(tmp_path):
    """Without the file a variable is not found, and the error says where it was looked for."""
    with pytest.raises(SecretNotFound, match=r"variable P_X is not set and is in none of .*\.env"):
        fetch(env_provider(env_file=tmp_path / ".env", prefix="P_"), "X")


def test_env_file_denied(folder):
    """A file without permission is AccessDenied for each variable that may stand in it."""
    (folder / ".env").write_text(f"X={canary()}")
    (folder / ".env").chmod(0)
    with unprivileged(), pytest.raises(AccessDenied, match=r"\.env: this process may not"):
        fetch(env_provider(env_file=folder / ".env"), "X")


def test_env_file_that_is_too_large(tmp_path):
    """A file of more than 1 MiB is a ProviderError."""
    (tmp_path / ".env").write_bytes(b"X=" + b"x" * MAX_VALUE_SIZE)
    with pytest.raises(ProviderError, match=r"\.env: the file is larger than"):
        fetch(env_provider(env_file=tmp_path / ".env"), "X")


def test_env_file_that_is_no_text(tmp_path):
    """A file that is not UTF-8 is a ProviderError without cause or context, which would hold it."""
    (tmp_path / ".env").write_bytes(b"X=\xff" + canary().encode())
    with pytest.raises(ProviderError, match=r"\.env: it is not UTF-8") as caught:
        fetch(env_provider(env_file=tmp_path / ".env"), "X")
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_env_file_that_is_a_pipe(tmp_path):
    """A named pipe is refused at once, although nobody writes to it."""
    os.mkfifo(tmp_path / ".env")
    with pytest.raises(ProviderError, match="no regular file"):
        fetch(env_provider(env_file=tmp_path / ".env"), "X")


def test_env_file_that_is_a_directory(tmp_path):
    """A directory in its place, as Docker makes one for a missing mount, is a ProviderError."""
    with pytest.raises(ProviderError, match="directory"):
        fetch(env_provider(env_file=tmp_path), "X")


def test_env_file_line_is_not_logged(tmp_path, caplog):
    """A line that django-environ cannot read is named in the log by its file and not shown."""
    path = tmp_path / ".env"
    path.write_text(f"X={canary()}\n{canary('second line of a key')}\n")
    with caplog.at_level(logging.DEBUG):
        fetch(env_provider(env_file=path), "X")
    assert [record.getMessage() for record in caplog.records] == [
        f"{path} has a line that is no NAME=value; it is not shown: it may be a secret"
    ]


def test_log_of_django_environ_is_left_alone(tmp_path, caplog):
    """What django-environ logs about other files is not touched."""
    import environ

    class Env(environ.Env):
        ENVIRON = {}

    (tmp_path / ".env").write_text("no pair\n")
    with caplog.at_level(logging.DEBUG):
        fetch_error = env_provider(env_file=tmp_path / ".env")
        with pytest.raises(SecretNotFound):
            fetch(fetch_error, "X")
        Env.read_env(tmp_path / ".env")
    assert "Invalid line: no pair" in caplog.text


# -- memory --


def test_memory_keeps_versions():
    """Each put adds a version; the newest is current, the one before it previous."""
    provider = memory_provider()
    ids = [provider.put("db", canary(name)) for name in ("one", "two", "three")]
    assert ids == ["1", "2", "3"]
    assert fetch(provider, "db").version == "3"
    assert fetch(provider, "db", stage="previous").value == canary("two")
    assert fetch(provider, "db", version="1").value == canary("one")
    assert fetch(provider, "db", version="2", stage="previous").version == "2"
    with pytest.raises(SecretNotFound, match="version or stage"):
        fetch(provider, "db", version="3", stage="previous")


def test_memory_without_a_previous_version():
    """The first version has no previous one."""
    with pytest.raises(SecretNotFound):
        fetch(memory_provider(secrets={"db": canary()}), "db", stage="previous")


def test_memory_takes_text_bytes_and_dicts():
    """A dict is kept as JSON; another type is a TypeError that names the secret only."""
    provider = memory_provider(secrets={"json": {"password": canary()}, "raw": canary().encode()})
    assert json.loads(fetch(provider, "json").value) == {"password": canary()}
    assert type(fetch(provider, "json").value) is SecretStr
    assert type(fetch(provider, "raw").value) is SecretBytes
    with pytest.raises(TypeError, match="the secret 'list' is a list"):
        provider.put("list", [canary()])


def test_memory_forgets_a_deleted_secret():
    """A deleted secret is not found; deleting it again does nothing."""
    provider = memory_provider(secrets={"db": canary()})
    provider.delete("db")
    provider.delete("db")
    with pytest.raises(SecretNotFound, match="no such secret"):
        fetch(provider, "db")


def test_memory_store_is_shared():
    """Instances that are given one store see the same secrets; others have their own."""
    store = MemoryStore({"db": canary("old")})
    one, other = memory_provider(secrets=store), memory_provider(secrets=store)
    one.put("db", canary("new"))
    assert fetch(other, "db").value == canary("new")
    secrets = {"db": canary("old")}
    memory_provider(secrets=secrets).put("db", canary("new"))
    assert fetch(memory_provider(secrets=secrets), "db").value == canary("old")


def test_memory_hands_out_each_version_once():
    """Puts from many threads each get their own version."""
    provider = memory_provider()
    ids: list[str] = []
    threads = [
        threading.Thread(target=lambda: ids.extend(provider.put("db", canary()) for _ in range(50)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ids, key=int) == [str(number) for number in range(1, 401)]


# -- through the registry --


@pytest.fixture
def registry(tmp_path, monkeypatch) -> Iterator[SecretRegistry]:
    """Give a registry with an alias of each local provider."""
    (tmp_path / "mount").mkdir()
    (tmp_path / ".env").write_text(f"ENV_KEY={canary('env')}\n")
    options = {
        "env": ("env.EnvProvider", {"env_file": tmp_path / ".env", "prefix": "ENV_"}),
        "file": ("file.FileProvider", {"path": tmp_path / "mount"}),
        "memory": ("memory.MemoryProvider", {"secrets": {"db": {"password": canary("memory")}}}),
    }
    registry = SecretRegistry()
    providers = {
        alias: ProviderSpec(alias, f"django_secret_registry.providers.{backend}", options=values)
        for alias, (backend, values) in options.items()
    }
    registry.configure(RegistryConfig(providers=providers))
    yield registry
    registry.close()


def test_references_to_local_providers(registry, tmp_path):
    """Keys, trimming and bytes work with each local provider, as the reference says."""
    (tmp_path / "mount" / "text").write_text(f"{canary('file')}\n")
    (tmp_path / "mount" / "binary").write_bytes(b"\xff" + canary().encode())
    assert registry.get("env://KEY") == canary("env")
    assert registry.get("env://NONE", default="none") == "none"
    assert registry.get("file://text") == f"{canary('file')}\n"
    assert registry.get("file://text?trim=true") == canary("file")
    assert registry.get("file://binary?as=bytes") == b"\xff" + canary().encode()
    assert registry.get("memory://db#password") == canary("memory")
    with pytest.raises(InvalidReference):
        registry.get("file://%2E%2E/outside")


def test_rotation_of_a_local_secret_is_followed(registry, tmp_path):
    """A refresh gives the new content of a file and the new version of a secret in memory."""
    (tmp_path / "mount" / "db").write_text(canary("old"))
    assert registry.get("file://db") == canary("old")
    (tmp_path / "mount" / "new").write_text(canary("new"))
    (tmp_path / "mount" / "new").replace(tmp_path / "mount" / "db")
    registry.get_provider("memory").put("db", {"password": canary("new")})
    for reference in ("file://db", "memory://db#password"):
        registry.refresh(reference)
        assert registry.get(reference) == canary("new")


def test_warm_up_of_a_mount(registry, tmp_path):
    """Many files are warmed, and those that fail say why beside the others."""
    for number in range(150):
        (tmp_path / "mount" / f"secret-{number}").write_text(canary(str(number)))
    names = [*(f"file://secret-{number}" for number in range(150)), "file://none"]
    outcomes = {result.reference: result.outcome for result in registry.warm(names)}
    assert outcomes.pop("file://none") == "not_found"
    assert set(outcomes.values()) == {"ok"}
    (tmp_path / "mount" / "secret-7").unlink()
    assert registry.get("file://secret-7") == canary("7")


# -- options --


@pytest.mark.parametrize(
    ("provider_class", "options", "message"),
    [
        (FileProvider, {}, "option 'path' is missing"),
        (FileProvider, {"path": "secrets"}, "option 'path' is not absolute"),
        (FileProvider, {"path": Path("secrets")}, "option 'path' is not absolute"),
        (EnvProvider, {"env_file": ".env"}, "option 'env_file' is not absolute"),
        (EnvProvider, {"env_file": ["/x/.env", ".env"]}, "option 'env_file' is not absolute"),
        (EnvProvider, {"env_file": ["/x/.env", 5]}, "option 'env_file' is no path"),
        (EnvProvider, {"env_file": None}, "option 'env_file' is no path"),
        (EnvProvider, {"prefix": None}, "option 'prefix' is no str"),
        (FileProvider, {"path": b"/run/secrets"}, "option 'path' is no path"),
        (MemoryProvider, {"secrets": "x"}, "option 'secrets' is no dict"),
    ],
)
def test_wrong_options_are_found(provider_class, options, message):
    """A mistake in OPTIONS is a problem with a hint, found without building the provider."""
    (problem,) = provider_class.check(options)
    assert problem.message == message
    assert "Write" in problem.hint


@pytest.mark.parametrize(
    ("provider_class", "options"),
    [
        (FileProvider, {"path": "/run/secrets"}),
        (EnvProvider, {}),
        (EnvProvider, {"env_file": [Path("/x/.env")], "prefix": "X_", "parse_comments": True}),
        (MemoryProvider, {}),
        (MemoryProvider, {"secrets": MemoryStore()}),
    ],
)
def test_right_options_are_accepted(provider_class, options):
    """Options as documented give no problem."""
    assert provider_class.check(options) == []
