"""A project that runs as it does in production: its commands, its server, its users."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import requests

from tests.canary_check import masked, shows

BIN = Path(sys.executable).parent
#: How images are built: there is no Secrets Manager.
OFFLINE = {"SECRET_REGISTRY_OFFLINE": "1", "AWS_ENDPOINT_URL_SECRETS_MANAGER": ""}
#: No project may take this long for anything, in seconds: it hangs.
PATIENCE = 300


def until(condition: Callable[[], bool]) -> None:
    """Wait for what other processes bring about."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it does not come about"
        time.sleep(0.05)


class Site:
    """A project in ``folder``, whose ``manage.py`` and WSGI application run with ``environment``.

    Whatever any of its processes has written is looked at for secrets.
    """

    def __init__(self, folder: Path, module: str, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self._module = module
        # Nothing of the machine's own set-up: a project sees what a container would be given.
        self._environment = {"PATH": os.defpath, "LC_ALL": "C.UTF-8", **environment}

    def start(self, files: Path) -> None:
        """Begin a project by Django's template, and put ``files`` into it."""
        self.run(BIN / "django-admin", "startproject", self._module, ".", DJANGO_SETTINGS_MODULE="")
        for file in files.glob("*.py"):
            shutil.copy(file, self.folder / self._module)

    def run(self, *command: str | Path, **environment: str) -> str:
        """Run ``command`` in the project's folder; return what it wrote. It must succeed."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self._environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        text = done.stdout
        name = " ".join(map(str, command))
        assert not shows(text), f"{name} showed a secret: {masked(text)}"
        assert done.returncode == 0, f"{name} failed:\n{text}"
        return text

    def manage(self, *arguments: str, **environment: str) -> str:
        """Run a command of ``manage.py``."""
        return self.run(sys.executable, "manage.py", *arguments, **environment)

    def python(self, code: str, **environment: str) -> str:
        """Run Python in the project, after ``django.setup()``."""
        return self.run(
            sys.executable, "-c", f"import django; django.setup()\n{code}", **environment
        ).strip()

    def until_said(self, text: str, *, by: str) -> None:
        """Wait until the process of this program has written ``text``."""
        log = self.folder / f"{by}.log"
        until(lambda: text in log.read_text())

    @contextlib.contextmanager
    def process(self, command: Sequence[str | Path], *, fds: Sequence[int] = ()) -> Iterator[Path]:
        """Run ``command`` until the block ends; give the file with what it writes."""
        log = self.folder / f"{Path(command[0]).name}.log"
        with log.open("w") as file:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                pass_fds=fds,
            )
            try:
                yield log
                assert process.poll() is None, f"{command[0]} has ended: {masked(log.read_text())}"
            except BaseException as error:
                error.add_note(masked(log.read_text()[-6000:]))
                raise
            finally:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(PATIENCE)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        text = log.read_text()
        assert not shows(text), f"{command[0]} showed a secret: {masked(text)}"

    @contextlib.contextmanager
    def served(self) -> Iterator[Browser]:
        """Serve the site by one gunicorn worker with threads; give a browser that visits it."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            # The port listens already: who comes early waits for the worker.
            command = [
                *(BIN / "gunicorn", "--bind", f"fd://{listener.fileno()}"),
                *("--workers", "1", "--threads", "4", "--no-control-socket"),
                f"{self._module}.wsgi:application",
            ]
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            with self.process(command, fds=[listener.fileno()]), Browser(url) as browser:
                yield browser


class Browser:
    """A user with a browser: cookies, forms, redirects. An error page is an error."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy of this machine
        self._session.headers["Host"] = "localhost"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._session.close()

    def get(self, path: str, **headers: str) -> requests.Response:
        return self._seen(self._session.get(f"{self.url}{path}", headers=headers, timeout=PATIENCE))

    def failure(self, path: str) -> None:
        """Get a page that fails."""
        response = self._session.get(f"{self.url}{path}", timeout=PATIENCE)
        assert response.status_code == 500
        assert not shows(response.text)

    def post(self, path: str, data: Mapping[str, Any], **headers: str) -> requests.Response:
        """Send JSON, as a program does."""
        return self._seen(
            self._session.post(f"{self.url}{path}", json=data, headers=headers, timeout=PATIENCE)
        )

    def submit(
        self,
        path: str,
        data: Mapping[str, Any],
        *,
        to: str = "",
        files: Mapping[str, tuple[str, bytes, str]] | None = None,
    ) -> requests.Response:
        """Fill in the form on the page at ``path`` and send it, there or ``to`` its action."""
        found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', self.get(path).text)
        assert found is not None, f"no form at {path}"
        return self._seen(
            self._session.post(
                f"{self.url}{to or path}",
                data={"csrfmiddlewaretoken": found[1], **data},
                files=files,
                headers={"Referer": f"{self.url}{path}"},
                timeout=PATIENCE,
            )
        )

    def refresh_secrets(self, admin: str) -> None:
        """Have the process fetch anew all that it holds: by our page in the admin at ``admin``."""
        path = f"{admin}django_secret_registry/cachedsecret/"
        form = {"action": "refresh", "select_across": "1", "_selected_action": "-"}
        page = self.submit(path, {**form, "confirmed": "yes"}).text
        assert "Refreshed" in page
        assert "errorlist" not in page

    def _seen(self, response: requests.Response) -> requests.Response:
        assert response.status_code < 400, (
            f"{response.request.method} {response.url}: {response.status_code}"
            f" {masked(response.text[:500])}"
        )
        assert not shows(response.text), f"{response.url} shows a secret"
        return response
