"""What a restore calls the keys that it builds, and those that it moves out of the way."""

from __future__ import annotations

import secrets
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import UTC, datetime

from blocks.host.leftovers import owned_name
from blocks.sources.redis.temporary_names import aside_name, old_name


@dataclass
class Names:
    """The names of one restore.

    Attributes:
        plan: Name of the plan.
        clustered: Whether they have to be in the hash slots of their keys.
        guarded: Whether what is replaced is looked at once more before it is removed.
        everything: Whether all that is replaced is kept aside.
        aside: The keys of the database that are kept aside in any case.
    """

    plan: str
    clustered: bool = False
    guarded: bool = False
    everything: bool = False
    aside: AbstractSet[bytes] = frozenset()
    owner: str = ""
    stamp: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}")

    def __post_init__(self) -> None:
        self.owner = self.owner or owned_name("", self.plan)

    @property
    def moving(self) -> bool:
        """Whether any key may have to make room, and is not just replaced."""
        return self.guarded or self.everything or bool(self.aside)

    def old(self, key: bytes) -> bytes:
        """Name what a key held before."""
        return old_name(key, self.owner)

    def kept(self, key: bytes) -> bytes:
        """Name what is kept aside of a key."""
        return aside_name(key, self.stamp, self.clustered)

    def moved(self, key: bytes) -> bytes | None:
        """Return where the content of a key goes that another takes the place of; None where it just goes."""
        if self.everything or key in self.aside:
            return self.kept(key)
        return self.old(key) if self.guarded else None
