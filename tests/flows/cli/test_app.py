"""The command as a whole: usage, errors, exit codes, output that suits a terminal and one that does not."""

from __future__ import annotations

import inspect
import json
import os
import pty
import subprocess
import sys
from argparse import ArgumentParser
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from pathlib import Path

import pytest

from blocks import errors
from flows.cli import app
from flows.cli.exit import guarded
from flows.cli.options import Command
from flows.cli.output import note, say
from flows.cli.tables import Styled
from flows.cli.times import parse_time
from flows.cli.tree import COMMANDS, GROUPS, parse
from lastgood import main
from tests.flows.cli.desk import PASSPHRASE, Desk

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-c", "import sys; from lastgood import main; sys.exit(main())"]
WORDS = [
    "init",
    "backup",
    "list",
    "show",
    "ls",
    "cat",
    "diff",
    "export",
    "query",
    "restore",
    "verify",
    "retention",
    "check",
    "serve",
    "demo",
]


def environment(**more: str) -> dict[str, str]:
    bare = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return bare | {"PYTHONPATH": str(ROOT), "LASTGOOD_PASSPHRASE": PASSPHRASE} | more


def buffered() -> dict[str, str]:
    """Return an environment in which output to a pipe is buffered, as it is for most people."""
    return {name: value for name, value in environment().items() if name != "PYTHONUNBUFFERED"}


def lastgood(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *words], env=environment(**more), capture_output=True, text=True, timeout=60)


def test_version_and_help_need_neither_plan_nor_prefect(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("lastgood ")
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out
    assert all(f" {name} " in listed for name in [*WORDS, "key", "plan"])


@pytest.mark.parametrize("words", [[name] for name in WORDS] + [["key", "add"], ["key", "remove"], ["plan", "save"]])
def test_every_command_explains_itself(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--help"]) == 0
    assert f"lastgood {' '.join(words)}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ["backp"],
        ["show"],
        ["show", "plan.yaml"],
        ["list", "plan.yaml", "--nonsense"],
        ["backup", "p.yaml", "--type", "x"],
    ],
)
def test_wrong_usage_exits_2_and_says_where_help_is(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "error:" in captured.err
    assert "--help" in captured.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("lst", "there is no command 'lst'; did you mean list?"),
        ("key lst", "there is no command 'lst'; did you mean list?"),
        ("xyz", "there is no command 'xyz'\n"),
        ("--json list p.yaml", "the name of a command comes first, not '--json'"),
        ("key --version", "the name of a command comes first"),
        ("-- list p.yaml", "the name of a command comes first"),
        ("backup p.yaml --type ful", "did you mean full?"),
        ("restore p.yaml --to a --to b", "--to: given more than once"),
        ("check p.yaml --read-data 10% --read-data", "--read-data: given more than once"),
        ("list p.yaml more --les", "not known here: 'more', '--les'"),
        ("list -- p.yaml --json", "not known here: '--json'"),
        ("list -- -p.yaml", "plan -p.yaml: No such file"),
        ("show p.yaml", "required: BACKUP"),
        ("diff p.yaml a b --limit x", "invalid int value: 'x'"),
    ],
)
def test_what_is_wrong_is_named(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        "restore PLAN BACKUP --yes --at now",
        "restore --yes PLAN --at now BACKUP",
        "restore PLAN --yes BACKUP --at=now",
        "restore --at now --yes -- PLAN BACKUP",
    ],
)
def test_options_stand_anywhere(words: str) -> None:
    said = parse(words.split())
    assert isinstance(said, partial)
    assert {name: said.keywords[name] for name in ("plan", "backup", "yes", "at")} == {
        "plan": "PLAN", "backup": "BACKUP", "yes": True, "at": "now"
    }  # fmt: skip


def test_what_follows_two_dashes_is_no_option() -> None:
    said = parse(["restore", "--", "-plan.yaml", "--yes"])
    assert isinstance(said, partial)
    assert (said.keywords["plan"], said.keywords["backup"], said.keywords["yes"]) == ("-plan.yaml", "--yes", False)
    served = parse(["serve", "a.yaml", "--", "-b"])
    assert isinstance(served, partial)
    assert served.keywords == {"plans": ["a.yaml", "-b"], "metrics": None}


