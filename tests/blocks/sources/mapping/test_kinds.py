"""Values that are kept by their parts: they come back as they were, type and all, and what is not kept is named."""

from __future__ import annotations

import array
import base64
import enum
import io
import ipaddress
import re
import threading
from collections import ChainMap, Counter, OrderedDict, defaultdict, deque
from datetime import UTC, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.errors import CorruptionDetected, RestoreRefused, UnsupportedState
from blocks.sources.mapping.decoding import decode
from blocks.sources.mapping.types import Types
from blocks.sources.mapping.values import encode
from tests.blocks.sources.mapping.shop import Deal, Loose, Order, Place, Point, Side, Spot, Word

TYPES = Types("tests", ())


def back(value: object) -> Any:
    text = encode(value, "k", TYPES)
    made = decode(text, "k", TYPES)
    assert type(made) is type(value)
    assert encode(made, "k", TYPES) == text, "the text of equal values is the same"
    return made


PLAIN = [
    OrderedDict(b=1, a=2),
    defaultdict(list, {"a": [1], 2: []}),
    defaultdict(None, {1: 2}),
    defaultdict(Point, {}),
    Counter("abcab"),
    deque([1, "x", None]),
    deque([1, 2, 3], maxlen=3),
    deque(maxlen=0),
    bytearray(b"\0\xff"),
    bytearray(),
    Path("/a/b c"),
    Path(),
    Path("/tmp/not-utf8-\udcff"),
    PurePosixPath("a/../b"),
    PureWindowsPath("c:\\x\\y"),
    Fraction(-3, 7),
    Fraction(10**60, 3),
    1 + 2j,
    complex(-0.0, float("inf")),
    array.array("h", [1, -2]),
    SimpleNamespace(a=1, b=[2]),
    re.compile("a.b", re.IGNORECASE),
    ipaddress.ip_address("10.0.0.1"),
    ipaddress.ip_network("2001:db8::/32"),
    ZoneInfo("Europe/Berlin"),
    UTC,
    timezone(timedelta(hours=2), "somewhere"),
    Spot(1, y=Side.BUY),
    Place("here", Spot(1, 2)),
    [deque([(Fraction(1, 2), {"$x": bytearray(b"1")})]), {Spot(1, 2): Path("x")}, {Fraction(1, 3), 2j}],
]


@pytest.mark.parametrize("value", PLAIN, ids=lambda v: type(v).__name__)
def test_a_value_comes_back_as_it_was(value: Any) -> None:
    assert back(value) == value or isinstance(value, ChainMap)


def test_what_equality_does_not_show_comes_back_too() -> None:
    assert list(back(OrderedDict(b=1, a=2))) == ["b", "a"]
    assert back(deque([1], maxlen=7)).maxlen == 7
    assert back(defaultdict(set)).default_factory is set
    assert str(back(complex(-0.0, -0.0))) == str(complex(-0.0, -0.0))
    assert back(ChainMap({"a": 1}, {"a": 2, "b": 3})).maps == [{"a": 1}, {"a": 2, "b": 3}]
    assert back(UTC) is UTC


SCALARS = [
    np.float64(0.1), np.float32(0.1), np.float16(1.5), np.int8(-7), np.uint64(2**64 - 1), np.bool_(True),
    np.datetime64("2024-02-29T23:59:59.999999999"), np.datetime64("NaT"), np.timedelta64(5, "D"), np.str_("é\0"),
    np.complex64(1j), np.bytes_(b"a\0"), np.float64("nan"), np.float64(-0.0),
    np.array([(1, 2.5)], dtype=[("a", "<i4"), ("b", ">f8")])[0],
]  # fmt: skip


@pytest.mark.parametrize("value", SCALARS, ids=lambda v: f"{v.dtype}")
def test_a_scalar_of_numpy_comes_back_with_its_type_and_bits(value: Any) -> None:
    made = back(value)
    assert (made.dtype, made.tobytes()) == (value.dtype, value.tobytes())


ARRAYS = [
    np.arange(12).reshape(3, 4), np.asfortranarray(np.eye(3)), np.arange(10)[::-3], np.array(5), np.zeros((0, 3), "f4"),
    np.array([True, False]), np.array(["a", "é"]), np.array([1, 2], dtype=">i2"), np.array([b"x", b""]),
    np.array([(1, b"x")], dtype=[("n", "<u2"), ("s", "S3")]), np.array(["2024-01-01", "NaT"], dtype="M8[D]"),
    np.array([None, 1, "x", {"a": [Decimal(1)]}, [1, 2]], dtype=object), np.array([[1, None]], dtype=object),
]  # fmt: skip


