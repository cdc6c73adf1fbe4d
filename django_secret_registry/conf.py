"""``settings.SECRET_REGISTRY``, read into frozen and typed objects.

Reading never raises, imports no backend and resolves no secret. Each mistake becomes a
:class:`Mistake`, for ``manage.py check``; the alias or entry that it is about gets a ``problem``,
so that its use raises and nothing else does. Any other key then keeps its default.

``None`` means "not given" at every key. A ``REF`` and a member of a ``MAP`` may be the name of
another entry, though not of one with a ``MAP``; it is followed here, to the secret that it names.
"""

from __future__ import annotations

import difflib
import enum
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from . import rules
from .containers import raw
from .discovery import markers, raw_setting
from .exceptions import InvalidReference
from .lifecycle import CachePolicy
from .provider_cache import ProviderSpec
from .providers.base import Fence
from .references import SCHEME, SecretRef
from .residency import Residency
from .rules import Rule, compared_region, is_text
from .specs import EntrySpec, FleetSpec, RegistryConfig

SETTING = "SECRET_REGISTRY"
OFFLINE_VARIABLE = "SECRET_REGISTRY_OFFLINE"
_ON = ("1", "true", "yes", "on")
_OFF = ("", "0", "false", "no", "off")


class Id(enum.StrEnum):
    """The ids of all checks: stable, for ``SILENCED_SYSTEM_CHECKS``."""

    WRONG_VALUE = "secret_registry.E001"  # a value of the wrong type, or outside what is allowed
    UNKNOWN_KEY = "secret_registry.E002"  # a key that is not known; the hint lists those that are
    INCOMPLETE = "secret_registry.E003"  # no BACKEND; neither or both of REF and MAP
    BAD_NAME = "secret_registry.E004"  # an alias or entry that no reference can name
    BAD_REFERENCE = "secret_registry.E005"  # a reference that does not parse, or is refused
    UNKNOWN_TARGET = "secret_registry.E006"  # a reference whose alias or entry does not exist
    CYCLE = "secret_registry.E007"  # an entry, or the OPTIONS of an alias, that needs itself
    BACKEND = "secret_registry.E008"  # a class that cannot be imported, or is of the wrong kind
    OPTIONS = "secret_registry.E009"  # an option that is unknown, missing or wrong
    MARKER = "secret_registry.E010"  # a secret() where no reader gets its value
    NOT_FIRST = "secret_registry.W001"  # the app is not the first of INSTALLED_APPS
    CONTAINER = "secret_registry.W002"  # a secret() in a container that is not made live
    BLOCKED = "secret_registry.W003"  # a strict policy in a process without a region
    NO_POLICY = "secret_registry.W004"  # regions are allowed, and none forbidden
    LIBRARY = "secret_registry.W005"  # a library that a backend needs is not installed
    NAME_OF_CLASS = "secret_registry.W006"  # a secret() for a class that every command loads
    COPIED = "secret_registry.W007"  # a secret that is copied, and not rebound (check --deploy)
    NO_FALLBACK = "secret_registry.W008"  # a secret SECRET_KEY without fallbacks (check --deploy)
    REPORTER = "secret_registry.W009"  # an error reporter that knows no secrets
    BUS = "secret_registry.W010"  # an engine that cannot carry a fleet (check --database)
    OFFLINE = "secret_registry.I001"  # offline mode is on
    NO_METRICS = "secret_registry.I002"  # no metrics: the extra prometheus is not installed


class Mistake(NamedTuple):
    """One mistake: where it stands (``about``), what is wrong, and what to write instead.

    It names its alias, entry and keys, and never repeats a value: it may be a misplaced secret.
    """

    id: Id
    about: str
    message: str
    hint: str


def load(setting: object = None) -> RegistryConfig:
    """Return the configuration that ``setting``, or else the project's one, describes."""
    return parse(raw_setting(SETTING) if setting is None else setting)[0]


def parse(
    setting: object, environ: Mapping[str, str] = os.environ
) -> tuple[RegistryConfig, list[Mistake]]:
    """Return the configuration, and every mistake in it. ``None``: there is no such setting."""
    parser = _Parser()
    config = parser.registry({} if setting is None else setting, environ.get(OFFLINE_VARIABLE, ""))
    return config, parser.mistakes


