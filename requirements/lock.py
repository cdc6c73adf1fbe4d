"""Writes the lock: ``tox run -e lock``, and with ``-- --upgrade`` the newest of everything.

One file for all Pythons and systems holds whatever pyproject.toml and ``lock.in`` ask for, in all
extras and groups; Django, which the environments of tox choose, has files of its own.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
OLDEST = "3.11"
#: The choices of Django, and the oldest Python that they take.
DJANGOS = {"django": OLDEST, "django52": OLDEST, "django60": "3.12", "django61": "3.12"}


def compile_(name: str, python: str, *arguments: str) -> None:
    command = ["uv", "pip", "compile", "-q", "--universal", "--generate-hashes", *sys.argv[1:]]
    command += ["--python-version", python, "--custom-compile-command", "tox run -e lock"]
    command += ["-o", f"requirements/{name}.txt", f"requirements/{name}.in", *arguments]
    subprocess.run(command, cwd=HERE.parent, check=True)


def main() -> None:
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())
    groups = [f"--group={name}" for name in sorted(project["dependency-groups"])]
    ours = [f"--no-emit-package={name}" for name in ("django", project["project"]["name"])]
    compile_("lock", OLDEST, "pyproject.toml", "--all-extras", *groups, *ours)
    for name, python in DJANGOS.items():
        compile_(name, python, "--no-deps")


if __name__ == "__main__":
    main()
