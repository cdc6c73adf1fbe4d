"""An AWS-compatible endpoint on 127.0.0.1 with a latency of its own and no work behind it.

It runs in a process of its own: in the measured one its threads would compete for the GIL.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator

ARN = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:"


class Upstream:
    """The endpoint, as the measuring process sees it."""

    def __init__(self, url: str) -> None:
        self.url = url

    def answer_after(self, latency: float) -> None:
        """Have every answer take ``latency`` seconds from now on."""
        self._control({"latency": latency})

    def calls(self, operation: str) -> int:
        """Return how often an operation was called."""
        return int(self._control({}).get(operation, 0))

    def _control(self, change: dict[str, float]) -> dict[str, int]:
        request = urllib.request.Request(  # noqa: S310 - the process that was started here
            self.url, json.dumps(change).encode(), {"X-Amz-Target": "control"}
        )
        with urllib.request.urlopen(request) as answer:  # noqa: S310
            calls: dict[str, int] = json.load(answer)
        return calls


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    latency = 0.005

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.calls: Counter[str] = Counter()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        operation = self.headers["X-Amz-Target"].rpartition(".")[2]
        answer: dict[str, object]
        if operation == "control":
            self.server.latency = asked.get("latency", self.server.latency)
            answer = dict(self.server.calls)
        else:
            self.server.calls[operation] += 1
            time.sleep(self.server.latency)  # the latency that is measured
            names = asked.get("SecretIdList")
            answer = (
                _secret(asked["SecretId"])
                if names is None
                else {"SecretValues": [_secret(name) for name in names], "Errors": []}
            )
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


def stored(name: str) -> str:
    """Return what the endpoint keeps under a name."""
    return json.dumps({"password": f"value of {name}"})


def _secret(name: str) -> dict[str, object]:
    return {
        "ARN": f"{ARN}{name}-AbCdEf",
        "Name": name,
        "VersionId": "0" * 32,
        "VersionStages": ["AWSCURRENT"],
        "VersionIdsToStages": {"0" * 32: ["AWSCURRENT"]},  # of DescribeSecret
        "SecretString": stored(name),
        "CreatedDate": 1.7e9,
    }


@contextlib.contextmanager
def upstream() -> Iterator[Upstream]:
    """Serve until the block ends."""
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", __name__], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            if process.stdout is None:
                raise RuntimeError("the endpoint cannot say where it listens")
            yield Upstream(process.stdout.readline().strip())
        finally:
            process.terminate()


if __name__ == "__main__":
    with _Server() as server:
        print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
        server.serve_forever()
