"""Faults of live state: what goes wrong in applications, each as a function that makes a good copy of the state bad.

The application goes on meanwhile: each copy has grown since the last good backup, unless the fault is that it did not.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.proof.live import LARGE_FILLS, SMALL_FILLS, Books, Cache, Feeds, Ledger


def mark_of(store: str, name: str, collection: str = "") -> re.Pattern[str]:
    """Find the name of a copy in a sentence, and no other that begins or ends like it."""
    word = re.escape(collection.removeprefix("cache/") if store == "cache" else name)
    if store == "ledger":
        word += "_(?:instruments|entries|totals|by_time)"
    return re.compile(rf"(?<![a-z0-9_]){word}(?![a-z0-9_])")


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        name: The schema, prefix, database or folder that it is planted in, and what it is known by.
        store: The source it is in.
        what: What went wrong, for people.
        collection: What of the copy is bad; a suite is suggested for it.
        keys: The keys or the file in it that are bad; None where it is a table.
        in_rows: Whether rows are bad, which suites are about, and not only definitions.
        stopped: Whether nothing was written to the copy since the last good backup.
        unknowable: Why it cannot be known with the careful suite, where it cannot.
    """

    name: str
    store: str
    what: str
    collection: str
    plant: Callable[[Live], None]
    keys: str | None = None
    in_rows: bool = True
    stopped: bool = False
    fills: int = SMALL_FILLS
    unknowable: str = ""

    @property
    def mark(self) -> re.Pattern[str]:
        """Finds its name in a sentence."""
        return mark_of(self.store, self.name, self.collection)


@dataclass
class Live:
    """All of the live state."""

    books: Books
    ledger: Ledger
    cache: Cache
    feeds: Feeds


def _books(
    name: str,
    what: str,
    *sql: str,
    table: str = "fills",
    in_rows: bool = True,
    stopped: bool = False,
    fills: int = SMALL_FILLS,
) -> Fault:
    """A fault in a schema, whose name stands for `{s}` in the statements."""

    def plant(live: Live) -> None:
        live.books.run(*(one.format(s=name) for one in sql))

    return Fault(name, "books", what, f"books/{name}.{table}", plant, None, in_rows, stopped, fills)


def _defined(name: str, what: str, *sql: str) -> Fault:
    """A fault in the definitions of a schema."""
    return _books(name, what, *sql, in_rows=False)


_UNCHECKED = "SET session_replication_role = replica"
_CHECKED = "RESET session_replication_role"
_SHIFT = "UPDATE {s}.fills SET filled_at = filled_at "

