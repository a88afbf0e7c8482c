"""Passwords of other places: refused in the place, named by a variable, and never the one of the repository."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from blocks.crypto.keyring import Credential, Keyring
from blocks.errors import ConfigurationError
from blocks.plan.plan import BackupPlan
from blocks.repository.block import BackupRepository
from blocks.sources.postgres import PostgresSource
from blocks.sources.redis import RedisSource
from flows.restore import make_restore, restore
from flows.restoring.other_place import restoring_to
from flows.restoring.request import RestoreRequest

WORD = "sw0rdfish"


@pytest.fixture
def plan() -> BackupPlan:
    return BackupPlan(
        name="trading",
        sources={
            "cache": RedisSource(url="redis://cache.internal", password_env="CACHE"),
            "books": PostgresSource(dsn=SecretStr("postgresql://backup@db.internal/books"), password_env="BOOKS"),
        },
        repository=BackupRepository(url="/nowhere"),
        encryption=Keyring(credential=Credential(passphrase_env="PHRASE")),
    )


@pytest.mark.parametrize(
    "place",
    [
        f"redis://:{WORD}@h",
        f"postgresql://me:{WORD}@h/x",
        f"postgresql://h/x?password={WORD}",
        f"host=h password={WORD}",
        f"unix://me:{WORD}@/run/s",
        f"file://me:{WORD}@h/x",
    ],
)
def test_a_password_in_the_place_is_refused_before_anything_is_opened(plan: BackupPlan, place: str) -> None:
    for refused in (
        lambda: make_restore(plan, RestoreRequest(preview=True, to=place)),
        lambda: restore("nowhere.yaml", to=place),
    ):
        with pytest.raises(ConfigurationError, match="there is a password in the place") as caught:
            refused()
        assert WORD not in f"{caught.value.message}{caught.value.hint}"
        assert "--to-password-env" in caught.value.hint


def test_a_variable_names_the_password_of_the_place(plan: BackupPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THERE", WORD)
    for named, password in (("THERE", "THERE"), ("none", "none")):
        source = restoring_to(plan, "redis://h", named).sources["cache"].at("redis://h")
        assert isinstance(source, RedisSource)
        assert source.password_env == password
    assert restoring_to(plan, "redis://h", None) is plan


def test_the_word_for_a_variable_is_not_repeated_where_it_is_none(plan: BackupPlan) -> None:
    for wrong in (f"{WORD}!", f"{WORD} x", "", WORD):  # the last is a name, of a variable that is not set
        with pytest.raises(ConfigurationError) as caught:
            restoring_to(plan, "redis://h", wrong)
        assert WORD not in f"{caught.value.message}{caught.value.hint}"


@pytest.mark.parametrize(("place", "named"), [("redis://h", "PHRASE"), ("redis://h?db=1&password_env=PHRASE", None)])
def test_what_opens_the_repository_is_told_to_no_server(
    plan: BackupPlan, monkeypatch: pytest.MonkeyPatch, place: str, named: str | None
) -> None:
    monkeypatch.setenv("PHRASE", WORD)
    with pytest.raises(ConfigurationError, match="PHRASE opens the repository"):
        restoring_to(plan, place, named)


def test_a_password_without_a_place_is_refused(plan: BackupPlan) -> None:
    with pytest.raises(ConfigurationError, match="no place"):
        restoring_to(plan, None, "none")
