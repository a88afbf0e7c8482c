"""Metrics of real runs in several processes, scraped from exporters that come and go."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from blocks.errors import LastgoodError
from blocks.plan.objectives import Objectives
from blocks.plan.plan import BackupPlan, read_plan
from blocks.records import BackupType, Expiry
from blocks.repository import names
from blocks.repository.block import BackupRepository
from blocks.rows.selection import Selection
from blocks.sources.target import RestoreMode
from flows.backup import make_backup
from flows.reading import exporter as exporter_module
from flows.reading.exporter import Exporter, exporter_of
from flows.reading.plan_metrics import TYPES
from flows.reading.repository_numbers import RepositoryReader
from flows.reporting import journal, journal_files
from flows.reporting.journal import BEAT_SECONDS
from flows.reporting.journal_files import journal_folder, segment
from flows.reporting.journal_reader import JournalReader
from flows.reporting.journal_totals import GONE_AFTER
from flows.reporting.lifecycle import Verb, operation
from flows.restore import make_restore
from flows.restoring.request import RestoreRequest
from flows.retention import apply_retention
from flows.verify import make_verification
from tests.flows.reading.exported import Scraped, scraped
from tests.flows.reporting.journal_support import ended, note, operations, started
from tests.forked import forked, killed
from tests.object_servers import Seaweed

PLAN = """
name: books
sources: {ledger: {type: sqlite, path: ledger.sqlite}}
repository: {url: repository}
encryption: none
"""


def plan_in(folder: Path) -> BackupPlan:
    folder.mkdir(exist_ok=True)
    with sqlite3.connect(folder / "ledger.sqlite") as database:
        database.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, amount REAL)")
        database.executemany("INSERT INTO orders VALUES (?, 2.5)", [(n,) for n in range(50)])
    database.close()
    (folder / "plan.yaml").write_text(PLAN)
    made = read_plan(folder / "plan.yaml")
    made.repository.initialize(made.encryption, lambda kit: None)
    return made


@pytest.fixture
def plan(tmp_path: Path) -> BackupPlan:
    return plan_in(tmp_path / "desk")


def scrape(*plans: BackupPlan, prefix: str | None = None) -> Scraped:
    """Scrape an exporter that was just started."""
    exporter = exporter_of(plans, prefix)
    exporter.look()
    return scraped(exporter.text())


def damage(plan: BackupPlan, backup_id: str) -> None:
    assert plan.repository.folder is not None
    (pack,) = (plan.repository.folder / "backups" / plan.name / backup_id).glob("*.pack")
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(data)


def test_all_counters_are_there_before_the_first_run(plan: BackupPlan) -> None:
    found = scrape(plan)
    assert set(found.counters().values()) == {0.0}
    assert {(verb, kind) for verb, kinds in TYPES.items() for kind in kinds} == {
        (dict(labels)["verb"], dict(labels).get("type", "")) for labels in found.of("lastgood_operations_started_total")
    }
    assert found("lastgood_up") == 1
    assert found("lastgood_backups_committed_total") == 0
    assert found("lastgood_newest_good_backup_timestamp_seconds") is None
    assert found("lastgood_rpo_seconds") == math.inf


def test_the_published_names_and_types_are_those_of_the_original(plan: BackupPlan) -> None:
    kinds = {name: kind for name, kind in scrape(plan).kinds.items() if name.startswith("backup_")}
    assert kinds == {
        "backup_operations_created_total": "counter",
        "backup_operations_created_success": "counter",
        "backup_operations_created_failed": "counter",
        "backup_operations_duration_seconds": "histogram",
        "backup_operations_size_bytes_total": "histogram",
        "backup_retention_cleaned_total": "counter",
        "backup_retention_cleaned_success": "counter",
        "backup_retention_cleaned_failed": "counter",
        "backup_retention_removed_count": "histogram",
    }


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("backup_operations_duration_seconds", 0.1, 6 * 3600),
        ("backup_operations_size_bytes_total", 1e3, 1e13),
        ("backup_retention_removed_count", 1, 10_000),
    ],
)
def test_buckets_fit_what_backups_are(plan: BackupPlan, name: str, least: float, most: float) -> None:
    bounds = sorted(float(dict(labels)["le"]) for labels in scrape(plan).of(f"{name}_bucket"))
    assert (bounds[0], bounds[-2], bounds[-1]) == (least, most, math.inf)


def test_a_backup_of_another_machine_is_a_success_here_too(
    plan: BackupPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = tmp_path / "desk" / "ledger.sqlite"
    ledger.rename(tmp_path / "aside")
    with pytest.raises(LastgoodError):
        make_backup(plan, BackupType.FULL)
    (tmp_path / "aside").rename(ledger)
    with monkeypatch.context() as another:
        another.setenv("LASTGOOD_JOURNAL", str(tmp_path / "another"))
        made = make_backup(plan, BackupType.FULL)
    found, labels = scrape(plan), {"plan": "books", "verb": "backup", "type": "full"}
    failed, succeeded = (found(f"lastgood_last_{end}_timestamp_seconds", **labels) for end in ("failure", "success"))
    assert succeeded == pytest.approx(made.timestamp.timestamp())
    assert failed is not None
    assert failed < made.timestamp.timestamp()


def test_each_verb_is_counted_in_whatever_process_it_ran(plan: BackupPlan, tmp_path: Path) -> None:
    forked(lambda: make_backup(plan, BackupType.FULL))
    forked(lambda: make_backup(plan, BackupType.INCREMENTAL))
    forked(lambda: make_verification(plan, deep=True))
    forked(lambda: make_restore(plan, RestoreRequest("latest", selection=Selection(), mode=RestoreMode.EXACT)))
    forked(lambda: apply_retention(plan))
    (tmp_path / "desk" / "ledger.sqlite").unlink()

    def fails() -> None:
        with pytest.raises(LastgoodError):
            make_backup(plan, BackupType.INCREMENTAL)

    forked(fails)
    found = scrape(plan)
    ends = {
        ("backup", "full", "completed"): 1,
        ("backup", "incremental", "completed"): 1,
        ("backup", "incremental", "failed"): 1,
        ("verification", "deep", "completed"): 1,
        ("restore", "exact", "completed"): 1,
        ("retention", "", "completed"): 1,
    }
    for labels, value in found.of("lastgood_operations_ended_total").items():
        told = dict(labels)
        assert value == ends.get((told["verb"], told.get("type", ""), told["outcome"]), 0), told
    assert found("backup_operations_created_total") == 3
    assert found("backup_operations_created_success") == 2
    assert found("backup_operations_created_failed") == 1
    assert found("backup_operations_duration_seconds_count") == 3
    assert found("backup_operations_size_bytes_total_count") == 2
    assert found("backup_retention_cleaned_total") == found("backup_retention_cleaned_success") == 1
    assert found("backup_retention_removed_count_count") == 0
    listed = plan.repository.unlock(plan.encryption).backups("books")
    assert found("backup_operations_size_bytes_total_sum") == sum(
        made.size_stored for made in listed if made.backup_type is not BackupType.EMERGENCY
    )
    assert found("lastgood_verifications_total", status="verified") == 1
    assert found("lastgood_backups", type="incremental", status="verified") == 1
    assert found("lastgood_backups_committed_total") == listed[-1].sequence
    assert found("lastgood_repository_stored_bytes") == sum(made.size_stored for made in listed)
    assert found("lastgood_backup_rows", type="incremental") == 50
    for name in ("success", "failure"):
        moment = found(f"lastgood_last_{name}_timestamp_seconds", verb="backup", type="incremental")
        assert moment == pytest.approx(time.time(), abs=60)
    assert (found("lastgood_rto_seconds") or 0) > 0
    assert (found("lastgood_source_rows_total", source="ledger") or 0) >= 50
    assert (found("lastgood_stage_seconds_total", verb="backup", stage="collect") or 0) > 0
    tier = str(plan.repository.folder)
    assert (found("lastgood_tier_bytes_total", tier=tier, direction="written") or 0) > 0
    assert (found("lastgood_tier_calls_total", tier=tier, call="put", outcome="ok") or 0) > 0


def test_every_metric_says_what_it_means(plan: BackupPlan) -> None:
    make_backup(plan, BackupType.FULL)
    found = scrape(plan)
    assert [name for name, meaning in found.meanings.items() if len(meaning) < 20 or not meaning.endswith(".")] == []


def test_promtool_finds_nothing_wrong_but_the_published_names(plan: BackupPlan) -> None:
    make_backup(plan, BackupType.FULL)
    make_verification(plan)
    exporter = exporter_of([plan])
    exporter.look()
    said = subprocess.run(["promtool", "check", "metrics"], input=exporter.text(), capture_output=True, text=True)
    assert {line.split(" ")[0] for line in (said.stdout + said.stderr).splitlines()} == {
        "backup_operations_created_success",
        "backup_operations_created_failed",
        "backup_operations_size_bytes_total",
        "backup_retention_cleaned_success",
        "backup_retention_cleaned_failed",
    }
    assert "suffix" in said.stdout + said.stderr


def test_a_bad_backup_is_told_at_once_and_by_the_records(plan: BackupPlan) -> None:
    first = make_backup(plan, BackupType.FULL)
    second = make_backup(plan, BackupType.FULL)
    damage(plan, second.backup_id)
    make_verification(plan, deep=False)
    found = scrape(plan)
    assert found("lastgood_operations_ended_total", verb="verification", type="quick", outcome="bad") == 1
    assert found("lastgood_backups", type="full", status="corrupted") == 1
    good = found("lastgood_newest_good_backup_timestamp_seconds")
    assert good == pytest.approx(first.timestamp.timestamp())
    shutil.rmtree(str(plan.repository.folder))
    gone = scrape(plan)
    assert gone("lastgood_up") == 0
    assert gone("lastgood_newest_good_backup_timestamp_seconds") == pytest.approx(good, abs=0.01)


def test_where_the_repository_cannot_be_read_the_journal_tells_what_it_knows(plan: BackupPlan) -> None:
    make_backup(plan, BackupType.FULL)
    make_verification(plan)
    before = scrape(plan)
    shutil.move(str(plan.repository.folder), str(plan.repository.folder) + ".away")
    found = scrape(plan)
    assert found("lastgood_up") == 0
    assert found.of("lastgood_backups") == {}
    for name in (
        "lastgood_newest_good_backup_timestamp_seconds",
        "lastgood_newest_verified_backup_timestamp_seconds",
        "lastgood_last_verification_timestamp_seconds",
        "lastgood_rto_seconds",
    ):
        assert found(name) == pytest.approx(before(name), abs=0.01), name
    assert found("lastgood_backup_rows", type="full") == 50
    less = {
        one: (value, found.series.get(one))
        for one, value in before.counters().items()
        if found.series.get(one, value if one[0] == "lastgood_backups_committed_total" else 0) < value
    }
    assert less == {}


def test_a_killed_backup_has_failed_once_its_process_is_gone(plan: BackupPlan) -> None:
    def dies() -> None:
        with operation(plan, Verb.BACKUP, "full"):
            os.kill(os.getpid(), signal.SIGKILL)

    with operation(plan, Verb.BACKUP, "incremental"):
        assert killed(dies)
        found = scrape(plan)
        assert found("backup_operations_created_total") == 2
        assert found("backup_operations_created_failed") == 1
        assert found("lastgood_operations_ended_total", verb="backup", type="full", outcome="failed") == 1
        assert found("lastgood_last_failure_timestamp_seconds", verb="backup", type="full") is not None
    # its end did not come, so nothing is known of how long it took
    again = scrape(plan)
    assert again("backup_operations_duration_seconds_count") == 1
    assert again("backup_operations_created_failed") == 1
    text = segment(journal_folder(), 1).read_text()
    assert text.count('"lost"') == 1, "others who read the journal are told, too"


def test_a_killed_backup_of_another_machine_has_failed_after_hours(plan: BackupPlan) -> None:
    folder, now = journal_folder(), datetime.now(UTC)
    elsewhere = {"process": "other:7 [00000000-123]", "host": ["another", "boot"]}
    note(folder, started("young", now - GONE_AFTER + timedelta(minutes=5), **elsewhere))
    note(folder, started("old", now - GONE_AFTER - timedelta(minutes=5), **elsewhere))
    totals = JournalReader(folder).read()
    assert list(totals.pending) == ["young"]
    # and one that ends after all is counted as what it was, too
    note(folder, ended("old", now))
    counts = JournalReader(folder).read().of("", "r" * 32, "books").counts
    assert counts["started", "backup", "incremental"] == 2
    assert counts["ended", "backup", "incremental", "failed"] == 1
    assert counts["ended", "backup", "incremental", "completed"] == 1


def test_an_operation_of_another_machine_that_says_that_it_runs_has_not_failed_however_long_it_takes(
    plan: BackupPlan,
) -> None:
    folder, now = journal_folder(), datetime.now(UTC)
    note(folder, started("long", now - 5 * GONE_AFTER, process="other:7 [00000000-123]", host=["another", "boot"]))
    note(folder, {"event": "runs", "id": "long", "at": (now - GONE_AFTER / 2).isoformat()})
    reader = JournalReader(folder)
    assert list(reader.read().pending) == ["long"]
    note(folder, ended("long", now))
    counts = reader.read().of("", "r" * 32, "books").counts
    assert counts["ended", "backup", "incremental", "failed"] == 0
    assert counts["ended", "backup", "incremental", "completed"] == 1


def test_an_operation_says_now_and_then_that_it_runs_and_not_after_its_end(
    plan: BackupPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "BEAT_SECONDS", 0.01)
    noted, text = threading.Event(), segment(journal_folder(), 1)
    real = journal.append

    def append(folder: Path, line: Any, *more: Any) -> bool:
        done = real(folder, line, *more)
        if line["event"] == "runs":
            noted.set()
        return done

    monkeypatch.setattr(journal, "append", append)
    with operation(plan, Verb.RETENTION) as run:
        assert noted.wait(60)
    beats = [thread for thread in threading.enumerate() if thread.name == "journal-beat"]
    for thread in beats:
        thread.join(60)
        assert not thread.is_alive()
    lines = [json.loads(line) for line in text.read_text().splitlines()]
    assert {line["id"] for line in lines} == {run.operation_id}
    assert [lines[0]["event"], lines[1]["event"]] == ["started", "runs"]
    assert GONE_AFTER.total_seconds() >= BEAT_SECONDS * 3, "one that is missed does no harm"


def test_an_operation_of_a_process_that_runs_has_not_failed_however_far_the_clock_jumped(plan: BackupPlan) -> None:
    folder, now = journal_folder(), datetime.now(UTC)
    note(folder, started("long", now - 2 * GONE_AFTER))
    assert list(JournalReader(folder).read().pending) == ["long"]
    note(folder, ended("long", now))
    counts = JournalReader(folder).read().of("", "r" * 32, "books").counts
    assert counts["ended", "backup", "incremental", "failed"] == 0
    assert counts["ended", "backup", "incremental", "completed"] == 1


def test_a_host_that_was_started_again_runs_nothing_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.reporting import journal_totals

    monkeypatch.setattr(journal_totals, "running_host", lambda: ("this", "second boot"))
    now = datetime.now(UTC).timestamp()
    of = [("this", "first boot"), ("this", "second boot"), ("other", "first boot"), None]
    pending = [
        journal_totals.Pending("r", "books", "backup", "full", now, "elsewhere:1 [00000000-1]", host) for host in of
    ]
    assert [one.gone(datetime.now(UTC)) for one in pending] == [True, False, False, False]


def test_two_repositories_with_plans_of_one_name_do_not_mix(plan: BackupPlan, tmp_path: Path) -> None:
    other = plan_in(tmp_path / "other")
    make_backup(plan, BackupType.FULL)
    make_backup(plan, BackupType.FULL)
    make_backup(other, BackupType.FULL)
    assert scrape(plan)("backup_operations_created_total") == 2
    assert scrape(other)("backup_operations_created_total") == 1


def test_a_repository_is_the_same_by_another_path(plan: BackupPlan, tmp_path: Path) -> None:
    """Workers in containers see it elsewhere than the exporter does."""
    make_backup(plan, BackupType.FULL)
    (tmp_path / "mounted").symlink_to(tmp_path / "desk")
    elsewhere = read_plan(tmp_path / "mounted" / "plan.yaml")
    make_backup(elsewhere, BackupType.FULL)
    for one in (plan, elsewhere):
        assert scrape(one)("backup_operations_created_success") == 2


def test_several_plans_are_told_together_and_apart(plan: BackupPlan, tmp_path: Path) -> None:
    other = plan_in(tmp_path / "other").model_copy(update={"name": "ledgers"})
    make_backup(plan, BackupType.FULL)
    make_backup(other, BackupType.FULL)
    found = scrape(plan, other)
    assert found("backup_operations_created_total") == 2
    for name in ("books", "ledgers"):
        assert found("lastgood_operations_started_total", plan=name, verb="backup", type="full") == 1


def test_workers_that_share_a_folder_are_counted_together(
    plan: BackupPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LASTGOOD_JOURNAL", str(tmp_path / "shared"))
    for home in ("one", "two"):

        def works(home: str = home) -> None:
            os.environ["XDG_STATE_HOME"] = str(tmp_path / home)
            make_backup(plan, BackupType.FULL)

        forked(works)
    assert scrape(plan)("backup_operations_created_success") == 2
    assert not (tmp_path / "one" / "lastgood" / "journal").exists()


@pytest.mark.parametrize("wrong", ["/proc/self/nowhere", "FILE"])
def test_a_journal_that_cannot_be_written_breaks_no_backup(
    plan: BackupPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, wrong: str
) -> None:
    (tmp_path / "FILE").write_text("in the way")
    monkeypatch.setenv("LASTGOOD_JOURNAL", wrong.replace("FILE", str(tmp_path / "FILE")))
    make_backup(plan, BackupType.FULL)
    assert len([one for one in caplog.records if "journal" in one.getMessage()]) == 1
    found = scrape(plan)
    assert found("lastgood_up") == 1
    assert found("lastgood_backups", type="full", status="completed") == 1


def test_a_journal_on_a_file_server_that_does_not_answer_holds_up_no_backup(
    plan: BackupPlan, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answers = threading.Event()
    monkeypatch.setattr(journal, "append", lambda *_: answers.wait(60))
    monkeypatch.setattr(journal, "WAIT_SECONDS", 0.05)
    make_backup(plan, BackupType.FULL)
    assert not answers.is_set()
    answers.set()
    assert [one.getMessage() for one in caplog.records if "journal" in one.getMessage()] == [
        "metrics miss this backup: the journal cannot be written: it takes more than 0.05 seconds"
    ]


def test_a_backup_is_not_said_to_have_failed_since_the_journal_was_slow_when_it_began(
    plan: BackupPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, answers = journal_files.append, threading.Event()

    def slow(*args: Any) -> bool:
        answers.wait(60)
        return append(*args)

    monkeypatch.setattr(journal, "append", slow)
    monkeypatch.setattr(journal, "WAIT_SECONDS", 0.05)
    with operation(plan, Verb.RETENTION):
        monkeypatch.setattr(journal, "WAIT_SECONDS", 60)
        answers.set()
        for thread in threading.enumerate():
            if thread.name == "journal":
                thread.join()
    found = scrape(plan)
    assert found("backup_retention_cleaned_total") == found("backup_retention_cleaned_success") == 1


def test_no_home_breaks_no_backup(plan: BackupPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr(Path, "home", nowhere)
    make_backup(plan, BackupType.FULL)
    assert scrape(plan)("lastgood_backups", type="full", status="completed") == 1


def test_a_prefix_stands_before_the_published_names(plan: BackupPlan) -> None:
    found = scrape(plan, prefix="shop")
    assert found("shop_backup_operations_created_total") == 0
    assert {name.partition("_")[0] for name in found.kinds} == {"shop", "lastgood"}


def test_counters_do_not_go_back_and_come_again_while_the_journal_is_away(
    plan: BackupPlan, caplog: pytest.LogCaptureFixture
) -> None:
    make_backup(plan, BackupType.FULL)
    folder = journal_folder()
    away = folder.with_name("away")
    exporter = exporter_of([plan])
    before = scraped(exporter.text()).counters()
    folder.rename(away)
    assert scraped(exporter.text()).counters() == before, "nothing is there: a disk that is not mounted"
    folder.write_text("something else")
    assert scraped(exporter.text()).counters() == before
    restarted = exporter_of([plan])
    for _ in range(3):
        found = scraped(restarted.text())
    assert not found.counters(), "no number is better than one that is wrong"
    assert found("lastgood_rpo_target_seconds") is not None
    assert len([one for one in caplog.records if "journal cannot be read" in one.getMessage()]) == 2
    folder.unlink()
    away.rename(folder)
    assert scraped(exporter.text()).counters() == scraped(restarted.text()).counters() == before


def test_names_with_anything_in_them_come_back_as_they_are(plan: BackupPlan) -> None:
    tier = 'a "storage"\\with\nnewline, {braces} and é'
    line = ended("a", **{"numbers": {"calls": [[tier, "put", "ok", 3, 0.1]]}})
    repository = plan.repository.unlock(plan.encryption).repository_id
    note(journal_folder(), line | {"repository": repository})
    assert scrape(plan)("lastgood_tier_calls_total", tier=tier, call="put", outcome="ok") == 3


def test_objectives_are_told_with_what_they_are_measured_by(plan: BackupPlan) -> None:
    wanted = plan.model_copy(update={"objectives": Objectives.model_validate({"rpo": "1h", "rto": "30m"})})
    make_backup(wanted, BackupType.FULL)
    found = scrape(wanted)
    assert (found("lastgood_rpo_target_seconds"), found("lastgood_rto_target_seconds")) == (3600, 1800)
    assert 0 <= (found("lastgood_rpo_seconds") or -1) < 60
    assert found("lastgood_rto_seconds") is None, "nothing was restored yet"
    make_verification(wanted, deep=True)
    assert (scrape(wanted)("lastgood_rto_seconds") or 0) > 0


def test_counters_never_go_back_while_exporters_come_and_go(plan: BackupPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_files, "SEGMENT_BYTES", 3000)
    lasting = exporter_of([plan])
    before: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    repository = plan.repository.unlock(plan.encryption).repository_id
    for number, line in enumerate(operations(60)):
        note(journal_folder(), line | {"repository": repository})
        if number % 10 == 0:
            make_backup(plan, BackupType.INCREMENTAL)
        if number % 3 == 0:
            lasting.look()
            for found in (scraped(lasting.text()), scrape(plan)):
                now = found.counters()
                assert {one: value for one, value in before.items() if now.get(one, -1) < value} == {}
                before = now
    assert scrape(plan)("backup_operations_created_total") == 72


class _Looks:
    """How often records were read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from flows.reading import repository_numbers

        self.read, real = 0, repository_numbers._numbers

        def counted(*args: object) -> object:
            self.read += 1
            return real(*args)  # type: ignore[arg-type]

        monkeypatch.setattr(repository_numbers, "_numbers", counted)


