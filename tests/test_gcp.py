"""Google Secret Manager: its client against a gRPC and a REST server, and against failing ones."""

from __future__ import annotations

import functools
import json
import logging
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_secret_registry.conformance import ProviderConformance
from django_secret_registry.exceptions import (
    AccessDenied,
    InvalidProvider,
    InvalidReference,
    ProviderError,
    ProviderUnavailable,
    ResidencyViolation,
    SecretError,
    SecretNotFound,
)
from django_secret_registry.probing import PATIENCE, in_child
from django_secret_registry.provider_cache import ProviderSpec
from django_secret_registry.providers import _fork
from django_secret_registry.providers._gcp import ATTEMPTS, _transport
from django_secret_registry.providers._requests import MAX_ANSWER
from django_secret_registry.providers.base import BaseProvider
from django_secret_registry.providers.gcp import SecretManagerProvider
from django_secret_registry.references import SecretRef
from django_secret_registry.residency import Residency
from django_secret_registry.resolver import SecretRegistry
from django_secret_registry.specs import RegistryConfig
from django_secret_registry.values import MAX_VALUE_SIZE, SecretBytes, SecretStr, SecretValue
from tests.canary import canary
from tests.fixtures import gcp
from tests.scripted import entry, make
from tests.servers.gcp import PROJECT, GCPServer
from tests.servers.hostile import hostile
from tests.servers.https import Answer

pytestmark = pytest.mark.sdk

gcp_session, gcp_server = gcp.gcp_session, gcp.gcp_server

TRANSPORTS = ("grpc", "rest")
REGION = "europe-west3"


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def provider(gcp_server: GCPServer, transport: str) -> SecretManagerProvider:
    return build(gcp_server, transport)


@pytest.fixture
def rest(gcp_server: GCPServer) -> SecretManagerProvider:
    return build(gcp_server, "rest")


def build(
    server: GCPServer, transport: str = "grpc", region: str = "", **options: Any
) -> SecretManagerProvider:
    return SecretManagerProvider(alias="gcp", region=region, **server.options(transport, **options))


def reference(text: str, project: str = PROJECT) -> SecretRef:
    ref = SecretRef.parse(f"gcp://{text}").payload()
    return SecretManagerProvider.canonical(ref, {"project": project})


def fetch(provider: BaseProvider, text: str = "db", timeout: float = 10) -> SecretValue:
    return provider.fetch(reference(text), timeout=timeout)


def refusal(provider: BaseProvider, text: str = "db", timeout: float = 10) -> SecretError:
    with pytest.raises(SecretError) as caught:
        fetch(provider, text, timeout)
    return caught.value


def closed_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


class GCPConformance(ProviderConformance):
    """What both transports must do."""

    provider_class = SecretManagerProvider
    alias = "gcp"
    transport: str
    existing, value, missing = "db", canary("db"), "none"
    binary, binary_value = "binary", canary("binary").encode() + b"\xff\x00"
    denied = "denied"
    versions = {"db?version=1": canary("db-old"), "db?version=3": value}
    missing_version = "db?version=9"
    stages = {
        "db?stage=current": value,
        "db?stage=previous": canary("db-old"),
        "db?stage=blue": canary("db-old"),
    }
    missing_stage = "db?stage=pending"
    regions = {REGION: canary("db-here"), "us-east1": canary("db-there")}

    @pytest.fixture(autouse=True)
    def server(self, gcp_server: GCPServer) -> None:
        self.gcp = gcp_server
        self.options = gcp_server.options(self.transport)
        backend = gcp_server.backend
        backend.put("db", canary("db-old").encode())
        backend.put("db", canary("db-disabled").encode())
        backend.put("db", self.value.encode())
        backend.set_state("db", "2", "DISABLED")
        backend.set_alias("db", "blue", "1")
        for region, value in self.regions.items():
            backend.put("db", value.encode(), region=region)
        backend.put(self.binary, self.binary_value)
        backend.put(self.denied, canary("denied").encode())
        backend.deny(self.denied, "access")

    def rotate(self) -> str:
        self.gcp.backend.put("db", canary("db-rotated").encode())
        return canary("db-rotated")

    @contextmanager
    def outage(self, kind: str) -> Iterator[BaseProvider]:
        options: dict[str, Any] = {}
        if kind == "refused":
            options["client"] = {"client_options": {"api_endpoint": closed_port()}}
        elif kind == "cut":
            self.gcp.backend.cut()
        elif kind == "page":
            self.gcp.backend.answer(502, canary("page").encode())
        else:
            self.gcp.backend.fail(kind)
        yield build(self.gcp, self.transport, **options)
        self.gcp.backend.heal()

    @contextmanager
    def hang(self) -> Iterator[BaseProvider]:
        self.gcp.backend.hang()
        yield build(self.gcp, self.transport)
        self.gcp.backend.heal()


