"""Privileges on what PostgreSQL itself brings, as initdb gave them.

pg_dump writes those down that differ from that, so they belong to the definitions of a database.
"""

from __future__ import annotations

from blocks.sources.postgres.connect import Session
from blocks.sources.postgres.schema.contents import FIRST_OF_USERS

_CHANGED = f"""
WITH objects (classid, objid, kind, word, identity, owner, acl) AS (
    SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, oid, 'f', 'ROUTINE',
           oid::pg_catalog.regprocedure::pg_catalog.text, proowner, proacl
    FROM pg_catalog.pg_proc WHERE pronamespace = 'pg_catalog'::pg_catalog.regnamespace AND oid < {FIRST_OF_USERS}
    UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, oid, 'r', 'TABLE',
           'pg_catalog.' || pg_catalog.quote_ident(relname), relowner, relacl
    FROM pg_catalog.pg_class WHERE relnamespace = 'pg_catalog'::pg_catalog.regnamespace AND oid < {FIRST_OF_USERS}
      AND relkind IN ('r', 'v')
    UNION ALL SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, oid, 'T', 'TYPE',
           'pg_catalog.' || pg_catalog.quote_ident(typname), typowner, typacl
    FROM pg_catalog.pg_type WHERE typnamespace = 'pg_catalog'::pg_catalog.regnamespace AND oid < {FIRST_OF_USERS}
    UNION ALL SELECT 'pg_catalog.pg_language'::pg_catalog.regclass, oid, 'l', 'LANGUAGE',
           pg_catalog.quote_ident(lanname), lanowner, lanacl
    FROM pg_catalog.pg_language WHERE oid < {FIRST_OF_USERS}
    UNION ALL SELECT 'pg_catalog.pg_namespace'::pg_catalog.regclass, oid, 'n', 'SCHEMA', 'pg_catalog',
           nspowner, nspacl
    FROM pg_catalog.pg_namespace WHERE nspname = 'pg_catalog'
), columns (objid, number, name, acl) AS (
    SELECT attrelid, attnum, pg_catalog.quote_ident(attname), attacl FROM pg_catalog.pg_attribute
    WHERE attrelid < {FIRST_OF_USERS} AND attnum > 0
), now (classid, objid, number, acl) AS (
    SELECT classid, objid, 0, coalesce(acl, pg_catalog.acldefault(kind::"char", owner)) FROM objects
    UNION ALL SELECT o.classid, o.objid, c.number, c.acl FROM objects o JOIN columns c USING (objid)
    WHERE o.word = 'TABLE' AND c.acl IS NOT NULL
), first (classid, objid, number, acl) AS (
    SELECT o.classid, o.objid, 0, coalesce(i.initprivs, pg_catalog.acldefault(o.kind::"char", o.owner))
    FROM objects o LEFT JOIN pg_catalog.pg_init_privs i
      ON i.classoid = o.classid AND i.objoid = o.objid AND i.objsubid = 0 AND i.privtype = 'i'
    UNION ALL SELECT o.classid, o.objid, i.objsubid, i.initprivs
    FROM objects o JOIN pg_catalog.pg_init_privs i
      ON i.classoid = o.classid AND i.objoid = o.objid AND i.objsubid > 0 AND i.privtype = 'i'
), granted_now AS (
    SELECT n.classid, n.objid, n.number, a.* FROM now n, LATERAL pg_catalog.aclexplode(n.acl) a
), granted_first AS (
    SELECT f.classid, f.objid, f.number, a.* FROM first f, LATERAL pg_catalog.aclexplode(f.acl) a
), changed AS (
    SELECT classid, objid FROM (SELECT * FROM granted_now EXCEPT SELECT * FROM granted_first) more
    UNION SELECT classid, objid FROM (SELECT * FROM granted_first EXCEPT SELECT * FROM granted_now) less
), statements (objid, step, statement) AS (
    SELECT o.objid, 1, pg_catalog.concat('REVOKE ALL ON ', o.word, ' ', o.identity, ' FROM ', {{now}}, ' CASCADE')
    FROM objects o JOIN changed USING (classid, objid) JOIN granted_now n USING (classid, objid)
    UNION SELECT o.objid, 2, pg_catalog.concat('GRANT ', f.privilege_type, ' (' || c.name || ')', ' ON ', o.word, ' ',
        o.identity, ' TO ', {{first}}, CASE WHEN f.is_grantable THEN ' WITH GRANT OPTION' END)
    FROM objects o JOIN changed USING (classid, objid) JOIN granted_first f USING (classid, objid)
    LEFT JOIN columns c ON o.word = 'TABLE' AND c.objid = o.objid AND c.number = f.number
)
SELECT statement FROM statements ORDER BY objid, step, statement
"""

_ROLE = (
    "CASE WHEN {0}.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid({0}.grantee)) END"
)


def changed_system_privileges(session: Session) -> list[str]:
    """Return the statements that give PostgreSQL's own objects the privileges that initdb gave them."""
    query = _CHANGED.replace("{now}", _ROLE.format("n")).replace("{first}", _ROLE.format("f"))
    return [str(statement) for (statement,) in session.execute(query.encode())]
