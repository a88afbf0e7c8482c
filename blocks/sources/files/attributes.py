"""What entries have that a backup does not keep: counted, so that one warning each can say so."""

from __future__ import annotations

import os
import stat
from collections import Counter

from blocks.sources.files.reading.stats import ACCESS_LIST, Row, granted_mode, stat_row

_DEFAULT_LIST = "system.posix_acl_default"
_CAPABILITIES = "security.capability"
_LABELS = ("security.selinux", "security.SMACK64")

_SENTENCES = {
    "links": "{} files have further names (hard links) here or elsewhere; each comes back as a file of its own",
    "lists": "{} entries have access lists (ACLs), which are not kept: they come back without the rights these give",
    "capabilities": "{} files have capabilities, which are not kept",
    "labels": "{} entries have security labels, which are not kept; files come back with those the system gives",
    "attributes": "{} entries have extended attributes, which are not kept",
}
_SUPPORTED = hasattr(os, "listxattr")


class LostAttributes:
    """Counts them during one walk."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def row(self, fd: int, name: bytes | None, status: os.stat_result) -> Row:
        """Take the row of an entry in an open folder (or of the folder itself), as it can come back."""
        row = stat_row(status)
        kind = stat.S_IFMT(row[0])
        if status.st_nlink > 1 and kind == stat.S_IFREG:
            self._counts["links"] += 1
        if not _SUPPORTED or kind == stat.S_IFLNK:
            return row
        # there is no such call relative to a descriptor; nothing is opened
        place = fd if name is None else b"/proc/self/fd/%d/%b" % (fd, name)
        try:
            names = os.listxattr(place, follow_symlinks=name is None)
            if not names:
                return row
            self._count(names)
            if ACCESS_LIST not in names:
                return row
            listed = os.getxattr(place, ACCESS_LIST, follow_symlinks=name is None)
        except OSError:  # a file system without them, an entry that is gone, or no /proc
            return row
        return (granted_mode(row[0], listed), *row[1:])

    def _count(self, names: list[str]) -> None:
        kinds = set()
        for name in names:
            if name in (ACCESS_LIST, _DEFAULT_LIST):
                kinds.add("lists")
            elif name == _CAPABILITIES:
                kinds.add("capabilities")
            else:
                kinds.add("labels" if name in _LABELS else "attributes")
        self._counts.update(kinds)

    def sentences(self) -> list[str]:
        """Say what was counted, a sentence for each kind."""
        return [text.format(self._counts[kind]) for kind, text in _SENTENCES.items() if self._counts[kind]]
