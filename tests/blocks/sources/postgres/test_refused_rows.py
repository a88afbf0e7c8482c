"""Rows that the target refuses are left out one by one, and hold nothing else back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from blocks.errors import RestoreRefused
from blocks.sources.postgres.write import refused as refused_rows
from blocks.sources.target import NotRebuilt, RestoreMode
from blocks.verification import Axis, CheckOutcome
from flows.restore import make_restore
from flows.restoring.not_rebuilt import RestoredInPart
from flows.restoring.request import RestoreRequest
from flows.verify import make_verification
from tests.blocks.sources.postgres.hand import restore, source_of, state_of
from tests.blocks.sources.postgres.kit import Books
from tests.postgres_server import PostgresServer

ALL_WELL = (
    "CREATE FUNCTION tame(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1; END'",
    "CREATE TABLE wild (a text, b int, n int GENERATED ALWAYS AS (tame(b)) STORED, PRIMARY KEY (a, b))",
    "INSERT INTO wild SELECT 'x', g FROM generate_series(1, 400) g",
    "CREATE DOMAIN small AS int CONSTRAINT tiny CHECK (VALUE < 1000)",
    "CREATE DOMAIN smaller AS small",
    "CREATE TABLE sized (id int PRIMARY KEY, s smaller)",
    "INSERT INTO sized SELECT g, g FROM generate_series(1, 50) g",
    "CREATE TABLE dated (id int, CONSTRAINT recent CHECK (id < 1000)) PARTITION BY RANGE (id)",
    "COMMENT ON CONSTRAINT recent ON dated IS 'of late'",
    "CREATE TABLE dated_1 PARTITION OF dated FOR VALUES FROM (0) TO (1000000)",
    "INSERT INTO dated SELECT g FROM generate_series(1, 50) g",
    "CREATE TABLE coded (id int PRIMARY KEY, code text CONSTRAINT one_each UNIQUE)",
    "INSERT INTO coded SELECT g, 'c' || g FROM generate_series(1, 50) g",
)
BROKEN = (
    "CREATE OR REPLACE FUNCTION tame(int) RETURNS int LANGUAGE plpgsql IMMUTABLE"
    " AS 'BEGIN IF $1 % 100 = 7 THEN RAISE EXCEPTION ''% bites'', $1; END IF; RETURN $1; END'",
    "ALTER TABLE dated DROP CONSTRAINT recent; ALTER DOMAIN small DROP CONSTRAINT tiny",
    "INSERT INTO dated VALUES (5000); INSERT INTO sized VALUES (51, 5000)",
    "ALTER TABLE dated ADD CONSTRAINT recent CHECK (id < 1000) NOT VALID",
    "COMMENT ON CONSTRAINT recent ON dated IS 'of late'",
    "ALTER DOMAIN small ADD CONSTRAINT tiny CHECK (VALUE < 1000) NOT VALID",
    "UPDATE pg_constraint SET convalidated = true WHERE conname IN ('recent', 'tiny')",
)
COUNTS = "SELECT (SELECT count(*) FROM wild), (SELECT count(*) FROM sized), (SELECT count(*) FROM dated)"
CHECKS = (
    "SELECT conname::text, convalidated, obj_description(oid, 'pg_constraint') FROM pg_constraint"
    " WHERE conname IN ('recent', 'tiny') AND conrelid <> 'dated_1'::regclass ORDER BY 1"
)
NOT_VALID = [("recent", False, "of late"), ("tiny", False, None)]


def answer(server: PostgresServer, database: str, query: str) -> Any:
    with server.connect(database) as session:
        return session.execute(query.encode()).fetchall()


def reasons(left: list[NotRebuilt]) -> dict[str, str]:
    return {one.name: one.reason for one in left}


def test_what_a_missing_database_refuses_is_left_out_row_by_row(server: PostgresServer, tmp_path: Path) -> None:
    server.create("books", *ALL_WELL, *BROKEN)
    books = Books(server, tmp_path, "books")
    backup = books.back_up()
    verified = make_verification(books.plan, backup.backup_id, deep=True)
    bytes_, restorable, quality = (verified.results[axis] for axis in (Axis.BYTES, Axis.RESTORABLE, Axis.QUALITY))
    assert (bytes_.outcome, bytes_.findings) == (CheckOutcome.GOOD, ())
    said = " ".join(restorable.findings)
    assert "rows of table public.wild cannot be rebuilt here: 4 left out, the first because raise exception" in said
    assert "check constraint recent of public.dated cannot be rebuilt here" in said
    assert any("keys are unproven" in warning for warning in restorable.warnings)
    assert quality.findings == (
        "books: 1 row of public.dated breaks CHECK recent.",
        "books: Values of public.small break CHECK tiny.",
    )
    with pytest.raises(RestoredInPart) as caught:
        make_restore(books.plan, RestoreRequest(backup.backup_id, to=server.dsn("copy"), keep_going=True))
    left = {one.name: one.reason for one in caught.value.result.not_rebuilt}
    assert left.keys() == {
        "rows of table public.wild", "check constraint tiny of public.small", "check constraint recent of public.dated",
    }  # fmt: skip
    assert left["rows of table public.wild"].startswith("4 left out, the first with a x, b 7: 7 bites")
    assert answer(server, "copy", COUNTS) == [(396, 51, 51)]
    assert answer(server, "copy", CHECKS) == NOT_VALID
    assert sum(each.rows for each in caught.value.result.collections if each.collection.endswith("wild")) == 396


def test_what_live_tables_refuse_is_left_out_row_by_row(server: PostgresServer) -> None:
    server.create("books", *ALL_WELL)
    source = source_of(server, "books")
    state = state_of(source)
    server.run(
        "books",
        BROKEN[0],
        "UPDATE coded SET id = 100 + id, code = 'c' || id WHERE id IN (3, 4)",
        *(f"UPDATE coded SET code = '{code}' WHERE id = {n}" for n, code in ((10, "none"), (20, "c10"), (10, "c20"))),
        "ALTER DOMAIN small DROP CONSTRAINT tiny; ALTER DOMAIN small ADD CONSTRAINT tiny CHECK (VALUE < 40) NOT VALID",
        "DELETE FROM dated WHERE id > 45; ALTER TABLE dated DROP CONSTRAINT recent",
        "ALTER TABLE dated ADD CONSTRAINT recent CHECK (id < 40) NOT VALID",
        "COMMENT ON CONSTRAINT recent ON dated IS 'of late'",
        "UPDATE pg_constraint SET convalidated = true WHERE conname IN ('recent', 'tiny')",
    )
    before = server.dump("books")
    with pytest.raises(RestoreRefused, match=r"(rows of table|cannot write) public\.\w+"):
        restore(source, state, list(state.specs), mode=RestoreMode.MERGE)
    assert server.dump("books") == before
    restored = restore(source, state, list(state.specs), mode=RestoreMode.MERGE, keep_going=True)
    left = reasons(restored.target.not_rebuilt)  # type: ignore[attr-defined]
    assert left.keys() == {
        "rows of table public.wild", "rows of table public.coded", "check constraint tiny of public.small",
        "check constraint recent of public.dated",
    }  # fmt: skip
    assert left["rows of table public.coded"].startswith("2 left out, the first with id 3: duplicate key value")
    assert answer(server, "books", "SELECT count(*), count(*) FILTER (WHERE id > 100) FROM coded") == [(50, 2)]
    assert answer(server, "books", "SELECT code FROM coded WHERE id IN (10, 20) ORDER BY id") == [("c10",), ("c20",)]
    assert answer(server, "books", COUNTS) == [(400, 50, 50)]  # refused rows of `wild` are there as they were
    assert answer(server, "books", CHECKS) == NOT_VALID


def test_a_table_that_takes_nothing_is_not_tried_for_ever(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refused_rows, "_TRIED_OF_CODE", 10)
    server.create("books", *ALL_WELL)
    server.run("books", f"{BROKEN[0].partition(' AS ')[0]} AS 'BEGIN RETURN nowhere.f(); END'")
    source = source_of(server, "books")
    state = state_of(source)
    tried = 0
    looked = refused_rows.RefusedRows._is_hopeless

    def counted(*args: Any) -> bool:
        nonlocal tried
        tried += 1
        return looked(*args)

    monkeypatch.setattr(refused_rows.RefusedRows, "_is_hopeless", counted)
    target = source.target(state.scope(in_place=False, keep_going=True), server.dsn("takes_nothing"))
    try:
        target.preflight()
        target.begin()
        for name, spec in state.specs.items():
            assert target.apply(spec, state.rows[name]) == (0 if name == "public.wild" else 50)
        target.commit()
    finally:
        target.abort()
    assert reasons(target.not_rebuilt)["rows of table public.wild"].startswith("400 left out")  # type: ignore[attr-defined]
    assert tried < 60
