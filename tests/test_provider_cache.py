"""The provider registry: one instance per alias and effective region."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
import threading
import weakref
from collections import Counter, UserDict

import pytest

from django_secret_registry.events import ProviderBuilt
from django_secret_registry.exceptions import (
    InvalidProvider,
    InvalidReference,
    ProviderDoesNotExist,
    ProviderUnavailable,
)
from django_secret_registry.lifecycle import CachePolicy
from django_secret_registry.provider_cache import MAX_REGIONS, ProviderCache, ProviderSpec
from django_secret_registry.providers.base import Fence
from django_secret_registry.values import SecretBytes, SecretStr
from tests.canary import canary
from tests.scripted import (
    Gate,
    HandClock,
    Script,
    alias,
    at_once,
    entry,
    make,
    running,
    threads_in,
    until,
)


@pytest.fixture
def script():
    return Script({"s": canary("value")})


# -- the key: alias and effective region ---------------------------------------------------------


@pytest.mark.parametrize("spelling", [None, "", "eu"])
def test_spellings_of_the_alias_region_are_one_instance(script, spelling):
    """No region, an empty one and the alias' own region name one and the same provider."""
    registry = make(alias("a", script, region="eu"))
    first = registry.get_provider("a")
    assert registry.get_provider("a", region=spelling) is first
    assert first.region == "eu"
    assert script.builds == [("a", "eu")]


@pytest.mark.parametrize("spelling", [None, "", "-"])
@pytest.mark.parametrize("of_alias", ["", "-"])
def test_spellings_of_no_region_are_one_instance(script, spelling, of_alias):
    """An alias without region has one provider, however "no region" is spelled."""
    registry = make(alias("a", script, region=of_alias), region="home")
    first = registry.get_provider("a")
    assert registry.get_provider("a", region=spelling) is first
    assert first.region == ""
    assert script.builds == [("a", "")]


def test_a_dash_ends_the_search(script):
    """``"-"`` is no region even where the alias and the process have one."""
    registry = make(alias("a", script, "RegionalProvider", region="eu"), region="home")
    assert registry.get_provider("a", region="-").region == ""
    assert registry.get_provider("a").region == "eu"


@pytest.mark.parametrize("spelling", [None, "", "home"])
def test_a_regional_backend_takes_the_region_of_the_process(script, spelling):
    """Backends that are regional by nature fall back to the process's region; others do not."""
    registry = make(alias("r", script, "RegionalProvider"), alias("a", script), region="home")
    assert registry.get_provider("r", region=spelling) is registry.get_provider("r")
    assert registry.get_provider("r").region == "home"
    assert registry.get_provider("a").region == ""


PRECEDENCE = [
    # call, reference, entry, alias, process → effective
    ("call", "ref", "entry", "alias", "process", "call"),
    (None, "ref", "entry", "alias", "process", "ref"),
    (None, "", "entry", "alias", "process", "entry"),
    (None, "", "", "alias", "process", "alias"),
    (None, "", "", "", "process", "process"),
    (None, "", "", "", "", ""),
    ("", "ref", "entry", "alias", "process", "ref"),
    ("-", "ref", "entry", "alias", "process", ""),
    (None, "-", "entry", "alias", "process", ""),
    (None, "", "-", "alias", "process", ""),
    (None, "", "", "-", "process", ""),
    (None, "", "", "", "-", ""),
]


@pytest.mark.parametrize("row", PRECEDENCE, ids=lambda row: "/".join(map(str, row)))
def test_region_precedence(script, row):
    """The region is that of the call, else the reference, the entry, the alias, the process."""
    call, ref, of_entry, of_alias, process, region = row
    query = f"?region={ref}" if ref else ""
    registry = make(
        alias("a", script, "RegionalProvider", region=of_alias),
        entry("e", f"a://s{query}", region=of_entry),
        region=process,
    )
    registry.get("e", region=call)
    assert script.builds == [("a", region)]
    (read,) = (info for info in registry.snapshot().secrets if info.state != "absent")
    assert read.key.region == region


