"""How far a replication slot was followed, as a token keeps it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from blocks.sources.postgres.read.xmin_tracking import Token


@dataclass(frozen=True)
class SlotPosition:
    """How far the changes of a replication slot were captured.

    Attributes:
        slot: Name of the replication slot.
        position: Every transaction whose commit record begins before it is visible in the token's snapshot; None where
            no such position is known.
        tables: Hash of what identifies each table's changes in the slot, by collection; without tables that the slot
            does not report.
    """

    slot: str
    position: int | None
    tables: dict[str, str]

    @classmethod
    def of(cls, token: Token | None) -> SlotPosition | None:
        """Read it out of a token; None where that has none."""
        match token.captured if token else None:
            case [str(slot), int() | None as position, dict(tables)]:
                return cls(slot, position, {name: str(facts) for name, facts in tables.items()})
        return None

    def put(self, token: Token) -> Token:
        """Return a token with this position."""
        return replace(token, captured=[self.slot, self.position, {**self.tables}])
