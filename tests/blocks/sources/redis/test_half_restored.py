"""Restores that end early: what they leave, what they say, and how it is brought back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from pydantic import SecretStr

from blocks.errors import LastgoodError, Partial, RestoreRefused, SourceUnavailable
from blocks.rows.selection import Selection
from blocks.sources.redis import RedisSource
from blocks.sources.redis.net.wire import Reply
from blocks.sources.redis.temporary_names import ASIDE, TEMPORARY
from blocks.sources.redis.write.send import _ToServer
from blocks.sources.target import RestoreMode
from blocks.sources.view import Salvaging, Unread
from tests.blocks.sources.redis.cluster_kit import RedisCluster
from tests.blocks.sources.redis.kit import (
    Backup,
    RedisServer,
    containers,
    prepare,
    read_all,
    streams,
    strings,
    write_all,
)
from tests.blocks.sources.redis.undo_kit import proxied, put, read_view, rescue, restore, scope_of, state, undo
from tests.conformance.children import Child


@pytest.fixture
def one(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "one")
    yield server
    server.kill()


def fill(server: RedisServer) -> None:
    server.many(strings() + containers() + streams())
    server.many([("SET", f"k{n}", n) for n in range(300)])


def change(server: RedisServer) -> None:
    server.many([("SET", f"k{n}", "new") for n in range(0, 300, 2)] + [("SET", f"n{n}", "new") for n in range(50)])
    server.many([("DEL", "text", "h:wide"), ("RPUSH", "l:wide", "new"), ("HSET", "new", "a", 1)])


class Cut:
    """Lets so many chunks through with which others see something change."""

    def __init__(self, left: int) -> None:
        self.left = left

    def __call__(self, data: bytes) -> bool:
        if b":old:" in data and b":probe:" not in data and (b"EXEC" in data or b"UNLINK" in data):
            self.left -= 1
        return self.left >= 0


@pytest.mark.parametrize("sends", [0, 1, 2, 3, 5, 8])
def test_a_restore_that_is_cut_off_is_taken_back(one: RedisServer, sends: int) -> None:
    fill(one)
    source = RedisSource(url=one.url, part_size_bytes=40_000)
    backup = read_all(source)
    change(one)
    before, groups, emergency = one.digest(), one.groups(), None
    with proxied(one.port, Cut(sends)) as proxy:
        through = source.model_copy(update={"url": proxy.url})
        target = through.target(scope_of(backup, through))
        target.preflight()
        emergency, _ = rescue(through, target)
        put(backup, through, target)
        with pytest.raises((Partial, SourceUnavailable)) as caught:
            target.commit()
        assert target.changed == isinstance(caught.value, Partial)
        target.abort()
        target.abort()
    undo(emergency, source)
    clean(one)
    assert (one.digest(), one.groups()) == (before, groups)


def clean(server: RedisServer) -> None:
    """Remove what a restore left that could not reach the server any more, as the next process would."""
    if left := server("KEYS", TEMPORARY + b"*"):
        server("DEL", *left)  # type: ignore[misc]


def test_a_cut_off_restore_can_be_run_again(one: RedisServer) -> None:
    fill(one)
    source, wanted = RedisSource(url=one.url, part_size_bytes=40_000), one.digest()
    backup = read_all(source)
    change(one)
    with proxied(one.port, Cut(2)) as proxy, pytest.raises(Partial, match="closed"):
        restore(backup, source.model_copy(update={"url": proxy.url}))
    restore(backup, source)
    clean(one)
    assert one.digest() == wanted


def restore_and_die(url: str, kept: Path, sends: int) -> None:
    """Restore what is kept, in a child, and be killed by the send after so many."""
    send, left = _ToServer.send, [None] * sends

    def counted(self: _ToServer, payload: bytes, count: int) -> Sequence[Reply]:
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        left.pop()
        return send(self, payload, count)

    _ToServer.send = counted  # type: ignore  it is the child's own
    source = RedisSource(url=url, part_size_bytes=40_000)
    restore(read_all(source.at(str(kept))), source)


@pytest.mark.parametrize("sends", [0, 1, 2, 4, 7, 11])
def test_a_killed_restore_is_taken_back_and_leaves_nothing(one: RedisServer, tmp_path: Path, sends: int) -> None:
    """Between any two things that it sends; what it left is removed by the next restore."""
    fill(one)
    source = RedisSource(url=one.url, part_size_bytes=40_000)
    backup = read_all(source)
    write_all(backup, prepare(backup, source, str(tmp_path / "kept.rdb")))
    change(one)
    before, groups = one.digest(), one.groups()
    emergency = read_all(source)
    assert Child.ended_by(lambda: restore_and_die(one.url, tmp_path / "kept.rdb", sends)) == signal.SIGKILL
    assert not any(key.startswith(TEMPORARY) for key in sorted(read_all(source).keys()))
    undo(emergency, source)
    assert (one.digest(), one.groups()) == (before, groups)
    assert not one("KEYS", "lastgood:*")


def test_temporary_keys_of_a_live_restore_stay(one: RedisServer) -> None:
    one.many([("SET", "a", 1), ("RPUSH", "l", *range(2000))])
    source = RedisSource(url=one.url)
    backup = read_all(source)
    target = source.target(scope_of(backup, source))
    target.preflight()
    put(backup, source, target)
    mine = TEMPORARY + b"{1}:" + target._names.owner.encode() + b":new:x"  # type: ignore[attr-defined]
    theirs = TEMPORARY + b"{1}:plan-00000000-1-1-00000000:new:x"
    one.many([("SET", mine, 1), ("SET", theirs, 1), ("SET", ASIDE + b"then:y", 1)])
    restore(backup, source)
    assert sorted(one("KEYS", "lastgood:*")) == sorted([mine, theirs, ASIDE + b"then:y"])  # type: ignore[type-var]
    assert read_all(source).keys() == {b"a", b"l"}
    assert read_all(source.model_copy(update={"consistent": True})).keys() == {b"a", b"l"}
    target.abort()


def test_a_server_that_is_killed_on_the_way_is_said_and_undone(one: RedisServer) -> None:
    one("CONFIG", "SET", "appendonly", "yes")
    one("CONFIG", "SET", "appendfsync", "always")
    while b"aof_rewrite_in_progress:0" not in one("INFO", "persistence"):  # type: ignore[operator]
        pass
    one._words += ["--appendonly", "yes"]
    fill(one)
    source = RedisSource(url=one.url, part_size_bytes=40_000)
    backup = read_all(source)
    change(one)
    before = one.digest()
    seen = []

    def look(data: bytes) -> None:
        seen.append(b"RENAME" in data)
        if sum(seen) == 3 and one.running:
            one.kill()

    with proxied(one.port, look) as proxy:
        through = source.model_copy(update={"url": proxy.url})
        target = through.target(scope_of(backup, through))
        emergency, _ = rescue(through, target)
        put(backup, through, target)
        with pytest.raises(Partial):
            target.commit()
        assert target.changed
        target.abort()
    one.start()
    while b"\nloading:0" not in one("INFO", "persistence"):  # type: ignore[operator]
        pass
    undo(emergency, source)
    assert one.digest() == before


def test_a_memory_that_is_full_half_way_is_said_and_undone(live: RedisServer) -> None:
    fill(live)
    source = RedisSource(url=live.url, part_size_bytes=40_000)
    backup = read_all(source)
    change(live)
    before, seen = live.digest(), []

    def look(data: bytes) -> None:
        seen.append(b":old:" in data)
        if sum(seen) == 3:
            live("CONFIG", "SET", "maxmemory", 1)

    with proxied(live.port, look) as proxy:
        through = source.model_copy(update={"url": proxy.url})
        target = through.target(scope_of(backup, through))
        emergency, _ = rescue(through, target)
        put(backup, through, target)
        with pytest.raises(Partial, match="OOM") as caught:
            target.commit()
        assert "run the restore again" in caught.value.hint
        target.abort()
    live("CONFIG", "SET", "maxmemory", 0)
    undo(emergency, source)
    assert live.digest() == before
    assert not live("KEYS", TEMPORARY + b"*")


def test_a_container_that_could_not_be_built_never_takes_its_keys_place(live: RedisServer) -> None:
    live("RPUSH", "l", *[f"{n}{'x' * 100}" for n in range(20_000)])
    source = RedisSource(url=live.url)
    backup = read_all(source)
    live("RPUSH", "l", "live")
    seen = []

    def look(data: bytes) -> None:
        seen.append(b":new:l" in data)
        if sum(seen) == 2:
            live("CONFIG", "SET", "maxmemory", 1)

    for guarded in (True, False):
        seen.clear()
        with proxied(live.port, look) as proxy:
            through = source.model_copy(update={"url": proxy.url})
            target = through.target(scope_of(backup, through))
            if guarded:
                rescue(through, target)
            put(backup, through, target)
            with pytest.raises(LastgoodError, match="RPUSH of key b'l'"):
                target.commit()
            assert not target.changed
            target.abort()
        live("CONFIG", "SET", "maxmemory", 0)
        assert (live("LLEN", "l"), live("LINDEX", "l", -1)) == (20_001, b"live")


def test_an_interrupt_in_any_call_leaves_a_state_that_is_taken_back(one: RedisServer) -> None:
    fill(one)
    source = RedisSource(url=one.url, part_size_bytes=40_000)
    backup = read_all(source)
    change(one)
    before, seen, main = one.digest(), [], threading.main_thread().ident
    assert main is not None

    def look(data: bytes) -> None:
        # several commands may come at once
        before_this = sum(seen)
        seen.append(data.count(b":old:"))
        if before_this < 3 <= sum(seen):
            signal.pthread_kill(main, signal.SIGINT)

    with proxied(one.port, look) as proxy:
        through = source.model_copy(update={"url": proxy.url})
        target = through.target(scope_of(backup, through))
        emergency, _ = rescue(through, target)
        put(backup, through, target)
        with pytest.raises(KeyboardInterrupt):
            target.commit()
        assert target.changed
        target.abort()
    undo(emergency, source)
    assert one.digest() == before


def test_keys_that_are_gone_again_are_counted(one: RedisServer) -> None:
    one.many([("SET", f"k{n}", n) for n in range(20)])
    source = RedisSource(url=one.url)
    backup, seen = read_all(source), []

    def look(data: bytes) -> None:
        if b"EXISTS" in data and b"k7" in data and not seen:
            seen.append(one("DEL", "k7"))

    with proxied(one.port, look) as proxy, pytest.raises(Partial, match=r"1 of the keys .* b'k7'"):
        write_all(backup, prepare(backup, source.model_copy(update={"url": proxy.url})))


def test_keys_that_expire_while_they_are_restored_are_not_missed(one: RedisServer) -> None:
    one.many([("SET", "stays", 1), ("SET", "soon", 1, "PX", 1500), ("RPUSH", "l", 1), ("PEXPIRE", "l", 1500)])
    source = RedisSource(url=one.url)
    backup, seen = read_all(source), []

    def look(data: bytes) -> None:
        if b"EXISTS" in data and b"soon" in data and not seen:
            seen.append(1)
            while one("EXISTS", "soon", "l"):
                pass

    with proxied(one.port, look) as proxy:
        write_all(backup, prepare(backup, source.model_copy(update={"url": proxy.url})))
    assert seen


def test_what_cannot_be_read_is_moved_aside_and_named(live: RedisServer) -> None:
    live.many([("SET", "a:1", "old"), ("SET", "b:1", "old"), ("HSET", "b:2", "f", "old"), ("SET", "a:9", 1)])
    source = RedisSource(url=live.url)
    backup = read_all(source)
    live.many([("SET", "a:1", "new"), ("SET", "b:1", "new"), ("PEXPIRE", "b:1", 10**9), ("SET", "b:3", "came")])
    live("ACL", "SETUSER", "reader", "on", "nopass", "+@all", "~a:*", "~lastgood:*", "%W~*")
    limited = RedisSource(url=live.url, user="reader", password=SecretStr("x"))
    target = limited.target(scope_of(backup, limited))
    with limited.salvage() as view:
        target.guard(view)
        emergency = read_view(view)
        assert isinstance(view, Salvaging)
        unread = list(view.unread)
    assert emergency.keys() == {b"a:1", b"a:9"}
    assert {(each.collection, each.key) for each in unread} == {("db0", "b:1"), ("db0", "b:2"), ("db0", "b:3")}
    assert all("NOPERM" in each.reason for each in unread)
    sentences = target.keep_aside(unread)
    assert any("b:1" in sentence and "lastgood:aside:" in sentence for sentence in sentences)


def test_keys_that_are_kept_aside_hold_what_they_held(live: RedisServer) -> None:
    live.many([("SET", "a", "old"), ("SET", "b", "old")])
    source = RedisSource(url=live.url)
    backup = read_all(source)
    live.many(
        [("SET", "a", "new"), ("SET", "b", "new"), ("PEXPIRE", "b", 10**9), ("RPUSH", "c", 1, 2), ("SET", "d", 1)]
    )
    target = source.target(scope_of(backup, source))
    rescue(source, target)
    unread = [Unread("its type kept changing", "db0", "b"), Unread("NOPERM", "db0", "c")]
    target.keep_aside(unread)
    put(backup, source, target)
    live("SET", "b", "newer", "KEEPTTL")
    target.check_unwritten()
    target.commit()
    target.abort()
    kept = sorted(live("KEYS", "lastgood:aside:*"))  # type: ignore[type-var]
    assert [key.rpartition(b":")[2] for key in kept] == [b"b", b"c"]
    assert (live("GET", kept[0]), live("LRANGE", kept[1], 0, -1)) == (b"newer", [b"1", b"2"])
    assert live("PTTL", kept[0]) > 10**8  # type: ignore[operator]
    assert live("MGET", "a", "b", "c", "d") == [b"old", b"old", None, None]
    assert any("2 keys" in note and "lastgood:aside:" in note for note in target.notes)
    restore(read_all(source), source)
    assert live("EXISTS", *kept) == 2


def test_a_database_that_cannot_be_listed_is_kept_aside_as_a_whole(live: RedisServer) -> None:
    live.many([("SET", "a", "old")])
    source = RedisSource(url=live.url)
    backup = read_all(source)
    live.many([("SET", "a", "new"), ("SET", "other", 1)])
    live("ACL", "SETUSER", "default", "-scan")
    with source.salvage() as view:
        emergency = read_view(view)
        assert isinstance(view, Salvaging)
        unread = list(view.unread)
    assert not emergency.keys()
    assert [(each.collection, each.key) for each in unread] == [("db0", None)]
    live("ACL", "SETUSER", "default", "+scan")
    target = source.target(scope_of(backup, source, RestoreMode.MERGE))
    rescue(source, target)
    target.keep_aside(unread)
    put(backup, source, target)
    target.commit()
    target.abort()
    [kept] = live("KEYS", "lastgood:aside:*")  # type: ignore[misc]
    assert live("MGET", kept, "a", "other") == [b"new", b"old", b"1"]


def test_a_server_that_cannot_be_read_at_all_is_refused(one: RedisServer) -> None:
    one("SET", "a", 1)
    source = RedisSource(url=one.url)
    target = prepare(read_all(source), source)
    with pytest.raises(RestoreRefused, match="it is gone"):
        target.keep_aside([Unread("it is gone")])
    target.abort()


@pytest.mark.parametrize("rounds", [6])
def test_no_acknowledged_write_is_lost_under_a_writer(live: RedisServer, rounds: int) -> None:
    """Each is in the backup from before, or there afterwards, or named by the error."""
    live.many([("SET", f"k{n}", n) for n in range(300)] + [("RPUSH", f"w{n}", "first") for n in range(20)])
    source = RedisSource(url=live.url)
    backup = read_all(source)
    acknowledged: list[tuple[bytes, bytes]] = []
    ended = threading.Event()

    def write() -> None:
        connection, n = live.connection(), 0
        while not ended.wait(0.02):
            key, item = b"w%d" % (n % 20), b"item%d" % n
            connection.call("RPUSH", key, item)
            acknowledged.append((key, item))
            n += 1

    writer = threading.Thread(target=write)
    writer.start()
    found: set[bytes] = set()
    for _ in range(rounds):
        target = source.target(scope_of(backup, source))
        try:
            emergency, _ = rescue(source, target)
            found |= set(_items(emergency))
            put(backup, source, target)
            target.commit()
        except (RestoreRefused, Partial):
            pass  # it names what was written, and so that is there or kept aside
        finally:
            target.abort()
    ended.set()
    writer.join()
    for key in live("KEYS", "*w*"):  # type: ignore[union-attr]
        found |= set(live("LRANGE", key, 0, -1))  # type: ignore[arg-type]
    assert acknowledged
    assert [item for _, item in acknowledged if item not in found] == []


def _items(backup: Backup) -> Iterator[bytes]:
    for row in backup.table().to_pylist():
        yield from (row["value"] or b"").split(b"\r\n")


def test_a_cluster_is_guarded_restored_and_undone(tmp_path: Path) -> None:
    cluster = RedisCluster(tmp_path / "cluster")
    cluster.fill_gallery()
    source = RedisSource(url=cluster.url, part_size_bytes=100_000)
    backup, old = read_all(source), cluster.digest()
    cluster.many([("SET", "text", "new"), ("DEL", "h:wide"), ("RPUSH", "l", "new"), ("SET", "{odd}}x", "new")])
    before, groups = cluster.digest(), cluster.groups()
    emergency, _ = restore(backup, source)
    assert cluster.digest() == old
    undo(emergency, source)
    assert (cluster.digest(), cluster.groups()) == (before, groups)
    with pytest.raises(RestoreRefused, match="'text'"):
        restore(backup, source, meanwhile=lambda: cluster("SET", "text", "late"))
    assert cluster("GET", "text") == b"late"
    target = source.target(scope_of(backup, source, selection=Selection((), ("text", "{odd}}x"))))
    rescue(source, target)
    target.keep_aside([Unread("odd", "db0", "{odd}}x"), Unread("odd", "db0", "text")])
    put(backup, source, target, Selection((), ("text", "{odd}}x")))
    target.commit()
    target.abort()
    kept = [key for key in sorted(cluster.keys()) if key.startswith(ASIDE)]
    assert sorted(cluster("GET", key) for key in kept) == [b"late", b"new"]  # type: ignore[type-var]
    cluster.kill()


def test_an_rdb_file_is_restored_in_place_and_undone(one: RedisServer, tmp_path: Path) -> None:
    fill(one)
    place = tmp_path / "dump.rdb"
    there = RedisSource(url=str(place))
    first = read_all(RedisSource(url=one.url))
    write_all(first, prepare(first, there))
    backup, old = read_all(there), state(there)
    change(one)
    second = read_all(RedisSource(url=one.url))
    write_all(second, prepare(second, there))
    before = state(there)
    emergency, target = restore(backup, there)
    assert state(there) == old
    assert target.changed
    undo(emergency, there)
    assert state(there) == before
    with pytest.raises(RestoreRefused, match="was written"):
        restore(backup, there, meanwhile=lambda: os.utime(place, ns=(1, 1)))
    assert state(there) == before
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["dump.rdb"]


def test_an_rdb_file_that_cannot_be_read_is_kept_aside(one: RedisServer, tmp_path: Path) -> None:
    fill(one)
    place = tmp_path / "dump.rdb"
    there = RedisSource(url=str(place))
    backup = read_all(RedisSource(url=one.url))
    write_all(backup, prepare(backup, there))
    good = place.read_bytes()
    damaged = good[: len(good) // 2]
    place.write_bytes(damaged)
    with pytest.raises(SourceUnavailable), there.salvage():
        pass
    target = there.target(scope_of(backup, there))
    target.preflight()
    [sentence] = target.keep_aside([Unread("it ends in the middle")])
    put(backup, there, target)
    target.commit()
    target.abort()
    [kept] = tmp_path.glob("dump.rdb.lastgood-aside-*")
    assert kept.read_bytes() == damaged
    assert kept.name in sentence
    assert read_all(there).keys() == backup.keys()


@pytest.mark.parametrize("step", ["before", "after"])
def test_an_rdb_file_is_old_or_new_when_the_restore_is_killed(one: RedisServer, tmp_path: Path, step: str) -> None:
    one("SET", "a", "old")
    place = tmp_path / "dump.rdb"
    there = RedisSource(url=str(place))
    backup = read_all(RedisSource(url=one.url))
    write_all(backup, prepare(backup, there))
    one("SET", "a", "new")
    write_all(newer := read_all(RedisSource(url=one.url)), prepare(newer, RedisSource(url=str(tmp_path / "new.rdb"))))
    code = f"""
import os, signal, sys
import blocks.sources.redis.write.rdb_file_target as file
really = os.replace
def killed(one, other):
    if {step!r} == "after":
        really(one, other)
    os.kill(os.getpid(), signal.SIGKILL)
os.replace = killed
from tests.blocks.sources.redis.undo_kit import *
source = RedisSource(url=sys.argv[1])
restore(read_all(source.at(sys.argv[2])), source)
"""
    words = [sys.executable, "-c", code, str(place), str(tmp_path / "new.rdb")]
    done = subprocess.run(words, check=False, cwd=Path(__file__).parents[4], env=os.environ | {"PYTHONPATH": "."})
    assert done.returncode == -signal.SIGKILL
    [row] = read_all(there).table().to_pylist()
    assert row["value"] == (b"new" if step == "after" else b"old")
    restore(backup, there)
    assert sorted(path.name for path in tmp_path.iterdir() if "rdb" in path.name) == ["dump.rdb", "new.rdb"]
