"""``conf.parse``: what it makes of a good setting, and what it says about a bad one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from django.utils.functional import SimpleLazyObject
from hypothesis import given
from hypothesis import strategies as st

from django_secret_registry import SecretRef, secret
from django_secret_registry.conf import Id, Mistake, load, parse
from django_secret_registry.containers import LiveDict, LiveList
from django_secret_registry.lifecycle import CachePolicy
from django_secret_registry.providers import Fence
from django_secret_registry.residency import Residency
from django_secret_registry.rules import CACHE, ENTRY, FLEET, PROVIDER, REGISTRY
from django_secret_registry.specs import FleetSpec, RegistryConfig
from tests.canary import CANARY, canary

ENV = "django_secret_registry.providers.env.EnvProvider"


def project(**keys: Any) -> dict[str, Any]:
    """Return a setting with the alias ``env``, two entries, and these keys on top."""
    return {
        "PROVIDERS": {"env": {"BACKEND": ENV}},
        "SECRETS": {"stripe": "env://STRIPE", "smtp": {"MAP": {"user": "env://SMTP_USER"}}},
        **keys,
    }


def alias(**keys: Any) -> dict[str, Any]:
    """Return a setting whose alias ``env`` has these keys too."""
    return project(PROVIDERS={"env": {"BACKEND": ENV, **keys}})


def entry(item: Any) -> dict[str, Any]:
    """Return a setting with one more entry, ``it``."""
    return project(SECRETS={**project()["SECRETS"], "it": item})


def mistakes(setting: Any, environ: Mapping[str, str] | None = None) -> list[Mistake]:
    return parse(setting, environ or {})[1]


def test_every_key_is_read() -> None:
    """Each key of the setting ends up in the configuration, typed and in seconds."""
    options = {"session": {"profile_name": "prod"}}
    bus = {"url": "redis://localhost"}

    def rebind(**kwargs: Any) -> None:
        """Stand for a project's own function."""

    config, found = parse(
        {
            "REGION": "eu-central-1",
            "PROVIDERS": {
                "env": {"BACKEND": ENV},
                "aws": {
                    "BACKEND": "django_secret_registry.providers.aws.SecretsManagerProvider",
                    "REGION": "eu-central-1",
                    "TTL": 3600,
                    "OPTIONS": options,
                    "ALLOW": ["prod/*"],
                    "REGIONS": ("eu-central-1", "-"),
                    "PROJECTS": ["123456789012"],
                    "RESIDENCY": "advisory",
                    "ALLOWED_REGIONS": ["eu-west-1"],
                },
            },
            "SECRETS": {
                "stripe": "aws://prod/stripe#api_key",
                "maps_key": {"REF": "env://MAPS", "TEMPLATES": True, "TTL": 60},
                "smtp": {"MAP": {"user": "aws://prod/smtp#user", "password": "env://SMTP"}},
                "patients": {
                    "REF": "aws://eu/patients",
                    "REGION": "eu-central-1",
                    "RESIDENCY": "strict",
                    "ALLOWED_REGIONS": ["eu-west-1"],
                },
            },
            "CACHE": {
                "TTL": 60,
                "JITTER": 0,
                "REFRESH_AHEAD": 1,
                "MAX_STALE": 0,
                "NEGATIVE_TTL": 1,
                "SOFT_TIMEOUT": 0.5,
                "FETCH_TIMEOUT": 5,
                "SAFETY_MARGIN": 30,
                "MAX_ENTRIES": 10,
            },
            "FLEET": {"BACKEND": "a.Bus", "OPTIONS": bus, "MODE": "strict", "LEASE": 5},
            "WARM_UP": True,
            "ROTATION_WINDOW": 20,
            "OFFLINE": True,
            "REBIND": ["SIMPLE_JWT", rebind],
        },
        {},
    )
    assert found == []
    aws, patients = config.providers["aws"], config.entries["patients"]
    assert (aws.region, aws.ttl, aws.problem) == ("eu-central-1", 3600.0, "")
    assert aws.options is options
    assert aws.fence == Fence(("prod/*",), ("eu-central-1", ""), ("123456789012",))
    assert aws.residency == Residency("advisory", "eu-central-1", ("eu-west-1",))
    assert config.entries["stripe"].ref == SecretRef.parse("aws://prod/stripe#api_key")
    assert config.entries["maps_key"].templates
    assert config.entries["maps_key"].ttl == 60.0
    assert config.entries["smtp"].members == {
        "user": SecretRef.parse("aws://prod/smtp#user"),
        "password": SecretRef.parse("env://SMTP"),
    }
    assert (patients.region, patients.residency) == (
        "eu-central-1",
        Residency("strict", "eu-central-1", ("eu-west-1",)),
    )
    assert config.cache == CachePolicy(60.0, 0.0, 1.0, 0.0, 1.0, 0.5, 5.0, 30.0, 10)
    assert config.fleet == FleetSpec("a.Bus", bus, "strict", 5.0)
    assert (config.region, config.warm_up, config.offline) == ("eu-central-1", True, True)
    assert (config.rotation_window, config.rebind) == (20.0, ("SIMPLE_JWT", rebind))


