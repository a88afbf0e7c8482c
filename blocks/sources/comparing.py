"""What a source offers to a proof whose place gives values back in another form than the one it was given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from blocks.sources.collection import CollectionSpec

if TYPE_CHECKING:  # a plan can be read without Arrow
    import pyarrow as pa


@runtime_checkable
class ComparesByMeaning(Protocol):
    """A source whose rows are compared by what they mean, in a restore to a scratch place."""

    def by_meaning(self, collection: CollectionSpec, rows: pa.Table) -> pa.Table:
        """Return the same rows, each value in the one form that all values of its meaning have.

        Args:
            collection: A collection of the source.
            rows: Rows with the collection's columns.
        """
        ...

    def opaque(self, collection: CollectionSpec, rows: pa.Table) -> tuple[pa.BooleanArray, pa.Table]:
        """Tell which rows hold bytes that one and the same state may be written in differently.

        Args:
            collection: A collection of the source.
            rows: Rows with the collection's columns.

        Returns:
            Which rows these are; and all rows without such bytes.
        """
        ...


@runtime_checkable
class LeavesOut(Protocol):
    """A target that may not take some records: a proof calls them unproven, a restore does not count them."""

    def left_out(self, collection: CollectionSpec, rows: pa.Table) -> pa.BooleanArray:
        """Tell which of some rows it did not take; called after `apply` was given them.

        Args:
            collection: One of the scope's. All of its rows are left out where it cannot be made.
            rows: Rows of it, one at least.
        """
        ...
