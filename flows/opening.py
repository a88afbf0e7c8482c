"""Opening a backup: the lease, the base, a view of every source, and then the type that it can have."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

from blocks.errors import SourceUnavailable
from blocks.manifest import BackupType
from blocks.plan import BackupPlan
from blocks.sources.base import StateSource, View
from flows.bases import find_base, schema_change, tokens
from flows.job import BackupJob
from flows.line import retried


@contextmanager
def open_backup(
    plan: BackupPlan, kind: BackupType, tags: Sequence[str] = (), wait_seconds: float = 0
) -> Iterator[BackupJob]:
    """Take the plan's lease, open a view of every source, and settle the backup's type and base.

    Args:
        plan: What to back up.
        kind: The wanted type; one that needs a base and finds none becomes a full one, and says so.
        tags: Kept in the manifest.
        wait_seconds: How long to wait for another run on the same plan.

    Raises:
        RepositoryLocked: Another run holds the lease.
        SourceUnavailable: A source cannot be read, or a hook before failed; nothing was written.
        Partial: The backup is made, but a hook after it failed.
    """
    repository = plan.repository.unlock(plan.encryption)
    holder = f"{socket.gethostname()}:{os.getpid()}"
    with (
        repository.lease(plan.name, holder, f"{kind.value} backup", wait_seconds) as lease,
        plan.hooks.around(plan.name, kind.value, plan.secret_variables),
        ExitStack() as opened,
    ):
        base, because = find_base(repository, plan.name, kind)
        since = tokens(base, kind)
        views = {
            name: retried(partial(_open_view, opened, name, source, since.get(name)), retries=2)
            for name, source in plan.sources.items()
        }
        job = BackupJob(plan, repository, lease, views)
        if base is not None and (changed := schema_change(base.target, job.specs)):
            base, because = None, changed
        if base is not None and (grown := job.outgrown(base)):
            base, because = None, f"a part of {grown} has outgrown its bounds"
        job.begin(kind, base, because, tags)
        yield job


def _open_view(opened: ExitStack, name: str, source: StateSource, since: str | None) -> View:
    try:
        return opened.enter_context(source.view(since))
    except SourceUnavailable as exc:
        raise type(exc)(f"source {name}: {exc.message}", hint=exc.hint) from exc