@pytest.mark.parametrize("setting", [None, {}])
def test_no_setting_is_an_empty_configuration(setting: Any) -> None:
    """A project without ``SECRET_REGISTRY`` has no provider and no mistake."""
    assert parse(setting, {}) == (RegistryConfig(), [])


def test_none_means_not_given() -> None:
    """``None`` leaves the default at every key, so that ``os.environ.get(...)`` can stand there."""
    setting = project(
        **dict.fromkeys(set(REGISTRY) - {"PROVIDERS", "SECRETS", "CACHE"}),
        CACHE=dict.fromkeys(CACHE),
    )
    setting["PROVIDERS"]["env"] = {**dict.fromkeys(PROVIDER), "BACKEND": ENV}
    setting["SECRETS"]["it"] = {**dict.fromkeys(ENTRY), "REF": "env://IT"}
    config, found = parse(setting, {})
    plain = parse(entry("env://IT"), {})[0]
    assert found == []
    assert config == plain
    assert config.cache == CachePolicy()


def test_the_tables_name_the_fields() -> None:
    """A key of CACHE and FLEET is the upper-case name of a field, which is how it is handed on."""
    assert [key.lower() for key in CACHE] == list(CachePolicy._fields)
    assert [key.lower() for key in FLEET] == list(FleetSpec._fields)


def test_options_are_handed_on_as_they_are() -> None:
    """A secret in OPTIONS stays a marker in its live container until the provider is built."""
    options = LiveDict(token=secret("env://TOKEN"))
    setting = project(
        PROVIDERS={"env": {"BACKEND": ENV}, "vault": {"BACKEND": ENV, "OPTIONS": options}}
    )
    config, found = parse(setting, {})
    assert found == []
    assert config.providers["vault"].options is options


@pytest.mark.parametrize(
    ("value", "offline"),
    [
        *((value, True) for value in ("1", "true", "YES", " on ")),
        *((value, False) for value in ("0", "false", "Off", "no", "")),
    ],
)
def test_the_environment_switches_offline_mode(value: str, *, offline: bool) -> None:
    """``SECRET_REGISTRY_OFFLINE`` turns offline mode on; a value for "off" leaves the setting."""
    environ = {"SECRET_REGISTRY_OFFLINE": value}
    assert parse({}, environ)[0].offline is offline
    assert parse({"OFFLINE": True}, environ)[0].offline
    assert mistakes({}, environ) == []


def test_a_strange_switch_is_a_mistake() -> None:
    """A value of ``SECRET_REGISTRY_OFFLINE`` that is neither on nor off is told, and not shown."""
    config, found = parse({}, {"SECRET_REGISTRY_OFFLINE": canary("switch")})
    assert not config.offline
    assert [one.id for one in found] == [Id.WRONG_VALUE]
    assert "SECRET_REGISTRY_OFFLINE" in found[0].about
    assert CANARY not in str(found)


