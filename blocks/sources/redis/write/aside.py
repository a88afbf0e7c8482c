"""What of a server could not be backed up before a restore, and so is not removed but gets another name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from blocks.errors import LastgoodError, RestoreRefused
from blocks.sources.redis.net.cluster import Cluster
from blocks.sources.redis.net.server import Server
from blocks.sources.redis.temporary_names import ASIDE
from blocks.sources.redis.write.temporary_keys import Names
from blocks.sources.view import Unread

_NAMED = 5


class Aside:
    """The keys that are kept aside, by the number of their database.

    Args:
        names: The temporary names of the restore.
    """

    def __init__(self, names: Names) -> None:
        self.names = names
        self._keys: dict[int, set[bytes]] = {}
        self.wholly: set[int] = set()
        """Databases of which any key is kept aside."""

    def take(self, unread: Sequence[Unread], number_of: Callable[[str], int], place: str) -> tuple[str, ...]:
        """Take what could not be read; return sentences that say what becomes of it.

        Raises:
            RestoreRefused: It is the server as a whole.
        """
        if whole := [each for each in unread if each.collection is None]:
            raise RestoreRefused(
                f"{place} cannot be read: {whole[0].reason}",
                hint="What is there would be in no backup. --without-emergency-backup restores all the same.",
            )
        for each in unread:
            number = number_of(each.collection or "")
            if each.key is None:
                self.wholly.add(number)
            else:
                self._keys.setdefault(number, set()).add(each.key.encode("utf-8", "surrogateescape"))
        return tuple(self._sentences(unread))

    def keys_of(self, number: int) -> Collection[bytes]:
        """Return the keys of a database that are kept aside."""
        return self._keys.get(number, frozenset())

    def names_of(self, number: int) -> Names:
        """Return the names for what is restored to a database."""
        everything = self.names.everything or number in self.wholly
        return replace(self.names, aside=frozenset(self.keys_of(number)), everything=everything)

    def notes(self, server: Server | Cluster, numbers: Collection[int]) -> Iterator[str]:
        """Yield what was moved aside, and where it is."""
        if not (self.names.everything or self._keys or self.wholly):
            return
        pattern = ASIDE + self.names.stamp.encode() + b":*"
        with suppress(LastgoodError):
            for number in sorted({*numbers, *self._keys, *self.wholly}):
                if kept := _count(server, number, pattern):
                    yield f"{kept} keys of database {number} were moved aside: {pattern.decode()}."

    def _sentences(self, unread: Sequence[Unread]) -> Iterator[str]:
        for each in unread[:_NAMED]:
            what = f"any key of {each.collection}" if each.key is None else f"key {each.key!r} of {each.collection}"
            yield (
                f"{what} cannot be read ({each.reason}); where the restore replaces or removes it, it is moved to "
                f"lastgood:aside:{self.names.stamp}:KEY."
            )
        if len(unread) > _NAMED:
            yield f"So are {len(unread) - _NAMED} others."


def _count(server: Server | Cluster, number: int, pattern: bytes) -> int:
    return len({key for node in server.nodes() for keys in node.names_of(number, pattern) for key in keys})
