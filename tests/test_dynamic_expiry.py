"""Credentials that end by themselves, read through the registry: STS, Google's tokens, RDS."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from django_secret_registry.exceptions import ProviderError, ProviderUnavailable
from django_secret_registry.lifecycle import CachePolicy, SecretInfo
from django_secret_registry.metrics import Metrics
from django_secret_registry.provider_cache import ProviderSpec
from django_secret_registry.resolver import SecretRegistry
from tests.cloud_backends import PROVIDERS, Backend, aws_backend, service_account
from tests.fixtures import aws
from tests.scripted import HandClock, make, until
from tests.servers import gcp_iam
from tests.servers.aws import REGION, AWSServer, xml_error
from tests.servers.gcp_iam import IAMServer

pytestmark = pytest.mark.sdk

prometheus_client = pytest.importorskip("prometheus_client")

aws_session, aws_server = aws.aws_session, aws.aws_server
iam_session, iam_server = gcp_iam.iam_session, gcp_iam.iam_server

HOUR = 3600
#: Seconds by which the issuer's own clock, and its rounding, may differ from the test's.
SLACK = 15


class Case(NamedTuple):
    """An issuer in the hands of a test."""

    backend: Backend
    fail: Callable[[], None]
    hang: Callable[[], None]
    heal: Callable[[], None]
    lifetime: str | None = "lifetime"  # the option that says how long a credential lives

    def specs(self, lifetime: int) -> list[ProviderSpec]:
        options = dict(self.backend.spec.options)
        if self.lifetime is not None:
            options[self.lifetime] = lifetime
        return [self.backend.alias(options=options, region=REGION)]


def of_sts(server: AWSServer) -> Case:
    def fail() -> None:
        server.answer(503, xml_error("ServiceUnavailable").encode())

    return Case(aws_backend("sts", server, ()), fail, server.hang, server.heal, "duration")


@pytest.fixture(params=["sts", "token", "chain"])
def case(request: pytest.FixtureRequest) -> Case:
    if request.param == "token":
        iam: IAMServer = request.getfixturevalue("iam_server")
        return Case(service_account(iam), lambda: iam.fail("UNAVAILABLE"), iam.hang, iam.heal)
    case = of_sts(request.getfixturevalue("aws_server"))
    return ChainCase(*case) if request.param == "chain" else case


class ChainCase(Case):
    """The issuer as the second alias of a chain."""

    def specs(self, lifetime: int) -> list[ProviderSpec]:
        (issuer,) = super().specs(lifetime)
        return [
            ProviderSpec("empty", f"{PROVIDERS}.memory.MemoryProvider"),
            issuer._replace(alias="issuer"),
            ProviderSpec(
                "it",
                f"{PROVIDERS}.chain.ChainProvider",
                options={"aliases": ["empty", "issuer"]},
            ),
        ]


@pytest.fixture
def clock() -> HandClock:
    return HandClock(time.time())


class Reader:
    """A registry of one issuer, and what its metrics tell."""

    def __init__(self, case: Case, clock: HandClock, lifetime: int, **policy: float) -> None:
        self.ref = case.backend.ref
        cache = CachePolicy(jitter=0.0, **policy)  # type: ignore[arg-type]
        self.registry: SecretRegistry = make(
            *case.specs(lifetime), clock=clock, cache=cache, region=REGION
        )
        for alias in self.registry.config.providers:  # a client takes longer to build than to use
            self.registry.get_provider(alias)
        self._metrics = prometheus_client.CollectorRegistry(auto_describe=True)
        self.registry.events.subscribe(Metrics(self.registry, self._metrics).listen)

    def get(self) -> str:
        return str(self.registry.get(self.ref))

    def told(self, name: str, **labels: str) -> float:
        return self._metrics.get_sample_value(f"secret_registry_{name}", labels) or 0.0

    @property
    def info(self) -> SecretInfo:
        """What is held of the credential."""
        (info,) = self.registry.snapshot().secrets
        return info


@pytest.mark.parametrize(
    ("lifetime", "ttl", "margin", "expected"),
    [
        (HOUR, 300, 60, 300),  # the usual TTL is the smaller one
        (HOUR, 100_000, 60, HOUR - 60),  # the issuer's end, less the margin
        (HOUR, 100_000, 600, HOUR - 600),
        (900, 100_000, 600, 900 - 180),  # the margin is a fifth of the life at most
    ],
)
def test_ttl(  # noqa: PLR0917
    case: Case, clock: HandClock, lifetime: int, ttl: float, margin: float, expected: float
) -> None:
    """The TTL is the smaller one of the configured one and what is left of the life less a margin;
    it is told to the metrics."""
    reader = Reader(case, clock, lifetime, ttl=ttl, safety_margin=margin)
    reader.get()
    assert reader.info.ttl == pytest.approx(expected, abs=SLACK)
    assert reader.info.expires_at == pytest.approx(time.time() + lifetime, abs=SLACK)
    assert reader.told("dynamic_ttl_seconds_count") == 1
    assert reader.told("dynamic_ttl_seconds_sum") == pytest.approx(expected, abs=SLACK)
    assert reader.told("cache_skip_total", reason="expiring") == 0


def test_rds(aws_server: AWSServer, clock: HandClock) -> None:
    """A token for RDS lives for 15 minutes less the margin, and the next one is signed ahead."""
    case = of_sts(aws_server)._replace(backend=aws_backend("rds", aws_server, ()), lifetime=None)
    reader = Reader(case, clock, 900, ttl=100_000)
    first = reader.get()
    assert reader.info.ttl == pytest.approx(840, abs=SLACK)
    clock.forward(700)
    assert reader.get() == first
    until(lambda: reader.told("refresh_total", provider="it", region=REGION, outcome="ok") == 1)


def test_refreshed_ahead(case: Case, clock: HandClock) -> None:
    """Before the TTL is over readers have the old credential at once, and soon the next one."""
    reader = Reader(case, clock, HOUR, ttl=100_000)
    first, asked = reader.get(), case.backend.asked()  # an SDK may ask a slow server again
    clock.forward(0.7 * HOUR)
    assert reader.get() == first
    assert case.backend.asked() == asked
    clock.forward(0.1 * HOUR)
    case.hang()  # so that the reader cannot have it yet
    assert reader.get() == first
    case.heal()
    until(lambda: reader.info.state != "due" or case.backend.asked() > asked)
    clock.forward(60)
    until(lambda: reader.get() != first)
    assert reader.info.expires_at is not None


def test_never_served_after_its_end(case: Case, clock: HandClock) -> None:
    """In an outage the credential serves until its issuer ends it, and not a moment longer,
    whatever MAX_STALE says."""
    reader = Reader(case, clock, HOUR, ttl=100_000, max_stale=100_000)
    first = reader.get()
    ends = reader.info.expires_at
    assert ends is not None
    case.fail()
    clock.forward(ends - clock() - 30)
    assert reader.get() == first
    assert reader.info.state == "stale"
    clock.forward(29)
    assert reader.get() == first
    clock.forward(1)
    for _ in range(2):
        with pytest.raises(ProviderUnavailable):
            reader.get()


def test_not_served_after_its_end_while_a_refresh_hangs(case: Case, clock: HandClock) -> None:
    """A refresh that is under way as the credential ends does not prolong it."""
    reader = Reader(case, clock, HOUR, ttl=100_000, max_stale=100_000, fetch_timeout=1.0)
    first = reader.get()
    case.hang()
    clock.forward(0.85 * HOUR)
    asked = case.backend.asked()
    assert reader.get() == first
    until(lambda: case.backend.asked() > asked)
    clock.forward(HOUR)
    with pytest.raises(ProviderUnavailable):
        reader.get()
    case.heal()


def test_ended_on_its_way(case: Case, clock: HandClock) -> None:
    """A credential that had ended when it arrived is an error, is counted, and is not kept."""
    clock.forward(2 * HOUR)  # this machine's clock is off
    reader = Reader(case, clock, HOUR)
    with pytest.raises(ProviderError, match="already expired"):
        reader.get()
    assert reader.info.state == "absent"
    assert reader.told("cache_skip_total", reason="expiring") == 1
    assert reader.told("dynamic_ttl_seconds_count") == 0


def test_within_its_margin(iam_server: IAMServer, clock: HandClock) -> None:
    """A credential that took most of its life to come is returned once, counted, and not kept."""
    case = Case(service_account(iam_server), iam_server.hang, iam_server.hang, iam_server.heal)
    reader = Reader(case, clock, 1000)
    iam_server.on_issue = lambda lifetime: clock.forward(0.95 * lifetime)
    assert reader.get()
    assert reader.told("cache_skip_total", reason="expiring") == 1
    iam_server.on_issue = lambda lifetime: None
    assert reader.get()
    assert case.backend.asked() == 2


@pytest.fixture(autouse=True)
def no_hanging_threads(aws_session: AWSServer, iam_session: IAMServer) -> Iterator[None]:
    """Whatever a test leaves hanging is let go."""
    yield
    aws_session.heal()
    iam_session.heal()
