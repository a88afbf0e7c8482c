"""Every version of the server that is supported: everything comes back, incrementals hold what changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.manifest import BackupStatus, BackupType
from flows.verify import make_verification
from tests.blocks.sources.postgres_kit import Books, gallery
from tests.postgres_server import PostgresServer, installed, postgres_server
from tests.postgres_versions import RELEASES, programs

NEWEST = max(release.version for release in RELEASES)
VERSIONS = sorted({installed().version, *(release.version for release in RELEASES)})


@pytest.fixture(scope="module", params=VERSIONS)
def server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    own = installed()
    with postgres_server(own if own.version == request.param else programs(request.param)) as running:
        yield running


@pytest.fixture
def books(server: PostgresServer, tmp_path: Path) -> Books:
    gallery(server, "gallery")
    return Books(server, tmp_path, "gallery")


def test_a_chain_comes_back_into_a_missing_database(books: Books, server: PostgresServer) -> None:
    books.back_up(BackupType.FULL)
    books.run(
        "UPDATE every SET t = 'new' WHERE id = 3; DELETE FROM every WHERE id = 4; DELETE FROM keyless WHERE a = 1",
        "INSERT INTO parent (name) VALUES ('later'); SELECT nextval('counting'), lo_put(50003, 0, 'y'), lo_unlink(50001)",
        "INSERT INTO measured VALUES ('2020-02-02', 77), ('2022-02-02', 78)",
        "VACUUM (FREEZE) parent",
    )
    made = books.back_up()
    assert made.backup_type is BackupType.INCREMENTAL
    books.restore(to=server.dsn("copy"))
    assert books.dump("copy") == books.dump()
    server.run("postgres", "DROP DATABASE copy")


def test_the_live_database_is_brought_back(books: Books) -> None:
    before = books.dump()
    books.back_up(BackupType.FULL)
    books.run("DELETE FROM child; DELETE FROM parent; UPDATE every SET t = 'lost'; TRUNCATE keyless; SELECT lo_unlink(50001)")
    books.restore()
    assert books.dump() == before
    books.run("DROP TABLE child CASCADE; ALTER TABLE every DROP COLUMN jb; CREATE TABLE other (x int)")
    books.restore()
    assert books.dump() == before


def test_a_verification_finds_everything_in_order(books: Books) -> None:
    books.back_up(BackupType.FULL)
    result = make_verification(books.plan)
    assert (result.status, result.findings) == (BackupStatus.VERIFIED, ())
