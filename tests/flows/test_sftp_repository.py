"""A whole life of a plan whose repository is on an SFTP server that goes away meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from blocks.errors import RepositoryUnavailable, StorageUnreachable
from blocks.records import BackupStatus
from blocks.repository.block import BackupRepository
from blocks.storage.base import StorageTier
from flows.check import check_repository
from flows.retention import apply_retention
from flows.undo import make_undo
from flows.verify import make_verification
from tests.flows.flow_support import DIFFERENTIAL, EXACT, FULL, INCREMENTAL, Shop
from tests.sftp_server import KINDS, SftpServer, sftp_server

LATER = datetime.now(UTC) + timedelta(days=365)


@pytest.fixture(scope="module", params=KINDS)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SftpServer]:
    with sftp_server(request.param, tmp_path_factory.mktemp("sftp") / "server") as server:
        yield server


@pytest.fixture
def server(running: SftpServer) -> Iterator[SftpServer]:
    yield running
    running.release()


@pytest.fixture
def shop(server: SftpServer, tmp_path: Path) -> Shop:
    """An application whose repository is on the server."""
    shop = Shop(tmp_path)
    repository = BackupRepository(url=server.url(f"shop-{tmp_path.name}"), storage=server.settings)
    shop.plan = shop.plan.model_copy(update={"repository": repository})
    shop.kit = repository.initialize(shop.plan.encryption)
    shop.fill(20)
    return shop


def change(shop: Shop, number: int) -> None:
    shop.db.execute("UPDATE orders SET price = ? WHERE id % 3 = 0", (number + 0.5,))
    (shop.tree / f"new-{number}.txt").write_text(str(number))


def test_backups_are_made_verified_restored_undone_and_expire(server: SftpServer, shop: Shop) -> None:
    made, pictures = [], []
    for number, kind in enumerate((FULL, INCREMENTAL, DIFFERENTIAL, INCREMENTAL)):
        change(shop, number)
        made.append(shop.back_up(kind))
        pictures.append(shop.picture())
    assert [one.backup_type for one in made] == [FULL, INCREMENTAL, DIFFERENTIAL, INCREMENTAL]
    assert make_verification(shop.plan).status is BackupStatus.VERIFIED
    shop.db.execute("DELETE FROM orders")
    for backup, picture in zip(made[::-1], pictures[::-1], strict=True):
        shop.restore(backup, EXACT)
        shop.reopen()
        assert shop.picture()["rows"] == picture["rows"]
        assert shop.picture()["tree"].keys() == picture["tree"].keys()
    make_undo(shop.plan)
    shop.reopen()
    assert shop.picture()["rows"] == pictures[1]["rows"]
    newest = shop.back_up(FULL)
    assert make_verification(shop.plan).status is BackupStatus.VERIFIED
    removed = {one.backup_id for one in apply_retention(shop.plan, now=LATER, accept_clock=True).removed}
    assert {one.backup_id for one in made} <= removed
    assert newest.backup_id in shop.ids
    assert check_repository(shop.plan, read_share=1.0).findings == []
    assert shop.plan.repository.tier.leftovers() == []


def test_a_run_goes_on_after_the_server_was_restarted(server: SftpServer, shop: Shop) -> None:
    shop.back_up(FULL)
    change(shop, 1)
    left = ["packs", "manifest"]

    def hook(operation: str, name: str, when: str) -> None:
        if left and operation == "write" and when == "before" and "backups/" in name:
            left.pop()
            server.kill()
            server.start()

    before = StorageTier.durable
    StorageTier.durable = staticmethod(hook)
    try:
        made = shop.back_up(INCREMENTAL)
    finally:
        StorageTier.durable = staticmethod(before)
    assert (left, made.backup_type) == ([], INCREMENTAL)
    assert make_verification(shop.plan).status is BackupStatus.VERIFIED


def test_a_run_without_its_server_fails_before_it_reads_anything(server: SftpServer, shop: Shop) -> None:
    shop.back_up(FULL)
    server.kill()
    try:
        with pytest.raises(StorageUnreachable, match=r"sftp://.*attempts\)"):
            shop.back_up(INCREMENTAL)
    finally:
        server.start()
    elsewhere = shop.plan.repository.model_copy(update={"url": server.url("nothing-here")})
    shop.plan = shop.plan.model_copy(update={"repository": elsewhere})
    with pytest.raises(RepositoryUnavailable, match="nothing-here is not there"):
        shop.back_up(INCREMENTAL)
    assert not (server.files / "nothing-here").exists()
