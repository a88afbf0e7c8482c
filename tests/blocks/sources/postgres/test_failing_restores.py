"""A backup that cannot be restored, on a real server: its bytes are good, and no shallow look undoes what was found."""

from __future__ import annotations

from pathlib import Path

import pytest

from blocks.errors import BackupNotFound, NotRestorable, QualityFailed
from blocks.records import BackupStatus
from blocks.verification import Axis, CheckOutcome
from flows.proving.failure import failure
from flows.verify import make_verification
from tests.blocks.sources.postgres.kit import Books
from tests.postgres_server import PostgresServer

GOOD, BAD = CheckOutcome.GOOD, CheckOutcome.BAD

BASE = (
    "CREATE TABLE users (id int PRIMARY KEY)",
    "CREATE TABLE orders (id int PRIMARY KEY, who int, n int)",
    "INSERT INTO users VALUES (1); INSERT INTO orders SELECT g, 1, g FROM generate_series(1, 9) g",
)
FAILS = {
    "an orphan": (
        "ALTER TABLE orders ADD CONSTRAINT buyer FOREIGN KEY (who) REFERENCES users",
        "SET session_replication_role = replica; UPDATE orders SET who = 4711 WHERE id = 4",
    ),
    "a CHECK whose function says something else by now": (
        "CREATE FUNCTION fits(int) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT true'",
        "ALTER TABLE orders ADD CONSTRAINT fitting CHECK (fits(n))",
        "CREATE OR REPLACE FUNCTION fits(int) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT $1 <> 7'",
    ),
    "a materialised view over a function that is gone": (
        "CREATE FUNCTION rate() RETURNS int LANGUAGE sql AS 'SELECT 2'",
        "CREATE FUNCTION share(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN $1 * rate(); END'",
        "CREATE MATERIALIZED VIEW shares AS SELECT share(n) FROM orders",
        "DROP FUNCTION rate()",
    ),
}


@pytest.mark.parametrize("name", FAILS)
def test_a_restore_that_fails_is_recorded_and_stands(server: PostgresServer, tmp_path: Path, name: str) -> None:
    server.create("books", *BASE, *FAILS[name])
    books = Books(server, tmp_path, "books")
    made = books.back_up()
    result = make_verification(books.plan, deep=True)
    assert (result.results["bytes"].outcome, result.results["restorable"].outcome) == (GOOD, BAD)
    assert isinstance(failure(result), NotRestorable)
    repository = books.plan.repository.unlock(books.plan.encryption)
    assert repository.verifications("books", made.backup_id) == [result]
    assert repository.status(made) is BackupStatus.CORRUPTED

    shallow = make_verification(books.plan, deep=False)
    assert shallow.findings == ()
    assert isinstance(failure(shallow), NotRestorable)
    assert repository.status(made) is BackupStatus.CORRUPTED
    assert repository.verdict(made).outcome(Axis.BYTES) is GOOD
    with pytest.raises(BackupNotFound):
        books.restore("latest verified")
    books.run("INSERT INTO users VALUES (2)")
    assert books.back_up().base == made.backup_id, "its bytes are good"


def test_rows_that_break_a_check_which_is_not_valid_are_bad_data_and_come_back(
    server: PostgresServer, tmp_path: Path
) -> None:
    dirty = "ALTER TABLE orders ADD CONSTRAINT dear CHECK (n <> 7) NOT VALID"
    server.create("books", *BASE, dirty)
    books = Books(server, tmp_path, "books")
    made = books.back_up()
    result = make_verification(books.plan)
    assert isinstance(failure(result), QualityFailed)
    assert (result.results["restorable"].outcome, result.results["quality"].outcome) == (GOOD, BAD)
    repository = books.plan.repository.unlock(books.plan.encryption)
    assert repository.status(made) is BackupStatus.COMPLETED