# -- entries that name entries ---------------------------------------------------------------------


def test_an_entry_may_name_another() -> None:
    """REF and members of a MAP follow the names of entries, to the secret at the end."""
    setting = project(
        SECRETS={
            "a": "b",
            "b": {"REF": "c", "REGION": "eu-west-1", "TTL": 60},
            "c": {"REF": "env://C?ttl=90", "TTL": 120},
            "d": {"MAP": {"x": "c", "y": "env://Y"}},
            "e": {"REF": "f", "REGION": "eu-north-1"},
            "f": {"REF": "env://F?region=eu-west-3", "REGION": "eu-west-2"},
        }
    )
    config, found = parse(setting, {})
    assert found == []
    entries = config.entries
    assert entries["a"].ref == SecretRef.parse("env://C?region=eu-west-1&ttl=60")
    assert entries["b"].ref == SecretRef.parse("env://C?ttl=90")
    assert (entries["b"].region, entries["b"].ttl) == ("eu-west-1", 60.0)
    assert entries["d"].members == {
        "x": SecretRef.parse("env://C?ttl=90"),
        "y": SecretRef.parse("env://Y"),
    }
    assert entries["e"].ref == SecretRef.parse("env://F?region=eu-west-3")


# -- mistakes --------------------------------------------------------------------------------------

BAD = canary("value")
MARKER = secret("env://MARKER")
NOT_SECONDS: list[Any] = [
    MARKER,
    -1,
    -0.5,
    True,
    False,
    BAD,
    float("nan"),
    float("inf"),
    10**400,
    [1],
    {},
]
NOT_LISTS: list[Any] = [MARKER, "prod/*", 1, {"a": 1}, [1], [None], [b"x"], [["x"]], True]
NOT_REGIONS: list[Any] = [MARKER, BAD + "/", "eu west", "eu/west", "-eu", 1, True, ["eu"], b"eu"]
NOT_DICTS: list[Any] = [MARKER, BAD, 1, True, [("a", "b")], ("a",), {"a"}]
NOT_OPTIONS: list[Any] = [*NOT_DICTS, {1: "a"}, {MARKER: "a"}, {None: "a"}, {b"a": "a"}]
NOT_FLAGS: list[Any] = [MARKER, 1, 0, "True", BAD, [], {}]
NOT_PATHS: list[Any] = [MARKER, "Provider", BAD, "a.b-c", "a..b", "", 1, True, object, ["a.b"]]
NOT_RESIDENCIES: list[Any] = [MARKER, "Strict", BAD, True, 1, ["strict"], ""]
NOT_TEXT: list[Any] = [MARKER, 1, True, b"env://A", ["env://A"], {}]
NOT_FRACTIONS: list[Any] = [MARKER, -0.1, 1.5, True, BAD, float("nan"), 10**400]

