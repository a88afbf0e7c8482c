"""Who a plan names: no secret stands in it, mistakes are said in words, and what holds a secret is read late."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from blocks.errors import ConfigurationError
from blocks.plan.notifications import EmailTarget, SlackTarget, WebhookTarget
from blocks.plan.plan import BackupPlan, parse_plan

MAIL = {"type": "email", "to": "ops@b.example", "sender": "me@b.example", "server": "mail.example"}
SECRET = "hunter2"


def plan_with(*targets: object) -> BackupPlan:
    raw: dict[str, Any] = {"name": "books", "sources": {"ledger": {"type": "sqlite", "path": "x.db"}}}
    raw |= {"repository": {"url": "r"}, "encryption": "none", "notifications": list(targets)}
    return parse_plan(raw, "books")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ({"type": "slack"}, "exactly one of url_env, url_file, url_secret"),
        ({"type": "slack", "url_env": "A", "url_file": "b"}, "exactly one of url_env, url_file, url_secret"),
        ({"type": "slack", "url": f"https://h/{SECRET}"}, "did you mean url_env?"),
        ({"type": "slak", "url_env": "A"}, "did you mean slack?"),
        ({"url_env": "A"}, "its `type` is missing"),
        ({"type": "slack", "url_env": "A", "when": ["faild"]}, "did you mean failed?"),
        ({"type": "slack", "url_env": "A", "when": ["overdue"]}, "targets of type block"),
        ({"type": "slack", "url_env": "A", True: ["failed"]}, "YAML takes `on` for true"),
        ({"type": "ping", "url_env": "A", "when": ["failed"]}, "there is no such field"),
        ({"type": "webhook", "url": f"https://me:{SECRET}@h/x"}, "there may be a secret in it"),
        ({"type": "webhook", "url": f"https://{SECRET}@h/x"}, "there may be a secret in it"),
        ({"type": "webhook", "url": f"https://h/x?key={SECRET}"}, "there may be a secret in it"),
        ({"type": "webhook", "url": f"https://h/x/{SECRET}-4b1c-9f60-77aa12"}, "there may be a secret in it"),
        ({"type": "webhook", "url": "ftp://h"}, "a URL of http or https"),
        ({"type": "webhook", "url": "https://["}, "it is no URL"),
        ({"type": "webhook", "url": "https://h:99999/"}, "it is no URL"),
        ({**MAIL, "to": "ops"}, "an address such as ops@example.com"),
        ({**MAIL, "to": "team:a@b"}, "an address such as ops@example.com"),
        ({**MAIL, "sender": "a@b, c@d"}, "an address such as ops@example.com"),
        ({**MAIL, "server": "smtp://mail.example"}, "host or host:port"),
        ({**MAIL, "server": "mail.example:99999"}, "host or host:port"),
        ({**MAIL, "server": "2001:db8::1"}, "host or host:port"),
        ({**MAIL, "server": "[::1"}, "host or host:port"),
        ({**MAIL, "server": "mail..example"}, "host or host:port"),
        ({**MAIL, "user": "me"}, "exactly one of password_env, password_file, password_secret"),
        ({**MAIL, "password_env": "P"}, "exactly one of password_env, password_file, password_secret"),
        ({**MAIL, "user": "me", "password": SECRET}, "did you mean password_env?"),
        ({**MAIL, "user": "me", "password_env": "P", "security": "none"}, "over a secure connection only"),
        ({"type": "block", "block": "ops"}, "such as slack-webhook/ops"),
    ],
)
def test_mistakes_are_said_and_no_secret_is_repeated(target: dict[Any, object], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        plan_with(target)
    assert said in caught.value.message
    assert "notifications.0" in caught.value.message
    assert SECRET not in caught.value.message


def test_variables_of_targets_are_secrets_of_the_plan_and_files_count_from_it(tmp_path: Path) -> None:
    plan = plan_with(
        {"type": "slack", "url_env": "SLACK_URL"},
        {**MAIL, "user": "me", "password_env": "MAIL_PASSWORD"},
        {"type": "ping", "url_file": "ping"},
        {"type": "webhook", "url": "https://alerts.example.com/api/v2/backups"},
    )
    assert plan.secret_variables == {"SLACK_URL", "MAIL_PASSWORD"}
    (tmp_path / "ping").write_text("https://ping.example/0a1b\n")
    ping = plan.anchored(tmp_path).notifications[2]
    assert ping.check() == "its URL can be read"


@pytest.mark.parametrize(
    ("server", "security", "host", "port"),
    [
        ("mail.example", "starttls", "mail.example", 587),
        ("mail.example", "tls", "mail.example", 465),
        ("mail.example", "none", "mail.example", 25),
        ("mail.example:2525", "starttls", "mail.example", 2525),
        ("[2001:db8::1]:25", "none", "2001:db8::1", 25),
    ],
)
def test_a_mail_server_has_the_port_that_is_usual(server: str, security: str, host: str, port: int) -> None:
    target = EmailTarget.model_validate(MAIL | {"server": server, "security": security})
    assert (target.host, target.port) == (host, port)


def test_what_cannot_be_read_names_the_field_and_not_what_it_holds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EMPTY", " \n")
    monkeypatch.setenv("NO_URL", f"ftp://{SECRET}")
    monkeypatch.setenv("NO_HOST", f"https://[{SECRET}")
    monkeypatch.setenv("NO_PORT", f"https://h:{SECRET}/")
    for field, place, said in (
        ("url_env", "NOBODY_SET_IT", "NOBODY_SET_IT is not set"),
        ("url_env", "EMPTY", "what `url_env` of `notifications` names is empty"),
        ("url_env", "NO_URL", "none of http or https"),
        ("url_env", "NO_HOST", "none of http or https"),
        ("url_env", "NO_PORT", "none of http or https"),
        ("url_file", tmp_path / "nothing", "cannot be read"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            SlackTarget.model_validate({"type": "slack", field: place}).read_url()
        assert said in caught.value.message
        assert SECRET not in caught.value.message
    assert WebhookTarget(type="webhook", url="http://h/x").read_url() == "http://h/x"


def test_a_password_that_no_mail_server_takes_is_said_when_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P", "schlüssel")
    target = EmailTarget.model_validate(MAIL | {"user": "me", "password_env": "P"})
    with pytest.raises(ConfigurationError, match="beyond ASCII") as caught:
        target.check()
    assert "schl" not in caught.value.message
