"""Libraries of functions are definitions: a verification compares them, and says what changed since the last backup."""

from __future__ import annotations

from pathlib import Path

import pytest

from blocks.records import BackupType
from blocks.sources.redis import RedisSource
from blocks.sources.redis.write import target
from blocks.sources.redis.write.functions import Outcome
from blocks.verification import Axis
from flows.backup import make_backup
from flows.verify import make_verification
from tests.blocks.sources.redis.kit import RedisServer, plan_of
from tests.blocks.sources.redis.test_refused_keys import CODE


def test_a_library_that_does_not_come_back_is_found(
    live: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live.many([("SET", "a", 1), ("FUNCTION", "LOAD", CODE % ("lib", "f", 1))])
    plan = plan_of(tmp_path, RedisSource(url=live.url))
    made = make_backup(plan, BackupType.FULL)
    good = make_verification(plan)
    assert (good.findings, good.warnings, good.results[Axis.DEFINITIONS].outcome) == ((), (), "good")
    live.many([("FUNCTION", "LOAD", "REPLACE", CODE % ("lib", "f", 2)), ("FUNCTION", "LOAD", CODE % ("more", "g", 1))])
    make_backup(plan, BackupType.INCREMENTAL)
    since = f"cache: since {made.backup_id}:"
    assert make_verification(plan, deep=False).results[Axis.DEFINITIONS].warnings == (
        f"{since} library of functions lib is otherwise.",
        f"{since} library of functions more is new.",
    )
    monkeypatch.setattr(target, "restore_libraries", lambda *_: Outcome())
    assert make_verification(plan, made.backup_id).results[Axis.DEFINITIONS].findings == (
        "cache: as restored library of functions lib is gone.",
    )
