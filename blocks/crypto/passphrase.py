"""Passphrases and keys as text, read from where a credential says.

A passphrase counts in Unicode's NFKC form, so that the same words typed on another keyboard are the same passphrase.
"""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

from blocks.errors import ConfigurationError

_LARGEST_FILE_BYTES = 64 * 1024


def passphrase_in(name: str) -> bytes:
    """Read a passphrase from an environment variable.

    Raises:
        ConfigurationError: It is not set, is empty, or is no text.
    """
    return passphrase_of(text_in(name), f"variable {name}")


def passphrase_at(path: Path) -> bytes:
    """Read a passphrase from a file; one newline at its end is not part of it.

    Raises:
        ConfigurationError: The file cannot be read, is empty, or is no text.
    """
    return passphrase_of(text_at(path, private=False).removesuffix("\n").removesuffix("\r"), f"file {path}")


def passphrase_of(text: str, place: str) -> bytes:
    """Return a passphrase's bytes: UTF-8 of its NFKC form.

    Args:
        text: The passphrase as text, before normalisation.
        place: Where it came from, for the error.

    Raises:
        ConfigurationError: It is empty, or has surrogates.
    """
    if not text:
        raise ConfigurationError(f"The passphrase in the {place} is empty", hint="An empty one protects nothing.")
    try:
        return unicodedata.normalize("NFKC", text).encode("utf-8")
    except UnicodeEncodeError as exc:
        raise ConfigurationError(f"The passphrase in the {place} is not UTF-8 text") from exc


def text_in(name: str) -> str:
    """Read an environment variable.

    Raises:
        ConfigurationError: It is not set.
    """
    value = os.environ.get(name)
    if value is None:
        raise ConfigurationError(
            f"The environment variable {name} is not set",
            hint=f"Set {name} where lastgood runs, or name another credential in the plan's `encryption`.",
        )
    return value


def text_at(path: Path, *, private: bool) -> str:
    """Read a small text file.

    Args:
        path: Path of the file.
        private: Refuse it where others may read or change it.

    Raises:
        ConfigurationError: It cannot be read, is too large, is no UTF-8, or is not private.
    """
    try:
        with path.expanduser().open("rb") as file:
            # the mode of what was opened, not of what the name meant a moment ago
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(_LARGEST_FILE_BYTES + 1)
    except OSError as exc:
        raise ConfigurationError(
            f"The file {path} of the credential cannot be read: {exc.strerror}",
            hint="Put it there, or name another credential in the plan's `encryption`.",
        ) from exc
    if private and mode & 0o077:
        raise ConfigurationError(
            f"The key file {path} may be read or changed by others (mode {mode & 0o777:o})",
            hint=f"Run `chmod 600 {path}`; if others could have read it, replace the key.",
        )
    if len(data) > _LARGEST_FILE_BYTES:
        raise ConfigurationError(f"The file {path} of the credential is too large to be one")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise ConfigurationError(f"The file {path} of the credential is not UTF-8 text") from exc
