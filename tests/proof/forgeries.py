"""What a writer that is broken or hostile, and holds the keys, could do to a repository; and what then says so.

Every forgery is sealed properly, and with a manifest that is changed go the verifications of the one before. It is
looked at by the machine that made the backups, which remembers the newest, and by one that never saw the repository.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from unittest.mock import patch

from blocks.crypto.keyring import Credential, Kem, Keyring
from blocks.errors import LastgoodError
from blocks.plan.plan import BackupPlan
from blocks.records import BackupMetadata, BackupType, Expiry
from blocks.repository import repository as repository_module
from blocks.repository.block import BackupRepository
from blocks.repository.repository import Repository
from blocks.sources.files import FilesSource
from blocks.sources.postgres import PostgresSource
from blocks.sources.sqlite import SQLiteSource
from flows.backup import make_backup
from flows.check import check_repository
from flows.retention import apply_retention
from flows.verify import make_verification
from tests.faults.damage import hard_copy, rewrite
from tests.faults.forging import Manifest, replace_manifest
from tests.faults.live_state import PLAN, make_key
from tests.postgres_server import PostgresServer
from tests.proof.campaign import Found, said_by
from tests.proof.clock import clock_moved
from tests.proof.live import Books, Feeds, Ledger, now

NEWEST, MIDDLE, OLDEST = -1, -2, 0


class Genuine:
    """A repository with three backups, each verified twice, and two snapshots that retention removed on record.

    Args:
        folder: An empty folder.
        server: A PostgreSQL server.
    """

    def __init__(self, folder: Path, server: PostgresServer) -> None:
        self.folder, self.root, self.began = folder, folder / "repository", now()
        self.home = folder / "home"
        begin = self.began - timedelta(days=20)
        self.books = Books(server, begin, {"desk": 400}, "forged")
        self.ledger = Ledger(folder / "ledger.db", begin, ["till"])
        self.feeds = Feeds(folder / "feeds", begin, ["drop"])
        self.key = make_key(folder / "key")
        with self.machine(self.home):
            self._make()

    def _make(self) -> None:
        for store in (self.books, self.ledger, self.feeds):
            store.create()
        plan = self.plan(self.root)
        plan.repository.initialize(plan.encryption)
        self.backups: list[BackupMetadata] = []
        snapshots: list[BackupMetadata] = []
        for days, kind in ((6, BackupType.FULL), (4, BackupType.INCREMENTAL), (2, BackupType.INCREMENTAL)):
            if len(self.backups) == 2:
                self._expire(plan, snapshots)
                # a writer that is to forge the newest one begins with what was there before
                hard_copy(self.root, self.folder / "before")
                shutil.copytree(self.home, self.folder / "home before")
            with clock_moved(-timedelta(days=days)):
                self._grow(self.began - timedelta(days=days))
                self.backups.append(make_backup(plan, kind))
                make_verification(plan, deep=True)
                make_verification(plan, deep=True)
                if len(self.backups) == 1:
                    snapshots = [make_backup(plan, BackupType.SNAPSHOT) for _ in range(2)]
        self.sound = self.listen(self.root, self.home, self.backups[NEWEST].backup_id)

    def _grow(self, until: datetime) -> None:
        for store in (self.books, self.ledger, self.feeds):
            store.grow(until)

    def _expire(self, plan: BackupPlan, made: list[BackupMetadata]) -> None:
        policy = plan.retention.model_copy(update={"snapshot": timedelta(seconds=1)})
        with clock_moved(-timedelta(days=3)):
            short = plan.model_copy(update={"retention": policy})
            done = apply_retention(short, now=self.began - timedelta(days=3), accept_clock=True)
        assert {one.backup_id for one in done.removed} == {one.backup_id for one in made}

    def plan(self, root: Path) -> BackupPlan:
        return BackupPlan(
            name=PLAN,
            sources={
                "books": PostgresSource(dsn=self.books.server.dsn(self.books.database)),
                "ledger": SQLiteSource(path=str(self.ledger.path)),
                "drop": FilesSource(url=str(self.feeds.root / "drop")),
            },
            repository=BackupRepository(url=str(root)),
            encryption=Keyring(credential=Credential(key_file=self.key), kem=Kem.X25519),
        )

    @contextmanager
    def machine(self, home: Path) -> Iterator[None]:
        """Be the machine with this memory."""
        before = {name: os.environ.get(name) for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME")}
        os.environ |= {"XDG_STATE_HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value

    def listen(self, root: Path, home: Path, backup_id: str) -> list[Found]:
        """Check a repository with all of its bytes, and verify a backup deeply; return what is said."""
        plan, said = self.plan(root), list[Found]()
        with self.machine(home):
            try:
                said += [Found("check", True, "check", one) for one in check_repository(plan, read_share=1.0).findings]
            except LastgoodError as error:
                said.append(Found("check", True, "check", error.message))
            try:
                said += said_by(make_verification(plan, backup_id, deep=True))
            except LastgoodError as error:
                said.append(Found("refused", True, "verify", error.message))
        return said


@dataclass
class Copy:
    """A copy of the genuine repository, open to who holds its keys."""

    genuine: Genuine
    root: Path
    home: Path

    @property
    def repository(self) -> Repository:
        plan = self.genuine.plan(self.root)
        return plan.repository.unlock(plan.encryption)

    def folder(self, which: int, kind: str = "backups") -> Path:
        return self.root / kind / PLAN / self.genuine.backups[which].backup_id

    def records(self, which: int) -> list[Path]:
        """The verifications of a backup, oldest first."""
        return sorted(self.folder(which, "verifications").iterdir())

    def manifest(self, change: Callable[[Manifest], object], which: int = NEWEST, *, careless: bool = False) -> None:
        """Change a manifest, and the sums that go with it; what was proved of the one before goes, unless careless."""
        backup = self.genuine.backups[which]
        replace_manifest(self.root, self.repository, backup, change)
        sums = self.folder(which) / "SHA256SUMS"
        lines = [line for line in sums.read_text().splitlines() if not line.endswith("manifest")]
        digest = hashlib.sha256((self.folder(which) / "manifest").read_bytes()).hexdigest()
        rewrite(sums, "\n".join([*lines, f"{digest}  manifest", ""]).encode())
        if not careless:
            shutil.rmtree(self.folder(which, "verifications"))


@dataclass(frozen=True)
class Forgery:
    """One thing that a writer does.

    Attributes:
        name: What it is known by.
        what: For people.
        do: Does it to a copy.
        looked_at: The backup that is verified then.
        unknowable: Why nothing can say so on another machine, where it cannot.
        unknowable_here: Why nothing can on the one that made the backups.
    """

    name: str
    what: str
    do: Callable[[Copy], None]
    looked_at: int = NEWEST
    unknowable: str = ""
    unknowable_here: str = ""


def _another_newest(
    change: Callable[[Genuine], None], expected_type: BackupType = BackupType.INCREMENTAL
) -> Callable[[Copy], None]:
    """Make the newest backup anew, by the same id and number, of another state: rows, index and counts agree."""

    def do(copy: Copy) -> None:
        genuine, wanted = copy.genuine, copy.genuine.backups[NEWEST]
        shutil.rmtree(copy.root)
        hard_copy(genuine.folder / "before", copy.root)
        home = copy.root.with_name(f"{copy.root.name} forger")
        shutil.copytree(genuine.folder / "home before", home)
        change(genuine)
        try:
            with (
                genuine.machine(home),
                clock_moved(-timedelta(days=2)),
                patch.object(repository_module, "new_backup_id", lambda *_: wanted.backup_id),
            ):
                made = make_backup(genuine.plan(copy.root), expected_type)
                assert (made.backup_id, made.sequence) == (wanted.backup_id, wanted.sequence)
                make_verification(genuine.plan(copy.root), deep=True)
        finally:
            change(genuine)

    return do


def _half_price(genuine: Genuine) -> None:
    """Change what fills cost; done twice it is as it was."""
    genuine.books.run("UPDATE desk.fills SET price = 1000 - price, amount = quantity * (1000 - price)")


def _definition(source: str, change: Callable[[Manifest], object]) -> Callable[[Copy], None]:
    def forge(data: Manifest) -> None:
        state = next(one for one in data["sources"] if one["name"] == source)
        before = json.dumps(state["definition"])
        change(state["definition"])
        assert json.dumps(state["definition"]) != before

    return lambda copy: copy.manifest(forge)


def _sql(field: str, pattern: str, by: str) -> Callable[[Copy], None]:
    """Change the SQL of PostgreSQL's definitions."""

    def change(definition: Manifest) -> None:
        definition[field] = re.sub(pattern, by, definition[field], flags=re.DOTALL)

    return _definition("books", change)