@pytest.mark.parametrize("region", ["evil.example/?", "eu west", "../x", "-eu", "eu\n", canary()])
def test_a_region_that_could_bend_a_host_is_refused(script, region):
    """A region given in a call obeys the rules of one in a reference, and is not repeated."""
    if region == canary():
        region += "/"
    registry = make(alias("a", script))
    for use in (
        lambda: registry.get("a://s", region=region),
        lambda: registry.fetch("a://s", region=region),
        lambda: registry.get_provider("a", region=region),
        lambda: registry.evict(provider="a", region=region),
    ):
        with pytest.raises(InvalidReference) as caught:
            use()
        assert region not in str(caught.value)
    assert script.builds == []


def test_get_provider_obeys_the_fence_of_regions(script):
    """The client of a region outside REGIONS is not handed out, and not built."""
    registry = make(alias("a", script, region="eu", fence=Fence(regions=("eu",))))
    assert registry.get_provider("a").region == "eu"
    with pytest.raises(Exception, match="REGIONS"):
        registry.get_provider("a", region="us")
    assert script.builds == [("a", "eu")]


def test_an_unknown_alias_is_not_repeated(script):
    """An alias that does not exist raises ProviderDoesNotExist, which lists those that do."""
    registry = make(alias("known", script))
    with pytest.raises(ProviderDoesNotExist, match="known") as caught:
        registry.get_provider(canary("alias"))
    assert caught.value.__context__ is None
    with pytest.raises(ProviderDoesNotExist, match="none"):
        make().get_provider("x")


# -- building ------------------------------------------------------------------------------------


def test_one_build_for_many_threads(script):
    """64 threads that ask for one provider at once build it once and share it."""
    registry = make(alias("a", script))
    providers = at_once(lambda: registry.get_provider("a"), 64)
    assert script.builds == [("a", "")]
    assert len(set(map(id, providers))) == 1


def test_everyone_who_waits_gets_the_instance(script):
    """Threads that ask during a build wait for it, and count as cache hits."""
    gate = Gate()
    script.on_build = lambda provider: gate.stop()
    registry = make(alias("a", script))
    told = []
    registry.events.subscribe(told.append)
    with running(lambda: at_once(lambda: registry.get_provider("a"), 16)) as outcome:
        until(lambda: threads_in(ProviderCache._join) == 15)
        gate.open()
    assert len(set(map(id, outcome[0]))) == 1
    assert Counter(event.status for event in told) == {"ok": 1, "cache_hit": 15}
    (info,) = registry.snapshot().providers
    assert (info.builds, info.hits, info.failures) == (1, 15, 0)


def test_builds_of_different_keys_do_not_wait_for_one_another(script):
    """While one build is stopped, another alias and another region of the same are built."""
    gate = Gate()

    def stop(provider):
        if (provider.alias, provider.region) == ("slow", "eu"):
            gate.stop()

    script.on_build = stop
    registry = make(alias("slow", script, region="eu"), alias("fast", script))
    with running(lambda: registry.get_provider("slow")) as outcome:
        gate.wait()
        assert registry.get_provider("fast").alias == "fast"
        assert registry.get_provider("slow", region="us").region == "us"
        assert registry.get_provider("fast") is registry.get_provider("fast")
        assert len(registry.snapshot().providers) >= 3
        assert registry.evict(provider="fast") == 0
        assert outcome == []
        gate.open()
    assert outcome[0].region == "eu"


def test_a_failed_build_reaches_all_who_wait(script):
    """Threads that wait for a build that fails get an error each: an own one, with the cause."""
    gate = Gate()
    cause = OSError("no such profile")

    def fail(provider):
        gate.stop()
        raise cause

    script.on_build = fail
    registry = make(alias("a", script, region="eu"))
    told = []
    registry.events.subscribe(told.append)
    with running(lambda: at_once(lambda: registry.get_provider("a"), 64)) as outcome:
        until(lambda: threads_in(ProviderCache._join) == 63)
        gate.open()
    errors = outcome[0]
    assert {type(error) for error in errors} == {InvalidProvider}
    assert len(set(map(id, errors))) == 64
    assert len({str(error) for error in errors}) == 1
    assert {error.__cause__ for error in errors} == {cause}
    assert {(error.provider, error.region) for error in errors} == {("a", "eu")}
    assert len(script.builds) == 1
    assert Counter(event.status for event in told) == {"error": 64}


