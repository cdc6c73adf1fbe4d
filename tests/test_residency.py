"""Residency: from which regions a process may read a secret."""

from __future__ import annotations

import asyncio
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_secret_registry import registry as registry_of_the_process
from django_secret_registry import secret
from django_secret_registry.events import ProviderBuilt, ResidencyChecked
from django_secret_registry.exceptions import AccessDenied, ResidencyViolation
from django_secret_registry.provider_cache import ProviderSpec
from django_secret_registry.providers.base import Fence
from django_secret_registry.providers.memory import MemoryProvider, MemoryStore
from django_secret_registry.residency import POLICIES, Residency
from tests.canary import canary
from tests.scripted import Script, ScriptedProvider, alias, entry, make

STRICT = Residency("strict", "eu", ("ch",))
ADVISORY = Residency("advisory", "eu", ("ch",))


@pytest.fixture
def script():
    return Script({"s": canary("value"), "t": canary("other")})


# -- the decision --------------------------------------------------------------------------------

TABLE = [
    # policy, process → decision, for a secret in "eu" that "ch" may read
    ("none", "eu", "allowed_no_policy"),
    ("none", "us", "allowed_no_policy"),
    ("none", "", "allowed_no_policy"),
    ("advisory", "eu", "allowed_same_region"),
    ("advisory", "ch", "allowed_in_allowlist"),
    ("advisory", "us", "violation_allowed"),
    ("advisory", "", "violation_allowed"),
    ("strict", "eu", "allowed_same_region"),
    ("strict", "ch", "allowed_in_allowlist"),
    ("strict", "us", "violation_blocked"),
    ("strict", "", "violation_blocked"),
]


@pytest.mark.parametrize(("policy", "here", "decision"), TABLE)
def test_decisions(policy, here, decision):
    """Policy, region of the process and allowed regions give the decision of the contract."""
    assert Residency(policy, "eu", ("ch",)).decide(here) == decision


@pytest.mark.parametrize("policy", ["advisory", "strict"])
def test_no_region_is_no_region(policy):
    """A process without region is in no region, not even in that of a secret without region."""
    for region, allowed in (("", ()), ("", ("",)), ("eu", ("",))):
        assert Residency(policy, region, allowed).decide("").startswith("violation_")


@given(
    st.sampled_from(POLICIES),
    st.sampled_from(["", "eu", "us"]),
    st.lists(st.sampled_from(["", "eu", "us", "ch"]), max_size=3).map(tuple),
    st.sampled_from(["", "eu", "us", "ch"]),
)
def test_strict_admits_no_more_than_it_says(policy, region, allowed, here):
    """Whatever the policy, a process passes a strict one only from a region that it names."""
    decision = Residency(policy, region, allowed).decide(here)
    assert (decision == "violation_blocked") == (
        policy == "strict" and (not here or here not in {region, *allowed})
    )


# -- the gate ------------------------------------------------------------------------------------


def blocked(registry, script, use):
    """Check that ``use`` is refused before anything was built or fetched."""
    told = []
    registry.events.subscribe(told.append)
    with pytest.raises(ResidencyViolation) as caught:
        use()
    assert script.builds == script.fetched == script.batches == []
    assert not [event for event in told if isinstance(event, ProviderBuilt)]
    assert "violation_blocked" in [
        event.decision for event in told if isinstance(event, ResidencyChecked)
    ]
    return caught.value


def ways(registry, ref):
    """Return every way in which a secret is read."""
    return [
        lambda: registry.get(ref),
        lambda: registry.get(ref, default="instead"),
        lambda: registry.get(ref, region="eu"),
        lambda: asyncio.run(registry.aget(ref)),
        lambda: registry.fetch(ref),
        lambda: registry.refresh(ref),
    ]


@pytest.mark.parametrize("here", ["us", "", "-"])
@pytest.mark.parametrize("way", range(6))
def test_strict_blocks_before_any_call(script, here, way):
    """A strict entry is refused before its provider is built or asked, however it is read."""
    registry = make(
        alias("a", script, region="eu"), entry("e", "a://s", residency=STRICT), region=here
    )
    error = blocked(registry, script, ways(registry, "e")[way])
    assert (error.reference, error.provider, error.region) == ("a://s", "a", "eu")
    assert "'eu', 'ch' only" in str(error)
    assert ("runs in 'us'" if here == "us" else "has no REGION") in str(error)


@pytest.mark.parametrize(
    ("here", "hint"), [("us", "ALLOWED_REGIONS"), ("", 'Write the "REGION"'), ("-", '"REGION"')]
)
def test_a_refusal_says_what_to_write(script, here, hint):
    """In a process without REGION that is missing; else the policy may name its region."""
    registry = make(
        alias("a", script, region="eu"), entry("e", "a://s", residency=STRICT), region=here
    )
    assert hint in blocked(registry, script, lambda: registry.get("e")).hint


