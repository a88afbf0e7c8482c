"""Ways to reach a server, and what is said where it cannot be."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from blocks.errors import ConfigurationError, LastgoodError, SourceChanged, SourceUnavailable
from blocks.sources.redis import RedisSource
from blocks.sources.redis.place import Kind, parse_place
from tests.blocks.sources.redis.kit import RedisServer, free_port, make_certificate, prepare, read_all, write_all

SECRET = "correct-horse"


@pytest.fixture
def live(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "live")
    server("SET", "a", "1")
    yield server
    server.kill()


@pytest.fixture
def guarded(live: RedisServer, monkeypatch: pytest.MonkeyPatch) -> RedisServer:
    """A server with a backup user who may only read."""
    may = "+select +info +scan +type +pexpiretime +mget +get +hscan +sscan +zscan +lrange +xinfo +watch +multi +exec"
    live("ACL", "SETUSER", "reader", "on", f">{SECRET}", "~*", *may.split(), "+ping", "+dump")
    live("ACL", "SETUSER", "reader", "+zrange", "+hgetall", "+smembers")
    live("ACL", "SETUSER", "default", f">{SECRET}")
    monkeypatch.setenv("CACHE_PASSWORD", SECRET)
    return live


def words_of(error: LastgoodError) -> str:
    assert SECRET not in f"{error.message}{error.hint}{error!r}"
    return f"{error.message} {error.hint}"


def test_a_unix_socket_serves(live: RedisServer) -> None:
    assert read_all(RedisSource(url=f"unix://{live.socket}?db=0")).keys() == {b"a"}


def test_an_acl_user_who_may_only_read_can_back_up(guarded: RedisServer) -> None:
    url = guarded.url.replace("//", "//reader@")
    guarded.many([("HSET", "h", *[w for n in range(30_000) for w in (n, n)]), ("RPUSH", "l", *range(12_000))])
    guarded.many([("ZADD", "z", 1, "a"), ("ZADD", "wide", *[w for n in range(12_000) for w in (n, n)])])
    guarded.many([("SADD", "s", "a"), ("XADD", "x", "1-1", "a", "b"), ("SET", "a2", 1, "PX", 10**9)])
    source = RedisSource(url=url, password_env="CACHE_PASSWORD")
    assert read_all(source).keys() == {b"a", b"a2", b"h", b"l", b"s", b"wide", b"x", b"z"}
    with pytest.raises(ConfigurationError) as caught:
        read_all(source.model_copy(update={"consistent": True}))
    assert "docs/sources.md" in words_of(caught.value)


def test_an_acl_user_who_may_only_replicate_can_back_up_consistently(guarded: RedisServer) -> None:
    guarded("ACL", "SETUSER", "replica", "on", f">{SECRET}", "+info", "+psync", "+replconf")
    url = guarded.url.replace("//", "//replica@")
    source = RedisSource(url=url, password_env="CACHE_PASSWORD", consistent=True)
    assert read_all(source).keys() == {b"a"}
    guarded("ACL", "SETUSER", "replica", "-psync", "+sync")
    with pytest.raises(ConfigurationError, match="NOPERM") as caught:
        read_all(source)
    assert "docs/sources.md" in caught.value.hint


@pytest.mark.parametrize("password", ["wrong", None])
def test_a_wrong_or_missing_password_is_a_matter_of_the_plan(
    guarded: RedisServer, monkeypatch: pytest.MonkeyPatch, password: str | None
) -> None:
    monkeypatch.setenv("OTHER", password or "")
    with pytest.raises(ConfigurationError) as caught:
        read_all(RedisSource(url=guarded.url, password_env="OTHER" if password else None))
    assert f"127.0.0.1:{guarded.port}" in words_of(caught.value)


def test_a_password_is_never_shown(guarded: RedisServer) -> None:
    source = RedisSource(url=guarded.url, password=SECRET)  # type: ignore[arg-type]
    with source.view() as view:
        assert SECRET not in f"{source!r}{view.system}{view.definition}{view.__dict__}"
    with pytest.raises(ValidationError, match="password in the URL") as caught:
        RedisSource(url=f"redis://:{SECRET}@localhost")
    assert "password_env" in str(caught.value)
    with pytest.raises(ConfigurationError):
        source.at(f"redis://:{SECRET}@localhost")


def test_a_server_that_repeats_what_it_was_told_does_not_show_the_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHE_PASSWORD", SECRET)
    server = RedisServer(tmp_path / "renamed", "--rename-command", "AUTH", "")
    for user in (None, "me"):
        with pytest.raises(SourceUnavailable, match="unknown command") as caught:
            read_all(RedisSource(url=server.url, password_env="CACHE_PASSWORD", user=user))
        assert SECRET not in "".join(traceback.format_exception(caught.value))
    server.kill()


def test_another_place_may_have_another_password(
    guarded: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THERE", "other-word")
    other = RedisServer(tmp_path / "other", "--requirepass", "other-word")
    source = RedisSource(url=guarded.url, password_env="CACHE_PASSWORD")
    write_all(backup := read_all(source), prepare(backup, source, f"{other.url}?password_env=THERE"))
    assert read_all(source.at(f"{other.url}?password_env=THERE")).keys() == {b"a"}
    other.kill()


def test_tls_with_client_certificates(tmp_path: Path) -> None:
    port = free_port()
    server = RedisServer(tmp_path / "tls", "--tls-port", str(port), *make_certificate(tmp_path))
    server("SET", "a", "1")
    source = RedisSource(url=f"rediss://127.0.0.1:{port}", ca_file="cert", cert_file="cert", key_file="key")
    assert read_all(source.anchored(tmp_path)).keys() == {b"a"}
    assert read_all(source.anchored(tmp_path).model_copy(update={"consistent": True})).keys() == {b"a"}
    with pytest.raises(SourceUnavailable, match=r"(?i)certificate"):
        read_all(RedisSource(url=f"rediss://127.0.0.1:{port}"))
    server.kill()


def test_sentinels_lead_to_the_master(live: RedisServer, tmp_path: Path) -> None:
    folder, port = tmp_path / "sentinel", free_port()
    folder.mkdir()
    config = folder / "sentinel.conf"
    config.write_text(f"port {port}\ndir {folder}\nlogfile log\nsentinel monitor shop 127.0.0.1 {live.port} 1\n")
    sentinel = RedisServer(folder, sentinel=config, port=port)
    dead = free_port()
    source = RedisSource(url=f"redis+sentinel://127.0.0.1:{dead},127.0.0.1:{port}/shop/0")
    assert read_all(source).keys() == {b"a"}
    with pytest.raises(SourceUnavailable, match="knows no master 'stock'"):
        read_all(RedisSource(url=f"redis+sentinel://127.0.0.1:{port}/stock"))
    sentinel.kill()


def test_a_server_that_is_down_is_named() -> None:
    port = free_port()
    with pytest.raises(SourceUnavailable, match=f"127.0.0.1:{port}: connecting: .*refused"):
        read_all(RedisSource(url=f"redis://127.0.0.1:{port}"))


def test_a_server_that_is_killed_or_restarted_meanwhile_fails_the_backup(live: RedisServer) -> None:
    with RedisSource(url=live.url).view() as view:
        [spec] = view.collections()
        [bounds] = view.partition(spec)
        view.read(spec, bounds, None)
        live.kill()
        with pytest.raises(SourceUnavailable):
            view.read(spec, bounds, None)
        live.start()
        with pytest.raises(SourceChanged, match="restarted"):
            view.finish()


def test_too_many_clients_is_said(live: RedisServer) -> None:
    live("CONFIG", "SET", "maxclients", 1)
    with pytest.raises(SourceUnavailable, match="max number of clients"):
        read_all(RedisSource(url=live.url))


def test_a_missing_server_program_is_a_matter_of_the_plan(tmp_path: Path) -> None:
    (tmp_path / "dump.rdb").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="no-such-redis"):
        read_all(RedisSource(url=str(tmp_path / "dump.rdb"), server_program="no-such-redis"))


def test_a_damaged_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "dump.rdb").write_bytes(b"REDIS0010 and then nothing of use")
    with pytest.raises(SourceUnavailable, match="did not start"):
        read_all(RedisSource(url=str(tmp_path / "dump.rdb")))


@pytest.mark.parametrize(
    "text",
    [
        "http://localhost",
        "redis://h:x/0",
        "redis://h/a",
        "redis://h/1/2",
        "redis+sentinel://h",
        "redis+cluster://h/3",
        "redis+cluster://h/name/0",
        "redis+cluster://me:word@h",
        "redis://h?db=1&x=2",
        "h",
    ],
)
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_place(text)


def test_places_are_read_as_written() -> None:
    place = parse_place("rediss+sentinel://me@a:1,[::1]/my%20master/7")
    assert (place.kind, place.hosts, place.master) == (Kind.SENTINEL, (("a", 1), ("::1", 26379)), "my master")
    assert (place.tls, place.user, place.database) == (True, "me", 7)
    assert parse_place("redis://localhost").database is None
    place = parse_place("rediss+cluster://me@a:1,b,[::1]:7/?password_env=X")
    assert (place.kind, place.hosts) == (Kind.CLUSTER, (("a", 1), ("b", 6379), ("::1", 7)))
    assert (place.tls, place.user, place.database, place.password_env) == (True, "me", None, "X")
