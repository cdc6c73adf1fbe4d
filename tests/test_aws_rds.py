"""Tokens for RDS: signed by boto3 on this machine, so that no server is needed."""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from django_secret_registry.conformance import ProviderConformance
from django_secret_registry.exceptions import (
    AccessDenied,
    InvalidProvider,
    InvalidReference,
    ProviderUnavailable,
    SecretError,
)
from django_secret_registry.provider_cache import ProviderSpec
from django_secret_registry.providers.aws import RDSAuthTokenProvider
from django_secret_registry.providers.base import BaseProvider, Fence
from django_secret_registry.references import SecretRef
from django_secret_registry.values import SecretValue
from tests.canary import canary
from tests.fixtures import aws
from tests.scripted import make
from tests.servers.aws import ACCOUNT, AWSServer, xml_error

pytestmark = pytest.mark.sdk

aws_session, aws_server = aws.aws_session, aws.aws_server

REGION, OTHER_REGION = "eu-central-1", "eu-west-1"
HOST = f"shop.abc123.{REGION}.rds.amazonaws.com"
NAME = f"app@{HOST}:5432"
BACKEND = "django_secret_registry.providers.aws.RDSAuthTokenProvider"
SESSION = {"aws_access_key_id": "test", "aws_secret_access_key": canary("aws-access-key")}


@pytest.fixture(autouse=True)
def no_configuration(aws_server: AWSServer) -> None:
    """Nothing of this machine's own AWS set-up is seen."""


def build(region: str = REGION, **options: Any) -> RDSAuthTokenProvider:
    return RDSAuthTokenProvider(alias="rds", region=region, **{"session": SESSION, **options})


def reference(text: str = NAME) -> SecretRef:
    return RDSAuthTokenProvider.canonical(SecretRef.parse(f"rds://{text}").payload(), {})


def fetch(provider: BaseProvider, text: str = NAME, timeout: float = 10) -> SecretValue:
    return provider.fetch(reference(text), timeout=timeout)


def query(answer: SecretValue) -> dict[str, str]:
    assert isinstance(answer.value, str)
    return {name: values[0] for name, values in parse_qs(answer.value.partition("?")[2]).items()}


class TestRDSConformance(ProviderConformance):
    """Signing tokens behaves as every provider must; each fetch makes another token."""

    provider_class = RDSAuthTokenProvider
    alias = "rds"
    region = REGION
    options = {"session": SESSION}
    existing, value = "app@db.internal:5432", f"/{REGION}/rds-db/aws4_request"
    regions = {region: f"/{region}/rds-db/aws4_request" for region in (REGION, OTHER_REGION)}
    credentials = (canary("aws-access-key"),)
    outages = ("no credentials for now",)
    lacks = {
        "not_found": "a token is signed for any name; the database refuses it",
        "binary": "a token is text",
        "denied": "whoever has credentials can sign; the database refuses the token",
        "timeout": "nobody is asked",
        "version": "a token has no versions",
        "stage": "a token has no stages",
        "rotation": "each fetch is one",
    }

    def is_value(self, value: object, expected: str) -> bool:
        scope = parse_qs(str(value).partition("?")[2])["X-Amz-Credential"][0]
        return scope.endswith(expected)

    @pytest.fixture(autouse=True)
    def server(self, role: AWSServer) -> None:
        self.aws = role

    @contextmanager
    def outage(self, kind: str) -> Iterator[BaseProvider]:
        self.aws.answer(503, xml_error("ServiceUnavailable").encode())
        yield build(session={"profile_name": "role"})
        self.aws.heal()


