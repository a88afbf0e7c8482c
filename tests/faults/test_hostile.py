"""Wrong keys, a writer who wants to read, settings and manifests by someone who means harm."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from blocks.crypto.encryption_config import _checksum, authenticated
from blocks.crypto.key_slots import Kem
from blocks.crypto.keyring import Credential, Keyring, Role
from blocks.crypto.repository_keys import add_slot, remove_slot
from blocks.errors import ConfigurationError, CorruptionDetected, LastgoodError, WrongKey
from blocks.plan.plan import BackupPlan
from blocks.records import BackupType
from blocks.rows.selection import Selection
from blocks.sources.target import RestoreMode
from flows.backup import make_backup
from flows.check import check_repository
from flows.restore import make_restore
from flows.restoring.request import RestoreRequest
from flows.retention import apply_retention
from flows.verify import make_verification
from tests.faults.damage import hard_copy, rewrite
from tests.faults.forged_manifests import (
    BELIEVED,
    BLOBS,
    CONTRADICTING,
    DESCRIBING_NOTHING,
    HARMLESS,
    INHERITING,
    MANIFESTS,
    NEWER,
    NO_PLACE,
    SHARED,
    first_segment,
)
from tests.faults.forging import Manifest, replace_manifest, unlocked
from tests.faults.live_state import PLAN, LiveState, make_key, make_plan, restored
from tests.faults.place import Place, writer_of


def refuses_to_read(place: Place, plan: BackupPlan, match: str) -> None:
    """Neither restoring nor verifying writes anything, anywhere."""
    before = place.around()
    target = place.folder / "target"
    for attempt in (
        lambda: make_restore(plan, RestoreRequest(mode=RestoreMode.EXACT, to=str(target))),
        lambda: make_restore(plan, RestoreRequest(mode=RestoreMode.EXACT)),
        lambda: make_restore(plan, RestoreRequest(mode=RestoreMode.MERGE)),
        lambda: make_restore(plan, RestoreRequest(preview=True)),
        lambda: make_verification(plan),
        lambda: make_verification(plan, deep=False),
    ):
        with pytest.raises(WrongKey, match=match) as caught:
            attempt()
        assert caught.value.exit_code == 7
        assert caught.value.hint
    assert place.around() == before
    assert not target.exists()


def test_a_wrong_key_reads_and_writes_nothing(place, tmp_path):
    plan = place.with_key(make_key(tmp_path / "other"))
    refuses_to_read(place, plan, "opens none")
    before = place.around()
    for verb in (lambda: make_backup(plan, BackupType.FULL), lambda: apply_retention(plan)):
        with pytest.raises(WrongKey):
            verb()
    assert place.around() == before


def test_a_wrong_passphrase_reads_and_writes_nothing(place, monkeypatch):
    monkeypatch.setenv("RIGHT", "right horse")
    monkeypatch.setenv("WRONG", "wrong horse")
    encryption = place.plan.repository.read_config().encryption
    slots = add_slot(encryption, unlocked(place.plan).keys, Credential(passphrase_env="RIGHT"), Role.READER, "p")
    place.plan.repository.save_encryption(slots)
    rings = {n: Keyring(credential=Credential(passphrase_env=n), kem=Kem.X25519) for n in ("RIGHT", "WRONG")}
    before = place.around()
    with pytest.raises(WrongKey, match="passphrase"):
        make_restore(
            place.plan.model_copy(update={"encryption": rings["WRONG"]}), RestoreRequest(mode=RestoreMode.EXACT)
        )
    assert place.around() == before
    right = place.plan.model_copy(update={"encryption": rings["RIGHT"]})
    assert restored(right, "latest", place.folder / "target") == place.oracle


def test_a_writer_makes_backups_and_cannot_read_them(place):
    writer = writer_of(place)
    make_backup(place.plan, BackupType.FULL)  # the place is a copy: the backups that came with it are of another one
    made = make_backup(writer, BackupType.INCREMENTAL)
    assert made.promoted_because is None
    refuses_to_read(place, writer, "may write backups but not read")
    assert check_repository(writer, read_share=1.0).findings == []
    assert restored(place.plan, made.backup_id, place.folder / "target") == place.oracle


def test_a_key_whose_slot_was_removed_opens_nothing(place):
    writer = writer_of(place)
    encryption = place.plan.repository.read_config().encryption
    slot = encryption["slots"][-1]["id"]
    place.plan.repository.save_encryption(remove_slot(encryption, unlocked(place.plan).keys, slot))
    refuses_to_read(place, writer, "opens none")
    with pytest.raises(WrongKey):
        make_backup(writer, BackupType.FULL)


def is_refused_in_words(place: Place, attack: str, backup_id: str) -> None:
    """What an attack makes of a backup is refused, comes back right, or is what an honest one could say as well."""
    before, target = place.around(), place.folder / "target"
    if attack in HARMLESS:
        assert restored(place.plan, backup_id, target) == place.oracle
    elif attack in BELIEVED:
        make_restore(place.plan, RestoreRequest(backup_id, mode=RestoreMode.EXACT, to=str(target)))
    else:
        with pytest.raises(LastgoodError) as caught:
            make_restore(place.plan, RestoreRequest(backup_id, mode=RestoreMode.EXACT, to=str(target)))
        assert caught.value.message
        assert attack not in (CONTRADICTING | DESCRIBING_NOTHING) or "\n" not in caught.value.message
        assert isinstance(caught.value, CorruptionDetected) or attack not in DESCRIBING_NOTHING
        assert isinstance(caught.value, ConfigurationError) or attack not in NEWER
        assert "newer lastgood" in caught.value.message or attack not in NEWER
        assert isinstance(caught.value, CorruptionDetected) or attack not in CONTRADICTING
    assert place.around() == before
    shutil.rmtree(target, ignore_errors=True)

    # whatever else is done with the repository: an answer, or an error in words
    one = Selection(("ledger/orders",), ("10001",))
    for verb in (
        lambda: make_restore(place.plan, RestoreRequest(backup_id, preview=True)),
        lambda: make_restore(place.plan, RestoreRequest(backup_id, preview=True, to=str(target))),
        lambda: make_restore(place.plan, RestoreRequest(backup_id, selection=one, preview=True)),
        lambda: make_verification(place.plan, backup_id),
        lambda: make_verification(place.plan, backup_id, deep=False),
        lambda: check_repository(place.plan, read_share=1.0),
        lambda: apply_retention(place.plan, dry_run=True),
        lambda: make_backup(place.plan, BackupType.DIFFERENTIAL),
        lambda: make_backup(place.plan, BackupType.INCREMENTAL),
    ):
        with contextlib.suppress(LastgoodError):
            verb()


@pytest.mark.parametrize("attack", MANIFESTS)
def test_a_hostile_manifest_is_refused_in_words_and_writes_nothing_elsewhere(place, attack):
    replace_manifest(place.root, unlocked(place.plan), place.incremental, MANIFESTS[attack])
    is_refused_in_words(place, attack, place.incremental.backup_id)


@pytest.mark.parametrize("attack", INHERITING)
def test_a_hostile_manifest_that_inherits_is_refused_in_words(place, attack):
    repository = unlocked(place.plan)
    replace_manifest(place.root, repository, place.incremental, INHERITING[attack], base=place.full)
    is_refused_in_words(place, attack, place.incremental.backup_id)


@pytest.mark.parametrize("attack", BLOBS)
@pytest.mark.parametrize("form", ["shared", "alone"])
def test_a_hostile_blob_is_refused_in_words(request, form, attack):
    place = request.getfixturevalue("place" if form == "shared" else "place_alone")
    assert bool(first_segment(place.incremental.model_dump(mode="json"))["data"]["shared"]) is (form == "shared")
    replace_manifest(place.root, unlocked(place.plan), place.incremental, BLOBS[attack])
    is_refused_in_words(place, attack, place.incremental.backup_id)


@pytest.mark.parametrize("attack", SHARED)
def test_a_place_in_a_shared_blob_that_is_none_is_refused(place, attack):
    def change(data: Manifest) -> None:
        blob = first_segment(data)["data"]
        blob["shared"] = SHARED[attack](*blob["shared"])

    replace_manifest(place.root, unlocked(place.plan), place.incremental, change)
    is_refused_in_words(place, attack, place.incremental.backup_id)


@pytest.mark.parametrize("attack", SHARED)
def test_a_place_in_a_shared_index_that_is_none_is_found(place, attack):
    """A restore reads no index; where the manifest itself is none it is refused all the same."""

    def change(data: Manifest) -> None:
        blob = first_segment(data)["index"]
        blob["shared"] = SHARED[attack](*blob["shared"])

    replace_manifest(place.root, unlocked(place.plan), place.incremental, change)
    backup_id = place.incremental.backup_id
    if attack in NO_PLACE:
        with pytest.raises(CorruptionDetected, match=backup_id):
            make_verification(place.plan, backup_id, deep=False)
    else:
        assert make_verification(place.plan, backup_id, deep=False).status == "corrupted"
        assert restored(place.plan, backup_id, place.folder / "target") == place.oracle
    with contextlib.suppress(LastgoodError):
        make_backup(place.plan, BackupType.INCREMENTAL)


def test_parts_that_claim_the_rows_of_each_other_are_not_verified(place):
    """Both lie in one blob, which is bound to neither: what shows it is that the index tells other keys."""

    def change(data: Manifest) -> None:
        one, other = (first_segment(data, number)["data"] for number in (0, 1))
        one["shared"], other["shared"] = other["shared"], one["shared"]

    replace_manifest(place.root, unlocked(place.plan), place.incremental, change)
    is_refused_in_words(place, "swapped", place.incremental.backup_id)
    assert make_verification(place.plan, place.incremental.backup_id, deep=False).status == "corrupted"


@pytest.mark.parametrize("form", ["shared", "alone"])
def test_one_backup_cannot_pass_off_the_segments_of_another(request, form):
    """The bytes are copied and named with the right digests; the place they were sealed for shows it."""
    place = request.getfixturevalue("place" if form == "shared" else "place_alone")

    def steal(data: Manifest) -> None:
        theirs = place.full.collections[0].parts[0].segment
        assert theirs is not None
        (stored,) = place.full.objects
        source = place.root / "backups" / PLAN / place.full.backup_id / stored.name
        os.link(source, place.root / "backups" / PLAN / place.incremental.backup_id / "00077.pack")
        data["objects"].append(stored.model_dump(mode="json") | {"name": "00077.pack"})
        segment = theirs.model_dump(mode="json")
        for kind in ("data", "index"):
            segment[kind]["name"] = "00077.pack"
        data["collections"][0]["parts"][0]["segment"] = segment

    replace_manifest(place.root, unlocked(place.plan), place.incremental, steal)
    with pytest.raises(CorruptionDetected, match=place.incremental.backup_id):
        make_restore(
            place.plan,
            RestoreRequest(place.incremental.backup_id, mode=RestoreMode.EXACT, to=str(place.folder / "target")),
        )
    assert make_verification(place.plan, place.incremental.backup_id, deep=False).status == "corrupted"


def hostile_settings(place: Place, change: Callable[[dict[str, Any]], object], checksum: bool = True) -> None:
    """Write lastgood.json as someone without keys can: the checksum is right, the mac is not."""
    path = place.root / "lastgood.json"
    data = json.loads(path.read_text())
    change(data)
    if checksum:
        data["encryption"]["checksum"] = _checksum(data["encryption"])
    rewrite(path, json.dumps(data).encode())


def argon(**values: Any) -> Callable[[dict[str, Any]], object]:
    kdf = {"name": "argon2id", "salt": "A" * 43 + "=", "iterations": 3, "memory_kib": 65536, "lanes": 4}
    return lambda data: data["encryption"]["slots"][0].update(kind="passphrase", kdf=kdf | values)


def swap_public_key(data: dict[str, Any]) -> None:
    key = data["encryption"]["epochs"][0]["public_key"]
    data["encryption"]["epochs"][0]["public_key"] = "A" * (len(key) - 4) + key[-4:]


SETTINGS: dict[str, tuple[Callable[[dict[str, Any]], object], type[LastgoodError]]] = {
    "a swapped public key": (swap_public_key, CorruptionDetected),
    "an unknown field of encryption": (lambda d: d["encryption"].update(surprise=1), CorruptionDetected),
    "an unknown field of a slot": (lambda d: d["encryption"]["slots"][0].update(surprise=1), CorruptionDetected),
    "a newer format": (lambda d: d.update(format_version=3), ConfigurationError),
    "an older format": (lambda d: d.update(format_version=0), LastgoodError),
    "a format in words": (lambda d: d.update(format_version="one"), CorruptionDetected),
    "a newer version of encryption": (lambda d: d["encryption"].update(version=2), ConfigurationError),
    "an unknown cipher": (lambda d: d["encryption"].update(cipher="rot13"), ConfigurationError),
    "no cipher": (lambda d: d["encryption"].update(cipher="none"), LastgoodError),
    "plainly no encryption": (lambda d: d.update(encryption={"version": 1, "cipher": "none"}), ConfigurationError),
    "an unknown kem": (lambda d: d["encryption"].update(kem="rsa"), ConfigurationError),
    "another kem": (lambda d: d["encryption"].update(kem="mlkem768-x25519"), ConfigurationError),
    "another repository": (lambda d: d.update(repository_id="0" * 32), WrongKey),
    "a repository above": (lambda d: d.update(repository_id="../../../../../../escaped/0000000"), CorruptionDetected),
    "Argon2 with absurd memory": (argon(memory_kib=2**40), CorruptionDetected),
    "Argon2 with absurd time": (argon(iterations=2**31), CorruptionDetected),
    "Argon2 with absurd lanes": (argon(lanes=2**20), CorruptionDetected),
    "Argon2 with no memory": (argon(memory_kib=1), CorruptionDetected),
    "an unknown kdf": (argon(name="md5"), ConfigurationError),
    "no slots": (lambda d: d["encryption"].update(slots=[]), CorruptionDetected),
    "no epochs": (lambda d: d["encryption"].update(epochs=[]), CorruptionDetected),
    "a thousand slots": (lambda d: d["encryption"].update(slots=d["encryption"]["slots"] * 500), CorruptionDetected),
    "a writer called reader": (lambda d: d["encryption"]["slots"][0].update(role="writer"), LastgoodError),
    "a label that moves the cursor": (
        lambda d: d["encryption"]["slots"][0].update(label="\x1b[2J"),
        CorruptionDetected,
    ),
}


def test_what_a_later_one_adds_to_the_settings_does_not_matter(place):
    hostile_settings(place, lambda data: data.update(surprise=1))
    make_restore(place.plan, RestoreRequest(place.incremental.backup_id, to=str(place.folder / "target")))


@pytest.mark.parametrize("name", SETTINGS)
def test_hostile_settings_are_refused_by_all_who_open_them(place, name):
    change, kind = SETTINGS[name]
    encrypted = name != "plainly no encryption"
    hostile_settings(place, change, checksum=encrypted)
    before = place.around()
    for verb in (
        lambda: make_backup(place.plan, BackupType.FULL),
        lambda: make_restore(place.plan, RestoreRequest(mode=RestoreMode.EXACT)),
        lambda: make_verification(place.plan),
        lambda: apply_retention(place.plan),
    ):
        with pytest.raises(kind):
            verb()
    assert place.around() == before


def test_a_public_key_swapped_by_a_writer_is_found_by_the_reader(place):
    """A writer can authenticate the settings; only a reader can verify that the private key fits the public one."""
    keys = unlocked(writer_of(place)).keys
    config = place.plan.repository.read_config()
    body = {name: value for name, value in config.encryption.items() if name not in ("mac", "checksum")}
    data = {"encryption": body}
    swap_public_key(data)
    place.plan.repository.save_encryption(authenticated(data["encryption"], keys))
    with pytest.raises(CorruptionDetected, match="public key"):
        make_restore(place.plan, RestoreRequest(preview=True))


def test_a_copy_of_a_repository_opens_from_anywhere(place, tmp_path):
    """The counterpart of all refusals: what was only moved is good."""
    hard_copy(place.root, tmp_path / "moved")
    plan = make_plan(LiveState(place.folder), tmp_path / "moved", place.folder / "key")
    assert restored(plan, "latest", tmp_path / "target") == place.oracle
