"""The format is what docs/format.md says: its own Python, with no line of lastgood, restores real repositories."""

from __future__ import annotations

import ast
import hashlib
import hmac
import os
import re
import shutil
import struct
import subprocess
import sys
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from cryptography.hazmat.primitives.asymmetric import mlkem, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.crypto.credential import RecoveryKey
from blocks.crypto.encoding import from_base64
from blocks.crypto.key_slots import Epoch, Kem, Slot, encapsulate, public_bytes
from blocks.crypto.stream import ObjectContext, ObjectKind, unseal
from blocks.plan.plan import BackupPlan
from blocks.records import (
    BackupMetadata,
    Blob,
    Collection,
    CollectionChange,
    Expiry,
    KeyRange,
    Link,
    Part,
    PartChange,
    Record,
    Segment,
    SourceState,
    StoredObject,
)
from blocks.repository.leases import LeaseRecord
from blocks.rows.canonical import to_canonical
from blocks.rows.digest import RowDigest
from blocks.rows.keys import encode_keys
from blocks.rows.variant import encode_variant, variant_field
from blocks.sources.sqlite.schema import Database, TableShape
from blocks.verification import AxisResult, CollectionProfile, ColumnProfile, RuleResult, Standing, Verification
from tests.blocks.sources.sqlite.kit import GALLERY, dump
from tests.format_support import (
    DOCUMENT,
    MIB,
    back_up,
    make_plan,
    program,
    restore,
    run_sql,
    see_beside,
    see_tree,
    write,
)

PASSPHRASE = "a passphrase for tests: ﬁre"  # the ligature is another text in NFKC
KEY = bytes(range(32))


@pytest.fixture(autouse=True)
def _passphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LASTGOOD_TEST_PASSPHRASE", PASSPHRASE)


@cache
def document() -> dict[str, Any]:
    """The names that the document's Python defines."""
    names: dict[str, Any] = {"__name__": "document", "Decimal": Decimal}
    exec(compile(program(), str(DOCUMENT), "exec", dont_inherit=True), names)
    return names


def examples(header: str) -> list[list[str]]:
    """The rows of the table with a header, without their backquotes."""
    table = DOCUMENT.read_text().partition(f"\n| {header} |")[2].partition("\n\n")[0]
    return [[cell.strip(" `") for cell in line.strip("|").split(" | ")] for line in table.splitlines()[2:]]


# The document restores what lastgood stored


def test_the_documents_python_needs_nothing_but_cryptography_pyarrow_and_the_standard_library() -> None:
    imported = set()
    for node in ast.walk(ast.parse(program())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level
            imported.add(str(node.module).partition(".")[0])
    assert imported - set(sys.stdlib_module_names) == {"cryptography", "pyarrow"}


ODD_NAMES = """
CREATE TABLE "" (a);
INSERT INTO "" VALUES (1);
CREATE TABLE "x ORDER BY y" ("" INT, "a.b" TEXT, "_key" TEXT PRIMARY KEY, "_", "__x", "_deleted", "é.ü", "l.element");
INSERT INTO "x ORDER BY y" VALUES (1, 'x', 'k1', 2, 3.5, x'00', 't', 7), (NULL, NULL, 'k2', NULL, NULL, NULL, NULL, 1);
CREATE TABLE "a/b" (n NUMERIC PRIMARY KEY, t TEXT) WITHOUT ROWID;
INSERT INTO "a/b" VALUES (5e-324, CAST(x'eda080' AS TEXT)), (1e15, char(0xfeff) || char(0x10ffff)), ('abc', char(0));
"""


ACCESS_LIST = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *entry)
    for entry in ((1, 6, 2**32 - 1), (2, 6, 1000), (4, 4, 2**32 - 1), (16, 6, 2**32 - 1), (32, 0, 2**32 - 1))
)


