"""Ctrl-C ends a command in good order, and the second one at once, whatever its threads wait for."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any

import pytest

from blocks.host.interrupts import hangup_terminates

SCRIPT = """
import signal, sys, threading
from blocks.host.interrupts import Interrupts
signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's background jobs ignore it
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
interrupts = Interrupts()
interrupts.watch()
if WORKING:
    interrupts.working()
silent = threading.Event()
try:
    print("ready", flush=True)
    silent.wait()
except KeyboardInterrupt:
    print("in good order", flush=True)
    silent.wait()
"""


IN_JSON = SCRIPT.replace("interrupts import Interrupts", "own_process import begin_process").replace(
    "interrupts = Interrupts()\ninterrupts.watch()", 'interrupts = begin_process(["backup", "--log-format=json"])'
)


def started(working: bool, text: str = SCRIPT) -> subprocess.Popen[str]:
    script = text.replace("WORKING", str(working))
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_begins_to_end_and_the_second_ends(first: signal.Signals, second: signal.Signals) -> None:
    process = started(working=True)
    process.send_signal(first)
    assert process.stdout is not None
    assert process.stdout.readline() == "in good order\n"
    process.send_signal(second)
    assert process.communicate()[1] == "interrupted\n"
    assert process.returncode == 128 + second


@pytest.mark.parametrize("working", [True, False])
def test_a_log_of_json_has_a_line_of_json_of_it(working: bool) -> None:
    process = started(working, IN_JSON)
    process.send_signal(signal.SIGTERM)
    if working:
        assert process.stdout is not None
        assert process.stdout.readline() == "in good order\n"
        process.send_signal(signal.SIGINT)
    said = json.loads(process.communicate()[1])
    assert process.returncode == said["error"]["code"] == (130 if working else 143)
    assert (said["level"], said["message"], said["warnings"]) == ("error", "interrupted", [])


def test_before_there_is_anything_to_end_the_first_ends() -> None:
    process = started(working=False)
    process.send_signal(signal.SIGINT)
    assert process.communicate()[1] == "interrupted\n"
    assert process.returncode == 130


@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda number, frame: None])
def test_a_decision_of_somebody_else_stands(handler: Any) -> None:
    from blocks.host.interrupts import Interrupts

    before = signal.signal(signal.SIGINT, handler)
    try:
        Interrupts().watch()
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_where_only_sigterm_ends_in_good_order_sighup_does_too() -> None:
    script = """
import signal, time
from blocks.host.interrupts import hangup_terminates

def end(number, frame):
    print("in good order", flush=True)
    raise SystemExit(0)

signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
with hangup_terminates():
    print("ready", flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGHUP)
    assert process.communicate() == ("in good order\n", None)
    assert process.returncode == 0


@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda number, frame: None])
def test_a_decision_about_sighup_stands_as_well(handler: Any) -> None:
    before = signal.signal(signal.SIGHUP, handler)
    try:
        with hangup_terminates():
            assert signal.getsignal(signal.SIGHUP) is handler
        assert signal.getsignal(signal.SIGHUP) is handler
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_command_watches_before_it_imports_anything_that_takes_long() -> None:
    script = """
import sys
from blocks.host import interrupts
from lastgood import main

def watched(self):
    print(sorted({name.partition(".")[0] for name in sys.modules} & {"yaml", "cryptography", "pydantic", "flows"}))
    sys.exit(3)

interrupts.Interrupts.watch = watched
sys.argv = ["lastgood", "list", "plan.yaml"]
main()
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (3, "[]\n"), ran.stderr
