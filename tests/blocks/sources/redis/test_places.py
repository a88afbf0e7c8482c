"""Which spellings name one place, what is there, and what is refused before the first write."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.errors import ConfigurationError, RestoreRefused
from blocks.rows.selection import Selection
from blocks.sources.redis import RedisSource
from blocks.sources.target import RestoreMode
from tests.blocks.sources.redis.cluster_kit import RedisCluster
from tests.blocks.sources.redis.kit import RedisServer, free_port, prepare, read_all, write_all
from tests.blocks.sources.redis.undo_kit import scope_of, state

EXACT, MERGE = RestoreMode.EXACT, RestoreMode.MERGE


@pytest.fixture
def one(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "one")
    server("SET", "a", 1)
    yield server
    server.kill()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "other")
    yield server
    server.kill()


def test_all_spellings_of_a_server_are_one_place(one: RedisServer, other: RedisServer, tmp_path: Path) -> None:
    source = RedisSource(url=one.url)
    link = tmp_path / "link"
    link.symlink_to(one.socket)
    live = source.location()
    for text in (f"redis://localhost:{one.port}", f"redis://127.1:{one.port}/", f"redis://127.0.0.1:{one.port}/3",
                 f"unix://{one.socket}", f"unix://{link}?db=0", f"redis://me@127.0.0.1:{one.port}"):  # fmt: skip
        assert source.location(text).same(live), text
    assert not source.location(other.url).same(live)
    assert not source.location(str(tmp_path / "x.rdb")).same(live)


def test_databases_of_a_server_are_places_of_their_own(one: RedisServer) -> None:
    source = RedisSource(url=f"{one.url}/0")
    assert source.location().databases == frozenset({"0"})
    assert not source.location(f"{one.url}/1").same(source.location())
    assert source.location(f"unix://{one.socket}?db=0").same(source.location())
    assert RedisSource(url=one.url).location().databases is None
    some = RedisSource(url=one.url, databases=[1, 2], renumbered={2: 7}, patterns=["a:*"])
    assert some.location().databases == frozenset({"1", "7"})
    assert "a:*" in some.location().part
    assert source.location().part == ""


def test_a_replica_is_the_place_of_its_master(one: RedisServer, other: RedisServer) -> None:
    source = RedisSource(url=one.url)
    other("REPLICAOF", "127.0.0.1", one.port)
    while b"master_link_status:up" not in other("INFO", "replication"):  # type: ignore[operator]
        pass
    assert source.location(other.url).same(source.location())


def test_a_server_that_does_not_answer_is_known_by_its_address(tmp_path: Path) -> None:
    port = free_port()
    source = RedisSource(url=f"redis://localhost:{port}")
    assert source.location(f"redis://127.0.0.1:{port}").same(source.location())
    assert not source.location(f"redis://127.0.0.1:{free_port()}").same(source.location())
    socket = RedisSource(url=f"unix://{tmp_path}/s")
    assert socket.location(f"unix://{tmp_path}/../{tmp_path.name}/s?db=2").same(socket.location())


def test_sentinels_and_the_master_that_they_name_are_one_place(one: RedisServer, tmp_path: Path) -> None:
    folder, port = tmp_path / "sentinel", free_port()
    folder.mkdir()
    config = folder / "sentinel.conf"
    config.write_text(f"port {port}\ndir {folder}\nlogfile log\nsentinel monitor shop 127.0.0.1 {one.port} 1\n")
    sentinel = RedisServer(folder, sentinel=config, port=port)
    source = RedisSource(url=f"redis+sentinel://127.0.0.1:{port}/shop")
    assert source.location(one.url).same(source.location())
    sentinel.kill()


def test_any_node_of_a_cluster_is_the_place_of_the_cluster(tmp_path: Path, one: RedisServer) -> None:
    cluster = RedisCluster(tmp_path / "cluster")
    source = RedisSource(url=cluster.url)
    for server in cluster.servers:
        assert source.location(server.url).same(source.location())
        assert source.location(f"unix://{server.socket}").same(source.location())
    assert not source.location(one.url).same(source.location())
    cluster.kill()


def test_an_rdb_file_is_its_path(tmp_path: Path) -> None:
    (tmp_path / "dump.rdb").write_bytes(b"REDIS0011")
    (tmp_path / "link.rdb").symlink_to("dump.rdb")
    source = RedisSource(url="dump.rdb").anchored(tmp_path)
    live = source.location()
    for text in (str(tmp_path / "link.rdb"), f"file://{tmp_path}/dump.rdb", f"{tmp_path}/../{tmp_path.name}/dump.rdb"):
        assert source.location(text).same(live), text
    assert not source.location(str(tmp_path / "other.rdb")).same(live)
    assert [path.name for path in live.paths] == ["dump.rdb"]


def test_what_is_at_a_place_is_counted(one: RedisServer, other: RedisServer, tmp_path: Path) -> None:
    source = RedisSource(url=one.url)
    backup = read_all(source)
    scope = scope_of(backup, source, in_place=False)
    assert source.target(scope, other.url).occupied() is None
    other.many([("SET", f"k{n}", n) for n in range(3)], db=2)
    assert "3 keys in database 2" in str(source.target(scope, other.url).occupied())
    assert source.target(scope, f"{other.url}/0").occupied() is None
    assert "3 keys" in str(source.target(scope, f"{other.url}/2").occupied())
    only = scope_of(backup, source, selection=Selection(("db0",)), in_place=False)
    assert source.target(only, other.url).occupied() is None
    place = tmp_path / "x.rdb"
    assert source.target(scope, str(place)).occupied() is None
    write_all(backup, prepare(backup, source, str(place)))
    assert "RDB file" in str(source.target(scope, str(place)).occupied())
    place.write_bytes(b"a letter")
    assert "another kind" in str(source.target(scope, str(place)).occupied())


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("mode", [EXACT, MERGE])
def test_a_file_that_is_none_of_redis_is_never_replaced(
    one: RedisServer, tmp_path: Path, overwrite: bool, mode: RestoreMode
) -> None:
    source, place = RedisSource(url=one.url), tmp_path / "letter.rdb"
    backup = read_all(source)
    place.write_bytes(b"dear Alice")
    scope = scope_of(backup, source, mode, in_place=False, overwrite=overwrite)
    with pytest.raises(RestoreRefused, match="no RDB file") as caught:
        source.target(scope, str(place)).preflight()
    assert "damaged" not in caught.value.message
    place.unlink()
    place.mkdir()
    with pytest.raises(RestoreRefused, match="no file"):
        source.target(scope, str(place)).preflight()


def test_what_goes_at_another_place_is_kept_aside(one: RedisServer, other: RedisServer, tmp_path: Path) -> None:
    source = RedisSource(url=one.url)
    backup = read_all(source)
    other.many([("SET", "a", "theirs"), ("HSET", "goes", "f", "v"), ("PEXPIRE", "goes", 10**9)])
    scope = scope_of(backup, source, in_place=False, overwrite=True)
    target = source.target(scope, other.url)
    assert write_all(backup, target) == 1
    kept = sorted(other("KEYS", "lastgood:aside:*"))  # type: ignore[type-var]
    assert [other("TYPE", key) for key in kept] == [b"string", b"hash"]
    assert other("GET", kept[0]) == b"theirs"
    assert other("PTTL", kept[1]) > 10**8  # type: ignore[operator]
    assert any("2 keys" in note and "lastgood:aside:" in note for note in target.notes)
    assert read_all(source.at(other.url)).keys() == {b"a"}
    place = tmp_path / "there.rdb"
    write_all(backup, prepare(backup, source, str(place)))
    before = place.read_bytes()
    one("SET", "b", 2)
    backup = read_all(source)
    target = source.target(scope_of(backup, source, in_place=False, overwrite=True), str(place))
    list(target.preflight())
    target.apply(backup.specs["db0"], backup.table())
    target.commit()
    target.abort()
    [aside] = tmp_path.glob("there.rdb.lastgood-aside-*")
    assert aside.read_bytes() == before
    assert any(aside.name in note for note in target.notes)


def test_what_a_merge_replaces_at_another_place_is_kept_aside(
    one: RedisServer, other: RedisServer, tmp_path: Path
) -> None:
    source = RedisSource(url=one.url)
    backup = read_all(source)
    other.many([("SET", "a", "theirs"), ("SET", "stays", "theirs, too")])
    target = source.target(scope_of(backup, source, MERGE, in_place=False), other.url)
    assert write_all(backup, target) == 1
    (kept,) = other("KEYS", "lastgood:aside:*")  # type: ignore[misc]
    assert [other("GET", key) for key in (kept, "stays", "a")] == [b"theirs", b"theirs, too", one("GET", "a")]
    assert any("1 keys" in note and "lastgood:aside:" in note for note in target.notes)
    place = tmp_path / "there.rdb"
    write_all(backup, prepare(backup, source, str(place)))
    before = place.read_bytes()
    one("SET", "a", "newer")
    backup = read_all(source)
    target = source.target(scope_of(backup, source, MERGE, in_place=False), str(place))
    list(target.preflight())
    target.apply(backup.specs["db0"], backup.table())
    target.commit()
    target.abort()
    [aside] = tmp_path.glob("there.rdb.lastgood-aside-*")
    assert aside.read_bytes() == before


REFUSED = {
    "too few replicas": [("CONFIG", "SET", "min-replicas-to-write", 1)],
    "a disk that cannot be saved to": [("CONFIG", "SET", "save", "1 1")],
    "no right to write": [("ACL", "SETUSER", "default", "-@write")],
    "no right to one command": [("ACL", "SETUSER", "default", "-zadd")],
    "no right to the keys": [("ACL", "SETUSER", "default", "resetkeys", "~b:*", "~lastgood:*", "%R~*")],
    "no right to names of ours": [("ACL", "SETUSER", "default", "resetkeys", "~a*")],
    "a full memory": [("CONFIG", "SET", "maxmemory", 1)],
}


@pytest.mark.parametrize("why", REFUSED)
def test_a_server_that_takes_no_writes_is_refused_before_the_first(live: RedisServer, why: str) -> None:
    live.many([("SET", "a", 1), ("ZADD", "b:z", 1, "a")])
    source = RedisSource(url=live.url)
    backup = read_all(source)
    for words in REFUSED[why]:
        live(*words)
    if "disk" in why:
        shutil.rmtree(live.folder)
        live("SET", "c", 1)
        live("BGSAVE")
        while b"rdb_last_bgsave_status:err" not in live("INFO", "persistence"):  # type: ignore[operator]
            pass
    before = live.digest()
    with pytest.raises(RestoreRefused) as caught:
        prepare(backup, source).preflight()
    assert caught.value.hint
    assert live.digest() == before


def test_temporary_data_needs_room(one: RedisServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = RedisSource(url=one.url)
    backup = read_all(source)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    with pytest.raises(ConfigurationError, match="missing"):
        prepare(backup, source).preflight()
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    scope = scope_of(backup, source)
    object.__setattr__(scope, "size_bytes", 2**60)
    for to in (None, str(tmp_path / "x.rdb")):
        with pytest.raises(RestoreRefused, match=str(tmp_path)):
            source.target(scope, to).preflight()


def test_a_folder_that_cannot_be_written_is_refused(one: RedisServer, tmp_path: Path) -> None:
    folder = tmp_path / "fixed"
    folder.mkdir()
    source, place = RedisSource(url=one.url), folder / "x.rdb"
    backup = read_all(source)
    write_all(backup, prepare(backup, source, str(place)))
    assert state(source.at(str(place))) == state(source)
    if os.getuid():
        folder.chmod(0o555)
        with pytest.raises(RestoreRefused, match="cannot be written"):
            prepare(backup, source, str(place)).preflight()
        folder.chmod(0o755)


def test_a_missing_server_program_is_known_before(one: RedisServer, tmp_path: Path) -> None:
    source = RedisSource(url=one.url, server_program="no-such-redis")
    with pytest.raises(ConfigurationError, match="no-such-redis"):
        prepare(read_all(source), source, str(tmp_path / "x.rdb")).preflight()


def test_a_long_path_for_temporary_data_is_no_obstacle(
    one: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, place = RedisSource(url=one.url), str(tmp_path / "x.rdb")
    backup = read_all(source)
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    write_all(backup, prepare(backup, source, place))
    assert state(source.at(place)) == state(source)
    assert not list(folder.iterdir())