def begin(folder: Path) -> None:
    run_sql(folder / "ledger.db", "PRAGMA journal_mode = WAL;" + GALLERY + ODD_NAMES)
    run_sql(
        folder / "ledger.db",
        """
        CREATE TABLE orders (id INTEGER PRIMARY KEY, symbol TEXT, price, "_key" TEXT);
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900)
        INSERT INTO orders SELECT i, 'sym' || i % 7, i * 1.5, printf('%050d', i) FROM n;
        """,
    )
    root = os.fsencode(folder / "models")
    os.mkdir(root)
    os.mkdir(root + b"/deep", 0o750)
    os.mkdir(root + b"/empty")
    write(root + b"/deep/large", (0, os.urandom(3 * MIB + 17)), mode=0o600)
    write(root + b"/deep/shrinks", (0, os.urandom(2 * MIB + 5)))
    write(root + b"/sparse", (5 * MIB + 3, b"far out"), size_bytes=9 * MIB)
    write(root + b"/zeros", size_bytes=MIB + 1)
    write(root + b"/not \xff UTF-8\n", (0, b"named in bytes"))
    write(root + b"/empty file")
    write(root + b"/goes", (0, b"soon"))
    os.symlink(b"deep/\xfe nowhere", root + b"/link")
    os.link(root + b"/deep/large", root + b"/large too")
    os.link(root + b"/deep/large", root + b"/aaa large")
    os.link(root + b"/empty file", root + b"/deep/empty too")
    os.setxattr(root + b"/deep/large", "user.of all names", b"\0\xff")
    os.setxattr(root + b"/deep", "system.posix_acl_default", ACCESS_LIST)
    os.setxattr(root + b"/empty", "user.empty", b"")
    if os.geteuid() == 0:
        os.setxattr(root + b"/link", "trusted.of the link", b"x", follow_symlinks=False)
        os.setxattr(root + b"/sparse", "security.capability", struct.pack("<IIIII", 0x02000001, 1, 0, 0, 0))


def change(folder: Path, step: int) -> None:
    """Change something of every kind; each step differs, and step 3 takes step 2's additions back."""
    root = os.fsencode(folder / "models")
    if step == 1:
        run_sql(
            folder / "ledger.db",
            """
            DELETE FROM orders WHERE id % 10 = 3; UPDATE orders SET price = 'a text' WHERE id % 90 = 4;
            INSERT INTO orders VALUES (5000, CAST(x'ff00' AS TEXT), x'00ff', NULL);
            DELETE FROM composite WHERE a = 1; DELETE FROM "nothing"; INSERT INTO counted (v) VALUES (1.5);
            DELETE FROM "x ORDER BY y" WHERE "_key" = 'k2'; UPDATE "a/b" SET n = 7 WHERE n = 1e15;
            DELETE FROM mixed; UPDATE plain SET n = n WHERE id = 1; UPDATE notes SET text = 'delta' WHERE title = 'one';
            """,
        )
        os.unlink(root + b"/goes")
        os.truncate(root + b"/deep/shrinks", MIB - 1)
        write(root + b"/deep/large", (2 * MIB, b"changed in the middle"))
        os.setxattr(root + b"/zeros", "system.posix_acl_access", ACCESS_LIST)
        os.unlink(root + b"/aaa large")
    elif step == 2:
        run_sql(
            folder / "ledger.db", "INSERT INTO orders VALUES (-1, 'back', 9e999, ''); INSERT INTO mixed VALUES (2, 3);"
        )
        write(root + b"/goes", (0, b"is back"))
        shutil.rmtree(root + b"/empty")
        write(root + b"/empty", (0, b"a folder became a file"))
        os.link(root + b"/empty", root + b"/deep/empty now")
    elif step == 3:
        run_sql(
            folder / "ledger.db",
            'DELETE FROM orders WHERE id IN (-1, 5000, 7); INSERT INTO "nothing" VALUES (1, NULL);',
        )
        os.unlink(root + b"/goes")
        os.removexattr(root + b"/zeros", "system.posix_acl_access")
        os.unlink(root + b"/large too")
        os.unlink(root + b"/link")
        os.symlink(b"sparse", root + b"/link")


def make_history(folder: Path, plan: BackupPlan, kinds: list[str]) -> dict[str, tuple[bytes, object]]:
    """Make backups of a state that changes between them; return what each should restore to."""
    wanted = {}
    for step, kind in enumerate(kinds):
        begin(folder) if step == 0 else change(folder, step)
        tree = (see_tree(folder / "models"), see_beside(folder / "models"))
        wanted[back_up(plan, kind).backup_id] = (dump(folder / "ledger.db"), tree)
    return wanted


