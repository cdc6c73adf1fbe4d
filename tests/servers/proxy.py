"""What lies between a client and a server, and breaks on demand: a TCP proxy, a name server."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

#: Close with a reset instead of an orderly end.
_RESET = struct.pack("ii", 1, 0)
#: Seconds between the bytes of an answer that drips.
_DRIP = 0.1


class Proxy:
    """Passes bytes between its port of 127.0.0.1 and a server, as told; starts by passing all.

    A fault holds until :meth:`heal`, also for connections that are open already. ``seen`` is what
    was sent in either direction, if the proxy is ``recording``.
    """

    def __init__(self, host: str, port: int, *, recording: bool = False) -> None:
        self.seen = bytearray()
        self._recording = recording
        self._stranded: set[asyncio.StreamWriter] = set()
        self._upstream = host, port
        self._mode = "pass"
        self._needle = b""
        self._ends: set[asyncio.StreamWriter] = set()  # the clients' ends of open connections
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._changed = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._reserved: socket.socket | None = _bind(0)
        self.port: int = self._reserved.getsockname()[1]
        self.heal()

    @property
    def open(self) -> int:
        """How many connections clients have open."""
        return len(self._ends)

    def heal(self) -> None:
        """Pass everything on."""
        self._set("pass")
        self._do(self._listen())

    def reset(self, needle: bytes) -> None:
        """Reset the connection in the middle of the answer that holds ``needle``."""
        self._set("reset", needle)

    def drip(self, needle: bytes) -> None:
        """Hand out byte by byte what begins with ``needle`` in an answer."""
        self._set("drip", needle)

    def strand(self) -> None:
        """Pass nothing on over what is open, and close nothing: TCP that is half open."""

        async def strand() -> None:
            self._stranded |= self._ends

        self._do(strand())

    def cut(self) -> None:
        """Break all connections; new ones pass."""
        self._do(self._cut())

    def refuse(self) -> None:
        """Break all connections, and refuse new ones."""
        self._do(self._refuse())

    def stop(self) -> None:
        self._do(self._refuse())
        if self._reserved is not None:
            self._reserved.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _set(self, mode: str, needle: bytes = b"") -> None:
        async def change() -> None:
            self._mode, self._needle = mode, needle
            self._changed.set()
            self._changed = asyncio.Event()

        self._do(change())

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        if self._reserved is not None:
            self._server = await asyncio.start_server(self._serve, sock=self._reserved)
            self._reserved = None

    async def _cut(self) -> None:
        for end in list(self._ends):
            _abort(end)

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
            # A port that is bound and not listened to refuses, and nobody else can take it.
            self._reserved = _bind(self.port)
        # Also those that were accepted just now, and have no end here yet.
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for end in list(self._ends):
                _abort(end)
            await asyncio.wait(others, timeout=0.01)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._ends.add(writer)
        try:
            answers, there = await asyncio.open_connection(*self._upstream)
            pumps = {
                asyncio.ensure_future(self._pump(reader, there, _plainly, writer)),
                asyncio.ensure_future(self._pump(answers, writer, self._answer, writer)),
            }
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            # One end that is closed closes the other, and the pump that is left ends with that.
            there.close()
            writer.close()
            await asyncio.wait(pumps)
            await asyncio.gather(there.wait_closed(), writer.wait_closed(), return_exceptions=True)
        except OSError:
            writer.close()
        finally:
            self._ends.discard(writer)
            self._stranded.discard(writer)

    async def _pump(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        write: Callable[[asyncio.StreamWriter, bytes], Coroutine[Any, Any, None]],
        client: asyncio.StreamWriter,
    ) -> None:
        try:
            while data := await source.read(65536):
                if self._recording:
                    self.seen += data
                if client not in self._stranded:
                    await write(sink, data)
        except OSError:
            pass

    async def _answer(self, sink: asyncio.StreamWriter, data: bytes) -> None:
        start = data.find(self._needle) if self._needle else -1
        if start >= 0 and self._mode == "reset":
            await _plainly(sink, data[: start + len(self._needle) // 2])
            _abort(sink)
            return
        if start >= 0 and self._mode == "drip":
            await _plainly(sink, data[:start])
            data = data[start:]
            while self._mode == "drip" and data:
                await _plainly(sink, data[:1])
                data = data[1:]
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), _DRIP)
        await _plainly(sink, data)


async def _plainly(sink: asyncio.StreamWriter, data: bytes) -> None:
    sink.write(data)
    await sink.drain()


def _abort(end: asyncio.StreamWriter) -> None:
    connection = end.get_extra_info("socket")
    if connection is not None and not end.transport.is_closing():
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    end.transport.abort()


def _bind(port: int) -> socket.socket:
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(("127.0.0.1", port))
    return reserved


class NameServer:
    """A DNS server on a free port of 127.0.0.1 that knows no name."""

    def __init__(self) -> None:
        self._socket = socket.socket(type=socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as last:
            last.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            question, client = self._socket.recvfrom(512)
            if not question:
                return
            # RFC 1035, 4.1.1: an answer to this one question, NXDOMAIN, without records.
            header = question[:2] + b"\x81\x83" + question[4:6] + b"\0" * 6
            self._socket.sendto(header + question[12:], client)
