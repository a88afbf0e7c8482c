"""What retention will remove, foretold by its own policy."""

from __future__ import annotations

from datetime import timedelta

from blocks.plan.retention import RetentionPolicy
from blocks.records import BackupMetadata
from blocks.repository.verdict import Verdict
from flows.reading.outlook import outlook
from flows.reporting.report_facts import Mark, MarkedBackup, Outlook
from tests.flows.reporting.report_records import DIFFERENTIAL, FULL, INCREMENTAL, NOW, history, recorded, verdicts

POLICY = RetentionPolicy(full=timedelta(days=12), differential=timedelta(days=9), incremental=timedelta(days=5))


def foretold(made: list[BackupMetadata], known: dict[str, Verdict]) -> Outlook:
    marked = {
        one.backup_id: MarkedBackup(
            one.backup_id, one.backup_type, one.timestamp, Mark.COMPLETED, one.base, one.size_stored
        )
        for one in made
    }
    return outlook(POLICY, recorded(made, known).seen, marked, NOW)


def test_what_is_foretold_is_what_the_policy_decides_then() -> None:
    made = history(10)
    found = foretold(made, verdicts(made))
    for one, days in zip(found.leaving, (0, 7, 30), strict=True):
        going = [each for each in POLICY.decide(made, NOW + timedelta(days=days)) if each.remove]
        assert (one.backups, one.size_stored) == (len(going), sum(each.backup.size_stored for each in going))
    at_once, week, month = found.leaving
    assert (at_once.when, week.when, month.when) == ("at the next run", "within 7 days", "within 30 days")
    assert set(at_once.counts) == {INCREMENTAL, DIFFERENTIAL}
    assert month.counts[FULL] == 9
    oldest, when, why = found.first[0]
    assert (oldest.kind, when, why) == (INCREMENTAL, "at the next run", "9d old, incremental backups are kept for 5d")
    assert len(found.first) == month.backups


def test_what_stays_whatever_its_age_is_told_with_its_reason() -> None:
    made = history(10)
    proved = next(one for one in made if one.backup_type is FULL)
    found = foretold(made, verdicts(made, [proved.backup_id]))
    held = {one.backup_id: why for one, why in found.held}
    assert held[proved.backup_id] == "the newest verified backup"
    assert held[made[-1].backup_id] == "the newest backup"
    assert all(POLICY.age_limit(one.kind) < timedelta(days=30) + NOW - one.at for one, _ in found.held)


def test_what_is_not_known_to_be_good_does_not_go() -> None:
    made = history(10)
    known = {one.backup_id: Verdict(doubt="a record does not open") for one in made}
    assert [one.backups for one in foretold(made, known).leaving] == [0, 0, 0]


def test_without_backups_nothing_goes() -> None:
    assert [one.backups for one in foretold([], {}).leaving] == [0, 0, 0]
