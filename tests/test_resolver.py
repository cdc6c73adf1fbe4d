"""The registry: what every reader calls."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import threading
import time
import traceback

import pytest

from django_secret_registry import registry as public_registry
from django_secret_registry.events import Evicted, ProviderBuilt, ResidencyChecked
from django_secret_registry.exceptions import (
    AccessDenied,
    InvalidReference,
    ProviderDoesNotExist,
    ProviderError,
    ProviderUnavailable,
    SecretError,
    SecretNotFound,
    SecretNotReady,
)
from django_secret_registry.lifecycle import CachePolicy
from django_secret_registry.making import Making
from django_secret_registry.references import SecretRef
from django_secret_registry.resolver import SecretRegistry
from django_secret_registry.specs import Derived
from django_secret_registry.values import MAX_VALUE_SIZE, SecretBytes, SecretStr, SecretValue
from tests.canary import canary, unwatched
from tests.scripted import (
    PATIENCE,
    Gate,
    HandClock,
    Script,
    alias,
    at_once,
    config,
    entry,
    make,
    running,
    threads_in,
    until,
)

VALUE = canary("value")


@pytest.fixture
def script():
    return Script({"s": VALUE, "doc": document("1")})


def document(version):
    """Return a secret of two keys that say from which version they are."""
    return json.dumps({"user": canary(f"user{version}"), "password": canary(f"password{version}")})


def stopping(gate, answer=VALUE):
    """Return an answer that is given when the gate opens."""

    def stop(ref):
        gate.stop()
        return answer() if callable(answer) else answer

    return stop


# -- get -----------------------------------------------------------------------------------------


def test_get_by_reference_and_by_entry(script):
    """A secret is read by its reference, by an entry, or by a SecretRef, as a masked ``str``."""
    registry = make(alias("a", script), entry("e", "a://doc#user"))
    for ref in ("a://s", SecretRef.parse("a://s"), "ref+a://s"):
        value = registry.get(ref)
        assert value == VALUE
        assert type(value) is SecretStr
    assert registry.get("e") == canary("user1")
    assert len(script.fetched) == 2


def test_a_hit_fetches_nothing_and_is_counted(script):
    """What is held is given again without a call, and the hits are counted."""
    registry = make(alias("a", script, region="eu"))
    for _ in range(5):
        registry.get("a://s")
    assert len(script.fetched) == 1
    assert registry.drain() == {("a", "eu", "ok"): 1, ("a", "eu", "hit"): 4}
    assert registry.drain() == {}


def test_one_fetch_for_many_threads(script):
    """64 threads that read one cold secret cost one call."""
    registry = make(alias("a", script))
    assert set(at_once(lambda: registry.get("a://s"), 64)) == {VALUE}
    assert len(script.fetched) == 1


def test_one_failure_for_many_threads(script):
    """64 threads that read while the call fails cost one call, and get 64 errors."""
    gate = Gate()
    script.answers["s"] = stopping(gate, ProviderUnavailable("down"))
    registry = make(alias("a", script))
    with running(lambda: at_once(lambda: registry.get("a://s"), 64)) as outcome:
        gate.wait()
        until(lambda: threads_in(SecretRegistry.get) == 64)
        gate.open()
    errors = outcome[0]
    assert {type(error) for error in errors} == {ProviderUnavailable}
    assert len(set(map(id, errors))) == 64
    assert len(script.fetched) == 1


def test_bytes(script):
    """``as=bytes`` and ``as=base64`` give masked bytes."""
    script.answers["b"] = b"\xff" + VALUE.encode()
    registry = make(alias("a", script))
    value = registry.get("a://b?as=bytes")
    assert value == b"\xff" + VALUE.encode()
    assert type(value) is SecretBytes
    with pytest.raises(ProviderError, match="binary"):
        registry.get("a://b")


@pytest.mark.parametrize("default", [None, "", "literal", 0])
def test_a_default_for_what_is_not_found(script, default):
    """A default is given for a secret, a version or a key that does not exist."""
    registry = make(
        alias("a", script), entry("e", "a://no"), entry("m", members={"x": "a://s", "y": "a://no"})
    )
    for ref in ("a://no", "a://doc#no", "a://doc#/user/no", "e", "m"):
        assert registry.get(ref, default) == default
        assert registry.get(ref, default=default, region="eu") == default
        assert asyncio.run(registry.aget(ref, default)) == default
        with pytest.raises(SecretNotFound):
            registry.get(ref)


@pytest.mark.parametrize(
    "error",
    [
        ProviderUnavailable("down"),
        AccessDenied("no"),
        ProviderError("odd"),
        ValueError("strange"),
        SecretNotReady("x"),
    ],
)
def test_no_default_for_anything_else(script, error):
    """An outage, a refusal or a fault raises, although there is a default."""
    script.answers["s"] = error
    registry = make(alias("a", script))
    for read in (
        lambda: registry.get("a://s", None),
        lambda: asyncio.run(registry.aget("a://s", None)),
    ):
        with pytest.raises(SecretError) as caught:
            read()
        assert not isinstance(caught.value, SecretNotFound)


def test_no_default_for_mistakes(script):
    """A wrong reference is not a missing secret: no default hides it."""
    registry = make(alias("a", script, problem=""), alias("bad", script, problem="broken"))
    for ref in ("nothing", "x://s", "bad://s", "a b", "a://s?x=y", "a://s#key"):
        with pytest.raises(SecretError) as caught:
            registry.get(ref, None)
        assert not isinstance(caught.value, SecretNotFound)


@pytest.mark.parametrize("text", [canary("x"), f"{canary()}://s", f"a b {canary()}"])
def test_unknown_text_is_not_repeated(script, text):
    """Text that names nothing is in no error, whichever way it came in."""
    registry = make(alias("a", script), entry("known", "a://s"))
    for use in (
        registry.get,
        registry.fetch,
        registry.refresh,
        registry.evict,
        lambda text: asyncio.run(registry.aget(text)),
        lambda text: registry.get(Derived(text, (str.upper,))),
    ):
        with pytest.raises((InvalidReference, ProviderDoesNotExist)) as caught:
            use(text)
        assert canary("") not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(InvalidReference, match="known"):
        registry.get("unknown")


def test_a_value_is_no_reference(script):
    """A secret's value given as a reference is a TypeError that does not show it."""
    registry = make(alias("a", script))
    for value in (SecretStr(VALUE), SecretBytes(VALUE.encode())):
        for use in (registry.get, registry.fetch, registry.refresh, registry.evict):
            with pytest.raises(TypeError, match="reference"):
                use(value)
        with pytest.raises(TypeError):
            asyncio.run(registry.aget(value))


