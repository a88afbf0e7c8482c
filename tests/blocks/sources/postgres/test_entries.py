"""The text of pg_dump falls into its entries, whatever users wrote into names, bodies and comments."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.sources.postgres.schema.entries import split
from blocks.sources.postgres.write.finish import units

PREAMBLE = "SET statement_timeout = 0;\nSET row_security = off;\n\nSET default_tablespace = '';\n\n"
HEADER = "--\n-- Name: {}; Type: {}; Schema: {}; Owner: {}\n--\n\n"
FAKE = HEADER.format("evil", "TABLE", "public", "me") + "DROP TABLE x;\n"

nasty = st.lists(
    st.sampled_from(
        [FAKE, "'", "''", '"', "$$", "$a$", "--", "/*", "*/", ";", "\n", "\\", "SET default_tablespace = '';", "é", " "]
    )
).map("".join)


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def named(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


@given(st.lists(st.tuples(st.sampled_from(["comment", "body", "escape", "name"]), nasty), min_size=1, max_size=6))
def test_what_users_wrote_never_begins_an_entry(objects: list[tuple[str, str]]) -> None:
    text, bodies = PREAMBLE, []
    for n, (kind, written) in enumerate(objects):
        tag = "$_$" if "$_$" not in written else "$__$"
        doubled = written.replace("\\", "\\\\")
        body = {
            "comment": f"COMMENT ON TABLE s.t{n} IS {quoted(written)};\n\n\n",
            "body": f"CREATE FUNCTION s.t{n}() RETURNS text AS {tag}{written}{tag};\n\n\n",
            "escape": f"CREATE RULE r AS ON INSERT TO s.t{n} DO SELECT E{quoted(doubled)};\n\n\n",
            "name": f"ALTER TABLE s.t{n} RENAME TO {named(written + 'x')};\n\n\n",
        }[kind]
        shown = written.replace("\n", " ")
        text += HEADER.format(f"{shown}; Type: VIEW; Schema: x; Owner: y", "COMMENT", "s", "me") + body
        bodies.append(body)
    preamble, entries = split(text)
    assert preamble == PREAMBLE
    assert [entry.text for entry in entries] == [f"\n{body}" for body in bodies]
    assert {entry.type for entry in entries} == {"COMMENT"}
    assert [entry.subject for entry in entries] == [("s", f"t{n}") for n in range(len(objects))]
    assert {entry.settings for entry in entries} == {"SET default_tablespace = '';"}


def test_settings_hold_for_the_entries_that_follow() -> None:
    text = PREAMBLE + "".join(
        HEADER.format(name, "TABLE", "s", "me") + body
        for name, body in [
            ("a", "CREATE TABLE s.a ();\n\n\nSET default_tablespace = \"odd \"\"space\";\n\n"),
            ("b", "CREATE TABLE s.b ();\n\n\nSET default_table_access_method = other;\n\n"),
            ("c", "CREATE TABLE s.c ();\n\nSET default_tablespace = '';\nSET default_table_access_method = heap;\n\n"),
            ("d", "COMMENT ON TABLE s.d IS '\nSET default_tablespace = evil;';\n\n\n"),
            ("e", "CREATE TABLE s.e ();\n"),
        ]
    )  # fmt: skip
    space, method = 'SET default_tablespace = "odd ""space";', "SET default_table_access_method = {};"
    none = "SET default_tablespace = '';"
    assert [entry.settings.split("\n") for entry in split(text)[1]] == [
        [none],
        [space],
        [space, method.format("other")],
        [none, method.format("heap")],
        [none, method.format("heap")],
    ]


@pytest.mark.parametrize(
    ("statement", "names"),
    [
        ("ALTER TABLE ONLY s.\"T \"\"q\"\".x\" ADD CONSTRAINT c UNIQUE (a)", [("s", 'T "q".x')]),
        ("ALTER TABLE ONLY s.t ALTER COLUMN id SET DEFAULT nextval('\"O''s\".\"a.b\"'::regclass)",
         [("s", "t"), ("O's", "a.b")]),
        ("CREATE INDEX i ON ONLY s.t USING gin (a p.ops, (lower(b.c)))", [("s", "t"), ("p", "ops"), ("b", "c")]),
        ("COMMENT ON COLUMN s.t.c IS 's.x y'", [("s", "t", "c")]),
        ("CREATE POLICY p ON s.t USING ((a > 1.5) AND (b = 'x.y'))", [("s", "t"), ("x", "y")]),
    ],
)  # fmt: skip
def test_qualified_names_are_found_in_order(statement: str, names: list[tuple[str, ...]]) -> None:
    (entry,) = split(HEADER.format("n", "X", "s", "me") + statement + ";\n")[1]
    assert list(entry.names) == names


def test_plain_names_follow_their_words() -> None:
    (entry,) = split(
        HEADER.format("n", "X", "s", "me") + 'ALTER TABLE ONLY s."ADD CONSTRAINT x"\n ADD CONSTRAINT "C c" UNIQUE (a);'
    )[1]
    assert (entry.plain("ADD", "CONSTRAINT"), entry.plain("INDEX")) == ("C c", None)


def test_what_follows_rows_is_grouped_by_the_locks_it_takes() -> None:
    parts = [
        ("CONSTRAINT", "ALTER TABLE ONLY s.a\n    ADD CONSTRAINT pk PRIMARY KEY (id)"),
        ("COMMENT", "COMMENT ON CONSTRAINT pk ON s.a IS 'x'"),
        ("INDEX", "CREATE INDEX i ON s.a USING btree (x)"),
        ("INDEX", "CREATE INDEX j ON s.a USING btree (y)"),
        ("FK CONSTRAINT", "ALTER TABLE ONLY s.b ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES s.a(id)"),
        ("TRIGGER", "CREATE TRIGGER t BEFORE INSERT ON s.a EXECUTE FUNCTION s.f()"),
    ]
    entries = split("".join(HEADER.format("n", kind, "s", "me") + body + ";\n" for kind, body in parts))[1]
    key, i, j, foreign, trigger = units(entries)
    assert [entry.type for entry in key.entries] == ["CONSTRAINT", "COMMENT"]
    assert (i.waits_for([key]), key.waits_for([i]), i.waits_for([j])) == (True, True, False)
    assert foreign.alone == {("s", "a"), ("s", "b")}
    assert (key.kind == i.kind, foreign.kind == key.kind, trigger.kind) == (True, False, "")
