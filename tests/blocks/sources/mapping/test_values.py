"""Python values as text: they come back as they were, or are refused by their place."""

from __future__ import annotations

import json
import math
import struct
import sys
from collections import defaultdict, namedtuple
from dataclasses import fields, is_dataclass, make_dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.errors import CorruptionDetected, RestoreRefused, UnsupportedState
from blocks.sources.mapping.decoding import decode
from blocks.sources.mapping.types import Types
from blocks.sources.mapping.values import MAX_DEPTH, encode
from tests.blocks.sources.mapping import shop
from tests.blocks.sources.mapping.shop import Box, Level, OddList, Outer, Partly, Point, Right, Side, Trade, Word

SHOP = shop.__name__
TYPES = Types(SHOP, ())
NONE = Types("", ())
BERLIN = ZoneInfo("Europe/Berlin")


def there_and_back(value: object) -> Any:
    return decode(encode(value, "k", TYPES), "k", TYPES)


def exact(value: Any) -> object:
    """Describe a value with the types of all its parts; equal descriptions are equal values of equal types."""
    kind = type(value)
    if kind is int:
        return ("int", hex(value))
    if kind is float:
        return ("float", struct.pack(">d", value))
    if kind in (list, tuple):
        return (kind, [exact(item) for item in value])
    if kind in (set, frozenset):
        return (kind, sorted(repr(exact(item)) for item in value))
    if kind is dict:
        return ("dict", [(exact(key), exact(item)) for key, item in value.items()])
    if kind in (datetime, time):
        return (kind, value.replace(tzinfo=None).isoformat(), value.fold, zone(value.tzinfo))
    if is_dataclass(value):
        return (kind, [(f.name, exact(getattr(value, f.name))) for f in fields(value)])
    return (kind, repr(value))


def zone(tz: tzinfo | None) -> object:
    return None if tz is None else (type(tz), repr(tz))


texts = st.text(st.characters(exclude_categories=("Cs",)))
zones = st.one_of(
    st.none(),
    st.sampled_from([UTC, BERLIN, ZoneInfo("UTC"), timezone(timedelta(hours=5, minutes=45), "Nepal")]),
    st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone),
)
hashable = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        texts,
        st.binary(),
        st.datetimes(timezones=zones),
        st.dates(),
        st.times(timezones=st.sampled_from([None, UTC, timezone(timedelta(hours=-3))])),
        st.timedeltas(),
        st.decimals().filter(lambda number: not number.is_snan()),  # no hash
        st.uuids(),
        st.sampled_from([*Side, *Level, *Word, *Right, Right(0)]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(tuple), st.frozensets(inner, max_size=4), st.builds(Point, st.floats(), inner)
    ),
    max_leaves=6,
)
values = st.recursive(
    hashable,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(hashable, inner, max_size=4),
        st.dictionaries(texts, inner, max_size=4),
        st.sets(hashable, max_size=4),
        st.builds(Trade, st.sampled_from(Side), st.decimals(), st.lists(texts, max_size=2)),
        st.builds(Box, inner),
    ),
    max_leaves=12,
)


@given(values)
def test_every_value_comes_back_with_its_types(value: object) -> None:
    assert exact(there_and_back(value)) == exact(value)


@given(values)
def test_the_text_is_canonical_and_of_unicode(value: object) -> None:
    text = encode(value, "k", TYPES)
    assert encode(there_and_back(value), "k", TYPES) == text
    text.encode()


NAN = struct.unpack(">d", bytes.fromhex("fff8000000000123"))[0]
ODD = [
    None, True, False, 0, -0.0, 0.0, 1, 1.0, "", b"", [], {}, (), set(), frozenset(), "1", b"1",
    2**63 - 1, 2**63, 2**64, -(2**63), -(2**64), 10**5000, -(10**5000), 5e-324, sys.float_info.max,
    math.nan, -math.nan, NAN, math.inf, -math.inf, "\0", "\ud7ff\U0010ffff", "é\n\"\\", bytes(range(256)),
    Decimal("1.50"), Decimal("-0"), Decimal("NaN"), Decimal("sNaN12"), Decimal("-Infinity"), Decimal("1E+999999"),
    datetime.min, datetime.max, datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN, fold=1), datetime(1, 1, 1, tzinfo=UTC),
    datetime(2024, 1, 1, 0, 0, 0, 1, timezone(timedelta(microseconds=-1))), time.max, time(1, tzinfo=UTC),
    time(2, fold=1), date.min, timedelta.min, timedelta.max, timedelta(microseconds=-1), UUID(int=0),
    Side.ASK, Level.LOW, Word.YES, Right.ADMIN, Right.READ | Right.WRITE, Right(0), Outer.Inner(3), Box(Box([1])),
    {"$bytes": "AA=="}, {"$dict": []}, {"$": 1}, {"": 1}, {"$tuple": [1], "b": 2}, {"b": 1, "a": 2},
    {1: "a", "1": "b", b"1": "c", None: "d", (1,): "e", 2.5: "f", Side.BUY: "g", Point(1.0): "h"},
    {(1, 2), frozenset({3}), "x", None, True}, [[], [[]], ({},)], {True: 1}, {1: 1}, {1.0: 1},
]  # fmt: skip


