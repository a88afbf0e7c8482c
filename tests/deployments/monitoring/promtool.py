"""Prometheus' own tool: is a rule right, and what does it say of some series."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

Labels = Mapping[str, str]


@dataclass(frozen=True)
class Series:
    """Series and what is expected of rules at some moment after their first sample, which has the time 0.

    Attributes:
        values: Of each series by its name and labels, as promtool writes them: `2+0x10` is 2 eleven times.
        step: Between samples, and between evaluations.
        alerts: The labels and the summary of each alert that fires at `at`, by name of the alert; an empty list says
            that it does not. Alerts that are not named may do as they like.
        samples: What expressions return at `at`: labels and value.
    """

    name: str
    values: Mapping[str, str]
    at: str
    step: str = "1m"
    alerts: Mapping[str, Iterable[tuple[Labels, str]]] = field(default_factory=dict)
    samples: Mapping[str, Iterable[tuple[str, float]]] = field(default_factory=dict)

    def test(self) -> Any:
        """What promtool reads."""
        return {
            "name": self.name,
            "interval": self.step,
            "input_series": [{"series": name, "values": values} for name, values in self.values.items()],
            "alert_rule_test": [
                {
                    "alertname": alert,
                    "eval_time": self.at,
                    "exp_alerts": [
                        {"exp_labels": dict(labels), "exp_annotations": {"summary": summary}}
                        for labels, summary in expected
                    ],
                }
                for alert, expected in self.alerts.items()
            ],
            "promql_expr_test": [
                {
                    "expr": expression,
                    "eval_time": self.at,
                    "exp_samples": [{"labels": labels, "value": value} for labels, value in expected],
                }
                for expression, expected in self.samples.items()
            ],
        }


def wrong(rules: str, alerts: Collection[str], series: Series, folder: Path) -> str:
    """Return what some alerts do otherwise than is expected; nothing where all is as expected.

    Args:
        rules: The rules, as Prometheus reads them.
        alerts: Which of them are looked at; the others would only take time.
        series: What they see, and what is expected.
        folder: Where promtool's files go.
    """
    asked = [rule for group in yaml.safe_load(rules)["groups"] for rule in group["rules"] if rule["alert"] in alerts]
    # JSON is YAML, and takes every character
    (folder / "rules.yml").write_text(json.dumps({"groups": [{"name": "asked", "rules": asked}]}))
    test = {"rule_files": ["rules.yml"], "evaluation_interval": series.step, "tests": [series.test()]}
    (folder / "test.yml").write_text(json.dumps(test))
    return said("test", "rules", str(folder / "test.yml"))


def said(*words: str) -> str:
    """Return what promtool says where it is not content; nothing where it is."""
    ran = subprocess.run(["promtool", *words], capture_output=True, text=True, check=False, timeout=60)
    return "" if ran.returncode == 0 else ran.stdout + ran.stderr


def rules_of(text: str) -> dict[str, dict[str, Any]]:
    """Return the alerting rules of each group by its name: by name of the alert what else it says."""
    return {
        group["name"]: {rule["alert"]: {k: v for k, v in rule.items() if k != "alert"} for rule in group["rules"]}
        for group in yaml.safe_load(text)["groups"]
    }
