"""What a reference means under a configuration, and what would serve it. Fetches nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from .exceptions import SecretError
from .lifecycle import SecretKey, status_of
from .planning import Part, Planner, parse
from .provider_cache import ProviderCache
from .providers.base import Fence
from .references import SecretRef
from .residency import Residency
from .specs import EntrySpec, RegistryConfig

#: What nothing stands in the way of.
PERMITTED = "permitted"


class Explained(NamedTuple):
    """One secret of a reference: how it is read, or the ``error`` that its readers get.

    ``asked`` is what the backend is asked for and the value is cached under; ``region`` and
    ``region_from`` say where and who decided that; ``ttl`` is in seconds. ``residencies`` are the
    policies that bind it, each with its decision for this process. ``handed_on_to`` are the
    references that an alias made of others may ask. ``named_by`` are the places in settings and
    ``SECRETS`` that name the secret.
    """

    ref: SecretRef
    member: str = ""
    backend: str = ""
    fence: Fence = Fence()
    asked: str = ""
    region: str = ""
    region_from: str = ""
    ttl: float | None = None
    residencies: tuple[tuple[Residency, str], ...] = ()
    handed_on_to: tuple[str, ...] = ()
    named_by: tuple[str, ...] = ()
    outcome: str = PERMITTED
    error: str = ""


class Explainer:
    """Explains references under ``config``. Imports backends, builds none and imports no SDK.

    ``places`` are the references of settings: where they stand → their text. No OPTIONS of
    ``config`` should hold a secret: a backend may look at them, and would have it fetched.
    """

    def __init__(self, config: RegistryConfig, places: Mapping[str, str]) -> None:
        self._config = config
        self._planner = Planner(config, ProviderCache(config.providers))
        self._places = {**places, **config.named}

    def explain(self, text: str) -> list[Explained]:
        """Return the secrets that ``text`` leads to: one, or those of a MAP.

        ``text`` is a reference whose alias is configured, or the name of an entry.
        """
        ref = parse(text)
        if not ref.is_entry:
            return [self._explained(ref)]
        entry = self._config.entries[ref.name]
        if entry.problem or not (entry.ref or entry.members):
            problem = entry.problem or "the entry names no secret"
            hint = "Run manage.py check for all mistakes."
            return [Explained(ref, outcome="error", error=f"{problem}. {hint}")]
        if entry.ref is not None:
            return [self._explained(entry.ref, entry)]
        members = (entry.members or {}).items()
        return [self._explained(ref, entry, member) for member, ref in members]

    def _explained(
        self, ref: SecretRef, entry: EntrySpec | None = None, member: str = ""
    ) -> Explained:
        spec = self._config.providers[ref.scheme]
        known = Explained(ref, member, spec.backend, spec.fence)
        ttls = [ttl for ttl in (ref.ttl, entry.ttl if entry else None) if ttl]
        wanted = ref.replace(
            region=ref.region or (entry.region if entry else ""), ttl=min(ttls, default=None)
        )
        try:
            (part,) = self._planner.plan(wanted).parts
        except SecretError as error:
            return known._replace(outcome=status_of(error), error=str(error))
        decided = tuple((policy, policy.decide(self._config.here)) for policy in part.residencies)
        blocked = any(decision == "violation_blocked" for _, decision in decided)
        refusal = "a strict residency policy keeps this process from reading it" if blocked else ""
        return known._replace(
            asked=str(part.ask.ref),
            region=part.ask.key.region,
            region_from=self._region_from(ref, entry),
            ttl=part.ask.ttl,
            residencies=decided,
            handed_on_to=tuple(self._handed_on(part)),
            named_by=tuple(self._named_by(part.ask.key)),
            outcome="denied" if blocked else PERMITTED,
            error=refusal,
        )

    def _region_from(self, ref: SecretRef, entry: EntrySpec | None) -> str:
        """Return who decided on the region, in the order in which they are asked."""
        spec = self._config.providers[ref.scheme]
        asked = {
            "the reference": self._planner.spelling(ref).region,  # an ARN has one, too
            "the entry": entry.region if entry else "",
            "the alias": spec.region,
            "the process": self._config.region if spec.backend_class.regional else "",
        }
        return next((source for source, region in asked.items() if region), "")

    def _handed_on(self, part: Part) -> Iterator[str]:
        for key in self._planner.reached(part.ask.key):
            if key != part.ask.key:
                fields = key.name, key.region, key.project, key.version, key.stage
                yield str(SecretRef(key.alias, *fields))

    def _named_by(self, key: SecretKey) -> Iterator[str]:
        for place, text in self._places.items():
            try:
                asks = self._planner.plan(text).asks()
            except SecretError:  # a check reports it
                continue
            if any(ask.key == key for ask in asks):
                yield place
