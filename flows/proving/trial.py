"""A restore that is tried: what it raises ends no verification, since that is what was to be found out.

An error whose type says that the place lacks something (a program, room, a right) leaves the backup unproven;
any other one is a restore that fails.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from blocks.errors import (
    ConfigurationError,
    CouldNotBeTried,
    LastgoodError,
    NotRestorable,
    PlaceUnfit,
    ProgramMissing,
    ServerUnusable,
    SourceFull,
    TemporaryFolderUnusable,
)
from blocks.host.leftovers import is_full

logger = logging.getLogger(__name__)

_OF_THE_PLACE = (
    CouldNotBeTried,
    PlaceUnfit,
    ProgramMissing,
    ServerUnusable,
    SourceFull,
    TemporaryFolderUnusable,
)
"""Errors that say something of the place, and nothing of what is restored."""


class Trial:
    """A restore that is tried: what ended it is kept, and nothing more is done.

    Attributes:
        error: What ended it; `CouldNotBeTried` where that is the place's fault. None as long as it goes on.
    """

    def __init__(self) -> None:
        self.error: LastgoodError | None = None

    @contextmanager
    def step(self) -> Iterator[None]:
        """Do something of it; several threads may.

        Raises:
            ConfigurationError: The plan is wrong, which no restore would find out more of.
        """
        try:
            yield
        except LastgoodError as exc:
            if isinstance(exc, ConfigurationError) and not isinstance(exc, ProgramMissing):
                raise
            self.end(exc)
        except (OSError, MemoryError) as exc:
            self.end(_caused(CouldNotBeTried(f"{type(exc).__name__}: {exc}"), exc))
        except Exception as exc:
            logger.debug("a scratch restore failed", exc_info=exc)
            self.end(_caused(NotRestorable(f"{type(exc).__name__}: {exc}"), exc))

    def end(self, error: LastgoodError) -> None:
        """Keep an error, the first of all."""
        full = isinstance(error.__cause__, OSError) and is_full(error.__cause__)
        if isinstance(error, _OF_THE_PLACE) or full:
            error = _caused(CouldNotBeTried(error.message, hint=error.hint), error)
        self.error = self.error or error

    @property
    def goes_on(self) -> bool:
        """Whether nothing has ended it."""
        return self.error is None


def _caused(error: LastgoodError, cause: BaseException) -> LastgoodError:
    error.__cause__ = cause
    return error
