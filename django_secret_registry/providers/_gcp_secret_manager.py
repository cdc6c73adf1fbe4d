"""Google Cloud Secret Manager, over gRPC or REST."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, ClassVar

from ..exceptions import (
    AccessDenied,
    InvalidReference,
    ProviderError,
    SecretNotFound,
)
from ..references import NO_REGION, SecretRef
from ..values import MAX_VALUE_SIZE, SecretValue
from ._fork import ForkGate
from ._gcp import NO_CREDENTIALS, TRANSPORTS, GCPProvider, client_arguments, sort
from .base import Problem

_RESOURCE = re.compile(
    r"projects/(?P<project>[^/]+)(?:/locations/(?P<region>[^/]+))?/secrets/(?P<name>[^/]+)"
    r"(?:/versions/(?P<version>[^/]+))?\Z"
)
_NAME = re.compile(r"[A-Za-z0-9_-]{1,255}\Z")
_NUMBER = re.compile(r"[1-9][0-9]{0,18}\Z")
_ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}\Z")

#: Stand for all projects that are spelled so, where policies are looked up; none is called so.
_BY_ID, _BY_NUMBER = "*id", "*number"

#: All channels share what gRPC has to prepare for a fork.
_gate = ForkGate()


class SecretManagerProvider(GCPProvider):
    """Fetches from Google Cloud Secret Manager.

    Options: ``project`` (the default one, by its id), ``project_numbers`` (numbers of projects →
    their ids), ``transport`` (``"grpc"`` or ``"rest"``), ``client``
    (keyword arguments of ``SecretManagerServiceClient``: ``credentials``, ``client_options``, …;
    its ``transport`` goes over ours), and ``insecure``: without TLS and credentials, for an
    emulator that ``client_options`` names as ``api_endpoint``.

    * name: a secret's id, or its full name ``projects/P[/locations/L]/secrets/S[/versions/V]``;
    * region: a location, whose regional secrets and endpoint are used; none: global secrets;
    * project: its id, or its number. ``project_numbers`` says which is which; a number that it
      does not have is bound by every residency policy for a secret of that name, whatever project
      the policy is about, since only Google knows whether it is the same one;
    * version: a number; stage: a version alias, or ``current`` (the newest version, which is what
      Google calls ``latest``) and ``previous`` (the newest enabled one before it, unless an alias
      has that name); ``pending`` is found only as an alias of that name.

    A payload that is UTF-8 is text. Each is compared with its CRC32C: an answer that was changed on
    its way is fetched again once, and a second one is a ``ProviderError``.

    Needs ``secretmanager.versions.access`` (``roles/secretmanager.secretAccessor``), and
    ``secretmanager.versions.list`` for ``previous`` without an alias. With ``"grpc"`` a fork waits
    for calls that are under way, for 2 s at most: see :class:`~._fork.ForkGate`.
    """

    requires = ("google-auth", "google-cloud-secret-manager", "google-crc32c")
    accepts = frozenset({"project", "version", "stage"})
    stages: ClassVar[Mapping[str, str]] = {"current": "latest"}

    def __init__(
        self,
        *,
        alias: str,
        region: str,
        project: str = "",
        project_numbers: Mapping[str, str] | None = None,
        transport: str = "grpc",
        client: Mapping[str, Any] | None = None,
        insecure: bool = False,
    ) -> None:
        super().__init__(alias=alias, region=region)
        from google.auth.exceptions import DefaultCredentialsError
        from google.cloud.secretmanager_v1 import SecretManagerServiceClient
        from google.cloud.secretmanager_v1.services.secret_manager_service import transports
        from google_crc32c import value as crc32c

        self._projects = {"project": project, "project_numbers": project_numbers}
        self._crc32c: Callable[[bytes], int] = crc32c
        # A transport that the user made may serve other instances: it is left open.
        self._owned = not isinstance(
            (client or {}).get("transport"), transports.SecretManagerServiceTransport
        )
        try:
            with _gate:
                self.client: Any = SecretManagerServiceClient(
                    **client_arguments(client or {}, region, transport, insecure=insecure)
                )
        except DefaultCredentialsError as exc:
            raise AccessDenied(
                "no Google credentials were found",
                provider=alias,
                region=region,
                hint=NO_CREDENTIALS,
            ) from exc
        self._gate: AbstractContextManager[None] = _gate
        if self.client.transport.kind == "rest":
            self._gate = nullcontext()
        for name in TRANSPORTS:
            module = f"{type(self.client).__module__.rpartition('.')[0]}.transports.{name}"
            logging.getLogger(module).addFilter(_hide_answer)

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> list[Problem]:
        problems = super().check(options)
        if options.get("transport", "grpc") not in TRANSPORTS:
            problems.append(Problem("option 'transport' is not known", 'Write "grpc" or "rest".'))
        numbers = options.get("project_numbers") or {}
        if not isinstance(numbers, Mapping) or not all(
            isinstance(number, str) and _NUMBER.match(number) and isinstance(project, str)
            for number, project in numbers.items()
        ):
            hint = 'Write "project_numbers": {"123456789012": "acme"}.'
            problems.append(Problem("option 'project_numbers' does not map numbers to ids", hint))
        elif _NUMBER.match(str(options.get("project", ""))) and options["project"] not in numbers:
            hint = 'Write the project\'s id, or add the number to "project_numbers".'
            problems.append(Problem("option 'project' is a number", hint))
        if not isinstance(options.get("client") or {}, Mapping):
            hint = 'Write "OPTIONS": {"client": {"client_options": {...}}}.'
            problems.append(Problem("option 'client' is no dict", hint))
        return problems

    @classmethod
    def canonical(cls, ref: SecretRef, options: Mapping[str, Any]) -> SecretRef:
        full = _RESOURCE.match(ref.name)
        if full:
            ref = cls._take_locator(ref.replace(name=full["name"]), "project", full["project"])
            if full["region"]:
                ref = cls._take_locator(ref, "region", full["region"])
            elif ref.region in ("", NO_REGION):
                ref = ref.replace(region=NO_REGION)
            else:
                raise _invalid(ref, "the full name is that of a global secret", "Remove region=.")
            if full["version"]:
                ref = cls._take_locator(ref, "version", full["version"])
        if not _NAME.match(ref.name):
            raise _invalid(
                ref,
                "the name is neither the id nor the full name of a secret",
                "An id has letters, digits, - and _; a full name is projects/P/secrets/S or"
                " projects/P/locations/L/secrets/S.",
            )
        if ref.version == cls.stages["current"]:
            ref = ref.replace(version="")
        elif ref.version and not _NUMBER.match(ref.version):
            ref = cls._take_locator(ref.replace(version=""), "stage", ref.version)
        ref = super().canonical(ref, options)
        if ref.stage and (ref.version or not _ALIAS.match(ref.stage)):
            raise _invalid(
                ref,
                "the version or the stage is none that Google could have",
                "Write version= with a number, or stage= with an alias, not both.",
            )
        numbers = options.get("project_numbers") or {}
        own = options.get("project", "")
        own = numbers.get(own, own)
        ref = ref.replace(project=numbers.get(ref.project, ref.project))
        if not (ref.project or own):
            raise _invalid(
                ref,
                "the reference names no project, and the alias has none",
                'Write ?project=..., or "OPTIONS": {"project": ...}.',
            )
        return ref.replace(project="") if ref.project == own else ref

    @classmethod
    def identities(cls, ref: SecretRef) -> Iterable[tuple[str, str]]:
        return (ref.project, ref.name), (_spelled_as(ref.project), ref.name)

    @classmethod
    def bound_as(cls, ref: SecretRef) -> Iterable[tuple[str, str]]:
        # Ids are compared with ids and numbers with numbers. A number and an id may be one project.
        other = _BY_ID if _spelled_as(ref.project) == _BY_NUMBER else _BY_NUMBER
        return (ref.project, ref.name), (other, ref.name)

    def fetch(self, ref: SecretRef, *, timeout: float) -> SecretValue:
        deadline = time.monotonic() + timeout
        ref = self.canonical(ref, self._projects)
        parent = f"projects/{ref.project or self._projects['project']}"
        if self.region:
            parent += f"/locations/{self.region}"
        secret = f"{parent}/secrets/{ref.name}"
        version = ref.version or ref.stage or self.stages["current"]
        try:
            return self._access(f"{secret}/versions/{version}", ref, deadline)
        except SecretNotFound:
            if ref.stage != "previous":
                raise
        # There is no alias of that name.
        version = self._call(self._before_current, ref, deadline, parent=secret)
        if not version:
            raise self.error(SecretNotFound, "the secret has no enabled previous version", ref)
        return self._access(f"{secret}/versions/{version}", ref, deadline)

    def close(self) -> None:
        if self._owned:
            self.closed = True
            with self._gate:
                self.client.transport.close()

    def _access(self, name: str, ref: SecretRef, deadline: float) -> SecretValue:
        for _ in range(2):
            answer = self._call(self.client.access_secret_version, ref, deadline, name=name)
            payload = answer.payload
            if "data_crc32c" in payload and self._crc32c(payload.data) != payload.data_crc32c:
                continue
            if not answer.name or not (payload.data or "data_crc32c" in payload):
                raise self.error(ProviderError, "the answer of Google holds no value", ref)
            if len(payload.data) > MAX_VALUE_SIZE:
                raise self.error(ProviderError, "the answer of Google is larger than 1 MiB", ref)
            version = answer.name.rpartition("/")[2]
            return SecretValue(_text(payload.data), version=version)
        raise self.error(
            ProviderError,
            "the payload does not match its checksum, twice in a row",
            ref,
            hint="Look for what changes answers on their way: a proxy, a gateway, an emulator.",
        )

    def _before_current(self, **call: Any) -> str:
        """Return the number of the newest enabled version before the newest of all, or ``""``."""
        versions = iter(self.client.list_secret_versions(**call))  # newest first, says the API
        next(versions, None)
        for version in versions:
            if version.state.name == "ENABLED":
                return str(version.name.rpartition("/")[2])
        return ""

    def _call(
        self, method: Callable[..., Any], ref: SecretRef, deadline: float, **request: str
    ) -> Any:
        permission = f"secretmanager.versions.{'list' if 'parent' in request else 'access'}"

        def call(left: float) -> Any:
            with self._gate:
                return method(request=request, retry=None, timeout=left)

        return self.persist(
            call, partial(sort, permission=permission, alias=bool(ref.stage)), ref, deadline
        )


def _spelled_as(project: str) -> str:
    return _BY_NUMBER if _NUMBER.match(project) else _BY_ID


def _invalid(ref: SecretRef, message: str, hint: str) -> InvalidReference:
    return InvalidReference(message, reference=str(ref), provider=ref.scheme, hint=hint)


def _text(data: bytes) -> str | bytes:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _hide_answer(record: logging.LogRecord) -> bool:
    """Drop what the library logs at DEBUG of an answer: all of it, the payload included."""
    return not (hasattr(record, "response") or hasattr(record, "httpResponse"))
