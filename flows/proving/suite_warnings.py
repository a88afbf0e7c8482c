"""A look at the quality suites before a backup: what is wrong with them is a warning, and stops nothing."""

from __future__ import annotations

import hashlib
import logging
from contextlib import suppress
from pathlib import Path

from blocks.errors import BackupNotFound, LastgoodError
from blocks.host.state_folder import cache_folder
from blocks.plan.plan import BackupPlan
from blocks.version import VERSION
from flows.proving.suite_check import check_suites

logger = logging.getLogger(__name__)

MOST_WARNINGS = 5
"""How many faults are named; `quality check` names all."""


def warn_of_suites(plan: BackupPlan) -> None:
    """Say what is wrong with the suites of a plan, as the newest backup shows it.

    What knows expectations takes seconds to be imported. So files that nothing was wrong with are remembered, and
    looked at again when they change.
    """
    if not plan.quality:
        return
    good = _remembered(plan)
    if good is not None and good.exists():
        return
    try:
        repository = plan.repository.unlock(plan.encryption)
        try:
            backup = repository.find(plan.name)
        except BackupNotFound:
            backup = None
        faults = check_suites(plan.quality, backup).faults
    except LastgoodError as exc:
        logger.debug("the quality suites were not looked at: %s", exc)  # the backup itself says what is wrong there
        return
    except Exception as exc:  # noqa: BLE001  whatever it is, a backup is not stopped by a suite
        _warn(f"the quality suites could not be looked at ({type(exc).__name__}: {exc})")
        return
    for fault in faults[:MOST_WARNINGS]:
        _warn(f"quality suite: {fault}")
    if len(faults) > MOST_WARNINGS:
        _warn(f"quality suites: {len(faults) - MOST_WARNINGS} more faults; `lastgood quality check` names them")
    if not faults and backup is not None and good is not None:
        with suppress(OSError):
            good.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            good.touch()


def _remembered(plan: BackupPlan) -> Path | None:
    """Return the file that says that nothing was wrong with the suites as they are; None where none can be kept."""
    said = hashlib.sha256(f"{VERSION}\0{plan.repository.url}\0{plan.name}\0".encode())
    try:
        for file in plan.quality:
            said.update(hashlib.sha256(Path(file).read_bytes()).digest())
        return cache_folder() / "suites" / said.hexdigest()
    except (OSError, RuntimeError):
        return None


def _warn(text: str) -> None:
    logger.warning("%s", text)
