"""What is interrupted, and what must be true whenever that happened."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

import pytest

from blocks.errors import RepositoryLocked
from blocks.plan.plan import BackupPlan
from blocks.records import BackupMetadata, BackupStatus, BackupType
from blocks.repository.checksums import objects_of
from blocks.repository.repository import Repository
from blocks.storage.local import LocalTier
from flows.backup import make_backup
from flows.pipeline import packs
from flows.retention import apply_retention
from flows.stages import compress
from flows.verify import make_verification
from tests.faults.killing import at_durable_operations
from tests.faults.live_state import PLAN, LiveState, Oracle, make_key, make_plan, restored

DAY = timedelta(days=1)
LONG_AFTER = timedelta(days=100)


@dataclass(frozen=True)
class Case:
    """One interruption: the `number`-th state of the disk around durable operations, from 1."""

    scenario: str
    seed: Path
    folder: Path
    number: int

    @classmethod
    def from_json(cls, line: str) -> Self:
        raw = json.loads(line)
        return cls(**raw | {"seed": Path(raw["seed"]), "folder": Path(raw["folder"])})

    def to_json(self) -> str:
        return json.dumps(asdict(self), default=str)

    def plan(self, later: bool = False) -> BackupPlan:
        """The live state is that of the seed, which no case changes; the repository is the case's own."""
        return make_plan(LiveState(self.seed), self.folder / "repository", self.seed / "key", later=later)

    def as_in_seed(self, backup: BackupMetadata) -> bool:
        """Return whether all files that a restore of a backup reads are byte for byte those of the seed."""
        ids = [backup.backup_id, *(link.backup_id for link in backup.chain)]
        names = ["lastgood.json", *(f"backups/{PLAN}/{backup_id}" for backup_id in ids)]
        return all(files_of(self.seed / "repository" / n) == files_of(self.folder / "repository" / n) for n in names)

    @property
    def oracles(self) -> dict[str, Oracle]:
        loaded: dict[str, Oracle] = pickle.loads((self.seed / "oracles").read_bytes())
        return loaded


@dataclass(frozen=True)
class Scenario:
    """What is done before any interruption, what is interrupted, and who looks at it afterwards."""

    prepare: Callable[[Path], None]
    doing: Callable[[Case], object]
    witness: Callable[[Case], None]


def prepared(seed: Path, *kinds: BackupType) -> dict[str, Oracle]:
    """Make a repository with one backup of each kind, and a changed live state after each; keep the oracles."""
    (seed / "state").mkdir(parents=True)
    state = LiveState(seed)
    state.create()
    plan = make_plan(state, seed / "repository", make_key(seed / "key"))
    plan.repository.initialize(plan.encryption)
    oracles = {}
    for step, kind in enumerate(kinds, 1):
        made = make_backup(plan, kind)
        oracles[made.backup_id] = state.oracle()
        assert restored(plan, made.backup_id, seed / f"restored {step}") == state.oracle()
        state.change(step)
    oracles["now"] = state.oracle()
    (seed / "oracles").write_bytes(pickle.dumps(oracles))
    return oracles


FULL, INCREMENTAL, DIFFERENTIAL = BackupType.FULL, BackupType.INCREMENTAL, BackupType.DIFFERENTIAL


def prepare_retention(seed: Path) -> None:
    """Two chains of which the older one expires, verifications of both, and an unfinished backup to collect."""
    oracles = prepared(seed, FULL, INCREMENTAL, FULL, INCREMENTAL)
    plan = make_plan(LiveState(seed), seed / "repository", seed / "key")
    for backup_id in list(oracles)[1:4:2]:
        make_verification(plan, backup_id, deep=False)
    unfinished = seed / "repository" / "backups" / PLAN / "INC_20200101_000000_abcd"
    unfinished.mkdir()
    (unfinished / "00000.pack").write_bytes(b"begun")


def check_all(case: Case, repository: Repository, known: dict[str, Oracle]) -> None:
    """Every committed backup restores bit for bit; one that is not among the known ones holds the state of now."""
    survey = repository.survey(PLAN)
    assert survey.findings == []
    for backup in survey.backups:
        assert repository.missing(backup) == []
        if backup.backup_id in known and case.as_in_seed(backup):
            continue  # the seed's bytes, of which `prepared` has seen that they restore
        wanted = known.get(backup.backup_id, known["now"])
        found = restored(case.plan(), backup.backup_id, case.folder / f"restored {backup.backup_id}")
        assert found == wanted, f"{backup.backup_id} came back otherwise"


def check_lease(case: Case) -> None:
    """What died holds its lease until that has expired, and not longer."""
    repository = case.plan().repository.unlock(case.plan().encryption)
    if repository.current_lease(PLAN) is not None:
        with pytest.raises(RepositoryLocked), repository.lease(PLAN, "test", holder="next"):
            pass
    later = case.plan(later=True)
    assert later.repository.unlock(later.encryption).current_lease(PLAN) is None


