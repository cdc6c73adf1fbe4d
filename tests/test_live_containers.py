"""Live containers: dicts and lists of settings that hand out the values of their secrets."""

from __future__ import annotations

import copy
import json
import operator
import pickle
import pprint
import reprlib
import threading
from types import GenericAlias

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from django_secret_registry import ProviderError, ProviderUnavailable, SecretStr, registry
from django_secret_registry.live import LazySecret, LiveDict, LiveList, raw, secret
from tests.canary import canary
from tests.live_support import Script, configured

ONE, TWO = canary("one"), canary("two")


@pytest.fixture(autouse=True)
def vault(settings) -> Script:
    return configured(settings, {"one": ONE, "two": TWO})


def one() -> LazySecret:
    return secret("vault://one")


def two() -> LazySecret:
    return secret("vault://two")


def missing(default: object = None) -> LazySecret:
    return secret("vault://missing", default=default)


def live_dict() -> LiveDict:
    return LiveDict(user="app", password=one(), token=two())


def live_list() -> LiveList:
    return LiveList(["literal", one(), two()])


PLAIN_DICT = {"user": "app", "password": ONE, "token": TWO}
PLAIN_LIST = ["literal", ONE, TWO]


def is_plain(value: object) -> bool:
    """Tell whether no marker is in what a reader got."""
    if isinstance(value, dict):
        return type(value) is dict and all(map(is_plain, value.values()))
    if isinstance(value, list | tuple):
        return type(value) in (list, tuple) and all(map(is_plain, value))
    return type(value) is not LazySecret


# -- every method --------------------------------------------------------------------------------


@pytest.mark.parametrize(("live", "plain"), [(LiveDict, dict), (LiveList, list)])
def test_no_method_is_inherited(live, plain):
    """Each method of dict and list is defined by the live class, in this version of Python too."""
    of_plain = set(dir(plain)) - set(dir(object)) - {"__class_getitem__"}
    compares = {"__eq__", "__ne__", "__hash__", "__repr__", "__init__", "__reduce_ex__"}
    if plain is list:
        compares |= {"__lt__", "__le__", "__gt__", "__ge__"}
    assert sorted((of_plain | compares) - set(vars(live))) == []
    assert isinstance(live[str], GenericAlias)


READS_OF_A_DICT = {
    "[]": lambda d: d["password"],
    "get": lambda d: d.get("password"),
    "get of a default": lambda d: d.get("absent", "default"),
    "pop": lambda d: d.pop("password"),
    "pop of a default": lambda d: d.pop("absent", "default"),
    "popitem": lambda d: d.popitem(),
    "items": lambda d: list(d.items()),
    "reversed items": lambda d: list(reversed(d.items())),
    "in items": lambda d: ("password", ONE) in d.items(),
    "values": lambda d: list(d.values()),
    "reversed values": lambda d: list(reversed(d.values())),
    "in values": lambda d: ONE in d.values(),
    "not in values": lambda d: "x" in d.values(),
    "keys": lambda d: list(d.keys()),
    "keys as a set": lambda d: sorted(d.keys() & {"user", "x"}),
    "iter": list,
    "reversed": lambda d: list(reversed(d)),
    "len": lambda d: (len(d), len(d.items()), len(d.values()), bool(d)),
    "in": lambda d: ("password" in d, "x" in d),
    "|": lambda d: d | {"x": 1},
    "reflected |": lambda d: {"x": 1} | d,
    "| of two": lambda d: d | live_dict() if isinstance(d, LiveDict) else d | d,
    "{**d}": lambda d: {**d},
    "dict(d)": dict,
    "dict(d, x=1)": lambda d: dict(d, x=1),
    "f(**d)": lambda d: keywords(**d),
    "format": lambda d: "{user}:{password}".format(**d),
    "format_map": "{user}:{password}".format_map,
    "%": lambda d: operator.mod("%(user)s:%(password)s", d),
    "json": json.dumps,
    "json, indented": lambda d: json.dumps({"x": [d]}, indent=1, sort_keys=True),
    "json of one": lambda d: json.dumps(d["password"]),
    "update of a plain one": lambda d: [(p := {}).update(d), p],
    "|= of a plain one": lambda d: (p := {}, p.__ior__(d), p)[-1],
    "sorted": lambda d: sorted(d.values()),
    "unpacking": lambda d: [(_, b, _) for _, b, _ in [d.values()]],
    "join": lambda d: "".join(d.values()),
    "==": lambda d: (d == PLAIN_DICT, d != PLAIN_DICT, d == {"user": "app"}, d == 1, d != 1),
    "reflected ==": lambda d: (operator.eq(PLAIN_DICT, d), operator.ne(PLAIN_DICT, d)),
    "match": lambda d: _matched(d) or "none",
}


