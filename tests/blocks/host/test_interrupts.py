"""Ctrl-C ends a command in good order, and the second one at once, whatever its threads wait for."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Any

import pytest

SCRIPT = """
import signal, sys, threading
from blocks.host.interrupts import Interrupts
signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's background jobs ignore it
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


def started(working: bool) -> subprocess.Popen[str]:
    script = SCRIPT.replace("WORKING", str(working))
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_the_first_begins_to_end_and_the_second_ends() -> None:
    process = started(working=True)
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert process.stdout.readline() == "in good order\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate()[1] == "interrupted\n"
    assert process.returncode == 130


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
