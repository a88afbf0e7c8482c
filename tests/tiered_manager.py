"""A state manager with hot, warm and cold tiers whose methods swallow their errors, as the original system's do."""

from __future__ import annotations

import copy
import logging
from enum import Enum
from fnmatch import fnmatchcase

logger = logging.getLogger(__name__)


class StateCategory(Enum):
    HOT = "hot"
    WARM = "warm"
    COLD = "cold"


class StateManager:
    """Keeps each key in the tier that it was set with; an error is logged, and answered with False, None or nothing."""

    def __init__(self) -> None:
        self.tiers: dict[StateCategory, dict[str, object]] = {category: {} for category in StateCategory}
        self.failing: set[str] = set()
        """Names of the methods whose tier does not answer."""

    @property
    def values(self) -> dict[str, object]:
        return {key: value for tier in self.tiers.values() for key, value in tier.items()}

    def _check(self, method: str) -> None:
        if method in self.failing:
            raise ConnectionError("the tier does not answer")

    async def get_keys_by_pattern(self, pattern: str) -> list[str]:
        try:
            self._check("get_keys_by_pattern")
            return [key for key in self.values if fnmatchcase(key, pattern)]
        except Exception:
            logger.exception("get_keys_by_pattern")
            return []

    async def get_state(self, key: str, default: object = None) -> object:
        try:
            self._check("get_state")
            return copy.deepcopy(self.values.get(key, default))
        except Exception:
            logger.exception("get_state")
            return default

    async def set_state(self, key: str, value: object, category: StateCategory) -> bool:
        try:
            self._check("set_state")
            for tier in self.tiers.values():
                tier.pop(key, None)
            self.tiers[category][key] = copy.deepcopy(value)
            return True
        except Exception:
            logger.exception("set_state")
            return False

    async def batch_set_state(self, updates: dict[str, tuple[object, StateCategory]]) -> int:
        done = 0
        for key, (value, category) in updates.items():
            done += await self.set_state(key, value, category)
        return done

    async def delete_state(self, key: str) -> bool:
        try:
            self._check("delete_state")
            there = key in self.values
            for tier in self.tiers.values():
                tier.pop(key, None)
        except Exception:
            logger.exception("delete_state")
            return False
        else:
            return there

    async def create_snapshot(self) -> dict[str, object] | None:
        try:
            self._check("create_snapshot")
            return copy.deepcopy(self.values)
        except Exception:
            logger.exception("create_snapshot")
            return None
