"""Policies: what this process may read, beside the fences that are part of the plan."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from .events import Events, ResidencyChecked
from .exceptions import ProviderUnavailable, ResidencyViolation
from .logs import about
from .planning import Plan, Planner, Text
from .references import NO_REGION
from .residency import Residency
from .specs import RegistryConfig

logger = logging.getLogger("django_secret_registry.policies")


class Policies:
    """Lets plans through under one configuration: offline mode and residency. Thread-safe.

    Each decision about residency is told. Hits are not asked for: their plan was let through once.
    """

    def __init__(self, config: RegistryConfig, planner: Planner, events: Events) -> None:
        self._config = config
        self._planner = planner
        self._events = events

    def permitted(self, text: Text, region: str | None = None) -> Plan:
        """Return how ``text`` is read, once this process may read every part of it.

        Raises what :meth:`.planning.Planner.plan` does, :class:`ProviderUnavailable` in offline
        mode, and :class:`ResidencyViolation`.
        """
        plan = self._planner.plan(text, region)
        for part in plan.parts:
            key, reference = part.ask.key, str(part.ask.ref)
            self._refuse_offline(key.alias, key.region, reference)
            self._check_residency(key.alias, key.region, reference, part.residencies)
        return plan

    def permitted_region(self, alias: str, region: str | None) -> str:
        """Return the effective region of a client that this process may have; raises likewise."""
        where, residencies = self._planner.place(alias, region)
        self._refuse_offline(alias, where)
        if residencies:
            self._check_residency(alias, where, "", residencies)
        return where

    def _refuse_offline(self, alias: str, region: str, reference: str = "") -> None:
        if self._config.offline:
            raise ProviderUnavailable(
                "offline mode is on: nothing is fetched",
                reference=reference,
                provider=alias,
                region=region,
                hint='Unset SECRET_REGISTRY_OFFLINE (or "OFFLINE") to fetch.',
            )

    def _check_residency(
        self, alias: str, region: str, reference: str, policies: Sequence[Residency]
    ) -> None:
        """Tell, and under ``strict`` raise, when this process is outside a policy's regions."""
        here = self._config.here
        for policy in policies or (Residency(),):
            decision = policy.decide(here)
            self._events.tell(ResidencyChecked(alias, region, reference, policy.policy, decision))
            if decision == "violation_blocked":
                regions = filter(None, (policy.region, *policy.allowed_regions))
                raise ResidencyViolation(
                    f"the secret may be read in {', '.join(map(repr, regions)) or 'no region'}"
                    f" only, and this process {f'runs in {here!r}' if here else 'has no REGION'}",
                    reference=reference,
                    provider=alias,
                    region=region,
                    hint="Read it where it lives, or add the process's REGION to ALLOWED_REGIONS."
                    if here
                    else 'Write the "REGION" that this process is in into SECRET_REGISTRY.',
                )
            if decision == "violation_allowed":
                logger.warning(
                    "%s is read outside its region %s (advisory residency)",
                    reference or alias,
                    policy.region or NO_REGION,
                    extra=about(provider=alias, region=region, reference=reference),
                )
