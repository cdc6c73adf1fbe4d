"""From a payload to what the reference asks for."""

from __future__ import annotations

import base64
import json
import re
import string

import jsonpointer
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from django_secret_registry.exceptions import ProviderError, SecretError, SecretNotFound
from django_secret_registry.extract import extract
from django_secret_registry.references import SecretRef
from django_secret_registry.values import SecretBytes, SecretStr
from tests.canary import canary

VALUE = canary("value")


def take(payload, text="a://s", **fields):
    """Extract what the reference asks for from a text, bytes, or a document."""
    if not isinstance(payload, str | bytes):
        payload = json.dumps(payload)
    masked = SecretStr(payload) if isinstance(payload, str) else SecretBytes(payload)
    return extract(masked, SecretRef.parse(text).replace(**fields), region="eu")


def refused(kind, payload, text="a://s", **fields):
    """Return the error, after looking at all that it must and must not be."""
    with pytest.raises(SecretError) as caught:
        take(payload, text, **fields)
    error = caught.value
    assert type(error) is kind
    assert error.__cause__ is None
    assert error.__context__ is None
    assert (error.provider, error.region) == ("a", "eu")
    assert error.reference.startswith("a://s")
    assert canary() not in str(error)
    return error


def outcome(function, *args, **kwargs):
    """Return the value, or the error, which must be one of ours and lead to no other."""
    try:
        return function(*args, **kwargs)
    except SecretError as error:
        caught = error
    assert caught.__cause__ is caught.__context__ is None
    return caught


# -- a key of an object --------------------------------------------------------------------------


def test_without_key_the_payload_is_the_value():
    """A reference without key takes the payload as it is, JSON or not."""
    for payload in ("", "x", '{"a": 1}', "line\n", "\ufeff"):
        value = take(payload)
        assert value == payload
        assert type(value) is SecretStr


@pytest.mark.parametrize(
    "key",
    ["a", "a/b", "a~b", "a~1b", "~", "a?b", "a#b", "#", "a.b", "a b", "ä", "", "0", "a%20b", "&=?"],
)
def test_a_key_is_taken_literally(key):
    """A key that is no pointer is one key of the object, whatever characters it has."""
    document = {"": "other", "a": "other", "b": "other", key: VALUE}
    assert take(document, key=key) == VALUE


def test_a_key_from_text_is_all_behind_the_first_hash():
    """In the text of a reference the key begins behind the first ``#``, and nothing is decoded."""
    document = {"a?b#c%20~d/e": VALUE}
    assert take(document, "a://s#a?b#c%20~d/e") == VALUE


def test_a_missing_key_names_those_that_exist():
    """A key that is not there is not found, and the error names it and the keys, never a value."""
    error = refused(SecretNotFound, {"user": VALUE, "password": VALUE}, "a://s#Password")
    assert "'Password' does not exist" in str(error)
    assert "It has: 'user', 'password'." in str(error)


def test_no_end_of_keys_is_shown():
    """Of many keys, and of long ones, only a part is shown."""
    error = refused(SecretNotFound, {f"{i:03}" + "k" * 1000: VALUE for i in range(500)}, "a://s#x")
    assert "and 480 more" in str(error)
    assert len(str(error)) < 2000
    assert "It has: no keys." in str(refused(SecretNotFound, {}, "a://s#x"))
    assert len(str(refused(SecretNotFound, {}, "a://s", key="k" * 100).message)) < 200


def test_null_is_not_found():
    """A key whose value is null counts as missing, as a key and as a pointer."""
    for key in ("a", "/a"):
        error = refused(SecretNotFound, {"a": None, "b": VALUE}, key=key)
        assert "is null" in str(error)


@pytest.mark.parametrize("payload", [VALUE, "", "{", "'a'", "\ufeff{}", '{"a": 1} x', "{'a': 1}"])
def test_a_payload_that_is_no_json(payload):
    """A key of what is no JSON is a ProviderError without any of the payload."""
    for key in ("a", "/a"):
        assert "no JSON" in str(refused(ProviderError, payload, key=key))


