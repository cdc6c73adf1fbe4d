"""``(alias, region)`` → provider: built once, shared, kept for a TTL."""

# Annotations are evaluated here, which takes less time at start-up: see events.py.
import contextlib
import copy
import math
import re
import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from django.utils.module_loading import import_string

from .clock import Clock, steady
from .events import Events, ProviderBuilt
from .exceptions import (
    InvalidProvider,
    InvalidReference,
    ProviderDoesNotExist,
    SecretError,
    SecretNotFound,
)
from .providers.base import BaseProvider, Fence, Members
from .references import LOCATOR, NO_REGION
from .residency import Residency
from .values import SecretBytes, SecretStr

ProviderKey = tuple[str, str]

#: A backend of this package; its module is called as the extra that brings its library.
_OURS = re.compile(r"django_secret_registry\.providers\.([a-z]+)\.")

#: Clients that one alias may have at a time. More regions than any cloud has (AWS has 39, Google 42
#: in 2026) come from references of users, each of which would otherwise cost a client for ever.
MAX_REGIONS = 64


class ProviderSpec(NamedTuple):
    """One alias of ``PROVIDERS``. ``ttl`` in seconds; ``None`` or 0: for the process's life.

    ``backend`` is imported when it is first needed. An alias with a ``problem`` raises
    :class:`InvalidProvider` whenever it is used, and disturbs no other alias.
    """

    alias: str
    backend: str
    region: str = ""
    ttl: float | None = None
    options: Mapping[str, Any] = MappingProxyType({})
    fence: Fence = Fence()
    residency: Residency = Residency()
    problem: str = ""

    def __repr__(self) -> str:  # OPTIONS may hold a secret
        return f"ProviderSpec({self.alias!r}, {self.backend!r}, region={self.region!r})"

    @property
    def backend_class(self) -> type[BaseProvider]:
        """The backend's class; :class:`InvalidProvider` when it cannot be imported or is none."""
        if self.problem:
            raise InvalidProvider(
                self.problem, provider=self.alias, hint="Run manage.py check for all mistakes."
            )
        failure = ""
        try:
            backend = import_string(self.backend)
        except ImportError as exc:
            raise InvalidProvider(
                f"BACKEND {self.backend!r} cannot be imported", provider=self.alias
            ) from exc
        except Exception as exc:
            failure = type(exc).__name__
        if failure:  # of the module's own code, whose text may show what it read: not chained
            raise InvalidProvider(
                f"BACKEND {self.backend!r} cannot be imported: its module fails with {failure}",
                provider=self.alias,
            )
        if not (isinstance(backend, type) and issubclass(backend, BaseProvider)):
            raise InvalidProvider(
                f"BACKEND {self.backend!r} is no subclass of BaseProvider", provider=self.alias
            )
        return backend

    def effective_region(self, *asked: str | None, process: str = "") -> str:
        """Return the first region given: of ``asked``, of the alias, of the process if regional.

        ``None`` and ``""`` mean "not given"; ``"-"`` ends the search with no region. Raises
        :class:`InvalidReference` for a region that could bend a host name.
        """
        candidates = [*asked, self.region]
        if self.backend_class.regional:
            candidates.append(process)
        region = next((candidate for candidate in candidates if candidate), NO_REGION)
        if region == NO_REGION:
            return ""
        if not LOCATOR.match(region):
            raise InvalidReference(
                "the region is not of the allowed form",
                provider=self.alias,
                hint="It begins with a letter or digit; then letters, digits and . _ - may follow.",
            )
        return region

    @property
    def installation(self) -> str:
        """What to do when the backend's library is not there: an extra, if it is one of ours."""
        ours = _OURS.match(self.backend)
        what = f"django-secret-registry[{ours[1]}]" if ours else "what this backend needs"
        return f"Install {what}."

    def build(self, region: str, members: Callable[[str], Members] | None = None) -> BaseProvider:
        """Return a new instance for ``region``; one made of other aliases asks them by ``members``.

        Raises what the provider raises on purpose, and :class:`InvalidProvider` for all else; also
        for a secret in OPTIONS that does not exist: it is not the one that somebody asks for.
        """
        where = {"provider": self.alias, "region": region}
        try:
            own: dict[str, Any] = {"alias": self.alias, "region": region}
            if members is not None and self.backend_class.composite:
                own["members"] = members(self.alias)
            return self.backend_class(**own, **self.options)
        except SecretNotFound as error:
            raise InvalidProvider(
                "the provider needs a secret that does not exist", **where, hint=str(error)
            ) from error
        except SecretError:
            raise
        except ImportError as exc:
            raise InvalidProvider(
                f"the library {exc.name or 'of the backend'!r} is not installed",
                **where,
                hint=self.installation,
            ) from exc
        except Exception as exc:
            cause: Exception | None = exc
            message = f"the provider cannot be built from its OPTIONS: {type(exc).__name__}"
            hint = "What it says is the cause of this error; a command shows it with --traceback."
        # Outside of the except block: neither cause nor context may repeat a secret of the OPTIONS.
        if _hold_secret(self.options):
            cause, hint = None, "The OPTIONS hold a secret: no more is shown."
        try:
            raise InvalidProvider(message, **where, hint=hint) from cause
        finally:
            del cause  # its traceback holds this frame


