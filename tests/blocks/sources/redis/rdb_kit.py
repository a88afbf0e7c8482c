"""Datasets as servers send them, and what is read out of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from blocks.sources.redis import RedisSource
from blocks.sources.redis.net.server import Server
from blocks.sources.redis.place import parse_place
from blocks.sources.redis.rdb.read import RdbReader
from blocks.sources.redis.views.replica import dataset_of
from tests.blocks.sources.redis.kit import RedisServer, read_all

Rows = dict[str, list[tuple[object, ...]]]
"""All rows of each collection, sorted."""

NOW_MS = 1_700_000_000_000
"""A moment before every expiry of the tests."""


def rdb_of(live: RedisServer) -> bytes:
    """What a server sends to a replica."""
    source = RedisSource(url=live.url)
    with source._server(parse_place(source.url)) as server:
        assert isinstance(server, Server)
        with dataset_of(server) as dataset:
            return b"".join(dataset.chunks())


def cut(raw: bytes, sizes: Iterator[int]) -> Iterator[bytes]:
    """Cut bytes into pieces of such sizes."""
    at = 0
    while at < len(raw):
        size = next(sizes)
        yield raw[at : at + size]
        at += size


def parsed(raw: bytes, chunks: Iterator[bytes] | None = None, moment_ms: int = NOW_MS, **how: Any) -> Rows:
    """The rows that are read out of a dataset."""
    found: dict[str, list[pa.Table]] = {}
    reader = RdbReader(iter([raw]) if chunks is None else chunks, lambda made_at: moment_ms, **how)
    for database, table in reader.tables():
        found.setdefault(f"db{database}", []).append(table)
    return {name: in_order(pa.concat_tables(tables)) for name, tables in found.items()}


def read(live: RedisServer, **how: Any) -> Rows:
    """The rows that are read key by key."""
    backup = read_all(RedisSource(url=live.url, **how))
    return {name: in_order(backup.table(name)) for name in backup.rows}


def in_order(rows: pa.Table) -> list[tuple[object, ...]]:
    columns = [column.to_pylist() for column in rows.columns]
    return sorted(zip(*columns, strict=True), key=repr)


def wait_until_ms(moment_ms: int) -> None:
    """Wait until the clock shows a moment."""
    while time.time() * 1000 <= moment_ms:
        time.sleep(0.001)
