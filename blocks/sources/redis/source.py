"""Redis: all types exactly, several databases, absolute expiries; restores that never flush."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator

from blocks.errors import ConfigurationError, RestoreRefused, SourceUnavailable
from blocks.sources.base import PART_SIZE_BYTES, Bounds, RestoreScope, StateSource, Target, View
from blocks.sources.redis.access import Access, tls_context
from blocks.sources.redis.cluster import Cluster, reach
from blocks.sources.redis.file import RdbTarget
from blocks.sources.redis.looks import Looks
from blocks.sources.redis.place import PROOF, Kind, Place, parse_place
from blocks.sources.redis.private import RDB, Program, private_server
from blocks.sources.redis.server import Server
from blocks.sources.redis.target import RedisTarget

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
    _logo_url = "https://raw.githubusercontent.com/lastgood/lastgood/main/docs/images/logo.png"  # type: ignore[assignment]

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
        description="Bytes of Arrow data that a part is drawn for.",
    )
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

    @field_validator("databases")
    @classmethod
    def _are_numbers(cls, databases: list[int] | None) -> list[int] | None:
        if databases is not None and (not databases or min(databases) < 0):
            raise ValueError("name at least one database, by its number")
        return databases

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
            SourceUnavailable: The server or the file cannot be read.
        """
        return self._view(since)

    @contextmanager
    def _view(self, since: str | None) -> Iterator[View]:
        place = parse_place(self.url)
        with tempfile.TemporaryDirectory(prefix="lastgood-redis-") as name:
            looks = self._looks(Path(name), place)
            if place.kind is Kind.FILE:
                with self._loaded(place.path, Path(name)) as server:
                    put_off = PUT_OFF_MS if place.proof else 0
                    yield looks.live(server, _modified(place.path), f"{server.product} at {place}", put_off)
                return
            with self._server(place) as server, ExitStack() as opened:
                self._check_databases(server, place)
                system = f"{server.product} at {server}"
                if not self.consistent:
                    yield looks.live(server, datetime.now(UTC), system, tracked=True)
                    return
                view = None
                if since is not None and self.track_changes and isinstance(server, Server):
                    view = looks.since(since, server, system, opened)
                yield view or looks.moment(server, system, opened)

    def _looks(self, folder: Path, place: Place) -> Looks:
        chosen = self._chosen(place)

        def numbers(there: Iterable[int]) -> dict[str, int]:
            found = sorted(there) if chosen is None else chosen
            return {f"db{number}": self.renumbered.get(number, number) for number in found}

        definition: Bounds = {"patterns": list(self.patterns), "narrowed": chosen is not None}
        size, tracked = self.part_size_bytes, self.track_changes
        return Looks(folder, numbers, self.patterns, size, definition, self._program, tracked)

    def _check_databases(self, server: Server | Cluster, place: Place) -> None:
        chosen = self._chosen(place) or []
        if server.in_cluster and any(self.renumbered.get(number, number) for number in chosen):
            raise ConfigurationError(
                f"{server} has only database 0, the plan names {', '.join(map(str, chosen))}",
                hint="Leave `databases` out, and the number out of the URL.",
            )

    def _chosen(self, place: Place) -> list[int] | None:
        """Return the numbers of the databases, as backups name them; None for all."""
        if self.databases is not None:
            return sorted(set(self.databases))
        if self.renumbered:
            return sorted(self.renumbered)
        return None if place.database is None else [place.database]

    def target(self, scope: RestoreScope, to: str | None = None) -> Target:
        """Prepare a target: the server itself, another one, or an RDB file.

        Raises:
            ConfigurationError: `to` is no place of a Redis.
            RestoreRefused: It names one database, and there are several.
        """
        source = self if to is None else self.at(to)
        place = parse_place(source.url)
        databases = source._destinations(place, scope, named=to is not None)
        if place.kind is Kind.FILE:
            put_off = PUT_OFF_MS if place.proof else 0
            return RdbTarget(place.path, source._program, scope, databases, put_off)
        return RedisTarget(lambda: source._server(place), scope, databases, lambda server: None, only=place.database)

    def _destinations(self, place: Place, scope: RestoreScope, named: bool) -> Mapping[str, int]:
        names = [spec.name for spec, _ in scope.collections]
        if named and place.database is not None:
            if len(names) > 1:
                raise RestoreRefused(
                    f"{', '.join(names)} cannot all go to database {place.database} of {place}",
                    hint="Leave the number out of --to, or select one with --collection.",
                )
            return dict.fromkeys(names, place.database)
        return {name: self.renumbered.get(number, number) for name in names for number in [_number(name)]}

    def at(self, place: str) -> RedisSource:
        """Return this source for another server, another database, or an RDB file.

        Where this source is of one database and the place names one, that is its new number.
        """
        there, mine = parse_place(place), self._chosen(parse_place(self.url))
        renumbered: dict[int, int] = {}
        if there.database is not None and mine is not None and len(mine) == 1:
            renumbered = {mine[0]: there.database}
        update: dict[str, object] = {"url": place, "renumbered": renumbered, "databases": mine, "consistent": False}
        if there.password_env is not None:
            update |= {"password": None, "password_env": None}
        return self.model_copy(update=update)

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

    @contextmanager
    def _loaded(self, path: Path, folder: Path) -> Iterator[Server]:
        """Open a file in a private server; a copy of it, so that nobody changes it underneath."""
        try:
            shutil.copyfile(path, folder / RDB)
        except OSError as exc:
            raise SourceUnavailable(f"{path} cannot be read: {exc.strerror}", hint="Check `url` in the plan.") from exc
        with private_server(folder, self._program) as server:
            yield server

    def _access(self, place: Place) -> Access:
        """Bring together how the server lets us in; the only place where secrets are unwrapped."""
        password = self.password.get_secret_value() if self.password is not None else None
        name = place.password_env or self.password_env
        return Access(
            user=place.user or self.user,
            password=_from_environment(name) if name is not None else password,
            sentinel_password=_from_environment(self.sentinel_password_env) if self.sentinel_password_env else None,
            tls=tls_context(self.ca_file, self.cert_file, self.key_file) if place.tls else None,
            timeout_seconds=self.timeout_seconds,
        )


def _number(name: str) -> int:
    if not (name.startswith("db") and name[2:].isascii() and name[2:].isdigit()):
        raise RestoreRefused(f"collection {name!r} is no database of Redis", hint="The plan's source has another type.")
    return int(name[2:])


def _modified(path: Path) -> datetime | None:
    try:
        return datetime.fromtimestamp(os.stat(path).st_mtime, UTC)
    except OSError:
        return None


def _from_environment(name: str) -> str:
    value = os.environ.get(name)
    if value is None:
        raise ConfigurationError(
            f"the environment variable {name} with the password of a Redis is not set",
            hint=f"Set {name} where lastgood runs.",
        )
    return value