def keywords(**kwargs: object) -> object:
    return kwargs


def positional(*args: object) -> object:
    return args


def _matched(value: object) -> object:
    match value:
        case {"password": found}:
            return found
        case [_, found, _]:
            return found
    return None


@pytest.mark.parametrize("read", READS_OF_A_DICT.values(), ids=READS_OF_A_DICT)
def test_dict_hands_out_values(read):
    """Whatever is read out of a live dict is what the same dict with literals gives."""
    got = read(live_dict())
    assert got == read(dict(PLAIN_DICT))
    assert is_plain(got)


READS_OF_A_LIST = {
    "[]": lambda v: (v[1], v[-1]),
    "[:]": lambda v: v[1:],
    "[::]": lambda v: v[::-2],
    "iter": lambda v: list(iter(v)),
    "reversed": lambda v: list(reversed(v)),
    "len": lambda v: (len(v), bool(v)),
    "in": lambda v: (ONE in v, "x" in v),
    "index": lambda v: (v.index(ONE), v.index(TWO, 2), v.index(TWO, 1, 3)),
    "count": lambda v: (v.count(ONE), v.count("x")),
    "pop": lambda v: (v.pop(), v.pop(0), list(v)),
    "+": lambda v: operator.add(v, ["x"]),
    "+ a tuple": lambda v: operator.add(v, ["x"] if type(v) is list else ("x",)),
    "reflected +": lambda v: operator.add(["x"], v),
    "*": lambda v: v * 2,
    "reflected *": lambda v: 2 * v,
    "+= of a plain one": lambda v: (p := ["x"], p := p + v)[-1],
    "extend of a plain one": lambda v: [(p := []).extend(v), p],
    "slice of a plain one": lambda v: (p := [0, 1], p.__setitem__(slice(0, 1), v), p)[-1],
    "[*v]": lambda v: [*v],
    "f(*v)": lambda v: positional(*v),
    "list": list,
    "tuple": tuple,
    "sorted": lambda v: sorted(v, reverse=True),
    "min and max": lambda v: (min(v), max(v)),
    "unpacking": lambda v: [(a, b, c) for a, b, c in [v]],
    "join": ",".join,
    "json": json.dumps,
    "json, nested": lambda v: json.dumps({"x": v}, indent=1),
    "zip": lambda v: list(zip(v, v, strict=True)),
    "==": lambda v: (v == PLAIN_LIST, v != PLAIN_LIST, v == ["literal"], v == 1, v != 1),
    "reflected ==": lambda v: (operator.eq(PLAIN_LIST, v), operator.ne(PLAIN_LIST, v)),
    "order": lambda v: (v < ["m"], v <= PLAIN_LIST, v > PLAIN_LIST, v >= ["k"]),
    "reflected order": lambda v: (operator.lt(["a"], v), operator.ge(["a"], v)),
    "match": lambda v: _matched(v) or "none",
}


@pytest.mark.parametrize("read", READS_OF_A_LIST.values(), ids=READS_OF_A_LIST)
def test_list_hands_out_values(read):
    """Whatever is read out of a live list is what the same list with literals gives."""
    got = read(live_list())
    assert got == read(list(PLAIN_LIST))
    assert is_plain(got)


