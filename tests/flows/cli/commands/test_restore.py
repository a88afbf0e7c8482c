"""restore: preview, refusal, confirmation, undo, times."""

from __future__ import annotations

import shutil
import sqlite3

import pytest

from tests.flows.cli.desk import Desk


def test_a_preview_counts_and_writes_nothing(desk: Desk) -> None:
    desk.backup()
    desk.sql("delete from orders where id <= 10")
    desk.sql("update orders set price = 0 where id = 20")
    desk.sql("insert into orders values (999, 'NEW', 1, null)")
    ran = desk.done("restore", "PLAN", "--mode", "preview", "--json").json
    orders = next(c for c in ran["collections"] if c["collection"] == "ledger/orders")
    assert (orders["added"], orders["changed"], orders["removed"]) == (10, 1, 1)
    assert desk.sql("select count(*) from orders") == [(191,)]


def test_without_a_terminal_a_restore_needs_a_yes(desk: Desk) -> None:
    desk.backup()
    desk.sql("delete from orders")
    ran = desk.run("restore", "PLAN")
    assert ran.code == 10
    assert "--yes" in ran.err
    assert desk.sql("select count(*) from orders") == [(0,)]


def test_a_restore_in_place_prints_how_to_undo_it(desk: Desk) -> None:
    desk.backup()
    before = desk.sql("select * from orders")
    desk.sql("delete from orders where id > 5")
    (desk.conf / "limits.json").unlink()
    ran = desk.done("restore", "PLAN", "--yes")
    assert desk.sql("select * from orders") == before
    assert (desk.conf / "limits.json").read_text() == '{"limit": 10}'
    (undo,) = [line.partition("lastgood ")[2] for line in ran.out.splitlines() if "undo" in line]
    assert str(desk.plan) in undo
    assert desk.run(*undo.split()).code == 0
    assert desk.sql("select count(*) from orders") == [(5,)]
    assert not (desk.conf / "limits.json").exists()


def test_a_restore_where_nothing_is_left_goes_on_and_says_so(desk: Desk) -> None:
    desk.backup()
    before = desk.sql("select * from orders")
    desk.database.unlink()
    ran = desk.done("restore", "PLAN", "--yes")
    assert "no emergency backup" in ran.err
    assert desk.sql("select * from orders") == before


def test_single_keys_are_merged_and_the_rest_stays(desk: Desk) -> None:
    desk.backup()
    desk.sql("update positions set size = 0")
    desk.done("restore", "PLAN", "--collection", "ledger/positions", "--key", "AAPL*", "--mode", "merge", "--yes")
    assert desk.sql("select * from positions") == [("AAPL", 5), ("MSFT", 0)]


def test_a_restore_to_another_place_leaves_the_live_state_alone(desk: Desk) -> None:
    desk.backup()
    desk.sql("delete from orders")
    ran = desk.done("restore", "PLAN", "--to", str(desk.folder / "else"), "--yes", "--json").json
    with sqlite3.connect(ran["places"]["ledger"]) as restored:
        assert restored.execute("select count(*) from orders").fetchone() == (200,)
    assert desk.sql("select count(*) from orders") == [(0,)]
    assert ran["undo"] is None


def test_a_time_is_said_in_local_time_and_in_utc(desk: Desk) -> None:
    desk.backup()
    ran = desk.run("restore", "PLAN", "--at", "2h ago", "--mode", "preview")
    assert ran.code == 6
    assert "UTC" in ran.err
    assert desk.run("restore", "PLAN", "--at", "soon", "--mode", "preview").code == 2
    assert desk.done("restore", "PLAN", "--at", "now", "--mode", "preview").code == 0


def test_hints_name_the_plan_as_it_was_typed(desk: Desk) -> None:
    desk.backup()
    ran = desk.run("restore", "PLAN", "FUL_nothing", "--yes")
    assert ran.code == 6
    assert f"`lastgood list {desk.plan}`" in ran.err


def test_a_writer_cannot_restore_and_nothing_is_written(desk: Desk) -> None:
    desk.backup()
    key = str(desk.folder / "worker.key")
    desk.done("key", "add", "PLAN", "--role", "writer", "--label", "worker", "--key-file", key, "--generate")
    text = desk.plan.read_text().replace("./own.key", key)
    desk.plan.write_text(text)
    desk.backup()
    desk.done("list", "PLAN")
    desk.sql("delete from orders")
    ran = desk.run("restore", "PLAN", "--yes")
    assert ran.code == 7
    assert desk.sql("select count(*) from orders") == [(0,)]


