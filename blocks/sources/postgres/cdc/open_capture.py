"""Change capture by a replication slot, opened with a view."""

from __future__ import annotations

from collections.abc import Callable

from blocks.sources.postgres.cdc.slot import Slot, slot_state
from blocks.sources.postgres.cdc.slot_capture import SlotCapture, SlotView
from blocks.sources.postgres.cdc.table_identity import identities
from blocks.sources.postgres.choice import Settings
from blocks.sources.postgres.connect import Session
from blocks.sources.postgres.read.capture import ChangeCapture, Opening

FAR_BYTES = 1024**3
_DECODING_SECONDS = 30.0
"""How much of its log the server decodes in any case, and how long it may take; more where tables are large."""
_LOOKED_THROUGH_A_SECOND = 100 * 1024**2
_DECODING = 8
"""How many times longer the server takes to decode so much of its log than to look through tables of that size."""


def prepare(settings: Settings, name: str, session: Session) -> Callable[[Opening], ChangeCapture]:
    """Look at a slot before the snapshot of a view, which so sees all that the slot has reported until then.

    Args:
        settings: How the view is opened.
        name: Name of the replication slot.
        session: The view's session, outside of any transaction.

    Returns:
        What opens the capture of changes, inside the snapshot.
    """
    before = slot_state(session, name)

    def opened(opening: Opening) -> ChangeCapture:
        size_bytes = sum(table.size_bytes for table in opening.tables)
        slot = Slot(
            settings.conninfo,
            name,
            settings.connect_timeout_seconds,
            settings.lock_timeout_seconds,
            max(_DECODING_SECONDS, size_bytes / _LOOKED_THROUGH_A_SECOND),
        )
        described = opening.beside.submit(identities, opening.session, opening.tables)
        view = SlotView(opening.driver, before, opening.snapshot, described)
        return SlotCapture(slot, view, max(FAR_BYTES, size_bytes // _DECODING))

    return opened
