"""What a restore has made ready for one server: commands, and the keys that they write, on disk where they are many."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from threading import Lock

import pyarrow as pa
import pyarrow.compute as pc

from blocks.host import room
from blocks.host.leftovers import kept_temporarily, make_scratch_folder, temporary_folder
from blocks.sources.redis.read.keys import KeySpool
from blocks.sources.redis.write.commands import CommandWriter
from blocks.sources.redis.write.filling import Frame
from blocks.sources.redis.write.room import Need

_HEADER = Struct(">II?")
_SKEW_MS = 5_000
_SPARE_BYTES = 16 * 1024 * 1024


class Staging:
    """Commands and keys by the number of their database. May be used from several threads.

    Args:
        plan: Name of the plan.
        place: How errors call where they go.
    """

    def __init__(self, plan: str, place: str) -> None:
        self._plan, self._place = plan, place
        self._lock = Lock()
        self._folder: Path | None = None
        self._goes: dict[int, list[pa.Table]] = {}
        self.files: list[tuple[int, Path]] = []
        """The commands of each part, with the number of the database."""
        self.keys: dict[int, KeySpool] = {}
        """The keys that are written."""
        self.removed: dict[int, KeySpool] = {}
        """Those that are removed one by one."""
        self.left_out: dict[tuple[int, bytes], str] = {}
        """Keys that the server would refuse and did not get, by the number of their database, with the reasons."""
        self.need: Need | None = None
        self.expired = self.expired_fields = 0

    @property
    def folder(self) -> Path:
        """The folder for what does not fit into memory."""
        with self._lock:
            if self._folder is None:
                self._folder = make_scratch_folder("redis", self._plan)
            return self._folder

    def need_of(self, size_bytes: int) -> room.Need:
        """Say how much room is needed for rows of that size, and where.

        Raises:
            ConfigurationError: There is no folder for temporary data.
        """
        what = f"making {self._place} ready"
        called = "the folder for temporary data"
        return room.Need(temporary_folder(), size_bytes + _SPARE_BYTES, what, called, room.TEMPORARY)

    def add(self, number: int, writer: CommandWriter, rows: pa.Table, need: Need) -> None:
        """Make the commands for the rows of a part ready.

        Raises:
            TemporaryFolderFull: There is no room for them.
        """
        folder, what = self.folder, f"what is restored to {self._place}"
        with kept_temporarily(what, folder), tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
            for payload, count, visible in writer.frames(rows):
                file.write(_HEADER.pack(len(payload), count, visible))
                file.write(payload)
                need.add_commands(payload)
        with self._lock:
            self.files.append((number, Path(file.name)))
            self.keys.setdefault(number, KeySpool(folder)).add(writer.keys)
            need.add_keys(writer.keys)
            need.add_overhead(writer.overhead)
            if self.need is not None:
                need.add(self.need)
            self.need = need
            self.left_out |= {(number, key): reason for key, reason in writer.left_out.items()}
            self.expired += writer.expired
            self.expired_fields += writer.expired_fields
            if writer.goes:
                names, times = zip(*writer.goes, strict=True)
                goes = pa.table({"key": pa.array(names, pa.large_binary()), "at": pa.array(times, pa.int64())})
                self._goes.setdefault(number, []).append(goes)

    def remove(self, number: int, keys: list[bytes]) -> None:
        """Take keys that are to be removed."""
        folder = self.folder
        with self._lock:
            self.removed.setdefault(number, KeySpool(folder)).add(keys)

    def end(self) -> None:
        """Say that all was made ready."""
        for spool in (*self.keys.values(), *self.removed.values()):
            spool.end()

    def frames(self, path: Path) -> Iterator[Frame]:
        """Yield the commands of a part."""
        with path.open("rb") as file:
            while header := file.read(_HEADER.size):
                size, count, visible = _HEADER.unpack(header)
                yield file.read(size), count, visible

    def stay(self, number: int, keys: list[bytes]) -> list[bytes]:
        """Leave out the keys of a database that were written and have gone by themselves by now."""
        names, now = pa.array(keys, pa.large_binary()), time.time_ns() // 1_000_000 + _SKEW_MS
        for goes in self._goes.get(number, []):
            gone = goes.column("key").filter(pc.less_equal(goes.column("at"), now))
            names = names.filter(pc.invert(pc.is_in(names, gone)))
        return [key for key in names.to_pylist() if key is not None]

    def discard(self) -> None:
        """Remove all of it."""
        with self._lock:
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
                self._folder = None
