"""What commands ask of a storage in a network, counted by a proxy before a real S3 server."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from blocks.crypto.keyring import NoEncryption
from blocks.errors import CorruptionDetected
from blocks.host.state_folder import cache_folder
from blocks.plan.plan import BackupPlan
from blocks.records import BackupMetadata, BackupType, Expiry, new_backup_id
from blocks.repository import catalogue, names, repository, summaries
from blocks.repository.block import BackupRepository, Repository
from blocks.repository.catalogue import Catalogue
from blocks.repository.summaries import SUMMARIES, BackupSummary, Summaries, summary
from blocks.rows.selection import Selection
from blocks.sources.sqlite import SQLiteSource
from blocks.storage import objects
from flows.backup import make_backup
from flows.check import check_repository
from flows.pipeline import manifest
from flows.restore import make_restore
from flows.restoring.request import RestoreRequest
from flows.retention import apply_retention
from flows.verify import make_verification
from tests.counting_proxy import CountingProxy, counting_proxy
from tests.object_servers import Seaweed

TABLES = ("orders", "portfolio", "positions")


class Desk:
    """An application with three small tables, and its plan with a repository in a bucket."""

    def __init__(self, folder: Path, proxy: CountingProxy, server: Seaweed) -> None:
        self.folder, self._proxy, self._changes = folder, proxy, 0
        self._db = sqlite3.connect(folder / "ledger.db", isolation_level=None)
        for table in TABLES:
            self._db.execute(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, name TEXT)")
            self._db.executemany(f"INSERT INTO {table} VALUES (?, ?)", [(n, f"row {n}") for n in range(100)])
        settings = server.settings.model_copy(update={"endpoint": proxy.endpoint})
        self.plan = BackupPlan(
            name="trading",
            sources={"ledger": SQLiteSource(path=str(folder / "ledger.db"))},
            repository=BackupRepository(url=f"s3://{server.bucket()}/repository", storage=settings),
            encryption=NoEncryption(type="none"),
        )
        self.plan.repository.initialize(self.plan.encryption)

    @property
    def repository(self) -> Repository:
        return self.plan.repository.unlock(self.plan.encryption)

    @property
    def tier(self) -> Any:
        return self.plan.repository.tier

    def back_up(self, kind: BackupType = BackupType.INCREMENTAL) -> BackupMetadata:
        """Change each table, and make a backup."""
        self._changes += 1
        for table in TABLES:
            self._db.execute(f"UPDATE {table} SET name = 'change {self._changes}' WHERE id = {self._changes}")
        return make_backup(self.plan, kind)

    def chain(self) -> list[BackupMetadata]:
        """Make a full and two incrementals on it."""
        return [self.back_up(BackupType.FULL), self.back_up(), self.back_up()]

    def asked(self, work: Callable[[], object]) -> list[str]:
        """Return the requests of some work."""
        self._proxy.requests.clear()
        work()
        return list(self._proxy.requests)

    def rows(self, database: Path | None = None) -> list[list[tuple[int, str]]]:
        with closing(sqlite3.connect(database or self.folder / "ledger.db")) as db:
            return [db.execute(f"SELECT * FROM {table} ORDER BY id").fetchall() for table in TABLES]

    def copied(self) -> Path:
        """Copy the database to another place."""
        place = self.folder / "another.db"
        with closing(sqlite3.connect(place)) as db:
            self._db.backup(db)
        return place

    def restored(self) -> list[list[tuple[int, str]]]:
        """Restore the newest backup to another place, and return what is there."""
        place = self.folder / f"restored {self._changes}.db"
        make_restore(self.plan, RestoreRequest(to=str(place)))
        return self.rows(place)


@pytest.fixture
def desk(tmp_path: Path, s3: Seaweed, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    hours = iter(range(-1000, 0))

    def draw(kind: BackupType, moment: datetime) -> str:
        """Backups are an hour apart, as far as their ids tell, and none is still to come."""
        return new_backup_id(kind, moment + timedelta(hours=next(hours)))

    monkeypatch.setattr(repository, "new_backup_id", draw)
    with counting_proxy(s3.port) as proxy:
        yield Desk(tmp_path, proxy, s3)


def of(requests: list[str], *kinds: str) -> list[str]:
    return [one for one in requests if one.startswith(kinds)]


def apart_from_proof(requests: list[str]) -> list[str]:
    """Leave out what `check` tries of the storage: how many requests that takes depends on who of eight wins a race."""
    return [one for one in requests if " probes/" not in one and not one.startswith("DELETE")]


def test_an_incremental_of_three_small_collections_makes_at_most_12_requests(desk):
    desk.chain()
    asked = desk.asked(desk.back_up)
    assert len(asked) <= 12, "\n".join(asked)
    # what decides that this run, and no other, commits on what is there
    commit = next(n for n, one in enumerate(asked) if one.startswith("PUT") and one.endswith("/manifest"))
    assert asked[commit - 2].startswith("LIST")
    assert asked[commit - 1].startswith("GET locks/trading/")
    assert desk.restored() == desk.rows()


def test_how_long_the_chain_is_and_how_many_backups_there_are_changes_nothing(desk):
    desk.chain()
    first = len(desk.asked(desk.back_up))
    for _ in range(4):
        desk.back_up()
    assert len(desk.asked(desk.back_up)) == first


def test_where_the_newest_backup_does_not_tell_of_clock_and_source_all_are_read(desk, monkeypatch):
    """By its id one is still to come; then the newest does not know the source."""
    desk.chain()
    drawn = repository.new_backup_id
    monkeypatch.setattr(
        repository, "new_backup_id", lambda kind, moment: new_backup_id(kind, moment + timedelta(hours=1))
    )
    ahead = desk.back_up()
    monkeypatch.setattr(repository, "new_backup_id", drawn)
    made = []
    asked = desk.asked(lambda: made.append(desk.back_up()))
    # a listing, and the manifests of three backups
    assert len(of(asked, "GET backups/")) == 4
    assert made[0].clock_doubt is None
    assert made[0].base == ahead.backup_id
    state = manifest._source_state
    monkeypatch.setattr(manifest, "_source_state", lambda *args: state(*args).model_copy(update={"identity": {}}))
    unknowing = desk.back_up()
    monkeypatch.undo()
    other = desk.plan.model_copy(update={"sources": {"ledger": SQLiteSource(path=str(desk.copied()))}})
    (warning,) = make_backup(other, BackupType.FULL).source("ledger").warnings
    assert made[0].backup_id in warning
    assert unknowing.source("ledger").identity == {}


def test_on_another_machine_a_base_is_read_from_the_storage(desk, monkeypatch, tmp_path):
    desk.chain()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another machine"))
    asked = desk.asked(desk.back_up)
    # manifests and indexes of the chain of three; the newest manifest is read anyway
    assert len(asked) <= 12 + 2 + 3, "\n".join(asked)
    assert desk.restored() == desk.rows()


@pytest.mark.parametrize("home", ["/dev/null/no/folder", "/proc/none"])
def test_where_nothing_can_be_copied_that_only_costs_requests(desk, monkeypatch, home):
    monkeypatch.setenv("XDG_CACHE_HOME", home)
    made = desk.chain()
    assert desk.back_up().base == made[-1].backup_id
    assert desk.restored() == desk.rows()


def test_a_repository_that_one_request_does_not_list_is_listed_folder_by_folder(desk, monkeypatch):
    monkeypatch.setattr(objects, "LISTED_AT_ONCE", 2)
    made = desk.chain()
    assert [one.sequence for one in made] == [1, 2, 3]
    asked = desk.asked(desk.back_up)
    assert len(asked) <= 12 + 9, "\n".join(asked)
    newest = desk.repository.backups("trading")[-1]
    assert (newest.base, newest.sequence) == (made[-1].backup_id, 4)
    # nothing but the manifest is asked after the lease was looked at
    commit = next(n for n, one in enumerate(asked) if one.startswith("PUT") and one.endswith("/manifest"))
    assert asked[commit - 2] == "LIST locks/trading/"
    assert asked[commit - 1].startswith("GET locks/trading/")
    assert check_repository(desk.plan).findings == []
    assert desk.restored() == desk.rows()


def test_what_other_commands_ask_is_what_the_document_says(desk):
    chain = desk.chain()

    def listing() -> None:
        opened = desk.repository
        found = opened.listing("trading").backups
        opened.verdicts("trading", found), opened.current_lease("trading")
        opened.damaged_lease("trading"), opened.rolled_back("trading")

    one_key = Selection(collections=("ledger/orders",), keys=("5",))
    request = RestoreRequest(selection=one_key, to=str(desk.folder / "one.db"))
    counted = {
        "list": len(desk.asked(listing)),
        "restore": len(desk.asked(lambda: make_restore(desk.plan, request))),
        "verify": len(desk.asked(lambda: make_verification(desk.plan))),
        "retention": len(desk.asked(lambda: apply_retention(desk.plan))),
        "check": len(apart_from_proof(desk.asked(lambda: check_repository(desk.plan)))),
    }
    text = (Path(__file__).parents[2] / "docs" / "storage.md").read_text()
    said = {command: int(count) for command, count in re.findall(r"^\| `(\w+)`[^|]*\| (\d+)\b", text, re.MULTILINE)}
    for command, count in counted.items():
        assert count == said[command], (counted, said)
    assert len(chain) == 3


def test_verifications_of_all_backups_are_listed_at_once(desk):
    for one in desk.chain():
        make_verification(desk.plan, one.backup_id, deep=False)
    for work in (
        lambda: desk.repository.statuses("trading", desk.repository.backups("trading")),
        lambda: apply_retention(desk.plan, dry_run=True),
        lambda: desk.repository.audit("trading"),
        desk.back_up,
    ):
        asked = desk.asked(work)
        assert not [one for one in of(asked, "LIST verifications/") if one != "LIST verifications/trading/"], asked
        assert len(of(asked, "LIST verifications/")) <= 1


def damage(desk: Desk, name: str) -> None:
    data = bytearray(desk.tier.get(name))
    data[-1] ^= 1
    desk.tier.put(name, bytes(data))


def test_copies_decide_nothing_about_what_the_storage_holds(desk):
    """All manifests and indexes are copied on this machine; what is wrong in the storage is found all the same."""
    full, middle, last = desk.chain()
    assert len(desk.repository.survey("trading", shown=True).backups) == 3
    newest = names.manifest("trading", last.backup_id)
    whole = desk.tier.get(newest)
    damage(desk, newest)
    assert not desk.repository.survey("trading", shown=True).damaged
    assert desk.repository.survey("trading").damaged == [last.backup_id]
    assert any(last.backup_id in finding for finding in check_repository(desk.plan).findings)
    with pytest.raises(CorruptionDetected):
        apply_retention(desk.plan)
    with pytest.raises(CorruptionDetected):
        make_verification(desk.plan, last.backup_id)
    assert "history is damaged" in (desk.back_up().promoted_because or "")
    desk.tier.put(newest, whole)
    assert check_repository(desk.plan).findings == []
    assert middle.base == full.backup_id


def listed(desk: Desk, opened: list[str] | None = None) -> list[BackupSummary]:
    """List the backups on a machine that just started; `opened` gets the ids of the manifests that were opened."""
    repository = desk.repository
    read = repository._catalogue._opened

    def open_manifest(plan: str, backup_id: str, *args: Any, **options: Any) -> Any:
        if opened is not None:
            opened.append(backup_id)
        return read(plan, backup_id, *args, **options)

    repository._catalogue._opened = open_manifest  # type: ignore[method-assign]
    listing = repository.listing("trading")
    assert listing.findings == []
    return listing.backups


def test_a_list_shows_what_is_in_the_manifests_and_opens_only_those_that_it_has_not_seen(desk):
    chain = desk.chain()
    opened: list[str] = []
    first = listed(desk, opened)
    assert sorted(opened) == sorted(one.backup_id for one in chain)
    assert first == [summary(one, desk.repository.link(one).manifest_sha256) for one in chain]
    assert [one.chain for one in first] == [one.chain for one in chain]
    assert [one.link for one in first] == [desk.repository.link(one) for one in chain]
    opened.clear()
    assert listed(desk, opened) == first
    assert opened == []
    newest = desk.back_up()
    assert listed(desk, opened)[:3] == first
    assert opened == [newest.backup_id]
    desk.repository.remove("trading", [newest.backup_id, chain[-1].backup_id])
    assert listed(desk) == first[:2]


def test_a_backup_without_a_manifest_is_not_shown_although_the_rest_of_it_is_still_there(desk):
    """A removal takes the manifests first; then it may be interrupted, on another machine."""
    chain = desk.chain()
    shown = listed(desk)
    desk.tier.remove([names.manifest("trading", chain[-1].backup_id)])
    assert chain[-1].backup_id in desk.repository._catalogue.ids("trading")
    assert listed(desk) == shown[:2]
    assert [one.sequence for one in desk.repository.survey("trading", shown=True).backups] == [1, 2]


def test_no_folder_that_holds_something_is_asked_to_be_removed(desk):
    """Some servers answer that as if they had failed."""
    full, *_, last = desk.chain()
    stored = desk.tier.list("backups/trading/")
    whole = [one.name for one in stored if full.backup_id in one.name]
    desk.tier.remove([one.name for one in stored if last.backup_id in one.name])
    asked = desk.asked(lambda: desk.tier.drop_folders("backups/trading/", [full.backup_id]))
    assert of(asked, "DELETE") == []
    desk.tier.drop_folders("backups/trading/", [full.backup_id, last.backup_id])
    assert last.backup_id not in desk.tier.folders("backups/trading/")
    assert [one.name for one in desk.tier.list(names.backup("trading", full.backup_id))] == whole


def test_of_many_backups_only_folders_are_listed_until_something_was_removed(desk, monkeypatch):
    for module in (catalogue, summaries):
        monkeypatch.setattr(module, "MANY", 2)
    all_listed: list[str] = []
    listing = Catalogue._to_read

    def list_all(self: Catalogue, plan: str, shown: bool) -> Any:
        all_listed.append(plan)
        return listing(self, plan, shown)

    monkeypatch.setattr(Catalogue, "_to_read", list_all)

    def ids(*, whole: bool) -> list[str]:
        """List them; all objects are listed for it, or the folders."""
        all_listed.clear()
        found = [one.backup_id for one in listed(desk)]
        assert bool(all_listed) is whole
        return found

    made = [one.backup_id for one in (desk.back_up(BackupType.FULL), desk.back_up(BackupType.FULL), desk.back_up())]
    assert ids(whole=True) == made
    assert ids(whole=False) == made
    made.append(desk.back_up().backup_id)
    assert ids(whole=False) == made
    # on another machine a removal begins, takes the manifest, and goes no further
    link = desk.repository.link(desk.repository.manifest("trading", made[0]))
    expiry = Expiry(plan="trading", expired_at=datetime.now(UTC), removed=(link,), reasons={}, head=None)
    desk.repository.record_expiry(expiry)
    assert ids(whole=True) == made
    desk.tier.remove([names.manifest("trading", made[0])])
    assert ids(whole=True) == made[1:]
    # an hour later it has ended
    monkeypatch.setattr(summaries, "REMOVAL", -timedelta(hours=1))
    assert ids(whole=True) == made[1:]
    assert ids(whole=False) == made[1:]
    assert f"backups/trading/{made[0]}/00000.pack" in [one.name for one in desk.tier.list("backups/")]
    made.append(desk.back_up(BackupType.FULL).backup_id)
    assert ids(whole=False) == made[1:]


def test_verdicts_of_what_a_list_shows_are_those_of_the_backups(desk):
    chain = [*desk.chain(), desk.back_up(BackupType.FULL)]
    make_verification(desk.plan, chain[1].backup_id, deep=False)
    for _ in range(2):
        opened = desk.repository
        told = opened.verdicts("trading", opened.listing("trading").backups)
        assert told == desk.repository.verdicts("trading", desk.repository.backups("trading"))
        assert [one.backup_id for one in chain if told[one.backup_id].good] == [chain[1].backup_id]


@pytest.mark.parametrize(
    "changed",
    [
        lambda sealed: b"",
        lambda sealed: sealed[:-1],
        lambda sealed: sealed[:100] + bytes([sealed[100] ^ 1]) + sealed[101:],
        lambda sealed: bytes(1000),
    ],
)
def test_what_is_kept_for_lists_and_damaged_is_made_again(desk, changed):
    desk.chain()
    first = listed(desk)
    (kept,) = cache_folder().rglob(SUMMARIES)
    kept.write_bytes(changed(kept.read_bytes()))
    opened: list[str] = []
    assert listed(desk, opened) == first
    assert len(opened) == 3
    assert listed(desk, opened) == first
    assert len(opened) == 3


def test_what_is_kept_for_lists_is_for_one_plan_and_one_user(desk):
    desk.chain()
    listed(desk)
    (kept,) = cache_folder().rglob(SUMMARIES)
    assert kept.stat().st_mode & 0o777 == 0o600
    assert {path.name for path in kept.parent.iterdir() if path.name.startswith(SUMMARIES)} == {SUMMARIES}
    # it is sealed for its plan
    other = kept.parent.parent / "other"
    other.mkdir()
    (other / SUMMARIES).write_bytes(kept.read_bytes())
    assert desk.repository.listing("other").backups == []
    assert desk.repository._catalogue._summaries("other") == Summaries()


@pytest.mark.parametrize("lost", ["manifest", "00000.pack"])
@pytest.mark.parametrize("which", [0, 1])
def test_a_chain_that_lacks_an_object_is_no_base_whatever_is_copied(desk, lost, which):
    chain = desk.chain()
    desk.tier.remove([f"backups/trading/{chain[which].backup_id}/{lost}"])
    made = desk.back_up()
    assert made.backup_type is BackupType.FULL
    assert f"{chain[which].backup_id} lacks" in (made.promoted_because or "")
    assert desk.restored() == desk.rows()


def test_a_copy_that_is_damaged_is_read_from_the_storage_again(desk):
    chain = desk.chain()
    copies = sorted(cache_folder().rglob("*.*.*"))
    assert len(copies) == 2 * len(chain)
    for path in copies:
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert desk.back_up().base == chain[-1].backup_id
    assert len(desk.repository.survey("trading", shown=True).backups) == 4
    assert desk.restored() == desk.rows()


def test_a_base_that_vanishes_while_a_backup_is_made_is_noticed_before_the_commit(desk, monkeypatch):
    chain = desk.chain()
    store = Repository.put_object

    def put(self: Repository, plan: str, backup_id: str, name: str, sealed: bytes) -> object:
        self._tier.remove([names.manifest("trading", chain[0].backup_id)])
        return store(self, plan, backup_id, name, sealed)

    monkeypatch.setattr(Repository, "put_object", put)
    with pytest.raises(CorruptionDetected, match="vanished while it was made"):
        desk.back_up()
    assert len(desk.repository.survey("trading").backups) == 2
