"""The dashboard is one by Grafana's published schema, and has the panels that were published."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deployments.monitoring.promtool import said
from tests.deployments.monitoring.queries import dashboard, panels, queries
from tests.grafana_release import grafana_packages

SCHEMA = Path(__file__).with_name("grafana_schema.ts")
OPTIONS = ["--strict", "--noEmit", "--skipLibCheck", "--module", "nodenext", "--moduleResolution", "nodenext"]

SIX = ["Success rate", "Latency", "Size distribution", "Retention activity", "Failures", "RPO compliance"]


def complaints(shown: Mapping[str, Any], folder: Path) -> str:
    """What TypeScript says of a dashboard by Grafana's types; nothing where it is one."""
    frame = {key: value for key, value in shown.items() if key != "panels"}
    lines = [
        f'import type {{ Frame, Panels }} from "./{SCHEMA.stem}";',
        f"export const frame: Frame = {json.dumps(frame)};",
        *(
            f'export const panel{n}: Panels["{panel["type"]}"] = {json.dumps(panel)};'
            for n, panel in enumerate(shown["panels"])
        ),
    ]
    (folder / SCHEMA.name).write_text(SCHEMA.read_text())
    (folder / "dashboard.ts").write_text("\n".join(lines))
    if not (folder / "node_modules").exists():
        (folder / "node_modules").symlink_to(grafana_packages())
    compiler = folder / "node_modules" / "typescript" / "lib" / "tsc.js"
    ran = subprocess.run(
        ["node", str(compiler), *OPTIONS, "dashboard.ts"], cwd=folder, capture_output=True, text=True, check=False,
        timeout=120,
    )  # fmt: skip
    return ran.stdout + ran.stderr if ran.returncode else ""


def test_it_is_a_dashboard_by_grafanas_schema(tmp_path: Path) -> None:
    assert complaints(dashboard(), tmp_path) == ""


def test_what_is_none_would_be_noticed(tmp_path: Path) -> None:
    shown = json.loads(json.dumps(dashboard()))
    kinds = {panel["type"]: panel for panel in shown["panels"]}
    kinds["gauge"]["options"]["shape"] = "round"
    del kinds["timeseries"]["options"]["legend"]["showLegend"]
    kinds["stat"]["targets"][0]["expresion"] = "up"
    kinds["heatmap"]["gridPos"]["width"] = 4
    shown["tags"] = "backup"
    found = complaints(shown, tmp_path)
    assert [word for word in ('"round"', "showLegend", "expresion", "width", "string[]") if word not in found] == []


def test_the_first_row_has_the_published_panels_and_the_second_proof_and_storage() -> None:
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for row, panel in panels():
        rows.setdefault(row, []).append(panel)
    assert list(rows) == ["Backups", "Proof and storage"]
    assert [panel["title"] for panel in rows["Backups"]] == SIX
    kinds = {panel["title"]: panel["type"] for panel in rows["Backups"]}
    assert kinds["Success rate"] == kinds["RPO compliance"] == "gauge"
    latency = next(panel for panel in rows["Backups"] if panel["title"] == "Latency")
    assert [target["legendFormat"] for target in latency["targets"]] == ["P50", "P95", "P99"]


def test_panels_have_ids_of_their_own_and_lie_beside_each_other() -> None:
    shown = dashboard()["panels"]
    assert len({panel["id"] for panel in shown}) == len(shown)
    for one, other in combinations([panel["gridPos"] for panel in shown], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (one, other)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in shown)


@pytest.mark.parametrize("prefix", ["", "site"])
def test_prometheus_understands_every_query(prefix: str, tmp_path: Path) -> None:
    asked = [{"record": f"panel:{n}", "expr": expr} for n, (_, expr) in enumerate(queries(3600, prefix))]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": asked}]}))
    assert said("check", "rules", str(tmp_path / "rules.yml")) == ""
