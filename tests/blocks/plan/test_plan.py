"""Plans: what is read from YAML, what is refused before any work, and what an emergency backup takes."""

from __future__ import annotations

import re
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from blocks.crypto.keyring import Keyring, NoEncryption
from blocks.errors import ConfigurationError
from blocks.plan.plan import BackupPlan, load_plan, parse_plan, read_plan
from blocks.records import BackupType
from blocks.rows.selection import Selection
from blocks.sources.files import FilesSource
from blocks.sources.kinds import Source, source_of
from blocks.sources.mapping import MappingSource
from blocks.sources.postgres import PostgresSource
from blocks.sources.redis import RedisSource
from blocks.sources.sqlite import SQLiteSource

PLAN = """
name: trading
sources:
  ledger: {type: sqlite, path: ./state/ledger.db}
  models: {type: files, url: ./state/models}
repository: {url: ./backups}
encryption: {credential: {passphrase_file: ./secret}}
compression: {codec: zstd, level: 7}
critical: ["ledger/orders", "models/tree:live/*"]
retention: {full: 90d, incremental: 2d}
quality: [./quality/ledger.json]
"""


def raw(**changes: Any) -> dict[str, Any]:
    return {**yaml.safe_load(PLAN), **changes}


def nested(path: str, value: object) -> dict[str, Any]:
    """Return the plan with one deep field changed."""
    plan = raw()
    *above, last = path.split(".")
    place = plan
    for name in above:
        place = place[name]
    place[last] = value
    return plan


def test_a_plan_is_read_and_its_paths_count_from_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans" / "trading.yaml").write_text(PLAN)
    monkeypatch.chdir(tmp_path)
    for reference in ("plans/trading.yaml", str(tmp_path / "plans" / "trading.yaml")):
        plan = load_plan(reference)
        folder = tmp_path / "plans"
        ledger, models = plan.sources["ledger"], plan.sources["models"]
        assert isinstance(ledger, SQLiteSource)
        assert isinstance(models, FilesSource)
        assert Path(ledger.path) == folder / "state" / "ledger.db"
        assert models.root == folder / "state" / "models"
        assert Path(plan.repository.url) == folder / "backups"
        assert plan.quality == [str(folder / "quality" / "ledger.json")]
        assert isinstance(plan.encryption, Keyring)
        assert plan.encryption.credential.passphrase_file == folder / "secret"
        assert (plan.compression.level, plan.retention.incremental) == (7, timedelta(days=2))
    assert list(plan.sources) == ["ledger", "models"]


def test_absolute_paths_and_the_home_stay_what_they_are(tmp_path: Path) -> None:
    plan = parse_plan(nested("sources.ledger.path", "/var/ledger.db"), "x").anchored(tmp_path)
    assert plan.sources["ledger"].path == "/var/ledger.db"  # type: ignore[union-attr]
    home = parse_plan(nested("sources.ledger.path", "~/ledger.db"), "x").anchored(tmp_path)
    assert home.sources["ledger"].path == str(Path("~/ledger.db").expanduser())  # type: ignore[union-attr]


