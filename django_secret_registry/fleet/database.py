"""The bus in a table: a counter row that is bumped with each event, and polling as truth.

On PostgreSQL ``NOTIFY`` wakes whoever listens. A listener that hears nothing (a pooler between, a
lost connection) finds out at its next poll.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import secrets
import selectors
import socket
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from ..containers import raw
from ..providers.base import Problem
from .bus import (
    RETENTION,
    Batch,
    Bus,
    BusDenied,
    BusEvent,
    BusUnavailable,
    Cursor,
    Report,
    continues,
    decode,
    operation,
    poll,
)

#: Seconds between two looks at the counter: with a NOTIFY that wakes, and without.
_LISTENING, _POLLING = 1.0, 0.5
#: Seconds after which a NOTIFY that has not arrived does not reach us.
_HEARD = 1.0

_CHANNEL = "secret_registry_fleet"
_LOG, _EVENT, _REPORT = (
    f"django_secret_registry_fleet{name}" for name in ("log", "event", "report")
)
#: The database's own clock: those of the hosts may differ.
_NOW = {
    "postgresql": "EXTRACT(EPOCH FROM clock_timestamp())",
    "mysql": "UNIX_TIMESTAMP(NOW(3))",
    "sqlite": "((julianday('now') - 2440587.5) * 86400.0)",
}
#: What servers say of a wrong password: SQLSTATE of PostgreSQL, error number of MySQL.
_DENIED = ("28P01", "28000", 1045)
#: What PostgreSQL says of a privilege that is missing.
_FORBIDDEN = "42501"


class DatabaseBus(Bus):
    """Three tables of the database ``using``, over connections of its own.

    So an event is written at once, whatever transaction the caller is in. ``listen``: wait for
    ``NOTIFY`` where the database is PostgreSQL.
    """

    def __init__(self, *, using: str = "default", listen: bool = True) -> None:
        self._using = using
        self._listen = listen
        self._connection: Any = None
        self._listening = False
        self._rest: dict[str, str] = {}

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> list[Problem]:
        from django.conf import settings

        problems = super().check(options)
        using = options.get("using", "default")
        databases = raw(settings.DATABASES)
        if not isinstance(using, str) or using not in databases:
            known = ", ".join(databases) or "none"
            return [*problems, Problem("option 'using' names no database", f"Known are: {known}.")]
        database = raw(databases[using])
        name = str(database.get("NAME"))
        if name == ":memory:" or "mode=memory" in name:  # as Django itself tells
            problems.append(
                Problem("each process has an in-memory database of its own", "Use another one.")
            )
        if database.get("DISABLE_SERVER_SIDE_CURSORS") is True and options.get("listen", True):
            problems.append(
                Problem(
                    "a pooler stands before the database (DISABLE_SERVER_SIDE_CURSORS), and LISTEN"
                    " does not reach through one that pools transactions",
                    'Write "listen": False: events are polled for, twice a second.',
                )
            )
        return problems

    @property
    def credentials(self) -> object:
        from django.conf import settings

        return raw(settings.DATABASES).get(self._using, ())

    @property
    def database(self) -> str:
        return self._using

    # -- the four operations ---------------------------------------------------------------------

    @operation
    def append(self, event: BusEvent) -> Cursor:
        with self._connected() as connection, connection.cursor() as cursor:
            connection.set_autocommit(False)
            try:
                if not self._count(cursor):
                    connection.rollback()
                    self._begin(cursor)
                    connection.commit()
                    self._count(cursor)
                # The row stays locked until the commit: numbers are seen in order, without gaps.
                log, number = self._state(cursor)
                now = _NOW.get(connection.vendor, "CURRENT_TIMESTAMP")
                cursor.execute(
                    f"INSERT INTO {_EVENT} (number, event, written) VALUES (%s, %s, {now})",
                    [number, event.encode()],
                )
                cursor.execute(f"DELETE FROM {_EVENT} WHERE written < {now} - %s", [RETENTION])
                if connection.vendor == "postgresql":
                    cursor.execute(f"NOTIFY {_CHANNEL}")
                connection.commit()
            finally:
                with contextlib.suppress(Exception):
                    connection.rollback()
                    connection.set_autocommit(True)
        return Cursor(log, number)

    @operation
    def read_since(self, cursor: Cursor | None, *, block: float) -> Batch:
        if cursor is None:
            return self._anew()
        self._begin_to_listen()
        interval = _LISTENING if self._listening else _POLLING
        return poll(lambda: self._read(cursor), block, interval, self._wait)

    @operation
    def heartbeat(
        self, worker: str, changed: Mapping[str, str | None], *, lifetime: float, anew: bool
    ) -> bool:
        before = {} if anew else self._rest
        said = {name: text for name, text in (before | dict(changed)).items() if text is not None}
        head = said.get("", "")
        with self._connected() as connection, connection.cursor() as cursor:
            now = _NOW.get(connection.vendor, "CURRENT_TIMESTAMP")
            sets, values = f"head = %s, lifetime = %s, seen = {now}", [head, lifetime]
            if anew or set(changed) - {""}:
                sets, values = f"{sets}, rest = %s", [*values, json.dumps(said)]
            cursor.execute(f"UPDATE {_REPORT} SET {sets} WHERE worker = %s", [*values, worker])
            known = bool(cursor.rowcount)
            if anew and not known:
                cursor.execute(
                    f"INSERT INTO {_REPORT} (worker, head, rest, lifetime, seen)"
                    f" VALUES (%s, %s, %s, %s, {now})",
                    [worker, head, json.dumps(said), lifetime],
                )
                cursor.execute(f"DELETE FROM {_REPORT} WHERE seen + lifetime < {now}")
        self._rest = said
        return anew or known

    @operation
    def workers(self, *, heads: bool = False) -> list[Report]:
        with self._connected() as connection, connection.cursor() as cursor:
            now = _NOW.get(connection.vendor, "CURRENT_TIMESTAMP")
            rest = "'{}'" if heads else "rest"
            # What was seen in the future was so before the clock was set back: by then it has been
            # said again, or its worker is gone.
            cursor.execute(
                f"SELECT worker, head, {rest}, {now} - seen FROM {_REPORT}"
                f" WHERE seen + lifetime >= {now} AND seen <= {now} + 1 ORDER BY worker"
            )
            rows = cursor.fetchall()
        return [
            Report(worker, max(0.0, float(age)), {**_fields(rest), "": head})
            for worker, head, rest, age in rows
        ]

    # -- reading ---------------------------------------------------------------------------------

    def _state(self, cursor: Any) -> tuple[str, int]:
        cursor.execute(f"SELECT log, number FROM {_LOG} WHERE id = 1")
        row = cursor.fetchone()
        return (row[0], int(row[1])) if row else ("", 0)

    def _count(self, cursor: Any) -> bool:
        """Take the next number; ``False``: there is no log yet."""
        if self._connection.vendor == "postgresql":
            # A process that is stopped in the middle must not keep all others waiting.
            cursor.execute("SET LOCAL idle_in_transaction_session_timeout = '2s'")
        cursor.execute(f"UPDATE {_LOG} SET number = number + 1 WHERE id = 1")
        return bool(cursor.rowcount)

    def _begin(self, cursor: Any) -> None:
        """Begin a log, unless somebody else does so at the same time."""
        cursor.execute(
            f"INSERT INTO {_LOG} (id, log, number)"
            f" SELECT 1, %s, 0 WHERE NOT EXISTS (SELECT 1 FROM {_LOG} WHERE id = 1)",
            [secrets.token_hex(8)],
        )

    def _read(self, start: Cursor) -> Batch:
        with self._connected() as connection, connection.cursor() as cursor:
            log, last = self._state(cursor)
            rows: list[Any] = []
            if log == start.log and last > start.number:
                cursor.execute(
                    f"SELECT number, event FROM {_EVENT} WHERE number > %s"
                    " ORDER BY number LIMIT %s",
                    [start.number, self.most],
                )
                rows = cursor.fetchall()
        numbers = [int(number) for number, _ in rows]
        if not continues(start, log, last, numbers):
            return self._anew()
        events = [(int(number), decode(text)) for number, text in rows]
        end = start._replace(number=numbers[-1]) if numbers else start
        return Batch(events, end, more=len(rows) >= self.most)

    def _anew(self) -> Batch:
        from django.db import IntegrityError

        with self._connected() as connection, connection.cursor() as cursor:
            log, number = self._state(cursor)
            if not log:
                with contextlib.suppress(IntegrityError):
                    self._begin(cursor)
                log, number = self._state(cursor)
        return Batch((), Cursor(log, number), gap=True)

    # -- looking ---------------------------------------------------------------------------------

    def probe(self) -> Iterator[Problem]:
        with self._connected() as connection:
            if not self._listen or connection.vendor != "postgresql":
                return
        self._begin_to_listen()
        other = DatabaseBus(using=self._using, listen=False)
        try:
            with other._connected() as connection, connection.cursor() as cursor:
                cursor.execute(f"NOTIFY {_CHANNEL}")
        finally:
            other.close()
        if not self._wait(_HEARD):
            yield Problem(
                "LISTEN hears nothing of a NOTIFY, as through a pooler of transactions",
                'Write "listen": False: events are polled for, twice a second.',
            )

    # -- waking ----------------------------------------------------------------------------------

    def _begin_to_listen(self) -> None:
        with self._connected() as connection:
            if self._listen and not self._listening and connection.vendor == "postgresql":
                with connection.cursor() as cursor:
                    cursor.execute(f"LISTEN {_CHANNEL}")
                _keep_no_notifications(connection.connection)
                self._listening = True

    def _wait(self, seconds: float) -> bool:
        """Wait for a NOTIFY, or for the time to pass. What has arrived is not looked at."""
        connection = self._connection
        if not self._listening or connection is None:
            return threading.Event().wait(seconds)
        # Not select(), which knows no file beyond the 1024th.
        with selectors.DefaultSelector() as selector:
            selector.register(connection.connection.fileno(), selectors.EVENT_READ)
            return bool(selector.select(seconds))

    # -- connecting ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Any]:
        from django.db import connections

        if self._connection is None:
            self._connection = _of_its_own(connections[self._using])
        self._connection.ensure_connection()
        with _ends_in_time(self._connection, self.timeout):
            yield self._connection

    def failure(self, error: Exception) -> BusUnavailable | None:
        from django.db import Error

        if not isinstance(error, Error | OSError):
            return None
        cause: Any = error.__cause__ or error
        code = getattr(cause, "sqlstate", None) or next(iter(cause.args), None)
        if code in _DENIED or "password authentication failed" in str(cause):
            return BusDenied("the bus refuses the credential")
        ours = any(table in str(error) for table in (_LOG, _EVENT, _REPORT))
        hint = "Run manage.py migrate." if ours else ""
        if code == _FORBIDDEN:
            hint = "Grant its user SELECT, INSERT, UPDATE and DELETE on the tables of the fleet."
        return BusUnavailable(f"the bus does not answer: {type(error).__name__}", hint=hint)

    def close(self) -> None:
        connection, self._connection, self._listening = self._connection, None, False
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.close()


def _of_its_own(shared: Any) -> Any:
    """Return a connection like ``shared`` that takes part in none of its transactions."""
    given = copy.deepcopy(shared.settings_dict)
    given["OPTIONS"].pop("pool", None)
    if shared.vendor in ("postgresql", "mysql"):
        given["OPTIONS"].setdefault("connect_timeout", 2)
    given["CONN_MAX_AGE"], given["CONN_HEALTH_CHECKS"] = None, False
    connection = type(shared)(given, shared.alias)
    connection.inc_thread_sharing()
    return connection


def _keep_no_notifications(connection: Any) -> None:
    """Have the driver keep none of what nobody looks at: it would keep all of them for ever."""
    if hasattr(connection, "add_notify_handler"):
        connection.add_notify_handler(lambda notification: None)
    else:  # psycopg2
        connection.notifies = deque(maxlen=0)


def _fields(text: str) -> dict[str, Any]:
    """Return what a report says that somebody may have written who is none of us."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


@contextlib.contextmanager
def _ends_in_time(connection: Any, seconds: float) -> Iterator[None]:
    """Cut the connection when the block takes longer: libpq waits for an answer for ever."""
    if connection.vendor != "postgresql":
        yield
        return
    with socket.socket(fileno=os.dup(connection.connection.fileno())) as twin:
        timer = threading.Timer(seconds, _cut, (twin,))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def _cut(twin: socket.socket) -> None:
    with contextlib.suppress(OSError):
        twin.shutdown(socket.SHUT_RDWR)