@pytest.mark.parametrize("here", ["eu", "ch"])
@pytest.mark.parametrize("way", range(6))
def test_strict_admits_its_regions(script, here, way):
    """From its own region and from allowed ones a strict entry is read."""
    registry = make(
        alias("a", script, region="eu"), entry("e", "a://s", residency=STRICT), region=here
    )
    ways(registry, "e")[way]()
    assert script.fetched


@pytest.mark.parametrize(
    "ref", ["a://s", "ref+a://s", "a://%73", "a://s#key", "a://s?as=bytes&ttl=9"]
)
@pytest.mark.parametrize(
    "query", ["", "region=eu", "region=us", "region=-", "version=1", "stage=x"]
)
def test_a_raw_reference_is_bound(script, ref, query):
    """The policy of an entry binds every reference to its secret, however it is spelled."""
    registry = make(
        alias("a", script, region="eu"), entry("e", "a://s#other", residency=STRICT), region="us"
    )
    head, mark, key = ref.partition("#")
    text = head + (("&" if "?" in head else "?") + query if query else "") + mark + key
    blocked(registry, script, lambda: registry.get(text))


def test_other_secrets_are_not_bound(script):
    """Another name, project or alias is free of the policy of an entry."""
    registry = make(
        alias("a", script, region="eu"),
        alias("b", script),
        entry("e", "a://s?project=p", residency=STRICT),
        region="us",
    )
    for ref in ("a://t", "b://s", "a://s", "a://s?project=q"):
        assert registry.get(ref) in (canary("value"), canary("other"))
    with pytest.raises(ResidencyViolation):
        registry.get("a://s?project=p")


def test_an_entry_without_region_means_where_its_secret_lies(script):
    """A policy without region takes the entry's effective one, also for a reference to a copy."""
    registry = make(
        alias("a", script, region="eu"), entry("e", "a://s", residency=Residency("strict")),
        region="us",
    )  # fmt: skip
    blocked(registry, script, lambda: registry.get("e"))
    blocked(registry, script, lambda: registry.get("a://s?region=us"))
    registry = make(
        alias("a", script, region="us"),
        entry("e", "a://s", region="eu", residency=Residency("strict")),
        region="eu",
    )
    assert registry.get("e") == registry.get("a://s?region=us") == canary("value")


def test_policies_of_several_entries_add_up(script):
    """A secret that two entries name obeys both policies, whichever entry is read."""
    registry = make(
        alias("a", script, region="eu"),
        entry("free", "a://s#a"),
        entry("loose", "a://s#b", residency=Residency("strict", "eu", ("us",))),
        entry("tight", "a://s#c", residency=Residency("strict", "eu")),
        region="us",
    )
    for ref in ("free", "loose", "tight", "a://s"):
        blocked(registry, script, lambda ref=ref: registry.get(ref))


def test_the_policy_of_an_alias_binds_all_it_has(script):
    """An alias' own policy holds for each of its secrets, and for its client."""
    registry = make(alias("a", script, region="eu", residency=Residency("strict")), region="us")
    for use in (*ways(registry, "a://t"), lambda: registry.get_provider("a")):
        with pytest.raises(ResidencyViolation):
            use()
    assert script.builds == []
    registry = make(alias("a", script, region="eu", residency=Residency("strict")), region="eu")
    assert registry.get("a://t") == canary("other")
    assert registry.get_provider("a").region == "eu"


def test_every_member_of_a_map_is_checked_before_the_first_is_read(script):
    """A MAP with one forbidden member is refused before any of its members is fetched."""
    registry = make(
        alias("a", script),
        entry("one", "a://t", residency=STRICT),
        entry("m", members={"free": "a://s", "bound": "a://t"}),
        region="us",
    )
    for way in ways(registry, "m")[:4]:
        blocked(registry, script, way)
    assert [result.outcome for result in registry.warm(["m"])] == ["denied"]
    assert script.fetched == []


def test_members_of_a_map_are_bound_outside_of_it(script):
    """The policy of a MAP binds each of its members, as raw references too."""
    registry = make(
        alias("a", script), entry("m", members={"x": "a://s#x"}, residency=STRICT), region="us"
    )
    blocked(registry, script, lambda: registry.get("a://s"))


def test_warming_obeys(script):
    """Warm-up reports a forbidden secret as denied, and fetches the others."""
    registry = make(
        alias("a", script, region="eu"), entry("e", "a://s", residency=STRICT), region="us"
    )
    results = registry.warm(["e", "a://t"])
    assert [result.outcome for result in results] == ["denied", "ok"]
    assert [ref.name for ref in script.fetched] == ["t"]
    assert registry.ready().missing == ("e",)


class LongNames(ScriptedProvider):
    """Accepts ``full:PROJECT:REGION:NAME`` for a secret, and keeps that as its canonical name."""

    @classmethod
    def canonical(cls, ref, options):
        if ref.name.startswith("full:"):
            _, project, region, _ = ref.name.split(":")
            ref = cls._take_locator(cls._take_locator(ref, "project", project), "region", region)
        return super().canonical(ref, options)

    @classmethod
    def identities(cls, ref):
        yield from super().identities(ref)
        if ref.name.startswith("full:"):
            yield "", ref.name.rpartition(":")[2]