@pytest.mark.parametrize("nothing", [None, 7, b"a://s", ["a://s"], {}])
def test_what_is_no_text_is_a_type_error(script, nothing):
    """Anything that is no reference at all is a TypeError."""
    with pytest.raises(TypeError):
        make(alias("a", script)).get(nothing)


def test_region_of_the_call(script):
    """``region=`` reads the secret of that region, and leaves the usual one as it is."""
    script.answers["s"] = lambda ref: canary(ref.region or "usual")
    registry = make(alias("a", script, region="eu"), entry("e", "a://s"))
    assert registry.get("a://s") == registry.get("e", region="eu") == canary("usual")
    assert registry.get("a://s", region="us") == registry.get("e", region="us") == canary("us")
    assert registry.get("e") == canary("usual")
    assert script.builds == [("a", "eu"), ("a", "us")]
    assert len(script.fetched) == 2


def test_errors_say_where(script):
    """Each error names reference, provider and region, and what the backend said."""
    script.answers |= {
        "denied": AccessDenied("not for you"),
        "down": ProviderUnavailable("no route"),
        "odd": ValueError("x"),
    }
    registry = make(alias("a", script, region="eu"))
    for name, kind, words in (
        ("denied", AccessDenied, "not for you"),
        ("no", SecretNotFound, "no such secret"),
        ("odd", ProviderError, "ValueError"),
        ("doc#no", SecretNotFound, "'no' does not exist"),
        ("s#no", ProviderError, "no JSON"),
        ("down", ProviderUnavailable, "no route"),
    ):
        with pytest.raises(kind, match=words) as caught:
            registry.get(f"a://{name}")
        error = caught.value
        assert (error.reference, error.provider, error.region) == (f"a://{name}", "a", "eu")


def test_a_transport_error_is_chained(script):
    """What the network said is the cause of the error."""
    cause = OSError("connection refused")

    def fail(ref):
        raise ProviderUnavailable("down") from cause

    script.answers["s"] = fail
    with pytest.raises(ProviderUnavailable) as caught:
        make(alias("a", script)).get("a://s")
    assert caught.value.__cause__ is cause


# -- what providers do wrong ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [ValueError, KeyError, AttributeError, RuntimeError, StopIteration, LookupError, UnicodeError,
     MemoryError, RecursionError, SystemExit, KeyboardInterrupt, GeneratorExit,
     asyncio.CancelledError, BaseException],
)  # fmt: skip
def test_an_unexpected_exception_shows_nothing(script, kind, caplog):
    """Whatever a provider raises becomes a ProviderError with its type and place, and no text."""

    def fail(ref):
        try:
            json.loads(VALUE)
        except ValueError as exc:
            raise kind(VALUE) from exc

    script.answers["s"] = fail
    registry = make(alias("a", script))
    with caplog.at_level(logging.DEBUG), pytest.raises(ProviderError) as caught:
        registry.get("a://s")
    error = caught.value
    assert f"failed with {kind.__name__}" in str(error)
    assert "See scripted.py, line " in str(error)
    assert error.__cause__ is None
    assert error.__context__ is None
    assert kind.__name__ in caplog.text
    assert VALUE not in caplog.text


class Odd(ProviderUnavailable):
    """An error of a third party, with a constructor and attributes of its own."""

    def __init__(self, code, *, retry):
        super().__init__(f"code {code}")
        self.retry = retry


def test_an_error_with_a_constructor_of_its_own(script):
    """A provider may raise its own kinds of error; readers get that kind, with what it carries."""
    script.answers["s"] = Odd(7, retry=3)
    registry = make(alias("a", script, region="eu"))
    with pytest.raises(Odd, match="code 7") as caught:
        registry.get("a://s")
    assert caught.value.retry == 3
    assert (caught.value.provider, caught.value.region) == ("a", "eu")
    (info,) = registry.snapshot().secrets
    assert "code 7" in info.last_error