WRONG: list[tuple[str, list[Any], Any]] = [
    ("{}", NOT_DICTS, lambda v: v),
    ("{}['REGION']", NOT_REGIONS, lambda v: project(REGION=v)),
    ("{}['PROVIDERS']", NOT_DICTS, lambda v: {"PROVIDERS": v}),
    ("{}['SECRETS']", NOT_DICTS, lambda v: {"SECRETS": v}),
    ("{}['WARM_UP']", NOT_FLAGS, lambda v: project(WARM_UP=v)),
    ("{}['OFFLINE']", NOT_FLAGS, lambda v: project(OFFLINE=v)),
    ("{}['ROTATION_WINDOW']", NOT_SECONDS, lambda v: project(ROTATION_WINDOW=v)),
    ("{}['REBIND']", ["X", 1, [1], LiveList([MARKER]), len, {"X": 1}], lambda v: project(REBIND=v)),
    ("{}['PROVIDERS']['env']", NOT_DICTS, lambda v: project(PROVIDERS={"env": v})),
    ("{}['PROVIDERS']['env']['BACKEND']", NOT_PATHS, lambda v: alias(BACKEND=v)),
    ("{}['PROVIDERS']['env']['REGION']", NOT_REGIONS, lambda v: alias(REGION=v)),
    ("{}['PROVIDERS']['env']['TTL']", NOT_SECONDS, lambda v: alias(TTL=v)),
    ("{}['PROVIDERS']['env']['OPTIONS']", NOT_OPTIONS, lambda v: alias(OPTIONS=v)),
    ("{}['PROVIDERS']['env']['ALLOW']", NOT_LISTS, lambda v: alias(ALLOW=v)),
    (
        "{}['PROVIDERS']['env']['REGIONS']",
        [*NOT_LISTS, ["a b"], LiveList([MARKER])],
        lambda v: alias(REGIONS=v),
    ),
    ("{}['PROVIDERS']['env']['PROJECTS']", NOT_LISTS, lambda v: alias(PROJECTS=v)),
    ("{}['PROVIDERS']['env']['RESIDENCY']", NOT_RESIDENCIES, lambda v: alias(RESIDENCY=v)),
    ("{}['PROVIDERS']['env']['ALLOWED_REGIONS']", NOT_LISTS, lambda v: alias(ALLOWED_REGIONS=v)),
    ("{}['SECRETS']['it']", [MARKER, 1, True, b"env://A", [1]], entry),
    ("{}['SECRETS']['it']['REF']", NOT_TEXT, lambda v: entry({"REF": v})),
    ("{}['SECRETS']['it']['MAP']", NOT_DICTS, lambda v: entry({"MAP": v})),
    ("{}['SECRETS']['it']['MAP']['x']", [*NOT_TEXT, None], lambda v: entry({"MAP": {"x": v}})),
    *(
        (
            f"{{}}['SECRETS']['it']['{key}']",
            values,
            lambda v, k=key: entry({"REF": "env://A", k: v}),
        )
        for key, values in {
            "TEMPLATES": NOT_FLAGS,
            "TTL": [*NOT_SECONDS, 0],
            "REGION": NOT_REGIONS,
            "RESIDENCY": NOT_RESIDENCIES,
            "ALLOWED_REGIONS": NOT_LISTS,
        }.items()
    ),
    ("{}['CACHE']", NOT_DICTS, lambda v: project(CACHE=v)),
    *(
        (f"{{}}['CACHE']['{key}']", values, lambda v, k=key: project(CACHE={k: v}))
        for key, values in {
            "TTL": [*NOT_SECONDS, 0],
            "JITTER": [*NOT_FRACTIONS, 1],
            "REFRESH_AHEAD": [*NOT_FRACTIONS, 0],
            "MAX_STALE": NOT_SECONDS,
            "NEGATIVE_TTL": NOT_SECONDS,
            "SOFT_TIMEOUT": NOT_SECONDS,
            "FETCH_TIMEOUT": [*NOT_SECONDS, 0],
            "SAFETY_MARGIN": NOT_SECONDS,
            "MAX_ENTRIES": [*NOT_SECONDS, 0, 1.5],
        }.items()
    ),
    ("{}['FLEET']", NOT_DICTS, lambda v: project(FLEET=v)),
    *(
        (
            f"{{}}['FLEET']['{key}']",
            values,
            lambda v, k=key: project(FLEET={"BACKEND": "a.B", k: v}),
        )
        for key, values in {
            "BACKEND": NOT_PATHS,
            "OPTIONS": NOT_OPTIONS,
            "MODE": ["Strict", BAD, 1, True],
            "LEASE": [*NOT_SECONDS, 0],
        }.items()
    ),
]


@pytest.mark.parametrize(("where", "values", "setting"), WRONG, ids=[row[0] for row in WRONG])
def test_a_wrong_value_is_named_by_its_place(where: str, values: list[Any], setting: Any) -> None:
    """A value of the wrong type or out of bounds is one mistake, at its place, and not shown."""
    for value in values:
        found = [one for one in mistakes(setting(value)) if one.id == Id.WRONG_VALUE]
        assert [one.about for one in found] == [where.format("SECRET_REGISTRY")], repr(value)
        assert found[0].hint.startswith("Write ")
        assert CANARY not in str(found)


