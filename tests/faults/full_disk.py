"""What happens on a disk without a byte left: each scenario in a forked process, with a small disk of its own.

    request  {"folder": "/tmp/x", "scenario": "at_once"}   one line of JSON; /tmp/x/repository is to be the small disk
    reply    what the scenario found, as JSON; {"error": "..."} where it failed

Run in a namespace of mounts, so that the disks are gone with the process.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

from blocks.errors import LastgoodError
from blocks.plan.plan import BackupPlan
from blocks.records import BackupType
from blocks.storage.base import StorageTier
from flows.check import check_repository
from flows.retention import apply_retention
from flows.verify import make_verification
from tests.faults.live_state import LaterRepository
from tests.flows.flow_support import Shop

SIZE = "600k"
_SAID = "said"
LATER = datetime.now(UTC) + timedelta(days=365)


def fill(disk: Path) -> None:
    """Leave not a byte."""
    with open(disk / "filler", "wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1 << 8, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                continue
    free = os.statvfs(disk)
    assert free.f_bavail == 0, free


class Full:
    """A plan with four backups on a disk that is full."""

    def __init__(self, folder: Path) -> None:
        self.shop = Shop(folder)
        self.disk = folder / "repository"
        self.shop.fill(10)
        self.made = [self.shop.back_up(kind) for kind in (BackupType.FULL, BackupType.INCREMENTAL)]
        self.made += [self.shop.back_up(BackupType.FULL) for _ in range(2)]

    @property
    def ids(self) -> list[str]:
        return [one.backup_id for one in self.made]

    def later(self) -> BackupPlan:
        """Return the plan as of an hour later, when the lease of a run that died has expired."""
        return self.shop.plan.model_copy(update={"repository": LaterRepository(url=self.shop.plan.repository.url)})


def retain(full: Full) -> dict[str, Any]:
    done = apply_retention(full.shop.plan, now=LATER, accept_clock=True)
    return {
        "made": full.ids,
        "removed": [one.backup_id for one in done.removed],
        "left": full.shop.ids,
        "notes": done.notes,
        "findings": check_repository(full.shop.plan).findings,
    }


def at_once(full: Full) -> dict[str, Any]:
    fill(full.disk)
    return retain(full)


def after_a_backup_that_failed(full: Full) -> dict[str, Any]:
    fill(full.disk)
    (full.disk / "filler").write_bytes(bytes((full.disk / "filler").stat().st_size - (1 << 15)))
    (full.shop.tree / "large.bin").write_bytes(os.urandom(1 << 20))
    failed = ""
    try:
        full.shop.back_up(BackupType.FULL)
    except LastgoodError as error:
        failed = type(error).__name__
    with open(full.disk / "filler", "ab", buffering=0) as file:
        try:
            while file.write(bytes(1 << 12)):
                pass
        except OSError:
            pass
    return retain(full) | {"failed": failed, "folders": len(os.listdir(full.disk / "backups" / "trading"))}


def nothing_to_remove(full: Full) -> dict[str, Any]:
    fill(full.disk)
    done = apply_retention(full.shop.plan)
    return {"removed": [one.backup_id for one in done.removed], "notes": done.notes, "left": full.shop.ids}


def killed_anywhere(full: Full) -> dict[str, Any]:
    """Kill a retention run before each durable operation, in a child that shares the disk; then finish it."""
    pristine, seen, kills = full.disk.parent / "pristine", list[str](), 0
    shutil.copytree(full.disk, pristine)
    died = 9
    while died == 9:
        fill(full.disk)
        child = os.fork()
        if child == 0:
            _die_before(kills)
            apply_retention(full.shop.plan, now=LATER, accept_clock=True)
            os._exit(0)
        died = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        seen += check_repository(full.shop.plan).findings
        apply_retention(full.later(), now=LATER, accept_clock=True)
        assert full.shop.ids == full.ids[3:]
        assert check_repository(full.shop.plan).findings == []
        _empty(full.disk)
        shutil.copytree(pristine, full.disk, dirs_exist_ok=True)
        kills += 1
    return {"kills": kills, "died": died, "findings": sorted({_kind(one) for one in seen})}


def _empty(disk: Path) -> None:
    for entry in disk.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _kind(finding: str) -> str:
    return "lacks SHA256SUMS" if finding.endswith("lacks SHA256SUMS") else finding


def _die_before(number: int) -> None:
    count = iter(range(10_000))

    def die(operation: str, name: str, when: str) -> None:
        if when == "before" and next(count) == number:
            os._exit(9)

    StorageTier.durable = staticmethod(die)


def verified(full: Full) -> dict[str, Any]:
    fill(full.disk)
    return _verified(full)


def verified_read_only(full: Full) -> dict[str, Any]:
    subprocess.run(["mount", "-o", "remount,ro", full.disk], check=True)
    assert check_repository(full.shop.plan, read_share=1.0).findings == []
    return _verified(full)


def _verified(full: Full) -> dict[str, Any]:
    result = make_verification(full.shop.plan, full.made[-1].backup_id, deep=False)
    return {"status": result.status.value, "warnings": list(result.warnings)}


SCENARIOS: dict[str, Callable[[Full], dict[str, Any]]] = {
    one.__name__: one
    for one in (
        at_once,
        after_a_backup_that_failed,
        nothing_to_remove,
        killed_anywhere,
        verified,
        verified_read_only,
    )
}


def main() -> None:
    """Import all of it once, and fork for each request."""
    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        folder = Path(request["folder"])
        child = os.fork()
        if child == 0:
            _do(folder, request["scenario"])
        os.waitpid(child, 0)
        print((folder / _SAID).read_text(), flush=True)


def _do(folder: Path, scenario: str) -> NoReturn:
    try:
        disk = folder / "repository"
        disk.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", disk], check=True)
        os.environ["XDG_STATE_HOME"] = str(folder / "state")
        said = json.dumps(SCENARIOS[scenario](Full(folder)))
    except BaseException:
        said = json.dumps({"error": traceback.format_exc()})
    (folder / _SAID).write_text(said)
    os._exit(0)


if __name__ == "__main__":
    main()