def test_a_failed_build_is_not_cached(script):
    """Whoever asks after a failure builds again, and what was held against the alias is gone."""
    script.on_build = lambda provider: 1 / 0
    registry = make(alias("a", script))
    for _ in range(3):
        with pytest.raises(InvalidProvider, match="ZeroDivisionError"):
            registry.get_provider("a")
    (info,) = registry.snapshot().providers
    assert (info.builds, info.failures, info.age) == (0, 3, None)
    assert "ZeroDivisionError" in info.last_error
    script.on_build = lambda provider: None
    assert registry.get_provider("a") is registry.get_provider("a")
    (info,) = registry.snapshot().providers
    assert (info.builds, info.failures, info.hits, info.last_error) == (1, 3, 1, "")
    assert len(script.builds) == 4


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_build_leaves_nobody_waiting(script, interrupt):
    """Ctrl-C in a build goes its way; those who wait get an error and the next one builds."""
    gate = Gate()

    def stop(provider):
        gate.stop()
        raise interrupt

    script.on_build = stop
    registry = make(alias("a", script))
    interrupted = threading.Event()

    def build():
        try:
            registry.get_provider("a")
        except interrupt:
            interrupted.set()

    with running(build):
        gate.wait()
        with running(lambda: registry.get_provider("a")) as waiting:
            until(lambda: threads_in(ProviderCache._join) == 1)
            gate.open()
    assert interrupted.is_set()
    assert isinstance(waiting[0], InvalidProvider)
    script.on_build = lambda provider: None
    assert registry.get_provider("a").alias == "a"


def test_a_build_that_asks_for_itself_is_an_error(script):
    """A provider that needs itself to be built raises instead of waiting for itself."""
    registry = make(alias("a", script))
    script.on_build = lambda provider: registry.get_provider("a")
    with pytest.raises(InvalidProvider, match="itself"):
        registry.get_provider("a")


class Reading(UserDict):
    """OPTIONS with a secret in it, as a live container has: reading it reads the registry."""

    def __getitem__(self, key):
        return self.read() if key == "token" else super().__getitem__(key)


def needy(name, script):
    """Return an alias, and its OPTIONS, whose ``read`` gives the token that they hold."""
    options = Reading(script=script, token="")
    return ProviderSpec(name, "tests.scripted.ScriptedProvider", options=options), options


def test_options_that_need_their_own_alias_are_an_error_at_once(script):
    """A secret in OPTIONS that its own provider must fetch is an error, before any timeout."""
    spec, options = needy("a", script)
    registry = make(spec)
    options.read = lambda: registry.get("a://s")
    for use in (lambda: registry.get_provider("a"), lambda: registry.get("a://s")):
        with running(use) as outcome:
            pass
        assert isinstance(outcome[0], InvalidProvider)
        assert "itself" in str(outcome[0])
    assert script.fetched == []


def test_options_that_need_one_another_end_in_an_error(script):
    """A cycle of two aliases, which a check reports, ends with FETCH_TIMEOUT, in no deadlock."""
    (first, of_first), (second, of_second) = needy("a", script), needy("b", script)
    registry = make(first, second, cache=CachePolicy(fetch_timeout=0.2))
    of_first.read = lambda: registry.get("b://s")
    of_second.read = lambda: registry.get("a://s")
    for outcome in at_once(lambda: registry.get("a://s"), 4):
        assert isinstance(outcome, InvalidProvider | ProviderUnavailable)
    assert script.builds == []


