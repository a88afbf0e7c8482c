"""What could not be tried is kept apart from a restore that fails: on real servers and file systems."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from blocks.errors import PlaceUnfit
from blocks.records import BackupStatus, BackupType
from blocks.sources.postgres import PostgresSource
from blocks.sources.redis import RedisSource
from blocks.verification import CheckOutcome, Verification
from flows.backup import make_backup
from flows.verify import make_verification
from tests.blocks.sources.postgres.hand import source_of, state_of
from tests.blocks.sources.postgres.kit import Books
from tests.blocks.sources.redis.kit import RedisServer
from tests.flows.flow_support import Shop
from tests.plans import plan_of
from tests.postgres_server import PostgresServer


def unproven(result: Verification, *words: str) -> None:
    """Assert that nothing is bad, and that the restore could not be tried for a reason."""
    assert result.findings == ()
    outcomes = {name: one.outcome.value for name, one in result.results.items()}
    assert (outcomes["bytes"], outcomes["restorable"], outcomes["definitions"]) == ("good", "unproven", "unproven")
    said = result.results["restorable"].warnings[0]
    assert "a scratch restore could not be tried: " in said
    for word in words:
        assert word in said


def test_a_role_without_createdb_leaves_the_backup_unproven(server: PostgresServer, tmp_path: Path) -> None:
    server.create("books", "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    books = Books(server, tmp_path, "books")
    backup = books.back_up()
    server.run("postgres", "DROP ROLE IF EXISTS poor", "CREATE ROLE poor LOGIN IN ROLE pg_read_all_data")
    source = books.source.model_copy(update={"dsn": SecretStr(server.dsn("books", user="poor"))})
    plan = books.plan.model_copy(update={"sources": {"books": source}})
    unproven(make_verification(plan, backup.backup_id), "it may not create databases")
    server.run("postgres", "ALTER ROLE poor CREATEDB")
    server.run("postgres", "GRANT postgres TO poor")
    assert make_verification(plan, backup.backup_id).status is BackupStatus.VERIFIED


def test_a_server_that_is_not_there_leaves_the_backup_unproven(server: PostgresServer, tmp_path: Path) -> None:
    server.create("books", "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    books = Books(server, tmp_path, "books", verify_dsn=SecretStr(server.dsn("postgres", port=str(port))))
    books.back_up()
    unproven(make_verification(books.plan), "cannot connect to")


def test_a_server_that_is_older_than_the_backup_is_unfit_for_it(server: PostgresServer) -> None:
    server.create("books", "CREATE TABLE t (id int PRIMARY KEY)")
    source = source_of(server, "books")
    state = state_of(source)
    later = replace(state, definition={**state.definition, "server_version": 99})
    target = source.target(later.scope(in_place=False), server.dsn("missing"))
    with pytest.raises(PlaceUnfit, match="older than the backup's 99"):
        target.preflight()


@pytest.mark.parametrize(
    ("statement", "faulty"),
    [
        ("CREATE EXTENSION IF NOT EXISTS nowhere WITH SCHEMA public;", False),
        ("CREATE VIEW public.broken AS SELECT nothing FROM public.t;", True),
    ],
)
def test_an_extension_that_the_server_lacks_is_of_the_place_and_a_broken_view_of_the_backup(
    server: PostgresServer, statement: str, faulty: bool
) -> None:
    server.create("books", "CREATE TABLE t (id int PRIMARY KEY)")
    source = source_of(server, "books")
    state = state_of(source)
    header = "--\n-- Name: n; Type: EXTENSION; Schema: -; Owner: -\n--\n\n"
    before = f"{state.definition['before']}\n{header.replace('EXTENSION', 'VIEW') if faulty else header}{statement}\n"
    forged = replace(state, definition={**state.definition, "before": before})
    target = source.target(forged.scope(in_place=False, keep_going=True), server.dsn("missing"))
    try:
        target.preflight()
        target.begin()
        target.commit()
        [left] = target.not_rebuilt  # type: ignore[attr-defined]
        assert left.faulty is faulty
    finally:
        target.abort()
        server.run("postgres", "DROP DATABASE IF EXISTS missing")


def test_a_machine_without_pg_dump_or_redis_leaves_that_source_unproven_and_proves_the_others(
    server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.create("books", "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    redis = RedisServer(tmp_path / "redis")
    redis("SET", "a", "1")
    shop = Shop(tmp_path / "shop")
    shop.fill()
    books = PostgresSource(dsn=SecretStr(server.dsn("books")), pg_dump=str(server.programs.pg_dump))
    plan = plan_of(
        tmp_path, "trading", books=books, cache=RedisSource(url=redis.url), ledger=shop.plan.sources["ledger"]
    )
    try:
        backup = make_backup(plan, BackupType.FULL)
    finally:
        redis.kill()
    monkeypatch.setenv("PATH", str(tmp_path))
    result = make_verification(plan, backup.backup_id)
    unproven(result, "cache: ", "no Redis server program 'redis-server' on this machine")
    assert len(result.results["restorable"].warnings) == 1  # the others were restored
    without = books.model_copy(update={"pg_dump": str(tmp_path / "pg_dump")})
    plan = plan.model_copy(update={"sources": {**plan.sources, "books": without}})
    said = make_verification(plan, backup.backup_id).results["restorable"].warnings
    assert [sentence.partition(":")[0] for sentence in said] == ["books", "cache"]
    assert "needs pg_dump of version" in said[0]


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file system of 2 MB of its own for temporary data, or a folder where that is not allowed."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder]
    mounted = subprocess.run(mount, check=False, capture_output=True)
    assert mounted.returncode == 0 or os.geteuid() != 0, mounted.stderr
    monkeypatch.setenv("TMPDIR", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=False, capture_output=True)


def large(shop: Shop) -> None:
    shop.db.execute("CREATE TABLE wide (id INTEGER PRIMARY KEY, v)")
    shop.db.executemany("INSERT INTO wide VALUES (?, randomblob(100000))", [(n,) for n in range(30)])


def sorted_large(shop: Shop) -> None:
    """Fits as an estimate, and does not with its index."""
    shop.db.execute("CREATE TABLE wide (id INTEGER PRIMARY KEY, v)")
    shop.db.executemany("INSERT INTO wide VALUES (?, hex(randomblob(200)))", [(n,) for n in range(3000)])
    shop.db.execute("CREATE INDEX by_v ON wide (v, id)")


def many(shop: Shop) -> None:
    """Little content, and a page of the file system for each file."""
    for n in range(900):
        (shop.tree / f"f{n}").write_bytes(b"x")


@pytest.mark.parametrize(
    ("fill", "source"), [(large, "ledger"), (sorted_large, "ledger"), (many, "models")], ids=lambda one: str(one)[:20]
)
def test_a_full_disk_leaves_the_backup_unproven(tmp_path: Path, small: Path, fill: object, source: str) -> None:
    shop = Shop(tmp_path / "shop", part_size_bytes=1 << 20)
    shop.fill()
    assert callable(fill)
    fill(shop)
    shop.plan = shop.plan.model_copy(update={"sources": {source: shop.plan.sources[source]}})
    shop.back_up()
    if not os.path.ismount(small):
        return
    result = make_verification(shop.plan)
    unproven(result, f"{source}: ")
    assert list(small.iterdir()) == []
    assert shop.repository.verifications("trading", result.backup_id) == [result]
    assert result.results["restorable"].outcome is CheckOutcome.UNPROVEN


def test_a_temporary_folder_without_room_for_a_folder_leaves_the_backup_unproven(tmp_path: Path, small: Path) -> None:
    shop = Shop(tmp_path / "shop")
    shop.fill()
    shop.back_up()
    if not os.path.ismount(small):
        return
    subprocess.run(["mount", "-o", "remount,nr_inodes=1", small], check=True)
    unproven(make_verification(shop.plan), "ledger: ", "a scratch folder cannot be kept in")
