"""Which change capture a plan asks for: the one place that knows the package `cdc`, which may be left out."""

from __future__ import annotations

from collections.abc import Callable

from blocks.sources.postgres.choice import Settings
from blocks.sources.postgres.connect import Session, place_of
from blocks.sources.postgres.read.capture import ChangeCapture, MissingCapture, NoCapture, Opening


def prepare_capture(settings: Settings, session: Session) -> Callable[[Opening], ChangeCapture]:
    """Look before the snapshot of a view is taken at what reports changes; return what opens it for the view.

    Args:
        settings: How the view is opened.
        session: The view's session, outside of any transaction.
    """
    if (slot := settings.followed) is None:
        return lambda opening: NoCapture()
    try:
        # where the plan asks for it, and nowhere else: an installation may do without this package
        from blocks.sources.postgres.cdc.open_capture import prepare
    except ImportError:
        return lambda opening: MissingCapture(f"replication slot {slot}", place_of(settings.conninfo))
    return prepare(settings, slot, session)
