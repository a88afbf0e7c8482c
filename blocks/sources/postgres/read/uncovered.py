"""What a database has that no backup of it keeps: looked for each time, and said."""

from __future__ import annotations

from collections.abc import Callable

from blocks.sources.postgres.connect import Session, identifier, literal

_OWN = "(SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())"

_UNCOVERED = {
    "Settings of the database {place} (ALTER DATABASE or ALTER ROLE ... SET: {found}) are not in this backup.": """
        SELECT pg_catalog.string_agg(DISTINCT pg_catalog.split_part(one, '=', 1), ', ')
        FROM pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) one WHERE s.setdatabase = {own}""",
    "The {found} of the database {place} itself: not in this backup.": """
        SELECT pg_catalog.concat_ws(', ',
            CASE WHEN d.datacl IS NOT NULL THEN 'privileges' END,
            CASE WHEN pg_catalog.shobj_description(d.oid, 'pg_database') IS NOT NULL THEN 'comment' END,
            CASE WHEN EXISTS (
                SELECT FROM pg_catalog.pg_shseclabel l
                WHERE l.objoid = d.oid AND l.classoid = 'pg_catalog.pg_database'::pg_catalog.regclass
            ) THEN 'security labels' END,
            CASE WHEN d.datconnlimit <> -1 THEN 'limit of connections' END)
        FROM pg_catalog.pg_database d WHERE d.oid = {own}""",
    "The locale of {place} is of the provider {found}, with which a missing database is not created: create it"
    " yourself and restore into the empty database.": """
        SELECT CASE j.row ->> 'datlocprovider' WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' END
        FROM pg_catalog.pg_database d, LATERAL pg_catalog.to_jsonb(d) j (row) WHERE d.oid = {own}""",
    "Roles that own or may use what is in {place} ({found}) are named in this backup, and have to exist before a"
    " restore.": """
        SELECT pg_catalog.string_agg(DISTINCT r.rolname::text, ', ')
        FROM pg_catalog.pg_shdepend d JOIN pg_catalog.pg_roles r ON r.oid = d.refobjid
        WHERE d.dbid = {own} AND d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass""",
    "Tablespaces that {place} uses ({found}) are named in this backup, and have to exist before a restore.": """
        SELECT pg_catalog.string_agg(t.spcname::text, ', ' ORDER BY t.spcname) FROM pg_catalog.pg_tablespace t
        WHERE t.spcname NOT IN ('pg_default', 'pg_global')
          AND t.oid IN (SELECT reltablespace FROM pg_catalog.pg_class)""",
    "Subscriptions of {place} ({found}) are kept as definitions, without their state, and not enabled.": """
        SELECT pg_catalog.string_agg(subname::text, ', ' ORDER BY subname)
        FROM pg_catalog.pg_subscription WHERE subdbid = {own}""",
    "Replication slots of {place} ({found}) are not in this backup.": """
        SELECT pg_catalog.string_agg(slot_name::text, ', ' ORDER BY slot_name) FROM pg_catalog.pg_replication_slots
        WHERE database = pg_catalog.current_database() AND slot_name <> {slot}""",
    "What prepared transactions ({found}) have done in {place} is not in this backup: they have not ended.": """
        SELECT pg_catalog.string_agg(gid, ', ' ORDER BY gid) FROM pg_catalog.pg_prepared_xacts
        WHERE database = pg_catalog.current_database()""",
    "Rows in tables of {place} that belong to extensions ({found}) are not in this backup.": """
        SELECT pg_catalog.string_agg(extname::text, ', ' ORDER BY extname) FROM pg_catalog.pg_extension
        WHERE extconfig IS NOT NULL""",
    "Options of user mappings for foreign servers ({found}) are not in this backup: this role may not read them.": """
        SELECT pg_catalog.string_agg(DISTINCT srvname::text, ', ') FROM pg_catalog.pg_user_mappings
        WHERE umoptions IS NULL""",
    "Indexes of {place} that are not valid ({found}) are not in this backup.": """
        SELECT pg_catalog.string_agg(c.relname::text, ', ' ORDER BY c.relname) FROM pg_catalog.pg_index i
        JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
        JOIN pg_catalog.pg_class t ON t.oid = i.indrelid AND t.relkind <> 'p'
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname !~ '^pg_toast'
        WHERE NOT (i.indisvalid AND i.indisready)""",
}
"""Sentences, and for each a query for the names that it speaks of."""


def uncovered(session: Session, place: str, slot: str | None = None) -> list[str]:
    """Say what the open database has that its backup does not keep.

    Args:
        session: A session inside the snapshot of the view.
        place: Name of the place, without secrets; for messages.
        slot: The replication slot of the backups themselves.
    """
    own = literal(slot or "")
    queries = ", ".join(f"({q.replace('{own}', _OWN).replace('{slot}', own)})" for q in _UNCOVERED.values())
    row = session.execute(f"SELECT {queries}".encode()).fetchone()
    assert row is not None
    pairs = zip(_UNCOVERED, row, strict=True)
    return [sentence.format(place=place, found=found) for sentence, found in pairs if found]


