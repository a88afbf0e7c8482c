"""Two processes on one plan: no backup is lost, no chain broken, nothing found that is not there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.far import Bucket, Folder
from tests.faults.pairs import PAIRS, Pairs, pairs
from tests.object_servers import Seaweed

WRITING = [one for one in PAIRS if "incremental" in one]
FIRST_SEED = 1000
"""Of even ones a process is stopped until the other has ended; of odd ones both run at once. `make faults` tries a
hundred of each pair."""


@pytest.fixture(scope="module")
def in_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pairs]:
    folder = tmp_path_factory.mktemp("pairs")
    with pairs(Folder(folder / "places"), folder / "history") as running:
        yield running


@pytest.fixture(scope="module")
def in_s3(tmp_path_factory: pytest.TempPathFactory, seaweed_server: Seaweed) -> Iterator[Pairs]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in seaweed_server.environment.items():
            patch.setenv(name, value)
        folder = tmp_path_factory.mktemp("pairs in s3")
        with pairs(Bucket.of(seaweed_server), folder / "history") as running:
            yield running


@pytest.mark.parametrize(
    ("number", "verbs"),
    [pytest.param(n, verbs, marks=pytest.mark.long if n % 3 else ()) for n, verbs in enumerate(PAIRS)],
)
def test_two_processes_in_a_folder_lose_nothing(in_folder: Pairs, number: int, verbs: tuple[str, str]) -> None:
    assert in_folder.run(*verbs, FIRST_SEED + number)["problems"] == []


@pytest.mark.parametrize(("number", "verbs"), list(enumerate(WRITING)))
def test_two_processes_in_s3_lose_nothing(in_s3: Pairs, number: int, verbs: tuple[str, str]) -> None:
    assert in_s3.run(*verbs, FIRST_SEED + number)["problems"] == []
