r"""The keys of a database as people read them: as a table of elements, and each as one object.

Names, elements and values are text. Bytes that are no UTF-8 are written as `\xff` in names and elements, as `--key`
takes them; such a value is in a column of its own in the table, and in base64 in an object.
"""

from __future__ import annotations

import json
import math
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pyarrow as pa
from pydantic import JsonValue

from blocks.errors import CorruptionDetected
from blocks.sources.redis.net.wire import unpacked
from blocks.sources.redis.rows import ELEMENTS, MODULE, Elements, id_struct, width_of

COLUMNS = (
    ("key", "text"),
    ("type", "text"),
    ("element", "text"),
    ("value", "text"),
    ("value_bytes", "binary"),
    ("expires_ms", "integer"),
)
"""One row for each element: `element` is the field of a hash, the index of an item of a list, a member of a set or
sorted set, the id of a stream's entry, and NULL for a string or what a module keeps. `value` is that of the field or
item, the score, or an entry's fields and values as a JSON list; NULL for members of sets. One that is no UTF-8 is in
`value_bytes`. `expires_ms` says, in milliseconds since 1970, when the field goes by itself, else when the key does."""

_SCHEMA = pa.schema(
    [
        ("key", pa.large_string()),
        ("type", pa.large_string()),
        ("element", pa.large_string()),
        ("value", pa.large_string()),
        ("value_bytes", pa.large_binary()),
        ("expires_ms", pa.int64()),
    ]
)


@dataclass
class _Key:
    """One key with its elements."""

    name: bytes
    type: str
    value: bytes | None
    expires_ms: int | None
    rows: list[tuple[bytes, bytes]] = field(default_factory=list)
    fields_ms: dict[bytes, int] = field(default_factory=dict)

    @property
    def elements(self) -> Elements:
        """Elements of a container, each with its value, in canonical order.

        Raises:
            CorruptionDetected: The value is none that a backup keeps.
        """
        if self.value is None or self.type == "stream":
            return self.rows
        items = _unpacked(self.value, self.name)
        if len(items) % width_of(self.type):
            raise CorruptionDetected(f"the value of key {text(self.name)} is not that of a {self.type}")
        return ELEMENTS[self.type](items)


def element_rows(rows: pa.Table) -> pa.Table:
    """Return one row for each element of each key.

    Args:
        rows: Stored rows with the columns of `SCHEMA` (rows.py), those of a key in order.

    Returns:
        The columns of `COLUMNS`.

    Raises:
        CorruptionDetected: A value is none that a backup keeps.
    """
    names, kinds, elements = list[str](), list[str](), list[str | None]()
    values, others, expiries = list[str | None](), list[bytes | None](), list[int | None]()
    for key in _keys(rows):
        name = text(key.name)
        for element, value, expires in _table_rows(key):
            names.append(name)
            kinds.append(key.type)
            elements.append(element)
            readable = None if value is None else _utf8(value)
            values.append(readable)
            others.append(value if readable is None else None)
            expiries.append(expires)
    columns = (names, kinds, elements, values, others, expiries)
    arrays = [pa.array(column, one.type) for column, one in zip(columns, _SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=_SCHEMA)


def key_rows(rows: pa.Table) -> pa.Table:
    """Return one row for each key: `key`, `type` and `expires_ms` of `COLUMNS`.

    Args:
        rows: Stored rows, as for `element_rows`.
    """
    if not rows.num_columns:
        return _SCHEMA.empty_table().select(["key", "type", "expires_ms"])
    heads = rows.filter(rows.column("element").is_null())
    names = pa.array([text(name) for name in heads.column("key").to_pylist()], pa.large_string())
    kinds, expiries = heads.column("type").cast(pa.large_string()), heads.column("expires_ms").cast(pa.int64())
    return pa.table({"key": names, "type": kinds, "expires_ms": expiries})


def objects(rows: pa.Table) -> Iterator[dict[str, JsonValue]]:
    """Yield each key as an object: `key`, `type`, `expires_at` (ISO 8601, or null) and `value`.

    A string is text; a hash an object; a list and a set are lists; of a sorted set there are pairs of member and score,
    in the order of scores; of a stream `entries` (each `id` and `fields`, pairs), `last_id` and `groups`. What is no
    UTF-8 is `{"base64": ...}`. Fields of a hash that go by themselves are in `fields_expire_at`.

    Args:
        rows: Stored rows, as for `element_rows`.

    Raises:
        CorruptionDetected: A value is none that a backup keeps.
    """
    for key in _keys(rows):
        shown: dict[str, JsonValue] = {"key": text(key.name), "type": key.type, "expires_at": moment(key.expires_ms)}
        shown["value"] = _value(key)
        if key.fields_ms:
            shown["fields_expire_at"] = {text(name): moment(at) for name, at in key.fields_ms.items()}
        yield shown


def text(data: bytes) -> str:
    r"""Write bytes as they are shown: as text, with `\xff` for what is no UTF-8."""
    return data.decode("utf-8", "backslashreplace")


def moment(expires_ms: int | None) -> str | None:
    """Write when a key goes by itself, as ISO 8601 in UTC; beyond the year 9999 the number itself."""
    if expires_ms is None:
        return None
    try:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=expires_ms)).isoformat()
    except OverflowError:
        return str(expires_ms)


