"""A sample of every command of Redis that writes, each on keys of its own."""

from __future__ import annotations

from collections.abc import Iterator

from blocks.sources.redis.net.wire import Word
from tests.blocks.sources.redis.kit import FAR_MS, RedisServer

Commands = list[tuple[Word, ...]]

EVERYTHING = {"flushall", "flushdb", "swapdb"}
"""Commands after which nothing is as it was."""
ABOUT_NO_KEYS = {"function|delete", "function|flush", "function|load", "function|restore"}

CONTAINERS: dict[str, tuple[Word, ...]] = {
    "s": ("SET", "5"),
    "h": ("HSET", "f", "1", "g", "2", "i", "3"),
    "l": ("RPUSH", "a", "b", "c"),
    "S": ("SADD", "a", "b", "c"),
    "z": ("ZADD", 1, "a", 2, "b", 3, "c"),
    "g": ("GEOADD", "13.361389", "38.115556", "Palermo", "15.087269", "37.502669", "Catania"),
    "p": ("PFADD", "a", "b", "c"),
}
"""What stands at `KIND:COMMAND` and `KIND2:COMMAND` before each command; streams are made apart."""

SAMPLES: dict[str, str] = {
    "append": "s x", "bitfield": "s SET u8 0 77", "bitop": "AND =new s s2", "decr": "s", "decrby": "s 3", "del": "s s2",
    "expire": "s 100000", "expireat": "s 4102444800", "getdel": "s", "getex": "s EX 100000", "getset": "s new",
    "incr": "s", "incrby": "s 3", "incrbyfloat": "s 0.5", "mset": "s 1 =new 2", "msetnx": "=new 1 =newer 2",
    "pexpire": "s 100000000", "pexpireat": f"s {FAR_MS}", "persist": "e", "psetex": "s 100000000 v", "set": "s 6",
    "setbit": "s 1 1", "setex": "s 100000 v", "setnx": "=new v", "setrange": "s 3 abc", "unlink": "s s2",
    "rename": "s s2", "renamenx": "s =new", "copy": "s =new DB 3", "move": "s 3",
    "hdel": "h f", "hincrby": "h f 1", "hincrbyfloat": "h f 0.5", "hmset": "h f 9", "hset": "h f 9",
    "hsetnx": "h new 9",
    "hexpire": "h 100000 FIELDS 1 f", "hexpireat": "h 4102444800 FIELDS 1 f", "hpexpire": "h 100000000 FIELDS 1 f",
    "hpexpireat": f"h {FAR_MS} FIELDS 1 f", "hpersist": "E FIELDS 1 f", "hgetdel": "h FIELDS 1 f",
    "hgetex": "h EX 100000 FIELDS 1 f", "hsetex": "h EX 100000 FIELDS 1 f 9",
    "blmove": "l l2 LEFT RIGHT 0", "blmpop": "0 1 l LEFT", "blpop": "=none l 0", "brpop": "=none l 0",
    "brpoplpush": "l l2 0", "linsert": "l BEFORE b x", "lmove": "l =new LEFT LEFT", "lmpop": "2 =none l RIGHT COUNT 2",
    "lpop": "l", "lpush": "l x", "lpushx": "l x", "lrem": "l 0 b", "lset": "l 1 x", "ltrim": "l 1 1", "rpop": "l",
    "rpoplpush": "l =new", "rpush": "l x", "rpushx": "l x", "sort": "l ALPHA STORE =new",
    "sadd": "S x", "sdiffstore": "=new S =none", "sinterstore": "=new S S2",
    "smove": "S =new a", "spop": "S", "srem": "S a",
    "sunionstore": "=new S S2",
    "bzmpop": "0 1 z MIN", "bzpopmax": "z 0", "bzpopmin": "=none z 0", "zadd": "z 9 a", "zdiffstore": "=new 2 z =none",
    "zincrby": "z 1 a", "zinterstore": "=new 2 z z2",
    "zmpop": "2 =none z MAX COUNT 2", "zpopmax": "z", "zpopmin": "z 2",
    "zrangestore": "=new z 0 1", "zrem": "z a", "zremrangebylex": "z [a [b", "zremrangebyrank": "z 0 0",
    "zremrangebyscore": "z 1 2", "zunionstore": "=new 2 z z2",
    "geoadd": "g 13.5 38.2 x", "georadius": "g 15 37 200 km STORE =new",
    "georadiusbymember": "g Palermo 200 km STOREDIST =new", "geosearchstore": "=new g FROMLONLAT 15 37 BYRADIUS 99 km",
    "pfadd": "p x", "pfdebug": "GETREG p", "pfmerge": "=new p p2",
    "xack": "x grp 1-1", "xackdel": "x grp IDS 1 1-1", "xadd": "x 9-1 a b", "xautoclaim": "x grp other 0 0",
    "xclaim": "x grp other 0 1-1", "xdel": "x 2-1", "xdelex": "x IDS 1 2-1", "xgroup|create": "CREATE x new 0",
    "xgroup|createconsumer": "CREATECONSUMER x grp new", "xgroup|delconsumer": "DELCONSUMER x grp con",
    "xgroup|destroy": "DESTROY x grp", "xgroup|setid": "SETID x grp 1-1",
    "xreadgroup": "GROUP grp con STREAMS x >", "xsetid": "x 99-1", "xtrim": "x MAXLEN 1",
    "vadd": "v VALUES 2 1 2 new", "vrem": "v a", "vsetattr": "v a {\"n\":1}",
}  # fmt: skip
"""The words after each command: `s` stands for the key `s:COMMAND`, and so on; `=new` for one that is not there."""

