"""PostgreSQL databases: one snapshot over all tables, exact values, incrementals that ask only for what changed."""

from __future__ import annotations

import hashlib
import os
from contextlib import AbstractContextManager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from pydantic import Field, PrivateAttr, SecretStr

from blocks.errors import ConfigurationError
from blocks.sources.base import PART_SIZE_BYTES, RestoreScope, StateSource, Target, View
from blocks.sources.postgres.ahead import begin, open_view
from blocks.sources.postgres.connect import altered, same_server, settings_of
from blocks.sources.postgres.open import Choice, Settings
from blocks.sources.postgres.scratch import Kept, drop_database, scratch_name


class PostgresSource(StateSource):
    """A PostgreSQL database (13 to 18): its tables, definitions, sequences and large objects.

    All tables are read in one snapshot, whatever is written meanwhile. An incremental reads the rows that transactions
    since the base may have written; keys of other rows only where rows are gone.

    With `slot` the server keeps which rows were written, and an incremental looks at no others.

    A role with `pg_read_all_data` is enough for backups.

    Example:
        Load it by the name it was saved under:
        ```python
        from blocks.sources.postgres import PostgresSource

        books = PostgresSource.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "PostgreSQL Source"
    _block_type_slug = "postgresql-source"
    _logo_url = "https://raw.githubusercontent.com/lastgood/lastgood/main/docs/images/logo.png"  # type: ignore[assignment]

    type: Literal["postgres"] = "postgres"
    dsn: SecretStr = Field(description="The database, as a URL (postgresql://user@host:5432/database) or as settings.")
    password_env: str | None = Field(default=None, description="Environment variable that holds the password.")
    schemas: list[str] = Field(default=["*"], description="Globs of the schemas to back up.")
    tables: list[str] = Field(default=["*"], description="Globs over schema.table of the tables to back up.")
    exclude: list[str] = Field(default=[], description="Globs over schema.table of the tables to leave out.")
    part_size_bytes: int = Field(
        default=PART_SIZE_BYTES, gt=0, description="Bytes of Arrow data that a part is drawn for."
    )
    connect_timeout_seconds: float = Field(
        default=10.0, gt=0, description="How long to wait, in seconds, for a connection."
    )
    lock_timeout_seconds: float = Field(
        default=60.0, gt=0, description="How long to wait, in seconds, for a lock that another session holds."
    )
    pg_dump: str | None = Field(
        default=None, description="The pg_dump program; by default the one nearest to the server's version."
    )

    slot: str | None = Field(
        default=None,
        pattern="^[a-z0-9_]{1,63}$",
        description="Logical replication slot in which the server keeps what is written for the next incremental; made"
        " by the first backup. Needs wal_level=logical and a role with REPLICATION.",
    )

    _kept: Kept = PrivateAttr(default_factory=Kept)

    def view(self, since: str | None = None) -> AbstractContextManager[View]:
        """Open one consistent look at the database.

        Raises:
            SourceUnavailable: It cannot be reached, or not all of it may be read.
            ConfigurationError: There is no pg_dump of the server's version or later.
        """
        return open_view(self._settings(), since)

    def begin(self, *, incremental: bool) -> None:
        """Begin to open a view."""
        begin(self._settings(), ask=incremental)

    def _settings(self) -> Settings:
        return Settings(
            conninfo=self._conninfo(),
            choice=self._choice(),
            part_size_bytes=self.part_size_bytes,
            connect_timeout_seconds=self.connect_timeout_seconds,
            lock_timeout_seconds=self.lock_timeout_seconds,
            pg_dump=self.pg_dump,
            slot=self.slot,
        )

    def target(self, scope: RestoreScope, to: str | None = None) -> Target:
        """Prepare a target: the database itself, or the one that `to` names; one that is missing is created.

        Raises:
            RestoreRefused: The manifest is not that of a database.
        """
        # half of this package, and only restores need it
        from blocks.sources.postgres.target import PostgresTarget

        place = self if to is None else self._at(to)
        conninfo = place._conninfo()
        return PostgresTarget(
            conninfo,
            scope,
            self.connect_timeout_seconds,
            self.lock_timeout_seconds,
            self.pg_dump,
            self._kept.keep,
        )

    def at(self, place: str) -> StateSource:
        """Return this source for another database."""
        return self._at(place)

    def _at(self, place: str) -> PostgresSource:
        """A password that the place does not name is ours only on our own server."""
        own = self.dsn.get_secret_value()
        if "password" in settings_of(place) or not same_server(own, place):
            return self.model_copy(update={"dsn": SecretStr(place), "password_env": None})
        place = altered(place, password=settings_of(own).get("password"))
        return self.model_copy(update={"dsn": SecretStr(place)})

    def scratch(self, folder: Path) -> str:
        """Name a database beside this one, after the folder; a restore creates it."""
        name = scratch_name(str(folder.absolute()))
        return altered(self.dsn.get_secret_value(), dbname=name, password=None)

    def inside(self, folder: Path) -> str:
        """Name a database beside this one, after it and the folder; it stays, and is no scratch database."""
        own = self.dsn.get_secret_value()
        # names end at 63 bytes
        stem = settings_of(own).get("dbname", "database").encode()[:40].decode(errors="ignore")
        name = f"{stem}_restored_{hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:8]}"
        return altered(own, dbname=name, password=None)

    def discard_scratch(self, place: str) -> None:
        """Drop a database that `scratch` named."""
        if (kept := self._kept.take(place)) is not None:
            kept.drop()
            return
        drop_database(self._at(place)._conninfo(), self.connect_timeout_seconds)

    def _conninfo(self) -> str:
        conninfo = self.dsn.get_secret_value()
        if self.password_env is None:
            return altered(conninfo)
        if not (password := os.environ.get(self.password_env)):
            raise ConfigurationError(
                f"environment variable {self.password_env} holds no password for a PostgreSQL source",
                hint="Set it, or take `password_env` out of the plan.",
            )
        return altered(conninfo, password=password)

    def _choice(self) -> Choice:
        everything = ["*"]
        by_table = self.tables != everything or bool(self.exclude)
        return Choice(
            included=self._included,
            narrowed=self.schemas != everything or by_table,
            schemas_only=not by_table,
            words=repr((sorted(self.schemas), sorted(self.tables), sorted(self.exclude))),
        )

    def _included(self, schema: str, table: str) -> bool:
        name = f"{schema}.{table}"
        chosen = any(fnmatchcase(schema, glob) for glob in self.schemas)
        chosen = chosen and any(fnmatchcase(name, glob) for glob in self.tables)
        return chosen and not any(fnmatchcase(name, glob) for glob in self.exclude)
