"""A TCP proxy that breaks what passes through it: what no real server does on demand.

It stands before a real server and leaves requests as they are, so signatures stay right. One fault at a time,
on the way to the client; each counts what it did, so that a test can see that its fault happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections import Counter
from dataclasses import dataclass
from types import TracebackType
from typing import Self

_BLOCK = 64 * 1024
_SLOW_DOWN = b'<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>injected</Message></Error>'
_503 = (
    b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_SLOW_DOWN), _SLOW_DOWN)
)


@dataclass(frozen=True, slots=True)
class Fault:
    """What to do to a connection.

    Attributes:
        kind: cut | rst | flip | stall | slow | http503 | refuse.
        at: byte of the answers on one connection, counted with their headers; for `slow` bytes per second.
        times: how often; then connections pass again. None is for good.
    """

    kind: str
    at: int = 0
    times: int | None = None


class FaultProxy:
    """`with FaultProxy(port) as proxy:` listens on `proxy.port`; no fault until one is set.

    Attributes:
        done: how often each kind happened.
        connections: how many were accepted.
    """

    def __init__(self, upstream_port: int) -> None:
        self.upstream_port = upstream_port
        self._fault: Fault | None = None
        self._left: int | None = None
        self._loop = asyncio.new_event_loop()
        self._stop, self._changed = asyncio.Event(), asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.done: Counter[str] = Counter()
        self.connections = 0
        self.port = 0

    @property
    def endpoint(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        listening = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(listening,), name="fault-proxy", daemon=True)
        self._thread.start()
        assert listening.wait(10), "the fault proxy did not start"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    # The faults.

    def cut(self, after: int, times: int | None = None) -> None:
        """Close in order after so many bytes."""
        self._set(Fault("cut", after, times))

    def rst(self, after: int, times: int | None = None) -> None:
        """Reset after so many bytes."""
        self._set(Fault("rst", after, times))

    def flip(self, at: int, times: int | None = None) -> None:
        """Change one bit of that byte."""
        self._set(Fault("flip", at, times))

    def stall(self, after: int, times: int | None = None) -> None:
        """Keep the connection and send nothing more."""
        self._set(Fault("stall", after, times))

    def slow(self, bytes_per_second: int) -> None:
        """Send at that speed."""
        self._set(Fault("slow", bytes_per_second))

    def http503(self, times: int) -> None:
        """Answer the next so many connections as a store that throttles does."""
        self._set(Fault("http503", times=times))

    def refuse(self) -> None:
        """Close each connection at once."""
        self._set(Fault("refuse"))

    def heal(self) -> None:
        """No fault any more; stalled connections are reset, slow ones go on at full speed."""
        self._set(None)

    def _set(self, fault: Fault | None) -> None:
        def change() -> None:
            self._fault, self._left = fault, fault.times if fault else None
            self._changed.set()
            self._changed = asyncio.Event()

        asyncio.run_coroutine_threadsafe(_call(change), self._loop).result(10)

    # The proxy, in its own thread and loop.

    def _run(self, listening: threading.Event) -> None:
        try:
            self._loop.run_until_complete(self._serve(listening))
        finally:
            self._loop.close()

    async def _serve(self, listening: threading.Event) -> None:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        listening.set()
        await self._stop.wait()
        server.close()
        # A connection accepted this very moment begins in the loop's next turns; ended before that, it would leak.
        for _ in range(3):
            await asyncio.sleep(0)
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            await self._converse(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # a broken connection is what this is for
        except asyncio.CancelledError:
            writer.transport.abort()  # the proxy ends: wait for no one
        finally:
            await _close(writer)
            self._tasks.discard(task)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._take("refuse"):
            return
        if self._take("http503"):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(_503)
            await writer.drain()
            return
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.upstream_port)
        ways = [asyncio.ensure_future(_copy(reader, up_writer)), asyncio.ensure_future(self._damage(up_reader, writer))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            up_writer.transport.abort()  # before any await: the proxy's end may cancel this very clean-up
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            await _close(up_writer)

    async def _damage(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent = 0
        while block := await reader.read(_BLOCK):
            fault = self._fault
            if fault and fault.kind == "slow":
                await self._wait(len(block) / fault.at)
            elif fault and sent <= fault.at < sent + len(block) and self._take(fault.kind):
                block = await self._apply(fault, block, sent, writer)
            sent += len(block)
            writer.write(block)
            await writer.drain()

    async def _apply(self, fault: Fault, block: bytes, sent: int, writer: asyncio.StreamWriter) -> bytes:
        """The damaged block.

        Raises:
            ConnectionAbortedError: this was the connection's end.
        """
        before = fault.at - sent
        if fault.kind == "flip":
            return block[:before] + bytes([block[before] ^ 1]) + block[before + 1 :]
        writer.write(block[:before])
        await writer.drain()
        if fault.kind == "stall":
            await self._wait(None)
        if fault.kind in ("rst", "stall"):
            _reset(writer)
        raise ConnectionAbortedError(fault.kind)

    async def _wait(self, seconds: float | None) -> None:
        """Until the time is over or another fault is set."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds)

    def _take(self, kind: str) -> bool:
        if self._fault is None or self._fault.kind != kind or self._left == 0:
            return False
        self._left = None if self._left is None else self._left - 1
        self.done[kind] += 1
        return True


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while block := await reader.read(_BLOCK):
        writer.write(block)
        await writer.drain()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _call(change: object) -> None:
    assert callable(change)
    change()
