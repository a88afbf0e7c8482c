"""Manifests that no honest run makes, by what they try."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.faults.forging import Manifest

Change = Callable[[Manifest], object]


def first_segment(data: Manifest, collection: int = 0) -> Manifest:
    return next(p["segment"] for p in data["collections"][collection]["parts"] if p["segment"])


def named(name: str) -> Change:
    return lambda data: first_segment(data)["data"].update(name=name)


def in_collection(**values: Any) -> Change:
    return lambda data: data["collections"][0].update(values)


def in_part(**values: Any) -> Change:
    return lambda data: data["collections"][0]["parts"][0].update(values)


def in_objects(data: Manifest) -> list[Manifest]:
    return next(s for s in data["sources"] if s["name"] == "ledger")["definition"]["objects"]


def with_sql(sql: str, kind: str = "table", name: str = "evil") -> Change:
    return lambda data: in_objects(data).append({"type": kind, "name": name, "table": name, "sql": sql})


def swap_sql(sql: str) -> Change:
    return lambda data: in_objects(data)[0].update(sql=sql)


ABSURD = 2**62
ORDERS = "CREATE TABLE orders (id INTEGER PRIMARY KEY, symbol TEXT, price REAL, note)"

MANIFESTS: dict[str, Change] = {
    "an object above": named("../../../../escaped"),
    "an object by an absolute path": named("/etc/passwd"),
    "an object that is the manifest": named("manifest"),
    "an object of another backup": named("../FUL_20260101_000000_abcd/00000.seg"),
    "an object that is another part's": lambda d: d["collections"][0]["parts"][0].update(
        segment=first_segment(d, 1), rows=3
    ),
    "an index for a segment": lambda d: first_segment(d).update(data=first_segment(d)["index"]),
    "an object of absurd size": lambda d: first_segment(d)["data"].update(size_bytes=ABSURD),
    "an object of negative size": lambda d: first_segment(d)["data"].update(size_bytes=-1),
    "rows of absurd size": lambda d: first_segment(d).update(size_bytes=ABSURD),
    "a size beyond 64 bits": lambda d: first_segment(d).update(size_bytes=10**40),
    "an absurd number of rows": in_part(rows=ABSURD),
    "a negative number of rows": in_part(rows=-5),
    "a part left out": lambda d: d["collections"][0]["parts"].pop(),
    "a segment left out": in_part(segment=None),
    "a part twice": lambda d: d["collections"][0]["parts"].append(d["collections"][0]["parts"][0]),
    "a part of an absurd number": in_part(number=ABSURD),
    "a part of a negative number": in_part(number=-1),
    "a collection of a negative number": in_collection(number=-1),
    "a collection twice": lambda d: d["collections"].append(d["collections"][0]),
    "a collection left out": lambda d: d["collections"].pop(0),
    "a collection above": in_collection(name="../../escaped"),
    "a collection of no source": in_collection(name="escaped"),
    "a collection of an empty source": in_collection(name="/escaped"),
    "a collection of a source with a NUL": in_collection(name="a\0b/escaped"),
    "a collection of a source with an endless name": in_collection(name="x" * 5000 + "/y"),
    "a table above": in_collection(name="ledger/../../escaped"),
    "a key of unknown columns": in_collection(key=["nothing"], label=["nothing"]),
    "no key": in_collection(key=[], label=[]),
    "a label of unknown columns": in_collection(label=["nothing"]),
    "a table that is a tree": in_collection(name="models/tree"),
    "a tree that is a table": lambda d: d["collections"][-1].update(name="ledger/tree"),
    "no bounds": in_part(bounds={}),
    "bounds of nothing known": in_part(bounds={"after": [[1]], "upto": {"x": 1}}),
    "bounds that are no bounds of a tree": lambda d: d["collections"][-1]["parts"][0].update(
        bounds={"after": [1, "x"]}
    ),
    "a shape of nothing known": in_collection(definition={"locator": ["x"], "rowid": "x"}),
    "a shape of other columns": in_collection(
        definition={"locator": ['" OR 1; --'], "rowid": None, "without_rowid": False}
    ),
    "keys that are no globs": in_collection(selected_keys=["[", "(", "\\", "[!"]),
    "no sources": lambda d: d.update(sources=[]),
    "a source of nothing known": lambda d: d["sources"][0].update(definition={}),
    "a page size to choke on": lambda d: d["sources"][0]["definition"].update(page_size=-(10**30)),
    "a setting that is a statement": lambda d: d["sources"][0]["definition"].update(journal_mode="wal; DROP TABLE x"),
    "shadows that are nothing": lambda d: d["sources"][0]["definition"].update(shadows={"x": ["y", "orders"]}),
    "counters of nothing": lambda d: d["sources"][0]["definition"].update(sequence=[[["x"], {"int": "y"}]]),
    "a chain on itself": lambda d: d.update(
        base=d["backup_id"], chain=[{"backup_id": d["backup_id"], "manifest_sha256": "0" * 64}]
    ),
    "a chain above": lambda d: d.update(base="../../x", chain=[{"backup_id": "../../x", "manifest_sha256": ""}]),
    "no chain": lambda d: d.update(base=None, chain=[]),
    "another base": lambda d: d.update(base="FUL_20260101_000000_abcd"),
    "a number that counts for ever": lambda d: d.update(sequence=10**15),
    "a negative number": lambda d: d.update(sequence=-3),
    "an absurd fencing token": lambda d: d.update(fencing_token=10**30),
    "a plan of another name": lambda d: d.update(plan="other"),
    "an id of another backup": lambda d: d.update(backup_id="FUL_20260101_000000_abcd"),
    "another repository": lambda d: d.update(repository_id="0" * 32),
    "a newer format": lambda d: d.update(format_version=2),
    "an older format": lambda d: d.update(format_version=0),
    "an unknown field": lambda d: d.update(surprise=1),
    "a time without a zone": lambda d: d.update(timestamp="2026-01-01T00:00:00"),
    "an absurd time": lambda d: d.update(timestamp="9999-12-31T23:59:59Z"),
    "a data key of nobody": lambda d: d.update(encapsulated_key="AAAA"),
    "a data key that is not base64": lambda d: d.update(encapsulated_key="\u2603"),
    "no data key": lambda d: d.update(encapsulated_key=None),
    "a key that nobody has": lambda d: d.update(encryption_key_id="epoch-9"),
    "an attached database": with_sql("ATTACH DATABASE 'escaped.db' AS evil"),
    "two statements": swap_sql(f"{ORDERS}; ATTACH DATABASE 'escaped.db' AS evil"),
    "a statement that copies": swap_sql("CREATE TABLE orders AS SELECT * FROM sqlite_schema"),
    "a statement into a file": with_sql("VACUUM INTO 'escaped.db'"),
    "a trigger that loads code": with_sql(
        "CREATE TRIGGER evil AFTER INSERT ON orders BEGIN SELECT load_extension('escaped'); END", "trigger"
    ),
    "a trigger on inserts": with_sql(
        "CREATE TRIGGER evil AFTER INSERT ON orders BEGIN DELETE FROM orders; END", "trigger"
    ),
    "a virtual table over a file": with_sql("CREATE VIRTUAL TABLE evil USING csv(filename='/etc/passwd')"),
    "a view that is a pragma": with_sql("PRAGMA writable_schema = ON", "view"),
    "a table in another schema": with_sql("CREATE TABLE temp.evil (x)"),
    "no statement": swap_sql(""),
    "a statement for another table": swap_sql("CREATE TABLE other (x)"),
    "a comment that hides": swap_sql("/* */ ATTACH DATABASE 'escaped.db' AS evil"),
}
HARMLESS = {
    "a number that counts for ever",
    "an absurd fencing token",
    "an absurd time",
    "a shape of other columns",
    "a page size to choke on",
    "a setting that is a statement",
    "shadows that are nothing",
    "counters of nothing",
}
"""What does not concern the rows of a restore: then they come back right."""
BELIEVED = {
    "keys that are no globs",
    "a trigger on inserts",
    "a trigger that loads code",
    "a virtual table over a file",
}
"""What an honest backup of another state could say as well: it is restored, but nothing in it acts by itself."""
