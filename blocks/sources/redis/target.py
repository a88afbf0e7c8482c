"""Restoring into Redis: commands are made and checked first, and sent in `commit`; a failure before it writes nothing.

Nothing is ever flushed: keys are replaced one by one, and an exact restore then removes the others by name.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from struct import Struct
from threading import Lock
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from blocks.errors import LastgoodError, RestoreRefused, SourceUnavailable
from blocks.sources.base import CollectionSpec, RestoreMode, RestoreScope
from blocks.sources.redis.cluster import Cluster
from blocks.sources.redis.commands import CommandWriter, Frame
from blocks.sources.redis.keys import KeySpool
from blocks.sources.redis.memory import Need, check_room, check_roughly
from blocks.sources.redis.sending import sender_to
from blocks.sources.redis.server import Server, is_master

_HEADER = Struct(">II")
_STEP_KEYS = 200_000


class RedisTarget:
    """A server that takes restored keys.

    Args:
        opened: Opens the server.
        scope: What is restored.
        databases: The number of the database of each collection, by its name.
        finish: Called with the server when all is written.
        put_off_ms: Added to every expiry, in the scratch restore of a verification.
        private: Whether the server is one of our own, that nobody else uses.
        only: The database that the place is, if it is one; then the others of its server are left alone.
    """

    def __init__(
        self,
        opened: Callable[[], AbstractContextManager[Server | Cluster]],
        scope: RestoreScope,
        databases: Mapping[str, int],
        finish: Callable[[Server | Cluster], None],
        put_off_ms: int = 0,
        private: bool = False,
        only: int | None = None,
    ) -> None:
        self._opened, self._scope, self._databases, self._finish = opened, scope, databases, finish
        self._put_off, self._private, self._only = put_off_ms, private, only
        self._exits = ExitStack()
        self._lock = Lock()
        self._folder: Path | None = None
        self._staged: list[tuple[int, Path]] = []
        self._keys: dict[int, KeySpool] = {}
        self._expired = self._expired_fields = 0
        self._need: Need | None = None
        self._server: Server | Cluster | None = None
        self.notes: list[str] = []
        """What `commit` found worth telling."""

    def preflight(self) -> tuple[str, ...]:
        """Reach the server, and see that it is a master, has the databases, and that it may have room."""
        server = self._reached()
        if isinstance(server, Cluster):
            server.check_settled()
        elif not is_master(server):
            raise RestoreRefused(
                f"{server} is a replica: what is written to it would be lost", hint="Name its master with --to."
            )
        for number in sorted(set(self._databases.values())):
            self._check_database(server, number)
        if self._private:
            return ()
        said = [f"Keys of {server} are replaced one by one; who reads meanwhile sees some of before, some of after."]
        return (*said, *check_roughly(server, self._scope.size_bytes))

    def begin(self) -> None:
        """Nothing takes long before the first rows."""

    def apply(self, collection: CollectionSpec, rows: pa.Table) -> int:
        """Make the commands that bring rows back; they are sent in `commit`."""
        server, number = self._reached(), self._databases[collection.name]
        writer = CommandWriter(self._put_off, server.has_field_expiry)
        need = Need(server)
        try:
            with tempfile.NamedTemporaryFile(dir=self._staging(), delete=False) as file:
                for payload, count in writer.frames(rows):
                    file.write(_HEADER.pack(len(payload), count))
                    file.write(payload)
                    need.add_commands(payload)
        except OSError as exc:
            raise SourceUnavailable(f"what is restored to {server} cannot be staged: {exc}", hint=_ROOM) from exc
        with self._lock:
            self._staged.append((number, Path(file.name)))
            self._spool(number).add(writer.keys)
            need.add_keys(writer.keys)
            if self._need is not None:
                need.add(self._need)
            self._need = need
            self._expired += writer.expired
            self._expired_fields += writer.expired_fields
        return int(rows.num_rows)

    def commit(self) -> None:
        """Send everything; then, in an exact restore, remove the keys that the backup does not hold.

        Raises:
            RestoreRefused: There is no room; nothing was written.
            SourceUnavailable: The server failed on the way; some keys are written, others are not.
        """
        server = self._reached()
        for spool in self._keys.values():
            spool.end()
        if self._need is not None and not self._private:
            check_room(server, self._need, self._keys)
        try:
            for number, path in self._staged:
                self._send(server, number, path)
            if self._scope.mode is RestoreMode.EXACT:
                self._remove_others(server)
            self._finish(server)
        except LastgoodError as exc:
            hint = f"{exc.hint} Some keys are written, others are not: run the restore again.".strip()
            raise type(exc)(exc.message, hint=hint) from exc
        if self._expired:
            self.notes.append(f"{self._expired} keys had expired since the backup and were not restored.")
        if self._expired_fields:
            self.notes.append(
                f"{self._expired_fields} fields of hashes had expired since the backup and were not restored."
            )
        self.abort()

    def abort(self) -> None:
        """Drop what was staged; nothing was sent."""
        with self._lock:
            self._exits.close()
            self._server = None
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
                self._folder = None

    def _reached(self) -> Server | Cluster:
        with self._lock:
            if self._server is None:
                self._server = self._exits.enter_context(self._opened())
            return self._server

    def _staging(self) -> Path:
        with self._lock:
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="lastgood-redis-"))
            return self._folder

    def _spool(self, number: int) -> KeySpool:
        if number not in self._keys:
            assert self._folder is not None
            self._keys[number] = KeySpool(self._folder)
        return self._keys[number]

    def _check_database(self, server: Server | Cluster, number: int) -> None:
        if isinstance(server, Cluster):
            if number:
                raise RestoreRefused(
                    f"{server} has no database {number}, only database 0",
                    hint="Select one database with --collection, and write its new number: --to redis+cluster://HOST/0.",
                )
            return
        try:
            server.call("PING", database=number)
        except SourceUnavailable as exc:
            raise RestoreRefused(
                f"{server} has no database {number}: {exc.message}", hint="Raise `databases` in its configuration."
            ) from exc

    def _send(self, server: Server | Cluster, number: int, path: Path) -> None:
        with sender_to(server, number) as sender, path.open("rb") as file:
            for frame in _frames(file):
                sender.send(*frame)
        path.unlink()

    def _remove_others(self, server: Server | Cluster) -> None:
        patterns = {spec.name: _patterns(spec.definition) for spec, _ in self._scope.collections}
        for name, number in self._databases.items():
            if name in patterns:
                self._remove(server, name, number, patterns[name])
        if self._scope.selection.everything and not self._scope.definition.get("narrowed"):
            there = server.keyspace().keys() if self._only is None else {self._only}
            for number in sorted(there - set(self._databases.values())):
                self._remove(server, "", number, _patterns(self._scope.definition))

    def _remove(self, server: Server | Cluster, name: str, number: int, patterns: list[str]) -> None:
        """Remove the keys of a database that match patterns and selection and were not restored."""
        assert self._folder is not None or not self._staged
        live = KeySpool(self._staging())
        live.fill(server.scan(number, patterns))
        selection = self._scope.selection_of(name)
        with sender_to(server, number) as sender:
            for start, end in live.steps(_STEP_KEYS):
                there = live.between(start, end)
                if number in self._keys:
                    there = there.filter(pc.invert(pc.is_in(there, self._keys[number].between(start, end))))
                mask = selection.mask(pa.table({"key": there}), ("key",))
                sender.remove(there if mask is None else there.filter(mask))


_ROOM = "Is there room? TMPDIR names the folder."


def _patterns(definition: Mapping[str, object]) -> list[str]:
    found = definition.get("patterns")
    return [str(pattern) for pattern in found] if isinstance(found, list) else ["*"]


def _frames(file: BinaryIO) -> Iterator[Frame]:
    while header := file.read(_HEADER.size):
        size, count = _HEADER.unpack(header)
        yield file.read(size), count