@pytest.mark.parametrize("document", [12345, 1.5, True, None, [], [VALUE], f'"{VALUE}"'])
def test_a_key_of_what_is_no_object(document):
    """A key of JSON that is no object is a ProviderError: a default must not hide the mistake."""
    assert "no object" in str(refused(ProviderError, document, key="0"))
    if not isinstance(document, list):
        assert "no object" in str(refused(ProviderError, document, key="/0"))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("1", "1"),
        ("-0", "-0"),
        ("1.10", "1.10"),
        ("1E400", "1E400"),
        ("0.1000000000000000055511151231257827", "0.1000000000000000055511151231257827"),
        ("9" * 5000, "9" * 5000),
        ("true", "true"),
        ("false", "false"),
        ("[ 1.50, null, [ ] ]", "[1.50,null,[]]"),
        (
            '{"b" : {"c": 1.0, "d": "\\u00e4\\n"}, "a": [true]}',
            '{"b":{"c":1.0,"d":"ä\\n"},"a":[true]}',
        ),
        ('""', ""),
        ('"1.10"', "1.10"),
        ("NaN", "NaN"),
    ],
)
def test_what_is_no_string_is_given_as_compact_json(written, expected):
    """Numbers, truth values, lists and objects are compact JSON; numbers keep every digit."""
    assert take(f'{{"k": {written}, "other": 1e999}}', "a://s#k") == expected


def test_a_nested_document_survives_the_way_through():
    """An object under a key is JSON again, with the same content."""
    document = {"type": "service_account", "nested": [{"π": "\u2028 \x00"}, False, None]}
    assert json.loads(take({"k": document}, "a://s#k")) == document


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
@pytest.mark.parametrize("depth", [900, 10_000, 200_000])
def test_deep_nesting_is_no_crash(opening, closing, depth):
    """JSON that is nested past Python's limit is a ProviderError, wherever the limit lies."""
    inner = opening * depth + (f'"{VALUE}"' if opening != "[" else "") + closing * depth
    for key in ("deep", "/deep", "deeper"):
        found = outcome(take, f'{{"deep": {inner}}}', key=key)
        if isinstance(found, ProviderError):
            assert "nested too deeply" in str(found)
        elif key == "deeper":
            assert isinstance(found, SecretNotFound)
        else:
            assert len(found) == len(inner)


def test_duplicate_keys_take_the_last():
    """Of a key that stands twice the last one counts, as JSON parsers do."""
    assert take(f'{{"a": "x", "a": "{VALUE}"}}', "a://s#a") == VALUE


# -- pointers ------------------------------------------------------------------------------------

KEYS = st.text(alphabet="ab/~01-# ä", max_size=4) | st.sampled_from(
    ["", "0", "01", "-", "~1", "m~n"]
)
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet=string.printable, max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


def escaped(token):
    return token.replace("~", "~0").replace("/", "~1")


@st.composite
def pointers(draw, document):
    """Draw a pointer that mostly leads somewhere."""
    tokens = []
    for _ in range(draw(st.integers(1, 4))):
        choices = []
        if isinstance(document, dict):
            choices = list(document)
        elif isinstance(document, list):
            choices = [str(index) for index in range(len(document))]
        token = draw(st.sampled_from(choices) | KEYS) if choices else draw(KEYS)
        tokens.append(token)
        try:
            document = document[int(token) if isinstance(document, list) else token]
        except (LookupError, TypeError, ValueError):
            document = None
    return "".join("/" + escaped(token) for token in tokens)


def oracle(document, pointer):
    """Return what the reference implementation finds; KeyError where it finds nothing."""
    try:
        found = jsonpointer.resolve_pointer(document, pointer)
    except jsonpointer.JsonPointerException:
        raise KeyError(pointer) from None
    if found is None or isinstance(found, jsonpointer.EndOfList):
        raise KeyError(pointer)
    return found


