"""Proofs that restored state is what it was, source by source."""

from __future__ import annotations

from collections.abc import Iterator

from deployments.demo.oracle import Oracle, different_entries, different_lines
from deployments.demo.oracle_servers import rows_of_books
from deployments.demo.proofs import Proof


def equal(claim: str, expected: Oracle, found: Oracle, seconds: float) -> Iterator[Proof]:
    """Compare what was found with what is expected, to the last byte.

    Args:
        claim: What should hold.
        expected: State as it was when the backup was made.
        found: State as restored.
        seconds: How long the restore took.
    """
    lines = different_lines(expected.dump, found.dump)
    yield Proof(
        f"{claim}: SQLite",
        f"{expected.rows:,} rows of .dump, {len(lines)} differ",
        not lines and expected.rows > 0,
        seconds,
        expected.size_bytes,
    )
    files = different_entries(expected.files, found.files)
    yield Proof(
        f"{claim}: files",
        f"{len(expected.files)} with modes, times; {len(files)} differ",
        not files and bool(expected.files),
    )
    yield from _servers_equal(claim, expected, found)


def _servers_equal(claim: str, expected: Oracle, found: Oracle) -> Iterator[Proof]:
    if expected.cache is not None:
        keys = different_entries(expected.cache, found.cache or {})
        count = len(expected.cache) - 1
        yield Proof(f"{claim}: Redis", f"{count:,} keys by digest, {len(keys)} differ", not keys and count > 0)
    if expected.books is not None:
        lines = different_lines(expected.books, found.books or ())
        rows = rows_of_books(expected.books)
        yield Proof(f"{claim}: PostgreSQL", f"{rows:,} rows of pg_dump, {len(lines)} differ", not lines and rows > 0)
