"""Values that are held are found in any text, and masked; in a log and in events for Sentry too."""

from __future__ import annotations

import base64
import html
import json
import logging
import pprint
import threading
import time
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from django.conf import settings as live
from hypothesis import assume, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from django_secret_registry import ProviderUnavailable, SecretBytes, SecretStr, registry, secret
from django_secret_registry.lifecycle import CachePolicy
from django_secret_registry.needles import MOST_LEAVES, SHORTEST, Needles
from django_secret_registry.redaction import SecretFilter, before_send, redacted
from django_secret_registry.values import MASK
from tests.canary import CANARY, canary
from tests.live_support import configured
from tests.scripted import Script, alias, at_once, entry, make, until

VALUE = canary("a 'value' & \"more\" +%/é")
PHRASE = " ".join(canary(f"word{number}") for number in range(10))


def holding(*texts: str) -> Needles:
    needles = Needles()
    needles.put("owner", texts)
    return needles


WRITTEN = {
    "raw": lambda v: v,
    "in a url": lambda v: f"amqp://app:{quote(v, safe='')}@mq/",
    "in a path": lambda v: f"https://host/{quote(v)}/x",
    "in a query": lambda v: f"https://host/?a=b+c&key={quote_plus(v)}&d=%41",
    "encoded in lower case": lambda v: quote(v, safe="").lower(),
    "basic": lambda v: "Basic " + base64.b64encode(f"app:{v}".encode()).decode(),
    "urlsafe": lambda v: "/hook/" + base64.urlsafe_b64encode(v.encode()).decode().rstrip("="),
    "base64, shifted": lambda v: base64.b64encode(f"ab{v}cd".encode()).decode(),
    "repr": lambda v: f"failed with {v!r}",
    "repr in both quotes": lambda v: repr(f'it\'s "{v}"'),
    "repr in an error": lambda v: repr(ValueError(f"bad {v!r}")),
    "ascii": lambda v: f"{ValueError(v.encode())!r}",
    "json": lambda v: json.dumps({"in": [v]}),
    "json in json": lambda v: json.dumps(json.dumps({"in": v})),
    "html": lambda v: f"<p>{html.escape(v)}</p>",
    "html of repr": lambda v: f"<pre>{html.escape(repr(v))}</pre>",
}


@pytest.mark.parametrize("write", WRITTEN.values(), ids=WRITTEN)
def test_a_value_is_found_as_it_is_written(write: Any) -> None:
    """However the usual writers encode a value, it is masked, and what stands around it is not."""
    text = f"before {write(VALUE)} after"
    masked = holding(VALUE).redact(text)
    assert CANARY not in masked
    assert MASK in masked
    assert masked.startswith("before ")
    assert masked.endswith(" after")
    assert holding("another-value").redact(text) == text


def test_bytes_are_found() -> None:
    """Bytes that are no UTF-8 are masked as ``repr`` writes them, and in base64."""
    script = Script({"binary": b"\xff\x00" + canary().encode()})
    secrets = make(alias("t", script))
    value = bytes(secrets.get("t://binary?as=bytes"))
    for text in (repr(value), repr([repr(value)]), base64.b64encode(value).decode()):
        assert CANARY not in secrets.redact(text)
        assert secrets.redact(base64.b64encode(value).decode()) == MASK


#: Half surrogate pairs, which JSON may have, included.
anything = st.text(st.characters(exclude_categories=()))


@examples(deadline=None)
@given(st.text(st.characters(exclude_categories=()), min_size=SHORTEST), anything, anything)
def test_any_value_is_found_in_any_text(value: str, before: str, after: str) -> None:
    """What was put is in no text that comes out, wherever it stood and whatever it is."""
    value = value.strip()
    assume(len(value) >= SHORTEST and value not in MASK * 3)
    masked = holding(value).redact(f"{before}{value}{after}")
    assert value not in masked.replace(MASK, "")
    assert MASK in masked


@examples(deadline=None)
@given(st.binary(min_size=SHORTEST))
def test_any_bytes_are_found(value: bytes) -> None:
    """Whatever bytes there are, a mistake in masking them would be an error on an error page."""
    text = value.decode(errors="surrogateescape").strip()
    assume(len(text) >= SHORTEST)
    data = text.encode(errors="surrogateescape")
    assert holding(text).redact(repr(data))[2:-1] == MASK
    assert holding(text).redact(f"?x={quote(data)}") == f"?x={MASK}"


