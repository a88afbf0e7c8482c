# ruff: noqa: E501  statements of SQL are not broken
"""Backups that name roles, restored to where these are missing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from blocks.errors import RestoreRefused
from blocks.records import BackupType
from tests.blocks.sources.postgres.kit import Books
from tests.postgres_server import PostgresServer

ROLES = ("gone owner", "gone_reader", "gone_policy", "gone_mapped")
TABLES = """
CREATE SCHEMA held AUTHORIZATION "gone owner";
CREATE TABLE held.t (id int PRIMARY KEY, "to" text DEFAULT 'ALTER TABLE held.t OWNER TO nobody;');
INSERT INTO held.t VALUES (1, 'GRANT ALL ON held.t TO nobody;');
CREATE TABLE later (id int PRIMARY KEY); INSERT INTO later VALUES (1);
ALTER TABLE held.t OWNER TO "gone owner";
GRANT SELECT ("to") ON held.t TO gone_reader; GRANT SELECT ON held.t TO PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE "gone owner" GRANT SELECT ON TABLES TO gone_reader;
CREATE POLICY named ON held.t TO gone_policy, PUBLIC USING (id > 1);
CREATE POLICY everybody ON held.t USING ("to" = 'TO nobody');
CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; CREATE USER MAPPING FOR gone_mapped SERVER s;
SELECT lo_from_bytea(7001, 'x'); ALTER LARGE OBJECT 7001 OWNER TO "gone owner"; GRANT SELECT ON LARGE OBJECT 7001 TO gone_reader;
"""


@pytest.fixture(scope="module")
def moved(server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Books]:
    """A backup, of a server whose roles are gone since."""
    server.run("postgres", *(f'CREATE ROLE "{name}"' for name in ROLES))
    server.create("roles", TABLES.replace("gone_policy, PUBLIC", "gone_policy"))
    books = Books(server, tmp_path_factory.mktemp("roles"), "roles")
    books.back_up(BackupType.FULL)
    server.run("postgres", "DROP DATABASE roles", *(f'DROP ROLE "{name}"' for name in ROLES))
    yield books
    server.run("postgres", "DROP DATABASE IF EXISTS roles")


def test_missing_roles_are_named_before_anything_is_written_with_what_does_without_them(moved: Books) -> None:
    for existing in (True, False):
        if existing:
            moved.server.create("roles")
        else:
            moved.server.run("postgres", "DROP DATABASE roles")
        with pytest.raises(RestoreRefused) as refused:
            moved.restore()
        assert all(name in refused.value.hint for name in (*ROLES, "--no-owner", "restore_privileges: false"))
    assert "role gone owner, which owns what is restored, does not exist" in refused.value.message
    assert "gone_reader, which privileges or policies name" in refused.value.message


def test_a_backup_comes_back_without_owners_and_privileges(moved: Books) -> None:
    plan = moved.plan
    source = moved.source.model_copy(update={"restore_owner": False, "restore_privileges": False})
    moved.plan = plan.model_copy(update={"sources": {"books": source}})
    try:
        for made_before in (False, True):  # missing, then in place over the same definitions
            moved.restore()
            with moved.server.connect("roles") as session:
                assert session.execute('SELECT id, "to" FROM held.t').fetchall() == [
                    (1, "GRANT ALL ON held.t TO nobody;")
                ]
                assert session.execute("SELECT id FROM later").fetchall() == [(1,)]
                assert session.execute("SELECT polname FROM pg_policy").fetchall() == [("everybody",)]
                owners = session.execute("SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE oid > 16384")
                assert owners.fetchall() == [("postgres",)]
                assert session.execute("SELECT relacl FROM pg_class WHERE oid = 'held.t'::regclass").fetchone() == (
                    None,
                )
                assert session.execute("SELECT lo_get(7001)").fetchone() == (b"x",)
            if not made_before:
                moved.run("DELETE FROM held.t")
    finally:
        moved.plan = plan
        moved.server.run("postgres", "DROP DATABASE roles")
