"""SIGKILL in every state of the disk around durable operations; then another process looks at what is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.faults.crash_scenarios import SCENARIOS, Case
from tests.faults.restore_scenarios import RESTORES

ROOT = Path(__file__).parents[2]
ZYGOTES = 2
FEWEST = {
    "the first full backup": 20,
    "a differential backup": 17,
    "a retention run": 20,
    "a retention run over several packs": 30,
    "a verification": 4,
}
"""Durable operations that a run has at least: fewer would mean that the hook misses some."""


class Zygote:
    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )

    def run(self, case: Case) -> dict:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(case.to_json(), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="module")
def zygotes() -> Iterator[list[Zygote]]:
    made = [Zygote() for _ in range(ZYGOTES)]
    yield made
    for zygote in made:
        zygote.close()


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {}


def seed_of(seeds: dict[str, Path], scenario: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if scenario not in seeds:
        seeds[scenario] = folder
        monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
        (SCENARIOS | RESTORES)[scenario].prepare(folder)
    return seeds[scenario]


def kill_at_all(zygotes: list[Zygote], scenario: str, seed: Path, folder: Path) -> list[str]:
    """Run a scenario as often as it can be killed, and once to its end; return at which operations it was killed."""
    numbers = iter(range(1, 1000))

    def work(zygote: Zygote) -> list[tuple[int, dict]]:
        outcomes = []
        for number in numbers:
            outcome = zygote.run(Case(scenario, seed, folder / str(number), number))
            outcomes.append((number, outcome))
            if not outcome["killed"]:
                return outcomes
        raise AssertionError("there is no end of moments to die at")

    with ThreadPoolExecutor(ZYGOTES) as pool:
        outcomes = sorted((o for found in pool.map(work, zygotes) for o in found), key=lambda outcome: outcome[0])
    wrong = [f"{number}: killed {found['at']}: {text}" for number, found in outcomes for text in found["problems"]]
    assert not wrong, f"{len(wrong)} of {len(outcomes)}\n" + "\n".join(wrong[:4])
    return [found["at"] for _, found in outcomes if found["killed"]]


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.share(2)
def test_killed_at_any_durable_operation_nothing_is_lost_and_nothing_half_made_is_seen(
    scenario, zygotes, seeds, tmp_path, monkeypatch
):
    seed = seed_of(seeds, scenario, tmp_path / "seed", monkeypatch)
    died = kill_at_all(zygotes, scenario, seed, tmp_path)
    assert len(died) >= FEWEST.get(scenario, 36)
    if "backup" in scenario:
        assert all(any(name in at for at in died) for name in ("00000.pack", "SHA256SUMS", "manifest", "locks/"))
    if "backup of several packs" in scenario:
        assert len({at.split("/")[-1] for at in died if ".pack" in at}) > 5, "it died at, and between, many packs"


def test_a_restore_killed_at_any_step_leaves_the_old_or_the_new_state_and_can_be_repeated(
    zygotes, seeds, tmp_path, monkeypatch
):
    seed = seed_of(seeds, "a restore in place", tmp_path / "seed", monkeypatch)
    assert len(kill_at_all(zygotes, "a restore in place", seed, tmp_path)) >= 12


@pytest.mark.parametrize("scenario", [name for name in RESTORES if "SQLite" in name])
def test_a_database_killed_in_the_middle_of_its_restore_is_the_old_or_the_new_one(
    scenario, zygotes, seeds, tmp_path, monkeypatch
):
    seed = seed_of(seeds, scenario, tmp_path / "seed", monkeypatch)
    assert len(kill_at_all(zygotes, scenario, seed, tmp_path)) >= 4