@pytest.mark.parametrize(
    "command", [each for group in (COMMANDS, *(commands for commands, _ in GROUPS.values())) for each in group.values()]
)
def test_a_command_declares_what_its_function_takes(command: Command) -> None:
    parser = ArgumentParser(add_help=False)
    command.declare(parser)
    assert {action.dest for action in parser._actions} == set(inspect.signature(command.action).parameters)


def test_a_plan_that_is_wrong_or_not_there_exits_2(empty_desk: Desk) -> None:
    assert empty_desk.run("list", "nowhere.yaml").code == 2
    empty_desk.plan.write_text(empty_desk.plan.read_text() + "encrpytion: none\n")
    ran = empty_desk.run("list", "PLAN")
    assert ran.code == 2
    assert "encrpytion" in ran.err


def test_a_saved_plan_cannot_be_asked_for_where_no_server_answers(empty_desk: Desk) -> None:
    ran = empty_desk.run("list", "trading")
    assert ran.code == 2
    assert "no Prefect server answers" in ran.err
    ran = empty_desk.run("plan", "save", "PLAN")
    assert ran.code == 2
    assert "no Prefect server answers" in ran.err


def test_a_repository_that_is_not_there_exits_4(empty_desk: Desk) -> None:
    ran = empty_desk.run("list", "PLAN")
    assert ran.code == 4
    assert "lastgood init" in ran.err


def test_a_wrong_passphrase_exits_7_and_is_not_shown(empty_desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    empty_desk.done("init", "PLAN")
    monkeypatch.setenv("LASTGOOD_PASSPHRASE", "something else entirely")
    ran = empty_desk.run("list", "PLAN")
    assert ran.code == 7
    assert "something else entirely" not in ran.out + ran.err


LEAVES = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.LastgoodError)]


