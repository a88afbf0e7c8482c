"""The sealed records of a repository: manifests, verifications and expiries, opened, checked and remembered.

A record is the canonical JSON of its pydantic model (sorted keys, no spaces, ASCII), compressed by gzip and sealed
with the catalogue key.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from blocks.crypto.keys import Keys
from blocks.crypto.stream import ObjectContext, ObjectKind, seal, stored_version, unseal
from blocks.errors import (
    BackupNotFound,
    ConfigurationError,
    CorruptionDetected,
    LastgoodError,
    ObjectMissing,
    ObjectUnreadable,
    UnsupportedState,
)
from blocks.records import FEATURES, FORMAT_VERSION, BackupMetadata, Link, Record
from blocks.repository import names
from blocks.repository.inheritance import narrowed, widened
from blocks.storage.base import StorageTier

logger = logging.getLogger(__name__)

MAX_RECORD_BYTES = 512 * 1024 * 1024
"""A record that unpacks to more than this is refused: it would be an attack on memory."""

READERS = 4
"""Manifests that are read at once."""

R = TypeVar("R", bound=Record)


class _Versioned(BaseModel):
    format_version: int
    requires: tuple[str, ...] = ()


@dataclass(frozen=True)
class Survey:
    """What is in a plan's folder.

    Attributes:
        backups: Committed backups whose manifests open, in the order of their commits.
        findings: What is wrong with the others, each a sentence that names the backup.
        damaged: Ids of committed backups whose manifests do not open.
    """

    backups: list[BackupMetadata]
    findings: list[str]
    damaged: list[str]


def encode_record(record: Record) -> bytes:
    """Write a record as compressed canonical JSON, without fields that have their default; equal ones give equal bytes.

    Raises:
        ValueError: It holds a number that JSON does not know.
    """
    fields = record.model_dump(mode="json", exclude_defaults=True) | {"format_version": FORMAT_VERSION}
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return gzip.compress(text.encode("ascii"), mtime=0)


def decode_record(data: bytes, model: type[R], where: str) -> R:
    """Read a record.

    Args:
        data: The record as canonical JSON, compressed by gzip.
        model: The class of the record.
        where: Names the object in errors.

    Raises:
        ConfigurationError: A newer lastgood made it.
        CorruptionDetected: It is no such record.
    """
    try:
        unpacker = zlib.decompressobj(wbits=31)
        text = unpacker.decompress(data, MAX_RECORD_BYTES)
        if not unpacker.eof or unpacker.unused_data:
            raise CorruptionDetected(f"{where} is larger than any record, or not whole", hint=_HINT)
        said = _Versioned.model_validate_json(text, extra="ignore")
        unknown = sorted(set(said.requires) - FEATURES)
        if said.format_version > FORMAT_VERSION or unknown:
            needs = f"format {said.format_version}" + "".join(f", {feature}" for feature in unknown)
            raise ConfigurationError(
                f"{where} was made by a newer lastgood ({needs}; this one reads format {FORMAT_VERSION})",
                hint="Install the newest lastgood.",
            )
        # what a later one adds without requiring it does not matter; version 1 knows no such fields
        return model.model_validate_json(text, extra="forbid" if said.format_version == 1 else "ignore")
    except (zlib.error, ValidationError) as exc:
        raise CorruptionDetected(f"{where} is not what format {FORMAT_VERSION} asks for: {exc}", hint=_HINT) from exc


_HINT = "Run `lastgood check` to see what else is damaged; other backups of the plan can still be restored."


class Catalogue:
    """All sealed records of one repository. Thread-safe; manifests are immutable and read once.

    Args:
        tier: The tier that holds the repository's objects.
        keys: The unlocked keys of the repository, of any role.
    """

    def __init__(self, tier: StorageTier, keys: Keys) -> None:
        self._tier = tier
        self._keys = keys
        self._known: dict[tuple[str, str], tuple[BackupMetadata, str]] = {}
        self._incomplete: dict[tuple[str, str], tuple[BackupMetadata, str]] = {}
        """Manifests whose base was not there, or was another one, as they are stored."""
        self._guard = threading.Lock()

    def seal(self, record: Record, kind: ObjectKind, plan: str, name: str) -> bytes:
        """Seal a record; `name` is the backup's id or, for an expiry, its time.

        Raises:
            UnsupportedState: The record would not be read back as it is (text that is not Unicode, say).
        """
        context = self._context(kind, plan, name)
        try:
            data = encode_record(record)
            same = decode_record(data, type(record), str(context)) == record
        except (CorruptionDetected, ValueError) as exc:
            raise UnsupportedState(f"{context} cannot be written exactly: {exc}") from exc
        if not same:
            raise UnsupportedState(f"{context} would not be read back as it is")
        return seal(data, self._keys.catalogue_key, context)

    def seal_manifest(self, metadata: BackupMetadata) -> bytes:
        """Seal a manifest, without what is as in its base.

        Raises:
            UnsupportedState: It would not be read back as it is (text that is not Unicode, say).
            CorruptionDetected: The manifest of its base is not what it was.
        """
        plan, backup_id = metadata.plan, metadata.backup_id
        base = self.manifest(plan, metadata.chain[-1].backup_id)[0] if metadata.chain else None
        stored = metadata if base is None else narrowed(metadata, base)
        sealed = self.seal(stored, ObjectKind.MANIFEST, plan, backup_id)
        if base is not None and stored.inherits and widened(stored, base) != metadata:
            raise UnsupportedState(f"the manifest of {backup_id} would not be read back as it is")
        return sealed

    def open(self, sealed: bytes, model: type[R], kind: ObjectKind, plan: str, name: str) -> R:
        """Open what `seal` made for the same place.

        Raises:
            CorruptionDetected: It is damaged, or was sealed for another place.
            ConfigurationError: A newer lastgood made it.
        """
        context = self._context(kind, plan, name, stored_version(sealed))
        return decode_record(unseal(sealed, self._keys.catalogue_key, context), model, str(context))

    def ids(self, plan: str) -> list[str]:
        """Return the ids of all backup folders, committed or not, sorted."""
        return [name for name in self._tier.folders(names.backups(plan)) if names.is_backup_id(name)]

    def forget(self, plan: str) -> None:
        """Read the manifests of a plan again when they are next asked for."""
        with self._guard:
            for known in (self._known, self._incomplete):
                for key in [key for key in known if key[0] == plan]:
                    del known[key]

    def manifest(self, plan: str, backup_id: str) -> tuple[BackupMetadata, str]:
        """Return a manifest and the SHA-256 of its sealed bytes.

        Raises:
            BackupNotFound: There is no committed backup of that id.
            CorruptionDetected: Its manifest is damaged, or belongs elsewhere.
            ObjectUnreadable: Its manifest cannot be read.
            ConfigurationError: A newer lastgood made it.
        """
        known = self._known_manifest(plan, backup_id)
        if known and self._tier.is_object(names.manifest(plan, backup_id)):
            return known
        stored, digest = self._opened(plan, backup_id)
        metadata = self._resolved(stored) if stored.inherits else stored
        self._remember(metadata, digest)
        return metadata, digest

    def _opened(self, plan: str, backup_id: str) -> tuple[BackupMetadata, str]:
        """Read a manifest as it is stored; raises what `manifest` raises."""
        name = names.manifest(plan, backup_id)
        try:
            sealed = self._tier.get(name, limit=MAX_RECORD_BYTES)
        except ObjectMissing as exc:
            with self._guard:
                self._known.pop((plan, backup_id), None)
                self._incomplete.pop((plan, backup_id), None)
            if self._tier.exists(name):
                raise CorruptionDetected(f"{name} is a folder, not what was stored", hint=_HINT) from exc
            raise BackupNotFound(
                f"plan {plan} has no committed backup {backup_id}", hint=f"`lastgood list {plan}` shows what there is."
            ) from exc
        metadata = self.open(sealed, BackupMetadata, ObjectKind.MANIFEST, plan, backup_id)
        self._check_identity(metadata, plan, backup_id, name)
        if metadata.format_version != stored_version(sealed):
            raise CorruptionDetected(f"{name} says that it is of version {metadata.format_version}", hint=_HINT)
        return metadata, hashlib.sha256(sealed).hexdigest()

    def _resolved(self, backup: BackupMetadata) -> BackupMetadata:
        """Fill in what a manifest takes from its base.

        Where a backup of its chain is gone or damaged, that is found by who needs the chain; others, who list backups,
        get the manifest as it is stored.

        Raises:
            CorruptionDetected: It names what its base does not have.
            RepositoryUnavailable: The storage failed or refused, which says nothing about the base.
        """
        if backup.chain and (backup.plan, backup.chain[-1].backup_id) in self._incomplete:
            return backup
        above: list[tuple[BackupMetadata, str]] = []
        lower: BackupMetadata | None = None
        for position in range(len(backup.chain) - 1, -1, -1):
            link = backup.chain[position]
            try:
                found, digest = self._known_manifest(backup.plan, link.backup_id) or self._opened(
                    backup.plan, link.backup_id
                )
            except (BackupNotFound, CorruptionDetected, ConfigurationError, ObjectUnreadable) as exc:
                logger.debug("%s is listed without its base: %s", backup.backup_id, exc)
                return backup
            if digest != link.manifest_sha256 or found.chain != backup.chain[:position]:
                return backup
            if not found.inherits:
                lower = found
                break
            above.append((found, digest))
        for stored, digest in reversed(above):
            lower = self._widened(stored, lower)
            self._remember(lower, digest)
        return self._widened(backup, lower)

    def _widened(self, stored: BackupMetadata, base: BackupMetadata | None) -> BackupMetadata:
        wrong = f"the manifest of backup {stored.backup_id} contradicts that of its base"
        if base is None:
            raise CorruptionDetected(f"{wrong}: it has none", hint=_HINT)
        try:
            return widened(stored, base)
        except ValueError as exc:
            raise CorruptionDetected(f"{wrong}: {exc}", hint=_HINT) from exc

    def _known_manifest(self, plan: str, backup_id: str) -> tuple[BackupMetadata, str] | None:
        with self._guard:
            return self._known.get((plan, backup_id)) or self._incomplete.get((plan, backup_id))

    def _remember(self, metadata: BackupMetadata, digest: str) -> None:
        known = self._incomplete if metadata.inherits else self._known
        with self._guard:
            known[metadata.plan, metadata.backup_id] = metadata, digest

    def link(self, plan: str, backup_id: str) -> Link:
        """Name a backup together with the digest of its manifest; raises what `manifest` raises."""
        return Link(backup_id=backup_id, manifest_sha256=self.manifest(plan, backup_id)[1])

    def survey(self, plan: str) -> Survey:
        """Read all manifests of a plan; damage is reported, not raised.

        Raises:
            RepositoryUnavailable: The storage failed.
        """
        backups, wrong = self._read_all(plan)
        return Survey(backups, [error.message for error in wrong.values()], list(wrong))

    def backups(self, plan: str) -> list[BackupMetadata]:
        """Return all committed backups of a plan in the order of their commits.

        Raises:
            CorruptionDetected: A manifest is damaged; names it.
            ObjectUnreadable: A manifest cannot be read; names it.
            ConfigurationError: A newer lastgood made one.
        """
        backups, wrong = self._read_all(plan)
        for error in wrong.values():
            raise error
        return backups

    def _read_all(self, plan: str) -> tuple[list[BackupMetadata], dict[str, LastgoodError]]:
        ids = self.ids(plan)
        with ThreadPoolExecutor(READERS) as pool:
            outcomes = list(pool.map(lambda backup_id: self._outcome(plan, backup_id), ids))
        backups = [outcome for outcome in outcomes if isinstance(outcome, BackupMetadata)]
        wrong = {key: out for key, out in zip(ids, outcomes, strict=True) if isinstance(out, LastgoodError)}
        return sorted(backups, key=lambda one: (one.sequence, one.timestamp, one.backup_id)), wrong

    def _outcome(self, plan: str, backup_id: str) -> BackupMetadata | LastgoodError | None:
        """Return the manifest, what is wrong with it, or None where there is none: the backup is not committed."""
        try:
            return self.manifest(plan, backup_id)[0]
        except BackupNotFound:
            return None
        except (CorruptionDetected, ConfigurationError, ObjectUnreadable) as exc:
            return exc

    def _context(self, kind: ObjectKind, plan: str, name: str, version: int = FORMAT_VERSION) -> ObjectContext:
        return ObjectContext(self._keys.repository_id, plan, name, kind, version=version)

    def _check_identity(self, metadata: BackupMetadata, plan: str, backup_id: str, name: str) -> None:
        inside = (metadata.repository_id, metadata.plan, metadata.backup_id)
        if inside != (self._keys.repository_id, plan, backup_id):
            raise CorruptionDetected(f"{name} says that it belongs to {' / '.join(inside)}", hint=_HINT)
