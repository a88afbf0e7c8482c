"""Manifests that no honest run makes, by what they try."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.faults.forging import Manifest, blobs_of

Change = Callable[[Manifest], object]


def first_segment(data: Manifest, collection: int = 0) -> Manifest:
    held = data["changed"] if data["inherits"] else data["collections"]
    return next(p["segment"] for p in held[collection]["parts"] if p["segment"])


def named(name: str) -> Change:
    return lambda data: first_segment(data)["data"].update(name=name)


def pack_named(name: str) -> Change:
    """Name a pack otherwise, in the list of objects and in all blobs."""

    def change(data: Manifest) -> None:
        for one in (*data["objects"], *blobs_of(data)):
            one["name"] = name

    return change


def in_blob(kind: str, **values: Any) -> Change:
    """Change a blob wherever it is named."""

    def change(data: Manifest) -> None:
        number = first_segment(data)[kind]["number"]
        for blob in (blob for blob in blobs_of(data) if blob["number"] == number):
            blob.update(values)

    return change


def moved(by: int, shorter: int) -> Change:
    """Let the first blob begin elsewhere."""

    def change(data: Manifest) -> None:
        blob = first_segment(data)["data"]
        in_blob("data", offset=blob["offset"] + by, size_bytes=blob["size_bytes"] - shorter)(data)

    return change


def ending(object_bytes: int, **values: int) -> Change:
    """Let the pack claim a size, and a blob lie in it."""

    def change(data: Manifest) -> None:
        data["objects"][0]["size_bytes"] = object_bytes
        in_blob("data", **values)(data)

    return change


def numbers_swapped(data: Manifest) -> None:
    first = first_segment(data)
    one, other = first["data"]["number"], first["index"]["number"]
    for blob in blobs_of(data):
        blob["number"] = {one: other, other: one}.get(blob["number"], blob["number"])


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
    "an object of another backup": named("../FUL_20260101_000000_abcd/00000.pack"),
    "a pack above": pack_named("../../../../escaped"),
    "a pack by an absolute path": pack_named("/etc/passwd"),
    "a pack that is the manifest": pack_named("manifest"),
    "a pack of another backup": pack_named("../FUL_20260101_000000_abcd/00000.pack"),
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
    "absurd numbers of upserts and tombstones": lambda d: first_segment(d).update(upserts=ABSURD, tombstones=ABSURD),
    "a negative number of upserts": lambda d: first_segment(d).update(upserts=-1),
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
    "a newer format": lambda d: d.update(format_version=3),
    "the format before": lambda d: d.update(format_version=1),
    "what nobody knows is required": lambda d: d.update(requires=["telepathy"]),
    "what is required is no list": lambda d: d.update(requires="telepathy"),
    "parts that changed, of a manifest that is complete": lambda d: d.update(
        changed=[{"name": d["collections"][0]["name"], "parts": []}]
    ),
    "a source as in the base, of a manifest that is complete": lambda d: d["sources"][0].update(
        definition={}, same_definition=True
    ),
    "an absurd sum of rows": lambda d: d.update(total_rows=ABSURD),
    "a negative sum of rows": lambda d: d.update(total_rows=-1),
    "an older format": lambda d: d.update(format_version=0),
    "an unknown field": lambda d: d.update(surprise=1),
    "unknown fields everywhere": lambda d: [
        one.update(surprise={"x": [1]})
        for one in (d["sources"][0], d["objects"][0], first_segment(d), first_segment(d)["key_range"], *blobs_of(d))
    ],
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

BLOBS: dict[str, Change] = {
    "a blob outside of its pack": lambda d: in_blob("data", offset=d["objects"][0]["size_bytes"])(d),
    "a blob that ends outside of its pack": lambda d: moved(d["objects"][0]["size_bytes"], 1)(d),
    "a blob of a pack that is not listed": in_blob("data", name="00077.pack"),
    "no packs": lambda d: d.update(objects=[]),
    "a pack listed twice": lambda d: d["objects"].append(d["objects"][0]),
    "a pack that is smaller than what is in it": lambda d: d["objects"][0].update(size_bytes=10),
    "a pack of a negative size": lambda d: d["objects"][0].update(size_bytes=-1),
    "a pack that says it is absurdly large": ending(ABSURD),
    "a pack of other bytes": lambda d: d["objects"][0].update(sha256="0" * 64),
    "a pack without blobs that is not there": lambda d: d["objects"].append(d["objects"][0] | {"name": "00099.pack"}),
    "a blob over the one before": moved(-1, 0),
    "a blob over the one behind": moved(0, -1),
    "a blob that begins later": moved(10, 10),
    "a blob of nothing": in_blob("data", size_bytes=0),
    "a blob of a header only": in_blob("data", size_bytes=42),
    "an absurd offset": in_blob("data", offset=ABSURD),
    "an absurd offset in a pack that is as large": ending(ABSURD * 2 - 1, offset=ABSURD),
    "an absurd size in a pack that is as large": ending(ABSURD, size_bytes=ABSURD),
    "an offset beyond 64 bits": ending(10**30, offset=10**29),
    "a negative offset": in_blob("data", offset=-1),
    "an index over the data": lambda d: in_blob(
        "index", **{what: first_segment(d)["data"][what] for what in ("offset", "size_bytes", "sha256")}
    )(d),
    "data over the index": lambda d: in_blob(
        "data", **{what: first_segment(d)["index"][what] for what in ("offset", "size_bytes", "sha256")}
    )(d),
    "a blob that names another one's number": lambda d: first_segment(d)["data"].update(
        number=first_segment(d)["index"]["number"]
    ),
    "blobs that have each other's numbers": numbers_swapped,
    "a blob without a number": in_blob("data", number=None),
    "a blob of a negative number": in_blob("data", number=-1),
    "a blob of an absurd number": in_blob("data", number=ABSURD),
    "a blob of a number beyond 64 bits": in_blob("data", number=10**30),
}
"""Blobs that are not where they are, or not what they are; done to parts that share blobs, and to those that do not."""

SHARED: dict[str, Any] = {
    "outside": lambda start, length: (start, 10**6),
    "far outside": lambda start, length: (ABSURD, ABSURD),
    "at the last number there is": lambda start, length: (2**63 - 1, 2**63 - 1),
    "beyond 64 bits": lambda start, length: (2**64, 1),
    "negative": lambda start, length: (-1, length),
    "negative in length": lambda start, length: (start, -length),
    "in the middle": lambda start, length: (start + 1, length - 1),
    "nothing": lambda start, length: (start, 0),
    "too short": lambda start, length: (start, length // 2),
    "three numbers": lambda start, length: (start, length, 0),
    "words": lambda start, length: ("a", "b"),
    "all of it": lambda start, length: None,
}
"""What a part says to be its own in a blob that it shares."""
NO_PLACE = {"beyond 64 bits", "negative", "negative in length", "three numbers", "words"}
"""What no manifest can say."""

INHERITING: dict[str, Change] = {
    "nothing wrong": lambda d: None,
    "an unknown field": lambda d: [one.update(surprise=1) for one in (d, d["changed"][0], d["changed"][0]["parts"][0])],
    "no base": lambda d: d.update(base=None, chain=[]),
    "a base without a chain": lambda d: d.update(chain=[]),
    "a chain without a base": lambda d: d.update(base=None),
    "a base of other bytes": lambda d: d["chain"][0].update(manifest_sha256="0" * 64),
    "a base that is not there": lambda d: d["chain"][0].update(backup_id="FUL_20260101_000000_abcd"),
    "itself for a base": lambda d: d.update(
        base=d["backup_id"], chain=[{"backup_id": d["backup_id"], "manifest_sha256": "0" * 64}]
    ),
    "a base above": lambda d: d.update(base="../../x", chain=[{"backup_id": "../../x", "manifest_sha256": "0" * 64}]),
    "nothing inherited": lambda d: d.update(inherits=False),
    "a change of a collection that the base has not": lambda d: d["changed"].append(
        {"name": "ledger/escaped", "parts": []}
    ),
    "a change of a collection above": lambda d: d["changed"][0].update(name="../../escaped"),
    "a change of a part that the base has not": lambda d: d["changed"][0]["parts"][0].update(number=99),
    "a change of an absurd part": lambda d: d["changed"][0]["parts"][0].update(number=ABSURD),
    "a change of a part of a negative number": lambda d: d["changed"][0]["parts"][0].update(number=-1),
    "a change without a segment": lambda d: d["changed"][0]["parts"][0].update(segment=None),
    "a change to an absurd number of rows": lambda d: d["changed"][0]["parts"][0].update(rows=ABSURD),
    "a collection changed twice": lambda d: d["changed"].append(d["changed"][0]),
    "a part changed twice": lambda d: d["changed"][0]["parts"].append(d["changed"][0]["parts"][0]),
    "a collection that the base has not": lambda d: d["collections"].append(whole(d, name="ledger/escaped", number=9)),
    "a collection whole, and changed as well": lambda d: d["collections"].append(whole(d, number=9)),
    "a collection without its parts": lambda d: (d["collections"].append(whole(d, parts=[])), d["changed"].pop(0)),
    "a definition as that of a source which the base has not": lambda d: d["sources"].append(
        d["sources"][0] | {"name": "escaped", "definition": {}, "same_definition": True}
    ),
    "a source of another name": lambda d: d["sources"][0].update(name="escaped"),
    "a definition, and that of the base as well": lambda d: d["sources"][0].update(
        definition={"objects": []}, same_definition=True
    ),
    "no packs": lambda d: d.update(objects=[]),
    "a blob outside of its pack": lambda d: in_blob("data", offset=d["objects"][0]["size_bytes"])(d),
    "a newer format": lambda d: d.update(format_version=3),
    "the format before": lambda d: d.update(format_version=1),
    "what nobody knows is required": lambda d: d.update(requires=["telepathy"]),
    "an absurd sum of rows": lambda d: d.update(total_rows=ABSURD),
    "a change left out": lambda d: d["changed"].pop(0),
    "all changes left out": lambda d: d.update(changed=[]),
}
"""Manifests that take something from a base."""


def whole(data: Manifest, **values: Any) -> Manifest:
    """Make a collection that stands for itself of one that changed."""
    shape = {"key": ["id"], "label": ["id"], "columns": [["id", "INTEGER"]], "definition": {}}
    return {"number": 0, "name": data["changed"][0]["name"], "parts": [], **shape, **values}


CONTRADICTING = {
    "parts that changed, of a manifest that is complete",
    "a source as in the base, of a manifest that is complete",
    "no base",
    "a base without a chain",
    "a collection changed twice",
    "a part changed twice",
    "a collection whole, and changed as well",
    "a change of a collection that the base has not",
    "a change of a part that the base has not",
    "a definition as that of a source which the base has not",
}
"""What a manifest says of its base and cannot be true."""

DESCRIBING_NOTHING = {"a shape of nothing known", "a source of nothing known"}
"""What no source can make anything of."""

NEWER = {"a newer format", "what nobody knows is required"}
"""Made by a newer lastgood, as far as one can see: that is no damage."""

HARMLESS = {
    "nothing wrong",
    "an unknown field",
    "unknown fields everywhere",
    "absurd numbers of upserts and tombstones",
    "a pack of other bytes",
    "a pack without blobs that is not there",
    "a pack that says it is absurdly large",
    "an index over the data",
    "a definition, and that of the base as well",
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
