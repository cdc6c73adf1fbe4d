"""``secret()`` and the marker that it returns."""

from __future__ import annotations

import copy
import operator
import os
import pickle
import re
from pathlib import Path

import pytest
from django.conf import settings as django_settings
from django.utils.encoding import force_bytes

from django_secret_registry import (
    InvalidReference,
    ProviderError,
    ProviderUnavailable,
    SecretBytes,
    SecretStr,
)
from django_secret_registry.live import secret
from tests.canary import canary
from tests.live_support import Project, Script, configured

VALUE = canary("value")


@pytest.fixture
def vault(settings) -> Script:
    return configured(
        settings,
        {"key": VALUE, "port": "5432", "raw": b"\x00" + VALUE.encode()},
        SECRETS={"entry": "vault://key"},
    )


@pytest.fixture
def project(tmp_path) -> Project:
    return Project(tmp_path).write()


# -- as it is written ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["", "a b", "x://", "aws://a?b=c", "entry#key", "aws://a#", "a%zz"]
)
def test_malformed_reference_is_refused_where_it_is_written(text):
    """secret() raises InvalidReference for text that is no reference, and does not repeat it."""
    with pytest.raises(InvalidReference) as caught:
        secret(text)
    assert len(text) < 2 or text not in str(caught.value)


@pytest.mark.parametrize("value", [None, 3, SecretStr(VALUE), SecretBytes(b"x"), secret("a")])
def test_reference_is_text_and_no_value(value):
    """secret() raises TypeError for what is no text, a secret's value and a marker included."""
    with pytest.raises(TypeError):
        secret(value)


def test_default_is_a_literal():
    """A default cannot be another secret."""
    with pytest.raises(TypeError, match="literal"):
        secret("vault://key", default=secret("vault://other"))


def test_shows_its_reference(vault):
    """The repr is how the marker was written: no value, no default, no function."""
    assert repr(secret("vault://key", default="shown?")) == "secret('vault://key')"
    assert repr(secret("entry").map(str.upper).map(len)) == "secret('entry').map(...).map(...)"


def test_hides_text_that_turns_out_to_be_no_reference(vault):
    """Once aliases and entries are known, text that names none is not shown: it may be a secret."""
    for text in (f"postgres://app:{VALUE}@host/db", VALUE):
        assert VALUE not in repr(secret(text))
        with pytest.raises(Exception, match=r"entry|provider") as caught:
            str(secret(text))
        assert VALUE not in str(caught.value)


def test_copies_are_the_marker_itself():
    """copy and deepcopy of a marker give the same object, so that it is cached once."""
    marker = secret("vault://key")
    assert copy.copy(marker) is copy.deepcopy([marker])[0] is marker


def test_pickles_as_its_reference(vault):
    """A pickled marker reads the same secret, with the same default and functions."""
    marker = secret("vault://key").map(str.upper)
    assert str(marker) == VALUE.upper()
    data = pickle.dumps([marker, secret("vault://missing", default="x")])
    twin, other = pickle.loads(data)
    assert VALUE.encode() not in data
    assert str(twin) == VALUE.upper()
    assert str(other) == "x"
    with pytest.raises(Exception, match=r"pickle|local object"):
        pickle.dumps(marker.map(lambda value: value))


def test_markers_compare_without_a_fetch(vault):
    """Markers are equal when they were written alike."""
    assert secret("vault://key") == secret("vault://key")
    assert secret("vault://key") != secret("vault://port")
    assert secret("vault://key") != secret("vault://key", default=None)
    assert secret("vault://key") != secret("vault://key").map(str.upper)
    assert secret("vault://key") != None  # noqa: E711
    assert vault.fetched == []


# -- as text -------------------------------------------------------------------------------------

