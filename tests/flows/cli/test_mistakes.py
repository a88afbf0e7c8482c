"""Fifty typical mistakes of plans and command lines: each ends with its exit code and says what is wrong.

What must be in a message: the field and its line, what is allowed, the word that was meant. What must never be: words
of libraries, a traceback, a secret.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from blocks.crypto.keyring import generate_key_file
from tests.flows.cli.desk import Desk

SECRET = "hunter2"
FOREIGN = re.compile(
    r"Input should|not permitted|Field required|Value error|pydantic|Traceback|Errno|NoneType|unexpected |psycopg"
)
PLAN = """\
name: trading
sources:
  ledger: {type: sqlite, path: ./state/ledger.db}
  conf:
    type: files
    url: ./state/conf
repository: {url: ./backups}
encryption: {credential: {key_file: ./own.key}}
"""
CLOSED = 1
"""A port on which nothing listens."""


@dataclass(frozen=True)
class Mistake:
    """A mistake.

    Attributes:
        code: The exit code.
        said: What the message must hold.
        words: The command line; PLAN stands for the path of the plan.
        old: What stands in the plan in the place of
        new: the mistake.
        text: All of the plan, in the place of that.
        variables: Of the environment.
        before: What is done first.
    """

    code: int
    said: tuple[str, ...]
    words: tuple[str, ...] = ("list", "PLAN")
    old: str = ""
    new: str = ""
    text: str | bytes | None = None
    variables: dict[str, str] = field(default_factory=dict)
    before: Callable[[Path], object] | None = None


def plan(old: str, new: str, *said: str, words: tuple[str, ...] = ("list", "PLAN"), code: int = 2) -> Mistake:
    return Mistake(code, said, words, old, new)


def typed(code: int, words: str, *said: str) -> Mistake:
    return Mistake(code, said, tuple(words.split(" ")))


CHECK = ("plan", "check", "PLAN")


def source(fields: str, *said: str, code: int, **more: str) -> Mistake:
    return Mistake(code, said, CHECK, "{type: sqlite, path: ./state/ledger.db}", f"{{{fields}}}", variables=more)


def _another_key(folder: Path) -> None:
    os.unlink(folder / "own.key")
    generate_key_file(folder / "own.key")


TOMORROW = f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}"

MISTAKES = {
    # what is no plan
    "no such file": typed(2, "list ./trading.yml", "plan trading.yml: No such file"),
    "a folder": typed(2, "list ./state/", "plan state: Is a directory"),
    "an empty file": Mistake(2, ("not a mapping", "it is empty", "plan new"), text=""),
    "a list": Mistake(2, ("not a mapping", "it is a list"), text="- name: trading\n- sources: {}\n"),
    "one text": Mistake(2, ("not a mapping",), text="trading\n"),
    "UTF-16": Mistake(2, ("no UTF-8", "Save it as UTF-8"), text=PLAN.encode("utf-16")),
    "a tab": plan("    url: ./state", "\turl: ./state", "a tab stands in the indentation", "line 6"),
    "wrong indentation": plan("    url: ./state", "     url: ./state", "indented as the lines before", "line 6"),
    "a colon in text": plan("./state/conf", "./state: conf", "text with a colon in quotes", "line 6"),
    "a bracket left open": plan("{url: ./backups}", "{url: ./backups", "is not YAML", "line"),
    "an anchor that there is not": plan("url: ./state/conf", "url: *conf", "an alias (`*name`)", "line 6"),
    "a key twice": plan("repository:", "name: other\nrepository:", "line 7: the key 'name' stands there twice"),
    "two sources of one name": plan("  conf:", "  ledger:", "line 4: the key 'ledger'", "first in line 3"),
    # fields
    "a field of a plan misspelt": plan("sources:", "source:", "line 2: source: there is no such field; did you mean"
                                       " sources?"),
    "a field of a source misspelt": plan("path:", "pth:", "line 3: sources.ledger.pth", "did you mean path?"),
    "a field of a credential misspelt": plan("key_file:", "keyfile:", "line 8: encryption.credential.keyfile",
                                             "did you mean key_file?"),
    "a type misspelt": plan("type: sqlite", "type: sqllite", "line 3", "it is one of files, mapping, postgres, redis,"
                            " sqlite; did you mean sqlite?"),
    "a type that there is not": plan("type: sqlite", "type: oracle", "line 3", "it is one of files, mapping, postgres"),
    "a source without a type": plan("    type: files\n", "", "line 4: sources.conf: its `type` is missing", "files"),
    "a source without a place": plan(", path: ./state/ledger.db", "", "line 3: sources.ledger.path: it is missing"),
    "a source that is a path": plan("{type: sqlite, path: ./state/ledger.db}", "./state/ledger.db",
                                    "line 3: sources.ledger: write fields and their values"),
    "sources that are none": plan("sources:\n", "sources: {}\nx:\n", "sources: name at least 1", "line 2"),
    "a field indented too far": plan("./state/conf\n", "./state/conf\n    retention: {full: 90d}\n",
                                     "line 7: sources.conf.retention", "indented too far"),
    "a source at the left": plan("repository:", "cache: {type: redis}\nrepository:", "line 7: cache",
                                 "sources stand beneath `sources:`"),
    "no repository": plan("repository: {url: ./backups}\n", "", "repository: it is missing"),
    "a repository that is a path": plan("{url: ./backups}", "./backups", "line 7: repository: write fields"),
    "a repository of another kind": plan("./backups", "ftp://h/x", "line 7: repository.url", "s3://"),
    "no encryption": plan("encryption: {credential: {key_file: ./own.key}}\n", "", "encryption: it is missing"),
    "encryption that is yes": plan("{credential: {key_file: ./own.key}}", "yes", "line 8: encryption: write"),
    "two credentials": plan("{key_file: ./own.key}", "{key_file: ./own.key, passphrase_env: P}", "line 8",
                            "exactly one of"),
    "a name with spaces": plan("name: trading", "name: Trading Desk", "line 1: name: write lower-case letters"),
    "a name that is a number": plan("name: trading", "name: 2026", "line 1: name", "put it into quotes"),
    "a name of a source with a slash": plan("  ledger:", "  led/ger:", "line 3: sources.led/ger", "use letters"),
    "a number as words": plan("name:", "compression: {level: high}\nname:", "line 1: compression.level: write a whole"
                              " number"),
    "a number out of range": plan("name:", "compression: {level: 20}\nname:", "line 1: compression.level: write 19 or"
                                  " less"),
    "true as words": plan("    type: files", "    one_file_system: perhaps\n    type: files", "line 5",
                          "write true or false"),
    "one glob for a list": plan("    type: files", "    include: '*.json'\n    type: files", "line 5", "write a list"),
    "a word of a choice misspelt": plan("    type: files", "    on_change: skipp\n    type: files", "line 5",
                                        "one of error, skip; did you mean skip?"),
    "an age without a unit": plan("name:", "retention: {full: 90}\nname:", "line 1: retention.full", "needs a unit"),
    "an age in minutes": plan("name:", "retention: {full: 6m}\nname:", "line 1: retention.full", "6mo for months"),
    "an age of nothing": plan("name:", "retention: {full: 0d}\nname:", "line 1: retention.full", "longer than nothing"),
    "none to keep": plan("name:", "retention: {keep_last: 0}\nname:", "line 1: retention.keep_last: write 1 or more"),
    "a cron text of four": plan("name:", "schedules: {full: '0 2 * *'}\nname:", "line 1: schedules.full", "has five"),
    "an hour 25": plan("name:", "schedules: {full: '0 25 * * *'}\nname:", "line 1: schedules.full", "bad hour"),
    "a schedule of seconds": plan("name:", "schedules: {full: 30s}\nname:", "line 1", "1m or more"),
    "a job that there is not": plan("name:", "schedules: {daily: 1d}\nname:", "line 1: schedules.daily", "incremental"),
    "a word for verify_after_backup": plan("name:", "verify_after_backup: full\nname:", "line 1", "off, quick, deep"),
    "critical without a source": plan("name:", "critical: [orders]\nname:", "line 1: critical.0", "source/collection"),
    "a backend that there is not": plan(
        "name:", "metrics: {backend: statds}\nname:", "line 1: metrics.backend", "did you mean statsd?"
    ),
    "an address of metrics": plan(
        "name:", "metrics: {backend: statsd, address: 'http://x'}\nname:", "line 1: metrics.address", "host:port"
    ),
    "tags of StatsD": plan(
        "name:", "metrics: {backend: statsd, tags: {env: prod}}\nname:", "line 1: metrics.tags", "datadog and otlp have"
    ),
    "a host of metrics that is not known": plan(
        "name:", "metrics: {backend: statsd, address: nowhere.invalid}\nname:",
        "not ready  metrics: statsd at nowhere.invalid: the host is not known", words=CHECK,
    ),
    "hooks misspelt": plan("name:", "hooks: {befor: [x]}\nname:", "line 1: hooks.befor", "did you mean before?"),
    "a name of a source that YAML takes for true": plan("  ledger:", "  yes:", "sources", "put it into quotes"),
    # secrets
    "a password in a DSN": source(f'type: postgres, dsn: "postgresql://me:{SECRET}@h/x"', "line 3: sources.ledger.dsn",
                                  "environment variable", code=2),
    "a password in the URL of a Redis": source(f'type: redis, url: "redis://:{SECRET}@h"', "line 3: sources.ledger",
                                               "environment variable", code=2),
    "a passphrase in the plan": plan("{key_file: ./own.key}", f"{{passphrase: {SECRET}}}",
                                     "line 8: encryption.credential.passphrase", "passphrase_env"),
    "a password in --to": typed(2, f"restore PLAN --to postgresql://me:{SECRET}@h/x --yes", "there is a password"),
    "the variable of the passphrase not set": plan("{key_file: ./own.key}", "{passphrase_env: LASTGOOD_NOBODY}",
                                                   "LASTGOOD_NOBODY"),
    "a passphrase file that is not there": plan("{key_file: ./own.key}", "{passphrase_file: ./secret}", "secret",
                                                "No such file"),
    "a wrong key": Mistake(7, ("opens none of the 2 slots",), before=_another_key),
    "no encryption where there is": plan("{credential: {key_file: ./own.key}}", "none", "the repository is encrypted"),
    # places
    "a database that is not there": source("type: sqlite, path: ./state/legder.db", "source ledger", "legder.db",
                                           code=3),
    "a file that is no database": source("type: sqlite, path: ./plan.yaml", "source ledger", "plan.yaml", code=3),
    "a folder that is not there": plan("./state/conf", "./state/cnof", "source conf", "cnof", words=CHECK,
                                       code=3),
    "a DSN that is none": source("type: postgres, dsn: 'localhost books'", "line 3: sources.ledger", "`dsn`",
                                 "postgresql://user@host:5432/database", code=2),
    "the port of a DSN as text": source("type: postgres, dsn: 'postgresql://me@localhost:port/x'",
                                        "line 3: sources.ledger.dsn: write the port as a number", code=2),
    "a port of PostgreSQL that is closed": source(f"type: postgres, dsn: 'postgresql://me@127.0.0.1:{CLOSED}/x',"
                                                  " connect_timeout_seconds: 2", "source ledger", "127.0.0.1:1",
                                                  code=3),
    "a port of Redis that is closed": source(f"type: redis, url: 'redis://127.0.0.1:{CLOSED}'", "source ledger",
                                             "127.0.0.1:1", code=3),
    "the port of a Redis as text": source("type: redis, url: 'redis://localhost:port'", "line 3: sources.ledger.url",
                                          "port", code=2),
    "the variable of a password not set": source("type: redis, password_env: CACHE_PASSWORD", "CACHE_PASSWORD",
                                                 code=2),
    "an endpoint that is closed": source("type: files, url: 's3://b/x', storage: {endpoint: 'http://127.0.0.1:1',"
                                         " attempts: 1, retry_seconds: 0, region: us-east-1}", "127.0.0.1", code=3,
                                         AWS_ACCESS_KEY_ID="k", AWS_SECRET_ACCESS_KEY=SECRET),
    "settings of a bucket for a folder": source("type: files, url: ./state, storage: {region: eu-west-1}", "line 3:"
                                                " sources.ledger", "means nothing to a folder", code=2),
    "a disk that is not mounted": plan("./backups", "./mnt/backups", "is not there", "lastgood init", code=4),
    "a source that is its repository": plan("./state/conf", "./backups", "is its own repository",
                                            words=CHECK),
    "one database twice": plan("  conf:", "  books: {type: sqlite, path: state/ledger.db}\n  conf:", "are one place",
                               words=CHECK),
    "a suite that is not there": plan("name:", "quality: [./quality.json]\nname:", "quality.json", "No such file",
                                      words=CHECK),
    "a hook that is not there": plan("name:", "hooks: {before: [./pause]}\nname:", "not ready  hook pause",
                                     "no program ./pause", words=CHECK),
    # command lines
    "a command misspelt": typed(2, "bakcup PLAN", "did you mean backup?"),
    "no command": typed(2, "--verbos", "the name of a command comes first"),
    "an option misspelt": typed(2, "backup PLAN --tpye full", "--tpye"),
    "an option that is nearly one": typed(2, "retention PLAN --dry", "'--dry'; did you mean --dry-run?"),
    "a plan by another ending": typed(2, "list plan.yml", "There is plan.yaml."),
    "seconds that are none": typed(2, "backup PLAN --wait soon", "'soon' is no number of seconds"),
    "seconds before now": typed(2, "backup PLAN --wait -5", "'-5' is no number of seconds"),
    "a tag without a word": typed(2, "backup PLAN --tag=", "--tag: it is empty"),
    "the latest misspelt": typed(6, "show PLAN latst", "did you mean latest?"),
    "an export beside itself": typed(2, "export PLAN latest ledger/* --format csv --to backups", "the repository"),
    "deployments nowhere": typed(2, "deploy PLAN --pool p", "no Prefect server answers"),
    "a log as something else": typed(2, "list PLAN --log-format jsno", "did you mean json?"),
    "a type of backup misspelt": typed(2, "backup PLAN --type fulll", "did you mean full?"),
    "no plan": typed(2, "backup", "PLAN"),
    "a name that no server knows": typed(2, "list trading", "not the path of a plan"),
    "a backup misspelt": typed(6, "show PLAN FUL_2062", "FUL_2062"),
    "a collection that there is not": typed(6, "restore PLAN --collection ledger/oders --yes", "ledger/oders"),
    "a time in the future": typed(2, f"restore PLAN --at {TOMORROW} --to ./new --yes", "in the future"),
    "a time that is none": typed(2, "restore PLAN --at yesterdayish --to ./new --yes", "is not a time"),
    "a restore in a pipe": typed(10, "restore PLAN", "--yes"),
    "a restore to a folder in use": typed(10, "restore PLAN --collection conf/* --to ./state --yes", "state"),
    "a mode misspelt": typed(2, "restore PLAN --mode exakt", "did you mean exact?"),
    "a share that is none": typed(2, "check PLAN --read-data=ten", "is not a share"),
    "init twice": typed(2, "init PLAN", "already"),
    "a plan over another": typed(2, "plan new ./state/conf --out plan.yaml", "plan.yaml exists"),
    "a plan of nothing": typed(2, "plan new ./nothing", "./nothing: No such file", "a folder, an SQLite file"),
    "a plan of another scheme": typed(2, "plan new mysql://h/x", "mysql://", "postgresql://"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_said(mistake: Mistake, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in mistake.variables.items():
        monkeypatch.setenv(name, value)
    if mistake.words[0] in ("show", "restore", "verify", "check"):
        desk.plan.write_text(PLAN)
        desk.backup()
    assert mistake.old in PLAN
    text = PLAN.replace(mistake.old, mistake.new, 1) if mistake.text is None else mistake.text
    desk.plan.write_bytes(text.encode() if isinstance(text, str) else text)
    if mistake.before is not None:
        mistake.before(desk.folder)
    ran = desk.run(*mistake.words)
    said = ran.err + ran.out
    assert ran.code == mistake.code, said
    for words in mistake.said:
        assert words in said, said
    assert not FOREIGN.search(said), said
    assert SECRET not in said


def test_there_are_fifty() -> None:
    assert len(MISTAKES) >= 50


@pytest.mark.parametrize("text", [f"\ufeff{PLAN}", PLAN.replace("\n", "\r\n"), PLAN + "# no newline at the end"])
def test_what_editors_do_is_no_mistake(text: str, desk: Desk) -> None:
    desk.plan.write_bytes(text.encode())
    assert desk.done("list", "PLAN", "--json").json["backups"] == []
