"""A provider that does what a test says, and settings that use it."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django_secret_registry import (
    BaseProvider,
    ProviderUnavailable,
    SecretNotFound,
    SecretRef,
    SecretValue,
    registry,
)
from tests.canary import CANARY, canary

ROOT = Path(__file__).parents[1]


@dataclasses.dataclass(eq=False)
class Script:
    """What the provider answers, and what it was asked. Change ``values`` or ``error`` at will."""

    values: dict[str, str | bytes]
    error: Exception | None = None
    fetched: list[str] = dataclasses.field(default_factory=list)
    gate: threading.Event | None = None

    def rotate(self, name: str, value: str) -> None:
        """Give ``name`` another value, and have it fetched by the next read."""
        self.values[name] = value
        registry.evict(f"vault://{name}")


class ScriptedProvider(BaseProvider):
    """Follows a :class:`Script`."""

    accepts = frozenset({"version", "stage"})

    def __init__(self, *, alias: str, region: str, script: Script) -> None:
        super().__init__(alias=alias, region=region)
        self.script = script

    def fetch(self, ref: SecretRef, *, timeout: float) -> SecretValue:
        self.script.fetched.append(ref.name)
        if self.script.gate is not None:
            self.script.gate.wait(timeout)
        if self.script.error is not None:
            raise self.script.error
        if ref.name not in self.script.values:
            raise self.error(SecretNotFound, "no such secret", ref)
        return SecretValue(self.script.values[ref.name])


def configured(settings: Any, values: Mapping[str, str | bytes], **more: Any) -> Script:
    """Make ``vault`` the one alias of the project; it holds ``values``."""
    script = Script(dict(values))
    settings.SECRET_REGISTRY = {
        "PROVIDERS": {
            "vault": {
                "BACKEND": "tests.live_support.ScriptedProvider",
                "OPTIONS": {"script": script},
            }
        },
        **more,
    }
    return script


#: The settings of a small project; ``{body}`` is what a test adds to it.
SETTINGS = """
from django_secret_registry import secret

SECRET_REGISTRY = {{
    "PROVIDERS": {{"vault": {{"BACKEND": "tests.live_support.EnvironmentProvider"}}}}
}}
INSTALLED_APPS = ["django_secret_registry"]
SECRET_KEY = "not a secret"
USE_TZ = True
{body}
"""


class EnvironmentProvider(BaseProvider):
    """Gives each secret a value made of its name, or is down, as ``VAULT`` says.

    Says on stdout what it was asked for.
    """

    accepts = frozenset({"version", "stage"})

    def fetch(self, ref: SecretRef, *, timeout: float) -> SecretValue:
        print(f"fetched {ref.name}", flush=True)  # noqa: T201
        if os.environ.get("VAULT") == "down":
            raise self.error(ProviderUnavailable, "the vault is down", ref)
        if ref.name.startswith("missing"):
            raise self.error(SecretNotFound, "no such secret", ref)
        return SecretValue(canary(ref.name))


def run(
    *arguments: str | Path, where: Path, code: int = 0, warnings: str = "error", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run Python in ``where``, with the sources of this project; its exit code must be ``code``."""
    done = subprocess.run(
        [sys.executable, "-W", warnings, *map(str, arguments)],
        cwd=where,
        env={
            **{key: value for key, value in os.environ.items() if key != "SECRET_REGISTRY_OFFLINE"},
            "PYTHONPATH": os.pathsep.join((str(where), str(ROOT))),
            "DJANGO_SETTINGS_MODULE": "project_settings",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, f"{done.returncode}: {done.stdout}\n{done.stderr}"
    assert CANARY not in done.stdout + done.stderr
    return done


class Project:
    """A project in a directory: its settings, further modules, and runs of it in a new process."""

    def __init__(self, where: Path) -> None:
        self.where = where

    def write(self, body: str = "", **modules: str) -> Project:
        """Add ``body`` to the settings, and ``modules`` by name."""
        modules["project_settings"] = SETTINGS.format(body=textwrap.dedent(body))
        for name, text in modules.items():
            (self.where / f"{name}.py").write_text(textwrap.dedent(text))
        return self

    def python(self, text: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run these lines; Django is not set up."""
        return run("-c", textwrap.dedent(text), where=self.where, **options)

    def manage(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a management command."""
        return run("-m", "django", *arguments, where=self.where, **options)
