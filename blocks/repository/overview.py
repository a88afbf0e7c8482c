"""Listings of a repository: where one request lists all of it, it answers whatever is asked of the same moment."""

from __future__ import annotations

from collections.abc import Sequence

from blocks.storage.base import StorageTier, StoredName


class Overview:
    """Lists the folders of a repository. Thread-safe.

    A repository in a network that is small enough is listed as a whole, whichever folder was asked for.

    Args:
        tier: The tier that holds the repository's objects.
    """

    def __init__(self, tier: StorageTier) -> None:
        self._tier = tier
        self._worth_it = tier.remote
        self._all: Sequence[StoredName] | None = None

    @property
    def complete(self) -> bool:
        """Whether the last listing showed all of the repository."""
        return self._all is not None

    def list(self, prefix: str) -> Sequence[StoredName]:
        """List a folder as it is now; `known` then answers for the same moment, or a later one."""
        if self._worth_it:
            self._all = self._tier.first_page()
            self._worth_it = self._all is not None
        return self.known(prefix)

    def forget(self) -> None:
        """Answer nothing from the last listing any more: what it showed was changed."""
        self._all = None

    def known(self, prefix: str) -> Sequence[StoredName]:
        """Return what the last listing showed of a folder; it is listed now where that one did not show it."""
        everything = self._all
        if everything is None:
            return self._tier.list(prefix)
        return [one for one in everything if one.name.startswith(prefix)]
