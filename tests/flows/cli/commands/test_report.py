"""The report command: a page of real plans, whatever state they are in."""

from __future__ import annotations

import pytest

from blocks.plan.plan import load_plan
from flows.reading.report import report_html
from tests.flows.cli.desk import Desk
from tests.flows.reporting.html_check import Page
from tests.flows.reporting.report_records import NOW


def page(desk: Desk, name: str = "report.html") -> Page:
    read = Page((desk.folder / name).read_text())
    assert read.faults == []
    return read


def test_a_plan_is_reported_from_its_first_day_to_a_damaged_one(desk: Desk) -> None:
    out = ("--out", str(desk.folder / "report.html"))
    said = desk.done("report", "PLAN", *out).out
    assert said.splitlines()[0] == f"There is no good backup: run `lastgood backup {desk.plan}`."
    assert "There is none yet." in page(desk).text
    made = desk.backup()
    desk.sql("insert into positions values ('NVDA', 1)")
    second = desk.backup()
    desk.done("verify", "PLAN", "--deep")
    assert desk.done("report", "PLAN", *out).out.splitlines()[1] == f"all else is told in {out[1]}"
    told = page(desk)
    assert told.headings[0][1].startswith("✓ Nothing: the last good backup is from")
    assert told.row(second)[2:4] == ["incremental", made]
    assert told.row("Restore")[1:3] == ["✓ good", "really restored"]
    assert "no target is set; measured once" in told.text
    assert "free" in told.row("no room left")[1] or told.row("no room left")[1] == "too early to tell"
    desk.objects(second, "*.pack")[0].write_bytes(b"damaged")
    assert desk.run("verify", "PLAN").code == 8
    desk.done("report", "PLAN", *out)
    told = page(desk)
    assert told.headings[0][1].startswith(f"✗ Something is wrong with {second}")
    assert told.row(second)[5].startswith("corrupted its stored bytes are bad")
    assert told.row(made)[5] == "not verified"


def test_one_plan_that_cannot_be_read_hides_no_other_and_is_the_exit_code(desk: Desk) -> None:
    made = desk.backup()
    other = desk.folder / "another.yaml"
    other.write_text(desk.plan.read_text().replace("./backups", "./not-there").replace("name: trading", "name: other"))
    broken = desk.folder / "broken.yaml"
    broken.write_text("name: [")
    ran = desk.run("report", str(other), "PLAN", str(broken), "--out", str(desk.folder / "report.html"))
    assert ran.code == 4
    assert f"error: {other}: " in ran.err
    assert f"error: plan {broken} is not YAML: " in ran.err
    told = page(desk)
    assert "3 plans: 2 not readable, 1 not proved" in told.text
    assert told.row(made)[2] == "full"


def test_no_page_is_written_into_the_repository_of_a_plan(desk: Desk) -> None:
    desk.backup()
    inside = desk.folder / "backups" / "report.html"
    ran = desk.run("report", "PLAN", "--out", str(inside))
    assert ran.code == 2
    assert "is in the repository of plan trading" in ran.err
    assert not inside.exists()


def test_the_page_is_written_here_and_never_over_what_is_no_page(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk.folder)
    desk.done("report", "PLAN")
    desk.done("report", "PLAN")
    assert page(desk, "lastgood-report.html").headings[0][1].startswith("!")
    before = desk.plan.read_text()
    ran = desk.run("report", "PLAN", "--out", str(desk.plan))
    assert (ran.code, desk.plan.read_text()) == (2, before)
    assert "is no report of lastgood" in ran.err


def test_plans_become_a_page_without_a_command(desk: Desk) -> None:
    desk.backup()
    opened = load_plan(str(desk.plan))
    lost = opened.model_copy(update={"name": "lost", "repository": opened.repository.model_copy(update={"url": "/no"})})
    told = Page(report_html([opened, lost], NOW))
    assert told.faults == []
    assert "2 plans: 1 not readable" in told.text
    assert f"run lastgood verify {desk.plan} --deep" in told.text
