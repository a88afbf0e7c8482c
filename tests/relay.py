"""A relay before a server, which goes away, or stays and is silent, from the moment that a test wants."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

LOOK_SECONDS = 0.02


@contextmanager
def relay(to: int, ends: Path, how: Literal["gone", "silent"]) -> Iterator[int]:
    """Relay to a port of this machine until a file is there; from then on cut all connections, or pass nothing on.

    Args:
        to: The port of the server.
        ends: The file.
        how: What becomes of it then.

    Yields:
        The port of the relay.
    """
    loop, ready = asyncio.new_event_loop(), threading.Event()
    ports: list[int] = []

    async def over() -> None:
        while not ends.exists():
            await asyncio.sleep(LOOK_SECONDS)

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if ends.exists():
                return
            writer.write(data)
            await writer.drain()
        writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            if not ends.exists():
                server, to_server = await asyncio.open_connection("127.0.0.1", to)
                ways = [asyncio.create_task(pass_on(reader, to_server)), asyncio.create_task(pass_on(server, writer))]
                both, end = asyncio.gather(*ways, return_exceptions=True), asyncio.create_task(over())
                await asyncio.wait([both, end], return_when=asyncio.FIRST_COMPLETED)
                both.cancel()
            if how == "silent" and ends.exists():
                await asyncio.Event().wait()
            writer.transport.abort()

    async def run() -> None:
        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
        ready.set()
        await server.serve_forever()

    def work() -> None:
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(task)

    task = loop.create_task(run())
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    ready.wait()
    try:
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
