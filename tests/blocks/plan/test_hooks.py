"""Hooks with real commands: what they see, what their failures say, and that nothing of them stays."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager as Around
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from blocks.errors import ConfigurationError, HookFailed, Partial, SourceUnavailable
from blocks.host.interrupts import Ended
from blocks.plan import hooked_run
from blocks.plan.hook_context import VARIABLES, HookContext
from blocks.plan.hooked_run import OUTPUT_BYTES, HookedRun, HookRun
from blocks.plan.hooks import VERBS, Hook, Hooks
from blocks.plan.plan import parse_plan


def script(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
    return str(path)


def notes(folder: Path) -> list[str]:
    path = folder / "notes"
    return path.read_text().split() if path.exists() else []


def around(hooks: Hooks, plan: str = "p", kind: str = "full", private: Collection[str] = ()) -> Around:
    """Run hooks around the reading of state."""
    return HookedRun(hooks, HookContext(plan, "backup", backup_type=kind), private).around_reading()


def note(word: str) -> list[str]:
    return ["sh", "-c", f"echo {word} >> notes"]


def test_commands_are_lists_or_text_without_a_shell() -> None:
    hooks = Hooks.model_validate(
        {"before": ["pause --now 'the app'", ["pause", "$HOME"], {"command": "sync", "timeout_seconds": 5}]}
    )
    assert [hook.command for hook in hooks.before] == [("pause", "--now", "the app"), ("pause", "$HOME"), ("sync",)]
    assert hooks.before[2].timeout_seconds == 5


@pytest.mark.parametrize(
    "wrong",
    [
        *([], "", {"command": []}, {"command": "a", "timeout_seconds": 0}, {"comand": "a"}, "unclosed 'quote", 7),
        *([""], ["a", "\0"], ["a", "\ud800"], {"command": "a", "folder": "b\0"}),
        {"command": "a", "timeout_seconds": float("inf")},
    ],
)
def test_what_is_no_command_is_refused(wrong: object) -> None:
    with pytest.raises(ValidationError):
        Hooks.model_validate({"before": [wrong]})


def test_a_misspelt_hook_is_refused_by_the_plan() -> None:
    plan = {
        "name": "p",
        "sources": {"a": {"type": "sqlite", "path": "x"}},
        "repository": {"url": "y"},
        "encryption": "none",
        "hooks": {"befor": ["true"]},
    }
    with pytest.raises(ConfigurationError, match="befor"):
        parse_plan(plan, "p")


def test_hooks_run_in_order_in_the_folder_of_the_plan(tmp_path: Path) -> None:
    hooks = Hooks(before=(note("one"), note("two")), after=(note("four"), note("five"))).anchored(tmp_path)
    with around(hooks, "trading"):
        note_file = tmp_path / "notes"
        note_file.write_text(note_file.read_text() + "three\n")
    assert notes(tmp_path) == ["one", "two", "three", "four", "five"]


def test_a_relative_program_and_folder_count_from_the_plan(tmp_path: Path) -> None:
    (tmp_path / "ops").mkdir()
    script(tmp_path / "ops", "pause.sh", "pwd >> notes")
    hooks = Hooks(before=("./ops/pause.sh", Hook(command="./pause.sh", folder="ops"))).anchored(tmp_path)
    with around(hooks, "trading"):
        pass
    assert notes(tmp_path) == [str(tmp_path)]
    assert notes(tmp_path / "ops") == [str(tmp_path / "ops")]


def test_a_hook_knows_what_it_is_run_for_and_not_the_passphrase(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_WORD", "hunter2")
    monkeypatch.setenv("OTHER", "kept")
    show = 'echo "$LASTGOOD_PLAN $LASTGOOD_BACKUP_TYPE $OTHER ${SECRET_WORD-unset}" >> notes'
    hooks = Hooks(before=(["sh", "-c", show],)).anchored(tmp_path)
    with around(hooks, "trading", "incremental", ["SECRET_WORD"]):
        pass
    assert notes(tmp_path) == ["trading", "incremental", "kept", "unset"]


def test_a_failing_hook_stops_before_the_block_and_still_lets_the_writers_go_on(tmp_path: Path) -> None:
    failing = ["sh", "-c", "echo out; echo the app is busy >&2; exit 3"]
    hooks = Hooks(before=(note("one"), failing, note("never")), after=(note("resumed"),)).anchored(tmp_path)
    told = pytest.raises(SourceUnavailable, match=r"hook sh ended with exit code 3: out\nthe app is busy")
    with told, around(hooks, "trading"):
        (tmp_path / "notes").write_text("block")
    assert notes(tmp_path) == ["one", "resumed"]


def test_only_the_end_of_what_a_hook_said_is_shown(tmp_path: Path) -> None:
    talk = "import sys; sys.stderr.write('x' * 10**6 + 'the end'); sys.exit(1)"
    with pytest.raises(SourceUnavailable) as caught, around(Hooks(before=([sys.executable, "-c", talk],))):
        pass
    assert caught.value.message.endswith("the end")
    assert len(caught.value.message) < 2200


def test_arguments_are_not_shown(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable) as caught, around(Hooks(before=("sh -c 'exit 1' hunter2",))):
        pass
    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize("command", ["no-such-program-anywhere", "/dev/null"])
def test_what_cannot_be_started_is_a_mistake_in_the_plan(command: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be started"), around(Hooks(before=(command,))):
        pass


def test_a_hook_that_hangs_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    forks = "sleep 600 & echo $! > child; echo waiting; wait"
    hook = Hook(command=("sh", "-c", forks), timeout_seconds=2, folder=tmp_path)
    told = pytest.raises(SourceUnavailable, match=r"longer than 2 seconds and was killed: waiting")
    with told, around(Hooks(before=(hook,))):
        pass
    child = int((tmp_path / "child").read_text())
    while running(child):
        os.sched_yield()


def running(process: int) -> bool:
    """Whether a process is there and is no zombie that only its new parent has not looked at yet."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_service_that_a_hook_starts_does_not_hold_it_up(tmp_path: Path) -> None:
    with around(Hooks(before=(["sh", "-c", "sleep 600 & echo $! > child"],)).anchored(tmp_path)):
        child = int((tmp_path / "child").read_text())
        assert running(child)
    os.kill(child, 9)


