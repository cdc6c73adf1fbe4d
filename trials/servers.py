"""What the projects talk to, besides the servers of the tests."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self

import boto3.session
import requests

from tests.canary import unwatched
from tests.servers.postgres import PostgresServer
from tests.servers.process import free_port, running

BUCKET = "media"
REGION = "eu-central-1"
POLICY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
}


class Request(NamedTuple):
    path: str
    authorization: str
    body: bytes


class Recorder:
    """An HTTP service that keeps the requests whose ``Authorization`` it accepts; 401 to others."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self.requests: list[Request] = []
        self.refused: list[Request] = []
        self.accepts: Callable[[str], bool] = lambda authorization: True
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                request = Request(self.path, self.headers.get("Authorization", ""), body)
                accepted = recorder.accepts(request.authorization)
                (recorder.requests if accepted else recorder.refused).append(request)
                text = json.dumps(answer).encode()
                self.send_response(200 if accepted else 401)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *args: object) -> None:
                """Keep quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"

    @classmethod
    @contextlib.contextmanager
    def started(cls, answer: dict[str, Any]) -> Iterator[Self]:
        """Run a service that answers so until the block ends."""
        recorder = cls(answer)
        thread = threading.Thread(target=recorder._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield recorder
        finally:
            recorder._server.shutdown()
            thread.join()
            recorder._server.server_close()


def basic(user: str, password: str) -> str:
    """Return the ``Authorization`` of this user (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def own_database(server: PostgresServer, name: str, password: str) -> None:
    """Create a user and its database, both called so; it may create others, as tests do."""
    server.set_password(name, password)
    with server.admin() as connection:
        connection.execute(f"ALTER ROLE {name} CREATEDB")
        connection.execute(f"CREATE DATABASE {name} OWNER {name}")


class S3Server:
    """moto's S3, which lets in who signs with a key of its IAM, and nobody else.

    It is a program of its own: whether moto checks signatures is one switch for its whole process.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._keys = ("root", "root")
        with self._client("s3") as s3:
            s3.create_bucket(
                Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION}
            )
        self._users: dict[str, str] = {}
        self._keys = self.new_key()
        requests.post(f"{url}/moto-api/reset-auth", data=b"0", timeout=20).raise_for_status()

    def new_key(self) -> tuple[str, str]:
        """Return the id of an access key, and the key; each is of a user of its own."""
        user = f"user-{len(self._users)}"
        with self._client("iam") as iam:
            iam.create_user(UserName=user)
            iam.put_user_policy(UserName=user, PolicyName="all", PolicyDocument=json.dumps(POLICY))
            key = iam.create_access_key(UserName=user)["AccessKey"]
        self._users[key["AccessKeyId"]] = user
        return key["AccessKeyId"], key["SecretAccessKey"]

    def delete_key(self, key_id: str) -> None:
        """Refuse what is signed with this key from now on."""
        with self._client("iam") as iam:
            iam.delete_access_key(UserName=self._users[key_id], AccessKeyId=key_id)

    def names(self) -> list[str]:
        """Return the names of all objects."""
        with self._client("s3") as s3:
            return [one["Key"] for one in s3.list_objects_v2(Bucket=BUCKET).get("Contents", ())]

    @contextlib.contextmanager
    def _client(self, service: str) -> Iterator[Any]:
        key_id, key = self._keys
        session = boto3.session.Session(
            aws_access_key_id=key_id, aws_secret_access_key=key, region_name=REGION
        )
        with (
            unwatched(),
            contextlib.closing(session.client(service, endpoint_url=self.url)) as client,
        ):
            yield client


@contextlib.contextmanager
def s3_started() -> Iterator[S3Server]:
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with running(command, ready="Running on"):
        yield S3Server(f"http://127.0.0.1:{port}")
