"""AWS Parameter Store: boto3 against moto's HTTP server, and against one that fails."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_secret_registry.conformance import ProviderConformance
from django_secret_registry.exceptions import (
    AccessDenied,
    InvalidReference,
    ProviderError,
    ProviderUnavailable,
    ResidencyViolation,
    SecretError,
    SecretNotFound,
)
from django_secret_registry.provider_cache import ProviderSpec
from django_secret_registry.providers.aws import ParameterStoreProvider
from django_secret_registry.providers.base import BaseProvider, Fence
from django_secret_registry.references import SecretRef
from django_secret_registry.residency import Residency
from django_secret_registry.values import MAX_VALUE_SIZE, SecretStr, SecretValue
from tests.canary import canary
from tests.fixtures import aws
from tests.scripted import entry, make
from tests.servers.aws import ACCOUNT, REGION, AWSServer
from tests.servers.process import free_port

pytestmark = pytest.mark.sdk

aws_session, aws_server = aws.aws_session, aws.aws_server

OTHER_REGION = "eu-west-1"
ONE_ATTEMPT = {"retries": {"mode": "standard", "total_max_attempts": 1}}
BACKEND = "django_secret_registry.providers.aws.ParameterStoreProvider"
ARN = f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/prod/db"


def build(server: AWSServer, region: str = REGION, **options: Any) -> ParameterStoreProvider:
    return ParameterStoreProvider(alias="ssm", region=region, **{**server.options(), **options})


@pytest.fixture(scope="session")
def shared(aws_session: AWSServer) -> BaseProvider:
    """A provider for tests that need none of their own; it tries everything once."""
    return build(aws_session, config=ONE_ATTEMPT)


def reference(text: str) -> SecretRef:
    return ParameterStoreProvider.canonical(SecretRef.parse(f"ssm://{text}").payload(), {})


def fetch(provider: BaseProvider, text: str = "prod/db", timeout: float = 10) -> SecretValue:
    return provider.fetch(reference(text), timeout=timeout)


def refusal(provider: BaseProvider, text: str = "prod/db", timeout: float = 10) -> SecretError:
    with pytest.raises(SecretError) as caught:
        fetch(provider, text, timeout)
    return caught.value


class TestParameterStoreConformance(ProviderConformance):
    """Parameter Store behaves as every provider must."""

    provider_class = ParameterStoreProvider
    alias = "ssm"
    region = REGION
    # With its first slash written: that of a hostile name before it is one too many then.
    existing, value, missing = "/prod/db", canary("db"), "/prod/none"
    denied = "prod/denied"
    lacks = {"binary": "a parameter is text"}
    versions = {"/prod/db?version=1": canary("db-old"), "/prod/db?version=2": value}
    missing_version = "/prod/db?version=9"
    stages = {
        "/prod/db?stage=current": value,
        "/prod/db?stage=previous": canary("db-old"),
        "/prod/db?stage=blue": value,
    }
    missing_stage = "/prod/db?stage=pending"
    outages = ("refused", "server error", "throttled", "cut", "truncated")
    regions = {REGION: value, OTHER_REGION: canary("db-elsewhere")}
    credentials = (canary("aws-access-key"),)

    @pytest.fixture(autouse=True)
    def server(self, aws_server: AWSServer) -> None:
        self.aws = aws_server
        self.options = aws_server.options()
        aws_server.put_parameter("/prod/db", canary("db-old"))
        aws_server.put_parameter("/prod/db", self.value, "blue")
        aws_server.put_parameter("/prod/db", self.regions[OTHER_REGION], region=OTHER_REGION)
        aws_server.put_parameter("/prod/denied", canary("denied"))
        aws_server.deny("/prod/denied")

    def rotate(self) -> str:
        self.aws.put_parameter("/prod/db", canary("db-rotated"))
        return canary("db-rotated")

    @contextmanager
    def outage(self, kind: str) -> Iterator[BaseProvider]:
        options: dict[str, Any] = {}
        if kind == "refused":
            options["client"] = {"endpoint_url": f"http://127.0.0.1:{free_port()}"}
        elif kind == "server error":
            self.aws.answer(500, canary("page").encode())
        elif kind == "throttled":
            self.aws.fail(400, "ThrottlingException", "Rate exceeded")
        elif kind == "cut":
            self.aws.cut()
        else:
            body = json.dumps({"Parameter": {"Value": self.value}}).encode()
            self.aws.answer(200, body, length=9999)
        yield build(self.aws, config=ONE_ATTEMPT, **options)
        self.aws.heal()

    @contextmanager
    def hang(self) -> Iterator[BaseProvider]:
        self.aws.hang()
        yield build(self.aws)
        self.aws.heal()


# -- names, versions, labels --


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("prod/db", "ssm://prod/db"),
        ("/prod/db", "ssm://prod/db"),
        ("db", "ssm://db"),
        ("/db", "ssm:///db"),
        ("prod/db?stage=current", "ssm://prod/db"),
        ("prod/db?stage=blue", "ssm://prod/db?stage=blue"),
        ("prod/db?version=3", "ssm://prod/db?version=3"),
        (ARN, f"ssm://{ARN}?region={REGION}&project={ACCOUNT}"),
        (f"{ARN}?project={ACCOUNT}&version=3", f"ssm://{ARN}?region={REGION}&project={ACCOUNT}&version=3"),
    ],
)  # fmt: skip
def test_one_spelling(text: str, expected: str) -> None:
    """Every way to write a reference ends in one, which is what is cached and fenced."""
    ref = reference(text)
    assert str(ref) == expected
    assert ParameterStoreProvider.canonical(ref, {}) == ref


@pytest.mark.parametrize(
    "text",
    [
        "//prod/db",
        "prod//db",
        "prod/db/",
        "prod/db:3",
        "prod/d%20b",
        "prod/db?version=latest",
        "prod/db?version=0",
        "prod/db?version=1&stage=blue",
        "prod/db?project=acme",
        f"{ARN}?region={OTHER_REGION}",
        f"{ARN}?project=210987654321",
        f"{ARN}:3",
        f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter//db",
        f"arn:aws:ssm:eu/../x:{ACCOUNT}:parameter/db",
        f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:db",
        "arn:aws:ssm",
    ],
)
def test_bad_reference(text: str) -> None:
    """What Parameter Store cannot have is InvalidReference, with a hint."""
    with pytest.raises(InvalidReference) as caught:
        reference(text)
    assert caught.value.hint


@given(st.text(max_size=40))
def test_no_name_breaks_the_spelling(name: str) -> None:
    """Any text is refused or spelled in a way that does not change any more."""
    ref = SecretRef(scheme="ssm", name=name)
    try:
        ref = ParameterStoreProvider.canonical(ref, {})
    except InvalidReference:
        return
    assert ParameterStoreProvider.canonical(ref, {}) == ref
    assert not ref.name.startswith("//")


def test_one_level(aws_server: AWSServer, shared: BaseProvider) -> None:
    """A parameter of one level is asked for as it is written, with a slash or without."""
    aws_server.put_parameter("db", canary("plain"))
    aws_server.put_parameter("/slashed", canary("slashed"))
    assert fetch(shared, "db").value == canary("plain")
    assert fetch(shared, "/slashed").value == canary("slashed")


def test_arn(aws_server: AWSServer, shared: BaseProvider) -> None:
    """An ARN names the parameter, with a version and a label too."""
    aws_server.put_parameter("/prod/db", canary("old"), "blue")
    aws_server.put_parameter("/prod/db", canary("new"))
    assert fetch(shared, ARN).value == canary("new")
    assert fetch(shared, f"{ARN}?version=1").value == canary("old")
    assert fetch(shared, f"{ARN}?stage=blue").value == canary("old")


def test_decrypted_and_as_it_is(aws_server: AWSServer, shared: BaseProvider) -> None:
    """A SecureString comes decrypted, a String and a StringList as they are; each has a version."""
    for kind in ("SecureString", "String", "StringList"):
        aws_server.put_parameter(f"/kinds/{kind}", f"{canary()},b", kind=kind)
        answer = fetch(shared, f"kinds/{kind}")
        assert isinstance(answer.value, SecretStr)
        assert (answer.value, answer.version) == (f"{canary()},b", "1")


def test_previous(aws_server: AWSServer, shared: BaseProvider) -> None:
    """ "previous" is the label of that name, else the version before the current one."""
    aws_server.put_parameter("/prod/db", canary("first"))
    assert type(refusal(shared, "prod/db?stage=previous")) is SecretNotFound
    aws_server.put_parameter("/prod/db", canary("second"))
    aws_server.put_parameter("/prod/db", canary("third"))
    assert fetch(shared, "prod/db?stage=previous").value == canary("second")
    with aws_server.client(service="ssm") as client:
        client.label_parameter_version(Name="/prod/db", ParameterVersion=1, Labels=["previous"])
    assert fetch(shared, "prod/db?stage=previous").value == canary("first")
    assert type(refusal(shared, "prod/none?stage=previous")) is SecretNotFound


# -- errors of the service --


@pytest.mark.parametrize(
    ("status", "code", "message", "kind", "hint"),
    [
        (400, "ParameterNotFound", "", SecretNotFound, ""),
        (400, "ParameterVersionNotFound", "", SecretNotFound, ""),
        (400, "ResourceNotFoundException", "", ProviderError, ""),
        (400, "ValidationException", "Invalid name", ProviderError, ""),
        (400, "InvalidKeyId", "the key is disabled", AccessDenied, "kms:Decrypt on the key"),
        (400, "AccessDeniedException", "no", AccessDenied, "ssm:GetParameter on the parameter"),
        (
            400,
            "AccessDeniedException",
            "User: arn:x is not authorized to perform: kms:Decrypt on resource: y",
            AccessDenied,
            "kms:Decrypt on the key",
        ),
        (400, "UnrecognizedClientException", "token is invalid", AccessDenied, "expired"),
        (400, "ExpiredTokenException", "expired", AccessDenied, "expired"),
        (400, "ThrottlingException", "Rate exceeded", ProviderUnavailable, ""),
        (500, "InternalServerError", "", ProviderUnavailable, ""),
        (503, "ParameterNotFound", "", ProviderUnavailable, ""),
    ],
)
def test_error_of_the_service(  # noqa: PLR0917
    aws_server: AWSServer,
    shared: BaseProvider,
    status: int,
    code: str,
    message: str,
    kind: type[SecretError],
    hint: str,
) -> None:
    """Each error is sorted by its code, says what to do, and is chained to boto3's."""
    aws_server.fail(status, code, message)
    error = refusal(shared)
    assert type(error) is kind
    assert hint in error.hint
    assert (error.reference, error.provider, error.region) == ("ssm://prod/db", "ssm", REGION)
    assert error.__cause__ is not None


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"Parameter": null}',
        b'{"Parameter": {"Value": 7}}',
        f'{{"Parameter": "{canary()}"}}'.encode(),
        f'{{"Parameter": {{"Value": "{canary()}"'.encode(),
        json.dumps({"Parameter": {"Value": "x" * (MAX_VALUE_SIZE + 1)}}).encode(),
    ],
)
def test_answer_that_cannot_be_read(
    aws_server: AWSServer, shared: BaseProvider, body: bytes
) -> None:
    """An answer that makes no sense is ProviderError, with nothing of it in its chain."""
    aws_server.answer(200, body)
    error = refusal(shared)
    assert type(error) is ProviderError
    assert (error.__cause__, error.__context__) == (None, None)


