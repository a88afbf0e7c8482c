"""Backups of servers and Python objects, read without them: records, tables and queries."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from blocks.crypto.keyring import Credential, Keyring, generate_key_file
from blocks.plan.plan import BackupPlan
from blocks.records import BackupType
from blocks.repository.block import BackupRepository
from blocks.sources.kinds import Source
from blocks.sources.mapping import MappingSource
from blocks.sources.postgres import PostgresSource
from blocks.sources.redis import RedisSource
from flows.backup import make_backup
from flows.reading.contents import Contents
from flows.reading.export import ExportRequest, Format, export
from flows.reading.query import answer
from flows.reading.records import keys_of, record, records
from flows.reading.values import json_rows
from tests.blocks.sources.redis.kit import FAR_MS, RedisServer
from tests.conformance import mapping_states
from tests.conformance.mapping_states import StateManager
from tests.postgres_server import PostgresServer, postgres_server

FAR = "2100-01-01T00:00:00.123000+00:00"


def plan_of(folder: Path, **sources: Source) -> BackupPlan:
    generate_key_file(folder / "key")
    plan = BackupPlan(
        name="p",
        sources=dict(sources),
        repository=BackupRepository(url=str(folder / "repository")),
        encryption=Keyring(credential=Credential(key_file=folder / "key")),
    )
    plan.repository.initialize(plan.encryption)
    return plan


def one(contents: Contents, collection: str, key: str) -> Mapping[str, Any]:
    (found,) = record(contents, contents.collection(collection), key)
    return found


def asked(contents: Contents, sql: str) -> list[Mapping[str, Any]]:
    with answer(contents, sql, 60) as found:
        return [row for table in found.rows for row in json_rows(table)]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Contents:
    """A full and an incremental of keys of all types, whose server is gone."""
    folder = tmp_path_factory.mktemp("cache")
    server = RedisServer(folder / "server")
    wide = [word for n in range(1200) for word in (f"f{n}", n)]
    server.many([("SET", "text", "héllo"), ("SET", b"\xff*", b"\xfe\x00"), ("SET", "goes", "x", "PXAT", FAR_MS)])
    server.many(
        [("HSET", "wide", *wide), ("HSET", "hash", "a", "1", b"\xff", b"\xfe"), ("RPUSH", "list", "b", "a", b"\xff")]
    )
    server.many([("SADD", "set", "m", "n"), ("ZADD", "zset", "2.5", "b", "inf", "top", "-1", "a"), ("SET", "old", "1")])
    server.many([("XADD", "stream", "1-1", "f", "v", "f", "w"), ("XGROUP", "CREATE", "stream", "g", "0")])
    server.many([("XREADGROUP", "GROUP", "g", "c", "STREAMS", "stream", ">"), ("SET", "1", "only in db 3")])
    server("SET", "other", "x", db=3)
    plan = plan_of(folder, cache=RedisSource(url=server.url))
    make_backup(plan, BackupType.FULL)
    server.many([("DEL", "old"), ("HSET", "wide", "f7", "new"), ("SET", "text", "later")])
    make_backup(plan, BackupType.INCREMENTAL)
    server.kill()
    return Contents(plan, "latest")


@pytest.mark.parametrize(
    ("key", "kind", "value"),
    [
        ("text", "string", "later"),
        ("\\xff*", "string", {"base64": "/gA="}),
        ("hash", "hash", {"a": "1", "\\xff": {"base64": "/g=="}}),
        ("list", "list", ["b", "a", {"base64": "/w=="}]),
        ("set", "set", ["m", "n"]),
        ("zset", "zset", [["a", -1.0], ["b", 2.5], ["top", "inf"]]),
        (
            "stream",
            "stream",
            {
                "entries": [{"id": "1-1", "fields": [["f", "v"], ["f", "w"]]}],
                "last_id": "1-1",
                "groups": [{"name": "g", "last_delivered_id": "1-1", "consumers": ["c"], "pending": 1}],
            },
        ),
    ],
)
def test_keys_of_redis_are_objects(cache: Contents, key: str, kind: str, value: object) -> None:
    assert one(cache, "cache/db0", key) == {"key": key, "type": kind, "expires_at": None, "value": value}


def test_a_wide_key_is_whole_and_as_of_the_newest_backup(cache: Contents) -> None:
    value = one(cache, "cache/db0", "wide")["value"]
    assert value == {f"f{n}": str(n) for n in range(1200)} | {"f7": "new"}
    assert one(cache, "cache/db0", "goes")["expires_at"] == FAR


def test_all_keys_of_redis_are_records_and_listed(cache: Contents) -> None:
    collection = cache.collection("cache/db0")
    found = {str(row["key"]): row for row in records(cache, collection)}
    assert "old" not in found
    assert len(found) == 10
    assert [row["key"] for row in records(cache, collection, ["ha*"])] == ["hash"]
    (part,) = cache.parts(collection)
    assert sorted(keys_of(part, "redis").column("key").to_pylist()) == sorted(found)


def test_redis_is_a_table_of_elements(cache: Contents) -> None:
    sql = 'select element, value, value_bytes from "cache"."db0" where key = \'{}\' order by element'
    assert asked(cache, sql.format("list")) == [
        {"element": "0", "value": "b", "value_bytes": None},
        {"element": "1", "value": "a", "value_bytes": None},
        {"element": "2", "value": None, "value_bytes": "/w=="},
    ]
    assert asked(cache, sql.format("stream"))[0]["value"] == '["f", "v", "f", "w"]'
    assert asked(cache, sql.format("set"))[0] == {"element": "m", "value": None, "value_bytes": None}
    scores = "select sum(value::double) s from cache.db0 where type = 'zset' and value <> 'inf'"
    assert asked(cache, scores) == [{"s": 1.5}]
    assert asked(cache, "select count(*) n, count(expires_ms) e from cache.db0 where key in ('wide', 'goes')") == [
        {"n": 1201, "e": 1}
    ]
    assert asked(cache, "select key from cache.db3") == [{"key": "other"}]


def test_one_key_is_looked_up_and_not_all_are_read(cache: Contents) -> None:
    parts = cache.record(cache.collection("cache/db0"), "text")
    assert all(part.wanted is not None for part in parts)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as running:
        yield running


@pytest.fixture(scope="module")
def books(server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Contents:
    """A full and an incremental of typed tables."""
    dsn = server.create(
        "books",
        "CREATE TABLE orders (id int PRIMARY KEY, price numeric(10,2), free numeric, odd numeric, day date, "
        "at timestamptz, ok bool, data bytea, doc jsonb, f float8)",
        "INSERT INTO orders SELECT n, n / 4.0, n / 8.0, n, date '2026-01-01' + n, timestamptz '2026-01-01 02:00+02', "
        "n % 2 = 0, '\\x00ff', '{\"n\": 1}', n FROM generate_series(1, 3000) n",
        "UPDATE orders SET odd = 'NaN', f = 'NaN' WHERE id = 2999",
        "CREATE TABLE nokey (a int, b text)",
        "INSERT INTO nokey VALUES (1, 'x'), (1, 'x'), (NULL, '')",
        'CREATE SCHEMA "Odd.schema"',
        'CREATE TABLE "Odd.schema"."a""b" (id int PRIMARY KEY)',
        'INSERT INTO "Odd.schema"."a""b" VALUES (5)',
    )
    folder = tmp_path_factory.mktemp("books")
    plan = plan_of(folder, books=PostgresSource(dsn=dsn, part_size_bytes=20_000))
    make_backup(plan, BackupType.FULL)
    with server.connect("books") as session:
        session.execute("UPDATE orders SET price = 9.25 WHERE id = 3")
        session.execute("DELETE FROM orders WHERE id = 4")
    made = make_backup(plan, BackupType.INCREMENTAL)
    assert made.backup_type is BackupType.INCREMENTAL
    return Contents(plan, "latest")


def test_a_row_of_postgres_is_an_object_with_exact_values(books: Contents) -> None:
    assert one(books, "books/public.orders", "3") == {
        "id": 3, "price": "9.25", "free": "0.37500000000000000000", "odd": "3", "day": "2026-01-04",
        "at": "2026-01-01 00:00:00+00", "ok": False, "data": "AP8=", "doc": '{"n": 1}', "f": 3.0,
    }  # fmt: skip
    assert one(books, "books/public.orders", "2999")["f"] == "NaN"


def test_tables_of_postgres_are_typed_in_parquet(books: Contents, tmp_path: Path) -> None:
    files = {file.collection: file for file in export(books, ExportRequest(tmp_path, Format.PARQUET))}
    orders = files["books/public.orders"]
    assert orders.columns == {
        "id": "int64", "price": "decimal128(10, 2)", "free": "decimal128(38, 20)", "odd": "large_string",
        "day": "date32[day]", "at": "timestamp[us, tz=UTC]", "ok": "bool", "data": "large_binary",
        "doc": "large_string", "f": "double",
    }  # fmt: skip
    assert [note for note in orders.notes if "'odd'" in note] == list(orders.notes)
    rows = {row["id"]: row for row in pq.read_table(orders.path).to_pylist()}
    assert len(rows) == orders.rows == 2999
    assert (rows[3]["price"], rows[3]["free"], rows[3]["data"]) == (Decimal("9.25"), Decimal("0.375"), b"\x00\xff")
    nokey = pq.read_table(files["books/public.nokey"].path)
    assert nokey.column_names == ["a", "b"]
    assert sorted(map(str, nokey.to_pylist())) == ["{'a': 1, 'b': 'x'}"] * 2 + ["{'a': None, 'b': ''}"]


def test_tables_of_postgres_are_queried_with_types(books: Contents) -> None:
    sql = (
        'select sum(price) s, max(day) d, count(*) n from books."public.orders" '
        "where \"at\" >= timestamptz '2026-01-01'"
    )
    total = sum(Decimal(n) / 4 for n in range(1, 3001)) - 1 - Decimal("0.75") + Decimal("9.25")
    assert asked(books, sql) == [{"s": f"{total:.2f}", "d": "2034-03-20", "n": 2999}]
    odd = next(name for name in (one.name for one in books.backup.collections) if "Odd" in name).partition("/")[2]
    assert asked(books, 'select id from books."{}"'.format(odd.replace('"', '""'))) == [{"id": 5}]
    with answer(books, 'select odd from books."public.orders"', 60) as found:
        assert ["NULL in the query" in note for note in found.notes if "'odd'" in note] == [True]


def test_values_of_python_objects_are_json(tmp_path: Path) -> None:
    manager, attribute = StateManager(), f"made_{uuid.uuid4().hex}"
    setattr(mapping_states, attribute, manager)
    manager.values |= {"position:AAPL": {"quantity": 3}, "blob": b"\xff", "note": None}
    plan = plan_of(
        tmp_path, state=MappingSource(type="mapping", object=f"tests.conformance.mapping_states:{attribute}")
    )
    make_backup(plan, BackupType.FULL)
    manager.values["position:AAPL"] = {"quantity": 4}
    make_backup(plan, BackupType.INCREMENTAL)
    delattr(mapping_states, attribute)
    contents = Contents(plan, "latest")
    assert one(contents, "state/state", "position:AAPL") == {"key": "position:AAPL", "value": {"quantity": 4}}
    assert one(contents, "state/state", "blob")["value"] == {"$bytes": "/w=="}
    assert asked(contents, "select value from state.state where key = 'position:AAPL'") == [{"value": '{"quantity":4}'}]
    (file,) = export(contents, ExportRequest(tmp_path / "out", Format.JSONL))
    assert [json.loads(line)["value"] for line in file.path.read_text().splitlines() if "AAPL" in line] == [
        {"quantity": 4}
    ]
