"""SIGKILL of ours at durable operations on S3: what was committed stays whole, and the next run goes on."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.faults.far_kills import KILLED, Killer, killer
from tests.object_servers import Seaweed

FEWEST = 14
"""Moments of each command, at least; one of them is chosen by seed. `make faults` kills at all."""


@pytest.fixture(scope="module")
def killing(tmp_path_factory: pytest.TempPathFactory, seaweed_server: Seaweed) -> Iterator[Killer]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in seaweed_server.environment.items():
            patch.setenv(name, value)
        folder = tmp_path_factory.mktemp("kills")
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        with killer(seaweed_server, folder / "history") as one:
            yield one


@pytest.mark.parametrize("command", [one for one in KILLED if one != "verify"])
def test_killed_at_a_durable_operation_on_s3_nothing_is_lost(killing: Killer, command: str) -> None:
    outcome = killing.run(command, random.Random(f"15 {command}").randrange(1, FEWEST))
    assert outcome["killed"]
    assert outcome["problems"] == [], outcome["at"]


def test_a_verification_killed_before_and_after_it_is_recorded_leaves_no_half_of_it(killing: Killer) -> None:
    for number in (1, 2):
        outcome = killing.run("verify", number)
        assert "verifications/" in outcome["at"]
        assert outcome["problems"] == []
