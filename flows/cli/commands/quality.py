"""The quality group of commands: look at suites without reading data, and suggest a first one."""

from __future__ import annotations

import json as json_text
from argparse import ArgumentParser
from pathlib import Path

import yaml
from pydantic import JsonValue

from blocks.errors import BackupNotFound, ConfigurationError
from blocks.records import BackupMetadata, Collection
from flows.cli import options
from flows.cli.options import meant
from flows.cli.output import note, say
from flows.cli.running import open_plan
from flows.proving.evidence import gather
from flows.proving.suggest import suggested

HISTORY = 5
"""How many earlier backups a suggestion looks at, if nothing is said."""


def suggest_arguments(command: ArgumentParser) -> None:
    """Declare what `quality suggest` takes."""
    options.plan(command)
    command.add_argument("collection", metavar="COLLECTION", help="Full name of a collection, such as ledger/orders.")
    options.value(command, "--backup", "BACKUP", "The backup to look at; the latest if not given.", default="latest")
    options.value(
        command, "--history", "N", f"Earlier backups to look at, else {HISTORY}; 0 for none.", type=int, default=HISTORY
    )
    options.flag(command, "--values", "List the texts of columns that have few: they are values of rows.")
    options.value(command, "--out", "FILE", "Write a new file (.yaml, .yml or .json) instead of stdout.", type=Path)


def suggest(plan: str, collection: str, *, backup: str, history: int, values: bool, out: Path | None) -> None:
    """Suggest a first quality suite for a collection, from a backup and some before it.

    Rows are read from the repository; live state is not touched. Read what it says, and name the file under `quality`.
    """
    if history < 0:
        raise ConfigurationError(f"--history {history} is no number of backups", hint="Write --history 0 for none.")
    if out is not None:
        _check_new(out)
    opened = open_plan(plan)
    repository = opened.repository.unlock(opened.encryption)
    found = repository.find(opened.name, backup)
    evidence = gather(repository, found, _collection(found, collection), history, values, note)
    suite = suggested(evidence)
    text = _written(suite, f"from {found.backup_id} and {len(evidence.seen) - 1} backups before it", out)
    if out is None:
        say(text.rstrip("\n"))
        return
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as exc:
        raise ConfigurationError(f"{out} cannot be written: {exc.strerror}") from exc
    rules = suite["expectations"]
    assert isinstance(rules, list)
    note(f"{out} has {len(rules)} expectations: read them, and name the file in the plan under `quality`")


def _check_new(path: Path) -> None:
    if path.suffix not in (".json", ".yaml", ".yml"):
        raise ConfigurationError(f"{path} is no name of a suite", hint="Let it end in .yaml, .yml or .json.")
    if path.exists() or path.is_symlink():
        raise ConfigurationError(f"{path} exists; it is not written over", hint="Give another name, or move it away.")


def _collection(backup: BackupMetadata, name: str) -> Collection:
    collections = {one.name: one for one in backup.collections}
    if name not in collections:
        raise BackupNotFound(
            f"backup {backup.backup_id} holds no collection {name!r}{meant(name, collections)}",
            hint=f"`lastgood show` lists its collections; there are {len(collections)}.",
        )
    return collections[name]


def _written(suite: dict[str, JsonValue], source: str, out: Path | None) -> str:
    if out is not None and out.suffix == ".json":
        return json_text.dumps(suite, indent=2, ensure_ascii=False) + "\n"
    text = yaml.safe_dump(suite, sort_keys=False, allow_unicode=True, width=120)
    return f"# suggested by lastgood {source}: what seems to be so, for a person to read\n{text}"


COMMANDS = {
    "suggest": options.Command("Suggest a first suite for a collection.", suggest_arguments, suggest),
}
