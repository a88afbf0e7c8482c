"""Incrementals that read only what a server's history says was written since: what is read, and that it is right."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from blocks.records import BackupStatus, BackupType
from blocks.sources.reading import Unchanged
from blocks.sources.redis import RedisSource
from blocks.sources.redis.net.wire import Reply
from blocks.sources.target import RestoreMode
from flows.backup import make_backup
from flows.restore import make_restore
from flows.restoring.request import RestoreRequest
from flows.verify import make_verification
from tests.blocks.sources.redis.changes_kit import KeptChain, all_rows
from tests.blocks.sources.redis.kit import RedisServer, changes, fill_gallery, plan_of, read_all
from tests.blocks.sources.redis.newer import newer_redis

FULL, INCREMENTAL = BackupType.FULL, BackupType.INCREMENTAL


def test_only_keys_that_were_written_are_read(live: RedisServer) -> None:
    live.many([("SET", f"k{n}", "x" * 100) for n in range(3_000)])
    chain = KeptChain(RedisSource(url=live.url, part_size_bytes=50_000))
    live("CONFIG", "RESETSTAT")
    live.many([("SET", "k7", "changed"), ("DEL", "k8"), ("SET", "new", "x"), ("RENAME", "k9", "k10")])
    assert chain.incremental()
    assert sorted(k for rows in chain.rows_read for k in rows.column("key").to_pylist()) == [
        b"k10",
        b"k7",
        b"new",
    ]
    assert sum(isinstance(reading, Unchanged) for reading in chain.readings) >= len(chain.parts) - 5 > 0
    assert chain.rows() == all_rows(chain.source)


def test_where_nothing_was_written_the_source_is_carried_over(live: RedisServer, tmp_path: Path) -> None:
    fill_gallery(live)
    plan = plan_of(tmp_path, RedisSource(url=live.url))
    full = make_backup(plan, FULL)
    live("CONFIG", "RESETSTAT")
    again = make_backup(plan, INCREMENTAL)
    assert again.sources[0].token == full.sources[0].token is not None
    assert [(c.name, c.rows) for c in again.collections] == [(c.name, c.rows) for c in full.collections]
    assert changes(again) == (0, 0)
    assert b"cmdstat_scan:" not in live("INFO", "commandstats")


def test_keys_that_become_wide_or_narrow_or_go_are_right(live: RedisServer) -> None:
    fill_gallery(live)
    chain = KeptChain(RedisSource(url=live.url))
    wide = [word for n in range(2_000) for word in (f"field{n}", n)]
    live.many([("DEL", "h:wide"), ("HSET", "h", *wide), ("LTRIM", "l:wide", 0, 3), ("DEL", "s:wide"), ("DEL", "x")])
    live.many([("SET", "s:wide", "narrow now"), ("ZREM", "z:wide", "m7"), ("HSET", "h:new", *wide), ("DEL", "")])
    live("XTRIM", "x:wide", "MAXLEN", "=", 100, db=3)
    assert chain.incremental()
    assert chain.rows() == all_rows(chain.source)
    live.many([("HDEL", "h:new", "field5"), ("RENAME", "h:new", "h:other"), ("HSET", "h:other", "field6", "x")])
    assert chain.incremental()
    assert chain.rows() == all_rows(chain.source)


def test_a_chain_that_was_read_so_is_verified_and_restored(live: RedisServer, tmp_path: Path) -> None:
    fill_gallery(live)
    plan = plan_of(tmp_path, RedisSource(url=live.url, server_program=live.program))
    make_backup(plan, FULL)
    for n in range(3):
        live.many([("HSET", "h:wide", f"field{n}", "other"), ("DEL", f"{{tag}}{'abc'[n]}"), ("SET", f"new{n}", n)])
        live("SETRANGE", "text", n, "abc", db=3)
        live("CONFIG", "RESETSTAT")
        # the databases are as few as can be listed in a part of one answer; a sample is one
        assert changes(make_backup(plan, INCREMENTAL)) == ((3, 1) if n < 2 else (3, 0))
    before = live.digest(), live.groups()
    assert make_verification(plan).status is BackupStatus.VERIFIED
    live("FLUSHALL")
    live("SET", "added", "later")
    make_restore(plan, RestoreRequest(mode=RestoreMode.EXACT))
    assert (live.digest(), live.groups()) == before
    # what the restore wrote is in the history, too
    assert make_backup(plan, INCREMENTAL).backup_type is INCREMENTAL
    make_restore(plan, RestoreRequest(mode=RestoreMode.EXACT))
    assert (live.digest(), live.groups()) == before


def test_a_key_written_while_no_database_was_named_is_found(live: RedisServer) -> None:
    live.many([("SET", f"k{n}", n) for n in range(20)], db=5)
    live("SET", "k1", "other", db=0)
    KeptChain(RedisSource(url=live.url))  # the server keeps a history from now on
    live("SET", "k2", "in 5", db=5)
    chain = KeptChain(RedisSource(url=live.url))
    live("SET", "k1", "changed", db=5)  # the stream does not say again that it is about database 5
    live("DEL", "k3", db=5)
    assert chain.incremental()
    assert chain.rows() == all_rows(chain.source)


def test_patterns_hold_for_what_was_written_too(live: RedisServer) -> None:
    live.many([("SET", f"{kind}:{n}", n) for kind in ("order", "session") for n in range(100)])
    chain = KeptChain(RedisSource(url=live.url, patterns=["order:*", "[x-z]*"]))
    live.many([("SET", "order:1", "changed"), ("SET", "session:1", "changed"), ("SET", "yes", "x"), ("SET", "no", "x")])
    assert chain.incremental()
    assert chain.read_rows == 2
    assert chain.rows() == all_rows(chain.source)


def test_other_patterns_than_before_are_read_anew(live: RedisServer, tmp_path: Path) -> None:
    live.many([("SET", f"{kind}:{n}", n) for kind in ("order", "session") for n in range(100)])
    plan = plan_of(tmp_path, RedisSource(url=live.url, patterns=["order:*"]))
    assert make_backup(plan, FULL).collections[0].rows == 100
    plan = plan.model_copy(update={"sources": {"cache": RedisSource(url=live.url)}})
    assert make_backup(plan, INCREMENTAL).collections[0].rows == 200
    plan = plan.model_copy(update={"sources": {"cache": RedisSource(url=live.url, patterns=["session:*"])}})
    assert make_backup(plan, INCREMENTAL).collections[0].rows == 100


@pytest.mark.parametrize("consistent", [False, True])
def test_another_database_under_the_same_name_is_read_anew(live: RedisServer, tmp_path: Path, consistent: bool) -> None:
    for db in (0, 5):
        live.many([("SET", f"k{n}", f"of {db}") for n in range(100)], db=db)
    source = RedisSource(url=live.url, databases=[0], consistent=consistent)
    plan = plan_of(tmp_path, source)
    make_backup(plan, FULL)
    for renumbered in ({0: 5}, {}):
        moved = plan.model_copy(update={"sources": {"cache": source.model_copy(update={"renumbered": renumbered})}})
        assert changes(make_backup(moved, INCREMENTAL)) == (100, 0)
        assert changes(make_backup(moved, INCREMENTAL)) == (0, 0)


def wait_until(server: RedisServer, moment_ms: Reply) -> None:
    """Wait for the server's own time, without touching a key that would go then."""
    while True:
        seconds, microseconds = map(int, server("TIME"))
        if seconds * 1000 + microseconds // 1000 > moment_ms:
            return
        time.sleep(0.01)


