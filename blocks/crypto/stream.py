"""Sealed objects: every byte of a backup, encrypted and bound to its place.

    magic "LASTGOOD" | version 1 | mode 1 | 32 bytes of salt | chunks of 1 MiB + 16 bytes of tag      encrypted
    magic "LASTGOOD" | version 1 | mode 0 | 32 bytes of salt | SHA-256 | payload                      `encryption: none`

The chunks are the STREAM construction (Hoang, Reyhanitabar, Rogaway and Vizár, 2015) over AES-256-GCM: a chunk's
nonce is its number and whether it is the last, so that none can be moved, repeated, dropped or added. The header and
the context are associated data of each, so that no object can stand in for another.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable
from enum import IntEnum
from io import BytesIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from typing_extensions import Buffer

from blocks.crypto.context import DAMAGED_HINT, VERSION, ObjectContext, ObjectKind
from blocks.crypto.encoding import KEY_BYTES, SALT_BYTES
from blocks.errors import CorruptionDetected

__all__ = ["CHUNK_BYTES", "ObjectContext", "ObjectKind", "plaintext_size", "seal", "unseal", "unseal_range"]

MAGIC = b"LASTGOOD"
CHUNK_BYTES = 1024 * 1024
TAG_BYTES = 16
DIGEST_BYTES = 32
HEADER_BYTES = len(MAGIC) + 2 + SALT_BYTES
_SEALED_CHUNK_BYTES = CHUNK_BYTES + TAG_BYTES


class Mode(IntEnum):
    """How the body of a sealed object is protected."""

    PLAINTEXT = 0
    AES_256_GCM = 1


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
    source = memoryview(plaintext).cast("B")
    mode = Mode.PLAINTEXT if key is None else Mode.AES_256_GCM
    header = MAGIC + bytes((VERSION, mode)) + os.urandom(SALT_BYTES)
    # BytesIO hands out its buffer as bytes without a copy, where a bytearray would need one
    holder = BytesIO(bytes(_sealed_size(len(source), mode)))
    with holder.getbuffer() as sealed:
        sealed[:HEADER_BYTES] = header
        if key is None:
            same = _fill_plain(sealed, source, header, context)
        else:
            same = _fill_encrypted(sealed, source, _Stream(key, header, context))
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
    header, mode = _header(bytes(source[:HEADER_BYTES]), key, context)
    size = _plaintext_size(len(source), mode, context)
    if key is None:
        payload = source[HEADER_BYTES + DIGEST_BYTES :]
        found = source[HEADER_BYTES : HEADER_BYTES + DIGEST_BYTES]
        _compare_digest(_digest(header, context, payload).digest(), bytes(found), context)
        return bytes(payload)
    stream = _Stream(key, header, context)
    holder = BytesIO(bytes(size))
    with holder.getbuffer() as plaintext:
        for number, start in enumerate(_chunk_starts(size)):
            body = source[_sealed_start(number) : _sealed_start(number + 1)]
            stream.decrypt(number, start + CHUNK_BYTES >= size, body, plaintext[start : start + CHUNK_BYTES])
    return holder.getvalue()


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
    the last chunk is read. With `encryption: none` one digest covers everything and the whole object is read.

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
    header, mode = _header(_read(read, 0, min(HEADER_BYTES, sealed_size), context), key, context)
    size = _plaintext_size(sealed_size, mode, context)
    if start < 0 or length < 0 or start + length > size:
        raise ValueError(f"{context}: bytes {start} to {start + length} are outside of its {size} bytes")
    if key is None:
        return _range_of_plain(read, size, header, context, start, length)
    last = _chunk_count(size) - 1
    first_wanted = min(start // CHUNK_BYTES, last)
    last_wanted = max(first_wanted, (start + length - 1) // CHUNK_BYTES)
    begin, end = _sealed_start(first_wanted), min(_sealed_start(last_wanted + 1), sealed_size)
    body = memoryview(_read(read, begin, end - begin, context))
    stream = _Stream(key, header, context)
    holder = bytearray(min((last_wanted + 1) * CHUNK_BYTES, size) - first_wanted * CHUNK_BYTES)
    with memoryview(holder) as plaintext:
        for index, number in enumerate(range(first_wanted, last_wanted + 1)):
            chunk = body[index * _SEALED_CHUNK_BYTES : (index + 1) * _SEALED_CHUNK_BYTES]
            stream.decrypt(number, number == last, chunk, plaintext[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES])
        offset = start - first_wanted * CHUNK_BYTES
        return bytes(plaintext[offset : offset + length])


def plaintext_size(sealed_size: int, *, encrypted: bool = True) -> int:
    """Return the bytes inside a sealed object of `sealed_size` bytes.

    Raises:
        CorruptionDetected: No sealed object has this size.
    """
    size = _size_inside(sealed_size, Mode.AES_256_GCM if encrypted else Mode.PLAINTEXT)
    if size is None:
        raise CorruptionDetected(f"no sealed object has a size of {sealed_size} bytes", hint=DAMAGED_HINT)
    return size


class _Stream:
    """The chunks of one object under its own key."""

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
        """Fill `sealed` (16 bytes longer than `plaintext`)."""
        self._cipher.encrypt_into(_nonce(number, final), plaintext, self._bound, sealed)

    def decrypt(self, number: int, final: bool, sealed: memoryview, plaintext: memoryview | bytearray) -> None:
        """Fill `plaintext` (16 bytes shorter than `sealed`), or leave zeros there and raise."""
        try:
            self._cipher.decrypt_into(_nonce(number, final), sealed, self._bound, plaintext)
        except InvalidTag as exc:
            # the library has already written what it could not authenticate
            view = memoryview(plaintext)
            view[:] = bytes(len(view))
            raise self._context.damaged(f"chunk {number} is not what was sealed there") from exc


def _nonce(number: int, final: bool) -> bytes:
    return number.to_bytes(11, "big") + (b"\x01" if final else b"\x00")


def _fill_encrypted(sealed: memoryview, source: memoryview, stream: _Stream) -> bool:
    size = len(source)
    check = bytearray(min(size, CHUNK_BYTES))
    for number, start in enumerate(_chunk_starts(size)):
        chunk = source[start : start + CHUNK_BYTES]
        final = start + CHUNK_BYTES >= size
        body = sealed[_sealed_start(number) : _sealed_start(number) + len(chunk) + TAG_BYTES]
        stream.encrypt(number, final, chunk, body)
        if len(chunk) != len(check):
            check = bytearray(len(chunk))
        stream.decrypt(number, final, body, check)
        if check != chunk:
            return False
    return True


def _fill_plain(sealed: memoryview, source: memoryview, header: bytes, context: ObjectContext) -> bool:
    payload = sealed[HEADER_BYTES + DIGEST_BYTES :]
    payload[:] = source
    digest = _digest(header, context, payload).digest()
    sealed[HEADER_BYTES : HEADER_BYTES + DIGEST_BYTES] = digest
    return _digest(header, context, source).digest() == digest


def _range_of_plain(
    read: Callable[[int, int], bytes], size: int, header: bytes, context: ObjectContext, start: int, length: int
) -> bytes:
    begin = HEADER_BYTES + DIGEST_BYTES
    found = _read(read, HEADER_BYTES, DIGEST_BYTES, context)
    digest = _digest(header, context, b"")
    wanted = bytearray()
    for offset in range(0, size, CHUNK_BYTES):
        piece = _read(read, begin + offset, min(CHUNK_BYTES, size - offset), context)
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


def _header(header: bytes, key: bytes | None, context: ObjectContext) -> tuple[bytes, Mode]:
    if len(header) < HEADER_BYTES or not header.startswith(MAGIC):
        raise context.damaged("it does not begin as a sealed object does")
    version, mode = header[len(MAGIC)], header[len(MAGIC) + 1]
    if version != VERSION:
        raise context.damaged(f"it has format version {version}; this lastgood reads version {VERSION}")
    # what the keys say decides, never the bytes: otherwise plaintext could be slipped in for encrypted data
    expected = Mode.PLAINTEXT if key is None else Mode.AES_256_GCM
    if mode != expected:
        raise context.damaged(f"it has mode {mode} where the repository's keys ask for mode {expected.value}")
    return header, expected


def _chunk_count(size: int) -> int:
    return max(1, -(-size // CHUNK_BYTES))


def _chunk_starts(size: int) -> range:
    return range(0, max(size, 1), CHUNK_BYTES)


def _sealed_start(number: int) -> int:
    return HEADER_BYTES + number * _SEALED_CHUNK_BYTES


def _sealed_size(size: int, mode: Mode) -> int:
    if mode is Mode.PLAINTEXT:
        return HEADER_BYTES + DIGEST_BYTES + size
    return HEADER_BYTES + size + _chunk_count(size) * TAG_BYTES


def _size_inside(sealed_size: int, mode: Mode) -> int | None:
    """Undo `_sealed_size`; None where no plaintext gives that size."""
    body = sealed_size - HEADER_BYTES
    if mode is Mode.PLAINTEXT:
        return body - DIGEST_BYTES if body >= DIGEST_BYTES else None
    size = body - max(1, -(-body // _SEALED_CHUNK_BYTES)) * TAG_BYTES
    return size if size >= 0 and _sealed_size(size, mode) == sealed_size else None


def _plaintext_size(sealed_size: int, mode: Mode, context: ObjectContext) -> int:
    size = _size_inside(sealed_size, mode)
    if size is None:
        raise context.damaged(f"it was cut off or has grown: no sealed object has {sealed_size} bytes")
    return size
