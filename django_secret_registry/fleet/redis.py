"""The bus in Redis Streams: each worker reads from its own cursor, with a read that blocks."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..exceptions import InvalidProvider
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
)

if TYPE_CHECKING:
    from redis import Redis

# The number of an event and its place in the stream are one: <ms>-<number>. Its time never runs
# backwards, as a stream's must not, though the server's clock may. Where the stream holds what was
# not written here, and takes no more, a log begins anew: that is a gap for everybody.
_APPEND = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function begin()
  redis.call('DEL', KEYS[2])
  redis.call('HSET', KEYS[1], 'log', ARGV[1], 'number', 0, 'ms', 0)
end
local function add()
  local ms = math.max(now, tonumber(redis.call('HGET', KEYS[1], 'ms')))
  local number = redis.call('HINCRBY', KEYS[1], 'number', 1)
  ms = string.format('%d', ms)
  redis.call('HSET', KEYS[1], 'ms', ms)
  local id = ms .. '-' .. string.format('%d', number)
  return redis.pcall('XADD', KEYS[2], id, 'event', ARGV[2])
end
if redis.call('HEXISTS', KEYS[1], 'log') == 0 then begin() end
local added = add()
if type(added) == 'table' and added.err then
  begin()
  added = add()
  if type(added) == 'table' and added.err then return added end
end
redis.call('XTRIM', KEYS[2], 'MINID', '~', string.format('%d', math.max(0, now - ARGV[3])))
return redis.call('HMGET', KEYS[1], 'log', 'number', 'ms')
"""

# Where a log ends; it begins with whoever looks first, and anew where another end stands there.
_END = """
local log, number, ms = unpack(redis.call('HMGET', KEYS[1], 'log', 'number', 'ms'))
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
if not (log and number and ms) or (last and last[1] ~= ms .. '-' .. number) then
  redis.call('DEL', KEYS[2])
  redis.call('HSET', KEYS[1], 'log', ARGV[1], 'number', 0, 'ms', 0)
  return {ARGV[1], '0', '0'}
end
return {log, number, ms}
"""

# A report: what it says, and until when it lives, in one step; 0 when there was none to change.
_BEAT = """
local known = redis.call('EXISTS', KEYS[2])
if ARGV[3] == '1' then redis.call('DEL', KEYS[2]) elseif known == 0 then return 0 end
local i = 5
for _ = 1, tonumber(ARGV[4]) do
  redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
  i = i + 2
end
while i <= #ARGV do
  redis.call('HDEL', KEYS[2], ARGV[i])
  i = i + 1
end
redis.call('PEXPIRE', KEYS[2], ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
return 1
"""


