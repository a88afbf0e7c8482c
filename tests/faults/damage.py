"""Damage to stored objects, and to the blobs in them, at every place that means something in their format."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from blocks.crypto.stream import CHUNK_BYTES, HEADER_BYTES, TAG_BYTES
from blocks.records import Blob

Damage = Callable[[Path], None]

SEALED_CHUNK = CHUNK_BYTES + TAG_BYTES


def rewrite(path: Path, data: bytes) -> None:
    """Give a file other content; its old bytes, which the pristine repository shares by a hard link, stay."""
    path.unlink()
    path.write_bytes(data)


def hard_copy(source: Path, target: Path) -> None:
    """Copy a repository at once; nobody, lastgood included, ever changes a stored file in place."""
    shutil.copytree(source, target, copy_function=os.link)


def flip(at: int) -> Damage:
    """Change one bit; a negative position counts from the end."""

    def damage(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[at] ^= 1
        rewrite(path, bytes(data))

    return damage


def edit(change: Callable[[bytes], bytes]) -> Damage:
    def damage(path: Path) -> None:
        before = path.read_bytes()
        after = change(before)
        assert after != before, "nothing was damaged"
        rewrite(path, after)

    return damage


def put_byte(at: int, value: int) -> Damage:
    return edit(lambda data: data[:at] + bytes([value]) + data[at + 1 :])


def in_blob(blob: Blob, damage: Damage) -> Damage:
    """Damage one blob of a pack; where its size changes, what lies behind it moves, or goes with the pack."""

    def damaged(path: Path) -> None:
        before = path.read_bytes()
        start, end = blob.offset, blob.offset + blob.size_bytes
        alone = path.with_name("alone")
        alone.write_bytes(before[start:end])
        damage(alone)
        if alone.is_file():
            rewrite(path, before[:start] + alone.read_bytes() + before[end:])
            alone.unlink()
            return
        path.unlink()
        if alone.is_dir():
            alone.rename(path)

    return damaged


def delete(path: Path) -> None:
    path.unlink()


def empty_folder(path: Path) -> None:
    """Put a folder in the place of a file."""
    path.unlink()
    path.mkdir()


EVERYWHERE: dict[str, Damage] = {
    "the first byte flipped": flip(0),
    "a byte in the middle flipped": lambda path: flip(path.stat().st_size // 2)(path),
    "the last byte flipped": flip(-1),
    "cut to nothing": edit(lambda data: b""),
    "the last byte cut off": edit(lambda data: data[:-1]),
    "the first byte cut off": edit(lambda data: data[1:]),
    "zeros of the same size": edit(lambda data: bytes(len(data))),
    "a byte added": edit(lambda data: data + b"\0"),
    "doubled": edit(lambda data: data + data),
    "deleted": delete,
    "a folder in its place": empty_folder,
}

SEALED: dict[str, Damage] = {
    "the magic flipped": flip(7),
    "the version before": put_byte(8, 1),
    "a newer version": put_byte(8, 3),
    "version 0": put_byte(8, 0),
    "the mode says plaintext": put_byte(9, 0),
    "another mode": put_byte(9, 2),
    "the salt flipped": flip(10),
    "the end of the salt flipped": flip(HEADER_BYTES - 1),
    "the first byte of the body flipped": flip(HEADER_BYTES),
    "the last tag flipped": flip(-TAG_BYTES),
    "the last tag cut off": edit(lambda data: data[:-TAG_BYTES]),
    "cut inside of the header": edit(lambda data: data[:20]),
    "cut after the header": edit(lambda data: data[:HEADER_BYTES]),
    "an empty chunk added": edit(lambda data: data + bytes(TAG_BYTES)),
}

_SECOND = HEADER_BYTES + SEALED_CHUNK

CHUNKED: dict[str, Damage] = {
    "the first chunk's tag flipped": flip(_SECOND - 1),
    "the second chunk's first byte flipped": flip(_SECOND),
    "cut at the end of the first chunk": edit(lambda data: data[:_SECOND]),
    "cut inside of the second chunk": edit(lambda data: data[: _SECOND + 100]),
    "the first chunk removed": edit(lambda data: data[:HEADER_BYTES] + data[_SECOND:]),
    "the first chunk repeated": edit(lambda data: data[:_SECOND] + data[HEADER_BYTES:]),
    "the chunks swapped": edit(
        lambda data: data[:HEADER_BYTES] + data[_SECOND:] + data[HEADER_BYTES:_SECOND],
    ),
    "the second chunk in the place of the first": edit(
        lambda data: data[:HEADER_BYTES] + data[_SECOND:][:SEALED_CHUNK].ljust(SEALED_CHUNK, b"\0") + data[_SECOND:],
    ),
    "the last chunk cut off": edit(lambda data: data[: _last_chunk(data)]),
    "the last chunk's first byte flipped": lambda path: flip(_last_chunk(path.read_bytes()))(path),
}

BORDERS: dict[str, Callable[[int], int]] = {
    "the first byte": lambda size: 0,
    "the version": lambda size: 8,
    "the mode": lambda size: 9,
    "the salt": lambda size: 10,
    "the end of the header": lambda size: HEADER_BYTES - 1,
    "the first byte of the body": lambda size: HEADER_BYTES,
    "the last byte before the last tag": lambda size: size - TAG_BYTES - 1,
    "the first byte of the last tag": lambda size: size - TAG_BYTES,
    "the last byte": lambda size: size - 1,
}
"""Places in a sealed blob, by its size."""


def _last_chunk(data: bytes) -> int:
    return HEADER_BYTES + (len(data) - HEADER_BYTES - 1) // SEALED_CHUNK * SEALED_CHUNK
