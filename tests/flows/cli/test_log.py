"""The log of a command: a line a stage with numbers, JSON on request, the backup's id in each, no secrets."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import pytest

from blocks.errors import RepositoryUnavailable, SourceUnavailable
from blocks.host.log_lines import LoggedRun, logged_as
from blocks.sources.sqlite.source import SQLiteSource
from flows.cli.app import prepare_process
from flows.cli.commands import list_backups
from flows.cli.exit import guarded
from flows.cli.manner import speak
from flows.cli.output import interactive, note
from flows.reporting import lifecycle
from flows.reporting.run_lines import tell
from tests.flows.cli.desk import Desk, Ran

DOWN = ["collect", "normalize", "diff", "compress", "encrypt", "store", "record"]
UP = ["find", "fetch", "decrypt", "decompress", "merge"]


def lines(ran: Ran) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ran.err.splitlines()]


def stages(said: list[str]) -> list[str]:
    return [line.partition(":")[0] for line in said if re.search(r"^[a-z]+: .*\d s$", line) and "took" not in line]


def test_verbose_says_a_line_a_stage_with_numbers_and_the_backup(desk: Desk) -> None:
    ran = desk.done("backup", "PLAN", "--verbose", "--no-server")
    (backup_id,) = set(re.findall(r"FUL_\w+", ran.out))
    said = [line.removeprefix(f"{backup_id}: ") for line in ran.err.splitlines() if line.startswith(f"{backup_id}: ")]
    assert stages(said) == DOWN
    assert next(line for line in said if line.startswith("collect")).startswith("collect: 205 rows, ")
    assert re.search(r"diff: 205 written, 0 deleted, [\d.]+ KiB, \d+\.\d s", "\n".join(said))
    assert "place: " in "\n".join(said)


@pytest.mark.parametrize(
    ("words", "verb", "expected"),
    [
        (["verify", "--no-server"], "verification", [*UP, "prove"]),
        (["verify", "--no-server", "--deep"], "verification", [*UP, "prove"]),
        (["restore", "--yes", "--no-server"], "restore", [*UP, "denormalize", "apply", *DOWN]),
        (["restore", "--mode", "preview"], "restore", ["find"]),
        (["retention", "--no-server"], "retention", ["decide", "explain", "remove", "sweep"]),
    ],
    ids=lambda one: " ".join(one) if isinstance(one, list) else None,
)
def test_lines_of_json_name_plan_verb_backup_and_operation(
    desk: Desk, words: list[str], verb: str, expected: list[str]
) -> None:
    backup_id = desk.backup()
    ran = desk.done(words[0], "PLAN", *words[1:], "--log-format", "json")
    said = [line for line in lines(ran) if line["operation_id"]]
    assert [stage for stage in stages([one["message"] for one in said]) if stage in expected] == expected
    assert {(one["plan"], one["verb"], one["level"]) for one in said} == {("trading", verb, "info")}
    assert {one["backup_id"] for one in said if "took" in one["message"]} == (
        set() if verb == "retention" else {backup_id}
    )
    assert len({one["operation_id"] for one in said}) == 1
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", one["time"]) for one in said)


def test_the_environment_asks_for_json_too_and_all_of_stderr_is(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LASTGOOD_LOG", "json")
    ran = desk.done("backup", "PLAN", "--verbose", "--json")
    assert "no Prefect server answers" in "\n".join(one["message"] for one in lines(ran))
    assert ran.json["type"] == "full"
    ran = desk.run("show", "PLAN", "FUL_2")
    assert ran.code == 0
    ran = desk.run("show", "PLAN", "nothing", "--json")
    (failed,) = lines(ran)
    assert (failed["level"], failed["error"]["code"], failed["warnings"]) == ("error", 6, [])
    assert failed["message"] == failed["error"]["message"]
    ran = desk.done("backup", "PLAN", "--log-format=text")
    assert ran.err == ""


def test_a_format_that_there_is_not_is_refused(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = desk.run("list", "PLAN", "--log-format", "jsn")
    assert (ran.code, ran.out) == (2, "")
    assert "'jsn' is no format of the log; did you mean json?" in ran.err
    monkeypatch.setenv("LASTGOOD_LOG", "xml")
    assert desk.run("list", "PLAN").code == 2
    assert desk.run("list", "PLAN", "--log-format", "json").code == 0


def test_lines_of_a_failed_attempt_name_the_id_that_was_drawn_for_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        logging.getLogger("blocks.sources.somewhere").warning("the disk makes noises")
        raise SourceUnavailable("the disk is gone")

    monkeypatch.setattr(SQLiteSource, "view", fails)
    monkeypatch.setattr("time.sleep", lambda _: None)
    ended: list[lifecycle.Operation] = []

    class Listener:
        def started(self, operation: lifecycle.Operation) -> None: ...

        def ended(self, operation: lifecycle.Operation) -> None:
            ended.append(operation)

    monkeypatch.setattr(lifecycle, "listeners", lambda _: [Listener()])
    ran = desk.run("backup", "PLAN", "--type", "full", "--log-format", "json")
    assert ran.code == 3
    warned = [one for one in lines(ran) if one["level"] in ("warning", "error")]
    assert {one["message"] for one in warned} == {"the disk makes noises", "source ledger: the disk is gone"}
    assert {(one["backup_id"], one["operation_id"]) for one in warned} == {(ended[0].backup_id, ended[0].operation_id)}
    assert str(ended[0].backup_id).startswith("FUL_")


SECRET = "hunter2 & Söhne/%"


class _Planted(RuntimeError):
    """What a driver may raise: it repeats what it was given."""


@pytest.mark.parametrize("options", [["--verbose"], ["--log-format", "json"], ["--log-format", "json", "--debug"]])
def test_no_line_of_any_level_holds_a_secret(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, options: list[str]
) -> None:
    monkeypatch.setenv("DESK_PASSWORD", SECRET)
    desk.plan.write_text(
        desk.plan.read_text().replace(
            "  conf:",
            "  cache: {type: redis, url: 'redis://localhost:1/0', password_env: DESK_PASSWORD}\n  conf:",
        )
    )
    url = "postgresql://bot:geheim99@db.example/books"

    class Leaking:
        def started(self, operation: lifecycle.Operation) -> None:
            raise _Planted(f"no answer of {url}, tried password={SECRET}")

        def ended(self, operation: lifecycle.Operation) -> None:
            logging.getLogger("flows.planted").info("connecting to %s with %r", url, SECRET)
            logging.getLogger("blocks.planted").warning("sent %s to %s", SECRET, url)
            try:
                raise _Planted(f"{SECRET} was refused by {url}")
            except _Planted:
                logging.getLogger("blocks.planted").warning("it failed", exc_info=True)

    def fails(*_: object) -> None:
        raise _Planted(f"cannot log in to {url} with {SECRET}")

    monkeypatch.setattr(lifecycle, "listeners", lambda _: [Leaking()])
    monkeypatch.setattr(SQLiteSource, "view", fails)
    with caplog.at_level(logging.DEBUG, "flows.reporting"):
        ran = desk.run("backup", "PLAN", *options)
    own = [record.getMessage() for record in caplog.records if record.name.startswith("flows.reporting")]
    said = "\n".join([ran.out, ran.err, *own])
    assert ran.code == 1
    assert all(words in said for words in ("no answer of", "cannot log in", "sent ***"))
    for secret in (SECRET, "hunter2", "geheim99"):
        assert secret not in said


@pytest.mark.parametrize("error", [_Planted, RepositoryUnavailable], ids=["unexpected", "expected"])
@pytest.mark.parametrize(
    "options", [[], ["--debug"], ["--json"], ["--log-format", "json", "--json", "--debug"]], ids=" ".join
)
def test_commands_that_make_no_run_say_no_secret_either(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, options: list[str], error: type[Exception]
) -> None:
    monkeypatch.setenv("DESK_PASSWORD", SECRET)
    cache = "  cache: {type: redis, url: 'redis://localhost:1/0', password_env: DESK_PASSWORD}\n  conf:"
    desk.plan.write_text(desk.plan.read_text().replace("  conf:", cache))

    def fails(*_: object) -> None:
        logging.getLogger("blocks.planted").warning("tried %s", SECRET)
        raise error(f"no answer to {SECRET} of postgresql://bot:geheim99@db/books")

    monkeypatch.setattr(list_backups, "settled", fails)
    monkeypatch.setattr("blocks.repository.block.BackupRepository.unlock", fails)
    ran = desk.run("list", "PLAN", *options)
    assert ran.code in (1, 4)
    assert "no answer to ***" in ran.err
    for secret in ("hunter2", "geheim99"):
        assert secret not in ran.out + ran.err


@pytest.mark.parametrize("options", [["--verbose"], ["--log-format", "json"]], ids=" ".join)
@pytest.mark.parametrize("gone", ["a full disk", "a reader that went away"])
def test_a_log_that_nobody_takes_stops_no_backup(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, options: list[str], gone: str
) -> None:
    if gone == "a full disk":
        stream = Path("/dev/full").open("w")  # noqa: SIM115  closed below
    else:
        reader, writer = os.pipe()
        os.close(reader)
        stream = os.fdopen(writer, "w")
    monkeypatch.setattr(sys, "stderr", stream)
    ran = desk.run("backup", "PLAN", "--no-server", *options)
    failed = desk.run("show", "PLAN", "nothing", *options)
    stream.close()  # nothing is left in it that could not be written
    assert (ran.code, failed.code) == (0, 6)
    assert "FUL_" in ran.out


def test_quiet_leaves_warnings_and_errors_of_a_log_of_json(desk: Desk) -> None:
    os.mkfifo(desk.conf / "fifo")
    ran = desk.done("backup", "PLAN", "--no-server", "--quiet", "--log-format", "json")
    (warned,) = lines(ran)
    assert ran.out == ""
    assert (warned["level"], "is a FIFO" in warned["message"]) == ("warning", True)


def test_what_is_said_of_a_result_names_the_run_that_it_is_of(desk: Desk) -> None:
    os.mkfifo(desk.conf / "fifo\nFUL_20260101_000000_0000: rows: 1")
    made = desk.run("backup", "PLAN", "--no-server", "--log-format", "json")
    restored = desk.run("restore", "PLAN", "--no-server", "--yes", "--log-format", "json")
    for ran, verb in ((made, "backup"), (restored, "restore")):
        (run,) = {one["operation_id"] for one in lines(ran)}
        (backup_id,) = {one["backup_id"] for one in lines(ran) if one["message"].startswith("took")}
        assert run
        said = [one for one in lines(ran) if "logger" not in one]
        assert {(one["verb"], one["backup_id"]) for one in said} == {(verb, backup_id)}
    assert "is a FIFO" in made.err


class _Writes(io.StringIO):
    """Keeps what each call writes: between two of them another thread may write."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def write(self, text: str) -> int:
        self.calls.append(text)
        return super().write(text)


