"""The ledger, in SQLite: orders, positions, cash, performance.

A position is the sum of its orders' fills, and the cash is what was started with less what was paid.
"""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

from . import SYMBOLS

STARTING_CASH_CENTS = 50_000_000_000
SEED_ORDERS = 30_000

SCHEMA = """
CREATE TABLE orders (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    symbol TEXT NOT NULL,
    side INTEGER NOT NULL CHECK (side IN (-1, 1)),
    quantity INTEGER NOT NULL CHECK (quantity > 0),
    filled INTEGER NOT NULL DEFAULT 0 CHECK (filled BETWEEN 0 AND quantity),
    price_cents INTEGER NOT NULL,
    status TEXT NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'filled', 'cancelled')),
    note TEXT,
    placed_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now'))
);
CREATE INDEX orders_by_symbol ON orders (symbol, status);
CREATE INDEX open_orders ON orders (id) WHERE status = 'open';
CREATE TABLE positions (
    symbol TEXT PRIMARY KEY,
    quantity INTEGER NOT NULL DEFAULT 0,
    last_price_cents INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE portfolio (id INTEGER PRIMARY KEY CHECK (id = 1), cash_cents INTEGER NOT NULL);
CREATE TABLE performance (
    taken_at TEXT NOT NULL,
    symbol TEXT NOT NULL,
    exposure_cents INTEGER,
    volatility REAL,
    model BLOB,
    PRIMARY KEY (taken_at, symbol)
);
CREATE INDEX performance_by_symbol ON performance (symbol, taken_at);
CREATE VIEW exposure AS SELECT symbol, quantity * last_price_cents AS cents FROM positions;
CREATE TRIGGER fill AFTER UPDATE OF filled ON orders WHEN new.filled <> old.filled BEGIN
    UPDATE positions SET quantity = quantity + new.side * (new.filled - old.filled), last_price_cents = new.price_cents
    WHERE symbol = new.symbol;
    UPDATE portfolio SET cash_cents = cash_cents - new.side * (new.filled - old.filled) * new.price_cents;
END;
"""

INVARIANT = f"""
SELECT (SELECT count(*) FROM positions AS p WHERE quantity <> (
            SELECT coalesce(sum(side * filled), 0) FROM orders WHERE symbol = p.symbol))
     + ((SELECT cash_cents FROM portfolio) <> {STARTING_CASH_CENTS} - (
            SELECT coalesce(sum(side * filled * price_cents), 0) FROM orders))
"""
"""Counts what does not add up: positions, and the cash. Nothing in a consistent state."""


def create_ledger(path: Path) -> None:
    """Make the ledger, in WAL mode."""
    ledger = open_ledger(path)
    ledger.executescript(SCHEMA)
    with ledger:
        ledger.executemany("INSERT INTO positions VALUES (?, 0, ?)", [(s, 10_000) for s in SYMBOLS])
        ledger.execute("INSERT INTO portfolio VALUES (1, ?)", (STARTING_CASH_CENTS,))
        trader = Trader(ledger, random.Random(7))  # noqa: S311  a simulation needs no secrecy
        trader.place(SEED_ORDERS)
        trader.fill(SEED_ORDERS // 2)
        for _ in range(50):
            trader.measure()
    ledger.close()


def open_ledger(path: Path) -> sqlite3.Connection:
    """Open the ledger as the application does."""
    ledger = sqlite3.connect(path, timeout=30)
    ledger.execute("PRAGMA journal_mode = WAL")
    ledger.execute("PRAGMA synchronous = NORMAL")
    return ledger


class Trader:
    """Places, fills and cancels orders."""

    def __init__(self, ledger: sqlite3.Connection, chance: random.Random) -> None:
        self._ledger, self._chance = ledger, chance

    def place(self, count: int) -> None:
        """Place orders."""
        chance = self._chance
        rows = [
            (
                chance.choice(SYMBOLS),
                chance.choice((-1, 1)),
                chance.randint(1, 200),
                chance.randint(9_000, 11_000),
                chance.choice((None, None, "rebalance", "stop loss", "Auftrag von Zoë")),
            )
            for _ in range(count)
        ]
        self._ledger.executemany(
            "INSERT INTO orders (symbol, side, quantity, price_cents, note) VALUES (?, ?, ?, ?, ?)", rows
        )

    def fill(self, count: int) -> None:
        """Fill the oldest open orders; the trigger moves positions and cash."""
        self._ledger.execute(
            "UPDATE orders SET filled = quantity, status = 'filled' WHERE id IN "
            "(SELECT id FROM orders WHERE status = 'open' ORDER BY id LIMIT ?)",
            (count,),
        )

    def cancel(self, count: int, order: str = "id DESC") -> None:
        """Cancel open orders, the newest ones first."""
        self._ledger.execute(
            "UPDATE orders SET status = 'cancelled' WHERE id IN "
            f"(SELECT id FROM orders WHERE status = 'open' ORDER BY {order} LIMIT ?)",
            (count,),
        )

    def measure(self) -> None:
        """Note the performance of each symbol."""
        self._ledger.execute(
            "INSERT OR IGNORE INTO performance SELECT strftime('%Y-%m-%d %H:%M:%f', 'now') || hex(randomblob(2)), "
            "symbol, cents, ?, NULL FROM exposure",
            (self._chance.random(),),
        )

    def purge(self) -> int:
        """Cancel cheap orders, delete the cancelled ones and a tenth of the performance; return how many rows went."""
        self.cancel(2_000, order="price_cents")
        orders = self._ledger.execute("DELETE FROM orders WHERE status = 'cancelled'")
        measured = self._ledger.execute(
            "DELETE FROM performance WHERE rowid IN (SELECT rowid FROM performance ORDER BY rowid "
            "LIMIT (SELECT count(*) / 10 FROM performance))"
        )
        return orders.rowcount + measured.rowcount
