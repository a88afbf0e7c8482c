"""What blocks are made of: Prefect's `Block`, or a plain model in a process that does without Prefect."""

from __future__ import annotations

from abc import ABC
from typing import TYPE_CHECKING

from pydantic import BaseModel

from blocks.engine import without_prefect

__all__ = ["Block"]


class _PlainBlock(BaseModel, ABC):
    """A block that is only a model; fields that it does not know are refused where a plan is read."""


if TYPE_CHECKING or not without_prefect():
    from prefect.blocks.core import Block
else:
    Block = _PlainBlock
