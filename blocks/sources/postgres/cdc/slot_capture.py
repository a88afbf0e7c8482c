"""Change capture from a base to now: which keys were written, and where the next backup can continue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from blocks.errors import SourceUnavailable
from blocks.sources.collection import Bounds
from blocks.sources.postgres.cdc.changed_rows import ChangedRows
from blocks.sources.postgres.cdc.decoding import ChangedKeys, Keys
from blocks.sources.postgres.cdc.logical_changes import Snapshot, read
from blocks.sources.postgres.cdc.slot import Slot, SlotState, Undecodable, slot_state
from blocks.sources.postgres.cdc.slot_position import SlotPosition
from blocks.sources.postgres.cdc.table_identity import Identity
from blocks.sources.postgres.connect import Session, translated
from blocks.sources.postgres.read.arrow_driver import Driver
from blocks.sources.postgres.read.capture import Captured, Means, TableChanges
from blocks.sources.postgres.read.xmin_tracking import FEW, Token
from blocks.sources.postgres.schema.tables import Table

MOST_KEYS = 1_000_000
"""Of all tables, some 200 bytes each; the table with which there are more is looked through as a whole."""
_ALWAYS_FEW = 5000
SESSIONS = 2
"""How many queries for changed rows run at a time."""


@dataclass(frozen=True)
class SlotView:
    """What a view shows of a slot.

    Attributes:
        driver: Opens the connection that decodes the slot.
        before: The slot's state before the snapshot was taken: what it reported until then is visible.
        snapshot: The view's snapshot as pg_current_snapshot gives it: `xmin:xmax:running`.
        tables: Will be the tables whose changes the slot reports, by collection.
    """

    driver: Driver
    before: SlotState | None
    snapshot: str
    tables: Future[dict[str, Identity]]


@dataclass
class CapturedChanges:
    """What a slot reported.

    Attributes:
        token: With the position that the next incremental goes on from.
        keys: What was written since the base, by collection; other tables have to be looked through.
        because: Why nothing was reported, though it should have been.
    """

    token: Token
    keys: dict[str, Keys] = field(default_factory=dict)
    because: str | None = None


class SlotCapture:
    """Captures the changes of one view from a slot.

    Args:
        slot: The replication slot.
        view: What the view shows of it.
        far_bytes: How much of the log is decoded: beyond that a scan is faster, and the slot is recreated.
    """

    def __init__(self, slot: Slot, view: SlotView, far_bytes: int) -> None:
        self._described, self._far_bytes = view.tables, far_bytes
        self._slot, self._driver, self._before, self._snapshot = slot, view.driver, view.before, view.snapshot
        self._asked = self._far = self._hopeless = False
        self._because: str | None = None
        self._position: int | None = None
        self._keys: Mapping[str, Keys] = {}
        self._found: CapturedChanges | None = None
        self._pool = ThreadPoolExecutor(SESSIONS, thread_name_prefix="lastgood-touched")

    @property
    def tables(self) -> Mapping[str, Identity]:
        """The tables whose changes the slot reports, by collection."""
        return self._described.result()

    def ask(self, session: Session) -> None:
        """Ask the slot what was written, for `find`; nothing is changed by that.

        Args:
            session: A session inside the snapshot of the view.
        """
        self._try(session, keys=True)

    def _try(self, session: Session, *, keys: bool) -> None:
        """Ask how far the slot is and, where `keys`, what was written."""
        before = self._before
        if before is None or not before.serves:
            return
        self._asked = True
        try:
            self._ask(session, before, keys=keys)
        except SourceUnavailable as exc:
            self._because, self._hopeless = exc.message, isinstance(exc, Undecodable)

    def _ask(self, session: Session, before: SlotState, *, keys: bool) -> None:
        slot, confirmed = self._slot, before.confirmed or 0
        end = slot.end(session)
        self._far = end - confirmed > self._far_bytes
        if self._far:
            return
        with slot.logical_changes(self._driver, end, changes=keys) as batches:
            tables = {name: table.written for name, table in self.tables.items()} if keys else {}
            touched = ChangedKeys(tables, MOST_KEYS)
            prefix = read(batches, Snapshot.parse(self._snapshot), touched.add)
        if slot_state(session, slot.name) != before:
            raise SourceUnavailable(f"{slot.shown} was moved by somebody else")
        self._position = end if prefix is None else max(prefix, confirmed)
        self._keys = touched.keys

    def find(self, session: Session, now: Token, since: Token | None) -> Captured:
        """Find out what was written since a base; create the slot where there is none.

        Args:
            session: A session inside the snapshot of the view.
            now: The token of the snapshot.
            since: The token of the base; None where there is no base.
        """
        self._found = found = self._changes(session, now, since)
        return Captured(found.token, found.because)

    def _changes(self, session: Session, now: Token, since: Token | None) -> CapturedChanges:
        facts = {name: table.facts for name, table in self.tables.items()}
        found = CapturedChanges(SlotPosition(self._slot.name, None, facts).put(now))
        if not self._is_same(found, since):
            try:
                if not self._asked:
                    self._try(session, keys=False)
                self._go_on(found, since)
            except SourceUnavailable as exc:
                found.keys, found.because = {}, exc.message
        return found

    def _is_same(self, found: CapturedChanges, since: Token | None) -> bool:
        """Whether nothing changed: then the base's position serves on, and equal tokens say so."""
        captured = SlotPosition.of(since)
        if captured is None or captured.position is None:
            return False
        same = _at(found.token, captured.position)
        if same == since:
            found.token = same
        return same == since

    def _go_on(self, found: CapturedChanges, since: Token | None) -> None:
        slot, before = self._slot, self._before
        if before is None:
            slot.make(instead=False)
            return
        if not before.ours:
            raise SourceUnavailable(f"{slot.shown} is not one that backups of this database make")
        if not before.serves:
            slot.make(instead=True)
            raise SourceUnavailable(f"the server had removed what {slot.shown} needs; it was recreated")
        if self._far:
            slot.make(instead=True)
            raise SourceUnavailable(f"{slot.shown} was more than {self._far_bytes >> 20} MiB behind; it was recreated")
        if self._hopeless:
            slot.make(instead=True)
            raise SourceUnavailable(f"{self._because}; {slot.shown} was recreated")
        if self._because is not None:
            raise SourceUnavailable(self._because)
        found.token = _at(found.token, self._position)
        if since is not None and self._reaches(since, before.confirmed or 0, found.token):
            found.keys = {
                name: keys for name, keys in self._keys.items() if self._tells(name, keys, since, found.token)
            }

    def _reaches(self, since: Token, confirmed: int, now: Token) -> bool:
        """Whether the slot reaches back to the base."""
        captured = SlotPosition.of(since)
        if captured is None or captured.slot != self._slot.name or captured.position is None:
            return False
        return confirmed <= captured.position and since.server == now.server

    def _tells(self, name: str, keys: Keys, since: Token, now: Token) -> bool:
        """Whether a table's changes since the base are those that the slot reported, and not too many."""
        captured, table = SlotPosition.of(since), self.tables[name]
        if captured is None or captured.tables.get(name) != table.facts or now.since(since, name) is None:
            return False
        return len(keys) <= _ALWAYS_FEW or table.rows <= 0 or len(keys) <= FEW * table.rows

    def changed_rows(self, table: Table, parts: Sequence[Bounds], means: Means) -> TableChanges | None:
        """Return the rows of a table whose keys the slot reported; None where it did not report all.

        Args:
            table: The table that is read.
            parts: The bounds of all its parts.
            means: Connections and room.
        """
        name = table.spec.name
        keys = self._found.keys.get(name) if self._found else None
        if keys is None:
            return None
        return ChangedRows(table, self.tables[name].key, keys, parts, means, self._pool)

    def committed(self, session: Session) -> None:
        """Let the server forget what the backup, which is kept now, stands for.

        Args:
            session: Whose transaction is not needed any more.

        Raises:
            SourceUnavailable: The server refused.
        """
        captured = SlotPosition.of(self._found.token) if self._found else None
        confirmed = self._before.confirmed if self._before else None
        if captured and captured.position is not None and confirmed is not None and captured.position > confirmed:
            with translated(self._slot.place, "cannot end the transaction in"):
                session.execute("ROLLBACK")
            self._slot.advance(session, captured.position)

    def close(self) -> None:
        """End the threads that read."""
        self._pool.shutdown(cancel_futures=True)


def _at(token: Token, position: int | None) -> Token:
    captured = SlotPosition.of(token)
    assert captured is not None
    return replace(captured, position=position).put(token)
