"""Chains of aliases: which one is asked, under which fences and policies, and what errors say."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.test import override_settings

from django_secret_registry import SecretRegistry, secret
from django_secret_registry.checks import check_configuration
from django_secret_registry.conformance import ProviderConformance
from django_secret_registry.events import Fetched, ResidencyChecked, Rotated
from django_secret_registry.exceptions import (
    AccessDenied,
    InvalidProvider,
    InvalidReference,
    ProviderDoesNotExist,
    ProviderError,
    ProviderUnavailable,
    ResidencyViolation,
    SecretNotFound,
)
from django_secret_registry.provider_cache import ProviderSpec
from django_secret_registry.providers.base import BaseProvider, Fence
from django_secret_registry.providers.chain import ChainProvider
from django_secret_registry.providers.memory import MemoryStore
from django_secret_registry.references import SecretRef
from django_secret_registry.residency import Residency
from django_secret_registry.values import SecretValue
from tests.canary import canary
from tests.fixtures import aws
from tests.scripted import HandClock, Script, alias, entry, make
from tests.servers.aws import REGION, AWSServer

pytestmark = pytest.mark.sdk

aws_session, aws_server = aws.aws_session, aws.aws_server

CHAIN = "django_secret_registry.providers.chain.ChainProvider"
MEMORY = "django_secret_registry.providers.memory.MemoryProvider"
AWS = "django_secret_registry.providers.aws.SecretsManagerProvider"


def chain(name: str = "chain", *aliases: str, **fields: Any) -> ProviderSpec:
    """Return the specification of a chain, of ``first`` and ``second`` unless told otherwise."""
    options = {"aliases": list(aliases or ("first", "second")), **fields.pop("options", {})}
    return ProviderSpec(name, CHAIN, options=options, **fields)


@pytest.fixture
def first() -> Script:
    return Script({"both": canary("first"), "own": canary("own")})


@pytest.fixture
def second() -> Script:
    return Script({"both": canary("second"), "other": canary("other")})


def registry_of(first: Script, second: Script, *more: Any, **fields: Any) -> SecretRegistry:
    """Return a registry with a chain of two scripted aliases."""
    known = {spec.alias for spec in more if isinstance(spec, ProviderSpec)}
    usual = (alias("first", first), alias("second", second), chain())
    return make(*(spec for spec in usual if spec.alias not in known), *more, **fields)


# -- conformance --


class TestChainConformance(ProviderConformance):
    """A chain behaves as every provider must, through members that a registry gives it."""

    provider_class = ChainProvider
    alias = "chain"
    region = REGION
    existing, value, missing = "prod/db", canary("db"), "prod/none"
    binary, binary_value = "prod/binary", canary("binary").encode() + b"\xff\x00"
    denied = "prod/denied"
    versions = {"prod/first?version=1": canary("v1"), "prod/first?version=2": canary("v2")}
    missing_version = "prod/first?version=00000000-0000-0000-0000-000000000000"
    missing_stage = "prod/db?stage=NOSUCHSTAGE"
    outages = ("server error", "throttled", "cut")
    regions = {REGION: value, "eu-west-1": canary("db-elsewhere")}
    credentials = (canary("aws-access-key"),)

    @pytest.fixture(autouse=True)
    def server(self, aws_server: AWSServer) -> None:
        self.aws = aws_server
        self.options = {"aliases": ["first", "aws"]}
        self.store = MemoryStore()
        for number in (1, 2):
            self.store.put("prod/first", canary(f"v{number}"))
        for region, value in self.regions.items():
            aws_server.create("prod/db", value, region=region)
        aws_server.create(self.binary, self.binary_value)
        aws_server.create(self.denied, canary("denied"))
        aws_server.deny(self.denied)
        self.stages = {
            "prod/first?stage=current": canary("v2"),
            "prod/first?stage=previous": canary("v1"),
            "prod/db?stage=current": self.value,
        }

    def make_provider(self, region: str = "") -> BaseProvider:
        config = {"retries": {"mode": "standard", "total_max_attempts": 1}}
        # The registry lives as long as the provider, which asks it for the members.
        registry = make(
            ProviderSpec("first", MEMORY, options={"secrets": self.store}),
            ProviderSpec("aws", AWS, options={**self.aws.options(), "config": config}),
            chain("chain", "first", "aws"),
        )
        return registry.get_provider("chain", region)

    def rotate(self) -> str:
        self.aws.put("prod/db", canary("db-rotated"))
        return canary("db-rotated")

    @contextmanager
    def outage(self, kind: str) -> Iterator[BaseProvider]:
        provider = self.make_provider(self.region)
        if kind == "server error":
            self.aws.answer(500, canary("page").encode())
        elif kind == "throttled":
            self.aws.fail(400, "ThrottlingException", "Rate exceeded")
        else:
            self.aws.cut()
        yield provider
        self.aws.heal()

    @contextmanager
    def hang(self) -> Iterator[BaseProvider]:
        provider = self.make_provider(self.region)
        self.aws.hang()
        yield provider
        self.aws.heal()


# -- who is asked --


def test_the_first_that_has_it_gives_it(first: Script, second: Script) -> None:
    """The next alias is asked only for what the one before does not have."""
    registry = registry_of(first, second)
    assert registry.get("chain://both") == canary("first")
    assert registry.get("chain://other") == canary("other")
    assert [ref.name for ref in first.fetched] == ["both", "other"]
    assert [str(ref) for ref in second.fetched] == ["second://other"]


def test_in_none(first: Script, second: Script) -> None:
    """What none has is not found: the error names all of them, and a default is used."""
    registry = registry_of(first, second)
    with pytest.raises(SecretNotFound) as caught:
        registry.get("chain://none")
    assert "first, second" in str(caught.value)
    assert (caught.value.reference, caught.value.provider) == ("chain://none", "chain")
    assert registry.get("chain://none", default="instead") == "instead"
    assert len(first.fetched) == len(second.fetched) == 1


@pytest.mark.parametrize("on_unavailable", [False, True])
@pytest.mark.parametrize("error", [AccessDenied, ProviderError, InvalidReference])
def test_what_ends_the_chain(
    first: Script, second: Script, error: type[Exception], on_unavailable: bool
) -> None:
    """A denial or an error ends the chain as such, and names the alias that it came from."""
    first.answers["both"] = error("no", hint="Do it.")
    registry = registry_of(first, second, chain(options={"on_unavailable": on_unavailable}))
    with pytest.raises(error) as caught:
        registry.get("chain://both")
    assert "'first': no" in str(caught.value)
    assert (caught.value.provider, caught.value.hint) == ("chain", "Do it.")
    assert second.fetched == []


def test_an_exception_of_a_member_is_not_repeated(first: Script, second: Script) -> None:
    """What a member raises unexpectedly becomes an error without its text."""
    first.answers["both"] = ValueError(canary())
    with pytest.raises(ProviderError, match="'first': the provider failed with ValueError"):
        registry_of(first, second).get("chain://both")
    assert second.fetched == []


def test_a_member_that_answers_nonsense(first: Script, second: Script) -> None:
    """An answer that is no value is a ProviderError, as it is without the chain."""
    first.answers["both"] = lambda ref: 7
    with pytest.raises(ProviderError, match="int"):
        registry_of(first, second).get("chain://both")


def test_unavailable_ends_the_chain_unless_told(first: Script, second: Script) -> None:
    """An outage is no "not found": the next alias is asked only with ``on_unavailable``."""
    first.answers["both"] = ProviderUnavailable("throttled")
    with pytest.raises(ProviderUnavailable, match="'first': throttled"):
        registry_of(first, second).get("chain://both")
    assert second.fetched == []
    registry = registry_of(first, second, chain(options={"on_unavailable": True}))
    assert registry.get("chain://both") == canary("second")


def test_an_outage_is_never_not_found(first: Script, second: Script) -> None:
    """Where one alias did not answer and no other has the secret, it is unavailable."""
    registry = registry_of(first, second, chain(options={"on_unavailable": True}))
    first.answers["none"] = ProviderUnavailable("throttled")
    with pytest.raises(ProviderUnavailable, match="'first': throttled"):
        registry.get("chain://none", default="instead")
    first.answers.clear()
    second.answers["gone"] = ProviderUnavailable("throttled")
    with pytest.raises(ProviderUnavailable, match="'second': throttled"):
        registry.get("chain://gone")


def test_an_outage_of_one_alias_is_none_of_the_chain(first: Script, second: Script) -> None:
    """While one alias is down, secrets of the others are fetched; only its own are left alone."""
    registry = registry_of(first, second)
    second.answers["other"] = ProviderUnavailable("throttled")
    for _ in range(2):
        with pytest.raises(ProviderUnavailable, match="'second': throttled"):
            registry.get("chain://other")
    assert len(second.fetched) == 1
    assert registry.get("chain://own") == canary("own")


class Impatient(BaseProvider):
    """Notes how much time it is given."""

    given: list[float] = []

    def fetch(self, ref: SecretRef, *, timeout: float) -> SecretValue:
        self.given.append(timeout)
        raise self.error(ProviderUnavailable, "not now", ref)


@pytest.mark.parametrize(("on_unavailable", "shares"), [(False, [10]), (True, [10 / 3, 5, 10])])
def test_shares_of_the_time(on_unavailable: bool, shares: list[float]) -> None:
    """Each alias may take an equal part of what is left; without a next one, almost all of it: its
    own error is to come before the cache gives up."""
    Impatient.given.clear()
    names = ("a", "b", "c")
    registry = make(
        *(ProviderSpec(name, f"{__name__}.Impatient") for name in names),
        chain("chain", *names, options={"on_unavailable": on_unavailable}),
    )
    with pytest.raises(ProviderUnavailable):
        registry.get("chain://x")
    assert Impatient.given == pytest.approx(shares, abs=0.5)
    assert Impatient.given[-1] < 9.9


def test_no_time_is_left(first: Script, second: Script) -> None:
    """A chain that is asked without time asks nobody."""
    provider = registry_of(first, second).get_provider("chain")
    with pytest.raises(ProviderUnavailable, match="time was over"):
        provider.fetch(SecretRef("chain", "both"), timeout=0)
    assert first.fetched == second.fetched == []


def test_chain_of_chains(first: Script, second: Script) -> None:
    """A chain may be an alias of another one."""
    registry = registry_of(first, second, chain("outer", "chain", "third"), alias("third", second))
    assert registry.get("outer://other") == canary("other")
    assert registry.fetch("outer://other").version.startswith("chain:second:")


def test_members_are_shared(first: Script, second: Script) -> None:
    """A chain uses the instances that everyone uses, and builds only those that it asks."""
    registry = registry_of(first, second)
    registry.get("chain://own")
    assert (len(first.builds), len(second.builds)) == (1, 0)
    registry.get("first://own")
    assert len(first.builds) == 1


# -- what is handed on --


def test_region_is_handed_on(first: Script, second: Script) -> None:
    """A region that is given goes to every alias; without one each has its own."""
    registry = registry_of(
        first, second, alias("second", second, region="us"), alias("first", first, region="eu")
    )
    registry.get("chain://other")
    assert (first.builds, second.builds) == ([("first", "eu")], [("second", "us")])
    registry.get("chain://other?region=ch")
    registry.get("chain://other", region="at")
    assert first.builds[1:] == [("first", "ch"), ("first", "at")]
    assert second.builds[1:] == [("second", "ch"), ("second", "at")]


@pytest.mark.parametrize("spec", [chain(region="ch"), chain()])
def test_region_of_the_entry_or_the_chain(
    first: Script, second: Script, spec: ProviderSpec
) -> None:
    """The chain's own region is handed on as well, and that of an entry."""
    region = "" if spec.region else "ch"
    registry = registry_of(first, second, spec, entry("e", "chain://other", region=region))
    assert registry.get("e") == canary("other")
    assert (first.builds, second.builds) == ([("first", "ch")], [("second", "ch")])


