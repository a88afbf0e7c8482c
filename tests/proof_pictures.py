"""Makes the pictures of docs/cli.md from a real run: `python -m tests.proof_pictures`.

A ledger is backed up and verified for some days, with a suite. On two of them something is wrong with it. What the
pages show comes from the records of these verifications alone; Chromium takes the pictures.
"""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from blocks.errors import LastgoodError
from blocks.plan.plan import BackupPlan, read_plan
from blocks.records import BackupType
from flows.backup import make_backup
from flows.reporting.evidence import plan_evidence
from flows.reporting.proof_page import proof_page
from flows.verify import make_verification

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
DAYS, BAD_DAYS = 14, (5, 13)
SIZES = {"proof.png": (1080, 1240, "light"), "proof-phone.png": (360, 900, "dark")}

PLAN = """
name: trading
sources:
  ledger: {type: sqlite, path: ./ledger.db}
  models: {type: files, url: ./models}
repository: {url: ./backups}
encryption: {type: none}
quality: [./orders.json]
"""
SUITE = {
    "name": "orders",
    "collection": "ledger/orders",
    "expectations": [
        {"type": "expect_column_values_to_be_unique", "kwargs": {"column": "id"}},
        {"type": "expect_column_values_to_be_between", "kwargs": {"column": "price", "min_value": 1, "max_value": 200}},
        {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "side", "value_set": ["buy", "sell"]}},
        {"type": "expect_column_mean_to_be_between", "kwargs": {"column": "price", "min_value": 60, "max_value": 140}},
        {
            "type": "expect_column_values_to_not_be_null",
            "kwargs": {"column": "note", "mostly": 0.5},
            "severity": "warning",
        },
    ],
}


def make_pictures(folder: Path) -> None:
    """Back up and verify a ledger day by day, and take pictures of what is said of it in the end."""
    plan = _make_plan(folder)
    for day in range(DAYS):
        _work(folder / "ledger.db", day, bad=day in BAD_DAYS)
        made = make_backup(plan, BackupType.INCREMENTAL if day % 7 else BackupType.FULL)
        try:
            make_verification(plan, made.backup_id, deep=True)
        except LastgoodError as exc:
            print(f"day {day}: {exc.message}")
        shutil.copyfile(_good(folder / "ledger.db"), folder / "ledger.db")
        time.sleep(1 - time.time() % 1)  # backups of one second have no order
    page = folder / "page.html"
    page.write_text(proof_page(plan_evidence(plan, "latest")), encoding="utf-8")
    PICTURES.mkdir(exist_ok=True)
    for name, (width, height, scheme) in SIZES.items():
        _take(page, PICTURES / name, width, height, scheme)
        print(f"{PICTURES / name}: {(PICTURES / name).stat().st_size:,} bytes")


def _make_plan(folder: Path) -> BackupPlan:
    (folder / "models").mkdir()
    (folder / "models" / "weights.bin").write_bytes(random.Random(1).randbytes(2_000))
    (folder / "plan.yaml").write_text(PLAN)
    (folder / "orders.json").write_text(json.dumps(SUITE))
    with closing(sqlite3.connect(folder / "ledger.db")) as db, db:
        db.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, symbol TEXT, side TEXT, price REAL, note TEXT)")
        db.execute("CREATE TABLE fills (id INTEGER PRIMARY KEY, order_id INTEGER, quantity INTEGER)")
    plan = read_plan(folder / "plan.yaml")
    plan.repository.initialize(plan.encryption)
    return plan


def _work(database: Path, day: int, bad: bool) -> None:
    """A day of trading; on a bad one some prices are a hundred times too high, and notes are lost."""
    draw = random.Random(day)
    orders = [
        (f"S{draw.randrange(20)}", draw.choice(("buy", "sell")), round(draw.gauss(100, 15), 2), f"note {n}")
        for n in range(draw.randrange(150, 250))
    ]
    with closing(sqlite3.connect(database)) as db, db:
        db.executemany("INSERT INTO orders (symbol, side, price, note) VALUES (?, ?, ?, ?)", orders)
        db.execute("INSERT INTO fills (order_id, quantity) SELECT id, 1 + id % 9 FROM orders WHERE id % 2")
    shutil.copyfile(database, _good(database))
    with closing(sqlite3.connect(database)) as db, db:
        if bad:
            db.execute("UPDATE orders SET price = price * 100 WHERE id % 37 = 0")
            db.execute("UPDATE orders SET note = NULL WHERE id % 3")


def _good(database: Path) -> Path:
    return database.with_suffix(".good")


def _take(page: Path, picture: Path, width: int, height: int, scheme: str) -> None:
    """Take a picture; in a frame, since a window of Chromium is never as narrow as a telephone."""
    frame = page.with_name("frame.html")
    style = f"border:0;width:{width}px;height:{height}px;display:block;color-scheme:{scheme}"
    shown = f'<html style="color-scheme:{scheme}"><body style="margin:0"><iframe src="{page.name}" style="{style}">'
    frame.write_text(shown, encoding="utf-8")
    subprocess.run(
        [
            "chromium",
            "--headless",
            "--no-sandbox",
            "--hide-scrollbars",
            f"--user-data-dir={page.parent / 'chromium'}",
            f"--window-size={width},{height}",
            f"--screenshot={picture}",
            frame.as_uri(),
        ],
        check=True,
        capture_output=True,
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        make_pictures(Path(temporary))
    sys.exit()
