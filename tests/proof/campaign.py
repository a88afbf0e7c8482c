"""Good backups with history, then all faults at once in one backup, and what its verifications say of each.

Run as `python -m tests.proof.campaign`: prints all that is said of each fault; exit code 1 where one is not found.
"""

from __future__ import annotations

import logging
import os
import re
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from unittest.mock import patch

from blocks.crypto.keyring import NoEncryption
from blocks.plan.plan import BackupPlan
from blocks.plan.quality.findings import is_fault
from blocks.records import BackupMetadata, BackupType
from blocks.repository.block import BackupRepository
from blocks.sources.files import FilesSource
from blocks.sources.postgres import PostgresSource
from blocks.sources.redis import RedisSource
from blocks.sources.sqlite import SQLiteSource
from blocks.verification import Axis, RuleOutcome, RuleResult, Verification
from flows.backup import make_backup
from flows.proving import definitions, proof
from flows.verify import make_verification
from tests.blocks.sources.redis.kit import RedisServer
from tests.postgres_server import postgres_server
from tests.proof.clock import clock_moved
from tests.proof.live import DAYS, SMALL_FILLS, Books, Cache, Feeds, Ledger, now
from tests.proof.planted import BOOKS, CACHE, FAULTS, FEEDS, LEDGER, SOUND, SOUND_MARKS, Fault, Live
from tests.proof.suites import OF_CAREFUL, OF_SUGGESTED, write_careful, write_suggested

MARKS = (*SOUND_MARKS, *(fault.mark for fault in FAULTS))
GOOD_DAYS = (5, 4, 3)
"""How many days ago the good backups were made."""
ALONE, SUGGESTED, CAREFUL = "without a suite", "with the suggested suite", "with a careful suite"
LEVELS = (ALONE, SUGGESTED, CAREFUL)


@dataclass(frozen=True)
class Found:
    """One sentence about a fault.

    Attributes:
        axis: The axis of the verification that says it.
        bad: Whether the verification fails for it; else it is a warning.
        rule: What found it; empty where the axis's own checks did.
        collection: What the rule is about.
        suite: The suite that the rule is of.
    """

    axis: str
    bad: bool
    rule: str
    sentence: str
    collection: str = ""
    suite: str = ""

    def names(self, mark: re.Pattern[str]) -> bool:
        """Whether it is about a copy."""
        return bool(mark.search(self.collection or self.sentence))


def said_by(result: Verification) -> Iterator[Found]:
    """Yield everything that a verification says: its rules, which are not cut short, then the checks of each axis."""
    quality = Axis.QUALITY.value
    said = {rule.sentence for rule in result.rules if rule.sentence}
    for rule in result.rules:
        # what a suite does not say, as it is written or for want of an earlier verification, is nothing that was found
        if rule.outcome is RuleOutcome.BROKEN:
            yield Found(quality, rule.severity == "critical", rule.rule, rule.sentence, rule.collection, rule.suite)
    for axis, found in result.results.items():
        for bad, sentences in ((True, found.findings), (False, found.warnings)):
            for sentence in sentences:
                if not any(one in sentence for one in said):
                    yield Found(axis, bad, "", sentence)


