"""From the text of a reference to what is asked of the cache."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_secret_registry.exceptions import (
    AccessDenied,
    InvalidProvider,
    InvalidReference,
    ProviderDoesNotExist,
    ProviderError,
    SecretError,
)
from django_secret_registry.lifecycle import CachePolicy
from django_secret_registry.planning import HIDDEN, Planner
from django_secret_registry.provider_cache import ProviderCache, ProviderSpec
from django_secret_registry.providers.base import Fence
from django_secret_registry.references import SecretRef
from django_secret_registry.residency import Residency
from django_secret_registry.specs import Derived
from django_secret_registry.values import SecretBytes, SecretStr
from tests.canary import canary
from tests.scripted import Script, ScriptedProvider, alias, config, entry, make

SCRIPT = Script()
POLICY = CachePolicy(ttl=300, max_entries=10)


def planner(*specs, **fields):
    """Return a planner for these aliases and entries, with an alias ``a`` beside them."""
    made = config(
        alias("a", SCRIPT, region="eu"), *specs, **{"cache": POLICY, "region": "home", **fields}
    )
    return Planner(made, ProviderCache(made.providers))


def ask(plans, text, region=None):
    (one,) = plans.plan(text, region).asks()
    return one


# -- what is asked for ---------------------------------------------------------------------------


def test_a_reference_becomes_a_key():
    """The key holds all that selects a payload, and nothing of what is made from it."""
    one = ask(planner(), "a://x/y?project=p&version=v&stage=s&region=us&ttl=9&as=bytes&trim=true#k")
    assert one.key == ("a", "us", "p", "x/y", "v", "s")
    assert str(one.ref) == "a://x/y?region=us&project=p&version=v&stage=s"
    assert (one.ttl, one.pinned) == (9, False)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a://s", "a://s"),
        ("a://s?region=eu", "a://s"),
        ("a://s?region=us", "a://s?region=us"),
        ("a://s?region=-", "a://s?region=-"),
        ("a://s?stage=current#k", "a://s"),
        ("a://%73", "a://s"),
        ("ref+a://s", "a://s"),
    ],
)
def test_the_region_is_shown_where_it_is_not_the_usual_one(text, shown):
    """Errors and pages show one spelling of a secret, with a region only if that says something."""
    assert str(ask(planner(), text).ref) == shown


def test_the_region_of_the_call():
    """A region in the call outranks that of the reference, and ``""`` is no region given."""
    plans = planner()
    assert ask(plans, "a://s?region=us", "ap").key.region == "ap"
    assert ask(plans, "a://s?region=us", "").key.region == "us"
    assert ask(plans, "a://s?region=us", "-").key.region == ""


TTLS = [
    # reference, entry → asked for, with 300 in CACHE
    ("", None, 300),
    ("ttl=900", None, 900),
    ("", 900, 900),
    ("ttl=60", 900, 60),
    ("ttl=900", 60, 60),
    ("", 0, 300),
]


@pytest.mark.parametrize(("query", "ttl", "expected"), TTLS)
def test_the_smallest_ttl_wins(query, ttl, expected):
    """Of the TTLs of reference and entry the smaller one counts, else the one of CACHE."""
    assert ask(planner(entry("e", f"a://s?{query}".rstrip("?"), ttl=ttl)), "e").ttl == expected


def test_members_of_one_secret_are_one_ask():
    """A MAP reads each secret once, with the smallest TTL of its members, whatever their order."""
    members = {"u": "a://s?ttl=60#u", "x": "a://other", "p": "a://s?ttl=6#p", "q": "a://s#q"}
    plan = planner(entry("m", members=members)).plan("m")
    assert plan.members == ("u", "x", "p", "q")
    assert [(one.key.name, one.ttl) for one in plan.asks()] == [("s", 6), ("other", 300)]


def test_what_settings_name_is_pinned():
    """Entries and markers are pinned; a reference that code asks for is not."""
    plans = planner(entry("e", "a://s"), entry("m", members={"x": "a://y"}))
    assert ask(plans, "e").pinned
    assert ask(plans, "m").pinned
    assert ask(plans, Derived("a://s")).pinned
    assert not ask(plans, "a://s").pinned


def test_a_plan_is_made_once():
    """The same text gets the same plan; so does the same Derived, and another one its own."""
    plans = planner()
    assert plans.plan("a://s") is plans.plan("a://s")
    derived = Derived("a://s", (str.upper,))
    assert plans.plan(derived) is plans.plan(derived)
    assert plans.plan(derived).functions == (str.upper,)
    assert plans.plan(Derived("a://s")).functions == ()


def test_plans_take_bounded_memory():
    """Texts from users cannot fill the memory: plans are bounded as the cache is."""
    plans = planner()
    for number in range(200):
        plans.plan(f"a://s{number}")
    assert len(plans._plans) <= 4 * POLICY.max_entries


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (canary("bare"), InvalidReference),
        (f"{canary('x')}://s", ProviderDoesNotExist),
        (f"postgres://user:{canary('pw')}@host/db", ProviderDoesNotExist),
        (f"a://{canary('x')} y", InvalidReference),
        (f"x://s?ttl={canary('x')}", InvalidReference),
        ("", InvalidReference),
        ("://", InvalidReference),
        ("a://", InvalidReference),
    ],
)
def test_a_text_that_leads_nowhere_is_not_repeated(text, error):
    """Text that names no alias and no entry may be a secret: no error and no page shows it."""
    plans = planner()
    with pytest.raises(error) as caught:
        plans.plan(text)
    assert canary() not in str(caught.value)
    assert caught.value.__context__ is None
    if not text.startswith("a:"):
        assert plans.shown(text) == HIDDEN


@given(st.text())
def test_any_text_is_a_plan_or_an_error_of_ours(text):
    """No text makes planning fail in another way."""
    plans = planner()
    try:
        plans.plan(text)
    except SecretError:
        assert plans.shown(text) == HIDDEN or text.partition("://")[0].endswith("a")
    else:
        assert SecretRef.parse(plans.shown(text)) == SecretRef.parse(text)


def test_what_is_known_is_shown():
    """A reference of a known alias and the name of an entry are shown as they are."""
    plans = planner(entry("e", "a://s"))
    assert plans.shown("ref+a://s#k") == "a://s#k"
    assert plans.shown("e") == "e"
    assert plans.shown(Derived("e", (str.upper,))) == "e"
    assert plans.shown("unknown") == HIDDEN


@pytest.mark.parametrize("kind", [SecretStr, lambda text: SecretBytes(text.encode())])
def test_a_value_is_no_reference(kind):
    """A secret's value where a reference belongs is a TypeError, also if the text is known."""
    plans = planner()
    plans.plan("a://s")
    with pytest.raises(TypeError, match="reference"):
        plans.plan(kind("a://s"))


