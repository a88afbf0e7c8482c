"""Makes the golden repositories of the format that is written: `python -m tests.golden.make_golden` from the root.

Not run by tests: an archive is what a lastgood of its version once wrote, and every later one has to restore it. It is
made anew only while that version is not yet released.
"""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from blocks.crypto.keyring import Credential, Role, write_key_file
from blocks.crypto.repository_keys import add_slot
from blocks.plan.plan import BackupPlan
from blocks.records import FORMAT_VERSION, Expiry
from flows.verify import make_verification
from tests.format_support import MIB, back_up, make_plan, run_sql, see_database, see_tree, write
from tests.test_golden import ORACLE, PASSPHRASE, READER_KEY, WRITER_KEY, archive_of, encryption_of

Oracle = dict[str, dict[str, object]]

HISTORIES = {
    "hybrid": ["full", "incremental", "snapshot", "differential", "incremental"],
    "x25519": ["emergency"],
    "plain": ["full", "incremental"],
}

SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA user_version = 7;
CREATE TABLE orders (id INTEGER PRIMARY KEY, symbol TEXT, price, "_key" TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 120)
INSERT INTO orders SELECT i, 'sym' || i % 7, i * 1.5, NULL FROM n;
CREATE TABLE mixed (v, w TEXT);
INSERT INTO mixed VALUES (1, 'a'), (1.0, 'é'), ('1', ''), (x'31', 'd'), (NULL, NULL), (9e999, CAST(x'ff00fe' AS TEXT));
INSERT INTO mixed VALUES (9223372036854775807, 'great'), (-9223372036854775808, 'small'), (0.1, zeroblob(0));
CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT, v);
INSERT INTO counted (v) VALUES ('a'), ('b'), ('c');
DELETE FROM counted WHERE id = 3;
CREATE TABLE composite (a, b, v, PRIMARY KEY (a, b DESC)) WITHOUT ROWID;
INSERT INTO composite VALUES (1, 1, 'i'), (1.5, x'00', 'f'), ('t', 'u', 't'), (CAST(x'ff' AS TEXT), 1, 'bad');
CREATE TABLE nullkey (a TEXT, b INTEGER, c, PRIMARY KEY (a, b));
INSERT INTO nullkey VALUES (NULL, 1, 'x'), (NULL, 1, 'y'), ('k', NULL, 'z');
CREATE TABLE "odd ""named"" one" ("group" TEXT PRIMARY KEY, made AS ("group" || '!'), "rowid" TEXT);
INSERT INTO "odd ""named"" one" VALUES ('zeta', 'not the rowid'), ('alpha', NULL);
CREATE TABLE unused (a, b);
CREATE INDEX by_symbol ON orders (symbol) WHERE symbol IS NOT NULL;
CREATE VIEW dear AS SELECT * FROM orders WHERE price > 100;
CREATE TRIGGER on_order AFTER INSERT ON orders WHEN new.id < 0 BEGIN DELETE FROM mixed; END;
"""

CHANGES = (
    """
    DELETE FROM orders WHERE id % 10 = 3; UPDATE orders SET price = 'a text' WHERE id % 90 = 4;
    INSERT INTO orders VALUES (5000, CAST(x'ff00' AS TEXT), x'00ff', 'k'); DELETE FROM composite WHERE a = 1;
    INSERT INTO counted (v) VALUES (1.5); DELETE FROM nullkey WHERE b = 1;
    """,
    "UPDATE orders SET symbol = NULL WHERE id = 5; INSERT INTO unused VALUES (1, NULL); DELETE FROM mixed WHERE v = 1;",
    "DELETE FROM orders WHERE id IN (7, 5000); INSERT INTO nullkey VALUES ('k', 1, 'w'); DELETE FROM unused;",
    "INSERT INTO orders VALUES (0, 'last', 0.0, NULL);",
)


def begin(folder: Path) -> None:
    run_sql(folder / "ledger.db", SCHEMA)
    root = os.fsencode(folder / "models")
    os.mkdir(root)
    os.mkdir(root + b"/deep", 0o750)
    os.mkdir(root + b"/empty")
    write(root + b"/deep/large", (0, b"not random " * (2 * MIB // 11) + b"the end"), mode=0o600)
    write(root + b"/sparse", (3 * MIB + 3, b"far out"), size_bytes=5 * MIB)
    write(root + b"/not \xff UTF-8\n", (0, b"named in bytes"))
    write(root + b"/empty file")
    write(root + b"/goes", (0, b"soon"))
    os.symlink(b"deep/\xfe nowhere", root + b"/link")
    os.link(root + b"/deep/large", root + b"/also large")
    os.link(root + b"/deep/large", root + b"/large too")


def change(folder: Path, step: int) -> None:
    run_sql(folder / "ledger.db", CHANGES[step - 1])
    root = os.fsencode(folder / "models")
    write(root + b"/deep/step", (0, f"step {step}".encode()))
    if step == 1:
        os.unlink(root + b"/goes")
        write(root + b"/deep/large", (MIB, b"changed in the middle"))
    elif step == 2:
        os.truncate(root + b"/deep/large", MIB - 1)
        os.rmdir(root + b"/empty")
        write(root + b"/empty", (0, b"a folder became a file"))
    elif step == 3:
        os.unlink(root + b"/link")
        os.symlink(b"sparse", root + b"/link")
        write(root + b"/goes", (0, b"is back"))
        os.unlink(root + b"/also large")
        os.link(root + b"/deep/large", root + b"/newly large")


def make_history(folder: Path, plan: BackupPlan, kinds: list[str]) -> Oracle:
    wanted: Oracle = {}
    for step, kind in enumerate(kinds):
        begin(folder) if step == 0 else change(folder, step)
        made = back_up(plan, kind)
        state = {"database": see_database(folder / "ledger.db"), "tree": see_tree(folder / "models")}
        wanted[made.backup_id] = {"sequence": made.sequence, **state}
    return wanted


def make(folder: Path, name: str, kinds: list[str]) -> Oracle:
    folder.mkdir()
    plan = make_plan(folder, encryption_of(name), part_size_bytes=2048)
    plan.repository.initialize(plan.encryption)
    wanted = make_history(folder, plan, kinds)
    if name == "hybrid":
        add_keys(folder, plan)
        leave_records(plan, wanted)
    return wanted


def add_keys(folder: Path, plan: BackupPlan) -> None:
    """Add slots for a reader's and a writer's key file."""
    for role, text in ((Role.READER, READER_KEY), (Role.WRITER, WRITER_KEY)):
        write_key_file(folder / role, text)
        key = Credential(key_file=folder / role)
        keys = plan.repository.unlock(plan.encryption).keys
        stored = plan.repository.read_config().encryption
        plan.repository.save_encryption(add_slot(stored, keys, key, role, f"golden {role.value}"))


def leave_records(plan: BackupPlan, wanted: Oracle) -> None:
    """Verify the newest backup, and remove the snapshot as retention would."""
    make_verification(plan)
    repository = plan.repository.unlock(plan.encryption)
    gone = next(one for one in repository.backups(plan.name) if one.backup_type == "snapshot")
    link, head = repository.link(gone), repository.link(repository.find(plan.name))
    reasons = {gone.backup_id: "an example"}
    now = datetime.now(UTC)
    repository.record_expiry(Expiry(plan=plan.name, expired_at=now, removed=(link,), reasons=reasons, head=head))
    repository.remove(plan.name, [gone.backup_id])
    del wanted[gone.backup_id]


def main() -> None:
    os.environ["LASTGOOD_GOLDEN_PASSPHRASE"] = PASSPHRASE
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_STATE_HOME"] = str(folder / "state-home")
        oracle = {name: make(folder / name, name, kinds) for name, kinds in HISTORIES.items()}
        (folder / ORACLE).write_text(json.dumps(oracle, sort_keys=True))
        path = archive_of(FORMAT_VERSION)
        with tarfile.open(path, "w:gz") as archive:
            archive.add(folder / ORACLE, ORACLE, filter=_anonymous)
            for repository in oracle:
                shutil.rmtree(folder / repository / "backups" / "locks")
                archive.add(folder / repository / "backups", f"{repository}/backups", filter=_anonymous)
    print(f"{path.name}: {path.stat().st_size} bytes")


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


if __name__ == "__main__":
    main()