def test_locators_are_handed_on(first: Script, second: Script) -> None:
    """Project, version and stage go to each alias as they are."""
    registry = registry_of(first, second)
    registry.get("chain://other?project=p&version=7")
    registry.get("chain://other?stage=blue")
    assert [str(ref) for ref in second.fetched] == [
        "second://other?project=p&version=7",
        "second://other?stage=blue",
    ]


def test_what_a_member_does_not_have(second: Script) -> None:
    """A reference that an alias cannot have is refused, not passed over."""
    registry = make(
        ProviderSpec("first", "django_secret_registry.providers.env.EnvProvider"),
        alias("second", second),
        chain(),
    )
    with pytest.raises(InvalidReference, match="'first': the backend has no versions"):
        registry.get("chain://other?version=7")
    assert second.fetched == []


def test_version_names_the_member(first: Script, second: Script) -> None:
    """Two aliases that count alike do not hide that the value is another one."""
    clock = HandClock()
    registry = registry_of(first, second, clock=clock)
    told: list[Any] = []
    registry.events.subscribe(told.append)
    first.answers["both"] = lambda ref: SecretValue(canary("first"), version="7")
    second.answers["both"] = lambda ref: SecretValue(canary("second"), version="7")
    assert registry.fetch("chain://both").version == "first:7"
    del first.answers["both"]
    registry.refresh("chain://both")
    assert registry.get("chain://both") == canary("second")
    (rotated,) = [event for event in told if isinstance(event, Rotated)]
    assert (rotated.old_version, rotated.new_version) == ("first:7", "second:7")


