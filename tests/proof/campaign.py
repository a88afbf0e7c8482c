"""Good backups with history, then all faults at once in one backup, and what its verifications say of each.

Run as `python -m tests.proof.campaign`: prints what finds each fault; exit code 1 where one that can be known is not found.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from blocks.crypto.keyring import NoEncryption
from blocks.plan.plan import BackupPlan
from blocks.records import BackupMetadata, BackupType
from blocks.repository.block import BackupRepository
from blocks.sources.files import FilesSource
from blocks.sources.postgres import PostgresSource
from blocks.sources.redis import RedisSource
from blocks.sources.sqlite import SQLiteSource
from blocks.verification import Verification
from flows.backup import make_backup
from flows.verify import make_verification
from tests.blocks.sources.redis.kit import RedisServer
from tests.postgres_server import postgres_server
from tests.proof.clock import clock_moved
from tests.proof.live import DAYS, SMALL_FILLS, Books, Cache, Feeds, Ledger, now
from tests.proof.planted import BOOKS, CACHE, FAULTS, FEEDS, LEDGER, SOUND, Fault, Live
from tests.proof.suites import write_careful

GOOD_DAYS = (5, 4, 3)
"""How many days ago the good backups were made."""


@dataclass(frozen=True)
class Found:
    """One sentence about a fault.

    Attributes:
        axis: The axis of the verification that says it.
        bad: Whether the verification fails for it; else it is a warning.
        rule: What found it.
    """

    axis: str
    bad: bool
    rule: str
    sentence: str


def said_by(result: Verification) -> Iterator[Found]:
    """Yield everything that a verification says, finding or warning, by its axis."""
    for axis, found in result.results.items():
        for bad, sentences in ((True, found.findings), (False, found.warnings)):
            for sentence in sentences:
                yield Found(axis, bad, _rule(result, sentence), sentence)


def _rule(result: Verification, sentence: str) -> str:
    """Name the expectation that a sentence is of; the axis's own checks have none."""
    for rule in result.rules:
        if rule.sentence and rule.sentence in sentence:
            return rule.rule
    named = re.search(r"\b(?:expect_\w+|unexpected_rows_expectation)", sentence)
    return named[0] if named else ""


def about(name: re.Pattern[str], result: Verification, before: Verification) -> list[Found]:
    """Return what a verification says of one copy and the one of the good backup before did not."""
    known = {one.sentence for one in said_by(before)}
    return [one for one in said_by(result) if name.search(one.sentence) and one.sentence not in known]


class Campaign:
    """The live state, its plan, good backups, and one of a state with all faults.

    Args:
        folder: An empty folder.
        server: A PostgreSQL server.
        redis: A Redis server with at least 16 databases.
    """

    def __init__(self, folder: Path, server: object, redis: RedisServer) -> None:
        self.folder, self.began = folder, now()
        begin = self.began - timedelta(days=DAYS + GOOD_DAYS[0])
        fills = {fault.name: fault.fills for fault in BOOKS} | {SOUND["books"]: SMALL_FILLS}
        databases = {fault.name: int(fault.collection.removeprefix("cache/db")) for fault in CACHE}
        self.live = Live(
            Books(server, begin, fills),  # type: ignore[arg-type]
            Ledger(folder / "ledger.db", begin, [*(fault.name for fault in LEDGER), SOUND["ledger"]]),
            Cache(redis, databases | {SOUND["cache"]: 1}),
            Feeds(folder / "feeds", begin, [*(fault.name for fault in FEEDS), SOUND["feeds"]]),
        )
        for store in (self.live.books, self.live.ledger, self.live.feeds):
            store.create()
        self.plan = BackupPlan(
            name="trading",
            sources={
                "books": PostgresSource(dsn=self.live.books.server.dsn(self.live.books.database)),
                "ledger": SQLiteSource(path=str(self.live.ledger.path)),
                "cache": RedisSource(url=redis.url),
                **{name: FilesSource(url=str(self.live.feeds.root / name)) for name in self.live.feeds.names},
            },
            repository=BackupRepository(url=str(folder / "repository")),
            encryption=NoEncryption(type="none"),
        )
        self.plan.repository.initialize(self.plan.encryption)
        self.good: list[BackupMetadata] = []
        self.good_results: list[Verification] = []

    def grow(self, until: datetime, but: frozenset[str] = frozenset()) -> None:
        for store in (self.live.books, self.live.ledger, self.live.cache, self.live.feeds):
            store.grow(until, but)

    def make_history(self, suites: Sequence[str] = ()) -> None:
        """Make the good backups, days apart, and verify each."""
        plan = self.with_suites(suites)
        for days in GOOD_DAYS:
            ago = timedelta(days=days)
            self.grow(self.began - ago)
            with clock_moved(-ago):
                kind = BackupType.INCREMENTAL if self.good else BackupType.FULL
                self.good.append(make_backup(plan, kind))
                self.good_results.append(make_verification(plan, deep=True))

    def plant(self, faults: Sequence[Fault] = FAULTS) -> BackupMetadata:
        """Let the application go on for three days, make copies of its state bad, and back all of it up."""
        self.grow(self.began, frozenset(fault.name for fault in faults if fault.stopped))
        for fault in faults:
            fault.plant(self.live)
        return make_backup(self.plan, BackupType.INCREMENTAL)

    def with_suites(self, suites: Sequence[str]) -> BackupPlan:
        return self.plan.model_copy(update={"quality": list(suites)})

    def verify(self, suites: Sequence[str] = ()) -> Verification:
        return make_verification(self.with_suites(suites), deep=True)


@contextmanager
def campaign(folder: Path) -> Iterator[Campaign]:
    """Open a campaign with servers of its own."""
    redis = RedisServer(folder / "redis", "--databases", "32")
    try:
        with postgres_server() as server:
            yield Campaign(folder, server, redis)
    finally:
        redis.kill()


def main() -> int:
    import logging
    import os
    import resource
    import tempfile
    import time

    logging.disable(logging.WARNING)

    def used() -> str:
        mine, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = mine.ru_utime + mine.ru_stime + children.ru_utime + children.ru_stime
        return f"{cpu:.1f} s of processor time, {time.monotonic() - start:.0f} s"

    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lastgood-proof-") as name:
        os.environ["XDG_STATE_HOME"] = f"{name}/state"
        with campaign(Path(name)) as run:
            print("state made", used(), flush=True)
            run.make_history()
            print("history made", used(), flush=True)
            before = run.good_results[-1]
            for one in said_by(before):
                print("GOOD BACKUP:", one)
            made = run.plant()
            print("backup", made.backup_type, made.promoted_because, used(), flush=True)
            for what, suites in (("nothing", []), ("careful", write_careful(Path(name) / "careful"))):
                result = run.verify(suites)
                print(what, result.status, used(), flush=True)
                for one in said_by(result):
                    print(one)
                missed = [fault for fault in FAULTS if not about(fault.mark, result, before)]
                print(f"{len(FAULTS)} faults, {len(missed)} not found:", *(fault.name for fault in missed))
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
