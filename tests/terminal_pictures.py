"""Makes the pictures of a terminal in the documents from real commands: `python -m tests.terminal_pictures`.

A plan is backed up for some days, verified and damaged by accident, in a terminal of 80 columns. What the commands
print there is drawn by rich as SVG; times are those of the run.
"""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import sqlite3
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

from rich.console import Console
from rich.text import Text

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
COLUMNS, LINES = 80, 60
MOST_BYTES = 100_000
_ERASED = re.compile(r"\x1b\[[0-9;]*[A-HJKSTfhlsu]|\x1b\[\?[0-9;]*[hl]")
"""What moves the cursor or changes the terminal's mode, which a picture has no use for."""

PLAN = """
name: trading
sources:
  ledger: {type: sqlite, path: ./ledger.db, part_size_bytes: 1000000}
  models: {type: files, url: ./models}
repository: {url: ./backups}
encryption: none
retention: {full: 90d}
schedules: {full: 24h, differential: off, incremental: 15m, verify: 1w}
"""


def make_pictures(folder: Path) -> None:
    """Run the commands, and draw what they printed."""
    _make_state(folder)
    _run(folder, "init", "trading.yaml")
    backup = _run(folder, "backup", "trading.yaml", "--type", "full", "--tag", "before-release")
    _draw(
        "terminal-backup", ["backup", "trading.yaml", "--type", "full", "--tag", "before-release"], backup, moving=True
    )
    for price in (101, 102, 103):
        _sql(folder, f"UPDATE orders SET price = {price} WHERE id % 50 = {price % 50}")
        _run(folder, "backup", "trading.yaml")
    _draw("terminal-verify", words := ["verify", "trading.yaml", "--deep"], _run(folder, *words))
    _sql(folder, "DELETE FROM orders WHERE id > 4000")
    _draw("terminal-list", words := ["list", "trading.yaml"], _run(folder, *words))
    _draw("terminal-status", words := ["status", "trading.yaml"], _run(folder, *words))
    _draw("terminal-show", words := ["show", "trading.yaml", "latest"], _run(folder, *words))
    _draw("terminal-restore", words := ["restore", "trading.yaml", "--mode", "preview"], _run(folder, *words))


def _make_state(folder: Path) -> None:
    (folder / "trading.yaml").write_text(PLAN, encoding="utf-8")
    (folder / "models").mkdir()
    for number in range(40):
        (folder / "models" / f"curve-{number:02}.bin").write_bytes(os.urandom(500_000))
    _sql(folder, "CREATE TABLE orders (id INTEGER PRIMARY KEY, symbol TEXT, price REAL, note TEXT)")
    _sql(
        folder,
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000) "
        "INSERT INTO orders SELECT i, 'S' || (i % 40), 100 + i % 7, 'order ' || i FROM n",
    )


def _sql(folder: Path, statement: str) -> None:
    with closing(sqlite3.connect(folder / "ledger.db")) as database, database:
        database.execute(statement)


def _run(folder: Path, *words: str) -> str:
    """Run a command in a terminal of its own, and return what it printed there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    home = {"HOME": str(folder), "XDG_STATE_HOME": str(folder / ".state"), "XDG_CACHE_HOME": str(folder / ".cache")}
    child = subprocess.Popen(
        [sys.executable, "-m", "lastgood", *words],
        cwd=folder,
        env=kept | home | {"TERM": "xterm-256color", "PYTHONPATH": str(PICTURES.parents[1])},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    printed = b""
    with suppress(OSError):  # the terminal is closed where the command ends
        while piece := os.read(ours, 65536):
            printed += piece
    os.close(ours)
    child.wait()
    return printed.decode().replace("\r\n", "\n")


def _draw(name: str, words: Sequence[str], printed: str, moving: bool = False) -> None:
    """Draw what a command printed; of a moving line the widest of the looks that it had."""
    lines = [f"\x1b[1m$ lastgood {' '.join(words)}\x1b[0m"]
    for line in _ERASED.sub("\r", printed).split("\n"):
        looks = [look for look in line.split("\r") if look.strip()]
        if len(looks) > 1:  # rich draws a line again and again
            looks = [max(looks, key=lambda look: ("%" in look, "left" in look, len(look)))] if moving else looks[-1:]
        lines += looks or [""]
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.from_ansi("\n".join(lines).rstrip() + "\n\n"))
    path = PICTURES / f"{name}.svg"
    # no fonts of the network: what the reader has
    console.save_svg(str(path), title="lastgood", code_format=_without_fonts(), unique_id=name)
    size = path.stat().st_size
    print(f"{path}: {size:,} bytes, {len(lines)} lines")
    assert size < MOST_BYTES


def _without_fonts() -> str:
    from rich._export_format import CONSOLE_SVG_FORMAT

    return re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        make_pictures(Path(temporary))
    sys.exit()
