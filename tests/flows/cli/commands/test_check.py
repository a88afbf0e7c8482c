"""check and verify: what is found, what is repaired, what is said."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.flows.cli.desk import Desk
from tests.flows.flow_support import blobs, store_apart
from tests.flows.flow_support import flip as flip_in


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backups store many objects."""
    store_apart(monkeypatch)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)


def test_a_whole_repository_has_no_findings(desk: Desk) -> None:
    desk.backup()
    ran = desk.done("check", "PLAN", "--read-data", "--json").json
    assert ran["findings"] == []
    assert ran["objects_read"] == ran["objects"] > 0
    assert ran["bytes_read"] == sum(p.stat().st_size for p in desk.folder.glob("backups/backups/*/*/*.pack"))
    assert ran["capabilities"] == {"exclusive_creation": True, "ranges": True, "list_after_write": True}
    told = desk.done("check", "PLAN").out
    assert "nothing is wrong" in told
    assert "creates an object once" in told


def test_a_share_of_the_data_is_read(desk: Desk, apart: None) -> None:
    desk.backup()
    for words in (["--read-data=10%"], ["--read-data", "10%"]):
        ran = desk.done("check", "PLAN", *words, "--json").json
        assert 0 < ran["objects_read"] < ran["objects"]
    assert desk.run("check", "PLAN", "--read-data=lots").code == 2
    assert desk.run("check", "PLAN", "--read-data=0%").code == 2


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("alone", [True, False])
def test_a_flipped_bit_is_found_where_data_is_read(
    desk: Desk, index: bool, alone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if alone:
        store_apart(monkeypatch)
    made = desk.backup()
    victim = blobs(desk.manifest(made), index)[-1]
    flip_in(desk.objects(made)[0].parent, victim)
    assert desk.done("check", "PLAN").code == 0
    ran = desk.run("check", "PLAN", "--read-data", "--json")
    assert ran.code == 8
    (finding,) = ran.json["findings"]
    assert f"{made}/{victim.name}" in finding


def test_a_missing_object_is_found_without_reading_data(desk: Desk) -> None:
    made = desk.backup()
    victim = desk.objects(made, "*.pack")[0]
    victim.unlink()
    ran = desk.run("check", "PLAN")
    assert ran.code == 8
    assert f"{made} lacks {victim.name}" in ran.out


def test_a_repair_writes_sums_again(desk: Desk) -> None:
    first, second = desk.backup("--type", "full"), desk.backup("--type", "full")
    desk.objects(first, "SHA256SUMS")[0].unlink()
    flip(desk.objects(second, "SHA256SUMS")[0])
    found = desk.run("check", "PLAN", "--json")
    assert found.code == 8
    assert len(found.json["findings"]) == 2
    mended = desk.done("check", "PLAN", "--repair", "--json").json
    assert len(mended["actions"]) == 2
    assert mended["findings"] == []


def test_a_repair_keeps_damaged_backups_from_being_a_base(desk: Desk) -> None:
    made = desk.backup("--type", "full")
    flip_in(desk.objects(made)[0].parent, blobs(desk.manifest(made), index=True)[0])
    ran = desk.run("check", "PLAN", "--read-data", "--repair", "--json")
    assert ran.code == 8
    assert [made in action for action in ran.json["actions"]] == [True]
    assert desk.done("list", "PLAN", "--json").json["backups"][0]["status"] == "corrupted"
    again = desk.run("check", "PLAN", "--repair", "--json")
    assert again.json["actions"] == []
    assert "failed its verification" in again.json["findings"][0]
    desk.sql("delete from orders where id = 1")
    fresh = desk.done("backup", "PLAN", "--json").json
    assert fresh["type"] == "full"
    assert made in fresh["promoted_because"]


def test_leftovers_are_noted_and_not_findings(desk: Desk) -> None:
    made = desk.backup()
    left = desk.folder / "backups" / "backups" / "trading" / "FUL_20200101_000000_abcd"
    left.mkdir(mode=0o700)
    (left / "00000.pack").write_bytes(b"half")
    ran = desk.done("check", "PLAN", "--json").json
    assert any(left.name in note for note in ran["notes"])
    desk.done("check", "PLAN", "--repair")
    assert left.exists()  # the grace time has not passed
    assert desk.objects(made)


def test_a_rolled_back_repository_is_found_until_it_is_accepted(desk: Desk) -> None:
    desk.backup("--type", "full")
    newest = desk.backup("--type", "full")
    for path in desk.objects(newest):
        path.unlink()
    desk.objects(newest)
    found = desk.run("check", "PLAN")
    assert found.code == 8
    assert newest in found.out
    assert desk.done("check", "PLAN", "--accept-head").code == 0
    assert desk.done("check", "PLAN").code == 0


def test_a_writer_compares_sums_of_data_and_says_so(desk: Desk) -> None:
    made, key = desk.backup(), str(desk.folder / "worker.key")
    desk.done("key", "add", "PLAN", "--role", "writer", "--label", "worker", "--key-file", key, "--generate")
    desk.plan.write_text(desk.plan.read_text().replace("./own.key", key))
    assert any("writer" in note for note in desk.done("check", "PLAN", "--read-data", "--json").json["notes"])
    flip(desk.objects(made, "*.pack")[0])
    assert desk.run("check", "PLAN", "--read-data").code == 8


def test_verify_proves_and_a_damaged_backup_shows_its_findings(desk: Desk) -> None:
    made = desk.backup()
    proved = desk.done("verify", "PLAN", "--deep", "--json").json
    assert (proved["status"], proved["deep"], proved["findings"]) == ("verified", True, [])
    flip(desk.objects(made, "*.pack")[0])
    ran = desk.run("verify", "PLAN", "--json")
    assert ran.code == 8
    assert ran.json["status"] == "corrupted"
    assert ran.json["findings"]
    assert '"error":' in ran.err
    assert desk.run("verify", "PLAN").code == 8


def test_verify_of_a_backup_that_is_not_there_exits_6(desk: Desk) -> None:
    ran = desk.run("verify", "PLAN")
    assert ran.code == 6
    assert f"lastgood backup {desk.plan}" in ran.err


def unreadable(path: Path) -> None:
    """Let a file answer with an I/O error."""
    path.unlink()
    path.symlink_to("/proc/self/mem")


def test_reading_goes_on_past_what_cannot_be_read_and_names_all_of_it(desk: Desk, apart: None) -> None:
    made = desk.backup()
    objects = desk.objects(made, "*.pack")
    flip(objects[0])
    objects[1].unlink()
    os.mkfifo(objects[1])
    unreadable(objects[2])
    ran = desk.run("check", "PLAN", "--read-data", "--json")
    assert ran.code == 8
    for victim in objects[:3]:
        assert any(f"{made}/{victim.name}" in finding for finding in ran.json["findings"])


def test_what_cannot_be_read_is_never_marked_as_corrupted(desk: Desk) -> None:
    made = desk.backup("--type", "full")
    victim = desk.objects(made, "*.pack")[0]
    data = victim.read_bytes()
    victim.unlink()
    os.mkfifo(victim)
    ran = desk.run("check", "PLAN", "--read-data", "--repair", "--json")
    assert ran.code == 8
    assert ran.json["actions"] == []
    assert desk.done("list", "PLAN", "--json").json["backups"][0]["status"] == "completed"
    victim.unlink()
    victim.write_bytes(data)
    assert desk.done("check", "PLAN", "--read-data").code == 0


def test_a_disk_that_is_half_mounted_marks_nothing_until_a_person_says_so(desk: Desk) -> None:
    made = [desk.backup("--type", "full") for _ in range(2)]
    left = desk.folder / "backups" / "backups" / "trading" / "FUL_20200101_000000_abcd"
    left.mkdir()
    (left / "00000.pack").write_bytes(b"half")
    os.utime(left / "00000.pack", (0, 0))
    for path in desk.objects(made[0], "*.pack") + desk.objects(made[1], "*.pack"):
        path.rename(desk.folder / f"{path.parent.name} {path.name}")
    ran = desk.run("check", "PLAN", "--repair", "--json")
    assert (ran.code, ran.json["actions"]) == (8, [])
    assert any("mounted" in note and "--mark-missing" in note for note in ran.json["notes"])
    assert (left / "00000.pack").exists()
    assert {one["status"] for one in desk.run("list", "PLAN", "--json").json["backups"]} == {"completed"}
    assert desk.run("check", "PLAN", "--mark-missing").code == 2
    ran = desk.run("check", "PLAN", "--repair", "--mark-missing", "--json")
    assert sum("marked" in action for action in ran.json["actions"]) == 2


def test_one_missing_object_is_marked(desk: Desk) -> None:
    made = desk.backup("--type", "full")
    desk.objects(made, "*.pack")[0].unlink()
    ran = desk.run("check", "PLAN", "--repair", "--json")
    assert [made in action for action in ran.json["actions"]] == [True]


def test_an_unmounted_repository_is_not_answered_with_a_hint_to_make_one(desk: Desk) -> None:
    desk.backup()
    there, away = desk.folder / "backups", desk.folder / "not mounted"
    there.rename(away)
    for words in (["check", "PLAN", "--repair"], ["list", "PLAN"], ["retention", "PLAN"], ["backup", "PLAN"]):
        for folder in (False, True):
            if folder:
                there.mkdir()
            ran = desk.run(*words)
            assert ran.code == 4
            assert "mount" in ran.err
            assert "init" not in ran.err
            if folder:
                there.rmdir()
    away.rename(there)
    desk.done("check", "PLAN")


def test_a_verification_that_cannot_be_recorded_tells_its_result(desk: Desk) -> None:
    made = desk.backup()
    (desk.folder / "backups" / "verifications").write_text("a file where a folder has to be made")
    ran = desk.done("verify", "PLAN", "--json")
    assert ran.json["status"] == "verified"
    assert any("could not be recorded" in warning for warning in ran.json["warnings"])
    assert "could not be recorded" in desk.done("verify", "PLAN").err
    flip(desk.objects(made, "*.pack")[0])
    ran = desk.run("verify", "PLAN", "--json")
    assert (ran.code, ran.json["status"]) == (8, "corrupted")
    assert ran.json["findings"]
    assert "could not be recorded" in ran.err


def test_list_warns_of_a_rollback_that_this_machine_remembers(desk: Desk) -> None:
    desk.backup("--type", "full")
    newest = desk.backup("--type", "full")
    desk.objects(newest)[0].parent.rename(desk.folder / "away")
    ran = desk.done("list", "PLAN", "--json")
    assert any(newest in warning for warning in ran.json["warnings"])
    assert newest in desk.done("list", "PLAN").err
    assert newest in desk.done("restore", "PLAN", "--to", str(desk.folder / "to"), "--yes").err


def test_a_damaged_lease_is_said(desk: Desk) -> None:
    desk.backup()
    lease = max((desk.folder / "backups" / "locks" / "trading").iterdir())
    lease.write_bytes(b"{}")
    assert lease.name in desk.done("list", "PLAN").err
    ran = desk.run("check", "PLAN")
    assert ran.code == 8
    assert lease.name in ran.out