@pytest.mark.parametrize(
    "garbage",
    [
        5,
        ("x",),
        {"value": VALUE},
        SecretValue,
        SecretValue(VALUE, version=7),
        SecretValue(VALUE, version=b"1"),
        SecretValue(VALUE, expires_at="tomorrow"),
        SecretValue(VALUE, expires_at=float("nan")),
        SecretValue(VALUE, expires_at=float("inf")),
        SecretValue(VALUE, expires_at=[1.0]),
    ],
    ids=lambda garbage: type(garbage).__name__,
)
def test_an_answer_that_is_none(script, garbage):
    """An answer of the wrong kind is a ProviderError at once, not a reader that waits."""
    script.answer = lambda ref: garbage
    started = time.monotonic()
    with pytest.raises(ProviderError) as caught:
        make(alias("a", script)).get("a://s")
    assert caught.value.reference == "a://s"
    assert time.monotonic() - started < 5


def test_an_error_that_is_returned(script):
    """An error that a provider returns instead of raising it is raised."""
    script.answer = lambda ref: AccessDenied("no")
    with pytest.raises(AccessDenied):
        make(alias("a", script)).get("a://s")


@pytest.mark.parametrize("kind", [str, bytes])
def test_a_value_that_is_too_large(script, kind):
    """A secret over 1 MiB is refused, one of exactly that is not."""
    most = "x" * MAX_VALUE_SIZE
    script.answers |= {
        "most": most if kind is str else most.encode(),
        "more": (most + "x") if kind is str else (most + "x").encode(),
    }
    registry = make(alias("a", script))
    assert len(registry.get("a://most")) == MAX_VALUE_SIZE
    with pytest.raises(ProviderError, match="larger than"):
        registry.get("a://more")


# -- MAP -----------------------------------------------------------------------------------------

SMTP = entry("smtp", members={"user": "a://doc#user", "password": "a://doc#password"})


def test_a_map_is_a_new_dict_of_masked_values(script):
    """A MAP resolves to a dict of ``SecretStr``, in its order; each reader gets their own."""
    registry = make(alias("a", script), SMTP)
    first = registry.get("smtp")
    assert first == {"user": canary("user1"), "password": canary("password1")}
    assert list(first) == ["user", "password"]
    assert {type(value) for value in first.values()} == {SecretStr}
    first["user"] = "changed"
    assert registry.get("smtp")["user"] == canary("user1")
    assert asyncio.run(registry.aget("smtp"))["user"] == canary("user1")
    assert len(script.fetched) == 1


def test_the_region_of_a_call_reaches_every_member(script):
    """``region=`` of a MAP is the region of each of its members."""
    script.answers["doc"] = lambda ref: document(ref.region)
    registry = make(alias("a", script, region="eu"), SMTP)
    assert registry.get("smtp", region="us")["user"] == canary("userus")
    assert script.builds == [("a", "us")]


def test_members_are_of_one_version(script):
    """Members of one secret come from one version, even if it is rotated between two reads."""
    registry = make(
        alias("a", script),
        entry("m", members={"u": "a://doc#user", "other": "a://slow", "p": "a://doc#password"}),
    )
    gate = Gate()
    script.answers["slow"] = stopping(gate)
    with running(lambda: registry.get("m")) as outcome:
        gate.wait()
        script.answers["doc"] = document("2")
        registry.refresh("a://doc")
        gate.open()
    (value,) = outcome
    assert (value["u"], value["p"]) == (canary("user1"), canary("password1"))
    assert registry.get("m")["p"] == canary("password2")


def test_members_are_of_one_version_for_tasks_too(script):
    """The same holds for ``aget``."""
    registry = make(
        alias("a", script),
        entry("m", members={"u": "a://doc#user", "other": "a://slow", "p": "a://doc#password"}),
    )
    gate = Gate()
    script.answers["slow"] = stopping(gate)

    async def read():
        task = asyncio.create_task(registry.aget("m"))
        await asyncio.to_thread(gate.wait)
        script.answers["doc"] = document("2")
        await asyncio.to_thread(registry.refresh, "a://doc")
        gate.open()
        return await task

    value = asyncio.run(read())
    assert (value["u"], value["p"]) == (canary("user1"), canary("password1"))


def test_members_never_mix_under_load(script):
    """While a secret is rotated without end, no reader sees parts of two versions."""
    registry = make(alias("a", script), SMTP)
    done = threading.Event()

    def rotate():
        for number in range(150):
            script.answers["doc"] = document(number)
            registry.refresh("smtp")
        done.set()

    def read():
        while not done.is_set():
            value = registry.get("smtp")
            assert value["user"].partition("user")[2] == value["password"].partition("password")[2]

    registry.get("smtp")
    with running(rotate):
        outcomes = at_once(read, 4)
    assert outcomes == [None] * 4


def test_a_map_expires_with_the_earliest_of_its_parts(script):
    """A member with a short TTL is fetched anew while the others are held."""
    clock = HandClock()
    registry = make(
        alias("a", script),
        entry("m", members={"x": "a://s?ttl=10", "y": "a://doc#user"}),
        clock=clock,
        cache=CachePolicy(jitter=0),
    )
    registry.get("m")
    clock.forward(11)
    registry.get("m")
    until(lambda: [ref.name for ref in script.fetched] == ["s", "doc", "s"])


def test_fetch_of_a_map(script):
    """A MAP has no one version: ``fetch`` says so."""
    with pytest.raises(InvalidReference, match="several"):
        make(alias("a", script), SMTP).fetch("smtp")