class TestOverGRPC(GCPConformance):
    """Over gRPC, Secret Manager behaves as every provider must."""

    transport = "grpc"
    outages = ("refused", "UNAVAILABLE", "RESOURCE_EXHAUSTED")


class TestOverREST(GCPConformance):
    """Over REST, Secret Manager behaves as every provider must."""

    transport = "rest"
    outages = ("refused", "cut", "page", "RESOURCE_EXHAUSTED")


# -- names, versions, stages --


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("db", "gcp://db"),
        ("db?project=acme", "gcp://db"),
        ("db?project=other", "gcp://db?project=other"),
        ("db?version=latest", "gcp://db"),
        ("db?stage=current", "gcp://db"),
        ("db?stage=latest", "gcp://db"),
        ("db?stage=previous", "gcp://db?stage=previous"),
        ("db?version=blue", "gcp://db?stage=blue"),
        ("db?version=7&stage=current", "gcp://db?version=7"),
        ("projects/acme/secrets/db", "gcp://db?region=-"),
        ("projects/acme/secrets/db?region=-&project=acme", "gcp://db?region=-"),
        ("projects/12/secrets/db/versions/7", "gcp://db?region=-&project=12&version=7"),
        ("projects/12/secrets/db/versions/latest", "gcp://db?region=-&project=12"),
        (f"projects/acme/locations/{REGION}/secrets/db", f"gcp://db?region={REGION}"),
        (
            f"projects/12/locations/{REGION}/secrets/db/versions/blue?region={REGION}",
            f"gcp://db?region={REGION}&project=12&stage=blue",
        ),
    ],
)
def test_one_spelling(text: str, expected: str) -> None:
    """Every way to write a reference ends in one, which is what is cached and fenced."""
    ref = reference(text)
    assert str(ref) == expected
    assert reference(expected.removeprefix("gcp://")) == ref


@pytest.mark.parametrize(
    "text",
    [
        "a/b",
        "db.x",
        "x" * 256,
        "projects/acme/db",
        "projects/acme/secrets/db/versions/",
        "projects/a:b/secrets/db",
        "projects/%2e%2e/secrets/db",
        "projects/acme/locations/../secrets/db",
        "projects/acme/secrets/db?project=other",
        f"projects/acme/secrets/db?region={REGION}",
        f"projects/acme/locations/{REGION}/secrets/db?region=us-east1",
        "projects/acme/secrets/db/versions/7?version=8",
        "db?version=7&stage=blue",
        "db?version=blue&stage=green",
        "db?stage=7",
        "db?version=07",
    ],
)
def test_bad_name(text: str) -> None:
    """What cannot be a name, and what contradicts itself, is InvalidReference with a hint."""
    with pytest.raises(InvalidReference) as caught:
        reference(text)
    assert caught.value.hint


def test_no_project() -> None:
    """A reference without project needs one in the options."""
    with pytest.raises(InvalidReference, match="project"):
        reference("db", project="")
    assert reference("db?project=acme", project="").project == "acme"


@given(st.text(st.sampled_from("projects/secrets/locations/versions/.-_:%@a1"), min_size=1))
def test_names_are_safe_in_a_path(name: str) -> None:
    """Whatever the name, what is left of it is an id and has one spelling."""
    ref = SecretRef(scheme="gcp", name=name)
    try:
        ref = SecretManagerProvider.canonical(ref, {"project": PROJECT})
    except InvalidReference:
        return
    assert ref.name.replace("-", "a").replace("_", "a").isalnum()
    assert SecretManagerProvider.canonical(ref, {"project": PROJECT}) == ref


