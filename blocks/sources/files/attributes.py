"""What entries have beside their content: what of it a backup keeps, and what it tells that it does not."""

from __future__ import annotations

import os
import stat
from collections import Counter

from blocks.sources.files.reading.stats import Row, granted_mode, stat_row
from blocks.sources.files.reading.xattrs import SUPPORTED, look_at

_LABELS = ("security.selinux", "security.SMACK64")

_SENTENCES = {
    "symlinks": "{} symbolic links have further names (hard links); each comes back as a link of its own",
    "labels": "{} entries have security labels, which are not kept; files come back with those the system gives",
    "attributes": "{} entries have extended attributes of kinds that are not kept",
    "unread": "{} entries have extended attributes or access lists (ACLs) that cannot be read, and are not kept",
}


class LookedAt:
    """Takes rows and attributes during one walk, and counts what is lost."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._unreachable = SUPPORTED and not os.path.exists("/proc/self/fd")

    def entry(self, fd: int, name: bytes | None, status: os.stat_result) -> tuple[Row, bytes | None]:
        """Look at an entry in an open folder (or at the folder itself); return its row and its attributes.

        The mode in the row is what it may be without the access list; the list is among the attributes.
        """
        row = stat_row(status)
        if status.st_nlink > 1 and stat.S_ISLNK(row[0]):
            self._counts["symlinks"] += 1
        # there is no such call relative to a descriptor; nothing is opened
        found = look_at(fd) if name is None else look_at(b"/proc/self/fd/%d/%b" % (fd, name), follow=False)
        if found.others:
            self._counts.update({"labels" if other in _LABELS else "attributes" for other in found.others})
        self._counts["unread"] += found.unread
        if found.access_list is not None:
            row = (granted_mode(row[0], found.access_list), *row[1:])
        return row, found.kept

    def sentences(self) -> list[str]:
        """Say what was counted, a sentence for each kind."""
        told = [text.format(self._counts[kind]) for kind, text in _SENTENCES.items() if self._counts[kind]]
        if self._unreachable:
            told.append(
                "extended attributes and access lists of folders and links are not kept: there is no /proc here"
            )
        return told
