"""`backup --state`, `restore --type` and `stats`."""

from __future__ import annotations

import io
import json
import shutil

import pytest

import lastgood
from blocks.plan.plan import load_plan
from flows.cli.commands.stats import percent
from flows.reading.stats import PlanStats
from flows.reporting.journal import local_repository_id, place_key
from flows.reporting.journal_files import append, journal_folder
from tests.flows.cli.desk import Desk

STATE = {"limits": {"max": 10, "of": [1, 2.5, None]}, "mode": "live", "n": 7}


def test_state_at_hand_is_backed_up_in_place_of_live_sources(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    (desk.folder / "state.json").write_text(json.dumps(STATE))
    made = desk.backup("--type", "snapshot", "--state", "state.json")
    assert lastgood.read_state(desk.plan, made) == STATE
    monkeypatch.setattr("sys.stdin", io.StringIO('{"a": 1}'))
    assert lastgood.read_state(desk.plan, desk.backup("--type", "snapshot", "--state", "-")) == {"a": 1}
    again = lastgood.backup(desk.plan, "snapshot", state=STATE)
    assert lastgood.read_state(desk.plan, again.backup_id) == STATE
    with pytest.raises(lastgood.LastgoodError, match="give one of them"):
        lastgood.backup(desk.plan, "snapshot", state=STATE, state_data=STATE)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1]", "is no JSON object"),
        ('{"a": 1', "line 1"),
        ('{"a": 1, "a": 2}', "'a' stands twice"),
        (None, "No such file"),
    ],
)
def test_what_is_no_state_is_said_before_anything_is_read(desk: Desk, text: str | None, said: str) -> None:
    if text is not None:
        (desk.folder / "state.json").write_text(text)
    ran = desk.run("backup", "PLAN", "--state", "state.json")
    assert ran.code == 2
    assert said in ran.err
    assert desk.done("list", "PLAN", "--json").json["backups"] == []


def test_the_newest_of_a_type_is_restored(desk: Desk) -> None:
    full = desk.backup("--type", "full")
    desk.sql("delete from orders")
    incremental = desk.backup()
    told = desk.done("restore", "PLAN", "latest", "--type", "full", "--mode", "preview", "--json").json
    assert told["backup_id"] == full
    told = desk.done("restore", "PLAN", "--type", "incremental", "--at", "now", "--mode", "preview", "--json").json
    assert told["backup_id"] == incremental
    for words, code, said in (
        (["--type", "snapshot"], 6, "no snapshot backup that is not known to be corrupted"),
        (["--type", "full", "--at", "1 hour ago"], 6, "no full backup as of"),
        (["--type", "full", "--verified"], 6, "was restored and found good"),
        ([full, "--type", "full"], 2, "--type chooses a backup"),
        (["--at", "2999-01-01"], 2, "is in the future"),
    ):
        ran = desk.run("restore", "PLAN", *words, "--mode", "preview")
        assert ran.code == code
        assert said in ran.err


def test_numbers_by_type(desk: Desk) -> None:
    full = desk.backup("--type", "full")
    desk.sql("delete from orders where id < 5")
    desk.backup()
    desk.done("verify", "PLAN", full)
    types = desk.done("stats", "PLAN", "--json").json["types"]
    assert {kind: (one["backups"], one["looked_at"], one["good_share"]) for kind, one in types.items()} == {
        "full": (1, 1, 1.0),
        "incremental": (1, 0, None),
    }
    table = desk.done("stats", "PLAN").out
    assert "100%" in table
    desk.objects(full, "*.pack")[0].write_bytes(b"damaged")
    assert desk.run("verify", "PLAN", full).code == 8
    types = desk.done("stats", "PLAN", "--json").json["types"]
    assert (types["full"]["good_share"], types["incremental"]["good_share"]) == (0.0, 0.0)


def test_the_share_of_runs_that_succeeded(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def types() -> dict[str, tuple[int, int, float | None]]:
        told = desk.done("stats", "PLAN", "--json").json["types"]
        return {kind: (one["backups"], one["runs"], one["success_share"]) for kind, one in told.items()}

    plan = desk.plan.read_text()
    desk.backup("--type", "full")
    desk.backup()
    assert types() == {"full": (1, 1, 1.0), "incremental": (1, 1, 1.0)}

    # a failed run, an after-hook that fails behind a backup, one that is killed
    desk.plan.write_text(plan.replace("ledger.db", "gone.db"))
    assert desk.run("backup", "PLAN", "--type", "full").code not in (0, 2)
    desk.plan.write_text(plan + "hooks: {backup: {after: ['false']}}\n")
    assert desk.run("backup", "PLAN").code != 0
    desk.plan.write_text(plan)
    opened = load_plan(desk.plan)
    begun = {"event": "started", "id": "0" * 32, "at": "2026-01-02T03:04:05+00:00", "plan": "trading"}
    named = {
        "place": place_key(opened),
        "repository": local_repository_id(opened.repository),
        "verb": "backup",
        "type": "differential",
        "process": "1-1",
    }
    append(journal_folder(), begun | named)
    assert types() == {"full": (1, 2, 0.5), "incremental": (2, 2, 0.5), "differential": (0, 1, 0.0)}

    lines = {line.split()[0]: line.split() for line in desk.done("stats", "PLAN").out.splitlines() if line}
    assert lines["type"][-2:] == ["runs", "succeeded"]
    assert (lines["full"][-2:], lines["differential"][-2:]) == (["2", "50%"], ["1", "0%"])
    assert "differential" not in PlanStats(opened).performance()

    # another repository at the same place begins anew
    shutil.rmtree(desk.folder / "backups")
    desk.done("init", "PLAN")
    assert types() == {}

    monkeypatch.setenv("LASTGOOD_JOURNAL", "/dev/null/journal")
    desk.backup()
    ran = desk.done("stats", "PLAN")
    assert "which runs failed is not known" in ran.err
    assert types() == {"full": (1, 0, None)}


@pytest.mark.parametrize(("share", "said"), [(1.0, "100%"), (0.999, "99%"), (0.5, "50%"), (0.001, "1%"), (0.0, "0%")])
def test_a_share_is_whole_only_where_it_is(share: float, said: str) -> None:
    assert percent(share) == said
