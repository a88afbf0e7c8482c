"""Commands that need neither Prefect nor pandas do not import them, and do the same work."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.face_support import Application
from tests.flows.cli.desk import Desk
from tests.flows.cli.test_app import environment

# a process in which neither can be imported, as on a machine where their installation broke
BROKEN = """
import sys

class Broken:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BANNED:
            raise ImportError(f"{name} is broken here")

sys.meta_path.insert(0, Broken())
from lastgood import main
sys.exit(main())
"""


def run(*words: str, banned: tuple[str, ...] = ("prefect", "pandas")) -> subprocess.CompletedProcess[str]:
    script = BROKEN.replace("BANNED", repr(banned))
    return subprocess.run([sys.executable, "-c", script, *words], env=environment(), capture_output=True, text=True)


def done(*words: str, banned: tuple[str, ...] = ("prefect", "pandas")) -> str:
    ran = run(*words, banned=banned)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_worst_day_needs_no_prefect_that_starts(desk: Desk) -> None:
    plan = str(desk.plan)
    made = json.loads(done("backup", plan, "--type", "full", "--no-server", "--json"))["id"]
    desk.sql("update orders set price = 0 where id = 7")
    desk.sql("delete from orders where id = 9")
    done("backup", plan, "--no-server")
    assert made in done("list", plan)
    assert "orders" in done("show", plan, "latest")
    done("proof", plan, "--out", str(desk.folder / "proof.html"))
    assert "price" in done("diff", plan, made, "latest")
    assert "ledger/orders" in done("ls", plan, "latest")
    assert json.loads(done("cat", plan, "latest", "ledger/orders", "7"))["price"] == 0
    done("export", plan, "latest", "*", "--to", str(desk.folder / "tables"), "--format", "parquet")
    assert "199" in done("query", plan, "latest", "select count(*) from ledger.orders")
    done("check", plan, "--read-data")
    done("key", "list", plan)
    done("retention", plan, "--dry-run", "--no-server")
    done("verify", plan, "--deep", "--no-server", banned=("prefect",))
    desk.sql("delete from orders")
    done("restore", plan, "--yes", "--no-server", "--mode", "exact")
    assert desk.sql("select count(*), sum(price = 0) from orders") == [(199, 1)]


def test_a_plan_that_is_named_needs_prefect_and_says_what_is_wrong_with_it(desk: Desk) -> None:
    ran = run("list", "trading", "--debug")
    assert ran.returncode == 1
    assert "prefect is broken here" in ran.stderr


def test_code_of_a_plan_that_hands_arrow_objects_of_pandas_is_understood(tmp_path: Path) -> None:
    made = Application(tmp_path / "app", "live_state")
    with (made.folder / "live_state.py").open("a") as module:
        module.write("import pandas as pd, pyarrow as pa\n")
        module.write("assert pa.array(pd.Series([0.5, float('nan')])).null_count == 1\n")
    done("backup", str(made.plan), "--no-server", banned=("prefect",))
