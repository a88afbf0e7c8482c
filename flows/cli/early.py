"""What a plan tells before it is really read: enough to begin what takes long, while modules are still imported.

Whatever is wrong is left to the command, which looks at everything again and says so.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from blocks import names
from blocks.durable import local_path
from blocks.errors import LastgoodError
from blocks.passphrase import passphrase_at, passphrase_in
from blocks.stretching import Cost, begin

_LARGEST_CONFIG_BYTES = 1024 * 1024
_MOST_MEMORY_KIB = 256 * 1024
_WRONG = (OSError, ValueError, TypeError, LookupError, RuntimeError, yaml.YAMLError, LastgoodError)


def glance(plan: Path) -> Mapping[object, object]:
    """Return what stands in a plan; nothing where it is no file, or not a plan. A pipe can be read only once.

    Args:
        plan: Path of the plan.
    """
    try:
        path = plan.expanduser()
        found = yaml.safe_load(path.read_bytes()) if path.is_file() else None
    except _WRONG:
        return {}
    return found if isinstance(found, dict) else {}


def may_use_pandas(plan: Mapping[object, object]) -> bool:
    """Tell whether a plan names somebody's own code, or does not say what it names."""
    match plan:
        case {"sources": dict(sources)}:
            return any(not isinstance(each, dict) or each.get("type") in (None, "mapping") for each in sources.values())
    return True


def begin_unlocking(folder: Path, plan: Mapping[object, object]) -> None:
    """Begin to derive the key of a plan's repository, if its credential is a passphrase.

    Args:
        folder: Where the plan is.
        plan: What stands in it.
    """
    try:
        _begin(folder.expanduser().absolute(), plan)
    except _WRONG:
        return


def begin_viewing(folder: Path, plan: Mapping[object, object], *, incremental: bool) -> None:
    """Begin to open views of a plan's sources; not where hooks have to run before anything is looked at.

    Args:
        folder: Where the plan is.
        plan: What stands in it.
        incremental: Whether it will be asked what changed since a base.
    """
    # which of the sources are imported depends on what this process does without
    from blocks.sources.base import StateSource
    from blocks.sources.kinds import source_of

    match plan:
        case {"sources": dict(sources)} if not plan.get("hooks"):
            for said in sources.values():
                with suppress(*_WRONG):
                    kind = source_of([said["type"]])
                    # else the plan names none that there is
                    if isinstance(kind, type) and issubclass(kind, StateSource):
                        source = kind.model_validate(said).anchored(folder.expanduser().absolute())
                        source.begin(incremental=incremental)


def _begin(folder: Path, plan: Mapping[object, object]) -> None:
    match plan:
        case {"repository": {"url": str(url)}, "encryption": {"credential": dict(credential)}}:
            passphrase = _passphrase(folder, credential)
        case _:
            return
    if passphrase is None:
        return
    config = folder / local_path(url) / names.CONFIG
    if not config.is_file() or config.stat().st_size > _LARGEST_CONFIG_BYTES:
        return
    match json.loads(config.read_bytes()):
        case {"encryption": {"slots": list(slots)}}:
            costs = {slot["role"]: _cost(slot["kdf"]) for slot in reversed(slots) if slot["kdf"]["name"] == "argon2id"}
        case _:
            return
    cost = costs.get("reader", costs.get("writer"))
    # whether the file is whole has not been looked at
    if cost and cost.memory_kib <= _MOST_MEMORY_KIB:
        begin(passphrase, cost)


def _passphrase(folder: Path, credential: Mapping[object, object]) -> bytes | None:
    """Read a credential's passphrase, unless it has to be asked for elsewhere, or can be read only once."""
    match credential:
        case {"passphrase_env": str(name), **other} if not other:
            return passphrase_in(name)
        case {"passphrase_file": str(name), **other} if not other:
            file = folder / Path(name).expanduser()
            return passphrase_at(file) if file.is_file() else None
    return None


def _cost(kdf: Mapping[str, Any]) -> Cost:
    return Cost(base64.b64decode(kdf["salt"], validate=True), kdf["iterations"], kdf["memory_kib"], kdf["lanes"])
