"""From the text of a reference to a plan: what to ask the cache for, under which policies.

A plan depends on the configuration only, so it is made once per text.
"""

# Annotations are evaluated here, which takes less time at start-up: see events.py.
import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from .asking import Ask
from .exceptions import InvalidProvider, InvalidReference, ProviderDoesNotExist, SecretError
from .lifecycle import SecretKey
from .making import unexpected
from .provider_cache import ProviderCache
from .references import NO_REGION, SecretRef
from .residency import Residency
from .specs import Derived, EntrySpec, RegistryConfig
from .values import SecretStr

Text = str | SecretRef | Derived

#: Stands where a text would be shown that leads nowhere.
HIDDEN = "(names no provider and no entry)"


class Part(NamedTuple):
    """One secret to read, what is wanted of its payload, and the policies that bind it."""

    ask: Ask
    ref: SecretRef
    residencies: tuple[Residency, ...]


class Plan(NamedTuple):
    """How a text is resolved: by its one part, or by the members of a MAP."""

    parts: tuple[Part, ...]
    members: tuple[str, ...] | None = None  # of a MAP, in the order of ``parts``
    functions: tuple[Callable[[Any], Any], ...] = ()
    entry: str = ""

    def asks(self) -> list[Ask]:
        """Return what to ask the cache for: each secret once, with the smallest TTL asked for."""
        asks: dict[SecretKey, Ask] = {}
        for part in self.parts:
            known = asks.setdefault(part.ask.key, part.ask)
            if part.ask.ttl < known.ttl:
                asks[part.ask.key] = part.ask
        return list(asks.values())

    @property
    def where(self) -> dict[str, str]:
        """What an error about the whole of it names."""
        if self.members is not None:
            return {"reference": self.entry}
        (part,) = self.parts
        key = part.ask.key
        return {"reference": str(part.ref), "provider": key.alias, "region": key.region}


def parse(text: Text) -> SecretRef:
    """Return the reference that ``text`` is or names; one made by hand is checked like text."""
    if not isinstance(text, SecretRef):
        return SecretRef.parse(text.ref if isinstance(text, Derived) else text)
    if SecretRef.parse(str(text)) != text:
        raise InvalidReference("the SecretRef has a field that is not of the allowed form")
    return text


