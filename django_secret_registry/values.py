"""Values: a ``str`` and a ``bytes`` that do not show themselves, and what a provider returns."""

from __future__ import annotations

import dataclasses
from typing import Any, NoReturn, Self, SupportsIndex

MASK = "**********"

#: Larger answers are refused: no backend keeps secrets of this size, and a mistake or an attack
#: should not fill the memory of every worker. Units: bytes (or characters of a text).
MAX_VALUE_SIZE = 1024 * 1024


class _Masked:
    """What both value classes do: hide in ``repr``, stay one object when copied, never pickle."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}('{MASK}')"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} is not pickled: its value would lie in clear text in a cache,"
            " a queue or a file. Send the reference and resolve it on the other side, or call"
            f" {'str' if isinstance(self, str) else 'bytes'}(value) when the clear text is meant."
        )


class SecretStr(_Masked, str):
    """A real ``str`` whose ``repr`` is ``SecretStr('**********')``.

    It is accepted wherever a ``str`` is: by C code, ``re``, ``json``, drivers and headers. What is
    made from it (``value + "x"``, an f-string, ``value.encode()``) is plain text again. Copying
    returns the same object; pickling raises ``TypeError``.
    """

    __slots__ = ()


class SecretBytes(_Masked, bytes):
    """A real ``bytes`` whose ``repr`` is ``SecretBytes('**********')``; see :class:`SecretStr`."""

    __slots__ = ()

    def __str__(self) -> str:  # bytes shows itself in str(), as in its repr
        return repr(self)


@dataclasses.dataclass(frozen=True, slots=True, init=False)
class SecretValue:
    """One version of one secret, as its provider fetched it.

    * ``value``: the payload, whole; ``str`` and ``bytes`` given here become :class:`SecretStr` and
      :class:`SecretBytes`.
    * ``version``: the backend's id of this version, never derived from the value; ``None`` when
      the backend has none.
    * ``expires_at``: when the issuer ends the value, in POSIX seconds (UTC); ``None``: never.
    * ``fetched_at``: when it was fetched, in POSIX seconds; the cache fills it in.
    * ``lease_id``: the backend's handle to renew or revoke an issued credential, or ``""``.

    Immutable, safe to share between threads; its ``repr`` does not show the value.
    """

    value: SecretStr | SecretBytes = dataclasses.field(repr=False)
    version: str | None
    expires_at: float | None
    fetched_at: float | None
    lease_id: str = dataclasses.field(repr=False)

    def __init__(
        self,
        value: str | bytes,
        version: str | None = None,
        expires_at: float | None = None,
        fetched_at: float | None = None,
        lease_id: str = "",
    ) -> None:
        if isinstance(value, str):
            masked: object = value if isinstance(value, SecretStr) else SecretStr(value)
        elif isinstance(value, bytes | bytearray | memoryview):
            masked = value if isinstance(value, SecretBytes) else SecretBytes(value)
        else:
            raise TypeError(f"a secret's value is str or bytes, not {type(value).__name__}")
        put = object.__setattr__
        put(self, "value", masked)
        put(self, "version", version)
        put(self, "expires_at", expires_at)
        put(self, "fetched_at", fetched_at)
        put(self, "lease_id", lease_id)

    def fetched(self, at: float) -> SecretValue:
        """Return the same value with the time of its fetch."""
        return SecretValue(self.value, self.version, self.expires_at, at, self.lease_id)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a SecretValue is not pickled: it holds a secret in clear text.")
