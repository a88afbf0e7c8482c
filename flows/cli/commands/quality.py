"""The quality group of commands: check suites without reading data, and suggest a first one."""

from __future__ import annotations

import json as json_text
from argparse import ArgumentParser
from pathlib import Path
from typing import get_args

import yaml
from pydantic import JsonValue

from blocks.errors import BackupNotFound, ConfigurationError
from blocks.plan.plan import BackupPlan
from blocks.plan.quality.suite import Format
from blocks.records import BackupMetadata, Collection
from flows.cli import options
from flows.cli.options import meant
from flows.cli.output import note, say, say_json
from flows.cli.running import open_plan
from flows.cli.tables import grid
from flows.proving.evidence import draft, gather
from flows.proving.suggest import suggested
from flows.proving.suite_check import SuiteCheck, check_suites

HISTORY = 5
"""How many earlier backups a suggestion looks at, if nothing is said."""


def check_arguments(command: ArgumentParser) -> None:
    """Declare what `quality check` takes."""
    options.plan(command)
    options.json(command)


def check(plan: str, *, json: bool) -> int:
    """Check the quality suites of a plan against its newest backup, without reading a row; exit code 2 for a fault."""
    opened = open_plan(plan)
    backup = _newest(opened)
    found = check_suites(opened.quality, backup)
    if json:
        say_json(_check_json(opened, backup, found))
    else:
        _show_check(backup, found)
    return ConfigurationError.exit_code if found.faults else 0


def _newest(plan: BackupPlan) -> BackupMetadata | None:
    repository = plan.repository.unlock(plan.encryption)
    try:
        return repository.find(plan.name)
    except BackupNotFound:
        return None


def _show_check(backup: BackupMetadata | None, found: SuiteCheck) -> None:
    if found.suites:
        table = grid("suite", "collection", ">expectations", "file")
        for file, suite, about in found.suites:
            table.add_row(suite.name, ", ".join(about) or suite.collection, str(len(suite.expectations)), file)
        say(table)
    for fault in found.faults:
        say(f"found: {fault}")
    if backup is None:
        note("there is no backup yet, so collections and columns were not looked at")
    if found.faults:
        note(f"{len(found.faults)} faults in {len({fault.file for fault in found.faults})} files")
    elif not found.suites:
        note("the plan names no file under `quality`")
    else:
        say("nothing is wrong")


def _check_json(plan: BackupPlan, backup: BackupMetadata | None, found: SuiteCheck) -> JsonValue:
    return {
        "plan": plan.name,
        "backup_id": backup.backup_id if backup else None,
        "suites": [
            {"suite": suite.name, "file": file, "collections": [*about], "expectations": len(suite.expectations)}
            for file, suite, about in found.suites
        ],
        "faults": [
            {"file": one.file, "suite": one.suite, "number": one.number, "sentence": one.sentence}
            for one in found.faults
        ],
    }


def suggest_arguments(command: ArgumentParser) -> None:
    """Declare what `quality suggest` takes."""
    options.plan(command)
    command.add_argument("collection", metavar="COLLECTION", help="Full name of a collection, such as ledger/orders.")
    options.value(command, "--keys", "GLOB", "Only keys or paths such as quote:*, of which a table is made.")
    options.value(
        command,
        "--format",
        "FORMAT",
        "What stands under the keys, whose fields become columns: " + ", ".join(get_args(Format)) + ".",
        choices=get_args(Format),
    )
    options.value(command, "--backup", "BACKUP", "The backup to look at; the latest if not given.", default="latest")
    options.value(
        command, "--history", "N", f"Earlier backups to look at, else {HISTORY}; 0 for none.", type=int, default=HISTORY
    )
    options.flag(command, "--values", "List the texts of columns that have few: they are values of rows.")
    options.value(command, "--out", "FILE", "Write a new file (.yaml, .yml or .json) instead of stdout.", type=Path)


def suggest(
    plan: str,
    collection: str,
    *,
    keys: str | None,
    format: Format | None,
    backup: str,
    history: int,
    values: bool,
    out: Path | None,
) -> None:
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
    about = draft(_collection(found, collection), keys, format)
    evidence = gather(repository, found, about, history, values, note)
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
    "check": options.Command("Check the suites of a plan, without reading data.", check_arguments, check),
    "suggest": options.Command("Suggest a first suite for a collection.", suggest_arguments, suggest),
}
