"""`lastgood serve`: schedules that fire, on a server of its own, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest

from blocks.errors import ConfigurationError
from blocks.records import BackupType
from deployments import attached
from deployments.jobs import Timetable
from deployments.serve import plan_deployments, reachable_server, serve
from deployments.server import LocalServer, answers, running_server, start_server, stop_server
from tests.e2e.prefect_support import ROOT, Prefect, SmallPlan, end, wait_for
from tests.e2e.shared_server import SharedServer
from tests.flows.reading.exported import scraped
from tests.object_servers import free_ports

NAMES = [
    "full-shop",
    "differential-shop",
    "incremental-shop",
    "daily-shop",
    "weekly-shop",
    "by-hand-shop",
    "by-hand-shop",
]
DEAD = "http://127.0.0.1:9/api"
EVERY_FEW_SECONDS = """
# a run takes some seconds: more often, runs would pile up
import sys
from datetime import timedelta
from pathlib import Path

from blocks.host.own_process import begin_process

begin_process(["serve", "--log-format", "json"])  # as the command does

from prefect.schedules import Interval

from deployments.jobs import Timetable
from deployments.serve import serve

serve([sys.argv[1]], home=Path(sys.argv[2]), port=0,
      timetable=Timetable({"backup/incremental": Interval(timedelta(seconds=6))}),
      metrics=("127.0.0.1", int(sys.argv[3])))
