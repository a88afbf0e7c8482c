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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
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
from blocks.host.threads import WorkerThreads
from blocks.records import FEATURES, FORMAT_VERSION, BackupMetadata, Link, Record, first_wrong
from blocks.repository import names
from blocks.repository.cache import Kind, SealedCache
from blocks.repository.inheritance import narrowed, widened
from blocks.repository.summaries import (
    MANY,
    SUMMARIES,
    Listing,
    Summaries,
    ended,
    in_order,
    summary,
    worth_keeping,
)
from blocks.storage.base import StorageTier

logger = logging.getLogger(__name__)

MAX_RECORD_BYTES = 512 * 1024 * 1024
"""A record that unpacks to more than this is refused: it would be an attack on memory."""

READERS = 16
"""Manifests that are read at once from a storage in a network."""
READERS_OF_FOLDERS = 4
"""And from a folder."""

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
        return _parsed(text, model, where)
    except (zlib.error, ValidationError) as exc:
        wrong = first_wrong(exc) if isinstance(exc, ValidationError) else exc
        raise CorruptionDetected(f"{where} is not what format {FORMAT_VERSION} asks for: {wrong}", hint=_HINT) from exc


def _parsed(text: bytes, model: type[R], where: str) -> R:
    """Read a record's text; raises what `decode_record` raises, and ValidationError where it is no such record."""
    # most require nothing; looking for the word costs less than reading the text twice
    if b'"requires"' in text:
        _check_version(text, where)
    try:
        record = model.model_validate_json(text, extra="ignore")
    except ValidationError:
        _check_version(text, where)
        raise
    # what a later one adds without requiring it does not matter; version 1 knows no such fields
    if b'"format_version":2' in text:
        return record
    version = _check_version(text, where)
    return model.model_validate_json(text, extra="forbid") if version == 1 else record


def _check_version(text: bytes, where: str) -> int:
    said = _Versioned.model_validate_json(text, extra="ignore")
    unknown = sorted(set(said.requires) - FEATURES)
    if said.format_version > FORMAT_VERSION or unknown:
        needs = f"format {said.format_version}" + "".join(f", {feature}" for feature in unknown)
        raise ConfigurationError(
            f"{where} was made by a newer lastgood ({needs}; this one reads format {FORMAT_VERSION})",
            hint="Install the newest lastgood.",
        )
    return said.format_version


_HINT = "Run `lastgood check` to see what else is damaged; other backups of the plan can still be restored."


@dataclass(frozen=True)
class _Manifest:
    """A manifest that was read.

    Attributes:
        metadata: As it is stored, or with what it takes from its base.
        digest: SHA-256 of its sealed bytes.
        copied: Whether those came from this machine's copies.
        settled: Whether what it takes from its base was filled in, where that could be done.
    """

    metadata: BackupMetadata
    digest: str
    copied: bool
    settled: bool = False


