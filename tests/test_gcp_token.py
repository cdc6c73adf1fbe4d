"""Access tokens of service accounts: google-auth against an HTTP server, and one that fails."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from django_secret_registry.conformance import ProviderConformance
from django_secret_registry.exceptions import (
    AccessDenied,
    InvalidProvider,
    InvalidReference,
    ProviderError,
    ProviderUnavailable,
    SecretError,
    SecretNotFound,
)
from django_secret_registry.provider_cache import ProviderSpec
from django_secret_registry.providers._gcp import ATTEMPTS
from django_secret_registry.providers._gcp_token import CLOUD_PLATFORM
from django_secret_registry.providers.base import BaseProvider, Fence
from django_secret_registry.providers.gcp import AccessTokenProvider
from django_secret_registry.references import SecretRef
from django_secret_registry.values import SecretStr, SecretValue
from tests.canary import canary
from tests.scripted import make
from tests.servers import gcp_iam
from tests.servers.gcp_iam import IAMServer
from tests.servers.process import free_port

pytestmark = pytest.mark.sdk

iam_session, iam_server = gcp_iam.iam_session, gcp_iam.iam_server

ACCOUNT = "deploy@acme.iam.gserviceaccount.com"
REGION, OTHER_REGION = "europe-west3", "us-east1"
BACKEND = "django_secret_registry.providers.gcp.AccessTokenProvider"


def build(server: IAMServer, region: str = "", **options: Any) -> AccessTokenProvider:
    return AccessTokenProvider(alias="token", region=region, **server.options(**options))


@pytest.fixture
def provider(iam_server: IAMServer) -> AccessTokenProvider:
    iam_server.accounts.add(ACCOUNT)
    return build(iam_server)


def reference(text: str = ACCOUNT) -> SecretRef:
    return AccessTokenProvider.canonical(SecretRef.parse(f"token://{text}").payload(), {})


def fetch(provider: BaseProvider, text: str = ACCOUNT, timeout: float = 10) -> SecretValue:
    return provider.fetch(reference(text), timeout=timeout)


def refusal(provider: BaseProvider, text: str = ACCOUNT, timeout: float = 10) -> SecretError:
    with pytest.raises(SecretError) as caught:
        fetch(provider, text, timeout)
    return caught.value


class TestAccessTokenConformance(ProviderConformance):
    """Issuing tokens behaves as every provider must; each fetch makes another token."""

    provider_class = AccessTokenProvider
    alias = "token"
    region = REGION
    existing, value = ACCOUNT, f"{canary('token')}-"
    missing = ACCOUNT.replace("deploy", "nobody")
    denied = ACCOUNT.replace("deploy", "denied")
    outages = ("refused", "cut", "page", "truncated", "RESOURCE_EXHAUSTED", "no source")
    regions = {region: f"{canary('token')}-{region}-" for region in (REGION, OTHER_REGION)}
    credentials = (canary("refresh"), canary("client"), canary("source"))
    lacks = {
        "binary": "a token is text",
        "version": "a token has no versions",
        "stage": "a token has no stages",
        "rotation": "each fetch is one",
    }

    @pytest.fixture(autouse=True)
    def server(self, iam_server: IAMServer) -> None:
        self.iam = iam_server
        iam_server.accounts |= {self.existing, self.denied}
        iam_server.denied.add(self.denied)
        self.options = iam_server.options(iam_endpoint_override=iam_server.url + "/{region}")

    def is_value(self, value: object, expected: str) -> bool:
        return str(value).startswith(expected)

    @contextmanager
    def outage(self, kind: str) -> Iterator[BaseProvider]:
        options: dict[str, Any] = {}
        if kind == "refused":
            options["iam_endpoint_override"] = f"http://127.0.0.1:{free_port()}"
        elif kind == "cut":
            self.iam.cut()
        elif kind == "page":
            self.iam.answer(502, canary("page").encode())
        elif kind == "truncated":
            self.iam.answer(200, canary("page").encode(), length=9999)
        elif kind == "no source":
            self.iam.cut("source")
        else:
            self.iam.fail(kind)
        yield build(self.iam, REGION, **options)
        self.iam.heal()

    @contextmanager
    def hang(self) -> Iterator[BaseProvider]:
        self.iam.hang()
        yield build(self.iam)
        self.iam.heal()


# -- what comes --


def test_token_and_its_end(iam_server: IAMServer, provider: AccessTokenProvider) -> None:
    """The value is the token, which ends when Google says so."""
    answer = fetch(provider)
    assert isinstance(answer.value, SecretStr)
    assert answer.value == f"{canary('token')}--1"
    assert answer.expires_at == pytest.approx(time.time() + 3600, abs=30)
    assert answer.version is None
    (request,) = iam_server.requests
    assert (request["account"], request["lifetime"]) == (ACCOUNT, "3600s")
    assert (request["scope"], request["delegates"]) == ([CLOUD_PLATFORM], [])


def test_options_reach_google(iam_server: IAMServer) -> None:
    """Scopes, lifetime and delegates are those of the options."""
    iam_server.accounts.add(ACCOUNT)
    scopes = ["https://www.googleapis.com/auth/devstorage.read_only"]
    between = ["between@acme.iam.gserviceaccount.com"]
    answer = fetch(build(iam_server, scopes=scopes, lifetime=900, delegates=between))
    (request,) = iam_server.requests
    assert (request["scope"], request["lifetime"], request["delegates"]) == (
        scopes,
        "900s",
        between,
    )
    assert answer.expires_at == pytest.approx(time.time() + 900, abs=30)


def test_the_source_is_asked_once(iam_server: IAMServer, provider: AccessTokenProvider) -> None:
    """The process's own token is kept while it is valid; each fetch issues one of the account."""
    tokens = {fetch(provider).value for _ in range(3)}
    assert len(tokens) == 3
    assert iam_server.calls == {"source": 1, "issue": 3}


