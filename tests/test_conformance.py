"""The conformance tests: a good provider of a third party passes, and each fault is found."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import posixpath
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

import pytest

from django_secret_registry.conformance import FEATURES, ProviderConformance
from django_secret_registry.exceptions import (
    AccessDenied,
    ProviderError,
    ProviderUnavailable,
    SecretNotFound,
)
from django_secret_registry.providers.base import BaseProvider, quote_path
from django_secret_registry.values import SecretValue

pytestmark = pytest.mark.sdk

# Without the canary's mark: the faulty providers below show these on purpose.
OLD, NEW, ROTATED, TOKEN = "payload-old", "payload-new", "payload-rotated", "token-of-the-client"
BINARY = b"\xff\x00payload-binary"


class Backend(ThreadingHTTPServer):
    """A secret manager over HTTP with regions, versions and stages, which can fail and hang."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.secrets = {
            ("eu", "prod/db"): [OLD.encode(), NEW.encode()],
            ("us", "prod/db"): [b"payload-us"],
            ("eu", "prod/key"): [BINARY],
        }
        self.status = 200
        self.answering = threading.Event()
        self.answering.set()


class Handler(BaseHTTPRequestHandler):
    server: Backend

    def do_GET(self) -> None:
        self.server.answering.wait(30)
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        _, region, name = url.path.split("/", 2)
        versions = self.server.secrets.get((region, unquote(name)), [])
        number = int(query.get("version", len(versions)))
        if query.get("stage"):
            number = number - 1 if query["stage"] == "previous" else 0
        if self.server.status != 200:
            self.answer(self.server.status, b"", "")
        elif unquote(name) == "prod/denied":
            self.answer(403, b"", "")
        elif 0 < number <= len(versions):
            self.answer(200, versions[number - 1], str(number))
        else:
            self.answer(404, b"", "")

    def answer(self, status: int, body: bytes, version: str) -> None:
        with contextlib.suppress(ConnectionError):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Version", version)
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Keep the test's output clean."""


class HttpProvider(BaseProvider):
    """What a third party would write against ``Backend``."""

    accepts = frozenset({"version", "stage"})
    errors = {403: AccessDenied, 404: SecretNotFound}

    def __init__(self, *, alias, region, port, token=""):
        super().__init__(alias=alias, region=region)
        self.port = port
        self.token = token

    def fetch(self, ref, *, timeout):
        status, body, version = self.call(ref, timeout)
        if status == 200:
            return self.found(body, version)
        transient = status == 429 or status >= 500
        kind = self.errors.get(status, ProviderUnavailable if transient else ProviderError)
        raise self.error(kind, f"the backend answered {status}", ref)

    def call(self, ref, timeout):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("GET", self.path(ref))
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.headers["Version"]
        except (OSError, http.client.HTTPException) as exc:
            raise self.error(ProviderUnavailable, "the backend does not answer", ref) from exc
        finally:
            connection.close()

    def path(self, ref):
        query = urlencode({"version": ref.version, "stage": ref.stage})
        return f"/{self.region}/{quote_path(ref.name)}?{query}"

    def found(self, body, version):
        try:
            return SecretValue(body.decode(), version=version)
        except UnicodeDecodeError:
            return SecretValue(body, version=version)


class HttpCase(ProviderConformance):
    provider_class = HttpProvider
    region = "eu"
    existing, value, missing, denied = "prod/db", NEW, "prod/none", "prod/denied"
    binary, binary_value = "prod/key", BINARY
    versions = {"prod/db?version=1": OLD, "prod/db?version=2": NEW}
    missing_version = "prod/db?version=3"
    stages = {"prod/db?stage=current": NEW, "prod/db?stage=previous": OLD}
    missing_stage = "prod/db?stage=pending"
    regions = {"eu": NEW, "us": "payload-us"}
    credentials = (TOKEN,)
    outages = ("refused", "error", "throttled")
    hang_timeout, margin = 0.1, 1.0
    backend: Backend

    def attach(self, backend: Backend) -> None:
        self.backend = backend
        self.options = {"port": backend.server_port, "token": TOKEN}

    @contextlib.contextmanager
    def outage(self, kind: str) -> Iterator[BaseProvider]:
        if kind == "refused":
            options = {**self.options, "port": 1}
            yield self.provider_class(alias=self.alias, region=self.region, **options)
            return
        self.backend.status = {"error": 500, "throttled": 429}[kind]
        yield self.provider()
        self.backend.status = 200

    @contextlib.contextmanager
    def hang(self) -> Iterator[BaseProvider]:
        self.backend.answering.clear()
        try:
            yield self.provider()
        finally:
            self.backend.answering.set()

    def rotate(self) -> str:
        self.backend.secrets["eu", "prod/db"].append(ROTATED.encode())
        return ROTATED


@pytest.fixture
def backend() -> Iterator[Backend]:
    with Backend() as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01], daemon=True)
        thread.start()
        yield server
        server.answering.set()
        server.shutdown()
        thread.join()


