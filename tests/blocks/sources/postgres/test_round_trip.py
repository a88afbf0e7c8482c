"""Databases come back as they were: pg_dump of both is the same text."""

from __future__ import annotations

from pathlib import Path

import pytest

from blocks.errors import RestoreRefused, SourceUnavailable
from blocks.records import BackupStatus, BackupType
from blocks.sources.target import RestoreMode
from flows.verify import make_verification
from tests.blocks.sources.postgres.kit import Books, gallery
from tests.postgres_server import PostgresServer


def quoted(name: object) -> str:
    return '"' + str(name).replace('"', '""') + '"'


@pytest.fixture
def books(server: PostgresServer, tmp_path: Path) -> Books:
    gallery(server, "gallery")
    return Books(server, tmp_path, "gallery")


def test_everything_comes_back_into_a_missing_database(books: Books, server: PostgresServer) -> None:
    made = books.back_up(BackupType.FULL)
    assert sum(len(c.parts) for c in made.collections) > len(made.collections)
    with server.connect("gallery") as session:
        for collection in made.collections[:-1]:
            shape = collection.definition
            counted = session.execute(
                f'SELECT count(*) FROM ONLY "{shape["schema"]}".{quoted(shape["table"])}'
            ).fetchone()
            assert counted == (collection.rows,), collection.name
    books.restore(made, to=server.dsn("copy"))
    assert books.dump("copy") == books.dump()
    server.run("postgres", "DROP DATABASE copy")


def test_everything_comes_back_over_what_was_lost(books: Books) -> None:
    before = books.dump()
    books.back_up(BackupType.FULL)
    books.run(
        "DELETE FROM child; DELETE FROM parent; UPDATE every SET t = 'lost', n = 7; TRUNCATE keyless",
        "INSERT INTO moody VALUES ('it''s \"fine\"', 9); SELECT setval('counting', -50)",
        "SELECT lo_unlink(50001), lo_put(50003, 0, 'y')",
        "REFRESH MATERIALIZED VIEW summed",
    )
    books.restore()
    assert books.dump() == before


def test_everything_comes_back_over_other_definitions(books: Books) -> None:
    before = books.dump()
    books.back_up(BackupType.FULL)
    books.run(
        "DROP TABLE child CASCADE; ALTER TABLE every DROP COLUMN jb; CREATE TABLE other (x int)",
        "DROP EXTENSION hstore CASCADE",
        "CREATE SCHEMA more; CREATE FUNCTION more.f() RETURNS int LANGUAGE sql AS 'SELECT 1'; SELECT lo_create(6)",
    )
    books.restore()
    assert books.dump() == before


def test_a_failed_restore_leaves_everything_as_it_was(books: Books) -> None:
    books.back_up(BackupType.FULL)
    books.run("DROP TABLE child CASCADE; SELECT setval('counting', -50), setval('unused', 70); DELETE FROM refers")
    before = books.dump()
    with books.server.connect("gallery") as holder:
        holder.execute("BEGIN; LOCK TABLE every IN ACCESS SHARE MODE")
        impatient = books.source.model_copy(update={"lock_timeout_seconds": 0.2})
        books.plan.sources["books"] = impatient
        with pytest.raises((SourceUnavailable, RestoreRefused), match="lock"):
            books.restore()
    assert books.dump() == before


@pytest.mark.parametrize("locked", ["LOCK TABLE every IN ACCESS EXCLUSIVE MODE", "ALTER TABLE every ADD added int"])
def test_a_backup_waits_for_a_lock_only_as_long_as_the_plan_says(books: Books, locked: str) -> None:
    with books.server.connect("gallery") as holder:
        holder.execute(f"BEGIN; {locked}".encode())
        books.plan.sources["books"] = books.source.model_copy(update={"lock_timeout_seconds": 0.2})
        with pytest.raises(SourceUnavailable, match="lock timeout") as met:
            books.back_up(BackupType.FULL)
    assert "Another session holds a lock" in (met.value.hint or "")