@examples(deadline=None)
@given(st.lists(anything))
def test_what_was_dropped_leaves_nothing(texts: list[str]) -> None:
    """Whatever was put, again, and dropped: the index is as empty as before."""
    needles = holding(*texts)
    needles.put("other", texts[:1])
    needles.put("owner", texts)
    needles.drop("owner")
    needles.drop("other")
    assert not needles._owned
    assert not needles._owners
    assert not needles._pieces


@examples(deadline=None)
@given(anything)
def test_other_texts_stay_as_they_are(text: str) -> None:
    """A text without a value comes out as the same text."""
    assert holding(VALUE, "0" * 60).redact(text) == text


def test_short_values_are_masked_only_when_whole() -> None:
    """ "dev" is no reason to mask "device"; alone it is masked."""
    needles = holding("dev", "1234567", "12345678")
    assert needles.redact("dev") == MASK
    assert needles.redact("device 12345670") == "device 12345670"
    assert needles.redact("device 012345678") == f"device 0{MASK}"


def test_lines_of_a_key_are_found_one_by_one() -> None:
    """A printer that breaks a PEM file apart shows none of its lines, and its frame is text."""
    lines = [canary(f"line-{number}-{'x' * 40}") for number in range(3)]
    pem = "\n".join(("-----BEGIN PRIVATE KEY-----", *lines, "-----END PRIVATE KEY-----"))
    needles = holding(pem)
    assert needles.redact(pem) == MASK
    assert CANARY not in needles.redact(pprint.pformat({"key": pem}, width=60))
    assert needles.redact("-----BEGIN PRIVATE KEY-----") == "-----BEGIN PRIVATE KEY-----"


def test_strings_of_a_document_are_found() -> None:
    """Each string of a JSON document is masked by itself; the words of its connection are not."""
    document = {
        "username": "postgres-app",
        "engine": "postgresql",
        "login": {"password": canary("deep"), "codes": [canary("in-a-list"), 1234567890]},
        "username_of": {"vault": canary("nested")},
    }
    secrets = make(alias("t", Script({"document": json.dumps(document)})))
    for text in ("t://document", "t://document#username", "t://document#/login/password"):
        secrets.get(text)
    text = f"{document} {json.dumps(document)}"
    masked = secrets.redact(f"postgresql of postgres-app {document['login']}")
    assert masked.startswith("postgresql of postgres-app {")
    assert CANARY not in masked
    assert "1234567890" not in masked
    assert CANARY not in secrets.redact(text)


def test_a_password_that_is_also_the_name_is_masked() -> None:
    """What stands in a document both as a password and as a name is a password."""
    document = json.dumps({"username": "postgres", "password": "postgres"})
    secrets = make(alias("t", Script({"document": document})))
    secrets.get("t://document#username")
    assert secrets.redact("user postgres") == f"user {MASK}"


def test_a_large_document_costs_no_more_than_a_bounded_number_of_strings() -> None:
    """Of a document with very many strings the first are known; the document is, as a whole."""
    document = json.dumps([canary(f"string-{number}") for number in range(3 * MOST_LEAVES)])
    secrets = make(alias("t", Script({"document": document})))
    secrets.get("t://document")
    secrets.redact("x")
    needles = secrets._resolver.cache._store.hits.needles
    assert needles is not None
    assert MOST_LEAVES <= len(needles._owners) < 1.1 * MOST_LEAVES + 10
    assert secrets.redact(document) == MASK


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": NaN, "b": 1e999}', '["\\ud800xxxxxxxx"]'])
def test_a_hostile_document_harms_nobody(text: str) -> None:
    """JSON that is nested too deeply, or odd, is a text like another."""
    secrets = make(alias("t", Script({"document": text})))
    secrets.get("t://document")
    assert secrets.redact(f"x {text} y") == f"x {MASK} y"


# -- what is held --


def test_what_is_held_now_is_masked() -> None:
    """From the first read on, through a refresh and until the eviction."""
    script = Script({"a": VALUE, "user": f"app:{canary('pair')}"})
    secrets = make(alias("t", script), entry("both", members={"one": "t://a", "two": "t://user"}))
    assert secrets.redact(VALUE) == VALUE  # nobody has read it
    secrets.get("t://a")
    assert secrets.redact(VALUE) == MASK
    script.answers["a"] = canary("another")
    secrets.refresh("t://a")
    assert secrets.redact(VALUE) == VALUE
    assert secrets.redact(canary("another")) == MASK
    secrets.evict("t://a")
    assert secrets.redact(canary("another")) == canary("another")
    secrets.get("both")
    assert secrets.redact(f"{canary('another')}, app:{canary('pair')}") == f"{MASK}, {MASK}"


