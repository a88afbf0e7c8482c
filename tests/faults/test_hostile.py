"""Wrong keys, a writer who wants to read, and manifests by someone who holds keys and means harm."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from blocks.errors import ConfigurationError, CorruptionDetected, LastgoodError, Partial, RestoreRefused, WrongKey
from blocks.keyring import Credential, Keyring, Role, add_slot, remove_slot
from blocks.keyslots import Kem
from blocks.keystore import _checksum, authenticated
from blocks.manifest import BackupMetadata, BackupType
from blocks.plan import BackupPlan
from blocks.sources.base import RestoreMode
from blocks.sources.files_rows import SCHEMA
from flows.backup import make_backup
from flows.check import check_repository
from flows.restore import make_restore
from flows.retention import apply_retention
from flows.verify import make_verification
from tests.faults.crash_scenarios import files_of
from tests.faults.damage import hard_copy, rewrite
from tests.faults.forging import ForgedBackup, Manifest, replace_manifest, unlocked
from tests.faults.live_state import PLAN, LiveState, Oracle, make_key, make_plan, restored


@dataclass
class Place:
    """A repository with a full and an incremental backup, and all that lies around it."""

    folder: Path
    plan: BackupPlan
    full: BackupMetadata
    incremental: BackupMetadata
    oracle: Oracle

    @property
    def root(self) -> Path:
        return self.folder / "repository"

    def with_key(self, key: Path) -> BackupPlan:
        return make_plan(LiveState(self.folder), self.root, key)

    def around(self) -> dict[str, bytes]:
        """Everything that no restore to `target` may touch."""
        return {name: data for name, data in files_of(self.folder).items() if not name.startswith("target/")}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        state = LiveState(folder, rows=30)
        state.create()
        plan = make_plan(state, folder / "repository", make_key(folder / "key"))
        plan.repository.initialize(plan.encryption)
        full = make_backup(plan, BackupType.FULL)
        state.change(1)
        return Place(folder, plan, full, make_backup(plan, BackupType.INCREMENTAL), state.oracle())


@pytest.fixture
def place(made: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    folder = tmp_path / "place"
    shutil.copytree(made.folder, folder, symlinks=True)
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
    # what a verification restores lies beside everything else, so that an escape from it would be seen
    (folder / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder / "scratch"))
    plan = make_plan(LiveState(folder), folder / "repository", folder / "key")
    return Place(folder, plan, made.full, made.incremental, made.oracle)


def refuses_to_read(place: Place, plan: BackupPlan, match: str) -> None:
    """Neither restoring nor verifying writes anything, anywhere."""
    before = place.around()
    target = place.folder / "target"
    for attempt in (
        lambda: make_restore(plan, mode=RestoreMode.EXACT, to=str(target)),
        lambda: make_restore(plan, mode=RestoreMode.EXACT),
        lambda: make_restore(plan, mode=RestoreMode.MERGE),
        lambda: make_restore(plan),
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
        make_restore(place.plan.model_copy(update={"encryption": rings["WRONG"]}), mode=RestoreMode.EXACT)
    assert place.around() == before
    right = place.plan.model_copy(update={"encryption": rings["RIGHT"]})
    assert restored(right, "latest", place.folder / "target") == place.oracle


def writer_of(place: Place) -> BackupPlan:
    key = make_key(place.folder / "writer")
    encryption = place.plan.repository.read_config().encryption
    changed = add_slot(encryption, unlocked(place.plan).keys, Credential(key_file=key), Role.WRITER, "worker")
    place.plan.repository.save_encryption(changed)
    return place.with_key(key)


def test_a_writer_makes_backups_and_cannot_read_them(place):
    writer = writer_of(place)
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


Change = Callable[[Manifest], object]


def first_segment(data: Manifest, collection: int = 0) -> Manifest:
    return next(p["segment"] for p in data["collections"][collection]["parts"] if p["segment"])


def named(name: str) -> Change:
    return lambda data: first_segment(data)["data"].update(name=name)


def in_collection(**values: Any) -> Change:
    return lambda data: data["collections"][0].update(values)


def in_part(**values: Any) -> Change:
    return lambda data: data["collections"][0]["parts"][0].update(values)


def in_objects(data: Manifest) -> list[Manifest]:
    return next(s for s in data["sources"] if s["name"] == "ledger")["definition"]["objects"]


def with_sql(sql: str, kind: str = "table", name: str = "evil") -> Change:
    return lambda data: in_objects(data).append({"type": kind, "name": name, "table": name, "sql": sql})


def swap_sql(sql: str) -> Change:
    return lambda data: in_objects(data)[0].update(sql=sql)


ABSURD = 2**62
ORDERS = "CREATE TABLE orders (id INTEGER PRIMARY KEY, symbol TEXT, price REAL, note)"

MANIFESTS: dict[str, Change] = {
    "an object above": named("../../../../escaped"),
    "an object by an absolute path": named("/etc/passwd"),
    "an object that is the manifest": named("manifest"),
    "an object of another backup": named("../FUL_20260101_000000_abcd/00000.seg"),
    "an object that is another part's": lambda d: d["collections"][0]["parts"][0].update(
        segment=first_segment(d, 1), rows=3
    ),
    "an index for a segment": lambda d: first_segment(d).update(data=first_segment(d)["index"]),
    "an object of absurd size": lambda d: first_segment(d)["data"].update(size_bytes=ABSURD),
    "an object of negative size": lambda d: first_segment(d)["data"].update(size_bytes=-1),
    "rows of absurd size": lambda d: first_segment(d).update(size_bytes=ABSURD),
    "a size beyond 64 bits": lambda d: first_segment(d).update(size_bytes=10**40),
    "an absurd number of rows": in_part(rows=ABSURD),
    "a negative number of rows": in_part(rows=-5),
    "a part left out": lambda d: d["collections"][0]["parts"].pop(),
    "a segment left out": in_part(segment=None),
    "a part twice": lambda d: d["collections"][0]["parts"].append(d["collections"][0]["parts"][0]),
    "a part of an absurd number": in_part(number=ABSURD),
    "a part of a negative number": in_part(number=-1),
    "a collection of a negative number": in_collection(number=-1),
    "a collection twice": lambda d: d["collections"].append(d["collections"][0]),
    "a collection left out": lambda d: d["collections"].pop(0),
    "a collection above": in_collection(name="../../escaped"),
    "a collection of no source": in_collection(name="escaped"),
    "a collection of an empty source": in_collection(name="/escaped"),
    "a collection of a source with a NUL": in_collection(name="a\0b/escaped"),
    "a collection of a source with an endless name": in_collection(name="x" * 5000 + "/y"),
    "a table above": in_collection(name="ledger/../../escaped"),
    "a key of unknown columns": in_collection(key=["nothing"], label=["nothing"]),
    "no key": in_collection(key=[], label=[]),
    "a label of unknown columns": in_collection(label=["nothing"]),
    "a table that is a tree": in_collection(name="models/tree"),
    "a tree that is a table": lambda d: d["collections"][-1].update(name="ledger/tree"),
    "no bounds": in_part(bounds={}),
    "bounds of nothing known": in_part(bounds={"after": [[1]], "upto": {"x": 1}}),
    "bounds that are no bounds of a tree": lambda d: d["collections"][-1]["parts"][0].update(
        bounds={"after": [1, "x"]}
    ),
    "a shape of nothing known": in_collection(definition={"locator": ["x"], "rowid": "x"}),
    "a shape of other columns": in_collection(
        definition={"locator": ['" OR 1; --'], "rowid": None, "without_rowid": False}
    ),
    "keys that are no globs": in_collection(selected_keys=["[", "(", "\\", "[!"]),
    "no sources": lambda d: d.update(sources=[]),
    "a source of nothing known": lambda d: d["sources"][0].update(definition={}),
    "a page size to choke on": lambda d: d["sources"][0]["definition"].update(page_size=-(10**30)),
    "a setting that is a statement": lambda d: d["sources"][0]["definition"].update(journal_mode="wal; DROP TABLE x"),
    "shadows that are nothing": lambda d: d["sources"][0]["definition"].update(shadows={"x": ["y", "orders"]}),
    "counters of nothing": lambda d: d["sources"][0]["definition"].update(sequence=[[["x"], {"int": "y"}]]),
    "a chain on itself": lambda d: d.update(
        base=d["backup_id"], chain=[{"backup_id": d["backup_id"], "manifest_sha256": "0" * 64}]
    ),
    "a chain above": lambda d: d.update(base="../../x", chain=[{"backup_id": "../../x", "manifest_sha256": ""}]),
    "no chain": lambda d: d.update(base=None, chain=[]),
    "another base": lambda d: d.update(base="FUL_20260101_000000_abcd"),
    "a number that counts for ever": lambda d: d.update(sequence=10**15),
    "a negative number": lambda d: d.update(sequence=-3),
    "an absurd fencing token": lambda d: d.update(fencing_token=10**30),
    "a plan of another name": lambda d: d.update(plan="other"),
    "an id of another backup": lambda d: d.update(backup_id="FUL_20260101_000000_abcd"),
    "another repository": lambda d: d.update(repository_id="0" * 32),
    "a newer format": lambda d: d.update(format_version=2),
    "an older format": lambda d: d.update(format_version=0),
    "an unknown field": lambda d: d.update(surprise=1),
    "a time without a zone": lambda d: d.update(timestamp="2026-01-01T00:00:00"),
    "an absurd time": lambda d: d.update(timestamp="9999-12-31T23:59:59Z"),
    "a data key of nobody": lambda d: d.update(encapsulated_key="AAAA"),
    "a data key that is not base64": lambda d: d.update(encapsulated_key="\u2603"),
    "no data key": lambda d: d.update(encapsulated_key=None),
    "a key that nobody has": lambda d: d.update(encryption_key_id="epoch-9"),
    "an attached database": with_sql("ATTACH DATABASE 'escaped.db' AS evil"),
    "two statements": swap_sql(f"{ORDERS}; ATTACH DATABASE 'escaped.db' AS evil"),
    "a statement that copies": swap_sql("CREATE TABLE orders AS SELECT * FROM sqlite_schema"),
    "a statement into a file": with_sql("VACUUM INTO 'escaped.db'"),
    "a trigger that loads code": with_sql(
        "CREATE TRIGGER evil AFTER INSERT ON orders BEGIN SELECT load_extension('escaped'); END", "trigger"
    ),
    "a trigger on inserts": with_sql(
        "CREATE TRIGGER evil AFTER INSERT ON orders BEGIN DELETE FROM orders; END", "trigger"
    ),
    "a virtual table over a file": with_sql("CREATE VIRTUAL TABLE evil USING csv(filename='/etc/passwd')"),
    "a view that is a pragma": with_sql("PRAGMA writable_schema = ON", "view"),
    "a table in another schema": with_sql("CREATE TABLE temp.evil (x)"),
    "no statement": swap_sql(""),
    "a statement for another table": swap_sql("CREATE TABLE other (x)"),
    "a comment that hides": swap_sql("/* */ ATTACH DATABASE 'escaped.db' AS evil"),
}
HARMLESS = {
    "a number that counts for ever",
    "an absurd fencing token",
    "an absurd time",
    "a shape of other columns",
    "a page size to choke on",
    "a setting that is a statement",
    "shadows that are nothing",
    "counters of nothing",
}
"""What does not concern the rows of a restore: then they come back right."""
BELIEVED = {
    "keys that are no globs",
    "a trigger on inserts",
    "a trigger that loads code",
    "a virtual table over a file",
}
"""What an honest backup of another state could say as well: it is restored, but nothing in it acts by itself."""


@pytest.mark.parametrize("attack", MANIFESTS)
def test_a_hostile_manifest_is_refused_in_words_and_writes_nothing_elsewhere(place, attack):
    replace_manifest(place.root, unlocked(place.plan), place.incremental, MANIFESTS[attack])
    before, backup_id = place.around(), place.incremental.backup_id
    target = place.folder / "target"
    if attack in HARMLESS:
        assert restored(place.plan, backup_id, target) == place.oracle
    elif attack in BELIEVED:
        make_restore(place.plan, backup_id, to=str(target), mode=RestoreMode.EXACT)
    else:
        with pytest.raises(LastgoodError) as caught:
            make_restore(place.plan, backup_id, to=str(target), mode=RestoreMode.EXACT)
        assert caught.value.message
    assert place.around() == before
    shutil.rmtree(target, ignore_errors=True)

    # whatever else is done with the repository: an answer, or an error in words
    for verb in (
        lambda: make_restore(place.plan, backup_id),
        lambda: make_restore(place.plan, backup_id, to=str(target)),
        lambda: make_verification(place.plan, backup_id),
        lambda: make_verification(place.plan, backup_id, deep=False),
        lambda: check_repository(place.plan, read_share=1.0),
        lambda: apply_retention(place.plan, dry_run=True),
        lambda: make_backup(place.plan, BackupType.DIFFERENTIAL),
        lambda: make_backup(place.plan, BackupType.INCREMENTAL),
    ):
        with contextlib.suppress(LastgoodError):
            verb()
    assert [path for path in place.folder.parent.rglob("*escaped*") if path.is_file()] == []
    assert list((place.folder / "scratch").iterdir()) == []
    repository = place.folder / "repository"
    after = {n: d for n, d in place.around().items() if not Path(place.folder, n).is_relative_to(repository)}
    kept = {n: d for n, d in before.items() if not Path(place.folder, n).is_relative_to(repository)}
    assert {n: d for n, d in after.items() if not n.startswith("state/")} == {
        n: d for n, d in kept.items() if not n.startswith("state/")
    }


def file_rows(*rows: dict[str, Any]) -> pa.Table:
    defaults = {"offset": -1, "kind": "file", "mode": 0o644, "mtime_ns": 0, "size": 0, "uid": -1, "gid": -1}
    root = {"path": b"", "kind": "dir", "mode": 0o755}
    full = [{**dict.fromkeys(SCHEMA.names), **defaults, **row} for row in (root, *rows)]
    return pa.Table.from_pylist(full, schema=SCHEMA)


def link(path: bytes, target: bytes) -> dict[str, Any]:
    return {"path": path, "kind": "symlink", "target": target, "size": None}


def text(path: bytes) -> list[dict[str, Any]]:
    chunk = {"path": path, "offset": 0, "kind": None, "mode": None, "size": None, "data": b"evil"}
    return [{"path": path, "size": 4}, chunk]


TREES: dict[str, list[dict[str, Any]]] = {
    "a path above": text(b"../escaped"),
    "a path above by a detour": text(b"deep/../../escaped"),
    "an absolute path": text(b"/tmp/escaped"),
    "a path with a NUL": text(b"esc\0aped"),
    "an empty name": text(b"deep//escaped"),
    "the folder itself": text(b"."),
    "content without an entry": text(b"../escaped")[1:],
    "through a link of its own": [link(b"way", b"../.."), *text(b"way/escaped")],
    "over a link of its own": [link(b"way", b"../../escaped"), *text(b"way")],
    "a link for the root": [{"path": b"", "kind": "symlink", "target": b"../.."}],
    "a file for the root": [{"path": b"", "kind": "file"}],
    "a link to nothing": [link(b"way", b"")],
    "a device": [{"path": b"escaped", "kind": "device"}],
    "an absurd size": [{"path": b"big", "size": 2**63 - 1}],
    "a negative size": [{"path": b"small", "size": -7}],
    "an absurd offset": [{"path": b"big", "size": 4}, text(b"big")[1] | {"offset": 2**62}],
    "a crooked offset": [{"path": b"odd", "size": 4}, text(b"odd")[1] | {"offset": 17}],
    "a name that is too long": text(b"x" * 5000),
    "a file under a file": [*text(b"one"), *text(b"one/two")],
    "the same file twice": [*text(b"one"), *text(b"one")],
}


@pytest.mark.parametrize("name", TREES)
def test_rows_of_a_hostile_tree_never_leave_the_target(place, name):
    forged = ForgedBackup(place.root, unlocked(place.plan), place.full, "models")
    forged.add("models/tree", file_rows(*TREES[name]))
    backup_id = forged.commit()
    before = place.around()
    target = place.folder / "target"
    target.mkdir()
    with pytest.raises(LastgoodError) as caught:
        make_restore(place.plan, backup_id, to=str(target / "tree"), mode=RestoreMode.EXACT)
    # the system's own limits show only while files are put into place
    expected = Partial if name == "a name that is too long" else CorruptionDetected | RestoreRefused
    assert isinstance(caught.value, expected), repr(caught.value)
    assert place.around() == before
    assert not any((target / "tree").rglob("*"))
    assert list(place.folder.parent.rglob("*escaped*")) == []


@pytest.mark.parametrize("mode", [RestoreMode.MERGE, RestoreMode.EXACT])
def test_links_that_lie_in_the_target_lead_no_file_out_of_it(place, mode):
    """Someone who may write in the target cannot have a restore write elsewhere for him."""
    forged = ForgedBackup(place.root, unlocked(place.plan), place.full, "models")
    forged.add(
        "models/tree", file_rows({"path": b"way", "kind": "dir", "mode": 0o755}, *text(b"way/file"), *text(b"f"))
    )
    backup_id = forged.commit()
    outside, tree = place.folder / "outside", place.folder / "target" / "tree"
    outside.mkdir()
    (outside / "f").write_text("mine")
    tree.mkdir(parents=True)
    (tree / "way").symlink_to(outside)
    (tree / "f").symlink_to(outside / "f")
    before = place.around()
    try:
        make_restore(place.plan, backup_id, to=str(tree), mode=mode)
    except RestoreRefused:
        assert mode is RestoreMode.MERGE
    else:
        assert (tree / "way" / "file").read_text() == "evil"
        assert not (tree / "way").is_symlink()
    assert place.around() == before


def table_rows(**columns: Any) -> pa.Table:
    return pa.table(columns)


TABLES: dict[str, pa.Table] = {
    "no key": table_rows(symbol=["a"], price=[1.0], note=["x"]),
    "other columns": table_rows(id=[1], escaped=["x"]),
    "a column that is a statement": pa.table({"id": [1], "x\") VALUES (1); ATTACH 'escaped.db' AS y; --": ["x"]}),
    "keys twice": table_rows(id=[1, 1], symbol=["a", "b"], price=[1.0, 1.0], note=["x", "x"]),
    "structures": pa.table({"id": [1], "symbol": [{"a": 1}], "price": [[1.0]], "note": ["x"]}),
    "another key type": pa.table({"id": [[1]], "symbol": ["a"], "price": [1.0], "note": ["x"]}),
    "a key that is NULL": pa.table(
        {"id": pa.array([None], pa.int64()), "symbol": ["a"], "price": [1.0], "note": ["x"]}
    ),
    "nothing": pa.table({"x": pa.array([], pa.int64())}),
}


@pytest.mark.parametrize("name", TABLES)
def test_rows_of_a_hostile_table_are_refused_or_written_to_their_table_only(place, name):
    forged = ForgedBackup(place.root, unlocked(place.plan), place.full, "ledger")
    forged.add("ledger/orders", TABLES[name])
    backup_id = forged.commit()
    before = place.around()
    for verb in (
        lambda: make_restore(place.plan, backup_id, to=str(place.folder / "target.db"), mode=RestoreMode.EXACT),
        lambda: make_restore(place.plan, backup_id),
        lambda: make_verification(place.plan, backup_id),
    ):
        with contextlib.suppress(LastgoodError):
            verb()
    outside = {n: d for n, d in place.around().items() if not n.startswith(("target.db", "repository/verif"))}
    assert outside == before
    assert list(place.folder.parent.rglob("*escaped*")) == []


def test_one_backup_cannot_pass_off_the_segments_of_another(place):
    """The bytes are copied and named with the right digests; the place they were sealed for tells."""

    def steal(data: Manifest) -> None:
        theirs = place.full.collections[0].parts[0].segment
        assert theirs is not None
        part = data["collections"][0]["parts"][0]
        part["segment"] = theirs.model_dump(mode="json") | {"number": 77}
        for kind, name in (("data", "00077.seg"), ("index", "00077.idx")):
            source = place.root / "backups" / PLAN / place.full.backup_id / part["segment"][kind]["name"]
            os.link(source, place.root / "backups" / PLAN / place.incremental.backup_id / name)
            part["segment"][kind]["name"] = name

    replace_manifest(place.root, unlocked(place.plan), place.incremental, steal)
    with pytest.raises(CorruptionDetected, match=place.incremental.backup_id):
        make_restore(place.plan, place.incremental.backup_id, to=str(place.folder / "target"), mode=RestoreMode.EXACT)
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
    "an unknown field": (lambda d: d.update(surprise=1), CorruptionDetected),
    "an unknown field of encryption": (lambda d: d["encryption"].update(surprise=1), CorruptionDetected),
    "an unknown field of a slot": (lambda d: d["encryption"]["slots"][0].update(surprise=1), CorruptionDetected),
    "a newer format": (lambda d: d.update(format_version=2), ConfigurationError),
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


@pytest.mark.parametrize("name", SETTINGS)
def test_hostile_settings_are_refused_by_all_who_open_them(place, name):
    change, kind = SETTINGS[name]
    encrypted = name != "plainly no encryption"
    hostile_settings(place, change, checksum=encrypted)
    before = place.around()
    for verb in (
        lambda: make_backup(place.plan, BackupType.FULL),
        lambda: make_restore(place.plan, mode=RestoreMode.EXACT),
        lambda: make_verification(place.plan),
        lambda: apply_retention(place.plan),
    ):
        with pytest.raises(kind):
            verb()
    assert place.around() == before


def test_a_public_key_swapped_by_a_writer_is_found_by_the_reader(place):
    """A writer can authenticate the settings; that the private key fits the public one only a reader can tell."""
    keys = unlocked(writer_of(place)).keys
    config = place.plan.repository.read_config()
    body = {name: value for name, value in config.encryption.items() if name not in ("mac", "checksum")}
    data = {"encryption": body}
    swap_public_key(data)
    place.plan.repository.save_encryption(authenticated(data["encryption"], keys))
    with pytest.raises(CorruptionDetected, match="public key"):
        make_restore(place.plan)


def test_a_copy_of_a_repository_opens_from_anywhere(place, tmp_path):
    """The counterpart of all refusals: what was only moved is good."""
    hard_copy(place.root, tmp_path / "moved")
    plan = make_plan(LiveState(place.folder), tmp_path / "moved", place.folder / "key")
    assert restored(plan, "latest", tmp_path / "target") == place.oracle
