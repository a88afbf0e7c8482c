"""A proxy in front of an S3 server that numbers requests, and lets the wanted ones go wrong.

The client signs the host that it calls, which is the proxy's; the server checks the signature against the header that
it receives, which is passed on as it is.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import urlsplit

SLOW_PIECES = 8
SLOW_SECONDS = 0.02
"""Pieces of a slow answer, and the pause before each: far below any timeout."""


class Fault(StrEnum):
    """What becomes of one request."""

    SLOW_DOWN = "503 SlowDown"
    ERROR = "500 InternalError"
    EXPIRED = "403 ExpiredToken"
    DENIED = "403 AccessDenied"
    CUT_REQUEST = "connection cut before the request was passed on"
    LOST_REPLY = "reply lost after the request was done"
    HALF_UPLOAD = "connection cut in the middle of the upload"
    TORN = "reply cut in the middle"
    TIMEOUT = "no reply"
    SLOW = "slow bytes"
    WRONG_BYTES = "a byte of the reply changed"
    WRONG_UPLOAD = "a byte of the upload changed"
    STALE = "the listing of before"


ANSWERED = {
    Fault.SLOW_DOWN: (503, "SlowDown"),
    Fault.ERROR: (500, "InternalError"),
    Fault.EXPIRED: (403, "ExpiredToken"),
    Fault.DENIED: (403, "AccessDenied"),
}


@dataclass(frozen=True)
class Request:
    """One request as a plan sees it: its number from 0, since the plan was set; method; target."""

    number: int
    method: str
    target: str

    @property
    def lists(self) -> bool:
        """Whether it asks for a listing."""
        return self.method == "GET" and "list-type=2" in self.target

    @property
    def reads(self) -> bool:
        """Whether it asks for an object, or a range of it."""
        return self.method == "GET" and not self.lists

    def __str__(self) -> str:
        path, _, query = self.target.partition("?")
        return f"{self.number} {self.method} {path}" + (f"?{query[:60]}" if query else "")


Plan = Callable[[Request], Fault | None]


def at(number: int, fault: Fault, last: int | None = None) -> Plan:
    """Let a request go wrong, or all from it on up to and with `last`."""
    end = number if last is None else last
    return lambda request: fault if number <= request.number <= end else None


def first(method: str, part: str, fault: Fault) -> Plan:
    """Let the first request of a method go wrong whose target has that in it."""
    hit: list[Request] = []

    def plan(request: Request) -> Fault | None:
        if hit or request.method != method or part not in request.target:
            return None
        hit.append(request)
        return fault

    return plan


def nothing(_request: Request) -> Fault | None:
    """Let everything pass."""
    return None


@dataclass
class _Message:
    """A request or a reply: its first line, its headers as they came, its body."""

    first: bytes
    headers: list[bytes]
    body: bytes = b""

    def value(self, name: bytes) -> bytes | None:
        wanted = name.lower() + b":"
        return next((one.split(b":", 1)[1].strip() for one in self.headers if one.lower().startswith(wanted)), None)

    def head(self) -> bytes:
        return b"".join([self.first, *self.headers, b"\r\n"])


@dataclass
class Proxy:
    """Passes requests on to a server; `endpoint` is its own address.

    Attributes:
        upstream: URL of the server.
        seen: All requests since the plan was set.
        done: Those that something was done to.
        passed: Called when the server has done a request, or has got half of it, before its reply is handed on.
    """

    upstream: str
    plan: Plan = nothing
    seen: list[Request] = field(default_factory=list)
    done: list[tuple[Request, Fault]] = field(default_factory=list)
    passed: Callable[[Request], None] = lambda request: None
    _listings: dict[str, _Message] = field(default_factory=dict, repr=False)
    _clients: set[asyncio.Task[None]] = field(default_factory=set, repr=False)
    _port: int = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def use(self, plan: Plan) -> None:
        """Set a plan, and count from 0 again."""
        self.seen, self.done = [], []
        self.plan = plan

    def forget_listings(self) -> None:
        """Take listings from now on as those that a stale one repeats; the first of each target is kept."""
        self._listings = {}

    async def serve(self, ready: threading.Event, stop: asyncio.Event) -> None:
        server = await asyncio.start_server(self._client, "127.0.0.1", 0)
        self._port = server.sockets[0].getsockname()[1]
        ready.set()
        async with server:
            await stop.wait()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # a loop keeps no task alive that waits for nobody but its own connection
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while (message := await _read(reader)) is not None:
                method, target, _ = message.first.decode().split(" ", 2)
                request = Request(len(self.seen), method, target)
                self.seen.append(request)
                if not await self._answer(request, message, writer):
                    break
        writer.close()

    async def _answer(self, request: Request, message: _Message, writer: asyncio.StreamWriter) -> bool:
        """Answer a request; returns whether the connection goes on."""
        fault = self.plan(request)
        if fault is not None and not _fits(fault, request, message):
            fault = None
        if fault is not None:
            self.done.append((request, fault))
        if fault in ANSWERED:
            await _send(writer, _refusal(*ANSWERED[fault], request.method))
            return True
        if fault is Fault.CUT_REQUEST:
            return False
        if fault is Fault.TIMEOUT:
            await asyncio.sleep(30)
            return False
        if fault is Fault.WRONG_UPLOAD:
            message.body = _flipped(message.body)
        if fault is Fault.STALE and (before := self._listings.get(request.target)):
            await _send(writer, before)
            return True
        reply = await self._pass_on(request, message, half=fault is Fault.HALF_UPLOAD)
        if reply is None or fault is Fault.LOST_REPLY:
            return False
        return await _deliver(writer, reply, fault)

    async def _pass_on(self, request: Request, message: _Message, half: bool) -> _Message | None:
        address = urlsplit(self.upstream)
        try:
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
        except OSError:
            return None
        try:
            writer.write(message.head() + (message.body[: len(message.body) // 2] if half else message.body))
            await writer.drain()
            if half:
                self.passed(request)
                return None
            reply = await _read(reader, request.method)
        except (OSError, asyncio.IncompleteReadError):
            return None
        finally:
            writer.close()
        if reply is not None and request.lists:
            self._listings.setdefault(request.target, reply)
        self.passed(request)
        return reply


def _fits(fault: Fault, request: Request, message: _Message) -> bool:
    if fault is Fault.WRONG_BYTES:
        return request.reads
    if fault in (Fault.WRONG_UPLOAD, Fault.HALF_UPLOAD):
        return request.method == "PUT" and bool(message.body)
    return fault is not Fault.STALE or request.lists


async def _deliver(writer: asyncio.StreamWriter, reply: _Message, fault: Fault | None) -> bool:
    if fault is Fault.WRONG_BYTES and reply.body:
        reply.body = _flipped(reply.body)
    whole = reply.head() + reply.body
    if fault is Fault.TORN:
        # without a body the head is torn
        cut = len(whole) - (len(reply.body) + 1) // 2 if reply.body else len(whole) // 2
        writer.write(whole[:cut])
        await writer.drain()
        return False
    if fault is Fault.SLOW:
        step = len(whole) // SLOW_PIECES + 1
        for start in range(0, len(whole), step):
            await asyncio.sleep(SLOW_SECONDS)
            writer.write(whole[start : start + step])
            await writer.drain()
        return True
    await _send(writer, reply)
    return True


async def _send(writer: asyncio.StreamWriter, message: _Message) -> None:
    writer.write(message.head() + message.body)
    await writer.drain()


async def _read(reader: asyncio.StreamReader, method: str | None = None) -> _Message | None:
    """Read a request, or the reply to one of a method; None at the end."""
    first = await reader.readline()
    if not first:
        return None
    headers = []
    while (line := await reader.readline()) not in (b"\r\n", b""):
        headers.append(line)
    message = _Message(first, headers)
    if method == "HEAD" or (method and first.split()[1] in (b"204", b"304")):
        return message
    if (length := message.value(b"content-length")) is not None:
        message.body = await reader.readexactly(int(length))
    elif (message.value(b"transfer-encoding") or b"").lower() == b"chunked":
        message.body = await _chunks(reader)
        message.headers = [one for one in headers if not one.lower().startswith(b"transfer-encoding:")]
        message.headers.append(b"Content-Length: %d\r\n" % len(message.body))
    return message


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    found = b""
    while size := int((await reader.readline()).split(b";")[0], 16):
        found += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return found


def _refusal(status: int, code: str, method: str) -> _Message:
    text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>said by the proxy</Message></Error>".encode()
    body = b"" if method == "HEAD" else text
    headers = [b"Content-Type: application/xml\r\n", b"Content-Length: %d\r\n" % len(body)]
    return _Message(f"HTTP/1.1 {status} {code}\r\n".encode(), headers, body)


def _flipped(body: bytes) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]


@contextmanager
def proxy(upstream: str) -> Iterator[Proxy]:
    """A running proxy, in a thread of its own."""
    made, ready = Proxy(upstream), threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    def run() -> None:
        loop.run_until_complete(made.serve(ready, stop))
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    thread = threading.Thread(target=run, name="proxy", daemon=True)
    thread.start()
    try:
        assert ready.wait(10)
        yield made
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
