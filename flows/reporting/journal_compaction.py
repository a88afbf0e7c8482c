"""Puts totals in the place of old segments of the journal: neither its files nor who reads them grow for ever."""

from __future__ import annotations

import json
import logging
import os
import secrets
from pathlib import Path

from blocks.host.folders import sync_folder
from flows.reporting.journal_files import TOTALS, lock, opened, segment, segments
from flows.reporting.journal_totals import Totals, read_totals

logger = logging.getLogger(__name__)

KEPT_SEGMENTS = 2
"""So many segments stay besides the one that is written, for people; older ones are totals."""

_LOCK_SECONDS = 0.1


def compact(folder: Path) -> None:
    """Put totals in the place of all but the newest segments, where there are more.

    What stands for them is there before they go. A reader reads segments that are not part of the totals, so that one
    which a killed compaction left is not counted twice. Where it fails, the journal is larger than it need be.
    """
    try:
        if len(segments(folder)) > KEPT_SEGMENTS + 1:
            with opened(folder / "lock") as (fd, _):
                if lock(fd, 0):  # else another one is at it, or nothing can be locked
                    _compact(folder)
    except (OSError, ValueError) as exc:
        logger.warning("the journal in %s is not compacted: %s", folder, exc)


def _compact(folder: Path) -> None:
    totals = read_totals(folder)
    there = segments(folder)
    for number in there[: -KEPT_SEGMENTS - 1]:
        if number > totals.through:
            if not _feed_whole(totals, folder, number):
                break
            totals.through = number
    for left in folder.glob(f".{TOTALS}.*"):  # by a compaction that was killed
        left.unlink(missing_ok=True)
    _keep(folder, totals)
    for number in there:
        if number <= totals.through:
            segment(folder, number).unlink(missing_ok=True)


def _feed_whole(totals: Totals, folder: Path, number: int) -> bool:
    """Add a segment that is no longer the last one, unless somebody who began to write into it has not gone on."""
    with segment(folder, number).open("r+b") as file:  # a file server locks what may be written
        if not lock(file.fileno(), _LOCK_SECONDS):
            return False
        for line in file:
            totals.feed(line)
    return True


def _keep(folder: Path, totals: Totals) -> None:
    made = folder / f".{TOTALS}.{secrets.token_hex(4)}"
    try:
        with open(made, "xb") as file:
            file.write(json.dumps(totals.as_json(), separators=(",", ":")).encode("ascii"))
            os.fchmod(file.fileno(), os.stat(folder).st_mode & 0o666)
            file.flush()
            os.fsync(file.fileno())
        os.replace(made, folder / TOTALS)
    except BaseException:
        made.unlink(missing_ok=True)
        raise
    sync_folder(folder)
