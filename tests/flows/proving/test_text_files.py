"""Lines of text files as rows; what is not UTF-8 is found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from blocks.crypto.keyring import NoEncryption
from blocks.plan.plan import BackupPlan
from blocks.records import BackupType
from blocks.repository.block import BackupRepository
from blocks.sources.files import FilesSource
from flows.backup import make_backup
from flows.verify import make_verification


@pytest.mark.parametrize(
    ("content", "findings"),
    [
        ("Zürich\n\nKöln\r\n".encode(), ()),
        ("Zürich\nKöln\n".encode("latin-1"), ("notes/tree: 2 of 2 lines are not UTF-8; for example a.txt, a.txt",)),
        (
            b"Basel\nBern\n",
            ("notes/tree: 1 of 2 values of text are not without a match of Bern (50 %); for example a.txt",),
        ),
    ],
)
def test_lines_of_text(tmp_path: Path, content: bytes, findings: tuple[str, ...]) -> None:
    (tmp_path / "live").mkdir()
    (tmp_path / "live" / "a.txt").write_bytes(content)
    (tmp_path / "live" / "b.bin").write_bytes(b"\xff\n")
    rule = {"type": "expect_column_values_to_not_match_regex", "kwargs": {"column": "text", "regex": "Bern"}}
    rule["may_be_empty"] = True
    suite = {"name": "notes", "collection": "notes/tree", "keys": "*.txt", "format": "text", "examples": True}
    (tmp_path / "suite.json").write_text(json.dumps({**suite, "expectations": [rule]}))
    plan = BackupPlan(
        name="notes",
        sources={"notes": FilesSource(url=str(tmp_path / "live"))},
        repository=BackupRepository(url=str(tmp_path / "repository")),
        encryption=NoEncryption(type="none"),
        quality=[str(tmp_path / "suite.json")],
    )
    plan.repository.initialize(plan.encryption)
    make_backup(plan, BackupType.FULL)
    assert make_verification(plan, deep=False).findings == findings