def _entry(name: str) -> Callable[[Copy], None]:
    """Leave an object out of PostgreSQL's definitions, with the comment that names it."""
    return _sql("after", rf"--\n-- Name: {name};.*?(?=--\n-- )", "")


def _sequence(definition: Manifest) -> None:
    next(one for one in definition["sequences"] if one[1] == "fills_id_seq")[4] = 7


def _without_index(definition: Manifest) -> None:
    definition["objects"] = [one for one in definition["objects"] if one["name"] != "till_by_time"]


def _view(definition: Manifest) -> None:
    view = next(one for one in definition["objects"] if one["name"] == "till_totals")
    view["sql"] = view["sql"].replace("sum(amount)", "max(amount)")


def _without_segment(counted: bool) -> Callable[[Copy], None]:
    """Leave out what the newest backup stored of the fills; with the number of rows as in its base, or as it was."""

    def do(copy: Copy) -> None:
        def change(data: Manifest) -> None:
            collection = next(one for one in data["collections"] if one["name"] == "books/desk.fills")
            part = next(one for one in collection["parts"] if one["segment"])
            if counted:
                before = next(c for c in copy.genuine.backups[MIDDLE].collections if c.name == collection["name"])
                rows = next(p.rows for p in before.parts if p.number == part["number"])
                data["total_rows"] -= part["rows"] - rows
                state = next(one for one in data["sources"] if one["name"] == "books")
                state["rows"] -= part["rows"] - rows
                part["rows"] = rows
                for size in ("size_bytes", "size_compressed"):
                    data[size] -= part["segment"][size]
            part["segment"] = None

        copy.manifest(change)

    return do


