"""Single records: looked up where they can be, and never another answer than that of a whole reading."""

from __future__ import annotations

import os
import random
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from blocks.errors import BackupNotFound
from blocks.records import BackupMetadata, Blob, Segment
from blocks.rows import parquet
from blocks.rows.canonical import to_canonical
from blocks.rows.key_range import key_range
from blocks.rows.keys import encode_keys
from blocks.rows.selection import Selection, label_text
from blocks.rows.variant import decode_variant, is_variant
from blocks.rows.wanted import WantedKeys
from blocks.sources.collection import CollectionSpec
from blocks.storage.local import LocalTier
from flows.pipeline import chain as chain_module
from flows.pipeline import lookup
from flows.pipeline.chain import Chain, RestorePart
from flows.pipeline.lookup import MOST_BEGINNINGS, MOST_KEYS, wanted_keys
from flows.reading.diff import CollectionDiff, compare_backups
from flows.reading.diff_rows import Side
from flows.stages import compress
from tests.flows.flow_support import FULL, INCREMENTAL, MERGE, PREVIEW, Shop, picture, store_apart

TABLES = {
    "ints": "(k INTEGER PRIMARY KEY, v)",
    "texts": "(k TEXT PRIMARY KEY NOT NULL, v)",
    "mixed": "(k PRIMARY KEY NOT NULL, v)",
    "pairs": "(a TEXT, b, v, PRIMARY KEY (a, b)) WITHOUT ROWID",
    "threes": "(a, b INTEGER, c TEXT, v, PRIMARY KEY (c, a, b)) WITHOUT ROWID",
    "reals": "(k REAL PRIMARY KEY NOT NULL, v)",
    "blobs": "(k BLOB PRIMARY KEY NOT NULL, v)",
    "nulls": "(k TEXT PRIMARY KEY, v)",  # its key is the rowid: several keys may be NULL
}
INTS = [0, 1, -1, 7, 10, 2**63 - 1, -(2**63)]
FLOATS = [0.0, 1.0, -1.0, 0.1, 1.5, 1e300, 1e-7, 7.0, float("inf"), float(2**53)]
TEXTS = ["", "1", "1.0", "a", "a:b", ":", "b:1", "é", "1:1", "x" * 70, "x" * 70 + "y", "x" * 64, "*", "a?", "[b]"]
BLOBS = [b"", b"1", b"a", b"\xff\x00", b"a:b", b"\x00\x01", b"x" * 70]
ANY: list[object] = [*INTS, *FLOATS, *TEXTS, *BLOBS]
KEYS: dict[str, list[list[object]]] = {
    "ints": [[*INTS, *range(20, 60)]],
    "texts": [[*TEXTS]],
    "mixed": [ANY],
    "pairs": [[*TEXTS], [1, "1", "b:1", b"1", 1.5, ":"]],
    "threes": [["a", "a:b", 1], [1, 7, -1], ["", "1", "b:1", ":"]],
    "reals": [[*FLOATS]],
    "blobs": [[*BLOBS, "a", ""]],
    "nulls": [["a", "1", None]],
}
PROBES = [
    "",
    "1",
    "0",
    "-0",
    "1.0",
    "1.",
    " 1",
    "007",
    "nan",
    "a:b:1",
    "a:b:b:1",
    "x" * 70,
    "no such key",
    "a::1",
    "1_0",
    "a*",
    "a?",
    "b:*",
    "x" * 64 + "*",
    "x" * 70 + "?",
    "[[]b]",
    "[[]*",
]
COLUMNS = {"pairs": ("a", "b"), "threes": ("a", "b", "c")}


@dataclass
class Step:
    """What happens to the tables before one backup: rows that are put, and keys that go."""

    put: list[tuple[str, tuple[object, ...], int]] = field(default_factory=list)
    gone: list[tuple[str, tuple[object, ...]]] = field(default_factory=list)


def steps() -> st.SearchStrategy[list[Step]]:
    def keyed(name: str) -> st.SearchStrategy[tuple[str, tuple[object, ...]]]:
        return st.tuples(st.just(name), st.tuples(*(st.sampled_from(pool) for pool in KEYS[name])))

    one = st.sampled_from(sorted(TABLES)).flatmap(keyed)
    put = st.tuples(one, st.integers(0, 3)).map(lambda drawn: (*drawn[0], drawn[1]))
    step = st.builds(Step, st.lists(put, max_size=20), st.lists(one, max_size=20))
    return st.lists(step, min_size=6, max_size=6)