def test_another_project(gcp_server: GCPServer, provider: SecretManagerProvider) -> None:
    """A reference's project goes over the one in the options."""
    gcp_server.backend.put("db", canary("other").encode(), project="other")
    assert fetch(provider, "db?project=other").value == canary("other")
    assert fetch(provider, "projects/other/secrets/db/versions/1").value == canary("other")
    assert type(refusal(provider)) is SecretNotFound


def test_region_is_part_of_the_name(gcp_server: GCPServer, transport: str) -> None:
    """An instance with a region reads the secrets of that location, and no global ones."""
    gcp_server.backend.put("db", canary("here").encode(), region=REGION)
    gcp_server.backend.put("global", canary("global").encode())
    provider = build(gcp_server, transport, REGION)
    full = f"projects/{PROJECT}/locations/{REGION}/secrets/db"
    assert fetch(provider).value == canary("here")
    assert fetch(provider, full).value == canary("here")
    assert type(refusal(provider, "global")) is SecretNotFound


def test_text_and_bytes(gcp_server: GCPServer, provider: SecretManagerProvider) -> None:
    """A payload is text where it is UTF-8, and bytes elsewhere; the version is its number."""
    gcp_server.backend.put("db", canary("ü").encode())
    gcp_server.backend.put("db", canary("ü").encode("latin-1"))
    text, data = fetch(provider, "db?version=1"), fetch(provider)
    assert isinstance(text.value, SecretStr)
    assert text.value == canary("ü")
    assert isinstance(data.value, SecretBytes)
    assert (text.version, data.version) == ("1", "2")


def test_empty_payload(gcp_server: GCPServer, provider: SecretManagerProvider) -> None:
    """An empty payload is an empty text."""
    gcp_server.backend.put("db", b"")
    assert fetch(provider).value == ""


@pytest.mark.parametrize("state", ["DISABLED", "DESTROYED"])
def test_version_that_is_off(
    gcp_server: GCPServer, provider: SecretManagerProvider, state: str
) -> None:
    """A version that is disabled or destroyed is not found."""
    gcp_server.backend.put("db", canary().encode())
    gcp_server.backend.set_state("db", "1", state)
    error = refusal(provider)
    assert type(error) is SecretNotFound
    assert "disabled or destroyed" in error.message


def test_previous(gcp_server: GCPServer, provider: SecretManagerProvider) -> None:
    """The previous version is the newest enabled one before the newest, on whatever page."""
    for number in range(1, 7):
        gcp_server.backend.put("db", canary(str(number)).encode())
    for number in (3, 4, 5):
        gcp_server.backend.set_state("db", str(number), "DISABLED")
    gcp_server.backend.set_state("db", "6", "DESTROYED")
    assert fetch(provider, "db?stage=previous").value == canary("2")
    assert gcp_server.backend.calls() == {"access": 2, "list": 3}


def test_no_previous(gcp_server: GCPServer, provider: SecretManagerProvider) -> None:
    """A secret with one version has no previous one."""
    gcp_server.backend.put("db", canary().encode())
    assert type(refusal(provider, "db?stage=previous")) is SecretNotFound
    assert type(refusal(provider, "none?stage=previous")) is SecretNotFound


def test_alias_named_previous(gcp_server: GCPServer, provider: SecretManagerProvider) -> None:
    """An alias called "previous" is asked first, and then no right to list is needed."""
    for number in "123":
        gcp_server.backend.put("db", canary(number).encode())
    gcp_server.backend.set_alias("db", "previous", "1")
    gcp_server.backend.deny("db", "list")
    assert fetch(provider, "db?stage=previous").value == canary("1")
    assert gcp_server.backend.calls() == {"access": 1}


def test_previous_without_the_right_to_list(
    gcp_server: GCPServer, provider: SecretManagerProvider
) -> None:
    """Without alias and without the right to list, previous is denied, naming that right."""
    gcp_server.backend.put("db", canary().encode())
    gcp_server.backend.deny("db", "list")
    error = refusal(provider, "db?stage=previous")
    assert type(error) is AccessDenied
    assert "secretmanager.versions.list (roles/secretmanager.viewer)" in error.hint


# -- project numbers --

