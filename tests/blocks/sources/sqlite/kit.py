"""A gallery of odd databases, and the way from a view straight to a target, without the stages between."""

from __future__ import annotations

import sqlite3
import subprocess
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
from pydantic import JsonValue

from blocks.errors import SourceUnavailable
from blocks.rows.selection import Selection
from blocks.sources.collection import CollectionSpec
from blocks.sources.sqlite import SQLiteSource
from blocks.sources.target import RestoreMode, RestoreScope, Target
from blocks.sources.view import Salvaging, Unread, View

GALLERY = r'''
PRAGMA user_version = 7;
PRAGMA application_id = 1234;
CREATE TABLE plain (id INTEGER PRIMARY KEY, name TEXT, amount REAL, n INTEGER);
INSERT INTO plain VALUES (-5, 'minus', 1.5, 1), (1, 'é', 2.0, 9223372036854775807), (9000000000, NULL, 9e999, NULL);
INSERT INTO plain VALUES (9007199254740993, 'beyond', -9e999, -9223372036854775808), (7, '', 0.1, 0);
CREATE TABLE "counted out" (id INTEGER PRIMARY KEY AUTOINCREMENT, v);
DROP TABLE "counted out";
CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT, v);
INSERT INTO counted (v) VALUES ('a'), ('b'), ('c');
DELETE FROM counted WHERE id = 3;
CREATE INDEX early ON plain (name) WHERE name IS NOT NULL;
CREATE TABLE mixed (v, w TEXT);
INSERT INTO mixed VALUES (1, 'a'), (1.0, 'b'), ('1', 'c'), (x'31', 'd'), (NULL, NULL), (1, 'a'), ('', ''), (x'', 'e');
INSERT INTO mixed VALUES (CAST(x'ff00fe' AS TEXT), CAST(x'c3' AS TEXT)), (x'ff00fe', CAST(x'610062' AS TEXT));
DELETE FROM mixed WHERE rowid = 3;
CREATE TABLE nullkey (a TEXT, b INTEGER, c, PRIMARY KEY (a, b));
INSERT INTO nullkey VALUES (NULL, 1, 'x'), (NULL, 1, 'y'), ('k', NULL, 'z'), ('k', 1, 'w');
CREATE TABLE textkey (k TEXT COLLATE NOCASE PRIMARY KEY, v);
INSERT INTO textkey VALUES ('zeta', 1), ('Alpha', 2), ('mid', 3), (CAST(x'fe' AS TEXT), 4);
CREATE TABLE composite (a, b, v, PRIMARY KEY (a, b DESC)) WITHOUT ROWID;
INSERT INTO composite VALUES (1, 1, 'i'), (1, 2, 'j'), (1.5, x'00', 'f'), ('t', 'u', 't'), (x'ff', 0, 'b');
INSERT INTO composite VALUES (CAST(x'ff' AS TEXT), 1, 'bad'), (9223372036854775807, -9e999, 'big');
CREATE TABLE made (w REAL, h REAL, area REAL AS (w * h) STORED, twice AS (w * 2), tail TEXT DEFAULT 'x');
INSERT INTO made (w, h) VALUES (2, 3), (4, 5);
CREATE UNIQUE INDEX by_area ON made (area, lower(tail));
CREATE TABLE strict_one (i INT, r REAL, t TEXT, b BLOB, x ANY) STRICT;
INSERT INTO strict_one VALUES (1, 2, 'three', x'04', 5), (NULL, NULL, NULL, NULL, '6');
CREATE TABLE "odd ""name"", [select] 'and' ünï" ("group" TEXT, "a ""b""" INT, "rowid" TEXT, "ключ" BLOB);
INSERT INTO "odd ""name"", [select] 'and' ünï" VALUES ('g', 1, 'not the rowid', x'00'), ('h', 2, NULL, NULL);
DELETE FROM "odd ""name"", [select] 'and' ünï" WHERE "group" = 'g';
CREATE TABLE parent (id INTEGER PRIMARY KEY, checked INT CHECK (checked > 0));
CREATE TABLE child (id INTEGER PRIMARY KEY, parent INT REFERENCES parent ON DELETE CASCADE);
INSERT INTO parent VALUES (1, 1); INSERT INTO child VALUES (1, 1), (2, 99);
PRAGMA ignore_check_constraints = ON; INSERT INTO parent VALUES (2, -1);
CREATE TABLE log (what);
CREATE VIEW seen AS SELECT name, missing_function(n) FROM plain, no_such_table;
CREATE TRIGGER on_child AFTER INSERT ON child BEGIN INSERT INTO log VALUES ('child ' || new.id); END;
CREATE TRIGGER on_view INSTEAD OF INSERT ON seen BEGIN INSERT INTO log VALUES ('; END; still the trigger'); END;
CREATE TABLE "nothing" (a, b);
CREATE TABLE docs (id INTEGER PRIMARY KEY, body TEXT);
CREATE VIRTUAL TABLE search USING fts5(body, content='docs', content_rowid='id');
CREATE TRIGGER docs_ai AFTER INSERT ON docs BEGIN INSERT INTO search(rowid, body) VALUES (new.id, new.body); END;
INSERT INTO docs VALUES (1, 'a quick fox'), (5, 'a lazy dog');
CREATE VIRTUAL TABLE notes USING fts5(title, text);
INSERT INTO notes VALUES ('one', 'alpha beta'), ('two', 'beta gamma');
CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1, y0, y1);
INSERT INTO boxes VALUES (1, 0, 1, 0, 1), (2, 2, 3, 2, 3);
CREATE INDEX late ON mixed (w);
ANALYZE;
CREATE TABLE after_statistics (a PRIMARY KEY, b UNIQUE);
INSERT INTO after_statistics VALUES (3, 1), (2, 2), (1, 3);
'''