def test_a_missing_secret_in_options_is_no_missing_secret(script):
    """A provider whose OPTIONS name a secret that is not there is broken: no default hides it."""
    spec, options = needy("a", script)
    registry = make(alias("env", script), spec)
    options.read = lambda: registry.get("env://missing")
    with pytest.raises(InvalidProvider) as caught:
        registry.get("a://s", default="unprotected")
    assert "env://missing" in str(caught.value)
    script.answers["missing"] = ProviderUnavailable("down")
    registry.evict("env://missing")
    with pytest.raises(ProviderUnavailable):
        registry.get_provider("a")


def test_an_error_of_a_build_does_not_show_a_secret_of_its_options(script):
    """What a library says about OPTIONS that hold a secret is neither repeated nor chained."""
    spec, options = needy("a", script)

    def refuse(provider):
        raise ValueError(f"the token {provider.token} is malformed")

    script.on_build = refuse
    registry = make(alias("env", Script({"token": canary("token")})), spec)
    options.read = lambda: registry.get("env://token")
    for use in (lambda: registry.get_provider("a"), lambda: registry.get("a://s")):
        with pytest.raises(InvalidProvider, match="ValueError") as caught:
            use()
        assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        ("literal", True),
        ({"nested": [1, ("x",)]}, True),
        (SecretStr(canary("token")), False),
        ({"nested": [{"deep": (SecretBytes(b"token"),)}]}, False),
    ],
    ids=["literal", "nested", "secret", "nested secret"],
)
def test_a_cause_is_chained_where_no_secret_can_be_in_it(script, token, shown):
    """The cause of a failed build is shown unless a secret stands somewhere in OPTIONS."""

    def refuse(provider):
        raise ValueError("the profile does not exist")

    script.on_build = refuse
    with pytest.raises(InvalidProvider) as caught:
        make(alias("a", script, options={"token": token})).get_provider("a")
    assert isinstance(caught.value.__cause__, ValueError) is shown
    assert ("--traceback" in caught.value.hint) is shown
    assert caught.value.__context__ is None


def test_options_that_cannot_be_read_again_show_nothing(script):
    """Where a secret of OPTIONS is out of reach when a build has failed, no cause is shown."""
    spec, options = needy("a", script)

    def read():
        if script.builds:
            raise ProviderUnavailable("down")
        return canary("token")

    options.read = read
    script.on_build = lambda provider: int(provider.token)
    with pytest.raises(InvalidProvider) as caught:
        make(spec).get_provider("a")
    assert caught.value.__cause__ is caught.value.__context__ is None


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        ("no.such.module", "cannot be imported"),
        ("tests.scripted.Nothing", "cannot be imported"),
        ("nothing", "cannot be imported"),
        ("tests.scripted.Script", "no subclass"),
        ("tests.scripted.make", "no subclass"),
        ("tests.broken_backend.Provider", "cannot be imported"),
    ],
)
def test_a_wrong_backend_is_told_at_first_use(script, backend, words):
    """A BACKEND that cannot be used raises InvalidProvider, for its own alias only."""
    registry = make(ProviderSpec("bad", backend), alias("good", script))
    for use in (lambda: registry.get_provider("bad"), lambda: registry.get("bad://s", None)):
        with pytest.raises(InvalidProvider, match=words):
            use()
    assert registry.get("good://s") == canary("value")


def test_a_problem_of_an_alias_disturbs_no_other(script):
    """An alias with a mistake in its configuration raises what the mistake is; others work."""
    registry = make(alias("bad", script, problem="TTL is negative"), alias("good", script))
    with pytest.raises(InvalidProvider, match="TTL is negative"):
        registry.get("bad://s")
    assert registry.get("good://s") == canary("value")


def test_a_missing_library_is_named(script):
    """A backend whose library is not installed says which one, and how to get it."""
    script.on_build = lambda provider: __import__("no_such_sdk")
    with pytest.raises(InvalidProvider, match=r"no_such_sdk.*Install what this backend needs"):
        make(alias("a", script)).get_provider("a")
    ours = ProviderSpec("v", "django_secret_registry.providers.vault.VaultProvider")
    assert ours.installation == "Install django-secret-registry[vault]."


# -- the end of an instance ----------------------------------------------------------------------


