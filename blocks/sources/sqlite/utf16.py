"""Text of UTF-16 databases that is no text: surrogates without their other half.

SQLite turns a lone surrogate and what follows it into another character without a word, so that such text can only be
told by its stored bytes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from blocks.sources.sqlite.rows import quoted, summed

_BROKEN, _SOUND = "lastgood_broken", "lastgood_sound"


def is_utf16(connection: sqlite3.Connection) -> bool:
    """Whether a database stores text as UTF-16; if so, the expressions below can be used on the connection."""
    (encoding,) = connection.execute("PRAGMA encoding").fetchone()
    if encoding == "UTF-8":
        return False

    def broken(stored: bytes) -> int:
        try:
            stored.decode(encoding)
        except UnicodeDecodeError:
            return 1
        return 0

    def sound(found: int) -> int:
        if found:
            raise ValueError(found)
        return 1

    connection.create_function(_BROKEN, 1, broken, deterministic=True)
    connection.create_function(_SOUND, 1, sound, deterministic=True)
    return True


def broken_text(columns: Iterable[str]) -> str:
    """Write as an expression of SQL whether a row has broken text in one of some columns."""
    terms = [
        f"(CASE typeof({name}) WHEN 'text' THEN {_BROKEN}(CAST({name} AS BLOB)) ELSE 0 END)"
        for name in map(quoted, columns)
    ]
    return f"({summed(terms)}) > 0"


def failing_at_broken_text(columns: Iterable[str]) -> str:
    """Write a condition that is true of each row, and an error at the first one with broken text."""
    return f"{_SOUND}({broken_text(columns)})"


def is_broken_text(exc: BaseException) -> bool:
    """Whether an error is that of `failing_at_broken_text`."""
    return isinstance(exc, sqlite3.OperationalError) and str(exc) == "user-defined function raised exception"
