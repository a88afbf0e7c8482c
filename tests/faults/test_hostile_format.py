"""Objects of one version in the place of another, and shared data that does not unpack to what it says."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from blocks.crypto.stream import ObjectContext, ObjectKind
from blocks.errors import CorruptionDetected, LastgoodError
from blocks.records import BackupStatus
from blocks.repository.rollback_guard import VerificationMemory
from blocks.rows.shared import MOST_BYTES, unpack
from blocks.sources.target import RestoreMode
from flows.check import check_repository
from flows.restore import make_restore
from flows.restoring.request import RestoreRequest
from flows.verify import make_verification
from tests.faults.damage import rewrite
from tests.faults.forging import (
    ForgedBackup,
    Manifest,
    replace_manifest,
    replace_plaintext,
    sealed,
    sealed_manifest,
    unlocked,
)
from tests.faults.live_state import PLAN, restored
from tests.faults.place import Place

ORDERS = "ledger/orders"
ROWS = pa.table({"id": [1, 2], "symbol": ["a", "b"], "price": [1.0, 2.0], "note": ["x", "y"]})


def sized(size: int) -> Callable[[bytes], bytes]:
    return lambda data: size.to_bytes(8, "big") + data[8:]


PAYLOADS: dict[str, Callable[[bytes], bytes]] = {
    "it says it unpacks to 4 EiB": sized(2**62),
    "it says it unpacks to 16 EiB": sized(2**64 - 1),
    "it says it unpacks to 1 TiB": sized(2**40),
    "it says it unpacks to 2 GiB": sized(2**31),
    "it says it unpacks to a byte more than may be": sized(MOST_BYTES + 1),
    "it says it unpacks to as much as may be": sized(MOST_BYTES),
    "it says it unpacks to nothing": sized(0),
    "it unpacks to a byte less": lambda data: sized(int.from_bytes(data[:8], "big") + 1)(data),
    "it unpacks to a byte more": lambda data: sized(int.from_bytes(data[:8], "big") - 1)(data),
    "it is cut off in its size": lambda data: data[:5],
    "it is cut off behind its size": lambda data: data[:8],
    "it is cut off": lambda data: data[:-1],
    "it is empty": lambda data: b"",
    "it is not compressed": lambda data: sized(1000)(b"x" * 1008),
    "something follows": lambda data: data + b"x" * 100,
    "it is there twice": lambda data: data + data[8:],
    "it is a bomb": lambda data: sized(MOST_BYTES)(
        bytes(8) + pa.Codec("zstd").compress(bytes(2**31 - 1), asbytes=True)
    ),
}


@pytest.mark.parametrize("name", PAYLOADS)
def test_shared_data_that_does_not_unpack_to_what_it_says_is_refused_and_takes_no_memory(place, name):
    replace_plaintext(place.root, unlocked(place.plan), place.incremental, (ORDERS, 0), PAYLOADS[name])
    backup_id, before = place.incremental.backup_id, place.around()
    peak = pa.default_memory_pool().max_memory()
    with pytest.raises(CorruptionDetected, match=backup_id):
        make_restore(place.plan, RestoreRequest(backup_id, to=str(place.folder / "target")))
    assert place.around() == before
    result = make_verification(place.plan, backup_id, deep=False)
    assert result.status is BackupStatus.CORRUPTED
    assert "99999.pack" in result.findings[0]
    assert pa.default_memory_pool().max_memory() - peak < 2 * MOST_BYTES


def test_rows_whose_bytes_lie_outside_of_their_stream_are_refused(place):
    """A reader of Arrow's streams believes the places that it is given."""

    def change(plaintext: bytes) -> bytes:
        plain = unpack(plaintext, "").to_pybytes()
        orders = next(c for c in place.incremental.collections if c.name == ORDERS)
        start, length = orders.parts[0].segment.data.shared
        stream = plain[start : start + length]
        symbols = max(pa.ipc.open_stream(stream).read_all().column("symbol").chunks, key=len)
        offsets = symbols.buffers()[1].to_pybytes()
        assert stream.count(offsets[:-8]) == 1
        wrong = stream.replace(offsets[-16:], offsets[-16:-8] + (10**12).to_bytes(8, "little"))
        assert wrong != stream
        whole = plain[:start] + wrong + plain[start + length :]
        return plaintext[:8] + pa.Codec("zstd").compress(whole, asbytes=True)

    backup_id = place.incremental.backup_id
    replace_plaintext(place.root, unlocked(place.plan), place.incremental, (ORDERS, 0), change)
    with pytest.raises(CorruptionDetected, match="cannot be read"):
        make_restore(place.plan, RestoreRequest(backup_id, to=str(place.folder / "target")))
    assert make_verification(place.plan, backup_id, deep=False).status is BackupStatus.CORRUPTED


