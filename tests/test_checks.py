"""The system checks: what ``manage.py check`` says, all of it at once."""

from __future__ import annotations

import contextlib
import importlib
import io
import pkgutil
import re
import tomllib
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.checks import CheckMessage
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.test import override_settings
from hypothesis import given

from django_secret_registry import BaseProvider, SecretError, providers, registry, secret
from django_secret_registry.checks import check_configuration
from django_secret_registry.fleet.bus import Bus
from django_secret_registry.providers import Problem
from tests.canary import CANARY, canary
from tests.test_conf import anything, registries

PROVIDERS = "django_secret_registry.providers"
BAD = canary("misplaced")


class StrictProvider(BaseProvider):
    """A third party's provider, which looks at the value of an option."""

    def __init__(self, *, alias: str, region: str, mode: str, url: str = "") -> None:
        super().__init__(alias=alias, region=region)

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> list[Problem]:
        problems = super().check(options)
        if options.get("mode", "fast") not in ("fast", "slow"):
            problems.append(Problem("option 'mode' is not known", "Write fast or slow."))
        return problems


class NeedyProvider(BaseProvider):
    """A third party's provider, whose libraries are not all installed."""

    requires = ("pytest", "no-such-sdk", "nor-this")


class SomeBus(Bus):
    """Stands for the class of a bus."""

    def __init__(self, *, url: str) -> None:
        raise AssertionError("no check makes one")


FLEET = "django_secret_registry.fleet"
STRICT = f"{__name__}.StrictProvider"
MEMORY = {"BACKEND": f"{PROVIDERS}.memory.MemoryProvider"}


def told(**settings: Any) -> list[CheckMessage]:
    """Return what the checks say of a project with these settings."""
    settings.setdefault("SECRET_REGISTRY", {"PROVIDERS": {"memory": MEMORY}})
    with override_settings(**settings):
        return check_configuration()


def of_alias(**keys: Any) -> dict[str, Any]:
    """Return a project with the alias ``it``."""
    return {"SECRET_REGISTRY": {"PROVIDERS": {"memory": MEMORY, "it": keys}}}


def of_options(backend: str, **options: Any) -> dict[str, Any]:
    """Return a project with the alias ``it`` and these OPTIONS."""
    return of_alias(BACKEND=backend, OPTIONS=options)


def of_entry(item: Any, **keys: Any) -> dict[str, Any]:
    """Return a project with the entry ``it`` and these keys of the alias ``aws``."""
    aws = {"BACKEND": f"{PROVIDERS}.aws.SecretsManagerProvider", **keys}
    file = {"BACKEND": f"{PROVIDERS}.file.FileProvider", "OPTIONS": {"path": "/run/secrets"}}
    providers = {"memory": MEMORY, "aws": aws, "file": file}
    return {"SECRET_REGISTRY": {"PROVIDERS": providers, "SECRETS": {"it": item}}}


@pytest.mark.parametrize("setting", [{"PROVIDERS": {"memory": MEMORY}}, {}, None])
def test_a_good_project_hears_nothing(setting: Any) -> None:
    """A valid setting, an empty one and none at all have nothing to be told."""
    assert told(SECRET_REGISTRY=setting) == []


@override_settings()
def test_a_project_without_the_setting_hears_nothing() -> None:
    """The app may stand in INSTALLED_APPS before SECRET_REGISTRY is written."""
    del settings.SECRET_REGISTRY
    assert check_configuration() == []


def test_the_documented_project_hears_nothing(settings: Any) -> None:
    """Every key of the documentation's example is accepted, and its references too."""
    settings.STRIPE_KEY = secret("stripe")
    settings.NESTED = {"list": [secret("gcp://maps-key"), secret("aws://eu/patients#name")]}
    settings.SECRET_REGISTRY = {
        "REGION": "eu-central-1",
        "PROVIDERS": {
            "env": {"BACKEND": f"{PROVIDERS}.env.EnvProvider"},
            "aws": {
                "BACKEND": f"{PROVIDERS}.aws.SecretsManagerProvider",
                "REGION": "eu-central-1",
                "TTL": 3600,
                "OPTIONS": {"session": {"profile_name": "prod"}},
                "ALLOW": ["prod/*", "eu/*"],
                "REGIONS": ["eu-central-1", "eu-west-1"],
            },
            "gcp": {
                "BACKEND": f"{PROVIDERS}.gcp.SecretManagerProvider",
                "OPTIONS": {"project": "acme-prod"},
            },
        },
        "SECRETS": {
            "stripe": "aws://prod/stripe#api_key",
            "maps_key": {"REF": "gcp://maps-key", "TEMPLATES": True},
            "smtp": {"MAP": {"user": "aws://prod/smtp#user", "password": "aws://prod/smtp#pass"}},
            "patients": {
                "REF": "aws://eu/patients",
                "REGION": "eu-central-1",
                "RESIDENCY": "strict",
                "ALLOWED_REGIONS": ["eu-west-1"],
            },
        },
        "FLEET": {"BACKEND": f"{__name__}.SomeBus", "OPTIONS": {"url": "x"}, "LEASE": 10},
    }
    assert check_configuration() == []