def test_many_accounts(iam_server: IAMServer, provider: AccessTokenProvider) -> None:
    """However many accounts are asked for, no more than a hundred are kept."""
    for number in range(102):
        account = f"a{number}@acme.iam.gserviceaccount.com"
        iam_server.accounts.add(account)
        assert fetch(provider, account).value == f"{canary('token')}--{number + 1}"
    assert len(provider._impersonated) == 2


def test_application_default_credentials(
    iam_server: IAMServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without the option the process's own credentials are the source, here those of a key file."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    file = tmp_path / "key.json"
    info = {
        "type": "service_account",
        "project_id": "acme",
        "private_key_id": "1",
        "private_key": key.decode(),
        "client_email": "web@acme.iam.gserviceaccount.com",
        "token_uri": f"{iam_server.url}/token",
    }
    file.write_text(json.dumps(info))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    iam_server.accounts.add(ACCOUNT)
    provider = build(iam_server, credentials=None)
    for _ in range(2):
        fetch(provider)
    assert iam_server.calls == {"source": 1, "issue": 2}
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(AccessDenied, match="no Google credentials were found"):
        build(iam_server, credentials=None)


# -- names, regions, options --


@pytest.mark.parametrize(
    ("text", "project"),
    [
        (ACCOUNT, "acme"),
        (f"{ACCOUNT}?project=acme", "acme"),
        ("deploy@proj.example.com.iam.gserviceaccount.com", "proj.example.com"),
        ("acme@appspot.gserviceaccount.com", "acme"),
        ("12-compute@developer.gserviceaccount.com", ""),
    ],
)
def test_the_account_says_its_project(text: str, project: str) -> None:
    """The project is that of the e-mail, where it says one."""
    ref = reference(text)
    assert ref.project == project
    assert AccessTokenProvider.canonical(ref, {}) == ref


@pytest.mark.parametrize(
    "text",
    [
        f"{ACCOUNT}?project=other",
        f"{ACCOUNT}?version=1",
        f"{ACCOUNT}?stage=blue",
        "12-compute@developer.gserviceaccount.com?project=acme",
        "deploy",
        "Deploy@acme.iam.gserviceaccount.com",
        "a/b@acme.iam.gserviceaccount.com",
        "deploy@acme",
        "deploy@acme..com",
        "deploy@-acme.com",
        f"{ACCOUNT}:generateIdToken",
        "projects/-/serviceAccounts/deploy@acme.iam.gserviceaccount.com",
    ],
)
def test_bad_reference(text: str) -> None:
    """What is no service account, or contradicts its e-mail, is InvalidReference with a hint."""
    with pytest.raises(InvalidReference) as caught:
        reference(text)
    assert caught.value.hint


def test_region_is_that_of_the_endpoint(iam_server: IAMServer) -> None:
    """A region goes to the endpoint that asks for it; without one such an endpoint is none."""
    iam_server.accounts.add(ACCOUNT)
    override = iam_server.url + "/{region}"
    fetch(build(iam_server, REGION, iam_endpoint_override=override))
    fetch(build(iam_server, REGION))
    assert [request["region"] for request in iam_server.requests] == [REGION, ""]
    with pytest.raises(InvalidProvider, match="wants a region"):
        build(iam_server, iam_endpoint_override=override)


def test_an_endpoint_in_clear_text(iam_server: IAMServer) -> None:
    """No credential goes to another machine without TLS."""
    for bad in ("http://iam.example", "iam.example", "ftp://127.0.0.1"):
        with pytest.raises(InvalidProvider, match="https://"):
            build(iam_server, iam_endpoint_override=bad)


def test_check() -> None:
    """The check names each option that Google would refuse."""
    good = {
        "scopes": ["https://www.googleapis.com/auth/cloud-platform"],
        "lifetime": 600,
        "delegates": [ACCOUNT],
        "iam_endpoint_override": "https://iam.example/{region}",
    }
    assert AccessTokenProvider.check(good) == AccessTokenProvider.check({}) == []
    for bad in (
        {"scopes": "cloud-platform"},
        {"scopes": []},
        {"lifetime": 0},
        {"lifetime": 100_000},
        {"lifetime": "3600s"},
        {"delegates": ["deploy"]},
        {"delegates": ACCOUNT},
        {"iam_endpoint_override": "http://iam.example"},
        {"iam_endpoint_override": 7},
        {"project": "acme"},
    ):
        (problem,) = AccessTokenProvider.check(bad)
        assert f"'{next(iter(bad))}'" in problem.message
        assert problem.hint


def test_fences(iam_server: IAMServer) -> None:
    """ALLOW sees the e-mail, PROJECTS the project in it; nobody is called for what is outside."""
    iam_server.accounts.add(ACCOUNT)
    fence = Fence(allow=("deploy@*",), projects=("acme",))
    registry = make(ProviderSpec("token", BACKEND, options=iam_server.options(), fence=fence))
    assert registry.get(f"token://{ACCOUNT}").startswith(canary("token"))
    for outside in (ACCOUNT.replace("acme", "other"), ACCOUNT.replace("deploy", "admin")):
        with pytest.raises(AccessDenied, match="ALLOW|PROJECTS"):
            registry.get(f"token://{outside}")
    assert iam_server.calls["issue"] == 1


# -- errors --


@pytest.mark.parametrize(
    ("status", "kind", "hint"),
    [
        ("PERMISSION_DENIED", AccessDenied, "Grant iam.serviceAccounts.getAccessToken"),
        ("UNAUTHENTICATED", AccessDenied, "expired"),
        ("NOT_FOUND", SecretNotFound, ""),
        ("INVALID_ARGUMENT", ProviderError, '"lifetime"'),
        ("FAILED_PRECONDITION", ProviderError, ""),
        ("RESOURCE_EXHAUSTED", ProviderUnavailable, ""),
        ("UNAVAILABLE", ProviderUnavailable, ""),
        ("INTERNAL", ProviderUnavailable, ""),
    ],
)
def test_error_of_the_service(
    iam_server: IAMServer,
    provider: AccessTokenProvider,
    status: str,
    kind: type[SecretError],
    hint: str,
) -> None:
    """Each status is sorted, says what to do, and is tried again only where that can help."""
    iam_server.fail(status)
    error = refusal(provider)
    assert type(error) is kind
    assert hint in error.hint
    assert status in error.message
    assert (error.reference, error.provider) == (f"token://{ACCOUNT}?project=acme", "token")
    assert iam_server.calls["issue"] == (ATTEMPTS if kind is ProviderUnavailable else 1)


def test_service_that_is_not_enabled(iam_server: IAMServer, provider: AccessTokenProvider) -> None:
    """Where the API is not enabled the hint says so, and speaks of no permission."""
    text = "IAM Service Account Credentials API has not been used in project 12 before."
    iam_server.fail("PERMISSION_DENIED", text)
    assert refusal(provider).hint.startswith("Enable iamcredentials.googleapis.com")


@pytest.mark.parametrize(
    ("code", "kind"), [(403, ProviderError), (404, ProviderError), (502, ProviderUnavailable)]
)
@pytest.mark.parametrize("body", [f"<p>{canary()}</p>", "{}", f'{{"error": "{canary()}"}}'])
def test_page_of_a_proxy(
    iam_server: IAMServer,
    provider: AccessTokenProvider,
    code: int,
    kind: type[SecretError],
    body: str,
) -> None:
    """An error that is not Google's own is no "not found", and its page is in no error."""
    iam_server.answer(code, body.encode())
    error = refusal(provider)
    assert type(error) is kind
    assert f"HTTP {code}" in error.message
    assert (error.__cause__, error.__context__) == (None, None)


@pytest.mark.parametrize(
    "body",
    [
        f'{{"accessToken": "{canary()}"'.encode(),
        f'{{"accessToken": "{canary()}"}}'.encode(),
        f'{{"accessToken": "{canary()}", "expireTime": "soon"}}'.encode(),
        f'{{"accessToken": "{canary()}", "expireTime": 7}}'.encode(),
        b'{"accessToken": null, "expireTime": "2030-01-01T00:00:00Z"}',
        b'{"accessToken": 7, "expireTime": "2030-01-01T00:00:00Z"}',
        f'["{canary()}"]'.encode(),
        canary().encode() + b"\xff",
        b"",
    ],
)
def test_answer_that_cannot_be_read(
    iam_server: IAMServer, provider: AccessTokenProvider, body: bytes
) -> None:
    """An answer that makes no sense is ProviderError, with nothing of it in its chain."""
    iam_server.answer(200, body)
    error = refusal(provider)
    assert type(error) is ProviderError
    assert (error.__cause__, error.__context__) == (None, None)


def test_truncated_answer(iam_server: IAMServer, provider: AccessTokenProvider) -> None:
    """An answer that was cut short is unavailable, with nothing of it in its chain."""
    iam_server.answer(200, canary().encode(), length=9999)
    error = refusal(provider)
    assert type(error) is ProviderUnavailable
    assert (error.__cause__, error.__context__) == (None, None)


@pytest.mark.parametrize(
    ("code", "answer", "kind"),
    [
        (400, {"error": "invalid_grant"}, AccessDenied),
        (401, {"error": "invalid_client"}, AccessDenied),
        (429, {"error": "slow_down"}, ProviderUnavailable),
        (503, {"error": "try_again"}, ProviderUnavailable),
    ],
)
def test_source_that_gets_no_token(  # noqa: PLR0917
    iam_server: IAMServer,
    provider: AccessTokenProvider,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    answer: dict[str, str],
    kind: type[SecretError],
) -> None:
    """Own credentials that were revoked are denied, and unavailable while their issuer is."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # google-auth waits between attempts
    iam_server.answer(code, json.dumps(answer).encode(), "source")
    error = refusal(provider)
    assert type(error) is kind
    assert (error.__cause__, error.__context__) == (None, None)
    assert iam_server.calls["issue"] == 0


def test_tls_failure(iam_server: IAMServer) -> None:
    """A TLS failure is unavailable, and the hint says how a CA of one's own is named."""
    url = iam_server.url.replace("http:", "https:")
    error = refusal(build(iam_server, iam_endpoint_override=url))
    assert type(error) is ProviderUnavailable
    assert "REQUESTS_CA_BUNDLE" in error.hint


def test_refused_connection(iam_server: IAMServer) -> None:
    """A connection that is refused is unavailable, chained to what google-auth says."""
    error = refusal(build(iam_server, iam_endpoint_override=f"http://127.0.0.1:{free_port()}"))
    assert type(error) is ProviderUnavailable
    assert type(error.__cause__).__name__ == "TransportError"


@pytest.mark.parametrize("kind", ["issue", "source"])
def test_timeout_bounds_all_attempts(
    iam_server: IAMServer, provider: AccessTokenProvider, kind: str
) -> None:
    """A fetch that hangs ends when its time is over, and is not tried again then."""
    iam_server.hang(kind)
    started = time.monotonic()
    assert type(refusal(provider, timeout=0.3)) is ProviderUnavailable
    assert time.monotonic() - started < 2
    assert iam_server.calls[kind] == 1
