"""What is wrong with a plan is said in our words: all of it, each with its line, its field, and what is allowed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from blocks.errors import ConfigurationError
from blocks.plan.plan import BackupPlan, read_plan
from blocks.plan.quality.suite import QualitySuite, read_suites
from blocks.plan.wrong_fields import mistakes

PLAN = """name: trading
sources:
  ledger: {type: sqlite, path: ./a.db}
  conf:
    type: files
    url: ./conf
repository: {url: ./backups}
encryption: none
"""
PYDANTIC = re.compile(
    r"Input should|not permitted|Field required|Value error|Unable to extract|pydantic|Assertion|union_tag"
)


def wrong(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        read_plan(path)
    assert not PYDANTIC.search(caught.value.message)
    return caught.value.message.removeprefix(f"plan {path}").splitlines()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("path: ./a.db", "path: ./a.db, tabels: [a]", ", line 3: sources.ledger.tabels: there is no such field; did you"
         " mean tables?; fields here: allow_empty, type, path, tables, exclude, part_size_bytes, integrity,"
         " on_unsupported, busy_timeout_seconds"),
        ("type: sqlite", "type: sqllite", ", line 3: sources.ledger: there is no type 'sqllite'; it is one of files,"
         " mapping, postgres, redis, sqlite; did you mean sqlite?"),
        ("    type: files\n", "", ", line 4: sources.conf: its `type` is missing; it is one of files, mapping,"
         " postgres, redis, sqlite"),
        (", path: ./a.db", "", ", line 3: sources.ledger.path: it is missing (The database file)"),
        ("name: trading\n", "", ", line 1: name: it is missing (Name of the plan; its backups are kept under it)"),
        ("name: trading", "name: 5", ", line 1: name: YAML takes what stands there for a number; put it into quotes, or"
         " write text"),
        ("name: trading", "name:", ", line 1: name: nothing stands there; write text"),
        ("./backups}", "./backups, single_writer: perhaps}", ", line 7: repository.single_writer: write true or false"),
        ("none", "none\ncompression:\n  level: 20", ", line 10: compression.level: write 19 or less"),
        ("none", "none\ncompression:\n  level: high", ", line 10: compression.level: write a whole number"),
        ("none", "none\nhooks: {before: [{command: [a], timeout_seconds: 0}]}", ", line 9:"
         " hooks.before.0.timeout_seconds: write more than 0"),
        ("./conf", "./conf\n    on_change: eror", ", line 7: sources.conf.on_change: write one of error, skip; did you"
         " mean error?"),
        ("./conf", "./conf\n    include: '*.json'", ", line 7: sources.conf.include: write a list, such as [a, b]"),
        ("./conf", "./conf\n    retention: {full: 9d}", ", line 7: sources.conf.retention: there is no such field;"
         " `retention` stands at the beginning of a line: this one may be indented too far; fields here: allow_empty,"
         " type, url, storage, include, exclude, on_change, on_unreadable, read_attempts, one_file_system,"
         " part_size_bytes"),
        ("none", "none\ncritical: [ledger/a, ledger]", ", line 9: critical.1: pattern 'ledger': write source/collection"
         " or source/collection:key"),
        ("./backups}", "'ftp://h/x'}", ", line 7: repository.url: backups cannot be kept at ftp://…. Give a path, or a"
         " URL of file://, s3://, gs://, az://, sftp://. A package that adds another kind is to be installed here."),
        ("url: ./conf", "url: 'ftp://h/x'", ", line 4: sources.conf: files at ftp:// cannot be backed up: only local"
         " folders and buckets (s3://) are supported. Give a path or a file:// URL, for example of a mounted disk, or"
         " s3://bucket/prefix."),
        ("none", "none\nretention: {full: 90}", ", line 9: retention.full: 90 needs a unit, for instance 90d"),
        ("none", "none\nschedules: {full: '61 * * * *'}", ", line 9: schedules.full.cron: '61 * * * *' is no cron text:"
         " bad minute"),
        ("    url: ./conf", "\turl: ./conf", " is not YAML: a tab stands in the indentation: write spaces, line 6,"
         " column 1"),
    ],
)  # fmt: skip
def test_a_mistake_is_said_with_line_field_and_what_is_allowed(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in PLAN
    assert wrong(tmp_path, PLAN.replace(old, new)) == [said]


def test_several_mistakes_are_said_one_a_line_in_the_order_of_lines(tmp_path: Path) -> None:
    text = PLAN.replace("./conf", "./conf\n    read_attempts: 0").replace("name: trading", "name: Trading Desk")
    first, *rest = wrong(tmp_path, f"{text}retention: {{daily: 3d}}\n")
    assert first == ": 3 mistakes"
    assert [line.partition(": ")[0] for line in rest] == ["line 1", "line 7", "line 10"]
    assert rest[1] == "line 7: sources.conf.read_attempts: write 1 or more"


def test_lines_follow_anchors_and_merges(tmp_path: Path) -> None:
    text = PLAN.replace("  conf:\n    type: files\n", "  conf: &one\n    type: files\n").replace(
        "repository:", "  more:\n    <<: *one\n    url: 5\nrepository:"
    )
    assert wrong(tmp_path, text) == [
        ", line 9: sources.more.url: YAML takes what stands there for a number; put it into quotes, or write text"
    ]


@pytest.mark.parametrize("name", ["q.json", "q.yaml"])
def test_a_suite_tells_line_and_field(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text('[{"name": "n",\n"collection": "a",\n"expectations": [{"type": "x",\n"kwarg": {}}]}]')
    with pytest.raises(ConfigurationError) as caught:
        read_suites(str(path))
    assert not PYDANTIC.search(caught.value.message)
    assert caught.value.message.splitlines() == [
        f"quality file {path}, suite 'n': 3 mistakes",
        "line 2: collection: write source/collection, such as ledger/orders",
        "line 3: expectations.0.kwargs: it is missing (Arguments of the expectation; dates and times are text)",
        "line 4: expectations.0.kwarg: there is no such field; did you mean kwargs?; fields here: type, kwargs, meta,"
        " severity, may_be_empty",
    ]


@pytest.mark.parametrize("value", [None, "text", 5, -1, 1.5, [], [1], {}, {"a": 1}, True, "2026-01-01", [[]], "\0"])
def test_no_sentence_is_pydantics_whatever_stands_in_a_field(value: object) -> None:
    def seen(model: type[BaseModel], raw: dict[str, object]) -> None:
        with pytest.raises(ValidationError) as caught:
            model.model_validate(raw)
        for mistake in mistakes(model, raw, caught.value):
            assert not PYDANTIC.search(str(mistake)), mistake
            assert "cannot stand there" not in str(mistake), (mistake, caught.value)

    seen(BackupPlan, dict.fromkeys(BackupPlan.model_fields, value))
    seen(QualitySuite, dict.fromkeys(QualitySuite.model_fields, value))
    for kind in ("files", "mapping", "postgres", "redis", "sqlite"):
        for name in ("allow_empty", "url", "dsn", "path", "object", "databases", "storage", "slot", "include"):
            raw = {"name": "x", "sources": {"a": {"type": kind, name: value}}, "repository": {"url": value}}
            seen(BackupPlan, raw)
    for fields in (
        {"retention": {"full": value, "keep_last": value, "sweep_grace": value}},
        {"schedules": {"full": value, "verify": {"interval": value, "start": value, "cron": value}}},
        {"hooks": {"before": [{"command": value, "timeout_seconds": value, "folder": value}], "after": value}},
        {"encryption": {"credential": {"key_file": value, "passphrase_env": value}, "kem": value, "cipher": value}},
        {"compression": {"codec": value, "level": value}, "critical": value, "quality": value},
    ):
        seen(BackupPlan, {"name": "x", **fields})
