"""Bytes as text in lastgood.json: base64 with the standard alphabet and padding, in the one form that is written."""

from __future__ import annotations

import base64
from typing import Annotated

from pydantic import AfterValidator

KEY_BYTES = 32
SALT_BYTES = 32


def to_base64(data: bytes) -> str:
    """Encode with the standard alphabet and padding."""
    return base64.b64encode(data).decode("ascii")


def from_base64(text: str) -> bytes:
    """Decode, refusing anything that `to_base64` would not write.

    Raises:
        ValueError: It is not base64.
    """
    data = base64.b64decode(text, validate=True)
    if to_base64(data) != text:
        raise ValueError("not canonical base64")
    return data


def _base64(text: str) -> str:
    from_base64(text)
    return text


def _salt(text: str) -> str:
    if len(from_base64(text)) != SALT_BYTES:
        raise ValueError(f"a salt has {SALT_BYTES} bytes")
    return text


Base64 = Annotated[str, AfterValidator(_base64)]
Salt = Annotated[str, AfterValidator(_salt)]
