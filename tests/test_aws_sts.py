"""Temporary credentials of roles: boto3 against the STS of moto, and against one that fails."""

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
    InvalidReference,
    ProviderError,
    ProviderUnavailable,
    SecretError,
    SecretNotFound,
)
from django_secret_registry.provider_cache import ProviderSpec
from django_secret_registry.providers.aws import AssumeRoleProvider
from django_secret_registry.providers.base import BaseProvider, Fence
from django_secret_registry.references import SecretRef
from django_secret_registry.values import SecretValue
from tests.canary import canary
from tests.fixtures import aws
from tests.scripted import entry, make
from tests.servers.aws import ACCOUNT, REGION, AWSServer, xml_error
from tests.servers.process import free_port

pytestmark = pytest.mark.sdk

aws_session, aws_server = aws.aws_session, aws.aws_server

ROLE = f"arn:aws:iam::{ACCOUNT}:role/app/deploy"
OTHER_REGION = "eu-west-1"
ONE_ATTEMPT = {"retries": {"mode": "standard", "total_max_attempts": 1}}
BACKEND = "django_secret_registry.providers.aws.AssumeRoleProvider"
#: What STS answers without the end of it.
KEY_PAIR = (
    f"<AccessKeyId>A</AccessKeyId><SecretAccessKey>{canary()}</SecretAccessKey>"
    "<SessionToken>t</SessionToken>"
)
KEYS = {"access_key_id", "secret_access_key", "session_token"}


def build(server: AWSServer, region: str = REGION, **options: Any) -> AssumeRoleProvider:
    return AssumeRoleProvider(alias="sts", region=region, **{**server.options(), **options})


@pytest.fixture(scope="session")
def shared(aws_session: AWSServer) -> BaseProvider:
    """A provider for tests that need none of their own; it tries everything once."""
    return build(aws_session, config=ONE_ATTEMPT)


def reference(text: str = ROLE, **options: Any) -> SecretRef:
    return AssumeRoleProvider.canonical(SecretRef.parse(f"sts://{text}").payload(), options)


def fetch(provider: BaseProvider, text: str = ROLE, timeout: float = 10) -> SecretValue:
    return provider.fetch(reference(text), timeout=timeout)


def refusal(provider: BaseProvider, text: str = ROLE, timeout: float = 10) -> SecretError:
    with pytest.raises(SecretError) as caught:
        fetch(provider, text, timeout)
    return caught.value


class TestAssumeRoleConformance(ProviderConformance):
    """Assuming a role behaves as every provider must; each fetch issues other credentials."""

    provider_class = AssumeRoleProvider
    alias = "sts"
    region = REGION
    existing, value = ROLE, "credentials"
    denied = ROLE.replace("deploy", "denied")
    lacks = {
        "not_found": "STS denies a role that does not exist",
        "binary": "the value is JSON",
        "version": "a role has no versions",
        "stage": "a role has no stages",
        "rotation": "each fetch is one",
    }
    outages = ("refused", "server error", "throttled", "cut", "truncated")
    regions = {REGION: "credentials", OTHER_REGION: "credentials"}
    credentials = (canary("aws-access-key"),)

    @pytest.fixture(autouse=True)
    def server(self, aws_server: AWSServer) -> None:
        self.aws = aws_server
        self.options = {**aws_server.options(), "roles": {"deploy": ROLE}}
        aws_server.deny(self.denied)

    def is_value(self, value: object, expected: str) -> bool:
        assert isinstance(value, str)
        return set(json.loads(value)) == KEYS

    @contextmanager
    def outage(self, kind: str) -> Iterator[BaseProvider]:
        options: dict[str, Any] = {}
        if kind == "refused":
            options["client"] = {"endpoint_url": f"http://127.0.0.1:{free_port()}"}
        elif kind == "server error":
            self.aws.answer(500, canary("page").encode())
        elif kind == "throttled":
            self.aws.answer(400, xml_error("Throttling").encode())
        elif kind == "cut":
            self.aws.cut()
        else:
            self.aws.answer(200, b"<AssumeRoleResponse></AssumeRoleResponse>", length=9999)
        yield build(self.aws, config=ONE_ATTEMPT, **options)
        self.aws.heal()

    @contextmanager
    def hang(self) -> Iterator[BaseProvider]:
        self.aws.hang()
        yield build(self.aws)
        self.aws.heal()


# -- what comes --


