"""What of a schema a restore cannot build as it was: tried in an empty database in memory.

An application adds collations and functions to its own connections; here are stand-ins. Where such a name is only
mentioned (a CHECK, a view, a trigger, a column that nothing is sorted by) that makes no difference. An index that was
sorted or computed by a stand-in would be damaged for the application, so it is left out. A primary key or UNIQUE
cannot be left out: it is sorted as BINARY does, and `REINDEX` by the application sorts it anew.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from blocks.errors import RestoreRefused
from blocks.sources.sqlite.creating import StandIn, create, with_stand_ins
from blocks.sources.sqlite.rows import quoted, quoted_list
from blocks.sources.sqlite.schema import SchemaObject, fold, in_building_order
from blocks.sources.target import NotRebuilt

KEEP_GOING_HINT = "--keep-going restores all else, and names what was left out with the statements that rebuild it."
_CALLS = ("Function", "PureFunc", "Function0")
_STORED = 3
"""How `table_xinfo` marks a generated column that is stored."""


@dataclass(frozen=True)
class Flaw:
    """One object that does not come back as it was.

    Attributes:
        thing: The object.
        told: What is said of it.
        absent: Whether it is left out; else it is built, and the application has to run the statement.
        outside: The application's collations and functions that it is made by.
    """

    thing: SchemaObject
    told: NotRebuilt
    absent: bool
    outside: tuple[StandIn, ...] = ()
    hostile: bool = False
    """Whether its statement is none that a backup holds: nothing is restored beside it."""


@dataclass(frozen=True)
class Survey:
    """What was found.

    Attributes:
        flaws: The objects that do not come back as they were, in the order in which they are built.
        stand_ins: All collations and functions that the schema mentions and that are missing here.
    """

    flaws: tuple[Flaw, ...]
    stand_ins: tuple[StandIn, ...]

    @property
    def told(self) -> list[NotRebuilt]:
        """What is said of the flaws."""
        return [flaw.told for flaw in self.flaws]

    @property
    def sentences(self) -> list[str]:
        """The flaws as sentences."""
        return [f"{told.name[0].upper()}{told.name[1:]} cannot be rebuilt here: {told.reason}." for told in self.told]

    @property
    def functions(self) -> bool:
        """Whether functions are missing, so that checks cannot be evaluated."""
        return any(kind == "function" for kind, _ in self.stand_ins)

    def foreign(self, table: str) -> list[Flaw]:
        """Return the flaws of a table and of its indexes that come from what the application adds."""
        return [flaw for flaw in self.flaws if flaw.outside and fold(flaw.thing.table) == fold(table)]

    def without_absent(self, objects: Iterable[SchemaObject]) -> list[SchemaObject]:
        """Return the objects that can be built, in their order; with a table go its indexes and triggers."""
        absent = {(flaw.thing.type, flaw.thing.name) for flaw in self.flaws if flaw.absent}
        tables = {fold(table) for table in self.absent_tables}
        return [t for t in objects if (t.type, t.name) not in absent and fold(t.table) not in tables]

    def accepted(self, place: object, *, keep_going: bool) -> Survey:
        """Return it with the flaws that a restore may go on with.

        Args:
            place: What is restored to; for messages.
            keep_going: Whether a person wants all else.

        Raises:
            RestoreRefused: Naming each object that cannot be built as it was.
        """
        refused = [flaw for flaw in self.flaws if flaw.hostile or not keep_going]
        if not refused:
            return self
        hint = "" if any(flaw.hostile for flaw in refused) else KEEP_GOING_HINT
        said = " ".join(Survey(tuple(refused), ()).sentences)
        raise RestoreRefused(f"{place} cannot be built as it was: {said}", hint=hint)

    @property
    def absent_tables(self) -> set[str]:
        """The tables that cannot be created at all."""
        return {flaw.thing.name for flaw in self.flaws if flaw.absent and flaw.thing.type == "table"}


def survey(objects: Iterable[SchemaObject]) -> Survey:
    """Create all objects in an empty database in memory, and see what becomes of them."""
    order = {"table": 0, "index": 1, "view": 2, "trigger": 3}
    connection = sqlite3.connect(":memory:", isolation_level=None)
    flaws: list[Flaw] = []
    known: list[StandIn] = []
    try:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        for thing in sorted(in_building_order(objects), key=lambda thing: order[thing.type]):
            try:
                known += create(connection, thing)
                known += _examined(connection, thing, known, flaws)
            except (RestoreRefused, sqlite3.Error) as exc:
                flaws.append(_impossible(thing, exc))
    finally:
        connection.close()
    gone = {fold(flaw.thing.name) for flaw in flaws if flaw.thing.type == "table" and flaw.absent}
    # an index of a table that cannot be created says nothing more
    kept = [flaw for flaw in flaws if flaw.thing.type == "table" or fold(flaw.thing.table) not in gone]
    return Survey(tuple(kept), tuple(dict.fromkeys(known)))


def _impossible(thing: SchemaObject, exc: sqlite3.Error | RestoreRefused) -> Flaw:
    cause = exc.__cause__ if isinstance(exc, RestoreRefused) else exc
    reason = exc.message if isinstance(exc, RestoreRefused) else str(exc)
    hostile = not isinstance(cause, sqlite3.Error) or getattr(cause, "sqlite_errorname", "") == "SQLITE_AUTH"
    # a statement that does something else is written to no script
    told = NotRebuilt(str(thing), reason, "" if hostile else f"{thing.sql};")
    return Flaw(thing, told, absent=True, hostile=hostile)


def _examined(
    connection: sqlite3.Connection, thing: SchemaObject, known: list[StandIn], flaws: list[Flaw]
) -> list[StandIn]:
    """Look at what a new table or index is sorted and computed by; return the stand-ins that this took."""
    if thing.virtual or thing.type not in ("table", "index"):
        return []
    if thing.type == "index":
        reindex = f"EXPLAIN REINDEX {quoted(thing.name)}"
        added = with_stand_ins(connection, reindex)
        used = _used(connection, reindex, [*known, *added])
        if used:
            told = NotRebuilt(str(thing), _why(used), f"{thing.sql};")
            flaws.append(Flaw(thing, told, absent=True, outside=tuple(used)))
        return added
    insert, columns = _insertion(connection, thing.name)
    added = with_stand_ins(connection, insert)
    known = [*known, *added]
    if used := _used_by_keys(connection, thing.name, known):
        told = NotRebuilt(
            f"primary key or UNIQUE of table {thing.name!r}",
            f"{_why(used)}; its rows are there, sorted by their bytes until the application sorts them anew",
            f"REINDEX {quoted(thing.name)};",
        )
        flaws.append(Flaw(thing, told, absent=False, outside=tuple(used)))
    functions = [each for each in known if each[0] == "function"]
    if _has_stored(connection, thing.name) and (used := _used(connection, insert, functions)):
        told = NotRebuilt(
            f"stored generated columns of table {thing.name!r}",
            f"{_why(used)}; they are NULL until the application computes them anew",
            f"UPDATE {quoted(thing.name)} SET {', '.join(f'{quoted(c)} = {quoted(c)}' for c in columns)};",
        )
        flaws.append(Flaw(thing, told, absent=False, outside=tuple(used)))
    return added


def _insertion(connection: sqlite3.Connection, table: str) -> tuple[str, list[str]]:
    found = connection.execute("SELECT name FROM pragma_table_xinfo(?) WHERE hidden = 0", (table,))
    columns = [name for (name,) in found]
    nulls = ", ".join(["NULL"] * len(columns))
    return f"EXPLAIN INSERT INTO {quoted(table)} ({quoted_list(columns)}) VALUES ({nulls})", columns


def _has_stored(connection: sqlite3.Connection, table: str) -> bool:
    found = connection.execute("SELECT 1 FROM pragma_table_xinfo(?) WHERE hidden = ?", (table, _STORED))
    return found.fetchone() is not None


def _used_by_keys(connection: sqlite3.Connection, table: str, known: list[StandIn]) -> list[StandIn]:
    indexes = connection.execute("SELECT name FROM pragma_index_list(?)", (table,)).fetchall()
    used = [one for (name,) in indexes for one in _used(connection, f"EXPLAIN REINDEX {quoted(name)}", known)]
    return list(dict.fromkeys(used))


def _used(connection: sqlite3.Connection, statement: str, known: list[StandIn]) -> list[StandIn]:
    """Say which of the stand-ins the program of a statement sorts, compares or computes by."""
    program = [(row[1], str(row[5]).lower()) for row in connection.execute(statement) if row[5]]
    return [one for one in dict.fromkeys(known) if any(_mentions(one, code, text) for code, text in program)]


def _mentions(stand_in: StandIn, code: str, text: str) -> bool:
    kind, name = stand_in
    if kind == "function":
        return code in _CALLS and text.rpartition("(")[0] == name.lower()
    return code not in (*_CALLS, "String8") and re.search(rf"(?<!\w){re.escape(name.lower())}(?!\w)", text) is not None


def _why(used: list[StandIn]) -> str:
    names = " and ".join(f"the {kind} {name!r}" for kind, name in used)
    return f"it is made by {names}, which only the application has"
