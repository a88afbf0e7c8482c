"""Definitions of a database, as pg_dump writes them for an exported snapshot."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from blocks.errors import ProgramMissing, SourceUnavailable
from blocks.host.child_environment import child_environment
from blocks.sources.postgres.connect import Session, altered, place_of, settings_of
from blocks.sources.postgres.hints import hint_for
from blocks.sources.postgres.schema.entries import statements
from blocks.sources.postgres.schema.large_object_definitions import large_object_definitions

_VERSION = re.compile(r"\(PostgreSQL\) (\d+)")
_PUBLIC = "CREATE SCHEMA public;"
_ABOUT_THE_DUMP = re.compile(
    r"\\(un)?restrict \w+|-- (Dumped (from database|by pg_dump) version|PostgreSQL database dump).*"
)
"""Lines around the definitions that differ from one pg_dump to the next: guards with a random word, and versions."""
_AROUND = re.compile(rf"{_ABOUT_THE_DUMP.pattern}|--.*|")
_PREAMBLE = re.compile(rf"{_AROUND.pattern}|SET .*;|SELECT pg_catalog\.set_config\(.*")
"""Lines that pg_dump begins with, before the first definition."""
_NEW_SETTING = "SET transaction_timeout = 0;"
"""What pg_dump of 17 and later sets, and servers before 17 do not know; our own sessions set it where it exists."""
_WARNING = re.compile(r"^pg_dump: warning: (.+)$", re.MULTILINE)
_SECTIONS = ("pre-data", "post-data")
_MATERIALIZED = "SELECT FROM pg_catalog.pg_class WHERE relkind = 'm' LIMIT 1"
_LIBPQ = (
    *("PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSFILE", "PGREQUIREAUTH", "PGCHANNELBINDING"),
    *("PGSERVICE", "PGSERVICEFILE", "PGSYSCONFDIR", "PGOPTIONS", "PGAPPNAME", "PGCONNECT_TIMEOUT", "PGLOCALEDIR"),
    *("PGSSLMODE", "PGREQUIRESSL", "PGSSLNEGOTIATION", "PGSSLCOMPRESSION", "PGSSLCERT", "PGSSLKEY", "PGSSLCERTMODE"),
    *("PGSSLROOTCERT", "PGSSLCRL", "PGSSLCRLDIR", "PGSSLSNI", "PGSSLMINPROTOCOLVERSION", "PGSSLMAXPROTOCOLVERSION"),
    *("PGREQUIREPEER", "PGGSSENCMODE", "PGKRBSRVNAME", "PGGSSLIB", "PGGSSDELEGATION", "KRB5_CONFIG", "KRB5CCNAME"),
    *("KRB5_CLIENT_KTNAME", "KRB5_KTNAME", "PGTARGETSESSIONATTRS", "PGLOADBALANCEHOSTS", "PGMINPROTOCOLVERSION"),
    *("PGMAXPROTOCOLVERSION", "PGGEQO", "PGCLUSTER"),
)
"""What libpq reads beside the password, by whole names: a plan may call another source's password PG_SOMETHING."""
_INSTALLED = ("usr/lib/postgresql/*/bin/pg_dump", "usr/pgsql-*/bin/pg_dump")
"""Where Debian and Red Hat keep the programs of each version."""


@dataclass(frozen=True)
class Definitions:
    """The statements that make a database before and after its rows come.

    Attributes:
        before: Schemas, types, tables, functions, views.
        after: Indexes, constraints, triggers, rules.
        said: What pg_dump warned of.
    """

    before: str
    after: str
    said: tuple[str, ...] = ()


def dump_definitions(
    conninfo: str, snapshot: str | None, options: Sequence[str], server_version: int, program: str | None
) -> Definitions:
    """Write the definitions of a database, without those of large objects.

    Args:
        conninfo: Connection string of the database, as libpq reads it.
        snapshot: The exported snapshot; None for the state of now.
        options: What of the database (-n, -t, -T).
        server_version: Major version of the server, such as 16.
        program: The pg_dump to use; None to find one.

    Raises:
        ProgramMissing: There is no pg_dump that is new enough.
        SourceUnavailable: It failed.
    """
    found = find_pg_dump(server_version, program)
    # in UTF-8 whatever the database's encoding is; they set the encoding of the session that runs them, too;
    # large objects are written by us, the same way for all versions
    common = [found, "--no-password", "--encoding=UTF8", "--lock-wait-timeout=30000", "--no-blobs", *options]
    if snapshot is not None:
        common.append(f"--snapshot={snapshot}")
    read_once = _from_archive([*common, *(f"--section={name}" for name in _SECTIONS), "--format=custom"], conninfo)
    (before, said), (after, more) = read_once or _one_by_one(common, conninfo)
    return Definitions(_bare(before), _bare(after), tuple(dict.fromkeys([*said, *more])))


