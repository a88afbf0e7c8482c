"""Classes by import path: which ones a value of a backup may name, and finding them again.

A manifest or a row must never make this process import code of somebody else's choice. So a class is looked up only
where its import path matches the plan's `types`, or lies in the package of the plan's own object.
"""

from __future__ import annotations

import importlib
from collections import Counter, OrderedDict, deque
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fnmatch import fnmatchcase
from fractions import Fraction
from threading import Lock
from types import MappingProxyType

from blocks.errors import RestoreRefused
from blocks.rows.without_pandas import know_pandas
from blocks.sources.mapping.running import FAILURES, told


def import_path(kind: type) -> str:
    """Name a class so that it can be found again: `package.module:Class.Inner`."""
    return f"{kind.__module__}:{kind.__qualname__}"


_PLAIN = (bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, object)
PLAIN_CLASSES: Mapping[str, type] = MappingProxyType(
    {import_path(kind): kind for kind in (*_PLAIN, OrderedDict, Counter, deque, Decimal, Fraction)}
)
"""Python's own classes that a value may name as a class: what a defaultdict makes, say."""


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
        know_pandas()
        try:
            found: object = importlib.import_module(module)
            for attribute in name.split("."):
                found = getattr(found, attribute)
        except FAILURES as exc:  # importing runs the user's code, which may raise anything
            raise RestoreRefused(
                f"the class {path} cannot be imported: {told(exc)}", hint="Install the version of the code that has it."
            ) from exc
        if not isinstance(found, type):
            raise RestoreRefused(f"{path} is not a class", hint="Install the version of the code that has it.")
        return found
