"""The log of a command: a line a stage with numbers, JSON on request, the backup's id in each, no secrets."""

from __future__ import annotations

import json
import logging
import re
from typing import Any

import pytest

from blocks.errors import SourceUnavailable
from blocks.sources.sqlite.source import SQLiteSource
from flows.reporting import lifecycle
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
