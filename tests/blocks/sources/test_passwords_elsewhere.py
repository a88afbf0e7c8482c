"""A source's password is sent to the source's own server, and to no other one that a restore names."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from pydantic import SecretStr

from blocks.errors import ConfigurationError, LastgoodError
from blocks.rows.selection import Selection
from blocks.sources.postgres import PostgresSource
from blocks.sources.postgres.connect import settings_of
from blocks.sources.redis import RedisSource
from blocks.sources.source import StateSource
from blocks.sources.target import RestoreMode, RestoreScope
from tests.blocks.sources.eavesdropper import eavesdropping

OWN, OTHER = "the-sources-own-word", "the-other-servers-word"
SCOPE = RestoreScope({"narrowed": False}, (), RestoreMode.EXACT, Selection(), 0)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("PGHOST", "PGHOSTADDR", "PGPORT", "PGUSER", "PGSERVICE", "PGPASSWORD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OWN", OWN)
    monkeypatch.setenv("OTHER", OTHER)
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "none"))


def reach(source: StateSource, place: str) -> None:
    """Look at a place and prepare a restore there, as far as a server lets us that only listens."""
    with suppress(LastgoodError), source.at(place).view():
        pass
    with suppress(LastgoodError):
        source.target(SCOPE, place).preflight()


REDIS = [
    RedisSource(url="redis://cache.internal", password_env="OWN"),
    RedisSource(url="redis://cache.internal", password=OWN),  # type: ignore[arg-type]
    RedisSource(url="redis://me@cache.internal?password_env=OWN"),
    RedisSource(url="redis+sentinel://a,b/master", password_env="OWN", sentinel_password_env="OWN"),
    RedisSource(url="redis+cluster://a,b", password_env="OWN", user="me"),
    RedisSource(url="unix:///run/redis.sock", password_env="OWN"),
]


@pytest.mark.parametrize("source", REDIS, ids=lambda source: source.url)
@pytest.mark.parametrize(
    "place", ["redis://127.0.0.1:{}/1", "redis://me@localhost:{}", "redis+sentinel://127.0.0.1:{}/master",
              "redis+cluster://127.0.0.1:{}"]
)  # fmt: skip
def test_another_redis_is_not_told_the_password(source: RedisSource, place: str) -> None:
    with eavesdropping() as other:
        reach(source, place.format(other.port))
        assert other.heard
        assert OWN.encode() not in other.heard


def test_another_redis_is_told_the_password_that_is_named_for_it() -> None:
    source = REDIS[0].admitted_elsewhere("OTHER")
    with eavesdropping() as other:
        reach(source, f"redis://127.0.0.1:{other.port}")
        assert OTHER.encode() in other.heard
        assert OWN.encode() not in other.heard


@pytest.mark.parametrize(
    ("own", "place", "told"),
    [
        ("redis://a", "redis://a:6379/5", True),
        ("redis://A", "redis://a", True),
        ("redis://a", "redis://a:6380", False),
        ("redis://a", "redis://b", False),
        ("redis://a", "redis://a,b", False),
        ("redis://a", "rediss://a", True),
        ("rediss://a", "redis://a", False),
        ("redis://reader@a", "redis://writer@a", True),
        ("redis://a", "redis+cluster://a", True),
        ("redis+cluster://a,b", "redis+cluster://b", True),
        ("redis+cluster://a,b", "redis+cluster://b,evil", False),
        ("redis+sentinel://a,b/one", "redis+sentinel://b/one/3", True),
        ("redis+sentinel://a,b/one", "redis+sentinel://b/two", False),
        ("redis+sentinel://a,b/one", "redis://a:26379", False),
        ("unix:///run/s", "unix:///run/s?db=3", True),
        ("unix:///run/s", "unix:///run/t", False),
        ("unix:///run/s", "redis://localhost", False),
        ("redis://a", "redis://a?password_env=none", False),
        ("redis://a?password_env=OWN", "redis://a", False),
    ],
)
def test_the_same_redis_is_told_apart_from_others(own: str, place: str, told: bool) -> None:
    there = RedisSource(url=own, password_env=None if "OWN" in own else "OWN").at(place)
    name = there.password_env if "?password_env=" not in there.url else "none"
    assert (name == "OWN") is told


def test_a_word_says_that_a_redis_asks_for_no_password() -> None:
    for source, place in [(REDIS[0].admitted_elsewhere("none"), ""), (REDIS[0], "?password_env=none")]:
        with eavesdropping() as other:
            reach(source, f"redis://127.0.0.1:{other.port}{place}")
            assert b"AUTH" not in other.heard


BOOKS = [
    PostgresSource(dsn=SecretStr("postgresql://backup@db.internal/books"), password_env="OWN"),
    PostgresSource(dsn=SecretStr("host=127.0.0.1 user=backup dbname=books"), password_env="OWN"),
    PostgresSource(dsn=SecretStr("service=books"), password_env="OWN"),
    PostgresSource(dsn=SecretStr("dbname=books"), password_env="OWN"),
]
PLACES = [
    "postgresql://backup@127.0.0.1:{}/books",
    "host=127.0.0.1 port={} user=backup dbname=books",
    "host=db.internal hostaddr=127.0.0.1 port={} user=backup dbname=books",
    "host=localhost,127.0.0.1 port={},{} user=backup dbname=books",
]


@pytest.mark.parametrize("source", BOOKS, ids=lambda source: source.dsn.get_secret_value())
@pytest.mark.parametrize("place", PLACES)
def test_another_postgresql_is_not_told_the_password(
    source: PostgresSource, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", OWN)
    with eavesdropping() as other:
        reach(source, place.format(other.port, other.port))
        assert b"backup" in other.heard
        assert OWN.encode() not in other.heard


def test_another_service_is_not_told_the_password(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    with eavesdropping() as other:
        (tmp_path / "services").write_text(f"[evil]\nhost=127.0.0.1\nport={other.port}\n")
        reach(BOOKS[3], "service=evil user=backup dbname=books")
        assert b"backup" in other.heard
        assert OWN.encode() not in other.heard


def test_another_postgresql_is_told_the_password_that_is_named_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", OWN)
    with eavesdropping() as other:
        reach(BOOKS[0].admitted_elsewhere("OTHER"), PLACES[0].format(other.port))
        assert OTHER.encode() in other.heard
        assert OWN.encode() not in other.heard
    with eavesdropping() as other:
        reach(BOOKS[0].admitted_elsewhere("none"), PLACES[0].format(other.port))
        assert b"backup" in other.heard
        assert OWN.encode() not in other.heard


def test_a_password_file_of_the_persons_own_is_still_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    passwords = tmp_path / "pgpass"
    monkeypatch.setenv("PGPASSFILE", str(passwords))
    with eavesdropping() as other:
        passwords.write_text(f"127.0.0.1:{other.port}:*:backup:{OTHER}\n")
        passwords.chmod(0o600)
        reach(BOOKS[0], PLACES[0].format(other.port))
        assert OTHER.encode() in other.heard


@pytest.mark.parametrize(
    ("own", "place", "told"),
    [
        ("host=a user=me dbname=x", "postgresql://me@a:5432/y", True),
        ("host=a user=me dbname=x", "postgresql://you@a/y", False),
        ("host=a user=me port=5433", "postgresql://me@a/y", False),
        ("host=a user=me hostaddr=10.0.0.1", "host=a user=me", False),
        ("host=a user=me", "host=a,b user=me", False),
        ("user=me", "user=me host=/tmp", False),
        ("user=me", "user=me service=other", False),
        ("service=s user=me", "service=s user=me port=5432", False),
        ("service=s", "service=s dbname=y", True),
    ],
)
def test_the_same_postgresql_is_told_apart_from_others(own: str, place: str, told: bool) -> None:
    there = PostgresSource(dsn=SecretStr(own), password_env="OWN")._at(place)
    assert (there.password_env == "OWN") is told
    assert ("password" in settings_of(there.dsn.get_secret_value())) is not told


def test_what_the_environment_says_counts_as_said(monkeypatch: pytest.MonkeyPatch) -> None:
    source = PostgresSource(dsn=SecretStr("user=me"), password_env="OWN")
    monkeypatch.setenv("PGHOST", "db.internal")
    assert source._at("host=db.internal user=me").password_env == "OWN"
    assert source._at("host=other user=me").password_env is None
    assert source._at("host='' user=me").password_env is None


@pytest.mark.parametrize("source", [REDIS[0], BOOKS[0]], ids=["redis", "postgres"])
def test_a_place_with_a_password_is_refused_without_repeating_it(source: StateSource) -> None:
    for place in (f"redis://:{OWN}@h", f"postgresql://me:{OWN}@h/x", f"host=h password={OWN}"):
        with pytest.raises(ConfigurationError) as caught:
            source.at(place)
        assert OWN not in f"{caught.value.message}{caught.value.hint}"
