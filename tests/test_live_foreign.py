"""Live containers in the hands of code that does not know them; see ``docs/live-settings.md``."""

from __future__ import annotations

import collections
import json
import marshal
import sqlite3
import subprocess
import types
import urllib.parse
from collections.abc import Callable
from typing import Any

import pytest
from django.conf import settings as django_settings

from django_secret_registry import SecretStr, secret
from django_secret_registry.live import LazySecret
from tests.canary import CANARY, canary
from tests.live_support import configured

KEY, OTHER = canary("key"), canary("other")
PLAIN = {"k": KEY, "user": "app"}
live: Any = django_settings


@pytest.fixture(autouse=True)
def _vault(settings: Any) -> None:
    configured(settings, {"key": KEY, "other": OTHER})
    settings.D = {"k": secret("vault://key"), "user": "app"}
    settings.L = [secret("vault://key"), "app"]
    settings.T = ("app", secret("vault://other"))


def updated(other: Any, method: str, given: Any) -> Any:
    getattr(other, method)(given)
    return other


def called(*arguments: Any, **keywords: Any) -> tuple[Any, Any]:
    return arguments, keywords


def matched(subject: Any) -> Any:
    match subject:
        case {"k": value, **rest}:
            return {"k": value, **rest}
        case [first, *rest]:
            return [first, *rest]


READERS: dict[str, tuple[Callable[[], Any], Any]] = {
    "dict": (lambda: dict(live.D), PLAIN),
    "unpacking": (lambda: {**live.D}, PLAIN),
    "keyword arguments": (lambda: called(**live.D)[1], PLAIN),
    "union": (lambda: {} | live.D | {}, PLAIN),
    "update": (lambda: updated({}, "update", live.D), PLAIN),
    "OrderedDict": (lambda: collections.OrderedDict(live.D), PLAIN),
    "ChainMap": (lambda: dict(collections.ChainMap({}, live.D)), PLAIN),
    "UserDict": (lambda: dict(collections.UserDict(live.D)), PLAIN),
    "MappingProxyType": (lambda: dict(types.MappingProxyType(live.D)), PLAIN),
    "copy of a proxy": (lambda: types.MappingProxyType(live.D).copy()["k"], KEY),
    "SimpleNamespace": (lambda: vars(types.SimpleNamespace(**live.D)), PLAIN),
    "format_map": (lambda: "{k}".format_map(live.D), KEY),
    "percent": (lambda: "%(k)s" % live.D, KEY),  # noqa: UP031
    "match": (lambda: matched(live.D), PLAIN),
    "match a list": (lambda: matched(live.L), [KEY, "app"]),
    "unpacked list": (lambda: [*live.L], [KEY, "app"]),
    "slice": (lambda: live.L[:1], [KEY]),
    "join": (lambda: "-".join(live.L), f"{KEY}-app"),
    "extend": (lambda: updated([], "extend", live.L), [KEY, "app"]),
    "tuple": (lambda: tuple(live.T), ("app", OTHER)),
    "arguments": (lambda: called(*live.T)[0], ("app", OTHER)),
    "suffixes": (lambda: KEY.endswith(tuple(live.L)), True),
    "json": (lambda: json.loads(json.dumps([live.D, live.L])), [PLAIN, [KEY, "app"]]),
    "urlencode": (lambda: urllib.parse.parse_qs(urllib.parse.urlencode(live.D))["k"], [KEY]),
    "sqlite by name": (lambda: queried(":k, :user", live.D), (KEY, "app")),
    "sqlite by place": (lambda: queried("?, ?", live.L), (KEY, "app")),
    "arguments of a process": (lambda: length("$1", *live.L), len(KEY)),
    "environment of a process": (lambda: length("$k", env=live.D), len(KEY)),
}


def queried(places: str, values: Any) -> Any:
    connection = sqlite3.connect(":memory:")
    try:
        return connection.execute(f"SELECT {places}", values).fetchone()
    finally:
        connection.close()


def length(what: str, *arguments: str, env: Any = None) -> int:
    """Return the length of what another process is given: the value itself is not to be seen."""
    command = ["/bin/sh", "-c", f'v="{what}"; echo "${{#v}}"', "sh", *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.parametrize(("read", "wanted"), READERS.values(), ids=READERS)
def test_readers_that_ask_get_values(read: Callable[[], Any], wanted: Any) -> None:
    """The standard library and the C code behind its syntax hand out values, and no marker."""
    found = read()
    assert found == wanted
    if isinstance(found, dict | list | tuple):
        values = found.values() if isinstance(found, dict) else found
        assert not any(isinstance(value, LazySecret) for value in values)


def test_format_and_join_give_plain_text() -> None:
    """What is made from a value is plain text; the value itself is masked."""
    assert type("{k}".format_map(live.D)) is str
    assert type(live.D["k"]) is SecretStr


PAST: dict[str, Callable[[], Any]] = {
    "marshal": lambda: marshal.dumps(live.D),
    "suffixes": lambda: OTHER.endswith(live.T),
}


@pytest.mark.parametrize("read", PAST.values(), ids=PAST)
def test_readers_of_memory_stop(read: Callable[[], Any]) -> None:
    """What goes past the methods of a list or a dict meets a marker, and says so."""
    with pytest.raises((TypeError, ValueError)) as caught:
        read()
    assert CANARY not in str(caught.value)


def test_orjson() -> None:
    """``orjson`` takes the value of a setting as it is, and a container with ``default=str``."""
    orjson = pytest.importorskip("orjson", reason="needs orjson: pip install orjson")
    assert orjson.loads(orjson.dumps(live.D["k"])) == KEY
    assert orjson.loads(orjson.dumps([live.D, live.L], default=str)) == [PLAIN, [KEY, "app"]]
    with pytest.raises(TypeError, match="LazySecret"):
        orjson.dumps(live.D)


def test_pydantic() -> None:
    """``pydantic`` takes a dict of settings as it is, and a list as ``list(...)``."""
    pydantic = pytest.importorskip("pydantic", reason="needs pydantic: pip install pydantic")
    model = pydantic.create_model("Model", k=(str, ...), user=(str, ...))
    for given in (model(**live.D), model.model_validate(live.D)):
        assert given.model_dump() == PLAIN
    words = pydantic.TypeAdapter(list[str])
    assert words.validate_python(list(live.L)) == [KEY, "app"]
    with pytest.raises(pydantic.ValidationError) as caught:
        words.validate_python(live.L)
    assert CANARY not in str(caught.value)
    assert json.loads(pydantic.TypeAdapter(dict).dump_json(dict(live.D))) == PLAIN
    with pytest.raises(Exception, match="LazySecret"):
        pydantic.TypeAdapter(dict).dump_json(live.D)
