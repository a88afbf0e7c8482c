"""Globs over the paths of a tree, as gitignore means them; and as backups of older versions meant theirs."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from typing import Protocol

from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

_WILD = re.compile(r"[*?\[\\]")
_SEVERAL = re.compile(r"\*{2,}")
_NEWLINE = "\udc0a"  # no name holds it, and a regular expression gives it no meaning


class Globs(Protocol):
    """A list of globs, the last one that matches decides."""

    def decide(self, path: bytes, folder: bool) -> bool | None:
        """Return True where a path is matched, False where it is excepted (`!`), None where no glob says anything.

        What a glob says of a folder it says of all beneath; so ask for folders from the root down.
        """
        ...

    def may_lead(self, folder: bytes, *, names: bool = True) -> bool:
        """Whether something that is matched may lie beneath a folder, as far as the globs alone say.

        Args:
            folder: Relative path of the folder.
            names: Also for the sake of plain names, which may lie in any folder.
        """
        ...

    @property
    def tell_folders(self) -> bool:
        """Whether a glob matches a folder, and would not match a file of the same name."""
        ...


class GitGlobs:
    """Globs as gitignore has them.

    Args:
        globs: One glob each.

    Raises:
        ValueError: A glob names nothing; the message is the glob.
    """

    def __init__(self, globs: Sequence[str]) -> None:
        self._globs = [_Glob(glob) for glob in globs]
        self.tell_folders = any(glob.folders_only for glob in self._globs)

    def decide(self, path: bytes, folder: bool) -> bool | None:
        """Ask the last glob that matches."""
        names = _text(path).split("/")
        return next((not glob.excepts for glob in reversed(self._globs) if glob.matches(names, folder)), None)

    def may_lead(self, folder: bytes, *, names: bool = True) -> bool:
        """Compare the names of a folder and those above it with those that the globs begin with."""
        path = _text(folder).split("/")
        return any(glob.may_lead(path, names=names) for glob in self._globs if not glob.excepts)


class _Glob:
    """One line of a gitignore: the library says what matches a name, and this what the slashes mean.

    The library's own answer for whole paths mixes up what a line says of an entry with what it says of a folder above.
    """

    def __init__(self, glob: str) -> None:
        line = _stripped(_anchored(glob).replace("\n", _NEWLINE))
        self.excepts = line.startswith("!")
        body = line.removeprefix("!")
        self.folders_only = body.endswith("/")
        body = body.rstrip("/")
        self._floats = "/" not in body
        self._plain = self._floats and not _WILD.search(body)
        parts = body.removeprefix("/").split("/")
        if line.startswith("#") or any(part in ("", ".", "..") for part in parts):
            raise ValueError(glob)
        # None for any number of folders
        self._parts = [
            None if _SEVERAL.fullmatch(part) else _name(part, glob) for part in ["**"] * self._floats + parts
        ]

    def matches(self, names: Sequence[str], folder: bool) -> bool:
        """Whether it matches an entry, given by its name and those of the folders above it, from the root down."""
        if self.folders_only and not folder:
            return False
        if self._floats:
            return _is(self._parts[-1], names[-1])
        return _fit(self._parts, names)

    def may_lead(self, folder: Sequence[str], *, names: bool) -> bool:
        """Whether it may match an entry beneath a folder."""
        if self._floats:
            return names or not self._plain
        for part, name in zip(self._parts, folder, strict=False):
            if part is None:
                return True
            if not _is(part, name):
                return False
        return len(folder) < len(self._parts)


def _name(part: str, glob: str) -> GitIgnoreSpecPattern:
    # as a folder, so that no blank at its end is taken for one at the end of the line
    pattern = GitIgnoreSpecPattern(f"/{part}/")
    if pattern.include is None:
        raise ValueError(glob)
    return pattern


def _is(part: GitIgnoreSpecPattern | None, name: str) -> bool:
    return part is None or part.match_file(f"{name}/") is not None


def _fit(parts: Sequence[GitIgnoreSpecPattern | None], names: Sequence[str]) -> bool:
    """Whether all names are matched by all parts, where None stands for any names; at the end, for at least one."""
    if not parts or not names:
        return not parts and not names
    if parts[0] is not None:
        return _is(parts[0], names[0]) and _fit(parts[1:], names[1:])
    return len(parts) == 1 or any(_fit(parts[1:], names[count:]) for count in range(len(names)))


class OldGlobs:
    """Globs of backups made before globs meant what gitignore means: `*` matches `/`, all begin at the root.

    Args:
        globs: One glob each.
    """

    tell_folders = False

    def __init__(self, globs: Sequence[str]) -> None:
        cleaned = [glob.removeprefix("./").rstrip("/") for glob in globs]
        self._pattern = re.compile("|".join(map(fnmatch.translate, cleaned)))
        self._beginnings = [re.split(r"[*?\[]", glob, maxsplit=1)[0] for glob in cleaned]

    def decide(self, path: bytes, folder: bool) -> bool | None:
        """Ask any glob."""
        return True if self._pattern.match(path.decode("utf-8", "surrogateescape")) else None

    def may_lead(self, folder: bytes, *, names: bool = True) -> bool:
        """Compare the beginnings of the globs."""
        inside = folder.decode("utf-8", "surrogateescape") + "/"
        return any(inside.startswith(start) or start.startswith(inside) for start in self._beginnings)


def _anchored(glob: str) -> str:
    """Write a glob that begins with `./`, as paths on a command line do, as gitignore writes it: with `/`."""
    sign = "!" * glob.startswith("!")
    body = glob.removeprefix(sign)
    return f"{sign}/{body.removeprefix('./')}" if body.startswith("./") else glob


def _stripped(line: str) -> str:
    """Take away blanks at the end, but for one that is escaped."""
    bare = line.rstrip()
    return bare + line[len(bare) : len(bare) + 1] if bare.endswith("\\") else bare


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape").replace("\n", _NEWLINE)