# -- fetch and get_provider ----------------------------------------------------------------------


def test_fetch_gives_version_and_times(script):
    """``fetch`` gives the value that ``get`` gives, with version and times, from the cache."""
    clock = HandClock(5000.0)
    registry = make(alias("a", script), entry("e", "a://doc#user"), clock=clock)
    value = registry.fetch("a://doc#user")
    assert value.value == canary("user1")
    assert type(value.value) is SecretStr
    assert (value.version, value.expires_at, value.fetched_at) == ("1", None, 5000.0)
    assert registry.fetch("e") == registry.fetch(SecretRef.parse("a://doc#user")) == value
    assert len(script.fetched) == 1
    assert VALUE not in repr(value)


def test_get_provider_is_the_one_that_fetches(script):
    """The instance that ``get_provider`` gives is the one that secrets are fetched with."""
    registry = make(alias("a", script, region="eu"))
    registry.get("a://s")
    provider = registry.get_provider("a")
    assert provider.fetch(SecretRef.parse("a://s"), timeout=1).value == VALUE
    assert script.builds == [("a", "eu")]


# -- aget and event loops ------------------------------------------------------------------------


def test_aget_gives_what_get_gives(script):
    """``aget`` reads references, entries and MAPs, from the same cache."""
    registry = make(alias("a", script), entry("e", "a://doc#user"), SMTP)

    async def read():
        return [await registry.aget(ref) for ref in ("a://s", "e", "smtp", "a://s")]

    values = asyncio.run(read())
    assert values == [registry.get(ref) for ref in ("a://s", "e", "smtp", "a://s")]
    assert len(script.fetched) == 2


def test_one_fetch_for_many_tasks(script):
    """64 tasks that read one cold secret cost one call, in no thread of the loop."""
    registry = make(alias("a", script))

    async def read():
        return await asyncio.gather(*(registry.aget("a://s") for _ in range(64)))

    assert set(asyncio.run(read())) == {VALUE}
    assert len(script.fetched) == 1
    assert script.fetchers[0] is not threading.current_thread()


def test_the_loop_goes_on_while_aget_waits(script):
    """A task that waits for a secret does not stop the others."""
    gate = Gate()
    script.answers["s"] = stopping(gate)
    registry = make(alias("a", script))

    async def read():
        task = asyncio.create_task(registry.aget("a://s"))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not task.done()
        gate.open()
        return await task

    assert asyncio.run(read()) == VALUE


def test_a_cancelled_task_harms_no_other(script):
    """When one of two readers is cancelled, the other still gets the value of the one call."""
    gate = Gate()
    script.answers["s"] = stopping(gate)
    registry = make(alias("a", script))

    async def read():
        first, second = (asyncio.create_task(registry.aget("a://s")) for _ in range(2))
        await asyncio.to_thread(gate.wait)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        gate.open()
        return await second

    assert asyncio.run(read()) == VALUE
    assert len(script.fetched) == 1


def test_get_on_a_loop_warns_once(script, caplog):
    """A first fetch that stops the event loop warns once, and names ``aget`` and WARM_UP."""
    registry = make(alias("a", script))

    async def read():
        return [registry.get("a://s"), registry.get("a://doc#user")]

    with caplog.at_level(logging.WARNING, "django_secret_registry"):
        assert asyncio.run(read()) == [VALUE, canary("user1")]
    (record,) = caplog.records
    for words in ("a://s", "aget", "WARM_UP"):
        assert words in record.getMessage()


def test_what_is_held_does_not_warn(script, caplog):
    """A read of what is held, or of what is known to be missing, does not stop a loop."""
    registry = make(alias("a", script), SMTP)
    registry.warm(["a://s", "smtp", "a://missing"])

    async def read():
        registry.get("a://missing", None)
        return registry.get("a://s"), registry.get("smtp"), registry.get("a://doc#user")

    with caplog.at_level(logging.WARNING, "django_secret_registry"):
        asyncio.run(read())
    assert not caplog.records


def test_a_loop_waits_for_no_refresh(script):
    """A stale value is served on an event loop at once, while it is fetched anew."""
    clock = HandClock()
    registry = make(
        alias("a", script), clock=clock, cache=CachePolicy(jitter=0, soft_timeout=PATIENCE)
    )
    registry.get("a://s")
    clock.forward(400)
    gate = Gate()
    script.answers["s"] = stopping(gate, canary("new"))

    async def read():
        return registry.get("a://s")

    assert asyncio.run(read()) == VALUE
    gate.wait()
    gate.open()
    until(lambda: registry.get("a://s") == canary("new"))


# -- refresh and evict ---------------------------------------------------------------------------


def test_refresh_fetches_now(script):
    """``refresh`` brings the new version for reference, entry and MAP, once for each secret."""
    registry = make(alias("a", script), entry("e", "a://s"), SMTP)
    assert registry.get("e") == VALUE
    registry.get("smtp")
    script.answers |= {"s": canary("new"), "doc": document("2")}
    registry.refresh("e")
    registry.refresh("smtp")
    assert registry.get("a://s") == canary("new")
    assert registry.get("smtp")["user"] == canary("user2")
    assert len(script.fetched) == 4