@pytest.mark.parametrize("value", ARRAYS, ids=lambda v: f"{v.dtype}{v.shape}")
def test_an_array_comes_back_with_its_shape_type_and_order(value: Any) -> None:
    made = back(value)
    assert (made.shape, made.dtype) == (value.shape, value.dtype)
    assert made.tolist() == value.tolist() or value.dtype.kind == "M"
    if value.dtype.kind != "O":
        assert made.tobytes() == value.tobytes()
        assert made.flags.f_contiguous == value.flags.f_contiguous or not value.flags.forc


@pytest.mark.parametrize(
    "value",
    [
        np.longdouble(1),
        np.zeros(2, np.clongdouble),
        np.ma.array([1], mask=[1]),
        np.array([(None,)], dtype=[("a", object)]),
        np.array([threading.Event()], dtype=object),
    ],
)
def test_an_array_that_cannot_be_kept_everywhere_is_named(value: Any) -> None:
    with pytest.raises(UnsupportedState, match="key 'k'"):
        encode(value, "k", TYPES)


MOMENTS = [
    pd.Timestamp("2024-02-29 23:59:59.123456789"), pd.Timestamp("2024-10-27 01:30Z").tz_convert("Europe/Berlin"),
    pd.Timestamp("1600-01-01").as_unit("s"), pd.Timestamp("2024-01-01", tz="UTC"),
    pd.Timestamp("2024-01-01", tz=timezone(timedelta(hours=5))), pd.Timedelta(days=1, nanoseconds=7), pd.NaT, pd.NA,
]  # fmt: skip


@pytest.mark.parametrize("value", MOMENTS, ids=str)
def test_a_moment_of_pandas_comes_back_with_its_unit_and_zone(value: Any) -> None:
    made = back(value)
    assert repr(made) == repr(value)
    if isinstance(value, pd.Timestamp | pd.Timedelta) and value is not pd.NaT:
        assert made == value
        assert made.unit == value.unit


def frames() -> dict[str, pd.DataFrame]:
    days = pd.date_range("2024-01-01", periods=3, freq="D", tz="Europe/Berlin", name="day")
    odd = pd.DataFrame(
        {
            "int": [1, 2, 3],
            "float": np.array([0.1, np.nan, -0.0], "f4"),
            "object": pd.Series([None, "x", {"a": [1]}], dtype=object),
            "texts": pd.Series(["a", "b", None], dtype=object),
            "text": pd.Series(["a", None, "é"], dtype="str"),
            "string": pd.Series(["a", None, "é"], dtype="string"),
            "nullable": pd.array([1, None, 3], dtype="Int64"),
            "yes": pd.array([True, None, False], dtype="boolean"),
            "part": pd.array([1.5, None, 3], dtype="Float32"),
            "kind": pd.Categorical(["b", None, "a"], categories=["b", "a", "c"], ordered=True),
            "at": pd.to_datetime(["2024-01-01", None, "2024-01-03 01:02:03.000000001"], format="ISO8601"),
            "there": pd.to_datetime(["2024-10-27 00:30", "2024-10-27 01:30", None], utc=True).tz_convert(
                "Europe/Berlin"
            ),
            "span": pd.to_timedelta([1, None, 3], unit="D"),
        }
    )
    levels = pd.MultiIndex.from_product([["a", "b"], [1, 2]], names=["x", None])
    named = pd.DataFrame(np.eye(3), index=days, columns=pd.Index([1, "b", ("c", 2)], dtype=object, name="col"))
    named.attrs = {"source": "exchange", "n": Decimal("1.5")}
    twice = pd.DataFrame([[1, "x"], [2, "y"]], columns=["same", "same"], index=[7, 7])
    return {
        "odd": odd,
        "named": named,
        "levels": pd.DataFrame({"v": range(4)}, index=levels),
        "levels of columns": pd.DataFrame(np.zeros((2, 4)), columns=levels),
        "twice": twice,
        "no rows": odd.iloc[:0],
        "no columns": pd.DataFrame(index=[1, 2]),
        "nothing": pd.DataFrame(),
        "a slice": odd.iloc[::2],
    }


@pytest.mark.parametrize("name", frames())
def test_a_frame_comes_back_with_its_types_index_names_and_attributes(name: str) -> None:
    frame = frames()[name]
    made = back(frame)
    pd.testing.assert_frame_equal(made, frame, check_exact=True, check_freq=True, check_column_type="exact")
    assert (made.attrs, made.index.names, made.columns.names) == (frame.attrs, frame.index.names, frame.columns.names)
    assert [type(v) for v in made.to_numpy(object).ravel()] == [type(v) for v in frame.to_numpy(object).ravel()]