@pytest.mark.parametrize("text", [None, 1, b"a://s", ["a://s"]])
def test_what_is_no_text_is_a_type_error(text):
    """Anything but text, a SecretRef or a Derived is a TypeError."""
    with pytest.raises(TypeError):
        planner().plan(text)


@pytest.mark.parametrize(
    "fields",
    [
        {"region": "eu&project=x"},
        {"region": "../x"},
        {"project": "a/b"},
        {"version": "1#k"},
        {"stage": "x y"},
        {"name": ""},
        {"name": "a\nb"},
        {"scheme": "a b"},
        {"scheme": "", "key": "k"},
        {"ttl": -1.0},
    ],
)
def test_a_reference_made_by_hand_is_checked(fields):
    """A SecretRef that no text could give is refused, so that no locator bends a URL."""
    with pytest.raises(InvalidReference):
        planner().plan(SecretRef(**{"scheme": "a", "name": "s", **fields}))


def test_a_sound_reference_made_by_hand():
    """A SecretRef is planned as its text is."""
    ref = SecretRef(scheme="a", name="x y/%", key="k")
    assert ask(planner(), ref) == ask(planner(), str(ref))


def test_a_broken_entry():
    """An entry with a mistake raises what the mistake is, and nothing else does."""
    plans = planner(entry("bad", "a://s", problem="TTL is negative"), entry("empty"))
    with pytest.raises(InvalidReference, match="TTL is negative"):
        plans.plan("bad")
    with pytest.raises(InvalidReference, match="names no secret"):
        plans.plan("empty")
    assert plans.plan("a://s")


FILES = ProviderSpec(
    "files", "django_secret_registry.providers.file.FileProvider", options={"path": "/nowhere"}
)


@pytest.mark.parametrize(
    ("text", "region", "kind"),
    [
        ("files://a/../b#key", None, InvalidReference),
        ("files:///a", None, InvalidReference),
        ("a://s", "../x", InvalidReference),
        ("lost://s", None, InvalidProvider),
        ("bad://s", None, InvalidProvider),
    ],
)
def test_an_error_names_reference_and_alias(text, region, kind):
    """What is refused before anything is asked names its reference, as what a backend refuses."""
    registry = make(
        alias("a", SCRIPT), alias("bad", SCRIPT, problem="no BACKEND"), FILES,
        ProviderSpec("lost", "no.such.Provider"),
    )  # fmt: skip
    with pytest.raises(kind) as caught:
        registry.get(text, region=region)
    assert caught.value.reference == text.partition("#")[0]
    assert caught.value.provider == text.partition(":")[0]