@pytest.mark.parametrize("ttl", [None, 0, 0.0])
def test_without_ttl_an_instance_lives_as_long_as_the_process(script, ttl):
    """A TTL that is unset or 0 means that the provider is never replaced."""
    clock = HandClock()
    registry = make(alias("a", script, ttl=ttl), clock=clock)
    first = registry.get_provider("a")
    clock.forward(10**9)
    assert registry.get_provider("a") is first
    assert script.closed == []


def test_an_instance_past_its_ttl_is_replaced_and_closed(script):
    """At the end of its TTL, and not before, a provider is built anew and the old one closed."""
    clock = HandClock()
    registry = make(alias("a", script, ttl=60), clock=clock)
    first = id(registry.get_provider("a"))
    clock.forward(59.9)
    assert id(registry.get_provider("a")) == first
    assert script.closed == []
    clock.forward(0.1)
    second = registry.get_provider("a")
    assert script.closed == [("a", "")]
    assert len(script.builds) == 2
    clock.forward(59)
    assert registry.get_provider("a") is second


def test_an_instance_nobody_asks_for_any_more_is_dropped(script):
    """An expired provider goes when any other is asked for, and when one looks at them."""
    clock = HandClock()
    registry = make(alias("a", script, ttl=60), alias("b", script), clock=clock)
    registry.get_provider("b")
    registry.get_provider("a")
    clock.forward(60)
    registry.get_provider("b")
    assert script.closed == [("a", "")]
    registry.get_provider("a")
    clock.forward(60)
    ages = {info.alias: info.age for info in registry.snapshot().providers}
    assert ages == {"a": None, "b": 120}
    assert script.closed == [("a", ""), ("a", "")]


def test_a_caller_keeps_an_expired_instance_open(script):
    """Whoever got a provider uses it as long as they hold it; then it is closed at once."""
    clock = HandClock()
    registry = make(alias("a", script, ttl=60), clock=clock)
    mine = registry.get_provider("a")
    clock.forward(60)
    theirs = registry.get_provider("a")
    assert theirs is not mine
    assert script.closed == []
    del mine
    assert script.closed == [("a", "")]


def test_a_fetch_keeps_an_evicted_instance_open(script):
    """A provider that is evicted during a fetch is closed when the fetch is done, not before."""
    gate = Gate()

    def stop(ref):
        gate.stop()
        assert script.closed == []
        return canary("value")

    script.answers["s"] = stop
    registry = make(alias("a", script))
    with running(lambda: registry.get("a://s")) as outcome:
        gate.wait()
        registry.evict(provider="a")
        assert script.closed == []
        gate.open()
    assert outcome == [canary("value")]
    until(lambda: script.closed == [("a", "")])


@pytest.mark.parametrize("error", [ProviderUnavailable("down"), ValueError("strange")])
def test_a_failed_fetch_does_not_keep_an_evicted_instance_open(script, error):
    """No error that was handled keeps a provider alive: it closes without the cycle collector."""

    def fail(ref):
        try:
            raise OSError("no route")
        except OSError as exc:
            raise type(error)(*error.args) from exc

    script.answers["s"] = fail
    registry = make(alias("a", script))
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(Exception, match="."):
            registry.get("a://s")
        registry.evict(provider="a")
        until(lambda: script.closed == [("a", "")])
    finally:
        gc.enable()


def test_an_eviction_during_a_build(script):
    """Who asked before the eviction gets the provider; who asks after it gets a newer one."""
    gate = Gate()
    numbers = []

    def stop(provider):
        numbers.append(provider)
        if len(numbers) == 1:
            gate.stop()

    script.on_build = stop
    registry = make(alias("a", script))
    with running(lambda: registry.get_provider("a")) as before:
        gate.wait()
        registry.evict(provider="a")
        after = registry.get_provider("a")  # does not wait for the build that was evicted
        assert before == []
        gate.open()
    assert before == [numbers[0]]
    assert after is numbers[1]
    assert registry.get_provider("a") is after


