"""Restores in place as the flow makes them, their undoing, and a proxy that does something at a chosen moment."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import pyarrow as pa

from blocks.rows.selection import Selection
from blocks.sources.redis import RedisSource
from blocks.sources.target import RestoreMode, RestoreScope, Target
from blocks.sources.view import Salvaging, Unread, View
from tests.blocks.sources.redis.kit import Backup, read_all

EVERYTHING = Selection()


def scope_of(
    backup: Backup,
    source: RedisSource,
    mode: RestoreMode = RestoreMode.EXACT,
    selection: Selection = EVERYTHING,
    **more: object,
) -> RestoreScope:
    specs = [spec for spec in backup.specs.values() if selection.has_collection(spec.name) and source.covers(spec)]
    counts = tuple((spec, backup.table(spec.name).num_rows) for spec in specs)
    size = sum(table.nbytes for tables in backup.rows.values() for table in tables)
    return RestoreScope(backup.definition, counts, mode, selection, size, **{"plan": "trading"} | more)  # type: ignore[arg-type]


def read_view(view: View) -> Backup:
    backup = Backup(dict(view.definition))
    for spec in view.collections():
        backup.specs[spec.name] = spec
        backup.rows[spec.name] = [view.read(spec, bounds, None).rows for bounds in view.partition(spec)]
    view.finish()
    return backup


def rescue(source: RedisSource, target: Target) -> tuple[Backup, list[Unread]]:
    """Make the backup before a restore, as far as there is something to read."""
    with source.salvage() as view:
        target.guard(view)
        backup = read_view(view)
        assert isinstance(view, Salvaging)
        unread = list(view.unread)
    if unread:
        target.keep_aside(unread)
    return backup, unread


def put(backup: Backup, source: RedisSource, target: Target, selection: Selection = EVERYTHING) -> None:
    for name, spec in backup.specs.items():
        if selection.has_collection(name) and source.covers(spec):
            for rows in backup.rows[name]:
                target.apply(spec, covered(source, backup, name, selection.rows(rows, spec.label)))


def covered(source: RedisSource, backup: Backup, name: str, rows: pa.Table) -> pa.Table:
    mask = source.covered(backup.specs[name], rows)
    return rows if mask is None else rows.filter(mask)


def restore(
    backup: Backup,
    source: RedisSource,
    mode: RestoreMode = RestoreMode.EXACT,
    selection: Selection = EVERYTHING,
    to: str | None = None,
    meanwhile: Callable[[], object] | None = None,
    **more: object,
) -> tuple[Backup, Target]:
    """Restore in place; return the backup from before and the target."""
    target = source.target(scope_of(backup, source, mode, selection, **more), to)
    try:
        target.preflight()
        target.hold()
        before, _ = rescue(source if to is None else source.at(to), target)
        target.begin()
        put(backup, source, target, selection)
        if meanwhile is not None:
            meanwhile()
        target.check_unwritten()
        target.commit()
    finally:
        target.abort()
    return before, target


def narrowed(backup: Backup, selection: Selection) -> Backup:
    """What a backup that is as narrow as a restore holds."""
    specs = {name: spec for name, spec in backup.specs.items() if selection.has_collection(name)}
    rows = {name: [selection.rows(each, specs[name].label) for each in backup.rows[name]] for name in specs}
    return replace(backup, specs=specs, rows=rows)


def undo(before: Backup, source: RedisSource, selection: Selection = EVERYTHING, **more: object) -> None:
    """Restore the backup from before exactly."""
    restore(narrowed(before, selection), source, RestoreMode.EXACT, selection, **more)  # type: ignore[arg-type]


def state(source: RedisSource) -> dict[str, list[object]]:
    """All rows, as the source reads them."""
    backup = read_all(source)
    return {name: sorted(backup.table(name).to_pylist(), key=repr) for name in backup.rows if backup.rows[name]}


class Proxy:
    """Stands before a server, and looks at what clients send.

    Args:
        port: Of the server.
        look: Is told what a client is about to send; False closes all connections instead.
    """

    def __init__(self, port: int, look: Callable[[bytes], bool | None]) -> None:
        self._port, self._look = port, look
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._listening.getsockname()[1]}"

    def close(self) -> None:
        for each in [self._listening, *self._open]:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
                self._open += [client, server]
                threading.Thread(target=self._pump, args=(client, server, self._look), daemon=True).start()
                threading.Thread(target=self._pump, args=(server, client, None), daemon=True).start()

    def _pump(self, one: socket.socket, other: socket.socket, look: Callable[[bytes], bool | None] | None) -> None:
        with suppress(OSError):
            while data := one.recv(1 << 20):
                if look is not None and look(data) is False:
                    self.close()
                    return
                other.sendall(data)
        with suppress(OSError):
            other.shutdown(socket.SHUT_WR)


@contextmanager
def proxied(port: int, look: Callable[[bytes], bool | None]) -> Iterator[Proxy]:
    proxy = Proxy(port, look)
    try:
        yield proxy
    finally:
        proxy.close()
