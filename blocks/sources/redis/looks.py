"""The ways to look at a server: at what it holds now, at one moment of it, or at what changed until a moment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from blocks.errors import ConfigurationError
from blocks.sources.base import Bounds, View
from blocks.sources.redis.cluster import Cluster
from blocks.sources.redis.moment import MomentReader, MomentView
from blocks.sources.redis.private import Program
from blocks.sources.redis.rdb.layout import UnknownForm
from blocks.sources.redis.server import Server
from blocks.sources.redis.shards import moment_of, taken_of
from blocks.sources.redis.since import SinceView, moment_since
from blocks.sources.redis.view import Holder, RedisView, spec_of


@dataclass(frozen=True)
class Looks:
    """What all ways have in common.

    Attributes:
        folder: Where goes what does not fit into memory.
        numbers: Gives the number of each database by the name of its collection: of those chosen, or else of those
            that there are.
        patterns: Globs of Redis that keys have to match.
        part_size_bytes: What parts are drawn for.
        definition: What a restore has to know.
        program: What private servers are.
        tracked: Whether servers may be asked what was written since a base.
    """

    folder: Path
    numbers: Callable[[Iterable[int]], dict[str, int]]
    patterns: Sequence[str]
    part_size_bytes: int
    definition: Bounds
    program: Program
    tracked: bool

    def live(
        self, server: Holder, taken_at: datetime | None, system: str, put_off_ms: int = 0, tracked: bool = False
    ) -> RedisView:
        """Look at what a server holds now, key by key.

        Args:
            server: A server, or a whole cluster.
            taken_at: The moment whose state is seen.
            system: How the manifest calls the server.
            put_off_ms: By how much expiries were put off in this place.
            tracked: Whether it is asked what was written since a base: no server of our own is.
        """
        return RedisView(
            server,
            self.numbers(server.keyspace()),
            self.patterns,
            self.folder,
            self.part_size_bytes,
            taken_at,
            system,
            self.definition,
            put_off_ms,
            tracked and self.tracked,
        )

    def moment(self, server: Server | Cluster, system: str, opened: ExitStack) -> View:
        """Look at one moment of a server, or of each master of a cluster.

        Args:
            server: Which one.
            system: How the manifest calls it.
            opened: Ends what the look needs.

        Raises:
            ConfigurationError: The user may not replicate, or there is no server program where one is needed.
            SourceUnavailable: A server refused, went away before the end, or sent what is damaged.
            SourceChanged: Slots moved between nodes, or a node was replaced.
        """
        taken_at = datetime.now(UTC)
        reader = MomentReader(self.folder, self.numbers(()), self.patterns, self.tracked)
        try:
            moment = moment_of(server, reader)
        except UnknownForm:
            # a server that knows its form reads it, which is a moment of its own, a little later
            taken_at = datetime.now(UTC)
            return self.live(opened.enter_context(taken_of(server, self.folder, self.program)), taken_at, system)
        databases = self.numbers(moment.rows)
        return MomentView(moment, databases, self.patterns, self.part_size_bytes, taken_at, system, self.definition)

    def since(self, token: str, server: Server, system: str, opened: ExitStack) -> View | None:
        """Look at what changed in a server until a moment; None where its history does not tell, or does not rest.

        Args:
            token: Of the base.
            server: Which one.
            system: How the manifest calls it.
            opened: Ends what the look needs.
        """
        reached = moment_since(server, lambda: self.numbers(server.keyspace()), self.patterns, self.folder, token)
        if reached is None:
            return None
        row_bytes = self.live(server, reached.taken_at, system).row_bytes
        try:
            sizes = {name: row_bytes(name) for name in reached.databases if reached.has(name)}
        except ConfigurationError:  # the user may not list keys
            return None
        return SinceView(
            reached,
            token,
            [spec_of(name, self.patterns) for name in reached.databases],
            self.part_size_bytes,
            system,
            self.definition,
            sizes,
            lambda: self.moment(server, system, opened),
        )
