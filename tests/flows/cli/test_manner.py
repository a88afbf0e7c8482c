"""`--quiet`, `--verbose` and `--json`: what is said, where, and in which form."""

from __future__ import annotations

import json
import logging

import pytest

from blocks import errors
from blocks.prefect_compat import log_format, needs_prefect, without_common_options
from flows.cli.exit import guarded
from flows.cli.manner import speak
from flows.cli.output import note, remark, say_json, warn
from tests.flows.cli.desk import Desk


def test_a_log_holds_a_line_of_result_and_nothing_else(desk: Desk) -> None:
    ran = desk.done("backup", "PLAN")
    (line,) = ran.out.splitlines()
    assert line.startswith("backup FUL_")
    assert "full (there is no full" in line
    assert ran.err == ""


@pytest.mark.parametrize(
    "words",
    [["backup"], ["verify"], ["retention"], ["check"], ["restore", "--yes"], ["undo", "--yes"]],
    ids=lambda words: words[0],
)
def test_quiet_leaves_nothing_of_what_went_well(desk: Desk, words: list[str]) -> None:
    desk.backup()
    if words[0] == "undo":
        desk.done("restore", "PLAN", "--yes")
    name, *options = words
    ran = desk.done(name, "PLAN", *options, "--quiet")
    assert ran.out == ""
    # what a restore says of live state is worth a mail
    assert all(line.startswith("note: ") and words[0] in ("restore", "undo") for line in ran.err.splitlines())


def test_quiet_keeps_errors_warnings_and_json(desk: Desk) -> None:
    ran = desk.run("restore", "PLAN", "--yes", "--quiet")
    assert (ran.code, ran.out) == (6, "")
    assert "error: " in ran.err
    assert desk.done("backup", "PLAN", "--quiet", "--json").json["type"] == "full"


def test_verbose_says_all_of_it_also_to_a_log(desk: Desk) -> None:
    ran = desk.done("backup", "PLAN", "--verbose")
    assert "no Prefect server answers" in ran.err
    assert "asked for incremental, made full" in ran.err
    assert "ledger/orders" in ran.out


def test_the_options_of_every_command_stand_anywhere_after_it_and_do_not_hide_the_plan() -> None:
    words = ["--quiet", "list", "--log-format", "json", "--verbose", "p", "--log-format=text", "--", "--quiet"]
    assert without_common_options(words) == ["list", "p", "--", "--quiet"]
    assert log_format(words) == "json"
    assert needs_prefect(["list", "--quiet", "saved"])
    assert not needs_prefect(["list", "--verbose", "p.yaml"])


CASES = [
    (errors.BackupNotFound("no backup", hint="Make one."), 6, "BackupNotFound", "no backup", "Make one."),
    (errors.LastgoodError("a\nb"), 1, "LastgoodError", "a\nb", ""),
    (ZeroDivisionError("one\ntwo"), 1, "ZeroDivisionError", "unexpected ZeroDivisionError: one", None),
    (KeyboardInterrupt(), 130, "Interrupted", "interrupted", ""),
]


@pytest.mark.parametrize(("error", "code", "kind", "message", "hint"), CASES, ids=lambda one: str(one)[:20])
def test_with_json_an_error_is_an_object_on_stderr(
    error: BaseException, code: int, kind: str, message: str, hint: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    speak(["list", "--json"])

    def work() -> None:
        warn("on the way")
        raise error

    assert guarded(work, debug=False) == code
    captured = capsys.readouterr()
    speak([])
    assert captured.out == ""
    said = json.loads(captured.err)
    assert said["warnings"] == ["on the way"]
    assert {**said["error"], "hint": hint or said["error"]["hint"]} == {
        "code": code, "kind": kind, "message": message, "hint": hint or said["error"]["hint"]
    }  # fmt: skip


@pytest.mark.parametrize("words", [["lst", "--json"], ["show", "nowhere.yaml", "latest", "--json"]])
def test_also_what_is_wrong_with_the_command_line_is(desk: Desk, words: list[str]) -> None:
    ran = desk.run(*words)
    assert (ran.code, ran.out) == (2, "")
    assert json.loads(ran.err)["error"]["code"] == 2


def test_warnings_are_part_of_a_result_each_once(capsys: pytest.CaptureFixture[str]) -> None:
    speak(["backup", "--json"])
    for text in ("one", "two", "one"):
        warn(text)
    remark("by the way")
    say_json({"rows": 1, "warnings": ["own", "two"]})
    warn("after it")
    captured = capsys.readouterr()
    speak([])
    assert json.loads(captured.out) == {"rows": 1, "warnings": ["own", "two", "one"]}
    assert json.loads(captured.err) == {"warning": "after it"}


def test_the_json_of_a_backup_has_what_the_source_and_the_layers_below_warn_of(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    import flows.cli.commands.backup as module

    made = module.backup_and_verify

    def warning(*args: object) -> object:
        logging.getLogger("flows.somewhere").warning("the disk is nearly full")
        found = made(*args)  # type: ignore[arg-type]
        first = found.sources[0].model_copy(update={"warnings": ("a view is left out",)})
        return found.model_copy(update={"sources": (first, *found.sources[1:]), "clock_doubt": "the clock jumped"})

    monkeypatch.setattr(module, "backup_and_verify", warning)
    ran = desk.done("backup", "PLAN", "--json")
    assert ran.err == ""
    assert sorted(ran.json["warnings"]) == [
        f"{desk.manifest(ran.json['id']).sources[0].name}: a view is left out",
        "the clock jumped",
        "the disk is nearly full",
    ]


def test_notes_are_as_they_were(capsys: pytest.CaptureFixture[str]) -> None:
    speak(["--quiet"])
    note("error: x")
    warn("y")
    speak([])
    assert capsys.readouterr().err == "error: x\nwarning: y\n"
