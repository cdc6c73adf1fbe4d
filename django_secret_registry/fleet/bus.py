"""The bus: an ordered log of events with numbers that have no gaps, and the workers' reports.

A driver is a :class:`Bus`. It keeps the log in an engine; what is done about an event, a gap or an
outage is the business of :mod:`.worker`.
"""

from __future__ import annotations

import functools
import inspect
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, TypeVar, cast

from ..exceptions import SecretError
from ..providers.base import Problem

#: The version of what goes over the wire. Processes of another one cannot read each other.
WIRE_VERSION = 1

#: Seconds that events are kept: a worker that was away for longer has a gap.
RETENTION = 3600.0

EVICT, EVICT_PROVIDER, EVICT_ALL = "evict", "evict_provider", "evict_all"
REFRESH, REFRESH_PROVIDER = "refresh", "refresh_provider"
ROTATED, WARM = "rotated", "warm"

#: No name, alias or region is longer; a text that is was not written by this package. Nor is an
#: event of several of them.
_LONGEST, _LONGEST_EVENT = 2048, 16 * 1024


class BusEvent(NamedTuple):
    """One event of the log: names only. An empty field is "any", or "none" for a region.

    ``nonce`` tells it from its equals, ``origin`` is the name of the worker that wrote it, and
    ``version`` is that of the wire.
    """

    kind: str
    provider: str = ""
    region: str = ""
    project: str = ""
    name: str = ""
    nonce: str = ""
    origin: str = ""
    version: int = WIRE_VERSION

    @classmethod
    def new(cls, kind: str, *where: str, origin: str) -> BusEvent:
        """Return an event about ``where``: provider, region, project, name, as many as matter."""
        named = dict(zip(("provider", "region", "project", "name"), where, strict=False))
        return cls(kind, **named, nonce=secrets.token_hex(8), origin=origin)  # type: ignore[arg-type]

    @property
    def meaning(self) -> tuple[str, ...]:
        """What equal events have in common."""
        return self[:5]

    def encode(self) -> str:
        """Return the text that goes over the wire."""
        return json.dumps(self._asdict(), separators=(",", ":"))


def decode(text: str | bytes) -> BusEvent | None:
    """Return the event of a text; ``None`` for what is none.

    Of an event of another wire version only that version can be relied on.
    """
    if len(text) > _LONGEST_EVENT:
        return None
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict) or type(fields.get("version")) is not int:
        return None
    if fields["version"] != WIRE_VERSION:
        return BusEvent("", version=fields["version"])
    known = {name: fields.get(name, "") for name in BusEvent._fields}
    texts = [value for name, value in known.items() if name != "version"]
    return BusEvent(**known) if all(map(is_text, texts)) else None


def is_text(value: object) -> bool:
    """Whether ``value`` is text that this package may have written, and that can be shown."""
    if not isinstance(value, str) or len(value) > _LONGEST:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:  # half a character, which no page can be made of
        return False
    return True


class Cursor(NamedTuple):
    """A place in a log: the identity of the log, the number of the last event that was read.

    ``place`` is what the driver needs besides.
    """

    log: str
    number: int
    place: str = ""

    def reached(self, other: Cursor) -> bool:
        """Whether who stands here has read what stands at ``other``."""
        return self.log == other.log and self.number >= other.number


class Batch(NamedTuple):
    """What a read brought. ``gap``: events may have been missed, and ``cursor`` is a new beginning.

    ``more``: there is more than fitted. An event is ``None`` where its text could not be read.
    """

    events: Sequence[tuple[int, BusEvent | None]]
    cursor: Cursor
    gap: bool = False
    more: bool = False


def continues(cursor: Cursor, log: str | None, last: int, numbers: Sequence[int]) -> bool:
    """Whether ``numbers`` are all that came after ``cursor`` in a log that ends at ``last``.

    ``last`` was read before them, so that there may be more; the first ones of what was trimmed,
    lost or flushed are missing.
    """
    expected = [*range(cursor.number + 1, cursor.number + 1 + len(numbers))]
    return (
        log == cursor.log
        and list(numbers) == expected
        and last >= cursor.number
        and (bool(numbers) or last == cursor.number)
    )


class Report(NamedTuple):
    """What a worker last said of itself, and how long ago (seconds, by the engine's clock)."""

    worker: str
    age: float
    fields: Mapping[str, str]


