"""What a source reads of a part: all of it, or what may have changed since a base."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # a plan can be read without Arrow
    import pyarrow as pa


class BaseLookup(Protocol):
    """What the base already holds of a part; given to `read` so that a source can leave out what did not change."""

    token: str | None
    """The token of the base's view: what changed since then is what a source has to read."""
    rows: int
    """How many records the base holds of the part."""

    def prepare(self) -> None:
        """Load the base's index of the part, if a source has to wait for something else anyway."""
        ...

    def holds(self, keys: pa.Table) -> pa.BooleanArray:
        """Look for keys in the base.

        Args:
            keys: The collection's key columns, with the types in which `read` returns them; one row a key.

        Returns:
            For each row of `keys`, in order, whether the base holds a record with that key.
        """
        ...

    def encode(self, keys: pa.Table) -> pa.LargeBinaryArray:
        """Encode keys as the base names them, for `FullRead.unchanged`.

        Args:
            keys: The collection's key columns, with the types in which `read` returns them; one row a key.

        Returns:
            The encoded key (`_key`) of each row of `keys`, in order.
        """
        ...

    def same(self, rows: pa.Table) -> pa.BooleanArray:
        """Compare rows with the base.

        Args:
            rows: All columns of the collection, with the types in which `read` returns them.

        Returns:
            For each row, in order, whether the base holds it with the same key and the same content.
        """
        ...

    def under(self, parents: pa.Array) -> pa.LargeBinaryArray:
        """Return the encoded keys (`_key`) of the base whose first key column is one of `parents`.

        Args:
            parents: Values of the first key column (text or binary), no two of them the same.
        """
        ...

    def beneath(self, folders: pa.Array) -> pa.LargeBinaryArray:
        """Return the encoded keys (`_key`) of the base whose first key column is one of some paths, or lies beneath it.

        Args:
            folders: Paths (text or binary) in the first key column, none of them beneath another one.
        """
        ...


class UnprovenLookup:
    """What a base holds, for who may leave out nothing for being unchanged, but keeps what cannot be read.

    Args:
        base: The lookup of the base.
    """

    def __init__(self, base: BaseLookup) -> None:
        self._base = base
        self.token: str | None = None
        self.rows = base.rows

    def prepare(self) -> None:
        """Load nothing: hardly ever is something asked for."""

    def holds(self, keys: pa.Table) -> pa.BooleanArray:
        """Look for keys in the base."""
        return self._base.holds(keys)

    def encode(self, keys: pa.Table) -> pa.LargeBinaryArray:
        """Encode keys as the base names them."""
        return self._base.encode(keys)

    def same(self, rows: pa.Table) -> pa.BooleanArray:
        """Return that no row is proven to be as it was."""
        import pyarrow as pa  # a plan can be read without it

        return pa.repeat(pa.scalar(False), rows.num_rows)

    def under(self, parents: pa.Array) -> pa.LargeBinaryArray:
        """Return the encoded keys of the base whose first key column is one of `parents`."""
        return self._base.under(parents)

    def beneath(self, folders: pa.Array) -> pa.LargeBinaryArray:
        """Return the encoded keys of the base whose first key column is one of some paths, or lies beneath it."""
        return self._base.beneath(folders)


@dataclass(frozen=True)
class FullRead:
    """The part as a whole: every record is either among `rows` or among `unchanged`, and every other one is gone.

    Attributes:
        rows: The collection's columns by their names, in the Arrow types that the source gives them; rows in any order.
        unchanged: Encoded keys (from `BaseLookup.under` or `BaseLookup.encode`) of records that the base holds, that
            are still there as they were and that are not among `rows`; None for none. Without a base there are none.
        warnings: What the user should know, each a sentence that names the record.
        twins: Values of the first key column, of rows whose long values other rows may have, too (the names of a file
            that has several); None for none. So a backup stores these values once.
    """

    rows: pa.Table
    unchanged: pa.LargeBinaryArray | None = None
    warnings: tuple[str, ...] = ()
    twins: pa.Array | None = None


@dataclass(frozen=True)
class Delta:
    """What may have changed since the base: all records that are neither among `rows` nor `reread` are as they were.

    Attributes:
        rows: The collection's columns by their names, in the Arrow types that the source gives them; rows in any order.
            They may be new, changed, or as the base holds them.
        reread: Encoded keys (from `BaseLookup.under` or `BaseLookup.encode`) of records that the base holds and the
            source looked for again: those that are not among `rows` are gone. None where no record is gone.
        warnings: What the user should know, each a sentence that names the record.
    """

    rows: pa.Table
    reread: pa.LargeBinaryArray | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Updates:
    """A delta without insertions and deletions, so that the base's index need not be read to count the records.

    Attributes:
        rows: The collection's columns by their names, in the Arrow types that the source gives them; rows in any order.
            The base holds a record for the key of each.
        warnings: What the user should know, each a sentence that names the record.
    """

    rows: pa.Table
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unchanged:
    """Nothing in the part changed since the base.

    Attributes:
        warnings: What the user should know, each a sentence that names the record.
    """

    warnings: tuple[str, ...] = ()


Reading = FullRead | Delta | Updates | Unchanged
"""What was read of a part. All but a `FullRead` are relative to a base."""