def test_expiry_is_that_of_the_member(first: Script, second: Script) -> None:
    """A value that its issuer ends is not served after that, whoever is asked for it."""
    clock = HandClock()
    registry = registry_of(first, second, clock=clock)
    ends = clock() + 100
    first.answers["both"] = lambda ref: SecretValue(
        canary("first"), expires_at=ends, lease_id=canary("lease")
    )
    value = registry.fetch("chain://both")
    assert (value.expires_at, value.lease_id) == (ends, "")  # only the member could prolong it
    first.answers["both"] = ProviderUnavailable("gone")
    clock.forward(101)
    with pytest.raises(ProviderUnavailable):
        registry.get("chain://both")


# -- batches --


def test_batches_go_through_the_members(second: Script) -> None:
    """Warming asks each alias for what is missing so far, in batches of its own size."""
    first = Script({f"n{number}": canary(str(number)) for number in range(5)})
    second = Script({f"n{number}": canary(str(number)) for number in range(30)})
    registry = registry_of(
        first, second, alias("first", first), alias("second", second, "BatchProvider")
    )
    refs = [f"chain://n{number}" for number in range(31)]
    results = registry.warm(refs)
    assert [result.outcome for result in results] == ["ok"] * 30 + ["not_found"]
    assert len(first.fetched) == 31
    asked = [sorted(ref.name for ref in batch) for batch in second.batches]
    assert sorted(map(len, asked)) == [11, 15]
    assert len(second.fetched) == 0