def check_restored(folder: Path, wanted: dict[str, tuple[bytes, object]], *arguments: str, **environment: str) -> None:
    for backup_id, (database, tree) in wanted.items():
        to = folder / f"restored-{backup_id}"
        done = restore(folder, backup_id, "--to", str(to), "--check", *arguments, **environment)
        assert done.returncode == 0, done.stderr
        assert dump(to / "ledger") == database
        assert (see_tree(to / "models"), see_beside(to / "models")) == tree


def test_the_document_restores_every_backup_of_a_chain_with_the_passphrase(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, {"credential": {"passphrase_env": "LASTGOOD_TEST_PASSPHRASE"}})
    plan.repository.initialize(plan.encryption)
    wanted = make_history(tmp_path, plan, ["full", "incremental", "differential", "incremental"])
    spelled_otherwise = PASSPHRASE.replace("ﬁ", "fi")
    check_restored(tmp_path, wanted, LASTGOOD_PASSPHRASE=spelled_otherwise)
    listed = restore(tmp_path, "--list", LASTGOOD_PASSPHRASE=PASSPHRASE).stdout.splitlines()
    assert [line.split()[0] for line in listed] == list(wanted)
    assert "no slot" in restore(tmp_path, "--list", LASTGOOD_PASSPHRASE="another").stderr
    assert "cipher" in restore(tmp_path, "--list", "--no-encryption").stderr


@pytest.mark.parametrize("kem", ["mlkem768-x25519", "x25519"])
def test_the_document_restores_with_the_recovery_key(tmp_path: Path, kem: str) -> None:
    plan = make_plan(tmp_path, {"credential": {"passphrase_env": "LASTGOOD_TEST_PASSPHRASE"}, "kem": kem}, MIB)
    kit = plan.repository.initialize(plan.encryption)
    wanted = make_history(tmp_path, plan, ["full", "incremental"])
    assert kit.recovery_key is not None
    (tmp_path / "paper").write_text(f"# typed by hand\n{kit.recovery_key.lower().replace('-', ' ')}\n")
    check_restored(tmp_path, dict(list(wanted.items())[1:]), "--key-file", str(tmp_path / "paper"))


def test_the_document_restores_an_unencrypted_repository_when_told_that_it_is_one(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, "none", MIB)
    plan.repository.initialize(plan.encryption)
    wanted = make_history(tmp_path, plan, ["full", "snapshot"])
    check_restored(tmp_path, dict(list(wanted.items())[1:]), "--no-encryption")
    assert "cipher" in restore(tmp_path, "--list", LASTGOOD_PASSPHRASE="any").stderr


def flip(pack: Path) -> None:
    """Change a bit of the first blob of a pack, which is of the ledger."""
    data = bytearray(pack.read_bytes())
    data[100] ^= 1
    pack.write_bytes(data)


def test_the_document_refuses_a_damaged_segment(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, "none", MIB)
    plan.repository.initialize(plan.encryption)
    (backup_id,) = make_history(tmp_path, plan, ["full"])
    damaged = tmp_path / "backups" / "backups" / "trading" / backup_id / "00000.pack"
    flip(damaged)
    assert "refused: 00000.pack" in restore(tmp_path, "--no-encryption", "--to", str(tmp_path / "out")).stderr


def test_the_document_lists_what_it_can_and_restores_one_source_where_another_is_damaged(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, "none", MIB)
    plan.repository.initialize(plan.encryption)
    whole, broken = make_history(tmp_path, plan, ["full", "snapshot"])
    tree = see_tree(tmp_path / "models")
    (tmp_path / "backups" / "backups" / "trading" / whole / "manifest").write_bytes(b"LASTGOOD, but cut off")
    listed = restore(tmp_path, "--list", "--no-encryption").stdout.splitlines()
    assert [line.split()[0] for line in listed] == [broken, whole]
    assert "cannot be opened" in listed[1]
    assert "name the backup" in restore(tmp_path, "--no-encryption", "--to", "out").stderr
    flip(tmp_path / "backups" / "backups" / "trading" / broken / "00000.pack")
    refused = restore(tmp_path, broken, "--no-encryption", "--to", str(tmp_path / "all")).stderr
    assert "refused: 00000.pack" in refused
    done = restore(tmp_path, broken, "--no-encryption", "--to", str(tmp_path / "out"), "--source", "models")
    assert done.returncode == 0, done.stderr
    assert see_tree(tmp_path / "out" / "models") == tree


