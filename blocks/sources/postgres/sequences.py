"""Positions of sequences and materialised views after the rows are there."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from pydantic import JsonValue

from blocks.errors import RestoreRefused
from blocks.sources.postgres.connect import Session, identifier, literal

_REFRESH = re.compile(r"^REFRESH MATERIALIZED VIEW (.+);$", re.MULTILINE)


@dataclass(frozen=True)
class Sequence_:
    """One sequence: its name, the table that owns it, and its position."""

    schema: str
    name: str
    owner: tuple[str, str]
    last_value: int
    is_called: bool

    @classmethod
    def of(cls, raw: JsonValue) -> Sequence_:
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
    sequences: Iterable[Sequence_],
    exact: set[tuple[str, str]] | None,
    merged: set[tuple[str, str]],
    made: Collection[tuple[str, str]] = (),
) -> list[str]:
    """Set sequences inside the open transaction; return what could not be set.

    Args:
        session: With the transaction open.
        sequences: As they were.
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


def _is_behind(session: Session, quoted: str, sequence: Sequence_) -> bool:
    row = session.execute(
        f"SELECT s.last_value, s.is_called, q.seqincrement > 0 FROM {quoted} s, pg_catalog.pg_sequence q"
        f" WHERE q.seqrelid = {literal(quoted)}::pg_catalog.regclass".encode()
    ).fetchone()
    assert row is not None
    live, there = (int(str(row[0])), bool(row[1])), (sequence.last_value, sequence.is_called)
    if row[2]:
        return live < there
    return (-live[0], live[1]) < (-there[0], there[1])


def materialized_views(session: Session, after: str) -> list[str]:
    """Return the materialised views that the backup fills, in its order, as far as they are there."""
    names = _REFRESH.findall(after)
    found = []
    for name in names:
        row = session.execute("SELECT pg_catalog.to_regclass(%s) IS NOT NULL", (name,)).fetchone()
        if row and row[0]:
            found.append(name)
    return found
