"""An object store and the way to it go wrong: named, never taken for damage, nothing lost, and then all goes on."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import pytest

from blocks.errors import CorruptionDetected, RepositoryUnavailable, StorageRefused, StorageUnreachable
from flows.cli.app import main
from tests.faults.far import Bucket, History
from tests.faults.proxy import Fault, first, nothing, proxy
from tests.faults.tier_faults import COMMANDS, LASTING, Case, Trial
from tests.object_servers import KEY_ID_ENV, SECRET_ENV, Seaweed

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


def some(faults):
    """Leave two of three to the long run; others of their kind stay."""
    return [pytest.param(one, marks=pytest.mark.long if n % 3 else ()) for n, one in enumerate(faults)]


@pytest.mark.parametrize("fault", some(Fault))
def test_a_fault_at_one_request_is_mended_or_named_and_nothing_is_lost(trial, counts, fault):
    case = drawn(counts, fault, lasting=False)
    assert trial.run(case).problems == [], case


@pytest.mark.parametrize("fault", some(one for one in LASTING if one not in WAITS))
def test_a_fault_that_stays_is_named_and_nothing_is_lost(trial, counts, fault):
    case = drawn(counts, fault, lasting=True)
    assert trial.run(case).problems == [], case


@pytest.mark.parametrize(("command", "share"), [("incremental", 0.5), ("verify", 0.5)])
def test_credentials_that_expire_are_said_so_and_make_no_full_of_an_incremental(trial, counts, command, share):
    outcome = trial.run(Case(command, Fault.EXPIRED, int(counts[command] * share), lasting=True))
    assert isinstance(outcome.error, StorageRefused), outcome
    # the answer to a HEAD has no body that says why
    assert "403" in outcome.error.message
    assert "credentials" in outcome.error.hint
    assert outcome.problems == []


@pytest.mark.parametrize("command", ["incremental", "check"])
def test_a_server_that_does_not_answer_any_more_is_unreachable(trial, counts, command):
    outcome = trial.run(Case(command, Fault.ERROR, counts[command] // 2, lasting=True))
    assert isinstance(outcome.error, StorageUnreachable), outcome
    assert outcome.problems == []


@pytest.mark.parametrize("command", ["incremental", "restore", "verify"])
def test_a_manifest_of_a_base_that_is_refused_is_no_damage_and_makes_no_full(trial, counts, command):
    base = trial.history.made[-2].backup_id
    case = Case(command, Fault.EXPIRED, 0, lasting=False)
    outcome = trial.run(case, first("GET", f"{base}/manifest", Fault.EXPIRED))
    assert isinstance(outcome.error, StorageRefused), outcome
    assert outcome.problems == []


@pytest.mark.parametrize("what", ["backups/trading/{}/manifest", "list-type=2"])
def test_what_the_storage_does_not_say_of_the_newest_backup_never_removes_it(trial, counts, what):
    newest = trial.history.made[-1].backup_id
    refused = first("GET", what.format(newest), Fault.EXPIRED)
    outcome = trial.run(Case("retention", Fault.EXPIRED, 0, lasting=False), refused)
    assert isinstance(outcome.error, StorageRefused), outcome
    assert outcome.problems == []


def test_a_listing_that_does_not_show_the_newest_backup_yet_gives_its_number_to_no_other(trial, counts):
    listings = []

    def stale(request):
        if request.lists:
            listings.append(request)
        return Fault.STALE if request.lists and len(listings) == 1 else None

    outcome = trial.run(Case("incremental", Fault.STALE, 0, lasting=True), stale)
    assert outcome.hit
    assert outcome.problems == []


@pytest.mark.parametrize("end", [".pack", "/manifest"])
def test_an_upload_that_is_changed_on_the_way_is_not_taken_for_what_was_sent(trial, counts, end):
    outcome = trial.run(Case("full", Fault.WRONG_UPLOAD, 0, lasting=False), first("PUT", end, Fault.WRONG_UPLOAD))
    assert len(outcome.hit) == 1
    assert outcome.problems == []


PLAN_FILE = """\
name: trading
sources:
  ledger: {type: sqlite, path: ../ledger.db}
  models: {type: files, url: ../models}
repository:
  url: URL
  storage: {endpoint: ENDPOINT, region: us-east-1, key_id_env: KEY_ID_ENV, secret_env: SECRET_ENV}
encryption: {credential: {key_file: ../key}, kem: x25519}
"""


def test_a_check_names_what_the_storage_refused_and_takes_it_for_no_damage(trial, counts, capsys):
    history = trial.history
    prefix = history.copy()
    words = {"URL": history.place.url(prefix), "ENDPOINT": trial.front.endpoint}
    text = PLAN_FILE
    for name, value in (words | {"KEY_ID_ENV": KEY_ID_ENV, "SECRET_ENV": SECRET_ENV}).items():
        text = text.replace(name, value, 1)
    (history.folder / "plans").mkdir()
    (history.folder / "plans" / "plan.yaml").write_text(text)
    refused = history.made[-1].backup_id
    command = ["check", str(history.folder / "plans" / "plan.yaml"), "--read-data", "--json"]
    trial.front.use(first("GET", f"{refused}/00000.pack", Fault.DENIED))
    assert main(command) == RepositoryUnavailable.exit_code
    said = json.loads(capsys.readouterr().out)
    assert said["findings"] == said["unavailable"]
    assert refused in said["findings"][0]
    trial.front.use(first("GET", f"{refused}/00000.pack", Fault.WRONG_BYTES))
    assert main(command) == CorruptionDetected.exit_code
    assert json.loads(capsys.readouterr().out)["unavailable"] == []
    trial.front.use(nothing)
    assert main(command) == 0


def test_wrong_bytes_are_corruption_where_they_are_read(trial, counts):
    # of the last requests some list, and one is for what is known of the backup, whose damage is only said
    for number in reversed(range(counts["restore"])):
        outcome = trial.run(Case("restore", Fault.WRONG_BYTES, number, lasting=False))
        assert outcome.problems == []
        if any(request.target.endswith(".pack") for request, _ in outcome.hit):
            assert isinstance(outcome.error, CorruptionDetected), outcome
            return
    pytest.fail("no object with rows was read")
