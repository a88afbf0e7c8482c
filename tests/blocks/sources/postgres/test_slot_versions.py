# ruff: noqa: E501  statements of SQL are not broken
"""Every supported version reports through a slot what was written, in a database with one of everything."""

from __future__ import annotations

from pathlib import Path

import pytest

from blocks.records import BackupType
from tests.blocks.sources.postgres.kit import Books, changes, gallery
from tests.blocks.sources.postgres.test_slot import SLOT, position, prove
from tests.postgres_server import PostgresServer

WRITES = (
    "UPDATE every SET t = 'new', v = 'new' WHERE id = 2; DELETE FROM every WHERE id = 3; INSERT INTO every (id) VALUES (9)",
    "UPDATE odder SET v = 'new' WHERE id = 2",
    "UPDATE parent SET name = 'z' WHERE name = 'a'; DELETE FROM child WHERE id = 4",
    """UPDATE "Odd.schema"."T ""q"".x" SET "Key" = 'it''s' WHERE "Key" = 'a'""",
    "UPDATE insensitive SET k = 'ALPHA' WHERE k = 'alpha'; UPDATE insensitive SET v = 9 WHERE k = 'beta'",
    "UPDATE moody SET m = 'it''s \"fine\"' WHERE m = 'ok'",
    "UPDATE chars SET n = 1.00 WHERE n = 1; DELETE FROM chars WHERE k = 'b'",
    "UPDATE measured SET v = v + 100 WHERE v > 5; DELETE FROM measured WHERE v = 110",
    "UPDATE keyless SET b = 'y' WHERE a = 2; UPDATE unlogged SET id = 2; UPDATE derived SET v = 'n'",
    "SELECT lo_put(50003, 10, 'put')",
)
LATER = {
    14: ("UPDATE squeezed SET v = 'x' WHERE id = 1", "UPDATE ranges SET dom = 'empty' WHERE id = 2"),
    18: (
        "INSERT INTO computed (id) VALUES (7); UPDATE computed SET id = 8 WHERE id = 1",
        "DELETE FROM lasting WHERE id = 2",
        "DELETE FROM uuids; INSERT INTO uuids DEFAULT VALUES",
    ),
}


@pytest.mark.share(3)
def test_a_slot_serves_on_every_version(any_server: PostgresServer, tmp_path: Path, told: set[str]) -> None:
    version = any_server.programs.version
    gallery(any_server, "gallery")
    books = Books(any_server, tmp_path, "gallery", slot=SLOT)
    books.back_up(BackupType.FULL)
    books.run("UPDATE every SET t = 'first' WHERE id = 1")
    assert position(books.back_up()) is not None
    for statement in (*WRITES, *(one for since, some in LATER.items() if version >= since for one in some)):
        books.run(statement)
    made = prove(books)
    assert "looked for" not in " ".join(made.sources[0].warnings)
    # `every` and `odder` name other objects in their values, and are looked through
    assert {"parent", 'T "q".x', "insensitive", "moody", "chars", "measured_1"} <= told
    assert version < 18 or {"computed", "uuids"} <= told
    assert changes(made)["every"] == (2, 1)
    assert changes(made)["insensitive"] == (2, 1)
    books.assert_restores()