class Planner:
    """Makes plans for one configuration. Thread-safe; does no I/O, but imports backends."""

    def __init__(self, config: RegistryConfig, providers: ProviderCache) -> None:
        self._config = config
        self._providers = providers
        self._plans: dict[tuple[Text, str | None], Plan] = {}
        self._policies: dict[str, Mapping[tuple[str, str], list[Residency]]] = {}

    def plan(self, text: Text, region: str | None = None) -> Plan:
        """Return the plan of ``text``, whose own region ``region`` outranks.

        Raises :class:`InvalidReference`, :class:`ProviderDoesNotExist`, :class:`InvalidProvider`,
        and :class:`AccessDenied` for what lies outside the fences of its alias.
        """
        plan = self._plans.get((text, region))
        if plan is None or isinstance(text, SecretStr):  # equal to the text, and still refused
            plan = self._make(text, region)
            # Texts may come from users: the memory they take is bounded like the cache's.
            if len(self._plans) >= 4 * self._config.cache.max_entries:
                self._plans.clear()
            self._plans[text, region] = plan
        return plan

    def _make(self, text: Text, region: str | None) -> Plan:
        functions = text.functions if isinstance(text, Derived) else ()
        ref = parse(text)
        if not ref.is_entry:
            part = self._part(ref, region, pinned=isinstance(text, Derived))
            return Plan((part,), functions=functions)
        entry = self._config.entries.get(ref.name)
        if entry is None:
            raise InvalidReference(
                "the text is neither a reference (alias://name) nor the name of an entry",
                hint=f"SECRETS has: {', '.join(sorted(self._config.entries)) or 'no entries'}.",
            )
        if entry.problem:
            raise InvalidReference(
                entry.problem, reference=entry.name, hint="Run manage.py check for all mistakes."
            )
        if entry.ref is not None:
            return Plan((self._part(entry.ref, region, entry=entry),), functions=functions)
        if not entry.members:
            raise InvalidReference("the entry names no secret", reference=entry.name)
        members = entry.members
        parts = tuple(self._part(member, region, entry=entry) for member in members.values())
        return Plan(parts, tuple(members), functions, entry.name)

    def _part(
        self,
        ref: SecretRef,
        region: str | None,
        *,
        entry: EntrySpec | None = None,
        pinned: bool = False,
    ) -> Part:
        try:
            key, payload = self._locate(ref, region, entry.region if entry else "")
        except ProviderDoesNotExist:  # of text that may be a secret, which is not shown
            raise
        except (InvalidProvider, InvalidReference) as error:  # made anew: it may be completed
            error.reference = error.reference or str(ref.payload())
            error.provider = error.provider or ref.scheme
            raise
        ttls = [ttl for ttl in (ref.ttl, entry.ttl if entry else None) if ttl]
        ttl = min(ttls, default=self._config.cache.ttl)
        batch_size = self._providers.spec(ref.scheme).backend_class.batch_size
        ask = Ask(key, payload, ttl, pinned or entry is not None, batch_size)
        return Part(ask, ref, self._residencies(key, payload))

    def _locate(
        self, ref: SecretRef, region: str | None, entry_region: str
    ) -> tuple[SecretKey, SecretRef]:
        """Return the key of the secret and its reference, once the fences let it through."""
        spec = self._providers.spec(ref.scheme)
        if spec.backend_class.composite and spec.alias in self._leads_to(spec.alias):
            raise InvalidProvider(
                "the alias leads back to itself",
                provider=spec.alias,
                hint="Run manage.py check for all mistakes.",
            )
        if region:
            ref = ref.replace(region=spec.effective_region(region) or NO_REGION)
        ref = self._spelled(ref)
        process = self._config.region
        where = spec.effective_region(ref.region, entry_region, process=process)
        spec.fence.check(ref, name=spec.backend_class.fenced_name(ref), region=where)
        key = SecretKey(ref.scheme, where, ref.project, ref.name, ref.version, ref.stage)
        # What errors and pages show has a region only where it is not the usual one.
        usual = where == spec.effective_region(process=process)
        return key, ref.replace(region="" if usual else where or NO_REGION)

    def reached(self, key: SecretKey) -> Iterator[SecretKey]:
        """Yield ``key``, and the keys of the secrets that its value may have come from."""
        yield key
        ref = SecretRef(key.alias, key.name, key.region, key.project, key.version, key.stage)
        for member in self._handed_on(ref):
            with contextlib.suppress(SecretError):
                yield self._locate(member, None, "")[0]

    def _handed_on(
        self, ref: SecretRef, entry_region: str = "", passed: tuple[str, ...] = ()
    ) -> Iterator[SecretRef]:
        """Yield the references to other aliases that a read of ``ref`` may be handed on to."""
        try:
            spec = self._providers.spec(ref.scheme)
            members = spec.backend_class.member_aliases(spec.options)
            where = spec.effective_region(ref.region, entry_region) if members else ""
        except SecretError:  # a check reports it, and so does the read that gets there
            return
        passed = (*passed, ref.scheme)
        for alias in members:
            if alias not in passed:
                member = ref.replace(scheme=alias, region=where)
                yield member
                yield from self._handed_on(member, passed=passed)

    def _leads_to(self, alias: str) -> set[str]:
        """Return the aliases that a reference to this one may be handed on to."""
        found: set[str] = set()
        todo = [alias]
        while todo:
            with contextlib.suppress(InvalidProvider):  # as in _handed_on
                spec = self._providers.spec(todo.pop())
                members = set(spec.backend_class.member_aliases(spec.options))
                todo += members - found
                found |= members
        return found

    def _spelled(self, ref: SecretRef) -> SecretRef:
        spec = self._providers.spec(ref.scheme)
        try:
            return spec.backend_class.canonical(ref.payload(), spec.options)
        except SecretError:
            raise
        except Exception as exc:
            failure = unexpected(exc, "the spelling of the reference")
        raise failure.copy(provider=ref.scheme)

    def spelling(self, ref: SecretRef) -> SecretRef:
        """Return the one spelling of a reference, without TTL, as far as its alias is known."""
        try:
            spelled = self._spelled(ref)
        except SecretError:
            return ref.replace(ttl=None)
        return spelled.replace(key=ref.key, as_=ref.as_, trim=ref.trim)

    def shown(self, text: Text) -> str:
        """Return ``text`` as it may be shown: not if it names no alias and no entry.

        It may then be a secret that was passed by mistake.
        """
        try:
            ref = parse(text)
        except InvalidReference:
            return HIDDEN
        known = self._config.entries if ref.is_entry else self._config.providers
        return str(ref) if (ref.scheme or ref.name) in known else HIDDEN

    # -- policies --------------------------------------------------------------------------------

    def place(self, alias: str, region: str | None) -> tuple[str, tuple[Residency, ...]]:
        """Return the effective region of a client that the fence admits, and what binds it."""
        spec = self._providers.spec(alias)
        where = spec.effective_region(region, process=self._config.region)
        spec.fence.check_region(alias, where)
        return where, _located([spec.residency], where)

    def _residencies(self, key: SecretKey, ref: SecretRef) -> tuple[Residency, ...]:
        """Return every policy that binds a secret: of its alias and of all entries that name it."""
        demanded = self._policies.get(key.alias)
        if demanded is None:
            demanded = self._policies[key.alias] = self._entry_policies(key.alias)
        spec = self._providers.spec(key.alias)
        policies = [
            policy
            for identity in spec.backend_class.bound_as(ref)
            for policy in demanded.get(identity, ())
        ]
        return _located([*policies, spec.residency], key.region)

    def _entry_policies(self, alias: str) -> Mapping[tuple[str, str], list[Residency]]:
        """Return what entries demand of the secrets of ``alias``, by project and name.

        Of one alias only: to spell a reference of another may take a secret of this one, which
        stands in the other's OPTIONS.
        """
        policies = defaultdict(list)
        for entry in self._config.entries.values():
            if entry.residency.policy == "none":
                continue
            for ref in self._bound(entry, alias):
                for identity, residency in self._entry_policy(entry, ref):
                    policies[identity].append(residency)
        return dict(policies)

    def _bound(self, entry: EntrySpec, alias: str) -> Iterator[SecretRef]:
        """Yield the references to ``alias`` that an entry binds.

        Its own, and what a chain may take these from.
        """
        for ref in entry.refs:
            for one in (ref, *self._handed_on(ref, entry.region)):
                if one.scheme == alias:
                    yield one

    def _entry_policy(
        self, entry: EntrySpec, ref: SecretRef
    ) -> Iterator[tuple[tuple[str, str], Residency]]:
        """Yield the identities of a secret that an entry names, with the policy for them."""
        residency = entry.residency
        try:
            spec, ref = self._providers.spec(ref.scheme), self._spelled(ref)
            where = spec.effective_region(ref.region, entry.region, process=self._config.region)
        except SecretError:
            # It cannot be read itself; other spellings of it are bound all the same.
            yield (ref.project, ref.name), residency
            return
        for identity in spec.backend_class.identities(ref):
            (located,) = _located([residency], where)
            yield identity, located


def _located(policies: Iterable[Residency], region: str) -> tuple[Residency, ...]:
    """Return the policies that say something, each once, for a secret that lies in ``region``."""
    return tuple(
        dict.fromkeys(
            policy._replace(region=policy.region or region)
            for policy in policies
            if policy.policy != "none"
        )
    )
