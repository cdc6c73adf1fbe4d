"""A process's connections to the bus: made from ``FLEET``, and the secret that opens them.

That secret is read without the bus: nothing waits for the log that it opens.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from django.utils.module_loading import import_string

from ..backends import wait_after
from ..exceptions import InvalidProvider, SecretError
from ..pool import DaemonPool
from ..specs import FleetSpec
from .bus import Bus, BusUnavailable

if TYPE_CHECKING:
    from ..resolver import SecretRegistry

logger = logging.getLogger("django_secret_registry.fleet")

T = TypeVar("T")

_local = threading.local()


def busy() -> bool:
    """Whether this thread works for the bus: what it reads must not wait for the bus."""
    return getattr(_local, "busy", False)


@contextmanager
def working() -> Iterator[None]:
    """Have the thread count as :func:`busy` within the block."""
    before, _local.busy = busy(), True
    try:
        yield
    finally:
        _local.busy = before


class Link:
    """Makes buses, shares one among all threads but the listener's, and follows its credential."""

    def __init__(self, registry: SecretRegistry, spec: FleetSpec) -> None:
        self._registry = registry
        self._spec = spec
        self._clock = registry.clock
        self._closed = False
        self._shared: Bus | None = None
        self._left_to_parent: list[object] = []
        self._set_up()

    def _set_up(self) -> None:
        self._lock = threading.Lock()
        self._pool = DaemonPool(1, name="secret-registry-fleet-credential")
        #: When the bus began to refuse its credential, and when that is read anew next.
        self._refused_at: float | None = None
        self._reread_at = 0.0
        self._rereads = 0

    def make(self) -> Bus:
        """Return a bus of the caller's own; raises :class:`InvalidProvider`."""
        try:
            found = import_string(self._spec.backend)
            made = found(**self._spec.options)
        except SecretError:
            raise
        except Exception as exc:
            kind = type(exc).__name__
        else:
            if isinstance(made, Bus):
                return made
            kind = "no Bus"
        # Outside of the except block: the error may repeat a secret of the OPTIONS.
        raise InvalidProvider(
            f"the bus cannot be made from FLEET ({kind})", hint="Run manage.py check."
        )

    @contextmanager
    def shared(self) -> Iterator[Bus]:
        """Have the shared bus to oneself; raises :class:`BusUnavailable` when others keep it."""
        with working():
            if not self._lock.acquire(timeout=2 * Bus.timeout):
                raise BusUnavailable("the bus does not answer")
            try:
                if self._shared is None:
                    self._shared = self.make()
                yield self._shared
            except SecretError:
                self._close_shared()
                raise
            finally:
                if self._closed:
                    self._close_shared()
                self._lock.release()

    def call(self, function: Callable[[Bus], T]) -> T:
        """Return what ``function`` gets of the shared bus; raises what :meth:`shared` raises.

        It is called once more where the first failure may be that of a connection that has been cut
        since it was used: by a restart of the engine, or by whatever forgets idle connections.
        """
        used = self._shared is not None
        try:
            with self.shared() as bus:
                return function(bus)
        except BusUnavailable:
            if not used:
                raise
        with self.shared() as bus:
            return function(bus)

    def close(self) -> None:
        """Close the shared bus; whoever has it does so later."""
        self._closed = True
        if self._lock.acquire(blocking=False):
            self._close_shared()
            self._lock.release()

    def _close_shared(self) -> None:
        made, self._shared = self._shared, None
        if made is not None:
            made.close()

    # -- the credential --------------------------------------------------------------------------

    def refused(self) -> None:
        """Read the credential anew, in the background: the bus has refused it.

        Once a second within ``ROTATION_WINDOW``, as either side may be ahead; then ever less often,
        so that a plainly wrong one costs its provider next to nothing.
        """
        now = self._clock()
        if self._refused_at is None:
            self._refused_at, self._reread_at, self._rereads = now, now, 0
        if now < self._reread_at:
            return
        if now >= self._refused_at + self._registry.config.rotation_window:
            self._rereads += 1
        self._reread_at = now + wait_after(self._rereads or 1)
        self._pool.submit(self._reread, here=False)

    def accepted(self) -> None:
        """Note that the bus takes the credential."""
        self._refused_at = None

    def _reread(self) -> None:
        with working():
            try:
                with self.shared() as bus:
                    containers = bus.credentials
            except SecretError:
                containers = ()
            references_in = self._registry.references_in
            for reference in (*references_in(self._spec.options), *references_in(containers)):
                try:
                    self._registry.refresh(reference)
                except SecretError as error:
                    logger.warning("The credential of the bus cannot be refreshed: %s", error)

    def after_fork(self) -> None:
        """Connect anew in a child: what is open belongs to the parent."""
        self._left_to_parent.append(self._shared)
        self._shared = None
        self._set_up()