def test_a_failure_at_the_end_is_partial_and_the_other_hooks_still_run(tmp_path: Path) -> None:
    hooks = Hooks(after=("sh -c 'echo broken; exit 1'", note("resumed"), "false")).anchored(tmp_path)
    told = pytest.raises(Partial, match=r"plan trading: the backup is made, but .*: broken; the hook false")
    with told, around(hooks, "trading"):
        pass
    assert notes(tmp_path) == ["resumed"]


def test_hooks_after_run_also_where_no_file_takes_what_they_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    say = ["sh", "-c", "echo loud; echo resumed >> notes"]
    with around(Hooks(after=(say, note("told"))).anchored(tmp_path)):
        pass
    assert notes(tmp_path) == ["resumed", "told"]


def test_the_other_hooks_run_whatever_went_wrong_with_one(tmp_path: Path) -> None:
    def record(run: HookRun) -> None:
        raise OSError(f"no room to write of {run.name}")

    hooks = Hooks(after=(note("one"), note("two"))).anchored(tmp_path)
    told = pytest.raises(Partial, match="afterwards OSError: no room to write of sh; OSError: no room")
    with told, HookedRun(hooks, HookContext("p", "backup"), record=record).around_reading():
        pass
    assert notes(tmp_path) == ["one", "two"]


