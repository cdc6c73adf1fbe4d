"""A process's side of the fleet: what it tells the others, and what it says of itself."""

from __future__ import annotations

import contextlib
import logging
import operator
import os
import random
import secrets
import socket
import threading
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from ..events import Event, FleetAcknowledged, Rotated
from ..exceptions import SecretError
from ..lifecycle import Cell, SecretInfo
from ..pool import DaemonPool
from ..providers.base import Problem
from ..references import SecretRef
from ..specs import FleetSpec
from . import bus, reports
from .acting import ANY, Actor
from .bus import BusEvent, BusUnavailable
from .lease import PAUSE, Lease
from .link import Link, working
from .listener import Listener, Talk
from .log_reader import LogReader
from .reports import WorkerInfo
from .sent import Sent

if TYPE_CHECKING:
    from ..planning import Text
    from ..resolver import SecretRegistry
    from ..resolving import Resolver

logger = logging.getLogger("django_secret_registry.fleet")

#: Requests to warm that are answered together, and answers that a report names.
_ANSWERS = 256


class Worker:
    """The fleet as one registry sees it. Thread-safe; threads are daemons and end with it.

    No lock is held while the bus is asked, and none is taken on a hit.
    """

    def __init__(self, registry: SecretRegistry, resolver: Resolver, spec: FleetSpec) -> None:
        self._registry = registry
        self._resolver = resolver
        self._spec = spec
        self._clock = registry.clock
        self._closed = False
        self._left_to_parent: list[object] = []
        #: What this process wrote last: who has applied that has applied all that came before.
        self.sent: Sent | None = None
        self._set_up()
        self._actor = Actor(resolver, lease=spec.lease, warm=self._warm)
        self._link = Link(registry, spec)
        self._log = LogReader(
            registry, self._actor, own_name=lambda: self.name, strict=spec.mode == "strict"
        )
        self._lease = Lease(registry, resolver.cache, spec, link=self._link, log=self._log)
        self._unsubscribe = registry.events.subscribe(self._learn)

    def _set_up(self) -> None:
        """Make what no child shares with its parent."""
        self.name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._lock = threading.Lock()
        self._pool = DaemonPool(2, name="secret-registry-fleet-work")
        self._watching = DaemonPool(1, name="secret-registry-fleet-watch")
        self._talk = Talk(self.name, self.report)
        self._listener: Listener | None = None
        self._to_warm: list[BusEvent] = []
        self._answers: dict[str, tuple[int, int]] = {}

    def before_read(self) -> None:
        """Let a read that is no hit go on; see :meth:`.lease.Lease.before_read`."""
        self._lease.before_read()

    # -- listening -------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to listen, in a daemon thread; may be called more than once."""
        with self._lock:
            if self._listener is not None or self._closed:
                return
            listener = Listener(
                link=self._link,
                lease=self._lease,
                log=self._log,
                talk=self._talk,
                lease_seconds=self._spec.lease,
            )
            if not listener.start():  # no threads here: readers read the log
                return
            self._listener = listener
            self._lease.listening = True
        self._lease.publish()

    def stop(self) -> None:
        """End: for a registry that is configured anew, and for the end of the process."""
        with self._lock:
            self._closed = True
        self._unsubscribe()
        self._lease.close()
        self._log.close()
        self._link.close()
        if self._listener is not None:
            self._listener.stop()

    @property
    def listens(self) -> bool:
        """Whether its thread runs; it goes on for a moment after :meth:`stop`."""
        return self._listener is not None and self._listener.alive

    # -- reports ---------------------------------------------------------------------------------

    @property
    def joined(self) -> bool:
        """Whether this process has found its place in the log."""
        return self._log.cursor is not None

    @property
    def lag(self) -> float:
        """Seconds since the whole log was read; ∞: never."""
        return self._clock() - self._lease.read_at

    @property
    def blind(self) -> bool:
        """Whether the lease has run out."""
        return self._lease.over

    def report(self) -> dict[str, str]:
        """Return what this worker says of itself."""
        return reports.fields(
            self._registry.snapshot(),
            kind=reports.kind_of_process(),
            mode=self._spec.mode,
            lag=self.lag,
            blind=self.blind,
            cursor=self._log.cursor,
            answers=self._answers,
        )

    def workers(self, *, heads: bool = False) -> list[WorkerInfo]:
        """Return what all workers last said; asks the bus. ``heads``: without their secrets."""
        return reports.read(self._link.call(lambda bus_: bus_.workers(heads=heads)))

    def elsewhere(self, references: Iterable[str]) -> list[SecretInfo]:
        """Return those of ``references`` that lead somewhere by this process's settings, as absent.

        For what other workers say that they hold. Whatever else they say is left out.
        """
        found = []
        for text in references:
            try:
                asks = self._resolver.planner.plan(text).asks()
            except SecretError:
                continue
            if len(asks) == 1 and str(asks[0].ref) == text:
                found.append(Cell(asks[0].key, asks[0].ref, jitter=1.0).info(0.0, 0.0))
        return found

    def probe(self, databases: Collection[str]) -> list[Problem]:
        """Ask the engine what keeps it from carrying the bus, if it may be asked.

        A bus that lies in a database of the project only if that is among ``databases``. Raises
        :class:`SecretError`.
        """
        with working():
            made = self._link.make()
            if made.database is not None and made.database not in databases:
                return []
            try:
                return [*made.probe()]
            except BusUnavailable:
                raise
            except Exception as exc:
                failure = made.failure(exc)
                if failure is None:
                    raise
            finally:
                made.close()
            raise failure

    def acknowledged(self, sent: Sent) -> None:
        """Tell how long the fleet took to apply events."""
        self._registry.events.tell(FleetAcknowledged("", "", self._clock() - sent.at))

    def watch(self, sent: Sent) -> None:
        """Wait in the background until all have applied it, so that the metrics know how long."""
        self._watching.submit(lambda: self._watch(sent), here=False)

    def _watch(self, sent: Sent) -> None:
        with contextlib.suppress(SecretError):
            sent.wait(reports.LIFETIME)

    # -- telling the others ----------------------------------------------------------------------

    def send(self, kind: str, wheres: Iterable[tuple[str, ...]] = ((),)) -> Sent:
        """Write an event for each place; return what their acknowledgements are asked with.

        Raises :class:`BusUnavailable`; blocks for some seconds then.
        """
        cursors, nonces, at = [], [], self._clock()
        for where in wheres:
            event = BusEvent.new(kind, *where, origin=self.name)
            cursors.append(self._link.call(operator.methodcaller("append", event)))
            nonces.append(event.nonce)
        sent = Sent(self, tuple(cursors), tuple(nonces), at)
        with self._lock:
            if cursors and not (self.sent is not None and self.sent.last.reached(sent.last)):
                self.sent = sent
        return sent

    def tell(
        self,
        action: str,
        ref: Text | None = None,
        *,
        provider: str | None = None,
        region: str | None = None,
    ) -> Sent:
        """Have all others ``evict``, ``refresh`` or ``warm`` secrets, an alias, or everything.

        The same names as for ``registry.evict``; raises as :meth:`send` does.
        """
        if ref is not None:
            keys = self._resolver.keys(ref, region)
            return self.send(action, dict.fromkeys(tuple(key[:4]) for key in keys))
        if provider is not None:
            where = self._resolver.region(provider, region)
            kind = action if action == bus.WARM else f"{action}_provider"
            return self.send(kind, [(provider, ANY if where is None else where)])
        return self.send(action if action == bus.WARM else f"{action}_all")

    def _learn(self, event: Event) -> None:
        """Tell the others of a rotation, unless they were the ones who told of it."""
        if not isinstance(event, Rotated) or self._closed:
            return
        ref = SecretRef.parse(event.reference)
        identity = event.provider, event.region, ref.project, ref.name
        if self._actor.learned(identity, self._clock()):
            return
        self._pool.submit(lambda: self._tell_rotated(identity), here=False)

    def _tell_rotated(self, identity: tuple[str, ...]) -> None:
        try:
            self.send(bus.ROTATED, [identity])
        except SecretError as error:
            logger.info("The fleet was not told of a rotation: %s", error)

    # -- warming ---------------------------------------------------------------------------------

    def warm_all(self) -> Sent:
        """Have every worker warm itself in the background, this one as well; as :meth:`send`."""
        sent = self.send(bus.WARM)
        self._warm(BusEvent.new(bus.WARM, origin=self.name))
        return sent

    def _warm(self, event: BusEvent) -> None:
        """Warm what settings and ``SECRETS`` name, or the part of it that ``event`` names.

        Events that come before that begins are answered together, so that a hundred of them are one
        warm-up.
        """
        with self._lock:
            first = not self._to_warm
            if len(self._to_warm) < _ANSWERS:
                self._to_warm.append(event)
        if first:
            self._pool.submit(self._warm_now, here=False)

    def _warm_now(self) -> None:
        threading.Event().wait(random.uniform(0, PAUSE))  # noqa: S311
        with self._lock:
            events, self._to_warm = self._to_warm, []
        known = [*self._registry.references().values()]
        texts = [self._resolver.naming(known, event.meaning[1:]) for event in events]
        if len(texts) > 1 and not self._closed:  # in batches, and each secret once
            self._registry.warm(dict.fromkeys(text for some in texts for text in some))
        answers = dict(self._answers)
        for event, some in zip(events, texts, strict=True):
            if self._closed:  # configured anew meanwhile: what is warmed would be another's
                return
            results = self._registry.warm(some)
            failed = sum(result.failed for result in results)
            answers[event.nonce] = len(results) - failed, failed
        self._answers = dict([*answers.items()][-_ANSWERS:])
        self._talk.soon()

    # -- processes -------------------------------------------------------------------------------

    def after_fork(self) -> None:
        """Go on in a child from the parent's place in the log, with connections of its own."""
        self._left_to_parent.append(self._listener)
        self._set_up()
        self._link.after_fork()
        self._log.after_fork()
        self._lease.after_fork()