def test_no_encryption_takes_the_word(tmp_path: Path) -> None:
    assert isinstance(parse_plan(raw(encryption="none"), "x").encryption, NoEncryption)
    for missing in ({}, None, "", False, "off", "plain", {"type": "nothing"}):
        with pytest.raises(ConfigurationError, match="encryption"):
            parse_plan(raw(encryption=missing), "x")
    without = raw()
    del without["encryption"]
    with pytest.raises(ConfigurationError, match="encryption"):
        parse_plan(without, "x")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("encrytion", "none"),
        ("sources.ledger.tabels", ["a"]),
        ("sources.models.path", "x"),
        ("repository.path", "x"),
        ("encryption.credential.passphrase", "in clear"),
        ("encryption.chiper", "aes-256-gcm"),
        ("compression.codecs", "zstd"),
        ("retention.fulls", "1d"),
    ],
)
def test_an_unknown_field_is_named_and_refused(path: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=path.rpartition(".")[2]) as caught:
        parse_plan(nested(path, value), "plans/x.yaml")
    assert caught.value.message.startswith("plan plans/x.yaml: ")
    assert "in clear" not in caught.value.message


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("name", "../trading", "name"),
        ("name", "Trading Desk", "name"),
        ("name", "", "name"),
        ("sources", {}, "sources"),
        ("sources", {"a/b": {"type": "files", "url": "x"}}, "source name 'a/b'"),
        ("sources", {"..": {"type": "files", "url": "x"}}, "source name"),
        ("sources.ledger", {"type": "oracle", "path": "x"}, "sources.ledger"),
        ("sources.ledger", {"path": "x"}, "sources.ledger"),
        ("sources.ledger.part_size_bytes", 0, "part_size_bytes"),
        ("repository.url", "ftp://host/x", "backups cannot be kept at ftp://"),
        ("repository.url", "s3:/bucket/x", r"repository\.url: s3:… is neither a path nor a URL"),
        ("repository.url", " s3://bucket/x", r"repository\.url: s3:… is neither"),
        ("repository.url", "SFTP:me@host/x", r"repository\.url: SFTP:… is neither"),
        ("repository.url", "file:/x", r"Write file:///…; a folder of that name is \./file:…"),
        ("repository.url", "me@host:/x", r"Write sftp://me@host/…; a folder of that name is \./me@host:…"),
        ("compression.level", 20, "compression.level"),
        ("compression.codec", "gzip", "compression.codec"),
        ("critical", ["orders"], "source/collection"),
        ("critical", ["orders:ledger/x"], "source/collection"),
        ("retention.full", "90", "needs a unit"),
        ("retention.full", 90, "needs a unit"),
        ("retention.keep_last", 0, "keep_last"),
    ],
)
def test_a_wrong_field_is_refused_by_name(path: str, value: object, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        parse_plan(nested(path, value), "x")


@pytest.mark.parametrize("url", ["./s3:/x", "/srv/me@host:/x", "C:x", "at 12:00", "~/s3:x"])
def test_a_path_may_have_colons(url: str) -> None:
    assert parse_plan(nested("repository.url", url), "x").repository.folder == Path(url).expanduser()


@pytest.mark.parametrize(
    "source",
    [
        {"type": "postgres", "dsn": "postgresql://me:hunter2@h/x"},
        {"type": "postgres", "dsn": "postgresql://h/x?password=hunter2"},
        {"type": "postgres", "dsn": "postgresql://h/x?pass%77ord=hunter2"},
        {"type": "postgres", "dsn": "host=h sslpassword=hunter2"},
        {"type": "postgres", "dsn": "host=h password='hunter2 x'"},
        {"type": "postgres", "dsn": "postgresql://me:hunter2@h:port:x/%zz"},
        {"type": "postgres", "dsn": "hunter2 = is no dsn password=hunter2"},
        {"type": "redis", "url": "redis://:hunter2@h"},
        {"type": "redis", "url": "redis+sentinel://me:hunter2@h/m"},
        {"type": "redis", "url": "redis://h?password=hunter2"},
        {"type": "redis", "url": "unix:///run/s?password=hunter2"},
        {"type": "files", "url": "file://me:hunter2@h/x"},
        {"type": "files", "url": "s3://me:hunter2@h/x"},
        {"type": "sqlite", "path": "sqlite://me:hunter2@h/x"},
        {"type": "mapping", "object": "redis://me:hunter2@h"},
    ],
)
def test_a_password_in_a_place_is_refused_for_every_source(source: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="there is a password in") as caught:
        parse_plan(nested("sources.ledger", source), "x")
    assert "ledger" in caught.value.message
    assert "environment variable" in caught.value.message
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("url", ["file://me:hunter2@h/x", "s3://k:hunter2@bucket/x", "https://h/x?token=hunter2"])
def test_a_password_in_the_place_of_the_repository_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="there are credentials in it") as caught:
        parse_plan(nested("repository.url", url), "x")
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("encryption", {"credential": {"passphrase": "hunter2"}}),
        ("encryption", {"credential": "hunter2"}),
        ("encryption", "hunter2"),
        ("encryption.credential.key_file", ["hunter2"]),
        ("sources.ledger", {"type": "redis", "password": ["hunter2"]}),
        ("sources.ledger", {"type": "redis", "password": "hunter2", "databases": "x"}),
        ("sources.ledger", {"type": "postgres", "dsn": ["hunter2"]}),
        ("sources.ledger", {"type": "postgres", "password": "hunter2"}),
        ("sources.ledger", {"type": "postgres", "dsn": "h", "slot": "NO hunter2"}),
        ("sources.ledger", "hunter2"),
        ("sources", "hunter2"),
        ("repository", "hunter2"),
        ("hooks", {"before": [{"command": ["x", 7], "timeout_seconds": "hunter2"}]}),
        ("hooks", {"before": [{"command": ["x", {"a": "hunter2"}]}]}),
        ("retention", {"full": "hunter2"}),
        ("compression", {"level": "hunter2"}),
    ],
)
def test_what_is_wrong_is_told_without_what_stands_there(path: str, value: object) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_plan(nested(path, value), "x")
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_plan(raw(name="A B", critical=["x"], compression={"level": 0}), "x")
    for field in ("name", "critical", "compression.level"):
        assert field in caught.value.message


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"- a\n- b\n", "not a mapping"), (b"", "not a mapping"), (b"name: [", "not YAML"), (b"\xff\xfe\x00", "not YAML")],
)
def test_a_file_that_is_no_plan_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "plan.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=words):
        read_plan(path)