def test_the_old_instance_serves_until_the_new_one_is_there(script):
    """A client that is built anew takes nothing from those who read meanwhile."""
    registry, gate = make(alias("a", script)), Gate()
    old = weakref.ref(registry.get_provider("a"))
    script.on_build = lambda provider: gate.stop()
    with running(lambda: registry.refresh(provider="a")):
        gate.wait()
        assert registry.get_provider("a") is old()
        assert registry.get("a://s") == canary("value")
        gate.open()
    assert registry.get_provider("a") is not old()
    until(lambda: script.closed == [("a", "")])
    assert old() is None


def test_the_old_instance_stays_when_the_new_one_cannot_be_built(script):
    """A refresh that fails says so, and leaves what works."""
    registry = make(alias("a", script))
    old = registry.get_provider("a")

    def fail(provider):
        raise ProviderUnavailable("down")

    script.on_build = fail
    with pytest.raises(ProviderUnavailable):
        registry.refresh(provider="a")
    assert registry.get_provider("a") is old


def test_a_refresh_does_not_take_a_build_that_began_before_it(script):
    """A build under way may have read the old credentials: another one begins."""
    registry, gate = make(alias("a", script)), Gate()
    script.on_build = lambda provider: gate.stop()
    with running(lambda: registry.get_provider("a")) as first:
        gate.wait()
        script.on_build = lambda provider: None
        registry.refresh(provider="a")
        new = registry.get_provider("a")
        gate.open()
    assert first[0] is not new
    assert registry.get_provider("a") is new


def test_regions_that_users_make_up_do_not_pile_up(script):
    """Without REGIONS, too, an alias has a bounded number of clients: the unused ones leave."""
    registry = make(alias("a", script), alias("b", script))
    registry.get_provider("b")
    home = registry.get_provider("a")
    for number in range(5 * MAX_REGIONS):
        registry.get_provider("a", region=f"made-up-{number}")
        assert registry.get_provider("a") is home
    built = [row for row in registry.snapshot().providers if row.age is not None]
    assert len([row for row in built if row.alias == "a"]) == MAX_REGIONS
    assert len(script.closed) == 5 * MAX_REGIONS + 1 - MAX_REGIONS
    assert ("a", "") not in script.closed
    assert ("b", "") not in script.closed


def test_what_is_told_of_regions_does_not_pile_up(script):
    """Regions whose clients cannot be built are forgotten as well."""
    registry = make(alias("a", script))
    home = registry.get_provider("a")

    def fail(provider):
        raise ProviderUnavailable("there is no such region")

    script.on_build = fail
    for number in range(3 * MAX_REGIONS):
        with pytest.raises(ProviderUnavailable):
            registry.get_provider("a", region=f"made-up-{number}")
    assert len(registry.snapshot().providers) <= 2 * MAX_REGIONS
    assert registry.get_provider("a") is home


def test_evict_by_region(script):
    """Eviction takes one region of an alias, or all; other aliases stay."""
    registry = make(alias("a", script, region="eu"), alias("b", script))
    instances = {
        key: registry.get_provider(*key)
        for key in (("a", "eu"), ("a", "us"), ("a", "-"), ("b", ""))
    }
    registry.evict(provider="a", region="-")
    assert registry.get_provider("a", "-") is not instances["a", "-"]
    assert registry.get_provider("a") is instances["a", "eu"]
    registry.evict(provider="a")
    assert registry.get_provider("a", "us") is not instances["a", "us"]
    assert registry.get_provider("a", "eu") is not instances["a", "eu"]
    assert registry.get_provider("b") is instances["b", ""]
    registry.evict(all=True)
    assert registry.get_provider("b") is not instances["b", ""]


def test_a_broken_close_breaks_nothing(script):
    """An error in ``close`` reaches nobody, neither at an eviction nor at the end."""
    registry = make(alias("a", script))
    script.closed = None  # append() raises
    registry.get_provider("a")
    registry.evict(provider="a")
    registry.get_provider("a")
    registry.close()
    assert len(script.builds) == 2