BACKEND = "django_secret_registry.providers.gcp.SecretManagerProvider"
NUMBERS = {"12": "acme", "34": "other"}


def test_known_number_is_the_project() -> None:
    """A number that the option knows is its project: one spelling for cache and policies."""

    def spelled(text: str, **options: Any) -> str:
        ref = SecretRef.parse(f"gcp://{text}").payload()
        return str(SecretManagerProvider.canonical(ref, {"project_numbers": NUMBERS, **options}))

    assert spelled("projects/12/secrets/db", project="acme") == "gcp://db?region=-"
    assert spelled("db?project=34", project="acme") == "gcp://db?project=other"
    assert spelled("db?project=acme", project="12") == spelled("db", project="12") == "gcp://db"
    assert spelled("db?project=56", project="acme") == "gcp://db?project=56"


def test_known_number_is_fetched(gcp_server: GCPServer, transport: str) -> None:
    """Google is asked for the project that the number stands for."""
    gcp_server.backend.put("db", canary().encode(), project="other")
    provider = build(gcp_server, transport, project="12", project_numbers=NUMBERS)
    ref = SecretRef("gcp", "db", project="34")
    assert provider.fetch(ref, timeout=10).value == canary()


@pytest.mark.parametrize(
    ("named", "asked", "bound"),
    [
        ("db", "projects/56/secrets/db", True),
        ("db?project=other", "projects/56/secrets/db", True),
        ("db?project=other", "projects/56/locations/us-east1/secrets/db/versions/1", True),
        ("db?project=56", "db", True),
        ("db?project=56", "db?project=other", True),
        ("projects/56/secrets/db", "db?project=56", True),
        ("db?project=56", "db?project=78", False),
        ("db", "db?project=other", False),
        ("db?project=other", "db", False),
        ("db?project=other", "projects/56/secrets/another", False),
        ("db?project=other", "projects/34/secrets/db", True),
        ("db?project=other", "projects/12/secrets/db", False),
        ("db?project=34", "db?project=other", True),
        ("db?project=34", "db", False),
    ],
)
def test_a_number_does_not_escape(named: str, asked: str, bound: bool) -> None:
    """A policy binds a secret also where the project is written by an unknown number; known ones
    are compared."""
    options = {"project": PROJECT, "project_numbers": NUMBERS, "insecure": True}
    # Without an endpoint the build fails: whoever gets that far has passed the policy.
    registry = make(
        ProviderSpec("gcp", BACKEND, options=options),
        entry("e", f"gcp://{named}", region="europe-west3", residency=Residency("strict", "eu")),
        region="us-east1",
    )
    with pytest.raises(ResidencyViolation if bound else InvalidProvider):
        registry.get(f"gcp://{asked}")


def test_check_of_numbers() -> None:
    """The check tells of numbers without a meaning."""
    check = SecretManagerProvider.check
    assert check({"project": "12", "project_numbers": NUMBERS}) == []
    for bad in (
        {"project": "12"},
        {"project": "56", "project_numbers": NUMBERS},
        {"project_numbers": {12: "acme"}},
        {"project_numbers": {"acme": "12"}},
        {"project_numbers": ["12"]},
    ):
        (problem,) = check(bad)
        assert problem.hint


# -- errors --


@pytest.mark.parametrize(
    ("status", "message", "kind", "hint"),
    [
        ("NOT_FOUND", "no", SecretNotFound, ""),
        ("PERMISSION_DENIED", "no", AccessDenied, "secretmanager.versions.access"),
        ("UNAUTHENTICATED", "no", AccessDenied, "expired"),
        ("INVALID_ARGUMENT", "no", ProviderError, ""),
        ("FAILED_PRECONDITION", "the key of the secret is gone", ProviderError, ""),
        ("UNIMPLEMENTED", "no", ProviderError, ""),
        ("DATA_LOSS", "no", ProviderError, ""),
        ("RESOURCE_EXHAUSTED", "no", ProviderUnavailable, ""),
        ("UNAVAILABLE", "no", ProviderUnavailable, ""),
        ("DEADLINE_EXCEEDED", "no", ProviderUnavailable, ""),
        ("INTERNAL", "no", ProviderUnavailable, ""),
        ("UNKNOWN", "no", ProviderUnavailable, ""),
        ("ABORTED", "no", ProviderUnavailable, ""),
        ("CANCELLED", "no", ProviderUnavailable, ""),
    ],
)
def test_error_of_the_service(  # noqa: PLR0917
    gcp_server: GCPServer,
    transport: str,
    status: str,
    message: str,
    kind: type[SecretError],
    hint: str,
) -> None:
    """Each status is sorted, says what to do, and is retried only where that can help."""
    gcp_server.backend.fail(status, message)
    error = refusal(build(gcp_server, transport, REGION))
    assert type(error) is kind
    assert hint in error.hint
    assert (error.reference, error.provider, error.region) == ("gcp://db", "gcp", REGION)
    tries = ATTEMPTS if kind is ProviderUnavailable else 1
    assert gcp_server.backend.calls() == {"access": tries}
    if (transport, status) != ("rest", "UNAUTHENTICATED"):  # there it tries to get a new token
        assert status in error.message


