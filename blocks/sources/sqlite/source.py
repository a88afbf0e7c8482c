"""SQLite databases: consistent backups while the application writes, restores with an equal `.dump`."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from pydantic import Field, JsonValue

from blocks.errors import ConfigurationError, RestoreRefused, SourceUnavailable
from blocks.host.folders import sync_folder
from blocks.host.identity import place_identity
from blocks.host.leftovers import aside_path
from blocks.host.places import Location
from blocks.sources.collection import PART_SIZE_BYTES, CollectionSpec
from blocks.sources.proving import DefinedObject, StoreFinding
from blocks.sources.source import StateSource
from blocks.sources.sqlite.build import BuildTarget
from blocks.sources.sqlite.comparing import check_counters, defined_objects
from blocks.sources.sqlite.connect import Condition, look, open_reading, too_short, translated
from blocks.sources.sqlite.files import change_token, clear_leftovers, family, move_aside, users_of
from blocks.sources.sqlite.merge import MergeTarget
from blocks.sources.sqlite.rewrite import RewriteTarget
from blocks.sources.sqlite.salvage import SalvageView, opened_for_salvage
from blocks.sources.sqlite.schema import Database, read_objects
from blocks.sources.sqlite.tables import shadow_tables, virtual_owner
from blocks.sources.sqlite.unkeyed import is_unkeyed
from blocks.sources.sqlite.view import SQLiteView
from blocks.sources.target import RestoreMode, RestoreScope, Target
from blocks.sources.view import View


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

    type: Literal["sqlite"] = "sqlite"
    path: str = Field(description="The database file.")
    tables: list[str] = Field(default=["*"], description="Globs of the tables to back up.")
    exclude: list[str] = Field(default=[], description="Globs of the tables to leave out.")
    part_size_bytes: int = Field(
        default=PART_SIZE_BYTES, gt=0, description="Size that parts are partitioned for, in bytes of Arrow data."
    )
    integrity: Literal["quick", "full", "off"] = Field(
        default="quick",
        description="Which of SQLite's own checks a full backup runs: quick_check, integrity_check, or none.",
    )
    on_unsupported: Literal["fail", "skip"] = Field(
        default="fail", description="What becomes of tables and rows that cannot be kept exactly."
    )
    busy_timeout_seconds: float = Field(
        default=10.0, ge=0, description="How long to wait, in seconds, for a lock that another connection holds."
    )

    def anchored(self, folder: Path) -> SQLiteSource:
        """Return a copy whose path is resolved against a folder."""
        return self.at(str(folder / self._local_path()))

    def view(self, since: str | None = None) -> AbstractContextManager[View]:
        """Open one consistent look at the database.

        Raises:
            SourceUnavailable: The file is missing, locked, damaged or no database.
        """
        return self._view(since)

    @contextmanager
    def _view(self, since: str | None) -> Iterator[View]:
        path = self._checked_path()
        token = change_token(path)
        with translated(path, "cannot open"):
            connection = open_reading(path, self.busy_timeout_seconds)
        try:
            yield SQLiteView(
                connection,
                path,
                self._bound(token),
                self._included,
                self.part_size_bytes,
                integrity="off" if since else self.integrity,
                skips=self.on_unsupported == "skip",
            )
        finally:
            connection.close()

    def salvage(self) -> AbstractContextManager[View]:
        """Open a look at the database that goes on past tables and pages that cannot be read.

        Raises:
            SourceUnavailable: Nothing of it can be read.
        """
        return self._salvage()

    @contextmanager
    def _salvage(self) -> Iterator[View]:
        path = self._checked_path()
        with translated(path, "cannot open"):
            connection = opened_for_salvage(path, self.busy_timeout_seconds)
        try:
            yield SalvageView(connection, path, None, self._included, self.part_size_bytes)
        finally:
            connection.close()

    @property
    def local(self) -> bool:
        """True: `location` asks nobody."""
        return True

    def location(self, to: str | None = None) -> Location:
        """Say which files the database is: itself, and those that SQLite keeps beside it."""
        path = (self if to is None else self.at(to))._real_path()
        chosen = "" if self.tables == ["*"] and not self.exclude else self._chosen()
        return Location(shown=str(path), paths=family(path), part=chosen)

    def identity(self) -> dict[str, JsonValue]:
        """Say which file it is, by its path on this machine, and by its name in a folder known by its number."""
        path = self._real_path()
        return place_identity(path, path.parent)

    def covers(self, collection: CollectionSpec) -> bool:
        """Whether the plan covers a table; a shadow table is covered where its virtual table is."""
        owner = virtual_owner(collection)
        covered = self._included(collection.name)
        if owner is None or self._included(owner) == covered:
            return covered
        return self._included(owner) if self._is_shadow(collection.name) else covered

    def merges_by_content(self, collection: CollectionSpec) -> bool:
        """Whether a table has no primary key: SQLite gives the rowids of its rows to others in time."""
        return is_unkeyed(collection)

    def unnarrowed(self) -> SQLiteSource:
        """Return a copy that covers everything at its place."""
        # what is looked at so is checked otherwise, or not at all
        return self.model_copy(update={"tables": ["*"], "exclude": [], "integrity": "off"})

    def check_restored(self, definition: Mapping[str, JsonValue]) -> list[StoreFinding]:
        """Look at the counters of the database; all else is in the examination of its target.

        Raises:
            SourceUnavailable: It cannot be read.
        """
        path = self._real_path()
        with translated(path, "cannot check"), closing(open_reading(path, self.busy_timeout_seconds)) as connection:
            return list(check_counters(connection))

    def defined_objects(self, definition: Mapping[str, JsonValue]) -> list[DefinedObject]:
        """Return the objects of a definition's schema, and the settings that are kept in the file."""
        return list(defined_objects(definition))

    def target(self, scope: RestoreScope, to: str | None = None) -> Target:
        """Prepare a target: the database itself, or the file named by `to`.

        A database that can be read is written in one transaction: all of it, where the backup and the plan cover all of
        it, else the rows of the tables that they cover. In place of one that is missing or cannot be read, a new one is
        built.

        Raises:
            RestoreRefused: The manifest is not that of a database, or the place is unusable.
        """
        path = self._real_path() if to is None or self._has_name(to) else self.at(to)._real_path()
        found = look(path, self.busy_timeout_seconds)
        database = Database.from_manifest(scope.definition)
        if found.condition is not Condition.READABLE:
            return BuildTarget(path, found, scope, self.busy_timeout_seconds)
        whole = self._covers_all(path, scope, database)
        return (RewriteTarget if whole else MergeTarget)(path, scope, self.busy_timeout_seconds, self._included)

    def put_away(self) -> str:
        """Rename the database file, with those that SQLite keeps beside it.

        Raises:
            RestoreRefused: It is in use, or cannot be renamed.
        """
        path = self._real_path()
        if users := users_of(path):
            raise RestoreRefused(f"it is in use by {users}")
        aside = aside_path(path)
        move_aside(path, aside)
        sync_folder(path.parent)
        return str(aside)

    def at(self, place: str) -> SQLiteSource:
        """Return this source for another database file."""
        return self.model_copy(update={"path": place})

    def scratch(self, folder: Path) -> str:
        """Name a database file inside an empty folder."""
        return str(folder / self._local_path().name)

    def _has_name(self, place: str) -> bool:
        """Whether a place is another name of the same file: its side files would be others, and SQLite not know."""
        with suppress(OSError):
            return os.path.samefile(self.at(place)._real_path(), self._real_path())
        return False

    def _covers_all(self, path: Path, scope: RestoreScope, database: Database) -> bool:
        """Whether nothing of the live database outlives an exact restore."""
        if not scope.selection.everything or scope.mode is not RestoreMode.EXACT:
            return False
        # a backup of some tables, or of some keys, knows nothing of the others
        held = {spec.name for spec, _ in scope.collections}
        if database.narrowed or scope.narrowed or not held.issuperset(database.tables):
            return False
        if not scope.in_place or (self.tables == ["*"] and not self.exclude):
            return True
        return all(self._included(owner) for owner in {*map(database.owner, held), *self._live_tables(path)})

    def _live_tables(self, path: Path) -> list[str]:
        """Name the tables that are there now; a virtual table stands for its shadow tables."""
        with translated(path, "cannot read"):
            connection = open_reading(path, self.busy_timeout_seconds)
            try:
                objects = read_objects(connection)
                shadows, _ = shadow_tables(connection, objects)
            finally:
                connection.close()
        owned = {table for tables in shadows.values() for table in tables}
        return [t.name for t in objects if t.type == "table" and not t.internal and t.name not in owned]

    def _is_shadow(self, table: str) -> bool:
        """Ask the live database what a table is; where it does not know, its name and columns decide."""
        try:
            connection = open_reading(self._real_path(), self.busy_timeout_seconds)
        except (sqlite3.Error, OSError):
            return True
        try:
            found = connection.execute("SELECT type FROM pragma_table_list WHERE name = ?", (table,)).fetchone()
            return found is None or found[0] == "shadow"
        except sqlite3.Error:
            return True
        finally:
            connection.close()

    def _checked_path(self) -> Path:
        path = self._real_path()
        if not path.is_file():
            raise SourceUnavailable(f"there is no database at {path}", hint="Check `path` in the plan.")
        if too_short(path):
            raise SourceUnavailable(f"{path} is too short to be an SQLite database", hint="Check `path` in the plan.")
        clear_leftovers(path)
        return path

    def _local_path(self) -> Path:
        if not self.path.lower().startswith("file://"):
            return Path(self.path).expanduser()
        parts = urlsplit(self.path)
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise ConfigurationError(f"the URL {self.path!r} does not name a local file", hint="Write file:///path.")
        return Path(unquote(parts.path))

    def _real_path(self) -> Path:
        return Path(os.path.realpath(self._local_path()))

    def _included(self, table: str) -> bool:
        chosen = any(fnmatchcase(table, glob) for glob in self.tables)
        return chosen and not any(fnmatchcase(table, glob) for glob in self.exclude)

    def _chosen(self) -> str:
        said = f"tables {', '.join(self.tables)}"
        return f"{said} without {', '.join(self.exclude)}" if self.exclude else said

    def _bound(self, token: str | None) -> str | None:
        """Bind a token to what is backed up: another choice of tables is another state."""
        return None if token is None else f"{token} {sorted(self.tables)} {sorted(self.exclude)}"
