"""What foreign code makes or breaks: ``.map`` functions, and exceptions nobody planned for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .exceptions import ProviderError, SecretError
from .values import SecretBytes, SecretStr


def apply(
    functions: Sequence[Callable[[Any], Any]],
    value: Any,
    *,
    reference: str,
    provider: str = "",
    region: str = "",
) -> Any:
    """Return what the functions make of ``value``, one after the other, masked again.

    A function that raises becomes a :class:`ProviderError` (or the :class:`SecretError` that it
    raised) without cause and context: its exception may hold the value in its text or its frames.
    """
    for function in functions:
        failure: SecretError | None = None
        try:
            value = function(value)
        except SecretError as error:
            failure = without_frames(error)
        except Exception as exc:
            failure = unexpected(exc, "a .map function")
        if failure is not None:
            raise failure.copy(reference=reference, provider=provider, region=region)
    return masked(value) if functions else value


class Making:
    """What functions make of one set of answers: made once, however many threads ask for it."""

    __slots__ = ("_answers", "_lock", "_value")

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a function may read the setting that it makes, and fail
        self._answers: Sequence[object] = ()
        self._value: Any = None

    @property
    def value(self) -> Any:
        """What was made last; ``None``: nothing yet."""
        return self._value

    def get(self, answers: Sequence[object], make: Callable[[], Any]) -> Any:
        """Return what was made of exactly these answers, or else what ``make`` returns now."""
        with self._lock:
            if [*map(id, answers)] != [*map(id, self._answers)]:
                self._value = make()
                self._answers = answers
            return self._value


def masked(value: Any) -> Any:
    """Return text and bytes as their masked classes, in a plain dict too; the rest as it is."""
    if isinstance(value, SecretStr | SecretBytes):
        return value
    if isinstance(value, str):
        return SecretStr(value)
    if isinstance(value, bytes):
        return SecretBytes(value)
    if type(value) is dict:
        return {name: masked(member) for name, member in value.items()}
    return value


def without_frames(error: SecretError) -> SecretError:
    """Take the tracebacks off an error and what caused it; return it.

    Their frames hold credentials of the client, values, and the provider, which closes only when
    nothing holds it any more.
    """
    links: list[BaseException | None] = [error]
    seen: set[int] = set()
    while links:
        link = links.pop()
        if link is not None and id(link) not in seen:
            seen.add(id(link))
            link.__traceback__ = None
            links += [link.__cause__, link.__context__]
    return error


def unexpected(exc: BaseException, who: str) -> ProviderError:
    """Return an error that tells the type of ``exc`` and where it came out of foreign code.

    Nothing of its text is told.
    """
    hint = ""
    place = exc.__traceback__
    own = place.tb_frame.f_code.co_filename if place is not None else ""
    while place is not None and place.tb_frame.f_code.co_filename == own:
        place = place.tb_next
    if place is not None:
        hint = f"See {Path(place.tb_frame.f_code.co_filename).name}, line {place.tb_lineno}."
    return ProviderError(f"{who} failed with {type(exc).__name__}", hint=hint)
