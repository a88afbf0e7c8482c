"""Makes the tables that a live database lacks, each with what belongs to it, from the definitions of a backup.

The text of pg_dump does not say what an object needs, but it qualifies every name. So what a table's own statements
name and the database does not have is made with it: types, functions, sequences, tables it inherits from, its schema.
What comes after the rows is made of it as far as all that it refers to is there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from blocks.errors import RestoreRefused
from blocks.sources.collection import CollectionSpec
from blocks.sources.postgres.connect import Session, identifier
from blocks.sources.postgres.schema.database_facts import Backup
from blocks.sources.postgres.schema.entries import Entry, Name, split
from blocks.sources.postgres.schema.live import KINDS, LiveObjects
from blocks.sources.postgres.schema.tables import TableShape

_ABOUT_TABLES = (
    *("INDEX", "CONSTRAINT", "CHECK CONSTRAINT", "FK CONSTRAINT", "TRIGGER", "RULE", "POLICY", "ROW SECURITY"),
    *("PUBLICATION TABLE", "COMMENT", "SECURITY LABEL"),
)
"""Types of entries after the rows that name the table that they are about first."""

_COMMENTED = ("CONSTRAINT", "TRIGGER", "RULE", "POLICY")

_USERS = frozenset(("TABLE", "TYPE", "DOMAIN", "FUNCTION", "DEFAULT", "INDEX", "CONSTRAINT"))
"""Types of entries that may name something that belongs to an extension."""

_GRANTED = """
SELECT DISTINCT CASE WHEN a.grantee = 0 THEN 'PUBLIC'
                ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END