def _keys(rows: pa.Table) -> Iterator[_Key]:
    if not rows.num_columns:
        return
    key: _Key | None = None
    for batch in rows.select(["key", "element", "type", "value", "expires_ms"]).to_batches(10_000):
        for name, element, kind, value, expires in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            if element is None:
                if key is not None:
                    yield key
                key = _Key(name, kind, value, expires)
            elif key is not None and key.name == name:
                key.rows.append((element, value))
                if expires is not None:
                    key.fields_ms[element] = expires
            else:
                raise CorruptionDetected(f"an element of key {text(name)} is there without the key")
    if key is not None:
        yield key


def _table_rows(key: _Key) -> Iterator[tuple[str | None, bytes | None, int | None]]:
    if key.type == "string" or key.type.startswith(MODULE) or key.type not in (*ELEMENTS, "stream"):
        yield None, key.value, key.expires_ms
        return
    elements = key.elements
    if not elements:
        yield None, None, key.expires_ms
    for element, value in elements:
        expires = key.fields_ms.get(element, key.expires_ms)
        if key.type == "list":
            yield str(int.from_bytes(element, "big")), value, expires
        elif key.type == "stream":
            yield _id(element, key.name), _fields_text(value, key.name), expires
        else:
            yield text(element), None if key.type == "set" else value, expires


def _value(key: _Key) -> JsonValue:
    match key.type:
        case "hash":
            return {text(name): _plain(value) for name, value in key.elements}
        case "list":
            return [_plain(value) for _, value in key.elements]
        case "set":
            return [_plain(member) for member, _ in key.elements]
        case "zset":
            scored = sorted(key.elements, key=lambda pair: (float(pair[1]), pair[0]))
            return [[_plain(member), _score(score)] for member, score in scored]
        case "stream":
            return _stream(key)
    return None if key.value is None else _plain(key.value)


def _stream(key: _Key) -> JsonValue:
    entries: list[JsonValue] = []
    for element, value in key.elements:
        words = _unpacked(value, key.name)
        pairs: list[JsonValue] = [
            [_plain(name), _plain(said)] for name, said in zip(words[::2], words[1::2], strict=True)
        ]
        entries.append({"id": _id(element, key.name), "fields": pairs})
    head = iter(_unpacked(key.value or b"", key.name))
    try:
        last, _, _ = next(head), next(head), next(head)
        groups = [_group(name, head) for name in head]
    except (StopIteration, RuntimeError, ValueError) as exc:
        raise CorruptionDetected(f"the head of stream {text(key.name)} is none that a backup keeps") from exc
    return {"entries": entries, "last_id": text(last), "groups": groups}


def _group(name: bytes, words: Iterator[bytes]) -> JsonValue:
    last, _ = next(words), next(words)
    consumers: list[JsonValue] = [text(next(words)) for _ in range(int(next(words)))]
    pending = int(next(words))
    for _ in range(4 * pending):
        next(words)
    return {"name": text(name), "last_delivered_id": text(last), "consumers": consumers, "pending": pending}


def _fields_text(value: bytes, key: bytes) -> bytes:
    """Write the fields of an entry as a JSON list, so that they can be taken apart in SQL."""
    return json.dumps([text(word) for word in _unpacked(value, key)], ensure_ascii=False).encode()


def _unpacked(value: bytes, key: bytes) -> list[bytes]:
    try:
        return unpacked(value)
    except ValueError as exc:
        raise CorruptionDetected(f"the value of key {text(key)} is none that a backup keeps: {exc}") from exc


def _id(element: bytes, key: bytes) -> str:
    if len(element) != id_struct.size:
        raise CorruptionDetected(f"an entry of stream {text(key)} has an id that is none")
    return "{}-{}".format(*id_struct.unpack(element))


def _score(score: bytes) -> JsonValue:
    number = float(score)
    return number if math.isfinite(number) else text(score)


def _utf8(value: bytes) -> str | None:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def _plain(value: bytes) -> JsonValue:
    readable = _utf8(value)
    return {"base64": b64encode(value).decode()} if readable is None else readable
