"""Folders of files under the conformance suite."""

from __future__ import annotations

import os
import random
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from blocks.sources.files import FilesSource
from tests.conformance.suite import Cause, Fault, PathAdapter, Picture, Unbuildable


class FilesAdapter(PathAdapter):
    """A tree: put records are files at its top; `deep` holds folders, links, holes and a name that is no text."""

    name = "files"

    def __init__(self, folder: Path, shared: Any) -> None:
        super().__init__(folder, shared)
        self._root = folder / "live"
        self._root.mkdir()

    @property
    def source(self) -> FilesSource:
        return FilesSource(url=str(self._root), part_size_bytes=1 << 20)

    def fill(self, rng: random.Random) -> None:
        super().fill(rng)
        deep = self._root / "deep" / "down"
        deep.mkdir(parents=True)
        (deep / "large").write_bytes(rng.randbytes((5 << 19) + 3))
        (deep / "hole").write_bytes(b"")
        os.truncate(deep / "hole", 3 << 20)
        (deep / "link").symlink_to("../nowhere")
        (deep / os.fsdecode(b"caf\xe9")).write_bytes(b"")
        os.link(deep / "large", deep.parent / "again")
        os.setxattr(deep / "large", "user.note", rng.randbytes(5))
        os.setxattr(deep, "user.of the folder", b"x")
        os.chmod(deep, 0o750)

    def mutate(self, rng: random.Random) -> None:
        super().mutate(rng)
        large = self._root / "deep" / "down" / "large"
        if large.exists():
            with large.open("r+b") as file:
                file.seek(rng.randrange(2 << 20))
                file.write(rng.randbytes(10))
        folder = self._root / "deep" / f"new{rng.randrange(10)}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "file").write_text(str(rng.random()))

    def clear(self) -> None:
        for entry in self._root.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def put(self, key: str, n: int) -> None:
        path = self._root / key
        before = path.stat().st_ctime_ns if path.exists() else None
        path.write_bytes(str(n).encode() * (n % 5))
        while path.stat().st_ctime_ns == before:  # the kernel's clock is coarse
            path.chmod(0o600 + n % 2 * 0o44)

    def remove(self, key: str) -> None:
        (self._root / key).unlink()

    def picture(self, place: str | None = None) -> Picture:
        root = Path(place) if place else self._root
        return {("tree", os.fsdecode(os.fsencode(p.relative_to(root)))): _look(p) for p in root.rglob("*")}

    def place(self) -> str:
        self._places += 1
        return str(self.folder / f"place{self._places}")

    def spellings(self) -> list[str]:
        link = self.folder / "link"
        link.symlink_to(self._root)
        relative = os.path.relpath(self._root)
        return [str(link), relative, f"{self._root}/", f"{self._root}/../live/.", f"file://{self._root}"]

    def narrowed(self) -> tuple[FilesSource, Callable[[tuple[str, str]], bool]]:
        return self.source.model_copy(update={"exclude": ["b:*"]}), lambda key: key[1].startswith("b:")

    def put_unbuildable(self) -> Unbuildable:
        path = self._root / "unbuildable"
        path.write_text("a file in the backup")

        def spoil() -> None:
            path.unlink()
            path.mkdir()
            os.mkfifo(path / "stays")

        return Unbuildable("entry unbuildable", spoil, ("tree", "unbuildable"), rows=2, blamed="unbuildable is a file")

    def faults(self) -> Iterator[Fault]:
        there = self.folder / "there"
        yield Fault(Cause.MISSING, str(there), self.source.at(str(there)), (str(self._root),))
        there.write_text("no folder")
        yield Fault(Cause.MISSING, str(there), self.source.at(str(there)), (str(self._root),))

    def kept_aside(self, notes: Sequence[str]) -> list[object]:
        return [_look(Path(path)) for note in notes for path in re.findall(r" (/\S+)\.$", note)]

    def essence(self, rows: pa.Table) -> pa.Table:
        return rows.filter(pc.not_equal(rows.column("kind"), "span"))

    def unwritable(self) -> str:
        return str(self.folder / "missing" / "folder")


def _look(path: Path) -> object:
    status = path.lstat()
    mode = status.st_mode
    if stat.S_ISLNK(mode):
        return ("link", os.readlink(path))
    if stat.S_ISDIR(mode):
        # its time changes with what a restore of single keys puts in
        return ("folder", stat.S_IMODE(mode), _attributes(path))
    if not stat.S_ISREG(mode):
        return ("special", stat.S_IFMT(mode))
    return ("file", stat.S_IMODE(mode), status.st_mtime_ns, path.read_bytes(), _attributes(path), status.st_nlink)


def _attributes(path: Path) -> dict[str, bytes]:
    return {name: os.getxattr(path, name) for name in os.listxattr(path)}
