"""What a backup does not keep, it says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr

from blocks.records import BackupMetadata, BackupType
from tests.blocks.sources.postgres.kit import Books
from tests.postgres_server import PostgresServer, postgres_server


@pytest.fixture(scope="module")
def logical() -> Iterator[PostgresServer]:
    with postgres_server(wal_level="logical") as running:
        yield running


@pytest.fixture
def books(logical: PostgresServer, tmp_path: Path) -> Books:
    logical.create("said", "CREATE TABLE t (id int PRIMARY KEY, v text)", "INSERT INTO t VALUES (1, 'x'), (2, 'x')")
    return Books(logical, tmp_path, "said")


def warnings(backup: BackupMetadata) -> str:
    return "\n".join(backup.sources[0].warnings)


def test_a_plain_database_is_kept_without_a_warning(books: Books) -> None:
    assert warnings(books.back_up(BackupType.FULL)) == ""


@pytest.mark.parametrize(
    ("statements", "undone", "expected"),
    [
        (["ALTER DATABASE said SET work_mem = '8MB'"], [], "Settings of .* SET: work_mem"),
        (["CREATE ROLE one", "ALTER ROLE one IN DATABASE said SET work_mem = '8MB'"], ["DROP ROLE one"],
         "Settings of .* SET: work_mem"),
        (["REVOKE TEMPORARY ON DATABASE said FROM PUBLIC"], [], "The privileges of the database said"),
        (["COMMENT ON DATABASE said IS 'hello'"], [], "The comment of the database said"),
        (["ALTER DATABASE said CONNECTION LIMIT 99"], [], "The limit of connections of the database said"),
        (["CREATE ROLE one", "CREATE ROLE two", "GRANT SELECT ON t TO one", "ALTER TABLE t OWNER TO two"],
         ["DROP TABLE t", "DROP ROLE one, two"], r"Roles .* \(one, two\) are named"),
        (["CREATE TABLESPACE aside LOCATION '{space}'", "ALTER INDEX t_pkey SET TABLESPACE aside"],
         ["DROP TABLE t", "DROP TABLESPACE aside"], r"Tablespaces .* \(aside\) are named"),
        (["CREATE SUBSCRIPTION sub CONNECTION 'host=nowhere' PUBLICATION p WITH (connect = false)"],
         ["ALTER SUBSCRIPTION sub SET (slot_name = NONE)", "DROP SUBSCRIPTION sub"],
         r"Subscriptions .* \(sub\) are kept as definitions"),
        (["SELECT pg_create_logical_replication_slot('slot', 'pgoutput')"], ["SELECT pg_drop_replication_slot('slot')"],
         r"Replication slots .* \(slot\) are not"),
        (["BEGIN", "UPDATE t SET v = 'p' WHERE id = 1", "PREPARE TRANSACTION 'half'"], ["ROLLBACK PREPARED 'half'"],
         r"prepared transactions \(half\) have done"),
        (["CREATE EXTENSION postgres_fdw", "CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw",
          "CREATE FOREIGN TABLE elsewhere (x int) SERVER far"], [], "rows of foreign table public.elsewhere live"),
    ],
)  # fmt: skip
def test_what_is_not_kept_is_said(
    books: Books, logical: PostgresServer, statements: list[str], undone: list[str], expected: str
) -> None:
    space = logical.folder / "space"
    space.mkdir(exist_ok=True)
    logical.own()
    with logical.connect("said") as session:
        for statement in statements:
            session.execute(statement.replace("{space}", str(space)).encode())
        try:
            (said,) = books.back_up(BackupType.FULL).sources[0].warnings
            assert re.search(expected, said)
        finally:
            for statement in undone:
                session.execute(statement.encode())


def test_things_that_pg_dump_keeps_are_no_warning(books: Books) -> None:
    books.run(
        "CREATE EXTENSION pg_trgm; CREATE PUBLICATION p FOR ALL TABLES; CREATE STATISTICS s ON id, v FROM t",
        "CREATE FUNCTION f() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'",
        "CREATE EVENT TRIGGER e ON ddl_command_start EXECUTE FUNCTION f()",
        "CREATE FUNCTION of_t(t) RETURNS text LANGUAGE sql AS 'SELECT $1.v'",
        "CREATE CAST (t AS text) WITH FUNCTION of_t(t)",
        "CREATE OPERATOR === (leftarg = int, rightarg = int, function = int4eq); CREATE UNLOGGED TABLE u (id int)",
        "CREATE TEXT SEARCH CONFIGURATION c (COPY = simple); COMMENT ON TABLE t IS 'kept'",
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC",
    )
    assert warnings(books.back_up(BackupType.FULL)) == ""
    books.assert_restores()


def test_an_index_that_is_not_valid_is_said(books: Books, logical: PostgresServer) -> None:
    with pytest.raises(psycopg.errors.UniqueViolation):
        logical.run("said", "CREATE UNIQUE INDEX CONCURRENTLY broken ON t (v)")
    assert re.search(r"Indexes .* not valid \(broken\)", warnings(books.back_up(BackupType.FULL)))


def test_a_locale_of_another_provider_is_said(logical: PostgresServer, tmp_path: Path) -> None:
    logical.run(
        "postgres",
        "CREATE DATABASE international TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en' LOCALE 'C'",
    )
    books = Books(logical, tmp_path, "international")
    assert "of the provider icu" in warnings(books.back_up(BackupType.FULL))


def test_what_only_a_superuser_may_read_is_said(books: Books, logical: PostgresServer) -> None:
    """pg_dump leaves such things out with a warning or without one."""
    books.run(
        "CREATE ROLE looks LOGIN IN ROLE pg_read_all_data; CREATE EXTENSION postgres_fdw",
        "CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw",
        "CREATE USER MAPPING FOR postgres SERVER far OPTIONS (password 'secret')",
        "CREATE SUBSCRIPTION sub CONNECTION 'host=nowhere' PUBLICATION p WITH (connect = false)",
    )
    dsn = SecretStr(logical.dsn("said", user="looks"))
    books.plan.sources["books"] = books.source.model_copy(update={"dsn": dsn})
    said = warnings(books.back_up(BackupType.FULL))
    books.run("ALTER SUBSCRIPTION sub SET (slot_name = NONE)", "DROP SUBSCRIPTION sub", "DROP ROLE looks")
    assert "Options of user mappings for foreign servers (far)" in said
    assert "subscriptions not dumped because current user is not a superuser" in said
    assert "secret" not in said


def test_subscriptions_and_settings_of_another_database_are_not_ours(books: Books, logical: PostgresServer) -> None:
    logical.create("other", "ALTER DATABASE other SET work_mem = '8MB'")
    logical.run("other", "CREATE SUBSCRIPTION sub CONNECTION 'host=nowhere' PUBLICATION p WITH (connect = false)")
    said = warnings(books.back_up(BackupType.FULL))
    logical.run("other", "ALTER SUBSCRIPTION sub SET (slot_name = NONE)", "DROP SUBSCRIPTION sub")
    assert said == ""
