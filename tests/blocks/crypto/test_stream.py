"""Sealed objects against a second implementation, golden vectors, and everything that can happen to stored bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.crypto import stream
from blocks.crypto.stream import CHUNK_BYTES, ObjectContext, ObjectKind, plaintext_size, seal, unseal, unseal_range
from blocks.errors import CorruptionDetected

HEADER = 42
SEALED_CHUNK = CHUNK_BYTES + 16
CHUNKS = {1: 1024 * 1024, 2: CHUNK_BYTES}
EXAMPLE_SIZE = 3 * CHUNK_BYTES + 100
KEY = bytes(range(32))
CONTEXT = ObjectContext("repository-1", "trading", "FUL_20260102_030405_9f3a", ObjectKind.SEGMENT, 3, 7)
EDGES = [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES - 1, 2 * CHUNK_BYTES, 2 * CHUNK_BYTES + 1]
MODES = [pytest.param(KEY, id="encrypted"), pytest.param(None, id="plain")]
VECTORS = json.loads((Path(__file__).parent / "vectors" / "sealing.json").read_text())


def data(size: int) -> bytes:
    return hashlib.shake_256(b"lastgood").digest(size)


def reader(stored: bytes) -> Callable[[int, int], bytes]:
    return lambda offset, length: stored[offset : offset + length]


def reference_seal(plaintext: bytes, key: bytes | None, context: ObjectContext, salt: bytes) -> bytes:
    """The format written down once more, as plainly as possible."""
    texts = (context.repository_id, context.plan, context.backup_id, str(context.kind))
    version = bytes([context.version])
    place = version + b"".join(len(text.encode()).to_bytes(4, "big") + text.encode() for text in texts)
    place += context.collection.to_bytes(8, "big") + context.part.to_bytes(8, "big")
    header = b"LASTGOOD" + version + (b"\x00" if key is None else b"\x01") + salt
    if key is None and context.version == 1:
        return header + hashlib.sha256(header + place + plaintext).digest() + plaintext
    cipher = AESGCM(HKDF(SHA256(), 32, salt, b"lastgood/1/object" + place).derive(key)) if key else None
    size = CHUNKS[context.version]
    chunks = [plaintext[start : start + size] for start in range(0, len(plaintext), size)] or [b""]
    sealed = header
    for number, chunk in enumerate(chunks):
        nonce = number.to_bytes(11, "big") + (b"\x01" if number == len(chunks) - 1 else b"\x00")
        if cipher is None:
            sealed += chunk + hashlib.sha256(header + place + nonce + chunk).digest()
        else:
            sealed += cipher.encrypt(nonce, chunk, header + place)
    return sealed


@pytest.mark.parametrize("key", MODES)
@pytest.mark.parametrize("size", EDGES)
def test_an_object_of_any_size_around_the_chunk_edge_comes_back(size: int, key: bytes | None) -> None:
    sealed = seal(data(size), key, CONTEXT)
    assert unseal(sealed, key, CONTEXT) == data(size)
    assert plaintext_size(len(sealed), encrypted=key is not None) == size


@pytest.mark.parametrize("key", MODES)
@pytest.mark.parametrize("size", EDGES)
def test_sealed_bytes_are_exactly_those_of_the_reference_implementation(size: int, key: bytes | None) -> None:
    sealed = seal(data(size), key, CONTEXT)
    assert sealed == reference_seal(data(size), key, CONTEXT, salt=sealed[10:42])


@settings(max_examples=60, deadline=None)
@given(
    plaintext=st.binary(max_size=2000),
    key=st.one_of(st.none(), st.binary(min_size=32, max_size=32)),
    context=st.builds(
        ObjectContext,
        st.text(max_size=20),
        st.text(max_size=20),
        st.text(max_size=20),
        st.sampled_from(ObjectKind),
        st.integers(0, 2**64 - 1),
        st.integers(0, 2**64 - 1),
    ),
)
def test_any_bytes_come_back_under_any_key_and_context(
    plaintext: bytes, key: bytes | None, context: ObjectContext
) -> None:
    assert unseal(seal(plaintext, key, context), key, context) == plaintext


@settings(max_examples=60, deadline=None)
@given(
    left=st.tuples(st.text(max_size=4), st.text(max_size=4), st.text(max_size=4)),
    right=st.tuples(st.text(max_size=4), st.text(max_size=4), st.text(max_size=4)),
)
def test_different_contexts_never_have_the_same_bytes(left: tuple[str, str, str], right: tuple[str, str, str]) -> None:
    encoded = [ObjectContext(*names, ObjectKind.INDEX).encode() for names in (left, right)]
    assert (encoded[0] == encoded[1]) == (left == right)


@pytest.mark.parametrize("key", MODES)
@settings(max_examples=40, deadline=None)
@given(ends=st.tuples(st.integers(0, EXAMPLE_SIZE), st.integers(0, EXAMPLE_SIZE)))
def test_any_range_is_what_the_whole_has_there(key: bytes | None, ends: tuple[int, int]) -> None:
    start, end = min(ends), max(ends)
    sealed, plaintext = sealed_example(key)
    assert unseal_range(reader(sealed), len(sealed), key, CONTEXT, start, end - start) == plaintext[start:end]


@cache
def sealed_example(key: bytes | None) -> tuple[bytes, bytes]:
    """Three full chunks and a short one."""
    plaintext = data(EXAMPLE_SIZE)
    return seal(plaintext, key, CONTEXT), plaintext


def test_a_range_reads_only_the_header_and_the_chunks_it_lies_in() -> None:
    sealed, _ = sealed_example(KEY)
    asked: list[tuple[int, int]] = []

    def read(offset: int, length: int) -> bytes:
        asked.append((offset, length))
        return sealed[offset : offset + length]

    unseal_range(read, len(sealed), KEY, CONTEXT, CHUNK_BYTES + 10, CHUNK_BYTES)
    assert asked == [(0, HEADER), (HEADER + SEALED_CHUNK, 2 * SEALED_CHUNK)]


@pytest.mark.parametrize("key", MODES)
@pytest.mark.parametrize(("start", "length"), [(-1, 1), (0, -1), (EXAMPLE_SIZE + 1, 0), (3 * CHUNK_BYTES, 101)])
def test_a_range_outside_the_object_is_refused(key: bytes | None, start: int, length: int) -> None:
    sealed, _ = sealed_example(key)
    with pytest.raises(ValueError, match="outside"):
        unseal_range(reader(sealed), len(sealed), key, CONTEXT, start, length)


@pytest.mark.parametrize("key", MODES)
def test_an_empty_range_is_empty(key: bytes | None) -> None:
    sealed, _ = sealed_example(key)
    assert unseal_range(reader(sealed), len(sealed), key, CONTEXT, EXAMPLE_SIZE, 0) == b""


@pytest.mark.parametrize("key", MODES)
@pytest.mark.parametrize("wrapped", [bytes, bytearray, memoryview, pa.py_buffer])
def test_every_kind_of_buffer_is_accepted(wrapped: Callable[[bytes], bytes], key: bytes | None) -> None:
    assert unseal(wrapped(seal(wrapped(data(100)), key, CONTEXT)), key, CONTEXT) == data(100)


def test_two_objects_with_the_same_content_share_nothing_but_their_beginning() -> None:
    first, second = (seal(data(100), KEY, CONTEXT) for _ in range(2))
    assert first[:10] == second[:10]
    assert first[10:42] != second[10:42]
    assert first[42:] != second[42:]


# --- what can happen to stored bytes -----------------------------------------------------------------------------


def damages(sealed: bytes, step: int) -> Iterator[tuple[str, bytes]]:
    """Every way to move, repeat, drop or add whole structural pieces of three chunks and a short one."""
    chunks = [sealed[start : start + step] for start in range(HEADER, len(sealed), step)]
    header = sealed[:HEADER]
    for first in range(4):
        for second in range(first + 1, 4):
            order = list(range(4))
            order[first], order[second] = order[second], order[first]
            yield f"chunks {first} and {second} swapped", header + b"".join(chunks[number] for number in order)
    for number in range(4):
        yield f"chunk {number} dropped", header + b"".join(chunks[:number] + chunks[number + 1 :])
        yield f"chunk {number} repeated", header + b"".join(chunks[: number + 1] + chunks[number:])
        yield f"cut after {number} chunks", header + b"".join(chunks[:number])
        yield (
            f"chunk {number} zeroed",
            header + b"".join([*chunks[:number], bytes(len(chunks[number])), *chunks[number + 1 :]]),
        )
    yield "nothing left", b""
    for size in (1, 8, 9, 10, 41, 42, 57, 58, len(sealed) - 16, len(sealed) - 1):
        yield f"cut to {size} bytes", sealed[:size]
    for size in (1, 15, 16, 17):
        yield f"grown by {size} zeros", sealed + bytes(size)
    yield "header doubled", header + sealed
    yield "object doubled", sealed + sealed


@pytest.mark.parametrize("key", MODES)
def test_moved_repeated_dropped_and_added_pieces_are_found(key: bytes | None) -> None:
    sealed, _ = sealed_example(key)
    for name, damaged in damages(sealed, SEALED_CHUNK if key else CHUNK_BYTES + 32):
        with pytest.raises(CorruptionDetected) as caught:
            unseal(damaged, key, CONTEXT)
        assert "segment of backup FUL_20260102_030405_9f3a of plan trading" in caught.value.message, name
        assert caught.value.hint, name
        with pytest.raises(CorruptionDetected):
            read_all_by_range(damaged, len(sealed), key)


def read_all_by_range(stored: bytes, recorded_size: int, key: bytes | None) -> bytes:
    size = plaintext_size(recorded_size, encrypted=key is not None)
    pieces = [
        unseal_range(reader(stored), recorded_size, key, CONTEXT, start, min(CHUNK_BYTES, size - start))
        for start in range(0, size, CHUNK_BYTES)
    ]
    if len(stored) != recorded_size:  # more than was recorded is the store's to notice: it compares sizes
        raise CorruptionDetected("size")
    return b"".join(pieces)


@pytest.mark.parametrize("key", MODES)
def test_a_flip_of_any_bit_of_a_small_object_is_found(key: bytes | None) -> None:
    sealed = seal(b"state", key, CONTEXT)
    for position in range(len(sealed) * 8):
        damaged = bytearray(sealed)
        damaged[position // 8] ^= 1 << position % 8
        with pytest.raises(CorruptionDetected):
            unseal(damaged, key, CONTEXT)


@pytest.mark.parametrize("key", MODES)
@settings(max_examples=40, deadline=None)
@given(position=st.integers(0, HEADER + 3 * SEALED_CHUNK + 20), mask=st.integers(1, 255))
def test_a_change_anywhere_in_a_large_object_is_found(key: bytes | None, position: int, mask: int) -> None:
    sealed, _ = sealed_example(key)
    damaged = bytearray(sealed)
    damaged[position % len(sealed)] ^= mask
    with pytest.raises(CorruptionDetected):
        unseal(damaged, key, CONTEXT)


@pytest.mark.parametrize("key", MODES)
@pytest.mark.parametrize(
    "other",
    [
        replace(CONTEXT, repository_id="repository-2"),
        replace(CONTEXT, plan="trading2"),
        replace(CONTEXT, backup_id="INC_20260102_030405_9f3a"),
        replace(CONTEXT, kind=ObjectKind.INDEX),
        replace(CONTEXT, collection=4),
        replace(CONTEXT, part=8),
        replace(CONTEXT, collection=7, part=3),
        replace(CONTEXT, plan="tradin", backup_id="gFUL_20260102_030405_9f3a"),
    ],
    ids=str,
)
def test_an_object_of_another_place_is_not_accepted(other: ObjectContext, key: bytes | None) -> None:
    sealed = seal(data(100), key, other)
    with pytest.raises(CorruptionDetected):
        unseal(sealed, key, CONTEXT)
    with pytest.raises(CorruptionDetected):
        unseal_range(reader(sealed), len(sealed), key, CONTEXT, 0, 10)


def test_chunks_of_two_objects_of_the_same_place_do_not_mix() -> None:
    first, second = (seal(data(2 * CHUNK_BYTES), KEY, CONTEXT) for _ in range(2))
    with pytest.raises(CorruptionDetected, match="chunk 1"):
        unseal(first[: HEADER + SEALED_CHUNK] + second[HEADER + SEALED_CHUNK :], KEY, CONTEXT)


def test_another_key_opens_nothing() -> None:
    with pytest.raises(CorruptionDetected, match="chunk 0"):
        unseal(seal(data(100), KEY, CONTEXT), bytes(32), CONTEXT)


def test_an_object_of_another_version_is_not_accepted_in_its_place() -> None:
    older = replace(CONTEXT, version=1)
    for key in (KEY, None):
        with pytest.raises(CorruptionDetected, match="format version 1"):
            unseal(reference_seal(b"state", key, older, bytes(32)), key, CONTEXT)
        with pytest.raises(CorruptionDetected, match="format version 2"):
            unseal(seal(b"state", key, CONTEXT), key, older)
    with pytest.raises(ValueError, match="only read"):
        seal(b"state", KEY, older)


@pytest.mark.parametrize("key", MODES)
def test_ranges_of_version_1_are_what_the_whole_has_there(key: bytes | None) -> None:
    older, plaintext = replace(CONTEXT, version=1), data(2 * CHUNKS[1] + 100)
    sealed = reference_seal(plaintext, key, older, bytes(32))
    assert plaintext_size(len(sealed), encrypted=key is not None, version=1) == len(plaintext)
    for start, length in ((0, 10), (CHUNKS[1] - 5, 10), (2 * CHUNKS[1], 100), (3, 2 * CHUNKS[1])):
        assert unseal_range(reader(sealed), len(sealed), key, older, start, length) == plaintext[start : start + length]


def test_a_range_of_an_object_that_is_not_encrypted_reads_only_the_chunks_it_lies_in() -> None:
    sealed, plaintext = sealed_example(None)
    asked: list[tuple[int, int]] = []

    def read(offset: int, length: int) -> bytes:
        asked.append((offset, length))
        return sealed[offset : offset + length]

    assert unseal_range(read, len(sealed), None, CONTEXT, CHUNK_BYTES + 10, 5) == plaintext[CHUNK_BYTES + 10 :][:5]
    assert asked == [(0, HEADER), (HEADER + CHUNK_BYTES + 32, CHUNK_BYTES + 32)]


def test_plaintext_is_never_accepted_in_place_of_encrypted_data() -> None:
    with pytest.raises(CorruptionDetected, match="mode 0"):
        unseal(seal(data(100), None, CONTEXT), KEY, CONTEXT)


def test_encrypted_data_is_never_accepted_in_place_of_plaintext() -> None:
    with pytest.raises(CorruptionDetected, match="mode 1"):
        unseal(seal(data(100), KEY, CONTEXT), None, CONTEXT)


def test_a_cut_object_whose_size_was_recorded_is_found_by_a_range() -> None:
    sealed, _ = sealed_example(KEY)
    cut = sealed[: HEADER + 2 * SEALED_CHUNK]
    with pytest.raises(CorruptionDetected, match="before its recorded size"):
        unseal_range(reader(cut), len(sealed), KEY, CONTEXT, 2 * CHUNK_BYTES, 10)


def test_a_cut_object_whose_size_was_believed_does_not_pass_its_last_chunk() -> None:
    sealed, _ = sealed_example(KEY)
    cut = sealed[: HEADER + 2 * SEALED_CHUNK]
    with pytest.raises(CorruptionDetected, match="chunk 1"):
        unseal_range(reader(cut), len(cut), KEY, CONTEXT, CHUNK_BYTES, CHUNK_BYTES)


@pytest.mark.parametrize("encrypted", [True, False])
def test_impossible_sizes_are_refused(encrypted: bool) -> None:
    for size in (-1, 0, 41, 42, 57):
        with pytest.raises(CorruptionDetected):
            plaintext_size(size, encrypted=encrypted)
    for rest in range(17):
        if encrypted:  # a second chunk is never empty
            size = HEADER + SEALED_CHUNK + rest
            assert plaintext_size(HEADER + SEALED_CHUNK + 17) == CHUNK_BYTES + 1
            if rest:
                with pytest.raises(CorruptionDetected):
                    plaintext_size(size)


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        seal(b"state", bytes(length), CONTEXT)


def test_unauthenticated_plaintext_cannot_be_dug_out_of_the_error() -> None:
    secret = b"the position is 42 lots" * 10
    sealed = bytearray(seal(secret, KEY, CONTEXT))
    sealed[-1] ^= 1
    with pytest.raises(CorruptionDetected) as caught:
        unseal(sealed, KEY, CONTEXT)
    assert not [found for found in buffers(caught.tb) if b"position" in found]


def buffers(trace: TracebackType | None) -> Iterator[bytes]:
    while trace is not None:
        for name, value in trace.tb_frame.f_locals.items():
            if name != "secret" and isinstance(value, bytes | bytearray):
                yield bytes(value)
            if isinstance(value, BytesIO):  # released views of it show nothing
                yield value.getvalue()
        trace = trace.tb_next


@pytest.mark.parametrize("size", [0, 5, CHUNK_BYTES + 5])
def test_faulty_memory_while_sealing_is_found_before_anything_is_stored(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Faulty(stream._Encrypted):
        """Seals one bit other than it was given, as a failing memory cell does."""

        def encrypt(self, number: int, final: bool, plaintext: memoryview, sealed: memoryview) -> None:
            damaged = bytearray(plaintext)
            if damaged and final:
                damaged[-1] ^= 1
            super().encrypt(number, final, memoryview(damaged), sealed)
            if not damaged:
                sealed[-1] ^= 1

    monkeypatch.setattr(stream, "_Encrypted", Faulty)
    with pytest.raises(CorruptionDetected, match="segment of backup"):
        seal(data(size), KEY, CONTEXT)


# --- golden vectors ----------------------------------------------------------------------------------------------


def vector_context(vector: dict[str, object]) -> ObjectContext:
    fields = dict(vector["context"])  # type: ignore[call-overload]
    return ObjectContext(**{**fields, "kind": ObjectKind(fields["kind"])}, version=1)


def vector_key(vector: dict[str, object]) -> bytes | None:
    key = vector["key"]
    return bytes.fromhex(key) if isinstance(key, str) else None


def vector_bytes(name: str) -> bytes:
    vector = VECTORS["valid"][name]
    salt = bytes.fromhex(vector["salt"])
    return reference_seal(data(vector["plaintext_size"]), vector_key(vector), vector_context(vector), salt)


def changed(sealed: bytes, change: dict[str, object]) -> bytes:
    match change:
        case {"flip": int(offset)}:
            return sealed[:offset] + bytes([sealed[offset] ^ 1]) + sealed[offset + 1 :]
        case {"set": [int(offset), int(value)]}:
            return sealed[:offset] + bytes([value]) + sealed[offset + 1 :]
        case {"cut": int(size)}:
            return sealed[:size]
        case {"append": str(more)}:
            return sealed + bytes.fromhex(more)
        case {"order": list(order)}:
            step = CHUNKS[1] + 16
            chunks = [sealed[start : start + step] for start in range(HEADER, len(sealed), step)]
            return sealed[:HEADER] + b"".join(chunks[number] for number in order)
    return sealed


@pytest.mark.parametrize("name", VECTORS["valid"])
def test_golden_objects_open_for_ever(name: str) -> None:
    vector = VECTORS["valid"][name]
    sealed = vector_bytes(name)
    assert hashlib.sha256(sealed).hexdigest() == vector["sealed_sha256"]
    assert len(sealed) == vector["sealed_size"]
    if "sealed" in vector:
        assert sealed.hex() == vector["sealed"]
    assert unseal(sealed, vector_key(vector), vector_context(vector)) == data(vector["plaintext_size"])


@pytest.mark.parametrize("vector", VECTORS["invalid"], ids=lambda vector: vector["name"])
def test_golden_damages_are_refused_with_their_class_of_failure(vector: dict[str, object]) -> None:
    original = VECTORS["valid"][vector["of"]]
    sealed = changed(vector_bytes(str(vector["of"])), vector.get("change", {}))  # type: ignore[arg-type]
    opened_as = {**original, **vector.get("opened_as", {})}  # type: ignore[dict-item]
    with pytest.raises(CorruptionDetected) as caught:
        unseal(sealed, vector_key(opened_as), vector_context(opened_as))
    assert VECTORS["failures"][vector["failure"]] in caught.value.message
