"""One backup, several attempts: each is whole from the start and knows nothing of what another one stored."""

from __future__ import annotations

from pathlib import Path

import pytest

from blocks.errors import BaseUnusable
from blocks.repository.checksums import objects_of
from flows.backup import commit, run_backup_stages
from flows.pipeline.attempt import BackupAttempt
from flows.pipeline.executor import open_executor
from flows.pipeline.open_backup import open_backup
from tests.flows.flow_support import EMERGENCY, FULL, INCREMENTAL, Shop


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    shop = Shop(tmp_path, encrypted=False)
    shop.fill()
    return shop


def test_an_attempt_has_its_id_type_and_keys_when_it_is_made(shop: Shop) -> None:
    with open_backup(shop.plan, INCREMENTAL, ["nightly"]) as attempt:
        assert attempt.backup_type is FULL
        assert attempt.promoted_because == "there is no full or differential or incremental backup to depend on"
        assert str(attempt) == attempt.backup_id
        assert attempt.context.lease.record.backup_id == attempt.backup_id
        assert attempt.tokens.keys() == {"ledger", "models"}
        assert attempt.context.tags == ("nightly",)
        assert [(one.number, one.name) for one in attempt.collections] == [
            (0, "ledger/orders"),
            (1, "ledger/positions"),
            (2, "models/tree"),
        ]


def test_a_second_attempt_shares_the_context_and_nothing_that_was_stored(shop: Shop) -> None:
    base = shop.back_up(FULL)
    shop.db.execute("UPDATE orders SET price = -1")
    with open_backup(shop.plan, INCREMENTAL) as first, open_executor() as executor:
        run_backup_stages(first, executor)
        second = first.without_base("an index is damaged")
        assert second.context is first.context
        assert (first.backup_type, first.promoted_because) == (INCREMENTAL, None)
        assert first.base is not None
        assert first.base.target.backup_id == base.backup_id
        assert (second.backup_type, second.promoted_because, second.base) == (FULL, "an index is damaged", None)
        assert second.backup_id != first.backup_id
        assert first.packs.finish()
        assert second.packs.finish() == []
        made = commit(second, executor, run_backup_stages(second, executor))
    assert (made.backup_id, made.requested_type, made.chain) == (second.backup_id, INCREMENTAL, ())
    assert objects_of(made) == second.packs.finish() != []
    assert made.rows == base.rows
    before = shop.picture()
    shop.db.execute("DELETE FROM orders")
    shop.restore(made)
    shop.reopen()
    assert shop.picture() == before


def test_a_backup_whose_base_turns_out_to_be_unusable_is_one_more_attempt(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.back_up(FULL)
    shop.db.execute("UPDATE orders SET price = -1")
    seen = dict[int, BackupAttempt]()
    base_index = BackupAttempt.base_index

    def damaged(self: BackupAttempt, part: object) -> object:
        seen[id(self)] = self
        if self.base is not None:
            raise BaseUnusable("the index is damaged")
        return base_index(self, part)  # type: ignore[arg-type]

    monkeypatch.setattr(BackupAttempt, "base_index", damaged)
    made = shop.back_up(INCREMENTAL)
    first, second = seen.values()
    assert (first.backup_type, second.backup_type) == (INCREMENTAL, FULL)
    assert made.backup_id == second.backup_id
    assert made.promoted_because == "the index is damaged"


def test_what_a_backup_takes_is_numbered_as_its_manifest_has_it(shop: Shop) -> None:
    plan = shop.plan.model_copy(update={"critical": ["ledger/positions", "models/*"]})
    with open_backup(plan, EMERGENCY) as attempt:
        assert [(one.number, one.name) for one in attempt.collections] == [(0, "ledger/positions"), (1, "models/tree")]