def test_tls_failure(aws_server: AWSServer) -> None:
    """A TLS failure is unavailable, and the hint names the option for a CA."""
    client = {"endpoint_url": aws_server.url.replace("http:", "https:")}
    error = refusal(build(aws_server, client=client, config=ONE_ATTEMPT))
    assert type(error) is ProviderUnavailable
    assert '"verify"' in error.hint


# -- batches --


def batch(provider: BaseProvider, *texts: str, timeout: float = 10) -> list[Any]:
    refs = [reference(text) for text in texts]
    answers = provider.fetch_many(refs, timeout=timeout)
    assert set(answers) == set(refs)
    return [answers[ref] for ref in refs]


def test_batch(aws_server: AWSServer, shared: BaseProvider) -> None:
    """Parameters are fetched by one call; one that AWS calls invalid is not found, by its name."""
    for name in "abc":
        aws_server.put_parameter(f"/prod/{name}", canary(name))
    aws_server.put_parameter("plain", canary("plain"))
    arn = ARN.replace("/db", "/c")
    *found, missing = batch(shared, "prod/a", "/prod/b", arn, "plain", "prod/none")
    assert [answer.value for answer in found] == [canary(name) for name in ("a", "b", "c", "plain")]
    assert [answer.version for answer in found] == ["1"] * 4
    assert type(missing) is SecretNotFound
    assert missing.reference == "ssm://prod/none"
    assert aws_server.calls == {"GetParameters": 1}
    assert aws_server.requests[0]["WithDecryption"] is True


