"""Instances of the user's own classes: which are kept, by which fields, and how they come back without running code."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Any, Generic

from pydantic import BaseModel

from blocks.errors import RestoreRefused
from blocks.sources.mapping.kind import NotKept, Parts
from blocks.sources.mapping.types import import_path

_HEAP_TYPE = 1 << 9
"""In a class's flags: it was made by a class statement, so that its state is its attributes."""
_PYDANTIC = ("__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")


def fields_of(value: Any) -> Parts | None:
    """Return the fields of a dataclass, a named tuple or a pydantic model; None where it is none of them.

    Raises:
        NotKept: It is more than its fields.
    """
    if isinstance(value, BaseModel):
        return _model_fields(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _dataclass_fields(value)
    return _tuple_fields(value) if isinstance(value, tuple) and _is_named_tuple(type(value)) else None


def _dataclass_fields(value: Any) -> Parts:
    kind = type(value)
    if any(not c.__flags__ & _HEAP_TYPE for c in kind.__mro__ if c not in (object, Generic)):
        raise NotKept(f"of type {import_path(kind)}, which is more than its fields")
    names = [field.name for field in dataclasses.fields(value)]
    extra = [name for name in _attributes(value) if name not in names]
    missing = [name for name in names if not hasattr(value, name)]
    if extra or missing:
        what = f"the attribute {extra[0]!r} beside its fields" if extra else f"no field {missing[0]!r}"
        raise NotKept(f"of type {import_path(kind)} and has {what}")
    return {name: getattr(value, name) for name in names}


def _tuple_fields(value: Any) -> Parts:
    kind = type(value)
    if extra := list(_attributes(value)):
        raise NotKept(f"of type {import_path(kind)} and has the attribute {extra[0]!r} beside its fields")
    return dict(zip(kind._fields, tuple.__iter__(value), strict=True))


def _model_fields(value: BaseModel) -> Parts:
    kept = {name: item for name, item in _attributes(value).items() if name in type(value).model_fields}
    if missing := [name for name in type(value).model_fields if name not in kept]:
        raise NotKept(f"of type {import_path(type(value))} and has no field {missing[0]!r}")
    return kept | {name: getattr(value, name) for name in _PYDANTIC}


def _attributes(value: object) -> dict[str, Any]:
    """Return the attributes of a value, without those that are computed when they are wanted."""
    kind = type(value)
    found = getattr(value, "__dict__", {})
    return {k: v for k, v in found.items() if not isinstance(getattr(kind, k, None), cached_property)}


def _is_named_tuple(kind: Any) -> bool:
    fields = getattr(kind, "_fields", None)
    return isinstance(fields, tuple) and all(isinstance(name, str) for name in fields) and hasattr(kind, "_make")


def made_of(kind: Any, path: str, fields: Parts) -> object:
    """Make an instance of a class with the fields that it had; none of its code runs.

    Raises:
        RestoreRefused: The class has other fields now.
    """
    if issubclass(kind, BaseModel):
        _check(kind.model_fields, set(fields) - set(_PYDANTIC), path, "pydantic model")
        return _made_model(kind, fields)
    if issubclass(kind, tuple) and _is_named_tuple(kind):
        _check(kind._fields, fields, path, "named tuple")
        return tuple.__new__(kind, [fields[name] for name in kind._fields])
    known = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else None
    _check(None if known is None else [field.name for field in known], fields, path, "dataclass")
    made = object.__new__(kind)
    for name, value in fields.items():
        object.__setattr__(made, name, value)
    return made


def _made_model(kind: Any, fields: Parts) -> object:
    made = object.__new__(kind)
    object.__setattr__(made, "__dict__", {name: item for name, item in fields.items() if name not in _PYDANTIC})
    for name in _PYDANTIC:
        object.__setattr__(made, name, fields[name])
    return made


def _check(known: Any, given: Any, path: str, what: str) -> None:
    if known is None or set(known) != set(given):
        raise RestoreRefused(
            f"{path} is not a {what} with the fields {', '.join(given)}",
            hint="Install the version of the code that was backed up.",
        )
