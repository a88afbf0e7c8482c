"""A repository with a history, on an S3 server or in a folder: copies of it, and what must be true of one later."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import obstore
from obstore.store import S3Store

from blocks.plan.plan import BackupPlan
from blocks.records import BackupMetadata, BackupStatus, BackupType
from blocks.repository.block import BackupRepository
from blocks.repository.capabilities import Capabilities
from blocks.storage import kinds
from blocks.storage.settings import StorageSettings
from flows.backup import make_backup
from flows.check import check_repository
from flows.retention import apply_retention
from flows.verify import make_verification
from tests.faults.crash_scenarios import files_of
from tests.faults.live_state import PLAN, LaterRepository, LiveState, Oracle, make_key, make_plan, restored
from tests.object_servers import KEY_ID, SECRET, Seaweed

_NEVER_RIGHT = ("gone", "not follow", "swapped", "rolled back")
"""In findings that no bytes which were read otherwise can lead to later."""
LONG_AFTER = timedelta(days=100)
FULL, INCREMENTAL = BackupType.FULL, BackupType.INCREMENTAL


class _Witnessed(LaterRepository):
    """Looked at when a case is over: what a fault does to the proof of a storage is a case of its own.

    Of writers that race for one object SeaweedFS lets some wait for whole seconds.
    """

    _block_type_name = "Witnessed Repository"
    _block_type_slug = "witnessed-repository"

    def prove(self) -> Capabilities:
        proved = self.read_config().capabilities
        assert proved is not None
        return proved


@dataclass(frozen=True)
class Folder:
    """A folder with repositories, without lastgood."""

    root: Path
    settings: StorageSettings = field(default_factory=StorageSettings)

    def url(self, prefix: str) -> str:
        return str(self.root / prefix)

    def objects(self, prefix: str) -> dict[str, bytes]:
        """Return all objects below a prefix, by their names without it."""
        return files_of(self.root / prefix)

    def put(self, prefix: str, objects: Mapping[str, bytes]) -> None:
        for name, data in objects.items():
            path = self.root / prefix / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def clear(self, prefix: str) -> None:
        shutil.rmtree(self.root / prefix)


@dataclass(frozen=True)
class Bucket:
    """A bucket of a server, without lastgood and without the proxy."""

    endpoint: str
    name: str
    settings: StorageSettings

    @classmethod
    def of(cls, server: Seaweed) -> Bucket:
        """Make a new one; plans reach it by the server's settings."""
        return cls(server.endpoint, server.bucket(), server.settings)

    def url(self, prefix: str) -> str:
        return f"s3://{self.name}/{prefix}"

    @property
    def store(self) -> S3Store:
        return S3Store(
            self.name, endpoint=self.endpoint, region="us-east-1", access_key_id=KEY_ID,
            secret_access_key=SECRET, client_options={"allow_http": True},
        )  # fmt: skip

    def objects(self, prefix: str) -> dict[str, bytes]:
        """Return all objects below a prefix, by their names without it."""
        store = self.store
        listed = [one["path"] for page in obstore.list(store, prefix) for one in page]
        return {name.removeprefix(f"{prefix}/"): bytes(obstore.get(store, name).bytes()) for name in listed}

    def put(self, prefix: str, objects: Mapping[str, bytes]) -> None:
        store = self.store
        for name, data in objects.items():
            obstore.put(store, f"{prefix}/{name}", data, use_multipart=False)

    def clear(self, prefix: str) -> None:
        store = self.store
        names = [one["path"] for page in obstore.list(store, prefix) for one in page]
        if names:
            obstore.delete(store, names)