def apply(shop: Shop, step: Step) -> None:
    for name, key in step.gone:
        where = " AND ".join(f"{c} = ?" for c in COLUMNS.get(name, ("k",)))
        shop.db.execute(f"DELETE FROM {name} WHERE {where}", key)
    for name, key, value in step.put:
        columns = (*COLUMNS.get(name, ("k",)), "v")
        places = ", ".join("?" * len(columns))
        shop.db.execute(f"INSERT OR REPLACE INTO {name} ({', '.join(columns)}) VALUES ({places})", (*key, value))


@contextmanager
def stored(how: str) -> Iterator[None]:
    """Store small parts together, each alone, or each alone in row groups that are read one by one."""
    with pytest.MonkeyPatch.context() as patch:
        if how != "shared":
            patch.setattr(compress, "SMALL_BYTES", 0)
        if how == "groups":
            patch.setattr(lookup, "WHOLE_BYTES", 0)
            patch.setattr(parquet, "ROW_GROUP_ROWS", 3)
        yield


def parts_of(chain: Chain, name: str, *keys: str) -> list[RestorePart]:
    (collection,) = (c for c in chain.target.collections if c.name == name)
    return list(chain.parts_of(collection, Selection(keys=keys)))


def check_looked_up(part: RestorePart) -> int:
    """Compare what is looked up with a whole reading that is narrowed afterwards; return the number of rows."""
    found, wanted = part.load(), part.whole().load()
    assert part.whole().wanted is None
    if not wanted.num_rows:
        assert not found.num_rows
        return 0
    assert values(found) == values(wanted)
    return found.num_rows


def values(rows: pa.Table) -> dict[str, list[str]]:
    """Return the values of rows, written with their own types: a column has a type that suits all that was read."""
    columns = {
        field.name: decode_variant(column) if is_variant(field) else column.to_pylist()
        for field, column in zip(rows.schema, rows.columns, strict=True)
    }
    return {name: list(map(repr, found)) for name, found in columns.items()}


def labels(chain: Chain, name: str) -> list[str]:
    """Return the labels of all rows of a collection, as a person types them; of bytes that are no text none."""
    found = []
    for part in parts_of(chain, name):
        if (rows := part.load()).num_rows:
            texts = label_text(rows, part.spec.label).to_pylist()
            found += [text if isinstance(text, str) else text.decode("utf-8", "surrogateescape") for text in texts]
    return [text for text in found if text.isascii() or max(text) < "\udc80"]


def is_literal(text: str) -> bool:
    return not set("*?[\\").intersection(text)


@pytest.mark.parametrize("how", ["shared", "alone", "groups"])
@settings(max_examples=3, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(planned=steps())
@pytest.mark.share(2)
def test_what_is_looked_up_is_what_a_whole_reading_finds(how: str, planned: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as home, stored(how):
        shop = Shop(Path(home), encrypted=how != "alone", part_size_bytes=1500)
        for name, columns in TABLES.items():
            shop.db.execute(f"CREATE TABLE {name} {columns}")
            apply(shop, Step([(name, key, 0) for key in product(*KEYS[name])]))
        chains, ever = [], {name: set(PROBES) for name in TABLES}
        for number, step in enumerate(planned):
            apply(shop, step)
            made = shop.back_up(INCREMENTAL if number else FULL)
            assert made.promoted_because is None
            chains.append(Chain(shop.repository, made))
            for name in TABLES:
                ever[name].update(labels(chains[-1], f"ledger/{name}"))
        for chain in (chains[0], chains[-1]):
            for name in TABLES:
                check_table(chain, name, sorted(ever[name]))


def check_table(chain: Chain, name: str, texts: Sequence[str]) -> None:
    collection, alive = f"ledger/{name}", Counter(labels(chain, f"ledger/{name}"))
    for text in texts:
        parts = parts_of(chain, collection, text)
        rows = sum(map(check_looked_up, parts))
        if is_literal(text):
            assert rows == alive[text]
            # NaNs of different bits look the same, and have other keys
            nan = "nan" in text.lower()
            assert nan or all(part.wanted is not None for part in parts if chain.segments(collection, part.part.number))
    several = [text for text in texts if is_literal(text)][:20]
    assert sum(check_looked_up(part) for part in parts_of(chain, collection, *several)) == sum(
        alive[text] for text in several
    )


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shop, list[BackupMetadata]]:
    """A full backup of a large table, five incrementals that each change a few rows of it, and another full.

    Tests read it, and change nothing there.
    """
    folder = tmp_path_factory.mktemp("large")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder / "states"))
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        shop, chance = Shop(folder, part_size_bytes=64 << 20), random.Random(7)
        shop.db.execute("CREATE TABLE ticks (id INTEGER PRIMARY KEY, note TEXT)")
        notes = [(n, chance.randbytes(20).hex()) for n in range(100_000)]
        shop.db.execute("BEGIN")
        shop.db.executemany("INSERT INTO ticks VALUES (?, ?)", notes)
        shop.db.execute("COMMIT")
        made = [shop.back_up(FULL)]
        for number in range(5):
            shop.db.execute("UPDATE ticks SET note = ? WHERE id % 1000 = ?", [f"changed {number}", number])
            shop.db.execute("DELETE FROM ticks WHERE id = ?", [12_000 + number])
            made.append(shop.back_up(INCREMENTAL))
        shop.db.execute("UPDATE ticks SET note = 'at last' WHERE id IN (5, 60000)")
        made.append(shop.back_up(FULL))
    return shop, made


