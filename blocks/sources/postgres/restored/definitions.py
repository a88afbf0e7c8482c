"""The objects that the definitions of a database make, each by its kind and name, so that two can be compared."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from blocks.sources.postgres.schema.entries import Entry, split, statements
from blocks.sources.postgres.schema.ownership import Ownership
from blocks.sources.postgres.schema.sequences import SequenceState
from blocks.sources.postgres.write.rebuild import named
from blocks.sources.proving import DefinedObject

_GUARDS = frozenset(
    {
        *("CONSTRAINT", "FK CONSTRAINT", "CHECK CONSTRAINT", "INDEX", "INDEX ATTACH", "TRIGGER", "EVENT TRIGGER"),
        *("POLICY", "ROW SECURITY", "RULE", "DEFAULT"),
    }
)
_OF_THE_DATABASE = ("encoding", "collate", "ctype")

_TYPE = (
    r"(?:character varying|bit varying|double precision|(?:timestamp|time)(?:\(\d\))? with(?:out)? time zone"
    r'|(?:(?:\w+|"(?:[^"]|"")+")\.)?(?:\w+|"(?:[^"]|"")+"))'
)
_CAST = re.compile(rf"::{_TYPE}(?:\(\d+(?:,-?\d+)?\))?(?:\[\])*")
_SPACES_AND_PARENTHESES = re.compile(r"[\s()]+")
_PART = re.compile(r'^    (?=\S)(CONSTRAINT )?("(?:[^"]|"")+"|\S+)', re.MULTILINE)


@dataclass(frozen=True)
class Statements(DefinedObject):
    """An object that statements make, as pg_dump writes them."""

    def same_as(self, other: DefinedObject) -> bool:
        """Whether both are defined the same; the server writes some expressions otherwise once they were restored.

        `a IN ('x')` on a varchar is a cast of an array before, and an array of casts after: what differs in casts and
        parentheses alone is taken for the same.
        """
        return self.text == other.text or _plain(self.text) == _plain(other.text)


def _plain(text: str) -> str:
    return _SPACES_AND_PARENTHESES.sub("", _CAST.sub("", text))


def defined_objects(definition: Mapping[str, JsonValue], ownership: Ownership) -> list[DefinedObject]:
    """Return the objects that a definition makes.

    Args:
        definition: From a manifest or a view; entries of it may be left out.
        ownership: What of it that names roles is restored.
    """
    kept = ownership.of_definition(definition)
    texts = [text for name in ("before", "after") if isinstance(text := kept.get(name), str)]
    entries = [entry for text in texts for entry in split(text)[1]]
    if not ownership.complete:  # who owns an object decides what its privileges are as a difference to
        entries = [entry for entry in entries if entry.type not in ("ACL", "DEFAULT ACL", "LARGE OBJECTS")]
    if kept.get("narrowed"):  # of a chosen schema `public` pg_dump writes all, else what differs from the one there is
        entries = [entry for entry in entries if not _is_about_public(entry)]
    found: dict[str, DefinedObject] = {}
    for entry in entries:
        made = _object_of(entry)
        # functions of one name, and comments on what belongs to one table
        if (before := found.get(str(made))) is not None:
            text = "\n".join(sorted([before.text, made.text]))
            made = Statements(made.kind, made.name, text, guards=made.guards)
        found[str(made)] = made
    facts = (DefinedObject(name, "of the database", str(kept[name])) for name in _OF_THE_DATABASE if name in kept)
    return [*found.values(), *facts, *_positions(kept)]


def _is_about_public(entry: Entry) -> bool:
    if entry.type == "SCHEMA":
        return "public" in (entry.plain("EXISTS"), entry.plain("CREATE", "SCHEMA"))
    return entry.about == "SCHEMA" and entry.plain("ON", "SCHEMA") == "public"


def _object_of(entry: Entry) -> Statements:
    name = named(entry)
    if entry.type == "MATERIALIZED VIEW DATA":
        name = f"contents of {name}"
    kind = next((kind for kind in _KINDS if name.startswith(f"{kind} ")), name.partition(" ")[0])
    text = "\n".join(said for _, said in statements(entry.text) if not said.startswith("SET default_"))
    parts = _parts(text) if entry.type == "TABLE" else {}
    return Statements(kind, name.removeprefix(f"{kind} "), text, parts, guards=entry.type in _GUARDS)


_KINDS = (
    *("foreign key", "materialised view", "check constraint", "event trigger", "row security", "default acl"),
    *("sequence owned by", "table attach", "index attach", "foreign table", "foreign data wrapper", "user mapping"),
    *("large objects", "security label", "publication table", "access method", "text search configuration"),
)
"""Kinds of several words."""


def _parts(text: str) -> dict[str, str]:
    """Return columns and constraints of a table, of which pg_dump begins each on a line of its own."""
    text = text.partition("\n)")[0]
    begins = list(_PART.finditer(text))
    ends = [match.start() for match in begins[1:]] + [len(text)] * bool(begins)
    return {
        f"{'constraint' if match[1] else 'column'} {match[2]}": text[match.start() : end].strip().rstrip(",")
        for match, end in zip(begins, ends, strict=True)
    }


def _positions(definition: Mapping[str, JsonValue]) -> Iterator[DefinedObject]:
    rows = definition.get("sequences")
    for row in rows if isinstance(rows, list) else ():
        state = SequenceState.of(row)
        at = f"{state.last_value} {'used' if state.is_called else 'next'}"
        yield DefinedObject("position", f"of sequence {state.schema}.{state.name}", at, moves=True)
