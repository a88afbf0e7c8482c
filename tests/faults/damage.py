"""Damage to stored objects, at every place that means something in their format."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from blocks.crypto.stream import CHUNK_BYTES, HEADER_BYTES, TAG_BYTES

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
    "another version": put_byte(8, 2),
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
}
