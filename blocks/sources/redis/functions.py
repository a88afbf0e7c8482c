"""Libraries of functions (FUNCTION LOAD): read from servers, and kept in the definition of a backup."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import hiredis
from pydantic import JsonValue

from blocks.sources.redis.net.server import Server
from blocks.sources.redis.net.wire import packed

FUNCTIONS = "functions"
"""Their name in a definition; it is absent where they are not known."""


@dataclass(frozen=True)
class Library:
    """A library: its name, the engine that runs it, and its code."""

    name: str
    engine: str
    code: bytes

    @property
    def kept(self) -> dict[str, JsonValue]:
        """How a definition has it."""
        try:
            return {"name": self.name, "engine": self.engine, "code": self.code.decode()}
        except UnicodeDecodeError:
            code = base64.b64encode(self.code).decode()
            return {"name": self.name, "engine": self.engine, "code_base64": code}


@dataclass(frozen=True)
class Libraries:
    """The libraries of a server or of a cluster.

    Attributes:
        found: By name; None where they are not known.
        remarks: What a backup should say of them.
    """

    found: Mapping[str, Library] | None
    remarks: tuple[str, ...] = ()

    @property
    def definition(self) -> dict[str, JsonValue]:
        """What a definition has of them."""
        if self.found is None:
            return {}
        return {FUNCTIONS: [self.found[name].kept for name in sorted(self.found)]}


def libraries_of(nodes: Sequence[Server]) -> Libraries:
    """Read the libraries of all nodes; those of one name have to be the same on each."""
    found: dict[str, Library] = {}
    differing: set[str] = set()
    for node in nodes:
        count = node.info("memory").get("number_of_functions")
        if count == "0":
            continue
        libraries = read_libraries(node)
        if isinstance(libraries, str):
            if count is None:  # a server that has none of this says so of each such command
                return Libraries(None)
            said = f"{count} functions (FUNCTION LOAD) of {node} are not backed up: {libraries}"
            return Libraries(None, (f"{said}; the user needs +function|list.",))
        differing |= {each.name for each in libraries if found.setdefault(each.name, each) != each}
    return Libraries(found, tuple(_unlike(differing, found, nodes)))


def _unlike(differing: set[str], found: Mapping[str, Library], nodes: Sequence[Server]) -> Iterator[str]:
    if differing:
        names = ", ".join(sorted(differing))
        yield f"The library of functions {names} is not the same on all nodes; that of one of them is backed up."


def read_libraries(server: Server) -> list[Library] | str:
    """Return the libraries of one server; what it answers where it refuses."""
    with server.connection() as connection:
        [reply] = connection.ask(packed("FUNCTION", "LIST", "WITHCODE"), 1)
    if isinstance(reply, hiredis.ReplyError):
        return str(reply)
    found = []
    for each in cast("list[list[object]]", reply):
        facts = dict(zip(cast("list[bytes]", each[::2]), each[1::2], strict=True))
        name, engine, code = (cast("bytes", facts[key]) for key in (b"library_name", b"engine", b"library_code"))
        found.append(Library(name.decode("utf-8", "replace"), engine.decode("utf-8", "replace"), code))
    return found


def kept_libraries(definition: Mapping[str, JsonValue]) -> dict[str, Library] | None:
    """Return the libraries that a definition has, by name; None where it does not know them."""
    kept = definition.get(FUNCTIONS)
    if not isinstance(kept, list):
        return None
    found = [_library(each) for each in kept if isinstance(each, dict)]
    return {each.name: each for each in found}


def _library(kept: Mapping[str, JsonValue]) -> Library:
    encoded = kept.get("code_base64")
    code = str(kept.get("code", "")).encode() if encoded is None else base64.b64decode(str(encoded))
    return Library(str(kept.get("name", "")), str(kept.get("engine", "")), code)
