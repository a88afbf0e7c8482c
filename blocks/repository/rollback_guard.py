"""What this machine remembers of repositories, outside of them, in `$XDG_STATE_HOME/lastgood`.

Against the rollback of a whole repository nothing inside it helps, and an empty folder does not say that a disk is
missing there. Where nothing can be remembered, backups go on and only that is lost.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from blocks.errors import LastgoodError
from blocks.host.state_folder import state_folder
from blocks.records import Link, Record
from blocks.repository import names
from blocks.storage.fsync import read_regular

logger = logging.getLogger(__name__)

_MOST_BYTES = 64 * 1024

MOST_VERIFICATIONS = 4096
"""Backups of a plan whose last verifications are remembered."""
_MOST_VERIFICATION_BYTES = 1024 * 1024


class Head(Record):
    """The newest backup that this machine has seen of a plan."""

    link: Link
    sequence: int


class RollbackGuard:
    """Remembers the newest backup of each plan in `$XDG_STATE_HOME/lastgood/<repository id>/<plan>.json`.

    Args:
        repository_id: Id of the repository.
    """

    def __init__(self, repository_id: str) -> None:
        self._repository_id = repository_id

    def path(self, plan: str) -> Path:
        """Return the file of a plan."""
        return state_folder() / self._repository_id / f"{names.checked_plan(plan)}.json"

    def read(self, plan: str) -> Head | None:
        """Return what is remembered; None where nothing is, or it cannot be read."""
        try:
            return Head.model_validate_json(read_regular(self.path(plan), limit=_MOST_BYTES))
        except FileNotFoundError:
            return None
        except (OSError, RuntimeError, ValidationError, LastgoodError) as exc:  # RuntimeError: there is no home
            logger.warning("the newest backup seen of plan %s cannot be read: %s", plan, exc)
            return None

    def write(self, plan: str, head: Head | None) -> None:
        """Remember a backup, or forget; a failure is logged only."""
        try:
            if head is None:
                self.path(plan).unlink(missing_ok=True)
            else:
                _replace(self.path(plan), head.model_dump_json())
        except (OSError, RuntimeError) as exc:
            logger.warning("the newest backup seen of plan %s cannot be remembered: %s", plan, exc)


class LastVerification(Record):
    """The last verification of a backup that this machine has seen: its number, and the SHA-256 of its sealed bytes."""

    sequence: int
    sha256: str


class _LastVerifications(Record):
    last: dict[str, LastVerification]


class VerificationMemory:
    """Remembers the last verification of each backup, in `$XDG_STATE_HOME/lastgood/<repository id>/verifications`.

    What two processes write at once may be forgotten for one of them, which weakens it only.

    Args:
        repository_id: Id of the repository.
    """

    def __init__(self, repository_id: str) -> None:
        self._repository_id = repository_id

    def path(self, plan: str) -> Path:
        """Return the file of a plan."""
        return state_folder() / self._repository_id / "verifications" / f"{names.checked_plan(plan)}.json"

    def read(self, plan: str) -> dict[str, LastVerification]:
        """Return what is remembered, by id of the backup; nothing where it cannot be read."""
        try:
            text = read_regular(self.path(plan), limit=_MOST_VERIFICATION_BYTES)
            return _LastVerifications.model_validate_json(text).last
        except FileNotFoundError:
            return {}
        except (OSError, RuntimeError, ValidationError, LastgoodError) as exc:
            logger.warning("the last verifications seen of plan %s cannot be read: %s", plan, exc)
            return {}

    def remember(self, plan: str, last: Mapping[str, LastVerification]) -> None:
        """Remember the last verifications of some backups as well; a failure is logged only."""
        before = self.read(plan)
        self.replace(plan, {name: one for name, one in before.items() if name not in last} | dict(last))

    def replace(self, plan: str, last: Mapping[str, LastVerification]) -> None:
        """Remember these and no others, the newest where there are very many; a failure is logged only."""
        kept = dict(list(last.items())[-MOST_VERIFICATIONS:])
        try:
            if kept != self.read(plan):
                _replace(self.path(plan), _LastVerifications(last=kept).model_dump_json())
        except (OSError, RuntimeError) as exc:
            logger.warning("the last verifications of plan %s cannot be remembered: %s", plan, exc)


class PlaceMemory:
    """Remembers which repository was at a place, in `$XDG_STATE_HOME/lastgood/places/<digest of the place>`.

    Args:
        place: Where a repository is, as its tier names it; also where nothing is now.
    """

    def __init__(self, place: str) -> None:
        self._place = place

    def path(self) -> Path:
        """Return the file of the place."""
        digest = hashlib.sha256(os.fsencode(self._place)).hexdigest()
        return state_folder() / "places" / digest

    def recall(self) -> str | None:
        """Return the id of the repository that was seen here; None where none was."""
        try:
            return read_regular(self.path(), limit=_MOST_BYTES).decode("ascii").partition("\n")[0] or None
        except (OSError, RuntimeError, ValueError, LastgoodError):
            return None

    def remember(self, repository_id: str) -> None:
        """Remember a repository; a failure is not worth a word."""
        if self.recall() == repository_id:
            return
        try:
            _replace(self.path(), f"{repository_id}\n{self._place}\n")
        except (OSError, RuntimeError, ValueError) as exc:
            logger.debug("the place %s cannot be remembered: %s", self._place, exc)


def memory_folder() -> Path | None:
    """Return the folder in which this machine remembers; None where there is no home."""
    try:
        return state_folder()
    except RuntimeError:
        return None


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    temporary.write_text(text, errors="surrogateescape")
    temporary.chmod(0o600)
    os.replace(temporary, path)