def test_a_blob_that_is_hidden_behind_another_at_its_place_is_checked(place):
    """Two blobs begin at one place of a pack: whoever reads all of it opens both."""

    def change(data: Manifest) -> None:
        one, other = (data["collections"][n]["parts"][0]["segment"]["data"] for n in (0, 1))
        one.update(size_bytes=other["size_bytes"] - 1, sha256="0" * 64, number=99)

    replace_manifest(place.root, unlocked(place.plan), place.incremental, change)
    findings = check_repository(place.plan, read_share=1.0).findings
    assert any(place.incremental.backup_id in finding and "blob 99" in finding for finding in findings)


# Versions


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "shared"])
def test_a_backup_that_is_made_by_hand_is_restored_in_version_2(place, shared):
    assert (
        rows_restored(place, ForgedBackup(place.root, unlocked(place.plan), place.full, "ledger", shared=shared)) == 2
    )


def test_a_backup_that_is_made_by_hand_is_restored_in_version_1(place):
    assert rows_restored(place, ForgedBackup(place.root, unlocked(place.plan), place.full, "ledger", version=1)) == 2


@pytest.mark.parametrize(("version", "sealed_as"), [(1, 2), (2, 1)])
def test_a_blob_of_another_version_than_its_manifest_is_refused(place, version, sealed_as):
    forged = ForgedBackup(place.root, unlocked(place.plan), place.full, "ledger", version=version, sealed_as=sealed_as)
    with pytest.raises(CorruptionDetected, match=f"version {sealed_as} where the manifest asks for {version}"):
        rows_restored(place, forged)
    result = make_verification(place.plan, forged.backup_id, deep=False)
    assert result.status is BackupStatus.CORRUPTED
    findings = check_repository(place.plan, read_share=1.0).findings
    assert any(forged.backup_id in finding and f"version {sealed_as}" in finding for finding in findings)


def rows_restored(place: Place, forged: ForgedBackup) -> int:
    forged.add(ORDERS, ROWS)
    return make_restore(
        place.plan, RestoreRequest(forged.commit(), mode=RestoreMode.EXACT, to=str(place.folder / "target.db"))
    ).rows


@pytest.mark.parametrize("form", ["shared", "alone"])
def test_data_of_version_1_in_a_pack_is_refused(request, form):
    place: Place = request.getfixturevalue("place" if form == "shared" else "place_alone")
    backup_id = place.incremental.backup_id
    replace_plaintext(place.root, unlocked(place.plan), place.incremental, (ORDERS, 0), bytes, version=1)
    with pytest.raises(CorruptionDetected, match=backup_id):
        make_restore(place.plan, RestoreRequest(backup_id, to=str(place.folder / "target")))
    assert make_verification(place.plan, backup_id, deep=False).status is BackupStatus.CORRUPTED


def test_the_same_data_sealed_again_is_restored(place):
    replace_plaintext(place.root, unlocked(place.plan), place.incremental, (ORDERS, 0), bytes)
    assert restored(place.plan, place.incremental.backup_id, place.folder / "target") == place.oracle


