"""Numbers of databases: as backups name them (`db0`), and as a server counts them, which may be others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from blocks.errors import ConfigurationError, RestoreRefused
from blocks.sources.redis.net.cluster import Cluster
from blocks.sources.redis.net.server import Server
from blocks.sources.redis.place import Place


@dataclass(frozen=True)
class Databases:
    """The databases of a source.

    Attributes:
        chosen: Their numbers, as backups name them, in order; None for all that there are.
        renumbered: Under which number one is found, where that is another.
    """

    chosen: list[int] | None
    renumbered: Mapping[int, int]

    @property
    def here(self) -> list[int] | None:
        """Their numbers, as the server counts them; None for all."""
        return None if self.chosen is None else [self._found_at(number) for number in self.chosen]

    def named(self, there: Iterable[int]) -> dict[str, int]:
        """Return the names of the collections, each with the server's number.

        Args:
            there: The numbers of the databases that hold keys.
        """
        numbers = sorted(there) if self.chosen is None else self.chosen
        return {f"db{number}": self._found_at(number) for number in numbers}

    def has(self, name: str) -> bool:
        """Whether a collection of a backup is among them."""
        return self.chosen is None or _number(name) in self.chosen

    def number_of(self, name: str) -> int:
        """Return the server's number of a collection."""
        return self._found_at(_number(name))

    def _found_at(self, number: int) -> int:
        return self.renumbered.get(number, number)

    def check(self, server: Server | Cluster) -> None:
        """Check that a server can have them.

        Raises:
            ConfigurationError: It is part of a cluster, which has only database 0.
        """
        if server.in_cluster and any(self.here or ()):
            raise ConfigurationError(
                f"{server} has only database 0, the plan names {', '.join(map(str, self.chosen or ()))}",
                hint="Leave `databases` out, and the number out of the URL.",
            )

    def destinations(self, names: Sequence[str], to: Place | None) -> Mapping[str, int]:
        """Say to which number each collection is restored.

        Args:
            names: The collections.
            to: The place that the user named; None for the live one.

        Raises:
            RestoreRefused: It names one database, and there are several collections.
        """
        if to is None or to.database is None:
            return {name: self.number_of(name) for name in names}
        if len(names) > 1:
            raise RestoreRefused(
                f"{', '.join(names)} cannot all go to database {to.database} of {to}",
                hint="Leave the number out of --to, or select one with --collection.",
            )
        return dict.fromkeys(names, to.database)


def _number(name: str) -> int:
    if not (name.startswith("db") and name[2:].isascii() and name[2:].isdigit()):
        raise RestoreRefused(f"collection {name!r} is no database of Redis", hint="The plan's source has another type.")
    return int(name[2:])
