"""Tables that a live database lacks come back with what belongs to them."""

from __future__ import annotations

from pathlib import Path

import pytest

from blocks.errors import RestoreRefused
from blocks.records import BackupType
from blocks.sources.target import RestoreMode
from tests.blocks.sources.postgres.kit import Books, gallery
from tests.postgres_server import PostgresServer


@pytest.fixture
def books(server: PostgresServer, tmp_path: Path) -> Books:
    gallery(server, "gallery")
    return Books(server, tmp_path, "gallery")


@pytest.fixture
def small(server: PostgresServer, tmp_path: Path) -> Books:
    server.create("small")
    return Books(server, tmp_path, "small")


LOST = {
    "plain ones": ("refers, tree, audit", ""),
    "without keys, rows or columns": ("keyless, chars, empty, unlogged, blank", ""),
    "keys of enums and extension types": ("insensitive, moody", ""),
    "with its schema": ('"Odd.schema"."T ""q"".x", odder', 'DROP SCHEMA "Odd.schema"'),
    "that inherits": ("derived", ""),
    "and the one it inherits from": ("base, derived", ""),
    "a partition": ("refers, set_null, measured_1", ""),
    "partitions of a partition": ("refers, set_null, measured_2a, measured_2b", ""),
    "and all its partitions": ("refers, set_null, measured_1, measured_2a, measured_2b", "DROP TABLE measured"),
    "with sequences, a foreign key, a trigger, a policy": ("child, parent", "DROP FUNCTION note"),
    "with types": (
        "every, moody, odder",
        "DROP DOMAIN moods, whole; DROP TYPE deep, mood, pair, span; DROP DOMAIN name5, posint, tag, numbers, days",
    ),
    "with extensions": ("every, odder, insensitive", "DROP EXTENSION hstore; DROP EXTENSION citext"),
}


@pytest.mark.parametrize("lost", LOST)
@pytest.mark.share(2)
def test_a_lost_table_comes_back_with_all_that_belongs_to_it(books: Books, lost: str) -> None:
    tables, more = LOST[lost]
    # a new table would get these, but the lost one did not have them
    books.run("ALTER DEFAULT PRIVILEGES GRANT INSERT ON TABLES TO reader")
    books.run("DROP VIEW seen", "DROP MATERIALIZED VIEW summed CASCADE")
    before = books.dump()
    books.back_up(BackupType.FULL)
    names = [name if "." in name else f"public.{name}" for name in tables.split(", ")]
    for mode in (RestoreMode.MERGE, RestoreMode.EXACT):
        books.run(f"DROP TABLE {tables}", *filter(None, more.split("; ")))
        result = books.restore(collections=tuple(f"books/{name}" for name in names), mode=mode)
        assert books.dump() == before, mode
        assert [note for note in result.notes if "missing there" in note] == [
            f"Table {name} is missing there and is made from the backup's definitions." for name in sorted(names)
        ]


def test_single_keys_of_a_lost_table_come_back(books: Books) -> None:
    books.back_up(BackupType.FULL)
    books.run("DROP TABLE refers, unlogged")
    books.restore(collections=("books/public.unlogged", "books/public.refers"), keys=("3",))
    with books.server.connect("gallery") as session:
        assert session.execute("SELECT id, v FROM refers").fetchall() == [(3, 3)]
        assert session.execute("SELECT id FROM unlogged").fetchall() == []


@pytest.mark.parametrize("there", [False, True], ids=["missing", "empty"])
def test_single_tables_go_into_a_database_without_all_the_others(books: Books, there: bool) -> None:
    books.back_up(BackupType.FULL)
    if there:
        books.server.create("single")
    books.restore(
        collections=("books/public.child", "books/large_objects"), to=books.server.dsn("single"), mode=RestoreMode.MERGE
    )
    with books.server.connect("single") as session:
        relations = session.execute("SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace")
        assert sorted(relations.fetchall()) == [("child",), ("child_id_seq",), ("child_pkey",)]
        assert session.execute("SELECT count(*), nextval('child_id_seq') FROM child").fetchone() == (9, 10)
        assert session.execute("SELECT lo_get(50003, 0, 1)").fetchone() == (b"x",)
        assert session.execute("SELECT tgname::text FROM pg_trigger WHERE NOT tgisinternal").fetchall() == [("noted",)]
    books.server.run("postgres", "DROP DATABASE single")


def test_lost_tables_come_back_beside_live_ones(books: Books) -> None:
    books.run("DROP MATERIALIZED VIEW summed CASCADE")
    before = books.dump()
    books.back_up(BackupType.FULL)
    books.run("DROP TABLE child, tree", "DELETE FROM parent; DELETE FROM keyless WHERE a = 1; DELETE FROM audit")
    books.restore(mode=RestoreMode.MERGE)
    books.run("DELETE FROM audit WHERE what = 'DELETE'")
    assert books.dump() == before