@pytest.mark.parametrize("item", [5, {"REF": 5}, {"MAP": {"x": 5}}], ids=["entry", "REF", "MAP"])
def test_where_a_reference_belongs_the_hint_shows_one(item: Any) -> None:
    """An entry of the wrong type is told to be a reference, and not that it must be a dict."""
    (found,) = mistakes(entry(item))
    assert found.hint.startswith('Write a reference, such as "aws://prod/db#password"')


@pytest.mark.parametrize("setting", [row[2] for row in WRONG], ids=[row[0] for row in WRONG])
def test_what_fails_when_it_is_looked_at_is_a_mistake(setting: Any) -> None:
    """A lazy object whose function raises is a wrong value, not the end of the process."""

    def fail() -> None:
        raise RuntimeError(BAD)

    broken = SimpleLazyObject(fail)
    found = [one for one in mistakes(setting(broken)) if one.id == Id.WRONG_VALUE]
    assert len(found) == 1
    assert "SimpleLazyObject" in found[0].message
    assert CANARY not in str(found)


UNKNOWN_KEYS = [
    (project(PROVIDER={}), "SECRET_REGISTRY", "'PROVIDERS'"),
    (project(cache={}), "SECRET_REGISTRY", "'CACHE'"),
    (alias(ALOW=[]), "SECRET_REGISTRY['PROVIDERS']['env']", "'ALLOW'"),
    (
        entry({"REF": "env://A", "TEMPLATE": True}),
        "SECRET_REGISTRY['SECRETS']['it']",
        "'TEMPLATES'",
    ),
    (project(CACHE={"REFRESHAHEAD": 1}), "SECRET_REGISTRY['CACHE']", "'REFRESH_AHEAD'"),
    (project(FLEET={"BACKEND": "a.B", "LEASES": 1}), "SECRET_REGISTRY['FLEET']", "'LEASE'"),
    (alias(**{"x" * 500: 1}), "SECRET_REGISTRY['PROVIDERS']['env']", "Known are BACKEND"),
    ({**project(), 3: 1}, "SECRET_REGISTRY", "Known are REGION"),
    ({**project(), secret("env://A"): 1}, "SECRET_REGISTRY", "Known are REGION"),
]


@pytest.mark.parametrize(("setting", "about", "hint"), UNKNOWN_KEYS)
def test_an_unknown_key_suggests_a_known_one(setting: Any, about: str, hint: str) -> None:
    """A key that is not known is a mistake at every level, with the one that may be meant."""
    (mistake,) = mistakes(setting)
    assert (mistake.id, mistake.about) == (Id.UNKNOWN_KEY, about)
    assert hint in mistake.hint
    assert len(mistake.message) < 100


CYCLE = project(
    PROVIDERS={
        "vault": {"BACKEND": ENV, "OPTIONS": LiveDict(token=secret("aws://token"))},
        "aws": {"BACKEND": ENV, "OPTIONS": {"client": [LiveDict(key=secret("key"))]}},
        "own": {"BACKEND": ENV, "OPTIONS": LiveDict(key=secret("own://key"))},
        "env": {"BACKEND": ENV, "OPTIONS": LiveDict(key=secret("aws://key"))},
    },
    SECRETS={"key": {"MAP": {"x": "vault://key"}}},
)

