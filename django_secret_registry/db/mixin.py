"""``RotatingCredentials``: makes any database engine follow the rotation of its secrets.

::

    from django.contrib.gis.db.backends.postgis import base
    from django_secret_registry.db.mixin import RotatingCredentials

    class DatabaseWrapper(RotatingCredentials, base.DatabaseWrapper):
        pass

Put that into a module ``myproject/postgis/base.py``, and ``ENGINE`` is ``"myproject.postgis"``.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import OperationalError

from .. import registry
from ..containers import raw
from ..discovery import markers
from ..exceptions import SecretError, SecretNotFound
from ..lazy import LazySecret
from ..logs import about
from ..rotation import Reading, RotationWindows
from .refusals import is_refused

logger = logging.getLogger("django_secret_registry.db")

#: By process and alias: what a parent waited for is none of a child's business, nor its locks.
_windows: dict[tuple[int, str], RotationWindows] = {}


def windows_of(alias: str) -> RotationWindows:
    """Return the rotation windows of a database of this process."""
    key = os.getpid(), alias
    known = _windows.get(key)
    if known is None:
        new = RotationWindows(lambda: registry.config.rotation_window)
        known = _windows.setdefault(key, new)
    return known


class RotatingCredentials(BaseDatabaseWrapper):
    """A mixin for an engine: each connect reads its secrets, and a refused one reads them anew.

    What a connect reads belongs together: keys of one secret come from one version. When the
    database refuses the login, and then only, the secrets are fetched and the connect is tried
    again, for ``ROTATION_WINDOW`` seconds at most; see :mod:`..rotation`. No lock is held while
    that happens. With Django's pool it happens in the pool's threads, for each connection made.

    A secret that cannot be read is an ``OperationalError``, like a database out of reach.
    """

    Database: Any  # the driver

    #: What the connection parameters were made of last.
    _reading = Reading({}, {})

    def get_connection_params(self) -> dict[str, Any]:
        """Return the parameters for a connect, with the current values of the secrets."""
        try:
            plain, self._reading = _read(self.settings_dict)
        except SecretError as error:
            raise OperationalError(f"a secret cannot be read: {error}") from error
        with self._settings_as(plain):
            return super().get_connection_params()

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Connect; wait and try again as long as a rotation may be the reason for a refusal."""
        if self.pool is None:
            return self.connect_patiently(conn_params, super().get_new_connection)
        windows, version = windows_of(self.alias), self._reading.version
        if windows.failed(version) and not self.pool.get_stats()["pool_available"]:
            # The pool would let its clients wait for what does not come.
            self._hasten(windows)
            raise OperationalError(
                "the database refuses the credentials that the secret manager gives, and the"
                " rotation window is over"
            )
        return super().get_new_connection(conn_params)

    def connect_patiently(
        self, conn_params: dict[str, Any], connect: Callable[[dict[str, Any]], Any]
    ) -> Any:
        """Return what ``connect`` makes of the parameters, which are made anew after a refusal."""
        windows = windows_of(self.alias)
        while True:
            began = windows.clock()
            try:
                connection = connect(conn_params)
            except self.Database.Error as error:
                reading = self._reading
                if not reading.held or not is_refused(self.vendor, error):
                    raise
                conn_params = self.get_connection_params()
                if self._reading.version == reading.version:
                    if not windows.refused(reading.version, began, self._fetch):
                        self._hasten(windows)
                        raise
                    conn_params = self.get_connection_params()
            else:
                windows.accepted(began)
                return connection

    def _fetch(self, step: int) -> None:
        """Fetch the secrets that were refused."""
        if step == 0:
            logger.warning(
                "The database %r refuses the credentials of %s, which are fetched anew.",
                self.alias,
                self._reading.references,
                extra=about(database=self.alias, references=self._reading.references),
            )
        # While the secret manager does not answer either, the credentials are tried as they are.
        with contextlib.suppress(SecretError):
            registry.refetch(self._reading)

    def _hasten(self, windows: RotationWindows) -> None:
        """Have another version found sooner than by the TTL, without waiting for it."""
        if windows.may_hasten(self._reading.version):
            logger.error(
                "The database %r refuses the credentials of %s, and the rotation window is over:"
                " connects fail until another version is there.",
                self.alias,
                self._reading.references,
                extra=about(database=self.alias, references=self._reading.references),
            )
            with contextlib.suppress(SecretError):
                registry.refetch(self._reading, wait=False)

    # -- Django's connection pool ----------------------------------------------------------------

    @property
    def pool(self) -> Any:
        """Django's pool of this database, if it has one; its connections follow rotations too."""
        options = self.settings_dict["OPTIONS"].get("pool")
        if not options or self.alias in getattr(self, "_connection_pools", {}):
            return getattr(super(), "pool", None)
        given = {} if options is True else dict(options)
        pooled = {
            # A connect that was given up is tried again when somebody asks for a connection, and
            # not after minutes.
            "reconnect_timeout": registry.config.rotation_window,
            **given,
            "connection_class": self._connection_class(given.get("connection_class")),
        }
        settings = self.settings_dict.copy()
        settings["OPTIONS"] = {**raw(settings["OPTIONS"]), "pool": pooled}
        with self._settings_as(settings):
            return getattr(super(), "pool", None)

    def _connection_class(self, base: Any) -> Any:
        # The pool's threads connect at the same time, and a wrapper belongs to one thread: each
        # connect has its own, and none is made of this one, which goes on working.
        template = self.copy()
        parent: Any = base or self.Database.Connection

        class RotatingConnection(parent):  # type: ignore[misc]
            """A connection of the pool, which is made with the credentials of the moment."""

            @classmethod
            def connect(cls, conninfo: str = "", **kwargs: Any) -> Any:
                own = template.copy()
                make = super().connect
                return own.connect_patiently(
                    own.get_connection_params(),
                    lambda conn_params: make(conninfo, **{**kwargs, **conn_params}),
                )

        return RotatingConnection

    @contextlib.contextmanager
    def _settings_as(self, settings: dict[str, Any]) -> Iterator[None]:
        """Let the engine's own methods find these settings; a wrapper belongs to one thread."""
        before, self.settings_dict = self.settings_dict, settings
        try:
            yield
        finally:
            self.settings_dict = before


def _read(settings: dict[str, Any]) -> tuple[dict[str, Any], Reading]:
    """Return the settings of a database with all values in them, and what these were made of."""
    reading = registry.together({marker.key: None for marker in markers(settings)})
    plain: dict[str, Any] = _plain(settings, reading)
    return plain, reading


def _plain(value: Any, reading: Reading) -> Any:
    if type(value) is LazySecret:
        found = reading.values[value.key]
        if not isinstance(found, SecretNotFound):
            return found
        if value.default is ...:
            raise found
        return value.default
    if isinstance(value, dict):
        return {key: _plain(item, reading) for key, item in raw(value).items()}
    if isinstance(value, list):
        items = [(item, _plain(item, reading)) for item in raw(value)]
        return [plain for item, plain in items if type(item) is not LazySecret or plain is not None]
    return value
