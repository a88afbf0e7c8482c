"""What the tests of the format share: a state worth backing up, and plain looks at it that owe nothing to lastgood."""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

from blocks.plan.plan import BackupPlan, parse_plan
from blocks.records import BackupMetadata, BackupType
from flows.backup import make_backup

DOCUMENT = Path(__file__).parent.parent / "docs" / "format.md"
MIB = 1 << 20
MOMENT_NS = 1_700_000_000_123_456_789

_GUARD = """
import runpy, sys
for name in ("blocks", "flows", "prefect", "pydantic", "numpy", "pandas"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def make_plan(folder: Path, encryption: object, part_size_bytes: int = 4096) -> BackupPlan:
    """Make the plan of a database and a folder, with parts so small that there are several."""
    raw = {
        "name": "trading",
        "sources": {
            "ledger": {"type": "sqlite", "path": str(folder / "ledger.db"), "part_size_bytes": part_size_bytes},
            "models": {"type": "files", "url": str(folder / "models"), "part_size_bytes": MIB},
        },
        "repository": {"url": str(folder / "backups")},
        "encryption": encryption,
    }
    return parse_plan(raw, "the test's plan")


def run_sql(path: Path, script: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(script)
    connection.close()


def write(path: bytes, *pieces: tuple[int, bytes], size_bytes: int | None = None, mode: int = 0o644) -> None:
    """Write a file with holes between its pieces, under a time of its own."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    for offset, data in pieces:
        os.pwrite(file, data, offset)
    if size_bytes is not None:
        os.ftruncate(file, size_bytes)
    os.fchmod(file, mode)
    os.close(file)
    os.utime(path, ns=(MOMENT_NS, MOMENT_NS + len(pieces)))


def back_up(plan: BackupPlan, kind: str) -> BackupMetadata:
    made = make_backup(plan, BackupType(kind))
    assert made.backup_type == kind, made.promoted_because
    return made


def see_tree(root: Path) -> dict[str, list[object]]:
    """Describe everything of a tree that a restore brings back, but for its owners; names are shown in hex."""
    seen: dict[str, list[object]] = {}
    for folder, folders, files in os.walk(os.fsencode(root)):
        for path in [folder, *(os.path.join(folder, name) for name in folders + files)]:
            status = os.lstat(path)
            content: object = None
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(path).hex()
            elif stat.S_ISREG(status.st_mode):
                data = Path(os.fsdecode(path)).read_bytes()
                content = [len(data), hashlib.sha256(data).hexdigest()]
            mode = None if stat.S_ISLNK(status.st_mode) else oct(status.st_mode)
            seen[os.path.relpath(path, os.fsencode(root)).hex()] = [mode, status.st_mtime_ns, content]
    return dict(sorted(seen.items()))


def see_beside(root: Path) -> dict[str, object]:
    """Describe what entries have beside what `see_tree` sees: attributes, and the names of the same file; in hex."""
    attributes: dict[str, object] = {}
    names: dict[int, list[str]] = {}
    for folder, folders, files in os.walk(os.fsencode(root)):
        for path in [folder, *(os.path.join(folder, name) for name in files + folders)]:
            shown = os.path.relpath(path, os.fsencode(root)).hex()
            listed = os.listxattr(path, follow_symlinks=False)
            attributes[shown] = {name: os.getxattr(path, name, follow_symlinks=False).hex() for name in listed}
            if not stat.S_ISDIR((status := os.lstat(path)).st_mode):
                names.setdefault(status.st_ino, []).append(shown)
    return {"attributes": attributes, "names": sorted(map(sorted, names.values()))}


def see_database(path: Path) -> dict[str, object]:
    """Describe everything of a database, value by value with its storage class, by SQL alone."""
    connection = sqlite3.connect(path)

    def ask(query: str) -> list[list[object]]:
        return [list(row) for row in connection.execute(query)]

    schema = ask("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY rowid")
    pragmas = {
        name: ask(f"PRAGMA {name}")[0][0]
        for name in ("user_version", "application_id", "encoding", "page_size", "auto_vacuum", "journal_mode")
    }
    tables = {}
    for kind, name, _, sql in schema:
        if kind == "table" and "VIRTUAL" not in str(sql).upper():
            quoted = '"' + str(name).replace('"', '""') + '"'
            columns = [row[1] for row in ask(f"PRAGMA table_xinfo({quoted})")]
            shown = ", ".join(f'typeof("{c}") || \' \' || hex(CAST("{c}" AS BLOB))' for c in columns)
            order = ", ".join(f'"{c}"' for c in columns)
            rowid = "" if "WITHOUT ROWID" in str(sql).upper() else "rowid, "
            tables[str(name)] = ask(f"SELECT {rowid}{shown} FROM {quoted} ORDER BY {rowid}{order}")
    connection.close()
    return {"schema": schema, "pragmas": pragmas, "tables": tables}


def program() -> str:
    """Put together the Python of the document."""
    return "\n".join(re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL))


def restore(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the document's program as somebody without lastgood would: no project on its path, no blocks to import."""
    script = folder / "restore.py"
    script.write_text(program())
    return subprocess.run(
        [sys.executable, "-I", "-c", _GUARD, str(script), str(folder / "backups"), "trading", *arguments],
        cwd=folder,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
