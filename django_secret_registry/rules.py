"""What may stand under each key of ``SECRET_REGISTRY``: a table per level, used by :mod:`.conf`.

The comment above a key says what it is for; the reference of the docs is made of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .containers import raw
from .references import LOCATOR, NO_REGION
from .residency import POLICIES
from .values import SecretStr

FLEET_MODES = ("available", "strict")


class Rule(NamedTuple):
    """What may stand in one place: in words, as a test, and how it is kept."""

    expected: str
    accepts: Callable[[Any], bool]
    keep: Callable[[Any], Any] = lambda value: value

    def admits(self, value: object) -> bool:
        """Whether ``value`` may stand there; one that fails when it is looked at may not.

        A lazy object, say, runs a project's code as soon as its type is asked for.
        """
        try:
            return self.accepts(value)
        except Exception:
            return False


def is_text(value: object) -> bool:
    """Whether ``value`` is text, and no secret's value."""
    return isinstance(value, str) and not isinstance(value, SecretStr)


def compared_region(text: str) -> str:
    """Return a region as fences and policies compare it: ``""`` is none."""
    return "" if text == NO_REGION else text


def _is_path(value: Any) -> bool:
    return is_text(value) and "." in value and all(map(str.isidentifier, value.split(".")))


def _is_number(value: object) -> bool:
    # The bound is that of ttl= in a reference; locks and sockets cannot wait much longer.
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 10**9


def _is_region(value: Any) -> bool:
    return is_text(value) and (value in ("", NO_REGION) or bool(LOCATOR.match(value)))


def _list_of(accepts: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, list | tuple | set | frozenset) and all(map(accepts, raw(value)))
    )


def _one_of(*words: str) -> Rule:
    return Rule(f"one of {', '.join(words)}", lambda value: is_text(value) and value in words, str)


PATH = Rule("the dotted path of a class", _is_path, str)
FLAG = Rule("True or False", lambda value: isinstance(value, bool))
DICT = Rule("a dict", lambda value: isinstance(value, Mapping))
REFERENCE = Rule('a reference, such as "aws://prod/db#password"', is_text, str)
REFERENCE_OR_DICT = Rule(f"{REFERENCE.expected}, or a dict with REF or MAP", DICT.accepts)
OPTIONS = Rule(
    "a dict of keyword arguments, their names as text",
    lambda value: isinstance(value, Mapping) and all(map(is_text, raw(value))),
)
SECONDS = Rule("a number of seconds, 0 or more", _is_number, float)
POSITIVE = Rule("a number of seconds above 0", lambda value: _is_number(value) and value > 0, float)
REGION = Rule(f'a region such as "eu-central-1", or "{NO_REGION}" for none', _is_region, str)
REGIONS = Rule(
    'a list of regions, such as ["eu-central-1"]',
    _list_of(_is_region),
    lambda value: tuple(map(compared_region, value)),
)

_RESIDENCY = {
    #: The region in which the alias or the secret is.
    "REGION": REGION,
    #: What happens to a read from another region: nothing, a line in the log, or an error.
    "RESIDENCY": _one_of(*POLICIES),
    #: Further regions that may read it.
    "ALLOWED_REGIONS": REGIONS,
}

REGISTRY = {
    #: The home region of this process.
    "REGION": REGION,
    #: Where secrets come from: alias → the keys of an alias, below.
    "PROVIDERS": DICT,
    #: Secrets with names of their own: name → a reference, or the keys of an entry, below.
    "SECRETS": DICT,
    #: How long values are kept; the keys are below.
    "CACHE": DICT,
    #: The bus that joins all processes; the keys are below.
    "FLEET": DICT,
    #: Whether each worker fetches all that is named in the background, once it has started.
    "WARM_UP": FLAG,
    #: For how long a login that a database refuses is tried again, in seconds.
    "ROTATION_WINDOW": SECONDS,
    #: Whether nothing is ever fetched: for image builds. SECRET_REGISTRY_OFFLINE=1 does the same.
    "OFFLINE": FLAG,
    #: What is told after a rotation: settings that are read anew, and functions that are called.
    "REBIND": Rule(
        "a list of names of settings and of callables",
        _list_of(lambda item: is_text(item) or callable(item)),
        tuple,
    ),
}
PROVIDER = {
    #: The class that speaks to the backend.
    "BACKEND": PATH,
    #: After how many seconds the client is built anew; 0: it is kept.
    "TTL": SECONDS,
    #: The backend's keyword arguments; its page lists them.
    "OPTIONS": OPTIONS,
    #: A fence: the only names of secrets that may be asked for.
    "ALLOW": Rule('a list of globs, such as ["prod/*"]', _list_of(is_text), tuple),
    #: A fence: the only regions that may be asked for.
    "REGIONS": REGIONS,
    #: A fence: the only projects that may be asked for, besides the alias' own.
    "PROJECTS": Rule("a list of names of projects", _list_of(is_text), tuple),
    **_RESIDENCY,
}
ENTRY = {
    #: The reference that it stands for.
    "REF": REFERENCE,
    #: Several references that are read together: member → reference.
    "MAP": DICT,
    #: Whether templates may render it.
    "TEMPLATES": FLAG,
    #: As in CACHE, for this secret; the smallest that is asked for wins.
    "TTL": POSITIVE,
    **_RESIDENCY,
}
CACHE = {
    #: How long a value is good, in seconds.
    "TTL": POSITIVE,
    #: By which part the TTL differs from secret to secret, so that they are not fetched together.
    "JITTER": Rule(
        "a part of the TTL, from 0 to less than 1",
        lambda value: _is_number(value) and value < 1,
        float,
    ),
    #: After which part of the TTL a value is fetched anew in the background.
    "REFRESH_AHEAD": Rule(
        "a part of the TTL, above 0 and at most 1",
        lambda value: _is_number(value) and 0 < value <= 1,
        float,
    ),
    #: For how many seconds past its TTL a value serves while the backend cannot give another.
    "MAX_STALE": SECONDS,
    #: For how many seconds a "not found" is not asked again; doubled while it is confirmed.
    "NEGATIVE_TTL": SECONDS,
    #: How long the first reader of a stale value waits for a new one, in seconds.
    "SOFT_TIMEOUT": SECONDS,
    #: How long a reader without a value waits, in seconds.
    "FETCH_TIMEOUT": POSITIVE,
    #: How many seconds before the end that its issuer set a value is stale.
    "SAFETY_MARGIN": SECONDS,
    #: How many secrets are kept; those that settings name are never thrown out.
    "MAX_ENTRIES": Rule(
        "a whole number above 0",
        lambda value: isinstance(value, int) and _is_number(value) and value > 0,
    ),
}
FLEET = {
    #: The class of the bus.
    "BACKEND": PATH,
    #: Its keyword arguments.
    "OPTIONS": OPTIONS,
    #: What happens while the bus is down: values serve (available), or are fetched anew (strict).
    "MODE": _one_of(*FLEET_MODES),
    #: For how many seconds a worker serves what it holds without having read the log.
    "LEASE": Rule(
        "a number of seconds, 1 or more",  # events of one second are one
        lambda value: _is_number(value) and value >= 1,
        float,
    ),
}
