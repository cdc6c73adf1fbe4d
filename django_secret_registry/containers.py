"""``LiveDict`` and ``LiveList``: containers of settings whose secrets are read when they are read.

The storage of the base class holds literals and markers. Every method of ``dict`` and ``list`` is
defined here, since one that is inherited would hand out markers; those that show no value are taken
over by name, so that none is forgotten when Python adds one (a test compares).

A read takes a snapshot of the storage first (one call into C) and resolves then: fetching lets
other threads run, and their writes must not break it.
"""

from __future__ import annotations

import copy
from collections.abc import ItemsView, Iterable, Iterator, KeysView, ValuesView
from typing import Any, Self, SupportsIndex

from .lazy import LazySecret, PutBack, held_or_marker, resolve


def read(item: Any) -> Any:
    """Return the value of a marker, and anything else as it is.

    By ``type``, here and below: ``isinstance`` would evaluate a lazy object that stands beside it.
    """
    return resolve(item) if type(item) is LazySecret else item


def raw(value: Any) -> Any:
    """Return a live container as a plain one that holds its markers; anything else as it is.

    One level: containers inside are the same objects as before. Fetches nothing.
    """
    if isinstance(value, LiveDict):
        return dict(list(dict.items(value)))
    return list.copy(value) if isinstance(value, LiveList) else value


def _equal(pairs: Iterable[tuple[Any, Any]]) -> bool:
    """Compare literals first, so that a difference among them is found without a fetch."""
    secrets = []
    for mine, theirs in pairs:
        if type(mine) is LazySecret or type(theirs) is LazySecret:
            if not (type(mine) is LazySecret and type(theirs) is LazySecret) or (mine != theirs):
                secrets.append((mine, theirs))
        elif mine is not theirs and mine != theirs:
            return False
    return all(read(mine) == read(theirs) for mine, theirs in secrets)


class _Values(ValuesView[Any]):
    _mapping: LiveDict

    def __iter__(self) -> Iterator[Any]:
        return (read(item) for _, item in list(raw(self._mapping).items()))

    def __reversed__(self) -> Iterator[Any]:
        return (read(item) for _, item in reversed(list(raw(self._mapping).items())))

    def __contains__(self, value: object) -> bool:
        return any(item is value or item == value for item in self)


class _Items(ItemsView[Any, Any]):
    _mapping: LiveDict

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return ((key, read(item)) for key, item in list(raw(self._mapping).items()))

    def __reversed__(self) -> Iterator[tuple[Any, Any]]:
        return ((key, read(item)) for key, item in reversed(list(raw(self._mapping).items())))


