"""Values: real text and bytes that do not show themselves and do not travel."""

from __future__ import annotations

import base64
import copy
import dataclasses
import hmac
import io
import json
import logging
import multiprocessing
import pickle
import re
import string
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_secret_registry.values import SecretBytes, SecretStr, SecretValue
from tests.canary import CANARY, canary

MASKED = "SecretStr('**********')"
MASKED_BYTES = "SecretBytes('**********')"


def test_text_hides_in_every_repr():
    """No way to ask for a repr shows the text: containers, f-strings, %, templates, logging."""
    secret = SecretStr(canary())
    assert repr(secret) == MASKED
    assert repr([secret]) == str([secret]) == f"[{MASKED}]"
    assert f"{secret!r} {secret!a}" == f"{MASKED} {MASKED}"
    assert f"{secret=}" == f"secret={MASKED}"
    assert "%r" % secret == "{!r}".format(secret) == MASKED  # noqa: UP031, UP032
    assert str({"key": secret}) == f"{{'key': {MASKED}}}"
    record = logging.LogRecord("x", 20, "x", 1, "%s", ({"key": secret},), None)
    assert CANARY not in record.getMessage()


def test_bytes_hide_in_repr_and_str():
    """Bytes hide in str() and format() too, where bytes show themselves as in their repr."""
    secret = SecretBytes(canary().encode())
    assert repr(secret) == str(secret) == f"{secret}" == f"{secret!s}" == MASKED_BYTES
    assert f"{secret=} {[secret]}" == f"secret={MASKED_BYTES} [{MASKED_BYTES}]"
    assert "%s" % secret == "{}".format(secret) == MASKED_BYTES  # noqa: UP031, UP032


@pytest.mark.parametrize("secret", [SecretStr(canary()), SecretBytes(b"x"), SecretValue("x")])
def test_copies_are_the_same_object(secret):
    """Copying gives the same object, alone and within a structure."""
    assert copy.copy(secret) is secret
    assert copy.deepcopy(secret) is secret
    assert copy.deepcopy({"a": [secret]})["a"][0] is secret


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    ("secret", "reason"),
    [
        (SecretStr(canary()), r"SecretStr is not pickled.*call str\(value\)"),
        (SecretBytes(b"x"), r"SecretBytes is not pickled.*call bytes\(value\)"),
        (SecretValue(canary()), "SecretValue is not pickled"),
    ],
)
def test_pickling_is_refused(secret, reason, protocol):
    """Pickling raises a TypeError that says why, and writes nothing of the value before."""
    file = io.BytesIO()
    with pytest.raises(TypeError, match=reason):
        pickle.Pickler(file, protocol).dump([secret])
    assert CANARY.encode() not in file.getvalue()


def test_sending_to_another_process_is_refused():
    """A pipe between processes pickles, so it refuses too."""
    reader, writer = multiprocessing.Pipe()
    with reader, writer, pytest.raises(TypeError, match="not pickled"):
        writer.send(SecretStr(canary()))


def test_text_is_accepted_where_text_is():
    """The standard library takes it for the text it is, C code included."""
    text, secret = canary(), SecretStr(canary())
    assert isinstance(secret, str)
    assert secret == text
    assert hash(secret) == hash(text)
    assert {text: 1}[secret] == 1
    assert json.dumps({"a": secret}) == json.dumps({"a": text})
    assert json.JSONEncoder(indent=1).encode([secret]) == json.JSONEncoder(indent=1).encode([text])
    assert re.fullmatch(re.escape(text), secret)
    assert re.compile(secret).match(text)
    assert "".join(["x", secret]) == "x" + text  # noqa: FLY002
    assert secret + "x" == text + "x"
    assert f"{secret}" == str(secret) == "%s" % secret == text  # noqa: UP031
    assert string.Template("$s").substitute(s=secret) == text
    assert hmac.compare_digest(secret, text)
    assert base64.b64encode(secret.encode()) == base64.b64encode(text.encode())
    assert quote(secret, safe="") == quote(text, safe="")
    assert urlencode({"k": secret}) == urlencode({"k": text})
    assert io.StringIO(secret).read() == text


def test_bytes_are_accepted_where_bytes_are():
    """The standard library takes them for the bytes they are."""
    data, secret = canary().encode(), SecretBytes(canary().encode())
    assert isinstance(secret, bytes)
    assert secret == data
    assert b"".join([secret, b"x"]) == data + b"x"
    assert b"%s" % secret == data
    assert secret.decode() == canary()
    assert bytes(memoryview(secret)) == data
    assert hmac.new(secret, b"x", "sha256").digest() == hmac.new(data, b"x", "sha256").digest()
    assert re.match(re.escape(data), secret)


@given(st.text(st.characters()))
def test_any_text_stays_itself(text):
    """Whatever the text, it is equal to itself, and its plain copy is an ordinary str."""
    secret = SecretStr(text)
    assert secret == text
    assert type(str(secret)) is str
    assert str(secret) == text
    assert repr(secret) == MASKED


@given(st.binary())
def test_any_bytes_stay_themselves(data):
    """Whatever the bytes, they are equal to themselves, and their plain copy is ordinary bytes."""
    secret = SecretBytes(data)
    assert secret == data
    assert type(bytes(secret)) is bytes
    assert bytes(secret) == data
    assert repr(secret) == str(secret) == MASKED_BYTES


@pytest.mark.parametrize(
    ("given_value", "kind"),
    [
        (canary(), SecretStr),
        (SecretStr(canary()), SecretStr),
        (canary().encode(), SecretBytes),
        (SecretBytes(canary().encode()), SecretBytes),
        (bytearray(b"x"), SecretBytes),
        (memoryview(b"x"), SecretBytes),
    ],
)
def test_value_wraps_what_a_provider_gives(given_value, kind):
    """Plain text and bytes become SecretStr and SecretBytes; what is one already stays itself."""
    value = SecretValue(given_value).value
    assert type(value) is kind
    assert value == given_value
    assert isinstance(given_value, kind) is (value is given_value)


@pytest.mark.parametrize("given_value", [None, 1, [canary()], {"a": canary()}])
def test_value_refuses_what_is_no_payload(given_value):
    """Another type is a TypeError that names the type only."""
    with pytest.raises(TypeError, match=f"not {type(given_value).__name__}$"):
        SecretValue(given_value)


def test_value_shows_metadata_only():
    """The repr of a SecretValue shows version and times, neither value nor lease."""
    value = SecretValue(canary(), "7", 2.0, 1.0, lease_id=canary("lease"))
    assert repr(value) == "SecretValue(version='7', expires_at=2.0, fetched_at=1.0)"
    assert dataclasses.replace(value, fetched_at=3.0).value is value.value


def test_value_cannot_be_changed():
    """A SecretValue is immutable."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        SecretValue(canary()).version = "2"
