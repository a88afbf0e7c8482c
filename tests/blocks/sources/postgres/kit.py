# ruff: noqa: E501  statements of SQL are not broken where a value would change by it
"""A gallery of odd tables and values, a plan over one database, and ways to look at both."""

from __future__ import annotations

import re
from copy import copy
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from blocks.crypto.keyring import NoEncryption
from blocks.plan.plan import BackupPlan
from blocks.records import BackupMetadata, BackupType
from blocks.repository.block import BackupRepository
from blocks.rows.selection import Selection
from blocks.sources.postgres import PostgresSource
from blocks.sources.postgres.read.readers import Readers
from blocks.sources.target import RestoreMode
from flows.backup import make_backup
from flows.pipeline.chain import Chain
from flows.pipeline.results import RestoreResult
from flows.reading.diff import compare_backups
from flows.restore import make_restore
from flows.restoring.request import RestoreRequest
from tests.postgres_server import PostgresServer

GALLERY = r"""
CREATE EXTENSION hstore;
CREATE EXTENSION citext;
CREATE SCHEMA "Odd.schema";
CREATE TYPE mood AS ENUM ('sad', 'ok', 'it''s "fine"');
CREATE TYPE pair AS (a int, b text);
CREATE TYPE span AS RANGE (subtype = float8);
CREATE DOMAIN posint AS int CHECK (VALUE > 0);
CREATE DOMAIN tag AS bytea;
CREATE DOMAIN name5 AS posint CHECK (VALUE < 100000);

CREATE TABLE every (
    id bigint PRIMARY KEY, b bool, i2 int2, i4 int4, i8 int8, f4 real, f8 float8, n numeric, n2 numeric(40, 10), t text,
    v varchar(10), c char(6), c1 "char", na name, by bytea, d date, tm time, tz timetz, ts timestamp, tsz timestamptz,
    iv interval, u uuid, j json, jb jsonb, ia int[], ta text[][], m mood, ma mood[], p pair, pa pair[], r int4range,
    mr int4multirange, sp span, dom posint, dom2 name5, tg tag, ip inet, ci cidr, mac macaddr, tv tsvector, tq tsquery,
    bi bit(5), vb bit varying, mo money, x xml, h hstore, ct citext, pt point, bx box, jp jsonpath, o oid, rc regclass,
    lsn pg_lsn
);
INSERT INTO every (id) VALUES (1);
INSERT INTO every VALUES (2, true, -32768, -2147483648, -9223372036854775808, 'nan', '-infinity', 'NaN', -0.0000000001,
    '', '', '', 'x', '', '', '-infinity', '24:00', '23:59:59.999999-15:59', '-infinity', 'infinity', '-178000000 years',
    '00000000-0000-0000-0000-000000000000', '{ "b":1, "a" : 1.0e5, "a":2}', '{"b": 1e400, "a": [null, "\u00e9"]}',
    '{}', '{{a,NULL},{"","\"q\\"}}', 'sad', '{sad,NULL}', '(,)', '{"(1,\"x,y\")",NULL}', 'empty', '{}', '[1.5,2.25)', 1, 5,
    '\x', '::1/64', '10.0.0.0/8', '08:00:2b:01:02:03', '''a b'':1A,2 c:3', 'a & !b', B'10101', B'', '-92233720368547758.08',
    '<a>é</a>', '"k"=>NULL, "x"=>"a\"b"', 'MiXed', '(1.5,-0)', '(1,1),(0,0)', '$.a[*] ? (@ > 1)', 4294967295, 'pg_class',
    'FF/FF');
INSERT INTO every (id, f4, f8, n, t, v, c, by, d, ts, tsz, iv, j, ia, r, mo) VALUES
  (3, 0.1, 0.1, 123456789012345678901234567890.123456789, E'tab\tnl\ncr\rbs\\ "quote" , \\N \\.', 'é', 'a  b', '\x000102ff',
   '4713-01-01 BC', '0044-03-15 12:00:00.000001 BC', '294276-12-31 23:59:59.999999+00', '1 mon -2 days 03:04:05.678901',
   'null', '[0:1]={1,2}', '(,5]', 0.01),
  (4, '-0', '-0', 'Infinity', E'\\.', '\.', ' ', '\x5c2e', '5874897-12-31', '1970-01-01', '1969-12-31 23:59:59.999999Z',
   '-00:00:00.000001', '"\ud83d\ude00"', '{{1,2},{3,4}}', '[-5,-2)', -1),
  (5, 3.4028235e38, 5e-324, '-Infinity', E'\\.\n\\.\n', E'\n', 'abcdef', decode(repeat('ff', 5000), 'hex'), 'infinity',
   'infinity', '-infinity', '0', '[]', '{NULL}', '(,)', 1e6);

CREATE TYPE deep AS (p pair, many pair[], m mood, r numrange, t timestamptz);
CREATE DOMAIN numbers AS int[] CHECK (array_length(VALUE, 1) < 9);
CREATE DOMAIN whole AS pair CHECK ((VALUE).a > 0);
CREATE DOMAIN days AS daterange;
CREATE DOMAIN moods AS mood[];
CREATE TABLE odder (
    id int PRIMARY KEY, a3 int[], at_ text[], af float8[], ats timestamptz[], aiv interval[], ab bool[], an numeric[], ah hstore[],
    act citext[], aby bytea[], aj jsonb[], dp deep, dps deep[], nu numbers, nus numbers[], wh whole, whs whole[], bt days,
    mds moods, nr numrange, tr tsrange, ttr tstzrange, dr daterange, i8r int8range, ar numrange[], big numeric(1000, 500),
    m8 macaddr8, li line, ls lseg, pa path, pg polygon, ci circle, sn pg_snapshot, tx txid_snapshot, x xid, x8 xid8, ti tid, ov oidvector,
    iv2 int2vector, ac aclitem[], rp regproc, rpr regprocedure, ro regoper, ror regoperator, rt regtype, rr regrole, rn regnamespace,
    rcf regconfig, rd regdictionary, rco regcollation, ars regclass[], bits bit(3)[], vb bit varying(70), c1s "char"[], nas name[],
    iym interval year to month, ids interval day to second(2), t0 time(0), ts3 timestamp(3), tqs tsquery, tvs tsvector, v varchar, ch char
);
INSERT INTO odder (id) VALUES (1);
INSERT INTO odder VALUES (2, '[2:3][-1:0][5:5]={{{1},{NULL}},{{3},{4}}}', '[-2:0]={"",NULL,"NULL"}', '{NaN,-Infinity,-0,5e-324}',
    '{infinity,-infinity,"0044-03-15 12:00:00 BC",NULL}', '{"-178000000 years","1 mon -2 days"}', '{t,f,NULL}', '{NaN,1e-20,1E+100}',
    ARRAY['"a"=>NULL'::hstore, NULL], '{MiXed,"{}"}', ARRAY['\x5c2c22'::bytea, '', NULL], ARRAY['{"a": [1e1000]}'::jsonb, 'null', NULL],
    ROW(ROW(NULL, '"q",\(')::pair, ARRAY[ROW(1, NULL)::pair, NULL], 'ok', '[1.50,)', 'infinity'), ARRAY[NULL, ROW(NULL, '{}', NULL, 'empty', NULL)::deep],
    '[0:2]={1,NULL,3}', '{"{1}",NULL}', '(1,)', ARRAY['(2,x)'::whole, NULL], '[-infinity,infinity)', '{sad,NULL}',
    '(,1.000]', '["0044-03-15 00:00:00 BC",infinity]', '(,"2020-01-01 00:00:00.000001+00")', '(,)', '[-9223372036854775808,)',
    ARRAY['empty'::numrange, '[1,2]'], '-1e499', '08:00:2b:ff:fe:01:02:03', '{1,-0,5e-324}', '[(0,0),(-1,1e300)]', '[(0,0),(1,1)]', '((0,0),(1,1),(2,0))',
    '<(0,-0),NaN>', '10:20:10,14,15', '10:20:10,14,15', '4294967295', '18446744073709551615', '(4294967295,65535)', '0 1 4294967295', '-1 0 1',
    ARRAY[makeaclitem(0, 10, 'SELECT', true)], 'pg_catalog.now', 'pg_catalog.abs(integer)', '0', '+(integer,integer)', 'mood[]', 'reader', '"Odd.schema"', 'simple',
    'simple', '"C"', '{pg_class,NULL}', '{101,NULL,000}', repeat('10', 35)::bit varying, ARRAY['\200'::"char", 'x', NULL], ARRAY[repeat('é', 31)::name, ''],
    '-1 years -11 mons', '1 day 00:00:00.12', '24:00:00', 'epoch', '!( ''a b'':*AB | c ) <3> d', '''it''''s'':1A,16383 b', E'\u0001\u007f\u0080\uffff\U0010ffff', 'é');

CREATE TABLE parent (id int GENERATED ALWAYS AS IDENTITY (START 10 INCREMENT 5) PRIMARY KEY, name text NOT NULL UNIQUE,
    shout text GENERATED ALWAYS AS (upper(name)) STORED);
INSERT INTO parent (name) VALUES ('a'), ('b'), ('c');
CREATE TABLE child (id serial PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE, note text DEFAULT 'd');
COMMENT ON CONSTRAINT child_parent_fkey ON child IS 'a child''s own';
INSERT INTO child (parent) SELECT id FROM parent, generate_series(1, 3);
CREATE TABLE tree (id int PRIMARY KEY, up int REFERENCES tree DEFERRABLE INITIALLY DEFERRED);
INSERT INTO tree VALUES (1, 2), (2, 3), (3, 1);
CREATE TABLE audit (what text, at timestamptz);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO public.audit VALUES (TG_OP, now()); RETURN NEW; END$$;
CREATE TRIGGER noted AFTER INSERT OR UPDATE ON child FOR EACH ROW EXECUTE FUNCTION note();
CREATE TRIGGER always AFTER DELETE ON parent FOR EACH ROW EXECUTE FUNCTION note();
ALTER TABLE parent ENABLE ALWAYS TRIGGER always;
UPDATE child SET note = 'n' WHERE id < 3;

CREATE TABLE keyless (a int, b text, f float8);
INSERT INTO keyless VALUES (1, 'x', 1), (1, 'x', 1), (1, 'x', 1), (NULL, NULL, NULL), (NULL, NULL, NULL), (2, '', '-0'), (2, '', 0);
CREATE TABLE "Odd.schema"."T ""q"".x" ("Key" text COLLATE "C", "_key" text, "_" int, PRIMARY KEY ("_key", "Key"));
INSERT INTO "Odd.schema"."T ""q"".x" VALUES ('a', 'B', 1), ('A', 'b', 2), ('', '', 3);
CREATE TABLE insensitive (k citext PRIMARY KEY, v int);
INSERT INTO insensitive VALUES ('Alpha', 1), ('beta', 2), ('GAMMA', 3);
CREATE TABLE moody (m mood PRIMARY KEY, v int);
INSERT INTO moody VALUES ('sad', 1), ('ok', 2);
CREATE TABLE chars (k char(3), n numeric, v int, PRIMARY KEY (k, n));
INSERT INTO chars VALUES ('a', 1.0, 1), ('a', 1.5, 2), ('', 'NaN', 3), ('b', 'Infinity', 4);
CREATE TABLE blank ();
INSERT INTO blank DEFAULT VALUES; INSERT INTO blank DEFAULT VALUES;
CREATE TABLE empty (id int PRIMARY KEY);
CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY); INSERT INTO unlogged VALUES (1);
CREATE TABLE base (id int PRIMARY KEY, v text);
CREATE TABLE derived (w int) INHERITS (base);
INSERT INTO base VALUES (1, 'b'); INSERT INTO derived VALUES (1, 'd', 2);

CREATE TABLE measured (at date NOT NULL, v int, PRIMARY KEY (at, v)) PARTITION BY RANGE (at);
CREATE TABLE measured_1 PARTITION OF measured FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE measured_2 PARTITION OF measured DEFAULT PARTITION BY HASH (v);
CREATE TABLE measured_2a PARTITION OF measured_2 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE measured_2b PARTITION OF measured_2 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO measured SELECT '2020-06-01'::date + 30 * g, g FROM generate_series(1, 20) g;
CREATE TABLE refers (id int PRIMARY KEY, at date, v int, FOREIGN KEY (at, v) REFERENCES measured);
INSERT INTO refers SELECT v, at, v FROM measured WHERE v < 5;

CREATE VIEW seen AS SELECT id, t FROM every;
CREATE MATERIALIZED VIEW summed AS SELECT count(*) AS n FROM child;
CREATE UNIQUE INDEX ON summed (n);
CREATE MATERIALIZED VIEW over AS SELECT n + 1 AS m FROM summed;
CREATE MATERIALIZED VIEW unfilled AS SELECT 1 AS one WITH NO DATA;
CREATE SEQUENCE counting INCREMENT -3 MAXVALUE 100 START 100; SELECT nextval('counting'), nextval('counting');
CREATE SEQUENCE unused;
CREATE INDEX shouting ON every (lower(t)) WHERE id > 1;
CREATE STATISTICS st ON id, b FROM every;
CREATE RULE quiet AS ON DELETE TO empty DO INSTEAD NOTHING;
ALTER TABLE child ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON child USING (id > 1);
GRANT SELECT ON every TO PUBLIC; GRANT UPDATE (t) ON every TO reader;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO reader;
COMMENT ON TABLE every IS 'every; type';
SELECT lo_from_bytea(50001, decode(repeat('00ff', 3000), 'hex')), lo_create(50002), lo_from_bytea(50003, 'x');
GRANT SELECT ON LARGE OBJECT 50003 TO reader;
SELECT lo_put(50003, 10000, 'sparse');
COMMENT ON LARGE OBJECT 50001 IS 'it''s large'; REVOKE ALL ON LARGE OBJECT 50001 FROM postgres;
ALTER LARGE OBJECT 50002 OWNER TO reader;
GRANT UPDATE ON LARGE OBJECT 50003 TO reader WITH GRANT OPTION;
SET SESSION AUTHORIZATION reader; GRANT UPDATE ON LARGE OBJECT 50003 TO PUBLIC; RESET SESSION AUTHORIZATION;
"""

