"""Runs Prefect's command line for as long as the process that started it lives.

Run as a file, with the starter's end of a pipe as standard input: when that ends, however it ends, the pipe closes.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading


def main() -> None:
    """Watch the pipe beside the command."""
    threading.Thread(target=_end_with_the_starter, daemon=True).start()
    runpy.run_module("prefect", run_name="__main__")


def _end_with_the_starter() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
