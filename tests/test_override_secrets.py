"""``override_secrets``: secrets for tests, and nothing else in their place."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import subprocess
import sys
import threading
import unittest
from pathlib import Path
from typing import ClassVar

import pytest
from django.conf import settings as live_settings
from django.test import TestCase as DjangoTestCase
from django.test import override_settings

from django_secret_registry import ProviderUnavailable, SecretNotFound, registry
from django_secret_registry.conformance import ProviderConformance
from django_secret_registry.providers.memory import MemoryProvider, MemoryStore
from django_secret_registry.test import ProviderConformance as Exported
from django_secret_registry.test import override_secrets
from django_secret_registry.values import SecretBytes, SecretStr, SecretValue
from tests.canary import CANARY, canary

REAL = canary("real")
A, B = "memory://a", "memory://b"


@pytest.fixture(autouse=True)
def config(settings):
    settings.SECRET_REGISTRY = {
        "PROVIDERS": {
            "memory": {
                "BACKEND": "django_secret_registry.providers.memory.MemoryProvider",
                "OPTIONS": {"secrets": MemoryStore({"a": REAL, "b": REAL})},
            }
        },
        "SECRETS": {
            "entry": "memory://a",
            "smtp": {"MAP": {"user": "memory://s#user", "password": "memory://s#password"}},
        },
    }
    return settings.SECRET_REGISTRY


class SlowProvider(MemoryProvider):
    """Answers when it is told to."""

    @classmethod
    def reset(cls):
        cls.entered, cls.go_on = threading.Event(), threading.Event()

    def fetch(self, ref, *, timeout):
        self.entered.set()
        assert self.go_on.wait(30)
        return SecretValue(REAL)


class TestContextManager:
    def test_gives_values_and_takes_them_back(self):
        """Inside, secrets have the given values; before and after, those of the provider."""
        assert registry.get(A) == REAL
        with override_secrets({A: "test", "entry": "other"}):
            assert registry.get(A) == "test"
            assert registry.get("entry") == "other"
        assert registry.get(A) == REAL

    def test_takes_them_back_after_an_error(self):
        """An exception in the block ends the override as its end does."""
        with pytest.raises(ZeroDivisionError), override_secrets({A: "test"}):
            1 / 0  # noqa: B018
        assert registry.get(A) == REAL

    def test_refuses_everything_else(self):
        """What has no value raises, although the provider or the cache could give it."""
        registry.get(B)
        with override_secrets({A: "test"}):
            for read in (registry.get, registry.fetch, lambda ref: asyncio.run(registry.aget(ref))):
                with pytest.raises(ProviderUnavailable, match="override_secrets"):
                    read(B)
            with pytest.raises(ProviderUnavailable):
                registry.refresh(B)
            with pytest.raises(ProviderUnavailable):
                registry.get_provider("memory")
            assert [result.outcome for result in registry.warm([B])] == ["unavailable"]

    def test_empty_override_refuses_all(self):
        """An override without values is a fence: nothing is read at all."""
        with override_secrets({}), pytest.raises(ProviderUnavailable):
            registry.get(A)

    def test_values_are_masked(self):
        """Values are masked as those of a provider are: text, bytes, a dict of them."""
        with override_secrets({A: "x", B: b"x", "smtp": {"user": "u", "password": "p"}}):
            assert type(registry.get(A)) is SecretStr
            assert type(registry.get(B)) is SecretBytes
            assert {type(value) for value in registry.get("smtp").values()} == {SecretStr}

    def test_every_way_to_read(self):
        """``get``, ``aget`` and ``fetch`` give the value, for a reference and for its entry."""
        with override_secrets({A: "test"}):
            for ref in (A, "entry", "ref+memory://a?ttl=5"):
                assert registry.get(ref) == registry.fetch(ref).value == "test"
                assert asyncio.run(registry.aget(ref)) == "test"

    def test_keys_of_a_secret(self):
        """A dict for a whole secret answers for its keys; a missing key is not found."""
        with override_secrets({A: {"user": "u"}}):
            assert registry.get(f"{A}#user") == "u"
            with pytest.raises(SecretNotFound):
                registry.get(f"{A}#other")

    def test_error_as_value_is_raised(self):
        """An error given as a value is raised, so that a test can play an outage."""
        with override_secrets({A: SecretNotFound("gone")}):
            with pytest.raises(SecretNotFound):
                registry.get(A)
            assert registry.get(A, None) is None

    def test_nests(self):
        """An inner override wins, the outer one's other values stay, and each undoes itself."""
        with override_secrets({A: "1", B: "1"}):
            with override_secrets({A: "2"}):
                assert (registry.get(A), registry.get(B)) == ("2", "1")
            assert (registry.get(A), registry.get(B)) == ("1", "1")

    def test_one_object_can_be_entered_again(self):
        """An override that is entered within itself, by recursion say, ends with the outer exit."""
        override = override_secrets({A: "test"})
        with override:
            with override:
                pass
            assert registry.get(A) == "test"
        assert registry.get(A) == REAL

    def test_takes_a_copy(self):
        """A dict that is changed later changes no override."""
        values = {A: "1"}
        override = override_secrets(values)
        values[A] = "2"
        with override:
            assert registry.get(A) == "1"

    def test_holds_in_other_threads(self):
        """Like ``override_settings`` it holds for the whole process."""
        seen = []
        with override_secrets({A: "test"}):
            thread = threading.Thread(target=lambda: seen.append(registry.get(A)))
            thread.start()
            thread.join()
        assert seen == ["test"]

    def test_holds_through_new_settings(self, config):
        """``override_settings`` within it rebuilds the registry and does not end it."""
        with override_secrets({A: "test"}):
            with override_settings(SECRET_REGISTRY={**config, "REGION": "eu-west-1"}):
                assert registry.get(A) == "test"
            assert registry.get(A) == "test"
        assert registry.get(A) == REAL

    def test_new_entries_are_answered(self, config):
        """An entry that ``override_settings`` brings later is answered through its reference."""
        secrets = {**config["SECRETS"], "new": "memory://a"}
        with (
            override_secrets({A: "test"}),
            override_settings(SECRET_REGISTRY={**config, "SECRETS": secrets}),
        ):
            assert registry.get("new") == "test"

    def test_fetch_under_way(self, config):
        """A fetch that began before still serves who waits for it, and reaches nobody inside."""
        SlowProvider.reset()
        config = {**config, "PROVIDERS": {"memory": {"BACKEND": f"{__name__}.SlowProvider"}}}
        with override_settings(SECRET_REGISTRY=config):
            seen = []
            thread = threading.Thread(target=lambda: seen.append(registry.get(A)))
            thread.start()
            assert SlowProvider.entered.wait(30)
            with override_secrets({A: "test"}):
                SlowProvider.go_on.set()
                thread.join()
                assert seen == [REAL]
                assert registry.get(A) == "test"
            assert registry.get(A) == REAL

    def test_live_settings_follow(self, settings):
        """A live setting reads the given value, with its ``.map`` applied."""
        from django_secret_registry import secret

        settings.TEST_KEY = secret(A)
        settings.TEST_URL = secret(A).map("https://{}/".format)
        assert live_settings.TEST_KEY == REAL
        with override_secrets({A: "test"}):
            assert live_settings.TEST_KEY == "test"
            assert live_settings.TEST_URL == "https://test/"
        assert live_settings.TEST_KEY == REAL

    def test_a_live_setting_without_value_says_what_to_add(self, settings):
        """The error of a setting is that of its reference; it does not speak of a start-up."""
        from django_secret_registry import secret

        settings.TEST_KEY = secret(A)
        with override_secrets({}), pytest.raises(ProviderUnavailable) as caught:
            _ = live_settings.TEST_KEY
        assert "has no value for this reference" in str(caught.value)
        assert caught.value.hint == "Add it to override_secrets({...})."

    def test_repr_shows_no_value(self):
        """A value given to an override, a real one by mistake, is not in its repr."""
        assert canary() not in repr(override_secrets({A: canary()}))


