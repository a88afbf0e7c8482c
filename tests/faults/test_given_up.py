"""A part that is read again gives up what was stored of it, and nothing that others need."""

from __future__ import annotations

import hashlib

from typing_extensions import Buffer

from blocks.records import StoredObject
from flows.pipeline.packs import ALONE_BYTES, Packs


class Storage:
    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def put(self, name: str, content: Buffer) -> StoredObject:
        self.objects[name] = bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        return StoredObject(name=name, size_bytes=len(self.objects[name]), sha256=digest)

    def discard(self, name: str) -> None:
        del self.objects[name]


def test_a_blob_that_others_share_stays():
    """So many small parts that cannot be compressed make a blob with a pack of its own."""
    storage = Storage()
    packs = Packs(storage.put, storage.discard)
    blob = packs.add(packs.new_number(), bytes(ALONE_BYTES))
    packs.forget(blob.model_copy(update={"shared": (100, 50)}))
    assert list(storage.objects) == [blob.name]
    assert [stored.name for stored in packs.finish()] == [blob.name]


def test_a_blob_of_one_part_goes_with_its_pack():
    storage = Storage()
    packs = Packs(storage.put, storage.discard)
    packs.forget(packs.add(packs.new_number(), bytes(ALONE_BYTES)))
    assert (packs.finish(), storage.objects) == ([], {})


def test_a_blob_beside_others_stays_in_its_pack():
    storage = Storage()
    packs = Packs(storage.put, storage.discard)
    first, other = (packs.add(packs.new_number(), bytes([n]) * 100) for n in (1, 2))
    packs.forget(first)
    (stored,) = packs.finish()
    assert storage.objects[stored.name][other.offset :] == bytes([2]) * 100