def _hold_secret(options: Any) -> bool:
    """Whether a secret stands anywhere in OPTIONS, or cannot even be read."""
    try:
        if isinstance(options, Mapping):
            return any(_hold_secret(options[name]) for name in options)
        if isinstance(options, list | tuple):
            return any(map(_hold_secret, options))
    except SecretError:
        return True
    return isinstance(options, SecretStr | SecretBytes)


class ProviderInfo(NamedTuple):
    """What can be seen of one provider. Times in seconds; ``age`` is ``None``: not built."""

    alias: str
    region: str
    backend: str
    age: float | None
    ttl: float | None
    builds: int
    failures: int
    hits: int
    last_error: str


class _Instance(NamedTuple):
    provider: BaseProvider
    built: float
    ends: float


class _Build:
    """A build in progress: the others wait for it and share its provider or its error."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.thread = threading.get_ident()
        self.provider: BaseProvider | None = None
        self.error: SecretError | None = None
        self.cause: BaseException | None = None


class _Tally:
    __slots__ = ("builds", "failures", "hits", "last_error")

    def __init__(self, last_error: str = "") -> None:
        self.builds = self.failures = self.hits = 0
        self.last_error = last_error


class ProviderCache:
    """Shares one provider instance per ``(alias, region)``. Thread-safe.

    ``members`` gives an alias that is made of others what it asks them through.

    The lock guards dictionaries only; builds run outside it, so that no key waits for another.
    An instance that leaves the cache is not closed here: whoever still uses it goes on, and it
    closes itself when its last reference goes (``BaseProvider.__del__``).
    """

    def __init__(
        self,
        specs: Mapping[str, ProviderSpec],
        *,
        events: Events | None = None,
        clock: Clock = steady,
        members: Callable[[str], Members] | None = None,
    ) -> None:
        self._specs = specs
        self._members = members
        self._events = events or Events()
        self._clock = clock
        self._lock = threading.Lock()
        self._instances: dict[ProviderKey, _Instance] = {}
        self._builds: dict[ProviderKey, _Build] = {}
        self._tallies: dict[ProviderKey, _Tally] = {}
        self._left_to_parent: list[object] = []

    def spec(self, alias: str) -> ProviderSpec:
        """Return the alias' specification, or raise :class:`ProviderDoesNotExist`."""
        try:
            return self._specs[alias]
        except KeyError:
            pass
        # The text is not repeated: what stands before "://" may be part of a secret.
        raise ProviderDoesNotExist(
            "no provider of that name is configured",
            hint=f"PROVIDERS has: {', '.join(sorted(self._specs)) or 'none'}.",
        )

    def get(self, alias: str, region: str, *, anew: bool = False) -> BaseProvider:
        """Return the shared provider of ``alias`` for this effective region (``""``: none).

        The caller who finds none builds it; everyone who asks meanwhile waits and gets the same
        instance, or an error like the builder's. A failed build is not remembered. With ``anew``
        it is built in any case, and takes the place of the old one, which serves until then.
        """
        key = (alias, region)
        spec = self.spec(alias)
        build = known = _Build()
        with self._lock:
            gone = self._drop_expired(self._clock())
            tally = self._tally(key)
            instance = None if anew else self._instances.get(key)
            if anew:
                self._builds[key] = build
            elif instance is None:
                known = self._builds.setdefault(key, build)
            else:
                tally.hits += 1
                self._instances[key] = self._instances.pop(key)  # the one that was used last
        del gone
        if instance is not None:
            self._events.tell(ProviderBuilt(alias, region, "cache_hit"))
            return instance.provider
        if known is build:
            return self._build(key, spec, build, tally)
        return self._join(key, known, tally)

    def held(self, alias: str, region: str) -> BaseProvider | None:
        """Return the instance if there is one; it is neither built nor counted as used."""
        with self._lock:
            instance = self._instances.get((alias, region))
        return None if instance is None else instance.provider

    def _build(
        self, key: ProviderKey, spec: ProviderSpec, build: _Build, tally: _Tally
    ) -> BaseProvider:
        started = self._clock()
        gone = []  # what leaves may close: outside the lock
        try:
            build.provider = spec.build(key[1], self._members)
        except SecretError as error:
            build.error = error.copy(provider=key[0], region=key[1])
            build.cause = error.__cause__
        finally:
            now = self._clock()
            with self._lock:
                # An eviction during the build takes the build away: its provider serves those who
                # asked before, and is not kept.
                kept = self._builds.get(key) is build
                if kept:
                    del self._builds[key]
                if build.provider is None:
                    tally.failures += 1
                    tally.last_error = str(build.error or "")
                else:
                    tally.builds += 1
                    tally.last_error = ""
                    if kept:
                        ends = now + spec.ttl if spec.ttl else math.inf
                        gone.append(self._instances.pop(key, None))
                        crowd = [other for other in self._instances if other[0] == key[0]]
                        if len(crowd) >= MAX_REGIONS:
                            gone.append(self._instances.pop(crowd[0]))
                        self._instances[key] = _Instance(build.provider, now, ends)
            del gone
            build.done.set()
            status = "error" if build.provider is None else "ok"
            self._events.tell(ProviderBuilt(*key, status, now - started))
        return self._built(key, build)

    def _join(self, key: ProviderKey, build: _Build, tally: _Tally) -> BaseProvider:
        self.refuse_cycle(*key)
        build.done.wait()
        if build.provider is not None:
            with self._lock:
                tally.hits += 1
        status = "error" if build.provider is None else "cache_hit"
        self._events.tell(ProviderBuilt(*key, status))
        return self._built(key, build)

    def _built(self, key: ProviderKey, build: _Build) -> BaseProvider:
        """Return what came of a build, or raise an error like the builder's, a new object each."""
        if build.provider is not None:
            return build.provider
        if build.error is None:  # the builder was interrupted (KeyboardInterrupt, SystemExit)
            raise InvalidProvider("the build was interrupted", provider=key[0], region=key[1])
        raise build.error.copy() from build.cause

    def refuse_cycle(self, alias: str, region: str) -> None:
        """Raise :class:`InvalidProvider` if this thread is building that very provider now.

        It would wait for itself otherwise, or for a fetch that waits for it.
        """
        build = self._builds.get((alias, region))
        if build is not None and build.thread == threading.get_ident():
            raise InvalidProvider(
                "the provider's OPTIONS need a secret that the provider itself must fetch",
                provider=alias,
                region=region,
            )

    def _tally(self, key: ProviderKey) -> _Tally:
        """Return what is counted for a key; what has no client is forgotten for want of room."""
        if key not in self._tallies:
            crowd = [other for other in self._tallies if other[0] == key[0]]
            idle = [other for other in crowd if other not in self._instances]
            if len(crowd) >= 2 * MAX_REGIONS and idle:
                del self._tallies[idle[0]]
            self._tallies[key] = _Tally()
        return self._tallies[key]

    def _drop_expired(self, now: float) -> list[_Instance]:
        # Returned, so that an instance whose last reference this was closes outside the lock.
        over = [key for key, instance in self._instances.items() if instance.ends <= now]
        return [self._instances.pop(key) for key in over]

    def evict(self, alias: str | None = None, region: str | None = None) -> int:
        """Drop the instances of ``alias`` and ``region`` (``None``: any); return how many."""

        def chosen(key: ProviderKey) -> bool:
            return alias in (None, key[0]) and region in (None, key[1])

        with self._lock:
            gone = [self._instances.pop(key) for key in list(self._instances) if chosen(key)]
            for key in list(self._builds):
                if chosen(key):
                    del self._builds[key]
        return len(gone)

    def known_keys(self) -> list[ProviderKey]:
        """Return alias and region of each instance that is there or being built."""
        with self._lock:
            return [*self._instances, *self._builds]

    def close(self) -> None:
        """Close every instance at the end of the process; errors are ignored."""
        with self._lock:
            instances, self._instances = self._instances, {}
        for instance in instances.values():
            with contextlib.suppress(Exception):
                instance.provider.close()

    def after_fork(self) -> None:
        """Forget clients, builds and the lock in a child: they belong to the parent's threads.

        The instances are kept unreachable instead of closed: closing one here could end a
        connection that the parent shares.
        """
        self._left_to_parent += [self._instances, self._builds]
        self._lock = threading.Lock()
        self._instances = {}
        self._builds = {}

    def snapshot(self, *, process_region: str = "") -> tuple[ProviderInfo, ...]:
        """Return what is known of every provider that is configured or was asked for."""
        now = self._clock()
        with self._lock:
            gone = self._drop_expired(now)
            tallies = {key: copy.copy(tally) for key, tally in self._tallies.items()}
            instances = dict(self._instances)
        del gone
        for spec in self._specs.values():
            try:
                key = spec.alias, spec.effective_region(process=process_region)
            except InvalidProvider as error:
                tallies[spec.alias, ""] = _Tally(last_error=str(error))
            else:
                tallies.setdefault(key, _Tally())
        return tuple(
            ProviderInfo(
                alias=alias,
                region=region,
                backend=self._specs[alias].backend,
                age=now - instances[alias, region].built if (alias, region) in instances else None,
                ttl=self._specs[alias].ttl or None,
                builds=tally.builds,
                failures=tally.failures,
                hits=tally.hits,
                last_error=tally.last_error,
            )
            for (alias, region), tally in sorted(tallies.items())
        )