def _without_collection(copy: Copy) -> None:
    def change(data: Manifest) -> None:
        gone = next(one for one in data["collections"] if one["name"] == "ledger/till_entries")
        data["collections"].remove(gone)
        rows = sum(part["rows"] for part in gone["parts"])
        data["total_rows"] -= rows
        state = next(one for one in data["sources"] if one["name"] == "ledger")
        state["rows"] -= rows
        objects = state["definition"]["objects"]
        state["definition"]["objects"] = [one for one in objects if "till_entries" not in str(one)]

    copy.manifest(change)


def _remove_verification(which: slice) -> Callable[[Copy], None]:
    def do(copy: Copy) -> None:
        for path in copy.records(NEWEST)[which]:
            path.unlink()

    return do


def _remove_backup(which: int) -> Callable[[Copy], None]:
    def do(copy: Copy) -> None:
        shutil.rmtree(copy.folder(which))
        shutil.rmtree(copy.folder(which, "verifications"), ignore_errors=True)

    return do


def _expiries(copy: Copy) -> list[Path]:
    return sorted((copy.root / "expired" / PLAN).iterdir())


def _remove_expiry(copy: Copy) -> None:
    for path in _expiries(copy):
        path.unlink()


def _expire_newest(copy: Copy) -> None:
    """Remove the newest backup, and record it as retention would."""
    newest, before = copy.genuine.backups[NEWEST], copy.genuine.backups[MIDDLE]
    moment = newest.timestamp + timedelta(days=1)
    link = copy.repository.link(newest)
    expiry = Expiry(
        plan=PLAN, expired_at=moment, removed=(link,), reasons={newest.backup_id: "older than 30 days"},
        head=copy.repository.link(before),
    )  # fmt: skip
    _remove_backup(NEWEST)(copy)
    with patch.dict(os.environ, {"XDG_STATE_HOME": str(copy.root) + " forger"}):
        copy.repository.record_expiry(expiry)


def _roll_back(copy: Copy) -> None:
    shutil.rmtree(copy.root)
    hard_copy(copy.genuine.folder / "before", copy.root)