def test_what_a_hook_says_without_end_takes_little_room() -> None:
    with tempfile.TemporaryFile() as said:
        for _ in range(5):
            said.write(b"x" * 8 * 2**20 + b"the end\n")
            said.flush()
            hooked_run._shorten(said)
            assert os.fstat(said.fileno()).st_blocks * 512 < 20 * 2**20
        said.write(b"and more\n")
        said.seek(-30, os.SEEK_END)
        assert said.read() == b"x" * 13 + b"the end\nand more\n"


def test_the_first_failure_is_told_with_the_later_one(tmp_path: Path) -> None:
    hooks = Hooks(after=("false",))
    told = pytest.raises(ConfigurationError, match="the plan is wrong; and afterwards the hook false ended")
    with told as caught, around(hooks, "trading"):
        raise ConfigurationError("the plan is wrong", hint="Right it.")
    assert caught.value.hint == "Right it."
    with pytest.raises(ZeroDivisionError) as other, around(hooks, "trading"):
        _ = 1 / 0
    assert "the hook false" in other.value.__notes__[0]


def test_hooks_see_no_secret_of_the_plan_and_all_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = ["PHRASE", "CACHE", "SENTINELS", "IN_URL", "BOOKS", "PGPASSWORD"]
    for name in secret:
        monkeypatch.setenv(name, "hunter2")
    monkeypatch.setenv("OTHER", "kept")
    plan = parse_plan(
        {
            "name": "p",
            "sources": {
                "a": {
                    "type": "redis",
                    "url": "redis://h",
                    "password_env": "CACHE",
                    "sentinel_password_env": "SENTINELS",
                },
                "b": {"type": "redis", "url": "redis://h/1?password_env=IN_URL"},
                "c": {"type": "postgres", "dsn": "host=h", "password_env": "BOOKS"},
                "d": {"type": "postgres", "dsn": "host=h"},
            },
            "repository": {"url": "y"},
            "encryption": {"credential": {"passphrase_env": "PHRASE"}},
            "hooks": {"before": [["sh", "-c", "env > seen"]]},
        },
        "p",
    )
    with around(plan.hooks.anchored(tmp_path), private=plan.secret_variables):
        pass
    seen = (tmp_path / "seen").read_text()
    assert "hunter2" not in seen
    assert {"PATH", "HOME", "OTHER"} <= {line.partition("=")[0] for line in seen.splitlines()}


@pytest.mark.parametrize("credential", [{"recovery_key_env": "R"}, {"passphrase_env": "R"}, {"passphrase_secret": "R"}])
def test_whatever_leads_to_the_credential_is_kept_from_hooks(credential: dict[str, str]) -> None:
    plan = parse_plan(
        {
            "name": "p",
            "sources": {"a": {"type": "sqlite", "path": "x"}},
            "repository": {"url": "y"},
            "encryption": {"credential": credential},
        },
        "p",
    )
    by_prefect = {"PREFECT_API_KEY", "PREFECT_API_AUTH_STRING"}
    assert plan.secret_variables == (by_prefect if "passphrase_secret" in credential else {"R"})


@pytest.mark.parametrize(
    "command",
    [
        "psql postgresql://me:hunter2@h/x -c 'select 1'",
        ["sh", "-c", "redis-cli -u redis://:hunter2@h/0 ping && echo done"],
        ["psql", "host=h password=hunter2"],
        "env PGPASSWORD=hunter2 psql",
        {"command": ["curl", "https://h/x?password=hunter2"], "timeout_seconds": 5},
    ],
)
def test_a_hook_with_a_password_in_its_command_is_refused(command: object) -> None:
    with pytest.raises(ValidationError, match="there is a password in the command of the hook") as caught:
        Hooks.model_validate({"after": [command]})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "command",
    [
        ["sh", "-c", "psql postgresql://me:$WORD@h/x; PGPASSWORD=${WORD} psql; curl http://h:80/x && mail me@h"],
        "rsync -a me@h:/srv .",
        "curl --data token=abc http://127.0.0.1:8080/pause",
    ],
)
def test_a_hook_that_takes_its_password_from_a_variable_is_none_of_those(command: object) -> None:
    Hooks.model_validate({"before": [command]})