def test_values_are_masked_text():
    """What comes out is a str that does not show itself, in containers of containers too."""
    value = LiveDict(nested={"inner": LiveList([one()])}, own=one())
    assert isinstance(value["own"], str)
    assert repr(value["own"]) == repr(value["nested"]["inner"][0]) == "SecretStr('**********')"


def test_shows_references():
    """The repr names references, of nested containers and of mapped markers too."""
    value = LiveDict(a=one(), b=[LiveList([two().map(str.upper)])])
    assert repr(value) == "{'a': secret('vault://one'), 'b': [[secret('vault://two').map(...)]]}"


def test_printing_fetches_nothing(vault):
    """repr, pprint and the pretty printers that follow them show references, and fetch nothing."""
    value = {"wide" * 30: live_dict(), "list": [live_list()], "own": LiveDict(a=live_dict())}
    text = pprint.pformat(value, width=20) + pprint.pformat(live_list(), width=1)
    assert reprlib.repr(value)
    assert "secret('vault://one')" in text
    assert vault.fetched == []


# -- what stays live -----------------------------------------------------------------------------

COPIES = {
    "copy": lambda v: v.copy(),
    "copy.copy": copy.copy,
    "copy.deepcopy": copy.deepcopy,
    "pickle": lambda v: pickle.loads(pickle.dumps(v)),
    "old pickle": lambda v: pickle.loads(pickle.dumps(v, 0)),
}


@pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("make", [live_dict, live_list])
def test_copies_stay_live(vault, make, duplicate):
    """A copy, deep copy or pickle is live: made without a fetch, it follows a rotation."""
    twin = duplicate(make())
    assert type(twin) is type(make())
    assert vault.fetched == []
    where = "password" if isinstance(twin, dict) else 1
    assert twin[where] == ONE
    vault.rotate("one", canary("rotated"))
    assert twin[where] == canary("rotated")


def test_shallow_copies_share_and_deep_ones_do_not():
    """A copy holds the same inner containers, a deep copy its own; markers stay the same."""
    marker = one()
    value = LiveDict(inner=LiveList([marker, []]))
    assert value.copy()["inner"] is value["inner"]
    deep = copy.deepcopy(value)
    assert deep["inner"] is not value["inner"]
    assert raw(deep["inner"])[0] is marker
    assert deep["inner"][1] is not value["inner"][1]


def test_update_between_live_containers_stays_live(vault):
    """``update`` and ``|=``, ``extend`` and ``+=`` take markers over from a live container."""
    target = LiveDict()
    target.update(live_dict(), extra=two())
    target |= LiveDict(more=one())
    items = LiveList()
    items.extend(live_list())
    items += LiveList([one()])
    items[0:1] = LiveList([two()])
    assert vault.fetched == []
    assert [type(target.setdefault(k)) for k in target] == [str, *[LazySecret] * 4]
    assert [type(item) for item in raw(items)] == [LazySecret] * 4


def test_repeating_in_place_stays_live(vault):
    """``*=`` repeats markers."""
    items = LiveList([one()])
    items *= 2
    assert raw(items) == [one(), one()]
    assert vault.fetched == []


def test_pickle_holds_references_only():
    """The pickle of a live container has no value in it, also after the values were read."""
    value = live_dict()
    assert value["password"] == ONE
    data = pickle.dumps([value, live_list()])
    assert b"vault://one" in data
    assert ONE.encode() not in data


