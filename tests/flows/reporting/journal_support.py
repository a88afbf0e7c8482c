"""Lines of a journal as operations write them, made by tests."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4
from zlib import crc32

from pydantic import JsonValue

from blocks.host.leftovers import process_name, running_host
from flows.reporting.journal_compaction import compact
from flows.reporting.journal_files import append
from flows.reporting.journal_totals import Totals

NOW = datetime.now(UTC)
"""When they were; what began more than a day before has failed."""
REPOSITORY, PLACE = "r" * 32, "p" * 16
NUMBERS: dict[str, JsonValue] = {
    "stages": {"collect": 0.1, "store": 0.2},
    "calls": [["/srv/backups", "put", "ok", 3, 0.3]],
    "moved": [["/srv/backups", "written", 1000]],
    "reads": [["ledger", "ok", 2, 0.7, 10, 500]],
    "lease_wait_seconds": 0.1,
    "leases_refused": 1,
}

Line = dict[str, JsonValue]


def named(number: int | str, plan: str = "books", **more: JsonValue) -> Line:
    return {
        "id": f"{number}",
        "plan": plan,
        "place": PLACE,
        "repository": REPOSITORY,
        "verb": "backup",
        "type": "incremental",
    } | more


def started(number: int | str, at: datetime = NOW, plan: str = "books", **more: JsonValue) -> Line:
    host = running_host()
    process: Line = {"process": process_name(), **({"host": list(host)} if host else {})}
    return {"event": "started", **named(number, plan), "at": at.isoformat(), **process, **more}


def ended(number: int | str, at: datetime = NOW, plan: str = "books", **more: JsonValue) -> Line:
    line: Line = {
        "event": "ended",
        **named(number, plan),
        "at": at.isoformat(),
        "started": at.isoformat(),
        "seconds": 0.3,
        "outcome": "completed",
        "numbers": dict(NUMBERS),
    }
    if "outcome" not in more and more.get("verb", "backup") == "backup":
        line |= {"backup": f"INC_20260102_120000_{number}", "made": made(at, crc32(str(number).encode()))}
    return line | more


def made(at: datetime, sequence: int) -> Line:
    return {
        "type": "incremental",
        "timestamp": at.isoformat(),
        "sequence": sequence,
        "rows": 10,
        "size_bytes": 5000,
        "size_stored": 2000,
        "regular": True,
    }


def operations(most: int) -> Iterator[Line]:
    """Starts and ends of operations, of which every tenth fails."""
    for number in range(most):
        identity, at = uuid4().hex, NOW + timedelta(microseconds=number)
        yield started(identity, at)
        yield ended(identity, at, **({"outcome": "failed"} if number % 10 == 9 else {}))


def note(folder: Path, line: Line) -> None:
    """Append a line as an operation does."""
    if append(folder, line):
        compact(folder)


def counts(totals: Totals, plan: str = "books") -> dict[tuple[str, ...], int]:
    return dict(totals.of(PLACE, REPOSITORY, plan).counts)


def numbers_of(totals: Totals, plan: str = "books", repository: str = REPOSITORY) -> tuple[int, int, int]:
    """How many backups were begun, made, and failed."""
    found = totals.of(PLACE, repository, plan).counts
    return (
        found["started", "backup", "incremental"],
        found["ended", "backup", "incremental", "completed"],
        found["ended", "backup", "incremental", "failed"],
    )