BOOKS = (
    _books("lost_half", "half of all rows are gone", "DELETE FROM {s}.fills WHERE id % 2 = 0", fills=LARGE_FILLS),
    _books("lost_tenth", "a tenth of the rows is gone", "DELETE FROM {s}.fills WHERE id % 10 = 3"),
    _books(
        "lost_ten", "10 of 50,000 rows are gone",
        "DELETE FROM {s}.fills WHERE id % 4000 = 17 AND id < 40000", fills=LARGE_FILLS,
    ),
    _books(
        "duplicated", "5 % of the rows are there twice, under other keys",
        "INSERT INTO {s}.fills (order_id, trade, quantity, price, amount, fee, slippage, venue, note, filled_at) SELECT"
        " order_id, trade || '-2', quantity, price, amount, fee, slippage, venue, note, filled_at FROM {s}.fills"
        " WHERE id % 20 = 0",
    ),
    _books("retyped", "a price became text", "ALTER TABLE {s}.fills ALTER price TYPE text"),
    _books("floated", "money became floating point", "ALTER TABLE {s}.fills ALTER price TYPE double precision"),
    _books("zone_ahead", "all times are 2 hours ahead", _SHIFT + "+ interval '2 hours'"),
    _books("zone_behind", "all times are 2 hours behind", _SHIFT + "- interval '2 hours'"),
    _books("zone_west", "all times are 5 hours behind", _SHIFT + "- interval '5 hours'"),
    _books(
        "zone_none", "times lost their zone",
        "ALTER TABLE {s}.fills ALTER filled_at TYPE timestamp USING filled_at AT TIME ZONE 'Europe/Zurich'",
    ),
    _books("text_cut", "text is cut to 8 letters", "UPDATE {s}.accounts SET owner = left(owner, 8)", table="accounts"),
    _books("decimals_cut", "prices lost their decimals", "UPDATE {s}.fills SET price = trunc(price)"),
    _books("negative", "100 fees are negative", "UPDATE {s}.fills SET fee = -fee WHERE id <= 100"),
    _books("emptied", "a table is empty", "DELETE FROM {s}.fills"),
    _books("blanked", "a third of the texts is empty", "UPDATE {s}.fills SET venue = '' WHERE id % 3 = 0"),
    _books(
        "hundredfold", "all balances are times 100",
        "UPDATE {s}.accounts SET balance = balance * 100", table="accounts",
    ),
    _books(
        "hundredfold_few", "100 of 50,000 prices are times 100",
        "UPDATE {s}.fills SET price = price * 100 WHERE id % 500 = 7 AND id < 50000", fills=LARGE_FILLS,
    ),
    _books("nulls", "twice as many NULLs", "UPDATE {s}.fills SET note = NULL WHERE id % 10 = 5"),
    _books("swapped", "two columns are swapped", "UPDATE {s}.fills SET price = quantity, quantity = price"),
    _books(
        "mojibake", "UTF-8 was read as Latin-1",
        "UPDATE {s}.accounts SET owner = convert_from(convert_to(owner, 'UTF8'), 'LATIN1')", table="accounts",
    ),
    _books(
        "yesterday", "it is yesterday's data",
        "DELETE FROM {s}.fills f USING {s}.orders o WHERE o.id = f.order_id AND o.placed_at > now() - interval '1 day'",
        "DELETE FROM {s}.orders WHERE placed_at > now() - interval '1 day'",
    ),
    _books("stale", "nothing was written for three days", stopped=True),
    _books("not_a_number", "NaN in numeric", "UPDATE {s}.fills SET fee = 'NaN' WHERE id % 400 = 1"),
    _books("float_nan", "NaN in floating point", "UPDATE {s}.fills SET slippage = 'NaN' WHERE id % 400 = 1"),
    _books("infinite", "infinities in floating point", "UPDATE {s}.fills SET slippage = 'Infinity' WHERE id % 400 = 1"),
    _books("infinite_time", "infinite times", "UPDATE {s}.fills SET filled_at = 'infinity' WHERE id % 400 = 1"),
    _books(
        "orphans", "5 fills have no order (the key was off for a while)",
        _UNCHECKED, "DELETE FROM {s}.orders WHERE id IN (10, 20, 30, 40, 50)", _CHECKED, table="orders",
    ),
    _books(
        "unbalanced", "5 rows break a CHECK that came as NOT VALID",
        "UPDATE {s}.fills SET quantity = 0 WHERE id <= 5",
        "ALTER TABLE {s}.fills ADD CONSTRAINT positive CHECK (quantity > 0) NOT VALID",
    ),
    _defined("key_gone", "the primary key was dropped", "ALTER TABLE {s}.fills DROP CONSTRAINT fills_pkey"),
    _defined("unique_gone", "a unique key was dropped", "ALTER TABLE {s}.fills DROP CONSTRAINT fills_trade_key"),
    _defined("index_gone", "an index was dropped", "DROP INDEX {s}.fills_by_time"),
    _defined(
        "check_gone", "a CHECK was dropped",
        "ALTER TABLE {s}.orders DROP CONSTRAINT orders_side_check"
    ),
    _defined("foreign_gone", "a foreign key was dropped", "ALTER TABLE {s}.fills DROP CONSTRAINT fills_order_id_fkey"),
    _defined(
        "null_allowed", "NOT NULL was dropped, and a default",
        "ALTER TABLE {s}.accounts ALTER balance DROP NOT NULL, ALTER balance DROP DEFAULT"
    ),
    _defined("view_other", "a view says something else",
        "CREATE OR REPLACE VIEW {s}.exposure AS SELECT account_id, sum(quantity)::numeric AS amount FROM {s}.orders"
        " GROUP BY 1"),
    _defined("function_other", "a function computes something else",
        "CREATE OR REPLACE FUNCTION {s}.charge(amount numeric) RETURNS numeric LANGUAGE sql IMMUTABLE AS"
        " 'SELECT round(amount * 0.01, 4)'"),
    _defined("trigger_gone", "a trigger was dropped", "DROP TRIGGER fills_stamp ON {s}.fills"),
    _defined("sequence_behind", "a sequence is behind its table", "SELECT setval('{s}.fills_id_seq', 7)"),
    _books("table_gone", "a table was dropped", "DROP TABLE {s}.fills CASCADE"),
)  # fmt: skip


def _ledger(
    name: str, what: str, sql: str, table: str = "entries", in_rows: bool = True, stopped: bool = False
) -> Fault:
    """A fault in tables of SQLite, whose prefix stands for `{s}`."""

    def plant(live: Live) -> None:
        live.ledger.run(sql.format(s=name))

    return Fault(name, "ledger", what, f"ledger/{name}_{table}", plant, None, in_rows, stopped)


