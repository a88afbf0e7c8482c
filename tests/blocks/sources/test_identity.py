"""What tells a local source from another one of its kind, and when two identities are those of one source."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from pydantic import JsonValue

from blocks.sources.files import FilesSource
from blocks.sources.identity import difference
from blocks.sources.mapping import MappingSource
from blocks.sources.source import StateSource
from blocks.sources.sqlite import SQLiteSource

A: dict[str, JsonValue] = {"system identifier": ["1"], "database": ["ledger", "number 5"]}


@pytest.mark.parametrize(
    ("now", "told"),
    [
        (A, None),
        ({"system identifier": ["2"], "database": ["ledger", "number 5"]}, "system identifier 2 instead of 1"),
        ({"system identifier": ["1"], "database": ["renamed", "number 5"]}, None),
        ({"system identifier": ["1"], "database": ["ledger", "number 6"]}, None),
        (
            {"system identifier": ["1"], "database": ["staging", "number 6"]},
            "database staging instead of ledger",
        ),
        ({}, None),
        ({"place": ["/x"]}, None),
        ({"system identifier": []}, None),
        ({"system identifier": "2", "database": [7]}, None),
    ],
)
def test_one_word_in_common_is_enough_and_what_is_not_known_says_nothing(
    now: dict[str, JsonValue], told: str | None
) -> None:
    assert difference(A, now) == told
    assert (difference(now, A) is None) is (told is None)


def local(kind: str, place: Path) -> StateSource:
    if kind == "files":
        place.mkdir()
        return FilesSource(url=str(place))
    with sqlite3.connect(place) as connection:
        connection.execute("CREATE TABLE t (x)")
    connection.close()
    return SQLiteSource(path=str(place))


@pytest.mark.parametrize("kind", ["files", "sqlite"])
def test_two_places_are_two_sources(kind: str, tmp_path: Path) -> None:
    one, other = local(kind, tmp_path / "one"), local(kind, tmp_path / "other")
    assert difference(one.identity(), one.identity()) is None
    told = difference(one.identity(), other.identity())
    assert told is not None
    assert str(tmp_path / "other") in told
    assert str(tmp_path / "one") in told
    (tmp_path / "one").rename(tmp_path / "gone")
    assert one.identity() == {}


def test_a_database_keeps_its_identity_when_it_is_replaced_or_named_by_a_link(tmp_path: Path) -> None:
    source = local("sqlite", tmp_path / "one")
    before = source.identity()
    local("sqlite", tmp_path / "new")
    (tmp_path / "new").replace(tmp_path / "one")
    (tmp_path / "link").symlink_to("one")
    assert source.identity() == SQLiteSource(path=str(tmp_path / "link")).identity() == before


def test_an_object_is_known_by_its_import_path() -> None:
    one, other = MappingSource(object="shop.state:manager"), MappingSource(object="shop.staging:manager")
    assert difference(one.identity(), one.identity()) is None
    told = "import path shop.staging:manager instead of shop.state:manager"
    assert difference(one.identity(), other.identity()) == told
    assert one.holding({"a": 1}).identity() == {}