class Catalogue:
    """All sealed records of one repository. Thread-safe; manifests are immutable and read once.

    Args:
        tier: The tier that holds the repository's objects.
        keys: The unlocked keys of the repository, of any role.
        cache: This machine's copies of sealed manifests, where they are worth something.
    """

    def __init__(self, tier: StorageTier, keys: Keys, cache: SealedCache | None = None) -> None:
        self._tier = tier
        self._keys = keys
        self._cache = cache
        self._known: dict[tuple[str, str], _Manifest] = {}
        self._incomplete: dict[tuple[str, str], _Manifest] = {}
        """Manifests whose base was not there, or was another one, as they are stored."""
        self._shown: dict[tuple[str, str], str] = {}
        """SHA-256 of the sealed bytes of manifests that were only shown."""
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
        base = self.member(plan, metadata.chain[-1], copies=True)[0] if metadata.chain else None
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

    def manifest(
        self, plan: str, backup_id: str, *, listed: bool = False, copies: bool = False
    ) -> tuple[BackupMetadata, str]:
        """Return a manifest and the SHA-256 of its sealed bytes.

        Args:
            plan: Name of the plan.
            backup_id: Id of the backup.
            listed: The caller knows from a listing that it is there: one that was read before is not looked for again.
            copies: Those of its chain, which it names by SHA-256, may come from this machine's copies.

        Raises:
            BackupNotFound: There is no committed backup of that id.
            CorruptionDetected: Its manifest is damaged, or belongs elsewhere.
            ObjectUnreadable: Its manifest cannot be read.
            ConfigurationError: A newer lastgood made it.
        """
        found = self._settled(self._read(plan, backup_id, listed, copies=False), copies, {})
        return found.metadata, found.digest

    def member(
        self, plan: str, link: Link, *, listed: bool = False, copies: bool = False
    ) -> tuple[BackupMetadata, str]:
        """Return a manifest that another one names by digest, and the SHA-256 of its sealed bytes.

        Args:
            plan: Name of the plan.
            link: What names it, in a manifest that was read from the storage.
            listed: The caller knows from a listing that it is there: one that was read before is not looked for again.
            copies: A copy on this machine will do; the caller knows from a listing that the storage has it, too.

        Raises:
            BackupNotFound: There is no committed backup of that id; and all that `manifest` raises.
        """
        if not copies:
            return self.manifest(plan, link.backup_id, listed=listed)
        found = self._settled(self._read(plan, link.backup_id, True, True, copy=link.manifest_sha256), copies, {})
        return found.metadata, found.digest

    def _read(self, plan: str, backup_id: str, listed: bool, copies: bool, copy: str | None = None) -> _Manifest:
        """Return what is known of a manifest, or else read it as it is stored; raises what `manifest` raises."""
        known = self._known_manifest(plan, backup_id, copies)
        if known and (listed or self._tier.is_object(names.manifest(plan, backup_id))):
            return known
        return self._opened(plan, backup_id, copy)

    def _opened(self, plan: str, backup_id: str, copy: str | None = None, sealed: bytes | None = None) -> _Manifest:
        """Open a manifest as it is stored, the copy of that digest, or what was fetched just now.

        Raises what `manifest` raises.
        """
        name = names.manifest(plan, backup_id)
        copied = False
        if sealed is None:
            sealed = self._cache.get(plan, backup_id, Kind.MANIFEST, copy) if self._cache and copy else None
            copied = sealed is not None
        if sealed is None:
            sealed = self._stored(plan, backup_id, name)
        metadata = self.open(sealed, BackupMetadata, ObjectKind.MANIFEST, plan, backup_id)
        self._check_identity(metadata, plan, backup_id, name)
        if metadata.format_version != stored_version(sealed):
            raise CorruptionDetected(f"{name} says that it is of version {metadata.format_version}", hint=_HINT)
        return _Manifest(metadata, hashlib.sha256(sealed).hexdigest(), copied)

    def _stored(self, plan: str, backup_id: str, name: str) -> bytes:
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
        if self._cache is not None:
            self._cache.put(plan, backup_id, Kind.MANIFEST, sealed)
        return sealed

    def _settled(self, found: _Manifest, copies: bool, at_hand: Mapping[str, _Manifest]) -> _Manifest:
        """Fill in what a manifest takes from its base, and remember it."""
        if found.settled:
            return found
        metadata = self._resolved(found.metadata, copies, at_hand) if found.metadata.inherits else found.metadata
        return self._remember(found, metadata)

    def _resolved(self, backup: BackupMetadata, copies: bool, at_hand: Mapping[str, _Manifest]) -> BackupMetadata:
        """Fill in what a manifest takes from its base.

        Where a backup of its chain is gone or damaged, that is found by who needs the chain; others, who list backups,
        get the manifest as it is stored.

        Args:
            backup: The manifest as it is stored.
            copies: Those of its chain may come from this machine's copies.
            at_hand: Manifests as they are stored, by their ids, that were read just now.

        Raises:
            CorruptionDetected: It names what its base does not have.
            RepositoryUnavailable: The storage failed or refused, which says nothing about the base.
        """
        if backup.chain and (backup.plan, backup.chain[-1].backup_id) in self._incomplete:
            return backup
        above: list[_Manifest] = []
        lower: BackupMetadata | None = None
        for position in range(len(backup.chain) - 1, -1, -1):
            link = backup.chain[position]
            try:
                found = (
                    self._known_manifest(backup.plan, link.backup_id, copies)
                    or at_hand.get(link.backup_id)
                    or self._opened(backup.plan, link.backup_id, link.manifest_sha256 if copies else None)
                )
            except (BackupNotFound, CorruptionDetected, ConfigurationError, ObjectUnreadable) as exc:
                logger.debug("%s is listed without its base: %s", backup.backup_id, exc)
                return backup
            if found.digest != link.manifest_sha256 or found.metadata.chain != backup.chain[:position]:
                return backup
            if not found.metadata.inherits:
                lower = found.metadata
                self._remember(found, lower)
                break
            above.append(found)
        for stored in reversed(above):
            lower = self._widened(stored.metadata, lower)
            self._remember(stored, lower)
        return self._widened(backup, lower)

    def _widened(self, stored: BackupMetadata, base: BackupMetadata | None) -> BackupMetadata:
        wrong = f"the manifest of backup {stored.backup_id} contradicts that of its base"
        if base is None:
            raise CorruptionDetected(f"{wrong}: it has none", hint=_HINT)
        try:
            return widened(stored, base)
        except ValueError as exc:
            raise CorruptionDetected(f"{wrong}: {exc}", hint=_HINT) from exc

    def _known_manifest(self, plan: str, backup_id: str, copies: bool = False) -> _Manifest | None:
        with self._guard:
            found = self._known.get((plan, backup_id)) or self._incomplete.get((plan, backup_id))
        return found if found and (copies or not found.copied) else None

    def _remember(self, found: _Manifest, metadata: BackupMetadata) -> _Manifest:
        settled = _Manifest(metadata, found.digest, found.copied, settled=True)
        with self._guard:
            (self._incomplete if metadata.inherits else self._known)[metadata.plan, metadata.backup_id] = settled
        return settled

    def keep(self, plan: str, backup_id: str, sealed: bytes) -> None:
        """Keep a copy of a manifest that was just committed, where the storage is in a network."""
        if self._cache is not None:
            self._cache.put(plan, backup_id, Kind.MANIFEST, sealed)
            self._cache.trim(plan)

    def link(self, plan: str, backup_id: str, *, listed: bool = False) -> Link:
        """Name a backup together with the digest of its manifest; raises what `manifest` raises."""
        return Link(backup_id=backup_id, manifest_sha256=self._read(plan, backup_id, listed, copies=False).digest)

    def link_of(self, metadata: BackupMetadata) -> Link:
        """Name a backup whose manifest was read before: it is not looked for again; raises what `manifest` raises."""
        known = self._known_manifest(metadata.plan, metadata.backup_id, copies=True)
        digest = known.digest if known else self._shown.get((metadata.plan, metadata.backup_id))
        if digest is None:
            return self.link(metadata.plan, metadata.backup_id)
        return Link(backup_id=metadata.backup_id, manifest_sha256=digest)

    def survey(self, plan: str, *, shown: bool = False) -> Survey:
        """Read all manifests of a plan; damage is reported, not raised.

        Args:
            plan: Name of the plan.
            shown: It is only shown to a person, so that this machine's copies of manifests will do, and with them
                manifests as they are stored, without what they take from their base: what is counted of a backup is
                in them. Never where it is decided what is committed, removed, or proved.

        Raises:
            RepositoryUnavailable: The storage failed.
        """
        backups, wrong = self._read_all(plan, shown)
        return Survey(backups, [error.message for error in wrong.values()], list(wrong))

    def listing(self, plan: str) -> Listing:
        """Return what a list shows of a plan's backups; like `survey(shown=True)`, for a person only.

        Raises:
            RepositoryUnavailable: The storage failed.
        """
        kept = self._summaries(plan)
        # before the backups, so that a removal which begins meanwhile is one that is not known
        expiries = self._tier.list(names.expired(plan)) if len(kept.backups) >= MANY else ()
        if len(kept.backups) >= MANY and kept.expiries.issuperset(one.name for one in expiries):
            # nothing was removed since all objects were listed: what has a folder is there
            ids, listed, done = self.ids(plan), True, kept.expiries
        else:
            (ids, listed), done = self._to_read(plan, shown=True), ended(expiries, datetime.now(UTC))
        there = frozenset(ids)
        known = {one.backup_id: one for one in kept.backups if one.backup_id in there}
        backups, wrong = self._read_those(plan, [one for one in ids if one not in known], ids, listed, shown=True)
        read = [summary(one, self.link_of(one).manifest_sha256) for one in backups]
        found = [*known.values(), *read]
        if worth_keeping(read, kept, done):
            self._keep_summaries(plan, Summaries(backups=tuple(found), expiries=done))
        return Listing(in_order(found), [error.message for error in wrong.values()])

    def _keep_summaries(self, plan: str, summaries: Summaries) -> None:
        if self._cache is not None:
            packed = gzip.compress(summaries.model_dump_json().encode(), 1)
            context = self._context(ObjectKind.MANIFEST, plan, SUMMARIES)  # which is no backup's id
            self._cache.put_summaries(plan, seal(packed, self._keys.catalogue_key, context))
            # a folder that is all that is left of a backup finds no copy of its manifest
            self._cache.trim(plan, {one.backup_id for one in summaries.backups})

    def _summaries(self, plan: str) -> Summaries:
        sealed = self._cache.summaries(plan) if self._cache else None
        if sealed is None:
            return Summaries()
        try:
            return self.open(sealed, Summaries, ObjectKind.MANIFEST, plan, SUMMARIES)
        except (CorruptionDetected, ConfigurationError) as exc:
            logger.debug("summaries of %s are not read: %s", plan, exc)
            return Summaries()

    def backups(self, plan: str) -> list[BackupMetadata]:
        """Return all committed backups of a plan in the order of their commits.

        Raises:
            CorruptionDetected: A manifest is damaged; names it.
            ObjectUnreadable: A manifest cannot be read; names it.
            ConfigurationError: A newer lastgood made one.
        """
        backups, wrong = self._read_all(plan, shown=False)
        for error in wrong.values():
            raise error
        return backups

    def _read_all(self, plan: str, shown: bool) -> tuple[list[BackupMetadata], dict[str, LastgoodError]]:
        ids, listed = self._to_read(plan, shown)
        return self._read_those(plan, ids, ids, listed, shown)

    def _read_those(
        self, plan: str, ids: Sequence[str], there: Sequence[str], listed: bool, shown: bool
    ) -> tuple[list[BackupMetadata], dict[str, LastgoodError]]:
        """Read some manifests of a plan.

        Args:
            plan: Name of the plan.
            ids: Of the backups to read.
            there: Ids of all of its backups: copies of others are removed.
            listed: A listing shows that they are there.
            shown: As `survey` takes it.

        Returns:
            The backups in the order of their commits, and by its id what is wrong with each of the others.
        """
        copies = self._cache.manifests(plan) if self._cache and shown else {}
        read: dict[str, _Manifest | LastgoodError | None] = {
            # opening them is work for one processor: threads would only wait for each other
            backup_id: self._outcome(plan, backup_id, listed, shown, copies[backup_id])
            for backup_id in ids
            if backup_id in copies
        }
        rest = [backup_id for backup_id in ids if backup_id not in copies]
        if rest:
            with WorkerThreads(READERS if self._tier.remote else READERS_OF_FOLDERS) as pool:
                fetched = pool.map(lambda backup_id: self._fetched(plan, backup_id, shown), rest)
                for backup_id, sealed in zip(rest, fetched, strict=True):
                    read[backup_id] = self._outcome(plan, backup_id, listed, shown, fetched=sealed)
            if self._cache is not None:
                self._cache.trim(plan, set(there))
        at_hand = {key: found for key, found in read.items() if isinstance(found, _Manifest)}
        as_stored = shown and self._cache is not None
        if as_stored:
            with self._guard:
                self._shown |= {(plan, backup_id): found.digest for backup_id, found in at_hand.items()}
        backups: list[BackupMetadata] = []
        wrong: dict[str, LastgoodError] = {}
        for backup_id in ids:
            found = read[backup_id]
            if as_stored and isinstance(found, _Manifest):
                backups.append(found.metadata)
                continue
            outcome = self._outcome_settled(found, at_hand)
            if isinstance(outcome, LastgoodError):
                wrong[backup_id] = outcome
            elif outcome is not None:
                backups.append(outcome)
        return in_order(backups), wrong

    def _to_read(self, plan: str, shown: bool) -> tuple[list[str], bool]:
        """Return the ids of the backups to read, sorted, and whether it is known that their manifests are there.

        In a network one listing of all objects is less than a request for each manifest that was read before. Where it
        costs no more than one of folders, who shows backups asks for it, too: a manifest that this machine has a copy
        of may be gone, and the rest of its folder still there, after a removal that was interrupted.
        """
        if not (self._tier.flat or (self._tier.remote and not shown)):
            return self.ids(plan), shown
        prefix, last = names.backups(plan), f"/{names.MANIFEST}"
        listed = (one.name.removeprefix(prefix) for one in self._tier.list(prefix))
        found = (name.removesuffix(last) for name in listed if name.endswith(last))
        return sorted(filter(names.is_backup_id, found)), True

    def _fetched(self, plan: str, backup_id: str, copies: bool) -> bytes | LastgoodError | None:
        """Return the sealed bytes of a manifest, or why they could not be had; None where what is known will do.

        For threads, which only wait for the storage: opening what comes is work for one processor.
        """
        try:
            if self._known_manifest(plan, backup_id, copies):
                return None
            return self._stored(plan, backup_id, names.manifest(plan, backup_id))
        except (BackupNotFound, CorruptionDetected, ObjectUnreadable) as exc:
            return exc

    def _outcome(
        self,
        plan: str,
        backup_id: str,
        listed: bool,
        copies: bool,
        copy: str | None = None,
        fetched: bytes | LastgoodError | None = None,
    ) -> _Manifest | LastgoodError | None:
        """Return the manifest, what is wrong with it, or None where there is none: the backup is not committed."""
        try:
            if isinstance(fetched, LastgoodError):
                raise fetched
            if fetched:
                return self._opened(plan, backup_id, sealed=fetched)
            return self._read(plan, backup_id, listed, copies, copy)
        except BackupNotFound:
            return None
        except (CorruptionDetected, ConfigurationError, ObjectUnreadable) as exc:
            return exc

    def _outcome_settled(
        self, read: _Manifest | LastgoodError | None, at_hand: Mapping[str, _Manifest]
    ) -> BackupMetadata | LastgoodError | None:
        if not isinstance(read, _Manifest):
            return read
        try:
            return self._settled(read, False, at_hand).metadata
        except (CorruptionDetected, ConfigurationError, ObjectUnreadable) as exc:
            return exc

    def _context(self, kind: ObjectKind, plan: str, name: str, version: int = FORMAT_VERSION) -> ObjectContext:
        return ObjectContext(self._keys.repository_id, plan, name, kind, version=version)

    def _check_identity(self, metadata: BackupMetadata, plan: str, backup_id: str, name: str) -> None:
        inside = (metadata.repository_id, metadata.plan, metadata.backup_id)
        if inside != (self._keys.repository_id, plan, backup_id):
            raise CorruptionDetected(f"{name} says that it belongs to {' / '.join(inside)}", hint=_HINT)
