"""Pages of what was proved, from the command line: when it is proved, and later from the records."""

from __future__ import annotations

import shutil

import pytest

from blocks.host.state_folder import state_folder
from tests.flows.cli.desk import Desk
from tests.flows.reporting.html_check import Page

SUITE = """
name: limits
collection: ledger/orders
expectations:
  - {type: expect_column_values_to_be_between, kwargs: {column: price, max_value: MOST}}
"""


def with_suite(desk: Desk, most: int) -> None:
    (desk.folder / "suite.yaml").write_text(SUITE.replace("MOST", str(most)))
    desk.plan.write_text(desk.plan.read_text() + "quality: [./suite.yaml]\n")


def page(desk: Desk, name: str) -> Page:
    read = Page((desk.folder / name).read_text())
    assert read.faults == []
    return read


def test_a_verification_writes_its_page_and_the_same_page_is_made_later_from_records_alone(desk: Desk) -> None:
    with_suite(desk, 1000)
    made = desk.backup()
    ran = desk.done("verify", "PLAN", "--deep", "--report", "now.html")
    assert ran.err.endswith("report: now.html\n")
    assert f"Backup {made} of plan trading" in page(desk, "now.html").text
    assert page(desk, "now.html").row("Stored bytes")[1] == "✓ good"
    for segment in desk.objects(made, "*.pack"):
        segment.unlink()
    said = desk.done("proof", "PLAN", "--out", "later.html").out
    assert said == f"what was proved of {made} is told in later.html\n"
    assert (desk.folder / "later.html").read_text() == (desk.folder / "now.html").read_text()


def test_a_bad_verification_has_a_page_too_and_keeps_its_exit_code(desk: Desk) -> None:
    with_suite(desk, 50)
    desk.backup()
    ran = desk.run("verify", "PLAN", "--report", "bad.html")
    assert ran.code == 9
    bad = page(desk, "bad.html")
    assert bad.headings[0] == (1, "✗ Not good")
    assert bad.row("Quality of data")[1] == "✗ bad"


def test_a_damaged_backup_has_a_page(desk: Desk) -> None:
    made = desk.backup()
    desk.objects(made, "*.pack")[0].write_bytes(b"")
    assert desk.run("verify", "PLAN", "--report", "bad.html").code == 8
    assert page(desk, "bad.html").row("Stored bytes")[1] == "✗ bad"


def test_damage_of_a_full_is_on_its_page_and_on_that_of_what_depends_on_it(desk: Desk) -> None:
    full = desk.backup("--type", "full")
    desk.sql("update orders set price = 0 where id < 5")
    made = desk.backup()
    pack = desk.objects(full, "*.pack")[0]
    pack.write_bytes(pack.read_bytes()[:-1] + b"x")
    assert desk.run("verify", "PLAN", made).code == 8
    for backup in (full, made):
        desk.done("proof", "PLAN", backup, "--out", f"{backup}.html")
        read = page(desk, f"{backup}.html")
        assert read.headings[0] == (1, "✗ Not good")
        assert read.row("Stored bytes")[1].startswith("✗ bad")
    assert page(desk, f"{full}.html").row(full)[4] == ""  # only its objects were read


def test_what_cannot_be_written_is_refused_before_anything_is_done(desk: Desk) -> None:
    made = desk.backup()
    for words in (["verify", "PLAN", "--report", "plan.yaml"], ["proof", "PLAN", "--out", "plan.yaml"]):
        ran = desk.run(*words)
        assert ran.code == 2
        assert "plan.yaml is there already, and is no report of lastgood" in ran.err
    assert desk.done("show", "PLAN", made, "--json").json["verifications"] == []


def test_a_backup_that_was_never_verified_has_a_page_that_says_so(desk: Desk) -> None:
    desk.backup()
    desk.done("proof", "PLAN", "latest", "--out", "none.html")
    assert page(desk, "none.html").headings[0] == (1, "– Not proved")


def test_a_report_that_cannot_be_written_in_the_end_does_not_hide_what_was_found(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = desk.backup()
    desk.objects(made, "*.pack")[0].write_bytes(b"")
    (desk.folder / "out").mkdir()

    def gone(*_: object) -> str:
        shutil.rmtree(desk.folder / "out")
        return ""

    monkeypatch.setattr("flows.cli.commands.verify.proof_page", gone)
    ran = desk.run("verify", "PLAN", "--report", "out/report.html")
    assert ran.code == 8
    assert "warning: no report can be written to out/report.html" in ran.err


def test_a_command_keeps_no_page_that_nobody_asked_for(desk: Desk) -> None:
    desk.backup()
    desk.done("verify", "PLAN", "--no-server")
    assert not (state_folder() / "reports").exists()