def test_credentials_and_their_end(aws_server: AWSServer, shared: BaseProvider) -> None:
    """The value is a JSON object of three keys, which ends when STS says so."""
    answer = fetch(shared)
    value = json.loads(answer.value)
    assert set(value) == KEYS
    assert value["access_key_id"].startswith("ASIA")
    assert answer.expires_at == pytest.approx(time.time() + 3600, abs=30)
    assert answer.version is None
    assert aws_server.requests[0]["RoleSessionName"] == "django-secret-registry"


def test_options_reach_sts(aws_server: AWSServer) -> None:
    """Session name, duration, external id and policy are those of the options."""
    policy = {"Version": "2012-10-17", "Statement": []}
    provider = build(
        aws_server, session_name="shop", duration=900, external_id="acme-7", policy=policy
    )
    answer = fetch(provider)
    (request,) = aws_server.requests
    assert (request["RoleSessionName"], request["ExternalId"]) == ("shop", "acme-7")
    assert request["DurationSeconds"] == "900"
    assert json.loads(request["Policy"]) == policy
    assert answer.expires_at == pytest.approx(time.time() + 900, abs=30)


def test_name_in_roles(aws_server: AWSServer) -> None:
    """A name in the option is short for its ARN: one secret for cache, fences and policies."""
    roles = {"deploy": ROLE}
    assert reference("deploy", roles=roles) == reference(ROLE, roles=roles) == reference(ROLE)
    assert reference(ROLE).project == ACCOUNT
    assert AssumeRoleProvider.fenced_name(reference(ROLE)) == "app/deploy"
    registry = make(
        ProviderSpec(
            "sts",
            BACKEND,
            options={**aws_server.options(), "roles": roles},
            fence=Fence(allow=("app/*",), projects=(ACCOUNT,)),
        ),
        entry("deploy", members={key: f"sts://deploy#{key}" for key in KEYS}),
        region=REGION,
    )
    assert set(registry.get("deploy")) == KEYS
    assert registry.get("deploy")["session_token"] == registry.get(f"sts://{ROLE}#session_token")
    assert aws_server.calls == {"AssumeRole": 1}
    for outside in (ROLE.replace("app/", ""), ROLE.replace(ACCOUNT, "210987654321")):
        with pytest.raises(AccessDenied, match="ALLOW|PROJECTS"):
            registry.get(f"sts://{outside}")


@pytest.mark.parametrize(
    "text",
    [
        f"arn:aws:iam::{ACCOUNT}:user/app",
        f"arn:aws:sts::{ACCOUNT}:assumed-role/app/x",
        "arn:aws:iam::acme:role/app",
        f"{ROLE}?project=210987654321",
        f"{ROLE}?version=1",
        f"{ROLE}?stage=blue",
        f"{ROLE}%0a",
        f"{ROLE}/",
        f"{ROLE}/..",
        ROLE.replace("app", "."),
    ],
)
def test_bad_reference(text: str) -> None:
    """What is no role, or contradicts its ARN, is InvalidReference."""
    with pytest.raises(InvalidReference):
        reference(text)


def test_name_of_no_role(aws_server: AWSServer, shared: BaseProvider) -> None:
    """A name that the option does not have is not found, without a call."""
    error = refusal(shared, "deploi")
    assert type(error) is SecretNotFound
    assert '"roles"' in error.hint
    assert not aws_server.calls


def test_check() -> None:
    """The check names each option that STS would refuse."""
    good = {"roles": {"deploy": ROLE}, "duration": 3600, "session_name": "shop"}
    assert AssumeRoleProvider.check(good) == []
    for bad in (
        {"roles": ["deploy"]},
        {"roles": {"deploy": "deploy"}},
        {"roles": {"deploy": 7}},
        {"duration": 60},
        {"duration": 100_000},
        {"duration": True},
        {"session_name": "a b"},
        {"session_name": ""},
        {"external_id": "x", "web_identity_token_file": "/token"},
    ):
        (problem,) = AssumeRoleProvider.check(bad)
        assert all(f"'{name}'" in problem.message for name in list(bad)[:1])
        assert problem.hint


# -- web identity --


