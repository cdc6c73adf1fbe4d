"""The file provider: Docker and Kubernetes mounts, and attacks on its paths."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from django_secret_registry.exceptions import (
    AccessDenied,
    InvalidReference,
    ProviderError,
    ProviderUnavailable,
    SecretError,
    SecretNotFound,
)
from django_secret_registry.providers.base import BaseProvider
from django_secret_registry.providers.file import FileProvider
from django_secret_registry.references import SecretRef
from django_secret_registry.values import MAX_VALUE_SIZE
from tests.canary import canary
from tests.local_providers import IO_ERROR, NO_WAIT, Local, fetch, folder, unprivileged

__all__ = ["folder"]  # a fixture


def file_provider(path: str | Path, alias: str = "local") -> FileProvider:
    return FileProvider(alias=alias, region="", path=path)


def relink(link: Path, target: str) -> None:
    """Point a link at another target in one step, as Kubernetes does."""
    new = link.with_name("..new")
    new.symlink_to(target)
    new.replace(link)


_before_open: list[Callable[[object], None]] = []


def _audit(event: str, args: tuple[object, ...]) -> None:
    if event == "open" and _before_open:
        hooks, _before_open[:] = list(_before_open), []  # what the hook opens is its own affair
        try:
            for hook in hooks:
                hook(args[0])
        finally:
            _before_open[:] = hooks


sys.addaudithook(_audit)


@contextlib.contextmanager
def before_open(hook: Callable[[object], None]) -> Iterator[None]:
    """Run ``hook`` with the path right before each file is opened: the worst moment for a race."""
    _before_open.append(hook)
    try:
        yield
    finally:
        _before_open.remove(hook)


class TestFile(Local):
    provider_class = FileProvider
    existing, missing, denied = "db/password", "db/missing", "db/denied"
    binary, binary_value = "db/key.p12", b"\x30\x82\xff" + canary("binary").encode()
    outages = ("not mounted", "always changing")
    lacks = {
        "timeout": NO_WAIT,
        "version": "a file has one content",
        "stage": "a file has one content",
        "regions": "a directory has no regions",
    }

    @pytest.fixture(autouse=True)
    def directory(self, folder: Path) -> None:
        self.path = folder
        self.options = {"path": folder}
        (folder / "db").mkdir()
        (folder / self.existing).write_text(self.value)
        (folder / self.binary).write_bytes(self.binary_value)
        (folder / self.denied).write_text(canary("denied"))
        (folder / self.denied).chmod(0)
        (folder / "db").chmod(0o755)

    def test_denied(self) -> None:
        """A file that this process may not read is AccessDenied."""
        with unprivileged():
            super().test_denied()

    @contextlib.contextmanager
    def outage(self, kind: str) -> Iterator[BaseProvider]:
        if kind == "not mounted":
            yield file_provider(self.path / "not-yet", alias=self.alias)
            return
        # Each look at the directory finds another update, which is gone when it is opened.
        (self.path / "db").rename(self.path / "moved")
        (self.path / "db").symlink_to("..data/db")
        updates = (f"..{number}" for number in itertools.count())

        def update(path: object = "") -> None:
            if str(path).startswith(".."):
                (self.path / str(path)).rmdir()
            if not path or str(path).startswith(".."):
                target = next(updates)
                (self.path / target).mkdir()
                relink(self.path / "..data", target)

        update()
        with before_open(update):
            yield self.provider()

    def rotate(self) -> str:
        new = self.path / "new"
        new.write_text(self.rotated)
        new.replace(self.path / self.existing)
        return self.rotated


def kubernetes(folder: Path, number: int, **contents: str) -> None:
    """Update a mount as kubelet does: a new directory, ..data moved to it, the old one removed."""
    data, new = folder / "..data", f"..2024_{number}"
    old = folder / data.readlink() if data.is_symlink() else None
    (folder / new).mkdir()
    for name, content in contents.items():
        (folder / new / name).write_text(content)
    relink(data, new)
    for name in contents:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    if old is not None:
        shutil.rmtree(old)


def test_kubernetes_update_is_followed(folder):
    """A secret behind ..data is read, and read anew after the mount was updated."""
    kubernetes(folder, 1, password=canary("old"))
    provider = file_provider(folder)
    before = fetch(provider, "password")
    kubernetes(folder, 2, password=canary("new"))
    after = fetch(provider, "password")
    assert (before.value, after.value) == (canary("old"), canary("new"))
    assert before.version != after.version


def test_update_between_two_keys_of_a_batch(folder):
    """When the mount is updated amid a batch, all its secrets come from the new one."""
    kubernetes(folder, 1, user=canary("user-1"), password=canary("password-1"))
    updates = iter([2])

    def update(path: object) -> None:
        if path == "password":
            for number in updates:
                contents = {name: canary(f"{name}-2") for name in ("user", "password")}
                kubernetes(folder, number, **contents)

    refs = [SecretRef("local", "user"), SecretRef("local", "password")]
    with before_open(update):
        answers = file_provider(folder).fetch_many(refs, timeout=5)
    assert [answers[ref].value for ref in refs] == [canary("user-2"), canary("password-2")]


def test_reads_are_never_torn(folder):
    """Readers under continuous updates get user and password of one update, each whole."""

    def contents(number: int) -> dict[str, str]:
        filling = str(number % 10) * 50_000
        return {name: f"{canary(name)}:{number}:{filling}" for name in ("user", "password")}

    kubernetes(folder, 0, **contents(0))
    provider = file_provider(folder)
    refs = [SecretRef("local", "user"), SecretRef("local", "password")]
    done = threading.Event()
    seen: list[set[str]] = []
    failures: list[object] = []

    def read() -> None:
        numbers = set()
        while not done.is_set():
            answers = [*provider.fetch_many(refs, timeout=5).values()]
            if all(isinstance(answer, ProviderUnavailable) for answer in answers):
                continue  # the updates outran ten attempts: it says so, and is read again
            try:
                (number,) = {answer.value.split(":")[1] for answer in answers}
                assert [a.value for a in answers] == [*contents(int(number)).values()]
            except Exception as error:
                failures.append(type(error))
                break
            numbers.add(number)
        seen.append(numbers)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for number in range(1, 100):
            kubernetes(folder, number, **contents(number))
    finally:
        done.set()
        for reader in readers:
            reader.join(30)
    assert not failures
    assert len(set().union(*seen)) > 1


def test_content_is_given_as_it_is(folder):
    """White space and a final newline stay, an empty file is an empty secret."""
    (folder / "text").write_bytes(f" {canary()}\r\n".encode())
    (folder / "empty").touch()
    provider = file_provider(folder)
    assert fetch(provider, "text").value == f" {canary()}\r\n"
    assert fetch(provider, "empty").value == ""


def test_version_is_time_and_inode(folder):
    """Another file with the same content and time is another version."""
    for name in ("one", "other"):
        (folder / name).write_text(canary())
        os.utime(folder / name, ns=(5, 5))
    provider = file_provider(folder)
    versions = [fetch(provider, name).version for name in ("one", "other")]
    assert versions == [f"5-{(folder / name).stat().st_ino}" for name in ("one", "other")]


def test_size_is_bounded(folder):
    """A file of 1 MiB is a secret, a larger one is a ProviderError."""
    (folder / "fits").write_bytes(b"x" * MAX_VALUE_SIZE)
    (folder / "large").write_bytes(b"x" * (MAX_VALUE_SIZE + 1))
    provider = file_provider(folder)
    assert len(fetch(provider, "fits").value) == MAX_VALUE_SIZE
    with pytest.raises(ProviderError, match="larger than 1048576 bytes"):
        fetch(provider, "large")


def test_what_is_no_regular_file(folder):
    """A pipe, a socket and a device are refused without waiting; a directory is not found."""
    os.mkfifo(folder / "pipe")
    (folder / "directory").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "socket"))
        for name in ("pipe", "socket"):
            with pytest.raises(ProviderError, match="no regular file"):
                fetch(file_provider(folder), name)
    with pytest.raises(ProviderError, match="no regular file"):
        fetch(file_provider("/dev"), "null")
    with pytest.raises(SecretNotFound, match="directory"):
        fetch(file_provider(folder), "directory")


def test_path_that_is_no_directory(folder):
    """A path that is a file is a ProviderError; one that may not be entered is AccessDenied."""
    (folder / "file").touch()
    with pytest.raises(ProviderError, match="is no directory"):
        fetch(file_provider(folder / "file"), "x")
    (folder / "closed").mkdir(mode=0)
    for path in (folder / "closed", folder / "closed" / "below"):
        with unprivileged(), pytest.raises(AccessDenied):
            fetch(file_provider(path), "x")


def test_directory_that_can_only_be_searched(folder):
    """A directory that may be entered but not listed serves its secrets."""
    (folder / "secret").write_text(canary())
    folder.chmod(0o711)
    with unprivileged():
        assert fetch(file_provider(folder), "secret").value == canary()


def test_io_error_is_unavailable():
    """A read that fails in the file system is ProviderUnavailable, with the error as its cause."""
    path, name = os.path.split(IO_ERROR)
    with pytest.raises(ProviderUnavailable, match="cannot be read") as caught:
        fetch(file_provider(path), name)
    assert isinstance(caught.value.__cause__, OSError)


@pytest.fixture
def outside(folder) -> Path:
    """Give a directory with a secret beside the provider's own, which is ``inside``."""
    (folder / "inside").mkdir()
    (folder / "outside").mkdir()
    (folder / "outside" / "secret").write_text(canary("outside"))
    return folder / "outside"


