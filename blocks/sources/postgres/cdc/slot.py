"""The logical replication slot in which the server keeps what is written for the next incremental.

A token holds a position in the write-ahead log: every transaction whose commit record begins before it is visible in
the token's snapshot. So the rows that an incremental has to read are those that transactions after the base's position
have written, as the slot reports them. More of them than needed do no harm.

    base's snapshot ... base's position ... this snapshot ... L, the end of the log a moment later
                        |<-- what the slot is asked for ------>|

What is visible in this snapshot has its commit record before L. The other way round that is not so: a commit record is
written before its transaction becomes visible. So the new position is the end of the last commit record before that of
the first transaction which is not visible in this snapshot, or L where there is none.

The slot is never ahead of the newest base: it is moved to a backup's position when that backup is committed. If it is
moved, or recreated, by somebody else, it begins later than the base's position, and then does not serve.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adbc_driver_manager import Error as AdbcError

from blocks.errors import SourceUnavailable
from blocks.sources.postgres.connect import Session, connect, literal, place_of, said_by, translated
from blocks.sources.postgres.read.arrow_driver import Driver
from blocks.sources.postgres.read.readers import Reader

if TYPE_CHECKING:  # only for types
    import pyarrow as pa

PLUGIN = "test_decoding"
_PAUSE_SECONDS = 0.05

_STATE = """
SELECT slot_type::text, coalesce(plugin, '')::text, coalesce(database = pg_catalog.current_database(), false),
       temporary OR coalesce((s.row ->> 'two_phase')::bool, false),
       coalesce(wal_status, '') = 'lost' OR coalesce(s.row ->> 'invalidation_reason', '') <> ''
       OR coalesce((s.row ->> 'conflicting')::bool, false),
       (confirmed_flush_lsn - '0/0')::int8
FROM pg_catalog.pg_replication_slots r, LATERAL pg_catalog.to_jsonb(r) s (row) WHERE slot_name = %s
"""

_ENDS = """
SELECT (pg_catalog.pg_current_wal_insert_lsn() - '0/0')::int8, (pg_catalog.pg_current_wal_flush_lsn() - '0/0')::int8
"""

# a column is filled in only where it is wanted, because most rows are changes
_TOLD = """
SELECT CASE WHEN data LIKE 'COMMIT %' THEN (lsn - '0/0')::int8 END,
       CASE WHEN data LIKE 'COMMIT %' THEN xid::text::int8 END,
       CASE WHEN data LIKE 'table %' THEN data END