def test_a_refresh_that_fails_keeps_the_value(script):
    """The error of a refresh is raised, and what is held goes on serving."""
    registry = make(alias("a", script))
    registry.get("a://s")
    script.answers["s"] = ProviderUnavailable("down")
    with pytest.raises(ProviderUnavailable):
        registry.refresh("a://s")
    assert registry.get("a://s") == VALUE


def test_readers_keep_the_old_value_during_a_refresh(script):
    """While a refresh is under way, readers get the old value at once."""
    registry = make(alias("a", script))
    registry.get("a://s")
    gate = Gate()
    script.answers["s"] = stopping(gate, canary("new"))
    with running(lambda: registry.refresh("a://s")) as outcome:
        gate.wait()
        assert registry.get("a://s") == VALUE
        gate.open()
    assert outcome == [None]
    assert registry.get("a://s") == canary("new")


def test_refresh_of_a_provider(script):
    """``refresh(provider=)`` builds the client anew and keeps its secrets."""
    registry = make(alias("a", script, region="eu"))
    registry.get("a://s")
    registry.refresh(provider="a")
    assert script.builds == [("a", "eu")] * 2
    registry.get("a://s")
    assert len(script.fetched) == 1
    for wrong in ({}, {"ref": "a://s", "provider": "a"}):
        with pytest.raises(TypeError):
            registry.refresh(**wrong)


def held(registry):
    return sorted(
        str(info.reference) for info in registry.snapshot().secrets if info.age is not None
    )


def test_evict_by_reference(script):
    """An eviction takes every version and stage of a secret, unless one is named; keys share it."""
    registry = make(alias("a", script), entry("e", "a://doc#user"))
    refs = ["a://doc#user", "a://doc?version=1", "a://doc?stage=previous", "a://s"]
    registry.warm(refs)
    assert registry.evict("a://doc?version=1#password") == 1
    assert held(registry) == ["a://doc", "a://doc?stage=previous", "a://s"]
    assert registry.evict("a://doc?stage=current&region=-") == 2
    assert held(registry) == ["a://s"]
    registry.get("e")
    assert registry.evict("e") == 1
    assert registry.evict("e") == 0
    assert held(registry) == ["a://s"]


def test_evict_makes_the_next_reader_fetch(script):
    """After an eviction no reader gets the old value, by whatever text they read it."""
    registry = make(alias("a", script), entry("e", "a://s"))
    derived = Derived("a://s", (str.upper,))
    texts = ["a://s", "e", "ref+a://s", derived, SecretRef.parse("a://s")]
    for text in texts:
        registry.get(text)
    script.answers["s"] = canary("new")
    registry.evict("a://s")
    for text in texts:
        assert registry.get(text).lower() == canary("new")
    assert len(script.fetched) == 2


def test_evict_ends_a_refusal(script):
    """An eviction also ends what is known to be missing or to fail."""
    registry = make(alias("a", script))
    script.answers["x"] = AccessDenied("no")
    for name in ("new", "x"):
        with pytest.raises(SecretError):
            registry.get(f"a://{name}")
    script.answers |= {"new": VALUE, "x": VALUE}
    for name in ("new", "x"):
        registry.evict(f"a://{name}")
        assert registry.get(f"a://{name}") == VALUE


def test_a_late_fetch_does_not_bring_back_what_was_evicted(script):
    """A fetch that began before an eviction serves who waits for it, and is not kept."""
    gate = Gate()
    script.answers["s"] = stopping(gate)
    registry = make(alias("a", script))
    with running(lambda: registry.get("a://s")) as outcome:
        gate.wait()
        registry.evict("a://s")
        gate.open()
    assert outcome == [VALUE]
    script.answers["s"] = canary("new")
    assert registry.get("a://s") == canary("new")


def test_evict_by_provider(script):
    """An eviction by alias takes its secrets and its client, of one region or of all."""
    registry = make(alias("a", script, region="eu"), alias("b", script))
    everything = ["a://s", "a://s?region=us", "a://doc", "b://s"]
    registry.warm(everything)
    assert registry.evict(provider="a", region="us") == 1
    assert held(registry) == ["a://doc", "a://s", "b://s"]
    assert registry.evict(provider="a") == 2
    assert held(registry) == ["b://s"]
    registry.warm(everything)
    builds = [("a", "eu"), ("a", "us"), ("b", "")]
    assert sorted(script.builds) == sorted([*builds, *builds[:2]])
    assert registry.evict(all=True) == 4
    assert held(registry) == []
    registry.warm(everything)
    assert sorted(script.builds) == sorted([*builds * 2, *builds[:2]])


def test_after_an_eviction_no_old_client_fetches(script):
    """From the moment at which secrets are evicted with their client, a new one fetches."""
    registry = make(alias("a", script))
    registry.get("a://s")
    ages = []

    def look(event):
        if isinstance(event, Evicted):
            (info,) = registry.snapshot().providers
            ages.append(info.age)

    registry.events.subscribe(look)
    registry.evict(provider="a")
    registry.get("a://s")
    registry.evict(all=True)
    assert ages == [None, None]


def test_evict_wants_one_way(script):
    """Exactly one of reference, provider and ``all`` says what to evict."""
    registry = make(alias("a", script))
    for wrong in (
        {},
        {"ref": "a://s", "all": True},
        {"region": "eu"},
        {"provider": "a", "all": True},
    ):
        with pytest.raises(TypeError, match="evict takes"):
            registry.evict(**wrong)
    with pytest.raises(ProviderDoesNotExist):
        registry.evict(provider=canary("x"))