def test_a_verification_restores_into_a_scratch_database_and_drops_it(books: Books) -> None:
    books.back_up(BackupType.FULL)
    result = make_verification(books.plan)
    assert (result.status, result.findings) == (BackupStatus.VERIFIED, ())
    with books.server.connect("postgres") as session:
        assert session.execute("SELECT datname FROM pg_database WHERE datname ~ 'scratch'").fetchall() == []


def test_merging_puts_the_rows_of_the_backup_and_keeps_all_others(books: Books) -> None:
    before = books.dump()
    books.back_up(BackupType.FULL)
    books.run(
        "DELETE FROM keyless WHERE a = 1; INSERT INTO keyless VALUES (9, 'new', 9), (1, 'x', 1)",
        "UPDATE insensitive SET k = 'ALPHA', v = 7 WHERE k = 'alpha'; INSERT INTO insensitive VALUES ('new', 0)",
        "UPDATE parent SET name = 'z' WHERE name = 'a'; DELETE FROM every WHERE id = 3",
    )
    books.restore(mode=RestoreMode.MERGE)
    books.run("DELETE FROM keyless WHERE a = 9; DELETE FROM insensitive WHERE k = 'new'")
    assert books.dump() == before


def test_single_rows_come_back_by_their_key(books: Books) -> None:
    before = books.dump()
    books.back_up(BackupType.FULL)
    books.run("UPDATE every SET t = 'lost' WHERE id IN (3, 4); DELETE FROM insensitive WHERE k = 'beta'")
    books.restore(collections=("books/public.every",), keys=("3",))
    books.restore(collections=("books/public.every",), keys=("4",), mode=RestoreMode.MERGE)
    books.restore(collections=("books/public.insensitive",), keys=("be*",))
    assert books.dump() == before


def test_a_narrowed_backup_never_touches_what_it_does_not_know(server: PostgresServer, tmp_path: Path) -> None:
    server.create(
        "narrow",
        "CREATE TABLE kept (id serial PRIMARY KEY); INSERT INTO kept DEFAULT VALUES; CREATE SCHEMA s",
        "CREATE TABLE huge (id serial PRIMARY KEY); INSERT INTO huge DEFAULT VALUES; CREATE TABLE s.t ()",
    )
    books = Books(server, tmp_path, "narrow", schemas=["public"], exclude=["*.huge"])
    made = books.back_up(BackupType.FULL)
    assert [c.name for c in made.collections] == ["books/public.kept"]
    books.run("TRUNCATE kept RESTART IDENTITY; INSERT INTO huge DEFAULT VALUES; CREATE TABLE more (x int)")
    books.restore()
    with server.connect("narrow") as session:
        assert session.execute("SELECT (SELECT max(id) FROM kept), (SELECT count(*) FROM huge)").fetchone() == (1, 2)
        assert session.execute("SELECT nextval('kept_id_seq'), to_regclass('more') IS NOT NULL").fetchone() == (2, True)
    books.restore(to=server.dsn("narrow_copy"))
    with server.connect("narrow_copy") as session:
        assert session.execute("SELECT relname::text FROM pg_stat_user_tables").fetchall() == [("kept",)]
    server.run("postgres", "DROP DATABASE narrow_copy")


def test_a_choice_that_fits_nothing_keeps_no_definition_and_says_so(server: PostgresServer, tmp_path: Path) -> None:
    server.create("narrow", "CREATE TABLE t (id int)")
    made = Books(server, tmp_path, "narrow", tables=["nothing.*"]).back_up(BackupType.FULL)
    assert made.sources[0].definition["before"] == ""
    assert "No table" in made.sources[0].warnings[0]


def test_text_of_a_database_that_is_not_in_utf8_comes_back(server: PostgresServer, tmp_path: Path) -> None:
    server.run("postgres", "CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'")
    server.run(
        "latin", "CREATE TABLE t (k text PRIMARY KEY)", "INSERT INTO t VALUES ('é')", "COMMENT ON TABLE t IS 'ü'"
    )
    books = Books(server, tmp_path, "latin")
    books.back_up(BackupType.FULL)
    books.restore(to=server.dsn("latin_copy"))
    assert server.dump("latin_copy", "--encoding=UTF8") == server.dump("latin", "--encoding=UTF8")
    server.run("postgres", "DROP DATABASE latin", "DROP DATABASE latin_copy")


