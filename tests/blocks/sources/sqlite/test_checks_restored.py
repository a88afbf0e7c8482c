# ruff: noqa: E501  statements of SQL stand on one line
"""What a verification finds in the SQLite file that it restored to: planted faults, and no false alarm on good ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from blocks.verification import Axis, Verification
from flows.verify import make_verification
from tests.flows.flow_support import Shop

GOOD = """
CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT, v TEXT CHECK (length(v) > 0));
INSERT INTO counted (v) VALUES ('a'), ('b'), ('c'); DELETE FROM counted WHERE id > 1;
CREATE TABLE never (id INTEGER PRIMARY KEY AUTOINCREMENT);
CREATE TABLE without (k TEXT COLLATE NOCASE PRIMARY KEY, v, w GENERATED ALWAYS AS (v * 2) STORED) WITHOUT ROWID;
INSERT INTO without VALUES ('x', 1), ('Y', 2);
CREATE TABLE strict (n INT NOT NULL, t TEXT DEFAULT 'x', UNIQUE (n)) STRICT; INSERT INTO strict (n) VALUES (1);
CREATE TABLE kin (id INTEGER PRIMARY KEY, up REFERENCES kin DEFERRABLE INITIALLY DEFERRED);
INSERT INTO kin VALUES (1, 2), (2, 1), (3, NULL);
CREATE TABLE pairs (a, b, PRIMARY KEY (a, b)); INSERT INTO pairs VALUES (1, 2), (NULL, NULL);
CREATE TABLE refers (a, b, FOREIGN KEY (a, b) REFERENCES pairs); INSERT INTO refers VALUES (1, 2), (7, NULL);
CREATE INDEX partly ON counted (lower(v) DESC) WHERE id > 0; CREATE UNIQUE INDEX single ON kin (up);
CREATE VIEW seen AS SELECT v FROM counted;
CREATE TRIGGER noted AFTER INSERT ON counted BEGIN UPDATE strict SET t = 'y'; END;
CREATE TRIGGER instead INSTEAD OF INSERT ON seen BEGIN INSERT INTO counted (v) VALUES (new.v); END;
CREATE VIRTUAL TABLE words USING fts5(w); INSERT INTO words VALUES ('hello');
PRAGMA user_version = 7; PRAGMA application_id = 9; ANALYZE;
"""


def shop_of(folder: Path, script: str) -> Shop:
    shop = Shop(folder)
    shop.plan = shop.plan.model_copy(update={"sources": {"ledger": shop.plan.sources["ledger"]}})
    shop.db.executescript(script)
    return shop


def outcomes(result: Verification) -> dict[str, str]:
    return {name: one.outcome.value for name, one in result.results.items()}


ALL_GOOD = dict.fromkeys(("bytes", "restorable", "definitions", "quality"), "good")


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_a_good_database_with_odd_things_gives_no_alarm(tmp_path: Path, journal: str) -> None:
    shop = shop_of(tmp_path, f"PRAGMA journal_mode = {journal}; {GOOD}")
    shop.back_up()
    result = make_verification(shop.plan)
    assert (result.findings, result.warnings, outcomes(result)) == ((), (), ALL_GOOD)


ORDERS = "CREATE TABLE users (id INTEGER PRIMARY KEY); INSERT INTO users VALUES (1);"
BAD = {
    "orphans": (
        "CREATE TABLE orders (id INTEGER PRIMARY KEY, who REFERENCES users, by_ REFERENCES users (id));"
        "INSERT INTO orders VALUES (1, 1, 1), (2, 4711, 1), (3, 4711, 4711)",
        [
            "ledger: 1 row of table 'orders' refers to a row of 'users' that is not there (foreign key of by_).",
            "ledger: 2 rows of table 'orders' refer to rows of 'users' that are not there (foreign key of who).",
        ],
    ),
    "a table that is referred to is gone": (
        "CREATE TABLE orders (a, b, FOREIGN KEY (a, b) REFERENCES gone (a, b)); INSERT INTO orders VALUES (4711, 1)",
        ["ledger: 1 row of table 'orders' refers to a row of 'gone' that is not there (foreign key of a, b)."],
    ),
    "rows that break a CHECK": (
        "CREATE TABLE orders (n CHECK (n > 0)); PRAGMA ignore_check_constraints = ON;"
        "INSERT INTO orders VALUES (1), (-4711), (-2); CREATE TABLE others (n CHECK (n > 0)); INSERT INTO others VALUES (0)",
        [
            "ledger: 1 row of table 'others' breaks a CHECK constraint.",
            "ledger: 2 rows of table 'orders' break a CHECK constraint.",
        ],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_data_that_came_back_is_counted(tmp_path: Path, name: str) -> None:
    script, said = BAD[name]
    shop = shop_of(tmp_path, ORDERS + script)
    shop.back_up()
    result = make_verification(shop.plan)
    assert sorted(result.results[Axis.QUALITY].findings) == said
    assert outcomes(result) == ALL_GOOD | {"quality": "bad"}
    assert "4711" not in " ".join((*result.findings, *result.warnings))


ODD = {
    "a counter behind its table": (
        "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO t VALUES (5), (9), (12);"
        "UPDATE sqlite_sequence SET seq = 7",
        Axis.QUALITY,
        "good",
        "ledger: The AUTOINCREMENT counter of table 't' is behind 2 rows of it.",
    ),
    "a foreign key to what is no key": (
        "CREATE TABLE p (a); CREATE TABLE t (a REFERENCES p (a)); INSERT INTO t VALUES (1)",
        Axis.QUALITY,
        "unproven",
        'ledger: The foreign keys of table \'t\' cannot be checked: foreign key mismatch - "t" referencing "p".',
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_is_a_warning(tmp_path: Path, name: str) -> None:
    script, axis, outcome, said = ODD[name]
    shop = shop_of(tmp_path, script)
    shop.back_up()
    result = make_verification(shop.plan)
    assert (result.findings, result.results[axis].warnings) == ((), (said,))
    assert outcomes(result) == ALL_GOOD | {axis.value: outcome}


def test_a_check_that_only_the_application_can_evaluate_is_unproven(tmp_path: Path) -> None:
    shop = shop_of(tmp_path, "")
    shop.db.create_function("fine", 1, lambda _: 1, deterministic=True)
    shop.db.executescript("CREATE TABLE t (n CHECK (fine(n))); INSERT INTO t VALUES (1)")
    shop.back_up()
    quality = make_verification(shop.plan).results[Axis.QUALITY]
    assert (quality.outcome, quality.findings) == ("unproven", ())
    assert quality.warnings == (
        "ledger: CHECK constraints call functions that only the application has, and are not checked.",
    )


def test_a_unique_index_that_rows_break_is_a_restore_that_fails(tmp_path: Path) -> None:
    shop = shop_of(
        tmp_path,
        "CREATE TABLE t (id INTEGER PRIMARY KEY, n); INSERT INTO t VALUES (1, 4711), (2, 4711); CREATE INDEX by_n ON t (n);"
        "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = 'CREATE UNIQUE INDEX by_n ON t (n)' WHERE name = 'by_n';"
        "PRAGMA writable_schema = RESET;",
    )
    shop.back_up()
    result = make_verification(shop.plan)
    assert result.results[Axis.RESTORABLE].findings == (
        "ledger: index 'by_n' of table 't' cannot be rebuilt here: UNIQUE constraint failed: t.n.",
    )
    assert result.results[Axis.DEFINITIONS].findings == ("ledger: as restored index 'by_n' of table 't' is gone.",)


def test_definitions_that_differ_from_the_backup_before_are_said(tmp_path: Path) -> None:
    shop = shop_of(tmp_path, GOOD)
    before = shop.back_up()
    shop.db.executescript(
        "CREATE TABLE later (n); DROP INDEX partly; DROP TRIGGER noted; DROP VIEW seen; PRAGMA user_version = 8;"
        "ALTER TABLE strict ADD COLUMN more TEXT; INSERT INTO counted (v) VALUES ('z')"
    )
    shop.back_up()
    since = f"ledger: since {before.backup_id}:"
    for deep in (False, True):
        result = make_verification(shop.plan, deep=deep)
        assert result.findings == ()
        assert result.results[Axis.DEFINITIONS].warnings == (
            f"{since} index 'partly' of table 'counted' is gone.",
            f"{since} trigger 'noted' of table 'counted' is gone.",
            f"{since} trigger 'instead' of table 'seen' is gone.",
            f"{since} view 'seen' is gone.",
            f"{since} table 'strict' is otherwise.",
            f"{since} setting user_version is otherwise.",
            f"{since} table 'later' is new.",
        )