# -- .map ----------------------------------------------------------------------------------------


def counted(function):
    """Return ``function`` and the list of what it was called with."""
    calls = []

    def count(value):
        calls.append(value)
        return function(value)

    return count, calls


def test_functions_run_once_per_value(script):
    """What settings make of a secret is made once, and again when the value changes."""
    registry = make(alias("a", script))
    count, calls = counted(lambda value: f"redis://{value}@host")
    derived = Derived("a://s", (count, str.upper))
    for _ in range(5):
        value = registry.get(derived)
        assert value == f"redis://{VALUE}@host".upper()
        assert type(value) is SecretStr
        assert asyncio.run(registry.aget(derived)) == value
    assert len(calls) == 1
    script.answers["s"] = canary("new")
    registry.refresh("a://s")
    assert registry.get(derived) == f"redis://{canary('new')}@host".upper()
    assert len(calls) == 2
    registry.get(Derived("a://s", (count,)))
    assert len(calls) == 3


def test_functions_run_once_for_many_threads(script):
    """16 threads that read a mapped setting at once run its function once."""
    registry = make(alias("a", script))
    gate = Gate()

    def slow(value):
        gate.stop()
        return value + "!"

    count, calls = counted(slow)
    derived = Derived("a://s", (count,))
    with running(lambda: at_once(lambda: registry.get(derived), 16)) as outcome:
        gate.wait()
        until(lambda: threads_in(Making.get) == 16)
        gate.open()
    assert outcome[0] == [VALUE + "!"] * 16
    assert len(calls) == 1


def test_functions_of_a_map_run_once_per_set_of_values(script):
    """A mapped MAP is made once, and again when one of its secrets changes."""
    registry = make(alias("a", script), entry("m", members={"u": "a://doc#user", "p": "a://s"}))
    count, calls = counted(lambda value: f"{value['u']}:{value['p']}")
    derived = Derived("m", (count,))
    for _ in range(3):
        assert registry.get(derived) == f"{canary('user1')}:{VALUE}"
    assert len(calls) == 1
    for name in ("s", "doc"):
        registry.refresh(f"a://{name}")
        registry.get(derived)
        registry.get(derived)
    assert len(calls) == 3


def test_functions_may_read_other_settings(script):
    """Functions that read one another's secrets in either order do not lock each other out."""
    registry = make(alias("a", script), alias("b", script))
    both = threading.Barrier(2)
    plain = {name: Derived(f"{name}://s", (lambda value: value + "!",)) for name in "ab"}

    def needing(other):
        def function(value):
            both.wait(PATIENCE)
            return value + registry.get(plain[other])

        return function

    first = Derived("a://s", (needing("b"),))
    second = Derived("b://s", (needing("a"),))
    with running(lambda: registry.get(first)) as outcome:
        assert registry.get(second) == VALUE + VALUE + "!"
    assert outcome == [VALUE + VALUE + "!"]


@pytest.mark.parametrize(
    "function",
    [
        lambda value: int(value + value),
        lambda value: json.loads(value + value),
        lambda value: value.nothing,
        lambda value: {}[value],
        lambda value: value[10_000],
        lambda value: (_ for _ in ()).throw(RuntimeError(value)),
        lambda value: f"{value}\ud800".encode(),
    ],
)
def test_an_error_of_a_function_shows_nothing(script, function):
    """A function that fails is a ProviderError with type and place: no text, cause or context."""
    registry = make(alias("a", script, region="eu"))
    for ref in ("a://s", "a://doc#user"):
        with pytest.raises(ProviderError, match=r"\.map function") as caught:
            registry.get(Derived(ref, (function,)))
        error = caught.value
        assert error.__cause__ is error.__context__ is None
        assert "test_resolver.py" in str(error)
        assert (error.reference, error.provider, error.region) == (ref, "a", "eu")


def test_a_function_that_fails_is_tried_again(script):
    """A failure is not kept: when the function works, its value is there."""
    registry = make(alias("a", script))
    works = []

    def function(value):
        if not works:
            raise ValueError(value)
        return value + "!"

    derived = Derived("a://s", (function,))
    for _ in range(2):
        with pytest.raises(ProviderError):
            registry.get(derived)
    works.append(True)
    assert registry.get(derived) == VALUE + "!"
    assert len(script.fetched) == 1


def test_a_function_that_misses_a_secret(script):
    """A function that reads a secret that does not exist raises that, and nothing leaks."""
    registry = make(alias("a", script))
    derived = Derived("a://s", (lambda value: registry.get("a://missing"),))
    with pytest.raises(SecretNotFound) as caught:
        registry.get(derived)
    assert caught.value.reference == "a://missing"
    assert caught.value.__cause__ is caught.value.__context__ is None


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (str, SecretStr),
        (str.encode, SecretBytes),
        (len, int),
        (lambda value: {"k": value + ""}, dict),
        (lambda value: None, type(None)),
        (SecretStr, SecretStr),
    ],
)
def test_what_functions_return_is_masked(script, function, kind):
    """Text and bytes that a function returns are masked again, in a dict too."""
    registry = make(alias("a", script))
    made = registry.get(Derived("a://s", (function,)))
    assert type(made) is kind
    assert VALUE not in repr(made)


