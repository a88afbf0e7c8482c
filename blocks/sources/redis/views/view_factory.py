"""The view factory: a live view of a server, a snapshot view, or a view of its replication backlog."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from blocks.errors import ConfigurationError
from blocks.sources.collection import Bounds
from blocks.sources.redis.functions import Libraries, libraries_of
from blocks.sources.redis.net.cluster import Cluster, check_only_first
from blocks.sources.redis.net.private_server import Program
from blocks.sources.redis.net.server import Server
from blocks.sources.redis.net.standing import CURRENT, Standing
from blocks.sources.redis.rdb.layout import UnknownForm
from blocks.sources.redis.views.backlog_view import BacklogView, reach_snapshot
from blocks.sources.redis.views.shards import private_copy_of, snapshot_of
from blocks.sources.redis.views.snapshot_view import SnapshotReader, SnapshotView
from blocks.sources.redis.views.view import Holder, RedisView, ViewSettings, spec_of
from blocks.sources.view import View


@dataclass(frozen=True)
class ViewFactory:
    """Makes views of a server; holds what all of them share.

    Attributes:
        folder: Where goes what does not fit into memory.
        numbers: Gives the number of each database by the name of its collection: of those chosen, or else of those
            that there are.
        patterns: Globs of Redis that keys have to match.
        part_size_bytes: Size that parts are partitioned for, in bytes of Arrow data.
        definition: What a restore has to know.
        program: The program that private servers run.
        tracked: Whether servers may be asked what was written since a base.
        standing: How far behind its master the server is.
    """

    folder: Path
    numbers: Callable[[Iterable[int]], dict[str, int]]
    patterns: Sequence[str]
    part_size_bytes: int
    definition: Bounds
    program: Program
    tracked: bool
    standing: Standing = CURRENT

    def live_view(
        self,
        server: Holder,
        taken_at: datetime | None,
        system: str,
        put_off_ms: int = 0,
        tracked: bool = False,
        kind: type[RedisView] = RedisView,
    ) -> RedisView:
        """Open a view of what a server holds now, key by key.

        Args:
            server: A server, or a whole cluster.
            taken_at: The moment whose state is seen.
            system: How the manifest calls the server.
            put_off_ms: By how much expiries were put off in this place.
            tracked: Whether it is asked what was written since a base: no server of our own is.
            kind: The class of the view.
        """
        databases = self.numbers(server.keyspace())
        if not isinstance(server, Server):
            check_only_first(system, databases.values())
        return kind(
            server,
            databases,
            self._settings(system, libraries_of(server.nodes())),
            taken_at,
            put_off_ms,
            tracked and self.tracked,
        )

    def _settings(self, system: str, libraries: Libraries) -> ViewSettings:
        definition = {**self.definition, **libraries.definition}
        size, remarks = self.part_size_bytes, libraries.remarks
        return ViewSettings(system, definition, self.patterns, size, self.folder, self.standing, remarks)

    def snapshot_view(self, server: Server | Cluster, system: str, opened: ExitStack) -> View:
        """Open a snapshot view of a server, or of each master of a cluster.

        Args:
            server: The server or cluster that is read.
            system: How the manifest calls it.
            opened: Ends what the look needs.

        Raises:
            ConfigurationError: The user may not replicate, or there is no server program where one is needed.
            SourceUnavailable: A server refused, went away before the end, or sent what is damaged; or a cluster holds
                keys in other databases than 0.
            SourceChanged: Slots moved between nodes, or a node was replaced.
        """
        if isinstance(server, Cluster):  # before its nodes fork
            check_only_first(server, self.numbers(server.keyspace()).values())
        taken_at, libraries = datetime.now(UTC), libraries_of(server.nodes())
        reader = SnapshotReader(self.folder, self.numbers(()), self.patterns, self.tracked)
        try:
            snapshot = snapshot_of(server, reader)
        except UnknownForm:
            # a server that knows its form reads it, which is a moment of its own, a little later
            taken_at = datetime.now(UTC)
            return self.live_view(
                opened.enter_context(private_copy_of(server, self.folder, self.program)), taken_at, system
            )
        return SnapshotView(snapshot, self.numbers(snapshot.rows), self._settings(system, libraries), taken_at)

    def backlog_view(self, token: str, server: Server, system: str, opened: ExitStack) -> View | None:
        """Open a view of the backlog of a server; None where it does not reach back, or does not come to rest.

        Args:
            token: The token of the base.
            server: The server or cluster that is read.
            system: How the manifest calls it.
            opened: Ends what the look needs.
        """
        libraries = libraries_of(server.nodes())
        reached = reach_snapshot(server, lambda: self.numbers(server.keyspace()), self.patterns, self.folder, token)
        if reached is None:
            return None
        row_bytes = self.live_view(server, reached.taken_at, system).row_bytes
        try:
            sizes = {name: row_bytes(name) for name in reached.databases if reached.has(name)}
        except ConfigurationError:  # the user may not list keys
            return None
        return BacklogView(
            reached,
            token,
            [spec_of(name, self.patterns) for name in reached.databases],
            self._settings(system, libraries),
            sizes,
            lambda: self.snapshot_view(server, system, opened),
        )