def test_what_a_map_makes_is_masked(settings: Any) -> None:
    """What a project's function makes of a value is a value too: a part of it, say."""
    provider = configured(settings, {"pair": f"app:{canary('password')}"})
    settings.PASSWORD = secret("vault://pair").map(lambda pair: pair.split(":")[1])
    assert registry.redact(f"with {canary('password')}") == f"with {canary('password')}"
    assert canary("password") == live.PASSWORD
    assert registry.redact(f"with {canary('password')}") == f"with {MASK}"
    provider.error = ProviderUnavailable("down")
    with pytest.raises(ProviderUnavailable):
        registry.refresh("vault://pair")
    assert registry.redact(f"with {canary('password')}") == f"with {MASK}"
    registry.evict(all=True)
    assert registry.redact(f"with {canary('password')}") == f"with {canary('password')}"


def test_a_default_is_no_secret(settings: Any) -> None:
    """What settings write in the place of a secret that does not exist is a literal."""
    configured(settings, {})
    settings.NAME = secret("vault://absent", default="localhost:8000")
    assert live.NAME == "localhost:8000"
    assert registry.redact("at localhost:8000") == "at localhost:8000"


def test_an_evicted_value_is_not_kept_to_be_masked() -> None:
    """The index holds nothing of what is gone: evicted, or pushed out for want of room."""
    script = Script({str(number): canary(f"value-{number}") for number in range(20)})
    secrets = make(alias("t", script), cache=CachePolicy(max_entries=5, jitter=0))
    secrets.redact("x")
    for number in range(20):
        secrets.get(f"t://{number}")
    needles = secrets._resolver.cache._store.hits.needles
    assert needles is not None
    assert len(needles._owners) == 5
    secrets.evict(all=True)
    assert not needles._owners
    assert not needles._pieces
    assert not needles._owned


def test_a_forked_child_masks_what_it_keeps() -> None:
    """A child makes an index of its own: the parent's may have been half changed."""
    secrets = make(alias("t", Script({"a": VALUE, "b": canary("later")})))
    secrets.get("t://a")
    secrets.redact("x")
    secrets._after_fork()  # as in a child
    assert secrets.redact(f"with {VALUE}") == f"with {MASK}"
    secrets.get("t://b")
    assert secrets.redact(canary("later")) == MASK


def test_two_secrets_with_one_value() -> None:
    """A value stays masked until the last secret that has it is evicted."""
    secrets = make(alias("t", Script({"a": VALUE, "b": VALUE})))
    secrets.get("t://a")
    secrets.get("t://b")
    secrets.redact("x")
    secrets.evict("t://a")
    assert secrets.redact(VALUE) == MASK
    secrets.evict("t://b")
    assert secrets.redact(VALUE) == VALUE


def test_masking_fetches_nothing_and_waits_for_nobody() -> None:
    """It answers while a fetch hangs, and asks no provider."""
    gate = threading.Event()

    def hang(ref: Any) -> str:
        gate.wait(20)
        return canary("late")

    script = Script({"a": VALUE, "slow": hang})
    secrets = make(alias("t", script))
    secrets.get("t://a")
    thread = threading.Thread(target=lambda: secrets.get("t://slow"))
    thread.start()
    until(lambda: len(script.fetched) == 2)
    try:
        assert secrets.redact(f"with {VALUE}") == f"with {MASK}"
        assert len(script.fetched) == 2
    finally:
        gate.set()
        thread.join()


def test_masking_beside_fetches_and_evictions() -> None:
    """Threads that read, evict and mask at once: the value that stays is masked in each text."""
    script = Script({str(number): canary(f"value-{number}") for number in range(50)})
    secrets = make(alias("t", script))
    secrets.get("t://0")
    numbers = iter(range(10_000))

    def work() -> list[str]:
        masked = []
        for _ in range(60):
            number = next(numbers) % 49 + 1
            secrets.get(f"t://{number}")
            masked.append(secrets.redact(f"with {canary('value-0')}, and so on"))
            secrets.evict(f"t://{number}")
        return masked

    results = at_once(work, 4)
    assert {text for one in results for text in one} == {f"with {MASK}, and so on"}


def test_cost_does_not_grow_with_the_number_of_values() -> None:
    """A text is read once, whatever is held: with 10,000 values that begin alike, too."""

    def seconds(count: int) -> float:
        needles = Needles()
        for number in range(count):
            needles.put(number, [f"sk_live_{hash(str(number)):x}-{number}"])
        text = "sk_live_ of nobody " + "a line of a log as it is written, with https://x/y " * 20
        began = time.thread_time()
        for _ in range(20):
            needles.redact(text)
        return time.thread_time() - began

    few = min(seconds(10) for _ in range(3))
    many = seconds(10_000)
    assert many < 20 * few  # a look at each value would cost 1000 times as much


