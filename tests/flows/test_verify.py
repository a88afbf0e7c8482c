"""Verification: it proves what is good, finds what is not, and remembers both."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import socket
import sqlite3
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from blocks.crypto.keyring import Credential, Role, generate_key_file
from blocks.crypto.repository_keys import add_slot
from blocks.crypto.stream import ObjectContext, ObjectKind, seal, unseal
from blocks.errors import (
    ConfigurationError,
    CorruptionDetected,
    CouldNotBeTried,
    NotRestorable,
    QualityFailed,
    WrongKey,
)
from blocks.host.leftovers import temporary_folder
from blocks.records import BackupMetadata, BackupStatus
from blocks.repository.catalogue import encode_record
from blocks.rows.key_range import key_range
from blocks.rows.keys import encode_keys
from blocks.rows.parquet import from_parquet, index_from_parquet, index_to_parquet, rows_to_parquet
from blocks.rows.shared import index_at, join_indexes, join_rows, rows_at, unpack
from blocks.sources.mapping import MappingSource
from blocks.sources.sqlite.rebuild import Rebuild
from blocks.sources.sqlite.schema import SchemaObject
from blocks.verification import Axis, CheckOutcome, RuleOutcome, Verification
from flows.pipeline.chain import Chain
from flows.proving.failure import failure
from flows.verify import make_verification
from tests.blocks.sources.files.test_keep_going import files_of_at_most
from tests.conformance import mapping_states
from tests.flows.flow_support import (
    COMPLETED,
    CORRUPTED,
    EMERGENCY,
    FULL,
    INCREMENTAL,
    VERIFIED,
    Shop,
    blobs,
    flip,
    store_apart,
)

GOOD, BAD = CheckOutcome.GOOD, CheckOutcome.BAD


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    shop = Shop(tmp_path)
    shop.fill()
    return shop


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that temporary folders are made in."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def outcomes(result: Verification) -> dict[str, CheckOutcome]:
    """What a verification found on the axes that it tried."""
    return {name: one.outcome for name, one in result.results.items() if one.outcome is not CheckOutcome.UNTRIED}


@pytest.mark.parametrize("deep", [True, False])
def test_a_good_chain_is_verified_and_nothing_is_left_behind(shop: Shop, scratch: Path, deep: bool) -> None:
    shop.back_up()
    shop.db.execute("DELETE FROM orders WHERE id > 20")
    (shop.tree / "a.bin").write_bytes(b"new")
    made = shop.back_up()
    live = shop.picture()
    result = make_verification(shop.plan, deep=deep)
    assert (result.backup_id, result.status, result.deep) == (made.backup_id, VERIFIED, deep)
    assert result.place == (f"{socket.gethostname()}:{scratch}" if deep else None)
    assert (result.rows, result.findings, result.expectations) == (made.rows, (), 0)
    assert failure(result) is None
    assert list(scratch.iterdir()) == []
    assert shop.picture() == live
    assert shop.ids[-1] == made.backup_id  # no emergency backup was taken: nothing live was touched


def test_the_result_is_kept_beside_the_backup_and_tells_its_status(shop: Shop) -> None:
    first, second = shop.back_up(), shop.back_up()
    repository = shop.repository
    assert repository.status(first) is BackupStatus.COMPLETED
    results = [make_verification(shop.plan, first.backup_id, deep) for deep in (False, True)]
    assert repository.verifications("trading", first.backup_id) == results
    assert (repository.status(first), repository.status(second)) == (VERIFIED, COMPLETED)


def test_the_newest_result_counts(shop: Shop) -> None:
    made = shop.back_up()
    pack = shop.objects(made) / "00000.pack"  # which ends with the index
    good = pack.read_bytes()
    make_verification(shop.plan)
    pack.write_bytes(good[:-1])
    assert make_verification(shop.plan).status is CORRUPTED
    assert shop.repository.status(made) is CORRUPTED
    pack.write_bytes(good)
    assert make_verification(shop.plan).status is VERIFIED
    assert shop.repository.status(made) is VERIFIED


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("apart", [True, False])
def test_a_backup_that_failed_its_verification_is_no_base(
    shop: Shop, apart: bool, index: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if apart:
        store_apart(monkeypatch)
    made = shop.back_up(FULL)
    victim = blobs(made, index)[-1]
    flip(shop.objects(made), victim)
    result = make_verification(shop.plan)
    assert isinstance(error := failure(result), CorruptionDetected)
    assert victim.name in error.message
    promoted = shop.back_up(INCREMENTAL)
    assert promoted.promoted_because == f"base {made.backup_id} failed its verification"


def test_verifying_a_narrowed_emergency_backup_restores_it_too(tmp_path: Path, scratch: Path) -> None:
    shop = Shop(tmp_path, critical=["ledger/orders:1*", "ledger/positions", "models/tree:deep*"])
    shop.fill()
    made = shop.back_up(EMERGENCY)
    result = make_verification(shop.plan, made.backup_id)
    assert (result.status, result.findings, result.rows) == (VERIFIED, (), made.rows)
    assert list(scratch.iterdir()) == []


def test_what_a_narrowed_emergency_backup_does_not_hold_is_no_fault_of_it(tmp_path: Path, scratch: Path) -> None:
    shop = Shop(tmp_path, critical=["ledger/orders"])
    shop.fill()
    made = shop.back_up(EMERGENCY)
    result = make_verification(shop.plan, made.backup_id)
    assert (result.status, result.findings) == (VERIFIED, ())


def test_verifying_an_empty_state(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.plan = shop.plan.model_copy(update={"sources": {"ledger": shop.plan.sources["ledger"]}})
    shop.db.execute("PRAGMA user_version = 7")
    shop.back_up()
    result = make_verification(shop.plan)
    assert (result.status, result.findings, result.rows) == (VERIFIED, (), 0)


def test_a_backup_is_verified_beside_what_only_the_application_can_rebuild(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.plan = shop.plan.model_copy(update={"sources": {"ledger": shop.plan.sources["ledger"]}})
    shop.db.create_collation("unicase", lambda a, b: (a.lower() > b.lower()) - (a.lower() < b.lower()))
    shop.db.execute("CREATE TABLE tags (tag TEXT COLLATE unicase PRIMARY KEY, n) WITHOUT ROWID")
    shop.db.executemany("INSERT INTO tags VALUES (?, 1)", [("b",), ("A",), ("C",)])
    shop.db.execute("CREATE INDEX by_n ON tags (n COLLATE unicase)")
    shop.db.commit()
    made = shop.back_up()
    result = make_verification(shop.plan)
    assert (result.status, result.findings, result.rows) == (VERIFIED, (), made.rows)
    assert [w.split(" cannot")[0] for w in result.warnings] == [
        "ledger: primary key or UNIQUE of table 'tags'",
        "ledger: index 'by_n' of table 'tags'",
        "ledger: unproven here: as restored index 'by_n' of table 'tags' is gone.",
    ]
    outcomes = {name: found.outcome.value for name, found in result.results.items()}
    assert outcomes == {"bytes": "good", "restorable": "unproven", "definitions": "unproven", "quality": "good"}


class Forger:
    """Somebody who holds every key, and changes what one part says."""

    def __init__(self, shop: Shop, backup: BackupMetadata) -> None:
        self.shop, self.repository = shop, shop.repository
        self.chain = Chain(self.repository, backup)
        self.backup = backup.model_dump(mode="json")
        self.id = backup.backup_id

    def forge(self, change: Callable[[pa.Table], pa.Table], kind: ObjectKind) -> None:
        """Change the rows or the index of the first part, and make the manifest agree with it.

        What is forged is an object of its own; a blob that other parts share holds theirs, too.
        """
        collection = self.chain.target.collections[0]
        segment = collection.parts[0].segment
        assert segment is not None
        data = kind is ObjectKind.SEGMENT
        old, place = (segment.data, "data") if data else (segment.index, "index")
        sharing = [s for s in self._segments() if s[place]["number"] == old.number]
        sealed = (self.shop.objects(self.chain.target) / old.name).read_bytes()
        context = ObjectContext.of_blob(self.chain.target, kind, old.number or 0)
        key = self.chain.data_keys[self.id] if data else self.repository.keys.catalogue_key
        plain = unseal(sealed[old.offset : old.offset + old.size_bytes], key, context)
        tables = [self._table(plain, data, s[place]["shared"]) for s in sharing]
        tables[0] = change(tables[0])
        keys = encode_keys(tables[0], collection.key) if data else None
        if old.shared is not None:
            packed, places = join_rows(tables) if data else join_indexes(tables)
            for one, at in zip(sharing, places, strict=True):
                one[place]["shared"] = at
        else:
            packed = rows_to_parquet(tables[0], keys, 3) if data else index_to_parquet(tables[0])
        if keys:
            sharing[0]["key_range"] = key_range(tables[0], keys, collection.key, None).model_dump()
        self._store(seal(packed, key, context), [one[place] for one in sharing])
        self.seal_manifest()

    def _segments(self) -> list[Any]:
        return [part["segment"] for c in self.backup["collections"] for part in c["parts"] if part["segment"]]

    @staticmethod
    def _table(plain: bytes, data: bool, place: tuple[int, int] | None) -> pa.Table:
        if data:
            return from_parquet(plain, "forged") if place is None else rows_at(unpack(plain, "forged"), place, "forged")
        index = index_from_parquet(plain, "forged")
        return index if place is None else index_at(index, place, "forged")

    def _store(self, sealed: bytes, named_by: list[Any]) -> None:
        name = "99999.pack"
        (self.shop.objects(self.chain.target) / name).write_bytes(sealed)
        new = {"name": name, "size_bytes": len(sealed), "sha256": hashlib.sha256(sealed).hexdigest()}
        self.backup["objects"].append(new)
        for blob in named_by:
            blob |= new | {"offset": 0}

    def seal_manifest(self) -> None:
        record = BackupMetadata.model_validate_json(json.dumps(self.backup))
        context = ObjectContext(self.repository.repository_id, "trading", self.id, ObjectKind.MANIFEST)
        sealed = seal(encode_record(record), self.repository.keys.catalogue_key, context)
        (self.shop.objects(self.chain.target) / "manifest").write_bytes(sealed)


def another_price(rows: pa.Table) -> pa.Table:
    at = rows.column_names.index("price")
    return rows.set_column(at, "price", pc.add(rows.column("price"), 1.0))


FORGERIES = {
    "another value": (another_price, ObjectKind.SEGMENT, "differ"),
    "a row is missing": (lambda rows: rows.slice(1), ObjectKind.SEGMENT, "1 rows are missing"),
    "a key is another": (
        lambda rows: rows.set_column(rows.column_names.index("id"), "id", pc.subtract(rows.column("id"), 1000)),
        ObjectKind.SEGMENT,
        "are missing",
    ),
    "no rows": (lambda rows: rows.slice(0, 0), ObjectKind.SEGMENT, "missing"),
    "the index lacks a row": (lambda index: index.slice(1), ObjectKind.INDEX, "entries where the manifest counts"),
    "the index has another digest": (
        lambda index: index.set_column(
            1, "_digest", pc.bit_wise_xor(index.column("_digest"), pa.scalar(1 << 32, pa.uint64()))
        ),
        ObjectKind.INDEX,
        "differ",
    ),
    "one row is another's": (
        lambda rows: rows.set_column(
            rows.column_names.index("symbol"), "symbol", rows.column("symbol").combine_chunks()[::-1]
        ),
        ObjectKind.SEGMENT,
        "differ",
    ),
}


@pytest.mark.parametrize(("deep", "apart"), [(True, True), (False, False), (False, True)])
@pytest.mark.parametrize("name", FORGERIES)
def test_a_wrong_row_is_found_though_every_seal_is_right(
    shop: Shop, scratch: Path, name: str, deep: bool, apart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if apart:
        store_apart(monkeypatch)
    made = shop.back_up()
    change, kind, words = FORGERIES[name]
    Forger(shop, made).forge(change, kind)
    result = make_verification(shop.plan, deep=deep)
    assert result.status is CORRUPTED
    assert words in result.findings[0]
    assert "ledger/orders#0" in result.findings[0]
    assert isinstance(failure(result), CorruptionDetected)
    assert shop.repository.status(shop.repository.manifest("trading", made.backup_id)) is CORRUPTED
    assert list(scratch.iterdir()) == []


def test_a_manifest_that_counts_otherwise_is_found(shop: Shop) -> None:
    forger = Forger(shop, shop.back_up())
    forger.backup["collections"][0]["parts"][0]["rows"] += 1
    forger.seal_manifest()
    assert "does not add up" in make_verification(shop.plan, deep=False).findings[0]
    forger.backup["total_rows"] += 1
    forger.seal_manifest()
    result = make_verification(shop.plan, deep=False)
    assert "the index holds" in result.findings[0]


def test_a_definition_that_does_not_fit_its_rows_is_never_called_verified(shop: Shop, scratch: Path) -> None:
    made = shop.back_up()
    forger = Forger(shop, made)
    definition = forger.backup["sources"][0]["definition"]
    for thing in definition["objects"]:
        if thing["name"] == "positions" and thing["sql"]:
            thing["sql"] = "CREATE TABLE positions (symbol TEXT PRIMARY KEY NOT NULL, amount)"
    forger.seal_manifest()
    result = make_verification(shop.plan, deep=True)
    assert result.status is CORRUPTED
    assert {"bytes": GOOD, "restorable": BAD}.items() <= outcomes(result).items()
    [finding] = result.results["restorable"].findings
    assert finding.startswith("ledger: a restore fails: ")
    assert "positions" in finding
    assert isinstance(failure(result), NotRestorable)
    assert shop.repository.status(shop.repository.manifest("trading", made.backup_id)) is CORRUPTED
    assert list(scratch.iterdir()) == []


def test_a_chain_that_lost_its_full_is_found(shop: Shop) -> None:
    full, made = shop.back_up(FULL), shop.back_up(INCREMENTAL)
    shop.repository.remove("trading", [full.backup_id])
    result = make_verification(shop.plan)
    assert (result.backup_id, result.status) == (made.backup_id, CORRUPTED)
    assert full.backup_id in result.findings[0]


def test_a_writer_proves_nothing_and_leaves_no_result(shop: Shop, tmp_path: Path) -> None:
    made = shop.back_up()
    writer = tmp_path / "writer"
    generate_key_file(writer)
    config = shop.plan.repository.read_config()
    credential = Credential(key_file=writer)
    shop.plan.repository.save_encryption(
        add_slot(config.encryption, shop.repository.keys, credential, Role.WRITER, "worker")
    )
    worker = shop.plan.model_copy(
        update={"encryption": shop.plan.encryption.model_copy(update={"credential": credential})}
    )
    with pytest.raises(WrongKey):
        make_verification(worker)
    assert shop.repository.verifications("trading", made.backup_id) == []


def suite(tmp_path: Path, **kwargs: object) -> str:
    expectation = {"type": "expect_column_values_to_be_between", "kwargs": {"column": "price", **kwargs}}
    path = tmp_path / "suite.json"
    path.write_text(json.dumps({"name": "orders", "collection": "ledger/orders", "expectations": [expectation]}))
    return str(path)


def test_bad_data_in_a_whole_backup_fails_the_quality_and_leaves_it_completed(shop: Shop, tmp_path: Path) -> None:
    shop.plan = shop.plan.model_copy(update={"quality": [suite(tmp_path, min_value=0, max_value=9)]})
    shop.db.execute("UPDATE orders SET price = -5 WHERE id = 7")
    made = shop.back_up()
    result = make_verification(shop.plan)
    assert (result.status, result.rows) == (COMPLETED, made.rows)
    assert result.expectations >= 1
    assert result.findings[0].startswith("ledger/orders: ")
    assert isinstance(failure(result), QualityFailed)
    assert shop.repository.status(made) is COMPLETED
    assert shop.back_up().base == made.backup_id  # bad data is still a faithful backup
    shop.db.execute("UPDATE orders SET price = 5")
    shop.back_up()
    assert make_verification(shop.plan).status is VERIFIED


def test_what_each_expectation_came_to_is_recorded(shop: Shop, tmp_path: Path) -> None:
    shop.plan = shop.plan.model_copy(update={"quality": [suite(tmp_path, min_value=0, max_value=9)]})
    shop.db.execute("UPDATE orders SET price = -5 WHERE id = 7")
    made = shop.back_up()
    result = make_verification(shop.plan, made.backup_id, deep=False)
    rows, between = result.rules
    assert (rows.rule, rows.outcome) == ("expect_table_row_count_to_equal", RuleOutcome.HOLDS)
    assert (between.rule, between.outcome) == ("expect_column_values_to_be_between", RuleOutcome.BROKEN)
    assert between.sentence in result.findings
    assert (between.bound, between.columns) == ("between 0 and 9", ("price",))
    assert result.expectations == 2
    assert [*result.suites] == ["orders"]
    assert isinstance(failure(result), QualityFailed)


def test_a_fault_of_a_suite_is_no_fault_of_the_backup_and_no_success(shop: Shop, tmp_path: Path) -> None:
    shop.plan = shop.plan.model_copy(update={"quality": [query(tmp_path, "SELECT * FROM {batch} WHERE nowhere > 1")]})
    made = shop.back_up()
    result = make_verification(shop.plan, made.backup_id, deep=False)
    assert result.findings == ()
    assert result.results["quality"].outcome is CheckOutcome.UNPROVEN
    error = failure(result)
    assert isinstance(error, ConfigurationError)
    assert "suite rules: ledger/orders" in error.message


def test_rules_in_sql_are_evaluated_on_restored_rows(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    shop.plan = shop.plan.model_copy(update={"quality": [query(tmp_path, "SELECT * FROM {batch} WHERE price < 0")]})
    made = shop.back_up()
    assert failure(make_verification(shop.plan, made.backup_id, deep=False)) is None
    assert not list(temporary_folder().glob("lastgood-quality-*"))


def test_a_rule_for_which_there_is_no_memory_could_not_be_tried(shop: Shop, tmp_path: Path) -> None:
    made = shop.back_up()
    too_large = "SELECT * FROM (SELECT string_agg(repeat('x', 1000000), '') AS s FROM range(500)) WHERE length(s) < 1"
    shop.plan = shop.plan.model_copy(update={"quality": [query(tmp_path, too_large)]})
    result = make_verification(shop.plan)
    assert (result.status, result.findings) == (VERIFIED, ())
    assert result.results["quality"].outcome is CheckOutcome.UNPROVEN
    error = failure(result)
    assert isinstance(error, CouldNotBeTried)
    assert "not enough memory" in error.message
    assert shop.repository.verifications("trading", made.backup_id) == [result]


@pytest.mark.parametrize("step", ["SuiteRows", "SuiteRows.add", "SuiteRows.run"])
def test_suites_without_room_are_unproven_and_all_else_is_recorded(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def full(*args: object, **named: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    shop.plan = shop.plan.model_copy(update={"quality": [suite(tmp_path, min_value=0)]})
    made = shop.back_up()
    monkeypatch.setattr(f"flows.proving.proof.{step}", full)
    result = make_verification(shop.plan, deep=False)
    assert outcomes(result) == {"bytes": CheckOutcome.GOOD, "quality": CheckOutcome.UNPROVEN}
    assert (result.findings, result.suites, len(result.warnings)) == ((), {}, 1)
    error = failure(result)
    assert isinstance(error, CouldNotBeTried)
    assert "suite orders: ledger/orders: it could not be evaluated: No space left on device" in error.message
    assert len(shop.repository.verifications("trading", made.backup_id)) == 1


def query(tmp_path: Path, sql: str) -> str:
    rule = {"type": "unexpected_rows_expectation", "kwargs": {"unexpected_rows_query": sql}}
    path = tmp_path / "rules.json"
    path.write_text(json.dumps({"name": "rules", "collection": "ledger/orders", "expectations": [rule]}))
    return str(path)


def test_a_quality_suite_that_cannot_be_read_is_refused_before_any_work(shop: Shop, tmp_path: Path) -> None:
    made = shop.back_up()
    shop.plan = shop.plan.model_copy(update={"quality": [str(tmp_path / "missing.json")]})
    with pytest.raises(ConfigurationError, match=r"missing\.json"):
        make_verification(shop.plan)
    assert shop.repository.verifications("trading", made.backup_id) == []


def test_a_suite_about_a_collection_that_has_no_rows_or_is_not_there(shop: Shop, tmp_path: Path) -> None:
    shop.plan = shop.plan.model_copy(update={"quality": [suite(tmp_path, min_value=0)]})
    shop.db.execute("DELETE FROM orders")
    shop.back_up()
    empty = make_verification(shop.plan, deep=False)
    assert empty.status is COMPLETED or empty.findings == ()
    shop.db.execute("DROP TABLE orders")
    shop.back_up()
    gone = make_verification(shop.plan, deep=False)
    assert isinstance(failure(gone), QualityFailed)
    assert "no collection ledger/orders" in gone.findings[0]


def test_an_ordinary_user_can_verify_files_that_belong_to_others(shop: Shop, scratch: Path) -> None:
    made = shop.back_up()
    if os.geteuid() != 0:  # then all files are this user's own, and owners cannot be distinguished
        assert make_verification(shop.plan).status is VERIFIED
        return
    nobody = 65534
    for folder in (*reversed(shop.folder.relative_to("/").parents), shop.folder):
        place = Path("/") / folder
        place.chmod(place.stat().st_mode | 0o011)
    for place in (scratch, shop.folder / "key", shop.folder / "repository", *(shop.folder / "repository").rglob("*")):
        os.chown(place, nobody, nobody)
    child = os.fork()
    if not child:
        status = 1
        with suppress(BaseException):
            os.setgroups([])
            os.setgid(nobody)
            os.setuid(nobody)
            os.environ["XDG_STATE_HOME"] = str(scratch / "state")
            verification = make_verification(shop.plan, made.backup_id)
            status = 0 if (verification.status, verification.findings) == (VERIFIED, ()) else 2
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_backup_is_verified_as_it_was_made_whatever_the_plan_leaves_out_since(shop: Shop) -> None:
    made = shop.back_up(FULL)
    sources = {
        "ledger": shop.plan.sources["ledger"].model_copy(update={"exclude": ["orders"]}),
        "models": shop.plan.sources["models"].model_copy(update={"exclude": ["deep*"]}),
    }
    shop.plan = shop.plan.model_copy(update={"sources": sources})
    result = make_verification(shop.plan, made.backup_id, deep=True)
    assert (result.status, result.findings) == (VERIFIED, ())


def test_what_a_database_itself_finds_wrong_as_restored_is_a_finding(
    shop: Shop, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.db.execute("CREATE INDEX by_price ON orders (price)")
    shop.db.execute("CREATE TABLE parts (id INTEGER PRIMARY KEY, of REFERENCES orders)")
    shop.db.execute("INSERT INTO parts VALUES (1, 4711)")
    shop.back_up()
    result = make_verification(shop.plan)
    [finding] = result.results["quality"].findings
    assert (
        finding == "ledger: 1 row of table 'parts' refers to a row of 'orders' that is not there (foreign key of of)."
    )
    assert (result.status, result.findings, result.warnings) == (COMPLETED, (finding,), ())
    shop.db.execute("DELETE FROM parts")
    shop.back_up()
    whole = Rebuild.create_rest

    def build_wrongly(self: Rebuild, connection: sqlite3.Connection, objects: Iterable[SchemaObject]) -> None:
        whole(self, connection, objects)
        connection.executescript(
            "PRAGMA writable_schema = ON;"
            "UPDATE sqlite_schema SET sql = 'CREATE INDEX by_price ON orders (symbol)' WHERE name = 'by_price';"
            "PRAGMA writable_schema = RESET; BEGIN"
        )

    monkeypatch.setattr(Rebuild, "create_rest", build_wrongly)
    result = make_verification(shop.plan)
    assert result.status is CORRUPTED
    assert result.findings[0].startswith("as restored: ledger: The integrity check says: row 1 missing from index")
    assert isinstance(failure(result), NotRestorable)


def test_what_an_edited_schema_keeps_out_of_a_scratch_restore_is_a_restore_that_fails(
    shop: Shop, scratch: Path
) -> None:
    shop.db.executescript(
        "CREATE TABLE pairs (a, b, v, PRIMARY KEY (a, b)); INSERT INTO pairs VALUES (1, 'x', NULL), (2, 'y', 3);"
        "PRAGMA writable_schema = ON;"
        "UPDATE sqlite_schema SET sql = replace(sql, 'v,', 'v NOT NULL,') WHERE name = 'pairs';"
        "PRAGMA writable_schema = RESET"
    )
    shop.back_up()
    result = make_verification(shop.plan)
    assert result.results["restorable"].findings == (
        "ledger: 1 row of table 'pairs' cannot be rebuilt here: NOT NULL constraint failed: pairs.v.",
    )
    assert any("pairs#0: 1 keys are unproven" in warning for warning in result.warnings)


@pytest.mark.parametrize("rows", [True, False])
def test_a_table_that_cannot_be_made_here_is_unproven_and_no_corruption(shop: Shop, scratch: Path, rows: bool) -> None:
    if not rows:
        shop.db.execute("DELETE FROM positions")
    made = shop.back_up()
    forger = Forger(shop, made)
    for thing in forger.backup["sources"][0]["definition"]["objects"]:
        if thing["name"] == "positions" and thing["sql"]:
            thing["sql"] += " FROM_A_LATER_VERSION"
    forger.seal_manifest()
    result = make_verification(shop.plan)
    assert (result.status, result.findings) == (VERIFIED, ())
    assert any("table 'positions' cannot be rebuilt here" in warning for warning in result.warnings)
    assert any("are unproven" in warning for warning in result.warnings) is rows


def test_a_file_that_the_scratch_folder_does_not_take_says_nothing_of_the_backup(shop: Shop, scratch: Path) -> None:
    (shop.tree / "hole").write_bytes(b"")
    os.truncate(shop.tree / "hole", 3 << 20)
    made = shop.back_up()
    with files_of_at_most(2 << 20):
        result = make_verification(shop.plan)
    assert (result.status, result.findings) == (VERIFIED, ())
    assert {"bytes": GOOD, "restorable": CheckOutcome.UNPROVEN}.items() <= outcomes(result).items()
    error = failure(result)
    assert isinstance(error, CouldNotBeTried)
    assert "models: a scratch restore could not be tried: " in error.message
    assert "cannot take entry hole: File too large" in error.message
    assert shop.repository.verifications("trading", made.backup_id) == [result]
    assert list(scratch.iterdir()) == []
    repository = shop.repository
    assert repository.verdict(made).outcome(Axis.RESTORABLE) is CheckOutcome.UNPROVEN
    assert failure(make_verification(shop.plan)) is None
    assert repository.verdict(made).restored


def test_a_value_of_a_class_that_is_gone_is_unproven_and_no_corruption(tmp_path: Path) -> None:
    mapping_states.verified = state = mapping_states.StateManager()  # type: ignore[attr-defined]
    state.values |= {"a": 1, "gone": mapping_states.passing(), "z": [2]}
    shop = Shop(tmp_path, encrypted=False)
    shop.plan.sources = {"state": MappingSource(object=f"{mapping_states.__name__}:verified")}
    shop.back_up()
    del mapping_states.Passing  # type: ignore[attr-defined]
    try:
        result = make_verification(shop.plan)
    finally:
        del mapping_states.verified  # type: ignore[attr-defined]
    assert (result.status, result.findings) == (VERIFIED, ())
    assert any("key 'gone' cannot be rebuilt here" in warning for warning in result.warnings)
    assert any("1 keys are unproven" in warning for warning in result.warnings)