class BusUnavailable(SecretError):
    """The bus does not answer for now; it may be tried again."""


class BusDenied(BusUnavailable):
    """The bus refused the credential."""


_Operation = TypeVar("_Operation", bound=Callable[..., Any])


def operation(function: _Operation) -> _Operation:
    """Have a driver's operation raise what :meth:`Bus.failure` makes of its library's errors.

    Not chained: the libraries put parts of a URL, of connection parameters, or of what was sent
    into their messages.
    """

    @functools.wraps(function)
    def call(self: Bus, *args: Any, **kwargs: Any) -> Any:
        try:
            return function(self, *args, **kwargs)
        except SecretError:
            raise
        except Exception as error:
            failure = self.failure(error)
            if failure is None:
                raise
        self.close()
        raise failure

    return cast(_Operation, call)


class Bus:
    """A log in some engine. An instance is used by one thread at a time, and by no forked child.

    The keyword arguments of ``__init__`` are OPTIONS. Neither ``__init__`` nor ``check`` does I/O;
    each operation connects when it has to, ends within ``timeout`` seconds (plus ``block``) where
    the engine lets it, and raises :class:`BusUnavailable` only. Four operations:
    """

    #: Distributions that an instance imports; a check says when one is not installed.
    requires: ClassVar[tuple[str, ...]] = ()
    #: Seconds after which an engine that does not answer is taken to be gone.
    timeout = 1.0
    #: Events of one answer.
    most = 500

    def append(self, event: BusEvent) -> Cursor:
        """Write ``event`` at the end, for good or not at all as far as one can tell; return where.

        Events older than :data:`RETENTION` may be dropped.
        """
        raise NotImplementedError

    def read_since(self, cursor: Cursor | None, *, block: float) -> Batch:
        """Return what was written after ``cursor``, in order; wait ``block`` s for a first event.

        ``None``: begin at the end. All that was written before the call is in the answer, or after
        the answer's ``cursor`` when there is more than fits; or the answer says ``gap``.
        """
        raise NotImplementedError

    def heartbeat(
        self, worker: str, changed: Mapping[str, str | None], *, lifetime: float, anew: bool
    ) -> bool:
        """Change fields of the worker's report (``None``: no longer there).

        It is forgotten after ``lifetime`` s without another. ``anew``: these are all. Returns
        ``False`` when the engine has no report to change, so that the worker says all of it.
        """
        raise NotImplementedError

    def workers(self, *, heads: bool = False) -> list[Report]:
        """Return the reports that are not forgotten; ``heads``: the field ``""`` is enough."""
        raise NotImplementedError

    def probe(self) -> Iterable[Problem]:
        """Ask the engine whether it can carry the bus; yield what is in the way.

        For ``manage.py check --database``. Raises as operations do.
        """
        return ()

    def failure(self, error: Exception) -> BusUnavailable | None:
        """Return what an error of the library means; ``None``: it is a mistake of the program."""
        raise NotImplementedError

    @property
    def credentials(self) -> object:
        """Containers of settings whose secrets it connects with, besides OPTIONS."""
        return ()

    @property
    def database(self) -> str | None:
        """The alias of the database that carries it, if one of the project's does."""
        return None

    def close(self) -> None:
        """Release connections; may be called more than once, from any thread."""

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> list[Problem]:
        """Return what is wrong with OPTIONS, without I/O and without the SDK."""
        parameters = inspect.signature(cls).parameters
        problems = [
            Problem(f"unknown option {name!r}", f"Allowed: {', '.join(parameters) or 'none'}.")
            for name in sorted(set(map(str, options)) - set(parameters))
        ]
        problems += [
            Problem(f"option {name!r} is missing", f'Write "OPTIONS": {{"{name}": ...}}.')
            for name, parameter in parameters.items()
            if parameter.default is parameter.empty and name not in options
        ]
        return problems


def poll(
    read: Callable[[], Batch],
    block: float,
    interval: float,
    wait: Callable[[float], object] | None = None,
) -> Batch:
    """Return the first answer of ``read`` that says anything, or the one after ``block`` s.

    For engines that cannot be waited for: ``read`` is called every ``interval`` s.
    """
    wait = wait or threading.Event().wait
    deadline = time.monotonic() + block
    while True:
        batch = read()
        left = deadline - time.monotonic()
        if batch.events or batch.gap or left <= 0:
            return batch
        wait(min(interval, left))
