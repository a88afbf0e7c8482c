"""The slow part of opening a repository, begun while most of lastgood is still being imported."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from blocks import names
from blocks.credential import Credential
from blocks.durable import local_path
from blocks.errors import LastgoodError
from blocks.keyslots import Role
from blocks.keystore import parse
from blocks.stretching import Argon2, begin


def begin_unlocking(plan: Path) -> None:
    """Begin to derive the key of a plan's repository, if its credential is a passphrase.

    Whatever is wrong is left to the command, which looks at everything again and says so.

    Args:
        plan: Path of the plan.
    """
    try:
        _begin(plan.expanduser().absolute().parent, yaml.safe_load(plan.expanduser().read_bytes()))
    except (OSError, ValueError, TypeError, yaml.YAMLError, LastgoodError):
        return


def _begin(folder: Path, plan: object) -> None:
    match plan:
        case {"repository": {"url": str(url)}, "encryption": {"credential": dict(names_of)}}:
            credential = Credential.model_validate(names_of).anchored(folder)
        case _:
            return
    if credential.passphrase_env is None and credential.passphrase_file is None:
        return
    match json.loads((folder / local_path(url) / names.CONFIG).read_bytes()):
        case {"encryption": {"slots": list()} as encryption}:
            costs = {slot.role: slot.kdf for slot in reversed(parse(encryption).slots) if isinstance(slot.kdf, Argon2)}
        case _:
            return
    if cost := costs.get(Role.READER, costs.get(Role.WRITER)):
        begin(credential.resolve().value, cost)
