"""What a database has that no backup of it keeps: looked for each time, and said."""

from __future__ import annotations

from blocks.sources.postgres.connect import Session, literal

_OWN = "(SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())"

_UNCOVERED = {
    "Settings of the database {place} (ALTER DATABASE or ALTER ROLE ... SET: {found}) are not in this backup.": """
        SELECT pg_catalog.string_agg(DISTINCT pg_catalog.split_part(one, '=', 1), ', ')
        FROM pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) one WHERE s.setdatabase = {own}""",
    "The {found} of the database {place} itself are not in this backup.": """
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
        session: Inside the snapshot.
        place: For messages.
        slot: The replication slot of the backups themselves.
    """
    own = literal(slot or "")
    queries = ", ".join(f"({q.replace('{own}', _OWN).replace('{slot}', own)})" for q in _UNCOVERED.values())
    row = session.execute(f"SELECT {queries}".encode()).fetchone()
    assert row is not None
    pairs = zip(_UNCOVERED, row, strict=True)
    return [sentence.format(place=place, found=found) for sentence, found in pairs if found]
