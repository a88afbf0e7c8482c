"""What a role lacks for a restore, found in the catalogue before anything is written."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

from blocks.sources.postgres.connect import Session
from blocks.sources.postgres.schema.entries import Entry
from blocks.sources.postgres.schema.live import only_for_superusers, owned_by_others
from blocks.sources.postgres.schema.ownership import owners_of, refuse_missing_roles
from blocks.sources.postgres.schema.system_privileges import changed_system_privileges

_READ_ONLY = "SELECT pg_catalog.current_setting('transaction_read_only')"

_TABLES = """
SELECT t, pg_catalog.has_table_privilege(c, 'SELECT') AND pg_catalog.has_table_privilege(c, 'INSERT')
    AND pg_catalog.has_table_privilege(c, %(removing)s), pg_catalog.row_security_active(c)
    AND NOT (SELECT relforcerowsecurity AND pg_catalog.pg_has_role(relowner, 'USAGE')
             FROM pg_catalog.pg_class WHERE oid = c)
FROM pg_catalog.unnest(%(of)s::text[]) t, LATERAL (SELECT pg_catalog.to_regclass(t)::pg_catalog.oid) r (c)
WHERE c IS NOT NULL
"""

_OF_OTHERS = """
SELECT t FROM pg_catalog.unnest(%(of)s::text[]) t JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass(t)
WHERE NOT pg_catalog.pg_has_role(c.relowner, 'USAGE')
"""

_OWNED = """
SELECT 'schema ' || pg_catalog.quote_ident(nspname) FROM pg_catalog.pg_namespace
WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' AND NOT pg_catalog.pg_has_role(nspowner, 'USAGE')
UNION ALL SELECT 'extension ' || pg_catalog.quote_ident(extname) FROM pg_catalog.pg_extension
WHERE extname <> 'plpgsql' AND NOT pg_catalog.pg_has_role(extowner, 'USAGE')
UNION ALL SELECT 'publication ' || pg_catalog.quote_ident(pubname) FROM pg_catalog.pg_publication
WHERE NOT pg_catalog.pg_has_role(pubowner, 'USAGE')
UNION ALL SELECT 'event trigger ' || pg_catalog.quote_ident(evtname) FROM pg_catalog.pg_event_trigger
WHERE NOT pg_catalog.pg_has_role(evtowner, 'USAGE')
UNION ALL SELECT 'foreign data wrapper ' || pg_catalog.quote_ident(fdwname) FROM pg_catalog.pg_foreign_data_wrapper
WHERE NOT pg_catalog.pg_has_role(fdwowner, 'USAGE')
UNION ALL SELECT 'language ' || pg_catalog.quote_ident(lanname) FROM pg_catalog.pg_language
WHERE oid >= 16384 AND NOT pg_catalog.pg_has_role(lanowner, 'USAGE')
UNION ALL SELECT 'access method ' || pg_catalog.quote_ident(amname) FROM pg_catalog.pg_am
WHERE oid >= 16384 AND NOT (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)
UNION ALL SELECT pg_catalog.concat('cast (', pg_catalog.format_type(c.castsource, NULL), ' AS ',
    pg_catalog.format_type(c.casttarget, NULL), ')') FROM pg_catalog.pg_cast c
JOIN pg_catalog.pg_type s ON s.oid = c.castsource JOIN pg_catalog.pg_type t ON t.oid = c.casttarget
WHERE c.oid >= 16384 AND NOT (pg_catalog.pg_has_role(s.typowner, 'USAGE')
                              OR pg_catalog.pg_has_role(t.typowner, 'USAGE'))
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_cast'::pg_catalog.regclass
                  AND d.objid = c.oid AND d.deptype IN ('e', 'i'))
UNION ALL
SELECT DISTINCT 'default privileges of role ' || pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(defaclrole))
FROM pg_catalog.pg_default_acl WHERE NOT pg_catalog.pg_has_role(defaclrole, 'USAGE')
UNION ALL (SELECT 'large object ' || oid FROM pg_catalog.pg_largeobject_metadata
WHERE NOT pg_catalog.pg_has_role(lomowner, 'USAGE') ORDER BY oid LIMIT 3)
"""
"""What has to be dropped by its owner; tables go with their schemas."""

_DATABASE = """
SELECT pg_catalog.has_database_privilege(d.oid, %(privilege)s) FROM pg_catalog.pg_database d
WHERE datname = pg_catalog.current_database()
"""

_SCHEMAS = """
SELECT pg_catalog.quote_ident(s) FROM pg_catalog.unnest(%(of)s::text[]) s
JOIN pg_catalog.pg_namespace n ON n.nspname = s WHERE NOT pg_catalog.has_schema_privilege(n.oid, 'CREATE')
"""

_ROLES = """
SELECT r, EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = r),
       coalesce((SELECT pg_catalog.pg_has_role(oid, 'MEMBER') FROM pg_catalog.pg_roles WHERE rolname = r), false)
