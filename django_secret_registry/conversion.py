"""From the plain containers of a settings file to live ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .containers import LiveDict, LiveList
from .lazy import LazySecret

#: Originals, and what stands for each, by ``id``. An original is kept here because its ``id`` would
#: be given to another object once it is gone.
Known = dict[int, tuple[Any, Any]]


def make_live(value: Any, known: Known | None = None) -> Any:
    """Return ``value``, with live containers in it wherever a plain one directly held a marker.

    A ``dict`` or ``list`` with a marker is replaced, and so is such a ``tuple``, by a list: C code
    reads a tuple without asking it. What holds those in turn is changed in place, so that whoever
    got hold of it earlier sees them too. What stood in two places stays one object, and a container
    may hold itself. Containers of other kinds are left as they are. ``known`` joins several calls.
    """
    known = {} if known is None else known
    if id(value) in known:
        return known[id(value)][1]
    kind = type(value)
    if issubclass(kind, dict):
        return _live_dict(value, known)
    if issubclass(kind, list):
        return _live_list(value, known)
    if kind is tuple:
        return _live_tuple(value, known)
    return value


def _holds_marker(items: Iterable[Any]) -> bool:
    return any(type(item) is LazySecret for item in items)


def _live_dict(value: dict[Any, Any], known: Known) -> dict[Any, Any]:
    items = dict(list(dict.items(value)))
    new = type(value) is dict and _holds_marker(items.values())
    result = LiveDict() if new else value
    known[id(value)] = value, result
    for key, item in items.items():
        live = make_live(item, known)
        if new or live is not item:
            dict.__setitem__(result, key, live)
    return result


def _live_list(value: list[Any], known: Known) -> list[Any]:
    items = list.copy(value)
    new = type(value) is list and _holds_marker(items)
    result = LiveList(items) if new else value
    known[id(value)] = value, result
    for place, item in enumerate(items):
        live = make_live(item, known)
        if live is not item:
            list.__setitem__(result, place, live)
    return result


def _live_tuple(value: tuple[Any, ...], known: Known) -> tuple[Any, ...] | LiveList:
    result: tuple[Any, ...] | LiveList = LiveList(value) if _holds_marker(value) else value
    known[id(value)] = value, result  # before its items: a list among them may hold this tuple
    items = tuple(make_live(item, known) for item in value)
    if isinstance(result, LiveList):
        list.__setitem__(result, slice(None), items)
    elif any(live is not item for live, item in zip(items, value, strict=True)):
        result = items
        known[id(value)] = value, result
    return result
