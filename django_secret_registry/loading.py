"""Loading: what the cache wants of a backend is asked of its provider, whatever that answers.

Everything here runs in a thread of the backend's pool and holds no lock.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from .exceptions import ProviderError, ProviderUnavailable, SecretError
from .leases import Lease
from .lifecycle import SecretKey
from .logs import about
from .making import unexpected, without_frames
from .provider_cache import ProviderCache
from .providers.base import BaseProvider
from .references import SecretRef
from .values import MAX_VALUE_SIZE, SecretValue

logger = logging.getLogger("django_secret_registry.loading")

Answers = Mapping[SecretKey, SecretValue | SecretError]

#: Seconds that giving back leases of one backend may take, and one lease of them.
RELEASE, RELEASE_ONE = 30.0, 5.0


class Loader:
    """Asks providers for what the cache wants. Thread-safe.

    An answer takes ``timeout`` s at most, unless another limit is given. ``follow`` is called with
    each new value before the cache has it, and the provider's word for its previous version.
    """

    def __init__(
        self,
        providers: ProviderCache,
        *,
        timeout: float,
        follow: Callable[[SecretKey, SecretValue, str], None],
    ) -> None:
        self._providers = providers
        self._timeout = timeout
        self._follow = follow

    def load(self, refs: Mapping[SecretKey, SecretRef], timeout: float | None = None) -> Answers:
        """Fetch from one backend."""

        def fetch(provider: BaseProvider, timeout: float) -> Answers:
            if len(refs) == 1:
                answers = {
                    key: _accept(provider.fetch(ref, timeout=timeout)) for key, ref in refs.items()
                }
            else:
                fetched = provider.fetch_many(tuple(refs.values()), timeout=timeout)
                answers = {key: _accept(fetched.get(ref)) for key, ref in refs.items()}
            self._have_previous_follow(provider, answers)
            return answers

        return self._ask(refs, fetch, timeout)

    def renew(
        self, key: SecretKey, ref: SecretRef, value: SecretValue
    ) -> SecretValue | SecretError:
        """Prolong the lease of a held value."""

        def prolong(provider: BaseProvider, timeout: float) -> Answers:
            return {key: _accept(provider.renew(ref, value, timeout=timeout))}

        return self._ask((key,), prolong)[key]

    def release(self, leases: Sequence[Lease], limit: float = RELEASE) -> Callable[[], None]:
        """Return what gives back leases of one backend, within ``limit`` s."""
        alias, region = leases[0].key[:2]
        # The one that issued them, though it may be dropped before its work is done.
        issuer = self._providers.held(alias, region)

        def give_back() -> None:
            deadline = time.monotonic() + limit
            for done, lease in enumerate(leases):
                failure: SecretError | None = None
                left = deadline - time.monotonic()
                try:
                    if left <= 0:
                        raise ProviderUnavailable("the time for it was over")
                    provider = issuer or self._providers.get(alias, region)
                    provider.release(lease.ref, lease.value, timeout=min(left, RELEASE_ONE))
                except SecretError as error:
                    failure = without_frames(error)
                except Exception as exc:
                    failure = unexpected(exc, "the provider")
                if failure is None:
                    continue
                outage = isinstance(failure, ProviderUnavailable)
                logger.warning(
                    "%d lease(s), of %s first, could not be given back and end by themselves: %s",
                    len(leases) - done if outage else 1,
                    lease.ref,
                    failure,
                    extra=about(provider=alias, region=region, reference=str(lease.ref)),
                )
                if outage:
                    return

        return give_back

    def _ask(
        self,
        keys: Iterable[SecretKey],
        question: Callable[[BaseProvider, float], Answers],
        timeout: float | None = None,
    ) -> Answers:
        """Put a question about keys of one backend; whatever fails is the answer for each."""
        keys = tuple(keys)
        key = keys[0]
        failure: SecretError
        try:
            provider = self._providers.get(key.alias, key.region)
            limit = self._timeout if timeout is None else timeout
            return question(provider, limit)
        except SecretError as error:
            failure = without_frames(error)
        except BaseException as exc:
            # Not chained, and only its type and place are logged: what a library raises
            # unexpectedly may hold what it was parsing.
            failure = unexpected(exc, "the provider")
            logger.error(
                "Provider %r: %s",
                key.alias,
                failure,
                extra=about(provider=key.alias, region=key.region),
            )
        return dict.fromkeys(keys, failure)

    def _have_previous_follow(self, provider: BaseProvider, answers: Answers) -> None:
        """Fetch ``previous`` before a new current version is shown, where both are read.

        Each has its own TTL. With the new ``SECRET_KEY`` and the fallback of yesterday a process
        would not know the key that it has signed with until now.
        """
        stage = provider.stages.get("previous", "previous")
        for key, answer in answers.items():
            if isinstance(answer, SecretValue) and not key.stage and not key.version:
                self._follow(key, answer, stage)


def _accept(answer: object) -> SecretValue | SecretError:
    """Return a provider's answer if it is one, else the error that it is."""
    if isinstance(answer, SecretError):
        return without_frames(answer)
    if not isinstance(answer, SecretValue):
        return ProviderError(
            f"the provider answered with {type(answer).__name__}, not with a SecretValue"
        )
    if len(answer.value) > MAX_VALUE_SIZE:
        return ProviderError(
            f"the secret is larger than {MAX_VALUE_SIZE} bytes", hint="Store less in one secret."
        )
    ends: object = answer.expires_at
    version: object = answer.version
    if not isinstance(version, str | None):
        return ProviderError(f"the version is of type {type(version).__name__}, not text or None")
    if ends is not None and not (isinstance(ends, int | float) and math.isfinite(ends)):
        return ProviderError("the time at which the value expires is not a finite number")
    return answer