def test_what_a_hook_was_started_with_is_in_no_traceback(tmp_path: Path) -> None:
    hook = Hook(command=("sh", "-c", "sleep 600", "hunter2"), timeout_seconds=0.1, folder=tmp_path)
    with pytest.raises(SourceUnavailable) as caught, around(Hooks(before=(hook,))):
        pass
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_a_signal_in_the_middle_of_starting_a_hook_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the process is there, and nobody knows of it yet."""

    started: list[subprocess.Popen[bytes]] = []

    class Popen(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            started.append(self)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(subprocess, "Popen", Popen)
    with handled(signal.SIGTERM, end), pytest.raises(Ended), around(Hooks(before=("sleep 600",))):
        raise AssertionError("the block was begun")
    assert len(started) == 1
    assert not running(started[0].pid)


@pytest.mark.parametrize("signals", [1, 2])
def test_the_end_of_a_run_waits_for_hooks_after_it_unless_it_is_asked_for_twice(tmp_path: Path, signals: int) -> None:
    ask = f"for n in $(seq {signals}); do kill -TERM {os.getpid()}; sleep 0.3; done; echo slow >> notes"
    hooks = Hooks(after=(["sh", "-c", ask], note("resumed"))).anchored(tmp_path)
    with handled(signal.SIGTERM, end), pytest.raises(Ended), around(hooks):
        pass
    assert notes(tmp_path) == (["slow", "resumed"] if signals == 1 else [])


def test_who_ends_an_ended_run_at_once_leaves_no_hook(tmp_path: Path) -> None:
    """The command ends its process at the second signal, without any `finally`."""
    there: list[bool] = []

    def leave(number: int, _frame: object) -> None:
        there.append(running(int((tmp_path / "child").read_text())))
        raise Ended(number)

    ask = ["sh", "-c", f"echo $$ > child; kill -TERM {os.getpid()}; sleep 600"]
    with handled(signal.SIGTERM, leave), pytest.raises(Ended), around(Hooks(after=(ask,)).anchored(tmp_path)):
        raise Ended(signal.SIGTERM)
    assert there == [False]


def test_hooks_after_run_when_the_run_is_ended(tmp_path: Path) -> None:
    tell = ["sh", "-c", "echo $LASTGOOD_OUTCOME $LASTGOOD_ERROR >> notes"]
    with pytest.raises(Ended), around(Hooks(after=(tell,)).anchored(tmp_path)):
        raise Ended(signal.SIGTERM)
    assert notes(tmp_path) == ["failed", "interrupted"]


def test_a_handler_that_does_not_raise_ends_no_hook(tmp_path: Path) -> None:
    ask = ["sh", "-c", f"kill -HUP {os.getpid()}; sleep 0.3; echo done >> notes"]
    arrived: list[int] = []
    noting = handled(signal.SIGHUP, lambda number, _frame: arrived.append(number))
    with noting, around(Hooks(before=(ask,)).anchored(tmp_path)):
        assert arrived == [signal.SIGHUP]
    assert notes(tmp_path) == ["done"]


@contextmanager
def handled(number: signal.Signals, handler: Any) -> Iterator[None]:
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        assert signal.getsignal(number) is handler
        signal.signal(number, before)


def end(number: int, _frame: object) -> None:
    raise Ended(number)


def test_what_hooks_say_is_kept_without_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHRASE", "correct horse")
    monkeypatch.setenv("TOKEN_OF_APP", "hunter2")
    talk = 'echo "$APP correct horse postgresql://me:s3cret@h/x PGPASSWORD=s3cret"; echo \'{"token": "s3cret"}\' >&2'
    ran: list[HookRun] = []
    hook = Hook(command=(script(tmp_path, "talk", talk),), env={"APP": "$TOKEN_OF_APP"})
    failing = Hook(command=(script(tmp_path, "fail", f"{talk}; exit 1"),), env={"APP": "${TOKEN_OF_APP}"})
    hooks = HookedRun(Hooks(before=(hook, failing)), HookContext("p", "backup"), ["PHRASE"], ran.append)
    with pytest.raises(HookFailed) as caught, hooks.around_reading():
        pass
    said = '*** *** postgresql://me@h/x PGPASSWORD=***\n{"token": "***"}'
    assert [(run.where, run.name, run.exit_code, run.output) for run in ran] == [
        ("hooks.before", "talk", 0, said),
        ("hooks.before", "fail", 1, said),
    ]
    assert caught.value.message == f"the hook fail ended with exit code 1: {said}"
    assert [run.error for run in ran] == ["", "ended with exit code 1"]


def test_what_hooks_say_does_nothing_to_terminals_and_databases(tmp_path: Path) -> None:
    ran: list[HookRun] = []
    talk = script(tmp_path, "talk", r"printf 'a\033[31mb\000c\r\nten\rall\377\tdone'")
    with HookedRun(Hooks(before=(talk,)), HookContext("p", "backup"), record=ran.append).around_reading():
        pass
    assert ran[0].output == "a\\x1b[31mb\\x00c\nten\nall\ufffd\tdone"


def test_a_secret_that_is_no_text_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHRASE", os.fsdecode(b"hunter\xff2"))
    ran: list[HookRun] = []
    hook = Hook(command=(script(tmp_path, "talk", 'echo "$WORD"'),), env={"WORD": "$PHRASE"})
    with HookedRun(Hooks(before=(hook,)), HookContext("p", "backup"), record=ran.append).around_reading():
        pass
    assert ran[0].output == "***"


def test_a_secret_that_is_cut_is_not_shown_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "s3cret" * 10
    monkeypatch.setenv("PHRASE", secret)
    ran: list[HookRun] = []
    talk = f"import os; print('x' * {OUTPUT_BYTES} + {secret!r} + 'y' * {OUTPUT_BYTES - 30})"
    hooks = Hooks(before=([sys.executable, "-c", talk],))
    with HookedRun(hooks, HookContext("p", "backup"), ["PHRASE"], ran.append).around_reading():
        pass
    assert "s3cret" not in ran[0].output
    assert len(ran[0].output) == OUTPUT_BYTES


def test_a_hook_is_given_variables_and_also_those_that_others_do_not_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_WORD", "hunter2")
    monkeypatch.setenv("LASTGOOD_OUTCOME", "of an outer run")
    show = 'echo "$MODE ${WORD-none} ${SECRET_WORD-none} ${LASTGOOD_OUTCOME-none}" >> notes'
    given = {"MODE": "drain", "WORD": "$SECRET_WORD"}
    hooks = Hooks.model_validate({"before": [{"command": ["sh", "-c", show], "env": given}, ["sh", "-c", show]]})
    with around(hooks.anchored(tmp_path), private=["SECRET_WORD"]):
        pass
    assert notes(tmp_path) == ["drain", "hunter2", "none", "none", "none", "none", "none"]


@pytest.mark.parametrize(
    ("env", "told"),
    [
        ({"PGPASSWORD": "hunter2"}, "there is a secret in PGPASSWORD"),
        ({"DB": "postgresql://me:hunter2@h/x"}, "there is a secret in DB"),
        ({"API_TOKEN": "x$HOME hunter2"}, "there is a secret in API_TOKEN"),
        ({"LASTGOOD_OUTCOME": "hunter2"}, "LASTGOOD_OUTCOME is set by lastgood"),
        ({"A=B": "hunter2"}, "letters, digits and underscores"),
        ({"A": "hunter2\0"}, "the value of A cannot be"),
        ({"A": "hunter2\ud800"}, "the value of A cannot be"),
    ],
)
def test_variables_that_hold_a_secret_are_refused(env: dict[str, str], told: str) -> None:
    with pytest.raises(ValidationError, match=told) as caught:
        Hook.model_validate({"command": ["true"], "env": env})
    assert "hunter2" not in str(caught.value)


FUNCTIONS = """
import os, time