@given(st.data())
def test_pointers_agree_with_another_implementation(data):
    """A key that begins with ``/`` is an RFC 6901 pointer, as jsonpointer understands them."""
    document = data.draw(st.lists(DOCUMENTS, max_size=4) | st.dictionaries(KEYS, DOCUMENTS))
    pointer = data.draw(pointers(document))
    ref = SecretRef.parse(f"a://s#{pointer}")
    payload = SecretStr(json.dumps(document))
    try:
        expected = oracle(document, pointer)
    except KeyError:
        with pytest.raises(SecretNotFound):
            extract(payload, ref)
    else:
        found = extract(payload, ref)
        assert (found if isinstance(expected, str) else json.loads(found)) == expected


RFC = {
    "foo": ["bar", "baz"],
    "": 0,
    "a/b": 1,
    "c%d": 2,
    "e^f": 3,
    "g|h": 4,
    "i\\j": 5,
    'k"l': 6,
    " ": 7,
    "m~n": 8,
}


@pytest.mark.parametrize(
    ("pointer", "expected"),
    [
        ("/foo", '["bar","baz"]'),
        ("/foo/0", "bar"),
        ("/", "0"),
        ("/a~1b", "1"),
        ("/c%d", "2"),
        ("/e^f", "3"),
        ("/g|h", "4"),
        ("/i\\j", "5"),
        ('/k"l', "6"),
        ("/ ", "7"),
        ("/m~0n", "8"),
    ],
)
def test_the_examples_of_the_rfc(pointer, expected):
    """Every example of RFC 6901, section 5, gives what the RFC says."""
    assert take(RFC, f"a://s#{pointer}") == expected


@pytest.mark.parametrize(
    "pointer", ["/foo/2", "/foo/-", "/foo/00", "/foo/+1", "/foo/\uff11", "/foo/1e0"]
)
def test_an_index_that_is_none(pointer):
    """A list has plain indices only: no sign, no leading zero, no end, no other digits."""
    assert "a list of 2" in str(refused(SecretNotFound, RFC, key=pointer))


def test_a_huge_index_is_not_found():
    """An index of more digits than Python converts is not found, as any that is too large."""
    refused(SecretNotFound, RFC, key="/foo/" + "9" * 5000)


def test_a_pointer_past_a_value_names_no_value():
    """Where a pointer goes on behind a string, the string is not shown."""
    error = refused(SecretNotFound, {"a": VALUE}, "a://s#/a/b")
    assert "no keys" in str(error)


def test_a_pointer_into_a_list_at_the_top():
    """A document may be a list, of which a pointer takes an item."""
    assert take([{"k": VALUE}], "a://s#/0/k") == VALUE


# -- as and trim ---------------------------------------------------------------------------------


def test_binary_is_no_text():
    """Bytes that are not UTF-8 are an error as text, and fine as bytes."""
    binary = b"\xff\xfe" + VALUE.encode()
    assert "binary" in str(refused(ProviderError, binary))
    assert "binary" in str(refused(ProviderError, binary, "a://s#key"))
    assert take(binary, "a://s?as=bytes") == binary
    assert take(VALUE.encode()) == VALUE


def test_bytes_within_json():
    """A key that is no UTF-8, escaped as PEP 383 does, gives its bytes, and is an error as text."""
    binary = b"\xff\xfe\xed\xb2\x80" + VALUE.encode()
    payload = json.dumps({"k": binary.decode(errors="surrogateescape"), "other": "ä"})
    assert take(payload, "a://s?as=bytes#k") == binary
    assert take(payload, "a://s?as=bytes&trim=true#/k") == binary
    assert take(payload, "a://s#other") == "ä"
    assert "binary" in str(refused(ProviderError, payload, "a://s#k"))


