"""What every kind of tier promises (blocks/storage/base.py), on every kind that there is."""

from __future__ import annotations

import array
import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from blocks.errors import AlreadyExists, ConfigurationError, CorruptionDetected, ObjectMissing
from blocks.repository.capabilities import Capabilities, prove
from blocks.storage.base import StorageTier
from blocks.storage.kinds import open_tier
from blocks.storage.settings import StorageSettings

MIB = 1 << 20
WRITERS, ROUNDS = 8, 12
LARGEST = int(os.environ.get("LASTGOOD_LARGEST_OBJECT", str(64 * MIB)))
"""Bytes of the largest object; the long run says 5000000000."""


def _local(request: pytest.FixtureRequest) -> StorageTier:
    folder: Path = request.getfixturevalue("tmp_path")
    return open_tier(str(folder / "tier"), StorageSettings())


def _memory(request: pytest.FixtureRequest) -> StorageTier:
    return open_tier(f"memory://{request.node.name.partition('[')[0]}/x", StorageSettings())


KINDS: dict[str, Callable[[pytest.FixtureRequest], StorageTier]] = {
    "local": _local,
    "memory": _memory,
    "s3": lambda request: request.getfixturevalue("s3").tier(),
    "az": lambda request: request.getfixturevalue("az").tier(),
    "gs": lambda request: request.getfixturevalue("gs").tier(),
    "sftp": lambda request: request.getfixturevalue("sftp").tier(),
}
"""A new tier of each kind."""

MANY = {"az": 300, "gs": 300}
"""Objects that are removed at once: more than one request takes; 1,000 in S3, 256 in Azure, one in Google's."""


KEEPS_EMPTY_FOLDERS = {"s3"}
"""SeaweedFS shows a folder for some seconds after its last object is gone; Amazon's S3 knows no folders."""


@pytest.fixture(params=KINDS)
def tier(request: pytest.FixtureRequest) -> StorageTier:
    made = KINDS[request.param](request)
    made.prepare()
    return made


@pytest.fixture
def many(request: pytest.FixtureRequest) -> int:
    return MANY.get(request.node.callspec.params["tier"], 1500)


@pytest.fixture
def empty_folders(request: pytest.FixtureRequest) -> bool:
    return request.node.callspec.params["tier"] in KEEPS_EMPTY_FOLDERS


def names(tier: StorageTier, prefix: str = "") -> list[str]:
    return [stored.name for stored in tier.list(prefix)]


# Writing


