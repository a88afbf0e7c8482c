"""Which tests run on which versions of Redis."""

from __future__ import annotations

import os
import zlib

import pytest

from tests.blocks.sources.conftest import REDIS_VERSIONS


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave each case of a test to one of the versions, to keep `make test` short; `make faults` runs all on all.

    The conformance suite has every version in any case. What is marked `one_redis` does not depend on the version: what
    flows, restores and undoing do with keys, once these are read and before they are sent. A hash of the case's name
    says which version it is left to, so that each has about half of them, of every parameter, and always the same ones.
    """
    items[:] = [item for item in items if not _is_others(item)]


def _is_others(item: pytest.Item) -> bool:
    if item.get_closest_marker("one_redis") is None and "LASTGOOD_WHOLE" in os.environ:
        return False
    assert isinstance(item, pytest.Function)
    if "redis_program" not in item.fixturenames:
        return False
    version = item.callspec.params["redis_program"]
    case = item.nodeid.replace(version, "")
    return REDIS_VERSIONS[zlib.crc32(case.encode()) % len(REDIS_VERSIONS)] != version
