"""A small trading application that keeps writing: the state that the demo backs up, loses and gets back.

Run as a process of its own, with nothing but the standard library, as any application would be; it obeys words on its
standard input: `pause`, `resume`, `purge`, `retrain`, `stop`, each answered with a line of JSON on its output.

An invariant holds in every committed state: a position is the sum of its orders' fills, and the cash is what was
started with less what was paid. A copy that mixes two moments breaks it.
"""

from __future__ import annotations

import json
import os
import random
import selectors
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

SYMBOLS = ("ACME", "BOLT", "CRUX", "DUNE", "ECHO", "FLUX", "GRIT", "HALO")
STARTING_CASH_CENTS = 50_000_000_000
SEED_ORDERS = 30_000
MODEL_BYTES = 1_500_000
BEAT_SECONDS = 0.02

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


def create_application(folder: Path) -> None:
    """Make the application's state: a ledger in WAL mode, configuration, models."""
    folder.mkdir(parents=True)
    _create_configuration(folder / "config")
    _create_models(folder / "models")
    ledger = open_ledger(folder / "ledger.db")
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


def _create_configuration(folder: Path) -> None:
    folder.mkdir()
    for symbol in SYMBOLS:
        limits = {"symbol": symbol, "limits": {"position": 5_000, "order": 200}, "venues": ["north", "süd"]}
        (folder / f"{symbol.lower()}.json").write_text(json.dumps(limits, indent=2, ensure_ascii=False), "utf-8")
    (folder / "strategies").mkdir()
    (folder / "strategies" / "momentum.json").write_text(json.dumps({"window": 20, "threshold": 0.015}), "utf-8")


def _create_models(folder: Path) -> None:
    (folder / "archive").mkdir(parents=True)
    for name in ("momentum.bin", "reversal.bin", "archive/momentum-2024.bin"):
        (folder / name).write_bytes(os.urandom(MODEL_BYTES))
    (folder / "current").symlink_to("momentum.bin")


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


class Application:
    """The process: a beat of trades, and orders from outside."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ledger = open_ledger(folder / "ledger.db")
        self._chance = random.Random()  # noqa: S311  a simulation needs no secrecy
        self._trader = Trader(self._ledger, self._chance)
        self._transactions = 0
        self._paused = False

    def run(self) -> None:
        """Trade until `stop` comes, or the one who started this is gone."""
        words: dict[str, Callable[[], dict[str, int]]] = {
            "pause": lambda: self._pause(True),
            "resume": lambda: self._pause(False),
            "purge": self._purge,
            "retrain": self._retrain,
        }
        with selectors.DefaultSelector() as inbox:
            inbox.register(sys.stdin, selectors.EVENT_READ)
            while True:
                if not inbox.select(None if self._paused else BEAT_SECONDS):
                    self._beat()
                    continue
                word = sys.stdin.readline().strip()
                if word not in words:
                    break
                print(json.dumps(words[word]() | {"transactions": self._transactions}), flush=True)
        self._ledger.close()

    def _beat(self) -> None:
        with self._ledger:
            self._trader.place(self._chance.randint(1, 20))
            self._trader.fill(self._chance.randint(1, 15))
            self._trader.cancel(self._chance.randint(0, 2))
            if self._transactions % 10 == 0:
                self._trader.measure()
        self._transactions += 1

    def _pause(self, paused: bool) -> dict[str, int]:
        self._paused = paused
        return {}

    def _purge(self) -> dict[str, int]:
        with self._ledger:
            rows = self._trader.purge()
        retired = self._folder / "models" / "archive" / "momentum-2024.bin"
        files = [path for path in (retired, self._folder / "config" / "halo.json") if path.exists()]
        for path in files:
            path.unlink()
        return {"rows": rows, "files": len(files)}

    def _retrain(self) -> dict[str, int]:
        """Change a model in the middle, add another one, and change a setting."""
        models = self._folder / "models"
        with (models / "momentum.bin").open("r+b") as model:
            model.seek(MODEL_BYTES // 3)
            model.write(os.urandom(1_000))
        (models / f"challenger-{self._transactions}.bin").write_bytes(os.urandom(MODEL_BYTES // 2))
        setting = {"window": self._chance.randint(10, 50), "threshold": 0.02}
        (self._folder / "config" / "strategies" / "momentum.json").write_text(json.dumps(setting), "utf-8")
        return {"files": 3}


if __name__ == "__main__":
    Application(Path(sys.argv[1])).run()
