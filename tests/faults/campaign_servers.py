# ruff: noqa: E501  rows of attempts are read as rows
"""Restores over PostgreSQL and Redis: wrong addresses, edited plans, writers, servers that are down."""

from __future__ import annotations

import atexit
import random
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import psycopg

from tests.blocks.sources.redis.kit import RedisServer
from tests.faults.campaign_attempts import Complaints, attempt, expect
from tests.faults.campaign_world import Fact, World
from tests.postgres_server import PostgresServer

REFUSED = 10
FAILED = (2, 3, 5, REFUSED, 11)
ASIDE = b"lastgood:aside:"

_PLAN = """\
name: shop
sources:
  books: {{type: postgres, dsn: "{dsn}", lock_timeout_seconds: 5}}
  cache: {{type: redis, url: "{url}"}}
repository: {{url: ./repo}}
encryption: {{credential: {{key_file: ./key}}}}
"""


@cache
def _postgres() -> PostgresServer:
    server = PostgresServer()
    server.start()
    atexit.register(server.stop)
    return server


@cache
def _redis(number: int) -> RedisServer:
    folder = tempfile.mkdtemp(prefix="lastgood-redis-")
    server = RedisServer(Path(folder) / str(number))
    atexit.register(server.kill)
    return server


def _url(name: str) -> str:
    return f"postgresql://postgres@127.0.0.1:{_postgres().port}/{name}"