@dataclass(frozen=True)
class Said:
    """What a campaign found.

    Attributes:
        faults: By the name of a fault and a level what was said of it.
        of_sound: What was said of copies without a fault.
        of_nobody: What names no copy at all.
        of_history: What was said of a good backup.
        unjudged: Rules that said nothing, as they are written.
    """

    faults: dict[str, dict[str, list[Found]]]
    of_sound: dict[str, list[Found]]
    of_nobody: dict[str, list[Found]]
    of_history: list[Found]
    unjudged: list[RuleResult]


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

    def grow(self, until: datetime, but: frozenset[str] = frozenset()) -> None:
        for store in (self.live.books, self.live.ledger, self.live.cache, self.live.feeds):
            store.grow(until, but)

    def make_history(self) -> None:
        """Make the good backups, days apart."""
        for days in GOOD_DAYS:
            ago = timedelta(days=days)
            self.grow(self.began - ago)
            with clock_moved(-ago):
                kind = BackupType.INCREMENTAL if self.good else BackupType.FULL
                self.good.append(make_backup(self.plan, kind))

    def plant(self, faults: Sequence[Fault] = FAULTS) -> BackupMetadata:
        """Let the application go on for three days, make copies of its state bad, and back all of it up."""
        self.grow(self.began, frozenset(fault.name for fault in faults if fault.stopped))
        for fault in faults:
            fault.plant(self.live)
        return make_backup(self.plan, BackupType.INCREMENTAL)

    def run(self, whole: bool, step: Callable[[str], None] = lambda what: None) -> Said:
        """Do everything.

        Args:
            whole: Whether suites are suggested, too, and the last good backup is verified with all suites.
            step: Is told when something is done.
        """
        step("state made")
        self.make_history()
        step("history made")
        suites = [write_careful(self.folder), *([write_suggested(self.plan, self.folder)] if whole else [])]
        before = self.verify(suites if whole else [])
        step("suites written, good backup verified")
        self.plant()
        step("faults backed up")
        # as many faults at once as no state has: sentences about each are kept
        with patch.object(definitions, "MOST_NAMED", 1_000), patch.object(proof, "MOST_SENTENCES", 10_000):
            alone, judged = self.verify(), self.verify(suites)
        step("verified")
        known = {one.sentence for one in said_by(before)}
        said = {
            ALONE: list(said_by(alone)),
            SUGGESTED: [one for one in said_by(judged) if not one.suite.startswith(OF_CAREFUL)],
            CAREFUL: [one for one in said_by(judged) if not one.suite.startswith(OF_SUGGESTED)],
        }
        return Said(
            {
                fault.name: {
                    level: [one for one in found if one.names(fault.mark) and one.sentence not in known]
                    for level, found in said.items()
                }
                for fault in FAULTS
            },
            {level: [one for one in found if any(map(one.names, SOUND_MARKS))] for level, found in said.items()},
            {level: [one for one in found if not any(map(one.names, MARKS))] for level, found in said.items()},
            [*said_by(before)],
            [rule for rule in judged.rules if is_fault(rule)],
        )

    def with_suites(self, suites: Sequence[str]) -> BackupPlan:
        return self.plan.model_copy(update={"quality": list(suites)})

    def verify(self, suites: Sequence[str] = ()) -> Verification:
        return make_verification(self.with_suites(suites), deep=True)


def main() -> int:
    """Run one campaign, and print all that is said."""
    logging.disable(logging.WARNING)
    start = time.monotonic()

    def step(what: str) -> None:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        seconds = sum(one.ru_utime + one.ru_stime for one in used)
        print(f"-- {what}: {seconds:.1f} s of processor time, {time.monotonic() - start:.0f} s", flush=True)

    with tempfile.TemporaryDirectory(prefix="lastgood-proof-") as name, postgres_server() as server:
        os.environ["XDG_STATE_HOME"] = f"{name}/state"
        redis = RedisServer(Path(name) / "redis", "--databases", "32")
        try:
            said = Campaign(Path(name), server, redis).run(True, step)
        finally:
            redis.kill()
    for fault in FAULTS:
        for level, found in said.faults[fault.name].items():
            for one in found:
                print(f"{fault.name} {level}: {one.axis} {'BAD' if one.bad else 'said'} [{one.rule}] {one.sentence}")
    for what in (said.of_sound, said.of_nobody):
        for level, found in what.items():
            for one in found:
                print(f"OF NO FAULT, {level}: {one}")
    print("OF GOOD BACKUPS:", *said.of_history)
    print("UNJUDGED:", *said.unjudged)
    for level in LEVELS:
        missed = [fault.name for fault in FAULTS if not said.faults[fault.name][level]]
        print(f"{level}: {len(FAULTS) - len(missed)} of {len(FAULTS)}; not found:", *missed)
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
