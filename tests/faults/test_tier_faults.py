"""An object store and the way to it go wrong: named, never taken for damage, nothing lost, and then all goes on."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from blocks.errors import CorruptionDetected, StorageRefused, StorageUnreachable
from tests.faults.far import Bucket, History
from tests.faults.proxy import Fault, proxy
from tests.faults.tier_faults import COMMANDS, LASTING, Case, Trial
from tests.object_servers import Seaweed

SEED = 15
WAITS = (Fault.TIMEOUT,)
"""Faults that take seconds to be seen; of the others there are more cases. `make faults` tries all of all."""


@pytest.fixture(scope="module")
def trial(seaweed_server: Seaweed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    with pytest.MonkeyPatch.context() as patch, proxy(seaweed_server.endpoint) as front:
        for name, value in seaweed_server.environment.items():
            patch.setenv(name, value)
        folder = tmp_path_factory.mktemp("history")
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        yield Trial(History(Bucket.of(seaweed_server), folder, front.endpoint), front)


@pytest.fixture(scope="module")
def counts(trial: Trial) -> dict[str, int]:
    return {command: trial.requests(command) for command in COMMANDS}


def drawn(counts: dict[str, int], fault: Fault, lasting: bool) -> Case:
    """A command, and a request of it, by seed."""
    chosen = random.Random(f"{SEED} {fault} {lasting}")
    command = chosen.choice(["full", "incremental", "retention"] if "upload" in fault else list(COMMANDS))
    return Case(command, fault, chosen.randrange(counts[command]), lasting)


@pytest.mark.parametrize("fault", Fault)
def test_a_fault_at_one_request_is_mended_or_named_and_nothing_is_lost(trial, counts, fault):
    case = drawn(counts, fault, lasting=False)
    assert trial.run(case).problems == [], case


@pytest.mark.parametrize("fault", [one for one in LASTING if one not in WAITS])
def test_a_fault_that_stays_is_named_and_nothing_is_lost(trial, counts, fault):
    case = drawn(counts, fault, lasting=True)
    assert trial.run(case).problems == [], case


@pytest.mark.parametrize(("command", "share"), [("incremental", 0), ("incremental", 0.5), ("retention", 0.5), ("verify", 0.5)])
def test_credentials_that_expire_are_said_so_and_make_no_full_of_an_incremental(trial, counts, command, share):
    outcome = trial.run(Case(command, Fault.EXPIRED, int(counts[command] * share), lasting=True))
    assert isinstance(outcome.error, StorageRefused), outcome
    # the answer to a HEAD has no body that says why
    assert "403" in outcome.error.message
    assert "credentials" in outcome.error.hint
    assert outcome.problems == []


@pytest.mark.parametrize("command", ["incremental", "verify", "check"])
def test_a_server_that_does_not_answer_any_more_is_unreachable(trial, counts, command):
    outcome = trial.run(Case(command, Fault.ERROR, counts[command] // 2, lasting=True))
    assert isinstance(outcome.error, StorageUnreachable), outcome
    assert outcome.problems == []


def test_wrong_bytes_are_corruption_where_they_are_read(trial, counts):
    outcome = trial.run(Case("restore", Fault.WRONG_BYTES, counts["restore"] - 1, lasting=False))
    assert isinstance(outcome.error, CorruptionDetected), outcome
    assert outcome.problems == []
