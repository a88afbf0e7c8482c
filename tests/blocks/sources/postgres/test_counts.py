"""A restore that ends well has all rows there: they are counted, and what would keep some back is off."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from blocks.errors import RestoreRefused
from blocks.rows.selection import Selection
from blocks.sources.postgres.write.rows import RowWriter
from blocks.sources.target import RestoreMode
from tests.blocks.sources.postgres.hand import restore, source_of, state_of
from tests.postgres_server import PostgresServer

TABLES = (
    "CREATE TABLE log (what text)",
    "CREATE TABLE kept (id int PRIMARY KEY, v text); INSERT INTO kept SELECT g, 'v' || g FROM generate_series(1, 20) g",
    "CREATE TABLE loose (v text); INSERT INTO loose VALUES ('a'), ('a'), ('b')",
    "CREATE TABLE blank (); INSERT INTO blank DEFAULT VALUES",
    "CREATE TABLE split (id int PRIMARY KEY, v text) PARTITION BY RANGE (id)",
    "CREATE TABLE split_1 PARTITION OF split FOR VALUES FROM (0) TO (10)",
    "CREATE TABLE split_2 PARTITION OF split DEFAULT; INSERT INTO split VALUES (1, 'x'), (20, 'y')",
)
HINDRANCES = {
    "insert rule": "CREATE RULE quiet AS ON INSERT TO {t} DO INSTEAD NOTHING",
    "delete rule": "CREATE RULE quiet AS ON DELETE TO {t} DO INSTEAD NOTHING",
    "rule beside": "CREATE RULE noisy AS ON INSERT TO {t} DO ALSO INSERT INTO log VALUES ('rule')",
    "always rule": "CREATE RULE quiet AS ON INSERT TO {t} DO INSTEAD NOTHING; ALTER TABLE {t} ENABLE ALWAYS RULE quiet",
    "trigger": "CREATE TRIGGER none BEFORE INSERT OR DELETE ON {t} FOR EACH ROW EXECUTE FUNCTION nothing()",
    "always": "CREATE TRIGGER none BEFORE INSERT OR DELETE ON {t} FOR EACH ROW EXECUTE FUNCTION nothing();"
    " ALTER TABLE {t} ENABLE ALWAYS TRIGGER none",
}
NOTHING = "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"


@pytest.mark.parametrize("hindrance", HINDRANCES)
@pytest.mark.parametrize("mode", [RestoreMode.EXACT, RestoreMode.MERGE])
@pytest.mark.parametrize("keys", [(), ("*",)], ids=["all", "keys"])
@pytest.mark.share(4)
def test_rules_and_triggers_keep_no_row_back(
    server: PostgresServer, hindrance: str, mode: RestoreMode, keys: tuple[str, ...]
) -> None:
    server.create("counted", *TABLES, NOTHING)
    server.run(
        "counted", *(HINDRANCES[hindrance].format(t=t) for t in ("kept", "loose", "blank", "split_1", "split_2"))
    )
    source = source_of(server, "counted")
    before, text = state_of(source), server.dump("counted")
    server.run("counted", "SET session_replication_role = replica; TRUNCATE kept, loose, blank, split")
    names = [name for name in before.specs if name != "public.log"]
    selection = Selection(tuple(names), keys) if keys else Selection()
    restore(source, before, names if keys else None, mode=mode, selection=selection)
    assert server.dump("counted") == text


def test_rows_that_go_missing_on_their_way_stop_the_restore(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is that takes rows away: here somebody who may do so inside of the transaction."""
    server.create("counted", *TABLES)
    source = source_of(server, "counted")
    before, text = state_of(source), server.dump("counted")
    finish = RowWriter.finish

    def lossy(self: RowWriter) -> Any:
        entries = finish(self)
        self._session.execute("DELETE FROM public.kept WHERE id = 7")
        return entries

    monkeypatch.setattr(RowWriter, "finish", lossy)
    with pytest.raises(RestoreRefused, match=r"20 rows were given to .*kept.*, and 19"):
        restore(source, before)
    assert server.dump("counted") == text


@pytest.mark.parametrize("keyless", [False, True])
def test_a_merge_counts_what_it_inserts(server: PostgresServer, monkeypatch: pytest.MonkeyPatch, keyless: bool) -> None:
    server.create("counted", *TABLES)
    table = "loose" if keyless else "kept"
    source = source_of(server, "counted")
    before = state_of(source)
    server.run("counted", "DELETE FROM loose; DELETE FROM kept", HINDRANCES["insert rule"].format(t=table))
    text = server.dump("counted")
    # as if the rule had been overlooked
    monkeypatch.setattr("blocks.sources.postgres.schema.live._RULES", "SELECT '', '', '' WHERE %(of)s IS NULL")
    with pytest.raises(RestoreRefused, match=rf"rows were given to .*{table}.*, and 0 arrived"):
        restore(source, before, [f"public.{table}"], mode=RestoreMode.MERGE)
    assert server.dump("counted") == text


def test_a_merge_can_remove_single_records(server: PostgresServer) -> None:
    server.create("counted", *TABLES, "SELECT lo_from_bytea(90001, 'stays')")
    source = source_of(server, "counted")
    before, text = state_of(source), server.dump("counted")
    server.run("counted", "INSERT INTO kept VALUES (99, 'new'); UPDATE kept SET v = 'changed' WHERE id = 1")
    server.run("counted", "INSERT INTO loose VALUES ('a'), ('new'); INSERT INTO blank DEFAULT VALUES")
    server.run("counted", "SELECT lo_from_bytea(90002, 'new'); SELECT lo_put(90001, 5000, 'longer')")
    after = state_of(source)
    removed: dict[str, Any] = {}
    for name, rows in after.rows.items():
        key = list(before.specs[name].key)
        known = before.rows[name].select(key).to_pylist()
        gone = [row for row in rows.select(key).to_pylist() if row not in known]
        if gone:
            removed[name] = pa.Table.from_pylist(gone, schema=rows.select(key).schema)
    assert set(removed) == {"public.kept", "public.loose", "public.blank", "large_objects"}
    restore(source, before, mode=RestoreMode.MERGE, removed=removed)
    assert server.dump("counted") == text
