"""``secret()``: the marker that stands in settings for a secret, and how its value is read.

Importable from ``settings.py``: nothing here touches Django's settings, a provider or an SDK until
a value is read.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from .exceptions import ProviderError, SecretError, SecretNotFound, SecretNotReady
from .references import SecretRef
from .resolver import registry
from .specs import Derived
from .values import SecretBytes, SecretStr

T = TypeVar("T")

#: The length that a placeholder has at least: Django's check wants it of a SECRET_KEY. Not more,
#: since the name of a PostgreSQL database, too, may be a placeholder: it has 63 characters at most.
PLACEHOLDER_LENGTH = 50

#: Methods that a marker forwards to its value: all that a ``str`` or a ``bytes`` offers.
_METHODS = frozenset(name for name in (*dir(str), *dir(bytes)) if not name.startswith("_"))


class LazySecret:
    """A secret's place in settings: it knows the reference, never a value.

    Readers of ``django.conf.settings`` do not meet it: a live setting and a live container hand out
    the value in its stead. Where one is met all the same (in a ``deque``, say) it acts as text once
    Django is set up; before that, every use of its value raises :class:`SecretNotReady`.

    A copy is the marker itself, a pickle holds the reference and the functions. It equals its text
    but hashes by identity, since the text changes: a check refuses it as the key of a dict.
    """

    __slots__ = ("__weakref__", "default", "functions", "key", "reference")

    def __init__(
        self,
        reference: str,
        *,
        default: Any = ...,
        functions: tuple[Callable[[Any], Any], ...] = (),
    ) -> None:
        SecretRef.parse(reference)
        if isinstance(default, LazySecret):
            raise TypeError("the default of a secret is a literal, not another secret")
        self.reference = reference
        #: What stands in where there is no such secret; ``...``: nothing does.
        self.default = default
        self.functions = functions
        #: Under which the registry keeps the finished value.
        self.key = Derived(reference, functions, default)

    def map(self, function: Callable[[Any], Any]) -> LazySecret:
        """Return a marker of what ``function`` makes of the value; it is called once per value.

        Markers can be mapped again. A ``default`` is handed out as it is, without the function.
        What the function raises reaches the reader as a ``ProviderError`` that holds no value.
        """
        return LazySecret(
            self.reference, default=self.default, functions=(*self.functions, function)
        )

    @property
    def shown(self) -> str:
        """The reference, to be shown; hidden once it is known to name no alias and no entry."""
        if registry.configured:
            ref, config = SecretRef.parse(self.reference), registry.config
            known = ref.name in config.entries if ref.is_entry else ref.scheme in config.providers
            if not known:  # it may be the secret itself, passed by mistake
                return "(names no provider and no entry)"
        return self.reference

    def __repr__(self) -> str:
        return f"secret({self.shown!r})" + ".map(...)" * len(self.functions)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[object, ...]:
        return _restore, (self.reference, self.default, self.functions)

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if isinstance(other, LazySecret):
            return self.__reduce__() == other.__reduce__()
        return other is not None and bool(resolve(self) == other)

    def __getattr__(self, name: str) -> Any:
        if name not in _METHODS:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

        def method(*args: Any, **kwargs: Any) -> Any:
            return getattr(resolve(self), name)(*args, **kwargs)

        return method


def _restore(
    reference: str, default: Any, functions: tuple[Callable[[Any], Any], ...]
) -> LazySecret:
    return LazySecret(reference, default=default, functions=functions)


def _forward(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, *operands: function(resolve(self), *operands)


_OPERATORS: dict[str, Callable[..., Any]] = {
    "__str__": str,
    "__format__": format,
    "__bytes__": bytes,
    "__fspath__": os.fspath,
    "__bool__": bool,
    "__int__": int,
    "__float__": float,
    "__len__": len,
    "__iter__": iter,
    "__contains__": operator.contains,
    "__getitem__": operator.getitem,
    "__lt__": operator.lt,
    "__le__": operator.le,
    "__gt__": operator.gt,
    "__ge__": operator.ge,
    "__add__": operator.add,
    "__radd__": lambda value, other: other + value,
    "__mul__": operator.mul,
    "__rmul__": operator.mul,
    "__mod__": operator.mod,
}
for _name, _function in _OPERATORS.items():
    setattr(LazySecret, _name, _forward(_function))


if TYPE_CHECKING:

    class SecretSetting(SecretStr):
        """What a type checker takes ``secret()`` for: the ``str`` that readers of the setting get.

        With ``map`` besides, for settings; ``docs/typing.md`` says why. At runtime it is the
        :class:`LazySecret`, which no reader meets.
        """

        @overload
        def map(self, function: Callable[[Any], str]) -> SecretSetting: ...
        @overload
        def map(self, function: Callable[[Any], T]) -> T: ...
        def map(self, function: Callable[[Any], Any]) -> Any:
            """Return a setting that is what ``function`` makes of the value."""

else:
    SecretSetting = LazySecret


@overload
def secret(ref: str) -> SecretSetting: ...
@overload
def secret(ref: str, *, default: str) -> SecretSetting: ...
@overload
def secret(ref: str, *, default: T) -> SecretSetting | T: ...
def secret(ref: str, *, default: Any = ...) -> Any:
    """Return the marker of a secret, to be written in settings; readers get its current value.

    ``ref`` is a reference such as ``"aws://prod/db#password"``, or the name of an entry. Malformed
    text raises :class:`InvalidReference` here; whether the alias or the entry exists is reported by
    the checks. ``default`` is used where there is no such secret, and only there: an outage raises.
    To a type checker it is what readers get, see ``docs/typing.md``. No I/O.
    """
    return LazySecret(ref, default=default)


def resolve(marker: LazySecret) -> Any:
    """Return the current value of ``marker``, fetching it when none is held. Thread-safe.

    Raises :class:`SecretError` only: ``getattr(settings, ...)`` and ``get`` of a dict would take an
    ``AttributeError`` or a ``KeyError`` for something else.
    """
    slot, now = registry.slots.get(marker.key), registry.clock()
    if slot is not None and now < slot.until and now < registry.serves_until:
        slot.hits += 1
        return slot.value
    return _fetch(marker)


def held_or_marker(marker: LazySecret) -> Any:
    """Return the value if one is held, else ``marker``, which acts as text. Never fetches."""
    slot, now = registry.slots.get(marker.key), registry.clock()
    held = slot is not None and now < slot.until and now < registry.serves_until
    return slot.value if slot is not None and held else marker


class PutBack:
    """Knows the markers that were written over, and takes one back when its value comes back.

    So tests change things for a while (pytest's ``monkeypatch``, ``mock.patch``): they read a
    setting, write another value and then write what they had read. It must not be frozen then.
    """

    def __init__(self) -> None:
        self._markers: dict[Any, tuple[LazySecret, LazySecret]] = {}
        self._values: dict[Any, Any] = {}

    def __contains__(self, name: object) -> bool:
        """Whether there was a marker under this name at some time."""
        return name in self._markers

    def known(self, name: Any, marker: LazySecret, read_as: LazySecret) -> None:
        """Note that ``marker`` stands under this name; readers get the value of ``read_as``."""
        self._markers[name] = marker, read_as
        self._values.pop(name, None)

    def stored(self, name: Any, value: Any) -> Any:
        """Return what is to stand for ``value``: the marker that gave this very object to a reader.

        What the marker gives is noted at the first other value, as it may change from then on.
        """
        if name not in self._markers:
            return value
        marker, read_as = self._markers[name]
        if name not in self._values:
            self._values[name] = held_or_marker(read_as)
        return marker if value is self._values[name] or value is read_as else value


def _fetch(marker: LazySecret) -> Any:
    if not registry.configured:
        raise _not_ready(marker)
    unexpected = ""
    try:
        return registry.get(marker.key)
    except SecretError as error:
        if isinstance(error, SecretNotFound) and marker.default is not ...:  # of override_secrets
            return marker.default
        if not registry.offline:
            on_failure(error, marker)
            raise
    except Exception as exc:
        unexpected = type(exc).__name__
    # Outside of the except block: what is raised here has no context that could hold a value.
    if registry.offline:
        return placeholder(marker)
    failure = ProviderError(f"the read failed with {unexpected}", reference=marker.shown)
    on_failure(failure, marker)
    raise failure


def on_failure(error: SecretError, marker: LazySecret) -> None:
    """Add to the error of a live read what its reader should know; :mod:`.startup` sets this."""


def _not_ready(marker: LazySecret) -> SecretNotReady:
    from django.conf import settings

    if not settings.configured:
        message = "the secret is used while settings are still loading"
        hint = (
            "Build on it with .map(...), as in"
            ' secret("aws://prod/redis#password").map(lambda value: f"redis://:{value}@redis").'
            " What is started with it, as by sentry_sdk.init, is started in an AppConfig's ready()."
        )
    elif any(app.split(".")[0] == "django_secret_registry" for app in settings.INSTALLED_APPS):
        message = "the secret is used before django_secret_registry is set up"
        hint = (
            "Put it first in INSTALLED_APPS, so that every other app finds live settings; in a"
            " script, call django.setup() first."
        )
    else:
        message = "the secret is used in a project without the app django_secret_registry"
        hint = 'Put "django_secret_registry" first in INSTALLED_APPS.'
    return SecretNotReady(message, reference=marker.shown, hint=hint)


def placeholder(marker: LazySecret) -> Any:
    """Return what stands for the value in offline mode: text, bytes or a dict that name it.

    Functions are applied as far as they accept it; one that does not leaves the placeholder alone.
    One with a method ``placeholder`` is asked for what Django accepts in the place of its result.
    """
    ref = SecretRef.parse(marker.reference)
    entry = registry.entry(ref.name) if ref.is_entry else None
    value: Any
    if entry is not None and entry.members:
        value = {name: _stand_in(str(ref), ref.as_) for name, ref in entry.members.items()}
    else:
        value = _stand_in(marker.shown, (entry.ref if entry and entry.ref else ref).as_)
    made = value
    try:
        for function in marker.functions:
            made = getattr(function, "placeholder", function)(made)
    except Exception:
        return value
    return made


def _stand_in(reference: str, as_: str) -> SecretStr | SecretBytes:
    padding = "-" * (PLACEHOLDER_LENGTH - len("offline-placeholder:") - len(reference))
    text = SecretStr(f"offline-placeholder{padding}:{reference}")
    return text if as_ == "str" else SecretBytes(text.encode())
