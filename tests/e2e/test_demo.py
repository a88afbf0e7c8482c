"""The demo tells the truth: it proves what it claims on real runs, and it fails where a claim does not hold."""

from __future__ import annotations

import io
import os
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from blocks.errors import ConfigurationError
from blocks.plan import read_plan
from deployments.demo import run_demo, steps, stop_demo
from deployments.demo.application import Application
from deployments.demo.folder import DemoFolder
from deployments.demo.oracle import FOLDERS, Oracle, broken_invariants, different_files, different_lines, freeze
from deployments.demo.proofs import Proof, Proofs
from deployments.demo.simulator import create_application, open_ledger
from tests.e2e.prefect_support import Prefect


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The application's state as it is created."""
    create_application(tmp_path / "state")
    return tmp_path / "state"


def picture(state: Path) -> Oracle:
    return freeze(state / "ledger.db", {name: state / name for name in FOLDERS})


def told(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_whole_story_is_proved_and_its_runs_are_in_prefect(prefect: Prefect, tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=100)
    assert run_demo(tmp_path / "demo", console=console)
    text = told(console)
    assert "10 of 10 claims proved" in text
    assert text.count("PASS") == 10
    assert "FAIL" not in text
    assert f"{prefect.server.ui_url}/runs" in text
    assert max(len(line) for line in text.splitlines() if "lastgood" not in line) <= 100
    runs = prefect.post("/flow_runs/filter", sort="START_TIME_ASC")
    ours = [run for run in runs if run["parameters"].get("plan") == str(tmp_path / "demo" / "trading.yaml")]
    assert len(ours) == 9
    assert {run["state_type"] for run in ours} == {"COMPLETED"}
    # a server that was there before goes on running, and a plan of the same name there is left alone
    assert stop_demo(tmp_path / "demo") is False
    assert not (tmp_path / "demo" / "prefect").exists()
    plan = read_plan(tmp_path / "demo" / "trading.yaml")
    kinds = [m.backup_type.value for m in plan.repository.unlock(plan.encryption).backups("trading")]
    assert kinds == ["full", "incremental", "differential", "incremental", "emergency"]


def test_a_restore_that_loses_one_row_makes_the_demo_fail(
    prefect: Prefect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = steps.restore

    def lossy(*asked: object, **named: object) -> object:
        result = honest(*asked, **named)  # type: ignore[call-overload]
        ledger = tmp_path / "demo" / "state" / "ledger.db"
        with closing(sqlite3.connect(ledger)) as db, db:
            db.execute("DELETE FROM orders WHERE id = (SELECT min(id) FROM orders)")
        return result

    monkeypatch.setattr(steps, "restore", lossy)
    console = Console(file=io.StringIO(), width=100)
    assert run_demo(tmp_path / "demo", console=console) is False
    assert "FAIL" in told(console)


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
    with Application(state) as application:
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
        assert different_lines(before, after), sql
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
    assert len(different_files(before, picture(state))) == 1
    assert not different_lines(before, picture(state))


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