class TestHttpProvider(HttpCase):
    @pytest.fixture(autouse=True)
    def server(self, backend: Backend) -> None:
        self.attach(backend)


class PlainText(HttpProvider):
    """Returns plain text instead of a SecretValue."""

    def found(self, body, version):
        return body.decode()


class Stripped(HttpProvider):
    """Gives less than the whole payload."""

    def found(self, body, version):
        return super().found(body[:-1], version)


class Digest(HttpProvider):
    """Derives the version from the value."""

    def found(self, body, version):
        return super().found(body, hashlib.sha256(body).hexdigest())


class ValueAsVersion(HttpProvider):
    """Puts the value into the version."""

    def found(self, body, version):
        return super().found(body, f"v-{body.decode(errors='replace')}")


class Replacing(HttpProvider):
    """Decodes what is no text."""

    def found(self, body, version):
        return SecretValue(body.decode(errors="replace"), version=version)


class Deaf(HttpProvider):
    """Ignores version and stage."""

    def path(self, ref):
        return super().path(ref.replace(version="", stage=""))


class SameVersion(HttpProvider):
    """Gives every version the same id."""

    def found(self, body, version):
        return super().found(body, "latest")


class HomeBound(HttpProvider):
    """Ignores the region it was built for."""

    def path(self, ref):
        return super().path(ref).replace(f"/{self.region}/", "/eu/")


class RegionLost(HttpProvider):
    """Does not keep the region it was built for."""

    def __init__(self, *, alias, region, **options):
        super().__init__(alias=alias, region="eu", **options)


class Caching(HttpProvider):
    """Remembers what it fetched once."""

    def call(self, ref, timeout):
        self.held = vars(self).get("held") or super().call(ref, timeout)
        return self.held


class VagueNotFound(HttpProvider):
    """Does not tell a missing secret from a broken answer."""

    errors = {403: AccessDenied, 404: ProviderError}


class VagueDenied(HttpProvider):
    """Calls a denied secret missing."""

    errors = {403: SecretNotFound, 404: SecretNotFound}


class VagueOutage(HttpProvider):
    """Calls everything missing that is no success."""

    errors = {**HttpProvider.errors, 429: SecretNotFound, 500: SecretNotFound}


class Nowhere(HttpProvider):
    """Raises errors that do not say where."""

    def error(self, kind, message, ref, *, hint=""):
        return kind(message)


class Telling(HttpProvider):
    """Puts its token into an error."""

    def error(self, kind, message, ref, *, hint=""):
        return super().error(kind, f"{message} to {self.token}", ref)


class TellingCause(HttpProvider):
    """Chains an error to one that holds its token."""

    def fetch(self, ref, *, timeout):
        try:
            raise ValueError(f"Authorization: {self.token}")
        except ValueError:
            return super().fetch(ref, timeout=timeout)


class TellingNote(HttpProvider):
    """Notes its token on an error."""

    def error(self, kind, message, ref, *, hint=""):
        error = super().error(kind, message, ref)
        error.add_note(self.token)
        return error


class TellingGroup(HttpProvider):
    """Chains an error to a group, in which one has its token in a note."""

    def error(self, kind, message, ref, *, hint=""):
        error, attempt = super().error(kind, message, ref), OSError("refused")
        attempt.add_note(self.token)
        error.__cause__ = ExceptionGroup("attempts", [attempt])
        return error


class TellingRepr(HttpProvider):
    """Shows its token in its repr."""

    def __repr__(self):
        return f"<{self.token}>"


class Patient(HttpProvider):
    """Waits longer than it was told."""

    def call(self, ref, timeout):
        return super().call(ref, 20)


class Normalizing(HttpProvider):
    """Resolves a name like a path before it quotes it."""

    def path(self, ref):
        return f"/{self.region}/{quote(posixpath.normpath(ref.name))}"


class Unquoted(HttpProvider):
    """Puts a name into a URL as it is."""

    def path(self, ref):
        return f"/{self.region}/{ref.name}"


class Crashing(HttpProvider):
    """Lets the exceptions of its client through."""

    def fetch(self, ref, *, timeout):
        ref.name.encode("ascii")
        return super().fetch(ref, timeout=timeout)


class RaisingBatch(HttpProvider):
    """Lets one reference of a batch spoil the others."""

    batch_size = 10

    def fetch_many(self, refs, *, timeout):
        return {ref: self.fetch(ref, timeout=timeout) for ref in refs}


class ShortBatch(HttpProvider):
    """Leaves failures out of its answer."""

    batch_size = 10

    def fetch_many(self, refs, *, timeout):
        answers = super().fetch_many(refs, timeout=timeout)
        return {ref: answer for ref, answer in answers.items() if isinstance(answer, SecretValue)}


class Unchecked(HttpProvider):
    """Accepts any option in its check."""

    @classmethod
    def check(cls, options):
        return []


class OneThread(HttpProvider):
    """Serves only the thread that came first."""

    def fetch(self, ref, *, timeout):
        if vars(self).setdefault("thread", threading.get_ident()) != threading.get_ident():
            raise RuntimeError("another thread")
        return super().fetch(ref, timeout=timeout)


