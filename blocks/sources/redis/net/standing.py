"""What a server is, and how fresh what it holds is: of a replica, as INFO says it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from blocks.errors import SourceUnavailable
from blocks.sources.redis.net.server import Server

_ATTEMPTS, _PAUSE_SECONDS = 6, 0.05
_PINGED_SECONDS = 30
"""A master says something to its replicas at least that often, with three times the default of patience."""


@dataclass(frozen=True)
class Standing:
    """How far behind its master a server is.

    Attributes:
        behind: So far, as far as is known; zero for a master.
        remarks: What a backup should say of it.
    """

    behind: timedelta = timedelta()
    remarks: tuple[str, ...] = ()


CURRENT = Standing()
"""That of a master, and of what is no server."""


def standing_of(server: Server) -> Standing:
    """Find out how fresh what a server holds is; a link that is down is waited for a little.

    Raises:
        SourceUnavailable: It is a replica that never received anything of its master.
    """
    for attempt in range(_ATTEMPTS):
        facts = server.info("replication", "server")
        if facts.get("role") == "master" or facts.get("master_link_status") == "up":
            break
        time.sleep(_PAUSE_SECONDS * 2**attempt)
    if facts.get("role") == "master":
        return CURRENT
    if facts.get("master_link_status") == "up":
        return _behind(server, facts, int(facts.get("master_last_io_seconds_ago", 0)), up=True)
    down = int(facts.get("master_link_down_since_seconds", -1))
    if down >= 0:
        return _behind(server, facts, down, up=False)
    if not server.keyspace():
        raise SourceUnavailable(
            f"{server} is a replica of {_master(facts)} that has not received its data: it holds nothing",
            hint="Back up its master, or see in its log why it cannot follow it.",
        )
    return _behind(server, facts, int(facts.get("uptime_in_seconds", 0)), up=False)


def _behind(server: Server, facts: Mapping[str, str], seconds: int, *, up: bool) -> Standing:
    if up and seconds <= _PINGED_SECONDS:
        return CURRENT
    since = "has heard nothing from it" if up else "has no link to it"
    remark = (
        f"{server} is a replica of {_master(facts)} and {since} for {seconds} seconds at least: "
        "what it holds is that old, and what was written since is missing."
    )
    return Standing(timedelta(seconds=seconds), (remark,))


def _master(facts: Mapping[str, str]) -> str:
    return f"{facts.get('master_host', 'unknown')}:{facts.get('master_port', '?')}"
