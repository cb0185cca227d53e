# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: The ansible_mitogen_svc authors
"""A TCP proxy on loopback that delays, counts and may cut what passes: a slow link without network privileges.

How it works

1. One thread runs an asyncio loop. Each accepted connection gets a connection to the upstream address and two pumps.
2. A pump stamps every chunk with the time it may leave (arrival + ``one_way`` seconds) and a writer sends it then,
   so that the delay adds to each direction without limiting throughput. With a ``rate`` each chunk also takes as long
   as it would at so many bytes per second, and little more is read than is sent.
3. `cut` closes all connections at once, as a lost link would; `cut_after` does so when a number of further bytes have
   gone to the server; `close` ends thread and listener.
"""
from __future__ import annotations

import asyncio
import dataclasses
import threading

CHUNK = 65536


@dataclasses.dataclass(frozen=True)
class ProxyStatistics:
    """Connections accepted so far, and bytes by direction (``up``: to the server)."""

    connections: int
    bytes_up: int
    bytes_down: int


class DelayProxy:
    """Forwards ``address:port`` (a free port unless given) to ``upstream``, ``one_way`` seconds later each way.

    ``rate``: bytes per second each way, 0 for as many as come.
    """

    def __init__(self, upstream: tuple[str, int], one_way: float, address: str = '127.0.0.1', rate: int = 0) -> None:
        self.address = address
        self.port = 0
        self._upstream = upstream
        self._one_way = one_way
        self._rate = rate
        self._counts = {'connections': 0, 'bytes_up': 0, 'bytes_down': 0}
        #: bytes that still pass to the server before everything is cut; None: no end
        self._left: int | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._serve, name='delay-proxy', daemon=True)

    def __enter__(self) -> DelayProxy:
        self._thread.start()
        if not self._ready.wait(10):
            raise RuntimeError('the proxy did not start')
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def statistics(self) -> ProxyStatistics:
        """A snapshot of the counters."""
        return ProxyStatistics(**self._counts)

    def cut(self) -> None:
        """Reset every connection that is open now; new ones are accepted."""
        self._loop.call_soon_threadsafe(self._abort_all)

    def cut_after(self, count: int | None) -> None:
        """Cut everything after the next ``count`` bytes to the server, to the byte; None takes that back."""
        self._loop.call_soon_threadsafe(setattr, self, '_left', count)

    def close(self) -> None:
        """End all connections and the thread; may be called twice."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(10)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._main())
        self._loop.close()

    async def _main(self) -> None:
        server = await asyncio.start_server(self._accepted, self.address, 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        self._abort_all()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _abort_all(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._counts['connections'] += 1
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._upstream)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        pumps = [asyncio.ensure_future(self._pump(reader, far_writer, 'bytes_up')),
                 asyncio.ensure_future(self._pump(far_reader, writer, 'bytes_down'))]
        self._tasks.update(pumps)
        await asyncio.gather(*pumps, return_exceptions=True)
        self._tasks.difference_update(pumps)
        self._writers -= {writer, far_writer}
        for end in (writer, far_writer):
            end.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, counter: str) -> None:
        queue: asyncio.Queue[tuple[float, bytes | None]] = asyncio.Queue(2 if self._rate else 0)
        sender = asyncio.ensure_future(self._send(queue, writer))
        self._tasks.add(sender)
        try:
            while data := await reader.read(CHUNK):
                ends = counter == 'bytes_up' and self._left is not None and len(data) >= self._left
                if counter == 'bytes_up' and self._left is not None:
                    data = data[:self._left]
                    self._left -= len(data)
                self._counts[counter] += len(data)
                await queue.put((self._loop.time() + self._one_way, data))
                if ends:
                    self._left = None
                    await queue.put((self._loop.time() + self._one_way, None))
        except OSError:
            writer.transport.abort()
        await queue.put((self._loop.time() + self._one_way, b''))
        await sender
        self._tasks.discard(sender)

    async def _send(self, queue: asyncio.Queue[tuple[float, bytes | None]], writer: asyncio.StreamWriter) -> None:
        while True:
            leave, data = await queue.get()
            await asyncio.sleep(max(0.0, leave - self._loop.time()))
            if data is None:
                self._abort_all()
                return
            if not data:
                if writer.can_write_eof():
                    writer.write_eof()
                return
            try:
                writer.write(data)
                await writer.drain()
                if self._rate:
                    await asyncio.sleep(len(data) / self._rate)
            except OSError:
                return
