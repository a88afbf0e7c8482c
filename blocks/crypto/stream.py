"""Sealed objects: every byte of a backup, encrypted and bound to its place.

    magic "LASTGOOD" | version | mode 1 | 32 bytes of salt | chunks, each with 16 bytes of tag     encrypted
    magic "LASTGOOD" | version | mode 0 | 32 bytes of salt | chunks, each with its SHA-256         `encryption: none`

A chunk has 64 KiB, in version 1 a mebibyte; there, with `encryption: none`, one SHA-256 stands before all of the
payload instead. The chunks are the STREAM construction (Hoang, Reyhanitabar, Rogaway and Vizár, 2015) over
AES-256-GCM: a chunk's nonce is its number and whether it is the last, so that none can be moved, repeated, dropped or
added. The header and the context are associated data of each, so that no object can stand in for another. So any range
can be opened without the rest.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from io import BytesIO
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from typing_extensions import Buffer

from blocks.crypto.context import DAMAGED_HINT, VERSION, VERSIONS, ObjectContext, ObjectKind
from blocks.crypto.encoding import KEY_BYTES, SALT_BYTES
from blocks.errors import CorruptionDetected

__all__ = [
    "CHUNK_BYTES",
    "ObjectContext",
    "ObjectKind",
    "plaintext_size",
    "seal",
    "stored_version",
    "unseal",
    "unseal_range",
]

MAGIC = b"LASTGOOD"
CHUNK_BYTES = 64 * 1024
TAG_BYTES = 16
DIGEST_BYTES = 32
HEADER_BYTES = len(MAGIC) + 2 + SALT_BYTES
_CHUNK_BYTES_OF_1 = 1024 * 1024


class Mode(IntEnum):
    """How the body of a sealed object is protected."""

    PLAINTEXT = 0
    AES_256_GCM = 1


@dataclass(frozen=True)
class _Layout:
    """Where chunks lie in an object.

    Attributes:
        chunk: Bytes of plaintext in each chunk but the last.
        tag: Bytes that follow each chunk and protect it; none where one digest protects all.
        head: Bytes before the first chunk.
    """

    chunk: int
    tag: int
    head: int = HEADER_BYTES

    @classmethod
    def of(cls, version: int, mode: Mode) -> _Layout:
        if version > 1:
            return cls(CHUNK_BYTES, TAG_BYTES if mode is Mode.AES_256_GCM else DIGEST_BYTES)
        if mode is Mode.AES_256_GCM:
            return cls(_CHUNK_BYTES_OF_1, TAG_BYTES)
        return cls(_CHUNK_BYTES_OF_1, 0, HEADER_BYTES + DIGEST_BYTES)

    def start(self, number: int) -> int:
        """Where a sealed chunk begins."""
        return self.head + number * (self.chunk + self.tag)

    def count(self, size: int) -> int:
        """How many chunks hold so much plaintext; an empty object has one."""
        return max(1, -(-size // self.chunk))

    def sealed_size(self, size: int) -> int:
        return self.head + size + self.count(size) * self.tag

    def size_inside(self, sealed_size: int) -> int | None:
        """Undo `sealed_size`; None where no plaintext gives that size."""
        body = sealed_size - self.head
        size = body - max(1, -(-body // (self.chunk + self.tag))) * self.tag
        return size if size >= 0 and self.sealed_size(size) == sealed_size else None


class _Stream(Protocol):
    """The chunks of one object."""

    def encrypt(self, number: int, final: bool, plaintext: memoryview, sealed: memoryview) -> None:
        """Fill `sealed`, which is longer than `plaintext` by a tag."""
        ...

    def decrypt(self, number: int, final: bool, sealed: memoryview, plaintext: memoryview | bytearray) -> None:
        """Fill `plaintext`, which is shorter than `sealed` by a tag, or leave zeros there and raise."""
        ...


def seal(plaintext: Buffer, key: bytes | None, context: ObjectContext) -> bytes:
    """Seal an object, then open it again and compare before handing it out.

    Args:
        plaintext: Anything with a contiguous buffer (bytes, memoryview, pyarrow.Buffer); it is not copied.
        key: 32 bytes, or None for `encryption: none`.
        context: The place the object is for.

    Returns:
        The sealed bytes, ready to be written and hashed.

    Raises:
        CorruptionDetected: What was sealed does not open to what was given: faulty memory, or a changing buffer.
    """
    if context.version != VERSION:
        raise ValueError(f"{context}: objects of version {context.version} are only read")
    source = memoryview(plaintext).cast("B")
    mode = Mode.PLAINTEXT if key is None else Mode.AES_256_GCM
    layout = _Layout.of(VERSION, mode)
    header = MAGIC + bytes((VERSION, mode)) + os.urandom(SALT_BYTES)
    # BytesIO hands out its buffer as bytes without a copy, where a bytearray would need one
    holder = BytesIO(bytes(layout.sealed_size(len(source))))
    with holder.getbuffer() as sealed:
        sealed[:HEADER_BYTES] = header
        same = _fill(sealed, source, layout, _stream(key, header, context))
    if not same:
        raise CorruptionDetected(
            f"{context}: what was sealed does not open to what was given; nothing of it was stored",
            hint="Test the memory of this machine, then run the backup again.",
        )
    return holder.getvalue()


def unseal(sealed: Buffer, key: bytes | None, context: ObjectContext) -> bytes:
    """Open an object; nothing is returned before all of it has been authenticated.

    Raises:
        CorruptionDetected: It is not what was sealed for this place with this key; names the object.
    """
    source = memoryview(sealed).cast("B")
    header, layout = _header(bytes(source[:HEADER_BYTES]), key, context)
    size = _plaintext_size(len(source), layout, context)
    if not layout.tag:
        payload = source[layout.head :]
        found = source[HEADER_BYTES : layout.head]
        _compare_digest(_digest(header, context, payload).digest(), bytes(found), context)
        return bytes(payload)
    return _chunks(source[layout.head :], 0, size, layout, _stream(key, header, context))


def unseal_range(
    read: Callable[[int, int], bytes],
    sealed_size: int,
    key: bytes | None,
    context: ObjectContext,
    start: int,
    length: int,
) -> bytes:
    """Open a range of an object, reading and authenticating only the chunks it lies in.

    Which chunk is the last follows from `sealed_size`, so a size that is not the object's own is found out as soon as
    the last chunk is read. In version 1 with `encryption: none` one digest covers all, and the whole object is read.

    Args:
        read: Reads bytes of the sealed object: offset and length in bytes.
        sealed_size: Size of the sealed object in bytes, from the manifest.
        key: 32 bytes, or None for `encryption: none`.
        context: The place the object is for.
        start: First byte of the plaintext wanted.
        length: Number of bytes wanted; the range must lie inside the plaintext.

    Raises:
        CorruptionDetected: The chunks are not what was sealed for this place with this key.
        ValueError: The range lies outside the object.
    """
    header, layout = _header(_read(read, 0, min(HEADER_BYTES, sealed_size), context), key, context)
    size = _plaintext_size(sealed_size, layout, context)
    if start < 0 or length < 0 or start + length > size:
        raise ValueError(f"{context}: bytes {start} to {start + length} are outside of its {size} bytes")
    if not layout.tag:
        return _range_of_one_digest(read, size, header, context, start, length)
    last = layout.count(size) - 1
    first_wanted = min(start // layout.chunk, last)
    last_wanted = max(first_wanted, (start + length - 1) // layout.chunk)
    begin, end = layout.start(first_wanted), min(layout.start(last_wanted + 1), sealed_size)
    body = memoryview(_read(read, begin, end - begin, context))
    stream = _stream(key, header, context)
    plaintext = _chunks(body, first_wanted, size, layout, stream)
    offset = start - first_wanted * layout.chunk
    return plaintext[offset : offset + length]


def stored_version(sealed: Buffer) -> int:
    """Return the version that an object says it is of, or this one's where it says nothing that is known.

    Which chunks there are and what they are bound to follows from it, so that a wrong one does not open.
    """
    header = bytes(memoryview(sealed).cast("B")[: len(MAGIC) + 1])
    said = header[-1] if len(header) > len(MAGIC) else VERSION
    return said if said in VERSIONS else VERSION


def plaintext_size(sealed_size: int, *, encrypted: bool = True, version: int = VERSION) -> int:
    """Return the bytes inside a sealed object of `sealed_size` bytes.

    Raises:
        CorruptionDetected: No sealed object has this size.
    """
    size = _Layout.of(version, Mode.AES_256_GCM if encrypted else Mode.PLAINTEXT).size_inside(sealed_size)
    if size is None:
        raise CorruptionDetected(f"no sealed object has a size of {sealed_size} bytes", hint=DAMAGED_HINT)
    return size


class _Encrypted:
    """Chunks under the object's own key."""

    def __init__(self, key: bytes, header: bytes, context: ObjectContext) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"{context}: a key has {KEY_BYTES} bytes, not {len(key)}")
        self._context = context
        encoded = context.encode()
        salt = header[-SALT_BYTES:]
        derived = HKDF(SHA256(), KEY_BYTES, salt, b"lastgood/1/object" + encoded).derive(key)
        self._cipher = AESGCM(derived)
        self._bound = header + encoded

    def encrypt(self, number: int, final: bool, plaintext: memoryview, sealed: memoryview) -> None:
        self._cipher.encrypt_into(_nonce(number, final), plaintext, self._bound, sealed)

    def decrypt(self, number: int, final: bool, sealed: memoryview, plaintext: memoryview | bytearray) -> None:
        try:
            self._cipher.decrypt_into(_nonce(number, final), sealed, self._bound, plaintext)
        except InvalidTag as exc:
            # the library has already written what it could not authenticate
            view = memoryview(plaintext)
            view[:] = bytes(len(view))
            raise self._context.damaged(f"chunk {number} is not what was sealed there") from exc


