"""Open transactions of several writers, interleaved at random with backups; each incremental equals a full scan.

All sessions are driven by one thread, so that a seed repeats its failure. What would block is given up at once.
`LASTGOOD_WRITERS` says how many seeds are tried. Two plans back up each history, with a slot and without: what one
proves of a state, the other proves of the same.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import psycopg
import pytest

from blocks.records import BackupType
from blocks.sources.postgres.read.view import PostgresView
from blocks.sources.reading import Unchanged
from tests.blocks.sources.postgres.kit import Books
from tests.postgres_server import PostgresServer

STEPS = 220

TABLES = r"""
CREATE TYPE side AS ENUM ('a', 'b');
CREATE TABLE orders (id int PRIMARY KEY, v text, s side) WITH (fillfactor = 50);
INSERT INTO orders SELECT g, 'v' || g, 'a' FROM generate_series(1, 60) g;
CREATE TABLE twins (LIKE orders INCLUDING ALL);
INSERT INTO twins SELECT id, 'twin', 'b' FROM orders WHERE id % 3 = 0;
CREATE TABLE quotes (symbol text PRIMARY KEY, v int);
INSERT INTO quotes SELECT 'S' || g, g FROM generate_series(1, 40) g;
CREATE TABLE keyless (a int, b text);
INSERT INTO keyless SELECT g % 4, 'k' FROM generate_series(1, 12) g;
CREATE TABLE spread (id int, at int, v text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE low PARTITION OF spread FOR VALUES FROM (0) TO (30);
CREATE TABLE high PARTITION OF spread FOR VALUES FROM (30) TO (1000);
INSERT INTO spread SELECT g, g, 's' FROM generate_series(1, 60) g;
CREATE TABLE marks (id text PRIMARY KEY, n int, v text) WITH (fillfactor = 50);
INSERT INTO marks SELECT md5(g::text), g, repeat('m', 20) FROM generate_series(1, 70) g;
ANALYZE marks;
CREATE SEQUENCE counting;
SELECT lo_from_bytea(1000 + g, decode(repeat('ab', 1500 * g), 'hex')) FROM generate_series(1, 3) g;
"""

WRITES = (
    "UPDATE orders SET v = v || 'x' WHERE id = %(k)s",
    "UPDATE orders SET v = v WHERE id BETWEEN %(k)s AND %(o)s",
    "DELETE FROM orders WHERE id = %(k)s",
    "INSERT INTO orders VALUES (%(k)s, 'i', 'b') ON CONFLICT (id) DO UPDATE SET v = 'c'",
    "INSERT INTO orders VALUES (%(k)s, 'i', 'a') ON CONFLICT DO NOTHING",
    "UPDATE orders SET id = %(o)s WHERE id = %(k)s",
    "WITH d AS (DELETE FROM orders WHERE id = %(k)s RETURNING *) INSERT INTO twins SELECT * FROM d",
    "DELETE FROM orders WHERE id = %(k)s; INSERT INTO orders VALUES (%(k)s, 'again', 'a')",
    "INSERT INTO orders SELECT g, 'many', 'b' FROM generate_series(%(k)s, %(k)s + 30) g ON CONFLICT DO NOTHING",
    "SELECT FROM orders WHERE id BETWEEN %(k)s AND %(o)s FOR UPDATE",
    "SELECT FROM orders WHERE id BETWEEN %(k)s AND %(o)s FOR SHARE",
    "SELECT FROM orders WHERE id BETWEEN %(k)s AND %(o)s FOR KEY SHARE",
    "UPDATE quotes SET v = v + 1 WHERE v = %(k)s",
    "UPDATE quotes SET symbol = lower(symbol) || %(o)s WHERE v = %(k)s",
    "INSERT INTO keyless SELECT %(k)s %% 5, 'k'",
    "DELETE FROM keyless WHERE ctid = (SELECT min(ctid) FROM keyless WHERE a = %(k)s %% 5)",
    "UPDATE spread SET at = %(o)s WHERE id = %(k)s",
    "INSERT INTO spread VALUES (%(k)s, %(o)s, 'new') ON CONFLICT (id, at) DO UPDATE SET v = 'again'",
    "UPDATE marks SET v = v || 'x' WHERE n = %(k)s",
    "UPDATE marks SET v = 'much' WHERE id < md5('%(k)s') AND n > %(o)s",
    "DELETE FROM marks WHERE n = %(k)s",
    "INSERT INTO marks VALUES (md5('%(k)s'), %(o)s, 'new') ON CONFLICT (id) DO UPDATE SET n = excluded.n",
    "UPDATE marks SET id = md5('%(o)s') WHERE n = %(k)s AND NOT EXISTS (SELECT FROM marks WHERE id = md5('%(o)s'))",
    "SELECT nextval('counting')",
    "SELECT lo_put(1000 + 1 + %(k)s %% 3, %(o)s * 40, 'put')",
    "SELECT lo_unlink(oid) FROM pg_largeobject_metadata WHERE oid = 1000 + %(k)s %% 6",
    "SELECT lo_from_bytea(1000 + %(k)s %% 6, decode(repeat('cd', 3000), 'hex'))",
)

UPKEEP = (
    ("VACUUM",),
    ("VACUUM (FREEZE) orders", "VACUUM (FREEZE) pg_largeobject"),
    ("VACUUM FULL orders",),
    ("CLUSTER orders USING orders_pkey",),
    ("TRUNCATE quotes",),
    ("BEGIN; TRUNCATE quotes; INSERT INTO quotes SELECT 'T' || g, g FROM generate_series(1, 20) g; COMMIT",),
    ("ALTER TABLE quotes DROP COLUMN v; ALTER TABLE quotes ADD COLUMN v int DEFAULT 7",),
    ("ALTER TABLE orders RENAME TO o; ALTER TABLE twins RENAME TO orders; ALTER TABLE o RENAME TO twins",),
    ("ALTER TABLE spread DETACH PARTITION low", "ALTER TABLE spread ATTACH PARTITION low FOR VALUES FROM (0) TO (30)"),
    ("ALTER TYPE side RENAME VALUE 'a' TO 'c'; ALTER TYPE side RENAME VALUE 'b' TO 'a';"
     " ALTER TYPE side RENAME VALUE 'c' TO 'b'",),
    ("ALTER TABLE keyless RENAME TO k; ALTER TABLE k RENAME TO keyless",),
    ("CREATE TABLE fresh (LIKE quotes INCLUDING ALL); INSERT INTO fresh SELECT symbol, v * 2 FROM quotes;"
     " ALTER TABLE quotes RENAME TO old; ALTER TABLE fresh RENAME TO quotes; DROP TABLE old",),
    ("REINDEX TABLE orders",),
    ("CLUSTER marks USING marks_pkey",),
    ("DELETE FROM pg_statistic WHERE starelid = 'marks'::regclass",),
    ("ANALYZE",),
    ("SELECT txid_current()",) * 50,
)  # fmt: skip


class Session:
    """One writer's connection, perhaps with a transaction open, perhaps with savepoints in it."""

    def __init__(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        self.connection = connection
        self.open = False
        self.savepoints = 0
        connection.execute("SET lock_timeout = 10")

    def run(self, statement: str) -> bool:
        """Run statements; what cannot be done leaves the transaction as it was."""
        if not self.open:
            return self._tried(statement)
        self.connection.execute("SAVEPOINT guard")
        done = self._tried(statement)
        self.connection.execute("RELEASE guard" if done else "ROLLBACK TO guard")
        return done

    def _tried(self, statement: str) -> bool:
        try:
            self.connection.execute(statement.encode())
        except psycopg.Error:
            if not self.open:
                self.connection.execute("ROLLBACK")
            return False
        return True

    def nest(self, how: str) -> None:
        """Set a savepoint, release the last one, or roll back to it."""
        if how == "SAVEPOINT":
            self.savepoints += 1
        if self.savepoints:
            self.connection.execute(f"{how} s{self.savepoints}".encode())
            self.savepoints -= how == "RELEASE"

    def end(self, how: str) -> bool:
        """End the transaction."""
        self.open, self.savepoints = False, 0
        return self._tried(how)


class Writers:
    """Three writers, somebody who looks after the tables, and backups."""

    def __init__(self, server: PostgresServer, folder: Path, seed: int) -> None:
        self.random = random.Random(seed)
        size = self.random.choice((500, 1500, 100_000))
        self.books = Books(server, folder, "model", part_size_bytes=size, lock_timeout_seconds=2)
        self.told = self.books.beside("told", slot="model")
        self.sessions = [Session(server.connect("model")) for _ in range(3)]
        self.upkeep = Session(server.connect("model"))
        self.prepared: list[str] = []
        self.done: list[str] = []
        for books in (self.books, self.told):
            books.back_up(BackupType.FULL)

    def step(self) -> None:
        """Do one thing."""
        (what,) = self.random.choices(
            (self.write, self.begin_or_end, self.end_a_prepared_one, self.maintain, self.back_up, self.prove),
            (60, 20, 2, 6, 5, 5),
        )
        what()

    def write(self) -> None:
        session, statement = self.random.choice(self.sessions), self.random.choice(WRITES)
        if session.open and self.random.random() < 0.3:
            session.nest(self.random.choice(("SAVEPOINT", "SAVEPOINT", "RELEASE", "ROLLBACK TO")))
        self._run(session, statement % {"k": self.random.randint(1, 70), "o": self.random.randint(1, 70)})

    def _run(self, session: Session, statement: str) -> None:
        if session.run(statement):
            self.done.append(statement)

    def begin_or_end(self) -> None:
        session = self.random.choice(self.sessions)
        if not session.open:
            session.open = session.run("BEGIN")
            return
        how = self.random.choice(("COMMIT", "COMMIT", "ROLLBACK", "PREPARE TRANSACTION"))
        name = f"model-{self.random.getrandbits(60)}"
        if session.end(f"{how} '{name}'" if "PREPARE" in how else how) and "PREPARE" in how:
            self.prepared.append(name)

    def end_a_prepared_one(self) -> None:
        if self.prepared:
            assert self.upkeep.run(f"{self.random.choice(('COMMIT', 'ROLLBACK'))} PREPARED '{self.prepared.pop()}'")

    def maintain(self) -> None:
        for statement in self.random.choice(UPKEEP):
            self._run(self.upkeep, statement)

    def back_up(self) -> None:
        kinds = (BackupType.INCREMENTAL,) * 5 + (BackupType.DIFFERENTIAL,)
        self.random.choice((self.books, self.told)).back_up(self.random.choice(kinds))

    def prove(self) -> None:
        """A snapshot reads everything, and no other backup depends on it."""
        whole = self.books.back_up(BackupType.SNAPSHOT)
        for books in (self.books, self.told):
            made = books.back_up()
            assert books.differences(made, whole) == {}, (books.plan.name, self.done)
            # how much log the slot holds back differs from one moment to the next
            one, other = ({**each.sources[0].definition, "slot": None} for each in (made, whole))
            assert one == other
        self.done.clear()

    def close(self) -> None:
        for session in (*self.sessions, self.upkeep):
            session.connection.close()
        for name in self.prepared:
            self.books.run(f"COMMIT PREPARED '{name}'")


@pytest.mark.parametrize("seed", range(int(os.environ.get("LASTGOOD_WRITERS", "3"))))
@pytest.mark.share(3)
def test_incrementals_equal_a_full_scan_whatever_is_open(
    logical: PostgresServer, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a plan without a slot, and those of one with a slot, which all see the same state."""
    read: list[bool] = []
    told = PostgresView._read_changed

    def noted(self: PostgresView, *args: Any) -> Any:
        reading = told(self, *args)
        read.append(reading is not None and not isinstance(reading, Unchanged))
        return reading

    monkeypatch.setattr(PostgresView, "_read_changed", noted)
    logical.create("model", TABLES)
    try:
        writers = Writers(logical, tmp_path, seed)
        try:
            for _ in range(STEPS):
                writers.step()
        finally:
            writers.close()
        writers.prove()
        for books in (writers.books, writers.told):
            books.assert_restores()
    finally:
        logical.run("model", "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
    assert any(read)