"""


@pytest.mark.usefixtures("prefect_server")
def test_a_schedule_really_fires_on_an_embedded_server_where_the_configured_one_does_not_answer(
    shared_server: SharedServer, small_plan: SmallPlan, tmp_path: Path
) -> None:
    home, log, printed = tmp_path / "state" / "prefect", tmp_path / "serve.log", tmp_path / "serve.out"
    shared_server.prepare_home(home)
    (port,) = free_ports(1)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    with log.open("wb") as err, printed.open("wb") as out:
        serving = subprocess.Popen(
            [sys.executable, "-c", EVERY_FEW_SECONDS, str(small_plan.path), str(home), str(port)],
            # elsewhere than the checkout: runs must find the flows all the same
            cwd=tmp_path,
            env=environment | {"PYTHONPATH": str(ROOT), "PREFECT_RUNNER_POLL_FREQUENCY": "1", "PREFECT_API_URL": DEAD},
            stdout=out,
            stderr=err,
        )
    try:

        def started() -> LocalServer | None:
            assert serving.poll() is None, log.read_text()
            return running_server(home)

        server = wait_for("the embedded server", started)
        wait_for("its health", lambda: answers(server.api_url) or None)
        prefect = Prefect(server)

        def fired() -> list[dict[str, object]] | None:
            assert serving.poll() is None, log.read_text()
            done = [r for r in prefect.runs_of("incremental-shop") if r["state_type"] == "COMPLETED"]
            assert not [r for r in prefect.runs_of("incremental-shop") if r["state_type"] in ("FAILED", "CRASHED")]
            return done if len(done) >= 2 else None

        runs = wait_for("two scheduled runs", fired)
        # each of them was a process of its own
        found = scraped(httpx.get(f"http://127.0.0.1:{port}/metrics").text)
        assert (found("backup_operations_created_success") or 0) >= 2
        assert found("lastgood_up", plan="shop") == 1
    finally:
        serving.send_signal(signal.SIGTERM)
        # a second signal while it shuts down would be another thing to test
        with suppress(subprocess.TimeoutExpired):
            serving.wait(60)
        ended = end(serving)
    assert ended == 0, log.read_text()
    assert all(run["auto_scheduled"] for run in runs)
    made = small_plan.backups()
    assert [m.backup_type for m in made[:2]] == [BackupType.FULL, BackupType.INCREMENTAL]
    assert made[1].base == made[0].backup_id
    assert running_server(home) is None
    # all of its log, and of the processes of its runs, is lines of JSON that name the run
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    stages = {line["message"].partition(":")[0]: line for line in lines if line["backup_id"] == made[1].backup_id}
    assert {"collect", "normalize", "diff", "compress", "encrypt", "store", "record"} <= stages.keys()
    assert (stages["record"]["plan"], stages["record"]["verb"]) == ("shop", "backup")


def test_each_plan_has_deployments_of_its_own_names(small_plan: SmallPlan, tmp_path: Path) -> None:
    other = SmallPlan(tmp_path / "other", name="books")
    made = plan_deployments([str(small_plan.path), str(other.path)])
    assert [d.name for d in made] == NAMES + [name.replace("shop", "books") for name in NAMES]
    assert {d.parameters["plan"] for d in made} == {str(small_plan.path), str(other.path)}
    assert [bool(d.schedules) for d in made[:7]] == [True] * 5 + [False] * 2
    assert {d.entrypoint for d in made} == {
        "flows.backup.backup",
        "flows.retention.retention",
        "flows.verify.verify",
        "flows.restore.restore",
        "flows.undo.undo",
    }


def test_a_relative_plan_is_served_from_wherever_runs_start(
    small_plan: SmallPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(small_plan.folder)
    made = plan_deployments(["./shop.yaml"], Timetable())
    assert {d.parameters["plan"] for d in made} == {str(small_plan.path)}
    assert not any(d.schedules for d in made)


@pytest.mark.usefixtures("prefect")
def test_two_plans_of_one_name_and_no_plan_are_refused(small_plan: SmallPlan, tmp_path: Path) -> None:
    other = SmallPlan(tmp_path / "other")
    with pytest.raises(ConfigurationError, match="both named 'shop'"):
        serve([str(small_plan.path), str(other.path)])
    with pytest.raises(ConfigurationError, match="no plan to serve"):
        serve([])


def test_a_server_that_answers_is_used_and_none_is_started(prefect: Prefect, tmp_path: Path) -> None:
    with reachable_server(tmp_path / "home") as api_url:
        assert api_url == prefect.server.api_url
    assert not (tmp_path / "home").exists()


def test_its_pages_ask_the_server_that_they_came_from(prefect_server: Prefect) -> None:
    page = httpx.get(f"{prefect_server.server.ui_url}/ui-settings", trust_env=False).json()
    assert urljoin(prefect_server.server.ui_url, page["api_url"]) == prefect_server.server.api_url


def test_a_server_is_started_once_and_found_and_stopped_by_its_folder(prefect_server: Prefect, tmp_path: Path) -> None:
    server = prefect_server.server
    assert running_server(server.home) == server == start_server(server.home)
    assert running_server(tmp_path) is None
    assert stop_server(tmp_path) is False


def test_a_taken_port_is_refused_before_anything_starts(prefect_server: Prefect, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"port {prefect_server.server.port} is taken"):
        start_server(tmp_path / "home", port=prefect_server.server.port)


def test_a_server_that_ends_by_itself_ends_with_its_own_code_and_words() -> None:
    with subprocess.Popen(
        [sys.executable, "-P", attached.__file__, "server", "start", "--no-such-option"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as program:  # fmt: skip
        assert program.wait() > 0
        assert program.stdout is not None
        assert "Fatal Python error" not in program.stdout.read()


HOLD = """
import os, sys
from pathlib import Path

from deployments.server import local_server

with local_server(Path(sys.argv[1]), port=0):
    os.kill(os.getpid(), 9)
"""


@pytest.mark.usefixtures("prefect_server")
def test_a_server_does_not_outlive_the_process_that_it_was_started_for(
    shared_server: SharedServer, tmp_path: Path
) -> None:
    shared_server.prepare_home(tmp_path / "home")
    done = subprocess.run(
        [sys.executable, "-c", HOLD, str(tmp_path / "home")],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    wait_for("the end of its server", lambda: running_server(tmp_path / "home") is None or None)
