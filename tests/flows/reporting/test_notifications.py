"""Who a plan names is told, by receivers on this machine; one that is broken neither stops a backup nor holds it up."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from blocks.errors import LastgoodError
from blocks.plan.plan import BackupPlan, read_plan
from blocks.records import BackupType
from blocks.repository.block import Repository
from flows.backup import make_backup
from flows.reporting import delivery, notifications
from flows.reporting.events import payload_of
from flows.reporting.lifecycle import Operation, Verb
from flows.retention import apply_retention
from flows.verify import make_verification
from tests.faults.damage import flip
from tests.receivers import (
    PASSWORD,
    USER,
    HttpReceiver,
    certificate,
    closed_port,
    endless_port,
    http_receiver,
    mail_receiver,
    silent_port,
)

TOKEN = "T0KEN-of-a-channel-0123456789"
SLACK = {"type": "slack", "url_env": "SLACK_URL"}
PING = {"type": "ping", "url_env": "PING_URL"}


class Books:
    """A ledger, and its plan with some notifications."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ledger = folder, folder / "ledger.sqlite"
        with sqlite3.connect(self.ledger) as database:
            database.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, amount REAL)")
            database.execute("INSERT INTO orders VALUES (1, 2.5)")
        database.close()
        self.plan = self.with_targets()
        self.plan.repository.initialize(self.plan.encryption, lambda kit: None)

    def with_targets(self, *targets: dict[str, Any]) -> BackupPlan:
        raw = {
            "name": "books",
            "sources": {"ledger": {"type": "sqlite", "path": "ledger.sqlite"}},
            "repository": {"url": "repository"},
            "encryption": "none",
            "notifications": list(targets),
        }
        (self.folder / "plan.yaml").write_text(yaml.safe_dump(raw))
        return read_plan(self.folder / "plan.yaml")

    def damage(self) -> None:
        for path in (self.folder / "repository" / "backups").rglob("*.pack"):
            flip(-1)(path)


@pytest.fixture
def books(tmp_path: Path) -> Books:
    return Books(tmp_path)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpReceiver]:
    with http_receiver() as receiver:
        monkeypatch.setenv("SLACK_URL", f"{receiver.url}/services/{TOKEN}")
        monkeypatch.setenv("PING_URL", f"{receiver.url}/switch")
        yield receiver


def test_a_failure_is_told_with_its_hint_and_what_to_do_and_success_is_not(books: Books, told: HttpReceiver) -> None:
    plan = books.with_targets(SLACK, {"type": "webhook", "url": f"{told.url}/hook", "when": ["failed", "completed"]})
    make_backup(plan, BackupType.FULL)
    assert told.paths == ["/hook"]
    posted = told.requests.pop().json
    assert (posted["occasion"], posted["plan"], posted["verb"], posted["type"]) == (
        "completed", "books", "backup", "full",
    )  # fmt: skip
    assert posted["subject"] == "lastgood: full backup of books completed"
    assert posted["error"] is None

    books.ledger.unlink()
    with pytest.raises(LastgoodError) as caught:
        make_backup(plan, BackupType.INCREMENTAL)
    hook, slack = sorted(told.requests, key=lambda one: one.path)
    assert slack.path == f"/services/{TOKEN}"
    text = slack.json["text"]
    assert text.startswith("*lastgood: incremental backup of books failed*\n")
    zone = time.strftime("%Z")
    for line in (
        f"error: {caught.value.message}",
        f"plan: books ({plan.reference})",
        f" {zone}, took ",
        "What to do: ",
    ):
        assert line in text
    assert caught.value.hint in text
    assert (hook.json["error"], hook.json["hint"]) == (caught.value.message, caught.value.hint)


def test_each_verb_is_told_of_and_only_what_is_wanted(books: Books, told: HttpReceiver) -> None:
    plan = books.with_targets({**SLACK, "when": ["verified"]}, {"type": "webhook", "url": f"{told.url}/bad"})
    made = make_backup(plan, BackupType.FULL)
    make_verification(plan)
    apply_retention(plan)
    (proved,) = told.requests
    assert "is proved good" in proved.json["text"]
    told.requests.clear()

    books.damage()
    make_verification(plan)
    (bad,) = told.requests
    assert (bad.path, bad.json["occasion"], bad.json["backup_id"]) == ("/bad", "corrupted", made.backup_id)
    assert f"lastgood backup {plan.reference} --type full" in bad.json["text"]
    told.requests.clear()
    shutil.rmtree(books.folder / "repository")
    for work in (lambda: make_verification(plan), lambda: apply_retention(plan)):
        with pytest.raises(LastgoodError):
            work()
    said = [(one.json["verb"], one.json["occasion"]) for one in told.requests]
    assert said == [("verification", "failed"), ("retention", "failed")]