def test_service_that_is_not_enabled(
    gcp_server: GCPServer, provider: SecretManagerProvider
) -> None:
    """Where the API is not enabled the hint says so, and speaks of no permission."""
    text = "Secret Manager API has not been used in project 12 before or it is disabled."
    gcp_server.backend.fail("PERMISSION_DENIED", text)
    refused = refusal(provider)
    assert type(refused) is AccessDenied
    assert refused.hint.startswith("Enable secretmanager.googleapis.com")


@pytest.mark.parametrize(
    ("code", "kind"), [(403, ProviderError), (404, ProviderError), (502, ProviderUnavailable)]
)
@pytest.mark.parametrize("body", [f"<p>{canary()}</p>", "{}"])
def test_page_of_a_proxy(
    gcp_server: GCPServer,
    rest: SecretManagerProvider,
    code: int,
    kind: type[SecretError],
    body: str,
) -> None:
    """An error that is not Google's own is no "not found", and its page is in no error."""
    gcp_server.backend.answer(code, body.encode())
    error = refusal(rest)
    assert type(error) is kind
    assert f"HTTP {code}" in error.message
    assert (error.__cause__, error.__context__) == (None, None)


@pytest.mark.parametrize(
    "body",
    [
        f'{{"payload": {{"data": "{canary()}"'.encode(),
        f'["{canary()}"]'.encode(),
        f'{{"payload": "{canary()}"}}'.encode(),
        f'{{"payload": {{"data": "{canary()}!"}}}}'.encode(),
        f'{{"name": "x", "payload": "{canary()}"}}'.encode(),
        canary().encode() + b"\xff",
        b"{}",
        b"",
    ],
)
def test_answer_that_cannot_be_read(
    gcp_server: GCPServer, rest: SecretManagerProvider, body: bytes
) -> None:
    """An answer that makes no sense is ProviderError, with nothing of it in its chain."""
    gcp_server.backend.answer(200, body)
    error = refusal(rest)
    assert type(error) is ProviderError
    assert (error.__cause__, error.__context__) == (None, None)


def test_truncated_answer(gcp_server: GCPServer, rest: SecretManagerProvider) -> None:
    """An answer that was cut short is unavailable, with nothing of it in its chain."""
    gcp_server.backend.answer(200, canary().encode(), 9999)
    error = refusal(rest)
    assert type(error) is ProviderUnavailable
    assert (error.__cause__, error.__context__) == (None, None)


@pytest.mark.parametrize("extra", [0, 1])
def test_size(gcp_server: GCPServer, provider: SecretManagerProvider, extra: int) -> None:
    """A value over 1 MiB is ProviderError."""
    data = canary().encode().ljust(MAX_VALUE_SIZE + extra, b"x")
    gcp_server.backend.put("db", data)
    if extra:
        assert type(refusal(provider)) is ProviderError
    else:
        assert fetch(provider).value == data.decode()


def test_answer_that_is_larger_than_any_secret(
    gcp_server: GCPServer, provider: SecretManagerProvider
) -> None:
    """The rest of it is not read; it is no outage, as gRPC's own status would have it."""
    gcp_server.backend.put("db", b"x" * (MAX_ANSWER + 1))
    error = refusal(provider)
    assert type(error) is ProviderError
    assert "too large" in error.message


