"""Following a slot from a base to now: which keys were written, and what the next backup can go on from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from blocks.errors import SourceUnavailable
from blocks.sources.postgres.changes import Followed, Token
from blocks.sources.postgres.connect import Session
from blocks.sources.postgres.decoding import Key, Touched
from blocks.sources.postgres.identity import Identity, identities
from blocks.sources.postgres.reading import FEW
from blocks.sources.postgres.slot import FAR_BYTES, Slot, SlotState, Snapshot
from blocks.sources.postgres.tables import Table
from blocks.sources.postgres.touched import SLICE_KEYS

MOST_KEYS = 200_000
"""Of one table; a table with more is looked through as a whole."""
MOST_OF_ALL = 500_000


@dataclass
class Found:
    """What a slot told.

    Attributes:
        token: With the position that the next incremental goes on from.
        keys: What was written, by collection; other tables have to be looked through.
        identities: What is known of these tables.
        because: Why nothing was told, though it should have been.
    """

    token: Token
    keys: dict[str, Sequence[Key]] = field(default_factory=dict)
    identities: dict[str, Identity] = field(default_factory=dict)
    because: str | None = None


class Following:
    """How one view follows a slot.

    Args:
        slot: The slot.
        before: What it was before the snapshot was taken: what it has told until then is visible.
        since: The token of the base.
    """

    def __init__(self, slot: Slot, before: SlotState | None, since: Token | None) -> None:
        self._slot, self._before, self.since = slot, before, since
        self._token: Token | None = None

    def find(self, session: Session, now: Token, tables: Sequence[Table]) -> Found:
        """Ask the slot; make it where there is none.

        Args:
            session: Inside the snapshot.
            now: The token of the snapshot.
            tables: All tables.
        """
        known = identities(session, tables)
        facts = {name: identity.facts for name, identity in known.items()}
        found = Found(replace(now, followed=Followed(self._slot.name, None, facts)), identities=known)
        if not self._is_same(found):
            try:
                self._ask(found)
            except SourceUnavailable as exc:
                found.keys, found.because = {}, exc.message
        self._token = found.token
        return found

    def _is_same(self, found: Found) -> bool:
        """Whether nothing changed: then the base's position serves on, and equal tokens say so."""
        before = self.since.followed if self.since else None
        if before is None or before.position is None:
            return False
        found.token = _at(found.token, before.position)
        same = found.token == self.since
        if not same:
            found.token = _at(found.token, None)
        return same

    def _ask(self, found: Found) -> None:
        slot, before = self._slot, self._before
        if before is None:
            slot.make(instead=False)
            return
        if not before.ours:
            raise SourceUnavailable(f"{slot.shown} is not one that backups of this database make")
        if before.lost or before.confirmed is None:
            slot.make(instead=True)
            raise SourceUnavailable(f"the server had removed what {slot.shown} needs; it was made anew")
        end = slot.end()
        if end - before.confirmed > FAR_BYTES:
            slot.make(instead=True)
            raise SourceUnavailable(f"{slot.shown} was more than {FAR_BYTES >> 20} MiB behind; it was made anew")
        touched = self._touched(found, before.confirmed)
        prefix = slot.peek(end, Snapshot.parse(found.token.snapshot), touched.add if touched else None)
        if slot.state() != before:
            raise SourceUnavailable(f"{slot.shown} was moved by somebody else")
        found.token = _at(found.token, end if prefix is None else max(prefix, before.confirmed))
        if touched:
            found.keys = {name: sorted(keys) for name, keys in touched.keys.items() if _few(keys, found, name)}

    def _touched(self, found: Found, confirmed: int) -> Touched | None:
        """Say which tables are looked for; None where the slot does not reach back to the base."""
        since, now = self.since, found.token
        if since is None or since.followed is None or since.followed.slot != self._slot.name:
            return None
        position, facts = since.followed.position, since.followed.tables
        if position is None or confirmed > position or since.server != now.server:
            return None
        wanted = {
            name: identity.written
            for name, identity in found.identities.items()
            if facts.get(name) == identity.facts and now.since(since, name) is not None
        }
        return Touched(wanted, MOST_KEYS, MOST_OF_ALL)

    def committed(self) -> None:
        """Let the server forget what the backup, which is kept now, stands for.

        Raises:
            SourceUnavailable: The server refused.
        """
        followed = self._token.followed if self._token else None
        confirmed = self._before.confirmed if self._before else None
        if followed and followed.position is not None and confirmed is not None and followed.position > confirmed:
            self._slot.advance(followed.position)


def _few(keys: set[Key], found: Found, name: str) -> bool:
    rows = found.identities[name].rows
    return len(keys) <= SLICE_KEYS or rows <= 0 or len(keys) <= FEW * rows


def _at(token: Token, position: int | None) -> Token:
    assert token.followed is not None
    return replace(token, followed=replace(token.followed, position=position))
