"""A first plan, with comments, from what it is to back up: folders, files, URLs. Nothing is connected to."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from blocks.errors import ConfigurationError
from blocks.host.passwords import has_password, without_password
from blocks.storage.kinds import scheme_of

_SQLITE, _RDB = b"SQLite format 3\0", b"REDIS"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")
_KINDS = {
    "postgres": "postgres",
    "postgresql": "postgres",
    "redis": "redis",
    "rediss": "redis",
    "redis+sentinel": "redis",
    "redis+cluster": "redis",
    "unix": "redis",
    "s3": "files",
    "file": "files",
}
"""The type of source by the scheme of a URL."""
_ALLOWED = "Give a folder, an SQLite file, an RDB file, or a URL of postgresql://, redis://, rediss:// or s3://."
_PLAIN = re.compile(r"[A-Za-z0-9./~_-]+")

_TEXT = """\
# What is backed up, where to, under which key, and for how long. Relative paths count from this file's folder.
name: {name}

sources:
{sources}

repository:
  url: {repository}

# The passphrase itself is never written here. Without it, and without the recovery key that `lastgood init` prints,
# nobody can read the backups. `encryption: none` keeps them readable for anybody who can read the repository.
encryption:
  credential: {{{credential}}}

# What an emergency backup on demand takes, and what is checked first on the worst day; everything if nothing is said.
# critical: ["{first}/*"]

# How long backups are kept, by type; these are the defaults. What a kept backup depends on stays, too.
# retention: {{full: 90d, differential: 30d, incremental: 7d, snapshot: 7d, emergency: 180d}}

# When the jobs run with `lastgood serve` or `lastgood deploy`; these are the defaults. Also a cron text, or off.
# schedules: {{full: 1d, differential: 6h, incremental: 15m, verify: 7d, retention: 1d}}

# Whether each backup is proved right after it is made: off, quick (every row is read back and compared), or deep (it is
# also restored to a scratch place, and the quality suites run there).
# verify_after_backup: quick

# Commands around the reading of state, to let writers pause.
# hooks: {{before: ["./pause.sh"], after: ["./resume.sh"]}}

# Who is told of failures and of bad backups: email, slack, webhook, a block of Prefect, a dead man's switch (ping).
# notifications: [{{type: slack, url_env: SLACK_URL}}]

