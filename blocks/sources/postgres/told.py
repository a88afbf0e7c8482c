"""What a slot tells, read as Arrow: there may be a million changes, and none needs Python by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from adbc_driver_manager import Error as AdbcError

from blocks.sources.postgres.connect import literal, translated
from blocks.sources.postgres.driver import Driver
from blocks.sources.postgres.readers import Reader
from blocks.sources.postgres.slot import Slot, Undecodable, lsn

# a column is filled in only where it is wanted, because most rows are changes
_TOLD = """
SELECT CASE WHEN data LIKE 'COMMIT %' THEN (lsn - '0/0')::int8 END,
       CASE WHEN data LIKE 'COMMIT %' THEN xid::text::int8 END,
       CASE WHEN data LIKE 'table %' THEN data END
FROM pg_catalog.pg_logical_slot_peek_changes({slot}, {upto}, NULL, 'include-xids', '1', 'skip-empty-xacts', '1')
WHERE data LIKE 'COMMIT %' OR {changes} AND data LIKE 'table %'
"""

_HOPELESS = ("22", "53", "54", "57014")
"""States, or how they begin: text that is not in the encoding, no more room, beyond a limit, not in time."""


def peek(slot: Slot, driver: Driver, upto: int, snapshot: Snapshot, take: Callable[[bytes], None] | None) -> int | None:
    """Ask what was written, without moving the slot.

    Args:
        slot: The slot.
        driver: To connect with.
        upto: A position; of transactions that commit later something may be told, or nothing.
        snapshot: Whose position is wanted.
        take: Called with blocks of changes (see decoding.py); None where only the position is wanted.

    Returns:
        The end of the last commit record before which all told transactions are visible in the snapshot; None where
        all are.

    Raises:
        SourceUnavailable: The server does not tell.
        Undecodable: And it will not the next time.
    """
    prefix = Prefix(snapshot)
    query = _TOLD.format(slot=literal(slot.name), upto=literal(lsn(upto)), changes="false" if take is None else "true")
    with translated(slot.place, f"cannot read {slot.shown} of"), closing(Reader(driver)) as reader, _hopeless(slot):
        reader.run(f"SET statement_timeout = {slot.decoding_milliseconds}")
        for told in reader.stream(query):
            ends, numbers, changes = (column.combine_chunks().drop_null() for column in told.columns)
            prefix.add(ends.to_numpy(), numbers.to_numpy())
            if take is not None and len(changes):
                take(_block(changes))
    return prefix.end


@dataclass(frozen=True)
class Snapshot:
    """Which transactions are visible."""

    upcoming: int
    """Its `xmax`, 64 bits."""
    running: tuple[int, ...]
    """Numbers of transactions below that had not ended, 32 bits."""

    @classmethod
    def parse(cls, text: str) -> Snapshot:
        """Read `xmin:xmax:running`."""
        _, upcoming, running = text.split(":")
        return cls(int(upcoming), tuple(int(number) % 2**32 for number in running.split(",") if number))

    def sees(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Tell which transactions (32 bits, no subtransactions), all of which have committed, are visible."""
        ahead = (numbers - self.upcoming) % 2**32
        return (ahead >= 2**31) & ~np.isin(numbers, self.running)


class Prefix:
    """The first of all transactions, in the order of their commits, up to the first that a snapshot does not see.

    Args:
        snapshot: The snapshot.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot, self._ended, self._last = snapshot, False, 0

    def add(self, ends: npt.NDArray[np.int64], numbers: npt.NDArray[np.int64]) -> None:
        """Take the ends of the next commit records, and the numbers of their transactions."""
        if self._ended:
            return
        hidden = np.flatnonzero(~self._snapshot.sees(numbers))
        self._ended = len(hidden) > 0
        if count := int(hidden[0]) if self._ended else len(ends):
            self._last = int(ends[count - 1])

    @property
    def end(self) -> int | None:
        """The end of the last one; 0 where there is none; None where no transaction follows."""
        return self._last if self._ended else None


@contextmanager
def _hopeless(slot: Slot) -> Iterator[None]:
    try:
        yield
    except AdbcError as exc:
        if (exc.sqlstate or "").startswith(_HOPELESS):
            # the driver puts what it did in front
            said = str(exc).partition("\n")[0].rpartition("ERROR:")[2].strip()
            raise Undecodable(f"what {slot.shown} of {slot.place} holds cannot be decoded: {said}") from exc
        raise


def _block(changes: pa.StringArray) -> bytes:
    together = pc.binary_join(pa.ListArray.from_arrays(pa.array([0, len(changes)], pa.int32()), changes), "\0")
    joined: bytes = together.cast(pa.binary())[0].as_py()
    return b"\0" + joined + b"\0"