def test_cycles():
    """A container that holds itself can be copied, pickled and shown."""
    value = LiveDict(password=one())
    value["self"] = LiveList([value])
    for twin in (copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
        assert twin["self"][0] is twin
        assert twin["password"] == ONE
    assert "{...}" in repr(value)


# -- what fetches, and how often -----------------------------------------------------------------


def test_no_fetch_where_no_value_is_asked_for(vault):
    """Keys, lengths, literals and writes are had without the secrets."""
    value, items = live_dict(), live_list()
    assert (value["user"], items[0], list(value), len(value), len(items)) == (
        *("app", "literal", ["user", "password", "token"], 3, 3),
    )
    assert "password" in value
    value["password"] = value.pop("user")
    del value["token"]
    items[1] = "x"
    items.insert(0, two())
    items.append(one())
    items.reverse()
    del items[0]
    value.clear()
    items.clear()
    assert vault.fetched == []


def test_setdefault_of_a_marker_fetches_nothing(vault):
    """An existing marker is returned as text that is read when it is used, or as a held value."""
    value = live_dict()
    got = value.setdefault("password", "")
    assert vault.fetched == []
    assert f"{got}" == ONE
    assert type(value.setdefault("password", "")) is SecretStr
    assert (value.setdefault("user", ""), value.setdefault("new", 3), value["new"]) == ("app", 3, 3)


def test_comparing_looks_at_length_keys_and_literals_first(vault):
    """Nothing is fetched to find that containers differ in size, keys or literals."""
    assert live_dict() != {}
    assert live_dict() != {"user": "app", "password": ONE, "x": 1}
    assert live_dict() != {"user": "other", "password": ONE, "token": TWO}
    assert live_list() != ["literal"]
    assert live_list() != ["other", ONE, TWO]
    assert live_dict() == live_dict()
    assert live_list() == live_list().copy()
    assert vault.fetched == []
    assert live_dict() == LiveDict(PLAIN_DICT)
    assert LiveDict(a=one()) != LiveDict(a=two())
    assert LiveList([one()]) == LiveList([ONE])


WHOLE_READS = [
    *(lambda d: {**d}, dict, lambda d: list(d.items()), lambda d: list(d.values())),
    *(lambda d: d | {}, json.dumps, lambda d: keywords(**d), lambda d: d == PLAIN_DICT),
]


def hits() -> int:
    return sum(secret.hits for secret in registry.snapshot().secrets)


@pytest.mark.parametrize("read", WHOLE_READS)
def test_one_read_of_a_whole_dict_reads_each_secret_once(read):
    """Reading all of a dict costs one cached read for each secret in it."""
    value = live_dict()
    read(value)
    before = hits()
    read(value)
    assert hits() - before == 2


WHOLE_READS_OF_A_LIST = [
    *(list, tuple, json.dumps, sorted, lambda v: v[:], lambda v: operator.add(v, [])),
    lambda v: v == PLAIN_LIST,
]


@pytest.mark.parametrize("read", WHOLE_READS_OF_A_LIST)
def test_one_read_of_a_whole_list_reads_each_secret_once(read):
    """Reading all of a list costs one cached read for each secret in it."""
    value = live_list()
    read(value)
    before = hits()
    read(value)
    assert hits() - before == 2


# -- missing, and out of reach -------------------------------------------------------------------


def test_missing_item_drops_out_of_a_list():
    """A list has no item for a secret that is missing and whose default is None."""
    items = LiveList([missing(), one(), missing(), two(), missing("default")])
    shown = [ONE, TWO, "default"]
    assert [*items] == items[:] == shown
    assert (len(items), items[0], items[-1]) == (3, ONE, "default")
    assert items == shown
    assert items != shown[:2]
    assert bool(LiveList([missing()])) is False
    assert json.dumps(LiveList([missing()])) == "[]"


def test_missing_item_comes_when_the_secret_does(vault):
    """A list item that was missing is there once its secret is, at its place."""
    items = LiveList([missing(), "last"])
    assert [*items] == ["last"]
    vault.rotate("missing", canary("found"))
    assert [*items] == [canary("found"), "last"]


def test_missing_value_of_a_dict_is_its_default():
    """In a dict the key stays, with the default as its value."""
    value = LiveDict(a=missing(), b=missing("default"))
    assert {**value} == {"a": None, "b": "default"}
    assert len(value) == 2


def test_outage_is_no_missing_secret(vault):
    """A default is not used while the provider is down, and no item drops out."""
    vault.error = ProviderUnavailable("down")
    with pytest.raises(ProviderUnavailable):
        list(LiveList([missing()]))
    with pytest.raises(ProviderUnavailable):
        LiveDict(a=missing("default")).get("a", "other")


@pytest.mark.parametrize("error", [KeyError("k"), AttributeError("a"), IndexError("i")])
def test_provider_that_fails_oddly_is_no_missing_key(vault, error):
    """Whatever a provider raises, a read raises a SecretError, which ``get`` does not swallow."""
    vault.error = error
    for read in (lambda: live_dict().get("password", "x"), lambda: live_list()[1]):
        with pytest.raises(ProviderError) as caught:
            read()
        assert caught.value.__cause__ is caught.value.__context__ is None


def test_what_cannot_be_read_is_not_taken_out(vault):
    """``pop`` and ``popitem`` leave in place what they could not read."""
    vault.error = ProviderUnavailable("down")
    value, items = live_dict(), live_list()
    for take in (lambda: value.pop("password"), value.popitem, items.pop):
        with pytest.raises(ProviderUnavailable):
            take()
    assert raw(value) == raw(live_dict())
    assert raw(items) == raw(live_list())


def test_empty_containers_raise_what_plain_ones_raise():
    """Missing keys and empty containers give the errors of dict and list."""
    for take in (
        *(lambda: LiveDict()["x"], lambda: LiveDict().pop("x"), lambda: LiveDict().popitem()),
    ):
        with pytest.raises(KeyError):
            take()
    for take in (lambda: LiveList().pop(), lambda: LiveList()[0], lambda: live_list().pop(3)):
        with pytest.raises(IndexError):
            take()
    for take in (lambda: live_list().remove("x"), lambda: live_list().index("x")):
        with pytest.raises(ValueError, match="not in list"):
            take()
    for take in (lambda: LiveDict() | 1, lambda: LiveList() + 1, lambda: LiveList() < 1):
        with pytest.raises(TypeError):
            take()
    for take in (lambda: hash(LiveDict()), lambda: hash(LiveList())):
        with pytest.raises(TypeError, match="unhashable"):
            take()


def test_made_from_keys():
    """``fromkeys`` gives a live dict."""
    value = LiveDict.fromkeys("ab", one())
    assert (type(value), {**value}) == (LiveDict, {"a": ONE, "b": ONE})


def test_extended_slice_takes_as_many_items_as_it_has():
    """Assigning another number of items to a slice with a step raises, as for a list."""
    items = LiveList([missing(), one(), two(), missing()])
    items[::-1] = ["a", "b"]
    assert [*items] == ["b", "a"]
    with pytest.raises(ValueError, match="size"):
        items[::2] = [1, 2, 3]


# -- threads -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "read",
    [
        lambda d: list(d.items()),
        lambda d: list(d.values()),
        lambda d: list(reversed(d.items())),
        dict,
        lambda d: [d[key] for key in d],
        json.dumps,
        lambda d: d == {**dict.fromkeys(d), "new": 1},
    ],
)
def test_write_during_a_read_of_the_whole_does_not_break_it(vault, read):
    """Another thread may add to a dict while a reader waits for a secret in it."""
    value = live_dict()
    vault.gate = threading.Event()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            read(value)
        except BaseException as error:
            failures.append(error)

    reader = threading.Thread(target=run)
    reader.start()
    while not vault.fetched and reader.is_alive():
        reader.join(0.01)
    value["new"] = 1
    vault.gate.set()
    reader.join(10)
    assert failures == []
    assert value["new"] == 1


