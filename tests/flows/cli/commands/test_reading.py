"""ls, cat, export and query on a chain of SQLite and files: exactly what was backed up, without live state."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.reading.export import file_names
from tests.flows.cli.desk import Desk
from tests.flows.cli.test_app import COMMAND, environment

BIG = os.urandom(1_500_000)
HOSTILE = ("../up", 'a"b', "semi;drop", "line\nbreak", "\x1b[31mred", "ORDERS_2", "orders_2", "é" * 120)
"""Names of tables."""


@pytest.fixture
def gone(desk: Desk) -> Desk:
    """A desk with a full and two incrementals, whose live state is gone."""
    desk.sql("create table mixed(k text primary key, v)")
    desk.sql("insert into mixed values ('int', 1), ('real', 1.5), ('text', 'x'), ('blob', x'00ff'), ('null', null)")
    desk.sql("insert into mixed values ('broken', cast(x'ff' as text)), ('inf', 9e999), ('a*b', 2), ('[x]', 3)")
    (desk.conf / "big.bin").write_bytes(BIG)
    (desk.conf / "folder").mkdir()
    (desk.conf / "folder" / "one.txt").write_text("one")
    (desk.conf / "link").symlink_to("limits.json")
    (desk.conf / "holes").touch()
    os.truncate(desk.conf / "holes", 3_000_000)
    desk.backup("--type", "full")
    desk.sql("update orders set price = 9.25, note = null where id = 3")
    desk.sql("delete from orders where id = 100")
    desk.backup()
    desk.sql("insert into orders values (300, 'NEW', null, '')")
    (desk.conf / "limits.json").write_text('{"limit": 12}')
    os.chmod(desk.conf / "limits.json", 0o640)
    desk.backup()
    shutil.rmtree(desk.folder / "state")
    return desk


def lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def table(desk: Desk, collection: str, *words: str) -> pa.Table:
    folder = desk.folder / "tables"
    desk.done("export", "PLAN", "latest", collection, "--to", str(folder), "--format", "parquet", "--overwrite", *words)
    return pq.read_table(folder / f"{collection.replace('/', '.')}.parquet")


def test_collections_are_listed_with_rows_sizes_keys_and_columns(gone: Desk) -> None:
    found = gone.done("ls", "PLAN", "latest", "--json").json
    by_name = {one["name"]: one for one in found["collections"]}
    orders = by_name["ledger/orders"]
    assert (orders["type"], orders["rows"], orders["key"]) == ("sqlite", 200, ["id"])
    assert orders["columns"] == [["id", "INTEGER"], ["symbol", "TEXT"], ["price", "REAL"], ["note", ""]]
    assert orders["size_bytes"] > orders["size_stored"] > 0
    assert by_name["conf/tree"]["columns"][0] == ["path", "text"]
    assert "ledger/orders" in gone.done("ls", "PLAN", "latest").out


def test_keys_are_listed_first_ones_last_ones_and_chosen_ones(gone: Desk) -> None:
    ran = gone.done("ls", "PLAN", "latest", "ledger/orders")
    assert ran.out.split() == [str(n) for n in range(1, 102) if n != 100]
    assert "more keys" in ran.err
    assert gone.done("ls", "PLAN", "latest", "ledger/orders", "--limit", "2").out.split() == ["1", "2"]
    last = gone.done("ls", "PLAN", "latest", "ledger/orders", "--last", "3")
    assert (last.out.split(), last.err) == (["199", "200", "300"], "")
    everything = gone.done("ls", "PLAN", "latest", "ledger/orders", "--limit", "0")
    assert len(everything.out.split()) == 200
    assert everything.err == ""
    chosen = gone.done("ls", "PLAN", "latest", "ledger/orders", "--key", "30*", "--json").json
    assert (chosen["keys"], chosen["more"]) == ([{"key": "30"}, {"key": "300"}], False)


def test_files_are_listed_as_ls_does(gone: Desk) -> None:
    shown = gone.done("ls", "PLAN", "latest", "conf/tree").out.splitlines()
    found = {line.split("  ")[-1]: line for line in shown}
    assert found["limits.json"].startswith("-rw-r----- ")
    assert "  1500000  20" in found["big.bin"]
    assert found["folder"].startswith("d")
    assert any(name == "link -> limits.json" and line.startswith("l") for name, line in found.items())


def test_one_record_is_json_and_no_character_of_its_key_means_another_one(gone: Desk) -> None:
    assert gone.done("cat", "PLAN", "latest", "ledger/orders", "3").json == {
        "id": 3, "symbol": "S3", "price": 9.25, "note": None
    }  # fmt: skip
    assert gone.done("cat", "PLAN", "FUL", "ledger/orders", "3").json["price"] == 3.5
    for key in ("a*b", "[x]"):
        assert gone.done("cat", "PLAN", "latest", "ledger/mixed", key).json["k"] == key
    for key in ("100", "*", "3?"):
        missing = gone.run("cat", "PLAN", "latest", "ledger/orders", key)
        assert (missing.code, missing.out) == (6, "")
        assert f"no key {key!r}" in missing.err


def test_all_records_are_lines_with_exact_values(gone: Desk) -> None:
    rows = {row["k"]: row["v"] for row in lines(gone.done("cat", "PLAN", "latest", "ledger/mixed").out)}
    assert rows == {
        "int": 1, "real": 1.5, "text": "x", "blob": {"base64": "AP8="}, "null": None, "broken": {"text_base64": "/w=="},
        "inf": {"float": "Infinity"}, "a*b": 2, "[x]": 3,
    }  # fmt: skip
    assert len(lines(gone.done("cat", "PLAN", "latest", "ledger/orders").out)) == 200
    assert [row["id"] for row in lines(gone.done("cat", "PLAN", "latest", "ledger/orders", "--key", "30*").out)] == [
        30,
        300,
    ]


def test_files_are_printed_as_they_are(gone: Desk) -> None:
    def printed(*words: str) -> bytes:
        ran = subprocess.run([*COMMAND, "cat", str(gone.plan), *words], env=environment(), capture_output=True)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    assert printed("latest", "conf/tree", "big.bin") == BIG
    assert printed("latest", "conf/tree", "holes") == bytes(3_000_000)
    assert printed("FUL", "conf/tree", "./limits.json") == b'{"limit": 10}'
    assert printed("latest", "conf/tree", "--key", "limits*", "--key", "folder") == b'one{"limit": 12}'


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["cat", "latest", "ledger/order", "3"], 6, "did you mean ledger/orders?"),
        (["diff", "FUL", "latest", "--collection", "ledger/order"], 6, "did you mean ledger/orders?"),
        (["ls", "latest", "orders"], 6, "did you mean ledger/orders?"),
        (["ls", "latest", "nothing-like-it"], 6, "no collection 'nothing-like-it'"),
        (["ls", "FUL_2031", "ledger/orders"], 6, "FUL_2031"),
        (["cat", "latest", "conf/tree", "folder"], 2, "is a folder"),
        (["cat", "latest", "conf/tree", "link"], 2, "symbolic link to 'limits.json'"),
        (["cat", "latest", "conf/tree", "none.txt"], 6, "no key 'none.txt'"),
        (["cat", "latest", "ledger/orders", "3", "--key", "4"], 2, "either a KEY or --key"),
        (["ls", "latest", "--key", "4"], 2, "none is named"),
        (["export", "latest", "ledger/ordres", "--to", "out", "--format", "csv"], 6, "did you mean ledger/orders?"),
        (["export", "latest", "ledger/*", "nope/*", "--to", "out", "--format", "csv"], 6, "nope/*"),
        (["export", "latest", "*", "--to", "plan.yaml", "--format", "csv"], 2, "plan.yaml"),
        (["export", "latest", "*", "--to", "out", "--format", "xlsx"], 2, "none of parquet, csv, jsonl"),
        (["query", "latest", "select * from ledger.order"], 2, 'did you mean "ledger"."orders"?'),
        (["query", "latest", "select * from orders"], 2, 'did you mean "ledger"."orders"?'),
        (["query", "latest", "selec 1"], 2, 'syntax error at or near "selec"'),
        (["query", "latest", ""], 2, "one statement"),
        (["query", "latest", "select 1; select 2"], 2, "one statement"),
        (["query", "latest", "drop table ledger.orders"], 2, "a SELECT statement"),
        (["query", "latest", "copy (select 1) to 'out.csv'"], 2, "a SELECT statement"),
        (["query", "latest", "set memory_limit='9GB'"], 2, "a SELECT statement"),
        (["query", "latest", "attach 'x.db'"], 2, "a SELECT statement"),
        (["query", "latest", "select nope from ledger.orders"], 2, "nope"),
        (["query", "latest", "select * from read_text('plan.yaml')"], 2, "disabled by configuration"),
        (["query", "latest", "select * from glob('*')"], 2, "disabled by configuration"),
        (["query", "latest", "select * from 'plan.yaml'"], 2, "no collection 'plan.yaml'"),
        (["query", "latest", "select getenv('HOME')"], 2, "getenv"),
        (["query", "latest", "select count(*) from range(10000000000) a, range(9)", "--timeout", "0.2"], 2, "0.2 s"),
        (["query", "latest", "select 1", "--timeout", "0"], 2, "--timeout"),
        (["query", "latest", "select 1", "--csv", "--json"], 2, "either --csv or --json"),
    ],
)
def test_mistakes_are_said_in_one_line_and_nothing_is_written(
    gone: Desk, words: list[str], code: int, said: str
) -> None:
    ran = gone.run(words[0], "PLAN", *words[1:])
    assert (ran.code, ran.out) == (code, ""), ran.err
    assert said in ran.err
    assert "Traceback" not in ran.err
    assert not (gone.folder / "out").exists()


def test_parquet_has_the_types_and_all_values(gone: Desk) -> None:
    orders = table(gone, "ledger/orders")
    assert [str(kind) for kind in orders.schema.types] == ["int64", "large_string", "double", "large_string"]
    by_id = {row["id"]: row for row in orders.to_pylist()}
    assert len(by_id) == 200
    assert by_id[3] == {"id": 3, "symbol": "S3", "price": 9.25, "note": None}
    assert by_id[300] == {"id": 300, "symbol": "NEW", "price": None, "note": ""}
    mixed = {row["k"]: row["v"] for row in table(gone, "ledger/mixed").to_pylist()}
    nothing = dict.fromkeys(("int", "float", "text", "bytes"))
    assert mixed["null"] is None
    assert mixed["int"] == nothing | {"int": 1}
    assert mixed["real"] == nothing | {"float": 1.5}
    assert mixed["text"] == nothing | {"text": "x"}
    assert (mixed["blob"], mixed["broken"]) == (nothing | {"bytes": b"\x00\xff"}, nothing | {"bytes": b"\xff"})
    tree = {row["path"]: row for row in table(gone, "conf/tree", "--key", "limits.json").to_pylist()}
    assert tree["limits.json"]["size"] == 13
    assert tree["limits.json"]["mode"] == "0640"


def test_csv_tells_null_from_nothing_and_json_lines_are_those_of_cat(gone: Desk) -> None:
    words = ["PLAN", "latest", "ledger/*", "--to", "out"]
    gone.done("export", *words, "--format", "csv")
    text = (gone.folder / "out" / "ledger.orders.csv").read_bytes().decode()
    assert text.startswith("id,symbol,price,note\r\n1,S1,1.5,note 1\r\n")
    assert '300,NEW,,""\r\n' in text
    assert "3,S3,9.25,\r\n" in text
    assert len(list(csv.reader(text.splitlines()))) == 201
    made = gone.done("export", *words, "--format", "jsonl", "--json").json
    files = {one["collection"]: one for one in made["files"]}
    written = Path(files["ledger/mixed"]["path"])
    assert written.read_text() == gone.done("cat", "PLAN", "latest", "ledger/mixed").out
    assert files["ledger/mixed"]["rows"] == 9
    assert files["ledger/mixed"]["size_bytes"] == written.stat().st_size
    assert stat.S_IMODE(written.stat().st_mode) == 0o600


def test_files_that_are_there_stay_without_overwrite_and_nothing_is_written(gone: Desk) -> None:
    (gone.folder / "out").mkdir()
    there = gone.folder / "out" / "ledger.positions.csv"
    there.write_text("mine")
    words = ["export", "PLAN", "latest", "ledger/*", "--to", "out", "--format", "csv"]
    refused = gone.run(*words)
    assert refused.code == 10
    assert "ledger.positions.csv" in refused.err
    assert [path.name for path in (gone.folder / "out").iterdir()] == [there.name]
    assert there.read_text() == "mine"
    gone.done(*words, "--overwrite")
    assert there.read_text().startswith("symbol,size")


def test_an_export_of_damaged_rows_leaves_no_file(gone: Desk) -> None:
    for path in gone.objects(str(gone.done("list", "PLAN", "--json").json["backups"][0]["id"]), "*"):
        if path.stat().st_size > 1_000_000:
            data = bytearray(path.read_bytes())
            data[500_000] ^= 1
            path.chmod(0o600)
            path.write_bytes(data)
    broken = gone.run("cat", "PLAN", "latest", "conf/tree")
    assert broken.code == 8
    ran = gone.run("export", "PLAN", "latest", "conf/tree", "--to", "out", "--format", "parquet")
    assert ran.code == 8
    assert list((gone.folder / "out").iterdir()) == []


def test_queries_answer_as_table_json_and_csv(gone: Desk) -> None:
    sql = "select symbol, count(*) n, sum(price) s from ledger.orders where id < 11 group by 1 order by 1"
    found = gone.done("query", "PLAN", "latest", sql, "--json").json
    assert found["columns"] == [["symbol", "VARCHAR"], ["n", "BIGINT"], ["s", "DOUBLE"]]
    assert found["rows"][3] == {"symbol": "S3", "n": 2, "s": 9.25 + 8.5}
    assert gone.done("query", "PLAN", "latest", sql, "--csv").out.splitlines()[:2] == ["symbol,n,s", "S0,2,16.0"]
    assert gone.done("query", "PLAN", "latest", sql).out.splitlines()[0].split() == ["symbol", "n", "s"]
    joined = 'with big as (from "ledger"."orders" where id > 290) select b.id, p.size from big b, ledger.positions p'
    assert len(gone.done("query", "PLAN", "latest", joined, "--json").json["rows"]) == 2
    sizes = "select sum(size) from conf.tree where kind = 'file'"
    assert gone.done("query", "PLAN", "latest", sizes, "--csv").out.split()[-1] == str(1_500_000 + 3_000_000 + 13 + 3)
    many = gone.done("query", "PLAN", "latest", "select id from ledger.orders order by 1", "--limit", "3")
    assert many.out.split() == ["id", "1", "2", "3"]
    assert "more rows" in many.err


def test_what_a_query_does_not_see_is_said(gone: Desk) -> None:
    ran = gone.done("query", "PLAN", "latest", "select count(v), count(*) from ledger.mixed", "--json")
    assert "'v'" in ran.err
    assert "NULL in the query" in ran.json["notes"][0]


def test_values_of_every_type_of_an_answer_have_a_form(gone: Desk) -> None:
    sql = (
        "select 170141183460469231731687303715884105727::hugeint as h, 1.50::decimal(5,2) as d, "
        "date '2026-01-01' as day, "
        "timestamptz '2026-01-01 00:00:00+02' as t, [1, 2] as l, {'a': 'x'} as s, 'nan'::double as n, "
        "'\\xFF'::blob as b, interval 1 day as i, null as z, true as y, 1 as y"
    )
    row = gone.done("query", "PLAN", "latest", sql, "--json").json["rows"][0]
    assert row | {"i": None} == {
        "h": 2**127 - 1, "d": "1.50", "day": "2026-01-01", "t": "2025-12-31T22:00:00.000000Z", "l": [1, 2],
        "s": {"a": "x"}, "n": "NaN", "b": "/w==", "i": None, "z": None, "y": True, "y_2": 1,
    }  # fmt: skip
    assert gone.done("query", "PLAN", "latest", sql, "--csv").code == 0
    assert gone.done("query", "PLAN", "latest", sql).code == 0


def test_hostile_names_stay_inside_of_the_folder_and_apart(desk: Desk) -> None:
    names = [name for name in HOSTILE if name != "orders_2"]  # SQLite does not tell those two apart
    for name in names:
        quoted = name.replace('"', '""')
        desk.sql(f'create table "{quoted}"(id integer primary key, "odd ""name" text)')
        desk.sql(f"insert into \"{quoted}\" values (1, '{quoted.replace(chr(39), '')}')")
    desk.backup()
    made = desk.done("export", "PLAN", "latest", "ledger/*", "--to", "out", "--format", "jsonl", "--json").json["files"]
    folder = desk.folder / "out"
    paths = {one["collection"]: Path(one["path"]) for one in made}
    assert {path.parent.resolve() for path in paths.values()} == {folder.resolve()}
    assert len(list(folder.iterdir())) == len(made) == len(names) + 2
    assert all("\x1b" not in path.name and "\n" not in path.name for path in paths.values())
    for name in names:
        assert json.loads(paths[f"ledger/{name}"].read_text())["id"] == 1
        sql = f'select id, "odd ""name" from "ledger"."{name.replace(chr(34), chr(34) * 2)}"'
        assert desk.done("query", "PLAN", "latest", sql, "--json").json["rows"][0]["id"] == 1
        assert desk.done("cat", "PLAN", "latest", f"ledger/{name}", "1").json["id"] == 1
    shown = desk.done("ls", "PLAN", "latest")
    assert "\x1b" not in shown.out


def test_names_of_files_are_apart_whatever_collections_are_called() -> None:
    collections = [f"s/{name}" for name in HOSTILE] + ["s/a.b", "s.a/b", "s/" + "x" * 300, "s/" + "x" * 301, "s/\udcff"]
    found = file_names(collections)
    assert len({name.casefold() for name in found}) == len(collections)
    assert all(len(name.encode()) <= 200 and "/" not in name and "\0" not in name for name in found)
    assert found[0] == "s...%2Fup"


def test_a_writer_sees_what_there_is_and_reads_none_of_it(gone: Desk) -> None:
    key = str(gone.folder / "writer.key")
    gone.done("key", "add", "PLAN", "--role", "writer", "--label", "w", "--key-file", key, "--generate")
    gone.plan.write_text(gone.plan.read_text().replace("./own.key", "./writer.key"))
    assert gone.done("ls", "PLAN", "latest", "--json").json["collections"]
    for words in (
        ["ls", "PLAN", "latest", "ledger/orders"],
        ["cat", "PLAN", "latest", "ledger/orders", "3"],
        ["export", "PLAN", "latest", "*", "--to", "out", "--format", "csv"],
        ["query", "PLAN", "latest", "select * from ledger.orders"],
    ):
        assert gone.run(*words).code == 7
    assert not (gone.folder / "out").exists()


def test_a_key_with_a_line_break_is_one_line(desk: Desk) -> None:
    desk.sql("insert into positions values ('two' || char(10) || 'lines', 1)")
    (desk.conf / "new\nline").write_text("x")
    desk.backup()
    assert "two\\nlines" in desk.done("ls", "PLAN", "latest", "ledger/positions").out.splitlines()
    assert any(
        line.endswith("  new\\nline") for line in desk.done("ls", "PLAN", "latest", "conf/tree").out.splitlines()
    )


@pytest.mark.parametrize(
    ("command", "place"),
    [
        *(("export", place) for place in ("backups", "backups/tables", "state/conf", "state/conf/new", "link/new")),
        *((command, place) for command in ("proof", "verify") for place in ("backups/backups", "link")),
    ],
)
def test_nothing_is_written_into_the_repository_or_into_live_state(desk: Desk, command: str, place: str) -> None:
    desk.backup()
    (desk.folder / "link").symlink_to(desk.conf)
    before = sorted(desk.folder.rglob("*"))
    words = {
        "export": ["export", "PLAN", "latest", "ledger/orders", "--format", "csv", "--to", f"./{place}"],
        "proof": ["proof", "PLAN", "--out", f"./{place}/page.html"],
        "verify": ["verify", "PLAN", "--report", f"./{place}/page.html"],
    }[command]
    ran = desk.run(*words)
    assert ran.code == 2
    assert re.search("is in the (repository of plan trading|live state of source conf)", ran.err)
    assert sorted(desk.folder.rglob("*")) == before


def test_an_export_over_a_database_of_the_plan_is_refused(desk: Desk) -> None:
    desk.backup()
    for place in (desk.database, f"{desk.database}-wal"):
        ran = desk.run("export", "PLAN", "latest", "ledger/orders", "--format", "csv", "--to", str(place))
        assert (ran.code, "in the live state of source ledger" in ran.err) == (2, True)