def test_a_key_that_went_by_itself_goes_when_the_server_says_so(live: RedisServer, tmp_path: Path) -> None:
    live.many([("SET", "stays", "x"), ("SET", "goes", "x", "PX", 900), ("SET", "goes too", "x", "PX", 900)])
    live("DEBUG", "SET-ACTIVE-EXPIRE", 0)
    source = RedisSource(url=f"{live.url}/0", server_program=live.program)
    plan, chain = plan_of(tmp_path, source), KeptChain(source)
    make_backup(plan, FULL)
    wait_until(live, live("PEXPIRETIME", "goes too"))
    # nobody asked for it and the server has not looked: it is not in the stream yet
    assert make_backup(plan, INCREMENTAL).collections[0].rows == 3
    assert make_verification(plan).status is BackupStatus.VERIFIED
    notes = make_restore(plan, RestoreRequest(mode=RestoreMode.EXACT, to=f"{live.url}/7")).notes
    assert "2 keys had expired since the backup and were not restored." in notes
    assert live("KEYS", "*", db=7) == [b"stays"]
    live("DEL", "stays", db=7)
    assert live("GET", "goes") is None  # now it is
    live("DEBUG", "SET-ACTIVE-EXPIRE", 1)
    while live("DBSIZE") > 1:
        time.sleep(0.02)
    made = make_backup(plan, INCREMENTAL)
    assert (made.backup_type, made.collections[0].rows, changes(made)) == (INCREMENTAL, 1, (0, 2))
    assert chain.incremental()
    assert chain.rows() == all_rows(chain.source)


