"""A small application's live state in four kinds of stores, as it grows from day to day, with many copies of each.

Every fault is planted into a copy of its own: a schema of PostgreSQL, tables of SQLite with a prefix, a database of
Redis, a folder. So one backup holds them all, and what is said of one is told from what is said of another by its name.
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.blocks.sources.redis.kit import RedisServer
from tests.postgres_server import PostgresServer

HERE = Path(__file__).parent
DAYS = 90
"""How long the application has run when its first backup is made."""
SMALL_FILLS, LARGE_FILLS = 2_000, 50_000


@dataclass
class Books:
    """Schemas of a PostgreSQL database: accounts, orders, two fills for each order."""

    server: PostgresServer
    begin: datetime
    fills: dict[str, int] = field(default_factory=dict)
    """By the name of a schema about how many fills it holds at the first backup."""
    database: str = "books"
    _orders: dict[str, int] = field(default_factory=dict)

    def run(self, *statements: str) -> None:
        self.server.run(self.database, *statements)

    def create(self) -> None:
        text = (HERE / "ledger.sql").read_text()
        begin = self.begin.isoformat()
        self.server.create(self.database, *(text.format(name=name, begin=begin) for name in self.fills))

    def grow(self, until: datetime, but: frozenset[str] = frozenset()) -> None:
        text = (HERE / "ledger_growth.sql").read_text()
        statements = []
        for name, fills in self.fills.items():
            step = DAYS * 86400 * 2 // fills
            first = self._orders.get(name, 0) + 1
            last = int((until - self.begin).total_seconds() - 180) // step
            if name not in but and last >= first:
                statements.append(
                    text.format(name=name, first=first, last=last, step=step, begin=self.begin.isoformat())
                )
                self._orders[name] = last
        self.run(*statements)


SQLITE = """
CREATE TABLE {name}_instruments (symbol TEXT PRIMARY KEY NOT NULL, title TEXT NOT NULL);
CREATE TABLE {name}_entries (
    id INTEGER PRIMARY KEY AUTOINCREMENT, symbol TEXT NOT NULL REFERENCES {name}_instruments, amount REAL NOT NULL,
    shares INTEGER NOT NULL, memo TEXT, booked_at TEXT NOT NULL
);
CREATE INDEX {name}_by_time ON {name}_entries (booked_at);
CREATE VIEW {name}_totals AS SELECT symbol, sum(amount) AS amount FROM {name}_entries GROUP BY symbol;
"""
SYMBOLS = ("AAPL", "MSFT", "NESN", "SAP", "ASML")
ENTRIES_A_DAY = 8


@dataclass
class Ledger:
    """Tables of an SQLite database, with a prefix for each copy."""

    path: Path
    begin: datetime
    names: list[str] = field(default_factory=list)
    _entries: int = 0

    def run(self, script: str) -> None:
        with closing(sqlite3.connect(self.path)) as connection:
            connection.executescript(script)

    def create(self) -> None:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            for name in self.names:
                connection.executescript(SQLITE.format(name=name))
                rows = [(symbol, f"{symbol} Société Générale") for symbol in SYMBOLS]
                connection.executemany(f"INSERT INTO {name}_instruments VALUES (?, ?)", rows)

    def grow(self, until: datetime, but: frozenset[str] = frozenset()) -> None:
        last = int((until - self.begin) / timedelta(days=1) * ENTRIES_A_DAY)
        rows = [
            (
                SYMBOLS[n % 5],
                round(10 + n * 7919 % 1000 / 10, 2),
                1 + n % 40,
                f"memo {n}" if n % 10 else None,
                self._at(n),
            )
            for n in range(self._entries + 1, last + 1)
        ]
        with closing(sqlite3.connect(self.path)) as connection, connection:
            for name in set(self.names) - but:
                insert = f"INSERT INTO {name}_entries (symbol, amount, shares, memo, booked_at) VALUES (?, ?, ?, ?, ?)"
                connection.executemany(insert, rows)
        self._entries = last

    def _at(self, n: int) -> str:
        return (self.begin + n * timedelta(days=1) / ENTRIES_A_DAY).isoformat(timespec="seconds")


QUOTES, POSITIONS, SESSIONS = 150, 100, 20


@dataclass
class Cache:
    """Databases of a Redis server: quotes in JSON that expire, positions as hashes, sessions."""

    server: RedisServer
    databases: dict[str, int] = field(default_factory=dict)

    def grow(self, until: datetime, but: frozenset[str] = frozenset()) -> None:
        for name, number in self.databases.items():
            if name in but:
                continue
            at = (until - timedelta(minutes=1)).isoformat(timespec="seconds")
            commands = [("SET", f"quote:{n:03}", self.quote(n, at), "EX", 30 * 86400) for n in range(QUOTES)]
            commands += [
                (
                    "HSET",
                    f"position:{n:03}",
                    "symbol",
                    SYMBOLS[n % 5],
                    "quantity",
                    10 + n,
                    "price",
                    f"{90 + n}.50",
                    "at",
                    at,
                )
                for n in range(POSITIONS)
            ]
            commands += [("SET", f"session:{n:03}", f"user {n}", "EX", 20 * 86400) for n in range(SESSIONS)]
            self.server.many(commands, db=number)

    @staticmethod
    def quote(n: int, at: str) -> str:
        bid = 100 + n * 7 % 50
        return json.dumps({"symbol": f"S{n:03}", "bid": bid, "ask": bid + 0.25, "volume": 1000 + n, "at": at})


TRADES_A_DAY = 12


@dataclass
class Feeds:
    """Folders of files: trades as CSV, events as JSON lines, bars as Parquet."""

    root: Path
    begin: datetime
    names: list[str] = field(default_factory=list)

    def create(self) -> None:
        for name in self.names:
            (self.root / name).mkdir(parents=True)

    def grow(self, until: datetime, but: frozenset[str] = frozenset()) -> None:
        count = int((until - self.begin) / timedelta(days=1) * TRADES_A_DAY)
        times = [
            (self.begin + n * timedelta(days=1) / TRADES_A_DAY).isoformat(timespec="seconds") for n in range(count)
        ]
        lines = [
            f"{n},{SYMBOLS[n % 5]},{('Zürich', 'Köln')[n % 2]},{100 + n * 7919 % 500 / 10},{1 + n % 9},{at}"
            for n, at in enumerate(times)
        ]
        events = [json.dumps({"id": n, "kind": ("open", "close")[n % 2], "at": at}) for n, at in enumerate(times)]
        bars = pa.table(
            {
                "at": pa.array([datetime.fromisoformat(at) for at in times], pa.timestamp("us", "UTC")),
                "open": [100.0 + n % 30 for n in range(count)],
                "high": [101.0 + n % 30 for n in range(count)],
                "low": [99.0 + n % 30 for n in range(count)],
                "volume": [1000 + n % 70 for n in range(count)],
            }
        )
        for name in set(self.names) - but:
            folder = self.root / name
            (folder / "trades.csv").write_text("\n".join(["id,symbol,venue,price,quantity,at", *lines]) + "\n")
            (folder / "events.jsonl").write_text("\n".join(events) + "\n")
            pq.write_table(bars, folder / "bars.parquet")
            for path in folder.iterdir():
                stamp = math.floor((until - timedelta(minutes=1)).timestamp())
                os.utime(path, (stamp, stamp))


def now() -> datetime:
    return datetime.now(UTC)
