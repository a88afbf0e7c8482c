"""Real runs, scraped by a real Prometheus: published queries and panels show them, and an alert arrives."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from blocks.errors import LastgoodError, SourceUnavailable
from blocks.plan.objectives import Objectives
from flows.reading.metrics_serving import serving_metrics
from flows.retention import apply_retention
from flows.verify import make_verification
from tests.deployments.monitoring.programs import Prometheus, Webhook, until, watching, webhook
from tests.deployments.monitoring.queries import queries
from tests.flows.flow_support import FULL, INCREMENTAL, Shop, blobs, flip

PUBLISHED = [
    "sum(rate(backup_operations_created_success[1h])) / sum(rate(backup_operations_created_total[1h]))",
    "rate(backup_operations_duration_seconds_sum[5m]) / rate(backup_operations_duration_seconds_count[5m])",
    "rate(backup_operations_size_bytes_total_sum[5m]) / rate(backup_operations_size_bytes_total_count[5m])",
    "sum(rate(backup_retention_removed_count_sum[1h])) / sum(rate(backup_retention_cleaned_success[1h]))",
    "sum(rate(backup_retention_cleaned_failed[5m])) / sum(rate(backup_retention_cleaned_total[5m]))",
]
"""As they were published, to the letter."""
EXPECTED = {
    "LastgoodBackupCorrupted", "LastgoodBackupFailed", "LastgoodVerificationFailed", "LastgoodRetentionFailed",
}  # fmt: skip
"""What fires after the runs."""
HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Watched:
    """What runs of a plan left behind, in Prometheus and at the program that is told of alerts."""

    prometheus: Prometheus
    told: Webhook


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    with pytest.MonkeyPatch.context() as patch, webhook() as told:
        patch.setenv("LASTGOOD_JOURNAL", str(folder / "journal"))
        patch.setenv("XDG_STATE_HOME", str(folder / "state-home"))
        shop = Shop(folder / "shop", encrypted=False, objectives=Objectives(rpo=HOUR, rto=HOUR))
        shop.fill()
        with (
            serving_metrics([shop.plan], 0) as plain,
            serving_metrics([shop.plan], 0, prefix="site") as prefixed,
            watching(folder / "monitoring", [plain, prefixed], told) as prometheus,
        ):
            # a rate needs to have seen what was before
            prometheus.until("backup_operations_created_total")
            prometheus.until("site_backup_operations_created_total")
            _run(shop)
            for alert in EXPECTED:
                prometheus.until(f'ALERTS{{alertname="{alert}", alertstate="firing"}}')
            yield Watched(prometheus, told)


def _run(shop: Shop) -> None:
    """Make backups, restores, proofs and retention runs, some of which fail; at last a backup is damaged."""
    shop.back_up(FULL)
    shop.back_up(FULL)
    shop.db.execute("UPDATE orders SET price = price + 1")
    shop.back_up(INCREMENTAL)
    make_verification(shop.plan, "latest", deep=True)
    shop.restore()
    shop.database.rename(f"{shop.database}.away")
    with pytest.raises(SourceUnavailable):
        shop.back_up(INCREMENTAL)
    Path(f"{shop.database}.away").rename(shop.database)
    shop.reopen()
    newest = shop.back_up(FULL)
    apply_retention(shop.plan, now=datetime.now(UTC) + timedelta(days=100), accept_clock=True)
    with shop.repository.lease("trading", "backup", holder="elsewhere:1"), pytest.raises(LastgoodError):
        apply_retention(shop.plan)
    flip(shop.objects(newest), blobs(newest)[0])
    with suppress(LastgoodError):
        make_verification(shop.plan, newest.backup_id)


@pytest.mark.parametrize("query", PUBLISHED)
def test_a_published_query_returns_data(query: str, watched: Watched) -> None:
    ((_, value),) = watched.prometheus.ask(query)
    assert value > 0


def test_they_say_what_was_done(watched: Watched) -> None:
    rate, _, size, removed, failed = [watched.prometheus.ask(query)[0][1] for query in PUBLISHED]
    # four backups of five, one retention run of two, which removed the first full
    assert (rate, removed, failed) == (pytest.approx(4 / 5), pytest.approx(1), pytest.approx(1 / 2))
    assert size > 500


@pytest.mark.parametrize("prefix", ["", "site"])
def test_every_query_of_a_panel_returns_data(prefix: str, watched: Watched) -> None:
    for title, query in queries(60, prefix):
        values = [value for _, value in watched.prometheus.ask(query)]
        assert [value for value in values if not math.isnan(value)], f"{title}: {query}"


def test_an_alert_arrives(watched: Watched) -> None:
    until(lambda: bool(watched.told.alerts()), "an alert")
    alert = watched.told.alerts()[0]
    assert alert["status"] == "firing"
    assert alert["labels"].items() >= {
        "alertname": "LastgoodBackupCorrupted", "plan": "trading", "severity": "critical", "job": "lastgood",
    }.items()  # fmt: skip
    assert alert["annotations"]["summary"] == "trading: corrupted backups: 1"


def test_what_went_well_alerts_nobody(watched: Watched) -> None:
    firing = {labels["alertname"] for labels, _ in watched.prometheus.ask('ALERTS{alertstate="firing"}')}
    assert firing == EXPECTED


def test_the_document_has_the_labels_of_each_metric(watched: Watched) -> None:
    text = (Path(__file__).parents[3] / "docs" / "monitoring.md").read_text()
    said = re.findall(r"^\| `(lastgood_\w+)` \| (\w+) \| ([\w, ]+) \|", text, re.MULTILINE)
    found = {}
    for name, kind, labels in said:
        series = watched.prometheus.ask(f"{name}_count" if kind == "histogram" else name)
        # only of storages in a network and of replication slots
        if series or name not in ("lastgood_tier_breaker_open", "lastgood_slot_held_bytes"):
            found[name] = {label for names, _ in series for label in names} - {"__name__", "job", "instance"}
            assert found[name] == set(labels.split(", ")), name
    assert len(found) > 30
