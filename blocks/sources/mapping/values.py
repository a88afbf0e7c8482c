"""Python values as canonical text, and back: the same value of the same types always gives the same text.

The text is JSON. What JSON has is written as it is: null, booleans, whole numbers of up to 64 bits, finite floats,
text, lists, and dicts with text keys. Everything else is an object of one member whose name begins with `$`:

    {"$int": "-0x1f.."}                        a larger whole number, in base 16
    {"$float": "nan"}                          nan, inf, -inf, or the 16 digits (base 16) of another NaN's bits
    {"$bytes": "base64"}
    {"$datetime": ["2024-01-31T12:00:00.000001", fold, zone]}      and "$time" alike
    {"$date": "2024-01-31"}    {"$timedelta": [days, seconds, microseconds]}
    {"$decimal": "1.50"}       {"$uuid": "..."}
    {"$tuple": [..]}           {"$set": [..]} and {"$frozenset": [..]}, sorted by their members' texts
    {"$dict": [[key, value], ..]}              a dict with other keys than text, or text that begins with `$`
    {"$enum": ["package.module:Class", name]}  {"$flag": ["package.module:Class", number]}
    {"$dataclass": ["package.module:Class", [[field, value], ..]]}

Named tuples, pydantic models, and what `parts.py` takes apart (deques, arrays, frames, ...) are written as dataclasses
are, by the import path of their class and their fields or parts.

A zone is null, {"offset": microseconds, "name": text or null}, or {"zone": "Europe/Berlin"}. Dicts keep their order.
"""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, Flag
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import JsonValue

from blocks.errors import LastgoodError, SourceChanged, UnsupportedState
from blocks.sources.mapping.kind import NamedClass, NotKept, Parts
from blocks.sources.mapping.models import fields_of
from blocks.sources.mapping.parts import kind_of
from blocks.sources.mapping.running import FAILURES, told
from blocks.sources.mapping.types import PLAIN_CLASSES, Types, import_path

MAX_DEPTH = 100
"""How deep values may be nested; one that contains itself is found by it."""

_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_WORD_BITS = 64
_KEY, _MEMBER = ".keys()", ".member"


def encode(value: object, key: str, types: Types, seen: Callable[[str], None] = lambda path: None) -> str:
    """Write a value as canonical text.

    Args:
        value: The Python value to encode.
        key: The key that the value is kept under; for messages.
        types: Enums and dataclasses that may be named.
        seen: Called with the import path of each class that is named.

    Raises:
        UnsupportedState: It, or something inside, cannot come back as it was; key and place within are named.
        SourceChanged: It was changed meanwhile.
    """
    try:
        return _text(_Encoder(key, types, seen).encode(value, ()))
    except LastgoodError:
        raise
    except RuntimeError as exc:  # so Python says that a container is being changed while it is looped over
        raise SourceChanged(f"the value of key {key!r} changed while it was read: {exc}") from exc
    except FAILURES as exc:  # classes may have code of the user's, which may raise anything
        raise UnsupportedState(f"the value of key {key!r} cannot be read: {told(exc)}") from exc


def _text(tree: JsonValue) -> str:
    return _JSON.encode(tree)


_Path = tuple[str | tuple[object], ...]
"""Steps from the whole to a part of it: a text as it is shown, or what stands in brackets, alone in a tuple."""