_EXTENSION_TABLES = """
SELECT e.extname::text, n.nspname::text, c.relname::text, c.relkind::text, cfg.place IS NOT NULL,
       coalesce(e.extcondition[cfg.place], ''), pg_catalog.concat_ws(',', e.xmin, c.xmin),
       pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'SELECT')
FROM pg_catalog.pg_extension e
JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.refobjid = e.oid
  AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype = 'e'
JOIN pg_catalog.pg_class c ON c.oid = d.objid AND c.relkind IN ('r', 'S')
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN LATERAL (SELECT pg_catalog.array_position(e.extconfig, c.oid) AS place) cfg ON true
ORDER BY 1, 2, 3
"""

_LOST = {
    "subscriptions": _UNCOVERED[
        "Subscriptions of {place} ({found}) are kept as definitions, without their state, and not enabled."
    ],
    "prepared transactions": _UNCOVERED[
        "What prepared transactions ({found}) have done in {place} is not in this backup: they have not ended."
    ],
    "options of user mappings for the foreign servers": _UNCOVERED[
        "Options of user mappings for foreign servers ({found}) are not in this backup: this role may not read them."
    ],
    "indexes that are not valid": _UNCOVERED["Indexes of {place} that are not valid ({found}) are not in this backup."],
}
"""What goes with a database whose content is dropped, and is in no backup; settings of the database itself stay."""


def lost_by_dropping(session: Session) -> list[str]:
    """Say what of the open database would go with its content and come back from no backup, each as a phrase."""
    queries = ", ".join(f"({query.replace('{own}', _OWN)})" for query in _LOST.values())
    row = session.execute(f"SELECT {queries}".encode()).fetchone()
    assert row is not None
    lost = [f"{what} ({found})" for what, found in zip(_LOST, row, strict=True) if found]
    return [*_rows_of_extensions(session), *lost]


def _rows_of_extensions(session: Session) -> list[str]:
    """Name the tables of extensions that hold more than the extension would bring along when it is recreated."""
    found: dict[str, list[str]] = {}
    for extension, schema, name, kind, registered, condition, makers, readable in session.execute(
        _EXTENSION_TABLES.encode()
    ).fetchall():
        quoted = identifier(str(schema), str(name))
        if not readable:
            found.setdefault(str(extension), []).append(f"{quoted}, which this role may not read")
        elif kind == "S":
            if registered and _exists(session, f"SELECT FROM {quoted} WHERE is_called"):
                found.setdefault(str(extension), []).append(f"the position of {quoted}")
        elif _exists(session, f"SELECT FROM ONLY {quoted} {_own_rows(bool(registered), str(condition), str(makers))}"):
            found.setdefault(str(extension), []).append(f"rows of {quoted}")
    return [f"{', '.join(names)} (of extension {extension})" for extension, names in found.items()]


def _own_rows(registered: bool, condition: str, makers: str) -> str:
    """Select the rows that users wrote: as the extension says, or where it says nothing, those of other transactions.

    The rows that CREATE EXTENSION writes are of the transaction that made the table.
    """
    if registered:
        return condition
    return f"WHERE xmin::text <> ALL (pg_catalog.string_to_array({literal(makers)}, ','))"


def _exists(session: Session, query: str) -> bool:
    # the condition of an extension may name what its schema holds
    row = session.execute(f"SELECT EXISTS ({query})".encode()).fetchone()
    return bool(row and row[0])


_UNREADABLE = """
SELECT n.nspname::text, c.relname::text,
       CASE WHEN pg_catalog.row_security_active(c.oid) THEN 'row level security hides rows from this role'
            ELSE 'this role may not read it' END
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'
  AND (pg_catalog.row_security_active(c.oid) OR NOT (
       pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'SELECT')))
ORDER BY 1, 2
"""


def unreadable(session: Session, included: Callable[[str, str], bool]) -> list[tuple[tuple[str, str], str]]:
    """Name the chosen tables whose rows this role cannot read, each with the reason."""
    rows = [(str(schema), str(name), str(why)) for schema, name, why in session.execute(_UNREADABLE.encode())]
    return [((schema, name), why) for schema, name, why in rows if included(schema, name)]


_UNLOGGED = """
SELECT n.nspname::text, c.relname::text
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'S') AND c.relpersistence = 'u' AND pg_catalog.pg_is_in_recovery()
  AND n.nspname !~ '^pg_toast' ORDER BY 1, 2
"""


def unlogged_on_standby(session: Session) -> list[tuple[str, str]]:
    """Name the tables and sequences that only the primary has rows of; none where this is one."""
    return [(str(schema), str(name)) for schema, name in session.execute(_UNLOGGED.encode())]
