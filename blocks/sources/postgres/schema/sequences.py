"""Positions of sequences and materialised views after the rows are there."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from pydantic import JsonValue

from blocks.errors import RestoreRefused
from blocks.sources.postgres.connect import Session, identifier, literal
from blocks.sources.postgres.schema.entries import statements

_REFRESH = "REFRESH MATERIALIZED VIEW "


@dataclass(frozen=True)
class SequenceState:
    """One sequence: its name, the table that owns it, and its position."""

    schema: str
    name: str
    owner: tuple[str, str]
    last_value: int
    is_called: bool

    @classmethod
    def of(cls, raw: JsonValue) -> SequenceState:
        """Read it from the manifest.

        Raises:
            RestoreRefused: It is not one.
        """
        match raw:
            case [str(schema), str(name), str(owner_schema), str(owner), int(last), bool(called)]:
                return cls(schema, name, (owner_schema, owner), last, called)
        raise RestoreRefused("the manifest describes a sequence that is none")


def set_sequences(
    session: Session,
    sequences: Iterable[SequenceState],
    exact: set[tuple[str, str]] | None,
    merged: set[tuple[str, str]],
    made: Collection[tuple[str, str]] = (),
) -> list[str]:
    """Set sequences inside the open transaction; return what could not be set.

    Args:
        session: A session with the restore's transaction open.
        sequences: The sequences with their positions in the backup.
        exact: The owners of those that are set back; None for all of them.
        merged: The owners of those that are only moved on.
        made: Sequences that this transaction has made.
    """
    notes = []
    for sequence in sequences:
        back = exact is None or sequence.owner in exact or (sequence.schema, sequence.name) in made
        if not back and sequence.owner not in merged:
            continue
        quoted = identifier(sequence.schema, sequence.name)
        found = session.execute("SELECT pg_catalog.to_regclass(%s) IS NOT NULL", (quoted,)).fetchone()
        if not (found and found[0]):
            notes.append(f"Sequence {quoted} is missing there and was not set.")
        elif back or _is_behind(session, quoted, sequence):
            # RESTART gives the sequence a new file, so that even its position is rolled back with the transaction
            session.execute(f"ALTER SEQUENCE {quoted} RESTART".encode())
            called = "true" if sequence.is_called else "false"
            session.execute(f"SELECT pg_catalog.setval({literal(quoted)}, {sequence.last_value}, {called})".encode())
    return notes


def to_set(
    sequences: Iterable[SequenceState], exact: set[tuple[str, str]] | None, merged: set[tuple[str, str]]
) -> list[str]:
    """Return the sequences that `set_sequences` may set, quoted."""
    wanted = (s for s in sequences if exact is None or s.owner in exact or s.owner in merged)
    return [identifier(s.schema, s.name) for s in wanted]


def _is_behind(session: Session, quoted: str, sequence: SequenceState) -> bool:
    row = session.execute(
        f"SELECT s.last_value, s.is_called, q.seqincrement > 0 FROM {quoted} s, pg_catalog.pg_sequence q"
        f" WHERE q.seqrelid = {literal(quoted)}::pg_catalog.regclass".encode()
    ).fetchone()
    assert row is not None
    live, there = (int(str(row[0])), bool(row[1])), (sequence.last_value, sequence.is_called)
    if row[2]:
        return live < there
    return (-live[0], live[1]) < (-there[0], there[1])


def materialized_views(session: Session, after: str, covers: Callable[[str, str], bool]) -> list[str]:
    """Return the materialised views that the backup fills, in its order, as far as they are there and covered."""
    found = []
    for name in _refreshed(after):
        row = session.execute(
            "SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_class c"
            " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = pg_catalog.to_regclass(%s)",
            (name,),
        ).fetchone()
        if row and covers(str(row[0]), str(row[1])):
            found.append(name)
    return found


def _refreshed(after: str) -> list[str]:
    if _REFRESH not in after:
        return []
    return [one.removeprefix(_REFRESH)[:-1] for _, one in statements(after) if one.startswith(_REFRESH)]