SINCE = {
    14: r"""
CREATE TABLE squeezed (id int PRIMARY KEY, v text COMPRESSION pglz);
INSERT INTO squeezed SELECT g, repeat('squeezed', 265) || g FROM generate_series(1, 5) g;
CREATE PROCEDURE outwards(OUT n int) BEGIN ATOMIC SELECT count(*) FROM squeezed; END;
CREATE TYPE floats AS RANGE (subtype = float8, subtype_diff = float8mi, multirange_type_name = floats_many);
CREATE TABLE ranges (id int PRIMARY KEY, nm nummultirange, tm tsmultirange, ttm tstzmultirange, dm datemultirange, i8m int8multirange,
    own floats_many, am int4multirange[], dom numrange);
INSERT INTO ranges (id) VALUES (1);
INSERT INTO ranges VALUES (2, '{(,1.0],[1.50,Infinity)}', '{["0044-03-15 00:00:00 BC",infinity]}', '{(,"2020-01-01 00:00:00.000001+00")}', '{[-infinity,2020-01-01)}',
    '{[-9223372036854775808,1)}', '{[-0,1),[2,Infinity]}', ARRAY['{}'::int4multirange, '{[1,2),[5,6)}', NULL], '(-Infinity,1.000]');
CREATE STATISTICS of_expressions ON (id % 10), (lower(v)) FROM squeezed;
""",
    15: r"""
CREATE TABLE undistinct (a int NOT NULL, b int, UNIQUE NULLS NOT DISTINCT (a, b));
INSERT INTO undistinct VALUES (1, NULL), (1, 1);
CREATE TABLE scaled (id int PRIMARY KEY, n numeric(3, -2), m numeric(2, 5));
INSERT INTO scaled VALUES (1, 12345, -0.00099);
CREATE VIEW invoked WITH (security_invoker) AS SELECT id FROM squeezed;
CREATE TABLE set_null (id int PRIMARY KEY, at date, v int, FOREIGN KEY (at, v) REFERENCES measured ON DELETE SET NULL (v));
""",
    16: r"""
CREATE TABLE stored (id int PRIMARY KEY, v text STORAGE EXTERNAL);
INSERT INTO stored VALUES (1, repeat('x', 2500));
CREATE FUNCTION bare() RETURNS int LANGUAGE sql RETURN 0x1F + 0o17 + 1_000;
""",
    17: r"""
CREATE TABLE endless (id int PRIMARY KEY, i interval, a interval[]);
INSERT INTO endless VALUES (1, 'infinity', '{-infinity,NULL}');
GRANT MAINTAIN ON every TO reader;
CREATE TABLE numbered (id int GENERATED ALWAYS AS IDENTITY, at int, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE numbered_1 PARTITION OF numbered FOR VALUES FROM (0) TO (10);
INSERT INTO numbered (at) VALUES (1), (2);
""",
    18: r"""
CREATE EXTENSION btree_gist;
CREATE TABLE computed (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) VIRTUAL);
INSERT INTO computed (id) VALUES (1), (2);
CREATE TABLE lasting (id int, during int4range, v text, PRIMARY KEY (id, during WITHOUT OVERLAPS));
INSERT INTO lasting VALUES (1, '[1,5)', 'a'), (1, '[5,9)', 'b'), (2, '[1,9)', 'c');
CREATE TABLE within (id int, during int4range, of int, PRIMARY KEY (id, during WITHOUT OVERLAPS),
    FOREIGN KEY (of, PERIOD during) REFERENCES lasting (id, PERIOD during));
INSERT INTO within VALUES (7, '[2,7)', 1);
CREATE TABLE unproved (id int PRIMARY KEY, a int, b int REFERENCES base NOT ENFORCED);
INSERT INTO unproved VALUES (1, 5, 99);
ALTER TABLE unproved ADD CONSTRAINT filled NOT NULL a NOT VALID;
CREATE TABLE uuids (id uuid DEFAULT uuidv7() PRIMARY KEY); INSERT INTO uuids VALUES (uuidv7());
""",
}
"""What later versions brought, by version."""


