"""What a source has to bring along to be tested: an adapter, in a file `adapters_<source>.py` beside this one.

Every concrete `SourceAdapter` in those files is found, and all tests here run with each.
"""

from __future__ import annotations

import importlib
import inspect
import os
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from blocks.sources.source import StateSource

Picture = dict[tuple[str, str], object]
"""State as it can be compared: by collection and key label, all there is to a record."""


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Unbuildable:
    """One object among others that a restore to the live place cannot rebuild.

    Attributes:
        name: How a restore that keeps going calls it, or what of that is sure.
        spoil: Makes it so, when the backup is made; what is there of it then is to stay.
        key: Under which a picture shows it and what is beneath it; None where pictures do not show it.
        rows: How many rows of the backup are not restored with it.
        blamed: What an error names where nothing may be left out; its name if that is empty.
    """

    name: str
    spoil: Callable[[], None] = _nothing
    key: tuple[str, str] | None = None
    rows: int = 0
    blamed: str = ""

    def concerns(self, key: tuple[str, str]) -> bool:
        """Whether a key of a picture is its own."""
        return self.key is not None and (key == self.key or key[1].startswith(f"{self.key[1]}/"))


class Cause(Enum):
    """Why a source fails, with words of which its hint has one, and words that would send people elsewhere."""

    DOWN = "server runs|server up|cluster up", "password|Grant|rights|empty"
    PASSWORD = "password", "server runs|server up|Grant|damaged|lock"
    RIGHTS = "Grant|ACL|may|access|rights", "password|server runs|server up|damaged|lock"
    MISSING = "path|`url`|`dsn`|`object`|package", "password|server up|Grant|lock"
    OBJECT = "", "password|server runs|server up|Grant|`path`|`url`|`dsn`|--to"
    """One record or collection is at fault, which no hint about the place would mend."""
    LOCKED = "busy_timeout|lock|Stop", "password|damaged|Grant|`path`"

    @property
    def fitting(self) -> str:
        """A pattern that a hint has to match."""
        return self.value[0]

    @property
    def misleading(self) -> str:
        """A pattern that a hint must not match."""
        return self.value[1]


@dataclass(frozen=True)
class Fault:
    """A source that fails.

    Attributes:
        cause: What is wrong with it.
        named: What its error has to name: the object that failed.
        source: The source; that of the live state where it is None.
        others: What its error must not name: objects that are well.
    """

    cause: Cause
    named: str
    source: StateSource | None = None
    others: tuple[str, ...] = ()