class TestDecorator:
    def test_of_a_function(self):
        """It decorates a function and hands on arguments and result."""

        @override_secrets({A: "test"})
        def read(prefix, *, suffix):
            """Docs."""
            return f"{prefix}{registry.get(A)}{suffix}"

        assert read("<", suffix=">") == "<test>"
        assert read.__doc__ == "Docs."
        assert registry.get(A) == REAL

    def test_of_a_coroutine_function(self):
        """A coroutine function has the values while it runs, not while it is made."""

        @override_secrets({A: "test"})
        async def read():
            await asyncio.sleep(0)
            return await registry.aget(A)

        coroutine = read()
        assert registry.get(A) == REAL
        assert asyncio.run(coroutine) == "test"
        assert registry.get(A) == REAL

    def test_of_a_plain_class_is_refused(self):
        """A class that unittest does not run would silently not be covered; it is a TypeError."""
        with pytest.raises(TypeError, match="unittest"):

            @override_secrets({A: "test"})
            class Plain:
                pass


def outcome_of(case: type[unittest.TestCase]) -> unittest.TestResult:
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    assert not result.errors, result.errors
    assert not result.failures, result.failures
    assert result.testsRun
    return result


@pytest.mark.parametrize("base", [unittest.TestCase, DjangoTestCase])
class TestClassDecorator:
    @pytest.fixture(autouse=True)
    def database(self, db):
        """Django's TestCase asks for one."""

    def test_covers_the_whole_class(self, base):
        """Class set-up, tests and class tear-down have the values; what runs after it does not."""
        seen = []

        @override_secrets({A: "test"})
        class Case(base):
            @classmethod
            def setUpClass(cls):
                seen.append(registry.get(A))
                super().setUpClass()

            @classmethod
            def tearDownClass(cls):
                seen.append(registry.get(A))
                super().tearDownClass()

            def test(self):
                seen.append(registry.get(A))

        outcome_of(Case)
        assert seen == ["test"] * 3
        assert registry.get(A) == REAL

    def test_subclass_adds_to_it(self, base):
        """A decorated subclass has its own values over those of its base, whatever their order."""

        @override_secrets({A: "base", B: "base"})
        class Base(base):
            expected: ClassVar = ("base", "base")

            @classmethod
            def setUpClass(cls):
                super().setUpClass()
                cls.seen = registry.get(A), registry.get(B)

            def test(self):
                assert (registry.get(A), registry.get(B)) == self.seen == self.expected

        @override_secrets({A: "sub"})
        class Sub(Base):
            expected = ("sub", "base")

        class Undecorated(Sub):
            pass

        for case in (Base, Sub, Undecorated, Base):
            outcome_of(case)
            assert registry.get(A) == REAL

    def test_method_decorator_wins(self, base):
        """A method's own override holds over that of the class."""

        @override_secrets({A: "class", B: "class"})
        class Case(base):
            @override_secrets({A: "method"})
            def test_decorated(self):
                assert (registry.get(A), registry.get(B)) == ("method", "class")

            def test_plain(self):
                assert registry.get(A) == "class"

        outcome_of(Case)

    def test_ends_when_set_up_fails(self, base):
        """A class whose set-up fails leaves nothing overridden."""

        @override_secrets({A: "test"})
        class Case(base):
            @classmethod
            def setUpClass(cls):
                raise ZeroDivisionError

            def test(self):
                pass

        unittest.defaultTestLoader.loadTestsFromTestCase(Case).run(unittest.TestResult())
        assert registry.get(A) == REAL