class _Encoder:
    """Turns one value into what JSON can hold."""

    def __init__(self, key: str, types: Types, seen: Callable[[str], None]) -> None:
        self._key, self._types, self._seen = key, types, seen

    def encode(self, value: Any, path: _Path) -> JsonValue:
        """Turn a value, found at a path within the whole, into a JSON tree."""
        if len(path) > MAX_DEPTH:
            raise self._refused(path[:5], f"nested more than {MAX_DEPTH} deep, or contains itself")
        writer = _WRITERS.get(type(value))
        if writer is not None:
            return writer(self, value, path)
        if isinstance(value, Enum):
            return self._enum(value, path)
        if isinstance(value, NamedClass):
            return self._fields("builtins:type", {"path": self._named_class(value.kind, path)}, path)
        try:
            if (kind := kind_of(value)) is not None:
                return self._fields(kind.path, kind.apart(value), path)
            if (fields := fields_of(value)) is not None:
                return self._fields(self._class(type(value), path), fields, path)
        except NotKept as exc:
            raise self._refused(path, str(exc)) from exc
        raise self._refused(path, f"of type {import_path(type(value))}, which cannot be kept exactly")

    def _fields(self, where: str, fields: Parts, path: _Path) -> JsonValue:
        """Write an instance of a class by its fields, or by what its kind takes it apart into."""
        return {"$dataclass": [where, [[n, self.encode(item, (*path, f".{n}"))] for n, item in fields.items()]]}

    def _named_class(self, value: type, path: _Path) -> str:
        where = import_path(value)
        return where if PLAIN_CLASSES.get(where) is value else self._class(value, path)

    def plain(self, value: Any, path: _Path) -> JsonValue:
        """Write what JSON has."""
        return value  # type: ignore[no-any-return]

    def text(self, value: str, path: _Path) -> JsonValue:
        """Write text."""
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as exc:
                raise self._refused(path, "text with a lone surrogate, which is no Unicode") from exc
        return value

    def integer(self, value: int, path: _Path) -> JsonValue:
        """Write a whole number; the large ones in base 16, whose digits Python does not limit."""
        return value if value.bit_length() < _WORD_BITS else {"$int": hex(value)}

    def real(self, value: float, path: _Path) -> JsonValue:
        """Write a float; what JSON lacks by name, or by its bits."""
        if math.isfinite(value):
            return value
        named = struct.pack(">d", value) in _NAMED_BITS
        return {"$float": str(value) if named else struct.pack(">d", value).hex()}

    def octets(self, value: bytes, path: _Path) -> JsonValue:
        """Write bytes."""
        return {"$bytes": base64.b64encode(value).decode()}

    def moment(self, value: datetime | time, path: _Path) -> JsonValue:
        """Write a datetime or a time with its zone and fold."""
        iso = value.replace(tzinfo=None, fold=0).isoformat()
        return {f"${type(value).__name__}": [iso, value.fold, self._zone(value.tzinfo, path)]}

    def _zone(self, zone: tzinfo | None, path: _Path) -> JsonValue:
        if zone is None:
            return None
        if type(zone) is ZoneInfo and zone.key is not None:
            return {"zone": zone.key}
        if type(zone) is timezone:
            offset, name = zone.utcoffset(None), self.text(zone.tzname(None), path)
            return {
                "offset": offset // timedelta(microseconds=1),
                "name": None if name == timezone(offset).tzname(None) else name,
            }
        raise self._refused(path, f"in a time zone of type {import_path(type(zone))}, which cannot be kept")

    def span(self, value: timedelta, path: _Path) -> JsonValue:
        """Write a timedelta."""
        return {"$timedelta": [value.days, value.seconds, value.microseconds]}

    def by_text(self, value: date | Decimal | UUID, path: _Path) -> JsonValue:
        """Write what its own text describes wholly."""
        return {f"${type(value).__name__.lower()}": str(value)}

    def row(self, value: list[object], path: _Path) -> JsonValue:
        """Write a list."""
        return [self.encode(item, (*path, (n,))) for n, item in enumerate(value)]

    def fixed(self, value: tuple[object, ...], path: _Path) -> JsonValue:
        """Write a tuple."""
        return {"$tuple": self.row(value, path)}  # type: ignore[arg-type]

    def members(self, value: Iterable[object], path: _Path) -> JsonValue:
        """Write a set, in an order that depends on its members alone."""
        inside = (*path, _MEMBER)
        return {f"${type(value).__name__}": sorted((self.encode(item, inside) for item in value), key=_text)}

    def mapping(self, value: dict[object, object], path: _Path) -> JsonValue:
        """Write a dict in its order."""
        pairs = [(key, self.encode(item, (*path, (key,)))) for key, item in value.items()]
        if all(type(key) is str and not key.startswith("$") for key, _ in pairs):
            return {str(self.text(key, path)): item for key, item in pairs}  # type: ignore[arg-type]
        return {"$dict": [[self.encode(key, (*path, _KEY)), item] for key, item in pairs]}

    def _enum(self, value: Enum, path: _Path) -> JsonValue:
        where = self._class(type(value), path)
        if isinstance(value, Flag):
            return {"$flag": [where, self.encode(value.value, (*path, ".value"))]}
        return {"$enum": [where, value.name]}

    def _class(self, kind: type, path: _Path) -> str:
        where = import_path(kind)
        if not self._types.allows(where):
            hint = "Add its import path to the source's `types`: a restore imports no other classes."
            raise self._refused(path, f"of type {where}, which the plan does not allow", hint)
        if not self._types.returns(kind):
            raise self._refused(path, f"of type {where}, which cannot be found again by that import path")
        self._seen(where)
        return where

    def _refused(self, path: _Path, what: str, hint: str = "") -> UnsupportedState:
        steps = (step if isinstance(step, str) else f"[{_shown(step[0])}]" for step in path)
        place = f" at {''.join(steps)}" if path else ""
        return UnsupportedState(f"the value of key {self._key!r}{place} is {what}", hint=hint)


def _shown(value: object) -> str:
    try:
        return f"{value!r:.60}"
    except FAILURES:  # a number of more digits than Python writes, or the user's own __repr__
        return f"a {type(value).__name__}"


_NAMED_BITS = {struct.pack(">d", float(name)) for name in ("nan", "inf", "-inf")}

_WRITERS: dict[type, Callable[[_Encoder, Any, _Path], JsonValue]] = {
    type(None): _Encoder.plain,
    bool: _Encoder.plain,
    str: _Encoder.text,
    int: _Encoder.integer,
    float: _Encoder.real,
    bytes: _Encoder.octets,
    datetime: _Encoder.moment,
    time: _Encoder.moment,
    date: _Encoder.by_text,
    timedelta: _Encoder.span,
    Decimal: _Encoder.by_text,
    UUID: _Encoder.by_text,
    list: _Encoder.row,
    tuple: _Encoder.fixed,
    set: _Encoder.members,
    frozenset: _Encoder.members,
    dict: _Encoder.mapping,
}
