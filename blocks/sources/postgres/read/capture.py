"""What a view asks of change capture, which reports the rows that were written since a base.

Without one a view looks at all rows, and for those that transactions since the base may have written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from blocks.errors import ConfigurationError
from blocks.sources.collection import Bounds
from blocks.sources.postgres.connect import Session
from blocks.sources.postgres.read.arrow_driver import Driver
from blocks.sources.postgres.read.readers import Readers
from blocks.sources.postgres.read.xmin_tracking import Token
from blocks.sources.postgres.schema.tables import Table
from blocks.sources.reading import BaseLookup, Reading
from blocks.sources.runs import Allowance, RunFolder


@dataclass(frozen=True)
class Opening:
    """A view while it is opened, as change capture needs it.

    Attributes:
        session: A session inside the snapshot of the view.
        snapshot: The snapshot as pg_current_snapshot gives it: `xmin:xmax:running`.
        tables: The tables that are backed up.
        driver: Opens more connections.
        beside: Threads that end what they do before the view is used.
    """

    session: Session
    snapshot: str
    tables: Sequence[Table]
    driver: Driver
    beside: Executor


@dataclass(frozen=True)
class Captured:
    """What change capture found out.

    Attributes:
        token: Of the view, with what the next incremental goes on from.
        because: Why nothing was reported, though it should have been.
    """

    token: Token
    because: str | None = None


@dataclass(frozen=True)
class Means:
    """What the reading of many rows at once takes.

    Attributes:
        readers: Connections that see the snapshot.
        folder: Folder for rows that exceed `room`.
        room: How many bytes of rows may wait in memory.
    """

    readers: Readers
    folder: RunFolder
    room: Allowance


class TableChanges(Protocol):
    """The rows of one table that were written since the base. Several threads may ask."""

    def holds(self, bounds: Bounds) -> bool:
        """Whether bounds are those of one of the parts."""
        ...

    def read(self, bounds: Bounds, base: BaseLookup, empty: Callable[[], pa.Table]) -> Reading:
        """Return what is known of one part.

        Args:
            bounds: The bounds of the part.
            base: What the base holds of it.
            empty: Makes a table without rows that has the table's columns and types.

        Raises:
            SourceUnavailable: The rows cannot be read in this way.
            TemporaryFolderUnusable: They do not fit into it.
        """
        ...

    def stop(self) -> None:
        """End what is being read, soon and with an error."""
        ...

    def discard(self) -> None:
        """Let go what still waits."""
        ...


class ChangeCapture(Protocol):
    """Reports for one view which rows were written since its base."""

    def ask(self, session: Session) -> None:
        """Ask already what was written, for `find`; nothing is changed by that.

        Args:
            session: A session inside the snapshot of the view.
        """
        ...

    def find(self, session: Session, now: Token, since: Token | None) -> Captured:
        """Find out what was written since a base, and where the next incremental goes on.

        Args:
            session: A session inside the snapshot of the view.
            now: The token of the snapshot.
            since: The token of the base; None where there is no base.

        Raises:
            ConfigurationError: The plan asks for what this installation does not have.
        """
        ...

    def changed_rows(self, table: Table, parts: Sequence[Bounds], means: Means) -> TableChanges | None:
        """Return the rows of a table that `find` has found; None where it does not know of all of them.

        Args:
            table: The table that is read.
            parts: The bounds of all its parts.
            means: Connections and room.
        """
        ...

    def committed(self, session: Session) -> None:
        """Let go what was kept for the backup of this view, which is there now.

        Args:
            session: Whose transaction is not needed any more.

        Raises:
            SourceUnavailable: The server refused.
        """
        ...

    def close(self) -> None:
        """End the threads that read."""
        ...


class NoCapture:
    """Change capture of a plan that asks for none."""

    def ask(self, session: Session) -> None:
        """Nothing is asked."""

    def find(self, session: Session, now: Token, since: Token | None) -> Captured:
        """Return the token as it is."""
        return Captured(now)

    def changed_rows(self, table: Table, parts: Sequence[Bounds], means: Means) -> TableChanges | None:
        """Nothing is known of any table."""
        return None

    def committed(self, session: Session) -> None:
        """Nothing was kept."""

    def close(self) -> None:
        """There are no threads."""


class MissingCapture(NoCapture):
    """Change capture that a plan asks for and this installation lacks: only a backup needs it.

    Args:
        asked: What the plan asks for, as messages name it.
        place: Server and database, for messages.
    """

    def __init__(self, asked: str, place: str) -> None:
        self._asked, self._place = asked, place

    def find(self, session: Session, now: Token, since: Token | None) -> Captured:
        """Refuse.

        Raises:
            ConfigurationError: Always.
        """
        raise ConfigurationError(
            f"the plan asks for {self._asked} for {self._place}, and this installation cannot read replication slots:"
            " the package blocks.sources.postgres.cdc is missing",
            hint="Take `slot` out of the plan, or install lastgood with that package.",
        )