class _Digested:
    """Chunks that are not encrypted; a SHA-256 shows damage and mix-ups, but not intent."""

    def __init__(self, header: bytes, context: ObjectContext) -> None:
        self._context = context
        self._bound = hashlib.sha256(header + context.encode())

    def encrypt(self, number: int, final: bool, plaintext: memoryview, sealed: memoryview) -> None:
        sealed[: len(plaintext)] = plaintext
        sealed[len(plaintext) :] = self._digest(number, final, plaintext)

    def decrypt(self, number: int, final: bool, sealed: memoryview, plaintext: memoryview | bytearray) -> None:
        payload, found = sealed[:-DIGEST_BYTES], bytes(sealed[-DIGEST_BYTES:])
        if not hmac.compare_digest(self._digest(number, final, payload), found):
            raise self._context.damaged(f"chunk {number} does not match its SHA-256, or belongs to another place")
        plaintext[:] = payload

    def _digest(self, number: int, final: bool, payload: memoryview) -> bytes:
        digest = self._bound.copy()
        digest.update(_nonce(number, final))
        digest.update(payload)
        return digest.digest()


def _stream(key: bytes | None, header: bytes, context: ObjectContext) -> _Stream:
    return _Digested(header, context) if key is None else _Encrypted(key, header, context)