def build(path: Path, script: str = GALLERY, wal: bool = True) -> Path:
    connection = sqlite3.connect(path, isolation_level=None)
    if wal:
        connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(script)
    connection.close()
    return path


def run(path: Path, script: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(script)
    connection.close()


def ask(path: Path, query: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def dump(path: Path) -> bytes:
    """The oracle: what sqlite3's own shell says of a database."""
    done = subprocess.run(["sqlite3", "-readonly", path, ".dump"], capture_output=True, check=True)
    assert not done.stderr
    return done.stdout


def order(path: Path) -> list[tuple[object, ...]]:
    return ask(path, "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY rowid")


def source_of(path: Path, **fields: object) -> SQLiteSource:
    return SQLiteSource.model_validate({"path": str(path), "busy_timeout_seconds": 0.2, **fields})


@dataclass
class Backup:
    """All that a source's view gave, kept in memory."""

    definition: dict[str, JsonValue]
    warnings: tuple[str, ...]
    parts: list[tuple[CollectionSpec, list[pa.Table]]]

    def scope(self, mode: RestoreMode = RestoreMode.EXACT, selection: Selection | None = None) -> RestoreScope:
        selection = selection or Selection()
        chosen = [(spec, parts) for spec, parts in self.parts if selection.has_collection(f"app/{spec.name}")]
        return RestoreScope(
            definition=self.definition,
            collections=tuple((spec, sum(part.num_rows for part in parts)) for spec, parts in chosen),
            mode=mode,
            selection=selection,
            size_bytes=sum(part.nbytes for _, parts in chosen for part in parts),
        )

    def apply(self, target: Target, scope: RestoreScope) -> int:
        chosen = {spec.name for spec, _ in scope.collections}
        return sum(
            target.apply(spec, scope.selection.rows(part, spec.label))
            for spec, parts in self.parts
            if spec.name in chosen
            for part in parts
        )

    def restore(
        self, source: SQLiteSource, mode: RestoreMode = RestoreMode.EXACT, selection: Selection | None = None
    ) -> Target:
        scope = self.scope(mode, selection)
        target = source.target(scope)
        target.preflight()
        self.apply(target, scope)
        target.commit()
        return target

    def of(self, name: str) -> list[pa.Table]:
        return next(parts for spec, parts in self.parts if spec.name == name)


def back_up(source: SQLiteSource) -> Backup:
    with source.view() as view:
        return read_all(view)


def read_all(view: View) -> Backup:
    parts = [
        (spec, [view.read(spec, bounds, None).rows for bounds in view.partition(spec)]) for spec in view.collections()
    ]
    view.finish()
    return Backup(view.definition, view.warnings, parts)


def salvaged(source: SQLiteSource) -> tuple[Backup | None, list[Unread]]:
    """What a restore in place keeps before it overwrites, and what it cannot."""
    try:
        with source.salvage() as view:
            backup = read_all(view)
            assert isinstance(view, Salvaging)
            return backup, list(view.unread)
    except SourceUnavailable as exc:
        return None, [Unread(exc.message)]


@dataclass
class InPlace:
    """A restore over live state, in the order in which the flow makes it."""

    source: SQLiteSource
    backup: Backup
    mode: RestoreMode = RestoreMode.EXACT
    selection: Selection = field(default_factory=Selection)
    created: tuple[str, ...] = ()
    doomed: dict[str, pa.Table] = field(default_factory=dict)
    emergency: Backup | None = None
    unread: list[Unread] = field(default_factory=list)
    said: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        scope = self.backup.scope(self.mode, self.selection)
        kept = tuple((spec, rows) for spec, rows in scope.collections if self.source.covers(spec))
        self.scope = replace(scope, collections=kept, plan="shop", created=self.created)
        self.target = self.source.target(self.scope)

    def prepare(self) -> None:
        self.said = self.target.preflight()
        self.target.hold()
        try:
            with self.source.salvage() as view:
                self.target.guard(view)
                self.emergency = read_all(view)
                assert isinstance(view, Salvaging)
                self.unread = list(view.unread)
        except SourceUnavailable as exc:
            self.unread = [Unread(exc.message)] if self.source.location().paths[0].exists() else []
        if self.unread:
            self.said += self.target.keep_aside(self.unread)

    def write(self) -> None:
        self.target.begin()
        self.backup.apply(self.target, self.scope)
        for spec, parts in self.backup.parts + (self.emergency.parts if self.emergency else []):
            if spec.name in self.doomed and parts:
                self.target.remove(spec, self.doomed.pop(spec.name))
        self.target.check_unwritten()

    def run(self) -> InPlace:
        try:
            self.prepare()
            self.write()
            self.target.commit()
        finally:
            self.target.abort()
        return self

    def undo(self) -> InPlace:
        """Take it back, as narrow as it was."""
        assert self.emergency is not None
        there = {spec.name for spec, _ in self.emergency.parts}
        created = tuple(spec.name for spec, _ in self.scope.collections if spec.name not in there)
        before = InPlace(self.source, self.emergency, self.mode, self.selection, created)
        if self.mode is RestoreMode.MERGE:
            before.doomed = self._new_rows()
        return before.run()

    def _new_rows(self) -> dict[str, pa.Table]:
        assert self.emergency is not None
        old = {spec.name: parts for spec, parts in self.emergency.parts}
        return {
            spec.name: pa.concat_tables(self._beyond(spec, parts, old.get(spec.name, [])), promote_options="default")
            for spec, parts in self.backup.parts
            if parts
        }

    def _beyond(self, spec: CollectionSpec, parts: list[pa.Table], old: list[pa.Table]) -> list[pa.Table]:
        """Leave out the rows that were there before, by key, or one for one by content where keys are no identity."""
        by_content = self.source.merges_by_content(spec)
        names = [name for name, _ in spec.columns if (name in spec.key) != by_content]
        before = Counter(str(row) for part in old for row in part.select(names).to_pylist())
        left = []
        for part in parts:
            mask = []
            for row in map(str, part.select(names).to_pylist()):
                mask.append(before[row] == 0)
                before[row] -= int(by_content and before[row] > 0)
            left.append(part.filter(pa.array(mask, pa.bool_())))
        return left
