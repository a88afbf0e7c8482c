"""Runs a module as a program for as long as the process that started it lives.

Run as a file with the module's name and its arguments, and with the starter's end of a pipe as standard input: when
that process ends, however it ends, the pipe closes.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading


def main() -> None:
    """Watch the pipe beside the program."""
    threading.Thread(target=_end_with_the_starter, daemon=True).start()
    runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)


def _end_with_the_starter() -> None:
    # not through `sys.stdin`: its lock, held by this thread, would let a command that ends by itself end in SIGABRT
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