# The document's examples are what lastgood computes


def column(values: list[object]) -> tuple[pa.Field, pa.Array]:
    """Make the canonical column that holds Python values as the document has them."""
    Moment = document()["Moment"]
    kinds = {type(value) for value in values if value is not None}
    if kinds == {Moment}:
        (tag,) = {value.tag for value in values if value is not None}  # type: ignore[attr-defined]
        kind = {0x14: pa.timestamp("us", "UTC"), 0x15: pa.date32(), 0x16: pa.time64("us")}[tag]
        width = pa.int32() if tag == 0x15 else pa.int64()
        array = pa.array([None if v is None else v.number for v in values], width).view(kind)  # type: ignore[attr-defined]
    elif len(kinds) > 1 or kinds == {bytearray}:
        return variant_field("c"), encode_variant(values)  # type: ignore[arg-type]
    else:
        plain = {int: pa.int64(), float: pa.float64(), str: pa.large_string(), bytes: pa.large_binary()}
        array = pa.array(values, plain.get(next(iter(kinds))) if kinds else pa.null())
    return pa.field("c", array.type), array


def rows_of(rows: list[dict[str, object]]) -> pa.Table:
    made = {name: column([row[name] for row in rows]) for name in rows[0]}
    schema = pa.schema([field.with_name(name) for name, (field, _) in made.items()])
    return to_canonical(pa.table([array for _, array in made.values()], schema=schema))


@pytest.mark.parametrize(("columns", "key"), examples("key columns | `_key` (hex)"))
def test_the_documents_examples_of_keys_are_right(columns: str, key: str) -> None:
    value = eval(columns, document())
    table = rows_of([{f"c{n}": one for n, one in enumerate(value)}])
    assert encode_keys(table, table.column_names).to_pylist() == [bytes.fromhex(key)]
    assert document()["encode_key"](value) == bytes.fromhex(key)


@pytest.mark.parametrize(("row", "digest"), examples("row | `_digest` (hex)"))
def test_the_documents_examples_of_digests_are_right(row: str, digest: str) -> None:
    value = eval(row, document())
    assert RowDigest(KEY)(rows_of([value])).to_pylist() == [int(digest, 16)]
    assert document()["make_digest"](KEY)(value) == int(digest, 16)


@pytest.mark.parametrize(("version", "mode", "sealed"), examples("version | mode | sealed object (hex)"))
def test_the_documents_examples_of_sealed_objects_are_right(version: str, mode: str, sealed: str) -> None:
    key = KEY if mode == "1" else None
    place = ("00112233445566778899aabbccddeeff", "trading", "FUL_20260102_030405_9f3a")
    numbers = (1, 2) if version == "1" else (1, 0)
    context = ObjectContext(*place, ObjectKind.SEGMENT, *numbers, version=int(version))
    assert unseal(bytes.fromhex(sealed), key, context) == b"hello"
    bound = document()["context"](int(version), *place, "segment", *numbers)
    assert document()["unseal"](bytes.fromhex(sealed), key, bound) == b"hello"


@pytest.mark.parametrize(("key", "text"), examples("key (hex) | text"))
def test_the_documents_example_of_a_keys_text_is_right(key: str, text: str) -> None:
    assert RecoveryKey(bytes.fromhex(key)).text == text
    assert document()["read_key"](text) == bytes.fromhex(key)


