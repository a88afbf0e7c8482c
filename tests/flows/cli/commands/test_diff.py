"""diff: fields of rows, keys, collections, parts of another partition."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.plan.plan import read_plan
from blocks.rows.selection import Selection
from flows.cli.commands.diff import pair_text, value_json
from flows.pipeline.chain import Chain
from flows.reading.diff import ABSENT, CollectionDiff, compare_backups
from flows.reading.diff_rows import ChangeKind
from tests.flows.cli.desk import Desk


def changes(desk: Desk, a: str, b: str, *words: str) -> dict[str, Any]:
    found = desk.done("diff", "PLAN", a, b, "--json", *words).json
    assert (found["a"], found["b"]) == (a, b)
    return {one["collection"]: one for one in found["collections"]}


def test_fields_of_changed_rows_are_shown_old_and_new(desk: Desk) -> None:
    a = desk.backup()
    desk.sql("update orders set price = 9.25, note = null where id = 3")
    desk.sql("delete from orders where id = 100")
    desk.sql("insert into orders values (300, 'NEW', 1, x'00ff')")
    b = desk.backup()
    orders = changes(desk, a, b)["ledger/orders"]
    assert (orders["added"], orders["removed"], orders["changed"]) == (1, 1, 1)
    by_kind = {one["change"]: one for one in orders["changes"]}
    assert by_kind["changed"]["key"] == {"id": 3}
    assert by_kind["changed"]["fields"] == {
        "price": {"old": 3.5, "new": 9.25},
        "note": {"old": "note 3", "new": None},
    }
    assert by_kind["removed"]["fields"]["symbol"] == {"old": "S0"}
    assert by_kind["added"]["fields"]["note"] == {"new": {"base64": "AP8="}}
    text = desk.done("diff", "PLAN", a, b).out
    assert "note: 'note 3' → NULL" in text
    assert "+ ledger/orders 300" in text
    assert "− ledger/orders 100" in text


def test_nothing_changed_is_said(desk: Desk) -> None:
    a = desk.backup()
    ran = desk.done("diff", "PLAN", a, desk.backup("--type", "snapshot"))
    assert "nothing changed" in ran.err


def test_the_way_back_is_the_reverse(desk: Desk) -> None:
    a = desk.backup()
    desk.sql("delete from orders where id = 100")
    b = desk.backup()
    orders = changes(desk, b, a)["ledger/orders"]
    assert (orders["added"], orders["removed"], orders["changed"]) == (1, 0, 0)


def test_rows_that_moved_to_other_parts_are_not_changes(desk: Desk) -> None:
    a = desk.backup("--type", "full")
    desk.sql("delete from orders where id between 20 and 90")
    desk.sql("update orders set price = 0 where id in (10, 150)")
    desk.sql("insert into orders select id + 1000, symbol, price, note from orders where id > 190")
    b = desk.backup("--type", "full")
    plan = read_plan(desk.plan)
    repository = plan.repository.unlock(plan.encryption)
    bounds = [[part.bounds for part in repository.find("trading", one).collections[0].parts] for one in (a, b)]
    assert bounds[0] != bounds[1]
    orders = changes(desk, a, b)["ledger/orders"]
    assert (orders["added"], orders["removed"], orders["changed"]) == (10, 71, 2)


def test_keys_and_collections_narrow_it(desk: Desk) -> None:
    a = desk.backup()
    desk.sql("update orders set price = 0 where id in (3, 30, 31)")
    desk.sql("update positions set size = 0")
    b = desk.backup()
    found = changes(desk, a, b, "--collection", "ledger/o*", "--key", "3?")
    assert list(found) == ["ledger/orders"]
    assert found["ledger/orders"]["changed"] == 2
    assert desk.run("diff", "PLAN", a, b, "--collection", "nothing/*").code == 6


def test_a_limit_cuts_what_is_shown_and_not_what_is_counted(desk: Desk) -> None:
    a = desk.backup()
    desk.sql("update orders set price = 0")
    b = desk.backup()
    orders = changes(desk, a, b, "--limit", "3")["ledger/orders"]
    assert orders["changed"] == 200
    assert len(orders["changes"]) == 3
    assert len(changes(desk, a, b, "--limit", "0")["ledger/orders"]["changes"]) == 200
    assert "197 more" in desk.done("diff", "PLAN", a, b, "--limit", "3").out


def test_a_collection_that_only_one_backup_has_is_named(desk: Desk) -> None:
    a = desk.backup()
    desk.sql("create table fills(id integer primary key, _qty int)")
    desk.sql("insert into fills values (1, 2)")
    b = desk.backup()
    fills = changes(desk, a, b)["ledger/fills"]
    assert (fills["only_in"], fills["added"]) == (b, 1)
    assert fills["changes"][0]["fields"] == {"id": {"new": 1}, "_qty": {"new": 2}}
    assert changes(desk, b, a)["ledger/fills"]["removed"] == 1


def test_a_new_column_is_a_change_of_every_row(desk: Desk) -> None:
    a = desk.backup()
    desk.sql("alter table positions add column venue text")
    b = desk.backup()
    positions = changes(desk, a, b)["ledger/positions"]
    assert positions["changed"] == 2
    assert positions["changes"][0]["fields"] == {"venue": {"new": None}}


def test_files_differ_by_what_was_written_not_by_how_they_were_looked_at(desk: Desk) -> None:
    a = desk.backup()
    path = desk.conf / "limits.json"
    times = path.stat()
    replacement = desk.folder / "new"
    replacement.write_bytes(path.read_bytes())
    desk.sql("update positions set size = 0")
    os.utime(replacement, ns=(times.st_atime_ns, times.st_mtime_ns))
    folder_times = desk.conf.stat()
    replacement.replace(path)  # another inode, the same file
    os.utime(desk.conf, ns=(folder_times.st_atime_ns, folder_times.st_mtime_ns))
    b = desk.backup()
    assert changes(desk, a, b)["conf/tree"]["changes"] == []
    path.write_text('{"limit": 11}')
    text = desk.done("diff", "PLAN", b, desk.backup()).out
    assert "limits.json" in text
    assert '{"limit": 10}' in text
    assert '{"limit": 11}' in text


def test_a_file_is_one_change_however_many_rows_it_has(desk: Desk) -> None:
    for name, size in (("grows", 3_000_000), ("goes", 2_500_000), ("stays", 10), ("touched", 10), ("mode", 10)):
        (desk.conf / name).write_bytes(os.urandom(size))
    (desk.conf / "link").symlink_to("stays")
    a = desk.backup()
    with (desk.conf / "grows").open("ab") as file:
        file.write(bytes(2_000_000))
    (desk.conf / "goes").unlink()
    (desk.conf / "new\nline").write_bytes(os.urandom(5_000_000))
    (desk.conf / "empty").touch()
    os.utime(desk.conf / "touched", ns=(0, 1_700_000_000_123_456_789))
    os.chmod(desk.conf / "mode", 0o600)
    (desk.conf / "link").unlink()
    (desk.conf / "link").symlink_to("mode")
    b = desk.backup()
    tree = changes(desk, a, b)["conf/tree"]
    files = tree["files"]
    assert {name: files[name] for name in ("added", "removed", "changed")} == {"added": 2, "removed": 1, "changed": 5}
    by_path = {one["path"]: one for one in files["changes"]}
    assert by_path.keys() == {"", "grows", "goes", "new\nline", "empty", "touched", "mode", "link"}
    grown = by_path["grows"]
    assert (grown["change"], grown["old"]["size"], grown["new"]["size"]) == ("changed", 3_000_000, 5_000_000)
    assert grown["content"]
    assert (by_path["goes"]["change"], by_path["goes"]["new"]) == ("removed", None)
    assert (by_path["empty"]["old"], by_path["empty"]["new"]["size"]) == (None, 0)
    assert by_path["touched"]["new"]["modified"] == "2023-11-14T22:13:20.123456789Z"
    assert not by_path["touched"]["content"]
    assert [by_path["mode"][side]["mode"] for side in ("old", "new")] == ["0644", "0600"]
    assert by_path["link"]["new"]["target"] == "mode"
    assert sum(one["change"] == "added" for one in tree["changes"]) > 2, "rows are as they were"
    text = desk.done("diff", "PLAN", a, b, "--collection", "conf/*").out
    assert "~ conf/tree grows  size 3,000,000 B → 5,000,000 B, modified " in text
    assert "− conf/tree goes  2,500,000 B  20" in text
    assert "+ conf/tree new\\nline  5,000,000 B  20" in text
    assert "~ conf/tree mode  mode 0644 → 0600\n" in text
    assert "~ conf/tree link  modified " in text
    assert text.rstrip().endswith("2        1        5")


def test_files_are_all_counted_whatever_is_shown_of_them(desk: Desk) -> None:
    for number in range(30):
        (desk.conf / f"old{number}").write_text("x")
    a = desk.backup()
    for number in range(30):
        (desk.conf / f"old{number}").unlink()
        (desk.conf / f"new{number}").write_bytes(os.urandom(100))
    b = desk.backup()
    for limit, shown in (("3", 3), ("20", 20), ("0", 61)):
        files = changes(desk, a, b, "--limit", limit)["conf/tree"]["files"]
        assert (files["added"], files["removed"], files["changed"], len(files["changes"])) == (30, 30, 1, shown)
    assert "58 more" in desk.done("diff", "PLAN", a, b, "--limit", "3").out
    one = changes(desk, a, b, "--key", "new7")["conf/tree"]["files"]
    assert (one["added"], one["removed"], [file["path"] for file in one["changes"]]) == (1, 0, ["new7"])


def test_content_that_changed_behind_the_same_size_and_time_is_a_change_of_the_file(desk: Desk) -> None:
    path = desk.conf / "limits.json"
    path.write_text("before")
    os.utime(path, ns=(1, 1))
    a = desk.backup()
    path.write_text("after!")
    os.utime(path, ns=(1, 1))
    b = desk.backup("--type", "full")
    (file,) = [one for one in changes(desk, a, b)["conf/tree"]["files"]["changes"] if one["path"] == "limits.json"]
    assert (file["change"], file["content"], file["old"], file["new"]) == ("changed", True, None, None)
    text = desk.done("diff", "PLAN", a, b).out
    assert "~ conf/tree limits.json  content" in text
    assert "data: b'before' → b'after!'" in text


def run_compare(desk: Desk, a: str, b: str, limit: int | None) -> dict[str, CollectionDiff]:
    plan = read_plan(desk.plan)
    repository = plan.repository.unlock(plan.encryption)
    chains = [Chain(repository, repository.find("trading", one)) for one in (a, b)]
    return {one.collection: one for one in compare_backups(*chains, Selection(), limit)}


def test_counts_are_the_same_with_and_without_rows(desk: Desk) -> None:
    a = desk.backup()
    desk.sql("update orders set price = 0 where id % 3 = 0")
    desk.sql("delete from orders where id % 5 = 0")
    b = desk.backup("--type", "full")
    whole, counted = run_compare(desk, a, b, None), run_compare(desk, a, b, 0)
    assert whole["ledger/orders"].counts == counted["ledger/orders"].counts
    assert counted["ledger/orders"].counts[ChangeKind.CHANGED] == 66 - 13
    assert counted["ledger/orders"].changes == []


@given(st.one_of(st.text(max_size=200), st.binary(max_size=200), st.floats(), st.integers(), st.none(), st.booleans()))
def test_every_value_has_a_json_form(value: object) -> None:
    json.loads(json.dumps(value_json(value), allow_nan=False))


@given(st.text(max_size=200), st.text(max_size=200))
def test_two_different_texts_never_look_the_same(one: str, two: str) -> None:
    shown = pair_text(one, two)
    assert (shown[0] == shown[1]) == (one == two)
    assert all(len(text) <= 62 for text in shown)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (ABSENT, "—"),
        (None, "NULL"),
        (b"", "b''"),
        (b"text", "b'text'"),
        (b"\xff\x00", "2 B sha256 ea5dbf9596d1"),
        ("it's", '"it\'s"'),
        (1.5, "1.5"),
    ],
)
def test_values_read_well(value: object, shown: str) -> None:
    assert pair_text(value, value)[0] == shown