def _move_verification(copy: Copy) -> None:
    """Put the verification of one backup under another."""
    path = copy.records(MIDDLE)[-1]
    shutil.copy(path, copy.folder(NEWEST, "verifications") / path.name)


def _say_verified(copy: Copy) -> None:
    """Damage the newest backup, and record a verification that found it good."""
    pack = next(copy.folder(NEWEST).glob("*.pack"))
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    rewrite(pack, bytes(data))
    _record_later(copy)


def _record_later(copy: Copy, **changes: object) -> None:
    """Record a copy of the newest verification as one that came after it."""
    last = copy.repository.verifications(PLAN, copy.genuine.backups[NEWEST].backup_id)[-1]
    later = last.model_copy(update={"verified_at": last.verified_at + timedelta(hours=1), **changes})
    copy.repository.record_verification(later)


def _good_again(copy: Copy) -> None:
    """Damage the newest backup, have that found, and remove the verification that found it."""
    pack = next(copy.folder(NEWEST).glob("*.pack"))
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    rewrite(pack, bytes(data))
    before = set(copy.records(NEWEST))
    with copy.genuine.machine(copy.home):
        make_verification(copy.genuine.plan(copy.root), deep=False)
    for path in set(copy.records(NEWEST)) - before:
        path.unlink()


def _reorder(copy: Copy) -> None:
    copy.manifest(lambda data: data.update(chain=data["chain"][::-1]))


def _other_base(copy: Copy) -> None:
    """Let the newest depend on the full alone, as if there were nothing between."""
    copy.manifest(lambda data: data.update(chain=data["chain"][:1], base=data["chain"][0]["backup_id"]))


def _swap_numbers(copy: Copy) -> None:
    numbers = {which: copy.genuine.backups[which].sequence for which in (MIDDLE, NEWEST)}
    copy.manifest(lambda data: data.update(sequence=numbers[MIDDLE]), NEWEST)
    copy.manifest(lambda data: data.update(sequence=numbers[NEWEST]), MIDDLE)


def _taken_later(copy: Copy) -> None:
    def change(data: Manifest) -> None:
        for state in data["sources"]:
            state["taken_at"] = (datetime.fromisoformat(state["taken_at"]) + timedelta(days=1)).isoformat()
        data["timestamp"] = (datetime.fromisoformat(data["timestamp"]) + timedelta(days=1)).isoformat()

    copy.manifest(change)


def _other_rows_below(copy: Copy) -> None:
    """Let the full hold another number of rows than it does."""

    def change(data: Manifest) -> None:
        part = data["collections"][0]["parts"][0]
        part["rows"] += 1

    copy.manifest(change, OLDEST)


def _other_tags(copy: Copy) -> None:
    copy.manifest(lambda data: data.update(tags=["approved"]), careless=True)


def _identity(copy: Copy) -> None:
    def change(data: Manifest) -> None:
        state = next(one for one in data["sources"] if one["name"] == "books")
        state["identity"] = {"system identifier": ["1"], "database": ["other", "number 1"]}

    copy.manifest(change)


