"""The files of the journal: segments of lines, of which only the last one is written, and the totals of older ones.

They lie in `$XDG_STATE_HOME/lastgood/journal`, or in the folder that `LASTGOOD_JOURNAL` names, which several workers
may share. A segment, `00000001.jsonl` and so on, ends when the next one is there. Who appends locks the last segment,
looks once more whether it still is the last one, and writes its line by one call. Who holds a lock and does not go on
(a stopped process) holds up nobody: the next segment is begun. Where a file system knows no locks, lines are appended
without, and no segment is ever removed.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pydantic import JsonValue

from blocks.errors import LastgoodError
from blocks.host.state_folder import state_folder
from blocks.storage.fsync import read_regular

FOLDER_VARIABLE = "LASTGOOD_JOURNAL"
SEGMENT_BYTES = 512 * 1024
"""When a segment is so large, the next one is begun: after some 600 operations."""
LOCK_SECONDS = 0.5
"""How long the last segment is waited for; a line is written in much less than a millisecond."""
TOTALS = "totals.json"

logger = logging.getLogger(__name__)

_PAUSE = 0.002
_MOST_TOTALS = 64 * 1024 * 1024
_MOST_LINE = 64 * 1024
_TRIES = 50
_SEGMENT = re.compile(r"([0-9]{8,12})\.jsonl")


def journal_folder() -> Path:
    """Return the folder of the journal, which may not exist.

    Raises:
        RuntimeError: It is not set, and the user has no home.
    """
    return chosen_folder() or state_folder() / "journal"


def chosen_folder() -> Path | None:
    """Return the folder that somebody chose for the journal; None where nobody did."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    return Path(chosen).expanduser().absolute() if chosen else None


def segments(folder: Path) -> list[int]:
    """Return the numbers of the segments that are there, in their order."""
    try:
        found = [_SEGMENT.fullmatch(name) for name in os.listdir(folder)]
    except FileNotFoundError:
        return []
    return sorted(int(one[1]) for one in found if one)


def segment(folder: Path, number: int) -> Path:
    """Return the file of a segment."""
    return folder / f"{number:08d}.jsonl"


def totals_text(folder: Path) -> dict[str, JsonValue]:
    """Return the totals of older segments as they are kept; nothing where there are none, or they are damaged."""
    try:
        found = json.loads(read_regular(folder / TOTALS, limit=_MOST_TOTALS))
        if isinstance(found, dict):
            return found
    except FileNotFoundError:
        return {}
    except (ValueError, LastgoodError) as exc:
        logger.debug("the totals do not open: %s", exc)
    logger.warning("the totals of the journal in %s are damaged: what they counted is lost", folder)
    return {}


def through(totals: Mapping[str, JsonValue]) -> int:
    """Return the number of the last segment that is part of totals; 0 where none is."""
    found = totals.get("through")
    return found if isinstance(found, int) and found >= 0 else 0


def append(folder: Path, line: Mapping[str, JsonValue], more: Mapping[str, JsonValue] | None = None) -> bool:
    """Append a line to the last segment, or to a new one where that is large.

    Args:
        folder: Of the journal; it is made where it is missing.
        line: What is noted.
        more: Noted with it, unless the line would be very long then.

    Returns:
        Whether a segment was begun.

    Raises:
        OSError: It cannot be written.
    """
    text = _text({**line, **(more or {})})
    if len(text) > _MOST_LINE:
        text = _text(line)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # where all segments are gone, one of a number that the totals have would pass for counted
    number = max(segments(folder), default=0) or through(totals_text(folder)) + 1
    began = False
    for _ in range(_TRIES):
        with opened(segment(folder, number)) as (fd, made):
            began |= made
            locked = lock(fd, LOCK_SECONDS)
            size = os.fstat(fd).st_size
            # one that is part of totals is never the last one: that stays until the next is there
            last = max(segments(folder), default=number)
            if last == number and locked is not False and size < SEGMENT_BYTES:
                _write(fd, size, text)
                return began
            number = last if last > number else number + 1
    raise OSError(errno.EAGAIN, "the journal is busy", str(folder))


def _text(line: Mapping[str, JsonValue]) -> bytes:
    return json.dumps(line, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"


def _write(fd: int, size: int, text: bytes) -> None:
    # a line before it may have been cut off, by a full disk or by a kill
    whole = size == 0 or os.pread(fd, 1, size - 1) == b"\n"
    data = text if whole else b"\n" + text
    if os.write(fd, data) != len(data):
        raise OSError(errno.ENOSPC, "a line of the journal was cut off")


@contextmanager
def opened(path: Path) -> Iterator[tuple[int, bool]]:
    """Open a file of the journal to append to it; it is made where it is missing, which is said, too."""
    flags, made = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK, False
    try:
        fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
        made = True
    except FileExistsError:
        fd = os.open(path, flags)
    try:
        if made:
            # who may write in the folder may write the journal: workers of several users share it
            os.fchmod(fd, os.stat(path.parent).st_mode & 0o666)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "something else is in the place of a file of the journal", str(path))
        yield fd, made
    finally:
        os.close(fd)


def lock(fd: int, seconds: float) -> bool | None:
    """Lock a file against all others, until it is closed.

    Args:
        fd: The opened file.
        seconds: How long another holder is waited for.

    Returns:
        False where another one held it for longer; None where the file system knows no locks.
    """
    until = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(_PAUSE)
        except OSError:
            return None
        else:
            return True