class History:
    """A full and an incremental, again a full and an incremental that is verified; then the live state changes.

    Args:
        place: Holds the repository; credentials of a server are in the environment.
        folder: An empty one, for the live state and what this machine remembers.
        endpoint: How plans reach a server, where that is by a proxy.
    """

    def __init__(self, place: Bucket | Folder, folder: Path, endpoint: str | None = None) -> None:
        self.folder, self.endpoint = folder, endpoint
        self.place = place
        self._copies = 0
        folder.mkdir(parents=True, exist_ok=True)
        self.key = make_key(folder / "key")
        self.state = LiveState(folder, rows=30, file_bytes=1500)
        self.state.create()
        os.environ["XDG_STATE_HOME"] = str(folder / "state")
        plan = self.plan("seed")
        plan.repository.initialize(plan.encryption)
        self.oracles: dict[str, Oracle] = {}
        self.made: list[BackupMetadata] = []
        for step, kind in enumerate((FULL, INCREMENTAL, FULL, INCREMENTAL), 1):
            made = make_backup(plan, kind)
            assert made.promoted_because is None
            self.made.append(made)
            self.oracles[made.backup_id] = self.state.oracle()
            if step == 3:
                self.before_last = self.place.objects("seed")
            self.state.change(step)
        assert make_verification(plan, deep=False).status is BackupStatus.VERIFIED
        self.now = self.state.oracle()
        self.objects = self.place.objects("seed")

    @property
    def kept(self) -> set[str]:
        """What retention keeps, long afterwards."""
        return set(list(self.oracles)[2:])

    def plan(self, prefix: str, later: bool = False, direct: bool = False, **settings: Any) -> BackupPlan:
        """Return a plan whose repository is at a prefix; `later` as of an hour later, `direct` past the proxy."""
        changed = settings if direct or self.endpoint is None else {"endpoint": self.endpoint} | settings
        storage = self.place.settings.model_copy(update=changed)
        kind = _Witnessed if later else BackupRepository
        plan = make_plan(self.state, self.folder, self.key)
        return plan.model_copy(update={"repository": kind(url=self.place.url(prefix), storage=storage)})

    def copy(self, objects: Mapping[str, bytes] | None = None) -> str:
        """Copy the repository, and what this machine remembers; returns the prefix."""
        self._copies += 1
        prefix = f"copy-{os.getpid()}-{self._copies}"
        self.place.put(prefix, self.objects if objects is None else objects)
        kinds._opened.clear()
        self.use_state_of(prefix)
        return prefix

    def use_state_of(self, prefix: str) -> None:
        """Let this process remember what the machine of a copy does."""
        home = self.folder / "states" / prefix
        if not home.exists():
            shutil.copytree(self.folder / "state", home)
        os.environ["XDG_STATE_HOME"] = str(home)
        # what an earlier run has read is not asked for again
        os.environ["XDG_CACHE_HOME"] = str(home / "cache")

    def close_breakers(self) -> None:
        shutil.rmtree(Path(os.environ["XDG_STATE_HOME"]) / "lastgood" / "breakers", ignore_errors=True)

    def drop(self, prefix: str) -> None:
        self.place.clear(prefix)
        shutil.rmtree(self.folder / "states" / prefix, ignore_errors=True)

    def witness(
        self, prefix: str, may_be_gone: bool = False, condemned: bool = False, new_at_most: int = 1
    ) -> list[str]:
        """Look as a process that comes an hour later, when nothing goes wrong; returns what is wrong.

        Args:
            prefix: Where the repository is.
            may_be_gone: Whether retention may have removed what it removes.
            condemned: Whether a verification or a check may have read wrong bytes, and recorded that.
            new_at_most: How many backups may have been made.
        """
        problems: list[str] = []
        self.close_breakers()
        plan = self.plan(prefix, later=True, direct=True)
        repository = plan.repository.unlock(plan.encryption)
        survey = repository.survey(PLAN)
        ids = {one.backup_id for one in survey.backups}
        lost = self.oracles.keys() - ids
        if lost - (self.oracles.keys() - self.kept if may_be_gone else set()):
            problems.append(f"lost: {sorted(lost)}")
        if len(ids - self.oracles.keys()) > new_at_most:
            problems.append(f"too many new backups: {sorted(ids - self.oracles.keys())}")
        stored = self.place.objects(prefix)
        for name, data in self.objects.items():
            if name.split("/")[0] == "backups" and name.split("/")[2] in ids and stored.get(name) != data:
                problems.append(f"{name} is not what was stored")
        said = [repository.status(one) for one in survey.backups]
        if BackupStatus.CORRUPTED in said and not condemned:
            problems.append("a backup is recorded as corrupted")
        findings = check_repository(plan, read_share=1.0).findings
        if condemned and BackupStatus.CORRUPTED in said:
            return problems + [one for one in findings if any(words in one for words in _NEVER_RIGHT)]
        problems += findings
        for new in ids - self.oracles.keys():
            if restored(plan, new, self.folder / f"back {prefix} {new}") != self.now:
                problems.append(f"{new} came back otherwise")
        return problems + self._goes_on(plan, ids)

    def _goes_on(self, plan: BackupPlan, ids: set[str]) -> list[str]:
        problems = []
        following = make_backup(plan, INCREMENTAL)
        if following.promoted_because is not None or following.backup_type is not INCREMENTAL:
            problems.append(f"the next backup became a {following.backup_type}: {following.promoted_because}")
        if not {link.backup_id for link in following.chain} <= ids:
            problems.append("the next backup depends on one that is not there")
        to = self.folder / f"next {following.backup_id}"
        if restored(plan, following.backup_id, to) != self.now:
            problems.append("the next backup came back otherwise")
        shutil.rmtree(to)
        apply_retention(plan, now=datetime.now(UTC) + LONG_AFTER, accept_clock=True)
        repository = plan.repository.unlock(plan.encryption)
        left = {one.backup_id for one in repository.backups(PLAN)}
        if not {following.backup_id, *(link.backup_id for link in following.chain)} <= left:
            problems.append("retention removed what the newest backup needs")
        return problems + check_repository(plan, read_share=1.0).findings