class LiveDict(dict[Any, Any]):
    """A ``dict`` that hands out the current values of the secrets in it.

    Copies, deep copies, pickles and ``update`` from another live container keep the markers; all
    else that leaves it holds values. ``repr`` shows references. Reads raise :class:`SecretError`.
    """

    _put_back: PutBack | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.update(*args, **kwargs)

    def __getitem__(self, key: Any) -> Any:
        return read(dict.__getitem__(self, key))

    def __setitem__(self, key: Any, value: Any) -> None:
        dict.__setitem__(self, key, self._stored(key, value))

    def __delitem__(self, key: Any) -> None:
        self._stored(key, None)
        dict.__delitem__(self, key)

    def _stored(self, key: Any, value: Any) -> Any:
        """Return what to store for ``value``, and note the marker that it takes the place of."""
        item = dict.get(self, key)
        if type(item) is LazySecret:
            self._put_back = self._put_back or PutBack()
            self._put_back.known(key, item, item)
        return self._put_back.stored(key, value) if self._put_back else value

    def get(self, key: Any, default: Any = None) -> Any:
        return read(dict.get(self, key, default))

    def pop(self, key: Any, *default: Any) -> Any:
        if key not in self:
            return dict.pop(self, key, *default)
        value = self[key]  # first: a secret that cannot be read stays where it is
        dict.pop(self, key, None)
        return value

    def popitem(self) -> tuple[Any, Any]:
        for key, item in reversed(raw(self).items()):
            value = read(item)
            dict.pop(self, key, None)
            return key, value
        raise KeyError("popitem(): dictionary is empty")

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """As of ``dict``, without a fetch: a secret that is not held is returned as its marker."""
        item = dict.setdefault(self, key, default)
        return held_or_marker(item) if type(item) is LazySecret else item

    def __iter__(self) -> Iterator[Any]:
        return iter(list(dict.keys(self)))

    def __reversed__(self) -> Iterator[Any]:
        return iter(list(dict.__reversed__(self)))

    def keys(self) -> KeysView[Any]:  # type: ignore[override]
        return KeysView(self)

    def values(self) -> ValuesView[Any]:  # type: ignore[override]
        return _Values(self)

    def items(self) -> ItemsView[Any, Any]:  # type: ignore[override]
        return _Items(self)

    def update(self, other: Any = (), /, **kwargs: Any) -> None:
        items = raw(other) if isinstance(other, LiveDict) else dict(other)
        for key, value in {**items, **kwargs}.items():
            self[key] = value

    def __ior__(self, other: Any) -> Self:
        self.update(other)
        return self

    def __or__(self, other: Any) -> dict[Any, Any]:
        return dict(self.items()) | dict(other) if isinstance(other, dict) else NotImplemented

    def __ror__(self, other: Any) -> dict[Any, Any]:
        return dict(other) | dict(self.items()) if isinstance(other, dict) else NotImplemented

    @classmethod
    def fromkeys(cls, iterable: Iterable[Any], value: Any = None) -> Self:
        return cls(dict.fromkeys(iterable, value))

    def copy(self) -> Self:
        return type(self)(self)

    __copy__ = copy

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        twin = memo[id(self)] = type(self)()
        for key, item in raw(self).items():
            dict.__setitem__(twin, copy.deepcopy(key, memo), copy.deepcopy(item, memo))
        return twin

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return type(self), (), None, None, iter(raw(self).items())

    def __repr__(self) -> str:  # pprint resolves a dict whose __repr__ is that of dict
        return dict.__repr__(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, dict):
            return NotImplemented
        mine, theirs = raw(self), raw(other)
        return mine.keys() == theirs.keys() and _equal((mine[key], theirs[key]) for key in mine)

    def __ne__(self, other: object) -> bool:
        return NotImplemented if not isinstance(other, dict) else not self == other

    __hash__ = None
    __contains__ = dict.__contains__
    __len__ = dict.__len__
    clear = dict.clear


