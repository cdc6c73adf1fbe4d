"""System checks: every mistake in the configuration at once, before anything is fetched.

No check does I/O, imports an SDK or resolves a secret. Backends are imported; they import their SDK
when a provider is built. The ids are those of :class:`.conf.Id`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.core import checks
from django.utils.module_loading import import_string

from . import metrics
from .conf import (
    OFFLINE_VARIABLE,
    SETTING,
    Id,
    Mistake,
    needed_aliases,
    parse,
    place,
    reached,
    unknown_target,
)
from .containers import raw
from .discovery import found_in_settings, markers, raw_setting
from .exceptions import InvalidProvider, SecretError
from .planning import Planner
from .provider_cache import ProviderCache, ProviderSpec
from .providers.base import BaseProvider, Problem
from .references import SecretRef
from .specs import EntrySpec, RegistryConfig

if TYPE_CHECKING:
    from .fleet.bus import Bus

APP = "django_secret_registry"
#: How the places end in which Django looks for the dotted path of a class.
_NAMES_OF_CLASSES = ("['ENGINE']", "['BACKEND']", "_BACKEND")
#: Celery's, which is a URL.
_NAMES_OF_URLS = ("RESULT_BACKEND",)
#: Settings that name what shows errors, and what that has to derive from.
_REPORTERS = {
    "DEFAULT_EXCEPTION_REPORTER": "ExceptionReporter",
    "DEFAULT_EXCEPTION_REPORTER_FILTER": "ExceptionReporterFilter",
}
_MISSING: Any = object()
_LEVELS = {"E": checks.Error, "W": checks.Warning, "I": checks.Info}


def check_configuration(**kwargs: Any) -> list[checks.CheckMessage]:
    """Return what is wrong with ``SECRET_REGISTRY`` and with each ``secret(...)`` of settings."""
    config, mistakes = parse(raw_setting(SETTING))
    found = (
        *mistakes,
        *_backends(config),
        *_members(config),
        *_fleet(config),
        *_rebind(config),
        *_references(config),
        *_residency(config),
        *_markers(),
        *_classes(),
        *_order(),
        *_reporters(),
        *_offline(config),
        *_metrics(config),
    )
    # Once each: a setting that is overridden is found in the override and below it.
    return [message(mistake) for mistake in dict.fromkeys(found)]


def message(mistake: Mistake) -> checks.CheckMessage:
    """Return what ``manage.py check`` shows of a mistake."""
    level = _LEVELS[mistake.id.rpartition(".")[2][0]]
    return level(f"{mistake.about} {mistake.message}.", hint=mistake.hint, id=str(mistake.id))


def _backends(config: RegistryConfig) -> Iterator[Mistake]:
    for alias, spec in config.providers.items():
        if not spec.backend:
            continue
        backend, reason = _imported(spec.backend)
        if not reason and not (isinstance(backend, type) and issubclass(backend, BaseProvider)):
            reason = "is no subclass of BaseProvider"
        if reason:
            hint = "Name a class such as django_secret_registry.providers.env.EnvProvider."
            yield Mistake(Id.BACKEND, place("PROVIDERS", alias, "BACKEND"), reason, hint)
            continue
        about = place("PROVIDERS", alias, "OPTIONS")
        for problem in _option_problems(backend, raw(spec.options)):
            message = f"cannot be used: {problem.message}"
            yield Mistake(Id.OPTIONS, about, message, problem.hint)
        yield from _libraries(backend, place("PROVIDERS", alias, "BACKEND"), spec.installation)


def _libraries(backend: type[BaseProvider | Bus], about: str, hint: str) -> Iterator[Mistake]:
    missing = [name for name in backend.requires if not _is_installed(name)]
    if missing:
        message = f"needs {' and '.join(missing)}, which this environment does not have"
        yield Mistake(Id.LIBRARY, about, message, hint)


def _is_installed(distribution: str) -> bool:
    """Look for a distribution by its metadata: nothing of it is imported."""
    from importlib import metadata  # here, as it takes as long as half of the start-up

    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def _members(config: RegistryConfig) -> Iterator[Mistake]:
    """Look at aliases that are made of others: whether these exist, and none leads to itself.

    What leads back through secrets in OPTIONS alone, without any such alias, :mod:`.conf` tells.
    """
    needs: dict[str, set[str]] = {}
    made_of: dict[str, Sequence[str]] = {}
    for alias, spec in config.providers.items():
        needs[alias] = needed_aliases(spec, config.entries)
        backend, _ = _imported(spec.backend)
        usable = isinstance(backend, type) and issubclass(backend, BaseProvider)
        made_of[alias] = backend.member_aliases(raw(spec.options)) if usable else ()
    whole = {alias: {*needs[alias], *made_of[alias]} for alias in needs}
    for alias, members in made_of.items():
        about = place("PROVIDERS", alias, "OPTIONS")
        for member in members:
            if member not in config.providers:
                ref = SecretRef(member, "any")
                yield unknown_target(ref, about, config.providers, config.entries)
        if alias in reached(whole[alias], whole) and alias not in reached(needs[alias], needs):
            message = f"leads back to {alias!r} itself, by an alias or a secret in OPTIONS"
            yield Mistake(Id.CYCLE, about, message, "Take the alias out that closes the circle.")


def _fleet(config: RegistryConfig) -> Iterator[Mistake]:
    if config.fleet is not None:
        from .fleet.bus import Bus  # most projects have no fleet, and every start would load it

        bus, reason = _imported(config.fleet.backend)
        about = place("FLEET", "BACKEND")
        if not reason and not (isinstance(bus, type) and issubclass(bus, Bus)):
            reason = "is no subclass of Bus"
        if reason:
            hint = "Name a class such as django_secret_registry.fleet.redis.RedisBus."
            yield Mistake(Id.BACKEND, about, reason, hint)
            return
        for problem in _option_problems(bus, raw(config.fleet.options), Bus):
            message = f"cannot be used: {problem.message}"
            yield Mistake(Id.OPTIONS, place("FLEET", "OPTIONS"), message, problem.hint)
        extra = bus.__module__.rpartition(".")[2]
        yield from _libraries(bus, about, f"Install django-secret-registry[{extra}].")


def _rebind(config: RegistryConfig) -> Iterator[Mistake]:
    for index, target in enumerate(config.rebind):
        about = f"{place('REBIND')}[{index}]"
        if isinstance(target, str) and "." in target:
            function, reason = _imported(target)
            if not reason and not callable(function):
                reason = "is no function"
            if reason:
                hint = 'Write the path of a function, as in "myproject.rotation.reset".'
                yield Mistake(Id.BACKEND, about, reason, hint)
        elif isinstance(target, str) and raw_setting(target, _MISSING) is _MISSING:
            hint = "Write the name of a setting, or the path of a function."
            yield Mistake(Id.UNKNOWN_TARGET, about, "names no setting of the project", hint)


def _imported(path: str) -> tuple[Any, str]:
    """Return what stands under a dotted path, or why it cannot be had."""
    try:
        return import_string(path), ""
    except ImportError as error:
        return None, f"cannot be imported: {error}"
    except Exception as error:  # a module's own code may raise anything, with anything in its text
        return None, f"cannot be imported: its module fails with {type(error).__name__}"


def _option_problems(
    backend: Any, options: Mapping[str, Any], base: type[BaseProvider | Bus] = BaseProvider
) -> list[Problem]:
    """Ask the backend about OPTIONS; of those that are secrets only the names are looked at."""
    literal = {name: value for name, value in options.items() if not markers(value)}
    if len(literal) == len(options):
        found: list[Problem] = backend.check(options)
        return found
    check_names = base.__dict__["check"].__func__
    of_values = [one for one in backend.check(literal) if one not in check_names(backend, literal)]
    return [*check_names(backend, options), *of_values]


def _references(config: RegistryConfig) -> Iterator[Mistake]:
    """Look whether what entries and markers name exists, and would be let through."""
    planner = Planner(config, ProviderCache(config.providers))
    for about, ref in (*_of_entries(config), *_of_settings()):
        if ref.is_entry and ref.name in config.entries:
            continue
        spec = config.providers.get(ref.scheme)
        if spec is None:
            yield unknown_target(ref, about, config.providers, config.entries)
        elif not markers(spec.options):  # else what the backend accepts may depend on a secret
            try:
                planner.plan(ref)
            except InvalidProvider:
                continue  # told of the alias itself
            except SecretError as error:
                hint = error.hint or "Write a reference that the provider accepts."
                yield Mistake(Id.BAD_REFERENCE, about, f"is refused: {error.message}", hint)


def _of_entries(config: RegistryConfig) -> Iterator[tuple[str, SecretRef]]:
    for entry in config.entries.values():
        for ref in entry.refs:
            yield place("SECRETS", entry.name), ref.replace(region=ref.region or entry.region)


def _of_settings() -> Iterator[tuple[str, SecretRef]]:
    for found in found_in_settings():
        yield found.where, SecretRef.parse(found.marker.reference)


def _residency(config: RegistryConfig) -> Iterator[Mistake]:
    specs: dict[str, ProviderSpec | EntrySpec] = {
        **{place("PROVIDERS", alias): spec for alias, spec in config.providers.items()},
        **{place("SECRETS", name): entry for name, entry in config.entries.items()},
    }
    for about, one in specs.items():
        if one.residency.policy == "strict" and not config.region and not one.problem:
            message = f"is strict, while {SETTING} has no REGION: all that it covers is blocked"
            yield Mistake(Id.BLOCKED, about, message, 'Write the "REGION" that this process is in.')
        if one.residency.policy == "none" and one.residency.allowed_regions:
            hint = 'Write "RESIDENCY": "strict" or "advisory" beside it.'
            yield Mistake(Id.NO_POLICY, about, "has ALLOWED_REGIONS that restrict nothing", hint)


def _markers() -> Iterator[Mistake]:
    for found in found_in_settings():
        if found.flaw:
            kind = Id.MARKER if found.flaw.error else Id.CONTAINER
            yield Mistake(kind, found.where, found.flaw.message, found.flaw.hint)


def _classes() -> Iterator[Mistake]:
    for found in found_in_settings():
        if SETTING in found.where or found.where.endswith(_NAMES_OF_URLS):
            continue
        if found.where.endswith(_NAMES_OF_CLASSES):
            message = "names a class, which Django loads in every command: none runs without it"
            yield Mistake(Id.NAME_OF_CLASS, found.where, message, "Write its dotted path.")


def _order() -> Iterator[Mistake]:
    names = [config.name for config in apps.get_app_configs()]
    earlier = names[: names.index(APP)] if APP in names else []
    if earlier:
        message = (
            f"lists {', '.join(earlier)} before {APP}: what these read of settings while their own"
            " modules are imported is no secret yet, but its marker"
        )
        yield Mistake(Id.NOT_FIRST, "INSTALLED_APPS", message, f'Put "{APP}" first.')


def _reporters() -> Iterator[Mistake]:
    """Look at classes of the project's own that show errors; Django's default ones give way."""
    for name, ours in _REPORTERS.items():
        path = str(raw_setting(name))
        if path.partition(".")[0] in ("django", APP):
            continue
        chosen, reason = _imported(path)
        mro = getattr(chosen, "__mro__", ())
        if not reason and f"{APP}.debug.{ours}" not in (
            f"{c.__module__}.{c.__name__}" for c in mro
        ):
            message = f"names {path}, which does not mask the values of secrets"
            yield Mistake(Id.REPORTER, name, message, f"Derive it from {APP}.debug.{ours}.")


def _offline(config: RegistryConfig) -> Iterator[Mistake]:
    if config.offline:
        message = "is on: nothing is fetched, and live settings read as placeholders"
        hint = f'Serve no requests like this: unset {OFFLINE_VARIABLE} and "OFFLINE".'
        yield Mistake(Id.OFFLINE, "Offline mode", message, hint)


def _metrics(config: RegistryConfig) -> Iterator[Mistake]:
    if config.providers and not metrics.available():
        message = "are not exported: prometheus-client is not installed"
        hint = "Install django-secret-registry[prometheus], or silence this check."
        yield Mistake(Id.NO_METRICS, "Metrics", message, hint)
