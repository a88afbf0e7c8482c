"""Values of fields, as a person reads them and as JSON; long ones are cut, and say so."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from datetime import date, datetime, time
from decimal import Decimal

from pydantic import JsonValue

from flows.compare import Absent
from flows.units import human_bytes

SHOWN_CHARACTERS = 60
"""Longest text of a value on a terminal."""

JSON_TEXT_CHARACTERS = 64 * 1024
JSON_BINARY_BYTES = 1024
"""Longest values that JSON output carries whole; of longer ones it gives size and SHA-256."""


def pair_text(old: object, new: object) -> tuple[str, str]:
    """Write a value before and after; of long texts, the piece where they begin to differ."""
    one, two = _text(old), _text(new)
    if len(one) <= SHOWN_CHARACTERS and len(two) <= SHOWN_CHARACTERS:
        return one, two
    start = 0
    if not isinstance(old, Absent) and not isinstance(new, Absent):
        length = min(len(one), len(two))
        first = next((n for n in range(length) if one[n] != two[n]), length)
        start = first - 10 if first > SHOWN_CHARACTERS - 20 else 0
    return _cut(one, start), _cut(two, start)


def value_json(value: object) -> JsonValue:
    """Write a value as JSON; what JSON has no form for becomes an object that names its form."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else {"float": repr(value)}
    if isinstance(value, str):
        if len(value) <= JSON_TEXT_CHARACTERS:
            return value
        return {"characters": len(value), "sha256": _sha256(value.encode("utf-8", "surrogatepass"))}
    if isinstance(value, bytes | bytearray):
        if len(value) <= JSON_BINARY_BYTES:
            return {"base64": b64encode(value).decode("ascii")}
        return {"bytes": len(value), "sha256": _sha256(value)}
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return str(value)


def _text(value: object) -> str:
    if isinstance(value, Absent):
        return "—"
    if value is None:
        return "NULL"
    if isinstance(value, bytes | bytearray):
        return _binary_text(bytes(value))
    if isinstance(value, datetime | date | time | Decimal):
        return str(value)
    return repr(value)


def _binary_text(value: bytes) -> str:
    """Show bytes that are short text as text, all others by their size and digest."""
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    if len(value) <= JSON_TEXT_CHARACTERS and text.replace("\n", "").replace("\t", "").isprintable() and text:
        return f"b{text!r}"
    return f"{human_bytes(len(value))} sha256 {_sha256(value)[:12]}" if value else "b''"


def _cut(text: str, start: int) -> str:
    piece = text[start : start + SHOWN_CHARACTERS]
    return ("…" if start else "") + piece + ("…" if start + SHOWN_CHARACTERS < len(text) else "")


def _sha256(value: bytes | bytearray) -> str:
    return hashlib.sha256(value).hexdigest()