def test_checksum(gcp_server: GCPServer, provider: SecretManagerProvider) -> None:
    """A payload that was changed on its way is fetched once more, and not seen."""
    gcp_server.backend.put("db", canary().encode())
    gcp_server.backend.corrupt(times=1)
    assert fetch(provider).value == canary()
    gcp_server.backend.corrupt()
    error = refusal(provider)
    assert type(error) is ProviderError
    assert "checksum" in error.message
    assert gcp_server.backend.calls() == {"access": 4}


def test_no_checksum(gcp_server: GCPServer, provider: SecretManagerProvider) -> None:
    """An emulator that sends no checksum is believed."""
    gcp_server.backend.put("db", canary().encode())
    gcp_server.backend.omit_checksums()
    assert fetch(provider).value == canary()


def test_retry(gcp_server: GCPServer, provider: SecretManagerProvider) -> None:
    """A failure that passes is not seen by the reader."""
    gcp_server.backend.put("db", canary().encode())
    gcp_server.backend.fail("UNAVAILABLE", times=ATTEMPTS - 1)
    assert fetch(provider).value == canary()
    assert gcp_server.backend.calls() == {"access": ATTEMPTS}


def test_timeout_bounds_all_attempts(
    gcp_server: GCPServer, provider: SecretManagerProvider
) -> None:
    """A fetch that hangs ends when its time is over, and is not tried again then."""
    gcp_server.backend.hang()
    started = time.monotonic()
    assert type(refusal(provider, timeout=0.3)) is ProviderUnavailable
    assert time.monotonic() - started < 2
    assert gcp_server.backend.calls() == {"access": 1}


def test_outage_while_listing(gcp_server: GCPServer, provider: SecretManagerProvider) -> None:
    """An outage in the midst of the search for the previous version is no "not found"."""
    gcp_server.backend.put("db", canary().encode())
    gcp_server.backend.fail("UNAVAILABLE", methods=["list"])
    assert type(refusal(provider, "db?stage=previous")) is ProviderUnavailable


# -- credentials --


@contextmanager
def token_server(code: int, error: str) -> Iterator[str]:
    """Serve an OAuth token endpoint that refuses; give its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = json.dumps({"error": error}).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Keep quiet."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/token"
        server.shutdown()
        thread.join()


def build_with_user(server: GCPServer, transport: str, token_uri: str) -> SecretManagerProvider:
    import grpc
    from google.oauth2.credentials import Credentials

    make: Any = Credentials
    user = make(
        None,
        refresh_token=canary("refresh"),
        client_id="id",
        client_secret=canary("client"),
        token_uri=token_uri,
    )
    if transport == "rest":
        options = {"api_endpoint": server.endpoints["rest"]}
        return build(server, "rest", client={"credentials": user, "client_options": options})
    # gRPC sends credentials over TLS only.
    tls = functools.partial(
        _transport("grpc", insecure=False),
        ssl_channel_credentials=grpc.ssl_channel_credentials(server.backend.certificate()),
    )
    options = {"api_endpoint": server.endpoints["tls"]}
    client = {"credentials": user, "client_options": options, "transport": tls}
    return build(server, client=client, insecure=False)


@pytest.mark.parametrize(("code", "error"), [(400, "invalid_grant"), (401, "invalid_client")])
def test_credentials_that_get_no_token(
    gcp_server: GCPServer, transport: str, code: int, error: str
) -> None:
    """Credentials that were revoked are denied."""
    with token_server(code, error) as url:
        refused = refusal(build_with_user(gcp_server, transport, url))
    assert type(refused) is AccessDenied
    assert (refused.__cause__, refused.__context__) == (None, None)


def test_token_server_that_fails(gcp_server: GCPServer) -> None:
    """A token server that fails is unavailable, where gRPC tells no more than its text."""
    with token_server(400, "out_of_order") as url:
        refused = refusal(build_with_user(gcp_server, "grpc", url))
    assert type(refused) is ProviderUnavailable
    assert (refused.__cause__, refused.__context__) == (None, None)


def test_token_server_that_redirects(
    gcp_server: GCPServer, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one logs in with goes to the server that the credentials name, and to no other."""
    gcp_server.backend.put("db", canary().encode())
    with hostile() as front, hostile() as thief:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(front.ca_file))
        provider = build_with_user(gcp_server, transport, f"{front.url}/token")
        front.redirect(thief, 307)
        refusal(provider)
        assert front.seen
        assert thief.seen == []
        token = Answer.json(200, {"access_token": canary("access"), "expires_in": 3600})
        front.say = lambda request: token
        assert fetch(provider).value == canary()


