"""What servers really held at a moment, in the words of their own programs: Redis's digests, pg_dump's text."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import cast

from blocks.errors import LastgoodError
from deployments.demo.trading.redis import Redis, Reply

WHOLE = "(all keys)"
"""Stands for the digest of a whole Redis among those of its keys."""
_UNRESTORABLE = (b"seen-time", b"active-time", b"radix-tree-keys", b"radix-tree-nodes")
"""When a consumer was seen last, which no command can set, and how a stream lies in memory."""


def look_at_cache(socket: Path) -> dict[str, tuple[object, ...]]:
    """Return Redis's own digest and expiry of each key, groups of streams, and the digest of all of it."""
    with Redis(socket) as redis:
        keys = cast("list[bytes]", redis("KEYS", "*"))
        digests = cast("list[Reply]", redis("DEBUG", "DIGEST-VALUE", *keys)) if keys else []
        expiries = redis.many([("PEXPIRETIME", key) for key in keys])
        types = redis.many([("TYPE", key) for key in keys])
        seen: dict[str, tuple[object, ...]] = {WHOLE: (redis("DEBUG", "DIGEST"),)}
        for key, kind, *facts in zip(keys, types, digests, expiries, strict=True):
            groups = _restorable(redis("XINFO", "STREAM", key, "FULL", "COUNT", 0)) if kind == b"stream" else None
            seen[key.decode()] = (kind, *facts, groups)
    return seen


def _restorable(reply: Reply) -> Reply:
    if not isinstance(reply, list):
        return reply
    kept: list[Reply] = []
    items = iter(reply)
    for item in items:
        if item in _UNRESTORABLE:
            next(items)
        else:
            kept.append(_restorable(item))
    return kept


def look_at_books(conninfo: str, programs: Path) -> tuple[str, ...]:
    """Return what pg_dump writes: definitions, rows, positions of sequences.

    Raises:
        LastgoodError: It failed.
    """
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
    command = [str(programs / "pg_dump"), "--encoding=UTF8", "-d", conninfo]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)  # noqa: S603  as found
    if done.returncode:
        raise LastgoodError(f"pg_dump failed: {done.stderr.decode(errors='replace').strip()}")
    # a guard of newer versions holds a random word
    lines = done.stdout.decode().splitlines()
    return tuple(line for line in lines if not line.startswith(("\\restrict ", "\\unrestrict ")))


def rows_of_books(dump: tuple[str, ...]) -> int:
    """Count the rows in what pg_dump wrote."""
    count, inside = 0, False
    for line in dump:
        if inside:
            inside = line != "\\."
            count += inside
        else:
            inside = line.startswith("COPY ")
    return count