def test_a_key_that_the_server_expired_is_gone(live: RedisServer) -> None:
    live.many([("SET", "stays", "x"), ("SET", "goes", "x", "PX", 50), ("HSET", "h", "a", "b"), ("PEXPIRE", "h", 50)])
    chain = KeptChain(RedisSource(url=live.url))
    while live("DBSIZE") > 1:
        time.sleep(0.01)
    assert chain.incremental()
    assert chain.rows() == all_rows(chain.source)
    assert [row["key"] for row in chain.rows()] == [b"stays"]


def test_keys_that_the_server_evicts_are_gone(live: RedisServer) -> None:
    live.many([("SET", f"k{n}", "x" * 500) for n in range(3_000)])
    chain = KeptChain(RedisSource(url=live.url))
    live("CONFIG", "SET", "maxmemory-policy", "allkeys-random")
    live("CONFIG", "SET", "maxmemory", live.info("memory", "used_memory") - 200_000)
    live.many([("SET", f"new{n}", "x" * 500) for n in range(100)])
    live("CONFIG", "SET", "maxmemory", 0)
    assert live("DBSIZE") < 3_100
    assert chain.incremental()
    assert chain.rows() == all_rows(chain.source)


def test_a_part_that_grew_by_far_ends_the_chain(live: RedisServer, tmp_path: Path) -> None:
    live.many([("SET", f"k{n}", "x" * 100) for n in range(2_000)])
    plan = plan_of(tmp_path, RedisSource(url=live.url, part_size_bytes=40_000))
    parts = len(make_backup(plan, FULL).collections[0].parts)
    # what shares a tag is in one part
    live.many([("SET", f"{{tag}}{n}", "x" * 100) for n in range(400)])
    assert make_backup(plan, INCREMENTAL).backup_type is INCREMENTAL
    live.many([("SET", f"{{tag}}{n}", "x" * 100) for n in range(400, 1_400)])
    made = make_backup(plan, INCREMENTAL)
    assert (made.backup_type, made.promoted_because) == (FULL, "a part of db0 has outgrown its bounds")
    assert len(made.collections[0].parts) > parts
    assert made.collections[0].rows == live("DBSIZE")


def test_a_part_with_one_huge_key_does_not_end_the_chain(live: RedisServer, tmp_path: Path) -> None:
    live.many([("SET", f"k{n}", n) for n in range(500)])
    live("RPUSH", "huge", *["x" * 50] * 20_000)
    plan = plan_of(tmp_path, RedisSource(url=live.url, part_size_bytes=40_000))
    make_backup(plan, FULL)
    live("LSET", "huge", 5, "changed")
    made = make_backup(plan, INCREMENTAL)
    assert (made.backup_type, changes(made)) == (INCREMENTAL, (1, 0))


def test_who_only_looks_does_not_make_a_server_keep_a_history(live: RedisServer, tmp_path: Path) -> None:
    live("SET", "k", "v")
    read_all(RedisSource(url=live.url))
    plan = plan_of(tmp_path, RedisSource(url=live.url, track_changes=False))
    assert make_backup(plan, FULL).sources[0].token is None
    plan = plan.model_copy(update={"sources": {"cache": RedisSource(url=live.url)}})
    make_restore(plan, RestoreRequest(preview=True))
    assert live.info("replication", "repl_backlog_active") == 0
    make_backup(plan, INCREMENTAL)
    assert live.info("replication", "repl_backlog_active") == 1


def test_fields_that_went_by_themselves_are_gone(tmp_path: Path) -> None:
    live = RedisServer(tmp_path / "newer", program=newer_redis())
    try:
        live.many([("HSET", "h", "a", "1", "b", "2"), ("HSET", "short", "a", "1"), ("HSET", "rests", "a", "1")])
        live.many([("HPEXPIRE", "h", 50, "FIELDS", 1, "a"), ("HPEXPIRE", "short", 50, "FIELDS", 1, "a")])
        chain = KeptChain(RedisSource(url=live.url))
        while live("HLEN", "h") > 1 or live("DBSIZE") > 2:
            time.sleep(0.01)
        assert chain.incremental()
        assert chain.rows() == all_rows(chain.source)
        assert {row["key"] for row in chain.rows()} == {b"h", b"rests"}
    finally:
        live.kill()
