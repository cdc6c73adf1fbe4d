"""Secrets from the process's environment and from ``.env`` files."""

from __future__ import annotations

import io
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import environ  # type: ignore[import-untyped]

from ..exceptions import ProviderError, SecretError, SecretNotFound
from ..references import SecretRef
from ..values import SecretStr, SecretValue
from .base import BaseProvider, Problem
from .file import path_problems, read_file, text_or_bytes, unreadable

StrPath = str | os.PathLike[str]


class EnvProvider(BaseProvider):
    """Gives ``name`` the value of the environment variable ``prefix`` + ``name``.

    The process's environment wins over ``env_file``: one path or several, of which the first that
    has the variable wins. The files are parsed by django-environ (``parse_comments`` is its
    option) at each fetch and never written to ``os.environ``; a value that begins with ``$`` is
    taken as it is. A file that does not exist has no variables, one that may not be read is
    ``AccessDenied``, one that is no file or not UTF-8 is ``ProviderError``.

    The version of a variable from a file is the file's modification time and inode; one of the
    process's environment has none.
    """

    def __init__(
        self,
        *,
        alias: str,
        region: str,
        prefix: str = "",
        env_file: StrPath | Sequence[StrPath] = (),
        parse_comments: bool = False,
    ) -> None:
        super().__init__(alias=alias, region=region)
        self.prefix = prefix
        self.env_files = [os.fspath(path) for path in _as_sequence(env_file)]
        self.parse_comments = parse_comments

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> list[Problem]:
        problems = super().check(options)
        if not isinstance(options.get("prefix", ""), str):
            problems.append(Problem("option 'prefix' is no str", 'Write "MYAPP_".'))
        return [*problems, *path_problems("env_file", _as_sequence(options.get("env_file", ())))]

    def fetch(self, ref: SecretRef, *, timeout: float) -> SecretValue:
        name = self.prefix + ref.name
        value = os.environ.get(name)
        if value is not None:
            # Bytes that are no UTF-8 stand in os.environ as lone surrogates.
            return SecretValue(text_or_bytes(os.fsencode(value)))
        for path in self.env_files:
            variables, version = self._read(path, ref)
            if name in variables:
                return SecretValue(SecretStr(variables[name]), version=version)
        files = f" and is in none of {', '.join(self.env_files)}" if self.env_files else ""
        message = f"the environment variable {name} is not set{files}"
        raise self.error(SecretNotFound, message, ref)

    def _read(self, path: str, ref: SecretRef) -> tuple[Mapping[str, str], str]:
        try:
            content, version = read_file(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY))
        except FileNotFoundError:
            return {}, ""
        except OSError as exc:
            raise self._about(path, unreadable(exc), ref) from exc
        except SecretError as error:
            raise self._about(path, error, ref) from error
        text = text_or_bytes(content)
        if isinstance(text, bytes):
            raise self._about(path, ProviderError("it is not UTF-8 text"), ref)
        return _parse(path, text, parse_comments=self.parse_comments), version

    def _about(self, path: str, error: SecretError, ref: SecretRef) -> SecretError:
        # A directory in place of the file, say, does not mean that there is no such variable.
        kind = ProviderError if isinstance(error, SecretNotFound) else type(error)
        return self.error(kind, f"{path}: {error.message}", ref, hint=error.hint)


def _as_sequence(env_file: Any) -> Sequence[Any]:
    return env_file if isinstance(env_file, list | tuple) else [env_file]


def _parse(path: str, text: str, *, parse_comments: bool) -> Mapping[str, str]:
    """Let django-environ parse ``text`` into a mapping of its own instead of ``os.environ``."""

    class Env(environ.Env):  # type: ignore[misc]
        ENVIRON: ClassVar[dict[str, str]] = {}

    _log_filter.path = path
    try:
        Env.read_env(io.StringIO(text), parse_comments=parse_comments)
    finally:
        _log_filter.path = ""
    return Env.ENVIRON


class _LogFilter(threading.local, logging.Filter):
    """Keeps lines of our files out of django-environ's log, in the thread that reads one.

    It logs each line that it cannot parse, such as the second one of a private key.
    """

    path = ""

    def filter(self, record: logging.LogRecord) -> bool:
        if self.path:
            record.msg = "%s has a line that is no NAME=value; it is not shown: it may be a secret"
            record.args = (self.path,)
        return not self.path or record.levelno >= logging.WARNING


_log_filter = _LogFilter()
logging.getLogger(environ.Env.__module__).addFilter(_log_filter)
