"""Makes a repository of very many small backups: `python -m benchmarks.many_backups PLAN COUNT`.

They are committed by the repository's own code, in memory, and copied to where the plan keeps its backups.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

from blocks.crypto.keyring import Keyring, generate_key_file
from blocks.plan.plan import load_plan
from blocks.records import BackupMetadata, BackupType, Blob, Collection, Link, Part, Segment, new_backup_id
from blocks.repository.block import BackupRepository, Repository
from blocks.repository.checksums import checksums_digest
from blocks.repository.lease import Lease

CHAIN = 10
"""A full and what stands on it."""
FIRST = datetime(2025, 1, 1, tzinfo=UTC)
WRITERS = 16


def main(plan: str, count: int) -> None:
    """Make the repository of a plan, with so many backups."""
    opened = load_plan(plan)
    if isinstance(opened.encryption, Keyring) and opened.encryption.credential.key_file is not None:
        generate_key_file(opened.encryption.credential.key_file)
    made = BackupRepository(url="memory://many/backups")
    made.initialize(opened.encryption)
    repository = made.unlock(opened.encryption)
    with repository.lease(opened.name, "backup") as lease:
        chain: tuple[Link, ...] = ()
        previous: Link | None = None
        for number in range(count):
            chain = chain if number % CHAIN else ()
            previous = _commit(repository, lease, number, chain, previous)
            chain = (*chain, previous)
    there = opened.repository.tier
    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(lambda one: there.put(one.name, made.tier.get(one.name)), made.tier.list()))


def _commit(repository: Repository, lease: Lease, number: int, chain: tuple[Link, ...], previous: Link | None) -> Link:
    moment = FIRST + timedelta(hours=number)
    kind = BackupType.INCREMENTAL if chain else BackupType.FULL
    backup_id, plan = new_backup_id(kind, moment), lease.plan
    stored = repository.put_object(plan, backup_id, "00000.pack", os.urandom(3000))
    segments = [
        Segment(
            data=Blob(name=stored.name, offset=1000 * n, size_bytes=800, sha256=stored.sha256, number=2 * n),
            index=Blob(name=stored.name, offset=1000 * n + 800, size_bytes=200, sha256=stored.sha256, number=2 * n + 1),
            upserts=100, tombstones=0, size_bytes=5000, size_compressed=1000,
        )
        for n in range(3)
    ]  # fmt: skip
    collections = tuple(
        Collection(
            number=n, name=f"ledger/{name}", key=("id",), label=("id",), columns=(("id", "int64"), ("name", "string")),
            definition={}, parts=(Part(number=0, bounds={}, rows=100, segment=segments[n]),),
        )
        for n, name in enumerate(("orders", "portfolio", "positions"))
    )  # fmt: skip
    metadata = BackupMetadata(
        repository_id=repository.repository_id, plan=plan, backup_id=backup_id, backup_type=kind, requested_type=kind,
        timestamp=moment, sequence=number + 1, fencing_token=lease.token, base=chain[-1].backup_id if chain else None,
        chain=chain, previous=previous, sources=(), collections=collections, total_rows=300, objects=(stored,),
        size_bytes=15_000, size_compressed=3000, size_stored=stored.size_bytes, checksum=checksums_digest([stored]),
        encryption_key_id=repository.keys.key_id, encapsulated_key=None, storage_tiers=("primary",),
        retention_days=None, source_system="benchmark", backup_duration_seconds=1.0,
        tool_versions={"lastgood": "1.0.0", "pyarrow": "21.0.0"},
    )  # fmt: skip
    return repository.commit(metadata, [stored], lease)


if __name__ == "__main__":
    main(str(Path(sys.argv[1])), int(sys.argv[2]))