class RedisBus(Bus):
    """A stream, a hash and the workers' reports under ``prefix``; Redis 6.2 or later.

    ``url`` as redis-py takes it (``redis://``, ``rediss://``, ``unix://``); ``client`` are further
    arguments of its client. All keys lie in one hash slot of a cluster.
    """

    requires = ("redis",)

    def __init__(
        self,
        *,
        url: str,
        prefix: str = "secret-registry",
        client: Mapping[str, Any] | None = None,
    ) -> None:
        self._url = url
        self._arguments = dict(client or {})
        self._client: Redis | None = None
        self._base = f"{{{prefix}}}"
        self._name_keys(self._base)

    def _name_keys(self, base: str) -> None:
        self._meta, self._stream = f"{base}:log", f"{base}:events"
        self._workers, self._report = f"{base}:workers", f"{base}:worker:"

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> list[Problem]:
        problems = super().check(options)
        url = options.get("url", "redis://")
        if not (isinstance(url, str) and url.partition("://")[0] in ("redis", "rediss", "unix")):
            hint = 'Write a URL such as "redis://redis.example.com:6379/0", or rediss:// for TLS.'
            problems.append(Problem("option 'url' is no URL of a Redis", hint))
        return problems

    @operation
    def append(self, event: BusEvent) -> Cursor:
        client = self._connected()
        keep = int(RETENTION * 1000)
        answer = client.eval(
            _APPEND, 2, self._meta, self._stream, secrets.token_hex(8), event.encode(), keep
        )
        return _cursor(answer)

    @operation
    def read_since(self, cursor: Cursor | None, *, block: float) -> Batch:
        if cursor is None:
            return self._anew()
        client = self._connected()
        # First the log's state, then its events: what the state counts must come with them.
        pipe = client.pipeline(transaction=False)
        pipe.hmget(self._meta, "log", "number")
        pipe.xread(
            {self._stream: cursor.place},
            count=self.most,
            # Never 0, which is "for ever".
            block=math.ceil(block * 1000) if block > 0 else None,
        )
        (log, number), answer = pipe.execute()
        entries = _entries(answer)
        numbers = [int(entry.partition(b"-")[2]) for entry, _ in entries]
        known = log.decode() if log is not None else None
        if not continues(cursor, known, int(number or 0), numbers):
            return self._anew()
        if not entries:
            return Batch((), cursor)
        events = [
            (number, decode(fields[1]) if fields else None)
            for number, (_, fields) in zip(numbers, entries, strict=True)
        ]
        end = Cursor(cursor.log, numbers[-1], entries[-1][0].decode())
        return Batch(events, end, more=len(entries) >= self.most)

    def _anew(self) -> Batch:
        client = self._connected()
        answer = client.eval(_END, 2, self._meta, self._stream, secrets.token_hex(8))
        return Batch((), _cursor(answer), gap=True)

    @operation
    def heartbeat(
        self, worker: str, changed: Mapping[str, str | None], *, lifetime: float, anew: bool
    ) -> bool:
        said = {name: text for name, text in changed.items() if text is not None}
        gone = [name for name, text in changed.items() if text is None]
        arguments: list[Any] = [worker, int(lifetime * 1000), int(anew), len(said)]
        for pair in said.items():
            arguments += pair
        client = self._connected()
        keys = self._workers, self._report + worker
        return bool(client.eval(_BEAT, 2, *keys, *arguments, *gone))

    @operation
    def workers(self, *, heads: bool = False) -> list[Report]:
        client = self._connected()
        seconds, microseconds = client.time()
        rows: Any = client.zrange(self._workers, 0, -1, withscores=True)
        pipe = client.pipeline(transaction=False)
        for name, _ in rows:
            key = self._report.encode() + name
            if heads:
                pipe.hget(key, "")
            else:
                pipe.hgetall(key)
        reports: Any = pipe.execute() if rows else []
        now = seconds + microseconds / 1e6
        return [
            Report(
                _text(name),
                max(0.0, now - ms / 1000),
                {"": _text(said)}
                if heads
                else {_text(field): _text(text) for field, text in said.items()},
            )
            for (name, ms), said in zip(rows, reports, strict=True)
            if said
        ]

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def failure(self, error: Exception) -> BusUnavailable | None:
        import redis

        if not isinstance(error, redis.RedisError | OSError | ValueError | IndexError):
            return None
        denied = redis.AuthenticationError, redis.exceptions.AuthorizationError
        text = str(error)
        if isinstance(error, redis.exceptions.NoPermissionError) or "NOPERM" in text:
            # Not a matter of the credential, which need not be read anew for it.
            return BusUnavailable("the bus refuses its user a command or a key", hint=_PERMISSIONS)
        if isinstance(error, denied) or text.startswith(("WRONGPASS", "NOAUTH")):
            return BusDenied("the bus refuses the credential")
        hint = next((hint for word, hint in _HINTS.items() if word in text.upper()), "")
        if isinstance(error, redis.exceptions.ReadOnlyError):
            hint = _READ_ONLY
        verb = "refuses" if isinstance(error, redis.ResponseError) else "does not answer"
        return BusUnavailable(f"the bus {verb}: {type(error).__name__}", hint=hint)

    def _connected(self) -> Redis:
        if self._client is None:
            self._client = self._make()
        return self._client

    def _make(self) -> Redis:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        try:
            client = redis.Redis.from_url(
                str.__str__(self._url),
                **{
                    "socket_timeout": self.timeout + 1.0,  # of a read that blocks for a second
                    "socket_connect_timeout": self.timeout,
                    "socket_keepalive": True,
                    "retry": Retry(NoBackoff(), 0),  # the worker tries again, and knows when
                    **self._arguments,
                },
            )
        except (TypeError, ValueError) as error:
            kind = type(error).__name__
        else:
            # Whatever a URL says for other uses: what is read here are bytes, and entries as they
            # come over the wire, which the protocols and versions of the library make others of.
            client.connection_pool.connection_kwargs["decode_responses"] = False
            client.set_response_callback("XREAD", lambda answer, **_: answer)
            return client
        raise InvalidProvider(f"the bus cannot be made from its OPTIONS: {kind}")

    def probe(self) -> Iterator[Problem]:
        client = self._connected()
        version = str(client.info("server").get("redis_version", ""))
        if _numbers(version) < _OLDEST:
            oldest = ".".join(map(str, _OLDEST))
            yield Problem(f"it is Redis {version}, and {oldest} is needed", "Upgrade the server.")
            return
        # All that is asked of it, in keys that nobody reads.
        trial = RedisBus(url=self._url, client=self._arguments)
        trial._name_keys(f"{self._base}:probe")
        try:
            start = trial.read_since(None, block=0).cursor
            trial.append(BusEvent.new("probe", origin="manage.py check"))
            trial.read_since(start, block=0)
            trial.heartbeat("probe", {"": "{}"}, lifetime=1.0, anew=True)
            trial.workers()
            trial._connected().delete(
                *(trial._meta, trial._stream, trial._workers, f"{trial._report}probe")
            )
        finally:
            trial.close()


#: The oldest version that has all commands that are used: XTRIM with MINID came with it.
_OLDEST = (6, 2)

_READ_ONLY = "It is a replica: name the primary in the option 'url'."
_PERMISSIONS = (
    "Allow its user +@hash +@stream +@sortedset +@scripting +@keyspace +time +info on the keys"
    " {PREFIX}:*, in braces, as in ~{secret-registry}:*."
)
#: What to do about an error, by a word of its text.
_HINTS = {
    "READONLY": _READ_ONLY,
    "UNKNOWN COMMAND": "RedisBus needs Redis 6.2 or later, with streams and scripts.",
    "SYNTAX ERROR": "RedisBus needs Redis 6.2 or later, with streams and scripts.",
    "NOREPLICAS": "It takes no writes while it lacks replicas: see min-replicas-to-write.",
    "MISCONF": "It takes no writes while it cannot save them: see its log.",
    "MAXMEMORY": "It is full: see maxmemory.",
    "MOVED": "It is one node of a cluster: name the one that has the slot of the prefix.",
}


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())


def _entries(answer: Any) -> list[Any]:
    """Return the entries of an answer of XREAD for one stream, in either protocol."""
    streams = answer.items() if isinstance(answer, dict) else answer or ()
    return [entry for _, entries in streams for entry in entries]


def _text(said: bytes) -> str:
    """Return text that somebody may have written who is none of us."""
    return said.decode(errors="replace")


def _cursor(answer: Any) -> Cursor:
    log, number, ms = answer
    return Cursor(log.decode(), int(number), f"{ms.decode()}-{int(number)}")
