"""The registry: entry or reference → policy → provider → cache → value.

:class:`SecretRegistry` is the one object that every edge (admin, commands, tag, live settings,
metrics) talks to. It knows no Django settings: whoever reads them calls :meth:`configure`.
"""

# Annotations are evaluated here, which takes less time at start-up: see events.py.
import atexit
import functools
import logging
import math
import os
import random
import socket
import threading
import weakref
from collections.abc import Callable, Container, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from .clock import Clock, steady, wall
from .events import Events, Rotated
from .exceptions import (
    InvalidReference,
    ProviderUnavailable,
    SecretError,
    SecretNotFound,
    SecretNotReady,
)
from .lifecycle import SecretInfo, Slot
from .logs import about
from .overrides import Overrides
from .planning import Text
from .provider_cache import ProviderInfo
from .providers.base import BaseProvider
from .references import SecretRef
from .resolving import Resolver
from .rotation import Reading
from .specs import EntrySpec, RegistryConfig
from .values import SecretValue
from .warming import AT_ONCE, WarmResult, warm

if TYPE_CHECKING:
    from .fleet.worker import Worker

logger = logging.getLogger("django_secret_registry.resolver")

_REQUIRED: Any = object()

#: Seconds over which the workers of a fleet spread their warm-up.
WARM_UP_SPREAD = 2.0


class Snapshot(NamedTuple):
    """What this process holds, without values. ``taken`` and ``started`` are POSIX seconds."""

    host: str
    pid: int
    started: float
    taken: float
    providers: tuple[ProviderInfo, ...]
    secrets: tuple[SecretInfo, ...]


class Readiness(NamedTuple):
    """Whether this process can serve: nothing is ``missing`` (references), and it has ``joined``.

    ``joined``: it has found its place in the fleet's log, if there is one. A bus that goes down
    later takes no worker out of service.
    """

    missing: tuple[str, ...]
    joined: bool = True

    def __bool__(self) -> bool:
        return self.joined and not self.missing