def test_hits_builds_and_errors_are_told(script):
    """Each request for a provider is an event with alias, region and one of three outcomes."""
    registry = make(alias("a", script, region="eu"), alias("b", script))
    told = []
    registry.events.subscribe(told.append)
    registry.get_provider("a")
    registry.get_provider("a")
    registry.get_provider("b")
    script.on_build = lambda provider: 1 / 0
    with pytest.raises(InvalidProvider):
        registry.get_provider("b", region="us")
    assert [(event.provider, event.region, event.status) for event in told] == [
        ("a", "eu", "ok"),
        ("a", "eu", "cache_hit"),
        ("b", "", "ok"),
        ("b", "us", "error"),
    ]
    assert all(isinstance(event, ProviderBuilt) for event in told)


def test_the_time_of_a_build_is_told(script):
    """The event of a build says how long it took."""
    clock = HandClock()
    script.on_build = lambda provider: clock.forward(2.5)
    registry = make(alias("a", script), clock=clock)
    told = []
    registry.events.subscribe(told.append)
    registry.get_provider("a")
    assert told == [ProviderBuilt("a", "", "ok", 2.5)]


PROCESS = """
    import os, sys
    from django_secret_registry import BaseProvider, SecretRegistry, SecretValue
    from django_secret_registry.provider_cache import ProviderSpec
    from django_secret_registry.specs import RegistryConfig

    class Provider(BaseProvider):
        def fetch(self, ref, *, timeout):
            return SecretValue("x")

        def close(self):
            print("closed", "at home" if self.home == os.getpid() else "elsewhere", flush=True)

        def __init__(self, *, alias, region):
            super().__init__(alias=alias, region=region)
            self.home = os.getpid()

    registry = SecretRegistry()
    spec = ProviderSpec("a", "__main__.Provider")
    registry.configure(RegistryConfig(providers={"a": spec}))
    provider = registry.get_provider("a")
"""


def run(script: str) -> str:
    code = textwrap.dedent(PROCESS) + textwrap.dedent(script)
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def test_instances_are_closed_at_exit():
    """A provider that still lives when the process ends is closed, even if someone holds it."""
    assert "closed at home" in run("keep = [provider, registry]; provider = keep")


def test_exit_waits_for_no_fetch():
    """A process ends although a provider hangs, in a build or in a fetch."""
    assert "end" in run(
        """
        import threading, time
        hanging = threading.Event()

        def hang(*args, **kwargs):
            hanging.set()
            time.sleep(600)

        Provider.fetch = hang
        threading.Thread(target=registry.get, args=("a://s",), daemon=True).start()
        hanging.wait()
        print("end")
        """
    )


def test_a_child_does_not_close_what_its_parent_uses():
    """After a fork the child builds its own provider, and never closes that of its parent."""
    out = run(
        """
        child = os.fork()
        if not child:
            mine = registry.get_provider("a")
            print("built anew:", mine is not provider, flush=True)
            del mine, provider
            sys.exit(0)  # with all that an interpreter does at its end
        status = os.waitpid(child, 0)[1]
        print("status", status, flush=True)
        """
    )
    assert list(dict.fromkeys(out.splitlines())) == [
        "built anew: True",
        "closed at home",
        "status 0",
    ]


def test_a_fork_during_a_build():
    """A child that is forked while another thread builds does not wait for that build."""
    out = run(
        """
        import threading
        del provider
        registry.evict(provider="a")
        building, go = threading.Event(), threading.Event()

        def stop(self, *, alias, region):
            BaseProvider.__init__(self, alias=alias, region=region)
            self.home = os.getpid()
            building.set()
            go.wait()

        Provider.__init__ = stop
        thread = threading.Thread(target=registry.get_provider, args=("a",))
        thread.start()
        building.wait()
        child = os.fork()
        if not child:
            go.set()
            registry.get_provider("a")
            print("built in the child", flush=True)
            os._exit(0)
        print("status", os.waitpid(child, 0)[1], flush=True)
        go.set()
        thread.join()
        """
    )
    assert "built in the child" in out
    assert "status 0" in out
