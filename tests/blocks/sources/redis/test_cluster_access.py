"""Ways to reach a Redis Cluster, and what is said where it cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.errors import ConfigurationError, LastgoodError, SourceUnavailable
from blocks.sources.redis import RedisSource
from tests.blocks.sources.redis.cluster_kit import FREE_PORT, RedisCluster
from tests.blocks.sources.redis.kit import RedisServer, free_port, make_certificate, prepare, read_all, write_all

SECRET = "correct-horse"
MAY_READ = "+select +info +scan +type +pexpiretime +mget +get +hscan +hgetall +sscan +smembers +lrange +zrange +zscan"
MAY_READ += " +xinfo +dump +watch +multi +exec +ping +cluster|slots +cluster|nodes"
MAY_REPLICATE = "+info +replconf +psync +cluster|slots +cluster|nodes"
MAY_WRITE = "+select +info +scan +ping +multi +exec +set +del +unlink +exists +rename +persist +pexpire +pexpireat"
MAY_WRITE += " +hset +rpush +sadd +zadd +xadd +xtrim +xsetid +xgroup +xclaim +restore"
MAY_WRITE += " +cluster|slots +cluster|nodes"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    cluster = RedisCluster(tmp_path_factory.mktemp("live"), replicas=1)
    cluster.fill_gallery()
    for server in cluster.servers:
        server("ACL", "SETUSER", "reader", "on", f">{SECRET}", "~*", *MAY_READ.split())
        server("ACL", "SETUSER", "writer", "on", f">{SECRET}", "~*", *MAY_WRITE.split())
        server("ACL", "SETUSER", "replica", "on", f">{SECRET}", *MAY_REPLICATE.split())
        server("CONFIG", "SET", "masterauth", SECRET)
        server("ACL", "SETUSER", "default", f">{SECRET}")
    yield cluster
    cluster.kill()


@pytest.fixture(autouse=True)
def _password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHE_PASSWORD", SECRET)


def words_of(error: LastgoodError) -> str:
    assert SECRET not in f"{error.message}{error.hint}{error!r}"
    return f"{error.message} {error.hint}"


def test_any_node_leads_to_the_whole_cluster(live: RedisCluster) -> None:
    dead = free_port()
    urls = [f"redis://127.0.0.1:{server.port}" for server in live.servers]  # a replica too
    urls += [f"redis+cluster://127.0.0.1:{dead},127.0.0.1:{live.servers[1].port}/0", f"unix://{live.servers[2].socket}"]
    for url in urls:
        with RedisSource(url=url, password_env="CACHE_PASSWORD").view() as view:
            assert "(3 masters) at Redis Cluster 127.0.0.1:" in view.system.replace("localhost", "127.0.0.1")
        assert read_all(RedisSource(url=url, password_env="CACHE_PASSWORD")).keys() == live.keys()


def test_users_who_may_only_read_or_restore_or_replicate(live: RedisCluster) -> None:
    source = RedisSource(url=live.url.replace("//", "//reader@"), password_env="CACHE_PASSWORD")
    before = live.digest()
    backup = read_all(source)
    assert backup.keys() == live.keys()
    live("SET", "later", "x")
    write_all(backup, prepare(backup, source, live.url.replace("//", "//writer@") + "?password_env=CACHE_PASSWORD"))
    assert live.digest() == before
    with pytest.raises(ConfigurationError) as caught:
        read_all(source.model_copy(update={"consistent": True}))
    assert "docs/sources.md" in words_of(caught.value)
    with pytest.raises(ConfigurationError, match="NOPERM"):
        write_all(backup, prepare(backup, source))
    replica = RedisSource(url=live.url.replace("//", "//replica@"), password_env="CACHE_PASSWORD", consistent=True)
    assert read_all(replica).keys() == live.keys()


@pytest.mark.parametrize("password", ["wrong", None])
def test_a_wrong_or_missing_password_of_a_cluster_is_a_matter_of_the_plan(
    live: RedisCluster, monkeypatch: pytest.MonkeyPatch, password: str | None
) -> None:
    monkeypatch.setenv("OTHER", password or "")
    with pytest.raises(ConfigurationError) as caught:
        read_all(RedisSource(url=live.url, password_env="OTHER" if password else None))
    assert f"127.0.0.1:{live.servers[0].port}" in words_of(caught.value)


def test_tls_goes_to_every_node(tmp_path: Path) -> None:
    options = ["--tls-port", FREE_PORT, "--tls-cluster", "yes", "--tls-replication", "yes"]
    cluster = RedisCluster(tmp_path / "tls", *options, *make_certificate(tmp_path))
    cluster.fill_gallery()
    port = cluster.servers[0]("CONFIG", "GET", "tls-port")[1].decode()  # type: ignore[index,union-attr]
    files = {name: str(tmp_path / name.partition("_")[0].replace("ca", "cert")) for name in ("ca_file", "cert_file")}
    source = RedisSource(url=f"rediss+cluster://127.0.0.1:{port}", **files, key_file=str(tmp_path / "key"))
    backup, before = read_all(source), cluster.digest()
    assert backup.keys() == cluster.keys()
    cluster.clear()
    write_all(backup, prepare(backup, source))
    assert cluster.digest() == before
    assert read_all(source.model_copy(update={"consistent": True})).keys() == cluster.keys()
    with pytest.raises(SourceUnavailable, match=r"(?i)certificate"):
        read_all(RedisSource(url=f"rediss+cluster://127.0.0.1:{port}"))
    cluster.kill()


def test_what_a_cluster_does_not_have_is_said(live: RedisCluster, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="has only database 0, the plan names 3"):
        read_all(RedisSource(url=live.url, databases=[3], password_env="CACHE_PASSWORD"))
    single = RedisServer(tmp_path / "single")
    with pytest.raises(ConfigurationError, match="is no node of a Redis Cluster"):
        read_all(RedisSource(url=f"redis+cluster://127.0.0.1:{single.port}"))
    single.kill()
    with pytest.raises(SourceUnavailable, match=f"no node answers .*{single.port}: connecting"):
        read_all(RedisSource(url=f"redis+cluster://127.0.0.1:{single.port}"))