# -- the log --


class Kept(logging.Handler):
    """Formats as handlers do, behind our filter."""

    def __init__(self) -> None:
        super().__init__()
        self.addFilter(SecretFilter())
        self.texts: list[str] = []
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self.texts.append(self.format(record))


@pytest.fixture
def kept(settings: Any) -> Kept:
    configured(settings, {"key": VALUE, "phrase": PHRASE})
    registry.get("vault://key")
    return Kept()


def handled(kept: Kept, message: object, *args: object, **fields: Any) -> logging.LogRecord:
    """Give a record straight to the handler: the canary's watch looks at loggers."""
    record = logging.LogRecord("x", logging.INFO, "p", 1, message, args or None, None)
    vars(record).update(fields)
    kept.handle(record)
    return record


@pytest.mark.parametrize(
    ("message", "args"),
    [
        (f"with {VALUE}", ()),
        ("with %s", (f"amqp://{quote(VALUE)}@mq",)),
        ("with %(a)s", ({"a": VALUE},)),
        ("with %s", (SecretStr(canary("never held")),)),
        ("with %(a)s", ({"a": SecretStr(canary("never held"))},)),
        ("with %r", ([VALUE],)),
        ("with %s", (ValueError(VALUE),)),
    ],
)
def test_a_message_is_masked(kept: Kept, message: str, args: tuple[object, ...]) -> None:
    """A value in a message or its arguments is masked, and so is a SecretStr that is not held."""
    handled(kept, message, *args)
    assert kept.texts[0].startswith("with ")
    assert MASK in kept.texts[0]
    assert CANARY not in kept.texts[0]


def test_a_record_without_secrets_stays_as_it_is(kept: Kept) -> None:
    """Structured logging and Sentry's grouping go on with ``msg`` and ``args``."""
    error = ValueError("x")
    record = handled(kept, "%s of %d", "part", 2, exc_info=(ValueError, error, None), kind="y")
    assert (record.msg, record.args, vars(record)["kind"]) == ("%s of %d", ("part", 2), "y")
    assert kept.texts == ["part of 2\nValueError: x"]


def test_extras_stack_and_exception_are_masked(kept: Kept) -> None:
    """Also below the message nothing is shown: in the traceback, the stack and what is extra."""
    error = ValueError(VALUE)
    error.__cause__ = LookupError(f"postgres://app:{quote(VALUE)}@db")
    record = handled(
        kept,
        "x",
        exc_info=(ValueError, error, None),
        stack_info=f"Stack: {VALUE}",
        held={"a": [VALUE, VALUE.encode(), SecretBytes(b"x"), ("t", 1)], VALUE: None},
    )
    assert CANARY not in kept.texts[0]
    assert vars(record)["held"] == {"a": [MASK, MASK.encode(), MASK, ("t", 1)], MASK: None}
    assert kept.texts[0].count(MASK) == 3


def test_a_message_that_does_not_fit_shows_no_argument(kept: Kept) -> None:
    """What the handler complains about is printed with its arguments: these are masked."""
    record = logging.LogRecord("x", logging.INFO, "p", 1, "%s %s", (VALUE,), None)
    assert kept.filter(record)
    assert record.args == (MASK,)


def test_text_of_an_exception_that_was_formatted_before_is_masked(kept: Kept) -> None:
    """Another handler may have come first, and left its text in the record."""
    handled(kept, "x", exc_text=f"Traceback: {VALUE}")
    assert kept.texts == [f"x\nTraceback: {MASK}"]


# -- Sentry, and structures --


def test_events_are_masked(kept: Kept) -> None:
    """Each text of an event is masked, keys too; the event that was given is left as it is."""
    event = {"message": f"at {VALUE}", "extra": {VALUE: [VALUE, 1, None]}, "vars": (f"{VALUE!r}",)}
    before = json.dumps(event)
    sent = before_send(event, {})
    assert sent == {
        "message": f"at {MASK}",
        "extra": {MASK: [MASK, 1, None]},
        "vars": (f"'{MASK}'",),
    }
    assert json.dumps(event) == before


def test_a_structure_that_holds_itself_ends(kept: Kept) -> None:
    """A breadcrumb may hold anything: what is too deep is masked as a whole."""
    circle: list[Any] = [VALUE]
    circle.append(circle)
    text = repr(redacted(circle))
    assert CANARY not in text
    assert text.count(MASK) > 2
