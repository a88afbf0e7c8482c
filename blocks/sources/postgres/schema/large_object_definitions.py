"""Definitions of large objects: their numbers, owners, privileges, comments and labels.

pg_dump writes them among the definitions before version 17, and among the data since. Here they are always written the
same way, so that it does not matter which pg_dump is at hand.
"""

from __future__ import annotations

from blocks.sources.postgres.connect import Session, identifier, literal

_HEADER = "--\n-- Name: LARGE OBJECTS; Type: LARGE OBJECTS; Schema: -; Owner: -\n--\n"

_OBJECTS = """
SELECT m.oid::int8, o.rolname::text, m.lomacl IS NOT NULL, d.description
FROM pg_catalog.pg_largeobject_metadata m
JOIN pg_catalog.pg_roles o ON o.oid = m.lomowner
LEFT JOIN pg_catalog.pg_description d
  ON d.classoid = 'pg_catalog.pg_largeobject'::pg_catalog.regclass AND d.objoid = m.oid
ORDER BY m.oid
"""

_PRIVILEGES = """
SELECT m.oid::int8, grantor.rolname::text, grantee.rolname::text, a.privilege_type, a.is_grantable
FROM pg_catalog.pg_largeobject_metadata m
CROSS JOIN LATERAL pg_catalog.aclexplode(m.lomacl) WITH ORDINALITY a (grantor, grantee, privilege_type, is_grantable, n)
JOIN pg_catalog.pg_roles grantor ON grantor.oid = a.grantor
LEFT JOIN pg_catalog.pg_roles grantee ON grantee.oid = a.grantee
ORDER BY m.oid, a.n
"""

_LABELS = """
SELECT objoid::int8, provider, label FROM pg_catalog.pg_seclabel
WHERE classoid = 'pg_catalog.pg_largeobject'::pg_catalog.regclass ORDER BY 1, 2
"""


def large_object_definitions(session: Session) -> str:
    """Write the statements that make all large objects, empty, with what belongs to them."""
    privileges: dict[int, list[tuple[str, str | None, str, bool]]] = {}
    for number, grantor, grantee, privilege, grantable in session.execute(_PRIVILEGES.encode()):
        to = None if grantee is None else str(grantee)
        privileges.setdefault(int(str(number)), []).append((str(grantor), to, str(privilege), bool(grantable)))
    creation: list[str] = []
    lines: list[str] = []
    role = None
    for oid, owner, restricted, comment in session.execute(_OBJECTS.encode()):
        number = int(str(oid))
        if owner != role:
            # made by their owner, because to give away each one would lock each one, and locks are few
            role = owner
            creation.append(f"SET ROLE {identifier(str(owner))};")
        creation.append(f"SELECT pg_catalog.lo_create('{number}');")
        if restricted:
            lines += _privileges(number, str(owner), privileges.get(number, []))
        if comment is not None:
            lines.append(f"COMMENT ON LARGE OBJECT {number} IS {literal(str(comment))};")
    if creation:
        creation.append("RESET ROLE;")
    for oid, provider, label in session.execute(_LABELS.encode()):
        name = identifier(str(provider))
        lines.append(f"SECURITY LABEL FOR {name} ON LARGE OBJECT {oid} IS {literal(str(label))};")
    # an entry of its own, as pg_dump begins each, for what takes its text apart
    return "".join(f"{line}\n" for line in [_HEADER, *creation, *lines]) if creation else ""


def _privileges(number: int, owner: str, granted: list[tuple[str, str | None, str, bool]]) -> list[str]:
    on = f"ON LARGE OBJECT {number}"
    lines = [f"REVOKE ALL {on} FROM {identifier(owner)};"]
    for grantor, grantee, privilege, grantable in granted:
        to = "PUBLIC" if grantee is None else identifier(grantee)
        line = f"GRANT {privilege} {on} TO {to}{' WITH GRANT OPTION' * grantable};"
        if grantor != owner:
            # a privilege that was passed on is its grantor's to give
            line = f"SET SESSION AUTHORIZATION {literal(grantor)};\n{line}\nRESET SESSION AUTHORIZATION;"
        lines.append(line)
    return lines
