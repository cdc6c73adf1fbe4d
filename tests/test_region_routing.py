"""Which region a secret is fetched from, and from which a process may fetch it: AWS and Google."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from django_secret_registry.events import ProviderBuilt, ResidencyChecked
from django_secret_registry.exceptions import AccessDenied, ResidencyViolation
from django_secret_registry.providers.aws import (
    AssumeRoleProvider,
    ParameterStoreProvider,
    RDSAuthTokenProvider,
    SecretsManagerProvider,
)
from django_secret_registry.providers.base import Fence
from django_secret_registry.residency import Residency
from tests.cloud_backends import Backend, aws_backend, secret_manager, service_account
from tests.fixtures import aws, gcp
from tests.scripted import entry, make
from tests.servers import gcp_iam
from tests.servers.aws import ACCOUNT, AWSServer

pytestmark = pytest.mark.sdk

aws_session, aws_server = aws.aws_session, aws.aws_server
gcp_session, gcp_server = gcp.gcp_session, gcp.gcp_server
iam_session, iam_server = gcp_iam.iam_session, gcp_iam.iam_server

CALL, REFERENCE, ENTRY, ALIAS, HERE = REGIONS = (
    "eu-west-1",
    "eu-west-2",
    "eu-west-3",
    "eu-central-1",
    "eu-north-1",
)
KINDS = ("secrets", "ssm", "sts", "rds", "gcp", "token")


@pytest.fixture(params=KINDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    kind = request.param
    if kind == "gcp":
        return secret_manager(request.getfixturevalue("gcp_server"), REGIONS)
    if kind == "token":
        return service_account(request.getfixturevalue("iam_server"))
    return aws_backend(kind, request.getfixturevalue("aws_server"), REGIONS)


# -- routing --


@pytest.mark.parametrize(
    ("call", "reference", "of_entry", "of_alias", "expected"),
    [
        (CALL, REFERENCE, ENTRY, ALIAS, CALL),
        (CALL, "", "", "", CALL),
        ("", REFERENCE, ENTRY, ALIAS, REFERENCE),
        ("", "", ENTRY, ALIAS, ENTRY),
        ("", "", "", ALIAS, ALIAS),
    ],
)
def test_precedence(  # noqa: PLR0917
    backend: Backend, call: str, reference: str, of_entry: str, of_alias: str, expected: str
) -> None:
    """The region of the call goes over that of the reference, the entry, the alias, the process."""
    query = f"?region={reference}" if reference else ""
    registry = make(
        backend.alias(region=of_alias),
        entry("e", backend.ref + query, region=of_entry),
        region=HERE,
    )
    value = registry.get("e", region=call or None)
    assert backend.region_of(value) == expected


def test_region_of_the_process(backend: Backend) -> None:
    """Without any other region AWS takes the process's own, and Google none."""
    spec = backend.spec
    if "iam_endpoint_override" in spec.options:
        url = spec.options["iam_endpoint_override"].removesuffix("/{region}")
        spec = backend.alias(options={**spec.options, "iam_endpoint_override": url})
    registry = make(spec, region=HERE)
    assert backend.region_of(registry.get(backend.ref)) == (HERE if backend.regional else "")


def test_one_client_per_region(backend: Backend) -> None:
    """Each region has a client of its own, built once, however the region was found."""
    registry = make(backend.alias(region=ALIAS), entry("e", backend.ref, region=ENTRY))
    told: list[Any] = []
    registry.events.subscribe(told.append)
    for _ in range(2):
        registry.get(backend.ref)
        registry.get("e")
        registry.get(backend.ref, region=ENTRY)
        registry.refresh(f"{backend.ref}?region={ALIAS}")
    built = [e.region for e in told if isinstance(e, ProviderBuilt) and e.status == "ok"]
    assert sorted(built) == sorted([ALIAS, ENTRY])
    assert registry.get_provider("it") is registry.get_provider("it", region=ALIAS)
    assert registry.get_provider("it", region=ENTRY).region == ENTRY


@pytest.mark.parametrize(
    ("provider", "service"),
    [
        (SecretsManagerProvider, "secretsmanager"),
        (ParameterStoreProvider, "ssm"),
        (AssumeRoleProvider, "sts"),
        (RDSAuthTokenProvider, "rds"),
    ],
)
def test_endpoint_of_the_region(
    aws_server: AWSServer, provider: Callable[..., Any], service: str
) -> None:
    """A client of AWS speaks to its region's own endpoint, STS's too."""
    session = aws_server.options()["session"]
    for region in (CALL, ALIAS):
        client = provider(alias="it", region=region, session=session).client
        assert client.meta.endpoint_url == f"https://{service}.{region}.amazonaws.com"


# -- residency: the gate before any call --


def ways(registry: Any, ref: str) -> list[Callable[[], Any]]:
    """Return every way in which a secret is read."""
    return [
        lambda: registry.get(ref),
        lambda: registry.get(ref, default="instead"),
        lambda: registry.get(ref, region=HERE),
        lambda: asyncio.run(registry.aget(ref)),
        lambda: registry.fetch(ref),
        lambda: registry.refresh(ref),
    ]


