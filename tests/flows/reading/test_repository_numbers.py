"""What the exporter knows of suspicious backups: they stay so until a person accepts them."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.accept import accept_suspicions
from flows.reading.repository_numbers import RepositoryReader
from tests.flows.flow_support import FULL, Shop


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    shop = Shop(tmp_path, encrypted=False, allow_empty=True)
    shop.fill()
    return shop


def test_a_suspicious_backup_counts_until_a_person_accepts_it_whatever_comes_after(shop: Shop) -> None:
    reader = RepositoryReader(shop.plan)
    shop.back_up(FULL)
    assert not reader.read().suspicious
    shop.db.execute("DELETE FROM orders")
    assert shop.back_up().suspicions
    assert reader.read().suspicious
    assert not shop.back_up().suspicions
    assert reader.read().suspicious
    # which changes neither backups nor their verifications
    accept_suspicions(shop.plan)
    assert not reader.read().suspicious
