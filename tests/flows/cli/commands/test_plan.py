"""`plan new` writes a plan that loads and holds no password; `plan check` says what is missing, and writes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from blocks.plan.plan import read_plan
from blocks.plan.schedules import Schedules
from blocks.sources.files import FilesSource
from blocks.sources.postgres import PostgresSource
from blocks.sources.redis import RedisSource
from blocks.sources.sqlite import SQLiteSource
from tests.flows.cli.desk import Desk
from tests.receivers import closed_port, http_receiver


def picture(folder: Path) -> dict[str, tuple[int, bytes | None]]:
    """Return all that is in a folder, with times."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in folder.rglob("*")
    }


def test_a_new_plan_is_ready_after_init_and_its_comments_are_true(desk: Desk) -> None:
    (desk.folder / "secret").write_text("a passphrase of several words")
    desk.done("plan", "new", "state/ledger.db", "state/conf", "--out", "new.yaml", "--repository", "kept",
              "--passphrase-file", "secret")  # fmt: skip
    ran = desk.run("plan", "check", "new.yaml")
    assert (ran.code, "lastgood init" in ran.out) == (4, True)
    desk.done("init", "new.yaml")
    assert "plan new is ready" in desk.done("plan", "check", "new.yaml").out
    desk.done("backup", "new.yaml", "--no-server")
    plain = read_plan(desk.folder / "new.yaml")
    text = (desk.folder / "new.yaml").read_text()
    named = (
        "# critical:",
        "# retention:",
        "# schedules:",
        "# verify_after_backup:",
        "# hooks:",
        "# notifications:",
        "# quality:",
    )
    shown = "\n".join(line.removeprefix("# ") if line.startswith(named) else line for line in text.splitlines())
    (desk.folder / "shown.yaml").write_text(shown)
    plan = read_plan(desk.folder / "shown.yaml")
    assert plan.retention == plain.retention  # which are the defaults
    usual = Schedules()
    assert [(job, str(when)) for job, when in plan.schedules.jobs()] == [(j, str(w)) for j, w in usual.jobs()]
    assert plan.verify_after_backup == "quick"


@pytest.mark.parametrize("place", ["s3:/kept/here", "me@nas:/kept", "file:kept"])
def test_what_is_nearly_a_url_makes_no_plan(desk: Desk, place: str) -> None:
    ran = desk.run("plan", "new", "state", "--out", "new.yaml", "--repository", place)
    assert (ran.code, "is neither a path nor a URL" in ran.err) == (2, True), ran
    assert not (desk.folder / "new.yaml").exists()


def test_passwords_are_taken_out_and_named(desk: Desk) -> None:
    words = (
        "postgresql://me:hunter2@db.example:5433/books", "postgres://db.example/books", "redis://:hunter2@cache/3",
        "rediss://reader:hun%20ter2@cache:6380", "s3://bucket/market/prices", "state",
    )  # fmt: skip
    ran = desk.done("plan", "new", *words, "--out", "trading-desk.yaml", "--repository", "s3://kept/here")
    assert "hunter2" not in ran.out + ran.err + (desk.folder / "trading-desk.yaml").read_text()
    for variable in ("BOOKS_PASSWORD", "REDIS_PASSWORD", "REDIS_2_PASSWORD"):
        assert variable in ran.err
    plan = read_plan(desk.folder / "trading-desk.yaml")
    assert (plan.name, plan.repository.url) == ("trading-desk", "s3://kept/here")
    assert list(plan.sources) == ["books", "books-2", "redis", "redis-2", "prices", "state"]
    books, cache, other = plan.sources["books"], plan.sources["redis"], plan.sources["redis-2"]
    assert isinstance(books, PostgresSource)
    assert isinstance(cache, RedisSource)
    assert isinstance(other, RedisSource)
    assert books.dsn.get_secret_value() == "postgresql://me@db.example:5433/books"
    assert (cache.url, cache.password_env) == ("redis://cache/3", "REDIS_PASSWORD")
    assert (other.url, other.password_env) == ("rediss://reader@cache:6380", "REDIS_2_PASSWORD")
    assert isinstance(plan.sources["prices"], FilesSource)


@pytest.mark.parametrize("name", ["yes", "a: b", "#", "käse & more", "-", "1.db", 'quote"d'])
def test_any_name_of_a_file_becomes_a_source(desk: Desk, name: str) -> None:
    (desk.folder / name).write_bytes(desk.database.read_bytes())
    desk.done("plan", "new", f"./{name}", "--out", "new.yaml")
    (source,) = read_plan(desk.folder / "new.yaml").sources.values()
    assert isinstance(source, SQLiteSource)
    assert Path(source.path) == desk.folder / name


