"""SHA256SUMS: the digests of a backup's sealed objects, as the tool `sha256sum` writes and checks them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from blocks.records import BackupMetadata, StoredObject


def objects_of(metadata: BackupMetadata) -> list[StoredObject]:
    """Return the sealed objects that a manifest names, sorted by name."""
    if metadata.format_version > 1:
        return list(metadata.objects)
    segments = (part.segment for c in metadata.collections for part in c.parts if part.segment)
    stored = (blob.stored for segment in segments for blob in (segment.data, segment.index))
    return sorted(stored, key=lambda one: one.name)


def checksums_text(digests: dict[str, str]) -> str:
    """Write the file: a line `<hex digest>  <name>` for each object, sorted by name."""
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))


def checksums_digest(objects: Sequence[StoredObject]) -> str:
    """Return the SHA-256 of SHA256SUMS without the manifest's own line: `BackupMetadata.checksum`."""
    text = checksums_text({stored.name: stored.sha256 for stored in objects})
    return hashlib.sha256(text.encode()).hexdigest()
