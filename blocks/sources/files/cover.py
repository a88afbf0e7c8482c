"""Which entries of a tree count: what the plan says, what a backup says it covered, and what belongs to others."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pydantic import JsonValue

from blocks.errors import CorruptionDetected
from blocks.sources.files.globs import GitGlobs, Globs, OldGlobs

Identity = tuple[int, int]
"""Device and inode."""


GLOBS = "gitignore"
"""In a backup's definition: what its globs mean."""

ATTRIBUTES = "attributes"
"""In a backup's definition: the kinds of extended attributes that its entries have."""


@dataclass(frozen=True)
class Rules:
    """Which entries of a tree count.

    An entry is covered by a glob that matches it or a folder above it. Excluded entries never count. With `include`,
    only covered entries count, and the folders that lead to them.

    Attributes:
        include: Globs of what counts; empty for everything.
        exclude: Globs of what does not.
        old: Whether they are of a backup made before globs meant what gitignore means.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    old: bool = False

    @cached_property
    def included(self) -> Globs | None:
        """The globs of `include`; None where there are none."""
        return self._compiled(self.include)

    @cached_property
    def excluded(self) -> Globs | None:
        """The globs of `exclude`; None where there are none."""
        return self._compiled(self.exclude)

    def _compiled(self, globs: Sequence[str]) -> Globs | None:
        return (OldGlobs if self.old else GitGlobs)(globs) if globs else None

    @property
    def tell_folders(self) -> bool:
        """Whether it matters if an entry is a folder."""
        return any(globs is not None and globs.tell_folders for globs in (self.included, self.excluded))

    def step(self, path: bytes, above: bool | None, *, folder: bool) -> bool | None:
        """Return True for covered, False for left out with all beneath, None for neither.

        Args:
            path: A relative path.
            above: What this said of the folder that it is in, which is not False.
            folder: Whether it is a folder.
        """
        if self.excluded is not None and self.excluded.decide(path, folder):
            return False
        decided = self.included.decide(path, folder) if self.included is not None else None
        return (above or None) if decided is None else (decided or None)

    def may_lead(self, folder: bytes, *, names: bool = True) -> bool:
        """Whether something that `include` covers may lie beneath a folder; `names` as in `Globs`."""
        return self.included is not None and self.included.may_lead(folder, names=names)


@dataclass(frozen=True)
class Coverage:
    """What of a tree is the source's.

    Attributes:
        rules: The globs that include and exclude entries.
        one_file_system: List mount points, but not what is in them.
        left_out: Resolved paths that are never listed, read, written or deleted, with all beneath them.
        protected: Resolved paths of files that are read, but never written or deleted by a restore in place.
    """

    rules: Rules = Rules()
    one_file_system: bool = False
    left_out: tuple[Path, ...] = ()
    protected: tuple[Path, ...] = ()


class Judge:
    """Decides whether relative paths are covered; remembers the folders that it was asked about.

    Args:
        rules: The globs that include and exclude entries.
        left_out: Relative paths that do not, with all beneath them.
    """

    def __init__(self, rules: Rules, left_out: Iterable[bytes] = ()) -> None:
        self._rules = rules
        self._left_out = frozenset(left_out)
        self._folders: dict[bytes, bool | None] = {b"": None if rules.include else True}

    def covers(self, path: bytes, *, folder: bool | None = None) -> bool:
        """Whether a path is covered by itself or by a folder above it.

        Args:
            path: A relative path.
            folder: Whether it is a folder; None where that is not known, then it has to be covered as either.
        """
        if folder is None and self._rules.tell_folders:
            return self._state(path, folder=True) is True and self._state(path, folder=False) is True
        return self._state(path, folder=bool(folder)) is True

    def may_lead(self, path: bytes) -> bool:
        """Whether a path is none that counts, but may be a folder that leads to one."""
        return self._state(path, folder=True) is None and (not path or self._rules.may_lead(path))

    def _state(self, path: bytes, *, folder: bool) -> bool | None:
        """Return what `Rules.step` says of a path in the light of all folders above it."""
        if not path or (folder and path in self._folders):
            return self._folders[path]
        above = path.rpartition(b"/")[0]
        if above not in self._folders:
            names = above.split(b"/")
            for count in range(1, len(names) + 1):
                self._state(b"/".join(names[:count]), folder=True)
        state = self._folders[above]
        if state is not False:
            state = False if path in self._left_out else self._rules.step(path, state, folder=folder)
        if folder:
            self._folders[path] = state
        return state


def relative_to(root: bytes, paths: Sequence[Path]) -> list[bytes]:
    """Say of resolved paths where they lie beneath a resolved root; those elsewhere are left out."""
    inside = [(os.fsencode(path), root.rstrip(b"/") + b"/") for path in paths]
    return [path[len(start) :] for path, start in inside if path.startswith(start)]


@dataclass(frozen=True)
class LeftOut:
    """Places in a tree that belong to somebody else, known by what they are and by where they are.

    Attributes:
        identities: Of those that are there.
        names: Names in a folder, by the folder's identity: an entry that comes to be there is left out, too.
    """

    identities: frozenset[Identity] = frozenset()
    names: Mapping[Identity, frozenset[bytes]] = field(default_factory=dict)

    @classmethod
    def of(cls, paths: Sequence[Path]) -> LeftOut:
        """Look at paths, which need not be there."""
        found: set[Identity] = set()
        names: dict[Identity, frozenset[bytes]] = {}
        for path in paths:
            real = os.path.realpath(path)
            if (own := identity(real)) is not None:
                found.add(own)
            if (above := identity(os.path.dirname(real))) is not None:
                names[above] = names.get(above, frozenset()) | {os.fsencode(os.path.basename(real))}
        return cls(frozenset(found), names)


def identity(path: str | bytes) -> Identity | None:
    """Return device and inode of what is at a path; None where nothing is."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return (status.st_dev, status.st_ino)


