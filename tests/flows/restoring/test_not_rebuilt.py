"""What a restore left out is named, with the statements for it in a file, and the restore is no success."""

from __future__ import annotations

import pickle
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from blocks.errors import Partial
from blocks.records import BackupMetadata
from blocks.sources.target import NotRebuilt, RestoreMode
from flows.backup import make_backup
from flows.pipeline.results import ObjectNotRebuilt, RestoreResult
from flows.reporting.artifacts import restore_markdown
from flows.restoring.not_rebuilt import MOST_NAMED, RestoredInPart, check_whole, write_script
from tests.flows.flow_support import FULL, Shop


def result(*left: ObjectNotRebuilt, **more: object) -> RestoreResult:
    known = {"plan": "books", "backup_id": "b1", "timestamp": datetime.now(UTC), "mode": RestoreMode.EXACT}
    return RestoreResult.model_validate(
        {**known, "collections": [], "places": {}, "seconds": 1.0, "not_rebuilt": left, **more}
    )


def lost(number: int) -> ObjectNotRebuilt:
    return ObjectNotRebuilt(source="db", name=f"view public.v{number}", reason="division by zero")


def test_a_restore_that_left_nothing_out_is_a_success() -> None:
    whole = result()
    assert check_whole(whole) is whole


def test_what_was_left_out_is_named_with_its_script_and_the_way_back() -> None:
    left = result(lost(1), lost(2), scripts={"db": "left.sql"}, undo="lastgood undo PLAN --yes")
    with pytest.raises(Partial, match="2 objects") as caught:
        check_whole(left)
    assert "db: view public.v1: division by zero" in caught.value.message
    assert "left.sql" in caught.value.hint
    assert "lastgood undo PLAN --yes" in caught.value.hint
    assert caught.value.exit_code == 11
    again = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(again, RestoredInPart)
    assert again.result == left
    assert "- db: view public.v2: division by zero" in restore_markdown(left, "plan.yaml")


def test_an_error_names_some_of_many_objects_and_the_result_all() -> None:
    error = RestoredInPart(result(*map(lost, range(MOST_NAMED + 7))))
    assert error.message.count("division by zero") == MOST_NAMED
    assert "and 7 more" in error.message
    assert len(error.result.not_rebuilt) == MOST_NAMED + 7


@pytest.fixture
def backup(tmp_path: Path) -> BackupMetadata:
    return make_backup(Shop(tmp_path, encrypted=False).plan, FULL)


def test_a_script_holds_statements_and_is_for_its_owner_only(backup: BackupMetadata) -> None:
    objects = [
        NotRebuilt("view public.v", "it fails:\nDROP TABLE all_of_it", "CREATE VIEW public.v AS SELECT 1/0;\n"),
        NotRebuilt("key 7", "refused"),
    ]
    for _ in range(2):  # a second restore of the backup replaces the file
        path = write_script(backup, "db", objects)
        assert path is not None
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    said = path.read_text().splitlines()
    assert [line for line in said if line and not line.startswith("--")] == ["CREATE VIEW public.v AS SELECT 1/0;"]
    assert "-- DROP TABLE all_of_it" in said


def test_without_a_statement_there_is_no_script(backup: BackupMetadata) -> None:
    assert write_script(backup, "db", [NotRebuilt("key 7", "refused")]) is None
