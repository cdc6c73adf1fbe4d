"""What every provider is: the base class, the fences of an alias, and quoting for URLs, paths."""

# Annotations are evaluated here, which takes less time at start-up: see events.py.
import contextlib
import inspect
import os
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, ClassVar, NamedTuple, Protocol
from urllib.parse import quote

from ..exceptions import AccessDenied, InvalidReference, SecretError
from ..references import LOCATOR, NO_REGION, SecretRef
from ..values import SecretValue

#: Labels that mean the same with every backend that has stages; each backend maps them to its own.
PORTABLE_STAGES: tuple[str, ...] = ("current", "previous", "pending")


class Problem(NamedTuple):
    """A mistake in the configuration of an alias: what is wrong, and what to write instead."""

    message: str
    hint: str


class Members(Protocol):
    """The other aliases, for a provider that is made of some of them (``composite``)."""

    def fetch(
        self, refs: Sequence[SecretRef], *, timeout: float
    ) -> dict[SecretRef, SecretValue | SecretError]:
        """Return a value or an error for each reference, whose scheme is the alias to ask.

        Fences and residency policies are checked for each; never raises. Blocks ``timeout`` s.
        """


class BaseProvider:
    """Fetches secrets from one backend, for one alias and one region.

    A provider of one's own sets the class attributes that apply and implements ``__init__`` (with
    each option as a named keyword argument) and ``fetch``::

        class PassProvider(BaseProvider):
            def __init__(self, *, alias, region, url):
                super().__init__(alias=alias, region=region)
                import httpx                      # the SDK: here, never at the top of the file
                self.client = httpx.Client(base_url=url)

            def fetch(self, ref, *, timeout):
                answer = self.client.get(quote_path(ref.name), timeout=timeout)
                if answer.status_code == 404:
                    raise self.error(SecretNotFound, "no such secret", ref)
                ...
                return SecretValue(answer.text, version=answer.headers["etag"])

    An instance is shared by all threads and is built without I/O where the SDK allows it. It is
    dropped on eviction, when its TTL is over and after a fork; ``close`` is called when its last
    user is done (in CPython: when the last reference goes).
    """

    #: True: without a region of its own the alias takes the process's ``REGION`` (the AWS family).
    regional: ClassVar[bool] = False
    #: Which of ``project``, ``version`` and ``stage`` a reference to this backend may carry.
    accepts: ClassVar[frozenset[str]] = frozenset()
    #: The backend's own labels of the portable stages ``current``, ``previous`` and ``pending``.
    stages: ClassVar[Mapping[str, str]] = {}
    #: How many references ``fetch_many`` takes in one call; 1: the backend has no batches.
    batch_size: ClassVar[int] = 1
    #: True: it is made of other aliases, those of :meth:`member_aliases`. ``__init__`` then takes
    #: ``members`` besides its options (see :class:`Members`).
    composite: ClassVar[bool] = False

    #: Distributions that an instance imports; a check says when one is not installed.
    requires: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *, alias: str, region: str) -> None:
        self.alias = alias
        self.region = region
        self._process = os.getpid()

    def fetch(self, ref: SecretRef, *, timeout: float) -> SecretValue:
        """Return the secret that ``ref`` names, whole (``ref`` has no key), within ``timeout`` s.

        Called from several threads at once and never under a lock. Raises ``SecretNotFound``,
        ``AccessDenied``, ``ProviderUnavailable`` (throttled, timed out, unreachable: may be tried
        again) or ``ProviderError``, best made by :meth:`error`; never another exception on purpose.
        """
        raise NotImplementedError

    def fetch_many(
        self, refs: Sequence[SecretRef], *, timeout: float
    ) -> dict[SecretRef, SecretValue | SecretError]:
        """Return a value or an error for each of up to ``batch_size`` references; never raises."""
        answers: dict[SecretRef, SecretValue | SecretError] = {}
        for ref in refs:
            try:
                answers[ref] = self.fetch(ref, timeout=timeout)
            except SecretError as error:
                answers[ref] = error
        return answers

    def renew(self, ref: SecretRef, value: SecretValue, *, timeout: float) -> SecretValue:
        """Return ``value`` with a later ``expires_at``, or another value for ``ref``.

        Called in place of ``fetch``, and under the same terms, when the time of a held value with a
        ``lease_id`` has come. ``value`` may have been fetched by an instance before this one. The
        default fetches.
        """
        return self.fetch(ref, timeout=timeout)

    def release(self, ref: SecretRef, value: SecretValue, *, timeout: float) -> None:
        """Give back ``value``, which has a ``lease_id`` and which the cache has forgotten.

        Called once for each lease after an eviction, after the configuration has changed and at the
        end of the process, never under a lock, and where it may block for ``timeout`` s; not in a
        forked child for what its parent was given. ``value`` may have been fetched by an instance
        before this one. An error is logged, and the lease is left to end by itself. The default
        does nothing.
        """

    def close(self) -> None:
        """Release connections. May be called more than once, and while a fetch still runs.

        Values that were fetched go on serving: their leases are left alone (see ``release``).
        """

    def __del__(self) -> None:
        # In a child that was forked the connections are still the parent's.
        with contextlib.suppress(Exception):
            if self._process == os.getpid():
                self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} alias={self.alias!r} region={self.region or NO_REGION!r}>"

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> list[Problem]:
        """Return what is wrong with OPTIONS, without I/O and without the SDK.

        The base names options that ``__init__`` does not take and required ones that are missing.
        """
        parameters = {
            name: parameter
            for name, parameter in inspect.signature(cls).parameters.items()
            if name
            not in (("alias", "region", "members") if cls.composite else ("alias", "region"))
        }
        problems = []
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            for name in sorted(set(map(str, options)) - set(parameters)):
                allowed = ", ".join(sorted(parameters)) or "none"
                problems.append(Problem(f"unknown option {name!r}", f"Allowed: {allowed}."))
        problems += [
            Problem(f"option {name!r} is missing", f'Write "OPTIONS": {{"{name}": ...}}.')
            for name, p in parameters.items()
            if p.default is p.empty
            and p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
            and name not in options
        ]
        return problems

    @classmethod
    def canonical(cls, ref: SecretRef, options: Mapping[str, Any]) -> SecretRef:
        """Return the one spelling under which a secret is cached and fenced.

        Portable stages become the backend's labels, the current stage becomes "not given", and a
        backend that accepts ARNs or full resource names takes region and project out of them
        (:meth:`_take_locator`). No I/O. Raises :class:`InvalidReference` for what the backend does
        not have.
        """
        for field in ("project", "version", "stage"):
            if getattr(ref, field) and field not in cls.accepts:
                raise InvalidReference(
                    f"the backend has no {field}s",
                    reference=str(ref),
                    provider=ref.scheme,
                    hint=f"Remove {field}= from the reference.",
                )
        stage = cls.stages.get(ref.stage, ref.stage)
        if stage == cls.stages.get("current", "current"):
            stage = ""
        return ref.replace(stage=stage)

    @classmethod
    def fenced_name(cls, ref: SecretRef) -> str:
        """Return the name that ``ALLOW`` is compared with (of an ARN, the name within)."""
        return ref.name

    @classmethod
    def identities(cls, ref: SecretRef) -> Iterable[tuple[str, str]]:
        """Return the pairs of project and name by which residency policies know a secret.

        A backend that accepts several canonical spellings of one secret (its short name and its
        ARN) returns for each what they have in common, so that no spelling escapes a policy.
        """
        return ((ref.project, ref.name),)

    @classmethod
    def bound_as(cls, ref: SecretRef) -> Iterable[tuple[str, str]]:
        """Return the identities whose policies bind a read of ``ref``: its own, if no others.

        For a backend that cannot tell from two spellings whether they are one secret.
        """
        return cls.identities(ref)

    @classmethod
    def member_aliases(cls, options: Mapping[str, Any]) -> Sequence[str]:
        """Return the other aliases that a reference may be handed on to, in their order."""
        return ()

    def error(
        self, kind: type[SecretError], message: str, ref: SecretRef, *, hint: str = ""
    ) -> SecretError:
        """Return an error of this ``kind`` that names reference, alias and region."""
        return kind(message, reference=str(ref), provider=self.alias, region=self.region, hint=hint)

    @staticmethod
    def _take_locator(ref: SecretRef, field: str, value: str) -> SecretRef:
        """Return ``ref`` with ``field`` taken from its full name; a contradiction is an error."""
        given = getattr(ref, field)
        if not LOCATOR.match(value) or (given and given != value):
            raise InvalidReference(
                f"the {field} in the full name is malformed, or differs from the one that is asked",
                reference=str(ref),
                provider=ref.scheme,
                hint=f"Remove {field}= or name the secret by its short name.",
            )
        return ref.replace(**{field: value})