def test_a_batch_of_aws(aws_server: AWSServer, second: Script) -> None:
    """Twenty secrets that only AWS has are one call of it."""
    for number in range(20):
        aws_server.create(f"n{number}", canary(str(number)))
    registry = make(
        alias("first", Script()),
        ProviderSpec("aws", AWS, options=aws_server.options()),
        chain("chain", "first", "aws"),
        region=REGION,
    )
    results = registry.warm([f"chain://n{number}" for number in range(20)])
    assert {result.outcome for result in results} == {"ok"}
    assert aws_server.calls == {"BatchGetSecretValue": 1}


def test_fetches_of_members_are_timed(first: Script, second: Script) -> None:
    """Each alias counts its own fetches, besides those of the chain."""
    registry = registry_of(first, second)
    told: list[Any] = []
    registry.events.subscribe(told.append)
    registry.get("chain://other")
    fetched = [event for event in told if isinstance(event, Fetched)]
    assert [(event.provider, event.status) for event in fetched] == [
        ("first", "not_found"),
        ("second", "ok"),
        ("chain", "ok"),
    ]


# -- fences and residency --


def test_each_fence_holds(first: Script, second: Script) -> None:
    """An alias whose fence the reference does not pass ends the chain and is not called."""
    registry = registry_of(first, second, alias("second", second, fence=Fence(allow=("prod/*",))))
    assert registry.get("chain://own") == canary("own")
    with pytest.raises(AccessDenied, match="'second'.*ALLOW"):
        registry.get("chain://other")
    assert second.builds == []


def test_the_fence_of_the_chain_holds(first: Script, second: Script) -> None:
    """The chain's own fence is looked at before anyone is asked."""
    registry = registry_of(first, second, chain(fence=Fence(allow=("prod/*",))))
    with pytest.raises(AccessDenied, match="ALLOW"):
        registry.get("chain://own")
    assert first.builds == []


ARN = f"arn:aws:secretsmanager:{REGION}:123456789012:secret:db"


