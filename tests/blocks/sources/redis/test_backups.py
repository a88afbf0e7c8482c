"""Redis through the whole line: backups of all types, verification, restores."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from blocks.errors import RestoreRefused
from blocks.records import BackupStatus, BackupType
from blocks.rows.selection import Selection
from blocks.sources.redis import RedisSource
from blocks.sources.target import RestoreMode
from flows.backup import make_backup
from flows.restore import make_restore
from flows.restoring.request import RestoreRequest
from flows.undo import make_undo
from flows.verify import make_verification
from tests.blocks.sources.redis.kit import RedisServer, changes, fill_gallery, no_children, plan_of, read_all

FULL, INCREMENTAL = BackupType.FULL, BackupType.INCREMENTAL
# the line between reading and writing, which tests of the source do on every version
pytestmark = pytest.mark.one_redis


@pytest.mark.parametrize("consistent", [False, True])
def test_a_chain_is_verified_deeply_and_restored_in_place(live: RedisServer, tmp_path: Path, consistent: bool) -> None:
    fill_gallery(live)
    plan = plan_of(tmp_path, RedisSource(url=live.url, consistent=consistent, server_program=live.program))
    full = make_backup(plan, FULL)
    assert full.sources[0].system.startswith(("Redis 7.", "Redis 8.2."))
    live.many([("HSET", "h:wide", "field7", "other"), ("DEL", "text"), ("ZADD", "z:wide", "1e300", "m5")])
    live.many([("LPUSH", "l", "more"), ("SET", "new", "x"), ("PERSIST", "goes")])
    backup = make_backup(plan, INCREMENTAL)
    assert changes(backup) == (5, 1)
    before = live.digest(), live.groups()
    result = make_verification(plan)
    assert (result.status, result.findings) == (BackupStatus.VERIFIED, ())
    live.many([("DEL", "x", "h:wide", "l"), ("SET", "z:wide", "no longer"), ("SET", "added", "later")])
    live("SET", "elsewhere", "x", db=9)
    restored = make_restore(plan, RestoreRequest(mode=RestoreMode.EXACT))
    assert (live.digest(), live.groups()) == before
    undone = make_restore(plan, RestoreRequest(restored.rescue_id or "", mode=RestoreMode.EXACT))
    assert undone.rescue_id
    assert live("GET", "added") == b"later"
    assert no_children()


def test_a_changed_field_of_a_wide_hash_is_one_row(live: RedisServer, tmp_path: Path) -> None:
    live.many([("HSET", "wide", *[w for n in range(20_000) for w in (f"f{n}", "v" * 100)])])
    plan = plan_of(tmp_path, RedisSource(url=live.url))
    make_backup(plan, FULL)
    live("HSET", "wide", "f77", "changed")
    assert changes(make_backup(plan, INCREMENTAL)) == (1, 0)
    live("HDEL", "wide", "f78")
    assert changes(make_backup(plan, INCREMENTAL)) == (0, 1)
    live("PEXPIRE", "wide", 1_000_000)
    assert changes(make_backup(plan, INCREMENTAL)) == (1, 0)


def test_nothing_changed_is_nothing_stored(live: RedisServer, tmp_path: Path) -> None:
    fill_gallery(live)
    plan = plan_of(tmp_path, RedisSource(url=live.url))
    make_backup(plan, FULL)
    assert changes(make_backup(plan, INCREMENTAL)) == (0, 0)


def test_a_key_that_expired_since_is_verified_and_not_restored(live: RedisServer, tmp_path: Path) -> None:
    live.many([("SET", "session", "x", "PX", 1500), ("HSET", "short", "a", "b"), ("PEXPIRE", "short", 1500)])
    live("SET", "stays", "y")
    plan = plan_of(tmp_path, RedisSource(url=live.url))
    backup = make_backup(plan, FULL)
    assert backup.collections[0].rows == 3
    while live("EXISTS", "session", "short"):
        time.sleep(0.02)
    assert make_verification(plan).status is BackupStatus.VERIFIED
    result = make_restore(plan, RestoreRequest(mode=RestoreMode.EXACT))
    assert "2 keys had expired since the backup and were not restored." in result.notes
    assert live("KEYS", "*") == [b"stays"]


def test_one_key_is_restored_and_others_stay(live: RedisServer, tmp_path: Path) -> None:
    live.many([("SET", f"position:{n}", n) for n in range(10)] + [("SET", "order:1", "o")])
    plan = plan_of(tmp_path, RedisSource(url=live.url))
    make_backup(plan, FULL)
    live.many([("SET", "position:3", "bad"), ("SET", "order:1", "later"), ("SET", "position:x", "new")])
    selection = Selection(keys=("position:3",))
    make_restore(plan, RestoreRequest(mode=RestoreMode.EXACT, selection=selection))
    assert live("MGET", "position:3", "order:1", "position:x") == [b"3", b"later", b"new"]
    make_restore(plan, RestoreRequest(mode=RestoreMode.EXACT, selection=Selection(keys=("position:*",))))
    assert live("MGET", "position:3", "order:1", "position:x") == [b"3", b"later", None]


def test_a_preview_counts_what_a_restore_would_do(live: RedisServer, tmp_path: Path) -> None:
    fill_gallery(live)
    plan = plan_of(tmp_path, RedisSource(url=live.url))
    make_backup(plan, FULL)
    live.many([("DEL", "text"), ("SET", "n", 43), ("SET", "added", "x")])
    before = live.digest()
    result = make_restore(plan, RestoreRequest(preview=True))
    assert [(c.added, c.changed, c.removed) for c in result.collections] == [(1, 1, 1), (0, 0, 0), (0, 0, 0)]
    assert live.digest() == before


def test_two_sources_go_into_a_folder_as_files_that_redis_loads(live: RedisServer, tmp_path: Path) -> None:
    fill_gallery(live)
    plan = plan_of(tmp_path, RedisSource(url=f"{live.url}/0"), RedisSource(url=f"{live.url}/3"))
    make_backup(plan, FULL)
    make_restore(plan, RestoreRequest(mode=RestoreMode.EXACT, to=str(tmp_path / "out")))
    restored = read_all(RedisSource(url=str(tmp_path / "out" / "cache1" / "dump.rdb")))
    original = read_all(RedisSource(url=f"{live.url}/3"))
    assert sorted(restored.table("db3").to_pylist(), key=str) == sorted(original.table("db3").to_pylist(), key=str)


@pytest.mark.parametrize("mode", [RestoreMode.EXACT, RestoreMode.MERGE])
@pytest.mark.parametrize("selection", [Selection(), Selection(("cache/db3",)), Selection((), ("h*", "n*", "text"))])
def test_a_restore_is_undone_and_its_undo_is_undone(
    live: RedisServer, tmp_path: Path, mode: RestoreMode, selection: Selection
) -> None:
    fill_gallery(live)
    plan = plan_of(tmp_path, RedisSource(url=live.url))
    made = make_backup(plan, FULL)
    for db in (0, 3):
        live.many([("DEL", "text", "h:wide"), ("SET", "new", 1), ("HSET", "h", "more", 1)], db=db)
    live("DEL", "only here", db=9)
    before = live.digest(), live.groups()
    make_restore(plan, RestoreRequest(made.backup_id, mode=mode, selection=selection))
    after = live.digest(), live.groups()
    assert after != before
    make_undo(plan)
    assert (live.digest(), live.groups()) == before
    make_undo(plan)
    assert (live.digest(), live.groups()) == after


def test_an_undo_of_some_keys_leaves_what_others_put_into_an_empty_database(live: RedisServer, tmp_path: Path) -> None:
    live.many([("SET", "a:1", "x"), ("SET", "b:1", "x")])
    plan = plan_of(tmp_path, RedisSource(url=live.url))
    made = make_backup(plan, FULL)
    live.many([("DEL", "a:1"), ("DEL", "b:1")])
    make_restore(plan, RestoreRequest(made.backup_id, mode=RestoreMode.EXACT, selection=Selection(keys=("a:*",))))
    live("SET", "z", "of others")
    make_undo(plan)
    assert live("KEYS", "*") == [b"z"]


def test_databases_that_were_chosen_by_name_leave_newer_ones_alone(live: RedisServer, tmp_path: Path) -> None:
    live("SET", "a", "old")
    plan = plan_of(tmp_path, RedisSource(url=live.url))
    made = make_backup(plan, FULL)
    live("SET", "later", "x", db=5)
    make_restore(plan, RestoreRequest(made.backup_id, mode=RestoreMode.EXACT, selection=Selection(("cache/db0",))))
    assert live("GET", "later", db=5) == b"x"


@pytest.mark.parametrize("mode", [RestoreMode.EXACT, RestoreMode.MERGE])
def test_a_database_is_not_put_over_another_one_of_the_live_state(
    live: RedisServer, tmp_path: Path, mode: RestoreMode
) -> None:
    live("SET", "a", "old")
    plan = plan_of(tmp_path, RedisSource(url=live.url))
    made = make_backup(plan, FULL)
    live.many([("SET", "a", "precious"), ("SET", "b", "precious")], db=5)
    for to in (f"{live.url}/5", f"unix://{live.socket}?db=5"):
        with pytest.raises(RestoreRefused, match="live state, too"):
            make_restore(plan, RestoreRequest(made.backup_id, mode=mode, to=to, selection=Selection(("cache/db0",))))
    assert live("MGET", "a", "b", db=5) == [b"precious", b"precious"]


def test_the_live_place_under_another_url_is_restored_in_place(live: RedisServer, tmp_path: Path) -> None:
    live("SET", "a", "old")
    plan = plan_of(tmp_path, RedisSource(url=f"{live.url}/0"))
    made = make_backup(plan, FULL)
    live("SET", "a", "new")
    for place in (f"unix://{live.socket}?db=0", f"redis://localhost:{live.port}/0"):
        assert make_restore(plan, RestoreRequest(made.backup_id, mode=RestoreMode.EXACT, to=place)).rescue_id
        assert live("GET", "a") == b"old"
        make_undo(plan)
        assert live("GET", "a") == b"new"


def test_patterns_that_were_narrowed_since_keep_other_keys(live: RedisServer, tmp_path: Path) -> None:
    live.many([("SET", "a:1", "old"), ("SET", "b:1", "old")])
    source = RedisSource(url=live.url)
    plan = plan_of(tmp_path, source)
    made = make_backup(plan, FULL)
    live.many([("SET", "a:1", "new"), ("SET", "b:1", "new"), ("SET", "b:2", "new"), ("SET", "a:2", "new")])
    live("SET", "far", "new", db=5)
    before = live.digest()
    narrowed = plan.model_copy(update={"sources": {"cache": source.model_copy(update={"patterns": ["a:*"]})}})
    make_restore(narrowed, RestoreRequest(made.backup_id, mode=RestoreMode.EXACT))
    assert live("MGET", "a:1", "a:2", "b:1", "b:2") == [b"old", None, b"new", b"new"]
    assert live("GET", "far", db=5) == b"new"
    make_undo(narrowed)
    assert live.digest() == before
