"""Whose damage it is: of all backups of a chain, those that stored what is missing or wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import pyarrow as pa

from blocks.errors import BackupNotFound, ConfigurationError, CorruptionDetected, ObjectUnreadable, UnsupportedState
from blocks.records import BackupMetadata, Collection, Link, Segment
from blocks.repository.block import Repository
from blocks.rows.normalize import from_normal
from blocks.rows.selection import Selection
from flows.pipeline.chain import Chain, RestorePart
from flows.pipeline.messages import Opened
from flows.proving.objects import ObjectReader, objects_to_check
from flows.proving.proof import proved_index

_WRONG = (CorruptionDetected, UnsupportedState)


@dataclass(frozen=True)
class Damage:
    """What is wrong, in a sentence, with what a backup stored."""

    backup_id: str
    sentence: str


class DamageOfChain:
    """What is wrong with the backups of a chain, found out when a part of it, or the chain, cannot be read.

    Args:
        repository: The unlocked repository.
        target: The backup on top.

    Attributes:
        found: What was found so far.
        unread: What could not be read, which says nothing about it, in sentences.
    """

    def __init__(self, repository: Repository, target: BackupMetadata) -> None:
        self._repository, self._target = repository, target
        self._readable: list[BackupMetadata] = []
        self.found: list[Damage] = []
        self.unread: list[str] = []

    def sentences(self, backup_id: str) -> list[str]:
        """Say what is wrong with what a backup stored."""
        return [one.sentence for one in self.found if one.backup_id == backup_id]

    def charge(self, error: CorruptionDetected | UnsupportedState) -> None:
        """Find out whose manifest is to blame where the chain cannot be opened."""
        wrong = [*self._wrong_manifests()]
        self.found += wrong or [Damage(self._target.backup_id, error.message)]
        self._read_objects([self._target, *self._readable])

    def _read_objects(self, backups: Sequence[BackupMetadata]) -> None:
        """Read all objects of some backups, where no rows can be compared."""
        reader = ObjectReader(self._repository, backups, self._repository.missing)
        for one in (one for backup in backups for one in objects_to_check(backup)):
            if wrong := reader.read(one):
                if isinstance(wrong.error, _WRONG):
                    self.found.append(Damage(one.backup.backup_id, wrong.text))
                else:
                    self.unread.append(wrong.text)

    def _wrong_manifests(self) -> Iterator[Damage]:
        for link in self._target.chain:
            if sentence := self._wrong_manifest(link):
                yield Damage(link.backup_id, sentence)

    def _wrong_manifest(self, link: Link) -> str | None:
        try:
            metadata = self._repository.manifest(self._target.plan, link.backup_id)
            found = self._repository.link(metadata)
        except BackupNotFound:
            return f"the manifest of {link.backup_id} is missing"
        except CorruptionDetected as exc:
            return exc.message
        except ObjectUnreadable as exc:
            self.unread.append(exc.message)
            return None
        except ConfigurationError:  # a newer lastgood made it
            return None
        self._readable.append(metadata)
        return None if found == link else f"{link.backup_id} was swapped: its manifest is another one"

    def charge_part(self, part: RestorePart, error: CorruptionDetected | UnsupportedState) -> None:
        """Find out who stored what is wrong with a part: segment by segment, then backup by backup.

        Where each segment is what was stored, and yet does not give the rows of the index, it is the first backup of
        the chain of which that is so.
        """
        wrong = [*self._wrong_segments(part)]
        if not wrong:
            wrong = [*self._wrong_rows(part)] or [Damage(self._target.backup_id, error.message)]
        self.found += wrong

    def _wrong_segments(self, part: RestorePart) -> Iterator[Damage]:
        chain, name, number = part.chain, part.collection.name, part.part.number
        for backup, collection, segment in chain.segments(name, number):
            at = backup, collection, number, segment
            for read in (partial(_read_data, chain, *at), partial(chain.segment_index, *at)):
                try:
                    read()
                except _WRONG as exc:
                    yield Damage(backup.backup_id, exc.message)
                except ObjectUnreadable as exc:
                    self.unread.append(exc.message)

    def _wrong_rows(self, part: RestorePart) -> Iterator[Damage]:
        for below in self._below:
            same = next((one for one in below.parts(Selection()) if str(one) == str(part)), None)
            if same is None:
                return
            try:
                _prove(same)
            except _WRONG as exc:
                yield Damage(below.target.backup_id, exc.message)
                return

    @cached_property
    def _below(self) -> list[Chain]:
        """The backups that the one on top depends on, each opened with what it depends on itself, full first."""
        below = [Chain(self._repository, one) for one in self._repository.chain(self._target)[:-1]]
        for chain in below:
            chain.proving = True
        return below


def _read_data(chain: Chain, backup: BackupMetadata, collection: Collection, part: int, segment: Segment) -> pa.Table:
    return chain.piece(backup, collection, part, segment).open().rows()


def _prove(part: RestorePart) -> None:
    """Do for a part what a verification does, in one call.

    Raises:
        CorruptionDetected: Its rows are not those of its index.
    """
    opened = [piece.open() for piece in part.pieces()]
    part.check_lookups([one for one in opened if isinstance(one, Opened)], part.tables(opened))
    proved_index(part, from_normal(part.merged()))