def test_a_mapped_setting_that_needs_itself(script):
    """A function that reads the setting it makes is an error, and neither hangs nor crashes."""
    registry = make(alias("a", script))
    itself = []
    derived = Derived("a://s", (lambda value: registry.get(itself[0]),))
    itself.append(derived)
    with unwatched(), pytest.raises((ProviderError, RecursionError)):
        registry.get(derived)


# -- configuration -------------------------------------------------------------------------------


def test_unconfigured(script):
    """Before it is configured every use of the registry says so, and what to do."""
    registry = SecretRegistry()
    assert not registry.configured
    assert not registry.offline
    for use in (
        lambda: registry.get("a://s"),
        lambda: registry.get("a://s", None),
        lambda: asyncio.run(registry.aget("e")),
        lambda: registry.fetch("a://s"),
        lambda: registry.get_provider("a"),
        lambda: registry.refresh("a://s"),
        lambda: registry.evict("a://s"),
        lambda: registry.evict(all=True),
        lambda: registry.warm(["a://s"]),
        registry.ready,
    ):
        with pytest.raises(SecretNotReady, match="INSTALLED_APPS"):
            use()
    snapshot = registry.snapshot()
    assert snapshot.providers == snapshot.secrets == ()
    assert registry.drain() == {}


def test_offline(script):
    """Offline nothing is built or fetched: each read is unavailable, and names the switch."""
    registry = make(alias("a", script, region="eu"), entry("e", "a://s"), SMTP, offline=True)
    assert registry.offline
    for use in (
        lambda: registry.get("a://s"),
        lambda: registry.get("e", None),
        lambda: registry.get("smtp"),
        lambda: asyncio.run(registry.aget("e")),
        lambda: registry.fetch("a://s"),
        lambda: registry.refresh("a://s"),
        lambda: registry.get_provider("a"),
    ):
        with pytest.raises(ProviderUnavailable, match="SECRET_REGISTRY_OFFLINE") as caught:
            use()
        assert (caught.value.provider, caught.value.region) == ("a", "eu")
    assert script.builds == []
    with pytest.raises(InvalidReference):
        registry.get("nothing")


def test_configuring_anew_forgets(script):
    """A new configuration starts with empty caches: other secrets, other providers."""
    registry = make(alias("a", script), entry("e", "a://s"))
    registry.get("e")
    registry.get("a://s")
    other = Script({"s": canary("other")})
    registry.configure(config(alias("a", other), entry("e", "a://s")))
    assert script.closed == [("a", "")]
    assert registry.get("e") == registry.get("a://s") == canary("other")
    assert len(other.fetched) == 1
    registry.configure(config())
    with pytest.raises(ProviderDoesNotExist):
        registry.get("a://s")


def test_configuring_anew_during_a_fetch(script):
    """A fetch that is under way serves those who wait for it, and nobody after them."""
    gate = Gate()
    script.answers["s"] = stopping(gate)
    registry = make(alias("a", script))
    other = Script({"s": canary("other")})
    with running(lambda: registry.get("a://s")) as outcome:
        gate.wait()
        registry.configure(config(alias("a", other)))
        assert registry.get("a://s") == canary("other")
        gate.open()
    assert outcome == [VALUE]
    assert registry.get("a://s") == canary("other")
    until(lambda: script.closed == [("a", "")])


def test_a_reader_never_mixes_two_configurations(script):
    """Who began under one configuration ends under it: its policies, its provider, its cache."""
    registry = make(alias("a", script), entry("m", members={"x": "a://one", "y": "a://two"}))
    script.answers |= {"one": VALUE, "two": VALUE}
    other = Script({"one": canary("other"), "two": canary("other")})
    told = []

    def configure(event):
        if isinstance(event, ResidencyChecked) and not told:
            told.append(event)
            registry.configure(config(alias("a", other), entry("m", members={"x": "a://one"})))

    registry.events.subscribe(configure)
    assert registry.get("m") == {"x": VALUE, "y": VALUE}
    assert other.builds == []
    assert registry.get("m") == {"x": canary("other")}
    assert registry.get("a://two") == canary("other")


def test_a_fetch_that_waits_for_its_turn_keeps_its_configuration(script):
    """A call that is still queued when the configuration changes goes to its own provider."""
    gates = [Gate() for _ in range(10)]
    script.answers |= {f"x{number}": stopping(gate) for number, gate in enumerate(gates)}
    registry = make(alias("a", script))
    with running(lambda: registry.warm([f"a://x{n}" for n in range(10)], max_workers=10)):
        for gate in gates:
            gate.wait()
        with running(lambda: registry.get("a://s")) as outcome:  # all threads of the pool are busy
            until(lambda: any(info.reference == "a://s" for info in registry.snapshot().secrets))
            registry.configure(config())
            for gate in gates:
                gate.open()
    assert outcome == [VALUE]


def test_the_public_registry():
    """The package's ``registry`` is one, and the project of these tests has configured it."""
    assert isinstance(public_registry, SecretRegistry)


# -- snapshot ------------------------------------------------------------------------------------