@pytest.mark.parametrize(
    ("fence", "outside"),
    [(Fence(projects=("acme",)), "PROJECTS"), (Fence(regions=("", "eu-west-1")), "REGIONS")],
)
def test_a_full_name_does_not_escape_the_chain(
    aws_server: AWSServer, fence: Fence, outside: str
) -> None:
    """Region and account in an ARN, which only AWS reads, obey the fence of the chain as well."""
    registry = make(
        ProviderSpec("aws", AWS, options=aws_server.options()), chain("chain", "aws", fence=fence)
    )
    with pytest.raises(AccessDenied, match=outside) as caught:
        registry.get(f"chain://{ARN}")
    assert caught.value.provider == "chain"
    assert not aws_server.calls


STRICT = Residency("strict", "eu")


@pytest.mark.parametrize("here", ["us", ""])
def test_members_are_checked_one_by_one(first: Script, second: Script, here: str) -> None:
    """A strict alias blocks what gets as far as to it, and nothing that ends before."""
    registry = registry_of(
        first, second, alias("second", second, region="eu", residency=STRICT), region=here
    )
    assert registry.get("chain://own") == canary("own")
    with pytest.raises(ResidencyViolation, match="'second'"):
        registry.get("chain://other", default="instead")
    assert second.builds == []


@pytest.mark.parametrize("ref", ["chain://other", "outer://other"])
def test_the_policy_of_an_entry_binds_within_a_chain(
    first: Script, second: Script, ref: str
) -> None:
    """An entry's policy for an alias' secret holds when a chain gets to it."""
    registry = registry_of(
        first,
        second,
        chain("outer", "chain"),
        entry("e", "second://other", residency=STRICT),
        region="us",
    )
    with pytest.raises(ResidencyViolation):
        registry.get(ref)
    assert second.builds == []
    assert registry.get("chain://own") == canary("own")


@pytest.mark.parametrize("ref", ["e", "chain://other", "second://other", "first://other#k"])
def test_the_policy_of_a_chains_entry_binds_its_members(
    first: Script, second: Script, ref: str
) -> None:
    """An entry that names a chain means the secret, wherever in the chain it is."""
    registry = registry_of(
        first, second, entry("e", "chain://other", residency=STRICT), region="us"
    )
    with pytest.raises(ResidencyViolation):
        registry.get(ref)
    assert first.builds == second.builds == []
    assert registry.get("second://both") == canary("second")


def test_a_chain_without_region_takes_that_of_its_members(first: Script, second: Script) -> None:
    """A policy without region means where each alias has the secret."""
    registry = registry_of(
        first,
        second,
        alias("second", second, region="eu"),
        entry("e", "chain://other", region="eu", residency=Residency("strict")),
        region="eu",
    )
    assert registry.get("e") == registry.get("second://other") == canary("other")


def test_advisory_members_are_counted_and_logged(
    first: Script, second: Script, caplog: pytest.LogCaptureFixture
) -> None:
    """An advisory alias lets a violation pass, and tells it under its own name."""
    registry = registry_of(
        first,
        second,
        alias("second", second, region="eu", residency=Residency("advisory")),
        region="us",
    )
    told: list[Any] = []
    registry.events.subscribe(told.append)
    assert registry.get("chain://other") == canary("other")
    decisions = [
        (event.provider, event.decision) for event in told if isinstance(event, ResidencyChecked)
    ]
    assert decisions == [
        ("chain", "allowed_no_policy"),
        ("first", "allowed_no_policy"),
        ("second", "violation_allowed"),
    ]
    assert "second://other is read outside its region eu" in caplog.text


# -- evicting --


@pytest.mark.parametrize("ref", ["chain://both", "first://both", "second://both?stage=current"])
def test_evicting_a_member_evicts_the_chain(first: Script, second: Script, ref: str) -> None:
    """What a chain may have from an alias is forgotten with that alias' secret."""
    registry = registry_of(first, second, chain("outer", "chain"))
    for text in ("chain://both", "outer://both", "chain://own"):
        registry.get(text)
    first.answers["both"] = canary("rotated")
    assert registry.evict(ref) == 2
    assert registry.get("chain://both") == registry.get("outer://both") == canary("rotated")
    assert [ref.name for ref in first.fetched].count("own") == 1


def test_evicting_an_alias_evicts_its_chains(first: Script, second: Script) -> None:
    """Everything of an alias is also what a chain may have from it."""
    registry = registry_of(first, second, chain("other", "second"))
    for text in ("chain://both", "other://both", "first://own"):
        registry.get(text)
    assert registry.evict(provider="first") == 2
    assert registry.get("other://both") == canary("second")
    assert len(second.fetched) == 1


