"""Who a process is to Vault: how it logs in, and how its token is renewed or replaced in time."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ..clock import steady
from ..exceptions import (
    AccessDenied,
    InvalidProvider,
    ProviderUnavailable,
    SecretNotFound,
)
from ._errors import Sorted
from ._vault import Connection, Failure, Refusal, seconds
from ._vault_options import SERVICE_ACCOUNT

logger = logging.getLogger("django_secret_registry.providers.vault")

T = TypeVar("T")

#: The part of its lifetime that a token has left when it is renewed.
_LEFT = 1 / 3
#: Seconds for which nobody tries again to renew a token that is still good, nor to log in with what
#: Vault has refused: it locks a role out for a while after some attempts.
_AGAIN = 5.0
#: Seconds for which "denied" is believed once a new token was denied, too: one that may not look
#: itself up would have every read that is denied log in anew.
_TRUST = 30.0

_ENDED = Sorted(
    AccessDenied,
    "Vault does not accept the token: it has ended or was revoked",
    "Give the process a new one, or have it log in by a method that can.",
)


class Issued(NamedTuple):
    """A lease: its first ``lifetime`` in seconds, and when it ends (a reading of the clock)."""

    lifetime: float
    renewable: bool
    ends: float


class Token:
    """A token in use, and until when. Times are readings of :data:`~..clock.steady`."""

    def __init__(
        self,
        client: Any,
        text: str,
        *,
        began: float,
        ttl: float,
        left: float,
        renewable: bool,
        blind: bool = False,
    ) -> None:
        self.client = client
        self.text = text
        self.ttl = ttl or math.inf
        self.renewable = renewable
        self.blind = blind  # it may not look itself up, or was no token from the beginning
        self.ends = self.renew_at = math.inf
        self.prolong(began, left)
        #: What was issued to this token, and ends with it, by lease id.
        self.leases: dict[str, Issued] = {}

    def prolong(self, began: float, left: float) -> None:
        """Take in that the token has ``left`` s, counted from ``began``; 0: it never ends."""
        if left and self.ttl < math.inf:
            self.ends = began + left
            self.renew_at = max(self.ends - self.ttl * _LEFT, began + 1)

    def issued(self, lease_id: str, lease: Issued) -> None:
        """Take in a lease; forget those that have ended."""
        now = steady()
        for known, one in list(self.leases.items()):
            if one.ends <= now:
                self.leases.pop(known, None)
        self.leases[lease_id] = lease


class Identity:
    """Keeps one token for all threads: a new one is in use before the old one ends.

    Nothing runs in the background: whoever asks with a token that has a third of its lifetime left
    renews it, or logs in, while the others go on with it.
    """

    def __init__(self, connection: Connection, auth: Mapping[str, Any]) -> None:
        self._connection = connection
        self._auth = auth
        self._method: str = auth["method"]
        self._lock = threading.Lock()
        self._token: Token | None = None
        self._refused: tuple[float, Sorted] | None = None
        self._trusted_until = -math.inf

    def ask(self, question: Callable[[Token], T], deadline: float) -> T:
        """Return what ``question`` returns for the token; once more if Vault has ended that one."""
        token = self.token(deadline)
        try:
            return question(token)
        except Refusal as exc:
            if exc.status != 403:
                raise
            refusal = exc
        # A policy that denies and a token that is no longer valid look alike.
        try:
            if self._valid(token, deadline):
                raise refusal
            other = self.token(deadline, instead_of=token)
            if other.text == token.text:
                if not token.blind:
                    raise Failure(_ENDED)
                refusal.doubtful = True
                raise refusal
        finally:
            del refusal  # its traceback holds this frame
        try:
            return question(other)
        except Refusal as exc:
            if exc.status == 403:
                self._trusted_until = steady() + _TRUST
            raise

    def token(self, deadline: float, *, instead_of: Token | None = None) -> Token:
        """Return the token to use; another one than ``instead_of``, which Vault does not accept."""
        token, now = self._token, steady()
        good = token is not None and token is not instead_of and now < token.ends
        if token is not None and good and now < token.renew_at:
            return token
        left = max(0.0, deadline - time.monotonic())
        if not (self._lock.acquire(blocking=False) if good else self._lock.acquire(timeout=left)):
            if token is not None and good:
                return token
            raise Failure(Sorted(ProviderUnavailable, "the login to Vault takes too long"))
        try:
            if self._token is token or self._token is None:
                self._token = self._replace(token if good else None, deadline)
                if token is not None and token.text == self._token.text:
                    self._token.leases = token.leases
            return self._token
        finally:
            self._lock.release()

    def _valid(self, token: Token, deadline: float) -> bool:
        """Whether Vault knows the token; false also for one that may not look itself up."""
        if steady() < self._trusted_until:
            return True
        try:
            self._connection.call(token.client.auth.token.lookup_self, deadline=deadline)
        except Refusal as refusal:
            if refusal.status != 403:
                raise
            return False
        return True

    def _replace(self, good: Token | None, deadline: float) -> Token:
        """Return ``good``, renewed, or a new token; ``good`` as it is when neither can be had."""
        try:
            if good is not None and good.renewable and self._renew(good, deadline):
                return good
            return self._log_in(deadline)
        except Exception as exc:
            if good is None:
                raise
            kind = type(exc).__name__
            logger.warning("The token for Vault ends soon and cannot be replaced yet: %s", kind)
            good.renew_at = steady() + _AGAIN
            return good

    def _renew(self, token: Token, deadline: float) -> bool:
        """Renew; say whether the token lives on long enough to be used."""
        began = steady()
        try:
            answer = self._connection.call(token.client.auth.token.renew_self, deadline=deadline)
        except Refusal as refusal:
            if refusal.status >= 500 or refusal.status == 429:
                raise
            return False
        token.prolong(began, seconds(answer.get("auth"), "lease_duration"))
        return began + 1 < token.renew_at

    def _log_in(self, deadline: float) -> Token:
        began = steady()
        if self._method == "token":
            return self._take_token(began, deadline)
        if self._refused is not None and began < self._refused[0]:
            raise Failure(self._refused[1])
        method, arguments = self._login()
        try:
            answer = self._connection.call(method, **arguments, use_token=False, deadline=deadline)
        except Refusal as refusal:
            status = refusal.status
            if status not in (400, 401, 403, 404):
                raise
            result = Sorted(
                AccessDenied,
                f"Vault refuses the login by {self._method} ({status})",
                f'Look at "auth" in OPTIONS, and at the role in "auth/{self._mount}" of Vault;'
                " what one logs in with may have expired.",
            )
        else:
            return self._token_of(answer.get("auth"), began)
        self._refused = began + _AGAIN, result
        raise Failure(result)

    @property
    def _mount(self) -> str:
        return str(self._auth.get("mount") or self._method)

    def _login(self) -> tuple[Callable[..., Any], dict[str, Any]]:
        """Return hvac's method and what to log in with, read now."""
        auth = self._connection.client().auth
        if self._method == "approle":
            secret_id = self._secret("secret_id") if "secret_id" in self._auth else None
            given = {"role_id": self._secret("role_id"), "secret_id": secret_id}
            return auth.approle.login, {**given, "mount_point": self._mount}
        given = {"role": str(self._auth["role"]), "jwt": self._jwt()}
        if self._method == "kubernetes":
            return auth.kubernetes.login, {**given, "mount_point": self._mount}
        return auth.jwt.jwt_login, {**given, "path": self._mount}

    def _secret(self, name: str) -> str:
        """Read an option that may be a marker."""
        try:
            return str(self._auth[name])
        except SecretNotFound as error:  # it is not the one that somebody asks for
            hint = str(error)
        raise InvalidProvider("the login to Vault needs a secret that does not exist", hint=hint)

    def _jwt(self) -> str:
        if "jwt" in self._auth:
            return self._secret("jwt")
        path = Path(str(self._auth.get("jwt_path", SERVICE_ACCOUNT)))
        try:
            return path.read_text().strip()
        except (OSError, ValueError) as exc:
            name = type(exc).__name__
        message = f"the file with the JWT to log in with cannot be read ({name})"
        raise Failure(Sorted(AccessDenied, message, f'Look at "jwt_path": {str(path)!r}.'))

    def _take_token(self, began: float, deadline: float) -> Token:
        """Return the token that was given, with what Vault knows of it."""
        text = self._secret("token") if "token" in self._auth else _from_environment()
        if not text:
            raise Failure(
                Sorted(
                    AccessDenied,
                    "there is no token for Vault",
                    'Write "auth" in OPTIONS, or set VAULT_TOKEN.',
                )
            )
        client = self._connection.client(text)
        known: Mapping[str, Any] = {}
        try:
            answer = self._connection.call(client.auth.token.lookup_self, deadline=deadline)
            known = answer.get("data") or {}
        except Refusal as refusal:
            if refusal.status != 403:  # it may not look itself up, or whoever asks will see
                raise
        left = seconds(known, "ttl")
        return Token(
            client,
            text,
            began=began,
            ttl=max(left, seconds(known, "creation_ttl")) if left else 0,
            left=left,
            renewable=bool(known.get("renewable")),
            blind=not known,
        )

    def _token_of(self, auth: Any, began: float) -> Token:
        text = auth.get("client_token") if isinstance(auth, Mapping) else None
        if not isinstance(text, str):
            raise Failure(Sorted(AccessDenied, "the login to Vault brought no token"))
        ttl = seconds(auth, "lease_duration")
        renewable = bool(auth.get("renewable"))
        client = self._connection.client(text)
        return Token(client, text, began=began, ttl=ttl, left=ttl, renewable=renewable)


def _from_environment() -> str:
    from hvac.utils import get_token_from_env

    return get_token_from_env() or ""
