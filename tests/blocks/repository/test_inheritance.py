"""A manifest leaves out what is as in its base, and is read as if it did not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.crypto.stream import ObjectKind
from blocks.errors import CorruptionDetected
from blocks.records import (
    BackupMetadata,
    BackupType,
    Blob,
    Collection,
    Part,
    Segment,
    SourceState,
    StoredObject,
)
from blocks.repository.catalogue import encode_record
from blocks.repository.inheritance import narrowed, widened
from tests.blocks.repository_support import PLAN, START, Shelf, sealed_by_hand

PACK = StoredObject(name="00000.pack", size_bytes=10_000, sha256="a" * 64)


def segment(number: int) -> Segment:
    blobs = [Blob(**PACK.model_dump() | {"size_bytes": 10}, offset=10 * n, number=n) for n in (number, number + 1)]
    return Segment(data=blobs[0], index=blobs[1], upserts=1, tombstones=0, size_bytes=1, size_compressed=1)


@pytest.fixture
def shelf(tmp_path) -> Shelf:
    return Shelf(tmp_path)


State = list[tuple[list[tuple[int, bool]], str]]
"""For each collection its parts (rows, and whether something was stored), and its definition."""

parts = st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=4)
states = st.lists(st.tuples(parts, st.sampled_from(["a", "b"])), min_size=1, max_size=3)


def collections(state: State) -> tuple[Collection, ...]:
    return tuple(
        Collection(
            number=n, name=f"s/c{n}", key=("k",), label=("k",), columns=(("k", "int64"),), definition={"is": text},
            parts=tuple(
                Part(number=m, bounds={"n": m}, rows=rows, segment=segment(2 * m) if stored else None)
                for m, (rows, stored) in enumerate(held)
            ),
        )
        for n, (held, text) in enumerate(state)
    )  # fmt: skip


def with_state(like: BackupMetadata, state: State, definition: str) -> BackupMetadata:
    source = SourceState(
        name="s", type="sqlite", system="x", taken_at=START, token=None, definition={"sql": definition}
    )
    return like.model_copy(
        update={"collections": collections(state), "sources": (source,), "objects": (PACK,), "base": "b"}
    )


@given(states, states, st.sampled_from("xy"), st.sampled_from("xy"))
def test_what_is_left_out_is_filled_in_as_it_was(
    before: State,
    after: State,
    old: str,
    new: str,
) -> None:
    base, backup = with_state(LIKE, before, old), with_state(LIKE, after, new)
    stored = narrowed(backup, base)
    assert (widened(stored, base) if stored.inherits else stored) == backup


def test_a_manifest_does_not_grow_with_what_did_not_change() -> None:
    large = [([(5, True)] * 4_000, "a")]
    base = with_state(LIKE, large, "x" * 100_000)
    few = [([(5, n % 400 == 0) for n in range(4_000)], "a")]
    backup = with_state(LIKE, few, "x" * 100_000)
    stored = narrowed(backup, base)
    assert (stored.collections, [len(change.parts) for change in stored.changed]) == ((), [10])
    assert stored.sources[0].same_definition
    assert len(encode_record(stored)) < 2_000 < 20_000 < len(encode_record(backup))
    assert widened(stored, base) == backup


LIKE = BackupMetadata(
    repository_id="0" * 32, plan=PLAN, backup_id="INC_20260301_120000_0001", backup_type=BackupType.INCREMENTAL,
    requested_type=BackupType.INCREMENTAL, timestamp=START, sequence=2, fencing_token=1, base=None, chain=(),
    previous=None, sources=(), collections=(), size_bytes=1, size_compressed=1, size_stored=1, checksum="c" * 64,
    encryption_key_id="epoch-1", encapsulated_key=None, storage_tiers=("primary",), retention_days=None,
    source_system="test", backup_duration_seconds=0.1, tool_versions={},
)  # fmt: skip


def test_a_chain_is_stored_narrowed_and_read_whole(shelf: Shelf) -> None:
    full = shelf.back_up()
    made = [full]
    for _ in range(3):
        made.append(shelf.back_up(BackupType.INCREMENTAL, made[-1]))
    stored = [shelf.open()._catalogue._opened(PLAN, backup.backup_id).metadata for backup in made]
    assert [one.inherits for one in stored] == [False, True, True, True]
    assert [len(one.collections) for one in stored] == [1, 0, 0, 0]
    assert shelf.open().manifest(PLAN, made[-1].backup_id) == made[-1]
    assert shelf.open().backups(PLAN) == made
    assert shelf.open().chain(made[-1]) == made


def test_a_damaged_chain_is_read_once(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [shelf.back_up()]
    for _ in range(12):
        made.append(shelf.back_up(BackupType.INCREMENTAL, made[-1]))
    (shelf.folder(made[0]) / "manifest").write_bytes(b"LASTGOOD")
    repository, read = shelf.open(), []
    get = repository._tier.get
    monkeypatch.setattr(
        type(repository._tier), "get", lambda tier, name, *a, **k: read.append(name) or get(name, *a, **k)
    )
    for _ in range(3):
        assert len(repository.survey(PLAN).backups) == 12
    manifests = [name for name in read if name.endswith("/manifest") and made[0].backup_id not in name]
    assert len(manifests) < 4 * 12


def test_a_backup_whose_base_is_damaged_is_listed_with_its_numbers_and_not_used(shelf: Shelf) -> None:
    full = shelf.back_up()
    middle = shelf.back_up(BackupType.INCREMENTAL, full)
    last = shelf.back_up(BackupType.INCREMENTAL, middle)
    (shelf.folder(middle) / "manifest").write_bytes(b"LASTGOOD")
    repository = shelf.open()
    survey = repository.survey(PLAN)
    assert [one.backup_id for one in survey.backups] == [full.backup_id, last.backup_id]
    assert survey.damaged == [middle.backup_id]
    assert survey.backups[1].rows == last.rows
    with pytest.raises(CorruptionDetected, match=middle.backup_id):
        repository.chain(survey.backups[1])


@pytest.mark.parametrize(
    "changes",
    [
        {"changed": [{"name": "s/other", "parts": []}]},
        {"changed": [{"name": "s/c", "parts": [{"number": 9, "rows": 1, "segment": None}]}]},
        {"sources": [{"name": "x", "type": "redis", "system": "", "taken_at": "2026-01-01T00:00:00Z", "token": None,
                      "definition": {}, "same_definition": True}]},
    ],
)  # fmt: skip
def test_a_manifest_that_takes_what_its_base_has_not_is_refused(shelf: Shelf, changes: dict[str, object]) -> None:
    full = shelf.back_up()
    backup = shelf.back_up(BackupType.INCREMENTAL, full)
    part = backup.collections[0].parts[0].model_dump(mode="json")
    for change in changes.get("changed", []):  # type: ignore[attr-defined]
        for one in change["parts"]:
            one["segment"] = part["segment"]
    hostile = {"inherits": True, "collections": [], **changes}
    (shelf.folder(backup) / "manifest").write_bytes(sealed_by_hand(shelf, backup, **hostile))
    with pytest.raises(CorruptionDetected, match="contradicts"):
        shelf.open().manifest(PLAN, backup.backup_id)


def test_a_chain_that_leads_to_itself_is_not_followed(shelf: Shelf) -> None:
    full = shelf.back_up()
    backup = shelf.back_up(BackupType.INCREMENTAL, full)
    link = {"backup_id": backup.backup_id, "manifest_sha256": "0" * 64}
    sealed = sealed_by_hand(shelf, backup, inherits=True, collections=[], base=backup.backup_id, chain=[link])
    (shelf.folder(backup) / "manifest").write_bytes(sealed)
    with pytest.raises(CorruptionDetected, match="swapped"):
        shelf.open().manifest(PLAN, backup.backup_id)
    (found,) = [one for one in shelf.open().survey(PLAN).backups if one.backup_id == backup.backup_id]
    assert found.inherits
    with pytest.raises(CorruptionDetected, match="swapped"):
        shelf.open().chain(found)


def test_a_manifest_that_could_not_be_read_back_is_not_sealed(shelf: Shelf) -> None:
    full = shelf.back_up()
    backup = shelf.back_up(BackupType.INCREMENTAL, full)
    catalogue = shelf.open()._catalogue
    sealed = catalogue.seal_manifest(backup)
    opened = catalogue.open(sealed, BackupMetadata, ObjectKind.MANIFEST, PLAN, backup.backup_id)
    assert opened.inherits
    assert widened(opened, full) == backup
