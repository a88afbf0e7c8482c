"""Single records: looked up where they can be, and never another answer than that of a whole reading."""

from __future__ import annotations

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
from blocks.sources.collection import CollectionSpec
from blocks.storage.local import LocalTier
from flows.pipeline import chain as chain_module
from flows.pipeline import lookup
from flows.pipeline.chain import Chain, RestorePart
from flows.pipeline.lookup import MOST_KEYS, wanted_keys
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


def large_shop(tmp_path: Path, rows: int = 100_000) -> tuple[Shop, list[BackupMetadata]]:
    """Make a full backup of a large table, and five incrementals that each change a few rows of it."""
    shop = Shop(tmp_path, part_size_bytes=64 << 20)
    chance = random.Random(7)
    shop.db.execute("CREATE TABLE ticks (id INTEGER PRIMARY KEY, note TEXT)")
    shop.db.executemany("INSERT INTO ticks VALUES (?, ?)", [(n, chance.randbytes(20).hex()) for n in range(rows)])
    made = [shop.back_up(FULL)]
    for number in range(5):
        shop.db.execute("UPDATE ticks SET note = ? WHERE id % 1000 = ?", [f"changed {number}", number])
        shop.db.execute("DELETE FROM ticks WHERE id = ?", [12_000 + number])
        made.append(shop.back_up(INCREMENTAL))
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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop, made = large_shop(tmp_path)
    repository = shop.repository
    for key, note in (("3", "changed 3"), ("17500", None), ("2004", "changed 4"), ("12001", ""), ("100000", "")):
        with monkeypatch.context() as patch:
            count = read_bytes(patch)
            (part,) = parts_of(Chain(repository, made[-1]), "ledger/ticks", key)
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


def test_what_is_said_to_be_nowhere_is_not_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop, made = large_shop(tmp_path, 13_000)
    (part,) = parts_of(Chain(shop.repository, made[-1]), "ledger/ticks", "999999", "text", "-1")
    with monkeypatch.context() as patch:
        count = read_bytes(patch)
        assert part.load().num_rows == 0
        assert count.total() == 0


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


OTHERS = {
    "bool": pa.array([True, False]),
    "decimal": pa.array([Decimal("1.50"), Decimal("2.00")]),
    "timestamp": pa.array([datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 3, tzinfo=UTC)]),
    "date": pa.array([20_000, 20_001], pa.date32()),
}


@pytest.mark.parametrize("name", OTHERS)
def test_keys_that_can_be_written_in_several_ways_are_looked_for_among_all(name: str) -> None:
    segment = segment_of(pa.table({"k": OTHERS[name]}), ("k",))
    assert wanted_keys(Selection(keys=("true",)), spec_of("k"), [segment]) is None
    both = segment_of(pa.table({"i": [1, 2], "k": OTHERS[name]}), ("i", "k"))
    assert wanted_keys(Selection(keys=("1:true",)), spec_of("i", "k"), [both]) is None


def test_globs_many_keys_and_other_labels_are_looked_for_among_all() -> None:
    segment = segment_of(pa.table({"k": ["a", "b"]}), ("k",))
    for glob in ("a*", "a?", "[a]", "\\x61"):
        assert wanted_keys(Selection(keys=("a", glob)), spec_of("k"), [segment]) is None
    for within in ((), ("a",)):
        assert wanted_keys(Selection(within=within), spec_of("k"), [segment]) is None
    assert wanted_keys(None, spec_of("k"), [segment]) is None
    assert wanted_keys(Selection(keys=("a",)), spec_of("k", label=("v",)), [segment]) is None
    many = tuple(str(n) for n in range(MOST_KEYS + 1))
    assert wanted_keys(Selection(keys=many), spec_of("k"), [segment]) is None
    assert len(wanted_keys(Selection(keys=many[1:]), spec_of("k"), [segment]) or ()) == MOST_KEYS
    old = segment.model_copy(update={"key_range": None})
    assert wanted_keys(Selection(keys=("a",)), spec_of("k"), [segment, old]) is None


def test_a_null_in_a_key_is_an_empty_text() -> None:
    rows = pa.table({"a": pa.array([None, "", "x"]), "b": pa.array([1, 1, None])})
    segment = segment_of(rows, ("a", "b"))
    found = wanted_keys(Selection(keys=(":1", "x:")), spec_of("a", "b"), [segment])
    assert found is not None
    assert set(encode_keys(to_canonical(rows), ("a", "b")).to_pylist()) <= set(found)
