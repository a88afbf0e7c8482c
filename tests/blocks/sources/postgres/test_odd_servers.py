"""Roles and servers that are unusual: limited, read-only by default, under row level security, a standby."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.errors import SourceUnavailable
from blocks.records import BackupType
from blocks.sources.postgres.connect import translated
from blocks.sources.postgres.hints import hint_for
from blocks.sources.target import RestoreMode
from flows.verify import make_verification
from tests.blocks.sources.postgres.hand import restore, source_of, state_of
from tests.blocks.sources.postgres.kit import Books
from tests.postgres_server import PostgresServer

COMPLEX = """
CREATE TYPE own; CREATE FUNCTION own_in(cstring) RETURNS own LANGUAGE internal IMMUTABLE STRICT AS 'int4in';
CREATE FUNCTION own_out(own) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'int4out';
CREATE TYPE own (INPUT = own_in, OUTPUT = own_out, LIKE = int4);
CREATE TYPE holder AS (a own, b text);
CREATE TABLE t (id int PRIMARY KEY, v own, h holder, many own[]);
INSERT INTO t VALUES (1, '7', '(8,"x y")', '{1,NULL}'), (2, NULL, '(,)', '{}'), (3, NULL, NULL, NULL);
REVOKE EXECUTE ON FUNCTION own_out(own) FROM PUBLIC;
"""


def leftovers(server: PostgresServer) -> list[object]:
    with server.connect("postgres") as session:
        return session.execute("SELECT datname FROM pg_database WHERE datname LIKE 'lastgood%'").fetchall()


@pytest.fixture
def limited(server: PostgresServer) -> Iterator[PostgresServer]:
    server.run("postgres", "DROP ROLE IF EXISTS odd", "CREATE ROLE odd LOGIN CREATEDB IN ROLE pg_read_all_data")
    yield server
    server.run("postgres", "DROP DATABASE IF EXISTS odd WITH (FORCE)", "DROP ROLE odd")


def test_values_whose_output_function_the_role_may_not_execute_are_read_as_copy_reads_them(
    limited: PostgresServer,
) -> None:
    limited.create("odd", COMPLEX)
    whole, as_limited = state_of(source_of(limited, "odd")), state_of(source_of(limited, "odd", dsn={"user": "odd"}))
    assert as_limited.rows["public.t"].equals(whole.rows["public.t"])
    assert as_limited.rows["public.t"].column("v").to_pylist() == ["7", None, None]
    assert as_limited.rows["public.t"].column("h").to_pylist() == ['(8,"x y")', "(,)", None]


def test_a_role_whose_transactions_are_read_only_by_default_backs_up_and_restores(
    limited: PostgresServer, tmp_path: Path
) -> None:
    limited.run("postgres", "ALTER ROLE odd SET default_transaction_read_only = on", "CREATE DATABASE odd OWNER odd")
    with limited.connect("odd", user="odd", options="-c default_transaction_read_only=off") as session:
        session.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    source = source_of(limited, "odd", dsn={"user": "odd"})
    before = state_of(source)
    limited.run("odd", "DELETE FROM t")
    restore(source, before)
    assert state_of(source).rows["public.t"].num_rows == 1


def test_an_owner_under_forced_policies_puts_all_rows_and_reads_none_of_a_part(limited: PostgresServer) -> None:
    limited.run("postgres", "CREATE DATABASE odd OWNER odd")
    limited.run(
        "odd",
        "CREATE TABLE t (id int PRIMARY KEY); ALTER TABLE t OWNER TO odd; INSERT INTO t VALUES (1), (2), (3)",
        "CREATE POLICY one ON t USING (id = 1)",
        "ALTER TABLE t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
    )
    whole, source = state_of(source_of(limited, "odd")), source_of(limited, "odd", dsn={"user": "odd"})
    with pytest.raises(SourceUnavailable, match='"t"') as refused:
        state_of(source)
    assert "BYPASSRLS" in refused.value.hint
    limited.run("odd", "DELETE FROM t WHERE id > 1")
    restore(source, whole, ["public.t"])
    after = state_of(source_of(limited, "odd"))
    assert sorted(after.rows["public.t"].column("id").to_pylist()) == [1, 2, 3]
    with limited.connect("odd") as session:
        found = session.execute("SELECT relrowsecurity, relforcerowsecurity FROM pg_class WHERE relname = 't'")
        assert found.fetchone() == (True, True)


def test_a_standby_is_backed_up_without_what_only_its_primary_has_and_says_so(
    server: PostgresServer, tmp_path: Path
) -> None:
    server.create(
        "odd",
        "CREATE TABLE t (id serial PRIMARY KEY); INSERT INTO t DEFAULT VALUES",
        "CREATE UNLOGGED TABLE passing (id serial PRIMARY KEY, v text); INSERT INTO passing (v) VALUES ('x')",
    )
    standby = PostgresServer(primary=server)
    try:
        standby.start()
        books = Books(standby, tmp_path, "odd", verify_dsn=server.dsn("postgres"))
        backup = books.back_up(BackupType.FULL)
        assert make_verification(books.plan).findings == ()
        assert not leftovers(server)
    finally:
        standby.stop()
    assert [c.name for c in backup.collections] == ["books/public.t"]
    assert any("public.passing" in warning and "standby" in warning for warning in backup.sources[0].warnings)
    books.restore(to=server.dsn("odd_copy"))
    with server.connect("odd_copy") as session:
        assert session.execute("SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM passing)").fetchone() == (1, 0)
    server.run("postgres", "DROP DATABASE odd_copy", "DROP DATABASE odd")


def test_columns_that_inheritance_puts_in_another_order_are_the_same_table(
    server: PostgresServer, tmp_path: Path
) -> None:
    server.create(
        "ordered",
        "CREATE TABLE parent (a int); CREATE TABLE child (b text) INHERITS (parent); ALTER TABLE parent ADD c date",
        "CREATE TABLE keyed (id int PRIMARY KEY, d text) INHERITS (parent); ALTER TABLE parent ADD e int",
        "INSERT INTO child VALUES (1, 'x', '2020-01-01', 5), (1, 'x', '2020-01-01', 5), (2, NULL, NULL, NULL)",
        "INSERT INTO keyed (id, a, d, e) VALUES (7, 1, 'd', 9)",
    )
    books = Books(server, tmp_path, "ordered")
    full = books.back_up(BackupType.FULL)
    assert make_verification(books.plan).findings == ()
    copy = server.dsn("ordered_copy")
    books.restore(full, to=copy)
    server.run("ordered_copy", "DELETE FROM child; UPDATE keyed SET d = 'changed'")
    books.source = source_of(server, "ordered_copy")
    books.plan = books.plan.model_copy(update={"sources": {"books": books.source}})
    books.restore(full, adopt=True)
    books.restore(full, mode=RestoreMode.MERGE, adopt=True)
    with server.connect("ordered_copy") as session:
        assert session.execute("SELECT a, b, c::text, e FROM child ORDER BY 1, 2").fetchall() == [
            (1, "x", "2020-01-01", 5),
            (1, "x", "2020-01-01", 5),
            (2, None, None, None),
        ]
        assert session.execute("SELECT id, a, d, e FROM keyed").fetchall() == [(7, 1, "d", 9)]
    server.run("postgres", "DROP DATABASE ordered_copy")


def test_an_error_names_the_table_the_constraint_and_the_function_that_it_is_about(server: PostgresServer) -> None:
    server.create(
        "named",
        "CREATE TABLE sound (id int PRIMARY KEY, v int); CREATE TABLE t (id int PRIMARY KEY, v int NOT NULL)",
        "CREATE FUNCTION raises() RETURNS int LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'no'; END$$",
    )
    with server.connect("named") as session:
        for statement, names in (
            ("INSERT INTO t VALUES (1, NULL)", "public.t"),
            ("SELECT raises()", "PL/pgSQL function raises()"),
            ("INSERT INTO t VALUES (1, 1), (1, 1)", "public.t"),
        ):
            with pytest.raises(SourceUnavailable) as refused, translated("here", "cannot try in"):
                session.execute(statement.encode())
            assert names in refused.value.message


def test_what_pg_dump_reports_has_the_hint_of_its_cause() -> None:
    assert "max_locks_per_transaction" in hint_for("", "pg_dump: error: query failed: ERROR:  out of shared memory")
    assert "pg_read_all_data" in hint_for("", "pg_dump: error: query failed: ERROR:  permission denied for table t")
