"""Python's own values that are kept by their parts, and where those of numpy and pandas are looked for."""

from __future__ import annotations

import array
import collections
import ipaddress
import os
import pathlib
import re
from collections.abc import Mapping
from datetime import UTC, timezone
from fractions import Fraction
from functools import cache
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from blocks.errors import RestoreRefused
from blocks.sources.mapping.kind import Kind, NamedClass, NotKept, Parts


def kind_of(value: object) -> Kind | None:
    """Return how a value is kept by its parts; None where it is not."""
    known = _by_type().get(type(value))
    return known or (_beyond(type(value).__module__).kind_of(value) if _is_of_library(value) else None)


def kind_named(path: str) -> Kind | None:
    """Return the kind that a backup names; None where it is another class."""
    known = {kind.path: kind for kind in _by_type().values()}.get(path)
    return known or (_beyond(path).kind_named(path) if path.startswith(("numpy:", "pandas:")) else None)


def _is_of_library(value: object) -> bool:
    return type(value).__module__.partition(".")[0] in ("numpy", "pandas")


def _beyond(module: str) -> Any:
    """Return the module that knows a library's kinds; the library is there only where its values are."""
    if module.startswith("pandas"):
        from blocks.sources.mapping import frames  # pandas is slow to import, and optional

        return frames
    from blocks.sources.mapping import arrays  # like its sibling

    return arrays


def _by_text(kind: type) -> Kind:
    return Kind(f"{kind.__module__}:{kind.__qualname__}", lambda v: {"text": str(v)}, lambda parts: kind(parts["text"]))


def _path(name: str) -> Kind:
    kind: Any = getattr(pathlib, name)

    def together(parts: Parts) -> object:
        path = parts["path"]
        return kind(os.fsdecode(path) if isinstance(path, bytes) else path)

    # where modules were cut up, the class says another module than people import it from
    return Kind(f"pathlib:{name}", lambda v: {"path": _path_text(str(v))}, together)


def _path_text(path: str) -> str | bytes:
    try:
        path.encode()
    except UnicodeEncodeError:  # a name of the file system that is no UTF-8
        return os.fsencode(path)
    return path


def _pairs(kind: Any) -> Kind:
    """Keep a dict of another class by its items, in their order; it has no other state."""
    return Kind(
        f"collections:{kind.__name__}",
        lambda v: {"items": [list(item) for item in v.items()], **_attributes(v)},
        lambda parts: kind(dict(map(tuple, parts["items"]))),
    )


def _attributes(value: object) -> Mapping[str, Any]:
    if vars(value):
        raise NotKept(f"with the attribute {next(iter(vars(value)))!r} beside its items")
    return {}


def _factory(value: collections.defaultdict[Any, Any]) -> NamedClass | None:
    factory = value.default_factory
    if factory is not None and not isinstance(factory, type):
        raise NotKept("a defaultdict whose default_factory is no class")
    return None if factory is None else NamedClass(factory)


def _default_dict(parts: Parts) -> object:
    return collections.defaultdict(parts["default_factory"], map(tuple, parts["items"]))


@cache
def _by_type() -> dict[type, Kind]:
    kinds: dict[type, Kind] = {
        bytearray: Kind("builtins:bytearray", lambda v: {"bytes": bytes(v)}, lambda p: bytearray(p["bytes"])),
        complex: Kind(
            "builtins:complex", lambda v: {"real": v.real, "imag": v.imag}, lambda p: complex(p["real"], p["imag"])
        ),
        Fraction: Kind(
            "fractions:Fraction",
            lambda v: {"numerator": v.numerator, "denominator": v.denominator},
            lambda p: Fraction(p["numerator"], p["denominator"]),
        ),
        collections.deque: Kind(
            "collections:deque",
            lambda v: {"items": list(v), "maxlen": v.maxlen},
            lambda p: collections.deque(p["items"], p["maxlen"]),
        ),
        collections.OrderedDict: _pairs(collections.OrderedDict),
        collections.Counter: _pairs(collections.Counter),
        collections.defaultdict: Kind(
            "collections:defaultdict",
            lambda v: {"default_factory": _factory(v), "items": [list(item) for item in v.items()]},
            _default_dict,
        ),
        collections.ChainMap: Kind(
            "collections:ChainMap", lambda v: {"maps": list(v.maps)}, lambda p: collections.ChainMap(*p["maps"])
        ),
        SimpleNamespace: Kind(
            "types:SimpleNamespace",
            lambda v: {"attributes": dict(vars(v))},
            lambda p: SimpleNamespace(**p["attributes"]),
        ),
        array.array: Kind(
            "array:array",
            lambda v: {"typecode": v.typecode, "items": list(v)},
            lambda p: array.array(p["typecode"], p["items"]),
        ),
        re.Pattern: Kind(
            "re:Pattern",
            lambda v: {"pattern": v.pattern, "flags": v.flags},
            lambda p: re.compile(p["pattern"], p["flags"]),
        ),
        ZoneInfo: Kind("zoneinfo:ZoneInfo", _zone_key, _zone_back),
        timezone: Kind(
            "datetime:timezone",
            lambda v: {"offset": v.utcoffset(None), "name": v.tzname(None)},
            lambda p: _fixed_zone(p["offset"], p["name"]),
        ),
    }
    names = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
    kinds |= {getattr(pathlib, name): _path(name) for name in names}
    internet = ("Address", "Network", "Interface")
    versions = (getattr(ipaddress, f"IPv{n}{what}") for n in (4, 6) for what in internet)
    return kinds | {kind: _by_text(kind) for kind in versions}


def _zone_key(zone: ZoneInfo) -> Parts:
    if zone.key is None:
        raise NotKept("a time zone without a name")
    return {"key": zone.key}


def _fixed_zone(offset: Any, name: str) -> timezone:
    plain = timezone(offset) if offset else UTC
    return plain if plain.tzname(None) == name else timezone(offset, name)


def _zone_back(parts: Parts) -> ZoneInfo:
    try:
        return ZoneInfo(parts["key"])
    except (ZoneInfoNotFoundError, OSError) as exc:
        raise RestoreRefused(
            f"the time zone {parts['key']!r} is not known here", hint="Install the system's time zones, or tzdata."
        ) from exc
