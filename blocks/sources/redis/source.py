"""Redis: all types exactly, several databases, absolute expiries; restores that never flush."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, JsonValue, PrivateAttr, SecretStr, field_validator

from blocks.errors import ConfigurationError, RestoreRefused
from blocks.host.leftovers import scratch_folder
from blocks.host.passwords import NONE
from blocks.host.places import Location
from blocks.sources.collection import PART_SIZE_BYTES, Bounds, CollectionSpec
from blocks.sources.proving import DefinedObject
from blocks.sources.redis import comparing
from blocks.sources.redis.connect import Access, tls_context
from blocks.sources.redis.coverage import Coverage, patterns_of
from blocks.sources.redis.databases import Databases
from blocks.sources.redis.functions import kept_libraries
from blocks.sources.redis.globs import differing
from blocks.sources.redis.identity import lasting_identity, location_of
from blocks.sources.redis.net.cluster import Cluster, reach
from blocks.sources.redis.net.private_server import RDB, Program
from blocks.sources.redis.net.server import Server
from blocks.sources.redis.net.standing import standing_of
from blocks.sources.redis.place import PROOF, Kind, Place, parse_place, same_hosts, same_server
from blocks.sources.redis.views.rdb_file_view import view_of
from blocks.sources.redis.views.salvage import SalvageView
from blocks.sources.redis.views.view import RedisView
from blocks.sources.redis.views.view_factory import ViewFactory
from blocks.sources.redis.write.rdb_file_target import RdbTarget
from blocks.sources.redis.write.target import Destination, RedisTarget
from blocks.sources.source import StateSource
from blocks.sources.target import RestoreScope, Target
from blocks.sources.view import View

if TYPE_CHECKING:
    import pyarrow as pa

PUT_OFF_MS = 3 * 10**13
"""By how much a proof's expiries are put off: 950 years. Fields cannot expire later than 2^46 ms, in the year 4199."""