def test_a_snapshot_shows_all_but_values(script):
    """A snapshot has providers and secrets with their whole life, and no value anywhere."""
    clock = HandClock(1000.0)
    registry = make(
        alias("a", script, region="eu", ttl=60), alias("b", script), entry("e", "a://s"),
        clock=clock,
    )  # fmt: skip
    registry.set_discovery(lambda: {"settings.X": "a://s"})
    registry.get("e")
    registry.get("e")
    script.answers["x"] = AccessDenied("no")
    with pytest.raises(AccessDenied):
        registry.get("b://x")
    clock.forward(7)
    snapshot = registry.snapshot()
    providers = {info.alias: info for info in snapshot.providers}
    assert providers["a"].age == 7
    assert (providers["a"].region, providers["a"].ttl, providers["a"].builds) == ("eu", 60, 1)
    secrets = {info.reference: info for info in snapshot.secrets}
    info = secrets["a://s"]
    assert (info.state, info.version, info.age, info.hits) == ("fresh", "1", 7, 1)
    assert info.used_by == ("settings.X", "SECRETS['e']")
    assert info.pinned
    assert secrets["b://x"].last_status == "denied"
    assert snapshot.taken == 1007.0
    assert snapshot.pid
    assert VALUE not in repr(snapshot)
    with pytest.raises(AttributeError):
        snapshot.pid = 0


def test_a_snapshot_of_mistakes(script):
    """An alias or a reference with a mistake breaks no snapshot; the alias shows its mistake."""
    registry = make(alias("a", script, problem="no BACKEND"), entry("e", "a://s"))
    registry.set_discovery(lambda: {"settings.X": canary("misplaced")})
    snapshot = registry.snapshot()
    (info,) = snapshot.providers
    assert "no BACKEND" in info.last_error
    assert snapshot.secrets == ()
    assert canary("") not in repr(snapshot)


def test_a_snapshot_builds_and_fetches_nothing(script):
    """Looking at the registry costs no call."""
    registry = make(alias("a", script), entry("e", "a://s"))
    told = []
    registry.events.subscribe(told.append)
    assert {info.state for info in registry.snapshot().secrets} == {"absent"}
    assert not script.builds
    assert not told


# -- overrides -----------------------------------------------------------------------------------


def test_an_override_answers_every_way_of_reading(script):
    """What is overridden is read by ``get``, ``aget`` and ``fetch``; nothing reaches a provider."""
    registry = make(alias("a", script), entry("e", "a://doc#user"), SMTP)
    restore = registry.override({"a://doc": {"user": "u", "password": "p"}})
    assert registry.get("e") == registry.get("a://doc#user") == "u"
    assert asyncio.run(registry.aget("smtp")) == {"user": "u", "password": "p"}
    value = registry.fetch("a://doc#password")
    assert (value.value, value.version) == ("p", None)
    with pytest.raises(InvalidReference):
        registry.fetch("smtp")
    assert script.builds == []
    restore()
    assert registry.get("e") == canary("user1")


def test_an_override_by_an_error(script):
    """An error as the value of a reference is raised, also for a member of a MAP."""
    registry = make(alias("a", script), SMTP)
    restore = registry.override(
        {
            "a://doc#user": "u",
            "a://doc#password": SecretNotFound("gone"),
            "a://s": AccessDenied("no"),
        }
    )
    with pytest.raises(AccessDenied):
        registry.get("a://s", None)
    with pytest.raises(SecretNotFound):
        registry.get("smtp")
    assert registry.get("smtp", None) is None
    restore()


def test_an_override_is_no_warm_up(script):
    """What is overridden cannot be warmed: nothing is fetched, and each line says why."""
    registry = make(alias("a", script), SMTP)
    restore = registry.override({"a://s": "test"})
    results = registry.warm(["a://s", "smtp"])
    assert [result.outcome for result in results] == ["unavailable"] * 3
    assert {"override_secrets" in result.error for result in results} == {True}
    assert script.builds == []
    restore()


def test_an_override_keeps_slots_apart(script):
    """A value that was held before an override is not read during it, and is afterwards."""
    registry = make(alias("a", script))
    registry.get("a://s")
    restore = registry.override({"a://s": "test"})
    assert registry.get("a://s") == "test"
    registry.configure(config(alias("a", script)))
    assert registry.get("a://s") == "test"
    restore()
    assert registry.get("a://s") == VALUE


# -- memory --------------------------------------------------------------------------------------


def test_a_registry_is_freed(script):
    """A registry that is not used any more goes, with its providers."""
    registry = make(alias("a", script))
    registry.get("a://s")
    del registry
    until(lambda: bool(gc.collect() or script.closed))
    assert script.closed == [("a", "")]


def test_events_of_builds_are_told_for_fetches(script):
    """Each fetch asks for its provider, and that is told as a build or a cache hit."""
    registry = make(alias("a", script, region="eu"))
    told = []
    registry.events.subscribe(told.append)
    registry.get("a://s")
    registry.get("a://doc")
    builds = [event.status for event in told if isinstance(event, ProviderBuilt)]
    assert builds == ["ok", "cache_hit"]


@pytest.mark.parametrize(
    ("answer", "what_to_do"),
    [
        (SecretNotFound("there is none"), "give a default="),
        (ProviderUnavailable("no answer"), "tried again"),
        (ProviderUnavailable("no answer", hint="Open port 443."), "Open port 443."),
    ],
)
def test_an_error_says_what_to_do(script, answer, what_to_do):
    """Also one whose provider gave no hint of its own."""
    script.answers["s"] = answer
    with pytest.raises(SecretError) as caught:
        make(alias("a", script)).get("a://s")
    assert what_to_do in str(caught.value)
    assert "a://s" in str(caught.value)
