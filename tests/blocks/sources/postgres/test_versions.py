"""Every version of the server that is supported: everything comes back, incrementals hold what changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from blocks.errors import RestoreRefused
from blocks.records import BackupStatus, BackupType
from blocks.sources.postgres.connect import connect
from blocks.sources.postgres.schema.live import is_empty
from blocks.sources.postgres.write.empty import drop_everything
from blocks.sources.target import RestoreMode
from flows.verify import make_verification
from tests.blocks.sources.postgres.kit import Books, changes, gallery
from tests.postgres_server import PostgresServer
from tests.postgres_versions import RELEASES, programs

OLDEST = min(release.version for release in RELEASES)
NEWEST = max(release.version for release in RELEASES)
NEW_SETTING = "SET transaction_timeout = 0;"
"""What pg_dump begins with since 17, and servers before do not know."""
OTHER_THINGS = r"""
CREATE TYPE other_type AS (a int);
CREATE DOMAIN other_domain AS int;
CREATE AGGREGATE other_sum (int) (sfunc = int4pl, stype = int);
CREATE STATISTICS other_statistics ON id, t FROM every;
CREATE COLLATION other_collation FROM "C";
CREATE OPERATOR === (leftarg = anyenum, rightarg = anyenum, function = enum_eq);
CREATE TEXT SEARCH CONFIGURATION other_search (COPY = simple);
CREATE FUNCTION other_function(other_type) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE EXTENSION ltree;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT EXECUTE ON FUNCTIONS TO reader;
GRANT CREATE ON SCHEMA public TO reader WITH GRANT OPTION;
COMMENT ON SCHEMA public IS 'mine';
"""


@pytest.fixture
def newer(server_of_version: Callable[[int], PostgresServer]) -> PostgresServer:
    running = server_of_version(NEWEST)
    running.run("postgres", "DO $$BEGIN CREATE ROLE reader LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END$$")
    return running


@pytest.fixture
def books(any_server: PostgresServer, tmp_path: Path) -> Books:
    gallery(any_server, "gallery")
    return Books(any_server, tmp_path, "gallery")


def only(*versions: int) -> pytest.MarkDecorator:
    """Run a test on some versions, 0 being the installed one: those between them differ in nothing that it is about."""
    return pytest.mark.parametrize("any_server", versions, indirect=True)


@pytest.mark.share(3)
def test_a_chain_comes_back_into_a_missing_database_and_is_verified(books: Books, any_server: PostgresServer) -> None:
    books.back_up(BackupType.FULL)
    books.run(
        "UPDATE every SET t = 'new' WHERE id = 3; DELETE FROM every WHERE id = 4; DELETE FROM keyless WHERE a = 1",
        "INSERT INTO parent (name) VALUES ('later')",
        "SELECT nextval('counting'), lo_put(50003, 0, 'y'), lo_unlink(50001)",
        "INSERT INTO measured VALUES ('2020-02-02', 77), ('2022-02-02', 78)",
        "VACUUM (FREEZE) parent",
    )
    made = books.back_up()
    assert made.backup_type is BackupType.INCREMENTAL
    books.restore(to=any_server.dsn("copy"))
    assert books.dump("copy") == books.dump()
    any_server.run("postgres", "DROP DATABASE copy")
    result = make_verification(books.plan)
    assert (result.status, result.findings) == (BackupStatus.VERIFIED, ())


@pytest.mark.share(3)
def test_the_live_database_is_brought_back_by_what_the_newest_pg_dump_wrote(
    books: Books, any_server: PostgresServer, tmp_path: Path
) -> None:
    """By what the server's own wrote, too: test_every_kind.py, on each version."""
    books.run(f"CREATE FUNCTION says() RETURNS void LANGUAGE plpgsql AS $$BEGIN\n{NEW_SETTING}\nEND$$")
    before = books.dump()
    newest = Books(any_server, tmp_path / "newest", "gallery", pg_dump=str(programs(NEWEST).pg_dump))
    made = newest.back_up(BackupType.FULL)
    assert str(made.sources[0].definition["before"]).count(NEW_SETTING) == 1
    newest.restore(to=any_server.dsn("copy"))
    assert books.dump("copy") == before
    any_server.run("postgres", "DROP DATABASE copy")
    books.run(
        "DELETE FROM child; DELETE FROM parent; UPDATE every SET t = 'lost'; TRUNCATE keyless; SELECT lo_unlink(50001)"
    )
    newest.restore()
    assert books.dump() == before
    books.run("DROP TABLE child CASCADE; ALTER TABLE every DROP COLUMN jb; CREATE TABLE other (x int)")
    books.run(OTHER_THINGS, "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    newest.restore()
    assert books.dump() == before
    with any_server.connect("gallery") as session:
        assert is_empty(session) is False
        session.execute("BEGIN")
        drop_everything(session)
        assert is_empty(session)


# the only setting that is not the same on all came with 17
@only(OLDEST, 17, NEWEST)
def test_settings_of_the_database_do_not_change_what_is_kept(books: Books) -> None:
    before = books.dump()
    settings = {
        "array_nulls": "off", "datestyle": "'SQL, DMY'", "intervalstyle": "sql_standard", "timezone": "'Asia/Kolkata'",
        "extra_float_digits": "-15", "bytea_output": "escape", "xmloption": "document", "search_path": "nowhere",
    }  # fmt: skip
    if books.server.programs.version >= 17:
        settings["transaction_timeout"] = "'1h'"
    for name, value in settings.items():
        books.run(f"ALTER DATABASE gallery SET {name} = {value}")
    with connect(books.server.dsn("gallery"), 2) as session:
        limits = session.execute("SELECT setting FROM pg_settings WHERE name = 'transaction_timeout'").fetchall()
    assert limits == [("0",)] * ("transaction_timeout" in settings)
    books.back_up(BackupType.FULL)
    for name in settings:
        books.run(f"ALTER DATABASE gallery RESET {name}")
    assert books.back_up().upserts == 0
    books.run("DELETE FROM every; DELETE FROM odder; DELETE FROM keyless")
    books.run("ALTER DATABASE gallery SET array_nulls = off", "ALTER DATABASE gallery SET datestyle = 'SQL, DMY'")
    books.restore()
    assert books.dump() == before


# the role that may read everything came with 14
@only(OLDEST, 14, NEWEST)
def test_a_role_that_may_only_read_makes_backups(books: Books, any_server: PostgresServer) -> None:
    if any_server.programs.version < 14:
        # there is no role yet that may read everything
        books.run(
            'GRANT USAGE ON SCHEMA "Odd.schema" TO reader; GRANT SELECT ON pg_largeobject TO reader',
            'GRANT SELECT ON ALL TABLES IN SCHEMA public, "Odd.schema" TO reader',
            "GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO reader",
        )
    books.run("ALTER ROLE reader BYPASSRLS")
    before = books.dump()
    dsn = SecretStr(any_server.dsn("gallery", user="reader"))
    books.plan.sources["books"] = books.source.model_copy(update={"dsn": dsn})
    books.back_up(BackupType.FULL)
    books.run("UPDATE every SET t = 'lost'")
    assert books.back_up().upserts == 5
    books.run("UPDATE every SET t = t")
    books.plan.sources["books"] = books.source
    books.restore(to=any_server.dsn("copy"))
    assert books.dump("copy") == books.dump() != before
    any_server.run("postgres", "DROP DATABASE copy")


# constraints that only overlap came with 18; all else is rows, which no version treats in another way
@only(OLDEST, 0, NEWEST)
def test_rows_of_a_merge_find_their_own(books: Books) -> None:
    before = books.dump()
    books.back_up(BackupType.FULL)
    books.run("DELETE FROM keyless WHERE a = 1; UPDATE parent SET name = 'z' WHERE name = 'a'; DELETE FROM every")
    if books.server.programs.version >= 18:
        books.run("UPDATE lasting SET v = 'lost' WHERE during = '[1,5)'")
    books.restore(mode=RestoreMode.MERGE)
    assert books.dump() == before
    if books.server.programs.version >= 18:
        # a row that only overlaps those of the backup is another row
        books.run("DELETE FROM within; DELETE FROM lasting WHERE v = 'b'")
        books.run("UPDATE lasting SET during = '[1,9)' WHERE v = 'a'")
        with pytest.raises(RestoreRefused, match="exclusion"):
            books.restore(mode=RestoreMode.MERGE, collections=("books/public.lasting",))


@only(0, *(release.version for release in RELEASES if release.version < NEWEST))
@pytest.mark.share(2)
def test_a_later_version_of_the_server_goes_on_with_a_full_of_what_is_another_cluster(
    books: Books, newer: PostgresServer
) -> None:
    books.back_up(BackupType.FULL)
    newer.run("postgres", "DROP DATABASE IF EXISTS gallery")
    place = newer.dsn("gallery")
    books.restore(to=place)
    moved = books.source.model_copy(update={"dsn": SecretStr(place), "pg_dump": str(newer.programs.pg_dump)})
    books.plan.sources["books"] = moved
    assert books.back_up().backup_type is BackupType.FULL
    newer.run("gallery", "UPDATE every SET t = 'new' WHERE id = 3; DELETE FROM every WHERE id = 2")
    made = books.back_up()
    assert (made.backup_type, changes(made)) == (BackupType.INCREMENTAL, {"every": (1, 1)})


def test_columns_that_may_still_hold_nulls_are_no_key(newer: PostgresServer, tmp_path: Path) -> None:
    newer.create(
        "unsure",
        "CREATE TABLE unsure (a int UNIQUE, v int); INSERT INTO unsure VALUES (NULL, 1), (NULL, 2), (3, 3)",
        "ALTER TABLE unsure ADD CONSTRAINT sure NOT NULL a NOT VALID",
    )
    books = Books(newer, tmp_path, "unsure")
    books.back_up(BackupType.FULL)
    books.run("DELETE FROM unsure WHERE v = 2")
    assert changes(books.back_up()) == {"unsure": (0, 1)}
    books.assert_restores()
