"""What may have changed since an older snapshot, by the transaction that wrote each row (`xmin`).

A row version that is visible now and was written by a transaction that had ended before the older snapshot was
visible there too, with the same content: PostgreSQL never changes a row in place. A transaction had surely ended if its
number is below `xmin` of that snapshot, the oldest that was still running. Whatever is not below is read again, and the
comparison of digests decides. That covers long transactions that commit later, prepared ones, and subtransactions,
which the snapshot's own list of running transactions does not name, but whose numbers are above that of their parent.

The number in a row has 32 bits. It is taken for the latest number below the next one to be given out. That is right
for every row written since the older snapshot as long as fewer than 2³² numbers were given out since; a row frozen long
ago may be taken for a newer one, and is then read in vain.

Changes that leave no trace in a row's transaction make a table be read as a whole: another file (TRUNCATE, a rewrite, a
table swapped for another), other columns (a default that fills them), another definition (the label of an enum).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from pydantic import JsonValue

from blocks.sources.postgres.connect import Session

FEW = 0.1
"""The share of rows up to which changed ones are read one by one."""
OLDEST_AGE = 2**31 - 10_000_000
"""Transactions after which a token is too old."""

_WHERE_AND_WHEN = """
SELECT (SELECT system_identifier::text FROM pg_catalog.pg_control_system()),
       pg_catalog.left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8),
       (SELECT oid::text FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()),
       pg_catalog.pg_postmaster_start_time()::text,
       pg_catalog.pg_current_snapshot()::text
"""


@dataclass(frozen=True)
class Token:
    """What a backup remembers for the next incremental.

    Attributes:
        server: System identifier, timeline, database and start of the server: another one means another history.
        snapshot: `xmin:xmax:running`, as pg_current_snapshot gives it.
        definition: Hash of the definitions, and of what is backed up.
        other: Hash of what rows do not depend on: positions of sequences, definitions of large objects.
        tables: Hash of each table's facts by collection; without those that cannot be tracked.
        captured: What change capture goes on from, as it wrote it; None without one.
    """

    server: tuple[str, ...]
    snapshot: str
    definition: str
    other: str
    tables: dict[str, str]
    captured: JsonValue = None

    def to_text(self) -> str:
        """Write it for the manifest."""
        fields: list[JsonValue] = [1, list(self.server), self.snapshot, self.definition, self.other, {**self.tables}]
        if self.captured is not None:
            fields.append(self.captured)
        return json.dumps(fields, separators=(",", ":"), sort_keys=True)

    @classmethod
    def parse(cls, text: str | None) -> Token | None:
        """Read it; None where it is not one."""
        try:
            fields = json.loads(text or "")
        except ValueError:
            return None
        match fields:
            case [1, list(server), str(snapshot), str(definition), str(other), dict(tables), *more]:
                captured = more[0] if more else None
                return cls(tuple(map(str, server)), snapshot, definition, other, tables, captured)
        return None

    @property
    def oldest(self) -> int:
        """The oldest transaction that was running: all below had ended."""
        return int(self.snapshot.split(":")[0])

    @property
    def next(self) -> int:
        """The next transaction number that was to be given out."""
        return int(self.snapshot.split(":")[1])

    def since(self, before: Token | None, table: str) -> int | None:
        """Return the number below which rows of a table are unchanged since an older token; None to read them all."""
        if before is None or (before.server, before.definition) != (self.server, self.definition):
            return None
        facts = self.tables.get(table)
        if facts is None or facts != before.tables.get(table):
            return None
        if before.next > self.next or self.next - before.oldest > OLDEST_AGE:
            return None
        return before.oldest


def server_and_snapshot(session: Session) -> tuple[tuple[str, ...], str] | None:
    """Identify the server and the snapshot of the open transaction; None on a standby, which has no own history."""
    standby = session.execute("SELECT pg_catalog.pg_is_in_recovery()").fetchone()
    if standby is None or standby[0]:
        return None
    row = session.execute(_WHERE_AND_WHEN.encode()).fetchone()
    assert row is not None
    *server, snapshot = map(str, row)
    return tuple(server), snapshot


def hashed(facts: object) -> str:
    """Hash anything that prints the same when it is the same."""
    return hashlib.sha256(repr(facts).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def written_since(rows: str, oldest: int, upcoming: int) -> str:
    """Write the query that counts rows, counts those that may be newer than a snapshot, and lists where those are.

    Args:
        rows: A table and which of its rows, as they follow FROM.
        oldest: `xmin` of the older snapshot, 64 bits.
        upcoming: `xmax` of the snapshot that the rows are read in, 64 bits.
    """
    counted = f"SELECT {_counted(oldest, upcoming)} FROM {rows}"
    return f"SELECT {_COUNTED} FROM ({counted}) counted"


def written_since_by_part(rows: str, oldest: int, upcoming: int) -> str:
    """Write the query that does the same for each part, whose number comes first.

    Args:
        rows: `part`, `xmin` and `ctid` of all rows, as they follow FROM.
        oldest: `xmin` of the older snapshot, 64 bits.
        upcoming: `xmax` of the snapshot that the rows are read in, 64 bits.
    """
    counted = f"SELECT part, {_counted(oldest, upcoming)} FROM {rows} GROUP BY part"
    return f"SELECT part, {_COUNTED} FROM ({counted}) counted"


_COUNTED = (
    "total, coalesce(pg_catalog.cardinality(places), 0)::pg_catalog.int8, coalesce(places, '{}')::pg_catalog.text"
)


def _counted(oldest: int, upcoming: int) -> str:
    # each condition is one more step for every row: the highest age, that of no number, is NULL here, and so not false
    age = "nullif(pg_catalog.age(xmin), 2147483647)"
    # counted from the same moment as the ages of rows; once for all of them
    limit = f"(SELECT pg_catalog.age('{oldest % 2**32}'::pg_catalog.xid))"
    # an age below 0 is one of over 2^31, if so many numbers were given out already
    newer = f"{age} <= {limit}" if upcoming < 2**31 else f"{age} BETWEEN 0 AND {limit}"
    return (
        "pg_catalog.count(*)::pg_catalog.int8 AS total, "
        f"pg_catalog.array_agg(ctid) FILTER (WHERE ({newer}) IS NOT FALSE) AS places"
    )
