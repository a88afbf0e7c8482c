from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest

from blocks.host.state_folder import cache_folder
from blocks.repository import cache
from blocks.repository.cache import Kind, SealedCache

REPOSITORY, PLAN = "0" * 32, "trading"
ONE, OTHER = "FUL_20260102_030405_9f3a", "INC_20260102_040405_0001"


def digest(sealed: bytes) -> str:
    return sha256(sealed).hexdigest()


def files() -> list[Path]:
    return sorted(path for path in cache_folder().rglob("*") if path.is_file())


@pytest.fixture
def copies() -> SealedCache:
    return SealedCache(REPOSITORY)


def test_a_copy_is_found_by_backup_kind_and_digest_and_is_nobody_elses_to_read(copies):
    copies.put(PLAN, ONE, Kind.MANIFEST, b"sealed")
    copies.put(PLAN, ONE, Kind.INDEX, b"index")
    copies.put(PLAN, ONE, Kind.MANIFEST, b"sealed")
    assert copies.get(PLAN, ONE, Kind.MANIFEST, digest(b"sealed")) == b"sealed"
    assert copies.get(PLAN, ONE, Kind.INDEX, digest(b"sealed")) is None
    assert copies.get(PLAN, OTHER, Kind.MANIFEST, digest(b"sealed")) is None
    assert copies.get("other", ONE, Kind.MANIFEST, digest(b"sealed")) is None
    assert SealedCache("1" * 32).get(PLAN, ONE, Kind.MANIFEST, digest(b"sealed")) is None
    assert copies.manifests(PLAN) == {ONE: digest(b"sealed")}
    assert {path.stat().st_mode & 0o777 for path in files()} == {0o600}
    assert files()[0].parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("content", [b"", b"seale", b"sealed?", b"Sealed"])
def test_a_copy_that_is_damaged_or_cut_off_is_none_and_makes_way(copies, content):
    copies.put(PLAN, ONE, Kind.MANIFEST, b"sealed")
    files()[0].write_bytes(content)
    assert copies.get(PLAN, ONE, Kind.MANIFEST, digest(b"sealed")) is None
    copies.put(PLAN, ONE, Kind.MANIFEST, b"sealed")
    assert copies.get(PLAN, ONE, Kind.MANIFEST, digest(b"sealed")) == b"sealed"


def test_a_fifo_or_a_folder_in_its_place_is_not_waited_for(copies):
    for backup_id, make in ((ONE, os.mkfifo), (OTHER, os.mkdir)):
        copies.put(PLAN, backup_id, Kind.MANIFEST, b"sealed")
        path = next(path for path in files() if path.name.startswith(backup_id))
        path.unlink()
        make(path)
        assert copies.get(PLAN, backup_id, Kind.MANIFEST, digest(b"sealed")) is None


def test_copies_of_backups_that_are_gone_go_and_of_too_many_the_oldest(copies, monkeypatch):
    for number, backup_id in enumerate((ONE, OTHER)):
        copies.put(PLAN, backup_id, Kind.MANIFEST, bytes([number]) * 100)
    copies.trim(PLAN, {OTHER})
    assert set(copies.manifests(PLAN)) == {OTHER}
    copies.put(PLAN, ONE, Kind.MANIFEST, b"x" * 100)
    os.utime(next(path for path in files() if path.name.startswith(OTHER)), (time.time() - 60,) * 2)
    monkeypatch.setattr(cache, "MOST_BYTES", 150)
    copies.trim(PLAN)
    assert set(copies.manifests(PLAN)) == {ONE}
    os.utime(files()[0], (time.time() - cache.MOST_SECONDS - 1,) * 2)
    copies.trim(PLAN)
    assert files() == []


def test_what_is_large_is_not_kept(copies):
    copies.put(PLAN, ONE, Kind.INDEX, bytes(cache.MOST_BYTES_EACH + 1))
    assert files() == []


@pytest.mark.parametrize("home", ["/dev/null/x", "/proc/none"])
def test_without_a_place_for_copies_there_are_none(copies, monkeypatch, home):
    monkeypatch.setenv("XDG_CACHE_HOME", home)
    copies.put(PLAN, ONE, Kind.MANIFEST, b"sealed")
    assert copies.get(PLAN, ONE, Kind.MANIFEST, digest(b"sealed")) is None
    assert copies.manifests(PLAN) == {}
    copies.trim(PLAN, set())


def test_without_a_home_there_are_none(copies, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    copies.put(PLAN, ONE, Kind.MANIFEST, b"sealed")
    assert copies.get(PLAN, ONE, Kind.MANIFEST, digest(b"sealed")) is None
    assert copies.manifests(PLAN) == {}
    copies.trim(PLAN)


def test_many_may_copy_the_same_at_once(copies):
    sealed = os.urandom(100_000)

    def both(_: int) -> bytes | None:
        copies.put(PLAN, ONE, Kind.MANIFEST, sealed)
        return copies.get(PLAN, ONE, Kind.MANIFEST, digest(sealed))

    with ThreadPoolExecutor(8) as pool:
        # who comes while it is written finds none, and may have removed it
        assert set(pool.map(both, range(50))) <= {sealed, None}
    assert both(0) == sealed
