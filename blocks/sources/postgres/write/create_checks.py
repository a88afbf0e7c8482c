"""What prevents creating a database, or moving one aside, found before that is tried."""

from __future__ import annotations

from collections.abc import Collection

from blocks.errors import PlaceUnfit, RestoreRefused
from blocks.sources.postgres.connect import Session, place_of, settings_of
from blocks.sources.postgres.schema.entries import Entry
from blocks.sources.postgres.schema.privileges import is_read_only, lacking_to_make, may_create_databases
from blocks.sources.postgres.write.scratch import maintenance

_OWNED = "SELECT pg_catalog.pg_has_role(datdba, 'USAGE') FROM pg_catalog.pg_database WHERE datname = %s"

_USERS = """
SELECT DISTINCT pg_catalog.concat('process ', pid, ' of ' || usename, ', ' || nullif(application_name, ''))
FROM pg_catalog.pg_stat_activity WHERE datname = %s AND backend_type IN ('client backend', 'walsender')
AND application_name <> 'lastgood' ORDER BY 1
"""
_USED_BY = """
SELECT 'replication slot ' || slot_name FROM pg_catalog.pg_replication_slots WHERE database = %(name)s
UNION ALL SELECT 'subscription ' || subname FROM pg_catalog.pg_subscription s
JOIN pg_catalog.pg_database d ON d.oid = s.subdbid WHERE d.datname = %(name)s
"""


def lacking_to_create(conninfo: str, timeout_seconds: float, entries: Collection[Entry]) -> list[str]:
    """Say what a role or a server lacks to create a database from definitions, each as a phrase."""
    with maintenance(conninfo, timeout_seconds) as session:
        _refuse_read_only(session, conninfo)
        lacking = [] if may_create_databases(session) else ["it may not create databases (it needs CREATEDB)"]
        return lacking + lacking_to_make(session, entries, inside=False)


def lacking_to_rename(conninfo: str, timeout_seconds: float) -> list[str]:
    """Say what a role lacks to rename a database.

    Raises:
        RestoreRefused: Somebody is connected to it, or it keeps what another database could not go on with.
    """
    name = settings_of(conninfo).get("dbname", "")
    with maintenance(conninfo, timeout_seconds) as session:
        users = [str(who) for (who,) in session.execute(_USERS, (name,))]
        if users:
            raise RestoreRefused(
                f"{place_of(conninfo)} would have to be renamed, and is used by {', '.join(users)}",
                hint="End those sessions and repeat it, or restore to another database with --to.",
            )
        bound = [str(what) for (what,) in session.execute(_USED_BY, {"name": name})]
        if bound:
            raise RestoreRefused(
                f"{place_of(conninfo)} would have to be renamed, and goes on with {', '.join(bound)}",
                hint="Drop them first, or restore to another database with --to.",
            )
        owned = session.execute(_OWNED, (name,)).fetchone() == (True,)
    return [] if owned else ["it does not own the database"]


def _refuse_read_only(session: Session, conninfo: str) -> None:
    if is_read_only(session):
        raise PlaceUnfit(
            f"the server of {place_of(conninfo)} can be written by nobody: it is a standby",
            hint="Name its primary; for verifications, another server with `verify_dsn` of the source.",
        )
