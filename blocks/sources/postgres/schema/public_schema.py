"""The schema `public` brought back to what CREATE DATABASE makes.

From PostgreSQL 15 on it may be dropped and recreated. Before, pg_dump takes the privileges of a schema that initdb did
not make for changed ones and writes them down, so that a database would not look like its backup for ever after: there
the schema stays, and what is in it goes.
"""

from __future__ import annotations

from blocks.sources.postgres.connect import Session

_CONTENTS = """
SELECT 'DROP ' || CASE o.type WHEN 'statistics object' THEN 'STATISTICS' WHEN 'composite type' THEN 'TYPE'
                  ELSE o.type END || ' IF EXISTS ' || o.identity || ' CASCADE'
FROM pg_catalog.pg_depend d
CROSS JOIN LATERAL pg_catalog.pg_identify_object(d.classid, d.objid, 0) o
WHERE d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.refobjid = 'public'::pg_catalog.regnamespace
  AND d.deptype = 'n' AND o.type NOT IN ('default acl', 'extension')
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend i
                  WHERE i.classid = d.classid AND i.objid = d.objid AND i.refobjid <> i.objid AND i.deptype = 'i')
"""

_DEFAULT_PRIVILEGES = """
SELECT DISTINCT 'ALTER DEFAULT PRIVILEGES FOR ROLE ' || pg_catalog.quote_ident(owner.rolname) || ' IN SCHEMA public'
  || ' REVOKE ALL ON ' || CASE d.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES'
     WHEN 'f' THEN 'FUNCTIONS' WHEN 'T' THEN 'TYPES' END
  || ' FROM ' || coalesce(pg_catalog.quote_ident(grantee.rolname), 'PUBLIC')
FROM pg_catalog.pg_default_acl d
CROSS JOIN LATERAL pg_catalog.aclexplode(d.defaclacl) a
JOIN pg_catalog.pg_roles owner ON owner.oid = d.defaclrole
LEFT JOIN pg_catalog.pg_roles grantee ON grantee.oid = a.grantee
WHERE d.defaclnamespace = 'public'::pg_catalog.regnamespace
"""

_OWNER = (
    "SELECT 'ALTER SCHEMA public OWNER TO ' || pg_catalog.quote_ident(rolname) FROM pg_catalog.pg_roles WHERE oid = 10"
)

_PRIVILEGES = """
SELECT DISTINCT 'REVOKE ALL ON SCHEMA public FROM '
  || coalesce(pg_catalog.quote_ident(r.rolname), 'PUBLIC') || ' CASCADE'
FROM pg_catalog.pg_namespace n
CROSS JOIN LATERAL pg_catalog.aclexplode(n.nspacl) a
LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee
WHERE n.nspname = 'public' AND a.grantee <> n.nspowner
"""


def renew_public(session: Session) -> None:
    """Empty the schema, inside the open transaction; extensions have been dropped."""
    if session.info.server_version >= 150000:
        session.execute("DROP SCHEMA IF EXISTS public CASCADE")
        session.execute("CREATE SCHEMA public")
        session.execute("ALTER SCHEMA public OWNER TO pg_database_owner")
        session.execute("GRANT USAGE ON SCHEMA public TO PUBLIC")
    else:
        session.execute("CREATE SCHEMA IF NOT EXISTS public")
        for query in (_CONTENTS, _DEFAULT_PRIVILEGES, _OWNER, _PRIVILEGES):
            for (statement,) in session.execute(query.encode()).fetchall():
                session.execute(str(statement).encode())
        session.execute("GRANT ALL ON SCHEMA public TO PUBLIC")
    session.execute("COMMENT ON SCHEMA public IS 'standard public schema'")
