"""A Prefect server that goes away, or is silent, while a command runs: neither the result nor the end waits for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import pytest
import yaml

from tests.e2e.prefect_support import ROOT, Prefect, SmallPlan
from tests.receivers import http_receiver
from tests.relay import relay

pytestmark = pytest.mark.timeout(300)

SOON_SECONDS = 100
"""Far less than Prefect waits for one answer: minutes."""


@pytest.mark.parametrize(("how", "fails"), [("gone", False), ("silent", True)])
def test_a_command_ends_with_what_its_work_came_to(
    prefect_server: Prefect, tmp_path: Path, how: Literal["gone", "silent"], fails: bool
) -> None:
    plan, done = SmallPlan(tmp_path / "left", name="left"), tmp_path / "done"
    with http_receiver() as told, relay(urlsplit(prefect_server.server.api_url).port or 0, done, how) as port:
        text = yaml.safe_load(plan.path.read_text())
        text |= {
            "hooks": {"backup": {"after": [["touch", str(done)]]}},
            "notifications": [{"type": "webhook", "url": told.url, "when": ["failed", "completed"]}],
        }
        plan.path.write_text(yaml.safe_dump(text))
        if fails:
            plan.ledger.unlink()
        ended = subprocess.run(
            [sys.executable, "lastgood.py", "backup", str(plan.path), "--type", "full"],
            cwd=ROOT,
            env=prefect_server.environment() | {"PREFECT_API_URL": f"http://127.0.0.1:{port}/api"},
            capture_output=True,
            text=True,
            timeout=SOON_SECONDS,
        )
    assert "the table of hooks is not in the Prefect run" in ended.stderr
    assert [one.json["occasion"] for one in told.requests] == ["failed" if fails else "completed"]
    if fails:
        assert ended.returncode == 3, ended.stderr
        assert "error: " in ended.stderr
        return
    assert ended.returncode == 0, ended.stderr
    assert "the Prefect server was not told that the run is done" in ended.stderr
    assert ended.stdout.startswith(f"backup {plan.backups()[0].backup_id}: full")