def test_token_server_that_cannot_be_reached(gcp_server: GCPServer, transport: str) -> None:
    """A token server that cannot be reached is unavailable."""
    provider = build_with_user(gcp_server, transport, f"http://{closed_port()}/token")
    assert type(refusal(provider)) is ProviderUnavailable


def test_no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without credentials the build is denied and says how to give some."""
    pytest.importorskip("google.cloud.secretmanager_v1", reason="needs google-cloud-secret-manager")
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    with pytest.raises(AccessDenied, match="application-default login"):
        SecretManagerProvider(alias="gcp", region="", project=PROJECT)


# -- options --


@pytest.mark.parametrize(
    ("region", "options", "endpoint"),
    [
        ("", {}, "secretmanager.googleapis.com"),
        (REGION, {}, f"secretmanager.{REGION}.rep.googleapis.com"),
        (REGION, {"universe_domain": "s3nsapis.fr"}, f"secretmanager.{REGION}.rep.s3nsapis.fr"),
        (REGION, {"api_endpoint": "private.example.com"}, "private.example.com"),
    ],
)
def test_endpoint(
    gcp_session: GCPServer, transport: str, region: str, options: dict[str, str], endpoint: str
) -> None:
    """A region has its own endpoint, unless the options name one."""
    from google.auth.credentials import AnonymousCredentials

    anonymous: Any = AnonymousCredentials
    client = {"credentials": anonymous(), "client_options": options}
    provider = SecretManagerProvider(
        alias="gcp", region=region, project=PROJECT, transport=transport, client=client
    )
    assert provider.client.api_endpoint == endpoint


def test_client_options_object(gcp_server: GCPServer) -> None:
    """The client's options may be Google's own object, which is not changed."""
    from google.api_core.client_options import ClientOptions
    from google.auth.credentials import AnonymousCredentials

    make: Any = ClientOptions
    anonymous: Any = AnonymousCredentials
    options = make()
    client = {"credentials": anonymous(), "client_options": options}
    provider = SecretManagerProvider(alias="gcp", region=REGION, client=client, project=PROJECT)
    assert provider.client.api_endpoint == f"secretmanager.{REGION}.rep.googleapis.com"
    assert options.api_endpoint is None


def test_transport_of_the_client(gcp_server: GCPServer) -> None:
    """A transport in the client's arguments goes over the option, and may be an object."""
    import grpc
    from google.cloud.secretmanager_v1.services.secret_manager_service import transports

    gcp_server.backend.put("db", canary().encode())
    client = gcp_server.options("rest")["client"]
    assert fetch(build(gcp_server, client={**client, "transport": "rest"})).value == canary()
    channel = grpc.insecure_channel(gcp_server.endpoints["grpc"])
    made = transports.SecretManagerServiceGrpcTransport(channel=channel)
    for _ in range(2):  # it is not closed with the first instance
        provider = SecretManagerProvider(
            alias="gcp", region="", project=PROJECT, client={"transport": made}
        )
        assert fetch(provider).value == canary()
        provider.close()
    channel.close()


def test_secure_by_default(gcp_server: GCPServer, transport: str) -> None:
    """Without "insecure" an endpoint is spoken to in TLS only."""
    from google.auth.credentials import AnonymousCredentials

    anonymous: Any = AnonymousCredentials
    options = gcp_server.options(transport, insecure=False)
    options["client"]["credentials"] = anonymous()
    provider = SecretManagerProvider(alias="gcp", region="", **options)
    assert type(refusal(provider, timeout=3)) is ProviderUnavailable
    assert gcp_server.backend.calls() == {}


def test_insecure_needs_an_endpoint(gcp_session: GCPServer) -> None:
    """Google itself is never spoken to without TLS."""
    with pytest.raises(InvalidProvider, match="api_endpoint"):
        SecretManagerProvider(alias="gcp", region=REGION, project=PROJECT, insecure=True)


