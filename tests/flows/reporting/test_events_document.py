"""docs/events.md has the events, their payloads, what a webhook is posted, and when targets are told."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from blocks.plan.notifications import Occasion
from blocks.plan.plan import BackupPlan, parse_plan
from blocks.records import BackupType
from blocks.rows.selection import Selection
from blocks.sources.sqlite import SQLiteSource
from blocks.sources.target import RestoreMode
from flows.backup import make_backup
from flows.reporting import lifecycle
from flows.reporting.event_names import BACKUP_COMPLETED, BACKUP_CORRUPTED, PLAN_WATCHED, VERIFICATION_FAILED
from flows.reporting.events import event_name, payload_of
from flows.reporting.lifecycle import Operation, Verb
from flows.reporting.messages import message_of
from flows.reporting.outcome import occasion_of
from flows.restore import make_restore
from flows.restoring.request import RestoreRequest
from flows.retention import apply_retention
from flows.verify import make_verification
from tests.plans import plan_of

TEXT = (Path(__file__).parents[3] / "docs" / "events.md").read_text()
COMMON = {"seconds", "backup_id"}


def table(section: str) -> dict[str, list[list[str]]]:
    """Return the words in code by the first of each row of a section's table, a list for each other cell."""
    rows = {}
    for line in TEXT.partition(f"\n## {section}\n")[2].partition("\n## ")[0].splitlines():
        cells = [re.findall(r"`([^`]+)`", cell) for cell in line.strip("|").split(" | ")]
        if line.startswith("| `") and cells:
            rows |= dict.fromkeys(cells[0], cells[1:])
    return rows


class Ended:
    def __init__(self) -> None:
        self.runs: list[Operation] = []

    def started(self, operation: Operation) -> None: ...

    def ended(self, operation: Operation) -> None:
        self.runs.append(operation)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Operation]:
    """One operation of each kind."""
    with sqlite3.connect(tmp_path / "ledger.sqlite") as database:
        database.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, amount REAL)")
        database.execute("INSERT INTO orders VALUES (1, 2.5)")
    database.close()
    plan = plan_of(tmp_path, ledger=SQLiteSource(path=str(tmp_path / "ledger.sqlite")))
    heard = Ended()

    def listeners(plan: BackupPlan) -> Sequence[lifecycle.Listener]:
        return (heard,)

    monkeypatch.setattr(lifecycle, "listeners", listeners)
    make_backup(plan, BackupType.FULL)
    make_verification(plan, deep=False)
    make_restore(plan, RestoreRequest("latest", selection=Selection(), mode=RestoreMode.EXACT))
    apply_retention(plan)
    return heard.runs


def test_every_event_is_in_the_table_and_no_other() -> None:
    started = {f"lastgood.{verb.value}.started" for verb in Verb}
    ends = {
        event_name(verb, occasion)
        for verb in Verb
        for occasion in (
            (Occasion.VERIFIED, Occasion.CORRUPTED) if verb is Verb.VERIFICATION else (Occasion.COMPLETED,)
        )
    } | {event_name(verb, Occasion.FAILED) for verb in Verb}
    others = {"lastgood.backup.suspicious", "lastgood.tier.opened", "lastgood.tier.closed", PLAN_WATCHED}
    assert table("Events").keys() == started | ends | others
    assert {BACKUP_COMPLETED, BACKUP_CORRUPTED, VERIFICATION_FAILED} < ends


def test_payloads_are_as_the_table_says(runs: list[Operation]) -> None:
    rows = table("Events")
    for run in runs:
        said = set(rows[event_name(run.verb, occasion_of(run))][-1])
        assert payload_of(run).keys() - COMMON == said, run.verb


def test_what_a_webhook_is_posted_is_in_the_table(runs: list[Operation]) -> None:
    (made, *_) = runs
    fields = {word for word in table("Notifications") if word not in set(Occasion)}
    assert message_of(made, Occasion.COMPLETED).as_json().keys() == fields


def test_every_occasion_is_in_the_table_with_its_default() -> None:
    assert set(Occasion) <= table("Notifications").keys()
    for word, default in re.findall(r"^\| `(\w+)` \|.*\| (yes|no) \|$", TEXT, flags=re.MULTILINE):
        usual = parse_plan(_with({"type": "block", "block": "a/b"}), "x").notifications[0]
        assert usual.wants(Occasion(word)) == (default == "yes"), word  # type: ignore[union-attr]


def test_the_example_is_a_plan() -> None:
    (example,) = re.findall(r"```yaml\n(notifications:\n.*?)```", TEXT, flags=re.DOTALL)
    targets = parse_plan(_with(*yaml.safe_load(example)["notifications"]), "x").notifications
    assert [one.type for one in targets] == ["email", "slack", "webhook", "block", "ping"]


def _with(*targets: dict[str, object]) -> dict[str, object]:
    return {
        "name": "books",
        "sources": {"ledger": {"type": "sqlite", "path": "x.db"}},
        "repository": {"url": "r"},
        "encryption": "none",
        "notifications": list(targets),
    }