@pytest.mark.parametrize("value", ODD, ids=range(len(ODD)))  # a set's repr differs between processes
def test_odd_values_come_back(value: object) -> None:
    assert exact(there_and_back(value)) == exact(value)
    assert exact(there_and_back([value, {"deep": (value,)}])) == exact([value, {"deep": (value,)}])


def test_values_that_compare_equal_have_different_texts() -> None:
    alike: list[list[object]] = [
        [0, 0.0, -0.0, False, Decimal(0), Level.LOW],
        ["yes", Word.YES, b"yes"],
        [(), [], set(), frozenset(), {}],
        [Decimal("1.5"), Decimal("1.50"), 1.5],
        [{"a": 1, "b": 2}, {"b": 2, "a": 1}],
        [datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, tzinfo=ZoneInfo("UTC"))],
    ]
    for group in alike:
        assert len({encode(value, "k", TYPES) for value in group}) == len(group)


def test_sets_of_any_order_have_one_text() -> None:
    names = [f"name {n}" for n in range(100)]
    backwards: set[object] = set()
    for name in reversed(names):
        backwards.add(name)
    assert encode(set(names), "k", NONE) == encode(backwards, "k", NONE)
    assert encode({1, "a", None, (2,)}, "k", NONE) == encode({(2,), None, "a", 1}, "k", NONE)


def test_plain_values_read_as_plain_json() -> None:
    value = {"symbol": "AAPL", "quantity": 3, "price": 1.5, "open": True, "tags": ["a", None], "über": "ü"}
    assert json.loads(encode(value, "k", NONE)) == value
    assert "ü" in encode(value, "k", NONE)


def test_a_dataclass_is_restored_without_running_its_code() -> None:
    trade = Trade(Side.BUY)
    assert trade.text  # cached beside the fields, and made again when it is wanted
    back = there_and_back(trade)
    assert back.notes == ["made"]
    assert "text" not in vars(back)
    assert back.text == trade.text
    trade.hidden = 8
    assert there_and_back(trade).hidden == 8


def bad_subclass(base: type) -> object:
    return type("Sub", (base,), {})()


Named = namedtuple("Named", "a")


class Local(Enum):
    A = 1


HERE = Types(__name__, ())
EXTRA = Partly(1)
EXTRA.more = 2  # type: ignore[attr-defined]
LESS = Partly(1)
del LESS.n
LOOP: list[object] = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"a": [1, object()]}, r"key 'the key' at \['a'\]\[1\] is of type builtins:object"),
        ({"a": "\ud800"}, r"\['a'\] is text with a lone surrogate"),
        ({"\udfff": 1}, r"lone surrogate"),
        ({1: {"\udfff"}}, r"\[1\]\.member is text with a lone surrogate"),
        ((1, {"x": range(3)}), r"\[1\]\['x'\] is of type builtins:range"),
        (defaultdict(lambda: 0), "default_factory is no class"),
        (Named(1), "Named"),
        (bad_subclass(int), "Sub"),
        (bad_subclass(str), "Sub"),
        (bad_subclass(dict), "Sub"),
        (iter(()), "iterator"),
        ({10**5000: object()}, "a int"),
        (lambda: 0, "function"),
        (Side, "EnumType"),
        (Trade, "builtins:type"),
        (Point(1.0, object()), r"at \.y is of type builtins:object"),
        (EXTRA, "the attribute 'more' beside its fields"),
        (LESS, "no field 'n'"),
        (OddList(), "more than its fields"),
        (LOOP, "nested more than"),
        ({("a", object): 1}, r"\.keys\(\)\[1\] is of type builtins:type"),
        (make_dataclass("Made", ["x"])(1), "types:Made, which the plan does not allow"),
        (Local.A, "which the plan does not allow"),
    ],
)
def test_what_cannot_be_kept_is_named(value: object, words: str) -> None:
    with pytest.raises(UnsupportedState, match=words) as caught:
        encode(value, "the key", TYPES)
    assert "the key" in caught.value.message


def test_a_class_inside_of_a_function_cannot_be_found_again() -> None:
    class Inside(Enum):
        A = 1

    with pytest.raises(UnsupportedState, match="cannot be found again"):
        encode(Inside.A, "k", HERE)


def test_another_class_under_the_same_name_is_not_that_class() -> None:
    fake = type("Side", (), {"__module__": SHOP})
    twin = make_dataclass("Point", ["x", "y"], namespace={"__module__": SHOP})
    assert fake is not Side
    twin.__module__ = SHOP
    with pytest.raises(UnsupportedState, match="cannot be found again"):
        encode(twin(1, 2), "k", TYPES)