def test_write_during_an_iteration_does_not_break_it():
    """A loop over a live container sees what was there when it began."""
    value, items = live_dict(), live_list()
    for key in value:
        value[f"{key}-new"] = items.append(1)
    for _ in items:
        if len(items) < 10:
            items.append(1)
    assert len(value) == 6


# -- against the real thing ----------------------------------------------------------------------

KEYS = st.sampled_from("abc")
VALUES = st.sampled_from(["x", "one", "two"])
INDEXES = st.integers(-4, 4)
SLICES = st.builds(
    slice, st.none() | INDEXES, st.none() | INDEXES, st.none() | st.sampled_from([1, 2, -1])
)

DICT_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("__setitem__"), KEYS, VALUES),
        st.tuples(st.just("setdefault"), KEYS, VALUES),
        st.tuples(st.just("__delitem__"), KEYS),
        st.tuples(st.just("__getitem__"), KEYS),
        st.tuples(st.just("get"), KEYS, VALUES),
        st.tuples(st.just("pop"), KEYS),
        st.tuples(st.just("pop"), KEYS, VALUES),
        st.tuples(st.just("popitem")),
        st.tuples(st.just("clear")),
        st.tuples(st.just("update"), st.dictionaries(KEYS, VALUES)),
        st.tuples(st.just("__ior__"), st.dictionaries(KEYS, VALUES)),
    )
)
LIST_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), VALUES),
        st.tuples(st.just("insert"), INDEXES, VALUES),
        st.tuples(st.just("extend"), st.lists(VALUES, max_size=3)),
        st.tuples(st.just("__iadd__"), st.lists(VALUES, max_size=3)),
        st.tuples(st.just("__imul__"), st.integers(-1, 2)),
        st.tuples(st.just("__setitem__"), INDEXES, VALUES),
        st.tuples(st.just("__setitem__"), SLICES, st.lists(VALUES, max_size=3)),
        st.tuples(st.just("__getitem__"), INDEXES | SLICES),
        st.tuples(st.just("__delitem__"), INDEXES | SLICES),
        st.tuples(st.just("pop")),
        st.tuples(st.just("pop"), INDEXES),
        st.tuples(st.just("remove"), VALUES),
        st.tuples(st.just("index"), VALUES),
        st.tuples(st.just("count"), VALUES),
        st.tuples(st.just("sort")),
        st.tuples(st.just("reverse")),
        st.tuples(st.just("clear")),
    ),
    max_size=12,
)
SECRETS = {"one": ONE, "two": TWO}