def test_the_public_schema_alone_comes_back_into_a_missing_database(server: PostgresServer, tmp_path: Path) -> None:
    server.create(
        "chosen",
        "CREATE TABLE t (k text PRIMARY KEY)",
        "CREATE SCHEMA other",
        "GRANT CREATE ON SCHEMA public TO PUBLIC",
    )
    books = Books(server, tmp_path, "chosen", schemas=["public"])
    made = books.back_up(BackupType.FULL)
    books.restore(made, to=server.dsn("chosen_copy"))
    assert server.dump("chosen_copy", "--schema=public") == server.dump("chosen", "--schema=public")
    result = make_verification(books.plan, made.backup_id, deep=True)
    assert (result.status, result.findings) == (BackupStatus.VERIFIED, ())
    server.run("postgres", "DROP DATABASE chosen", "DROP DATABASE chosen_copy")


def test_more_large_objects_than_locks_come_back(server: PostgresServer, tmp_path: Path) -> None:
    server.create("many", "SELECT count(lo_from_bytea(0, 'x')) FROM generate_series(1, 30000)")
    books = Books(server, tmp_path, "many", part_size_bytes=10_000_000)
    books.back_up(BackupType.FULL)
    books.restore(to=server.dsn("many_copy"))
    with server.connect("many_copy") as session:
        assert session.execute("SELECT count(*) FROM pg_largeobject").fetchone() == (30000,)
    server.run("postgres", "DROP DATABASE many_copy")


@pytest.mark.parametrize("mode", [RestoreMode.EXACT, RestoreMode.MERGE])
def test_rows_older_than_a_constraint_come_back(server: PostgresServer, tmp_path: Path, mode: RestoreMode) -> None:
    server.create(
        "older",
        "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, -1), (2, 2)",
        "ALTER TABLE t ADD CONSTRAINT positive CHECK (v > 0) NOT VALID",
        "COMMENT ON CONSTRAINT positive ON t IS 'from now on'",
    )
    books = Books(server, tmp_path, "older")
    books.back_up(BackupType.FULL)
    before = books.dump()
    books.run("DELETE FROM t WHERE id = 1; UPDATE t SET v = 3")
    books.restore(mode=mode)
    assert books.dump() == before


def test_rows_are_replaced_as_the_index_of_their_key_compares(server: PostgresServer, tmp_path: Path) -> None:
    server.create(
        "blind",
        "CREATE COLLATION blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
        'CREATE TABLE t (k text COLLATE blind NOT NULL, v int); CREATE UNIQUE INDEX ON t (k COLLATE "C")',
        "INSERT INTO t VALUES ('a', 1), ('A', 2)",
    )
    books = Books(server, tmp_path, "blind")
    books.back_up(BackupType.FULL)
    books.run("UPDATE t SET v = 9")
    books.restore(collections=("books/public.t",), keys=("a",), mode=RestoreMode.MERGE)
    with server.connect("blind") as session:
        assert session.execute('SELECT k, v FROM t ORDER BY k COLLATE "C"').fetchall() == [("A", 9), ("a", 1)]


def test_names_of_cursors_come_back(server: PostgresServer, tmp_path: Path) -> None:
    server.create(
        "cursors",
        "CREATE DOMAIN named AS refcursor; CREATE TABLE t (id int PRIMARY KEY, r refcursor, a refcursor[], d named)",
        "INSERT INTO t VALUES (1, 'a \\ b', '{x,NULL}', 'c'), (2, NULL, NULL, NULL), (3, '', '{}', '')",
        "CREATE TABLE loose (r refcursor); INSERT INTO loose VALUES ('a'), ('a')",
    )
    books = Books(server, tmp_path, "cursors")
    books.back_up(BackupType.FULL)
    books.assert_restores()
    before = books.dump()
    books.run("DELETE FROM loose; UPDATE t SET r = 'other'")
    books.restore()
    assert books.dump() == before
