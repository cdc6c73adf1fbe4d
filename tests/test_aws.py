"""AWS Secrets Manager: boto3 against moto's HTTP server, and against one that fails."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
import textwrap
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
from django_secret_registry.providers.aws import SecretsManagerProvider
from django_secret_registry.providers.base import BaseProvider
from django_secret_registry.references import SecretRef
from django_secret_registry.resolver import SecretRegistry
from django_secret_registry.specs import RegistryConfig
from django_secret_registry.values import MAX_VALUE_SIZE, SecretBytes, SecretValue
from tests.canary import canary
from tests.fixtures import aws
from tests.servers.aws import ACCOUNT, REGION, AWSServer

pytestmark = pytest.mark.sdk

aws_session, aws_server = aws.aws_session, aws.aws_server

OTHER_REGION = "eu-west-1"
ONE_ATTEMPT = {"retries": {"mode": "standard", "total_max_attempts": 1}}


def build(server: AWSServer, region: str = REGION, **options: Any) -> SecretsManagerProvider:
    return SecretsManagerProvider(alias="aws", region=region, **{**server.options(), **options})


@pytest.fixture(scope="session")
def shared(aws_session: AWSServer) -> BaseProvider:
    """A provider for tests that need none of their own."""
    return build(aws_session)


@pytest.fixture(scope="session")
def impatient(aws_session: AWSServer) -> BaseProvider:
    """A provider that tries everything once."""
    return build(aws_session, config=ONE_ATTEMPT)


def reference(text: str) -> SecretRef:
    return SecretsManagerProvider.canonical(SecretRef.parse(f"aws://{text}").payload(), {})


def fetch(provider: BaseProvider, text: str, timeout: float = 10) -> SecretValue:
    return provider.fetch(reference(text), timeout=timeout)


def refusal(provider: BaseProvider, text: str = "prod/db", timeout: float = 10) -> SecretError:
    with pytest.raises(SecretError) as caught:
        fetch(provider, text, timeout)
    return caught.value


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class TestSecretsManagerConformance(ProviderConformance):
    """Secrets Manager behaves as every provider must."""

    provider_class = SecretsManagerProvider
    alias = "aws"
    region = REGION
    existing, value, missing = "prod/db", canary("db"), "prod/none"
    binary, binary_value = "prod/binary", canary("binary").encode() + b"\xff\x00"
    denied = "prod/denied"
    missing_version = "prod/db?version=00000000-0000-0000-0000-000000000000"
    missing_stage = "prod/db?stage=NOSUCHSTAGE"
    outages = ("refused", "server error", "throttled", "cut", "truncated")
    regions = {REGION: value, OTHER_REGION: canary("db-elsewhere")}
    credentials = (canary("aws-access-key"),)

    @pytest.fixture(autouse=True)
    def server(self, aws_server: AWSServer) -> None:
        self.aws = aws_server
        self.options = aws_server.options()
        old = aws_server.create("prod/db", canary("db-old"))["VersionId"]
        new = aws_server.put("prod/db", self.value)
        pending = aws_server.put("prod/db", canary("db-next"), "AWSPENDING")
        aws_server.create("prod/db", self.regions[OTHER_REGION], region=OTHER_REGION)
        aws_server.create(self.binary, self.binary_value)
        aws_server.create(self.denied, canary("denied"))
        aws_server.deny(self.denied)
        self.versions = {
            f"prod/db?version={old}": canary("db-old"),
            f"prod/db?version={new}": self.value,
            f"prod/db?version={pending}": canary("db-next"),
        }
        self.stages = {
            "prod/db?stage=current": self.value,
            "prod/db?stage=previous": canary("db-old"),
            "prod/db?stage=AWSPENDING": canary("db-next"),
        }

    def rotate(self) -> str:
        self.aws.put("prod/db", canary("db-rotated"))
        return canary("db-rotated")

    @contextmanager
    def outage(self, kind: str) -> Iterator[BaseProvider]:
        options: dict[str, Any] = {}
        if kind == "refused":
            options["client"] = {"endpoint_url": f"http://127.0.0.1:{closed_port()}"}
        elif kind == "server error":
            self.aws.answer(500, canary("page").encode())
        elif kind == "throttled":
            self.aws.fail(400, "ThrottlingException", "Rate exceeded")
        elif kind == "cut":
            self.aws.cut()
        else:
            self.aws.answer(200, json.dumps({"SecretString": self.value}).encode(), length=9999)
        yield build(self.aws, config=ONE_ATTEMPT, **options)
        self.aws.heal()

    @contextmanager
    def hang(self) -> Iterator[BaseProvider]:
        self.aws.hang()
        yield build(self.aws)
        self.aws.heal()


# -- names, versions, stages --


def test_arn(aws_server: AWSServer, shared: BaseProvider) -> None:
    """A whole ARN and one without its suffix both name the secret."""
    arn = aws_server.create("prod/db", canary())["ARN"]
    assert fetch(shared, arn).value == canary()
    assert fetch(shared, arn[:-7]).value == canary()


def test_arn_gives_region_and_account() -> None:
    """Region and account of an ARN are those of the reference; the fences look at them."""
    arn = f"arn:aws-us-gov:secretsmanager:us-gov-west-1:{ACCOUNT}:secret:prod/db-AbCdEf"
    ref = reference(arn)
    assert (ref.region, ref.project, ref.name) == ("us-gov-west-1", ACCOUNT, arn)
    assert SecretsManagerProvider.canonical(ref, {}) == ref


def test_fenced_name_of_an_arn_keeps_its_end() -> None:
    """The fence sees "db-backup" in an ARN, never "db": it may be the name of another secret."""
    arn = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:prod/db-backup"
    assert SecretsManagerProvider.fenced_name(reference(arn)) == "prod/db-backup"
    assert SecretsManagerProvider.fenced_name(reference("prod/db-backup")) == "prod/db-backup"


@pytest.mark.parametrize(
    "text",
    [
        f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:db?region={OTHER_REGION}",
        f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:db-AbCdEf:password:AWSCURRENT:",
        f"arn:aws:secretsmanager:eu/../x:{ACCOUNT}:secret:db",
        f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/db",
        "arn:aws:secretsmanager",
        "db?project=acme",
    ],
)
def test_bad_arn(text: str) -> None:
    """An ARN of something else, or one that contradicts the query, is InvalidReference."""
    with pytest.raises(InvalidReference) as caught:
        reference(text)
    assert caught.value.hint


def test_same_account_may_stand_twice() -> None:
    """The account in an ARN may be repeated as the project."""
    ref = reference(f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:db?project={ACCOUNT}")
    assert ref.project == ACCOUNT


def test_portable_stage_without_canonical(aws_server: AWSServer, shared: BaseProvider) -> None:
    """A provider that is asked directly knows the portable stages too."""
    aws_server.create("prod/db", canary("old"))
    aws_server.put("prod/db", canary("new"))
    ref = SecretRef(scheme="aws", name="prod/db", stage="previous")
    assert shared.fetch(ref, timeout=10).value == canary("old")


def test_version_that_no_id_can_be(aws_server: AWSServer, shared: BaseProvider) -> None:
    """A version that is too short for an id is not found, without a call."""
    error = refusal(shared, "prod/db?version=7")
    assert type(error) is SecretNotFound
    assert not aws_server.calls


def test_version_without_the_stage(aws_server: AWSServer, shared: BaseProvider) -> None:
    """A version that does not carry the stage asked for is not found."""
    old = aws_server.create("prod/db", canary("old"))["VersionId"]
    aws_server.put("prod/db", canary("new"))
    assert fetch(shared, f"prod/db?version={old}&stage=previous").value == canary("old")
    error = refusal(shared, f"prod/db?version={old}&stage=AWSPENDING")
    assert type(error) is SecretNotFound


def test_deleted_secret(aws_server: AWSServer, shared: BaseProvider) -> None:
    """A secret that is marked for deletion is not found."""
    aws_server.create("prod/db", canary())
    with aws_server.client() as client:
        client.delete_secret(SecretId="prod/db", RecoveryWindowInDays=7)
    assert type(refusal(shared)) is SecretNotFound


def test_binary_stays_binary(aws_server: AWSServer, shared: BaseProvider) -> None:
    """SecretBinary is bytes even where it could be read as text."""
    aws_server.create("prod/db", canary().encode())
    value = fetch(shared, "prod/db").value
    assert isinstance(value, SecretBytes)
    assert value == canary().encode()


# -- errors of the service --


@pytest.mark.parametrize(
    ("status", "code", "message", "kind", "hint"),
    [
        (400, "ResourceNotFoundException", "can't find the specified secret", SecretNotFound, ""),
        (400, "InvalidRequestException", "it was marked for deletion.", SecretNotFound, ""),
        (400, "InvalidRequestException", "something else", ProviderError, ""),
        (400, "InvalidParameterException", "bad", ProviderError, ""),
        (400, "ValidationException", "Invalid name.", ProviderError, ""),
        (404, "com.amazon#UnknownOperationException", "", ProviderError, ""),
        (400, "AccessDeniedException", "no", AccessDenied, "secretsmanager:GetSecretValue"),
        (
            400,
            "AccessDeniedException",
            "User: arn:x is not authorized to perform: kms:Decrypt on resource: y",
            AccessDenied,
            "kms:Decrypt",
        ),
        (
            400,
            "AccessDeniedException",
            "not authorized to perform: secretsmanager:GetSecretValue on resource: prod/KMS",
            AccessDenied,
            "Allow secretsmanager:GetSecretValue",
        ),
        (400, "AccessDeniedException", "Access to KMS is not allowed", AccessDenied, "kms:Decrypt"),
        (400, "DecryptionFailure", "cannot decrypt", AccessDenied, "kms:Decrypt"),
        (400, "UnrecognizedClientException", "token is invalid", AccessDenied, "expired"),
        (403, "ExpiredTokenException", "expired", AccessDenied, "expired"),
        (403, "InvalidSignatureException", "Signature expired", AccessDenied, "clock"),
        (400, "MissingAuthenticationTokenException", "", AccessDenied, "wrong"),
        (400, "ThrottlingException", "Rate exceeded", ProviderUnavailable, ""),
        (429, "Strange", "", ProviderUnavailable, ""),
        (400, "RequestTimeoutException", "", ProviderUnavailable, ""),
        (500, "InternalServiceError", "", ProviderUnavailable, ""),
        (503, "ResourceNotFoundException", "no", ProviderUnavailable, ""),
    ],
)
def test_error_of_the_service(  # noqa: PLR0917
    aws_server: AWSServer,
    impatient: BaseProvider,
    status: int,
    code: str,
    message: str,
    kind: type[SecretError],
    hint: str,
) -> None:
    """Each error of AWS is sorted by its code, says what to do, and is chained to boto3's."""
    aws_server.fail(status, code, message)
    error = refusal(impatient)
    assert type(error) is kind
    assert hint in error.hint
    assert code.rpartition("#")[2].removesuffix("Exception") in error.message
    assert (error.reference, error.provider, error.region) == ("aws://prod/db", "aws", REGION)
    assert type(error.__cause__).__mro__[-4].__name__ == "ClientError"