def is_old(definition: Mapping[str, JsonValue]) -> bool:
    """Whether the globs of a backup's definition mean what they meant before they meant what gitignore means."""
    return definition.get("globs") != GLOBS


def definition_of(
    cover: Coverage, left_out: Iterable[bytes], skipped: Iterable[bytes], attributes: Iterable[str] = ()
) -> dict[str, JsonValue]:
    """Write down what a backup does not cover, and what its restore asks of a place; nothing where that is nothing.

    Args:
        cover: The entries of the tree that the plan covers.
        left_out: Relative paths that belong to others.
        skipped: Relative paths of files that kept changing.
        attributes: The kinds of extended attributes that entries have.
    """
    said: dict[str, JsonValue] = {
        "include": list(cover.rules.include),
        "exclude": list(cover.rules.exclude),
        "one_file_system": cover.one_file_system,
        "left_out": [path.hex() for path in sorted({*left_out, *skipped})],
        ATTRIBUTES: list(attributes),
    }
    if cover.rules.include or cover.rules.exclude:
        said["globs"] = GLOBS
    return {name: value for name, value in said.items() if value}


def backed_up(definition: Mapping[str, JsonValue], cover: Coverage) -> tuple[Judge, bool]:
    """Read what `definition_of` wrote: what the backup covered, and whether it entered mount points.

    A backup that does not say counts as covering what the plan covers now.

    Raises:
        CorruptionDetected: It is something else.
    """
    include, exclude, left_out = (definition.get(name) or [] for name in ("include", "exclude", "left_out"))
    if not all(isinstance(value, list) for value in (include, exclude, left_out)) or not (
        definition.keys() - {ATTRIBUTES}
    ):
        return Judge(cover.rules), not cover.one_file_system
    texts = [
        tuple(str(value) for value in values) for values in (include, exclude, left_out) if isinstance(values, list)
    ]
    rules = Rules(texts[0], texts[1], old=is_old(definition))
    try:
        paths = [bytes.fromhex(text) for text in texts[2]]
        _ = rules.included, rules.excluded
    except ValueError as exc:
        raise CorruptionDetected("a backup of a tree names what it left out in a way that no backup does") from exc
    return Judge(rules, paths), not definition.get("one_file_system")