def test_versions_are_fetched_alone(aws_server: AWSServer, shared: BaseProvider) -> None:
    """What has a version or a label goes beside the batch."""
    for name in "ab":
        aws_server.put_parameter(f"/prod/{name}", canary(f"{name}-old"))
        aws_server.put_parameter(f"/prod/{name}", canary(name))
    answers = batch(shared, "prod/a", "prod/b", "prod/a?version=1")
    assert [answer.value for answer in answers] == [canary("a"), canary("b"), canary("a-old")]
    assert aws_server.calls == {"GetParameters": 1, "GetParameter": 1}


def test_one_denied_parameter_spoils_no_batch(
    aws_server: AWSServer, shared: BaseProvider, caplog: pytest.LogCaptureFixture
) -> None:
    """IAM denies a whole batch for one of its names: the others are fetched one by one."""
    aws_server.put_parameter("/prod/a", canary("a"))
    aws_server.deny("/prod/b")
    allowed, denied = batch(build(aws_server), "prod/a", "prod/b")
    assert allowed.value == canary("a")
    assert type(denied) is AccessDenied
    assert "ssm:GetParameter on the parameter" in denied.hint
    assert aws_server.calls == {"GetParameters": 1, "GetParameter": 2}
    assert "ssm:GetParameters" in caplog.text