@pytest.mark.parametrize("answer", ["no", ""])
def test_a_person_who_does_not_say_yes_gets_no_restore(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    desk.backup()
    desk.sql("delete from orders")
    monkeypatch.setattr("flows.cli.commands.restore.interactive", lambda: True)
    monkeypatch.setattr("builtins.input", lambda *_: answer)
    ran = desk.run("restore", "PLAN")
    assert ran.code == 10
    assert "would restore" in ran.out
    assert desk.sql("select count(*) from orders") == [(0,)]


def test_a_person_who_says_yes_gets_what_was_previewed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.backup()
    desk.sql("delete from orders")

    def a_newer_backup_meanwhile(*_: object) -> str:
        desk.run("backup", "PLAN")
        return "yes"

    monkeypatch.setattr("flows.cli.commands.restore.interactive", lambda: True)
    monkeypatch.setattr("builtins.input", a_newer_backup_meanwhile)
    desk.done("restore", "PLAN")
    assert desk.sql("select count(*) from orders") == [(200,)]


@pytest.mark.parametrize(
    "place", ["redis://:sw0rdfish@h", "postgresql://me:sw0rdfish@h/x", "host=h password=sw0rdfish"]
)
def test_a_password_in_the_place_is_refused_and_not_repeated(desk: Desk, place: str) -> None:
    desk.backup()
    for more in (("--yes",), ("--mode", "preview"), ("--yes", "--json"), ("--yes", "--debug"), ()):
        ran = desk.run("restore", "PLAN", "--to", place, *more)
        assert ran.code == 2
        assert "sw0rdfish" not in ran.out + ran.err
        assert "--to-password-env" in ran.err


def test_a_place_that_stands_where_another_word_belongs_is_not_repeated(desk: Desk) -> None:
    desk.backup()
    for words in (["redis://:sw0rdfish@h"], ["latest", "redis://:sw0rdfish@h"], ["--too", "redis://:sw0rdfish@h"]):
        ran = desk.run("restore", "PLAN", *words, "--yes")
        assert ran.code == 2
        assert "sw0rdfish" not in ran.out + ran.err


def test_a_time_that_is_still_to_come_is_refused(desk: Desk) -> None:
    desk.backup()
    desk.sql("delete from orders")
    for mode in ("preview", "exact"):
        ran = desk.run("restore", "PLAN", "--at", "2999-01-02 03:04", "--mode", mode, "--yes")
        assert ran.code == 2
        assert "in the future" in ran.err
    assert desk.sql("select count(*) from orders") == [(0,)]


def test_a_copied_plan_restores_over_its_own_state_only_by_a_word(desk: Desk) -> None:
    shutil.copytree(desk.folder / "state", desk.folder / "staging")
    copied = desk.folder / "staging.yaml"
    copied.write_text(desk.plan.read_text().replace("./state/", "./staging/"))
    production = desk.backup()
    staging = desk.done("backup", str(copied), "--json").json
    assert staging["type"] == "full"
    assert f"source ledger is another database than that of {production}" in staging["promoted_because"]
    for words in (["restore", "PLAN", staging["id"], "--yes"], ["retention", "PLAN"], ["retention", str(copied)]):
        ran = desk.run(*words)
        assert ran.code == 10, ran.err
        assert "is another database than that of" in ran.err
        assert "--adopt" in ran.err
    desk.done("restore", "PLAN", staging["id"], "--yes", "--adopt")
    desk.done("undo", "PLAN", "--yes")
    assert "1 of " not in desk.done("retention", "PLAN", "--adopt").out
    assert desk.run("retention", "PLAN").code == 0
    (ledger, _) = desk.done("show", "PLAN", production, "--json").json["sources"]
    assert str(desk.database) in ledger["identity"]["place"][0]


@pytest.mark.parametrize(
    ("glob", "meant"),
    [("ledger/ordrs", "ledger/orders"), ("ledgr/*", "ledger/orders"), ("positions", "ledger/positions"), ("zzz", None)],
)
def test_a_collection_that_is_not_there_is_refused_with_the_nearest_name(
    desk: Desk, glob: str, meant: str | None
) -> None:
    desk.backup()
    ran = desk.run("restore", "PLAN", "--yes", "--collection", glob)
    assert ran.code == 6
    assert f"holds no collection {glob}" in ran.err
    assert (f"did you mean {meant}?" in ran.err) if meant else ("did you mean" not in ran.err)