def _filled(world: World) -> None:
    pg, redis, other = _postgres(), _redis(0), _redis(1)
    for server in (redis, other):
        server("FLUSHALL")
    with pg.connect("postgres") as session:
        for (name,) in session.execute("SELECT datname FROM pg_database WHERE datname !~ '^template'").fetchall():
            if name != "postgres":
                session.execute(f'DROP DATABASE "{name}" WITH (FORCE)')  # type: ignore[call-overload]
    pg.run("postgres", "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
    pg.create("books", "CREATE TABLE t (id int PRIMARY KEY, v text)", "INSERT INTO t VALUES (1, 'one'), (2, 'two')",
              "CREATE TABLE u (id int PRIMARY KEY, v text)", "INSERT INTO u VALUES (1, 'u one')")  # fmt: skip
    pg.create("theirs", "CREATE TABLE t (id int PRIMARY KEY, v text)", "INSERT INTO t VALUES (1, 'their one'), (5, 'their five')",
              "CREATE TABLE letters (id int PRIMARY KEY, v text)", "INSERT INTO letters VALUES (1, 'dear')")  # fmt: skip
    redis.many([("SET", "a", "1"), ("SET", "b", "2"), ("RPUSH", "list", "x", "y")])
    redis.many([("SET", "a", "another database")], db=1)
    other.many([("SET", "a", "a stranger's"), ("SET", "theirs", "theirs")])
    world.write("plan.yaml", _PLAN.format(dsn=_url("books"), url=f"{redis.url}/0"))
    world.must("backup", "--type", "full")
    world.ids.append(world.newest("FUL"))
    pg.run("books", "UPDATE t SET v = 'one, newest' WHERE id = 1", "INSERT INTO t VALUES (9, 'nine')", "DELETE FROM u",
           "INSERT INTO u VALUES (7, 'u seven')", "CREATE TABLE later (x int)", "INSERT INTO later VALUES (1)")  # fmt: skip
    redis.many([("SET", "a", "newest"), ("DEL", "b"), ("SET", "newcomer", "n"), ("RPUSH", "list", "z")])
    world.servers.append(_facts)
    world.backups += 1


def _facts() -> set[Fact]:
    return _postgres_facts() | {one for number in (0, 1) for one in _redis_facts(number)}


def _postgres_facts() -> set[Fact]:
    pg, found = _postgres(), set[Fact]()
    with pg.connect("postgres") as session:
        names = [
            n
            for (n,) in session.execute(
                "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate"
            ).fetchall()
        ]
    for name in names:
        with pg.connect(str(name)) as session:
            tables = session.execute(
                "SELECT schemaname, tablename FROM pg_tables WHERE schemaname !~ '^(pg_|information)'"
            ).fetchall()
            for schema, table in tables:
                rows = session.execute(f'SELECT * FROM "{schema}"."{table}"').fetchall()  # type: ignore[call-overload]
                found |= {(f"{name}/{table}", "prow", repr(row)) for row in rows}
    return found


def _redis_facts(number: int) -> set[Fact]:
    server, found = _redis(number), set[Fact]()
    for db in range(3):
        for key in server("KEYS", "*", db=db):  # type: ignore[union-attr]
            base = key.split(b":", 3)[3] if key.startswith(ASIDE) else key
            value = server("DUMP", key, db=db)
            found.add((f"redis {number}/{db}/{key!r}", "key", repr(base), repr(value)))
    return found


def _line(name: str, *words: str | Callable[[], str], codes: tuple[int, ...] = (0, *FAILED)) -> None:
    @attempt(f"servers: {name}", _filled)
    def _(world: World) -> Complaints:
        said = [word if isinstance(word, str) else word() for word in words]
        return expect(world.run("restore", world.ids[0], *said, "--yes"), *codes)


_line("restore in place")
_line("merge in place", "--mode", "merge")
_line("one row and one key", "--collection", "books/public.t", "--collection", "cache/*", "--key", "1", "--key", "a")
for _more in ((), ("--overwrite",), ("--mode", "merge")):
    for _name, _to in {
        "another healthy database": lambda: _url("theirs"),
        "the database itself, spelled otherwise": lambda: _url("books").replace("127.0.0.1", "localhost"),
        "the database itself through its socket": lambda: (
            f"postgresql:///books?host={_postgres().folder}&port={_postgres().port}&user=postgres"
        ),
        "the database postgres": lambda: _url("postgres"),
        "a missing database": lambda: _url("fresh"),
    }.items():
        _line(f"books to {_name} {' '.join(_more)}", "--collection", "books/*", "--to", _to, *_more)
    for _name, _to in {
        "another server": lambda: _redis(1).url,
        "another database of it": lambda: f"{_redis(0).url}/1",
        "itself, spelled otherwise": lambda: _redis(0).url.replace("127.0.0.1", "localhost") + "/0",
        "its socket": lambda: f"unix://{_redis(0).socket}?db=0",
        "a stranger's file": lambda: "stranger/thesis.txt",
        "the key": lambda: "key",
        "a folder": lambda: "stranger",
        "a new file": lambda: "new.rdb",
        "a file in the repository": lambda: "repo/x.rdb",
    }.items():
        _line(f"cache to {_name} {' '.join(_more)}", "--collection", "cache/*", "--to", _to, *_more)

for _name, (_old, _new) in {
    "the database is another one": ("/books", "/theirs"),
    "a table is left out": ("lock_timeout_seconds: 5", "exclude: [public.u]"),
    "one table is taken": ("lock_timeout_seconds: 5", "tables: [public.u]"),
    "patterns are narrowed": ('/0"', "/0\", patterns: ['a*']"),
    "patterns match nothing": ('/0"', "/0\", patterns: ['zzz*']"),
    "the Redis database is another one": ('/0"', '/1"'),
    "all Redis databases are taken": ('/0"', '"'),
    "the names are swapped": ("books:", "cash:"),
}.items():
    for _mode in ("exact", "merge"):

        @attempt(f"servers: {_name}; {_mode}", _filled)
        def _(world: World, old: str = _old, new: str = _new, mode: str = _mode) -> Complaints:
            world.edit(old, new)
            done = world.run("restore", world.ids[0], "--mode", mode, "--yes")
            return expect(done, 0, *FAILED)


@attempt("servers: the Redis server is another one", _filled)
def _(world: World) -> Complaints:
    world.edit(_redis(0).url, _redis(1).url)
    return expect(world.run("restore", world.ids[0], "--yes"), 0, *FAILED)


@attempt("servers: one source while the server of the other is down", _filled)
def _(world: World) -> Complaints:
    world.edit(_redis(0).url, "redis://127.0.0.1:1")
    both = world.run("restore", world.ids[0], "--yes")
    one = world.run("restore", world.ids[0], "--collection", "books/*", "--yes")
    return expect(both, 3, REFUSED) + expect(one, 0)


@attempt("servers: undo three times", _filled)
def _(world: World) -> Complaints:
    first = world.facts()
    world.must("restore", world.ids[0], "--yes")
    second = world.facts()
    complaints = []
    for expected in (first, second, first):
        world.must("undo", "--yes")
        now = world.facts()
        complaints += [f"an undo differs: {sorted(expected ^ now)[:4]}"] * (expected != now)
    return complaints


@attempt("servers: a writer to the table during restore", _filled)
def _(world: World) -> Complaints:
    stop, acknowledged = threading.Event(), list[int]()

    def write() -> None:
        number = 1000
        with _postgres().connect("books") as session:
            while not stop.is_set():
                with suppress(psycopg.Error):
                    session.execute("INSERT INTO t VALUES (%s, 'written')", (number,))
                    acknowledged.append(number)
                number += 1
                time.sleep(0.003)

    thread = threading.Thread(target=write)
    thread.start()
    done = world.run("restore", world.ids[0], "--collection", "books/*", "--yes")
    stop.set()
    thread.join()
    world.before |= {("books/t", "prow", repr((n, "written"))) for n in acknowledged}
    now = {one[2] for one in _postgres_facts()}
    world.run("undo", "--yes")
    now |= {one[2] for one in _postgres_facts()}
    gone = [n for n in acknowledged if repr((n, "written")) not in now]
    world.before.clear()
    return expect(done, 0, *FAILED) + [f"{len(gone)} of {len(acknowledged)} acknowledged rows are nowhere"] * bool(gone)


@attempt("servers: a writer to Redis during restore", _filled)
def _(world: World) -> Complaints:
    stop, acknowledged, connection = threading.Event(), list[int](), _redis(0).connection()

    def write() -> None:
        number = 0
        while not stop.is_set():
            connection.call("SET", f"w{number}", number)
            acknowledged.append(number)
            number += 1
            time.sleep(0.003)

    thread = threading.Thread(target=write)
    thread.start()
    done = world.run("restore", world.ids[0], "--collection", "cache/*", "--yes")
    stop.set()
    thread.join()
    now = {one[2] for one in _redis_facts(0)}
    if done.code in (0, 11):
        world.run("undo", "--yes")
        now |= {one[2] for one in _redis_facts(0)}
    gone = [n for n in acknowledged if repr(f"w{n}".encode()) not in now]
    world.before.clear()
    return expect(done, 0, *FAILED) + [f"{len(gone)} of {len(acknowledged)} acknowledged keys are nowhere"] * bool(gone)


for _signal in (signal.SIGKILL, signal.SIGTERM):
    for _number in range(6):

        @attempt(f"servers: {_signal.name} during restore, try {_number + 1}", _filled)
        def _(world: World, number: signal.Signals = _signal) -> Complaints:
            started = time.monotonic()
            world.run("restore", world.ids[0], "--mode", "preview")
            seconds = time.monotonic() - started
            process = world.start("restore", world.ids[0], "--yes")
            time.sleep(seconds * (0.8 + random.random() * 1.2))
            process.send_signal(number)
            done = world.ended(process, "restore", "killed")
            return [f"exit code {done.code}"] * (done.code == 1)
