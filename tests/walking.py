"""Somebody who follows a page: writes its files, runs its commands, in an empty folder.

Blocks are taken as they stand there, with three exceptions. Ports are exchanged for free ones, and
so is what a test has to put elsewhere, such as ``/run/secrets``. ``pip install`` looks whether what
it names is declared and installed already. What goes on running stands behind a note that tells how
one sees that it is ready::

    <!-- goes on running, ready at: Running on -->

A block of ``text`` is what the command before it prints, but for numbers, and for each ``...``.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Self

import pytest
from django.core.management import call_command
from packaging.requirements import Requirement

from tests.documents import ROOT, Block, blocks_of
from tests.servers.process import Output, free_port

GOES_ON = "goes on running, ready at"
#: Seconds for which anybody waits for a command.
PATIENCE = 120
INSTALL = re.compile(r"^python -m pip install (.*)\n", re.MULTILINE)


class Walk:
    """One walk through a page, in ``folder``. A context manager: what it started ends with it.

    ``ports``: those of the page that are exchanged; ``exchanged``: other text, and for what.
    ``environment`` is added to the commands' own.
    """

    def __init__(
        self,
        page: Path,
        folder: Path,
        *,
        ports: tuple[int, ...] = (),
        exchanged: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        #: What the commands printed, one text for each block.
        self.printed: list[str] = []
        self._blocks = list(blocks_of(page))
        self._ports = {str(port): str(free_port()) for port in ports}
        self._exchanged = {**(exchanged or {}), **self._ports}
        self._said: list[list[str]] = []
        self._stack = contextlib.ExitStack()
        of_machine = ("AWS_", "DJANGO_", "SECRET_REGISTRY_OFFLINE", "VIRTUAL_ENV")
        self._environment = {
            **{name: text for name, text in os.environ.items() if not name.startswith(of_machine)},
            "HOME": str(folder),
            "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "AWS_EC2_METADATA_DISABLED": "true",
            **(environment or {}),
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def port(self, written: int) -> int:
        """Return the port that stands for the one that is written."""
        return int(self._ports[str(written)])

    def follow(self, *, until: str = "") -> list[Block]:
        """Do what the blocks say, up to the title ``until``; return the blocks that were done."""
        done = []
        while self._blocks and not (until and self._blocks[0].title == until):
            block = self._blocks.pop(0)
            if not block.noted("not run"):
                self._do(block)
                done.append(block)
        assert self._blocks or not until, f"there is no title {until!r}"
        return done

    def _do(self, block: Block) -> None:
        text = block.text
        for written, real in self._exchanged.items():
            text = re.sub(rf"(?<!\w){re.escape(written)}(?!\w)", real, text)
        if block.file:
            path = self.folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a" if block.is_appended else "w", encoding="utf-8") as file:
                file.write(text)
        elif block.noted(GOES_ON):
            self._serve(text, block.noted(GOES_ON), block)
        elif block.language == "sh":
            self.run(INSTALL.sub(look_for, text), str(block))
        elif block.language == "text":
            self._compare(text, str(block))
        else:
            assert not block.runs, f"{block} is neither a file nor a command"

    def run(self, commands: str, where: str = "") -> str:
        """Run shell commands, and return what they print."""
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", commands],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, f"{where}: {done.stdout}"
        self.printed.append(done.stdout)
        return done.stdout

    def _compare(self, shown: str, where: str) -> None:
        """Look whether the last command printed these lines; numbers may differ."""
        for line in shown.splitlines():
            pattern = r"\s+".join(map(_word, line.split()))
            assert re.search(rf"(?m)^\s*{pattern}\s*$", self.printed[-1]), (
                f"{where}: no line {line!r} in {self.printed[-1]}"
            )

    def wait_for(self, text: str) -> None:
        """Wait until something that goes on running has printed ``text``."""
        deadline = time.monotonic() + PATIENCE
        while not any(text in line for said in self._said for line in said):
            assert time.monotonic() < deadline, f"nobody says {text!r}: {self._said}"
            time.sleep(0.05)

    def _serve(self, command: str, sign: str, block: Block) -> None:
        process = subprocess.Popen(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        output = Output(process, sign)
        self._said.append(output.lines)

        def stop() -> None:
            for how in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, how)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(20)
            output.close()
            self.printed.append(output.text)

        self._stack.callback(stop)
        assert output.is_ready.wait(PATIENCE), f"{block}: not ready: {output.text}"
        assert any(sign in line for line in output.lines), f"{block}: it ended: {output.text}"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project as ``startproject`` makes it."""
    folder = tmp_path_factory.mktemp("made")
    call_command("startproject", "shop", str(folder))
    return folder


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Path:
    """A copy of it, for one test."""
    return shutil.copytree(made, tmp_path / "project")


def _word(word: str) -> str:
    """Return a pattern for a word of output: ``...`` is anything, and so is each number."""
    anything = re.escape(word).replace(re.escape("..."), r"\S+")
    return re.sub(r"[0-9]+(?:\\\.[0-9]+)?", r"[0-9.e+-]+", anything)


def look_for(command: re.Match[str]) -> str:
    """Look whether what is installed is ours, with extras that exist, or is here already."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for wanted in map(Requirement, shlex.split(command[1])):
        if wanted.name == project["name"]:
            assert wanted.extras <= project["optional-dependencies"].keys(), wanted
        else:
            found = metadata.metadata(wanted.name)
            assert wanted.extras <= set(found.get_all("Provides-Extra") or ()), wanted
            assert wanted.specifier.contains(found["Version"]), wanted
    return ""
