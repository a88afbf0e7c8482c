"""Configuration and models: files that change now and then."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

from . import SYMBOLS

MODEL_BYTES = 1_500_000


def create_configuration(folder: Path) -> None:
    """Write limits of every symbol, and settings of a strategy."""
    folder.mkdir()
    for symbol in SYMBOLS:
        limits = {"symbol": symbol, "limits": {"position": 5_000, "order": 200}, "venues": ["north", "süd"]}
        (folder / f"{symbol.lower()}.json").write_text(json.dumps(limits, indent=2, ensure_ascii=False), "utf-8")
    (folder / "strategies").mkdir()
    (folder / "strategies" / "momentum.json").write_text(json.dumps({"window": 20, "threshold": 0.015}), "utf-8")


def create_models(folder: Path) -> None:
    """Write models, and a link to the current one."""
    (folder / "archive").mkdir(parents=True)
    for name in ("momentum.bin", "reversal.bin", "archive/momentum-2024.bin"):
        (folder / name).write_bytes(os.urandom(MODEL_BYTES))
    (folder / "current").symlink_to("momentum.bin")


def retire(folder: Path) -> int:
    """Delete a model and the limits of a symbol; return how many files went."""
    retired = folder / "models" / "archive" / "momentum-2024.bin"
    files = [path for path in (retired, folder / "config" / "halo.json") if path.exists()]
    for path in files:
        path.unlink()
    return len(files)


def retrain(folder: Path, chance: random.Random, name: str) -> None:
    """Change a model in the middle, add another one, and change a setting."""
    models = folder / "models"
    with (models / "momentum.bin").open("r+b") as model:
        model.seek(MODEL_BYTES // 3)
        model.write(os.urandom(1_000))
    (models / f"{name}.bin").write_bytes(os.urandom(MODEL_BYTES // 2))
    setting = {"window": chance.randint(10, 50), "threshold": 0.02}
    (folder / "config" / "strategies" / "momentum.json").write_text(json.dumps(setting), "utf-8")
