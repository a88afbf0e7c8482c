"""`backup --state`, `restore --type` and `stats`."""

from __future__ import annotations

import io
import json

import pytest

import lastgood
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
