"""Hosts: whatever a reference, an answer or the environment says, a request goes nowhere else.

What is refused before anybody is asked stands in test_references, test_provider_base (fences,
quoting), test_residency and the tests of each provider; how much room a flood of names or regions
may take in test_secret_cache_room and test_provider_cache; what a forged event of the bus brings
about in test_fleet_worker.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_secret_registry.exceptions import ProviderError, ProviderUnavailable, SecretError
from django_secret_registry.provider_cache import ProviderSpec
from django_secret_registry.references import LOCATOR
from tests.canary import CANARY, canary
from tests.hostile_backends import CASES, PROJECT, SECRETS, Case, missing
from tests.scripted import make
from tests.servers.hostile import Hostile, hostile, tunnel
from tests.servers.https import Answer, Request

pytestmark = pytest.mark.full

PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")


@pytest.fixture(scope="module", autouse=True)
def _libraries() -> None:
    if reason := missing():
        pytest.skip(reason)


@pytest.fixture(scope="module")
def front() -> Iterator[Hostile]:
    """The host that the configuration names."""
    with hostile() as server:
        yield server


@pytest.fixture(scope="module")
def thief() -> Iterator[Hostile]:
    """Another host, which nobody has named."""
    with hostile() as server:
        yield server


@pytest.fixture(autouse=True)
def _anew(front: Hostile, thief: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    for server in (front, thief):
        server.seen.clear()
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(front.ca_file))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in (*PROXIES, "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def refusal(case: Case, front: Hostile, folder: Path) -> SecretError:
    provider = case.build(front, folder)
    with contextlib.closing(provider), pytest.raises(SecretError) as caught:
        case.fetch(provider)
    return caught.value


@pytest.mark.parametrize("name", SECRETS)
def test_each_backend_of_these_tests_gives_its_secret(
    front: Hostile, name: str, tmp_path: Path
) -> None:
    """The answers with which a thief is armed below are those that the provider believes."""
    case = CASES[name]
    front.say = lambda request: case.grant(request) or Answer(200, case.wrap(canary()))
    with contextlib.closing(case.build(front, tmp_path)) as provider:
        assert canary() in case.fetch(provider).value


@pytest.mark.parametrize("status", [302, 307])
@pytest.mark.parametrize("name", CASES)
def test_a_redirect_leads_nowhere(
    front: Hostile, thief: Hostile, name: str, status: int, tmp_path: Path
) -> None:
    """Neither the secret nor a login is asked for at the host that an answer leads to.

    302 has a client ask with GET and without a body, 307 with all of it.
    """
    case = CASES[name]
    front.redirect(thief, status)
    lead = front.say
    front.say = lambda request: case.grant(request) or lead(request)
    thief.say = lambda request: Answer(200, case.wrap(canary("stolen")))
    error = refusal(case, front, tmp_path)
    assert front.seen
    assert thief.seen == []
    assert isinstance(error, ProviderError | ProviderUnavailable) or name == "gcp login"
    assert str(thief.port) not in f"{error} {error.__cause__}"


def test_a_list_of_versions_goes_on_at_its_vault_only(
    front: Hostile, thief: Hostile, tmp_path: Path
) -> None:
    """Key Vault's answer says itself where its next page is: the token would go there."""
    case = CASES["azure"]

    def say(request: Request) -> Answer:
        page = Answer.json(200, {"value": [], "nextLink": f"{thief.url}/secrets/db/versions"})
        return case.grant(request) or page

    front.say = say
    error = refusal(case._replace(name="db?stage=previous"), front, tmp_path)
    assert type(error) is ProviderError
    assert front.calls["GET /secrets/db/versions"]
    assert thief.seen == []


