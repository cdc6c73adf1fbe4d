"""What a backend's answer means for a secret: how long it lives, or which error it is."""

from __future__ import annotations

from .events import CacheSkipped, Event, Fetched, Refreshed, Rotated, TTLDerived
from .exceptions import ProviderError, SecretError, SecretNotFound
from .lifecycle import (
    CachePolicy,
    Cell,
    Eviction,
    Held,
    Outcome,
    hold_refusal,
    hold_value,
    status_of,
)
from .values import SecretValue


def judge(
    cell: Cell, answer: object, policy: CachePolicy, *, started: float, now: float, wall: float
) -> Outcome:
    """Return the life of an answer to a fetch begun at ``started``, or the error that it is.

    ``started`` and ``now`` are readings of the cache's clock, ``wall`` is POSIX seconds.
    """
    ttl = cell.ttl * cell.jitter
    if isinstance(answer, SecretValue):
        if answer.expires_at is not None and answer.expires_at <= wall:
            return ProviderError(
                "the value had already expired when it arrived",
                hint="Compare the time of this machine with the issuer's.",
            )
        answer = answer.fetched(wall - (now - started))
        return hold_value(answer, policy, ttl=ttl, fetched=started, now=now, wall=wall)
    if isinstance(answer, SecretNotFound):
        refusals = cell.refusals + 1
        return hold_refusal(answer, policy, ttl=ttl, refusals=refusals, fetched=started)
    return answer if isinstance(answer, SecretError) else no_answer()


def no_answer() -> ProviderError:
    """Return the error of a fetch that brought nothing that could be judged."""
    return ProviderError("the provider gave no answer")


def rotation(
    cell: Cell, before: Held | None, held: Held, evicted: Eviction | None
) -> Rotated | None:
    """Return the event if ``held`` brings another version than was known.

    What was known is what was held ``before``, else what the last eviction ended.
    """
    new = held.answer
    if not isinstance(new, SecretValue):
        return None
    old = before.answer if before is not None else None
    if isinstance(old, SecretValue):
        old_version = old.version
        unversioned = old.version is None and new.version is None
        changed = old.value != new.value if unversioned else old.version != new.version
    else:
        old_version = evicted.version if evicted is not None and before is None else None
        changed = old_version is not None and old_version != new.version
    if not changed:
        return None
    return Rotated(cell.key.alias, cell.key.region, cell.reference, old_version, new.version)


def told(
    cell: Cell, answer: object, outcome: Outcome, *, seconds: float, refresh: bool, started: float
) -> list[Event]:
    """Return the events of a fetch that ended; ``refresh``: something was held before."""
    key = cell.key
    failed = outcome.answer if isinstance(outcome, Held) else outcome
    status = status_of(failed) if isinstance(failed, SecretError) else "ok"
    events: list[Event] = [Fetched(key.alias, key.region, cell.reference, status, seconds)]
    if refresh:
        ended = "ok" if isinstance(outcome, Held) else "error"
        events.append(Refreshed(key.alias, key.region, cell.reference, ended))
    if isinstance(answer, SecretValue) and answer.expires_at is not None:
        if isinstance(outcome, Held) and outcome.cached:
            events.append(TTLDerived(key.alias, key.region, outcome.stale - started))
        else:
            events.append(CacheSkipped(key.alias, key.region, "expiring"))
    return events
