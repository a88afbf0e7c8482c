"""A scratch restore whose failures are findings: the other proofs of the same verification go on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Self

import pyarrow as pa

from blocks.errors import (
    CouldNotBeTried,
    LastgoodError,
    RepositoryUnavailable,
    TemporaryFolderUnusable,
    WrongKey,
)
from blocks.plan.plan import BackupPlan
from blocks.rows.index import PartIndex
from blocks.verification import Axis, Depth
from flows.pipeline.chain import Chain, RestorePart
from flows.proving.proof import Proof
from flows.proving.scratch_restore import ScratchRestore, open_scratch

logger = logging.getLogger(__name__)

_NOT_ITS_FAULT = (CouldNotBeTried, TemporaryFolderUnusable, RepositoryUnavailable, WrongKey, OSError, MemoryError)
"""What says nothing of a backup that cannot be restored here."""


class ScratchTrial:
    """Restores a backup to a scratch place as its parts come, and says on the axis `restorable` what came of it.

    A context manager; at its end the scratch place is gone.

    Args:
        plan: The plan.
        chain: The backup, whose data are opened.
        proof: Is told what was found.
    """

    def __init__(self, plan: BackupPlan, chain: Chain, proof: Proof) -> None:
        self._plan, self._chain, self._proof = plan, chain, proof
        self._opened, self._guard = ExitStack(), threading.Lock()
        self._scratch: ScratchRestore | None = None

    def __enter__(self) -> Self:
        self._try(self._open)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self._opened.__exit__(kind, error, at)
        except Exception as exc:  # the verdict does not depend on what is left over
            if error is not None:
                raise
            logger.warning("the scratch restore was not cleaned up: %s", exc)
            self._proof[Axis.RESTORABLE].odd.append(f"the scratch restore was not cleaned up: {_said(exc)}")

    @property
    def restore_seconds(self) -> float | None:
        """How long the restore took; None where it failed, or could not be tried."""
        return self._scratch.restore_seconds if self._scratch is not None else None

    def _open(self) -> None:
        self._scratch = self._opened.enter_context(open_scratch(self._plan, self._chain))

    def apply(self, part: RestorePart, rows: pa.Table, proved: PartIndex) -> None:
        """Write one part, whose rows were found to be those of the index `proved`; nothing after a failure."""
        if (scratch := self._scratch) is not None:
            self._try(lambda: scratch.apply(part, rows, proved))

    def finish(self, whole: bool) -> None:
        """Commit the scratch restore, and compare what was restored.

        Args:
            whole: Whether all parts came.
        """
        if (scratch := self._scratch) is None:
            return
        found = self._proof[Axis.RESTORABLE]
        if not whole:
            found.unproven.append("It was not restored, since not all of it could be read.")
            return
        self._try(scratch.compare_restored)
        if self._scratch is not None:
            found.reach(Depth.RESTORED)
            scratch.report(self._proof)

    def _try(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as exc:  # noqa: BLE001  whatever a restore raises is what it came to
            self._fail(exc)

    def _fail(self, error: Exception) -> None:
        with self._guard:
            if self._proof[Axis.RESTORABLE].bad or self._proof[Axis.RESTORABLE].unproven:
                return  # another part failed first; what comes after is of the same failure
            self._scratch = None
            found = self._proof[Axis.RESTORABLE]
            if isinstance(error, _NOT_ITS_FAULT):
                logger.debug("the scratch restore could not be tried", exc_info=error)
                found.unproven.append(f"It could not be restored here, which says nothing of it: {_said(error)}")
            else:
                logger.debug("the scratch restore failed", exc_info=error)
                found.reach(Depth.RESTORED)
                found.bad.append(_said(error))


def _said(error: Exception) -> str:
    if isinstance(error, LastgoodError):
        return f"{error.message} {error.hint}".strip() if isinstance(error, CouldNotBeTried) else error.message
    return f"{type(error).__name__}: {error}"