class FragileClose(HttpProvider):
    """Breaks the fetches that run when it is closed."""

    def __init__(self, **options):
        super().__init__(**options)
        self.closed = threading.Event()

    def fetch(self, ref, *, timeout):
        if self.closed.wait(5):
            raise AttributeError("the client is gone")
        return super().fetch(ref, timeout=timeout)

    def close(self):
        self.closed.set()


class WaitingClose(HttpProvider):
    """Waits for running fetches when it is closed."""

    def __init__(self, **options):
        super().__init__(**options)
        self.lock = threading.Lock()
        self.started = threading.Event()

    def fetch(self, ref, *, timeout):
        with self.lock:
            self.started.set()
            return super().fetch(ref, timeout=5)

    def close(self):
        self.started.wait(5)
        with self.lock:
            pass


class CloseOnce(HttpProvider):
    """Cannot be closed again."""

    def close(self):
        del self.port


class Parental(HttpProvider):
    """Works in the process that imported it only."""

    process = os.getpid()

    def fetch(self, ref, *, timeout):
        if self.process != os.getpid():
            raise RuntimeError("another process")
        return super().fetch(ref, timeout=timeout)


FAULTS = [
    (PlainText, "existing_secret"),
    (Stripped, "existing_secret"),
    (Digest, "existing_secret"),
    (ValueAsVersion, "existing_secret"),
    (Replacing, "binary_secret"),
    (Deaf, "version"),
    (SameVersion, "version"),
    (Deaf, "stage"),
    (HomeBound, "region"),
    (RegionLost, "region"),
    (Caching, "rotation"),
    (SameVersion, "rotation"),
    (VagueNotFound, "not_found"),
    (Nowhere, "not_found"),
    (Telling, "not_found"),
    (TellingCause, "not_found"),
    (TellingNote, "not_found"),
    (TellingGroup, "not_found"),
    (VagueDenied, "denied"),
    (VagueOutage, "unavailable"),
    (Patient, "timeout"),
    (Normalizing, "hostile_names"),
    (Unquoted, "hostile_names"),
    (Crashing, "hostile_names"),
    (RaisingBatch, "fetch_many"),
    (ShortBatch, "fetch_many"),
    (Stripped, "fetch_many"),
    (Unchecked, "unknown_option"),
    (TellingRepr, "no_value_is_shown"),
    (OneThread, "concurrent_fetch"),
    (FragileClose, "close_during_fetch"),
    (WaitingClose, "close_does_not_wait"),
    (CloseOnce, "close_twice"),
    (Parental, "fork"),
]


@pytest.mark.parametrize(("faulty", "test"), FAULTS)
def test_faults_are_found(backend, faulty, test):
    """A provider with this fault fails the test that is about it, and the failure shows nothing."""
    case = type("Case", (HttpCase,), {"provider_class": faulty})()
    case.attach(backend)
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever makes a test fail
        getattr(case, f"test_{test}")()
    failure = str(caught.value)
    if isinstance(caught.value, AssertionError):
        assert not any(value in failure for value in (OLD, NEW, ROTATED, TOKEN))


def test_every_test_finds_a_fault():
    """No test of the class is without a fault that it finds."""
    tests = {name for name in dir(ProviderConformance) if name.startswith("test_")}
    assert {f"test_{test}" for _, test in FAULTS} == tests


@pytest.mark.parametrize("feature", FEATURES)
def test_feature_must_be_described_or_lacking(backend, feature):
    """A feature that a subclass neither describes nor lacks fails; one that it lacks is no test."""
    described = {"provider_class": HttpProvider, "region": "eu", "existing": "prod/db"}
    plain = type("Plain", (ProviderConformance,), described)
    tests = [name for name in dir(plain) if getattr(getattr(plain, name), "needs", "") == feature]
    assert tests
    case = plain()
    case.options = {"port": backend.server_port}
    for name in tests:
        with pytest.raises(AssertionError, match="neither"):
            getattr(case, name)()
    lacking = type("Lacking", (plain,), {"lacks": {feature: "the reason"}})
    assert [getattr(lacking, name) for name in tests] == [None] * len(tests)


def test_unknown_feature_is_refused():
    """A typing error in ``lacks`` would leave a test out silently, so it is an error."""
    with pytest.raises(TypeError, match=r"Case.lacks names \['stages'\]"):
        type("Case", (ProviderConformance,), {"lacks": {"stages": "x"}})


def test_provider_that_hangs_forever_is_found(backend, monkeypatch):
    """A provider that ignores its timeout makes the tests fail and not hang."""
    monkeypatch.setattr("django_secret_registry.probing.PATIENCE", 0.2)
    case = HttpCase()
    case.attach(backend)
    with case.hang():
        for test in (case.test_concurrent_fetch, case.test_close_during_fetch):
            with pytest.raises(AssertionError, match="threads hang"):
                test()
