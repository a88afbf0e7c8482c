"""`--to` with the number of a database of a Redis whose databases are all live state: in place, or refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.crypto.keyring import NoEncryption
from blocks.errors import RestoreRefused
from blocks.plan.plan import BackupPlan
from blocks.records import BackupType
from blocks.repository.block import BackupRepository
from blocks.rows.selection import Selection
from blocks.sources.redis import RedisSource
from blocks.sources.target import RestoreMode
from flows.backup import make_backup
from flows.restore import make_restore
from flows.restoring.request import RestoreRequest
from flows.undo import make_undo
from tests.blocks.sources.redis.kit import RedisServer

EXACT, MERGE = RestoreMode.EXACT, RestoreMode.MERGE
DB0, DB5 = Selection(("cache/db0",)), Selection(("cache/db5",))


@pytest.fixture
def live(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "live")
    server("SET", "a", "good")
    server("SET", "x", "good", db=5)
    yield server
    server.kill()


@pytest.fixture
def plan(live: RedisServer, tmp_path: Path) -> BackupPlan:
    plan = BackupPlan(
        name="cache",
        sources={"cache": RedisSource(url=live.url)},
        repository=BackupRepository(url=str(tmp_path / "repository")),
        encryption=NoEncryption(type="none"),
    )
    plan.repository.initialize(plan.encryption)
    return plan


def spoil(live: RedisServer) -> None:
    for number in (0, 5):
        live("SET", "x", "newer", db=number)
        live("SET", "new", "newer", db=number)


def state(live: RedisServer) -> dict[int, dict[object, object]]:
    found: dict[int, dict[object, object]] = {}
    for number in (0, 5, 7):
        keys = live("KEYS", "*", db=number)
        assert isinstance(keys, list)
        found[number] = {key: live("GET", key, db=number) for key in keys}
    return found


@pytest.mark.parametrize("spelling", ["redis://127.0.0.1:{port}/5", "redis://localhost:{port}/5"])
def test_a_database_under_its_own_number_is_restored_in_place_and_can_be_undone(
    live: RedisServer, plan: BackupPlan, spelling: str
) -> None:
    make_backup(plan, BackupType.FULL)
    spoil(live)
    before = state(live)
    result = make_restore(plan, RestoreRequest(selection=DB5, to=spelling.format(port=live.port), mode=EXACT))
    assert result.rescue_id is not None
    assert state(live) == before | {5: {b"x": b"good"}}
    make_undo(plan)
    assert state(live) == before


@pytest.mark.parametrize("mode", [EXACT, MERGE])
@pytest.mark.parametrize(
    ("selection", "number", "why"),
    [
        (Selection(), 5, "db0, db5 cannot all go to database 5"),
        (DB0, 5, "db0 would be restored to database 5 .* which is live state, too"),
        (DB0, 7, "db0 would be restored to database 7 .* which is live state, too"),
        (Selection(keys=("a",)), 5, "db0, db5 cannot all go to database 5"),
        (Selection(("cache/db0",), ("a",)), 7, "db0 would be restored to database 7"),
    ],
)
def test_another_number_of_the_live_server_is_refused_before_anything_is_written(
    live: RedisServer, plan: BackupPlan, selection: Selection, number: int, why: str, mode: RestoreMode
) -> None:
    make_backup(plan, BackupType.FULL)
    spoil(live)
    before = state(live)
    to = f"redis://localhost:{live.port}/{number}"
    with pytest.raises(RestoreRefused, match=why) as refused:
        make_restore(plan, RestoreRequest(selection=selection, to=to, mode=mode, overwrite=True))
    assert "--to" in refused.value.hint
    assert state(live) == before


def test_the_hint_says_where_it_would_go_by_itself(live: RedisServer, plan: BackupPlan) -> None:
    make_backup(plan, BackupType.FULL)
    with pytest.raises(RestoreRefused) as refused:
        make_restore(plan, RestoreRequest(selection=DB0, to=f"{live.url}/7", mode=EXACT))
    assert refused.value.hint.startswith("Leave --to out, and db0 goes to database 0; or name another server.")


@pytest.mark.parametrize("selection", [Selection(), DB5])
def test_a_backup_of_one_database_leaves_what_others_hold_now(
    live: RedisServer, plan: BackupPlan, selection: Selection
) -> None:
    live("FLUSHDB")
    make_backup(plan, BackupType.FULL)
    spoil(live)
    before = state(live)
    make_restore(plan, RestoreRequest(selection=selection, to=f"{live.url}/5", mode=EXACT))
    assert state(live) == before | {5: {b"x": b"good"}}
    make_undo(plan)
    assert state(live) == before
