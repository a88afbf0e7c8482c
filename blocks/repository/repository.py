"""An opened repository: all that is done with stored backups, each in its own room behind it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import groupby
from typing import TypeVar

from blocks.crypto.keys import Keys
from blocks.errors import (
    BackupNotFound,
    ConfigurationError,
    CorruptionDetected,
    LastgoodError,
    ObjectMissing,
    ObjectUnreadable,
    PlaceMissing,
)
from blocks.host.leftovers import process_name
from blocks.host.threads import WorkerThreads
from blocks.records import (
    BackupMetadata,
    BackupStatus,
    BackupType,
    Blob,
    Expiry,
    Link,
    StoredObject,
    new_backup_id,
)
from blocks.repository import garbage, names
from blocks.repository.audit import Audit, remembered_loss, settled_findings
from blocks.repository.cache import Kind, SealedCache
from blocks.repository.catalogue import READERS, READERS_OF_FOLDERS, Catalogue, Survey
from blocks.repository.checksums import objects_of
from blocks.repository.commit import Committer
from blocks.repository.config import MAX_CONFIG_BYTES, RepositoryConfig, parse_config
from blocks.repository.garbage import GarbageCollector
from blocks.repository.history import History
from blocks.repository.lease import Lease, acquire, break_lease, held
from blocks.repository.leases import Clock, FoundLease, LeaseRecord, Leases
from blocks.repository.lookup import LATEST_VERIFIED, check_wanted, find_backup, find_chain, find_verified
from blocks.repository.newest import Newest, find_newest
from blocks.repository.overview import Overview
from blocks.repository.rollback_guard import PlaceMemory, RollbackGuard, VerificationMemory
from blocks.repository.stock import Stock
from blocks.repository.summaries import BackupSummary, Listing, Shown
from blocks.repository.verdict import Verdict, depending
from blocks.storage.base import StorageTier
from blocks.storage.fsync import Buffer
from blocks.verification import Verification

logger = logging.getLogger(__name__)

E = TypeVar("E")

_DAMAGED = "Restore the object from a copy of the repository, or use a backup that does not depend on it."


class Repository:
    """An opened repository: all that is done with stored backups. Thread-safe; holds keys, so it is never pickled.

    Args:
        tier: The tier that holds the repository's objects.
        config: The parsed lastgood.json.
        keys: Opened with the plan's credential.
        lease_seconds: How long the lease of a run that died holds.
        clock: The time that leases are measured with.
    """

    def __init__(
        self, tier: StorageTier, config: RepositoryConfig, keys: Keys, lease_seconds: float, clock: Clock
    ) -> None:
        self.url = tier.url
        self.config = config
        self.keys = keys
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._tier = tier
        self._cache = SealedCache(config.repository_id) if tier.remote else None
        self._overview = Overview(tier)
        self._catalogue = Catalogue(self._tier, keys, self._cache)
        self._memory = VerificationMemory(config.repository_id)
        self._history = History(self._tier, self._catalogue, self._memory)
        self._guard = RollbackGuard(config.repository_id)
        self._lost: dict[str, str | None] = {}
        self._committer = Committer(self._tier, self._catalogue, self._history, self._guard, self._overview)

    @property
    def repository_id(self) -> str:
        """Id of the repository from lastgood.json."""
        return self.config.repository_id

    def is_there(self) -> bool:
        """Whether lastgood.json is as it was when this was opened: no other repository is there, with no other slots.

        Raises:
            RepositoryUnavailable: It cannot be read.
            CorruptionDetected: It is damaged.
        """
        try:
            return parse_config(self._tier.get(names.CONFIG, limit=MAX_CONFIG_BYTES), self.url) == self.config
        except (ObjectMissing, PlaceMissing):
            return False

    # Making a backup

    @contextmanager
    def lease(
        self,
        plan: str,
        purpose: str,
        wait_seconds: float = 0,
        *,
        holder: str | None = None,
        kind: BackupType | None = None,
    ) -> Iterator[Lease]:
        """Hold the plan's lease; a daemon thread renews it.

        Args:
            plan: Name of the plan.
            purpose: What for, as others are told.
            wait_seconds: How long to wait for another holder.
            holder: Who holds it; this process where nobody is named.
            kind: Of the backup that is to be made: the lease says from the beginning that it works on one, whose id is
                drawn with it, which saves saying so afterwards.

        Raises:
            RepositoryLocked: Another run holds it, also after `wait_seconds`.
        """
        floor = partial(self._highest_committed_token, plan)
        draw = None if kind is None else lambda: new_backup_id(kind, datetime.now(UTC))
        taken = acquire(self._leases(plan), holder or process_name(), purpose, floor, wait_seconds, draw)
        with held(taken) as lease:
            yield lease

    def storage_time(self, lease: Lease) -> datetime | None:
        """Return when a lease was taken, by the clock of the storage; None where that does not tell.

        A local folder has the clock of this machine.
        """
        return lease.made_at

    def newest_event(self, plan: str) -> datetime | None:
        """Return the time of the newest verification or expiry of a plan, by the clock that it was recorded with.

        As of now, or of the time when the lease was taken that is held.
        """
        listing = self._overview.known if self._overview.complete else self._overview.list
        found = [*listing(names.verifications(plan)), *self._overview.known(names.expired(plan))]
        return max((moment for stored in found if (moment := names.moment_of(stored.name))), default=None)

    def current_lease(self, plan: str) -> LeaseRecord | None:
        """Return the lease that is held now, as far as the clock of this host can tell."""
        return self._leases(plan).live()

    def last_lease(self, plan: str) -> FoundLease | None:
        """Return the lease that counts, held or not; None where the plan was never leased."""
        return self._leases(plan).current()

    def break_lease(self, plan: str, found: FoundLease) -> None:
        """Take the lease away from its holder, who commits nothing any more.

        Raises:
            RepositoryLocked: Another run has taken it since it was found; nothing was changed.
        """
        break_lease(self._leases(plan), found, process_name(), partial(self._highest_committed_token, plan))

    def damaged_lease(self, plan: str) -> list[str]:
        """Say that the lease that counts does not open, if it does not."""
        return self._leases(plan).damaged()

    def new_id(self, plan: str, kind: BackupType, moment: datetime) -> str:
        """Draw an id that no folder of the plan has."""
        taken = set(self._catalogue.ids(plan))
        while (drawn := new_backup_id(kind, moment)) in taken:
            logger.debug("the id %s is taken", drawn)
        return drawn

    def stock(self, plan: str, lease: Lease | None = None) -> Stock:
        """Return what is stored of the plan's backups now, by one listing.

        Args:
            plan: Name of the plan.
            lease: Held: then what was listed last is as good, since nobody else has committed or removed anything
                since it was taken.
        """
        return Stock(self._tier, self._tier.list if lease is None else self._overview.known, plan)

    def newest(self, plan: str, stock: Stock, types: Collection[BackupType] = tuple(BackupType)) -> Newest:
        """Find the newest backup of some types without reading all manifests."""
        return find_newest(self._catalogue, stock, plan, types)

    def next_position(self, plan: str, stock: Stock | None = None) -> tuple[int, Link | None]:
        """Return the number of the plan's next backup and the backup before it.

        Numbers of removed and of damaged backups are not given out again, nor that of the newest one that this machine
        has seen where a listing does not show it yet.

        Args:
            plan: Name of the plan.
            stock: What is stored of the plan's backups, as it was listed since the lease is held.
        """
        stock = stock or self.stock(plan)
        newest = self.newest(plan, stock)
        latest = self._unlisted_head(plan, stock) or newest.backup
        number = latest.sequence if latest else 0
        if newest.backup is None or newest.damage or self._expired_since(plan, stock, newest.backup):
            # it may not be the one with the highest number that there ever was
            expired = {link.backup_id for expiry in self.expiries(plan) for link in expiry.removed}
            number = max(number, len({*stock.committed, *expired}))
        return number + 1, self._catalogue.link_of(latest) if latest else None

    def _expired_since(self, plan: str, stock: Stock, newest: BackupMetadata) -> bool:
        """Whether retention may have removed a backup that was committed after this one: by the storage's own times."""
        committed = stock.committed_at(newest.backup_id)
        try:
            expired = self._overview.known(names.expired(plan))
        except ObjectUnreadable:
            return True
        return committed is None or any(one.modified_at >= committed for one in expired)

    def _unlisted_head(self, plan: str, stock: Stock) -> BackupMetadata | None:
        """Return the newest backup that this machine has seen, where it is there and a listing does not show it."""
        head = self._guard.read(plan)
        if head is None or head.link.backup_id in stock.committed:
            return None
        try:
            found, digest = self._catalogue.manifest(plan, head.link.backup_id)
        except (BackupNotFound, CorruptionDetected, ConfigurationError, ObjectUnreadable) as exc:
            logger.debug("%s is not listed, and not there: %s", head.link.backup_id, exc)
            return None
        return found if digest == head.link.manifest_sha256 else None

    def put_object(self, plan: str, backup_id: str, name: str, sealed: Buffer) -> StoredObject:
        """Store a sealed object durably; the same bytes may be stored again.

        Raises:
            AlreadyExists: Other bytes are stored under that name; stored objects never change.
            RepositoryUnavailable: The storage failed.
        """
        stored = StoredObject(name=name, size_bytes=len(sealed), sha256=hashlib.sha256(sealed).hexdigest())
        self._tier.put(names.stored(plan, backup_id, name), sealed, exclusive=True)
        return stored

    def discard_objects(self, plan: str, backup_id: str, stored: Sequence[str]) -> None:
        """Remove objects of a backup that is not committed, by the names that `put_object` was given.

        Raises:
            RepositoryUnavailable: The storage failed.
        """
        self._tier.remove([names.stored(plan, backup_id, name) for name in stored])

    def commit(self, metadata: BackupMetadata, objects: Sequence[StoredObject], lease: Lease) -> Link:
        """Make a backup exist: write SHA256SUMS, then create the manifest. May be retried.

        Raises:
            RepositoryLocked: The lease is lost; nothing was committed.
            CorruptionDetected: An object of the backup is not there.
        """
        link = self._committer.commit(metadata, objects, lease)
        PlaceMemory(self._tier.place).remember(self.repository_id)
        return link

    # Reading backups

    def manifest(self, plan: str, backup_id: str) -> BackupMetadata:
        """Return the manifest of a backup.

        Raises:
            BackupNotFound: There is no committed backup of that id.
            CorruptionDetected: Its manifest is damaged, or belongs elsewhere, or that of a base is.
            ConfigurationError: A newer lastgood made it.
        """
        found = self._catalogue.manifest(plan, backup_id)[0]
        if found.inherits:
            self._catalogue.forget(plan)
            found = self._catalogue.manifest(plan, backup_id)[0]
            find_chain(self._catalogue, found)
        return found

    def link(self, metadata: BackupMetadata) -> Link:
        """Name a backup together with the SHA-256 of its sealed manifest; it is looked for in the repository."""
        return self._catalogue.link(metadata.plan, metadata.backup_id)

    def link_of(self, metadata: BackupMetadata) -> Link:
        """Name a backup whose manifest was read before, without looking for it again."""
        return self._catalogue.link_of(metadata)

    def backups(self, plan: str) -> list[BackupMetadata]:
        """Return the committed backups in the order of their commits; raises what `manifest` raises."""
        return self._catalogue.backups(plan)

    def survey(self, plan: str, *, shown: bool = False) -> Survey:
        """Return the committed backups, and findings about those whose manifests do not open.

        Args:
            plan: Name of the plan.
            shown: It is only shown to a person: then this machine's copies of manifests will do.
        """
        return self._catalogue.survey(plan, shown=shown)

    def listing(self, plan: str) -> Listing:
        """Return what a list shows of the committed backups, to a person only: what this machine keeps will do."""
        return self._catalogue.listing(plan)

    def find(self, plan: str, wanted: str = "latest", at: datetime | None = None) -> BackupMetadata:
        """Find a backup by id, by the unique beginning or end of an id, by `latest`, or the newest as of a time.

        `latest verified` is the newest one (as of the time) that was really restored and found good.

        Raises:
            BackupNotFound: There is none; the hint says what there is.
            CorruptionDetected: It, or a newer one that may be meant, is damaged.
        """
        self.noticed_rollback(plan)
        if wanted == LATEST_VERIFIED:
            check_wanted(wanted, at)
            return find_verified(self._catalogue, plan, at, partial(self.verdicts, plan))
        return find_backup(self._catalogue, plan, wanted, at)

    def chain(
        self, metadata: BackupMetadata, *, copies: bool = False, stock: Stock | None = None
    ) -> list[BackupMetadata]:
        """Return the backups that a restore needs, full first, this one last.

        Args:
            metadata: The backup on top.
            copies: This machine's copies will do for those below, which are named by SHA-256: for who asks the storage
                by a listing whether they are there.
            stock: As it was just listed: manifests in it, that were read before, are not looked for again.

        Raises:
            CorruptionDetected: One is missing, damaged, or not the one that this backup was made on.
        """
        return find_chain(self._catalogue, metadata, copies, stock)

    def get_object(self, plan: str, backup_id: str, stored: StoredObject) -> bytes:
        """Read a sealed object and compare its size and checksum.

        Raises:
            CorruptionDetected: It is missing, cut off or changed.
            ObjectUnreadable: It cannot be read.
        """
        name = names.stored(plan, backup_id, stored.name)
        sealed = self._read(name, 0, stored.size_bytes + 1)
        if len(sealed) != stored.size_bytes:
            wrong = f"has {self._size(name)} bytes instead of {stored.size_bytes}"
        elif hashlib.sha256(sealed).hexdigest() != stored.sha256:
            wrong = "was changed: its SHA-256 is not that of the manifest"
        else:
            return sealed
        raise CorruptionDetected(f"{name} {wrong}", hint=_DAMAGED)

    def get_blob(self, plan: str, backup_id: str, blob: Blob) -> bytes:
        """Read a sealed blob and compare its checksum.

        Raises:
            CorruptionDetected: It is missing, cut off or changed.
            ObjectUnreadable: It cannot be read.
        """
        if blob.number is None:
            return self.get_object(plan, backup_id, blob)
        sealed = self.read_range(plan, backup_id, blob.name, blob.offset, blob.size_bytes)
        if hashlib.sha256(sealed).hexdigest() != blob.sha256:
            place = (
                f"{names.stored(plan, backup_id, blob.name)}, bytes {blob.offset} to {blob.offset + blob.size_bytes}"
            )
            raise CorruptionDetected(f"{place}: changed: the SHA-256 is not that of the manifest", hint=_DAMAGED)
        return sealed

    def get_index(self, plan: str, backup_id: str, blob: Blob) -> bytes:
        """Read a sealed index; this machine's copy of these bytes will do, where no manifest is proved by them.

        Raises:
            CorruptionDetected: It is missing, cut off or changed.
            ObjectUnreadable: It cannot be read.
        """
        if self._cache is None:
            return self.get_blob(plan, backup_id, blob)
        if (copied := self._cache.get(plan, backup_id, Kind.INDEX, blob.sha256)) is not None:
            return copied
        sealed = self.get_blob(plan, backup_id, blob)
        self._cache.put(plan, backup_id, Kind.INDEX, sealed)
        return sealed

    def keep_index(self, plan: str, backup_id: str, sealed: Buffer) -> None:
        """Keep a copy of an index that was just stored, for the next backup, where the storage is in a network."""
        if self._cache is not None:
            self._cache.put(plan, backup_id, Kind.INDEX, bytes(sealed))

    def read_range(self, plan: str, backup_id: str, name: str, offset: int, length: int) -> bytes:
        """Read bytes of a sealed object; `unseal_range` authenticates them.

        Raises:
            CorruptionDetected: The object is missing, or ends before.
        """
        path = names.stored(plan, backup_id, name)
        data = self._read(path, offset, length)
        if len(data) != length:
            raise CorruptionDetected(f"{path} ends after {offset + len(data)} bytes: it was cut off", hint=_DAMAGED)
        return data

    def missing(self, metadata: BackupMetadata, stock: Stock | None = None) -> list[str]:
        """Return the names of the backup's objects that are absent or of another size, now or as they were listed."""
        if stock is not None:
            return stock.missing(metadata.backup_id, objects_of(metadata))
        return self._committer.missing(metadata.plan, metadata.backup_id, objects_of(metadata))

    def unreadable(self, metadata: BackupMetadata, name: str) -> str | None:
        """Say that something is in the place of an object of a backup that cannot be read, if it is."""
        try:
            self._tier.get(names.stored(metadata.plan, metadata.backup_id, name), 0, 1)
        except ObjectUnreadable as exc:
            return exc.message
        except ObjectMissing:
            return None
        return None

    # What is known about them

    def verdict(self, metadata: BackupMetadata) -> Verdict:
        """Return what is known of a backup: by its own verifications, and by those of the backups it depends on."""
        if not metadata.chain:
            return self.own_verdict(metadata.plan, self.link_of(metadata))
        return self.verdicts(metadata.plan, [metadata])[metadata.backup_id]

    def own_verdict(self, plan: str, link: Link, stock: Stock | None = None) -> Verdict:
        """Return what its own verifications say of a backup, whatever is known of those it depends on.

        Args:
            plan: Name of the plan.
            link: The backup.
            stock: Where many are asked about: it lists the verifications of all of them at once.
        """
        return self._history.verdict(plan, link, self._recorded(link.backup_id, stock))

    def own_verdicts(self, plan: str, links: Iterable[Link]) -> dict[Link, Verdict]:
        """Return what `own_verdict` does of many backups, with one listing for all of them."""
        return self._own_verdicts(plan, links, self._recorded_of_all(plan))

    def _recorded_of_all(self, plan: str) -> Mapping[str, list[str]] | None:
        """Return the names of a plan's verifications by backup; None where they cannot be listed together."""
        try:
            return self._history.recorded(plan)
        except ObjectUnreadable:
            return None

    def _own_verdicts(
        self, plan: str, links: Iterable[Link], recorded: Mapping[str, list[str]] | None
    ) -> dict[Link, Verdict]:
        found = dict.fromkeys(links, Verdict())
        listed: list[tuple[Link, list[str] | None]]
        if recorded is None:
            listed = [(link, None) for link in found]
        else:
            listed = [(link, recorded[link.backup_id]) for link in found if link.backup_id in recorded]
        with self._readers() as pool:
            read = pool.map(lambda one: self._history.verdict(plan, *one), listed)
            return found | dict(zip((link for link, _ in listed), read, strict=True))

    def verdicts(self, plan: str, backups: Sequence[Shown]) -> dict[str, Verdict]:
        """Return what `verdict` does of many backups, by their ids, with one listing for all of them."""
        recorded = self._recorded_of_all(plan)
        known = backups if recorded is None else [one for one in backups if _is_told_of(one, recorded)]
        links = {one.backup_id: one.link if isinstance(one, BackupSummary) else self.link_of(one) for one in known}
        chains = {one.backup_id: one.chain for one in known}
        own = self._own_verdicts(
            plan, {*links.values(), *(link for bases in chains.values() for link in bases)}, recorded
        )
        found = dict.fromkeys((one.backup_id for one in backups), Verdict())
        return found | {
            one: depending(own[link], [(base.backup_id, own[base]) for base in chains[one]])
            for one, link in links.items()
        }

    def status(self, metadata: BackupMetadata) -> BackupStatus:
        """Return what is known of a backup in one word; completed where it is not known."""
        return self.verdict(metadata).shown_status

    def statuses(self, plan: str, backups: Sequence[BackupMetadata]) -> dict[str, BackupStatus]:
        """Return what `status` does of many backups, by their ids, with one listing for all of them."""
        return {backup_id: verdict.shown_status for backup_id, verdict in self.verdicts(plan, backups).items()}

    def _recorded(self, backup_id: str, stock: Stock | None) -> list[str] | None:
        try:
            return None if stock is None else stock.verifications(backup_id)
        except ObjectUnreadable:
            return None  # those of this one may be listed all the same

    def rolled_back(self, plan: str) -> str | None:
        """Return a sentence that the newest backup that this machine has seen is gone without a record, if it is."""
        return remembered_loss(self._catalogue, self._history, self._guard, plan)

    def noticed_rollback(self, plan: str) -> str | None:
        """Return what `rolled_back` does, as of when this opened repository was first asked for a backup or for this.

        One command looks for backups several times: it is logged once.
        """
        if plan not in self._lost:
            self._lost[plan] = self.rolled_back(plan)
            if lost := self._lost[plan]:
                logger.warning("%s; `lastgood check` reports more", lost)
        return self._lost[plan]

    def record_verification(self, verification: Verification) -> Verification:
        """Append the result of a verification; return it as it was recorded, as `History.record_verification` does."""
        self._overview.forget()
        return self._history.record_verification(verification)

    def verifications(self, plan: str, backup_id: str) -> list[Verification]:
        """Return a backup's verifications, oldest first; `audit` names those that do not open."""
        return _noted(self._history.verifications(plan, backup_id))

    def all_verifications(self, plan: str, most: int | None = None) -> list[Verification]:
        """Return the verifications of a plan's backups, or the newest of them, in any order, by one listing.

        Args:
            plan: Name of the plan.
            most: So many at most; None for all.
        """
        try:
            listed = self._history.recorded(plan)
        except ObjectUnreadable:
            return []
        told = [
            (moment, name, one) for one, told in listed.items() for name in told if (moment := names.moment_of(name))
        ]
        newest = sorted(told, reverse=True)[:most]
        with self._readers() as pool:
            found = pool.map(lambda one: _noted(self._history.verifications(plan, one[2], [one[1]])), newest)
            return [record for records in found for record in records]

    def newest_verifications(self, plan: str, most: int, until: str) -> list[Verification]:
        """Return the verifications of a plan's newest backups, by one listing; those of one backup stay together.

        Args:
            plan: Name of the plan.
            most: How many are read: the newest of the newest backups.
            until: Id of a backup: those that were made after it are left out.

        Raises:
            ObjectUnreadable: They cannot be listed.
        """
        recorded = self._history.recorded(plan)
        chosen: dict[str, list[str]] = {}
        for backup_id in sorted(filter(names.is_backup_id, recorded), key=names.id_moment, reverse=True):
            if names.id_moment(backup_id) <= names.id_moment(until) and most:
                chosen[backup_id] = recorded[backup_id][-most:]
                most -= len(chosen[backup_id])
        with self._readers() as pool:
            found = pool.map(lambda one: self._history.verifications(plan, one, chosen[one]), chosen)
            return [verification for each in found for verification in _noted(each)]

    def record_expiry(self, expiry: Expiry) -> None:
        """Append what a retention run is about to remove; call it before `remove`."""
        self._overview.forget()
        self._history.record_expiry(expiry)

    def expiries(self, plan: str) -> list[Expiry]:
        """Return a plan's expiries, oldest first; `audit` names those that do not open."""
        return _noted(self._history.expiries(plan))

    def audit(self, plan: str) -> list[str]:
        """Check that the history of a plan adds up; return findings, each a sentence that names the backup.

        What runs beside it causes none: it looks again before it believes what it found.
        """
        PlaceMemory(self._tier.place).remember(self.repository_id)
        return settled_findings(lambda: self._audit(plan).run() + self.damaged_lease(plan))

    def _audit(self, plan: str) -> Audit:
        return Audit(self._tier, self._catalogue, self._history, self._guard, self._memory, plan)

    def repair_checksums(self, metadata: BackupMetadata) -> bool:
        """Write a committed backup's SHA256SUMS again where it is missing or damaged; return whether it was."""
        return self._committer.repair_checksums(metadata, self.link(metadata))

    def accept_head(self, plan: str) -> None:
        """Take what there is as the newest that this machine has seen, after a rollback on purpose."""
        audit = self._audit(plan)
        audit.accept()
        audit.accept_verifications()

    # Removing

    def remove(self, plan: str, ids: Sequence[str]) -> None:
        """Remove backups, manifests first; record the expiry before.

        Raises:
            Partial: Some objects could not be removed.
        """
        self._overview.forget()
        garbage.remove_backups(self._tier, plan, ids)

    def abandoned(self, plan: str) -> list[str]:
        """Return the ids of unfinished backups that no live lease is working on."""
        return self._garbage_collector(plan).abandoned()

    def collect_garbage(self, plan: str, grace: timedelta, now: datetime) -> list[str]:
        """Remove what interrupted runs left behind longer ago than `grace`; return the names of the removed objects."""
        return self._garbage_collector(plan).collect_garbage(grace, now)

    def make_room(self, plan: str, grace: timedelta, now: datetime) -> list[str]:
        """Remove what interrupted runs left behind, also without the lease; never what a running one is making."""
        return self._garbage_collector(plan).make_room(grace, now)

    def remove_checksums(self, plan: str, backup_id: str) -> None:
        """Remove a backup's SHA256SUMS, which `repair_checksums` makes again, to free room where none is left."""
        self._tier.remove([names.checksums(plan, backup_id)])

    def _garbage_collector(self, plan: str) -> GarbageCollector:
        survey = self._catalogue.survey(plan)
        named = {link.backup_id for one in survey.backups for link in (*one.chain, one.previous) if link is not None}
        if head := self._guard.read(plan):
            named.add(head.link.backup_id)
        gone = {link.backup_id for expiry in self._history.expiries(plan)[0] for link in expiry.removed}
        return GarbageCollector(self._tier, self._leases(plan), named - gone)

    def _leases(self, plan: str) -> Leases:
        return Leases(self._tier, plan, self._lease_seconds, self._clock, self._overview.list)

    def _highest_committed_token(self, plan: str) -> int:
        """Return the fencing token of the newest backup that can be read: a floor where the leases were lost."""
        newest_first = sorted(self._catalogue.ids(plan), key=names.id_moment, reverse=True)
        for _, ids in groupby(newest_first, key=names.id_moment):
            # several backups of one second: their ids do not say which came last
            if tokens := [token for backup_id in ids if (token := self._token_of(plan, backup_id))]:
                return max(tokens)
        return 0

    def _token_of(self, plan: str, backup_id: str) -> int | None:
        try:
            return self._catalogue.manifest(plan, backup_id)[0].fencing_token
        except (BackupNotFound, CorruptionDetected, ConfigurationError, ObjectUnreadable) as exc:
            logger.debug("%s gives no token: %s", backup_id, exc)
            return None

    def _readers(self) -> WorkerThreads:
        return WorkerThreads(READERS if self._tier.remote else READERS_OF_FOLDERS)

    def _size(self, name: str) -> int | str:
        try:
            return self._tier.size(name)
        except LastgoodError:
            return "other"

    def _read(self, name: str, offset: int, length: int | None) -> bytes:
        try:
            return self._tier.get(name, offset, length)
        except ObjectMissing as exc:
            raise CorruptionDetected(f"{name} is missing", hint=_DAMAGED) from exc


def _is_told_of(backup: Shown, recorded: Mapping[str, list[str]]) -> bool:
    """Whether a verification may say something of a backup: it is of itself, or of one that it depends on."""
    return backup.backup_id in recorded or not recorded.keys().isdisjoint(backup.chain_ids)


def _noted(found: tuple[list[E], list[str]]) -> list[E]:
    for finding in found[1]:
        logger.warning("%s", finding)
    return found[0]
