"""Where the markers stand in settings: to warm them, to name them in an error, to check them.

Nothing here resolves a marker, evaluates a lazy object or runs a project's code: objects are looked
at by their type, and through the storage of the built-in containers.
"""

# Annotations are evaluated here, which takes less time at start-up: see events.py.
import contextlib
import types
from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple, cast

from django.conf import settings

from .containers import LiveDict, LiveList
from .lazy import LazySecret


class Flaw(NamedTuple):
    """Why readers of a place do not get a ``str``. ``error``: they get nothing that works."""

    message: str
    hint: str
    error: bool = True


class Found(NamedTuple):
    """A marker, its place as one would write it, and what is wrong with that place, if anything."""

    where: str
    marker: LazySecret
    flaw: Flaw | None = None


_CONTAINERS = (dict, list, tuple, set, frozenset, deque)

_IN_LOGGING = Flaw(
    "is in LOGGING, which Django reads before any app is loaded",
    "Read it in a handler of your own, with registry.get(...), when the first record comes.",
)
_IN_SET = Flaw("is in a set, whose readers cannot be given a str", "Write a list or a tuple.")
_IS_KEY = Flaw("is the key of a dict, which no reader would find", "Use it as a value.")


def _left_alone(kind: type) -> Flaw:
    return Flaw(
        f"is in a {kind.__name__}, which is left as it is: readers meet the marker in it, which"
        " acts as text but is no str",
        "Write a dict, a list or a tuple, or read the secret where it is used: registry.get(...).",
        error=False,
    )


def raw_setting(name: str, default: Any = None) -> Any:
    """Return a setting as it stands, a marker included; ``default`` when there is none."""
    wrapped = cast(Any, settings)._wrapped
    return getattr(wrapped, name, default) if settings.configured else default


def found_in_settings() -> Iterator[Found]:
    """Yield every marker of the settings; places are as ``settings.CACHES['default']['KEY']``."""
    # A name that is overridden comes twice.
    for name in dict.fromkeys(dir(settings) if settings.configured else ()):
        if name.isupper():
            for found in found_in(raw_setting(name)):
                flaw = _IN_LOGGING if name == "LOGGING" else found.flaw
                yield Found(f"settings.{name}{found.where}", found.marker, flaw)


def references() -> dict[str, str]:
    """Return the reference of every marker of the settings, by its place."""
    return {found.where: found.marker.reference for found in found_in_settings()}


def optional() -> frozenset[str]:
    """Return the references that have a default wherever settings name them."""
    named = [found.marker for found in found_in_settings()]
    return frozenset(
        {marker.reference for marker in named if marker.default is not ...}
        - {marker.reference for marker in named if marker.default is ...}
    )


def flaws() -> list[Found]:
    """Return the markers of the settings whose readers would not get a ``str``."""
    return [found for found in found_in_settings() if found.flaw]


def markers(value: Any) -> list[LazySecret]:
    """Return the markers in ``value``, at any depth."""
    return [found.marker for found in found_in(value)]


def references_in(value: object) -> list[str]:
    """Return the references of the markers in ``value``, at any depth."""
    return [marker.reference for marker in markers(value)]


def found_in(value: Any, above: frozenset[int] = frozenset()) -> Iterator[Found]:
    """Yield every marker in ``value``, at any depth; its place is relative to ``value``.

    ``above``: the ids of what this value stands in, since a container may hold itself.
    """
    kind = type(value)
    if kind is LazySecret:
        yield Found("", value)
        return
    if id(value) in above:
        return
    above |= {id(value)}
    for label, item, flaw in _items(value, kind):
        for found in found_in(item, above):
            place = label if isinstance(label, str) else f"[{_shown(label[0])}]"
            yield Found(place + found.where, found.marker, flaw or found.flaw)


def _items(value: Any, kind: type) -> Iterator[tuple[str | tuple[Any], Any, Flaw | None]]:
    """Yield what ``value`` holds: the key in a tuple or the place as text, the item, the flaw."""
    if issubclass(kind, dict):
        for key, item in list(dict.items(value)):
            yield " (as a key)", key, _IS_KEY
            kept = kind in (dict, LiveDict) or type(item) is not LazySecret
            yield (key,), item, None if kept else _left_alone(kind)
    elif issubclass(kind, list):
        for place, item in enumerate(list.copy(value)):
            kept = kind in (list, LiveList) or type(item) is not LazySecret
            yield (place,), item, None if kept else _left_alone(kind)
    elif issubclass(kind, tuple | deque):
        flaw = None if kind is tuple else _left_alone(kind)
        for place, item in enumerate(tuple(value)):
            yield (place,), item, flaw
    elif issubclass(kind, set | frozenset):
        for item in tuple(value):
            yield " (in a set)", item, _IN_SET
    elif issubclass(kind, partial):
        yield ".args", value.args, _left_alone(kind)
        yield ".keywords", value.keywords, _left_alone(kind)
    else:
        for name, item in _attributes(value, kind).items():
            yield f".{name}", item, _left_alone(kind)


def _attributes(value: Any, kind: type) -> dict[str, Any]:
    """Return what an instance keeps in attributes, as far as that is a marker or a container.

    Other objects in it are not entered: from a handler or a storage one gets to half of Django.
    """
    if issubclass(kind, type | types.ModuleType | types.FunctionType):
        return {}
    held: dict[str, Any] = {}
    with contextlib.suppress(AttributeError):
        held.update(object.__getattribute__(value, "__dict__"))
    for name in getattr(kind, "__dataclass_fields__", ()):  # those that lie in slots
        with contextlib.suppress(AttributeError):
            held.setdefault(name, object.__getattribute__(value, name))
    return {
        name: item
        for name, item in held.items()
        if type(item) is LazySecret or issubclass(type(item), _CONTAINERS)
    }


def _shown(key: Any) -> str:
    return repr(key) if type(key) in (str, int, LazySecret) else f"<{type(key).__name__}>"
