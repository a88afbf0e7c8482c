"""Sizes of keys and salts, for modules that would otherwise import each other."""

from __future__ import annotations

KEY_BYTES = 32
SALT_BYTES = 32
