"""PostgreSQL databases: one snapshot over all tables, exact values, incrementals that ask only for what changed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from pydantic import Field, JsonValue, PrivateAttr, SecretStr

from blocks.errors import ConfigurationError, LastgoodError
from blocks.host.passwords import HINT, NONE, has_password, refuse_password
from blocks.host.places import Location
from blocks.sources.collection import PART_SIZE_BYTES, CollectionSpec
from blocks.sources.postgres.choice import Choice, Settings
from blocks.sources.postgres.connect import altered, connect, has_secret, place_of, same_server, settings_of, translated
from blocks.sources.postgres.read.open_view import open_view
from blocks.sources.postgres.slot_log import held_log
from blocks.sources.postgres.write.scratch import KeptDatabases, drop_database, is_scratch, scratch_name
from blocks.sources.proving import DefinedObject, StoreFinding
from blocks.sources.source import StateSource
from blocks.sources.target import RestoreScope, Target
from blocks.sources.view import View

_PLACE = "the place of a PostgreSQL database"


def _holds_password(secret: SecretStr | None) -> bool:
    dsn = "" if secret is None else secret.get_secret_value()
    with suppress(ConfigurationError):  # raised where it is used
        if has_secret(dsn):
            return True
    return has_password(dsn)


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

    type: Literal["postgres"] = "postgres"
    dsn: SecretStr = Field(description="The database, as a URL (postgresql://user@host:5432/database) or as settings.")
    password_env: str | None = Field(default=None, description="Environment variable that holds the password.")
    schemas: list[str] = Field(default=["*"], description="Globs of the schemas to back up.")
    tables: list[str] = Field(default=["*"], description="Globs over schema.table of the tables to back up.")
    exclude: list[str] = Field(default=[], description="Globs over schema.table of the tables to leave out.")
    part_size_bytes: int = Field(
        default=PART_SIZE_BYTES, gt=0, description="Size that parts are partitioned for, in bytes of Arrow data."
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

    restore_owner: bool = Field(
        default=True,
        description="Whether restores give objects the owners of the backup; else all that is made belongs to the role"
        " that restores, and the backup's owners need not exist there.",
    )
    restore_privileges: bool = Field(
        default=True,
        description="Whether restores bring back privileges, default privileges and policies for named roles; else the"
        " roles that they name need not exist there.",
    )

    verify_dsn: SecretStr | None = Field(
        default=None,
        description="Another server, as a URL of any of its databases, on which verifications restore: for a standby,"
        " which cannot be written.",
    )
    verify_password_env: str | None = Field(
        default=None, description="Environment variable that holds the password of that server."
    )

    _kept: KeptDatabases = PrivateAttr(default_factory=KeptDatabases)
    _elsewhere_env: str | None = PrivateAttr(default=None)

    @property
    def named_password(self) -> str | None:
        """The field `dsn` where there is a password in it."""
        return next((name for name in ("dsn", "verify_dsn") if _holds_password(getattr(self, name))), None)

    def view(self, since: str | None = None) -> AbstractContextManager[View]:
        """Open one consistent look at the database.

        Raises:
            SourceUnavailable: It cannot be reached, or not all of it may be read.
            ConfigurationError: There is no pg_dump of the server's version or later.
        """
        return open_view(self._settings(), since)

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

    def salvage(self) -> AbstractContextManager[View]:
        """Open a look that goes on past tables that cannot be read.

        Raises:
            SourceUnavailable: Nothing of it can be read.
        """
        return open_view(replace(self._settings(), salvage=True))

    def location(self, to: str | None = None) -> Location:
        """Say where the database is, by what its server says of itself, else by its address."""
        from blocks.sources.postgres.place import location_of  # only restores and checks of places need it

        place = self if to is None else self._at(to)
        choice = self._choice()
        part = choice.words if to is None and choice.narrowed else ""
        return location_of(place._conninfo(), self.connect_timeout_seconds, part)

    def identity(self) -> dict[str, JsonValue]:
        """Say which cluster of databases it is in, and which of them it is."""
        from blocks.sources.postgres.place import lasting_identity

        with suppress(ConfigurationError):  # no password here: a retention run needs none
            return lasting_identity(self._conninfo(), self.connect_timeout_seconds)
        return {}

    def covers(self, collection: CollectionSpec) -> bool:
        """Whether the plan covers a table of a backup; large objects only where it leaves nothing out."""
        return self._choice().covers(collection)

    def unnarrowed(self) -> PostgresSource:
        """Return a copy that covers everything at its place."""
        return self.model_copy(update={"schemas": ["*"], "tables": ["*"], "exclude": []})

    def target(self, scope: RestoreScope, to: str | None = None) -> Target:
        """Prepare a target: the database itself, or the one that `to` names; one that is missing is created.

        Raises:
            RestoreRefused: The manifest is not that of a database.
        """
        # half of this package, and only restores need it
        from blocks.sources.postgres.schema.ownership import Ownership
        from blocks.sources.postgres.write.target import Destination, PostgresTarget

        place = self if to is None else self._at(to)
        destination = Destination(
            place._conninfo(),
            self.connect_timeout_seconds,
            self.lock_timeout_seconds,
            self.pg_dump,
            Ownership(self.restore_owner, self.restore_privileges),
        )
        return PostgresTarget(destination, scope, self._choice(), self._kept.keep)

    def at(self, place: str) -> StateSource:
        """Return this source for another database."""
        return self._at(place)

    def _at(self, place: str) -> PostgresSource:
        """Our password is sent to our own server only, and as the same user."""
        refuse_password(place, _PLACE)
        if has_secret(place):
            raise ConfigurationError(f"there is a password in {_PLACE}", hint=HINT)
        own = self.dsn.get_secret_value()
        if same_server(own, place):
            place = altered(place, password=settings_of(own).get("password"))
            return self.model_copy(update={"dsn": SecretStr(place)})
        proving = self.verify_dsn.get_secret_value() if self.verify_dsn is not None else None
        if proving is not None and same_server(proving, place) and is_scratch(place):
            place = altered(place, password=settings_of(proving).get("password"))
            fields = {"dsn": SecretStr(place), "password_env": self.verify_password_env, "verify_dsn": None}
            return self.model_copy(update=fields)
        named = self._elsewhere_env if self._elsewhere_env != NONE else None
        # an empty one: libpq then leaves out PGPASSWORD, and still looks into ~/.pgpass, which names hosts
        place = altered(place, password="")
        return self.model_copy(update={"dsn": SecretStr(place), "password_env": named})

    def admitted_elsewhere(self, password_env: str) -> PostgresSource:
        """Return this source for restores to another server, which asks for another password."""
        source = self.model_copy()
        source._elsewhere_env = password_env
        return source

    def notes(self) -> tuple[str, ...]:
        """Say how much log the server keeps for the plan's replication slot."""
        if self.slot is None:
            return ()
        place = place_of(self.dsn.get_secret_value())
        try:
            with (
                closing(connect(self._conninfo(), self.connect_timeout_seconds)) as session,
                translated(place, "cannot look at the replication slots of"),
            ):
                held = held_log(session, self.slot)
        except LastgoodError as exc:
            return (f"How much log replication slot {self.slot} holds back could not be asked: {exc.message}.",)
        return (held.sentence(place) if held else f"{place} has no replication slot {self.slot} that holds back log.",)

    def restored_without(self, *, owner: bool, privileges: bool) -> PostgresSource:
        """Return this source for restores that leave out owners, or privileges, or what the plan leaves out."""
        fields = {"restore_owner": self.restore_owner and not owner}
        fields["restore_privileges"] = self.restore_privileges and not privileges
        return self.model_copy(update=fields)

    @property
    def secret_variables(self) -> frozenset[str]:
        """Names of the environment variables that hold the password: libpq's own where the plan names none."""
        return super().secret_variables | (frozenset() if self.password_env else {"PGPASSWORD"})

    def check_restored(self, definition: Mapping[str, JsonValue]) -> list[StoreFinding]:
        """Check constraints, sequences and indexes of the database, into which a backup was restored as a whole.

        Raises:
            SourceUnavailable: It cannot be reached or read.
        """
        from blocks.sources.postgres.restored.constraints import check_constraints
        from blocks.sources.postgres.restored.indexes import check_indexes
        from blocks.sources.postgres.restored.sequences import check_sequences

        place = place_of(self.dsn.get_secret_value())
        with (
            closing(connect(self._conninfo(), self.connect_timeout_seconds)) as session,
            translated(place, "cannot check what was restored to"),
        ):
            return [*check_constraints(session), *check_sequences(session), *check_indexes(session)]

    def defined_objects(self, definition: Mapping[str, JsonValue]) -> list[DefinedObject]:
        """Return the objects that a definition makes, without what restores leave out of it."""
        from blocks.sources.postgres.restored.definitions import defined_objects
        from blocks.sources.postgres.schema.ownership import Ownership

        return defined_objects(definition, Ownership(self.restore_owner, self.restore_privileges))

    def scratch(self, folder: Path) -> str:
        """Name a database beside this one, after the folder; a restore creates it."""
        name = scratch_name(str(folder.absolute()))
        return altered((self.verify_dsn or self.dsn).get_secret_value(), dbname=name, password=None)

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