def of_version_1(data: Manifest) -> None:
    """Make a manifest that version 1 could have: it stores nothing, and stands on a full one."""
    data.update(format_version=1, objects=[], total_rows=None)
    for collection in data["collections"]:
        for part in collection["parts"]:
            part["segment"] = None


def as_it_is(data: Manifest) -> None:
    pass


MANIFESTS: dict[str, tuple[int, Callable[[Manifest], None]]] = {
    "sealed in version 1": (1, as_it_is),
    "of version 1 on a full of version 2": (1, of_version_1),
    "of version 1, sealed in version 2": (2, of_version_1),
    "of version 1, with blobs in packs": (1, lambda data: data.update(format_version=1)),
    "of version 1, requiring something": (1, lambda data: (of_version_1(data), data.update(requires=["telepathy"]))),
    "of version 1, with a field that it does not know": (1, lambda data: (of_version_1(data), data.update(surprise=1))),
    "of version 1, inheriting": (1, lambda data: (of_version_1(data), data.update(inherits=True))),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_of_another_version_than_its_place_is_refused(place, name):
    version, change = MANIFESTS[name]
    data, backup_id = place.incremental.model_dump(mode="json"), place.incremental.backup_id
    change(data)
    path = place.root / "backups" / PLAN / backup_id / "manifest"
    rewrite(path, sealed_manifest(unlocked(place.plan), data, backup_id, version))
    before, target = place.around(), place.folder / "target"
    for verb in (
        lambda: make_restore(place.plan, RestoreRequest(backup_id, to=str(target))),
        lambda: make_restore(place.plan, RestoreRequest(backup_id, preview=True)),
    ):
        with pytest.raises(LastgoodError, match=backup_id):
            verb()
    assert place.around() == before
    assert not target.exists()


def test_a_backup_of_version_1_does_not_stand_on_one_of_version_2(place):
    """They are of one chain by all their digests; only what is in their indexes has another length."""
    data, backup_id = place.incremental.model_dump(mode="json"), place.incremental.backup_id
    of_version_1(data)
    rewrite(
        place.root / "backups" / PLAN / backup_id / "manifest",
        sealed_manifest(unlocked(place.plan), data, backup_id, 1),
    )
    with pytest.raises(CorruptionDetected, match="has format 1, and stands on"):
        make_restore(place.plan, RestoreRequest(backup_id, preview=True))


# Verifications and expiries


def a_record(place: Place, **fields: object) -> Path:
    """Verify a backup, and give its record other fields."""
    backup_id = place.incremental.backup_id
    repository = unlocked(place.plan)
    made = make_verification(place.plan, backup_id, deep=False)
    assert repository.status(place.incremental) is BackupStatus.VERIFIED
    (record,) = (place.root / "verifications" / PLAN / backup_id).iterdir()
    data = made.model_dump(mode="json") | fields
    context = ObjectContext(repository.repository_id, PLAN, backup_id, ObjectKind.VERIFICATION)
    rewrite(record, sealed(gzip.compress(json.dumps(data).encode()), repository.keys.catalogue_key, context))
    VerificationMemory(repository.repository_id).path(PLAN).unlink()  # as if another machine had made it
    return record


@pytest.mark.parametrize("fields", [{"requires": ["telepathy"]}, {"format_version": 3}], ids=["requires", "version"])
def test_a_verification_by_a_newer_lastgood_is_named_and_proves_nothing(place, fields):
    record = a_record(place, **fields)
    assert unlocked(place.plan).status(place.incremental) is BackupStatus.COMPLETED
    assert restored(place.plan, place.incremental.backup_id, place.folder / "target") == place.oracle
    findings = check_repository(place.plan).findings
    assert any(record.name in finding and "newer lastgood" in finding for finding in findings)


def test_a_verification_with_a_field_that_nobody_knows_is_read(place):
    a_record(place, surprise={"x": [1]})
    assert unlocked(place.plan).status(place.incremental) is BackupStatus.VERIFIED
    assert check_repository(place.plan).findings == []