ONE_EACH: list[tuple[Any, Id, str]] = [
    (project(PROVIDERS={"env": {"REGION": "eu"}}), Id.INCOMPLETE, "['PROVIDERS']['env']"),
    (project(FLEET={"LEASE": 1}), Id.INCOMPLETE, "['FLEET']"),
    (entry({}), Id.INCOMPLETE, "['SECRETS']['it']"),
    (entry({"REF": "env://A", "MAP": {"x": "env://A"}}), Id.INCOMPLETE, "['SECRETS']['it']"),
    (entry({"MAP": {}}), Id.INCOMPLETE, "['SECRETS']['it']['MAP']"),
    ({"PROVIDERS": {"my alias": {"BACKEND": ENV}}}, Id.BAD_NAME, "['PROVIDERS']['my alias']"),
    ({"PROVIDERS": {"": {"BACKEND": ENV}}}, Id.BAD_NAME, "['PROVIDERS']['']"),
    ({"PROVIDERS": {1: {"BACKEND": ENV}}}, Id.BAD_NAME, "['PROVIDERS']"),
    (project(SECRETS={"a b": "env://A"}), Id.BAD_NAME, "['SECRETS']['a b']"),
    (project(SECRETS={"a%41": "env://A"}), Id.BAD_NAME, "['SECRETS']['a%41']"),
    (project(SECRETS={"env://A": "env://A"}), Id.BAD_NAME, "['SECRETS']['env://A']"),
    (project(SECRETS={None: "env://A"}), Id.BAD_NAME, "['SECRETS']"),
    (entry({"MAP": {"x": "env://A", 1: "env://A"}}), Id.BAD_NAME, "['SECRETS']['it']['MAP']"),
    (entry(f"env://A?token={BAD}"), Id.BAD_REFERENCE, "['SECRETS']['it']"),
    (entry(f"{BAD} {BAD}"), Id.BAD_REFERENCE, "['SECRETS']['it']"),
    (entry({"MAP": {"x": "env://%" + BAD}}), Id.BAD_REFERENCE, "['SECRETS']['it']['MAP']['x']"),
    (entry("smtp"), Id.BAD_REFERENCE, "['SECRETS']['it']"),
    (entry(BAD), Id.UNKNOWN_TARGET, "['SECRETS']['it']"),
    (entry(f"{BAD}://x"), Id.UNKNOWN_TARGET, "['SECRETS']['it']"),
    (entry(f"postgres://user:{BAD}@host"), Id.UNKNOWN_TARGET, "['SECRETS']['it']"),
    (entry({"MAP": {"x": BAD}}), Id.UNKNOWN_TARGET, "['SECRETS']['it']['MAP']['x']"),
    (entry("it"), Id.CYCLE, "['SECRETS']['it']"),
    (entry({"MAP": {"x": "env://A", "y": "it"}}), Id.CYCLE, "['SECRETS']['it']['MAP']['y']"),
]


@pytest.mark.parametrize(("setting", "kind", "about"), ONE_EACH)
def test_a_mistake_is_told_once_with_a_hint(setting: Any, kind: Id, about: str) -> None:
    """Each kind of mistake names the alias or entry, says what to write, and shows no value."""
    (mistake,) = mistakes(setting)
    assert (mistake.id, mistake.about) == (kind, f"SECRET_REGISTRY{about}")
    assert mistake.message
    assert mistake.hint
    assert CANARY not in str(mistake)


def test_a_close_name_is_suggested() -> None:
    """A reference that misspells its alias or entry is told the right one, and all there are."""
    (mistake,) = mistakes(entry("emv://A"))
    assert mistake.hint == "Did you mean 'env'? PROVIDERS has: env."
    (mistake,) = mistakes(entry("strip"))
    assert mistake.hint == "Did you mean 'stripe'? SECRETS has: stripe, smtp, it."


def test_entries_in_a_circle_are_mistakes() -> None:
    """Every entry from which one gets into a circle is named, however long the circle is."""
    chain = {f"e{number}": f"e{number + 1}" for number in range(100)}
    found = mistakes(project(SECRETS={**chain, "e100": "e99"}))
    assert {one.id for one in found} == {Id.CYCLE}
    assert len(found) == 101


def test_aliases_that_need_their_own_secrets_are_mistakes() -> None:
    """A circle of markers in OPTIONS is found through entries and nested containers."""
    config, found = parse(CYCLE, {})
    places = [f"SECRET_REGISTRY['PROVIDERS']['{name}']" for name in ("vault", "aws", "own")]
    assert [(one.id, one.about) for one in found] == [(Id.CYCLE, place) for place in places]
    assert all(one.hint for one in found)
    assert not config.providers["env"].problem  # it needs aws, and nobody in the circle needs it


