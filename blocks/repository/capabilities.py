"""What a storage can do, proved by trying it: commits and leases depend on exclusive creation."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier

from blocks.errors import AlreadyExists, LastgoodError
from blocks.records import Record
from blocks.repository import names
from blocks.storage.base import StorageTier

WRITERS = 8
"""Writers that race for one object."""


class Capabilities(Record):
    """What was proved of a storage when the repository was made; kept in lastgood.json.

    Attributes:
        exclusive_creation: Of several writers that create one object exactly one succeeds.
        ranges: A part of an object can be read.
        list_after_write: An object is listed right after it was written, and not after it was removed.
    """

    exclusive_creation: bool
    ranges: bool
    list_after_write: bool


def prove(tier: StorageTier) -> Capabilities:
    """Find out what a storage can do, with one object that is removed again.

    Args:
        tier: One that does not look before it creates, as tiers of a single writer do.

    Raises:
        RepositoryUnavailable: The storage failed, or may not be written.
    """
    name = names.probe()
    try:
        won = _race(tier, name)
        found = tier.get(name)
        ranges = tier.get(name, 3, 4) == found[3:7] and tier.get(name, len(found) - 2, 9) == found[-2:]
        capabilities = Capabilities(
            # last, because what is not refused replaces the object
            exclusive_creation=won == [found] and _refuses(tier, name),
            ranges=ranges,
            list_after_write=_lists(tier, name),
        )
    except BaseException:
        with suppress(LastgoodError):  # what failed first is the one to be seen
            tier.remove([name])
        raise
    tier.remove([name])
    return capabilities.model_copy(
        update={"list_after_write": capabilities.list_after_write and not _lists(tier, name)}
    )


def _refuses(tier: StorageTier, name: str) -> bool:
    """Whether an object that was there before is not created again."""
    try:
        tier.put(name, b"another writer", exclusive=True)
    except AlreadyExists:
        return True
    return False


def _lists(tier: StorageTier, name: str) -> bool:
    return any(stored.name == name for stored in tier.list(names.PROBES))


def _race(tier: StorageTier, name: str) -> list[bytes]:
    """Let writers create one object at once; return the contents of those that were told that they did."""
    start = Barrier(WRITERS)

    def write(number: int) -> bytes | None:
        content = f"writer {number} of {name}".encode()
        start.wait()
        try:
            tier.put(name, content, exclusive=True)
        except AlreadyExists:
            return None
        return content

    with ThreadPoolExecutor(WRITERS) as pool:
        return [content for content in pool.map(write, range(WRITERS)) if content is not None]