def test_a_suspicious_backup_is_told_of_by_those_who_want_to_know(books: Books, told: HttpReceiver) -> None:
    made = make_backup(books.plan, BackupType.FULL)
    odd = made.model_copy(update={"suspicions": ("ledger/orders has half of its rows",)})
    plan = books.with_targets(SLACK, {"type": "webhook", "url": f"{told.url}/all", "when": ["completed"]}, PING)
    run = Operation(plan, Verb.BACKUP, "full", backup_id=made.backup_id, result=odd, seconds=1.0)
    notifications.PlanNotifications(plan).ended(run)
    by_path = {one.path: one for one in told.requests}
    assert by_path.keys() == {f"/services/{TOKEN}", "/all", "/switch"}
    assert "looks wrong" in by_path[f"/services/{TOKEN}"].json["text"]
    assert by_path["/all"].json["suspicions"] == ["ledger/orders has half of its rows"]
    assert run.told == ("slack", "webhook 127.0.0.1", "ping")


def test_a_dead_mans_switch_hears_of_the_beginning_and_of_the_end(books: Books, told: HttpReceiver) -> None:
    plan = books.with_targets(PING)
    make_backup(plan, BackupType.FULL)
    assert told.paths == ["/switch/start", "/switch"]
    make_backup(plan, BackupType.EMERGENCY)
    make_verification(plan, deep=False)
    apply_retention(plan)
    assert told.paths == ["/switch/start", "/switch"]
    books.damage()
    make_verification(plan, deep=False)
    assert told.paths[2:] == ["/switch/fail"]
    books.ledger.unlink()
    with pytest.raises(LastgoodError):
        make_backup(plan, BackupType.FULL)
    assert told.paths[3:] == ["/switch/start", "/switch/fail"]
    assert "full backup of books failed" in told.requests[-1].body