def assert_blocked(backend: Backend, registry: Any, *refs: str) -> None:
    """Assert that no way to read ``refs`` builds a client or reaches the server."""
    told: list[Any] = []
    registry.events.subscribe(told.append)
    before = backend.asked()
    for ref in refs:
        for way in ways(registry, ref):
            with pytest.raises(ResidencyViolation) as caught:
                way()
            assert repr(ALIAS) in str(caught.value)
        assert [result.outcome for result in registry.warm([ref])] == ["denied"]
    assert backend.asked() == before
    assert not [event for event in told if isinstance(event, ProviderBuilt)]
    decisions = {event.decision for event in told if isinstance(event, ResidencyChecked)}
    assert decisions == {"violation_blocked"}


@pytest.mark.parametrize("here", [HERE, "", "-"])
def test_strict_entry(backend: Backend, here: str) -> None:
    """A strict entry is blocked outside its regions, and where the process has none; so is a raw
    reference to its secret, in whatever region."""
    registry = make(
        backend.alias(region=ALIAS),
        entry("e", backend.ref, residency=Residency("strict", ALIAS, (CALL,))),
        region=here,
    )
    refs = [f"{backend.ref}?region={region}" for region in (HERE, CALL)]
    assert_blocked(backend, registry, "e", backend.ref, *refs)


@pytest.mark.parametrize("here", [ALIAS, CALL])
def test_strict_entry_from_its_regions(backend: Backend, here: str) -> None:
    """From its own region and from those in the allowed list the secret is fetched."""
    registry = make(
        backend.alias(region=ALIAS),
        entry("e", backend.ref, residency=Residency("strict", ALIAS, (CALL,))),
        region=here,
    )
    assert backend.region_of(registry.get("e")) == ALIAS
    assert registry.get(backend.ref) == registry.get("e")


@pytest.mark.parametrize("here", [HERE, ""])
def test_strict_alias(backend: Backend, here: str) -> None:
    """A strict alias blocks all that it has, and its client too."""
    registry = make(backend.alias(region=ALIAS, residency=Residency("strict", ALIAS)), region=here)
    assert_blocked(backend, registry, backend.ref)
    with pytest.raises(ResidencyViolation):
        registry.get_provider("it")


@pytest.mark.parametrize("here", [HERE, ""])
def test_advisory(backend: Backend, here: str, caplog: pytest.LogCaptureFixture) -> None:
    """An advisory policy lets the call go, counts it and logs it once per check."""
    registry = make(
        backend.alias(region=ALIAS),
        entry("e", backend.ref, residency=Residency("advisory", ALIAS)),
        region=here,
    )
    told: list[Any] = []
    registry.events.subscribe(told.append)
    with caplog.at_level(logging.WARNING, "django_secret_registry"):
        value = registry.get("e")
    assert backend.region_of(value) == ALIAS
    (checked,) = [event for event in told if isinstance(event, ResidencyChecked)]
    assert (checked.policy, checked.decision) == ("advisory", "violation_allowed")
    (record,) = [r for r in caplog.records if r.name.startswith("django_secret_registry")]
    assert f"is read outside its region {ALIAS}" in record.getMessage()


def test_fence_of_regions(backend: Backend) -> None:
    """A region outside the fence is refused before any call, whoever asks for it."""
    registry = make(backend.alias(region=ALIAS, fence=Fence(regions=(ALIAS,))), region=ALIAS)
    before = backend.asked()
    for use in (
        lambda: registry.get(backend.ref, region=HERE),
        lambda: registry.get(f"{backend.ref}?region={HERE}"),
        lambda: registry.get_provider("it", region=HERE),
    ):
        with pytest.raises(AccessDenied, match="REGIONS"):
            use()
    assert backend.asked() == before
    registry.get(backend.ref)


@pytest.mark.parametrize(
    ("kind", "spelling"),
    [
        ("secrets", f"arn:aws:secretsmanager:{HERE}:{ACCOUNT}:secret:eu/patients"),
        ("secrets", f"arn:aws:secretsmanager:{HERE}:{ACCOUNT}:secret:eu/patients-AbC123"),
        ("ssm", "/eu/patients"),
        ("ssm", f"arn:aws:ssm:{HERE}:{ACCOUNT}:parameter/eu/patients"),
        ("gcp", f"projects/acme/locations/{HERE}/secrets/patients"),
        ("gcp", f"projects/12/locations/{HERE}/secrets/patients"),
        ("gcp", "projects/12/secrets/patients/versions/1"),
    ],
)
def test_no_spelling_escapes(request: pytest.FixtureRequest, kind: str, spelling: str) -> None:
    """A full name, which carries a region of its own, is blocked like the short one."""
    if kind == "gcp":
        backend = secret_manager(request.getfixturevalue("gcp_server"), REGIONS)
    else:
        backend = aws_backend(kind, request.getfixturevalue("aws_server"), REGIONS)
    registry = make(
        backend.alias(region=ALIAS),
        entry("e", backend.ref, residency=Residency("strict", ALIAS)),
        region=HERE,
    )
    before = backend.asked()
    with pytest.raises(ResidencyViolation):
        registry.get(f"it://{spelling}")
    assert backend.asked() == before