@pytest.mark.parametrize("column", frames()["odd"].columns)
def test_a_series_comes_back_with_its_type(column: str) -> None:
    series = frames()["odd"][column]
    pd.testing.assert_series_equal(back(series), series, check_exact=True)


@pytest.mark.parametrize("name", [None, 0, "x", ("a", 1), Side.BUY])
def test_a_series_comes_back_with_its_name(name: Any) -> None:
    assert back(pd.Series([1], name=name)).name == name


@pytest.mark.parametrize(
    "value",
    [
        pd.Series(pd.period_range("2024-01", periods=2, freq="M")),
        pd.Series([1], index=pd.interval_range(0, 1, periods=1)),
        pd.Series([1, 0], dtype="Sparse[int64]"),
        pd.Series([threading.Event()]),
        type("Frame", (pd.DataFrame,), {})(),
    ],
)
def test_what_of_pandas_is_not_kept_is_named(value: Any) -> None:
    with pytest.raises(UnsupportedState, match="key 'k'"):
        encode(value, "k", TYPES)


def test_models_come_back_without_validation_and_with_what_was_set() -> None:
    order = Order(side=Side.SELL, lines=[Deal(amount=Decimal("1.50"))], note=None)
    order._seen = 7
    assert order.total == 1  # computed when it is wanted, and no part of the state
    made = back(order)
    assert made == order
    assert made.model_fields_set == {"side", "lines", "note"}
    assert (made._seen, made.lines[0].amount) == (7, Decimal("1.50"))
    wrong = Deal.model_construct(amount="not a number")
    assert back(wrong).amount == "not a number"
    assert back(Loose(a=1, b=[Word.YES])).model_extra == {"a": 1, "b": [Word.YES]}


def test_classes_of_others_are_named_and_not_imported() -> None:
    text = encode(Spot(1, 2), "k", TYPES)
    for value in (Spot(1, 2), Deal(amount=Decimal(1)), defaultdict(Point)):
        with pytest.raises(UnsupportedState, match="does not allow"):
            encode(value, "k", Types("other", ()))
    with pytest.raises(RestoreRefused, match="does not allow"):
        decode(text, "k", Types("other", ()))
    with pytest.raises(RestoreRefused, match="does not allow"):
        decode('{"$dataclass":["builtins:type",[["path","os:_Environ"]]]}', "k", TYPES)
    with pytest.raises(RestoreRefused, match="not a named tuple with the fields x"):
        decode(text.replace('["y",2]', '["z",2]'), "k", TYPES)


@pytest.mark.parametrize(
    "value",
    [
        defaultdict(lambda: 0),
        type("Sub", (deque,), {})([1]),
        type("Odd", (OrderedDict,), {})(),
        deque([threading.Event()]),
        enum.Enum("Local", "A").A,  # type: ignore[attr-defined]
    ],
)
def test_what_cannot_come_back_is_still_named(value: Any) -> None:
    with pytest.raises(UnsupportedState, match="the value of key 'k'"):
        encode(value, "k", TYPES)


def test_an_attribute_beside_the_items_of_an_ordered_dict_is_named() -> None:
    odd = OrderedDict(a=1)
    odd.extra = 1  # type: ignore[attr-defined]
    with pytest.raises(UnsupportedState, match="'extra' beside its items"):
        encode(odd, "k", TYPES)


@pytest.mark.parametrize(
    "text",
    [
        '{"$dataclass":["collections:deque",[["items",1],["maxlen",null]]]}',
        '{"$dataclass":["numpy:ndarray",[["npy",{"$bytes":"AAAA"}]]]}',
        '{"$dataclass":["pandas:DataFrame",[]]}',
        '{"$dataclass":["fractions:Fraction",[["numerator",1],["denominator",0]]]}',
    ],
)
def test_parts_that_are_none_are_damage(text: str) -> None:
    with pytest.raises(CorruptionDetected):
        decode(text, "k", TYPES)


def test_an_array_with_pickled_objects_is_never_unpickled() -> None:
    file = io.BytesIO()
    np.save(file, np.array([Path("x")], dtype=object), allow_pickle=True)
    npy = base64.b64encode(file.getvalue()).decode()
    with pytest.raises(CorruptionDetected):
        decode(f'{{"$dataclass":["numpy:ndarray",[["npy",{{"$bytes":"{npy}"}}]]]}}', "k", TYPES)


LEAVES = st.one_of(st.integers(), st.fractions(), st.complex_numbers(allow_nan=False), st.binary().map(bytearray))


@given(
    st.recursive(
        LEAVES,
        lambda inner: st.one_of(st.lists(inner).map(deque), st.lists(st.tuples(st.text(), inner)).map(OrderedDict)),
    )
)
def test_kinds_within_kinds_come_back(value: Any) -> None:
    assert back(value) == value
