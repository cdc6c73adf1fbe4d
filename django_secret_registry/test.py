"""For a project's tests: secrets without a provider, and the tests that a provider must pass."""

from __future__ import annotations

import unittest
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from django.test.utils import TestContextDecorator

from . import registry
from .conformance import ProviderConformance

__all__ = ["ProviderConformance", "override_secrets"]

TestCaseClass = TypeVar("TestCaseClass", bound=type[unittest.TestCase])


class override_secrets(TestContextDecorator):  # noqa: N801 - named as override_settings is
    """Give secrets these values; a reference that is not among them raises and is never fetched.

    ::

        with override_secrets({"stripe": "sk_test", "aws://prod/db#password": "x"}): ...

        @override_secrets({"stripe": "sk_test"})
        class PaymentTests(TestCase): ...

    Keys are references or entries, as the code under test writes them. Used as a context manager,
    or as a decorator of functions, coroutine functions and ``unittest.TestCase`` classes (their
    subclasses too), where it also covers ``setUpClass`` and ``setUpTestData``. Uses nest, the inner
    one wins. It applies to the whole process, as ``override_settings`` does.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__()
        self.values = dict(values)
        self._restores: list[Callable[[], None]] = []

    def enable(self) -> None:
        """Begin; the context manager and the decorators call this."""
        self._restores.append(registry.override(self.values))

    def disable(self) -> None:
        """Undo the latest :meth:`enable`."""
        self._restores.pop()()

    def decorate_class(self, cls: TestCaseClass) -> TestCaseClass:
        """Cover the class from before ``setUpClass`` to the end of its class clean-ups."""
        if not issubclass(cls, unittest.TestCase):
            raise TypeError(
                "override_secrets decorates subclasses of unittest.TestCase; use the"
                " override_secrets fixture in a plain pytest class"
            )
        decorated: Any = cls
        decorated._overridden_secrets = {**getattr(cls, "_overridden_secrets", {}), **self.values}
        original = cls.__dict__.get("setUpClass")

        def set_up_class(running: Any) -> None:
            # A subclass that is decorated too gets here twice, each time with the values of both.
            override = override_secrets(running._overridden_secrets)
            override.enable()
            running.addClassCleanup(override.disable)
            if original is not None:
                original.__get__(None, running)()
            else:
                parent: Any = super(decorated, running)
                parent.setUpClass()

        decorated.setUpClass = classmethod(set_up_class)
        return cls
