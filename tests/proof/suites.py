"""The careful suites: written by hand for one good copy of each store, and made for every copy."""

from __future__ import annotations

import json
from pathlib import Path

from blocks.plan.plan import BackupPlan
from blocks.plan.quality.suite import Format
from flows.cli.commands.quality import HISTORY
from flows.proving.evidence import draft, gather
from flows.proving.suggest import suggested
from tests.proof.planted import FAULTS, SOUND, Fault

HERE = Path(__file__).parent / "suites"
_TEMPLATES = {"books": "books.yaml", "ledger": "ledger.yaml", "cache": "cache.yaml"}


def careful(fault: Fault) -> str:
    """The suites of the copy that a fault is planted in, as YAML."""
    name = fault.collection.removeprefix("cache/") if fault.store == "cache" else fault.name
    return _of(fault.store, name)


def _of(store: str, name: str) -> str:
    return (HERE / _TEMPLATES.get(store, "feed.yaml")).read_text().replace("{name}", name)


def write_careful(folder: Path) -> list[str]:
    """Write the careful suites of all copies, of those without a fault, too; return their paths."""
    folder.mkdir()
    sound = {store: "db1" if store == "cache" else name for store, name in SOUND.items()}
    texts = {fault.name: careful(fault) for fault in FAULTS}
    texts |= {name: _of(store, name) for store, name in sound.items()}
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text)
    return [str(folder / f"{name}.yaml") for name in texts]


def _looked_at(fault: Fault) -> list[tuple[str, str | None, Format | None]]:
    """What a suite is suggested for: a collection, or keys and files of one, and what they hold."""
    if fault.store == "cache":
        return [(fault.collection, "quote:*", "json"), (fault.collection, "position:*", "hash")]
    if fault.store not in _TEMPLATES:
        files: dict[str, Format] = {"trades.csv": "csv", "events.jsonl": "json_lines", "bars.parquet": "parquet"}
        return [(fault.collection, name, kind) for name, kind in files.items()]
    return [(fault.collection, None, None)]


def write_suggested(plan: BackupPlan, folder: Path) -> list[str]:
    """Write what `lastgood quality suggest --values` suggests by the good history, unchanged; return the paths."""
    folder.mkdir()
    repository = plan.repository.unlock(plan.encryption)
    backup = repository.find(plan.name)
    collections = {one.name: one for one in backup.collections}
    paths = []
    for collection, keys, kind in (one for fault in FAULTS for one in _looked_at(fault)):
        about = draft(collections[collection], keys, kind)
        suite = suggested(gather(repository, backup, about, HISTORY, True, lambda said: None))
        # a suite that looks at some of the keys is called as one that looks at others
        path = folder / f"{len(paths)}.json"
        path.write_text(json.dumps(suite | {"name": f"suggested {len(paths)}"}))
        paths.append(str(path))
    return paths
