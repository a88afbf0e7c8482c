from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.rows import parquet
from flows.pipeline import lookup
from flows.stages import compress
from tests.faults.kept import Kept
from tests.faults.live_state import LiveState, make_plan
from tests.faults.place import Place, make_place


@pytest.fixture(scope="module")
def state_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What this machine remembers of the repositories that a module makes once."""
    return tmp_path_factory.mktemp("state")


@pytest.fixture(autouse=True)
def _own_state_home(state_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(state_home))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, state_home: Path) -> Kept:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(state_home))
        # so that a small table has several, of which a lookup reads one
        patch.setattr(parquet, "ROW_GROUP_ROWS", 16)
        return Kept(tmp_path_factory.mktemp("kept"))


@pytest.fixture(scope="module")
def kept_plain(tmp_path_factory: pytest.TempPathFactory, state_home: Path) -> Kept:
    """The same without encryption."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(state_home))
        patch.setattr(parquet, "ROW_GROUP_ROWS", 16)
        return Kept(tmp_path_factory.mktemp("kept plain"), encrypted=False)


@pytest.fixture
def copy(kept: Kept, state_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A repository to damage, and a machine that has seen it whole."""
    shutil.copytree(state_home, tmp_path / "state")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    copied = kept.copy()
    yield copied
    shutil.rmtree(copied)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        return make_place(folder)


@pytest.fixture(scope="module")
def made_alone(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("made-alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        patch.setattr(compress, "SMALL_BYTES", 0)
        patch.setattr(parquet, "ROW_GROUP_ROWS", 2)
        return make_place(folder)


@pytest.fixture
def place(made: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A place whose parts are small, and share their blobs."""
    return _copied(made, tmp_path, monkeypatch)


@pytest.fixture
def place_alone(made_alone: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A place whose parts have blobs of their own, of several row groups, which a lookup reads by ranges."""
    monkeypatch.setattr(lookup, "WHOLE_BYTES", 0)
    return _copied(made_alone, tmp_path, monkeypatch)


def _copied(made: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    folder = tmp_path / "place"
    shutil.copytree(made.folder, folder, symlinks=True)
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
    # what a verification restores lies beside everything else, so that an escape from it would be seen
    (folder / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(folder / "scratch"))
    plan = make_plan(LiveState(folder), folder / "repository", folder / "key")
    return Place(folder, plan, made.full, made.incremental, made.oracle)
