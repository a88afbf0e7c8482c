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
    ready = threading.Event()
    running: list[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def over() -> None:
        while not ends.exists():
            await asyncio.sleep(LOOK_SECONDS)

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while (data := await reader.read(65536)) and not ends.exists():
                writer.write(data)
                await writer.drain()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not ends.exists():
            server, to_server = await asyncio.open_connection("127.0.0.1", to)
            ways = [asyncio.create_task(pass_on(reader, to_server)), asyncio.create_task(pass_on(server, writer))]
            await asyncio.wait([*ways, asyncio.create_task(over())], return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            to_server.close()
        if ends.exists() and how == "silent":
            await asyncio.Event().wait()
        writer.close()

    async def run() -> None:
        server, stop = await asyncio.start_server(connected, "127.0.0.1", 0), asyncio.Event()
        running.append((server.sockets[0].getsockname()[1], asyncio.get_running_loop(), stop))
        ready.set()
        await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(run(),), daemon=True)
    thread.start()
    ready.wait()
    port, loop, stop = running[0]
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