def of_fleet(bus: str, **options: Any) -> dict[str, Any]:
    return {"SECRET_REGISTRY": {"FLEET": {"BACKEND": f"{FLEET}.{bus}", "OPTIONS": options}}}


CASES: dict[str, tuple[dict[str, Any], str, str]] = {
    # the settings, the id, and what the text names
    "value": (of_alias(**MEMORY, TTL=-1), "E001", "['it']['TTL']"),
    "key": (of_alias(**MEMORY, TLT=1), "E002", "['it'] has an unknown key, 'TLT'"),
    "no backend": (of_alias(TTL=1), "E003", "['it'] has no BACKEND"),
    "name": ({"SECRET_REGISTRY": {"PROVIDERS": {"i t": MEMORY}}}, "E004", "['i t']"),
    "reference": (of_entry(f"aws://a?{BAD}"), "E005", "['SECRETS']['it']"),
    "alias": (of_entry(f"{BAD}://a"), "E006", "['SECRETS']['it']"),
    "circle": (of_entry({"MAP": {"x": "it"}}), "E007", "['it']['MAP']['x']"),
    "module": (of_alias(BACKEND="no.such.Thing"), "E008", "['it']['BACKEND']"),
    "attribute": (of_alias(BACKEND=f"{PROVIDERS}.env.Nobody"), "E008", "['it']['BACKEND']"),
    "function": (of_alias(BACKEND="os.path.join"), "E008", "['it']['BACKEND'] is no subclass"),
    "class": (of_alias(BACKEND="io.StringIO"), "E008", "['it']['BACKEND'] is no subclass"),
    "broken module": (of_alias(BACKEND="tests.broken_backend.X"), "E008", "cannot be imported"),
    "option": (of_options(MEMORY["BACKEND"], sekrets=BAD), "E009", "'sekrets'"),
    "no option": (of_options(f"{PROVIDERS}.file.FileProvider"), "E009", "'path' is missing"),
    "option's value": (of_options(STRICT, mode=BAD), "E009", "'mode' is not known"),
    "secret option": (of_options(STRICT, mode="fast", ulr=secret("memory://a")), "E009", "'ulr'"),
    "refused": (of_entry("file://a?version=1"), "E005", "['SECRETS']['it'] is refused"),
    "refused name": (of_entry({"MAP": {"x": "file://../a"}}), "E005", "['SECRETS']['it']"),
    "outside ALLOW": (of_entry("aws://dev/a", ALLOW=["prod/*"]), "E005", "outside ALLOW"),
    "outside REGIONS": (
        of_entry({"REF": "aws://a", "REGION": "us-east-1"}, REGIONS=["eu-central-1"]),
        "E005",
        "outside REGIONS",
    ),
    "bus": ({"SECRET_REGISTRY": {"FLEET": {"BACKEND": "no.such.Bus"}}}, "E008", "['FLEET']"),
    "bus's option": (
        {"SECRET_REGISTRY": {"FLEET": {"BACKEND": f"{FLEET}.redis.RedisBus"}}},
        "E009",
        "['FLEET']['OPTIONS'] cannot be used: option 'url' is missing",
    ),
    "bus's URL": (of_fleet("redis.RedisBus", url=BAD), "E009", "is no URL of a Redis"),
    "bus's cache": (of_fleet("cache.CacheBus"), "E009", "each process has one of its own"),
    "no such cache": (of_fleet("cache.CacheBus", cache=BAD), "E009", "names no cache"),
    "bus's database": (of_fleet("database.DatabaseBus", using=BAD), "E009", "names no database"),
    "in memory": (of_fleet("database.DatabaseBus"), "E009", "in-memory database"),
    "short lease": (
        {"SECRET_REGISTRY": {"FLEET": {"BACKEND": "a.B", "LEASE": 0.5}}},
        "E001",
        "LEASE",
    ),
    "no bus": (
        {"SECRET_REGISTRY": {"FLEET": {"BACKEND": "os.path.join"}}},
        "E008",
        "is no subclass of Bus",
    ),
    "marker's alias": ({"A": {"b": [secret(f"{BAD}://a")]}}, "E006", "settings.A['b'][0]"),
    "marker's entry": ({"A": secret(BAD)}, "E006", "settings.A names nothing"),
    "marker refused": ({"A": secret("memory://a?project=x")}, "E005", "settings.A is refused"),
    "marker in a set": ({"A": {"b": {secret("memory://a")}}}, "E010", "settings.A['b']"),
    "marker as a key": ({"A": {secret("memory://a"): 1}}, "E010", "settings.A"),
    "marker in a deque": ({"A": deque([secret("memory://a")])}, "W002", "settings.A[0]"),
    "strict": (of_entry({"REF": "aws://a", "RESIDENCY": "strict"}), "W003", "['SECRETS']['it']"),
    "strict alias": (of_alias(**MEMORY, RESIDENCY="strict"), "W003", "['PROVIDERS']['it']"),
    "regions": (of_alias(**MEMORY, ALLOWED_REGIONS=["eu"]), "W004", "['PROVIDERS']['it']"),
    "engine": (
        {"STORES": {"default": {"ENGINE": secret("memory://a")}}},
        "W006",
        "settings.STORES['default']['ENGINE'] names a class",
    ),
    "template engine": (
        {"TEMPLATES": [{"BACKEND": secret("memory://a")}]},
        "W006",
        "settings.TEMPLATES[0]['BACKEND']",
    ),
    "library": (of_alias(BACKEND=f"{__name__}.NeedyProvider"), "W005", "no-such-sdk and nor-this"),
    "offline": ({"SECRET_REGISTRY": {"OFFLINE": True}}, "I001", "Offline mode"),
}


