"""Every fault that a backend can have, in every state of the cache: the table in ``faults.py``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest

from django_secret_registry import SecretRegistry
from django_secret_registry.events import Event, Fetched
from django_secret_registry.exceptions import SecretError
from django_secret_registry.fetching import Fetches
from django_secret_registry.lifecycle import CachePolicy
from django_secret_registry.specs import RegistryConfig
from tests import faults
from tests.fault_backends import (
    NAME,
    NEW,
    OLD,
    AWSBackend,
    AzureBackend,
    EnvBackend,
    FaultyBackend,
    FileBackend,
    GCPBackend,
    KubernetesBackend,
    MemoryBackend,
    VaultBackend,
    without_names,
)
from tests.faults import STATES, Case
from tests.fixtures import aws, azure, gcp, kubernetes, openbao
from tests.scripted import HandClock, threads_in, until
from tests.servers.aws import AWSServer
from tests.servers.azure import AzureServer
from tests.servers.gcp import GCPServer
from tests.servers.kubernetes import KubernetesServer
from tests.servers.openbao import OpenBaoServer
from tests.servers.proxy import Proxy

pytestmark = pytest.mark.sdk

aws_session, aws_server = aws.aws_session, aws.aws_server
bao_session, bao = openbao.bao_session, openbao.bao
azure_session, azure_server = azure.azure_session, azure.azure_server
gcp_session, gcp_server = gcp.gcp_session, gcp.gcp_server
kubernetes_session = kubernetes.kubernetes_session
kubernetes_server = kubernetes.kubernetes_server

REFERENCE = f"p://{NAME}"
TTL, MAX_STALE, NEGATIVE_TTL = 300.0, 3600.0, 5.0
YEAR = 365 * 86_400.0
#: How long before the fault the entry was fetched.
AGES = {
    "absent": 0.0,
    "due": 0.9 * TTL,
    "stale": 1.5 * TTL,
    "expired": TTL + MAX_STALE + 1,
    "refused": 1.5 * NEGATIVE_TTL,
}
#: What lasts until a time limit.
ENDLESS = ("hang", "slow drip")


@pytest.fixture(scope="module")
def proxies() -> Iterator[Callable[[str, str, int], Proxy]]:
    """Give one proxy per server, which lives as long as this module's tests."""
    known: dict[str, Proxy] = {}

    def proxy(name: str, host: str, port: int) -> Proxy:
        if name not in known:
            known[name] = Proxy(host, port)
        return known[name]

    yield proxy
    for one in known.values():
        one.stop()