def test_broken_items_of_a_batch(aws_server: AWSServer, shared: BaseProvider) -> None:
    """An item without a value is an error of its own; what the batch is silent about is asked."""
    aws_server.put_parameter("/prod/silent", canary("silent"))
    items = [{"Name": "/prod/good", "Value": canary(), "Version": 4}, {"Name": "/prod/empty"}]
    aws_server.answer(200, json.dumps({"Parameters": items}).encode(), "GetParameters")
    good, empty, silent = batch(shared, "prod/good", "prod/empty", "prod/silent")
    assert (good.value, good.version) == (canary(), "4")
    assert type(empty) is ProviderError
    assert silent.value == canary("silent")


def test_batch_in_an_outage(aws_server: AWSServer, shared: BaseProvider) -> None:
    """A batch that AWS cannot answer is not asked for again parameter by parameter."""
    aws_server.fail(503, "ServiceUnavailable")
    errors = batch(shared, "prod/a", "prod/b")
    assert [type(error) for error in errors] == [ProviderUnavailable] * 2
    assert aws_server.calls == {"GetParameters": 1}


def test_batch_ends_in_time(aws_server: AWSServer, shared: BaseProvider) -> None:
    """A batch that hangs is over for all of it when its time is."""
    aws_server.hang()
    started = time.monotonic()
    errors = batch(shared, "prod/a", "prod/b", timeout=0.3)
    assert time.monotonic() - started < 2
    assert [type(error) for error in errors] == [ProviderUnavailable] * 2


# -- through the registry --


def test_warm_by_tens(aws_server: AWSServer) -> None:
    """Warming 23 parameters makes three calls."""
    for number in range(23):
        aws_server.put_parameter(f"/prod/p{number}", canary(str(number)))
    registry = make(ProviderSpec("ssm", BACKEND, options=aws_server.options()), region=REGION)
    refs = [f"ssm://prod/p{number}" for number in range(23)]
    assert {result.outcome for result in registry.warm(refs)} == {"ok"}
    assert aws_server.calls == {"GetParameters": 3}
    assert registry.get("ssm:///prod/p7") == canary("7")
    assert aws_server.calls == {"GetParameters": 3}


@pytest.mark.parametrize("asked", ["prod/db", "/prod/db", ARN, f"{ARN}?version=1"])
def test_fence_and_policy_see_one_parameter(aws_server: AWSServer, asked: str) -> None:
    """ALLOW and residency hold for each spelling of a parameter, before any call."""
    options = aws_server.options()
    fenced = make(
        ProviderSpec("ssm", BACKEND, options=options, fence=Fence(allow=("other/*",))),
        region=REGION,
    )
    with pytest.raises(AccessDenied, match="ALLOW"):
        fenced.get(f"ssm://{asked}")
    for named in ("ssm://prod/db", f"ssm://{ARN}"):
        bound = make(
            ProviderSpec("ssm", BACKEND, options=options, fence=Fence(allow=("prod/*",))),
            entry("e", named, residency=Residency("strict", REGION)),
            region=OTHER_REGION,
        )
        with pytest.raises(ResidencyViolation):
            bound.get(f"ssm://{asked}")
    assert not aws_server.calls