@pytest.mark.parametrize("kind", LEAVES)
def test_every_error_prints_message_and_hint_and_has_its_code(
    kind: type[errors.LastgoodError], capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        raise kind("what [happened]", hint="What to do.")

    assert guarded(work, debug=False) == kind.exit_code
    assert capsys.readouterr().err == "error: what [happened]\nhint: What to do.\n"


def test_an_unexpected_error_is_one_line_and_with_debug_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        raise ZeroDivisionError("one\ntwo")

    assert guarded(work, debug=False) == 1
    text = capsys.readouterr().err
    assert "unexpected ZeroDivisionError: one" in text
    assert "Traceback" not in text
    assert guarded(work, debug=True) == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_exits_130(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        raise KeyboardInterrupt

    assert guarded(work, debug=False) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_the_real_command_reads_without_a_server_and_without_prefect_and_pandas(desk: Desk) -> None:
    made = desk.backup()
    ran = lastgood("list", str(desk.plan), "--json", PREFECT_HOME=str(desk.folder / "prefect"))
    assert (ran.returncode, ran.stderr) == (0, "")
    assert json.loads(ran.stdout)["backups"][0]["id"] == made
    probe = "import atexit, sys; from lastgood import main; atexit.register(lambda: print(*sys.modules)); main()"
    words = [sys.executable, "-c", probe, "list", str(desk.plan), "--json"]
    loaded = subprocess.run(words, env=environment(), capture_output=True, text=True, check=True).stdout.split()
    assert "blocks.repository.block" in loaded
    assert not {"great_expectations", "pandas", "prefect"} & set(loaded)


def test_the_real_command_exits_with_the_codes_of_errors(desk: Desk) -> None:
    assert lastgood("show", str(desk.plan), "latest").returncode == 6
    assert lastgood("restore", str(desk.plan), "--yes", PREFECT_API_URL="http://127.0.0.1:9/api").returncode == 6


def test_a_reader_that_goes_away_is_no_error(desk: Desk) -> None:
    desk.backup()
    words = f"{sys.executable} -c '{COMMAND[2]}' show {desk.plan} latest --json | head -n 1; exit ${{PIPESTATUS[0]}}"
    ran = subprocess.run(["bash", "-c", words], env=environment(), capture_output=True, text=True)
    assert ran.stderr == ""
    assert ran.returncode in (0, 141)


@pytest.mark.parametrize("words", ["--help", "--version", "list --help", "key"])
def test_help_for_a_reader_that_is_gone_is_no_error(words: str) -> None:
    script = f"{sys.executable} -c '{COMMAND[2]}' {words} | (exec <&-; true); exit ${{PIPESTATUS[0]}}"
    ran = subprocess.run(["bash", "-c", script], env=buffered(), capture_output=True, text=True)
    assert ran.stderr == ""
    assert ran.returncode in (0, 141)


def test_a_full_disk_is_one_error(desk: Desk) -> None:
    desk.backup()
    with Path("/dev/full").open("w") as full:
        words = [*COMMAND, "list", str(desk.plan)]
        ran = subprocess.run(words, env=buffered(), stdout=full, stderr=subprocess.PIPE, text=True)
    assert ran.returncode == 1
    assert "No space left" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_log_of_both_streams_is_in_order(desk: Desk) -> None:
    made = desk.backup()
    words = [*COMMAND, "diff", str(desk.plan), made, made]
    ran = subprocess.run(words, env=buffered(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert ran.stdout.splitlines()[-1] == "nothing changed"
    assert ran.stdout.startswith("from ")


def test_notes_never_get_among_the_results(desk: Desk) -> None:
    script = f"{sys.executable} -c '{COMMAND[2]}' backup {desk.plan} --json 2>&-"
    ran = subprocess.run(["bash", "-c", script], env=buffered(), capture_output=True, text=True)
    assert ran.returncode == 0
    assert json.loads(ran.stdout)["type"] == "full"


def test_what_would_command_a_terminal_is_written_out(capsys: pytest.CaptureFixture[str]) -> None:
    note("a\rb\x1b[2Jc\td\ne")
    say("\x9b1m")
    say(Styled("\a", "red"))
    captured = capsys.readouterr()
    assert captured.err == "a\\x0db\\x1b[2Jc\td\ne\n"
    assert captured.out == "\\x9b1m\n\\x07\n"


def all_said(terminal: int) -> bytes:
    """Return all that is said on a terminal until nobody has its other end open any more."""
    seen = b""
    try:
        while piece := os.read(terminal, 4096):
            seen += piece
    except OSError:  # how Linux says that
        pass
    return seen


def test_on_a_terminal_a_restore_asks_and_shows_progress(desk: Desk) -> None:
    desk.backup()
    desk.sql("delete from orders")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "restore", str(desk.plan)],
        stdin=theirs, stdout=theirs, stderr=theirs, env=environment(TERM="xterm", COLUMNS="80"), close_fds=True,
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    while b"Type yes or no: " not in seen:
        seen += os.read(ours, 1024)
    assert b"would restore" in seen
    os.write(ours, b"maybe\n")
    while b"is neither yes nor no" not in seen:
        seen += os.read(ours, 1024)
    os.write(ours, b"  YES.\n")
    seen += all_said(ours)
    assert process.wait() == 0
    os.close(ours)
    assert b"parts done" in seen
    assert b"To undo this restore" in seen
    assert desk.sql("select count(*) from orders") == [(200,)]


def test_a_new_users_terminal_has_no_notice_of_prefects_usage_data(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    # as on a machine of a person, where no variable speaks of tracking, nor of a service that builds software
    env = environment(PREFECT_HOME=str(tmp_path), PREFECT_API_URL="http://127.0.0.1:1/api")
    ci = ("CI", "DO_NOT_TRACK", "BUILD_NUMBER", "BUILD_ID", "GITHUB_ACTIONS", "GITLAB_CI", "JENKINS_URL", "TF_BUILD")
    process = subprocess.Popen(
        [*COMMAND, "approve"], stdout=theirs, stderr=theirs, env={k: v for k, v in env.items() if k not in ci}
    )
    os.close(theirs)
    seen = all_said(ours)
    assert process.wait() == 2
    os.close(ours)
    assert b"no Prefect server answers" in seen
    assert b"usage data" not in seen


NOON = datetime(2026, 3, 4, 12, 0, tzinfo=timezone(timedelta(hours=2)))


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02 03:04+01:00", datetime(2026, 1, 2, 2, 4, tzinfo=UTC)),
        ("2026-01-02 03:04", datetime(2026, 1, 2, 1, 4, tzinfo=UTC)),
        ("2026-01-02", datetime(2026, 1, 1, 22, 0, tzinfo=UTC)),
        ("2h ago", datetime(2026, 3, 4, 8, 0, tzinfo=UTC)),
        ("30 min ago", datetime(2026, 3, 4, 9, 30, tzinfo=UTC)),
        ("3d ago", datetime(2026, 3, 1, 10, 0, tzinfo=UTC)),
        ("yesterday 14:00", datetime(2026, 3, 3, 12, 0, tzinfo=UTC)),
        ("Yesterday 9:30", datetime(2026, 3, 3, 7, 30, tzinfo=UTC)),
        ("1 hour ago", datetime(2026, 3, 4, 9, 0, tzinfo=UTC)),
        ("an hour ago", datetime(2026, 3, 4, 9, 0, tzinfo=UTC)),
        ("half an hour ago", datetime(2026, 3, 4, 9, 30, tzinfo=UTC)),
        ("10 minutes ago", datetime(2026, 3, 4, 9, 50, tzinfo=UTC)),
        ("two days ago", datetime(2026, 3, 2, 10, 0, tzinfo=UTC)),
        ("1 week ago", datetime(2026, 2, 25, 10, 0, tzinfo=UTC)),
        ("yesterday at 14:00", datetime(2026, 3, 3, 12, 0, tzinfo=UTC)),
        ("yesterday at noon", datetime(2026, 3, 3, 10, 0, tzinfo=UTC)),
        ("monday 9:30", datetime(2026, 3, 2, 7, 30, tzinfo=UTC)),
        ("last Wednesday", datetime(2026, 2, 24, 22, 0, tzinfo=UTC)),  # today is one
        ("9:30", datetime(2026, 3, 4, 7, 30, tzinfo=UTC)),
        ("9:30:15", datetime(2026, 3, 4, 7, 30, 15, tzinfo=UTC)),
        ("today", datetime(2026, 3, 3, 22, 0, tzinfo=UTC)),
        ("now", datetime(2026, 3, 4, 10, 0, tzinfo=UTC)),
    ],
)
def test_times_are_read_as_people_write_them(text: str, moment: datetime) -> None:
    assert parse_time(text, NOON, NOON.tzinfo) == moment


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "2h",
        "25:00",
        "hour ago",
        "someday 9:30",
        "last month",
        "yesterday 25:00",
        "2026-13-01",
        "99999999999999w ago",
    ],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(errors.ConfigurationError, match="is not a time"):
        parse_time(text, NOON, NOON.tzinfo)


@pytest.mark.parametrize(
    ("words", "brief"),
    [(["serve", "a.yaml"], False), (["--debug", "demo"], False), (["list", "serve"], True), ([], True)],
)
def test_what_runs_until_it_is_stopped_shows_its_logs(
    words: list[str], brief: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    monkeypatch.setattr(app, "prepare_process", lambda quiet: seen.append(quiet))
    monkeypatch.setattr(app, "_perform", lambda words, working: 0)
    assert main(words) == 0
    assert seen == [brief]


@pytest.mark.parametrize(
    "wrong",
    [
        "  cache: {type: redis, url: 'redis://:hunter2@h'}",
        "  cache: {type: redis, password: [hunter2]}",
        "  books: {type: postgres, dsn: 'postgresql://me:hunter2@h/x'}",
        "  books: {type: postgres, dsn: 'host=h', slot: 'NO hunter2'}",
        "  books: {type: postgres, dsn: 'host=h', passwrd: hunter2}",
        "  books: {type: postgres, dsn: 'host=h', dsn: 'hunter2'}",
        "  books: {type: postgres, dsn: 'hunter2",
        "  books: hunter2",
        "  files: {type: files, url: 'file://me:hunter2@h/x'}",
    ],
)
def test_a_traceback_shows_nothing_of_what_stands_in_a_plan(empty_desk: Desk, wrong: str) -> None:
    empty_desk.plan.write_text(empty_desk.plan.read_text().replace("sources:", f"sources:\n{wrong}"))
    for words in (("list", "PLAN", "--debug"), ("backup", "PLAN", "--debug", "--no-server")):
        ran = empty_desk.run(*words)
        assert ran.code == 2
        assert "Traceback" in ran.err
        assert "hunter2" not in ran.out + ran.err


def test_a_command_looks_for_its_own_garbage_and_a_program_for_its_own(desk: Desk) -> None:
    script = """
import atexit, gc, sys
atexit.register(lambda: print(gc.isenabled(), gc.get_freeze_count() > 0))
from lastgood import main
sys.exit(main(ARGV))
"""
    words = ["list", str(desk.plan)]
    for argv, frozen in (("None", True), ("sys.argv[1:]", False)):
        command = [sys.executable, "-c", script.replace("ARGV", argv), *words]
        ran = subprocess.run(command, env=environment(), capture_output=True, text=True)
        assert ran.stdout == f"True {frozen}\n", ran.stderr