def _nonce(number: int, final: bool) -> bytes:
    return number.to_bytes(11, "big") + (b"\x01" if final else b"\x00")


def _fill(sealed: memoryview, source: memoryview, layout: _Layout, stream: _Stream) -> bool:
    """Seal chunk by chunk; return whether each opens to what it was."""
    size = len(source)
    check = bytearray(min(size, layout.chunk))
    for number in range(layout.count(size)):
        start = number * layout.chunk
        chunk = source[start : start + layout.chunk]
        final = start + layout.chunk >= size
        body = sealed[layout.start(number) : layout.start(number) + len(chunk) + layout.tag]
        stream.encrypt(number, final, chunk, body)
        if len(chunk) != len(check):
            check = bytearray(len(chunk))
        stream.decrypt(number, final, body, check)
        if check != chunk:
            return False
    return True


def _chunks(body: memoryview, first: int, size: int, layout: _Layout, stream: _Stream) -> bytes:
    """Open consecutive chunks of an object whose plaintext has `size` bytes; `first` is the number of the first."""
    step = layout.chunk + layout.tag
    count = max(1, -(-len(body) // step))
    holder = BytesIO(bytes(len(body) - count * layout.tag))
    with holder.getbuffer() as plaintext:
        for index, number in enumerate(range(first, first + count)):
            chunk = body[index * step : (index + 1) * step]
            opened = plaintext[index * layout.chunk : (index + 1) * layout.chunk]
            stream.decrypt(number, (number + 1) * layout.chunk >= size, chunk, opened)
    return holder.getvalue()


def _range_of_one_digest(
    read: Callable[[int, int], bytes], size: int, header: bytes, context: ObjectContext, start: int, length: int
) -> bytes:
    begin = HEADER_BYTES + DIGEST_BYTES
    found = _read(read, HEADER_BYTES, DIGEST_BYTES, context)
    digest = _digest(header, context, b"")
    wanted = bytearray()
    for offset in range(0, size, _CHUNK_BYTES_OF_1):
        piece = _read(read, begin + offset, min(_CHUNK_BYTES_OF_1, size - offset), context)
        digest.update(piece)
        wanted += piece[max(0, start - offset) : max(0, start + length - offset)]
    _compare_digest(digest.digest(), found, context)
    return bytes(wanted)


def _digest(header: bytes, context: ObjectContext, payload: Buffer) -> hashlib._Hash:
    digest = hashlib.sha256(header + context.encode())
    digest.update(payload)
    return digest


def _compare_digest(computed: bytes, found: bytes, context: ObjectContext) -> None:
    if not hmac.compare_digest(computed, found):
        raise context.damaged("its bytes do not match their SHA-256, or belong to another place")


def _read(read: Callable[[int, int], bytes], offset: int, length: int, context: ObjectContext) -> bytes:
    data = read(offset, length)
    if len(data) != length:
        raise context.damaged(f"it ends after {offset + len(data)} bytes, before its recorded size")
    return data


def _header(header: bytes, key: bytes | None, context: ObjectContext) -> tuple[bytes, _Layout]:
    if len(header) < HEADER_BYTES or not header.startswith(MAGIC):
        raise context.damaged("it does not begin as a sealed object does")
    version, mode = header[len(MAGIC)], header[len(MAGIC) + 1]
    if version not in VERSIONS:
        raise context.damaged(f"it has format version {version}; this lastgood reads up to version {VERSION}")
    if version != context.version:
        raise context.damaged(f"it has format version {version} where the manifest asks for {context.version}")
    # what the keys say decides, never the bytes: otherwise plaintext could be slipped in for encrypted data
    expected = Mode.PLAINTEXT if key is None else Mode.AES_256_GCM
    if mode != expected:
        raise context.damaged(f"it has mode {mode} where the repository's keys ask for mode {expected.value}")
    return header, _Layout.of(version, expected)


def _plaintext_size(sealed_size: int, layout: _Layout, context: ObjectContext) -> int:
    size = layout.size_inside(sealed_size)
    if size is None:
        raise context.damaged(f"it was cut off or has grown: no sealed object has {sealed_size} bytes")
    return size