def test_what_refers_to_missing_tables_is_left_out_and_named(small: Books) -> None:
    small.run(
        "CREATE TABLE owners (id int PRIMARY KEY); INSERT INTO owners VALUES (1)",
        "CREATE TABLE pets (id int PRIMARY KEY, owner int REFERENCES owners); INSERT INTO pets VALUES (1, 1)",
        "CREATE TABLE toys (id int PRIMARY KEY, pet int REFERENCES pets); INSERT INTO toys VALUES (1, 1)",
        "CREATE POLICY own ON pets USING (id IN (SELECT o.id FROM owners o))",
        "CREATE PUBLICATION news FOR TABLE pets",
    )
    small.back_up(BackupType.FULL)
    small.run("DROP TABLE owners, pets CASCADE; DROP PUBLICATION news")
    result = small.restore(collections=("books/public.pets",), mode=RestoreMode.MERGE)
    told = " ".join(result.notes)
    assert "Foreign key pets_owner_fkey of public.pets was left out: public.owners is not there." in told
    assert "Policy own of public.pets was left out: public.owners is not there." in told
    assert "Publication news is not there" in told
    assert "Foreign key toys_pet_fkey of public.toys refers to public.pets and was not made." in told
    with small.server.connect("small") as session:
        assert session.execute("SELECT * FROM pets").fetchall() == [(1, 1)]
        kinds = session.execute("SELECT contype::text FROM pg_constraint WHERE conrelid = 'pets'::regclass").fetchall()
        assert kinds == [("p",)]


def test_a_lost_table_that_others_inherit_from_or_use_as_a_type_is_made_without_rows(small: Books) -> None:
    small.run(
        "CREATE TABLE kinds (id int PRIMARY KEY); INSERT INTO kinds VALUES (1)",
        "CREATE TABLE things (id int PRIMARY KEY, kind kinds); INSERT INTO things VALUES (1, ROW(7))",
    )
    small.back_up(BackupType.FULL)
    small.run("DROP TABLE things, kinds")
    result = small.restore(collections=("books/public.things",))
    assert "Table public.kinds was made too, without rows, because others need it." in result.notes
    with small.server.connect("small") as session:
        assert session.execute("SELECT (kind).id, (SELECT count(*) FROM kinds) FROM things").fetchall() == [(7, 0)]


def test_hostile_names_bodies_and_comments_are_no_headers(small: Books) -> None:
    header = "\n--\n-- Name: evil; Type: TABLE; Schema: public; Owner: postgres\n--\n\nDROP TABLE victim;\n"
    odd = 'a"; Type: VIEW; Schema: x; Owner: y.z\nfrom'
    quoted = '"' + odd.replace('"', '""') + '"'
    small.run(
        "CREATE TABLE victim (id int PRIMARY KEY); INSERT INTO victim VALUES (1)",
        f"CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $x$BEGIN{header}RETURN NEW; END$x$",
        f"CREATE TABLE {quoted} (id serial PRIMARY KEY, t text DEFAULT '{header}' CHECK (t <> E'\\'{header}'))",
        f'CREATE INDEX {quoted[:-4]}i" ON {quoted} (t) WHERE t <> $${header}$$',
        f"COMMENT ON TABLE {quoted} IS '{header}$$'; COMMENT ON INDEX {quoted[:-4]}i\" IS '$x$ -- {header}'",
        f"INSERT INTO {quoted} DEFAULT VALUES",
        f'CREATE TRIGGER "on public.victim" BEFORE INSERT ON {quoted} FOR EACH ROW EXECUTE FUNCTION f()',
        f"COMMENT ON COLUMN {quoted}.t IS '/* -- \"'",
        f"GRANT SELECT (t) ON {quoted} TO reader; GRANT INSERT ON {quoted} TO reader",
    )
    before = small.dump()
    made = small.back_up(BackupType.FULL)
    small.run(f"DROP TABLE {quoted}; DROP FUNCTION f")
    (collection,) = [c.name for c in made.collections if "victim" not in c.name]
    escaped = "".join(f"[{char}]" if char in "*?[" else char for char in collection)
    small.restore(collections=(escaped,))
    assert small.dump() == before


def test_a_view_in_the_place_of_a_table_is_refused(small: Books) -> None:
    small.run("CREATE TABLE t (id int PRIMARY KEY)", "CREATE TABLE other (id int)")
    small.back_up(BackupType.FULL)
    small.run("DROP TABLE t", "CREATE VIEW t AS SELECT 1 AS id")
    with pytest.raises(RestoreRefused, match=r"public\.t of small .* is no table"):
        small.restore(collections=("books/public.t",))


def test_a_lost_table_that_cannot_be_made_leaves_everything_as_it_was(small: Books) -> None:
    small.run("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)", "CREATE TABLE other (id int)")
    small.back_up(BackupType.FULL)
    small.run("DROP TABLE t", "CREATE TABLE u (id int CONSTRAINT t_pkey PRIMARY KEY)")
    before = small.dump()
    with pytest.raises(RestoreRefused, match="t_pkey"):
        small.restore(collections=("books/public.t",))
    assert small.dump() == before
