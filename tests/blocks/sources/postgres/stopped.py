"""A restore or a verification in a process of its own that stops at a place, and goes on when it is told to."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from blocks.crypto.keyring import NoEncryption
from blocks.plan.plan import BackupPlan
from blocks.repository.block import BackupRepository
from blocks.sources.postgres import PostgresSource
from blocks.sources.target import RestoreMode
from flows.restore import make_restore
from flows.restoring.request import RestoreRequest
from flows.verify import make_verification
from tests.blocks.sources.postgres.kit import Books

ROOT = Path(__file__).parents[4]


@contextmanager
def stopped(books: Books, place: str, to: str | None) -> Iterator[subprocess.Popen[str]]:
    """Run until a method (module:Class.method) is called; `to` is where to restore, None for a verification."""
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, str(books.folder), books.server.dsn(books.database), place, to or ""],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "stopped\n"
        yield process
    finally:
        process.stdin.close()
        process.kill()
        process.wait()
        process.stdout.close()


def go_on(process: subprocess.Popen[str]) -> None:
    """Let it come to its end, which has to be a good one."""
    assert process.stdin is not None
    process.stdin.write("go on\n")
    process.stdin.flush()
    assert process.wait() == 0


def _stop_at(place: str) -> None:
    module, _, method = place.partition(":")
    owner, name = method.split(".")
    cls = getattr(importlib.import_module(module), owner)
    original = getattr(cls, name)

    def stopping(*args: Any, **kwargs: Any) -> Any:
        setattr(cls, name, original)
        print("stopped", flush=True)
        sys.stdin.readline()
        return original(*args, **kwargs)

    setattr(cls, name, stopping)


def main(folder: str, dsn: str, place: str, to: str) -> None:
    """Run in the process."""
    plan = BackupPlan(
        name="books",
        sources={"books": PostgresSource(dsn=SecretStr(dsn), part_size_bytes=700)},
        repository=BackupRepository(url=f"{folder}/repository"),
        encryption=NoEncryption(type="none"),
    )
    _stop_at(place)
    if to:
        make_restore(plan, RestoreRequest(mode=RestoreMode.EXACT, to=to))
    else:
        assert make_verification(plan).findings == ()


if __name__ == "__main__":
    main(*sys.argv[1:])