def test_a_plan_is_printed_where_no_file_is_named_and_never_written_over(desk: Desk) -> None:
    printed = desk.done("plan", "new", "state/ledger.db").out
    before = desk.plan.read_text()
    assert desk.run("plan", "new", "state/ledger.db", "--out", str(desk.plan)).code == 2
    assert desk.plan.read_text() == before
    (desk.folder / "printed.yaml").write_text(printed)
    assert list(read_plan(desk.folder / "printed.yaml").sources) == ["ledger"]


def _no_folder(desk: Desk) -> None:
    desk.conf.rename(desk.conf.with_name("gone"))


def _no_key(desk: Desk) -> None:
    (desk.folder / "own.key").unlink()


def _bad_suite(desk: Desk) -> None:
    (desk.folder / "q.json").write_text(
        '{"name": "n", "collection": "ledger/orders", "expectations": [{"type": "expect_much", "kwargs": {}}]}'
    )
    desk.plan.write_text(desk.plan.read_text() + "quality: [q.json]\n")


def _no_package(desk: Desk) -> None:
    desk.plan.write_text(desk.plan.read_text() + "hooks: {before: [{python: '__main__:pause'}]}\n")


def _no_hook(desk: Desk) -> None:
    desk.plan.write_text(desk.plan.read_text() + "hooks: {before: [./pause.sh], after: ['true']}\n")


def _no_url(desk: Desk) -> None:
    desk.plan.write_text(desk.plan.read_text() + "notifications: [{type: slack, url_env: LASTGOOD_NO_URL}]\n")


@pytest.mark.parametrize(
    ("spoil", "what", "code"),
    [
        (_no_folder, "source conf", 3),
        (_no_key, "credential", 2),
        (_bad_suite, "suite", 2),
        (_no_hook, "hook pause.sh", 2),
        (_no_package, "hook __main__:pause", 2),
        (_no_url, "notification slack", 2),
    ],
)
def test_check_says_what_is_missing_and_writes_nothing(
    desk: Desk, spoil: Callable[[Desk], None], what: str, code: int
) -> None:
    desk.backup()
    spoil(desk)
    before = picture(desk.folder)
    ran = desk.run("plan", "check", "PLAN", "--json")
    assert picture(desk.folder) == before
    assert ran.code == code
    assert ran.json["ready"] is False
    assert [one["what"] for one in ran.json["findings"] if not one["ready"]] == [what]
    assert f"not ready  {what}: " in desk.run("plan", "check", "PLAN").out


def test_a_test_is_sent_to_all_that_a_plan_names_where_that_is_asked_for(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.backup()
    targets = "[{type: slack, url_env: SLACK_URL}, {type: ping, url_file: ping}, {type: webhook, url_env: CLOSED_URL}]"
    desk.plan.write_text(f"{desk.plan.read_text()}notifications: {targets}\n")
    with http_receiver() as told:
        monkeypatch.setenv("SLACK_URL", f"{told.url}/slack")
        monkeypatch.setenv("CLOSED_URL", f"http://127.0.0.1:{closed_port()}/x")
        (desk.folder / "ping").write_text(f"{told.url}/switch\n")
        said = desk.done("plan", "check", "PLAN").out
        assert "notification slack: its URL can be read" in said
        assert not told.requests
        ran = desk.run("plan", "check", "PLAN", "--notify")
        assert sorted(told.paths) == ["/slack", "/switch/log"]
        assert "This is a test" in told.requests[0].body
    assert ran.code == 2
    assert "ready      notification ping: a test was sent" in ran.out
    assert "not ready  notification webhook: the test was not sent: it cannot be reached" in ran.out


def test_a_test_that_nobody_is_sent_is_said(desk: Desk) -> None:
    assert "notifications: the plan names nobody who is told" in desk.done("plan", "check", "PLAN", "--notify").out
    assert "notifications" not in desk.done("plan", "check", "PLAN").out


def test_all_that_is_there_is_named(desk: Desk) -> None:
    desk.backup()
    ran = desk.done("plan", "check", "PLAN", "--json").json
    assert [one["what"] for one in ran["findings"]] == [
        "places", "source ledger", "source conf", "credential", "repository", "keys", "room",
    ]  # fmt: skip
    assert "SQLite 3" in ran["findings"][1]["sentence"]
    assert "2 collections" in ran["findings"][1]["sentence"]
