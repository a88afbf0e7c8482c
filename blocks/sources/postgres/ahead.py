"""A view that is opened ahead: while a command still starts, the server and pg_dump already do their part."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from threading import Thread
from typing import TYPE_CHECKING

from blocks.sources.postgres.changes import Token
from blocks.sources.postgres.open import Settings, view_in

if TYPE_CHECKING:
    from blocks.sources.postgres.view import PostgresView


def begin(settings: Settings, *, ask: bool) -> None:
    """Begin to open a view in a thread of its own, for `open_view` to find it open.

    Args:
        settings: Of the view.
        ask: Whether to ask the replication slot, if the plan names one, what was written.
    """
    if settings not in _begun:  # two sources may be the same database
        _begun[settings] = opening = _Opening(settings, ask)
        opening.start()


@contextmanager
def open_view(settings: Settings, since: str | None = None) -> Iterator[PostgresView]:
    """Open one consistent look at a database, or take the one that `begin` is opening.

    Args:
        settings: Of the view.
        since: The token of the base's view.

    Raises:
        SourceUnavailable: It cannot be reached or read.
    """
    with ExitStack() as opened:
        opening, before = _begun.pop(settings, None), Token.parse(since)
        view = opening.taken(opened, before) if opening else None
        view = view or view_in(opened, settings, ask=since is not None)
        view.since = before
        yield view


class _Opening(Thread):
    """One that runs. Where it failed nothing is said: whoever needs the view opens it again, and meets the error."""

    def __init__(self, settings: Settings, ask: bool) -> None:
        super().__init__(name="postgres-view", daemon=True)
        self._settings, self._ask, self._opened = settings, ask, ExitStack()
        self._view: PostgresView | None = None

    def run(self) -> None:
        """Open the view."""
        with suppress(Exception):
            self._view = view_in(self._opened, self._settings, ask=self._ask)

    def taken(self, opened: ExitStack, before: Token | None) -> PostgresView | None:
        """Hand the view over, to be closed with `opened`; None where there is none, or it is older than the base's.

        A base that another run committed meanwhile has seen what this view has not.
        """
        self.join()
        with self._opened as mine:
            if self._view is None or (before is not None and not self._view.sees_all_of(before)):
                return None
            opened.push(mine.pop_all())
            return self._view


_begun: dict[Settings, _Opening] = {}