class LiveList(list[Any]):
    """A ``list`` that hands out the current values of the secrets in it; see :class:`LiveDict`.

    A secret that is missing and whose default is ``None`` is not an item: neither counted nor
    found, its place kept. ``len`` fetches for those only. A plain list that is given a live one by
    ``+=`` becomes a new list.
    """

    def __init__(self, iterable: Iterable[Any] = ()) -> None:
        super().__init__()
        self.extend(iterable)

    def _present(self) -> Iterator[tuple[int, Any]]:
        """Yield place and item; what had to be read to know that it is there comes as its value."""
        for place, item in enumerate(list.copy(self)):
            if type(item) is LazySecret and item.default is None:
                value = resolve(item)
                if value is not None:
                    yield place, value
            else:
                yield place, item

    def _places(self) -> list[int]:
        return [place for place, _ in self._present()]

    def __iter__(self) -> Iterator[Any]:
        return (read(item) for _, item in self._present())

    def __reversed__(self) -> Iterator[Any]:
        yield from reversed([*self])

    def __len__(self) -> int:
        return len(self._places())

    def __getitem__(self, index: Any) -> Any:
        items = [item for _, item in self._present()][index]
        return [read(item) for item in items] if isinstance(index, slice) else read(items)

    def __contains__(self, value: object) -> bool:
        return any(item is value or item == value for item in self)

    def index(self, value: Any, *limits: SupportsIndex) -> int:
        return [*self].index(value, *limits)

    def count(self, value: Any) -> int:
        return [*self].count(value)

    def __setitem__(self, index: Any, value: Any) -> None:
        places = self._places()
        if not isinstance(index, slice):
            list.__setitem__(self, places[index], value)
            return
        items = _raw_list(value)
        start, stop, step = index.indices(len(places))
        if step == 1:
            edges = [*places, list.__len__(self)]
            list.__setitem__(self, slice(edges[start], edges[max(start, stop)]), items)
        elif len(places[index]) != len(items):
            raise ValueError("an extended slice is assigned a sequence of another size")
        else:
            for place, item in zip(places[index], items, strict=True):
                list.__setitem__(self, place, item)

    def __delitem__(self, index: Any) -> None:
        places = self._places()
        chosen = places[index] if isinstance(index, slice) else [places[index]]
        for place in sorted(chosen, reverse=True):
            list.__delitem__(self, place)

    def insert(self, index: SupportsIndex, value: Any) -> None:
        places = self._places()
        start, *_ = slice(index, None).indices(len(places))
        list.insert(self, [*places, list.__len__(self)][start], value)

    def extend(self, iterable: Iterable[Any]) -> None:
        list.extend(self, _raw_list(iterable))

    def pop(self, index: SupportsIndex = -1) -> Any:
        present = list(self._present())
        if not present:
            raise IndexError("pop from empty list")
        place, item = present[index]
        value = read(item)  # first: a secret that cannot be read stays where it is
        list.pop(self, place)
        return value

    def remove(self, value: Any) -> None:
        del self[self.index(value)]

    def sort(self, *, key: Any = None, reverse: bool = False) -> None:
        present = [(place, read(item)) for place, item in self._present()]
        ordered = sorted(
            present, key=lambda pair: pair[1] if key is None else key(pair[1]), reverse=reverse
        )
        items = list.copy(self)
        absent = set(range(len(items))).difference(place for place, _ in present)
        places = [*(place for place, _ in ordered), *sorted(absent)]
        list.__setitem__(self, slice(None), [items[place] for place in places])

    def copy(self) -> Self:
        return type(self)(self)

    __copy__ = copy

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        twin = memo[id(self)] = type(self)()
        for item in list.copy(self):
            list.append(twin, copy.deepcopy(item, memo))
        return twin

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return type(self), (), None, iter(list.copy(self))

    def __add__(self, other: Any) -> list[Any]:
        return [*self, *other] if isinstance(other, list | tuple) else NotImplemented

    def __radd__(self, other: Any) -> list[Any]:
        return [*other, *self] if isinstance(other, list | tuple) else NotImplemented

    def __iadd__(self, other: Iterable[Any]) -> Self:  # type: ignore[misc]
        self.extend(other)
        return self

    def __mul__(self, times: SupportsIndex) -> list[Any]:
        return [*self] * times

    __rmul__ = __mul__

    def __imul__(self, times: SupportsIndex) -> Self:
        list.__imul__(self, times)
        return self

    def __repr__(self) -> str:
        return list.__repr__(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, list):
            return NotImplemented
        mine, theirs = _present_items(self), _present_items(other)
        return len(mine) == len(theirs) and _equal(zip(mine, theirs, strict=True))

    def __ne__(self, other: object) -> bool:
        return NotImplemented if not isinstance(other, list) else not self == other

    def __lt__(self, other: object) -> bool:
        return [*self] < [*other] if isinstance(other, list) else NotImplemented

    def __le__(self, other: object) -> bool:
        return [*self] <= [*other] if isinstance(other, list) else NotImplemented

    def __gt__(self, other: object) -> bool:
        return [*self] > [*other] if isinstance(other, list) else NotImplemented

    def __ge__(self, other: object) -> bool:
        return [*self] >= [*other] if isinstance(other, list) else NotImplemented

    __hash__ = None
    append = list.append
    clear = list.clear
    reverse = list.reverse


def _present_items(items: list[Any]) -> list[Any]:
    return [item for _, item in items._present()] if isinstance(items, LiveList) else items


def _raw_list(iterable: Iterable[Any]) -> list[Any]:
    """Return what is to be stored: the markers of a live list, the items of anything else."""
    return list(raw(iterable))