def stored(value: object) -> object:
    """Return a drawn operand with markers where the drawn text names a secret."""
    if isinstance(value, dict):
        return {key: stored(item) for key, item in value.items()}
    if isinstance(value, list):
        return [stored(item) for item in value]
    return secret(f"vault://{value}") if isinstance(value, str) and value in SECRETS else value


def literal(value: object) -> object:
    """Return a drawn operand with values where the drawn text names a secret."""
    if isinstance(value, dict):
        return {key: literal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [literal(item) for item in value]
    return SECRETS.get(value, value) if isinstance(value, str) else value


def outcome(container: object, method: str, operands: list[object]) -> object:
    try:
        result = getattr(container, method)(*operands)
    except (LookupError, ValueError) as error:
        return LookupError if isinstance(error, LookupError) else ValueError
    return "self" if result is container else result


@given(DICT_STEPS)
def test_dict_behaves_as_a_dict(steps):
    """After any sequence of calls a live dict gives and holds what a dict of literals does."""
    live, plain = LiveDict(), {}
    for method, *operands in steps:
        keys, values = operands[:-1], operands[-1:]
        if method in ("__delitem__", "__getitem__", "pop") and len(operands) == 1:
            keys, values = operands, []
        got = outcome(live, method, [*keys, *map(stored, values)])
        assert got == outcome(plain, method, [*keys, *map(literal, values)])
        assert list(live.items()) == list(plain.items())
        assert live == plain


@given(LIST_STEPS, st.lists(st.sampled_from(["x", "one", "two", "missing"]), max_size=5))
@hypothesis_settings(deadline=None)
def test_list_behaves_as_a_list(steps, start):
    """After any sequence of calls a live list gives and holds what a list of literals does.

    Items whose secret is missing are there from the start, and never in the way.
    """
    live = LiveList(missing() if item == "missing" else stored(item) for item in start)
    plain = [literal(item) for item in start if item != "missing"]
    for method, *operands in steps:
        looks_up = method in ("remove", "index", "count", "__getitem__", "__delitem__", "pop")
        got = outcome(live, method, [(literal if looks_up else stored)(o) for o in operands])
        assert got == outcome(plain, method, [literal(o) for o in operands])
        assert [*live] == plain
        assert len(live) == len(plain)
        assert live == plain
