"""B4: a list of very many backups in an object store."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.measure import Contestant, Run, compete
from benchmarks.report import Outcome
from tests.object_servers import KEY_ID_ENV, SECRET_ENV, Seaweed, seaweed

BACKUPS = 10_000
_MAIN = "from lastgood import main; raise SystemExit(main())"


def run(bench: Bench) -> Outcome:
    """List the backups of a repository in SeaweedFS, on a machine that has never seen it and on one that has."""
    count = bench.size(BACKUPS, least=50)
    with seaweed(bench.folder / "seaweed") as server:
        return _measured(bench, server, count)


def _measured(bench: Bench, server: Seaweed, count: int) -> Outcome:
    plan, copies = _plan(bench, server), bench.folder / "copies"
    env = server.environment | {"XDG_CACHE_HOME": str(copies)}

    def command(*words: str) -> Run:
        return bench.run([sys.executable, "-c", _MAIN, *words], env=env)

    bench.say(f"  making {count:,} backups")
    # no copies are made here: /dev/null holds none
    bench.run(
        [sys.executable, "-m", "benchmarks.many_backups", str(plan), str(count)],
        env=env | {"XDG_CACHE_HOME": os.devnull},
    )

    def listed() -> Run:
        done = command("list", str(plan))
        if sum("INC_" in line or "FUL_" in line for line in done.output.splitlines()) != count:
            raise RuntimeError(f"not all {count} backups are listed")
        return done

    cold = Contestant("cold: nothing on this machine", listed, lambda: shutil.rmtree(copies, ignore_errors=True))
    warm = Contestant("warm: copies of all manifests", listed)
    outcome = Outcome("B4", f"`list` of {count:,} backups in SeaweedFS, whole command")
    series = compete([cold, warm], bench.pairs, bench.say)
    outcome.series = series[1:]
    outcome.facts = [
        ("cold", f"{series[0].seconds:.2f} s, {series[0].cpu_seconds:.2f} s of processor time", "10 s"),
        ("warm", f"{series[1].seconds:.2f} s, {series[1].cpu_seconds:.2f} s of processor time", "1 s"),
        ("copies on this machine", f"{_bytes(copies) / 1e6:.1f} MB", ""),
    ]
    outcome.notes = ["The server runs on the same two cores. Chains of ten; three small collections in each backup."]
    return outcome


def _plan(bench: Bench, server: Seaweed) -> Path:
    path = bench.folder / "many.yaml"
    storage = {
        "endpoint": server.endpoint, "region": "us-east-1", "key_id_env": KEY_ID_ENV, "secret_env": SECRET_ENV,
    }  # fmt: skip
    plan = {
        "name": "many",
        "sources": {"ledger": {"type": "sqlite", "path": str(bench.folder / "many.db")}},
        "repository": {"url": f"s3://{server.bucket()}/many", "storage": storage},
        "encryption": {"credential": {"key_file": str(bench.folder / "many.key")}},
    }
    path.write_text(json.dumps(plan))  # JSON is YAML
    return path


def _bytes(folder: Path) -> int:
    return sum(one.stat().st_size for one in folder.rglob("*") if one.is_file())
