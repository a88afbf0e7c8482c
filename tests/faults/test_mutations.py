"""Objects of every kind changed at random: named, never wrong rows, never a hang. `make faults` tries ten thousand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.mutations import KINDS, Mutated

FIRST_SEED = 150_000
OF_EACH_KIND = 4


@pytest.fixture(scope="module")
def mutated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mutated]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("mutated")
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        yield Mutated(folder)


@pytest.mark.parametrize("kind", range(len(KINDS)), ids=KINDS)
def test_an_object_changed_at_random_is_named_and_gives_no_wrong_rows(mutated: Mutated, kind: int) -> None:
    for number in range(OF_EACH_KIND):
        mutation, _, problems = mutated.run(FIRST_SEED - FIRST_SEED % len(KINDS) + kind + number * len(KINDS))
        assert mutation.kind == KINDS[kind]
        assert problems == [], mutation
