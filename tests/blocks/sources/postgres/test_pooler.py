"""Behind a pooler: nothing is left in the sessions of applications, or it is refused."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr

from blocks.crypto.keyring import NoEncryption
from blocks.errors import ConfigurationError
from blocks.plan.plan import BackupPlan
from blocks.records import BackupType
from blocks.repository.block import BackupRepository
from blocks.rows.selection import Selection
from blocks.sources.postgres import PostgresSource
from blocks.sources.target import RestoreMode
from flows.backup import make_backup
from flows.restore import make_restore
from flows.restoring.request import RestoreRequest
from tests.blocks.sources.postgres.hand import source_of, state_of
from tests.pgbouncer import PgBouncer, pgbouncer
from tests.postgres_server import PostgresServer

SHARED = {
    "transaction": {"pool_mode": "transaction"},
    "one session": {"pool_mode": "transaction", "default_pool_size": "1"},
    "in turn": {"pool_mode": "transaction", "server_round_robin": "1", "min_pool_size": "2"},
    "many in turn": {"pool_mode": "transaction", "server_round_robin": "1", "min_pool_size": "5"},
    "statement": {"pool_mode": "statement"},
}


def fill_pool(pooler: PgBouncer, database: str, count: int = 4) -> None:
    """Let the pooler open several sessions of the server, which wait for the next client then."""
    clients = [psycopg.connect(pooler.dsn(database), autocommit=True) for _ in range(count)]
    for client in clients:
        client.execute("SELECT 1")
    for client in clients:
        client.close()


def search_paths(pooler: PgBouncer, database: str) -> set[object]:
    """Ask the sessions that applications are given."""
    found = set()
    for _ in range(8):
        with psycopg.connect(pooler.dsn(database), autocommit=True) as session:
            found.add(session.execute("SHOW search_path").fetchone())
    return found


@pytest.mark.parametrize("mode", SHARED)
def test_sessions_that_are_shared_are_refused_and_left_as_they_were(server: PostgresServer, mode: str) -> None:
    server.create("pooled", "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    direct = source_of(server, "pooled")
    whole = state_of(direct)
    with pgbouncer(server, **SHARED[mode]) as pooler:
        if mode != "statement":
            fill_pool(pooler, "pooled")
        source = direct.model_copy(update={"dsn": SecretStr(pooler.dsn("pooled"))})
        with pytest.raises(ConfigurationError, match=r"pooler.*one transaction or statement at a time"):
            state_of(source)
        with pytest.raises(ConfigurationError, match=r"pooler"):
            source.target(whole.scope(mode=RestoreMode.EXACT)).preflight()
        with pytest.raises(ConfigurationError, match=r"pooler"):
            source.location()
        assert search_paths(pooler, "pooled") == {('"$user", public',)}
    server.run("postgres", "DROP DATABASE pooled WITH (FORCE)")


def test_a_pool_in_session_mode_is_backed_up_and_restored(server: PostgresServer, tmp_path: Path) -> None:
    server.create("pooled", "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'x')")
    before = server.dump("pooled")
    with pgbouncer(server, pool_mode="session", default_pool_size="20") as pooler:
        fill_pool(pooler, "pooled")
        plan = BackupPlan(
            name="pooled",
            sources={"pooled": PostgresSource(dsn=SecretStr(pooler.dsn("pooled")))},
            repository=BackupRepository(url=str(tmp_path / "repository")),
            encryption=NoEncryption(type="none"),
        )
        plan.repository.initialize(plan.encryption)
        make_backup(plan, BackupType.FULL)
        server.run("pooled", "UPDATE t SET v = 'lost'")
        make_restore(plan, RestoreRequest("latest", mode=RestoreMode.EXACT, selection=Selection()))
        assert server.dump("pooled") == before
        assert search_paths(pooler, "pooled") == {('"$user", public',)}
    server.run("postgres", "DROP DATABASE pooled WITH (FORCE)")