def files_of(folder: Path) -> dict[str, bytes]:
    paths = [folder] if folder.is_file() else [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def check_sweep(case: Case, plan: BackupPlan, repository: Repository) -> None:
    """Within the grace time nothing goes; after it what was left behind, and only that."""
    root = case.folder / "repository"
    before = files_of(root)
    now = datetime.now(UTC)
    assert [name for name in repository.collect_garbage(PLAN, DAY, now) if not name.startswith("locks/")] == []
    # a second run: what lay beside a folder is found once the folder itself is gone
    swept = {name for _ in range(2) for name in repository.collect_garbage(PLAN, DAY, now + DAY * 2)}
    committed = {backup.backup_id: backup for backup in repository.backups(PLAN)}
    wanted = {f"backups/{PLAN}/{i}/{o.name}" for i, backup in committed.items() for o in objects_of(backup)}
    wanted |= {f"backups/{PLAN}/{i}/{name}" for i in committed for name in ("manifest", "SHA256SUMS")}
    after = files_of(root)
    assert {name for name in after if name.startswith("backups/")} == wanted
    assert all(after[name] == before[name] for name in wanted)
    assert not swept & wanted
    tier = LocalTier(plan.repository.url)
    assert tier.leftovers() == []
    assert len(tier.list(f"locks/{PLAN}/")) == 1
    verified = {name.split("/")[2] for name in after if name.startswith("verifications/")}
    assert verified <= committed.keys()
    assert {name for name in before if name.startswith("expired/") and ".tmp" not in name} <= after.keys()


def check_after_backup(case: Case) -> None:
    """Look as a process that comes later: what there is, the next backup, garbage collection."""
    known = case.oracles
    plan = case.plan()
    repository = plan.repository.unlock(plan.encryption)
    committed = {backup.backup_id for backup in repository.backups(PLAN)}
    assert known.keys() - {"now"} <= committed
    assert len(committed) <= len(known), "more than the one backup that was being made"
    folders = {path.name for path in (case.folder / "repository" / "backups" / PLAN).glob("*")}
    check_all(case, repository, known)
    assert repository.audit(PLAN) == []
    check_lease(case)

    later = case.plan(later=True)
    repository = later.repository.unlock(later.encryption)
    assert set(repository.abandoned(PLAN)) == folders - committed
    following = make_backup(later, BackupType.INCREMENTAL)
    assert following.backup_id not in folders
    assert (following.promoted_because is None) is bool(committed)
    assert {link.backup_id for link in following.chain} <= committed
    assert restored(later, following.backup_id, case.folder / "next") == known["now"]
    assert repository.audit(PLAN) == []
    check_sweep(case, later, repository)
    assert repository.audit(PLAN) == []


def retain(case: Case) -> object:
    at_durable_operations(case.folder, case.number)
    return apply_retention(case.plan(), now=datetime.now(UTC) + LONG_AFTER, accept_clock=True)


def check_after_retention(case: Case) -> None:
    """Every backup that is left restores, and what is gone is explained; the next run comes to the end."""
    known = case.oracles
    kept = set(list(known)[2:4])
    plan = case.plan()
    repository = plan.repository.unlock(plan.encryption)
    committed = {backup.backup_id for backup in repository.backups(PLAN)}
    assert kept <= committed <= known.keys()
    check_all(case, repository, known)
    assert repository.audit(PLAN) == []
    assert all(repository.chain(backup) for backup in repository.backups(PLAN))
    check_lease(case)

    later = case.plan(later=True)
    apply_retention(later, now=datetime.now(UTC) + LONG_AFTER, accept_clock=True)
    repository = later.repository.unlock(later.encryption)
    assert {backup.backup_id for backup in repository.backups(PLAN)} == kept
    assert repository.audit(PLAN) == []
    check_sweep(case, later, repository)
    following = make_backup(later, BackupType.INCREMENTAL)
    assert following.promoted_because is None
    check_all(case, repository, known)
    assert repository.audit(PLAN) == []


def verify(case: Case) -> object:
    at_durable_operations(case.folder, case.number)
    return make_verification(case.plan(), list(case.oracles)[-2], deep=False)


def check_after_verification(case: Case) -> None:
    """The result is recorded or it is not, and the next verification is."""
    plan = case.plan()
    repository = plan.repository.unlock(plan.encryption)
    backup = repository.find(PLAN)
    assert repository.status(backup) in (BackupStatus.COMPLETED, BackupStatus.VERIFIED)
    assert len(repository.verifications(PLAN, backup.backup_id)) <= 1
    assert repository.audit(PLAN) == []
    assert make_verification(plan, backup.backup_id).findings == ()
    assert repository.status(backup) is BackupStatus.VERIFIED
    check_all(case, repository, case.oracles)
    check_sweep(case, plan, repository)


def many_packs(patch: pytest.MonkeyPatch) -> None:
    """Let each part have blobs of its own, and each blob a pack, as in a backup that is large."""
    patch.setattr(compress, "SMALL_BYTES", 0)
    patch.setattr(packs, "PACK_BYTES", 1)


def _backup(kind: BackupType, *before: BackupType, several: bool = False) -> Scenario:
    def prepare(seed: Path) -> None:
        prepared(seed, *before)

    def doing(case: Case) -> object:
        if several:
            many_packs(pytest.MonkeyPatch())  # this process dies, or ends
        at_durable_operations(case.folder, case.number)
        return make_backup(case.plan(), kind)

    return Scenario(prepare, doing, check_after_backup)


def _prepare_verification(seed: Path) -> None:
    prepared(seed, BackupType.FULL)


def _prepare_retention_of_many_packs(seed: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        many_packs(patch)
        prepare_retention(seed)


SCENARIOS = {
    "the first full backup": _backup(FULL),
    "a differential backup": _backup(DIFFERENTIAL, FULL, INCREMENTAL),
    "a full backup of several packs": _backup(FULL, several=True),
    "an incremental backup of several packs": _backup(INCREMENTAL, FULL, several=True),
    "a retention run": Scenario(prepare_retention, retain, check_after_retention),
    "a retention run over several packs": Scenario(_prepare_retention_of_many_packs, retain, check_after_retention),
    "a verification": Scenario(_prepare_verification, verify, check_after_verification),
}
