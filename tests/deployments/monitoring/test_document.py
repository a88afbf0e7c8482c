"""docs/monitoring.md: its metrics are those of the exporter, its alerts those of the rules."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from deployments.monitoring.files import ALERTS, DASHBOARD, NAMES, monitoring_files
from flows.cli.tree import COMMANDS, GROUPS
from flows.reading.plan_metrics import series
from flows.reading.published_metrics import published
from flows.reporting.exposition import Family
from tests.deployments.monitoring.promtool import rules_of
from tests.deployments.monitoring.test_live import PUBLISHED

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "monitoring.md").read_text()
RULES = rules_of(monitoring_files()[ALERTS])


def section(name: str) -> str:
    return re.split(r"^##+ ", TEXT.partition(f" {name}\n")[2], flags=re.MULTILINE)[0]


def rows(name: str) -> list[list[str]]:
    """The cells of a section's tables, from the second row after a heading on."""
    lines = re.findall(r"^\| (`.*) \|$", section(name), re.MULTILINE)
    return [line.split(" | ") for line in lines]


def families() -> list[Family]:
    return [*published([]), *series([], datetime.now(UTC))]


def test_each_metric_of_the_exporter_is_in_it_with_its_meaning() -> None:
    said = [(name, kind, meaning) for name, kind, meaning in rows("As they were published")]
    said += [(name, kind, meaning) for name, kind, _, meaning in rows("Of lastgood")]
    assert said == [(f"`{family.name}`", family.kind, family.meaning) for family in families()]


def test_each_alert_is_in_it_with_its_severity() -> None:
    for group, rules in RULES.items():
        said = [(name, severity) for name, severity, *_ in rows(f"The group {group}")]
        assert said == [(f"`{alert}`", rule["labels"]["severity"]) for alert, rule in rules.items()]


def test_the_published_queries_are_in_it() -> None:
    assert "\n".join(PUBLISHED) in section("As they were published")


@pytest.mark.parametrize("file", NAMES)
def test_each_file_is_named(file: str) -> None:
    assert file in TEXT


@pytest.mark.parametrize("prefix", ["", "site"])
@pytest.mark.parametrize("file", [ALERTS, DASHBOARD])
def test_alerts_and_panels_ask_for_metrics_that_there_are(file: str, prefix: str) -> None:
    asked = set(
        re.findall(
            r"\b(?:\w+_)?backup_(?:operations|retention)_\w+|\blastgood_(?!alerts)\w+", monitoring_files(prefix)[file]
        )
    )
    there = {family.name for family in [*published([], prefix), *series([], datetime.now(UTC))]}
    assert {re.sub(r"(?<!removed)_(?:bucket|sum|count)$", "", name) for name in asked} <= there
    assert {name for name in asked if "backup_operations" in name}


def test_the_commands_are_those_of_lastgood() -> None:
    named = set(re.findall(r"\blastgood ([a-z]+(?: [a-z]+)?)", " ".join(re.findall(r"`(lastgood [^`]+)`", TEXT))))
    groups = {f"{group} {name}" for group, (commands, _) in GROUPS.items() for name in commands}
    assert {name for name in named if name not in groups and name.split()[0] not in COMMANDS} == set()
    assert len(named) > 8


def test_the_ports_are_the_same_everywhere() -> None:
    scraped = yaml.safe_load(monitoring_files()["prometheus.yml"])["scrape_configs"][0]["static_configs"][0]["targets"]
    assert f"--serve {scraped[0].partition(':')[2]}" in TEXT