class RedisSource(StateSource):
    """A Redis server (7.0 or newer), a whole Redis Cluster, or an RDB file.

    Each database is a collection `db0`, `db1`, ...; a key is one record, one wider than 1,000 elements or 64 KiB a
    record per element. By default keys are read while the application writes, each of one moment but not all of the
    same; with `consistent` all are of one moment, or in a cluster all of one master.

    Example:
        Load it by the name it was saved under:
        ```python
        from blocks.sources.redis import RedisSource

        cache = RedisSource.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "Redis Source"
    _block_type_slug = "redis-source"

    type: Literal["redis"] = "redis"
    url: str = Field(
        default="redis://localhost:6379",
        description="redis://user@host:6379/0, rediss:// for TLS, unix:///path, "
        "redis+sentinel://host:26379,host/master/0, redis+cluster://host:6379,host, or the path of an .rdb file; never "
        "with a password.",
    )
    databases: list[int] | None = Field(
        default=None,
        description="Numbers of the databases; by default the one in the URL, or else all that hold keys.",
    )
    patterns: list[str] = Field(default=["*"], min_length=1, description="Globs of Redis that keys have to match.")
    consistent: bool = Field(
        default=False,
        description="Take one moment of the whole server, or of each master of a cluster, through replication; needs "
        "redis-server here only for keys of modules, and datasets newer than this program.",
    )
    track_changes: bool = Field(
        default=True,
        description="Read only what was written since the base of an incremental, as the server's replication backlog "
        "tells it, and let a server that keeps none begin to.",
    )
    user: str | None = Field(default=None, description="ACL user, where the URL names none.")
    password: SecretStr | None = Field(default=None, description="Password; better kept out of the plan.")
    password_env: str | None = Field(default=None, description="Environment variable that holds the password.")
    sentinel_password_env: str | None = Field(
        default=None, description="Environment variable that holds the password of the Sentinels."
    )
    ca_file: str | None = Field(default=None, description="Certificates of the authorities that TLS trusts.")
    cert_file: str | None = Field(default=None, description="Certificate to show to the server.")
    key_file: str | None = Field(default=None, description="Key of that certificate.")
    timeout_seconds: float = Field(default=30.0, gt=0, description="How long one answer may take, in seconds.")
    server_program: str = Field(default="redis-server", description="Program for private servers on this machine.")
    server_modules: list[str] = Field(
        default_factory=list, description="Modules (.so) that private servers load, where keys belong to them."
    )
    part_size_bytes: int = Field(
        # parts are read one after another, and the sooner the first is read the sooner the other stages begin
        default=PART_SIZE_BYTES // 2,
        gt=0,
        description="Size that parts are partitioned for, in bytes of Arrow data.",
    )
    _elsewhere_env: str | None = PrivateAttr(default=None)

    renumbered: dict[int, int] = Field(
        default_factory=dict, description="Where a database is found under another number than in backups."
    )

    @field_validator("url")
    @classmethod
    def _is_place(cls, url: str) -> str:
        try:
            parse_place(url)
        except ConfigurationError as exc:
            raise ValueError(f"{exc.message}. {exc.hint}") from exc
        return url

    @field_validator("patterns")
    @classmethod
    def _mean_one_thing(cls, patterns: list[str]) -> list[str]:
        for pattern in filter(differing, patterns):
            raise ValueError(
                f"the range in the pattern {pattern} means other keys on other servers: Redis compares bytes, and"
                " processors take those of letters beyond ASCII for greater or for less. Name such letters one by one,"
                " each in a pattern of its own"
            )
        return patterns

    @field_validator("databases")
    @classmethod
    def _are_numbers(cls, databases: list[int] | None) -> list[int] | None:
        if databases is not None and (not databases or min(databases) < 0):
            raise ValueError("name at least one database, by its number")
        return databases

    @property
    def secret_variables(self) -> frozenset[str]:
        """Names of the environment variables that hold a password, that in the URL among them."""
        return super().secret_variables | {name for name in (parse_place(self.url).password_env,) if name}

    def anchored(self, folder: Path) -> RedisSource:
        """Return a copy whose relative paths are resolved against a folder."""
        update: dict[str, object] = {
            name: str(folder / Path(path).expanduser())
            for name in ("ca_file", "cert_file", "key_file")
            if (path := getattr(self, name)) is not None
        }
        place = parse_place(self.url)
        if place.kind is Kind.FILE and not place.proof:
            update["url"] = str(folder / place.path)
        return self.model_copy(update=update)

    def view(self, since: str | None = None) -> AbstractContextManager[View]:
        """Open one look at the databases.

        Raises:
            ConfigurationError: Wrong password, or too few rights.
            SourceUnavailable: The server or the file cannot be read; or it is a replica that never got its data.
        """
        return self._view(since)

    @contextmanager
    def _view(self, since: str | None) -> Iterator[View]:
        place = parse_place(self.url)
        with scratch_folder("redis") as folder:
            views = self._views(folder, place)
            if place.kind is Kind.FILE:
                with view_of(place, folder, views, RedisView, PUT_OFF_MS) as view:
                    yield view
                return
            with self._server(place) as server, ExitStack() as opened:
                self._databases(place).check(server)
                if isinstance(server, Server):  # of a cluster only masters are read
                    views = replace(views, standing=standing_of(server))
                system = f"{server.product} at {server}"
                if not self.consistent:
                    yield views.live_view(server, datetime.now(UTC), system, tracked=True)
                    return
                reached = None
                if since is not None and self.track_changes and isinstance(server, Server):
                    reached = views.backlog_view(since, server, system, opened)
                yield reached or views.snapshot_view(server, system, opened)

    @contextmanager
    def salvage(self) -> Iterator[View]:
        """Open a look at what is there now, key by key, that goes on past what cannot be read.

        Also with `consistent`: a restore compares each key that it replaces with what was read of it.

        Raises:
            ConfigurationError: Wrong password.
            SourceUnavailable: The server or the file cannot be read.
        """
        place = parse_place(self.url)
        with scratch_folder("redis") as folder:
            views = self._views(folder, place)
            if place.kind is Kind.FILE:
                with view_of(place, folder, views, SalvageView, PUT_OFF_MS) as view:
                    yield view
                return
            with self._server(place) as server:
                self._databases(place).check(server)
                yield views.live_view(server, datetime.now(UTC), f"{server.product} at {server}", kind=SalvageView)

    @property
    def local(self) -> bool:
        """Whether it is an RDB file."""
        return parse_place(self.url).kind is Kind.FILE

    def location(self, to: str | None = None) -> Location:
        """Say where the server or the file is; a server is asked who it is, and a replica stands for its master."""
        source = self if to is None else self.at(to)
        place = parse_place(source.url)
        numbers = source._databases(place).here
        if to is not None and place.database is not None:
            numbers = [place.database]
        patterns = "" if "*" in self.patterns else f"keys {', '.join(self.patterns)}"
        return location_of(place, source._access(place), numbers, patterns)

    def identity(self) -> dict[str, JsonValue]:
        """Say which server it is, by its address and by its histories; it is another one where all of them are."""
        place = parse_place(self.url)
        with suppress(ConfigurationError):  # no password here: a retention run needs none
            return lasting_identity(place, self._access(place))
        return {}

    def covers(self, collection: CollectionSpec) -> bool:
        """Whether the plan names the database."""
        return self._databases(parse_place(self.url)).has(collection.name)

    def covered(self, collection: CollectionSpec, rows: pa.Table) -> pa.BooleanArray | None:
        """Return which keys match the plan's patterns now.

        Args:
            collection: A database.
            rows: One row per record, with at least `key` (large_binary).
        """
        return Coverage(self.patterns).mask(rows.column("key"))

    def by_meaning(self, collection: CollectionSpec, rows: pa.Table) -> pa.Table:
        """Return rows in which what servers write differently has one form: scores of -0, counts of entries read.

        Args:
            collection: A database.
            rows: Rows with the columns of `SCHEMA` (rows.py).
        """
        return comparing.by_meaning(rows)

    def opaque(self, collection: CollectionSpec, rows: pa.Table) -> tuple[pa.BooleanArray, pa.Table]:
        """Tell which rows are keys of modules, whose DUMP may differ for the same content; and all without that.

        Args:
            collection: A database.
            rows: Rows with the columns of `SCHEMA` (rows.py).
        """
        return comparing.opaque(rows)

    def defined_objects(self, definition: Mapping[str, JsonValue]) -> list[DefinedObject]:
        """Return the libraries of functions of a definition."""
        libraries = kept_libraries(definition) or {}
        return [
            DefinedObject("library of functions", name, repr((one.engine, one.code)), guards=True)
            for name, one in libraries.items()
        ]

    def _views(self, folder: Path, place: Place) -> ViewFactory:
        databases = self._databases(place)
        definition: Bounds = {"patterns": list(self.patterns), "narrowed": databases.chosen is not None}
        size, tracked = self.part_size_bytes, self.track_changes
        return ViewFactory(folder, databases.named, self.patterns, size, definition, self._program, tracked)

    def _databases(self, place: Place) -> Databases:
        chosen = None if place.database is None else [place.database]
        if self.databases is not None:
            chosen = sorted(set(self.databases))
        elif self.renumbered:
            chosen = sorted(self.renumbered)
        return Databases(chosen, self.renumbered)

    def as_backed_up(self, definition: Mapping[str, JsonValue]) -> RedisSource:
        """Return a copy that covers what a backup covered."""
        return self.model_copy(update={"patterns": patterns_of(definition)})

    def unnarrowed(self) -> RedisSource:
        """Return a copy that covers everything at its place."""
        return self.model_copy(update={"patterns": ["*"], "databases": None})

    def target(self, scope: RestoreScope, to: str | None = None) -> Target:
        """Prepare a target: the server itself, another one, or an RDB file.

        Raises:
            ConfigurationError: `to` is no place of a Redis.
            RestoreRefused: It names one database, and there are several.
        """
        source = self if to is None else self.at(to)
        place = parse_place(source.url)
        names = list(dict.fromkeys([*(spec.name for spec, _ in scope.collections), *scope.created]))
        databases = source._databases(place).destinations(names, place if to is not None else None)
        if scope.in_place and to is not None:
            self._refuse_other_numbers(to, databases)
        if place.kind is Kind.FILE:
            put_off = PUT_OFF_MS if place.proof else 0
            return RdbTarget(place.path, source._program, scope, databases, put_off, source._coverage(place, to))
        opened = lambda: source._server(place)  # noqa: E731
        coverage = source._coverage(place, to)
        return RedisTarget(
            Destination(opened, databases, coverage, only=place.database, tracked=self.track_changes), scope
        )

    def _refuse_other_numbers(self, to: str, databases: Mapping[str, int]) -> None:
        """Refuse to put a database over another one of the live state, of which no backup would be made before."""
        own_numbers = self._databases(parse_place(self.url))
        for name, number in databases.items():
            own = own_numbers.number_of(name)
            if number != own and self.location(to).same(self.location()):
                raise RestoreRefused(
                    f"{name} would be restored to database {number} of {parse_place(to)}, which is live state, too",
                    hint=f"Leave --to out, and {name} goes to database {own}; or name another server.",
                )

    def _coverage(self, place: Place, to: str | None) -> Coverage:
        """Say what the plan covers, by the numbers of databases at the place; elsewhere its databases are others."""
        here = self._databases(place).here
        return Coverage(self.patterns, frozenset(here) if to is None and here is not None else None)

    def at(self, place: str) -> RedisSource:
        """Return this source for another server, another database, or an RDB file.

        Where this source is of one database and the place names one, that is its new number.
        """
        there, mine = parse_place(place), self._databases(parse_place(self.url)).chosen
        renumbered: dict[int, int] = {}
        if there.database is not None and mine is not None and len(mine) == 1:
            renumbered = {mine[0]: there.database}
        update: dict[str, object] = {"url": place, "renumbered": renumbered, "databases": mine, "consistent": False}
        return self.model_copy(update=update | self._admission(there))

    def admitted_elsewhere(self, password_env: str) -> RedisSource:
        """Return this source for restores to another server, which asks for another password."""
        source = self.model_copy()
        source._elsewhere_env = password_env
        return source

    def _admission(self, there: Place) -> dict[str, object]:
        """Say what lets us in there: our password only on our own server."""
        mine = parse_place(self.url)
        update: dict[str, object] = {}
        if not same_server(mine, there):
            update = {"password": None, "password_env": self._elsewhere_env}
        if there.password_env is not None:
            update = {"password": None, "password_env": None}
        if not (there.kind is mine.kind is Kind.SENTINEL and same_hosts(mine, there) and there.tls >= mine.tls):
            update["sentinel_password_env"] = None
        return update

    def scratch(self, folder: Path) -> str:
        """Name an RDB file inside an empty folder, in which expiries are put off.

        A key that went by itself since the backup has to be found again by a verification.
        """
        return f"{PROOF}{folder / RDB}"

    def inside(self, folder: Path) -> str:
        """Name an RDB file inside a folder."""
        return str(folder / RDB)

    @property
    def _program(self) -> Program:
        return Program(self.server_program, tuple(self.server_modules), self.timeout_seconds)

    @contextmanager
    def _server(self, place: Place) -> Iterator[Server | Cluster]:
        server = reach(place, self._access(place))
        try:
            yield server
        finally:
            server.close()

    def _access(self, place: Place) -> Access:
        """Bring together how the server lets us in; the only place where secrets are unwrapped."""
        password = self.password.get_secret_value() if self.password is not None else None
        name = place.password_env or self.password_env
        if name is not None:
            password = _from_environment(name) if name != NONE else None
        return Access(
            user=place.user or self.user,
            password=password,
            sentinel_password=_from_environment(self.sentinel_password_env) if self.sentinel_password_env else None,
            tls=tls_context(self.ca_file, self.cert_file, self.key_file) if place.tls else None,
            timeout_seconds=self.timeout_seconds,
        )


def _from_environment(name: str) -> str:
    value = os.environ.get(name)
    if value is None:
        raise ConfigurationError(
            f"the environment variable {name} with the password of a Redis is not set",
            hint=f"Set {name} where lastgood runs.",
        )
    return value
