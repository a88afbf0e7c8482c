"""The careful suites: written by hand for one good copy of each store, and made for every copy."""

from __future__ import annotations

from pathlib import Path

from blocks.plan.plan import BackupPlan
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


def write_suggested(plan: BackupPlan, folder: Path) -> list[str]:
    """Write what lastgood suggests by the good history for what each fault is planted in; return the paths."""
    folder.mkdir()
    return []