def test_text_as_bytes():
    """Text as bytes is UTF-8, and masked as bytes are."""
    value = take("ä", "a://s?as=bytes")
    assert value == "ä".encode()
    assert type(value) is SecretBytes


@pytest.mark.parametrize("as_", ["bytes", "base64"])
def test_half_a_surrogate_pair_shows_nothing(as_):
    """Text that no encoding can hold is an error of ours, without the text."""
    payload = json.dumps({"k": VALUE + "\ud800"})
    assert "surrogate" in str(refused(ProviderError, payload, f"a://s?as={as_}#k"))


@pytest.mark.parametrize(
    "written",
    [
        base64.b64encode(VALUE.encode()),
        base64.encodebytes(VALUE.encode() * 9)[:-1],
        b"\r\n " + base64.b64encode(VALUE.encode()) + b"\t\n",
    ],
)
def test_base64_with_any_white_space(written):
    """Base64 may be wrapped, indented and end in a newline, as tools write it."""
    decoded = base64.b64decode(written)
    assert take(written.decode(), "a://s?as=base64") == decoded
    assert take(written, "a://s?as=base64") == decoded
    assert take({"k": written.decode()}, "a://s?as=base64#k") == decoded


def test_empty_base64():
    """Nothing is the base64 of nothing."""
    assert take("", "a://s?as=base64") == b""


@pytest.mark.parametrize(
    "written", ["YQ", "YQ=", "YQ===", "Y", "Y-_=", "=YQ=", "YQ==YQ==", "ä", "%"]
)
def test_what_is_no_base64(written):
    """Missing padding, other alphabets and anything else is refused, without the text."""
    assert "no base64" in str(refused(ProviderError, written, "a://s?as=base64"))
    assert "no base64" in str(refused(ProviderError, f"{written}{VALUE}%", "a://s?as=base64"))


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ("x\n", "x"),
        ("x\r\n", "x"),
        ("x\n\n", "x\n"),
        ("x\r\n\r\n", "x\r\n"),
        ("x\r", "x\r"),
        ("x ", "x "),
        ("\nx", "\nx"),
        ("\n", ""),
        ("", ""),
        ("x\u2028", "x\u2028"),
    ],
)
def test_trim_takes_one_newline(payload, expected):
    """``trim=true`` strips one newline from the end and nothing else, of text and of bytes."""
    assert take(payload, "a://s?trim=true") == expected
    assert take(payload, "a://s?trim=false") == payload
    assert take(payload, "a://s?trim=true&as=bytes") == expected.encode()
    assert take({"k": payload}, "a://s?trim=true#k") == expected


@given(st.text() | st.binary(), st.sampled_from(["", "#k", "#/k", "#/0/a"]), st.booleans())
@example(VALUE, "#k", True)
def test_any_payload_gives_a_value_or_an_error_of_ours(payload, key, trim):
    """Whatever a secret holds, each way of asking gives a masked value or a SecretError."""
    for as_ in ("str", "bytes", "base64"):
        ref = SecretRef.parse(f"a://s?as={as_}&trim={str(trim).lower()}{key}")
        masked = SecretStr(payload) if isinstance(payload, str) else SecretBytes(payload)
        value = outcome(extract, masked, ref)
        if not isinstance(value, SecretError):
            assert type(value) is (SecretStr if as_ == "str" else SecretBytes)


def test_the_order_is_key_trim_decode():
    """The key is taken first, then the newline, then the encoding."""
    written = base64.b64encode(b"x\n").decode() + "\n"
    assert take({"k": written}, "a://s?as=base64&trim=true#k") == b"x\n"


def test_an_error_repeats_nothing_of_a_long_payload():
    """No run of characters of a payload shows in the error about it."""
    payload = "".join(VALUE + str(number) for number in range(2000))
    error = refused(ProviderError, payload, "a://s#k")
    assert not re.search(r"k\d", str(error).replace("#k", ""))
