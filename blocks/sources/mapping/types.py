"""Classes by import path: which ones a value of a backup may name, and finding them again.

A manifest or a row must never make this process import code of somebody else's choice. So a class is looked up only
where its import path matches the plan's `types`, or lies in the package of the plan's own object.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from threading import Lock

from blocks.errors import RestoreRefused


def import_path(kind: type) -> str:
    """Name a class so that it can be found again: `package.module:Class.Inner`."""
    return f"{kind.__module__}:{kind.__qualname__}"


class Types:
    """The classes that values may be instances of, beside Python's own.

    Args:
        home: A package whose classes are allowed, those of modules inside it included.
        globs: Import paths (`package.module:Class`) that are allowed too.
    """

    def __init__(self, home: str, globs: Sequence[str]) -> None:
        self._home, self._globs = home, tuple(globs)
        self._found: dict[str, type] = {}
        self._lock = Lock()

    def allows(self, path: str) -> bool:
        """Whether a class may be named, by its import path."""
        module = path.partition(":")[0]
        inside = bool(self._home) and (module == self._home or module.startswith(f"{self._home}."))
        return inside or any(fnmatchcase(path, glob) for glob in self._globs)

    def returns(self, kind: type) -> bool:
        """Whether a class is what its import path leads to; one made inside a function is not."""
        try:
            return self.find(import_path(kind)) is kind
        except RestoreRefused:
            return False

    def find(self, path: str) -> type:
        """Return the class of an import path.

        Raises:
            RestoreRefused: It is not allowed, or is not there.
        """
        with self._lock:
            if path not in self._found:
                self._found[path] = self._import(path)
            return self._found[path]

    def _import(self, path: str) -> type:
        if not self.allows(path):
            raise RestoreRefused(
                f"the backup holds a {path}, which this plan does not allow to be imported",
                hint="If you know and trust that class, add its import path to the source's `types`.",
            )
        module, _, name = path.partition(":")
        try:
            found: object = importlib.import_module(module)
            for attribute in name.split("."):
                found = getattr(found, attribute)
        except Exception as exc:  # importing runs the user's code, which may raise anything
            raise RestoreRefused(
                f"the class {path} cannot be imported: {exc}", hint="Install the version of the code that has it."
            ) from exc
        if not isinstance(found, type):
            raise RestoreRefused(f"{path} is not a class", hint="Install the version of the code that has it.")
        return found