def test_covers_set_up_test_data(db):
    """Django's ``setUpTestData`` has the values too."""

    @override_secrets({A: "test"})
    class Case(DjangoTestCase):
        @classmethod
        def setUpTestData(cls):
            cls.seen = registry.get(A)

        def test(self):
            assert self.seen == "test"

    outcome_of(Case)


def test_conformance_is_exported():
    """The tests that a provider must pass are found next to ``override_secrets``."""
    assert Exported is ProviderConformance


class TestFixture:
    def test_can_be_called_several_times(self, override_secrets):
        """Each call of the fixture adds to the values."""
        override_secrets({A: "1", B: "1"})
        override_secrets({A: "2"})
        assert (registry.get(A), registry.get(B)) == ("2", "1")

    def test_does_nothing_until_called(self, override_secrets):
        """A test that only asks for the fixture still has the real secrets."""
        assert callable(override_secrets)
        assert registry.get(A) == REAL


PLAIN_PROJECT = """
import sys

import pytest

def test_plain():
    assert "django.conf" not in sys.modules or not sys.modules["django.conf"].settings.configured

def test_fixture(override_secrets):
    from django_secret_registry import registry

    override_secrets({"stripe": "sk_test"})
    assert registry.get("stripe") == "sk_test"

def test_after():
    from django_secret_registry import SecretNotReady, registry

    with pytest.raises(SecretNotReady):
        registry.get("stripe")
"""


FAILING = """
import pytest
from django_secret_registry import SecretBytes, SecretStr
from tests.canary import canary

TEXT, BYTES = SecretStr(canary()), SecretBytes(canary().encode())

@pytest.mark.parametrize("other", ["x", "x\\ny", SecretStr(canary("y")), None])
def test_text(other):
    assert TEXT == other

def test_other_side():
    assert "x" == TEXT

def test_part():
    assert "x" in TEXT

def test_no_part():
    assert TEXT[:4] not in TEXT

def test_bytes():
    assert BYTES == b"x"

def test_containers():
    assert [TEXT, {"k": BYTES}] == ["x", {"k": b"x"}]

def test_own_text():
    assert "abc" == "abd"
"""


@pytest.mark.full
def test_failed_assertions_show_no_secret(pytester):
    """pytest explains a failed comparison without the secret, and names no test by one."""
    pytester.makepyfile(FAILING)
    options = ["-vv", "-p", "no:django", "-p", "no:randomly", "-p", "no:cacheprovider"]
    installed = importlib.metadata.entry_points(group="pytest11")
    if "django_secret_registry" not in installed.names:
        options += ["-p", "django_secret_registry.pytest_plugin"]
    result = pytester.runpytest_inprocess(*options)
    result.assert_outcomes(failed=10)
    shown = result.stdout.str() + result.stderr.str()
    assert CANARY not in shown
    assert "SecretStr('**********') == 'x'" in shown
    assert "abd" in shown


@pytest.mark.full
def test_plugin_without_django_settings(tmp_path):
    """Where there are no Django settings and no pytest-django, the plugin loads and works too."""
    (tmp_path / "test_it.py").write_text(PLAIN_PROJECT)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    options = ["-p", "no:django", "-p", "no:randomly", "-p", "no:cacheprovider", "-W", "error"]
    installed = importlib.metadata.entry_points(group="pytest11")
    if "django_secret_registry" not in installed.names:
        options += ["-p", "django_secret_registry.pytest_plugin"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *options],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout
