"""The pytest plugin; pytest loads it wherever the package is installed.

It is loaded before any settings are chosen, also in projects that do not use Django: what needs
settings is imported when a test asks for the fixture.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from .values import SecretBytes, SecretStr


@pytest.fixture
def override_secrets() -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Call it with values for secrets, as often as needed; they are undone when the test ends.

    ::

        def test_payment(override_secrets):
            override_secrets({"stripe": "sk_test"})

    A reference that has no value raises instead of being fetched, from the first call on.
    """
    from .test import override_secrets as override

    with contextlib.ExitStack() as stack:

        def enter(values: Mapping[str, Any]) -> None:
            stack.enter_context(override(values))

        yield enter


@pytest.hookimpl(tryfirst=True)
def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Explain a failed comparison with a secret by what may be shown of it.

    pytest compares texts line by line and would print the value into the log of a CI run.
    """
    if isinstance(left, SecretStr | SecretBytes) or isinstance(right, SecretStr | SecretBytes):
        return [f"{left!r} {op} {right!r}"]
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a parameter that is a secret by its argument: pytest takes a text itself as the id."""
    return argname if isinstance(val, SecretStr | SecretBytes) else None