def test_what_a_listing_shows_to_be_as_it_was_is_not_read_again(
    plan: BackupPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, reader = _Looks(monkeypatch), RepositoryReader(plan)
    for change in (
        lambda: make_backup(plan, BackupType.FULL),
        lambda: make_verification(plan, deep=False),
        lambda: make_backup(plan, BackupType.INCREMENTAL),
    ):
        change()
        before = looks.read
        first, second = reader.read(), reader.read()
        assert looks.read == before + 1
        assert first.backups == second.backups
    assert sum(first.backups.values()) == 2


@pytest.fixture
def slow_storage(plan: BackupPlan, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A repository that does not answer before the event is set."""
    answers = threading.Event()
    real = RepositoryReader.read

    def read(self: RepositoryReader) -> object:
        answers.wait(60)
        return real(self)

    monkeypatch.setattr(RepositoryReader, "read", read)
    yield answers
    answers.set()


def test_a_scrape_waits_for_no_storage(
    plan: BackupPlan, slow_storage: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter_module, "FIRST_SECONDS", 0.05)
    make_backup(plan, BackupType.FULL)
    exporter = exporter_of([plan])
    with exporter.looking():
        found = scraped(exporter.text())
        assert (found("lastgood_up"), found("backup_operations_created_success")) == (0, 1)
        slow_storage.set()
        assert _soon(exporter, lambda found: found("lastgood_up") == 1)


def test_a_look_follows_at_once_where_the_journal_says_that_something_ended(plan: BackupPlan) -> None:
    exporter = exporter_of([plan])
    with exporter.looking():
        assert scraped(exporter.text())("lastgood_backups_committed_total") == 0
        make_backup(plan, BackupType.FULL)
        assert _soon(exporter, lambda found: found("lastgood_backups_committed_total") == 1)
        assert _soon(exporter, lambda found: found("lastgood_backups", type="full", status="completed") == 1)


def _soon(exporter: Exporter, wanted: object) -> bool:
    """Scrape until it is as wanted, which takes a second or two."""
    assert callable(wanted)
    for _ in range(600):
        if wanted(scraped(exporter.text())):
            return True
        time.sleep(0.05)
    return False


def test_a_repository_in_a_network_is_seen_as_it_is_now(plan: BackupPlan, s3: Seaweed) -> None:
    there = plan.model_copy(
        update={"repository": BackupRepository(url=f"s3://{s3.bucket()}/repository", storage=s3.settings)}
    )
    there.repository.initialize(there.encryption, lambda kit: None)
    exporter = exporter_of([there])
    for number, status in enumerate(("completed", "verified", "verified")):
        if number:
            make_verification(there, deep=False)
        make_backup(there, BackupType.FULL)
        exporter.look()
        found = scraped(exporter.text())
        assert found("lastgood_backups_committed_total") == number + 1
        assert found("lastgood_backups", type="full", status="verified") == number
        assert found("lastgood_backups", type="full", status="completed") == 1, status
    assert found.of("lastgood_tier_breaker_open") == {frozenset({("tier", there.repository.tier.place)}): 0.0}


def test_a_repository_in_a_network_that_is_made_anew_begins_at_zero(plan: BackupPlan, s3: Seaweed) -> None:
    """Only lines of backups that were made know which one they are of."""
    there = plan.model_copy(
        update={"repository": BackupRepository(url=f"s3://{s3.bucket()}/repository", storage=s3.settings)}
    )
    elsewhere = BackupRepository(url=f"s3://{s3.bucket()}/repository", storage=s3.settings)
    for one in (there.repository, elsewhere):
        one.initialize(there.encryption, lambda kit: None)
    exporter, tier = exporter_of([there]), there.repository.tier
    for _ in range(2):
        exporter.look()
        make_backup(there, BackupType.FULL)
        make_verification(there, deep=False)
        for each in (exporter, exporter_of([there])):
            each.look()
            found = scraped(each.text())
            assert found("lastgood_backups", type="full", status="verified") == 1
            assert found("lastgood_backups_committed_total") == 1
            assert found("backup_operations_created_total") == found("backup_operations_created_success") == 1
            assert found("lastgood_operations_started_total", verb="verification", type="quick") == 1
            assert found("lastgood_verifications_total", status="verified") == 1
        tier.remove([stored.name for stored in tier.list("")])
        tier.put(names.CONFIG, elsewhere.tier.get(names.CONFIG))


def test_the_counter_of_commits_does_not_go_back_where_the_newest_backup_goes(plan: BackupPlan) -> None:
    make_backup(plan, BackupType.FULL)
    newest = make_backup(plan, BackupType.FULL)
    exporter = exporter_of([plan])
    exporter.look()
    repository = plan.repository.unlock(plan.encryption)
    repository.record_expiry(
        Expiry(
            plan="books",
            expired_at=datetime.now(UTC),
            removed=(repository.link_of(newest),),
            reasons={newest.backup_id: "it was to go"},
            head=repository.link_of(newest),
        )
    )
    repository.remove("books", [newest.backup_id])
    exporter.look()
    for found in (scraped(exporter.text()), scrape(plan)):
        assert found("lastgood_backups_committed_total") == 2
        assert found("lastgood_backups", type="full", status="completed") == 1