def test_a_hybrid_encapsulation_opens_from_the_parts_that_the_document_names() -> None:
    seed, info, payload = bytes(range(100, 132)), b"info", bytes(range(32))
    public = public_bytes(Kem.HYBRID, seed)
    data = from_base64(encapsulate(Kem.HYBRID, public, payload, info))
    lattice_text, share, sealed = data[:1088], data[1088:1120], data[1120:]
    expanded = hashlib.shake_256(seed).digest(96)
    lattice = mlkem.MLKEM768PrivateKey.from_seed_bytes(expanded[:64]).decapsulate(lattice_text)
    curve = x25519.X25519PrivateKey.from_private_bytes(expanded[64:]).exchange(
        x25519.X25519PublicKey.from_public_bytes(share)
    )
    shared = hashlib.sha3_256(lattice + curve + share + public[1184:] + bytes.fromhex("5c2e2f2f5e5c")).digest()
    suite = b"HPKE" + (0x647A).to_bytes(2, "big") + b"\x00\x01\x00\x02"

    def extract(salt: bytes, label: bytes, data: bytes) -> bytes:
        return hmac.digest(salt, b"HPKE-v1" + suite + label + data, "sha256")

    def expand(secret: bytes, label: bytes, data: bytes, length: int) -> bytes:
        labelled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + data
        return hmac.digest(secret, labelled + b"\x01", "sha256")[:length]

    place = b"\x00" + extract(b"", b"psk_id_hash", b"") + extract(b"", b"info_hash", info)
    secret = extract(shared, b"secret", b"")
    cipher = AESGCM(expand(secret, b"key", place, 32))
    assert cipher.decrypt(expand(secret, b"base_nonce", place, 12), sealed, b"") == payload


def tables() -> st.SearchStrategy[list[dict[str, object]]]:
    moment = document()["Moment"]
    odd_text = st.binary(min_size=1).map(lambda data: bytearray(data + b"\xff"))
    scalars: list[st.SearchStrategy[object]] = [
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False),
        st.text(st.characters(exclude_categories=["Cs"])),
        st.binary() | st.integers(500, 520).map(bytes),
        st.one_of(
            st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.text("aé\x00"), st.binary(), odd_text
        ),
        st.booleans(),
        st.integers(-(2**50), 2**50).map(lambda n: moment(0x14, n)),
        st.integers(-(2**20), 2**20).map(lambda n: moment(0x15, n)),
        st.integers(0, 86_399_999_999).map(lambda n: moment(0x16, n)),
        st.integers(-(10**18), 10**18).map(lambda n: Decimal(n).scaleb(-3)),
    ]
    kinds = st.lists(st.sampled_from(scalars), min_size=1, max_size=4)
    names = ("id", "_id", "é", "when")
    return kinds.flatmap(
        lambda chosen: st.lists(
            st.fixed_dictionaries({names[n]: st.none() | kind for n, kind in enumerate(chosen)}), min_size=1, max_size=5
        )
    )


@settings(max_examples=150, deadline=None)
@given(tables())
def test_the_document_and_lastgood_agree_on_values_keys_and_digests(rows: list[dict[str, object]]) -> None:
    table, names = rows_of(rows), list(rows[0])
    escape = document()["escape"]
    found = [document()["values"](field, table.column(n)) for n, field in enumerate(table.schema)]
    values = [[row[name] for name in names] for row in rows]
    assert [list(map(repr, row)) for row in zip(*found, strict=True)] == [list(map(repr, row)) for row in values]
    keys = encode_keys(table, [escape(name) for name in names]).to_pylist()
    assert list(map(document()["encode_key"], values)) == keys
    digest = document()["make_digest"](KEY)
    assert [digest(row) for row in rows] == RowDigest(KEY)(table).to_pylist()


# The document leaves nothing out


@pytest.mark.parametrize(
    "model",
    [
        BackupMetadata, SourceState, Collection, CollectionChange, Part, PartChange, Segment, Blob, KeyRange,
        StoredObject, Link, Verification, AxisResult, Standing, RuleResult, CollectionProfile, ColumnProfile, Expiry,
        LeaseRecord, Slot, Epoch, Database, TableShape,
    ],
)  # fmt: skip
def test_the_document_names_every_field(model: type[Record]) -> None:
    named = set(re.findall(r"[a-z_0-9]+", " ".join(re.findall(r"`([^`\n]+)`", DOCUMENT.read_text()))))
    assert not model.model_fields.keys() - named


def test_the_documents_command_extracts_its_program(tmp_path: Path) -> None:
    (tmp_path / "format.md").write_text(DOCUMENT.read_text())
    command = re.search(r"^sed .*restore.py$", DOCUMENT.read_text(), re.MULTILINE)
    assert command is not None
    subprocess.run(["sh", "-c", command[0]], cwd=tmp_path, check=True)
    assert ast.dump(ast.parse((tmp_path / "restore.py").read_text())) == ast.dump(ast.parse(program()))
