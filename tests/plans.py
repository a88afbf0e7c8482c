"""A plan over some sources, with its repository made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from blocks.crypto.keyring import NoEncryption
from blocks.plan.plan import BackupPlan
from blocks.repository.block import BackupRepository


def plan_of(folder: Path, name: str = "books", **sources: Any) -> BackupPlan:
    """Make a plan that is not encrypted, with its repository in a folder."""
    plan = BackupPlan(
        name=name,
        sources=sources,
        repository=BackupRepository(url=str(folder / "repository")),
        encryption=NoEncryption(type="none"),
    )
    plan.repository.initialize(plan.encryption)
    return plan