class _Parser:
    """Reads the setting level by level and collects what is wrong with it.

    ``about`` is always a place in the setting, as one would write it.
    """

    def __init__(self) -> None:
        self.mistakes: list[Mistake] = []
        self.providers: dict[str, ProviderSpec] = {}
        self.entries: dict[str, EntrySpec] = {}

    def add(self, id: Id, about: str, message: str, hint: str) -> None:  # noqa: A002
        self.mistakes.append(Mistake(id, about, message, hint))

    def problem(self, start: int) -> str:
        """Return the first mistake after ``start`` of them, as the problem of an alias or entry."""
        return "".join(f"{one.about} {one.message}" for one in self.mistakes[start : start + 1])

    def registry(self, setting: object, switch: str) -> RegistryConfig:
        given = self.keys(setting, rules.REGISTRY, SETTING)
        for alias, about, item in self.named(given.get("providers", {}), place("PROVIDERS")):
            self.providers[alias] = self.provider(alias, about, item)
        for name, about, item in self.named(given.get("secrets", {}), place("SECRETS")):
            self.entries[name] = self.entry(name, about, item)
        entries = {name: self.followed(entry) for name, entry in self.entries.items()}
        return RegistryConfig(
            region=compared_region(given.get("region", "")),
            providers=self.without_cycles(entries),
            entries=entries,
            cache=CachePolicy(**self.keys(given.get("cache", {}), rules.CACHE, place("CACHE"))),
            fleet=self.fleet(given["fleet"]) if "fleet" in given else None,
            offline=self.offline(switch) or given.get("offline", False),
            warm_up=given.get("warm_up", False),
            rotation_window=given.get("rotation_window", RegistryConfig().rotation_window),
            rebind=given.get("rebind", ()),
        )

    def keys(
        self, value: Any, table: Mapping[str, Rule], about: str, whole: Rule = rules.DICT
    ) -> dict[str, Any]:
        """Return what a dict holds under the keys of ``table``, by their lower-case names."""
        found: dict[str, Any] = {}
        if not rules.DICT.admits(value):
            self.wrong(value, whole, about)
            return found
        for key, item in raw(value).items():
            if not is_text(key) or key not in table:
                shown = repr(key[:64]) if is_text(key) else f"of type {type(key).__name__}"
                hint = f"{_suggestion(shown.upper(), table)}Known are {', '.join(table)}."
                self.add(Id.UNKNOWN_KEY, about, f"has an unknown key, {shown}", hint)
            elif item is not None and table[key].admits(item):
                found[key.lower()] = table[key].keep(item)
            elif item is not None:
                self.wrong(item, table[key], f"{about}[{key!r}]")
        return found

    def wrong(self, value: object, rule: Rule, about: str) -> None:
        message = f"has a value that cannot stand there, of type {type(value).__name__}"
        self.add(Id.WRONG_VALUE, about, message, f"Write {rule.expected}.")

    def named(self, value: Mapping[Any, Any], about: str) -> Iterator[tuple[str, str, Any]]:
        """Yield name, place and content of all that a dict holds under names of the user's."""
        for name, item in raw(value).items():
            if is_text(name):
                yield str(name), f"{about}[{name!r}]", item
            else:
                message = f"has a key of type {type(name).__name__}"
                self.add(Id.BAD_NAME, about, message, "Write its name as text.")

    # -- providers -------------------------------------------------------------------------------

    def provider(self, alias: str, about: str, item: Any) -> ProviderSpec:
        start = len(self.mistakes)
        if not SCHEME.match(alias):
            hint = "Use letters, digits and . _ - only, a letter first."
            self.add(Id.BAD_NAME, about, "has a name that cannot begin a reference", hint)
        given = self.keys(item, rules.PROVIDER, about)
        if rules.DICT.admits(item) and not _has(item, "BACKEND"):
            hint = 'Write "BACKEND": "django_secret_registry.providers.aws.SecretsManagerProvider".'
            self.add(Id.INCOMPLETE, about, "has no BACKEND", hint)
        return ProviderSpec(
            alias,
            backend=given.get("backend", ""),
            region=given.get("region", ""),
            ttl=given.get("ttl"),
            options=given.get("options", {}),
            fence=Fence(given.get("allow"), given.get("regions"), given.get("projects")),
            residency=_residency(item, given),
            problem=self.problem(start),
        )

    def without_cycles(self, entries: Mapping[str, EntrySpec]) -> dict[str, ProviderSpec]:
        """Return the aliases, a problem on each whose OPTIONS hold a secret that needs itself."""
        needs = {alias: needed_aliases(spec, entries) for alias, spec in self.providers.items()}
        found = {}
        for alias, spec in self.providers.items():
            start = len(self.mistakes)
            if alias in reached(needs[alias], needs):
                message = f"has a secret in OPTIONS that leads back to {alias!r} itself"
                hint = "Take it from a provider that needs no secret, such as env or file."
                self.add(Id.CYCLE, place("PROVIDERS", alias), message, hint)
            found[alias] = spec._replace(problem=spec.problem or self.problem(start))
        return found

    # -- entries ---------------------------------------------------------------------------------

    def entry(self, name: str, about: str, item: Any) -> EntrySpec:
        start = len(self.mistakes)
        if not _is_entry_name(name):
            hint = "Use letters, digits and / + = . @ - _ : ! ~ only."
            self.add(Id.BAD_NAME, about, "has a name that no reference can spell", hint)
        item = {"REF": item} if rules.REFERENCE.admits(item) else item
        given = self.keys(item, rules.ENTRY, about, rules.REFERENCE_OR_DICT)
        if rules.DICT.admits(item) and _has(item, "REF") == _has(item, "MAP"):
            hint = 'Write "REF": "alias://name", or "MAP": {"user": "alias://name#user"}.'
            self.add(Id.INCOMPLETE, about, "needs one of REF and MAP", hint)
        members = {
            member: self.reference(text, place)
            for member, place, text in self.named(given.get("map", {}), f"{about}['MAP']")
        }
        if "map" in given and not members:
            self.add(Id.INCOMPLETE, f"{about}['MAP']", "is empty", "Add a member, or use REF.")
        return EntrySpec(
            name,
            ref=self.reference(given["ref"], about) if "ref" in given else None,
            members=_usable(members),
            templates=given.get("templates", False),
            region=given.get("region", ""),
            ttl=given.get("ttl"),
            residency=_residency(item, given),
            problem=self.problem(start),
        )

    def reference(self, text: object, about: str) -> SecretRef | None:
        if not rules.REFERENCE.admits(text):
            self.wrong(text, rules.REFERENCE, about)
            return None
        try:
            return SecretRef.parse(str(text))
        except InvalidReference as error:
            hint = error.hint or 'Write "alias://name?query#key".'
            self.add(Id.BAD_REFERENCE, about, f"cannot be read: {error.message}", hint)
        return None

    def followed(self, entry: EntrySpec) -> EntrySpec:
        """Return ``entry`` with the secrets that its references lead to."""
        start = len(self.mistakes)
        about = place("SECRETS", entry.name)
        ref = self.secret(entry.ref, entry.name, about) if entry.ref else None
        members = {
            member: self.secret(ref, entry.name, f"{about}['MAP'][{member!r}]")
            for member, ref in (entry.members or {}).items()
        }
        return entry._replace(
            ref=ref, members=_usable(members), problem=entry.problem or self.problem(start)
        )

    def secret(self, ref: SecretRef, name: str, about: str) -> SecretRef | None:
        """Return the secret that ``ref`` of the entry ``name`` leads to, if it leads to one.

        What leads nowhere is not kept: its text may be a secret.
        """
        passed = {name}
        while ref.is_entry:
            target = self.entries.get(ref.name)
            if target is None:
                self.mistakes.append(unknown_target(ref, about, self.providers, self.entries))
                return None
            if target.name in passed:
                hint = "Name the secret: alias://name."
                self.add(Id.CYCLE, about, f"leads back to the entry {target.name!r}", hint)
                return None
            if target.ref is None:
                message = f"leads to the entry {target.name!r}, which has no REF to follow"
                self.add(Id.BAD_REFERENCE, about, message, "Name the secret: alias://name.")
                return None
            passed.add(target.name)
            region = target.ref.region or target.region or ref.region
            ttls = [ttl for ttl in (target.ref.ttl, target.ttl, ref.ttl) if ttl]
            ref = target.ref.replace(region=region, ttl=min(ttls, default=None))
        if ref.scheme not in self.providers:
            self.mistakes.append(unknown_target(ref, about, self.providers, self.entries))
            return None
        return ref

    def fleet(self, item: Any) -> FleetSpec | None:
        start, about = len(self.mistakes), place("FLEET")
        given = self.keys(item, rules.FLEET, about)
        if rules.DICT.admits(item) and not _has(item, "BACKEND"):
            hint = 'Write "BACKEND": "django_secret_registry.fleet.redis.RedisBus".'
            self.add(Id.INCOMPLETE, about, "has no BACKEND", hint)
        return None if self.mistakes[start:] else FleetSpec(**given)

    def offline(self, switch: str) -> bool:
        switch = switch.strip().lower()
        if switch not in (*_ON, *_OFF):
            about = f"The environment variable {OFFLINE_VARIABLE}"
            self.add(Id.WRONG_VALUE, about, "is neither on nor off, and ignored", "Write 1 or 0.")
        return switch in _ON


