"""Who can open a plan's repository: key list, key add, key remove."""

from __future__ import annotations

import secrets
from argparse import ArgumentParser
from pathlib import Path

from pydantic import ValidationError

from blocks.crypto.credential import check_new_key_file
from blocks.crypto.encoding import KEY_BYTES
from blocks.crypto.encryption_config import EncryptionObject
from blocks.crypto.keyring import Credential, Keyring, RecoveryKey, Role, write_key_file
from blocks.crypto.repository_keys import RECOVERY_LABEL, SlotInfo, add_slot, list_slots, remove_slot, slots_opened
from blocks.errors import ConfigurationError, LastgoodError, NotConfirmed
from blocks.plan.plan import BackupPlan
from blocks.repository.block import Repository
from flows.cli import options
from flows.cli.output import asks, interactive, note, say, say_json
from flows.cli.running import open_plan
from flows.cli.tables import grid


def list_keys_arguments(command: ArgumentParser) -> None:
    """Declare what `key list` takes."""
    options.plan(command)
    options.json(command)


def list_keys(plan: str, *, json: bool) -> None:
    """List the credentials that open the plan's repository; the plan's own credential is checked first."""
    opened = open_plan(plan)
    repository = _unlock(opened)
    encryption = repository.config.encryption
    _show(list_slots(encryption), json, _own(opened, encryption, repository.repository_id))


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
    before = repository.config.encryption
    if generate and key_file is not None:
        check_new_key_file(key_file)
        key = RecoveryKey(secrets.token_bytes(KEY_BYTES))
        changed = add_slot(before, repository.keys, key, role, label)
        _save_with_file(opened, before, changed, key_file, key)
    else:
        changed = add_slot(before, repository.keys, credential, role, label)
        opened.repository.save_encryption(changed)
    known = {slot.id for slot in list_slots(before)}
    own = _own(opened, changed, repository.repository_id)
    _show([slot for slot in list_slots(changed) if slot.id not in known], json, own)
    if generate:
        note(f"the new key is in {key_file}: keep a copy of it elsewhere")


def _save_with_file(
    plan: BackupPlan, before: EncryptionObject, changed: EncryptionObject, path: Path, key: RecoveryKey
) -> None:
    """Save a new slot and then its key: one that is killed in between leaves no file with a key that opens nothing."""
    plan.repository.save_encryption(changed)
    try:
        write_key_file(path, key.text)
    except BaseException as exc:
        try:
            plan.repository.save_encryption(before)
        except LastgoodError as more:
            # what went wrong first is what has to be mended
            raise type(exc)(f"{exc}; and a slot stays to which there is no key ({more.message})") from exc
        raise


def remove_arguments(command: ArgumentParser) -> None:
    """Declare what `key remove` takes."""
    options.plan(command)
    command.add_argument("slot", metavar="SLOT", help="Id that `key list` shows.")
    options.flag(command, "--yes", "Also where the plan's own credential, or the last one of its role, is taken away.")
    options.json(command)


def remove(plan: str, slot: str, *, yes: bool, json: bool) -> None:
    """Take a credential away.

    A copy of lastgood.json can still be used with that credential.
    """
    opened = open_plan(plan)
    repository = _unlock(opened)
    before = repository.config.encryption
    changed = remove_slot(before, repository.keys, slot)
    if lost := _lost(opened, before, slot, repository.repository_id):
        if not yes and not (interactive() and not json and asks(f"Slot {slot} is {lost}. Remove it?")):
            raise NotConfirmed(
                f"slot {slot} of plan {opened.name} is {lost}; nothing was changed",
                hint="Add another one first, and give it to the plan where it is the plan's, or add --yes.",
            )
        note(f"slot {slot} was {lost}")
    opened.repository.save_encryption(changed)
    _show(list_slots(changed), json, _own(opened, changed, repository.repository_id))


def _lost(plan: BackupPlan, encryption: EncryptionObject, slot: str, repository_id: str) -> str | None:
    """Say what is lost with a slot, if somebody will miss it."""
    assert isinstance(plan.encryption, Keyring)
    if slot in _own(plan, encryption, repository_id):
        return "opened by the credential that the plan itself names"
    slots = list_slots(encryption)
    role = next(one.role for one in slots if one.id == slot)
    if sum(one.role is role for one in slots) == 1:
        return f"the last one of a {role.value}"
    if [one.id for one in slots if one.label == RECOVERY_LABEL] == [slot]:
        return "the last recovery key, without which a lost credential cannot be replaced"
    return None


def _own(plan: BackupPlan, encryption: EncryptionObject, repository_id: str) -> frozenset[str]:
    """Return the slots that the credential opens which the plan names."""
    assert isinstance(plan.encryption, Keyring)
    return frozenset(one.id for one in slots_opened(encryption, plan.encryption.credential, repository_id))


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


def _show(slots: tuple[SlotInfo, ...] | list[SlotInfo], json: bool, own: frozenset[str]) -> None:
    if json:
        say_json({"slots": [slot.model_dump(mode="json") | {"in_use": slot.id in own} for slot in slots]})
        return
    table = grid("slot", "role", "kind", "label", "")
    for slot in slots:
        table.add_row(slot.id, slot.role.value, slot.kind.value, slot.label, "in use" if slot.id in own else "")
    say(table)


COMMANDS = {
    "list": options.Command("List the credentials that open the repository.", list_keys_arguments, list_keys),
    "add": options.Command("Let one more credential open the repository.", add_arguments, add),
    "remove": options.Command("Take a credential away.", remove_arguments, remove),
}