def test_check() -> None:
    """The check names a client that is no dict."""
    (problem,) = SecretManagerProvider.check({"client": "prod"})
    assert "client_options" in problem.hint


def test_unknown_transport(gcp_session: GCPServer) -> None:
    """A transport that does not exist is named by the check, and builds no provider."""
    (problem,) = SecretManagerProvider.check({"transport": "carrier pigeon"})
    assert '"grpc"' in problem.hint
    with pytest.raises(InvalidProvider):
        SecretManagerProvider(alias="gcp", region="", project=PROJECT, transport="carrier pigeon")


# -- around it --


def test_no_answer_in_the_log(
    gcp_server: GCPServer, provider: SecretManagerProvider, caplog: pytest.LogCaptureFixture
) -> None:
    """The library's logging, switched on, does not show an answer."""
    gcp_server.backend.put("db", b"not a secret")
    caplog.set_level(logging.DEBUG, logger="google")
    google = logging.getLogger("google")
    google.addHandler(caplog.handler)
    try:
        fetch(provider)
    finally:
        google.removeHandler(caplog.handler)
    records = [r for r in caplog.records if r.name.startswith("google.cloud.secretmanager")]
    assert records
    assert not any("response" in vars(r) or "httpResponse" in vars(r) for r in records)


def test_fetch_after_close(gcp_server: GCPServer) -> None:
    """A gRPC provider that was closed is unavailable for who still holds it."""
    gcp_server.backend.put("db", canary().encode())
    provider = build(gcp_server)
    fetch(provider)
    provider.close()
    error = refusal(provider)
    assert type(error) is ProviderUnavailable
    assert "closed" in error.message


def test_fork_while_threads_fetch(gcp_server: GCPServer, transport: str) -> None:
    """A child that is forked while other threads fetch can fetch too, and so can its parent."""
    gcp_server.backend.put("db", canary().encode())
    provider = build(gcp_server, transport)
    ended, answers = threading.Event(), []

    def fetch_on() -> None:
        while not ended.is_set():
            answers.append(fetch(provider).value == canary())

    def child() -> str:  # pragma: no cover - runs in the child, which leaves no report
        return "ok" if fetch(build(gcp_server, transport)).value == canary() else "wrong"

    threads = [threading.Thread(target=fetch_on) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        assert [in_child(child) for _ in range(3)] == ["ok"] * 3
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert fetch(provider).value == canary()
    assert all(answers)


def test_fork_while_a_call_hangs(gcp_server: GCPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fork does not wait for ever for a call that hangs."""
    monkeypatch.setattr(_fork, "PATIENCE", 0.1)
    gcp_server.backend.hang()
    provider = build(gcp_server)
    thread = threading.Thread(target=lambda: refusal(provider, timeout=PATIENCE))
    thread.start()
    while not gcp_server.backend.calls():
        assert thread.is_alive()
    assert in_child(lambda: "ok") == "ok"
    gcp_server.backend.heal()
    thread.join()


def test_through_the_registry(gcp_server: GCPServer, transport: str) -> None:
    """The registry reads a key by any spelling of a reference with one call."""
    gcp_server.backend.put("db", json.dumps({"password": canary("pw")}).encode())
    backend = "django_secret_registry.providers.gcp.SecretManagerProvider"
    spec = ProviderSpec("gcp", backend, options=gcp_server.options(transport))
    registry = SecretRegistry()
    registry.configure(RegistryConfig(providers={"gcp": spec}, entries={}))
    for text in ("db", f"db?project={PROJECT}", f"projects/{PROJECT}/secrets/db"):
        assert registry.get(f"gcp://{text}#password") == canary("pw")
    with pytest.raises(SecretNotFound, match="password"):
        registry.get("gcp://db#nothing")
    assert gcp_server.backend.calls() == {"access": 1}


def test_import_needs_no_sdk() -> None:
    """Importing the provider imports neither google nor grpc."""
    code = """
        import sys
        from django_secret_registry.providers.gcp import SecretManagerProvider
        assert SecretManagerProvider.check({"project": "acme", "nonsense": 1})
        sys.exit(bool({"google.api_core", "google.cloud", "grpc"} & set(sys.modules)))
    """
    assert not subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False).returncode
