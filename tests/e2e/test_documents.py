"""Every command of the README runs, in order, in one scratch folder. (Those of docs/cli.md run in tests/flows/cli.)"""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.server import LocalServer, local_server

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
BACKGROUND = ("prefect worker start",)
"""Commands that do not end by themselves: started, and stopped at the end."""
MADE_BEFORE = {"2h ago": "0s ago"}
"""A time at which the scratch repository has a backup, instead of the one in the text."""


def commands(document: Path) -> list[str]:
    """The command lines of a document's `sh` blocks, without their comments."""
    blocks = re.findall(r"^```sh\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line for raw in lines if (line := re.sub(r"(^|\s{2,})#.*", "", raw).strip())]


def block(document: Path, language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    with local_server(tmp_path_factory.mktemp("prefect")) as running:
        yield running


@pytest.fixture
def scratch(tmp_path: Path, server: LocalServer) -> dict[str, str]:
    """Make a folder of the README's plan, live state and what `prefect deploy` needs; give the environment."""
    (tmp_path / "trading.yaml").write_text(block(ROOT / "README.md", "yaml"))
    (tmp_path / "quality").mkdir()
    (tmp_path / "quality/ledger.json").write_text(block(ROOT / "README.md", "json"))
    (tmp_path / "state/models").mkdir(parents=True)
    (tmp_path / "state/models/trend.bin").write_bytes(os.urandom(100_000))
    with sqlite3.connect(tmp_path / "state/ledger.db") as live:
        live.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, symbol TEXT, price REAL)")
        live.execute("CREATE TABLE positions (symbol TEXT PRIMARY KEY, quantity INTEGER)")
        live.executemany("INSERT INTO orders VALUES (?, ?, ?)", ((n, "AAPL", n / 2) for n in range(100)))
        live.executemany("INSERT INTO positions VALUES (?, ?)", [("AAPL", 5), ("AAPL.X", 6), ("MSFT", 7)])
    live.close()
    for name in ("prefect.yaml", "prefect.toml", "flows", "blocks", "deployments"):
        (tmp_path / name).symlink_to(ROOT / name)
    return {
        **os.environ,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PWD": str(tmp_path),
        "HOME": str(tmp_path),
        "COLUMNS": "160",
        "LASTGOOD_PASSPHRASE": "a passphrase for the tests only",
        "PREFECT_HOME": str(tmp_path / "prefect-home"),
        "PREFECT_API_URL": server.api_url,
        "PREFECT_WORKER_QUERY_SECONDS": "1",
    }


@pytest.mark.parametrize("name", ["README.md"])
@pytest.mark.timeout(280)
def test_every_command_of_a_document_runs(name: str, scratch: dict[str, str]) -> None:
    folder, lines = Path(scratch["PWD"]), commands(ROOT / name)
    assert len(lines) > 10
    started: list[subprocess.Popen[bytes]] = []
    try:
        for line in lines:
            if line.startswith("make "):
                subprocess.run(["make", "-n", line.split()[1]], cwd=ROOT, check=True, capture_output=True)
            elif line.startswith(BACKGROUND):
                started.append(subprocess.Popen(line, shell=True, cwd=folder, env=scratch, start_new_session=True))
            else:
                run(line, folder, scratch)
    finally:
        for process in started:
            os.killpg(process.pid, 15)
            process.wait(30)


def run(line: str, folder: Path, env: dict[str, str]) -> None:
    for written, meant in MADE_BEFORE.items():
        line = line.replace(written, meant)
    done = subprocess.run(["bash", "-c", line], cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
