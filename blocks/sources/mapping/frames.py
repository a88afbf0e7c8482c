"""Values of pandas, kept by the arrays that they are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from blocks.sources.mapping.kind import Kind, NotKept, Parts


def kind_of(value: object) -> Kind | None:
    """Return how a value of pandas is kept; None where it is of another class, subclasses included."""
    if isinstance(value, pd.Index):
        return _INDEX
    if value is pd.NaT or value is pd.NA:
        return _NAT if value is pd.NaT else _NA
    return {kind.path: kind for kind in _KINDS}.get(f"pandas:{type(value).__name__}")


def kind_named(path: str) -> Kind | None:
    """Return the kind of a path."""
    return {kind.path: kind for kind in (*_KINDS, _INDEX, _NAT, _NA)}.get(path)


def _timestamp(value: Any) -> Parts:
    return {"value": int(value.asm8.view("i8")), "unit": value.unit, "zone": value.tzinfo}


def _timestamp_back(parts: Parts) -> Any:
    moment = pd.Timestamp(np.datetime64(parts["value"], parts["unit"]))
    return moment if parts["zone"] is None else moment.tz_localize("UTC").tz_convert(parts["zone"])


def _timedelta(value: Any) -> Parts:
    return {"value": int(value.asm8.view("i8")), "unit": value.unit}


def _column(held: Any) -> Parts:
    """Take the values of a series or an index apart, by their type."""
    dtype, values = held.dtype, held.array
    if isinstance(dtype, np.dtype):
        return {"kind": "numpy", "values": held.to_numpy()}
    if isinstance(dtype, pd.DatetimeTZDtype):
        naive = values.tz_convert("UTC").tz_localize(None)
        return {"kind": "zoned", "values": np.asarray(naive), "zone": dtype.tz}
    if isinstance(dtype, pd.CategoricalDtype):
        codes = np.asarray(values.codes)
        return {"kind": "categories", "codes": codes, "categories": dtype.categories, "ordered": bool(dtype.ordered)}
    if isinstance(dtype, pd.StringDtype):
        texts = values.to_numpy(dtype=object, na_value=None).tolist()
        return {"kind": "text", "values": texts, "storage": dtype.storage, "missing": _missing(dtype)}
    if dtype.name in _MASKED:
        mask = np.asarray(values.isna())
        plain = values.to_numpy(dtype=dtype.numpy_dtype, na_value=dtype.numpy_dtype.type(0))
        return {"kind": "masked", "values": plain, "mask": mask}
    raise NotKept(f"with values of pandas' type {dtype}")


def _missing(dtype: Any) -> str:
    return "NA" if getattr(dtype, "na_value", pd.NA) is pd.NA else "nan"


def _column_back(parts: Parts) -> Any:
    match parts["kind"]:
        case "numpy":
            return parts["values"]
        case "zoned":
            return pd.DatetimeIndex(parts["values"]).tz_localize("UTC").tz_convert(parts["zone"]).array
        case "categories":
            return pd.Categorical.from_codes(parts["codes"], parts["categories"], ordered=parts["ordered"])
        case "text":
            other = {} if parts["missing"] == "NA" else {"na_value": np.nan}
            return pd.array(parts["values"], dtype=pd.StringDtype(parts["storage"], **other))
        case "masked":
            values = parts["values"]
            kinds = {"b": pd.arrays.BooleanArray, "f": pd.arrays.FloatingArray}
            return kinds.get(values.dtype.kind, pd.arrays.IntegerArray)(values, parts["mask"])
    raise ValueError(f"{parts['kind']!r} is no kind of column")


def _index(value: Any) -> Parts:
    names = list(value.names)
    if type(value) is pd.RangeIndex:
        return {"kind": "range", "bounds": [value.start, value.stop, value.step], "names": names}
    if type(value) is pd.MultiIndex:
        codes = [np.asarray(level) for level in value.codes]
        return {"kind": "levels", "levels": list(value.levels), "codes": codes, "names": names}
    if type(value) in (pd.DatetimeIndex, pd.TimedeltaIndex):
        return {"kind": "moments", "values": _column(value), "names": names, "freq": value.freqstr}
    if type(value) in (pd.Index, pd.CategoricalIndex):
        return {"kind": "plain", "values": _column(value), "names": names}
    raise NotKept(f"with an index of type {type(value).__name__}")


def _index_back(parts: Parts) -> Any:
    names = parts["names"]
    match parts["kind"]:
        case "range":
            return pd.RangeIndex(*parts["bounds"], name=names[0])
        case "levels":
            return pd.MultiIndex(parts["levels"], parts["codes"], names=names)
        case "moments":
            values = pd.Index(_column_back(parts["values"]), name=names[0])
            kind: Callable[..., Any] = type(values)
            return kind(values, freq=parts["freq"]) if parts["freq"] else values
        case "plain":
            values = _column_back(parts["values"])
            return pd.Index(values, dtype=values.dtype, name=names[0], tupleize_cols=False)
    raise ValueError(f"{parts['kind']!r} is no kind of index")


def _series(value: Any) -> Parts:
    return {"values": _column(value), "index": value.index, "name": value.name, "attrs": dict(value.attrs)}


def _series_back(parts: Parts) -> Any:
    made = _made_series(parts["values"], parts["index"])
    made.name, made.attrs = parts["name"], parts["attrs"]
    return made


def _made_series(column: Parts, index: Any) -> Any:
    values = _column_back(column)
    return pd.Series(values, index=index, dtype=values.dtype)  # said, or texts in objects would become another type


def _frame(value: Any) -> Parts:
    columns = [_column(value.iloc[:, n]) for n in range(value.shape[1])]
    return {"columns": value.columns, "index": value.index, "values": columns, "attrs": dict(value.attrs)}


def _frame_back(parts: Parts) -> Any:
    index = parts["index"]
    made = pd.DataFrame({n: _made_series(column, index) for n, column in enumerate(parts["values"])}, index=index)
    made.columns, made.attrs = parts["columns"], parts["attrs"]
    return made


_MASKED = {f"{sign}Int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)} | {"Float32", "Float64", "boolean"}
_KINDS = (
    Kind("pandas:Timestamp", _timestamp, _timestamp_back),
    Kind("pandas:Timedelta", _timedelta, lambda parts: pd.Timedelta(np.timedelta64(parts["value"], parts["unit"]))),
    Kind("pandas:Series", _series, _series_back),
    Kind("pandas:DataFrame", _frame, _frame_back),
)
_INDEX = Kind("pandas:Index", _index, _index_back)
_NAT = Kind("pandas:NaT", lambda _: {}, lambda _: pd.NaT)
_NA = Kind("pandas:NA", lambda _: {}, lambda _: pd.NA)
