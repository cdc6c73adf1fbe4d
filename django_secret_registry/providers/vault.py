"""HashiCorp Vault and OpenBao, through hvac: KV, and credentials that are leased."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ..clock import steady, wall
from ..exceptions import (
    InvalidProvider,
    InvalidReference,
    ProviderError,
    SecretError,
    SecretNotFound,
)
from ..logs import about
from ..references import NO_REGION, SecretRef
from ..values import MAX_VALUE_SIZE, SecretValue
from ._vault import Connection, Refusal, seconds, sort
from ._vault_login import Identity, Issued, Token
from ._vault_options import MOUNT, check_options, existing
from .base import BaseProvider, Problem, quote_path

logger = logging.getLogger("django_secret_registry.providers.vault")

T = TypeVar("T")

_NUMBER = re.compile(r"[1-9][0-9]{0,17}\Z")


class VaultProvider(BaseProvider):
    """Fetches from Vault's KV engines, and has its other engines issue credentials.

    Options: ``url``, one for all regions or a dict of region → url (none: ``VAULT_ADDR``);
    ``auth``, a dict with ``method`` and what it needs: ``token`` (``token``; none: ``VAULT_TOKEN``
    or ``~/.vault-token``), ``approle`` (``role_id``, ``secret_id``), ``kubernetes`` (``role``),
    ``jwt`` (``role``, and ``jwt`` or ``jwt_path``), each but the first with its ``mount``;
    ``namespace``; ``mount``, the default one; ``client``: hvac's ``verify`` (a CA bundle),
    ``cert`` and ``proxies``.

    * name: the path below the mount, as ``vault kv get`` takes it; of other engines what is read
      to have credentials issued: ``creds/ROLE``;
    * project: the mount, where it is another one than the alias' own;
    * region: which ``url``;
    * version: of KV v2, a number; stage: of KV v2, ``current``, or ``previous``: the number before.

    A KV secret is given whole, as a JSON object; so are issued credentials, whose version is the id
    of the request that issued them. They end with their lease, or with the token that they were
    issued to. Once held, they are renewed for as long as Vault prolongs them by half their lifetime
    at least, then replaced; a refresh that is asked for replaces them, too.

    Needs ``read`` on ``MOUNT/data/NAME`` (KV v2) or ``MOUNT/NAME``; for leases also ``update`` on
    ``sys/leases/renew`` and ``sys/leases/revoke``.
    """

    requires = ("hvac", "requests", "urllib3")
    accepts = frozenset({"project", "version", "stage"})
    #: Whether the log already says that leases may not be renewed.
    _told = False

    def __init__(
        self,
        *,
        alias: str,
        region: str,
        url: str | Mapping[str, str] = "",
        auth: Mapping[str, Any] | None = None,
        namespace: str = "",
        mount: str = MOUNT,
        client: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(alias=alias, region=region)
        given = {"url": url, "auth": auth, "namespace": namespace, "mount": mount, "client": client}
        for problem in self.check({name: value for name, value in given.items() if value}):
            raise InvalidProvider(problem.message, provider=alias, hint=problem.hint)
        self._mount = mount.strip("/")
        self._engines: dict[str, str] = {}  # mount → what is mounted there
        self._connection = Connection(self._address(url), namespace, existing(client, alias))
        self._connection.client()  # what hvac does not accept is told now
        self._identity = Identity(self._connection, auth or {"method": "token"})

    def _address(self, url: str | Mapping[str, str]) -> str:
        if not isinstance(url, Mapping):
            address = url or os.environ.get("VAULT_ADDR", "")
            hint = 'Write "OPTIONS": {"url": "https://..."}, or set VAULT_ADDR.'
        else:
            address = url.get(self.region or NO_REGION, "")
            hint = 'Write it into the dict of "url"; "-" stands for no region.'
        if not address:
            message = "Vault has no url in this region"
            raise InvalidProvider(message, provider=self.alias, region=self.region, hint=hint)
        return str(address)

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> list[Problem]:
        problems = super().check(options)
        problems += check_options(options)
        return problems

    @classmethod
    def canonical(cls, ref: SecretRef, options: Mapping[str, Any]) -> SecretRef:
        ref = super().canonical(ref, options)
        _quoted(ref)
        if ref.version and ref.stage:
            raise InvalidReference(
                "the reference has both a version and a stage",
                reference=str(ref),
                provider=ref.scheme,
                hint="Write one of them.",
            )
        own = str(options.get("mount") or MOUNT).strip("/")
        return ref.replace(project="") if ref.project == own else ref

    def fetch(self, ref: SecretRef, *, timeout: float) -> SecretValue:
        return self._fetch(ref, time.monotonic() + timeout)

    def renew(self, ref: SecretRef, value: SecretValue, *, timeout: float) -> SecretValue:
        """Prolong the lease of ``value``; other credentials where that brings too little."""
        deadline = time.monotonic() + timeout

        def prolong(token: Token) -> SecretValue | None:
            lease = token.leases.get(value.lease_id)
            if lease is None:  # it ends with a token that is no longer in use
                return None
            began = steady()
            left = self._prolong(token, value.lease_id, lease, deadline)
            if left < lease.lifetime / 2:
                return None
            return _issued(token, value, lease._replace(ends=began + left))

        return self._ask(ref, deadline, prolong, "sys/leases/renew", "update") or self._fetch(
            ref, deadline
        )

    def release(self, ref: SecretRef, value: SecretValue, *, timeout: float) -> None:
        deadline = time.monotonic() + timeout

        def revoke(token: Token) -> None:
            token.leases.pop(value.lease_id, None)
            self._connection.call(token.client.sys.revoke_lease, value.lease_id, deadline=deadline)

        self._ask(ref, deadline, revoke, "sys/leases/revoke", "update")

    def close(self) -> None:
        self._connection.close()

    # -- engines ---------------------------------------------------------------------------------

    def _fetch(self, ref: SecretRef, deadline: float) -> SecretValue:
        name, mount = _quoted(ref), ref.project or self._mount
        if ref.version and not _NUMBER.match(ref.version):
            raise self._not_found("there is no such version: of KV v2 it is a number", ref)
        if ref.stage not in ("", "previous"):
            raise self._not_found("there is no such stage: KV v2 has current and previous", ref)
        engine = self._engine(mount, ref, deadline)
        if engine == "kv2":
            return self._read_kv2(f"{quote_path(mount)}/data/{name}", ref, deadline)
        if ref.version or ref.stage:
            raise self._not_found("the engine at the mount keeps no versions", ref)
        path = f"{quote_path(mount)}/{name}"
        if engine == "kv1":
            return SecretValue(self._json(self._read(path, ref, deadline).get("data"), ref))
        return self._issue(path, ref, deadline)

    def _engine(self, mount: str, ref: SecretRef, deadline: float) -> str:
        """Return what is mounted there: ``kv1``, ``kv2`` or the engine's type; asked for once.

        Vault tells every token that may do something below the mount.
        """
        engine = self._engines.get(mount)
        if engine is None:
            hint = (
                f'Check that "{mount}" is a mount (project=, or "mount" in OPTIONS), and that a'
                " policy of the token allows it something there."
            )
            path = f"sys/internal/ui/mounts/{quote_path(mount)}"
            data = self._read(path, ref, deadline, hint=hint).get("data") or {}
            if str(data.get("path", "")).strip("/") != mount:
                raise self.error(ProviderError, "this is no mount of Vault", ref, hint=hint)
            engine = str(data.get("type"))
            if engine in ("kv", "generic"):
                engine = f"kv{(data.get('options') or {}).get('version') or 1}"
            self._engines[mount] = engine
        return engine

    def _read_kv2(self, path: str, ref: SecretRef, deadline: float) -> SecretValue:
        version = ref.version
        if ref.stage:
            version = str(self._current(path, ref, deadline) - 1)
            if version == "0":
                raise self._not_found("the secret has no previous version", ref)
        params = {"version": version} if version else None
        data = self._read(path, ref, deadline, params=params).get("data")
        data = data if isinstance(data, Mapping) else {}
        found = (data.get("metadata") or {}).get("version")
        return SecretValue(self._json(data.get("data"), ref), str(found) if found else None)

    def _current(self, path: str, ref: SecretRef, deadline: float) -> int:
        """Return the number of the newest version, which may be one that is deleted."""

        def number(token: Token) -> int:
            try:
                answer = self._get(token, path, deadline)
                metadata = answer["data"]["metadata"]
            except Refusal as refusal:
                if refusal.status != 404 or not refusal.metadata:
                    raise
                metadata = refusal.metadata
            return int(metadata["version"])

        return self._ask(ref, deadline, number, path, "read")

    def _issue(self, path: str, ref: SecretRef, deadline: float) -> SecretValue:
        """Have an engine issue credentials, or give those that it rotates itself."""

        def issue(token: Token) -> tuple[Token, float, dict[str, Any]]:
            return token, steady(), self._get(token, path, deadline)

        token, began, answer = self._ask(ref, deadline, issue, path, "read")
        data, lease_id = answer.get("data"), answer.get("lease_id")
        if lease_id:
            version = str(answer.get("request_id") or uuid.uuid4())
            value = SecretValue(self._json(data, ref), version, lease_id=lease_id)
            lifetime = seconds(answer, "lease_duration") or math.inf
            lease = Issued(lifetime, bool(answer.get("renewable")), began + lifetime)
            return _issued(token, value, lease)
        rotated = data.get("last_vault_rotation") if isinstance(data, Mapping) else None
        if not isinstance(data, Mapping) or not rotated:
            raise self.error(
                ProviderError,
                "the answer of Vault is neither a KV secret nor a credential with a lease",
                ref,
                hint="Nothing tells how long it may be used: it is not for a cache.",
            )
        # A static role: the engine rotates the password when its time to live is over.
        rest = {field: value for field, value in data.items() if field != "ttl"}
        left = max(1.0, seconds(data, "ttl"))
        return SecretValue(self._json(rest, ref), str(rotated), wall() + left)

    def _prolong(self, token: Token, lease_id: str, lease: Issued, deadline: float) -> float:
        """Return the seconds that a lease has left, renewed if it can be; 0: it has ended."""
        system = token.client.sys
        try:
            if lease.renewable:
                answer = self._connection.call(system.renew_lease, lease_id, deadline=deadline)
                return seconds(answer, "lease_duration")
            answer = self._connection.call(system.read_lease, lease_id, deadline=deadline)
            return seconds(answer.get("data"), "ttl")
        except Refusal as refusal:
            # 500: the engine itself cannot prolong it, say because the user was dropped.
            if refusal.status in (412, 429) or refusal.status > 500:
                raise
            if refusal.status == 403 and not self._told:
                self._told = True
                logger.warning(
                    "Provider %r may not renew leases and has new credentials issued each time."
                    ' A policy of the token must have: path "sys/leases/%s" {'
                    ' capabilities = ["update"] }.',
                    self.alias,
                    "renew" if lease.renewable else "lookup",
                    extra=about(provider=self.alias, region=self.region),
                )
            return 0.0

    def _json(self, data: Any, ref: SecretRef) -> str:
        if not isinstance(data, Mapping):
            raise self.error(ProviderError, "the answer of Vault holds no value", ref)
        try:
            text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
        except RecursionError:
            text = None
        # Outside of the except block: the frames of that error hold parts of the value.
        if text is None:
            raise self.error(ProviderError, "the secret is nested too deep", ref)
        if len(text) > MAX_VALUE_SIZE:
            raise self.error(ProviderError, "the secret is larger than 1 MiB", ref)
        return text

    # -- asking ----------------------------------------------------------------------------------

    def _get(self, token: Token, path: str, deadline: float, **arguments: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self._connection.call(
            token.client.adapter.get, f"/v1/{path}", deadline=deadline, **arguments
        )
        return answer

    def _read(
        self,
        path: str,
        ref: SecretRef,
        deadline: float,
        *,
        params: Mapping[str, str] | None = None,
        hint: str = "",
    ) -> dict[str, Any]:
        def read(token: Token) -> dict[str, Any]:
            return self._get(token, path, deadline, params=params)

        return self._ask(ref, deadline, read, path, "read", hint=hint)

    def _ask(
        self,
        ref: SecretRef,
        deadline: float,
        question: Callable[[Token], T],
        path: str,
        capability: str,
        *,
        hint: str = "",
    ) -> T:
        """Put a question with the token in use; any failure is a ``SecretError``.

        ``path`` and ``capability`` are what a policy has to name, unless ``hint`` says it better.
        """
        rule = f'path "{path}" {{ capabilities = ["{capability}"] }}'
        try:
            return self._identity.ask(question, deadline)
        except SecretError:
            raise
        except Exception as exc:
            result = sort(exc, path, hint or f"A policy of the token must have: {rule}.")
            cause = exc if result.chain else None
        # Outside the except block: what must not be chained would stay as the context there.
        try:
            raise self.error(result.kind, result.message, ref, hint=result.hint) from cause
        finally:
            del cause  # its traceback holds this frame

    def _not_found(self, message: str, ref: SecretRef) -> SecretError:
        return self.error(SecretNotFound, message, ref)


def _issued(token: Token, value: SecretValue, lease: Issued) -> SecretValue:
    """Return ``value`` with its end: that of its lease, or of the token that it was issued to."""
    token.issued(value.lease_id, lease)
    left = min(lease.ends, token.ends) - steady()
    ends = wall() + left if left < math.inf else None
    return SecretValue(value.value, value.version, ends, lease_id=value.lease_id)


def _quoted(ref: SecretRef) -> str:
    try:
        return quote_path(ref.name)
    except InvalidReference as error:
        failure = error.copy(reference=str(ref), provider=ref.scheme)
    raise failure
