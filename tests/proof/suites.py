"""The suites of the proof: careful ones, written by hand for a good copy of each store, and suggested ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from blocks.plan.plan import BackupPlan
from blocks.plan.quality.suite import Format
from flows.cli.commands.quality import HISTORY
from flows.proving.evidence import draft, gather
from flows.proving.suggest import suggested
from tests.proof.planted import FAULTS, SOUND, Fault

HERE = Path(__file__).parent / "suites"
OF_SUGGESTED, OF_CAREFUL = "suggested", "careful"
"""What the names of suites begin with."""
_TEMPLATES = {"books": "books.yaml", "ledger": "ledger.yaml", "cache": "cache.yaml"}
_FORMATS: dict[str | None, Format] = {
    "quote:*": "json",
    "position:*": "hash",
    "trades.csv": "csv",
    "events.jsonl": "json_lines",
    "bars.parquet": "parquet",
}


def _careful(store: str, name: str) -> list[dict[str, Any]]:
    """The careful suites of a copy."""
    text = (HERE / _TEMPLATES.get(store, "feed.yaml")).read_text()
    suites: list[dict[str, Any]] = yaml.safe_load(text.replace("{name}", name))
    return suites


def _about(fault: Fault) -> list[dict[str, Any]]:
    """The careful suites of what a fault is in; those of the sound copies are all evaluated."""
    name = fault.collection.removeprefix("cache/") if fault.store == "cache" else fault.name
    suites = _careful(fault.store, name)
    return [one for one in suites if (one["collection"], one.get("keys")) == (fault.collection, fault.keys)]


def write_careful(folder: Path) -> str:
    """Write the careful suites of sound copies, and of what faults in rows are in; return the path."""
    suites = [one for fault in FAULTS if fault.in_rows for one in _about(fault)]
    for store, name in SOUND.items():
        suites += _careful(store, "db1" if store == "cache" else name)
    return _written(folder / "careful.json", suites)


def write_suggested(plan: BackupPlan, folder: Path) -> str:
    """Write what `lastgood quality suggest --values` suggests by the good history, unchanged; return the path."""
    repository = plan.repository.unlock(plan.encryption)
    backup = repository.find(plan.name)
    collections = {one.name: one for one in backup.collections}
    about = [(fault.collection, fault.keys) for fault in FAULTS if fault.in_rows]
    about += [("books/sound.accounts", None), ("books/sound.fills", None), ("ledger/lite_sound_entries", None)]
    about += [("cache/db1", "quote:*"), ("cache/db1", "position:*"), ("feed_sound/tree", "trades.csv")]
    suites = []
    for collection, keys in about:
        drafted = draft(collections[collection], keys, _FORMATS.get(keys))
        suite = suggested(gather(repository, backup, drafted, HISTORY, True, lambda said: None))
        # a suite that looks at some of the keys is called as one that looks at others
        suites.append(suite | {"name": f"{OF_SUGGESTED} {len(suites)}"})
    return _written(folder / "suggested.json", suites)


def _written(path: Path, suites: list[Any]) -> str:
    path.write_text(json.dumps(suites))
    return str(path)
