"""docs/proof.md: faults are planted, and what finds them is what the document says.

`make proof` writes the document anew (`LASTGOOD_PROOF=write` with this file), and `make faults` compares all of it
(`LASTGOOD_PROOF=whole`). `make test` leaves out what takes longest: what suites find that are suggested.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.blocks.sources.redis.kit import RedisServer
from tests.postgres_server import postgres_server
from tests.proof.campaign import ALONE, CAREFUL, LEVELS, Campaign, Said
from tests.proof.document import PROOF, Results, render, settled, without_suggested
from tests.proof.forgeries import FORGERIES, Genuine, run_forgery
from tests.proof.planted import FAULTS, SOUND_MARKS

pytestmark = pytest.mark.timeout(1200)
FORM = os.environ.get("LASTGOOD_PROOF", "")


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Said, Results]]:
    """Everything that was found, by one campaign and one forged repository."""
    folder = tmp_path_factory.mktemp("proof")
    with pytest.MonkeyPatch.context() as patch, postgres_server() as server:
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        redis = RedisServer(folder / "redis", "--databases", "32")
        try:
            live = Campaign(folder, server, redis).run(whole=bool(FORM))
        finally:
            redis.kill()
        (folder / "forged").mkdir()
        genuine = Genuine(folder / "forged", server)
        forged = {one.name: run_forgery(genuine, one) for one in FORGERIES}
        yield live, Results(live.faults, forged)


def test_everything_that_can_be_known_is_found_with_a_careful_suite(said: tuple[Said, Results]) -> None:
    found = said[1].faults
    assert [one.name for one in FAULTS if not found[one.name][CAREFUL] and not one.unknowable] == []
    assert [one.name for one in FAULTS if found[one.name][CAREFUL] and one.unknowable] == []


def test_what_is_found_without_a_suite_is_found_with_one_in_the_same_words(said: tuple[Said, Results]) -> None:
    for found in said[1].faults.values():
        alone = {settled(one.sentence) for one in found[ALONE]}
        for level in LEVELS:
            assert alone <= {settled(one.sentence) for one in found[level]}


def test_nothing_is_said_of_good_copies_and_of_good_backups(said: tuple[Said, Results]) -> None:
    assert said[0].of_sound == {level: [] for level in LEVELS}
    assert said[0].of_nobody == {level: [] for level in LEVELS}
    assert said[0].of_history == []
    sound = [rule for rule in said[0].unjudged if any(mark.search(rule.collection) for mark in SOUND_MARKS)]
    assert [rule.sentence for rule in sound] == []


def test_a_forgery_is_found_wherever_it_can_be_known(said: tuple[Said, Results]) -> None:
    found = said[1].forgeries
    assert [one.name for one in FORGERIES if not found[one.name][0] and not one.unknowable_here] == []
    assert [one.name for one in FORGERIES if not found[one.name][1] and not one.unknowable] == []
    assert [one.name for one in FORGERIES if found[one.name][1] and one.unknowable] == []


def test_the_document_says_what_was_found(said: tuple[Said, Results]) -> None:
    text = render(said[1])
    if FORM == "write":
        PROOF.write_text(text)
    looked_at = (lambda whole: whole) if FORM else without_suggested
    assert looked_at(PROOF.read_text()) == looked_at(text), "`make proof` writes docs/proof.md anew"


def test_the_document_is_linked() -> None:
    assert any("(proof.md" in path.read_text() for path in Path(PROOF.parent).glob("*.md") if path != PROOF)
