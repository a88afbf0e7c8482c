"""A backup that departs from those before: made, marked and said; and retention keeps the last good one before it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from blocks.errors import ConfigurationError, RepositoryLocked
from blocks.records import BackupMetadata
from flows.accept import accept_suspicions
from flows.pipeline import manifest
from flows.pipeline.doubts import settled
from flows.reading.status import Health, plan_status
from flows.reporting.artifacts import backup_markdown
from flows.reporting.run_lines import backup_lines
from flows.retention import apply_retention
from tests.flows.flow_support import FULL, INCREMENTAL, PREVIEW, SNAPSHOT, Shop, clock

DAY = timedelta(days=1)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "memory"))
    shop = Shop(tmp_path, encrypted=False, part_size_bytes=64_000)
    shop.fill(3000)
    return shop


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> Callable[[timedelta], datetime]:
    return clock(monkeypatch)


def lived(shop: Shop, ahead: Callable[[timedelta], datetime], days: int = 26) -> list[BackupMetadata]:
    """Make a backup every other day, of a table that grows a little and of which some rows change."""
    made = []
    for day in range(0, days, 2):
        ahead(day * DAY)
        shop.db.execute("UPDATE orders SET price = price + 1 WHERE id % 100 = ?", (day,))
        shop.db.executemany("INSERT INTO orders (symbol, price) VALUES (?, 1.5)", [("N",)] * 10)
        made.append(shop.back_up(FULL if day % 14 == 0 else INCREMENTAL))
    return made


def test_every_row_of_a_table_changes_and_what_was_before_is_held_until_a_person_accepts_it(
    shop: Shop, ahead: Callable[[timedelta], datetime], tmp_path: Path
) -> None:
    before = lived(shop, ahead)
    assert [one.suspicions for one in before] == [()] * len(before)
    good = shop.rows("SELECT sum(price) FROM orders")
    shop.db.execute("UPDATE orders SET price = 0")
    ahead(26 * DAY)
    marked = shop.back_up()
    (sentence,) = marked.suspicions
    assert sentence.startswith(
        f"ledger/orders: 100 % of 3,130 rows were changed or replaced since {before[-1].backup_id}"
    )
    assert shop.repository.manifest("trading", marked.backup_id).suspicions == (sentence,)
    assert f"- {sentence}" in backup_markdown(marked, "s3://backups/trading")
    assert f"lastgood accept trading {marked.backup_id}" in backup_markdown(marked, "s3://backups/trading")
    assert f"suspicious: {sentence}" in backup_lines(shop.plan, marked)

    ahead(28 * DAY)
    assert shop.back_up().suspicions == (), "the next one is as the one before"
    found = plan_status(shop.plan, "p.yaml", datetime.now(UTC) + 28 * DAY)
    assert [one.backup_id for one in found.suspicious] == [marked.backup_id]
    assert found.health is Health.SUSPICIOUS
    assert f"lastgood accept p.yaml {marked.backup_id}" in found.to_do

    for day in (300, 400):
        ahead(day * DAY)
        shop.back_up(FULL)
    later = ahead(401 * DAY)
    held = apply_retention(shop.plan, now=later, accept_clock=True)
    reasons = {one.backup_id: one.reason for one in held.decisions if not one.remove}
    assert reasons[before[-1].backup_id] == f"the newest good backup before {marked.backup_id}, which is suspicious"
    assert reasons[marked.backup_id] == "it is suspicious, and nobody has accepted it"
    shop.restore(before[-1], to=str(tmp_path / "there"))
    with sqlite3.connect(tmp_path / "there" / "ledger" / "ledger.db") as restored:
        assert restored.execute("SELECT sum(price) FROM orders").fetchall() == good

    assert [one.backup_id for one in accept_suspicions(shop.plan)] == [marked.backup_id]
    assert accept_suspicions(shop.plan) == []
    gone = apply_retention(shop.plan, now=later, accept_clock=True).removed
    assert {one.backup_id for one in gone} >= {before[-1].backup_id, marked.backup_id}
    assert shop.repository.audit("trading") == []


@pytest.mark.parametrize("kind", [FULL, INCREMENTAL, SNAPSHOT])
def test_rows_that_are_lost_are_noticed_by_any_type_of_backup(
    shop: Shop, ahead: Callable[[timedelta], datetime], kind: str
) -> None:
    before = lived(shop, ahead)
    shop.db.execute("DELETE FROM orders WHERE id > 700")
    ahead(26 * DAY)
    (sentence,) = shop.back_up(kind).suspicions
    assert sentence == (
        f"ledger/orders holds 700 rows, and held 3,130 in {before[-1].backup_id}; the 12 backups before lost at most "
        "0.0 %."
    )


def test_only_a_person_accepts_and_only_what_is_suspicious(shop: Shop) -> None:
    plain = shop.back_up(FULL)
    shop.db.execute("DELETE FROM orders")
    first = shop.back_up()
    shop.db.execute("INSERT INTO positions SELECT 'T' || id, 1 FROM (SELECT 1 AS id UNION SELECT 2)")
    shop.db.execute(
        "CREATE TABLE more AS WITH n(i) AS (VALUES (1) UNION SELECT i + 1 FROM n WHERE i < 50) SELECT * FROM n"
    )
    shop.back_up(FULL)
    shop.db.execute("DROP TABLE more")
    second = shop.back_up(FULL)
    marked = [first.backup_id, second.backup_id]
    with pytest.raises(ConfigurationError, match="nothing is suspicious about"):
        accept_suspicions(shop.plan, [second.backup_id, plain.backup_id])
    backups = shop.repository.backups("trading")
    assert [one.backup_id for one in backups if one.suspicions] == marked
    assert settled(shop.repository, "trading", backups) == frozenset()
    with shop.repository.lease("trading", "backup", holder="elsewhere:1"), pytest.raises(RepositoryLocked):
        accept_suspicions(shop.plan)
    assert [one.backup_id for one in accept_suspicions(shop.plan, [second.backup_id])] == marked[1:]
    assert settled(shop.repository, "trading", backups) == {second.backup_id}
    (said,) = shop.repository.expiries("trading")
    assert said.accepted is not None
    assert (said.removed, said.accepted.suspicions, said.accepted.newest) == ((), (second.backup_id,), None)
    assert [one.backup_id for one in accept_suspicions(shop.plan)] == marked[:1]
    assert settled(shop.repository, "trading", backups) == set(marked)


def test_a_restore_says_that_its_backup_is_suspicious_until_it_is_accepted(shop: Shop) -> None:
    shop.back_up(FULL)
    shop.db.execute("DELETE FROM orders")
    marked = shop.back_up()
    said = f"{marked.backup_id}: it is suspicious: {marked.suspicions[0]}"
    assert said in shop.restore(marked, PREVIEW).notes
    accept_suspicions(shop.plan)
    assert said not in shop.restore(marked, PREVIEW).notes


@pytest.mark.parametrize("history", ["", "a,b", "1,2", "1,,2", f"2969,20,1,{10**400}", f"2969,20 2970,1 {'9' * 5000}"])
def test_numbers_that_make_no_sense_stop_no_backup(shop: Shop, monkeypatch: pytest.MonkeyPatch, history: str) -> None:
    with monkeypatch.context() as patched:
        wrong = dict.fromkeys(("ledger/orders", "models/tree", "nowhere/else"), history)
        patched.setattr(manifest, "judged", lambda made, *_: made.model_copy(update={"history": wrong}))
        assert shop.back_up(FULL).history == wrong
    shop.db.execute("DELETE FROM orders WHERE id > 2000")
    made = shop.back_up(INCREMENTAL)
    shop.db.execute("DELETE FROM orders")
    emptied = shop.back_up(INCREMENTAL)
    said = (*emptied.suspicions, *emptied.sources[0].warnings)
    assert said == (f"ledger/orders held 2,000 rows in {made.backup_id}, and holds none now.",), "one way or the other"
    assert shop.back_up(FULL).rows == emptied.rows


def test_a_history_that_cannot_be_read_stops_no_backup(shop: Shop) -> None:
    full = shop.back_up(FULL)
    shop.db.execute("UPDATE orders SET price = -1 WHERE id = 1")
    shop.back_up(INCREMENTAL)
    (shop.objects(full) / "manifest").write_bytes(b"LASTGOOD")
    made = shop.back_up(INCREMENTAL)
    assert (made.backup_type, made.suspicions) == (FULL, ())
    (week,) = made.history["ledger/orders"].split()
    assert week.split(",")[1] == "0", "a new one begins"