def test_the_ping_at_the_beginning_does_not_hold_the_backup_up(
    books: Books, told: HttpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    told.delay_seconds = 0.3
    order: list[str] = []
    commit = Repository.commit

    def committed(*args: Any, **options: Any) -> Any:
        order.append("committed")
        return commit(*args, **options)

    monkeypatch.setattr(Repository, "commit", committed)
    answered = delivery.ping

    def pinged(*args: Any) -> None:
        answered(*args)
        order.append("pinged")

    monkeypatch.setattr(notifications, "ping", pinged)
    make_backup(books.with_targets(PING), BackupType.FULL)
    assert order == ["committed", "pinged"]
    assert told.paths == ["/switch/start", "/switch"]


@pytest.mark.parametrize(
    ("statuses", "requests", "warning"),
    [
        ([503], 2, None),
        ([503, 502], 2, "HTTP 502 (2 attempts)"),
        ([429, 200], 2, None),
        ([404], 1, "it refused with HTTP 404"),
        ([302], 1, "it refused with HTTP 302"),
    ],
)
def test_what_may_pass_is_tried_again_once(
    books: Books, told: HttpReceiver, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
    statuses: list[int], requests: int, warning: str | None,
) -> None:  # fmt: skip
    monkeypatch.setattr(delivery, "PAUSE_SECONDS", 0.01)
    caplog.set_level(logging.DEBUG)
    told.statuses = statuses
    assert make_backup(books.with_targets({**SLACK, "when": ["completed"]}), BackupType.FULL)
    assert len(told.requests) == requests
    warned = [one.getMessage() for one in caplog.records if one.name.startswith("flows.")]
    assert any(warning in one for one in warned) if warning else not [one for one in warned if "slack" in one]
    assert TOKEN not in caplog.text


def test_receivers_that_are_broken_cost_seconds_at_most_and_are_warned_of(
    books: Books, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr(delivery, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(notifications, "PATIENCE_SECONDS", 3.0)
    with silent_port() as silent:
        monkeypatch.setenv("SLACK_URL", f"http://127.0.0.1:{silent}/{TOKEN}")
        monkeypatch.setenv("PING_URL", f"http://127.0.0.1:{closed_port()}/{TOKEN}")
        monkeypatch.setenv("NO_URL", f"no url {TOKEN}")
        everything = ["completed"]
        plan = books.with_targets(
            {**SLACK, "when": everything},
            PING,
            {**SLACK, "url_env": "NO_URL", "when": everything},
            {**SLACK, "url_env": "NOT_SET", "when": everything},
            {
                "type": "email", "to": "a@b.example", "sender": "c@d.example", "server": f"127.0.0.1:{silent}",
                "security": "none", "when": everything,
            },
            {"type": "email", "to": "a@b.example", "sender": "c@d.example", "server": f"127.0.0.1:{closed_port()}",
             "when": everything},
        )  # fmt: skip
        assert make_backup(plan, BackupType.FULL)
    said = [one.getMessage() for one in caplog.records if "was not sent" in one.getMessage()]
    assert len(said) == 6
    for words in (
        "it did not answer within 0.2 seconds (2 attempts)", "Connection refused", "none of http or https",
        "NOT_SET is not set", "does not answer", "cannot be reached",
    ):  # fmt: skip
        assert any(words in one for one in said), words
    assert TOKEN not in caplog.text


def test_nobody_is_waited_for_longer_than_the_patience_allows(
    books: Books, told: HttpReceiver, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "PATIENCE_SECONDS", 0.05)
    told.delay_seconds = 1.0
    plan = books.with_targets({**SLACK, "when": ["completed"]})
    assert make_backup(plan, BackupType.FULL)
    assert "is not waited for any longer" in caplog.text


def test_an_interrupted_backup_is_told_of(books: Books, told: HttpReceiver) -> None:
    plan = books.with_targets(SLACK)
    run = Operation(plan, Verb.BACKUP, "full", error=KeyboardInterrupt(), seconds=1.0)
    notifications.PlanNotifications(plan).ended(run)
    assert "error: it was interrupted" in told.requests[0].json["text"]


def test_secrets_that_an_error_repeats_are_left_out(books: Books, told: HttpReceiver) -> None:
    plan = books.with_targets(SLACK)
    said = LastgoodError(
        f"somebody said {os.environ['SLACK_URL']} <!channel>", hint=f"Look at {os.environ['SLACK_URL']}."
    )
    run = Operation(plan, Verb.BACKUP, "full", error=said, seconds=1.0)
    notifications.PlanNotifications(plan).ended(run)
    assert TOKEN not in told.requests[0].body
    assert "somebody said *** &lt;!channel&gt;" in told.requests[0].json["text"]
    assert TOKEN not in str(payload_of(run))
    bug = Operation(plan, Verb.BACKUP, "full", error=RuntimeError(f"password {TOKEN}"), seconds=1.0)
    notifications.PlanNotifications(plan).ended(bug)
    assert "it failed unexpectedly (RuntimeError)" in told.requests[1].json["text"]
    assert TOKEN not in told.requests[1].body


def test_a_secret_is_left_out_however_an_error_writes_it(
    books: Books, told: HttpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLACK_URL", f"{told.url}/a b/{TOKEN}".replace(" ", "?"))
    plan = books.with_targets(SLACK)
    said = f"GET {quote(os.environ['SLACK_URL'], safe='')} and postgresql://me:pa55word@db.example/books"
    notifications.PlanNotifications(plan).ended(
        Operation(plan, Verb.BACKUP, "full", error=LastgoodError(said), seconds=1)
    )
    (told_of,) = told.requests
    assert TOKEN not in told_of.body
    assert "pa55word" not in told_of.body


def test_names_that_are_no_text_are_told_all_the_same(books: Books, told: HttpReceiver) -> None:
    with mail_receiver() as mailed:
        mail = {"type": "email", "to": "a@b.example", "sender": "c@d.example", "server": f"localhost:{mailed.port}"}
        plan = books.with_targets(SLACK, PING, {"type": "webhook", "url": told.url}, {**mail, "security": "none"})
        error = LastgoodError("caf\udce9 cannot be read", hint="Look at caf\udce9.")
        run = Operation(plan, Verb.BACKUP, "full", error=error, seconds=1.0)
        notifications.PlanNotifications(plan).ended(run)
    assert len(run.told) == 4
    assert all(r"caf\xe9 cannot be read" in one.body.replace(r"\\", "\\") for one in told.requests)
    assert r"caf\xe9 cannot be read" in mailed.letters[0][1].get_content()
    assert payload_of(run)["message"] == r"caf\xe9 cannot be read"


def test_an_address_that_is_refused_is_said_though_others_are_told(
    books: Books, caplog: pytest.LogCaptureFixture
) -> None:
    with mail_receiver() as mailed:
        mailed.refused = ["gone@b.example"]
        mail = {"type": "email", "to": ["gone@b.example", "me@b.example"], "sender": "c@d.example", "security": "none"}
        plan = books.with_targets(mail | {"server": f"localhost:{mailed.port}"})
        run = Operation(plan, Verb.BACKUP, "full", error=LastgoodError("it failed"), seconds=1.0)
        notifications.PlanNotifications(plan).ended(run)
    assert [recipients for recipients, _ in mailed.letters] == [["me@b.example"]]
    assert "refused gone@b.example, and took the others" in caplog.text
    assert run.told == ()


def test_a_process_without_prefect_tells_through_all_that_needs_it(books: Books, tmp_path: Path) -> None:
    plan = books.with_targets(
        *({"type": "block", "block": f"slack-webhook/{name}", "when": ["completed"]} for name in "abc"),
        *({"type": "slack", "url_secret": name, "when": ["completed"]} for name in "abc"),
    )
    ended = subprocess.run(
        [sys.executable, "lastgood.py", "backup", str(plan.reference), "--no-server"],
        cwd=Path(__file__).parents[3],
        env=os.environ | {"PREFECT_API_URL": f"http://127.0.0.1:{closed_port()}/api", "PREFECT_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    told = [line.split(" was not sent: ")[1].split(".")[0] for line in ended.stderr.splitlines()]
    assert told == [
        *(f"the block slack-webhook/{name} cannot be loaded: ConnectError" for name in "abc"),
        *(f"The Prefect Secret block {name} cannot be loaded" for name in "abc"),
    ]


def test_an_answer_without_an_end_is_not_read(books: Books) -> None:
    with endless_port() as port:
        plan = books.with_targets({"type": "webhook", "url": f"http://127.0.0.1:{port}/hook"})
        run = Operation(plan, Verb.BACKUP, "full", error=LastgoodError("it failed"), seconds=1.0)
        notifications.PlanNotifications(plan).ended(run)
    assert run.told == ("webhook 127.0.0.1",)


# aiosmtpd does not see that the connection is TLS from the start
@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
@pytest.mark.parametrize("security", ["none", "starttls", "tls"])
def test_mail_goes_out_over_a_connection_as_secure_as_the_plan_says(
    books: Books, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, security: str
) -> None:
    files = certificate(tmp_path) if security != "none" else None
    if files is not None:
        monkeypatch.setenv("SSL_CERT_FILE", str(files[0]))
    (tmp_path / "mail-password").write_text(f"{PASSWORD}\n")
    login = {} if security == "none" else {"user": USER, "password_file": "mail-password"}
    with mail_receiver(security, files) as told:
        plan = books.with_targets(
            {
                "type": "email", "to": ["ops@b.example", "me@b.example"], "sender": "backups@b.example",
                "server": f"localhost:{told.port}", "security": security, **login,
            }
        )  # fmt: skip
        books.ledger.unlink()
        with pytest.raises(LastgoodError) as caught:
            make_backup(plan, BackupType.FULL)
    ((recipients, letter),) = told.letters
    assert recipients == ["ops@b.example", "me@b.example"]
    assert letter["Subject"] == "lastgood: full backup of books failed"
    assert letter["From"] == "backups@b.example"
    assert f"error: {caught.value.message}" in letter.get_content()
    assert told.logins == ([] if security == "none" else [USER])


@pytest.mark.parametrize(
    ("server", "target", "said"),
    [
        ("starttls", {"security": "starttls", "user": USER, "password_env": "WRONG"}, "said 535"),
        ("none", {"security": "starttls"}, "cannot do what is asked"),
        ("starttls", {"security": "none"}, "said 530"),
        ("none", {"security": "tls"}, "no secure connection"),
    ],
)
def test_what_a_mail_server_refuses_is_said(
    books: Books, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    server: str, target: dict[str, str], said: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("WRONG", "another-password")
    files = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(files[0]))
    with mail_receiver(server, files if server != "none" else None) as told:
        plan = books.with_targets(
            {
                "type": "email", "to": "a@b.example", "sender": "c@d.example", "server": f"localhost:{told.port}",
                "when": ["completed"], **target,
            }
        )  # fmt: skip
        assert make_backup(plan, BackupType.FULL)
    assert not told.letters
    assert said in caplog.text
    assert "another-password" not in caplog.text


def test_a_plan_that_tells_nobody_imports_nothing_for_it(books: Books) -> None:
    from flows.reporting.lifecycle import listeners

    assert [type(one).__name__ for one in listeners(books.plan)] == ["Journal"]
    told = listeners(books.with_targets(SLACK))
    assert [type(one).__name__ for one in told] == ["Journal", "PlanNotifications"]
