"""A restore to a file of JSON lines: all is gathered in memory, and `commit` replaces the file at once."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from threading import Lock

import pyarrow as pa

from blocks.errors import RestoreRefused, UnsupportedState
from blocks.rows.variant import decode_variant, is_variant
from blocks.sources.collection import CollectionSpec
from blocks.sources.target import NotRebuilt, RestoreMode, RestoreScope
from blocks.sources.view import Unread, View
from lastgood_example.view import LINES, LinesView, digest_of, parsed


class LinesTarget:
    """Where lines are restored to.

    Args:
        path: The file; what a link leads to is replaced, not the link.
        scope: What is restored.
        leaves_out: Whether the plan leaves out a key.
        longest_line_bytes: Lines that are longer are not written; None where all are.
    """

    def __init__(
        self, path: Path, scope: RestoreScope, leaves_out: Callable[[str], bool], longest_line_bytes: int | None
    ) -> None:
        self._path, self._scope, self._leaves_out = Path(os.path.realpath(path)), scope, leaves_out
        self._longest = longest_line_bytes
        self._new: dict[str, str] = {}
        self._gone: set[str] = set()
        self._before: str | None = None
        self._aside: Path | None = None
        self._lock = Lock()
        self.changed = False
        self.notes: list[str] = []
        self.not_rebuilt: list[NotRebuilt] = []

    def preflight(self) -> tuple[str, ...]:
        """Refuse a folder that cannot be written, and a file that is not of this kind."""
        folder = self._path.parent
        if not os.access(folder, os.W_OK | os.X_OK):
            raise RestoreRefused(f"{folder} is no folder that this user may write", hint="Name another place.")
        if self._path.exists() and not self._path.is_file():
            raise RestoreRefused(f"{self._path} is no file", hint="Name another place.")
        if not self._replaces_all:
            self._present()
        return ()

    def occupied(self) -> str | None:
        """Say how much there is in the file."""
        content = self._content()
        return f"a file with {len(content.splitlines())} lines" if content else None

    def hold(self) -> None:
        """Do nothing: nobody can be kept from writing a file; `commit` finds out who did."""

    def keep_aside(self, unread: Sequence[Unread]) -> tuple[str, ...]:
        """Have the file moved aside by `commit` where it could not be backed up."""
        if not self._path.exists():
            return ()
        self._aside = self._path.with_name(f"{self._path.name}.aside-{secrets.token_hex(4)}")
        return (f"{self._path} is moved to {self._aside}",)

    def guard(self, view: View) -> None:
        """Remember what the backup before the restore was made of."""
        assert isinstance(view, LinesView)
        self._before = view.digest

    def begin(self) -> None:
        """Do nothing: there is nothing to wait for."""

    def apply(self, collection: CollectionSpec, rows: pa.Table) -> int:
        """Take the lines of a part; a column comes as a variant where backups of a chain differ in its type."""
        keys, column = rows.column("key").to_pylist(), rows.column("line")
        lines = decode_variant(column) if is_variant(rows.schema.field("line")) else column.to_pylist()
        taken = {key: str(line) for key, line in zip(keys, lines, strict=True)}
        for key, line in list(taken.items()):
            if self._longest is not None and len(line.encode()) > self._longest:
                self._leave(key)
                del taken[key]
        with self._lock:
            self._new |= taken
        return len(taken)

    def remove(self, collection: CollectionSpec, keys: pa.Table) -> int:
        """Delete lines by their keys."""
        found = set(keys.column("key").to_pylist()) & self._present().keys()
        self._gone |= found
        return len(found)

    def check_unwritten(self) -> None:
        """Refuse where the file was written since the backup before the restore."""
        self._unwritten(self._content())

    def commit(self) -> None:
        """Replace the file. A writer is too late only where it comes between these steps."""
        content = self._content()
        self._unwritten(content)
        lines = self._merged({} if self._aside else self._present(content))
        temporary = self._path.with_name(f".{self._path.name}.lastgood-{secrets.token_hex(4)}")
        try:
            with temporary.open("xb") as file:
                file.writelines(line.encode() + b"\n" for _, line in sorted(lines.items()))
                file.flush()
                os.fsync(file.fileno())
            if self._aside is not None:
                os.rename(self._path, self._aside)
                self.changed = True
            os.replace(temporary, self._path)
            self.changed = True
        finally:
            temporary.unlink(missing_ok=True)
        if self._aside is not None:
            self.notes.append(f"what could not be read is in {self._aside}")

    def abort(self) -> None:
        """Forget what was gathered: nothing was written."""
        self._new.clear()
        self._gone.clear()

    @property
    def _replaces_all(self) -> bool:
        return self._scope.mode is RestoreMode.EXACT and self._scope.selection.everything and self._scope.in_place

    def _leave(self, key: str) -> None:
        left = NotRebuilt(f"key {key!r}", f"its line is longer than {self._longest} bytes")
        if not self._scope.keep_going:
            raise RestoreRefused(left.said, hint="--keep-going leaves it out, and restores all else.")
        with self._lock:
            self.not_rebuilt.append(left)

    def _unwritten(self, content: bytes) -> None:
        if self._before is not None and digest_of(content) != self._before:
            raise RestoreRefused(
                f"{self._path} was written since the backup before this restore was made",
                hint="Stop what writes it, and restore again.",
            )

    def _merged(self, present: dict[str, str]) -> dict[str, str]:
        """Return the lines that the file will have."""
        gone = set(self._gone)
        if self._scope.mode is RestoreMode.EXACT and self._scope.collections:
            kept = {left.name for left in self.not_rebuilt}
            gone |= {key for key in self._selected(present) if f"key {key!r}" not in kept}
        return {key: line for key, line in present.items() if key not in gone} | self._new

    def _selected(self, present: dict[str, str]) -> list[str]:
        """Return the keys that the restore decides about: selected, covered by the plan, and by the backup."""
        exclude = self._scope.definition.get("exclude")
        globs = [str(one) for one in exclude] if isinstance(exclude, list) else []
        rows = pa.table({"key": pa.array(present.keys(), pa.large_string())})
        keys = self._scope.selection_of(LINES.name).rows(rows, LINES.label).column("key").to_pylist()
        return [key for key in keys if not self._leaves_out(key) and not any(fnmatchcase(key, one) for one in globs)]

    def _content(self) -> bytes:
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as exc:
            raise RestoreRefused(f"{self._path}: {exc.strerror}", hint="Check who may read it.") from exc

    def _present(self, content: bytes | None = None) -> dict[str, str]:
        try:
            return parsed(self._path, self._content() if content is None else content)
        except UnsupportedState as exc:
            raise RestoreRefused(
                f"{exc.message}, so nothing can be restored into it", hint="Name another place."
            ) from exc
