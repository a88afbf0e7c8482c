"""A database keeps its identity through restarts, moves and restores; another cluster or database is another one."""

from __future__ import annotations

from pathlib import Path

import pytest

from blocks.crypto.keyring import NoEncryption
from blocks.errors import NotConfirmed, RestoreRefused
from blocks.plan.plan import BackupPlan
from blocks.records import BackupType
from blocks.repository.block import BackupRepository
from blocks.sources.identity import difference
from flows.backup import make_backup
from flows.restore import make_restore
from flows.restoring.request import RestoreRequest
from flows.retention import apply_retention
from tests.blocks.sources.postgres.hand import source_of
from tests.postgres_server import PostgresServer, postgres_server


def test_databases_of_one_server_are_told_apart_and_stay_what_they_are(server: PostgresServer) -> None:
    for name in ("ledger", "staging"):
        server.create(name, "CREATE TABLE t (id int PRIMARY KEY)")
    ledger, staging = source_of(server, "ledger"), source_of(server, "staging")
    before = ledger.identity()
    assert difference(before, ledger.identity()) is None
    assert difference(before, staging.identity()) == "database staging instead of ledger"
    server.run("postgres", "ALTER DATABASE ledger RENAME TO renamed")
    assert difference(before, source_of(server, "renamed").identity()) is None
    # what a restore does where the database is missing
    assert ledger.identity() == {}
    server.create("ledger")
    assert ledger.identity() != before
    assert difference(before, ledger.identity()) is None


def test_a_server_is_known_after_a_restart_and_on_its_standby_and_another_is_not(server: PostgresServer) -> None:
    with postgres_server() as other:
        other.create("ledger")
        before = source_of(other, "ledger").identity()
        server.create("ledger")
        told = difference(before, source_of(server, "ledger").identity())
        assert told is not None
        assert told.startswith("system identifier ")
        standby = PostgresServer(primary=other)
        try:
            standby.start()
            assert source_of(standby, "ledger").identity() == before
        finally:
            standby.stop()
        other.shut_down()
        assert source_of(other, "ledger").identity() == {}
        other.start()
        assert source_of(other, "ledger").identity() == before


def test_a_password_that_is_not_there_makes_no_identity(server: PostgresServer) -> None:
    assert source_of(server, "postgres", password_env="LASTGOOD_NOT_SET").identity() == {}


def ids_in(server: PostgresServer, database: str) -> list[tuple[object, ...]]:
    with server.connect(database) as session:
        return session.execute("SELECT id FROM t").fetchall()


def test_a_plan_that_names_another_database_makes_a_full_and_does_not_overwrite_it(
    server: PostgresServer, tmp_path: Path
) -> None:
    for name, value in (("ledger", 1), ("staging", 2)):
        server.create(name, "CREATE TABLE t (id int PRIMARY KEY)", f"INSERT INTO t VALUES ({value})")
    server.create("fresh")
    plan = BackupPlan(
        name="trading",
        sources={"books": source_of(server, "ledger")},
        repository=BackupRepository(url=str(tmp_path / "repository")),
        encryption=NoEncryption(type="none"),
    )
    plan.repository.initialize(plan.encryption)
    first = make_backup(plan, BackupType.FULL)

    def naming(database: str) -> BackupPlan:
        return plan.model_copy(update={"sources": {"books": source_of(server, database)}})

    made = make_backup(naming("staging"), BackupType.INCREMENTAL)
    assert made.promoted_because == (
        f"source books is another database than that of {first.backup_id}: database staging instead of ledger"
    )
    with pytest.raises(RestoreRefused, match="database ledger instead of staging"):
        make_restore(plan, RestoreRequest(made.backup_id))
    with pytest.raises(NotConfirmed, match="database ledger instead of staging"):
        apply_retention(plan)
    # where nothing is yet, after a loss
    make_restore(naming("fresh"), RestoreRequest(first.backup_id))
    assert ids_in(server, "fresh") == [(1,)]
    make_restore(plan, RestoreRequest(made.backup_id, adopt=True))
    assert ids_in(server, "ledger") == [(2,)]