def _from_archive(command: list[str], conninfo: str) -> list[tuple[str, list[str]]] | None:
    """Let pg_dump read the catalogue once for both sections, and the pg_restore beside it write them; None without."""
    program = Path(command[0])
    if program.name != "pg_dump" or not (restore := program.with_name("pg_restore")).is_file():
        return None
    archive, said = _run(command, conninfo)
    sections = []
    for name in _SECTIONS:
        write = [str(restore), f"--section={name}", "--file=-"]
        done = subprocess.run(  # noqa: S603  as for pg_dump
            write, input=archive, capture_output=True, env=child_environment(LC_ALL="C"), check=False
        )
        if done.returncode:
            return None  # programs of two versions, say
        sections.append((done.stdout.decode(), said))
    return sections


def _one_by_one(command: list[str], conninfo: str) -> list[tuple[str, list[str]]]:
    with ThreadPoolExecutor(len(_SECTIONS)) as pool:
        found = pool.map(lambda name: _run([*command, f"--section={name}"], conninfo), _SECTIONS)
        return [(text.decode(), said) for text, said in found]


def without_data(session: Session) -> list[str]:
    """Return what keeps pg_dump from locking and reading each sequence, whose positions are not asked of it.

    That a materialised view is filled counts as data for it: where there is one, nothing can be left out.
    """
    found = session.execute(_MATERIALIZED.encode()).fetchone()
    return ["--schema-only"] if found is None else []


def current_definitions(session: Session, conninfo: str, program: str | None) -> Definitions:
    """Write the definitions of a whole database as they are now, those of large objects among them."""
    version = session.info.server_version // 10000
    found = dump_definitions(conninfo, None, without_data(session), version, program)
    return Definitions(found.before + large_object_definitions(session), found.after)


def _run(command: list[str], conninfo: str) -> tuple[bytes, list[str]]:
    # the password must not be among the arguments, where other users of this machine see it
    done = subprocess.run(  # noqa: S603  the program is pg_dump, and no shell is involved
        [*command, "-d", altered(conninfo, password=None)],
        capture_output=True,
        env=_environment(settings_of(conninfo).get("password")),
        check=False,
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().replace("\n", " ")
        raise SourceUnavailable(f"pg_dump of {place_of(conninfo)} failed: {said}", hint=hint_for("", said))
    return done.stdout, _WARNING.findall(done.stderr.decode(errors="replace"))


def _environment(password: str | None) -> dict[str, str]:
    """Return what pg_dump is told: libpq's settings, and of passwords that of this server alone.

    Args:
        password: Empty where the server is sent none; None where libpq finds it by itself.
    """
    if password is None:
        return child_environment([*_LIBPQ, "PGPASSWORD"], LC_ALL="C")
    return child_environment(_LIBPQ, LC_ALL="C", **({"PGPASSWORD": password} if password else {}))


def _bare(text: str) -> str:
    """Take out what differs from one pg_dump to the next, around the definitions: they themselves may hold such lines.

    Of a chosen schema `public` pg_dump assumes that it is missing, but its privileges are those of the one there is.
    """
    lines = text.split("\n")
    first = next((n for n, line in enumerate(lines) if not _PREAMBLE.fullmatch(line)), len(lines))
    # no definition ends with a comment, or within one
    last = next((n for n in range(len(lines), first, -1) if not _AROUND.fullmatch(lines[n - 1])), first)
    before, after = ([line for line in some if not _goes(line)] for some in (lines[:first], lines[last:]))
    return "\n".join([*before, *_with_public(lines[first:last]), *after])


def _goes(line: str) -> bool:
    return line == _NEW_SETTING or _ABOUT_THE_DUMP.fullmatch(line) is not None


def _with_public(lines: list[str]) -> list[str]:
    if _PUBLIC not in lines:
        return lines
    text = "\n".join(lines)
    start = next((start for start, statement in statements(text) if statement == _PUBLIC), None)
    if start is None:
        return lines
    return [f"{text[:start]}CREATE SCHEMA IF NOT EXISTS public;{text[start + len(_PUBLIC) :]}"]


def find_pg_dump(server_version: int, program: str | None) -> str:
    """Find the pg_dump nearest to the server's version, not below it.

    Raises:
        ProgramMissing: There is none.
    """
    versions: dict[str, int] = {}
    for path in _candidates(program):
        if (version := _version(path)) == server_version:
            return path  # there is no nearer one, and each that is asked takes time
        if version is not None:
            versions[path] = version
    fitting = {path: version for path, version in versions.items() if version > server_version}
    if fitting:
        return min(fitting, key=lambda path: fitting[path])
    newest = f"the newest here is {max(versions.values())}" if versions else "there is none here"
    raise ProgramMissing(
        f"a backup of PostgreSQL {server_version} needs pg_dump of version {server_version} or later, and {newest}",
        hint=f"Install postgresql-client-{server_version}, or name the program with `pg_dump` in the plan.",
    )


def _candidates(program: str | None) -> list[str]:
    if program is not None:
        return [program]
    own = sorted(str(path) for pattern in _INSTALLED for path in Path("/").glob(pattern))
    # last, because Debian's pg_dump on the PATH is a script that looks for one of the others
    on_path = shutil.which("pg_dump")
    return [*own, on_path] if on_path else own


def _version(path: str) -> int | None:
    try:
        done = subprocess.run(  # noqa: S603
            [path, "--version"], capture_output=True, text=True, env=child_environment(), check=False
        )
    except OSError:
        return None
    found = _VERSION.search(done.stdout)
    return int(found[1]) if found else None