LEDGER = (
    _ledger("lite_lost", "a tenth of the rows is gone", "DELETE FROM {s}_entries WHERE id % 10 = 3"),
    _ledger("lite_retyped", "10 amounts are text", "UPDATE {s}_entries SET amount = 'n/a' WHERE id <= 10"),
    _ledger("lite_bytes", "text that is not UTF-8",
        "UPDATE {s}_entries SET memo = CAST(x'5AFC72696368' AS TEXT) WHERE id <= 10"),
    _ledger("lite_orphans", "rows refer to what is not there",
        "PRAGMA foreign_keys = OFF; DELETE FROM {s}_instruments WHERE symbol = 'SAP'", table="instruments"),
    _ledger("lite_index", "an index was dropped", "DROP INDEX {s}_by_time", in_rows=False),
    _ledger("lite_infinite", "infinities", "UPDATE {s}_entries SET amount = 9e999 WHERE id % 100 = 1"),
    _ledger("lite_negative", "20 amounts are negative", "UPDATE {s}_entries SET amount = -amount WHERE id <= 20"),
    _ledger("lite_emptied", "a table is empty", "DELETE FROM {s}_entries"),
    _ledger("lite_zone", "times lost their zone", "UPDATE {s}_entries SET booked_at = substr(booked_at, 1, 19)"),
    _ledger("lite_sequence", "the next id was given out before",
        "UPDATE sqlite_sequence SET seq = 5 WHERE name = '{s}_entries'", in_rows=False),
    _ledger("lite_stale", "nothing was written for three days", "", stopped=True),
)  # fmt: skip


def _cache(
    name: str, what: str, change: Callable[[Cache, int], None], number: int, keys: str, stopped: bool = False
) -> Fault:
    def plant(live: Live) -> None:
        change(live.cache, number)

    return Fault(name, "cache", what, f"cache/db{number}", plant, keys, stopped=stopped)


def _many(*commands: Callable[[int], tuple[str | int, ...]], count: int) -> Callable[[Cache, int], None]:
    """Do the commands for the first so many keys."""

    def change(cache: Cache, number: int) -> None:
        cache.server.many([command(n) for n in range(count) for command in commands], db=number)

    return change


def _cut_json(cache: Cache, number: int) -> None:
    text = Cache.quote(0, "2026-01-01T00:00:00+00:00")[:31]
    cache.server.many([("SET", f"quote:{n:03}", text, "KEEPTTL") for n in range(10)], db=number)


CACHE = (
    _cache("fields_cut", "10 hashes lost a field",
        _many(lambda n: ("HDEL", f"position:{n:03}", "price"), count=10), 2, "position:*"),
    _cache("json_cut", "10 JSON values are cut", _cut_json, 3, "quote:*"),
    _cache("ttl_lost", "keys do not expire any more",
        _many(lambda n: ("PERSIST", f"quote:{n:03}"), count=150), 4, "quote:*"),
    _cache("keys_lost", "a third of the keys is gone",
        _many(lambda n: ("DEL", f"quote:{n:03}"), count=50), 5, "quote:*"),
    _cache("quotes_stale", "quotes are three days old", _many(count=0), 6, "quote:*", stopped=True),
    _cache("field_text", "a number became text",
        _many(lambda n: ("HSET", f"position:{n:03}", "quantity", "many"), count=10), 7, "position:*"),
    _cache("retyped_key", "hashes became strings",
        _many(lambda n: ("DEL", f"position:{n:03}"), lambda n: ("SET", f"position:{n:03}", "{}"), count=10),
        8, "position:*"),
)  # fmt: skip


def _feeds(name: str, what: str, file: str, change: Callable[[Path], object], stopped: bool = False) -> Fault:
    def plant(live: Live) -> None:
        path = live.feeds.root / name / file
        stamp = path.stat().st_mtime_ns
        change(path)
        if path.exists():
            os.utime(path, ns=(stamp, stamp))

    return Fault(name, name, what, f"{name}/tree", plant, file, stopped=stopped)


def _cut(keep: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(keep(path.read_bytes()))


def _without_column(data: bytes) -> bytes:
    return b"".join(line.rpartition(b",")[0] + b"\n" for line in data.splitlines())


def _with_broken_line(data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    lines[100] = b'{"id"\n'
    return b"".join(lines)


FEEDS = (
    _feeds("csv_halved", "a CSV file is cut in half", "trades.csv", _cut(lambda data: data[: len(data) // 2])),
    _feeds("csv_columns", "a CSV file lost a column", "trades.csv", _cut(_without_column)),
    _feeds("parquet_cut", "a Parquet file lost its footer", "bars.parquet", _cut(lambda data: data[:-100])),
    _feeds("line_broken", "a line of JSON is cut", "events.jsonl", _cut(_with_broken_line)),
    _feeds("latin", "a CSV file is not UTF-8", "trades.csv", _cut(lambda data: data.decode().encode("latin-1"))),
    _feeds("file_emptied", "a file is empty", "trades.csv", _cut(lambda data: b"")),
    _feeds("file_gone", "a file is gone", "bars.parquet", Path.unlink),
    _feeds("files_old", "files are three days old", "trades.csv", lambda path: None, stopped=True),
)

FAULTS = (*BOOKS, *LEDGER, *CACHE, *FEEDS)
SOUND = {"books": "sound", "ledger": "lite_sound", "cache": "cache_sound", "feeds": "feed_sound"}
"""Copies without any fault: nothing may be found there."""
SOUND_MARKS = tuple(mark_of(store, name, "cache/db1") for store, name in SOUND.items())
