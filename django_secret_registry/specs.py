"""What the registry is configured with: frozen, validated, independent of where it was written."""

# Annotations are evaluated here, which takes less time at start-up: see events.py.
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from .lifecycle import CachePolicy
from .provider_cache import ProviderSpec
from .references import NO_REGION, SecretRef
from .residency import Residency

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class EntrySpec(NamedTuple):
    """One entry of ``SECRETS``: a reference with its policy, or a map of several.

    An entry with a ``problem`` raises :class:`InvalidReference` when it is used.
    """

    name: str
    ref: SecretRef | None = None
    members: Mapping[str, SecretRef] | None = None
    templates: bool = False
    region: str = ""
    ttl: float | None = None
    residency: Residency = Residency()
    problem: str = ""

    @property
    def refs(self) -> tuple[SecretRef, ...]:
        """The references that are read for it: its own, or those of its members."""
        return (self.ref,) if self.ref else tuple((self.members or {}).values())


class FleetSpec(NamedTuple):
    """The ``FLEET`` setting: the class of the bus by its dotted path, and how far it is trusted.

    ``lease`` in seconds. ``options`` may be a live container, for the bus to read when it connects.
    """

    backend: str
    options: Mapping[str, Any] = _NOTHING
    mode: str = "available"
    lease: float = 10.0

    def __repr__(self) -> str:  # OPTIONS may hold a URL with a password
        return f"FleetSpec({self.backend!r}, mode={self.mode!r}, lease={self.lease!r})"


class RegistryConfig(NamedTuple):
    """The whole ``SECRET_REGISTRY``, validated and typed. ``rotation_window`` in seconds."""

    region: str = ""
    providers: Mapping[str, ProviderSpec] = _NOTHING
    entries: Mapping[str, EntrySpec] = _NOTHING
    cache: CachePolicy = CachePolicy()
    fleet: FleetSpec | None = None
    offline: bool = False
    warm_up: bool = False
    rotation_window: float = 15.0
    rebind: tuple[str | Callable[..., Any], ...] = ()

    @property
    def here(self) -> str:
        """The region that residency compares with: this process's; empty if it has none."""
        return self.region if self.region != NO_REGION else ""

    @property
    def named(self) -> dict[str, str]:
        """The entries as references: where each stands → its name."""
        return {f"SECRETS[{name!r}]": name for name in self.entries}


class Derived:
    """A reference of settings, with the functions that make the setting's value of the secret's.

    Each ``Derived`` has a cached value of its own; the functions run once per fetched value.
    ``default`` is the value where there is no such secret; ``...``: there is none then.
    """

    __slots__ = ("__weakref__", "default", "functions", "ref")

    def __init__(
        self,
        ref: str,
        functions: tuple[Callable[[Any], Any], ...] = (),
        default: Any = ...,
    ) -> None:
        self.ref = ref
        self.functions = functions
        self.default = default