@pytest.fixture
def role(aws_server: AWSServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AWSServer:
    """The server that gives the profile ``role`` its credentials, for 900 s each time."""
    config = tmp_path / "config"
    config.write_text(
        f"[profile role]\nrole_arn = arn:aws:iam::{ACCOUNT}:role/x\nsource_profile = base\n"
        "duration_seconds = 900\n"
        f"[profile base]\naws_access_key_id = test\naws_secret_access_key = {canary('key')}\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", aws_server.url)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    return aws_server


# -- tokens --


def test_token(aws_server: AWSServer) -> None:
    """A token names host, port and user, is signed for the region and ends after 15 minutes."""
    answer = fetch(build())
    told = query(answer)
    assert answer.value.startswith(f"{HOST}:5432/?")
    assert (told["Action"], told["DBUser"], told["X-Amz-Expires"]) == ("connect", "app", "900")
    assert told["X-Amz-Credential"].endswith(f"/{REGION}/rds-db/aws4_request")
    made = dt.datetime.strptime(told["X-Amz-Date"], "%Y%m%dT%H%M%S%z")
    assert answer.expires_at == made.timestamp() + 900
    assert answer.expires_at == pytest.approx(time.time() + 900, abs=30)
    assert answer.version is None
    assert not aws_server.calls


def test_token_ends_with_the_credentials_that_signed_it(role: AWSServer) -> None:
    """Where these may end before the token does, it is taken for one that ends with them."""
    answer = fetch(build(session={"profile_name": "role"}))
    assert query(answer)["X-Amz-Security-Token"]
    assert answer.expires_at == pytest.approx(time.time() + 600, abs=30)


def test_token_of_lasting_credentials(role: AWSServer) -> None:
    """Credentials that outlive the token leave it its 15 minutes."""
    answer = fetch(build())
    lasting = role.options()["session"] | {"aws_session_token": canary("session")}
    assert fetch(build(session=lasting)).expires_at == pytest.approx(answer.expires_at, abs=30)
    keys = {"endpoint_url": role.url, **role.options()["session"]}
    of_client = fetch(build(session={}, client=keys))
    assert of_client.expires_at == pytest.approx(answer.expires_at, abs=30)


def test_nothing_of_the_token_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """botocore logs at DEBUG what it signs, and the signature: not for us."""
    caplog.set_level(logging.DEBUG)
    provider = build()
    provider.client.generate_db_auth_token(DBHostname="db", Port=1, DBUsername="x")
    assert "x-amz-date" in caplog.text.lower()  # to the project's own clients it goes on
    caplog.clear()
    told = query(fetch(provider))
    assert told["X-Amz-Signature"] not in caplog.text
    assert told["X-Amz-Date"] not in caplog.text


# -- names and regions --


@pytest.mark.parametrize(
    ("text", "region"),
    [
        (NAME, REGION),
        (f"{NAME}?region={REGION}", REGION),
        (f"app@shop.cluster-abc123.{OTHER_REGION}.rds.amazonaws.com:3306", OTHER_REGION),
        ("app@shop.abc.cn-north-1.rds.amazonaws.com.cn:3306", "cn-north-1"),
        ("app@shop.abc.us-gov-west-1.rds.amazonaws.com:3306", "us-gov-west-1"),
        ("first.last@acme.example@db.internal:5432", ""),
        (f"app@db.internal:5432?region={OTHER_REGION}", OTHER_REGION),
    ],
)
def test_the_host_says_its_region(text: str, region: str) -> None:
    """The region is that of RDS's host, else the one that is asked for."""
    ref = reference(text)
    assert ref.region == region
    assert RDSAuthTokenProvider.canonical(ref, {}) == ref


@pytest.mark.parametrize(
    "text",
    [
        f"{NAME}?region={OTHER_REGION}",
        f"{NAME}?region=-",
        f"{NAME}?version=1",
        f"{NAME}?stage=blue",
        f"{NAME}?project=acme",
        f"app@{HOST}",
        f"app@{HOST}:0",
        f"app@{HOST}:65536",
        f"app@{HOST}:5432/shop",
        f"{HOST}:5432",
        f"@{HOST}:5432",
        "app@-db:5432",
        "app@db/x:5432",
        f"a/b@{HOST}:5432",
    ],
)
def test_bad_reference(text: str) -> None:
    """What is no user@host:port, or contradicts the host, is InvalidReference with a hint."""
    with pytest.raises(InvalidReference) as caught:
        reference(text)
    assert caught.value.hint


def test_through_the_registry() -> None:
    """The registry signs for the host's region, whatever that of the process, within the fences."""
    registry = make(
        ProviderSpec("rds", BACKEND, options={"session": SESSION}, fence=Fence(regions=(REGION,))),
        region=OTHER_REGION,
    )
    value = registry.get(f"rds://{NAME}")
    assert parse_qs(value)["X-Amz-Credential"][0].endswith(f"/{REGION}/rds-db/aws4_request")
    with pytest.raises(AccessDenied, match="REGIONS"):
        registry.get(f"rds://{NAME.replace(REGION, OTHER_REGION)}")
    with pytest.raises(AccessDenied, match="REGIONS"):
        registry.get("rds://app@db.internal:5432")


# -- errors --


def refusal(provider: BaseProvider, timeout: float = 10) -> SecretError:
    with pytest.raises(SecretError) as caught:
        fetch(provider, timeout=timeout)
    return caught.value


def test_role_that_is_refused(role: AWSServer) -> None:
    """A process whose role is refused is denied, with a hint."""
    role.answer(403, xml_error("AccessDenied").encode())
    error = refusal(build(session={"profile_name": "role"}))
    assert type(error) is AccessDenied
    assert "trust policy" in error.hint


def test_no_credentials() -> None:
    """Without credentials the build is denied."""
    with pytest.raises(AccessDenied, match="no AWS credentials"):
        build(session={})


def test_no_region() -> None:
    """Without any region the provider cannot be built."""
    with pytest.raises(InvalidProvider, match="REGION"):
        build("")


def test_region_of_the_session() -> None:
    """Without one of its own the instance signs for the region of its session."""
    answer = fetch(build("", session={**SESSION, "region_name": OTHER_REGION}), "app@db:5432")
    assert query(answer)["X-Amz-Credential"].endswith(f"/{OTHER_REGION}/rds-db/aws4_request")


def test_no_time_left() -> None:
    """A fetch without time signs nothing."""
    assert type(refusal(build(), timeout=0)) is ProviderUnavailable
