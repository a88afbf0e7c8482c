"""Databases of orders: made, changed, compared. `python -m benchmarks.ledgers make PATH ROWS` is run as a child."""

from __future__ import annotations

import random
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

BATCH_ROWS = 50_000
_SYMBOLS = [f"{chr(65 + n % 26)}{chr(65 + n // 26 % 26)}USD" for n in range(400)]
_STATES = ("open", "filled", "cancelled")
_SCHEMA = """CREATE TABLE orders (
    id INTEGER PRIMARY KEY, symbol TEXT NOT NULL, side INTEGER NOT NULL, quantity INTEGER NOT NULL,
    price REAL NOT NULL, status TEXT NOT NULL, placed_us INTEGER NOT NULL, reference TEXT NOT NULL, note TEXT)"""


def make(path: Path, rows: int) -> None:
    """Make a database of about 200 bytes a row."""
    with closing(sqlite3.connect(path)) as ledger, ledger:
        ledger.execute("PRAGMA journal_mode=WAL")
        ledger.execute(_SCHEMA)
        for first in range(1, rows + 1, BATCH_ROWS):
            stop = min(first + BATCH_ROWS, rows + 1)
            ledger.executemany("INSERT INTO orders VALUES (?,?,?,?,?,?,?,?,?)", _orders(first, stop))
    with closing(sqlite3.connect(path)) as ledger:
        ledger.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _orders(first: int, stop: int) -> Iterator[tuple[object, ...]]:
    chance = random.Random(first)
    for number in range(first, stop):
        drawn = chance.getrandbits(128)
        reference = f"{drawn:032x}"
        yield (
            number,
            _SYMBOLS[drawn % 400],
            1 if drawn & 1 else -1,
            1 + drawn % 9_999,
            round((drawn >> 20) % 5_000_000 / 100, 2),
            _STATES[drawn % 3],
            1_700_000_000_000_000 + number * 997 + drawn % 900,
            reference,
            _note(drawn, reference) if drawn % 4 else None,
        )


def _note(drawn: int, reference: str) -> str:
    return (
        f"order of desk {drawn % 17} routed by {reference[:6]} through gateway {drawn % 5}; checked twice by "
        f"the desk and once by risk, confirmed by {reference[6:12]}, settled in account {drawn % 977} of the custodian"
    )


def change(path: Path, seed: int, rows: int) -> None:
    """Change a thousandth of the rows, delete ten, add ten."""
    chance = random.Random(seed)
    with closing(sqlite3.connect(path)) as ledger, ledger:
        some = [(f"changed {seed}", chance.randint(1, rows)) for _ in range(max(1, rows // 1000))]
        ledger.executemany("UPDATE orders SET note = ? WHERE id = ?", some)
        ledger.executemany("DELETE FROM orders WHERE id = ?", [(chance.randint(1, rows),) for _ in range(10)])
        start = 10 * rows + seed * 100
        ledger.executemany("INSERT INTO orders VALUES (?,?,?,?,?,?,?,?,?)", _orders(start, start + 10))


def differences(one: Path, two: Path, only: int | None = None) -> list[str]:
    """Compare the rows of two ledgers, in both directions; of one row where `only` names it."""
    where = "" if only is None else f"WHERE id = {only}"
    with closing(sqlite3.connect(one)) as ledger:
        ledger.execute("ATTACH ? AS other", (str(two),))
        left, right = (f"SELECT * FROM {name}.orders" for name in ("main", "other"))
        counts = [
            ledger.execute(f"SELECT count(*) FROM ({a} {w} EXCEPT {b})").fetchone()[0]
            for a, b, w in ((left, right, where), (right, left, ""))
        ]
    return [f"{count} rows are only in {path}" for count, path in zip(counts, (one, two), strict=True) if count]


def main(verb: str, *words: str) -> int:
    """Do what the command line says."""
    if verb == "make":
        make(Path(words[0]), int(words[1]))
    elif verb == "change":
        change(Path(words[0]), int(words[1]), int(words[2]))
    elif wrong := differences(Path(words[0]), Path(words[1]), *map(int, words[2:])):
        print(*wrong, sep="\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
