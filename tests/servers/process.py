"""Servers that are programs: started on a free port of 127.0.0.1, stopped with the test run."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence


def free_port() -> int:
    """Return a port that is free now; whoever loses the race for it tries another one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Output:
    """What a process prints, line by line; ``is_ready`` is set once ``sign`` is in one of them.

    So it is when the process ends, maybe without ever having been ready.
    """

    def __init__(self, process: subprocess.Popen[str], sign: str) -> None:
        assert process.stdout is not None
        self.lines: list[str] = []
        self.is_ready = threading.Event()
        self._sign = sign
        self._stream = process.stdout
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        for line in self._stream:
            self.lines.append(line)
            if self._sign in line:
                self.is_ready.set()
        self.is_ready.set()

    @property
    def text(self) -> str:
        return "".join(self.lines)

    def close(self) -> None:
        """Wait for the last line of a process that has ended."""
        self._listener.join()
        self._stream.close()


@contextlib.contextmanager
def running(
    command: Sequence[str],
    *,
    ready: str,
    user: int | None = None,
    timeout: float = 60,
    stop: int = signal.SIGTERM,
) -> Iterator[subprocess.Popen[str]]:
    """Run ``command`` until the block ends, from the moment it has printed ``ready``.

    ``stop`` is the signal that ends it.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
        env={"PATH": os.defpath, "LC_ALL": "C"},
        start_new_session=True,
    )
    output = Output(process, ready)
    try:
        if not output.is_ready.wait(timeout) or process.poll() is not None:
            raise RuntimeError(f"{command[0]} did not start: {output.text[-2000:]}")
        yield process
    finally:
        process.send_signal(stop)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        output.close()
