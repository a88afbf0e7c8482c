"""The alerts: the published ones stand as they were, and each of all fires when it should, and only then."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.monitoring.files import ALERTS, monitoring_files
from tests.deployments.monitoring.promtool import Labels, Series, rules_of, said, wrong

HOUR, DAY = 3600, 86_400

PUBLISHED = {
    "BackupSuccessRateLow": {
        "expr": "sum(rate(backup_operations_created_success[5m])) / sum(rate(backup_operations_created_total[5m]))"
        " < 0.95",
        "for": "10m",
        "labels": {"severity": "warning"},
        "annotations": {"summary": "Backup success rate below 95%"},
    },
    "BackupCreationFailures": {
        "expr": "rate(backup_operations_created_failed[5m]) > 0",
        "for": "5m",
        "labels": {"severity": "critical"},
        "annotations": {"summary": "Backup creation failures detected"},
    },
    "RetentionCleanupFailures": {
        "expr": "rate(backup_retention_cleaned_failed[5m]) > 0",
        "for": "5m",
        "labels": {"severity": "warning"},
        "annotations": {"summary": "Backup retention cleanup failures"},
    },
    "BackupSizeAnomaly": {
        "expr": "rate(backup_operations_size_bytes_total_sum[5m]) / rate(backup_operations_size_bytes_total_count[5m])"
        " > 100000000",
        "for": "10m",
        "labels": {"severity": "info"},
        "annotations": {"summary": "Backup size exceeds expected threshold"},
    },
}  # fmt: skip
RULES = monitoring_files()[ALERTS]
SEVERITIES = {alert: rule["labels"]["severity"] for group in rules_of(RULES).values() for alert, rule in group.items()}


def fires(
    alert: str, why: str, summary: str, at: str, values: dict[str, str], step: str = "1m", **labels: str
) -> Series:
    """Series at which an alert fires, with these labels."""
    expected: Labels = {"severity": SEVERITIES[alert], **labels}
    return Series(f"{alert} fires: {why}", values, at, step, {alert: [(expected, summary)]})


def quiet(alert: str, why: str, at: str, values: dict[str, str], step: str = "1m") -> Series:
    """Series at which an alert does not fire."""
    return Series(f"{alert} is quiet: {why}", values, at, step, {alert: []})


def moments(verb: str, kind: str, failed: int | None, succeeded: int | None) -> dict[str, str]:
    """Of all runs of a verb when the last one failed, and when the last one did not."""
    labels = f'{{plan="books",verb="{verb}",type="{kind}"}}'
    found = {"failure": failed, "success": succeeded}
    return {
        f"lastgood_last_{name}_timestamp_seconds{labels}": f"{moment}+0x10000"
        for name, moment in found.items()
        if moment is not None
    }


def last_run(alert: str, verb: str, kind: str, summary: str, limit: int | None) -> Iterator[Series]:
    """How an alert goes by the last run of a verb, for so many seconds."""
    # a label without a value is none
    labels = {"plan": "books", "verb": verb} | ({"type": kind} if kind else {})
    other = {"backup": "verification", "verification": "retention", "retention": "backup"}[verb]

    def at(why: str, failed: int, succeeded: int | None) -> Series:
        return fires(alert, why, summary, "3h", moments(verb, kind, failed, succeeded), **labels)

    yield at("the last one failed", 2 * HOUR, HOUR)
    yield at("the first one failed", 2 * HOUR, None)
    yield quiet(alert, "one succeeded since", "3h", moments(verb, kind, HOUR, 2 * HOUR))
    yield quiet(alert, "all succeeded", "3h", moments(verb, kind, None, HOUR))
    yield quiet(alert, "another verb failed", "3h", moments(other, kind, HOUR, None))
    late = f"{(limit or 4 * DAY) + 3 * HOUR}s"
    if limit:
        yield quiet(alert, "it was long ago", late, moments(verb, kind, 2 * HOUR, None), "1h")
    else:
        yield fires(alert, "and stays so", summary, late, moments(verb, kind, 2 * HOUR, None), step="1h", **labels)


def ours() -> Iterator[Series]:
    plan = {"plan": "books"}
    failed = "books: the last full backup failed, or left something out"
    yield from last_run("LastgoodBackupFailed", "backup", "full", failed, 2 * DAY)
    yield fires(
        "LastgoodBackupFailed", "another type succeeded since", failed, "3h",
        {**moments("backup", "full", HOUR, 0), **moments("backup", "incremental", None, 2 * HOUR)},
        plan="books", verb="backup", type="full",
    )  # fmt: skip

    good = 'lastgood_newest_good_backup_timestamp_seconds{plan="books"}'
    target = {'lastgood_rpo_target_seconds{plan="books"}': "1800+0x10000"}
    summary = "books: the newest good backup is 32m 0s old, more than the RPO"
    yield fires("LastgoodNoGoodBackup", "too old", summary, "32m", {good: "0+0x100", **target}, **plan)
    yield quiet("LastgoodNoGoodBackup", "young enough", "29m", {good: "0+0x100", **target})
    yield quiet("LastgoodNoGoodBackup", "a newer one", "90m", {good: "0+0x70 4200+0x100", **target})
    yield quiet("LastgoodNoGoodBackup", "made by hand, no RPO", "90m", {good: "0+0x100"})

    up = 'lastgood_up{plan="books"}'
    summary = "books: there is no good backup"
    yield fires("LastgoodNeverBackedUp", "none", summary, "62m", {up: "1+0x100"}, **plan)
    yield quiet("LastgoodNeverBackedUp", "a plan that is new", "50m", {up: "1+0x100"})
    yield quiet("LastgoodNeverBackedUp", "there is one", "90m", {up: "1+0x100", good: "0+0x100"})
    yield quiet("LastgoodNeverBackedUp", "nobody can look", "90m", {up: "0+0x100"})

    def backups(kind: str, status: str) -> str:
        return f'lastgood_backups{{plan="books",type="{kind}",status="{status}"}}'

    yield fires(
        "LastgoodBackupCorrupted", "some are", "books: corrupted backups: 3", "5m",
        {backups("full", "corrupted"): "0x2 1+0x10", backups("incremental", "corrupted"): "0x2 2+0x10"},
        plan="books", status="corrupted",
    )  # fmt: skip
    yield quiet(
        "LastgoodBackupCorrupted", "none is", "5m",
        {backups("full", "corrupted"): "0+0x10", backups("full", "verified"): "7+0x10"},
    )  # fmt: skip

    failed = "books: the last deep verification found something bad, or could not prove all"
    yield from last_run("LastgoodVerificationFailed", "verification", "deep", failed, 8 * DAY)

    verified = 'lastgood_newest_verified_backup_timestamp_seconds{plan="books"}'
    summary = "books: the newest verified backup is 8d 2h 0m 0s old"
    yield fires("LastgoodNotVerified", "too old", summary, "194h", {verified: "0+0x300"}, "1h", **plan)
    yield quiet("LastgoodNotVerified", "a week old", "170h", {verified: "0+0x300"}, "1h")
    yield quiet("LastgoodNotVerified", "one since", "194h", {verified: "0+0x160 576000+0x100"}, "1h")

    summary = "books: no backup was ever verified"
    yield fires("LastgoodNeverVerified", "none", summary, "194h", {good: "0+0x300"}, "1h", **plan)
    yield quiet("LastgoodNeverVerified", "a plan that is new", "170h", {good: "0+0x300"}, "1h")
    yield quiet("LastgoodNeverVerified", "one was", "194h", {good: "0+0x300", verified: "0+0x300"}, "1h")

    failed = "books: the last retention run failed, or removed only a part"
    yield from last_run("LastgoodRetentionFailed", "retention", "", failed, None)

    yield from sizes()

    marked = 'lastgood_backup_suspicious{plan="books"}'
    summary = "books: a backup departs from the history, and nobody has accepted it"
    yield fires("LastgoodBackupSuspicious", "marked", summary, "5m", {marked: "0+0x2 1+0x10"}, **plan)
    yield quiet("LastgoodBackupSuspicious", "it was accepted", "5m", {marked: "1+0x2 0+0x10"})

    rto = 'lastgood_rto_seconds{plan="books"}'
    limit = {'lastgood_rto_target_seconds{plan="books"}': "1800+0x10"}
    summary = "books: a restore takes 40m 0s, more than the RTO"
    yield fires("LastgoodRestoreTooSlow", "longer", summary, "5m", {rto: "2400+0x10", **limit}, **plan)
    yield quiet("LastgoodRestoreTooSlow", "in time", "5m", {rto: "1700+0x10", **limit})
    yield quiet("LastgoodRestoreTooSlow", "no RTO", "5m", {rto: "2400+0x10"})

    free = 'lastgood_repository_free_bytes{plan="books"}'
    summary = "books: the repository's storage is full within a week"
    yield fires("LastgoodRepositoryFills", "falls", summary, "80h", {free: "200000000000-1000000000x100"}, "1h", **plan)
    yield quiet("LastgoodRepositoryFills", "falls slowly", "80h", {free: "900000000000-1000000000x100"}, "1h")
    yield quiet("LastgoodRepositoryFills", "first full", "5h", {free: "200000000000-20000000000x5"}, "1h")

    summary = "books: the repository cannot be read"
    yield fires("LastgoodRepositoryDown", "for long", summary, "13m", {up: "1+0x1 0+0x20"}, **plan)
    yield quiet("LastgoodRepositoryDown", "for a moment", "13m", {up: "1+0x1 0+0x5 1+0x20"})

    scraped, summary = 'up{job="lastgood"}', "lastgood's metrics are not there: nothing else would be noticed"
    yield fires("LastgoodExporterDown", "it is", summary, "8m", {scraped: "1+0x1 0+0x20"}, job="lastgood")
    yield fires("LastgoodExporterDown", "nothing at all", summary, "8m", {'up{job="node"}': "1+0x20"}, job="lastgood")
    yield quiet("LastgoodExporterDown", "it is not", "8m", {scraped: "1+0x20"})
    yield quiet("LastgoodExporterDown", "from a text file", "8m", {'up{job="node"}': "1+0x20", up: "1+0x20"})

    file = 'node_textfile_mtime_seconds{file="/var/lib/lastgood.prom"}'
    summary, labels = "/var/lib/lastgood.prom was written 1h 30m 0s ago", {"file": "/var/lib/lastgood.prom"}
    yield fires("LastgoodTextfileStale", "old", summary, "90m", {file: "0+0x100"}, **labels)
    yield quiet("LastgoodTextfileStale", "young", "50m", {file: "0+0x100"})
    yield quiet(
        "LastgoodTextfileStale", "of others", "90m", {'node_textfile_mtime_seconds{file="apt.prom"}': "0+0x100"}
    )


def sizes() -> Iterator[Series]:
    alert, megabyte = "LastgoodBackupSizeUnusual", 1 << 20

    def size(kind: str, before: str, after: int) -> dict[str, str]:
        return {f'lastgood_backup_size_bytes{{plan="books",type="{kind}"}}': f"{before} {after}+0x3"}

    def is_unusual(why: str, kind: str, before: str, after: int, text: str) -> Series:
        summary = f"books: the newest {kind} backup has {text}B, far from its history"
        return fires(alert, why, summary, "242h", size(kind, before, after), "1h", plan="books", type=kind)

    steady = f"{100 * megabyte}+0x239"
    # as many samples, of a size that goes up and down by half from one to the next
    uneven = " ".join([f"{100 * megabyte} {150 * megabyte}"] * 120)
    yield is_unusual("grown to more than twice", "full", steady, 210 * megabyte, "210Mi")
    yield is_unusual("shrunk to less than half", "full", steady, 40 * megabyte, "40Mi")
    yield is_unusual("grown beyond what is usual", "incremental", uneven, 310 * megabyte, "310Mi")
    yield quiet(alert, "within what is usual", "242h", size("full", uneven, 290 * megabyte), "1h")
    yield quiet(alert, "an incremental without changes", "242h", size("incremental", steady, 0), "1h")
    yield quiet(alert, "no history yet", "102h", size("full", f"{megabyte}+0x99", 900 * megabyte), "1h")


def published(prefix: str = "") -> Iterator[Series]:
    """The published ones, at runs that come every two minutes."""
    every = " ".join(f"{n}+0x3" for n in range(60))  # each value for two minutes
    none, name = "0+0x240", f"{prefix}backup_operations_"
    created = {f"{name}created_total": every}
    for alert, bad, good in (
        ("BackupSuccessRateLow", {f"{name}created_success": none, **created},
         {f"{name}created_success": every, **created}),
        ("BackupCreationFailures", {f"{name}created_failed": every}, {f"{name}created_failed": none}),
        ("RetentionCleanupFailures", {f"{prefix}backup_retention_cleaned_failed": every},
         {f"{prefix}backup_retention_cleaned_failed": none}),
        ("BackupSizeAnomaly", volumes(name, 200_000_000), volumes(name, 50_000_000)),
    ):  # fmt: skip
        yield fires(alert, "all of them", PUBLISHED[alert]["annotations"]["summary"], "40m", bad, "30s")
        yield quiet(alert, "none of them", "40m", good, "30s")


def volumes(name: str, size: int) -> dict[str, str]:
    counted = range(60)
    return {
        f"{name}size_bytes_total_sum": " ".join(f"{n * size}+0x3" for n in counted),
        f"{name}size_bytes_total_count": " ".join(f"{n}+0x3" for n in counted),
    }


CASES = [*published(), *ours()]


def test_the_published_group_is_as_it_was_published() -> None:
    assert rules_of(RULES)["backup_alerts"] == PUBLISHED


def test_promtool_takes_the_rules(tmp_path: Path) -> None:
    (tmp_path / ALERTS).write_text(RULES)
    assert said("check", "rules", str(tmp_path / ALERTS)) == ""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_alert_fires_when_it_should(case: Series, tmp_path: Path) -> None:
    assert wrong(RULES, case.alerts, case, tmp_path) == ""


def test_each_alert_is_seen_to_fire_and_to_be_quiet() -> None:
    fired = {alert for case in CASES for alert, expected in case.alerts.items() if expected}
    silent = {alert for case in CASES for alert, expected in case.alerts.items() if not expected}
    assert fired == silent == set(SEVERITIES)


@pytest.mark.parametrize("case", [*published("site_")], ids=lambda case: case.name)
def test_under_a_prefix_the_published_alerts_fire_at_its_metrics(case: Series, tmp_path: Path) -> None:
    assert wrong(monitoring_files("site")[ALERTS], case.alerts, case, tmp_path) == ""


def test_what_fires_otherwise_would_be_noticed(tmp_path: Path) -> None:
    case = CASES[0]
    other = Series(case.name, case.values, case.at, case.step, dict.fromkeys(case.alerts, ()))
    assert "FAILED" in wrong(RULES, case.alerts, other, tmp_path)