@pytest.mark.parametrize("named", ["a://s", "a://full:p:eu:s"])
@pytest.mark.parametrize(
    "asked", ["a://s", "a://full:p:eu:s", "a://full:q:us:s", "a://full:p:eu:s#k"]
)
def test_full_names_do_not_escape(script, named, asked):
    """Where a backend has several names for one secret, all are bound, whichever the entry uses."""
    registry = make(
        ProviderSpec("a", f"{__name__}.LongNames", options={"script": script}),
        entry("e", named, residency=STRICT),
        region="us",
    )
    blocked(registry, script, lambda: registry.get(asked))


ARN = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:eu/patients"


@pytest.mark.parametrize("named", ["eu/patients", ARN, f"{ARN}-AbC123"])
@pytest.mark.parametrize(
    "asked",
    [
        "eu/patients",
        "eu%2Fpatients?stage=AWSPREVIOUS",
        ARN,
        f"{ARN}-AbC123#ssn",
        f"{ARN.replace('eu-central-1', 'us-east-1')}-AbC123",
    ],
)
def test_an_arn_does_not_escape(named, asked):
    """With AWS the short name and each form of the ARN are one secret for a policy."""
    registry = make(
        ProviderSpec("aws", "django_secret_registry.providers.aws.SecretsManagerProvider"),
        entry("e", f"aws://{named}", residency=Residency("strict", "eu-central-1")),
        region="us-east-1",
    )
    with pytest.raises(ResidencyViolation):
        registry.get(f"aws://{asked}")


def test_the_fence_comes_first(script):
    """What lies outside the fences of its alias is denied as such, whatever its residency."""
    registry = make(alias("a", script, fence=Fence(allow=("t",)), residency=STRICT), region="us")
    with pytest.raises(AccessDenied, match="ALLOW"):
        registry.get("a://s")


# -- telling -------------------------------------------------------------------------------------


def test_advisory_counts_and_logs(script, caplog):
    """An advisory policy lets a violation pass, and tells it to metrics and to the log."""
    registry = make(
        alias("a", script, region="eu"), entry("e", "a://s", residency=ADVISORY), region="us"
    )
    told = []
    registry.events.subscribe(told.append)
    with caplog.at_level(logging.WARNING, "django_secret_registry"):
        assert registry.get("e") == canary("value")
    checks = [event for event in told if isinstance(event, ResidencyChecked)]
    assert checks == [ResidencyChecked("a", "eu", "a://s", "advisory", "violation_allowed")]
    (record,) = caplog.records
    assert "a://s is read outside its region eu" in record.getMessage()


@pytest.mark.parametrize(
    ("residency", "here", "decision"),
    [
        (Residency(), "us", "allowed_no_policy"),
        (ADVISORY, "eu", "allowed_same_region"),
        (STRICT, "ch", "allowed_in_allowlist"),
    ],
)
def test_what_is_allowed_is_counted_and_not_logged(script, caplog, residency, here, decision):
    """Each fetch tells one decision for each policy that binds it; what is allowed logs nothing."""
    registry = make(
        alias("a", script, region="eu"), entry("e", "a://s", residency=residency), region=here
    )
    told = []
    registry.events.subscribe(told.append)
    with caplog.at_level(logging.WARNING, "django_secret_registry"):
        registry.get("e")
        registry.get("e")  # a hit costs no check
    checks = [event for event in told if isinstance(event, ResidencyChecked)]
    assert [(event.policy, event.decision) for event in checks] == [(residency.policy, decision)]
    assert not caplog.records


class SpelledByAnOption(MemoryProvider):
    """Spells its references by an option, as Key Vault's by the name of the usual vault."""

    def __init__(self, *, usual: str = "", **given):
        super().__init__(**given)

    @classmethod
    def canonical(cls, ref, options):
        return super().canonical(ref.replace(name=f"{options['usual']}/{ref.name}"), options)


def test_what_spells_a_bound_secret_is_read_once(settings):
    """An option may be a secret that is bound itself: its policy is told once, and it is enough."""
    store = MemoryStore({"usual": "vault", "vault/db": canary("bound")})
    entries = {"db": "spelled://db", "usual": "memory://usual"}
    settings.SECRET_REGISTRY = {
        "REGION": "us",
        "PROVIDERS": {
            "memory": {
                "BACKEND": "django_secret_registry.providers.memory.MemoryProvider",
                "OPTIONS": {"secrets": store},
                "REGION": "eu",
            },
            "spelled": {
                "BACKEND": f"{__name__}.SpelledByAnOption",
                "OPTIONS": {"secrets": store, "usual": secret("memory://usual")},
                "REGION": "eu",
            },
        },
        "SECRETS": {name: {"REF": text, "RESIDENCY": "advisory"} for name, text in entries.items()},
    }
    told = []
    unsubscribe = registry_of_the_process.events.subscribe(told.append)
    assert registry_of_the_process.get("db") == canary("bound")
    unsubscribe()
    checks = [event.reference for event in told if isinstance(event, ResidencyChecked)]
    assert checks == ["memory://usual", "spelled://vault/db"]
