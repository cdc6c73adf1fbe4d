"""What the AWS backends share that answer to several names in one call."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ..exceptions import ProviderUnavailable, SecretError
from ..logs import about
from ..references import SecretRef
from ..values import SecretValue
from ._aws import THROTTLED, AWSProvider, code_of

logger = logging.getLogger("django_secret_registry.providers.aws")

Answers = dict[SecretRef, SecretValue | SecretError]


class BatchedAWSProvider(AWSProvider):
    """An AWS backend with batches; a subclass has ``ask_batch`` and ``read_batch``."""

    #: Whether the log already says that batches are refused.
    _told = False

    def ask_batch(self, refs: Sequence[SecretRef], timeout: float) -> Any:
        """Return what one call answers about ``refs``; raises any ``SecretError``."""
        raise NotImplementedError

    def read_batch(self, refs: Sequence[SecretRef], answer: Mapping[str, Any]) -> Answers:
        """Return what that answer tells of ``refs``; what it says nothing of is left out."""
        raise NotImplementedError

    def fetch_many(self, refs: Sequence[SecretRef], *, timeout: float) -> Answers:
        """Fetch what has neither version nor stage in one call, and the rest one by one.

        So is what the batch has no answer for: all of it when the batch is denied or throttled.
        The first that finds AWS unavailable ends it for the rest.
        """
        deadline = time.monotonic() + timeout
        batch = [ref for ref in refs if not ref.version and not ref.stage]
        answers = self._fetch_batch(batch, timeout) if len(batch) > 1 else {}
        outage: ProviderUnavailable | None = None
        for ref in refs:
            if ref in answers:
                continue
            if outage is not None:
                answers[ref] = self.error(
                    ProviderUnavailable, outage.message, ref, hint=outage.hint
                )
                continue
            try:
                answers[ref] = self.fetch(ref, timeout=deadline - time.monotonic())
            except SecretError as error:
                answers[ref] = error
                if isinstance(error, ProviderUnavailable):
                    outage = error
        return answers

    def _fetch_batch(self, refs: Sequence[SecretRef], timeout: float) -> Answers:
        try:
            answer = self.ask_batch(refs, timeout)
        except ProviderUnavailable as error:
            if code_of(error.__cause__) in THROTTLED:
                return {}
            return {
                ref: self.error(ProviderUnavailable, error.message, ref, hint=error.hint)
                for ref in refs
            }
        except SecretError as error:
            if not self._told:
                self._told = True
                logger.warning(
                    "A batch was refused, secrets are fetched one by one: %s",
                    error,
                    extra=about(provider=self.alias, region=self.region),
                )
            return {}
        return self.read_batch(refs, answer)