def read_bytes(patch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the bytes that are read from packs, by the id of their backup."""
    count, get = Counter[str](), LocalTier.get

    def counted(self: LocalTier, name: str, *args: Any, **kwargs: Any) -> bytes:
        data = get(self, name, *args, **kwargs)
        if name.endswith(".pack"):
            count[name.split("/")[-2]] += len(data)
        return data

    patch.setattr(LocalTier, "get", counted)
    return count


def test_one_record_of_a_chain_is_read_without_most_of_the_others(
    large: tuple[Shop, list[BackupMetadata]], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop, made = large
    repository = shop.repository
    for key, note in (("3", "changed 3"), ("17500", None), ("2004", "changed 4"), ("12001", ""), ("100000", "")):
        with monkeypatch.context() as patch:
            count = read_bytes(patch)
            (part,) = parts_of(Chain(repository, made[5]), "ledger/ticks", key)
            found, looked_up = part.load(), count.total()
            whole = part.whole().load()
            everything = count.total() - looked_up
        assert found.num_rows == whole.num_rows == (note != "")
        assert found.to_pylist() == whole.to_pylist()
        if note:
            assert found.column("note").to_pylist() == [note]
        assert everything > 500_000
        assert looked_up < everything / 3
        # where a newer segment says what became of it, the large one below is not looked into
        assert (note in (None, "")) or looked_up < everything / 20


def test_what_is_said_to_be_nowhere_is_not_looked_for(
    large: tuple[Shop, list[BackupMetadata]], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop, made = large
    (part,) = parts_of(Chain(shop.repository, made[5]), "ledger/ticks", "999999", "text", "-1")
    with monkeypatch.context() as patch:
        count = read_bytes(patch)
        assert part.load().num_rows == 0
        assert count.total() == 0


def test_of_a_blob_nothing_is_read_twice(
    large: tuple[Shop, list[BackupMetadata]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop, made = large
    (part,) = parts_of(Chain(shop.repository, made[5]), "ledger/ticks", "17500")
    reads, get = [], LocalTier.get

    def counted(self: LocalTier, name: str, *args: Any, **kwargs: Any) -> bytes:
        reads.append((name, *args))
        return get(self, name, *args, **kwargs)

    monkeypatch.setattr(LocalTier, "get", counted)
    monkeypatch.setattr(lookup, "WHOLE_BYTES", 0)
    for _ in range(2):
        assert part.load().num_rows == 1
    assert len(reads) > 2
    assert len(set(reads)) == len(reads)
    reads.clear()
    shop.restore(made[5], collections=["ledger/ticks"], keys=["17500"], to=str(tmp_path / "one.db"))
    packs = [read for read in reads if str(read[0]).endswith(".pack")]
    assert len(set(packs)) == len(packs) > 2


def test_many_keys_are_read_without_most_of_the_others(
    large: tuple[Shop, list[BackupMetadata]], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop, made = large
    (part,) = parts_of(Chain(shop.repository, made[5]), "ledger/ticks", *map(str, range(30_000, 31_000)))
    with monkeypatch.context() as patch:
        count = read_bytes(patch)
        found, looked_up = part.load(), count.total()
        assert values(part.whole().load()) == values(found)
    assert found.num_rows == 1000
    assert looked_up < (count.total() - looked_up) / 3


TREE = {
    **{
        name: b"x" * size
        for size, name in enumerate(["a", "ab", "a-b", "a0", "a b", "[1]", "x[1]y", "x1y", "é", "d/e"])
    },
    **{f"{folder}/{name}": name.encode() for folder in ("f", "f-", "f.g", "f/h", "g" * 70) for name in "abc"},
    "large": bytes(range(256)) * 4096 * 2 + b"end",
    "f/large": b"0123456789" * 110_000,
}
"""Paths and contents; those of more than a mebibyte are several rows."""
TREE_KEYS = [
    *TREE,
    *(
        "f",
        "f/",
        "./f",
        "f/h",
        "d",
        "g" * 70,
        "f-",
        "x[1]*",
        "a*",
        "f/*",
        "f/?",
        "f*/a",
        "g*/b",
        "*a",
        "[1]*",
        "nothing",
    ),
    *("", ".", "f/nothing", "F", "a/b", "large/", "\\xff", "f/\\xff", "\\xe9"),
]


@pytest.mark.parametrize("how", ["shared", "alone", "groups"])
def test_what_is_looked_up_of_a_tree_is_what_a_whole_reading_finds(how: str, tmp_path: Path) -> None:
    with stored(how):
        shop = Shop(tmp_path, encrypted=how != "alone")
        shop.db.execute("CREATE TABLE t (k)")
        for path, content in TREE.items():
            (shop.tree / path).parent.mkdir(parents=True, exist_ok=True)
            (shop.tree / path).write_bytes(content)
        (shop.tree / os.fsdecode(b"\xff")).write_bytes(b"odd")
        (shop.tree / "f" / os.fsdecode(b"\xff")).symlink_to("a")
        made = [shop.back_up(FULL)]
        for number in range(3):
            (shop.tree / "f" / "abc"[number]).write_text(f"changed {number}")
            (shop.tree / "f/h" / "abc"[number]).unlink()
            (shop.tree / "f.g" / f"new {number}").write_text("new")
            with (shop.tree / "f/large").open("r+b") as file:
                file.truncate(1_090_000 - 50_000 * number)
            made.append(shop.back_up(INCREMENTAL))
        for one in (made[0], made[-1]):
            chain, found = Chain(shop.repository, one), Counter[str]()
            for key in TREE_KEYS:
                parts = parts_of(chain, "models/tree", key)
                found[key] = sum(map(check_looked_up, parts))
                beginning = key.removeprefix("./")[:1]
                assert all((part.wanted is None) == (beginning in tuple("*\\")) or "[" in key for part in parts)
            several = [check_looked_up(part) for part in parts_of(chain, "models/tree", "f", "a", "x[1]y", "g*/b")]
            assert sum(several) == sum(found[key] for key in ("f", "a", "x[1]y", "g*/b")) > 10
            assert found["f/"] == found["./f"] == found["f"] > found["f/h"] > 0
            assert found["large"] == 4
            assert not found["nothing"] + found["f/nothing"] + found["F"]


def large_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Shop, list[BackupMetadata]]:
    """Make a full backup of folders of files that do not compress, and incrementals that each change one folder."""
    monkeypatch.setattr(parquet, "ROW_GROUP_BYTES", 128 * 1024)
    shop, chance = Shop(tmp_path), random.Random(7)
    shop.db.execute("CREATE TABLE t (k)")
    for folder, number in product("abcdef", range(30)):
        path = shop.tree / folder / f"file {number}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(chance.randbytes(20_000))
    made = [shop.back_up(FULL)]
    for folder in "bcf":
        for number in range(10):
            (shop.tree / folder / f"file {number}").write_bytes(chance.randbytes(20_000))
        made.append(shop.back_up(INCREMENTAL))
    return shop, made


def test_a_path_is_read_without_most_of_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop, made = large_tree(tmp_path, monkeypatch)
    for key, rows, share in (("c/file 3", 2, 7), ("c", 61, 3), ("e", 61, 4), ("c/file 1*", 22, 5), ("none", 0, 100)):
        with monkeypatch.context() as patch:
            count = read_bytes(patch)
            (part,) = parts_of(Chain(shop.repository, made[-1]), "models/tree", key)
            found, looked_up = part.load(), Counter(count)
            assert values(part.whole().load()) == values(found) or not rows
            everything = count.total() - looked_up.total()
        assert found.num_rows == rows
        assert everything > 4_000_000
        assert looked_up.total() < everything / share
        # what a backup holds ends before, or begins behind
        assert not looked_up[made[1].backup_id] + looked_up[made[3].backup_id]
        assert bool(looked_up[made[2].backup_id]) == key.startswith("c")


def changes(shop: Shop, before: BackupMetadata, after: BackupMetadata, name: str, *keys: str) -> CollectionDiff:
    chains = [Chain(shop.repository, one) for one in (before, after)]
    (found,) = compare_backups(*chains, Selection((name,), keys))
    return found


def compared(
    patch: pytest.MonkeyPatch, shop: Shop, before: BackupMetadata, after: BackupMetadata, name: str, *keys: str
) -> tuple[CollectionDiff, float]:
    """Compare rows of some keys; return the result, and which share of the bytes is read that takes without lookups."""
    count = read_bytes(patch)
    found = changes(shop, before, after, name, *keys)
    looked_up = count.total()
    with pytest.MonkeyPatch.context() as inner:
        inner.setattr(Side, "finds", lambda *_: False)
        assert changes(shop, before, after, name, *keys) == found
    return found, looked_up / max(count.total() - looked_up, 1)


def test_a_difference_of_single_keys_is_found_without_reading_the_others(
    large: tuple[Shop, list[BackupMetadata]], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop, made = large
    cases: list[tuple[BackupMetadata, BackupMetadata, tuple[str, ...], int]] = [
        (made[0], made[5], ("3",), 1),
        (made[2], made[5], ("17500",), 0),
        (made[2], made[5], ("2004", "17500", "3003"), 2),
        (made[0], made[6], ("60000", "5", "3", "70009"), 3),
    ]
    for before, after, keys, changed in cases:
        with monkeypatch.context() as patch:
            found, share = compared(patch, shop, before, after, "ledger/ticks", *keys)
            assert found.total == len(found.changes) == changed
            assert share < 0.4
    # what is on one side only is looked for in all that there is
    for keys, total in ((("12001",), 1), (("12001", "3"), 2), (("no such key",), 0)):
        with monkeypatch.context() as patch:
            assert compared(patch, shop, made[0], made[5], "ledger/ticks", *keys)[0].total == total


def test_a_difference_of_paths_is_found_without_reading_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop, made = large_tree(tmp_path, monkeypatch)
    (shop.tree / "c" / "file 1").unlink()
    (shop.tree / "c" / "new").write_text("new")
    made.append(shop.back_up(INCREMENTAL))
    for before, after, key, at_least in (
        (made[0], made[4], "c/file 3", 2),
        (made[0], made[4], "c", 20),
        (made[0], made[3], "e", 0),
        (made[3], made[4], "c", 4),
    ):
        with monkeypatch.context() as patch:
            found, share = compared(patch, shop, before, after, "models/tree", key)
            assert found.total >= at_least
            assert found.total == len(found.changes)
            assert share < 0.5


@pytest.mark.parametrize("apart", [True, False])
def test_restores_and_previews_of_single_keys_are_those_of_a_whole_reading(
    tmp_path: Path, apart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if apart:
        store_apart(monkeypatch)
    shop = Shop(tmp_path)
    shop.fill()
    shop.back_up(FULL)
    for number in range(5):
        shop.db.execute("UPDATE orders SET price = ? WHERE id IN (3, ?)", [number, 10 + number])
        shop.db.execute("DELETE FROM orders WHERE id = ?", [20 + number])
        made = shop.back_up(INCREMENTAL)
    shop.db.execute("UPDATE orders SET price = -1 WHERE id < 30")
    shop.db.execute("DELETE FROM positions WHERE symbol = 'S3'")
    keys, tables = ["3", "12", "35", "S3"], ["ledger/*"]
    with monkeypatch.context() as patch:
        patch.setattr(chain_module, "wanted_keys", lambda *_: None)
        wanted = shop.restore(made, PREVIEW, tables, keys).collections
        shop.restore(made, collections=tables, keys=keys, to=str(tmp_path / "whole.db"))
    assert shop.restore(made, PREVIEW, tables, keys).collections == wanted
    shop.restore(made, collections=tables, keys=keys, to=str(tmp_path / "single.db"))
    seen = [picture(tmp_path / f"{name}.db", shop.tree) for name in ("whole", "single")]
    assert seen[0] == seen[1]
    assert [row[1] for row in seen[1]["rows"]["orders"]] == [3, 12, 35]
    shop.restore(made, MERGE, tables, keys)
    assert shop.rows("SELECT id, price FROM orders WHERE price >= 0 AND id < 36") == [
        (3, 4.0), (12, 2.0), *[(n, n / 4) for n in range(30, 36)]
    ]  # fmt: skip
    assert shop.rows("SELECT quantity FROM positions WHERE symbol = 'S3'") == [(30,)]
    with pytest.raises(BackupNotFound, match="22"):
        shop.restore(made, MERGE, tables, ["3", "22"])


def spec_of(*key: str, label: tuple[str, ...] | None = None) -> CollectionSpec:
    columns = tuple((name, "a type") for name in key)
    return CollectionSpec("c", key, label or key, columns, definition={})


def segment_of(rows: pa.Table, key: tuple[str, ...]) -> Segment:
    """Make what a manifest says of a segment of some rows."""
    rows = to_canonical(rows)
    rows = rows.take(pc.array_sort_indices(encode_keys(rows, key)))
    rows = rows.add_column(0, "_key", pa.nulls(rows.num_rows, pa.large_binary()))
    blob = Blob(name="00000.pack", size_bytes=1, sha256="", number=0)
    range_ = key_range(rows, encode_keys(rows, key), key, None)
    return Segment(data=blob, index=blob, key_range=range_, upserts=1, tombstones=0, size_bytes=1, size_compressed=1)


def found_by(*keys: str, spec: CollectionSpec, segments: Sequence[Segment]) -> WantedKeys:
    found = wanted_keys(Selection(keys=keys), spec, segments)
    assert found is not None
    return found


OTHERS: dict[str, pa.Array] = {
    "bool": pa.array([True, False]),
    "decimal": pa.array([Decimal(text) for text in ("1.50", "2.00", "0.00", "-0.01", "12345678.00")]),
    "wide decimal": pa.array([Decimal("0E-20"), Decimal("1E-20"), Decimal("9" * 18)], pa.decimal128(38, 20)),
    "wider decimal": pa.array([Decimal("9" * 76), Decimal("-1"), Decimal(0)], pa.decimal256(76, 0)),
    "finest decimal": pa.array([Decimal("0.5"), Decimal("1E-60"), Decimal("-0E-70")], pa.decimal256(76, 70)),
    "coarse decimal": pa.array([Decimal("5E+3"), Decimal(0), Decimal("-12E+3")], pa.decimal128(10, -3)),
    "timestamp": pa.array([datetime(2026, 1, 2, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC), datetime.max]),
    "plain timestamp": pa.array([0, 1, -1, 10**15, -62_167_219_200_000_000], pa.timestamp("us")),
    "date": pa.array([20_000, 0, -1, 2_932_896, -719_528], pa.date32()),
    "time": pa.array([0, 1, 86_399_999_999], pa.time64("us")),
}


@pytest.mark.parametrize("name", OTHERS)
def test_keys_of_any_type_are_looked_for_as_they_are_shown(name: str) -> None:
    column = OTHERS[name]
    several = pa.table({"i": range(len(column)), "k": column})
    for key in (("k",), ("i", "k"), ("k", "i")):
        rows = to_canonical(several.select(key))
        segment, encoded = segment_of(rows, key), encode_keys(rows, key).to_pylist()
        for text, wanted in zip(label_text(rows, key).to_pylist(), encoded, strict=True):
            found = found_by(text, spec=spec_of(*key), segments=[segment])
            assert wanted in found.keys
            assert len(found.keys) <= 2
        null = pa.nulls(1).cast
        with_nulls = [pa.concat_arrays([null(rows.schema.field(n).type), *rows.column(n).chunks]) for n in key]
        segments = [segment_of(rows, key), segment_of(pa.table(with_nulls, key), key)]
        found = found_by(*label_text(rows, key).to_pylist(), spec=spec_of(*key), segments=segments)
        assert set(encoded) <= found.keys
    for text in ("no such key", "2026-13-01", "2026-01-32 00:00:00.000000Z", "25:00:00.000000", "9" * 80, "1E+99", ""):
        assert not found_by(text, spec=spec_of("k"), segments=[segment_of(pa.table({"k": column}), ("k",))])


@pytest.mark.parametrize(
    "column",
    [
        pa.array([2_932_897, -719_529, 10**7, -(10**7), 2**31 - 1], pa.date32()),
        pa.array([10**18, -(10**18), 2**63 - 1, 253_402_300_800_000_000], pa.timestamp("us")),
        pa.array([253_402_300_800_000_000, -62_167_219_200_000_001], pa.timestamp("us", "UTC")),
        pa.array([86_400_000_000], pa.time64("us")),
    ],
)
def test_times_that_are_shown_as_nothing_reads_them_are_looked_for_among_all(column: pa.Array) -> None:
    rows = pa.table({"k": column, "i": range(len(column))})
    for key in (("k",), ("i", "k")):
        for text in label_text(to_canonical(rows), key).to_pylist():
            assert wanted_keys(Selection(keys=(text,)), spec_of(*key), [segment_of(rows, key)]) is None


def test_globs_without_a_beginning_very_many_keys_and_other_labels_are_looked_for_among_all() -> None:
    segment = segment_of(pa.table({"k": ["a", "b"]}), ("k",))
    for glob in ("*", "?a", "[a]", "\\x61"):
        assert wanted_keys(Selection(keys=("a", glob)), spec_of("k"), [segment]) is None
    for within in ((), ("a",)):
        assert wanted_keys(Selection(within=within), spec_of("k"), [segment]) is None
    assert wanted_keys(None, spec_of("k"), [segment]) is None
    assert wanted_keys(Selection(keys=("a",)), spec_of("k", label=("v",)), [segment]) is None
    many = tuple(str(n) for n in range(MOST_KEYS + 1))
    assert wanted_keys(Selection(keys=many), spec_of("k"), [segment]) is None
    assert len(found_by(*many[1:], spec=spec_of("k"), segments=[segment]).keys) == MOST_KEYS > 1000
    globs = tuple(f"{n}*" for n in range(MOST_BEGINNINGS + 1))
    assert wanted_keys(Selection(keys=globs), spec_of("k"), [segment]) is None
    assert len(found_by(*globs[1:], spec=spec_of("k"), segments=[segment]).beginnings) == MOST_BEGINNINGS
    old = segment.model_copy(update={"key_range": None})
    assert wanted_keys(Selection(keys=("a",)), spec_of("k"), [segment, old]) is None
    assert wanted_keys(Selection(keys=("1*",)), spec_of("k"), [segment_of(pa.table({"k": [1, 10]}), ("k",))]) is None
    pairs = segment_of(pa.table({"k": ["a", "b"], "l": ["a", "b"]}), ("k", "l"))
    assert wanted_keys(Selection(keys=("a*",)), spec_of("k", "l"), [pairs]) is None


@pytest.mark.parametrize("kind", [pa.large_string(), pa.large_binary(), pa.int64()])
def test_all_that_stands_under_one_label_is_a_range_of_keys(kind: pa.DataType) -> None:
    names = [1, 10, 11, 2] if kind == pa.int64() else ["1", "10", "1\0", "11", "2"]
    elements = [None, "", "e", "\0"]
    rows = pa.table({"k": pa.array([n for n in names for _ in elements], kind), "e": elements * len(names)})
    segment, encoded = segment_of(rows, ("k", "e")), encode_keys(to_canonical(rows), ("k", "e"))
    for n, text in enumerate(map(str, names)):
        found = found_by(text, spec=spec_of("k", "e", label=("k",)), segments=[segment])
        assert found.among(encoded).to_pylist() == [n == at // len(elements) for at in range(rows.num_rows)]
    if kind != pa.int64():
        found = found_by("1*", spec=spec_of("k", "e", label=("k",)), segments=[segment])
        assert found.among(encoded).to_pylist() == [name != names[-1] for name in names for _ in elements]


def test_a_null_in_a_key_is_an_empty_text() -> None:
    rows = pa.table({"a": pa.array([None, "", "x"]), "b": pa.array([1, 1, None])})
    segment = segment_of(rows, ("a", "b"))
    found = found_by(":1", "x:", spec=spec_of("a", "b"), segments=[segment])
    assert set(encode_keys(to_canonical(rows), ("a", "b")).to_pylist()) <= found.keys
