"""What of a backup cannot be put into a tree: an error, or left out and named where a restore keeps going."""

from __future__ import annotations

import errno
from collections.abc import Iterable

from blocks.errors import RestoreRefused
from blocks.sources.files.reading.stats import parent
from blocks.sources.files.tree import shown
from blocks.sources.target import NotRebuilt

_HINT = "--keep-going leaves it as it is, restores all else, and names it."

_OF_ONE_ENTRY = frozenset(
    {
        errno.EACCES,
        errno.EBUSY,
        errno.EEXIST,
        errno.EFBIG,
        errno.EILSEQ,
        errno.EINVAL,
        errno.EISDIR,
        errno.EMLINK,
        errno.ENAMETOOLONG,
        errno.ENOTDIR,
        errno.ENOTEMPTY,
        errno.ENOTSUP,
        errno.EOVERFLOW,
        errno.EPERM,
        errno.ETXTBSY,
        errno.EXDEV,
    }
)
"""What a system says of one name or file; of others (a full or failing disk) the next entry would fail, too."""


class Refusals:
    """The entries of one restore that are left out.

    Args:
        keep_going: Whether entries may be left out; else each is an error.
    """

    def __init__(self, keep_going: bool) -> None:
        self._keep_going = keep_going
        self._reasons: dict[bytes, str] = {}
        self._bare: dict[bytes, str] = {}

    def __len__(self) -> int:
        return len(self._reasons)

    def refuse(self, path: bytes, error: RestoreRefused) -> None:
        """Leave out an entry with all beneath it; the root cannot be.

        Raises:
            RestoreRefused: Nothing may be left out.
        """
        if not path:
            raise error
        if not self._keep_going:
            error.hint = f"{error.hint} {_HINT}".strip()
            raise error
        self._reasons.setdefault(path, error.message)

    def fail(self, path: bytes, error: OSError) -> None:
        """Leave out an entry that the system refuses.

        Raises:
            OSError: Nothing may be left out, or it is not this entry's fault.
        """
        if not path or not self._keep_going or error.errno not in _OF_ONE_ENTRY:
            raise error
        self._reasons.setdefault(path, error.strerror or str(error))

    def undress(self, path: bytes, error: OSError) -> None:
        """Leave an entry without its owner, mode or time, which the system refuses to set.

        Raises:
            OSError: Nothing may be left out, or it is not this entry's fault.
        """
        if not self._keep_going or error.errno not in _OF_ONE_ENTRY:
            raise error
        self._bare.setdefault(path, error.strerror or str(error))

    def holds(self, path: bytes) -> bool:
        """Whether an entry is left out, by itself or with a folder above it."""
        return at_or_below(path, self._reasons)

    @property
    def sentences(self) -> list[str]:
        """What is left out, each with its reason."""
        return [f"{shown(path)} will be left out: {why}." for path, why in sorted(self._reasons.items())]

    @property
    def not_rebuilt(self) -> list[NotRebuilt]:
        """What is not as it was in the backup."""
        left = [NotRebuilt(f"entry {shown(path)}", why) for path, why in sorted(self._reasons.items())]
        return left + [
            NotRebuilt(f"owner, mode or time of {shown(path)}", why)
            for path, why in sorted(self._bare.items())
            if not self.holds(path)
        ]


def at_or_below(path: bytes, above: Iterable[bytes]) -> bool:
    """Whether a relative path is one of some, or lies beneath one."""
    if not above:
        return False
    known = above if isinstance(above, (dict, frozenset, set)) else set(above)
    at = path
    while at:
        if at in known:
            return True
        at = parent(at)
    return b"" in known