FROM pg_catalog.pg_logical_slot_peek_changes({slot}, {upto}, NULL, 'include-xids', '1', 'skip-empty-xacts', '1')
WHERE data LIKE 'COMMIT %' OR {changes} AND data LIKE 'table %'
"""

_HOPELESS = ("22", "53", "54")
"""How states begin: text that is not in the encoding, no more room, beyond a limit."""
_CANCELLED = "57014"


class Undecodable(SourceUnavailable):
    """What was written cannot be decoded, and retrying does not help."""


@dataclass(frozen=True)
class SlotState:
    """A slot as the server has it.

    Attributes:
        ours: Whether it is one of the kind that backups make.
        lost: Whether the server has removed what it needs.
        confirmed: Position from which on it reports what was written; None where it cannot.
    """

    ours: bool
    lost: bool
    confirmed: int | None

    @property
    def serves(self) -> bool:
        """Whether it can be asked."""
        return self.ours and not self.lost and self.confirmed is not None


def slot_state(session: Session, name: str) -> SlotState | None:
    """Look at a slot; None where there is none of that name."""
    row = session.execute(_STATE.encode(), (name,)).fetchone()
    if row is None:
        return None
    kind, plugin, here, other, lost, confirmed = row
    ours = kind == "logical" and plugin == PLUGIN and bool(here) and not other
    return SlotState(ours, bool(lost), confirmed if isinstance(confirmed, int) else None)


class Slot:
    """One slot, as one view sees it.

    Args:
        conninfo: Connection string of the database, as libpq reads it.
        name: Name of the replication slot.
        timeout_seconds: How long to wait for a connection.
        wait_seconds: How long to wait for running transactions when it is made.
        decoding_seconds: How long, in seconds, the server may take to report what was written.
    """

    def __init__(
        self, conninfo: str, name: str, timeout_seconds: float, wait_seconds: float, decoding_seconds: float
    ) -> None:
        self.name, self._conninfo, self.place = name, conninfo, place_of(conninfo)
        self._timeout_seconds, self._wait_seconds = timeout_seconds, wait_seconds
        self._decoding_milliseconds = round(decoding_seconds * 1000)

    @property
    def shown(self) -> str:
        """How messages name it."""
        return f"replication slot {self.name}"

    @contextmanager
    def _session(self, doing: str) -> Iterator[Session]:
        session = connect(self._conninfo, self._timeout_seconds)
        try:
            with translated(self.place, f"cannot {doing} {self.shown} of"):
                yield session
        finally:
            session.close()

    def make(self, *, instead: bool) -> None:
        """Make it, in the place of one of ours where `instead`, with a beginning that is a safe position.

        A transaction may have its commit record before the slot's beginning and become visible only later. So the slot
        is made as a temporary one first, which goes with its session. When all transactions that were running when it
        was complete have ended, every later snapshot sees what it does not report: then it is copied.

        Raises:
            SourceUnavailable: It cannot be made.
        """
        with self._session("make") as session:
            level = session.execute("SHOW wal_level").fetchone()
            if level is None or level[0] != "logical":
                raise SourceUnavailable(f"wal_level of {self.place} is not logical", hint="Set it, and restart.")
            self._limit(session, round(self._wait_seconds * 1000))
            first = f"{self.name[:45]}_{uuid.uuid4().hex[:16]}"
            session.execute("SELECT pg_catalog.pg_create_logical_replication_slot(%s, %s, true)", (first, PLUGIN))
            self._settle(session)
            if instead:
                session.execute("SELECT pg_catalog.pg_drop_replication_slot(%s)", (self.name,))
            session.execute("SELECT pg_catalog.pg_copy_logical_replication_slot(%s, %s, false)", (first, self.name))

    def _settle(self, session: Session) -> None:
        own = session.execute("SELECT pg_catalog.pg_current_xact_id()::text::int8").fetchone()
        until = time.monotonic() + self._wait_seconds
        ended = "SELECT pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::text::int8 > %s"
        while session.execute(ended, own).fetchone() != (True,):
            if time.monotonic() > until:
                raise SourceUnavailable(
                    f"{self.shown} of {self.place} waited too long for running transactions",
                    hint="Back up at a quieter time, or raise `lock_timeout_seconds`.",
                )
            time.sleep(_PAUSE_SECONDS)

    @staticmethod
    def _limit(session: Session, milliseconds: int) -> None:
        session.execute(f"SET statement_timeout = {milliseconds}".encode())

    def end(self, session: Session) -> int:
        """Return where the write-ahead log ends now; everything before is flushed, and so can be decoded.

        Args:
            session: Any, also inside a snapshot; it writes nothing.

        Raises:
            SourceUnavailable: The server does not flush.
        """
        end, flushed = self._ends(session)
        if flushed < end:
            with self._session("read") as writing:
                writing.execute("SET synchronous_commit = local")
                writing.execute("SELECT pg_catalog.pg_logical_emit_message(true, 'lastgood', '')")
            _, flushed = self._ends(session)
        if flushed < end:
            raise SourceUnavailable(f"{self.place} does not flush its write-ahead log", hint="Try again.")
        return end

    @staticmethod
    def _ends(session: Session) -> tuple[int, int]:
        row = session.execute(_ENDS.encode()).fetchone()
        assert row is not None
        return int(str(row[0])), int(str(row[1]))

    @contextmanager
    def logical_changes(self, driver: Driver, upto: int, *, changes: bool) -> Iterator[pa.RecordBatchReader]:
        """Ask what was written, without moving the slot.

        Gives rows of three columns, two of which are NULL: of a commit the end of its record and its transaction
        (32 bits), in the order of commits, and of a change the row of output (see decoding.py).

        Args:
            driver: Opens the connection that decodes the slot.
            upto: A position; transactions that commit later may be reported or not.
            changes: Whether to report changes, beside commits.

        Raises:
            SourceUnavailable: The server does not report it.
            Undecodable: And it will not the next time.
        """
        asked = "true" if changes else "false"
        query = _TOLD.format(slot=literal(self.name), upto=literal(_lsn(upto)), changes=asked)
        with translated(self.place, f"cannot read {self.shown} of"), closing(Reader(driver)) as reader:
            reader.run(f"SET statement_timeout = {self._decoding_milliseconds}")
            with self._hopeless(), reader.answer(query) as told:
                yield told

    @contextmanager
    def _hopeless(self) -> Iterator[None]:
        until = time.monotonic() + self._decoding_milliseconds / 1000
        try:
            yield
        except AdbcError as exc:
            state = exc.sqlstate or ""
            # somebody else may have cancelled it
            if state.startswith(_HOPELESS) or (state == _CANCELLED and time.monotonic() >= until):
                what = f"what {self.shown} of {self.place} holds cannot be decoded"
                raise Undecodable(f"{what}: {said_by(exc)}") from exc
            raise

    def advance(self, session: Session, position: int) -> None:
        """Let the server forget what was written before a position.

        Args:
            session: A session outside of any transaction.
            position: Before which nothing is asked for any more.

        Raises:
            SourceUnavailable: The server refused.
        """
        with translated(self.place, f"cannot advance {self.shown} of"):
            self._limit(session, self._decoding_milliseconds)
            session.execute(
                "SELECT pg_catalog.pg_replication_slot_advance(%s, %s::pg_catalog.pg_lsn)", (self.name, _lsn(position))
            )


def _lsn(position: int) -> str:
    return f"{position >> 32:X}/{position % 2**32:X}"
