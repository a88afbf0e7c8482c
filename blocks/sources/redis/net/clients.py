"""Who writes to a server, as it says itself."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import cast

from blocks.errors import LastgoodError
from blocks.sources.redis.net.cluster import Cluster
from blocks.sources.redis.net.server import Server
from blocks.sources.redis.net.wire import Reply

_MOST, _MOST_KEYS = 3, 5
_ANYTHING = ("exec", "eval", "evalsha", "fcall")


def writers(server: Server | Cluster) -> str:
    """Name the clients whose last command was one that writes, as a clause; empty where that is not known."""
    found: list[str] = []
    with suppress(LastgoodError):
        for node in server.nodes():
            found += _writers(node)
    if not found:
        return ""
    more = f" and {len(found) - _MOST} more" if len(found) > _MOST else ""
    return f"; clients that write: {', '.join(found[:_MOST])}{more}"


def named(keys: Sequence[bytes]) -> str:
    """Name the first of some keys, with the verb that follows."""
    shown = ", ".join(repr(key) for key in sorted(keys)[:_MOST_KEYS])
    more = f" and {len(keys) - _MOST_KEYS} more" if len(keys) > _MOST_KEYS else ""
    return f"{shown}{more} {'were' if len(keys) > 1 else 'was'}"


def _writers(node: Server) -> list[str]:
    ours = node.client_ids()
    reply = node.call("CLIENT", "LIST")
    assert isinstance(reply, bytes)
    clients = [_facts(line) for line in reply.decode("utf-8", "replace").splitlines()]
    others = [each for each in clients if each.get("id") not in ours and each.get("flags", "N")[0] not in "MS"]
    others.sort(key=lambda each: int(each.get("idle", 0)))
    writing = _writing(node) if others else frozenset[str]()
    return [_shown(each) for each in others if each.get("cmd", "").partition("|")[0] in writing]


def _facts(line: str) -> dict[str, str]:
    return dict(word.partition("=")[::2] for word in line.split(" "))


def _writing(node: Server) -> frozenset[str]:
    """Return what commands that write are, as CLIENT LIST shows them: not what `rename-command` calls them."""
    reply = node.call("COMMAND", "INFO")
    described = [cast("list[Reply]", facts) for facts in cast("list[Reply]", reply) if facts]
    names = {cast("bytes", facts[0]).decode() for facts in described if _writes(facts)}
    return frozenset({*names, *_ANYTHING})


def _writes(facts: list[Reply]) -> bool:
    subcommands = cast("list[list[Reply]]", facts[9]) if len(facts) > 9 else []
    return b"write" in cast("list[bytes]", facts[2]) or any(map(_writes, subcommands))


def _shown(client: dict[str, str]) -> str:
    name = f" ({client['name']})" if client.get("name") else ""
    return f"{client.get('addr', 'unknown')}{name} as {client.get('user', '?')} with {client.get('cmd', '?').upper()}"