FROM pg_catalog.pg_class c, LATERAL pg_catalog.aclexplode(c.relacl) a
WHERE c.oid = pg_catalog.to_regclass(%s) AND a.grantee <> c.relowner
"""


class MissingTables:
    """The tables that a database lacks, and all that is made with them.

    Args:
        backup: The backup, with the definitions of its tables.
        specs: The tables that it lacks.
        live: The objects that the database has.
        place: Name of the place, without secrets; for messages.
        moved: Those among them that are there until they are moved aside: what refers to them goes on.

    Raises:
        RestoreRefused: One of them cannot be made.
    """

    def __init__(
        self,
        backup: Backup,
        specs: Sequence[CollectionSpec],
        live: LiveObjects,
        place: str,
        moved: Collection[Name] = (),
    ) -> None:
        self.notes: list[str] = []
        self.collections = tuple(spec.name for spec in specs)
        self._live = live
        self._before, self._after = split(backup.before)[1], split(backup.after)[1]
        self._makers: dict[Name, list[Entry]] = {}
        self._said: dict[Name, list[Entry]] = {}
        for entry in self._before:
            if entry.subject is not None:
                about = entry.names[1] if entry.type == "TABLE ATTACH" else entry.subject
                (self._makers if _makes(entry) else self._said).setdefault(about, []).append(entry)
        self._plain = [entry for entry in self._before if entry.subject is None]
        schemas = (entry for entry in self._plain if entry.type == "SCHEMA")
        # IF NOT EXISTS, where the schema is `public`
        self._schemas = {entry.plain("EXISTS") or entry.plain("CREATE", "SCHEMA"): entry for entry in schemas}
        self._chosen: dict[int, Entry] = {}
        self._made: set[Name] = set()
        self._tables: set[Name] = set()
        wanted = [_at(spec) for spec in specs]
        for name in wanted:
            self._check(name, place)
            self._take(name)
        self._chosen_after = self._choose_after()
        extra = sorted(self._tables - set(wanted))
        self.notes += [f"Table {_shown(name)} was made too, without rows, because others need it." for name in extra]
        self.notes += self._not_made(set(wanted) - set(moved))

    def _check(self, name: Name, place: str) -> None:
        if not any(entry.type == "TABLE" for entry in self._makers.get(name, ())):
            raise RestoreRefused(f"{place} has no table {_shown(name)}, and the backup does not define it")
        if self._live.has("relation", name):
            raise RestoreRefused(
                f"{_shown(name)} of {place} is no table, but that is its name in the backup",
                hint="Rename what is there, or restore to an empty database with --to.",
            )

    @property
    def sequences(self) -> set[tuple[str, str]]:
        """The sequences that are made."""
        found = (entry.names[_own_position(entry)][:2] for entry in self._chosen.values() if entry.type == "SEQUENCE")
        return {(name[0], name[1]) for name in found}

    @property
    def entries(self) -> list[Entry]:
        """All that is run to make them."""
        return [*self._chosen.values(), *self._chosen_after]

    def sentences(self) -> list[str]:
        """Say what is going to be made, for people."""
        return [
            f"Table {name} is missing there and is made from the backup's definitions." for name in self.collections
        ]

    def _take(self, name: Name) -> None:
        """Choose what makes an object, what belongs to it before rows come, and what all of that names."""
        for entry in self._makers.get(name, ()):
            if self._live.has(KINDS[entry.type], name) or id(entry) in self._chosen:
                continue
            if entry.type == "TABLE":
                self._tables.add(name)
            self._choose(entry)
            self._made.add(name)
            for other in self._said.get(name, ()):
                if _belongs(other, entry) and self._is_owned(other):
                    self._choose(other)

    def _is_owned(self, entry: Entry) -> bool:
        """Whether the table that would own a sequence is there, or is made."""
        if entry.type != "SEQUENCE OWNED BY":
            return True
        owner = entry.names[1][:2]
        return owner in self._tables or self._live.has("relation", owner)

    def _choose(self, entry: Entry) -> None:
        if id(entry) not in self._chosen:
            self._chosen[id(entry)] = entry
            self._need_all(entry)

    def _need_all(self, entry: Entry) -> None:
        uses = entry.type in _USERS and not (entry.type == "TYPE" and "RANGE" in entry.words)
        for name in entry.names:
            self._need(name[:2], uses)

    def _need(self, name: Name, may_be_of_extension: bool) -> None:
        self._need_schema(name[0])
        if name in self._makers:
            self._take(name)
        elif may_be_of_extension and name[0] != "pg_catalog" and not self._live.has_any(name):
            # nobody defines it: it may come with an extension that lives in that schema
            for entry in self._plain:
                if entry.type == "EXTENSION" and entry.plain("WITH", "SCHEMA") == name[0]:
                    self._choose_plain(entry, "EXTENSION", entry.plain("EXISTS"))

    def _need_schema(self, schema: str) -> None:
        if (entry := self._schemas.get(schema)) is not None:
            self._choose_plain(entry, "SCHEMA", schema)

    def _choose_plain(self, entry: Entry, word: str, name: str | None) -> None:
        """Choose what makes an object with a plain name, and what is said about it."""
        if name is None or id(entry) in self._chosen or self._live.has(word.lower(), (name,)):
            return
        self._chosen[id(entry)] = entry
        for other in self._plain:
            if other.type in ("COMMENT", "ACL") and other.about == word and other.plain("ON", word) == name:
                self._chosen[id(other)] = other

    def _choose_after(self) -> list[Entry]:
        """Choose what comes after the rows; again, where a function of it brought one more table along."""
        while True:
            tables = set(self._tables)
            left_out: list[str] = []
            chosen: list[Entry] = []
            fits, self._indexes = True, self._own_indexes()
            for entry in filter(self._is_about_tables, self._after):
                # a comment follows what it is on
                fits = fits if entry.type == "COMMENT" else self._fits(entry, left_out)
                chosen += [entry] if fits else []
            if tables == self._tables:
                self.notes += left_out
                return chosen

    def _fits(self, entry: Entry, left_out: list[str]) -> bool:
        """Whether all that an entry refers to is there or is made."""
        lacking = [name for name in (name[:2] for name in entry.names) if self._lacks(name)]
        if entry.type == "FK CONSTRAINT" and not self._is_there(entry.names[1]):
            lacking = [entry.names[1]]
        publication = entry.plain("ALTER", "PUBLICATION")
        if lacking:
            own = entry.plain("ADD", "CONSTRAINT") or entry.plain(entry.type)
            what = "Foreign key" if entry.type == "FK CONSTRAINT" else entry.type.capitalize()
            at = f"{what} {own} of {_shown(self._table_of(entry))}"
            left_out.append(f"{at} was left out: {_shown(lacking[0])} is not there.")
        elif publication and not self._live.has("publication", (publication,)):
            left_out.append(f"Publication {publication} is not there, and {_shown(entry.names[0])} not in it.")
        else:
            self._need_all(entry)
            return True
        return False

    def _lacks(self, name: Name) -> bool:
        """Whether a relation of the backup neither is there nor is made."""
        relation = any(KINDS[entry.type] == "relation" for entry in self._makers.get(name, ()))
        return relation and not self._is_there(name)

    def _is_there(self, name: Name) -> bool:
        return name in self._made or self._live.has("relation", name)

    def _table_of(self, entry: Entry) -> Name:
        """Return the table that an entry after the rows is about."""
        if entry.type != "STATISTICS":
            return entry.names[0][:2]
        makers = ((name, self._makers.get(name, ())) for name in entry.names[1:])
        return next((name for name, entries in makers if any(e.type == "TABLE" for e in entries)), entry.names[0])

    def _is_about_tables(self, entry: Entry) -> bool:
        if not entry.names:
            return False
        if entry.type == "INDEX ATTACH":
            # attaching a partition to a table that is there attaches its indexes, too
            return set(entry.names) <= self._indexes
        if entry.type == "COMMENT" and entry.about == "INDEX":
            return entry.names[0] in self._indexes
        if entry.type == "COMMENT" and entry.about == "STATISTICS":
            found = (e for e in self._after if e.type == "STATISTICS" and e.subject == entry.subject)
            return any(self._table_of(e) in self._tables for e in found)
        if entry.type == "COMMENT" and entry.about not in _COMMENTED:
            return False
        return entry.type in (*_ABOUT_TABLES, "STATISTICS") and self._table_of(entry) in self._tables

    def _own_indexes(self) -> set[Name]:
        """The indexes of the tables that are made; they live in the schemas of their tables."""
        found = set[Name]()
        for entry in self._after:
            if entry.type not in ("INDEX", "CONSTRAINT") or entry.subject not in self._tables:
                continue
            own = entry.plain("INDEX") if entry.type == "INDEX" else entry.plain("ADD", "CONSTRAINT")
            if own is not None:
                found.add((entry.names[0][0], own))
        return found

    def _not_made(self, wanted: set[Name]) -> Iterable[str]:
        for entry in self._after:
            if entry.type != "FK CONSTRAINT" or entry.names[1] not in wanted:
                continue
            if self._live.has("relation", entry.names[0]):
                own, (at, to) = entry.plain("ADD", "CONSTRAINT"), map(_shown, entry.names[:2])
                yield f"Foreign key {own} of {at} refers to {to} and was not made."

    def create(self, session: Session, run: Callable[[Iterable[Entry]], None]) -> None:
        """Make everything that comes before rows, in the order of the backup.

        Args:
            session: A session with the restore's transaction open.
            run: Makes objects, one after another.
        """
        session.execute("SET LOCAL check_function_bodies = off")
        chosen = [entry for entry in self._before if id(entry) in self._chosen and not self._is_late(entry)]
        privileges = [entry for entry in chosen if entry.type == "ACL"]
        run(entry for entry in chosen if entry.type != "ACL")
        for name in self._tables | self.sequences:
            _take_privileges_away(session, identifier(*name))
        run(privileges)

    def _is_late(self, entry: Entry) -> bool:
        """Whether it makes a partition of a table that is there, which would give it indexes of its own."""
        return entry.type == "TABLE ATTACH" and entry.names[0] not in self._tables

    def finish(self) -> list[Entry]:
        """Return everything that comes after rows."""
        late = [entry for entry in self._before if id(entry) in self._chosen and self._is_late(entry)]
        keys = [entry for entry in self._chosen_after if entry.type == "FK CONSTRAINT"]
        others = [entry for entry in self._chosen_after if entry.type != "FK CONSTRAINT"]
        about = [entry for entry in others if entry.type == "COMMENT"]
        # a foreign key may refer to a row of a partition
        return [*(e for e in others if e.type != "COMMENT"), *late, *keys, *about]


def _makes(entry: Entry) -> bool:
    return entry.type in KINDS and entry.words[:1] == ("CREATE",)


def _belongs(entry: Entry, maker: Entry) -> bool:
    """Whether an entry before the rows, which names an object, is about the one that another makes."""
    if entry.type in ("COMMENT", "ACL", "SECURITY LABEL"):
        return KINDS.get(entry.about) == KINDS[maker.type]
    return maker.type == ("SEQUENCE" if entry.type == "SEQUENCE OWNED BY" else "TABLE")


def _own_position(entry: Entry) -> int:
    """Where a sequence is named: that of an identity column after its table."""
    return 0 if entry.words[:1] == ("CREATE",) else 1


def _take_privileges_away(session: Session, quoted: str) -> None:
    """Undo what default privileges of the live database gave; those of the backup come next."""
    for (grantee,) in session.execute(_GRANTED, (quoted,)).fetchall():
        session.execute(f"REVOKE ALL ON {quoted} FROM {grantee}".encode())


def _at(spec: CollectionSpec) -> Name:
    shape = TableShape.of(spec)
    return shape.schema, shape.table


def _shown(name: Name) -> str:
    return ".".join(name)