def test_web_identity(aws_server: AWSServer, tmp_path: Path) -> None:
    """The token of an OIDC provider stands for credentials; a renewed one is read at each fetch."""
    token = tmp_path / "token"
    token.write_text(f"{canary('first')}\n")
    provider = build(aws_server, session={}, web_identity_token_file=str(token), duration=900)
    answer = fetch(provider)
    assert set(json.loads(answer.value)) == KEYS
    assert answer.expires_at == pytest.approx(time.time() + 900, abs=30)
    token.write_text(canary("second"))
    fetch(provider)
    sent = [request["WebIdentityToken"] for request in aws_server.requests]
    assert sent == [canary("first"), canary("second")]
    assert aws_server.calls == {"AssumeRoleWithWebIdentity": 2}


def test_web_identity_token_is_gone(aws_server: AWSServer, tmp_path: Path) -> None:
    """A token that cannot be read is denied, with a hint, and STS is not asked."""
    token = tmp_path / "token"
    provider = build(aws_server, session={}, web_identity_token_file=str(token))
    error = refusal(provider)
    assert type(error) is AccessDenied
    assert "web_identity_token_file" in error.hint
    assert type(error.__cause__) is FileNotFoundError
    token.write_bytes(canary().encode() + b"\xff")
    error = refusal(provider)
    assert type(error) is AccessDenied
    assert (error.__cause__, error.__context__) == (None, None)
    assert not aws_server.calls


# -- errors of the service --


@pytest.mark.parametrize(
    ("status", "code", "kind", "hint"),
    [
        (403, "AccessDenied", AccessDenied, "Allow sts:AssumeRole on the role and in its trust"),
        (403, "ExpiredToken", AccessDenied, "expired"),
        (403, "InvalidClientTokenId", AccessDenied, "wrong"),
        (403, "SignatureDoesNotMatch", AccessDenied, "clock"),
        (400, "InvalidIdentityToken", AccessDenied, "wrong"),
        (403, "IDPRejectedClaim", AccessDenied, "wrong"),
        (400, "IDPCommunicationError", ProviderUnavailable, ""),
        (400, "ValidationError", ProviderError, '"duration"'),
        (400, "PackedPolicyTooLarge", ProviderError, '"policy"'),
        (403, "RegionDisabledException", ProviderError, "Activate STS"),
        (400, "Throttling", ProviderUnavailable, ""),
        (500, "InternalFailure", ProviderUnavailable, ""),
    ],
)
def test_error_of_the_service(  # noqa: PLR0917
    aws_server: AWSServer,
    shared: BaseProvider,
    status: int,
    code: str,
    kind: type[SecretError],
    hint: str,
) -> None:
    """Each error of STS is sorted by its code and says what to do."""
    aws_server.answer(status, xml_error(code).encode())
    error = refusal(shared)
    assert type(error) is kind
    assert hint in error.hint
    assert (error.reference, error.region) == (f"sts://{ROLE}?project={ACCOUNT}", REGION)


def test_permission_that_sts_names(aws_server: AWSServer, shared: BaseProvider) -> None:
    """The hint takes the permission from what STS says."""
    text = "User: x is not authorized to perform: sts:TagSession on resource: y"
    aws_server.answer(403, xml_error("AccessDenied", text).encode())
    assert "Allow sts:TagSession" in refusal(shared).hint


@pytest.mark.parametrize(
    "inner",
    [
        "",
        f"<Credentials><SecretAccessKey>{canary()}</SecretAccessKey></Credentials>",
        f"<Credentials>{KEY_PAIR}</Credentials>",
        f"<Credentials>{KEY_PAIR}<Expiration>soon</Expiration></Credentials>",
        f"<Credentials>{canary()}",
    ],
)
def test_answer_that_cannot_be_read(
    aws_server: AWSServer, shared: BaseProvider, inner: str
) -> None:
    """An answer without whole credentials is ProviderError, with nothing of it in its chain."""
    body = f"<AssumeRoleResponse><AssumeRoleResult>{inner}</AssumeRoleResult></AssumeRoleResponse>"
    aws_server.answer(200, body.encode())
    error = refusal(shared)
    assert type(error) is ProviderError
    assert (error.__cause__, error.__context__) == (None, None)


def test_tls_failure(aws_server: AWSServer) -> None:
    """A TLS failure is unavailable, and the hint names the option for a CA."""
    client = {"endpoint_url": aws_server.url.replace("http:", "https:")}
    error = refusal(build(aws_server, client=client, config=ONE_ATTEMPT))
    assert type(error) is ProviderUnavailable
    assert '"verify"' in error.hint
