"""Following a slot from a base to now: which keys were written, and what the next backup can go on from."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from blocks.errors import SourceUnavailable
from blocks.sources.postgres.changes import FEW, Followed, Token
from blocks.sources.postgres.connect import Session, translated
from blocks.sources.postgres.decoding import Keys, Touched
from blocks.sources.postgres.driver import Driver
from blocks.sources.postgres.identity import Identity
from blocks.sources.postgres.slot import Slot, SlotState, Undecodable, slot_state

MOST_KEYS = 1_000_000
"""Of all tables, some 200 bytes each; the table with which there are more is looked through as a whole."""
_ALWAYS_FEW = 5000


@dataclass
class Found:
    """What a slot told.

    Attributes:
        token: With the position that the next incremental goes on from.
        keys: What was written since the base, by collection; other tables have to be looked through.
        because: Why nothing was told, though it should have been.
    """

    token: Token
    keys: dict[str, Keys] = field(default_factory=dict)
    because: str | None = None


class Following:
    """How one view follows a slot.

    Args:
        slot: The slot.
        driver: To ask it with.
        before: What it was before the snapshot was taken: what it has told until then is visible.
        snapshot: As pg_current_snapshot gives it.
        tables: Will be the tables whose changes the slot tells, by collection.
        far_bytes: How much of the log is decoded: beyond that a scan is faster, and the slot is made anew.
    """

    def __init__(
        self,
        slot: Slot,
        driver: Driver,
        before: SlotState | None,
        snapshot: str,
        tables: Future[dict[str, Identity]],
        far_bytes: int,
    ) -> None:
        self._described, self._far_bytes = tables, far_bytes
        self._slot, self._driver, self._before, self._snapshot = slot, driver, before, snapshot
        self._asked = self._far = self._hopeless = False
        self._because: str | None = None
        self._position: int | None = None
        self._keys: Mapping[str, Keys] = {}
        self._token: Token | None = None

    @property
    def tables(self) -> Mapping[str, Identity]:
        """The tables whose changes the slot tells, by collection."""
        return self._described.result()

    def ask(self, session: Session, *, keys: bool) -> None:
        """Ask the slot, for `find`; nothing is changed by that.

        Args:
            session: Inside the snapshot.
            keys: Whether to ask what was written, beside how far the slot is.
        """
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
        with slot.told(self._driver, end, changes=keys) as told:
            # not sooner: a view may be begun before Arrow is imported
            from blocks.sources.postgres.told import Snapshot, read

            tables = {name: table.written for name, table in self.tables.items()} if keys else {}
            touched = Touched(tables, MOST_KEYS)
            prefix = read(told, Snapshot.parse(self._snapshot), touched.add)
        if slot_state(session, slot.name) != before:
            raise SourceUnavailable(f"{slot.shown} was moved by somebody else")
        self._position = end if prefix is None else max(prefix, confirmed)
        self._keys = touched.keys

    def find(self, session: Session, now: Token, since: Token | None) -> Found:
        """Tell what was written since a base; make the slot where there is none.

        Args:
            session: Inside the snapshot.
            now: The token of the snapshot.
            since: That of the base.
        """
        facts = {name: table.facts for name, table in self.tables.items()}
        found = Found(replace(now, followed=Followed(self._slot.name, None, facts)))
        if not self._is_same(found, since):
            try:
                if not self._asked:
                    self.ask(session, keys=False)
                self._go_on(found, since)
            except SourceUnavailable as exc:
                found.keys, found.because = {}, exc.message
        self._token = found.token
        return found

    def _is_same(self, found: Found, since: Token | None) -> bool:
        """Whether nothing changed: then the base's position serves on, and equal tokens say so."""
        if since is None or since.followed is None or since.followed.position is None:
            return False
        same = _at(found.token, since.followed.position)
        if same == since:
            found.token = same
        return same == since

    def _go_on(self, found: Found, since: Token | None) -> None:
        slot, before = self._slot, self._before
        if before is None:
            slot.make(instead=False)
            return
        if not before.ours:
            raise SourceUnavailable(f"{slot.shown} is not one that backups of this database make")
        if not before.serves:
            slot.make(instead=True)
            raise SourceUnavailable(f"the server had removed what {slot.shown} needs; it was made anew")
        if self._far:
            slot.make(instead=True)
            raise SourceUnavailable(f"{slot.shown} was more than {self._far_bytes >> 20} MiB behind; it was made anew")
        if self._hopeless:
            slot.make(instead=True)
            raise SourceUnavailable(f"{self._because}; {slot.shown} was made anew")
        if self._because is not None:
            raise SourceUnavailable(self._because)
        found.token = _at(found.token, self._position)
        if since is not None and self._reaches(since, before.confirmed or 0, found.token):
            found.keys = {
                name: keys for name, keys in self._keys.items() if self._tells(name, keys, since, found.token)
            }

    def _reaches(self, since: Token, confirmed: int, now: Token) -> bool:
        """Whether the slot reaches back to the base."""
        followed = since.followed
        if followed is None or followed.slot != self._slot.name or followed.position is None:
            return False
        return confirmed <= followed.position and since.server == now.server

    def _tells(self, name: str, keys: Keys, since: Token, now: Token) -> bool:
        """Whether a table's changes since the base are those that the slot told, and not too many."""
        assert since.followed is not None
        table = self.tables[name]
        if since.followed.tables.get(name) != table.facts or now.since(since, name) is None:
            return False
        return len(keys) <= _ALWAYS_FEW or table.rows <= 0 or len(keys) <= FEW * table.rows

    def committed(self, session: Session) -> None:
        """Let the server forget what the backup, which is kept now, stands for.

        Args:
            session: Whose transaction is not needed any more.

        Raises:
            SourceUnavailable: The server refused.
        """
        followed = self._token.followed if self._token else None
        confirmed = self._before.confirmed if self._before else None
        if followed and followed.position is not None and confirmed is not None and followed.position > confirmed:
            with translated(self._slot.place, "cannot end the transaction in"):
                session.execute("ROLLBACK")
            self._slot.advance(session, followed.position)


def _at(token: Token, position: int | None) -> Token:
    assert token.followed is not None
    return replace(token, followed=replace(token.followed, position=position))
