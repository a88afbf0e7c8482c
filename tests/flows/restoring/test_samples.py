"""The records that a person sees before a restore: the right ones, and no value that is not allowed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from blocks.rows.selection import Selection
from flows.pipeline.results import CollectionResult, RestoreResult
from flows.reporting.approval_markdown import approval_markdown
from flows.restore import run_restore
from flows.restoring.approval import changed_since
from flows.restoring.request import RestoreRequest
from flows.restoring.samples import MOST_CHARACTERS, Sampling
from tests.flows.flow_support import EXACT, FULL, MERGE, Shop

WANTED = RestoreRequest(
    mode=EXACT, preview=True, selection=Selection(("ledger/items",)), sampling=Sampling(2, ("ledger/items",))
)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "memory"))
    shop = Shop(tmp_path, encrypted=False)
    shop.fill()
    shop.db.executescript(
        "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT, n);"
        "INSERT INTO items VALUES (1, 'one', 1), (2, 'two', 2), (3, 'three', 3), (4, 'four', x'ff00'), (5, 'five', 5)"
    )
    shop.back_up(FULL)
    shop.db.executescript(
        "DELETE FROM items WHERE id <= 3; UPDATE items SET n = NULL WHERE id = 4;"
        f"INSERT INTO items VALUES (9, '{'|x' * MOST_CHARACTERS}', 9)"
    )
    return shop


def preview(shop: Shop, wanted: RestoreRequest = WANTED) -> RestoreResult:
    return run_restore(shop.plan, wanted)


def seen(result: RestoreResult) -> dict[str, dict[str, tuple[str | None, str | None]]]:
    (one,) = result.collections
    return {f"{s.kind} {s.key}": {f.name: (f.before, f.after) for f in s.fields} for s in one.samples}


def test_a_few_records_of_each_kind_are_shown_field_by_field(shop: Shop) -> None:
    found = seen(preview(shop))
    assert found.keys() == {"added 1", "added 2", "changed 4", "removed 9"}
    assert found["added 1"] == {"id": (None, "1"), "name": (None, "one"), "n": (None, "1")}
    assert found["changed 4"].keys() == {"n"}
    before, after = found["changed 4"]["n"]
    assert (before, str(after).partition(",")[0]) == ("NULL", "2 bytes")
    assert found["removed 9"]["name"] == (f"{('|x' * MOST_CHARACTERS)[:MOST_CHARACTERS]}…", None)


def test_a_merge_removes_nothing_that_is_shown(shop: Shop) -> None:
    assert {word.split()[0] for word in seen(preview(shop, replace(WANTED, mode=MERGE)))} == {"added", "changed"}


def test_without_leave_no_value_is_kept_anywhere(shop: Shop) -> None:
    result = preview(shop, replace(WANTED, sampling=Sampling(2, ("ledger/other*",))))
    assert {pair for fields in seen(result).values() for pair in fields.values()} == {(None, None)}
    told = approval_markdown(result, kept=True)
    assert "| 4 | changed | n |" in told
    assert "Values are not shown" in told
    assert "three" not in told + repr(result)


def test_nothing_is_sampled_unless_asked_for_and_nothing_of_it_is_printed(shop: Shop) -> None:
    assert seen(preview(shop, replace(WANTED, sampling=Sampling()))) == {}
    assert "samples" not in preview(shop).model_dump_json()


def test_what_stands_in_a_record_is_not_taken_for_markdown(shop: Shop) -> None:
    told = approval_markdown(preview(shop), kept=False)
    (line,) = [line for line in told.splitlines() if line.startswith("| 9 | removed | name |")]
    assert "\\|x\\|x" in line
    assert line.replace("\\|", "").count("|") == 6
    assert "ledger/items: 1 record goes and 1 record gets other values" in told
    assert "**Nothing brings it back.**" in told


def test_a_write_to_a_row_that_was_to_be_changed_anyway_is_noticed(shop: Shop) -> None:
    then = preview(shop).collections
    assert changed_since(then, preview(shop).collections) == []
    shop.db.execute("UPDATE items SET n = 77 WHERE id = 4")
    now = preview(shop).collections
    assert counts(now) == counts(then)
    (note,) = changed_since(then, now)
    assert note.startswith("ledger/items was written to between preview and restore: 3 to add, 1 to change")


def counts(collections: list[CollectionResult]) -> list[tuple[int | None, ...]]:
    return [(one.added, one.changed, one.removed) for one in collections]


def test_a_collection_that_came_or_went_meanwhile_is_said() -> None:
    one = CollectionResult(collection="ledger/items", rows=0, added=0, changed=0, removed=2)
    assert changed_since([], [one]) == [
        "ledger/items was written to between preview and restore: not there then, "
        "0 to add, 0 to change, 2 to remove when it was approved"
    ]
