"""The journal: each operation notes its start and its end there, so that metrics know what any process did.

    {"event": "started", "id": ..., "at": ..., "plan": ..., "place": ..., "verb": ..., "type": ..., "process": ...}
    {"event": "ended", "id": ..., "at": ..., ..., "outcome": ..., "seconds": ..., "made": {...}, "numbers": {...}}
    {"event": "runs", "id": ..., "at": ...}     each hour, for those who cannot know whether its process is there
    {"event": "lost", "id": ..., "at": ...}     an exporter found that its process is gone, without having ended

Two repositories may have plans of one name. So a line says which one it is of: its id, where that is in a folder and
costs nothing or came with the result, and a digest of its place.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime

from pydantic import JsonValue

from blocks.errors import CorruptionDetected, LastgoodError, NotRestorable, Partial, QualityFailed
from blocks.host.leftovers import process_name, running_host
from blocks.host.threads import ShortCalls
from blocks.plan.plan import BackupPlan
from blocks.records import BackupMetadata
from blocks.repository import names
from blocks.repository.block import BackupRepository
from blocks.storage.fsync import read_regular
from blocks.verification import Verification
from flows.pipeline.results import RestoreResult, RetentionResult
from flows.reporting.journal_files import append, journal_folder
from flows.reporting.lifecycle import Operation

logger = logging.getLogger(__name__)

WAIT_SECONDS = 3.0
"""So long an operation waits until a line is written, and then goes on without."""

BEAT_SECONDS = 3600.0
"""How often it is noted that an operation runs, while it does; an exporter waits for several of these."""

_MOST_CONFIG = 64 * 1024

COMPLETED, FAILED, PARTIAL, BAD = "completed", "failed", "partial", "bad"
OUTCOMES = (COMPLETED, FAILED, PARTIAL, BAD)
"""How an operation can end; bad: a verification that found something wrong with the backup."""
_BAD = (CorruptionDetected, NotRestorable, QualityFailed)
"""What a verification raises then; what else it raises says nothing of the backup."""


class Journal:
    """Notes one operation. Where that fails, or takes long, a warning is all that comes of it."""

    def __init__(self) -> None:
        self._calls = ShortCalls("journal")
        self._warned = False
        self._over = threading.Event()

    def started(self, operation: Operation) -> None:
        """Append the line of the start, and from then on that it runs, until the end."""
        self._note(operation, lambda: append(journal_folder(), _start(operation)))
        threading.Thread(target=self._beat, args=(operation.operation_id,), name="journal-beat", daemon=True).start()

    def ended(self, operation: Operation) -> None:
        """Append the line of the end."""
        self._over.set()
        self._note(operation, lambda: _append_end(operation))

    def _beat(self, operation_id: str) -> None:
        while not self._over.wait(BEAT_SECONDS):
            try:
                append(journal_folder(), {"event": "runs", "id": operation_id, "at": _moment(datetime.now(UTC))})
            except (OSError, RuntimeError) as exc:  # as below; that it is missing is told at the end
                logger.debug("that an operation runs cannot be noted: %s", exc)

    def _note(self, operation: Operation, note: Callable[[], object]) -> None:
        try:
            # the folder may be one of a file server that does not answer; where it does again, the end is noted
            self._calls.call(note, WAIT_SECONDS)
        except (OSError, RuntimeError) as exc:  # RuntimeError: there is no home
            # once for an operation
            level = logging.DEBUG if self._warned else logging.WARNING
            logger.log(level, "metrics miss this %s: the journal cannot be written: %s", operation.verb.value, exc)
            self._warned = True


def _start(operation: Operation) -> dict[str, JsonValue]:
    return {"event": "started", **_named(operation), **_process(), "at": _moment(operation.started_at)}


def _append_end(operation: Operation) -> None:
    wrong = operation.error if operation.error is not None else operation.shortfall
    error = {"error": type(wrong).__name__} if wrong is not None else {}
    line: dict[str, JsonValue] = {
        "event": "ended",
        **_named(operation),
        "at": _moment(datetime.now(UTC)),
        "started": _moment(operation.started_at),
        "seconds": round(operation.seconds or 0.0, 6),
        "outcome": outcome(operation),
        **error,
    }
    if operation.backup_id is not None:
        line["backup"] = operation.backup_id
    folder = journal_folder()
    if append(folder, line | _result(operation), {"numbers": operation.numbers.as_json()}):
        from flows.reporting.journal_compaction import compact  # once in hundreds of operations

        compact(folder)


def outcome(operation: Operation) -> str:
    """Return how an operation ended, one of `OUTCOMES`."""
    # what a verification found is its error, too, where a hook after it failed
    if operation.error is not None and operation.error is not operation.shortfall:
        return PARTIAL if isinstance(operation.error, Partial) else FAILED
    if isinstance(operation.shortfall, _BAD):
        return BAD
    left_out = isinstance(operation.result, RestoreResult) and operation.result.not_rebuilt
    return PARTIAL if operation.shortfall is not None or left_out else COMPLETED


def _named(operation: Operation) -> dict[str, JsonValue]:
    plan = operation.plan
    line: dict[str, JsonValue] = {
        "id": operation.operation_id,
        "plan": plan.name,
        "place": place_key(plan),
        "verb": operation.verb.value,
        "type": operation.kind,
    }
    if isinstance(operation.result, BackupMetadata):
        line["repository"] = operation.result.repository_id
    elif found := local_repository_id(plan.repository):
        line["repository"] = found
    return line


def place_key(plan: BackupPlan) -> str:
    """Return what stands for the place of a plan's repository, as the plan spells it: nothing is asked for it."""
    repository = plan.repository
    folder = repository.folder
    if folder is not None:
        place = os.path.abspath(folder)
    else:
        place = "\n".join(
            [repository.url.rstrip("/"), repository.storage.endpoint or "", repository.storage.account or ""]
        )
    return hashlib.sha256(os.fsencode(place)).hexdigest()[:16]


def local_repository_id(repository: BackupRepository) -> str | None:
    """Return the id of a repository in a folder of this machine; None of others, and where it cannot be read."""
    folder = repository.folder
    if folder is None:
        return None
    try:
        said = json.loads(read_regular(folder / names.CONFIG, limit=_MOST_CONFIG))
    except (OSError, ValueError, LastgoodError):
        return None
    found = said.get("repository_id") if isinstance(said, dict) else None
    return found if isinstance(found, str) else None


def _process() -> dict[str, JsonValue]:
    host = running_host()
    return {"process": process_name(), **({"host": list(host)} if host is not None else {})}


def _result(operation: Operation) -> dict[str, JsonValue]:
    match operation.result:
        case BackupMetadata() as made:
            return {
                "made": {
                    "type": made.backup_type.value,
                    "timestamp": _moment(made.timestamp),
                    "sequence": made.sequence,
                    "rows": made.rows,
                    "size_bytes": made.size_bytes,
                    "size_stored": made.size_stored,
                    "regular": made.is_regular,
                }
            }
        case Verification() as result:
            seconds = {} if result.restore_seconds is None else {"rto_seconds": round(result.restore_seconds, 6)}
            return {"verified": {"status": result.status.value, "rows": result.rows, **seconds}}
        case RestoreResult() as restored:
            return {"restored": {"rows": restored.rows}}
        case RetentionResult() as kept:
            removed = kept.removed
            return {"removed": {"backups": len(removed), "size_stored": sum(one.size_stored for one in removed)}}
        case _:
            return {}


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")
