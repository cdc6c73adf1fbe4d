"""Where markers stand in settings, and what is wrong with the place."""

from __future__ import annotations

import collections
import dataclasses
import functools
import types
from typing import NamedTuple

import pytest
from django.conf import settings as django_settings

from django_secret_registry import registry
from django_secret_registry.live import (
    LiveDict,
    LiveList,
    flaws,
    markers,
    raw,
    raw_setting,
    references,
    secret,
)
from tests.canary import canary
from tests.live_support import Script, configured

MARKER = secret("vault://key")


@pytest.fixture(autouse=True)
def vault(settings) -> Script:
    return configured(settings, {"key": canary("key")})


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    token: object


@dataclasses.dataclass
class Dataclass:
    token: object


class Named(NamedTuple):
    token: object


class Ordinary:
    def __init__(self, token: object) -> None:
        self.token = token


def test_references_by_place(settings, vault):
    """Each marker is found with its place as one would write it; nothing is fetched."""
    settings.KEY = MARKER
    settings.NESTED = {"default": {"PASSWORD": MARKER, "OPTIONS": {"l": [1, (MARKER,)]}}}
    settings.NESTED["again"] = settings.NESTED["default"]
    settings.NESTED[3] = {object: MARKER}
    found = {where: ref for where, ref in references().items() if not where.endswith("script']")}
    assert set(found.values()) == {"vault://key"}
    assert sorted(found) == [
        "settings.KEY",
        "settings.NESTED['again']['OPTIONS']['l'][1][0]",
        "settings.NESTED['again']['PASSWORD']",
        "settings.NESTED['default']['OPTIONS']['l'][1][0]",
        "settings.NESTED['default']['PASSWORD']",
        "settings.NESTED[3][<type>]",
    ]
    assert flaws() == []
    assert vault.fetched == []


def test_registry_knows_the_references_of_settings(settings, vault):
    """The registry, whose warm-up needs them, finds the references of settings."""
    settings.KEY = MARKER
    assert registry.references()["settings.KEY"] == "vault://key"
    registry.warm()
    assert vault.fetched == ["key"]


@pytest.mark.parametrize(
    ("value", "place", "word"),
    [
        ({MARKER}, " (in a set)", "set"),
        (frozenset([(1, MARKER)]), " (in a set)[1]", "set"),
        ({"a": {MARKER: 1}}, "['a'] (as a key)", "key"),
        ({(1, MARKER): 1}, " (as a key)[1]", "key"),
    ],
)
def test_places_where_no_reader_gets_a_value(settings, value, place, word):
    """A marker in a set or as a key of a dict is an error."""
    settings.BOX = value
    (found,) = flaws()
    assert (found.where, found.marker) == (f"settings.BOX{place}", MARKER)
    assert found.flaw.error
    assert word in found.flaw.message
    assert found.flaw.hint


@pytest.mark.parametrize(
    ("value", "place", "kind"),
    [
        (collections.deque([MARKER]), "[0]", "deque"),
        (collections.deque([{"a": MARKER}]), "[0]['a']", "deque"),
        (collections.OrderedDict(a=MARKER), "['a']", "OrderedDict"),
        (collections.UserDict(a=MARKER), ".data['a']", "UserDict"),
        (functools.partial(print, MARKER), ".args[0]", "partial"),
        (functools.partial(print, end=MARKER), ".keywords['end']", "partial"),
        (Dataclass(MARKER), ".token", "Dataclass"),
        (Slotted([MARKER]), ".token[0]", "Slotted"),
        (Named(MARKER), "[0]", "Named"),
        (Ordinary(MARKER), ".token", "Ordinary"),
        (types.SimpleNamespace(token=MARKER), ".token", "SimpleNamespace"),
    ],
)
def test_containers_that_are_left_alone(settings, value, place, kind):
    """A marker in a container of another kind is named, and resolves when it is used as text."""
    settings.BOX = [value]
    (found,) = flaws()
    assert found.where == f"settings.BOX[0]{place}"
    assert not found.flaw.error
    assert kind in found.flaw.message
    assert f"{found.marker}" == canary("key")
    assert django_settings.BOX[0] is value


def test_plain_containers_in_a_subclass_of_dict_are_no_flaw(settings):
    """An OrderedDict of dicts is fine: the dicts in it are live."""
    settings.BOX = collections.OrderedDict(a={"k": MARKER}, b=[[MARKER]])
    assert flaws() == []
    assert django_settings.BOX["a"]["k"] == django_settings.BOX["b"][0][0] == canary("key")


def test_logging_is_an_error(settings):
    """Any marker in LOGGING is an error, since Django reads that before the app."""
    settings.LOGGING = {"version": 1, "incremental": True, "mail": {"credentials": ("u", MARKER)}}
    (found,) = flaws()
    assert found.where == "settings.LOGGING['mail']['credentials'][1]"
    assert found.flaw.error


def test_cycles_and_classes_are_survived(settings):
    """Settings that hold themselves, classes, functions and modules are searched without harm."""
    value = {"k": MARKER, "class": Ordinary, "module": types, "function": canary}
    value["self"] = value
    settings.BOX = value
    assert references()["settings.BOX['k']"] == "vault://key"
    assert len(markers(value)) == 1


def test_raw_is_one_level():
    """raw() gives a plain container with the markers in it; others are given back as they are."""
    inner = LiveList([MARKER])
    value = LiveDict(k=MARKER, inner=inner)
    assert type(raw(value)) is dict
    assert raw(value)["k"] is MARKER
    assert raw(value)["inner"] is inner
    assert type(raw(inner)) is list
    plain = {"a": 1}
    assert raw(plain) is plain
    assert raw(3) == 3


def test_raw_setting(settings, vault):
    """A setting can be had as it stands, without a fetch, and with a default."""
    settings.KEY = MARKER
    assert raw_setting("KEY") is MARKER
    assert raw_setting("NEVER_SET") is None
    assert raw_setting("NEVER_SET", 3) == 3
    assert vault.fetched == []
