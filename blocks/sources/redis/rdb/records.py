"""What is said of keys before their values, many at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from blocks.sources.redis.rdb.layout import Opcode
from blocks.sources.redis.rdb.strings import Strings, lengths_at, strings_at
from blocks.sources.redis.read.grouping import Bytes, Ints, Mask
from blocks.sources.redis.rows import Expiry

_MS_PER_SECOND = 1000


@dataclass(frozen=True)
class Records:
    """Keys, and where their values begin.

    Attributes:
        starts: Offset in the data where each begins, in bytes.
        kinds: How each value is written; see layout.Kind.
        keys: Where their names are.
        expiries: When they expire, in milliseconds since 1970.
        expiring: Which of them do.
        values: Where the values begin.
    """

    starts: Ints
    kinds: npt.NDArray[np.uint8]
    keys: Strings
    expiries: Ints
    expiring: Mask
    values: Ints

    def some(self, chosen: Mask) -> Records:
        """Return some of them."""
        if chosen.all():
            return self
        which = np.flatnonzero(chosen)
        columns = (self.expiries[which], self.expiring[which], self.values[which])
        return Records(self.starts[which], self.kinds[which], self.keys.some(which), *columns)

    def expiry(self, n: int) -> Expiry:
        """Return when one of them expires."""
        return int(self.expiries[n]) if self.expiring[n] else None

    def expires_ms(self) -> pa.Int64Array:
        """Return when they expire; NULL where never."""
        return pa.array(self.expiries, mask=~self.expiring)


def records_at(data: Bytes, starts: Ints) -> Records:
    """Read what stands before the values of records.

    Args:
        data: Where they are, with PADDING after the last.
        starts: Offset in the data where each begins, in bytes.
    """
    at = starts.copy()
    kinds = data[at]
    expiries, expiring = np.zeros(len(at), np.int64), np.zeros(len(at), np.bool_)
    while len(there := np.flatnonzero(kinds >= min(Opcode))):
        _attributes(data, at, kinds, there, expiries, expiring)
        kinds[there] = data[at[there]]
    keys = strings_at(data, at + 1)
    return Records(starts, kinds, keys, expiries, expiring, keys.ends)


def _attributes(data: Bytes, at: Ints, kinds: Bytes, there: Ints, expiries: Ints, expiring: Mask) -> None:
    """Take one thing that is said of some keys, and go on to the next."""
    opcodes = kinds[there]
    for opcode, form, unit in ((Opcode.EXPIRES_MS, "<i8", 1), (Opcode.EXPIRES_SECONDS, "<i4", _MS_PER_SECOND)):
        chosen = there[opcodes == opcode]
        words = np.ndarray((len(data) - 7,), form, data.data, 0, (1,))
        expiries[chosen] = words[at[chosen] + 1].astype(np.int64) * unit
        expiring[chosen] = True
        at[chosen] += 1 + np.dtype(form).itemsize
    at[there[opcodes == Opcode.FREQUENCY]] += 2
    idle = there[opcodes == Opcode.IDLE]
    _, at[idle] = lengths_at(data, at[idle] + 1)