# Files with what restored state has to satisfy; `lastgood quality suggest` writes a first one after a backup.
# quality: [./quality/{first}.yaml]
"""


@dataclass
class Draft:
    """A plan as text.

    Attributes:
        text: The YAML.
        passwords: By the name of the environment variable the source whose password it is to hold.
    """

    text: str
    passwords: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Source:
    kind: str
    fields: dict[str, str]
    name: str
    secret: bool = False


def draft(
    what: Sequence[str],
    out: Path | None = None,
    *,
    name: str | None = None,
    repository: str | None = None,
    passphrase_file: str | None = None,
) -> Draft:
    """Write a plan for some places.

    Args:
        what: Paths of folders and files, and URLs.
        out: Where the plan will be; None for this folder.
        name: Name of the plan.
        repository: Path or URL of its repository.
        passphrase_file: File with the passphrase; None for the variable LASTGOOD_PASSPHRASE.

    Raises:
        ConfigurationError: One of them is not there, or is nothing that can be backed up.
    """
    folder = (out.parent if out is not None else Path()).absolute()
    made = Draft("")
    lines: list[str] = []
    taken: list[str] = []
    for place in what:
        source = _source(place, folder)
        called = _unique(source.name, taken)
        taken.append(called)
        fields = {"type": source.kind, **source.fields}
        if source.secret:
            variable = f"{re.sub(r'[^A-Z0-9]', '_', called.upper())}_PASSWORD"
            fields["password_env"] = variable
            made.passwords[variable] = f"source {called}"
        lines.append(
            f"  {_quoted(called)}: {{{', '.join(f'{key}: {_quoted(value)}' for key, value in fields.items())}}}"
        )
    if repository is None:
        kept = "./backups"
    else:
        kept = repository if _SCHEME.match(repository) else _beside(Path(repository), folder)
    if has_password(kept):
        raise ConfigurationError(
            "--repository: there is a password in it, where the plan would show it",
            hint="Leave it out, and name the variable that holds it under `storage` in the plan.",
        )
    if repository is not None:
        scheme_of(repository)  # before it is taken for a path beside the plan
    credential = (
        "passphrase_env: LASTGOOD_PASSPHRASE"
        if passphrase_file is None
        else f"passphrase_file: {_quoted(_beside(Path(passphrase_file), folder))}"
    )
    made.text = _TEXT.format(
        name=_quoted(name or _plan_name(out.stem if out is not None else taken[0])),
        sources="\n".join(lines),
        repository=_quoted(kept),
        credential=credential,
        first=taken[0],
    )
    return made


def _source(place: str, folder: Path) -> _Source:
    found = _SCHEME.match(place)
    if found is None:
        return _local(Path(place).expanduser(), place, folder)
    kind = _KINDS.get(found[1].lower())
    if kind is None:
        raise ConfigurationError(f"state at {found[1]}:// cannot be backed up", hint=_ALLOWED)
    secret = has_password(place)
    shown = without_password(place).replace("//@", "//") if secret else place
    if "***" in shown or has_password(shown):
        raise ConfigurationError(
            f"a {found[1]}:// URL holds a password where it cannot be taken out",
            hint="Give it without the password, and name the variable that holds it as `password_env` in the plan.",
        )
    if secret and kind == "files":
        raise ConfigurationError(
            "there are credentials in the URL of a bucket",
            hint="Give it without them: they are found in the environment, or named under `storage` in the plan.",
        )
    if kind == "files" and found[1].lower() == "file":
        return _local(Path(urlsplit(place).path), place, folder)
    parts = urlsplit(shown)
    inside = parts.path.strip("/").rpartition("/")[2]
    if kind == "postgres":
        return _Source(kind, {"dsn": shown}, inside or "postgres", secret)
    if kind == "redis":
        return _Source(kind, {"url": shown}, "redis", secret)
    return _Source(kind, {"url": shown}, inside or parts.netloc)


def _local(path: Path, shown: str, folder: Path) -> _Source:
    try:
        if path.is_dir():
            return _Source("files", {"url": _beside(path, folder)}, path.absolute().name or "root")
        with path.open("rb") as file:
            beginning = file.read(len(_SQLITE))
    except OSError as exc:
        raise ConfigurationError(f"{shown}: {exc.strerror}", hint=_ALLOWED) from exc
    if beginning == _SQLITE:
        return _Source("sqlite", {"path": _beside(path, folder)}, path.stem)
    if beginning.startswith(_RDB):
        return _Source("redis", {"url": _beside(path, folder)}, path.stem)
    raise ConfigurationError(
        f"{shown} is neither an SQLite database nor an RDB file",
        hint="Give the folder that it is in, and `include` in the plan names single files.",
    )


def _beside(path: Path, folder: Path) -> str:
    """Write a path as it counts from a folder, if it is inside; else as a whole."""
    whole = Path(os.path.abspath(path.expanduser()))
    return f"./{whole.relative_to(folder)}" if whole.is_relative_to(folder) and whole != folder else str(whole)


def _unique(wanted: str, taken: Iterable[str]) -> str:
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", wanted).strip("-._")[:50] or "source"
    names = set(taken)
    return next(
        one for one in (stem, *(f"{stem}-{number}" for number in range(2, 2 + len(names) + 1))) if one not in names
    )


def _plan_name(wanted: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", wanted.lower()).strip("-._")[:60] or "plan"


def _quoted(text: str) -> str:
    """Write text as YAML reads it back."""
    plain = (_PLAIN.fullmatch(text) and text[0] in "./") or re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", text)
    words = ("true", "false", "yes", "no", "on", "off", "null", "y", "n")
    return text if plain and text.lower() not in words else json.dumps(text, ensure_ascii=False)