USES = {
    "str": str,
    "format": lambda v: f"{v:>40}|{v!s}",
    "%": lambda v: operator.mod("%s and %s", (v, v)),
    "% of it": lambda v: v % (),
    "==": lambda v: (v == VALUE, v == "x", v != VALUE, v == 3, operator.eq(VALUE, v)),
    "order": lambda v: (v < "z", v <= VALUE, v > "a", v >= VALUE, v < v + "x", v > "a"),
    "+": lambda v: v + "!" + v,
    "reflected +": lambda v: "!" + v,
    "*": lambda v: (v * 2, 2 * v),
    "len": len,
    "bool": bool,
    "in": lambda v: ("-" in v, "Q" in v),
    "iter": list,
    "[]": lambda v: (v[0], v[1:3], v[-1]),
    "method": lambda v: (v.upper(), v.encode(), v.startswith("x"), v.split("-", maxsplit=1)),
    "format method": lambda v: operator.methodcaller("format", v, x=v)("{} {x}"),
    "fspath": lambda v: (os.fspath(v), Path("/run", v), Path(v)),
    "force_bytes": force_bytes,
    "sorted": lambda v: sorted([v, "a", "z"])[1:2],
    "replace": lambda v: "x".replace("x", str(v)),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_acts_as_text(vault, use):
    """Where a marker itself is met, once Django is set up, it does what its text does."""
    assert use(secret("vault://key")) == use(VALUE)


def test_acts_as_number_text_and_bytes(vault):
    """int and float read a number in the text; a binary secret acts as bytes."""
    assert (int(secret("vault://port")), float(secret("vault://port"))) == (5432, 5432.0)
    assert bytes(secret("vault://raw?as=bytes")) == b"\x00" + VALUE.encode()
    assert secret("vault://raw?as=bytes").decode() == "\x00" + VALUE


def test_has_the_attributes_of_text_only(vault):
    """hasattr answers without a fetch; other attributes do not exist."""
    marker = secret("vault://key")
    assert hasattr(marker, "encode")
    assert not hasattr(marker, "resolve_expression")
    assert not hasattr(marker, "__html__")
    assert not callable(marker)
    assert vault.fetched == []


def test_hash_is_the_identity(vault):
    """A marker can be hashed without a fetch, and hashes stay while values rotate."""
    marker = secret("vault://key")
    kept = {marker: 1}
    assert vault.fetched == []
    vault.rotate("key", canary("new"))
    assert kept[marker] == 1


# -- map -----------------------------------------------------------------------------------------


def test_map_is_called_once_per_value(vault):
    """Functions run once for each fetched value, in their order, however often it is read."""
    calls = []

    def note(value: str) -> str:
        calls.append(type(value))
        return f"<{value}>"

    marker = secret("vault://key").map(note).map(str.upper)
    assert [str(marker) for _ in range(3)] == [f"<{VALUE}>".upper()] * 3
    assert calls == [SecretStr]
    vault.rotate("key", canary("new"))
    now = {str(marker) for _ in range(2)}
    assert now == {f"<{canary('new')}>".upper()}
    assert len(calls) == 2


def test_map_makes_a_new_marker(vault):
    """Each .map is a marker of its own; the one it was called on stays as it was."""
    marker = secret("vault://key")
    first, second = marker.map(lambda value: "1" + value), marker.map(lambda value: "2" + value)
    assert (str(first), str(marker), str(second)) == ("1" + VALUE, VALUE, "2" + VALUE)
    assert vault.fetched == ["key"]


def test_function_may_read_other_settings(settings, vault):
    """A .map function may read a live setting, one of the same secret included, and its own."""
    vault.values["json"] = f'{{"user": "app", "password": "{VALUE}"}}'
    settings.DB_USER = secret("vault://json#user").map(str.upper)
    settings.DB_URL = secret("vault://json#password").map(
        lambda value: f"{django_settings.DB_USER}:{value}"
    )
    assert f"APP:{VALUE}" == django_settings.DB_URL
    settings.OUROBOROS = secret("vault://key").map(lambda value: django_settings.OUROBOROS + value)
    with pytest.raises(ProviderError):
        _ = django_settings.OUROBOROS


@pytest.mark.parametrize("error", [KeyError, AttributeError, ValueError, UnicodeError])
def test_function_that_fails_shows_no_value(vault, error):
    """What a .map function raises becomes a ProviderError without the value, cause or context."""

    def fail(value: str) -> str:
        raise error(value)

    with pytest.raises(ProviderError, match=error.__name__) as caught:
        str(secret("vault://key").map(fail))
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_default_is_for_missing_secrets_only(vault):
    """A default is used, as it is, when the secret is not found; an outage and a denial raise."""
    marker = secret("vault://missing", default="literal").map(str.upper)
    assert f"{marker}" == "literal"
    vault.error = ProviderUnavailable("down")
    vault.rotate("missing", "x")
    with pytest.raises(ProviderUnavailable):
        str(marker)


# -- before Django is set up ---------------------------------------------------------------------

USES_IN_SETTINGS = [
    *("f'{S}'", "str(S)", "S + 'x'", "'x' + S", "S == 'x'", "S != 'x'", "len(S)", "bool(S)"),
    *("list(S)", "'x' in S", "S[0]", "S.encode()", "'%s' % S", "int(S)", "os.fspath(S)", "S < 'x'"),
]


def test_use_while_settings_load_says_to_map(project):
    """Each use of the value in settings raises SecretNotReady: reference, and what to write."""
    project.write(
        f"""
        import os
        from django_secret_registry import SecretNotReady
        S = secret("vault://key#k")
        for use in {USES_IN_SETTINGS!r}:
            try:
                eval(use)
            except SecretNotReady as error:
                assert "'vault://key#k'" in str(error) and ".map(" in str(error), error
            else:
                raise AssertionError(use)
        assert S != None and S == S and S in [S] and {{S: 1}}[S] == 1 and "vault" in repr(S)
        MAPPED = S.map(str.upper)
        """
    )
    assert project.python("from django.conf import settings; settings.MAPPED").stdout == ""


def test_project_without_the_app_is_told_so(project):
    """A marker that is used in a project without the app says what to add to INSTALLED_APPS."""
    project.write("INSTALLED_APPS = []\nKEY = secret('vault://key')")
    done = project.manage(
        "shell", "-c", "from django.conf import settings; settings.KEY + ''", code=1
    )
    last = done.stderr.strip().splitlines()[-1]
    assert re.search(r"SecretNotReady: .*without the app.*'vault://key'.*INSTALLED_APPS", last)


def test_project_that_is_not_set_up_is_told_so(project):
    """A script that forgets django.setup() is told so."""
    project.write("KEY = secret('vault://key')")
    done = project.python("from django.conf import settings; str(settings.KEY)", code=1)
    last = done.stderr.strip().splitlines()[-1]
    assert re.search(r"SecretNotReady: .*'vault://key'.*django\.setup\(\)", last)


def test_importing_it_is_cheap(project):
    """secret() can be imported without settings; that loads no SDK and configures nothing."""
    project.python(
        """
        import sys
        from django_secret_registry import secret
        secret("aws://a#b").map(str)
        from django.conf import settings
        assert not settings.configured
        loaded = {name.partition(".")[0] for name in sys.modules}
        assert not loaded & {"boto3", "botocore", "google", "grpc", "prometheus_client"}, loaded
        """,
        DJANGO_SETTINGS_MODULE="",
    )
