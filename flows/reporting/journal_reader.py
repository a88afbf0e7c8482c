"""Reads the journal again and again, each time only what came since."""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from flows.reporting.journal_files import TOTALS, append, segment, segments
from flows.reporting.journal_totals import Totals, read_totals

logger = logging.getLogger(__name__)

_TRIES = 10
_MOST_AT_ONCE = 64 * 1024 * 1024

_Mark = tuple[int, int, int] | None
"""What tells one file of totals from the next one: inode, time in ns, size; None where there is none."""


class _Moved(Exception):
    """Segments are not what they were: all is read anew."""


class JournalReader:
    """What the journal says now. Thread-safe.

    Args:
        folder: Of the journal; it need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._guard = threading.Lock()
        self._totals: Totals | None = None
        self._mark: _Mark = None
        self._read: dict[int, tuple[int, int]] = {}
        """By number of a segment its inode, and how many bytes of it were read."""
        self._told: set[str] = set()
        """Operations that were noted as lost by this reader."""
        self._left_out: set[int] = set()
        """Segments that could not be opened, which was said."""

    def read(self) -> Totals:
        """Return what all lines add up to; it must not be changed, and changes with the next call.

        Operations whose process is known to be gone are noted as lost, so that whoever reads the journal after this
        one counts them, too; where it cannot be written, only this reader does.

        Raises:
            OSError: It cannot be read.
            ValueError: A newer lastgood wrote it.
        """
        with self._guard:
            totals = self._settled()
            now = datetime.now(UTC)
            gone = [operation for operation, begun in totals.pending.items() if begun.gone(now)]
            if gone:
                # one that ended since it was read has said so before its process was gone
                totals = self._settled()
                for operation in gone:
                    if operation in totals.pending:
                        self._note_lost(operation, now)
                totals = self._settled()
                for operation in gone:
                    totals.lost(operation, now.timestamp())
            return totals

    def _note_lost(self, operation: str, now: datetime) -> None:
        if operation in self._told:
            return
        self._told.add(operation)
        line: Mapping[str, str] = {"event": "lost", "id": operation, "at": now.isoformat(timespec="milliseconds")}
        try:
            append(self._folder, line)
        except OSError as exc:
            logger.debug("that an operation was lost cannot be noted: %s", exc)

    def _settled(self) -> Totals:
        """Read what is new, of one moment: no segment became part of the totals meanwhile."""
        for _ in range(_TRIES):
            mark = self._current_mark()
            if self._totals is None or mark != self._mark:
                self._totals, self._mark, self._read = read_totals(self._folder), mark, {}
            try:
                self._feed(self._totals)
                if self._current_mark() == mark:
                    return self._totals
            except _Moved:
                logger.debug("the journal was compacted meanwhile")
            self._totals = None
        raise OSError(f"the journal in {self._folder} changes all the time")

    def _current_mark(self) -> _Mark:
        try:
            found = os.stat(self._folder / TOTALS)
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _feed(self, totals: Totals) -> None:
        there = [number for number in segments(self._folder) if number > totals.through]
        if not self._read.keys() <= set(there):
            raise _Moved
        for number in there:
            self._feed_segment(totals, number)

    def _feed_segment(self, totals: Totals, number: int) -> None:
        try:
            fd = os.open(segment(self._folder, number), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise _Moved from None
        except OSError as exc:
            if number not in self._left_out:
                logger.warning("metrics miss a part of the journal, which cannot be read: %s", exc)
                self._left_out.add(number)
            return
        with open(fd, "rb", buffering=0) as file:
            seen = os.fstat(fd)
            inode, offset = self._read.get(number, (seen.st_ino, 0))
            if inode != seen.st_ino or seen.st_size < offset:
                raise _Moved
            if not stat.S_ISREG(seen.st_mode) or seen.st_size == offset:
                return
            file.seek(offset)
            data = file.read(_MOST_AT_ONCE)
        # what is not whole yet is read again
        whole = data.rfind(b"\n") + 1
        for line in data[:whole].split(b"\n"):
            totals.feed(line)
        self._read[number] = inode, offset + whole
