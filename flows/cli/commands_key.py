"""Who can open a plan's repository: key list, key add, key remove."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

from pydantic import ValidationError

from blocks.errors import ConfigurationError
from blocks.keyring import (
    Credential,
    Role,
    SlotInfo,
    add_slot,
    generate_key_file,
    list_slots,
    remove_slot,
)
from blocks.plan import BackupPlan
from blocks.repository import Repository
from flows.cli import options
from flows.cli.console import note, say, say_json
from flows.cli.planning import open_plan
from flows.cli.render import grid


def list_keys_arguments(command: ArgumentParser) -> None:
    """Declare what `key list` takes."""
    options.plan(command)
    options.json(command)


def list_keys(plan: str, *, json: bool) -> None:
    """List the credentials that open the plan's repository; the plan's own credential is checked first."""
    opened = open_plan(plan)
    _show(list_slots(_unlock(opened).config.encryption), json)


def add_arguments(command: ArgumentParser) -> None:
    """Declare what `key add` takes."""
    options.plan(command)
    options.kind(
        command,
        "--role",
        Role,
        "A writer makes backups and sees what is known of them; a reader also restores.",
        required=True,
    )
    options.value(command, "--label", "TEXT", "What `key list` calls the credential.", required=True)
    options.value(command, "--passphrase-env", "NAME", "Environment variable with the new passphrase.")
    options.value(command, "--passphrase-file", "PATH", "File with the new passphrase.", type=Path)
    options.value(command, "--key-file", "PATH", "Key file of the new credential.", type=Path)
    options.flag(command, "--generate", "Create the key file first, with a fresh key.")
    options.json(command)


def add(
    plan: str,
    *,
    role: Role,
    label: str,
    passphrase_env: str | None,
    passphrase_file: Path | None,
    key_file: Path | None,
    generate: bool,
    json: bool,
) -> None:
    """Let one more credential open the repository."""
    opened = open_plan(plan)
    repository = _unlock(opened)
    if generate and key_file is None:
        raise ConfigurationError("--generate makes a key file", hint="Name it with --key-file PATH.")
    credential = _credential(passphrase_env, passphrase_file, key_file)
    if generate and key_file is not None:
        generate_key_file(key_file)
    before = list_slots(repository.config.encryption)
    changed = add_slot(repository.config.encryption, repository.keys, credential, role, label)
    opened.repository.save_encryption(changed)
    known = {slot.id for slot in before}
    _show([slot for slot in list_slots(changed) if slot.id not in known], json)
    if generate:
        note(f"the new key is in {key_file}: keep a copy of it elsewhere")


def remove_arguments(command: ArgumentParser) -> None:
    """Declare what `key remove` takes."""
    options.plan(command)
    command.add_argument("slot", metavar="SLOT", help="Id that `key list` shows.")
    options.json(command)


def remove(plan: str, slot: str, *, json: bool) -> None:
    """Take a credential away.

    Whoever kept a copy of lastgood.json can still use it with that credential.
    """
    opened = open_plan(plan)
    repository = _unlock(opened)
    changed = remove_slot(repository.config.encryption, repository.keys, slot)
    opened.repository.save_encryption(changed)
    _show(list_slots(changed), json)


def _unlock(plan: BackupPlan) -> Repository:
    repository = plan.repository.unlock(plan.encryption)
    if not repository.keys.encrypted:
        raise ConfigurationError(
            f"the repository at {repository.url} is not encrypted, so it has no keys",
            hint="Whether it is encrypted is chosen once, when `lastgood init` creates it.",
        )
    return repository


def _credential(passphrase_env: str | None, passphrase_file: Path | None, key_file: Path | None) -> Credential:
    try:
        return Credential(passphrase_env=passphrase_env, passphrase_file=passphrase_file, key_file=key_file)
    except ValidationError as exc:
        raise ConfigurationError(
            "a credential is one passphrase or one key",
            hint="Give exactly one of --passphrase-env, --passphrase-file and --key-file.",
        ) from exc


def _show(slots: tuple[SlotInfo, ...] | list[SlotInfo], json: bool) -> None:
    if json:
        say_json({"slots": [slot.model_dump(mode="json") for slot in slots]})
        return
    table = grid("slot", "role", "kind", "label")
    for slot in slots:
        table.add_row(slot.id, slot.role.value, slot.kind.value, slot.label)
    say(table)
