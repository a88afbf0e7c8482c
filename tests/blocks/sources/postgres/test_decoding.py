"""Keys are found in the output of logical decoding, whatever values stand around them; the rest is refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.sources.postgres.cdc import decoding
from blocks.sources.postgres.cdc.decoding import ChangedKeys, ChangeFormat, Keys
from blocks.sources.postgres.cdc.logical_changes import Prefix, Snapshot
from blocks.sources.postgres.cdc.table_identity import identities
from blocks.sources.postgres.schema.tables import read_tables
from tests.postgres_server import PostgresServer

ORDERS = ChangeFormat("public.orders", (("id", "integer"),), (0,), (0,))
ODD = ChangeFormat(
    '"Odd s"."T""q: x"',
    (("t", "text"), ('"B"', "integer"), ("bits", "bit"), ("a", '"Odd s"."my t"')),
    (1, 3),
    (1, 0),
)
ROW = 't[text]:{t} "B"[integer]:{b} bits[bit]:B\'101\' a["Odd s"."my t"]:{a} rest[text]:\'{rest}\''


def joined(rows: Sequence[bytes]) -> bytes:
    return b"\0" + b"\0".join(rows) + b"\0"


def keys(written: ChangeFormat, *rows: str) -> Keys | None:
    return written.keys(joined([row.encode() for row in rows]))


def moved(*keys: tuple[str, ...]) -> Keys:
    return Keys(moved=set(keys))


def test_every_kind_of_change_names_its_keys() -> None:
    assert keys(
        ORDERS,
        "table public.orders: INSERT: id[integer]:1 v[text]:'x'",
        "table public.orders: UPDATE: id[integer]:-2 v[text]:unchanged-toast-datum",
        "table public.orders: UPDATE: old-key: id[integer]:3 new-tuple: id[integer]:4 v[text]:null",
        "table public.orders: DELETE: id[integer]:5",
        "table public.others: DELETE: id[integer]:6",
    ) == Keys({("-2",)}, {("1",), ("3",), ("4",), ("5",)})


def test_rows_that_kept_their_key_are_told_from_those_that_came_or_went() -> None:
    change = "table " + ODD.table + ": "
    row = ROW.format(t="null", b="{}", a="'x'", rest="old-key: new-tuple: ")
    rows = [change + "UPDATE: " + row.format(n) for n in (1, 2, 1)]
    assert keys(ODD, *rows) == Keys({("x", "1"), ("x", "2")})
    assert keys(ODD, *rows, change + "INSERT: " + row.format(1)) == Keys({("x", "1"), ("x", "2")}, {("x", "1")})


def test_keys_come_in_the_order_of_the_key() -> None:
    change = "table " + ODD.table + ": "
    row = ROW.format(t="unchanged-toast-datum", b=7, a="'it''s'", rest="")
    old = """"B"[integer]:8 a["Odd s"."my t"]:'o'"""
    assert keys(ODD, f"{change}UPDATE: old-key: {old} new-tuple: {row}") == moved(("it's", "7"), ("o", "8"))
    assert keys(ODD, f"{change}DELETE: {old}") == moved(("o", "8"))


@pytest.mark.parametrize(
    "row",
    [
        "table public.orders: DELETE: (no-tuple-data)",
        "table public.orders: UPDATE: (no-tuple-data)",
        "table public.orders: INSERT: id[bigint]:1",
        "table public.orders: INSERT: other[integer]:1 id[integer]:2",
        "table public.orders: UPDATE: id[integer]:unchanged-toast-datum v[text]:'x'",
        "table public.orders: INSERT: id[integer]:null",
        "table public.orders: INSERT: id[integer]:'unended",
        "table public.orders: UPDATE: old-key: id[integer]:1 id[integer]:2",
        "table public.orders: SOMETHING: id[integer]:1",
    ],
)
def test_a_row_that_names_no_key_is_seen(row: str) -> None:
    assert keys(ORDERS, "table public.orders: INSERT: id[integer]:1", row) is None


def test_text_that_looks_like_a_change_is_text() -> None:
    text = "it''s\ntable public.orders: INSERT: id[integer]:1\nCOMMIT 7"
    row = "table " + ODD.table + ": INSERT: " + ROW.format(t=f"'{text}'", b=7, a="'x'", rest=text)
    touched = ChangedKeys({"o": ORDERS, "odd": ODD}, 10)
    touched.add(joined([row.encode()]))
    assert touched.keys == {"o": Keys(), "odd": moved(("x", "7"))}


def test_a_truncated_table_is_not_known_any_more() -> None:
    touched = ChangedKeys({"o": ORDERS, "odd": ODD}, 10)
    touched.add(joined([b"table public.orders: INSERT: id[integer]:1", b"BEGIN 7"]))
    touched.add(joined([b'table public.x, "Odd s"."T""q: x", "A, b".c: TRUNCATE: (no-flags)']))
    assert touched.keys == {"o": moved(("1",))}
    touched.add(joined([b"table public.orders: TRUNCATE: restart_seqs cascade"]))
    touched.add(joined([b"table public.orders: INSERT: id[integer]:1"]))
    assert touched.keys == {}


def test_tables_with_too_many_keys_are_let_go() -> None:
    others = ChangeFormat("public.others", (("id", "integer"),), (0,), (0,))
    touched = ChangedKeys({"o": ORDERS, "p": others}, 5)

    def delete(*keys: int) -> None:
        rows = [f"table public.{name}: DELETE: id[integer]:{n}" for name in ("orders", "others") for n in keys]
        touched.add(joined([row.encode() for row in rows]))

    delete(0, 1, 2)
    assert sorted(map(len, touched.keys.values())) == [3]
    delete(1, 2, 7)
    assert sorted(map(len, touched.keys.values())) == [4]
    delete(10, 11)
    assert touched.keys == {}


def test_many_tables_in_a_block_are_each_looked_for_in_their_own_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = {f"t{n}": ChangeFormat(f'public."t: {n}"', (("id", "text"),), (0,), (0,)) for n in range(20)}
    rows = [
        f"table public.\"t: {n}\": INSERT: id[text]:'{key}'".encode()
        for key in ("a", 'table public."t: 3": INSERT: id[text]:1', "")
        for n in range(12)
    ]
    rows.insert(5, b'table public."t: 11", public."t: 2": TRUNCATE: (no-flags)')

    def keys() -> dict[str, Keys]:
        touched = ChangedKeys(tables, 1000)
        touched.add(joined(rows))
        return touched.keys

    apart = keys()
    monkeypatch.setattr(decoding, "_SEVERAL", 1000)
    assert keys() == apart
    assert len(apart) == 18
    assert apart["t5"] == moved(("a",), ('table public."t: 3": INSERT: id[text]:1',), ("",))
    assert apart["t15"] == Keys()


def test_a_snapshot_sees_what_ended_before_it() -> None:
    snapshot = Snapshot.parse("100:4294967400:100,4294967300")
    numbers = [4, 50, 99, 100, 101, 103, 104, 105, 2**31, 2**31 + 200]
    assert dict(zip(numbers, snapshot.sees(np.array(numbers)), strict=True)) == {
        number: number not in (4, 100, 104, 105, 2**31) for number in numbers
    }


@pytest.mark.parametrize("size", [1, 2, 9])
@pytest.mark.parametrize(
    ("numbers", "end"),
    [([], None), ([7, 8], None), ([10], 0), ([7, 8, 10, 7], 2), ([7, 5, 8], 1), ([7, 8, 9, 12, 7, 8], 3)],
)
def test_the_position_is_before_the_first_that_is_not_visible(numbers: list[int], end: int | None, size: int) -> None:
    prefix = Prefix(Snapshot.parse("5:10:5"))
    for start in range(0, len(numbers), size):
        some = np.array(numbers[start : start + size])
        prefix.add(start + 1 + np.arange(len(some)), some)
        prefix.add(np.array([], np.int64), np.array([], np.int64))
    assert prefix.end == end


MADE = """
CREATE SCHEMA "Odd: s"; CREATE TYPE "Odd: s"."a [t]: ""x" AS ENUM ('a b', '''', '[x]:');
CREATE TABLE "Odd: s"."t, ""u: INSERT" (gone int, before text, raw bytea, e "Odd: s"."a [t]: ""x" NOT NULL, n numeric,
    up text GENERATED ALWAYS AS (upper(before)) STORED, b bit(3), "Key: '" text, f float8, id int, after text,
    PRIMARY KEY (id, "Key: '", e));
ALTER TABLE "Odd: s"."t, ""u: INSERT" DROP COLUMN gone;
"""
TABLE = '"Odd: s"."t, ""u: INSERT"'
COLUMNS = 'before, raw, e, n, b, "Key: \'", f, id, after'


@pytest.fixture(scope="module")
def session(logical: PostgresServer) -> Iterator[psycopg.Connection[Any]]:
    logical.create("decoding", MADE)
    logical.run("decoding", "SELECT pg_create_logical_replication_slot('decoding', 'test_decoding')")
    try:
        with logical.connect("decoding") as session:
            yield session
    finally:
        logical.run("decoding", "SELECT pg_drop_replication_slot('decoding')")


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20) | st.sampled_from(
    ["", "'", "''", "\\", "\n", "null", f"table {TABLE}: DELETE: id[integer]:1", "' new-tuple: id[integer]:'", "x' \n"]
)
ROWS = st.tuples(
    st.none() | TEXTS, st.none() | st.binary(max_size=9), st.sampled_from(["a b", "'", "[x]:"]),
    st.none() | st.decimals(allow_nan=False, allow_infinity=False), st.sampled_from([None, "101"]), TEXTS,
    st.none() | st.floats(),
    st.integers(-(2**31), 2**31 - 1), st.none() | TEXTS,
)  # fmt: skip


@given(st.lists(ROWS, min_size=1, max_size=5, unique_by=lambda row: (row[7], row[5], row[2])), TEXTS)
@settings(max_examples=60, deadline=None)
def test_the_keys_that_the_server_writes_are_found(
    session: psycopg.Connection[Any], rows: list[tuple[Any, ...]], other: str
) -> None:
    session.execute("SET search_path = ''")
    holes = ", ".join(["%s"] * 9)
    with session.transaction():
        for row in rows:
            session.execute(f"INSERT INTO {TABLE} ({COLUMNS}) VALUES ({holes})", row)
        first = rows[0]
        session.execute(
            f"UPDATE {TABLE} SET id = 7, \"Key: '\" = %s, e = 'a b' WHERE (id, \"Key: '\", e) = (%s, %s, %s)"
            f" AND NOT EXISTS (SELECT FROM {TABLE} WHERE id = 7)",
            (other, first[7], first[5], first[2]),
        )
        moved = session.execute(
            f"SELECT count(*) FROM {TABLE} WHERE id = 7 AND \"Key: '\" = %s AND e = 'a b'", (other,)
        )
        expected = {(str(row[7]), row[5], row[2]) for row in rows}
        expected |= {("7", other, "a b")} if moved.fetchone() == (1,) else set()
        kept = session.execute(f"UPDATE {TABLE} SET after = 'x' RETURNING id::text, \"Key: '\", e::text").fetchall()
        session.execute(f"DELETE FROM {TABLE}")
    (table,) = read_tables(session).tables
    (identity,) = identities(session, [table]).values()
    session.execute("SET synchronous_commit = on; SELECT pg_logical_emit_message(true, '', '')")
    told = session.execute("SELECT data FROM pg_logical_slot_get_changes('decoding', NULL, NULL)").fetchall()
    touched = ChangedKeys({"t": identity.written}, 1000)
    touched.add(joined([str(data).encode() for (data,) in told]))
    assert touched.keys == {"t": Keys(set(kept), expected)}
