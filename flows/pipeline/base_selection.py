"""Finding the base of a backup: the chain that an incremental or a differential depends on, or why none can serve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from blocks.errors import BackupNotFound, CorruptionDetected, ObjectUnreadable, WrongKey
from blocks.records import FORMAT_VERSION, BackupMetadata, BackupStatus, BackupType
from blocks.repository.block import Repository, Survey
from blocks.repository.names import id_moment
from blocks.sources.collection import CollectionSpec
from blocks.sources.identity import Identity, another
from flows.pipeline.chain import Chain
from flows.pipeline.messages import spec_of


def find_base(repository: Repository, survey: Survey, kind: BackupType) -> tuple[Chain | None, str | None]:
    """Find the base of a backup among those of the plan: the chain it may depend on, or why no chain can serve."""
    if not kind.needs_base:
        return None, None
    wanted = (BackupType.FULL,) if kind is BackupType.DIFFERENTIAL else tuple(t for t in BackupType if t.can_be_base)
    candidates = [b for b in survey.backups if b.backup_type in wanted]
    newest = candidates[-1] if candidates else None
    if damage := damage_since(survey, wanted, newest):
        return None, f"the history is damaged: {damage}"
    if newest is None:
        return None, f"there is no {' or '.join(wanted)} backup to depend on"
    try:
        chain = Chain(repository, newest)
        reason = unusable(repository, chain)
    except (CorruptionDetected, BackupNotFound, ObjectUnreadable, WrongKey) as exc:
        chain, reason = None, f"base {newest.backup_id} cannot be used: {exc.message}"
    return (None, reason) if reason else (chain, None)


def tokens(base: Chain | None, kind: BackupType) -> dict[str, str]:
    """Return what the views of a base remember, by source, where a backup may ask for what changed since then."""
    if base is None or kind is not BackupType.INCREMENTAL:  # a differential always reads all
        return {}
    return {source.name: source.token for source in base.target.sources if source.token is not None}


def damage_since(survey: Survey, wanted: Sequence[BackupType], newest: BackupMetadata | None) -> str | None:
    """Return what is wrong with a backup that should have been the base, if one does not open.

    An older one matters only to the chains that depend on it: otherwise one damaged manifest would make a full of every
    backup from then on.
    """
    since = id_moment(newest.backup_id) if newest else ""
    prefixes = tuple(kind.prefix for kind in wanted)
    for damaged, finding in zip(survey.damaged, survey.findings, strict=True):
        if damaged.startswith(prefixes) and id_moment(damaged) >= since:
            return finding
    return None


def unusable(repository: Repository, chain: Chain) -> str | None:
    """Return why a chain cannot be a base: an object is gone, or a verification failed."""
    for backup in chain.backups:
        if missing := repository.missing(backup):
            return f"base {backup.backup_id} lacks {missing[0]}"
        if repository.status(backup) is BackupStatus.CORRUPTED:
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
