"""`python -m benchmarks [NAME...]`: measure some workloads, or all, and write what was found."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.machine import describe
from benchmarks.report import Outcome

WORKLOADS = {
    "R1": "full backup of a Redis",
    "R2": "incremental backup of a Redis",
    "F1": "full backup of files",
    "F2": "incremental backup of files",
    "F3": "restore of files",
    "C1": "read and check every stored byte",
    "P1": "full backup of a PostgreSQL database",
    "P2": "incremental backup of a PostgreSQL database",
    "P3": "restore of a PostgreSQL database",
    "P4": "growth of a PostgreSQL incremental with its table",
    "P5": "growth of a PostgreSQL table whose rows lie in no order of their key",
    "S1": "full backup of a large SQLite database, and growth",
    "K1": "one row restored from a long chain",
    "T1": "many small tables",
    "B1": "backups of files to an S3 server",
    "B2": "backups of a PostgreSQL database to an S3 server",
    "B3": "restores from an S3 server",
    "V1": "verification against a plain restore",
    "O1": "what Prefect costs on a small backup",
    "B4": "list of very many backups in an object store",
    "D1": "building blocks",
}


def main() -> None:
    """Run the command line."""
    wanted = _arguments()
    folder = Path(tempfile.mkdtemp(prefix="lastgood-bench-", dir=wanted.folder))
    bench = Bench(folder, wanted.pairs, wanted.scale)
    machine = describe()
    outcomes: list[Outcome] = []
    try:
        for name in wanted.names or WORKLOADS:
            bench.say(f"{name}: {WORKLOADS[name]}")
            outcome: Outcome = import_module(f"benchmarks.workloads.{name.lower()}").run(bench)
            outcomes.append(outcome)
            print(outcome.markdown(), flush=True)
            if wanted.out:
                _write(wanted.out, outcomes, machine, bench)
    finally:
        if wanted.keep:
            bench.say(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _arguments() -> argparse.Namespace:
    epilog = "\n".join(f"  {name}  {what}" for name, what in WORKLOADS.items())
    parser = argparse.ArgumentParser(
        "python -m benchmarks", formatter_class=argparse.RawDescriptionHelpFormatter, epilog=f"workloads:\n{epilog}"
    )
    parser.add_argument("names", nargs="*", type=str.upper, metavar="NAME", help="workloads; none means all")
    parser.add_argument("--pairs", type=int, default=5, help="rounds that count, after one to warm up (default 5)")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the amount of data (default 1)")
    parser.add_argument("--folder", type=Path, help="where data are made; 30 GB at scale 1 (default: the system's)")
    parser.add_argument("--out", type=Path, help="folder for a report and pictures")
    parser.add_argument("--keep", action="store_true", help="leave data and repositories behind")
    wanted = parser.parse_args()
    if unknown := [name for name in wanted.names if name not in WORKLOADS]:
        parser.error(f"there is no workload {unknown[0]}; there are {', '.join(WORKLOADS)}")
    return wanted


def _write(out: Path, outcomes: list[Outcome], machine: list[tuple[str, str]], bench: Bench) -> None:
    out.mkdir(parents=True, exist_ok=True)
    day = datetime.now(UTC).date().isoformat()
    lines = [f"# Measured on {day}", "", f"Scale {bench.scale:g}, {bench.pairs} pairs after a warm-up.", ""]
    lines += [f"- {name}: {what}" for name, what in machine] + [""]
    for outcome in outcomes:
        lines.append(outcome.markdown())
        if outcome.series:
            picture = out / f"{day}-{outcome.code.lower()}.svg"
            picture.write_text(outcome.picture())
            lines += [f"![{outcome.code}]({picture.name})", ""]
    (out / f"{day}.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