@pytest.mark.parametrize(
    ("status", "kind"), [(403, ProviderError), (404, ProviderError), (502, ProviderUnavailable)]
)
def test_page_of_a_proxy(
    aws_server: AWSServer, impatient: BaseProvider, status: int, kind: type[SecretError]
) -> None:
    """An error that is not AWS's own is no "not found", and its page is in no error."""
    aws_server.answer(status, f"<html>{canary()}</html>".encode())
    error = refusal(impatient)
    assert type(error) is kind
    assert f"HTTP {status}" in error.message
    assert (error.__cause__, error.__context__) == (None, None)


@pytest.mark.parametrize(
    "body",
    [
        f'{{"SecretString": "{canary()}"'.encode(),
        f'["{canary()}"]'.encode(),
        b"null",
        b"",
        b"{}",
        b'{"SecretString": 7}',
        b'{"SecretString": null, "SecretBinary": null}',
        canary().encode() + b"\xff",
        f'{{"SecretBinary": "{canary()}x"}}'.encode(),
        b"[" * 100_000,
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


def test_truncated_answer(aws_server: AWSServer, shared: BaseProvider) -> None:
    """An answer that was cut short is unavailable, even where the part can be read."""
    body = json.dumps({"SecretString": canary()}).encode()
    aws_server.answer(200, body, length=len(body) + 1)
    error = refusal(shared)
    assert type(error) is ProviderUnavailable
    assert (error.__cause__, error.__context__) == (None, None)


@pytest.mark.parametrize(("extra", "kind"), [(0, None), (1, ProviderError)])
def test_size(
    aws_server: AWSServer, shared: BaseProvider, extra: int, kind: type[SecretError] | None
) -> None:
    """A value over 1 MiB is ProviderError."""
    value = canary().ljust(MAX_VALUE_SIZE + extra, "x")
    aws_server.answer(200, json.dumps({"SecretString": value}).encode())
    if kind is None:
        assert fetch(shared, "prod/db").value == value
    else:
        assert type(refusal(shared)) is kind


# -- connections, timeouts, retries --


def test_refused_connection(aws_server: AWSServer) -> None:
    """A connection that is refused is unavailable, chained to what boto3 says."""
    client = {"endpoint_url": f"http://127.0.0.1:{closed_port()}"}
    error = refusal(build(aws_server, client=client, config=ONE_ATTEMPT))
    assert type(error) is ProviderUnavailable
    assert type(error.__cause__).__name__ == "EndpointConnectionError"


def test_tls_failure(aws_server: AWSServer) -> None:
    """A TLS failure is unavailable, and the hint names the option for a CA."""
    client = {"endpoint_url": aws_server.url.replace("http:", "https:")}
    error = refusal(build(aws_server, client=client, config=ONE_ATTEMPT))
    assert type(error) is ProviderUnavailable
    assert '"verify"' in error.hint


def test_timeout_bounds_all_attempts(aws_server: AWSServer, shared: BaseProvider) -> None:
    """A fetch that hangs ends when its own time is over, and is not tried again then."""
    aws_server.hang()
    started = time.monotonic()
    error = refusal(shared, timeout=0.3)
    assert time.monotonic() - started < 2
    assert type(error) is ProviderUnavailable
    assert type(error.__cause__).__name__ == "ReadTimeoutError"
    assert aws_server.calls["GetSecretValue"] == 1


def test_read_timeout_of_the_config(aws_server: AWSServer) -> None:
    """The user's read timeout holds where it is shorter than the time of the fetch."""
    aws_server.hang()
    started = time.monotonic()
    error = refusal(build(aws_server, config={**ONE_ATTEMPT, "read_timeout": 0.2}))
    assert time.monotonic() - started < 2
    assert type(error) is ProviderUnavailable


def test_no_time_left(aws_server: AWSServer, shared: BaseProvider) -> None:
    """A fetch without time makes no call."""
    assert type(refusal(shared, timeout=0)) is ProviderUnavailable
    assert not aws_server.calls


def test_retry(aws_server: AWSServer, shared: BaseProvider) -> None:
    """One failure of the server is not seen by the reader."""
    aws_server.create("prod/db", canary())
    aws_server.fail(500, "InternalServiceError", times=1)
    assert fetch(shared, "prod/db").value == canary()
    assert aws_server.calls["GetSecretValue"] == 2


def test_bounded_retries(aws_server: AWSServer, shared: BaseProvider) -> None:
    """A server that goes on failing is asked three times."""
    aws_server.fail(500, "InternalServiceError")
    assert type(refusal(shared)) is ProviderUnavailable
    assert aws_server.calls["GetSecretValue"] == 3


# -- options --


def test_options_of_boto3(aws_server: AWSServer) -> None:
    """Session, client and config take all that boto3 takes; a Config in the client is merged."""
    from botocore.config import Config

    provider = build(
        aws_server,
        session={**aws_server.options()["session"], "region_name": "eu-north-1"},
        client={
            "endpoint_url": aws_server.url,
            "config": Config(read_timeout=9, retries={"total_max_attempts": 5}),
        },
        config={"read_timeout": 8, "max_pool_connections": 3},
        region="",
    )
    meta = provider.client.meta
    assert meta.region_name == "eu-north-1"
    assert (meta.config.read_timeout, meta.config.connect_timeout) == (9, 2)
    assert meta.config.max_pool_connections == 3
    assert meta.config.retries["total_max_attempts"] == 5


def test_check() -> None:
    """The check names each option that is no dict."""
    problems = SecretsManagerProvider.check({"session": "prod", "client": None, "config": []})
    assert [problem.message for problem in problems] == ["option 'session' is no dict"]
    problems = SecretsManagerProvider.check({"client": "x", "config": 7})
    assert len(problems) == 2


def test_region_goes_over_the_options(aws_server: AWSServer) -> None:
    """The region that the instance is built for wins over the one in its options."""
    options = aws_server.options(region_name="us-east-1")
    options["session"]["region_name"] = "us-east-2"
    provider = build(aws_server, **options)
    assert provider.client.meta.region_name == REGION


def test_no_region(aws_server: AWSServer) -> None:
    """Without any region the provider cannot be built, and the error says what to write."""
    with pytest.raises(InvalidProvider, match="REGION"):
        build(aws_server, region="", client={})


def test_no_credentials(aws_server: AWSServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without credentials no client is kept: a build is denied, and the next may succeed."""
    aws_server.create("prod/db", canary())
    with pytest.raises(AccessDenied, match="no AWS credentials"):
        build(aws_server, session={})
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", canary("aws-access-key"))
    assert fetch(build(aws_server, session={}), "prod/db").value == canary()


def test_credentials_of_the_client(aws_server: AWSServer) -> None:
    """Credentials may be given to the client, and a client that signs nothing needs none."""
    from botocore import UNSIGNED

    keys = aws_server.options()["session"]
    build(aws_server, session={}, client={"endpoint_url": aws_server.url, **keys})
    build(aws_server, session={}, config={"signature_version": UNSIGNED})


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [(403, "AccessDenied", AccessDenied), (503, "ServiceUnavailable", ProviderUnavailable)],
)
def test_role_that_cannot_be_assumed(  # noqa: PLR0917
    aws_server: AWSServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    status: int,
    code: str,
    kind: type[SecretError],
) -> None:
    """A role that STS refuses is denied, and unavailable while STS is."""
    config = tmp_path / "config"
    config.write_text(
        "[profile role]\nrole_arn = arn:aws:iam::123456789012:role/x\nsource_profile = base\n"
        f"[profile base]\naws_access_key_id = test\naws_secret_access_key = {canary('key')}\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", aws_server.url)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    error = f"<ErrorResponse><Error><Code>{code}</Code></Error></ErrorResponse>"
    aws_server.answer(status, error.encode())
    refused = refusal(build(aws_server, session={"profile_name": "role"}))
    assert type(refused) is kind
    assert "AssumeRole" in refused.message
    assert aws_server.calls["GetSecretValue"] == 0


def test_credentials_that_cannot_be_fetched(
    aws_server: AWSServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A source of credentials that fails later is unavailable; the client is not built anew."""
    good = {
        "Version": 1,
        "AccessKeyId": "test",
        "SecretAccessKey": canary("key"),
        "Expiration": "2000-01-01T00:00:00Z",
    }
    script = tmp_path / "credentials.py"
    script.write_text(f"print({json.dumps(json.dumps(good))})")
    config = tmp_path / "config"
    config.write_text(f"[default]\ncredential_process = {sys.executable} {script}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    provider = build(aws_server, session={})
    script.write_text("import sys; sys.exit('not now')")
    error = refusal(provider)
    assert type(error) is ProviderUnavailable
    assert "CredentialRetrievalError" in error.message


# -- batches --


def batch(provider: BaseProvider, *texts: str, timeout: float = 10) -> list[Any]:
    refs = [reference(text) for text in texts]
    answers = provider.fetch_many(refs, timeout=timeout)
    assert set(answers) == set(refs)
    return [answers[ref] for ref in refs]


def test_batch(aws_server: AWSServer, shared: BaseProvider) -> None:
    """Secrets without version or stage are fetched by one call, the missing one among them."""
    for name in "abc":
        aws_server.create(name, canary(name))
    *found, missing = batch(shared, "a", "b", "c", "none")
    assert [answer.value for answer in found] == [canary(name) for name in "abc"]
    assert all(answer.version for answer in found)
    assert type(missing) is SecretNotFound
    assert missing.reference == "aws://none"
    assert aws_server.calls == {"BatchGetSecretValue": 1}


def test_batch_of_versions(aws_server: AWSServer, shared: BaseProvider) -> None:
    """What has a version or a stage is fetched alone."""
    for name in "ab":
        aws_server.create(name, canary(f"{name}-old"))
        aws_server.put(name, canary(name))
    answers = batch(shared, "a?stage=previous", "b?stage=previous", "missing?stage=X")
    assert [answer.value for answer in answers[:2]] == [canary("a-old"), canary("b-old")]
    assert type(answers[2]) is SecretNotFound
    assert aws_server.calls == {"GetSecretValue": 3}


def test_batch_by_arn(aws_server: AWSServer, shared: BaseProvider) -> None:
    """A batch finds the answers to ARNs, whole and without suffix, next to names."""
    arns = [aws_server.create(name, canary(name))["ARN"] for name in "ab"]
    answers = batch(shared, arns[0], arns[1][:-7], "a", "b", f"{arns[0][:-8]}none")
    assert [answer.value for answer in answers[:4]] == [canary(name) for name in "abab"]
    assert type(answers[4]) is SecretNotFound
    assert aws_server.calls == {"BatchGetSecretValue": 1}


def test_batch_with_another_version(aws_server: AWSServer, shared: BaseProvider) -> None:
    """An answer that is not labelled as the current version is not taken."""
    aws_server.create("a", canary("a"))
    old = aws_server.create("b", canary("b-old"))["VersionId"]
    new = aws_server.put("b", canary("b-new"), "AWSPENDING")
    with aws_server.client() as client:
        client.update_secret_version_stage(
            SecretId="b", VersionStage="AWSCURRENT", MoveToVersionId=new, RemoveFromVersionId=old
        )
    assert [answer.value for answer in batch(shared, "a", "b")] == [
        canary("a"),
        canary("b-new"),
    ]


def test_errors_within_a_batch(aws_server: AWSServer, shared: BaseProvider) -> None:
    """Each error in a batch is sorted as that of a single fetch would be."""
    errors = {
        "gone": ("ResourceNotFoundException", SecretNotFound),
        "denied": ("AccessDeniedException", AccessDenied),
        "key": ("DecryptionFailure", AccessDenied),
        "broken": ("InternalServiceError", ProviderUnavailable),
        "odd": ("InvalidParameterException", ProviderError),
    }
    good = {"Name": "good", "SecretString": canary(), "VersionStages": ["AWSCURRENT"]}
    empty = {"Name": "empty", "VersionStages": ["AWSCURRENT"]}
    body = {
        "SecretValues": [good, empty],
        "Errors": [
            {"SecretId": name, "ErrorCode": code, "Message": ""}
            for name, (code, _) in errors.items()
        ],
    }
    aws_server.answer(200, json.dumps(body).encode())
    value, nothing, *refused = batch(shared, "good", "empty", *errors)
    assert value.value == canary()
    assert type(nothing) is ProviderError
    assert [type(error) for error in refused] == [kind for _, kind in errors.values()]
    assert "secretsmanager:GetSecretValue" in refused[1].hint
    assert aws_server.calls == {"BatchGetSecretValue": 1}


def test_denied_batch(aws_server: AWSServer, caplog: pytest.LogCaptureFixture) -> None:
    """Without the permission for batches secrets are fetched one by one; the log says so once."""
    for name in "ab":
        aws_server.create(name, canary(name))
    aws_server.fail(400, "AccessDeniedException", "", "BatchGetSecretValue")
    provider = build(aws_server)
    for _ in range(2):
        answers = batch(provider, "a", "b", "none")
        assert [answer.value for answer in answers[:2]] == [canary("a"), canary("b")]
        assert type(answers[2]) is SecretNotFound
    assert aws_server.calls == {"BatchGetSecretValue": 2, "GetSecretValue": 6}
    (record,) = [r for r in caplog.records if r.name.startswith("django_secret_registry")]
    assert record.levelno == logging.WARNING
    assert "secretsmanager:BatchGetSecretValue" in record.getMessage()


def test_throttled_batch(aws_server: AWSServer, impatient: BaseProvider) -> None:
    """A throttled batch is fetched one by one."""
    for name in "ab":
        aws_server.create(name, canary(name))
    aws_server.fail(400, "ThrottlingException", "", "BatchGetSecretValue")
    answers = batch(impatient, "a", "b")
    assert [answer.value for answer in answers] == [canary("a"), canary("b")]


def test_batch_in_an_outage(aws_server: AWSServer, impatient: BaseProvider) -> None:
    """A batch that AWS cannot answer is not asked for again secret by secret."""
    aws_server.fail(503, "ServiceUnavailable")
    errors = batch(impatient, "a", "b")
    assert [type(error) for error in errors] == [ProviderUnavailable] * 2
    assert [error.reference for error in errors] == ["aws://a", "aws://b"]
    assert aws_server.calls == {"BatchGetSecretValue": 1}


def test_single_fetches_end_in_an_outage(aws_server: AWSServer, impatient: BaseProvider) -> None:
    """The first of the single fetches that finds AWS unavailable ends them for the rest."""
    aws_server.fail(503, "ServiceUnavailable")
    names = ["a?stage=X", "b?stage=X", "c?stage=X"]
    errors = batch(impatient, *names)
    assert [type(error) for error in errors] == [ProviderUnavailable] * 3
    assert [error.reference for error in errors] == [f"aws://{name}" for name in names]
    assert aws_server.calls == {"GetSecretValue": 1}


def test_batch_ends_in_time(aws_server: AWSServer, shared: BaseProvider) -> None:
    """A batch that hangs is over for all of it when its time is."""
    aws_server.hang()
    started = time.monotonic()
    errors = batch(shared, "a", "b", timeout=0.3)
    assert time.monotonic() - started < 2
    assert [type(error) for error in errors] == [ProviderUnavailable] * 2


# -- around it --


def test_only_our_answers_are_kept_from_the_log(
    aws_server: AWSServer, caplog: pytest.LogCaptureFixture
) -> None:
    """boto3 logs no answer to us, and goes on logging those to the project's own clients."""
    aws_server.create("prod/db", "not a secret")
    caplog.set_level(logging.DEBUG, logger="botocore.parsers")
    provider = build(aws_server)
    fetch(provider, "prod/db")
    assert "not a secret" not in caplog.text
    provider.client.get_secret_value(SecretId="prod/db")
    assert "not a secret" in caplog.text


def test_fetch_after_close(aws_server: AWSServer) -> None:
    """A provider that was closed opens a connection again for who still holds it."""
    aws_server.create("prod/db", canary())
    provider = build(aws_server)
    fetch(provider, "prod/db")
    provider.close()
    assert fetch(provider, "prod/db").value == canary()


def test_through_the_registry(aws_server: AWSServer) -> None:
    """The registry reads a key of a secret, warms by batches and keeps the rest of it hidden."""
    aws_server.create("prod/db", json.dumps({"password": canary("pw"), "user": "app"}))
    aws_server.create("prod/key", canary("key"))
    backend = "django_secret_registry.providers.aws.SecretsManagerProvider"
    spec = ProviderSpec("aws", backend, options=aws_server.options())
    registry = SecretRegistry()
    registry.configure(RegistryConfig(region=REGION, providers={"aws": spec}, entries={}))
    results = registry.warm(["aws://prod/db", "aws://prod/key"])
    assert [result.error for result in results] == [None, None] or not any(
        result.error for result in results
    )
    assert aws_server.calls == {"BatchGetSecretValue": 1}
    assert registry.get("aws://prod/db#password") == canary("pw")
    assert registry.get("aws://prod/key") == canary("key")
    with pytest.raises(SecretNotFound, match="user"):
        registry.get("aws://prod/db#nothing")
    assert aws_server.calls == {"BatchGetSecretValue": 1}


def test_import_needs_no_sdk() -> None:
    """Importing the provider imports neither boto3 nor botocore."""
    code = """
        import sys
        from django_secret_registry.providers.aws import SecretsManagerProvider
        assert SecretsManagerProvider.check({"session": {}, "nonsense": 1})
        sys.exit(bool({"boto3", "botocore"} & set(sys.modules)))
    """
    assert not subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False).returncode