def test_the_challenge_of_a_vault_does_not_say_who_is_asked_for_a_token(
    thief: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the process logs in with goes to the authority of OPTIONS."""
    case = CASES["azure"]
    challenge = f'Bearer authorization="{thief.url}/evil", resource="https://vault.test"'

    def say(request: Request) -> Answer:
        if request.path[0] == "secrets" and "authorization" not in request.headers:
            return Answer(401, b"{}", {"WWW-Authenticate": challenge})
        return case.grant(request) or Answer(200, case.wrap(canary()))

    with hostile() as front:  # of its own: the library remembers the challenge of a host for ever
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(front.ca_file))
        front.say = say
        with contextlib.suppress(SecretError), contextlib.closing(case.build(front, tmp_path)) as p:
            case.fetch(p)
        assert front.seen
    assert thief.seen == []


@pytest.mark.parametrize("name", CASES)
def test_a_proxy_of_the_environment_learns_the_host_only(
    front: Hostile, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked for a tunnel, in which TLS holds; Kubernetes' API is asked past it."""
    case = CASES[name]
    front.say = lambda request: case.grant(request) or Answer(200, case.wrap(canary()))
    with tunnel() as proxy:
        for variable in PROXIES:
            monkeypatch.setenv(variable, proxy.url)
            monkeypatch.setenv(variable.lower(), proxy.url)
        if name != "kubernetes":
            assert isinstance(refusal(case, front, tmp_path), ProviderError | ProviderUnavailable)
        else:
            assert case.fetch(case.build(front, tmp_path))
    lines = proxy.seen.decode().splitlines()
    assert bool(lines) == (name != "kubernetes")
    assert {line for line in lines if line.partition(" ")[0].isupper()} <= {
        f"CONNECT 127.0.0.1:{front.port} HTTP/{version}" for version in ("1.0", "1.1")
    }
    assert CANARY not in proxy.seen.decode()


# -- references ------------------------------------------------------------------------------------

NASTY = [
    "evil.example",
    "@evil.example",
    "//evil.example/x",
    "evil.example:443",
    "evil.example%2F",
    "evil.example%23",
    "evil.example%3F",
    "evil.example\\",
    "../../evil.example",
    "..%2F..%2Fevil.example",
    "https://evil.example/secrets/x",
    "https://v.vault.azure.net@evil.example/secrets/x",
    "https://v.vault.azure.net.evil.example/secrets/x",
    "https://evil.example%23.vault.azure.net/secrets/x",
    "https://evil.example%5C.vault.azure.net/secrets/x",
    "arn:aws:secretsmanager:evil.example:123456789012:secret:x",
    "arn:aws:secretsmanager:x@evil.example:123456789012:secret:x",
    "arn:aws:ssm:evil.example%2F:123456789012:parameter/x",
    "arn:aws:iam::123456789012:role/../evil.example",
    "projects/evil.example/secrets/x",
    "projects/x/locations/evil.example/secrets/x",
    "projects/x/locations/..%2Fevil.example%2F/secrets/x",
    "deploy@acme.iam.gserviceaccount.com:evil",
    "deploy@evil.example",
    "127.0.0.1",
    "169.254.169.254",
]
nasty = st.sampled_from(NASTY) | st.from_regex(LOCATOR, fullmatch=True).map(lambda text: text[:40])
FIELDS = ("region", "project", "version", "stage")

#: What a host of each alias ends in; those of AWS are its partitions'.
ALIASES = {
    "aws": ("aws.SecretsManagerProvider", {}, ()),
    "ssm": ("aws.ParameterStoreProvider", {}, ()),
    "sts": ("aws.AssumeRoleProvider", {}, ()),
    "gcp": ("gcp.SecretManagerProvider", {"project": PROJECT, "transport": "rest"}, ()),
    "gcptoken": (
        "gcp.AccessTokenProvider",
        {"iam_endpoint_override": "https://iam.{region}.rep.acme.test"},
        ("acme.test",),
    ),
    "azure": (
        "azure.KeyVaultProvider",
        {"vault": "acme", "credential": {"kind": "client_secret"}},
        ("acme.vault.azure.net", ".vault.azure.net", "login.microsoftonline.com"),
    ),
    "vault": (
        "vault.VaultProvider",
        {"url": "https://vault.acme.test", "auth": {"method": "token", "token": canary("token")}},
        ("vault.acme.test",),
    ),
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hosts that anybody looks up; none is found, so that no request leaves."""
    hosts: list[str] = []

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        hosts.append(host.decode() if isinstance(host, bytes) else str(host))
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return hosts


def specs() -> dict[str, tuple[ProviderSpec, tuple[str, ...]]]:
    import botocore.loaders
    from google.oauth2.credentials import Credentials

    partitions = botocore.loaders.create_loader().load_data("partitions")["partitions"]
    amazon = tuple(
        f".{one['outputs'][suffix]}"
        for one in partitions
        for suffix in ("dnsSuffix", "dualStackDnsSuffix")
    )
    user: Any = Credentials
    google = {"credentials": user(canary("google"))}
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": canary("aws-key")}
    amazon_options = {"session": keys, "config": {"retries": {"total_max_attempts": 1}}}
    further: dict[str, dict[str, Any]] = {
        "aws": amazon_options,
        "ssm": amazon_options,
        "sts": amazon_options,
        "gcp": {"client": google},
        "gcptoken": google,
        "azure": {
            "credential": {
                "kind": "client_secret",
                "tenant_id": "acme",
                "client_id": "id",
                "client_secret": canary("azure"),
                "retry_total": 0,
            },
            "client": {"retry_total": 0},
        },
        "vault": {},
    }
    made = {}
    for name, (backend, options, suffixes) in ALIASES.items():
        path = f"django_secret_registry.providers.{backend}"
        region = "eu-central-1" if name in ("aws", "ssm", "sts", "gcptoken") else ""
        spec = ProviderSpec(name, path, region=region, options={**options, **further[name]})
        made[name] = spec, suffixes or (amazon if region else (".googleapis.com",))
    return made


@pytest.mark.parametrize("alias", ALIASES)
def test_no_reference_names_a_host(asked: list[str], alias: str) -> None:
    """Of what a user may write into a reference nothing leads to a host of another domain.

    That of AWS is any of its partitions', of Google ``googleapis.com``, of Azure the vaults'.
    """
    spec, suffixes = specs()[alias]
    registry = make(spec)

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(name=nasty, fields=st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, nasty)))
    def ask(name: str, fields: dict[str, str]) -> None:
        text = "&".join(f"{field}={value}" for field, value in fields.items())
        with contextlib.suppress(SecretError):
            registry.get(f"{alias}://{name}?{text}" if text else f"{alias}://{name}")

    ask()
    registry.close()
    assert [host for host in asked if not host.endswith(suffixes)] == []


@pytest.mark.parametrize("alias", ALIASES)
def test_an_innocent_reference_does_ask(asked: list[str], alias: str) -> None:
    """The hosts of the test above are looked at where a request would have left."""
    spec, suffixes = specs()[alias]
    role, account = "arn:aws:iam::123456789012:role/x", "x@acme.iam.gserviceaccount.com"
    name = {"sts": role, "gcptoken": account}.get(alias, "x")
    with contextlib.suppress(SecretError):
        make(spec).get(f"{alias}://{name}")
    assert asked
    assert [host for host in asked if not host.endswith(suffixes)] == []