@pytest.mark.parametrize(
    "target", ["{outside}", "../outside", "x/../../outside", "a/../../outside"]
)
@pytest.mark.parametrize("to_directory", [True, False])
def test_links_that_leave_the_directory(outside, target, to_directory):
    """A link to what lies outside is AccessDenied, absolute or relative, last or on the way."""
    inside = outside.parent / "inside"
    (inside / "a").mkdir()
    (inside / "x").symlink_to(".")
    target = target.format(outside=outside)
    name = "link/secret" if to_directory else "link"
    (inside / "link").symlink_to(target if to_directory else f"{target}/secret")
    with pytest.raises(AccessDenied, match="leads out of the directory"):
        fetch(file_provider(inside), name)


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("link", "secret"),
        ("link", "./a/../secret"),
        ("a/link", "../secret"),
        ("link", "a//b/../../secret"),
    ],
)
def test_links_within_the_directory(folder, link, target):
    """A link that stays within the directory is followed."""
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "secret").write_text(canary())
    (folder / link).symlink_to(target)
    assert fetch(file_provider(folder), link).value == canary()


def test_links_that_lead_nowhere(folder):
    """A dangling link and one to a directory are not found, a circle is AccessDenied."""
    (folder / "a").mkdir()
    for name, target in {"none": "nothing", "dir": "a", "dot": ".", "circle": "circle"}.items():
        (folder / name).symlink_to(target)
    provider = file_provider(folder)
    for name in ("none", "dir", "dot"):
        with pytest.raises(SecretNotFound):
            fetch(provider, name)
    with pytest.raises(AccessDenied, match="circle"):
        fetch(provider, "circle")


