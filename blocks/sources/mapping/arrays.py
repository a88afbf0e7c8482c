"""Arrays and scalars of numpy, kept in numpy's own file format (NPY), which names the type and the order of bytes."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np

from blocks.sources.mapping.kind import Kind, NotKept, Parts

_LONG = "gG"
"""Kinds of numbers whose bytes another machine takes for something else."""


def kind_of(value: object) -> Kind | None:
    """Return how an array or a scalar is kept; None where it is of another class, subclasses of arrays included."""
    if type(value) is np.ndarray:
        return _ARRAY
    if isinstance(value, np.str_ | np.bytes_):
        return _TEXT if isinstance(value, np.str_) else _BYTES
    return _SCALAR if isinstance(value, np.generic) else None


def kind_named(path: str) -> Kind | None:
    """Return the kind of a path."""
    return {kind.path: kind for kind in (_ARRAY, _TEXT, _BYTES, _SCALAR)}.get(path)


def _array(value: Any) -> Parts:
    if value.dtype == np.dtype(object):
        return {"shape": list(value.shape), "items": list(value.ravel())}
    return {"npy": _npy(value)}


def _npy(value: Any) -> bytes:
    dtype = value.dtype
    if dtype.hasobject or dtype.char in _LONG or dtype.kind == "T" or dtype.metadata:
        raise NotKept(f"of numpy's type {dtype}")
    file = BytesIO()
    np.save(file, value, allow_pickle=False)
    return file.getvalue()


def _array_back(parts: Parts) -> Any:
    if "npy" in parts:
        return np.load(BytesIO(parts["npy"]), allow_pickle=False)
    made = np.empty(len(parts["items"]), object)
    for n, item in enumerate(parts["items"]):  # an assignment as a whole would look into the items
        made[n] = item
    return made.reshape(parts["shape"])


_ARRAY = Kind("numpy:ndarray", _array, _array_back)
_SCALAR = Kind(
    "numpy:generic", lambda v: {"npy": _npy(v)}, lambda parts: np.load(BytesIO(parts["npy"]), allow_pickle=False)[()]
)
# these lose zeros at their end in arrays
_TEXT = Kind("numpy:str_", lambda v: {"text": v[:]}, lambda parts: np.str_(parts["text"]))
_BYTES = Kind("numpy:bytes_", lambda v: {"bytes": v[:]}, lambda parts: np.bytes_(parts["bytes"]))
