"""How a provider that is made of other aliases asks them: each under all that binds it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from .clock import Clock
from .events import Events, Fetched
from .exceptions import ProviderUnavailable, SecretError
from .lifecycle import SecretKey, status_of
from .planning import Part
from .provider_cache import ProviderCache
from .references import SecretRef
from .values import SecretValue

Answer = SecretValue | SecretError
#: Gives the one part of a reference's plan, once fences and policies let this process read it.
Permit = Callable[[SecretRef], Part]
#: Fetches from one backend, within so many seconds.
Load = Callable[[Mapping[SecretKey, SecretRef], float], Mapping[SecretKey, Answer]]


class Members:
    """Fetches from other aliases for the provider of the alias ``asker``. Thread-safe.

    It asks their shared instances and keeps nothing: what is fetched is cached as the asker's. Each
    fetch is told as one of the alias that was asked.
    """

    def __init__(
        self,
        asker: str,
        providers: ProviderCache,
        *,
        permit: Permit,
        load: Load,
        events: Events,
        clock: Clock,
    ) -> None:
        self._alias = asker
        # The name was compared already; only a member finds region and project in a full name.
        self._fence = providers.spec(asker).fence._replace(allow=None)
        self._providers = providers
        self._permit = permit
        self._load = load
        self._events = events
        self._clock = clock

    def fetch(self, refs: Sequence[SecretRef], *, timeout: float) -> dict[SecretRef, Answer]:
        """Return a value or an error for each reference, in batches of their backends' sizes."""
        deadline = time.monotonic() + timeout
        answers: dict[SecretRef, Answer] = {}
        wanted: dict[tuple[str, ...], dict[SecretKey, Part]] = defaultdict(dict)
        keys: dict[SecretRef, SecretKey] = {}
        for ref in refs:
            try:
                part = self._permit(ref)
                own = part.ask.ref.replace(scheme=self._alias)
                self._fence.check(own, name="", region=part.ask.key.region)
            except SecretError as error:
                answers[ref] = error
            else:
                keys[ref] = part.ask.key
                wanted[part.ask.key[:2]][part.ask.key] = part
        loaded: dict[SecretKey, Answer] = {}
        for where, parts in wanted.items():
            size = self._providers.spec(where[0]).backend_class.batch_size
            items = [(key, part.ask.ref) for key, part in parts.items()]
            for start in range(0, len(items), size):
                batch = dict(items[start : start + size])
                loaded |= self._fetch(batch, deadline - time.monotonic())
        return answers | {ref: loaded[key] for ref, key in keys.items()}

    def _fetch(
        self, refs: Mapping[SecretKey, SecretRef], seconds: float
    ) -> Mapping[SecretKey, Answer]:
        if seconds > 0:
            started = self._clock()
            answers = self._load(refs, seconds)
            took = self._clock() - started
            for key, ref in refs.items():
                answer = answers[key]
                status = status_of(answer) if isinstance(answer, SecretError) else "ok"
                self._events.tell(Fetched(key.alias, key.region, str(ref), status, took))
            return answers
        return {
            key: ProviderUnavailable(
                "the time was over before it was asked",
                reference=str(ref),
                provider=key.alias,
                region=key.region,
            )
            for key, ref in refs.items()
        }
