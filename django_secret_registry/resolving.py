"""Reading under one configuration: reference → policy → cache → provider → value."""

from __future__ import annotations

import copy
import dataclasses
import functools
import logging
import math
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

from .asking import Ask, on_event_loop
from .clock import Clock
from .events import Events, Rotated
from .exceptions import (
    InvalidReference,
    SecretError,
    SecretNotFound,
)
from .extract import extract
from .leases import by_backend
from .lifecycle import Held, SecretKey
from .loading import Loader
from .logs import about
from .making import Making, apply, without_frames
from .members import Members
from .planning import Part, Plan, Planner, Text
from .policies import Policies
from .provider_cache import ProviderCache
from .providers.base import BaseProvider
from .references import SecretRef
from .rotation import Reading
from .secret_cache import SecretCache
from .specs import Derived, RegistryConfig
from .values import SecretValue
from .warming import Warmable

logger = logging.getLogger("django_secret_registry.resolving")

Helds = Mapping[SecretKey, Held]

#: Seconds that giving back all leases may take when the process ends.
EXIT = 3.0


class _Members(NamedTuple):
    """What a MAP is kept under: apart from what hits hand out, which nobody may change."""

    text: Text


class Resolver:
    """Reads secrets under one configuration, with caches of its own. Thread-safe.

    A registry that is configured anew makes another one: whoever reads meanwhile finishes with the
    policies, the providers and the cache that they began with.
    """

    def __init__(
        self, config: RegistryConfig, *, events: Events, clock: Clock, wall: Clock
    ) -> None:
        self.config = config
        self.providers = ProviderCache(
            config.providers, events=events, clock=clock, members=self._others
        )
        self._loader = Loader(
            self.providers,
            timeout=config.cache.fetch_timeout,
            follow=self._follow,
        )
        self.cache = SecretCache(
            config.cache,
            self._loader.load,
            renew=self._loader.renew,
            release=self._loader.release,
            events=events,
            clock=clock,
            wall=wall,
        )
        self.planner = Planner(config, self.providers)
        self._policies = Policies(config, self.planner, events)
        self._events = events
        self._clock = clock
        self._warned = False

    # -- reading ---------------------------------------------------------------------------------

    def get(self, text: Text, region: str | None) -> Any:
        """Return the value of ``text``; blocks while it is fetched."""
        members = self._members(text) if region is None else None
        if members is not None:
            return members
        plan = self._policies.permitted(text, region)
        asks: Sequence[Ask] = plan.asks()
        helds: Helds = {}
        try:
            helds = self._read(asks)
            return self._finish(text, plan, helds, keep=region is None)
        except SecretNotFound:
            if not isinstance(text, Derived) or text.default is ...:
                raise
        # It is the value for as long as the secret is refused, or lacks the key that is asked for.
        found = {ask.key: self.cache.held(ask.key) for ask in asks}
        refused = {key: held for key, held in found.items() if held is not None and held.refused}
        if region is None and (refused or helds):
            self.cache.publish(text, text.default, refused or helds)
        return text.default

    async def aget(self, text: Text, region: str | None) -> Any:
        """Return the value of ``text`` without blocking the event loop."""
        members = self._members(text) if region is None else None
        if members is not None:
            return members
        plan = self._policies.permitted(text, region)
        helds = await self.cache.aread_all(plan.asks())
        return self._finish(text, plan, helds, keep=region is None)

    def fetch(self, ref: str | SecretRef, region: str | None) -> SecretValue:
        """Return the value of one secret with its version and times."""
        plan = self._policies.permitted(ref, region)
        if plan.members is not None:
            raise InvalidReference(
                "a MAP has several secrets",
                reference=str(ref),
                hint="Name one of the references in it, or use registry.get.",
            )
        (part,) = plan.parts
        return _cut(self._read((part.ask,))[part.ask.key], part)

    def together(self, texts: Iterable[Text]) -> Reading:
        """Return the values of ``texts``, those of one secret from one version of it."""
        plans = {text: self._policies.permitted(text) for text in texts}
        asks = {ask.key: ask for ask in _merged(plans.values())}
        held: dict[SecretKey, Held] = {}
        values: dict[Text, Any] = {}
        for text, plan in plans.items():
            try:
                held |= self._read([asks[ask.key] for ask in plan.asks() if ask.key not in held])
                own = {ask.key: held[ask.key] for ask in plan.asks()}
                values[text] = self._finish(text, plan, own, keep=True)
            except SecretNotFound as error:
                values[text] = without_frames(error)
        return Reading(values, {asks[key]: one for key, one in held.items()})

    def reads(self, text: Text, rotated: Rotated) -> bool:
        """Whether ``text`` is made of the secret that has rotated."""
        try:
            asks = self.planner.plan(text).asks()
        except SecretError:
            return False
        where = rotated.provider, rotated.region, rotated.reference
        return any((ask.key.alias, ask.key.region, str(ask.ref)) == where for ask in asks)

    def refetch(self, reading: Reading, *, wait: bool) -> None:
        """Fetch what was read, unless another version has replaced it meanwhile."""
        for ask, held in reading.held.items():
            if wait:
                self.cache.refresh(ask, seen=held)
            else:
                self.cache.hasten(ask, seen=held)

    def provider(self, alias: str, region: str | None, *, anew: bool = False) -> BaseProvider:
        """Return the shared instance, built if need be; with ``anew`` in any case."""
        return self.providers.get(alias, self._policies.permitted_region(alias, region), anew=anew)

    def holds(self, text: Text, *, optional: bool) -> bool:
        """Whether ``text`` has a value, without a first fetch; or is ``optional``, and has none."""
        try:
            for part in self.planner.plan(text).parts:
                held = self.cache.held(part.ask.key)
                if held is None:
                    return False
                _cut(held, part)
        except SecretNotFound:
            return optional
        except SecretError:
            return False
        return True

    def _members(self, text: Text) -> dict[str, Any] | None:
        """Return a MAP that is held, in a dict of the caller's own; ``None``: see further."""
        slot = self.cache.slots.get(_Members(text))
        # No value may be older than ``max_age``, which a slot does not know.
        if slot is None or self._clock() >= slot.until or self.cache.max_age < math.inf:
            return None
        slot.hits += 1
        return cast(dict[str, Any], slot.value).copy()

    def _read(self, asks: Sequence[Ask]) -> Helds:
        on_loop = on_event_loop()
        for ask in asks:
            self.providers.refuse_cycle(ask.key.alias, ask.key.region)
            if on_loop and not self._warned and self.cache.held(ask.key) is None:
                self._warned = True
                logger.warning(
                    "%s is fetched while the event loop waits. Use registry.aget(...) in async"
                    ' code, or set "WARM_UP": True so that settings are held before requests come.',
                    ask.ref,
                    extra=about(
                        provider=ask.key.alias, region=ask.key.region, reference=str(ask.ref)
                    ),
                )
        return self.cache.read_all(asks, patient=not on_loop)

    def _finish(self, text: Text, plan: Plan, helds: Helds, *, keep: bool) -> Any:
        """Make the value of what is held, and let hits read it."""
        if not plan.functions:
            value = _value(plan, helds)
        else:
            first = next(iter(helds.values()))
            making: Making = first.made.setdefault(text, Making())
            value = making.get(
                [held.answer for held in helds.values()],
                lambda: apply(plan.functions, _value(plan, helds), **plan.where),
            )
        own = plan.members is not None and not plan.functions
        if keep:
            self.cache.publish(_Members(text) if own else text, value, helds)
        return copy.copy(value) if own else value

    # -- members of a chain -----------------------------------------------------------------------

    def _others(self, alias: str) -> Members:
        """Return what the provider of ``alias`` asks other aliases through."""

        def permit(ref: SecretRef) -> Part:
            (part,) = self._policies.permitted(ref).parts
            return part

        return Members(
            alias, self.providers, permit=permit, load=self._loader.load, events=self._events,
            clock=self._clock,
        )  # fmt: skip

    def _follow(self, key: SecretKey, value: SecretValue, stage: str) -> None:
        self.cache.follow(key, value, stage)

    # -- acting ----------------------------------------------------------------------------------

    def refresh(self, text: Text, region: str | None) -> None:
        """Fetch every secret of ``text`` now; raise the error of the first that fails."""
        for ask in self._policies.permitted(text, region).asks():
            self.cache.refresh(ask)

    def evict(self, ref: Text, region: str | None, *, by: str) -> int:
        """Forget the secrets of ``ref``: every version and stage, unless it names one."""
        keys = self.keys(ref, region)
        return self.forget(lambda key: any(map(key.within, keys)), reason="operator", by=by)

    def evict_provider(self, alias: str | None, region: str | None, *, by: str) -> int:
        """Forget the clients of ``alias`` and ``region`` and what they fetched; ``None``: any."""
        return self.forget_provider(alias, self.region(alias, region), reason="operator", by=by)

    def region(self, alias: str | None, region: str | None) -> str | None:
        """Return the effective region that an eviction means; ``None``: any."""
        if alias is None:
            return None
        spec = self.providers.spec(alias)
        return spec.effective_region(region) if region else None

    def forget_provider(self, alias: str | None, where: str | None, *, reason: str, by: str) -> int:
        """Forget clients and what they fetched, by effective region; ``None``: any."""
        # The clients first: what is fetched from here on is fetched by new ones.
        self.providers.evict(alias, where)
        return self.forget(
            lambda key: alias in (None, key.alias) and where in (None, key.region),
            reason=reason,
            by=by,
        )

    def forget(self, chosen: Callable[[SecretKey], bool], *, reason: str, by: str) -> int:
        """Forget what is ``chosen``, and what a chain may have from there."""
        reached = self.planner.reached
        return len(
            self.cache.evict(lambda key: any(map(chosen, reached(key))), reason=reason, by=by)
        )

    def keys(self, text: Text, region: str | None = None) -> list[SecretKey]:
        """Return the keys of the secrets that ``text`` leads to."""
        return [ask.key for ask in self.planner.plan(text, region).asks()]

    def naming(self, texts: Iterable[str], where: Sequence[str]) -> list[str]:
        """Return those of ``texts`` that lead to a secret ``where``: alias, region, project, name.

        Without a name any will do, and without an alias.
        """
        alias, *rest = where
        found = []
        for text in dict.fromkeys(texts):
            try:
                keys = self.keys(text)
            except SecretError:  # a check reports it
                continue
            if any(
                not alias or key[:4] == (alias, *rest) or (not rest[-1] and key.alias == alias)
                for key in keys
            ):
                found.append(text)
        return found

    # -- warming and looking ---------------------------------------------------------------------

    def warmables(
        self,
        texts: Iterable[str],
        providers: frozenset[str] | None,
        optional: Callable[[], Container[str]] = tuple,
    ) -> Iterator[Warmable]:
        """Yield what there is to fetch for ``texts``, or why it cannot be.

        Those that are ``optional`` need not exist; that is asked once one does not.
        """

        def may_be_missing(text: str) -> bool:
            return text in optional()

        for text in dict.fromkeys(texts):
            try:
                parts = self._policies.permitted(text).parts
            except SecretError as error:
                if providers is None or error.provider in providers:
                    yield Warmable(error.reference or self.planner.shown(text), error=error)
                continue
            for part in parts:
                ask = part.ask if part.ask.pinned else part.ask._replace(pinned=True)
                if providers is None or ask.key.alias in providers:
                    yield Warmable(
                        str(part.ref),
                        ask,
                        functools.partial(_cut, part=part),
                        optional=functools.partial(may_be_missing, text),
                    )

    def known(
        self, references: Mapping[str, str]
    ) -> dict[SecretKey, tuple[SecretRef, tuple[str, ...]]]:
        """Return the keys that settings and ``SECRETS`` name, and where they name them."""
        known: dict[SecretKey, tuple[SecretRef, tuple[str, ...]]] = {}
        for place, text in references.items():
            try:
                asks = self.planner.plan(text).asks()
            except SecretError:  # a check reports it
                continue
            for ask in asks:
                known[ask.key] = ask.ref, (*known.get(ask.key, (ask.ref, ()))[1], place)
        return known

    # -- processes -------------------------------------------------------------------------------

    def retire(self) -> None:
        """Let go of leases and clients once another configuration is in force; waits for nobody."""
        self.cache.give_back_all()
        self.providers.evict()  # they close when their last user is done

    def close(self) -> None:
        """Give leases back and close the providers; for the end of the process."""
        deadline = time.monotonic() + EXIT
        # In this thread: none can be started any more, and daemons do not live on.
        for leases in by_backend(self.cache.take_leases()):
            self._loader.release(leases, deadline - time.monotonic())()
        self.providers.close()

    def after_fork(self) -> None:
        """Make the resolver usable in a child that was forked."""
        self.providers.after_fork()
        self.cache.after_fork()


def _merged(plans: Iterable[Plan]) -> list[Ask]:
    """Return what to ask the cache for: each secret once, with the smallest TTL asked for."""
    return Plan(tuple(part for plan in plans for part in plan.parts)).asks()


def _value(plan: Plan, helds: Helds) -> Any:
    """Return the value that a plan asks for, or the dict of a MAP."""
    values = [_cut(helds[part.ask.key], part).value for part in plan.parts]
    return values[0] if plan.members is None else dict(zip(plan.members, values, strict=True))


def _cut(held: Held, part: Part) -> SecretValue:
    """Return the value with what the part's reference asks for instead of the payload."""
    if isinstance(held.answer, SecretError):
        raise held.answer.copy()
    value = extract(held.answer.value, part.ref, region=part.ask.key.region)
    return (
        held.answer if value is held.answer.value else dataclasses.replace(held.answer, value=value)
    )
