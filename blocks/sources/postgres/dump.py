"""Definitions of a database, as pg_dump writes them for an exported snapshot."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from blocks.errors import ConfigurationError, SourceUnavailable
from blocks.sources.postgres.connect import Session, altered, hint_for, place_of, settings_of
from blocks.sources.postgres.large import large_object_definitions

_VERSION = re.compile(r"\(PostgreSQL\) (\d+)")
_GUARD = re.compile(r"^\\(un)?restrict \w+\n", re.MULTILINE)
_BANNER = re.compile(r"^-- (Dumped (from database|by pg_dump) version|PostgreSQL database dump).*\n", re.MULTILINE)
_PUBLIC = re.compile(r"^CREATE SCHEMA public;$", re.MULTILINE)
_PREAMBLE = re.compile(r"\A(?:(?:--.*|SET .*;|SELECT pg_catalog\.set_config\(.*)?\n)+")
"""What pg_dump begins with, before the first definition."""
_NEW_SETTING = re.compile(r"^SET transaction_timeout = 0;\n", re.MULTILINE)
"""What pg_dump of 17 and later sets, and servers before 17 do not know; our own sessions set it where it exists."""
_WARNING = re.compile(r"^pg_dump: warning: (.+)$", re.MULTILINE)
_SECTIONS = ("pre-data", "post-data")
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
        conninfo: Where to connect to.
        snapshot: The exported snapshot; None for the state of now.
        options: What of the database (-n, -t, -T).
        server_version: Its major version.
        program: The pg_dump to use; None to find one.

    Raises:
        ConfigurationError: There is no pg_dump that is new enough.
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
        done = subprocess.run(write, input=archive, capture_output=True, check=False)  # noqa: S603  as for pg_dump
        if done.returncode:
            return None  # programs of two versions, say
        sections.append((done.stdout.decode(), said))
    return sections


def _one_by_one(command: list[str], conninfo: str) -> list[tuple[str, list[str]]]:
    with ThreadPoolExecutor(len(_SECTIONS)) as pool:
        found = pool.map(lambda name: _run([*command, f"--section={name}"], conninfo), _SECTIONS)
        return [(text.decode(), said) for text, said in found]


def current_definitions(session: Session, conninfo: str, program: str | None) -> Definitions:
    """Write the definitions of a whole database as they are now, those of large objects among them."""
    found = dump_definitions(conninfo, None, (), session.info.server_version // 10000, program)
    return Definitions(found.before + large_object_definitions(session), found.after)


def _run(command: list[str], conninfo: str) -> tuple[bytes, list[str]]:
    # the password must not be among the arguments, where other users of this machine see it
    password = settings_of(conninfo).get("password")
    environment = os.environ | {"LC_ALL": "C"} | ({"PGPASSWORD": password} if password else {})
    done = subprocess.run(  # noqa: S603  the program is pg_dump, and no shell is involved
        [*command, "-d", altered(conninfo, password=None)], capture_output=True, env=environment, check=False
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().replace("\n", " ")
        raise SourceUnavailable(f"pg_dump of {place_of(conninfo)} failed: {said}", hint=hint_for("", said))
    return done.stdout, _WARNING.findall(done.stderr.decode(errors="replace"))


def _bare(text: str) -> str:
    """Take out what differs from one pg_dump to the next: guards with a random word, versions, a setting."""
    # of a chosen schema `public` pg_dump assumes that it is missing, but its privileges are those of the one there is
    text = _PUBLIC.sub("CREATE SCHEMA IF NOT EXISTS public;", text, count=1)
    text = _BANNER.sub("", _GUARD.sub("", text))
    return _PREAMBLE.sub(lambda found: _NEW_SETTING.sub("", found[0]), text)


def find_pg_dump(server_version: int, program: str | None) -> str:
    """Find the pg_dump nearest to the server's version, not below it.

    Raises:
        ConfigurationError: There is none.
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
    raise ConfigurationError(
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
        done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)  # noqa: S603
    except OSError:
        return None
    found = _VERSION.search(done.stdout)
    return int(found[1]) if found else None
