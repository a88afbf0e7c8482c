"""What docs/format.md says of PostgreSQL: its own Python writes a script that `psql` restores a database with."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.plan.plan import BackupPlan, parse_plan
from blocks.records import BackupType
from flows.backup import make_backup
from tests.blocks.sources.postgres.kit import gallery
from tests.format_support import DOCUMENT, restore
from tests.postgres_server import PostgresServer, postgres_server


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as running:
        yield running


def plan_of(server: PostgresServer, database: str, folder: Path, **fields: object) -> BackupPlan:
    source = {"type": "postgres", "dsn": server.dsn(database), "part_size_bytes": 700} | fields
    raw = {
        "name": "trading",
        "sources": {"books": source},
        "repository": {"url": str(folder / "backups")},
        "encryption": "none",
    }
    plan = parse_plan(raw, "the test's plan")
    plan.repository.initialize(plan.encryption)
    return plan


def run_script(server: PostgresServer, database: str, script: Path) -> None:
    """Make a database as the script says and run it in there, as the document does."""
    created = re.search(r"^-- for a database made by: createdb (.*) NAME$", script.read_text(), re.MULTILINE)
    assert created is not None
    place = ["-h", "127.0.0.1", "-p", str(server.port), "-U", "postgres"]
    server.run("postgres", f"DROP DATABASE IF EXISTS {database}")
    subprocess.run([server.programs.server / "createdb", *place, *shlex.split(created[1]), database], check=True)
    command = [
        server.programs.server / "psql",
        *place,
        "-X",
        "-q",
        "-o",
        "/dev/null",
        "-d",
        database,
        "-f",
        str(script),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def check(server: PostgresServer, folder: Path, backup_id: str, expected: list[str]) -> None:
    to = folder / backup_id
    done = restore(folder, backup_id, "--to", str(to), "--check", "--no-encryption")
    assert done.returncode == 0, done.stderr
    run_script(server, "restored", to / "books")
    assert server.dump("restored", "--encoding=UTF8") == expected


def test_the_document_restores_a_chain_with_psql(server: PostgresServer, tmp_path: Path) -> None:
    gallery(server, "gallery")
    plan = plan_of(server, "gallery", tmp_path)
    full = make_backup(plan, BackupType.FULL)
    assert sum(len(collection.parts) for collection in full.collections) > len(full.collections)
    was = server.dump("gallery", "--encoding=UTF8")
    server.run(
        "gallery",
        "DELETE FROM every WHERE id = 3",
        "UPDATE every SET t = E'\\\\.\\n\\t\\\\N', by = NULL, f4 = '-Infinity' WHERE id = 2",
        "DELETE FROM keyless WHERE ctid IN (SELECT min(ctid) FROM keyless WHERE a = 1)",
        "DELETE FROM child WHERE id % 2 = 0; INSERT INTO child (parent, note) VALUES (10, NULL)",
        "INSERT INTO parent (name) VALUES ('ü'); DELETE FROM measured WHERE v = 9",
        "INSERT INTO measured VALUES ('1999-1-1', 5)",
        "SELECT nextval('unused'), nextval('counting'), lo_put(50001, 4000, 'changed'), lo_unlink(50003)",
        "DELETE FROM blank WHERE ctid IN (SELECT min(ctid) FROM blank); DELETE FROM moody",
        "UPDATE chars SET n = 9 WHERE v = 4",
        "REFRESH MATERIALIZED VIEW summed; REFRESH MATERIALIZED VIEW over",
    )  # fmt: skip
    made = make_backup(plan, BackupType.INCREMENTAL)
    assert made.tombstones > 5
    check(server, tmp_path, full.backup_id, was)
    check(server, tmp_path, made.backup_id, server.dump("gallery", "--encoding=UTF8"))


def test_a_database_of_another_encoding_and_one_without_a_row_come_back_too(
    server: PostgresServer, tmp_path: Path
) -> None:
    server.run(
        "postgres",
        "DROP DATABASE IF EXISTS latin",
        "CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'",
    )
    for n, statements in enumerate(
        [["CREATE VIEW v AS SELECT 1 AS one"], ["CREATE TABLE t (k text PRIMARY KEY)", "INSERT INTO t VALUES ('é')"]]
    ):
        server.run("latin", *statements)
        folder = tmp_path / str(n)
        folder.mkdir()
        made = make_backup(plan_of(server, "latin", folder), BackupType.FULL)
        check(server, folder, made.backup_id, server.dump("latin", "--encoding=UTF8"))


def test_a_chosen_schema_comes_back_too(server: PostgresServer, tmp_path: Path) -> None:
    server.create("chosen", "CREATE TABLE t (a int)", "INSERT INTO t VALUES (1)", "CREATE SCHEMA other")
    made = make_backup(plan_of(server, "chosen", tmp_path, schemas=["public"]), BackupType.FULL)
    assert made.sources[0].definition["narrowed"]
    server.run("chosen", "DROP SCHEMA other")
    check(server, tmp_path, made.backup_id, server.dump("chosen"))


def test_the_document_names_every_field_of_the_definitions(server: PostgresServer, tmp_path: Path) -> None:
    server.create("small", "CREATE TABLE t (a int)")
    made = make_backup(plan_of(server, "small", tmp_path), BackupType.FULL)
    text = DOCUMENT.read_text().partition("\n## PostgreSQL\n")[2].partition("```python")[0]
    fields = made.sources[0].definition.keys() | made.collections[0].definition.keys()
    assert [name for name in fields if f"`{name}`" not in text] == []
