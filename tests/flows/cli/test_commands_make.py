"""init, backup, list, show, retention."""

from __future__ import annotations

import pytest

from blocks.plan import read_plan
from tests.flows.cli.desk import Desk


def test_init_prints_the_recovery_kit_once(empty_desk: Desk) -> None:
    first = empty_desk.done("init", "PLAN")
    assert "LASTGOOD-KEY-1-" in first.out
    assert str(empty_desk.folder / "backups") in first.out
    again = empty_desk.run("init", "PLAN")
    assert again.code == 2
    assert "already" in again.err
    assert "LASTGOOD-KEY-1-" not in again.out + again.err


def test_the_recovery_key_of_the_kit_opens_the_repository(empty_desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    kit = empty_desk.done("init", "PLAN", "--json").json
    assert set(kit) == {"url", "repository_id", "recovery_key", "what_to_do"}
    made = empty_desk.backup()
    monkeypatch.delenv("LASTGOOD_PASSPHRASE")
    monkeypatch.setenv("KIT", kit["recovery_key"])
    text = empty_desk.plan.read_text().replace("passphrase_env: LASTGOOD_PASSPHRASE", "recovery_key_env: KIT")
    empty_desk.plan.write_text(text)
    assert empty_desk.done("verify", "PLAN", made, "--json").json["status"] == "verified"


def test_a_first_incremental_becomes_a_full_and_says_so(desk: Desk) -> None:
    ran = desk.done("backup", "PLAN")
    assert "made full" in ran.err
    assert "FUL_" in ran.out
    assert "ledger/orders" in ran.out


def test_without_a_server_a_backup_says_that_it_is_not_recorded(desk: Desk) -> None:
    assert "not recorded" in desk.done("backup", "PLAN").err
    assert "not recorded" not in desk.done("backup", "PLAN", "--no-server").err


def test_list_shows_every_backup_with_its_chain(desk: Desk) -> None:
    full = desk.backup("--type", "full")
    desk.sql("delete from orders where id = 3")
    incremental = desk.backup("--tag", "a", "--tag", "b")
    listed = desk.done("list", "PLAN", "--json").json
    assert [(one["id"], one["base"], one["chain"]) for one in listed["backups"]] == [
        (full, None, []),
        (incremental, full, [full]),
    ]
    last = listed["backups"][-1]
    assert (last["tombstones"], last["status"], last["tags"]) == (1, "completed", ["a", "b"])
    assert listed["in_progress"] is None
    table = desk.done("list", "PLAN").out
    assert full in table
    assert f"1 deep on {full}" in table


def test_list_of_an_empty_repository_says_what_to_do(desk: Desk) -> None:
    ran = desk.done("list", "PLAN")
    assert ran.out == ""
    assert f"lastgood backup {desk.plan}" in ran.err


def test_list_shows_damaged_manifests_and_exits_8(desk: Desk) -> None:
    full, other = desk.backup("--type", "full"), desk.backup("--type", "full")
    (manifest,) = desk.objects(other, "manifest")
    manifest.chmod(0o600)
    manifest.write_bytes(manifest.read_bytes()[:-1])
    ran = desk.run("list", "PLAN")
    assert ran.code == 8
    assert full in ran.out
    assert other in ran.err
    as_json = desk.run("list", "PLAN", "--json")
    assert as_json.code == 8
    assert other in as_json.json["findings"][0]


def test_list_shows_who_holds_the_plan(desk: Desk) -> None:
    plan = read_plan(desk.plan)
    repository = plan.repository.unlock(plan.encryption)
    with repository.lease("trading", "host:1", "incremental backup") as lease:
        lease.work_on("INC_20260102_030405_9f3a")
        listed = desk.done("list", "PLAN", "--json").json
        table = desk.done("list", "PLAN").out
        refused = desk.run("backup", "PLAN")
    assert listed["in_progress"]["backup_id"] == "INC_20260102_030405_9f3a"
    assert listed["in_progress"]["holder"] == "host:1"
    assert "in_progress" in table
    assert refused.code == 5
    assert "host:1" in refused.err


def test_show_tells_all_of_one_backup(desk: Desk) -> None:
    made = desk.backup("--tag", "release")
    desk.done("verify", "PLAN")
    shown = desk.done("show", "PLAN", "latest", "--json").json
    assert shown["id"] == made
    assert {c["name"]: c["rows"] for c in shown["collections"]}["ledger/orders"] == 200
    assert [v["status"] for v in shown["verifications"]] == ["verified"]
    assert shown["requested_type"] == "incremental"
    text = desk.done("show", "PLAN", made[-4:]).out
    assert made in text
    assert "release" in text
    assert "verified" in text


def test_a_source_that_is_not_there_exits_3_and_names_it(desk: Desk) -> None:
    desk.database.unlink()
    ran = desk.run("backup", "PLAN")
    assert ran.code == 3
    assert "ledger" in ran.err
    assert "hint:" in ran.err


def test_retention_tells_what_would_go_and_then_removes_it(desk: Desk) -> None:
    desk.plan.write_text(desk.plan.read_text() + "retention: {full: 1s, incremental: 1s}\n")
    for _ in range(2):
        desk.backup("--type", "full")
    dry = desk.done("retention", "PLAN", "--dry-run", "--json").json
    assert dry["dry_run"] is True
    assert {d["reason"] != "" for d in dry["decisions"]} == {True}
    assert len(desk.done("list", "PLAN", "--json").json["backups"]) == 2
    ran = desk.done("retention", "PLAN")
    assert "kept" in ran.out
    assert "the newest backup" in ran.out or "newest 1 full" in ran.out


def test_on_a_narrow_terminal_the_key_breaks_between_groups_and_still_opens(
    empty_desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.cli.console.WIDTH_WITHOUT_TERMINAL", 80)
    printed = empty_desk.done("init", "PLAN").out.splitlines()
    start = next(n for n, line in enumerate(printed) if "LASTGOOD-KEY-1-" in line)
    typed = "\n".join(line.replace("recovery key", "").strip() for line in printed[start : start + 2])
    key = empty_desk.folder / "recovery.key"
    key.write_text(typed)
    key.chmod(0o600)
    text = empty_desk.plan.read_text().replace("passphrase_env: LASTGOOD_PASSPHRASE", f"key_file: {key}")
    empty_desk.plan.write_text(text)
    empty_desk.done("key", "list", "PLAN")