def note(run):
    with open("notes", "a") as file:
        print(run.plan, run.verb, run.moment, run.backup_type, run.outcome or "-", os.getcwd(), file=file)

def refuse(run):
    raise ValueError(f"not {run.verb}")

async def later(run):
    note(run)

def each(run):
    yield note(run)

def hang(run):
    print("waiting", flush=True)
    open("child", "w").write(str(os.getpid()))
    time.sleep(600)
"""


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package that is installed, as far as Python knows, with functions."""
    folder = tmp_path / "installed" / "shop_ops"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "hooks.py").write_text(FUNCTIONS)
    monkeypatch.setenv("PYTHONPATH", str(folder.parent))
    return "shop_ops.hooks"


def test_a_function_is_told_what_the_run_is(tmp_path: Path, functions: str) -> None:
    hook = {"python": f"{functions}:note"}
    with around(Hooks.model_validate({"before": [hook], "after": [hook]}).anchored(tmp_path), "shop"):
        pass
    place = str(tmp_path)
    assert notes(tmp_path) == [
        *("shop", "backup", "before", "full", "-", place),
        *("shop", "backup", "after", "full", "completed", place),
    ]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (":refuse", "ended with exit code 1.*ValueError: not backup"),
        (":missing", "has no attribute 'missing'"),
        (":later", "nothing of it ran"),
        (":each", "nothing of it ran"),
        ("x:note", "No module named 'shop_ops.hooksx'"),
    ],
)
def test_a_function_that_fails_is_a_hook_that_fails(tmp_path: Path, functions: str, name: str, told: str) -> None:
    hooks = Hooks.model_validate({"before": [{"python": f"{functions}{name}"}]}).anchored(tmp_path)
    with pytest.raises(HookFailed, match=f"(?s)^the hook {functions}{name} .*{told}"), around(hooks):
        pass


