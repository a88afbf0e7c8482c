"""Packs: blobs share objects, nothing is stored twice, and what failed is tried again."""

from __future__ import annotations

import hashlib
import itertools
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from blocks.errors import RepositoryUnavailable
from blocks.records import Blob, StoredObject
from blocks.repository.checksums import objects_of
from blocks.storage.local import LocalTier
from flows.check import check_repository
from flows.pipeline import packs as packs_module
from flows.pipeline.packs import ALONE_BYTES, PACK_BYTES, Packs
from tests.flows.flow_support import FULL, Shop, blobs, picture, store_apart


class Shelf:
    """What was stored: each object at most once, as it is asked for; the so-maniest puts fail."""

    def __init__(self, failing: Sequence[int] = ()) -> None:
        self.objects: dict[str, bytes] = {}
        self._count, self._failing, self._guard = itertools.count(), failing, threading.Lock()

    def put(self, name: str, sealed: Any) -> StoredObject:
        with self._guard:
            if next(self._count) in self._failing:
                raise RepositoryUnavailable("the disk is away")
            assert name not in self.objects
            self.objects[name] = bytes(sealed)
        return StoredObject(name=name, size_bytes=len(sealed), sha256=hashlib.sha256(sealed).hexdigest())

    def discard(self, name: str) -> None:
        del self.objects[name]

    def read(self, blob: Blob) -> bytes:
        return self.objects[blob.name][blob.offset : blob.offset + blob.size_bytes]


def packs_on(shelf: Shelf) -> Packs:
    return Packs(shelf.put, shelf.discard)


def check_stored(shelf: Shelf, stored: list[StoredObject], placed: dict[int, tuple[bytes, Blob]]) -> None:
    assert [one.name for one in stored] == sorted(shelf.objects)
    assert {one.name: one.size_bytes for one in stored} == {name: len(data) for name, data in shelf.objects.items()}
    assert sum(map(len, shelf.objects.values())) == sum(len(data) for data, _ in placed.values())
    for number, (data, blob) in placed.items():
        assert blob.number == number
        assert shelf.read(blob) == data
        assert blob.sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("sizes", "objects"),
    [
        ([], 0),
        ([1], 1),
        ([100] * 50, 1),
        ([ALONE_BYTES - 1, ALONE_BYTES, ALONE_BYTES + 1], 3),
        ([5, ALONE_BYTES, 5], 2),
        ([PACK_BYTES // 16] * 16, 1),
        ([PACK_BYTES // 16] * 17, 2),
    ],
)
def test_small_blobs_share_an_object_and_large_ones_have_their_own(sizes: list[int], objects: int) -> None:
    shelf = Shelf()
    packs = packs_on(shelf)
    placed = {}
    for size in sizes:
        data, number = os.urandom(size), packs.new_number()
        placed[number] = data, packs.add(number, data)
    stored = packs.finish()
    assert packs.finish() == stored
    assert len(stored) == objects
    check_stored(shelf, stored, placed)


def test_a_blob_that_is_added_again_is_where_it_was() -> None:
    shelf = Shelf()
    packs = packs_on(shelf)
    number = packs.new_number()
    first = packs.add(number, b"sealed")
    assert packs.add(number, b"sealed") == first
    check_stored(shelf, packs.finish(), {number: (b"sealed", first)})


def test_a_pack_that_could_not_be_stored_is_tried_again_by_who_comes_next() -> None:
    shelf = Shelf(failing=[0, 1])
    packs = packs_on(shelf)
    large, small = os.urandom(ALONE_BYTES), os.urandom(10)
    first, second = packs.new_number(), packs.new_number()
    for _ in range(2):
        with pytest.raises(RepositoryUnavailable):
            packs.add(first, large)
    other = packs.add(second, small)
    assert len(shelf.objects) == 1
    check_stored(shelf, packs.finish(), {first: (large, packs.add(first, large)), second: (small, other)})


def test_the_last_pack_is_tried_again() -> None:
    shelf = Shelf(failing=[0])
    packs = packs_on(shelf)
    number = packs.new_number()
    blob = packs.add(number, b"sealed")
    with pytest.raises(RepositoryUnavailable):
        packs.finish()
    check_stored(shelf, packs.finish(), {number: (b"sealed", blob)})


def test_threads_that_add_at_once_lose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs_module, "ALONE_BYTES", 900)
    monkeypatch.setattr(packs_module, "PACK_BYTES", 2000)
    shelf = Shelf(failing=range(0, 200, 3))
    packs = packs_on(shelf)

    def add(size: int) -> tuple[int, tuple[bytes, Blob]]:
        data, number = os.urandom(size), packs.new_number()
        while True:
            try:
                return number, (data, packs.add(number, data))
            except RepositoryUnavailable:
                continue

    with ThreadPoolExecutor(8) as pool:
        placed = dict(pool.map(add, [1 + n * 37 % 1000 for n in range(400)]))
    assert len(placed) == 400
    while True:
        try:
            stored = packs.finish()
            break
        except RepositoryUnavailable:
            continue
    check_stored(shelf, stored, placed)


def test_what_is_given_up_goes_where_it_is_alone_and_stays_among_others() -> None:
    shelf = Shelf()
    packs = packs_on(shelf)
    large = packs.add(packs.new_number(), os.urandom(ALONE_BYTES))
    small = [packs.add(packs.new_number(), os.urandom(10)) for _ in range(2)]
    packs.forget(large)
    packs.forget(small[0])
    assert large.name not in shelf.objects
    assert [one.name for one in packs.finish()] == [small[1].name]
    assert len(shelf.read(small[1])) == 10


@pytest.mark.parametrize("apart", [True, False])
def test_a_backup_whose_objects_are_stored_at_the_second_try_is_whole(
    tmp_path: Path, apart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if apart:
        store_apart(monkeypatch)
    shop = Shop(tmp_path)
    shop.fill()
    put, refused, stored = LocalTier.put, set[str](), list[str]()

    def unsteady(self: LocalTier, name: str, data: Any, *options: Any, **named: Any) -> None:
        if name.endswith(".pack"):
            if len(refused) < 3 and name not in refused:
                refused.add(name)
                raise RepositoryUnavailable("the disk is away")
            stored.append(name)
        put(self, name, data, *options, **named)

    monkeypatch.setattr(LocalTier, "put", unsteady)
    made = shop.back_up(FULL)
    monkeypatch.undo()
    assert len(refused) == (3 if apart else 1)
    assert sorted(Path(name).name for name in stored) == [one.name for one in objects_of(made)]
    assert sum(one.size_bytes for one in made.objects) == sum(
        blob.size_bytes for index in (True, False) for blob in blobs(made, index)
    )
    assert check_repository(shop.plan, 1.0).findings == []
    shop.restore(made, to=str(tmp_path / "to"))
    assert picture(tmp_path / "to" / "ledger" / "ledger.db", tmp_path / "to" / "models" / "tree") == shop.picture()