class Fence(NamedTuple):
    """What an alias may be asked for: globs of names, regions and projects; ``None``: anything."""

    allow: tuple[str, ...] | None = None
    regions: tuple[str, ...] | None = None
    projects: tuple[str, ...] | None = None

    def check(self, ref: SecretRef, *, name: str, region: str) -> None:
        """Raise :class:`AccessDenied` when a canonical ``ref`` lies outside; no call was made then.

        A project that is not given is the alias' own and passes; a name with a ``.`` or ``..``
        segment never matches a glob, since a backend might resolve it to a name outside.
        """
        self.check_region(ref.scheme, region, reference=str(ref))
        outside = ""
        if self.allow is not None and not _allowed(name, self.allow):
            outside = "ALLOW"
        elif self.projects is not None and ref.project and ref.project not in self.projects:
            outside = "PROJECTS"
        if outside:
            raise _denied(outside, ref.scheme, region, str(ref))

    def check_region(self, alias: str, region: str, *, reference: str = "") -> None:
        """Raise :class:`AccessDenied` for an effective region that lies outside."""
        if self.regions is not None and region not in self.regions:
            raise _denied("REGIONS", alias, region, reference)


def _denied(outside: str, alias: str, region: str, reference: str) -> AccessDenied:
    return AccessDenied(
        f"the reference lies outside {outside} of its provider",
        reference=reference,
        provider=alias,
        region=region,
        hint=f'Add it to "{outside}" of the alias if this process should read it.',
    )


def _allowed(name: str, globs: Iterable[str]) -> bool:
    return not _has_dots(name) and any(fnmatchcase(name, glob) for glob in globs)


def _has_dots(name: str) -> bool:
    return any(segment in (".", "..") for segment in name.replace("\\", "/").split("/"))


def quote_path(name: str) -> str:
    """Quote a name for a URL's path, segment by segment.

    Raises :class:`InvalidReference` for ``.``, ``..`` and empty segments, which servers and proxies
    resolve to another path than the one that was asked for.
    """
    if _has_dots(name) or "" in name.split("/"):
        raise InvalidReference(
            "a name with an empty, '.' or '..' segment cannot be part of a path",
            hint="Write the name without leading, trailing or doubled slashes and without dots.",
        )
    return "/".join(quote(segment, safe="") for segment in name.split("/"))