@pytest.mark.parametrize("size", [0, 1, MIB + 1, LARGEST])
def test_objects_of_any_size_come_back_as_they_were(tier: StorageTier, size: int) -> None:
    data = os.urandom(min(size, MIB)) * (size // MIB + 1)
    data = data[:size]
    tier.put("object", data)
    assert tier.size("object") == size
    assert tier.get("object") == data
    assert [stored.size_bytes for stored in tier.list()] == [size]


def test_any_buffer_can_be_put_and_put_again_exclusively(tier: StorageTier) -> None:
    numbers = array.array("I", [1, 2, 3])
    for number, data in enumerate((b"abc", bytearray(b"abc"), memoryview(b"-abc-")[1:4], memoryview(numbers))):
        for exclusive in (True, True, False):
            tier.put(f"object-{number}", data, exclusive=exclusive)
        assert tier.get(f"object-{number}") == bytes(data)


def test_a_put_replaces_and_can_be_repeated(tier: StorageTier) -> None:
    for data in (b"first", b"second, longer", b"second, longer", b"3rd"):
        tier.put("a/object", data)
        assert tier.get("a/object") == data
        assert tier.size("a/object") == len(data)
    tier.overwrite("a/object", b"4")
    assert tier.get("a/object") == b"4"
    assert names(tier) == ["a/object"]
    assert tier.leftovers() == []


def test_a_reader_meanwhile_sees_one_object_or_the_other(tier: StorageTier) -> None:
    size, end = MIB // 2, threading.Event()
    tier.put("object", b"0" * size)

    def read() -> set[bytes]:
        seen = set()
        while not end.is_set():
            data = tier.get("object")
            assert len(data) == size
            seen |= {data[:1]} if data.count(data[:1]) == size else {b"a mixture"}
        return seen

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        try:
            for number in range(1, 10):
                tier.put("object", b"%d" % number * size)
        finally:
            end.set()
        assert set().union(*(reader.result() for reader in readers)) <= {b"%d" % n for n in range(10)}


def test_of_racing_writers_exactly_one_creates_the_object(tier: StorageTier) -> None:
    barriers = [threading.Barrier(WRITERS) for _ in range(ROUNDS)]

    def write(round_and_number: tuple[int, int]) -> tuple[int, int] | None:
        moment, number = round_and_number
        barriers[moment].wait()
        with suppress(AlreadyExists):
            tier.put(f"contested/{moment}", b"%d" % number, exclusive=True)
            return round_and_number
        return None

    # all rounds at once: a server may let writers wait for a lock, for a second each
    with ThreadPoolExecutor(WRITERS * ROUNDS) as pool:
        told = list(pool.map(write, itertools.product(range(ROUNDS), range(WRITERS))))
    won = [one for one in told if one is not None]
    assert [moment for moment, _ in won] == list(range(ROUNDS))
    assert [tier.get(f"contested/{moment}") for moment in range(ROUNDS)] == [b"%d" % number for _, number in won]
    assert tier.leftovers() == []


def test_an_exclusive_put_of_the_same_bytes_succeeds_again_and_of_others_never(tier: StorageTier) -> None:
    tier.put("object", b"mine", exclusive=True)
    tier.put("object", b"mine", exclusive=True)
    for other in (b"", b"none", b"mine, and more"):
        with pytest.raises(AlreadyExists, match="object"):
            tier.put("object", other, exclusive=True)
    assert tier.get("object") == b"mine"
    tier.remove(["object"])
    tier.put("object", b"other", exclusive=True)


def test_many_threads_use_one_tier(tier: StorageTier) -> None:
    def work(number: int) -> bytes:
        name = f"thread-{number}/object"
        tier.put(name, b"%d" % number * 1000, exclusive=True)
        assert tier.exists(name)
        data = tier.get(name, 1, 2)
        assert names(tier, f"thread-{number}/") == [name]
        tier.remove([name])
        return data

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(work, range(10, 42))) == [b"%d" % (n % 10) + b"%d" % (n // 10) for n in range(10, 42)]
    assert names(tier) == []


# Reading


RANGES = [
    *itertools.product((0, 3, 9, 10, 11, 500), (0, 1, 7, 10, 11, 1 << 40)),
    *((at, None) for at in (0, 4, 10, 11)),
]


def test_a_range_has_what_there_is_of_it(tier: StorageTier) -> None:
    tier.put("object", b"0123456789")
    tier.put("empty", b"")
    for offset, length in RANGES:
        end = None if length is None else offset + length
        assert tier.get("object", offset, length) == b"0123456789"[offset:end], (offset, length)
        assert tier.get("empty", offset, length) == b"", (offset, length)


def test_what_is_missing_is_missing_for_all_that_read(tier: StorageTier) -> None:
    tier.put("a/object", b"data")
    for name in ("none", "a/none", "a/object/below", "a/objec", "a/object2"):
        for offset, length in ((0, None), (2, None), (0, 0), (0, 2), (5, 5)):
            with pytest.raises(ObjectMissing, match=name):
                tier.get(name, offset, length)
        with pytest.raises(ObjectMissing, match=name):
            tier.size(name)
        assert not tier.exists(name)
        assert not tier.is_object(name)


def test_a_folder_is_no_object(tier: StorageTier) -> None:
    tier.put("a/b/object", b"data")
    for folder in ("a", "a/b"):
        assert not tier.is_object(folder)
        with pytest.raises(ObjectMissing):
            tier.get(folder)
    assert tier.is_object("a/b/object")


def test_more_than_a_limit_is_refused(tier: StorageTier) -> None:
    tier.put("object", bytes(1000))
    assert len(tier.get("object", limit=1000)) == 1000
    with pytest.raises(CorruptionDetected, match="1000 bytes") as caught:
        tier.get("object", limit=999)
    assert caught.value.hint


# Listing


def test_a_listing_has_all_that_is_below_a_folder_and_nothing_beside_it(tier: StorageTier) -> None:
    before = datetime.now(UTC)
    for name in ("a/1", "a/b/2", "a/b/c/3", "ab/4", "a.b/5", "a-/6", "z"):
        tier.put(name, name.encode())
        assert name in names(tier)
    assert names(tier) == sorted(["a/1", "a/b/2", "a/b/c/3", "ab/4", "a.b/5", "a-/6", "z"])
    assert names(tier, "a/") == ["a/1", "a/b/2", "a/b/c/3"]
    assert names(tier, "a/b/") == ["a/b/2", "a/b/c/3"]
    assert names(tier, "none/") == []
    assert [stored.size_bytes for stored in tier.list("a/b/")] == [5, 7]
    assert all(abs(stored.modified_at - before) < timedelta(minutes=1) for stored in tier.list())
    assert tier.folders() == ["a", "a-", "a.b", "ab"]
    assert tier.folders("a/") == ["b"]
    assert tier.folders("a/b/c/") == tier.folders("none/") == []


def test_a_listing_has_what_was_just_put_and_not_what_was_just_removed(tier: StorageTier) -> None:
    for number in range(20):
        tier.put(f"a/{number}", b"")
        assert f"a/{number}" in names(tier, "a/")
        tier.remove([f"a/{number}"])
        assert names(tier, "a/") == []


def test_names_may_be_long_and_have_all_characters_that_are_allowed(tier: StorageTier) -> None:
    made = [
        "ABCDEFGHIJKLMNOPQRSTUVWXYZ/abcdefghijklmnopqrstuvwxyz._-0123456789",
        *("a/A", "..a", "...", "-", "_", ".a.", "x./.y", "x./-"),
        "/".join(letter * 200 for letter in "xyz"),
    ]
    made.sort()
    for name in made:
        tier.put(name, name.encode(), exclusive=True)
    assert names(tier) == made
    assert [tier.get(name).decode() for name in made] == made
    tier.remove(made)
    assert names(tier) == []


@pytest.mark.parametrize(
    "name", ["../x", "a/../b", "/a", "a//b", "", ".", "a/.", "a/", "a\\b", "a\0b", "ä", "a b", "a%2Fb"]
)
def test_a_name_that_could_lead_elsewhere_is_refused_before_any_request(tier: StorageTier, name: str) -> None:
    for attempt in (tier.get, tier.size, tier.exists, lambda n: tier.put(n, b""), lambda n: tier.remove([n])):
        with pytest.raises(ConfigurationError, match="not a name"):
            attempt(name)


# Removing


def test_removing_can_be_repeated_and_takes_what_is_not_there(tier: StorageTier, empty_folders: bool) -> None:
    for name in ("a/one", "a/two", "b/three"):
        tier.put(name, b"data")
    tier.remove(["a/one", "a/one", "never/was"])
    assert names(tier) == ["a/two", "b/three"]
    tier.remove(["a/one", "never/was"])
    tier.remove(["never/was"])
    tier.remove([])
    tier.remove(name for name in ("a/two", "b/three"))
    assert names(tier) == []
    if not empty_folders:
        assert tier.folders() == []
    tier.drop_folders("", ["a", "b", "never"])
    assert tier.folders() == []


def test_folders_that_hold_something_are_not_dropped(tier: StorageTier) -> None:
    held = ["p/deep/a/b", "p/full/a", "p/leaf"]
    for name in (*held, "p/empty/a", "p/other/a"):
        tier.put(name, b"data")
    tier.remove(["p/empty/a", "p/other/a"])
    tier.drop_folders("p/", ["deep", "empty", "full", "leaf", "never"])
    tier.drop_folders("p/", [])
    assert set(tier.folders("p/")) - {"other"} == {"deep", "full"}
    assert names(tier) == held
    assert [tier.get(name) for name in held] == [b"data"] * 3
    # where one is dropped, another can be made
    tier.put("p/empty/a", b"again", exclusive=True)
    assert tier.folders("p/").count("empty") == 1


def test_more_objects_than_one_request_takes_are_removed(tier: StorageTier, many: int) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: tier.put(f"a/{number:04}", b""), range(many)))
    tier.put("ab", b"")
    assert len(names(tier, "a/")) == many
    tier.remove([f"a/{number:04}" for number in range(10, many + 10)])
    assert names(tier, "a/") == [f"a/{number:04}" for number in range(10)]
    assert tier.exists("ab")


# Of all kinds


def test_what_a_storage_can_do_is_proved(tier: StorageTier) -> None:
    assert prove(tier) == Capabilities(exclusive_creation=True, ranges=True, list_after_write=True)
    assert names(tier) == []


def test_a_place_tells_it_from_others_and_operations_are_reported(
    tier: StorageTier, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, str, str]] = []
    monkeypatch.setattr(StorageTier, "durable", staticmethod(lambda *what: seen.append(what)))
    tier.put("object", b"1")
    tier.put("object", b"1", exclusive=True)
    tier.remove(["object"])
    assert tier.place.startswith((tier.url, "/"))
    assert {name for _, name, _ in seen} == {"object"}
    assert ("delete", "object", "after") in seen
