"""What a restored entry gets beside its content: owner, extended attributes, mode and times."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Mapping

from pydantic import JsonValue

from blocks.sources.files.cover import ATTRIBUTES
from blocks.sources.files.entries import Entries
from blocks.sources.files.reading.xattrs import ACCESS_LIST, CAPABILITY, DEFAULT_LIST, decode, look_at
from blocks.sources.files.refusals import Refusals
from blocks.sources.files.rows import LINK
from blocks.sources.files.tree import shown

_ANYWHERE_FROM, _ANYWHERE_BEFORE = -(1 << 31) * 1_000_000_000, (1 << 31) * 1_000_000_000
_LISTS = frozenset((ACCESS_LIST.encode(), DEFAULT_LIST.encode()))
_OF_THE_OWNER = _LISTS | {CAPABILITY.encode()}
_PROBE = b"probe"
_TRUSTED = "trusted."

Wanted = Mapping[bytes, bytes]
"""Extended attributes: values by full names."""


class Dresser:
    """Dresses the entries of one restore.

    Args:
        refusals: Takes what the place refuses to set.
    """

    def __init__(self, refusals: Refusals) -> None:
        self._refusals = refusals
        self._undressed = self._mistimed = 0

    def dress(self, name: bytes | int, folder: int | None, entries: Entries, i: int) -> None:
        """Set owner, attributes, mode and times of an entry.

        In this order: a change of owner clears setuid and capabilities, and a mode may forbid to set attributes; but
        an access list says itself what the mode is.

        Args:
            name: Name in an open folder, or the descriptor of a folder.
            folder: Descriptor of the folder; None where `name` is one.
            entries: The entries of the restore.
            i: Which of them it is.

        Raises:
            OSError: The system refused something of a folder that others see, where nothing may be left out; or the
                disk fails.
        """
        path, link, moment = entries.paths[i], entries.kinds[i] == LINK, entries.mtime_ns[i]
        owner, group = _give_back(name, folder, entries.uid[i], entries.gid[i], follow=not link)
        wanted, whole = _harmless(entries.attributes.get(path, {}), owner=owner and group)
        # what is staged was made in a folder that hands nothing on
        there = decode(look_at(name).kept) if isinstance(name, int) and entries.knows_attributes else {}
        others = [one for one in {**there, **wanted} if one not in _LISTS] if there or wanted else ()
        lists = [one for one in {**there, **wanted} if one in _LISTS] if there or wanted else ()
        place = b"/proc/self/fd/%d/%b" % (folder, name) if folder is not None and isinstance(name, bytes) else name
        try:
            self._bring(place, path, others, there, wanted)
            if not link and entries.mode[i] >= 0:
                os.chmod(name, _without_owner(entries.mode[i] & 0o7777, owner=owner, group=group), dir_fd=folder)
                there = {one: value for one, value in there.items() if one not in wanted}  # a mode changes lists
            self._bring(place, path, lists, there, wanted)
            lists = ()
            os.utime(name, ns=(moment, moment), dir_fd=folder, follow_symlinks=not link)
        except OSError as exc:
            if not (isinstance(exc, PermissionError) and _belongs_to_others(name)):
                self._refusals.undress(path, exc, visible=folder is None)
                for one in lists:  # which make a mode wider, and come after it only
                    if there.get(one) != wanted.get(one):
                        self._refusals.lose_attribute(path, one, exc, visible=folder is None)
                return
            whole = False  # a folder that was there and is somebody else's
        self._undressed += not (owner and group and whole)
        self._mistimed += not _has_time(name, folder, moment)

    def _bring(self, place: int | bytes, path: bytes, names: Iterable[bytes], there: Wanted, wanted: Wanted) -> None:
        """Set and remove attributes; what fails is remembered."""
        for name in names:
            if there.get(name) == wanted.get(name) or self._refusals.lacks_attribute(path, name):
                continue
            try:
                _put(place, name, wanted.get(name))
            except OSError as exc:
                self._refusals.lose_attribute(path, name, exc, visible=isinstance(place, int))

    def foresee(self, folder: int | None, staging: int, entries: Entries, i: int) -> None:
        """Find out before the first change which attributes of a folder cannot be set.

        Args:
            folder: Descriptor of the folder, where it is there.
            staging: Descriptor of a folder on the same file system to try it in.
            entries: The entries of the restore.
            i: Which of them it is.
        """
        path = entries.paths[i]
        wanted: Wanted = entries.attributes.get(path, {})
        if folder is not None and _belongs_to_others(folder):
            if entries.knows_attributes:
                wanted, _ = _harmless(wanted, owner=os.fstat(folder).st_uid == entries.uid[i])
                there = decode(look_at(folder).kept)
                for name in {**there, **wanted}:
                    if there.get(name) != wanted.get(name):
                        error = PermissionError(errno.EPERM, "the folder belongs to somebody else")
                        self._refusals.lose_attribute(path, name, error, visible=False)
        elif wanted:
            for name, failed in unsettable(staging, wanted).items():
                self._refusals.lose_attribute(path, name, failed, visible=False)

    @property
    def notes(self) -> list[str]:
        """What is not as it was backed up, in sentences."""
        told = []
        if self._undressed:
            told.append(
                f"{self._undressed} entries did not get back their owner, group, access list or all of their mode, "
                "which takes more rights; nobody may do more with them than before."
            )
        if self._mistimed:
            told.append(f"{self._mistimed} entries have another time: this file system does not hold theirs.")
        return told


def unsettable(inside: int | bytes, wanted: Wanted) -> dict[bytes, OSError]:
    """Try attributes on a folder made for it; return those that could not be set, with the errors.

    Args:
        inside: Path, or descriptor, of a folder in which nothing is called `probe`.
        wanted: The attributes.

    Raises:
        OSError: No folder can be made there.
    """
    place = b"/proc/self/fd/%d" % inside if isinstance(inside, int) else inside
    probe = os.path.join(place, _PROBE)
    os.mkdir(probe, 0o700)
    failed = {}
    try:
        for name, value in sorted(wanted.items()):
            try:
                _put(probe, name, value)
            except OSError as exc:
                failed[name] = exc
    finally:
        os.rmdir(probe)
    return failed


def foretold(place: bytes, definition: Mapping[str, JsonValue]) -> list[str]:
    """Say, without writing anything, which of a backup's attributes cannot be set at a place.

    Args:
        place: A folder on the file system that is restored to.
        definition: The backup's definition of the source.
    """
    kinds = definition.get(ATTRIBUTES)
    failing = {}
    for kind in kinds if isinstance(kinds, list) else ():
        if os.geteuid() != 0 and kind in (CAPABILITY, _TRUSTED):
            failing[str(kind)] = "takes root"
        elif not _knows(place, str(kind)):
            failing[str(kind)] = os.strerror(errno.ENOTSUP)
    if not failing:
        return []
    told = ", ".join(f"{kind}{'*' * kind.endswith('.')}: {reason}" for kind, reason in sorted(failing.items()))
    return [
        f"Attributes of the backup cannot be set in {shown(place)} ({told}): a restore of entries that have them is "
        "refused, or leaves them out with --keep-going."
    ]


def _knows(place: bytes, kind: str) -> bool:
    if not hasattr(os, "getxattr"):
        return False
    try:
        os.getxattr(place, f"{kind}lastgood" if kind.endswith(".") else kind)
    except OSError as exc:
        return exc.errno not in (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
    return True


def _put(place: int | bytes, name: bytes, value: bytes | None) -> None:
    """Set an attribute, or remove it where the value is None; a folder that its owner may not write to is opened up."""
    follow = isinstance(place, int)
    if not hasattr(os, "setxattr"):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
    try:
        _put_once(place, name, value, follow=follow)
    except PermissionError:
        if not isinstance(place, int) or _belongs_to_others(place):
            raise
        os.fchmod(place, stat.S_IMODE(os.fstat(place).st_mode) | 0o700)  # it is about to get its mode
        _put_once(place, name, value, follow=follow)


def _put_once(place: int | bytes, name: bytes, value: bytes | None, *, follow: bool) -> None:
    if value is not None:
        os.setxattr(place, name, value, follow_symlinks=follow)
        return
    try:
        os.removexattr(place, name, follow_symlinks=follow)
    except OSError as exc:
        if exc.errno != errno.ENODATA:
            raise


def _harmless(wanted: Wanted, *, owner: bool) -> tuple[Wanted, bool]:
    """Leave out what would give others rights where owner or group could not be given back; say whether all is left."""
    if owner or not wanted:
        return wanted, True
    kept = {name: value for name, value in wanted.items() if name not in _OF_THE_OWNER}
    return kept, len(kept) == len(wanted)


def _belongs_to_others(name: bytes | int) -> bool:
    return isinstance(name, int) and os.geteuid() not in (0, os.fstat(name).st_uid)


def _has_time(name: bytes | int, folder: int | None, mtime_ns: int) -> bool:
    """Whether an entry got the time that it was given; asked only of years that not all file systems hold."""
    if _ANYWHERE_FROM <= mtime_ns < _ANYWHERE_BEFORE:
        return True
    status = os.fstat(name) if isinstance(name, int) else os.lstat(name, dir_fd=folder)
    return status.st_mtime_ns == mtime_ns


def _give_back(name: bytes | int, folder: int | None, uid: int, gid: int, *, follow: bool) -> tuple[bool, bool]:
    """Set owner and group as far as possible; return which of them it has now.

    Where one cannot be restored, neither the new nor the old one may do more than before.
    """
    if os.geteuid() == 0 and uid >= 0:
        with contextlib.suppress(OSError):  # in a container without the right to, or the owner is not known
            os.chown(name, uid, gid, dir_fd=folder, follow_symlinks=follow)
            return True, True
    status = os.fstat(name) if isinstance(name, int) else os.lstat(name, dir_fd=folder)
    if gid >= 0 and status.st_gid != gid:
        try:
            os.chown(name, -1, gid, dir_fd=folder, follow_symlinks=follow)
        except OSError:
            return status.st_uid == uid or uid < 0, False
    return status.st_uid == uid or uid < 0, True


def _without_owner(mode: int, *, owner: bool, group: bool) -> int:
    if not (owner and group):
        mode &= 0o777
    if not group:  # its members are others now, and others may be its members
        both = mode >> 3 & mode & 7
        mode = mode & 0o700 | both << 3 | both
    return mode