FORGERIES = (
    Forgery("rows", "the newest is made anew of other rows: rows, index, counts agree", _another_newest(_half_price),
        unknowable="it is a whole backup of another state. What is left are rules for rows, and drift."),
    Forgery("segment", "a segment of the newest is left out", _without_segment(counted=False)),
    Forgery("segment_counted", "a segment is left out, and all counts agree", _without_segment(counted=True),
        unknowable="it is a whole backup of another state. What is left are rules for rows, and drift."),
    Forgery("collection", "a table is left out of the newest, with its definition", _without_collection),
    Forgery("index", "an index is left out of the definitions (SQLite)", _definition("ledger", _without_index)),
    Forgery("view", "a view says something else (SQLite)", _definition("ledger", _view)),
    Forgery("function", "a function computes something else", _sql("before", r"0\.001", "0.01")),
    Forgery("key", "a foreign key is left out of the definitions",
        _entry("fills fills_order_id_fkey")),
    Forgery("trigger", "a trigger is left out of the definitions",
        _entry("fills fills_stamp")),
    Forgery("sequence", "a sequence is set back", _definition("books", _sequence)),
    Forgery("broken", "a view does not fit its tables", _sql("before", r"sum\(f\.amount\)", "sum(f.amounts)")),
    Forgery("careless", "the newest says that it has other tags, and its verifications are left", _other_tags),
    Forgery("time", "the newest says that it is a day younger", _taken_later,
        unknowable="when a backup was made is what its manifest says."),
    Forgery("identity", "the newest says that it is of another database", _identity,
        unknowable="which source it was made of is what its manifest says."),
    Forgery("reordered", "the chain of the newest is reordered", _reorder),
    Forgery("base", "the newest depends on the full alone", _other_base),
    Forgery("numbers", "two backups swap their numbers", _swap_numbers),
    Forgery("older", "the full below is another one", _other_rows_below),
    Forgery("newest_removed", "the newest backup is removed", _remove_backup(NEWEST), MIDDLE,
        unknowable="what nothing names leaves no trace."),
    Forgery("middle_removed", "a backup that others depend on is removed", _remove_backup(MIDDLE)),
    Forgery("rolled_back", "the whole repository is what it was two days ago", _roll_back, MIDDLE,
        unknowable="it is what it was then."),
    Forgery("expired", "the newest is removed, and an expiry says that retention did it", _expire_newest, MIDDLE),
    Forgery("expiry_removed", "the records of what retention removed are removed", _remove_expiry),
    Forgery("verification_removed", "the newest verification is removed", _remove_verification(slice(-1, None)),
        unknowable="what nothing names leaves no trace; it is proved again."),
    Forgery("first_verification_removed", "an older verification is removed", _remove_verification(slice(0, 1))),
    Forgery("verifications_removed", "all verifications of a backup are removed", _remove_verification(slice(None)),
        unknowable="what nothing names leaves no trace; it is proved again."),
    Forgery("failure_removed", "damage was found, and the record of that is removed", _good_again),
    Forgery("verification_moved", "a verification is that of another backup", _move_verification),
    Forgery("verified", "a damaged backup is said to be verified", _say_verified),
    Forgery("profile", "a verification is recorded that nobody made", _record_later,
        unknowable="who holds the keys can verify, and record it; it is proved again.",
        unknowable_here="who holds the keys can verify, and record it; it is proved again."),
)  # fmt: skip


def run_forgery(genuine: Genuine, forgery: Forgery) -> tuple[list[Found], list[Found]]:
    """Do a forgery to a copy; return what is said on the machine that made the backups, and on another one."""
    root = genuine.folder / "copies" / forgery.name
    root.parent.mkdir(exist_ok=True)
    hard_copy(genuine.root, root)
    home, other = root.with_name(f"{forgery.name} home"), root.with_name(f"{forgery.name} other")
    shutil.copytree(genuine.home, home)
    backup_id = genuine.backups[forgery.looked_at].backup_id
    with genuine.machine(home):
        forgery.do(Copy(genuine, root, home))
    known = {one.sentence for one in genuine.sound}
    twin = root.with_name(f"{forgery.name} twin")
    hard_copy(root, twin)
    here, elsewhere = (
        [one for one in genuine.listen(*place, backup_id) if one.sentence not in known]
        for place in ((root, home), (twin, other))
    )
    for path in root.parent.iterdir():
        shutil.rmtree(path)
    return here, elsewhere


def main() -> int:
    import logging
    import resource
    import tempfile

    from tests.postgres_server import postgres_server

    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="lastgood-forged-") as name, postgres_server() as server:
        genuine = Genuine(Path(name), server)
        print("SOUND:", *genuine.sound)
        for forgery in FORGERIES:
            here, elsewhere = run_forgery(genuine, forgery)
            print("==", forgery.name)
            for one in here:
                print("  here:", one.axis, "BAD" if one.bad else "said", one.sentence)
            for one in elsewhere:
                print("  elsewhere:", one.axis, "BAD" if one.bad else "said", one.sentence)
        used = resource.getrusage(resource.RUSAGE_SELF)
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(used.ru_utime + used.ru_stime + children.ru_utime + children.ru_stime, "s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
