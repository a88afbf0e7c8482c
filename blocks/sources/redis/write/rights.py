"""Whether a server would take the commands of a restore, asked without doing any of them.

A server checks a command when it queues it in a transaction: rights, its role, its memory, its disk and its replicas.
The transaction is never executed.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence

import hiredis

from blocks.errors import ConfigurationError, RestoreRefused
from blocks.sources.redis.net.cluster import Cluster
from blocks.sources.redis.net.server import Server
from blocks.sources.redis.net.wire import Connection, Reply, Word, packed
from blocks.sources.redis.read.keys import slot_of
from blocks.sources.redis.temporary_names import old_name, tag_of, temporary_name


class MissingRights(RestoreRefused, ConfigurationError):
    """The user may not do what a restore needs, which is a matter of the server's ACL and of the plan."""


_AT_ONCE = 1_000
_OWNER = "probe"
_HINTS = {
    "NOPERM": "Let the user do this (docs/sources.md lists the commands a restore needs, and the keys ~lastgood:*), "
    "then run the restore again.",
    "READONLY": "Name the master with --to.",
    "NOREPLICAS": "Bring its replicas back, or lower `min-replicas-to-write`.",
    "MISCONF": "It cannot save its data, so it takes no writes: see its log, and free its disk.",
    "OOM": "Raise its `maxmemory`, or free some of it.",
}

Command = tuple[str, *tuple[Word, ...]]


def check_commands(server: Server | Cluster) -> None:
    """Make sure that each node takes the commands of a restore.

    Raises:
        RestoreRefused: One does not; says what it answers.
    """
    for node, key in _nodes(server):
        commands = _commands(key, server.has_field_expiry)
        with _Queue(node, 0) as queue:
            replies = queue.ask([packed(*words) for words in commands])
        refused = [(words, reply) for words, reply in zip(commands, replies, strict=True) if _refused(reply)]
        if refused:
            names = dict.fromkeys(words[0] for words, _ in refused)
            raise _refusal(node, ", ".join(names), refused[0][1])


def check_keys(server: Server | Cluster, database: int, batches: Iterator[Sequence[bytes]]) -> None:
    """Make sure that the user may write these keys; they are not looked at where he may write any.

    Raises:
        RestoreRefused: He may not; names the first such key.
    """
    if _may_write_any(server, database):
        return
    for keys in batches:
        for start in range(0, len(keys), _AT_ONCE):
            for node, some in _by_node(server, keys[start : start + _AT_ONCE]):
                with _Queue(node, database) as queue:
                    replies = queue.ask([packed("DEL", key) for key in some])
                for key, reply in zip(some, replies, strict=True):
                    if _refused(reply) and _kind(reply) not in ("MOVED", "ASK", "TRYAGAIN"):
                        raise _refusal(node, f"a write to key {key!r}", reply)


def _may_write_any(server: Server | Cluster, database: int) -> bool:
    for node, key in _nodes(server):
        tag = key[key.index(b"{") : key.index(b"}") + 1]
        with _Queue(node, database) as queue:
            [reply] = queue.ask([packed("DEL", secrets.token_hex(8).encode() + tag)])
        if _refused(reply):
            return False
    return True


class _Queue:
    """A transaction that is never executed."""

    def __init__(self, node: Server, database: int) -> None:
        self._connection: Connection = node.open()
        self._database = database

    def __enter__(self) -> _Queue:
        try:
            if self._database:
                self._connection.call("SELECT", self._database)
            self._connection.call("MULTI")  # without which what follows would be done
        except BaseException:
            self._connection.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()  # and so the server forgets it

    def ask(self, commands: Sequence[bytes]) -> list[Reply]:
        self._connection.send(b"".join(commands))
        return self._connection.replies(len(commands))


def _nodes(server: Server | Cluster) -> Iterator[tuple[Server, bytes]]:
    """Yield each node with a name that is in one of its hash slots."""
    if isinstance(server, Server):
        yield server, temporary_name(b"", _OWNER)
        return
    seen = set()
    for slot in [0, *(position >> 16 for position in server.boundaries())]:
        if (address := server.address_of(slot)) not in seen:
            seen.add(address)
            yield server.node(address), temporary_name(tag_of(slot), _OWNER)


def _by_node(server: Server | Cluster, keys: Sequence[bytes]) -> Iterator[tuple[Server, Sequence[bytes]]]:
    if isinstance(server, Server):
        yield server, keys
        return
    shares: dict[Server, list[bytes]] = {}
    for key in keys:
        shares.setdefault(server.node(server.address_of(slot_of(key))), []).append(key)
    yield from shares.items()


def _commands(key: bytes, field_expiry: bool) -> list[Command]:
    stream: list[Command] = [
        ("XADD", key, "1-1", "f", "v"), ("XTRIM", key, "MAXLEN", 0), ("XSETID", key, "1-1"),
        ("XGROUP", "CREATE", key, "g", "0"), ("XCLAIM", key, "g", "c", 0, "1-1"),
    ]  # fmt: skip
    fields: list[Command] = [("HPEXPIREAT", key, 1, "FIELDS", 1, "f")] if field_expiry else []
    return [
        ("SET", key, "v"), ("DEL", key), ("UNLINK", key), ("EXISTS", key), ("RENAME", key, _other(key)),
        ("PERSIST", key), ("PEXPIRE", key, 1), ("PEXPIREAT", key, 1), ("HSET", key, "f", "v"), ("RPUSH", key, "v"),
        ("SADD", key, "v"), ("ZADD", key, 1, "v"), ("RESTORE", key, 0, "v"), *stream, *fields,
    ]  # fmt: skip


def _other(key: bytes) -> bytes:
    return old_name(key.rpartition(b":")[2], _OWNER)


def _refused(reply: Reply) -> bool:
    return isinstance(reply, hiredis.ReplyError)


def _kind(reply: Reply) -> str:
    return str(reply).partition(" ")[0]


def _refusal(node: Server, what: str, reply: Reply) -> RestoreRefused:
    said = str(reply)
    hint = _HINTS.get(_kind(reply), "Run the restore again later.")
    kind = MissingRights if _kind(reply) == "NOPERM" else RestoreRefused
    return kind(f"{node} would not take {what}: {said}", hint=hint)