FROM pg_catalog.unnest(%(of)s::text[]) r ORDER BY r
"""

_TABLESPACES = "SELECT t FROM pg_catalog.unnest(%(of)s::text[]) t EXCEPT SELECT spcname FROM pg_catalog.pg_tablespace"
_EXTENSIONS = """
SELECT e FROM pg_catalog.unnest(%(of)s::text[]) e EXCEPT SELECT name FROM pg_catalog.pg_available_extensions
"""

_TABLESPACE = re.compile(r'^SET default_tablespace = ("(?:[^"]|"")*"|[^\s"\';]+);$', re.MULTILINE)


def is_read_only(session: Session) -> bool:
    """Whether the server, the database or the role lets this session write nothing."""
    return session.execute(_READ_ONLY.encode()).fetchone() == ("on",)


def lacking_for_rows(
    session: Session,
    emptied: Sequence[str],
    merged: Sequence[str],
    sequences: Sequence[str],
    views: Sequence[str],
    *,
    large_objects: bool,
) -> list[str]:
    """Say what a role lacks to write rows into tables that are there, each as a phrase; names are quoted.

    Args:
        session: A session in the database.
        emptied: Tables that are emptied first.
        merged: Tables of which rows are replaced.
        sequences: The sequences that are set, quoted.
        views: Materialised ones that are refreshed.
        large_objects: Whether large objects are written.
    """
    found = []
    for tables, removing in ((emptied, "TRUNCATE"), (merged, "DELETE")):
        for name, may, hidden in session.execute(_TABLES, {"of": list(tables), "removing": removing}):
            if hidden:
                found.append(f"row level security of {name} hides rows from it (it needs BYPASSRLS)")
            elif not may:
                found.append(f"it may not select from, insert into and {removing.lower()} {name}")
    others = owned_by_others(session, [*emptied, *merged])
    found += [f"it does not own {name}, whose triggers or constraints are put aside" for name in others]
    inherited = only_for_superusers(session, [*emptied, *merged])
    found += [f"it is no superuser, who alone can put trigger {name} aside before version 15" for name in inherited]
    for what, names in (("sequence", sequences), ("materialised view", views)):
        found += [f"it does not own {what} {name}" for (name,) in session.execute(_OF_OTHERS, {"of": list(names)})]
    if merged and not _may(session, "TEMPORARY"):
        found.append("it may not make temporary tables in the database")
    if large_objects:
        found += [f"it does not own {n}" for (n,) in session.execute(_OWNED.encode()) if "large object " in str(n)]
    return found


def lacking_to_replace(session: Session) -> list[str]:
    """Say what a role lacks to drop all of a database and to recreate it."""
    found = [f"it does not own {name}" for (name,) in session.execute(_OWNED.encode())]
    if not _is_superuser(session) and (changed := changed_system_privileges(session)):
        found.append(f"it may not take back privileges on what PostgreSQL brings itself ({changed[0]})")
    return found if _may(session, "CREATE") else [*found, "it may not create schemas in the database"]


def _is_superuser(session: Session) -> bool:
    query = "SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user"
    return session.execute(query.encode()).fetchone() == (True,)


def _may(session: Session, privilege: str) -> bool:
    return session.execute(_DATABASE, {"privilege": privilege}).fetchone() == (True,)


def lacking_to_make(session: Session, entries: Collection[Entry], *, inside: bool) -> list[str]:
    """Say what a role or a server lacks for definitions.

    Args:
        session: A session on the server.
        entries: What is going to be run.
        inside: Whether in this database: then its schemas are looked at, too.

    Raises:
        PlaceUnfit: They name roles that do not exist.
    """
    refuse_missing_roles(session, entries)
    found = _absent(session, entries)
    if inside:
        made = {entry.names[0][0] for entry in entries if entry.type == "TABLE" and entry.names}
        closed = session.execute(_SCHEMAS, {"of": sorted(made)})
        found += [f"it may not create tables in schema {name}" for (name,) in closed]
        if any(entry.type == "SCHEMA" for entry in entries) and not _may(session, "CREATE"):
            found.append("it may not create schemas in the database")
    return found


def _absent(session: Session, entries: Collection[Entry]) -> list[str]:
    found = []
    roles = sorted({_plain(name) for entry in entries for name in owners_of(entry)})
    for name, there, member in session.execute(_ROLES, {"of": roles}):
        if there and not member:
            found.append(f"it is no member of role {name}, which owns what is restored")
    absent = session.execute(_TABLESPACES, {"of": sorted(tablespaces_of(entries))})
    found += [f"tablespace {name} does not exist" for (name,) in absent]
    wanted = {entry.plain("EXISTS") or "" for entry in entries if entry.type == "EXTENSION"} - {""}
    uninstalled = session.execute(_EXTENSIONS, {"of": sorted(wanted)})
    return found + [f"extension {name} is not installed on the server" for (name,) in uninstalled]


def tablespaces_of(entries: Iterable[Entry]) -> set[str]:
    """Return the tablespaces that definitions name."""
    return {_plain(name) for entry in entries for name in _TABLESPACE.findall(entry.settings)}


def _plain(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def may_create_databases(session: Session) -> bool:
    """Whether the role can make a database."""
    row = session.execute("SELECT rolsuper OR rolcreatedb FROM pg_catalog.pg_roles WHERE rolname = current_user")
    return row.fetchone() == (True,)