@pytest.fixture
def backend(
    request: pytest.FixtureRequest,
    case: Case,
    proxies: Callable[[str, str, int], Proxy],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[FaultyBackend]:
    """Give the backend of the case; only its server is started."""
    without_names(monkeypatch)
    made: FaultyBackend
    if case.provider == "aws":
        server: AWSServer = request.getfixturevalue("aws_server")
        made = AWSBackend(server, proxies("aws", "127.0.0.1", urlsplit(server.url).port or 0))
    elif case.provider.startswith("gcp"):
        google: GCPServer = request.getfixturevalue("gcp_server")
        transport = case.provider.removeprefix("gcp-")
        host, _, port = google.endpoints[transport].partition(":")
        made = GCPBackend(google, proxies(transport, host, int(port)), transport)
    elif case.provider == "azure":
        vaults: AzureServer = request.getfixturevalue("azure_server")
        made = AzureBackend(vaults, proxies("azure", "127.0.0.1", vaults.port))
    elif case.provider == "kubernetes":
        api: KubernetesServer = request.getfixturevalue("kubernetes_server")
        made = KubernetesBackend(api, proxies("kubernetes", "127.0.0.1", api.port))
    elif case.provider == "vault":
        vault: OpenBaoServer = request.getfixturevalue("bao")
        made = VaultBackend(vault, proxies("vault", "127.0.0.1", vault.layer.server_port))
    else:
        kinds = {"file": FileBackend, "env": EnvBackend, "memory": MemoryBackend}
        made = kinds[case.provider]()
    yield made
    made.close()


def is_core(case: Case) -> bool:
    """Whether the quick run has this case: with a server, those in which a reader can wait."""
    return case.fault.requests is None or case.state in ("absent", "stale")


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=str(case), marks=() if is_core(case) else pytest.mark.full)
        for case in faults.cases()
    ],
)
def test_fault(case: Case, backend: FaultyBackend) -> None:  # noqa: PLR0915 - one life, told in order
    """A fault gives the reader what the table says, costs one fetch, and passes."""
    clock, wall = HandClock(), HandClock(1_800_000_000.0)
    registry = SecretRegistry(clock=clock, wall=wall)
    endless = case.name in ENDLESS
    policy = CachePolicy(
        ttl=TTL,
        jitter=0,
        max_stale=MAX_STALE,
        negative_ttl=NEGATIVE_TTL,
        soft_timeout=0.05 if endless else 10,
        fetch_timeout=1.0 if endless else 10,  # a busy machine needs that to ask at all
    )
    registry.configure(RegistryConfig(providers={"p": backend.spec()}, cache=policy))
    fetches: list[Event] = []
    places: list[tuple[str, str, str]] = []  # that errors named
    registry.events.subscribe(
        lambda event: fetches.append(event) if isinstance(event, Fetched) else None
    )

    def read() -> str:
        """Return what a read gives: "old", "new", or the name of an error."""
        try:
            return {OLD: "old", NEW: "new"}[registry.get(REFERENCE + backend.key)]
        except SecretError as error:
            places.append((error.reference, error.provider, error.region))
            return type(error).__name__

    def idle() -> bool:
        """Whether no fetch runs, nor waits for a thread that is about to run it."""
        cells = registry._resolver.cache._store.cells.values()
        return all(cell.flight is None for cell in cells) and not threads_in(Fetches.run)

    def arrive_at(wanted: str) -> None:
        """Read until the outcome is this; each time when nobody backs off any more."""

        def arrived() -> bool:
            clock.forward(61)
            served = read()
            until(idle)
            return served == wanted

        until(arrived)

    # The state, while all is well.
    if case.state == "refused":
        arrive_at("SecretNotFound")
    elif case.state != "absent":
        backend.put(OLD)
        arrive_at("old")
    backend.put(NEW)
    clock.forward(AGES[case.state])
    registry.drain()
    fetches.clear()
    before = backend.requests()

    # The fault.
    backend.break_(case.name, registry)
    if case.name == "clock jump":
        wall.forward(YEAR)
    assert read() == case.outcome.served
    assert registry.drain() == {("p", backend.region, case.outcome.status): 1}
    requests = before + (case.fault.requests or 0)
    until(lambda: backend.requests() >= requests)
    if case.name == "slow drip":
        backend.heal(case.name, registry)  # what was given up arrives late
    until(lambda: len(fetches) == 1)
    read()
    assert len(fetches) == 1
    assert backend.requests() == requests

    # What comes after it.
    if case.name == "clock jump":
        wall.forward(-2 * YEAR)
    backend.heal(case.name, registry)
    arrive_at("new")
    registry.close()
    assert set(places) <= {(REFERENCE, "p", backend.region)}


def test_every_state_of_every_fault_has_its_line() -> None:
    """The table has no gap: each kind of fault tells the outcome of each state."""
    assert all(set(outcomes) == set(STATES) for outcomes in faults.KINDS.values())
    assert {fault.kind for row in faults.FAULTS.values() for fault in row.values()} == set(
        faults.KINDS
    )


def test_document() -> None:
    """docs/faults.md is what ``python -m tests.faults`` writes."""
    assert faults.DOCUMENT.read_text() == faults.document()