def test_a_failed_plan_is_not_kept():
    """An error is made anew each time, so that none collects the frames of all who met it."""
    plans = planner()
    errors = []
    for _ in range(2):
        with pytest.raises(SecretError) as caught:
            plans.plan("nothing")
        errors.append(caught.value)
    assert errors[0] is not errors[1]


FENCED = alias(
    "f", SCRIPT, fence=Fence(allow=("prod/*",), regions=("eu", ""), projects=("p",))
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "region", "outside"),
    [
        ("f://prod/x", None, ""),
        ("f://prod/x?project=p&region=eu", None, ""),
        ("f://prod/x?region=us", "eu", ""),
        ("f://dev/x", None, "ALLOW"),
        ("f://prod/../dev/x", None, "ALLOW"),
        ("f://prod%2F..%2Fdev", None, "ALLOW"),
        ("f://prod/x?region=us", None, "REGIONS"),
        ("f://prod/x", "us", "REGIONS"),
        ("e", None, "REGIONS"),
        ("f://prod/x?project=q", None, "PROJECTS"),
    ],
)
def test_fences_hold_for_what_is_effective(text, region, outside):
    """Name, region and project are fenced as they will be used, wherever they come from."""
    plans = planner(FENCED, entry("e", "f://prod/x", region="us"))
    if not outside:
        assert plans.plan(text, region)
        return
    with pytest.raises(AccessDenied, match=outside) as caught:
        plans.plan(text, region)
    assert caught.value.provider == "f"


class Hostile(ScriptedProvider):
    """Fails in what the planner asks of a backend's class, and shows the reference in its text."""

    @classmethod
    def canonical(cls, ref, options):
        raise KeyError(ref.name)


def test_a_backend_that_fails_to_spell():
    """An exception of a third party's class becomes a ProviderError, without its text."""
    plans = planner(ProviderSpec("h", f"{__name__}.Hostile"))
    with pytest.raises(ProviderError, match="KeyError") as caught:
        plans.plan(f"h://{canary('x')}")
    assert caught.value.__context__ is None
    assert caught.value.provider == "h"


def test_a_backend_without_some_locator():
    """A locator that the backend does not have is refused, not ignored."""
    plans = planner(ProviderSpec("base", "django_secret_registry.BaseProvider"))
    for field in ("project", "version", "stage"):
        with pytest.raises(InvalidReference, match=field):
            plans.plan(f"base://s?{field}=x")


# -- spelling and policies -----------------------------------------------------------------------


def test_one_spelling():
    """Overrides compare references by one spelling: without TTL, and as the backend has it."""
    plans = planner()
    spelling = plans.spelling
    assert spelling(SecretRef.parse("a://s?ttl=9&stage=current#k")) == SecretRef.parse("a://s#k")
    for text in ("unknown://s?ttl=9", "entry"):
        assert spelling(SecretRef.parse(text)) == SecretRef.parse(text.partition("?")[0])


def test_policies_are_found_once_each():
    """A secret that two entries name under one policy is bound by it once."""
    strict = Residency("strict", "eu")
    plans = planner(
        entry("one", "a://s#a", residency=strict),
        entry("two", "a://s#b", residency=strict),
        entry("loose", "a://s#c", residency=Residency("advisory")),
        entry("broken", "nowhere://s", residency=strict),
    )
    (part,) = plans.plan("a://s").parts
    assert part.residencies == (strict, Residency("advisory", "eu"))
    (part,) = plans.plan("a://t").parts
    assert part.residencies == ()


def test_the_policy_of_an_entry_that_cannot_be_read():
    """A mistake in an entry's reference does not free the secret that it means from its policy."""
    strict = Residency("strict", "eu")
    plans = planner(
        ProviderSpec("base", "django_secret_registry.BaseProvider"),
        entry("mistaken", "base://s?version=9", residency=strict),
    )
    with pytest.raises(InvalidReference, match="version"):
        plans.plan("mistaken")
    (part,) = plans.plan("base://s").parts
    assert part.residencies == (strict,)


def test_an_unusable_alias():
    """An alias with a mistake raises it for each of its references, and for no other."""
    plans = planner(alias("bad", SCRIPT, problem="no BACKEND"), entry("e", "bad://s"))
    for text in ("bad://s", "e"):
        with pytest.raises(InvalidProvider, match="no BACKEND"):
            plans.plan(text)
    assert plans.plan("a://s")
