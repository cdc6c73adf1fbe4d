"""Secrets from a directory with one file per secret, as Docker and Kubernetes mount them."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..exceptions import (
    AccessDenied,
    InvalidReference,
    ProviderError,
    ProviderUnavailable,
    SecretError,
    SecretNotFound,
)
from ..references import SecretRef
from ..values import MAX_VALUE_SIZE, SecretBytes, SecretStr, SecretValue
from .base import BaseProvider, Problem

#: How often a directory that changes while it is read is read again.
ATTEMPTS = 10
#: How many symbolic links one name may lead through; Linux allows as many.
MAX_LINKS = 40

# A directory needs to be searchable only (0711), where the system can open it for that.
_DIRECTORY = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY
# O_NONBLOCK: opening a pipe that nobody writes to must not wait.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_NOT_FOUND = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
_DENIED = {errno.EACCES, errno.EPERM}


class FileProvider(BaseProvider):
    """Reads ``name`` from the file ``name`` below the directory ``path`` at each fetch.

    * The content is given as it is, a final newline included (``?trim=true`` strips it): as text
      when it is UTF-8, else as bytes. The version is the file's modification time and inode.
    * Symbolic links are followed within the directory, so that Kubernetes' ``..data`` works;
      one that leaves it is ``AccessDenied``. All names of one ``fetch_many`` are read through the
      same ``..data``, so that they come from one update of the mount.
    * A file without permission is ``AccessDenied``; a directory that does not exist (yet), or an
      I/O error, is ``ProviderUnavailable``; what is no regular file, or is larger than 1 MiB, is
      ``ProviderError``.

    A file that is written in place may be read half-written: write a new one and rename it, as
    Kubernetes does. A read of a file cannot be interrupted, so ``timeout`` is not used here.
    """

    batch_size = 100

    def __init__(self, *, alias: str, region: str, path: str | os.PathLike[str]) -> None:
        super().__init__(alias=alias, region=region)
        self.path = os.fspath(path)

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> list[Problem]:
        paths = [options["path"]] if "path" in options else []
        return [*super().check(options), *path_problems("path", paths)]

    @classmethod
    def canonical(cls, ref: SecretRef, options: Mapping[str, Any]) -> SecretRef:
        ref = super().canonical(ref, options)
        _segments(ref.name)
        return ref

    def fetch(self, ref: SecretRef, *, timeout: float) -> SecretValue:
        answer = self.fetch_many([ref], timeout=timeout)[ref]
        if isinstance(answer, SecretError):
            raise answer
        return answer

    def fetch_many(
        self, refs: Sequence[SecretRef], *, timeout: float
    ) -> dict[SecretRef, SecretValue | SecretError]:
        links: dict[tuple[int, int, str], str] = {}
        for _ in range(ATTEMPTS):
            try:
                directory = _Directory(self.path)
            except OSError as exc:
                return {ref: self._not_mounted(ref, exc) for ref in refs}
            with contextlib.closing(directory):
                answers = {ref: self._answer(directory, ref) for ref in refs}
            # Kubernetes removes the old directory right after it has moved ..data to the new one;
            # a file may be missing for that reason. It is, when a second look saw the same links.
            missing = any(isinstance(answer, SecretNotFound) for answer in answers.values())
            if not missing or directory.links == links:
                return answers
            links = directory.links
        hint = "It is read again later."
        text = "the directory changes faster than it can be read"
        return {ref: self.error(ProviderUnavailable, text, ref, hint=hint) for ref in refs}

    def _answer(self, directory: _Directory, ref: SecretRef) -> SecretValue | SecretError:
        try:
            content, version = read_file(directory.open(_segments(ref.name)))
        except OSError as exc:
            return self._where(unreadable(exc), ref)
        except SecretError as error:
            return self._where(error, ref)
        return SecretValue(text_or_bytes(content), version=version)

    def _not_mounted(self, ref: SecretRef, exc: OSError) -> SecretError:
        error = unreadable(exc)
        if exc.errno == errno.ENOENT:
            text, hint = f"the directory {self.path} does not exist", "Is it mounted?"
            error = ProviderUnavailable(text, hint=hint)
        elif exc.errno in _NOT_FOUND:
            error = ProviderError(f"the path {self.path} is no directory")
        error.__cause__ = exc
        return self._where(error, ref)

    def _where(self, error: SecretError, ref: SecretRef) -> SecretError:
        placed = error.copy(reference=str(ref), provider=self.alias, region=self.region)
        placed.__cause__ = error.__cause__
        return placed


class _Directory:
    """One consistent view of a directory tree that nothing leads out of.

    Each step is one ``openat`` that follows no link, relative to the descriptor of the step before;
    links are resolved here and ``..`` goes back to a descriptor that is held, never to the kernel's
    idea of a parent. So nobody who moves files and links about meanwhile can lead it outside. What
    a link pointed to is remembered in ``links``: all that is opened goes through the same one.
    """

    def __init__(self, path: str) -> None:
        self.root = os.open(path, _DIRECTORY)
        self.links: dict[tuple[int, int, str], str] = {}

    def close(self) -> None:
        os.close(self.root)

    def open(self, segments: Sequence[str]) -> int:
        """Return the file's descriptor; raises ``OSError``, and ``AccessDenied`` for a way out."""
        todo = [*reversed(segments)]
        trail = [self.root]
        followed = 0
        try:
            while todo:
                segment = todo.pop()
                if segment == "..":
                    if len(trail) == 1:
                        raise _way_out()
                    os.close(trail.pop())
                elif target := self._link(trail[-1], segment):
                    followed += 1
                    if target.startswith("/") or followed > MAX_LINKS:
                        raise _way_out()
                    todo += [part for part in reversed(target.split("/")) if part not in ("", ".")]
                elif todo:
                    flags = _DIRECTORY | os.O_NOFOLLOW
                    trail.append(os.open(segment, flags, dir_fd=trail[-1]))
                else:
                    return os.open(segment, _FILE, dir_fd=trail[-1])
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        finally:
            for descriptor in trail[1:]:
                os.close(descriptor)

    def _link(self, directory: int, segment: str) -> str:
        """Return what the link ``segment`` points to, or ``""`` when it is no link."""
        status = os.fstat(directory)
        key = (status.st_dev, status.st_ino, segment)
        if key not in self.links:
            try:
                self.links[key] = os.readlink(segment, dir_fd=directory)
            except OSError as exc:
                if exc.errno != errno.EINVAL:
                    raise
                return ""
        return self.links[key]


