"""A repository with a little history and all that lies around it, which an attack must not touch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from blocks.crypto.keyring import Credential, Role
from blocks.crypto.repository_keys import add_slot
from blocks.plan.plan import BackupPlan
from blocks.records import BackupMetadata, BackupType
from flows.backup import make_backup
from tests.faults.crash_scenarios import files_of
from tests.faults.forging import unlocked
from tests.faults.live_state import LiveState, Oracle, make_key, make_plan


@dataclass
class Place:
    """A repository with a full and an incremental backup, and all that lies around it."""

    folder: Path
    plan: BackupPlan
    full: BackupMetadata
    incremental: BackupMetadata
    oracle: Oracle

    @property
    def root(self) -> Path:
        return self.folder / "repository"

    def with_key(self, key: Path) -> BackupPlan:
        return make_plan(LiveState(self.folder), self.root, key)

    def around(self) -> dict[str, bytes]:
        """Everything that no restore to `target` may touch; the journal tells of the restore itself."""
        written = ("target/", "state/lastgood/journal/")
        return {name: data for name, data in files_of(self.folder).items() if not name.startswith(written)}


def make_place(folder: Path) -> Place:
    state = LiveState(folder, rows=30)
    state.create()
    plan = make_plan(state, folder / "repository", make_key(folder / "key"))
    plan.repository.initialize(plan.encryption)
    full = make_backup(plan, BackupType.FULL)
    state.change(1)
    return Place(folder, plan, full, make_backup(plan, BackupType.INCREMENTAL), state.oracle())


def writer_of(place: Place) -> BackupPlan:
    key = make_key(place.folder / "writer")
    encryption = place.plan.repository.read_config().encryption
    changed = add_slot(encryption, unlocked(place.plan).keys, Credential(key_file=key), Role.WRITER, "worker")
    place.plan.repository.save_encryption(changed)
    return place.with_key(key)
