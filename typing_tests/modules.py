"""The types of what the package's modules offer besides ``django_secret_registry`` itself."""

from __future__ import annotations

import logging
import unittest
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, assert_type

from django.dispatch import Signal
from django.views.debug import ExceptionReporter as DjangosReporter
from django.views.debug import SafeExceptionReporterFilter

from django_secret_registry import BaseProvider, LazySecret, SecretRef, SecretValue
from django_secret_registry.conformance import FEATURES, ProviderConformance, hostile_names, needs
from django_secret_registry.database import ENGINES, database_config
from django_secret_registry.db.backends.mysql.base import DatabaseWrapper as MySQLWrapper
from django_secret_registry.db.backends.postgresql.base import DatabaseWrapper
from django_secret_registry.db.mixin import RotatingCredentials, windows_of
from django_secret_registry.debug import DRIVERS, ExceptionReporter, ExceptionReporterFilter
from django_secret_registry.environ import Env, LiteralSecret
from django_secret_registry.events import Event
from django_secret_registry.exceptions import SecretError
from django_secret_registry.lazy import SecretSetting
from django_secret_registry.providers.base import (
    PORTABLE_STAGES,
    Fence,
    Members,
    Problem,
    quote_path,
)
from django_secret_registry.redaction import SecretFilter, before_send, redacted
from django_secret_registry.rotation import RotationWindows
from django_secret_registry.signals import (
    SecretSignal,
    provider_built,
    secret_evicted,
    secret_rotated,
    send,
)
from django_secret_registry.test import override_secrets


def environ() -> None:
    env = Env()
    assert_type(env, Env)
    assert_type(env.secret("KEY"), SecretSetting)
    assert_type(env.secret("KEY", default="sk_test"), SecretSetting)
    assert_type(env.secret("KEY", default=None), SecretSetting | None)
    assert_type(env.secret("KEY").map(len), int)
    assert_type(env.db(engine="django.db.backends.postgresql"), dict[str, Any])
    assert_type(env.db_url("DATABASE_URL"), dict[str, Any])
    assert_type(env.cache(), dict[str, Any])
    assert_type(env.email(), dict[str, Any])
    text: str = LiteralSecret("x")
    assert_type(LiteralSecret(text).map(len), int)
    assert_type(LiteralSecret(text), LiteralSecret)


def database() -> None:
    config = database_config("aws://prod/rds", engine="postgres", HOST="db", CONN_MAX_AGE=60)
    assert_type(config, dict[str, Any])
    assert_type(ENGINES, dict[str, str])


class OwnEngine(RotatingCredentials):
    """An engine of a project's own."""


def engines(own: OwnEngine, postgresql: DatabaseWrapper, mysql: MySQLWrapper) -> None:
    wrappers: list[RotatingCredentials] = [own, postgresql, mysql]
    assert_type(own.get_connection_params(), dict[str, Any])
    assert_type(postgresql, DatabaseWrapper)
    assert_type(mysql, MySQLWrapper)
    assert_type(wrappers[0], RotatingCredentials)
    assert_type(windows_of("default"), RotationWindows)


def debug() -> None:
    safe: SafeExceptionReporterFilter = ExceptionReporterFilter()
    assert_type(safe.get_safe_settings(), dict[str, Any])
    assert_type(ExceptionReporterFilter().mask("text"), str)
    reporter: DjangosReporter = ExceptionReporter(None, None, None, None)
    page: str = reporter.get_traceback_html()
    assert_type(page.strip(), str)
    assert_type(DRIVERS, frozenset[str])


def redaction() -> None:
    logging.getLogger().addFilter(SecretFilter())
    assert_type(before_send({}), Any)
    assert_type(redacted("text"), Any)


def signals(event: Event) -> None:
    def receive(sender: object, reference: str, **kwargs: Any) -> None: ...

    secret_rotated.connect(receive)
    plain: list[Signal] = [secret_evicted, provider_built]
    assert_type(secret_rotated, SecretSignal)
    assert_type(secret_evicted, SecretSignal)
    assert_type(provider_built, SecretSignal)
    assert_type(plain[0], Signal)
    sending: Callable[[Event], None] = send
    sending(event)


@override_secrets({"stripe": "sk_test"})
class PaymentTests(unittest.TestCase):
    def pay(self) -> int:
        with override_secrets({"stripe": b"sk_test"}):
            return 1

    @override_secrets({"smtp": {"user": "x"}})
    def test_pay(self) -> None:
        assert_type(self.pay(), int)


assert_type(PaymentTests(), PaymentTests)
assert_type(override_secrets({}), override_secrets)


def in_pytest(override_secrets: Callable[[Mapping[str, Any]], None]) -> None:
    override_secrets({"stripe": "sk_test"})


class Chained(BaseProvider):
    composite = True

    def __init__(self, *, alias: str, region: str, members: Members) -> None:
        super().__init__(alias=alias, region=region)
        self.members = members

    def fetch(self, ref: SecretRef, *, timeout: float) -> SecretValue:
        assert_type(self.members, Members)
        found = self.members.fetch([ref], timeout=timeout)[ref]
        if isinstance(found, SecretError):
            raise found
        return found

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> list[Problem]:
        assert_type(super().check(options), list[Problem])
        return [*super().check(options), Problem("is wrong", "Write it right.")]

    @classmethod
    def canonical(cls, ref: SecretRef, options: Mapping[str, Any]) -> SecretRef:
        assert_type(super().canonical(ref, options), SecretRef)
        return ref

    @classmethod
    def identities(cls, ref: SecretRef) -> Iterable[tuple[str, str]]:
        return super().identities(ref)

    @classmethod
    def member_aliases(cls, options: Mapping[str, Any]) -> Sequence[str]:
        return tuple(options["aliases"])


def providers(provider: BaseProvider, ref: SecretRef) -> None:
    assert_type(provider, BaseProvider)
    answers = provider.fetch_many([ref], timeout=5)
    assert_type(answers, dict[SecretRef, SecretValue | SecretError])
    assert_type(Fence(allow=("prod/*",)), Fence)
    assert_type(Problem("is wrong", "Write it right.").hint, str)
    assert_type(quote_path("a/b"), str)
    assert_type(PORTABLE_STAGES, tuple[str, ...])
    Fence().check(ref, name="a", region="")


class TestChained(ProviderConformance):
    provider_class = Chained
    lacks = {"stage": "it has none"}
    existing, value, missing = "db", "x", "none"

    @needs("version")
    def test_more(self) -> None:
        assert_type(self.make_provider("eu"), BaseProvider)


assert_type(TestChained(), TestChained)
assert_type(ProviderConformance.alias, str)
assert_type(hostile_names("db"), list[str])
assert_type(needs("stage")(hostile_names)("db"), list[str])
assert_type(FEATURES, tuple[str, ...])
assert_type(LazySecret("stripe").default, Any)