def test_directory_itself_may_be_a_link(folder):
    """The configured path may be a link: whoever configures it decides where it leads."""
    (folder / "real").mkdir()
    (folder / "real" / "secret").write_text(canary())
    (folder / "link").symlink_to(folder / "real")
    assert fetch(file_provider(folder / "link"), "secret").value == canary()


@pytest.mark.parametrize("name", ["..data/password", "..2024_1/password", "a/..b", "..."])
def test_own_directories_of_kubernetes_are_no_secrets(folder, name):
    """A second spelling through ..data is refused, before any file is touched."""
    kubernetes(folder, 1, password=canary())
    with pytest.raises(InvalidReference):
        FileProvider.canonical(SecretRef("local", name), {"path": folder})
    with pytest.raises(InvalidReference):
        fetch(file_provider(folder), name)


@pytest.mark.parametrize("swapped", ["a", "secret"])
def test_link_swapped_in_before_it_is_opened(outside, swapped):
    """A directory or a file that turns into a link at the last moment does not lead outside."""
    inside = outside.parent / "inside"
    (inside / "a").mkdir()
    (inside / "a" / "secret").write_text(canary("inside"))
    victim = {"a": inside / "a", "secret": inside / "a" / "secret"}[swapped]
    target = outside if swapped == "a" else outside / "secret"

    def attack(path: object) -> None:
        if path == swapped and not victim.is_symlink():
            victim.rename(outside.parent / "moved")
            victim.symlink_to(target)

    with before_open(attack), pytest.raises((SecretNotFound, AccessDenied, ProviderError)):
        fetch(file_provider(inside), "a/secret")
    assert victim.is_symlink()


def test_parent_swapped_while_a_link_is_followed(outside):
    """The ``..`` of a link goes to the directory it came from, although that was moved outside."""
    inside = outside.parent / "inside"
    (inside / "a" / "b").mkdir(parents=True)
    (inside / "a" / "b" / "link").symlink_to("../secret")
    (inside / "a" / "secret").write_text(canary("inside"))

    def attack(path: object) -> None:
        if path == "secret" and (inside / "a" / "b").exists():
            (inside / "a" / "b").rename(outside / "b")

    with before_open(attack):
        assert fetch(file_provider(inside), "a/b/link").value == canary("inside")
    assert (outside / "b").exists()


def test_link_race_is_lost_by_the_attacker(outside):
    """A name that flips between a file and a link outside never gives what lies outside."""
    inside = outside.parent / "inside"
    (inside / "file").write_text(canary("inside"))
    done = threading.Event()

    def flip() -> None:
        while not done.is_set():
            relink(inside / "secret", "file")
            relink(inside / "secret", "../outside/secret")
            os.link(inside / "file", inside / "..plain")
            (inside / "..plain").replace(inside / "secret")

    relink(inside / "secret", "file")
    attacker = threading.Thread(target=flip)
    attacker.start()
    answers = set()
    try:
        for _ in range(1000):
            try:
                answers.add(str(fetch(file_provider(inside), "secret").value))
            except SecretError as error:
                answers.add(type(error).__name__)
    finally:
        done.set()
        attacker.join(30)
    assert answers <= {canary("inside"), "AccessDenied", "SecretNotFound", "ProviderUnavailable"}
    assert canary("inside") in answers


def test_no_descriptor_is_left_open(outside):
    """Whatever becomes of a fetch, its descriptors are closed."""
    inside = outside.parent / "inside"
    kubernetes(inside, 1, password=canary())
    os.mkfifo(inside / "pipe")
    (inside / "a").mkdir()
    (inside / "a" / "link").symlink_to("../../outside/secret")
    provider = file_provider(inside)
    before = [*Path("/proc/self/fd").iterdir()]
    for name in ("password", "pipe", "a", "a/link", "a/none", "none/x", "../x"):
        with contextlib.suppress(SecretError):
            fetch(provider, name)
    assert len([*Path("/proc/self/fd").iterdir()]) == len(before)
