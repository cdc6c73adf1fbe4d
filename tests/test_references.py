"""References: what is one, what it means, and that it survives being written and read again."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from django_secret_registry.exceptions import InvalidReference
from django_secret_registry.references import AS, LOCATOR, SCHEME, SecretRef
from django_secret_registry.values import SecretBytes, SecretStr
from tests.canary import CANARY, canary

PIECES = ["aws", "://", ":", "/", "..", "?", "&", "=", "#", "%", "%2F", "%00", "%ff", "ref+", "~1"]
PIECES += [
    "region",
    "version",
    "stage",
    "project",
    "ttl",
    "as",
    "trim",
    "true",
    "bytes",
    "-",
    "300",
]
PIECES += ["e" * 300, "\n", "\x1b[31m", "é", "\u202e", "\ud800", "\0", " ", CANARY]

#: Any text, and text that looks like a reference more often than chance would have it.
texts = st.text(st.characters()) | st.lists(st.sampled_from(PIECES), max_size=12).map("".join)

printable = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1)
locators = st.just("") | st.from_regex(LOCATOR, fullmatch=True)
pointers = printable.map(lambda text: "/" + text.replace("~", "~0").replace("/", "~1"))
refs = st.builds(SecretRef, scheme=st.just(""), name=printable) | st.builds(
    SecretRef,
    scheme=st.from_regex(SCHEME, fullmatch=True),
    name=printable,
    region=locators | st.just("-"),
    project=locators,
    version=locators,
    stage=locators,
    ttl=st.none() | st.decimals("0.000001", 999_999_999, places=6).map(float),
    as_=st.sampled_from(AS),
    trim=st.booleans(),
    key=st.none() | pointers | printable.filter(lambda text: not text.startswith("/")),
)


@given(texts)
@example("a:%2F/b")
@example("ref+a:%2F/b")
@example("aws://x?ttl=0.000001")
@example("aws://x#\ud800")
def test_parsing_is_total(text):
    """Any text gives a reference that reads the same when it is written, or InvalidReference."""
    try:
        ref = SecretRef.parse(text)
    except InvalidReference:
        return
    assert SecretRef.parse(str(ref)) == ref
    assert str(ref).isprintable() or not text.isascii()


@given(refs)
@example(SecretRef("", "a://b"))
@example(SecretRef("", "ref+a://b"))
@example(SecretRef("a", "b://c"))
def test_written_reference_is_read_back(ref):
    """Any reference that is written parses to an equal one, and to the same with the mark."""
    assert SecretRef.parse(str(ref)) == ref
    if ref.scheme:
        assert SecretRef.parse(f"ref+{ref}") == ref


@given(texts, texts)
@example("aws://x?", "=1")
@example("aws://x?region=", "")
@example("", "://x")
@example("aws://", "%")
def test_error_does_not_repeat_the_text(before, after):
    """An error shows nothing of the text, which may be a secret, and has no cause or context."""
    error = None
    try:
        SecretRef.parse(before + canary() + after)
    except InvalidReference as exc:
        error = exc
    if error is not None:
        assert CANARY not in f"{error} {error!r} {error.args} {vars(error)}"
        assert (error.__cause__, error.__context__, error.reference) == (None, None, "")


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("stripe", SecretRef("", "stripe")),
        ("ref+stripe", SecretRef("", "ref+stripe")),
        ("aws://prod/db", SecretRef("aws", "prod/db")),
        ("ref+aws://prod/db#password", SecretRef("aws", "prod/db", key="password")),
        (
            "aws://arn:aws:secretsmanager:eu-west-1:123:secret:db-AbC",
            SecretRef("aws", "arn:aws:secretsmanager:eu-west-1:123:secret:db-AbC"),
        ),
        ("gcp://projects/p/secrets/s", SecretRef("gcp", "projects/p/secrets/s")),
        ("aws://a+b=c.d@e-f_g:h!", SecretRef("aws", "a+b=c.d@e-f_g:h!")),
        ("aws://a%2520b%23%3f%c3%a9", SecretRef("aws", "a%20b#?é")),
        ("aws://x?region=-", SecretRef("aws", "x", region="-")),
        (
            "v://x?region=eu-1&project=p&version=7&stage=previous&ttl=1.5&as=base64&trim=true",
            SecretRef("v", "x", "eu-1", "p", "7", "previous", 1.5, "base64", True),
        ),
        ("aws://x?trim=false&as=str", SecretRef("aws", "x")),
        ("aws://x#/a~1b/~0/0", SecretRef("aws", "x", key="/a~1b/~0/0")),
        ("aws://x#/", SecretRef("aws", "x", key="/")),
        ("aws://x#a?b=c#d%20~", SecretRef("aws", "x", key="a?b=c#d%20~")),
    ],
)
def test_what_a_reference_means(text, ref):
    """Each part of a reference arrives in its field; percent-encoding is decoded once."""
    assert SecretRef.parse(text) == ref


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no secret"),
        ("aws://", "names no secret"),
        ("://x", "scheme"),
        ("1aws://x", "scheme"),
        ("a b://x", "scheme"),
        ("ref+ref+aws://x", "scheme"),
        ("stripe?ttl=5", "entry"),
        ("stripe#key", "entry"),
        ("aws://x#", "without a key"),
        ("aws://x#/~2", "neither ~0 nor ~1"),
        ("aws://x#a\nb", "control character"),
        ("aws://x?", "not known"),
        ("aws://x?region", "not known"),
        ("aws://x?color=red", "not known"),
        ("aws://x?ttl=5&ttl=6", "gives 'ttl' twice"),
        ("aws://x?region=evil.example/", "region is not of the allowed form"),
        ("aws://x?region=..", "region is not of the allowed form"),
        ("aws://x?project=a@b", "project is not of the allowed form"),
        ("aws://x?version=1%2f", "version is not of the allowed form"),
        ("aws://x?stage=", "stage is not of the allowed form"),
        ("aws://x?stage=-", "stage is not of the allowed form"),
        ("aws://x?region=eu\n", "region is not of the allowed form"),
        ("aws://x?ttl=0", "positive number"),
        ("aws://x?ttl=-1", "positive number"),
        ("aws://x?ttl=1e9", "positive number"),
        ("aws://x?ttl=nan", "positive number"),
        ("aws://x?as=text", "as is not known"),
        ("aws://x?trim=yes", "trim is not known"),
        ("aws://a b", "percent-encoded"),
        ("aws://é", "percent-encoded"),
        ("aws://x\n", "percent-encoded"),
        ("aws://100%", "no percent-encoding"),
        ("aws://%zz", "no percent-encoding"),
        ("aws://%0a", "control character"),
        ("aws://%ff", "UTF-8"),
        ("aws://%ed%a0%80", "UTF-8"),
    ],
)
def test_what_is_no_reference(text, message):
    """A mistake is named together with what is allowed."""
    with pytest.raises(InvalidReference, match=message):
        SecretRef.parse(text)


@pytest.mark.parametrize("value", [SecretStr(canary()), SecretBytes(b"x"), b"aws://x", None, 1])
def test_what_is_no_text(value):
    """A secret's value and what is no str are TypeErrors that do not show what was given."""
    with pytest.raises(TypeError) as caught:
        SecretRef.parse(value)
    assert "reference" in str(caught.value)


def test_payload_is_the_whole_secret():
    """The payload's reference keeps where the secret lies and drops what is done with it."""
    ref = SecretRef.parse("aws://x?region=eu&version=1&ttl=5&as=bytes&trim=true#key")
    assert str(ref.payload()) == "aws://x?region=eu&version=1"


def test_reference_is_a_key():
    """Equal references are one dict key, and cannot be changed."""
    ref = SecretRef.parse("aws://x#a")
    assert {ref: 1}[SecretRef("aws", "x", key="a")] == 1
    with pytest.raises(AttributeError):
        ref.name = "y"


@pytest.mark.parametrize(("text", "is_entry"), [("stripe", True), ("aws://stripe", False)])
def test_entries_have_no_scheme(text, is_entry):
    """A bare name is an entry of SECRETS, what has a scheme is not."""
    assert SecretRef.parse(text).is_entry is is_entry