BY_HAND = {"migrate", "restore", "restore-asking"}


def writing(server: RedisServer) -> set[str]:
    """Ask a server for the names of its commands, and of their subcommands, that write."""
    names = set()
    for name in server("COMMAND", "LIST"):
        [facts] = server("COMMAND", "INFO", name)
        names |= {each[0].decode().lower() for each in [facts, *facts[9]] if b"write" in each[2]}
    return names


def fill(server: RedisServer, commands: set[str]) -> None:
    """Put what the samples need."""
    made: Commands = []
    for command in sorted(commands):
        for number in ("", "2"):
            made += [(w[0], f"{kind}{number}:{command}", *w[1:]) for kind, w in CONTAINERS.items()]
        made += [("SET", f"e:{command}", "x", "PXAT", FAR_MS)]
        made += [("XADD", f"x:{command}", f"{n}-1", "a", n) for n in range(1, 5)]
        made += [("XGROUP", "CREATE", f"x:{command}", "grp", "0")]
        made += [("XREADGROUP", "GROUP", "grp", "con", "COUNT", 2, "STREAMS", f"x:{command}", ">")]
        if "hexpire" in commands:
            made += [("HSET", f"E:{command}", "f", "v"), ("HPEXPIREAT", f"E:{command}", FAR_MS, "FIELDS", 1, "f")]
        if "vadd" in commands:
            made += [("VADD", f"v:{command}", "VALUES", 2, 3, 4, "a"), ("VADD", f"v:{command}", "VALUES", 2, 5, 6, "b")]
    server.many(made)


def samples(commands: set[str]) -> Iterator[tuple[str, tuple[Word, ...]]]:
    """Yield one call of each command."""
    kinds = {kind + number for kind in CONTAINERS for number in ("", "2")} | {"e", "x", "E", "v"}
    for command in sorted(commands - EVERYTHING - ABOUT_NO_KEYS - BY_HAND):
        words = [
            f"{word}:{command}" if word in kinds or word[0] == "=" else word for word in SAMPLES[command].split(" ")
        ]
        yield command, (command.partition("|")[0].upper(), *words)
