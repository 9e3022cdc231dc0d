"""A TCP proxy that lets everything through, each byte so much later; it does not limit how much is under way."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import suppress


class Delay(threading.Thread):
    """In front of 127.0.0.1:`target`; `round_trip` in seconds. Listens on `port`, as long as this process lives."""

    def __init__(self, target: int, round_trip: float) -> None:
        super().__init__(daemon=True)
        self._target, self._one_way = target, round_trip / 2
        self._ready = threading.Event()
        self.port = 0
        self.start()
        self._ready.wait(10)

    def run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await server.serve_forever()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(2 * self._one_way)  # the handshake, which this machine has answered by itself already
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._target)
        for end in (writer, to_writer):
            end.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.gather(self._pump(reader, to_writer), self._pump(to_reader, writer))

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        async def later() -> None:
            while True:
                due, content = await queue.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                if not content:
                    target.close()
                    return
                target.write(content)

        task = asyncio.create_task(later())
        content = b"x"
        while content:
            content = b""
            with suppress(OSError):
                content = await source.read(1 << 16)
            queue.put_nowait((loop.time() + self._one_way, content))
        with suppress(OSError):
            await task
