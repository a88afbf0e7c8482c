"""Finding the base of a backup: the chain that an incremental or a differential depends on, or why none can serve."""

from __future__ import annotations

from collections.abc import Mapping

from blocks.errors import BackupNotFound, CorruptionDetected, ObjectUnreadable, WrongKey
from blocks.records import FORMAT_VERSION, BackupMetadata, BackupType
from blocks.repository.block import Repository
from blocks.repository.checksums import objects_of
from blocks.repository.stock import Stock
from blocks.sources.collection import CollectionSpec
from blocks.sources.identity import Identity, another
from flows.pipeline.chain import Chain
from flows.pipeline.messages import spec_of


def find_base(repository: Repository, plan: str, kind: BackupType, stock: Stock) -> tuple[Chain | None, str | None]:
    """Find the base of a backup: the chain it may depend on, or why no chain can serve.

    The newest manifest is read from the storage. It names the others of its chain, and these name their indexes, by
    SHA-256, so that this machine's copies of those will do; that the storage has them, too, the listing shows.

    Args:
        repository: The unlocked repository.
        plan: Name of the plan.
        kind: The wanted type.
        stock: What is stored of the plan's backups, as it was listed since the lease is held.
    """
    if not kind.needs_base:
        return None, None
    wanted = (BackupType.FULL,) if kind is BackupType.DIFFERENTIAL else tuple(t for t in BackupType if t.can_be_base)
    newest = repository.newest(plan, stock, wanted)
    # an older one matters only to the chains that depend on it: otherwise one damaged manifest would make a full of
    # every backup from then on
    if newest.damage:
        return None, f"the history is damaged: {newest.damage}"
    if newest.backup is None:
        return None, f"there is no {' or '.join(wanted)} backup to depend on"
    try:
        chain = Chain(repository, newest.backup, copies=True)
        reason = unusable(repository, chain, stock)
    except (CorruptionDetected, BackupNotFound, ObjectUnreadable, WrongKey) as exc:
        chain, reason = None, f"base {newest.backup.backup_id} cannot be used: {exc.message}"
    return (None, reason) if reason else (chain, None)


def tokens(base: Chain | None, kind: BackupType) -> dict[str, str]:
    """Return what the views of a base remember, by source, where a backup may ask for what changed since then."""
    if base is None or kind is not BackupType.INCREMENTAL:  # a differential always reads all
        return {}
    return {source.name: source.token for source in base.target.sources if source.token is not None}


def unusable(repository: Repository, chain: Chain, stock: Stock) -> str | None:
    """Return why a chain cannot be a base: an object is gone, or a verification failed."""
    for backup in chain.backups:
        if stock.committed_at(backup.backup_id) is None:
            return f"base {backup.backup_id} lacks its manifest"
        if missing := stock.missing(backup.backup_id, objects_of(backup)):
            return f"base {backup.backup_id} lacks {missing[0]}"
        # bad data, or a restore that fails, is no reason: it is faithfully kept
        if repository.own_verdict(backup.plan, repository.link_of(backup), stock).bad_bytes:
            return f"base {backup.backup_id} failed its verification"
        if backup.format_version != FORMAT_VERSION:
            return f"base {backup.backup_id} has format {backup.format_version}, and format {FORMAT_VERSION} is written"
        if backup.encryption_key_id != repository.keys.key_id:
            return f"base {backup.backup_id} was made under key {backup.encryption_key_id}"
    return None


def other_source(base: BackupMetadata, identities: Mapping[str, Identity]) -> str | None:
    """Return which source is another one than that of the base, and why; None where none is known to be."""
    found = (another(base, name, identity) for name, identity in identities.items())
    return next((sentence for sentence in found if sentence), None)


def schema_change(base: BackupMetadata, specs: dict[str, CollectionSpec]) -> str | None:
    """Return how the shape of state changed since the base, or None where rows of both can stand side by side."""
    before = {c.name: spec_of(c).fingerprint for c in base.collections}
    if new := sorted(specs.keys() - before.keys()):
        return f"collection {new[0]} is new"
    if gone := sorted(before.keys() - specs.keys()):
        return f"collection {gone[0]} is gone"
    changed = [name for name, spec in specs.items() if spec.fingerprint != before[name]]
    return f"collection {changed[0]} changed its columns or its key" if changed else None
