"""What may not be rebuilt from a backup is said when the backup is made, and the backup is made all the same."""

from __future__ import annotations

from typing import Any

import pytest

from blocks.sources.postgres.read import suspects
from tests.blocks.sources.postgres.hand import source_of
from tests.postgres_server import PostgresServer


def said(server: PostgresServer, **fields: Any) -> list[str]:
    with source_of(server, "suspected", **fields).view() as view:
        return list(view.warnings)


def test_orphans_lost_extensions_and_other_collations_are_named(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.create(
        "suspected",
        'CREATE SCHEMA "a b"',
        'CREATE TABLE "a b"."up" (x text, y int, PRIMARY KEY (x, y))',
        'INSERT INTO "a b"."up" VALUES (\'x\', 1)',
        'CREATE TABLE down (id int PRIMARY KEY, y bigint, x text COLLATE "C", CONSTRAINT "its up" FOREIGN KEY (x, y)'
        ' REFERENCES "a b"."up" (x, y))',
        "CREATE TABLE parts (id int PRIMARY KEY, of int CONSTRAINT whole REFERENCES down) PARTITION BY RANGE (id)",
        "CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100)",
        "INSERT INTO down VALUES (1, 1, 'x'), (2, NULL, 'nobody'), (3, 9, NULL)",
        "INSERT INTO parts VALUES (1, 1), (2, NULL)",
        "CREATE TABLE reads (id int PRIMARY KEY, of int); INSERT INTO reads VALUES (1, 99)",
        "ALTER TABLE reads ADD CONSTRAINT unproved FOREIGN KEY (of) REFERENCES down NOT VALID",
        # an immutable function that cannot even be planned with is passed over
        "CREATE FUNCTION lost() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1'",
        "CREATE TABLE odd (id int PRIMARY KEY, of int REFERENCES down)",
        "CREATE INDEX ON odd (id) WHERE id > lost()",
        "CREATE EXTENSION pg_trgm",
    )
    assert said(server) == []
    server.run(
        "suspected",
        "SET session_replication_role = replica; INSERT INTO parts VALUES (3, 99); INSERT INTO down VALUES (4, 9, 'x')",
        "UPDATE pg_extension SET extname = 'gone' WHERE extname = 'pg_trgm'",
        "UPDATE pg_collation SET collversion = '0' WHERE collname = 'de-x-icu'",
        'CREATE TABLE sorted (t text COLLATE "de-x-icu")',
        "CREATE OR REPLACE FUNCTION lost() RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN nowhere.f(); END'",
    )
    found = said(server)
    assert len(found) == 4
    assert "Extensions of" in found[0]
    assert "(gone)" in found[0]
    assert '(pg_catalog."de-x-icu")' in found[1]
    assert "Rows of public.parts in" in "".join(found[2:])
    assert "foreign key whole" in "".join(found[2:])
    assert "foreign key its up" in "".join(found[2:])
    (narrowed,) = said(server, exclude=["public.parts*", "public.down"])
    assert narrowed == found[1], "what is not in the backup was said"
    monkeypatch.setattr(suspects, "ORPHANS_LOOKED_FOR_BYTES", 8192)
    assert len(said(server)) == 2, "tables of more than the bound were looked at"