# -- configuration --


def test_threads_share_one_chain(first: Script, second: Script) -> None:
    """Many readers of one secret ask each alias once."""
    registry = registry_of(first, second)
    threads = [threading.Thread(target=registry.get, args=("chain://other",)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(first.fetched) == len(second.fetched) == 1


def test_cycle_at_run_time(first: Script, second: Script) -> None:
    """A chain that leads back to itself raises, whichever of its aliases is read."""
    registry = registry_of(first, second, chain("a", "first", "b"), chain("b", "chain", "a"))
    for ref in ("a://both", "b://both"):
        with pytest.raises(InvalidProvider, match="back to itself"):
            registry.get(ref)
    with pytest.raises(InvalidProvider, match="back to itself"):
        registry.get_provider("a").fetch(SecretRef("a", "none"), timeout=1)
    assert registry.get("chain://both") == canary("first")


def test_alias_that_does_not_exist(first: Script, second: Script) -> None:
    """A chain that gets to an alias that is not there says so, and hides no error before it."""
    registry = registry_of(first, second, chain("chain", "first", "third"))
    assert registry.get("chain://own") == canary("own")
    with pytest.raises(InvalidProvider, match="'third': no provider of that name"):
        registry.get("chain://other")
    with pytest.raises(ProviderDoesNotExist):
        registry.get("third://other")


PROVIDERS = {
    "memory": {"BACKEND": MEMORY},
    "first": {"BACKEND": CHAIN, "OPTIONS": {"aliases": ["memory", "second"]}},
}


def told(providers: dict[str, Any]) -> list[tuple[str, str]]:
    """Return id and place of what the checks tell of these providers."""
    with override_settings(SECRET_REGISTRY={"PROVIDERS": {**PROVIDERS, **providers}}):
        messages = [m for m in check_configuration() if not m.id.endswith("I002")]
        assert all(message.hint for message in messages)
        return [(message.id.rpartition(".")[2], message.msg.split(" ")[0]) for message in messages]


def where(name: str) -> str:
    return f"SECRET_REGISTRY['PROVIDERS']['{name}']['OPTIONS']"


def of(*aliases: Any, **options: Any) -> dict[str, Any]:
    return {"BACKEND": CHAIN, "OPTIONS": {"aliases": list(aliases), **options}}


def test_checks_of_a_good_chain() -> None:
    """A chain of what exists is nothing to be told about."""
    assert told({"second": of("memory", on_unavailable=True)}) == []


def test_checks_of_an_unknown_alias() -> None:
    """An alias that does not exist is a mistake of the chain, and is not shown."""
    assert told({}) == [("E006", where("first"))]


def test_checks_of_cycles() -> None:
    """A circle is told of each alias in it, also when a secret in OPTIONS closes it."""
    assert told({"second": of("third"), "third": of("first")}) == [
        ("E007", where(name)) for name in ("first", "second", "third")
    ]
    assert told({"second": of("second")}) == [("E007", where("second"))]
    options = {"secrets": {"x": secret("first://y")}}
    assert told({"second": {"BACKEND": MEMORY, "OPTIONS": options}}) == [
        ("E007", where("first")),
        ("E007", where("second")),
    ]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"aliases": []},
        {"aliases": "memory"},
        {"aliases": ["memory", "memory"]},
        {"aliases": [7]},
        {"aliases": [{}]},
        {"aliases": ["memory"], "on_unavailable": "yes"},
        {"aliases": ["memory"], "members": None},
        {"aliases": ["memory"], "other": 1},
    ],
)
def test_checks_of_options(options: dict[str, Any]) -> None:
    """Each option that a chain cannot be made of is told of, and raises when the chain is used."""
    spec = {"BACKEND": CHAIN, "OPTIONS": options}
    problems = told({"second": spec})
    assert problems == [("E009", where("second"))]


def test_json_of_a_member(first: Script, second: Script) -> None:
    """Keys of one secret come from one alias."""
    first.answers["db"] = json.dumps({"user": canary("u")})
    second.answers["db"] = json.dumps({"user": canary("x"), "password": canary("p")})
    registry = registry_of(first, second)
    assert registry.get("chain://db#user") == canary("u")
    with pytest.raises(SecretNotFound):
        registry.get("chain://db#password")