class SecretRegistry:
    """Resolves references through cached providers. One per process: ``registry``.

    Every method may be called from any thread. ``aget`` never blocks the event loop; the others
    block while they fetch.
    """

    def __init__(self, *, clock: Clock = steady, wall: Clock = wall) -> None:
        self.clock = clock
        self.events = Events()
        self.configured = False
        #: Finished values by text or ``Derived``; see :class:`~.lifecycle.Slot` for how to read it.
        self.slots: dict[Any, Slot] = {}
        #: Until when, by ``clock``, a hit may serve without a look at the fleet's bus. A reader
        #: compares it besides the slot's own limit; without a fleet it never ends.
        self.serves_until = math.inf
        #: This process's side of the fleet; ``None`` without one.
        self.fleet: Worker | None = None
        self._wall = wall
        self._started = wall()
        self._discover: Callable[[], Mapping[str, str]] = dict
        self._discover_optional: Callable[[], Container[str]] = tuple
        #: Finds the references in a value of settings, at any depth; see :meth:`set_discovery`.
        self.references_in: Callable[[object], Iterable[str]] = lambda value: ()
        self._overrides: Overrides | None = None
        #: Whether background work has begun in this process; see :meth:`start`.
        self.started = False
        self._warming_up = False
        self._start_lock = threading.Lock()
        self._fork_lock = threading.Lock()
        self._pid = os.getpid()
        self._starters: tuple[Callable[[], None], ...] = ()
        self._resolver = self._make_resolver(RegistryConfig())
        _registries.add(self)

    # -- set-up ----------------------------------------------------------------------------------

    def configure(self, config: RegistryConfig) -> None:
        """Start over with ``config``, with empty caches. Does no I/O and imports no backend.

        A fetch that is under way serves those who wait for it, and nobody after them.
        """
        before, self._resolver = self._resolver, self._make_resolver(config)
        self.slots = self._resolver.cache.slots if self._overrides is None else {}
        self.configured = True
        before.retire()
        self._join_fleet()
        self._begin_warm_up()

    def _join_fleet(self) -> None:
        before, self.fleet, self.serves_until = self.fleet, None, math.inf
        if before is not None:
            before.stop()
            self.serves_until = math.inf  # whatever it said last
        spec = self.config.fleet
        if spec is None or self.offline:
            return
        from .fleet.worker import Worker

        self.fleet = Worker(self, self._resolver, spec)
        if self.started:
            self.fleet.start()

    def _make_resolver(self, config: RegistryConfig) -> Resolver:
        return Resolver(config, events=self.events, clock=self.clock, wall=self._wall)

    @property
    def config(self) -> RegistryConfig:
        """What the registry is configured with."""
        return self._resolver.config

    def set_discovery(
        self,
        discover: Callable[[], Mapping[str, str]],
        optional: Callable[[], Container[str]] = tuple,
        within: Callable[[object], Iterable[str]] = lambda value: (),
    ) -> None:
        """Name the function that finds references in settings: where they stand → their text.

        ``optional`` finds the texts that have a default there, and so need not exist; ``within``
        those in one value, at any depth.
        """
        self._discover = discover
        self._discover_optional = optional
        self.references_in = within

    @property
    def offline(self) -> bool:
        """Whether nothing is ever fetched."""
        return self.config.offline

    # -- reading ---------------------------------------------------------------------------------

    def get(
        self,
        ref: Text,
        default: Any = _REQUIRED,
        *,
        region: str | None = None,
    ) -> Any:
        """Return the current value: ``SecretStr``, ``SecretBytes`` (``as=``) or a MAP's dict.

        ``default`` is returned when the secret is not found, and only then. Fetches when nothing is
        held (``FETCH_TIMEOUT`` at most). Raises :class:`SecretError`; ``TypeError`` for a value
        given as a reference.
        """
        try:
            slot, now = self.slots[ref], self.clock()
            if now < slot.until and now < self.serves_until and region is None:
                slot.hits += 1
                return slot.value
        except KeyError:
            pass
        try:
            if self._overrides is not None:
                return self._answer(self._overrides, ref)
            return self._readable().get(ref, region)
        except SecretNotFound:
            if default is _REQUIRED:
                raise
            return default

    async def aget(
        self,
        ref: Text,
        default: Any = _REQUIRED,
        *,
        region: str | None = None,
    ) -> Any:
        """Do as :meth:`get` without ever blocking the event loop or fetching in its thread."""
        slot, now = self.slots.get(ref), self.clock()
        if slot is not None and now < slot.until and now < self.serves_until and region is None:
            slot.hits += 1
            return slot.value
        try:
            if self._overrides is not None:
                return self._answer(self._overrides, ref)
            return await self._readable().aget(ref, region)
        except SecretNotFound:
            if default is _REQUIRED:
                raise
            return default

    def fetch(self, ref: str | SecretRef, *, region: str | None = None) -> SecretValue:
        """Return the value with its version and times, from the cache like :meth:`get`."""
        if self._overrides is None:
            return self._readable().fetch(ref, region)
        value = self._answer(self._overrides, ref)
        if not isinstance(value, str | bytes):
            raise InvalidReference("a MAP has several secrets", hint="Use registry.get.")
        return SecretValue(value, fetched_at=self._wall())

    def together(self, texts: Iterable[Text]) -> Reading:
        """Return the values of ``texts``; of one secret they come from one version.

        For what has to fit together: user and password of one connect. Raises as :meth:`get` does,
        except for what is not found.
        """
        if self._overrides is None:
            return self._readable().together(texts)
        values: dict[Text, Any] = {}
        for text in texts:
            try:
                values[text] = self._answer(self._overrides, text)
            except SecretNotFound as error:
                values[text] = error
        return Reading(values, {})

    def refetch(self, reading: Reading, *, wait: bool = True) -> None:
        """Fetch what the caller found wrong, unless another version has replaced it meanwhile.

        Callers share the fetches. Raises the error of the first attempt that fails; without
        ``wait`` it only begins them.
        """
        if reading.held:
            self._usable().refetch(reading, wait=wait)

    def reads(self, text: Text, rotated: Rotated) -> bool:
        """Whether ``text``, a reference or an entry, is made of the secret that has rotated."""
        return self._resolver.reads(text, rotated)

    def get_provider(self, alias: str, region: str | None = None) -> BaseProvider:
        """Return the shared provider instance of ``alias``, built if need be.

        The alias' ``REGIONS`` and ``RESIDENCY`` hold here too.
        """
        return self._usable().provider(alias, region)

    def entry(self, name: str) -> EntrySpec | None:
        """Return the entry of that name, or ``None``."""
        return self.config.entries.get(name)

    @property
    def overridden(self) -> bool:
        """Whether a test overrides secrets: nothing but what it gives can be read."""
        return self._overrides is not None

    def _answer(self, overrides: Overrides, ref: Text) -> Any:
        return overrides.get(ref, self.config, self._resolver.planner.spelling)

    def _usable(self) -> Resolver:
        """Return what secrets are read with; raise where nothing may be fetched at all."""
        if self._overrides is not None:
            raise _overridden()
        return self._configured()

    def _readable(self) -> Resolver:
        """Return what secrets are read with, once the fleet has let this read go on."""
        resolver = self._usable()
        if self.fleet is not None:
            self.fleet.before_read()
        return resolver

    def _configured(self) -> Resolver:
        if self._pid != os.getpid():
            self._notice_fork()
        if not self.configured:
            raise SecretNotReady(
                "the secret registry is not configured yet",
                hint='Put "django_secret_registry" into INSTALLED_APPS (first) and call'
                " django.setup() before secrets are read.",
            )
        return self._resolver

    # -- refreshing and evicting -----------------------------------------------------------------

    def refresh(
        self,
        ref: Text | None = None,
        *,
        provider: str | None = None,
        region: str | None = None,
        fleet: bool = False,
    ) -> None:
        """Fetch ``ref`` now, keeping the old value until the new one is there.

        Raises the error of the attempt; the held value goes on serving then. With ``provider``
        instead: build its client anew at once; the old one serves until the new one is there, and
        held secrets stay. ``fleet``: every worker does the same, once it worked here; raises
        :class:`~.fleet.bus.BusUnavailable` if they cannot be told.
        """
        if (ref is None) == (provider is None):
            raise TypeError("refresh takes a reference, or provider=")
        others = self._others() if fleet else None
        if provider is not None:
            self._usable().provider(provider, region, anew=True)
        if ref is not None:
            self._usable().refresh(ref, region)
        if others is not None:
            others.tell("refresh", ref, provider=provider, region=region)

    def evict(
        self,
        ref: str | SecretRef | None = None,
        *,
        provider: str | None = None,
        region: str | None = None,
        all: bool = False,  # noqa: A002 - the word that an operator looks for
        by: str = "",
        fleet: bool = False,
    ) -> int:
        """Forget secrets of this process now; return how many were held.

        By reference: every version and stage of it, unless it names one. By ``provider`` and
        ``region``: its secrets and its client. ``all=True``: everything. ``by`` names who asked.
        ``fleet``: every worker forgets them, all versions and stages; raises
        :class:`~.fleet.bus.BusUnavailable` if they cannot be told, with this process's own gone.
        """
        if (ref is not None) + (provider is not None) + all != 1:
            raise TypeError("evict takes a reference, or provider=, or all=True")
        resolver, others = self._configured(), self._others() if fleet else None
        if ref is not None:
            gone = resolver.evict(ref, region, by=by)
        else:
            gone = resolver.evict_provider(provider, region, by=by)
        if others is not None:
            others.tell("evict", ref, provider=provider, region=region)
        return gone

    def _others(self) -> "Worker":
        self._configured()
        if self.fleet is None:
            raise SecretError(
                "there is no fleet to be told", hint='Write "FLEET" into SECRET_REGISTRY.'
            )
        return self.fleet

    # -- warming ---------------------------------------------------------------------------------

    def references(self) -> dict[str, str]:
        """Return every reference of settings and ``SECRETS``: where it stands → its text."""
        return {**self._discover(), **self.config.named}

    def warm(
        self,
        refs: Iterable[str] | None = None,
        *,
        max_workers: int = AT_ONCE,
        providers: Iterable[str] | None = None,
        fail_fast: bool = False,
        on_result: Callable[[WarmResult], None] | None = None,
    ) -> list[WarmResult]:
        """Fetch ``refs`` (``None``: all of settings and ``SECRETS``) where they are not fresh.

        In batches where the backend has them, ``max_workers`` at once across all backends. Returns
        a result per reference and raises nothing for a secret; see :func:`.warming.warm`.
        """
        if isinstance(refs, str):
            raise TypeError("warm takes a list of references")
        wanted = self.references().values() if refs is None else refs
        resolver = self._configured()
        only = None if providers is None else frozenset(providers)
        optional = functools.cache(self._discover_optional)  # looks through all settings
        items = resolver.warmables(wanted, only, optional)
        if self._overrides is not None:
            items = (item._replace(ask=None, error=_overridden()) for item in items)
        return warm(
            items,
            resolver.cache.prefetch,
            max_workers=max_workers,
            fail_fast=fail_fast,
            on_result=on_result,
        )

    def start(self) -> None:
        """Begin background work in this process; may be called more than once.

        Call it in gunicorn's ``post_fork``, in an ASGI lifespan, in Celery's
        ``worker_process_init``; else the first request does it. A management command never does.
        With ``WARM_UP`` the process warms itself, in a daemon thread, as soon as it is configured:
        without ``--preload`` a ``post_fork`` comes before Django is set up.
        """
        with self._start_lock:
            if self.started:
                return
            self.started = True
            starters = self._starters
        if self.fleet is not None:  # first, so that what is warmed is not due again as it joins
            self.fleet.start()
        for begin in starters:
            begin()
        self._begin_warm_up()

    def on_start(self, begin: Callable[[], None]) -> None:
        """Have ``begin`` called when background work begins, at once if it already has."""
        with self._start_lock:
            if begin in self._starters:
                return
            self._starters = (*self._starters, begin)
            started = self.started
        if started:
            begin()

    def _begin_warm_up(self) -> None:
        """Warm this process in the background, once, when it is both started and configured."""
        with self._start_lock:
            if self._warming_up or not (self.started and self.configured):
                return
            self._warming_up = True
        if self.config.warm_up and not self.config.offline:
            threading.Thread(
                target=self._warm_up, name="secret-registry-warm-up", daemon=True
            ).start()

    def _warm_up(self) -> None:
        # A fleet that is deployed at once must not ask for everything in the same instant.
        threading.Event().wait(random.uniform(0, WARM_UP_SPREAD))  # noqa: S311
        if not self.config.warm_up:  # it was configured anew meanwhile, as override_settings does
            return
        for result in self.warm():
            if result.failed:
                logger.warning(
                    "Warm-up of %s failed: %s",
                    result.reference,
                    result.error,
                    extra=about(
                        reference=result.reference,
                        provider=result.provider,
                        region=result.region,
                        outcome=result.outcome,
                    ),
                )

    def ready(self) -> Readiness:
        """Return whether all that settings and ``SECRETS`` name is held; for a readiness probe.

        What does not exist counts as held only where every setting that names it has a default.
        """
        resolver = self._configured()
        texts, optional = dict.fromkeys(self.references().values()), self._discover_optional()
        shown = resolver.planner.shown
        return Readiness(
            tuple(
                shown(text) for text in texts if not resolver.holds(text, optional=text in optional)
            ),
            joined=self.fleet is None or self.fleet.joined,
        )

    # -- looking ---------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """Return metadata of this process's providers and secrets, frozen, without values."""
        resolver = self._resolver
        return Snapshot(
            host=socket.gethostname(),
            pid=os.getpid(),
            started=self._started,
            taken=self._wall(),
            providers=resolver.providers.snapshot(process_region=resolver.config.region),
            secrets=resolver.cache.snapshot(resolver.known(self.references())),
        )

    def redact(self, text: str) -> str:
        """Return ``text`` with each value that is held now masked; see :mod:`.redaction`.

        As it is, as ``repr``, JSON and HTML write it, percent-encoded, and in base64; so is each
        string of a JSON document, but for what connections have besides their password. Values of
        less than 8 characters only where they are all of ``text``. Fetches nothing, waits for
        nobody.
        """
        return self._resolver.cache.redact(text)

    def drain(self) -> dict[tuple[str, str, str], int]:
        """Return reads since the last drain by ``(alias, region, status)``, for metrics."""
        return self._resolver.cache.drain()

    # -- tests -----------------------------------------------------------------------------------

    def override(self, values: Mapping[str, Any]) -> Callable[[], None]:
        """Answer from ``values`` (reference or entry → value) only; return the way back.

        What is not in ``values`` raises instead of being fetched. Overrides nest; the inner one
        adds to the outer one. For the whole process, as ``override_settings`` is.
        """
        before = self._overrides
        self._overrides = Overrides(values, before)
        self.slots = {}

        def restore() -> None:
            self._overrides = before
            self.slots = self._resolver.cache.slots if before is None else {}

        return restore

    # -- processes -------------------------------------------------------------------------------

    def close(self) -> None:
        """Give leases back, for :data:`~.resolving.EXIT` s at most, and close the providers.

        For the end of the process.
        """
        if self._pid == os.getpid():  # the parent's are not ours to close
            if self.fleet is not None:
                self.fleet.stop()
            self._resolver.close()

    def _notice_fork(self) -> None:
        """Do what has to be done in a child that nobody told of the fork.

        uWSGI forks its workers past ``os.register_at_fork``: the threads of the pools would be
        waited for that did not come along, and connections shared with siblings. A hit needs none
        of that, so only what goes beyond the slots asks for the pid.
        """
        with self._fork_lock:
            if self._pid != os.getpid():
                self._after_fork()

    def _after_fork(self) -> None:
        self._resolver.after_fork()
        if self.fleet is not None:
            self.fleet.after_fork()
        self._start_lock = threading.Lock()
        self.started = self._warming_up = False
        self._started = self._wall()
        self._pid = os.getpid()


def _overridden() -> ProviderUnavailable:
    return ProviderUnavailable(
        "override_secrets is active: nothing but what it holds can be read",
        hint="Use registry.get, and name the reference in override_secrets({...}).",
    )


_registries: weakref.WeakSet[SecretRegistry] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for known in list(_registries):
        known._after_fork()


def _at_exit() -> None:
    for known in list(_registries):
        known.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)

#: The registry of this process.
registry: SecretRegistry = SecretRegistry()
