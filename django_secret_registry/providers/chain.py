"""Several aliases in turn: the first one that has the secret gives it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from ..exceptions import (
    AccessDenied,
    InvalidProvider,
    InvalidReference,
    ProviderError,
    ProviderUnavailable,
    ResidencyViolation,
    SecretError,
    SecretNotFound,
)
from ..references import SecretRef
from ..values import SecretValue
from .base import BaseProvider, Members, Problem

#: The part of the time that is not handed on: a member's own error should come before the cache
#: gives up the whole chain, and leaves it alone with all that the other members have.
_RESERVE = 0.03

#: What an error of a member is to whoever asked the chain.
_KINDS = (
    AccessDenied,
    ResidencyViolation,
    ProviderUnavailable,
    InvalidReference,
    InvalidProvider,
    ProviderError,
)


class ChainProvider(BaseProvider):
    """Asks its aliases in their order, each only when all before it have no such secret.

    Options: ``aliases``, and ``on_unavailable``: go on also when one cannot answer for now (its
    secret may then be another one's). Each alias has an equal part of the time that is left then,
    and all of it otherwise. What else an alias answers (it denies, it fails, its fence or a
    residency policy forbids the reference) ends the chain: nothing is looked for elsewhere because
    it may not be read here.

    * name, project, version, stage: handed on as they are. An alias that does not accept them, or
      to which the name means nothing, ends the chain with ``InvalidReference``;
    * region: one that is given (by the call, the reference, the entry or the chain's own alias) is
      handed on to every alias; none, and each has its own.

    Fences and residency policies hold for each alias as if it were asked directly, and those of
    the chain besides. The version of a value names the alias that gave it: ``aws:7``.
    """

    composite = True
    accepts = frozenset({"project", "version", "stage"})
    batch_size = 20

    def __init__(
        self,
        *,
        alias: str,
        region: str,
        members: Members,
        aliases: Sequence[str],
        on_unavailable: bool = False,
    ) -> None:
        super().__init__(alias=alias, region=region)
        self._members = members
        self._aliases = tuple(aliases)
        self._on_unavailable = on_unavailable

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> list[Problem]:
        problems = super().check(options)
        aliases = options.get("aliases", ("file", "aws"))
        if (
            not isinstance(aliases, list | tuple)
            or not all(isinstance(alias, str) for alias in aliases)
            or not 0 < len(set(aliases)) == len(aliases)
        ):
            hint = 'Write "aliases": ["file", "aws"].'
            problems.append(Problem("option 'aliases' is no list of different aliases", hint))
        if not isinstance(options.get("on_unavailable", False), bool):
            problems.append(Problem("option 'on_unavailable' is no bool", "Write True or False."))
        return problems

    @classmethod
    def member_aliases(cls, options: Mapping[str, Any]) -> Sequence[str]:
        aliases = options.get("aliases")
        known = aliases if isinstance(aliases, list | tuple) else ()
        return tuple(alias for alias in known if isinstance(alias, str))

    def fetch(self, ref: SecretRef, *, timeout: float) -> SecretValue:
        answer = self.fetch_many((ref,), timeout=timeout)[ref]
        if isinstance(answer, SecretError):
            raise answer
        return answer

    def fetch_many(
        self, refs: Sequence[SecretRef], *, timeout: float
    ) -> dict[SecretRef, SecretValue | SecretError]:
        deadline = time.monotonic() + timeout * (1 - _RESERVE)
        answers: dict[SecretRef, SecretValue | SecretError] = {}
        outages: dict[SecretRef, SecretError] = {}
        for place, alias in enumerate(self._aliases):
            asked = {
                ref: ref.replace(scheme=alias, region=self.region)
                for ref in refs
                if ref not in answers
            }
            if not asked:
                break
            seconds = deadline - time.monotonic()
            if self._on_unavailable:
                seconds /= len(self._aliases) - place
            got = self._members.fetch(tuple(asked.values()), timeout=seconds)
            for ref, member_ref in asked.items():
                answer = got[member_ref]
                if isinstance(answer, SecretValue):
                    answers[ref] = _named(answer, alias)
                elif isinstance(answer, ProviderUnavailable) and self._on_unavailable:
                    outages.setdefault(ref, self._of_member(answer, ref, alias))
                elif not isinstance(answer, SecretNotFound):
                    answers[ref] = self._of_member(answer, ref, alias)
        for ref in refs:
            if ref not in answers:
                # One that did not answer may have it: that is no "not found".
                answers[ref] = outages.get(ref) or self._in_none(ref)
        return answers

    def _in_none(self, ref: SecretRef) -> SecretError:
        aliases = ", ".join(self._aliases)
        return self.error(SecretNotFound, f"there is no such secret in any of {aliases}", ref)

    def _of_member(self, error: SecretError, ref: SecretRef, alias: str) -> SecretError:
        """Return the error of a member as one of the chain, which it causes."""
        kind = next((kind for kind in _KINDS if isinstance(error, kind)), ProviderError)
        named = self.error(kind, f"{alias!r}: {error.message}", ref, hint=error.hint)
        if isinstance(named, ProviderUnavailable):
            named.only_this = True  # another secret may be had from an alias that does answer
        named.__cause__ = error
        return named


def _named(value: SecretValue, alias: str) -> SecretValue:
    # Two members may count their versions alike: the same number is no sign of the same value.
    version = None if value.version is None else f"{alias}:{value.version}"
    # Without its lease, which only the member could prolong: it ends by itself.
    return SecretValue(value.value, version=version, expires_at=value.expires_at)
