"""init, backup, list, show, retention."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from blocks.plan.plan import read_plan
from lastgood import main
from tests.blocks.repository_support import Shelf
from tests.flows.cli.desk import Desk

ROOT = Path(__file__).resolve().parents[4]


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
    assert set(kit) == {"url", "repository_id", "recovery_key", "what_to_do", "warnings"}
    made = empty_desk.backup()
    monkeypatch.delenv("LASTGOOD_PASSPHRASE")
    monkeypatch.setenv("KIT", kit["recovery_key"])
    text = empty_desk.plan.read_text().replace("passphrase_env: LASTGOOD_PASSPHRASE", "recovery_key_env: KIT")
    empty_desk.plan.write_text(text)
    assert empty_desk.done("verify", "PLAN", made, "--json").json["status"] == "verified"


def test_a_first_incremental_becomes_a_full_and_says_so(desk: Desk) -> None:
    ran = desk.done("backup", "PLAN", "--verbose")
    assert "made full" in ran.err
    assert "FUL_" in ran.out
    assert "ledger/orders" in ran.out


def test_without_a_server_a_backup_says_that_it_is_not_recorded(desk: Desk) -> None:
    assert "not recorded" in desk.done("backup", "PLAN", "--verbose").err
    assert "not recorded" not in desk.done("backup", "PLAN", "--no-server", "--verbose").err


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
    with repository.lease("trading", "incremental backup", holder="host:1") as lease:
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
    made = long_ago(desk)
    dry = desk.done("retention", "PLAN", "--dry-run", "--json").json
    assert dry["dry_run"] is True
    assert [(d["backup_id"], d["remove"]) for d in dry["decisions"]] == [(made[0], True), (made[1], False)]
    assert len(desk.done("list", "PLAN", "--json").json["backups"]) == 2
    refused = desk.run("retention", "PLAN")
    assert refused.code == 10
    assert "no backup is young enough" in refused.err
    ran = desk.done("retention", "PLAN", "--accept-clock")
    assert "among the newest 1 full" in ran.out
    assert "no backup is young enough" in ran.err
    assert [one["id"] for one in desk.done("list", "PLAN", "--json").json["backups"]] == [made[1]]


def long_ago(desk: Desk) -> list[str]:
    """Put two full backups of half a year ago into the repository."""
    (desk.folder / "shelf").mkdir()
    shelf = Shelf(desk.folder / "shelf")
    shelf.block, shelf.root = read_plan(desk.plan).repository, desk.folder / "backups"
    shelf.keyring = read_plan(desk.plan).encryption
    shelf.clock.time = datetime.now(UTC) - timedelta(days=180)
    shelf.repository = shelf.open()
    return [shelf.back_up().backup_id for _ in range(2)]


def test_on_a_narrow_terminal_the_key_breaks_between_groups_and_still_opens(
    empty_desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.cli.output.WIDTH_WITHOUT_TERMINAL", 80)
    printed = empty_desk.done("init", "PLAN").out.splitlines()
    start = next(n for n, line in enumerate(printed) if "LASTGOOD-KEY-1-" in line)
    typed = "\n".join(line.replace("recovery key", "").strip() for line in printed[start : start + 2])
    key = empty_desk.folder / "recovery.key"
    key.write_text(typed)
    key.chmod(0o600)
    text = empty_desk.plan.read_text().replace("passphrase_env: LASTGOOD_PASSPHRASE", f"key_file: {key}")
    empty_desk.plan.write_text(text)
    empty_desk.done("key", "list", "PLAN")


def as_process(words: list[str], out: int | None) -> int:
    """Run the command as a process with stdout as given; None closes it."""
    script = "import sys; from lastgood import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", script, *words]
    if out is None:
        command = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
    return subprocess.run(command, cwd=ROOT, stdout=out, stderr=subprocess.DEVNULL, check=False).returncode


def as_child(words: list[str], out: int | None) -> int:
    """Run the command in a child of this process, which finds its stdout as a new process would."""
    child = os.fork()
    if not child:
        code = 120  # what Python exits with where it cannot write its output at the end
        try:
            if out is None:
                os.close(1)
                sys.stdout = None  # type: ignore[assignment]
            else:
                os.dup2(out, 1)
                sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
            code = main(words)
            if sys.stdout is not None:
                sys.stdout.flush()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize(("run", "json"), [(as_process, []), (as_child, ["--json"])], ids=["text", "json"])
@pytest.mark.parametrize("seen_by", ["nobody", "a full disk", "a reader that went away"])
@pytest.mark.share(2)
def test_where_nobody_sees_the_kit_there_is_no_repository_and_init_can_be_repeated(
    empty_desk: Desk, seen_by: str, run: Callable[[list[str], int | None], int], json: list[str]
) -> None:
    words = ["init", str(empty_desk.plan), *json]
    if seen_by == "a reader that went away":
        ours, theirs = os.pipe()
        os.close(ours)
        code = run(words, theirs)
        os.close(theirs)
    elif seen_by == "a full disk":
        with open("/dev/full", "wb") as full:
            code = run(words, full.fileno())
    else:
        code = run(words, None)
    assert code > 0
    assert not (empty_desk.folder / "backups" / "lastgood.json").exists()
    assert "LASTGOOD-KEY-1-" in empty_desk.done("init", "PLAN").out


def test_an_age_in_minutes_is_refused_by_name_with_a_hint(empty_desk: Desk) -> None:
    empty_desk.plan.write_text(empty_desk.plan.read_text() + "retention: {full: 6m}\n")
    ran = empty_desk.run("retention", "PLAN")
    assert ran.code == 2
    for words in ("retention.full", "6mo", "180d"):
        assert words in ran.err