def place(*path: str) -> str:
    """Return a place in the setting as one would write it."""
    return SETTING + "".join(f"[{key!r}]" for key in path)


def _has(item: Mapping[Any, Any], key: str) -> bool:
    return raw(item).get(key) is not None


def unknown_target(
    ref: SecretRef, about: str, providers: Iterable[str], entries: Iterable[str]
) -> Mistake:
    """Return the mistake of a reference whose alias or entry does not exist."""
    name, key, known = ref.scheme, "PROVIDERS", providers
    if ref.is_entry:
        name, key, known = ref.name, "SECRETS", entries
    message = f"names nothing that stands in {key} (not shown, as it may be a secret)"
    has = f"{key} has: {', '.join(known) or 'nothing'}."
    return Mistake(Id.UNKNOWN_TARGET, about, message, f"{_suggestion(name, known)}{has}")


def _suggestion(name: str, known: Iterable[str]) -> str:
    return "".join(f"Did you mean {one!r}? " for one in difflib.get_close_matches(name, known, 1))


def _usable(members: Mapping[str, SecretRef | None]) -> dict[str, SecretRef] | None:
    return {member: ref for member, ref in members.items() if ref} or None


def _is_entry_name(name: str) -> bool:
    try:
        return SecretRef.parse(name) == SecretRef("", name)
    except InvalidReference:
        return False


def _residency(item: Any, given: Mapping[str, Any]) -> Residency:
    # A policy whose word is mistaken is taken for the strictest: it was meant to keep someone out.
    asked = rules.DICT.admits(item) and _has(item, "RESIDENCY")
    return Residency(
        given.get("residency", "strict" if asked else "none"),
        compared_region(given.get("region", "")),
        given.get("allowed_regions", ()),
    )


def needed_aliases(spec: ProviderSpec, entries: Mapping[str, EntrySpec]) -> set[str]:
    """Return the aliases whose secrets the OPTIONS of an alias hold."""
    needs: set[str] = set()
    for marker in markers(spec.options):
        ref = SecretRef.parse(marker.reference)
        entry = entries.get(ref.name) if ref.is_entry else None
        refs = (entry.ref, *(entry.members or {}).values()) if entry else (ref,)
        needs.update(ref.scheme for ref in refs if ref)
    return needs


def reached(start: Iterable[str], needs: Mapping[str, Iterable[str]]) -> set[str]:
    """Return ``start`` and all that one gets to from there."""
    reached: set[str] = set()
    todo = list(start)
    while todo:
        alias = todo.pop()
        if alias not in reached:
            reached.add(alias)
            todo += needs.get(alias, ())
    return reached