def gallery(server: PostgresServer, database: str) -> None:
    """Make a database with one of everything that the server's version has; copy it where the server has made one."""
    with server.connect("postgres") as session:
        if not session.execute("SELECT FROM pg_database WHERE datname = %s", (_MADE,)).fetchone():
            _make_gallery(server)
    server.run(
        "postgres",
        f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)',
        f'CREATE DATABASE "{database}" TEMPLATE "{_MADE}"',
    )


_MADE = "gallery as made"


def _make_gallery(server: PostgresServer) -> None:
    version = server.programs.version
    server.run("postgres", "DO $$BEGIN CREATE ROLE reader LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END$$")
    if version >= 14:
        server.run("postgres", "GRANT pg_read_all_data TO reader")
    server.create(
        _MADE,
        GALLERY if version >= 14 else _of_13(GALLERY),
        *(more for since, more in SINCE.items() if version >= since),
    )


def _of_13(statements: str) -> str:
    """Leave out the infinities of numeric, and multiranges."""
    without = statements.replace("mr int4multirange", "mr text")
    return re.sub(r"('-0', '-0'|5e-324|\('b'), '-?Infinity'", r"\1, 'NaN'", without)


class Books:
    """A database with a plan and a repository."""

    def __init__(self, server: PostgresServer, folder: Path, database: str, **fields: Any) -> None:
        self.server, self.folder, self.database = server, folder, database
        fields = {"part_size_bytes": 700, "pg_dump": str(server.programs.pg_dump)} | fields
        self.source = PostgresSource(dsn=SecretStr(server.dsn(database)), **fields)
        self.plan = BackupPlan(
            name="books",
            sources={"books": self.source},
            repository=BackupRepository(url=str(folder / "repository")),
            encryption=NoEncryption(type="none"),
        )
        self.plan.repository.initialize(self.plan.encryption)

    def beside(self, name: str, **fields: Any) -> Books:
        """Return another plan over the database, with a source that differs, in the same repository."""
        other = copy(self)
        other.source = self.source.model_copy(update=fields)
        other.plan = self.plan.model_copy(update={"name": name, "sources": {"books": other.source}})
        return other

    def run(self, *statements: str) -> None:
        self.server.run(self.database, *statements)

    def back_up(self, kind: BackupType = BackupType.INCREMENTAL) -> BackupMetadata:
        return make_backup(self.plan, kind)

    def restore(
        self,
        backup: BackupMetadata | str = "latest",
        mode: RestoreMode = RestoreMode.EXACT,
        collections: tuple[str, ...] = (),
        keys: tuple[str, ...] = (),
        to: str | None = None,
        adopt: bool = False,
    ) -> RestoreResult:
        wanted = backup if isinstance(backup, str) else backup.backup_id
        asked = RestoreRequest(wanted, mode=mode, selection=Selection(collections, keys), to=to, adopt=adopt)
        return make_restore(self.plan, asked)

    def dump(self, database: str | None = None) -> list[str]:
        return self.server.dump(database or self.database)

    def assert_restores(self) -> None:
        """The chain's end, restored elsewhere, is the live database."""
        copy = f"{self.database}_copy"
        self.restore(to=self.server.dsn(copy))
        try:
            assert self.dump(copy) == self.dump()
        finally:
            self.server.run("postgres", f"DROP DATABASE {copy}")

    def differences(self, one: BackupMetadata, other: BackupMetadata) -> dict[str, dict[str, int]]:
        """Compare all rows of two backups; return what differs by collection."""
        repository = self.plan.repository.unlock(self.plan.encryption)
        found = compare_backups(Chain(repository, one), Chain(repository, other), Selection())
        return {diff.collection: {k.value: n for k, n in diff.counts.items()} for diff in found if diff.total}


def changes(backup: BackupMetadata) -> dict[str, tuple[int, int]]:
    """Upserts and tombstones of the tables in `public`, and of large objects."""
    found = {
        c.name.removeprefix("books/").removeprefix("public."): (c.upserts, c.tombstones) for c in backup.collections
    }
    return {name: counts for name, counts in found.items() if counts != (0, 0)}


def read_rows(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record the queries that backups send to read rows."""
    queries: list[str] = []
    fetch = Readers.fetch

    def recorded(self: Readers, query: str, doing: str) -> Any:
        queries.append(query)
        return fetch(self, query, doing)

    monkeypatch.setattr(Readers, "fetch", recorded)
    return queries