def test_a_mistake_breaks_its_alias_only() -> None:
    """The alias of a mistake gets it as its problem; the other aliases stay usable."""
    good = {"BACKEND": ENV}
    setting = {
        "PROVIDERS": {"good": good, "bad": {**good, "TTL": -1}, "none": 1, "not a name": good}
    }
    providers = parse(setting, {})[0].providers
    assert {name for name, spec in providers.items() if spec.problem} == {
        "bad",
        "none",
        "not a name",
    }
    assert "['bad']['TTL']" in providers["bad"].problem


def test_a_mistake_breaks_its_entry_only() -> None:
    """The entry of a mistake gets it as its problem, and keeps nothing that may be a secret."""
    secrets = {
        "ok": "env://A",
        "bad": {"REF": "env://A", "TTL": -1},
        "lost": BAD,
        "map": {"MAP": {}},
    }
    secrets["half"] = {"MAP": {"good": "env://A", "bad": BAD}}
    config, _ = parse(project(SECRETS=secrets), {})
    assert {name for name, spec in config.entries.items() if spec.problem} == set(secrets) - {"ok"}
    assert CANARY not in repr(config)


def test_a_mistaken_policy_keeps_everybody_out() -> None:
    """A RESIDENCY that cannot be read is taken for ``strict``, of an alias and of an entry."""
    assert parse(alias(RESIDENCY="strikt"), {})[0].providers["env"].residency.policy == "strict"
    spec = parse(entry({"REF": "env://A", "RESIDENCY": True}), {})[0].entries["it"]
    assert spec.residency.policy == "strict"


def test_mistakes_leave_defaults() -> None:
    """A mistake in another key leaves its default; a broken FLEET leaves none."""
    wrong = dict.fromkeys(("TTL", "JITTER", "MAX_ENTRIES"), "x")
    setting = project(CACHE=wrong, REGION=1, OFFLINE=1, WARM_UP="yes", FLEET={"LEASE": -1})
    assert parse(setting, {})[0] == parse(project(), {})[0]


def test_load_reads_the_project() -> None:
    """``load`` takes the project's setting unless it is given one."""
    assert list(load().providers) == ["memory"]
    assert list(load(project()).providers) == ["env"]


# -- anything --------------------------------------------------------------------------------------

KEYS = sorted({*REGISTRY, *PROVIDER, *ENTRY, *CACHE, *FLEET})
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.binary(),
    st.text().map(lambda text: f"{CANARY}{text}"),
    st.sampled_from([f"{CANARY}://x", "env://A", "env", "a", "b", "strict", "eu", ENV, "a.b", "-"]),
    st.sampled_from([secret("env://A"), secret("a"), secret("nobody://a")]),
)
names = st.one_of(
    st.sampled_from([*KEYS, "env", "a", "b", MARKER]), st.text(), st.integers(), st.none()
)
anything = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(names, inner, max_size=5),
    ),
    max_leaves=20,
)
items = st.one_of(anything, st.dictionaries(st.sampled_from(KEYS), anything, max_size=8))
registries = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(REGISTRY, anything),
        "PROVIDERS": st.dictionaries(names, items, max_size=4),
        "SECRETS": st.dictionaries(names, items, max_size=4),
        "CACHE": st.dictionaries(st.sampled_from(sorted(CACHE)), leaves),
        "FLEET": st.dictionaries(st.sampled_from(sorted(FLEET)), leaves),
    },
)


@given(setting=st.one_of(anything, registries), switch=st.text())
def test_parsing_is_total(setting: Any, switch: str) -> None:
    """Whatever stands in the setting, it is read without an error and no value is shown."""
    config, found = parse(setting, {"SECRET_REGISTRY_OFFLINE": switch})
    assert isinstance(config, RegistryConfig)
    problems = [spec.problem for spec in (*config.providers.values(), *config.entries.values())]
    assert CANARY not in str(found) + str(problems)
    assert all(one.about and one.message and one.hint for one in found)