@pytest.mark.parametrize(("project", "id_", "text"), CASES.values(), ids=CASES)
def test_each_mistake_has_an_id_a_place_and_a_hint(
    project: dict[str, Any], id_: str, text: str
) -> None:
    """A mistake is told once, under its id, with its alias or entry and what to write instead."""
    (message,) = told(**project)
    assert message.id == f"secret_registry.{id_}"
    assert text in message.msg
    assert message.hint
    assert CANARY not in str(message)
    assert message.is_serious() is id_.startswith("E")


def test_a_secret_in_logging_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    """LOGGING is read before any app is loaded, so a marker in it is refused."""
    # Not by override_settings: Django 6.1 then configures logging anew.
    monkeypatch.setattr(settings._wrapped, "LOGGING", {"filters": {"x": secret("memory://a")}})
    (message,) = check_configuration()
    assert message.id == "secret_registry.E010"
    assert "settings.LOGGING['filters']['x']" in message.msg
    assert message.hint


def test_what_a_backends_module_raises_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module that fails while it is imported is a mistake of its alias, without its text."""
    (tmp_path / "dying_backend.py").write_text(f"raise RuntimeError({BAD!r})")
    monkeypatch.syspath_prepend(tmp_path)
    (message,) = told(**of_alias(BACKEND="dying_backend.Provider"))
    assert "['it']['BACKEND'] cannot be imported: its module fails with RuntimeError" in message.msg
    assert CANARY not in str(message)


def test_what_a_backend_requires_is_what_an_extra_installs() -> None:
    """The libraries that the checks look for, by backend, are those of one of our extras."""
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    extras = [
        {re.split(r"[<>=\[]", requirement)[0] for requirement in requirements}
        for requirements in tomllib.loads(text)["project"]["optional-dependencies"].values()
    ]
    for module in pkgutil.iter_modules(providers.__path__, f"{providers.__name__}."):
        for backend in vars(importlib.import_module(module.name)).values():
            if isinstance(backend, type) and issubclass(backend, BaseProvider) and backend.requires:
                assert set(backend.requires) in extras, backend


def test_an_option_that_is_a_secret_is_not_looked_at() -> None:
    """Checks neither resolve a secret in OPTIONS nor complain about what it might be."""
    gcp = f"{PROVIDERS}.gcp.SecretManagerProvider"
    for project in (
        of_options(STRICT, mode=secret("memory://mode")),
        of_options(f"{PROVIDERS}.file.FileProvider", path=secret("memory://path")),
        {**of_options(gcp, project=secret("memory://p")), "KEY": secret("it://maps-key")},
    ):
        with override_settings(**project):
            assert check_configuration() == []
            assert not any(row.builds for row in registry.snapshot().providers)


def test_an_app_listed_earlier_is_named() -> None:
    """Apps before this one have read settings too early; a warning names them."""
    apps = ["django.contrib.contenttypes", "django.contrib.auth", "django_secret_registry"]
    (message,) = told(INSTALLED_APPS=apps)
    assert message.id == "secret_registry.W001"
    assert "django.contrib.contenttypes, django.contrib.auth before" in message.msg
    assert message.hint == 'Put "django_secret_registry" first.'
    assert (
        told(INSTALLED_APPS=["django_secret_registry.apps.SecretRegistryConfig", *apps[:2]]) == []
    )


def test_result_backend_of_celery():
    """CELERY_RESULT_BACKEND is a URL with a password, and no class."""
    assert told(CELERY_RESULT_BACKEND=secret("memory://a")) == []
    assert [one.id for one in told(SEARCH_BACKEND=secret("memory://a"))] == ["secret_registry.W006"]


@given(setting=anything | registries)
def test_nonsense_is_told_and_survived(setting: Any) -> None:
    """Whatever stands in the setting, the checks report it, and a use of it is a SecretError."""
    with override_settings(SECRET_REGISTRY=setting, KEY=secret("a")):
        told = check_configuration()
        assert CANARY not in "".join(f"{message.msg} {message.hint}" for message in told)
        registry.snapshot()
        registry.ready()
        for text in ("env://A", "a", "b", "nobody://a"):
            with contextlib.suppress(SecretError):  # the canary's own check looks at its text
                registry.get(text)


def test_check_reports_everything_at_once() -> None:
    """``manage.py check`` lists every mistake in one run, with ids and hints, and no value."""
    wrong: dict[str, Any] = {
        "PROVIDERS": {
            "one": {"BACKEND": "no.such.Provider", "TTL": BAD, "COLOUR": BAD},
            "two": {"BACKEND": f"{PROVIDERS}.file.FileProvider", "OPTIONS": {"pfad": BAD}},
            "three": BAD,
        },
        "SECRETS": {"four": BAD, "five": {"MAP": {"x": "five"}}, "six": f"two://{BAD}%"},
        "CACHE": {"TTL": -1, "JITTER": BAD},
        "FLEET": {"BACKEND": "no.such.Bus", "MODE": "available"},
        "REGION": f"{BAD}/",
        "COLOUR": BAD,
    }
    output = io.StringIO()
    with (
        override_settings(SECRET_REGISTRY=wrong, KEY=secret(f"nobody://{BAD}")),
        pytest.raises(SystemCheckError) as caught,
    ):
        call_command("check", stdout=output, stderr=output)
    text = str(caught.value)
    for id_, place in (
        ("E001", "['PROVIDERS']['one']['TTL']"),
        ("E002", "['PROVIDERS']['one'] has an unknown key, 'COLOUR'"),
        ("E008", "['PROVIDERS']['one']['BACKEND']"),
        ("E009", "['PROVIDERS']['two']['OPTIONS'] cannot be used: unknown option 'pfad'"),
        ("E009", "['PROVIDERS']['two']['OPTIONS'] cannot be used: option 'path' is missing"),
        ("E001", "['PROVIDERS']['three']"),
        ("E006", "['SECRETS']['four']"),
        ("E007", "['SECRETS']['five']['MAP']['x']"),
        ("E005", "['SECRETS']['six']"),
        ("E001", "['CACHE']['TTL']"),
        ("E001", "['CACHE']['JITTER']"),
        ("E008", "['FLEET']['BACKEND']"),
        ("E001", "['REGION']"),
        ("E002", "SECRET_REGISTRY has an unknown key, 'COLOUR'"),
    ):
        assert (
            f"(secret_registry.{id_}) SECRET_REGISTRY{place.removeprefix('SECRET_REGISTRY')}"
            in text
        )
    assert "(secret_registry.E006) settings.KEY" in text
    assert text.count("secret_registry.E") == text.count("HINT: ") == 15
    assert CANARY not in text + output.getvalue()