class SourceAdapter(ABC):
    """Live state of one kind that a test can change and look at; created for each test.

    Record keys are short texts such as `k:07` and `a:3`; their text must be the label that key globs are matched
    against. Anything more (odd types, several collections, keys that are no text) comes in with `fill` and `mutate`.

    Args:
        folder: An empty folder of the test's own.
        shared: What `share` gave.
    """

    name: ClassVar[str]
    """How pytest calls the source."""

    restores_as: ClassVar[str | None] = None
    """Another adapter that is restored by the same code; this one is left out where only that is tested."""

    def __init__(self, folder: Path, shared: Any) -> None:
        self.folder, self.shared = folder, shared
        self._places = 0

    @classmethod
    def share(cls, folder: Path) -> AbstractContextManager[Any]:
        """Open what all tests of a process share, a server for instance; the folder lives as long."""
        return nullcontext()

    @property
    @abstractmethod
    def source(self) -> StateSource:
        """The source block of the live state, with a part size so small that `fill` makes several parts.

        Each call gives an equal block; the state is there, and empty, from the start.
        """

    @abstractmethod
    def put(self, key: str, n: int) -> None:
        """Put a record under a key, new or over what is there; other numbers make other contents."""

    @abstractmethod
    def remove(self, key: str) -> None:
        """Delete the record of a key that was put."""

    @abstractmethod
    def picture(self, place: str | None = None) -> Picture:
        """Look at the live state, or at that of another place, with other means than the source's.

        A place that holds nothing gives an empty picture.
        """

    @abstractmethod
    def place(self) -> str:
        """Name another, empty place for `target(to=...)` and `at(...)`: a fresh one at each call."""

    def outside(self) -> str:
        """Name such a place that other processes see, too."""
        return self.place()

    @abstractmethod
    def unwritable(self) -> str:
        """Name a place that a restore has to refuse in its preflight."""

    @abstractmethod
    def spellings(self) -> list[str]:
        """Spell the live place in other ways, each a `to` of a restore."""

    @abstractmethod
    def narrowed(self) -> tuple[StateSource, Callable[[tuple[str, str]], bool]]:
        """Return the source of a plan that leaves out some of the state, and what that is as a key of a picture."""

    @abstractmethod
    def put_unbuildable(self) -> Unbuildable:
        """Put an object of which a restore to the live place will not take what a backup made now holds."""

    @abstractmethod
    def faults(self) -> Iterator[Fault]:
        """Yield the ways in which a source of this kind fails; each is mended when the next one is asked for."""

    def stranger(self) -> str | None:
        """Put what is not of the source's kind at another place, and name it; None where places hold nothing else."""
        return None

    def kept_aside(self, notes: Sequence[str]) -> list[object]:
        """Return the records, as a picture shows them, that a restore's notes say were kept aside."""
        return []

    def add_collection(self) -> str | None:
        """Add a collection with records, and return its name; None for a source that has but one."""
        return None

    def empty_collection(self, name: str) -> None:  # noqa: B027  most sources have one collection
        """Delete the records of such a collection."""

    def drop_collection(self, name: str) -> None:  # noqa: B027  most sources have one collection
        """Drop such a collection."""

    def leftovers(self) -> set[str]:
        """Name the temporary places of lastgood that there are, of restores to the live place or to another one."""
        inside = [Path(os.environ.get("TMPDIR", "/tmp")), self.folder]
        return {str(path) for folder in inside for path in folder.rglob("*lastgood*")}

    def essence(self, rows: pa.Table) -> pa.Table:
        """Leave out rows that depend on where parts begin, where a source has such."""
        return rows

    def settle(self) -> None:  # noqa: B027  most sources need none
        """Make changes made so far look old, where a source trusts its change token only after a while."""

    def close(self) -> None:  # noqa: B027  most adapters hold nothing
        """End what the adapter opened."""

    def fill(self, rng: random.Random) -> None:
        """Make a state of several parts. Widen it with what is odd about the source."""
        for n in range(60):
            self.put(f"{'kab'[n % 3]}:{n:02d}", rng.randrange(10**6))

    def clear(self) -> None:
        """Delete every record."""
        for _, key in list(self.picture()):
            self.remove(key)

    def mutate(self, rng: random.Random) -> None:
        """Add, change, move and delete some records. Widen it with what else can happen to the source."""
        keys = sorted(self.put_keys())
        for key in rng.sample(keys, min(3, len(keys))):
            self.put(key, rng.randrange(10**6))
        for key in rng.sample(keys, min(3, len(keys))):
            self.remove(key)
        for _ in range(3):
            self.put(f"{rng.choice('kabz')}:{rng.randrange(100):02d}", rng.randrange(10**6))

    def put_keys(self) -> list[str]:
        """Return the keys of records that `put` made and that `put` and `remove` may be called with."""
        return [key for _, key in self.picture() if key[1:2] == ":" and key[2:].isdigit()]


class PathAdapter(SourceAdapter):
    """Adapts a source whose places are paths of files or folders, where anything may be."""

    def stranger(self) -> str:
        path = self.folder / "stranger"
        path.write_text("precious")
        return str(path)


def adapters() -> Iterator[type[SourceAdapter]]:
    """Find the adapters of all sources."""
    for path in sorted(Path(__file__).parent.glob("adapters_*.py")):
        module = importlib.import_module(f"tests.conformance.{path.stem}")
        for _, found in sorted(inspect.getmembers(module, inspect.isclass)):
            if (
                issubclass(found, SourceAdapter)
                and not inspect.isabstract(found)
                and found.__module__ == module.__name__
            ):
                yield found


def selected(picture: Picture, globs: tuple[str, ...]) -> Picture:
    """Keep the records whose labels match one of the globs."""
    return {key: value for key, value in picture.items() if any(fnmatchcase(key[1], glob) for glob in globs)}


def beside(picture: Picture, globs: tuple[str, ...]) -> Picture:
    """Keep the other records."""
    return {key: value for key, value in picture.items() if key not in selected(picture, globs)}
