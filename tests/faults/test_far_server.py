"""The server dies during uploads, or has no room left: what was committed stays whole, and then all goes on."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from blocks.errors import StorageUnreachable
from flows.backup import make_backup
from flows.check import check_repository
from flows.retention import apply_retention
from tests.faults.far import FULL, LONG_AFTER, Bucket, History
from tests.faults.far_server import FULL_SOON, Dying, dying, wait_for_volumes
from tests.faults.live_state import restored
from tests.faults.proxy import Fault
from tests.object_servers import seaweed

LARGE_BYTES = 950_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dying]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("dying")
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        with dying(folder) as one:
            yield one


@pytest.mark.parametrize(
    ("command", "upload", "moment"),
    [("full", 3, Fault.HALF_UPLOAD), ("incremental", 5, Fault.LOST_REPLY), ("retention", 2, Fault.CUT_REQUEST)],
)
@pytest.mark.share(2)
def test_a_server_killed_during_an_upload_loses_nothing_that_was_committed(server, command, upload, moment):
    _, problems = server.run(command, upload, moment)
    assert problems == []


def fill(history: History) -> StorageUnreachable:
    """Back up what never was there before until there is no room for it; returns what was said then."""
    plan = history.plan("seed")
    for number in range(60):
        (history.state.tree / "large").write_bytes(random.Random(number).randbytes(LARGE_BYTES))
        history.now = history.state.oracle()
        try:
            history.oracles[make_backup(plan, FULL).backup_id] = history.now
        except StorageUnreachable as error:
            return error
    raise AssertionError("there is no end of room")


def test_a_server_without_room_is_unavailable_and_nothing_is_lost_or_removed(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with seaweed(tmp_path / "server", *FULL_SOON) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        history = History(Bucket.of(server), tmp_path / "history")
        error = fill(history)
        assert error.exit_code == 4
        assert "500" in error.message
        history.close_breakers()
        plan = history.plan("seed", later=True)
        assert check_repository(plan, read_share=1.0).findings == []
        newest = list(history.oracles)[-1]
        assert restored(plan, newest, tmp_path / "back") == history.oracles[newest]
        # no lease can be had, and what cannot be told from a server that is broken removes nothing
        with pytest.raises(StorageUnreachable):
            apply_retention(plan, now=datetime.now(UTC) + LONG_AFTER, accept_clock=True)
        server.kill()
        server.options = ()
        server.start()
        wait_for_volumes(history.place, "seed")
        assert history.witness("seed", new_at_most=0) == []
