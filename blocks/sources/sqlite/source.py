"""SQLite databases: consistent backups while the application writes, restores with an equal `.dump`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from pydantic import Field

from blocks.errors import SourceUnavailable
from blocks.sources.base import PART_SIZE_BYTES, RestoreMode, RestoreScope, StateSource, Target, View
from blocks.sources.sqlite.build import BuildTarget
from blocks.sources.sqlite.connect import Condition, change_token, condition, open_reading, translated
from blocks.sources.sqlite.merge import MergeTarget
from blocks.sources.sqlite.schema import Database
from blocks.sources.sqlite.view import SQLiteView


class SQLiteSource(StateSource):
    """An SQLite database: its tables, and all that its schema holds.

    All parts are read in one transaction. An application in WAL mode is never kept waiting by it; in the other journal
    modes its commits wait until the backup has read everything.

    Virtual tables (FTS5, R*Tree) are kept as their shadow tables, exactly. In a restore into an existing database they
    are replaced as a whole.

    Example:
        Load it by the name it was saved under:
        ```python
        from blocks.sources.sqlite import SQLiteSource

        ledger = SQLiteSource.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "SQLite Source"
    _block_type_slug = "sqlite-source"
    _logo_url = "https://raw.githubusercontent.com/lastgood/lastgood/main/docs/images/logo.png"  # type: ignore[assignment]

    type: Literal["sqlite"] = "sqlite"
    path: str = Field(description="The database file.")
    tables: list[str] = Field(default=["*"], description="Globs of the tables to back up.")
    exclude: list[str] = Field(default=[], description="Globs of the tables to leave out.")
    part_size_bytes: int = Field(
        default=PART_SIZE_BYTES, gt=0, description="Bytes of Arrow data that a part is drawn for."
    )
    busy_timeout_seconds: float = Field(
        default=10.0, ge=0, description="How long to wait, in seconds, for a lock that another connection holds."
    )

    def anchored(self, folder: Path) -> SQLiteSource:
        """Return a copy whose path is resolved against a folder."""
        return self.at(str(folder / Path(self.path).expanduser()))

    def view(self, since: str | None = None) -> AbstractContextManager[View]:
        """Open one consistent look at the database.

        Raises:
            SourceUnavailable: The file is missing, locked, damaged or no database.
        """
        return self._view()

    @contextmanager
    def _view(self) -> Iterator[View]:
        path = self._real_path()
        if not path.is_file():
            raise SourceUnavailable(f"there is no database at {path}", hint="Check `path` in the plan.")
        token = change_token(path)
        with translated(path, "cannot open"):
            connection = open_reading(path, self.busy_timeout_seconds)
        try:
            view = SQLiteView(connection, path, self._bound(token), self._included, self.part_size_bytes)
            yield view
        finally:
            connection.close()

    def target(self, scope: RestoreScope, to: str | None = None) -> Target:
        """Prepare a target: the database itself, or the file named by `to`.

        Where a readable database stays partly as it is, rows are written into it in one transaction; else a new
        database is built beside it and put in its place when it is complete.

        Raises:
            RestoreRefused: The manifest is not that of a database, or the place is unusable.
        """
        path = (self if to is None else self.at(to))._real_path()
        found = condition(path, self.busy_timeout_seconds)
        whole = scope.selection.everything and scope.mode is RestoreMode.EXACT
        narrowed = Database.from_manifest(scope.definition).narrowed
        if found is Condition.READABLE and (narrowed or not whole):
            return MergeTarget(path, scope, self.busy_timeout_seconds)
        return BuildTarget(path, found, scope, self.busy_timeout_seconds)

    def at(self, place: str) -> SQLiteSource:
        """Return this source for another database file."""
        return self.model_copy(update={"path": place})

    def scratch(self, folder: Path) -> str:
        """Name a database file inside an empty folder."""
        return str(folder / Path(self.path).name)

    def _real_path(self) -> Path:
        return Path(os.path.realpath(Path(self.path).expanduser()))

    def _included(self, table: str) -> bool:
        chosen = any(fnmatchcase(table, glob) for glob in self.tables)
        return chosen and not any(fnmatchcase(table, glob) for glob in self.exclude)

    def _bound(self, token: str | None) -> str | None:
        """Bind a token to what is backed up: another choice of tables is another state."""
        return None if token is None else f"{token} {sorted(self.tables)} {sorted(self.exclude)}"
