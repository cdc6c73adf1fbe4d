"""A small project on disk, whose ``manage.py`` commands a test runs as an operator does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

SETTINGS = """
from pathlib import Path
from django_secret_registry import secret

INSTALLED_APPS = ["django_secret_registry", "django.contrib.contenttypes"]
SECRET_REGISTRY = {
    "PROVIDERS": {
        "file": {
            "BACKEND": "django_secret_registry.providers.file.FileProvider",
            "OPTIONS": {"path": str(Path(__file__).parent / "secrets")},
        }
    },
    "SECRETS": {"stripe": "file://stripe"},
}
SECRET_KEY = secret("file://django")
NESTED = {"list": [secret("file://nested")]}
USE_TZ = True
"""


class Project:
    """A directory with ``settings.py`` and the secrets that its ``file`` provider gives."""

    def __init__(self, path: Path, secrets: Mapping[str, str]) -> None:
        self.path = path
        (path / "settings.py").write_text(SETTINGS)
        (path / "secrets").mkdir()
        for name, value in secrets.items():
            (path / "secrets" / name).write_text(value)

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "settings",
            "PYTHONPATH": os.pathsep.join((str(self.path), str(Path(__file__).parents[1]))),
        }

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-W", "error", "-m", "django", *arguments]

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command with its streams in pipes."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.path,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )

    def run_on_terminal(self, *arguments: str) -> tuple[int, str]:
        """Run a command with a terminal as its standard error; return exit code and its text."""
        ours, theirs = os.openpty()
        with subprocess.Popen(
            self.command(*arguments),
            cwd=self.path,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=theirs,
        ) as process:
            os.close(theirs)
            shown = b""
            while True:
                try:
                    part = os.read(ours, 4096)
                except OSError:  # Linux: the other end was closed
                    break
                if not part:
                    break
                shown += part
            os.close(ours)
        return process.returncode, shown.decode()