def test_a_zone_that_has_no_name_is_refused() -> None:
    class Odd(tzinfo):
        def utcoffset(self, moment: datetime | None) -> timedelta:
            return timedelta(0)

        def tzname(self, moment: datetime | None) -> str:
            return "odd"

        def dst(self, moment: datetime | None) -> None:
            return None

    with pytest.raises(UnsupportedState, match=r"\['at'\] is in a time zone"):
        encode({"at": datetime(2024, 1, 1, tzinfo=Odd())}, "k", NONE)


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = (value,)
    return value


def test_nesting_has_a_limit_and_up_to_it_all_comes_back() -> None:
    assert there_and_back(nested(MAX_DEPTH)) == nested(MAX_DEPTH)
    with pytest.raises(UnsupportedState, match="nested"):
        encode(nested(MAX_DEPTH + 1), "k", NONE)


# -- hostile texts


@pytest.mark.parametrize(
    "path", ["os:system", "subprocess:Popen", "no_such_module:X", f"{SHOP}_evil:Side", "builtins:object", ":", "x", ""]
)
@pytest.mark.parametrize("tag", ["$enum", "$dataclass", "$flag"])
def test_no_other_module_is_imported(path: str, tag: str) -> None:
    before = set(sys.modules)
    with pytest.raises(RestoreRefused, match="key 'k'"):
        decode(json.dumps({tag: [path, []]}), "k", TYPES)
    assert set(sys.modules) == before


def test_types_name_further_classes() -> None:
    assert decode(encode(Side.BUY, "k", TYPES), "k", Types("", [f"{SHOP}:Si*"])) is Side.BUY
    with pytest.raises(RestoreRefused, match=f"{SHOP}:Point"):
        decode(encode(Point(1.0), "k", TYPES), "k", Types("", [f"{SHOP}:Si*"]))
    assert Types("shop", ()).allows("shop.models:X")
    assert not Types("shop", ()).allows("shopping:X")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("Missing", "cannot be imported"),
        ("Bag.get_state", "is not a class"),
        ("Bag", "is not an? (Enum|dataclass)"),
        ("Side.BUY", "is not a class"),
        ("Box.__init__.__globals__", "is not a class|cannot be imported"),
    ],
)
@pytest.mark.parametrize("tag", ["$enum", "$dataclass"])
def test_what_is_no_enum_or_dataclass_is_refused(tag: str, path: str, words: str) -> None:
    with pytest.raises(RestoreRefused, match=words):
        decode(json.dumps({tag: [f"{SHOP}:{path}", [["n", 1]]]}), "k", TYPES)


def test_code_that_changed_since_is_named() -> None:
    with pytest.raises(RestoreRefused, match="no member 'GONE'"):
        decode(json.dumps({"$enum": [f"{SHOP}:Side", "GONE"]}), "k", TYPES)
    for pairs in ([["x", 1]], [["x", 1], ["y", 2], ["__class__", 3]], [["x", 1], ["z", 2]]):
        with pytest.raises(RestoreRefused, match="not a dataclass with the fields"):
            decode(json.dumps({"$dataclass": [f"{SHOP}:Point", pairs]}), "k", TYPES)
    with pytest.raises(RestoreRefused, match="time zone 'Moon/Base'"):
        decode('{"$datetime": ["2024-01-01T00:00:00", 0, {"zone": "Moon/Base"}]}', "k", NONE)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "NaN", "Infinity", '{"$nothing": 1}', '{"$int": 7}', '{"$int": "x"}', '{"$float": "1"}',
        '{"$float": 1}',
        '{"$bytes": "é"}', '{"$bytes": 1}', '{"$datetime": 1}', '{"$datetime": ["x", 0, null]}', '{"$set": [[]]}',
        '{"$datetime": ["2024-01-01T00:00:00", 0, 7]}', '{"$datetime": ["2024-01-01T00:00:00", 5, null]}',
        '{"$datetime": ["2024-01-01T00:00:00", 0, {"zone": "../../etc/passwd"}]}', '{"$decimal": "x"}',
        '{"$uuid": "x"}',
        '{"$timedelta": [1]}', '{"$timedelta": [9999999999, 0, 0]}', '{"$tuple": 1}', '{"$dict": [[1]]}',
        '{"$dict": [[[], 1]]}', '{"$enum": 1}', '{"$enum": [1, 2]}', '{"$dataclass": ["a"]}', "[" * 100_000,
        "[" * 200 + "]" * 200, "1" * 10_000,
    ],
)  # fmt: skip
def test_texts_that_were_never_written_are_damage(text: str) -> None:
    with pytest.raises(CorruptionDetected, match="key 'k'"):
        decode(text, "k", TYPES)
