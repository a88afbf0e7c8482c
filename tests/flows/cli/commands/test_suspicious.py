"""What the commands say of a backup that is suspicious, and accept."""

from __future__ import annotations

from tests.flows.cli.desk import Desk


def test_a_suspicious_backup_is_said_everywhere_until_it_is_accepted(desk: Desk) -> None:
    before = desk.backup("--type", "full")
    desk.sql("delete from orders")
    ran = desk.run("backup", "PLAN")
    sentence = f"ledger/orders held 200 rows in {before}, and holds none now."
    assert ran.code == 0, "suspicion stops nothing"
    assert f"warning: suspicious: {sentence}" in ran.err
    assert ran.err.count(sentence) == 1
    (made,) = (one["id"] for one in desk.done("list", "PLAN", "--last", "1", "--json").json["backups"])
    lines = {line.split()[0]: line for line in desk.done("list", "PLAN").out.splitlines()}
    assert "completed, suspicious" in lines[made]
    assert "suspicious" not in lines[before]
    assert f"suspicious {sentence}" in " ".join(desk.done("show", "PLAN", made).out.split())
    told = desk.done("show", "PLAN", made, "--json").json
    assert (told["suspicious"], told["suspicions"]) == (True, [sentence])
    desk.done("verify", "PLAN", "--deep")
    ran = desk.run("status", "PLAN")
    assert ran.code == 13
    assert f"lastgood accept {desk.plan} {made}" in " ".join(ran.out.split())
    (one,) = desk.run("status", "PLAN", "--json").json["plans"]
    assert (one["health"], [s["backup_id"] for s in one["suspicious"]]) == ("suspicious", [made])

    said = desk.done("accept", "PLAN", made, "--json").json
    assert (said["plan"], said["accepted"]) == ("trading", [{"id": made, "suspicions": [sentence]}])
    assert "no backup of plan trading is suspicious" in desk.done("accept", "PLAN").err
    listed = {one["id"]: one for one in desk.done("list", "PLAN", "--json").json["backups"]}
    assert (listed[made]["suspicious"], listed[made]["suspicions"]) == (False, [sentence])
    assert "suspicious" not in desk.done("list", "PLAN").out
    assert "suspicious, accepted" in desk.done("show", "PLAN", made).out
    assert desk.done("status", "PLAN", "--json").json["plans"][0]["health"] == "good"


def test_what_is_accepted_is_named(desk: Desk) -> None:
    plain = desk.backup("--type", "full")
    desk.sql("delete from orders")
    made = desk.backup()
    ran = desk.run("accept", "PLAN", plain)
    assert (ran.code, f"nothing is suspicious about {plain}" in ran.err) == (2, True)
    assert desk.run("accept", "PLAN", "INC_20000101_000000_0000").code == 6
    told = desk.done("accept", "PLAN").out
    assert f"accepted: {made}" in told
    again = desk.done("accept", "PLAN", made)
    assert (again.out, "no such backup of plan trading is suspicious and not accepted yet" in again.err) == ("", True)
    assert "ledger/orders held 200 rows" in told


def test_accept_without_a_plan_asks_for_that_alone(desk: Desk) -> None:
    ran = desk.run("accept")
    assert ran.code == 2
    assert "required: PLAN\n" in ran.err
    made = desk.backup()
    assert f"`lastgood status {desk.plan}` names what is" in desk.run("accept", "PLAN", made).err