@pytest.mark.parametrize("options", [[], ["--log-format", "json"]], ids=" ".join)
def test_each_line_is_written_at_once(monkeypatch: pytest.MonkeyPatch, options: list[str]) -> None:
    writes = _Writes()
    monkeypatch.setattr(sys, "stderr", writes)
    speak(["list", *options])
    note("one")
    prepare_process(quiet=True)
    logging.getLogger("blocks.somewhere").warning("two")
    speak([])
    assert len(writes.calls) == 2
    assert all(call.endswith("\n") and call.count("\n") == 1 for call in writes.calls)


def test_in_what_state_things_were_left_is_in_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        error = RuntimeError("one")
        error.add_note("the old rows are in orders_before")
        raise error

    for words in (["--json"], ["--log-format", "json"]):
        speak(["restore", *words])
        assert guarded(work, debug=False) == 1
        told = json.loads(capsys.readouterr().err)["error"]
        speak([])
        assert told["hint"].startswith("the old rows are in orders_before This is a fault")


def test_what_is_tried_again_is_said(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    view, failures = SQLiteSource.view, ["the file is locked"]

    def fails_once(*args: Any) -> Any:
        if failures:
            raise SourceUnavailable(failures.pop())
        return view(*args)

    monkeypatch.setattr(SQLiteSource, "view", fails_once)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    ran = desk.done("backup", "PLAN", "--no-server", "--log-format", "json")
    (again,) = [one for one in lines(ran) if one["message"].startswith("tried again")]
    assert re.fullmatch(r"tried again in \d\.\d s: source ledger: the file is locked", again["message"])
    assert (again["level"], again["verb"]) == ("info", "backup")


def test_of_text_of_several_lines_each_begins_with_the_backup(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "flows")
    with logged_as(LoggedRun("p", "verification", "1", "FUL_1")):
        tell(["found: it is bad\nINC_2: rows: 7\u2028and more"])
    assert [one.getMessage() for one in caplog.records] == [
        "FUL_1: found: it is bad",
        "FUL_1: INC_2: rows: 7",
        "FUL_1: and more",
    ]


@pytest.mark.parametrize("away", ["stdin", "stdout", "stderr"])
def test_nobody_is_asked_who_does_not_see_the_question(monkeypatch: pytest.MonkeyPatch, away: str) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    streams: dict[str, TextIO] = {name: Terminal() for name in ("stdin", "stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    assert interactive()
    monkeypatch.setattr(sys, away, io.StringIO())
    assert not interactive()


def test_a_format_that_is_missing_is_asked_for(desk: Desk) -> None:
    ran = desk.run("list", "PLAN", "--log-format")
    assert (ran.code, ran.out) == (2, "")
    assert "--log-format has no value" in ran.err


@pytest.mark.parametrize("command", ["status", "report"])
def test_a_plan_of_several_that_is_wrong_is_one_line_with_its_error(desk: Desk, command: str) -> None:
    ran = desk.run(command, "nope.yaml", *(["--out", str(desk.folder / "r.html")] if command == "report" else []))
    assert "error: plan nope.yaml: No such file" in ran.err
    ran = desk.run(
        command, "nope.yaml", "--log-format", "json",
        *(["--out", str(desk.folder / "r.html")] if command == "report" else []),
    )  # fmt: skip
    (failed,) = lines(ran)
    assert (failed["level"], failed["error"]["code"]) == ("error", 2)
    assert failed["message"] == failed["error"]["message"] == "plan nope.yaml: No such file or directory"