def read_file(descriptor: int) -> tuple[bytes, str]:
    """Return content and version of an open file, and close it.

    Raises ``OSError``, and ``ProviderError`` for what is no regular file, or too large.
    """
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(status.st_mode):
            raise ProviderError("the secret is no regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(MAX_VALUE_SIZE + 1)
    finally:
        os.close(descriptor)
    if len(content) > MAX_VALUE_SIZE:
        raise ProviderError(f"the file is larger than {MAX_VALUE_SIZE} bytes")
    return content, f"{status.st_mtime_ns}-{status.st_ino}"


def text_or_bytes(content: bytes) -> SecretStr | SecretBytes:
    """Return the text when ``content`` is UTF-8, else the bytes."""
    try:
        return SecretStr(content.decode())
    except UnicodeDecodeError:
        return SecretBytes(content)


def unreadable(exc: OSError) -> SecretError:
    """Return the error that an ``OSError`` of open or read means, chained to it."""
    error: SecretError
    if exc.errno in _NOT_FOUND:
        error = SecretNotFound("the file does not exist")
    elif exc.errno == errno.EISDIR:
        error = SecretNotFound("the name is that of a directory", hint="Name a file in it.")
    elif exc.errno in _DENIED:
        hint = "Let the user of this process read it."
        error = AccessDenied("this process may not read the file", hint=hint)
    elif exc.errno == errno.ENXIO:  # a socket
        error = ProviderError("the secret is no regular file")
    else:
        error = ProviderUnavailable(f"the file cannot be read: {exc.strerror}")
    error.__cause__ = exc
    return error


def path_problems(option: str, paths: Sequence[object]) -> list[Problem]:
    """Return a problem for what is no path, or depends on where a process was started."""
    problems = []
    for path in paths:
        if not isinstance(path, str | os.PathLike):
            problems.append(Problem(f"option {option!r} is no path", 'Write BASE_DIR / "...".'))
        elif not Path(path).is_absolute():
            hint = f'Write BASE_DIR / "{os.fspath(path)}".'
            problems.append(Problem(f"option {option!r} is not absolute", hint))
    return problems


def _segments(name: str) -> list[str]:
    """Split a name. Kubernetes' own directories begin with two dots and are no secrets."""
    segments = name.split("/")
    if any(part in ("", ".") or part.startswith("..") or "\0" in part for part in segments):
        raise InvalidReference(
            "the name has an empty segment, or one that is '.' or begins with '..'",
            hint="Write the path of the file below the directory, without a leading slash.",
        )
    return segments


def _way_out() -> AccessDenied:
    return AccessDenied(
        "a symbolic link leads out of the directory, or in a circle",
        hint="Put the file into the directory, or name the directory that holds it.",
    )
