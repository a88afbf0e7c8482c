"""What of a backup cannot be put into a tree: an error, or left out and named where a restore keeps going."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence

from blocks.errors import PlaceUnfit, RestoreRefused
from blocks.host.leftovers import is_full
from blocks.sources.files.reading.stats import parent
from blocks.sources.files.tree import shown
from blocks.sources.target import NotRebuilt

_NAMED, _TOLD = 3, 20
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

_OF_ONE_ATTRIBUTE = _OF_ONE_ENTRY | {errno.E2BIG, errno.EDQUOT, errno.ENOSPC, errno.ENOSYS, errno.ERANGE}
"""What it says of one attribute: file systems have little room for those of an entry."""


class Refusals:
    """The entries of one restore that are left out, and what is left out of others.

    Args:
        keep_going: Whether anything may be left out; else an entry is an error at once, and what entries lack is one
            in `check`.
    """

    def __init__(self, keep_going: bool) -> None:
        self._keep_going = keep_going
        self._reasons: dict[bytes, str] = {}
        self._bare: dict[bytes, str] = {}
        self._lost: dict[tuple[str, str], dict[bytes, None]] = {}

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

    def undress(self, path: bytes, error: OSError, *, visible: bool) -> None:
        """Leave an entry without its owner, mode or time, which the system refuses to set.

        Args:
            path: The entry.
            error: What the system said.
            visible: Whether others see the entry already, so that `check` would come too late.

        Raises:
            OSError: Nothing may be left out any more, or it is not this entry's fault.
        """
        if (visible and not self._keep_going) or error.errno not in _OF_ONE_ENTRY:
            raise error
        self._bare.setdefault(path, error.strerror or str(error))

    def lose_attribute(self, path: bytes, name: bytes, error: OSError, *, visible: bool) -> None:
        """Leave an entry without an extended attribute; the rest is as in `undress`."""
        if (visible and not self._keep_going) or error.errno not in _OF_ONE_ATTRIBUTE:
            raise error
        self._lost.setdefault((_attribute(name), error.strerror or str(error)), {})[path] = None

    def lacks_attribute(self, path: bytes, name: bytes) -> bool:
        """Whether an entry is left without an extended attribute."""
        what = _attribute(name)
        return any(path in paths for (kind, _), paths in self._lost.items() if kind == what)

    def lose_link(self, path: bytes, error: OSError) -> None:
        """Make an entry, which cannot be one more name of a file, a file of its own.

        Raises:
            OSError: It is not this entry's fault.
        """
        if error.errno not in _OF_ONE_ENTRY:
            raise error
        self._lost.setdefault(("hard link", error.strerror or str(error)), {})[path] = None

    def check(self, root: bytes) -> None:
        """Refuse, before the first change, where entries would lack something that may not be left out.

        Args:
            root: Path of the tree's root.

        Raises:
            RestoreRefused: It is named, with the reasons, or the first of it.
        """
        if self._keep_going or not (self._lost or self._bare):
            return
        lacking = self._lacking
        told = "; ".join(f"{left.name}: {left.reason}" for left in lacking[:_TOLD])
        more = f"; and {len(lacking) - _TOLD:,} more" if len(lacking) > _TOLD else ""
        raise RestoreRefused(
            f"not everything that the backup holds can be set in {shown(root)}: {told}{more}",
            hint="Restore as root, or to a file system that has it, with --to; --keep-going leaves it out.",
        )

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
        return [*self.entries, *self._lacking]

    @property
    def entries(self) -> list[NotRebuilt]:
        """The entries that are left out."""
        return [NotRebuilt(f"entry {shown(path)}", why) for path, why in sorted(self._reasons.items())]

    @property
    def _lacking(self) -> list[NotRebuilt]:
        """What entries lack: owner, mode or time one by one, attributes and links by their kind."""
        told = [
            NotRebuilt(f"owner, mode or time of {shown(path)}", why)
            for path, why in sorted(self._bare.items())
            if not self.holds(path)
        ]
        for (what, why), found in self._lost.items():
            if paths := [path for path in found if not self.holds(path)]:
                told.append(NotRebuilt(f"{what} of {_listed(paths)}", why, compared=False))
        return told


def refused_kind(error: OSError) -> type[RestoreRefused]:
    """Return what an error of the system is to a restore: one of the place where no room is left."""
    return PlaceUnfit if is_full(error) else RestoreRefused


def _attribute(name: bytes) -> str:
    return f"attribute {shown(name)}"


def _listed(paths: Sequence[bytes]) -> str:
    more = f" and {len(paths) - _NAMED:,} more" if len(paths) > _NAMED else ""
    return ", ".join(map(shown, paths[:_NAMED])) + more


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
