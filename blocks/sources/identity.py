"""Whether a source is the one that a backup is of: a plan's name is bound to its sources, not to a host.

An identity names what tells a source from others of its kind, and for each name has a list of words, of which one in
common is enough: what is known in several ways stays the same when one of them changes. Names that only one side has
say nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue

from blocks.records import BackupMetadata

Identity = Mapping[str, JsonValue]

_NOUNS = {"files": "folder", "mapping": "object", "postgres": "database", "redis": "Redis", "sqlite": "database"}


def difference(before: Identity, now: Identity) -> str | None:
    """Say what makes a source another one than it was, as `system identifier B instead of A`; None where nothing."""
    for name, known in before.items():
        was, found = _words(known), _words(now.get(name))
        if was and found and not set(was) & set(found):
            return f"{name} {found[0]} instead of {was[0]}"
    return None


def another(backup: BackupMetadata, source: str, now: Identity) -> str | None:
    """Say that a source is another one than that of a backup, and why; None where that is not known."""
    for state in backup.sources:
        if state.name == source and (how := difference(state.identity, now)) is not None:
            noun = _NOUNS.get(state.type, "source")
            return f"source {source} is another {noun} than that of {backup.backup_id}: {how}"
    return None


def _words(value: JsonValue) -> list[str]:
    return [word for word in value if isinstance(word, str)] if isinstance(value, list) else []