def test_a_function_that_hangs_is_killed(tmp_path: Path, functions: str) -> None:
    hooks = Hooks.model_validate({"before": [{"python": f"{functions}:hang", "timeout_seconds": 3}]})
    with (
        pytest.raises(HookFailed, match="longer than 3 seconds and was killed: waiting"),
        around(hooks.anchored(tmp_path)),
    ):
        pass
    assert not running(int((tmp_path / "child").read_text()))


def test_a_module_beside_the_plan_is_not_imported(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("def note(run): pass")
    hooks = Hooks.model_validate({"before": [{"python": "beside:note"}]}).anchored(tmp_path)
    with pytest.raises(HookFailed, match="No module named 'beside'"), around(hooks):
        pass


@pytest.mark.parametrize(
    "wrong", [{"python": "a:b", "command": "x"}, {"python": "a"}, {"python": "a b:c"}, {"timeout_seconds": 3}]
)
def test_a_hook_is_one_command_or_one_function(wrong: object) -> None:
    with pytest.raises(ValidationError):
        Hook.model_validate(wrong)


def test_the_document_shows_hooks_as_a_plan_has_them_and_all_that_they_are_told() -> None:
    text = (Path(__file__).parents[3] / "docs" / "hooks.md").read_text()
    examples = re.findall(r"^```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    shown = [Hooks.model_validate(yaml.safe_load(example)["hooks"]) for example in examples]
    assert len(shown) == 2
    assert all(shown[0].of(verb) for verb in VERBS)
    told = re.findall(r"^\| `(LASTGOOD_\w+)` \| `(\w+)` \|", text, re.MULTILINE)
    assert {field for _, field in told} == {one.name for one in fields(HookContext)}
    assert {name for name, _ in told} == VARIABLES
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \|$", text, re.MULTILINE)
    assert {"command", "python", *rows} == set(Hook.model_fields)
