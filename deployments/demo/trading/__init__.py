"""A small trading application that keeps writing: the state that the demo backs up, loses and gets back.

It is a program of its own that knows nothing of lastgood, as any application would be. Its ledger in SQLite and its
files are always there; it also keeps open orders and positions in a Redis, and the books in a PostgreSQL, where it is
given them. It obeys words on its standard input (`pause`, `resume`, `purge`, `retrain`, `stop`), each answered with a
line of JSON.

In each of the three an invariant holds in every committed state. A copy that mixes two moments breaks it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SYMBOLS = ("ACME", "BOLT", "CRUX", "DUNE", "ECHO", "FLUX", "GRIT", "HALO")


@dataclass(frozen=True)
class Places:
    """Where the application keeps its state.

    Attributes:
        folder: Its ledger, configuration and models.
        cache: The socket of a Redis; none where it has none.
        books: How libpq connects to a PostgreSQL; none where it has none.
    """

    folder: Path
    cache: Path | None = None
    books: str | None = None

    @property
    def ledger(self) -> Path:
        """The database in SQLite."""
        return self.folder / "ledger.db"
