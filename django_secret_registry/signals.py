"""Django signals made from the registry's events. No signal carries a value.

``sender`` is the ``registry``'s class. Receivers run in the thread in which it happened, often one
of a backend's pool; one that raises is logged and disturbs nobody.
"""

from __future__ import annotations

import logging

from django.dispatch import Signal

from .events import Event, Evicted, ProviderBuilt, Rotated
from .resolver import SecretRegistry

logger = logging.getLogger("django_secret_registry.signals")


class SecretSignal(Signal):
    """A signal whose failing receivers are logged by :func:`send` alone.

    Django would log their errors in full, and a receiver that reads the new value may have it in
    its error's message.
    """

    def _log_robust_failure(self, receiver: object, err: Exception) -> None:
        """Do nothing; Django's own hook has no public name."""


#: A held secret's version changed: reference, provider, region, old_version, new_version.
secret_rotated = SecretSignal()
#: A secret left the cache: reference, provider, region, reason, by.
secret_evicted = SecretSignal()
#: A provider instance was built: provider, region, status (``ok`` or ``error``), seconds.
provider_built = SecretSignal()

_SIGNALS = {Rotated: secret_rotated, Evicted: secret_evicted, ProviderBuilt: provider_built}


def send(event: Event) -> None:
    """Send the signal that belongs to ``event``, if there is one."""
    signal = _SIGNALS.get(type(event))
    if signal is None or (isinstance(event, ProviderBuilt) and event.status == "cache_hit"):
        return
    for receiver, failure in signal.send_robust(SecretRegistry, **event._asdict()):
        if isinstance(failure, Exception):
            # The type only; see above.
            logger.error(
                "Receiver %s of %s failed with %s",
                getattr(receiver, "__qualname__", type(receiver).__name__),
                type(event).__name__,
                type(failure).__name__,
            )
