"""A trading desk with a plan in a YAML file, and the command run on it in this process."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from blocks.plan.plan import load_plan
from blocks.records import BackupMetadata
from lastgood import main

PASSPHRASE = "correct horse battery staple"

PLAN = """
name: trading
sources:
  ledger: {type: sqlite, path: ./state/ledger.db, part_size_bytes: 4000}
  conf: {type: files, url: ./state/conf}
repository: {url: ./backups}
encryption: {credential: {CREDENTIAL}}
"""


@dataclass(frozen=True)
class Ran:
    """What a command left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Desk:
    """A folder with live state, a plan and, after `init`, a repository."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], credential: str) -> None:
        self.folder, self._capsys = folder, capsys
        self.database, self.conf = folder / "state" / "ledger.db", folder / "state" / "conf"
        self.plan = folder / "plan.yaml"
        self.conf.mkdir(parents=True)
        self.plan.write_text(PLAN.replace("CREDENTIAL", credential))
        self.sql("create table orders(id integer primary key, symbol text, price real, note)")
        self.sql("create table positions(symbol text primary key, size int) without rowid")
        self.sql("insert into positions values ('AAPL', 5), ('MSFT', 7)")
        rows = ", ".join(f"({n}, 'S{n % 5}', {n}.5, 'note {n}')" for n in range(1, 201))
        self.sql(f"insert into orders values {rows}")
        (self.conf / "limits.json").write_text('{"limit": 10}')

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(self.database)
        with connection:
            rows = connection.execute(statement).fetchall()
        connection.close()
        return rows

    def run(self, *words: str) -> Ran:
        """Run `lastgood` with the words; PLAN stands for the plan's path."""
        self._capsys.readouterr()
        code = main([str(self.plan) if word == "PLAN" else word for word in words])
        captured = self._capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    def done(self, *words: str) -> Ran:
        """Run a command that must succeed."""
        ran = self.run(*words)
        assert ran.code == 0, ran.err
        return ran

    def backup(self, *words: str) -> str:
        """Make a backup and return its id."""
        return str(self.done("backup", "PLAN", "--json", *words).json["id"])

    def manifest(self, backup_id: str) -> BackupMetadata:
        plan = load_plan(str(self.plan))
        return plan.repository.unlock(plan.encryption).manifest("trading", backup_id)

    def objects(self, backup_id: str, pattern: str = "*") -> list[Path]:
        """Return the files of a backup in the repository."""
        return sorted((self.folder / "backups" / "backups" / "trading" / backup_id).glob(pattern))
