"""Runs a server for as long as the process that started it lives, then removes the server's folder.

Run as a file, with the starter's end of a pipe as standard input: when that ends, however it ends, the pipe closes.
Arguments are the folder, a user and a group to run as (-1: the same), and the command.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from typing import Any

STOP_SECONDS = 20.0


def main() -> None:
    """Start the server, wait for its end, clear up."""
    folder, user, group, *command = sys.argv[1:]
    account: dict[str, Any] = {}
    if user != "-1":
        account = {"user": int(user), "group": int(group), "extra_groups": []}
    try:
        # what it inherits is the descriptor whose lock shows that it runs
        server = subprocess.Popen(  # noqa: S603  what the demo wrote
            command, stdin=subprocess.DEVNULL, cwd=folder, close_fds=False, **account
        )
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: _end(server))
        threading.Thread(target=_end_with_the_starter, args=(server,), daemon=True).start()
        server.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _end_with_the_starter(server: subprocess.Popen[bytes]) -> None:
    os.read(0, 1)
    _end(server)
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()


def _end(server: subprocess.Popen[bytes]) -> None:
    # at once and in order, for both: Redis saves nothing, PostgreSQL sends its sessions away
    server.send_signal(signal.SIGINT)


if __name__ == "__main__":
    main()