def test_a_plan_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nothing\.yaml"):
        load_plan(str(tmp_path / "nothing.yaml"))
    with pytest.raises(ConfigurationError, match=str(tmp_path)):
        load_plan(str(tmp_path) + "/")


def test_an_emergency_backup_takes_what_is_critical() -> None:
    def takes(critical: list[str], collection: str) -> Selection | None:
        return parse_plan(raw(critical=critical), "x").emergency_selection(collection)

    assert takes([], "ledger/orders") == Selection()
    assert takes(["ledger/orders"], "ledger/orders") == Selection()
    assert takes(["ledger/orders"], "ledger/positions") is None
    assert takes(["ledger/*"], "ledger/positions") == Selection()
    assert takes(["ledger/o*:1*", "ledger/orders:a:b"], "ledger/orders") == Selection(keys=("1*", "a:b"))
    assert takes(["ledger/orders:1*", "ledger/*"], "ledger/orders") == Selection()
    assert takes(["ledger/orders:"], "ledger/orders") == Selection(keys=("",))


def test_each_type_is_kept_as_long_as_the_policy_says() -> None:
    plan = parse_plan(raw(), "x")
    assert plan.retention_days(BackupType.FULL) == 90
    assert plan.retention_days(BackupType.INCREMENTAL) == 2


def test_a_plan_survives_its_json() -> None:
    plan = parse_plan(raw(), "x")
    again = BackupPlan.model_validate(plan.model_dump(mode="json"))
    assert again.model_dump() == plan.model_dump()
    assert [type(source) for source in again.sources.values()] == [SQLiteSource, FilesSource]


def test_every_source_type_has_its_own_slug_and_name() -> None:
    kinds = get_args(get_args(Source)[0])
    assert set(kinds) == {SQLiteSource, FilesSource, MappingSource, PostgresSource, RedisSource}
    assert len({kind.get_block_type_slug() for kind in kinds}) == len(kinds)


@pytest.mark.parametrize("types", [[], ["unknown"], ["redis", None], ["redis", "unknown"], [["redis"]]])
def test_where_a_type_is_unknown_all_are_meant(types: list[object]) -> None:
    assert get_args(source_of(types))[0] == get_args(Source)[0]


def test_only_named_types_are_meant_where_all_are_known() -> None:
    assert source_of(["redis", "redis"]) is RedisSource
    assert set(get_args(get_args(source_of(["redis", "sqlite"]))[0])) == {RedisSource, SQLiteSource}


@pytest.mark.parametrize(
    ("written", "within", "budget"),
    [
        ({}, None, None),
        ({"prove_within": "30d"}, timedelta(days=30), None),
        ({"prove_within": "12h", "prove_budget": "50GiB"}, timedelta(hours=12), 50 << 30),
        ({"prove_within": "6mo", "prove_budget": "1.5 GB"}, timedelta(days=180), 1_500_000_000),
        ({"prove_within": "1h", "prove_budget": "30m"}, timedelta(hours=1), timedelta(minutes=30)),
    ],
)
def test_within_what_time_backups_are_proved(
    written: dict[str, str], within: timedelta | None, budget: int | timedelta | None
) -> None:
    plan = parse_plan(raw(**written), "here")
    assert (plan.prove_within, plan.prove_budget) == (within, budget)
    again = parse_plan(raw(**{name: plan.model_dump(mode="json")[name] for name in written}), "saved")
    assert again.proof == plan.proof
    assert (again.proof.budget_bytes or again.proof.budget_time) == budget


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("prove_within", "30m", "30m would be minutes"),
        ("prove_within", "0h", "it must be an hour at least"),
        ("prove_within", "PT10M", "it must be an hour at least"),
        ("prove_within", 30, "30 needs a unit"),
        ("prove_within", "soon", "prove_within"),
        ("prove_budget", "0 GB", "a budget must be more than nothing"),
        ("prove_budget", "0s", "is no budget"),
        ("prove_budget", 5, "5 needs a unit"),
        ("prove_budget", "much", "is no budget: write a size such as 50GiB, or a time such as 2h"),
    ],
)
def test_a_time_or_a_budget_of_proofs_that_says_nothing_is_refused(field: str, value: object, said: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        parse_plan(raw(**{field: value}), "here")
