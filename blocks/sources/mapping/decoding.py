"""Canonical text back to Python values; `values.py` tells what the text looks like."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, Flag
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from blocks.errors import CorruptionDetected, LastgoodError, RestoreRefused
from blocks.sources.mapping.models import made_of
from blocks.sources.mapping.parts import kind_named
from blocks.sources.mapping.running import FAILURES, told
from blocks.sources.mapping.types import PLAIN_CLASSES, Types
from blocks.sources.mapping.values import MAX_DEPTH


def decode(text: str, key: str, types: Types) -> object:
    """Read a value from its text.

    Raises:
        RestoreRefused: It names a class or a time zone that is not allowed or not there.
        CorruptionDetected: It is not what `encode` writes.
    """
    try:
        return _Decoder(types).decode(json.loads(text, parse_constant=_no_constant), 0)
    except LastgoodError as exc:
        raise type(exc)(f"key {key!r}: {exc.message}", hint=exc.hint) from exc
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError) as exc:
        raise CorruptionDetected(
            f"the value of key {key!r} is not one that lastgood wrote: {exc}", hint="Do not trust this backup."
        ) from exc
    except FAILURES as exc:  # classes may have code of the user's, which may raise anything
        raise RestoreRefused(
            f"the value of key {key!r} cannot be made again: {told(exc)}",
            hint="Install the version of the code that was backed up.",
        ) from exc


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a value")


class _Decoder:
    """Turns JSON trees into values, bottom up."""

    def __init__(self, types: Types) -> None:
        self._types = types

    def decode(self, tree: Any, depth: int) -> Any:
        """Turn one tree into a value."""
        if depth > MAX_DEPTH:
            raise ValueError(f"nested more than {MAX_DEPTH} deep")
        if isinstance(tree, list):
            return self._all(tree, depth)
        if not isinstance(tree, dict):
            return tree
        if len(tree) == 1:
            (tag, content), *_ = tree.items()
            if tag.startswith("$"):
                return _READERS[tag](self, content, depth)
        return {key: self.decode(item, depth + 1) for key, item in tree.items()}

    def _all(self, trees: list[Any], depth: int) -> list[Any]:
        return [self.decode(tree, depth + 1) for tree in trees]

    def integer(self, content: str, depth: int) -> int:
        """Read a whole number in base 16."""
        return int(content, 16)

    def real(self, content: str, depth: int) -> float:
        """Read a float that JSON lacks."""
        if content in ("nan", "inf", "-inf"):
            return float(content)
        return float(struct.unpack(">d", bytes.fromhex(content))[0])

    def octets(self, content: str, depth: int) -> bytes:
        """Read bytes."""
        return base64.b64decode(content, validate=True)

    def moment(self, content: list[Any], depth: int) -> datetime:
        """Read a datetime with its zone."""
        iso, fold, zone = content
        return datetime.fromisoformat(iso).replace(fold=fold, tzinfo=_zone(zone))

    def clock(self, content: list[Any], depth: int) -> time:
        """Read a time with its zone."""
        iso, fold, zone = content
        return time.fromisoformat(iso).replace(fold=fold, tzinfo=_zone(zone))

    def day(self, content: str, depth: int) -> date:
        """Read a date."""
        return date.fromisoformat(content)

    def span(self, content: list[int], depth: int) -> timedelta:
        """Read a timedelta."""
        days, seconds, microseconds = content
        return timedelta(days, seconds, microseconds)

    def decimal(self, content: str, depth: int) -> Decimal:
        """Read a decimal."""
        return Decimal(content)

    def uuid(self, content: str, depth: int) -> UUID:
        """Read a UUID."""
        return UUID(content)

    def fixed(self, content: list[Any], depth: int) -> tuple[Any, ...]:
        """Read a tuple."""
        return tuple(self._all(content, depth))

    def members(self, content: list[Any], depth: int) -> set[Any]:
        """Read a set."""
        return set(self._all(content, depth))

    def frozen_members(self, content: list[Any], depth: int) -> frozenset[Any]:
        """Read a frozenset."""
        return frozenset(self._all(content, depth))

    def mapping(self, content: list[Any], depth: int) -> dict[Any, Any]:
        """Read a dict whose keys are not all text."""
        return {self.decode(key, depth + 1): self.decode(item, depth + 1) for key, item in content}

    def enum(self, content: list[str], depth: int) -> Enum:
        """Read a member of an enum by its name."""
        path, name = content
        members = self._enum(path).__members__
        if name not in members:
            raise RestoreRefused(f"{path} has no member {name!r}", hint="Install the version of the code that has it.")
        return members[name]

    def flag(self, content: list[Any], depth: int) -> Enum:
        """Read a combination of flags."""
        path, number = content
        kind = self._enum(path)
        if not issubclass(kind, Flag):
            raise RestoreRefused(f"{path} is not a Flag", hint="Install the version of the code that was backed up.")
        return kind(self.decode(number, depth + 1))

    def _enum(self, path: str) -> type[Enum]:
        kind = self._types.find(path)
        if not issubclass(kind, Enum):
            raise RestoreRefused(f"{path} is not an Enum", hint="Install the version of the code that was backed up.")
        return kind

    def dataclass(self, content: list[Any], depth: int) -> object:
        """Read an instance of a class by its fields, or what a kind puts together of its parts."""
        path, pairs = content
        values = {name: self.decode(item, depth + 1) for name, item in pairs}
        if path == "builtins:type":
            return PLAIN_CLASSES.get(values["path"]) or self._types.find(values["path"])
        if (kind := kind_named(path)) is not None:
            return kind.together(values)
        return made_of(self._types.find(path), path, values)


def _zone(zone: Any) -> tzinfo | None:
    if zone is None:
        return None
    if "zone" in zone:
        try:
            return ZoneInfo(zone["zone"])
        except (ZoneInfoNotFoundError, OSError) as exc:
            raise RestoreRefused(
                f"the time zone {zone['zone']!r} is not known here", hint="Install the system's time zones, or tzdata."
            ) from exc
    offset = timedelta(microseconds=zone["offset"])
    return timezone(offset) if zone["name"] is None else timezone(offset, zone["name"])


_READERS: dict[str, Callable[[_Decoder, Any, int], Any]] = {
    "$int": _Decoder.integer,
    "$float": _Decoder.real,
    "$bytes": _Decoder.octets,
    "$datetime": _Decoder.moment,
    "$time": _Decoder.clock,
    "$date": _Decoder.day,
    "$timedelta": _Decoder.span,
    "$decimal": _Decoder.decimal,
    "$uuid": _Decoder.uuid,
    "$tuple": _Decoder.fixed,
    "$set": _Decoder.members,
    "$frozenset": _Decoder.frozen_members,
    "$dict": _Decoder.mapping,
    "$enum": _Decoder.enum,
    "$flag": _Decoder.flag,
    "$dataclass": _Decoder.dataclass,
}
